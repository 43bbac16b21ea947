//! A snapshot with its configuration files read: made once, looked at by all controls.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::control::Profile;
use crate::snapshot::{Engine, Fact, HostSnapshot};
use crate::text::{SysctlFile, modprobe_blocks, sshd_settings, sysctl_settings};

/// Folders of sysctl settings, the first wins for files of one name: `sysctl.d(5)`.
pub const SYSCTL_FOLDERS: [&str; 5] = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
pub const MODPROBE_FOLDERS: [&str; 4] = ["/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];
pub const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";

pub struct View<'a> {
    pub snapshot: &'a HostSnapshot,
    pub profile: Profile,
    /// Setting to value and the file that sets it.
    pub persisted: BTreeMap<String, SysctlFile>,
    /// Modules that cannot be loaded by name or alias, and which file says so.
    pub blocked_modules: BTreeMap<String, String>,
    /// Lower-case keyword to the value that counts.
    pub ssh: BTreeMap<String, String>,
    /// Lower-case keyword to values in `Match` blocks.
    pub ssh_match: Vec<(String, String)>,
    /// Docker's configuration file and flags as one: JSON key to value.
    pub docker: Fact<Map<String, Value>>,
    /// The kubelet's configuration file, read.
    pub kubelet: Fact<Value>,
    /// Static pods: file name to its tree.
    pub manifests: BTreeMap<String, Value>,
}

impl<'a> View<'a> {
    pub fn new(snapshot: &'a HostSnapshot, profile: Profile) -> Self {
        let (ssh, ssh_match) = sshd_settings(snapshot);
        Self {
            snapshot,
            profile,
            persisted: sysctl_settings(snapshot),
            blocked_modules: modprobe_blocks(snapshot),
            ssh,
            ssh_match,
            docker: docker(snapshot),
            kubelet: kubelet(snapshot),
            manifests: manifests(snapshot),
        }
    }

    /// Is this a host of containers: has it an engine, running or installed?
    pub fn has_engine(&self) -> bool {
        let running = self.snapshot.engines.known().is_some_and(|engines| !engines.is_empty());
        running || ENGINE_PROGRAMS.iter().any(|program| self.snapshot.exists(program) == Some(true))
    }

    pub fn has_docker(&self) -> bool {
        self.engine("docker").is_some() || self.snapshot.exists("/usr/bin/dockerd") == Some(true)
    }

    pub fn engine(&self, kind: &str) -> Option<&Engine> {
        self.snapshot.engines.known()?.iter().find(|engine| engine.kind == kind)
    }

    /// Directories in which engines keep what containers are made of.
    pub fn data_roots(&self) -> BTreeSet<String> {
        let mut roots: BTreeSet<String> = DATA_ROOTS.iter().map(|&root| root.to_owned()).collect();
        let engines = self.snapshot.engines.known().into_iter().flatten();
        roots.extend(engines.map(|engine| engine.data_root.trim_end_matches('/').to_owned()).filter(|root| root.len() > 1));
        roots
    }

    /// Sockets through which an engine takes orders.
    pub fn engine_sockets(&self) -> BTreeSet<String> {
        let mut sockets: BTreeSet<String> = ENGINE_SOCKETS.iter().map(|&socket| socket.to_owned()).collect();
        let engines = self.snapshot.engines.known().into_iter().flatten();
        sockets.extend(engines.flat_map(|engine| engine.sockets.iter().cloned()));
        sockets
    }

    /// Is this a node of Kubernetes?
    pub fn has_kubelet(&self) -> bool {
        let folders = ["/var/lib/kubelet", "/etc/kubernetes"];
        self.snapshot.kubelet.known().is_some() || folders.iter().any(|folder| self.snapshot.exists(folder) == Some(true))
    }
}

pub const ENGINE_PROGRAMS: [&str; 8] = [
    "/usr/bin/dockerd",
    "/usr/sbin/dockerd",
    "/usr/local/bin/dockerd",
    "/usr/bin/containerd",
    "/usr/local/bin/containerd",
    "/usr/bin/podman",
    "/usr/bin/crio",
    "/usr/local/bin/crio",
];
pub const DATA_ROOTS: [&str; 5] = ["/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/rancher", "/var/lib/kubelet"];
pub const ENGINE_SOCKETS: [&str; 9] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/containerd/containerd.sock.ttrpc",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/buildkit/buildkitd.sock",
];

