//! Facts about the host that are read, not tried.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

/// Bytes read of any of these files.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Host {
    pub release: String,
    pub distribution: String,
    pub architecture: String,
    pub cpus: usize,
    /// `MemTotal`, bytes.
    pub memory_bytes: u64,
    /// `v1`, `v2` or `hybrid` (v1 controllers with a v2 tree beside them).
    pub cgroup: String,
    /// Where a v2 tree is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_v2_at: Option<String>,
    /// Where a BPF filesystem is mounted: pinned links live there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpffs_at: Option<String>,
    /// `none`, `integrity`, `confidentiality`, or `unknown` where securityfs is not mounted.
    pub lockdown: String,
    /// Security modules in force, in order; empty where securityfs is not mounted.
    pub security_modules: Vec<String>,
    /// The kernel describes its types (`/sys/kernel/btf/vmlinux`).
    pub btf: bool,
    /// We run as root (effective uid 0).
    pub root: bool,
    /// We run inside a container or another mount namespace than the host's first process.
    pub in_container: bool,
}

/// Reads the facts; what cannot be read stays empty.
pub fn look() -> Host {
    let mounts = read("/proc/self/mounts");
    let (cgroup, cgroup_v2_at) = cgroup(&mounts);
    let os = read("/etc/os-release");
    Host {
        release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        distribution: pretty_name(&os).unwrap_or_else(|| "unknown".into()),
        architecture: std::env::consts::ARCH.into(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: mem_total(&read("/proc/meminfo")),
        cgroup,
        cgroup_v2_at,
        bpffs_at: mounted(&mounts, "bpf"),
        lockdown: lockdown(&read("/sys/kernel/security/lockdown")),
        security_modules: read("/sys/kernel/security/lsm").trim().split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        root: effective_uid(&read("/proc/self/status")) == Some(0),
        in_container: in_container(),
    }
}

/// The first `FILE_BYTES_MAX` bytes as text, empty when the file cannot be read.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes); // a part is better than nothing
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn mem_total(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode);
    inside.unwrap_or("unknown").to_owned()
}

fn mounted(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find_map(|f| match f[..] {
        [_, at, this, ..] if this == kind => Some(at.to_owned()),
        _ => None,
    })
}

fn cgroup(mounts: &str) -> (String, Option<String>) {
    let (one, two) = (mounted(mounts, "cgroup"), mounted(mounts, "cgroup2"));
    let word = match (one.is_some(), two.is_some()) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    };
    (word.into(), two)
}

fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn in_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"].iter().any(|p| Path::new(p).exists());
    let ns = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    // A pid namespace of our own hides the host's first process: its cgroup path tells then.
    marks || matches!((ns("1"), ns("self")), (Some(first), Some(own)) if first != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_out_of_the_kernels_texts() {
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(mem_total("MemTotal:       24606372 kB\nMemFree: 1 kB\n"), 24_606_372 * 1024);
        assert_eq!(mem_total("MemTotal: lots\n"), 0);
        assert_eq!(lockdown("none [integrity] confidentiality\n"), "integrity");
        assert_eq!(lockdown(""), "unknown");
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        let mounts =
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup(mounts), ("hybrid".into(), Some("/sys/fs/cgroup/unified".into())));
        assert_eq!(cgroup("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), ("v2".into(), Some("/sys/fs/cgroup".into())));
        assert_eq!(mounted("garbage\n\n \n", "bpf"), None);
    }
}
