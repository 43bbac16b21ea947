//! TLS: records, and the handshake in them as far as it is not encrypted. One transaction a session.
//!
//! ```text
//! records ── handshake: hello, certificate ── values
//!         ├─ alert, heartbeat ── events
//!         └─ change of cipher, application data ── opaque; both directions: Finished::Encrypted
//! ```
//! Encrypted is believed only of a direction whose hello was read: bytes that merely look like records of application data do not
//! end the inspection of a session.

pub(crate) mod hello;
mod x509;

use sha1::{Digest, Sha1};

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;
use hello::Hello;
use x509::Certificate;

const HEADER_BYTES: usize = 5;
/// RFC 5246, section 6.2.3: 2^14 and 2048 for cipher and padding.
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
/// Certificates of one chain that are read.
const CERTIFICATES_MAX: usize = 32;
/// Of each list of a hello, for the log.
const HELLO_NUMBERS_MAX: usize = 256;
/// First bytes of an alert or heartbeat that are looked at.
const SMALL_BYTES: usize = 3;

const CHANGE_CIPHER: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;

/// A handshake record that begins with a hello; or a client's hello in the form of SSLv2, for TLS.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToServer && bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return match bytes {
            [_, _, CLIENT_HELLO, 3, ..] => Probe::Yes,
            [_, _, CLIENT_HELLO] | [_, _] | [_] => Probe::More,
            _ => Probe::No,
        };
    }
    let hello = if dir == Dir::ToServer { CLIENT_HELLO } else { SERVER_HELLO };
    let wanted: [(usize, &dyn Fn(u8) -> bool); 5] = [
        (0, &|byte| byte == HANDSHAKE),
        (1, &|byte| byte == 3),
        (2, &|byte| byte <= 4),
        // A record may hold no more than the hello's first bytes.
        (3, &|byte| usize::from(byte) <= RECORD_BYTES_MAX >> 8),
        (5, &|byte| byte == hello),
    ];
    for (at, holds) in wanted {
        match bytes.get(at) {
            None => return Probe::More,
            Some(byte) if !holds(*byte) => return Probe::No,
            Some(_) => {}
        }
    }
    Probe::Yes
}

#[derive(Debug, Default)]
pub(crate) struct Tls {
    halves: [Half; 2],
    tx: Option<u64>,
}

#[derive(Debug, Default)]
struct Half {
    record: Option<Record>,
    /// A hello was read, and no further one is awaited.
    hello: bool,
    /// Hellos of this direction.
    hellos: u32,
    /// What follows is encrypted.
    opaque: bool,
    /// The version is one whose certificates are to be seen, and none was.
    uncertified: bool,
    /// Handshake messages that are not complete.
    handshake: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    kind: u8,
    len: usize,
    left: usize,
    /// The first bytes of small ones.
    small: [u8; SMALL_BYTES],
}

impl Tls {
    fn header(&mut self, header: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let (kind, len) = (header[0], usize::from(u16::from_be_bytes([header[3], header[4]])));
        let malformed = match header[1] {
            _ if !(CHANGE_CIPHER..=HEARTBEAT).contains(&kind) => Some(("tls.invalid_record_type", "record type")),
            3 if len > RECORD_BYTES_MAX => Some(("tls.invalid_ssl_record", "record length")),
            3 => None,
            _ => Some(("tls.invalid_record_version", "record version")),
        };
        if let Some((event, why)) = malformed {
            io.event(self.tx, event);
            return Some(Next::Finished(Finished::Malformed(why)));
        }
        let dir = io.dir;
        if matches!(kind, CHANGE_CIPHER | DATA) {
            let half = &mut self.halves[dir as usize];
            if half.hello {
                // RFC 5246, section 7.3: the server goes on with secrets that both have already.
                let resumed = dir == Dir::ToClient && kind == CHANGE_CIPHER && half.uncertified && !half.opaque;
                half.opaque = true;
                if let Some(tx) = self.tx.and_then(|id| io.tx(id)) {
                    if resumed {
                        tx.notes.truth("session_resumed", true);
                    }
                    tx.advance(dir, Stage::Complete);
                }
            } else if kind == DATA {
                io.event(self.tx, "tls.invalid_ssl_record");
                return Some(Next::Finished(Finished::Malformed("data before a hello")));
            }
            if kind == DATA && self.halves.iter().all(|half| half.opaque) {
                return Some(Next::Finished(Finished::Encrypted));
            }
        }
        self.halves[dir as usize].record = Some(Record { kind, len, left: len, small: [0; SMALL_BYTES] });
        None
    }

