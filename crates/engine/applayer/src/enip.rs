//! EtherNet/IP with CIP (ODVA's volumes 1 and 2) over TCP and UDP: a request with its response is a transaction.

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::recent::Recent;
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 24;
/// Items of one message, services of one item, segments of one path.
const ITEMS_MAX: usize = 64;
/// Requests without a response; the oldest are given up.
const REQUESTS_MAX: usize = 256;

const LIST_SERVICES: u16 = 0x04;
const LIST_IDENTITY: u16 = 0x63;
const SEND_DATA: u16 = 0x6f;
const SEND_UNIT: u16 = 0x70;
const MULTIPLE: u8 = 0x0a;

const COMMANDS: &[(u16, &str)] = &[
    (0x00, "nop"),
    (LIST_SERVICES, "list_services"),
    (LIST_IDENTITY, "list_identity"),
    (0x64, "list_interfaces"),
    (0x65, "register_session"),
    (0x66, "unregister_session"),
    (SEND_DATA, "send_rr_data"),
    (SEND_UNIT, "send_unit_data"),
    (0x72, "indicate_status"),
    (0x73, "cancel"),
];

const STATUSES: &[(u32, &str)] = &[
    (0, "success"),
    (1, "invalid_cmd"),
    (2, "no_resources"),
    (3, "incorrect_data"),
    (0x64, "invalid_session"),
    (0x65, "invalid_length"),
    (0x69, "unsupported_prot_rev"),
    (0x6a, "encap_header_error"),
];

/// A command, a status, no options, and a plausible length.
pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    let Some(&[low, high, ..]) = bytes.first_chunk::<2>() else {
        return if bytes.first().is_none_or(|byte| *byte <= 0x73) { Probe::More } else { Probe::No };
    };
    let command = u16::from_le_bytes([low, high]);
    // What is empty says too little.
    if command == 0 || !COMMANDS.iter().any(|(of, _)| *of == command) {
        return Probe::No;
    }
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Probe::More };
    let mut reader = Reader::from(head, 2);
    let (len, _, status) = (reader.le16(), reader.le32(), reader.le32());
    let fits = len.is_some_and(|len| match command {
        0x65 => len == 4,
        SEND_DATA | SEND_UNIT => len >= 6,
        _ => true,
    });
    let known = status.is_some_and(|status| STATUSES.iter().any(|(of, _)| *of == status));
    if fits && known && head[20..] == [0; 4] { Probe::Yes } else { Probe::No }
}

/// The same, and the datagram ends where the message does.
pub(crate) fn probe_udp(dir: Dir, bytes: &[u8]) -> Probe {
    let len = Reader::from(bytes, 2).le16().map_or(usize::MAX, usize::from);
    if bytes.len() == HEAD_BYTES.saturating_add(len) && probe_tcp(dir, bytes) == Probe::Yes { Probe::Yes } else { Probe::No }
}

#[derive(Debug)]
pub(crate) struct Enip {
    transport: Transport,
    /// By session, the sender's mark and command.
    requests: Recent<(u32, [u8; 8], u16), u64>,
}

impl Enip {
    /// Whether there was room for it.
    fn message(&mut self, message: &[u8], io: &mut Io<'_>) -> bool {
        let (dir, Some(key)) = (io.dir, key(message)) else { return true };
        // What goes on in a connection by itself has no answer.
        let pairs = key.2 != SEND_UNIT;
        let asked = if dir == Dir::ToClient && pairs { self.requests.remove(&key) } else { None };
        let Some(id) = asked.or_else(|| io.begin(Protocol::Enip)) else { return false };
        if let Some(tx) = io.tx(id) {
            if read(message, dir, tx).is_none() {
                tx.event("enip.invalid_pdu", dir);
            }
            tx.advance(dir, Stage::Complete);
        }
        if dir == Dir::ToServer && pairs {
            if let Some(gone) = self.requests.insert(key, id) {
                complete(gone, io);
            }
        } else {
            complete(id, io);
        }
        true
    }

    pub const fn new(transport: Transport) -> Self {
        Self { transport, requests: Recent::new(REQUESTS_MAX) }
    }
}

