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

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use bulkhead_net::flow::Direction;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::condition::{Condition, IntegerTest, TlsVersion, Towards, Which};
use bulkhead_rules::protocol::App;
use bulkhead_rules::transform::Transform;
use bulkhead_rules::tree::{FastPattern, FlowWord, FlowbitsOperation};
use bulkhead_rules::{Buffer as BufferName, BufferMatches, Code, ContentMatch, Field, Match, Rule};

use crate::inspect::{Buffer, Inspection, NameValues, Steps, Work};
use crate::prefilter::{CARRY_BYTES, Carry, LITERAL_BYTES_MAX, Prefilter};
use crate::rules::{decoded, is_of_flow, is_of_packet, refused_beside_buffers, refused_match};
use crate::transform::{TRANSFORM_BYTES_PER_UNIT, is_built, needs_whole, transform};

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

    /// The client's address.
    fn client(&self) -> Option<IpAddr> {
        None
    }

    /// Nothing further comes in this direction.
    fn is_complete(&self, dir: Direction) -> bool;

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
    /// By buffer and direction: places in `groups`.
    by_buffer: BTreeMap<(BufferId, Side), Vec<usize>>,
    groups: Vec<Group>,
    /// Rules that become candidates with an event, or with a number.
    by_event: BTreeMap<String, Vec<TxRuleId>>,
    by_field: BTreeMap<Field, Vec<TxRuleId>>,
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

#[derive(Debug)]
pub(crate) struct TxRule {
    /// Protocols as recognised, one bit each.
    apps: u64,
    tests: Vec<Test>,
    trigger: Trigger,
    /// It waits for a flow bit, which a later part of the same message may set: told again as long as this direction goes on,
    /// so that it makes no difference how a message is cut.
    again: Option<Direction>,
}

/// What makes a rule a candidate.
#[derive(Debug, Clone)]
enum Trigger {
    /// Place of a list, and a literal in it: without one, that its buffer is there.
    List(usize, Option<(Vec<u8>, bool)>),
    /// Without a name of its own any event of the protocol.
    Event(Option<&'static str>),
    Number(Field),
    Start,
}

/// One of the things that have to hold of a transaction, each for itself.
#[derive(Debug)]
enum Test {
    List(List),
    Number {
        test: IntegerTest,
        to_server: bool,
        to_client: bool,
    },
    Event(Option<&'static str>),
    /// The version of TLS that the hello of a direction says: any of these, each negated or not.
    TlsVersion {
        versions: Vec<(bool, u64)>,
        to_server: bool,
        to_client: bool,
    },
    /// A PORT command with another address than the client's.
    FtpBounce,
    /// Contents of the payload; asked when all else holds.
    Payload {
        steps: Steps,
        to_server: bool,
        to_client: bool,
    },
}

#[derive(Debug)]
struct List {
    buffer: BufferId,
    /// Where it may hold: to the server, to the client.
    to_server: bool,
    to_client: bool,
    transforms: Vec<Transform>,
    steps: Steps,
    absent: Absent,
    /// Place of the list that sets names which this one uses.
    after: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    No,
    /// The buffer must not be there.
    Must,
    /// It is not there, or the matches hold.
    May,
}

/// Rules whose fast pattern is looked for in one buffer, one direction, behind the same transforms.
#[derive(Debug, Default)]
struct Group {
    transforms: Vec<Transform>,
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

