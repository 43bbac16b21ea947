//! From findings to changes: what would be done, step by step, and what takes each change back. All of it is data; the
//! hands are in `crates/service/host`.
//!
//! One control is one step, and a step owns its files: settings go into drop-ins named after the control, so that steps
//! are taken back in any order. Files that cannot be cut so (`daemon.json`, an `sshd_config` without `Include`) say what
//! they looked like before; the hands refuse where somebody else has changed them since.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::{Check, Control, GroupWant, Outcome, Profile, Status};
use crate::controls::{catalogue, describe_unit};
use crate::evaluate::{evaluate, file_problems};
use crate::snapshot::{Fact, FileKind, HostSnapshot, Unit, UnitState};
use crate::view::{SSHD_CONFIG, View};

/// Steps of one plan.
pub const STEPS_MAX: usize = 1000;
/// A service counts as unused when it was watched for at least so long.
pub const OBSERVED_SECONDS_MIN: u64 = 60;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    /// A running setting below `/proc/sys`.
    Sysctl {
        key: String,
        value: String,
    },
    /// A file gets this content. `before` is what it must hold now; `None`: it must not be there.
    File {
        path: String,
        before: Option<String>,
        after: String,
        mode: u32,
    },
    /// `before` is the mode that it must have now.
    Mode {
        path: String,
        before: u32,
        mode: u32,
    },
    Owner {
        path: String,
        uid: u32,
        gid: u32,
    },
    /// A symbolic link is made, or taken away.
    Link {
        path: String,
        target: Option<String>,
    },
    /// A running unit is stopped or told to read its settings again.
    Unit {
        name: String,
        act: Act,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Stop,
    Start,
    Reload,
}

/// What was there before a change, and so what taking it back restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Before {
    Sysctl {
        key: String,
        value: String,
    },
    Path {
        path: String,
        state: PathState,
    },
    Unit {
        name: String,
        active: bool,
    },
    /// Nothing to take back: the next reading of settings follows the files.
    Reload {
        name: String,
    },
}

/// All of a path that a change may touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum PathState {
    Absent,
    /// The bytes lie beside the journal's record, under this name.
    File {
        blob: String,
        digest: String,
        mode: u32,
        uid: u32,
        gid: u32,
        modified: (i64, u32),
        attributes: Vec<(String, Vec<u8>)>,
    },
    Link {
        target: String,
        uid: u32,
        gid: u32,
    },
    Folder {
        mode: u32,
        uid: u32,
        gid: u32,
        attributes: Vec<(String, Vec<u8>)>,
    },
    /// A socket or device: its mode and owner are kept, nothing else is touched.
    Other {
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub control: String,
    pub title: String,
    pub changes: Vec<Change>,
    /// Who or what will notice, from what was seen.
    pub affects: Vec<String>,
    /// What is left to do by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Failed controls without a step, and why.
    pub skipped: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Everything that a profile holds.
    Profile,
    /// These controls, also those that a profile leaves out.
    Controls(BTreeSet<String>),
    /// These units, whatever they are.
    Units(BTreeSet<String>),
}

/// Units that are never switched off: the way in, the engines, and what they stand on.
const NEVER: [&str; 30] = [
    "ssh",
    "sshd",
    "docker",
    "containerd",
    "podman",
    "crio",
    "kubelet",
    "k3s",
    "rke2",
    "cri-docker",
    "systemd-",
    "dbus",
    "networking",
    "NetworkManager",
    "ifup@",
    "netplan",
    "wpa_supplicant",
    "dhcpcd",
    "getty@",
    "serial-getty@",
    "console-getty",
    "init",
    "basic.target",
    "multi-user.target",
    "network",
    "local-fs",
    "sysinit",
    "udev",
    "bulkhead",
    "cloud-init",
];

pub fn is_protected(unit: &str) -> bool {
    NEVER.iter().any(|name| {
        unit.strip_prefix(name).is_some_and(|rest| name.ends_with(['-', '@']) || rest.is_empty() || rest.starts_with(['.', '@', '-']))
    })
}

