//! `GET /v1/status`: is this host protected, and if not, why not.

use std::collections::BTreeMap;

use bulkhead_model::{Mode, Timestamp};
use bulkhead_store::PerType;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    pub pid: u32,
    pub started: Timestamp,
    pub uptime_secs: u64,
    /// Verdicts reach the wire. Says nothing of the mode: in `monitor` nothing is meant to be blocked.
    pub enforcing: bool,
    /// One sentence for each thing that keeps it from doing what it was told to. Empty when all is well.
    pub degraded: Vec<String>,
    pub mode: ModeSummary,
    pub path: PathState,
    pub fail: FailMode,
    /// Since the worker last said that it is alive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heartbeat_age_ms: Option<u64>,
    pub engine: EngineStats,
    /// The container engines the inventory listens to.
    #[serde(default)]
    pub inventory: Vec<EngineState>,
    pub rules: RuleCounts,
    pub events: EventCounts,
    /// Resident memory of the agent.
    pub rss_bytes: u64,
    pub policy_revision: u64,
}

/// Workloads by mode; `unprotected` are those that are not on the path (host network, interface not armed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModeSummary {
    /// For workloads that no selector names.
    pub default: Mode,
    pub monitor: u32,
    pub protect: u32,
    pub unprotected: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathState {
    pub kind: PathTechnique,
    pub interfaces_armed: u32,
    /// Names, with the reason: `eth0 of web: no such device`.
    #[serde(default)]
    pub interfaces_unarmed: Vec<String>,
    /// Packets at this moment with the engine, and how many there may be.
    pub held_packets: u64,
    pub held_packets_max: u64,
    /// Packets that found the queue full.
    pub held_refused: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathTechnique {
    Tcx,
    Nfqueue,
    /// Nothing is attached.
    None,
}

impl PathTechnique {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Nfqueue => "nfqueue",
            Self::None => "none",
        }
    }
}

/// What happens to packets that nobody judges in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// They pass, and the gap is counted.
    #[default]
    Open,
    /// They are dropped.
    Closed,
}

impl FailMode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Counters of the engine since it started, by dotted name: `flow.active`, `stream.memory_bytes`, `decode.ipv4.trunc_pkt`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineStats(pub BTreeMap<String, u64>);

/// One container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineState {
    /// `docker`, `containerd`, `cri`, `podman`, `namespaces`.
    pub name: String,
    pub connected: bool,
    pub workloads: u32,
    /// Why not, or which version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleCounts {
    pub loaded: u64,
    /// Written for a keyword that this version does not have.
    pub unsupported: u64,
    pub wrong: u64,
    #[serde(default)]
    pub files: Vec<String>,
}

/// Of the event store, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventCounts {
    pub written: PerType,
    /// By type; anything here is also told in an `events-lost` event.
    pub lost: PerType,
}

impl From<&bulkhead_store::StoreStats> for EventCounts {
    fn from(stats: &bulkhead_store::StoreStats) -> Self {
        Self { written: stats.written.clone(), lost: stats.lost() }
    }
}
