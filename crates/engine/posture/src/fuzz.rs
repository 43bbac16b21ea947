//! The body of a fuzz target, replayed over a small corpus by the tests.

use crate::control::{Profile, Status};
use crate::plan::{Selection, plan};
use crate::snapshot::HostSnapshot;
use crate::waiver::Waivers;

/// Takes bytes for a recorded snapshot and, where they are one, holds the promises of this crate against it: every
/// control answers with evidence, every report can be written, every plan has the way back. Panics where one is broken.
pub fn fuzz_snapshot(bytes: &[u8]) {
    let Ok(snapshot) = HostSnapshot::parse(bytes) else { return };
    for profile in Profile::ALL {
        let report = crate::audit(&snapshot, profile, &Waivers::default(), snapshot.taken / 86_400);
        for finding in &report.controls {
            assert!(!finding.evidence.is_empty() && finding.evidence.iter().all(|line| !line.is_empty()), "{}: no evidence", finding.id);
            assert!(finding.status != Status::Failed || !finding.remediation.is_empty(), "{}: no remedy", finding.id);
        }
        assert!(report.score.value <= 100);
        let sarif = crate::sarif::render(&report);
        assert_eq!(sarif["runs"][0]["results"].as_array().map(Vec::len), Some(report.controls.len()));
        assert!(crate::junit::render(&report).ends_with("</testsuites>\n"));
        assert!(crate::html::render(&report).ends_with("</html>\n"));
        for step in plan(&snapshot, profile, &Selection::Profile).steps {
            assert!(!step.changes.is_empty(), "{}: a step without change", step.control);
        }
        // What was recorded is read back as it was.
        let again = serde_json::to_vec(&snapshot).unwrap_or_default();
        assert_eq!(HostSnapshot::parse(&again).as_ref(), Ok(&snapshot));
    }
}
