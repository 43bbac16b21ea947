//! HTTP/1 (RFC 9112), 0.9 too, read as leniently as the servers and browsers behind it.
//!
//! ```text
//! Line -> Headers -> Fixed | ChunkSize <-> Chunk -> Trailers | UntilClose -> Line
//! ```
//! A body goes through three stages, each streaming: framing (chunks, length), content codings (`encoding`), parts of a form
//! (`multipart`).
//!
//! A header block is read once, when its blank line is there, so that no cutting into segments can matter.

mod encoding;
mod fields;
mod message;
mod multipart;
mod uri;

use std::collections::VecDeque;

pub(crate) use encoding::Pool as Inflaters;
pub(crate) use fields::Scratch;
pub(crate) use message::{Origin, fields_to_values, host_values};
pub(crate) use multipart::parameter;
pub(crate) use uri::{Target, host_and_port};

use crate::context::{Config, Io};
use crate::names::{Buffer, Dir, Field, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;
use encoding::{Decoder, Failure};
use multipart::{Multipart, Part};

/// Bytes of a chunk-size line, extensions included.
const CHUNK_LINE_MAX: usize = 8 * 1024;
/// Digits of a chunk's size, leading zeros included.
const CHUNK_DIGITS_MAX: usize = 64;
/// A line before a status line that is passed over.
const JUNK_LINE_MAX: usize = 64;
/// Longest method of a request that is not known by name. Servers hand any to their programs.
const METHOD_MAX: usize = 64;
/// So much of a line that names a path is a request, whatever its end will be.
const PROBE_LINE_BYTES: usize = 1024;

const METHODS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"MKACTIVITY",
    b"CHECKOUT",
    b"MERGE",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"PURGE",
    b"LINK",
    b"UNLINK",
    b"BDELETE",
    b"BMOVE",
    b"RPC_IN_DATA",
    b"RPC_OUT_DATA",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// A known method, or a first line that ends in a version; a status line.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToClient {
        return prefix(bytes, b"HTTP/");
    }
    let bytes = bytes.trim_ascii_start();
    if bytes.is_empty() {
        return Probe::More;
    }
    let method = bytes.iter().take(METHOD_MAX + 1).take_while(|byte| fields::is_token(**byte)).count();
    if method > METHOD_MAX {
        return Probe::No;
    }
    match bytes.get(method) {
        None => Probe::More,
        Some(b' ' | b'\t') if method > 0 => {
            if METHODS.contains(&&bytes[..method]) {
                return Probe::Yes;
            }
            let target = bytes[method..].trim_ascii_start();
            match memchr::memchr(b'\n', bytes) {
                None if bytes.len() > PROBE_LINE_BYTES && (target.starts_with(b"/") || target.starts_with(b"http")) => Probe::Yes,
                None => Probe::More,
                Some(end) if memchr::memmem::find(&bytes[..end], b"HTTP/1.").is_some() => Probe::Yes,
                Some(_) => Probe::No,
            }
        }
        Some(_) => Probe::No,
    }
}

fn prefix(bytes: &[u8], wanted: &[u8]) -> Probe {
    let len = bytes.len().min(wanted.len());
    match bytes[..len] == wanted[..len] {
        true if len == wanted.len() => Probe::Yes,
        true => Probe::More,
        false => Probe::No,
    }
}

#[derive(Debug)]
pub(crate) struct Http {
    halves: [Half; 2],
    /// Requests whose responses have not begun.
    exchanges: VecDeque<Exchange>,
    header_bytes_max: usize,
    wake: bool,
}

/// What a response has to know of its request.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    tx: u64,
    head: bool,
    connect: bool,
}

#[derive(Debug)]
struct Half {
    side: Side,
    state: State,
    /// Bytes of what is pending that hold no end of it.
    scanned: usize,
    tx: Option<u64>,
    body: Body,
    exchange: Option<Exchange>,
}

/// What becomes of a body, whatever the version that frames it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    stream: Option<u8>,
    /// One of the files of a form.
    file: Option<u8>,
    decoder: Option<Box<Decoder>>,
    form: Option<Box<Multipart>>,
    broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Line,
    Headers,
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    UntilClose,
    /// After CONNECT: until the answer is known.
    Waiting,
}

