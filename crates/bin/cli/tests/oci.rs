//! The runtime wrapper and the hook, beside a runtime and an agent that do as the test says.

#[path = "../../../service/api/tests/kit/mod.rs"]
mod kit;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;

use bulkhead_api::FailMode;
use kit::{Lab, TestDir};

/// Tells what it was given. `state` answers for the process in `$PID`, and is noted; the exit code is `$CODE`.
const RUNTIME: &str = r#"#!/bin/sh
for word in "$@"; do last=$verb; verb=$word; [ "$last" = state ] && break; done
if [ "$last" = state ]; then
  echo "$@" >>"$NOTES"
  case "$STATE" in
    hang) exec sleep 60;;
    rubbish) echo '{"pid":"x"}'; exit 0;;
    absent) exit 1;;
    endless) exec yes;;
  esac
  echo "{\"ociVersion\":\"1.0.2\",\"id\":\"c1\",\"status\":\"${STATE:-created}\",\"pid\":$PID,\"annotations\":{\"a\":\"b\"}}"
  exit 0
fi
echo argv; tr '\0' '\n' </proc/$$/cmdline
echo environment; tr '\0' '\n' </proc/$$/environ
echo descriptors; for fd in 0 1 2 5 7; do [ -e /proc/$$/fd/$fd ] && echo "$fd $(readlink /proc/$$/fd/$fd | tr -d '0-9')"; done
echo directory; readlink /proc/$$/cwd
echo input; cat
echo error-output >&2
[ "$CODE" = signal ] && kill -TERM $$
exit ${CODE:-0}
"#;

struct Stage {
    dir: TestDir,
    runtime: PathBuf,
    socket: PathBuf,
}

impl Stage {
    fn new(socket: &Path) -> Self {
        let dir = TestDir::new();
        let runtime = dir.path().join("runtime");
        fs::write(&runtime, RUNTIME).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
        Self { runtime, socket: socket.to_owned(), dir }
    }

    fn command(&self, program: &OsStr, environment: &[(&str, &str)]) -> Command {
        // Descriptors beyond the three come from a shell.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$@\" 5</dev/null 7>/dev/null", "sh"]).arg(program);
        command.env_clear().env("BULKHEAD_SOCKET", &self.socket).env("NOTES", self.notes_path()).env("PID", std::process::id().to_string());
        command.env("ODD", OsStr::from_bytes(b"\xff\n=")).envs(environment.iter().copied()).current_dir("/");
        command
    }

    fn notes_path(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    fn notes(&self) -> String {
        fs::read_to_string(self.notes_path()).unwrap_or_default()
    }

    fn direct(&self, arguments: &[OsString], environment: &[(&str, &str)]) -> Output {
        fed(self.command(self.runtime.as_os_str(), environment).args(arguments))
    }

    fn wrapped(&self, own: &[&str], arguments: &[OsString], environment: &[(&str, &str)]) -> Output {
        let mut command = self.command(OsStr::new(env!("CARGO_BIN_EXE_bulkhead")), environment);
        command.arg("oci-runtime").arg("--runtime").arg(&self.runtime).args(own).arg("--").args(arguments);
        fed(&mut command)
    }

    fn hook(&self, own: &[&str], state: &[u8]) -> Output {
        let mut command = self.command(OsStr::new(env!("CARGO_BIN_EXE_bulkhead")), &[]);
        feed(command.arg("oci-hook").args(own), state).wait_with_output().unwrap()
    }
}

fn feed(command: &mut Command, input: &[u8]) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // it may not want all of it
    child
}

