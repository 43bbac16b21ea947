//! One stream of packed bytes. Where a tar or cpio is in it, that is read as it comes, so that it may be larger than memory.

use std::io::Read;

use super::{DICTIONARY_KIB_MAX, Entry, Visitor, cpio, tar};
use crate::budget::Gap;
use crate::kind::Kind;

/// Bytes that tell a tar.
const HEAD_BYTES: usize = 512;
/// Window of a zstd frame.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

pub(super) fn unpack(kind: Kind, bytes: &[u8], visitor: &mut dyn Visitor) {
    unpack_reader(kind, gzip_name(kind, bytes), bytes, Some(bytes.len() as u64), visitor);
}

/// The same of a stream that is not in memory; `name` is what its one entry is called.
pub(super) fn unpack_reader<'a>(kind: Kind, name: &[u8], packed: impl Read + 'a, len: Option<u64>, visitor: &mut dyn Visitor) {
    let mut stream: Box<dyn Read + 'a> = match decoder(kind, packed) {
        Ok(stream) => stream,
        Err(gap) => return visitor.gap(gap),
    };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    // What is wrong with it shows again when it is read as an entry.
    let broken = (&mut stream).take(HEAD_BYTES as u64).read_to_end(&mut head).is_err();
    let inner = Kind::of(&head);
    let mut whole = head.as_slice().chain(stream);
    match inner {
        Kind::Tar if !broken => tar::unpack(&mut whole, visitor),
        Kind::CpioNewc | Kind::CpioOdc | Kind::CpioBinary(_) if !broken => cpio::unpack(inner, &mut whole, visitor),
        _ if broken && head.is_empty() => visitor.gap(Gap::Malformed("its packed bytes contradict themselves")),
        _ => _ = visitor.entry(&Entry { packed: len, ..Entry::named(name) }, &mut whole),
    }
}

fn decoder<'a>(kind: Kind, bytes: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Gap> {
    Ok(match kind {
        Kind::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Kind::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(bytes)),
        Kind::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, true, DICTIONARY_KIB_MAX)),
        Kind::Lzma => match lzma_rust2::LzmaReader::new_mem_limit(bytes, DICTIONARY_KIB_MAX, None) {
            Ok(reader) => Box::new(reader),
            Err(_) => return Err(Gap::Malformed("an LZMA stream that cannot be begun")),
        },
        _ => return zstd(bytes),
    })
}

pub(super) fn zstd<'a>(bytes: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Gap> {
    match ruzstd::decoding::StreamingDecoder::new_with_max_window_size(bytes, WINDOW_BYTES_MAX) {
        Ok(decoder) => Ok(Box::new(decoder)),
        Err(_) => Err(Gap::Malformed("a zstd frame that cannot be begun")),
    }
}

/// The name in a gzip header (RFC 1952, 2.3), if it stands directly behind the fixed part.
pub(super) fn gzip_name(kind: Kind, bytes: &[u8]) -> &[u8] {
    match bytes {
        [_, _, _, flags, _, _, _, _, _, _, rest @ ..] if kind == Kind::Gzip && flags & 0b1100 == 0b1000 => {
            &rest[..memchr::memchr(0, rest).unwrap_or(0)]
        }
        _ => b"",
    }
}

/// `COMPRESS.EXE`: LZSS with a window of 4 KiB, at first of blanks.
pub(super) fn szdd(bytes: &[u8], visitor: &mut dyn Visitor) {
    let mut stream = Szdd { packed: bytes.get(14..).unwrap_or_default(), window: vec![b' '; 4096], at: 4096 - 16, flags: 0, copy: (0, 0) };
    let _ = visitor.entry(&Entry { packed: Some(bytes.len() as u64), ..Entry::default() }, &mut stream);
}

struct Szdd<'a> {
    packed: &'a [u8],
    window: Vec<u8>,
    at: usize,
    /// What is left of a byte of flags, behind a one at the end.
    flags: u16,
    /// Place and bytes of a copy that goes on.
    copy: (usize, usize),
}

impl Szdd<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = if self.copy.1 > 0 {
            let byte = self.window[self.copy.0 % 4096];
            self.copy = (self.copy.0 + 1, self.copy.1 - 1);
            byte
        } else {
            if self.flags <= 1 {
                let (flags, rest) = self.packed.split_first()?;
                self.packed = rest;
                self.flags = u16::from(*flags) | 0x100;
            }
            let literal = self.flags & 1 != 0;
            self.flags >>= 1;
            if literal {
                let (byte, rest) = self.packed.split_first()?;
                self.packed = rest;
                *byte
            } else {
                let [low, high, rest @ ..] = self.packed else { return None };
                self.packed = rest;
                self.copy = (usize::from(*low) | usize::from(high & 0xf0) << 4, usize::from(high & 0x0f) + 3);
                return self.next();
            }
        };
        self.window[self.at] = byte;
        self.at = (self.at + 1) % 4096;
        Some(byte)
    }
}

impl Read for Szdd<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut len = 0;
        for slot in out {
            let Some(byte) = self.next() else { break };
            *slot = byte;
            len += 1;
        }
        Ok(len)
    }
}
