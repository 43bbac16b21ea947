//! What goes into the pipeline and what comes out: plain data, no strings built on the packet's way.

use std::sync::Arc;

use bulkhead_applayer::{Buffer, Dir, Field, Notes, Protocol, Transaction};
use bulkhead_model::{BypassReason, DropReason, Timestamp, Verdict, WorkloadId};
use bulkhead_net::decode::{DecodeEvent, VlanIds};
use bulkhead_net::flow::{Counts, Direction, Endpoint, FlowEnd};
use bulkhead_net::{ChecksumState, DecodeConfig, LinkType};

use crate::files::{File, FileWants};
use crate::rules::RuleInfo;
use crate::trace::Trace;

pub use bulkhead_net::defrag::DefragConfig;
pub use bulkhead_net::flow::FlowConfig;
pub use bulkhead_net::stream::StreamConfig;

/// Alerts of one packet; Suricata's `packet-alert-max`.
const ALERTS_PER_PACKET_MAX: usize = 15;

/// One shard's configuration. Each cap has a counter in [`Stats`] or in the stats of its room.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineConfig {
    pub decode: DecodeConfig,
    pub defrag: DefragConfig,
    pub flow: FlowConfig,
    pub stream: StreamConfig,
    /// Bytes per direction after which it is bypassed; 0: never.
    pub stream_depth: u64,
    /// Bytes of a direction kept for rules whose contents may lie far apart.
    pub lookback_bytes_max: usize,
    /// All look-back of this shard together.
    pub lookback_memory_max: usize,
    /// Sessions and transactions of application layers of this shard together.
    pub app_memory_max: usize,
    /// Limits of the parsers. What is wanted of them follows from the rules.
    pub app: bulkhead_applayer::Config,
    /// Send [`EngineEvent::Transaction`] for each transaction that is over, and [`AlertEvent::record`].
    pub transactions: bool,
    /// What the log wants to know of files, beside what rules do.
    pub files: FileWants,
    /// Bytes of a file's content that are kept for a rule with `filestore`.
    pub file_store_bytes_max: usize,
    /// What to do with a packet that a full table or buffer cannot take in.
    pub on_cap: OnFailure,
    /// What to do with bytes that cannot be judged: a retransmission of what is no longer kept, payload of a connection of
    /// which nothing is known, and what would take more than [`crate::inspect::WORK_PER_PACKET_MAX`] to inspect.
    pub on_unverifiable: OnFailure,
    /// Trust the wire's checksums (`Verify`), or a capture that was taken before they were filled in (`Ignore`).
    pub checksum: Checksums,
    pub midstream: Midstream,
    pub bypass_no_rule: bool,
    pub bypass_encrypted: bool,
    pub drop_scope: DropScope,
    /// Events that wait to be drained; more are dropped and counted by kind.
    pub events_max: usize,
    /// Bytes of payload in an alert.
    pub excerpt_bytes_max: usize,
    /// Hosts, pairs and flows that thresholds count.
    pub thresholds_max: usize,
    /// Bits of hosts and pairs of hosts.
    pub host_bits_max: usize,
    /// Alerts of one packet; Suricata's `packet-alert-max`.
    pub alerts_per_packet_max: usize,
    /// Send [`EngineEvent::Anomaly`].
    pub anomalies: bool,
    /// Send [`EngineEvent::Drop`] and one [`EngineEvent::FlowEnd`] for each flow.
    pub flow_events: bool,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            decode: DecodeConfig::default(),
            defrag: DefragConfig::default(),
            flow: FlowConfig::default(),
            stream: StreamConfig::default(),
            stream_depth: 0,
            lookback_bytes_max: 56 * 1024,
            lookback_memory_max: 256 << 20,
            app_memory_max: 256 << 20,
            app: bulkhead_applayer::Config::default(),
            transactions: false,
            files: FileWants::default(),
            file_store_bytes_max: 1 << 20,
            on_cap: OnFailure::Drop,
            on_unverifiable: OnFailure::Drop,
            checksum: Checksums::Verify,
            midstream: Midstream::Follow,
            bypass_no_rule: true,
            bypass_encrypted: true,
            drop_scope: DropScope::Flow,
            events_max: 65_536,
            excerpt_bytes_max: 128,
            thresholds_max: 65_536,
            host_bits_max: 65_536,
            alerts_per_packet_max: ALERTS_PER_PACKET_MAX,
            anomalies: true,
            flow_events: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Pass,
    Drop,
}

