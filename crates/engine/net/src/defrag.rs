//! Puts IP fragments together as Linux does: `ip_frag_queue` (net/ipv4/ip_fragment.c), `ip6_frag_queue`
//! (net/ipv6/reassembly.c) and `inet_frag_queue_insert` (net/ipv4/inet_fragment.c).
//!
//! In short: a fragment that lies within a run of adjacent ones is a duplicate and ignored, whatever its
//! bytes; any other overlap discards the whole datagram (RFC 5722, applied to both versions); so do a wrong end
//! and an empty fragment. What was discarded leaves no trace: the next fragment begins anew.
//!
//! Standing in the way needs more than that. Each fragment goes on when it comes; the one that completes the
//! datagram makes it available for inspection and is dropped if it is found bad, so the receiver never
//! completes it. An evader would let us see a fragment that does not arrive (wrong MAC address, spent time to
//! live) and then send another in its place. So, when *enforcing*, the life of a datagram here is longer than
//! at the receiver: once completed, overlapped, or evicted for want of memory, its key stays closed, and all
//! further fragments of it are dropped, until the receiver's own timer has run out.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use bulkhead_model::Timestamp;

use crate::checksum;
use crate::decode::{DecodeEvent, IpVersion, Packet, VlanIds};
use crate::stats::counters;

/// Caps and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefragConfig {
    /// Datagrams being put together (`FRAG_TRACKERS_MAX`).
    pub trackers_max: usize,
    /// Bytes of fragments held, bookkeeping included (`FRAG_BYTES_MAX`); Linux' `ipfrag_high_thresh` is 4 MiB.
    pub bytes_max: usize,
    /// Keys kept closed because a datagram was condemned or evicted. When it is reached, fragments of new
    /// datagrams are refused.
    pub closed_max: usize,
    /// Keys kept closed because a datagram was completed; beyond it the oldest is opened again. Below 65536, so
    /// that a sender whose identification wraps around is not mistaken for an evader.
    pub completed_max: usize,
    /// `net.ipv4.ipfrag_time`
    pub ipv4_secs: u64,
    /// `net.ipv6.ip6frag_time`
    pub ipv6_secs: u64,
    /// `net.ipv4.ipfrag_max_dist`: fragments of other datagrams from one source after which a datagram begins
    /// anew. Followed only when observing. 0 turns it off.
    pub ipv4_max_dist: u32,
}

impl Default for DefragConfig {
    fn default() -> Self {
        Self {
            trackers_max: 8192,
            bytes_max: 4 << 20,
            closed_max: 65_536,
            completed_max: 16_384,
            ipv4_secs: 30,
            ipv6_secs: 60,
            ipv4_max_dist: 64,
        }
    }
}

/// How much longer than the receiver a key is kept when enforcing: the receiver's timer starts after ours.
const ENFORCE_SLACK_SECS: u64 = 5;

/// The largest datagram (`IP_MAX_MTU`, `IPV6_MAXPLEN`).
const DATAGRAM_MAX: usize = 65_535;

/// What one fragment costs besides its bytes.
const PIECE_OVERHEAD: usize = 96;

/// What one datagram costs besides its fragments.
const TRACKER_OVERHEAD: usize = 256;

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defragged<'a> {
    /// The receiver keeps it, and so do we.
    Held,
    /// It completes a datagram: the IP packet, its header set right. Decode it with
    /// [`crate::Decoder::datagram`], judge it, and drop this fragment if it is bad.
    Whole(&'a [u8]),
    /// It repeats what is held, byte for byte.
    Duplicate,
    /// It repeats what is held, with other bytes. The receiver ignores it, if it has the others.
    Conflict,
    /// The receiver discards it, and with it what it has of the datagram.
    Discarded(FragmentFault),
    /// The receiver discards it alone and keeps the rest (IPv6).
    Rejected(FragmentFault),
    /// Its datagram was closed before.
    Closed,
    /// [`DefragConfig::closed_max`] is reached, or the fragment is larger than all memory allowed.
    Refused,
}

impl Defragged<'_> {
    /// Whether an enforcing caller may let the fragment go on; of `Whole`, if the datagram is judged good.
    pub const fn passes(self) -> bool {
        match self {
            Self::Held | Self::Whole(_) | Self::Duplicate => true,
            Self::Conflict | Self::Discarded(_) | Self::Rejected(_) | Self::Closed | Self::Refused => false,
        }
    }
}

