//! `threshold.config`: suppressions, thresholds and rate filters of rules that somebody else wrote.
//!
//! ```text
//! suppress gen_id 1, sig_id 2002087, track by_src, ip [198.51.100.0/24,!198.51.100.9]
//! threshold gen_id 1, sig_id 2002087, type limit, track by_src, count 1, seconds 60
//! rate_filter gen_id 1, sig_id 2002087, track by_rule, count 100, seconds 60, new_action drop, timeout 600
//! ```
//! Source: Suricata user guide, "Global-Thresholds"; `event_filter` is another word for `threshold`.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Problem};
use crate::header::{self, Action, AddressExpr, shorten};
use crate::source::logical_lines;
use crate::tree::{Body, Rule, Threshold, Track};

/// Entries in one file; more are passed over and reported.
const ENTRIES_MAX: usize = 65_536;
/// Entries about all rules (of a generator), which meet every rule.
const GENERAL_MAX: usize = 64;

/// All entries of a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    pub suppressions: Vec<Suppression>,
    pub thresholds: Vec<GlobalThreshold>,
    pub rate_filters: Vec<RateFilter>,
}

/// Which rules an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `None`: of every generator.
    pub gid: Option<u32>,
    /// `None`: all of the generator.
    pub sid: Option<u32>,
}

impl Rules {
    pub fn contains(self, gid: u32, sid: u32) -> bool {
        self.gid.is_none_or(|only| only == gid) && self.sid.is_none_or(|only| only == sid)
    }
}

/// The rule's alerts are not raised; what it does to the packet is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    pub rules: Rules,
    /// `None`: whoever it is.
    pub addresses: Option<(SuppressionSide, AddressExpr)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuppressionSide {
    Source,
    Destination,
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalThreshold {
    pub rules: Rules,
    pub threshold: Threshold,
}

/// Another action for a time, once a rule matched too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateFilter {
    pub rules: Rules,
    pub track: Track,
    pub count: u32,
    pub seconds: u32,
    pub new_action: Action,
    pub timeout_seconds: u32,
}

