//! A rule set ready to run: immutable, shared, grouped so that a packet meets only the rules that can apply.
//!
//! ```text
//! protocol class ─ direction ─ { any port | by destination port | by source port } ─ Group
//! Group = literals of its rules (Prefilter) + rules without a literal
//! ```
//! There are two such tables: rules for each packet's payload, and rules for the reassembled stream. Rules are
//! numbered in the order in which they are judged (pass, drop, reject, alert; then flow bits set before read;
//! then priority), so that sorting candidates is enough.

mod compile;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_net::flow::Direction;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::classification::PRIORITY_DEFAULT;
use bulkhead_rules::condition::{
    AppLayerMode, Condition, ConfigScope, Effect, End as StreamEnd, FileScope, Flowint, FlowintOperation, FlowintValue, IntegerTest,
    IpOption, Recognised, TcpSessionState, Towards,
};
use bulkhead_rules::limits::{RateFilter, SuppressionSide};
use bulkhead_rules::tree::{Base, Body, Endian, FastPattern, FlowWord, Flowbits, FlowbitsOperation, NumberTest, PacketTest, Threshold};
use bulkhead_rules::{
    Action, AddressSet, App, Buffer as BufferName, Classification, Code, ContentMatch, Diagnostic, Match, PortSet, Protocol, Rule,
    Variables,
};

use crate::addresses::ByAddress;
use crate::hosts::{HostBit, TxBit};
use crate::inspect::Steps;
use crate::prefilter::{LITERAL_BYTES_MAX, Prefilter};
use crate::raised::{ByFinding, Layer, Raised};
pub(crate) use compile::{NO_APP, decoded, is_of_flow, is_of_packet, name_hash, of_dce, refused_beside_buffers, refused_match};
use compile::{Shared, Turn, compile_rule, diagnostic, turn};

use crate::sets::{ActionOrder, Dataset, IprepAsked, Reputation, Resources, Sets};
use crate::transaction::{TxRule, TxRules, apps_of, bit, is_of_transactions, is_parsed};

/// Groups per table and kind of port; rules of further ports share one group and are told apart afterwards.
const PORT_GROUPS_MAX: usize = 256;
/// Rules whose header is tried to find out whether a flow can match any; above it some rule always can.
const HEADERS_TRIED_MAX: usize = 512;

/// Number of a rule in its set, which is also its turn.
pub type RuleId = u32;

/// What consumers of alerts want to know of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    pub gid: u32,
    pub sid: u32,
    pub rev: u32,
    pub msg: Box<str>,
    pub action: Action,
    /// The class's description, empty without one.
    pub category: Arc<str>,
    pub classtype: Option<Arc<str>>,
    /// 1 is the gravest.
    pub priority: u8,
    pub references: Pairs,
    pub metadata: Pairs,
    /// File and line.
    pub source: Arc<str>,
    pub line: u32,
}

impl RuleInfo {
    /// The same rule across reloads.
    pub const fn key(&self) -> u64 {
        (self.gid as u64) << 32 | self.sid as u64
    }
}

/// Pairs of texts in one piece of memory: rules have a dozen each, and are many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    text: Box<str>,
    /// Where each of the texts ends: first, second, first of the next.
    ends: Box<[u32]>,
}

