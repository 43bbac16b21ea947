//! Docker for tests: one dockerd of its own, in a network namespace of its own, without any registry.
//!
//! dockerd lives in a namespace that plays the host, so its bridge, rules and settings are gone with the namespace and
//! never meet the machine's network. Its data, sockets and namespaces are below one temporary directory. The image is
//! made of the static busybox. All tests of a binary that run at the same time share one dockerd; a lock file keeps
//! binaries apart. It ends with the last user, and also when the test process is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bulkhead_lab::fabric::{Fabric, Host, Plan};
use bulkhead_sys::lock::LockFile;
use bulkhead_sys::netns::Netns;

use crate::process::TempDir;

/// The image that every container is made of: busybox and nothing else.
pub const IMAGE: &str = "bulkhead-test:busybox";
/// dockerd's own bridge and the pool of further networks.
pub const BRIDGE: &str = "198.51.100.1/26";
pub const POOL: &str = "base=198.51.100.64/26,size=28";

const START: Duration = Duration::from_secs(40);
const STOP: Duration = Duration::from_secs(20);

/// A running dockerd. Clone it by asking [`Dockerd::shared`] again.
#[derive(Debug)]
pub struct Dockerd {
    child: Mutex<Child>,
    dir: TempDir,
    fabric: Fabric,
    _lock: LockFile,
}

impl Dockerd {
    /// The dockerd of this test binary, started if need be; none, with the reason printed, where it cannot run.
    ///
    /// # Panics
    /// When dockerd is there and fails to start.
    pub fn shared(test: &str) -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Dockerd>> = Mutex::new(Weak::new());
        if !crate::root_or_not_run(test) {
            return None;
        }
        for needed in ["/usr/sbin/dockerd", "/usr/bin/docker", "/bin/busybox"] {
            if !Path::new(needed).exists() {
                crate::not_run(test, format!("{needed} is not installed"));
                return None;
            }
        }
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = running.upgrade() {
            return Some(shared);
        }
        let started = Arc::new(Self::start());
        *running = Arc::downgrade(&started);
        Some(started)
    }

    fn start() -> Self {
        let lock = wait_for_lock();
        let dir = TempDir::new("docker");
        let plan = Plan { prefix: "bhdk".into(), host: Host::Named("bhdk-host".into()), forwarding: true, ..Plan::default() };
        let fabric = Fabric::build(plan).unwrap_or_else(|e| panic!("cannot make dockerd's namespace: {e}"));
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("dockerd.log")).unwrap_or_else(|e| panic!("cannot write a log: {e}"));
        let second = log.try_clone().unwrap_or_else(|e| panic!("cannot write a log: {e}"));
        // The shell ends dockerd when our end of its standard input closes, however this process ends.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("\"$@\" </dev/null & pid=$!; cat >/dev/null; kill -TERM $pid; wait $pid").arg("sh");
        command.args(["/usr/sbin/dockerd", "--host", &format!("unix://{}", at("docker.sock"))]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("dockerd.pid")]);
        command.args(["--bip", BRIDGE, "--default-address-pool", POOL, "--log-level", "warn"]);
        let settings = dir.write("daemon.json", "{}");
        command.arg("--config-file").arg(settings);
        command.stdin(Stdio::piped()).stdout(log).stderr(second);
        let child = fabric.host().run(|| command.spawn()).unwrap_or_else(|e| panic!("{e}"));
        let child = Mutex::new(child.unwrap_or_else(|e| panic!("cannot start dockerd: {e}")));
        let dockerd = Self { child, dir, fabric, _lock: lock };
        let end = Instant::now() + START;
        while !dockerd.docker(&["version"]).status.success() {
            assert!(Instant::now() < end, "dockerd does not answer:\n{}", dockerd.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        dockerd.import_busybox();
        dockerd
    }

    /// The namespace that plays the host: start the agent in it.
    pub fn host(&self) -> &Netns {
        self.fabric.host()
    }

    /// Path of dockerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dockerd.log")).unwrap_or_default()
    }

    /// Gives it another `daemon.json` and waits until it lists these runtimes.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn reload(&self, settings: &str, runtimes: &[&str]) {
        self.dir.write("daemon.json", settings);
        let pid = std::fs::read_to_string(self.dir.path().join("dockerd.pid")).unwrap_or_default();
        let pid = pid.trim().parse().unwrap_or_else(|_| panic!("dockerd has no process: `{pid}`"));
        bulkhead_sys::process::kill(pid, 1).unwrap_or_else(|e| panic!("{e}")); // SIGHUP
        crate::wait_until("dockerd takes its settings", Duration::from_secs(10), || {
            let listed = self.must(&["info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"]);
            let listed: Vec<&str> =
                listed.split_whitespace().filter(|name| !name.starts_with("io.containerd")).filter(|n| *n != "runc").collect();
            listed == runtimes
        });
    }

    /// Runs the `docker` client.
    ///
    /// # Panics
    /// When the client cannot be started.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let host = format!("unix://{}", self.socket().display());
        let mut command = Command::new("/usr/bin/docker");
        command.arg("--host").arg(host).args(arguments).env("DOCKER_CONFIG", self.dir.path()).stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("cannot start docker: {e}"))
    }

    /// As [`Dockerd::docker`], and it must succeed; gives its trimmed output.
    ///
    /// # Panics
    /// When it fails.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "docker {arguments:?}: {}\n{}", text(&output.stderr), self.log());
        text(&output.stdout)
    }

    /// Starts a container: `docker run -d <options> IMAGE <program>`. It is removed when dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(self: &Arc<Self>, name: &str, options: &[&str], program: &[&str]) -> Container {
        let id = self.must(&[&["run", "--detach", "--name", name][..], options, &[IMAGE], program].concat());
        let pid = self.must(&["inspect", "--format", "{{.State.Pid}}", name]).parse().unwrap_or(0);
        Container { dockerd: Arc::clone(self), name: name.to_owned(), id, pid }
    }

    fn import_busybox(&self) {
        let root = self.dir.path().join("rootfs");
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).unwrap_or_else(|e| panic!("cannot make {}: {e}", bin.display()));
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap_or_else(|e| panic!("cannot copy busybox: {e}"));
        for applet in ["sh", "sleep", "nc", "wget", "httpd", "ip", "ping", "cat", "echo", "hostname", "true"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap_or_else(|e| panic!("cannot link {applet}: {e}"));
        }
        let tar = Command::new("tar").args(["-C", &root.display().to_string(), "-c", "."]).stdin(Stdio::null()).output();
        let tar = tar.unwrap_or_else(|e| panic!("cannot start tar: {e}")).stdout;
        let mut command = Command::new("/usr/bin/docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(["import", "-", IMAGE]);
        command.env("DOCKER_CONFIG", self.dir.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start docker: {e}"));
        let mut stdin = child.stdin.take().unwrap_or_else(|| panic!("no standard input"));
        stdin.write_all(&tar).unwrap_or_else(|e| panic!("docker import: {e}"));
        drop(stdin);
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("docker import: {e}"));
        assert!(output.status.success(), "docker import: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(child.stdin.take()); // the shell now sends SIGTERM to dockerd and waits for it
        let end = Instant::now() + STOP;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill(); // only the shell, if dockerd did not end in time
        let _ = child.wait();
        // What dockerd keeps mounted below its directories would keep them from being removed.
        let below = self.dir.path().to_owned();
        let mounts = bulkhead_sys::mounts::list().unwrap_or_default();
        for mount in mounts.iter().rev().filter(|m| m.target.starts_with(&below)) {
            let _ = bulkhead_sys::mounts::unmount(&mount.target); // best effort: the directory's removal tells
        }
    }
}

