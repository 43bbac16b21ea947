//! First pass: which literals of a group of rules occur in a run of bytes.
//!
//! Input is a run and the state that a flow direction carries from the run before ([`Carry`]: its last bytes),
//! so that a literal is found wherever a segment boundary cuts it. Output is the numbers of the patterns that
//! end in the new bytes. Whether a rule holds is decided elsewhere; the two never share state but the hits.
//!
//! Two searches, chosen by how many literals the group has:
//! * *few*: a SIMD search for fragments of at most four bytes ([`bulkhead_simd`]), then a comparison of the whole
//!   literal at that place;
//! * *many*: each literal of seven bytes and more is filed under four parts of it, the rarest in its group; every fourth position of
//!   the run is looked up in a bitmap, then in a hash table, then compared ([`crate::grams`]). Shorter literals are
//!   searched as *few* beside it; where these are many too, those of four bytes and more at each position.
//!
//! Single bytes are looked for one by one.

use bulkhead_simd::{BUCKETS, ByteSet, Fragment, PLACES, Teddy};

use crate::grams::{Grams, SHORTEST, STRIDE, fold_word};
use crate::inspect::Work;

/// Bytes of a literal that the first pass looks at; the second pass looks at all. Bounds what is carried.
pub const LITERAL_BYTES_MAX: usize = 48;
/// What a direction carries: one byte less than the longest literal.
pub const CARRY_BYTES: usize = LITERAL_BYTES_MAX - 1;
/// Literals that are searched as *few*: above it too many positions of ordinary text look like a fragment.
const FEW_MAX: usize = 128;
/// The same for the short ones beside *many*, of which each would cost a look-up at each position.
const SHORT_MAX: usize = 256;

/// The last bytes of one direction.
#[derive(Debug, Clone, Copy)]
pub struct Carry {
    bytes: [u8; CARRY_BYTES],
    len: u8,
}

impl Default for Carry {
    fn default() -> Self {
        Self { bytes: [0; CARRY_BYTES], len: 0 }
    }
}

impl Carry {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Remembers the end of `carried + run`.
    pub fn push(&mut self, run: &[u8]) {
        if run.len() >= CARRY_BYTES {
            self.bytes.copy_from_slice(&run[run.len() - CARRY_BYTES..]);
            self.len = CARRY_BYTES as u8;
            return;
        }
        let keep = usize::from(self.len).min(CARRY_BYTES - run.len());
        let from = usize::from(self.len) - keep;
        self.bytes.copy_within(from..from + keep, 0);
        self.bytes[keep..keep + run.len()].copy_from_slice(run);
        self.len = (keep + run.len()) as u8;
    }

