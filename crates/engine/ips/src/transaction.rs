//! Detection over transactions: rules whose matches look into the buffers of an application layer.
//!
//! ```text
//! new value ─ groups of (buffer, direction, transforms) ─ transform ─ prefilter ─ candidates of the transaction
//! candidates ─ each of their buffers in turn, as it comes ─ all hold: matched, once a transaction
//! ```
//! A rule's lists become decidable at different times: its method with the request line, its body much later. What was
//! decided stays with the transaction as one bit a list ([`TxState`]), so that nothing is looked at twice and a rule costs nothing
//! before its fast pattern was found. What else a rule asks (addresses, flow, flow bits, thresholds) is asked of what matched,
//! by the same code that asks it of packets.
//!
//! Nothing is allocated for a transaction once [`TxState`] and [`TxScratch`] have grown to what the traffic needs: both are
//! cleared and used again. Which parser filled a buffer is not known here: values come through [`Values`].

mod condition;
mod rule;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use bulkhead_net::flow::Direction;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::condition::{Condition, IntegerTest, TlsVersion, Towards, Which, XbitsTrack};
use bulkhead_rules::protocol::App;
use bulkhead_rules::tree::{FastPattern, FlowWord, FlowbitsOperation};
use bulkhead_rules::{Buffer as BufferName, BufferMatches, Code, ContentMatch, Field, Match, Rule};

use crate::files::{File, FileWants};
use crate::inspect::{Buffer, Inspection, NameValues, Steps, Work};
use rule::{Decision, Test, Trigger};
pub(crate) use rule::{TxRule, apps_of, is_of_transactions, is_parsed, numbers_hold};

use crate::prefilter::{CARRY_BYTES, Carry, LITERAL_BYTES_MAX, Prefilter};
use crate::rules::{decoded, is_of_flow, is_of_packet, of_dce, refused_beside_buffers, refused_match};
use crate::sets::{Resources, Sets};
use crate::transform::{Built, TRANSFORM_BYTES_PER_UNIT, build, needs_whole, transform};

/// Lists of matches in one rule: one bit each in a candidate.
const LISTS_MAX: usize = 32;
/// Rules that one transaction may have as candidates. Of all of ET Open a request has a dozen.
pub const CANDIDATES_MAX: usize = 512;
/// Bytes of what was found that are kept for an alert.
pub const EXCERPT_BYTES_MAX: usize = 256;
/// As many have room in a state that waits for its next transaction.
const CANDIDATES_KEPT: usize = 32;

/// One value of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Of a body that grows: a window that ends with the newest bytes.
    pub bytes: &'a [u8],
    /// Bytes of the value before `bytes`.
    pub base: u64,
    /// `bytes[fresh..]` is new since the last call.
    pub fresh: usize,
    /// It will not grow.
    pub done: bool,
}

impl<'a> Piece<'a> {
    /// A value that came whole.
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, base: 0, fresh: 0, done: true }
    }
}

/// What detection reads of a transaction.
pub trait Values {
    /// The values of a buffer that are there, in the order in which they came.
    fn pieces(&self, buffer: BufferId, dir: Direction) -> impl Iterator<Item = Piece<'_>>;

    /// No further value of this buffer will come in this direction.
    fn is_settled(&self, buffer: BufferId, dir: Direction) -> bool;

    /// The numbers of a name that are there, in the order in which they came.
    fn numbers(&self, field: Field, dir: Direction) -> impl Iterator<Item = u64>;

    /// The numbers of a parser's own name.
    fn named(&self, name: &str, dir: Direction) -> impl Iterator<Item = u64> {
        let _ = (name, dir);
        std::iter::empty()
    }

    /// Interfaces of DCE/RPC that a call goes to.
    fn interfaces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    /// Numbers of the message are in network order: what `dce` stands for.
    fn is_big_endian(&self) -> bool {
        false
    }

    /// The client's address.
    fn client(&self) -> Option<IpAddr> {
        None
    }

    /// Nothing further comes in this direction.
    fn is_complete(&self, dir: Direction) -> bool;

