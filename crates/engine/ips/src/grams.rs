//! Many literals at once: which of them may stand where, by parts of four bytes.
//!
//! A literal is filed under as many parts of it, one behind the other, as the search goes on bytes at a time: with a stride of
//! four only every fourth position of a run has to be looked up, and one of the literal's four parts begins at such a position wherever
//! the literal stands. Of the parts that it could be filed under, the rarest are taken.
//!
//! ```text
//! four bytes ─ folded to lower case ─ hash ─ bit set? ─ the hash's bucket ─ same four bytes? ─ the caller compares the whole
//! ```
//! The bitmap has sixteen bits for each gram, so that those of small groups stay in the first cache; a gram sets two bits of one
//! word, and one position in fifty passes that has none of the grams.

use std::collections::BTreeMap;

use crate::prefilter::commonness;

/// Bytes of a part.
const GRAM: usize = 4;
/// Positions from one look-up to the next; literals shorter than [`SHORTEST`] are searched at each position.
pub const STRIDE: usize = 4;
/// What has [`STRIDE`] parts.
pub const SHORTEST: usize = GRAM + STRIDE - 1;
/// Bits of the bitmap for each gram.
const BITS_PER_GRAM: usize = 16;
/// A literal's number and the gram's place in it share a word.
const PLACE_BITS: u32 = 8;
const MIX: u32 = 0x9e37_79b1;

/// Literals by their grams. Immutable.
#[derive(Debug)]
pub struct Grams {
    stride: usize,
    bitmap: Bitmap,
    /// Of each hash's upper bits: where its entries begin. One more than there are buckets.
    buckets: Vec<u32>,
    bucket_shift: u32,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    gram: u32,
    /// The literal's number, and behind it [`PLACE_BITS`] of the gram's place in it.
    literal: u32,
}

/// Of a size that is known where it is looked up, so that no bounds are checked.
#[derive(Debug)]
enum Bitmap {
    Tiny(Box<[u64; 1 << 6]>),
    Small(Box<[u64; 1 << 9]>),
    Medium(Box<[u64; 1 << 11]>),
    Large(Box<[u64; 1 << 13]>),
}

impl Grams {
    /// Numbers and bytes of literals of at least [`SHORTEST`] bytes with a stride of [`STRIDE`], of at least four with 1.
    pub fn new<'a>(literals: impl Iterator<Item = (u32, &'a [u8])> + Clone, stride: usize) -> Self {
        // How many literals have each gram: the rarest in the group spreads the table best.
        let mut frequency: BTreeMap<u32, u32> = BTreeMap::new();
        for (_, bytes) in literals.clone() {
            for window in bytes.windows(GRAM) {
                *frequency.entry(fold(window)).or_default() += 1;
            }
        }
        let mut filed: Vec<Entry> = Vec::new();
        for (number, bytes) in literals {
            let cost = |place: &usize| {
                let window = bytes.get(*place..place + GRAM + stride - 1).unwrap_or_default();
                let common: u32 = window.iter().map(|byte| commonness(byte.to_ascii_lowercase())).sum();
                let shared: u32 = window.windows(GRAM).map(|gram| frequency.get(&fold(gram)).copied().unwrap_or(0).min(200)).sum();
                (common * 4 + shared, *place)
            };
            let places = 0..(bytes.len() + 2).saturating_sub(GRAM + stride);
            let Some(first) = places.min_by_key(cost) else { continue };
            for (place, gram) in bytes.windows(GRAM).enumerate().skip(first).take(stride) {
                filed.push(Entry { gram: fold(gram), literal: number << PLACE_BITS | place as u32 });
            }
        }
        let bucket_bits = filed.len().next_power_of_two().trailing_zeros().max(1);
        let bucket_shift = u32::BITS - bucket_bits;
        filed.sort_by_key(|entry| (hash(entry.gram), entry.literal));
        let mut buckets = vec![0; (1 << bucket_bits) + 1];
        for entry in &filed {
            buckets[(hash(entry.gram) >> bucket_shift) as usize + 1] += 1;
        }
        for bucket in 1..buckets.len() {
            buckets[bucket] += buckets[bucket - 1];
        }
        let mut bitmap = Bitmap::for_grams(filed.len());
        for entry in &filed {
            bitmap.set(hash(entry.gram));
        }
        filed.shrink_to_fit();
        Self { stride, bitmap, buckets, bucket_shift, entries: filed }
    }

    /// Reports literals whose gram stands at a position: the literal, the gram's place in it, and the position.
    #[inline]
    pub fn scan(&self, bytes: &[u8], mut candidate: impl FnMut(u32, u8, usize)) {
        match &self.bitmap {
            Bitmap::Tiny(bits) => self.scan_with(bits, bytes, &mut candidate),
            Bitmap::Small(bits) => self.scan_with(bits, bytes, &mut candidate),
            Bitmap::Medium(bits) => self.scan_with(bits, bytes, &mut candidate),
            Bitmap::Large(bits) => self.scan_with(bits, bytes, &mut candidate),
        }
    }

    #[inline]
    fn scan_with<const WORDS: usize>(&self, bits: &[u64; WORDS], bytes: &[u8], candidate: &mut impl FnMut(u32, u8, usize)) {
        if self.stride == 1 {
            for (at, window) in bytes.windows(GRAM).enumerate() {
                if is_set(bits, hash(fold(window))) {
                    self.look_up(fold(window), at, candidate);
                }
            }
            return;
        }
        // Four look-ups at a time keep the processor busy; hits are rare.
        let (blocks, rest) = bytes.as_chunks::<{ 4 * GRAM }>();
        for (number, block) in blocks.iter().enumerate() {
            let [a, b, c, d] = grams_of(block);
            let found = [is_set(bits, hash(a)), is_set(bits, hash(b)), is_set(bits, hash(c)), is_set(bits, hash(d))];
            if found != [false; 4] {
                let at = number * 4 * GRAM;
                for (place, gram) in [a, b, c, d].into_iter().enumerate().filter(|(place, _)| found[*place]) {
                    self.look_up(gram, at + place * GRAM, candidate);
                }
            }
        }
        let begin = bytes.len() - rest.len();
        for (number, window) in rest.chunks_exact(GRAM).enumerate() {
            if is_set(bits, hash(fold(window))) {
                self.look_up(fold(window), begin + number * GRAM, candidate);
            }
        }
    }

    fn look_up(&self, gram: u32, at: usize, candidate: &mut impl FnMut(u32, u8, usize)) {
        let bucket = (hash(gram) >> self.bucket_shift) as usize;
        let (Some(&first), Some(&end)) = (self.buckets.get(bucket), self.buckets.get(bucket + 1)) else { return };
        for entry in self.entries.get(first as usize..end as usize).unwrap_or_default() {
            if entry.gram == gram {
                candidate(entry.literal >> PLACE_BITS, entry.literal as u8, at);
            }
        }
    }
}

