//! What documents carry: streams of OLE files, of PDFs, and objects in RTF.

use std::io::{Cursor, Read};

use super::{Entry, Next, Visitor, text, u16_le, u32_le};
use crate::budget::Gap;

/// Streams of one OLE file.
const STREAMS_MAX: usize = 10_000;
/// Records of a presentation that are looked at.
const RECORDS_MAX: usize = 100_000;
/// A presentation's embedded object, as it is or deflated ([MS-PPT] 2.10.34).
const EX_OLE_OBJECT: u16 = 0x1011;
/// Objects of one RTF; each may reach to the end of the file.
const OBJECTS_MAX: usize = 256;
/// Bytes before `stream` in which its dictionary is looked for.
const DICTIONARY_BYTES: usize = 2048;

pub(super) fn ole(bytes: &[u8], visitor: &mut dyn Visitor) {
    let Ok(mut file) = cfb::CompoundFile::open(Cursor::new(bytes)) else {
        return visitor.gap(Gap::Malformed("an OLE file that cannot be read"));
    };
    let paths: Vec<_> = file.walk().filter(|entry| entry.is_stream()).take(STREAMS_MAX).map(|entry| entry.path().to_owned()).collect();
    for path in paths {
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        let Ok(mut stream) = file.open_stream(&path) else {
            visitor.gap(Gap::Malformed("a stream of an OLE file"));
            continue;
        };
        let size = stream.len();
        let facts = Entry { packed: Some(size), real: Some(size), ..Entry::named(&name) };
        // Two kinds of streams hold others; they are no larger than the file, which is in memory.
        let holds = name.ends_with("Ole10Native") || name.ends_with("PowerPoint Document");
        if !holds {
            if visitor.entry(&facts, &mut stream) == Next::Stop {
                return;
            }
            continue;
        }
        let mut content = Vec::new();
        if stream.take(bytes.len() as u64).read_to_end(&mut content).is_err() {
            visitor.gap(Gap::Malformed("a stream of an OLE file"));
        }
        let next = if name.ends_with("Ole10Native") { native(&content, visitor) } else { presentation(&content, visitor) };
        if next == Next::Stop {
            return;
        }
    }
}

/// A packaged file: length, label, its name and path, then length and bytes. Where that is not so, the stream as it is.
fn native(content: &[u8], visitor: &mut dyn Visitor) -> Next {
    let parsed = || -> Option<(&[u8], &[u8])> {
        let mut at = 6;
        let mut names = [&b""[..]; 3];
        for (number, name) in names.iter_mut().enumerate() {
            // Between the second and the third stand flags and the length of the third.
            if number == 2 {
                at += 8;
            }
            let rest = content.get(at..)?;
            let end = memchr::memchr(0, rest)?;
            *name = &rest[..end];
            at += end + 1;
        }
        let len = u32_le(content, at)? as usize;
        let data = content.get(at + 4..)?;
        Some((names[0], data.get(..len)?))
    };
    let (name, data) = parsed().unwrap_or((b"Ole10Native", content.get(4..).unwrap_or_default()));
    visitor.entry(&Entry { packed: Some(data.len() as u64), ..Entry::named(name) }, &mut &*data)
}

/// Records of eight bytes and their data ([MS-PPT] 2.3.1); containers hold records.
fn presentation(content: &[u8], visitor: &mut dyn Visitor) -> Next {
    let mut at = 0;
    for _ in 0..RECORDS_MAX {
        let (Some(version), Some(kind), Some(len)) = (u16_le(content, at), u16_le(content, at + 2), u32_le(content, at + 4)) else { break };
        let data = content.get(at + 8..).unwrap_or_default();
        let data = &data[..data.len().min(len as usize)];
        if kind == EX_OLE_OBJECT {
            let entry = Entry { packed: Some(data.len() as u64), ..Entry::named(format!("object@{at}")) };
            let next = if version >> 4 == 1 {
                visitor.entry(&entry, &mut flate2::read::ZlibDecoder::new(data.get(4..).unwrap_or_default()))
            } else {
                visitor.entry(&entry, &mut &*data)
            };
            if next == Next::Stop {
                return next;
            }
        }
        at += if version & 0xf == 0xf { 8 } else { 8 + len as usize };
    }
    Next::Continue
}