impl Pairs {
    pub fn new(pairs: &[(String, String)]) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(pairs.len() * 2));
        for part in pairs.iter().flat_map(|(first, second)| [first, second]) {
            text += part;
            ends.push(text.len() as u32);
        }
        Self { text: text.into(), ends: ends.into() }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let begins = std::iter::once(0).chain(self.ends.chunks_exact(2).map(|pair| pair[1] as usize));
        let of = |first: usize, end: usize| self.text.get(first..end).unwrap_or_default();
        begins.zip(self.ends.chunks_exact(2)).map(move |(begin, ends)| {
            let (middle, end) = (ends[0] as usize, ends[1] as usize);
            (of(begin, middle), of(middle, end))
        })
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub info: Arc<RuleInfo>,
    pub protocol: Protocol,
    /// Shared with the other rules that say the same.
    pub source: Arc<AddressSet>,
    pub destination: Arc<AddressSet>,
    pub source_ports: Arc<PortSet>,
    pub destination_ports: Arc<PortSet>,
    pub both_ways: bool,
    pub flow: FlowTest,
    pub packet: Vec<PacketTest>,
    /// What its headers hold.
    pub headers: Vec<(BufferId, Steps)>,
    /// Numbers of its headers, and of the flow.
    pub integers: Vec<IntegerTest>,
    pub ip_options: Vec<IpOption>,
    /// What it asks of the reputation of its ends.
    pub ipreps: Vec<IprepAsked>,
    /// Files are to be kept: of which direction, and how many of them.
    pub store: Option<(Option<Towards>, FileScope)>,
    /// What it matches is not logged.
    pub quiets: Option<ConfigScope>,
    /// States of the connection, one of each list.
    pub sessions: Vec<Vec<TcpSessionState>>,
    /// Findings that it asks for, and checksums that have to be right.
    pub raised: Vec<Raised>,
    pub right_checksums: Vec<Layer>,
    /// Bytes that TCP has carried since the handshake.
    pub stream_sizes: Vec<(StreamEnd, NumberTest)>,
    pub steps: Steps,
    /// Protocols as recognised of which the flow's must be one, a bit each; all bits: none is asked for.
    pub apps: u64,
    /// Of a rule on transactions: the direction that all of its buffers belong to.
    pub tx_direction: Option<Direction>,
    /// The same: it is told of in each direction for itself.
    pub in_each: bool,
    /// The same: its addresses are those of client and server, whoever speaks (`=>`).
    pub of_client: bool,
    /// Bits of transactions.
    pub txbits: Vec<TxBit>,
    /// The same: it may be told of again in one transaction.
    pub told_again: bool,
    pub flowbits: Vec<FlowbitsStep>,
    /// Those that read, then those that write.
    pub flowints: Vec<FlowintStep>,
    /// The same of hosts.
    pub hostbits: Vec<HostBit>,
    /// Asks that the flow's protocol is not known.
    pub before_app: bool,
    /// Nothing but the flow's protocol decides: it is told of once, with the packet that brings it out.
    pub once_app: bool,
    /// Nothing more of the flow is to be looked at.
    pub bypass: bool,
    /// A pass rule that tells of itself.
    pub tells: bool,
    pub noalert: bool,
    pub thresholds: Vec<Threshold>,
    /// Another action for a time, once it matched too often.
    pub rate_filter: Option<RateFilter>,
    /// Of whom the rule says nothing.
    pub suppressions: Vec<(SuppressionSide, AddressSet)>,
    /// Judged on each packet.
    pub on_packet: bool,
    /// Judged on the stream of a followed TCP connection.
    pub on_stream: bool,
    /// Judged on transactions.
    pub is_of_transactions: bool,
    /// Judged once per flow and direction: nothing but addresses decides.
    pub ip_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FlowTest {
    /// Any word but `stateless` needs a flow.
    pub needs_flow: bool,
    pub established: Option<bool>,
    pub direction: Option<Direction>,
    /// Of a datagram that came in fragments.
    pub fragmented: Option<bool>,
    /// Only the first packet of its direction.
    pub start: bool,
}

/// Names are hashed, so that a flow's bits outlive a reload.
#[derive(Debug)]
pub(crate) struct FlowbitsStep {
    pub operation: FlowbitsOperation,
    pub names: Vec<u64>,
}

/// The same for counters.
#[derive(Debug)]
pub(crate) struct FlowintStep {
    pub name: u64,
    pub operation: FlowintOperation,
    /// The counter that the operation's value is, when it is one.
    pub other: Option<u64>,
}

/// A file's rules and its name for alerts.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub name: &'a str,
    pub rules: &'a [Rule],
}

/// What came of compiling.
#[derive(Debug)]
pub struct Compilation {
    pub ruleset: Arc<Ruleset>,
    /// Source's number and what is wrong with one of its rules. A rule with an error is not in the set.
    pub diagnostics: Vec<(usize, Diagnostic)>,
}

