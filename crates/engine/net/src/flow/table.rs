//! The table itself: slots in chunks that never move, hash chains and per-class lists through the slots.

use bulkhead_model::Timestamp;

use super::{
    CLASSES, Class, Counts, Direction, EVICTION_ORDER, EndedFlow, Flow, FlowConfig, FlowEnd, FlowStats, Found, Origin, Tuple, ZONE_SIDE,
    hash,
};
use crate::decode::Packet;

/// Slots are made in chunks, so that growing never copies what is there.
const CHUNK: usize = 1024;

/// A slot's number plus one; 0 is none.
type Link = u32;

/// A flow that was found. Goes stale when the flow ends, and is then not found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRef {
    slot: Link,
    generation: u32,
}

/// INVARIANT: a slot with a flow is in the chain of its hash and in the list of its class; one without is in
/// neither but in the list of free slots.
#[derive(Debug)]
struct Slot<S> {
    flow: Option<Flow<S>>,
    generation: u32,
    hash: u64,
    /// Next in the hash chain, or next free slot.
    chain: Link,
    class: Class,
    older: Link,
    newer: Link,
}

#[derive(Debug, Clone, Copy, Default)]
struct List {
    oldest: Link,
    newest: Link,
}

#[derive(Debug)]
pub struct FlowTable<S> {
    config: FlowConfig,
    seed: [u64; 2],
    chunks: Vec<Box<[Slot<S>]>>,
    buckets: Vec<Link>,
    lists: [List; CLASSES],
    free: Link,
    len: usize,
    next_id: u64,
    pub stats: FlowStats,
}

impl<S> FlowTable<S> {
    /// `seed` must be unpredictable for whoever sends packets.
    pub fn new(config: FlowConfig, seed: [u64; 2]) -> Self {
        // Links are 32 bits wide and 0 is taken.
        let flows_max = config.flows_max.clamp(1, u32::MAX as usize - 1);
        let config = FlowConfig { flows_max, ..config };
        Self {
            seed,
            chunks: Vec::new(),
            // At most one flow per bucket on average.
            buckets: vec![0; flows_max.next_power_of_two()],
            lists: [List::default(); CLASSES],
            free: 0,
            len: 0,
            // Restarted agents should not repeat numbers at once.
            next_id: (seed[0] & 0xf_ffff) << 32,
            stats: FlowStats::default(),
            config,
        }
    }

