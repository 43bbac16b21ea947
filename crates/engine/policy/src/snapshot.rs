//! The policy in force: immutable, numbered, and able to tell the settings of any workload.

use bulkhead_model::{Mode, Network, Workload};
use serde::Serialize;

use crate::config::{Action, Config, Fail, Inspection, SegmentRule, WorkloadRule};
use crate::selector::Selector;
use crate::setting::Setting;
use crate::{OVERRIDE_RULES_MAX, Origin, RULE_NONE, RULE_OVERFLOW, RULE_UNCLASSED};

/// Name of the file in `conf.d/` that run-time overrides are written to.
pub const OVERRIDES_FILE: &str = "90-overrides.yaml";

/// What holds for one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub mode: Mode,
    pub fail: Fail,
    pub inspect: Inspection,
}

/// A compiled configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySnapshot {
    revision: u64,
    /// For workloads about which no rule says otherwise.
    default: Settings,
    /// Overrides first, then the rules of the configuration, then overrides for all: these are a default.
    workload_rules: Vec<WorkloadRule>,
    pub(crate) segment_default: Action,
    pub(crate) segment_rules: Vec<SegmentRule>,
}

impl PolicySnapshot {
    /// `revision` is what events carry. Cannot fail: a [`Config`] holds only what is usable.
    pub fn compile(config: &Config, revision: u64) -> Self {
        Self {
            revision,
            default: Settings { mode: config.mode, fail: config.fail, inspect: Inspection::All },
            workload_rules: {
                let (for_all, overrides): (Vec<_>, Vec<_>) = config.overrides.iter().partition(|rule| rule.match_.is_everything());
                overrides.into_iter().chain(&config.workloads).chain(for_all).cloned().collect()
            },
            segment_default: config.segments.default,
            segment_rules: config.segments.rules.clone(),
        }
    }

    pub const fn revision(&self) -> u64 {
        self.revision
    }

    pub fn mode_of(&self, workload: &Workload) -> Mode {
        self.first(workload, |rule| rule.mode).map_or(self.default.mode, |(mode, _)| mode)
    }

    pub fn fail_of(&self, workload: &Workload) -> Fail {
        self.first(workload, |rule| rule.fail).map_or(self.default.fail, |(fail, _)| fail)
    }

    pub fn inspect_of(&self, workload: &Workload) -> Inspection {
        self.first(workload, |rule| rule.inspect).map_or(self.default.inspect, |(inspect, _)| inspect)
    }

    pub fn settings_of(&self, workload: &Workload) -> Settings {
        Settings { mode: self.mode_of(workload), fail: self.fail_of(workload), inspect: self.inspect_of(workload) }
    }

    /// What holds for the host and the world, which no selector matches.
    pub const fn default_settings(&self) -> Settings {
        self.default
    }

    /// The settings of each workload, in the order given. Workloads that share one network namespace share one path:
    /// for all of them the strictest of their settings holds (`protect`, `closed`, `all`).
    pub fn resolve(&self, workloads: &[Workload]) -> Vec<Settings> {
        let own: Vec<Settings> = workloads.iter().map(|workload| self.settings_of(workload)).collect();
        let mut strictest: std::collections::BTreeMap<u64, Settings> = std::collections::BTreeMap::new();
        for (workload, settings) in workloads.iter().zip(&own) {
            if let Some(netns) = netns_of(workload) {
                strictest.entry(netns).and_modify(|all| *all = all.strictest(*settings)).or_insert(*settings);
            }
        }
        let shared = |workload: &Workload| netns_of(workload).and_then(|netns| strictest.get(&netns)).copied();
        workloads.iter().zip(own).map(|(workload, own)| shared(workload).unwrap_or(own)).collect()
    }

    /// Which rule gave a workload its mode, fail and inspect, in this order. `None`: the default of the configuration.
    pub fn origins_of(&self, workload: &Workload) -> [Option<&Origin>; 3] {
        [
            self.first(workload, |rule| rule.mode).map(|(_, rule)| &rule.origin),
            self.first(workload, |rule| rule.fail).map(|(_, rule)| &rule.origin),
            self.first(workload, |rule| rule.inspect).map(|(_, rule)| &rule.origin),
        ]
    }

    pub fn segment_rules(&self) -> &[SegmentRule] {
        &self.segment_rules
    }

    pub const fn segment_default(&self) -> Action {
        self.segment_default
    }

