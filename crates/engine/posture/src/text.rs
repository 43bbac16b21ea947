//! Configuration files of the host as settings. Lines that mean nothing are passed over, as their readers do.

use std::collections::BTreeMap;

use crate::snapshot::HostSnapshot;
use crate::view::{MODPROBE_FOLDERS, SSHD_CONFIG, SYSCTL_FOLDERS};

/// A value that a file sets at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlFile {
    pub value: String,
    pub file: String,
}

/// What `sysctl --system` and systemd-sysctl would set: files of all folders in the order of their names, the
/// first folder winning for a name; of one setting the last value; `/etc/sysctl.conf` at the end.
pub fn sysctl_settings(snapshot: &HostSnapshot) -> BTreeMap<String, SysctlFile> {
    let mut files: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for folder in SYSCTL_FOLDERS {
        for (path, text) in snapshot.texts_in(folder, ".conf") {
            let name = path.rsplit('/').next().unwrap_or(path);
            files.entry(name).or_insert((path, text));
        }
    }
    let last = snapshot.texts.get("/etc/sysctl.conf").and_then(|text| text.known()).map(|text| ("/etc/sysctl.conf", text.as_str()));
    let mut settings = BTreeMap::new();
    for (path, text) in files.into_values().chain(last) {
        for (key, value) in sysctl_lines(text) {
            settings.insert(key, SysctlFile { value, file: path.to_owned() });
        }
    }
    settings
}

/// Key, with dots, and value of each line.
pub fn sysctl_lines(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let key = key.trim().trim_start_matches('-').trim();
        // `net/ipv4/conf/eth0.5/x`: the first separator tells which one is meant.
        let key = match key.find(['/', '.']) {
            Some(at) if key.as_bytes().get(at) == Some(&b'/') => key.replace('/', "."),
            Some(_) | None => key.to_owned(),
        };
        Some((key, value.split_whitespace().collect::<Vec<_>>().join(" ")))
    })
}

/// Modules with `blacklist`, or whose `install` runs a program that loads nothing.
pub fn modprobe_blocks(snapshot: &HostSnapshot) -> BTreeMap<String, String> {
    let mut blocked = BTreeMap::new();
    for folder in MODPROBE_FOLDERS {
        for (path, text) in snapshot.texts_in(folder, ".conf") {
            for line in text.lines() {
                let mut words = line.split_whitespace();
                let module = match (words.next(), words.next(), words.next()) {
                    (Some("blacklist"), Some(module), _) => module,
                    (Some("install"), Some(module), Some(program)) if LOADS_NOTHING.contains(&program) => module,
                    _ => continue,
                };
                blocked.entry(module.replace('-', "_")).or_insert_with(|| path.to_owned());
            }
        }
    }
    blocked
}

const LOADS_NOTHING: [&str; 6] = ["/bin/false", "/usr/bin/false", "/bin/true", "/usr/bin/true", "/sbin/nologin", ":"];

/// Files that `Include` may bring into `sshd_config`.
const INCLUDES_MAX: usize = 256;

/// The global settings of `sshd_config` (the first value of a keyword counts), and those in its `Match` blocks.
pub fn sshd_settings(snapshot: &HostSnapshot) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let mut settings = BTreeMap::new();
    let mut matched = Vec::new();
    let Some(text) = snapshot.texts.get(SSHD_CONFIG).and_then(|text| text.known()) else { return (settings, matched) };
    let mut in_match = false;
    let mut included = 0;
    for line in text.lines() {
        let Some((keyword, value)) = sshd_line(line) else { continue };
        if keyword == "include" {
            for pattern in value.split_whitespace() {
                let path = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/ssh/{pattern}") };
                let Some((folder, name)) = path.rsplit_once('/') else { continue };
                let suffix = name.strip_prefix('*').unwrap_or(name);
                for (_, text) in snapshot.texts_in(folder, suffix) {
                    included += 1;
                    if included > INCLUDES_MAX {
                        break;
                    }
                    // A `Match` of an included file ends with the file.
                    sshd_lines(text, &mut in_match.clone(), &mut settings, &mut matched);
                }
            }
        } else {
            take(keyword, value, &mut in_match, &mut settings, &mut matched);
        }
    }
    (settings, matched)
}