    fn add(&mut self, rule: TxRuleId) {
        if let Err(place) = self.candidates.binary_search_by_key(&rule, |candidate| candidate.rule) {
            if self.candidates.len() >= CANDIDATES_MAX {
                self.refused = true;
                return;
            }
            self.candidates.insert(place, Candidate { rule, holds: 0, over: false });
        }
    }
}

impl TxRules {
    /// Compiles those of the rules that look into transactions. Others are passed over; those that ask for what is
    /// not known here are refused with a reason, never loaded with less than they say.
    pub fn compile<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> (Self, Vec<(TxRuleId, Code, String)>) {
        let mut refused = Vec::new();
        let rules = (0..).zip(rules).map(|(number, rule)| match TxRule::new(rule) {
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
            match compiled.as_ref().map(|rule| (&rule.trigger, &rule.tests)) {
                Some((Trigger::List(place, literal), tests)) => {
                    let Some(Test::List(list)) = tests.get(*place) else { continue };
                    let sides = [(list.to_server, Side::Server), (list.to_client, Side::Client)];
                    for (_, side) in sides.into_iter().filter(|(there, _)| *there) {
                        // A transform's own text tells it from others.
                        let key = (list.buffer, side, format!("{:?}", list.transforms).into_bytes());
                        let draft = drafts.entry(key).or_default();
                        draft.transforms.clone_from(&list.transforms);
                        match literal {
                            Some(literal) => draft.literals.entry(literal.clone()).or_default().push(number),
                            None => draft.always.push(number),
                        }
                    }
                }
                Some((Trigger::Event(name), _)) => built.by_event.entry(name.unwrap_or_default().to_owned()).or_default().push(number),
                Some((Trigger::Number(field), _)) => built.by_field.entry(*field).or_default().push(number),
                Some((Trigger::Start, _)) => built.at_start.push(number),
                None => {}
            }
            built.count += usize::from(compiled.is_some());
            built.wants_raw |= compiled.iter().flat_map(|rule| &rule.tests).any(|test| matches!(test, Test::Payload { .. }));
            built.rules.push(compiled);
        }
        for ((buffer, side, _), draft) in drafts {
            built.by_buffer.entry((buffer, side)).or_default().push(built.groups.len());
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
            Test::List(list) => vec![list.buffer],
            Test::FtpBounce => vec![BufferId::FtpCommand, BufferId::FtpCommandData],
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
            if self.rules[*rule as usize].as_ref().is_some_and(|compiled| compiled.apps & bit(app) != 0) {
                state.add(*rule);
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
        let Some(groups) = self.by_buffer.get(&(buffer, side(dir))) else { return };
        for group in groups.iter().filter_map(|place| self.groups.get(*place)) {
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
                if self.rules[*rule as usize].as_ref().is_some_and(|compiled| compiled.apps & bit(app) != 0) {
                    state.add(*rule);
                }
            }
        }
    }

    /// Second pass, after all news of a call: lists that can be decided now. What has matched is in `scratch.matched`.
    pub fn verify(&self, values: &impl Values, state: &mut TxState, scratch: &mut TxScratch, work: &mut Work) {
        scratch.matched.clear();
        scratch.excerpts.clear();
        scratch.exhausted = 0;
        for candidate in &mut state.candidates {
            let Some(Some(rule)) = self.rules.get(candidate.rule as usize) else { continue };
            if candidate.over {
                continue;
            }
            scratch.found.clear();
            // The payload costs most and says least.
            let tests = || rule.tests.iter().enumerate();
            let is_last = |(_, test): &(usize, &Test)| matches!(test, Test::Payload { .. });
            for (place, test) in tests().filter(|test| !is_last(test)).chain(tests().filter(is_last)) {
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
                scratch.excerpts.push(scratch.found.clone());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Draft {
    transforms: Vec<Transform>,
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

impl TxRule {
    /// `None`: not a rule of transactions.
    pub(crate) fn new(rule: &Rule) -> Result<Option<Self>, (Code, String)> {
        let signature = &rule.signature;
        // What is decoded of the payload is the payload's.
        let named = signature
            .buffers
            .iter()
            .any(|list| matches!(list.buffer, BufferName::Named(id) if id != BufferId::Base64Data && !is_of_packet(id)));
        if !named && !signature.conditions.iter().any(is_of_transactions) {
            return Ok(None);
        }
        if let Some(reason) = refused_beside_buffers(rule, |condition| is_of_flow(condition) || is_of_transactions(condition)) {
            return Err(reason);
        }
        let unsupported = |what: &str| Err((Code::KeywordUnsupported, format!("{what} is not supported yet")));
        if !signature.packet.is_empty() {
            return unsupported("a packet keyword beside a buffer of transactions");
        }
        if signature.buffers.len() + signature.conditions.len() > LISTS_MAX {
            return unsupported("a rule with more than 32 lists of matches");
        }
        let has = |word: FlowWord| signature.flow.contains(&word);
        let to_server = has(FlowWord::ToServer) || has(FlowWord::FromClient);
        let to_client = has(FlowWord::ToClient) || has(FlowWord::FromServer);
        let (to_server, to_client) = (to_server && !to_client, to_client && !to_server);
        let mut tests: Vec<Test> = Vec::new();
        let inner = decoded(signature).map_or(&[][..], |list| &list.matches);
        for list in signature.buffers.iter().filter(|list| list.buffer != BufferName::Named(BufferId::Base64Data)) {
            tests.push(match list.buffer {
                BufferName::Payload => {
                    if !list.transforms.is_empty() {
                        return unsupported("transforms of the payload");
                    }
                    if let Some(reason) = list.matches.iter().find_map(refused_match) {
                        return Err(reason);
                    }
                    let steps = Steps::with(&list.matches, inner, &[]).map_err(|message| (Code::PcreUnsupported, message))?;
                    Test::Payload { steps, to_server: !to_client, to_client: !to_server }
                }
                BufferName::Named(_) | BufferName::Frame { .. } => Test::List(List::new(list, to_server, to_client, inner, &tests)?),
            });
        }
        // Counters, bits and sizes are the flow's or its hosts'.
        for condition in signature.conditions.iter().filter(|condition| !is_of_flow(condition)) {
            tests.push(match condition {
                Condition::Integer(test) if as_size(condition).is_none() => {
                    if test.towards.is_some_and(|towards| towards == Towards::Both) {
                        return unsupported("a number of both directions at once");
                    }
                    let (server, client) = (test.towards == Some(Towards::ToServer), test.towards == Some(Towards::ToClient));
                    Test::Number { test: test.clone(), to_server: !client && !to_client, to_client: !server && !to_server }
                }
                Condition::AppLayerEvent { event, .. } => Test::Event(*event),
                Condition::TlsVersion(version) => {
                    Test::TlsVersion { versions: vec![(false, wire(*version))], to_server: !to_client, to_client: !to_server }
                }
                Condition::SslVersion(versions) => Test::TlsVersion {
                    versions: versions.iter().map(|(negated, version)| (*negated, wire(*version))).collect(),
                    to_server: !to_client,
                    to_client: !to_server,
                },
                Condition::FtpBounce => Test::FtpBounce,
                _ => match as_size(condition) {
                    Some(list) => Test::List(List::new(&list, to_server, to_client, &[], &[])?),
                    None => return unsupported("a condition of the rule"),
                },
            });
        }
        let trigger = trigger(rule, &tests);
        let mut compiled = Self { apps: apps_of(&signature.apps), tests, trigger, again: None };
        if signature.flowbits.iter().any(|bits| bits.operation == FlowbitsOperation::IsSet) {
            compiled.again = match (to_server, to_client) {
                (true, _) => Some(Direction::ToServer),
                (_, true) => Some(Direction::ToClient),
                (false, false) => compiled.direction(),
            };
        }
        Ok(Some(compiled))
    }

    /// Whether it may be told of more than once in a transaction.
    pub(crate) const fn is_told_again(&self) -> bool {
        self.again.is_some()
    }

    /// Where it can match, when its tests are all of one direction.
    pub(crate) fn direction(&self) -> Option<Direction> {
        let all = |server: bool| {
            self.tests.iter().all(|test| match test {
                Test::List(List { to_server, to_client, .. })
                | Test::Number { to_server, to_client, .. }
                | Test::TlsVersion { to_server, to_client, .. } => {
                    if server {
                        *to_server && !to_client
                    } else {
                        *to_client && !to_server
                    }
                }
                // Goes by the others.
                Test::Payload { .. } => true,
                Test::FtpBounce => server,
                Test::Event(_) => false,
            })
        };
        if all(true) {
            Some(Direction::ToServer)
        } else if all(false) {
            Some(Direction::ToClient)
        } else {
            None
        }
    }
}

/// A bit for each protocol as recognised.
pub(crate) fn apps_of(apps: &[App]) -> u64 {
    if apps.is_empty() { u64::MAX } else { apps.iter().flat_map(|app| app.members()).fold(0, |apps, app| apps | bit(app)) }
}

/// Conditions that are asked of a transaction.
pub(crate) fn is_of_transactions(condition: &Condition) -> bool {
    as_size(condition).is_some()
        || match condition {
            Condition::Integer(test) => APP_NUMBERS.contains(&test.field),
            Condition::AppLayerEvent { protocol: Some(app), .. } => is_parsed(*app),
            Condition::TlsVersion(_) | Condition::SslVersion(_) | Condition::FtpBounce => true,
            _ => false,
        }
}

/// Numbers that a parser gives.
static APP_NUMBERS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let known = |field: &&Field| bulkhead_applayer::Field::from_name(field.name()).is_some();
    Field::ALL.iter().filter(known).copied().collect()
});

/// Whether a parser for this protocol, or one of those that its name stands for, is built.
pub(crate) fn is_parsed(app: App) -> bool {
    app.members().any(|member| crate::app::PROTOCOLS.contains(&Some(member)))
}

fn trigger(rule: &Rule, tests: &[Test]) -> Trigger {
    if let Some((place, literal)) = fast_pattern(rule) {
        return Trigger::List(place, Some(literal));
    }
    let there = tests.iter().position(|test| matches!(test, Test::List(list) if list.absent == Absent::No));
    if let Some(place) = there {
        return Trigger::List(place, None);
    }
    let found = tests.iter().find_map(|test| match test {
        Test::Event(name) => Some(Trigger::Event(*name)),
        Test::Number { test, .. } if matches!(test.which, Which::Any | Which::All | Which::Index(_)) => Some(Trigger::Number(test.field)),
        Test::List(_) | Test::Number { .. } | Test::Payload { .. } | Test::TlsVersion { .. } | Test::FtpBounce => None,
    });
    found.unwrap_or(Trigger::Start)
}

/// `urilen` asks for the size of a buffer.
fn as_size(condition: &Condition) -> Option<BufferMatches> {
    let Condition::Integer(IntegerTest { field, test, which: Which::Any, towards: None }) = condition else { return None };
    let buffer = match field {
        Field::Urilen => BufferId::HttpUri,
        Field::UrilenRaw => BufferId::HttpUriRaw,
        _ => return None,
    };
    Some(BufferMatches { buffer: BufferName::Named(buffer), towards: None, transforms: Vec::new(), matches: vec![Match::Bsize(*test)] })
}

/// The list in which a rule's literal stands, and the literal: the author's choice, else the longest.
fn fast_pattern(rule: &Rule) -> Option<(usize, (Vec<u8>, bool))> {
    let contents = || {
        let tested = rule.signature.buffers.iter().filter(|list| list.buffer != BufferName::Named(BufferId::Base64Data));
        tested.enumerate().flat_map(|(place, list)| {
            // Where a missing buffer is a match too, its bytes decide nothing.
            let absent = list.matches.iter().any(|found| matches!(found, Match::Absent { .. }));
            let optional = absent || !matches!(list.buffer, BufferName::Named(id) if id != BufferId::Base64Data);
            list.matches.iter().filter(move |_| !optional).filter_map(move |found| match found {
                Match::Content(content) if !content.negated => Some((place, content)),
                _ => None,
            })
        })
    };
    let chosen = contents().find(|(_, content)| content.fast_pattern.is_some());
    let (place, content) = chosen.or_else(|| contents().max_by_key(|(_, content)| content.bytes.len()))?;
    Some((place, (literal(content).to_vec(), content.nocase)))
}

fn literal(content: &ContentMatch) -> &[u8] {
    let bytes = match content.fast_pattern {
        Some(FastPattern::Chop { offset, length }) => {
            content.bytes.get(usize::from(offset)..usize::from(offset) + usize::from(length)).unwrap_or(&content.bytes)
        }
        Some(FastPattern::Whole | FastPattern::Only) | None => &content.bytes,
    };
    &bytes[..bytes.len().min(LITERAL_BYTES_MAX)]
}

enum Decision {
    Holds,
    Never,
    NotYet,
}

impl Test {
    fn decide(&self, rule: &TxRule, values: &impl Values, scratch: &mut TxScratch, work: &mut Work) -> Decision {
        let apps = rule.apps;
        match self {
            Self::List(list) => {
                let before = list.after.and_then(|place| rule.tests.get(place));
                let Some(Self::List(before)) = before else { return list.decide(values, None, scratch, work) };
                match before.names(values, scratch, work) {
                    Some(names) => list.decide(values, Some(&names), scratch, work),
                    // It may hold later, or never: it is asked itself.
                    None => Decision::NotYet,
                }
            }
            Self::TlsVersion { versions, to_server, to_client } => {
                let dirs =
                    || [(*to_server, Direction::ToServer), (*to_client, Direction::ToClient)].into_iter().filter(|(there, _)| *there);
                let holds = |found: u64| {
                    // Drafts of 1.3 are 1.3.
                    let found = if found >> 8 == 0x7f { 0x0304 } else { found };
                    let only_negated = versions.iter().all(|(negated, _)| *negated);
                    let listed = versions.iter().find(|(_, version)| *version == found);
                    listed.map_or(only_negated, |(negated, _)| !negated)
                };
                work.charge(1);
                let found = dirs().flat_map(|(_, dir)| values.named("tls.version", dir)).any(holds);
                match (found, dirs().all(|(_, dir)| values.is_complete(dir))) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
            Self::FtpBounce => {
                let dir = Direction::ToServer;
                let is_port = values.pieces(BufferId::FtpCommand, dir).any(|piece| piece.bytes.eq_ignore_ascii_case(b"PORT"));
                let other = |piece: Piece<'_>| port_address(piece.bytes).is_some_and(|found| values.client() != Some(IpAddr::V4(found)));
                work.charge(1);
                match (is_port && values.pieces(BufferId::FtpCommandData, dir).any(other), values.is_complete(dir)) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
            Self::Number { test, to_server, to_client } => {
                let dirs =
                    || [(*to_server, Direction::ToServer), (*to_client, Direction::ToClient)].into_iter().filter(|(there, _)| *there);
                let numbers = || dirs().flat_map(|(_, dir)| values.numbers(test.field, dir));
                work.charge(1 + numbers().count() / TRANSFORM_BYTES_PER_UNIT);
                if test.which == Which::Any && numbers().any(|number| test.test.matches(number)) {
                    return Decision::Holds;
                }
                if !dirs().all(|(_, dir)| values.is_complete(dir)) {
                    return Decision::NotYet;
                }
                if numbers_hold(test, &numbers().collect::<Vec<_>>()) { Decision::Holds } else { Decision::Never }
            }
            Self::Payload { steps, to_server, to_client } => {
                let wanted = |dir: Direction| if dir == Direction::ToServer { *to_server } else { *to_client };
                let mut raw = std::mem::take(&mut scratch.transformed);
                let found = values.raw(&mut raw).filter(|(dir, _)| wanted(*dir) && (steps.only_gains() || values.is_complete(*dir)));
                let holds = found.is_some_and(|(_, base)| {
                    if !work.charge(1 + raw.len() / TRANSFORM_BYTES_PER_UNIT) {
                        return false;
                    }
                    let inspection = steps.run(Buffer { bytes: &raw, base }, work);
                    scratch.exhausted += u32::from(inspection == Inspection::Exhausted && !work.is_spent());
                    matches!(inspection, Inspection::Match { .. })
                });
                scratch.transformed = raw;
                let open = [Direction::ToServer, Direction::ToClient].into_iter().any(|dir| wanted(dir) && !values.is_complete(dir));
                match (holds, open) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::NotYet,
                    (false, false) => Decision::Never,
                }
            }
            Self::Event(name) => {
                let of = |found: &str| match name {
                    Some(name) => found == *name,
                    None => App::ALL
                        .iter()
                        .any(|app| apps & bit(*app) != 0 && found.strip_prefix(app.name()).is_some_and(|rest| rest.starts_with('.'))),
                };
                match (values.events().any(of), values.is_complete(Direction::ToServer) && values.is_complete(Direction::ToClient)) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
        }
    }
}

/// As a hello says it.
const fn wire(version: TlsVersion) -> u64 {
    match version {
        TlsVersion::Ssl2 => 0x0200,
        TlsVersion::Ssl3 => 0x0300,
        TlsVersion::Tls10 => 0x0301,
        TlsVersion::Tls11 => 0x0302,
        TlsVersion::Tls12 => 0x0303,
        TlsVersion::Tls13 => 0x0304,
        TlsVersion::Number(number) => number as u64,
    }
}

/// `198,51,100,7,4,210` (RFC 959, section 4.1.2).
fn port_address(text: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(text.get(..text.len().min(64))?).ok()?;
    let mut octets = text.split(',').map(|octet| octet.trim().parse::<u8>().ok());
    let mut next = || octets.next().flatten();
    Some(Ipv4Addr::new(next()?, next()?, next()?, next()?))
}

/// Of all numbers there will be.
fn numbers_hold(test: &IntegerTest, all: &[u64]) -> bool {
    let holds = |number: &u64| test.test.matches(*number);
    let at = |index: i32| {
        let index = if index < 0 { all.len().checked_sub(index.unsigned_abs() as usize)? } else { index as usize };
        all.get(index)
    };
    match &test.which {
        Which::Any => all.iter().any(holds),
        Which::AllOrAbsent => all.iter().all(holds),
        Which::All => !all.is_empty() && all.iter().all(holds),
        Which::AnyOrAbsent => all.is_empty() || all.iter().any(holds),
        Which::Index(index) => at(*index).is_some_and(holds),
        Which::IndexOrAbsent(index) => at(*index).is_none_or(holds),
        Which::Count { count, range } => {
            let place = |at: i32| if at < 0 { all.len().saturating_sub(at.unsigned_abs() as usize) } else { (at as usize).min(all.len()) };
            let part = match range {
                Some((first, last)) => all.get(place(*first)..place(*last)).unwrap_or_default(),
                None => all,
            };
            count.matches(part.iter().filter(|number| holds(number)).count() as u64)
        }
        Which::Number => test.test.matches(all.len() as u64),
    }
}

impl List {
    /// `inner`: what is asked of that which it decodes. `before`: the rule's tests so far, whose names it may use.
    fn new(list: &BufferMatches, to_server: bool, to_client: bool, inner: &[Match], before: &[Test]) -> Result<Self, (Code, String)> {
        let BufferName::Named(buffer) = list.buffer else {
            return Err((Code::KeywordUnsupported, "`frame` is not supported yet".to_owned()));
        };
        if let Some(transform) = list.transforms.iter().find(|transform| !is_built(transform)) {
            return Err((Code::KeywordUnsupported, format!("the transform `{transform:?}` is not supported yet")));
        }
        let (only_server, only_client) = match list.towards {
            Some(Towards::ToServer) => (true, false),
            Some(Towards::ToClient) => (false, true),
            Some(Towards::Both) => {
                return Err((Code::ValueUnsupported, "a buffer of both directions at once is not supported yet".to_owned()));
            }
            Some(Towards::Either) | None => (to_server, to_client),
        };
        let info = buffer.info();
        if crate::app::buffer_of(buffer).is_none() {
            return Err((Code::KeywordUnsupported, format!("`{}` is not supported yet", info.name)));
        }
        if let Some(reason) = list.matches.iter().filter(|found| !matches!(found, Match::Absent { .. })).find_map(refused_match) {
            return Err(reason);
        }
        let absent = list.matches.iter().find_map(|found| match found {
            Match::Absent { or_else: true } => Some(Absent::May),
            Match::Absent { or_else: false } => Some(Absent::Must),
            _ => None,
        });
        let matches: Vec<Match> = list.matches.iter().filter(|found| !matches!(found, Match::Absent { .. })).cloned().collect();
        let pcre = |message: String| (Code::PcreUnsupported, message);
        let (steps, after) = match Steps::with(&matches, inner, &[]) {
            Ok(steps) => (steps, None),
            Err(message) => {
                // It may use names that one of those before it sets.
                let setting = before.iter().enumerate().find_map(|(place, test)| match test {
                    Test::List(list) if !list.steps.names().is_empty() && list.after.is_none() => Some((place, list.steps.names())),
                    _ => None,
                });
                match setting {
                    Some((place, names)) => (Steps::with(&matches, inner, names).map_err(pcre)?, Some(place)),
                    None => return Err(pcre(message)),
                }
            }
        };
        Ok(Self {
            buffer,
            // A buffer of the other direction than the rule's is the other direction's all the same.
            to_server: info.to_server && (!only_client || !info.to_client),
            to_client: info.to_client && (!only_server || !info.to_server),
            transforms: list.transforms.clone(),
            steps,
            after,
            absent: absent.unwrap_or(Absent::No),
        })
    }

    /// The names' values where it holds.
    fn names(&self, values: &impl Values, scratch: &mut TxScratch, work: &mut Work) -> Option<NameValues> {
        let dirs = [(self.to_server, Direction::ToServer), (self.to_client, Direction::ToClient)];
        for (_, dir) in dirs.into_iter().filter(|(there, _)| *there) {
            for piece in values.pieces(self.buffer, dir) {
                let bytes = transform(&self.transforms, piece.bytes, &mut scratch.transformed, &mut scratch.other, work)?;
                if let Some(names) = self.steps.values(Buffer { bytes, base: piece.base }, work) {
                    return Some(names);
                }
            }
        }
        None
    }

    /// `names`: of the list that it comes after.
    fn decide(&self, values: &impl Values, names: Option<&NameValues>, scratch: &mut TxScratch, work: &mut Work) -> Decision {
        let mut settled = true;
        let mut any = false;
        for dir in [(self.to_server, Direction::ToServer), (self.to_client, Direction::ToClient)].iter().filter(|(there, _)| *there) {
            let dir = dir.1;
            settled &= values.is_settled(self.buffer, dir);
            for piece in values.pieces(self.buffer, dir) {
                any = true;
                settled &= piece.done;
                if self.absent == Absent::Must {
                    return Decision::Never;
                }
                // What holds of a part may not hold of the whole.
                if !piece.done && (!self.steps.only_gains() || self.transforms.iter().any(needs_whole)) {
                    continue;
                }
                let bytes = match transform(&self.transforms, piece.bytes, &mut scratch.transformed, &mut scratch.other, work) {
                    Some(bytes) => bytes,
                    None => return Decision::NotYet,
                };
                let buffer = Buffer { bytes, base: piece.base };
                let inspection = match names {
                    Some(names) => self.steps.run_with(buffer, names, work),
                    None => self.steps.run(buffer, work),
                };
                match inspection {
                    Inspection::Match { end } => {
                        // Of a list without contents: its beginning.
                        let end = if end == 0 { bytes.len().min(EXCERPT_BYTES_MAX) } else { end.min(bytes.len()) };
                        scratch.found.clear();
                        scratch.found.extend_from_slice(&bytes[end.saturating_sub(EXCERPT_BYTES_MAX)..end]);
                        return Decision::Holds;
                    }
                    Inspection::NoMatch => {}
                    Inspection::Exhausted => scratch.exhausted += u32::from(!work.is_spent()),
                }
            }
        }
        match (settled, any, self.absent) {
            (false, ..) => Decision::NotYet,
            (true, false, Absent::Must | Absent::May) => Decision::Holds,
            (true, ..) => Decision::Never,
        }
    }
}
