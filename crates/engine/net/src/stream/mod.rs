//! TCP reassembly for a caller who holds each segment until it is judged.
//!
//! [`Reassembler::segment`] is called once per segment, before it is released. Bytes that continue the stream
//! go to the [`StreamSink`] at once, straight out of the packet where nothing was waiting; a segment that comes
//! early is kept, and handed out when the hole before it is filled. What the call returns says what the
//! receiver will do with the segment, and what an enforcing caller has to do ([`SegmentOutcome`]).
//!
//! Sender and receiver are Linux, most often this very kernel, so the rules are those of
//! `net/ipv4/tcp_input.c`: `tcp_validate_incoming` (PAWS, sequence, RST, SYN), `tcp_ack`, `tcp_urg`,
//! `tcp_data_queue`, `tcp_data_queue_ofo`, `tcp_ofo_queue`. Where our knowledge is less than the receiver's (a
//! live path does not see pure acknowledgements, so windows and what has really arrived are unknown), one rule
//! stands in for all: **bytes that were judged may be sent again only if they are the same.** The last bytes
//! of each direction are kept for that ([`StreamConfig::ring_bytes_max`]). A first copy that never arrives
//! (short time to live, a bad signature, an old time stamp) is therefore of no use to an evader.
//!
//! Two ways of standing in the way:
//! * *enforcing*: the caller drops what is not [`SegmentOutcome::passes`]; nothing of such a segment is taken.
//! * *observing*: everything goes on to the receiver whatever is said here, so the stream follows what Linux
//!   does with it, conflicts included.

mod half;
mod ofo;
mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_model::Timestamp;

use crate::decode::Tcp;
use crate::flow::{Direction, Handshake};
use crate::stats::counters;
use half::Half;

/// What may be configured, with caps. All sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Delivered bytes kept per direction to verify retransmissions; 0 keeps none. Rounded down to a power of
    /// two. 256 KiB hold four superpackets: what is in flight between two containers.
    pub ring_bytes_max: usize,
    /// Out-of-order bytes per direction, bookkeeping included. A sender cannot have more in flight than the
    /// receiver's window, 6 MiB by default (`net.ipv4.tcp_rmem`); 1 MiB is Suricata's order of magnitude.
    pub ofo_bytes_max: usize,
    /// Out-of-order segments per direction.
    pub ofo_segments_max: usize,
    /// All rings and queues of this reassembler together.
    pub memory_bytes_max: u64,
    /// Pure acknowledgements are seen too, as in a capture: receive windows are known and checked.
    pub acks_seen: bool,
    /// Follow connections whose beginning was not seen.
    pub midstream: bool,
    pub urgent: UrgentPolicy,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            ring_bytes_max: 256 << 10,
            ofo_bytes_max: 1 << 20,
            ofo_segments_max: 1024,
            memory_bytes_max: 256 << 20,
            acks_seen: false,
            midstream: true,
            urgent: UrgentPolicy::OutOfBand,
        }
    }
}

/// What the receiving program makes of urgent data: one byte, which Linux takes out of the stream unless the
/// program asked for `SO_OOBINLINE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrgentPolicy {
    /// Linux' default. A second urgent byte before the first was read turns the first into ordinary data, and
    /// when it was read nobody here knows: when enforcing, only one is let through per direction.
    OutOfBand,
    /// As if every program had set `SO_OOBINLINE`.
    Inline,
    /// Refuse segments with the URG flag.
    Refuse,
}

/// Where the bytes go.
pub trait StreamSink {
    /// The next bytes of a direction. `offset` counts from the direction's first byte, gaps included.
    fn data(&mut self, dir: Direction, offset: u64, bytes: &[u8]);

    /// `len` bytes at `offset` will not come.
    fn gap(&mut self, dir: Direction, offset: u64, len: u64);