/// A running container.
#[derive(Debug)]
pub struct Container {
    dockerd: Arc<Dockerd>,
    pub name: String,
    pub id: String,
    pub pid: u32,
}

impl Container {
    /// Its network namespace.
    ///
    /// # Panics
    /// When it has ended.
    pub fn netns(&self) -> Netns {
        Netns::open_pid(self.pid).unwrap_or_else(|e| panic!("container {}: {e}", self.name))
    }

    /// A field of `docker inspect`, as a Go template.
    pub fn inspect(&self, template: &str) -> String {
        self.dockerd.must(&["inspect", "--format", template, &self.name])
    }

    /// Its IPv4 address on the default bridge.
    ///
    /// # Panics
    /// When it has none.
    pub fn address(&self) -> std::net::IpAddr {
        let text = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}");
        let first = text.split_whitespace().next().unwrap_or_default();
        first.parse().unwrap_or_else(|_| panic!("container {} has no address: `{text}`", self.name))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.dockerd.docker(&["rm", "--force", "--volumes", &self.name]); // it may be gone already
    }
}

fn wait_for_lock() -> LockFile {
    let path = std::env::temp_dir().join("bulkhead-dockerd.lock");
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        match LockFile::acquire(&path) {
            Ok(lock) => return lock,
            Err(e) => assert!(Instant::now() < end, "another test keeps dockerd: {e}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
