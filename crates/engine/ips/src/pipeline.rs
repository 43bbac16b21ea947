//! A packet's life, top to bottom.
//!
//! ```text
//! frame ─ decode ─ (fragment? defrag ─ decode) ─ flow ─ stream ─ prefilter ─ inspect ─ conditions ─ Verdict
//!           └ tunnel? the same again for what it carries
//! ```
//! Cost, cheapest exit first: a frame that is not IP; a condemned or bypassed flow (one table look-up); a packet
//! without payload; the first pass over new bytes; the second pass for the rules whose literal was found.
//! Nothing is allocated for a packet that raises no alert, besides what a new flow needs.
//!
//! One shard, one thread. In monitor mode everything is judged as in protect mode, and then let go:
//! `Outcome::would` tells what protect would have done.

mod conditions;
mod odd;
mod verdict;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_applayer::{Finished, Protocol, Transport as Carrier};
use bulkhead_model::{BypassReason, DropReason, Timestamp, Verdict, WorkloadId};
use bulkhead_net::decode::DecodeStats;
use bulkhead_net::decode::{Decoded, Decoder, Ether, Events, FrameMeta, Ignored as Frame, Malformed, Packet, Transport};
use bulkhead_net::defrag::{Defrag, DefragStats, Defragged};
use bulkhead_net::flow::{Direction, EndedFlow, Endpoint, Flow, FlowRef, FlowStats, FlowTable, Handshake, Origin, Tuple};
use bulkhead_net::stream::{Ignored, Reassembler, Refused, SegmentOutcome, StreamStats, TcpStream};
use bulkhead_net::{ChecksumState, LinkType};
use bulkhead_rules::Action;
use bulkhead_rules::condition::{ConfigScope, End as StreamEnd, FileScope, FlowintOperation, FlowintValue, Towards};
use bulkhead_rules::limits::RateFilter;
use bulkhead_rules::tree::{FlowbitsOperation, NumberTest};

use conditions::{apply_flowbits, apply_flowints, ask_thresholds, conditions_hold};
use verdict::{Fault, verdict_of};

use crate::across::AcrossFlows;
use crate::app::{AppFault, AppFlow, Apps, Raw, With};
use crate::detect::{
    End, FlowState, FrameView, PacketView, Scratch, StreamInspector, follows, index, inspect_findings, inspect_frame, inspect_packet,
    number_holds,
};
use crate::files::FileDone;
use crate::outcome::*;
use crate::raised::Findings;
use crate::rules::{Compiled, FlowintStep, RuleInfo, Ruleset};
use crate::threshold::Answer;

/// Packets of a flow at which it is asked whether any rule can match it: the handshake and a few more.
const NO_RULE_PACKETS: u64 = 8;

/// One shard.
#[derive(Debug)]
pub struct Pipeline {
    decoder: Decoder,
    defrag: Defrag,
    /// A reassembled datagram, taken out while it is judged.
    whole: Vec<u8>,
    judge: Judge,
}

/// Everything behind decoding.
#[derive(Debug)]
struct Judge {
    config: PipelineConfig,
    rules: Arc<Ruleset>,
    /// Counts rule sets.
    generation: u64,
    flows: FlowTable<FlowState>,
    streams: Reassembler,
    ended: Vec<EndedFlow<FlowState>>,
    across: Arc<AcrossFlows>,
    apps: Apps,
    scratch: Scratch,
    /// Ends of the packet in hand, once they are known.
    key: Option<FlowKey>,
    /// A rate filter made its drop.
    by_rate: bool,
    lookback_memory: usize,
    events: VecDeque<EngineEvent>,
    stats: Stats,
}

impl Pipeline {
    /// `seed` must be unpredictable for whoever sends packets.
    pub fn new(config: PipelineConfig, rules: Arc<Ruleset>, seed: u64) -> Self {
        let across = Arc::new(AcrossFlows::new(&config));
        Self::among(config, rules, seed, across)
    }

    /// One of several among which flows are divided.
    pub fn among(config: PipelineConfig, rules: Arc<Ruleset>, seed: u64, across: Arc<AcrossFlows>) -> Self {
        // The second word only has to differ (splitmix64's increment).
        let mut apps = Apps::new(config.app.clone(), across.expected());
        apps.want(&rules, config.transactions, config.files);
        let seeds = [seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15];
        Self {
            decoder: Decoder::new(config.decode.clone()),
            defrag: Defrag::new(config.defrag.clone()),
            whole: Vec::new(),
            judge: Judge {
                flows: FlowTable::new(config.flow.clone(), seeds),
                streams: Reassembler::new(config.stream.clone()),
                ended: Vec::new(),
                across,
                apps,
                scratch: Scratch::default(),
                key: None,
                by_rate: false,
                lookback_memory: 0,
                events: VecDeque::new(),
                stats: Stats::default(),
                generation: 1,
                rules,
                config,
            },
        }
    }

    /// Puts another rule set in force. Flows, streams, flow bits and thresholds stay.
    pub fn swap_rules(&mut self, rules: Arc<Ruleset>) {
        self.judge.generation += 1;
        self.judge.apps.want(&rules, self.judge.config.transactions, self.judge.config.files);
        self.judge.rules = rules;
    }

    /// Judges one frame. Times should not go back; captures whose times do are borne.
    pub fn packet(&mut self, now: Timestamp, meta: &PacketMeta, frame: &[u8], origin: &mut dyn Origin) -> Outcome {
        self.begin(meta);
        let decoded = self.decoder.frame(self.judge.frame_meta(meta), frame);
        let outcome = self.layers(now, meta, decoded, &mut Asked(origin), false);
        self.judge.conclude(now, meta, outcome)
    }

    /// As [`Self::packet`], for a fragment whose flow may belong to another shard than its datagrams are put together in.
    /// `None`: it completed its datagram, which stands in `whole` now; the verdict is that of [`Self::whole`] in the shard of its
    /// flow.
    pub fn piece(&mut self, now: Timestamp, meta: &PacketMeta, frame: &[u8], whole: &mut Vec<u8>) -> Option<Outcome> {
        self.begin(meta);
        let outcome = match self.decoder.frame(self.judge.frame_meta(meta), frame) {
            Decoded::Packet(packet) if packet.ip.fragment.is_some() && !packet.checksum_invalid() => {
                self.judge.decode_anomalies(now, meta, &packet);
                match self.put_together(now, meta, &packet) {
                    Assembly::Partial(outcome) => outcome,
                    Assembly::Whole => {
                        std::mem::swap(&mut self.whole, whole);
                        return None;
                    }
                }
            }
            decoded => self.layers(now, meta, decoded, &mut Asked(&mut ()), false),
        };
        Some(self.judge.conclude(now, meta, outcome))
    }

