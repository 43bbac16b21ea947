//! `GET /v1/workloads`: what runs, and whether it is protected.

use bulkhead_model::{Mode, Workload};
use serde::{Deserialize, Serialize};

use crate::FailMode;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadView {
    pub workload: Workload,
    /// The number by which the engine knows it; stable while the agent runs.
    pub id: u32,
    pub class: WorkloadClass,
    pub mode: Mode,
    pub fail: FailMode,
    pub protected: Protected,
    /// The selector of the policy that gave it its mode; absent when it has the default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selected_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadClass {
    Container,
    /// A network namespace that no engine claims.
    Namespace,
    /// Uses the host's network: not on the path.
    HostNetwork,
}

/// Whether its traffic goes through the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum Protected {
    Yes,
    /// Why not, in words.
    No(String),
}