    /// How far a direction has come, from 0 (nothing) to 5 (complete), as `bulkhead_applayer::Stage` counts.
    fn progress(&self, dir: Direction) -> u8 {
        if self.is_complete(dir) { 5 } else { 0 }
    }

    /// Of the packet in hand, seconds since 1970.
    fn now(&self) -> Option<i64> {
        None
    }

    /// Asked before a rule that changes a set is run: whether its addresses and ports fit.
    fn may(&self, rule: TxRuleId) -> bool {
        let _ = rule;
        true
    }

    /// Files of a direction.
    fn files(&self, dir: Direction) -> impl Iterator<Item = &File> {
        let _ = dir;
        std::iter::empty()
    }

    /// Names of the events so far, `http.missing_host_header`.
    fn events(&self) -> impl Iterator<Item = &str>;

    /// The bytes as they came in the direction in hand, since about where the transaction begins, put into `into`. Their direction and
    /// the offset of the first.
    fn raw(&self, into: &mut Vec<u8>) -> Option<(Direction, u64)>;
}

/// Number of a rule among those that were compiled: its place in the slice.
pub type TxRuleId = u32;

/// The rules, grouped. Immutable.
#[derive(Debug, Default)]
pub struct TxRules {
    /// By place; `None`: not one of transactions, or refused.
    rules: Vec<Option<TxRule>>,
    /// Of those that are there.
    count: usize,
    /// By buffer, then direction: the places in `groups` at which those of it begin and end.
    by_buffer: Vec<[(u32, u32); 2]>,
    groups: Vec<Group>,
    /// Rules that wait for a literal in the payload.
    gated: Vec<TxRuleId>,
    /// Rules that become candidates with an event, or with a number.
    by_event: BTreeMap<String, Vec<TxRuleId>>,
    by_field: BTreeMap<Field, Vec<TxRuleId>>,
    /// Those that wait for a file.
    by_file: Vec<TxRuleId>,
    /// Those that ask for what is not there: candidates from the beginning.
    at_start: Vec<TxRuleId>,
    /// A rule looks at the payload too.
    wants_raw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Server,
    Client,
}

const fn side(dir: Direction) -> Side {
    match dir {
        Direction::ToServer => Side::Server,
        Direction::ToClient => Side::Client,
    }
}

/// Rules whose fast pattern is looked for in one buffer, one direction, behind the same transforms.
#[derive(Debug, Default)]
struct Group {
    transforms: Arc<[Built]>,
    prefilter: Prefilter,
    owners: Vec<Vec<TxRuleId>>,
    /// Without a literal: candidates as soon as the buffer is there.
    always: Vec<TxRuleId>,
}

/// What a transaction remembers. Cleared and used again for another.
#[derive(Debug, Default)]
pub struct TxState {
    /// Ascending by rule.
    candidates: Vec<Candidate>,
    /// Candidates had no room.
    pub refused: bool,
    /// Offsets in the stream before which no byte is the transaction's: to the server, to the client.
    pub raw_from: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    rule: TxRuleId,
    /// Its form for the client's direction.
    turned: bool,
    /// Lists that hold.
    holds: u32,
    /// It has matched, or cannot any more.
    over: bool,
}

/// Memory that is used from call to call.
#[derive(Debug, Default)]
pub struct TxScratch {
    transformed: Vec<u8>,
    other: Vec<u8>,
    hits: Vec<u32>,
    /// Rules that have matched in the last call, ascending.
    pub matched: Vec<TxRuleId>,
    /// By place in `matched`: the end of what was found last, at most [`EXCERPT_BYTES_MAX`] bytes.
    pub excerpts: Vec<Vec<u8>>,
    /// By place in `matched`: in its form for the client's direction.
    pub turned: Vec<bool>,
    /// The end of what the last list found.
    found: Vec<u8>,
    /// Rules of the last call that were given up on without an answer.
    pub exhausted: u32,
}

impl TxState {
    /// Nothing waits for more of the transaction.
    pub fn is_idle(&self) -> bool {
        self.candidates.iter().all(|candidate| candidate.over)
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.candidates.capacity() * size_of::<Candidate>()
    }

