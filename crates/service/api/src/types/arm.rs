//! `POST /v1/arm`: is this container's network on the path, and put it there now. Asked between a container's making and
//! its program's first instruction, by the OCI hook and the runtime wrapper (`docs/oci.md`).

use serde::{Deserialize, Serialize};

use crate::FailMode;

/// Whose network it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRequest {
    /// A process in it, as the agent sees processes: the container's first one.
    pub pid: u32,
    /// Inode of its network namespace, as the asker sees it: when the agent sees another, the number means another process there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub netns: Option<u64>,
    /// The container's id, as its runtime knows it; with it the workload is known by its own name and policy from its first packet on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
}

/// The agent has tried for a moment; ask again while `state` is `waiting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    pub state: ArmState,
    /// Inode of the network namespace.
    pub netns: u64,
    /// Name of the workload; absent while it is armed with the defaults of unknown ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<String>,
    pub interfaces: Vec<ArmedInterface>,
    /// What is to become of a container whose network cannot be armed in time. `closed` only where its policy is to protect:
    /// monitoring never blocks.
    pub fail: FailMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArmState {
    /// All its interfaces are on the path (also when it has none).
    Armed,
    /// At least one is not, yet.
    Waiting,
    /// It uses the host's network, which is not on the path.
    HostNetwork,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedInterface {
    /// Its name in the container.
    pub name: String,
    /// Name of its other end, where it has one on this host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host_name: Option<String>,
    pub armed: bool,
    /// Why not, in words; or why it need not be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}