/// Flags of `dockerd` that have another name in its file.
const DOCKER_FLAGS: [(&str, &str); 14] = [
    ("-H", "hosts"),
    ("--host", "hosts"),
    ("--insecure-registry", "insecure-registries"),
    ("--registry-mirror", "registry-mirrors"),
    ("--authorization-plugin", "authorization-plugins"),
    ("--storage-opt", "storage-opts"),
    ("--default-ulimit", "default-ulimits"),
    ("--log-opt", "log-opts"),
    ("--dns", "dns"),
    ("--label", "labels"),
    ("-D", "debug"),
    ("-l", "log-level"),
    ("-g", "data-root"),
    ("--exec-opt", "exec-opts"),
];
const DOCKER_LISTS: [&str; 5] = ["hosts", "insecure-registries", "registry-mirrors", "authorization-plugins", "labels"];
/// Flags that take no value of their own.
const DOCKER_SWITCHES: [&str; 13] = [
    "icc",
    "iptables",
    "ip6tables",
    "ip-forward",
    "ip-masq",
    "live-restore",
    "no-new-privileges",
    "userland-proxy",
    "experimental",
    "tls",
    "tlsverify",
    "selinux-enabled",
    "debug",
];

/// The file, and over it the flags; Docker itself refuses the same key in both.
fn docker(snapshot: &HostSnapshot) -> Fact<Map<String, Value>> {
    let engine = snapshot.engines.known().and_then(|engines| engines.iter().find(|engine| engine.kind == "docker"));
    let path = engine.map(|engine| engine.config_path.as_str()).filter(|path| !path.is_empty()).unwrap_or("/etc/docker/daemon.json");
    let mut settings = match snapshot.text(path) {
        Fact::Known(text) if text.trim().is_empty() => Map::new(),
        Fact::Known(text) => match serde_json::from_str(text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Fact::Unreadable(format!("{path} holds no JSON object")),
            Err(error) => return Fact::Unreadable(format!("{path} is not JSON: {error}")),
        },
        Fact::Absent => Map::new(),
        Fact::Unreadable(why) => return Fact::Unreadable(format!("{path}: {why}")),
    };
    let mut arguments = engine.map(|engine| engine.arguments.iter()).unwrap_or_default().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let (flag, given) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        if !flag.starts_with('-') {
            continue;
        }
        let named = DOCKER_FLAGS.iter().find(|(known, _)| *known == flag).map(|(_, key)| (*key).to_owned());
        let key = named.unwrap_or_else(|| flag.trim_start_matches('-').to_owned());
        let value = match given {
            Some(value) => value,
            None if DOCKER_SWITCHES.contains(&key.as_str()) => "true".to_owned(),
            None => match arguments.next_if(|next| !next.starts_with('-')) {
                Some(value) => value.clone(),
                None => "true".to_owned(),
            },
        };
        let value = match value.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::String(value),
        };
        if key == "log-opts" {
            let option = value.as_str().and_then(|text| text.split_once('='));
            let options = settings.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if let (Some((name, value)), Some(options)) = (option, options.as_object_mut()) {
                options.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        } else if DOCKER_LISTS.contains(&key.as_str()) {
            match settings.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(list) => list.push(value),
                other => *other = Value::Array(vec![value]),
            }
        } else {
            settings.insert(key, value);
        }
    }
    Fact::Known(settings)
}

/// Where the kubelet's configuration lies: its flag, else the usual place.
fn kubelet(snapshot: &HostSnapshot) -> Fact<Value> {
    let named = snapshot.kubelet.known().and_then(|arguments| flag(arguments, "--config"));
    match snapshot.text(named.as_deref().unwrap_or(KUBELET_CONFIG)) {
        Fact::Known(text) => match bulkhead_policy::plain_tree(text) {
            Ok(tree) => Fact::Known(tree),
            Err(why) => Fact::Unreadable(format!("the kubelet's configuration cannot be read: {why}")),
        },
        Fact::Absent => Fact::Absent,
        Fact::Unreadable(why) => Fact::Unreadable(why),
    }
}

pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";

fn manifests(snapshot: &HostSnapshot) -> BTreeMap<String, Value> {
    let texts = snapshot.texts_in(MANIFESTS, "");
    texts
        .map(|(path, text)| {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            let tree = bulkhead_policy::plain_tree(text).unwrap_or_else(|why| serde_json::json!({ "unreadable": why }));
            (name, tree)
        })
        .collect()
}

/// The value of a flag on a command line, in either of its forms.
pub fn flag(arguments: &[String], name: &str) -> Option<String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == name {
            return arguments.next().cloned();
        }
        if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}