/// Immutable; share it between shards.
#[derive(Debug, Default)]
pub struct Ruleset {
    rules: Vec<Compiled>,
    tables: [Tables; CLASSES],
    transactions: TxRules,
    /// Rules on transactions: their numbers.
    tx_rules: Vec<RuleId>,
    /// Those of them that wait for a literal in the payload and look at protocols over UDP.
    gated_datagrams: Vec<RuleId>,
    /// A rule asks for a protocol without looking into its transactions.
    asks_for_apps: bool,
    by_finding: ByFinding,
    /// Rules on frames that carry no IP, or that nothing could read.
    of_frames: Vec<RuleId>,
    sets: BTreeMap<String, Arc<Dataset>>,
    reputation: Reputation,
}

/// Transport classes that have tables of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProtoClass {
    Tcp,
    Udp,
    Icmp,
    Other,
}

const CLASSES: usize = 4;

impl ProtoClass {
    pub const fn of(proto: u8) -> Self {
        match proto {
            6 => Self::Tcp,
            17 => Self::Udp,
            1 | 58 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// Per direction; packets without a flow use that to the server.
#[derive(Debug, Default)]
struct Tables {
    to_server: Table,
    to_client: Table,
}

#[derive(Debug, Default)]
struct Table {
    any: Group,
    by_destination: Ports,
    by_source: Ports,
}

/// Groups by port. `starts[i]` is the first port of the i-th interval, ascending from 0.
#[derive(Debug, Default)]
struct Ports {
    starts: Vec<u16>,
    group: Vec<u32>,
    groups: Vec<Group>,
}

/// A rule in a group, and what it looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub rule: RuleId,
    pub on_stream: bool,
    pub on_packet: bool,
    /// It looks at transactions, once its literal was in the stream.
    pub gate: bool,
}

/// What groups are made of.
struct Parts<'a> {
    rules: &'a [Compiled],
    literals: &'a [Option<Literal>],
    class: ProtoClass,
    /// The same rules on addresses alone are in many groups.
    known: BTreeMap<Vec<RuleId>, Arc<ByAddress>>,
}

impl Parts<'_> {
    /// What a rule looks at here: a stream rule is tried on packets of what is no stream.
    fn owner(&self, id: RuleId) -> Owner {
        let rule = &self.rules[id as usize];
        let gate = rule.is_of_transactions && self.literals[id as usize].is_some() && self.class == ProtoClass::Tcp;
        match self.class {
            ProtoClass::Tcp => Owner { rule: id, on_stream: rule.on_stream, on_packet: rule.on_packet, gate },
            ProtoClass::Udp | ProtoClass::Icmp | ProtoClass::Other => {
                Owner { rule: id, on_stream: false, on_packet: rule.on_packet || rule.on_stream, gate }
            }
        }
    }
}

/// Rules that meet the same packets.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub prefilter: Prefilter,
    /// Rules by literal's number: the first of each in `owners`, and one more.
    starts: Vec<u32>,
    owners: Vec<Owner>,
    /// Rules without a literal.
    pub always: Vec<Owner>,
    /// Those of them that are judged once per flow and direction: thousands, in sets that list addresses.
    pub once: Arc<ByAddress>,
    /// A rule looks at the stream, or waits for what is in it.
    pub of_stream: bool,
    /// Bytes before the newest that its rules may need, `usize::MAX` without bound.
    pub lookback: usize,
    pub all: Vec<RuleId>,
}

