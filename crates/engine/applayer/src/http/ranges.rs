//! A file that comes in parts (`Content-Range`, RFC 9110, section 14.4), also over several connections: each part that goes on where
//! the ones before have ended shows what came last of them, so that a match may begin there, and counts from the file's first byte.
//!
//! What comes out of order stands for itself.

use std::collections::VecDeque;

/// Files that are not complete; the one that was idle longest is forgotten.
const FILES_MAX: usize = 256;
/// Of all that they keep.
const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Host and path; a longer one is not followed.
const KEY_BYTES_MAX: usize = 2048;

/// `bytes first-last/total`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub first: u64,
    pub last: u64,
    /// `*`: not known.
    pub total: Option<u64>,
}

impl Part {
    /// `None`: it is none.
    pub fn read(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let rest = value.get(..5).filter(|unit| unit.eq_ignore_ascii_case(b"bytes")).and(value.get(5..))?.trim_ascii_start();
        let slash = memchr::memchr(b'/', rest)?;
        let dash = memchr::memchr(b'-', &rest[..slash])?;
        let number = |text: &[u8]| std::str::from_utf8(text.trim_ascii()).ok()?.parse::<u64>().ok();
        let total = match rest[slash + 1..].trim_ascii() {
            b"*" => None,
            text => Some(number(text)?),
        };
        let part = Self { first: number(&rest[..dash])?, last: number(&rest[dash + 1..slash])?, total };
        (part.first <= part.last && total.is_none_or(|total| part.last < total)).then_some(part)
    }
}

#[derive(Debug)]
struct File {
    key: Vec<u8>,
    /// Bytes that came without a hole, from the first one on.
    len: u64,
    tail: Vec<u8>,
}

/// Files in parts, the one that grew last at the end.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    files: VecDeque<File>,
    bytes: usize,
}

impl Ranges {
    pub fn key(host: &[u8], path: &[u8]) -> Option<Vec<u8>> {
        (host.len() + path.len() < KEY_BYTES_MAX).then(|| [host, b"\0", path].concat())
    }

    /// The length of the file so far and its last bytes, if this part goes on there.
    pub fn before(&self, key: &[u8], part: Part) -> Option<(u64, &[u8])> {
        let file = self.files.iter().find(|file| file.key == key)?;
        (part.first <= file.len && file.len <= part.last).then_some((file.len, file.tail.as_slice()))
    }

    /// A part has come whole, and all before it.
    pub fn grown(&mut self, key: Vec<u8>, part: Part, tail: &[u8]) {
        if let Some(at) = self.files.iter().position(|file| file.key == key)
            && let Some(file) = self.files.remove(at)
        {
            self.bytes -= file.tail.len();
        }
        if part.total.is_some_and(|total| part.last + 1 >= total) {
            return;
        }
        self.files.push_back(File { key, len: part.last.saturating_add(1), tail: tail.to_vec() });
        self.bytes += tail.len();
        while self.files.len() > FILES_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some(file) = self.files.pop_front() else { break };
            self.bytes -= file.tail.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_refused() {
        let part = |first, last, total| Some(Part { first, last, total });
        for (text, wanted) in [
            ("bytes 0-10/69", part(0, 10, Some(69))),
            ("Bytes 5 - 6/*", part(5, 6, None)),
            ("bytes 6-5/69", None),
            ("bytes 0-69/69", None),
            ("bytes */69", None),
            ("lines 0-1/2", None),
            ("bytes 0-1", None),
        ] {
            assert_eq!(Part::read(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn no_more_is_kept_than_the_caps_allow() {
        let mut ranges = Ranges::default();
        let part = Part { first: 0, last: 9, total: Some(100) };
        for number in 0..1000_u32 {
            ranges.grown(number.to_be_bytes().to_vec(), part, &[0; 32 * 1024]);
        }
        assert!(ranges.files.len() <= FILES_MAX && ranges.bytes <= TAIL_BYTES_MAX);
        let last = 999_u32.to_be_bytes();
        let next = Part { first: 8, last: 20, total: Some(100) };
        assert_eq!(ranges.before(&last, next).map(|(len, tail)| (len, tail.len())), Some((10, 32 * 1024)));
        assert_eq!(ranges.before(&last, Part { first: 11, ..next }), None);
        ranges.grown(last.to_vec(), Part { first: 10, last: 99, total: Some(100) }, b"x");
        assert_eq!(ranges.before(&last, next), None);
    }
}
