//! A service manager of the test's own: the machine's systemd as process 1 of a process namespace, in a file tree that shares
//! the machine's programs and kernel but none of its state. Units really run as systemd runs them: with the capabilities, the
//! system call filter, the read-only file tree and the watchdog that they ask for. And [`Listener`], for what a service tells
//! its manager.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_sys::netns::Netns;

use crate::process::{Process, TempDir};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// How long process 1 may take to run its first unit.
const FIRST_UNIT: Duration = Duration::from_secs(20);

/// Makes the file tree, moves to it and becomes systemd. `$1` is an empty directory, `$2` the name of the cgroup, `$3` the log.
const BECOME_SYSTEMD: &str = r#"
set -e
root=$1
mount --make-rprivate /
: >"$3"
mkdir -p "$root/units" "$root/none"
mount -t tmpfs tmpfs "$root/none"
tree=$root/none
for dir in usr sys dev; do mkdir "$tree/$dir"; mount --rbind "/$dir" "$tree/$dir"; done
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then cp -a "/$name" "$tree/$name"; elif [ -d "/$name" ]; then mkdir "$tree/$name"; mount --rbind "/$name" "$tree/$name"; fi
done
cp -a /etc "$tree/etc"
mkdir -p "$tree/proc" "$tree/run" "$tree/root" "$tree/home" "$tree/opt" "$tree/var/lib" "$tree/var/log" "$tree/var/tmp" "$tree/old" "$tree/given"
mkdir -m 1777 "$tree/tmp"
ln -s ../run "$tree/var/run"
mount -t proc proc "$tree/proc"
# It would mount each version 1 controller that nobody has mounted, and with it take it from version 2, beyond its own end.
while read -r name rest; do
    case $name in \#*) ;; *) [ -e "/sys/fs/cgroup/$name/cgroup.procs" ] || continue ;; esac
    printf '%s\t%s\n' "$name" "$rest"
done </proc/cgroups >"$root/cgroups"
mount --bind "$root/cgroups" "$tree/proc/cgroups"
mount -t tmpfs tmpfs "$tree/run"
mkdir -p "$tree/run/netns" "$tree/run/systemd" "$tree/opt/none"
mkdir -p /run/netns
mount --rbind /run/netns "$tree/run/netns"
mount --bind "$root/units" "$tree/given"
mount --bind "$3" "$tree/dev/kmsg"
[ ! -e "$tree/dev/console" ] || mount --bind "$3" "$tree/dev/console"
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup/memory /sys/fs/cgroup/pids /sys/fs/cgroup/devices; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$2"
    echo $$ >"$hierarchy/$2/cgroup.procs"
done
cd "$tree"
pivot_root . old
umount -l /old
exec env -i container=bulkhead-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/given SYSTEMD_GENERATOR_PATH=/opt/none \
    SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/opt/none SYSTEMD_LOG_TARGET=kmsg /lib/systemd/systemd --system --unit=default.target
"#;

/// Empty ones of what every unit is ordered after, and one to see that units run.
const OWN_UNITS: [(&str, &str); 7] = [
    ("sysinit.target", "[Unit]\nDefaultDependencies=no\n"),
    ("basic.target", "[Unit]\nDefaultDependencies=no\n"),
    ("shutdown.target", "[Unit]\nDefaultDependencies=no\n"),
    ("umount.target", "[Unit]\nDefaultDependencies=no\n"),
    ("network-pre.target", "[Unit]\nDefaultDependencies=no\n"),
    ("default.target", "[Unit]\nRequires=first.service\nAfter=first.service\nAllowIsolate=yes\n"),
    (
        "first.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nSystemCallFilter=@system-service\nExecStart=/usr/bin/touch /given/first\n",
    ),
];

/// A running systemd. Dropping it kills it and all that it runs, and removes its cgroups.
#[derive(Debug)]
pub struct Manager {
    process: Process,
    init: u32,
    dir: TempDir,
    cgroup: String,
    host: Netns,
}