/// What becomes of a connection whose beginning was not seen: Suricata's `midstream-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Midstream {
    /// Judged as far as it can be followed ([`StreamConfig::midstream`]).
    Follow,
    DropFlow,
    Reject,
    /// No rule is asked.
    PassFlow,
    /// Not looked at any more.
    Bypass,
}

impl Midstream {
    /// As EVE writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Follow => "ignore",
            Self::DropFlow => "drop_flow",
            Self::Reject => "reject",
            Self::PassFlow => "pass_flow",
            Self::Bypass => "bypass",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    Verify,
    Ignore,
}

/// How much a drop rule takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropScope {
    /// The flow, whatever matched: the live path.
    Flow,
    /// As Suricata: the flow when the stream or only its ends matched, else the packet.
    Matched,
}

/// What the datapath knows of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMeta {
    /// The interface that owns the flow; addresses mean something within it.
    pub zone: u32,
    pub link: LinkType,
    pub checksum: ChecksumState,
    /// A GSO superpacket.
    pub gso: bool,
    /// Packets of this flow and direction passed unseen before this one.
    pub gap: bool,
    /// Its sender is known not to be the end whose address it carries: its bytes are judged, and what it acknowledges is nothing.
    pub foreign: bool,
    /// The kernel's number for the conversation, 0 when it has none: see `FlowTable::lookup`.
    pub epoch: u64,
    pub src: WorkloadId,
    pub dst: WorkloadId,
    /// False: monitor. Nothing is blocked, `Outcome::would` says what would have been.
    pub protect: bool,
    pub home: HomeSide,
    /// Bytes on the wire, for counting.
    pub len_on_wire: u32,
}

impl PacketMeta {
    /// A frame of a capture file.
    pub fn captured(link: LinkType, len_on_wire: u32, protect: bool) -> Self {
        Self {
            zone: 0,
            link,
            checksum: ChecksumState::Unknown,
            gso: false,
            gap: false,
            foreign: false,
            epoch: 0,
            src: WorkloadId::WORLD,
            dst: WorkloadId::WORLD,
            protect,
            home: HomeSide::default(),
            len_on_wire,
        }
    }
}

/// Which ends of the packet are protected workloads: what `HOME_NET` stands for by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HomeSide {
    pub source: bool,
    pub destination: bool,
}

/// The judgement on one packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What to do now.
    pub verdict: Verdict,
    /// In monitor mode: what protect would have done, when that differs.
    pub would: Option<Verdict>,
    /// EVE's `flow_id`.
    pub flow: Option<u64>,
    /// The rule that decided.
    pub rule: Option<Arc<RuleInfo>>,
    /// For [`Verdict::Reject`] of TCP: the numbers to build the resets from.
    pub tcp_reset: Option<ResetInfo>,
}

impl Outcome {
    pub const fn of(verdict: Verdict) -> Self {
        Self { verdict, would: None, flow: None, rule: None, tcp_reset: None }
    }
}

/// Numbers for a reset to each end, seen from the packet that is rejected: a reset to its destination looks as
/// if its source had sent it, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetInfo {
    /// Sequence number of the reset to the packet's destination.
    pub seq_to_destination: u32,
    pub ack_to_destination: u32,
    /// Sequence number of the reset to the packet's source.
    pub seq_to_source: u32,
    pub ack_to_source: u32,
    pub to_source: bool,
    pub to_destination: bool,
}

/// Ends of a packet or flow. Of a flow, `src` is the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// 0 when there is no flow.
    pub id: u64,
    pub proto: u8,
    pub src: Endpoint,
    pub dst: Endpoint,
}

#[derive(Debug, Clone)]
pub enum EngineEvent {
    Alert(AlertEvent),
    Drop(DropEvent),
    FlowEnd(FlowEndEvent),
    Anomaly(AnomalyEvent),
    Transaction(Box<TransactionEvent>),
    File(Box<FileEvent>),
}

/// A file is over: it came whole, or broke off.
#[derive(Debug, Clone)]
pub struct FileEvent {
    pub at: Timestamp,
    /// `src` is the client.
    pub key: FlowKey,
    pub client: WorkloadId,
    pub server: WorkloadId,
    pub zone: u32,
    /// The transaction that carried it.
    pub tx: u64,
    pub protocol: Protocol,
    /// Which way it went.
    pub dir: Dir,
    pub file: File,
    /// A rule wants it kept: its content is [`File::content`].
    pub stored: bool,
    /// The transaction as far as it had come, with [`PipelineConfig::transactions`].
    pub record: Option<Box<Record>>,
}