/// Can the remedy be applied and taken back by us?
pub fn is_automatic(control: &Control) -> bool {
    match control.check {
        Check::Sysctl { want, .. } | Check::Ssh { want, .. } => want.value().is_some(),
        Check::ModuleBlocked(_) | Check::FileMode { .. } | Check::ServiceOff(_) => true,
        Check::Other(_) => {
            docker_setting(&control.id).is_some() || mode_of_walk(&control.id).is_some() || control.id == "surface.ctrl-alt-del"
        }
        Check::MountOption { .. } | Check::PackagesAbsent(_) | Check::Containers(_) | Check::Kubelet { .. } | Check::Manifest { .. } => {
            false
        }
    }
}

pub fn plan(snapshot: &HostSnapshot, profile: Profile, selection: &Selection) -> Plan {
    let view = View::new(snapshot, profile);
    let mut plan = Plan::default();
    if let Selection::Units(units) = selection {
        for name in units {
            let known = snapshot.units.known().and_then(|list| list.iter().find(|unit| unit.name == *name));
            match known.map(|unit| switch_off(unit, &view, true)) {
                Some(Ok(step)) => plan.steps.push(step),
                Some(Err(why)) => plan.skipped.push((name.clone(), why)),
                None => plan.skipped.push((name.clone(), "there is no such unit".to_owned())),
            }
        }
        return plan;
    }
    // What earlier steps make of files that several settings share.
    let mut shared = Shared::new(&view);
    for control in catalogue().iter().filter(|control| control.stands_in(profile)) {
        let named = match selection {
            Selection::Controls(ids) => ids.contains(&control.id),
            Selection::Profile | Selection::Units(_) => false,
        };
        if !named && (*selection != Selection::Profile || !control.in_profile) {
            continue;
        }
        let outcome = evaluate(control, &view);
        if outcome.status != Status::Failed {
            if named {
                plan.skipped.push((control.id.clone(), format!("it is {}: {}", outcome.status.name(), outcome.evidence.join("; "))));
            }
            continue;
        }
        if plan.steps.len() >= STEPS_MAX {
            plan.skipped.push((control.id.clone(), format!("a plan has at most {STEPS_MAX} steps")));
            continue;
        }
        match steps(control, &view, &outcome, named, &mut shared) {
            Ok(steps) => {
                for mut step in steps {
                    step.changes = step.changes.into_iter().filter_map(|change| shared.mode(change)).collect();
                    if !step.changes.is_empty() {
                        plan.steps.push(step);
                    }
                }
            }
            Err(why) => plan.skipped.push((control.id.clone(), why)),
        }
    }
    if let Selection::Controls(ids) = selection {
        let all = catalogue();
        let known = |id: &String| all.iter().any(|control| control.id == *id && control.stands_in(profile));
        plan.skipped
            .extend(ids.iter().filter(|id| !known(id)).map(|id| (id.clone(), "there is no such control in this profile".to_owned())));
    }
    plan
}

