//! A control as data: what is wanted, why, who says so, how it is looked at, what to do about it and what that may break.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::snapshot::Container;
use crate::view::View;

/// The six areas, and two that they are cut into for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    Distribution,
    Surface,
    Accounts,
    Kernel,
    Engine,
    Container,
    Kubernetes,
}

impl Area {
    pub const ALL: [Self; 7] =
        [Self::Distribution, Self::Surface, Self::Accounts, Self::Kernel, Self::Engine, Self::Container, Self::Kubernetes];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Distribution => "distribution",
            Self::Surface => "attack surface",
            Self::Accounts => "accounts and access",
            Self::Kernel => "kernel and boot",
            Self::Engine => "container engine",
            Self::Container => "containers",
            Self::Kubernetes => "Kubernetes node",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// What an open finding weighs in the score: each step is about three times the one below.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Info => 0,
            Self::Low => 1,
            Self::Medium => 3,
            Self::High => 10,
            Self::Critical => 30,
        }
    }
}

/// What applying the remedy may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// Nothing that is known.
    None,
    /// A rare tool or habit.
    Low,
    /// Something that hosts do use: look first.
    Medium,
    /// Whoever relies on it is cut off.
    High,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Passed,
    Failed,
    Unknown,
    NotApplicable,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Failed, Self::Unknown, Self::NotApplicable, Self::Passed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// What a control found. Evidence stands with every status: of *not applicable* and *unknown* it is the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    pub evidence: Vec<String>,
}

/// Lines of evidence of one control; more are counted.
pub const EVIDENCE_MAX: usize = 100;

impl Outcome {
    pub fn passed(evidence: impl Into<String>) -> Self {
        Self { status: Status::Passed, evidence: vec![evidence.into()] }
    }

    pub fn failed(evidence: impl Into<String>) -> Self {
        Self { status: Status::Failed, evidence: vec![evidence.into()] }
    }

    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { status: Status::Unknown, evidence: vec![reason.into()] }
    }

    pub fn not_applicable(reason: impl Into<String>) -> Self {
        Self { status: Status::NotApplicable, evidence: vec![reason.into()] }
    }

    /// Failed with a list, unless it is empty.
    pub fn of_list(found: Vec<String>, fine: impl Into<String>) -> Self {
        if found.is_empty() { Self::passed(fine) } else { Self { status: Status::Failed, evidence: capped(found) } }
    }

    /// As [`Self::of_list`]; with nothing bad found, what could not be read decides.
    pub fn of_lists(bad: Vec<String>, unread: Vec<String>, fine: impl Into<String>) -> Self {
        if bad.is_empty() && !unread.is_empty() {
            return Self { status: Status::Unknown, evidence: capped(unread) };
        }
        Self::of_list(bad, fine)
    }
}

