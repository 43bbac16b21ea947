//! Where lines and header blocks end, to servers and to browsers.

use super::fields::is_token;
use super::{METHOD_MAX, METHODS, Side};

/// A line before a status line that is passed over.
const JUNK_LINE_MAX: usize = 64;

/// Whether a request begins here. `None`: more bytes will tell. Without a known method only a whole line tells, by its version.
pub(super) fn begins_a_request(bytes: &[u8]) -> Option<bool> {
    let text = bytes.trim_ascii_start();
    let word = text.iter().take(METHOD_MAX + 1).take_while(|byte| is_token(**byte)).count();
    match text.get(word) {
        _ if text.first().is_some_and(u8::is_ascii_digit) || word > METHOD_MAX => Some(false),
        None => None,
        Some(b' ' | b'\t') if METHODS.contains(&&text[..word]) => Some(true),
        Some(byte) if word == 0 || !byte.is_ascii_whitespace() => Some(false),
        Some(_) => {
            let end = memchr::memchr(b'\n', text)?;
            Some(memchr::memmem::find(&text[..end], b"HTTP/").is_some())
        }
    }
}

pub(super) fn find_line(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = (*scanned).min(bytes.len());
    let found = memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at);
    *scanned = bytes.len();
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Status,
    /// A status line, behind so many bytes of another line.
    After(usize),
    /// None; what came is the body.
    Body,
    /// Too few bytes to tell.
    Unknown,
}

/// Whether these bytes, blanks and one short line before them aside, can be a status line.
pub(super) fn begins_a_status(bytes: &[u8]) -> Begins {
    let is_status = |bytes: &[u8]| {
        let start = bytes.iter().take(BLANKS_MAX).take_while(|byte| is_blank(**byte)).count();
        let text = &bytes[start..bytes.len().min(start + 4)];
        match text.eq_ignore_ascii_case(&b"HTTP"[..text.len()]) {
            false => Begins::Body,
            true if text.len() == 4 => Begins::Status,
            true => Begins::Unknown,
        }
    };
    match is_status(bytes) {
        Begins::Body => match memchr::memchr(b'\n', &bytes[..bytes.len().min(JUNK_LINE_MAX)]) {
            Some(end) => match is_status(&bytes[end + 1..]) {
                Begins::Status => Begins::After(end + 1),
                found => found,
            },
            None if bytes.len() < JUNK_LINE_MAX => Begins::Unknown,
            None => Begins::Body,
        },
        found => found,
    }
}

/// Before the size of a chunk: C's `isspace`, and zeros.
pub(super) const fn is_space(byte: u8) -> bool {
    is_blank(byte) || byte == 0x0b
}

pub(super) const fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

/// Where a status line ends, and where the next one begins: browsers take a lone carriage return for a line's end.
pub(super) fn find_status_line(bytes: &[u8], scanned: &mut usize) -> Option<(usize, usize)> {
    let from = (*scanned).min(bytes.len());
    let Some(at) = memchr::memchr2(b'\n', b'\r', &bytes[from..]).map(|at| from + at) else {
        *scanned = bytes.len();
        return None;
    };
    match (bytes[at], bytes.get(at + 1)) {
        (b'\n', _) => Some((at, at + 1)),
        (_, Some(b'\n')) => Some((at, at + 2)),
        (_, Some(_)) => Some((at, at + 1)),
        (_, None) => {
            *scanned = at;
            None
        }
    }
}

/// Blanks in a line that is still empty.
const BLANKS_MAX: usize = 8;

const NOT_KNOWN: usize = usize::MAX;

/// Where the block ends: behind an empty line, which may be the first one. To browsers a line of blanks between line feeds is
/// empty too, and one of two carriage returns, unless an empty one follows.
pub(super) fn find_block(bytes: &[u8], side: Side, scanned: &mut usize) -> Option<usize> {
    // Bytes from `from` on that are the rest of an empty line, its line feed aside.
    let empty = |from: usize, lone: bool| {
        let lone = lone && side == Side::Response;
        match bytes.get(from..) {
            Some([b'\r', b'\r', b'\n', rest @ ..]) if lone => match rest {
                [b'\r', b'\n', ..] => 1,
                [] | [b'\r'] => NOT_KNOWN,
                _ => 2,
            },
            Some([b'\r', b'\r'] | [b'\r']) if lone => NOT_KNOWN,
            Some([b'\r', ..]) => 1,
            _ => bytes.iter().skip(from).take(BLANKS_MAX).take_while(|byte| lone && matches!(byte, b' ' | b'\t')).count(),
        }
    };
    let first = usize::from(bytes.first() == Some(&b'\r'));
    if bytes.get(first) == Some(&b'\n') {
        return Some(first + 1);
    }
    // A line feed at `scanned` or later, behind it an empty line.
    let mut from = *scanned;
    while let Some(at) = memchr::memchr(b'\n', bytes.get(from..)?).map(|at| from + at) {
        let lone = at == 0 || bytes[at - 1] != b'\r';
        let empty = empty(at + 1, lone);
        match bytes.get((at + 1).saturating_add(empty)) {
            Some(b'\n') => return Some(at + empty + 2),
            Some(_) => from = at + 1,
            None => {
                *scanned = at;
                return None;
            }
        }
    }
    *scanned = bytes.len();
    None
}