fn steps(control: &Control, view: &View<'_>, outcome: &Outcome, named: bool, shared: &mut Shared) -> Result<Vec<Step>, String> {
    let step = |changes: Vec<Change>| Step {
        control: control.id.clone(),
        title: control.title.clone(),
        changes,
        affects: if control.risk_note.is_empty() { Vec::new() } else { vec![control.risk_note.to_owned()] },
        notes: Vec::new(),
    };
    match control.check {
        Check::Sysctl { key, want, .. } => {
            let value = want.value().ok_or("no single value does it")?;
            let mut step = step(sysctl(view, key, &value)?);
            if let Some(set) = view.persisted.get(key).filter(|set| set.file == "/etc/sysctl.conf" && set.value != value) {
                step.notes.push(format!("{} sets {key} to {} and is read last: take the line out of it", set.file, set.value));
            }
            Ok(vec![step])
        }
        Check::ModuleBlocked(module) => {
            let mut step = step(vec![drop_in(
                view,
                &format!("/etc/modprobe.d/bulkhead-{module}.conf"),
                format!("{MARK}install {module} /bin/false\nblacklist {module}\n"),
            )?]);
            if view.snapshot.kernel.modules.known().is_some_and(|list| list.iter().any(|one| one == module)) {
                step.notes.push(format!("{module} is loaded, and stays so until it is removed or the host reboots"));
            }
            Ok(vec![step])
        }
        Check::FileMode { paths, mode_max, owners, groups } => Ok(vec![step(modes(view, paths, mode_max, owners, groups))]),
        Check::Ssh { keyword, want, .. } => {
            let value = want.value().ok_or("a list has to be made by hand")?;
            if keyword == "PasswordAuthentication"
                && !view.snapshot.key_files.known().is_some_and(|files| files.iter().any(|file| file.keys > 0))
            {
                return Err("nobody has a key here: without passwords nobody could log in".to_owned());
            }
            if view.ssh_match.iter().any(|(key, _)| key.eq_ignore_ascii_case(keyword))
                && outcome.evidence.iter().any(|line| line.contains("Match block"))
            {
                return Err("it is set in a Match block, which has to be changed by hand".to_owned());
            }
            let mut step = step(vec![shared.ssh(view, &control.id, keyword, &value)?]);
            for unit in ["ssh.service", "sshd.service"] {
                if view.snapshot.units.known().is_some_and(|units| units.iter().any(|one| one.name == unit && one.active == Some(true))) {
                    step.changes.push(Change::Unit { name: unit.to_owned(), act: Act::Reload });
                    break;
                }
            }
            Ok(vec![step])
        }
        Check::ServiceOff(names) => {
            let units = view.snapshot.units.known().ok_or("the units are not known")?;
            let on = units
                .iter()
                .filter(|unit| names.contains(&unit.name.as_str()) && (unit.state == UnitState::Enabled || unit.active == Some(true)));
            let made: Result<Vec<Step>, String> = on.map(|unit| switch_off(unit, view, named)).collect();
            // The units of one control are one step: they belong together.
            let mut all = made?.into_iter();
            let Some(mut first) = all.next() else { return Ok(Vec::new()) };
            for more in all {
                first.changes.extend(more.changes);
                first.affects.extend(more.affects);
            }
            first.control.clone_from(&control.id);
            first.title.clone_from(&control.title);
            Ok(vec![first])
        }
        Check::Other(_) => match (docker_setting(&control.id), mode_of_walk(&control.id)) {
            (Some((key, value)), _) => {
                let mut step = step(vec![shared.docker(view, key, value)?]);
                step.notes.push("Docker reads it at its next start, which is left to you: `systemctl restart docker`".to_owned());
                Ok(vec![step])
            }
            (None, Some(bits)) => Ok(vec![step(walk_modes(view, &control.id, bits))]),
            (None, None) if control.id == "surface.ctrl-alt-del" => Ok(vec![step(vec![Change::Link {
                path: "/etc/systemd/system/ctrl-alt-del.target".to_owned(),
                target: Some("/dev/null".to_owned()),
            }])]),
            (None, None) => Err(format!("by hand: {}", control.remediation)),
        },
        Check::MountOption { .. } | Check::PackagesAbsent(_) | Check::Containers(_) | Check::Kubelet { .. } | Check::Manifest { .. } => {
            Err(format!("by hand: {}", control.remediation))
        }
    }
}

const MARK: &str = "# Written by `bulkhead host harden`; `bulkhead host undo` takes it away.\n";

/// The running value and a file of its own. The name comes late in the order of `sysctl.d`.
fn sysctl(view: &View<'_>, key: &str, value: &str) -> Result<Vec<Change>, String> {
    let mut changes = vec![drop_in(view, &format!("/etc/sysctl.d/99-zz-bulkhead-{key}.conf"), format!("{MARK}{key} = {value}\n"))?];
    if view.snapshot.kernel.sysctls.get(key).is_some_and(|fact| fact.known().is_some_and(|running| running != value)) {
        changes.push(Change::Sysctl { key: key.to_owned(), value: value.to_owned() });
    }
    Ok(changes)
}

