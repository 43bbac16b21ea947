//! `GET /v1/events/{id}/why`: how a judgement came about, in the order in which it did.

use bulkhead_model::Event;
use serde::{Deserialize, Serialize};

use crate::WorkloadView;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub event: Event,
    /// Sentences, in order: where the packet was seen, what was decided on the way, by whom, and what happened then.
    pub explanation: Vec<String>,
    /// The text of the detection rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// `rules/lab.rules:12`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule_source: Option<String>,
    /// The part of the policy that decided, and where it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy_source: Option<String>,
    /// Both ends, if they still run.
    #[serde(default)]
    pub workloads: Vec<WorkloadView>,
    /// Commands that could come next, with a word on each: `bulkhead mode name=web protect   # block it next time`.
    #[serde(default)]
    pub next: Vec<String>,
}
