//! Second pass: does a rule hold on a buffer. Exact, with the reference engine's meaning of each keyword
//! (`detect-engine-content-inspection.c`), and bounded twice: a rule may take [`STEPS_MAX`] steps on one buffer, and all
//! rules together [`WORK_PER_PACKET_MAX`] units of work on what one packet brings ([`Work`]).

use std::sync::{Arc, OnceLock};

use bulkhead_rules::condition::Asn1;
use bulkhead_rules::signature::{ContentMatch, Match};
use bulkhead_rules::transform::Base64Mode;
use bulkhead_rules::tree::{
    Amount, Base, Base64Decode, ByteExtract, ByteJump, ByteMath, ByteTest, ByteValue, Comparison, DatasetOperation, DatasetSource, Endian,
    Entropy, IsDataAt, MathOperator, NumberTest, Relation,
};
use memchr::memmem;

use crate::backtrack::Search;
use crate::derive;
use crate::pcre::{self, Pattern};
use crate::prefilter::commonness;
use crate::sets::{Dataset, Sets};

/// Suricata's `inspection-recursion-limit`.
pub const STEPS_MAX: u32 = 3_000;
/// Units of work on one packet, both passes and all rules together. A unit is about 25 ns, so that the cap is some 7 ms: a
/// hundred times what a superpacket of ordinary traffic needs with all of ET Open.
pub const WORK_PER_PACKET_MAX: u32 = 1 << 18;
/// Bytes that a search for a literal walks over for one unit.
const LITERAL_BYTES_PER_UNIT: usize = 256;
/// Names that byte_extract and byte_math may set in one rule.
const NAMES_MAX: usize = 16;
/// Bytes of a text that `base64_decode` reads; Suricata's `BASE64_DECODE_MAX`.
const BASE64_BYTES_MAX: usize = 65_535;
/// Bytes that a decoding or a count of bytes goes through for one unit.
const DERIVED_BYTES_PER_UNIT: usize = 32;

/// What may still be spent on the packet in hand. Each comparison, step and search is charged here by what it cost, so
/// that no combination of input and rules makes a packet cost more.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    left: u32,
    spent: bool,
}

impl Default for Work {
    fn default() -> Self {
        Self::of(WORK_PER_PACKET_MAX)
    }
}

impl Work {
    pub const fn of(units: u32) -> Self {
        Self { left: units, spent: false }
    }

    /// False when there was not that much left; nothing more is to be done for this packet then.
    #[inline]
    pub fn charge(&mut self, units: usize) -> bool {
        match u32::try_from(units).ok().and_then(|units| self.left.checked_sub(units)) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                self.spent = true;
            }
        }
        !self.spent
    }

    /// More was wanted than there was.
    pub const fn is_spent(&self) -> bool {
        self.spent
    }

    pub const fn left(&self) -> u32 {
        self.left
    }
}

/// The matches of one buffer of one rule, ready to run.
#[derive(Debug)]
pub struct Steps {
    steps: Vec<Step>,
    /// Names by their numbers: first those of another buffer of the rule, then its own.
    names: Vec<String>,
    /// Contents behind a pattern: it is not looked for where one of these is missing.
    required: Box<[u16]>,
    /// Bytes from the first matched byte to the last at most, `None` without bound.
    pub span: Option<usize>,
    /// No byte at or after this offset of the buffer can be part of a match, `None` without bound.
    pub reach: Option<u64>,
}

#[derive(Debug)]
struct Step {
    action: Action,
    /// The step after this one begins where this one ended: try again further on when it fails.
    relative_next: bool,
}

#[derive(Debug)]
enum Action {
    // In boxes, as most are contents: a set has two hundred thousand steps.
    Content(Box<Content>),
    Pcre(Box<Pattern>),
    IsDataAt(Box<IsDataAt>, Option<u8>),
    ByteTest(Box<ByteTest>, [Option<u8>; 3]),
    ByteJump(Box<ByteJump>, [Option<u8>; 3]),
    ByteExtract(Box<ByteExtract>, u8),
    ByteMath(Box<ByteMath>, [Option<u8>; 2], u8),
    /// And what is asked of the decoded bytes.
    Base64(Box<(Base64Decode, Vec<Step>)>),
    Entropy(Box<Entropy>),
    Asn1(Box<Asn1>),
    Bsize(NumberTest),
    /// The buffer is a value of a set, or has a score there.
    Dataset(Box<InSet>),
}

#[derive(Debug)]
struct InSet {
    name: String,
    source: DatasetSource,
    asked: AskedOfSet,
    /// Set by [`Steps::bind`]; nothing holds of a set that is not there.
    known: Option<Arc<Dataset>>,
}

#[derive(Debug)]
enum AskedOfSet {
    Is(DatasetOperation),
    Scores(Relation, u16),
}

impl InSet {
    fn holds(&self, bytes: &[u8]) -> bool {
        let Some(known) = &self.known else { return false };
        match self.asked {
            AskedOfSet::Is(operation) => known.apply(operation, bytes),
            AskedOfSet::Scores(relation, wanted) => known.score(bytes).is_some_and(|score| match relation {
                Relation::Equal => score == wanted,
                Relation::NotEqual => score != wanted,
                Relation::Less => score < wanted,
                Relation::Greater => score > wanted,
            }),
        }
    }
}

#[derive(Debug)]
struct Content {
    /// Lower case when `nocase`.
    bytes: Vec<u8>,
    /// Made when it is first looked for; sets have a hundred thousand contents, and traffic meets a few.
    finder: OnceLock<Box<memmem::Finder<'static>>>,
    /// The byte of it that is rarest in traffic.
    rare: usize,
    negated: bool,
    nocase: bool,
    ends_with: bool,
    relative: bool,
    offset: Position,
    /// From the start of the buffer, `offset` included.
    depth: Option<Position>,
    distance: Position,
    within: Option<Position>,
}