fn drop_in(view: &View<'_>, path: &str, after: String) -> Result<Change, String> {
    let before = match view.snapshot.texts.get(path) {
        Some(Fact::Known(text)) => Some(text.clone()),
        Some(Fact::Unreadable(why)) => return Err(format!("{path}: {why}")),
        Some(Fact::Absent) | None => None,
    };
    Ok(Change::File { path: path.to_owned(), before, after, mode: 0o644 })
}

fn modes(view: &View<'_>, paths: &[&str], mode_max: u32, owners: &[u32], groups: GroupWant) -> Vec<Change> {
    let mut changes = Vec::new();
    for &path in paths {
        let Fact::Known(meta) = view.snapshot.file(path) else { continue };
        if file_problems(view, &meta, mode_max, owners, groups).is_empty() || meta.kind == FileKind::Link {
            continue;
        }
        let permitted = if meta.kind == FileKind::Folder { mode_max | ((mode_max & 0o444) >> 2) } else { mode_max };
        let mode = (meta.mode & 0o7000) | (meta.mode & permitted & 0o777);
        // First the owner: a new owner may change the mode, and the kernel takes set-id bits away.
        let group_wrong = file_problems(view, &crate::snapshot::FileMeta { mode, uid: 0, ..meta.clone() }, mode_max, owners, groups);
        if !owners.contains(&meta.uid) || !group_wrong.is_empty() {
            let uid = if owners.contains(&meta.uid) { meta.uid } else { 0 };
            let gid = if group_wrong.is_empty() { meta.gid } else { 0 };
            changes.push(Change::Owner { path: path.to_owned(), uid, gid });
        }
        if mode != meta.mode {
            changes.push(Change::Mode { path: path.to_owned(), before: meta.mode, mode });
        }
    }
    changes
}

/// Controls of the walk whose remedy is bits of the mode: to take away, and to add.
fn mode_of_walk(id: &str) -> Option<(u32, u32)> {
    Some(match id {
        "surface.set-id" | "surface.set-id-unowned" => (0o6000, 0),
        "surface.set-id-writable" => (0o022, 0),
        "surface.world-writable-files" => (0o002, 0),
        "surface.world-writable-folders" => (0, 0o1000),
        _ => return None,
    })
}

fn walk_modes(view: &View<'_>, id: &str, (away, add): (u32, u32)) -> Vec<Change> {
    let Fact::Known(walk) = &view.snapshot.walk else { return Vec::new() };
    let list = match id {
        "surface.world-writable-files" => &walk.world_writable_files,
        "surface.world-writable-folders" => &walk.world_writable_folders,
        _ => &walk.set_id,
    };
    // Only what the control itself complains of: its evidence begins with the path.
    let control = catalogue().into_iter().find(|control| control.id == id);
    let evidence = control.map(|control| evaluate(&control, view).evidence).unwrap_or_default();
    let named = |path: &str| evidence.iter().any(|line| line.strip_prefix(path).is_some_and(|rest| rest.starts_with(" (")));
    list.iter()
        .filter(|found| named(&found.path))
        .map(|found| Change::Mode { path: found.path.clone(), before: found.mode, mode: (found.mode & !away) | add })
        .collect()
}

/// Key and value in `daemon.json` that mend a control.
fn docker_setting(id: &str) -> Option<(&'static str, Value)> {
    Some(match id {
        "docker.icc" => ("icc", Value::Bool(false)),
        "docker.log-level" => ("log-level", Value::String("info".to_owned())),
        "docker.log-limit" => ("log-opts", serde_json::json!({ "max-file": "3", "max-size": "10m" })),
        "docker.no-new-privileges" => ("no-new-privileges", Value::Bool(true)),
        "docker.live-restore" => ("live-restore", Value::Bool(true)),
        "docker.userland-proxy" => ("userland-proxy", Value::Bool(false)),
        "docker.seccomp-profile" => ("seccomp-profile", Value::String("builtin".to_owned())),
        "docker.experimental" => ("experimental", Value::Bool(false)),
        "docker.userns-remap" => ("userns-remap", Value::String("default".to_owned())),
        "docker.ulimits" => ("default-ulimits", serde_json::json!({ "nofile": { "Hard": 64000, "Name": "nofile", "Soft": 64000 } })),
        _ => return None,
    })
}