impl Limits {
    /// Reads a file. Lines that cannot be read are reported and left out.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut read = Self::default();
        let mut diagnostics = Vec::new();
        for (entries, line) in logical_lines(text).filter(|line| !line.text.trim_start().starts_with('#')).enumerate() {
            let result = if entries < ENTRIES_MAX {
                read.entry(line.text.trim())
            } else {
                Err(Problem::new(Code::BadThresholdLine, format!("the file has more than {ENTRIES_MAX} entries")))
            };
            if let Err(problem) = result {
                diagnostics.push(problem.diagnostic(line.whole(), None));
            }
        }
        (read, diagnostics)
    }

    pub fn extend(&mut self, other: Self) {
        self.suppressions.extend(other.suppressions);
        self.thresholds.extend(other.thresholds);
        self.rate_filters.extend(other.rate_filters);
    }

    /// Gives rules what the entries say of them. An entry about one rule replaces the rule's own threshold; one about all is for the
    /// rules that have none.
    pub fn apply(&self, rules: &mut [Rule]) {
        if self.thresholds.is_empty() && self.suppressions.is_empty() && self.rate_filters.is_empty() {
            return;
        }
        let single = |rules: Rules| Some((rules.gid?, rules.sid?));
        let mut thresholds: BTreeMap<(u32, u32), Vec<Threshold>> = BTreeMap::new();
        let mut suppressions: BTreeMap<(u32, u32), Vec<&Suppression>> = BTreeMap::new();
        let general_thresholds: Vec<_> = self.thresholds.iter().filter(|entry| single(entry.rules).is_none()).take(GENERAL_MAX).collect();
        let general_suppressions: Vec<_> =
            self.suppressions.iter().filter(|entry| single(entry.rules).is_none()).take(GENERAL_MAX).collect();
        for entry in &self.thresholds {
            if let Some(one) = single(entry.rules) {
                thresholds.entry(one).or_default().push(entry.threshold);
            }
        }
        let mut rates: BTreeMap<(u32, u32), &RateFilter> = BTreeMap::new();
        let general_rates: Vec<_> = self.rate_filters.iter().filter(|entry| single(entry.rules).is_none()).take(GENERAL_MAX).collect();
        for entry in &self.rate_filters {
            if let Some(one) = single(entry.rules) {
                rates.insert(one, entry);
            }
        }
        for entry in &self.suppressions {
            if let Some(one) = single(entry.rules) {
                suppressions.entry(one).or_default().push(entry);
            }
        }
        for rule in rules {
            let signature = &mut rule.signature;
            let (gid, sid) = (signature.gid, signature.sid);
            if let Some(own) = thresholds.get(&(gid, sid)) {
                signature.thresholds.clone_from(own);
            } else if signature.thresholds.is_empty() {
                let all = general_thresholds.iter().filter(|entry| entry.rules.contains(gid, sid));
                signature.thresholds.extend(all.map(|entry| entry.threshold));
            }
            let general_rate = || general_rates.iter().find(|entry| entry.rules.contains(gid, sid)).copied();
            signature.rate_filter = rates.get(&(gid, sid)).copied().or_else(general_rate).copied();
            let own = suppressions.get(&(gid, sid)).into_iter().flatten();
            for entry in own.chain(general_suppressions.iter().filter(|entry| entry.rules.contains(gid, sid))) {
                match &entry.addresses {
                    None => signature.noalert = true,
                    Some(addresses) => signature.suppressions.push(addresses.clone()),
                }
            }
        }
    }

    /// Whether there may be one more entry like this.
    fn room(&self, rules: Rules) -> Result<(), Problem> {
        let general = |rules: &Rules| rules.gid.is_none() || rules.sid.is_none();
        if !general(&rules) {
            return Ok(());
        }
        let suppressions = self.suppressions.iter().map(|entry| &entry.rules).filter(|rules| general(rules)).count();
        let thresholds = self.thresholds.iter().map(|entry| &entry.rules).filter(|rules| general(rules)).count();
        let rates = self.rate_filters.iter().map(|entry| &entry.rules).filter(|rules| general(rules)).count();
        if suppressions.max(thresholds).max(rates) < GENERAL_MAX {
            return Ok(());
        }
        Err(Problem::new(Code::BadThresholdLine, format!("more than {GENERAL_MAX} entries are about all rules")))
    }

    fn entry(&mut self, line: &str) -> Result<(), Problem> {
        let bad = |message: String| Problem::new(Code::BadThresholdLine, message);
        let (kind, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let mut fields = Fields::read(rest)?;
        let rules = Rules { gid: fields.number("gen_id")?, sid: fields.number("sig_id")? };
        if rules.gid.is_none() && rules.sid.is_some() {
            return Err(bad("gen_id 0 stands for all, and so must sig_id".to_owned()));
        }
        self.room(rules)?;
        match kind {
            "suppress" => {
                let side = match fields.take("track") {
                    None => None,
                    Some("by_src") => Some(SuppressionSide::Source),
                    Some("by_dst") => Some(SuppressionSide::Destination),
                    Some("by_either") => Some(SuppressionSide::Either),
                    Some(other) => return Err(bad(format!("`{}` is not a side: use by_src, by_dst or by_either", shorten(other)))),
                };
                let addresses = match (side, fields.take("ip")) {
                    (None, None) => None,
                    (Some(side), Some(text)) => Some((side, header::address(text).map_err(|problem| bad(problem.message))?)),
                    _ => return Err(bad("track and ip stand together".to_owned())),
                };
                self.suppressions.push(Suppression { rules, addresses });
            }
            "threshold" | "event_filter" => {
                let keyword = crate::keyword::lookup("threshold").ok_or_else(|| bad(String::new()))?;
                let Ok(Body::Threshold(threshold)) = keyword.read(Some(&fields.rest())) else {
                    return Err(bad("give type, track, count and seconds".to_owned()));
                };
                self.thresholds.push(GlobalThreshold { rules, threshold });
                return Ok(());
            }
            "rate_filter" => {
                let track = match fields.take("track") {
                    Some("by_src") => Track::BySource,
                    Some("by_dst") => Track::ByDestination,
                    Some("by_rule") => Track::ByRule,
                    Some("by_both") => Track::ByBoth,
                    _ => return Err(bad("give track by_src, by_dst, by_both or by_rule".to_owned())),
                };
                let new_action = match fields.take("new_action") {
                    Some("alert") => Action::Alert,
                    Some("drop") => Action::Drop,
                    Some("pass") => Action::Pass,
                    Some("reject") => Action::RejectSource,
                    _ => return Err(bad("give new_action alert, drop, pass or reject".to_owned())),
                };
                let mut need = |name: &str| fields.number(name)?.ok_or_else(|| bad(format!("give {name}, from 1 up")));
                let (count, seconds, timeout_seconds) = (need("count")?, need("seconds")?, need("timeout")?);
                self.rate_filters.push(RateFilter { rules, track, count, seconds, new_action, timeout_seconds });
            }
            other => {
                return Err(
                    bad(format!("`{}` is not an entry", shorten(other))).help("write suppress, threshold, event_filter or rate_filter")
                );
            }
        }
        match fields.members.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad(format!("`{}` has no meaning here", shorten(name)))),
        }
    }
}