impl Ruleset {
    /// Compiles rules that were parsed without error. Those whose variables or patterns are wrong are left out and reported.
    pub fn compile(sources: &[Source<'_>], variables: &Variables, classification: &Classification) -> Compilation {
        Self::compile_with(sources, variables, classification, &Resources::default())
    }

    /// The same with what rules may name: files of sets and hashes, reputation, and the set of rules in force, whose values live on.
    pub fn compile_with(
        sources: &[Source<'_>],
        variables: &Variables,
        classification: &Classification,
        resources: &Resources<'_>,
    ) -> Compilation {
        let mut sets = Sets::new(resources);
        let mut diagnostics = Vec::new();
        let mut compiled: Vec<(Turn, Compiled, Option<Literal>, Option<TxRule>)> = Vec::new();
        let mut shared = Shared::default();
        for (number, source) in sources.iter().enumerate() {
            for rule in source.rules {
                match compile_rule(source.name, rule, variables, classification, &mut sets, &mut shared) {
                    Ok((one, tx)) => {
                        if let Some(part) = one.empty_part() {
                            let message = format!("no packet has such {part}: the rule never matches");
                            diagnostics.push((number, diagnostic(rule, Code::EmptySet, message)));
                        }
                        let literal = choose_literal(rule);
                        compiled.push((turn(&one, compiled.len(), resources.action_order), one, literal, tx));
                    }
                    Err((code, message)) => diagnostics.push((number, diagnostic(rule, code, message))),
                }
                if let Some(name) = &rule.signature.classtype
                    && classification.class(name).is_none()
                {
                    let message = format!("the class `{name}` is not in classification.config; the priority is {PRIORITY_DEFAULT}");
                    diagnostics.push((number, diagnostic(rule, Code::UnknownClasstype, message)));
                }
            }
        }
        compiled.sort_by_key(|(turn, ..)| *turn);
        let mut literals: Vec<Option<Literal>> = compiled.iter().map(|(_, _, literal, _)| literal.clone()).collect();
        let mut rules: Vec<Compiled> = Vec::with_capacity(compiled.len());
        let mut tx_rules = Vec::new();
        let transactions = TxRules::build((0..).zip(compiled).map(|(id, (_, rule, _, tx))| {
            rules.push(rule);
            if tx.is_some() {
                tx_rules.push(id);
            }
            tx
        }));
        // Of a rule on transactions, the literal that opens its gate.
        for id in &tx_rules {
            literals[*id as usize] = transactions.gate(*id).map(|(bytes, nocase)| Literal { bytes: bytes.clone(), nocase: *nocase });
        }
        let gated = transactions.gated().iter().copied();
        let gated_datagrams = gated.filter(|id| rules[*id as usize].protocol_matches(17)).collect();
        let asks_for_apps = (0..).zip(&rules).any(|(id, rule)| rule.apps != u64::MAX && !transactions.has(id));
        let mut parts = Parts { rules: &rules, literals: &literals, class: ProtoClass::Tcp, known: BTreeMap::new() };
        let tables = [ProtoClass::Tcp, ProtoClass::Udp, ProtoClass::Icmp, ProtoClass::Other].map(|class| {
            parts.class = class;
            Tables::new(&mut parts)
        });
        let mut by_finding = ByFinding::default();
        for (id, rule) in (0..).zip(&rules) {
            by_finding.add(&rule.raised, id);
        }
        let of_frames = (0..).zip(&rules).filter(|(_, rule)| rule.is_of_frames()).map(|(id, _)| id).collect();
        let ruleset = Self {
            tables,
            rules,
            transactions,
            tx_rules,
            gated_datagrams,
            asks_for_apps,
            by_finding,
            of_frames,
            sets: sets.named,
            reputation: resources.reputation.clone(),
        };
        Compilation { ruleset: Arc::new(ruleset), diagnostics }
    }

    /// No rules: everything is accepted.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules in the order in which they are judged.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<RuleInfo>> {
        self.rules.iter().map(|rule| &rule.info)
    }

    /// Does a rule look at what a TCP segment without payload carries (its flags, numbers, window, or that it is empty)?
    /// A datapath that leaves such segments out has to bring them in then.
    pub fn wants_control_packets(&self) -> bool {
        let of_control = |test: &PacketTest| match test {
            PacketTest::Flags(_) | PacketTest::Seq(_) | PacketTest::Ack(_) | PacketTest::Window { .. } | PacketTest::Dsize(_) => true,
            PacketTest::Itype(_)
            | PacketTest::Icode(_)
            | PacketTest::IcmpId(_)
            | PacketTest::IcmpSeq(_)
            | PacketTest::Ttl(_)
            | PacketTest::Tos { .. }
            | PacketTest::Id(_)
            | PacketTest::SameIp
            | PacketTest::IpProto { .. }
            | PacketTest::FragBits(_)
            | PacketTest::FragOffset { .. } => false,
        };
        self.rules.iter().any(|rule| {
            let of_headers = !rule.headers.is_empty() || !rule.integers.is_empty() || !rule.ip_options.is_empty();
            let asks = of_headers || rule.packet.iter().any(of_control) || (!rule.stream_sizes.is_empty() && rule.steps.is_empty());
            rule.on_packet && rule.protocol_matches(6) && asks
        })
    }

    /// The sets that its rules name.
    pub fn datasets(&self) -> impl Iterator<Item = &Arc<Dataset>> {
        self.sets.values()
    }

    /// A rule wants files kept.
    pub(crate) fn keeps_files(&self) -> bool {
        self.rules.iter().any(|rule| rule.store.is_some())
    }

    pub(crate) const fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// Rules that findings call.
    pub(crate) const fn by_finding(&self) -> &ByFinding {
        &self.by_finding
    }

    /// Rules on frames without an IP packet that can be judged.
    pub(crate) fn of_frames(&self) -> &[RuleId] {
        &self.of_frames
    }

    pub(crate) fn rule(&self, id: RuleId) -> &Compiled {
        &self.rules[id as usize]
    }

    /// Those that look into transactions, by the same numbers.
    pub fn transactions(&self) -> &TxRules {
        &self.transactions
    }

    pub(crate) fn gated_datagrams(&self) -> &[RuleId] {
        &self.gated_datagrams
    }

    /// Whether application layers have to be followed.
    pub fn wants_apps(&self) -> bool {
        self.asks_for_apps || !self.tx_rules.is_empty()
    }

    /// Whether any rule can match a transaction of a flow, by protocol and header alone.
    pub(crate) fn transaction_can_match(&self, app: App, client: (IpAddr, u16, bool), server: (IpAddr, u16, bool)) -> bool {
        self.any_transaction(client, server, |rule| rule.apps & bit(app) != 0)
    }

    fn any_transaction(&self, client: (IpAddr, u16, bool), server: (IpAddr, u16, bool), wanted: impl Fn(&Compiled) -> bool) -> bool {
        self.tx_rules.len() > HEADERS_TRIED_MAX
            || self.tx_rules.iter().map(|id| self.rule(*id)).filter(|rule| wanted(rule)).any(|rule| match rule.tx_side() {
                Some(Direction::ToServer) => rule.header_matches(client, server),
                Some(Direction::ToClient) => rule.header_matches(server, client),
                None => rule.header_matches(client, server) || rule.header_matches(server, client),
            })
    }

    /// The groups whose rules a packet meets, and its stream.
    pub(crate) fn groups(&self, class: ProtoClass, dir: Direction, source_port: u16, destination_port: u16) -> [&Group; 3] {
        self.tables[class as usize].of(dir).groups(source_port, destination_port)
    }

    /// Whether any rule can match a packet of a flow, by header alone. `client` and `server`: address, port, at home.
    pub(crate) fn can_match(&self, proto: u8, client: (IpAddr, u16, bool), server: (IpAddr, u16, bool)) -> bool {
        let class = ProtoClass::of(proto);
        for (dir, from, to) in [(Direction::ToServer, client, server), (Direction::ToClient, server, client)] {
            for group in self.groups(class, dir, from.1, to.1) {
                if group.all.len() > HEADERS_TRIED_MAX || group.all.iter().any(|id| self.rule(*id).header_matches(from, to)) {
                    return true;
                }
            }
        }
        matches!(proto, 6 | 17) && self.any_transaction(client, server, |rule| rule.protocol_matches(proto))
    }
}

impl Compiled {
    /// Of a rule on transactions: the direction in which it matches, when only one can be it.
    pub fn tx_side(&self) -> Option<Direction> {
        self.flow.direction.or(self.tx_direction)
    }