/// A transaction of an application layer is over: complete, or its flow has ended.
#[derive(Debug, Clone)]
pub struct TransactionEvent {
    pub at: Timestamp,
    /// `src` is the client.
    pub key: FlowKey,
    /// Of the client and the server.
    pub client: WorkloadId,
    pub server: WorkloadId,
    pub zone: u32,
    /// Counted by flow from 0: EVE's `tx_id`.
    pub id: u64,
    pub protocol: Protocol,
    /// Which way the packet went that ended it; `None`: its flow has ended.
    pub direction: Option<Direction>,
    pub record: Record,
}

/// What a transaction held when it was asked: its values but bodies, numbers and events, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The transaction's number in its flow.
    pub id: u64,
    pub values: Vec<(Buffer, Dir, Vec<u8>)>,
    pub integers: Vec<(Field, Dir, u64)>,
    pub events: Vec<(&'static str, Dir)>,
    /// What only a log wants.
    pub notes: Notes,
    /// Both directions came to their end.
    pub complete: bool,
}

impl Record {
    /// A value longer than this is cut: certificates and header blocks have a few KiB.
    pub const VALUE_BYTES_MAX: usize = 16 * 1024;

    pub(crate) fn of(tx: &Transaction) -> Self {
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(Self::VALUE_BYTES_MAX)].to_vec();
        Self {
            id: tx.id,
            values: tx
                .values()
                .iter()
                .filter(|value| !value.is_stream())
                .map(|value| (value.buffer, value.dir, cut(tx.bytes(value))))
                .collect(),
            integers: tx.integers().to_vec(),
            events: tx.events().collect(),
            notes: tx.notes().clone(),
            complete: tx.is_complete(),
        }
    }

    /// The first value of a buffer in a direction.
    pub fn get(&self, buffer: Buffer, dir: Dir) -> Option<&[u8]> {
        self.all(buffer, dir).next()
    }

    pub fn all(&self, buffer: Buffer, dir: Dir) -> impl Iterator<Item = &[u8]> {
        self.values.iter().filter(move |(of, at, _)| *of == buffer && *at == dir).map(|(_, _, bytes)| bytes.as_slice())
    }

    pub fn integer(&self, field: Field, dir: Dir) -> Option<u64> {
        self.integers.iter().find(|(of, at, _)| *of == field && *at == dir).map(|(_, _, value)| *value)
    }
}

/// `key` is the packet's: `src` sent it.
#[derive(Debug, Clone)]
pub struct AlertEvent {
    pub at: Timestamp,
    pub key: FlowKey,
    pub rule: Arc<RuleInfo>,
    /// The packet was blocked because of this rule.
    pub blocked: bool,
    pub would_have_blocked: bool,
    /// A pass rule has let the packet go.
    pub passed: bool,
    /// `None` outside of flows.
    pub direction: Option<Direction>,
    pub src: WorkloadId,
    pub dst: WorkloadId,
    pub zone: u32,
    pub to_server: Counts,
    pub to_client: Counts,
    pub flow_start: Option<Timestamp>,
    /// The end of what matched, at most [`PipelineConfig::excerpt_bytes_max`] bytes.
    pub excerpt: Vec<u8>,
    /// Found in the reassembled stream.
    pub stream: bool,
    /// What the flow speaks, as far as it was recognised.
    pub app: Option<Protocol>,
    /// The transaction in which it was found.
    pub tx: Option<u64>,
    /// The same as far as it had come, with [`PipelineConfig::transactions`].
    pub record: Option<Box<Record>>,
}

#[derive(Debug, Clone)]
pub struct DropEvent {
    pub at: Timestamp,
    pub key: FlowKey,
    pub reason: DropReason,
    /// A rate filter gave the rule this action.
    pub by_rate_filter: bool,
    pub rule: Option<Arc<RuleInfo>>,
    /// False in monitor mode: it would have been.
    pub carried_out: bool,
    pub direction: Option<Direction>,
    pub src: WorkloadId,
    pub dst: WorkloadId,
    pub zone: u32,
    pub len: u32,
}

