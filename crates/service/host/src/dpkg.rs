//! Databases of installed packages: dpkg's and apk's text files. Lines that do not hold together are passed over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{Package, Packages};

use crate::root::Root;

pub const STATUS: &str = "/var/lib/dpkg/status";
pub const INFO: &str = "/var/lib/dpkg/info";
const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Bytes of the database itself; a workstation with 5,000 packages has 8 MB.
const STATUS_BYTES_MAX: u64 = 128 << 20;
/// Bytes of one package's list of files.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Packages told of.
pub const PACKAGES_MAX: usize = 50_000;

/// What is installed, whichever database tells.
pub fn packages(root: &Root) -> Fact<Packages> {
    match root.bytes(STATUS, STATUS_BYTES_MAX) {
        Fact::Known(bytes) => {
            let extended = root.bytes("/var/lib/apt/extended_states", STATUS_BYTES_MAX);
            let automatic = extended.known().map(|bytes| automatic(&String::from_utf8_lossy(bytes))).unwrap_or_default();
            let packages = status(&String::from_utf8_lossy(&bytes), &automatic);
            if packages.installed.is_empty() { Fact::Unreadable(format!("{STATUS} tells of no package")) } else { Fact::Known(packages) }
        }
        Fact::Unreadable(why) => Fact::Unreadable(format!("{STATUS}: {why}")),
        Fact::Absent => {
            for path in APK {
                match root.bytes(path, STATUS_BYTES_MAX) {
                    Fact::Known(bytes) => return Fact::Known(apk(&String::from_utf8_lossy(&bytes)).0),
                    Fact::Unreadable(why) => return Fact::Unreadable(format!("{path}: {why}")),
                    Fact::Absent => {}
                }
            }
            for path in ["/var/lib/rpm", "/usr/lib/sysimage/rpm"] {
                if root.names(path).known().is_some_and(|names| !names.is_empty()) {
                    return Fact::Unreadable("the database of RPM is not read by this version".to_owned());
                }
            }
            Fact::Absent
        }
    }
}

/// Packages that came as dependencies: `apt-mark showauto`.
fn automatic(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        if let (Some(package), Some("1")) = (field("Package:"), field("Auto-Installed:")) {
            names.insert(package.to_owned());
        }
    }
    names
}

/// Reads `/var/lib/dpkg/status`: deb822 paragraphs (deb-control(5)).
pub fn status(text: &str, automatic: &BTreeSet<String>) -> Packages {
    let mut installed: Vec<Package> = Vec::new();
    let mut needs: HashMap<&str, HashSet<usize>> = HashMap::new();
    let mut provides: Vec<(usize, &str)> = Vec::new();
    for block in text.split("\n\n").take(PACKAGES_MAX) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else { continue };
        if !field("Status").is_some_and(|status| status.ends_with(" installed")) {
            continue;
        }
        let at = installed.len();
        for list in ["Depends", "Pre-Depends", "Recommends"] {
            for item in field(list).unwrap_or_default().split([',', '|']) {
                let needed = item.trim().split([' ', '(', ':', '[']).next().unwrap_or_default();
                if !needed.is_empty() && needed != name {
                    needs.entry(needed).or_default().insert(at);
                }
            }
        }
        for item in field("Provides").unwrap_or_default().split(',') {
            let provided = item.trim().split([' ', '(']).next().unwrap_or_default();
            if !provided.is_empty() {
                provides.push((at, provided));
            }
        }
        installed.push(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            essential: field("Essential") == Some("yes") || matches!(field("Priority"), Some("required" | "important")),
            automatic: automatic.contains(name),
            needed_by: 0,
        });
    }
    let mut by: Vec<HashSet<usize>> =
        installed.iter().map(|package| needs.get(package.name.as_str()).cloned().unwrap_or_default()).collect();
    for (at, provided) in provides {
        if let (Some(needed), Some(mine)) = (needs.get(provided), by.get_mut(at)) {
            mine.extend(needed.iter().filter(|other| **other != at));
        }
    }
    for (package, by) in installed.iter_mut().zip(by) {
        package.needed_by = u32::try_from(by.len()).unwrap_or(u32::MAX);
    }
    Packages { kind: "dpkg".to_owned(), installed }
}