    /// Addresses and ports of a packet: address, port, at home.
    pub fn header_matches(&self, from: (IpAddr, u16, bool), to: (IpAddr, u16, bool)) -> bool {
        let one_way = |from: (IpAddr, u16, bool), to: (IpAddr, u16, bool)| {
            self.source_ports.contains(from.1)
                && self.destination_ports.contains(to.1)
                && self.source.contains(from.0, from.2)
                && self.destination.contains(to.0, to.2)
        };
        let version = match self.protocol {
            Protocol::Ipv4 => from.0.is_ipv4(),
            Protocol::Ipv6 => from.0.is_ipv6(),
            Protocol::Ip
            | Protocol::Tcp
            | Protocol::TcpPacket
            | Protocol::TcpStream
            | Protocol::Udp
            | Protocol::Icmp
            | Protocol::Icmpv4
            | Protocol::Icmpv6
            | Protocol::Sctp
            | Protocol::App(_)
            | Protocol::Other(_) => true,
        };
        version && (one_way(from, to) || (self.both_ways && one_way(to, from)))
    }

    /// The part of the header that stands for nothing, so that no packet can match.
    fn empty_part(&self) -> Option<&'static str> {
        let parts = [
            (self.source.is_empty(), "a source address"),
            (self.source_ports.is_empty(), "a source port"),
            (self.destination.is_empty(), "a destination address"),
            (self.destination_ports.is_empty(), "a destination port"),
        ];
        parts.into_iter().find_map(|(empty, part)| empty.then_some(part))
    }