/// A number, or the value of a name.
#[derive(Debug, Clone, Copy)]
enum Position {
    Number(i32),
    Name(u8),
}

/// What is looked at: a piece of a stream, or a whole packet's payload (`base` 0).
#[derive(Debug, Clone, Copy)]
pub struct Buffer<'a> {
    pub bytes: &'a [u8],
    /// Offset in the stream of the first byte.
    pub base: u64,
}

/// Result of running the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// Where the furthest match ends, counted in the buffer's bytes.
    Match {
        end: usize,
    },
    NoMatch,
    /// [`STEPS_MAX`] was reached, or the packet's [`Work`] is spent: no match was found until then.
    Exhausted,
}

impl Steps {
    /// Compiles one buffer's matches. The error is for the rule's author.
    pub fn new(matches: &[Match]) -> Result<Self, String> {
        Self::with(matches, &[], &[])
    }

    /// The same for a buffer in which something is decoded, into which `decoded` looks. `known`: names that another buffer of the rule
    /// sets before ([`Self::names`], [`Self::values`]).
    pub(crate) fn with(matches: &[Match], decoded: &[Match], known: &[String]) -> Result<Self, String> {
        let mut names = known.to_vec();
        let steps = Self::steps(matches, decoded, &mut names)?;
        let required = required(&steps);
        Ok(Self { steps, names, required, span: span(matches), reach: reach(matches) })
    }

    /// Asks for faults in BER behind all else.
    pub(crate) fn then_asn1(mut self, asn1: Asn1) -> Self {
        self.steps.push(Step { action: Action::Asn1(Box::new(asn1)), relative_next: false });
        (self.span, self.reach) = (None, None);
        self
    }

    fn steps(matches: &[Match], decoded: &[Match], names: &mut Vec<String>) -> Result<Vec<Step>, String> {
        let mut steps = Vec::with_capacity(matches.len());
        for (index, found) in matches.iter().enumerate() {
            let relative_next = matches.get(index + 1).is_some_and(Match::is_relative);
            let action = match found {
                Match::Content(content) => Action::Content(Box::new(Content::new(content, names)?)),
                Match::Pcre(pcre) => Action::Pcre(Box::new(pcre::compile(pcre)?)),
                Match::IsDataAt(at) => Action::IsDataAt(Box::new(at.clone()), name_of(&at.at, names)?),
                Match::ByteTest(test) => {
                    let value = match &test.value {
                        ByteValue::Number(_) => None,
                        ByteValue::Name(name) => Some(index_of(name, names)?),
                    };
                    Action::ByteTest(Box::new(test.clone()), [name_of(&test.count, names)?, name_of(&test.offset, names)?, value])
                }
                Match::ByteJump(jump) => {
                    let indexes = [name_of(&jump.count, names)?, name_of(&jump.offset, names)?, name_of(&jump.post_offset, names)?];
                    Action::ByteJump(Box::new(jump.clone()), indexes)
                }
                Match::ByteExtract(extract) => Action::ByteExtract(Box::new(extract.clone()), name(&extract.name, names)?),
                Match::ByteMath(math) => {
                    let operand = match &math.operand {
                        ByteValue::Number(_) => None,
                        ByteValue::Name(name) => Some(index_of(name, names)?),
                    };
                    let indexes = [name_of(&math.count, names)?, operand];
                    Action::ByteMath(Box::new(math.clone()), indexes, name(&math.result, names)?)
                }
                Match::Base64Decode(decode) => Action::Base64(Box::new((*decode, Self::steps(decoded, &[], names)?))),
                Match::Entropy(entropy) => Action::Entropy(Box::new(*entropy)),
                Match::Bsize(test) => Action::Bsize(*test),
                // Refused before, by their names.
                Match::Dataset(set) => Action::Dataset(Box::new(InSet {
                    name: set.name.clone(),
                    source: set.source.clone(),
                    asked: AskedOfSet::Is(set.operation),
                    known: None,
                })),
                Match::Datarep(set) => Action::Dataset(Box::new(InSet {
                    name: set.name.clone(),
                    source: set.source.clone(),
                    asked: AskedOfSet::Scores(set.relation, set.score),
                    known: None,
                })),
                Match::Absent { .. } => {
                    return Err("a match of this rule is not supported yet".to_owned());
                }
            };
            steps.push(Step { action, relative_next });
        }
        Ok(steps)
    }

    /// To run it changes a set.
    pub(crate) fn writes(&self) -> bool {
        let writes = |set: &InSet| matches!(set.asked, AskedOfSet::Is(DatasetOperation::Set | DatasetOperation::Unset));
        self.steps.iter().any(|step| matches!(&step.action, Action::Dataset(set) if writes(set)))
    }

    /// Joins it to the sets that it names.
    pub(crate) fn bind(&mut self, sets: &mut Sets<'_>) -> Result<(), String> {
        fn each(steps: &mut [Step], sets: &mut Sets<'_>) -> Result<(), String> {
            for step in steps {
                match &mut step.action {
                    Action::Dataset(set) => {
                        set.known = Some(sets.dataset(&set.name, &set.source, matches!(set.asked, AskedOfSet::Scores(..)))?);
                    }
                    Action::Base64(decoded) => each(&mut decoded.1, sets)?,
                    _ => {}
                }
            }
            Ok(())
        }
        each(&mut self.steps, sets)
    }

