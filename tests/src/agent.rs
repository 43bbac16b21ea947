//! The agent as a process: the `bulkhead` program with a configuration, socket and log of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bulkhead_api::{Client, EventQuery};
use bulkhead_model::{Event, Mode};
use bulkhead_sys::netns::Netns;

use crate::process::{self, Process, TempDir};

/// How long the agent may take from its start to its first answer. It needs well below a second; two busy cores need more.
const READY: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Debug, Default)]
pub struct AgentPlan<'a> {
    /// Unique among tests that run at the same time.
    pub tag: &'a str,
    /// The namespace that plays the host; the caller's own when none.
    pub host: Option<&'a Netns>,
    /// Configuration besides the paths, which the helper writes: `mode: protect`, `rules: ...`
    pub config: &'a str,
    /// Text of a rule file, if any; its path is added to the configuration.
    pub rules: &'a str,
    /// Whether those that come with the program are used besides.
    pub built_in_rules: bool,
    /// Further arguments of `bulkhead run`.
    pub arguments: &'a [&'a str],
}

/// A running agent. Dropping it kills it and runs `bulkhead down`, so that nothing stays pinned.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    dir: TempDir,
    host: Netns,
    client: Client,
}

impl Agent {
    /// Starts it and waits until its API answers.
    ///
    /// # Panics
    /// When it does not; the message holds what it printed.
    pub fn start(plan: &AgentPlan<'_>) -> Self {
        Self::start_under(plan, &[])
    }

    /// As [`Agent::start`], by a program that prepares its own process and then becomes the agent: `env KEY=value`,
    /// `setpriv …`, or a shell that enters a cgroup. It gets the agent's command line as its last arguments.
    ///
    /// # Panics
    /// As [`Agent::start`].
    pub fn start_under(plan: &AgentPlan<'_>, under: &[&str]) -> Self {
        let mut agent = Self::launch_under(plan, under);
        agent.wait_ready();
        agent
    }

