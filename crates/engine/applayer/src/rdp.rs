//! RDP (MS-RDPBCGR) up to TLS, or without it up to the answer to the client's description: each message is a transaction of its own
//! direction.

use crate::context::Io;
use crate::names::{Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::{Reader, utf8};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// A message: the client's description has some 500 bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Channels that a client may ask for.
const CHANNELS_MAX: u32 = 31;

const REQUEST: u8 = 0xe0;
const CONFIRM: u8 = 0xd0;
const DATA: u8 = 0xf0;

/// TPKT and X.224: a request to connect, or its confirmation.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    let wanted = if dir == Dir::ToServer { REQUEST } else { CONFIRM };
    match bytes {
        [] | [3] | [3, 0] | [3, 0, 0] => Probe::More,
        [3, 0, 0 | 1, len, rest @ ..] if bytes[2] > 0 || *len >= 11 => match rest {
            [] | [_] => Probe::More,
            // The length within is less by five.
            [inner, kind, more @ ..] if u16::from(*inner) + 5 == u16::from_be_bytes([bytes[2], *len]) && *kind == wanted => {
                // Others of the same layer have parameters, here there is a cookie or what is negotiated.
                match (more.get(5), *inner) {
                    (_, 6) | (Some(b'C' | b'm' | 1..=3), _) => Probe::Yes,
                    (None, _) => Probe::More,
                    (Some(_), _) => Probe::No,
                }
            }
            _ => Probe::No,
        },
        _ => Probe::No,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rdp {
    /// Nothing more is read.
    over: bool,
}

impl Rdp {
    fn message(&mut self, message: &[u8], io: &mut Io<'_>) -> Next {
        let dir = io.dir;
        let Some(id) = io.begin(Protocol::Rdp) else { return Next::Finished(Finished::Cap("transactions_max")) };
        let Some(tx) = io.tx(id) else { return Next::Continue };
        let mut reader = Reader::from(message, 5);
        let switches = match (reader.u8(), dir) {
            (Some(REQUEST), Dir::ToServer) => {
                asked(reader, tx);
                false
            }
            (Some(CONFIRM), Dir::ToClient) => confirmed(reader, tx),
            (Some(DATA), _) => {
                tx.notes.number("tx_id", tx.id);
                tx.notes.text("event_type", if dir == Dir::ToServer { "connect_request" } else { "connect_response" });
                if dir == Dir::ToServer {
                    described(message, tx);
                }
                self.over = dir == Dir::ToClient;
                false
            }
            _ => false,
        };
        tx.advance(dir, Stage::Complete);
        tx.advance(dir.other(), Stage::Complete);
        if switches { Next::Switch } else { Next::Continue }
    }
}

/// A cookie, and what the client would like to speak.
fn asked(mut reader: Reader<'_>, tx: &mut Transaction) {
    tx.notes.number("tx_id", tx.id);
    tx.notes.text("event_type", "initial_request");
    let Some(rest) = reader.skip(5).map(|()| reader.rest()) else { return };
    if let Some(cookie) = rest.strip_prefix(b"Cookie: mstshash=") {
        let end = cookie.iter().position(|byte| *byte == b'\r').unwrap_or(cookie.len());
        tx.notes.text("cookie", &cookie[..end]);
    }
}

/// Whether TLS follows.
fn confirmed(mut reader: Reader<'_>, tx: &mut Transaction) -> bool {
    const FAILURES: [&str; 7] = [
        "",
        "ssl required by server",
        "ssl not allowed by server",
        "ssl certificate not on server",
        "inconsistent flags",
        "hybrid required by server",
        "ssl with user auth required by server",
    ];
    tx.notes.number("tx_id", tx.id);
    tx.notes.text("event_type", "initial_response");
    let answer = (|| {
        reader.skip(5)?;
        let (kind, flags, _) = (reader.u8()?, reader.u8()?, reader.le16()?);
        Some((kind, flags, reader.le32()?))
    })();
    match answer {
        Some((2, flags, protocol)) => {
            let supports = [(1, "extended_client_data"), (2, "dynvc_gfx"), (8, "restricted_admin"), (16, "restricted_authentication")];
            if flags != 0 {
                tx.notes.list("server_supports");
                supports.iter().filter(|(bit, _)| flags & bit != 0).for_each(|(_, name)| tx.notes.text("", name));
                tx.notes.end();
            }
            let name = match protocol {
                0 => "rdp",
                1 => "ssl",
                2 => "hybrid",
                4 => "rds_tls",
                8 => "hybrid_ex",
                _ => "unknown",
            };
            tx.notes.text("protocol", name);
            protocol != 0
        }
        Some((3, _, code)) => {
            tx.notes.number("error_code", code);
            tx.notes.text("reason", FAILURES.get(code as usize).copied().unwrap_or("unknown"));
            false
        }
        _ => {
            tx.notes.text("protocol", "rdp");
            false
        }
    }
}

/// What the client says of itself (MS-RDPBCGR, section 2.2.1.3).
fn described(message: &[u8], tx: &mut Transaction) {
    const CORE: u16 = 0xc001;
    const NETWORK: u16 = 0xc003;
    // The blocks stand behind this key (T.124) and their length.
    let Some(start) = memchr::memmem::find(message, b"Duca") else { return };
    let mut reader = Reader::from(message, start + 4);
    let long = reader.u8().is_some_and(|len| len & 0x80 != 0);
    if long {
        let _ = reader.u8();
    }
    while let (Some(kind), Some(len)) = (reader.le16(), reader.le16()) {
        let Some(block) = usize::from(len).checked_sub(4).and_then(|len| reader.take(len)) else { return };
        let read = match kind {
            CORE => core(Reader::new(block), tx),
            NETWORK => channels(Reader::new(block), tx),
            _ => Some(()),
        };
        if read.is_none() {
            return;
        }
    }
}

fn core(mut reader: Reader<'_>, tx: &mut Transaction) -> Option<()> {
    let (version, width, height) = (reader.le32()?, reader.le16()?, reader.le16()?);
    let (colors, _, layout, build) = (reader.le16()?, reader.le16()?, reader.le32()?, reader.le32()?);
    let name = Reader::new(reader.take(32)?).wide_text();
    let (kind, subtype, functions) = (reader.le32()?, reader.le32()?, reader.le32()?);
    let ime = reader.take(64)?;
    let notes = &mut tx.notes;
    notes.object("client");
    let known = match version {
        0x0008_0001 => "v4",
        0x0008_0004 => "v5",
        0x0008_0005 => "v10.0",
        0x0008_0006 => "v10.1",
        0x0008_0007 => "v10.2",
        0x0008_0008 => "v10.3",
        0x0008_0009 => "v10.4",
        0x0008_000a => "v10.5",
        0x0008_000b => "v10.6",
        0x0008_000c => "v10.7",
        _ => "unknown",
    };
    notes.text("version", known);
    notes.number("desktop_width", width);
    notes.number("desktop_height", height);
    // Newer clients say it further behind.
    if let Some(depth) = match colors {
        0xca00 => Some(4_u8),
        0xca01 => Some(8),
        _ => None,
    } {
        notes.number("color_depth", depth);
    }
    notes.text("keyboard_layout", format!("0x{layout:04x}"));
    notes.text("build", build.to_string());
    if !name.is_empty() {
        notes.text("client_name", name);
    }
    if let Some(kind) = match kind {
        1 => Some("xt"),
        2 => Some("ico"),
        3 => Some("at"),
        4 => Some("enhanced"),
        5 => Some("1050"),
        6 => Some("9140"),
        7 => Some("jp"),
        _ => None,
    } {
        notes.text("keyboard_type", kind);
    }
    if subtype != 0 {
        notes.number("keyboard_subtype", subtype);
    }
    if functions != 0 {
        notes.number("function_keys", functions);
    }
    let ime = Reader::new(ime).wide_text();
    if !ime.is_empty() {
        notes.text("ime", ime);
    }
    let product = reader.skip(8).and_then(|()| {
        reader.skip(6)?;
        reader.take(64)
    });
    if let Some(product) = product.map(utf8) {
        let end = product.iter().position(|byte| *byte == 0).unwrap_or(product.len());
        if end > 0 {
            notes.text("id", &product[..end]);
        }
    }
    notes.end();
    Some(())
}

fn channels(mut reader: Reader<'_>, tx: &mut Transaction) -> Option<()> {
    let count = reader.le32()?.min(CHANNELS_MAX);
    tx.notes.list("channels");
    for _ in 0..count {
        let Some(channel) = reader.take(12) else { break };
        tx.notes.text("", Reader::new(&channel[..8]).text());
    }
    tx.notes.end();
    Some(())
}

impl Parser for Rdp {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while !self.over {
            let Some(&[version, _, high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return Step::on(at) };
            let len = usize::from(u16::from_be_bytes([high, low]));
            if version != 3 || !(7..=MESSAGE_BYTES_MAX).contains(&len) {
                return Step { consumed: at, next: Next::Finished(Finished::Malformed("message")) };
            }
            let Some(message) = bytes.get(at..at + len) else { return Step::on(at) };
            at += len;
            match self.message(message, io) {
                Next::Continue => io.report(),
                next => return Step { consumed: at, next },
            }
        }
        // Behind the answer most is encrypted, and all of it pictures.
        Step::on(bytes.len())
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        if self.over { Next::Continue } else { Next::Finished(Finished::Gap) }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
