//! What becomes of a body: content codings undone, a form's files, each a stream of the transaction.

use super::encoding::{Codings, Decoder, Failure, Limits};
use super::grpc::{self, Grpc};
use super::multipart::{Multipart, Part, parameter};
use super::ranges::{self, Ranges};
use super::{Scratch, Side};
use crate::context::Io;
use crate::dns;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::Next;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// A DNS message over a stream cannot be longer.
const DNS_BYTES_MAX: usize = 65_535;

/// What becomes of a body, whatever the version that frames it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    stream: Option<u8>,
    /// One of the files of a form.
    file: Option<u8>,
    decoder: Option<Box<Decoder>>,
    form: Option<Box<Multipart>>,
    broken: bool,
    /// What the messages before have taken and given.
    messages: (u64, u64),
    /// Messages of gRPC, each with its own coding.
    grpc: Option<Box<Grpc>>,
    /// A DNS message, as far as it has come.
    dns: Option<Vec<u8>>,
    /// It is a part of a file.
    range: Option<Box<Range>>,
    /// It follows a body that was complete, and does not count with it.
    pub is_extra: bool,
}

#[derive(Debug)]
struct Range {
    key: Vec<u8>,
    part: ranges::Part,
    /// All bytes before it came.
    whole: bool,
    /// Bytes at its beginning that came before.
    again: u64,
}

/// Whose body it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub side: Side,
    pub id: u64,
    /// It is a DNS message ([`Body::dns`]).
    pub dns: bool,
}

impl Body {
    /// Which codings and parts the body has, and under which name it is a file.
    pub(crate) fn prepare(scratch: &Scratch, origin: Origin, io: &mut Io<'_>) -> Self {
        let Origin { side, id, dns } = origin;
        let config = &io.context.config;
        let (wanted, layers_max) = (config.wanted, config.coding_layers_max);
        let limits = Limits::of(config);
        let mut body = Self { dns: dns.then(Vec::new), ..Self::default() };
        let (own, dir) = (if side == Side::Request { Buffer::HttpRequestBody } else { Buffer::HttpResponseBody }, io.dir);
        if !wanted.contains(own) && !wanted.contains(Buffer::FileData) && !dns {
            return body;
        }
        let mut codings = Codings::default();
        for name in [&b"content-encoding"[..], b"transfer-encoding"] {
            scratch.meant(name).for_each(|value| codings.add(value, layers_max));
        }
        if is_grpc(scratch.first_value(b"content-type")) {
            body.grpc = Some(Box::new(Grpc::new(scratch.first_value(b"grpc-encoding"))));
        } else if !codings.list.is_empty() {
            body.decoder = Some(Box::new(Decoder::new(&codings, limits, &mut io.context.inflaters)));
        }
        if side == Side::Request {
            body.form = scratch.first_value(b"content-type").and_then(Multipart::new).map(Box::new);
        }
        let Some(tx) = io.tx(id) else { return body };
        if side == Side::Response
            && let Some(value) = scratch.first_value(b"content-range")
        {
            body.range = ranges::Part::read(value).filter(|_| body.decoder.is_none()).and_then(|part| Range::of(tx, part));
            if value.trim_ascii_start().get(..5).is_none_or(|unit| !unit.eq_ignore_ascii_case(b"bytes")) || !value.contains(&b'/') {
                tx.event(if tx.protocol == Protocol::Http { "http.range_invalid" } else { "http2.invalid_range" }, dir);
            }
        }
        if codings.unknown {
            tx.event("http.abnormal_ce_header", dir);
        }
        if codings.too_many {
            tx.event("http.too_many_encoding_layers", dir);
        }
        if body.form.is_none() && wanted.contains(Buffer::FileName) {
            let named = scratch.first_value(b"content-disposition").and_then(|value| parameter(value, b"filename"));
            let name = match named {
                Some(name) => Some(name.to_vec()),
                None => tx.get(Buffer::HttpUri, Dir::ToServer).map(|uri| path(uri).to_vec()),
            };
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                tx.value(Buffer::FileName, dir, &name);
            }
        }
        body
    }
}

impl Range {
    fn of(tx: &Transaction, part: ranges::Part) -> Option<Box<Self>> {
        let host = tx.get(Buffer::HttpHost, Dir::ToServer).unwrap_or_default();
        let key = Ranges::key(host, path(tx.get(Buffer::HttpUri, Dir::ToServer)?))?;
        Some(Box::new(Self { key, part, whole: part.first == 0, again: 0 }))
    }
}