    /// The operator does not want to hear of it between these.
    pub fn suppressed(&self, from: (IpAddr, u16, bool), to: (IpAddr, u16, bool)) -> bool {
        self.suppressions.iter().any(|(side, set)| match side {
            SuppressionSide::Source => set.contains(from.0, from.2),
            SuppressionSide::Destination => set.contains(to.0, to.2),
            SuppressionSide::Either => set.contains(from.0, from.2) || set.contains(to.0, to.2),
        })
    }

    pub fn protocol_matches(&self, proto: u8) -> bool {
        match self.protocol {
            Protocol::Ip | Protocol::Ipv4 | Protocol::Ipv6 => true,
            Protocol::Tcp | Protocol::TcpPacket | Protocol::TcpStream => proto == 6,
            Protocol::Udp => proto == 17,
            Protocol::Icmp => proto == 1 || proto == 58,
            Protocol::Icmpv4 => proto == 1,
            Protocol::Icmpv6 => proto == 58,
            Protocol::Sctp => proto == 132,
            Protocol::App(app) => runs_over(app, proto),
            Protocol::Other(name) => match name {
                "igmp" => proto == 2,
                // Of ARP there are frames only.
                "pkthdr" | "ether" | "arp" => true,
                _ => false,
            },
        }
    }

    /// Nothing of an IP packet has to be known.
    fn is_of_frames(&self) -> bool {
        matches!(self.protocol, Protocol::Other("arp" | "ether" | "pkthdr"))
            && self.raised.is_empty()
            && self.on_packet
            && self.packet.is_empty()
            && self.steps.is_empty()
            && self.has_any_ends()
    }

    /// Addresses and ports do not matter.
    pub fn has_any_ends(&self) -> bool {
        self.source.is_any() && self.destination.is_any() && self.source_ports.is_any() && self.destination_ports.is_any()
    }