    pub fn clear(&mut self) {
        self.candidates.clear();
        self.candidates.shrink_to(CANDIDATES_KEPT);
        self.refused = false;
    }

    fn add(&mut self, rule: TxRuleId, turned: bool) {
        if let Err(place) = self.candidates.binary_search_by_key(&(rule, turned), |candidate| (candidate.rule, candidate.turned)) {
            if self.candidates.len() >= CANDIDATES_MAX {
                self.refused = true;
                return;
            }
            self.candidates.insert(place, Candidate { rule, turned, holds: 0, over: false });
        }
    }
}

impl TxRules {
    /// Compiles those of the rules that look into transactions. Others are passed over; those that ask for what is
    /// not known here are refused with a reason, never loaded with less than they say.
    pub fn compile<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> (Self, Vec<(TxRuleId, Code, String)>) {
        let mut refused = Vec::new();
        let resources = Resources::default();
        let mut sets = Sets::new(&resources);
        let mut bound = |mut compiled: Option<TxRule>| {
            let done = compiled.as_mut().map_or(Ok(()), |compiled| compiled.bind(&mut sets));
            done.map(|()| compiled).map_err(|message| (Code::ValueUnsupported, message))
        };
        let rules = (0..).zip(rules).map(|(number, rule)| match TxRule::new(rule).and_then(&mut bound) {
            Ok(compiled) => compiled,
            Err((code, reason)) => {
                refused.push((number, code, reason));
                None
            }
        });
        let built = Self::build(rules);
        (built, refused)
    }

    /// By place: `None` is not a rule of transactions.
    pub(crate) fn build(rules: impl IntoIterator<Item = Option<TxRule>>) -> Self {
        let mut built = Self::default();
        let mut drafts: BTreeMap<(BufferId, Side, Vec<u8>), Draft> = BTreeMap::new();
        for (number, compiled) in (0..).zip(rules) {
            let forms = compiled.iter().flat_map(|rule| std::iter::once(rule).chain(rule.turned.as_deref()));
            for (place, literal, tests) in forms.filter_map(|form| match &form.trigger {
                Trigger::List(place, literal) => Some((place, literal, &form.tests)),
                Trigger::Payload(_) | Trigger::Event(_) | Trigger::Number(_) | Trigger::File | Trigger::Start => None,
            }) {
                let Some(Test::List(list)) = tests.get(*place) else { continue };
                let sides = [(list.to_server, Side::Server), (list.to_client, Side::Client)];
                for (_, side) in sides.into_iter().filter(|(there, _)| *there) {
                    // A transform's own text tells it from others.
                    let key = (list.buffer, side, format!("{:?}", list.transforms).into_bytes());
                    let draft = drafts.entry(key).or_default();
                    draft.transforms = Arc::clone(&list.transforms);
                    match literal {
                        Some(literal) => draft.literals.entry(literal.clone()).or_default().push(number),
                        None => draft.always.push(number),
                    }
                }
            }
            match compiled.as_ref().map(|rule| &rule.trigger) {
                Some(Trigger::Event(name)) => built.by_event.entry(name.unwrap_or_default().to_owned()).or_default().push(number),
                Some(Trigger::Number(field)) => built.by_field.entry(*field).or_default().push(number),
                Some(Trigger::Payload(_)) => built.gated.push(number),
                Some(Trigger::File) => built.by_file.push(number),
                Some(Trigger::Start) => built.at_start.push(number),
                Some(Trigger::List(..)) | None => {}
            }
            built.count += usize::from(compiled.is_some());
            built.wants_raw |= compiled.iter().flat_map(|rule| &rule.tests).any(|test| matches!(test, Test::Payload { .. }));
            built.rules.push(compiled);
        }
        for ((buffer, side, _), draft) in drafts {
            let here = built.groups.len() as u32;
            built.by_buffer.resize(BufferId::ALL.len(), [(0, 0); 2]);
            let (first, end) = &mut built.by_buffer[buffer as usize][side as usize];
            // Those of one buffer and direction come one behind the other.
            if first == end {
                *first = here;
            }
            *end = here + 1;
            built.groups.push(draft.build());
        }
        built
    }

