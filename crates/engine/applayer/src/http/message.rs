//! First lines and header blocks to values.

use super::{Body, Exchange, Http, METHODS, Origin, Scratch, Side, State, uri};
use crate::context::Io;
use crate::http2::Upgraded;
use crate::names::{Buffer, BufferSet, Dir, Field, Protocol, Stage};
use crate::protocol::Next;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Fields with a buffer of their own: lower-case name, in requests, in responses.
const OWN: &[(&[u8], Option<Buffer>, Option<Buffer>)] = &[
    (b"user-agent", Some(Buffer::HttpUserAgent), None),
    (b"referer", Some(Buffer::HttpReferer), None),
    (b"accept", Some(Buffer::HttpAccept), None),
    (b"accept-language", Some(Buffer::HttpAcceptLang), None),
    (b"accept-encoding", Some(Buffer::HttpAcceptEnc), None),
    (b"connection", Some(Buffer::HttpConnection), Some(Buffer::HttpConnection)),
    (b"content-length", Some(Buffer::HttpContentLen), Some(Buffer::HttpContentLen)),
    (b"content-type", Some(Buffer::HttpContentType), Some(Buffer::HttpContentType)),
    (b"cookie", Some(Buffer::HttpCookie), None),
    (b"set-cookie", None, Some(Buffer::HttpCookie)),
    (b"server", None, Some(Buffer::HttpServer)),
    (b"location", None, Some(Buffer::HttpLocation)),
];

impl Http {
    /// `Some`: nothing can be read any more.
    pub(super) fn first_line(&mut self, line: &[u8], io: &mut Io<'_>) -> Option<Next> {
        match io.dir {
            Dir::ToServer => self.request_line(line, io),
            Dir::ToClient => self.status_line(line, io),
        }
    }

    fn request_line(&mut self, line: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let Some(id) = io.begin(Protocol::Http) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let mut scratch = std::mem::take(&mut io.context.scratch);
        let double = io.context.config.double_decode;
        let dir = io.dir;
        let half = &mut self.halves[0];
        half.tx = Some(id);
        half.state = State::Headers;
        if let Some(tx) = io.tx(id) {
            if line[0].is_ascii_whitespace() {
                tx.event("http.request_line_leading_whitespace", dir);
            }
            let text = line.trim_ascii();
            let split = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
            let (method, rest) = text.split_at(split);
            if rest.first().is_some_and(|byte| *byte != b' ') {
                tx.event("http.method_delim_non_compliant", dir);
            }
            let rest = rest.trim_ascii();
            let (target, version) = match rest.iter().rposition(u8::is_ascii_whitespace) {
                Some(at) => (rest[..at].trim_ascii(), &rest[at + 1..]),
                None => (rest, &[][..]),
            };
            if rest[..rest.len() - version.len()].iter().any(|byte| byte.is_ascii_whitespace() && *byte != b' ') {
                tx.event("http.uri_delim_non_compliant", dir);
            }
            if version.is_empty() {
                tx.event("http.request_line_missing_protocol", dir);
            }
            if !METHODS.contains(&method) && !version.starts_with(b"HTTP/") {
                tx.event("http.request_line_invalid", dir);
            }
            tx.value(Buffer::HttpRequestLine, dir, line);
            tx.value(Buffer::HttpMethod, dir, method);
            tx.value(Buffer::HttpUriRaw, dir, target);
            if !version.is_empty() {
                tx.value(Buffer::HttpProtocol, dir, version);
            }
            let connect = method == b"CONNECT";
            if !connect {
                let parts = uri::Target::split(target);
                scratch.path.clear();
                let twice = parts.append_path(&mut scratch.path, double) | parts.append_rest(&mut scratch.path, double);
                if twice {
                    tx.event("http.double_encoded_uri", dir);
                }
                tx.value(Buffer::HttpUri, dir, &scratch.path);
            }
            tx.advance(dir, Stage::Line);
            if self.halves[1].state == State::Lost {
                tx.advance(Dir::ToClient, Stage::Complete);
            } else {
                self.exchanges.push_back(Exchange { tx: id, head: method == b"HEAD", connect, interim: false });
            }
        }
        io.context.scratch = scratch;
        None
    }

