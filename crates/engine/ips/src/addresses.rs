//! Rules that nothing but addresses decides, by address: sets have thousands of them, each with a list of hosts.
//!
//! Each rule is filed under the side that fewer addresses are on. What is found is a candidate: its header is compared as that of
//! any other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_rules::AddressSet;

use crate::rules::{Compiled, RuleId};

/// Of IPv4 by interval, of IPv6 as they are.
#[derive(Debug, Default)]
pub(crate) struct ByAddress {
    by_source: Intervals,
    by_destination: Intervals,
    /// Those that list few addresses on neither side.
    wide: Vec<RuleId>,
    /// Those that a packet of IPv6 can match.
    v6: Vec<RuleId>,
}

/// `starts[i]` is the first address of the i-th interval, ascending from 0.
#[derive(Debug, Default)]
struct Intervals {
    starts: Vec<u32>,
    set: Vec<u32>,
    sets: Vec<Box<[RuleId]>>,
}

/// More of IPv4 than this is no list of hosts.
const LISTED_MAX: u64 = 1 << 31;

impl ByAddress {
    pub fn new(ids: &[RuleId], rules: &[Compiled]) -> Self {
        let (mut sources, mut destinations) = (Vec::new(), Vec::new());
        let mut built = Self::default();
        for id in ids {
            let rule = &rules[*id as usize];
            if !rule.source.is_v4_only() && !rule.destination.is_v4_only() {
                built.v6.push(*id);
            }
            match (listed(&rule.source), listed(&rule.destination)) {
                (source, destination) if rule.both_ways || source.min(destination) > LISTED_MAX => built.wide.push(*id),
                (source, destination) if source <= destination => sources.push((*id, &*rule.source)),
                _ => destinations.push((*id, &*rule.destination)),
            }
        }
        (built.by_source, built.by_destination) = (Intervals::new(&sources), Intervals::new(&destinations));
        built
    }

    /// Rules that a packet between these may match.
    pub fn candidates(&self, source: IpAddr, destination: IpAddr) -> impl Iterator<Item = RuleId> {
        let (by_source, by_destination, rest): (&[RuleId], &[RuleId], &[RuleId]) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (self.by_source.at(source.into()), self.by_destination.at(destination.into()), &self.wide)
            }
            _ => (&[], &[], &self.v6),
        };
        by_source.iter().chain(by_destination).chain(rest).copied()
    }
}

/// Addresses of IPv4, each range for itself.
fn listed(set: &AddressSet) -> u64 {
    set.v4_ranges().map(|(first, last)| u64::from(last - first) + 1).sum()
}

impl Intervals {
    fn new(members: &[(RuleId, &AddressSet)]) -> Self {
        // Sweep over the addresses: at each one where a range begins or ends the set of rules changes.
        let mut changes: BTreeMap<u64, Vec<(RuleId, bool)>> = BTreeMap::from([(0, Vec::new())]);
        for (id, set) in members {
            for (first, last) in set.v4_ranges() {
                changes.entry(u64::from(first)).or_default().push((*id, true));
                changes.entry(u64::from(last) + 1).or_default().push((*id, false));
            }
        }
        let mut built = Self::default();
        let mut known: BTreeMap<Box<[RuleId]>, u32> = BTreeMap::new();
        // A rule's ranges overlap where its own addresses are the workload's too.
        let mut open: BTreeMap<RuleId, u32> = BTreeMap::new();
        for (address, events) in changes {
            for (id, begins) in events {
                let count = open.entry(id).or_default();
                *count = if begins { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    open.remove(&id);
                }
            }
            let Ok(address) = u32::try_from(address) else { break };
            let set: Box<[RuleId]> = open.keys().copied().collect();
            let number = *known.entry(set.clone()).or_insert_with(|| {
                built.sets.push(set);
                built.sets.len() as u32 - 1
            });
            built.starts.push(address);
            built.set.push(number);
        }
        built
    }

    fn at(&self, address: u32) -> &[RuleId] {
        let after = self.starts.partition_point(|start| *start <= address);
        let set = after.checked_sub(1).and_then(|place| self.set.get(place)).and_then(|set| self.sets.get(*set as usize));
        set.map_or(&[], |set| set)
    }
}
