//! HTTP/2 (RFC 9113): each stream is a transaction, with the values that HTTP/1 has too; a frame of the connection is one by itself.
//!
//! ```text
//! Preface -> Head -> Data (streamed) | Skip | whole frames: fields, settings, the rest
//! ```
//! Recognised by the client's preface or the server's first settings, so with prior knowledge and after an upgrade. Fields go through
//! `hpack` into the same values as those of HTTP/1, bodies through the same decoders.

mod doh;
mod hpack;
mod upgrade;

use std::collections::{BTreeMap, VecDeque};

use crate::context::Io;
use crate::dns;
use crate::http::{Body, Origin, Scratch, Side, Target, fields_to_values, host_and_port, host_values};
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;
use hpack::{Failure, Item};
pub(crate) use upgrade::Upgraded;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// Settings of one frame that are shown; RFC 9113 knows six.
const SETTINGS_MAX: usize = 64;
/// Compressed bodies that are read at the same time, each with its decoder's window; peers rarely allow more streams than these.
const CODED_MAX: usize = 100;
/// Numbers of one kind that frames of a stream may add to it.
const NUMBERS_MAX: u16 = 64;

/// Streams that were reset and still wait for what the other side has sent by then.
const RESETS_KEPT: usize = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x01;
const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const WITH_PRIORITY: u8 = 0x20;

