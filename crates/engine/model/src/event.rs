//! Events, in the shapes that consumers of Suricata's EVE JSON expect, plus a `workload` object.
//! Source of the shapes: Suricata user guide, "EVE JSON Format".

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Mode, Timestamp};

/// One line of `eve.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub timestamp: Timestamp,
    /// Unique on this host, increasing: what `bulkhead why` takes. 0 until the store has given it a number.
    #[serde(default)]
    pub event_id: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flow_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_iface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub src_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dest_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dest_port: Option<u16>,
    /// `TCP`, `UDP`, `ICMP`, `IPv6-ICMP`, `SCTP`, or the number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proto: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub app_proto: Option<String>,
    /// `to_server` or `to_client`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<WorkloadPair>,
    #[serde(flatten)]
    pub body: EventBody,
}

/// Who is on both ends. `src` and `dest` follow `src_ip` and `dest_ip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPair {
    pub src: Side,
    pub dest: Side,
    /// The policy revision in force when it was judged.
    pub policy_revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Container name, `host` or `world`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    pub mode: Mode,
}

/// `event_type` names the variant; the variant's fields stand under the same name, as in EVE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event_type", rename_all = "snake_case")]
pub enum EventBody {
    Alert {
        alert: Alert,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        flow: Option<FlowRecord>,
    },
    /// A packet that was dropped, or would have been (`drop.reason`, `drop.verdict`).
    Drop {
        drop: Dropped,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        alert: Option<Alert>,
    },
    Flow {
        flow: FlowRecord,
    },
    Anomaly {
        anomaly: Anomaly,
    },
    /// Counters; keys are dotted paths already nested.
    Stats {
        stats: serde_json::Value,
    },
    /// Something the agent did or noticed: started, policy applied, coverage gap, interface armed.
    Operation {
        operation: Operation,
    },
}

impl EventBody {
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Alert { .. } => "alert",
            Self::Drop { .. } => "drop",
            Self::Flow { .. } => "flow",
            Self::Anomaly { .. } => "anomaly",
            Self::Stats { .. } => "stats",
            Self::Operation { .. } => "operation",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub action: AlertAction,
    pub gid: u32,
    pub signature_id: u32,
    pub rev: u32,
    pub signature: String,
    pub category: String,
    /// 1 is the gravest.
    pub severity: u8,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub metadata: BTreeMap<String, Vec<String>>,
    /// `cve,2021-44228`, `url,example.org`
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub references: Vec<String>,
    /// File and line the rule came from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule_source: Option<String>,
    /// In monitor mode: the rule says drop or reject, and protect mode would have carried it out.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub would_have_blocked: bool,
}

/// EVE knows two words here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertAction {
    Allowed,
    Blocked,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// `blocked`, or `would-block` in monitor mode.
    pub verdict: String,
    /// Kebab-case [`crate::DropReason`].
    pub reason: String,
    /// In words, for a person: which rule of which file, which segment rule, which cap.
    pub explanation: String,
    /// Bytes of the packet.
    pub len: u32,
    /// Which tier decided: `kernel` or `engine`.
    pub tier: String,
}

/// Counts follow EVE: bytes are of whole packets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct FlowRecord {
    pub pkts_toserver: u64,
    pub pkts_toclient: u64,
    pub bytes_toserver: u64,
    pub bytes_toclient: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<Timestamp>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age: Option<u64>,
    /// `new`, `established`, `closed`, `bypassed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// `timeout`, `forced`, `shutdown`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub alerted: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// `decode`, `stream` or `applayer`.
    pub r#type: String,
    /// As Suricata names it: `ipv4.trunc_pkt`, `stream.reassembly_overlap_different_data`.
    pub event: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Kebab-case: `agent-started`, `interface-armed`, `policy-applied`, `coverage-gap`, `fail-open` ...
    pub action: String,
    /// One sentence for a person.
    pub message: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub details: BTreeMap<String, serde_json::Value>,
}
