//! What the kernel says of a container's first process: rights, namespaces, filters, mounts. No engine is asked.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{ContainerMount, Mount, Truth};
use bulkhead_sys::procfs;

use super::mounts::table;
use super::processes::{Process, listening_ports};
use crate::root::{MapKnown, Root};

const NAMESPACES: [&str; 7] = ["pid", "net", "ipc", "uts", "user", "cgroup", "mnt"];
/// Parent of all kernel threads.
const KTHREADD: u32 = 2;
/// Mounts of one container.
const MOUNTS_MAX: usize = 2_000;

/// `None`: the process has ended, or is ending.
pub fn look(root: &Root, first: &Process, all: &[&Process], host_mounts: Option<&Vec<Mount>>) -> Option<Fact<Truth>> {
    let pid = first.pid;
    let text = match root.line(&format!("/proc/{pid}/status")) {
        Fact::Known(text) => text,
        Fact::Absent => return None,
        Fact::Unreadable(why) => return Some(Fact::Unreadable(format!("/proc/{pid}/status: {why}"))),
    };
    let status = StatusLines(&text);
    // A process that has ended and waits for its parent has no namespaces any more.
    if status.value("State").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return None;
    }
    let mut truth = Truth {
        pid,
        uid: status.number("Uid", 1)?,
        gid: status.number("Gid", 1)?,
        groups: status.value("Groups").unwrap_or_default().split_whitespace().filter_map(|gid| gid.parse().ok()).take(1024).collect(),
        effective: status.bits("CapEff"),
        permitted: status.bits("CapPrm"),
        bounding: status.bits("CapBnd"),
        ambient: status.bits("CapAmb"),
        seccomp: status.number("Seccomp", 0).unwrap_or(0),
        no_new_privileges: status.number("NoNewPrivs", 0) == Some(1),
        ..Truth::default()
    };
    truth.label = match root.line(&format!("/proc/{pid}/attr/current")) {
        Fact::Known(label) if label.trim_end_matches('\0').is_empty() => Fact::Absent,
        Fact::Known(label) => Fact::Known(label.trim_end_matches('\0').to_owned()),
        // The file answers EINVAL where no module gives labels.
        Fact::Absent | Fact::Unreadable(_) => Fact::Absent,
    };
    for name in NAMESPACES {
        let inode =
            |pid: u32| root.resolve(&format!("/proc/{pid}/ns/{name}")).ok().and_then(|path| fs::metadata(path).ok()).map(|meta| meta.ino());
        // The first process may be out of reach; kernel threads never leave the host's namespaces, nor do we ordinarily.
        let host = inode(1).or_else(|| inode(KTHREADD)).or_else(|| inode(std::process::id()));
        match (inode(pid), host) {
            (Some(mine), Some(host)) if mine == host => truth.host_namespaces.push(name.to_owned()),
            (Some(_), Some(_)) => {}
            _ if !root.exists(&format!("/proc/{pid}/mountinfo")) => return None,
            _ => truth.hidden_namespaces.push(name.to_owned()),
        }
    }
    // Two spellings of one thing in the maps: the host's root inside, under whichever number.
    truth.root_is_host_root = root.line(&format!("/proc/{pid}/uid_map")).known().map(|map| {
        map.lines().any(|line| {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            matches!(numbers.as_slice(), [_, 0, length] if *length > 0)
        })
    });
    truth.mounts = table(root, &format!("/proc/{pid}/mountinfo")).map_known(|list| {
        let mut mounts: Vec<ContainerMount> = list.iter().take(MOUNTS_MAX).map(|mount| container_mount(mount, host_mounts)).collect();
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        mounts
    });
    truth.oom_score_adjust = root.line(&format!("/proc/{pid}/oom_score_adj")).known().and_then(|text| text.parse().ok()).unwrap_or(0);
    limits(root, pid, &mut truth);
    if !truth.host_namespaces.iter().any(|name| name == "net") {
        for file in ["tcp", "tcp6"] {
            if let Fact::Known(text) = root.bytes(&format!("/proc/{pid}/net/{file}"), 16 << 20) {
                truth.ports.extend(listening_ports(&String::from_utf8_lossy(&text)));
            }
        }
        truth.ports.sort_unstable();
        truth.ports.dedup();
    }
    let mut programs: Vec<String> = all
        .iter()
        .map(|process| {
            let exe = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
            exe.unwrap_or(&process.comm).to_owned()
        })
        .collect();
    programs.sort();
    programs.dedup();
    programs.truncate(64);
    truth.programs = programs;
    Some(Fact::Known(truth))
}

struct StatusLines<'a>(&'a str);

impl StatusLines<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn number(&self, name: &str, at: usize) -> Option<u32> {
        self.value(name)?.split_whitespace().nth(at)?.parse().ok()
    }

    fn bits(&self, name: &str) -> u64 {
        self.value(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0)
    }
}

/// A mount with the way to it on the host: the host's mount of the same filesystem whose root lies above.
fn container_mount(mount: &Mount, host: Option<&Vec<Mount>>) -> ContainerMount {
    ContainerMount {
        target: mount.target.clone(),
        fs_type: mount.fs_type.clone(),
        root: mount.root.clone(),
        device: mount.device.clone(),
        read_only: mount.has("ro"),
        shared: mount.shared,
        host_path: host.and_then(|host| host_path(mount, host)),
    }
}

