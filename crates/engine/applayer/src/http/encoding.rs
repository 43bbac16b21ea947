//! Content codings undone (RFC 9110, section 8.4.1): gzip, deflate with and without zlib's frame, and those of `foreign`, in layers.
//!
//! This is the one place where anything is decompressed, and it is capped: what comes out is handed on in pieces of
//! [`PIECE_BYTES`], and [`Failure`] stops it once there is more than [`Limits`] allow. Read as the receivers do: what a body really
//! is decides, not only its label; a body that cannot be what it says is shown as it came; behind an error in the middle there is
//! nothing. Where bytes are cut into segments does not matter.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use super::fields::is_token;
use super::foreign::{Fed, Foreign, Share};
use crate::context::Config;

/// Bytes that are handed on at once.
pub(super) const PIECE_BYTES: usize = 8 * 1024;
/// First bytes of a body that are kept until something came out of them, so that another reading can be tried.
const HEAD_BYTES: usize = 1024;
/// Longest gzip header (its name and comment have no length).
const GZIP_HEADER_MAX: usize = 4096;
/// Inflaters kept for the next body; each has some 56 KiB.
const POOL_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    Lzma,
    /// Deflate without any frame, as WebSocket has it.
    Raw,
}

/// Codings of a message, as the sender applied them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Codings {
    pub list: Vec<Coding>,
    /// One is not known here.
    pub unknown: bool,
    /// More than may be undone.
    pub too_many: bool,
}

impl Codings {
    /// Adds what a `Content-Encoding` or `Transfer-Encoding` names, whatever stands between the names; `chunked` is not a coding here.
    /// Too much is no harm, as a body that is not coded is shown as it came.
    pub fn add(&mut self, field: &[u8], layers_max: usize) {
        let field: Vec<u8> = field.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase).collect();
        for token in field.split(|byte| !is_token(*byte)) {
            let coding = match token {
                b"gzip" | b"x-gzip" => Coding::Gzip,
                b"deflate" | b"x-deflate" => Coding::Deflate,
                b"br" => Coding::Brotli,
                b"zstd" => Coding::Zstd,
                b"lzma" => Coding::Lzma,
                b"" | b"identity" | b"chunked" | b"inflate" | b"none" => continue,
                _ => {
                    self.unknown = true;
                    continue;
                }
            };
            self.list.push(coding);
            if self.list.len() > layers_max {
                self.too_many = true;
                self.list.remove(0);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes that one message may become.
    pub bytes_max: u64,
    /// And as a multiple of what came, once it is more than `ratio_free_bytes`.
    pub ratio_max: u64,
    pub ratio_free_bytes: u64,
}

impl Limits {
    pub fn of(config: &Config) -> Self {
        Self { bytes_max: config.decoded_bytes_max, ratio_max: config.decoded_ratio_max, ratio_free_bytes: config.decoded_free_bytes }
    }
}

/// The cap that a message has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Bytes,
    Ratio,
    /// Of all bodies together.
    Memory,
}

/// Inflaters that finished bodies leave behind.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    inflaters: Vec<Inflater>,
    /// What decoders of other codings have in use.
    foreign: Arc<AtomicUsize>,
}

struct Inflater {
    inflate: Inflate,
    /// What has come out of one step.
    piece: Box<[u8; PIECE_BYTES]>,
}

/// The largest window there is (RFC 1951, section 2).
const WINDOW_BITS: u8 = 15;

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("taken", &self.inflate.total_in()).finish_non_exhaustive()
    }
}

/// One step: what it has read and written, also before an error.
struct Inflated {
    read: usize,
    written: usize,
    status: Result<Status, InflateError>,
}

impl Inflater {
    fn begin(&mut self, form: Form) {
        self.inflate.reset(form == Form::Zlib);
    }

    fn step(&mut self, bytes: &[u8]) -> Inflated {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, &mut self.piece[..], InflateFlush::NoFlush);
        let read = (self.inflate.total_in() - before.0) as usize;
        Inflated { read, written: (self.inflate.total_out() - before.1) as usize, status }
    }
}

impl Pool {
    fn take(&mut self) -> Inflater {
        let fresh = || Inflater { inflate: Inflate::new(false, WINDOW_BITS), piece: Box::new([0; PIECE_BYTES]) };
        self.inflaters.pop().unwrap_or_else(fresh)
    }