impl Manager {
    /// Starts one in the network namespace `host`, with these units (file name and text) beside its own; none of them is
    /// started yet. `Err` with the reason when this machine lets none run.
    ///
    /// # Errors
    /// Not root, no systemd installed, or it does not get as far as to run a unit that does nothing.
    pub fn start(tag: &str, host: &Netns, units: &[(&str, &str)]) -> Result<Self, String> {
        if !Path::new(SYSTEMD).exists() {
            return Err("systemd is not installed".into());
        }
        let dir = TempDir::new(tag);
        for (name, text) in OWN_UNITS.iter().chain(units) {
            dir.write(&format!("units/{name}"), text);
        }
        let cgroup = format!("bulkhead-{tag}-{}", std::process::id());
        let log = dir.path().join("systemd.log");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c", BECOME_SYSTEMD, "sh"]);
        command.arg(dir.path()).arg(&cgroup).arg(&log);
        let process = Process::start("systemd", &mut command, &dir.path().join("setup.log"), |c| {
            host.run(|| c.spawn()).map_err(|e| std::io::Error::other(e.to_string()))?
        });
        let host = host.try_clone().map_err(|e| e.to_string())?;
        let mut manager = Self { process, init: 0, dir, cgroup, host };
        let end = Instant::now() + FIRST_UNIT;
        while !manager.dir.path().join("units/first").exists() {
            if manager.process.ended().is_some() || Instant::now() >= end {
                return Err(format!("systemd does not run a unit here: {}{}", manager.process.output(), manager.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = manager.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_err(|e| e.to_string())?;
        manager.init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).ok_or("systemd has ended")?;
        Ok(manager)
    }

    /// A file of its tree, as this process can open it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Runs a program among its processes, in its tree.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-p", program]).args(arguments).stdin(Stdio::null());
        let output = self.host.run(|| command.output()).unwrap_or_else(|e| panic!("{e}"));
        output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
    }

    /// `systemctl ARGUMENTS`, which must succeed; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        let output = self.run("systemctl", arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "systemctl {arguments:?}: {}{}\n{}", text(&output.stdout), text(&output.stderr), self.log());
        text(&output.stdout)
    }

    /// A property of a unit: `ActiveState`, `NRestarts` ...
    ///
    /// # Panics
    /// When systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "--property", name, "--value", unit])
    }

    /// The lines of `/proc/PID/status` of a unit's main process.
    ///
    /// # Panics
    /// When there is none.
    pub fn process_status(&self, unit: &str) -> Vec<(String, String)> {
        let pid = self.property(unit, "MainPID");
        let text = std::fs::read_to_string(self.path(&format!("/proc/{pid}/status")))
            .unwrap_or_else(|e| panic!("{unit} has no process {pid}: {e}\n{}", self.log()));
        text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// A file of a unit's own cgroup, in the hierarchy of its controller or in the one that all share. `None`: there is none.
    pub fn cgroup_file(&self, unit: &str, controller: &str, name: &str) -> Option<String> {
        let below = format!("{}/system.slice/{unit}/{name}", self.cgroup);
        ["/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"]
            .map(|root| format!("{root}{below}"))
            .into_iter()
            .chain([format!("/sys/fs/cgroup/{controller}/{below}")])
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| text.trim().to_owned())
    }

    /// What systemd has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("systemd.log")).unwrap_or_default()).into_owned()
    }

    /// The directory that is `/given` inside.
    pub fn given(&self) -> PathBuf {
        self.dir.path().join("units")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.process.kill();
        // Its processes are gone a moment later; a cgroup with processes in it stays.
        let end = Instant::now() + Duration::from_secs(5);
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let own = hierarchy.join(&self.cgroup);
            while own.exists() && !remove_cgroup(&own) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// With those below it.
fn remove_cgroup(path: &Path) -> bool {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    std::fs::remove_dir(path).is_ok()
}

/// What one service has told its manager, with the time of each message.
type Heard = Arc<Mutex<Vec<(Instant, String)>>>;

/// The manager's end of `sd_notify(3)`.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    heard: Heard,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Listener {
    /// # Panics
    /// When its socket cannot be made.
    pub fn start(tag: &str) -> Self {
        let dir = TempDir::new(&format!("{tag}-notify"));
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap_or_else(|e| panic!("cannot listen at {}: {e}", path.display()));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap_or_else(|e| panic!("cannot set up a socket: {e}"));
        let (heard, stop) = (Heard::default(), Arc::new(AtomicBool::new(false)));
        let (theirs, ends) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !ends.load(Ordering::Relaxed) {
                if let Ok(len) = socket.recv(&mut buffer) {
                    lock(&theirs).push((Instant::now(), String::from_utf8_lossy(&buffer[..len]).into_owned()));
                }
            }
        }));
        Self { path, heard, stop, thread, _dir: dir }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When each message with the line `wanted` (`READY=1`) came.
    pub fn times(&self, wanted: &str) -> Vec<Instant> {
        lock(&self.heard).iter().filter(|(_, text)| text.lines().any(|line| line == wanted)).map(|(at, _)| *at).collect()
    }

    /// All messages so far.
    pub fn heard(&self) -> Vec<String> {
        lock(&self.heard).iter().map(|(_, text)| text.clone()).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