    /// Judges a datagram that [`Self::piece`] of another shard put together; `frame` is the fragment that completed it.
    pub fn whole(&mut self, now: Timestamp, meta: &PacketMeta, frame: &[u8], whole: &[u8], origin: &mut dyn Origin) -> Outcome {
        self.judge.key = None;
        self.judge.by_rate = false;
        // The fragment was counted where it was put in.
        let stats = self.decoder.stats.clone();
        let decoded = self.decoder.frame(self.judge.frame_meta(meta), frame);
        self.decoder.stats = stats;
        let outcome = match decoded {
            Decoded::Packet(packet) => {
                let decoded = self.decoder.datagram(&packet, whole);
                never_bypassed(self.layers(now, meta, decoded, &mut Asked(origin), true))
            }
            Decoded::Ignored(..) | Decoded::Malformed(_) => Outcome::of(verdict_of(Fault::Malformed, &self.judge.config)),
        };
        self.judge.conclude(now, meta, outcome)
    }

    fn begin(&mut self, meta: &PacketMeta) {
        self.judge.key = None;
        self.judge.by_rate = false;
        self.judge.stats.packets += 1;
        self.judge.stats.bytes += u64::from(meta.len_on_wire);
    }

    /// One IP packet and what it carries.
    fn layers(&mut self, now: Timestamp, meta: &PacketMeta, decoded: Decoded<'_>, origin: &mut Asked<'_>, fragmented: bool) -> Outcome {
        let packet = match decoded {
            Decoded::Packet(packet) => packet,
            Decoded::Ignored(what, ether) => return self.judge.frame(now, meta, what, ether.as_ref()),
            Decoded::Malformed(malformed) => return self.judge.malformed(now, meta, &malformed),
        };
        self.judge.decode_anomalies(now, meta, &packet);
        if packet.checksum_invalid() {
            self.judge.found(now, meta, &packet, Events::NONE);
            return Outcome::of(verdict_of(Fault::Checksum, &self.judge.config));
        }
        if packet.ip.refused && meta.protect {
            return Outcome::of(verdict_of(Fault::Malformed, &self.judge.config));
        }
        let outcome = if packet.ip.fragment.is_some() {
            self.fragment(now, meta, &packet, origin)
        } else {
            self.judge.packet(now, meta, &packet, origin, fragmented)
        };
        if !outcome.verdict.passes() {
            return outcome;
        }
        match self.decoder.inner(&packet) {
            Some(inner) => {
                let inner = self.layers(now, meta, inner, origin, fragmented);
                // A tunnel's flow is never bypassed: another may begin in it with the next packet.
                if inner.verdict.passes() { Outcome { verdict: Verdict::Accept, ..inner } } else { inner }
            }
            None => outcome,
        }
    }

    /// A fragment, and the datagram when it completes one. Fragments are never bypassed.
    fn fragment(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>, origin: &mut Asked<'_>) -> Outcome {
        match self.put_together(now, meta, packet) {
            Assembly::Partial(outcome) => outcome,
            Assembly::Whole => {
                let whole = std::mem::take(&mut self.whole);
                let decoded = self.decoder.datagram(packet, &whole);
                let outcome = self.layers(now, meta, decoded, origin, true);
                self.whole = whole;
                never_bypassed(outcome)
            }
        }
    }

    /// Judges a fragment by itself, and adds it to its datagram.
    fn put_together(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>) -> Assembly {
        let mut first = self.judge.fragment(now, meta, packet);
        if !first.verdict.passes() {
            return Assembly::Partial(first);
        }
        let defragged = self.defrag.fragment(now, meta.zone, packet, meta.protect);
        if let Some(event) = defragged.event(packet.ip.version) {
            let mut events = Events::NONE;
            events.insert(event);
            self.judge.found(now, meta, packet, events);
        }
        let fault = match defragged {
            Defragged::Held | Defragged::Duplicate => return Assembly::Partial(first),
            Defragged::Whole(datagram) => {
                self.whole.clear();
                self.whole.extend_from_slice(datagram);
                return Assembly::Whole;
            }
            Defragged::Conflict => Fault::FragmentConflict,
            Defragged::Discarded(_) | Defragged::Rejected(_) => Fault::FragmentDiscarded,
            Defragged::Closed => Fault::FragmentClosed,
            Defragged::Refused => Fault::FragmentRefused,
        };
        first.verdict = verdict_of(fault, &self.judge.config);
        Assembly::Partial(first)
    }

    /// Ends what has timed out, at most `budget` flows, and gives up fragments that wait too long.
    pub fn expire(&mut self, now: Timestamp, budget: usize) {
        self.defrag.expire(now);
        self.judge.flows.expire(now, budget, &mut self.judge.ended);
        self.judge.flows_ended(now);
    }

    /// Ends all flows: shutdown, or the end of a capture.
    pub fn finish(&mut self, now: Timestamp) {
        self.defrag.clear();
        self.judge.flows.clear(&mut self.judge.ended);
        self.judge.flows_ended(now);
    }

    /// Events since the last call, oldest first.
    pub fn drain_events(&mut self) -> impl Iterator<Item = EngineEvent> + '_ {
        self.judge.events.drain(..)
    }

    pub fn stats(&self) -> &Stats {
        &self.judge.stats
    }

    pub fn decode_stats(&self) -> &DecodeStats {
        &self.decoder.stats
    }

    pub fn defrag_stats(&self) -> &DefragStats {
        &self.defrag.stats
    }

    pub fn flow_stats(&self) -> &FlowStats {
        &self.judge.flows.stats
    }

    pub fn stream_stats(&self) -> &StreamStats {
        &self.judge.streams.stats
    }

    pub fn app_stats(&self) -> &bulkhead_applayer::Stats {
        &self.judge.apps.context.stats
    }

    /// Flows in the table now.
    pub fn flows(&self) -> usize {
        self.judge.flows.len()
    }

    /// Bytes held now: streams, look-back, application layers, fragments.
    pub fn memory(&self) -> u64 {
        self.judge.streams.memory() + self.judge.lookback_memory as u64 + self.judge.apps.memory as u64 + self.defrag.memory() as u64
    }

    pub fn rules(&self) -> &Arc<Ruleset> {
        &self.judge.rules
    }
}

/// What a fragment came to.
enum Assembly {
    /// Its own verdict; more is to come, or nothing.
    Partial(Outcome),
    /// The datagram, in [`Pipeline::whole`].
    Whole,
}