/// How a step of the machine ended.
enum Did {
    Took(usize),
    NeedMore,
    /// After so many bytes.
    Stop(usize, Next),
}

impl Http {
    pub fn new(config: &Config) -> Self {
        let half = |side| Half { side, state: State::Line, scanned: 0, tx: None, body: Body::default(), exchange: None };
        Self {
            halves: [half(Side::Request), half(Side::Response)],
            exchanges: VecDeque::new(),
            header_bytes_max: config.header_bytes_max,
            wake: false,
        }
    }

    fn step(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let half = &mut self.halves[io.dir as usize];
        match half.state {
            State::Line => {
                if half.side == Side::Response {
                    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
                    if blanks > 0 {
                        return Did::Took(blanks);
                    }
                    match begins_a_status(bytes) {
                        Begins::Status => {}
                        Begins::After(junk) => return Did::Took(junk),
                        Begins::Body => return self.no_status(io).map_or(Did::Took(0), |next| Did::Stop(0, next)),
                        Begins::Unknown => return Did::NeedMore,
                    }
                }
                let found = match half.side {
                    Side::Request => find_line(bytes, &mut half.scanned).map(|end| (end, end + 1)),
                    Side::Response => find_status_line(bytes, &mut half.scanned),
                };
                let Some((end, next)) = found else { return self.over(bytes.len(), io) };
                let line = bytes[..end].trim_ascii_end();
                if line.is_empty() {
                    return Did::Took(next);
                }
                self.first_line(line, io).map_or(Did::Took(next), |next| Did::Stop(0, next))
            }
            State::Headers | State::Trailers => {
                let Some(end) = find_block(bytes, half.side, &mut half.scanned) else { return self.over(bytes.len(), io) };
                if half.state == State::Trailers {
                    self.trailers(&bytes[..end], io);
                    return Did::Took(end);
                }
                self.headers(&bytes[..end], io).map_or(Did::Took(end), |next| Did::Stop(end, next))
            }
            State::ChunkSize => {
                let digits = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(0);
                let digits = bytes[digits..].iter().take(CHUNK_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
                let none = digits == 0 && bytes.iter().any(|byte| !is_space(*byte));
                if none || digits > CHUNK_DIGITS_MAX {
                    return self.bad_chunk(io);
                }
                let Some(end) = find_line(bytes, &mut half.scanned) else {
                    return if bytes.len() > CHUNK_LINE_MAX { self.bad_chunk(io) } else { Did::NeedMore };
                };
                self.chunk_size(&bytes[..end], end + 1, io)
            }
            State::Fixed(left) | State::Chunk(left) => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - take as u64;
                if let Some(next) = self.body(&bytes[..take], io) {
                    return Did::Stop(take, next);
                }
                let half = &mut self.halves[io.dir as usize];
                half.state = match half.state {
                    State::Chunk(_) if left == 0 => State::ChunkSize,
                    State::Chunk(_) => State::Chunk(left),
                    _ => State::Fixed(left),
                };
                if half.state == State::Fixed(0) {
                    self.finish(io);
                }
                Did::Took(take)
            }
            State::UntilClose => self.body(bytes, io).map_or(Did::Took(bytes.len()), |next| Did::Stop(bytes.len(), next)),
            State::Waiting => Did::NeedMore,
        }
    }

    fn over(&mut self, pending: usize, io: &mut Io<'_>) -> Did {
        if pending <= self.header_bytes_max {
            return Did::NeedMore;
        }
        let half = &self.halves[io.dir as usize];
        let (tx, event) = match half.side {
            Side::Request => (half.tx, "http.request_field_too_long"),
            Side::Response => (half.tx, "http.response_field_too_long"),
        };
        io.event(tx, event);
        io.context.stats.pending_refused += 1;
        Did::Stop(0, Next::Finished(Finished::Cap("header_bytes_max")))
    }

