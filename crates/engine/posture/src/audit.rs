//! All controls over one snapshot, with waivers, counts and a score.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::control::{Area, Profile, Risk, Severity, Status};
use crate::controls::catalogue;
use crate::evaluate::evaluate;
use crate::snapshot::{Fact, HostSnapshot};
use crate::view::View;
use crate::waiver::{Waived, Waivers};

/// What is written: one object, whose `controls` are the findings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Seconds since 1970, when the snapshot was taken.
    pub taken: u64,
    pub hostname: String,
    pub system: String,
    pub profile: Profile,
    /// Was a running kernel judged, or a root directory alone?
    pub live: bool,
    pub as_root: bool,
    pub score: Score,
    pub counts: Counts,
    /// Failed and not waived, by severity.
    pub open: BTreeMap<&'static str, u32>,
    pub controls: Vec<Finding>,
    /// Waivers that waive nothing, and why: they have expired, or their control has passed.
    pub idle_waivers: Vec<String>,
    /// What was left out because a cap was reached.
    pub beyond_caps: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: String,
    pub title: String,
    pub area: Area,
    pub status: Status,
    pub severity: Severity,
    /// What was seen; for *unknown* and *not applicable* the reason.
    pub evidence: Vec<String>,
    pub remediation: String,
    pub rationale: &'static str,
    pub sources: Vec<&'static str>,
    pub risk: Risk,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub risk_note: &'static str,
    /// Can `bulkhead host harden` apply the remedy, and take it back?
    pub automatic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<Waived>,
}

impl Finding {
    pub fn is_open(&self) -> bool {
        self.status == Status::Failed && self.waiver.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub unknown: u32,
    pub not_applicable: u32,
    /// Of the failed ones.
    pub waived: u32,
}

/// 100 where nothing is open. What could not be judged counts as open with half its weight, so that a host that shows
/// nothing does not shine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    pub value: u32,
    /// Can others reach services of this host? If not, findings of its surface weigh half.
    pub exposed: bool,
    /// Does Bulkhead's agent run? Findings of containers then weigh half: their traffic is under inspection.
    pub guarded: bool,
}

pub fn audit(snapshot: &HostSnapshot, profile: Profile, waivers: &Waivers, today: u64) -> Report {
    let view = View::new(snapshot, profile);
    let mut controls = Vec::new();
    for control in catalogue().iter().filter(|control| control.stands_in(profile)) {
        let mut outcome = evaluate(control, &view);
        let waiver = match outcome.status {
            Status::Failed => waivers.waive(&control.id, &mut outcome.evidence, today),
            Status::Passed | Status::Unknown | Status::NotApplicable => None,
        };
        controls.push(Finding {
            id: control.id.clone(),
            title: control.title.clone(),
            area: control.area,
            status: outcome.status,
            severity: control.severity,
            evidence: outcome.evidence,
            remediation: control.remediation.clone(),
            rationale: control.rationale,
            sources: control.sources.clone(),
            risk: control.risk,
            risk_note: control.risk_note,
            automatic: crate::plan::is_automatic(control),
            waiver,
        });
    }
    let mut counts = Counts::default();
    let mut open: BTreeMap<&'static str, u32> = BTreeMap::new();
    for finding in &controls {
        match finding.status {
            Status::Passed => counts.passed += 1,
            Status::Failed => counts.failed += 1,
            Status::Unknown => counts.unknown += 1,
            Status::NotApplicable => counts.not_applicable += 1,
        }
        counts.waived += u32::from(finding.waiver.is_some());
        if finding.is_open() {
            *open.entry(finding.severity.name()).or_default() += 1;
        }
    }
    let system = snapshot.os_release.known().and_then(|map| map.get("PRETTY_NAME").or_else(|| map.get("ID"))).cloned();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        taken: snapshot.taken,
        hostname: snapshot.hostname.clone(),
        system: system.unwrap_or_else(|| "unknown".to_owned()),
        profile,
        live: snapshot.live,
        as_root: snapshot.as_root,
        score: score(&controls, &view),
        counts,
        open,
        idle_waivers: waivers.idle(&controls, today),
        controls,
        beyond_caps: snapshot.beyond_caps.clone(),
    }
}

/// Tenths of a weight.
fn score(findings: &[Finding], view: &View<'_>) -> Score {
    let listeners = view.snapshot.listeners.known();
    let exposed = listeners.is_none_or(|list| list.iter().any(|one| one.is_exposed()));
    let guarded = matches!(&view.snapshot.units, Fact::Known(units) if units.iter().any(|unit| unit.name == "bulkhead.service" && unit.active == Some(true)));
    let (mut lost, mut all) = (0, 0);
    for finding in findings {
        let mut weight = finding.severity.weight() * 10;
        if (finding.area == Area::Surface && !exposed) || (finding.area == Area::Container && guarded) {
            weight /= 2;
        }
        match finding.status {
            Status::NotApplicable => continue,
            Status::Passed => {}
            Status::Failed if finding.waiver.is_some() => {}
            Status::Failed => lost += weight,
            Status::Unknown => lost += weight / 2,
        }
        all += weight;
    }
    let value = if all == 0 { 0 } else { 100 - (lost * 100).div_ceil(all) };
    Score { value, exposed, guarded }
}

impl Report {
    /// Open findings of at least this severity.
    pub fn open_at_least(&self, severity: Severity) -> usize {
        self.controls.iter().filter(|finding| finding.is_open() && finding.severity >= severity).count()
    }

    pub fn find(&self, id: &str) -> Option<&Finding> {
        self.controls.iter().find(|finding| finding.id == id)
    }
}