impl Defragged<'_> {
    /// What a fragment shows beside others.
    pub const fn event(&self, version: IpVersion) -> Option<DecodeEvent> {
        match (self, version) {
            (Self::Held | Self::Whole(_) | Self::Duplicate | Self::Closed, _) => None,
            (Self::Conflict, _) => Some(FragmentFault::Overlap.event(version)),
            (Self::Refused, IpVersion::V4) => Some(DecodeEvent::Ipv4FragIgnored),
            (Self::Refused, IpVersion::V6) => Some(DecodeEvent::Ipv6FragIgnored),
            (Self::Discarded(fault) | Self::Rejected(fault), _) => Some(fault.event(version)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentFault {
    Overlap,
    /// It ends behind the datagram's end, or names another end.
    End,
    Empty,
    TooLarge,
    /// IPv6: not the last one and not a multiple of eight.
    Unaligned,
    /// IPv6: the first fragment lacks the transport header (RFC 8200, section 4.5).
    HeaderIncomplete,
    /// Fragments that can carry congestion marks are mixed with some that cannot (RFC 3168, section 5.3).
    Ecn,
}

impl FragmentFault {
    /// Suricata's name for it.
    pub const fn event(self, version: IpVersion) -> DecodeEvent {
        match (self, version) {
            (Self::Overlap, IpVersion::V4) => DecodeEvent::Ipv4FragOverlap,
            (Self::Overlap, IpVersion::V6) => DecodeEvent::Ipv6FragOverlap,
            (Self::TooLarge, IpVersion::V4) => DecodeEvent::Ipv4FragPktTooLarge,
            (Self::TooLarge, IpVersion::V6) => DecodeEvent::Ipv6FragPktTooLarge,
            (Self::Unaligned | Self::Empty | Self::End | Self::HeaderIncomplete, IpVersion::V6) => DecodeEvent::Ipv6FragInvalidLength,
            (_, IpVersion::V4) => DecodeEvent::Ipv4FragIgnored,
            (Self::Ecn, IpVersion::V6) => DecodeEvent::Ipv6FragIgnored,
        }
    }
}

counters! {
    pub struct DefragStats {
        ipv4_fragments => "defrag.ipv4.fragments",
        ipv4_reassembled => "defrag.ipv4.reassembled",
        ipv6_fragments => "defrag.ipv6.fragments",
        ipv6_reassembled => "defrag.ipv6.reassembled",
        timeouts => "defrag.timeouts",
        duplicates => "defrag.duplicates",
        conflicts => "defrag.conflicts",
        overlaps => "defrag.overlaps",
        /// Other faults.
        discarded => "defrag.discarded",
        rejected => "defrag.rejected",
        /// Fragments of closed datagrams.
        closed => "defrag.closed",
        refused => "defrag.refused",
        evicted_trackers => "defrag.evicted.trackers_max",
        evicted_bytes => "defrag.evicted.bytes_max",
        /// Completed keys opened again before their time.
        completed_forgotten => "defrag.completed_forgotten",
        /// Begun anew because of [`DefragConfig::ipv4_max_dist`].
        too_far => "defrag.ipv4.too_far",
    }
}

/// All datagrams in pieces.
#[derive(Debug)]
pub struct Defrag {
    config: DefragConfig,
    /// A sorted map: its order cannot be attacked as a hash table's can.
    entries: BTreeMap<Key, Entry>,
    /// Entries by the time at which they are forgotten, then by age.
    deadlines: BTreeMap<(Timestamp, u64), Key>,
    /// Datagrams being put together, oldest first; may name some that are gone.
    trackers: VecDeque<(u64, Key)>,
    /// The same for completed keys.
    completed: VecDeque<(u64, Key)>,
    /// Fragments seen per source, for sources with open trackers: (fragments, open trackers).
    sources: BTreeMap<(u32, IpAddr, IpAddr), (u32, u32)>,
    tracker_count: usize,
    completed_count: usize,
    bytes: usize,
    serial: u64,
    whole: Vec<u8>,
    pub stats: DefragStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    zone: u32,
    id: u32,
    src: IpAddr,
    dst: IpAddr,
    /// IPv4 only; IPv6 does not ask (RFC 8200, section 4.5).
    proto: u8,
    vlan: VlanIds,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    deadline: Timestamp,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Tracker),
    /// Condemned or evicted.
    Closed,
    Completed,
}

/// INVARIANT: `pieces` do not overlap; `runs` are made of them; `meat` is the sum of their lengths.
#[derive(Debug, Default)]
struct Tracker {
    /// By offset.
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Start and end of what Linux keeps as one node: fragments that came one behind the other at the end.
    runs: BTreeMap<u32, u32>,
    meat: u32,
    /// Highest end seen: of the datagram once the last fragment is in.
    len: u32,
    first_in: bool,
    last_in: bool,
    /// One bit per ECN value seen.
    ecn: u8,
    /// The first fragment's headers.
    header: Vec<u8>,
    proto_at: usize,
    proto: u8,
    /// The source's fragment count at this datagram's last fragment.
    seen_at: u32,
    /// What it costs in `Defrag::bytes`.
    cost: usize,
}

enum Insert {
    Kept,
    Duplicate { same: bool },
    Overlap,
}

impl Defrag {
    pub fn new(config: DefragConfig) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            trackers: VecDeque::new(),
            completed: VecDeque::new(),
            sources: BTreeMap::new(),
            tracker_count: 0,
            completed_count: 0,
            bytes: 0,
            serial: 0,
            whole: Vec::new(),
            stats: DefragStats::default(),
        }
    }

    /// Bytes of fragments held, bookkeeping included.
    pub const fn memory(&self) -> usize {
        self.bytes
    }

    /// Datagrams being put together.
    pub const fn len(&self) -> usize {
        self.tracker_count
    }

    pub const fn is_empty(&self) -> bool {
        self.tracker_count == 0
    }

    /// Takes a fragment ([`crate::decode::Ip::fragment`] is set) whose header checksum is not known to be
    /// wrong. `enforce`: the caller drops what does not [`Defragged::passes`].
    pub fn fragment(&mut self, now: Timestamp, zone: u32, packet: &Packet<'_>, enforce: bool) -> Defragged<'_> {
        self.expire(now);
        let Some(fragment) = packet.ip.fragment else { return Defragged::Refused };
        let key = Key {
            zone,
            id: packet.ip.id,
            src: packet.ip.src,
            dst: packet.ip.dst,
            proto: match packet.ip.version {
                IpVersion::V4 => packet.ip.proto,
                IpVersion::V6 => 0,
            },
            vlan: packet.vlan,
        };
        match packet.ip.version {
            IpVersion::V4 => self.stats.ipv4_fragments += 1,
            IpVersion::V6 => self.stats.ipv6_fragments += 1,
        }
        let payload = packet.ip.payload;
        let mut end = fragment.offset + payload.len() as u32;
        match packet.ip.version {
            // Trailing bytes of a fragment that is not the last are cut off.
            IpVersion::V4 if fragment.more => end &= !7,
            IpVersion::V4 => {}
            IpVersion::V6 => {
                let fault = if end as usize > DATAGRAM_MAX {
                    Some(FragmentFault::TooLarge)
                } else if fragment.offset == 0 && lacks_transport_header(packet.ip.proto, payload) {
                    Some(FragmentFault::HeaderIncomplete)
                } else if fragment.more && !end.is_multiple_of(8) {
                    Some(FragmentFault::Unaligned)
                } else {
                    None
                };
                if let Some(fault) = fault {
                    self.stats.rejected += 1;
                    return Defragged::Rejected(fault);
                }
            }
        }
        match self.entries.get(&key).map(|entry| &entry.state) {
            Some(State::Closed | State::Completed) if enforce => {
                self.stats.closed += 1;
                return Defragged::Closed;
            }
            Some(State::Open(_)) => {}
            // Left over from a time of enforcing.
            Some(State::Closed | State::Completed) => {
                self.remove(&key);
                self.open(now, key, packet.ip.version, enforce);
            }
            None => {
                let closed = self.entries.len() - self.tracker_count - self.completed_count;
                if enforce && closed >= self.config.closed_max {
                    self.stats.refused += 1;
                    return Defragged::Refused;
                }
                self.open(now, key, packet.ip.version, enforce);
            }
        }
        let piece = payload.get(..end.saturating_sub(fragment.offset) as usize).unwrap_or_default();
        if !self.make_room(piece.len() + PIECE_OVERHEAD + packet.ip.header.len(), &key, enforce) {
            self.stats.refused += 1;
            self.close(&key, enforce);
            return Defragged::Refused;
        }
        self.follow_distance(&key, enforce);
        let Some(Entry { state: State::Open(tracker), .. }) = self.entries.get_mut(&key) else {
            return Defragged::Refused;
        };
        let before = tracker.cost;
        let inserted = tracker.insert(fragment.offset, end, fragment.more, piece);
        if let Ok(Insert::Kept) = inserted {
            tracker.ecn |= 1 << (packet.ip.tos & 3);
            if fragment.offset == 0 {
                tracker.first_in = true;
                tracker.header = packet.ip.header.to_vec();
                tracker.proto_at = fragment.proto_at;
                tracker.proto = packet.ip.proto;
                tracker.cost += tracker.header.len();
            }
        }
        self.bytes += tracker.cost - before;
        match inserted {
            Ok(Insert::Kept) => {
                if tracker.is_complete() {
                    return self.complete(&key, packet.ip.version, enforce);
                }
                Defragged::Held
            }
            Ok(Insert::Duplicate { same: true }) => {
                self.stats.duplicates += 1;
                Defragged::Duplicate
            }
            Ok(Insert::Duplicate { same: false }) => {
                self.stats.conflicts += 1;
                Defragged::Conflict
            }
            Ok(Insert::Overlap) => {
                self.stats.overlaps += 1;
                self.close(&key, enforce);
                Defragged::Discarded(FragmentFault::Overlap)
            }
            Err(fault) => {
                self.stats.discarded += 1;
                self.close(&key, enforce);
                Defragged::Discarded(fault)
            }
        }
    }

    /// Forgets what has timed out. Called by [`Self::fragment`] too.
    pub fn expire(&mut self, now: Timestamp) {
        while let Some(((deadline, _), key)) = self.deadlines.first_key_value() {
            if *deadline > now {
                break;
            }
            let key = *key;
            if let Some(State::Open(_)) = self.entries.get(&key).map(|entry| &entry.state) {
                self.stats.timeouts += 1;
            }
            self.remove(&key);
        }
    }

    /// Forgets everything: shutdown, or the end of a capture.
    pub fn clear(&mut self) {
        self.stats.timeouts += self.entries.values().filter(|entry| matches!(entry.state, State::Open(_))).count() as u64;
        self.entries.clear();
        self.deadlines.clear();
        self.trackers.clear();
        self.completed.clear();
        self.sources.clear();
        self.whole = Vec::new();
        (self.tracker_count, self.completed_count, self.bytes) = (0, 0, 0);
    }

    fn complete(&mut self, key: &Key, version: IpVersion, enforce: bool) -> Defragged<'_> {
        let mut whole = std::mem::take(&mut self.whole);
        let built = match self.entries.get(key).map(|entry| &entry.state) {
            Some(State::Open(tracker)) => tracker.build(version, &mut whole),
            Some(State::Closed | State::Completed) | None => Err(FragmentFault::Empty),
        };
        self.whole = whole;
        match built {
            Ok(()) => {
                match version {
                    IpVersion::V4 => self.stats.ipv4_reassembled += 1,
                    IpVersion::V6 => self.stats.ipv6_reassembled += 1,
                }
                if enforce {
                    self.close_completed(key);
                } else {
                    self.remove(key);
                }
                Defragged::Whole(&self.whole)
            }
            Err(fault) => {
                self.stats.discarded += 1;
                self.close(key, enforce);
                Defragged::Discarded(fault)
            }
        }
    }

    fn open(&mut self, now: Timestamp, key: Key, version: IpVersion, enforce: bool) {
        if self.tracker_count >= self.config.trackers_max {
            self.stats.evicted_trackers += 1;
            self.evict(None, enforce);
        }
        let secs = match version {
            IpVersion::V4 => self.config.ipv4_secs,
            IpVersion::V6 => self.config.ipv6_secs,
        };
        let secs = secs + if enforce { ENFORCE_SLACK_SECS } else { 0 };
        let deadline = Timestamp(now.0.saturating_add(secs.saturating_mul(1_000_000_000)));
        self.serial += 1;
        let tracker = Tracker { cost: TRACKER_OVERHEAD, ..Tracker::default() };
        self.bytes += tracker.cost;
        self.tracker_count += 1;
        self.deadlines.insert((deadline, self.serial), key);
        self.trackers.push_back((self.serial, key));
        self.entries.insert(key, Entry { serial: self.serial, deadline, state: State::Open(tracker) });
        self.sources.entry((key.zone, key.src, key.dst)).or_default().1 += 1;
    }

    /// Evicts until `cost` fits, sparing `key`. False when it cannot fit.
    fn make_room(&mut self, cost: usize, key: &Key, enforce: bool) -> bool {
        while self.bytes + cost > self.config.bytes_max {
            self.stats.evicted_bytes += 1;
            if !self.evict(Some(key), enforce) {
                return false;
            }
        }
        true
    }

    /// Closes the oldest datagram. False when there is none.
    fn evict(&mut self, spare: Option<&Key>, enforce: bool) -> bool {
        let mut spared = None;
        while let Some((serial, key)) = self.trackers.pop_front() {
            let is_open = self.entries.get(&key).is_some_and(|entry| entry.serial == serial && matches!(entry.state, State::Open(_)));
            if !is_open {
                continue;
            }
            if spare == Some(&key) {
                spared = Some((serial, key));
                continue;
            }
            if let Some(spared) = spared {
                self.trackers.push_front(spared);
            }
            self.close(&key, enforce);
            return true;
        }
        if let Some(spared) = spared {
            self.trackers.push_front(spared);
        }
        false
    }

    /// Gives a datagram up. When enforcing its key stays closed.
    fn close(&mut self, key: &Key, enforce: bool) {
        if !enforce {
            self.remove(key);
            return;
        }
        self.release(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = State::Closed;
        }
    }

    fn close_completed(&mut self, key: &Key) {
        self.release(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.state = State::Completed;
        self.completed.push_back((entry.serial, *key));
        self.completed_count += 1;
        while self.completed_count > self.config.completed_max
            && let Some((serial, key)) = self.completed.pop_front()
        {
            if self.entries.get(&key).is_some_and(|entry| entry.serial == serial) {
                self.stats.completed_forgotten += 1;
                self.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        self.release(key);
        if let Some(entry) = self.entries.remove(key) {
            self.deadlines.remove(&(entry.deadline, entry.serial));
            if matches!(entry.state, State::Completed) {
                self.completed_count -= 1;
            }
        }
        // The queues name what is gone until it comes to their front; keep them in proportion.
        prune(&mut self.trackers, &self.entries, self.tracker_count);
        prune(&mut self.completed, &self.entries, self.completed_count);
    }

    /// Takes an open tracker's memory out of the account. The entry is left for the caller to change.
    fn release(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let State::Open(tracker) = &mut entry.state else { return };
        self.bytes -= tracker.cost;
        *tracker = Tracker::default();
        // INVARIANT: the caller removes the entry or gives it another state.
        entry.state = State::Closed;
        self.tracker_count -= 1;
        let source = (key.zone, key.src, key.dst);
        if let Some((_, open)) = self.sources.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// `ip_frag_too_far` and `ip_frag_reinit`: when too many other fragments came from the same source since
    /// this datagram's last one, it begins anew. IPv4 only.
    fn follow_distance(&mut self, key: &Key, enforce: bool) {
        let max = self.config.ipv4_max_dist;
        if max == 0 || key.src.is_ipv6() {
            return;
        }
        let Some((count, _)) = self.sources.get_mut(&(key.zone, key.src, key.dst)) else { return };
        *count = count.wrapping_add(1);
        let count = *count;
        let Some(Entry { state: State::Open(tracker), .. }) = self.entries.get_mut(key) else { return };
        if !enforce && !tracker.pieces.is_empty() && count.wrapping_sub(tracker.seen_at) > max {
            self.bytes -= tracker.cost;
            *tracker = Tracker { cost: TRACKER_OVERHEAD, ..Tracker::default() };
            self.bytes += tracker.cost;
            self.stats.too_far += 1;
        }
        tracker.seen_at = count;
    }
}

/// Drops names of entries that are gone once they outnumber the others.
fn prune(queue: &mut VecDeque<(u64, Key)>, entries: &BTreeMap<Key, Entry>, live: usize) {
    if queue.len() > 2 * live + 64 {
        queue.retain(|(serial, key)| entries.get(key).is_some_and(|entry| entry.serial == *serial));
    }
}

impl Tracker {
    fn is_complete(&self) -> bool {
        self.first_in && self.last_in && self.meat == self.len
    }

    fn insert(&mut self, offset: u32, end: u32, more: bool, bytes: &[u8]) -> Result<Insert, FragmentFault> {
        if more {
            if end > self.len {
                if self.last_in {
                    return Err(FragmentFault::End);
                }
                self.len = end;
            }
        } else {
            if end < self.len || (self.last_in && end != self.len) {
                return Err(FragmentFault::End);
            }
            self.last_in = true;
            self.len = end;
        }
        if end <= offset {
            return Err(FragmentFault::Empty);
        }
        let last_run = self.runs.last_key_value().map(|(start, end)| (*start, *end));
        match last_run {
            None => {
                self.runs.insert(offset, end);
            }
            // Behind the last fragment.
            Some((start, last)) if last < end => {
                if offset < last {
                    return Ok(Insert::Overlap);
                }
                let start = if offset == last { start } else { offset };
                self.runs.insert(start, end);
            }
            Some(_) => {
                let before = self.runs.range(..=offset).next_back().filter(|(_, end)| **end > offset);
                match before.or_else(|| self.runs.range(offset..end).next()) {
                    Some((start, last)) if offset >= *start && end <= *last => {
                        return Ok(Insert::Duplicate { same: self.holds(offset, bytes) });
                    }
                    Some(_) => return Ok(Insert::Overlap),
                    None => {
                        self.runs.insert(offset, end);
                    }
                }
            }
        }
        self.pieces.insert(offset, bytes.to_vec());
        self.meat += bytes.len() as u32;
        self.cost += bytes.len() + PIECE_OVERHEAD;
        Ok(Insert::Kept)
    }

    /// Whether the bytes at `offset`, which lie within a run, are these.
    fn holds(&self, offset: u32, bytes: &[u8]) -> bool {
        let first = self.pieces.range(..=offset).next_back().map_or(offset, |(start, _)| *start);
        let held = self
            .pieces
            .range(first..offset + bytes.len() as u32)
            .flat_map(|(start, piece)| piece.get(offset.saturating_sub(*start) as usize..).unwrap_or_default());
        held.take(bytes.len()).eq(bytes)
    }

    /// `ip_frag_reasm`, `ip6_frag_reasm`: the first fragment's headers with the fragment header taken out, and
    /// all bytes.
    fn build(&self, version: IpVersion, whole: &mut Vec<u8>) -> Result<(), FragmentFault> {
        // `ip_frag_ecn_table`: not capable of it, mixed with anything else.
        if self.ecn & 1 != 0 && self.ecn != 1 {
            return Err(FragmentFault::Ecn);
        }
        let fixed = match version {
            IpVersion::V4 => 0,
            IpVersion::V6 => 40,
        };
        let total = self.header.len() + self.len as usize;
        if total - fixed > DATAGRAM_MAX {
            return Err(FragmentFault::TooLarge);
        }
        whole.clear();
        whole.reserve(total);
        whole.extend_from_slice(&self.header);
        for piece in self.pieces.values() {
            whole.extend_from_slice(piece);
        }
        let len = ((total - fixed) as u16).to_be_bytes();
        let patch = |whole: &mut [u8], at: usize, bytes: &[u8]| {
            if let Some(field) = whole.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        match version {
            IpVersion::V4 => {
                patch(whole, 2, &len);
                patch(whole, 6, &[0, 0]);
                patch(whole, 10, &[0, 0]);
                let sum = !checksum::sum(whole.get(..self.header.len()).unwrap_or_default(), 0);
                patch(whole, 10, &sum.to_be_bytes());
            }
            IpVersion::V6 => {
                patch(whole, 4, &len);
                patch(whole, self.proto_at, &[self.proto]);
            }
        }
        Ok(())
    }
}

/// `ipv6frag_thdr_truncated`.
fn lacks_transport_header(proto: u8, payload: &[u8]) -> bool {
    let (mut proto, mut at) = (proto, 0usize);
    for _ in 0..crate::decode::EXTENSION_HEADERS_MAX {
        let (next, len) = match (proto, payload.get(at..at + 2)) {
            (0 | 43 | 60 | 135, Some([next, len])) => (*next, usize::from(*len) * 8 + 8),
            (51, Some([next, len])) => (*next, usize::from(*len) * 4 + 8),
            // `ipv6_skip_exthdr` fails: left to the reassembled datagram.
            (0 | 43 | 60 | 135 | 51, _) => return false,
            _ => break,
        };
        proto = next;
        at += len;
    }
    let needed = match proto {
        6 => 20,
        17 | 58 => 8,
        59 => 0,
        _ => 1,
    };
    at + needed > payload.len()
}

#[cfg(test)]
mod tests;