fn fed(command: &mut Command) -> Output {
    feed(command, b"\x00\xffbytes\nwithout end").wait_with_output().unwrap()
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_verb_of_a_runtime_gets_arguments_environment_descriptors_and_input_as_they_were() {
    let lab = Lab::start();
    let stage = Stage::new(lab.server.socket());
    let mut calls: Vec<Vec<OsString>> = [
        "",
        "--version",
        "--help",
        "checkpoint c1",
        "create --bundle /b --pid-file /p c1",
        "delete --force c1",
        "events --stats c1",
        "exec --process /p.json c1",
        "features",
        "init",
        "kill c1 9",
        "list -f json",
        "pause c1",
        "ps c1",
        "restore c1",
        "resume c1",
        "run --bundle /b c1",
        "spec",
        "update --memory 1 c1",
        "start",
        "start c1",
        "--root /r --systemd-cgroup start c1",
        "nonsense c1",
    ]
    .map(words)
    .into();
    calls.push(vec!["exec".into(), "c1".into(), OsStr::from_bytes(b"\xff \n").to_owned(), "".into(), "--".into(), "--timeout".into()]);
    for call in &calls {
        for code in ["0", "37", "255", "signal"] {
            let environment = [("CODE", code)];
            let (direct, wrapped) = (stage.direct(call, &environment), stage.wrapped(&[], call, &environment));
            assert_eq!(wrapped.status, direct.status, "{call:?}");
            assert_eq!(text(&wrapped.stderr), text(&direct.stderr), "{call:?}");
            assert_eq!(wrapped.stdout, direct.stdout, "{call:?}:\n{}\nis not\n{}", text(&wrapped.stdout), text(&direct.stdout));
        }
    }
    let starts = calls.iter().filter(|call| call.contains(&"start".into()) && call.len() > 1).count();
    assert_eq!(lab.agent.arm_asked.lock().unwrap().len(), 4 * starts, "only a start is waited for");
}

#[test]
fn a_start_waits_until_the_agent_has_armed_the_network() {
    let lab = Lab::start();
    let stage = Stage::new(lab.server.socket());
    lab.agent.waiting.store(3, Ordering::Relaxed);
    let output = stage.wrapped(&["--fail", "closed"], &words("--root /r --log /nonexistent/l --log-format json start c1"), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let asked = lab.agent.arm_asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4);
    assert_eq!((asked[0].pid, asked[0].container.as_deref()), (std::process::id(), Some("c1")));
    assert!(asked[0].netns.is_some());
    assert_eq!(stage.notes(), "--root /r state c1\n", "asked as the start is, but not in its log");
    // What has begun already, or has ended, is the runtime's to refuse.
    for state in ["running", "stopped"] {
        assert!(stage.wrapped(&["--fail", "closed"], &words("start c1"), &[("STATE", state)]).status.success());
    }
    assert_eq!(lab.agent.arm_asked.lock().unwrap().len(), 4);
}

#[test]
fn a_start_that_cannot_be_armed_in_time_is_refused_or_goes_on_as_it_is_told() {
    let lab = Lab::start();
    let stage = Stage::new(lab.server.socket());
    lab.agent.waiting.store(u32::MAX, Ordering::Relaxed);
    let log = stage.dir.path().join("log.json");
    let call = words(&format!("--log {} --log-format json start c1", log.display()));
    let refused = stage.wrapped(&["--timeout", "1", "--fail", "closed"], &call, &[]);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), String::new()));
    assert!(text(&refused.stderr).contains("the container is not started: its network is not on the path in time: eth0"), "{refused:?}");
    let line: serde_json::Value = serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("not on the path") && line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    // The agent's word decides where the operator says nothing.
    for (fail, started) in [(FailMode::Open, true), (FailMode::Closed, false)] {
        *lab.agent.fail.lock().unwrap() = fail;
        let output = stage.wrapped(&["--timeout", "1"], &words("start c1"), &[]);
        assert_eq!(output.status.success(), started, "{fail:?} {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("eth0"));
    }
}

