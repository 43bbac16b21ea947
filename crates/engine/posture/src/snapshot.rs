//! What was seen of a host at one moment: facts and no judgement. It is recorded as JSON, replayed and used in tests.
//!
//! A fact that could not be had says why. Nothing here is a default that could be taken for an answer: what a snapshot
//! does not hold counts as *unknown*, never as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of this shape; a snapshot of another one is refused.
pub const FORMAT: u32 = 1;
/// Bytes of a recorded snapshot that are read: one of 10,000 packages, 500 containers and all configuration has 9 MB.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact<T> {
    Known(T),
    /// It was looked for, and is not there.
    Absent,
    /// It may be there: why it could not be read.
    Unreadable(String),
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::Unreadable("not recorded in this snapshot".to_owned())
    }
}

impl<T> Fact<T> {
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }

    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub fn unreadable(&self) -> Option<&str> {
        match self {
            Self::Unreadable(why) => Some(why),
            Self::Known(_) | Self::Absent => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSnapshot {
    pub format: u32,
    /// Seconds since 1970.
    pub taken: u64,
    pub hostname: String,
    /// Was a kernel seen that runs this root? False for the root directory of a host that is not running.
    pub live: bool,
    /// Was it taken with all rights? Without them much is unreadable.
    pub as_root: bool,
    #[serde(default)]
    pub os_release: Fact<BTreeMap<String, String>>,
    /// Name of the first process, or of the init system that the files tell of: `systemd`, `openrc-init`.
    #[serde(default)]
    pub init: Fact<String>,
    #[serde(default)]
    pub kernel: Kernel,
    #[serde(default)]
    pub mounts: Fact<Vec<Mount>>,
    /// Owner and mode of what controls look at, by path.
    #[serde(default)]
    pub files: BTreeMap<String, Fact<FileMeta>>,
    /// Contents of configuration files, by path. No secrets: `shadow`, keys and tokens are never recorded.
    #[serde(default)]
    pub texts: BTreeMap<String, Fact<String>>,
    /// Names in directories of configuration, so that a file that is absent is told from one that was not looked at.
    #[serde(default)]
    pub folders: BTreeMap<String, Fact<Vec<String>>>,
    #[serde(default)]
    pub users: Fact<Vec<User>>,
    #[serde(default)]
    pub groups: Fact<Vec<Group>>,
    #[serde(default)]
    pub key_files: Fact<Vec<KeyFile>>,
    #[serde(default)]
    pub units: Fact<Vec<Unit>>,
    #[serde(default)]
    pub listeners: Fact<Vec<Listener>>,
    #[serde(default)]
    pub packages: Fact<Packages>,
    #[serde(default)]
    pub walk: Fact<Walk>,
    #[serde(default)]
    pub engines: Fact<Vec<Engine>>,
    #[serde(default)]
    pub containers: Fact<Vec<Container>>,
    /// The kubelet's command line, where one runs.
    #[serde(default)]
    pub kubelet: Fact<Vec<String>>,
    /// Objects of a cluster's RBAC as `kubectl get … -o json` writes them, where the operator gave a dump.
    #[serde(default)]
    pub rbac: Fact<serde_json::Value>,
    /// How long units were watched, where they were.
    #[serde(default)]
    pub observed_seconds: Option<u64>,
    /// What was left out because a cap was reached, by the cap's name.
    #[serde(default)]
    pub beyond_caps: BTreeMap<String, u64>,
}

impl HostSnapshot {
    pub fn empty() -> Self {
        Self {
            format: FORMAT,
            taken: 0,
            hostname: String::new(),
            live: false,
            as_root: false,
            os_release: Fact::default(),
            init: Fact::default(),
            kernel: Kernel::default(),
            mounts: Fact::default(),
            files: BTreeMap::new(),
            texts: BTreeMap::new(),
            folders: BTreeMap::new(),
            users: Fact::default(),
            groups: Fact::default(),
            key_files: Fact::default(),
            units: Fact::default(),
            listeners: Fact::default(),
            packages: Fact::default(),
            walk: Fact::default(),
            engines: Fact::default(),
            containers: Fact::default(),
            kubelet: Fact::default(),
            rbac: Fact::Absent,
            observed_seconds: None,
            beyond_caps: BTreeMap::new(),
        }
    }

    /// Reads a recorded one. The error is a phrase for a person.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!("it has {} bytes; a snapshot has at most {SNAPSHOT_BYTES_MAX}", bytes.len()));
        }
        let snapshot: Self = serde_json::from_slice(bytes).map_err(|error| format!("it is not a snapshot: {error}"))?;
        if snapshot.format != FORMAT {
            return Err(format!("it has format {}; this version reads format {FORMAT}", snapshot.format));
        }
        Ok(snapshot)
    }

    pub fn file(&self, path: &str) -> Fact<FileMeta> {
        self.files.get(path).cloned().unwrap_or_default()
    }

    pub fn text(&self, path: &str) -> Fact<&str> {
        match self.texts.get(path) {
            Some(Fact::Known(text)) => Fact::Known(text.as_str()),
            Some(Fact::Absent) => Fact::Absent,
            Some(Fact::Unreadable(why)) => Fact::Unreadable(why.clone()),
            None => Fact::default(),
        }
    }

    /// Is there such a file? `None` where that is not known.
    pub fn exists(&self, path: &str) -> Option<bool> {
        match self.files.get(path)? {
            Fact::Known(_) => Some(true),
            Fact::Absent => Some(false),
            Fact::Unreadable(_) => None,
        }
    }

    /// Readable texts of the files that lie directly in a folder and end so, in the order of their names.
    pub fn texts_in<'a>(&'a self, folder: &'a str, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts.iter().filter_map(move |(path, text)| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?;
            let direct = !name.contains('/') && name.ends_with(suffix);
            direct.then_some((path.as_str(), text.known()?.as_str()))
        })
    }

    pub fn os_id(&self) -> &str {
        self.os_release.known().and_then(|map| map.get("ID")).map_or("", String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    pub release: Fact<String>,
    pub cmdline: Fact<String>,
    /// `[none] integrity confidentiality`.
    pub lockdown: Fact<String>,
    /// `lockdown,capability,landlock,yama,apparmor`.
    pub lsm: Fact<String>,
    pub tainted: Fact<String>,
    /// Names of loaded modules.
    pub modules: Fact<Vec<String>>,
    /// Of the modules that controls ask for: those that this kernel could load or has built in.
    pub available: Fact<Vec<String>>,
    /// Weakness of the processor to what the kernel does about it.
    pub vulnerabilities: Fact<BTreeMap<String, String>>,
    pub secure_boot: Fact<bool>,
    /// Kernels with modules on disk.
    pub installed: Fact<Vec<String>>,
    /// Running values below `/proc/sys`, with dots.
    pub sysctls: BTreeMap<String, Fact<String>>,
    /// Swap areas: device or file.
    pub swaps: Fact<Vec<String>>,
    pub apparmor: Fact<bool>,
    /// `enforcing`, `permissive`.
    pub selinux: Fact<String>,
    /// `v1`, `v2`, `hybrid`.
    pub cgroup: Fact<String>,
    /// `/sys/module/module/parameters/sig_enforce`.
    pub module_signatures: Fact<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub target: String,
    /// What of the filesystem is mounted.
    pub root: String,
    pub device: String,
    pub fs_type: String,
    pub source: String,
    /// Options of the mount and of the filesystem.
    pub options: Vec<String>,
    #[serde(default)]
    pub shared: bool,
    /// Read from fstab rather than seen mounted.
    #[serde(default)]
    pub declared: bool,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|found| found == option)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMeta {
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub kind: FileKind,
    #[serde(default)]
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    #[default]
    File,
    Folder,
    Link,
    Socket,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
    /// Does `passwd` itself hold something other than `x`?
    #[serde(default)]
    pub unshadowed: bool,
    #[serde(default)]
    pub password: Password,
    /// Days until it must be changed; 0 where none is set.
    #[serde(default)]
    pub password_days_max: u32,
    #[serde(default)]
    pub home_meta: Fact<FileMeta>,
}

/// What `shadow` says, without the hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Password {
    #[default]
    Unknown,
    Empty,
    Locked,
    /// `yescrypt`, `sha512`, `md5`, `des` …
    Hashed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// A file of keys that let somebody log in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    pub user: String,
    pub path: String,
    pub keys: u32,
    pub meta: FileMeta,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// `cups.service`.
    pub name: String,
    pub path: String,
    pub state: UnitState,
    /// Has it a process, socket or mount now? `None` where no init system runs or it cannot be told.
    #[serde(default)]
    pub active: Option<bool>,
    /// Units and targets that want or require it.
    #[serde(default)]
    pub wanted_by: Vec<String>,
    /// Symbolic links below `/etc/systemd/system` that enable it.
    #[serde(default)]
    pub links: Vec<String>,
    /// Active units that need it.
    #[serde(default)]
    pub dependants: Vec<String>,
    #[serde(default)]
    pub package: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    /// Seen while it was watched.
    #[serde(default)]
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    Enabled,
    #[default]
    Disabled,
    Static,
    Masked,
}

