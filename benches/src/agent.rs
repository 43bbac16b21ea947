//! The agent as a process inside the scene's host namespace, with a configuration, socket, log and BPF filesystem of its own.
//!
//! It runs in a mount namespace of its own, with a BPF filesystem that nobody else sees: what it pins goes with it, and an
//! agent that protects the machine itself is not disturbed. (`ip netns exec` would hide `/sys/fs/bpf` altogether.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_sys::netns::Netns;
use bulkhead_sys::procfs::Process;
use serde_json::{Value, json};

use crate::Error;
use crate::child::{Running, TempDir, run_to_end};
use crate::host::{Memory, memory};
use crate::scene::{NODES, PREFIX};

/// From its start to all interfaces armed, with a full set of rules to compile on busy processors.
const READY: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(10);
/// How often it is asked whether it is ready: each time is a process.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How much is inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every byte of payload, in user space.
    All,
    /// As installed.
    Default,
    /// Flows are judged at their first packet; the kernel carries the rest.
    Judged,
}

/// Which program, with which rules.
#[derive(Debug, Clone)]
pub struct Setup {
    pub program: PathBuf,
    pub rules: PathBuf,
}

#[derive(Debug)]
pub struct Agent {
    process: Running,
    program: PathBuf,
    socket: PathBuf,
    dir: PathBuf,
    own: Netns,
}

impl Agent {
    /// Starts it and waits until it has armed the scene.
    pub fn start(setup: &Setup, depth: Depth, host: &Netns, dir: &TempDir) -> Result<Self, Error> {
        let config = dir.write("bulkhead.yaml", config(depth, dir.path(), &setup.rules))?;
        let socket = dir.path().join("bulkhead.sock");
        let log = dir.path().join("agent.log");
        let mut command = Command::new("unshare");
        // Slave: namespaces that are named later are still seen.
        command.args(["--mount", "--propagation", "slave", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]);
        command.arg(&setup.program).args(["run", "--foreground", "--config"]).arg(config);
        command.arg("--socket").arg(&socket).arg("--run-dir").arg(dir.path().join("run"));
        let process = Running::start("bulkhead run", host, &mut command, &log)?;
        let own = Netns::current()?;
        let mut agent = Self { process, program: setup.program.clone(), socket, dir: dir.path().to_owned(), own };
        agent.wait_until_armed()?;
        Ok(agent)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn memory(&self) -> Result<Memory, Error> {
        memory(self.pid())
    }

    /// Processor time of all its threads.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        Ok(Process { pid: self.pid() }.cpu_time()?)
    }

    /// `bulkhead status -o json`.
    pub fn status(&self) -> Result<Value, Error> {
        self.ask("status")
    }

    /// `bulkhead coverage -o json`, in short: bytes carried and what became of them.
    pub fn coverage(&self) -> Result<Value, Error> {
        Ok(coverage_sums(&self.ask("coverage")?))
    }

    /// `bulkhead reload`: configuration and rules are read again.
    pub fn reload(&self) -> Result<Value, Error> {
        self.ask("reload")
    }

    fn ask(&self, verb: &str) -> Result<Value, Error> {
        // Exit codes 1 and 3 say that the answer holds findings: it is an answer.
        let script = "\"$@\" || [ $? -eq 1 ] || [ $? -eq 3 ]";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.program).arg("--socket").arg(&self.socket).args([verb, "-o", "json"]);
        let text = run_to_end(&format!("bulkhead-{verb}"), &self.own, &mut command, &self.dir, ASK)?;
        // Warnings may stand around the object: output and errors share a file.
        let object = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| text.get(from..=to)).unwrap_or_default();
        serde_json::from_str(object).map_err(|_| Error::Unreadable { program: format!("bulkhead {verb}"), output: text.clone() })
    }

    fn wait_until_armed(&mut self) -> Result<(), Error> {
        let until = Instant::now() + READY;
        let mut last = String::new();
        loop {
            if self.process.has_ended() {
                return Err(Error::Failed { program: self.process.name().to_owned(), output: self.process.output() });
            }
            match self.socket.exists().then(|| self.status()) {
                Some(Ok(status)) if armed(&status) >= NODES as u64 => return Ok(()),
                Some(Ok(status)) => last = status.to_string(),
                Some(Err(error)) => last = error.to_string(),
                None => {}
            }
            if Instant::now() >= until {
                let output = format!(": {last}\n{}", self.process.output());
                return Err(Error::Late { what: "the agent did not arm the scene".into(), seconds: READY.as_secs(), output });
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }
}

/// The program to measure: as named, or as built beside this one.
pub fn program(named: Option<&Path>) -> Result<PathBuf, Error> {
    let program = match named {
        Some(path) => path.to_owned(),
        None => match std::env::var_os("BULKHEAD_BIN") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe().map_err(Error::io("find this program"))?.with_file_name("bulkhead"),
        },
    };
    if program.is_file() {
        return program.canonicalize().map_err(Error::io(format!("find {}", program.display())));
    }
    Err(Error::NoAgent(format!(
        "there is no program {}; build it with `cargo build --release -p bulkhead`, or name it with --agent",
        program.display()
    )))
}