/// A passed fragment is accepted: what it completed is judged anew each time.
fn never_bypassed(outcome: Outcome) -> Outcome {
    let verdict = if outcome.verdict.passes() { Verdict::Accept } else { outcome.verdict };
    Outcome { verdict, ..outcome }
}

/// The table asks through a type of known size.
struct Asked<'a>(&'a mut dyn Origin);

impl Origin for Asked<'_> {
    fn handshake(&mut self, tuple: &Tuple) -> Option<Handshake> {
        self.0.handshake(tuple)
    }
}

/// Where a packet stands, for events.
#[derive(Clone, Copy)]
struct Place<'a> {
    now: Timestamp,
    meta: &'a PacketMeta,
    key: FlowKey,
    dir: Option<Direction>,
}

impl Place<'_> {
    /// The same seen from the other end of the flow.
    fn turned(self) -> Self {
        let FlowKey { src, dst, .. } = self.key;
        let dir = self.dir.map(|dir| match dir {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        });
        Self { key: FlowKey { src: dst, dst: src, ..self.key }, dir, ..self }
    }
}

impl Judge {
    fn frame_meta(&self, meta: &PacketMeta) -> FrameMeta {
        let checksum = match self.config.checksum {
            Checksums::Verify => meta.checksum,
            Checksums::Ignore => ChecksumState::Ignored,
        };
        FrameMeta { link: meta.link, checksum, gso: meta.gso }
    }