    fn chunk_size(&mut self, line: &[u8], taken: usize, io: &mut Io<'_>) -> Did {
        let line = &line[line.iter().take_while(|byte| is_space(**byte)).count()..];
        if line.is_empty() {
            return Did::Took(taken);
        }
        let half = &mut self.halves[io.dir as usize];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let rest = line[digits..].trim_ascii();
        if digits == 0 {
            return self.bad_chunk(io);
        }
        let Some(size) = line[..digits].iter().try_fold(0_u64, |size, digit| {
            let size = size << 4 | u64::from((*digit as char).to_digit(16)?);
            (size <= i32::MAX as u64).then_some(size)
        }) else {
            return self.bad_chunk(io);
        };
        half.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
        if !rest.is_empty() {
            let event = match half.side {
                Side::Request => "http.request_chunk_extension",
                Side::Response => "http.response_chunk_extension",
            };
            let tx = half.tx;
            io.event(tx, event);
        }
        Did::Took(taken)
    }

    /// A server refuses such a request; a browser shows what follows.
    fn bad_chunk(&mut self, io: &mut Io<'_>) -> Did {
        let half = &mut self.halves[io.dir as usize];
        let tx = half.tx;
        match half.side {
            Side::Request => {
                io.event(tx, "http.invalid_request_chunk_len");
                Did::Stop(0, Next::Finished(Finished::Malformed("chunk length")))
            }
            Side::Response => {
                half.state = State::UntilClose;
                io.event(tx, "http.invalid_response_chunk_len");
                Did::Took(0)
            }
        }
    }

    /// `Some`: a cap on what it becomes was reached.
    fn body(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let half = &mut self.halves[io.dir as usize];
        half.body.push(bytes, half.side, half.tx?, io)
    }

    /// The message is complete; the direction begins anew.
    fn finish(&mut self, io: &mut Io<'_>) {
        let dir = io.dir;
        let half = &mut self.halves[dir as usize];
        half.state = State::Line;
        half.scanned = 0;
        half.exchange = None;
        let body = std::mem::take(&mut half.body);
        let Some(id) = half.tx.take() else { return };
        body.close(id, io);
        if let Some(tx) = io.tx(id) {
            tx.advance(dir, Stage::Complete);
        }
    }
}

fn open_body(side: Side, form: bool, dir: Dir, tx: &mut Transaction) -> Option<u8> {
    tx.advance(dir, Stage::Body);
    match side {
        Side::Request if form => tx.open_stream(&[Buffer::HttpRequestBody], dir),
        Side::Request => tx.open_stream(&[Buffer::HttpRequestBody, Buffer::FileData], dir),
        Side::Response => tx.open_stream(&[Buffer::HttpResponseBody, Buffer::FileData], dir),
    }
}

impl Body {
    /// Bytes as they came. `Some`: a cap on what they become was reached.
    pub fn push(&mut self, bytes: &[u8], side: Side, id: u64, io: &mut Io<'_>) -> Option<Next> {
        if bytes.is_empty() {
            return None;
        }
        io.context.stats.body_bytes += bytes.len() as u64;
        if self.stream.is_none() {
            self.stream = open_body(side, self.form.is_some(), io.dir, io.tx(id)?);
        }
        let Some(mut decoder) = self.decoder.take() else {
            self.grow(bytes, id, io);
            return None;
        };
        let before = decoder.given();
        let result = decoder.push(bytes, &mut |piece| self.grow(piece, id, io));
        io.context.stats.decoded_bytes += decoder.given() - before;
        self.note_broken(&decoder, id, io);
        self.decoder = Some(decoder);
        let failure = result.err()?;
        io.context.stats.decoded_refused += 1;
        let (event, cap) = match failure {
            Failure::Ratio => ("http.compression_bomb", "decoded_ratio_max"),
            Failure::Bytes => ("http.compression_bomb_limit_reached", "decoded_bytes_max"),
        };
        io.event(Some(id), event);
        Some(Next::Finished(Finished::Cap(cap)))
    }

    pub fn is_coded(&self) -> bool {
        self.decoder.is_some()
    }

    /// The body is complete.
    pub fn close(mut self, id: u64, io: &mut Io<'_>) {
        let dir = io.dir;
        if let Some(mut decoder) = self.decoder.take() {
            decoder.end(&mut |piece| self.grow(piece, id, io));
            self.note_broken(&decoder, id, io);
            decoder.recycle(&mut io.context.inflaters);
        }
        if let Some(mut form) = self.form.take() {
            form.end(&mut |part| self.part(part, id, io));
        }
        if let Some(stream) = self.stream
            && let Some(tx) = io.tx(id)
        {
            let length = tx.stream_len(stream);
            tx.integer_is(if dir == Dir::ToServer { Field::HttpRequestLength } else { Field::HttpResponseLength }, dir, length);
            tx.close_stream(stream);
        }
    }