    /// Bytes are missing here.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// The literals of one group of rules. Immutable.
#[derive(Debug, Default)]
pub struct Prefilter {
    literals: Vec<Literal>,
    engine: Engine,
    longest: usize,
}

#[derive(Debug)]
struct Literal {
    /// Lower case when `nocase`.
    bytes: Vec<u8>,
    nocase: bool,
}

#[derive(Debug, Default)]
struct Engine {
    /// Literals of one byte.
    singles: Vec<u32>,
    few: Option<Few>,
    many: Option<Grams>,
    /// Of four to six bytes, where they are many.
    short: Option<Grams>,
}

/// Literals of two bytes and more by a fragment of at most four.
#[derive(Debug)]
struct Few {
    teddy: Teddy,
    buckets: [Vec<Filed>; BUCKETS],
}

/// A literal in a bucket.
#[derive(Debug, Clone, Copy)]
struct Filed {
    /// The fragment folded, and the bits of it that count.
    gram: u32,
    mask: u32,
    literal: u32,
    /// Where the fragment stands in it.
    place: u8,
}

impl Prefilter {
    /// `literals`: bytes and whether case is ignored; a literal's number is its place. Longer ones are cut to
    /// their best [`LITERAL_BYTES_MAX`] bytes by the caller or to their first here.
    pub fn new<'a>(literals: impl IntoIterator<Item = (&'a [u8], bool)>) -> Self {
        let literals: Vec<Literal> = literals
            .into_iter()
            .map(|(bytes, nocase)| {
                let bytes = &bytes[..bytes.len().min(LITERAL_BYTES_MAX)];
                Literal { bytes: if nocase { bytes.to_ascii_lowercase() } else { bytes.to_vec() }, nocase }
            })
            .collect();
        let longest = literals.iter().map(|literal| literal.bytes.len()).max().unwrap_or(0);
        let engine = Engine::new(&literals);
        Self { literals, engine, longest }
    }

    pub fn is_empty(&self) -> bool {
        self.longest == 0
    }

    pub fn len(&self) -> usize {
        self.literals.len()
    }

    /// Reports the literals that end in `run`, given what was before. A number may come more than once. Each comparison of a
    /// literal is charged; where `work` is spent, the rest is not looked at.
    pub fn scan(&self, carry: &Carry, run: &[u8], work: &mut Work, mut hit: impl FnMut(u32)) {
        if self.is_empty() || run.is_empty() {
            return;
        }
        let before = carry.as_slice();
        let before = &before[before.len() - before.len().min(self.longest - 1)..];
        if !before.is_empty() {
            let mut joint = [0u8; 2 * CARRY_BYTES];
            let after = run.len().min(self.longest - 1);
            joint[..before.len()].copy_from_slice(before);
            joint[before.len()..before.len() + after].copy_from_slice(&run[..after]);
            self.scan_run(&joint[..before.len() + after], before.len(), work, &mut hit);
        }
        self.scan_run(run, 0, work, &mut hit);
    }

    /// Literals that end after `from`.
    fn scan_run(&self, bytes: &[u8], from: usize, work: &mut Work, hit: &mut impl FnMut(u32)) {
        let Engine { singles, few, many, short } = &self.engine;
        for number in singles {
            let literal = &self.literals[*number as usize];
            let byte = literal.bytes[0];
            let other = if literal.nocase { byte.to_ascii_uppercase() } else { byte };
            if memchr::memchr2(byte, other, &bytes[from.min(bytes.len())..]).is_some() {
                hit(*number);
            }
        }
        if let Some(few) = few {
            few.scan(bytes, |literal, place, at| self.compare(bytes, at, literal, place, from, work, hit));
        }
        for many in many.iter().chain(short).filter(|_| bytes.len() >= 4) {
            many.scan(bytes, |literal, place, at| self.compare(bytes, at, literal, place, from, work, hit));
        }
    }

    /// The whole literal, whose byte `place` stands at `at`.
    #[allow(clippy::too_many_arguments)] // Called per candidate: a struct would be built each time.
    #[inline]
    fn compare(&self, bytes: &[u8], at: usize, number: u32, place: u8, from: usize, work: &mut Work, hit: &mut impl FnMut(u32)) {
        if !work.charge(1) {
            return;
        }
        let literal = &self.literals[number as usize];
        let Some(start) = at.checked_sub(usize::from(place)) else { return };
        let end = start + literal.bytes.len();
        let Some(found) = bytes.get(start..end) else { return };
        if end > from && (if literal.nocase { found.eq_ignore_ascii_case(&literal.bytes) } else { found == literal.bytes.as_slice() }) {
            hit(number);
        }
    }
}

impl Engine {
    fn new(literals: &[Literal]) -> Self {
        let numbers = |wanted: &dyn Fn(usize) -> bool| -> Vec<u32> {
            (0u32..).zip(literals).filter(|(_, literal)| wanted(literal.bytes.len())).map(|(number, _)| number).collect()
        };
        let all = numbers(&|len| len > 1);
        let (mut few, mut many, mut short) = (all, Vec::new(), Vec::new());
        if few.len() > FEW_MAX {
            few = numbers(&|len| (2..SHORTEST).contains(&len));
            many = numbers(&|len| len >= SHORTEST);
        }
        if few.len() > SHORT_MAX {
            few = numbers(&|len| len == 2 || len == 3);
            short = numbers(&|len| (4..SHORTEST).contains(&len));
        }
        let grams = |numbers: &[u32], stride: usize| {
            let filed = numbers.iter().map(|number| (*number, literals[*number as usize].bytes.as_slice()));
            (!numbers.is_empty()).then(|| Grams::new(filed, stride))
        };
        Self {
            singles: numbers(&|len| len == 1),
            few: (!few.is_empty()).then(|| Few::new(literals, &few)),
            many: grams(&many, STRIDE),
            short: grams(&short, 1),
        }
    }
}

