//! SIP (RFC 3261) over UDP and TCP. Each message is a transaction of its own direction, with the session that its body describes.

mod sdp;

use crate::context::Io;
use crate::names::{Buffer, Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Header fields of one message that are read.
const FIELDS_MAX: usize = 256;
/// A body that is waited for, to be read as a session's description; a longer one is passed over.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// RFC 3261, 3262, 3311, 3428, 3515, 3903, 6086, 6665.
const METHODS: &[&[u8]] = &[
    b"INVITE",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"REGISTER",
    b"OPTIONS",
    b"PRACK",
    b"UPDATE",
    b"MESSAGE",
    b"REFER",
    b"PUBLISH",
    b"INFO",
    b"SUBSCRIBE",
    b"NOTIFY",
];

const STATUS: &[u8] = b"SIP/2.0 ";
/// What a request asks of.
const SCHEMES: &[&[u8]] = &[b"sip:", b"sips:", b"tel:"];

/// A method and what only SIP asks of; or the version that begins an answer.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let bytes = bytes.trim_ascii_start();
    let begins = |bytes: &[u8], word: &[u8]| bytes.iter().zip(word).all(|(a, b)| a.eq_ignore_ascii_case(b));
    if begins(bytes, STATUS) {
        return if bytes.len() >= STATUS.len() { Probe::Yes } else { Probe::More };
    }
    for method in METHODS {
        let Some(rest) = bytes.strip_prefix(*method) else {
            if method.starts_with(bytes) {
                return Probe::More;
            }
            continue;
        };
        let Some((b' ', target)) = rest.split_first() else {
            return if rest.is_empty() { Probe::More } else { Probe::No };
        };
        return match SCHEMES.iter().filter(|scheme| begins(target, scheme)).map(|scheme| target.len() >= scheme.len()).max() {
            Some(true) => Probe::Yes,
            Some(false) => Probe::More,
            None => Probe::No,
        };
    }
    Probe::No
}

pub(crate) fn probe_udp(dir: Dir, datagram: &[u8]) -> Probe {
    if probe(dir, datagram) == Probe::Yes { Probe::Yes } else { Probe::No }
}

/// Name, short form (RFC 3261, section 7.3.3), buffer.
const FIELDS: &[(&[u8], u8, Buffer)] = &[
    (b"From", b'f', Buffer::SipFrom),
    (b"To", b't', Buffer::SipTo),
    (b"Via", b'v', Buffer::SipVia),
    (b"User-Agent", 0, Buffer::SipUserAgent),
    (b"Content-Type", b'c', Buffer::SipContentType),
    (b"Content-Length", b'l', Buffer::SipContentLength),
];

#[derive(Debug)]
pub(crate) struct Sip {
    transport: Transport,
    halves: [Half; 2],
}

#[derive(Debug, Default)]
struct Half {
    /// Bytes that hold no end of a header.
    scanned: usize,
    /// Of a body that is not read.
    skip: u64,
    /// Where messages begin is not known any more.
    lost: bool,
}

impl Sip {
    pub fn new(transport: Transport) -> Self {
        Self { transport, halves: Default::default() }
    }
}

/// A message, its parts still in the bytes it came in.
struct Message<'a> {
    line: &'a [u8],
    header: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message and the bytes of its header, with the empty line. `None`: it goes on.
    fn read(bytes: &'a [u8], scanned: usize) -> Option<(Self, usize)> {
        let end = header_end(bytes, scanned)?;
        let (line, header) = split_line(&bytes[..end]);
        Some((Self { line, header }, end))
    }

    /// Names and values, folded lines joined.
    fn fields(&self) -> impl Iterator<Item = (&'a [u8], std::borrow::Cow<'a, [u8]>)> + use<'a> {
        let mut rest = self.header;
        std::iter::from_fn(move || {
            let (line, behind) = split_line(rest);
            rest = behind;
            let colon = memchr::memchr(b':', line)?;
            let mut value = std::borrow::Cow::Borrowed(line[colon + 1..].trim_ascii());
            while matches!(rest.first(), Some(b' ' | b'\t')) {
                let (more, behind) = split_line(rest);
                rest = behind;
                let value = value.to_mut();
                value.push(b' ');
                value.extend_from_slice(more.trim_ascii());
            }
            Some((line[..colon].trim_ascii(), value))
        })
        .take(FIELDS_MAX)
    }
}

/// Behind the empty line.
fn header_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    let from = scanned.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// A line without its end, and what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match memchr::memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// What a header says of the body.
#[derive(Debug, Default, Clone, Copy)]
struct Body {
    len: Option<u64>,
    describes: bool,
}

fn show(message: &Message<'_>, dir: Dir, tx: &mut Transaction) -> Body {
    first_line(message.line, dir, tx);
    let mut body = Body::default();
    for (name, value) in message.fields() {
        let known = FIELDS.iter().find(|(long, short, _)| {
            long.eq_ignore_ascii_case(name) || matches!(name, [letter] if *short != 0 && letter.eq_ignore_ascii_case(short))
        });
        let Some((_, _, buffer)) = known else { continue };
        tx.value(*buffer, dir, &value);
        match buffer {
            Buffer::SipContentLength => body.len = std::str::from_utf8(&value).ok().and_then(|number| number.parse().ok()),
            Buffer::SipContentType => body.describes |= value.to_ascii_lowercase().starts_with(b"application/sdp"),
            _ => {}
        }
    }
    body
}