    fn give(&mut self, state: Inflater) {
        if self.inflaters.len() < POOL_MAX {
            self.inflaters.push(state);
        }
    }
}

/// Undoes the codings of one message.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The outermost first.
    layers: Vec<Layer>,
    taken: u64,
    given: u64,
    limits: Limits,
}

impl Decoder {
    pub fn new(codings: &Codings, limits: Limits, pool: &mut Pool) -> Self {
        let layers = codings.list.iter().rev().map(|coding| Layer::new(*coding, pool.take(), &pool.foreign)).collect();
        Self { layers, taken: 0, given: 0, limits }
    }

    /// Nothing more is decoded: the coding's own end, or an error.
    pub fn is_over(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer.state, State::Plain | State::Dead))
    }

    /// A layer was not what its label says, or broke off in an error.
    pub fn is_broken(&self) -> bool {
        self.layers.iter().any(|layer| layer.broken)
    }

    /// A layer of LZMA asks for a larger dictionary than is kept.
    pub fn wants_memory(&self) -> bool {
        self.layers.iter().any(|layer| layer.wants_memory)
    }

    /// Counts on from what others of the same body have taken and given.
    pub fn counts(&mut self, (taken, given): (u64, u64)) {
        (self.taken, self.given) = (taken, given);
    }

    pub fn counted(&self) -> (u64, u64) {
        (self.taken, self.given)
    }

    /// Bytes that came out.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Bytes are missing: nothing more comes out.
    pub fn kill(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.state = State::Dead);
    }

    /// Decodes on; `out` is given pieces in order.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.taken += bytes.len() as u64;
        let Self { layers, taken, given, limits } = self;
        run(layers, bytes, &mut |piece| {
            *given += piece.len() as u64;
            if *given > limits.bytes_max {
                return Err(Failure::Bytes);
            }
            if *given > limits.ratio_free_bytes && *given > taken.saturating_mul(limits.ratio_max) {
                return Err(Failure::Ratio);
            }
            out(piece);
            Ok(())
        })
    }

    /// The message has ended: what was held back comes out.
    pub fn end(&mut self, out: &mut dyn FnMut(&[u8])) {
        for number in 0..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(number + 1);
            let Some(layer) = before.last_mut() else { continue };
            if let Some(foreign) = layer.foreign.take() {
                // No more than its window holds, or than is kept: the limits do not matter.
                let mut show = |piece: &[u8]| {
                    run(after, piece, &mut |piece| {
                        out(piece);
                        Ok(())
                    })
                };
                let gave = &mut layer.gave;
                let _ = foreign.end(&mut |piece| {
                    *gave = true;
                    show(piece)
                });
                if !layer.gave {
                    layer.broken |= !layer.head.is_empty();
                    let _ = show(&std::mem::take(&mut layer.head));
                }
                layer.state = State::Dead;
            }
            if matches!(layer.state, State::Sniff | State::GzipHeader | State::Between) {
                let held = std::mem::take(&mut layer.head);
                layer.broken |= !held.is_empty() && layer.state != State::Between;
                layer.state = State::Plain;
                // No more than HEAD_BYTES and a gzip header: the limits do not matter.
                let _ = run(after, &held, &mut |piece| {
                    out(piece);
                    Ok(())
                });
            }
        }
    }

    pub fn recycle(self, pool: &mut Pool) {
        self.layers.into_iter().for_each(|layer| pool.give(layer.inflate));
    }
}

pub(super) type Out<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Failure>;

/// Through the outermost layer, and what comes out through the others.
fn run(layers: &mut [Layer], bytes: &[u8], out: Out<'_>) -> Result<(), Failure> {
    match layers.split_first_mut() {
        None if bytes.is_empty() => Ok(()),
        None => out(bytes),
        Some((layer, inner)) => layer.push(bytes, &mut |piece| run(inner, piece, out)),
    }
}

#[derive(Debug)]
struct Layer {
    coding: Coding,
    state: State,
    inflate: Inflater,
    /// Bytes that may have to be read again, or wait for others.
    head: Vec<u8>,
    /// Something came out.
    gave: bool,
    broken: bool,
    foreign: Option<Foreign>,
    share: Share,
    wants_memory: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Two bytes tell what it is.
    Sniff,
    GzipHeader,
    Inflate(Form),
    Foreign,
    /// Bytes of checksum and length that are left.
    GzipTrailer(u8),
    /// Another member may follow.
    Between,
    /// As it came.
    Plain,
    /// Nothing comes out any more.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Gzip,
    Zlib,
    Raw,
}