    /// The client's first words in the form of SSLv2 (RFC 5246, appendix E.2): the version asked for is all that rules ask of it.
    /// Gives its length; `None`: more bytes are needed.
    fn old_hello(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<usize> {
        let len = 2 + usize::from(u16::from_be_bytes([*bytes.first()? & 0x7f, *bytes.get(1)?]));
        let message = bytes.get(2..len)?;
        let half = &mut self.halves[io.dir as usize];
        (half.hello, half.hellos) = (true, 1);
        let dir = io.dir;
        let tx = self.tx.and_then(|id| io.tx(id))?;
        match message {
            [CLIENT_HELLO, major, minor, ..] => {
                tx.integer_is(Field::TlsVersion, dir, u64::from(*major) << 8 | u64::from(*minor));
            }
            _ => tx.event("tls.invalid_sslv2_header", dir),
        }
        tx.advance(dir, Stage::Headers);
        Some(len)
    }

    /// Bytes of the record that is open. `Some`: a cap was reached.
    fn content(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let half = &mut self.halves[io.dir as usize];
        let record = half.record.as_mut()?;
        let at = record.len - record.left;
        record.left -= bytes.len();
        for (place, byte) in record.small.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
        let ended = record.left == 0;
        let record = *record;
        if ended {
            half.record = None;
        }
        match record.kind {
            _ if half.opaque => None,
            HANDSHAKE => self.handshake(bytes, io),
            ALERT if ended => {
                self.alert(record, io);
                None
            }
            // Its length can be judged when its first bytes are there.
            HEARTBEAT if ended || (at < SMALL_BYTES && at + bytes.len() >= SMALL_BYTES) => {
                if at < SMALL_BYTES {
                    self.heartbeat(record, io);
                }
                None
            }
            _ => None,
        }
    }

    fn alert(&mut self, record: Record, io: &mut Io<'_>) {
        let (dir, [level, description, _]) = (io.dir, record.small);
        let Some(tx) = self.tx.and_then(|id| io.tx(id)) else { return };
        if record.len != 2 || !matches!(level, 1 | 2) {
            tx.event("tls.invalid_alert_message", dir);
            return;
        }
        tx.integer_is(Field::TlsAlert, dir, u64::from(level) << 8 | u64::from(description));
    }

    /// RFC 6520, section 4: a payload that is longer than the message asks for memory (CVE-2014-0160).
    fn heartbeat(&mut self, record: Record, io: &mut Io<'_>) {
        let [kind, high, low] = record.small;
        let payload = usize::from(u16::from_be_bytes([high, low]));
        io.event(self.tx, "tls.heartbeat_message");
        if !matches!(kind, 1 | 2) || record.len < SMALL_BYTES {
            io.event(self.tx, "tls.invalid_heartbeat_message");
        } else if payload + SMALL_BYTES > record.len {
            io.event(self.tx, "tls.overflow_heartbeat_message");
        }
    }

    fn handshake(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let cap = io.context.config.handshake_bytes_max;
        let dir = io.dir as usize;
        let mut all = std::mem::take(&mut self.halves[dir].handshake);
        all.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[kind, a, b, c]) = all.get(at..at + 4) {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > cap {
                io.event(self.tx, "tls.handshake_invalid_length");
                io.context.stats.pending_refused += 1;
                return Some(Next::Finished(Finished::Cap("handshake_bytes_max")));
            }
            let Some(message) = all.get(at + 4..at + 4 + len) else { break };
            at += 4 + len;
            self.message(kind, message, io);
        }
        all.drain(..at);
        self.halves[dir].handshake = all;
        None
    }

