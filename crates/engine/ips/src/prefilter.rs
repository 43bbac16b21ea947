//! First pass: which literals of a group of rules occur in a run of bytes.
//!
//! Input is a run and the state that a flow direction carries from the run before ([`Carry`]: its last bytes),
//! so that a literal is found wherever a segment boundary cuts it. Output is the numbers of the patterns that
//! end in the new bytes. Whether a rule holds is decided elsewhere; the two never share state but the hits.
//!
//! Three engines, chosen by the literals of the group:
//! * *few*: a SIMD search for fragments of at most four bytes (all case variants of those that ignore case),
//!   then a comparison of the whole literal at that place;
//! * *many*: each literal is filed under the four bytes of it that are rarest in its group; each position of
//!   the run is looked up in a bitmap, then in a hash table, then compared;
//! * *short*: literals of one to three bytes beside *many*: single bytes by SIMD, the others by their first pair
//!   through a bitmap of all pairs.

use aho_corasick::packed;

/// Bytes of a literal that the first pass looks at; the second pass looks at all. Bounds what is carried.
pub const LITERAL_BYTES_MAX: usize = 48;
/// What a direction carries: one byte less than the longest literal.
pub const CARRY_BYTES: usize = LITERAL_BYTES_MAX - 1;
/// Fragments the SIMD search takes before it falls back to a slower one (`packed` has room for 128).
const FRAGMENTS_MAX: usize = 64;
const FRAGMENT_BYTES: usize = 4;
const BITMAP_BITS: u32 = 18;

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
enum Engine {
    #[default]
    Empty,
    Few {
        searcher: packed::Searcher,
        /// By number of the fragment: literals with the fragment's place in them.
        owners: Vec<Vec<(u32, u8)>>,
    },
    Many {
        grams: Grams,
        short: Option<Short>,
    },
}

/// Literals of one to three bytes.
#[derive(Debug)]
struct Short {
    singles: Vec<u32>,
    /// One bit per pair of bytes, folded.
    bitmap: Vec<u64>,
    /// Folded pair and literal, sorted.
    pairs: Vec<(u16, u32)>,
}

/// A fragment, and the literals that have it with its place in them.
type Fragment = (Vec<u8>, Vec<(u32, u8)>);

/// Literals of four bytes and more by one of their four-byte parts, folded to lower case.
#[derive(Debug)]
struct Grams {
    bitmap: Vec<u64>,
    /// Open addressing: (gram, first in `entries`, count), 0 count is free.
    table: Vec<(u32, u32, u32)>,
    mask: usize,
    /// Literal and the gram's place in it.
    entries: Vec<(u32, u8)>,
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
        let engine = if literals.iter().all(|literal| literal.bytes.is_empty()) {
            Engine::Empty
        } else {
            few(&literals).unwrap_or_else(|| many(&literals))
        };
        Self { literals, engine, longest }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.engine, Engine::Empty)
    }

    pub fn len(&self) -> usize {
        self.literals.len()
    }

    /// Reports the literals that end in `run`, given what was before. A number may come more than once.
    pub fn scan(&self, carry: &Carry, run: &[u8], mut hit: impl FnMut(u32)) {
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
            self.scan_run(&joint[..before.len() + after], before.len(), &mut hit);
        }
        self.scan_run(run, 0, &mut hit);
    }

    /// Literals that end after `from`.
    fn scan_run(&self, bytes: &[u8], from: usize, hit: &mut impl FnMut(u32)) {
        match &self.engine {
            Engine::Empty => {}
            Engine::Few { searcher, owners } => {
                let mut at = from.saturating_sub(self.longest.saturating_sub(1));
                while at < bytes.len() {
                    let Some(found) = searcher.find_in(bytes, aho_corasick::Span::from(at..bytes.len())) else { break };
                    for (literal, place) in &owners[found.pattern().as_usize()] {
                        self.compare(bytes, found.start(), *literal, *place, from, hit);
                    }
                    at = found.start() + 1;
                }
            }
            Engine::Many { grams, short } => {
                grams.scan(bytes, |literal, place, at| self.compare(bytes, at, literal, place, from, hit));
                if let Some(short) = short {
                    for number in &short.singles {
                        let literal = &self.literals[*number as usize];
                        let byte = literal.bytes[0];
                        let other = if literal.nocase { byte.to_ascii_uppercase() } else { byte };
                        if memchr::memchr2(byte, other, &bytes[from.min(bytes.len())..]).is_some() {
                            hit(*number);
                        }
                    }
                    short.scan(bytes, |literal, at| self.compare(bytes, at, literal, 0, from, hit));
                }
            }
        }
    }

    /// The whole literal, whose byte `place` stands at `at`.
    fn compare(&self, bytes: &[u8], at: usize, number: u32, place: u8, from: usize, hit: &mut impl FnMut(u32)) {
        let literal = &self.literals[number as usize];
        let Some(start) = at.checked_sub(usize::from(place)) else { return };
        let end = start + literal.bytes.len();
        let Some(found) = bytes.get(start..end) else { return };
        if end > from && (if literal.nocase { found.eq_ignore_ascii_case(&literal.bytes) } else { found == literal.bytes.as_slice() }) {
            hit(number);
        }
    }
}

