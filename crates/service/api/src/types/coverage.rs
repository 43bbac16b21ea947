//! `GET /v1/coverage`: bytes the kernel carried against bytes that were judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All counts are since the agent started, in bytes of whole packets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Coverage {
    pub pairs: Vec<PairCoverage>,
    pub interfaces: Vec<InterfaceCoverage>,
    /// Of the bytes carried, those that were inspected, bypassed for a stated reason, or dropped. 100 when nothing was carried.
    pub total_percent: f64,
    /// No gap anywhere.
    pub complete: bool,
}

/// One direction between two workloads on one kind of path.
/// `carried_bytes == inspected_bytes + sum(bypassed) + sum(dropped) + gap_bytes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCoverage {
    /// Workload name, `host` or `world`.
    pub src: String,
    pub dst: String,
    pub kind: PathKind,
    pub family: PathFamily,
    /// Came with at least one VLAN tag.
    #[serde(default)]
    pub vlan: bool,
    pub carried_packets: u64,
    pub carried_bytes: u64,
    pub inspected_bytes: u64,
    /// By [`bulkhead_model::BypassReason`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub bypassed: BTreeMap<String, u64>,
    /// By [`bulkhead_model::DropReason`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub dropped: BTreeMap<String, u64>,
    /// Passed unjudged.
    pub gap_bytes: u64,
}

impl PairCoverage {
    pub fn bypassed_bytes(&self) -> u64 {
        self.bypassed.values().sum()
    }

    pub fn dropped_bytes(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// What the kernel counted on the device against what the hook on it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceCoverage {
    pub interface: String,
    pub workload: String,
    /// Growth of the device's own counters, both directions, since it was armed.
    pub kernel_bytes: u64,
    pub seen_bytes: u64,
    /// `kernel_bytes - seen_bytes`, 0 when more was seen.
    pub gap_bytes: u64,
}

/// The way a packet takes through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    SameBridge,
    CrossBridge,
    /// In from outside or from the host through a published port.
    Published,
    HostToContainer,
    ContainerToHost,
    /// To or from the world outside, not by a published port.
    Internet,
    /// Macvlan or ipvlan: no end on the host.
    Macvlan,
    Other,
}

impl PathKind {
    pub const ALL: [Self; 8] = [
        Self::SameBridge,
        Self::CrossBridge,
        Self::Published,
        Self::HostToContainer,
        Self::ContainerToHost,
        Self::Internet,
        Self::Macvlan,
        Self::Other,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::SameBridge => "same-bridge",
            Self::CrossBridge => "cross-bridge",
            Self::Published => "published",
            Self::HostToContainer => "host-to-container",
            Self::ContainerToHost => "container-to-host",
            Self::Internet => "internet",
            Self::Macvlan => "macvlan",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathFamily {
    Ipv4,
    Ipv6,
    /// ARP and all else that is not IP.
    Other,
}

impl PathFamily {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Other => "other",
        }
    }
}
