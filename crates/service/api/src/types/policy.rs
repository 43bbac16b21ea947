//! `/v1/mode`, `/v1/policy`, `/v1/reload`, `/v1/down`: what is in force, and changes to it.

use std::collections::BTreeMap;

use bulkhead_model::{Mode, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Problem, RuleCounts};

/// `GET /v1/mode`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModeView {
    /// For workloads that no selector names.
    pub default: Mode,
    /// In order; the first that selects a workload decides.
    pub rules: Vec<ModeRule>,
    /// What comes out of it, by workload name.
    pub workloads: BTreeMap<String, Mode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRule {
    pub selector: String,
    pub mode: Mode,
    /// `bulkhead.yaml:12`, or `bulkhead mode` when it was set at run time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
}

/// `PUT /v1/mode`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// Absent: the default, for all that no selector names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<String>,
    pub mode: Mode,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeChanged {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<String>,
    pub mode: Mode,
    /// Names of the workloads that have this mode by this change, at this moment.
    pub workloads: Vec<String>,
    pub policy_revision: u64,
}

/// `GET /v1/policy`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    pub revision: u64,
    pub applied: Timestamp,
    /// Where it came from: `/etc/bulkhead/bulkhead.yaml`, or `bulkhead policy apply`.
    pub sources: Vec<String>,
    /// YAML, as it was given.
    pub text: String,
}

/// `PUT /v1/policy`: `text/yaml` in the body, `?check=true` to try it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// `false` when it was only checked.
    pub applied: bool,
    /// In force now.
    pub revision: u64,
    /// Warnings; errors would have made it `refused`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub problems: Vec<Problem>,
    /// What becomes different, a line each, for people.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub changes: Vec<String>,
}

/// `POST /v1/reload`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub policy_revision: u64,
    pub rules: RuleCounts,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub problems: Vec<Problem>,
}

/// `POST /v1/down`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub message: String,
}
