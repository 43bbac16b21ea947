//! The engine as the workers use it: shards of the pure pipeline behind locks, chosen by flow (`shard.rs`), so that
//! both directions of a flow, its fragments and the errors about it meet the same shard whichever worker holds them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use bulkhead_bpf::layout::{AddrKey, FlowKey, port_flags, seen};
use bulkhead_bpf::path::PathMaps;
use bulkhead_ips::{
    AcrossFlows, AlertEvent, Anomaly, ChecksumState, Checksums, DropEvent, EngineEvent, FlowEndEvent, Handshake, HomeSide, LinkType,
    OnFailure, Origin, Outcome, PacketMeta, Pipeline, PipelineConfig, RuleInfo, Ruleset, Tuple, ZONE_SIDE,
};
use bulkhead_model::event::{Anomaly as AnomalyRecord, Dropped};
use bulkhead_model::{Alert, AlertAction, BypassReason, DropReason, Event, EventBody, FlowRecord, Mode, Timestamp, Verdict, WorkloadId};
use bulkhead_policy::config::{Checksum, Unverifiable};
use bulkhead_policy::{Config, Fail};

use crate::frame::{Glance, glance, glance_ip};
use crate::hold::{Held, Judge, Link};
use crate::record::{Recorder, blank, protocol_name};
use crate::registry::{Directory, Registry};
use crate::shard::Sharding;
use crate::state::lock;

/// Shards per worker: two workers rarely want the same one.
const SHARDS_PER_WORKER: usize = 4;
/// Ended flows looked at per shard and idle call.
const EXPIRE_BUDGET: usize = 2048;

pub struct EngineSettings {
    pipeline: PipelineConfig,
}

impl EngineSettings {
    pub fn of(config: &Config) -> Self {
        let inspect = &config.inspect;
        let failure = |fail: Fail| if fail == Fail::Closed { OnFailure::Drop } else { OnFailure::Pass };
        let mut pipeline = PipelineConfig {
            stream_depth: inspect.stream_depth.0,
            on_cap: failure(inspect.on_cap),
            on_unverifiable: if inspect.unverifiable == Unverifiable::Drop { OnFailure::Drop } else { OnFailure::Pass },
            checksum: if inspect.checksum == Checksum::Verify { Checksums::Verify } else { Checksums::Ignore },
            bypass_encrypted: inspect.bypass_encrypted,
            ..PipelineConfig::default()
        };
        pipeline.flow.flows_max = inspect.flows_max as usize;
        pipeline.stream.memory_bytes_max = inspect.stream_memory.0;
        pipeline.defrag.bytes_max = inspect.fragment_memory.0 as usize;
        Self { pipeline }
    }

    /// Caps hold for all shards together.
    fn shard(&self, shards: usize) -> PipelineConfig {
        let mut pipeline = self.pipeline.clone();
        pipeline.flow.flows_max = (pipeline.flow.flows_max / shards).max(64);
        pipeline.stream.memory_bytes_max /= shards as u64;
        pipeline.lookback_memory_max /= shards;
        pipeline.app_memory_max /= shards;
        pipeline.defrag.bytes_max /= shards;
        pipeline.events_max = (pipeline.events_max / shards).max(64);
        pipeline
    }
}

pub struct Engine {
    shards: Vec<Mutex<Pipeline>>,
    sharding: Sharding,
    registry: Registry,
    recorder: Recorder,
    /// Set once the path is up: where handshakes that the engine did not see are known. None on the fallback path.
    maps: OnceLock<Option<Arc<PathMaps>>>,
    ruleset: RwLock<Arc<Ruleset>>,
    /// Grows when traffic may have passed unjudged: every flow is then followed anew from its next packet.
    epoch: AtomicU64,
}

