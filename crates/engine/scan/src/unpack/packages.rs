//! Packages: `ar` with Debian's in it, and RPM.

use super::{Entry, Next, Visitor, u32_be};
use crate::budget::Gap;

/// `!<arch>`, then headers of 60 bytes with data at even places.
pub(super) fn ar(bytes: &[u8], visitor: &mut dyn Visitor) {
    let mut at = 8;
    // Names of GNU's form that do not fit stand in an entry of their own.
    let mut long: &[u8] = b"";
    while at + 60 <= bytes.len() {
        let header = &bytes[at..at + 60];
        let size = std::str::from_utf8(&header[48..58]).ok().and_then(|text| text.trim_end().parse::<usize>().ok());
        let (Some(size), b"`\n") = (size, &header[58..60]) else { return visitor.gap(Gap::Malformed("an ar whose header is damaged")) };
        let start = at + 60;
        let end = start.saturating_add(size);
        let Some(mut data) = bytes.get(start..end.min(bytes.len())) else { return };
        let cut = end > bytes.len();
        let mut name = header[..16].trim_ascii_end();
        if name == b"//" {
            long = data;
        } else {
            if let Some(offset) = name.strip_prefix(b"/").and_then(number) {
                let rest = long.get(offset..).unwrap_or_default();
                name = &rest[..memchr::memchr2(b'/', b'\n', rest).unwrap_or(rest.len())];
            } else if let Some(len) = name.strip_prefix(b"#1/").and_then(number) {
                // BSD's form: the name stands before the data.
                let (before, rest) = data.split_at(len.min(data.len()));
                (name, data) = (before, rest);
            }
            let name = name.strip_suffix(b"/").unwrap_or(name);
            let entry = Entry { packed: Some(data.len() as u64), real: Some(data.len() as u64), ..Entry::named(name) };
            if visitor.entry(&entry, &mut &*data) == Next::Stop {
                return;
            }
        }
        if cut {
            return visitor.gap(Gap::Malformed("an ar that is cut"));
        }
        at = end + (size & 1);
    }
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.trim_end().parse().ok()
}

/// Lead of 96 bytes, signature header, header, and a packed cpio.
pub(super) fn rpm(bytes: &[u8], visitor: &mut dyn Visitor) {
    let section = |at: usize| -> Option<usize> {
        (bytes.get(at..at + 3)? == [0x8e, 0xad, 0xe8]).then_some(())?;
        let (entries, size) = (u32_be(bytes, at + 8)? as usize, u32_be(bytes, at + 12)? as usize);
        Some(at + 16 + entries.checked_mul(16)?.checked_add(size)?)
    };
    let payload = section(96).map(|end| end.next_multiple_of(8)).and_then(section).and_then(|at| bytes.get(at..));
    match payload {
        Some(payload) => _ = visitor.entry(&Entry { packed: Some(payload.len() as u64), ..Entry::named("payload") }, &mut &*payload),
        None => visitor.gap(Gap::Malformed("an rpm whose headers are damaged")),
    }
}
