//! `bulkhead host`: judging recorded systems, hardening a root directory and taking that back, all by the program itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn host(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("host").args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn system(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/posture/tests/systems");
    folder.join(format!("{name}.json")).display().to_string()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Taken away on failure too.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-host-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_audit_is_one_object_with_controls_of_four_states() {
    let output = host(&["audit", "--snapshot", &system("debian-12-bad"), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = json(&output);
    let controls = report["controls"].as_array().unwrap();
    assert!(controls.len() > 350);
    for control in controls {
        assert!(["passed", "failed", "unknown", "not-applicable"].contains(&control["status"].as_str().unwrap()), "{control}");
        assert!(["info", "low", "medium", "high", "critical"].contains(&control["severity"].as_str().unwrap()), "{control}");
        assert!(
            control["id"].is_string() && control["remediation"].is_string() && !control["evidence"].as_array().unwrap().is_empty(),
            "{control}"
        );
    }
    assert!(report["open"]["critical"].as_u64().unwrap() > 10);
}

#[test]
fn reports_for_pipelines_are_written_and_the_exit_code_follows_the_severity() {
    let folder = Folder::new("reports");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let (sarif, junit, html) = (path("a.sarif"), path("a.xml"), path("a.html"));
    let bad = system("debian-12-hardened");
    let output = host(&[
        "audit",
        "--snapshot",
        &bad,
        &format!("--sarif={sarif}"),
        &format!("--junit={junit}"),
        &format!("--html={html}"),
        "--fail-on",
        "critical",
    ]);
    assert_eq!(output.status.code(), Some(0), "nothing critical is open: {}", text(&output.stdout));
    assert_eq!(host(&["audit", "--snapshot", &bad]).status.code(), Some(1));
    let sarif: Value = serde_json::from_slice(&fs::read(sarif).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["results"].as_array().unwrap().len(), run["tool"]["driver"]["rules"].as_array().unwrap().len());
    assert!(fs::read_to_string(junit).unwrap().contains("<testsuites name=\"bulkhead host audit\""));
    assert!(fs::read_to_string(html).unwrap().starts_with("<!doctype html>"));
    let output = host(&["audit", "--snapshot", &bad, "--sarif"]);
    assert_eq!(json(&output)["version"], "2.1.0");
    assert_eq!(host(&["audit", "--snapshot", &bad, "--sarif", "--html"]).status.code(), Some(2));
}

#[test]
fn waivers_take_findings_off_the_exit_code_and_broken_ones_are_refused() {
    let folder = Folder::new("waivers");
    let bad = system("kubeadm-control-plane");
    let before = json(&host(&["audit", "--snapshot", &bad, "-o", "json"]));
    let ids: Vec<&str> = before["controls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|control| control["status"] == "failed")
        .map(|control| control["id"].as_str().unwrap())
        .collect();
    let mut waivers = String::from("waivers:\n");
    for id in &ids {
        waivers += &format!("  - control: {id}\n    owner: tests\n    reason: all of them\n    expires: 2999-12-31\n");
    }
    let file = folder.file("waivers.yaml", &waivers);
    let output = host(&["audit", "--snapshot", &bad, "--waivers", &file, "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["counts"]["waived"].as_u64().unwrap() as usize, ids.len());
    let late = folder.file("late.yaml", &waivers.replace("2999", "2020"));
    let output = host(&["audit", "--snapshot", &bad, "--waivers", &late, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["idle_waivers"].as_array().unwrap().len(), ids.len());
    for (name, broken) in [
        ("a", waivers.replacen("owner: tests", "owner: ''", 1)),
        ("b", waivers.replacen(ids[0], "no.such-control", 1)),
        ("c", "- x".to_owned()),
    ] {
        let file = folder.file(name, &broken);
        let output = host(&["audit", "--snapshot", &bad, "--waivers", &file]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}

#[test]
fn what_is_no_snapshot_is_refused_as_the_askers_mistake() {
    let folder = Folder::new("refused");
    for (name, content) in
        [("empty", ""), ("object", "{}"), ("other", "{\"format\":99,\"taken\":0,\"hostname\":\"\",\"live\":false,\"as_root\":true}")]
    {
        let output = host(&["audit", "--snapshot", &folder.file(name, content)]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
    }
    assert_eq!(host(&["audit", "--snapshot", "/nonexistent"]).status.code(), Some(2));
    assert_eq!(host(&["harden"]).status.code(), Some(2));
    assert_eq!(host(&["harden", "no.such-control", "--plan"]).status.code(), Some(2));
}

#[test]
fn names_from_the_host_do_not_command_the_terminal() {
    let folder = Folder::new("terminal");
    let hostile = fs::read_to_string(system("debian-12-bad")).unwrap().replace("/opt/mine", "/opt/\\u001b[2Jmine");
    let output = host(&["audit", "--all", "--snapshot", &folder.file("hostile.json", &hostile)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stdout.contains(&0x1b), "an escape reached the terminal");
}

#[test]
fn this_host_is_audited_and_what_was_recorded_gives_the_same_findings() {
    let folder = Folder::new("live");
    let recorded = host(&["snapshot", "--no-walk"]);
    assert_eq!(recorded.status.code(), Some(0), "{}", text(&recorded.stderr));
    let file = folder.file("this.json", &text(&recorded.stdout));
    let replayed = json(&host(&["audit", "--snapshot", &file, "-o", "json"]));
    let live = json(&host(&["audit", "--no-walk", "-o", "json"]));
    // Containers, sockets and processes come and go between the two looks; accounts and files do not.
    let status = |report: &Value| -> Vec<(String, String)> {
        let list = report["controls"].as_array().unwrap().iter();
        let stable = list.filter(|control| ["accounts", "distribution"].contains(&control["area"].as_str().unwrap()));
        stable.map(|control| (control["id"].to_string(), control["status"].to_string())).collect()
    };
    assert_eq!(status(&live), status(&replayed));
}

#[test]
fn a_root_directory_is_hardened_and_taken_back_by_the_program() {
    let folder = Folder::new("root");
    folder.file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    folder.file("etc/passwd", "root:x:0:0::/root:/bin/bash\n");
    folder.file("etc/group", "root:x:0:\n");
    let daemon = folder.file("etc/docker/daemon.json", "{ \"log-level\": \"debug\" }");
    folder.file("usr/bin/dockerd", "");
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o666)).unwrap();
    let root = folder.0.display().to_string();
    let plan = host(&["harden", "--root", &root, "--profile", "container-host", "--plan"]);
    assert_eq!(plan.status.code(), Some(0), "{}", text(&plan.stderr));
    assert!(text(&plan.stdout).contains("+   \"log-level\": \"info\""), "{}", text(&plan.stdout));
    assert_eq!(fs::read_to_string(&daemon).unwrap(), "{ \"log-level\": \"debug\" }", "a plan changes nothing");
    if !bulkhead_sys::process::is_root() {
        println!("NOT RUN: a_root_directory_is_hardened_and_taken_back_by_the_program: only root may harden");
        return;
    }
    let done = host(&["harden", "--root", &root, "--profile", "container-host"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let changed: Value = serde_json::from_slice(&fs::read(&daemon).unwrap()).unwrap();
    assert_eq!((changed["log-level"].as_str(), changed["live-restore"].as_bool()), (Some("info"), Some(true)));
    assert_eq!(fs::metadata(&daemon).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(folder.0.join("etc/sysctl.d/99-zz-bulkhead-kernel.kptr_restrict.conf").exists());
    let listed = json(&host(&["undo", "--root", &root, "-o", "json"]));
    assert!(listed["steps"].as_array().unwrap().len() > 10);
    let back = host(&["undo", "all", "--root", &root]);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back.stderr));
    assert_eq!(fs::read_to_string(&daemon).unwrap(), "{ \"log-level\": \"debug\" }");
    assert_eq!(fs::metadata(&daemon).unwrap().permissions().mode() & 0o777, 0o666);
    assert!(!folder.0.join("etc/sysctl.d").exists() && !folder.0.join("var").exists());
}

#[test]
fn a_changed_and_a_missing_file_are_told_and_changed_configuration_is_no_finding() {
    let folder = Folder::new("verify");
    // md5 of "x\n" and of "good\n".
    let (x, good) = ("401b30e3b8b5d629635a5c613cdb7919", "d7f986677d9f563bd1794b09d82206a3");
    folder.file("usr/bin/fine", "x\n");
    folder.file("etc/app.conf", "changed by hand\n");
    folder.file(
        "var/lib/dpkg/status",
        &format!(
            "Package: app\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nConffiles:\n /etc/app.conf {good}\nDescription: x\n"
        ),
    );
    folder.file("var/lib/dpkg/info/app.list", "/usr/bin/fine\n");
    folder.file("var/lib/dpkg/info/app.md5sums", &format!("{x}  usr/bin/fine\n"));
    let root = folder.0.display().to_string();
    let output = host(&["verify", "--root", &root, "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(json(&output)["differences"][0]["configuration"], true);
    folder.file("usr/bin/fine", "y\n");
    folder.file("var/lib/dpkg/info/app.md5sums", &format!("{x}  usr/bin/fine\n{x}  usr/bin/gone\n"));
    let output = host(&["verify", "--root", &root, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Vec<String> =
        json(&output)["differences"].as_array().unwrap().iter().map(|one| format!("{} {}", one["what"], one["path"])).collect();
    assert!(
        found.contains(&"\"changed\" \"/usr/bin/fine\"".to_owned()) && found.contains(&"\"missing\" \"/usr/bin/gone\"".to_owned()),
        "{found:?}"
    );
}
