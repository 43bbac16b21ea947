//! Content codings beside deflate: brotli (RFC 7932), zstd (RFC 8878) and the LZMA of `.lzma` files, each fed as its bytes come.
//!
//! All three come from crates; here are their caps. Brotli's window is at most 16 MiB (no large windows), LZMA's dictionary
//! [`LZMA_DICTIONARY_MAX`], a zstd window [`ZSTD_WINDOW_MAX`] (what RFC 8878 asks of decoders). A zstd decoder keeps its window back
//! until the frame ends, so what is shown comes later than what was sent.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use lzma_rs::decompress::{Options, Stream};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::encoding::{Coding, Failure, Out, PIECE_BYTES};

/// The reference engine's `lzma-memlimit`.
const LZMA_DICTIONARY_MAX: usize = 1024 * 1024;
/// RFC 8878, section 3.1.1.1.2: at least 8 MiB; RFC 9659 lets no HTTP sender use more.
const ZSTD_WINDOW_MAX: u64 = 8 * 1024 * 1024;
const ZSTD_MAGIC: u32 = 0xfd2f_b528;
/// Magic number, descriptor, window, dictionary, content size.
const ZSTD_HEAD_BYTES_MAX: usize = 18;
const ZSTD_CHECKSUM_BYTES: usize = 4;
/// Bytes given to LZMA at once: what they become waits in memory, some thousand times as much at the worst.
const LZMA_STEP_BYTES: usize = 64;
/// Bytes given to brotli at once: what comes out of them before an error in them is lost.
const BROTLI_STEP_BYTES: usize = 8;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// It wants more.
    More,
    /// So many bytes at the end belong to what follows.
    Ended(usize),
    /// It is not what its label says, or broke off.
    Broken,
    /// LZMA with a larger dictionary than is kept.
    DictionaryTooLarge,
}

/// Windows and dictionaries of all bodies of a worker that are being decoded, by their decoders' own account.
pub(crate) const FOREIGN_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Tables of any of them.
const TABLE_BYTES: usize = 128 * 1024;