/// What a unit did while it was watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    pub connections: u64,
    pub activations: u64,
    pub cpu_micros: u64,
}

impl Usage {
    /// Nobody talked to it and it was not started.
    pub const fn is_idle(&self) -> bool {
        self.connections == 0 && self.activations == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `tcp`, `udp`, `unix`.
    pub protocol: String,
    /// Address, or path of a unix socket.
    pub address: String,
    #[serde(default)]
    pub port: u16,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub exe: Option<String>,
    #[serde(default)]
    pub unit: Option<String>,
    #[serde(default)]
    pub container: Option<String>,
    #[serde(default)]
    pub package: Option<String>,
    #[serde(default)]
    pub uid: u32,
    /// Connections that were open when it was looked at.
    #[serde(default)]
    pub connections: u64,
}

impl Listener {
    /// Can another machine reach it?
    pub fn is_exposed(&self) -> bool {
        self.protocol != "unix" && !(self.address.starts_with("127.") || self.address == "::1" || self.address.starts_with("::ffff:127."))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// `dpkg`, `apk`.
    pub kind: String,
    pub installed: Vec<Package>,
}

impl Packages {
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn find(&self, name: &str) -> Option<&Package> {
        self.installed.iter().find(|package| package.name == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub essential: bool,
    /// Brought in as a dependency of another.
    #[serde(default)]
    pub automatic: bool,
    /// Installed packages that depend on it.
    #[serde(default)]
    pub needed_by: u32,
}

/// What a walk over the files found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Walk {
    /// Trees that were walked.
    pub trees: Vec<String>,
    pub inodes: u64,
    /// Ended early: not everything was seen.
    pub cut: bool,
    pub set_id: Vec<Found>,
    /// Executables with file capabilities; `None` where they were not asked for.
    pub file_capabilities: Vec<Found>,
    pub world_writable_files: Vec<Found>,
    /// Without the sticky bit.
    pub world_writable_folders: Vec<Found>,
    pub unowned: Vec<Found>,
    /// Device files outside `/dev`.
    pub devices: Vec<Found>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub package: Option<String>,
}

/// A container engine as its process and its files show it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// `docker`, `containerd`, `crio`, `podman`.
    pub kind: String,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub exe: Option<String>,
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Path of its configuration: the one that its command line names, else the usual one.
    #[serde(default)]
    pub config_path: String,
    #[serde(default)]
    pub data_root: String,
    #[serde(default)]
    pub sockets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub image: String,
    /// `docker`, `containerd`, `cri`, `podman`, `unknown`.
    pub runtime: String,
    pub running: bool,
    /// When the image was made, seconds since 1970, where that is known.
    #[serde(default)]
    pub image_made: Option<u64>,
    /// Its own data below the engine's directory: mounts of these are the engine's doing.
    #[serde(default)]
    pub own_folders: Vec<String>,
    /// What was asked for: from the engine's files or the runtime's bundle.
    #[serde(default)]
    pub declared: Fact<Declared>,
    /// What the kernel says of its first process.
    #[serde(default)]
    pub kernel: Fact<Truth>,
}

impl Container {
    pub fn title(&self) -> String {
        let short: String = self.id.chars().take(12).collect();
        if self.name.is_empty() { short } else { format!("{} ({short})", self.name) }
    }
}

/// A container as it was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    pub privileged: Option<bool>,
    pub capabilities_added: Vec<String>,
    pub user: Option<String>,
    pub groups_added: Vec<String>,
    /// Source and target of bind mounts, and whether they may be written to.
    pub binds: Vec<Bind>,
    /// Namespaces shared with the host: `pid`, `net`, `ipc`, `uts`, `user`, `cgroup`.
    pub host_namespaces: Vec<String>,
    pub devices: Vec<String>,
    /// Rules of the devices cgroup that allow: `b *:* rwm`.
    pub device_rules: Vec<String>,
    pub security_options: Vec<String>,
    pub read_only_root: Option<bool>,
    pub masked_paths: Option<Vec<String>>,
    pub read_only_paths: Option<Vec<String>>,
    pub memory_max: Option<i64>,
    pub pids_max: Option<i64>,
    pub cpu_limited: Option<bool>,
    pub restart: Option<String>,
    pub restart_max: Option<i64>,
    pub health_check: Option<bool>,
    /// Published: `0.0.0.0:80->80/tcp`.
    pub published: Vec<String>,
    pub network: Option<String>,
    pub log_driver: Option<String>,
    pub sysctls: Vec<String>,
    /// Names of environment variables that look like secrets; never their values.
    pub secret_names: Vec<String>,
    pub runtime: Option<String>,
    pub ulimits: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    pub source: String,
    pub target: String,
    pub writable: bool,
    #[serde(default)]
    pub propagation: String,
}

/// A container as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Truth {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Bits of `CapEff`, `CapPrm`, `CapBnd` and `CapAmb`.
    pub effective: u64,
    pub permitted: u64,
    pub bounding: u64,
    pub ambient: u64,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    pub no_new_privileges: bool,
    /// `docker-default (enforce)`, `unconfined`, an SELinux label.
    pub label: Fact<String>,
    /// Namespaces that are the host's own.
    pub host_namespaces: Vec<String>,
    /// Namespaces that could not be looked at: a process may forbid it.
    pub hidden_namespaces: Vec<String>,
    /// Is its root user the host's root?
    pub root_is_host_root: Option<bool>,
    pub mounts: Fact<Vec<ContainerMount>>,
    /// Lines of `devices.list` (cgroup v1).
    pub device_rules: Fact<Vec<String>>,
    pub memory_max: Fact<u64>,
    pub pids_max: Fact<u64>,
    pub cpu_limited: Fact<bool>,
    pub oom_score_adjust: i32,
    /// Listening TCP ports inside.
    pub ports: Vec<u16>,
    /// Processes in the container that are shells of ssh, by name of their program.
    pub programs: Vec<String>,
}

/// A mount inside a container, with the way to the host where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerMount {
    pub target: String,
    pub fs_type: String,
    pub root: String,
    pub device: String,
    pub read_only: bool,
    #[serde(default)]
    pub shared: bool,
    /// What it is on the host: found by device and path in it, so that no spelling hides it.
    #[serde(default)]
    pub host_path: Option<String>,
}