fn first_line(line: &[u8], dir: Dir, tx: &mut Transaction) {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(first), Some(second), third) = (parts.next(), parts.next(), parts.next()) else {
        tx.event("sip.invalid_data", dir);
        return;
    };
    if first.starts_with(b"SIP/") {
        let reason = third.unwrap_or_default();
        tx.value(Buffer::SipResponseLine, dir, line);
        tx.value(Buffer::SipProtocol, dir, first);
        tx.value(Buffer::SipStatCode, dir, second);
        tx.value(Buffer::SipStatMsg, dir, reason);
        tx.notes.text("version", first);
        tx.notes.text("code", second);
        tx.notes.text("reason", reason);
        tx.notes.text("response_line", line);
        return;
    }
    let version = third.unwrap_or_default();
    if !version.starts_with(b"SIP/") {
        tx.event("sip.invalid_data", dir);
    }
    tx.value(Buffer::SipRequestLine, dir, line);
    tx.value(Buffer::SipMethod, dir, first);
    tx.value(Buffer::SipUri, dir, second);
    tx.value(Buffer::SipProtocol, dir, version);
    tx.notes.text("method", first);
    tx.notes.text("uri", second);
    tx.notes.text("version", version);
    tx.notes.text("request_line", line);
}

fn over(tx: &mut Transaction) {
    tx.advance(Dir::ToServer, Stage::Complete);
    tx.advance(Dir::ToClient, Stage::Complete);
}

impl Sip {
    fn datagram(bytes: &[u8], io: &mut Io<'_>) -> Option<()> {
        let bytes = bytes.trim_ascii_start();
        // Empty lines keep a way through address translation open.
        if bytes.is_empty() {
            return Some(());
        }
        let (id, dir) = (io.begin(Protocol::Sip)?, io.dir);
        let tx = io.tx(id)?;
        match Message::read(bytes, 0) {
            Some((message, end)) => {
                let body = show(&message, dir, tx);
                if body.describes {
                    sdp::read(&bytes[end..], dir, tx);
                }
            }
            None => {
                let (line, header) = split_line(bytes);
                show(&Message { line, header }, dir, tx);
                tx.event("sip.invalid_data", dir);
            }
        }
        over(tx);
        Some(())
    }

    /// What was taken of a stream; 0: more is needed. `None`: no room for another transaction.
    fn stream(half: &mut Half, bytes: &[u8], io: &mut Io<'_>) -> Option<usize> {
        let skipped = usize::try_from(half.skip).unwrap_or(usize::MAX).min(bytes.len());
        half.skip -= skipped as u64;
        let blank = bytes[skipped..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if skipped + blank > 0 {
            half.scanned = 0;
            return Some(skipped + blank);
        }
        let Some((message, end)) = Message::read(bytes, half.scanned) else {
            half.scanned = bytes.len();
            return Some(0);
        };
        // Whether the body is there is asked before anything is shown.
        let mut length = Body::default();
        for (name, value) in message.fields() {
            if name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l") {
                length.len = std::str::from_utf8(&value).ok().and_then(|number| number.parse().ok());
            }
        }
        let len = length.len.unwrap_or(0);
        let body = match usize::try_from(len).ok().filter(|len| *len <= BODY_BYTES_MAX) {
            Some(len) => match bytes.get(end..end + len) {
                Some(body) => body,
                None => {
                    half.scanned = end.saturating_sub(1);
                    return Some(0);
                }
            },
            None => {
                half.skip = len;
                &[]
            }
        };
        let (id, dir) = (io.begin(Protocol::Sip)?, io.dir);
        let tx = io.tx(id)?;
        if show(&message, dir, tx).describes {
            sdp::read(body, dir, tx);
        }
        tx.overflowed |= half.skip > 0;
        over(tx);
        half.scanned = 0;
        Some(end + body.len())
    }
}

impl Parser for Sip {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let full = |consumed| Step { consumed, next: Next::Finished(Finished::Cap("transactions_max")) };
        if self.transport == Transport::Udp {
            return Self::datagram(bytes, io).map_or(full(bytes.len()), |()| Step::on(bytes.len()));
        }
        let mut at = if self.halves[io.dir as usize].lost { bytes.len() } else { 0 };
        while at < bytes.len() {
            match Self::stream(&mut self.halves[io.dir as usize], &bytes[at..], io) {
                Some(0) => break,
                Some(taken) => at += taken,
                None => return full(at),
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let half = &mut self.halves[io.dir as usize];
        match half.skip.checked_sub(len) {
            _ if self.transport == Transport::Udp => Next::Continue,
            Some(left) if half.skip > 0 => {
                half.skip = left;
                Next::Continue
            }
            // The other direction is read on.
            _ => {
                half.lost = true;
                Next::Blind(Finished::Gap)
            }
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
