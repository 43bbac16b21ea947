//! Services as systemd's, OpenRC's and System V's files tell of them, and whether they run as the kernel's cgroups show
//! it. No bus is needed for reading; a host without systemd says so.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{FileKind, HostSnapshot, Unit, UnitState};

use crate::root::Root;

/// Folders of units, the first wins: systemd.unit(5).
const FOLDERS: [&str; 5] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const KINDS: [&str; 6] = [".service", ".socket", ".timer", ".path", ".target", ".mount"];
/// Units told of; a Debian server has 350.
pub const UNITS_MAX: usize = 10_000;

pub fn collect(root: &Root, snapshot: &mut HostSnapshot) {
    let mut units = systemd(root);
    if units.is_empty() {
        units = openrc(root);
    }
    if units.is_empty() && !root.exists("/etc/init.d") {
        snapshot.units = Fact::Absent;
        return;
    }
    sysv(root, &mut units);
    let systemd_runs = snapshot.live && snapshot.init.known().is_some_and(|init| init == "systemd");
    if snapshot.live {
        for unit in units.values_mut() {
            unit.active = if unit.state == UnitState::Masked { Some(false) } else { active(root, unit, systemd_runs) };
        }
    }
    let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, needed) in units.values().flat_map(|unit| requirements(root, unit).into_iter().map(|needed| (unit.name.clone(), needed))) {
        needs.entry(needed).or_default().push(name);
    }
    let on: BTreeSet<String> =
        units.values().filter(|unit| unit.active == Some(true) || unit.state == UnitState::Enabled).map(|unit| unit.name.clone()).collect();
    for unit in units.values_mut() {
        let mut dependants: Vec<String> = needs.remove(&unit.name).unwrap_or_default();
        dependants.retain(|name| on.contains(name) && *name != unit.name && !sibling(name, &unit.name));
        unit.dependants = dependants;
    }
    let more = units.len().saturating_sub(UNITS_MAX);
    if more > 0 {
        snapshot.beyond_caps.insert("units".to_owned(), more as u64);
    }
    snapshot.units = Fact::Known(units.into_values().take(UNITS_MAX).collect());
}

/// A socket and the service it starts need each other; that is no use by others.
fn sibling(a: &str, b: &str) -> bool {
    let stem = |name: &str| name.rsplit_once('.').map(|(stem, _)| stem.to_owned());
    stem(a) == stem(b)
}

fn systemd(root: &Root) -> BTreeMap<String, Unit> {
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    for folder in FOLDERS {
        let Fact::Known(names) = root.names(folder) else { continue };
        for name in names.into_iter().filter(|name| KINDS.iter().any(|kind| name.ends_with(kind))) {
            let path = format!("{folder}/{name}");
            let target = root.link(&path);
            if units.contains_key(&name) {
                continue;
            }
            let masked = target.as_deref() == Some("/dev/null")
                || root.meta(&path).known().is_some_and(|meta| meta.kind == FileKind::File && meta.size == 0);
            // An alias is another name of a unit, and enables it.
            if let Some(real) = target.as_deref().filter(|target| *target != "/dev/null").and_then(|target| target.rsplit('/').next())
                && real != name
                && folder == FOLDERS[0]
            {
                units.entry(real.to_owned()).or_insert_with(|| unit(real, "")).links.push(path);
                continue;
            }
            let mut made = unit(&name, &path);
            if masked {
                made.state = UnitState::Masked;
            }
            units.insert(name, made);
        }
    }
    for folder in &FOLDERS[..2] {
        let Fact::Known(names) = root.names(folder) else { continue };
        for target in names.iter().filter(|name| name.ends_with(".wants") || name.ends_with(".requires")) {
            let Fact::Known(wanted) = root.names(&format!("{folder}/{target}")) else { continue };
            for name in wanted {
                let path = format!("{folder}/{target}/{name}");
                let known = units.entry(name.clone()).or_insert_with(|| unit(&name, ""));
                known.wanted_by.push(target.trim_end_matches(".wants").trim_end_matches(".requires").to_owned());
                if *folder == FOLDERS[0] {
                    known.links.push(path);
                }
            }
        }
    }
    units.retain(|_, unit| {
        if unit.path.is_empty() {
            // Enabled by a link, and defined elsewhere: a template's instance, or gone.
            let template = unit.name.split_once('@').map(|(stem, rest)| format!("{stem}@.{}", rest.rsplit('.').next().unwrap_or_default()));
            let path = template.and_then(|name| FOLDERS.iter().map(|folder| format!("{folder}/{name}")).find(|path| root.exists(path)));
            match path.or_else(|| FOLDERS.iter().map(|folder| format!("{folder}/{}", unit.name)).find(|path| root.exists(path))) {
                Some(path) => unit.path = path,
                None => return false,
            }
        }
        true
    });
    for unit in units.values_mut().filter(|unit| unit.state != UnitState::Masked) {
        let text = root.text(&unit.path);
        let text = text.known().map(String::as_str).unwrap_or_default();
        unit.user = text.lines().find_map(|line| line.trim().strip_prefix("User=")).map(str::to_owned);
        unit.state = if !unit.links.is_empty() || !unit.wanted_by.is_empty() {
            UnitState::Enabled
        } else if text.lines().any(|line| line.trim() == "[Install]") {
            UnitState::Disabled
        } else {
            UnitState::Static
        };
    }
    units
}