    /// A packet that is no fragment: flow, stream, rules.
    fn packet(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>, origin: &mut Asked<'_>, fragmented: bool) -> Outcome {
        // Flow.
        let home = meta.home;
        let found = self.flows.lookup(now, meta.zone, meta.epoch, packet, origin, &mut self.ended, |_| FlowState::default());
        self.flows_ended(now);
        let dir = found.dir;
        let tuple = Tuple::of(meta.zone, packet);
        let (from, to) = ((packet.src(), tuple.src.port, home.source), (packet.dst(), tuple.dst.port, home.destination));
        let (client, server) = match dir {
            Direction::ToServer => (from, to),
            Direction::ToClient => (to, from),
        };
        let Some(flow) = self.flows.get_mut(found.flow) else {
            return Outcome::of(verdict_of(Fault::Inspection, &self.config));
        };
        if found.fresh {
            let (client, server) = if dir == Direction::ToServer { (meta.src, meta.dst) } else { (meta.dst, meta.src) };
            let home = if dir == Direction::ToServer { [home.source, home.destination] } else { [home.destination, home.source] };
            flow.state = FlowState { zone: meta.zone, client, server, home, generation: self.generation, ..FlowState::default() };
            if packet.tcp().is_some() {
                flow.tcp = Some(Box::new(self.streams.open(meta.protect, found.handshake.as_ref())));
            }
        }
        if !found.related {
            flow.state.trace.packet(dir, packet);
        }
        if flow.state.renumber(self.generation) {
            flow.bypassed = false;
            if let Some(stream) = flow.tcp.as_mut() {
                stream.resume();
                for dir in [Direction::ToServer, Direction::ToClient].into_iter().filter(|dir| flow.state.depth_reached[index(*dir)]) {
                    stream.stop(dir);
                }
            }
        }
        if meta.gap
            && let Some(stream) = flow.tcp.as_mut()
        {
            stream.lapse();
        }
        let key = FlowKey { id: flow.id, proto: tuple.proto, src: tuple.src, dst: tuple.dst };
        let place = Place { now, meta, key, dir: Some(dir) };
        self.key = Some(key);

        // What is not known from its beginning, where that decides.
        if found.fresh
            && packet.tcp().is_some_and(|tcp| !tcp.flags.rst() && (!tcp.flags.syn() || tcp.flags.ack()))
            && found.handshake.is_none()
        {
            let policy = self.config.midstream;
            flow.state.midstream = Some(policy);
            flow.state.passed |= policy == Midstream::PassFlow;
            if policy == Midstream::Bypass {
                flow.state.bypassed = Some(BypassReason::Policy);
            }
        }
        if let Some(policy) = flow.state.midstream.filter(|policy| drops(*policy) && meta.protect) {
            let reason = if found.fresh { DropReason::Unverifiable } else { DropReason::Flow };
            let verdict = if found.fresh && policy == Midstream::Reject { Verdict::Reject(reason) } else { Verdict::Drop(reason) };
            return Outcome { flow: Some(key.id), ..Outcome::of(verdict) };
        }

        // Judged before.
        if let Some(info) = &flow.state.condemned
            && meta.protect
        {
            let rule = Some(Arc::clone(info));
            return Outcome { flow: Some(key.id), rule, ..Outcome::of(Verdict::Drop(DropReason::Flow)) };
        }
        if let Some(reason) = flow.state.bypassed
            && !found.related
        {
            return Outcome { flow: Some(key.id), ..Outcome::of(Verdict::BypassFlow(reason)) };
        }

        // A SYN with data has come by here, and its answer not.
        if let Some(stream) = flow.tcp.as_mut()
            && stream.awaits_answer()
            && packet.tcp().is_some_and(|tcp| !tcp.flags.syn())
            && let Some(next) = origin.handshake(&tuple).and_then(|handshake| handshake.server_next)
        {
            stream.answered(next);
        }

        // A packet that only completes a handshake is not of an established connection yet; one that brings bytes is.
        let established_before = flow.tcp.as_ref().is_some_and(|stream| stream.is_established());

        // Stream, and the rules that look at it.
        self.apps.now = now;
        self.scratch.begin(self.rules.len());
        let mut segment = SegmentOutcome::Ignored(Ignored::NoSession);
        if let (Some(tcp), Some(stream)) = (packet.tcp(), flow.tcp.as_mut()) {
            stream.set_enforce(meta.protect);
            stream.set_hearsay(meta.foreign);
            let state = &mut flow.state;
            self.scratch.expect(packet.payload);
            let mut inspector = StreamInspector {
                rules: &self.rules,
                config: &self.config,
                client,
                server,
                halves: &mut state.halves,
                tls: &mut state.tls,
                app: &mut state.app,
                apps: &mut self.apps,
                scratch: &mut self.scratch,
                stats: &mut self.stats,
                memory: &mut self.lookback_memory,
            };
            segment = self.streams.segment(stream, now, dir, tcp, packet.payload, &mut inspector);
            if matches!(segment, SegmentOutcome::Accept { .. } | SegmentOutcome::Queued | SegmentOutcome::Retransmission) {
                state.trace.segment(dir, tcp.flags, stream.is_established());
            }
        }
        if matches!(packet.transport, Transport::Udp(_))
            && !found.related
            && !packet.payload.is_empty()
            && (flow.state.app.is_some() || follows(&self.rules, &self.config, false, packet.payload))
        {
            let ports = [client.1, server.1];
            let app = flow.state.app.get_or_insert_with(|| Box::new(AppFlow::between(Carrier::Udp, ports)));
            let (rules, config) = (&self.rules, &self.config);
            // Nothing searches a datagram before its transaction, so no rule waits.
            self.scratch.gates.clear();
            self.scratch.gates.extend(rules.gated_datagrams());
            let raw = Some(Raw { dir, base: 0, before: &[], fresh: packet.payload });
            let with = With { rules, config, ends: (client, server), raw, scratch: &mut self.scratch, stats: &mut self.stats };
            self.apps.data(app, dir, packet.payload, with);
        }
        let of_stream = if packet.tcp().is_some() { segment.event() } else { None };
        let fault = if packet.tcp().is_some() { Some(Fault::Segment(segment, packet.payload.len())) } else { None };
        let mut verdict = fault.map_or(Verdict::Accept, |fault| verdict_of(fault, &self.config));
        // The reference engine asks its rules about the packet all the same.
        if self.config.drop_scope == DropScope::Matched && matches!(segment, SegmentOutcome::Ignored(Ignored::NoAck)) {
            verdict = Verdict::Accept;
        }
        if !verdict.passes() && meta.protect {
            // The receiver never sees it, so only rules on what was found are asked.
            let findings = Findings { decode: packet.events, stream: of_stream.as_slice(), app: &[] };
            let view = PacketView { packet, from, to, dir: Some(dir), in_stream: false, first_in_direction: false, findings };
            inspect_findings(&self.rules, &self.config, &view, &mut self.scratch, &mut self.stats);
            let of_findings = |matched: &crate::detect::Matched| !self.rules.rule(matched.rule).raised.is_empty();
            self.scratch.matched.retain(of_findings);
            self.decide(place, Some(At { flow: Some(found.flow), established: established_before, fragmented }), None, from, to);
            self.stream_anomaly(place, segment);
            self.flows.settle(found.flow);
            return Outcome { flow: Some(key.id), ..Outcome::of(verdict) };
        }

        // Rules that look at the packet.
        let in_stream = match segment {
            // The receiver does not take the payload of a SYN; rules see it as that of a packet.
            SegmentOutcome::Accept { delivered } => delivered > 0 || !packet.tcp().is_some_and(|tcp| tcp.flags.syn()),
            SegmentOutcome::Queued | SegmentOutcome::Retransmission => true,
            SegmentOutcome::Conflict { .. }
            | SegmentOutcome::Unverifiable { .. }
            | SegmentOutcome::Ignored(_)
            | SegmentOutcome::Refused(_)
            | SegmentOutcome::Condemned => false,
        };
        let first_in_direction = !std::mem::replace(&mut flow.state.ip_only_done[index(dir)], true);
        let of_app = std::mem::take(&mut self.scratch.app_events);
        let findings = Findings { decode: packet.events, stream: of_stream.as_slice(), app: &of_app };
        let view = PacketView { packet, from, to, dir: Some(dir), in_stream, first_in_direction, findings };
        inspect_packet(&self.rules, &self.config, &view, &mut self.scratch, &mut self.stats);
        let (rules, flow) = (&self.rules, &*flow);
        self.scratch.matched.retain(|found| rules.rule(found.rule).integers.iter().all(|test| number_holds(test, packet, Some(flow), now)));

        // Conditions of the rules whose contents hold, in the rules' order.
        let established = match &flow.tcp {
            // Bytes that a SYN brings into the stream are the connection's: when they come again they are not judged again.
            Some(stream) => {
                let into_stream = matches!(segment, SegmentOutcome::Accept { delivered } if delivered > 0);
                established_before || ((stream.is_established() || into_stream) && !packet.payload.is_empty())
            }
            None => flow.to_server.packets > 0 && flow.to_client.packets > 0,
        };
        if flow.state.passed {
            self.scratch.matched.clear();
        }
        let decision = self.decide(place, Some(At { flow: Some(found.flow), established, fragmented }), None, from, to);
        if let Some(flow) = self.flows.get_mut(found.flow) {
            flow.state.passed |= decision.passed && self.config.transactions;
            flow.state.app_told |= flow.state.app_bit() != 0;
        }
        self.told(place, found.flow);
        if self.scratch.cap_reached {
            verdict = harder(verdict, verdict_of(Fault::Inspection, &self.config));
        }
        if let Some(fault) = self.scratch.app_fault {
            let partial = self
                .flows
                .get_mut(found.flow)
                .and_then(|flow| flow.tcp.as_ref())
                .is_some_and(|stream| stream.is_partial(Direction::ToServer) || stream.is_partial(Direction::ToClient));
            verdict = harder(verdict, self.app_fault(fault, partial));
        }
        if self.scratch.work.is_spent() {
            self.stats.work_exhausted += 1;
            verdict = harder(verdict, verdict_of(Fault::Work, &self.config));
        }
        verdict = harder(verdict, decision.verdict);
        self.stream_anomaly(place, segment);

        // What follows in the flow.
        let Some(flow) = self.flows.get_mut(found.flow) else {
            return Outcome::of(verdict);
        };
        if !verdict.passes() {
            if meta.protect
                && let (Some(stream), SegmentOutcome::Accept { .. }) = (flow.tcp.as_mut(), segment)
            {
                stream.condemn(dir);
            }
            match (verdict, &decision.rule) {
                (Verdict::DropFlow(_) | Verdict::Reject(_), Some(rule)) if meta.protect => flow.state.condemned = Some(Arc::clone(rule)),
                (Verdict::DropFlow(_) | Verdict::Reject(_), Some(_)) => flow.state.would_be_condemned = true,
                _ => {}
            }
        } else if !found.related && !fragmented {
            let reason = if decision.bypassed || decision.passed && !self.config.transactions {
                Some(BypassReason::Policy)
            } else {
                nothing_more(&self.rules, &self.config, flow, client, server)
            };
            if let Some(reason) = reason {
                flow.state.bypassed = Some(reason);
                flow.bypassed = true;
                flow.state.free_lookback(&mut self.lookback_memory);
                if let Some(mut app) = flow.state.app.take() {
                    (flow.state.spoke, flow.state.spoke_before) = (app.protocol(), app.original());
                    flow.state.transactions = Some(app.transactions());
                    self.scratch.begin(self.rules.len());
                    let (rules, config) = (&self.rules, &self.config);
                    let with =
                        With { rules, config, ends: (client, server), raw: None, scratch: &mut self.scratch, stats: &mut self.stats };
                    self.apps.close(&mut app, with);
                }
                if let Some(stream) = flow.tcp.as_mut() {
                    stream.stop(Direction::ToServer);
                    stream.stop(Direction::ToClient);
                }
                verdict = Verdict::BypassFlow(reason);
            } else if let Some(stream) = flow.tcp.as_mut()
                && self.config.stream_depth > 0
                && stream.delivered(dir) >= self.config.stream_depth
            {
                if !std::mem::replace(&mut flow.state.depth_reached[index(dir)], true) {
                    stream.stop(dir);
                    flow.state.free_half(dir, &mut self.lookback_memory);
                }
                verdict = Verdict::BypassDirection(BypassReason::Depth);
            }
        }
        self.told(place, found.flow);
        self.flows.settle(found.flow);
        let tcp_reset = match (verdict, &decision.rule, packet.tcp()) {
            (Verdict::Reject(_), Some(rule), Some(tcp)) => {
                let length = packet.payload.len() as u32 + u32::from(tcp.flags.syn()) + u32::from(tcp.flags.fin());
                Some(ResetInfo {
                    seq_to_destination: tcp.seq,
                    ack_to_destination: tcp.ack,
                    seq_to_source: tcp.ack,
                    ack_to_source: tcp.seq.wrapping_add(length),
                    to_source: matches!(rule.action, Action::RejectSource | Action::RejectBoth),
                    to_destination: matches!(rule.action, Action::RejectDestination | Action::RejectBoth),
                })
            }
            _ => None,
        };
        Outcome { verdict, would: None, flow: Some(key.id), rule: decision.rule, tcp_reset }
    }