impl Layer {
    fn new(coding: Coding, inflate: Inflater, foreign: &Arc<AtomicUsize>) -> Self {
        Self {
            coding,
            state: State::Sniff,
            inflate,
            head: Vec::new(),
            gave: false,
            broken: false,
            foreign: None,
            share: Share::of(foreign),
            wants_memory: false,
        }
    }

    fn push(&mut self, mut bytes: &[u8], out: Out<'_>) -> Result<(), Failure> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Sniff | State::Between => self.sniff(bytes, out)?,
                State::GzipHeader => self.gzip_header(bytes, out)?,
                State::Inflate(form) => self.inflate(form, bytes, out)?,
                State::Foreign => self.foreign(bytes, out)?,
                State::GzipTrailer(left) => {
                    let take = usize::from(left).min(bytes.len());
                    self.state = if take == usize::from(left) { State::Between } else { State::GzipTrailer(left - take as u8) };
                    &bytes[take..]
                }
                State::Plain => {
                    out(bytes)?;
                    &[]
                }
                State::Dead => &[],
            };
        }
        Ok(())
    }

    /// What a body, or what follows a gzip member, is. Gives what is left of `bytes`, as the others do.
    fn sniff<'a>(&mut self, bytes: &'a [u8], out: Out<'_>) -> Result<&'a [u8], Failure> {
        let rest = self.hold(bytes, 2);
        let &[a, b] = self.head.as_slice() else { return Ok(rest) };
        // RFC 1950, section 2.2: method, window size, check; no dictionary.
        let is_zlib = a & 0x0f == 8 && a >> 4 <= 7 && (u16::from(a) << 8 | u16::from(b)) % 31 == 0 && b & 0x20 == 0;
        match (self.state, self.coding) {
            (_, Coding::Raw) => self.begin(Form::Raw, out)?,
            _ if (a, b) == (0x1f, 0x8b) => self.state = State::GzipHeader,
            (State::Between, _) => return self.give_up(rest, out),
            (_, Coding::Brotli | Coding::Zstd | Coding::Lzma) => {
                self.foreign = Foreign::new(self.coding);
                self.state = State::Foreign;
                let head = std::mem::take(&mut self.head);
                self.push(&head, out)?;
            }
            _ if is_zlib => self.begin(Form::Zlib, out)?,
            (_, Coding::Deflate) => self.begin(Form::Raw, out)?,
            (_, Coding::Gzip) => {
                self.broken = true;
                return self.give_up(rest, out);
            }
        }
        Ok(rest)
    }

    /// RFC 1952, section 2.3.
    fn gzip_header<'a>(&mut self, bytes: &'a [u8], out: Out<'_>) -> Result<&'a [u8], Failure> {
        let before = self.head.len();
        let rest = self.hold(bytes, GZIP_HEADER_MAX);
        match gzip_header_len(&self.head) {
            Some(len) => {
                let unused = self.head.len() - len;
                self.head.clear();
                self.inflate.begin(Form::Raw);
                self.state = State::Inflate(Form::Gzip);
                // The header was not complete before, so that what is behind it is of `bytes`.
                debug_assert!(len >= before);
                Ok(&bytes[bytes.len() - rest.len() - unused..])
            }
            None if self.head.len() >= GZIP_HEADER_MAX => {
                self.broken = true;
                self.give_up(rest, out)
            }
            None => Ok(rest),
        }
    }

    /// What is broken before anything came out is shown as it came, as far as it is kept.
    fn foreign<'a>(&mut self, bytes: &'a [u8], out: Out<'_>) -> Result<&'a [u8], Failure> {
        let Some(mut foreign) = self.foreign.take() else { return Ok(&[]) };
        let retry = !self.gave && self.head.len() < HEAD_BYTES;
        let (now, later) = bytes.split_at(if retry { bytes.len().min(HEAD_BYTES - self.head.len()) } else { bytes.len() });
        let gave = &mut self.gave;
        let fed = foreign.push(now, &mut self.share, &mut |piece| {
            *gave = true;
            out(piece)
        })?;
        if retry && !self.gave {
            self.head.extend_from_slice(now);
        } else {
            self.head = Vec::new();
        }
        match fed {
            Fed::More => {
                self.foreign = Some(foreign);
                Ok(later)
            }
            Fed::Ended(left) => {
                self.state = State::Plain;
                Ok(&bytes[now.len() - left..])
            }
            Fed::Broken | Fed::DictionaryTooLarge => {
                self.broken = true;
                self.wants_memory = fed == Fed::DictionaryTooLarge;
                if retry && !self.gave {
                    return self.give_up(later, out);
                }
                self.state = State::Dead;
                Ok(&[])
            }
        }
    }

    /// Begins to inflate what is in `head`, which stays until something came out.
    fn begin(&mut self, form: Form, out: Out<'_>) -> Result<(), Failure> {
        self.inflate.begin(form);
        self.state = State::Inflate(form);
        let head = std::mem::take(&mut self.head);
        let mut left = head.as_slice();
        while !left.is_empty() && self.state == State::Inflate(form) {
            left = self.inflate(form, left, out)?;
        }
        // One of another form has begun inside, and has read all of it.
        if self.state == State::Inflate(form) && !self.gave {
            self.head = head;
            return Ok(());
        }
        self.push(left, out)
    }

    fn inflate<'a>(&mut self, form: Form, bytes: &'a [u8], out: Out<'_>) -> Result<&'a [u8], Failure> {
        // While it may have to be read again: not past what is kept.
        let retry = form != Form::Gzip && !self.gave && self.head.len() < HEAD_BYTES;
        let (now, later) = bytes.split_at(if retry { bytes.len().min(HEAD_BYTES - self.head.len()) } else { bytes.len() });
        let mut left = now;
        loop {
            let step = self.inflate.step(left);
            left = left.get(step.read..).unwrap_or_default();
            if step.written > 0 {
                self.gave = true;
                self.head.clear();
                out(&self.inflate.piece[..step.written.min(PIECE_BYTES)])?;
            }
            match step.status {
                Ok(Status::StreamEnd) => {
                    self.gave = true;
                    self.head.clear();
                    self.state = if form == Form::Gzip { State::GzipTrailer(8) } else { State::Plain };
                    return Ok(&bytes[now.len() - left.len()..]);
                }
                Ok(_) if step.read > 0 || step.written > 0 => {}
                // It wants more bytes.
                Ok(_) => {
                    if retry && !self.gave {
                        self.head.extend_from_slice(now);
                    }
                    return Ok(later);
                }
                Err(_) if retry && !self.gave => {
                    self.head.extend_from_slice(now);
                    if form == Form::Zlib && self.coding == Coding::Deflate {
                        self.begin(Form::Raw, out)?;
                        return Ok(later);
                    }
                    self.broken = true;
                    return self.give_up(later, out);
                }
                Err(_) => {
                    self.broken = true;
                    self.state = State::Dead;
                    return Ok(&[]);
                }
            }
        }
    }

    /// Shows what was held, and all that follows, as it came.
    fn give_up<'a>(&mut self, rest: &'a [u8], out: Out<'_>) -> Result<&'a [u8], Failure> {
        self.state = State::Plain;
        let held = std::mem::take(&mut self.head);
        out(&held)?;
        Ok(rest)
    }

    /// Moves bytes to `head` until it has `len`; gives the others.
    fn hold<'a>(&mut self, bytes: &'a [u8], len: usize) -> &'a [u8] {
        let (now, later) = bytes.split_at(len.saturating_sub(self.head.len()).min(bytes.len()));
        self.head.extend_from_slice(now);
        later
    }
}