    fn status_line(&mut self, line: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        let (id, exchange) = match self.exchanges.pop_front() {
            Some(exchange) => (exchange.tx, Some(exchange)),
            None => {
                let Some(id) = io.begin(Protocol::Http) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
                let unseen = self.halves[0].state == State::Lost;
                if let Some(tx) = io.tx(id) {
                    if !unseen {
                        tx.event("http.unable_to_match_response_to_request", dir);
                    }
                    tx.advance(Dir::ToServer, Stage::Complete);
                }
                (id, None)
            }
        };
        let half = &mut self.halves[1];
        (half.tx, half.exchange, half.state) = (Some(id), exchange, State::Headers);
        if let Some(tx) = io.tx(id) {
            let mut words = line.trim_ascii().splitn(2, u8::is_ascii_whitespace);
            let version = words.next().unwrap_or_default();
            let rest = words.next().unwrap_or_default().trim_ascii();
            let split = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            let (code, message) = rest.split_at(split);
            if !version.starts_with(b"HTTP/") {
                tx.event("http.response_invalid_protocol", dir);
            }
            if line.is_empty() {
                return None;
            }
            tx.value(Buffer::HttpResponseLine, dir, line);
            tx.value(Buffer::HttpProtocol, dir, version);
            tx.value(Buffer::HttpStatCode, dir, code);
            tx.value(Buffer::HttpStatMsg, dir, message.trim_ascii());
            match number(code).filter(|code| (100..=999).contains(code)) {
                Some(code) => tx.integer_is(Field::HttpStatus, dir, code),
                None => tx.event("http.response_invalid_status", dir),
            }
            tx.advance(dir, Stage::Line);
        }
        None
    }

    /// An answer without a status line: all of it is the body, as HTTP/0.9 has it.
    pub(super) fn no_status(&mut self, io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        if let Some(next) = self.status_line(b"", io) {
            return Some(next);
        }
        let half = &mut self.halves[dir as usize];
        half.state = State::UntilClose;
        let tx = half.tx.and_then(|id| io.tx(id))?;
        tx.advance(dir, Stage::Headers);
        None
    }