    /// Bytes of the body without its codings.
    fn grow(&mut self, bytes: &[u8], id: u64, io: &mut Io<'_>) {
        if let Some(stream) = self.stream {
            io.grow(id, stream, bytes);
        }
        if let Some(mut form) = self.form.take() {
            form.push(bytes, &mut |part| self.part(part, id, io));
            self.form = Some(form);
        }
    }

    fn part(&mut self, part: Part<'_>, id: u64, io: &mut Io<'_>) {
        let dir = io.dir;
        match part {
            Part::File(name) => {
                if let Some(tx) = io.tx(id) {
                    tx.value(Buffer::FileName, dir, name);
                    self.file = tx.open_stream(&[Buffer::FileData], dir);
                }
            }
            Part::Bytes(bytes) => {
                if let Some(file) = self.file {
                    io.grow(id, file, bytes);
                }
            }
            Part::End => {
                if let Some(file) = self.file.take()
                    && let Some(tx) = io.tx(id)
                {
                    let length = tx.stream_len(file);
                    tx.integer_is(Field::FileSize, dir, length);
                    tx.close_stream(file);
                }
            }
            Part::InvalidHeader => io.event(Some(id), "http.multipart_invalid_header"),
        }
    }

    fn note_broken(&mut self, decoder: &Decoder, id: u64, io: &mut Io<'_>) {
        if decoder.is_broken() && !std::mem::replace(&mut self.broken, true) {
            io.context.stats.undecodable += 1;
            io.event(Some(id), "http.gzip_decompression_failed");
        }
    }

    /// `len` bytes are missing: what is coded cannot be read on, in a form the file it is in cannot be told.
    pub fn skip(&mut self, len: u64, id: u64, io: &mut Io<'_>) {
        if let Some(decoder) = self.decoder.as_mut() {
            decoder.kill();
        }
        for stream in [self.stream, self.file].into_iter().flatten() {
            io.skip(id, stream, len);
        }
    }
}

impl Parser for Http {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], io) {
                Did::Took(taken) => {
                    at += taken;
                    self.halves[io.dir as usize].scanned = 0;
                }
                Did::NeedMore => break,
                Did::Stop(taken, next) => return Step { consumed: at + taken, next },
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let half = &mut self.halves[io.dir as usize];
        let in_body = match half.state {
            State::Fixed(left) | State::Chunk(left) => left >= len,
            State::UntilClose => true,
            _ => false,
        };
        if in_body && let Some(id) = half.tx {
            half.body.skip(len, id, io);
        }
        match &mut half.state {
            State::Fixed(left) | State::Chunk(left) if *left > len => {
                *left -= len;
                Next::Continue
            }
            State::Fixed(left) if *left == len => {
                self.finish(io);
                Next::Continue
            }
            State::Chunk(left) if *left == len => {
                half.state = State::ChunkSize;
                Next::Continue
            }
            State::UntilClose => Next::Continue,
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, pending: &[u8], io: &mut Io<'_>) {
        let half = &self.halves[io.dir as usize];
        if half.state == State::Line && half.side == Side::Request && !pending.trim_ascii().is_empty() {
            let _ = self.first_line(pending.trim_ascii_end(), io);
            let tx = self.halves[io.dir as usize].tx;
            io.event(tx, "http.request_line_incomplete");
        }
        // What waited for more is all there is: a size without a line's end, a status line that is none.
        let half = &self.halves[io.dir as usize];
        match (half.side, half.state) {
            (Side::Response, State::Line) if !pending.is_empty() && begins_a_status(pending) == Begins::Unknown => {
                let _ = self.no_status(io);
                let _ = self.body(pending, io);
            }
            // A blank line is there that might have been none.
            (Side::Response, State::Headers) if pending.ends_with(b"\n\r\r\n") => {
                let _ = self.headers(pending, io);
            }
            (_, State::ChunkSize) => {
                let _ = self.body(pending, io);
            }
            _ => {}
        }
        if self.halves[io.dir as usize].tx.is_some() {
            self.finish(io);
        }
    }