fn armed(status: &Value) -> u64 {
    status.pointer("/path/interfaces_armed").and_then(Value::as_u64).unwrap_or(0)
}

/// Carried, inspected, bypassed, dropped and gap bytes over all pairs.
fn coverage_sums(coverage: &Value) -> Value {
    let pairs = coverage.get("pairs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |pair: &Value, name: &str| pair.get(name).and_then(Value::as_u64).unwrap_or(0);
    let by_reason = |pair: &Value, name: &str| {
        pair.get(name).and_then(Value::as_object).map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
    };
    let sum = |of: &dyn Fn(&Value) -> u64| pairs.iter().map(of).sum::<u64>();
    json!({
        "carried_bytes": sum(&|pair| number(pair, "carried_bytes")),
        "inspected_bytes": sum(&|pair| number(pair, "inspected_bytes")),
        "bypassed_bytes": sum(&|pair| by_reason(pair, "bypassed")),
        "dropped_bytes": sum(&|pair| by_reason(pair, "dropped")),
        "gap_bytes": sum(&|pair| number(pair, "gap_bytes")),
    })
}

fn config(depth: Depth, dir: &Path, rules: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let inspection = match depth {
        Depth::All => "inspect:\n  stream-depth: 1 TiB\n  bypass-encrypted: false\n",
        Depth::Default => "",
        Depth::Judged => "workloads:\n  - {match: \"*\", inspect: bypass}\n",
    };
    format!(
        "mode: protect\n{inspection}rules:\n  files: [{}]\npath:\n  interfaces: {{include: [\"{PREFIX}*\"]}}\n\
         inventory: {{docker: off, podman: off, containerd: off}}\napi:\n  metrics: \"off\"\n\
         events:\n  eve:\n    path: {}\n  store:\n    path: {}\n",
        rules.display(),
        at("eve.json"),
        at("events.db"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_over_all_pairs_and_reasons() {
        let coverage = json!({"pairs": [
            {"carried_bytes": 10, "inspected_bytes": 4, "bypassed": {"policy": 3, "depth": 2}, "gap_bytes": 1},
            {"carried_bytes": 5, "inspected_bytes": 0, "dropped": {"signature": 5}, "gap_bytes": 0},
        ]});
        let expected = json!({"carried_bytes": 15, "inspected_bytes": 4, "bypassed_bytes": 5, "dropped_bytes": 5, "gap_bytes": 1});
        assert_eq!(coverage_sums(&coverage), expected);
        assert_eq!(coverage_sums(&json!({}))["carried_bytes"], 0);
    }

    #[test]
    fn each_depth_has_a_configuration_of_its_own() {
        let text = |depth| config(depth, Path::new("/d"), Path::new("/d/r.rules"));
        assert!(text(Depth::All).contains("stream-depth: 1 TiB") && text(Depth::All).contains("bypass-encrypted: false"));
        assert!(text(Depth::Judged).contains("inspect: bypass"));
        assert!(!text(Depth::Default).contains("stream-depth") && !text(Depth::Default).contains("bypass"));
    }
}
