//! Thresholds: how often a rule may speak, per host, pair, flow or rule.
//! Source for the arithmetic: Suricata's `detect-engine-threshold.c`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_model::Timestamp;
use bulkhead_rules::limits::RateFilter;
use bulkhead_rules::tree::{Threshold, ThresholdKind, Track, UniqueOn};

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

#[derive(Debug, Clone)]
struct Entry {
    since: Timestamp,
    count: u32,
    seconds: u32,
    /// Of a backoff: the count that is told of next. Of a rate: whether the other action is in force, since when.
    next: u64,
    changed: Option<Timestamp>,
    /// Ports that were counted.
    ports: BTreeSet<u16>,
}

impl Entry {
    const fn new(since: Timestamp, seconds: u32) -> Self {
        Self { since, count: 0, seconds, next: 0, changed: None, ports: BTreeSet::new() }
    }
}

/// Which threshold of a rule the rate filter is: behind all of its own.
const RATE: u8 = u8::MAX;

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

    /// Counts one match. `rule`: its key, and which of its thresholds; `ends`: source and destination with their ports.
    pub fn ask(
        &mut self,
        now: Timestamp,
        (rule, which): (u64, u8),
        threshold: &Threshold,
        (src, dst): ((IpAddr, u16), (IpAddr, u16)),
        flow: u64,
    ) -> Answer {
        let entry = self.entry(now, (rule, which), who(threshold.track, src.0, dst.0, flow), threshold.seconds);
        // A backoff has no period.
        if now.since(entry.since) > u64::from(threshold.seconds) * 1_000_000_000 && threshold.seconds > 0 {
            *entry = Entry::new(now, threshold.seconds);
        }
        match threshold.unique_on {
            None => entry.count = entry.count.saturating_add(1),
            Some(on) => {
                let port = if on == UniqueOn::SourcePort { src.1 } else { dst.1 };
                // More than are asked for make no difference.
                if entry.ports.len() <= threshold.count as usize {
                    entry.ports.insert(port);
                }
                entry.count = entry.ports.len() as u32;
            }
        }
        match threshold.kind {
            ThresholdKind::Limit if entry.count <= threshold.count => Answer::Alert,
            ThresholdKind::Limit => Answer::Silent,
            ThresholdKind::Threshold if entry.count < threshold.count => Answer::NotYet,
            ThresholdKind::Threshold => {
                entry.count = 0;
                entry.ports.clear();
                Answer::Alert
            }
            ThresholdKind::Both => match entry.count.cmp(&threshold.count) {
                std::cmp::Ordering::Less => Answer::NotYet,
                std::cmp::Ordering::Equal => Answer::Alert,
                std::cmp::Ordering::Greater => Answer::Silent,
            },
            ThresholdKind::Backoff { multiplier } => {
                let next = entry.next.max(u64::from(threshold.count));
                if u64::from(entry.count) < next {
                    return Answer::Silent;
                }
                entry.next = next.saturating_mul(u64::from(multiplier));
                Answer::Alert
            }
            // Alerts begin after `count` matches.
            ThresholdKind::Filter if entry.count > threshold.count => Answer::Alert,
            ThresholdKind::Filter => Answer::NotYet,
        }
    }

    /// Counts one match of a rule with a rate filter: whether the filter's action takes the place of its own.
    pub fn rate(&mut self, now: Timestamp, rule: u64, filter: &RateFilter, (src, dst): (IpAddr, IpAddr), flow: u64) -> bool {
        let entry = self.entry(now, (rule, RATE), who(filter.track, src, dst, flow), filter.seconds.max(filter.timeout_seconds));
        if let Some(since) = entry.changed {
            let over = now.since(since) > u64::from(filter.timeout_seconds) * 1_000_000_000;
            if over {
                entry.changed = None;
            }
            return !over;
        }
        if now.since(entry.since) > u64::from(filter.seconds) * 1_000_000_000 {
            (entry.since, entry.count) = (now, 0);
        }
        entry.count = entry.count.saturating_add(1);
        if entry.count > filter.count {
            entry.changed = Some(now);
        }
        entry.changed.is_some()
    }

    fn entry(&mut self, now: Timestamp, (rule, which): (u64, u8), who: Who, seconds: u32) -> &mut Entry {
        let key = Key { rule, which, who };
        if !self.entries.contains_key(&key) && self.entries.len() >= self.max {
            self.make_room(now);
        }
        self.entries.entry(key).or_insert(Entry::new(now, seconds))
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

fn who(track: Track, src: IpAddr, dst: IpAddr, flow: u64) -> Who {
    match track {
        Track::ByRule => Who::All,
        Track::BySource => Who::Host(src),
        Track::ByDestination => Who::Host(dst),
        Track::ByBoth => Who::Pair(src.min(dst), src.max(dst)),
        Track::ByFlow => Who::Flow(flow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(kind: ThresholdKind, count: u32, seconds: u32, at: &[u64]) -> Vec<Answer> {
        let mut all = Thresholds::new(10);
        let threshold = Threshold { kind, track: Track::BySource, count, seconds, unique_on: None };
        let host: IpAddr = "198.51.100.1".parse().unwrap();
        at.iter().map(|secs| all.ask(Timestamp::from_secs(*secs), (1, 0), &threshold, ((host, 1), (host, 2)), 0)).collect()
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
    fn a_backoff_is_told_of_ever_more_seldom_and_ports_count_once() {
        use Answer::{Alert, NotYet, Silent};
        let backoff = answers(ThresholdKind::Backoff { multiplier: 2 }, 1, 0, &[0; 8]);
        assert_eq!(backoff, [Alert, Alert, Silent, Alert, Silent, Silent, Silent, Alert]);
        let mut all = Thresholds::new(10);
        let unique_on = Some(UniqueOn::DestinationPort);
        let threshold = Threshold { kind: ThresholdKind::Filter, track: Track::BySource, count: 1, seconds: 60, unique_on };
        let host: IpAddr = "198.51.100.1".parse().unwrap();
        let mut ask = |port: u16| all.ask(Timestamp::from_secs(1), (1, 0), &threshold, ((host, 9), (host, port)), 0);
        assert_eq!([80, 80, 80, 81, 80].map(&mut ask), [NotYet, NotYet, NotYet, Alert, Alert]);
    }

    #[test]
    fn a_rate_changes_the_action_for_a_time() {
        use bulkhead_rules::Action;
        use bulkhead_rules::limits::Rules;

        let rules = Rules { gid: Some(1), sid: Some(1) };
        let filter = RateFilter { rules, track: Track::ByRule, count: 2, seconds: 10, new_action: Action::Drop, timeout_seconds: 100 };
        let host: IpAddr = "198.51.100.1".parse().unwrap();
        let mut all = Thresholds::new(10);
        let mut at = |secs| all.rate(Timestamp::from_secs(secs), 1, &filter, (host, host), 0);
        assert_eq!([0, 1, 20, 21, 22, 100, 122, 123, 124].map(&mut at), [false, false, false, false, true, true, true, false, false]);
    }

    #[test]
    fn the_table_has_a_cap() {
        let mut all = Thresholds::new(100);
        let threshold = Threshold { kind: ThresholdKind::Limit, track: Track::BySource, count: 1, seconds: 60, unique_on: None };
        for host in 0..10_000u32 {
            let address = IpAddr::V4(host.into());
            assert_eq!(all.ask(Timestamp(1), (1, 0), &threshold, ((address, 1), (address, 2)), 0), Answer::Alert);
            assert!(all.len() <= 100);
        }
        assert!(all.refused > 9_000);
    }
}
