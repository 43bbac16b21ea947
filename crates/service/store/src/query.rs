//! What can be asked of the log.

use bulkhead_model::{Event, EventBody, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{QUERY_EVENTS_DEFAULT, QUERY_EVENTS_MAX};
use crate::{EventType, EventTypes};

/// All given conditions hold together. Without `since` and `id` the newest `limit` events are meant, with `since` the first `limit` after it;
/// the answer is in ascending order of ids in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// This one event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<u64>,
    /// Events with a greater id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<u64>,
    /// `alert,drop`. Without it: all that the database holds, which leaves out `flow` and `stats`.
    /// Those two are looked for in the last [`crate::TAIL_BYTES_MAX`] bytes of `eve.json`.
    #[serde(rename = "type", skip_serializing_if = "EventTypes::is_empty_ref", default)]
    pub types: EventTypes,
    /// Name of the workload on either side.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature_id: Option<u32>,
    /// At or after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Timestamp>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Timestamp>,
    /// [`QUERY_EVENTS_DEFAULT`] when absent, at most [`QUERY_EVENTS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

impl Query {
    pub fn by_id(id: u64) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    pub fn newest(limit: usize) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// Whether this event meets every condition but `limit`: what a follower is filtered with.
    pub fn matches(&self, event: &Event) -> bool {
        let kind = EventType::of(&event.body);
        let wanted_type = if self.types.is_empty() { self.id.is_some() || kind.in_database() } else { self.types.contains(kind) };
        wanted_type
            && self.id.is_none_or(|id| event.event_id == id)
            && self.since.is_none_or(|since| event.event_id > since)
            && self.from.is_none_or(|from| event.timestamp >= from)
            && self.to.is_none_or(|to| event.timestamp < to)
            && self.signature_id.is_none_or(|wanted| signature_id(&event.body) == Some(wanted))
            && self
                .workload
                .as_ref()
                .is_none_or(|name| event.workload.as_ref().is_some_and(|pair| pair.src.name == *name || pair.dest.name == *name))
    }

    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(QUERY_EVENTS_DEFAULT).min(QUERY_EVENTS_MAX)
    }
}

impl EventTypes {
    const fn is_empty_ref(types: &Self) -> bool {
        types.is_empty()
    }
}

pub(crate) fn signature_id(body: &EventBody) -> Option<u32> {
    match body {
        EventBody::Alert { alert, .. } | EventBody::Drop { alert: Some(alert), .. } => Some(alert.signature_id),
        EventBody::Drop { alert: None, .. }
        | EventBody::Flow { .. }
        | EventBody::Anomaly { .. }
        | EventBody::Stats { .. }
        | EventBody::Operation { .. } => None,
    }
}