impl Few {
    fn new(literals: &[Literal], numbers: &[u32]) -> Self {
        // The rarest fragments are dealt out last: what is common decides what the buckets let through.
        let mut filed: Vec<(Fragment, Filed)> = numbers.iter().map(|number| fragment(*number, &literals[*number as usize])).collect();
        filed.sort_by_key(|(fragment, filed)| (std::cmp::Reverse(chance(fragment).to_bits()), filed.literal));
        let available = if filed.len() <= BUCKETS { BUCKETS / 2 } else { BUCKETS };
        let mut buckets: [Vec<Filed>; BUCKETS] = std::array::from_fn(|_| Vec::new());
        let mut unions = [[Halves::default(); PLACES]; BUCKETS];
        let mut chances = [0.0; BUCKETS];
        let mut dealt: Vec<(Fragment, usize)> = Vec::with_capacity(filed.len());
        for (fragment, filed) in filed {
            let halves = fragment.map(|set| Halves::of(&set));
            let grown = |bucket: usize| -> [Halves; PLACES] { std::array::from_fn(|place| unions[bucket][place].or(halves[place])) };
            let cost = |bucket: &usize| chance_of(&grown(*bucket)) - chances[*bucket];
            let bucket = (0..available).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
            unions[bucket] = grown(bucket);
            chances[bucket] = chance_of(&unions[bucket]);
            buckets[bucket].push(filed);
            dealt.push((fragment, bucket));
        }
        Self { teddy: Teddy::new(dealt), buckets }
    }

    #[inline]
    fn scan(&self, bytes: &[u8], mut candidate: impl FnMut(u32, u8, usize)) {
        self.teddy.scan(bytes, |at, mut buckets| {
            let mut next = [0; 4];
            let here = &bytes[at..bytes.len().min(at + 4)];
            next[..here.len()].copy_from_slice(here);
            let gram = fold_word(u32::from_le_bytes(next));
            while buckets != 0 {
                for filed in &self.buckets[buckets.trailing_zeros() as usize] {
                    if gram & filed.mask == filed.gram {
                        candidate(filed.literal, filed.place, at);
                    }
                }
                buckets &= buckets - 1;
            }
        });
    }
}

/// The part of a literal that is rarest in traffic.
fn fragment(number: u32, literal: &Literal) -> (Fragment, Filed) {
    let len = literal.bytes.len().min(PLACES);
    let set = |byte: u8| {
        let same = ByteSet::of(byte);
        if literal.nocase { same.or(ByteSet::of(byte.to_ascii_uppercase())) } else { same }
    };
    let of = |place: usize| -> Fragment { std::array::from_fn(|at| if at < len { set(literal.bytes[place + at]) } else { ByteSet::ANY }) };
    let rarest = (0..=literal.bytes.len() - len).min_by(|a, b| chance(&of(*a)).total_cmp(&chance(&of(*b)))).unwrap_or(0);
    let mut bytes = [0; 4];
    bytes[..len].copy_from_slice(&literal.bytes[rarest..rarest + len]);
    let mask = u32::MAX >> (8 * (PLACES - len));
    let filed = Filed { gram: fold_word(u32::from_le_bytes(bytes)) & mask, mask, literal: number, place: rarest as u8 };
    (of(rarest), filed)
}

/// How often a position of ordinary traffic fits, roughly.
fn chance(fragment: &Fragment) -> f64 {
    chance_of(&fragment.map(|set| Halves::of(&set)))
}

fn chance_of(halves: &[Halves; PLACES]) -> f64 {
    halves.iter().map(|halves| halves.chance()).product()
}

/// The low and the high halves of the bytes that may stand at one place. They are looked up apart, so a set stands for all bytes
/// that can be made of its halves.
#[derive(Debug, Clone, Copy, Default)]
struct Halves {
    low: u16,
    high: u16,
}

impl Halves {
    fn of(set: &ByteSet) -> Self {
        let mut halves = Self::default();
        for byte in (0..=u8::MAX).filter(|byte| set.contains(*byte)) {
            halves.low |= 1 << (byte & 15);
            halves.high |= 1 << (byte >> 4);
        }
        halves
    }

    const fn or(self, other: Self) -> Self {
        Self { low: self.low | other.low, high: self.high | other.high }
    }