/// Disables, masks and stops one unit, when nobody used it or it was named.
fn switch_off(unit: &Unit, view: &View<'_>, named: bool) -> Result<Step, String> {
    let observed = view.snapshot.observed_seconds;
    let text = describe_unit(unit, observed);
    if is_protected(&unit.name) {
        return Err(format!("{} is never switched off: logins or containers stand on it", unit.name));
    }
    if !named {
        match (&unit.usage, observed) {
            _ if !unit.dependants.is_empty() => return Err(format!("{text}: name it to switch it off all the same")),
            (Some(usage), Some(seconds)) if usage.is_idle() && seconds >= OBSERVED_SECONDS_MIN => {}
            (Some(usage), Some(seconds)) if usage.is_idle() => {
                return Err(format!(
                    "{text}: {seconds} s are too short to say that nobody uses it (at least {OBSERVED_SECONDS_MIN}); watch longer, or name it"
                ));
            }
            (Some(_), Some(_)) => return Err(format!("{text}: it is used; name it to switch it off all the same")),
            // What does not run is used by nobody; it would only start at the next boot.
            _ if unit.active == Some(false) && observed.is_some() => {}
            _ => return Err(format!("{text}; use --observe SECONDS, or name it")),
        }
    }
    let mut changes: Vec<Change> = unit.links.iter().map(|link| Change::Link { path: link.clone(), target: None }).collect();
    let own = format!("/etc/systemd/system/{}", unit.name);
    if unit.path.contains("/systemd/") && unit.path != own && unit.state != UnitState::Masked && !unit.links.contains(&own) {
        changes.push(Change::Link { path: own, target: Some("/dev/null".to_owned()) });
    }
    if unit.active == Some(true) {
        changes.push(Change::Unit { name: unit.name.clone(), act: Act::Stop });
    }
    Ok(Step {
        control: format!("unit:{}", unit.name),
        title: format!("{} is switched off", unit.name),
        changes,
        affects: vec![text],
        notes: Vec::new(),
    })
}

/// Text and settings of `daemon.json` after the steps so far.
type DockerFile = (Option<String>, Map<String, Value>);

/// Files that several steps of one plan change, as they will be.
struct Shared {
    docker_path: String,
    docker: Option<Result<DockerFile, String>>,
    ssh: Option<String>,
    modes: BTreeMap<String, u32>,
}

impl Shared {
    fn new(view: &View<'_>) -> Self {
        let path = view.engine("docker").map(|engine| engine.config_path.clone()).filter(|path| !path.is_empty());
        Self { docker_path: path.unwrap_or_else(|| "/etc/docker/daemon.json".to_owned()), docker: None, ssh: None, modes: BTreeMap::new() }
    }

    /// A mode as it is after the steps before: what a step takes away or adds stays taken away or added.
    fn mode(&mut self, change: Change) -> Option<Change> {
        let Change::Mode { path, before, mode } = change else { return Some(change) };
        let now = *self.modes.get(&path).unwrap_or(&before);
        let wanted = (now & !(before & !mode)) | (mode & !before);
        self.modes.insert(path.clone(), wanted);
        (wanted != now).then_some(Change::Mode { path, before: now, mode: wanted })
    }