    /// Rules that can match a transaction.
    pub const fn len(&self) -> usize {
        self.count
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a rule is one of them.
    pub fn has(&self, rule: TxRuleId) -> bool {
        self.rules.get(rule as usize).is_some_and(Option::is_some)
    }

    /// Buffers that any rule looks into: what a parser need not fill otherwise.
    pub fn buffers(&self) -> impl Iterator<Item = BufferId> {
        let lists = self.rules.iter().flatten().flat_map(|rule| &rule.tests).flat_map(|test| match test {
            Test::List(list) if list.buffer == BufferId::FileMagic => vec![BufferId::FileData, BufferId::FileName],
            Test::List(list) => vec![list.buffer],
            Test::FtpBounce => vec![BufferId::FtpCommand, BufferId::FtpCommandData],
            Test::File { .. } => vec![BufferId::FileData, BufferId::FileName],
            Test::Other(_) => Vec::new(),
            Test::Number { .. } | Test::Event(_) | Test::Payload { .. } | Test::TlsVersion { .. } => Vec::new(),
        });
        let mut all: Vec<BufferId> = lists.collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }

    /// A transaction has begun: rules that ask for what is not there.
    pub fn begin(&self, app: App, state: &mut TxState) {
        self.add(app, &self.at_start, state);
    }

    /// The literal in the payload that a rule waits for.
    pub(crate) fn gate(&self, rule: TxRuleId) -> Option<&(Vec<u8>, bool)> {
        match self.rules.get(rule as usize)? {
            Some(TxRule { trigger: Trigger::Payload(literal), .. }) => Some(literal),
            _ => None,
        }
    }

    /// Rules that wait for a literal in the payload.
    pub fn gated(&self) -> &[TxRuleId] {
        &self.gated
    }

    /// The literal was there.
    pub fn open(&self, app: App, rule: TxRuleId, state: &mut TxState) {
        self.add(app, &[rule], state);
    }

    /// An event was noted.
    pub fn event(&self, app: App, name: &str, state: &mut TxState) {
        for rules in [name, ""].iter().filter_map(|name| self.by_event.get(*name)) {
            self.add(app, rules, state);
        }
    }

    /// There is a number of this name.
    pub fn number(&self, app: App, field: Field, state: &mut TxState) {
        if let Some(rules) = self.by_field.get(&field) {
            self.add(app, rules, state);
        }
    }

    /// There is a file.
    pub fn file(&self, app: App, state: &mut TxState) {
        self.add(app, &self.by_file, state);
    }

    /// What rules have to know of files.
    pub fn file_wants(&self) -> FileWants {
        let tests = self.rules.iter().flatten().flat_map(|rule| &rule.tests);
        tests.fold(FileWants::default(), |wants, test| {
            wants.and(match test {
                Test::File { file, .. } => file.wants(),
                Test::List(list) if list.buffer == BufferId::FileMagic => FileWants { follow: true, magic: true, ..FileWants::default() },
                Test::List(_)
                | Test::Number { .. }
                | Test::Event(_)
                | Test::Payload { .. }
                | Test::TlsVersion { .. }
                | Test::FtpBounce
                | Test::Other(_) => FileWants::default(),
            })
        })
    }

    /// Whether any rule looks at the payload of transactions.
    pub const fn wants_raw(&self) -> bool {
        self.wants_raw
    }

    /// Whether any rule waits for numbers.
    pub fn wants_numbers(&self) -> bool {
        !self.by_field.is_empty()
    }

    fn add(&self, app: App, rules: &[TxRuleId], state: &mut TxState) {
        for rule in rules {
            let Some(compiled) = self.rules[*rule as usize].as_ref().filter(|compiled| compiled.apps & bit(app) != 0) else { continue };
            state.add(*rule, false);
            if compiled.turned.is_some() {
                state.add(*rule, true);
            }
        }
    }

    /// First pass: a value has come, or a body has grown.
    #[allow(clippy::too_many_arguments)] // The value's place, and what is lent for the call.
    pub fn news(
        &self,
        app: App,
        buffer: BufferId,
        dir: Direction,
        piece: Piece<'_>,
        state: &mut TxState,
        scratch: &mut TxScratch,
        work: &mut Work,
    ) {
        let Some(sides) = self.by_buffer.get(buffer as usize) else { return };
        let (first, end) = sides[side(dir) as usize];
        for group in &self.groups[first as usize..end as usize] {
            let TxScratch { transformed, other, hits, .. } = scratch;
            let bytes = if group.transforms.is_empty() {
                // As much of the old bytes as a literal may begin in.
                piece.bytes.get(piece.fresh.saturating_sub(CARRY_BYTES)..).unwrap_or_default()
            } else {
                match transform(&group.transforms, piece.bytes, transformed, other, work) {
                    Some(bytes) => bytes,
                    None => return,
                }
            };
            hits.clear();
            group.prefilter.scan(&Carry::default(), bytes, work, |number| {
                if hits.last() != Some(&number) {
                    hits.push(number);
                }
            });
            let found = hits.iter().flat_map(|number| &group.owners[*number as usize]).chain(&group.always);
            for rule in found {
                if !work.charge(1) {
                    return;
                }
                if let Some(compiled) = self.rules[*rule as usize].as_ref().filter(|compiled| compiled.apps & bit(app) != 0) {
                    state.add(*rule, compiled.turned.is_some() && dir == Direction::ToClient);
                }
            }
        }
    }

    /// Second pass, after all news of a call: lists that can be decided now. What has matched is in `scratch.matched`.
    pub fn verify(&self, values: &impl Values, state: &mut TxState, scratch: &mut TxScratch, work: &mut Work) {
        scratch.matched.clear();
        scratch.excerpts.clear();
        scratch.turned.clear();
        scratch.exhausted = 0;
        for candidate in &mut state.candidates {
            let Some(Some(rule)) = self.rules.get(candidate.rule as usize) else { continue };
            let rule = if candidate.turned { rule.turned.as_deref().unwrap_or(rule) } else { rule };
            if !candidate.over && candidate.holds == 0 && rule.writes && !values.may(candidate.rule) {
                candidate.over = true;
            }
            if candidate.over {
                continue;
            }
            scratch.found.clear();
            // The payload costs most and says least; patterns cost more than literals. What changes a set is run in the author's order.
            let tests = || rule.tests.iter().enumerate();
            let is_last = |(_, test): &(usize, &Test)| matches!(test, Test::Payload { .. });
            let is_slow = |(_, test): &(usize, &Test)| !rule.writes && matches!(test, Test::List(list) if list.is_slow());
            let quick = tests().filter(|test| !is_last(test) && !is_slow(test));
            for (place, test) in quick.chain(tests().filter(is_slow)).chain(tests().filter(is_last)) {
                let others = || candidate.holds.count_ones() as usize + 1 == rule.tests.len();
                if candidate.holds >> place & 1 != 0 || (is_last(&(place, test)) && !others()) {
                    continue;
                }
                match test.decide(rule, values, scratch, work) {
                    Decision::Holds => candidate.holds |= 1 << place,
                    Decision::Never => {
                        candidate.over = true;
                        break;
                    }
                    Decision::NotYet => {}
                }
                if work.is_spent() {
                    return;
                }
            }
            if !candidate.over && candidate.holds.count_ones() as usize == rule.tests.len() {
                candidate.over = rule.again.is_none_or(|dir| values.is_complete(dir));
                scratch.matched.push(candidate.rule);
                scratch.turned.push(candidate.turned);
                scratch.excerpts.push(scratch.found.clone());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Draft {
    transforms: Arc<[Built]>,
    literals: BTreeMap<(Vec<u8>, bool), Vec<TxRuleId>>,
    always: Vec<TxRuleId>,
}

impl Draft {
    fn build(self) -> Group {
        let prefilter = Prefilter::new(self.literals.keys().map(|(bytes, nocase)| (bytes.as_slice(), *nocase)));
        Group { transforms: self.transforms, prefilter, owners: self.literals.into_values().collect(), always: self.always }
    }
}

pub(crate) const fn bit(app: App) -> u64 {
    1 << (app as u32 % 64)
}
