//! Segment rules, compiled for the kernel.
//!
//! The kernel cannot match names and labels on a packet. So workloads are put into *classes* beforehand: two workloads
//! are of one class when the same selectors of the rules match them, and the rules cannot tell them apart. For each pair
//! of classes the rules that speak of it are written down in their order, as protocol, ports and action; the kernel finds
//! the pair and takes the first line that fits.
//!
//! ```text
//! rules:   1 web* -> db*  tcp 5432  allow      classes:  web-1, web-2 = 2   db = 3   other = 4
//!          2 any  -> db*            deny       pairs:    (2,3)  tcp 5432 allow, * deny
//!                                                        (0,3) (1,3) (3,3) (4,3)  * deny
//! ```
//!
//! Classes keep their numbers while a [`Segmenter`] lives, so that a starting container adds pairs and changes none. A
//! pair has room for [`PAIR_RULES_MAX`] lines and there are [`CLASSES_MAX`] classes. A policy that needs more is a
//! [`SegmentProblem`]: refuse it when it is applied. When a container that starts later causes one, what does not fit is
//! denied, never let through.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_model::{Network, Workload};

use crate::config::{Action, SegmentRule};
use crate::snapshot::{PolicySnapshot, netns_of};
use crate::values::{Peer, PortRange, Proto, has_ports};

/// Lines of one pair.
pub const PAIR_RULES_MAX: usize = 16;
/// Classes, world and host and [`ClassId::UNCLASSED`] among them. Its square is the number of pairs at most.
pub const CLASSES_MAX: usize = 256;

/// Number of no rule: the default decided.
pub const RULE_NONE: u16 = u16::MAX;
/// Number of the line that denies what did not fit into a pair.
pub const RULE_OVERFLOW: u16 = u16::MAX - 1;
/// Number of the line that denies traffic of workloads for which no class was left.
pub const RULE_UNCLASSED: u16 = u16::MAX - 2;

/// Lines considered for one pair before it is given up as too long; trailing ones may yet be left out.
const PAIR_LINES_CONSIDERED_MAX: usize = 4 * PAIR_RULES_MAX;

/// A class of workloads. 0 is the world, 1 the host; classes of containers start at 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ClassId(pub u16);

impl ClassId {
    pub const WORLD: Self = Self(0);
    pub const HOST: Self = Self(1);
    pub const FIRST_CONTAINER: Self = Self(2);
    /// For workloads for which no class was left: all their traffic is denied.
    pub const UNCLASSED: Self = Self(CLASSES_MAX as u16 - 1);
}

/// One line of a pair. It fits a packet when `proto` is 0 or the packet's, and `port_lo <= port <= port_hi`, where
/// `port` is the responder's port, or 0 for a protocol that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PortRule {
    /// IP protocol number; 0 is any.
    pub proto: u8,
    pub port_lo: u16,
    pub port_hi: u16,
    pub action: Action,
    /// Place in `segments.rules`, for [`PolicySnapshot::segment_rule_name`].
    pub rule_index: u16,
}

/// What the kernel looks up: `(class of the initiator, class of the responder)` to at most [`PAIR_RULES_MAX`] lines, of
/// which the first that fits decides. A pair that is not there, or in which none fits, is up to the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTable {
    pub default: Action,
    pub pairs: BTreeMap<(ClassId, ClassId), Vec<PortRule>>,
}

impl SegmentTable {
    /// Exactly what the kernel does. `None`: the default.
    pub fn lookup(&self, src: ClassId, dst: ClassId, proto: u8, port: u16) -> (Action, Option<u16>) {
        let port = if has_ports(proto) { port } else { 0 };
        let lines = self.pairs.get(&(src, dst)).map_or(&[][..], Vec::as_slice);
        let fits = |line: &&PortRule| (line.proto == 0 || line.proto == proto) && line.port_lo <= port && port <= line.port_hi;
        lines.iter().find(fits).map_or((self.default, None), |line| (line.action, Some(line.rule_index)))
    }
}

/// The operator asked for more than the table holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentProblem {
    #[error(
        "from `{from}` to `{to}` more than {PAIR_RULES_MAX} segment rules apply; what follows the first {} is denied; \
         join ports into ranges, or allow or deny more with one rule",
        PAIR_RULES_MAX - 1
    )]
    PairOverflow {
        /// A workload of the class, or `world` or `host`.
        from: String,
        to: String,
    },
    #[error(
        "the segment rules tell more than {} kinds of containers apart; all traffic of {workloads} is denied, beginning with `{first}`; \
         use fewer different selectors",
        CLASSES_MAX - 3
    )]
    TooManyClasses { first: String, workloads: usize },
}

/// What [`Segmenter::update`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segmented {
    pub table: SegmentTable,
    /// The class of each workload, in the order given. Workloads on the host's network have [`ClassId::HOST`].
    pub classes: Vec<ClassId>,
    pub problems: Vec<SegmentProblem>,
}

/// Compiles once. A long-lived caller keeps a [`Segmenter`], for the numbers to stay.
pub fn compile_segments(policy: &PolicySnapshot, workloads: &[Workload]) -> Segmented {
    Segmenter::new(policy).update(workloads)
}

