//! One direction of a connection: where it stands, what waits, what was handed out last.
//!
//! Sequence numbers are turned into *positions*, which do not wrap: position `BASE` is the direction's first
//! byte. What lies before it (keep-alives, what was sent before a midstream pickup) still has a position.

use bulkhead_model::Timestamp;

use super::ofo::{Inserted, Ofo};
use super::ring::{Compared, Ring};
use super::{Budget, Ignored, Refused, SegmentOutcome, StreamConfig, StreamEnd, StreamSink, StreamStats, UrgentPolicy};
use crate::decode::Tcp;
use crate::flow::Direction;

/// INVARIANT: `next >= BASE`, and a sequence number is at most 2^31 away from `next`: no position is negative.
const BASE: u64 = 1 << 33;

/// The largest window there is: 65535 << 14 (RFC 7323, section 2.3).
const WINDOW_MAX: u64 = 1 << 30;

/// `TCP_PAWS_WINDOW` and `TCP_PAWS_24DAYS` (include/net/tcp.h).
const PAWS_WINDOW: i32 = 1;
const PAWS_SECS_MAX: u64 = 60 * 60 * 24 * 24;

/// Urgent bytes that an enforcing caller lets through per direction. Of one, Linux' reading is certain; of a
/// second it depends on how fast the program reads.
const URGENT_MARKS_MAX: u32 = 1;

/// How long a hole may stay where bytes may have passed unseen. A sender repeats a lost segment after 0.2 to
/// 1 s (`TCP_RTO_MIN`, `TCP_TIMEOUT_INIT`).
const HOLE_NANOS_MAX: u64 = 2_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Half {
    started: bool,
    /// By a SYN or by a handshake that the caller knows of.
    saw_syn: bool,
    /// Started by what the other side acknowledges: the first byte that really comes decides.
    guess: bool,
    /// Bytes may have passed before, or in between, unseen.
    partial: bool,
    /// Bytes passed unseen just now: the next segment says where the stream stands.
    resync: bool,
    stopped: bool,
    ended: bool,
    /// The sequence number of position `BASE`.
    first_seq: u32,
    /// Another SYN's first sequence number: which of the two counts is not known yet.
    also_first_seq: Option<u32>,
    /// The receiver's `rcv_nxt`, if all that passed has arrived.
    next: u64,
    /// After the highest byte or FIN seen.
    highest: u64,
    /// What the other side has acknowledged.
    acked: u64,
    /// Right edge of the window the other side has granted; 0 when it is not known.
    edge: u64,
    window_max: u64,
    /// Bytes handed out, gaps included and urgent bytes left out.
    offset: u64,
    gap_bytes: u64,
    /// Position of the FIN, once it was taken in order.
    fin: Option<u64>,
    /// The same, once it was seen.
    fin_seen: Option<u64>,
    urgent: Option<u64>,
    /// The same, also when it was left out already.
    last_mark: Option<u64>,
    urgent_marks: u32,
    syn_timestamp: bool,
    /// (TSval, when it came): `ts_recent` of the receiver.
    timestamp: Option<(u32, Timestamp)>,
    /// What the last call handed out, and what was condemned.
    last_run: (u64, u64),
    condemned: Option<(u64, u64)>,
    /// When the first of the waiting segments came.
    waiting_since: Timestamp,
    ofo: Ofo,
    ring: Ring,
}

impl Half {
    pub(super) const fn is_started(&self) -> bool {
        self.started
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.fin.is_some()
    }

    pub(super) const fn is_partial(&self) -> bool {
        self.partial
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.ofo.is_empty()
    }

    pub(super) const fn saw_syn(&self) -> bool {
        self.saw_syn
    }

    /// Nothing was handed out and no SYN was seen: a SYN may still say where it begins.
    pub(super) const fn may_restart(&self) -> bool {
        !self.saw_syn && self.offset == 0
    }

