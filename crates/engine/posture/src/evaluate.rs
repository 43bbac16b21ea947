//! From a check and a snapshot to an outcome: the kinds that are data.

use crate::control::{Check, Control, GroupWant, Outcome, Seen, Want};
use crate::controls::{kubelet, manifest, mount_of, ssh_server};
use crate::snapshot::{Container, Fact, UnitState};
use crate::view::View;

pub fn evaluate(control: &Control, view: &View<'_>) -> Outcome {
    match control.check {
        Check::Sysctl { key, want, default } => sysctl(view, key, want, default),
        Check::ModuleBlocked(module) => module_blocked(view, module),
        Check::MountOption { target, option } => mount_option(view, target, option),
        Check::FileMode { paths, mode_max, owners, groups } => file_mode(view, paths, mode_max, owners, groups),
        Check::Ssh { keyword, want, default } => ssh(view, keyword, want, default),
        Check::ServiceOff(units) => service_off(view, units),
        Check::PackagesAbsent(packages) => packages_absent(view, packages),
        Check::Containers(look) => containers(view, look),
        Check::Kubelet { field, flag, want, default } => kubelet(view, field, flag, want, default),
        Check::Manifest { component, flag, want, default } => manifest(view, component, flag, want, default),
        Check::Other(look) => look(view),
    }
}

fn sysctl(view: &View<'_>, key: &str, want: Want, default: &str) -> Outcome {
    let persisted = view.persisted.get(key);
    let set = persisted.map_or_else(|| "no file sets it".to_owned(), |set| format!("{} sets {}", set.file, set.value));
    let judge = |value: &str, text: String| match want.accepts(value) {
        Some(true) => Outcome::passed(text),
        Some(false) => Outcome::failed(format!("{text}; wanted is {}", want.text())),
        None => Outcome::unknown(format!("{text}, which is no number")),
    };
    match view.snapshot.kernel.sysctls.get(key) {
        Some(Fact::Known(value)) => judge(value, format!("{key} is {value}; {set}")),
        Some(Fact::Unreadable(why)) => Outcome::unknown(format!("{key}: {why}")),
        // What the kernel was built without, it cannot be asked for; Yama is a protection that is then missing.
        Some(Fact::Absent) if view.snapshot.live && key.starts_with("kernel.yama") => Outcome::failed("this kernel has no Yama"),
        Some(Fact::Absent) if view.snapshot.live => Outcome::not_applicable(format!("this kernel has no {key}")),
        None if view.snapshot.live => Outcome::unknown(format!("{key} was not read")),
        Some(Fact::Absent) | None => match persisted {
            Some(set) => judge(&set.value, format!("{} sets {key} to {}", set.file, set.value)),
            None => judge(default, format!("no file sets {key}; the kernel's default is {default}")),
        },
    }
}

