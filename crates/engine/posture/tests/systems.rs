//! Recorded snapshots of systems, and what an audit finds on each: `tests/systems/NAME.json` and `NAME.expected`.
//! `BULKHEAD_BLESS=1 cargo test -p bulkhead-posture --test systems` writes the expectations anew; read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_posture::{HostSnapshot, Profile, Report, Status, Waivers, audit};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systems")
}

fn report(name: &str) -> Report {
    let bytes = fs::read(folder().join(format!("{name}.json"))).unwrap();
    let snapshot = HostSnapshot::parse(&bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
    audit(&snapshot, Profile::ContainerHost, &Waivers::default(), snapshot.taken / 86_400)
}

/// What failed, with its evidence; what is unknown; and how much passed or does not apply.
fn text(report: &Report) -> String {
    let counts = report.counts;
    let mut text = format!("score {}, passed {}, not applicable {}\n", report.score.value, counts.passed, counts.not_applicable);
    for status in [Status::Failed, Status::Unknown] {
        for finding in report.controls.iter().filter(|finding| finding.status == status) {
            let _ = writeln!(text, "{} {} {}", status.name(), finding.severity.name(), finding.id);
            for line in &finding.evidence {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

#[test]
fn every_recorded_system_has_the_findings_that_are_expected_and_no_others() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let path = folder().join(format!("{name}.expected"));
        let found = text(&report(&name));
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            fs::write(&path, found).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let missing =
            expected.lines().filter(|line| !found.lines().any(|other| other == *line)).map(|line| format!("{name}: no longer: {line}"));
        let more =
            found.lines().filter(|line| !expected.lines().any(|other| other == *line)).map(|line| format!("{name}: not expected: {line}"));
        wrong.extend(missing.chain(more));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn failed(report: &Report) -> Vec<&str> {
    report.controls.iter().filter(|finding| finding.status == Status::Failed).map(|finding| finding.id.as_str()).collect()
}

fn evidence<'a>(report: &'a Report, id: &str, container: &str) -> Option<&'a String> {
    report.find(id)?.evidence.iter().find(|line| line.starts_with(container))
}

/// Each of these is let pass by an auditor that compares orders with a list.
#[test]
fn the_six_tricks_are_found_by_the_kernels_truth_and_by_the_order_alone() {
    let report = report("debian-12-bad");
    for container in ["sneaky", "sneaky-stopped"] {
        for (id, what) in [
            ("container.engine-socket", "/run/docker.sock"),
            ("container.engine-data", "/var/lib/docker"),
            ("container.device-rules", "b *:* rwm"),
            ("container.mknod", "MKNOD"),
            ("container.unmasked-paths", ""),
            ("container.group-zero", "group 0"),
        ] {
            let found = evidence(&report, id, &format!("{container} ")).unwrap_or_else(|| panic!("{id} does not find {container}"));
            assert!(found.contains(what), "{id}: {found}");
        }
    }
    // An ordinary container beside them is told of none of it.
    for finding in report
        .controls
        .iter()
        .filter(|finding| finding.id.starts_with("container.") && finding.severity >= bulkhead_posture::Severity::High)
    {
        assert!(
            !finding.evidence.iter().any(|line| line.starts_with("web ")) || finding.status == Status::Passed,
            "{}: {:?}",
            finding.id,
            finding.evidence
        );
    }
}

#[test]
fn systems_made_for_containers_are_recognised() {
    for (name, made) in [
        ("flatcar", true),
        ("bottlerocket", true),
        ("talos", true),
        ("debian-12-stock", false),
        ("ubuntu-24.04", false),
        ("alpine-3.22", false),
        ("fedora-41", false),
    ] {
        let report = report(name);
        let status = report.find("distribution.made-for-containers").map(|finding| finding.status);
        assert_eq!(status == Some(Status::Passed), made, "{name}");
    }
}

#[test]
fn a_hardened_host_is_better_than_a_stock_one_and_a_bad_one_is_worse() {
    let score = |name| report(name).score.value;
    assert!(score("debian-12-hardened") > score("debian-12-stock"));
    assert!(score("debian-12-stock") > score("debian-12-bad"));
    let critical = report("debian-12-bad");
    assert!(failed(&critical).len() > 100, "{}", failed(&critical).len());
}