    fn wakes_other(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }
}

fn find_line(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = (*scanned).min(bytes.len());
    let found = memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at);
    *scanned = bytes.len();
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Status,
    /// A status line, behind so many bytes of another line.
    After(usize),
    /// None; what came is the body.
    Body,
    /// Too few bytes to tell.
    Unknown,
}

/// Whether these bytes, blanks and one short line before them aside, can be a status line.
fn begins_a_status(bytes: &[u8]) -> Begins {
    let is_status = |bytes: &[u8]| {
        let start = bytes.iter().take(BLANKS_MAX).take_while(|byte| is_blank(**byte)).count();
        let text = &bytes[start..bytes.len().min(start + 4)];
        match text.eq_ignore_ascii_case(&b"HTTP"[..text.len()]) {
            false => Begins::Body,
            true if text.len() == 4 => Begins::Status,
            true => Begins::Unknown,
        }
    };
    match is_status(bytes) {
        Begins::Body => match memchr::memchr(b'\n', &bytes[..bytes.len().min(JUNK_LINE_MAX)]) {
            Some(end) => match is_status(&bytes[end + 1..]) {
                Begins::Status => Begins::After(end + 1),
                found => found,
            },
            None if bytes.len() < JUNK_LINE_MAX => Begins::Unknown,
            None => Begins::Body,
        },
        found => found,
    }
}

/// Before the size of a chunk: C's `isspace`, and zeros.
const fn is_space(byte: u8) -> bool {
    is_blank(byte) || byte == 0x0b
}

const fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// Where a status line ends, and where the next one begins: browsers take a lone carriage return for a line's end.
fn find_status_line(bytes: &[u8], scanned: &mut usize) -> Option<(usize, usize)> {
    let from = (*scanned).min(bytes.len());
    let Some(at) = memchr::memchr2(b'\n', b'\r', &bytes[from..]).map(|at| from + at) else {
        *scanned = bytes.len();
        return None;
    };
    match (bytes[at], bytes.get(at + 1)) {
        (b'\n', _) => Some((at, at + 1)),
        (_, Some(b'\n')) => Some((at, at + 2)),
        (_, Some(_)) => Some((at, at + 1)),
        (_, None) => {
            *scanned = at;
            None
        }
    }
}

/// Blanks in a line that is still empty.
const BLANKS_MAX: usize = 8;

const NOT_KNOWN: usize = usize::MAX;

/// Where the block ends: behind an empty line, which may be the first one. To browsers a line of blanks between line feeds is
/// empty too, and one of two carriage returns, unless an empty one follows.
fn find_block(bytes: &[u8], side: Side, scanned: &mut usize) -> Option<usize> {
    // Bytes from `from` on that are the rest of an empty line, its line feed aside.
    let empty = |from: usize, lone: bool| {
        let lone = lone && side == Side::Response;
        match bytes.get(from..) {
            Some([b'\r', b'\r', b'\n', rest @ ..]) if lone => match rest {
                [b'\r', b'\n', ..] => 1,
                [] | [b'\r'] => NOT_KNOWN,
                _ => 2,
            },
            Some([b'\r', b'\r'] | [b'\r']) if lone => NOT_KNOWN,
            Some([b'\r', ..]) => 1,
            _ => bytes.iter().skip(from).take(BLANKS_MAX).take_while(|byte| lone && matches!(byte, b' ' | b'\t')).count(),
        }
    };
    let first = usize::from(bytes.first() == Some(&b'\r'));
    if bytes.get(first) == Some(&b'\n') {
        return Some(first + 1);
    }
    // A line feed at `scanned` or later, behind it an empty line.
    let mut from = *scanned;
    while let Some(at) = memchr::memchr(b'\n', bytes.get(from..)?).map(|at| from + at) {
        let lone = at == 0 || bytes[at - 1] != b'\r';
        let empty = empty(at + 1, lone);
        match bytes.get((at + 1).saturating_add(empty)) {
            Some(b'\n') => return Some(at + empty + 2),
            Some(_) => from = at + 1,
            None => {
                *scanned = at;
                return None;
            }
        }
    }
    *scanned = bytes.len();
    None
}
