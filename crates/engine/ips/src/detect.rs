//! What a flow remembers for detection, and the two passes over streams and packets.

mod packet;

use std::net::IpAddr;

use bulkhead_model::{BypassReason, Timestamp, WorkloadId};
use bulkhead_net::decode::{IpVersion, Packet, Transport};
use bulkhead_net::flow::{Direction, Flow};
use bulkhead_net::stream::{StreamEnd, StreamSink};
use bulkhead_rules::Field;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::condition::{IntegerTest, IpOption};
use bulkhead_rules::tree::{BitsMode, PacketTest, Relation, TcpFlagsTest};

use std::sync::Arc;

use bulkhead_applayer::{Protocol, Transport as Carrier};

pub(crate) use packet::{FrameView, PacketView, inspect_findings, inspect_frame, inspect_packet, number_holds};

use crate::across::locked;
use crate::app::{AppFault, AppFlow, Apps, Raw, TxMatch, With, app_of};
use crate::files::FileDone;
use crate::inspect::{Buffer, Inspection, Steps, Work};
use crate::outcome::{Midstream, PipelineConfig, Record, Stats};
use crate::prefilter::Carry;
use crate::rules::{Compiled, Group, Owner, ProtoClass, RuleId, RuleInfo, Ruleset};
use crate::tls::TlsWatch;
use crate::trace::Trace;
use crate::transaction::bit;

/// Rules of one direction that have shown their literal and wait for the rest.
const PENDING_MAX: usize = 64;
/// Flow bits of one flow.
const FLOWBITS_MAX: usize = 128;
/// Counters of one flow.
const FLOWINTS_MAX: usize = 64;
/// Rules of one flow whose would-have-blocked alert is remembered.
const WOULD_MAX: usize = 128;

/// The flow table's state per flow.
#[derive(Debug, Default)]
pub(crate) struct FlowState {
    pub zone: u32,
    pub client: WorkloadId,
    pub server: WorkloadId,
    /// A rule took the flow away; every later packet is dropped while it is protected.
    pub condemned: Option<Arc<RuleInfo>>,
    /// The same in monitor mode, where the flow goes on.
    pub would_be_condemned: bool,
    pub alerted: bool,
    pub bypassed: Option<BypassReason>,
    /// A pass rule took the flow out of detection; it is followed for the log.
    pub passed: bool,
    pub trace: Trace,
    /// Its beginning was not seen, and what becomes of it.
    pub midstream: Option<Midstream>,
    /// To the server, to the client.
    pub depth_reached: [bool; 2],
    pub ip_only_done: [bool; 2],
    /// Rules that ask for nothing but the protocol were asked with what it is.
    pub app_told: bool,
    pub tls: Tls,
    /// The client's and the server's end is a protected workload.
    pub home: [bool; 2],
    pub flowbits: Vec<u64>,
    /// Counters by name.
    pub flowints: Vec<(u64, u32)>,
    /// Keys of rules that would have blocked.
    pub would: Vec<u64>,
    /// Made when the first byte comes, where application layers are followed.
    pub app: Option<Box<AppFlow>>,
    /// What it spoke, once `app` is gone.
    pub spoke: Option<Protocol>,
    pub spoke_before: Option<Protocol>,
    /// And how many transactions there were; `None`: no application layer was looked for.
    pub transactions: Option<u64>,
    /// Made when the first stream byte comes.
    pub halves: Option<Box<[Half; 2]>>,
    /// The rule set whose numbers `halves` holds.
    pub generation: u64,
}

/// Whether a flow may be TLS.
#[derive(Debug, Default)]
pub(crate) enum Tls {
    /// No byte was seen.
    #[default]
    Unseen,
    Watched(Box<TlsWatch>),
    No,
}

impl Tls {
    /// The next bytes of a direction. The change in heap bytes is put into `memory`.
    fn push(&mut self, dir: Direction, bytes: &[u8], memory: &mut usize, memory_max: usize) {
        if matches!(self, Self::Unseen) {
            // A client begins, with a handshake record.
            let begins = dir == Direction::ToServer && bytes.first() == Some(&22);
            *self = if begins { Self::Watched(Box::default()) } else { Self::No };
        }
        let Self::Watched(watch) = self else { return };
        let before = watch.memory();
        watch.push(dir, bytes);
        *memory = (*memory + watch.memory()).saturating_sub(before);
        if watch.is_over() {
            *self = Self::No;
        } else if *memory > memory_max {
            self.give_up(memory);
        }
    }