    pub(super) fn headers(&mut self, block: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let (dir, wanted) = (io.dir, io.context.config.wanted);
        let (headers_max, field_max) = (io.context.config.headers_max, io.context.config.field_bytes_max);
        let half = &self.halves[dir as usize];
        let (side, id, exchange) = (half.side, half.tx?, half.exchange);
        let mut scratch = std::mem::take(&mut io.context.scratch);
        let odd = scratch.parse(block, side, headers_max, field_max);
        io.context.stats.headers_refused += u64::from(odd.too_many);
        let mut state = State::Fixed(0);
        let mut interim = false;
        let mut tunnel = false;
        let mut websocket = false;
        if let Some(tx) = io.tx(id) {
            note(tx, dir, side, &odd);
            tx.value(Buffer::HttpHeaderRaw, dir, block);
            fields_to_values(tx, dir, side, &scratch, &wanted);
            if wanted.contains(Buffer::HttpStart) {
                let line = if side == Side::Request { Buffer::HttpRequestLine } else { Buffer::HttpResponseLine };
                let mut text = tx.get(line, dir).unwrap_or_default().to_vec();
                text.extend_from_slice(b"\r\n");
                for field in scratch.distinct() {
                    text.extend_from_slice(scratch.name(field));
                    text.extend_from_slice(b": ");
                    scratch.append_value(field, &mut text);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"\r\n");
                tx.value(Buffer::HttpStart, dir, &text);
            }
            tx.advance(dir, Stage::Headers);
            let coding = scratch.first_value(b"transfer-encoding");
            let chunked = scratch.meant(b"transfer-encoding").any(names_chunked);
            let length = scratch.first_value(b"content-length");
            let status = tx.integer(Field::HttpStatus, dir);
            match side {
                Side::Request => {
                    host(tx, dir, scratch.first_value(b"host"));
                    if scratch.first_value(b"authorization").is_some_and(|value| !names_a_known_scheme(value)) {
                        tx.event("http.request_auth_unrecognized", dir);
                    }
                    if coding.is_some() && !chunked {
                        tx.event("http.invalid_transfer_encoding_value_in_request", dir);
                    }
                    state = match length {
                        _ if chunked => State::ChunkSize,
                        Some(length) => match number(length) {
                            Some(length) => State::Fixed(length),
                            None => {
                                tx.event("http.invalid_content_length_field_in_request", dir);
                                io.context.scratch = scratch;
                                return Some(Next::Finished(Finished::Malformed("content-length")));
                            }
                        },
                        None => State::Fixed(0),
                    };
                    if tx.get(Buffer::HttpMethod, dir) == Some(b"CONNECT") {
                        state = State::Waiting;
                    }
                }
                Side::Response => {
                    tunnel = exchange.is_some_and(|exchange| exchange.connect) && status.is_some_and(|status| (200..300).contains(&status));
                    tunnel |= status == Some(101) && length.is_none() && coding.is_none();
                    if tunnel && exchange.is_none() && self.follows_another {
                        // Nobody has asked for it: another change is under way.
                        tx.event("http.failed_protocol_change", dir);
                        tunnel = false;
                    }
                    if status == Some(101) && scratch.first_value(b"upgrade").is_some_and(|to| to.eq_ignore_ascii_case(b"h2c")) {
                        self.upgraded = upgraded(tx, headers_max, field_max);
                    }
                    websocket =
                        status == Some(101) && scratch.first_value(b"upgrade").is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"));
                    interim = status == Some(100) && length.and_then(number).unwrap_or(0) == 0 && coding.is_none();
                    odd_framing(tx, dir, &scratch, chunked);
                    if interim && exchange.is_some_and(|exchange| exchange.interim) {
                        tx.event("http.100_continue_already_seen", dir);
                    }
                    let bodiless = status.is_some_and(|status| status < 200 || status == 204 || status == 304);
                    let head = exchange.is_some_and(|exchange| exchange.head);
                    if bodiless && !head && !interim && !tunnel && (length.is_some() || coding.is_some()) {
                        tx.event("http.response_body_unexpected", dir);
                    }
                    state = match length {
                        _ if head || interim || tunnel => State::Fixed(0),
                        _ if chunked => State::ChunkSize,
                        Some(length) => match number(length) {
                            Some(length) => State::Fixed(length),
                            None => {
                                tx.event("http.invalid_content_length_field_in_response", dir);
                                State::UntilClose
                            }
                        },
                        None if bodiless => State::Fixed(0),
                        None => State::UntilClose,
                    };
                }
            }
        }
        if state != State::Fixed(0) && state != State::Waiting {
            let origin = Origin { side, id, dns: false };
            self.halves[dir as usize].body = Body::prepare(&scratch, origin, io);
        }
        io.context.scratch = scratch;
        self.halves[dir as usize].state = state;
        self.halves[dir as usize].scanned = 0;
        if interim {
            // The response begins anew.
            if let Some(exchange) = exchange {
                self.exchanges.push_front(Exchange { interim: true, ..exchange });
            }
            let half = &mut self.halves[1];
            (half.tx, half.state) = (None, State::Line);
            if let Some(tx) = io.tx(id) {
                tx.forget(dir);
                tx.rewind(dir);
            }
        } else if state == State::Fixed(0) && !tunnel {
            self.answered(io);
        } else if state == State::Fixed(0) {
            self.finish(io);
        }
        let answered = exchange.is_some_and(|exchange| exchange.connect) && side == Side::Response;
        if (tunnel || answered) && self.halves[0].state == State::Waiting {
            let dir = std::mem::replace(&mut io.dir, Dir::ToServer);
            self.finish(io);
            io.dir = dir;
            self.wake = true;
        }
        tunnel.then_some(if websocket { Next::Become(Protocol::Websocket) } else { Next::Switch })
    }