/// The segment rules of one snapshot, and the numbers given to classes so far.
#[derive(Debug, Clone)]
pub struct Segmenter {
    default: Action,
    /// What `from` and `to` of the rules name, each once.
    peers: Vec<Peer>,
    rules: Vec<Rule>,
    /// Classes in use at the last update, by the peers that match them.
    numbers: BTreeMap<Bits, ClassId>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Places in `peers`.
    from: usize,
    to: usize,
    lines: Vec<PortRule>,
}

impl Segmenter {
    pub fn new(policy: &PolicySnapshot) -> Self {
        let mut peers: Vec<Peer> = Vec::new();
        let mut place = |peer: &Peer| {
            peers.iter().position(|known| known == peer).unwrap_or_else(|| {
                peers.push(peer.clone());
                peers.len() - 1
            })
        };
        let numbered = policy.segment_rules().iter().zip(0u16..);
        let rules =
            numbered.map(|(rule, index)| Rule { from: place(&rule.from), to: place(&rule.to), lines: lines_of(rule, index) }).collect();
        Self { default: policy.segment_default(), peers, rules, numbers: BTreeMap::new() }
    }

    /// The table for the workloads that run now. Classes that were in use at the last update keep their numbers; the
    /// numbers of those no longer in use are given away again.
    pub fn update(&mut self, workloads: &[Workload]) -> Segmented {
        let mut problems = Vec::new();
        let matched = self.matched(workloads);
        let unclassed = self.number(&matched);
        let mut members: BTreeMap<ClassId, (Bits, String)> = BTreeMap::new();
        let special = |is: fn(&Peer) -> bool| self.peers.iter().map(|peer| matches!(peer, Peer::Any) || is(peer)).collect::<Bits>();
        members.insert(ClassId::WORLD, (special(|peer| matches!(peer, Peer::World)), "world".to_owned()));
        members.insert(ClassId::HOST, (special(|peer| matches!(peer, Peer::Host)), "host".to_owned()));
        let mut classes = Vec::with_capacity(workloads.len());
        let mut without_class: Vec<&str> = Vec::new();
        for (workload, matched) in workloads.iter().zip(matched) {
            let class = match matched {
                None => ClassId::HOST,
                Some(bits) if unclassed.contains(&bits) => {
                    without_class.push(&workload.name);
                    ClassId::UNCLASSED
                }
                Some(bits) => {
                    let class = self.numbers.get(&bits).copied().unwrap_or(ClassId::UNCLASSED);
                    members.entry(class).or_insert_with(|| (bits, workload.name.clone()));
                    class
                }
            };
            classes.push(class);
        }
        let mut pairs = self.pairs(&members, &mut problems);
        if let Some(first) = without_class.first() {
            problems.push(SegmentProblem::TooManyClasses { first: (*first).to_owned(), workloads: without_class.len() });
            let deny = vec![PortRule { proto: 0, port_lo: 0, port_hi: u16::MAX, action: Action::Deny, rule_index: RULE_UNCLASSED }];
            for class in members.keys().copied().chain([ClassId::UNCLASSED]) {
                pairs.insert((class, ClassId::UNCLASSED), deny.clone());
                pairs.insert((ClassId::UNCLASSED, class), deny.clone());
            }
        }
        Segmented { table: SegmentTable { default: self.default, pairs }, classes, problems }
    }

    /// Which peers match each workload. `None`: it is on the host's network. Workloads that share a namespace share
    /// their packets, so what matches one matches all.
    fn matched(&self, workloads: &[Workload]) -> Vec<Option<Bits>> {
        let own = |workload: &Workload| -> Option<Bits> {
            if matches!(workload.network, Network::Host) {
                return None;
            }
            let is = |peer: &Peer| match peer {
                Peer::Any => true,
                Peer::World | Peer::Host => false,
                Peer::Containers(selector) => selector.matches(workload),
            };
            Some(self.peers.iter().map(is).collect())
        };
        let mut matched: Vec<Option<Bits>> = workloads.iter().map(own).collect();
        let mut shared: BTreeMap<u64, Bits> = BTreeMap::new();
        for (workload, bits) in workloads.iter().zip(&matched) {
            if let (Some(netns), Some(bits)) = (netns_of(workload), bits) {
                shared.entry(netns).and_modify(|all| all.join(bits)).or_insert_with(|| bits.clone());
            }
        }
        for (workload, bits) in workloads.iter().zip(&mut matched) {
            if let Some(all) = netns_of(workload).and_then(|netns| shared.get(&netns)) {
                *bits = Some(all.clone());
            }
        }
        matched
    }