    fn give_up(&mut self, memory: &mut usize) {
        *memory = memory.saturating_sub(self.memory());
        *self = Self::No;
    }

    fn memory(&self) -> usize {
        match self {
            Self::Watched(watch) => watch.memory(),
            Self::Unseen | Self::No => 0,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Watched(watch) if watch.is_encrypted())
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Half {
    carry: Carry,
    /// The last bytes, as far as rules need them.
    lookback: Vec<u8>,
    /// Stream offset of the next byte.
    next: u64,
    pending: Vec<Pending>,
    /// Rules that have matched, and the offset from which they may match again.
    consumed: Vec<(RuleId, u64)>,
    /// Another rule set has come: what is kept is to be searched for its literals before the next bytes are.
    search_again: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    rule: RuleId,
    /// Stream offset at which its literal is out of reach.
    until: u64,
}

impl FlowState {
    /// Gives all look-back back: the flow ends, or is looked at no longer. `memory` is what all flows hold.
    pub fn free_lookback(&mut self, memory: &mut usize) {
        let held: usize = self.halves.take().map_or(0, |halves| halves.iter().map(|half| half.lookback.capacity()).sum());
        *memory = memory.saturating_sub(held);
        self.tls.give_up(memory);
    }

    /// The same for one direction.
    pub fn free_half(&mut self, dir: Direction, memory: &mut usize) {
        if let Some(halves) = &mut self.halves {
            let half = std::mem::take(&mut halves[index(dir)]);
            *memory = memory.saturating_sub(half.lookback.capacity());
        }
    }

    /// Numbers of another rule set mean nothing. The bytes are kept, and searched again for what waits in them when the next
    /// ones come. Whether the flow was let go because no rule could match it, and is to be followed again.
    pub fn renumber(&mut self, generation: u64) -> bool {
        if self.generation != generation {
            self.generation = generation;
            if let Some(app) = &mut self.app {
                app.search_again();
            }
            if let Some(halves) = &mut self.halves {
                for half in halves.iter_mut() {
                    half.pending.clear();
                    half.consumed.clear();
                    half.search_again = true;
                }
            }
            if self.bypassed == Some(BypassReason::NoRule) {
                self.bypassed = None;
                return true;
            }
        }
        false
    }

    /// What the flow speaks, as far as it was recognised.
    pub fn app(&self) -> Option<Protocol> {
        self.app.as_ref().map_or(self.spoke, |app| app.protocol())
    }

    /// What it spoke before, where that has changed.
    pub fn app_original(&self) -> Option<Protocol> {
        self.app.as_ref().map_or(self.spoke_before, |app| app.original())
    }

    /// The same as a bit, or [`crate::rules::NO_APP`]; 0: not known yet.
    pub fn app_bit(&self) -> u64 {
        match &self.app {
            Some(app) => app.app_bit(),
            None => self.spoke.and_then(app_of).map_or(0, bit),
        }
    }

    pub fn has_bit(&self, name: u64) -> bool {
        self.flowbits.contains(&name)
    }

    /// False when the flow has too many.
    pub fn set_bit(&mut self, name: u64) -> bool {
        if !self.has_bit(name) {
            if self.flowbits.len() >= FLOWBITS_MAX {
                return false;
            }
            self.flowbits.push(name);
        }
        true
    }

    pub fn flowint(&self, name: u64) -> Option<u32> {
        self.flowints.iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
    }

    /// False when the flow has too many.
    pub fn set_flowint(&mut self, name: u64, value: u32) -> bool {
        if let Some((_, old)) = self.flowints.iter_mut().find(|(of, _)| *of == name) {
            *old = value;
        } else if self.flowints.len() >= FLOWINTS_MAX {
            return false;
        } else {
            self.flowints.push((name, value));
        }
        true
    }

    pub fn clear_bit(&mut self, name: u64) {
        self.flowbits.retain(|bit| *bit != name);
    }

    /// Whether a would-have-blocked alert of this rule is the first of the flow.
    pub fn first_would(&mut self, key: u64) -> bool {
        if self.would.contains(&key) || self.would.len() >= WOULD_MAX {
            return false;
        }
        self.would.push(key);
        true
    }
}

/// A rule whose contents hold. Whether its other conditions do is asked afterwards, in the rules' order.
#[derive(Debug)]
pub(crate) struct Matched {
    pub rule: RuleId,
    /// Found in the stream of this direction, which an acknowledgement of the other may have brought out; `None`: in the packet.
    pub stream: Option<Direction>,
    pub excerpt: Vec<u8>,
    /// The transaction in whose buffers it was found.
    pub tx: Option<TxMatch>,
}

/// Which rules a first pass is for.
#[derive(Debug, Clone, Copy)]
struct Of {
    stream: bool,
    packet: bool,
}

/// Reused from packet to packet.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub matched: Vec<Matched>,
    candidates: Vec<Candidate>,
    /// Rules on transactions whose literal is in the bytes in hand.
    pub gates: Vec<RuleId>,
    /// Rules on packets whose literal is in the payload in hand, perhaps more than once.
    of_payload: Vec<RuleId>,
    /// Where the payload lies that is still to be searched for these.
    expected: Option<(usize, usize)>,
    payload_searched: bool,
    /// By rule: the pass in which it became a candidate.
    stamps: Vec<u32>,
    stamp: u32,
    /// By literal of the group in hand: the scan in which it was found.
    seen: Vec<u32>,
    scan: u32,
    /// A cap stood in the way of inspection in this packet.
    pub cap_reached: bool,
    /// The same in an application layer.
    pub app_fault: Option<AppFault>,
    /// Transactions that this packet has ended, for the log.
    pub told: Vec<(u64, Protocol, Record)>,
    /// Events of sessions that belong to no transaction.
    pub app_events: Vec<&'static str>,
    /// Files that are over.
    pub files: Vec<FileDone>,
    /// Matches from here on are of the call in hand.
    pub settled_from: usize,
    /// Of this packet.
    pub work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rule: RuleId,
    /// Its literal is in the new bytes, or it has none.
    fresh: bool,
}

impl Scratch {
    pub fn begin(&mut self, rules: usize) {
        self.matched.clear();
        self.cap_reached = false;
        self.app_fault = None;
        self.told.clear();
        self.files.clear();
        self.app_events.clear();
        self.settled_from = 0;
        self.of_payload.clear();
        self.expected = None;
        self.payload_searched = false;
        self.work = Work::default();
        if self.stamps.len() != rules {
            self.stamps = vec![0; rules];
            self.stamp = 0;
        }
    }