    /// What its steps set, and what was known before.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether something else than literals decides: then no literal in new bytes is needed for a new match.
    pub fn needs_every_run(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step.action, Action::Content(_)))
    }

    /// A match in a part of the buffer is one in the whole: more bytes take nothing away.
    pub fn only_gains(&self) -> bool {
        self.steps.iter().all(|step| match &step.action {
            Action::Content(content) => !content.negated && !content.ends_with,
            Action::Pcre(pattern) => !pattern.may_lose(),
            Action::IsDataAt(at, _) => !at.negated,
            Action::ByteTest(..) | Action::ByteExtract(..) | Action::ByteMath(..) => true,
            Action::Base64(..) | Action::Entropy(_) | Action::Asn1(_) => false,
            Action::ByteJump(jump, _) => !jump.from_end,
            Action::Bsize(_) | Action::Dataset(_) => false,
        })
    }

    /// More than literals, numbers and sizes is looked for.
    pub(crate) fn is_slow(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Pcre(_) | Action::Base64(..) | Action::Entropy(_) | Action::Asn1(_)))
    }

    /// One literal, which is there or is not: nothing to wait for.
    pub fn is_single(&self) -> bool {
        self.steps.len() == 1 && matches!(self.steps[0].action, Action::Content(_))
    }

    /// Whether bytes from `fresh` on can have completed a match: one of the literals ends there, or something
    /// else than literals decides.
    pub fn touches(&self, window: &[u8], fresh: usize, work: &mut Work) -> bool {
        self.steps.iter().any(|step| match &step.action {
            Action::Content(content) => {
                let from = (fresh + 1).saturating_sub(content.bytes.len()).min(window.len());
                !content.negated && content.find(&window[from..], work).is_some()
            }
            Action::Pcre(_)
            | Action::IsDataAt(..)
            | Action::ByteTest(..)
            | Action::ByteJump(..)
            | Action::ByteExtract(..)
            | Action::ByteMath(..)
            | Action::Base64(..)
            | Action::Entropy(_)
            | Action::Asn1(_)
            | Action::Bsize(_)
            | Action::Dataset(_) => true,
        })
    }

    pub fn run(&self, buffer: Buffer<'_>, work: &mut Work) -> Inspection {
        self.run_with(buffer, &[0; NAMES_MAX], work)
    }

    /// The values of the names where all steps hold.
    pub(crate) fn values(&self, buffer: Buffer<'_>, work: &mut Work) -> Option<NameValues> {
        let mut run = Run { buffer, names: [0; NAMES_MAX], left: STEPS_MAX, end: 0, work };
        (run.from(&self.steps, 0) && !run.work.is_spent()).then_some(run.names)
    }

    /// `names`: values of those that were known before.
    pub(crate) fn run_with(&self, buffer: Buffer<'_>, names: &NameValues, work: &mut Work) -> Inspection {
        let there = |place: &u16| match self.steps.get(usize::from(*place)) {
            Some(Step { action: Action::Content(content), .. }) => content.find(buffer.bytes, work).is_some(),
            _ => true,
        };
        if !self.required.iter().all(there) {
            return if work.is_spent() { Inspection::Exhausted } else { Inspection::NoMatch };
        }
        let mut run = Run { buffer, names: *names, left: STEPS_MAX, end: 0, work };
        if run.from(&self.steps, 0) && !run.work.is_spent() {
            Inspection::Match { end: run.end }
        } else if run.left == 0 || run.work.is_spent() {
            Inspection::Exhausted
        } else {
            Inspection::NoMatch
        }
    }
}

/// Contents that must be there and stand behind the first pattern, where steps do nothing but look.
fn required(steps: &[Step]) -> Box<[u16]> {
    let only_looks = steps.iter().all(|step| {
        matches!(
            step.action,
            Action::Content(_)
                | Action::Pcre(_)
                | Action::IsDataAt(..)
                | Action::ByteTest(..)
                | Action::ByteJump(..)
                | Action::ByteExtract(..)
                | Action::Bsize(_)
        )
    });
    let first = steps.iter().position(|step| matches!(step.action, Action::Pcre(_))).filter(|_| only_looks).unwrap_or(steps.len());
    let behind = (0..).zip(steps).skip(first);
    behind.filter(|(_, step)| matches!(&step.action, Action::Content(content) if !content.negated)).map(|(place, _)| place).collect()
}

impl Content {
    fn new(content: &ContentMatch, names: &[String]) -> Result<Self, String> {
        let position = |amount: &Option<Amount>| -> Result<Option<Position>, String> {
            amount.as_ref().map(|amount| Position::new(amount, names)).transpose()
        };
        let bytes = if content.nocase { content.bytes.to_ascii_lowercase() } else { content.bytes.clone() };
        let offset = position(&content.offset)?.unwrap_or(Position::Number(0));
        let depth = if content.starts_with { Some(Position::Number(bytes.len() as i32)) } else { position(&content.depth)? };
        Ok(Self {
            finder: OnceLock::new(),
            rare: rarest(&bytes),
            negated: content.negated,
            nocase: content.nocase,
            ends_with: content.ends_with,
            relative: content.is_relative(),
            offset,
            depth,
            distance: position(&content.distance)?.unwrap_or(Position::Number(0)),
            within: position(&content.within)?,
            bytes,
        })
    }

    /// First place of the literal in `window`.
    fn find(&self, window: &[u8], work: &mut Work) -> Option<usize> {
        if self.nocase {
            return find_nocase(window, &self.bytes, self.rare, work);
        }
        if window.len() < self.bytes.len() {
            work.charge(1);
            return None;
        }
        let found = self.finder.get_or_init(|| Box::new(memmem::Finder::new(&self.bytes).into_owned())).find(window);
        work.charge(1 + found.unwrap_or(window.len()) / LITERAL_BYTES_PER_UNIT);
        found
    }

