//! DNP3 (IEEE 1815) over TCP: links, transport segments, and the messages of stations that they carry.
//!
//! Each message but a confirmation is a transaction of its own direction.

mod objects;

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 10;
/// What the length counts of the head.
const COUNTED_BYTES: usize = 5;
const BLOCK_BYTES: usize = 16;
/// A message of several segments: as many as have numbers, of 249 bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 249;
/// Requests without a reply; further ones are not looked at until one comes (the reference engine's `max-tx`).
const REQUESTS_MAX: u32 = 32;

const FIRST: u8 = 0x40;
const LAST: u8 = 0x80;
const CONFIRM: u8 = 0;
const RESPONSE: u8 = 129;
const UNSOLICITED: u8 = 130;

/// Start bytes, a plausible length, and the head's checksum.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    match bytes {
        [] | [0x05] | [0x05, 0x64] => Probe::More,
        [0x05, 0x64, len, ..] if usize::from(*len) >= COUNTED_BYTES => match bytes.get(..HEAD_BYTES) {
            None => Probe::More,
            Some(head) if has_sum(head) => Probe::Yes,
            Some(_) => Probe::No,
        },
        _ => Probe::No,
    }
}

/// The last two bytes are the checksum of the others.
fn has_sum(bytes: &[u8]) -> bool {
    let Some((data, sum)) = bytes.split_last_chunk::<2>() else { return false };
    let step = |sum: u16, byte: &u8| (0..8).fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xa6bc } else { sum >> 1 });
    !data.iter().fold(0, step) == u16::from_le_bytes(*sum)
}

#[derive(Debug, Default)]
pub(crate) struct Dnp3 {
    ways: [Way; 2],
    /// Requests without a reply.
    waiting: u32,
    flooded: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    message: Vec<u8>,
    /// Segments of a message came, and the last has not.
    open: bool,
    sequence: u8,
}

/// A link's head.
#[derive(Debug, Clone, Copy)]
struct Link {
    control: u8,
    to: u16,
    from: u16,
}

impl Dnp3 {
    /// `Some`: no room for another transaction.
    fn frame(&mut self, frame: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let mut reader = Reader::from(frame, 3);
        let link = Link { control: reader.u8()?, to: reader.le16()?, from: reader.le16()? };
        // Blocks of data, each with its checksum.
        let blocks = &frame[HEAD_BYTES..];
        let mut data = Vec::with_capacity(blocks.len());
        for block in blocks.chunks(BLOCK_BYTES + 2) {
            if !has_sum(block) {
                return fault("dnp3.bad_transport_crc", io);
            }
            data.extend_from_slice(&block[..block.len() - 2]);
        }
        let (&transport, part) = data.split_first()?;
        let way = &mut self.ways[io.dir as usize];
        let sequence = transport & 0x3f;
        if transport & FIRST != 0 {
            way.message.clear();
            way.open = true;
        } else if !way.open || sequence != way.sequence.wrapping_add(1) & 0x3f {
            return None;
        }
        way.sequence = sequence;
        if way.message.len() + part.len() > MESSAGE_BYTES_MAX {
            way.open = false;
            way.message.clear();
            return fault("dnp3.too_long_reassembly", io);
        }
        way.message.extend_from_slice(part);
        if transport & LAST == 0 {
            return None;
        }
        way.open = false;
        let message = std::mem::take(&mut way.message);
        let next = self.message(link, &message, io);
        self.ways[io.dir as usize].message = message;
        next
    }

    fn message(&mut self, link: Link, message: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        let mut reader = Reader::new(message);
        let (control, function) = (reader.u8()?, reader.u8()?);
        if function == CONFIRM {
            return None;
        }
        if dir == Dir::ToServer {
            self.waiting += 1;
            if self.flooded {
                return None;
            }
            self.flooded = self.waiting > REQUESTS_MAX;
        } else {
            (self.waiting, self.flooded) = (0, false);
        }
        let Some(id) = io.begin(Protocol::Dnp3) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let tx = io.tx(id)?;
        tx.integer_is(Field::Dnp3Func, dir, u64::from(function));
        tx.value(Buffer::Dnp3Data, dir, message);
        if self.flooded {
            tx.event("dnp3.flooded", dir);
        }
        read_message(link, control, function, &mut reader, dir, tx);
        tx.advance(dir, Stage::Complete);
        tx.advance(dir.other(), Stage::Complete);
        None
    }
}