#[test]
fn an_agent_that_is_absent_or_hangs_and_a_runtime_that_does_cost_no_more_than_the_time_given() {
    let hung = TestDir::new();
    let hung = hung.path().join("s");
    let _never_answers = UnixListener::bind(&hung).unwrap();
    let at_once: &[&str] = &["--timeout", "600"];
    let (closed, open): (&[&str], &[&str]) = (&["--timeout", "1", "--fail", "closed"], &["--timeout", "1", "--fail", "open"]);
    let call = words("start c1");
    let absent = Stage::new(Path::new("/nonexistent/s"));
    assert!(!absent.wrapped(closed, &call, &[]).status.success());
    // Nobody waits ten minutes for an agent that nobody needs.
    let output = absent.wrapped(at_once, &call, &[]);
    assert!(output.status.success() && text(&output.stderr).contains("no agent answers"), "{output:?}");
    let stage = Stage::new(&hung);
    for (own, started) in [(closed, false), (open, true)] {
        let output = stage.wrapped(own, &call, &[]);
        assert_eq!(output.status.success(), started);
        assert!(text(&output.stderr).contains("does not answer in time"), "{output:?}");
        for (state, reason) in
            [("hang", "in time"), ("rubbish", "cannot be understood"), ("absent", "ended with"), ("endless", "larger than")]
        {
            let output = absent.wrapped(own, &call, &[("STATE", state)]);
            assert_eq!(output.status.success(), started, "{state}");
            assert!(text(&output.stderr).contains(reason), "{state}: {output:?}");
        }
    }
}

#[test]
fn a_hook_waits_refuses_and_goes_on_by_the_same_rules() {
    let lab = Lab::start();
    let stage = Stage::new(lab.server.socket());
    let state =
        format!("{{\"ociVersion\":\"1.0.2\",\"id\":\"c1\",\"status\":\"creating\",\"pid\":{},\"bundle\":\"/b\"}}", std::process::id());
    lab.agent.waiting.store(2, Ordering::Relaxed);
    assert!(stage.hook(&["--fail", "closed"], state.as_bytes()).status.success());
    assert_eq!(lab.agent.arm_asked.lock().unwrap().len(), 3);
    for rubbish in [&b""[..], b"{", b"[]", b"{\"pid\":-1}", b"{\"pid\":0}", b"{\"id\":\"c1\"}", b"\xff\xfe"] {
        assert_eq!(stage.hook(&["--fail", "closed", "--timeout", "1"], rubbish).status.code(), Some(1), "{rubbish:?}");
        let open = stage.hook(&["--fail", "open", "--timeout", "1"], rubbish);
        assert!(open.status.success() && text(&open.stderr).contains("started all the same"), "{rubbish:?}");
    }
    // 5 MiB of annotations, and an engine that does not close the hook's input.
    assert_eq!(stage.hook(&["--fail", "closed"], &vec![b' '; 5 << 20]).status.code(), Some(1));
    let mut command = stage.command(OsStr::new(env!("CARGO_BIN_EXE_bulkhead")), &[]);
    command.args(["oci-hook", "--timeout", "1", "--fail", "closed"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let kept_open = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    drop(kept_open);
}

#[test]
fn a_link_named_after_the_runtime_takes_its_settings_from_nowhere_and_never_calls_itself() {
    let lab = Lab::start();
    let stage = Stage::new(lab.server.socket());
    let (links, runtimes) = (stage.dir.path().join("links"), stage.dir.path().join("bin"));
    fs::create_dir_all(&links).unwrap();
    fs::create_dir_all(&runtimes).unwrap();
    let link = links.join("bulkhead-runc");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bulkhead"), &link).unwrap();
    // First in PATH is a `runc` that is this program.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bulkhead"), links.join("runc")).unwrap();
    fs::rename(&stage.runtime, runtimes.join("runc")).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", links.display(), runtimes.display());
    let output = fed(stage.command(link.as_os_str(), &[("PATH", &path)]).args(["--root", "/r", "start", "c1"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("runc\n--root\n/r\nstart\nc1\n"), "{}", text(&output.stdout));
    assert_eq!(lab.agent.arm_asked.lock().unwrap().len(), 1);
    let only_us = links.display().to_string();
    let output = stage.command(link.as_os_str(), &[("PATH", &only_us)]).arg("list").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no runtime `runc`, other than this program"), "{}", text(&output.stderr));
}