/// `None`: it goes on.
fn gzip_header_len(bytes: &[u8]) -> Option<usize> {
    let flags = *bytes.get(3)?;
    let mut at = 10;
    if flags & 0x04 != 0 {
        let len = [*bytes.get(at)?, *bytes.get(at + 1)?];
        at += 2 + usize::from(u16::from_le_bytes(len));
    }
    // Name and comment, each up to its zero.
    for flag in [0x08, 0x10] {
        if flags & flag != 0 {
            at += memchr::memchr(0, bytes.get(at..)?)? + 1;
        }
    }
    at += if flags & 0x02 != 0 { 2 } else { 0 };
    (at <= bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { bytes_max: 1 << 20, ratio_max: 100, ratio_free_bytes: 1 << 18 };

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        // With a name.
        let mut all = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'n', 0];
        all.extend(compress_to_vec(bytes, 6));
        all.extend([0; 8]);
        all
    }

    fn decode(field: &[u8], body: &[u8], cuts: &[usize]) -> (Vec<u8>, bool, Option<Failure>) {
        let (mut codings, mut pool) = (Codings::default(), Pool::default());
        codings.add(field, 2);
        let mut decoder = Decoder::new(&codings, LIMITS, &mut pool);
        let (mut out, mut rest) = (Vec::new(), body);
        for cut in cuts.iter().chain(std::iter::repeat(&usize::MAX)) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).clamp(1, rest.len()));
            if let Err(failure) = decoder.push(now, &mut |piece| out.extend_from_slice(piece)) {
                return (out, decoder.is_broken(), Some(failure));
            }
            rest = later;
        }
        decoder.end(&mut |piece| out.extend_from_slice(piece));
        (out, decoder.is_broken(), None)
    }

    #[test]
    fn a_body_is_read_as_what_it_is() {
        let text: &[u8] = b"the quick brown fox, the quick brown fox";
        let twice = [text, text].concat();
        for (field, body, wanted, broken) in [
            (&b"gzip"[..], gzip(text), text, false),
            (b"X-GZIP", gzip(text), text, false),
            (b"deflate", compress_to_vec_zlib(text, 6), text, false),
            (b"deflate", compress_to_vec(text, 6), text, false),
            (b"deflate", gzip(text), text, false),
            (b"gzip", compress_to_vec_zlib(text, 6), text, false),
            (b"gzip", text.to_vec(), text, true),
            (b"deflate", text.to_vec(), text, true),
            (b"gzip", b"x".to_vec(), b"x", true),
            (b"gzip", Vec::new(), b"", false),
            (b"gzip, deflate", compress_to_vec_zlib(&gzip(text), 6), text, false),
            (b"gzip", [gzip(text), gzip(text)].concat(), &twice, false),
            (b"gzip", [gzip(text), text.to_vec()].concat(), &twice, false),
            (b"identity", text.to_vec(), text, false),
            (b"br", text.to_vec(), text, true),
            (b": gz\0ip;", gzip(text), text, false),
            (b"x deflate", compress_to_vec(text, 6), text, false),
        ] {
            assert_eq!(decode(field, &body, &[]), (wanted.to_vec(), broken, None), "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn layers_and_unknown_codings_are_told_of() {
        let mut codings = Codings::default();
        codings.add(b"gzip, x-other, deflate , gzip,gzip", 2);
        assert_eq!(codings, Codings { list: vec![Coding::Gzip, Coding::Gzip], unknown: true, too_many: true });
    }

    #[test]
    fn bombs_end() {
        let bomb = vec![0; 4 << 20];
        assert_eq!(decode(b"gzip", &gzip(&bomb), &[]).2, Some(Failure::Ratio));
        let noise: Vec<u8> = (0..3_u32 << 18).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        assert_eq!(decode(b"gzip", &gzip(&noise), &[1400]).2, Some(Failure::Bytes));
        let (out, _, failure) = decode(b"gzip,gzip", &gzip(&gzip(&bomb)), &[7]);
        assert!(failure == Some(Failure::Ratio) && out.len() <= 1 << 18);
    }

    proptest! {
        #[test]
        fn cuts_and_damage_do_not_matter(
            cuts in prop::collection::vec(1_usize..50, 0..40),
            damage in prop::option::of((0_usize..400, any::<u8>())),
            field in prop::sample::select(vec![&b"gzip"[..], b"deflate", b"gzip, deflate", b"deflate, gzip"]),
            form in 0..4,
            text in "([a-c]{1,9}){1,60}",
        ) {
            let mut body = match form {
                0 => gzip(text.as_bytes()),
                1 => compress_to_vec_zlib(text.as_bytes(), 6),
                2 => compress_to_vec(&gzip(text.as_bytes()), 6),
                _ => text.clone().into_bytes(),
            };
            if let Some((at, byte)) = damage {
                let at = at % body.len();
                body[at] = byte;
            }
            prop_assert_eq!(decode(field, &body, &cuts), decode(field, &body, &[]));
        }
    }
}