    /// Forgets the candidates of the pass before.
    fn begin_pass(&mut self) {
        self.candidates.clear();
        self.gates.clear();
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.stamps.fill(0);
            self.stamp = 1;
        }
    }

    fn add(&mut self, rule: RuleId, fresh: bool) {
        let stamp = &mut self.stamps[rule as usize];
        if *stamp != self.stamp {
            *stamp = self.stamp;
            self.candidates.push(Candidate { rule, fresh });
        }
    }

    /// The payload of the packet in hand: where the stream hands out just that, one pass serves both kinds of rules.
    pub fn expect(&mut self, payload: &[u8]) {
        self.expected = Some((payload.as_ptr() as usize, payload.len()));
    }

    /// Whether these bytes are the whole payload, for the first time.
    fn is_payload(&mut self, bytes: &[u8]) -> bool {
        let whole = self.expected == Some((bytes.as_ptr() as usize, bytes.len()));
        if whole {
            self.expected = None;
            self.payload_searched = true;
        }
        whole
    }

    /// First pass over one run of bytes, for rules on the stream, on packets, or both.
    fn prefilter(&mut self, groups: &[&Group; 3], carry: &Carry, bytes: &[u8], of: Of, stats: &mut Stats) {
        for group in groups {
            self.scan = self.scan.wrapping_add(1);
            if self.scan == 0 {
                self.seen.fill(0);
                self.scan = 1;
            }
            if self.seen.len() < group.prefilter.len() {
                self.seen.resize(group.prefilter.len(), 0);
            }
            let mut hits = 0;
            let mut work = self.work;
            group.prefilter.scan(carry, bytes, &mut work, |number| {
                hits += 1;
                // All owners are added at once: a literal that repeats costs one look.
                if std::mem::replace(&mut self.seen[number as usize], self.scan) != self.scan {
                    for owner in group.owners(number) {
                        self.found(owner, of);
                    }
                }
            });
            self.work = work;
            stats.prefilter_hits += hits;
            for owner in &group.always {
                self.found(owner, of);
            }
        }
    }