/// `name value, name value`, where a value in brackets may have commas.
struct Fields<'a> {
    members: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, Problem> {
        let mut members = Vec::new();
        let mut depth = 0usize;
        let split = text.split(move |character| {
            match character {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            character == ',' && depth == 0
        });
        for member in split.map(str::trim) {
            let (name, value) = member
                .split_once(char::is_whitespace)
                .ok_or_else(|| Problem::new(Code::BadThresholdLine, format!("`{}` is not a name and a value", shorten(member))))?;
            if members.len() >= 16 || members.iter().any(|(known, _)| *known == name) {
                return Err(Problem::new(Code::BadThresholdLine, format!("`{}` is given twice", shorten(name))));
            }
            members.push((name, value.trim()));
        }
        Ok(Self { members })
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.members.iter().position(|(known, _)| *known == name)?;
        Some(self.members.remove(at).1)
    }

    /// `None`: 0.
    fn number(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let bad = || Problem::new(Code::BadThresholdLine, format!("{name} is missing, or not a number"));
        let number: u32 = self.take(name).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    fn rest(&self) -> String {
        self.members.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::ThresholdKind;

    #[test]
    fn a_file_is_read_and_its_broken_lines_are_reported() {
        let text = "# comment
suppress gen_id 1, sig_id 5, track by_src, ip [198.51.100.0/24,!198.51.100.9]
suppress gen_id 0, sig_id 0
threshold gen_id 1, sig_id 6, type limit, track by_src, count 2, seconds 60
event_filter gen_id 1, sig_id 0, type both, track by_rule, count 2, seconds 60
rate_filter gen_id 1, sig_id 7, track by_rule, count 1, seconds 60, new_action drop, timeout 1000
this is not correct
suppress gen_id 1, sig_id 5, track by_src
rate_filter gen_id 1, sig_id 7, track by_rule, count 0, seconds 60, new_action drop, timeout 1000
threshold gen_id 1, sig_id 6, type limit, track by_src, count 2, seconds 60, seconds 70
suppress gen_id 0, sig_id 9
";
        let (read, diagnostics) = Limits::parse(text);
        assert_eq!(diagnostics.iter().map(|found| found.span.line).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
        assert!(diagnostics.iter().all(|found| found.code == Code::BadThresholdLine));
        assert_eq!((read.suppressions.len(), read.thresholds.len(), read.rate_filters.len()), (2, 2, 1));
        assert!(read.suppressions[0].rules.contains(1, 5) && !read.suppressions[0].rules.contains(1, 6));
        assert!(matches!(&read.suppressions[0].addresses, Some((SuppressionSide::Source, AddressExpr::List(list))) if list.len() == 2));
        assert!(read.suppressions[1].rules.contains(3, 77));
        assert_eq!(read.thresholds[0].threshold.kind, ThresholdKind::Limit);
        assert!(read.thresholds[1].rules.contains(1, 99) && !read.thresholds[1].rules.contains(2, 99));
        assert_eq!((read.rate_filters[0].new_action, read.rate_filters[0].timeout_seconds), (Action::Drop, 1000));
    }
}
