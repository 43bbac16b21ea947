//! Where in a run of bytes may one of many short fragments begin?
//!
//! The method is Teddy (Hyperscan; Langdale and others): fragments of up to four bytes are dealt into sixteen
//! buckets. For each of the four places and each half of a byte a table of sixteen entries says which buckets have
//! such a half there; two shuffles and an AND look up thirty-two or sixty-four bytes at once. What comes out of the AND of all
//! places are positions at which a bucket *may* have a fragment; the caller compares.
//!
//! A place takes a set of bytes, so a letter whose case is ignored costs nothing more. This crate holds the vector
//! instructions of the program and nothing else; on processors without AVX2 the same answer is computed byte by byte.

#![allow(unsafe_code)] // Loads and stores of vectors, and calling what needs AVX2.

mod scan;

use scan::Vectors;

/// Places of a fragment that are looked at.
pub const PLACES: usize = 4;
/// Buckets, one bit each in what [`Teddy::scan`] reports.
pub const BUCKETS: usize = 16;

/// Bytes that may stand at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    pub const NONE: Self = Self([0; 4]);
    pub const ANY: Self = Self([u64::MAX; 4]);

    pub const fn of(byte: u8) -> Self {
        let mut set = Self::NONE;
        set.0[(byte >> 6) as usize] |= 1 << (byte & 63);
        set
    }

    pub const fn or(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1], self.0[2] | other.0[2], self.0[3] | other.0[3]])
    }

    pub const fn contains(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] >> (byte & 63) & 1 != 0
    }
}

/// Up to four places; those that a shorter fragment does not have are [`ByteSet::ANY`].
pub type Fragment = [ByteSet; PLACES];

/// Fragments in buckets, ready to be looked for. Immutable.
#[derive(Clone)]
pub struct Teddy {
    tables: Tables,
    /// Any bucket from the ninth on is used.
    wide: bool,
    vectors: Vectors,
}

impl std::fmt::Debug for Teddy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teddy").field("wide", &self.wide).field("vectors", &self.vectors).finish_non_exhaustive()
    }
}

/// By half of the buckets, place and half of the byte (low, high): buckets that have such a half.
#[derive(Clone)]
struct Tables([[[[u8; 16]; 2]; PLACES]; 2]);

impl Teddy {
    /// `fragments`: what is looked for, and its bucket below [`BUCKETS`]; others are ignored.
    pub fn new(fragments: impl IntoIterator<Item = (Fragment, usize)>) -> Self {
        let mut tables = Tables([[[[0; 16]; 2]; PLACES]; 2]);
        let mut wide = false;
        for (fragment, bucket) in fragments.into_iter().filter(|(_, bucket)| *bucket < BUCKETS) {
            wide |= bucket >= 8;
            for (place, set) in fragment.iter().enumerate() {
                let [low, high] = &mut tables.0[bucket / 8][place];
                for byte in (0..=u8::MAX).filter(|byte| set.contains(*byte)) {
                    low[usize::from(byte & 15)] |= 1 << (bucket % 8);
                    high[usize::from(byte >> 4)] |= 1 << (bucket % 8);
                }
            }
        }
        Self { tables, wide, vectors: Vectors::of_this_processor() }
    }

    /// The same with these instructions, where the processor has them.
    #[cfg(test)]
    fn with(mut self, vectors: Vectors) -> Self {
        self.vectors = vectors;
        self
    }

    /// Reports positions at which a fragment may begin, ascending, and the buckets that it may be in. Behind the end
    /// of `bytes` any byte may stand. No fragment that is there is missed; others may be reported.
    #[inline]
    pub fn scan(&self, bytes: &[u8], mut candidate: impl FnMut(usize, u16)) {
        scan::scan(&self.tables, self.wide, self.vectors, bytes, &mut candidate);
    }
}

impl Tables {
    /// Buckets that may have a fragment which begins with `bytes`, of which the missing ones may be anything.
    fn buckets(&self, bytes: &[u8], wide: bool) -> u16 {
        let of = |half: usize| {
            bytes.iter().take(PLACES).enumerate().fold(0xff, |found, (place, byte)| {
                let [low, high] = &self.0[half][place];
                found & low[usize::from(byte & 15)] & high[usize::from(byte >> 4)]
            })
        };
        u16::from(of(0)) | if wide { u16::from(of(1)) << 8 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(text: &[u8], nocase: bool) -> Fragment {
        let mut fragment = [ByteSet::ANY; PLACES];
        for (set, byte) in fragment.iter_mut().zip(text) {
            *set =
                if nocase { ByteSet::of(byte.to_ascii_lowercase()).or(ByteSet::of(byte.to_ascii_uppercase())) } else { ByteSet::of(*byte) };
        }
        fragment
    }

    fn found(teddy: &Teddy, bytes: &[u8]) -> Vec<(usize, u16)> {
        let mut found = Vec::new();
        teddy.scan(bytes, |at, buckets| found.push((at, buckets)));
        found
    }

    /// Deterministic bytes (xorshift).
    fn noise(len: usize, mut state: u64, alphabet: &[u8]) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            alphabet[(state >> 33) as usize % alphabet.len()]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn vectors_and_bytes_say_the_same() {
        let all: Vec<u8> = (0..=255).collect();
        for wide in [false, true] {
            let words: [&[u8]; 6] = [b"abcd", b"b", b"\x00\xff", b"dab", b"ABBA", b"aaaa"];
            let step = if wide { 3 } else { 1 };
            let teddy = Teddy::new(words.iter().enumerate().map(|(number, word)| (fragment(word, number == 4), number * step)));
            assert_eq!(teddy.wide, wide);
            for (len, alphabet) in (0..200).flat_map(|len| [(len, b"abcdB\x00\xff".as_slice()), (len, all.as_slice())]) {
                let bytes = noise(len, 1 + len as u64, alphabet);
                let vector = found(&teddy, &bytes);
                assert_eq!(vector, found(&teddy.clone().with(Vectors::None), &bytes));
                #[cfg(target_arch = "x86_64")]
                if Vectors::of_this_processor() == Vectors::Avx512 {
                    assert_eq!(vector, found(&teddy.clone().with(Vectors::Avx2), &bytes));
                }
                assert!(vector.is_sorted_by(|a, b| a.0 < b.0) && vector.iter().all(|(at, buckets)| *at < len && *buckets != 0));
            }
        }
    }

    #[test]
    fn nothing_that_is_there_is_missed() {
        let words: [(&[u8], bool); 4] = [(b"/bin", false), (b"Evil", true), (b"ab", false), (b"x", false)];
        let teddy = Teddy::new(words.iter().enumerate().map(|(number, (word, nocase))| (fragment(word, *nocase), number)));
        for place in 0..100 {
            for (number, (word, nocase)) in words.iter().enumerate() {
                let mut text = vec![b'.'; 110];
                let word = if *nocase { word.to_ascii_uppercase() } else { word.to_vec() };
                text[place..place + word.len()].copy_from_slice(&word);
                assert_eq!(found(&teddy, &text), [(place, 1 << number)]);
            }
        }
    }

    #[test]
    fn behind_the_end_anything_may_stand() {
        let teddy = Teddy::new([(fragment(b"abcd", false), 0)]);
        assert_eq!(found(&teddy, b"xxab"), [(2, 1)]);
        assert_eq!(found(&teddy, b""), []);
    }
}