    /// No more bytes in this direction.
    fn end(&mut self, dir: Direction, how: StreamEnd);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    Fin,
    Reset,
    /// [`Reassembler::flush`] was called: time-out, eviction, end of the capture.
    Flushed,
}

/// What the receiver does with a segment, and what was made of it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentOutcome {
    /// The receiver takes it. `delivered` bytes went to the sink, which may be more than its payload when it
    /// filled a hole, and 0 for a control segment.
    Accept { delivered: u64 },
    /// The receiver keeps it for later, and so do we.
    Queued,
    /// All of its payload was judged before, and is the same.
    Retransmission,
    /// It differs from bytes that were judged at the same place, or from bytes that wait. An enforcing caller
    /// must drop it, unless the receiver has `acked` those bytes (it then discards them; see `Unverifiable`).
    /// When observing, what is new in it was taken all the same.
    Conflict { acked: bool },
    /// It repeats bytes that are no longer kept. Nothing was taken from it when enforcing. `acked`: the
    /// receiver has said that it has them, and will discard these; if the path rules out that somebody else
    /// said so in its name, the segment may pass.
    Unverifiable { acked: bool },
    /// The receiver discards its payload. A segment without payload may pass: it makes the receiver answer,
    /// which peers rely on. One with payload must be dropped when enforcing.
    Ignored(Ignored),
    /// We cannot follow it. An enforcing caller must drop it; the sender will try again.
    Refused(Refused),
    /// It overlaps bytes that the caller has condemned ([`TcpStream::condemn`]): drop it.
    Condemned,
}

/// Why the receiver discards a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Neither ACK nor SYN nor RST (RFC 9293, section 3.10.7.4, fifth check).
    NoAck,
    /// RFC 7323, section 5: the time stamp is older than the last one.
    Paws,
    /// Beyond the receive window.
    OutOfWindow,
    /// It acknowledges what was never sent.
    AckUnsent,
    /// It acknowledges what was acknowledged long ago (RFC 5961, section 5.2).
    AckTooOld,
    /// RFC 5961, section 3.2: a RST whose sequence number is not the very next.
    RstNotExact,
    /// RFC 5961, section 4: a SYN within a connection.
    SynChallenge,
    /// A SYN/ACK or the answer to it does not acknowledge the SYN.
    HandshakeAck,
    /// Signed (TCP MD5 or AO) although the connection is not.
    Signed,
    /// Data behind a FIN.
    AfterFin,
    /// The connection is closed.
    Closed,
    /// No connection is known and it cannot begin one.
    NoSession,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// [`StreamConfig::ofo_bytes_max`], [`StreamConfig::ofo_segments_max`] or
    /// [`StreamConfig::memory_bytes_max`].
    Cap,
    /// See [`UrgentPolicy`].
    Urgent,
}

impl SegmentOutcome {
    /// Whether an enforcing caller may let a segment go on. `payload_len` is the segment's. `Unverifiable` does
    /// not pass; see there.
    pub const fn passes(self, payload_len: usize) -> bool {
        match self {
            Self::Accept { .. } | Self::Queued | Self::Retransmission => true,
            Self::Ignored(_) => payload_len == 0,
            Self::Conflict { .. } | Self::Unverifiable { .. } | Self::Refused(_) | Self::Condemned => false,
        }
    }