fn is_grpc(content_type: Option<&[u8]>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.and_then(|kind| kind.get(..GRPC.len())).is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC))
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
            self.go_on(id, io);
        }
        if let Some(grpc) = self.grpc.take() {
            return self.push_messages(grpc, bytes, id, io);
        }
        self.decode(bytes, id, io)
    }

    /// A part of a file begins: with what came last of those before it.
    fn go_on(&mut self, id: u64, io: &mut Io<'_>) {
        let (Some(range), Some(stream)) = (&mut self.range, self.stream) else { return };
        let ranges = std::mem::take(&mut io.context.ranges);
        if let Some((len, tail)) = ranges.before(&range.key, range.part)
            && let Some(tx) = io.tx(id)
        {
            tx.resume_stream(stream, len, tail);
            (range.whole, range.again) = (true, len - range.part.first);
        }
        io.context.ranges = ranges;
    }

    /// Each message of gRPC without its coding, behind its head as it came.
    fn push_messages(&mut self, mut grpc: Box<Grpc>, bytes: &[u8], id: u64, io: &mut Io<'_>) -> Option<Next> {
        let (mut rest, mut next) = (bytes, None);
        while let Some((part, later)) = grpc.next(rest) {
            rest = later;
            match part {
                grpc::Part::Plain(bytes) => self.grow(bytes, id, io),
                grpc::Part::Coded(bytes) => next = self.decode(bytes, id, io),
                grpc::Part::Begin(head) => {
                    self.grow(&head, id, io);
                    if grpc.is_coded() {
                        let limits = Limits::of(&io.context.config);
                        let decoder = Decoder::new(&grpc.codings, limits, &mut io.context.inflaters);
                        let decoder = self.decoder.insert(Box::new(decoder));
                        decoder.counts(self.messages);
                    }
                }
                grpc::Part::End => {
                    if let Some(mut decoder) = self.decoder.take() {
                        decoder.end(&mut |piece| self.grow(piece, id, io));
                        self.note_broken(&decoder, id, io);
                        // All messages of a body share its limits.
                        self.messages = decoder.counted();
                        decoder.recycle(&mut io.context.inflaters);
                    }
                }
            }
            if next.is_some() {
                break;
            }
        }
        self.grpc = Some(grpc);
        next
    }

    fn decode(&mut self, bytes: &[u8], id: u64, io: &mut Io<'_>) -> Option<Next> {
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
        let is_http2 = io.tx(id).is_some_and(|tx| tx.protocol != Protocol::Http);
        let (event, cap) = match failure {
            Failure::Ratio if is_http2 => ("http2.compression_bomb", "decoded_ratio_max"),
            Failure::Ratio => ("http.compression_bomb", "decoded_ratio_max"),
            Failure::Memory => ("http.compression_bomb_limit_reached", "FOREIGN_BYTES_MAX"),
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
        if let (Some(message), Some(tx)) = (self.dns.take(), io.tx(id)) {
            let (request, response) = ("http2.dns_request_too_long", "http2.dns_response_too_long");
            match message.len() {
                0 => {}
                1..=DNS_BYTES_MAX => dns::show(tx, dir, &message),
                _ => tx.event(if dir == Dir::ToServer { request } else { response }, dir),
            }
        }
        if let Some(mut form) = self.form.take() {
            form.end(&mut |part| self.part(part, id, io));
        }
        // Of a file in parts the stream counts from the file's first byte.
        let first = self.range.as_ref().filter(|range| range.whole).map_or(0, |range| range.part.first);
        self.part_came(id, io);
        if let Some(stream) = self.stream
            && let Some(tx) = io.tx(id)
        {
            let length = tx.stream_len(stream).saturating_sub(first);
            let field = if dir == Dir::ToServer { Field::HttpRequestLength } else { Field::HttpResponseLength };
            if !self.is_extra || tx.integer(field, dir).is_none() {
                tx.integer_is(field, dir, length);
            }
            tx.close_stream(stream);
        }
    }

    /// A part of a file is over; whether the next one may go on there.
    fn part_came(&mut self, id: u64, io: &mut Io<'_>) {
        let (Some(range), Some(stream)) = (self.range.take(), self.stream) else { return };
        let (mut ranges, window) = (std::mem::take(&mut io.context.ranges), io.context.config.window_bytes);
        if let Some(tx) = io.tx(id).filter(|tx| range.whole && tx.stream_len(stream) == range.part.last + 1) {
            ranges.grown(range.key, range.part, tx.stream_tail(stream, window));
        }
        io.context.ranges = ranges;
    }

    /// Bytes of the body without its codings.
    fn grow(&mut self, mut bytes: &[u8], id: u64, io: &mut Io<'_>) {
        if let Some(range) = self.range.as_mut().filter(|range| range.again > 0) {
            let again = usize::try_from(range.again).unwrap_or(usize::MAX).min(bytes.len());
            range.again -= again as u64;
            bytes = &bytes[again..];
        }
        if let Some(stream) = self.stream {
            io.grow(id, stream, bytes);
        }
        if let Some(dns) = &mut self.dns {
            let room = (DNS_BYTES_MAX + 1).saturating_sub(dns.len());
            dns.extend_from_slice(&bytes[..bytes.len().min(room)]);
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
            let is_http2 = io.tx(id).is_some_and(|tx| tx.protocol != Protocol::Http);
            let event = match is_http2 {
                true => "http2.failed_decompression",
                false if decoder.wants_memory() => "http.lzma_memlimit_reached",
                false => "http.gzip_decompression_failed",
            };
            io.event(Some(id), event);
        }
    }

    /// `len` bytes are missing: what is coded cannot be read on, in a form the file it is in cannot be told.
    pub fn skip(&mut self, len: u64, side: Side, id: u64, io: &mut Io<'_>) {
        if self.stream.is_none()
            && let (dir, Some(tx)) = (io.dir, io.tx(id))
        {
            self.stream = open_body(side, self.form.is_some(), dir, tx);
        }
        if let Some(decoder) = self.decoder.as_mut() {
            decoder.kill();
        }
        for stream in [self.stream, self.file].into_iter().flatten() {
            io.skip(id, stream, len);
        }
    }
}

/// A normalised target without query and fragment.
fn path(uri: &[u8]) -> &[u8] {
    &uri[..uri.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(uri.len())]
}
