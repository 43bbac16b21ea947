//! ZIP (PKWARE APPNOTE 6.3.10), by the central directory, and then whatever local entries it does not name.
//!
//! Programs differ in which of the two they believe; so both are read. Entries that share packed bytes (the overlapping bomb) are each read
//! within the budget, which they use up together.

use std::collections::BTreeSet;
use std::io::Read;

use super::{DICTIONARY_KIB_MAX, Entry, Next, Visitor, u16_le, u32_le, u64_le};
use crate::budget::Gap;

const END: &[u8] = b"PK\x05\x06";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// The end record with the longest comment.
const END_BYTES_MAX: usize = 22 + 65_535;
/// Entries of one central directory; the budget's own limit is met earlier.
const CENTRAL_MAX: usize = 1 << 20;

/// An archive behind something else: its end stands near the end, and its directory where the end says.
pub(super) fn is_behind(bytes: &[u8]) -> bool {
    end_of(bytes).and_then(|end| directory(bytes, end)).is_some_and(|(at, _)| starts(bytes, at, CENTRAL))
}

fn starts(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn end_of(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(END_BYTES_MAX);
    memchr::memmem::rfind(&bytes[from..], END).map(|at| from + at).filter(|at| at + 22 <= bytes.len())
}

/// One entry as either record has it.
struct Record {
    entry: Entry,
    method: u16,
    /// Of the local header.
    at: usize,
}

pub(super) fn unpack(bytes: &[u8], visitor: &mut dyn Visitor) {
    let mut seen = BTreeSet::new();
    match end_of(bytes) {
        Some(end) => {
            if central(bytes, end, &mut seen, visitor) == Next::Stop {
                return;
            }
        }
        None => visitor.gap(Gap::Malformed("a zip without its end")),
    }
    // Local entries that the directory does not name, in the order in which they lie; not within the bytes of others, nor of what stands
    // before the archive.
    let mut from = if bytes.starts_with(b"PK") { 0 } else { seen.first().copied().unwrap_or(0).min(bytes.len()) };
    while let Some(at) = memchr::memmem::find(&bytes[from..], LOCAL).map(|at| from + at) {
        let Some(record) = local(bytes, at) else {
            from = at + LOCAL.len();
            continue;
        };
        let data = data_of(bytes, at);
        let len = record.entry.packed.unwrap_or(0) as usize;
        from = data.map_or(at + LOCAL.len(), |data| data.saturating_add(len).clamp(at + LOCAL.len(), bytes.len()));
        if !seen.contains(&at) && visit(bytes, &record, visitor) == Next::Stop {
            return;
        }
    }
}

/// Where the central directory begins, and by how many bytes before the archive all is moved.
fn directory(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let size = u32_le(bytes, end + 12)? as usize;
    let start = u32_le(bytes, end + 16)? as usize;
    if size == u32::MAX as usize || start == u32::MAX as usize {
        return zip64(bytes, end);
    }
    // With something before the archive it ends where the end record begins.
    let by_size = end.saturating_sub(size);
    let at = if starts(bytes, by_size, CENTRAL) { by_size } else { start.min(bytes.len()) };
    Some((at, at.saturating_sub(start)))
}

fn central(bytes: &[u8], end: usize, seen: &mut BTreeSet<usize>, visitor: &mut dyn Visitor) -> Next {
    let Some((mut at, moved)) = directory(bytes, end) else {
        visitor.gap(Gap::Malformed("a zip64 without its end"));
        return Next::Continue;
    };
    for _ in 0..CENTRAL_MAX {
        let Some(header) = bytes.get(at..).filter(|rest| rest.starts_with(CENTRAL) && rest.len() >= 46) else { break };
        let number = |offset| usize::from(u16_le(header, offset).unwrap_or(0));
        let (name_len, extra_len, comment_len) = (number(28), number(30), number(32));
        let name = header.get(46..46 + name_len).unwrap_or_default();
        let extra = header.get(46 + name_len..46 + name_len + extra_len).unwrap_or_default();
        let mut packed = u64::from(u32_le(header, 20).unwrap_or(0));
        let mut real = u64::from(u32_le(header, 24).unwrap_or(0));
        let mut offset = u64::from(u32_le(header, 42).unwrap_or(0));
        wide(extra, &mut [&mut real, &mut packed, &mut offset]);
        let record = Record {
            entry: Entry {
                packed: Some(packed),
                real: Some(real),
                encrypted: number(8) & 1 != 0,
                checksum: u32_le(header, 16),
                ..Entry::named(name)
            },
            method: number(10) as u16,
            at: usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(moved),
        };
        seen.insert(record.at);
        at += 46 + name_len + extra_len + comment_len;
        if name.ends_with(b"/") && real == 0 {
            continue;
        }
        if visit(bytes, &record, visitor) == Next::Stop {
            return Next::Stop;
        }
    }
    Next::Continue
}

/// Where the central directory begins by the records of zip64, and by how much all is moved.
fn zip64(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(b"PK\x06\x07"))?;
    let record = usize::try_from(u64_le(bytes, locator + 8)?).ok()?;
    let found = if bytes.get(record..)?.starts_with(b"PK\x06\x06") { record } else { locator.checked_sub(56)? };
    let header = bytes.get(found..).filter(|rest| rest.starts_with(b"PK\x06\x06"))?;
    let moved = found.saturating_sub(record);
    Some((usize::try_from(u64_le(header, 48)?).ok()?.saturating_add(moved), moved))
}

