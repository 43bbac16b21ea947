//! One look at the host: every file, process and socket is read once, and all controls are judged over what was seen.

mod accounts;
mod bundles;
mod containers;
mod kernel;
mod mounts;
mod observe;
mod processes;
mod truth;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_posture::Fact;
use bulkhead_posture::controls::wanted;
use bulkhead_posture::snapshot::HostSnapshot;
use bulkhead_posture::view::{KUBELET_CONFIG, MANIFESTS, MODPROBE_FOLDERS, SSHD_CONFIG, SYSCTL_FOLDERS, flag};

use crate::root::Root;
use crate::{dpkg, units};

/// Files of configuration that are recorded.
const TEXTS_MAX: usize = 4096;
/// Bytes of all of them together.
const TEXTS_BYTES_MAX: usize = 16 << 20;

pub struct Options {
    pub root: Root,
    /// How long to watch what units do.
    pub observe: Option<Duration>,
    pub walk: WalkScope,
    /// A dump of a cluster's RBAC.
    pub rbac: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkScope {
    /// Programs, settings and temporary folders.
    System,
    /// Every local filesystem, engines' data apart.
    All,
    None,
}

/// Files whose text is recorded.
const TEXTS: [&str; 26] = [
    SSHD_CONFIG,
    "/etc/sysctl.conf",
    "/etc/sudoers",
    "/etc/login.defs",
    "/etc/pam.d/su",
    "/etc/fstab",
    "/etc/default/grub",
    "/etc/environment",
    "/etc/ld.so.preload",
    "/etc/security/limits.conf",
    "/etc/systemd/coredump.conf",
    "/etc/systemd/journald.conf",
    "/etc/docker/daemon.json",
    "/etc/containerd/config.toml",
    "/etc/containers/registries.conf",
    "/etc/containers/policy.json",
    "/etc/containers/storage.conf",
    KUBELET_CONFIG,
    "/etc/hosts.allow",
    "/etc/hosts.deny",
    "/etc/cron.allow",
    "/etc/crontab",
    "/etc/apt/sources.list",
    "/etc/securetty",
    "/etc/pam.d/common-password",
    "/etc/selinux/config",
];

/// Folders, and endings of the files in them whose text is recorded.
const TEXT_FOLDERS: [(&str, &str); 7] = [
    ("/etc/ssh/sshd_config.d", ".conf"),
    ("/etc/sudoers.d", ""),
    ("/etc/security/limits.d", ".conf"),
    ("/etc/systemd/coredump.conf.d", ".conf"),
    ("/etc/apt/apt.conf.d", ""),
    ("/etc/modules-load.d", ".conf"),
    (MANIFESTS, ""),
];

/// Folders whose files' owners and modes are looked at: what lies there runs as root.
const META_FOLDERS: [&str; 8] = [
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub fn collect(options: &Options) -> HostSnapshot {
    let root = &options.root;
    let mut snapshot = HostSnapshot::empty();
    snapshot.taken = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    snapshot.live = root.exists("/proc/1/stat");
    snapshot.as_root = bulkhead_sys::process::is_root();
    snapshot.hostname = match root.line(if snapshot.live { "/proc/sys/kernel/hostname" } else { "/etc/hostname" }) {
        Fact::Known(name) => name,
        Fact::Absent | Fact::Unreadable(_) => root.dir().display().to_string(),
    };
    let wanted = wanted();
    os_release(root, &mut snapshot);
    kernel::collect(root, &wanted, &mut snapshot);
    mounts::collect(root, &mut snapshot);
    texts(root, &mut snapshot);
    accounts::collect(root, &mut snapshot);
    units::collect(root, &mut snapshot);
    let seen = processes::Seen::look(root, snapshot.live);
    seen.engines(&mut snapshot);
    seen.listeners(&mut snapshot);
    files(root, &wanted.files, &mut snapshot);
    snapshot.packages = dpkg::packages(root);
    if options.walk != WalkScope::None {
        let deadline = if options.walk == WalkScope::System { Some(Instant::now() + SYSTEM_WALK_TIME_MAX) } else { None };
        walk::collect(root, options.walk, deadline, &mut snapshot);
    } else {
        snapshot.walk = Fact::Absent;
    }
    own_packages(root, &mut snapshot);
    containers::collect(root, &seen, &mut snapshot);
    if let Some(duration) = options.observe {
        observe::watch(root, duration, &mut snapshot);
    }
    if let Some(rbac) = &options.rbac {
        snapshot.rbac = Fact::Known(rbac.clone());
    }
    snapshot
}

/// What is left of the five seconds of an audit for walking; a walk that ends early says so.
const SYSTEM_WALK_TIME_MAX: Duration = Duration::from_millis(2500);

fn os_release(root: &Root, snapshot: &mut HostSnapshot) {
    let text = match root.text("/etc/os-release") {
        Fact::Absent => root.text("/usr/lib/os-release"),
        found => found,
    };
    snapshot.os_release = match text {
        Fact::Known(text) => Fact::Known(parse_os_release(&text)),
        Fact::Absent => Fact::Absent,
        Fact::Unreadable(why) => Fact::Unreadable(why),
    };
}

/// os-release(5): assignments as a shell reads them, without its expansions.
fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('=')).take(256);
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).chars().take(512).collect())).collect()
}

