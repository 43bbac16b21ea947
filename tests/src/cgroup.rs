//! A memory cgroup of the test's own, version 1 or 2, whichever the machine has its memory controller in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Removed when dropped, once nothing runs in it.
#[derive(Debug)]
pub struct MemoryCgroup {
    path: PathBuf,
    v2: bool,
}

impl MemoryCgroup {
    /// An empty one without a limit. `Err` with the reason where this machine has none to give.
    ///
    /// # Errors
    /// No memory controller, or it may not be used.
    pub fn new(tag: &str) -> Result<Self, String> {
        let name = format!("bulkhead-{tag}-{}", std::process::id());
        let made = |path: PathBuf, v2| match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, v2 }),
            Err(error) => Err(format!("cannot make {}: {error}", path.display())),
        };
        if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            return made(Path::new("/sys/fs/cgroup/memory").join(name), false);
        }
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new) {
            if !std::fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|text| text.split_whitespace().any(|c| c == "memory")) {
                continue;
            }
            // It may be on already; where it cannot be switched on the files below are missing.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
            let cgroup = made(root.join(&name), true)?;
            return if cgroup.path.join("memory.max").exists() { Ok(cgroup) } else { Err("its memory controller is not for us".into()) };
        }
        Err("this machine has no memory controller".into())
    }

    /// What starts a program in it: to be put before its command line.
    pub fn entering(&self) -> [String; 4] {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    /// Bytes in use, those of BPF maps included.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn used(&self) -> u64 {
        let name = if self.v2 { "memory.current" } else { "memory.usage_in_bytes" };
        self.read(name).trim().parse().unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Sets the limit; `None` takes it off.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit(&self, bytes: Option<u64>) {
        let (name, none) = if self.v2 { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
        let text = bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
        std::fs::write(self.path.join(name), text).unwrap_or_else(|e| panic!("{}/{name}: {e}", self.path.display()));
    }

    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let text = self.read(if self.v2 { "memory.events" } else { "memory.oom_control" });
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path.join(name)).unwrap_or_else(|e| panic!("{}/{name}: {e}", self.path.display()))
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