    fn chance(self) -> f64 {
        if self.low == u16::MAX && self.high == u16::MAX {
            return 1.0;
        }
        let bits = |set: u16| (0..16u8).filter(move |bit| set >> bit & 1 != 0);
        let sum: u32 = bits(self.high).map(|high| bits(self.low).map(|low| COMMON[usize::from(high << 4 | low)]).sum::<u32>()).sum();
        f64::from(sum) / COMMONNESS
    }
}

/// [`commonness`] of each byte.
const COMMON: [u32; 256] = {
    let (mut all, mut byte) = ([0; 256], 0);
    while byte < 256 {
        all[byte] = commonness(byte as u8);
        byte += 1;
    }
    all
};

/// How often a byte stands in traffic, roughly: text most, then zero, then the rest.
pub(crate) const fn commonness(byte: u8) -> u32 {
    match byte {
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b' ' | 0 => 60,
        b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'=' | b'"' | b'\r' | b'\n' => 45,
        b'A'..=b'Z' | b':' | b'-' | b'_' | b',' | b';' | b'&' | b'<' | b'>' | 0xff => 30,
        b'!'..=b'~' => 18,
        _ => 10,
    }
}

/// The sum over all bytes.
const COMMONNESS: f64 = {
    let (mut sum, mut byte) = (0, 0);
    while byte < 256 {
        sum += commonness(byte as u8);
        byte += 1;
    }
    sum as f64
};

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(prefilter: &Prefilter, runs: &[&[u8]]) -> Vec<u32> {
        let (mut carry, mut found) = (Carry::default(), Vec::new());
        for run in runs {
            prefilter.scan(&carry, run, &mut Work::default(), |number| found.push(number));
            carry.push(run);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn a_literal_is_found_wherever_it_is_cut() {
        let literals: &[(&[u8], bool)] = &[(b"/bin/sh", false), (b"User-Agent: evil", true), (b"ab", false), (b"x", false)];
        for extra in [0, 300] {
            let filler: Vec<Vec<u8>> = (0..extra).map(|number| format!("filler-{number:05}-literal").into_bytes()).collect();
            let all = literals.iter().copied().chain(filler.iter().map(|bytes| (bytes.as_slice(), number_is_even(bytes))));
            let prefilter = Prefilter::new(all);
            assert_eq!(prefilter.engine.many.is_some(), extra > 0);
            let text = b"....USER-agent: EVIL...../bin/sh....ab..";
            for cut in 0..text.len() {
                for second in cut..text.len() {
                    assert_eq!(hits(&prefilter, &[&text[..cut], &text[cut..second], &text[second..]]), [0, 1, 2], "{cut} {second}");
                }
            }
            let single: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(hits(&prefilter, &single), [0, 1, 2]);
            assert_eq!(hits(&prefilter, &[b"/BIN/SH aB"]), Vec::<u32>::new());
        }
    }

    fn number_is_even(bytes: &[u8]) -> bool {
        bytes.get(11).is_some_and(|digit| digit % 2 == 0)
    }

    #[test]
    fn overlapping_and_equal_literals_are_all_reported() {
        let prefilter = Prefilter::new([(b"abcd".as_slice(), false), (b"abc", false), (b"bcd", false), (b"ABCD", true), (b"abcd", false)]);
        assert_eq!(hits(&prefilter, &[b"xxabcdxx"]), [0, 1, 2, 3, 4]);
        assert_eq!(hits(&prefilter, &[b"xxaBcdxx"]), [3]);
    }

    #[test]
    fn an_old_hit_is_not_reported_again() {
        let prefilter = Prefilter::new([(b"needle".as_slice(), false)]);
        let mut carry = Carry::default();
        carry.push(b"a needle");
        let mut count = 0;
        prefilter.scan(&carry, b"and so on", &mut Work::default(), |_| count += 1);
        assert_eq!(count, 0);
    }

    #[test]
    fn comparisons_are_charged_and_end_with_the_work() {
        let many: Vec<Vec<u8>> = (0..300).map(|number| format!("aaaaaaaa{number:04}").into_bytes()).collect();
        let prefilter = Prefilter::new(many.iter().map(|literal| (literal.as_slice(), true)).chain([(b"aaaa".as_slice(), false)]));
        let (text, mut work, mut count) = (vec![b'a'; 5_000], Work::of(1_000), 0);
        prefilter.scan(&Carry::default(), &text, &mut work, |_| count += 1);
        assert!(work.is_spent() && count == 1_000, "{count}");
    }
}