    /// Trailers are header fields to a rule.
    pub(super) fn trailers(&mut self, block: &[u8], io: &mut Io<'_>) {
        let dir = io.dir;
        if let Some(id) = self.halves[dir as usize].tx
            && let Some(tx) = io.tx(id)
        {
            if !block.trim_ascii().is_empty() {
                tx.value(Buffer::HttpHeaderRaw, dir, block);
                tx.value(Buffer::HttpHeader, dir, block);
            }
            tx.advance(dir, Stage::Trailer);
        }
        self.answered(io);
    }
}

/// Fields as values: the block, each field, those with a buffer of their own, and the names.
pub(crate) fn fields_to_values(tx: &mut Transaction, dir: Dir, side: Side, scratch: &Scratch, wanted: &BufferSet) {
    let excluded: &[u8] = if side == Side::Request { b"cookie" } else { b"set-cookie" };
    let begin = tx.arena_len();
    for own in [false, true] {
        if own {
            let end = tx.arena_len();
            tx.value_at(Buffer::HttpHeader, dir, begin..end);
        }
        for field in scratch.distinct().filter(|field| scratch.name(field).eq_ignore_ascii_case(excluded) == own) {
            let start = tx.arena_len();
            tx.append(scratch.name(field));
            let value = tx.append(b": ").end;
            for (index, part) in scratch.values(field).enumerate() {
                if index > 0 {
                    tx.append(scratch.joint(field));
                }
                tx.append(part);
            }
            let end = tx.arena_len();
            tx.append(b"\r\n");
            let each = if side == Side::Request { Buffer::HttpRequestHeader } else { Buffer::HttpResponseHeader };
            if wanted.contains(each) {
                tx.value_at(each, dir, start..end);
            }
            let known = OWN.iter().find(|(name, _, _)| scratch.name(field).eq_ignore_ascii_case(name));
            let buffer = known.and_then(|(_, request, response)| if side == Side::Request { *request } else { *response });
            if let Some(buffer) = buffer {
                tx.value_at(buffer, dir, value..end);
            }
        }
    }
    if wanted.contains(Buffer::HttpHeaderNames) {
        let start = tx.append(b"\r\n").start;
        for field in scratch.distinct() {
            tx.append(scratch.name(field));
            tx.append(b"\r\n");
        }
        let end = tx.append(b"\r\n").end;
        tx.value_at(Buffer::HttpHeaderNames, dir, start..end);
    }
}

fn note(tx: &mut Transaction, dir: Dir, side: Side, odd: &super::fields::Oddities) {
    let events = [
        (odd.missing_colon, "http.request_field_missing_colon", "http.response_field_missing_colon"),
        (odd.invalid_name, "http.request_header_invalid", "http.response_header_invalid"),
        (odd.folding, "http.invalid_request_field_folding", "http.invalid_response_field_folding"),
        (odd.too_long, "http.request_field_too_long", "http.response_field_too_long"),
        (odd.too_many, "http.request_too_many_headers", "http.response_too_many_headers"),
        (odd.repeated, "http.request_header_repetition", "http.response_header_repetition"),
        (odd.repeated_length_differs, "http.duplicate_content_length_field_in_request", "http.duplicate_content_length_field_in_response"),
    ];
    for (is, request, response) in events {
        if is {
            tx.event(if side == Side::Request { request } else { response }, dir);
        }
    }
}

/// The request whose upgrade to HTTP/2 was granted.
fn upgraded(tx: &Transaction, headers_max: usize, field_max: usize) -> Option<Box<Upgraded>> {
    let dir = Dir::ToServer;
    let mut scratch = Scratch::default();
    scratch.parse(tx.get(Buffer::HttpHeaderRaw, dir)?, Side::Request, headers_max, field_max);
    let own = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
    Some(Box::new(Upgraded {
        method: own(tx.get(Buffer::HttpMethod, dir)),
        target: own(tx.get(Buffer::HttpUriRaw, dir)),
        host: scratch.first_value(b"host").map(<[u8]>::to_vec),
        settings: scratch.first_value(b"http2-settings").map(<[u8]>::to_vec),
    }))
}