/// A client's preface; a server's settings, which come first.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    let wanted: &[u8] = match dir {
        Dir::ToServer => PREFACE,
        Dir::ToClient => {
            // Length, a multiple of six; type, no flags, stream 0.
            let fits = [bytes.first() == Some(&0), bytes.get(1).is_none_or(|byte| *byte == 0), bytes.get(2).is_none_or(|len| len % 6 == 0)];
            let rest = bytes.get(3..HEAD_BYTES.min(bytes.len())).unwrap_or_default();
            return match fits == [true; 3] && rest == &[SETTINGS, 0, 0, 0, 0, 0][..rest.len()] {
                true if rest.len() == 6 => Probe::Yes,
                true => Probe::More,
                false => Probe::No,
            };
        }
    };
    let len = bytes.len().min(wanted.len());
    match bytes[..len] == wanted[..len] {
        true if len == wanted.len() => Probe::Yes,
        true => Probe::More,
        false => Probe::No,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Http2 {
    lanes: [Lane; 2],
    /// Streams whose transactions are open.
    streams: BTreeMap<u32, Stream>,
    /// The highest that a side has begun.
    highest: u32,
    /// Streams that a side has reset, the oldest first.
    resets: VecDeque<(u32, Dir)>,
    /// Bodies that are decompressed.
    coded: usize,
    /// It carries DNS.
    doh: Doh,
    upgraded: Option<Box<Upgraded>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Doh {
    #[default]
    No,
    /// Nobody was told yet.
    New,
    Told,
}

/// One direction of the connection.
#[derive(Debug, Default)]
struct Lane {
    state: State,
    fields: hpack::Decoder,
    /// A field block that goes on in the next frame.
    block: Option<Block>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Begin,
    Head,
    /// Bytes of a body that are left, and of the padding behind them.
    Data {
        stream: u32,
        left: usize,
        padding: usize,
        last: bool,
    },
    /// Of a frame that nobody asks for.
    Skip(usize),
}

#[derive(Debug)]
struct Block {
    stream: u32,
    bytes: Vec<u8>,
    last: bool,
    /// Of a push: the request of a stream that the server begins.
    promise: bool,
}

#[derive(Debug)]
struct Stream {
    tx: u64,
    sides: [Half; 2],
}

#[derive(Debug, Default)]
struct Half {
    body: Body,
    /// Its first field block was read.
    begun: bool,
    /// Kinds of frames that were told of, one bit each.
    kinds: u16,
    numbers: u16,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

enum Did {
    Took(usize),
    NeedMore,
    Stop(Next),
}

impl Http2 {
    const fn protocol(&self) -> Protocol {
        match self.doh {
            Doh::No => Protocol::Http2,
            Doh::New | Doh::Told => Protocol::Doh2,
        }
    }

    fn step(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Did {
        let dir = io.dir;
        let lane = &mut self.lanes[dir as usize];
        match lane.state {
            State::Begin => {
                lane.state = State::Head;
                match dir {
                    Dir::ToClient => Did::Took(0),
                    Dir::ToServer if bytes.starts_with(PREFACE) => Did::Took(PREFACE.len()),
                    Dir::ToServer if PREFACE.starts_with(bytes) => {
                        lane.state = State::Begin;
                        Did::NeedMore
                    }
                    Dir::ToServer => {
                        io.event(None, "http2.invalid_client_magic");
                        Did::Stop(Next::Finished(Finished::Malformed("preface")))
                    }
                }
            }
            State::Head => {
                let &[a, b, c, kind, flags, d, e, f, g, ..] = bytes else { return Did::NeedMore };
                let head =
                    Head { len: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]) };
                self.head(head, &bytes[HEAD_BYTES..], io)
            }
            State::Data { stream, left, padding, last } => {
                let take = left.min(bytes.len());
                if let Some(next) = self.body(stream, &bytes[..take], io) {
                    return Did::Stop(next);
                }
                self.lanes[dir as usize].state = match left - take {
                    0 => {
                        if last {
                            self.finish(stream, dir, io);
                        }
                        State::Skip(padding)
                    }
                    left => State::Data { stream, left, padding, last },
                };
                Did::Took(take)
            }
            State::Skip(left) => {
                let take = left.min(bytes.len());
                lane.state = if take == left { State::Head } else { State::Skip(left - take) };
                Did::Took(take)
            }
        }
    }

    fn head(&mut self, head: Head, rest: &[u8], io: &mut Io<'_>) -> Did {
        let lane = &mut self.lanes[io.dir as usize];
        // RFC 9113, section 4.3: nothing may come between the parts of a block.
        if let Some(block) = &lane.block
            && (head.kind != CONTINUATION || head.stream != block.stream)
        {
            return self.malformed("http2.invalid_frame_header", "field block", io);
        }
        match head.kind {
            DATA => self.data_head(head, rest, io),
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let held = lane.block.as_ref().map_or(0, |block| block.bytes.len());
                if held + head.len > io.context.config.header_bytes_max {
                    io.context.stats.pending_refused += 1;
                    io.event(None, "http2.reassembly_limit_reached");
                    return Did::Stop(Next::Finished(Finished::Cap("header_bytes_max")));
                }
                let Some(payload) = rest.get(..head.len) else { return Did::NeedMore };
                self.block_part(head, payload, io).map_or(Did::Took(HEAD_BYTES + head.len), Did::Stop)
            }
            SETTINGS | PRIORITY | RST_STREAM | GOAWAY | PING | WINDOW_UPDATE if head.len <= 6 * SETTINGS_MAX => {
                let Some(payload) = rest.get(..head.len) else { return Did::NeedMore };
                self.control(head, payload, io).map_or(Did::Took(HEAD_BYTES + head.len), Did::Stop)
            }
            kind => {
                if kind == SETTINGS {
                    io.event(None, "http2.long_frame_data");
                }
                lane.state = State::Skip(head.len);
                Did::Took(HEAD_BYTES)
            }
        }
    }

    fn data_head(&mut self, head: Head, rest: &[u8], io: &mut Io<'_>) -> Did {
        let dir = io.dir;
        if head.stream == 0 {
            io.event(None, "http2.data_stream_zero");
            return Did::Stop(Next::Finished(Finished::Malformed("data without a stream")));
        }
        let (taken, padding) = match head.flags & PADDED != 0 {
            true if head.len == 0 => return self.malformed("http2.invalid_frame_length", "padding", io),
            true => {
                let Some(padding) = rest.first() else { return Did::NeedMore };
                (1, usize::from(*padding))
            }
            false => (0, 0),
        };
        let Some(left) = head.len.checked_sub(taken + padding) else { return self.malformed("http2.invalid_frame_data", "padding", io) };
        self.note_frame(head, io);
        self.lanes[dir as usize].state = State::Data { stream: head.stream, left, padding, last: head.flags & END_STREAM != 0 };
        if left == 0 {
            // A step needs a byte to begin.
            if head.flags & END_STREAM != 0 {
                self.finish(head.stream, dir, io);
            }
            self.lanes[dir as usize].state = if padding > 0 { State::Skip(padding) } else { State::Head };
        }
        Did::Took(HEAD_BYTES + taken)
    }

    fn malformed(&mut self, event: &'static str, why: &'static str, io: &mut Io<'_>) -> Did {
        io.event(None, event);
        Did::Stop(Next::Finished(Finished::Malformed(why)))
    }

    /// A part of a field block. `Some`: nothing can be read any more.
    fn block_part(&mut self, head: Head, payload: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let malformed = |event, io: &mut Io<'_>| {
            io.event(None, event);
            Some(Next::Finished(Finished::Malformed("field block")))
        };
        if head.stream == 0 {
            return malformed("http2.invalid_frame_header", io);
        }
        let mut bytes = payload;
        let mut stream = head.stream;
        let mut priority = None;
        if head.kind != CONTINUATION {
            if head.flags & PADDED != 0 {
                let padded = bytes.split_first().and_then(|(len, rest)| rest.get(..rest.len().checked_sub(usize::from(*len))?));
                let Some(rest) = padded else { return malformed("http2.invalid_frame_data", io) };
                bytes = rest;
            }
            if head.kind == HEADERS && head.flags & WITH_PRIORITY != 0 {
                let &[_, _, _, _, weight, ref rest @ ..] = bytes else { return malformed("http2.invalid_frame_data", io) };
                (priority, bytes) = (Some(weight), rest);
            }
            if head.kind == PUSH_PROMISE {
                let &[a, b, c, d, ref rest @ ..] = bytes else { return malformed("http2.invalid_frame_data", io) };
                (stream, bytes) = (u32::from_be_bytes([a & 0x7f, b, c, d]), rest);
            }
        }
        let lane = &mut self.lanes[io.dir as usize];
        let mut block = match (lane.block.take(), head.kind) {
            (Some(block), _) => block,
            (None, CONTINUATION) => return malformed("http2.invalid_frame_header", io),
            (None, kind) => {
                Block { stream: head.stream, bytes: Vec::new(), last: head.flags & END_STREAM != 0, promise: kind == PUSH_PROMISE }
            }
        };
        if let Some(next) = self.open(stream, head.kind, io) {
            return Some(next);
        }
        self.note_frame(Head { stream, ..head }, io);
        if let Some(weight) = priority {
            self.note(stream, Field::Http2Priority, u64::from(weight), io);
        }
        if block.promise && head.kind == PUSH_PROMISE {
            // The parts that follow name the stream that the promise came on.
            block.bytes.extend_from_slice(&stream.to_be_bytes());
        }
        if head.flags & END_HEADERS == 0 {
            block.bytes.extend_from_slice(bytes);
            self.lanes[io.dir as usize].block = Some(block);
            return None;
        }
        let whole;
        let all = if block.bytes.is_empty() {
            bytes
        } else {
            whole = [block.bytes.as_slice(), bytes].concat();
            &whole
        };
        if block.promise {
            let (id, fields) = all.split_first_chunk::<4>()?;
            self.fields(u32::from_be_bytes(*id), Dir::ToServer, fields, false, io)
        } else {
            self.fields(block.stream, io.dir, all, block.last, io)
        }
    }

    /// Begins a stream's transaction where there is none.
    fn open(&mut self, stream: u32, kind: u8, io: &mut Io<'_>) -> Option<Next> {
        if kind == HEADERS && self.resets.contains(&(stream, io.dir)) {
            // Whoever has reset it cannot go on with it.
            self.resets.retain(|(of, _)| *of != stream);
            for dir in [Dir::ToServer, Dir::ToClient] {
                self.finish(stream, dir, io);
            }
        }
        if self.streams.contains_key(&stream) || kind == CONTINUATION {
            return None;
        }
        let reused = io.dir == Dir::ToServer && stream <= self.highest && self.highest > 0;
        self.highest = self.highest.max(stream);
        let Some(tx) = io.begin(self.protocol()) else {
            io.event(None, "http2.too_many_streams");
            return Some(Next::Finished(Finished::Cap("transactions_max")));
        };
        let dir = io.dir;
        if let Some(open) = io.tx(tx) {
            open.integer_is(Field::Http2StreamId, dir, u64::from(stream));
            if reused {
                open.event("http2.stream_id_reuse", dir);
            }
            if dir == Dir::ToClient && kind == HEADERS {
                // An answer to what was not seen, as after an upgrade.
                open.advance(Dir::ToServer, Stage::Complete);
            }
        }
        self.streams.insert(stream, Stream { tx, sides: Default::default() });
        None
    }

    /// A whole field block of `side`: of a request, an answer, or trailers.
    fn fields(&mut self, stream: u32, dir: Dir, block: &[u8], last: bool, io: &mut Io<'_>) -> Option<Next> {
        let Self { lanes, streams, coded, doh, .. } = self;
        let (headers_max, bytes_max) = (io.context.config.headers_max, io.context.config.header_bytes_max);
        let mut scratch = std::mem::take(&mut io.context.scratch);
        scratch.clear();
        let (mut count, mut bytes, mut update) = (0, 0, None);
        let result = lanes[io.dir as usize].fields.read(block, &mut |item| {
            match item {
                Item::Field(name, value) => {
                    bytes += name.len() + value.len() + 4;
                    scratch.add(name, value);
                }
                Item::SizeUpdate(size) => update = Some(size),
            }
            count += 1;
            count <= headers_max && bytes <= bytes_max
        });
        scratch.done();
        let half = streams.get_mut(&stream).map(|open| (open.tx, &mut open.sides[dir as usize]));
        if let Some((id, half)) = half {
            if let (Some(size), Some(tx)) = (update, io.tx(id)) {
                tx.integer_is(Field::Http2SizeUpdate, dir, size);
            }
            let side = if dir == Dir::ToServer { Side::Request } else { Side::Response };
            let trailers = std::mem::replace(&mut half.begun, true);
            let wanted = io.context.config.wanted;
            let double = io.context.config.double_decode;
            let mut interim = false;
            let dns = !trailers && doh::is_dns(scratch.first_value(b"content-type"));
            let asked = if dns || trailers || side == Side::Response { None } else { scratch.first_value(b":path").and_then(doh::asked) };
            if (dns || asked.is_some()) && *doh == Doh::No {
                *doh = Doh::New;
            }
            if let Some(tx) = io.tx(id) {
                if dns || asked.is_some() {
                    tx.protocol = Protocol::Doh2;
                }
                if let Some(message) = asked {
                    dns::show(tx, dir, &message);
                }
                show(tx, dir, &scratch, trailers);
                note_fields(tx, dir, &scratch, update);
                if trailers {
                    fields_to_values(tx, dir, side, &scratch, &wanted);
                    tx.advance(dir, Stage::Trailer);
                } else {
                    match side {
                        Side::Request => request(tx, &mut scratch, double),
                        Side::Response => interim = response(tx, &scratch),
                    }
                    fields_to_values(tx, dir, side, &scratch, &wanted);
                    tx.advance(dir, Stage::Headers);
                }
                if interim {
                    tx.forget(dir);
                    tx.rewind(dir);
                }
            }
            half.begun = !interim;
            if !trailers && !interim && !last {
                half.body = Body::prepare(&scratch, Origin { side, id, dns }, io);
                *coded += usize::from(half.body.is_coded());
            }
        }
        io.context.scratch = scratch;
        match result {
            Err(failure) => {
                let (event, why) = match failure {
                    Failure::Malformed => ("http2.invalid_header", Finished::Malformed("field block")),
                    Failure::IntegerOverflow => ("http2.header_integer_overflow", Finished::Malformed("field block")),
                    Failure::Table => ("http2.invalid_header", Finished::Cap("TABLE_BYTES_MAX")),
                    Failure::TooMany if count > headers_max => ("http2.compression_bomb", Finished::Cap("headers_max")),
                    Failure::TooMany => ("http2.compression_bomb", Finished::Cap("header_bytes_max")),
                };
                io.context.stats.headers_refused += u64::from(failure == Failure::TooMany);
                let id = self.streams.get(&stream).map(|stream| stream.tx);
                io.event(id, event);
                Some(Next::Finished(why))
            }
            Ok(()) if self.coded > CODED_MAX => {
                io.context.stats.decoded_refused += 1;
                Some(Next::Finished(Finished::Cap("CODED_MAX")))
            }
            Ok(()) => {
                if last || dir != io.dir {
                    self.finish(stream, dir, io);
                }
                None
            }
        }
    }

    fn body(&mut self, stream: u32, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let open = self.streams.get_mut(&stream)?;
        let side = if io.dir == Dir::ToServer { Side::Request } else { Side::Response };
        open.sides[io.dir as usize].body.push(bytes, side, open.tx, io)
    }

    /// A direction of a stream is complete.
    fn finish(&mut self, stream: u32, dir: Dir, io: &mut Io<'_>) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        let body = std::mem::take(&mut open.sides[dir as usize].body);
        self.coded -= usize::from(body.is_coded());
        let id = open.tx;
        let now = std::mem::replace(&mut io.dir, dir);
        body.close(id, io);
        io.dir = now;
        let complete = io.tx(id).is_none_or(|tx| {
            tx.advance(dir, Stage::Complete);
            tx.is_complete()
        });
        if complete {
            self.streams.remove(&stream);
        }
    }

    /// Frames of fixed form. `Some`: nothing can be read any more.
    fn control(&mut self, head: Head, payload: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let number = |at: usize| payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes).map(u64::from);
        let fits = match head.kind {
            SETTINGS => head.len.is_multiple_of(6) && (head.flags & ACK == 0 || head.len == 0),
            PRIORITY => head.len == 5,
            RST_STREAM | WINDOW_UPDATE => head.len == 4,
            PING => head.len == 8,
            _ => head.len >= 8,
        };
        let (field, value) = match head.kind {
            RST_STREAM => (Field::Http2Errorcode, number(0)),
            GOAWAY => (Field::Http2Errorcode, number(4)),
            WINDOW_UPDATE => (Field::Http2Window, number(0).map(|window| window & 0x7fff_ffff)),
            PRIORITY => (Field::Http2Priority, payload.get(4).map(|weight| u64::from(*weight))),
            _ => (Field::Http2Frametype, None),
        };
        if head.stream != 0 && self.streams.contains_key(&head.stream) {
            self.note_frame(head, io);
            if let Some(value) = value {
                self.note(head.stream, field, value, io);
            }
            if !fits {
                let id = self.streams.get(&head.stream).map(|stream| stream.tx);
                io.event(id, "http2.invalid_frame_length");
            }
            if head.kind == RST_STREAM {
                self.reset(head.stream, io);
            }
            return None;
        }
        // A stream that is over: only the connection has its frames now.
        let dir = io.dir;
        let Some(id) = io.begin(self.protocol()) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let tx = io.tx(id)?;
        tx.integer_is(Field::Http2StreamId, dir, u64::from(head.stream));
        tx.integer_is(Field::Http2Frametype, dir, u64::from(head.kind));
        if let Some(value) = value {
            tx.integer_is(field, dir, value);
        }
        if head.kind == SETTINGS {
            settings(tx, dir, payload);
        }
        if !fits {
            tx.event("http2.invalid_frame_length", dir);
        }
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
        // One call with thousands of tiny frames is told of frame by frame.
        io.report();
        None
    }

    /// One side gives a stream up. What the other one has sent by then still comes.
    fn reset(&mut self, stream: u32, io: &mut Io<'_>) {
        self.finish(stream, io.dir, io);
        if self.streams.contains_key(&stream) {
            self.resets.push_back((stream, io.dir));
        }
        if self.resets.len() > RESETS_KEPT
            && let Some((oldest, _)) = self.resets.pop_front()
        {
            for dir in [Dir::ToServer, Dir::ToClient] {
                self.finish(oldest, dir, io);
            }
        }
    }

    /// A stream has a frame of this kind.
    fn note_frame(&mut self, head: Head, io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(open) = self.streams.get_mut(&head.stream) else { return };
        let half = &mut open.sides[dir as usize];
        let bit = 1 << (head.kind & 15);
        if half.kinds & bit == 0 {
            half.kinds |= bit;
            if let Some(tx) = io.tx(open.tx) {
                tx.integer_is(Field::Http2Frametype, dir, u64::from(head.kind));
            }
        }
    }

    fn note(&mut self, stream: u32, field: Field, value: u64, io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(open) = self.streams.get_mut(&stream) else { return };
        let half = &mut open.sides[dir as usize];
        if half.numbers < NUMBERS_MAX {
            half.numbers += 1;
            if let Some(tx) = io.tx(open.tx) {
                tx.integer_is(field, dir, value);
            }
        }
    }
}