impl Engine {
    pub fn new(settings: &EngineSettings, rules: Arc<Ruleset>, workers: usize, registry: Registry, recorder: Recorder) -> Self {
        let count = workers.max(1) * SHARDS_PER_WORKER;
        let sharding = Sharding::new(count, &settings.pipeline.decode);
        let across = Arc::new(AcrossFlows::new(&settings.pipeline));
        let made = |shard| Pipeline::among(settings.shard(count), Arc::clone(&rules), sharding.seed(shard), Arc::clone(&across));
        let shards = (0..count).map(|shard| Mutex::new(made(shard))).collect();
        Self { shards, sharding, registry, recorder, maps: OnceLock::new(), ruleset: RwLock::new(rules), epoch: AtomicU64::new(1) }
    }

    pub fn set_maps(&self, maps: Option<Arc<PathMaps>>) {
        let _ = self.maps.set(maps);
    }

    /// New rules for all shards; flow state is kept.
    pub fn swap_rules(&self, rules: &Arc<Ruleset>) {
        for shard in &self.shards {
            lock(shard).swap_rules(Arc::clone(rules));
        }
        if let Ok(mut current) = self.ruleset.write() {
            *current = Arc::clone(rules);
        }
    }

    pub fn rule(&self, gid: u32, sid: u32) -> Option<Arc<RuleInfo>> {
        let rules = self.ruleset.read().ok()?;
        rules.rules().find(|rule| rule.gid == gid && rule.sid == sid).cloned()
    }

    /// Do loaded rules look at segments without payload? The kernel tier then holds SYN segments too.
    pub fn wants_control_packets(&self) -> bool {
        self.ruleset.read().is_ok_and(|rules| rules.wants_control_packets())
    }