    /// A fragment by itself: only rules on addresses and IP's own headers can say something of it.
    fn fragment(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>) -> Outcome {
        let tuple = Tuple::of(meta.zone, packet);
        let key = FlowKey { id: 0, proto: tuple.proto, src: tuple.src, dst: tuple.dst };
        let place = Place { now, meta, key, dir: None };
        self.key = Some(key);
        let (from, to) = ((packet.src(), 0, meta.home.source), (packet.dst(), 0, meta.home.destination));
        self.scratch.begin(self.rules.len());
        let findings = Findings { decode: packet.events, stream: &[], app: &[] };
        let view = PacketView { packet, from, to, dir: None, in_stream: false, first_in_direction: false, findings };
        inspect_packet(&self.rules, &self.config, &view, &mut self.scratch, &mut self.stats);
        // Contents are for the whole datagram; here only rules on the fragment's own headers count.
        let rules = Arc::clone(&self.rules);
        self.scratch.matched.retain(|matched| {
            let rule = rules.rule(matched.rule);
            let of_headers =
                !rule.packet.is_empty() || !rule.headers.is_empty() || !rule.ip_options.is_empty() || !rule.integers.is_empty();
            let numbers = rule.integers.iter().all(|test| number_holds(test, packet, None, now));
            let of_headers = of_headers || !rule.raised.is_empty() || matches!(rule.protocol, bulkhead_rules::Protocol::Other(_));
            rule.steps.is_empty() && of_headers && numbers && rule.source_ports.is_any() && rule.destination_ports.is_any()
        });
        let decision = self.decide(place, None, None, from, to);
        let mut verdict = decision.verdict;
        if self.scratch.work.is_spent() {
            self.stats.work_exhausted += 1;
            verdict = harder(verdict, verdict_of(Fault::Work, &self.config));
        }
        Outcome { rule: decision.rule, ..Outcome::of(verdict) }
    }

    /// Carries out the mode, counts, and tells of drops.
    fn conclude(&mut self, now: Timestamp, meta: &PacketMeta, mut outcome: Outcome) -> Outcome {
        let wanted = outcome.verdict;
        if !meta.protect && !wanted.passes() {
            outcome.would = Some(wanted);
            outcome.verdict = Verdict::Accept;
            outcome.tcp_reset = None;
            self.stats.would_have_dropped += 1;
        }
        match outcome.verdict {
            Verdict::Accept => self.stats.accepted += 1,
            Verdict::BypassDirection(reason) | Verdict::BypassFlow(reason) => {
                self.stats.bypassed += 1;
                match reason {
                    BypassReason::Depth => self.stats.bypass_depth += 1,
                    BypassReason::Encrypted => self.stats.bypass_encrypted += 1,
                    BypassReason::Policy => self.stats.bypass_pass_rule += 1,
                    BypassReason::NoRule => self.stats.bypass_no_rule += 1,
                }
            }
            Verdict::Drop(reason) | Verdict::DropFlow(reason) | Verdict::Reject(reason) => {
                self.stats.dropped += 1;
                self.stats.rejected += u64::from(matches!(outcome.verdict, Verdict::Reject(_)));
                match reason {
                    DropReason::Rule => self.stats.drop_rule += 1,
                    DropReason::Flow => self.stats.drop_flow += 1,
                    DropReason::Malformed => self.stats.drop_malformed += 1,
                    DropReason::StreamConflict => self.stats.drop_conflict += 1,
                    DropReason::Unverifiable => self.stats.drop_unverifiable += 1,
                    DropReason::Cap => self.stats.drop_cap += 1,
                    DropReason::Segment | DropReason::FailClosed | DropReason::UnknownInterface => {}
                }
            }
        }
        if let Verdict::Drop(reason) | Verdict::DropFlow(reason) | Verdict::Reject(reason) = wanted
            && self.config.flow_events
        {
            let Some(key) = self.key else { return outcome };
            let event = DropEvent {
                at: now,
                key,
                reason,
                by_rate_filter: self.by_rate && reason == DropReason::Rule,
                rule: outcome.rule.clone(),
                carried_out: meta.protect,
                direction: None,
                src: meta.src,
                dst: meta.dst,
                zone: meta.zone,
                len: meta.len_on_wire,
            };
            self.push(EngineEvent::Drop(event));
        }
        outcome
    }