    fn found(&mut self, owner: &Owner, of: Of) {
        if of.stream && owner.gate {
            self.gates.push(owner.rule);
        }
        if of.stream && owner.on_stream {
            self.add(owner.rule, true);
        }
        if of.packet && owner.on_packet {
            self.of_payload.push(owner.rule);
        }
    }
}

/// An end of the packet as rules see it: address, port, at home.
pub(crate) type End = (IpAddr, u16, bool);

/// Takes a stream's bytes as reassembly hands them out, and judges them at once.
pub(crate) struct StreamInspector<'a> {
    pub rules: &'a Ruleset,
    pub config: &'a PipelineConfig,
    pub client: End,
    pub server: End,
    pub halves: &'a mut Option<Box<[Half; 2]>>,
    pub tls: &'a mut Tls,
    /// `None` within: not made yet. `follow`: what begins is followed.
    pub app: &'a mut Option<Box<AppFlow>>,
    pub apps: &'a mut Apps,
    pub scratch: &'a mut Scratch,
    pub stats: &'a mut Stats,
    pub memory: &'a mut usize,
}

pub(crate) const fn index(dir: Direction) -> usize {
    match dir {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

impl StreamSink for StreamInspector<'_> {
    fn data(&mut self, dir: Direction, offset: u64, bytes: &[u8]) {
        if self.config.stream_depth > 0 && offset >= self.config.stream_depth {
            return;
        }
        if self.config.bypass_encrypted {
            self.tls.push(dir, bytes, self.memory, self.config.lookback_memory_max);
        }
        let followed = self.app.is_some() || follows(self.rules, self.config, offset == 0, bytes);
        // Rules on transactions may wait for what the first pass finds, so it comes first.
        let searched = self.search(dir, offset, bytes, followed);
        if followed {
            let Self { rules, config, client, server, halves, app, apps, scratch, stats, .. } = self;
            scratch.settled_from = scratch.matched.len();
            let now = apps.now;
            let flow = app.get_or_insert_with(|| match locked(&apps.expected).take(*client, *server, now) {
                Some(what) => Box::new(AppFlow::expected(&what)),
                None => Box::new(AppFlow::between(Carrier::Tcp, [client.1, server.1])),
            });
            let half = halves.as_deref().map(|halves| &halves[index(dir)]).filter(|half| half.next == offset);
            let before = half.map_or(&[][..], |half| &half.lookback);
            let raw = Some(Raw { dir, base: offset.saturating_sub(before.len() as u64), before, fresh: bytes });
            apps.data(flow, dir, bytes, With { rules, config, ends: (*client, *server), raw, scratch, stats });
        }
        if searched {
            self.verify(dir, offset, bytes);
        }
        if let Some(flow) = self.app.as_deref_mut().filter(|flow| !flow.is_resolved()) {
            let from = self.scratch.settled_from;
            Apps::settle(flow, self.rules, from, self.scratch, self.stats);
        }
    }

    fn gap(&mut self, dir: Direction, offset: u64, len: u64) {
        self.tls.give_up(self.memory);
        let Self { rules, config, client, server, app, apps, scratch, stats, .. } = self;
        if let Some(flow) = app.as_deref_mut() {
            apps.gap(flow, dir, len, With { rules, config, ends: (*client, *server), raw: None, scratch, stats });
        }
        if let Some(halves) = self.halves {
            halves[index(dir)].skip_to(offset + len);
        }
    }

    fn end(&mut self, dir: Direction, _how: StreamEnd) {
        let Self { rules, config, client, server, app, apps, scratch, stats, .. } = self;
        if let Some(flow) = app.as_deref_mut() {
            apps.end(flow, dir, With { rules, config, ends: (*client, *server), raw: None, scratch, stats });
        }
        // No more bytes come: what was kept of them is of no use, and a flow that is over stays in the table for a while.
        if let Some(halves) = self.halves {
            let half = &mut halves[index(dir)];
            half.pending.clear();
            *self.memory = self.memory.saturating_sub(std::mem::take(&mut half.lookback).capacity());
        }
    }
}

/// Whether the application layer of a flow that begins with these bytes is to be followed. Where nobody but the encrypted bypass
/// asks, only what may become encrypted is.
pub(crate) fn follows(rules: &Ruleset, config: &PipelineConfig, begins: bool, bytes: &[u8]) -> bool {
    rules.wants_apps() || config.transactions || (config.bypass_encrypted && begins && matches!(bytes.first(), Some(22 | b'S')))
}

impl StreamInspector<'_> {
    /// Sender and receiver of a direction.
    const fn ends(&self, dir: Direction) -> (End, End) {
        match dir {
            Direction::ToServer => (self.client, self.server),
            Direction::ToClient => (self.server, self.client),
        }
    }

    /// Rules on transactions may look at what came before, too.
    fn keeps_raw(&self, followed: bool) -> bool {
        self.rules.transactions().wants_raw() && followed
    }

    /// First pass over the stream's own bytes. Whether there is a second.
    fn search(&mut self, dir: Direction, offset: u64, bytes: &[u8], followed: bool) -> bool {
        let (from, to) = self.ends(dir);
        let groups = self.rules.groups(ProtoClass::Tcp, dir, from.1, to.1);
        self.scratch.begin_pass();
        if (groups.iter().all(|group| !group.of_stream) && !self.keeps_raw(followed)) || self.scratch.work.is_spent() {
            return false;
        }
        let half = &mut self.halves.get_or_insert_default()[index(dir)];
        if half.next != offset {
            half.skip_to(offset);
        }
        if std::mem::take(&mut half.search_again) && !half.lookback.is_empty() {
            self.scratch.prefilter(&groups, &Carry::default(), &half.lookback, Of { stream: true, packet: false }, self.stats);
        }
        let of = Of { stream: true, packet: self.scratch.is_payload(bytes) };
        self.scratch.prefilter(&groups, &half.carry, bytes, of, self.stats);
        half.pending.retain(|pending| pending.until > offset);
        for pending in &half.pending {
            self.scratch.add(pending.rule, false);
        }
        true
    }

    /// Second pass over the stream's own bytes.
    fn verify(&mut self, dir: Direction, offset: u64, bytes: &[u8]) {
        let (from, to) = self.ends(dir);
        let groups = self.rules.groups(ProtoClass::Tcp, dir, from.1, to.1);
        let raw = self.keeps_raw(self.app.is_some());
        let half = &mut self.halves.get_or_insert_default()[index(dir)];
        // On the new bytes and as many before them as the rules may need.
        let wanted = if raw { usize::MAX } else { groups.iter().map(|group| group.lookback).max().unwrap_or(0) };
        let lookback = wanted.min(self.config.lookback_bytes_max);
        let before = half.lookback.capacity();
        let joined = !self.scratch.candidates.is_empty() && !half.lookback.is_empty();
        if joined {
            half.lookback.extend_from_slice(bytes);
        }
        if !self.scratch.candidates.is_empty() {
            self.scratch.candidates.sort_unstable();
            let taken = if joined { std::mem::take(&mut half.lookback) } else { Vec::new() };
            let window = if joined { taken.as_slice() } else { bytes };
            let base = (offset + bytes.len() as u64).saturating_sub(window.len() as u64);
            let view = View { dir, window, base, fresh: window.len() - bytes.len(), lookback };
            for at in 0..self.scratch.candidates.len() {
                if !self.scratch.work.charge(1) {
                    break;
                }
                let candidate = self.scratch.candidates[at];
                half.verify(self.rules.rule(candidate.rule), candidate, view, (from, to), self.config, self.scratch, self.stats);
            }
            half.lookback = taken;
        }
        half.remember(bytes, joined, lookback);
        half.carry.push(bytes);
        half.next = offset + bytes.len() as u64;
        *self.memory = (*self.memory + half.lookback.capacity()).saturating_sub(before);
        if *self.memory > self.config.lookback_memory_max {
            *self.memory = self.memory.saturating_sub(half.lookback.capacity());
            half.lookback = Vec::new();
            self.stats.lookback_refused += 1;
            self.scratch.cap_reached = true;
        }
    }
}