    /// Flows that are kept, and bytes of stream data.
    pub fn load(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(flows, bytes), shard| {
            let shard = lock(shard);
            (flows + shard.flows() as u64, bytes + shard.memory())
        })
    }

    /// Counters of all shards by dotted name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut sum: BTreeMap<String, u64> = BTreeMap::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let rooms = shard.decode_stats().named().chain(shard.defrag_stats().named()).chain(shard.flow_stats().named());
            for (name, value) in rooms.chain(shard.stream_stats().named()) {
                *sum.entry(name.to_owned()).or_default() += value;
            }
            let ips = shard.stats();
            for (name, value) in [
                ("ips.packets", ips.packets),
                ("ips.bytes", ips.bytes),
                ("ips.accepted", ips.accepted),
                ("ips.bypassed", ips.bypassed),
                ("ips.dropped", ips.dropped),
                ("ips.would_have_dropped", ips.would_have_dropped),
                ("ips.drop_rule", ips.drop_rule),
                ("ips.drop_flow", ips.drop_flow),
                ("ips.drop_malformed", ips.drop_malformed),
                ("ips.drop_conflict", ips.drop_conflict),
                ("ips.drop_unverifiable", ips.drop_unverifiable),
                ("ips.drop_cap", ips.drop_cap),
                ("ips.bypass_depth", ips.bypass_depth),
                ("ips.bypass_encrypted", ips.bypass_encrypted),
                ("ips.bypass_no_rule", ips.bypass_no_rule),
                ("ips.bypass_pass_rule", ips.bypass_pass_rule),
                ("ips.alerts", ips.alerts),
                ("ips.alerts_suppressed", ips.alerts_suppressed),
                ("ips.prefilter_hits", ips.prefilter_hits),
                ("ips.inspected", ips.inspected),
                ("ips.matched", ips.matched),
                ("ips.steps_exhausted", ips.steps_exhausted),
                ("ips.work_exhausted", ips.work_exhausted),
                ("ips.pending_overflow", ips.pending_overflow),
                ("ips.inspected_at_end_bytes", ips.inspected_at_end_bytes),
                ("ips.lookback_refused", ips.lookback_refused),
                ("app.malformed", ips.app_malformed),
                ("app.gaps", ips.app_gaps),
                ("app.caps", ips.app_caps),
                ("app.overflowed", ips.app_overflowed),
                ("app.candidates_refused", ips.app_candidates_refused),
                ("app.memory_refused", ips.app_memory_refused),
                ("app.waiting_refused", ips.app_waiting_refused),
                ("app.sessions", shard.app_stats().sessions),
                ("app.recognised", shard.app_stats().recognised),
                ("app.transactions", shard.app_stats().transactions),
                ("ips.lost_alerts", ips.lost_alerts),
                ("ips.lost_drops", ips.lost_drops),
                ("ips.lost_flow_ends", ips.lost_flow_ends),
                ("ips.lost_anomalies", ips.lost_anomalies),
            ] {
                *sum.entry(name.to_owned()).or_default() += value;
            }
        }
        let (flows, bytes) = self.load();
        let fullest = self.shards.iter().map(|shard| lock(shard).flows() as u64).max().unwrap_or(0);
        let used = self.shards.iter().filter(|shard| lock(shard).stats().packets > 0).count();
        sum.insert("shards.count".into(), self.sharding.count() as u64);
        sum.insert("shards.used".into(), used as u64);
        sum.insert("shards.flows_in_fullest".into(), fullest);
        sum.insert("flow.active".into(), flows);
        sum.insert("stream.memory_bytes".into(), bytes);
        sum
    }

    /// Judges in the shard of the packet's flow. Where something was found, its events come along.
    fn sharded(
        &self,
        now: Timestamp,
        meta: &PacketMeta,
        frame: &[u8],
        glance: Option<&Glance>,
        origin: &mut dyn Origin,
    ) -> (Verdict, Vec<EngineEvent>) {
        let found = |shard: &mut Pipeline, outcome: &Outcome| {
            let told = !outcome.verdict.passes() || outcome.would.is_some();
            if told { shard.drain_events().collect() } else { Vec::new() }
        };
        let place = self.sharding.of(meta.link, meta.gso, frame, glance);
        if !place.fragment {
            let mut shard = lock(&self.shards[place.shard]);
            let outcome = shard.packet(now, meta, frame, origin);
            return (outcome.verdict, found(&mut shard, &outcome));
        }
        let mut whole = Vec::new();
        {
            let mut shard = lock(&self.shards[place.shard]);
            if let Some(outcome) = shard.piece(now, meta, frame, &mut whole) {
                return (outcome.verdict, found(&mut shard, &outcome));
            }
        }
        let place = self.sharding.of(LinkType::RawIp, false, &whole, glance_ip(&whole, 0, 0).as_ref());
        let mut shard = lock(&self.shards[place.shard]);
        let outcome = shard.whole(now, meta, frame, &whole, origin);
        (outcome.verdict, found(&mut shard, &outcome))
    }

    /// What the kernel's entry says of a port that the directory does not know yet. After a restart interfaces are on the path,
    /// with the flags of the agent before, until the first look at the workloads is over; and a new one is armed a moment
    /// before it is named.
    fn unnamed_port(&self, directory: &Directory, port: u16) -> u32 {
        if port == 0 || directory.ports.contains_key(&port) {
            return 0;
        }
        // The maps are set as soon as the workers run.
        self.maps.wait().as_ref().and_then(|maps| maps.port(port).ok().flatten()).map_or(0, |entry| entry.flags)
    }

    fn forward(&self, events: Vec<EngineEvent>) {
        if events.is_empty() {
            return;
        }
        let directory = self.registry.current();
        for event in events {
            if let Some(event) = enrich(&directory, event) {
                self.recorder.send(event);
            }
        }
    }
}

impl Judge for Engine {
    /// The verdict leaves before the alert is built: events are drained by `idle`, or here when something was found.
    fn judge(&self, now: Timestamp, held: Held<'_>) -> Verdict {
        let directory = self.registry.current();
        let glance = match held.link {
            Link::Ethernet => glance(held.frame),
            Link::Ip => glance_ip(held.frame, 0, 0),
        };
        let (src, dst) = ends(&directory, &held, glance.as_ref());
        let meta = PacketMeta {
            // A flow has one owner on the tcx path; on the fallback path each end's packets come from its own interface.
            zone: if held.link == Link::Ethernet { u32::from(held.port) | side(&held, glance.as_ref()) } else { 0 },
            link: if held.link == Link::Ethernet { LinkType::Ethernet } else { LinkType::RawIp },
            checksum: if held.verified { ChecksumState::Verified } else { ChecksumState::Unknown },
            gso: held.frame.len() > 1600,
            gap: held.gap,
            foreign: held.foreign,
            epoch: self.epoch.load(Ordering::Relaxed),
            src,
            dst,
            protect: directory.enforced(src, dst) || self.unnamed_port(&directory, held.port) & port_flags::PROTECT != 0,
            home: home(&held, src, dst),
            len_on_wire: held.frame.len() as u32,
        };
        let mut origin = KernelOrigin { maps: self.maps.get().and_then(Option::as_deref), held: &held, glance: glance.as_ref() };
        let (verdict, events) = self.sharded(now, &meta, held.frame, glance.as_ref(), &mut origin);
        self.forward(events);
        verdict
    }