    /// Conditions, flow bits, thresholds and actions of what was matched, in the rules' order. `ended`: the flow when it is
    /// no longer in the table.
    fn decide(&mut self, place: Place<'_>, at: Option<At>, mut ended: Option<&mut Flow<FlowState>>, from: End, to: End) -> Decision {
        let mut decision = Decision::default();
        if self.scratch.matched.is_empty() {
            return decision;
        }
        let mut matched = std::mem::take(&mut self.scratch.matched);
        matched.sort_by_key(|found| found.rule);
        let rules = Arc::clone(&self.rules);
        let mut alerts = 0;
        let before = self.events.len();
        for found in &mut matched {
            let rule = rules.rule(found.rule);
            let turned = found.stream.is_some() && found.stream != place.dir;
            let (place, from, to) = if turned { (place.turned(), to, from) } else { (place, from, to) };
            let mut flow = match ended.as_deref_mut() {
                Some(flow) => Some(flow),
                None => at.and_then(|at| at.flow).and_then(|flow| self.flows.get_mut(flow)),
            };
            // The protocol of a transaction's flow may have changed since.
            let spoken = || found.tx.is_some() || rule.apps == u64::MAX;
            let reads = |bit| self.across.hosts().holds(place.now, bit, (from.0, to.0));
            if !conditions_hold(rule, place, at, flow.as_deref())
                || !rule.hostbits.iter().all(reads)
                || !rule.ipreps.iter().all(|asked| rules.reputation().holds(asked, from.0, to.0))
                || !(spoken() || flow.as_deref().is_some_and(|flow| flow.state.app_bit() & rule.apps != 0))
            {
                continue;
            }
            if !rule.txbits.is_empty() {
                let app = flow.as_deref_mut().and_then(|flow| flow.state.app.as_deref_mut());
                let Some((app, tx)) = app.zip(found.tx.as_ref()) else { continue };
                if !rule.txbits.iter().all(|bit| app.tx_bit_holds(tx.id, bit)) {
                    continue;
                }
                for bit in &rule.txbits {
                    app.write_tx_bit(tx.id, bit);
                }
            }
            if rule.told_again
                && let (Some(tx), Some(app)) = (&found.tx, flow.as_mut().and_then(|flow| flow.state.app.as_deref_mut()))
                && !app.first_turn(found.rule, tx.id)
            {
                continue;
            }
            if let Some(flow) = &mut flow {
                self.stats.flowbits_refused += apply_flowbits(rule, &mut flow.state) + apply_flowints(rule, &mut flow.state);
            }
            if let (Some(scope), Some(app)) = (rule.quiets, flow.as_mut().and_then(|flow| flow.state.app.as_deref_mut())) {
                app.quiet(found.tx.as_ref().filter(|_| scope == ConfigScope::Transaction).map(|tx| tx.id));
            }
            if let (Some((towards, scope)), Some(tx)) = (rule.store, &found.tx)
                && let Some(app) = flow.as_mut().and_then(|flow| flow.state.app.as_deref_mut())
            {
                let own = found.stream.unwrap_or(Direction::ToServer);
                let dirs = match towards {
                    None | Some(Towards::Either) => [own == Direction::ToServer, own == Direction::ToClient],
                    Some(Towards::ToServer) => [true, false],
                    Some(Towards::ToClient) => [false, true],
                    Some(Towards::Both) => [true, true],
                };
                app.store((scope != FileScope::Flow).then_some(tx.id), dirs);
            }
            if !rule.hostbits.is_empty() {
                let mut hosts = self.across.hosts();
                let before = hosts.refused;
                rule.hostbits.iter().for_each(|bit| hosts.write(place.now, bit, (from.0, to.0)));
                self.stats.host_bits_refused += hosts.refused - before;
            }
            decision.bypassed |= rule.bypass;
            let answer = if rule.thresholds.is_empty() {
                Answer::Alert
            } else {
                let mut thresholds = self.across.thresholds();
                let before = thresholds.refused;
                let answer = ask_thresholds(&mut thresholds, rule, place, from, to);
                self.stats.thresholds_refused += thresholds.refused - before;
                answer
            };
            if answer == Answer::NotYet {
                self.stats.alerts_suppressed += 1;
                continue;
            }
            let changed = |filter: &RateFilter| {
                let ends = (from.0, to.0);
                self.across.thresholds().rate(place.now, rule.info.key(), filter, ends, place.key.id).then_some(filter.new_action)
            };
            let changed = rule.rate_filter.as_ref().and_then(changed);
            let action = changed.unwrap_or(rule.info.action);
            // Addresses, streams and applications are of flows; what else a packet shows is its own.
            let rule_is_of_flow = found.stream.is_some() || rule.ip_only || rule.apps != u64::MAX;
            if action == Action::Pass {
                // Behind a drop there is nothing to let through.
                decision.passed |= decision.rule.is_none() && rule_is_of_flow;
                if !rule.tells || decision.rule.is_some() {
                    break;
                }
            }
            if action.blocks() && decision.rule.is_none() {
                let whole_flow = self.config.drop_scope == DropScope::Flow || rule_is_of_flow;
                decision.verdict = match (action.rejects(), whole_flow && at.is_some()) {
                    (true, _) => Verdict::Reject(DropReason::Rule),
                    (false, true) => Verdict::DropFlow(DropReason::Rule),
                    (false, false) => Verdict::Drop(DropReason::Rule),
                };
                decision.rule = Some(Arc::clone(&rule.info));
                self.by_rate = changed.is_some();
            }
            let would = action.blocks() && !place.meta.protect;
            let told = would && flow.as_mut().is_some_and(|flow| !flow.state.first_would(rule.info.key()));
            let beyond = alerts >= self.config.alerts_per_packet_max;
            self.stats.alerts_refused += u64::from(beyond);
            if answer == Answer::Silent || rule.noalert || rule.suppressed(from, to) || told || beyond {
                self.stats.alerts_suppressed += 1;
                continue;
            }
            alerts += 1;
            if let Some(flow) = &mut flow {
                flow.state.alerted = true;
            }
            let event = AlertEvent {
                at: place.now,
                key: place.key,
                rule: Arc::clone(&rule.info),
                blocked: action.blocks() && place.meta.protect,
                would_have_blocked: would,
                passed: false,
                direction: place.dir,
                src: if turned { place.meta.dst } else { place.meta.src },
                dst: if turned { place.meta.src } else { place.meta.dst },
                zone: place.meta.zone,
                to_server: flow.as_ref().map(|flow| flow.to_server).unwrap_or_default(),
                to_client: flow.as_ref().map(|flow| flow.to_client).unwrap_or_default(),
                flow_start: flow.as_ref().map(|flow| flow.start),
                excerpt: std::mem::take(&mut found.excerpt),
                stream: found.stream.is_some(),
                app: found.tx.as_ref().map(|tx| tx.protocol).or_else(|| flow.as_ref().and_then(|flow| flow.state.app())),
                tx: found.tx.as_ref().map(|tx| tx.id),
                record: found.tx.take().and_then(|tx| tx.record),
            };
            self.stats.alerts += 1;
            self.push(EngineEvent::Alert(event));
            if action == Action::Pass {
                break;
            }
        }
        if decision.passed {
            for event in self.events.range_mut(before.min(self.events.len())..) {
                if let EngineEvent::Alert(alert) = event {
                    alert.passed = true;
                }
            }
        }
        matched.clear();
        self.scratch.matched = matched;
        decision
    }