/// Packages of apk, and which one each file belongs to.
fn apk(text: &str) -> (Packages, BTreeMap<String, String>) {
    let mut installed: Vec<Package> = Vec::new();
    let mut owners = BTreeMap::new();
    let mut folder = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key {
            "P" if installed.len() < PACKAGES_MAX => installed.push(Package { name: value.to_owned(), ..Package::default() }),
            "V" => {
                if let Some(package) = installed.last_mut() {
                    package.version = value.to_owned();
                }
            }
            "F" => folder = value.to_owned(),
            "R" => {
                if let Some(package) = installed.last() {
                    owners.insert(format!("/{folder}/{value}"), package.name.clone());
                }
            }
            _ => {}
        }
    }
    (Packages { kind: "apk".to_owned(), installed }, owners)
}

/// The packages of these paths. One pass over all lists of files, whatever their number.
pub fn owners(root: &Root, paths: &HashSet<String>) -> HashMap<String, String> {
    let mut found = HashMap::new();
    if paths.is_empty() {
        return found;
    }
    for path in APK {
        if let Fact::Known(bytes) = root.bytes(path, STATUS_BYTES_MAX) {
            let (_, owners) = apk(&String::from_utf8_lossy(&bytes));
            found.extend(
                paths.iter().filter_map(|path| Some((path.clone(), owners.get(path).or_else(|| owners.get(&other_name(path)))?.clone()))),
            );
        }
    }
    let Fact::Known(names) = root.names(INFO) else { return found };
    for name in names.iter().filter_map(|name| name.strip_suffix(".list")) {
        let Fact::Known(bytes) = root.bytes(&format!("{INFO}/{name}.list"), LIST_BYTES_MAX) else { continue };
        let package = name.split(':').next().unwrap_or(name);
        for line in bytes.split(|&byte| byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            // /bin, /sbin and /lib are links to the folders below /usr.
            if let Some(path) = paths.get(line) {
                found.insert(path.clone(), package.to_owned());
            } else if MERGED.iter().any(|folder| line.starts_with(folder))
                && let Some(path) = paths.get(&format!("/usr{line}"))
            {
                found.insert(path.clone(), package.to_owned());
            } else if let Some(short) = line.strip_prefix("/usr").filter(|short| MERGED.iter().any(|folder| short.starts_with(folder)))
                && let Some(path) = paths.get(short)
            {
                found.insert(path.clone(), package.to_owned());
            }
        }
    }
    found
}

pub const MERGED: [&str; 6] = ["/bin/", "/sbin/", "/lib/", "/lib64/", "/lib32/", "/libx32/"];

/// `/usr/bin/x` for `/bin/x`, and the other way round.
pub fn other_name(path: &str) -> String {
    match path.strip_prefix("/usr") {
        Some(short) if MERGED.iter().any(|folder| short.starts_with(folder)) => short.to_owned(),
        _ => format!("/usr{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_counted_through_alternatives_and_provided_names() {
        let text = "Package: a\nStatus: install ok installed\nVersion: 1\nDepends: b (>= 2) | c, mail\n\nPackage: b\nStatus: install ok installed\nVersion: 2\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 3\n\nPackage: postfix\nStatus: install ok installed\nVersion: 4\nProvides: mail, mta\nEssential: yes\n";
        let packages = status(text, &BTreeSet::from(["b".to_owned()]));
        let names: Vec<(&str, u32, bool)> = packages.installed.iter().map(|p| (p.name.as_str(), p.needed_by, p.automatic)).collect();
        assert_eq!(names, [("a", 0, false), ("b", 1, true), ("postfix", 1, false)]);
        assert!(packages.find("postfix").is_some_and(|package| package.essential));
    }

    #[test]
    fn files_of_apk_are_found_by_folder_and_name() {
        let (packages, owners) = apk("P:busybox\nV:1.36\nF:bin\nR:busybox\nR:sh\n\nP:musl\nV:1\nF:lib\nR:ld-musl.so\n");
        assert_eq!(packages.installed.len(), 2);
        assert_eq!(owners["/bin/sh"], "busybox");
        assert_eq!(owners["/lib/ld-musl.so"], "musl");
    }
}