    pub const fn config(&self) -> &FlowConfig {
        &self.config
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Finds the flow of a packet or makes one, counts the packet, and marks the flow as used now. Flows that
    /// end over this (timed out, superseded, evicted) are pushed to `ended`, at most two.
    ///
    /// `epoch` is the number under which the kernel knows the conversation, 0 when it does not: a change means
    /// a new conversation between the same ends. `make` makes the state of a new flow.
    #[allow(clippy::too_many_arguments)] // What decides about a packet's flow; a struct would be built per packet.
    pub fn lookup(
        &mut self,
        now: Timestamp,
        zone: u32,
        epoch: u64,
        packet: &Packet<'_>,
        origin: &mut impl Origin,
        ended: &mut Vec<EndedFlow<S>>,
        make: impl FnOnce(&Tuple) -> S,
    ) -> Found {
        // An error may come from a third party: whose side it quotes is not said.
        if let Some(quoted) = Tuple::quoted(zone, packet)
            && let Some((flow, towards)) = self.find(&quoted).or_else(|| self.find(&Tuple { zone: quoted.zone ^ ZONE_SIDE, ..quoted }))
        {
            self.stats.related += 1;
            return Found { flow, dir: towards.opposite(), fresh: false, handshake: None, related: true };
        }
        let tuple = Tuple::of(zone, packet);
        let key = tuple.normal();
        let hash = hash::tuple(self.seed, &key);
        if let Some(link) = self.link_of(hash, &key) {
            let (dir, over) = self.is_over(link, now, epoch, &tuple, packet);
            match over {
                Some(why) => self.end(link, why, ended),
                None => {
                    self.touch(link, now, dir, packet.frame_len, epoch);
                    let generation = self.slot(link).generation;
                    return Found { flow: FlowRef { slot: link, generation }, dir, fresh: false, handshake: None, related: false };
                }
            }
        }
        let (from_client, handshake, handshake_seen) = roles(&tuple, packet, origin);
        let dir = if from_client { Direction::ToServer } else { Direction::ToClient };
        let tuple = if from_client { tuple } else { tuple.reversed() };
        if self.len >= self.config.flows_max {
            self.evict(ended);
        }
        let flow = self.insert(hash, now, epoch, tuple, handshake_seen, make(&tuple));
        self.touch(flow.slot, now, dir, packet.frame_len, epoch);
        Found { flow, dir, fresh: true, handshake, related: false }
    }

    /// The flow between these ends, and the direction of a packet with this tuple.
    pub fn find(&self, tuple: &Tuple) -> Option<(FlowRef, Direction)> {
        let key = tuple.normal();
        let link = self.link_of(hash::tuple(self.seed, &key), &key)?;
        let slot = self.slot(link);
        let flow = slot.flow.as_ref()?;
        Some((FlowRef { slot: link, generation: slot.generation }, direction(flow, tuple)))
    }

    pub fn get(&self, flow: FlowRef) -> Option<&Flow<S>> {
        let slot = self.chunks.get((flow.slot as usize).checked_sub(1)? / CHUNK)?.get((flow.slot as usize - 1) % CHUNK)?;
        slot.flow.as_ref().filter(|_| slot.generation == flow.generation)
    }

    pub fn get_mut(&mut self, flow: FlowRef) -> Option<&mut Flow<S>> {
        let at = (flow.slot as usize).checked_sub(1)?;
        let slot = self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)?;
        slot.flow.as_mut().filter(|_| slot.generation == flow.generation)
    }

    /// To be called when a packet of the flow was dealt with: moves the flow to the list of the class it now
    /// belongs to.
    pub fn settle(&mut self, flow: FlowRef) {
        let Some(class) = self.get(flow).map(Flow::class) else { return };
        if self.slot(flow.slot).class != class {
            self.unlist(flow.slot);
            self.enlist(flow.slot, class);
        }
    }

    /// Ends flows that have timed out, at most `budget` of them; call it again while it returns `budget`.
    pub fn expire(&mut self, now: Timestamp, budget: usize, ended: &mut Vec<EndedFlow<S>>) -> usize {
        let mut count = 0;
        for list in 0..CLASSES {
            while count < budget {
                let oldest = self.lists[list].oldest;
                if oldest == 0 || !self.has_timed_out(oldest, now) {
                    break;
                }
                let why = if self.slot(oldest).class == Class::TcpClosed { FlowEnd::Closed } else { FlowEnd::Timeout };
                self.end(oldest, why, ended);
                count += 1;
            }
        }
        count
    }

    /// Ends a flow at once.
    pub fn remove(&mut self, flow: FlowRef, why: FlowEnd, ended: &mut Vec<EndedFlow<S>>) {
        if self.get(flow).is_some() {
            self.end(flow.slot, why, ended);
        }
    }

    /// Ends all flows, oldest first within a class.
    pub fn clear(&mut self, ended: &mut Vec<EndedFlow<S>>) {
        for list in 0..CLASSES {
            while self.lists[list].oldest != 0 {
                self.end(self.lists[list].oldest, FlowEnd::Shutdown, ended);
            }
        }
    }

