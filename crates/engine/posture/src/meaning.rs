//! What a path of the host means when a container has it: not by its spelling, but by what it contains and what it lies in.

use crate::view::View;

/// What the host path gives to whom it is mounted into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    /// Orders to a container engine: root on the host.
    EngineSocket,
    /// Files of other containers, of images, of the engine itself.
    EngineData,
    /// Settings, programs, accounts, keys and logs of the host.
    HostSystem,
    /// Kernel interfaces: `/proc`, `/sys`, cgroups.
    KernelInterface,
    /// Device files.
    Devices,
    /// Credentials of a cluster's node.
    NodeCredentials,
}

impl Meaning {
    pub const fn text(self) -> &'static str {
        match self {
            Self::EngineSocket => "an engine's socket",
            Self::EngineData => "an engine's data directory",
            Self::HostSystem => "system files of the host",
            Self::KernelInterface => "kernel interfaces of the host",
            Self::Devices => "devices of the host",
            Self::NodeCredentials => "credentials of the cluster's node",
        }
    }
}

/// Directories of the host whose contents decide what it does, and single files of that kind.
const SYSTEM: [&str; 17] = [
    "/etc",
    "/root",
    "/boot",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/home",
    "/var/log",
    "/var/spool/cron",
    "/var/lib/systemd",
    "/var/lib/dpkg",
    "/run/systemd",
    "/run/dbus",
    "/opt",
    "/srv",
];
/// Of these a part alone is a program's or user's own data and no sign of reach: they count when they are mounted whole or from above.
const WHOLE_ONLY: [&str; 6] = ["/home", "/opt", "/srv", "/usr", "/var/log", "/run/dbus"];
/// Parts of the system that containers are ordinarily given to read.
const HARMLESS: [&str; 14] = [
    "/etc/localtime",
    "/etc/timezone",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/ssl/certs",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/etc/os-release",
    "/etc/machine-id",
    "/usr/share/zoneinfo",
    "/usr/share/ca-certificates",
    "/usr/lib/os-release",
    "/etc/letsencrypt",
];
const NODE: [&str; 4] = ["/etc/kubernetes", "/var/lib/kubelet/pki", "/var/lib/etcd", "/etc/rancher"];

/// Everything that a host path means, without repetition. Paths that are harmless to read count when they may be written to.
pub fn of(path: &str, writable: bool, view: &View<'_>) -> Vec<(Meaning, String)> {
    let path = clean(path);
    let path = path.as_str();
    let mut found: Vec<(Meaning, String)> = Vec::new();
    let mut add = |meaning: Meaning, what: &str| {
        if !found.iter().any(|(known, _)| *known == meaning) {
            found.push((meaning, what.to_owned()));
        }
    };
    // Those that are there are told; where none is known, the first.
    let sockets: Vec<String> = view.engine_sockets().into_iter().filter(|socket| contains(path, &clean(socket))).collect();
    let there: Vec<&str> = sockets.iter().filter(|socket| view.snapshot.exists(socket) == Some(true)).map(String::as_str).collect();
    match (there.as_slice(), sockets.first()) {
        ([], Some(first)) => add(Meaning::EngineSocket, first),
        ([], None) => {}
        (there, _) => add(Meaning::EngineSocket, &there.join(", ")),
    }
    for root in view.data_roots() {
        let below = strip(path, &root);
        // A volume's data is what its container is meant to have, and a pod's volumes are the kubelet's.
        let own = below.is_some_and(|below| {
            let mut parts = below.split('/');
            matches!(
                (parts.next(), parts.next(), parts.next()),
                (Some("volumes"), Some(_), Some("_data"))
                    | (Some("pods"), Some(_), Some("volumes" | "etc-hosts" | "containers" | "volume-subpaths"))
            )
        });
        let storage_volume = below.is_some_and(|below| below.starts_with("storage/volumes/") && below.contains("/_data"));
        if contains(path, &root) || (below.is_some() && !own && !storage_volume) {
            add(Meaning::EngineData, &root);
        }
    }
    for node in NODE {
        if contains(path, node) || strip(path, node).is_some() {
            add(Meaning::NodeCredentials, node);
        }
    }
    for kernel in ["/proc", "/sys"] {
        if contains(path, kernel) || strip(path, kernel).is_some() {
            add(Meaning::KernelInterface, kernel);
        }
    }
    let in_dev = strip(path, "/dev").is_some_and(|below| !["shm", "mqueue", "null", "zero", "log"].contains(&below));
    if contains(path, "/dev") || in_dev {
        add(Meaning::Devices, "/dev");
    }
    for system in SYSTEM {
        let harmless = !writable && HARMLESS.iter().any(|fine| path == *fine || strip(path, fine).is_some());
        let inside = strip(path, system).is_some() && !WHOLE_ONLY.contains(&system);
        if !harmless && (contains(path, system) || inside) {
            add(Meaning::HostSystem, system);
        }
    }
    found
}

/// Is `inner` the same as `outer` or below it?
fn contains(outer: &str, inner: &str) -> bool {
    outer == "/" || inner == outer || strip(inner, outer).is_some()
}

/// What of `path` lies strictly below `folder`.
fn strip<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// Without `.`, `..`, double slashes, and with `/var/run` as the link to `/run` that it is.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.starts_with(&["var", "run"]) {
        parts.remove(0);
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Profile;
    use crate::snapshot::HostSnapshot;

    fn meanings(path: &str, writable: bool) -> Vec<Meaning> {
        let snapshot = HostSnapshot::empty();
        of(path, writable, &View::new(&snapshot, Profile::ContainerHost)).into_iter().map(|(meaning, _)| meaning).collect()
    }

    #[test]
    fn a_folder_means_what_lies_in_it() {
        assert!(meanings("/run", false).contains(&Meaning::EngineSocket));
        assert!(meanings("/var/run/docker.sock", false).contains(&Meaning::EngineSocket));
        assert!(meanings("/var/../run/./docker.sock/", false).contains(&Meaning::EngineSocket));
        assert!(meanings("/var", false).contains(&Meaning::EngineData));
        let all = meanings("/", true);
        assert_eq!(all.len(), 6, "{all:?}");
    }

    #[test]
    fn data_of_its_own_means_nothing() {
        for path in ["/var/lib/docker/volumes/db/_data", "/srv/shop/data", "/home/ann/project", "/opt/app/conf", "/data", "/run/app"] {
            assert_eq!(meanings(path, true), [], "{path}");
        }
        assert_eq!(meanings("/etc/localtime", false), []);
        assert_eq!(meanings("/etc/localtime", true), [Meaning::HostSystem]);
        assert_eq!(meanings("/var/lib/docker/volumes", true), [Meaning::EngineData]);
        assert_eq!(meanings("/dev/sda", true), [Meaning::Devices]);
        assert_eq!(meanings("/devices", true), []);
    }
}