/// Where no message comes of it: a transaction that has only the event. `Some`: no room for it.
fn fault(event: &'static str, io: &mut Io<'_>) -> Option<Next> {
    let dir = io.dir;
    let Some(id) = io.begin(Protocol::Dnp3) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
    let tx = io.tx(id)?;
    tx.event(event, dir);
    tx.advance(dir, Stage::Complete);
    tx.advance(dir.other(), Stage::Complete);
    None
}

fn read_message(link: Link, control: u8, function: u8, reader: &mut Reader<'_>, dir: Dir, tx: &mut Transaction) {
    let bit = |byte: u8, mask: u8| byte & mask != 0;
    let notes = &mut tx.notes;
    let kind = match (dir, function) {
        (Dir::ToServer, _) => "request",
        (Dir::ToClient, UNSOLICITED) => "unsolicited_response",
        (Dir::ToClient, _) => "response",
    };
    notes.text("type", kind);
    notes.object("control");
    notes.truth("dir", bit(link.control, 0x80));
    notes.truth("pri", bit(link.control, 0x40));
    notes.truth("fcb", bit(link.control, 0x20));
    notes.truth("fcv", bit(link.control, 0x10));
    notes.number("function_code", link.control & 0x0f);
    notes.end();
    notes.number("src", link.from);
    notes.number("dst", link.to);
    if matches!(function, RESPONSE | UNSOLICITED) {
        let Some([first, second]) = reader.array() else { return tx.event("dnp3.len_too_small", dir) };
        let indications = u16::from_be_bytes([first, second]);
        tx.integer_is(Field::Dnp3Indications, dir, u64::from(indications));
        tx.notes.object("iin");
        tx.notes.list("indicators");
        for (name, mask) in INDICATIONS {
            if indications & mask != 0 {
                tx.notes.text("", name);
            }
        }
        tx.notes.end();
        tx.notes.end();
    }
    let notes = &mut tx.notes;
    notes.object("application");
    notes.object("control");
    notes.truth("fir", bit(control, 0x80));
    notes.truth("fin", bit(control, 0x40));
    notes.truth("con", bit(control, 0x20));
    notes.truth("uns", bit(control, 0x10));
    notes.number("sequence", control & 0x0f);
    notes.end();
    notes.number("function_code", function);
    let some = !reader.rest().is_empty();
    if some {
        notes.list("objects");
    }
    // Reading, freezing and the like name points only.
    let with_data = !matches!(function, 1 | 7..=12 | 20..=22);
    let complete = objects::read(reader, with_data, dir, tx);
    if some {
        tx.notes.end();
    }
    tx.notes.truth("complete", complete);
    tx.notes.end();
}

const INDICATIONS: [(&str, u16); 16] = [
    ("device_restart", 0x8000),
    ("device_trouble", 0x4000),
    ("local_control", 0x2000),
    ("need_time", 0x1000),
    ("class_3_events", 0x0800),
    ("class_2_events", 0x0400),
    ("class_1_events", 0x0200),
    ("all_stations", 0x0100),
    ("reserved_1", 0x0080),
    ("reserved_2", 0x0040),
    ("config_corrupt", 0x0020),
    ("already_executing", 0x0010),
    ("event_buffer_overflow", 0x0008),
    ("parameter_error", 0x0004),
    ("object_unknown", 0x0002),
    ("no_func_code_support", 0x0001),
];

impl Parser for Dnp3 {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let len = usize::from(head[2]);
            if head[..2] != [0x05, 0x64] {
                return Step { consumed: at, next: Next::Finished(Finished::Malformed("start of a frame")) };
            }
            let Some(data) = len.checked_sub(COUNTED_BYTES) else {
                io.event(None, "dnp3.len_too_small");
                return Step { consumed: at, next: Next::Finished(Finished::Malformed("length of a frame")) };
            };
            if !has_sum(head) {
                io.event(None, "dnp3.bad_link_crc");
                return Step { consumed: at, next: Next::Finished(Finished::Malformed("checksum of a head")) };
            }
            let all = HEAD_BYTES + data + 2 * data.div_ceil(BLOCK_BYTES);
            let Some(frame) = bytes.get(at..at + all) else { break };
            at += all;
            if data > 0
                && let Some(next) = self.frame(frame, io)
            {
                return Step { consumed: at, next };
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Finished(Finished::Gap)
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