/// Counts its own share of them all, for as long as it lives.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    pub fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), bytes: 0 }
    }

    fn is(&mut self, bytes: usize) -> Result<(), Failure> {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        let total = self.all.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.bytes = bytes;
        if total > FOREIGN_BYTES_MAX { Err(Failure::Memory) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

pub(super) enum Foreign {
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Lzma(Box<Stream<Vec<u8>>>),
    Zstd(Box<Zstd>),
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Brotli(_) => "Brotli",
            Self::Lzma(_) => "Lzma",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Foreign {
    /// `None`: deflate is read elsewhere.
    pub fn new(coding: Coding) -> Option<Self> {
        let alloc = StandardAlloc::default;
        match coding {
            Coding::Gzip | Coding::Deflate | Coding::Raw => None,
            Coding::Brotli => Some(Self::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))),
            Coding::Lzma => {
                let options = Options { memlimit: Some(LZMA_DICTIONARY_MAX), allow_incomplete: true, ..Options::default() };
                Some(Self::Lzma(Box::new(Stream::new_with_options(&options, Vec::new()))))
            }
            Coding::Zstd => Some(Self::Zstd(Box::default())),
        }
    }

    pub fn push(&mut self, bytes: &[u8], share: &mut Share, out: Out<'_>) -> Result<Fed, Failure> {
        let fed = self.feed(bytes, out)?;
        share.is(self.memory())?;
        Ok(fed)
    }

    fn memory(&self) -> usize {
        TABLE_BYTES
            + match self {
                Self::Brotli(state) => usize::try_from(state.ringbuffer_size).unwrap_or(0),
                Self::Lzma(_) => LZMA_DICTIONARY_MAX,
                Self::Zstd(zstd) => zstd.held.capacity() + zstd.window,
            }
    }

    fn feed(&mut self, bytes: &[u8], out: Out<'_>) -> Result<Fed, Failure> {
        match self {
            Self::Brotli(state) => brotli(state, bytes, out),
            Self::Lzma(stream) => lzma(stream, bytes, out),
            Self::Zstd(zstd) => zstd.push(bytes, out),
        }
    }
}

impl Foreign {
    /// The message is over: what was kept back comes out.
    pub fn end(self, out: Out<'_>) -> Result<(), Failure> {
        let rest = match self {
            Self::Brotli(_) => Vec::new(),
            Self::Lzma(stream) => stream.finish().unwrap_or_default(),
            Self::Zstd(mut zstd) => zstd.rest(),
        };
        rest.chunks(PIECE_BYTES).try_for_each(out)
    }
}

fn brotli(state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>, bytes: &[u8], out: Out<'_>) -> Result<Fed, Failure> {
    let mut piece = [0; PIECE_BYTES];
    let mut behind = bytes.len();
    for step in bytes.chunks(BROTLI_STEP_BYTES) {
        behind -= step.len();
        let (mut left, mut at, mut total) = (step.len(), 0, 0);
        loop {
            let (mut room, mut written) = (piece.len(), 0);
            let result = BrotliDecompressStream(&mut left, &mut at, step, &mut room, &mut written, &mut piece, &mut total, state);
            if written > 0 {
                out(piece.get(..written).unwrap_or_default())?;
            }
            match result {
                BrotliResult::ResultSuccess => return Ok(Fed::Ended(left + behind)),
                BrotliResult::NeedsMoreInput => break,
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Ok(Fed::Broken),
            }
        }
    }
    Ok(Fed::More)
}

fn lzma(stream: &mut Stream<Vec<u8>>, bytes: &[u8], out: Out<'_>) -> Result<Fed, Failure> {
    for step in bytes.chunks(LZMA_STEP_BYTES) {
        let result = stream.write_all(step).and_then(|()| stream.flush());
        if let Some(written) = stream.get_output_mut() {
            for piece in written.chunks(PIECE_BYTES) {
                out(piece)?;
            }
            written.clear();
        }
        match result {
            Ok(()) => {}
            Err(error) if error.to_string().contains("memory limit") => return Ok(Fed::DictionaryTooLarge),
            Err(_) => return Ok(Fed::Broken),
        }
    }
    Ok(Fed::More)
}

/// Block by block, so that what a few bytes become never waits in memory.
#[derive(Default)]
pub(super) struct Zstd {
    held: Vec<u8>,
    state: Frame,
    decoder: FrameDecoder,
    /// Bytes that it may keep back.
    window: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Frame {
    #[default]
    Head,
    /// Bytes of a frame that nobody reads.
    Skip(usize),
    /// A checksum follows the last block.
    Blocks { checksum: bool },
}

impl Zstd {
    fn push(&mut self, bytes: &[u8], out: Out<'_>) -> Result<Fed, Failure> {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.step(&held[at..], out)? {
                Ok(0) => break,
                Ok(taken) => at += taken,
                Err(()) => return Ok(Fed::Broken),
            }
        }
        held.drain(..at);
        self.held = held;
        Ok(Fed::More)
    }

    /// Bytes that were used, 0 where more are wanted.
    fn step(&mut self, bytes: &[u8], out: Out<'_>) -> Result<Result<usize, ()>, Failure> {
        match self.state {
            Frame::Head => Ok(self.head(bytes)),
            Frame::Skip(left) => {
                let taken = left.min(bytes.len());
                self.state = if taken == left { Frame::Head } else { Frame::Skip(left - taken) };
                Ok(Ok(taken))
            }
            Frame::Blocks { checksum } => {
                let Some(&[a, b, c]) = bytes.first_chunk::<3>() else { return Ok(Ok(0)) };
                let head = u32::from_le_bytes([a, b, c, 0]);
                let (last, kind, size) = (head & 1 == 1, head >> 1 & 3, (head >> 3) as usize);
                // Of a run only its one byte is sent.
                let len = 3 + if kind == 1 { 1 } else { size };
                let Some(block) = bytes.get(..len) else { return Ok(Ok(0)) };
                // The checksum is not compared, so it need not be there yet.
                let source = block.chain(&[0; ZSTD_CHECKSUM_BYTES][..]);
                if self.decoder.decode_blocks(source, BlockDecodingStrategy::UptoBlocks(1)).is_err() {
                    return Ok(Err(()));
                }
                for piece in self.decoder.collect().unwrap_or_default().chunks(PIECE_BYTES) {
                    out(piece)?;
                }
                if last {
                    self.state = if checksum { Frame::Skip(ZSTD_CHECKSUM_BYTES) } else { Frame::Head };
                }
                Ok(Ok(len))
            }
        }
    }

    /// What the window holds of a frame that was not ended: it is ended with an empty block.
    fn rest(&mut self) -> Vec<u8> {
        const EMPTY_LAST: [u8; 3 + ZSTD_CHECKSUM_BYTES] = [1, 0, 0, 0, 0, 0, 0];
        match self.state {
            Frame::Blocks { .. } if self.decoder.decode_blocks(&EMPTY_LAST[..], BlockDecodingStrategy::All).is_ok() => {
                self.decoder.collect().unwrap_or_default()
            }
            Frame::Blocks { .. } | Frame::Head | Frame::Skip(_) => Vec::new(),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        let Some(magic) = bytes.first_chunk::<4>() else { return Ok(0) };
        let magic = u32::from_le_bytes(*magic);
        if magic & 0xffff_fff0 == 0x184d_2a50 {
            let Some(&[.., a, b, c, d]) = bytes.first_chunk::<8>() else { return Ok(0) };
            self.state = Frame::Skip(u32::from_le_bytes([a, b, c, d]) as usize);
            // A frame of nothing has nothing to skip.
            if self.state == Frame::Skip(0) {
                self.state = Frame::Head;
            }
            return Ok(8);
        }
        if magic != ZSTD_MAGIC {
            return Err(());
        }
        let Some(&descriptor) = bytes.get(4) else { return Ok(0) };
        let single = descriptor >> 5 & 1;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
        let len = 5 + usize::from(1 - single) + dictionary + size;
        debug_assert!(len <= ZSTD_HEAD_BYTES_MAX);
        let Some(head) = bytes.get(..len) else { return Ok(0) };
        self.decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        self.decoder.reset(head).map_err(|_| ())?;
        self.window = ZSTD_WINDOW_MAX as usize;
        self.state = Frame::Blocks { checksum: descriptor >> 2 & 1 == 1 };
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::{Codings, Decoder, Failure, Limits, Pool};
    use proptest::prelude::*;

    const TEXT: &[u8] = b"the quick brown fox, the quick brown fox";
    const BROTLI: &str = "1b2700f88d94aadba3a433036916b4373c39c824f32409db74141748d7b809";
    const LZMA: &str = "5d00100000ffffffffffffffff003a1a08ce76c7e5e9d60734c3d10ebfce55e1aabde46954df3602f453ffffc03a0000";
    const ZSTD: &str = "28b52ffd0458dd0000a874686520717569636b2062726f776e20666f782c20010031994c157de44c";
    /// Four MiB of the same byte.
    const BROTLI_BOMB: &str = "9bffff3ff82560e2b14020f7fe07";
    const LIMITS: Limits = Limits { bytes_max: 1 << 20, ratio_max: 100, ratio_free_bytes: 1 << 18 };

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// What comes out, whether it was broken, and which cap was reached.
    fn decode(field: &[u8], body: &[u8], cut: usize) -> (Vec<u8>, bool, Option<Failure>) {
        let mut codings = Codings::default();
        codings.add(field, 3);
        let mut decoder = Decoder::new(&codings, LIMITS, &mut Pool::default());
        let mut out = Vec::new();
        for piece in body.chunks(cut) {
            if let Err(failure) = decoder.push(piece, &mut |piece| out.extend_from_slice(piece)) {
                return (out, decoder.is_broken(), Some(failure));
            }
        }
        decoder.end(&mut |piece| out.extend_from_slice(piece));
        (out, decoder.is_broken(), None)
    }

    #[test]
    fn brotli_zstd_and_lzma_are_undone() {
        let (brotli, lzma, zstd) = (bytes(BROTLI), bytes(LZMA), bytes(ZSTD));
        let twice = [zstd.as_slice(), &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], &zstd].concat();
        for cut in [1, 3, 4096] {
            assert_eq!(decode(b"br", &brotli, cut), (TEXT.to_vec(), false, None));
            assert_eq!(decode(b"lzma", &lzma, cut), (TEXT.to_vec(), false, None));
            assert_eq!(decode(b"zstd", &zstd, cut), (TEXT.to_vec(), false, None));
            assert_eq!(decode(b"zstd", &twice, cut), ([TEXT, TEXT].concat(), false, None));
            // What its frame still holds is shown at the end.
            assert_eq!(decode(b"zstd", &zstd[..zstd.len() - 4], cut), (TEXT.to_vec(), false, None));
            // Not what the label says.
            for label in [&b"br"[..], b"zstd", b"lzma"] {
                assert_eq!(decode(label, b"<html> <script>", cut), (b"<html> <script>".to_vec(), true, None), "{}", label.escape_ascii());
            }
        }
    }

    #[test]
    fn their_bombs_end_too() {
        assert_eq!(decode(b"br", &bytes(BROTLI_BOMB), 5).2, Some(Failure::Ratio));
        // Blocks of one byte that stand for 128 KiB each.
        let run = [0x02, 0x00, 0x10, b'0'];
        let bomb = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58][..], &run.repeat(40)].concat();
        assert_eq!(decode(b"zstd", &bomb, 4096).2, Some(Failure::Ratio));
        // A window of a terabyte, a dictionary of a gigabyte.
        assert!(decode(b"zstd", &[&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8][..], &run].concat(), 4096).1);
        let mut lzma = bytes(LZMA);
        lzma[1..5].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        assert_eq!(decode(b"lzma", &lzma, 4096).0, TEXT);
    }

    #[test]
    fn windows_of_many_bodies_together_have_a_cap_and_are_given_back() {
        let limits = Limits { bytes_max: 1 << 30, ratio_max: 1 << 30, ratio_free_bytes: 1 << 30 };
        let (mut pool, mut codings, bomb) = (Pool::default(), Codings::default(), bytes(BROTLI_BOMB));
        codings.add(b"br", 1);
        for _ in 0..2 {
            let mut open = Vec::new();
            // All but its end, so that each stays open.
            let failure = (0..200).find_map(|_| {
                open.push(Decoder::new(&codings, limits, &mut pool));
                open.last_mut().unwrap().push(&bomb[..bomb.len() - 1], &mut |_| {}).err()
            });
            assert!(failure == Some(Failure::Memory) && open.len() > 2, "{failure:?} at {}", open.len());
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_damage_does_no_harm(
            cut in 1_usize..60,
            damage in prop::collection::vec((0_usize..60, any::<u8>()), 1..6),
            which in 0_usize..3,
        ) {
            let (label, body) = [(&b"br"[..], BROTLI), (b"lzma", LZMA), (b"zstd", ZSTD)][which];
            let mut body = bytes(body);
            prop_assert_eq!(decode(label, &body, cut).0, TEXT);
            for (at, byte) in damage {
                let at = at % body.len();
                body[at] = byte;
            }
            prop_assert!(decode(label, &body, cut).0.len() < 2 << 20);
        }
    }
}