/// Session, mark, command.
fn key(message: &[u8]) -> Option<(u32, [u8; 8], u16)> {
    let mut reader = Reader::new(message);
    let (command, _, session, _) = (reader.le16()?, reader.le16()?, reader.le32()?, reader.le32()?);
    // A session begins with the answer.
    Some((if command == 0x65 { 0 } else { session }, reader.array()?, command))
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

fn read(bytes: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let (command, _, session, status) = (reader.le16()?, reader.le16()?, reader.le32()?, reader.le32()?);
    reader.skip(12)?;
    tx.integer_is(Field::EnipCommand, dir, u64::from(command));
    tx.integer_is(Field::EnipStatus, dir, u64::from(status));
    let named = COMMANDS.iter().find(|(of, _)| *of == command).map_or("unknown", |(_, name)| *name);
    tx.notes.object(if dir == Dir::ToServer { "request" } else { "response" });
    tx.notes.text("command", named);
    let known = STATUSES.iter().find(|(of, _)| *of == status).map_or("unknown", |(_, name)| *name);
    tx.notes.text("status", known);
    tx.notes.number("session_handle", session);
    let read = match (command, dir) {
        (LIST_IDENTITY, Dir::ToClient) => identity(reader, dir, tx),
        (LIST_SERVICES, Dir::ToClient) => services(reader, dir, tx),
        (0x65, _) => reader.le16().map(|version| {
            tx.integer_is(Field::EnipProtocolVersion, dir, u64::from(version));
            tx.notes.object("register_session");
            tx.notes.number("protocol_version", version);
            tx.notes.end();
        }),
        (SEND_DATA | SEND_UNIT, _) if status == 0 => items(reader, dir, tx),
        _ => Some(()),
    };
    tx.notes.end();
    read
}

fn identity(mut reader: Reader<'_>, dir: Dir, tx: &mut Transaction) -> Option<()> {
    reader.skip(6)?;
    let version = reader.le16()?;
    reader.skip(16)?;
    let (vendor, device, product) = (reader.le16()?, reader.le16()?, reader.le16()?);
    let (major, minor, status, serial) = (reader.u8()?, reader.u8()?, reader.le16()?, reader.le32()?);
    let len = reader.u8()?;
    let name = reader.take(usize::from(len))?;
    let state = reader.u8()?;
    for (field, number) in [
        (Field::EnipProtocolVersion, u64::from(version)),
        (Field::EnipVendorId, u64::from(vendor)),
        (Field::EnipDeviceType, u64::from(device)),
        (Field::EnipProductCode, u64::from(product)),
        (Field::EnipRevision, u64::from(major) << 8 | u64::from(minor)),
        (Field::EnipIdentityStatus, u64::from(status)),
        (Field::EnipSerial, u64::from(serial)),
        (Field::EnipState, u64::from(state)),
    ] {
        tx.integer_is(field, dir, number);
    }
    tx.value(Buffer::EnipProductName, dir, name);
    let notes = &mut tx.notes;
    notes.object("identity");
    notes.number("protocol_version", version);
    notes.text("revision", format!("{major}.{minor}"));
    // One name of the vendors' list: the one that most devices have.
    notes.text("vendor_id", if vendor == 1 { "Rockwell Automation/Allen-Bradley".to_owned() } else { vendor.to_string() });
    notes.number("device_type", device);
    notes.number("product_code", product);
    notes.number("status", status);
    notes.number("serial", serial);
    notes.text("product_name", name);
    notes.number("state", state);
    notes.end();
    Some(())
}

fn services(mut reader: Reader<'_>, dir: Dir, tx: &mut Transaction) -> Option<()> {
    reader.skip(6)?;
    let (version, capabilities) = (reader.le16()?, reader.le16()?);
    let name = Reader::new(reader.take(16)?).text();
    tx.integer_is(Field::EnipProtocolVersion, dir, u64::from(version));
    tx.integer_is(Field::EnipCapabilities, dir, u64::from(capabilities));
    tx.value(Buffer::EnipServiceName, dir, name);
    tx.notes.object("list_services");
    tx.notes.number("protocol_version", version);
    tx.notes.number("capabilities", capabilities);
    tx.notes.text("service_name", name);
    tx.notes.end();
    Some(())
}

fn items(mut reader: Reader<'_>, dir: Dir, tx: &mut Transaction) -> Option<()> {
    reader.skip(6)?;
    let count = usize::from(reader.le16()?).min(ITEMS_MAX);
    for _ in 0..count {
        let (kind, len) = (reader.le16()?, reader.le16()?);
        let mut item = Reader::new(reader.take(usize::from(len))?);
        match kind {
            0xb1 => {
                // Its number.
                item.skip(2)?;
                cip(item.rest(), true, dir, tx)?;
            }
            0xb2 => cip(item.rest(), true, dir, tx)?,
            _ => {}
        }
    }
    Some(())
}

/// A service, or several within one. Reading goes on where a service's own data is not known.
fn cip(bytes: &[u8], outer: bool, dir: Dir, tx: &mut Transaction) -> Option<()> {
    if bytes.is_empty() {
        return Some(());
    }
    let mut reader = Reader::new(bytes);
    let service = reader.u8()?;
    let number = u64::from(service & 0x7f) << 32;
    if service & 0x80 != 0 {
        let (_, status, extra) = (reader.u8()?, reader.u8()?, reader.u8()?);
        tx.integer_is(Field::EnipCip, dir, number);
        tx.integer_is(Field::EnipCipStatus, dir, u64::from(status));
        for _ in 0..extra {
            tx.integer_is(Field::EnipCipExtendedstatus, dir, u64::from(reader.le16()?));
        }
        if outer {
            note_service(service, tx);
        }
    } else {
        let words = reader.u8()?;
        let mut path = Reader::new(reader.take(2 * usize::from(words))?);
        let (mut class, mut attribute) = (None, None);
        for _ in 0..ITEMS_MAX {
            let Some(kind) = path.u8() else { break };
            // Eight bits, or a byte of nothing and sixteen.
            let wide = kind & 3 == 1;
            let value = if wide {
                path.skip(1)?;
                path.le16()?
            } else {
                u16::from(path.u8()?)
            };
            match kind & !3 {
                0x20 => {
                    class = Some(value);
                    tx.integer_is(Field::EnipCipClass, dir, u64::from(value));
                }
                0x24 => tx.integer_is(Field::EnipCipInstance, dir, u64::from(value)),
                0x30 => {
                    attribute = Some(value);
                    tx.integer_is(Field::EnipCipAttribute, dir, u64::from(value));
                }
                _ => break,
            }
        }
        let of = |value: Option<u16>, bit: u32, shift: u32| value.map_or(0, |value| 1 << bit | u64::from(value) << shift);
        tx.integer_is(Field::EnipCip, dir, number | of(class, 41, 16) | of(attribute, 40, 0));
        if outer {
            note_service(service, tx);
        }
    }
    if service & 0x7f == MULTIPLE && outer {
        let content = reader.rest();
        let mut places = Reader::new(content);
        let count = usize::from(places.le16()?).min(ITEMS_MAX);
        let starts: Vec<usize> = (0..count).map_while(|_| places.le16()).map(usize::from).collect();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(content.len());
            cip(content.get(*start..end)?, false, dir, tx)?;
        }
    }
    Some(())
}

fn note_service(service: u8, tx: &mut Transaction) {
    let name = match service & 0x7f {
        0x01 => "Get Attributes All",
        0x03 => "Get Attribute List",
        0x04 => "Set Attribute List",
        MULTIPLE => "Multiple Service Packet",
        0x0e => "Get Attribute Single",
        0x10 => "Set Attribute Single",
        0x4c => "Read Tag",
        0x4d => "Write Tag",
        0x54 => "Forward Open",
        _ => "",
    };
    tx.notes.object("cip");
    if name.is_empty() {
        tx.notes.number("service", service & 0x7f);
    } else {
        tx.notes.text("service", name);
    }
    tx.notes.end();
}

impl Parser for Enip {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let len = HEAD_BYTES + usize::from(u16::from_le_bytes([head[2], head[3]]));
            let Some(message) = bytes.get(at..at + len) else { break };
            at += len;
            if !self.message(message, io) {
                return Step { consumed: at, next: Next::Finished(Finished::Cap("transactions_max")) };
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        match self.transport {
            Transport::Udp => Next::Continue,
            Transport::Tcp => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