/// For the log: all fields in order, behind the table's new size.
fn note_fields(tx: &mut Transaction, dir: Dir, scratch: &Scratch, update: Option<u64>) {
    if tx.notes.off {
        return;
    }
    tx.notes.list(if dir == Dir::ToServer { "request_headers" } else { "response_headers" });
    if let Some(size) = update {
        tx.notes.object("");
        tx.notes.number("table_size_update", size);
        tx.notes.end();
    }
    for (name, value) in scratch.all() {
        tx.notes.object("");
        tx.notes.text("name", name);
        tx.notes.text("value", value);
        tx.notes.end();
    }
    tx.notes.end();
}

fn settings(tx: &mut Transaction, dir: Dir, payload: &[u8]) {
    for setting in payload.chunks_exact(6) {
        let setting = setting.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        tx.integer_is(Field::Http2Settings, dir, setting);
    }
}

/// Fields as the protocol has them: in `http2.header` colons within names and values are doubled.
/// The block as it would be sent by HTTP/1 is `http.header.raw`.
fn show(tx: &mut Transaction, dir: Dir, scratch: &Scratch, trailers: bool) {
    for field in scratch.distinct() {
        let name = scratch.name(field);
        tx.value(Buffer::Http2HeaderName, dir, name);
        for value in scratch.values(field) {
            let double =
                |text: &[u8]| text.iter().flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == b':'))).collect::<Vec<u8>>();
            tx.value(Buffer::Http2Header, dir, &[&double(name), b": ".as_slice(), &double(value)].concat());
        }
    }
    let begin = tx.arena_len();
    for field in scratch.distinct() {
        for value in scratch.values(field) {
            tx.append(scratch.name(field));
            tx.append(b": ");
            tx.append(value);
            tx.append(b"\r\n");
        }
    }
    let end = tx.arena_len();
    if !trailers || end > begin {
        tx.value_at(Buffer::HttpHeaderRaw, dir, begin..end);
    }
}

