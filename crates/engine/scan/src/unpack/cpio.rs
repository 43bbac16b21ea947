//! CPIO in its four forms, as a stream.

use std::io::Read;

use super::{Entry, NAME_BYTES_MAX, Next, Visitor};
use crate::budget::Gap;
use crate::kind::Kind;

const CUT: Gap = Gap::Malformed("a cpio that is cut or damaged");

/// Lengths as a header has them.
struct Header {
    mode: u32,
    name: u64,
    data: u64,
    /// Names with their header, and data, end at multiples of this.
    align: u64,
    header: u64,
}

pub(super) fn unpack(kind: Kind, stream: &mut dyn Read, visitor: &mut dyn Visitor) {
    loop {
        let Some(header) = header(kind, stream) else { return visitor.gap(CUT) };
        if header.name == 0 || header.name > NAME_BYTES_MAX as u64 {
            return visitor.gap(CUT);
        }
        let mut name = vec![0; header.name as usize];
        if stream.read_exact(&mut name).is_err() || skip(stream, padding(header.header + header.name, header.align)).is_none() {
            return visitor.gap(CUT);
        }
        name.pop_if(|byte| *byte == 0);
        if name == b"TRAILER!!!" {
            return;
        }
        let mut content = stream.take(header.data);
        // Regular files alone have bytes of their own that somebody opens.
        if header.mode & 0o170_000 == 0o100_000 {
            let entry = Entry { packed: Some(header.data), real: Some(header.data), ..Entry::named(&name) };
            if visitor.entry(&entry, &mut content) == Next::Stop {
                return;
            }
        }
        let left = content.limit();
        if skip(content.into_inner(), left + padding(header.data, header.align)).is_none() {
            return visitor.gap(CUT);
        }
    }
}

fn header(kind: Kind, stream: &mut dyn Read) -> Option<Header> {
    let mut bytes = [0; 110];
    match kind {
        Kind::CpioNewc => {
            stream.read_exact(&mut bytes).ok()?;
            let number = |field: usize| digits(&bytes[6 + field * 8..14 + field * 8], 16);
            (bytes.starts_with(b"07070")).then_some(())?;
            Some(Header { mode: number(1)? as u32, data: number(6)?, name: number(11)?, align: 4, header: 110 })
        }
        Kind::CpioOdc => {
            let bytes = &mut bytes[..76];
            stream.read_exact(bytes).ok()?;
            bytes.starts_with(b"070707").then_some(())?;
            Some(Header {
                mode: digits(&bytes[18..24], 8)? as u32,
                name: digits(&bytes[59..65], 8)?,
                data: digits(&bytes[65..76], 8)?,
                align: 1,
                header: 76,
            })
        }
        Kind::CpioBinary(big) => {
            let bytes = &mut bytes[..26];
            stream.read_exact(bytes).ok()?;
            let half = |at: usize| {
                let pair = [bytes[at], bytes[at + 1]];
                if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
            };
            (half(0) == 0o070_707).then_some(())?;
            // Long numbers have their greater half first, whatever the order within the halves.
            let data = u64::from(half(22)) << 16 | u64::from(half(24));
            Some(Header { mode: u32::from(half(6)), name: u64::from(half(20)), data, align: 2, header: 26 })
        }
        _ => None,
    }
}

fn digits(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

const fn padding(len: u64, align: u64) -> u64 {
    (align - len % align) % align
}

fn skip(stream: &mut dyn Read, len: u64) -> Option<()> {
    let skipped = std::io::copy(&mut stream.take(len), &mut std::io::sink()).ok()?;
    (skipped == len).then_some(())
}