    fn in_class(&self, class: ProtoClass) -> bool {
        match self.protocol {
            Protocol::Ip | Protocol::Ipv4 | Protocol::Ipv6 => true,
            Protocol::Tcp | Protocol::TcpPacket | Protocol::TcpStream => class == ProtoClass::Tcp,
            Protocol::Udp => class == ProtoClass::Udp,
            Protocol::Icmp | Protocol::Icmpv4 | Protocol::Icmpv6 => class == ProtoClass::Icmp,
            Protocol::Sctp => class == ProtoClass::Other,
            Protocol::App(app) => match class {
                ProtoClass::Tcp => runs_over(app, 6),
                ProtoClass::Udp => runs_over(app, 17),
                ProtoClass::Icmp | ProtoClass::Other => false,
            },
            Protocol::Other(name) => match name {
                "igmp" => class == ProtoClass::Other,
                "pkthdr" | "ether" => true,
                _ => false,
            },
        }
    }
}

fn runs_over(app: App, proto: u8) -> bool {
    app.info().transports.contains(&proto)
}

/// What stands for a rule in the first pass.
#[derive(Debug, Clone)]
struct Literal {
    bytes: Vec<u8>,
    nocase: bool,
}

/// The author's fast_pattern, else the longest content that must be there.
fn choose_literal(rule: &Rule) -> Option<Literal> {
    let contents = || {
        rule.signature.buffers.iter().filter(|list| list.buffer == BufferName::Payload).flat_map(|list| &list.matches).filter_map(|found| {
            match found {
                Match::Content(content) if !content.negated => Some(content),
                _ => None,
            }
        })
    };
    let chosen: &ContentMatch =
        contents().find(|content| content.fast_pattern.is_some()).or_else(|| contents().max_by_key(|content| content.bytes.len()))?;
    let bytes = match chosen.fast_pattern {
        Some(FastPattern::Chop { offset, length }) => {
            chosen.bytes.get(usize::from(offset)..usize::from(offset) + usize::from(length)).unwrap_or(&chosen.bytes)
        }
        Some(FastPattern::Whole | FastPattern::Only) | None => &chosen.bytes,
    };
    Some(Literal { bytes: bytes[..bytes.len().min(LITERAL_BYTES_MAX)].to_vec(), nocase: chosen.nocase })
}

impl Tables {
    fn new(parts: &mut Parts<'_>) -> Self {
        Self { to_server: Table::new(parts, Direction::ToServer), to_client: Table::new(parts, Direction::ToClient) }
    }