fn request(tx: &mut Transaction, scratch: &mut Scratch, double: bool) {
    let dir = Dir::ToServer;
    let mut path = std::mem::take(&mut scratch.path);
    let method = scratch.first_value(b":method").unwrap_or_default();
    let target = scratch.first_value(b":path").unwrap_or_default();
    let connect = method == b"CONNECT";
    tx.value(Buffer::HttpMethod, dir, method);
    tx.value(Buffer::HttpProtocol, dir, b"HTTP/2");
    tx.value(Buffer::HttpRequestLine, dir, &[method, b" ", target, b" HTTP/2\r\n"].concat());
    if !target.is_empty() || !connect {
        tx.value(Buffer::HttpUriRaw, dir, target);
        let parts = Target::split(target);
        path.clear();
        if parts.append_path(&mut path, double) | parts.append_rest(&mut path, double) {
            tx.event("http.double_encoded_uri", dir);
        }
        tx.value(Buffer::HttpUri, dir, &path);
    }
    tx.advance(dir, Stage::Line);
    let (authority, host) = (scratch.first_value(b":authority"), scratch.first_value(b"host"));
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        tx.event("http2.authority_host_mismatch", dir);
    }
    let raw = authority.or(host);
    if raw.is_some_and(|raw| raw.contains(&b'@')) {
        tx.event("http2.userinfo_in_uri", dir);
    }
    let without_user = raw.map(|raw| raw.iter().rposition(|byte| *byte == b'@').map_or(raw, |at| &raw[at + 1..]));
    let parts = without_user.map(host_and_port);
    host_values(tx, dir, raw, parts.map(|(host, _)| host), parts.and_then(|(_, port)| port));
    scratch.path = path;
}

