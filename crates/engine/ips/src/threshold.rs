//! Thresholds: how often a rule may speak, per host, pair, flow or rule.
//! Source for the arithmetic: Suricata's `detect-engine-threshold.c`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_model::Timestamp;
use bulkhead_rules::tree::{Threshold, ThresholdKind, Track};

/// Who is counted. `rule` is the rule's key, `which` the threshold's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    rule: u64,
    which: u8,
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    All,
    Host(IpAddr),
    Pair(IpAddr, IpAddr),
    Flow(u64),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    since: Timestamp,
    count: u32,
    seconds: u32,
}

/// Counts by key, with a cap: when it is reached, entries whose period is over go first, then the first in order.
#[derive(Debug, Default)]
pub struct Thresholds {
    entries: BTreeMap<Key, Entry>,
    max: usize,
    /// Entries thrown away before their time.
    pub refused: u64,
}

/// What a threshold says to a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Alert,
    /// No alert; the action of a drop rule is carried out all the same, for limits speak of alerts only.
    Silent,
    /// `detection_filter` and `threshold` not reached: as if the rule had not matched.
    NotYet,
}

impl Thresholds {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts one match. `rule`: its key, and which of its thresholds; `ends`: source and destination.
    pub fn ask(
        &mut self,
        now: Timestamp,
        (rule, which): (u64, u8),
        threshold: &Threshold,
        (src, dst): (IpAddr, IpAddr),
        flow: u64,
    ) -> Answer {
        let who = match threshold.track {
            Track::ByRule => Who::All,
            Track::BySource => Who::Host(src),
            Track::ByDestination => Who::Host(dst),
            Track::ByBoth => Who::Pair(src.min(dst), src.max(dst)),
            Track::ByFlow => Who::Flow(flow),
        };
        let key = Key { rule, which, who };
        let fresh = Entry { since: now, count: 0, seconds: threshold.seconds };
        if !self.entries.contains_key(&key) && self.entries.len() >= self.max {
            self.make_room(now);
        }
        let entry = self.entries.entry(key).or_insert(fresh);
        let over = now.since(entry.since) > u64::from(threshold.seconds) * 1_000_000_000;
        match threshold.kind {
            ThresholdKind::Limit => {
                if over {
                    *entry = fresh;
                }
                entry.count = entry.count.saturating_add(1);
                if entry.count <= threshold.count { Answer::Alert } else { Answer::Silent }
            }
            ThresholdKind::Threshold => {
                if over {
                    *entry = fresh;
                }
                entry.count = entry.count.saturating_add(1);
                if entry.count < threshold.count {
                    return Answer::NotYet;
                }
                entry.count = 0;
                Answer::Alert
            }
            ThresholdKind::Both => {
                if over {
                    *entry = fresh;
                }
                entry.count = entry.count.saturating_add(1);
                match entry.count.cmp(&threshold.count) {
                    std::cmp::Ordering::Less => Answer::NotYet,
                    std::cmp::Ordering::Equal => Answer::Alert,
                    std::cmp::Ordering::Greater => Answer::Silent,
                }
            }
            // Refused when the rule is compiled.
            ThresholdKind::Backoff { .. } => Answer::NotYet,
            ThresholdKind::Filter => {
                if over {
                    *entry = fresh;
                }
                entry.count = entry.count.saturating_add(1);
                // Alerts begin after `count` matches.
                if entry.count > threshold.count { Answer::Alert } else { Answer::NotYet }
            }
        }
    }

    /// Drops entries whose period is over; at least one entry goes. Called at most once per new entry, and a
    /// sweep frees a tenth at least, so the cost per entry stays constant on average.
    fn make_room(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| now.since(entry.since) <= u64::from(entry.seconds) * 1_000_000_000);
        let keep = self.max - self.max.div_ceil(10);
        while self.entries.len() > keep {
            self.entries.pop_first();
            self.refused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(kind: ThresholdKind, count: u32, seconds: u32, at: &[u64]) -> Vec<Answer> {
        let mut all = Thresholds::new(10);
        let threshold = Threshold { kind, track: Track::BySource, count, seconds, unique_on: None };
        let host = "198.51.100.1".parse().unwrap();
        at.iter().map(|secs| all.ask(Timestamp::from_secs(*secs), (1, 0), &threshold, (host, host), 0)).collect()
    }

    #[test]
    fn each_kind_counts_its_way() {
        use Answer::{Alert, NotYet, Silent};
        assert_eq!(answers(ThresholdKind::Limit, 2, 60, &[0, 1, 2, 61, 62]), [Alert, Alert, Silent, Alert, Alert]);
        assert_eq!(answers(ThresholdKind::Threshold, 2, 60, &[0, 1, 2, 3]), [NotYet, Alert, NotYet, Alert]);
        assert_eq!(answers(ThresholdKind::Both, 2, 60, &[0, 1, 2, 70, 71]), [NotYet, Alert, Silent, NotYet, Alert]);
        assert_eq!(answers(ThresholdKind::Filter, 2, 60, &[0, 1, 2, 3]), [NotYet, NotYet, Alert, Alert]);
    }

    #[test]
    fn the_table_has_a_cap() {
        let mut all = Thresholds::new(100);
        let threshold = Threshold { kind: ThresholdKind::Limit, track: Track::BySource, count: 1, seconds: 60, unique_on: None };
        for host in 0..10_000u32 {
            let address = IpAddr::V4(host.into());
            assert_eq!(all.ask(Timestamp(1), (1, 0), &threshold, (address, address), 0), Answer::Alert);
            assert!(all.len() <= 100);
        }
        assert!(all.refused > 9_000);
    }
}