#[derive(Debug, Clone)]
pub struct FlowEndEvent {
    pub at: Timestamp,
    /// `src` is the client.
    pub key: FlowKey,
    pub start: Timestamp,
    pub last: Timestamp,
    pub to_server: Counts,
    pub to_client: Counts,
    pub why: FlowEnd,
    /// `new`, `established`, `closed`, `bypassed`.
    pub state: &'static str,
    /// What the flow spoke, as far as it was recognised.
    pub app: Option<Protocol>,
    /// What it spoke before, where that has changed.
    pub app_original: Option<Protocol>,
    pub alerted: bool,
    pub condemned: bool,
    pub bypassed: Option<BypassReason>,
    /// A pass rule matched, and the flow was followed for the log.
    pub passed: bool,
    /// Its drop was carried out.
    pub dropped: bool,
    pub trace: Trace,
    /// Its beginning was not seen, and what became of it.
    pub midstream: Option<Midstream>,
    /// Of its application layer; `None`: none was looked for.
    pub transactions: Option<u64>,
    pub vlan: VlanIds,
    /// Of the client and the server.
    pub client: WorkloadId,
    pub server: WorkloadId,
    pub zone: u32,
}

#[derive(Debug, Clone)]
pub struct AnomalyEvent {
    pub at: Timestamp,
    pub key: Option<FlowKey>,
    pub what: Anomaly,
    pub src: WorkloadId,
    pub dst: WorkloadId,
    pub zone: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    Decode(DecodeEvent),
    /// Suricata's name of a stream event, without `stream.`.
    Stream(&'static str),
}

/// Counters of the pipeline itself; those of decode, defrag, flow and stream are beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub packets: u64,
    pub bytes: u64,
    pub accepted: u64,
    pub bypassed: u64,
    pub dropped: u64,
    /// Of them, those with an answer.
    pub rejected: u64,
    /// Monitor mode: protect would have dropped.
    pub would_have_dropped: u64,
    pub drop_rule: u64,
    pub drop_flow: u64,
    pub drop_malformed: u64,
    pub drop_conflict: u64,
    pub drop_unverifiable: u64,
    pub drop_cap: u64,
    pub bypass_depth: u64,
    pub bypass_encrypted: u64,
    pub bypass_no_rule: u64,
    pub bypass_pass_rule: u64,
    pub alerts: u64,
    pub alerts_suppressed: u64,
    /// Beyond [`PipelineConfig::alerts_per_packet_max`].
    pub alerts_refused: u64,
    /// Literals that the first pass found.
    pub prefilter_hits: u64,
    /// Rules that the second pass looked at, and that held.
    pub inspected: u64,
    pub matched: u64,
    /// The second pass gave up on a rule.
    pub steps_exhausted: u64,
    /// Packets whose inspection was ended by [`crate::inspect::WORK_PER_PACKET_MAX`].
    pub work_exhausted: u64,
    /// Bytes behind holes that were inspected when their flow ended.
    pub inspected_at_end_bytes: u64,
    /// Candidates of a direction were given up for newer ones.
    pub pending_overflow: u64,
    /// Application layers that could not be followed where a rule looks: a parser gave up on what the peer does not say as its
    /// protocol has it, bytes were missing, a parser's cap, too many values or candidates in a transaction, the memory of all.
    pub app_malformed: u64,
    pub app_gaps: u64,
    pub app_caps: u64,
    pub app_overflowed: u64,
    pub app_candidates_refused: u64,
    pub app_memory_refused: u64,
    /// Payload matches beyond those that wait for a flow's protocol.
    pub app_waiting_refused: u64,
    /// Announced connections that were forgotten for newer ones.
    pub expected_forgotten: u64,
    /// Look-back was cut because its memory was used up.
    pub lookback_refused: u64,
    /// Flow bits of a flow, or hosts of thresholds, beyond their cap.
    pub flowbits_refused: u64,
    pub thresholds_refused: u64,
    /// The same of bits of hosts.
    pub host_bits_refused: u64,
    pub lost_alerts: u64,
    pub lost_drops: u64,
    pub lost_flow_ends: u64,
    pub lost_anomalies: u64,
    pub lost_transactions: u64,
    pub lost_files: u64,
    /// Files of one transaction beyond [`crate::FILES_PER_TRANSACTION_MAX`].
    pub files_refused: u64,
}