    const fn of(&self, dir: Direction) -> &Table {
        match dir {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl Table {
    fn new(parts: &mut Parts<'_>, dir: Direction) -> Self {
        let (mut any, mut destination, mut source) = (Vec::new(), Vec::new(), Vec::new());
        let (rules, class) = (parts.rules, parts.class);
        for (id, rule) in rules.iter().enumerate() {
            let id = id as RuleId;
            let Owner { on_stream, on_packet, gate, .. } = parts.owner(id);
            if !(on_stream || on_packet || gate)
                || !rule.raised.is_empty()
                || rule.empty_part().is_some()
                || !rule.in_class(class)
                || rule.flow.direction.is_some_and(|only| only != dir)
            {
                continue;
            }
            let ports = matches!(class, ProtoClass::Tcp | ProtoClass::Udp) || rule.protocol == Protocol::Sctp;
            match (ports && !rule.destination_ports.is_any(), ports && !rule.source_ports.is_any(), rule.both_ways) {
                (false, false, _) => any.push(id),
                (true, _, false) => destination.push((id, rule.destination_ports.ranges())),
                (false, true, false) => source.push((id, rule.source_ports.ranges())),
                // The other way round the sides change.
                (true, _, true) => {
                    destination.push((id, rule.destination_ports.ranges()));
                    source.push((id, rule.destination_ports.ranges()));
                }
                (false, true, true) => {
                    source.push((id, rule.source_ports.ranges()));
                    destination.push((id, rule.source_ports.ranges()));
                }
            }
        }
        Self { any: Group::new(any, parts), by_destination: Ports::new(&destination, parts), by_source: Ports::new(&source, parts) }
    }

    fn groups(&self, source_port: u16, destination_port: u16) -> [&Group; 3] {
        [&self.any, self.by_destination.group(destination_port), self.by_source.group(source_port)]
    }
}

static NO_RULES: std::sync::LazyLock<Group> = std::sync::LazyLock::new(Group::default);

impl Ports {
    fn new(members: &[(RuleId, &[(u16, u16)])], parts: &mut Parts<'_>) -> Self {
        if members.is_empty() {
            return Self::default();
        }
        // Sweep over the ports: at each one where a range begins or ends the set of rules changes.
        let mut changes: BTreeMap<u32, Vec<(RuleId, bool)>> = BTreeMap::from([(0, Vec::new())]);
        for (id, ranges) in members {
            for (first, last) in *ranges {
                changes.entry(u32::from(*first)).or_default().push((*id, true));
                changes.entry(u32::from(*last) + 1).or_default().push((*id, false));
            }
        }
        let mut built = Self::default();
        let mut known: BTreeMap<Vec<RuleId>, u32> = BTreeMap::new();
        let mut open: std::collections::BTreeSet<RuleId> = std::collections::BTreeSet::new();
        let mut overflow: Option<u32> = None;
        for (port, events) in changes {
            for (id, begins) in events {
                if begins {
                    open.insert(id)
                } else {
                    open.remove(&id)
                };
            }
            let Ok(port) = u16::try_from(port) else { break };
            let set: Vec<RuleId> = open.iter().copied().collect();
            let group = match known.get(&set) {
                Some(group) => *group,
                None if built.groups.len() < PORT_GROUPS_MAX || set.is_empty() => {
                    built.groups.push(Group::new(set.clone(), parts));
                    let group = built.groups.len() as u32 - 1;
                    known.insert(set, group);
                    group
                }
                None => *overflow.get_or_insert_with(|| {
                    let mut all: Vec<RuleId> = members.iter().map(|(id, _)| *id).collect();
                    all.sort_unstable();
                    all.dedup();
                    built.groups.push(Group::new(all, parts));
                    built.groups.len() as u32 - 1
                }),
            };
            built.starts.push(port);
            built.group.push(group);
        }
        built
    }

    fn group(&self, port: u16) -> &Group {
        let after = self.starts.partition_point(|start| *start <= port);
        match after.checked_sub(1).and_then(|index| self.groups.get(self.group[index] as usize)) {
            Some(group) => group,
            None => &NO_RULES,
        }
    }
}

impl Group {
    fn new(all: Vec<RuleId>, parts: &mut Parts<'_>) -> Self {
        let mut group = Self::default();
        let mut by_literal: BTreeMap<(&[u8], bool), Vec<Owner>> = BTreeMap::new();
        let mut once = Vec::new();
        let mut needs_bytes = false;
        for id in &all {
            let (rule, owner) = (&parts.rules[*id as usize], parts.owner(*id));
            group.of_stream |= owner.on_stream || owner.gate;
            if owner.on_stream {
                let span = rule.steps.span.or_else(|| rule.steps.reach.and_then(|reach| usize::try_from(reach).ok()));
                group.lookback = group.lookback.max(span.map_or(usize::MAX, |span| span.saturating_sub(1)));
                needs_bytes |= !rule.steps.is_empty();
            }
            match &parts.literals[*id as usize] {
                None if rule.ip_only => once.push(*id),
                None => group.always.push(owner),
                Some(literal) => by_literal.entry((&literal.bytes, literal.nocase)).or_default().push(owner),
            }
        }
        if !needs_bytes {
            group.lookback = 0;
        }
        group.once = match parts.known.get(&once) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(parts.known.entry(once.clone()).or_insert(Arc::new(ByAddress::new(&once, parts.rules)))),
        };
        group.prefilter = Prefilter::new(by_literal.keys().copied());
        group.starts.push(0);
        for owners in by_literal.into_values() {
            group.owners.extend(owners);
            group.starts.push(group.owners.len() as u32);
        }
        group.all = all;
        group
    }

    /// Rules whose literal has this number.
    pub fn owners(&self, literal: u32) -> &[Owner] {
        let range = self.starts.get(literal as usize).zip(self.starts.get(literal as usize + 1));
        range.and_then(|(first, end)| self.owners.get(*first as usize..*end as usize)).unwrap_or_default()
    }
}
