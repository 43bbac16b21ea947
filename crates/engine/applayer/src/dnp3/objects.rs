//! Objects of DNP3 (IEEE 1815, clause 11 and annex A): groups and variations by the fields of their points.

use Field::{Bits, F32, F64, I16, I32, Time, U8, U16, U32};

use crate::names::{Dir, Field as Number};
use crate::reader::Reader;
use crate::transaction::Transaction;

/// Objects of one message (the reference engine's limits).
const OBJECTS_MAX: usize = 2048;
/// Points of one message.
const POINTS_MAX: u64 = 16_384;
/// Points of one message that are written down.
const NOTED_MAX: u64 = 512;

#[derive(Debug, Clone, Copy)]
enum Field {
    /// Names and widths, from the lowest bit on.
    Bits(&'static [(&'static str, u32)]),
    U8(&'static str),
    U16(&'static str),
    U32(&'static str),
    I16(&'static str),
    I32(&'static str),
    F32(&'static str),
    F64(&'static str),
    /// Six bytes.
    Time(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    Fields(&'static [Field]),
    /// Points of so many bits, without gaps.
    Packed(u32),
    /// A command, a status or a transport of files, which says its own length.
    File(u8),
    /// Its points have no data.
    Empty,
}

const fn bits(names: &'static [(&'static str, u32)]) -> Field {
    Bits(names)
}

const BINARY: Field = bits(&[
    ("online", 1),
    ("restart", 1),
    ("comm_lost", 1),
    ("remote_forced", 1),
    ("local_forced", 1),
    ("chatter_filter", 1),
    ("reserved", 1),
    ("state", 1),
]);
const DOUBLE: Field = bits(&[
    ("online", 1),
    ("restart", 1),
    ("comm_lost", 1),
    ("remote_forced", 1),
    ("local_forced", 1),
    ("chatter_filter", 1),
    ("state", 2),
]);
const OUTPUT: Field = bits(&[
    ("online", 1),
    ("restart", 1),
    ("comm_lost", 1),
    ("remote_forced", 1),
    ("local_forced", 1),
    ("reserved0", 1),
    ("reserved1", 1),
    ("state", 1),
]);
const COUNTER: Field = bits(&[
    ("online", 1),
    ("restart", 1),
    ("comm_lost", 1),
    ("remote_forced", 1),
    ("local_forced", 1),
    ("rollover", 1),
    ("discontinuity", 1),
    ("reserved0", 1),
]);
const ANALOG: Field = bits(&[
    ("online", 1),
    ("restart", 1),
    ("comm_lost", 1),
    ("remote_forced", 1),
    ("local_forced", 1),
    ("over_range", 1),
    ("reference_err", 1),
    ("reserved0", 1),
]);
const COMMAND: Field = bits(&[("op_type", 4), ("qu", 1), ("cr", 1), ("tcc", 2)]);
const STATUS: Field = bits(&[("status_code", 7), ("reserved", 1)]);
const COMMANDED: Field = bits(&[("status_code", 7), ("commanded_state", 1)]);
const STAMP: Field = Time("timestamp");

const LAYOUTS: &[(u8, u8, &[Field])] = &[
    (1, 2, &[BINARY]),
    (2, 1, &[U8("state")]),
    (2, 2, &[BINARY, STAMP]),
    (2, 3, &[BINARY, U16("timestamp")]),
    (3, 2, &[DOUBLE]),
    (4, 1, &[DOUBLE]),
    (4, 2, &[DOUBLE, STAMP]),
    (4, 3, &[DOUBLE, U16("relative_time_ms")]),
    (10, 2, &[OUTPUT]),
    (11, 1, &[OUTPUT]),
    (11, 2, &[OUTPUT, STAMP]),
    (12, 1, &[COMMAND, U8("count"), U32("ontime"), U32("offtime"), STATUS]),
    (12, 2, &[COMMAND, U8("count"), U32("ontime"), U32("offtime"), STATUS]),
    (13, 1, &[COMMANDED]),
    (13, 2, &[COMMANDED, STAMP]),
    (20, 1, &[COUNTER, U32("count")]),
    (20, 2, &[COUNTER, U16("count")]),
    (20, 3, &[COUNTER, U32("count")]),
    (20, 4, &[COUNTER, U16("count")]),
    (20, 5, &[U32("count")]),
    (20, 6, &[U16("count")]),
    (20, 7, &[U32("count")]),
    (20, 8, &[U16("count")]),
    (21, 1, &[COUNTER, U32("count")]),
    (21, 2, &[COUNTER, U16("count")]),
    (21, 3, &[COUNTER, U32("count")]),
    (21, 4, &[COUNTER, U16("count")]),
    (21, 5, &[COUNTER, U32("count"), STAMP]),
    (21, 6, &[COUNTER, U16("count"), STAMP]),
    (21, 7, &[COUNTER, U32("count"), STAMP]),
    (21, 8, &[COUNTER, U16("count"), STAMP]),
    (21, 9, &[U32("count")]),
    (21, 10, &[U16("count")]),
    (21, 11, &[U32("count")]),
    (21, 12, &[U16("count")]),
    (22, 1, &[COUNTER, U32("count")]),
    (22, 2, &[COUNTER, U16("count")]),
    (22, 3, &[COUNTER, U32("count")]),
    (22, 4, &[COUNTER, U16("count")]),
    (22, 5, &[COUNTER, U32("count"), STAMP]),
    (22, 6, &[COUNTER, U16("count"), STAMP]),
    (22, 7, &[COUNTER, U32("count"), STAMP]),
    (22, 8, &[COUNTER, U16("count"), STAMP]),
    (23, 1, &[COUNTER, U32("count")]),
    (23, 2, &[COUNTER, U16("count")]),
    (23, 5, &[COUNTER, U32("count"), STAMP]),
    (23, 6, &[COUNTER, U16("count"), STAMP]),
    (30, 1, &[ANALOG, I32("value")]),
    (30, 2, &[ANALOG, I16("value")]),
    (30, 3, &[I32("value")]),
    (30, 4, &[I16("value")]),
    (30, 5, &[ANALOG, F32("value")]),
    (30, 6, &[ANALOG, F64("value")]),
    (31, 1, &[ANALOG, I32("value")]),
    (31, 2, &[ANALOG, I16("value")]),
    (31, 3, &[ANALOG, I32("value"), STAMP]),
    (31, 4, &[ANALOG, I16("value"), STAMP]),
    (31, 5, &[I32("value")]),
    (31, 6, &[I16("value")]),
    (31, 7, &[ANALOG, F32("value")]),
    (31, 8, &[ANALOG, F64("value")]),
    (32, 1, &[ANALOG, I32("value")]),
    (32, 2, &[ANALOG, I16("value")]),
    (32, 3, &[ANALOG, I32("value"), STAMP]),
    (32, 4, &[ANALOG, I16("value"), STAMP]),
    (32, 5, &[ANALOG, F32("value")]),
    (32, 6, &[ANALOG, F64("value")]),
    (32, 7, &[ANALOG, F32("value"), STAMP]),
    (32, 8, &[ANALOG, F64("value"), STAMP]),
    (33, 1, &[ANALOG, I32("value")]),
    (33, 2, &[ANALOG, I16("value")]),
    (33, 3, &[ANALOG, I32("value"), STAMP]),
    (33, 4, &[ANALOG, I16("value"), STAMP]),
    (33, 5, &[ANALOG, F32("value")]),
    (33, 6, &[ANALOG, F64("value")]),
    (33, 7, &[ANALOG, F32("value"), STAMP]),
    (33, 8, &[ANALOG, F64("value"), STAMP]),
    (34, 1, &[U16("deadband_value")]),
    (34, 2, &[U32("deadband_value")]),
    (34, 3, &[F32("deadband_value")]),
    (40, 1, &[ANALOG, I32("value")]),
    (40, 2, &[ANALOG, I16("value")]),
    (40, 3, &[ANALOG, F32("value")]),
    (40, 4, &[ANALOG, F64("value")]),
    (41, 1, &[I32("value"), U8("control_status")]),
    (41, 2, &[I16("value"), U8("control_status")]),
    (41, 3, &[F32("value"), U8("control_status")]),
    (41, 4, &[F64("value"), U8("control_status")]),
    (42, 1, &[ANALOG, I32("value")]),
    (42, 2, &[ANALOG, I16("value")]),
    (42, 3, &[ANALOG, I32("value"), STAMP]),
    (42, 4, &[ANALOG, I16("value"), STAMP]),
    (42, 5, &[ANALOG, F32("value")]),
    (42, 6, &[ANALOG, F64("value")]),
    (42, 7, &[ANALOG, F32("value"), STAMP]),
    (42, 8, &[ANALOG, F64("value"), STAMP]),
    (43, 1, &[COMMANDED, I32("commanded_value")]),
    (43, 2, &[COMMANDED, I16("commanded_value")]),
    (43, 3, &[COMMANDED, I32("commanded_value"), STAMP]),
    (43, 4, &[COMMANDED, I16("commanded_value"), STAMP]),
    (43, 5, &[COMMANDED, F32("commanded_value")]),
    (43, 6, &[COMMANDED, F64("commanded_value")]),
    (50, 1, &[STAMP]),
    (50, 2, &[STAMP, U32("interval")]),
    (50, 3, &[STAMP]),
    (50, 4, &[STAMP, U32("interval_count"), U8("interval_units")]),
    (51, 1, &[STAMP]),
    (51, 2, &[STAMP]),
    (52, 1, &[U16("delay_secs")]),
    (52, 2, &[U16("delay_ms")]),
];

fn layout(group: u8, variation: u8) -> Option<Layout> {
    Some(match (group, variation) {
        (1 | 10, 1) | (12, 3) | (80, 1) => Layout::Packed(1),
        (3, 1) => Layout::Packed(2),
        (60, 1..=4) => Layout::Empty,
        (70, 3..=5) => Layout::File(variation),
        _ => Layout::Fields(LAYOUTS.iter().find(|(of, number, _)| (*of, *number) == (group, variation))?.2),
    })
}

/// Whether all objects were read. `with_data`: the message has points, not only their numbers.
pub(super) fn read(reader: &mut Reader<'_>, with_data: bool, dir: Dir, tx: &mut Transaction) -> bool {
    let (mut objects, mut points) = (0, 0);
    let mut complete = true;
    while complete && !reader.rest().is_empty() {
        objects += 1;
        if objects > OBJECTS_MAX {
            tx.event("dnp3.too_many_objects", dir);
            return false;
        }
        complete = object(reader, with_data, dir, &mut points, tx).is_some();
    }
    complete
}

fn object(reader: &mut Reader<'_>, with_data: bool, dir: Dir, points: &mut u64, tx: &mut Transaction) -> Option<()> {
    let (group, variation, qualifier) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let (prefix, range) = (qualifier >> 4 & 7, qualifier & 15);
    let (start, stop, count) = match range {
        0 | 3 => between(u32::from(reader.u8()?), u32::from(reader.u8()?)),
        1 | 4 => between(u32::from(reader.le16()?), u32::from(reader.le16()?)),
        2 | 5 => between(reader.le32()?, reader.le32()?),
        6 => Some((0, 0, 0)),
        7 | 11 => Some((0, 0, u64::from(reader.u8()?))),
        8 => Some((0, 0, u64::from(reader.le16()?))),
        9 => Some((0, 0, u64::from(reader.le32()?))),
        _ => None,
    }?;
    tx.integer_is(Number::Dnp3Object, dir, u64::from(group) << 8 | u64::from(variation));
    tx.notes.object("");
    tx.notes.number("group", group);
    tx.notes.number("variation", variation);
    tx.notes.number("qualifier", qualifier);
    tx.notes.number("prefix_code", prefix);
    tx.notes.number("range_code", range);
    tx.notes.number("start", start);
    tx.notes.number("stop", stop);
    tx.notes.number("count", count);
    let mut read = Some(());
    if with_data && count > 0 {
        *points += count;
        read = match layout(group, variation) {
            _ if *points > POINTS_MAX => {
                tx.event("dnp3.too_many_points", dir);
                None
            }
            None => {
                tx.event("dnp3.unknown_object", dir);
                None
            }
            Some(layout) => {
                tx.notes.list("points");
                let read = read_points(reader, layout, prefix, u64::from(start), count, tx);
                tx.notes.end();
                read
            }
        };
    }
    tx.notes.end();
    read
}

fn between(start: u32, stop: u32) -> Option<(u32, u32, u64)> {
    stop.checked_sub(start).map(|more| (start, stop, u64::from(more) + 1))
}

fn read_points(reader: &mut Reader<'_>, layout: Layout, prefix: u8, start: u64, count: u64, tx: &mut Transaction) -> Option<()> {
    if let Layout::Packed(width) = layout {
        let bytes = reader.take(usize::try_from((count * u64::from(width)).div_ceil(8)).ok()?)?;
        for at in 0..count.min(NOTED_MAX) {
            let bit = at * u64::from(width);
            let state = bytes.get((bit / 8) as usize)? >> (bit % 8) & ((1 << width) - 1);
            tx.notes.object("");
            tx.notes.number("prefix", 0_u8);
            tx.notes.number("index", start + at);
            tx.notes.number("state", state);
            tx.notes.end();
        }
        return Some(());
    }
    for at in 0..count {
        let number = match prefix {
            1 | 4 => u64::from(reader.u8()?),
            2 | 5 => u64::from(reader.le16()?),
            3 | 6 => u64::from(reader.le32()?),
            _ => 0,
        };
        let noted = at < NOTED_MAX && !tx.notes.off;
        tx.notes.off = !noted;
        tx.notes.object("");
        tx.notes.number("prefix", number);
        tx.notes.number("index", if matches!(prefix, 1..=3) { number } else { start + at });
        if prefix >= 4 {
            tx.notes.number("size", number);
        }
        let read = match layout {
            Layout::Fields(fields) => fields.iter().try_for_each(|field| read_field(*field, reader, tx)),
            Layout::File(variation) => reader.take(usize::try_from(number).ok()?).and_then(|bytes| read_file(variation, bytes, tx)),
            Layout::Packed(_) | Layout::Empty => Some(()),
        };
        tx.notes.end();
        tx.notes.off = false;
        read?;
    }
    Some(())
}

fn time(reader: &mut Reader<'_>) -> Option<u64> {
    let (low, high) = (reader.le32()?, reader.le16()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

fn read_field(field: Field, reader: &mut Reader<'_>, tx: &mut Transaction) -> Option<()> {
    let notes = &mut tx.notes;
    match field {
        Bits(names) => {
            let mut byte = u32::from(reader.u8()?);
            for (name, width) in names {
                notes.number(name, byte & ((1 << width) - 1));
                byte >>= width;
            }
        }
        U8(name) => notes.number(name, reader.u8()?),
        U16(name) => notes.number(name, reader.le16()?),
        U32(name) => notes.number(name, reader.le32()?),
        I16(name) => notes.signed(name, i64::from(reader.le16()?.cast_signed())),
        I32(name) => notes.signed(name, i64::from(reader.le32()?.cast_signed())),
        F32(name) => notes.real(name, f64::from(f32::from_bits(reader.le32()?))),
        F64(name) => notes.real(name, f64::from_bits(reader.le64()?)),
        Time(name) => notes.number(name, time(reader)?),
    }
    Some(())
}

/// Group 70.
fn read_file(variation: u8, bytes: &[u8], tx: &mut Transaction) -> Option<()> {
    let (mut reader, notes) = (Reader::new(bytes), &mut tx.notes);
    match variation {
        3 => {
            let (offset, size) = (reader.le16()?, reader.le16()?);
            notes.number("filename_offset", offset);
            notes.number("filename_size", size);
            notes.number("created", time(&mut reader)?);
            notes.number("permissions", reader.le16()?);
            notes.number("authentication_key", reader.le32()?);
            notes.number("file_size", reader.le32()?);
            notes.number("operational_mode", reader.le16()?);
            notes.number("maximum_block_size", reader.le16()?);
            notes.number("request_id", reader.le16()?);
            notes.text("filename", reader.take(usize::from(size))?);
        }
        4 => {
            notes.number("file_handle", reader.le32()?);
            notes.number("file_size", reader.le32()?);
            notes.number("maximum_block_size", reader.le16()?);
            notes.number("request_id", reader.le16()?);
            notes.number("status_code", reader.u8()?);
            notes.text("optional_text", reader.rest());
        }
        _ => {
            notes.number("file_handle", reader.le32()?);
            notes.number("block_number", reader.le32()?);
            notes.text("file_data", reader.rest());
        }
    }
    Some(())
}