/// What of an answer's framing and range is odd.
fn odd_framing(tx: &mut Transaction, dir: Dir, scratch: &Scratch, chunked: bool) {
    if let Some(coding) = scratch.first_value(b"transfer-encoding") {
        if !chunked {
            tx.event("http.invalid_transfer_encoding_value_in_response", dir);
        } else if !coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            tx.event("http.response_abnormal_transfer_encoding", dir);
        }
        if chunked && tx.get(Buffer::HttpProtocol, dir) != Some(b"HTTP/1.1") {
            tx.event("http.response_chunked_old_proto", dir);
        }
    }
    let kind = scratch.first_value(b"content-type").unwrap_or_default();
    if memchr::memmem::find(&kind.to_ascii_lowercase(), b"multipart/byteranges").is_some() {
        tx.event("http.response_multipart_byteranges", dir);
    }
}

/// Of an `Authorization`: what the reference engine reads.
fn names_a_known_scheme(value: &[u8]) -> bool {
    [&b"basic"[..], b"digest", b"bearer"]
        .iter()
        .any(|scheme| value.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)))
}

fn host(tx: &mut Transaction, dir: Dir, field: Option<&[u8]>) {
    let target = tx.get(Buffer::HttpUriRaw, dir).unwrap_or_default().to_vec();
    let parts = uri::Target::split(&target);
    let given = field.map(uri::host_and_port);
    if given.is_none() && tx.get(Buffer::HttpProtocol, dir) == Some(b"HTTP/1.1") {
        tx.event("http.missing_host_header", dir);
    }
    if given.is_some_and(|(host, _)| !uri::is_host_valid(host)) {
        tx.event("http.request_header_host_invalid", dir);
    }
    if parts.host.is_some_and(|host| !uri::is_host_valid(host)) {
        tx.event("http.request_uri_host_invalid", dir);
    }
    if let (Some(a), Some((b, _))) = (parts.host, given)
        && !a.eq_ignore_ascii_case(b)
    {
        tx.event("http.host_header_ambiguous", dir);
    }
    let port = parts.port.or(given.and_then(|(_, port)| port));
    if parts.port.is_some_and(|port| uri::port_number(port).is_none()) {
        tx.event("http.invalid_server_port_in_request", dir);
    }
    if tx.get(Buffer::HttpMethod, dir) == Some(b"CONNECT")
        && uri::host_and_port(&target).1.is_none_or(|port| uri::port_number(port).is_none())
    {
        tx.event("http.invalid_authority_port", dir);
    }
    host_values(tx, dir, parts.host.or(field), parts.host.or(given.map(|(host, _)| host)), port);
}

/// The host asked for: as it came, and in lower case without port and closing dots.
pub(crate) fn host_values(tx: &mut Transaction, dir: Dir, raw: Option<&[u8]>, host: Option<&[u8]>, port: Option<&[u8]>) {
    if let Some(raw) = raw {
        tx.value(Buffer::HttpHostRaw, dir, raw);
    }
    if let Some(port) = port.and_then(uri::port_number) {
        tx.integer_is(Field::HttpPort, dir, u64::from(port));
    }
    if let Some(host) = host {
        let host = host.trim_ascii().to_ascii_lowercase();
        let end = host.iter().rposition(|byte| *byte != b'.').map_or(0, |at| at + 1);
        tx.value(Buffer::HttpHost, dir, &host[..end]);
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Whether a `Transfer-Encoding` has the word in it; zeros are passed over.
fn names_chunked(coding: &[u8]) -> bool {
    let coding: Vec<u8> = coding.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase).collect();
    memchr::memmem::find(&coding, b"chunked").is_some()
}
