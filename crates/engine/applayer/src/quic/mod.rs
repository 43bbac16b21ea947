//! QUIC (RFC 9000, 9001, 9369, drafts from 23 on, Google's own): first packets, and the hellos in them. Each packet with a long header is
//! a transaction until both hellos were seen.
//!
//! ```text
//! datagram ─ long headers ─ Initial ─ keys of the client's identifier ─ frames ─ CRYPTO put together ─ hello of TLS
//! ```
//! After that packets are looked at only for a client that begins anew from the same port: one hello does not hide the next.

mod google;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::context::Io;
use crate::datagram::be;
use crate::names::{Buffer, Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::tls::hello::{ALPN, Hello, SERVER_NAME, md5_hex};
use crate::transaction::Transaction;
use google::Tags;
use keys::Keys;

const VERSION_2: u32 = 0x6b33_43cf;
/// RFC 9000, section 17.2.
const IDENTIFIER_BYTES_MAX: usize = 20;
/// Bytes of one direction's handshake that are put together, pieces of it that wait for others included.
const CRYPTO_BYTES_MAX: usize = 64 * 1024;
/// Pieces that wait for others; a client sends a hello in some ten.
const CRYPTO_PIECES_MAX: usize = 256;
/// Packets of one datagram (RFC 9000, section 12.2, has four kinds).
const PACKETS_MAX: usize = 8;
/// Extensions of one hello that the log tells of.
const EXTENSIONS_MAX: usize = 64;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

pub(crate) fn probe(_: Dir, datagram: &[u8]) -> Probe {
    match Packet::read(datagram) {
        Some(packet) if packet.kind == Kind::Initial && is_known(packet.version) => Probe::Yes,
        Some(_) | None => Probe::No,
    }
}

/// Versions that were ever in use. A reserved one (RFC 9000, section 15) only asks for others.
const fn is_known(version: u32) -> bool {
    matches!(version, 1 | VERSION_2 | 0xff00_0017..=0xff00_0022 | 0xface_b002)
        || is_google(version)
        || matches!(version, 0x5130_3530)
        || version & 0x0f0f_0f0f == 0x0a0a_0a0a
}

const fn is_google(version: u32) -> bool {
    matches!(version, 0x5130_3433..=0x5130_3436)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Initial,
    EarlyData,
    Handshake,
    Retry,
    Negotiation,
}

/// A packet with a long header.
#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    kind: Kind,
    version: u32,
    destination: &'a [u8],
    /// As it came, from its first byte.
    bytes: &'a [u8],
    /// Where the packet number begins; of Google's, where the frames do.
    number_at: usize,
    /// What follows it in the datagram.
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None`: a short header, or no QUIC.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let &first = datagram.first()?;
        if first & 0x80 == 0 {
            return None;
        }
        let version = be(datagram.get(1..5)?) as u32;
        if is_google(version) {
            return Self::google(first, version, datagram);
        }
        let mut at = 5;
        let mut identifier = || {
            let len = usize::from(*datagram.get(at)?);
            let identifier = datagram.get(at + 1..at + 1 + len)?;
            at += 1 + len;
            (len <= IDENTIFIER_BYTES_MAX).then_some(identifier)
        };
        let (destination, _) = (identifier()?, identifier()?);
        let kind = match (version, first >> 4 & 3) {
            (0, _) => Kind::Negotiation,
            // RFC 9000, section 17.2: the fixed bit.
            _ if first & 0x40 == 0 => return None,
            // RFC 9369, section 3.2.
            (VERSION_2, 1) => Kind::Initial,
            (VERSION_2, 2) => Kind::EarlyData,
            (VERSION_2, 3) => Kind::Handshake,
            (VERSION_2, _) => Kind::Retry,
            (_, 0) => Kind::Initial,
            (_, 1) => Kind::EarlyData,
            (_, 2) => Kind::Handshake,
            (_, _) => Kind::Retry,
        };
        if matches!(kind, Kind::Negotiation | Kind::Retry) {
            return Some(Self { kind, version, destination, bytes: datagram, number_at: at, rest: &[] });
        }
        if kind == Kind::Initial {
            let (token, len) = number(datagram.get(at..)?)?;
            at = at.checked_add(len)?.checked_add(usize::try_from(token).ok()?)?;
        }
        let (len, taken) = number(datagram.get(at..)?)?;
        at += taken;
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        Some(Self { kind, version, destination, bytes: datagram.get(..end)?, number_at: at, rest: datagram.get(end..)? })
    }

    fn google(first: u8, version: u32, datagram: &'a [u8]) -> Option<Self> {
        let lengths = *datagram.get(5)?;
        let len = |four: u8| if four == 0 { 0 } else { usize::from(four) + 3 };
        let (to, from) = (len(lengths >> 4), len(lengths & 15));
        let destination = datagram.get(6..6 + to)?;
        // Since Q046 in the form that the standard has.
        let kind = match (version, first) {
            (0x5130_3436, _) if first & 0x30 == 0 => Kind::Initial,
            (0x5130_3436, _) if first & 0x30 == 0x10 => Kind::EarlyData,
            (0x5130_3436, _) if first & 0x30 == 0x20 => Kind::Handshake,
            (_, 0xff) => Kind::Initial,
            (_, 0xfd) => Kind::Handshake,
            (_, 0xfc) => Kind::EarlyData,
            (_, 0xfe) => Kind::Retry,
            _ => return None,
        };
        // The packet's number, and twelve bytes of a checksum.
        let number_at = 6 + to + from + if kind == Kind::Initial { 4 + 12 } else { 0 };
        (datagram.len() >= number_at).then_some(Self { kind, version, destination, bytes: datagram, number_at, rest: &[] })
    }
}

/// A number of one to eight bytes (RFC 9000, section 16), and its length.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = 1 << (bytes.first()? >> 6);
    Some((be(bytes.get(..len)?) & (u64::MAX >> (66 - 8 * len)), len))
}

/// One direction's handshake.
#[derive(Debug, Default)]
struct Crypto {
    /// From its first byte, without holes.
    ready: Vec<u8>,
    /// Behind a hole.
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
    hello: bool,
}

impl Crypto {
    /// `false`: there is no room.
    fn put(&mut self, offset: u64, data: &[u8]) -> bool {
        let room = CRYPTO_BYTES_MAX - self.ready.len() - self.early_bytes.min(CRYPTO_BYTES_MAX - self.ready.len());
        if offset > self.ready.len() as u64 {
            if data.len() > room || self.early.len() >= CRYPTO_PIECES_MAX {
                return false;
            }
            // Of two pieces with the same beginning the first counts, unless the second goes further.
            let old = self.early.get(&offset).map_or(0, Vec::len);
            if data.len() > old {
                self.early_bytes += data.len() - old;
                self.early.insert(offset, data.to_vec());
            }
            return true;
        }
        let known = self.ready.len() as u64 - offset;
        let fresh = data.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if fresh.len() > room {
            return false;
        }
        self.ready.extend_from_slice(fresh);
        while let Some((&at, _)) = self.early.first_key_value()
            && at <= self.ready.len() as u64
        {
            let piece = self.early.remove(&at).unwrap_or_default();
            self.early_bytes -= piece.len();
            let known = (self.ready.len() as u64 - at) as usize;
            self.ready.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        true
    }

    /// A whole handshake message: its type and content.
    fn message(&self) -> Option<(u8, &[u8])> {
        let (head, rest) = self.ready.split_first_chunk::<4>()?;
        Some((head[0], rest.get(..be(&head[1..]) as usize)?))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Quic {
    keys: Option<Keys>,
    /// Keys are of this identifier.
    destination: Vec<u8>,
    crypto: [Crypto; 2],
}

impl Quic {
    /// Begins anew with what the client has chosen now.
    fn begin(&mut self, packet: &Packet<'_>, keys: Keys) {
        *self = Self { keys: Some(keys), destination: packet.destination.to_vec(), crypto: Default::default() };
    }

    /// The frames of a first packet. `None`: it does not open.
    fn open(&mut self, packet: &Packet<'_>, dir: Dir) -> Option<Vec<u8>> {
        let opened = self.keys.as_ref().and_then(|keys| keys.open(dir, packet.bytes, packet.number_at));
        if opened.is_some() || dir == Dir::ToClient && self.keys.is_some() || self.destination == packet.destination && self.keys.is_some()
        {
            return opened;
        }
        // A client that begins, again after a Retry, or anew. Where its first packets were not seen the server's may be in the wrong direction.
        let keys = Keys::new(packet.version, packet.destination)?;
        let opened = keys.open(dir, packet.bytes, packet.number_at)?;
        self.begin(packet, keys);
        Some(opened)
    }

    /// `false`: not what frames look like.
    fn frames(&mut self, packet: &Packet<'_>, mut rest: &[u8], dir: Dir, tx: &mut Transaction) -> bool {
        while let Some((&kind, behind)) = rest.split_first() {
            let read = match kind {
                0 | 1 => Some(behind),
                2 | 3 => acknowledged(behind, kind == 3),
                // In Q050 too, with tags.
                6 => self.crypto_frame(packet, behind, dir, tx),
                8 if is_google(packet.version) => data_frame(behind).map(|(_, data, behind)| {
                    tags(packet, data, dir, tx);
                    behind
                }),
                0x80.. if is_google(packet.version) => google::stream(kind, behind).map(|(data, behind)| {
                    tags(packet, data, dir, tx);
                    behind
                }),
                // The connection's end, and others that tell nothing.
                _ => return true,
            };
            match read {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }

    fn crypto_frame<'a>(&mut self, packet: &Packet<'_>, frame: &'a [u8], dir: Dir, tx: &mut Transaction) -> Option<&'a [u8]> {
        let (offset, data, behind) = data_frame(frame)?;
        let crypto = &mut self.crypto[dir as usize];
        if crypto.hello {
            return Some(behind);
        }
        if !crypto.put(offset, data) {
            tx.event("quic.crypto_frag_too_long", dir);
            return Some(behind);
        }
        let wanted = if dir == Dir::ToServer { CLIENT_HELLO } else { SERVER_HELLO };
        if packet.version >> 24 == u32::from(b'Q') {
            if tags(packet, &crypto.ready, dir, tx) {
                crypto.hello = true;
            }
        } else if let Some((kind, message)) = crypto.message() {
            match Hello::read(message, dir == Dir::ToServer) {
                Some(hello) if kind == wanted => show(&hello, dir, tx),
                Some(_) | None => tx.event("quic.error_on_data", dir),
            }
            *crypto = Crypto { hello: true, ..Crypto::default() };
        }
        Some(behind)
    }
}

/// Offset, data, and what follows.
fn data_frame(frame: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (offset, taken) = number(frame)?;
    let frame = frame.get(taken..)?;
    let (len, taken) = number(frame)?;
    let (data, behind) = frame.get(taken..)?.split_at_checked(usize::try_from(len).ok()?)?;
    Some((offset, data, behind))
}

/// What follows an acknowledgement.
fn acknowledged(mut rest: &[u8], with_congestion: bool) -> Option<&[u8]> {
    let mut next = || {
        let (value, len) = number(rest)?;
        rest = rest.get(len..)?;
        Some(value)
    };
    let (_, _, ranges, _) = (next()?, next()?, next()?, next()?);
    let numbers = ranges.checked_mul(2)?.checked_add(if with_congestion { 3 } else { 0 })?;
    // Each takes a byte of the frame: the loop ends with it.
    for _ in 0..numbers {
        next()?;
    }
    Some(rest)
}

/// Google's hello. `false`: none.
fn tags(packet: &Packet<'_>, data: &[u8], dir: Dir, tx: &mut Transaction) -> bool {
    let Some(tags) = Tags::read(data) else { return false };
    for (tag, key, buffer) in [(b"SNI\0", "sni", Buffer::QuicSni), (b"UAID", "ua", Buffer::QuicUa)] {
        if let Some(value) = tags.value(tag) {
            tx.value(buffer, dir, value);
            tx.notes.text(key, value);
        }
    }
    let version = match packet.version {
        0x5130_3433 => "43",
        // The definition has none for 45.
        0x5130_3434 | 0x5130_3435 => "44",
        0x5130_3436 => "46",
        _ => return true,
    };
    let string = tags.fingerprint(version);
    let hash = md5_hex(string.as_bytes());
    tx.value(Buffer::QuicCyuString, dir, string.as_bytes());
    tx.value(Buffer::QuicCyuHash, dir, &hash);
    tx.notes.list("cyu");
    tx.notes.object("");
    tx.notes.text("hash", &hash);
    tx.notes.text("string", &string);
    tx.notes.end();
    tx.notes.end();
    true
}

fn show(hello: &Hello<'_>, dir: Dir, tx: &mut Transaction) {
    let client = dir == Dir::ToServer;
    if client {
        hello.server_names(|name| {
            if let Ok(name) = name {
                tx.value(Buffer::QuicSni, dir, name);
                tx.notes.text("sni", name);
            }
        });
    }
    let string = hello.ja3();
    let hash = md5_hex(&string);
    let (of_hash, of_string, key) =
        if client { (Buffer::Ja3Hash, Buffer::Ja3String, "ja3") } else { (Buffer::Ja3sHash, Buffer::Ja3sString, "ja3s") };
    tx.value(of_hash, dir, &hash);
    tx.value(of_string, dir, &string);
    tx.notes.object(key);
    tx.notes.text("hash", &hash);
    tx.notes.text("string", &string);
    tx.notes.end();
    if client {
        let ja4 = hello.ja4('q');
        tx.value(Buffer::Ja4Hash, dir, &ja4);
        tx.notes.text("ja4", &ja4);
    }
    tx.notes.list("extensions");
    for (kind, content) in hello.extensions().flatten().take(EXTENSIONS_MAX) {
        tx.notes.object("");
        if let Some(name) = extension_name(kind) {
            tx.notes.text("name", name);
        }
        tx.notes.number("type", kind);
        if kind == ALPN {
            tx.notes.list("values");
            hello.alpn().for_each(|name| tx.notes.text("", name));
            tx.notes.end();
        } else if kind == SERVER_NAME && client {
            tx.notes.list("values");
            if let Some(name) = content.get(5..) {
                tx.notes.text("", name);
            }
            tx.notes.end();
        }
        tx.notes.end();
    }
    tx.notes.end();
}

/// IANA's names, as the reference engine writes them.
const fn extension_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        0 => "server_name",
        1 => "max_fragment_length",
        2 => "client_certificate",
        3 => "trusted_ca_keys",
        4 => "truncated_hmac",
        5 => "status_request",
        6 => "user_mapping",
        7 => "client_authz",
        8 => "server_authz",
        9 => "cert_type",
        10 => "supported_groups",
        11 => "ec_point_formats",
        12 => "srp",
        13 => "signature_algorithms",
        14 => "use_srtp",
        15 => "heartbeat",
        16 => "alpn",
        17 => "status_request_v2",
        18 => "signed_certificate_timestamp",
        19 => "client_certificate_type",
        20 => "server_certificate_type",
        21 => "padding",
        22 => "encrypt_then_mac",
        23 => "extended_master_secret",
        24 => "token_binding",
        25 => "cached_info",
        28 => "record_size_limit",
        35 => "session_ticket",
        40 => "key_share_old",
        41 => "pre_shared_key",
        42 => "early_data",
        43 => "supported_versions",
        44 => "cookie",
        45 => "psk_key_exchange_modes",
        47 => "certificate_authorities",
        48 => "oid_filters",
        49 => "post_handshake_auth",
        50 => "signature_algorithms_cert",
        51 => "key_share",
        57 => "quic_transport_parameters",
        13172 => "next_protocol_negotiation",
        65281 => "renegotiation_info",
        65486 => "encrypted_server_name",
        _ => return None,
    })
}

/// `Q046`; of others the number in hexadecimal.
fn version_name(version: u32) -> String {
    match version.to_be_bytes() {
        name @ [b'Q', ..] if name.iter().all(u8::is_ascii_alphanumeric) => String::from_utf8_lossy(&name).into_owned(),
        _ => format!("{version:x}"),
    }
}

impl Quic {
    fn packet(&mut self, packet: &Packet<'_>, io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        let google = is_google(packet.version);
        let was_over = self.crypto[dir as usize].hello;
        let frames = match packet.kind {
            Kind::Initial if google => Some(packet.bytes.get(packet.number_at..).unwrap_or_default().to_vec()),
            Kind::Initial => self.open(packet, dir),
            // After a retry the client begins again with what the server has chosen; its packet brings the keys.
            Kind::EarlyData | Kind::Handshake | Kind::Retry | Kind::Negotiation => None,
        };
        // What follows a hello belongs to it, unless it is another client's.
        let opened = frames.is_some() || packet.kind != Kind::Initial;
        if was_over && self.crypto[dir as usize].hello && (opened || google) {
            return None;
        }
        let Some(id) = io.begin(Protocol::Quic) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let tx = io.tx(id)?;
        tx.value(Buffer::QuicVersion, dir, &packet.version.to_be_bytes());
        tx.notes.text("version", version_name(packet.version));
        match frames {
            Some(frames) if !self.frames(packet, &frames, dir, tx) => tx.event("quic.error_on_data", dir),
            None if !opened => tx.event("quic.failed_decrypt", dir),
            Some(_) | None => {}
        }
        tx.advance(dir, Stage::Complete);
        tx.advance(dir.other(), Stage::Complete);
        None
    }
}

impl Parser for Quic {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut rest = bytes;
        for _ in 0..PACKETS_MAX {
            let Some(packet) = Packet::read(rest) else { break };
            if let Some(next) = self.packet(&packet, io) {
                return Step { consumed: bytes.len(), next };
            }
            rest = packet.rest;
        }
        Step::on(bytes.len())
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