    pub(super) const fn syn_had_timestamp(&self) -> bool {
        self.syn_timestamp
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn gap_bytes(&self) -> u64 {
        self.gap_bytes
    }

    /// Whether `seq` is where it began.
    pub(super) const fn begins_at(&self, seq: u32) -> bool {
        self.started && self.first_seq == seq
    }

    pub(super) const fn start_at(&mut self, seq: u32) {
        self.started = true;
        self.guess = false;
        self.also_first_seq = None;
        self.first_seq = seq;
        self.next = BASE;
        self.highest = BASE;
        self.acked = BASE;
    }

    /// `acked`: because the other side acknowledges everything before.
    pub(super) const fn start_guessed(&mut self, seq: u32, acked: bool) {
        self.start_at(seq);
        if !acked {
            self.acked = 0;
        }
        self.guess = true;
        self.partial = true;
    }

    pub(super) const fn take_syn(&mut self, tcp: &Tcp<'_>) {
        self.saw_syn = true;
        self.partial = false;
        self.syn_timestamp = tcp.options.timestamp.is_some();
    }

    pub(super) const fn known_syn(&mut self) {
        self.saw_syn = true;
    }

    pub(super) const fn also_syn(&mut self, seq: u32) {
        self.also_first_seq = Some(seq);
    }

    /// If `seq` continues the other of two SYNs, that one counts.
    pub(super) fn choose_syn(&mut self, seq: u32) {
        if self.also_first_seq == Some(seq) && self.offset == 0 && self.first_seq != seq {
            self.start_at(seq);
        }
    }

    /// Whether a SYN/ACK with this number answers our SYN, or data that went with it.
    pub(super) fn syn_is_acked_by(&mut self, ack: u32) -> bool {
        if !self.started {
            return false;
        }
        self.choose_syn(ack);
        self.acks_sent(ack)
    }

    pub(super) fn acks_sent(&self, ack: u32) -> bool {
        (BASE..=self.highest).contains(&self.position(ack))
    }

    /// RFC 5961, section 3.2, and `tcp_reset_check`: the very next number, the last one after a FIN, or the
    /// right edge of what was received selectively.
    pub(super) fn resets_at(&self, seq: u32) -> bool {
        if !self.started || self.guess || self.stopped {
            return true;
        }
        let at = self.position(seq);
        at == self.next || (self.fin.is_some() && at + 1 == self.next) || self.ofo.end() == Some(at)
    }

    /// RFC 7323, section 5.3, as in `tcp_paws_check`.
    pub(super) fn is_too_old(&self, now: Timestamp, tcp: &Tcp<'_>) -> bool {
        match (self.timestamp, tcp.options.timestamp) {
            (Some((recent, at)), Some((value, _))) => {
                recent.wrapping_sub(value) as i32 > PAWS_WINDOW && recent != 0 && now.since(at) / 1_000_000_000 < PAWS_SECS_MAX
            }
            (None, _) | (_, None) => false,
        }
    }

    /// Whether a segment is the very next and nothing waits: Linux' header prediction may take it.
    pub(super) fn is_predicted(&self, tcp: &Tcp<'_>) -> bool {
        self.ofo.is_empty() && self.position(tcp.seq) == self.next
    }

    /// Whether a segment's time stamp is to be remembered: `tcp_replace_ts_recent`.
    pub(super) fn takes_timestamp(&self, tcp: &Tcp<'_>) -> bool {
        !self.started || self.guess || self.position(tcp.seq) <= self.next
    }

    pub(super) fn take_timestamp(&mut self, now: Timestamp, tcp: &Tcp<'_>) {
        if let Some((value, _)) = tcp.options.timestamp
            && self.timestamp.is_none_or(|(recent, _)| recent.wrapping_sub(value) as i32 <= 0 || self.is_outdated(now))
        {
            self.timestamp = Some((value, now));
        }
    }

    fn is_outdated(&self, now: Timestamp) -> bool {
        self.timestamp.is_some_and(|(_, at)| now.since(at) / 1_000_000_000 >= PAWS_SECS_MAX)
    }

    /// The other side grants a window. `shift` is its scale.
    pub(super) fn take_window(&mut self, tcp: &Tcp<'_>, shift: u8) {
        if self.started && tcp.flags.ack() {
            let window = u64::from(tcp.window) << shift.min(14);
            self.edge = self.edge.max(self.position(tcp.ack) + window);
            self.window_max = self.window_max.max(window);
        }
    }

    /// The other side acknowledges bytes of this direction, with a segment that is `in_order` on its own.
    #[allow(clippy::too_many_arguments)] // See `TcpStream::segment`.
    pub(super) fn take_ack(
        &mut self,
        dir: Direction,
        ack: u32,
        in_order: bool,
        enforce: bool,
        config: &StreamConfig,
        stats: &mut StreamStats,
        budget: &mut Budget,
        sink: &mut impl StreamSink,
    ) -> Result<(), Ignored> {
        if self.stopped || !self.started {
            return Ok(());
        }
        let at = self.position(ack);
        if self.guess {
            self.start_guessed(ack, true);
            return Ok(());
        }
        // In a capture, segments may have been missed; on a live path all of them come by.
        if at > self.highest && !self.partial && (enforce || !config.acks_seen) {
            return Err(Ignored::AckUnsent);
        }
        let slack = if config.acks_seen && self.window_max > 0 { self.window_max.max(1 << 16) } else { WINDOW_MAX };
        // Linux discards it in its slow path (`tcp_ack`) and takes it in its fast path
        // (`tcp_rcv_established`, which ignores what `tcp_ack` says).
        if at + slack < self.acked && (enforce || !in_order) {
            return Err(Ignored::AckTooOld);
        }
        if at > self.next {
            // The receiver has what we have not: it went past us.
            self.catch_up(dir, at, config, stats, budget, sink);
        }
        self.acked = self.acked.max(at);
        Ok(())
    }

    pub(super) fn acknowledged(&mut self, ack: u32) {
        if self.started && !self.guess && !self.stopped {
            let at = self.position(ack);
            self.acked = self.acked.max(at.min(self.next));
        }
    }

    /// A segment, from its sequence number on. `tcp_data_queue`.
    #[allow(clippy::too_many_arguments)] // See `TcpStream::segment`.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        dir: Direction,
        tcp: &Tcp<'_>,
        payload: &[u8],
        enforce: bool,
        config: &StreamConfig,
        stats: &mut StreamStats,
        budget: &mut Budget,
        sink: &mut impl StreamSink,
    ) -> SegmentOutcome {
        self.last_run = (self.next, self.next);
        let fin = tcp.flags.fin();
        if self.stopped {
            if fin {
                self.fin = Some(self.next);
            }
            return SegmentOutcome::Accept { delivered: 0 };
        }
        if self.guess && (!payload.is_empty() || fin) {
            // Picked up here. `partial` stays: what was in flight before may still arrive.
            let acked = (self.acked > 0).then_some(self.first_seq);
            self.start_at(tcp.seq);
            self.acked = acked.map_or(0, |seq| self.position(seq));
            self.last_run = (self.next, self.next);
        }
        let start = self.position(tcp.seq) + u64::from(tcp.flags.syn());
        if self.resync && (!payload.is_empty() || fin) {
            self.resync = false;
            if start > self.next && start <= self.next + WINDOW_MAX {
                self.catch_up(dir, start, config, stats, budget, sink);
            }
        }
        let data_end = start + payload.len() as u64;
        let end = data_end + u64::from(fin);
        let urgent = match self.urgent_mark(tcp, enforce, config.urgent) {
            Ok(mark) => mark,
            Err(refused) => return SegmentOutcome::Refused(refused),
        };
        // `tcp_urg` comes before the bytes are looked at, and behind `tcp_sequence`: whether a segment that is not the next one
        // gets there depends on what the receiver has acknowledged, and on its window.
        // It may also lack what was judged and then lost.
        let mark = self.position(tcp.seq) + u64::from(tcp.urgent.saturating_sub(1));
        let is_next = start <= self.next && (end > self.next || start == self.next);
        let is_certain = if urgent.is_some() { is_next } else { mark < self.acked || self.last_mark == Some(mark) };
        if enforce && tcp.flags.urg() && config.urgent == UrgentPolicy::OutOfBand && !is_certain {
            return SegmentOutcome::Refused(Refused::Urgent);
        }
        let urgent = urgent.filter(|_| end >= self.acked);
        if end == start {
            self.mark_urgent(urgent);
            return SegmentOutcome::Accept { delivered: 0 };
        }
        if enforce
            && let Some((from, to)) = self.condemned
            && start < to
            && end > from
        {
            return SegmentOutcome::Condemned;
        }
        // Where the stream ends must not change either, or the receiver reads less than was judged.
        let moves_fin = match self.fin_seen {
            Some(at) => data_end > at || (fin && data_end != at),
            None => fin && data_end < self.highest,
        };
        if enforce && moves_fin && self.fin.is_none_or(|at| data_end <= at) {
            return SegmentOutcome::Conflict { acked: end <= self.acked };
        }
        if end <= self.next {
            self.mark_urgent(urgent);
            return self.repeated(start, payload);
        }
        if self.fin.is_some() {
            return SegmentOutcome::Ignored(Ignored::AfterFin);
        }
        if start > self.next + WINDOW_MAX || (config.acks_seen && self.edge > 0 && start >= self.edge + self.window_max) {
            return SegmentOutcome::Ignored(Ignored::OutOfWindow);
        }
        if start > self.next {
            let conflict = self.ofo.differs(start, payload);
            if conflict && enforce {
                return SegmentOutcome::Conflict { acked: false };
            }
            let first = self.ofo.is_empty();
            match self.ofo.insert(start, payload, fin, config.ofo_bytes_max, config.ofo_segments_max, budget) {
                Inserted::Kept | Inserted::Present => {
                    if first {
                        self.waiting_since = now;
                    }
                    self.note(end, fin);
                    self.mark_urgent(urgent);
                    let may_skip = self.partial || !(enforce || config.acks_seen);
                    if may_skip && now.since(self.waiting_since) > HOLE_NANOS_MAX {
                        let to = self.ofo.first().unwrap_or(start);
                        self.catch_up(dir, to, config, stats, budget, sink);
                        self.drain(dir, config, stats, budget, sink);
                        self.waiting_since = now;
                    }
                    return if conflict { SegmentOutcome::Conflict { acked: false } } else { SegmentOutcome::Queued };
                }
                Inserted::Full if enforce && !self.partial => return SegmentOutcome::Refused(Refused::Cap),
                // It goes on to the receiver, or the hole may never be filled: give the hole up.
                Inserted::Full => {
                    self.mark_urgent(urgent);
                    self.catch_up(dir, start, config, stats, budget, sink);
                    if end <= self.next || start > self.next {
                        return SegmentOutcome::Queued;
                    }
                }
            }
        }
        // In order, perhaps with a head that is old.
        let old = (self.next - start).min(payload.len() as u64) as usize;
        let (head, tail) = payload.split_at(old);
        let compared = if head.is_empty() { Compared::Equal } else { self.ring.compare(start, head) };
        let different = compared == Compared::Different || (!self.ofo.is_empty() && self.ofo.differs(self.next, tail));
        if enforce {
            if different {
                return SegmentOutcome::Conflict { acked: false };
            }
            if compared == Compared::Forgotten {
                return SegmentOutcome::Unverifiable { acked: self.next <= self.acked };
            }
        }
        self.mark_urgent(urgent);
        let before = self.offset;
        self.deliver(dir, tail, config, stats, budget, sink);
        if fin {
            self.finish(dir, budget, sink);
        }
        self.drain(dir, config, stats, budget, sink);
        self.note(end.max(self.next), fin && end >= self.next);
        self.last_run.1 = self.next;
        if self.is_waiting() {
            self.waiting_since = now;
        }
        if different { SegmentOutcome::Conflict { acked: false } } else { SegmentOutcome::Accept { delivered: self.offset - before } }
    }

