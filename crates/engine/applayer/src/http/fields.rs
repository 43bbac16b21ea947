//! A header block to fields: lines, folding, repetitions; and what in it deserves an event.

use super::Side;
use memchr::memchr;

/// Repetitions of one field that are joined; further ones are left out.
const REPETITIONS_MAX: u16 = 64;

/// Filled anew for each block; kept for its memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(super) fields: Vec<Header>,
    text: Vec<u8>,
    /// Places of fields, by name.
    order: Vec<u32>,
    pub path: Vec<u8>,
    /// They came as names and values.
    apart: bool,
}

/// A field; `name` and `value` lie in the scratch's text. Repetitions hang on the first of their name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    name: (u32, u32),
    value: (u32, u32),
    hash: u32,
    /// The next of the same name.
    next: u32,
    /// Its line had no colon.
    colonless: bool,
    /// In the chain of an earlier one.
    repeated: bool,
    repetitions: u16,
}

const NONE: u32 = u32::MAX;

/// What was odd in a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oddities {
    pub missing_colon: bool,
    pub invalid_name: bool,
    pub folding: bool,
    pub too_long: bool,
    pub too_many: bool,
    pub repeated: bool,
    pub repeated_length_differs: bool,
}

impl Scratch {
    /// Reads a block: everything after the first line, with or without the blank line that ends it.
    pub(super) fn parse(&mut self, mut block: &[u8], side: Side, headers_max: usize, field_max: usize) -> Oddities {
        self.apart = false;
        self.fields.clear();
        self.text.clear();
        let mut odd = Oddities::default();
        while !block.is_empty() {
            let (line, rest) = split_line(block, side);
            block = rest;
            if line.is_empty() {
                continue;
            }
            odd.too_long |= line.len() > field_max;
            let folded = matches!(line[0], b' ' | b'\t' | 0) && !self.fields.is_empty();
            if folded && !(side == Side::Response && begins_like_a_field(line)) {
                self.unfold(line, &mut odd);
                odd.folding = true;
                continue;
            }
            if self.fields.len() >= headers_max {
                odd.too_many = true;
                break;
            }
            self.field(line, &mut odd);
        }
        self.chain(&mut odd);
        odd
    }

    /// Fields that came as names and values (HTTP/2), instead of a block: [`Self::clear`], [`Self::add`] each, [`Self::done`].
    pub fn clear(&mut self) {
        self.apart = true;
        self.fields.clear();
        self.text.clear();
    }

    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.append(name), self.append(value));
        let hash = self.hash(name);
        self.fields.push(Header { name, value, hash, next: NONE, colonless: false, repeated: false, repetitions: 0 });
    }

    pub fn done(&mut self) {
        self.chain(&mut Oddities::default());
    }

    /// Between the parts of a value. A cookie's crumbs are put together as RFC 9113, section 8.2.3, has it.
    pub fn joint(&self, field: &Header) -> &'static [u8] {
        if self.apart && self.name(field) == b"cookie" { b"; " } else { b", " }
    }

    fn hash(&self, name: (u32, u32)) -> u32 {
        self.slice(name).iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193))
    }

    fn field(&mut self, line: &[u8], odd: &mut Oddities) {
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => {
                odd.missing_colon = true;
                (&[][..], line)
            }
        };
        let name = name.trim_ascii();
        odd.invalid_name |= !name.iter().all(|byte| is_token(*byte));
        let value = value.trim_ascii();
        let name = self.append(name);
        let value = self.append(value);
        let colonless = memchr(b':', line).is_none();
        let hash = self.hash(name);
        self.fields.push(Header { name, value, hash, next: NONE, colonless, repeated: false, repetitions: 0 });
    }

    /// The first byte of a fold is kept, as the reference engine does; an empty line adds nothing.
    fn unfold(&mut self, line: &[u8], odd: &mut Oddities) {
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        // `Name`, and the colon in the next line: the fold is within the field's name.
        if memchr(b':', text).is_some()
            && let Some(last) = self.fields.pop_if(|last| last.colonless)
        {
            let whole = [self.slice(last.value), text].concat();
            self.field(&whole, odd);
            return;
        }
        // The last field's value ends where the text ends.
        if let Some(last) = self.fields.last_mut() {
            if last.value.0 != last.value.1 {
                self.text.push(line[0]);
            }
            self.text.extend_from_slice(text);
            last.value.1 = self.text.len() as u32;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        (start, self.text.len() as u32)
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.text[start as usize..end as usize]
    }

    /// Hangs repetitions on the first of their name. By sorting, so that many names cost no more than their number asks for, also
    /// when their hashes were made equal.
    fn chain(&mut self, odd: &mut Oddities) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..self.fields.len() as u32);
        let lower = |at: u32| self.slice(self.fields[at as usize].name).iter().map(u8::to_ascii_lowercase);
        let hash = |at: u32| self.fields[at as usize].hash;
        order.sort_unstable_by(|a, b| hash(*a).cmp(&hash(*b)).then_with(|| lower(*a).cmp(lower(*b))).then(a.cmp(b)));
        // Places where another name begins.
        let mut start = 0;
        while start < order.len() {
            let first = order[start] as usize;
            let same = |at: &&u32| {
                let (this, first) = (self.fields[**at as usize], self.fields[first]);
                this.hash == first.hash && self.slice(this.name).eq_ignore_ascii_case(self.slice(first.name))
            };
            let len = 1 + order[start + 1..].iter().take_while(same).count();
            self.chain_one(&order[start..start + len], odd);
            start += len;
        }
        self.order = order;
    }

    /// Fields of one name, in order.
    fn chain_one(&mut self, group: &[u32], odd: &mut Oddities) {
        let [first, rest @ ..] = group else { return };
        let first = *first as usize;
        odd.repeated |= !rest.is_empty();
        let mut last = first;
        for &at in rest {
            let this = self.fields[at as usize];
            self.fields[at as usize].repeated = true;
            if self.slice(this.name).eq_ignore_ascii_case(b"content-length") {
                // The first one stands.
                odd.repeated_length_differs |= self.slice(self.fields[first].value) != self.slice(this.value);
                continue;
            }
            self.fields[first].repetitions += 1;
            if self.fields[first].repetitions <= REPETITIONS_MAX {
                self.fields[last].next = at;
                last = at as usize;
            }
        }
    }

    /// Names and values in the order in which they came.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.slice(field.name), self.slice(field.value)))
    }

    /// Each field once, in the order of the first of its name.
    pub fn distinct(&self) -> impl Iterator<Item = &Header> {
        self.fields.iter().filter(|field| !field.repeated)
    }

    pub fn name(&self, field: &Header) -> &[u8] {
        self.slice(field.name)
    }

    /// The parts of a value; `, ` belongs between them.
    pub fn values<'a>(&'a self, field: &'a Header) -> impl Iterator<Item = &'a [u8]> {
        std::iter::successors(Some(field), |field| self.fields.get(field.next as usize)).map(|field| self.slice(field.value))
    }

    /// Appends a field's whole value.
    pub(super) fn append_value(&self, field: &Header, out: &mut Vec<u8>) {
        for (index, part) in self.values(field).enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(part);
        }
    }

    /// By lower-case name.
    pub fn find(&self, name: &[u8]) -> Option<&Header> {
        self.distinct().find(|field| self.name(field).eq_ignore_ascii_case(name))
    }

    /// All values of a field whose name is meant to be this one, whatever stands between its letters: receivers differ in what they
    /// forgive, and what decides how a body is read has to be found.
    pub(super) fn meant<'a>(&'a self, wanted: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let means = move |field: &&Header| {
            let letters = self.slice(field.name).iter().filter(|byte| is_token(**byte)).map(u8::to_ascii_lowercase);
            letters.eq(wanted.iter().copied())
        };
        self.fields.iter().filter(means).map(|field| self.slice(field.value))
    }

    /// First part of a field's value.
    pub fn first_value(&self, name: &[u8]) -> Option<&[u8]> {
        self.find(name).map(|field| self.slice(field.value))
    }
}