    /// Gives memory back, and tells of each flow that is over.
    fn flows_ended(&mut self, now: Timestamp) {
        while let Some(EndedFlow { mut flow, why }) = self.ended.pop() {
            let state_name = flow.state_name();
            self.inspect_rest(now, &mut flow);
            self.close_app(now, &mut flow);
            flow.state.free_lookback(&mut self.lookback_memory);
            if !self.config.flow_events {
                continue;
            }
            let key = FlowKey { id: flow.id, proto: flow.tuple.proto, src: flow.tuple.src, dst: flow.tuple.dst };
            let event = FlowEndEvent {
                at: now,
                key,
                start: flow.start,
                last: flow.last,
                to_server: flow.to_server,
                to_client: flow.to_client,
                why,
                state: state_name,
                app: flow.state.app(),
                app_original: flow.state.app_original(),
                alerted: flow.state.alerted,
                condemned: flow.state.condemned.is_some() || flow.state.would_be_condemned,
                bypassed: flow.state.bypassed,
                passed: flow.state.passed || flow.state.bypassed == Some(BypassReason::Policy),
                dropped: flow.state.condemned.is_some() || flow.state.midstream.is_some_and(drops),
                trace: flow.state.trace,
                midstream: flow.state.midstream,
                transactions: flow.state.transactions,
                vlan: flow.tuple.vlan,
                client: flow.state.client,
                server: flow.state.server,
                zone: flow.state.zone,
            };
            self.push(EngineEvent::FlowEnd(event));
        }
    }

    /// What waits behind a hole when a flow ends was let go, and nobody has looked at it: now it is, and rules say what they
    /// would have done. Where drops are carried out the receiver's program has not read it either.
    fn inspect_rest(&mut self, now: Timestamp, flow: &mut Flow<FlowState>) {
        let waits = |stream: &TcpStream| stream.is_waiting(Direction::ToServer) || stream.is_waiting(Direction::ToClient);
        if !flow.tcp.as_deref().is_some_and(waits) || flow.state.condemned.is_some() || flow.state.bypassed.is_some() {
            return;
        }
        let Some(mut stream) = flow.tcp.take() else { return };
        let established = stream.is_established();
        flow.state.renumber(self.generation);
        let (client, server) = ends_of(flow);
        self.scratch.begin(self.rules.len());
        let before = self.streams.stats.delivered_bytes;
        let state = &mut flow.state;
        let mut inspector = StreamInspector {
            rules: &self.rules,
            config: &self.config,
            client,
            server,
            halves: &mut state.halves,
            tls: &mut state.tls,
            app: &mut state.app,
            apps: &mut self.apps,
            scratch: &mut self.scratch,
            stats: &mut self.stats,
            memory: &mut self.lookback_memory,
        };
        self.streams.flush(&mut stream, &mut inspector);
        self.stats.inspected_at_end_bytes += self.streams.stats.delivered_bytes - before;
        if self.scratch.work.is_spent() {
            self.stats.work_exhausted += 1;
        }
        self.decide_at_end(now, flow, established);
        flow.tcp = Some(stream);
    }

    /// What transactions that are still open come to: rules that wait for an end say what they would have done.
    fn close_app(&mut self, now: Timestamp, flow: &mut Flow<FlowState>) {
        let Some(mut app) = flow.state.app.take() else { return };
        self.apps.now = now;
        flow.state.renumber(self.generation);
        let (client, server) = ends_of(flow);
        self.scratch.begin(self.rules.len());
        let with = With {
            rules: &self.rules,
            config: &self.config,
            ends: (client, server),
            raw: None,
            scratch: &mut self.scratch,
            stats: &mut self.stats,
        };
        self.apps.close(&mut app, with);
        (flow.state.spoke, flow.state.spoke_before) = (app.protocol(), app.original());
        flow.state.transactions = Some(app.transactions());
        // It knows which rules have had their turn.
        flow.state.app = Some(app);
        if flow.state.condemned.is_some() || flow.state.bypassed.is_some() || flow.state.passed {
            self.scratch.matched.clear();
        }
        let established = match &flow.tcp {
            Some(stream) => stream.is_established(),
            None => flow.to_server.packets > 0 && flow.to_client.packets > 0,
        };
        self.decide_at_end(now, flow, established);
        flow.state.app = None;
    }

    /// Of a flow that is not in the table any more.
    fn decide_at_end(&mut self, now: Timestamp, flow: &mut Flow<FlowState>, established: bool) {
        let [client_home, server_home] = flow.state.home;
        let (client, server) = ends_of(flow);
        let meta = PacketMeta {
            zone: flow.state.zone,
            src: flow.state.client,
            dst: flow.state.server,
            home: HomeSide { source: client_home, destination: server_home },
            ..PacketMeta::captured(LinkType::RawIp, 0, false)
        };
        let key = FlowKey { id: flow.id, proto: flow.tuple.proto, src: flow.tuple.src, dst: flow.tuple.dst };
        let place = Place { now, meta: &meta, key, dir: Some(Direction::ToServer) };
        // Not in the table any more; `established` is all that is asked of it.
        let at = At { flow: None, established, fragmented: false };
        let decision = self.decide(place, Some(at), Some(flow), client, server);
        mark(&mut self.scratch, flow.state.app.as_deref());
        flow.state.would_be_condemned |= !decision.verdict.passes();
        self.tell(now, key, (meta.src, meta.dst), meta.zone, None);
    }

    /// Hands on the transactions that a packet has ended.
    fn told(&mut self, place: Place<'_>, flow: FlowRef) {
        if self.scratch.told.is_empty() && self.scratch.files.is_empty() {
            return;
        }
        let Some(flow) = self.flows.get_mut(flow) else { return };
        mark(&mut self.scratch, flow.state.app.as_deref());
        let key = FlowKey { id: flow.id, proto: flow.tuple.proto, src: flow.tuple.src, dst: flow.tuple.dst };
        let ends = (flow.state.client, flow.state.server);
        self.tell(place.now, key, ends, place.meta.zone, place.dir);
    }