    fn message(&mut self, kind: u8, message: &[u8], io: &mut Io<'_>) {
        let (dir, wanted) = (io.dir, io.context.config.wanted);
        let half = &mut self.halves[dir as usize];
        let Some(tx) = self.tx.and_then(|id| io.tx(id)) else { return };
        match (kind, dir) {
            (CLIENT_HELLO, Dir::ToServer) | (SERVER_HELLO, Dir::ToClient) => {
                let Some(hello) = Hello::read(message, dir == Dir::ToServer) else {
                    return tx.event("tls.invalid_handshake_message", dir);
                };
                half.hellos += 1;
                half.hello = true;
                half.uncertified = hello.wanted_version() < 0x0304;
                if hello.is_short() {
                    tx.event("tls.invalid_handshake_message", dir);
                }
                if hello.is_retry() {
                    // Both say hello once more.
                    self.halves.iter_mut().for_each(|half| half.hello = false);
                } else if half.hellos == 1 || dir == Dir::ToClient {
                    values(&hello, dir, wanted, tx);
                } else {
                    again(&hello, dir, tx);
                }
            }
            (CERTIFICATE, _) => {
                half.uncertified = false;
                certificates(message, dir, wanted, tx);
            }
            // RFC 8446, section 4, and what is reserved there for earlier versions.
            (0 | 3..=6 | 8 | 12..=16 | 20..=25 | 67 | 203 | 254, _) => {}
            _ => tx.event("tls.invalid_handshake_message", dir),
        }
    }
}

/// A client's second hello: a name that the first had not is a further value.
fn again(hello: &Hello<'_>, dir: Dir, tx: &mut Transaction) {
    hello.server_names(|name| {
        if let Ok(name) = name
            && tx.get(Buffer::TlsSni, dir) != Some(name)
        {
            tx.value(Buffer::TlsSni, dir, name);
        }
    });
}

fn values(hello: &Hello<'_>, dir: Dir, wanted: crate::BufferSet, tx: &mut Transaction) {
    tx.integer_is(Field::TlsVersion, dir, u64::from(hello.wanted_version()));
    let random = tx.value(Buffer::TlsRandom, dir, hello.random);
    tx.value_at(Buffer::TlsRandomTime, dir, random.start..random.end.min(random.start + 4));
    tx.value_at(Buffer::TlsRandomBytes, dir, random.end.min(random.start + 4)..random.end);
    for protocol in hello.alpn() {
        tx.value(Buffer::TlsAlpn, dir, protocol);
    }
    let (string, hash) = match dir {
        Dir::ToServer => (Buffer::Ja3String, Buffer::Ja3Hash),
        Dir::ToClient => (Buffer::Ja3sString, Buffer::Ja3sHash),
    };
    if wanted.contains(string) || wanted.contains(hash) {
        let text = hello.ja3();
        tx.value(string, dir, &text);
        tx.value(hash, dir, &hello::md5_hex(&text));
    }
    if dir == Dir::ToServer {
        if wanted.contains(Buffer::Ja4Hash) {
            tx.value(Buffer::Ja4Hash, dir, &hello.ja4('t'));
        }
        hello.server_names(|name| match name {
            Ok(name) => {
                tx.value(Buffer::TlsSni, dir, name);
            }
            Err(event) => tx.event(event, dir),
        });
    }
    if !tx.notes.is_off() {
        note(hello, dir, tx);
    }
    tx.advance(dir, Stage::Headers);
}

/// What fingerprints are made of, for the log.
fn note(hello: &Hello<'_>, dir: Dir, tx: &mut Transaction) {
    let notes = &mut tx.notes;
    notes.object(if dir == Dir::ToServer { "client_handshake" } else { "server_handshake" });
    notes.number("version", hello.wanted_version());
    let mut list = |name, numbers: &mut dyn Iterator<Item = u16>| {
        notes.list(name);
        numbers.take(HELLO_NUMBERS_MAX).for_each(|number| notes.number("", number));
        notes.end();
    };
    if dir == Dir::ToServer {
        list("ciphers", &mut hello.ciphers());
        list("exts", &mut hello.kinds());
        list("sig_algs", &mut hello.signature_algorithms());
    } else {
        list("exts", &mut hello.kinds());
        hello.ciphers().take(1).for_each(|cipher| notes.number("cipher", cipher));
    }
    notes.end();
}