/// RFC 9110, section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A line without its end, and what follows. Browsers end a response's line at a lone CR too.
fn split_line(block: &[u8], side: Side) -> (&[u8], &[u8]) {
    let end = match side {
        Side::Request => memchr(b'\n', block),
        Side::Response => memchr::memchr2(b'\n', b'\r', block),
    };
    let Some(end) = end else { return (block.trim_ascii_end(), &[]) };
    let mut line = &block[..end];
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    let rest = &block[end + 1..];
    let rest = if block[end] == b'\r' { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
    (line, rest)
}

/// ` Name: value`, which browsers take for a field of its own.
fn begins_like_a_field(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    memchr(b':', line).is_some_and(|colon| colon > 0 && line[..colon].iter().all(|byte| is_token(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &[u8], side: Side) -> (Vec<String>, Oddities) {
        let mut scratch = Scratch::default();
        let odd = scratch.parse(block, side, 8, 40);
        let fields = scratch.distinct().map(|field| {
            let mut text = scratch.name(field).to_vec();
            text.extend_from_slice(b"=");
            scratch.append_value(field, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        (fields.collect(), odd)
    }

    #[test]
    fn fields_are_unfolded_joined_and_judged() {
        let (fields, odd) = read(b"A: 1\r\nB:  2 \n C\r\na: 3\r\nnone\r\n\r\n", Side::Request);
        assert_eq!(fields, ["A=1, 3", "B=2 C", "=none"]);
        assert!(odd.folding && odd.repeated && odd.missing_colon && !odd.invalid_name && !odd.too_long);
        let (fields, odd) = read(b"Content-Length: 1\r\ncontent-length: 2\r\nX y: 1\r\n", Side::Request);
        assert_eq!(fields, ["Content-Length=1", "X y=1"]);
        assert!(odd.repeated_length_differs && odd.invalid_name);
    }

    #[test]
    fn repetitions_keep_their_order() {
        let (fields, odd) = read(b"b: 1\r\na: 2\r\nB: 3\r\nA: 4\r\nc: 5\r\nb: 6\r\n", Side::Request);
        assert_eq!((fields, odd.repeated), (vec!["b=1, 3, 6".to_owned(), "a=2, 4".to_owned(), "c=5".to_owned()], true));
        assert!(!read(b"a: 1\r\nb: 1\r\n", Side::Request).1.repeated);
    }

    #[test]
    fn responses_are_read_as_browsers_do() {
        let (fields, _) = read(b"A: 1\rB: 2\r\n C: 3\r\n\td\r\n", Side::Response);
        assert_eq!(fields, ["A=1", "B=2", "C=3\td"]);
    }

    #[test]
    fn limits_are_told_of() {
        let many: Vec<u8> = (0..9).flat_map(|number| format!("n{number}: x\r\n").into_bytes()).collect();
        let (fields, odd) = read(&many, Side::Request);
        assert_eq!((fields.len(), odd.too_many), (8, true));
        assert!(read(&[b'a'; 50], Side::Request).1.too_long);
    }
}