/// Each `stream` … `endstream` (ISO 32000-1, 7.3.8) with the filters of its dictionary. Where objects lie is not asked of the document: a
/// reader repairs what contradicts itself, and so does this.
pub(super) fn pdf(bytes: &[u8], visitor: &mut dyn Visitor) {
    if memchr::memmem::find(bytes, b"/Encrypt").is_some() {
        visitor.gap(Gap::Encrypted);
    }
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&bytes[from..], b"stream").map(|at| from + at) {
        from = at + 6;
        if bytes[..at].ends_with(b"end") {
            continue;
        }
        let start = match bytes.get(from..) {
            Some([b'\r', b'\n', ..]) => from + 2,
            Some([b'\n' | b'\r', ..]) => from + 1,
            _ => continue,
        };
        let end = memchr::memmem::find(&bytes[start..], b"endstream").map_or(bytes.len(), |len| start + len);
        from = end;
        // The end of line before `endstream` is none of the data.
        let end = match &bytes[start..end] {
            [.., b'\r', b'\n'] => end - 2,
            [.., b'\r' | b'\n'] => end - 1,
            _ => end,
        };
        let head = &bytes[at.saturating_sub(DICTIONARY_BYTES)..at];
        let head = &head[memchr::memmem::rfind(head, b" obj").unwrap_or(0)..];
        let entry = Entry { packed: Some((end - start) as u64), ..Entry::named(format!("stream@{start}")) };
        if visitor.entry(&entry, &mut *filtered(head, &bytes[start..end])) == Next::Stop {
            return;
        }
    }
}

/// Names of filters in the order in which they are undone; both the long and the short ones (7.4.1). Others leave the bytes as they are.
fn filtered<'a>(dictionary: &[u8], data: &'a [u8]) -> Box<dyn Read + 'a> {
    let mut reader: Box<dyn Read + 'a> = Box::new(data);
    let Some(at) = memchr::memmem::find(dictionary, b"/Filter") else { return reader };
    let list = &dictionary[at + 7..];
    let list = match list.trim_ascii_start() {
        [b'[', rest @ ..] => &rest[..memchr::memchr(b']', rest).unwrap_or(rest.len())],
        [b'/', rest @ ..] => &rest[..rest.iter().position(|byte| b"/> \r\n".contains(byte)).unwrap_or(rest.len())],
        _ => return reader,
    };
    for name in list.split(|byte| b"/ \r\n\t".contains(byte)).filter(|name| !name.is_empty()).take(4) {
        reader = match name {
            b"FlateDecode" | b"Fl" => Box::new(flate2::read::ZlibDecoder::new(reader)),
            b"ASCIIHexDecode" | b"AHx" => Box::new(text::Hex::new(reader)),
            b"ASCII85Decode" | b"A85" => Box::new(text::Ascii85::new(reader)),
            _ => return reader,
        };
    }
    reader
}

/// Objects in hexadecimal digits behind `\objdata`, with the header of an OLE 1.0 object where it has one ([MS-OLEDS] 2.2.5).
pub(super) fn rtf(bytes: &[u8], visitor: &mut dyn Visitor) {
    for at in memchr::memmem::find_iter(bytes, b"\\objdata").take(OBJECTS_MAX) {
        let rest = &bytes[at + 8..];
        let rest = &rest[..memchr::memchr(b'}', rest).unwrap_or(rest.len())];
        let mut data = Vec::new();
        // No larger than the file, which is in memory.
        if text::Hex::new(rest).read_to_end(&mut data).is_err() {
            continue;
        }
        let packaged = packaged(&data).unwrap_or(&data);
        let next = if memchr::memmem::find(&data[..data.len().min(64)], b"Package\0").is_some() {
            // A packaged file has the same form as in OLE, without the length before it.
            let mut native_form = (packaged.len() as u32).to_le_bytes().to_vec();
            native_form.extend_from_slice(packaged);
            native(&native_form, visitor)
        } else {
            visitor.entry(&Entry { packed: Some(rest.len() as u64), ..Entry::named(format!("object@{at}")) }, &mut &*packaged)
        };
        if next == Next::Stop {
            return;
        }
    }
}

/// Version, format, three texts with their lengths, then length and bytes.
fn packaged(data: &[u8]) -> Option<&[u8]> {
    let mut at = 8;
    for _ in 0..3 {
        at += 4 + u32_le(data, at)? as usize;
    }
    let len = u32_le(data, at)? as usize;
    data.get(at + 4..)?.get(..len)
}