    /// One more key in `daemon.json`; keys that are there keep their values, those of objects are joined.
    fn docker(&mut self, view: &View<'_>, key: &str, value: Value) -> Result<Change, String> {
        let path = self.docker_path.clone();
        if view
            .engine("docker")
            .is_some_and(|engine| engine.arguments.iter().any(|argument| argument.trim_start_matches('-').split('=').next() == Some(key)))
        {
            return Err(format!("--{key} is a flag of dockerd: Docker refuses a setting that stands in both places"));
        }
        let state = self.docker.get_or_insert_with(|| match view.snapshot.texts.get(&path) {
            Some(Fact::Known(text)) => match serde_json::from_str::<Value>(text) {
                Ok(Value::Object(map)) => Ok((Some(text.clone()), map)),
                _ if text.trim().is_empty() => Ok((Some(text.clone()), Map::new())),
                _ => Err(format!("{path} is no JSON object")),
            },
            Some(Fact::Unreadable(why)) => Err(format!("{path}: {why}")),
            Some(Fact::Absent) | None => Ok((None, Map::new())),
        });
        let (before, map) = state.as_mut().map_err(|why| why.clone())?;
        match (map.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                for (name, value) in new {
                    old.entry(name).or_insert(value);
                }
            }
            (_, value) => drop(map.insert(key.to_owned(), value)),
        }
        let mut after = serde_json::to_string_pretty(map).map_err(|error| error.to_string())?;
        after.push('\n');
        let was = before.replace(after.clone());
        Ok(Change::File { path, before: was, after, mode: 0o644 })
    }

    /// A drop-in where `sshd_config` includes them, else a line at its head: of a keyword the first counts.
    fn ssh(&mut self, view: &View<'_>, id: &str, keyword: &str, value: &str) -> Result<Change, String> {
        let config = match view.snapshot.text(SSHD_CONFIG) {
            Fact::Known(text) => text.to_owned(),
            Fact::Absent => return Err(format!("there is no {SSHD_CONFIG}")),
            Fact::Unreadable(why) => return Err(why),
        };
        let includes = config.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).is_some_and(|first| {
            let mut words = first.split_whitespace();
            words.next().is_some_and(|word| word.eq_ignore_ascii_case("include"))
                && words.any(|word| word == "/etc/ssh/sshd_config.d/*.conf")
        });
        let earlier = view.snapshot.texts_in("/etc/ssh/sshd_config.d", ".conf").find(|(path, text)| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name < "00-bulkhead" && text.lines().any(|line| line.trim().to_ascii_lowercase().starts_with(&keyword.to_ascii_lowercase()))
        });
        if includes {
            if let Some((path, _)) = earlier {
                return Err(format!("{path} sets {keyword} and is read first: change it there"));
            }
            let name = id.trim_start_matches("ssh.");
            return drop_in(view, &format!("/etc/ssh/sshd_config.d/00-bulkhead-{name}.conf"), format!("{MARK}{keyword} {value}\n"));
        }
        let before = self.ssh.take().unwrap_or(config);
        let after = format!("{keyword} {value}\n{before}");
        self.ssh = Some(after.clone());
        let mode = view.snapshot.file(SSHD_CONFIG).known().map_or(0o644, |meta| meta.mode & 0o777);
        Ok(Change::File { path: SSHD_CONFIG.to_owned(), before: Some(before), after, mode })
    }
}

impl Change {
    /// What it changes, in a line.
    pub fn text(&self) -> String {
        match self {
            Self::Sysctl { key, value } => format!("set {key} = {value} now"),
            Self::File { path, before: None, .. } => format!("write {path}"),
            Self::File { path, before: Some(_), .. } => format!("change {path}"),
            Self::Mode { path, mode, .. } => format!("chmod {mode:04o} {path}"),
            Self::Owner { path, uid, gid } => format!("chown {uid}:{gid} {path}"),
            Self::Link { path, target: Some(target) } => format!("link {path} -> {target}"),
            Self::Link { path, target: None } => format!("take away the link {path}"),
            Self::Unit { name, act: Act::Stop } => format!("stop {name}"),
            Self::Unit { name, act: Act::Start } => format!("start {name}"),
            Self::Unit { name, act: Act::Reload } => format!("reload {name}"),
        }
    }

    /// The path that it touches, where it touches one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::File { path, .. } | Self::Mode { path, .. } | Self::Owner { path, .. } | Self::Link { path, .. } => Some(path),
            Self::Sysctl { .. } | Self::Unit { .. } => None,
        }
    }
}
