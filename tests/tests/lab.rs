//! `bulkhead lab` and `bulkhead run --lab` as a user runs them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bulkhead_kit::agent::{Agent, AgentPlan, program};
use bulkhead_kit::docker::Dockerd;
use bulkhead_kit::net::Net;
use bulkhead_kit::process::{Process, SIGINT, TempDir};
use bulkhead_kit::{root_or_not_run, wait_until};
use bulkhead_sys::netlink::Netlink;
use bulkhead_sys::netns::Netns;
use serde_json::Value;

/// A lab has one set of names on a machine, so these tests take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A namespace that plays the host; its nodes are not needed.
fn host(tag: &str) -> Net {
    Net::build(tag, Vec::new())
}

fn lab(at: &Netns, socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(["--socket".as_ref(), socket.as_os_str()]).arg("lab").args(arguments).stdin(Stdio::null());
    at.run(|| command.output()).expect("entering the namespace").expect("starting the program")
}

fn story(output: &Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
}

fn step<'a>(story: &'a Value, id: &str) -> &'a Value {
    let steps = story["steps"].as_array().expect("steps");
    steps.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("no step {id}: {story:#}"))
}

/// Nothing of a lab is on this host.
fn assert_gone(at: &Netns) {
    let links = Netlink::open_in(at).and_then(|mut n| n.links()).expect("listing links");
    assert!(links.iter().all(|l| !l.name.starts_with("bhlab")), "{links:?}");
    let left: Vec<_> = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with("lab-")), "{left:?}");
}

#[test]
fn without_an_agent_the_attack_arrives_and_the_exit_code_says_so() {
    if !root_or_not_run("without_an_agent_the_attack_arrives_and_the_exit_code_says_so") {
        return;
    }
    let _turn = turn();
    let host = host("labnone");
    let output = lab(host.host(), Path::new("/nonexistent/socket"), &["--runtime", "namespaces", "-o", "json"]);
    let story = story(&output);
    assert_eq!(output.status.code(), Some(3), "{story:#}");
    assert_eq!((&story["protected"], &story["ok"]), (&Value::Bool(false), &Value::Bool(true)), "{story:#}");
    assert!(step(&story, "attack")["seen"].as_str().is_some_and(|s| s.contains("uid=0(root)")), "{story:#}");
    assert_gone(host.host());
}

#[test]
fn with_an_agent_the_attack_is_alerted_then_blocked_and_benign_traffic_is_not() {
    if !root_or_not_run("with_an_agent_the_attack_is_alerted_then_blocked_and_benign_traffic_is_not") {
        return;
    }
    let _turn = turn();
    let host = host("labagent");
    let agent = Agent::start(&AgentPlan { tag: "labagent", host: Some(host.host()), built_in_rules: true, ..AgentPlan::default() });
    let before = agent.client().policy().expect("the policy in force");
    let output = lab(host.host(), agent.client().socket(), &["--runtime", "namespaces", "-o", "json"]);
    let story = story(&output);
    assert_eq!(story["ok"], Value::Bool(true), "{story:#}");
    assert_eq!(output.status.code(), Some(0));
    for id in
        ["monitor-alert", "protect-attack", "protect-split", "protect-ipv6", "protect-benign", "segment-ipv4", "segment-ipv6", "coverage"]
    {
        assert_eq!(step(&story, id)["ok"], Value::Bool(true), "{id}: {story:#}");
    }
    assert_gone(host.host());
    let after = agent.client().policy().expect("the policy in force");
    assert_eq!(after.text, before.text, "the lab's policy is gone with it");
    assert!(!agent.dir().path().join("conf.d/85-lab.yaml").exists());
}

#[test]
fn through_docker_the_story_is_the_same() {
    const NAME: &str = "through_docker_the_story_is_the_same";
    let Some(docker) = Dockerd::shared(NAME) else { return };
    let _turn = turn();
    let socket = docker.socket().display().to_string();
    let config = format!("inventory:\n  docker: {socket}\n");
    let agent = Agent::start(&AgentPlan {
        tag: "labdock",
        host: Some(docker.host()),
        config: &config,
        built_in_rules: true,
        ..AgentPlan::default()
    });
    let output = lab(docker.host(), agent.client().socket(), &["--runtime", "docker", "--docker-socket", &socket, "-o", "json"]);
    let story = story(&output);
    assert_eq!(story["ok"], Value::Bool(true), "{story:#}");
    assert_eq!(story["runtime"], "docker");
    assert_eq!(docker.must(&["ps", "--all", "--quiet", "--filter", "label=bulkhead.lab"]), "");
    assert_eq!(docker.must(&["network", "ls", "--quiet", "--filter", "label=bulkhead.lab"]), "");
    assert_eq!(docker.must(&["images", "--quiet", "bulkhead-lab"]), "");
}