/// RFC 5246, section 7.4.2: the sender's own certificate first.
fn certificates(message: &[u8], dir: Dir, wanted: crate::BufferSet, tx: &mut Transaction) {
    let u24 = |bytes: &[u8]| bytes.get(..3).map(|len| len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)));
    let list = u24(message).and_then(|len| message.get(3..3 + len));
    if list.is_none() {
        tx.event("tls.invalid_certificate", dir);
    }
    let mut rest = list.or(message.get(3..)).unwrap_or_default();
    let mut count = 0;
    while !rest.is_empty() && count < CERTIFICATES_MAX {
        let Some(der) = u24(rest).and_then(|len| rest.get(3..3 + len)) else {
            tx.event("tls.certificate_invalid_length", dir);
            tx.event("tls.invalid_certificate", dir);
            // What is there of it is read all the same.
            if count == 0 {
                leaf(rest.get(3..).unwrap_or_default(), dir, wanted, tx);
            }
            break;
        };
        rest = &rest[3 + der.len()..];
        count += 1;
        if wanted.contains(Buffer::TlsCerts) {
            tx.value(Buffer::TlsCerts, dir, der);
        }
        if count == 1 {
            leaf(der, dir, wanted, tx);
        }
    }
    tx.integer_is(Field::TlsCertChainLen, dir, count as u64);
}

fn leaf(der: &[u8], dir: Dir, wanted: crate::BufferSet, tx: &mut Transaction) {
    let (certificate, event) = Certificate::read(der);
    if let Some(event) = event {
        tx.event(event, dir);
        tx.event("tls.invalid_certificate", dir);
    }
    let texts = [
        (Buffer::TlsCertSerial, certificate.serial),
        (Buffer::TlsCertIssuer, certificate.issuer),
        (Buffer::TlsCertSubject, certificate.subject),
    ];
    for (buffer, text) in texts {
        if let Some(text) = text {
            tx.value(buffer, dir, &text);
        }
    }
    if wanted.contains(Buffer::TlsCertFingerprint) {
        tx.value(Buffer::TlsCertFingerprint, dir, &x509::hex_with_colons(&Sha1::digest(der), b"0123456789abcdef"));
    }
    for name in &certificate.alt_names {
        tx.value(Buffer::TlsSubjectaltname, dir, name);
    }
    if let Some((before, after)) = certificate.validity {
        tx.integer_is(Field::TlsNotBefore, dir, before.cast_unsigned());
        tx.integer_is(Field::TlsNotAfter, dir, after.cast_unsigned());
    }
}

impl Parser for Tls {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.tx.is_none() {
            self.tx = io.begin(Protocol::Tls);
        }
        let mut at = 0;
        loop {
            let half = &self.halves[io.dir as usize];
            let next = match half.record {
                None if half.hellos == 0 && io.dir == Dir::ToServer && bytes.get(at).is_some_and(|byte| byte & 0x80 != 0) => {
                    match self.old_hello(&bytes[at..], io) {
                        Some(len) => {
                            at += len;
                            None
                        }
                        None => break,
                    }
                }
                None => match bytes.get(at..at + HEADER_BYTES) {
                    Some(header) => {
                        at += HEADER_BYTES;
                        self.header(header, io)
                    }
                    None => break,
                },
                Some(record) if at < bytes.len() || record.left == 0 => {
                    let take = record.left.min(bytes.len() - at);
                    at += take;
                    self.content(&bytes[at - take..at], io)
                }
                Some(_) => break,
            };
            if let Some(next) = next {
                return Step { consumed: at, next };
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next {
        let encrypted = self.halves.iter().all(|half| half.opaque);
        let half = &mut self.halves[io.dir as usize];
        match &mut half.record {
            // Within a record whose content is not read on.
            Some(record) if pending.is_empty() && (half.opaque || record.kind != HANDSHAKE) && record.left as u64 > len => {
                record.left -= len as usize;
                Next::Continue
            }
            _ if encrypted => Next::Finished(Finished::Encrypted),
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