fn sshd_lines(text: &str, in_match: &mut bool, settings: &mut BTreeMap<String, String>, matched: &mut Vec<(String, String)>) {
    for (keyword, value) in text.lines().filter_map(sshd_line) {
        take(keyword, value, in_match, settings, matched);
    }
}

fn take(keyword: String, value: String, in_match: &mut bool, settings: &mut BTreeMap<String, String>, matched: &mut Vec<(String, String)>) {
    if keyword == "match" {
        *in_match = !value.eq_ignore_ascii_case("all");
    } else if *in_match {
        matched.push((keyword, value));
    } else {
        settings.entry(keyword).or_insert(value);
    }
}

fn sshd_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find([' ', '\t', '='])?;
    let (keyword, value) = line.split_at(end);
    let value = value.trim_start_matches([' ', '\t', '=']).trim().trim_matches('"');
    Some((keyword.to_ascii_lowercase(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Fact;

    fn with(texts: &[(&str, &str)]) -> HostSnapshot {
        let mut snapshot = HostSnapshot::empty();
        snapshot.texts = texts.iter().map(|(path, text)| ((*path).to_owned(), Fact::Known((*text).to_owned()))).collect();
        snapshot
    }

    #[test]
    fn sysctl_files_override_by_name_and_then_by_order() {
        let snapshot = with(&[
            ("/etc/sysctl.d/50-a.conf", "kernel.kptr_restrict = 2\n# kernel.sysrq=1\n-net/ipv4/conf/all/rp_filter =  2 "),
            ("/usr/lib/sysctl.d/50-a.conf", "kernel.kptr_restrict = 0\nkernel.sysrq = 16"),
            ("/usr/lib/sysctl.d/99-z.conf", "kernel.kptr_restrict=1"),
        ]);
        let settings = sysctl_settings(&snapshot);
        assert_eq!(settings["kernel.kptr_restrict"].value, "1");
        assert_eq!(settings["kernel.kptr_restrict"].file, "/usr/lib/sysctl.d/99-z.conf");
        assert_eq!(settings["net.ipv4.conf.all.rp_filter"].value, "2");
        assert!(!settings.contains_key("kernel.sysrq"), "its file is overridden by one of the same name");
    }

    #[test]
    fn of_sshd_words_the_first_counts_and_match_blocks_stand_apart() {
        let snapshot = with(&[
            (
                "/etc/ssh/sshd_config",
                "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\nMatch User x\nPermitRootLogin no\nX11Forwarding yes",
            ),
            ("/etc/ssh/sshd_config.d/a.conf", "permitrootlogin=prohibit-password\nMatch User y\nPasswordAuthentication yes"),
            ("/etc/ssh/sshd_config.d/b.conf.off", "MaxAuthTries 99"),
        ]);
        let (settings, matched) = sshd_settings(&snapshot);
        assert_eq!(settings["permitrootlogin"], "prohibit-password");
        assert!(!settings.contains_key("maxauthtries") && !settings.contains_key("x11forwarding"));
        assert_eq!(matched.len(), 3);
    }

    #[test]
    fn a_module_is_blocked_by_blacklist_or_by_a_program_that_loads_nothing() {
        let snapshot =
            with(&[("/etc/modprobe.d/x.conf", "blacklist usb-storage\ninstall dccp /bin/false\ninstall sctp /sbin/modprobe x\n")]);
        let blocked = modprobe_blocks(&snapshot);
        assert_eq!(blocked.keys().collect::<Vec<_>>(), ["dccp", "usb_storage"]);
    }
}
