//! What the log says of a transaction beside its values: a tree of keys, numbers and texts, written in the order in which it is read.
//!
//! ```text
//! object "ntlmssp" ─ text "domain" ─ text "user" ─ end ─ number "session_id" …
//! ```
//! An object or list whose key was written before goes on where it ended, so that a request and its answer fill the same one; of a
//! plain key that comes twice the last counts. Rules never look here, so a cap that is reached loses a part of the record only.

/// Notes of one transaction; further ones are not kept.
pub(crate) const NOTES_MAX: usize = 8192;
/// Bytes of all their texts; further texts are empty.
pub(crate) const NOTE_BYTES_MAX: usize = 256 * 1024;
/// Memory that stays when a transaction goes back to the pool.
const KEPT_MAX: usize = 128;
const KEPT_BYTES_MAX: usize = 4096;

/// One step through the tree. Within a list the key is empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Note<'a> {
    Number(&'static str, u64),
    Signed(&'static str, i64),
    Real(&'static str, f64),
    Truth(&'static str, bool),
    /// Bytes as they came; mostly UTF-8.
    Text(&'static str, &'a [u8]),
    /// A text whose key comes from the message too.
    Pair(&'a [u8], &'a [u8]),
    Object(&'static str),
    List(&'static str),
    /// Of the object or list that began last and is open. What is open at the end of all notes ends there.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Number(&'static str, u64),
    Signed(&'static str, i64),
    /// Its bits.
    Real(&'static str, u64),
    Truth(&'static str, bool),
    Text(&'static str, u32, u32),
    /// Where its key begins and ends, and its text.
    Pair(u32, u32, u32),
    Object(&'static str),
    List(&'static str),
    End,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    kept: Vec<Kept>,
    bytes: Vec<u8>,
    /// Nobody reads them.
    pub(crate) off: bool,
}

impl Notes {
    pub fn iter(&self) -> impl Iterator<Item = Note<'_>> {
        self.kept.iter().map(|kept| match *kept {
            Kept::Number(key, value) => Note::Number(key, value),
            Kept::Signed(key, value) => Note::Signed(key, value),
            Kept::Real(key, bits) => Note::Real(key, f64::from_bits(bits)),
            Kept::Truth(key, value) => Note::Truth(key, value),
            Kept::Text(key, start, end) => Note::Text(key, &self.bytes[start as usize..end as usize]),
            Kept::Pair(start, middle, end) => {
                Note::Pair(&self.bytes[start as usize..middle as usize], &self.bytes[middle as usize..end as usize])
            }
            Kept::Object(key) => Note::Object(key),
            Kept::List(key) => Note::List(key),
            Kept::End => Note::End,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Nobody reads them: what is costly need not be made.
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    pub(crate) fn number(&mut self, key: &'static str, value: impl Into<u64>) {
        self.push(Kept::Number(key, value.into()));
    }

    pub(crate) fn signed(&mut self, key: &'static str, value: i64) {
        self.push(Kept::Signed(key, value));
    }

    pub(crate) fn real(&mut self, key: &'static str, value: f64) {
        self.push(Kept::Real(key, value.to_bits()));
    }

    pub(crate) fn truth(&mut self, key: &'static str, value: bool) {
        self.push(Kept::Truth(key, value));
    }

    pub(crate) fn text(&mut self, key: &'static str, text: impl AsRef<[u8]>) {
        if self.off {
            return;
        }
        let text = text.as_ref();
        let start = self.bytes.len();
        if start + text.len() <= NOTE_BYTES_MAX {
            self.bytes.extend_from_slice(text);
        }
        self.push(Kept::Text(key, start as u32, self.bytes.len() as u32));
    }

    pub(crate) fn pair(&mut self, key: &[u8], text: &[u8]) {
        let start = self.bytes.len();
        if self.off || start + key.len() + text.len() > NOTE_BYTES_MAX {
            return;
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(text);
        self.push(Kept::Pair(start as u32, (start + key.len()) as u32, self.bytes.len() as u32));
    }

    /// As lower-case digits.
    pub(crate) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        if !self.off {
            self.text(key, hex(bytes));
        }
    }

    pub(crate) fn object(&mut self, key: &'static str) {
        self.push(Kept::Object(key));
    }

    pub(crate) fn list(&mut self, key: &'static str) {
        self.push(Kept::List(key));
    }

    pub(crate) fn end(&mut self) {
        self.push(Kept::End);
    }

    fn push(&mut self, kept: Kept) {
        if !self.off && self.kept.len() < NOTES_MAX {
            self.kept.push(kept);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.bytes.clear();
    }

    pub(crate) fn shrink(&mut self) {
        self.clear();
        self.kept.shrink_to(KEPT_MAX);
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    pub(crate) fn memory(&self) -> usize {
        self.kept.capacity() * size_of::<Kept>() + self.bytes.capacity()
    }
}

/// Lower-case digits without anything between them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_more_than_the_caps_is_kept() {
        let mut notes = Notes::default();
        notes.object("a");
        notes.text("b", "c");
        notes.number("d", 1_u8);
        notes.hex("e", &[0x0f, 0xa0]);
        notes.end();
        let told: Vec<_> = notes.iter().collect();
        assert_eq!(told, [Note::Object("a"), Note::Text("b", b"c"), Note::Number("d", 1), Note::Text("e", b"0fa0"), Note::End]);
        notes.clear();
        for _ in 0..NOTES_MAX * 2 {
            notes.text("long", [b'x'; 100]);
        }
        let bytes: usize = notes.iter().map(|note| if let Note::Text(_, text) = note { text.len() } else { 0 }).sum();
        assert!(notes.iter().count() == NOTES_MAX && bytes <= NOTE_BYTES_MAX && bytes > NOTE_BYTES_MAX - 100);
        notes.shrink();
        notes.off = true;
        notes.text("a", "b");
        assert!(notes.is_empty() && notes.memory() < 16 * 1024);
    }
}