/// Bytes that are looked at in the second pass.
#[derive(Clone, Copy)]
struct View<'a> {
    dir: Direction,
    window: &'a [u8],
    /// Stream offset of the window.
    base: u64,
    /// Where the new bytes begin in it.
    fresh: usize,
    lookback: usize,
}

impl Half {
    fn skip_to(&mut self, offset: u64) {
        self.carry.clear();
        self.lookback.clear();
        self.pending.clear();
        self.next = offset;
    }

    #[allow(clippy::too_many_arguments)] // Parts of the inspector, each borrowed apart.
    fn verify(
        &mut self,
        rule: &Compiled,
        candidate: Candidate,
        view: View<'_>,
        (from, to): (End, End),
        config: &PipelineConfig,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) {
        let View { dir, window, base, fresh, lookback } = view;
        if rule.steps.reach.is_some_and(|reach| base + fresh as u64 >= reach) || !rule.header_matches(from, to) {
            return;
        }
        let consumed = self.consumed.iter().position(|(id, _)| *id == candidate.rule);
        let start =
            consumed.map_or(0, |at| usize::try_from(self.consumed[at].1.saturating_sub(base)).unwrap_or(window.len())).min(window.len());
        if !candidate.fresh && !rule.steps.touches(window, fresh, &mut scratch.work) {
            return;
        }
        stats.inspected += 1;
        let buffer = Buffer { bytes: &window[start..], base: base + start as u64 };
        let end_of_window = base + window.len() as u64;
        match rule.steps.run(buffer, &mut scratch.work) {
            // A match among old bytes only is no news: a negated content has slid out of the window.
            Inspection::Match { end } if start + end > fresh || rule.steps.needs_every_run() => {
                stats.matched += 1;
                let end = start + end;
                let excerpt = window[end.saturating_sub(config.excerpt_bytes_max)..end].to_vec();
                scratch.matched.push(Matched { rule: candidate.rule, stream: Some(dir), excerpt, tx: None });
                match consumed {
                    Some(at) => self.consumed[at].1 = end_of_window,
                    None => {
                        self.consumed.retain(|(_, until)| *until > base);
                        self.consumed.push((candidate.rule, end_of_window));
                    }
                }
                self.pending.retain(|pending| pending.rule != candidate.rule);
                return;
            }
            Inspection::Match { .. } | Inspection::NoMatch => {}
            Inspection::Exhausted if scratch.work.is_spent() => return,
            Inspection::Exhausted => {
                stats.steps_exhausted += 1;
                scratch.cap_reached = true;
            }
        }
        if candidate.fresh && !rule.steps.is_single() {
            let reach = rule.steps.span.unwrap_or(usize::MAX).min(lookback);
            let until = end_of_window + reach as u64;
            match self.pending.iter_mut().find(|pending| pending.rule == candidate.rule) {
                Some(pending) => pending.until = until,
                None => {
                    if self.pending.len() >= PENDING_MAX {
                        self.pending.remove(0);
                        stats.pending_overflow += 1;
                        scratch.cap_reached = true;
                    }
                    self.pending.push(Pending { rule: candidate.rule, until });
                }
            }
        }
    }

    /// Keeps the last `lookback` bytes. `joined`: the new ones are in already.
    fn remember(&mut self, bytes: &[u8], joined: bool, lookback: usize) {
        if !joined {
            if bytes.len() >= lookback {
                self.lookback.clear();
                self.lookback.extend_from_slice(&bytes[bytes.len() - lookback..]);
                return;
            }
            self.lookback.extend_from_slice(bytes);
        }
        // Cutting at twice the length makes the moves cost less than the appends.
        if self.lookback.len() > lookback.saturating_mul(2) {
            self.lookback.drain(..self.lookback.len() - lookback);
        }
    }
}