    fn idle(&self, now: Timestamp, worker: usize) {
        // Each worker looks after its share of the shards.
        for shard in self.shards.iter().skip(worker * SHARDS_PER_WORKER).take(SHARDS_PER_WORKER) {
            let events: Vec<EngineEvent> = {
                let mut shard = lock(shard);
                shard.expire(now, EXPIRE_BUDGET);
                shard.drain_events().collect()
            };
            self.forward(events);
        }
    }

    fn lapsed(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn broken(&self, port: u16) -> Verdict {
        let directory = self.registry.current();
        let id = directory.by_port(port);
        let closed = directory.entries.get(&id).is_some_and(|entry| entry.fail_closed && entry.mode == Mode::Protect);
        // The kernel's entry says closed only where it also says protect.
        if closed || self.unnamed_port(&directory, port) & port_flags::FAIL_CLOSED != 0 {
            return Verdict::Drop(DropReason::FailClosed);
        }
        Verdict::Accept
    }
}

/// Who sent it and who is to get it. The container side is known by its interface, whatever the address says.
fn ends(directory: &Directory, held: &Held<'_>, glance: Option<&Glance>) -> (WorkloadId, WorkloadId) {
    let (mut src, mut dst) =
        glance.map_or((WorkloadId::WORLD, WorkloadId::WORLD), |g| (directory.by_address(g.src), directory.by_address(g.dst)));
    if held.port != 0 {
        let local = directory.by_port(held.port);
        if held.to_container {
            dst = local;
        } else {
            src = local;
        }
    }
    (src, dst)
}

/// Which ends are at home: every container, and whatever is behind the interface that the packet was held at, also before it has a name.
fn home(held: &Held<'_>, src: WorkloadId, dst: WorkloadId) -> HomeSide {
    let own = held.port != 0;
    HomeSide {
        source: src >= WorkloadId::FIRST_CONTAINER || (own && !held.to_container),
        destination: dst >= WorkloadId::FIRST_CONTAINER || (own && held.to_container),
    }
}

/// As the kernel tier keys flows by side: a container that sends in the name of its peer is not that peer.
fn side(held: &Held<'_>, glance: Option<&Glance>) -> u32 {
    let higher = glance.is_some_and(|glance| if held.to_container { glance.dst > glance.src } else { glance.src > glance.dst });
    if higher { ZONE_SIDE } else { 0 }
}

/// The kernel's flow entry tells what came before the first held packet.
struct KernelOrigin<'a> {
    maps: Option<&'a PathMaps>,
    held: &'a Held<'a>,
    glance: Option<&'a Glance>,
}

