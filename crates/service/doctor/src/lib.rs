//! What this host lets us enforce, found out by trying.
//!
//! [`examine`] tries each kernel hook on inert objects ([`probes`]), looks for container engines ([`engines`]) and
//! for other programs that judge the same traffic ([`conflicts`]), and grades each control ([`grade`]):
//! A blocks before the act, B cuts or kills what has begun, C only sees. It changes nothing on the host: every
//! object it makes lives in a namespace of its own and is gone when it returns.
#![forbid(unsafe_code)]

pub mod command;
pub mod conflicts;
pub mod engines;
pub mod grade;
pub mod host;
pub mod probes;
mod text;

use serde::Serialize;

pub use conflicts::Conflict;
pub use engines::Engine;
pub use grade::{Control, Grade};
pub use host::Host;
pub use probes::{Probe, Probed};

/// Everything `bulkhead doctor` knows; the object behind `-o json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Release, as `uname -r` says it.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub distribution: String,
    pub host: Host,
    pub controls: Vec<Control>,
    pub probes: Vec<Probe>,
    pub engines: Vec<Engine>,
    pub conflicts: Vec<Conflict>,
}

impl Report {
    /// Can the network path be enforced on this host, with either tier?
    pub fn can_enforce(&self) -> bool {
        self.controls.iter().any(|c| c.id == grade::PATH && matches!(c.grade, Grade::A | Grade::B))
    }

    /// The report for a person, `width` columns wide.
    pub fn to_text(&self, width: usize) -> String {
        text::report(self, width)
    }
}

/// Examines the host; takes well below two seconds, because every single wait is capped.
pub fn examine() -> Report {
    let (probed, engines, host) = std::thread::scope(|s| {
        let engines = s.spawn(engines::find);
        let host = s.spawn(host::look);
        let probed = probes::run_all();
        (probed, engines.join().unwrap_or_default(), host.join().unwrap_or_default())
    });
    Report {
        kernel: host.release.clone(),
        distribution: host.distribution.clone(),
        controls: grade::controls(&probed, &engines),
        conflicts: conflicts::find(),
        probes: probed.into_probes(),
        engines,
        host,
    }
}
