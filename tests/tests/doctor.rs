//! `bulkhead doctor` as a user runs it.

use std::process::{Command, Output, Stdio};

use bulkhead_kit::agent::program;
use bulkhead_kit::host::HostState;
use bulkhead_kit::{net, root_or_not_run};
use bulkhead_sys::netns::Netns;
use serde_json::Value;

fn doctor(at: &Netns, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("doctor").args(arguments).stdin(Stdio::null());
    at.run(|| command.output()).expect("entering the namespace").expect("starting the program")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn the_report_has_every_control_with_its_evidence() {
    let output = doctor(&Netns::current().expect("own namespace"), &["-o", "json"]);
    let report = report(&output);
    let array = |key: &str| report[key].as_array().unwrap_or_else(|| panic!("no {key}")).clone();
    let controls = array("controls");
    let ids: Vec<&str> = controls.iter().filter_map(|c| c["id"].as_str()).collect();
    assert_eq!(ids, ["path", "segmentation", "egress", "container-start", "file-open", "exec"]);
    for control in &controls {
        assert!(matches!(control["grade"].as_str(), Some("A" | "B" | "C" | "-")), "{control}");
        assert!(control["how"].as_str().is_some_and(|h| !h.is_empty()), "{control}");
        assert!(control["evidence"].as_array().is_some_and(|e| !e.is_empty()), "{control}");
        let full = control["grade"] == "A" || control["raise"].as_str().is_some_and(|r| !r.is_empty());
        assert!(full, "a grade below A says what would raise it: {control}");
    }
    assert!(array("probes").iter().all(|p| p["ok"].is_boolean() && p["micros"].is_u64() && p["detail"].is_string()));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    assert_eq!(report["kernel"].as_str(), Some(release.trim()));
    assert!(array("engines").iter().all(|e| e["endpoint"].is_string()));
    array("conflicts");
    let enforces = matches!(controls[0]["grade"].as_str(), Some("A" | "B"));
    assert_eq!(output.status.code(), Some(if enforces { 0 } else { 3 }));
}

#[test]
fn the_text_names_each_control_and_ends_with_a_verdict() {
    let output = doctor(&Netns::current().expect("own namespace"), &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    for control in ["network path", "segmentation", "egress", "container start", "file open", "exec"] {
        assert!(text.contains(control), "{control} is missing:\n{text}");
    }
    assert!(text.lines().last().is_some_and(|l| l.starts_with("This host can")), "{text}");
}

/// The machine's list of namespaces is left out: other tests change it meanwhile. Everything of the host's own network,
/// its settings, the mounts and the pinned objects must be the same.
#[test]
fn it_changes_nothing() {
    if !root_or_not_run("it_changes_nothing") {
        return;
    }
    let host = net::one_bridge("dochost");
    let mine = |line: &&str| {
        !line.contains(" namespaces: ") && !line.contains("nsfs") && !line.contains("/docker") && !line.contains(" runtime: ")
    };
    let before = HostState::take(host.host());
    let output = doctor(host.host(), &["-o", "json"]);
    let after = HostState::take(host.host());
    assert!(report(&output)["probes"].as_array().is_some_and(|p| p.len() > 20));
    let difference = HostState::difference(&before, &after);
    let left: Vec<&str> = difference.lines().filter(mine).filter(|l| !l.contains("bulkhead-")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_host_with_hooks_is_graded_by_what_works() {
    if !root_or_not_run("a_host_with_hooks_is_graded_by_what_works") {
        return;
    }
    let report = report(&doctor(&Netns::current().expect("own namespace"), &["-o", "json"]));
    let ok = |id: &str| report["probes"].as_array().is_some_and(|p| p.iter().any(|p| p["id"] == id && p["ok"] == true));
    let grade = |id: &str| report["controls"].as_array().and_then(|c| c.iter().find(|c| c["id"] == id)).map(|c| c["grade"].clone());
    if ok("tcx") && ok("tap") && ok("ring-buffer") {
        assert_eq!(grade("path"), Some("A".into()));
    } else {
        assert_ne!(grade("path"), Some("A".into()), "{report:#}");
    }
    assert_eq!(ok("fanotify-open"), grade("file-open") == Some("A".into()) && !ok("lsm"), "{report:#}");
}

#[test]
fn without_privileges_it_says_so_instead_of_failing() {
    if !root_or_not_run("without_privileges_it_says_so_instead_of_failing") {
        return;
    }
    // Nobody may be unable to reach the build directory: a copy where everybody can.
    let copy = std::env::temp_dir().join(format!("bulkhead-doctor-{}", std::process::id()));
    std::fs::copy(program(), &copy).expect("copying");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&copy)
        .arg("doctor")
        .output();
    std::fs::remove_file(&copy).expect("own file");
    let output = output.expect("starting setpriv");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Not run as root"), "{text}");
}
