//! From what went wrong with a packet to what becomes of it.

use super::*;

/// What is wrong with a packet before any rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The receiver's kernel discards it, or nobody can tell what it would make of it.
    Malformed,
    /// A checksum is wrong: the receiver discards it.
    Checksum,
    FragmentConflict,
    FragmentDiscarded,
    FragmentClosed,
    FragmentRefused,
    Segment(SegmentOutcome, usize),
    /// Inspection was not complete because a cap was reached.
    Inspection,
    /// Inspection was ended because it would have cost too much.
    Work,
    /// The application layer cannot be followed, and rules look at it.
    App(AppFault),
}

/// The one table from fault to verdict. What the receiver throws away by itself is dropped here too, so that
/// nobody after us can read it differently.
pub(super) fn verdict_of(fault: Fault, config: &PipelineConfig) -> Verdict {
    let on = |choice: OnFailure, reason: DropReason| match choice {
        OnFailure::Pass => Verdict::Accept,
        OnFailure::Drop => Verdict::Drop(reason),
    };
    match fault {
        Fault::Malformed | Fault::Checksum | Fault::FragmentDiscarded => Verdict::Drop(DropReason::Malformed),
        Fault::FragmentConflict => Verdict::Drop(DropReason::StreamConflict),
        Fault::FragmentClosed => Verdict::Drop(DropReason::Flow),
        Fault::Work => on(config.on_unverifiable, DropReason::Unverifiable),
        Fault::App(fault) => match fault {
            // The receiver reads what we cannot; or nobody knows how it reads it.
            AppFault::Finished(Finished::Malformed(_) | Finished::Gap) => on(config.on_unverifiable, DropReason::Unverifiable),
            AppFault::Finished(Finished::Cap(_)) | AppFault::Overflowed | AppFault::Candidates | AppFault::Memory => {
                on(config.on_cap, DropReason::Cap)
            }
            // Nothing that rules could look at is lost: ciphertext, or a protocol that no parser here reads.
            AppFault::Finished(Finished::Encrypted | Finished::Unknown | Finished::Tunnel) => Verdict::Accept,
        },
        Fault::FragmentRefused | Fault::Inspection => on(config.on_cap, DropReason::Cap),
        Fault::Segment(outcome, payload) => match outcome {
            SegmentOutcome::Accept { .. } | SegmentOutcome::Queued | SegmentOutcome::Retransmission => Verdict::Accept,
            // The receiver answers a bare one, which peers rely on; it discards the payload of others.
            SegmentOutcome::Ignored(_) if payload == 0 => Verdict::Accept,
            // Nothing is known of this connection, so nobody can say what the receiver makes of its bytes.
            SegmentOutcome::Ignored(Ignored::NoSession) => on(config.on_unverifiable, DropReason::Unverifiable),
            SegmentOutcome::Ignored(_) => Verdict::Drop(DropReason::Malformed),
            SegmentOutcome::Conflict { .. } => Verdict::Drop(DropReason::StreamConflict),
            SegmentOutcome::Unverifiable { .. } => on(config.on_unverifiable, DropReason::Unverifiable),
            SegmentOutcome::Refused(Refused::Cap) => on(config.on_cap, DropReason::Cap),
            SegmentOutcome::Refused(Refused::Urgent) => Verdict::Drop(DropReason::Malformed),
            SegmentOutcome::Condemned => Verdict::Drop(DropReason::Flow),
        },
    }
}
