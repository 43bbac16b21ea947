//! HTTP/1 (RFC 9112), 0.9 too, read as leniently as the servers and browsers behind it.
//!
//! ```text
//! Line -> Headers -> Fixed | ChunkSize <-> Chunk -> Trailers | UntilClose -> Line
//!      -> Extra (what follows a request and is none)    Lost (bytes are missing, this direction cannot be read on)
//! ```
//! A body goes through three stages, each streaming: framing (chunks, length), content codings (`encoding`), parts of a form
//! (`multipart`).
//!
//! A header block is read once, when its blank line is there, so that no cutting into segments can matter.

mod body;
mod encoding;
mod fields;
mod foreign;
mod grpc;
mod lines;
mod message;
mod multipart;
mod ranges;
mod uri;

use std::collections::VecDeque;

pub(crate) use body::{Body, Origin};
pub(crate) use encoding::{Coding, Codings, Decoder, Limits, Pool as Inflaters};
pub(crate) use fields::Scratch;
pub(crate) use message::{fields_to_values, host_values};
pub(crate) use multipart::parameter;
pub(crate) use ranges::Ranges;
pub(crate) use uri::{Target, host_and_port};

use crate::context::{Config, Io};
use crate::http2::Upgraded;
use crate::names::{Dir, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use lines::{Begins, begins_a_request, begins_a_status, find_block, find_line, find_status_line, is_blank, is_space};

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
            let target = bytes[method..].trim_ascii_start();
            // Another protocol has some of the methods.
            if b"sip:".starts_with(&target[..target.len().min(4)]) || b"sips:".starts_with(&target[..target.len().min(5)]) {
                return if target.len() < 4 || target == b"sips" { Probe::More } else { Probe::No };
            }
            if METHODS.contains(&&bytes[..method]) {
                return Probe::Yes;
            }
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
    /// Other bytes have come with the last one of a message.
    more: bool,
    /// Another protocol was spoken before.
    follows_another: bool,
    /// The request of an upgrade to HTTP/2 that was granted.
    upgraded: Option<Box<Upgraded>>,
}

