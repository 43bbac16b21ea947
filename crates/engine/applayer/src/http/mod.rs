//! HTTP/1 (RFC 9112), 0.9 too, read as leniently as the servers and browsers behind it.
//!
//! ```text
//! Line -> Headers -> Fixed | ChunkSize <-> Chunk -> Trailers | UntilClose -> Line
//! ```
//! A body goes through three stages, each streaming: framing (chunks, length), content codings (`encoding`), parts of a form
//! (`multipart`).
//!
//! A header block is read once, when its blank line is there, so that no cutting into segments can matter.

mod body;
mod encoding;
mod fields;
mod lines;
mod message;
mod multipart;
mod uri;

use std::collections::VecDeque;

pub(crate) use body::{Body, Origin};
pub(crate) use encoding::Pool as Inflaters;
pub(crate) use fields::Scratch;
pub(crate) use message::{fields_to_values, host_values};
pub(crate) use multipart::parameter;
pub(crate) use uri::{Target, host_and_port};

use crate::context::{Config, Io};
use crate::names::{Dir, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use lines::{Begins, begins_a_status, find_block, find_line, find_status_line, is_blank, is_space};

/// Bytes of a chunk-size line, extensions included.
const CHUNK_LINE_MAX: usize = 8 * 1024;
/// Digits of a chunk's size, leading zeros included.
const CHUNK_DIGITS_MAX: usize = 64;
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
