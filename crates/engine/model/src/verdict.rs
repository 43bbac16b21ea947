//! What may happen to a packet or a flow, and why.

use serde::{Deserialize, Serialize};

/// The judgement on one packet. `Bypass*` and `DropFlow` also settle what follows in the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Goes on; the next packet of the flow is inspected again.
    Accept,
    /// Goes on, and so does the rest of this direction of the flow, uninspected.
    BypassDirection(BypassReason),
    /// Goes on, and so does the rest of the flow, uninspected.
    BypassFlow(BypassReason),
    /// This packet ends here; the flow stays under inspection.
    Drop(DropReason),
    /// This packet and the rest of the flow end here, silently.
    DropFlow(DropReason),
    /// As `DropFlow`, and both ends are told (TCP RST, ICMP unreachable).
    Reject(DropReason),
}

impl Verdict {
    pub const fn passes(self) -> bool {
        match self {
            Self::Accept | Self::BypassDirection(_) | Self::BypassFlow(_) => true,
            Self::Drop(_) | Self::DropFlow(_) | Self::Reject(_) => false,
        }
    }
}

/// Why bytes may pass without being inspected. Counted per reason in `coverage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BypassReason {
    /// The stream's inspection depth is reached.
    Depth,
    /// Encrypted from here on: the bytes say nothing.
    Encrypted,
    /// A `pass` rule or the policy says so.
    Policy,
    /// No loaded rule can match the rest of this flow.
    NoRule,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// A signature with the action drop or reject matched.
    Rule,
    /// The flow was condemned before.
    Flow,
    /// A segment rule of the policy denies it.
    Segment,
    /// The frame or a header in it is malformed beyond judging.
    Malformed,
    /// Bytes of the stream differ from those already judged at the same place.
    StreamConflict,
    /// Bytes that cannot be judged: sent again when they are no longer kept for comparison, of a connection that is not
    /// known, or too costly to inspect; and the policy says so.
    Unverifiable,
    /// A named cap (flow table, reassembly memory, fragments) was reached and the policy is fail-closed.
    Cap,
    /// The agent did not answer and the policy is fail-closed.
    FailClosed,
    /// The interface is not armed yet.
    UnknownInterface,
}

/// Whether a judgement is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Alerts and would-have-blocked events; nothing is blocked.
    #[default]
    Monitor,
    /// Verdicts are carried out.
    Protect,
}