    /// Remembers how far the stream was seen to go.
    fn note(&mut self, end: u64, fin: bool) {
        self.highest = self.highest.max(end);
        if fin && self.fin_seen.is_none() {
            self.fin_seen = Some(end - 1);
        }
    }

    /// What a segment that lies wholly before `next` is, `None` when it does not.
    pub(super) fn repeats(&self, seq: u32, payload: &[u8]) -> Option<SegmentOutcome> {
        let start = self.position(seq);
        (self.started && start + payload.len() as u64 <= self.next).then(|| self.repeated(start, payload))
    }

    fn repeated(&self, start: u64, payload: &[u8]) -> SegmentOutcome {
        let data_end = self.fin.unwrap_or(self.next);
        let len = data_end.saturating_sub(start).min(payload.len() as u64) as usize;
        let known = payload.get(..len).unwrap_or_default();
        let acked = start + payload.len() as u64 <= self.acked;
        if known.is_empty() {
            return SegmentOutcome::Retransmission;
        }
        match self.ring.compare(start, known) {
            Compared::Equal => SegmentOutcome::Retransmission,
            Compared::Different => SegmentOutcome::Conflict { acked },
            Compared::Forgotten => SegmentOutcome::Unverifiable { acked },
        }
    }

    pub(super) const fn condemn(&mut self) {
        let (from, to) = self.last_run;
        if from == to {
            return;
        }
        self.condemned = Some(match self.condemned {
            Some((old_from, old_to)) => (if old_from < from { old_from } else { from }, if old_to > to { old_to } else { to }),
            None => (from, to),
        });
    }