    /// Forgets classes without workloads, numbers new ones with the lowest free numbers in the order in which they come.
    /// Returns those for which none was left.
    fn number(&mut self, matched: &[Option<Bits>]) -> BTreeSet<Bits> {
        let used: BTreeSet<&Bits> = matched.iter().flatten().collect();
        self.numbers.retain(|bits, _| used.contains(bits));
        let taken: BTreeSet<ClassId> = self.numbers.values().copied().collect();
        let mut free = (ClassId::FIRST_CONTAINER.0..ClassId::UNCLASSED.0).map(ClassId).filter(|class| !taken.contains(class));
        let mut none_left = BTreeSet::new();
        for bits in matched.iter().flatten() {
            if self.numbers.contains_key(bits) {
                continue;
            }
            match free.next() {
                Some(class) => drop(self.numbers.insert(bits.clone(), class)),
                None => drop(none_left.insert(bits.clone())),
            }
        }
        none_left
    }

    /// The lines of each pair of classes about which a rule speaks.
    fn pairs(
        &self,
        members: &BTreeMap<ClassId, (Bits, String)>,
        problems: &mut Vec<SegmentProblem>,
    ) -> BTreeMap<(ClassId, ClassId), Vec<PortRule>> {
        // Which rules a class takes part in, on which side; a pair is then one `and`.
        let side = |bits: &Bits, peer: fn(&Rule) -> usize| self.rules.iter().map(|rule| bits.has(peer(rule))).collect::<Bits>();
        let sides: Vec<(ClassId, &str, Bits, Bits)> = members
            .iter()
            .map(|(class, (bits, name))| (*class, name.as_str(), side(bits, |rule| rule.from), side(bits, |rule| rule.to)))
            .collect();
        let mut seen: BTreeMap<Bits, (Vec<PortRule>, bool)> = BTreeMap::new();
        let mut pairs = BTreeMap::new();
        for (src, src_name, as_src, _) in &sides {
            for (dst, dst_name, _, as_dst) in &sides {
                let rules = as_src.meet(as_dst);
                let (lines, complete) = seen.entry(rules).or_insert_with_key(|rules| self.lines(rules));
                if !*complete && problems.len() < crate::DIAGNOSTICS_MAX {
                    problems.push(SegmentProblem::PairOverflow { from: (*src_name).to_owned(), to: (*dst_name).to_owned() });
                }
                if !lines.is_empty() {
                    pairs.insert((*src, *dst), lines.clone());
                }
            }
        }
        pairs
    }

    /// The lines of some rules, in order, without those that can never decide. `false`: not all of them fit.
    fn lines(&self, rules: &Bits) -> (Vec<PortRule>, bool) {
        let mut lines: Vec<PortRule> = Vec::new();
        let matching = self.rules.iter().enumerate().filter(|(at, _)| rules.has(*at));
        for line in matching.flat_map(|(_, rule)| &rule.lines) {
            if lines.iter().any(|earlier| covers(earlier, line)) {
                continue;
            }
            lines.push(*line);
            if covers_all(line) || lines.len() > PAIR_LINES_CONSIDERED_MAX {
                break;
            }
        }
        // The default says the same; only the rule's name is lost.
        while lines.len() > PAIR_RULES_MAX && lines.last().is_some_and(|last| last.action == self.default) {
            lines.pop();
        }
        if lines.len() <= PAIR_RULES_MAX {
            return (lines, true);
        }
        lines.truncate(PAIR_RULES_MAX - 1);
        lines.push(PortRule { proto: 0, port_lo: 0, port_hi: u16::MAX, action: Action::Deny, rule_index: RULE_OVERFLOW });
        (lines, false)
    }
}

/// A rule as lines: one for each protocol and run of ports.
fn lines_of(rule: &SegmentRule, rule_index: u16) -> Vec<PortRule> {
    let protos: &[u8] = match &rule.proto {
        Proto::Any => &[0],
        Proto::Icmp => &[1, 58],
        Proto::Number(number) => std::slice::from_ref(number),
    };
    let ports = if rule.ports.is_empty() { vec![PortRange { low: 0, high: u16::MAX }] } else { join_ranges(&rule.ports) };
    let line = |proto: u8, ports: &PortRange| PortRule { proto, port_lo: ports.low, port_hi: ports.high, action: rule.action, rule_index };
    protos.iter().flat_map(|proto| ports.iter().map(|ports| line(*proto, ports)).collect::<Vec<_>>()).collect()
}

/// Sorted, overlapping and neighbouring ranges joined.
pub(crate) fn join_ranges(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if u32::from(range.low) <= u32::from(last.high) + 1 => last.high = last.high.max(range.high),
            _ => joined.push(range),
        }
    }
    joined
}

fn covers(wide: &PortRule, narrow: &PortRule) -> bool {
    (wide.proto == 0 || wide.proto == narrow.proto) && wide.port_lo <= narrow.port_lo && narrow.port_hi <= wide.port_hi
}

fn covers_all(line: &PortRule) -> bool {
    line.proto == 0 && line.port_lo == 0 && line.port_hi == u16::MAX
}

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    fn meet(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(word, other)| word & other).collect())
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Self {
        let mut words = Vec::new();
        for (at, bit) in bits.into_iter().enumerate() {
            if at % 64 == 0 {
                words.push(0);
            }
            if let Some(word) = words.last_mut() {
                *word |= u64::from(bit) << (at % 64);
            }
        }
        Self(words)
    }
}