fn module_blocked(view: &View<'_>, module: &str) -> Outcome {
    let kernel = &view.snapshot.kernel;
    let loaded = kernel.modules.known().is_some_and(|list| list.iter().any(|one| one == module));
    let blocked = view.blocked_modules.get(module);
    if loaded {
        return Outcome::failed(format!("{module} is loaded"));
    }
    if let Some(file) = blocked {
        return Outcome::passed(format!("{file} blocks it"));
    }
    if kernel.sysctls.get("kernel.modules_disabled").and_then(|fact| fact.known()).is_some_and(|value| value == "1") {
        return Outcome::passed("no module can be loaded any more");
    }
    match &kernel.available {
        Fact::Known(list) if list.iter().any(|one| one == module) => {
            Outcome::failed(format!("{module} is in the kernel or can be loaded, and no file blocks it"))
        }
        Fact::Known(_) => Outcome::passed(format!("this kernel has no {module}")),
        Fact::Absent => Outcome::not_applicable("the kernel does not come from this root: it has no list of modules"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn mount_option(view: &View<'_>, target: &str, option: &str) -> Outcome {
    let mounts = match &view.snapshot.mounts {
        Fact::Known(mounts) => mounts,
        Fact::Absent => return Outcome::unknown("no table of mounts"),
        Fact::Unreadable(why) => return Outcome::unknown(why.clone()),
    };
    match mounts.iter().rfind(|mount| mount.target == target) {
        Some(mount) => {
            let has = if option == "hidepid" {
                mount.options.iter().any(|found| {
                    matches!(found.as_str(), "hidepid=1" | "hidepid=2" | "hidepid=invisible" | "hidepid=noaccess" | "hidepid=ptraceable")
                })
            } else {
                mount.has(option)
            };
            let text = format!("{target} ({}) is mounted {}", mount.fs_type, mount.options.join(","));
            if has { Outcome::passed(text) } else { Outcome::failed(text) }
        }
        None => match mount_of(mounts, target) {
            Some(mount) => Outcome::not_applicable(format!("{target} is no mount of its own; it lies on {}", mount.target)),
            None if view.snapshot.live => Outcome::unknown("the table of mounts is empty"),
            None => Outcome::not_applicable(format!("no mount of {target} is declared")),
        },
    }
}

fn file_mode(view: &View<'_>, paths: &[&str], mode_max: u32, owners: &[u32], groups: GroupWant) -> Outcome {
    let mut bad = Vec::new();
    let mut unread = Vec::new();
    let mut fine = Vec::new();
    for path in paths {
        match view.snapshot.file(path) {
            Fact::Known(meta) => {
                let problems = file_problems(view, &meta, mode_max, owners, groups);
                if problems.is_empty() {
                    fine.push(format!("{path} ({:04o} {}:{})", meta.mode, meta.uid, meta.gid));
                } else {
                    bad.push(format!("{path} {}", problems.join(", ")));
                }
            }
            Fact::Absent => {}
            Fact::Unreadable(why) => unread.push(format!("{path}: {why}")),
        }
    }
    if bad.is_empty() && unread.is_empty() && fine.is_empty() {
        return Outcome::not_applicable(format!(
            "{} not there",
            match paths {
                [one] => format!("{one} is"),
                more => format!("{} are", more.join(", ")),
            }
        ));
    }
    Outcome::of_lists(bad, unread, fine.join(", "))
}

/// What is wrong with one file, as phrases.
pub fn file_problems(view: &View<'_>, meta: &crate::snapshot::FileMeta, mode_max: u32, owners: &[u32], groups: GroupWant) -> Vec<String> {
    let mut problems = Vec::new();
    // A folder's execute bits let nobody read; set-id and sticky bits are other controls'.
    let permitted = if meta.kind == crate::snapshot::FileKind::Folder { mode_max | ((mode_max & 0o444) >> 2) } else { mode_max };
    if meta.mode & 0o777 & !permitted != 0 {
        problems.push(format!("has mode {:04o}", meta.mode));
    }
    if !owners.contains(&meta.uid) {
        problems.push(format!("belongs to user {}", meta.uid));
    }
    if let GroupWant::RootOr(names) = groups
        && meta.gid != 0
    {
        let known = view.snapshot.groups.known().into_iter().flatten();
        let allowed = known.into_iter().any(|group| group.gid == meta.gid && names.contains(&group.name.as_str()));
        if !allowed && meta.mode & 0o070 != 0 {
            problems.push(format!("is open to group {}", meta.gid));
        }
    }
    problems
}

fn ssh(view: &View<'_>, keyword: &str, want: Want, default: &str) -> Outcome {
    if let Err(outcome) = ssh_server(view) {
        return outcome;
    }
    let lower = keyword.to_ascii_lowercase();
    let (value, from) = match view.ssh.get(&lower) {
        Some(value) => (value.as_str(), "set"),
        None => (default, "the default"),
    };
    // A list may add to (`+`), take from (`-`) or reorder (`^`) the default.
    let value = match want {
        Want::NoneOf(_) if value.starts_with('-') => "",
        Want::NoneOf(_) => value.trim_start_matches(['+', '^']),
        _ => value,
    };
    let seconds = match want {
        Want::Between(..) | Want::AtMost(_) | Want::AtLeast(_) => seconds(value),
        _ => None,
    };
    let text = if value.is_empty() { format!("{keyword} has its default") } else { format!("{keyword} {value} ({from})") };
    let accepts = |value: &str| want.accepts(value);
    match accepts(seconds.as_deref().unwrap_or(value)) {
        Some(true) => {
            let weakened: Vec<String> = view
                .ssh_match
                .iter()
                .filter(|(key, value)| *key == lower && accepts(value) == Some(false))
                .map(|(_, value)| format!("a Match block sets {keyword} {value}"))
                .collect();
            Outcome::of_list(weakened, text)
        }
        Some(false) => Outcome::failed(format!("{text}; wanted is {}", want.text())),
        None => Outcome::unknown(format!("{text} cannot be read as a number")),
    }
}

/// `2m`, `1h30m`, `90` as seconds: sshd_config(5), "TIME FORMATS".
fn seconds(value: &str) -> Option<String> {
    let mut total: i64 = 0;
    let mut number: Option<i64> = None;
    for c in value.chars() {
        match c {
            '0'..='9' => number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(i64::from(u32::from(c) - u32::from('0')))?),
            unit => {
                let factor = match unit.to_ascii_lowercase() {
                    's' => 1,
                    'm' => 60,
                    'h' => 3600,
                    'd' => 86_400,
                    'w' => 604_800,
                    _ => return None,
                };
                total = total.checked_add(number.take()?.checked_mul(factor)?)?;
            }
        }
    }
    total.checked_add(number.unwrap_or(0)).map(|total| total.to_string())
}

fn service_off(view: &View<'_>, names: &[&str]) -> Outcome {
    match &view.snapshot.units {
        Fact::Known(units) => {
            let on = units
                .iter()
                .filter(|unit| names.contains(&unit.name.as_str()) && (unit.state == UnitState::Enabled || unit.active == Some(true)));
            let here = units.iter().filter(|unit| names.contains(&unit.name.as_str())).count();
            let fine = if here == 0 {
                format!("{} not installed", names.join(", "))
            } else {
                "installed, and neither enabled nor running".to_owned()
            };
            Outcome::of_list(on.map(|unit| crate::controls::describe_unit(unit, view.snapshot.observed_seconds)).collect(), fine)
        }
        Fact::Absent => Outcome::not_applicable(format!(
            "no services that can be listed are here: the init system is {}",
            view.snapshot.init.known().map_or("not known", String::as_str)
        )),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn packages_absent(view: &View<'_>, names: &[&str]) -> Outcome {
    match &view.snapshot.packages {
        Fact::Known(packages) => {
            let found = packages.installed.iter().filter(|package| names.contains(&package.name.as_str()));
            Outcome::of_list(
                found.map(|package| format!("{} {}", package.name, package.version)).collect(),
                format!("none of {}", names.join(", ")),
            )
        }
        Fact::Absent => Outcome::not_applicable("no package database is here"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn containers(view: &View<'_>, look: fn(&Container, &View<'_>) -> Seen) -> Outcome {
    let list = match &view.snapshot.containers {
        Fact::Known(list) => list,
        Fact::Absent => return Outcome::not_applicable("no container exists"),
        Fact::Unreadable(why) => return Outcome::unknown(why.clone()),
    };
    if list.is_empty() {
        return Outcome::not_applicable("no container exists, running or stopped, of any engine");
    }
    let mut bad = Vec::new();
    let mut unread = Vec::new();
    let mut judged = 0;
    for container in list {
        let state = if container.running { "" } else { ", stopped" };
        match look(container, view) {
            Seen::Fine => judged += 1,
            Seen::Bad(what) => bad.push(format!("{}{state}: {what}", container.title())),
            Seen::Unknown(why) => unread.push(format!("{}{state}: {why}", container.title())),
            Seen::Beside => {}
        }
    }
    if bad.is_empty() && unread.is_empty() && judged == 0 {
        return Outcome::not_applicable(format!("{} containers, and it says nothing of any", list.len()));
    }
    Outcome::of_lists(bad, unread, format!("{judged} of {} containers", list.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_sshd_are_seconds() {
        assert_eq!(seconds("2m").as_deref(), Some("120"));
        assert_eq!(seconds("1h30m").as_deref(), Some("5400"));
        assert_eq!(seconds("45").as_deref(), Some("45"));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds(&"9".repeat(40)), None);
    }
}
