//! A rule set ready to run: immutable, shared, grouped so that a packet meets only the rules that can apply.
//!
//! ```text
//! protocol class ─ direction ─ { any port | by destination port | by source port } ─ Group
//! Group = literals of its rules (Prefilter) + rules without a literal
//! ```
//! There are two such tables: rules for each packet's payload, and rules for the reassembled stream. Rules are
//! numbered in the order in which they are judged (pass, drop, reject, alert; then flow bits set before read;
//! then priority), so that sorting candidates is enough.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_net::flow::Direction;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::classification::PRIORITY_DEFAULT;
use bulkhead_rules::condition::{
    AppLayerMode, Condition, Effect, End as StreamEnd, Flowint, FlowintOperation, FlowintValue, IntegerTest, IpOption, Recognised, Which,
    XbitsTrack,
};
use bulkhead_rules::limits::SuppressionSide;
use bulkhead_rules::tree::{
    Base, Body, Endian, FastPattern, FlowWord, Flowbits, FlowbitsOperation, NumberTest, PacketTest, Threshold, ThresholdKind,
};
use bulkhead_rules::{
    Action, AddressSet, App, Buffer as BufferName, Classification, Code, ContentMatch, Diagnostic, Match, PortSet, Protocol, Rule,
    Variables,
};

use crate::hosts::HostBit;
use crate::inspect::Steps;
use crate::prefilter::{LITERAL_BYTES_MAX, Prefilter};
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
    pub msg: String,
    pub action: Action,
    /// The class's description, empty without one.
    pub category: String,
    pub classtype: Option<String>,
    /// 1 is the gravest.
    pub priority: u8,
    pub references: Vec<(String, String)>,
    pub metadata: Vec<(String, String)>,
    /// File and line.
    pub source: String,
    pub line: u32,
}

impl RuleInfo {
    /// The same rule across reloads.
    pub const fn key(&self) -> u64 {
        (self.gid as u64) << 32 | self.sid as u64
    }
}

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub info: Arc<RuleInfo>,
    pub protocol: Protocol,
    pub source: AddressSet,
    pub destination: AddressSet,
    pub source_ports: PortSet,
    pub destination_ports: PortSet,
    pub both_ways: bool,
    pub flow: FlowTest,
    pub packet: Vec<PacketTest>,
    /// What its headers hold.
    pub headers: Vec<(BufferId, Steps)>,
    /// Numbers of its headers, and of the flow.
    pub integers: Vec<IntegerTest>,
    pub ip_options: Vec<IpOption>,
    /// Bytes that TCP has carried since the handshake.
    pub stream_sizes: Vec<(StreamEnd, NumberTest)>,
    pub steps: Steps,
    /// Protocols as recognised of which the flow's must be one, a bit each; all bits: none is asked for.
    pub apps: u64,
    /// Of a rule on transactions: the direction that all of its buffers belong to.
    pub tx_direction: Option<Direction>,
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
    /// Of whom the rule says nothing.
    pub suppressions: Vec<(SuppressionSide, AddressSet)>,
    /// Judged on each packet.
    pub on_packet: bool,
    /// Judged on the stream of a followed TCP connection.
    pub on_stream: bool,
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
    packet: [Tables; CLASSES],
    stream: Tables,
    transactions: TxRules,
    /// Rules on transactions: their numbers.
    tx_rules: Vec<RuleId>,
    /// A rule asks for a protocol without looking into its transactions.
    asks_for_apps: bool,
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

/// Rules that meet the same packets.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub prefilter: Prefilter,
    /// Rules by literal's number.
    pub owners: Vec<Vec<RuleId>>,
    /// Rules without a literal.
    pub always: Vec<RuleId>,
    /// Those of them that are judged once per flow and direction: thousands, in sets that list addresses.
    pub once: Vec<RuleId>,
    /// Bytes before the newest that its rules may need, `usize::MAX` without bound.
    pub lookback: usize,
    pub all: Vec<RuleId>,
}

