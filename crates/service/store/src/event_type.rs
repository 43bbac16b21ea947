//! EVE's `event_type` as a value, and sets of it as they stand in a query (`alert,drop`).

use std::fmt;
use std::str::FromStr;

use bulkhead_model::EventBody;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    Alert,
    Drop,
    Flow,
    Anomaly,
    Stats,
    Operation,
}

impl EventType {
    pub const COUNT: usize = 6;
    pub const ALL: [Self; Self::COUNT] = [Self::Alert, Self::Drop, Self::Flow, Self::Anomaly, Self::Stats, Self::Operation];

    pub const fn of(body: &EventBody) -> Self {
        match body {
            EventBody::Alert { .. } => Self::Alert,
            EventBody::Drop { .. } => Self::Drop,
            EventBody::Flow { .. } => Self::Flow,
            EventBody::Anomaly { .. } => Self::Anomaly,
            EventBody::Stats { .. } => Self::Stats,
            EventBody::Operation { .. } => Self::Operation,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Drop => "drop",
            Self::Flow => "flow",
            Self::Anomaly => "anomaly",
            Self::Stats => "stats",
            Self::Operation => "operation",
        }
    }

    /// The part of the queue that events of this type may fill, as (part, of): what is rare and asked for gets all of it.
    pub const fn queue_share(self) -> (usize, usize) {
        match self {
            Self::Alert | Self::Operation => (1, 1),
            Self::Drop => (3, 4),
            Self::Flow | Self::Anomaly | Self::Stats => (1, 2),
        }
    }

    /// Whether the database holds it; the others are in the log alone.
    pub const fn in_database(self) -> bool {
        match self {
            Self::Alert | Self::Drop | Self::Anomaly | Self::Operation => true,
            Self::Flow | Self::Stats => false,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The asker's: a word that names no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event type; these are: alert, drop, flow, anomaly, stats, operation")]
pub struct UnknownEventType(pub String);

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownEventType(text.chars().take(32).collect()))
    }
}

/// A set of types, written with commas. The empty set stands for "no choice made".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventTypes(u8);

impl EventTypes {
    pub const fn with(self, kind: EventType) -> Self {
        Self(self.0 | 1 << kind.index())
    }

    pub const fn contains(self, kind: EventType) -> bool {
        self.0 & 1 << kind.index() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = EventType> {
        EventType::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<EventType> for EventTypes {
    fn from_iter<I: IntoIterator<Item = EventType>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for EventTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

impl FromStr for EventTypes {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(EventType::from_str).collect()
    }
}

impl Serialize for EventTypes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTypes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_and_read_with_commas() {
        let set: EventTypes = "drop, alert".parse().unwrap();
        assert_eq!(set.to_string(), "alert,drop");
        assert_eq!(serde_json::from_str::<EventTypes>("\"alert,drop\"").unwrap(), set);
        assert!("".parse::<EventTypes>().unwrap().is_empty());
    }

    #[test]
    fn a_word_that_is_no_type_is_named_and_cut() {
        let error = "x".repeat(500).parse::<EventTypes>().unwrap_err();
        assert_eq!(error.0.len(), 32);
        assert!("alert,Drop".parse::<EventTypes>().unwrap_err().to_string().contains("`Drop`"));
    }
}