    /// `key`: `src` is the client, as in `ends`.
    fn tell(&mut self, at: Timestamp, key: FlowKey, ends: (WorkloadId, WorkloadId), zone: u32, direction: Option<Direction>) {
        let mut told = std::mem::take(&mut self.scratch.told);
        for (id, protocol, record) in told.drain(..) {
            let event = TransactionEvent { at, key, client: ends.0, server: ends.1, zone, id, protocol, direction, record };
            self.push(EngineEvent::Transaction(Box::new(event)));
        }
        self.scratch.told = told;
        let mut files = std::mem::take(&mut self.scratch.files);
        for FileDone { tx, protocol, dir, mut file, stored, record } in files.drain(..) {
            if !stored {
                file.content = None;
            }
            let event = FileEvent { at, key, client: ends.0, server: ends.1, zone, tx, protocol, dir, file, stored, record };
            self.push(EngineEvent::File(Box::new(event)));
        }
        self.scratch.files = files;
    }

    /// Counts, and gives the verdict. `partial`: not all of the connection was seen, so that a parser's trouble says nothing.
    fn app_fault(&mut self, fault: AppFault, partial: bool) -> Verdict {
        let (counter, of_peer) = match fault {
            AppFault::Finished(Finished::Malformed(_)) => (&mut self.stats.app_malformed, true),
            AppFault::Finished(Finished::Gap) => (&mut self.stats.app_gaps, true),
            AppFault::Finished(Finished::Cap(_)) => (&mut self.stats.app_caps, false),
            AppFault::Overflowed => (&mut self.stats.app_overflowed, false),
            AppFault::Candidates => (&mut self.stats.app_candidates_refused, false),
            AppFault::Memory => (&mut self.stats.app_memory_refused, false),
            AppFault::Finished(Finished::Encrypted | Finished::Unknown | Finished::Tunnel) => return Verdict::Accept,
        };
        *counter += 1;
        if partial && of_peer { Verdict::Accept } else { verdict_of(Fault::App(fault), &self.config) }
    }

    fn decode_anomalies(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>) {
        if self.config.anomalies && !packet.events.is_empty() {
            let tuple = Tuple::of(meta.zone, packet);
            let key = FlowKey { id: 0, proto: tuple.proto, src: tuple.src, dst: tuple.dst };
            for event in packet.events.iter() {
                self.anomaly(now, meta, Some(key), Anomaly::Decode(event));
            }
        }
    }

    fn stream_anomaly(&mut self, place: Place<'_>, segment: SegmentOutcome) {
        let plain = matches!(segment, SegmentOutcome::Retransmission | SegmentOutcome::Ignored(Ignored::NoSession));
        if self.config.anomalies
            && !plain
            && let Some(event) = segment.event()
        {
            self.anomaly(place.now, place.meta, Some(place.key), Anomaly::Stream(event));
        }
    }

    fn anomaly(&mut self, at: Timestamp, meta: &PacketMeta, key: Option<FlowKey>, what: Anomaly) {
        self.push(EngineEvent::Anomaly(AnomalyEvent { at, key, what, src: meta.src, dst: meta.dst, zone: meta.zone }));
    }

    fn push(&mut self, event: EngineEvent) {
        if self.events.len() < self.config.events_max {
            self.events.push_back(event);
            return;
        }
        match event {
            EngineEvent::Alert(_) => self.stats.lost_alerts += 1,
            EngineEvent::Drop(_) => self.stats.lost_drops += 1,
            EngineEvent::FlowEnd(_) => self.stats.lost_flow_ends += 1,
            EngineEvent::Anomaly(_) => self.stats.lost_anomalies += 1,
            EngineEvent::Transaction(_) => self.stats.lost_transactions += 1,
            EngineEvent::File(_) => self.stats.lost_files += 1,
        }
    }
}

/// Which of the files that are over rules want kept, and which transactions not logged.
fn mark(scratch: &mut Scratch, app: Option<&AppFlow>) {
    for file in &mut scratch.files {
        file.stored |= app.is_some_and(|app| app.is_stored(file.tx, file.dir));
    }
    scratch.told.retain(|(tx, ..)| !app.is_some_and(|app| app.is_quiet(*tx)));
}

/// Client and server as rules see them.
fn ends_of(flow: &Flow<FlowState>) -> (End, End) {
    let [client_home, server_home] = flow.state.home;
    let (client, server) = (flow.tuple.src, flow.tuple.dst);
    ((client.addr, client.port, client_home), (server.addr, server.port, server_home))
}

/// A packet's flow, as conditions see it.
#[derive(Clone, Copy)]
struct At {
    /// `None`: it has left the table.
    flow: Option<FlowRef>,
    established: bool,
    /// It came in fragments.
    fragmented: bool,
}

#[derive(Debug)]
struct Decision {
    verdict: Verdict,
    rule: Option<Arc<RuleInfo>>,
    /// A pass rule took the rest of the flow out of inspection.
    passed: bool,
    /// A rule with the keyword `bypass` did.
    bypassed: bool,
}

impl Default for Decision {
    fn default() -> Self {
        Self { verdict: Verdict::Accept, rule: None, passed: false, bypassed: false }
    }
}

/// Whether the rest of the flow can be let go unseen.
fn nothing_more(rules: &Ruleset, config: &PipelineConfig, flow: &Flow<FlowState>, client: End, server: End) -> Option<BypassReason> {
    let known = flow.tcp.as_ref().is_none_or(|stream| stream.is_established());
    if !known {
        return None;
    }
    let encrypted = || match flow.state.app.as_deref() {
        Some(app) if app.protocol() == Some(Protocol::Tls) => app.is_encrypted() && flow.state.tls.is_encrypted(),
        Some(app) => app.is_encrypted(),
        None => false,
    };
    if config.bypass_encrypted && encrypted() {
        return Some(BypassReason::Encrypted);
    }
    // Asked when the flow is young: headers do not change.
    let young = flow.to_server.packets + flow.to_client.packets <= NO_RULE_PACKETS;
    (config.bypass_no_rule && young && !rules.can_match(flow.tuple.proto, client, server)).then_some(BypassReason::NoRule)
}

const fn drops(policy: Midstream) -> bool {
    matches!(policy, Midstream::DropFlow | Midstream::Reject)
}

/// The verdict that lets less through.
const fn harder(a: Verdict, b: Verdict) -> Verdict {
    const fn rank(verdict: Verdict) -> u8 {
        match verdict {
            Verdict::BypassFlow(_) => 0,
            Verdict::BypassDirection(_) => 1,
            Verdict::Accept => 2,
            Verdict::Drop(_) => 3,
            Verdict::DropFlow(_) => 4,
            Verdict::Reject(_) => 5,
        }
    }
    if rank(b) > rank(a) { b } else { a }
}