impl Origin for KernelOrigin<'_> {
    fn handshake(&mut self, tuple: &Tuple) -> Option<Handshake> {
        let glance = self.glance.filter(|glance| glance.src == tuple.src.addr && glance.dst == tuple.dst.addr)?;
        let version = if glance.src.is_ipv4() { 4 } else { 6 };
        let (src, dst) = (AddrKey::of(glance.src).words, AddrKey::of(glance.dst).words);
        let (container, remote, container_port, remote_port) =
            if self.held.to_container { (dst, src, tuple.dst.port, tuple.src.port) } else { (src, dst, tuple.src.port, tuple.dst.port) };
        let key = FlowKey {
            port: u32::from(self.held.port),
            container,
            remote,
            container_port: container_port.to_be(),
            remote_port: remote_port.to_be(),
            vlan: glance.vlan,
            protocol: 6,
            version,
        };
        let flow = self.maps?.flow(&key).ok()??;
        if flow.seen & (seen::SYN | seen::SYN_ACK) == 0 {
            return None;
        }
        let container_is_client = flow.seen & seen::FROM_CONTAINER != 0;
        let (client, server) = if container_is_client { (0, 1) } else { (1, 0) };
        // The initial number is the next one to be judged where nothing has been let go yet and nothing passed unjudged; else
        // the stream is followed from here on. What is held behind this packet (a sender does not wait) changes nothing.
        let untouched = |dir: usize| flow.seen & seen::FAILED == 0 && flow.dir[dir].returned == 0;
        let next = |dir: usize, flag: u8| (flow.seen & flag != 0 && untouched(dir)).then(|| flow.dir[dir].isn.wrapping_add(1));
        Some(Handshake {
            source_is_client: container_is_client != self.held.to_container,
            client_next: next(client, seen::SYN),
            server_next: next(server, seen::SYN_ACK),
        })
    }
}

fn reason_name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Rule => "rule",
        DropReason::Flow => "flow",
        DropReason::Segment => "segment",
        DropReason::Malformed => "malformed",
        DropReason::StreamConflict => "stream-conflict",
        DropReason::Unverifiable => "unverifiable",
        DropReason::Cap => "cap",
        DropReason::FailClosed => "fail-closed",
        DropReason::UnknownInterface => "unknown-interface",
    }
}

fn explanation(reason: DropReason, rule: Option<&RuleInfo>) -> String {
    match (reason, rule) {
        (DropReason::Rule, Some(rule)) => format!("rule {}:{} `{}` of {}:{} matched", rule.gid, rule.sid, rule.msg, rule.source, rule.line),
        (DropReason::Flow, Some(rule)) => format!("the flow was condemned by rule {}:{} `{}`", rule.gid, rule.sid, rule.msg),
        (DropReason::Rule, None) => "a rule matched".into(),
        (DropReason::Flow, None) => "the flow was condemned before".into(),
        (DropReason::Segment, _) => "a segment rule denies it".into(),
        (DropReason::Malformed, _) => "its headers are malformed beyond judging".into(),
        (DropReason::StreamConflict, _) => "bytes of the stream differ from those already judged at the same place".into(),
        (DropReason::Unverifiable, _) => "its bytes could not be judged, and `inspect.unverifiable` says drop".into(),
        (DropReason::Cap, _) => "a cap was reached, and `inspect.on-cap` says closed".into(),
        (DropReason::FailClosed, _) => "it could not be judged, and the policy is to fail closed".into(),
        (DropReason::UnknownInterface, _) => "its interface is not armed yet".into(),
    }
}