/// By device and path in it. Of several mounts of one filesystem the one with the longest root is the nearest, and of
/// those the one with the shortest target.
pub fn host_path(mount: &Mount, host: &[Mount]) -> Option<String> {
    let above =
        |outer: &str| outer == "/" || mount.root == outer || mount.root.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    let same = host.iter().filter(|known| known.device == mount.device && above(&known.root));
    // The root of a container that overlayfs puts together is seen on the host below the engine's directory.
    let nearest = same.max_by(|a, b| a.root.len().cmp(&b.root.len()).then(b.target.len().cmp(&a.target.len())))?;
    let inside = if nearest.root == "/" { mount.root.as_str() } else { mount.root.strip_prefix(nearest.root.as_str()).unwrap_or_default() };
    let path = format!("{}/{}", nearest.target.trim_end_matches('/'), inside.trim_start_matches('/'));
    Some(if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path })
}

/// Limits and rules of devices, of either version of cgroups.
fn limits(root: &Root, pid: u32, truth: &mut Truth) {
    let groups = root.line(&format!("/proc/{pid}/cgroup"));
    let groups = groups.known().map(|text| procfs::parse_cgroups(text)).unwrap_or_default();
    let v1 = |controller: &str| {
        let path = groups.v1.iter().find(|(names, _)| names.split(',').any(|name| name == controller)).map(|(_, path)| path.as_str())?;
        Some(format!("/sys/fs/cgroup/{controller}{path}"))
    };
    let v2 = groups.v2.as_deref().map(|path| {
        let hierarchy = if root.exists("/sys/fs/cgroup/unified") { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
        format!("{hierarchy}{path}")
    });
    let read = |v1_file: Option<String>, v2_name: &str| -> Fact<u64> {
        let path = v1_file.filter(|path| root.exists(path)).or_else(|| v2.as_ref().map(|folder| format!("{folder}/{v2_name}")));
        match path.map(|path| root.line(&path)) {
            Some(Fact::Known(text)) if text == "max" => Fact::Absent,
            Some(Fact::Known(text)) => text.parse().map_or_else(|_| Fact::Unreadable(format!("`{text}` is no limit")), Fact::Known),
            Some(Fact::Unreadable(why)) => Fact::Unreadable(why),
            Some(Fact::Absent) | None => Fact::Unreadable("its control group has no such limit to read".to_owned()),
        }
    };
    truth.memory_max = read(v1("memory").map(|folder| format!("{folder}/memory.limit_in_bytes")), "memory.max");
    truth.pids_max = read(v1("pids").map(|folder| format!("{folder}/pids.max")), "pids.max");
    let quota = v1("cpu").and_then(|folder| root.line(&format!("{folder}/cpu.cfs_quota_us")).known().cloned());
    let shares = v1("cpu").and_then(|folder| root.line(&format!("{folder}/cpu.shares")).known().cloned());
    truth.cpu_limited = match (quota, shares, &v2) {
        (Some(quota), shares, _) => Fact::Known(quota != "-1" || shares.is_some_and(|shares| shares != "1024")),
        (None, _, Some(folder)) => match (root.line(&format!("{folder}/cpu.max")), root.line(&format!("{folder}/cpu.weight"))) {
            (Fact::Known(max), weight) => Fact::Known(!max.starts_with("max") || weight.known().is_some_and(|weight| weight != "100")),
            (Fact::Absent, _) => Fact::Unreadable("its control group has no such limit to read".to_owned()),
            (Fact::Unreadable(why), _) => Fact::Unreadable(why),
        },
        (None, _, None) => Fact::Unreadable("it has no control group".to_owned()),
    };
    truth.device_rules = match v1("devices").map(|folder| root.line(&format!("{folder}/devices.list"))) {
        Some(fact) => fact.map_known(|text| text.lines().map(str::to_owned).take(1024).collect()),
        None => Fact::Unreadable("with cgroup v2 the rules of devices are a BPF program".to_owned()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str, target: &str) -> Mount {
        Mount { device: device.to_owned(), root: root.to_owned(), target: target.to_owned(), ..Mount::default() }
    }

    #[test]
    fn the_host_path_of_a_mount_is_found_by_device_and_root() {
        let host = [mount("8:1", "/", "/"), mount("0:25", "/", "/run"), mount("8:1", "/srv/data", "/data"), mount("8:2", "/", "/var")];
        let path = |device: &str, root: &str| host_path(&mount(device, root, "/x"), &host);
        assert_eq!(path("0:25", "/").as_deref(), Some("/run"));
        assert_eq!(path("0:25", "/docker.sock").as_deref(), Some("/run/docker.sock"));
        assert_eq!(path("8:1", "/").as_deref(), Some("/"));
        assert_eq!(path("8:2", "/lib/docker").as_deref(), Some("/var/lib/docker"));
        assert_eq!(path("8:1", "/srv/data/x").as_deref(), Some("/data/x"));
        assert_eq!(path("9:9", "/"), None);
    }
}