    /// The name of Suricata's `stream-event` that stands nearest.
    pub const fn event(self) -> Option<&'static str> {
        match self {
            Self::Accept { .. } | Self::Queued | Self::Condemned => None,
            Self::Retransmission => Some("pkt_retransmission"),
            Self::Conflict { .. } => Some("reassembly_overlap_different_data"),
            Self::Unverifiable { .. } => Some("reassembly_segment_before_base_seq"),
            Self::Refused(Refused::Cap) => Some("reassembly_depth_reached"),
            Self::Refused(Refused::Urgent) => Some("reassembly_urgent_oob_limit_reached"),
            Self::Ignored(ignored) => Some(match ignored {
                Ignored::NoAck => "pkt_broken_ack",
                Ignored::Paws => "pkt_invalid_timestamp",
                Ignored::OutOfWindow => "est_packet_out_of_window",
                Ignored::AckUnsent | Ignored::AckTooOld => "pkt_invalid_ack",
                Ignored::RstNotExact => "rst_invalid_ack",
                Ignored::SynChallenge => "est_syn_resend_diff_seq",
                Ignored::HandshakeAck => "3whs_synack_with_wrong_ack",
                Ignored::Signed => "pkt_broken_ack",
                Ignored::AfterFin => "closewait_pkt_before_last_ack",
                Ignored::Closed => "timewait_ack_wrong_seq",
                Ignored::NoSession => return Some("rst_but_no_session"),
            }),
        }
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing was seen.
    New,
    SynSent,
    SynReceived,
    Established,
    /// One side has sent its FIN.
    Closing,
    /// Both have, or one has reset it.
    Closed,
}

counters! {
    pub struct StreamStats {
        segments => "stream.segments",
        /// Bytes that went to a sink.
        delivered_bytes => "stream.delivered_bytes",
        queued => "stream.out_of_order",
        retransmissions => "stream.retransmissions",
        conflicts => "stream.overlap_different_data",
        unverifiable => "stream.unverifiable",
        condemned => "stream.condemned",
        gaps => "stream.gaps",
        gap_bytes => "stream.gap_bytes",
        midstream => "stream.midstream_pickups",
        /// Times that [`StreamConfig::memory_bytes_max`] kept a ring from growing.
        ring_denied => "stream.ring_denied",
        ignored_no_ack => "stream.ignored.no_ack",
        ignored_paws => "stream.ignored.paws",
        ignored_out_of_window => "stream.ignored.out_of_window",
        ignored_ack_unsent => "stream.ignored.ack_unsent",
        ignored_ack_too_old => "stream.ignored.ack_too_old",
        ignored_rst_not_exact => "stream.ignored.rst_not_exact",
        ignored_syn_challenge => "stream.ignored.syn_challenge",
        ignored_handshake_ack => "stream.ignored.handshake_ack",
        ignored_signed => "stream.ignored.signed",
        ignored_after_fin => "stream.ignored.after_fin",
        ignored_closed => "stream.ignored.closed",
        ignored_no_session => "stream.ignored.no_session",
        refused_cap => "stream.refused.cap",
        refused_urgent => "stream.refused.urgent",
    }
}

/// Memory of rings and queues, counted against one cap. What a stream holds is given back when it is dropped.
#[derive(Debug)]
struct Budget {
    used: Arc<AtomicU64>,
    max: u64,
    mine: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> bool {
        if self.used.load(Ordering::Relaxed).saturating_add(bytes as u64) > self.max {
            return false;
        }
        self.used.fetch_add(bytes as u64, Ordering::Relaxed);
        self.mine += bytes;
        true
    }

    fn give_back(&mut self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.mine -= bytes;
    }

    #[cfg(test)]
    fn with_max(max: u64) -> Self {
        Self { used: Arc::default(), max, mine: 0 }
    }

    #[cfg(test)]
    fn unlimited() -> Self {
        Self::with_max(u64::MAX)
    }

    #[cfg(test)]
    fn mine(&self) -> usize {
        self.mine
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.used.fetch_sub(self.mine as u64, Ordering::Relaxed);
    }
}

/// What all streams of one worker share: the configuration, the budget and the counters.
#[derive(Debug)]
pub struct Reassembler {
    config: StreamConfig,
    used: Arc<AtomicU64>,
    pub stats: StreamStats,
}