    pub(super) fn stop(&mut self, budget: &mut Budget) {
        self.stopped = true;
        self.ofo.free(budget);
        self.ring.free(budget);
    }

    /// Begin anew at the next segment, wherever it is.
    pub(super) const fn lapse(&mut self) {
        if self.started && !self.stopped {
            self.partial = true;
            self.resync = true;
            self.timestamp = None;
        }
    }

    /// Follow it again, from its next segment on: the opposite of `stop`, with a gap before.
    pub(super) const fn resume(&mut self) {
        self.stopped = false;
        self.lapse();
    }

    /// Frees the buffers. Whether the sink has to be told.
    pub(super) fn reset(&mut self, budget: &mut Budget) -> bool {
        self.ofo.free(budget);
        self.ring.free(budget);
        !std::mem::replace(&mut self.ended, true) && !self.stopped
    }

    pub(super) fn flush(
        &mut self,
        dir: Direction,
        config: &StreamConfig,
        stats: &mut StreamStats,
        budget: &mut Budget,
        sink: &mut impl StreamSink,
    ) {
        if let Some(end) = self.ofo.end() {
            self.catch_up(dir, end, config, stats, budget, sink);
        }
        if self.started && self.reset(budget) {
            sink.end(dir, StreamEnd::Flushed);
        }
    }