    /// The name of a segment rule by the number that the kernel reports: its own, or its place in the list.
    pub fn segment_rule_name(&self, index: u16) -> String {
        match index {
            RULE_NONE => "segments.default".to_owned(),
            RULE_OVERFLOW => "more segment rules than one pair of workloads can hold".to_owned(),
            RULE_UNCLASSED => "more kinds of workloads than the segment table can hold".to_owned(),
            _ => {
                let name = self.segment_rules.get(usize::from(index)).and_then(|rule| rule.name.clone());
                name.unwrap_or_else(|| format!("segments.rules[{index}]"))
            }
        }
    }

    fn first<T>(&self, workload: &Workload, field: impl Fn(&WorkloadRule) -> Option<T>) -> Option<(T, &WorkloadRule)> {
        let mut said = self.workload_rules.iter().filter_map(|rule| field(rule).map(|value| (value, rule)));
        said.find(|(_, rule)| rule.match_.matches(workload))
    }
}

impl Settings {
    fn strictest(self, other: Self) -> Self {
        let inspect = match (self.inspect, other.inspect) {
            (Inspection::Bypass, Inspection::Bypass) => Inspection::Bypass,
            _ => Inspection::All,
        };
        Self { mode: pair_mode(self.mode, other.mode), fail: pair_fail(self.fail, other.fail), inspect }
    }
}

/// Whether judgements on traffic between two ends are carried out: if one of them is in `protect`.
pub const fn pair_mode(a: Mode, b: Mode) -> Mode {
    match (a, b) {
        (Mode::Monitor, Mode::Monitor) => Mode::Monitor,
        (Mode::Protect, _) | (_, Mode::Protect) => Mode::Protect,
    }
}

/// What happens to traffic between two ends that nobody can judge: it is dropped if one of them says so.
pub const fn pair_fail(a: Fail, b: Fail) -> Fail {
    match (a, b) {
        (Fail::Open, Fail::Open) => Fail::Open,
        (Fail::Closed, _) | (_, Fail::Closed) => Fail::Closed,
    }
}

/// The network namespace that a workload's packets come from. `None`: the host's, or not known.
pub(crate) fn netns_of(workload: &Workload) -> Option<u64> {
    match workload.network {
        Network::Own { netns } | Network::Shared { netns, .. } => Some(netns).filter(|netns| *netns != 0),
        Network::Host => None,
    }
}

/// Puts an override in front of the others: a new one is stronger than what was there before. One with the same
/// selector is replaced. `false`: there are [`OVERRIDE_RULES_MAX`] already, and nothing was changed.
#[must_use]
pub fn set_override(overrides: &mut Vec<WorkloadRule>, selector: Selector, mode: Mode) -> bool {
    let replaced = overrides.iter().position(|rule| rule.match_ == selector);
    if replaced.is_none() && overrides.len() >= OVERRIDE_RULES_MAX {
        return false;
    }
    let old = replaced.map(|at| overrides.remove(at));
    let (fail, inspect, comment) = old.map_or((None, None, None), |old| (old.fail, old.inspect, old.comment));
    let origin = Origin { source: OVERRIDES_FILE.to_owned(), line: 0, column: 0 };
    overrides.insert(0, WorkloadRule { match_: selector, mode: Some(mode), fail, inspect, comment, origin });
    true
}

/// Takes the override with this selector away. `false`: there was none.
pub fn unset_override(overrides: &mut Vec<WorkloadRule>, selector: &Selector) -> bool {
    let before = overrides.len();
    overrides.retain(|rule| rule.match_ != *selector);
    overrides.len() != before
}

/// The text of `conf.d/90-overrides.yaml`. [`crate::parse`] reads the same rules back.
pub fn render_overrides(overrides: &[WorkloadRule]) -> String {
    let mut text = "# Written by `bulkhead mode`. Rules added by hand are kept, comments are not.\n".to_owned();
    if overrides.is_empty() {
        text.push_str("overrides: []\n");
        return text;
    }
    text.push_str("overrides:\n");
    for rule in overrides {
        // JSON is YAML; one rule a line.
        text.push_str("  - ");
        text.push_str(&yaml_flow(&rule.show()));
        text.push('\n');
    }
    text
}

/// JSON text, with the few characters escaped that YAML reads otherwise within double quotes.
fn yaml_flow(value: &serde_json::Value) -> String {
    let escape = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    value.to_string().chars().map(escape).collect()
}
