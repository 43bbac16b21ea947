//! Bytes in letters: decoders that pass over what is none of theirs, and where texts carry such letters.

use std::io::Read;

use super::{Entry, Next, Visitor, u32_be};
use crate::budget::Gap;

/// Runs that are looked at in one text.
const RUNS_MAX: usize = 256;
/// BinHex 4.0 says so (RFC 1741, 6), near the beginning.
const BINHEX: &[u8] = b"(This file must be converted with BinHex 4.0)";
const BINHEX_BYTES: usize = 4096;
/// Bytes without runs; more is taken for a bomb.
const BINHEX_PLAIN_MAX: usize = 64 << 20;
/// Letters of a run of Base64 that is worth decoding.
const RUN_BYTES_MIN: usize = 256;

/// Two hexadecimal digits a byte.
pub(super) struct Hex<R> {
    reader: R,
    half: Option<u8>,
}

impl<R: Read> Hex<R> {
    pub const fn new(reader: R) -> Self {
        Self { reader, half: None }
    }
}

impl<R: Read> Read for Hex<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut len = 0;
        let mut letters = [0; 1024];
        while len == 0 && !out.is_empty() {
            let wanted = letters.len().min(out.len() * 2);
            let read = self.reader.read(&mut letters[..wanted])?;
            if read == 0 {
                break;
            }
            for digit in letters[..read].iter().filter_map(|letter| char::from(*letter).to_digit(16)) {
                match self.half.take() {
                    None => self.half = Some(digit as u8),
                    Some(high) => {
                        out[len] = high << 4 | digit as u8;
                        len += 1;
                    }
                }
            }
        }
        Ok(len)
    }
}

/// Four bytes for five letters (ISO 32000-1, 7.4.3).
pub(super) struct Ascii85<R> {
    reader: R,
    group: Vec<u8>,
    ready: Vec<u8>,
    ended: bool,
}

impl<R: Read> Ascii85<R> {
    pub const fn new(reader: R) -> Self {
        Self { reader, group: Vec::new(), ready: Vec::new(), ended: false }
    }

    fn letter(&mut self, letter: u8) {
        match letter {
            b'z' if self.group.is_empty() => self.ready.extend([0; 4]),
            b'!'..=b'u' => {
                self.group.push(letter - b'!');
                if self.group.len() == 5 {
                    self.close(4);
                }
            }
            b'~' => self.ended = true,
            _ => {}
        }
    }

    fn close(&mut self, len: usize) {
        self.group.resize(5, 84);
        let value = self.group.iter().fold(0_u32, |value, digit| value.wrapping_mul(85).wrapping_add(u32::from(*digit)));
        self.ready.extend_from_slice(&value.to_be_bytes()[..len]);
        self.group.clear();
    }
}

impl<R: Read> Read for Ascii85<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut letters = [0; 1024];
        while self.ready.is_empty() && !self.ended {
            let read = self.reader.read(&mut letters)?;
            self.ended |= read == 0;
            for letter in &letters[..read] {
                if self.ended {
                    break;
                }
                self.letter(*letter);
            }
            if self.ended && self.group.len() > 1 {
                self.close(self.group.len() - 1);
            }
        }
        let len = out.len().min(self.ready.len());
        out[..len].copy_from_slice(&self.ready[..len]);
        self.ready.drain(..len);
        Ok(len)
    }
}

/// RFC 4648, either alphabet; ends at the first `=`.
pub(super) fn base64(letters: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3);
    let (mut group, mut bits) = (0_u32, 0);
    for letter in letters {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => continue,
        };
        group = group << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    bytes
}