    fn position(&self, seq: u32) -> u64 {
        let next_seq = self.first_seq.wrapping_add(self.next.wrapping_sub(BASE) as u32);
        self.next.wrapping_add_signed(i64::from(seq.wrapping_sub(next_seq) as i32))
    }

    /// Hands out everything up to `to`, holes as gaps.
    fn catch_up(
        &mut self,
        dir: Direction,
        to: u64,
        config: &StreamConfig,
        stats: &mut StreamStats,
        budget: &mut Budget,
        sink: &mut impl StreamSink,
    ) {
        loop {
            self.drain(dir, config, stats, budget, sink);
            if self.next >= to || self.fin.is_some() {
                break;
            }
            let target = self.ofo.first().map_or(to, |first| first.min(to));
            let len = target - self.next;
            sink.gap(dir, self.offset, len);
            self.next = target;
            self.offset += len;
            self.gap_bytes += len;
            stats.gaps += 1;
            stats.gap_bytes += len;
            self.ring.clear();
        }
        self.highest = self.highest.max(self.next);
    }

    /// `tcp_ofo_queue`.
    fn drain(&mut self, dir: Direction, config: &StreamConfig, stats: &mut StreamStats, budget: &mut Budget, sink: &mut impl StreamSink) {
        while !self.ofo.is_empty()
            && self.fin.is_none()
            && let Some((bytes, fin)) = self.ofo.take(self.next, budget)
        {
            self.deliver(dir, &bytes, config, stats, budget, sink);
            if fin {
                self.finish(dir, budget, sink);
            }
        }
    }

    fn deliver(
        &mut self,
        dir: Direction,
        bytes: &[u8],
        config: &StreamConfig,
        stats: &mut StreamStats,
        budget: &mut Budget,
        sink: &mut impl StreamSink,
    ) {
        if bytes.is_empty() {
            return;
        }
        if !self.ring.push(self.next, bytes, config.ring_bytes_max, budget) {
            stats.ring_denied += 1;
        }
        let at = self.next;
        self.next += bytes.len() as u64;
        let urgent = self.urgent.filter(|mark| (at..self.next).contains(mark)).map(|mark| (mark - at) as usize);
        let runs = match urgent {
            Some(mark) => {
                self.urgent = None;
                [bytes.get(..mark), bytes.get(mark + 1..)]
            }
            None => [Some(bytes), None],
        };
        for run in runs.into_iter().flatten().filter(|run| !run.is_empty()) {
            sink.data(dir, self.offset, run);
            self.offset += run.len() as u64;
            stats.delivered_bytes += run.len() as u64;
        }
    }

    fn finish(&mut self, dir: Direction, budget: &mut Budget, sink: &mut impl StreamSink) {
        self.fin = Some(self.next);
        self.next += 1;
        // `tcp_fin` purges the queue.
        self.ofo.free(budget);
        if !std::mem::replace(&mut self.ended, true) {
            sink.end(dir, StreamEnd::Fin);
        }
    }

    /// The position of a new urgent byte, as `tcp_check_urg` finds it.
    fn urgent_mark(&self, tcp: &Tcp<'_>, enforce: bool, policy: UrgentPolicy) -> Result<Option<u64>, Refused> {
        if !tcp.flags.urg() {
            return Ok(None);
        }
        match policy {
            UrgentPolicy::Inline => Ok(None),
            UrgentPolicy::Refuse if enforce => Err(Refused::Urgent),
            UrgentPolicy::OutOfBand | UrgentPolicy::Refuse => {
                let mark = self.position(tcp.seq) + u64::from(tcp.urgent.saturating_sub(1));
                if mark < self.next || self.urgent.is_some_and(|old| mark <= old) {
                    return Ok(None);
                }
                if enforce && self.urgent_marks >= URGENT_MARKS_MAX {
                    return Err(Refused::Urgent);
                }
                Ok(Some(mark))
            }
        }
    }

    fn mark_urgent(&mut self, mark: Option<u64>) {
        if mark.is_some() {
            self.urgent = mark;
            self.last_mark = mark;
            self.urgent_marks += 1;
        }
    }
}