fn texts(root: &Root, snapshot: &mut HostSnapshot) {
    let mut paths: Vec<String> = TEXTS.iter().map(|&path| path.to_owned()).collect();
    let sysctl = SYSCTL_FOLDERS.iter().chain(&MODPROBE_FOLDERS).map(|&folder| (folder, ".conf"));
    for (folder, suffix) in TEXT_FOLDERS.into_iter().chain(sysctl) {
        let names = root.names(folder);
        if let Fact::Known(names) = &names {
            paths.extend(names.iter().filter(|name| name.ends_with(suffix)).map(|name| format!("{folder}/{name}")));
        }
        snapshot.folders.insert(folder.to_owned(), names);
    }
    let mut bytes = 0;
    for path in paths {
        add_text(root, &path, &mut bytes, snapshot);
    }
}

fn add_text(root: &Root, path: &str, bytes: &mut usize, snapshot: &mut HostSnapshot) {
    if snapshot.texts.contains_key(path) {
        return;
    }
    if snapshot.texts.len() >= TEXTS_MAX || *bytes >= TEXTS_BYTES_MAX {
        *snapshot.beyond_caps.entry("texts".to_owned()).or_default() += 1;
        return;
    }
    let text = root.text(path);
    *bytes += text.known().map_or(0, String::len);
    snapshot.texts.insert(path.to_owned(), text);
}

fn files(root: &Root, wanted: &[&str], snapshot: &mut HostSnapshot) {
    let mut paths: HashSet<String> = wanted.iter().map(|&path| path.to_owned()).collect();
    paths.extend(["/var/log/journal", "/var/log"].map(str::to_owned));
    let mut later = Vec::new();
    if let Fact::Known(engines) = &snapshot.engines {
        for engine in engines {
            paths.extend(engine.sockets.iter().cloned());
            paths.extend([engine.data_root.clone(), engine.config_path.clone()].into_iter().filter(|path| path.starts_with('/')));
            later.push(engine.config_path.clone());
        }
    }
    // The kubelet's configuration, where its flag names another one.
    if let Fact::Known(arguments) = &snapshot.kubelet {
        later.extend(flag(arguments, "--config"));
    }
    let mut bytes = 0;
    for path in later.iter().filter(|path| path.starts_with('/')) {
        add_text(root, path, &mut bytes, snapshot);
    }
    // Runtimes that Docker's configuration names are run as root.
    for text in snapshot.texts.iter().filter(|(path, _)| path.ends_with("daemon.json")).filter_map(|(_, text)| text.known()) {
        if let Ok(tree) = serde_json::from_str::<serde_json::Value>(text) {
            let named = tree.get("runtimes").and_then(|runtimes| runtimes.as_object()).into_iter().flatten().take(64);
            paths.extend(named.filter_map(|(_, runtime)| runtime.get("path")?.as_str().map(str::to_owned)));
        }
    }
    for folder in META_FOLDERS {
        if let Fact::Known(names) = root.names(folder) {
            paths.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
    }
    for path in paths {
        // What lies in those folders counts itself; links to elsewhere are told apart.
        let linked = META_FOLDERS.iter().any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
        let meta = if linked { root.link_meta(&path) } else { root.meta(&path) };
        snapshot.files.insert(path, meta);
    }
}

/// The packages of everything that was found: programs that listen, set-id files, units.
fn own_packages(root: &Root, snapshot: &mut HostSnapshot) {
    if snapshot.packages.known().is_none() {
        return;
    }
    let mut paths = HashSet::new();
    if let Fact::Known(list) = &snapshot.listeners {
        paths.extend(list.iter().filter_map(|one| one.exe.as_ref()).map(|exe| exe.trim_end_matches(" (deleted)").to_owned()));
    }
    if let Fact::Known(walk) = &snapshot.walk {
        paths.extend(walk.set_id.iter().chain(&walk.file_capabilities).map(|found| found.path.clone()));
    }
    if let Fact::Known(units) = &snapshot.units {
        paths.extend(units.iter().map(|unit| unit.path.clone()));
    }
    let owners = dpkg::owners(root, &paths);
    if let Fact::Known(list) = &mut snapshot.listeners {
        for one in list {
            one.package = one.exe.as_ref().and_then(|exe| owners.get(exe.trim_end_matches(" (deleted)"))).cloned();
        }
    }
    if let Fact::Known(walk) = &mut snapshot.walk {
        for found in walk.set_id.iter_mut().chain(&mut walk.file_capabilities) {
            found.package = owners.get(&found.path).cloned();
        }
    }
    if let Fact::Known(units) = &mut snapshot.units {
        for unit in units {
            unit.package = owners.get(&unit.path).cloned();
        }
    }
}

/// What must not be cut off by anything that is done: the ways in by ssh, and the engines.
pub fn lifelines(root: &Root) -> BTreeSet<String> {
    let seen = processes::Seen::look(root, true);
    let mut snapshot = HostSnapshot::empty();
    seen.engines(&mut snapshot);
    seen.listeners(&mut snapshot);
    let sshd = snapshot.listeners.known().into_iter().flatten().filter(|one| one.exe.as_deref().is_some_and(|exe| exe.contains("/sshd")));
    let mut alive: BTreeSet<String> = sshd.map(|one| format!("sshd on {} port {}", one.address, one.port)).collect();
    alive.extend(snapshot.engines.known().into_iter().flatten().map(|engine| engine.kind.clone()));
    if snapshot.kubelet.known().is_some() {
        alive.insert("kubelet".to_owned());
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_os_release_of_any_shape_is_read() {
        let map = parse_os_release("ID=debian\nVERSION_ID=\"12\"\n# x=y\nnonsense\nPRETTY_NAME='Debian 12'\n");
        assert_eq!(map["ID"], "debian");
        assert_eq!(map["VERSION_ID"], "12");
        assert_eq!(map["PRETTY_NAME"], "Debian 12");
        assert_eq!(map.len(), 3);
    }
}