/// What a response has to know of its request.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    tx: u64,
    head: bool,
    connect: bool,
    /// An interim answer has come.
    interim: bool,
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
    /// The last request that is complete.
    last: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Line,
    /// Behind a request: lines that begin none.
    Extra,
    /// Behind an answer's body: what has come with it ([`Config::body_tails`]).
    Tail,
    Headers,
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    UntilClose,
    /// After CONNECT: until the answer is known.
    Waiting,
    /// Bytes are missing: goes on if the next ones begin a message.
    Resync,
    /// Nobody can say what the bytes are.
    Lost,
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
        let half = |side| Half { side, state: State::Line, scanned: 0, tx: None, body: Body::default(), exchange: None, last: None };
        Self {
            halves: [half(Side::Request), half(Side::Response)],
            exchanges: VecDeque::new(),
            header_bytes_max: config.header_bytes_max,
            wake: false,
            more: false,
            follows_another: false,
            upgraded: None,
        }
    }

    fn step(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let half = &mut self.halves[io.dir as usize];
        match half.state {
            State::Extra => self.extra(bytes, io),
            State::Tail => self.tail(bytes, io),
            State::Line => {
                if half.side == Side::Request && half.last.is_some_and(|last| io.is_open(last)) && begins_a_request(bytes) == Some(false) {
                    half.state = State::Extra;
                    return Did::Took(0);
                }
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
                self.more = end < bytes.len();
                let half = &self.halves[io.dir as usize];
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
                    self.more = take < bytes.len();
                    self.answered(io);
                }
                Did::Took(take)
            }
            State::UntilClose => self.body(bytes, io).map_or(Did::Took(bytes.len()), |next| Did::Stop(bytes.len(), next)),
            State::Waiting => Did::NeedMore,
            State::Resync => {
                let begins = match half.side {
                    Side::Request => begins_a_request(bytes),
                    Side::Response => match prefix(bytes, b"HTTP/1.") {
                        Probe::Yes => Some(true),
                        Probe::More => None,
                        Probe::No => Some(false),
                    },
                };
                match begins {
                    Some(true) => {
                        half.state = State::Line;
                        Did::Took(0)
                    }
                    Some(false) => self.lose(io).map_or(Did::Took(bytes.len()), |next| Did::Stop(0, next)),
                    None => self.over(bytes.len(), io),
                }
            }
            State::Lost => Did::Took(bytes.len()),
        }
    }

    /// A line behind a request that begins none: the reference engine, as some servers, takes it for more of the body.
    fn extra(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let half = &mut self.halves[0];
        if begins_a_request(bytes) == Some(true) {
            self.finish(io);
            return Did::Took(0);
        }
        let Some(end) = memchr::memchr(b'\n', bytes).map(|end| end + 1) else {
            return if bytes.len() > CHUNK_LINE_MAX || begins_a_request(bytes) == Some(false) {
                self.more_body(bytes, io)
            } else {
                Did::NeedMore
            };
        };
        half.scanned = 0;
        self.more_body(&bytes[..end], io)
    }

    fn more_body(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let half = &mut self.halves[io.dir as usize];
        half.tx = half.tx.or(half.last);
        half.body.is_extra = true;
        let event = if half.side == Side::Request { "http.request_body_unexpected" } else { "http.response_body_unexpected" };
        let id = half.tx;
        io.event(id, event);
        self.body(bytes, io).map_or(Did::Took(bytes.len()), |next| Did::Stop(bytes.len(), next))
    }

    /// A body is complete.
    fn answered(&mut self, io: &mut Io<'_>) {
        let half = &mut self.halves[io.dir as usize];
        if half.side == Side::Response && self.more && io.context.config.body_tails {
            half.state = State::Tail;
        } else {
            self.finish(io);
        }
    }

    fn tail(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
        let rest = &bytes[blanks..];
        let text = &rest[..rest.len().min(4)];
        if !text.is_empty() && text.eq_ignore_ascii_case(&b"HTTP"[..text.len()]) && blanks == 0 {
            self.finish(io);
            return Did::Took(0);
        }
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        self.more_body(&bytes[..end], io)
    }

    /// What follows missing bytes begins nothing. `Some`: there is no direction left that can be read.
    fn lose(&mut self, io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        self.halves[dir as usize].state = State::Lost;
        if dir == Dir::ToClient {
            // No answer will be seen.
            for exchange in std::mem::take(&mut self.exchanges) {
                if let Some(tx) = io.tx(exchange.tx) {
                    tx.advance(dir, Stage::Complete);
                }
            }
        }
        self.halves.iter().all(|half| half.state == State::Lost).then_some(Next::Finished(Finished::Gap))
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
        half.last = Some(id);
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
        if self.halves[io.dir as usize].state == State::Tail {
            self.finish(io);
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let half = &mut self.halves[io.dir as usize];
        let left = match half.state {
            State::Fixed(left) | State::Chunk(left) => left,
            State::UntilClose => u64::MAX,
            State::Lost => return Next::Continue,
            _ => 0,
        };
        let within = left.min(len);
        if within > 0
            && let Some(id) = half.tx
        {
            half.body.skip(within, half.side, id, io);
        }
        match &mut half.state {
            State::Fixed(left) | State::Chunk(left) => *left -= within,
            _ => {}
        }
        match half.state {
            State::Fixed(0) => self.finish(io),
            State::Chunk(0) => half.state = State::ChunkSize,
            _ => {}
        }
        if within == len {
            return Next::Continue;
        }
        if self.halves[io.dir as usize].tx.is_some() {
            self.finish(io);
        }
        self.halves[io.dir as usize].state = State::Resync;
        Next::Blind(Finished::Gap)
    }

    fn end(&mut self, pending: &[u8], io: &mut Io<'_>) {
        self.more = false;
        let half = &self.halves[io.dir as usize];
        if half.state == State::Extra && !pending.is_empty() {
            let _ = self.more_body(pending, io);
        } else if half.state == State::Line && half.side == Side::Request && !pending.trim_ascii().is_empty() {
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
            // All fields that will ever come.
            (_, State::Headers) if !pending.is_empty() => {
                let _ = self.headers(pending, io);
            }
            (_, State::ChunkSize) => {
                let _ = self.body(pending, io);
            }
            _ => {}
        }
        let half = &self.halves[io.dir as usize];
        if let Some(id) = half.tx {
            // What was announced and has not come.
            let is_short = matches!(half.state, State::Fixed(1..) | State::Chunk(_) | State::ChunkSize);
            if let Some(tx) = io.tx(id).filter(|_| is_short) {
                tx.truncate_streams();
            }
            self.finish(io);
        }
    }

    fn follows_another(&mut self) {
        self.follows_another = true;
    }

    fn leaves(&mut self) -> Option<Box<Upgraded>> {
        self.upgraded.take()
    }

    fn wakes_other(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }
}
