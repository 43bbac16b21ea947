//! The inventory against a real containerd that this test starts for itself, with containers whose
//! root filesystem is one static busybox. Needs root, `containerd`, `ctr`, `runc` and busybox;
//! says NOT RUN otherwise.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_inventory::{Config, EngineState, Inventory, Snapshot};
use bulkhead_model::{Network, Runtime};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::procfs;

/// A containerd of our own; its containers and files go with it.
struct Containerd {
    dir: PathBuf,
    daemon: Option<Child>,
    made: Vec<&'static str>,
}

impl Containerd {
    /// None, with the reason said, where it cannot run.
    fn start(test: &str) -> Option<Self> {
        let root = procfs::Process::own().status().is_ok_and(|status| status.uids[1] == 0) && Netns::create().is_ok();
        let busybox = Path::new("/bin/busybox");
        let programs = ["containerd", "ctr", "runc"].iter().all(|program| Command::new(program).arg("--version").output().is_ok());
        if !root || !busybox.exists() || !programs {
            println!("NOT RUN: {test}: needs root, containerd, ctr, runc and a static /bin/busybox");
            return None;
        }
        // Short, because a socket's path has at most 107 bytes.
        let dir = PathBuf::from(format!("/tmp/bhct{}", std::process::id()));
        fs::create_dir_all(dir.join("rootfs/bin")).expect("a directory");
        fs::copy(busybox, dir.join("rootfs/bin/busybox")).expect("copied");
        symlink("busybox", dir.join("rootfs/bin/sleep")).expect("linked");
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"{0}/c.sock\"\n",
            dir.display()
        );
        fs::write(dir.join("config.toml"), config).expect("written");
        let mut containerd = Self { dir, daemon: None, made: Vec::new() };
        containerd.launch();
        Some(containerd)
    }

    fn launch(&mut self) {
        assert!(self.try_launch(), "containerd does not answer");
    }

    fn try_launch(&mut self) -> bool {
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.dir.join("config.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.daemon = command.spawn().ok();
        let limit = Instant::now() + Duration::from_secs(60);
        while !self.ctr(&["version"]).status.success() {
            if Instant::now() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// As a crash does it: its containers go on.
    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("killed");
            daemon.wait().expect("reaped");
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--timeout", "10s", "--namespace", "shop"])
            .args(arguments)
            .output()
            .expect("ctr runs")
    }

    fn run(&mut self, id: &'static str, options: &[&str]) {
        self.made.push(id);
        let rootfs = self.dir.join("rootfs");
        let rootfs = rootfs.to_str().expect("a plain path");
        let arguments = [&["run", "-d"], options, &["--rootfs", rootfs, id, "/bin/sleep", "600"]].concat();
        let output = self.ctr(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn stop(&self, id: &str) {
        self.ctr(&["task", "kill", "-s", "SIGKILL", id]);
        let limit = Instant::now() + Duration::from_secs(20);
        while !self.ctr(&["task", "rm", id]).status.success() && Instant::now() < limit {
            thread::sleep(Duration::from_millis(50));
        }
        self.ctr(&["container", "rm", id]);
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A test that failed between crash and restart leaves containers that only containerd can end.
        if self.daemon.is_some() || self.try_launch() {
            for id in &self.made {
                if self.ctr(&["container", "info", id]).status.success() {
                    self.stop(id);
                }
            }
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[track_caller]
fn wait_for(inventory: &Inventory, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let limit = Instant::now() + Duration::from_secs(60);
    let mut snapshot = inventory.snapshot();
    while !holds(&snapshot) {
        assert!(Instant::now() < limit, "{what} never came; last: {snapshot:#?}, {:?}", inventory.counters());
        snapshot = inventory.wait_newer(snapshot.revision, Duration::from_millis(200));
    }
    snapshot
}

fn is_up(snapshot: &Snapshot) -> bool {
    snapshot.engines.iter().any(|engine| matches!(engine.state, EngineState::Up { .. }))
}

#[test]
fn containers_of_a_real_containerd_are_followed_through_its_crash() {
    let Some(mut containerd) = Containerd::start("containers_of_a_real_containerd_are_followed_through_its_crash") else { return };
    let config = Config {
        containerd: vec![containerd.socket()],
        // Only events may tell.
        resync_interval: Duration::from_secs(3600),
        scan_interval: Duration::from_secs(3600),
        absent_interval: Duration::from_millis(100),
        ..Config::without_engines()
    };
    containerd.run("before", &["--label", "tier=front"]);
    let inventory = Inventory::start(config).expect("started");
    let first = wait_for(&inventory, "the engine", is_up);
    let before = first.by_key("shop/before").expect("in the first list");
    assert_eq!((before.runtime, before.name.as_str()), (Runtime::Containerd, "before"));
    assert_eq!(before.labels.get("tier").map(String::as_str), Some("front"));
    assert!(matches!(before.network, Network::Own { .. }), "{before:?}");

    containerd.run("host", &["--net-host"]);
    let second = wait_for(&inventory, "the second", |snapshot| snapshot.by_key("shop/host").is_some());
    assert_eq!(second.by_key("shop/host").map(|workload| &workload.network), Some(&Network::Host));

    containerd.stop("host");
    wait_for(&inventory, "its end", |snapshot| snapshot.by_key("shop/host").is_none());

    containerd.kill();
    let gone = wait_for(&inventory, "the crash", |snapshot| !is_up(snapshot));
    assert_eq!(gone.by_key("shop/before"), Some(before), "it runs on and stays listed as it was");
    containerd.launch();
    let back = wait_for(&inventory, "the engine again", is_up);
    assert_eq!(back.by_key("shop/before"), Some(before));

    containerd.stop("before");
    wait_for(&inventory, "the end", |snapshot| snapshot.by_key("shop/before").is_none());
}