impl Bitmap {
    fn for_grams(count: usize) -> Self {
        match count * BITS_PER_GRAM {
            0..=0x1000 => Self::Tiny(Box::new([0; 1 << 6])),
            0x1001..=0x8000 => Self::Small(Box::new([0; 1 << 9])),
            0x8001..=0x2_0000 => Self::Medium(Box::new([0; 1 << 11])),
            _ => Self::Large(Box::new([0; 1 << 13])),
        }
    }

    fn set(&mut self, hash: u32) {
        let words: &mut [u64] = match self {
            Self::Tiny(bits) => &mut bits[..],
            Self::Small(bits) => &mut bits[..],
            Self::Medium(bits) => &mut bits[..],
            Self::Large(bits) => &mut bits[..],
        };
        let bit = (hash >> (u32::BITS - (words.len() * 64).trailing_zeros())) as usize;
        words[bit >> 6] |= bits_of(hash, bit);
    }
}

#[inline]
fn is_set<const WORDS: usize>(bits: &[u64; WORDS], hash: u32) -> bool {
    let bit = (hash >> (u32::BITS - (WORDS * 64).trailing_zeros())) as usize;
    let wanted = bits_of(hash, bit);
    bits[bit >> 6] & wanted == wanted
}

/// Within a word: one by the bits that follow those of the word, one by the lowest.
#[inline]
const fn bits_of(hash: u32, bit: usize) -> u64 {
    1 << (bit & 63) | 1 << ((hash >> 4) & 63)
}

#[inline]
fn grams_of(block: &[u8; 4 * GRAM]) -> [u32; 4] {
    let (words, _) = block.as_chunks::<GRAM>();
    std::array::from_fn(|place| fold_word(u32::from_le_bytes(words[place])))
}

/// Of at least four bytes.
#[inline]
fn fold(window: &[u8]) -> u32 {
    fold_word(window.first_chunk::<GRAM>().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

/// Letters of either case give the same; a few other bytes too, which only costs a comparison.
#[inline]
pub const fn fold_word(gram: u32) -> u32 {
    gram | 0x2020_2020
}

/// Its upper bits count.
#[inline]
const fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(MIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_literal_is_found_once_wherever_it_stands() {
        let words: Vec<Vec<u8>> = (0..3_000u32).map(|number| format!("literal{}of{}", number * 7919, number).into_bytes()).collect();
        for (count, stride) in [(5, STRIDE), (60, STRIDE), (900, STRIDE), (3_000, STRIDE), (300, 1)] {
            let literals = (0..).zip(words.iter().take(count).map(Vec::as_slice));
            let grams = Grams::new(literals, stride);
            for (number, word) in words.iter().take(count).enumerate().step_by(7) {
                for before in 0..18 {
                    let mut text = vec![b'.'; before];
                    text.extend(word.to_ascii_uppercase());
                    text.extend(&b"....."[..before % 5]);
                    let mut found = 0;
                    grams.scan(&text, |literal, place, at| {
                        found += usize::from(literal as usize == number && at == before + usize::from(place))
                    });
                    assert_eq!(found, 1, "{number} behind {before}");
                }
            }
        }
    }

    #[test]
    fn ends_of_runs_are_looked_at() {
        let grams = Grams::new([(7, b"abcdefg".as_slice())].into_iter(), STRIDE);
        for length in 0..40 {
            let mut text = vec![b'x'; length];
            text.extend(b"abcdefg");
            let mut found = Vec::new();
            grams.scan(&text, |literal, place, at| found.push((literal, at - usize::from(place))));
            assert_eq!(found, [(7, length)]);
        }
    }
}