fn capped(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(EVIDENCE_MAX);
    lines.truncate(EVIDENCE_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// What one container shows to one control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Fine,
    Bad(String),
    Unknown(String),
    /// The control says nothing of this container.
    Beside,
}

/// How a control is evaluated.
#[derive(Clone, Copy)]
pub enum Check {
    /// A setting below `/proc/sys`: the running value, and of a root without a kernel the one that files set.
    Sysctl {
        key: &'static str,
        want: Want,
        default: &'static str,
    },
    /// A kernel module cannot be loaded.
    ModuleBlocked(&'static str),
    MountOption {
        target: &'static str,
        option: &'static str,
    },
    /// Files have at most these permission bits, and one of these owners and groups.
    FileMode {
        paths: &'static [&'static str],
        mode_max: u32,
        owners: &'static [u32],
        groups: GroupWant,
    },
    /// A word of `sshd_config`.
    Ssh {
        keyword: &'static str,
        want: Want,
        default: &'static str,
    },
    /// None of these units is enabled or active.
    ServiceOff(&'static [&'static str]),
    PackagesAbsent(&'static [&'static str]),
    /// A look at each container.
    Containers(fn(&Container, &View<'_>) -> Seen),
    /// A field of the kubelet's configuration or its flag.
    Kubelet {
        field: &'static str,
        flag: &'static str,
        want: Want,
        default: &'static str,
    },
    /// A flag in a static pod's manifest.
    Manifest {
        component: &'static str,
        flag: &'static str,
        want: Want,
        default: Option<&'static str>,
    },
    Other(fn(&View<'_>) -> Outcome),
}

/// Which values are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// One of these, without regard to case.
    One(&'static [&'static str]),
    /// A number of at least, or at most, this.
    AtLeast(i64),
    AtMost(i64),
    Between(i64, i64),
    /// Present and not empty.
    Set,
    /// None of these is in the comma-separated list.
    NoneOf(&'static [&'static str]),
    /// This one is in the comma-separated list.
    Holds(&'static str),
}

impl Want {
    /// `None`: the value is not of the kind that this can be asked of.
    pub fn accepts(self, value: &str) -> Option<bool> {
        let number = || value.split_whitespace().next()?.parse::<i64>().ok();
        let items = || value.split(',').map(str::trim);
        Some(match self {
            Self::One(list) => list.iter().any(|one| one.eq_ignore_ascii_case(value)),
            Self::AtLeast(least) => number()? >= least,
            Self::AtMost(most) => number()? <= most,
            Self::Between(least, most) => (least..=most).contains(&number()?),
            Self::Set => !value.is_empty(),
            Self::NoneOf(list) => !items().any(|item| list.iter().any(|bad| bad.eq_ignore_ascii_case(item))),
            Self::Holds(wanted) => items().any(|item| item == wanted),
        })
    }

    pub fn text(self) -> String {
        match self {
            Self::One(list) => list.join(" or "),
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
            Self::Between(least, most) => format!("{least} to {most}"),
            Self::Set => "set".to_owned(),
            Self::NoneOf(list) => format!("without {}", list.join(", ")),
            Self::Holds(wanted) => format!("with {wanted}"),
        }
    }

    /// The value to set, where one word or number does it.
    pub fn value(self) -> Option<String> {
        match self {
            Self::One(list) => list.first().map(|&value| value.to_owned()),
            Self::AtLeast(number) | Self::AtMost(number) => Some(number.to_string()),
            Self::Between(_, most) => Some(most.to_string()),
            Self::Set | Self::NoneOf(_) | Self::Holds(_) => None,
        }
    }
}

/// Which group a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupWant {
    /// Any: the mode gives it nothing.
    Any,
    /// `root`, or the group of one of these names.
    RootOr(&'static [&'static str]),
}

/// In which profile a control stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// CIS without what breaks containers, and with what they need.
    ContainerHost,
    /// CIS to the letter, for a host without containers.
    Cis,
}

impl Profile {
    pub const ALL: [Self; 2] = [Self::ContainerHost, Self::Cis];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ContainerHost => "container-host",
            Self::Cis => "cis",
        }
    }
}

#[derive(Clone)]
pub struct Control {
    /// Stands in waivers and scripts: never changed, never given again.
    pub id: String,
    pub title: String,
    pub area: Area,
    pub severity: Severity,
    /// Who else asks for it: `CIS-Debian-12 1.5.1`, `CIS-Docker-1.6 5.4`, `KSPP`.
    pub sources: Vec<&'static str>,
    pub rationale: &'static str,
    pub remediation: String,
    pub risk: Risk,
    /// What the remedy may break, where it may.
    pub risk_note: &'static str,
    /// `None`: in every profile.
    pub only: Option<Profile>,
    /// Is the remedy part of `harden --profile`? Others are applied when they are named.
    pub in_profile: bool,
    pub check: Check,
}

impl Control {
    pub fn new(id: impl Into<String>, title: impl Into<String>, area: Area, severity: Severity, check: Check) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            area,
            severity,
            sources: Vec::new(),
            rationale: "",
            remediation: String::new(),
            risk: Risk::None,
            risk_note: "",
            only: None,
            in_profile: true,
            check,
        }
    }

    #[must_use]
    pub fn because(mut self, rationale: &'static str) -> Self {
        self.rationale = rationale;
        self
    }

    #[must_use]
    pub fn source(mut self, sources: &[&'static str]) -> Self {
        self.sources = sources.to_vec();
        self
    }

    #[must_use]
    pub fn remedy(mut self, remediation: impl Into<String>) -> Self {
        self.remediation = remediation.into();
        self
    }

    #[must_use]
    pub const fn risk(mut self, risk: Risk, note: &'static str) -> Self {
        self.risk = risk;
        self.risk_note = note;
        self
    }

    #[must_use]
    pub const fn only_in(mut self, profile: Profile) -> Self {
        self.only = Some(profile);
        self
    }

    /// The remedy is applied only when the control is named.
    #[must_use]
    pub const fn when_named(mut self) -> Self {
        self.in_profile = false;
        self
    }

    pub fn stands_in(&self, profile: Profile) -> bool {
        self.only.is_none_or(|only| only == profile)
    }
}

/// Worst first, then by area and id: the order in which findings are read.
pub fn by_weight(a: &Control, b: &Control) -> Ordering {
    b.severity.cmp(&a.severity).then(a.area.cmp(&b.area)).then(a.id.cmp(&b.id))
}