    /// As [`Agent::start_under`], without waiting for its answer.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch_under(plan: &AgentPlan<'_>, under: &[&str]) -> Self {
        mount_bpffs();
        let dir = TempDir::new(plan.tag);
        let socket = dir.path().join("bulkhead.sock");
        let rules = dir.write("test.rules", plan.rules);
        let at = |name: &str| dir.path().join(name).display().to_string();
        // A source of its own for the paths: maps of several sources are merged, so the test's text stays as it is.
        dir.write(
            "conf.d/00-paths.yaml",
            format!(
                "api:\n  socket: {}\n  metrics: \"off\"\nevents:\n  eve:\n    path: {}\n  store:\n    path: {}\nrules:\n  built-in: {}\n  files: [{}]\n",
                socket.display(),
                at("eve.json"),
                at("events.db"),
                plan.built_in_rules,
                rules.display()
            ),
        );
        let config = dir.write("bulkhead.yaml", plan.config);
        let host = plan.host.map_or_else(Netns::current, Netns::try_clone).unwrap_or_else(|e| panic!("{e}"));
        let process = launch(&host, &config, dir.path(), plan.arguments, under);
        let client = Client::new(&socket).unwrap_or_else(|e| panic!("cannot make a client: {e}"));
        Self { process, dir, host, client }
    }

    /// Starts it again after its end, with the same configuration: what a service manager does.
    ///
    /// # Panics
    /// As [`Agent::start`].
    pub fn restart(&mut self, arguments: &[&str]) {
        self.restart_under(arguments, &[]);
    }

    /// As [`Agent::restart`], started as by [`Agent::start_under`].
    ///
    /// # Panics
    /// As [`Agent::start`].
    pub fn restart_under(&mut self, arguments: &[&str], under: &[&str]) {
        self.process.kill();
        self.process = launch(&self.host, &self.dir.path().join("bulkhead.yaml"), self.dir.path(), arguments, under);
        self.wait_ready();
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where its programs are pinned.
    pub fn pin_dir(&self) -> String {
        let [.., pins] = places(self.dir.path());
        pins
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Sets the mode of everything.
    ///
    /// # Panics
    /// When the agent refuses.
    pub fn set_mode(&self, mode: Mode) {
        self.client.set_mode(None, mode).unwrap_or_else(|e| panic!("cannot set the mode: {e}"));
    }

    /// Events that the store holds.
    ///
    /// # Panics
    /// When the agent refuses.
    pub fn events(&self, query: &EventQuery) -> Vec<Event> {
        self.client.events(query).unwrap_or_else(|e| panic!("cannot read events: {e}"))
    }

    /// Waits for an event that `wanted` accepts.
    ///
    /// # Panics
    /// When none comes within ten seconds.
    pub fn wait_event(&self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(event) = self.events(&EventQuery::default()).into_iter().find(&mut wanted) {
                return event;
            }
            assert!(Instant::now() < end, "no event: {what}\n{}", self.process.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs another verb of the program against this agent.
    pub fn run(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        let socket = self.dir.path().join("bulkhead.sock");
        let config = self.dir.path().join("bulkhead.yaml");
        let mut command = Command::new(program());
        command.args(arguments).env("BULKHEAD_SOCKET", socket).env("BULKHEAD_CONFIG", config).stdin(Stdio::null());
        let output = self.host.run(|| command.output()).unwrap_or_else(|e| panic!("{e}"));
        output.unwrap_or_else(|e| panic!("cannot run bulkhead: {e}"))
    }

    /// `bulkhead down`: everything off the host. Gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn down(&mut self) -> Output {
        let output = self.run(&with_places(self.dir.path()));
        assert!(output.status.success(), "bulkhead down: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    /// Waits until its API answers.
    ///
    /// # Panics
    /// When it does not; the message holds what it printed.
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + READY;
        while self.client.status().is_err() {
            if let Some(status) = self.process.ended() {
                panic!("the agent ended ({status}):\n{}", self.process.output());
            }
            assert!(Instant::now() < end, "the agent did not answer within {READY:?}:\n{}", self.process.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.go_on_and_kill();
        }
        let _ = self.run(&with_places(self.dir.path())); // also after a test that failed half-way
    }
}

/// The built program. `BULKHEAD_BIN` names another one; otherwise it is built once in this process's own target
/// directory and profile, so that a test never meets a stale one.
///
/// # Panics
/// When it cannot be built.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build).clone()
}

fn build() -> PathBuf {
    if let Some(given) = std::env::var_os("BULKHEAD_BIN") {
        return given.into();
    }
    // <target>/<profile>/deps/<test binary>
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("cannot find this test's own path: {e}"));
    let profile = own.ancestors().nth(2).unwrap_or_else(|| panic!("{} is no test binary", own.display()));
    let target = profile.parent().unwrap_or(profile);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "bulkhead", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(target).stdin(Stdio::null());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().unwrap_or_else(|e| panic!("cannot start cargo: {e}"));
    assert!(status.success(), "cannot build the bulkhead program: {status}");
    profile.join("bulkhead")
}

/// Lock, journal and pins of its own, so that agents of several tests live side by side.
fn places(dir: &Path) -> [String; 4] {
    let tag = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    ["--run-dir".into(), dir.join("run").display().to_string(), "--pin-dir".into(), format!("{BPFFS}/{tag}")]
}

fn with_places(dir: &Path) -> Vec<String> {
    std::iter::once("down".to_owned()).chain(places(dir)).collect()
}

const BPFFS: &str = "/sys/fs/bpf";

/// Mounted once for all agents of all tests: one that found it missing would unmount it under the others when it ends.
fn mount_bpffs() {
    static MOUNTED: OnceLock<()> = OnceLock::new();
    MOUNTED.get_or_init(|| {
        if !bulkhead_sys::mounts::is_bpffs(BPFFS).unwrap_or(false) {
            // Another test process may have been faster.
            let _ = bulkhead_sys::mounts::mount_bpffs(BPFFS);
        }
    });
}

fn launch(host: &Netns, config: &Path, dir: &Path, arguments: &[&str], under: &[&str]) -> Process {
    let mut command = match under {
        [] => Command::new(program()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program());
            command
        }
    };
    command.arg("run").arg("--config").arg(config).args(places(dir)).args(arguments);
    process::Process::start("bulkhead run", &mut command, &dir.join("agent.log"), |c| {
        host.run(|| c.spawn()).map_err(|e| std::io::Error::other(e.to_string()))?
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