impl Ruleset {
    /// Compiles rules that were parsed without error. Those whose variables or patterns are wrong are left out and reported.
    pub fn compile(sources: &[Source<'_>], variables: &Variables, classification: &Classification) -> Compilation {
        let mut diagnostics = Vec::new();
        let mut compiled: Vec<(Turn, Compiled, Option<Literal>, Option<TxRule>)> = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            for rule in source.rules {
                match compile_rule(source.name, rule, variables, classification) {
                    Ok((one, tx)) => {
                        if let Some(part) = one.empty_part() {
                            let message = format!("no packet has such {part}: the rule never matches");
                            diagnostics.push((number, diagnostic(rule, Code::EmptySet, message)));
                        }
                        let literal = choose_literal(rule);
                        compiled.push((turn(&one, compiled.len()), one, literal, tx));
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
        let literals: Vec<Option<Literal>> = compiled.iter().map(|(_, _, literal, _)| literal.clone()).collect();
        let mut rules: Vec<Compiled> = Vec::with_capacity(compiled.len());
        let mut tx_rules = Vec::new();
        let transactions = TxRules::build((0..).zip(compiled).map(|(id, (_, rule, _, tx))| {
            rules.push(rule);
            if tx.is_some() {
                tx_rules.push(id);
            }
            tx
        }));
        let asks_for_apps = (0..).zip(&rules).any(|(id, rule)| rule.apps != u64::MAX && !transactions.has(id));
        let tables = |class: ProtoClass, on_stream: bool| Tables::new(&rules, &literals, class, on_stream);
        let packet = [
            tables(ProtoClass::Tcp, false),
            tables(ProtoClass::Udp, false),
            tables(ProtoClass::Icmp, false),
            tables(ProtoClass::Other, false),
        ];
        let stream = tables(ProtoClass::Tcp, true);
        Compilation { ruleset: Arc::new(Self { packet, stream, rules, transactions, tx_rules, asks_for_apps }), diagnostics }
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

    pub(crate) fn rule(&self, id: RuleId) -> &Compiled {
        &self.rules[id as usize]
    }

    /// Those that look into transactions, by the same numbers.
    pub fn transactions(&self) -> &TxRules {
        &self.transactions
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

    /// The groups whose packet rules a packet meets.
    pub(crate) fn packet_groups(&self, class: ProtoClass, dir: Direction, source_port: u16, destination_port: u16) -> [&Group; 3] {
        self.packet[class as usize].of(dir).groups(source_port, destination_port)
    }

    /// The groups whose stream rules a direction meets.
    pub(crate) fn stream_groups(&self, dir: Direction, source_port: u16, destination_port: u16) -> [&Group; 3] {
        self.stream.of(dir).groups(source_port, destination_port)
    }

    /// Whether any rule can match a packet of a flow, by header alone. `client` and `server`: address, port, at home.
    pub(crate) fn can_match(&self, proto: u8, client: (IpAddr, u16, bool), server: (IpAddr, u16, bool)) -> bool {
        let class = ProtoClass::of(proto);
        for (dir, from, to) in [(Direction::ToServer, client, server), (Direction::ToClient, server, client)] {
            let groups = self.packet_groups(class, dir, from.1, to.1);
            let streams = if class == ProtoClass::Tcp { self.stream_groups(dir, from.1, to.1) } else { groups };
            for group in groups.into_iter().chain(streams) {
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
            Protocol::Other(_) => false,
        }
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
            Protocol::Other(_) => false,
        }
    }
}

fn runs_over(app: App, proto: u8) -> bool {
    app.info().transports.contains(&proto)
}

/// Order of judgement: action, flow bits, priority, order of the files.
type Turn = (u8, u8, u8, usize);

fn turn(rule: &Compiled, index: usize) -> Turn {
    let action = match rule.info.action {
        Action::Pass => 0,
        Action::Drop => 1,
        Action::RejectSource | Action::RejectDestination | Action::RejectBoth => 2,
        Action::Alert | Action::Config => 3,
    };
    let reads = |operation: FlowbitsOperation| matches!(operation, FlowbitsOperation::IsSet | FlowbitsOperation::IsNotSet);
    let of_hosts = |writes: bool| rule.hostbits.iter().any(|bit| bit.operation.writes() == writes);
    let read = rule.flowbits.iter().any(|bits| reads(bits.operation)) || of_hosts(false);
    let write = rule.flowbits.iter().any(|bits| !reads(bits.operation)) || of_hosts(true);
    let bits = match (write, read) {
        (true, false) => 0,
        (true, true) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    (action, bits, rule.info.priority, index)
}

fn compile_rule(
    file: &str,
    rule: &Rule,
    variables: &Variables,
    classification: &Classification,
) -> Result<(Compiled, Option<TxRule>), (Code, String)> {
    let header = &rule.header;
    let signature = &rule.signature;
    let variable = |error: bulkhead_rules::variables::VariableError| (error.code(), error.to_string());
    if let Some(reason) = refused(rule) {
        return Err(reason);
    }
    let tx = TxRule::new(rule)?;
    // Of a rule on transactions, the payload is one of their tests.
    let payload = signature.buffers.iter().filter(|_| tx.is_none()).find(|list| list.buffer == BufferName::Payload);
    let matches: &[Match] = payload.map_or(&[], |list| &list.matches);
    let decoded = decoded(signature).map_or(&[][..], |list| &list.matches);
    let mut steps = Steps::with(matches, decoded, &[]).map_err(|message| (Code::PcreUnsupported, message))?;
    let mut looks_for_faults = false;
    for condition in &signature.conditions {
        if let Condition::Asn1(asn1) = condition {
            steps = steps.then_asn1(*asn1);
            looks_for_faults = true;
        }
    }
    let class = signature.classtype.as_deref().and_then(|name| classification.class(name));
    let info = RuleInfo {
        gid: signature.gid,
        sid: signature.sid,
        rev: signature.rev,
        msg: signature.msg.clone(),
        action: header.action,
        category: class.map(|class| class.description.clone()).unwrap_or_default(),
        classtype: signature.classtype.clone(),
        priority: signature.priority.unwrap_or(class.map_or(PRIORITY_DEFAULT, |class| class.priority)),
        references: signature.references.clone(),
        metadata: signature.metadata.clone(),
        source: file.to_owned(),
        line: rule.span.line,
    };
    let has = |word: FlowWord| signature.flow.contains(&word);
    let flow = FlowTest {
        needs_flow: signature.flow.iter().any(|word| !matches!(word, FlowWord::Stateless | FlowWord::OnlyFrag | FlowWord::NoFrag)),
        established: match (has(FlowWord::Established), has(FlowWord::NotEstablished)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        direction: if has(FlowWord::ToServer) || has(FlowWord::FromClient) {
            Some(Direction::ToServer)
        } else if has(FlowWord::ToClient) || has(FlowWord::FromServer) {
            Some(Direction::ToClient)
        } else {
            None
        },
        fragmented: match (has(FlowWord::OnlyFrag), has(FlowWord::NoFrag)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    // Which of packet and stream, as `SigValidate...` decides it: packet keywords force packets; contents without
    // them go to the stream, and to packets too when they have a position.
    let tcp = match header.protocol {
        Protocol::Tcp | Protocol::TcpStream | Protocol::Ip | Protocol::Ipv4 | Protocol::Ipv6 => true,
        Protocol::App(app) => runs_over(app, 6),
        _ => false,
    };
    let stream_sizes: Vec<(StreamEnd, NumberTest)> = signature
        .conditions
        .iter()
        .filter_map(|condition| match condition {
            Condition::StreamSize { end, test } => Some((*end, *test)),
            // Refused above.
            _ => None,
        })
        .collect();
    let headers = header_lists(signature)?;
    let integers: Vec<IntegerTest> = signature.conditions.iter().filter_map(number_of_packet).cloned().collect();
    let ip_options: Vec<IpOption> = signature
        .conditions
        .iter()
        .filter_map(|condition| if let Condition::IpOption(option) = condition { Some(*option) } else { None })
        .collect();
    let needs_packet = !stream_sizes.is_empty()
        || looks_for_faults
        || !headers.is_empty()
        || !integers.is_empty()
        || !ip_options.is_empty()
        || header.protocol == Protocol::TcpPacket
        || has(FlowWord::NoStream)
        || signature.packet.iter().any(forces_packet);
    let only_stream = has(FlowWord::OnlyStream) || header.protocol == Protocol::TcpStream;
    let positioned = matches.iter().any(
        |found| matches!(found, Match::Content(content) if content.offset.is_some() || content.depth.is_some() || content.starts_with),
    );
    let on_stream = tcp && !steps.is_empty() && (only_stream || !needs_packet);
    let on_packet = tx.is_none() && !only_stream && (!on_stream || positioned);
    let source_ports = variables.port_set(&header.source_ports).map_err(variable)?;
    let destination_ports = variables.port_set(&header.destination_ports).map_err(variable)?;
    let ports_matter =
        matches!(header.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp) && !(source_ports.is_any() && destination_ports.is_any());
    let ip_only = steps.is_empty()
        && signature.flow.is_empty()
        && signature.packet.iter().all(|test| matches!(test, PacketTest::IpProto { .. }))
        && signature.flowbits.iter().all(|bits| bits.operation == FlowbitsOperation::Set)
        && signature.conditions.is_empty()
        && !signature.buffers.iter().any(|list| matches!(list.buffer, BufferName::Named(_)))
        && signature.effects.is_empty()
        && signature.apps.is_empty()
        && tx.is_none()
        && !ports_matter
        && !matches!(header.protocol, Protocol::TcpPacket | Protocol::TcpStream);
    let asked = asked_app(signature)?;
    let once_app =
        !signature.conditions.is_empty() && tx.is_none() && steps.is_empty() && signature.packet.is_empty() && asked.mask != u64::MAX;
    let compiled = Compiled {
        apps: apps_of(&signature.apps) & asked.mask,
        before_app: asked.unknown,
        once_app,
        bypass: signature.effects.contains(&Effect::Bypass),
        tells: signature.effects.contains(&Effect::Alert),
        hostbits: signature
            .conditions
            .iter()
            .filter_map(HostBit::read)
            .chain(signature.effects.iter().filter_map(HostBit::written))
            .collect(),
        told_again: tx.as_ref().is_some_and(TxRule::is_told_again),
        tx_direction: tx.as_ref().and_then(TxRule::direction),
        info: Arc::new(info),
        protocol: header.protocol,
        source: variables.address_set(&header.source).map_err(variable)?,
        destination: variables.address_set(&header.destination).map_err(variable)?,
        source_ports,
        destination_ports,
        both_ways: header.direction == bulkhead_rules::Direction::Both,
        flow,
        packet: signature.packet.clone(),
        headers,
        integers,
        ip_options,
        stream_sizes,
        steps,
        flowbits: signature.flowbits.iter().map(flowbits_step).collect(),
        flowints: flowint_steps(signature),
        noalert: signature.noalert,
        thresholds: signature.thresholds.clone(),
        suppressions: signature
            .suppressions
            .iter()
            .map(|(side, addresses)| variables.address_set(addresses).map(|set| (*side, set)))
            .collect::<Result<_, _>>()
            .map_err(variable)?,
        on_packet,
        on_stream,
        ip_only,
    };
    Ok((compiled, tx))
}

/// What of a rule this engine cannot run: such a rule is not loaded rather than loaded with less than it says.
fn refused(rule: &Rule) -> Option<(Code, String)> {
    let (header, signature) = (&rule.header, &rule.signature);
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    if header.action == Action::Config {
        return Some((Code::ActionUnsupported, "the action `config` is not supported yet".to_owned()));
    }
    let unbuilt = |name: &str| Some((Code::ProtocolUnsupported, format!("the protocol `{name}` is not supported yet")));
    match header.protocol {
        Protocol::App(app) if !is_parsed(app) => return unbuilt(app.name()),
        Protocol::Other(_) => return unbuilt(header.protocol.name()),
        _ => {}
    }
    for list in &signature.buffers {
        match list.buffer {
            BufferName::Payload if list.transforms.is_empty() => {}
            BufferName::Payload => return keyword("transforms of the payload"),
            BufferName::Named(id) if is_of_packet(id) && list.transforms.is_empty() => {}
            BufferName::Named(id) if is_of_packet(id) => return keyword("transforms of a header"),
            // With the buffer in which it is decoded.
            BufferName::Named(BufferId::Base64Data) if decoded(signature).is_some() => {}
            BufferName::Named(BufferId::Base64Data) => return keyword("base64_data of two decodings"),
            // As far as they are known: `TxRule::new`.
            BufferName::Named(_) => continue,
            BufferName::Frame { .. } => return keyword("frame"),
        }
        if let Some(reason) = list.matches.iter().find_map(refused_match) {
            return Some(reason);
        }
    }
    if !signature.apps.is_empty() && !signature.apps.iter().any(|app| is_parsed(*app)) {
        return unbuilt(signature.apps[0].name());
    }
    let of_packet =
        |condition: &Condition| matches!(condition, Condition::Asn1(_) | Condition::IpOption(_)) || number_of_packet(condition).is_some();
    let known = |condition: &Condition| of_packet(condition) || is_of_flow(condition) || is_of_transactions(condition);
    refused_beside_buffers(rule, known)
}

/// The same for one match, in whatever buffer.
pub(crate) fn refused_match(found: &Match) -> Option<(Code, String)> {
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    let base = match found {
        Match::Content(content) if content.replace.is_some() => return keyword("replace"),
        Match::Pcre(pcre) if !pcre.captures.is_empty() => return keyword("variables of pcre"),
        Match::Pcre(_) | Match::Content(_) | Match::IsDataAt(_) | Match::Bsize(_) => return None,
        Match::ByteTest(test) => test.base,
        Match::ByteJump(jump) => jump.base,
        Match::ByteExtract(extract) => extract.base,
        Match::ByteMath(math) => math.base,
        Match::Base64Decode(_) | Match::Entropy(_) => return None,
        Match::Dataset(_) => return keyword("dataset"),
        Match::Datarep(_) => return keyword("datarep"),
        Match::Absent { .. } => return keyword("absent"),
    };
    if base == Base::Binary(Endian::Dce) { keyword("dce") } else { None }
}

/// The same for what a rule asks beside its buffers. `known`: the conditions that the caller sees to.
pub(crate) fn refused_beside_buffers(rule: &Rule, known: impl Fn(&Condition) -> bool) -> Option<(Code, String)> {
    let (header, signature) = (&rule.header, &rule.signature);
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    if let Some(hook) = &header.hook {
        return Some((Code::ValueUnsupported, format!("the hook `{hook}` is not supported yet")));
    }
    if header.direction == bulkhead_rules::Direction::Transaction {
        return Some((Code::ValueUnsupported, "the direction `=>` is not supported yet".to_owned()));
    }
    let known = |condition: &Condition| known(condition) || matches!(condition, Condition::Flowint(_));
    // A tag asks for logs of packets, of which there are none: it changes nothing of what is judged.
    let done = |effect: &Effect| {
        HostBit::written(effect).is_some() || matches!(effect, Effect::Flowint(_) | Effect::Tag(_) | Effect::Bypass | Effect::Alert)
    };
    let beyond = |body: &Body| match body {
        Body::Condition(condition) => !known(condition),
        Body::Effect(effect) => !done(effect),
        _ => false,
    };
    if let Some(option) = rule.options.iter().find(|option| beyond(&option.body)) {
        return keyword(option.keyword);
    }
    if !signature.conditions.iter().all(known) || !signature.effects.iter().all(done) {
        return keyword("a condition of the rule");
    }
    for threshold in &signature.thresholds {
        if matches!(threshold.kind, ThresholdKind::Backoff { .. }) {
            return Some((Code::ValueUnsupported, "a threshold of type backoff is not supported yet".to_owned()));
        }
        if threshold.unique_on.is_some() {
            return Some((Code::ValueUnsupported, "`unique_on` is not supported yet".to_owned()));
        }
    }
    None
}

/// Conditions that the flow or its hosts answer, of whatever rule.
pub(crate) fn is_of_flow(condition: &Condition) -> bool {
    match condition {
        Condition::Flowint(_) | Condition::Hostbits(_) | Condition::StreamSize { .. } => true,
        Condition::Xbits(xbits) => xbits.track != XbitsTrack::Transaction,
        Condition::AppLayerProtocol(test) => test.mode != AppLayerMode::Original,
        _ => false,
    }
}

/// Buffers that are headers of one packet.
pub(crate) const fn is_of_packet(buffer: BufferId) -> bool {
    matches!(
        buffer,
        BufferId::TcpHdr
            | BufferId::UdpHdr
            | BufferId::Icmpv4Hdr
            | BufferId::Icmpv6Hdr
            | BufferId::Ipv4Hdr
            | BufferId::Ipv6Hdr
            | BufferId::IpSrc
            | BufferId::IpDst
    )
}

fn header_lists(signature: &bulkhead_rules::Signature) -> Result<Vec<(BufferId, Steps)>, (Code, String)> {
    let mut all = Vec::new();
    for list in &signature.buffers {
        if let BufferName::Named(buffer) = list.buffer
            && is_of_packet(buffer)
        {
            all.push((buffer, Steps::new(&list.matches).map_err(|message| (Code::PcreUnsupported, message))?));
        }
    }
    Ok(all)
}

/// A number of a packet's headers or of its flow that is there once.
fn number_of_packet(condition: &Condition) -> Option<&IntegerTest> {
    use bulkhead_rules::Field;
    match condition {
        Condition::Integer(test) if test.which == Which::Any && test.towards.is_none() => matches!(
            test.field,
            Field::TcpMss
                | Field::TcpWscale
                | Field::Icmpv6Mtu
                | Field::VlanId
                | Field::VlanLayers
                | Field::FlowAge
                | Field::FlowBytesToclient
                | Field::FlowBytesToserver
                | Field::FlowPktsToclient
                | Field::FlowPktsToserver
        )
        .then_some(test),
        _ => None,
    }
}

/// What `base64_data` is asked, when there is one decoding that it can be of.
pub(crate) fn decoded(signature: &bulkhead_rules::Signature) -> Option<&bulkhead_rules::BufferMatches> {
    let decodes = |found: &&Match| matches!(found, Match::Base64Decode(_));
    let decodings = signature.buffers.iter().flat_map(|list| &list.matches).filter(decodes).count();
    let mut all = signature.buffers.iter().filter(|list| list.buffer == BufferName::Named(BufferId::Base64Data));
    all.next().filter(|list| decodings == 1 && list.transforms.is_empty() && all.next().is_none())
}

/// What `app-layer-protocol` asks: a bit for each protocol that may be, and [`NO_APP`].
struct AskedApp {
    mask: u64,
    unknown: bool,
}

/// The bit of a flow whose protocol will never be known.
pub(crate) const NO_APP: u64 = 1 << 63;

fn asked_app(signature: &bulkhead_rules::Signature) -> Result<AskedApp, (Code, String)> {
    let mut asked = AskedApp { mask: u64::MAX, unknown: false };
    for condition in &signature.conditions {
        let Condition::AppLayerProtocol(test) = condition else { continue };
        if test.protocols.contains(&Recognised::Unknown) {
            if test.negated || test.protocols.len() > 1 {
                return Err((Code::ValueUnsupported, "`app-layer-protocol:!unknown` is not supported yet".to_owned()));
            }
            asked.unknown = true;
            continue;
        }
        let bits = test.protocols.iter().fold(0, |bits, one| {
            bits | match one {
                Recognised::As(app) if test.exact => crate::transaction::bit(*app),
                Recognised::As(app) => apps_of(&[*app]),
                Recognised::Failed => NO_APP,
                Recognised::Unknown => 0,
            }
        });
        asked.mask &= if test.negated { !bits } else { bits };
    }
    Ok(asked)
}

/// Keywords that look at one packet. `ip_proto` does not, in Suricata either.
const fn forces_packet(test: &PacketTest) -> bool {
    !matches!(test, PacketTest::IpProto { .. })
}

fn flowbits_step(bits: &Flowbits) -> FlowbitsStep {
    FlowbitsStep { operation: bits.operation, names: bits.names.iter().map(|name| name_hash(name)).collect() }
}

fn flowint_steps(signature: &bulkhead_rules::Signature) -> Vec<FlowintStep> {
    let reads =
        signature.conditions.iter().filter_map(|condition| if let Condition::Flowint(test) = condition { Some(test) } else { None });
    let writes = signature.effects.iter().filter_map(|effect| if let Effect::Flowint(write) = effect { Some(write) } else { None });
    let step = |flowint: &Flowint| {
        use FlowintOperation as Of;
        let other = match &flowint.operation {
            Of::Add(value) | Of::Subtract(value) | Of::Set(value) | Of::Less(value) | Of::LessOrEqual(value) => Some(value),
            Of::Equal(value) | Of::NotEqual(value) | Of::GreaterOrEqual(value) | Of::Greater(value) => Some(value),
            Of::IsSet | Of::IsNotSet => None,
        };
        let other = other.and_then(|value| if let FlowintValue::Name(name) = value { Some(name_hash(name)) } else { None });
        FlowintStep { name: name_hash(&flowint.name), operation: flowint.operation.clone(), other }
    };
    reads.chain(writes).map(step).collect()
}

/// FNV-1a. Names are the rule authors' own, not hostile input.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn diagnostic(rule: &Rule, code: Code, message: String) -> Diagnostic {
    Diagnostic {
        code,
        severity: code.severity(),
        span: rule.span,
        sid: Some(rule.signature.sid),
        message,
        label: code.label(),
        help: None,
        fix: None,
    }
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
    fn new(rules: &[Compiled], literals: &[Option<Literal>], class: ProtoClass, on_stream: bool) -> Self {
        let table = |dir: Direction| Table::new(rules, literals, class, on_stream, dir);
        Self { to_server: table(Direction::ToServer), to_client: table(Direction::ToClient) }
    }

    const fn of(&self, dir: Direction) -> &Table {
        match dir {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl Table {
    fn new(rules: &[Compiled], literals: &[Option<Literal>], class: ProtoClass, on_stream: bool, dir: Direction) -> Self {
        let (mut any, mut destination, mut source) = (Vec::new(), Vec::new(), Vec::new());
        for (id, rule) in rules.iter().enumerate() {
            let id = id as RuleId;
            // A stream rule is tried on packets that no stream takes in; TCP keeps those in the stream's table.
            let wanted = if on_stream { rule.on_stream } else { rule.on_packet || (rule.on_stream && class != ProtoClass::Tcp) };
            if !wanted || rule.empty_part().is_some() || !rule.in_class(class) || rule.flow.direction.is_some_and(|only| only != dir) {
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
        Self {
            any: Group::new(any, rules, literals),
            by_destination: Ports::new(&destination, rules, literals),
            by_source: Ports::new(&source, rules, literals),
        }
    }

    fn groups(&self, source_port: u16, destination_port: u16) -> [&Group; 3] {
        [&self.any, self.by_destination.group(destination_port), self.by_source.group(source_port)]
    }
}

static NO_RULES: std::sync::LazyLock<Group> = std::sync::LazyLock::new(Group::default);

impl Ports {
    fn new(members: &[(RuleId, &[(u16, u16)])], rules: &[Compiled], literals: &[Option<Literal>]) -> Self {
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
                    built.groups.push(Group::new(set.clone(), rules, literals));
                    let group = built.groups.len() as u32 - 1;
                    known.insert(set, group);
                    group
                }
                None => *overflow.get_or_insert_with(|| {
                    let mut all: Vec<RuleId> = members.iter().map(|(id, _)| *id).collect();
                    all.sort_unstable();
                    all.dedup();
                    built.groups.push(Group::new(all, rules, literals));
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
    fn new(all: Vec<RuleId>, rules: &[Compiled], literals: &[Option<Literal>]) -> Self {
        let mut numbers: BTreeMap<(Vec<u8>, bool), usize> = BTreeMap::new();
        let mut group = Self::default();
        let mut found: Vec<(Vec<u8>, bool)> = Vec::new();
        for id in &all {
            let steps = &rules[*id as usize].steps;
            let span = steps.span.or_else(|| steps.reach.and_then(|reach| usize::try_from(reach).ok()));
            group.lookback = group.lookback.max(span.map_or(usize::MAX, |span| span.saturating_sub(1)));
            match &literals[*id as usize] {
                None if rules[*id as usize].ip_only => group.once.push(*id),
                None => group.always.push(*id),
                Some(literal) => {
                    let key = (literal.bytes.clone(), literal.nocase);
                    let number = *numbers.entry(key.clone()).or_insert_with(|| {
                        found.push(key);
                        group.owners.push(Vec::new());
                        group.owners.len() - 1
                    });
                    group.owners[number].push(*id);
                }
            }
        }
        if group.always.iter().all(|id| rules[*id as usize].steps.is_empty()) && group.owners.is_empty() {
            group.lookback = 0;
        }
        group.prefilter = Prefilter::new(found.iter().map(|(bytes, nocase)| (bytes.as_slice(), *nocase)));
        group.all = all;
        group
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