    fn equals(&self, bytes: &[u8]) -> bool {
        if self.nocase { bytes.eq_ignore_ascii_case(&self.bytes) } else { bytes == self.bytes.as_slice() }
    }
}

/// `needle` is lower case. SIMD for its byte `rare` in both cases, then a comparison, which is charged.
fn find_nocase(haystack: &[u8], needle: &[u8], rare: usize, work: &mut Work) -> Option<usize> {
    let (wanted, last_start) = (*needle.get(rare)?, haystack.len().checked_sub(needle.len())?);
    let mut at = 0;
    while at <= last_start {
        let skipped = memchr::memchr2(wanted, wanted.to_ascii_uppercase(), &haystack[at + rare..=last_start + rare]);
        let step = skipped.unwrap_or(last_start + 1 - at);
        if !work.charge(1 + step / LITERAL_BYTES_PER_UNIT + needle.len() / LITERAL_BYTES_PER_UNIT) {
            return None;
        }
        at += skipped?;
        if haystack[at..at + needle.len()].eq_ignore_ascii_case(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Place of the byte that is rarest in traffic.
fn rarest(bytes: &[u8]) -> usize {
    let rarity = |(_, byte): &(usize, &u8)| commonness(byte.to_ascii_lowercase()).max(commonness(byte.to_ascii_uppercase()));
    bytes.iter().enumerate().min_by_key(rarity).map_or(0, |(place, _)| place)
}

impl Position {
    fn new(amount: &Amount, names: &[String]) -> Result<Self, String> {
        Ok(match amount {
            Amount::Number(number) => Self::Number(*number),
            Amount::Name(name) => Self::Name(index_of(name, names)?),
        })
    }

    fn value(self, names: &[u64; NAMES_MAX]) -> i64 {
        match self {
            Self::Number(number) => i64::from(number),
            Self::Name(index) => i64::try_from(names[usize::from(index)]).unwrap_or(i64::MAX / 4).min(i64::MAX / 4),
        }
    }
}

/// Values by the numbers of their names.
pub(crate) type NameValues = [u64; NAMES_MAX];

struct Run<'a> {
    buffer: Buffer<'a>,
    names: NameValues,
    left: u32,
    /// Of the match so far.
    end: usize,
    work: &'a mut Work,
}

impl Run<'_> {
    /// Whether all steps hold. `previous`: where the match before ended, in the buffer's bytes.
    fn from(&mut self, steps: &[Step], previous: usize) -> bool {
        let Some((step, rest)) = steps.split_first() else { return true };
        if self.left == 0 || !self.work.charge(1) {
            return false;
        }
        self.left -= 1;
        let bytes = self.buffer.bytes;
        match &step.action {
            Action::Content(content) => self.content(content, step.relative_next, rest, previous),
            Action::Pcre(pattern) => self.pattern(pattern, step.relative_next, rest, previous),
            Action::IsDataAt(at, name) => {
                let offset = self.amount(&at.at, *name);
                // Counted from 1 when relative, from 0 when not, as the reference engine does.
                let there = if at.relative {
                    (previous as i64).saturating_add(offset) <= bytes.len() as i64
                } else {
                    offset.saturating_sub(self.buffer.base.min(i64::MAX as u64 / 4) as i64) < bytes.len() as i64
                };
                there != at.negated && self.from(rest, previous)
            }
            Action::ByteTest(test, names) => self.byte_test(test, names, previous) && self.from(rest, previous),
            Action::ByteJump(jump, names) => match self.byte_jump(jump, names, previous) {
                Some(end) => self.from(rest, end),
                None => false,
            },
            Action::ByteExtract(extract, name) => match self.byte_extract(extract, previous) {
                Some((value, end)) => {
                    self.names[usize::from(*name)] = value;
                    self.from(rest, end)
                }
                None => false,
            },
            Action::ByteMath(math, names, result) => match self.byte_math(math, names, previous) {
                Some((value, end)) => {
                    self.names[usize::from(*result)] = value;
                    self.from(rest, end)
                }
                None => false,
            },
            Action::Base64(decoded) => self.base64(&decoded.0, &decoded.1, previous) && self.from(rest, previous),
            Action::Entropy(entropy) => {
                let text = bytes.get(entropy.offset as usize..).and_then(|text| match entropy.bytes {
                    Some(count) => text.get(..count as usize),
                    None => Some(text),
                });
                text.is_some_and(|text| {
                    self.work.charge(1 + text.len() / DERIVED_BYTES_PER_UNIT) && derive::entropy_holds(entropy.test, derive::entropy(text))
                }) && self.from(rest, previous)
            }
            Action::Asn1(asn1) => {
                self.work.charge(1 + bytes.len() / DERIVED_BYTES_PER_UNIT)
                    && derive::asn1(asn1, bytes, previous)
                    && self.from(rest, previous)
            }
            Action::Bsize(test) => test.matches(u32::try_from(bytes.len()).unwrap_or(u32::MAX)) && self.from(rest, previous),
            Action::Dataset(set) => {
                self.work.charge(1 + bytes.len() / DERIVED_BYTES_PER_UNIT) && set.holds(bytes) && self.from(rest, previous)
            }
        }
    }

    fn content(&mut self, content: &Content, relative_next: bool, rest: &[Step], previous: usize) -> bool {
        let bytes = self.buffer.bytes;
        let size = bytes.len() as i64;
        let length = content.bytes.len();
        let base = self.buffer.base.min(i64::MAX as u64 / 4) as i64;
        // Window in the buffer's bytes.
        let (mut low, mut high) = if content.relative {
            let distance = content.distance.value(&self.names);
            let low = previous as i64 + distance;
            let high = content.within.map_or(size, |within| previous as i64 + distance.saturating_add(within.value(&self.names)));
            (low.max(0), high.min(size))
        } else {
            let offset = content.offset.value(&self.names);
            let high = content.depth.map_or(size, |depth| offset.saturating_add(depth.value(&self.names)) - base);
            ((offset - base).max(0), high.min(size))
        };
        if content.ends_with {
            if high < size {
                return content.negated && self.from(rest, previous);
            }
            low = low.max(size - length as i64);
        }
        high = high.max(0);
        if low > high || high - low < length as i64 {
            // There is no room for it: a negated content holds.
            return content.negated && self.from(rest, previous);
        }
        let (mut low, high) = (low as usize, high as usize);
        loop {
            let window = &bytes[low..high];
            let found = if content.ends_with {
                (window.len() >= length && content.equals(&window[window.len() - length..])).then(|| window.len() - length)
            } else {
                content.find(window, self.work)
            };
            if self.work.is_spent() {
                return false;
            }
            let Some(place) = found else {
                return content.negated && self.from(rest, previous);
            };
            if content.negated {
                return false;
            }
            let end = low + place + length;
            let before = self.end;
            self.end = before.max(end);
            if self.from(rest, end) {
                return true;
            }
            self.end = before;
            // Only what relates to this place may hold for another one.
            if !relative_next || self.left == 0 {
                return false;
            }
            self.left = self.left.saturating_sub(1);
            low += place + 1;
            if high.saturating_sub(low) < length {
                return false;
            }
        }
    }

    fn pattern(&mut self, pattern: &Pattern, relative_next: bool, rest: &[Step], previous: usize) -> bool {
        let bytes = self.buffer.bytes;
        let start = if pattern.relative { previous.min(bytes.len()) } else { 0 };
        if pattern.anchored && !pattern.relative && self.buffer.base > 0 {
            return pattern.negated && self.from(rest, previous);
        }
        let mut low = start;
        loop {
            // What was walked over is known behind it; a search is linear, so one more than the cap allows is no harm.
            let window = bytes.get(low..).unwrap_or_default();
            let (first, last) = match pattern.find(window, self.work) {
                Search::Found { start, end } => (start, end),
                Search::NoMatch => return pattern.negated && low == start && self.from(rest, previous),
                Search::Exhausted => {
                    // Nobody knows whether it is there.
                    self.left = 0;
                    return false;
                }
            };
            if pattern.negated {
                return false;
            }
            let end = low + last;
            let before = self.end;
            self.end = before.max(end);
            if self.from(rest, end) {
                return true;
            }
            self.end = before;
            if !relative_next || self.left == 0 {
                return false;
            }
            // A search of the rest may cost as much as the first: charge it.
            self.left = self.left.saturating_sub(16);
            low += first + 1;
        }
    }

    fn amount(&self, amount: &Amount, name: Option<u8>) -> i64 {
        match (amount, name) {
            (Amount::Number(number), _) => i64::from(*number),
            (Amount::Name(_), Some(index)) => Position::Name(index).value(&self.names),
            (Amount::Name(_), None) => 0,
        }
    }

    /// Bytes `count` at `offset`, from `previous` when relative.
    fn read(&self, count: i64, offset: i64, relative: bool, previous: usize, base: Base) -> Option<(u64, usize)> {
        let start = if relative { previous as i64 } else { -(self.buffer.base.min(i64::MAX as u64 / 4) as i64) }.checked_add(offset)?;
        let start = usize::try_from(start).ok()?;
        let available = self.buffer.bytes.get(start..)?;
        match base {
            Base::Binary(endian) => {
                let count = usize::try_from(count).ok().filter(|count| (1..=8).contains(count))?;
                let raw = available.get(..count)?;
                let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
                let value = match endian {
                    Endian::Big => raw.iter().fold(0, fold),
                    // Where the message says otherwise, other steps are run.
                    Endian::Little | Endian::Dce => raw.iter().rev().fold(0, fold),
                };
                Some((value, start + count))
            }
            Base::Hex | Base::Decimal | Base::Octal => {
                let most = if count == 0 { 23.min(available.len()) } else { usize::try_from(count).ok()? };
                let text = available.get(..most)?;
                let radix = match base {
                    Base::Hex => 16,
                    Base::Octal => 8,
                    Base::Decimal | Base::Binary(_) => 10,
                };
                let blank = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let digits = text.get(blank..)?;
                let digits = if radix == 16 { digits.strip_prefix(b"0x").unwrap_or(digits) } else { digits };
                let used = digits.iter().take_while(|byte| (**byte as char).is_digit(radix)).count();
                if used == 0 {
                    return None;
                }
                let value = digits[..used].iter().try_fold(0u64, |value, byte| {
                    value.checked_mul(u64::from(radix))?.checked_add(u64::from((*byte as char).to_digit(radix)?))
                })?;
                let end = if count == 0 { text.len() - digits.len() + used } else { most };
                Some((value, start + end))
            }
        }
    }

    fn byte_test(&self, test: &ByteTest, names: &[Option<u8>; 3], previous: usize) -> bool {
        let (count, offset) = (self.amount(&test.count, names[0]), self.amount(&test.offset, names[1]));
        let Some((value, _)) = self.read(count, offset, test.relative, previous, test.base) else { return false };
        let value = masked(value, test.bitmask);
        let wanted = match (&test.value, names[2]) {
            (ByteValue::Number(number), _) => *number,
            (ByteValue::Name(_), Some(index)) => self.names[usize::from(index)],
            (ByteValue::Name(_), None) => 0,
        };
        let holds = match test.comparison {
            Comparison::Less => value < wanted,
            Comparison::Greater => value > wanted,
            Comparison::Equal => value == wanted,
            Comparison::LessOrEqual => value <= wanted,
            Comparison::GreaterOrEqual => value >= wanted,
            Comparison::And => value & wanted != 0,
            Comparison::Or => value ^ wanted != 0,
        };
        holds != test.negated
    }

    fn byte_jump(&self, jump: &ByteJump, names: &[Option<u8>; 3], previous: usize) -> Option<usize> {
        let (count, offset) = (self.amount(&jump.count, names[0]), self.amount(&jump.offset, names[1]));
        let (value, after) = if count == 0 && matches!(jump.base, Base::Binary(_)) {
            (0, usize::try_from(if jump.relative { previous as i64 } else { 0 } + offset).ok()?)
        } else {
            self.read(count, offset, jump.relative, previous, jump.base)?
        };
        let mut distance = masked(value, jump.bitmask).checked_mul(u64::from(jump.multiplier))?;
        if jump.align {
            distance = distance.checked_next_multiple_of(4)?;
        }
        let distance = i64::try_from(distance).ok()?;
        let from = if jump.from_beginning {
            0
        } else if jump.from_end {
            self.buffer.bytes.len() as i64
        } else {
            after as i64
        };
        let post = self.amount(&jump.post_offset, names[2]);
        // Before the start means the start.
        let to = usize::try_from(from.checked_add(distance)?.checked_add(post)?.max(0)).ok()?;
        (to < self.buffer.bytes.len()).then_some(to)
    }

    /// The result, and where the bytes end.
    fn byte_math(&self, math: &ByteMath, names: &[Option<u8>; 2], previous: usize) -> Option<(u64, usize)> {
        let count = self.amount(&math.count, names[0]);
        let (value, end) = self.read(count, i64::from(math.offset), math.relative, previous, math.base)?;
        let by = match (&math.operand, names[1]) {
            (ByteValue::Number(number), _) => *number,
            (ByteValue::Name(_), Some(index)) => self.names[usize::from(index)],
            (ByteValue::Name(_), None) => 0,
        };
        let shift = u32::try_from(by).unwrap_or(u32::MAX);
        let value = match math.operator {
            MathOperator::Add => value.wrapping_add(by),
            MathOperator::Subtract => value.wrapping_sub(by),
            MathOperator::Divide => value.checked_div(by)?,
            MathOperator::Multiply => value.wrapping_mul(by),
            MathOperator::ShiftLeft => value.checked_shl(shift).unwrap_or(0),
            MathOperator::ShiftRight => value.checked_shr(shift).unwrap_or(0),
        };
        Some((masked(value, u64::from(math.bitmask)), end))
    }

    /// Decodes, and asks the decoded bytes.
    fn base64(&mut self, decode: &Base64Decode, inner: &[Step], previous: usize) -> bool {
        let start = if decode.relative { previous } else { 0 } + decode.offset as usize;
        let Some(text) = self.buffer.bytes.get(start..).filter(|text| !text.is_empty()) else { return false };
        let most = decode.bytes.map_or(BASE64_BYTES_MAX, |bytes| (bytes as usize).min(BASE64_BYTES_MAX));
        let text = &text[..text.len().min(most)];
        if !self.work.charge(1 + text.len() / DERIVED_BYTES_PER_UNIT) {
            return false;
        }
        let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
        derive::base64(text, Base64Mode::Rfc4648, &mut decoded);
        if decoded.is_empty() {
            return false;
        }
        let buffer = Buffer { bytes: &decoded, base: 0 };
        let mut run = Run { buffer, names: self.names, left: self.left, end: 0, work: &mut *self.work };
        let holds = run.from(inner, 0);
        (self.names, self.left) = (run.names, run.left);
        holds
    }

    fn byte_extract(&self, extract: &ByteExtract, previous: usize) -> Option<(u64, usize)> {
        let (value, end) = self.read(i64::from(extract.count), i64::from(extract.offset), extract.relative, previous, extract.base)?;
        let mut value = masked(value, extract.bitmask).checked_mul(u64::from(extract.multiplier))?;
        if extract.align > 0 {
            value = value.checked_next_multiple_of(u64::from(extract.align))?;
        }
        Some((value, end))
    }
}

/// The bits of the mask, moved down by its trailing zeros.
const fn masked(value: u64, mask: u64) -> u64 {
    if mask == 0 { value } else { (value & mask) >> mask.trailing_zeros() }
}

/// The number of a name that is set, which may be new.
fn name(name: &str, names: &mut Vec<String>) -> Result<u8, String> {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    if names.len() > NAMES_MAX {
        return Err(format!("a rule sets more than {NAMES_MAX} names"));
    }
    index_of(name, names)
}

fn name_of(amount: &Amount, names: &[String]) -> Result<Option<u8>, String> {
    match amount {
        Amount::Number(_) => Ok(None),
        Amount::Name(name) => index_of(name, names).map(Some),
    }
}

fn index_of(name: &str, names: &[String]) -> Result<u8, String> {
    names.iter().position(|known| known == name).map(|index| index as u8).ok_or_else(|| format!("`{name}` is not set in this buffer"))
}

/// Upper bound of the bytes between the first and the last byte of a match.
fn span(matches: &[Match]) -> Option<usize> {
    let mut total = 0usize;
    let mut positive = 0;
    for found in matches {
        let Match::Content(content) = found else { return None };
        let length = content.bytes.len();
        if content.negated {
            continue;
        }
        positive += 1;
        total += match (&content.within, positive) {
            (_, 1) => length,
            (Some(Amount::Number(within)), _) => {
                let distance = match &content.distance {
                    None => 0,
                    Some(Amount::Number(distance)) => *distance,
                    Some(Amount::Name(_)) => return None,
                };
                usize::try_from(distance.unsigned_abs()).ok()? + usize::try_from(*within).ok()?
            }
            _ => return None,
        };
    }
    // Negated contents look at what was before too.
    let negated = matches.iter().any(|found| matches!(found, Match::Content(content) if content.negated));
    (!negated).then_some(total)
}

/// Where the last byte of a match can stand at most.
fn reach(matches: &[Match]) -> Option<u64> {
    let mut furthest = 0u64;
    for found in matches {
        let Match::Content(content) = found else { return None };
        if content.negated {
            continue;
        }
        let length = content.bytes.len() as u64;
        let here = if content.starts_with {
            length
        } else {
            let number = |amount: &Option<Amount>| match amount {
                None => Some(0),
                Some(Amount::Number(number)) => Some(u64::from(number.unsigned_abs())),
                Some(Amount::Name(_)) => None,
            };
            if content.is_relative() {
                content.within.as_ref()?;
                furthest + number(&content.distance)? + number(&content.within)?
            } else {
                content.depth.as_ref()?;
                number(&content.offset)? + number(&content.depth)?
            }
        };
        furthest = furthest.max(here);
    }
    Some(furthest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(options: &str, text: &[u8]) -> bool {
        run_at(options, text, 0)
    }

    fn run_at(options: &str, text: &[u8], base: u64) -> bool {
        let file = bulkhead_rules::parse(&format!("alert tcp any any -> any any (msg:\"m\"; {options} sid:1;)"));
        assert_eq!(file.counts.loaded, 1, "{:?}", file.diagnostics);
        let buffers = &file.rules[0].signature.buffers;
        let decoded = buffers.get(1).map_or(&[][..], |list| &list.matches);
        let steps = Steps::with(&buffers[0].matches, decoded, &[]).unwrap();
        matches!(steps.run(Buffer { bytes: text, base }, &mut Work::default()), Inspection::Match { .. })
    }

    #[test]
    fn positions_mean_what_the_guide_says() {
        assert!(run(r#"content:"def"; offset:3; depth:3;"#, b"abcdefghij"));
        assert!(!run(r#"content:"def"; offset:4; depth:3;"#, b"abcdefghij"));
        assert!(!run(r#"content:"def"; depth:5;"#, b"abcdefghij"));
        assert!(run(r#"content:"abc"; content:"def"; distance:0; within:3;"#, b"abcdef"));
        assert!(!run(r#"content:"abc"; content:"klm"; within:9;"#, b"abcdefghijklm"));
        assert!(run(r#"content:"abc"; content:"jkl"; within:9;"#, b"abcdefghijklm"));
        assert!(run(r#"content:"abc"; content:"xyz"; distance:1; within:3;"#, b"abc_xyz"));
        assert!(!run(r#"content:"abc"; content:"xyz"; distance:1; within:3;"#, b"abc__xyz"));
        assert!(run(r#"content:"def"; content:"abc"; distance:-6; within:3;"#, b"abcdef"));
        assert!(run(r#"content:"abc"; startswith;"#, b"abcd") && !run(r#"content:"bcd"; startswith;"#, b"abcd"));
        assert!(run(r#"content:"bcd"; endswith;"#, b"abcd") && !run(r#"content:"abc"; endswith;"#, b"abcd"));
        assert!(run(r#"content:"ABC"; nocase;"#, b"xxabcxx") && !run(r#"content:"ABC";"#, b"xxabcxx"));
        assert!(run(r#"content:"abc"; content:!"def"; distance:0;"#, b"defabc") && !run(r#"content:"abc"; content:!"def";"#, b"defabc"));
        assert!(run(r#"content:!"GET"; depth:3;"#, b"PUT GET") && !run(r#"content:!"GET"; depth:3;"#, b"GET"));
        assert!(!run(r#"content:!"abcdef"; content:"zzz";"#, b"abc") && run(r#"content:!"abcdef"; content:"a";"#, b"abc"));
    }

    #[test]
    fn a_relative_match_that_fails_is_tried_further_on() {
        assert!(run(r#"content:"ab"; content:"c"; distance:0; within:1;"#, b"ab ab abc"));
        assert!(run(r#"content:"a"; content:"b"; within:1; content:"c"; within:1;"#, b"ab abx abc"));
        assert!(run(r#"pcre:"/a./"; content:"z"; within:1;"#, b"ab ac adz"));
        assert!(run(r#"content:"k="; pcre:"/^[0-9]{4}/R";"#, b"k=x k=12 k=1234"));
    }

    #[test]
    fn numbers_are_read_from_bytes_and_text() {
        assert!(
            run(r#"content:"L"; byte_test:2,>,255,0,relative;"#, b"L\x01\x00")
                && !run(r#"content:"L"; byte_test:2,>,256,0,relative;"#, b"L\x01\x00")
        );
        assert!(run(r#"byte_test:2,=,1,0,little;"#, b"\x01\x00"));
        assert!(run(r#"content:"n="; byte_test:4,=,0x1f,0,relative,string,hex;"#, b"n=001f"));
        assert!(run(r#"content:"L"; byte_jump:1,0,relative; content:"x"; within:1;"#, b"L\x03abcx"));
        assert!(run(r#"byte_extract:1,0,len; content:"end"; offset:len; depth:3;"#, b"\x05abcdend"));
        assert!(run(r#"content:"a"; isdataat:2,relative;"#, b"abc") && !run(r#"content:"a"; isdataat:2,relative;"#, b"ab"));
        assert!(run(r#"isdataat:2;"#, b"abc") && !run(r#"isdataat:3;"#, b"abc"));
        assert!(run(r#"content:"b"; isdataat:!1,relative;"#, b"xab") && !run(r#"content:"a"; isdataat:!1,relative;"#, b"xab"));
        assert!(run(r#"byte_test:1,&,0x80,0;"#, b"\x81") && run(r#"byte_test:1,!&,0x80,0;"#, b"\x01"));
    }

    #[test]
    fn numbers_are_reckoned_with_and_texts_decoded() {
        assert!(run(r#"byte_math:bytes 1, offset 0, oper +, rvalue 3, result at; content:"x"; offset:at; depth:1;"#, b"\x02abcdx"));
        assert!(run(r#"byte_math:bytes 1, offset 0, oper <<, rvalue 2, result at; isdataat:at;"#, b"\x01abcd"));
        assert!(!run(r#"byte_math:bytes 1, offset 0, oper /, rvalue 2, result at; byte_test:1,=,at,0;"#, b"\x02abcd"));
        assert!(run(
            r#"content:"d="; base64_decode:offset 0, relative; base64_data; content:"Hello"; startswith; content:"World"; endswith;"#,
            b"d=SGVsbG8gV29ybGQ="
        ));
        assert!(!run(r#"base64_decode:bytes 8; base64_data; content:"World";"#, b"SGVsbG8gV29ybGQ="));
        assert!(!run(r#"base64_decode; content:"=";"#, b"==") && !run(r#"base64_decode:offset 40; base64_data; content:"W";"#, b"V29y"));
        assert!(run(r#"entropy:value > 1.5;"#, b"abcd") && !run(r#"entropy:offset 2, bytes 2, value > 1.5;"#, b"abcd"));
    }

    #[test]
    fn positions_of_a_stream_count_from_its_start() {
        assert!(run_at(r#"content:"abc"; offset:10; depth:5;"#, b"xabc", 10));
        assert!(!run_at(r#"content:"abc"; depth:5;"#, b"abc", 10));
        assert!(!run_at(r#"content:"abc"; startswith;"#, b"abc", 1));
        assert!(!run_at(r#"pcre:"/^abc/";"#, b"abc", 1) && run_at(r#"pcre:"/^abc/";"#, b"abc", 0));
    }

    #[test]
    fn hostile_repetition_ends() {
        let text = b"ab".repeat(32 * 1024);
        assert!(!run(
            r#"content:"a"; content:"b"; distance:0; content:"a"; distance:0; content:"b"; distance:0; content:"c"; distance:0;"#,
            &text
        ));
    }

    #[test]
    fn case_does_not_matter_wherever_the_rare_byte_stands() {
        for needle in ["zabc", "abzc", "abcz", "aaaa", "q"] {
            let rule = format!(r#"content:"{needle}"; nocase;"#);
            let upper = needle.to_ascii_uppercase();
            for text in [format!("..{needle}"), format!("{upper}.."), format!("{}{upper}", &needle[..needle.len() - 1])] {
                assert!(run(&rule, text.as_bytes()), "{needle} in {text}");
            }
            assert!(!run(&rule, &upper.as_bytes()[1..]) && !run(&rule, b""), "{needle}");
        }
    }

    #[test]
    fn work_is_charged_whatever_a_rule_does_and_ends_at_the_cap() {
        let text = b"ab".repeat(64 * 1024);
        let rules = [
            r#"content:"a"; content:"b"; distance:0; content:"a"; distance:0; content:"c"; distance:0;"#,
            r#"content:"aB"; nocase; content:"ABC"; nocase; distance:0;"#,
            r#"pcre:"/a/"; pcre:"/b.*c/R";"#,
            r#"content:"b"; content:!"c"; distance:0; pcre:"/ab.{5}c/R";"#,
            r#"content:"a"; byte_jump:1,0,relative; isdataat:1,relative; content:"c"; distance:0;"#,
        ];
        let all: Vec<Steps> = rules
            .iter()
            .map(|options| {
                let file = bulkhead_rules::parse(&format!("alert tcp any any -> any any (msg:\"m\"; {options} sid:1;)"));
                Steps::new(&file.rules[0].signature.buffers[0].matches).unwrap()
            })
            .collect();
        let mut work = Work::default();
        let mut runs = 0;
        while !work.is_spent() {
            let before = work.left();
            let inspection = all[runs % all.len()].run(Buffer { bytes: &text, base: 0 }, &mut work);
            assert!(work.left() < before || work.is_spent(), "{}", rules[runs % all.len()]);
            assert!(!work.is_spent() || inspection == Inspection::Exhausted);
            runs += 1;
            assert!(runs < 10_000);
        }
        let before = work.left();
        assert_eq!(all[0].run(Buffer { bytes: &text, base: 0 }, &mut work), Inspection::Exhausted);
        assert_eq!(before, 0);
    }

    #[test]
    fn bounds_of_a_rule_are_known() {
        let steps = |options: &str| {
            let file = bulkhead_rules::parse(&format!("alert tcp any any -> any any (msg:\"m\"; {options} sid:1;)"));
            let steps = Steps::new(&file.rules[0].signature.buffers[0].matches).unwrap();
            (steps.span, steps.reach)
        };
        assert_eq!(steps(r#"content:"abc";"#), (Some(3), None));
        assert_eq!(steps(r#"content:"abc"; depth:10; content:"d"; distance:2; within:4;"#), (Some(9), Some(16)));
        assert_eq!(steps(r#"content:"abc"; content:"d";"#), (None, None));
    }
}