#[test]
fn what_a_killed_lab_left_is_cleaned() {
    if !root_or_not_run("what_a_killed_lab_left_is_cleaned") {
        return;
    }
    let _turn = turn();
    let host = host("labkill");
    let dir = TempDir::new("labkill");
    // With an agent the story lasts some seconds: time to kill it in the middle.
    let agent = Agent::start(&AgentPlan { tag: "labkill", host: Some(host.host()), built_in_rules: true, ..AgentPlan::default() });
    let mut command = Command::new(program());
    command.args(["--socket".as_ref(), agent.client().socket().as_os_str()]).args(["lab", "--runtime", "namespaces"]);
    let mut running = Process::start("bulkhead lab", &mut command, &dir.path().join("lab.log"), |c| {
        host.host().run(|| c.spawn()).map_err(|e| std::io::Error::other(e.to_string()))?
    });
    let bridge = || Netlink::open_in(host.host()).and_then(|mut n| n.link_named("bhlab0")).ok().flatten();
    wait_until("the lab's bridge comes up", Duration::from_secs(10), || bridge().is_some());
    wait_until("the story begins", Duration::from_secs(10), || running.output().contains("on the path"));
    running.kill();
    assert!(bridge().is_some(), "a killed lab leaves its bridge");
    let cleaned = lab(host.host(), agent.client().socket(), &["clean", "-o", "json"]);
    let removed: Value = serde_json::from_slice(&cleaned.stdout).expect("json");
    assert!(removed["removed"].as_u64().is_some_and(|n| n >= 4), "{removed}");
    assert_gone(host.host());
    assert!(!agent.dir().path().join("conf.d/85-lab.yaml").exists());
    let again = lab(host.host(), agent.client().socket(), &["clean"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing of a lab"));
}

#[test]
fn an_interrupted_lab_is_gone_and_so_is_its_policy() {
    if !root_or_not_run("an_interrupted_lab_is_gone_and_so_is_its_policy") {
        return;
    }
    let _turn = turn();
    let host = host("labint");
    let dir = TempDir::new("labint");
    let agent = Agent::start(&AgentPlan { tag: "labint", host: Some(host.host()), built_in_rules: true, ..AgentPlan::default() });
    let mut command = Command::new(program());
    command.args(["--socket".as_ref(), agent.client().socket().as_os_str()]).args(["lab", "--runtime", "namespaces"]);
    let mut running = Process::start("bulkhead lab", &mut command, &dir.path().join("lab.log"), |c| {
        host.host().run(|| c.spawn()).map_err(|e| std::io::Error::other(e.to_string()))?
    });
    wait_until("the story begins", Duration::from_secs(10), || running.output().contains("monitor mode"));
    let status = running.end(SIGINT, Duration::from_secs(10));
    assert_eq!(status.code(), Some(2), "{}", running.output());
    assert_gone(host.host());
    assert!(!agent.dir().path().join("conf.d/85-lab.yaml").exists());
}

#[test]
fn two_labs_at_a_time_are_refused() {
    if !root_or_not_run("two_labs_at_a_time_are_refused") {
        return;
    }
    let _turn = turn();
    let host = host("labtwo");
    let dir = TempDir::new("labtwo");
    let lock = dir.path().join("lock");
    let held = bulkhead_sys::lock::LockFile::acquire(&lock).expect("locking");
    let lock = lock.display().to_string();
    let output = lab(host.host(), Path::new("/nonexistent/socket"), &["--runtime", "namespaces", "--lock", &lock]);
    drop(held);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("a lab is up already"), "{told}");
}

/// What `./run` does for a newcomer.
#[test]
fn run_with_a_lab_tells_the_story_and_ctrl_c_leaves_nothing() {
    if !root_or_not_run("run_with_a_lab_tells_the_story_and_ctrl_c_leaves_nothing") {
        return;
    }
    let _turn = turn();
    let host = host("labrun");
    let mut agent = Agent::start(&AgentPlan {
        tag: "labrun",
        host: Some(host.host()),
        arguments: &["--lab"],
        built_in_rules: true,
        ..AgentPlan::default()
    });
    wait_until("the story ends", Duration::from_secs(60), || agent.process().output().contains("accounted for"));
    let told = agent.process().output();
    assert!(!told.contains('✗'), "{told}");
    let web = Ipv4Addr::new(198, 51, 100, 131);
    let workloads = agent.client().workloads().expect("workloads");
    assert!(
        workloads.iter().any(|w| w.workload.name == "lab-web" && w.workload.interfaces.iter().any(|i| i.addresses.contains(&web.into())))
    );
    let status = agent.process().end(SIGINT, Duration::from_secs(30));
    assert!(status.success(), "{}", agent.process().output());
    assert_gone(host.host());
    assert!(!agent.dir().path().join("conf.d/85-lab.yaml").exists());
}