    /// All flows, in no order that means anything but always the same one.
    pub fn iter(&self) -> impl Iterator<Item = &Flow<S>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).filter_map(|slot| slot.flow.as_ref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow<S>> {
        self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut()).filter_map(|slot| slot.flow.as_mut())
    }

    /// Flows reachable through the lists, which must be in order.
    #[cfg(test)]
    pub(super) fn listed(&self) -> usize {
        let mut count = 0;
        for list in self.lists {
            let (mut at, mut last) = (list.oldest, Timestamp(0));
            while at != 0 {
                let flow = self.slot(at).flow.as_ref().expect("a flow in a list");
                assert!(flow.last >= last);
                last = flow.last;
                count += 1;
                at = self.slot(at).newer;
            }
        }
        count
    }

    fn is_over(&self, link: Link, now: Timestamp, epoch: u64, tuple: &Tuple, packet: &Packet<'_>) -> (Direction, Option<FlowEnd>) {
        let Some(flow) = &self.slot(link).flow else { return (Direction::ToServer, None) };
        let dir = direction(flow, tuple);
        let why = if self.has_timed_out(link, now) {
            Some(FlowEnd::Timeout)
        } else if epoch != 0 && flow.epoch != 0 && epoch != flow.epoch {
            Some(FlowEnd::Superseded)
        } else if let (Some(stream), Some(tcp)) = (&flow.tcp, packet.tcp())
            && !packet.checksum_invalid()
            && stream.is_superseded_by(dir, tcp)
        {
            Some(FlowEnd::Superseded)
        } else {
            None
        };
        (dir, why)
    }

    fn has_timed_out(&self, link: Link, now: Timestamp) -> bool {
        let slot = self.slot(link);
        let nanos = slot.class.timeout_secs(&self.config).saturating_mul(1_000_000_000);
        slot.flow.as_ref().is_some_and(|flow| now.since(flow.last) > nanos)
    }

    fn touch(&mut self, link: Link, now: Timestamp, dir: Direction, frame_len: usize, epoch: u64) {
        self.unlist(link);
        let mut class = self.slot(link).class;
        if let Some(flow) = &mut self.slot_mut(link).flow {
            // Captures may go back in time; lists stay ordered.
            flow.last = flow.last.max(now);
            let counts = match dir {
                Direction::ToServer => &mut flow.to_server,
                Direction::ToClient => &mut flow.to_client,
            };
            counts.packets += 1;
            counts.bytes += frame_len as u64;
            if epoch != 0 {
                flow.epoch = epoch;
            }
            class = flow.class();
        }
        self.enlist(link, class);
    }

    fn evict(&mut self, ended: &mut Vec<EndedFlow<S>>) {
        for group in EVICTION_ORDER {
            let oldest = group
                .iter()
                .map(|class| self.lists[*class as usize].oldest)
                .filter(|link| *link != 0)
                .min_by_key(|link| self.slot(*link).flow.as_ref().map(|flow| flow.last));
            if let Some(link) = oldest {
                self.end(link, FlowEnd::Evicted, ended);
                return;
            }
        }
    }

    fn insert(&mut self, hash: u64, now: Timestamp, epoch: u64, tuple: Tuple, handshake_seen: bool, state: S) -> FlowRef {
        self.stats.created += 1;
        match tuple.proto {
            6 => self.stats.tcp += 1,
            17 => self.stats.udp += 1,
            1 | 58 => self.stats.icmp += 1,
            _ => self.stats.other += 1,
        }
        self.next_id += 1;
        let flow = Flow {
            id: self.next_id,
            tuple,
            start: now,
            last: now,
            to_server: Counts::default(),
            to_client: Counts::default(),
            tcp: None,
            state,
            bypassed: false,
            epoch,
            handshake_seen,
        };
        if self.free == 0 {
            self.add_chunk();
        }
        let link = self.free;
        let bucket = self.bucket(hash);
        let chain = self.buckets[bucket];
        let class = flow.class();
        let slot = self.slot_mut(link);
        let free = std::mem::replace(&mut slot.chain, chain);
        slot.flow = Some(flow);
        slot.hash = hash;
        let generation = slot.generation;
        self.free = free;
        self.buckets[bucket] = link;
        self.len += 1;
        self.enlist(link, class);
        FlowRef { slot: link, generation }
    }

    fn end(&mut self, link: Link, why: FlowEnd, ended: &mut Vec<EndedFlow<S>>) {
        let counter = match why {
            FlowEnd::Timeout => &mut self.stats.ended_timeout,
            FlowEnd::Closed => &mut self.stats.ended_closed,
            FlowEnd::Evicted => &mut self.stats.ended_evicted,
            FlowEnd::Superseded => &mut self.stats.ended_superseded,
            FlowEnd::Shutdown => &mut self.stats.ended_shutdown,
        };
        *counter += 1;
        if why == FlowEnd::Evicted
            && matches!(self.slot(link).class, Class::TcpEstablished | Class::UdpEstablished | Class::OtherEstablished)
        {
            self.stats.evicted_established += 1;
        }
        self.unlist(link);
        let bucket = self.bucket(self.slot(link).hash);
        let next = self.slot(link).chain;
        if self.buckets[bucket] == link {
            self.buckets[bucket] = next;
        } else {
            let mut at = self.buckets[bucket];
            while at != 0 && self.slot(at).chain != link {
                at = self.slot(at).chain;
            }
            if at != 0 {
                self.slot_mut(at).chain = next;
            }
        }
        let free = self.free;
        let slot = self.slot_mut(link);
        slot.chain = free;
        slot.generation = slot.generation.wrapping_add(1);
        let flow = slot.flow.take();
        self.free = link;
        self.len -= 1;
        ended.extend(flow.map(|flow| EndedFlow { flow, why }));
    }

    fn add_chunk(&mut self) {
        let first = (self.chunks.len() * CHUNK) as Link + 1;
        let slots = (0..CHUNK as Link).map(|at| Slot {
            flow: None,
            generation: 0,
            hash: 0,
            chain: if at as usize + 1 < CHUNK { first + at + 1 } else { 0 },
            class: Class::OtherNew,
            older: 0,
            newer: 0,
        });
        self.chunks.push(slots.collect());
        self.free = first;
    }

    fn link_of(&self, hash: u64, key: &Tuple) -> Option<Link> {
        let mut at = self.buckets[self.bucket(hash)];
        while at != 0 {
            let slot = self.slot(at);
            if slot.hash == hash && slot.flow.as_ref().is_some_and(|flow| flow.tuple.normal() == *key) {
                return Some(at);
            }
            at = slot.chain;
        }
        None
    }

    fn unlist(&mut self, link: Link) {
        let (class, older, newer) = {
            let slot = self.slot(link);
            (slot.class as usize, slot.older, slot.newer)
        };
        match older {
            0 => self.lists[class].oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
        match newer {
            0 => self.lists[class].newest = older,
            newer => self.slot_mut(newer).older = older,
        }
    }

    fn enlist(&mut self, link: Link, class: Class) {
        let newest = self.lists[class as usize].newest;
        let slot = self.slot_mut(link);
        slot.class = class;
        slot.older = newest;
        slot.newer = 0;
        match newest {
            0 => self.lists[class as usize].oldest = link,
            newest => self.slot_mut(newest).newer = link,
        }
        self.lists[class as usize].newest = link;
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    // Links come from this table alone, never from a packet: a bad one is our own fault and may panic.
    fn slot(&self, link: Link) -> &Slot<S> {
        let at = link as usize - 1;
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn slot_mut(&mut self, link: Link) -> &mut Slot<S> {
        let at = link as usize - 1;
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }
}

fn direction<S>(flow: &Flow<S>, tuple: &Tuple) -> Direction {
    if tuple.src == flow.tuple.src && tuple.dst == flow.tuple.dst { Direction::ToServer } else { Direction::ToClient }
}

/// Whether the first packet's source is the client, what is known of the handshake, and whether it was seen.
fn roles(tuple: &Tuple, packet: &Packet<'_>, origin: &mut impl Origin) -> (bool, Option<super::Handshake>, bool) {
    let Some(tcp) = packet.tcp() else { return (true, None, false) };
    if tcp.flags.syn() {
        if !tcp.flags.ack() {
            return (true, None, true);
        }
        // Who opened answers nobody: a client that sends such a segment wants to be taken for the server.
        return match origin.handshake(tuple).filter(|handshake| handshake.source_is_client) {
            Some(handshake) => (true, Some(handshake), true),
            None => (false, None, false),
        };
    }
    match origin.handshake(tuple) {
        Some(handshake) => (handshake.source_is_client, Some(handshake), true),
        // Servers listen below the ephemeral ports.
        None => (tuple.src.port >= tuple.dst.port, None, false),
    }
}