/// Whether it is interim: another answer follows.
fn response(tx: &mut Transaction, scratch: &Scratch) -> bool {
    let dir = Dir::ToClient;
    let code = scratch.first_value(b":status").unwrap_or_default();
    let status = std::str::from_utf8(code).ok().and_then(|code| code.parse::<u64>().ok()).filter(|status| (100..1000).contains(status));
    tx.value(Buffer::HttpProtocol, dir, b"HTTP/2");
    tx.value(Buffer::HttpStatCode, dir, code);
    tx.value(Buffer::HttpStatMsg, dir, b"");
    tx.value(Buffer::HttpResponseLine, dir, &[b"HTTP/2 ", code, b"\r\n"].concat());
    match status {
        Some(status) => tx.integer_is(Field::HttpStatus, dir, status),
        None => tx.event("http.response_invalid_status", dir),
    }
    tx.advance(dir, Stage::Line);
    status.is_some_and(|status| status < 200 && status != 101)
}

impl Parser for Http2 {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if let Some(from) = self.upgraded.take() {
            self.begin_upgraded(&from, io);
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], io) {
                Did::Took(taken) => at += taken,
                Did::NeedMore => break,
                Did::Stop(next) => return Step { consumed: at, next },
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let Self { lanes, streams, .. } = self;
        let lost = usize::try_from(len).unwrap_or(usize::MAX);
        match &mut lanes[io.dir as usize].state {
            // Within a body nothing can match across them; what frames it is known.
            State::Data { stream, left, .. } if *left > lost => {
                *left -= lost;
                if let Some(open) = streams.get_mut(stream) {
                    let side = if io.dir == Dir::ToServer { Side::Request } else { Side::Response };
                    open.sides[io.dir as usize].body.skip(len, side, open.tx, io);
                }
                Next::Continue
            }
            State::Skip(left) if *left > lost => {
                *left -= lost;
                Next::Continue
            }
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn inherits(&mut self, from: Box<Upgraded>) {
        self.upgraded = Some(from);
    }

    fn becomes(&mut self) -> Option<Protocol> {
        (self.doh == Doh::New).then(|| {
            self.doh = Doh::Told;
            Protocol::Doh2
        })
    }

    fn end(&mut self, _: &[u8], io: &mut Io<'_>) {
        let open: Vec<u32> = self.streams.keys().copied().collect();
        for stream in open {
            self.finish(stream, io.dir, io);
        }
    }
}