/// Puts the numbers of the zip64 field where the short ones are all ones.
fn wide(extra: &[u8], numbers: &mut [&mut u64]) {
    let mut at = 0;
    while let (Some(id), Some(len)) = (u16_le(extra, at), u16_le(extra, at + 2)) {
        if id == 1 {
            let mut from = at + 4;
            for number in numbers.iter_mut().filter(|number| ***number == u64::from(u32::MAX)) {
                let Some(value) = u64_le(extra, from) else { return };
                **number = value;
                from += 8;
            }
            return;
        }
        at += 4 + usize::from(len);
    }
}

fn local(bytes: &[u8], at: usize) -> Option<Record> {
    let header = bytes.get(at..).filter(|rest| rest.len() >= 30)?;
    let name_len = usize::from(u16_le(header, 26)?);
    let name = header.get(30..30 + name_len)?;
    let (flags, packed, real) = (u16_le(header, 6)?, u64::from(u32_le(header, 18)?), u64::from(u32_le(header, 22)?));
    // Sizes that stand behind the data are not known here: the decoder finds the end.
    let later = flags & 8 != 0;
    Some(Record {
        entry: Entry {
            packed: (!later).then_some(packed),
            real: (!later).then_some(real),
            encrypted: flags & 1 != 0,
            checksum: u32_le(header, 14),
            ..Entry::named(name)
        },
        method: u16_le(header, 8)?,
        at,
    })
}

/// Where an entry's packed bytes begin, by its local header.
fn data_of(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..).filter(|rest| rest.starts_with(LOCAL))?;
    Some(at + 30 + usize::from(u16_le(header, 26)?) + usize::from(u16_le(header, 28)?)).filter(|at| *at <= bytes.len())
}

fn visit(bytes: &[u8], record: &Record, visitor: &mut dyn Visitor) -> Next {
    let entry = &record.entry;
    let Some(data) = data_of(bytes, record.at) else { return visitor.refused(entry, Gap::Malformed("an entry is not where it should be")) };
    if entry.encrypted {
        return visitor.refused(entry, Gap::Encrypted);
    }
    let packed = &bytes[data..];
    let packed = &packed[..entry.packed.map_or(packed.len(), |len| len.min(packed.len() as u64) as usize)];
    let unpacked = match record.method {
        0 => Ok(Box::new(packed) as Box<dyn Read>),
        8 => Ok(Box::new(flate2::read::DeflateDecoder::new(packed)) as Box<dyn Read>),
        9 => Ok(Box::new(deflate64::Deflate64Decoder::new(packed)) as Box<dyn Read>),
        12 => Ok(Box::new(bzip2::read::BzDecoder::new(packed)) as Box<dyn Read>),
        14 => lzma(packed, entry.real),
        93 => super::stream::zstd(packed),
        95 => Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, DICTIONARY_KIB_MAX)) as Box<dyn Read>),
        6 => Err(Gap::Unsupported("imploded data")),
        1 => Err(Gap::Unsupported("shrunk data")),
        99 => Err(Gap::Encrypted),
        _ => Err(Gap::Unsupported("an unknown method of a zip")),
    };
    match unpacked {
        Ok(mut reader) => visitor.entry(entry, &mut *reader),
        Err(gap) => visitor.refused(entry, gap),
    }
}

/// Two bytes of version, the length of the properties (5), the properties, the stream (APPNOTE 5.8.8).
fn lzma(packed: &[u8], real: Option<u64>) -> Result<Box<dyn Read + '_>, Gap> {
    let damaged = Gap::Malformed("the properties of its LZMA stream");
    let (Some(5), Some(&properties), Some(dictionary)) = (u16_le(packed, 2), packed.get(4), u32_le(packed, 5)) else { return Err(damaged) };
    if dictionary / 1024 > DICTIONARY_KIB_MAX {
        return Err(Gap::EntryBytes);
    }
    let reader = lzma_rust2::LzmaReader::new_with_props(&packed[9..], real.unwrap_or(u64::MAX), properties, dictionary, None);
    reader.map(|reader| Box::new(reader) as Box<dyn Read>).map_err(|_| damaged)
}