fn alert_of(rule: &RuleInfo, blocked: bool, would: bool) -> Alert {
    let mut metadata: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in rule.metadata.iter() {
        metadata.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Alert {
        action: if blocked { AlertAction::Blocked } else { AlertAction::Allowed },
        gid: rule.gid,
        signature_id: rule.sid,
        rev: rule.rev,
        signature: rule.msg.to_string(),
        category: rule.category.to_string(),
        severity: rule.priority,
        metadata,
        references: rule.references.iter().map(|(system, value)| format!("{system},{value}")).collect(),
        rule_source: Some(format!("{}:{}", rule.source, rule.line)),
        would_have_blocked: would,
    }
}

/// From numbers to names: the event as EVE has it.
fn enrich(directory: &Directory, event: EngineEvent) -> Option<Event> {
    Some(match event {
        // Not asked for: `PipelineConfig::transactions`.
        EngineEvent::Transaction(_) | EngineEvent::File(_) => return None,
        EngineEvent::Alert(alert) => from_alert(directory, &alert),
        EngineEvent::Drop(drop) => from_drop(directory, &drop),
        EngineEvent::FlowEnd(end) => from_flow(directory, &end),
        EngineEvent::Anomaly(anomaly) => {
            let (kind, name) = match anomaly.what {
                Anomaly::Decode(event) => ("decode", event.name().to_owned()),
                Anomaly::Stream(name) => ("stream", format!("stream.{name}")),
            };
            let mut made = Event {
                workload: Some(directory.pair(anomaly.src, anomaly.dst)),
                in_iface: directory.port_names.get(&(anomaly.zone as u16)).cloned(),
                ..blank(anomaly.at)
            };
            if let Some(key) = &anomaly.key {
                address(&mut made, key);
            }
            made.body = EventBody::Anomaly { anomaly: AnomalyRecord { r#type: kind.into(), event: name } };
            made
        }
    })
}

fn address(event: &mut Event, key: &bulkhead_ips::FlowKey) {
    let ports = matches!(key.proto, 6 | 17 | 132);
    event.flow_id = (key.id != 0).then_some(key.id);
    event.src_ip = Some(key.src.addr).filter(|addr: &IpAddr| !addr.is_unspecified());
    event.dest_ip = Some(key.dst.addr).filter(|addr: &IpAddr| !addr.is_unspecified());
    event.src_port = ports.then_some(key.src.port);
    event.dest_port = ports.then_some(key.dst.port);
    event.proto = Some(protocol_name(key.proto));
}

const fn direction_name(direction: bulkhead_ips::Direction) -> &'static str {
    match direction {
        bulkhead_ips::Direction::ToServer => "to_server",
        bulkhead_ips::Direction::ToClient => "to_client",
    }
}

fn from_alert(directory: &Directory, alert: &AlertEvent) -> Event {
    let mut made = Event {
        workload: Some(directory.pair(alert.src, alert.dst)),
        in_iface: directory.port_names.get(&(alert.zone as u16)).cloned(),
        direction: alert.direction.map(|direction| direction_name(direction).to_owned()),
        ..blank(alert.at)
    };
    address(&mut made, &alert.key);
    made.body = EventBody::Alert {
        alert: alert_of(&alert.rule, alert.blocked, alert.would_have_blocked),
        flow: Some(FlowRecord {
            pkts_toserver: alert.to_server.packets,
            pkts_toclient: alert.to_client.packets,
            bytes_toserver: alert.to_server.bytes,
            bytes_toclient: alert.to_client.bytes,
            start: alert.flow_start,
            alerted: true,
            ..FlowRecord::default()
        }),
    };
    made
}

fn from_drop(directory: &Directory, drop: &DropEvent) -> Event {
    let mut made = Event {
        workload: Some(directory.pair(drop.src, drop.dst)),
        in_iface: directory.port_names.get(&(drop.zone as u16)).cloned(),
        direction: drop.direction.map(|direction| direction_name(direction).to_owned()),
        ..blank(drop.at)
    };
    address(&mut made, &drop.key);
    made.body = EventBody::Drop {
        drop: Dropped {
            verdict: if drop.carried_out { "blocked" } else { "would-block" }.into(),
            reason: reason_name(drop.reason).into(),
            explanation: explanation(drop.reason, drop.rule.as_deref()),
            len: drop.len,
            tier: "engine".into(),
        },
        alert: drop.rule.as_deref().map(|rule| alert_of(rule, drop.carried_out, !drop.carried_out)),
    };
    made
}

fn from_flow(directory: &Directory, end: &FlowEndEvent) -> Event {
    let mut made = Event {
        workload: Some(directory.pair(end.client, end.server)),
        in_iface: directory.port_names.get(&(end.zone as u16)).cloned(),
        ..blank(end.at)
    };
    address(&mut made, &end.key);
    let state = match end.bypassed {
        Some(BypassReason::Depth | BypassReason::Encrypted | BypassReason::Policy | BypassReason::NoRule) => "bypassed",
        None => end.state,
    };
    made.body = EventBody::Flow {
        flow: FlowRecord {
            pkts_toserver: end.to_server.packets,
            pkts_toclient: end.to_client.packets,
            bytes_toserver: end.to_server.bytes,
            bytes_toclient: end.to_client.bytes,
            start: Some(end.start),
            end: Some(end.last),
            age: Some(end.last.since(end.start) / 1_000_000_000),
            state: Some(state.into()),
            reason: Some(end.why.name().into()),
            alerted: end.alerted,
        },
    };
    made
}