/// `data:` addresses, and files between `begin` and `end`, as `uuencode` makes them.
pub(super) fn text(bytes: &[u8], visitor: &mut dyn Visitor) {
    for (count, at) in memchr::memmem::find_iter(bytes, b";base64,").enumerate() {
        if count >= RUNS_MAX {
            break;
        }
        if run(&bytes[at + 8..], at, visitor) == Next::Stop {
            return;
        }
    }
    if let Some(at) = memchr::memmem::find(&bytes[..bytes.len().min(BINHEX_BYTES)], BINHEX) {
        let data = binhex(&bytes[at + BINHEX.len()..]);
        if data.is_none() {
            visitor.gap(Gap::Ratio);
        }
        if let Some((name, data)) = data.as_deref().and_then(data_fork)
            && visitor.entry(&Entry { packed: Some(bytes.len() as u64), ..Entry::named(name) }, &mut &*data) == Next::Stop
        {
            return;
        }
    }
    for (count, at) in memchr::memmem::find_iter(bytes, b"begin ").enumerate() {
        if count >= RUNS_MAX {
            return;
        }
        let at_line = at == 0 || bytes[at - 1] == b'\n';
        let Some((name, rest)) = at_line.then(|| uu_head(&bytes[at..])).flatten() else { continue };
        let data = uu(rest);
        if visitor.entry(&Entry { packed: Some(data.len() as u64), ..Entry::named(name) }, &mut data.as_slice()) == Next::Stop {
            return;
        }
    }
}

fn run(letters: &[u8], at: usize, visitor: &mut dyn Visitor) -> Next {
    let end = letters.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+/=-_\r\n \t%".contains(byte))).unwrap_or(letters.len());
    if end < RUN_BYTES_MIN {
        return Next::Continue;
    }
    let data = base64(&letters[..end]);
    visitor.entry(&Entry { packed: Some(end as u64), ..Entry::named(format!("base64@{at}")) }, &mut data.as_slice())
}

/// `begin 644 name`: the name, and what follows the line.
fn uu_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = bytes[6..end].trim_ascii_end();
    let (mode, name) = line.split_at(memchr::memchr(b' ', line)?);
    (matches!(mode.len(), 3 | 4) && mode.iter().all(|digit| (b'0'..=b'7').contains(digit)))
        .then(|| (name.trim_ascii_start(), &bytes[end + 1..]))
}

/// Lines with their length before them, up to `end`.
fn uu(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_end();
        let Some((len, letters)) = line.split_first() else { break };
        if line == b"end" || !(b' '..=b'`').contains(len) {
            break;
        }
        let len = usize::from((len - b' ') & 63);
        let start = bytes.len();
        for group in letters.chunks(4) {
            let value = |at: usize| u32::from(group.get(at).copied().unwrap_or(b' ').wrapping_sub(b' ') & 63);
            let joined = value(0) << 18 | value(1) << 12 | value(2) << 6 | value(3);
            bytes.extend_from_slice(&joined.to_be_bytes()[1..]);
        }
        bytes.truncate((start + len).min(bytes.len()));
    }
    bytes
}

/// Six bits a letter between colons, then runs: `90 n` repeats the byte before (RFC 1741, 5).
fn binhex(text: &[u8]) -> Option<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
    const RUN: u8 = 0x90;
    let start = memchr::memchr(b':', text).map_or(text.len(), |at| at + 1);
    let mut packed = Vec::new();
    let (mut group, mut bits) = (0_u32, 0);
    for letter in text[start..].iter().take_while(|letter| **letter != b':') {
        let Some(value) = LETTERS.iter().position(|known| known == letter) else { continue };
        group = (group << 6 | value as u32) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            packed.push((group >> bits) as u8);
        }
    }
    let mut bytes = Vec::new();
    let mut rest = packed.as_slice();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (RUN, [0, ..]) => {
                bytes.push(RUN);
                rest = &after[1..];
            }
            (RUN, [count, ..]) => {
                let last = bytes.last().copied().unwrap_or(0);
                bytes.extend(std::iter::repeat_n(last, usize::from(*count) - 1));
                // Runs make up to 127 bytes of one: a bomb is not held in memory.
                if bytes.len() > BINHEX_PLAIN_MAX {
                    return None;
                }
                rest = &after[1..];
            }
            (byte, _) => bytes.push(byte),
        }
    }
    Some(bytes)
}

/// Name and data of a BinHex file: length of the name, name, 0, type, creator, flags, two lengths, a checksum, data.
fn data_fork(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*bytes.first()?);
    let name = bytes.get(1..=len)?;
    let at = len + 2 + 4 + 4 + 2;
    let data = u32_be(bytes, at)? as usize;
    Some((name, bytes.get(at + 10..)?.get(..data)?))
}