/// One TCP connection. Small until payload comes; buffers are allocated when needed and freed at the end.
#[derive(Debug)]
pub struct TcpStream {
    to_server: Half,
    to_client: Half,
    phase: Phase,
    enforce: bool,
    hearsay: bool,
    /// Both SYNs had the option, one had not, or not known.
    timestamps: Option<bool>,
    signed: Option<bool>,
    /// Window shifts of (client, server), once both SYNs were seen.
    scales: Option<(u8, u8)>,
    /// What the SYN of the client offered, until the SYN/ACK comes.
    offered_scale: Option<u8>,
    /// A SYN that came although the connection stands: (sequence number, its direction).
    pending_syn: Option<(u32, Direction)>,
    budget: Budget,
}

impl Reassembler {
    pub fn new(config: StreamConfig) -> Self {
        Self { config, used: Arc::default(), stats: StreamStats::default() }
    }

    pub const fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// Bytes held by all streams now.
    pub fn memory(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A connection of which nothing was seen yet, or whose handshake somebody else saw.
    pub fn open(&self, enforce: bool, handshake: Option<&Handshake>) -> TcpStream {
        let mut stream = TcpStream {
            to_server: Half::default(),
            to_client: Half::default(),
            phase: Phase::New,
            enforce,
            hearsay: false,
            timestamps: None,
            signed: None,
            scales: None,
            offered_scale: None,
            pending_syn: None,
            budget: Budget { used: Arc::clone(&self.used), max: self.config.memory_bytes_max, mine: 0 },
        };
        if let Some(handshake) = handshake {
            if let Some(next) = handshake.client_next {
                stream.to_server.start_at(next);
                stream.to_server.known_syn();
                stream.phase = Phase::SynSent;
            }
            if let Some(next) = handshake.server_next {
                stream.to_client.start_at(next);
                stream.to_client.known_syn();
                stream.phase = Phase::Established;
            }
        }
        stream
    }

    /// Takes one segment of direction `dir` whose checksum is not known to be wrong.
    pub fn segment(
        &mut self,
        stream: &mut TcpStream,
        now: Timestamp,
        dir: Direction,
        tcp: &Tcp<'_>,
        payload: &[u8],
        sink: &mut impl StreamSink,
    ) -> SegmentOutcome {
        self.stats.segments += 1;
        let outcome = stream.segment(&self.config, &mut self.stats, now, dir, tcp, payload, sink);
        self.count(outcome);
        outcome
    }

    /// Hands out what still waits, holes as gaps, and ends both directions: at time-out, eviction or the end of
    /// a capture.
    pub fn flush(&mut self, stream: &mut TcpStream, sink: &mut impl StreamSink) {
        for dir in [Direction::ToServer, Direction::ToClient] {
            let (half, _, budget) = stream.halves(dir);
            half.flush(dir, &self.config, &mut self.stats, budget, sink);
        }
        stream.phase = Phase::Closed;
    }

    fn count(&mut self, outcome: SegmentOutcome) {
        let stats = &mut self.stats;
        let counter = match outcome {
            SegmentOutcome::Accept { .. } => return,
            SegmentOutcome::Queued => &mut stats.queued,
            SegmentOutcome::Retransmission => &mut stats.retransmissions,
            SegmentOutcome::Conflict { .. } => &mut stats.conflicts,
            SegmentOutcome::Unverifiable { .. } => &mut stats.unverifiable,
            SegmentOutcome::Condemned => &mut stats.condemned,
            SegmentOutcome::Refused(Refused::Cap) => &mut stats.refused_cap,
            SegmentOutcome::Refused(Refused::Urgent) => &mut stats.refused_urgent,
            SegmentOutcome::Ignored(ignored) => match ignored {
                Ignored::NoAck => &mut stats.ignored_no_ack,
                Ignored::Paws => &mut stats.ignored_paws,
                Ignored::OutOfWindow => &mut stats.ignored_out_of_window,
                Ignored::AckUnsent => &mut stats.ignored_ack_unsent,
                Ignored::AckTooOld => &mut stats.ignored_ack_too_old,
                Ignored::RstNotExact => &mut stats.ignored_rst_not_exact,
                Ignored::SynChallenge => &mut stats.ignored_syn_challenge,
                Ignored::HandshakeAck => &mut stats.ignored_handshake_ack,
                Ignored::Signed => &mut stats.ignored_signed,
                Ignored::AfterFin => &mut stats.ignored_after_fin,
                Ignored::Closed => &mut stats.ignored_closed,
                Ignored::NoSession => &mut stats.ignored_no_session,
            },
        };
        *counter += 1;
    }
}

impl TcpStream {
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What the keyword `flow:established` asks for.
    pub const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::Closing | Phase::Closed)
    }

    /// Whether segments from here on come from somebody else than the end they name. What they acknowledge is not that end's word.
    pub const fn set_hearsay(&mut self, hearsay: bool) {
        self.hearsay = hearsay;
    }

    /// Switches between enforcing and observing, from the next segment on.
    pub const fn set_enforce(&mut self, enforce: bool) {
        self.enforce = enforce;
    }

    /// Bytes handed out in a direction, gaps included: what depth is measured against.
    pub const fn delivered(&self, dir: Direction) -> u64 {
        self.half(dir).offset()
    }

    /// Bytes of a direction that were skipped.
    pub const fn gap_bytes(&self, dir: Direction) -> u64 {
        self.half(dir).gap_bytes()
    }

    /// Whether bytes of a direction may have passed before it was picked up, or in between: what lies before
    /// the pickup is then [`SegmentOutcome::Unverifiable`] and may be honest.
    pub const fn is_partial(&self, dir: Direction) -> bool {
        self.half(dir).is_partial()
    }

    /// Whether segments wait for a hole to be filled.
    pub fn is_waiting(&self, dir: Direction) -> bool {
        self.half(dir).is_waiting()
    }

    /// Follow this direction no longer: it is bypassed. Frees its buffers; its segments are accepted unseen.
    pub fn stop(&mut self, dir: Direction) {
        let (half, _, budget) = self.halves(dir);
        half.stop(budget);
    }

    /// The caller drops the segment that made the last [`StreamSink::data`] calls of this direction. The bytes
    /// stay condemned: while enforcing, no retransmission of them passes. Without this call they would count as
    /// judged and good.
    pub const fn condemn(&mut self, dir: Direction) {
        match dir {
            Direction::ToServer => self.to_server.condemn(),
            Direction::ToClient => self.to_client.condemn(),
        }
    }

    /// Traffic of this connection has passed unseen (fail-open, a restart): each direction is picked up anew at
    /// its next segment, after a gap.
    pub fn lapse(&mut self) {
        for dir in [Direction::ToServer, Direction::ToClient] {
            self.halves(dir).0.lapse();
        }
        self.pending_syn = None;
    }

    /// Both directions are followed again after [`Self::stop`], each from its next segment on, after a gap.
    pub const fn resume(&mut self) {
        self.to_server.resume();
        self.to_client.resume();
        self.pending_syn = None;
    }

    /// The receiver of `dir` is known to have acknowledged up to `ack`, by other means than a segment passed to
    /// [`Reassembler::segment`]: a kernel's flow map that sees pure acknowledgements.
    pub fn acknowledged(&mut self, dir: Direction, ack: u32) {
        let (half, _, _) = self.halves(dir);
        half.acknowledged(ack);
    }

    /// A SYN was seen here, and its answer by somebody else only.
    pub fn awaits_answer(&self) -> bool {
        self.phase == Phase::SynSent && self.to_server.saw_syn() && !self.to_client.is_started()
    }

    /// The answer's next number, told by who saw it.
    pub fn answered(&mut self, server_next: u32) {
        if self.awaits_answer() {
            self.to_client.start_at(server_next);
            self.to_client.known_syn();
            self.phase = Phase::Established;
        }
    }

    /// Whether this segment belongs to a new connection between the same ends, so that this one is over: a SYN
    /// after the close, or the answer to a SYN that came in between.
    pub fn is_superseded_by(&self, dir: Direction, tcp: &Tcp<'_>) -> bool {
        if !tcp.flags.syn() || tcp.flags.rst() {
            return false;
        }
        if tcp.flags.ack() {
            return self.pending_syn.is_some_and(|(seq, from)| from != dir && tcp.ack == seq.wrapping_add(1));
        }
        // `tcp_timewait_state_process`: a SYN beyond the old connection opens a new one. A retransmitted SYN
        // of the old one does not.
        self.phase == Phase::Closed && !self.half(dir).begins_at(tcp.seq.wrapping_add(1))
    }

    const fn half(&self, dir: Direction) -> &Half {
        match dir {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    /// The half that carries `dir`, the other one, and the budget.
    const fn halves(&mut self, dir: Direction) -> (&mut Half, &mut Half, &mut Budget) {
        match dir {
            Direction::ToServer => (&mut self.to_server, &mut self.to_client, &mut self.budget),
            Direction::ToClient => (&mut self.to_client, &mut self.to_server, &mut self.budget),
        }
    }

    #[allow(clippy::too_many_arguments)] // The parts of a reassembler and of a segment, each borrowed apart.
    fn segment(
        &mut self,
        config: &StreamConfig,
        stats: &mut StreamStats,
        now: Timestamp,
        dir: Direction,
        tcp: &Tcp<'_>,
        payload: &[u8],
        sink: &mut impl StreamSink,
    ) -> SegmentOutcome {
        if self.half(dir).is_stopped() && self.half(dir.opposite()).is_stopped() {
            return self.unfollowed(tcp, sink);
        }
        if tcp.flags.rst() {
            return self.reset(dir, tcp, sink);
        }
        if tcp.options.signed && self.signed == Some(false) {
            return SegmentOutcome::Ignored(Ignored::Signed);
        }
        if tcp.flags.syn() {
            match self.syn(config, dir, tcp) {
                Ok(()) => {}
                Err(outcome) => return outcome,
            }
            // Linux drops data on a SYN unless Fast Open is agreed on. Whether the socket does without a
            // cookie is not ours to know: when enforcing it is judged in any case.
            if payload.is_empty() || !(self.enforce || tcp.options.fast_open) {
                return SegmentOutcome::Accept { delivered: 0 };
            }
        } else {
            if self.phase == Phase::Closed {
                return self.after_close(dir, tcp, payload);
            }
            if !tcp.flags.ack() {
                return SegmentOutcome::Ignored(Ignored::NoAck);
            }
            if let Err(outcome) = self.establish(config, stats, dir, tcp) {
                return outcome;
            }
        }
        let enforce = self.enforce;
        let (timestamps, hearsay) = (self.timestamps, self.hearsay);
        // A SYN's window is never scaled.
        let shift = match (self.scales, dir) {
            (Some(_), _) if tcp.flags.syn() => Some(0),
            (Some((client, _)), Direction::ToServer) => Some(client),
            (Some((_, server)), Direction::ToClient) => Some(server),
            (None, _) => None,
        };
        let (half, other, budget) = self.halves(dir);
        let has_text = !payload.is_empty() || tcp.flags.fin();
        // A pure acknowledgement may be older than the data around it (`tcp_disordered_ack`).
        if has_text && timestamps != Some(false) && half.is_too_old(now, tcp) {
            return SegmentOutcome::Ignored(Ignored::Paws);
        }
        if tcp.flags.ack()
            && !hearsay
            && let Err(ignored) = other.take_ack(dir.opposite(), tcp.ack, half.is_predicted(tcp), enforce, config, stats, budget, sink)
        {
            return SegmentOutcome::Ignored(ignored);
        }
        if let Some(shift) = shift.filter(|_| !hearsay) {
            other.take_window(tcp, shift);
        }
        let keeps_timestamp = timestamps != Some(false) && half.takes_timestamp(tcp);
        let outcome = half.take(now, dir, tcp, payload, enforce, config, stats, budget, sink);
        let taken = if enforce { outcome.passes(payload.len()) } else { true };
        if keeps_timestamp && taken && !matches!(outcome, SegmentOutcome::Ignored(_)) {
            half.take_timestamp(now, tcp);
        }
        self.advance();
        outcome
    }

    /// Both directions are bypassed: only the end of the connection still matters.
    fn unfollowed(&mut self, tcp: &Tcp<'_>, sink: &mut impl StreamSink) -> SegmentOutcome {
        if tcp.flags.rst() && self.phase != Phase::Closed {
            self.close(sink);
        } else if tcp.flags.fin() && self.phase < Phase::Closing {
            self.phase = Phase::Closing;
        }
        SegmentOutcome::Accept { delivered: 0 }
    }

    /// RFC 5961, section 3.2, as in `tcp_validate_incoming`; in SYN-SENT as in `tcp_rcv_synsent_state_process`.
    fn reset(&mut self, dir: Direction, tcp: &Tcp<'_>, sink: &mut impl StreamSink) -> SegmentOutcome {
        match self.phase {
            Phase::New => return SegmentOutcome::Ignored(Ignored::NoSession),
            Phase::Closed => return SegmentOutcome::Ignored(Ignored::Closed),
            Phase::SynSent if dir == Direction::ToClient && !self.to_client.is_started() => {
                if !tcp.flags.ack() || !self.to_server.acks_sent(tcp.ack) {
                    return SegmentOutcome::Ignored(Ignored::RstNotExact);
                }
            }
            Phase::SynSent | Phase::SynReceived | Phase::Established | Phase::Closing => {
                if !self.half(dir).resets_at(tcp.seq) {
                    return SegmentOutcome::Ignored(Ignored::RstNotExact);
                }
            }
        }
        self.close(sink);
        SegmentOutcome::Accept { delivered: 0 }
    }

    fn close(&mut self, sink: &mut impl StreamSink) {
        for dir in [Direction::ToServer, Direction::ToClient] {
            let (half, _, budget) = self.halves(dir);
            if half.reset(budget) {
                sink.end(dir, StreamEnd::Reset);
            }
        }
        self.phase = Phase::Closed;
    }

    /// A SYN or SYN/ACK.
    fn syn(&mut self, config: &StreamConfig, dir: Direction, tcp: &Tcp<'_>) -> Result<(), SegmentOutcome> {
        let next = tcp.seq.wrapping_add(1);
        let phase = self.phase;
        let (half, other, _) = self.halves(dir);
        let begins = half.begins_at(next);
        // Who opened answers nobody, but in a simultaneous open, with the number of its SYN.
        let answers = dir == Direction::ToClient || !half.saw_syn();
        if tcp.flags.ack() {
            match phase {
                Phase::New => {
                    if !config.midstream {
                        return Err(SegmentOutcome::Ignored(Ignored::NoSession));
                    }
                    other.start_at(tcp.ack);
                }
                Phase::SynSent | Phase::SynReceived if !half.is_started() || (answers && half.may_restart()) || begins => {
                    if !other.syn_is_acked_by(tcp.ack) {
                        return Err(SegmentOutcome::Ignored(Ignored::HandshakeAck));
                    }
                }
                Phase::Established if answers && half.may_restart() && other.syn_is_acked_by(tcp.ack) => {}
                Phase::SynSent | Phase::SynReceived | Phase::Established | Phase::Closing | Phase::Closed => {
                    return Err(if begins {
                        SegmentOutcome::Accept { delivered: 0 }
                    } else {
                        SegmentOutcome::Ignored(Ignored::SynChallenge)
                    });
                }
            }
            if !begins {
                half.start_at(next);
            }
            half.take_syn(tcp);
            if self.half(dir.opposite()).saw_syn() && phase != Phase::New {
                self.timestamps = Some(tcp.options.timestamp.is_some() && self.half(dir.opposite()).syn_had_timestamp());
                self.signed = Some(tcp.options.signed);
                let (theirs, ours) = match (self.offered_scale, tcp.options.window_scale) {
                    (Some(theirs), Some(ours)) => (theirs, ours),
                    (None, _) | (_, None) => (0, 0),
                };
                self.scales = Some(match dir {
                    Direction::ToClient => (theirs, ours),
                    Direction::ToServer => (ours, theirs),
                });
            }
            self.phase = phase.max(Phase::SynReceived);
            return Ok(());
        }
        match phase {
            Phase::New => {
                half.start_at(next);
                half.take_syn(tcp);
                self.offered_scale = tcp.options.window_scale;
                self.phase = Phase::SynSent;
                Ok(())
            }
            // A retransmission, or a simultaneous open.
            Phase::SynSent | Phase::SynReceived if begins => Ok(()),
            Phase::SynSent if !half.is_started() => {
                half.start_at(next);
                half.take_syn(tcp);
                Ok(())
            }
            // The first may never have arrived: the SYN/ACK will tell which one counts.
            Phase::SynSent => {
                half.also_syn(next);
                Err(SegmentOutcome::Accept { delivered: 0 })
            }
            Phase::SynReceived | Phase::Established | Phase::Closing | Phase::Closed => {
                if begins {
                    return Err(SegmentOutcome::Accept { delivered: 0 });
                }
                self.pending_syn = Some((tcp.seq, dir));
                Err(SegmentOutcome::Ignored(Ignored::SynChallenge))
            }
        }
    }

    /// A segment with ACK and without SYN: it completes a handshake, or begins in the middle.
    fn establish(&mut self, config: &StreamConfig, stats: &mut StreamStats, dir: Direction, tcp: &Tcp<'_>) -> Result<(), SegmentOutcome> {
        let phase = self.phase;
        let (half, other, _) = self.halves(dir);
        if phase == Phase::New {
            if !config.midstream {
                return Err(SegmentOutcome::Ignored(Ignored::NoSession));
            }
            stats.midstream += 1;
        }
        if matches!(phase, Phase::SynSent | Phase::SynReceived) && dir == Direction::ToServer {
            half.choose_syn(tcp.seq);
            // `tcp_check_req`: the last segment of the handshake acknowledges the SYN/ACK and nothing else.
            if phase == Phase::SynReceived && other.saw_syn() && !other.begins_at(tcp.ack) {
                return Err(SegmentOutcome::Ignored(Ignored::HandshakeAck));
            }
        }
        if !half.is_started() {
            half.start_guessed(tcp.seq, false);
        }
        if !other.is_started() {
            // What a peer acknowledges is what it expects next. After a handshake nothing can have passed
            // before; in the middle of a connection something may be in flight, so it is only a guess.
            if half.saw_syn() { other.start_at(tcp.ack) } else { other.start_guessed(tcp.ack, true) }
        }
        if phase < Phase::Established {
            self.phase = Phase::Established;
        }
        Ok(())
    }

    fn after_close(&mut self, dir: Direction, tcp: &Tcp<'_>, payload: &[u8]) -> SegmentOutcome {
        let (half, _, _) = self.halves(dir);
        if payload.is_empty() || half.is_stopped() {
            return SegmentOutcome::Accept { delivered: 0 };
        }
        half.repeats(tcp.seq, payload).unwrap_or(SegmentOutcome::Ignored(Ignored::Closed))
    }

    fn advance(&mut self) {
        let fins = u8::from(self.to_server.is_finished()) + u8::from(self.to_client.is_finished());
        match fins {
            0 => {}
            1 => self.phase = self.phase.max(Phase::Closing),
            _ => {
                self.phase = Phase::Closed;
            }
        }
    }
}

#[cfg(test)]
mod tests;
