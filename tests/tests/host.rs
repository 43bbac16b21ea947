//! `bulkhead host audit` beside a real Docker: what containers can reach is found by what the kernel says of them.

use std::process::{Command, Stdio};
use std::sync::Arc;

use bulkhead_kit::agent::program;
use bulkhead_kit::docker::{Dockerd, IMAGE};
use serde_json::Value;

/// Each of these is let pass by an auditor that compares the order with a list.
const TRICKS: [(&str, &str); 6] = [
    ("container.engine-socket", "docker.sock"),
    ("container.engine-data", "/data"),
    ("container.device-rules", "b *:* rwm"),
    ("container.mknod", "MKNOD"),
    ("container.unmasked-paths", ""),
    ("container.group-zero", "group 0"),
];

fn audit() -> Value {
    let output = Command::new(program()).args(["host", "audit", "--no-walk", "-o", "json"]).stdin(Stdio::null()).output();
    let output = output.expect("starting the program");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("an object")
}

/// What a control says of a container, bad or unknown. Other containers of the machine are no concern of the tests.
#[track_caller]
fn evidence(report: &Value, id: &str, container: &str) -> Option<String> {
    let control = report["controls"].as_array().expect("controls").iter().find(|control| control["id"] == id);
    let control = control.unwrap_or_else(|| panic!("there is no control {id}"));
    assert_ne!(control["status"], "not-applicable", "{id}: {}", control["evidence"]);
    let lines = control["evidence"].as_array().expect("evidence").iter().filter_map(Value::as_str);
    lines.filter(|line| line.starts_with(&format!("{container} ("))).map(str::to_owned).next()
}

fn options(docker: &Arc<Dockerd>) -> Vec<String> {
    let folder = docker.socket().parent().expect("its folder").display().to_string();
    let volumes = [format!("{folder}:/hr"), format!("{folder}/data:/vld")];
    let plain = ["--device-cgroup-rule", "b *:* rwm", "--cap-add", "MKNOD", "--security-opt", "systempaths=unconfined", "--group-add", "0"];
    volumes.iter().flat_map(|volume| ["-v".to_owned(), volume.clone()]).chain(plain.map(str::to_owned)).collect()
}

#[test]
fn the_six_tricks_are_found_in_running_and_stopped_containers_and_not_in_an_ordinary_one() {
    let Some(docker) = Dockerd::shared("the_six_tricks_are_found_in_running_and_stopped_containers_and_not_in_an_ordinary_one") else {
        return;
    };
    let options = options(&docker);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let _sneaky = docker.run("ha-sneaky", &options, &["sleep", "600"]);
    let _plain = docker.run("ha-plain", &[], &["sleep", "600"]);
    docker.must(&[&["create", "--name", "ha-made"][..], &options, &[IMAGE, "true"]].concat());
    let report = audit();
    docker.must(&["rm", "--force", "ha-made"]);
    for (id, what) in TRICKS {
        for container in ["ha-sneaky", "ha-made"] {
            let found = evidence(&report, id, container).unwrap_or_else(|| panic!("{id} does not find {container}"));
            assert!(found.contains(what), "{found}");
        }
        assert_eq!(evidence(&report, id, "ha-plain"), None, "{id}");
    }
    for id in ["container.privileged", "container.host-pid", "container.host-network", "container.seccomp", "container.declared-differs"] {
        assert_eq!(evidence(&report, id, "ha-plain"), None, "{id}");
    }
    let root = evidence(&report, "container.root-user", "ha-plain").expect("busybox runs as root");
    assert!(root.contains("user 0"), "{root}");
}

#[test]
fn namespaces_and_rights_are_read_from_the_kernel() {
    let Some(docker) = Dockerd::shared("namespaces_and_rights_are_read_from_the_kernel") else { return };
    let open = ["--pid", "host", "--uts", "host", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--user", "1000:0"];
    let _open = docker.run("ha-open", &open, &["sleep", "600"]);
    let limited = [
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "--read-only",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "1000:1000",
    ];
    let _limited = docker.run("ha-limited", &limited, &["sleep", "600"]);
    let report = audit();
    for id in ["container.host-pid", "container.host-uts", "container.dangerous-capabilities", "container.seccomp", "container.group-zero"]
    {
        assert!(evidence(&report, id, "ha-open").is_some(), "{id}");
        assert_eq!(evidence(&report, id, "ha-limited"), None, "{id}");
    }
    for id in
        ["container.memory-limit", "container.pids-limit", "container.read-only-root", "container.no-new-privileges", "container.root-user"]
    {
        assert_eq!(evidence(&report, id, "ha-limited"), None, "{id}");
    }
    assert!(evidence(&report, "container.memory-limit", "ha-open").is_some());
}