/// `None` when there are too many fragments, or the processor has no SIMD.
fn few(literals: &[Literal]) -> Option<Engine> {
    if literals.len() > FRAGMENTS_MAX {
        return None;
    }
    let mut fragments: Vec<Fragment> = Vec::new();
    for (number, literal) in literals.iter().enumerate() {
        if literal.bytes.is_empty() {
            continue;
        }
        let (place, len) = best_fragment(literal);
        let base = &literal.bytes[place..place + len];
        for variant in case_variants(base, literal.nocase) {
            let owner = (number as u32, place as u8);
            match fragments.iter_mut().find(|(bytes, _)| *bytes == variant) {
                Some((_, owners)) => owners.push(owner),
                None => fragments.push((variant, vec![owner])),
            }
            if fragments.len() > FRAGMENTS_MAX {
                return None;
            }
        }
    }
    // The search reports one fragment per place: one that begins with another is filed under the shorter one.
    fragments.sort();
    let mut kept: Vec<Fragment> = Vec::new();
    for (bytes, owners) in fragments {
        match kept.last_mut() {
            Some((shorter, all)) if bytes.starts_with(shorter) => all.extend(owners),
            _ => kept.push((bytes, owners)),
        }
    }
    let mut builder = packed::Config::new().match_kind(packed::MatchKind::LeftmostFirst).builder();
    builder.extend(kept.iter().map(|(bytes, _)| bytes));
    let searcher = builder.build()?;
    Some(Engine::Few { searcher, owners: kept.into_iter().map(|(_, owners)| owners).collect() })
}

/// The part that is rarest in traffic, with few letters where case is ignored: place and length.
fn best_fragment(literal: &Literal) -> (usize, usize) {
    let len = literal.bytes.len().min(FRAGMENT_BYTES);
    let cost = |place: &usize| -> (u32, usize) {
        let window = &literal.bytes[*place..*place + len];
        let common: u32 = window.iter().map(|byte| commonness(*byte)).sum();
        let letters: u32 = if literal.nocase { window.iter().filter(|byte| byte.is_ascii_alphabetic()).count() as u32 } else { 0 };
        (common + letters * 40, *place)
    };
    let place = (0..=literal.bytes.len() - len).min_by_key(cost).unwrap_or(0);
    (place, len)
}

/// How often a byte stands in traffic, roughly: text most, then zero, then the rest.
const fn commonness(byte: u8) -> u32 {
    match byte {
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b' ' | 0 => 60,
        b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'=' | b'"' | b'\r' | b'\n' => 45,
        b'A'..=b'Z' | b':' | b'-' | b'_' | b',' | b';' | b'&' | b'<' | b'>' | 0xff => 30,
        b'!'..=b'~' => 18,
        _ => 10,
    }
}

fn case_variants(base: &[u8], nocase: bool) -> Vec<Vec<u8>> {
    let mut variants = vec![Vec::with_capacity(base.len())];
    for byte in base {
        if nocase && byte.is_ascii_alphabetic() {
            let mut upper = variants.clone();
            variants.iter_mut().for_each(|variant| variant.push(byte.to_ascii_lowercase()));
            upper.iter_mut().for_each(|variant| variant.push(byte.to_ascii_uppercase()));
            variants.append(&mut upper);
        } else {
            variants.iter_mut().for_each(|variant| variant.push(*byte));
        }
    }
    variants
}

fn many(literals: &[Literal]) -> Engine {
    let mut short = Short { singles: Vec::new(), bitmap: vec![0; 1024], pairs: Vec::new() };
    for (number, literal) in literals.iter().enumerate() {
        match literal.bytes.as_slice() {
            [_] => short.singles.push(number as u32),
            [first, second] | [first, second, _] => {
                let key = pair(*first, *second);
                short.bitmap[usize::from(key >> 6)] |= 1 << (key & 63);
                short.pairs.push((key, number as u32));
            }
            _ => {}
        }
    }
    short.pairs.sort_unstable();
    let short = (!short.singles.is_empty() || !short.pairs.is_empty()).then_some(short);
    Engine::Many { grams: Grams::new(literals), short }
}