fn unit(name: &str, path: &str) -> Unit {
    Unit { name: name.to_owned(), path: path.to_owned(), ..Unit::default() }
}

fn openrc(root: &Root) -> BTreeMap<String, Unit> {
    let mut units = BTreeMap::new();
    let Fact::Known(levels) = root.names("/etc/runlevels") else { return units };
    for level in levels {
        let Fact::Known(names) = root.names(&format!("/etc/runlevels/{level}")) else { continue };
        for name in names {
            let known =
                units.entry(format!("{name}.service")).or_insert_with(|| unit(&format!("{name}.service"), &format!("/etc/init.d/{name}")));
            known.state = UnitState::Enabled;
            known.wanted_by.push(level.clone());
            known.links.push(format!("/etc/runlevels/{level}/{name}"));
        }
    }
    units
}

/// Scripts of System V that no unit replaces; systemd makes services of them.
fn sysv(root: &Root, units: &mut BTreeMap<String, Unit>) {
    let Fact::Known(scripts) = root.names("/etc/init.d") else { return };
    for script in scripts.iter().filter(|name| !name.starts_with('.') && *name != "README" && !name.ends_with(".sh")) {
        let name = format!("{script}.service");
        if units.contains_key(&name) {
            continue;
        }
        let mut made = unit(&name, &format!("/etc/init.d/{script}"));
        for level in 2..=5 {
            let folder = format!("/etc/rc{level}.d");
            let Fact::Known(links) = root.names(&folder) else { continue };
            let mine = links
                .iter()
                .filter(|link| link.strip_prefix('S').is_some_and(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()) == script));
            for link in mine {
                made.state = UnitState::Enabled;
                made.wanted_by.push(format!("rc{level}"));
                made.links.push(format!("{folder}/{link}"));
            }
        }
        units.insert(name, made);
    }
}

/// Units that this one cannot do without.
fn requirements(root: &Root, unit: &Unit) -> Vec<String> {
    if unit.state == UnitState::Masked || !unit.path.contains("/systemd/") {
        return Vec::new();
    }
    let Fact::Known(text) = root.text(&unit.path) else { return Vec::new() };
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some((key, value)) = line.split_once('=') else { continue };
        if matches!(key.trim(), "Requires" | "BindsTo" | "Requisite") {
            found.extend(value.split_whitespace().map(str::to_owned).take(64));
        }
    }
    found
}

/// Has it a process now? By its control group, which nobody can talk out of existence.
fn active(root: &Root, unit: &Unit, systemd: bool) -> Option<bool> {
    if unit.path.starts_with("/etc/init.d/") && root.exists("/run/openrc") {
        return Some(root.exists(&format!("/run/openrc/started/{}", unit.name.trim_end_matches(".service"))));
    }
    if !systemd || !unit.name.ends_with(".service") {
        return None;
    }
    Some(cgroup_of(root, &unit.name).is_some())
}

/// The control group of a unit that has processes.
pub fn cgroup_of(root: &Root, name: &str) -> Option<String> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].iter().find_map(|hierarchy| {
        let path = format!("{hierarchy}/system.slice/{name}");
        let busy = |path: &str| root.line(&format!("{path}/cgroup.procs")).known().is_some_and(|text| !text.is_empty());
        let populated =
            root.line(&format!("{path}/cgroup.events")).known().is_some_and(|text| text.lines().any(|line| line == "populated 1"));
        (populated || busy(&path)).then_some(path)
    })
}
