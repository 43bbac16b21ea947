//! What runs: one container, or a network namespace that looks like one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The number by which engines know a workload; they never learn what is behind it.
/// 0 is the world outside, 1 the host itself; containers start at 2. Stable while the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct WorkloadId(pub u32);

impl WorkloadId {
    pub const WORLD: Self = Self(0);
    pub const HOST: Self = Self(1);
    pub const FIRST_CONTAINER: Self = Self(2);
}

/// A container as the inventory sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The runtime's own id (64 hex digits), or `netns:<inode>` for a bare namespace.
    pub key: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    pub runtime: Runtime,
    /// First process, as seen from the host. 0 when it is not known.
    pub pid: u32,
    /// Path in the cgroup tree, `/` when it has none of its own.
    pub cgroup: String,
    pub network: Network,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub published: Vec<Published>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    Docker,
    Containerd,
    Cri,
    Podman,
    /// A network namespace that no known engine claims.
    Namespace,
}

/// Whose network stack it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Network {
    /// Its own namespace, by inode number of `/proc/PID/ns/net`.
    Own { netns: u64 },
    /// Another workload's namespace (`--network container:X`, a pod): same inode.
    Shared { netns: u64, with: String },
    /// The host's: not on the path, listed as such and never counted as protected.
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name inside the namespace.
    pub name: String,
    /// Index inside the namespace.
    pub ifindex: u32,
    pub kind: InterfaceKind,
    /// `02:42:c6:33:64:02`
    pub mac: String,
    pub addresses: Vec<IpAddr>,
    /// The end that stays on the host (veth only).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_name: Option<String>,
    /// The bridge that the host end is a port of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bridge: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    Veth,
    Macvlan,
    Ipvlan,
    Netkit,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub host_address: IpAddr,
    pub host_port: u16,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}