impl Short {
    fn scan(&self, bytes: &[u8], mut candidate: impl FnMut(u32, usize)) {
        if self.pairs.is_empty() {
            return;
        }
        for (at, window) in bytes.windows(2).enumerate() {
            let key = pair(window[0], window[1]);
            if self.bitmap[usize::from(key >> 6)] >> (key & 63) & 1 != 0 {
                let first = self.pairs.partition_point(|entry| entry.0 < key);
                for (_, number) in self.pairs[first..].iter().take_while(|entry| entry.0 == key) {
                    candidate(*number, at);
                }
            }
        }
    }
}

/// Letters of either case give the same.
const fn pair(first: u8, second: u8) -> u16 {
    u16::from_le_bytes([first | 0x20, second | 0x20])
}

impl Grams {
    fn new(literals: &[Literal]) -> Self {
        // How many literals have each gram: the rarest in the group spreads the table best.
        let mut frequency: std::collections::BTreeMap<u32, u32> = std::collections::BTreeMap::new();
        for literal in literals {
            for window in literal.bytes.windows(4) {
                *frequency.entry(fold(gram(window))).or_default() += 1;
            }
        }
        let mut filed: Vec<(u32, u32, u8)> = Vec::new();
        for (number, literal) in literals.iter().enumerate() {
            let cost = |(place, window): &(usize, &[u8])| {
                let common: u32 = window.iter().map(|byte| commonness(byte.to_ascii_lowercase())).sum();
                (common * 4 + frequency.get(&fold(gram(window))).copied().unwrap_or(0).min(200), *place)
            };
            if let Some((place, window)) = literal.bytes.windows(4).enumerate().min_by_key(cost) {
                filed.push((fold(gram(window)), number as u32, place as u8));
            }
        }
        filed.sort_unstable();
        let slots = (filed.len() * 2).next_power_of_two().max(16);
        let mut grams =
            Self { bitmap: vec![0; 1 << (BITMAP_BITS - 6)], table: vec![(0, 0, 0); slots], mask: slots - 1, entries: Vec::new() };
        for chunk in filed.chunk_by(|a, b| a.0 == b.0) {
            let key = chunk[0].0;
            let first = grams.entries.len() as u32;
            grams.entries.extend(chunk.iter().map(|(_, number, place)| (*number, *place)));
            let bit = bitmap_bit(key);
            grams.bitmap[bit >> 6] |= 1 << (bit & 63);
            let mut slot = hash(key) as usize & grams.mask;
            while grams.table[slot].2 != 0 {
                slot = (slot + 1) & grams.mask;
            }
            grams.table[slot] = (key, first, chunk.len() as u32);
        }
        grams
    }

    fn scan(&self, bytes: &[u8], mut candidate: impl FnMut(u32, u8, usize)) {
        for (at, window) in bytes.windows(4).enumerate() {
            let key = fold(gram(window));
            let bit = bitmap_bit(key);
            if self.bitmap[bit >> 6] >> (bit & 63) & 1 == 0 {
                continue;
            }
            let mut slot = hash(key) as usize & self.mask;
            while self.table[slot].2 != 0 {
                let (found, first, count) = self.table[slot];
                if found == key {
                    for (number, place) in &self.entries[first as usize..(first + count) as usize] {
                        candidate(*number, *place, at);
                    }
                    break;
                }
                slot = (slot + 1) & self.mask;
            }
        }
    }
}

fn gram(window: &[u8]) -> u32 {
    match window.first_chunk::<4>() {
        Some(bytes) => u32::from_le_bytes(*bytes),
        None => 0,
    }
}

/// Letters of either case give the same; a few other bytes too, which only costs a comparison.
const fn fold(gram: u32) -> u32 {
    gram | 0x2020_2020
}

const fn hash(gram: u32) -> u32 {
    let mixed = gram.wrapping_mul(0x9e37_79b1);
    mixed ^ (mixed >> 15)
}

const fn bitmap_bit(gram: u32) -> usize {
    (gram.wrapping_mul(0x9e37_79b1) >> (32 - BITMAP_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(prefilter: &Prefilter, runs: &[&[u8]]) -> Vec<u32> {
        let (mut carry, mut found) = (Carry::default(), Vec::new());
        for run in runs {
            prefilter.scan(&carry, run, |number| found.push(number));
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
            assert_eq!(matches!(prefilter.engine, Engine::Many { .. }), extra > 0);
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
        prefilter.scan(&carry, b"and so on", |_| count += 1);
        assert_eq!(count, 0);
    }
}
