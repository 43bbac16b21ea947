//! A picture of everything that the agent, the doctor and the lab could leave behind on a host, and what differs between two.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_sys::netns::Netns;

/// Facts by name. Counters, ages and times are left out: they change by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState(BTreeMap<String, Vec<String>>);

/// A second sysfs mounted over `/sys` hides what is mounted below the first: no cgroups, no bpffs, and Docker fails in ways that
/// tell nothing. `ip netns exec` leaves one where mounts are shared between namespaces. Gives what to do about it.
pub fn hidden_sys() -> Option<String> {
    hidden_below_sys(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()).map(|hidden| {
        format!(
            "/sys is mounted more than once, and the upper mount hides {}: Docker, cgroups and pinned programs cannot work.\n\
             Take the upper one off with `umount /sys` (once for each that is too many: `grep ' /sys ' /proc/self/mountinfo`), and\n\
             enter namespaces with `nsenter --net=/run/netns/NAME`, not with `ip netns exec`.",
            hidden.join(", ")
        )
    })
}

/// The mount points below `/sys` that a later mount on `/sys` itself hides. `mountinfo` as proc(5) has it: number, parent,
/// device, root, mount point ...
fn hidden_below_sys(mountinfo: &str) -> Option<Vec<String>> {
    let mounts: Vec<(&str, &str, &str)> = mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            Some((fields.next()?, fields.next()?, fields.nth(2)?))
        })
        .collect();
    let on_sys: Vec<&str> = mounts.iter().filter(|(.., at)| *at == "/sys").map(|(number, ..)| *number).collect();
    let (_, covered) = on_sys.split_last()?;
    let hidden: Vec<String> = mounts
        .iter()
        .filter(|(_, parent, at)| at.starts_with("/sys/") && covered.contains(parent))
        .map(|(.., at)| (*at).to_owned())
        .collect();
    (!hidden.is_empty()).then_some(hidden)
}

/// Settings below `net` that change by themselves.
const RESTLESS: [&str; 4] = ["nf_conntrack_count", "random_table_perturb", "pty/nr", "dad_transmits_left"];

impl HostState {
    /// Looks at the network namespace `at` (settings, links, rules) and at the machine (mounts, BPF objects, namespaces).
    ///
    /// # Panics
    /// When a thread cannot enter the namespace.
    pub fn take(at: &Netns) -> Self {
        let mut facts = at.run(network_facts).unwrap_or_else(|e| panic!("{e}"));
        facts.extend(machine_facts());
        Self(facts)
    }

    /// As [`HostState::take`], once two pictures in a row are the same: addresses become usable some time after they were given.
    ///
    /// # Panics
    /// As [`HostState::take`].
    pub fn settled(at: &Netns) -> Self {
        let mut before = Self::take(at);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let now = Self::take(at);
            let same = Self::difference(&before, &now).is_empty();
            before = now;
            if same {
                break;
            }
        }
        before
    }

    /// What is there now and was not before (`+`), or the other way round (`-`), a line each; empty when nothing changed.
    pub fn difference(before: &Self, after: &Self) -> String {
        let mut out = String::new();
        let empty = Vec::new();
        let mut names: Vec<&String> = before.0.keys().chain(after.0.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (old, new) = (before.0.get(name).unwrap_or(&empty), after.0.get(name).unwrap_or(&empty));
            for line in old.iter().filter(|l| !new.contains(l)) {
                let _ = writeln!(out, "- {name}: {line}");
            }
            for line in new.iter().filter(|l| !old.contains(l)) {
                let _ = writeln!(out, "+ {name}: {line}");
            }
        }
        out
    }

    /// As [`HostState::difference`], without what tests beside this one make and remove meanwhile: their namespaces and
    /// mounts, and the pins of their agents. Things of this test have `tag` in their name; what belongs to nobody is kept.
    pub fn own_difference(before: &Self, after: &Self, tag: &str) -> String {
        let beside = |line: &&str| {
            let listed = line.contains(" mounts: ") || line.contains(" namespaces: ");
            let pinned = line.contains(" pinned: ") && line.contains("/bulkhead-");
            !line.contains(tag) && (pinned || (listed && !line.contains("bpf")))
        };
        Self::difference(before, after).lines().filter(|line| !beside(line)).collect::<Vec<_>>().join("\n")
    }

    /// The lines under one name: `links`, `iptables-save`, `mounts` ...
    pub fn lines(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Of the calling thread's network namespace.
fn network_facts() -> BTreeMap<String, Vec<String>> {
    let mut facts = BTreeMap::new();
    let mut ask = |name: &str, program: &str, arguments: &[&str]| {
        facts.insert(name.to_owned(), output(program, arguments));
    };
    ask("links", "ip", &["-o", "link"]);
    ask("addresses", "ip", &["-o", "address"]);
    ask("routes", "ip", &["route", "show", "table", "all"]);
    ask("routes6", "ip", &["-6", "route", "show", "table", "all"]);
    ask("rules", "ip", &["rule"]);
    ask("rules6", "ip", &["-6", "rule"]);
    ask("qdiscs", "tc", &["qdisc"]);
    ask("iptables-save", "iptables-save", &[]);
    ask("ip6tables-save", "ip6tables-save", &[]);
    ask("nft", "nft", &["list", "ruleset"]);
    let mut settings = Vec::new();
    read_settings(Path::new("/proc/sys/net"), &mut settings);
    facts.insert("settings".into(), settings);
    facts
}

fn machine_facts() -> BTreeMap<String, Vec<String>> {
    let mut facts = BTreeMap::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    facts.insert("mounts".into(), mounts.lines().map(str::to_owned).collect());
    for (name, dir) in [("pinned", "/sys/fs/bpf"), ("namespaces", "/run/netns"), ("runtime", "/run/bulkhead")] {
        let mut files = Vec::new();
        list_files(Path::new(dir), &mut files, 0);
        facts.insert(name.into(), files);
    }
    facts
}

/// The lines of a program's output without what changes by itself; one line with the reason when it cannot be had.
fn output(program: &str, arguments: &[&str]) -> Vec<String> {
    match Command::new(program).args(arguments).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            text.lines().filter(|l| !l.starts_with('#')).map(steady).collect()
        }
        Err(e) => vec![format!("{program}: {e}")],
    }
}

/// Takes packet counters (`[12:345]`), lifetimes and reachability marks out of a line.
fn steady(line: &str) -> String {
    let words = line.split_whitespace().filter(|w| !(w.starts_with('[') && w.ends_with(']') && w.contains(':')));
    let mut kept: Vec<&str> = Vec::new();
    let mut skip = false;
    for word in words {
        if skip {
            skip = false;
        } else if matches!(word, "expires" | "valid_lft" | "preferred_lft" | "age" | "packets" | "bytes") {
            skip = true; // its value follows
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn read_settings(dir: &Path, into: &mut Vec<String>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_settings(&path, into);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.display().to_string();
            if !RESTLESS.iter().any(|r| name.ends_with(r)) {
                into.push(format!("{name} = {}", value.trim().replace('\n', " ")));
            }
        }
    }
}

fn list_files(dir: &Path, into: &mut Vec<String>, depth: usize) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        into.push(path.display().to_string());
        if depth < 8 && path.is_dir() && !path.is_symlink() {
            list_files(&path, into, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_left_out() {
        assert_eq!(steady(":FORWARD ACCEPT [12:3456]"), ":FORWARD ACCEPT");
        assert_eq!(steady("inet6 2001:db8::1/64 scope global valid_lft 3sec preferred_lft forever"), "inet6 2001:db8::1/64 scope global");
        assert_eq!(steady("counter packets 3 bytes 180 drop"), "counter drop");
    }

    #[test]
    fn a_difference_names_what_came_and_what_went() {
        let state = |lines: &[&str]| HostState([("links".to_owned(), lines.iter().map(|s| (*s).to_owned()).collect())].into());
        assert_eq!(HostState::difference(&state(&["a", "b"]), &state(&["b", "c"])), "- links: a\n+ links: c\n");
        assert_eq!(HostState::difference(&state(&["a"]), &state(&["a"])), "");
    }

    #[test]
    fn pins_of_tests_beside_this_one_are_no_difference_of_its_own() {
        let state = |pins: &[&str]| HostState([("pinned".to_owned(), pins.iter().map(|s| (*s).to_owned()).collect())].into());
        let other = "/sys/fs/bpf/bulkhead-other-12/links/x";
        for own in ["/sys/fs/bpf/bulkhead-mine-12/links/x", "/sys/fs/bpf/bulkhead/links/x", "/sys/fs/bpf/stray"] {
            let told = HostState::own_difference(&state(&[]), &state(&[other, own]), "mine");
            assert_eq!(told, format!("+ pinned: {own}"));
        }
    }

    #[test]
    fn a_second_sysfs_over_the_first_is_seen_with_what_it_hides() {
        let sound = "23 27 0:22 / /sys rw - sysfs sysfs rw\n24 23 0:23 / /sys/fs/cgroup rw - cgroup2 none rw\n30 27 0:5 / /proc rw - proc none rw\n";
        assert_eq!(hidden_below_sys(sound), None);
        let hidden = format!("{sound}90 23 0:99 / /sys rw - sysfs second rw\n");
        assert_eq!(hidden_below_sys(&hidden), Some(vec!["/sys/fs/cgroup".to_owned()]));
        // All of it mounted once more on top, as container engines do, hides nothing that is not there again.
        let again = "23 27 0:22 / /sys rw - sysfs sysfs rw\n90 23 0:99 / /sys rw - sysfs second rw\n91 90 0:98 / /sys/fs/cgroup rw - cgroup2 none rw\n";
        assert_eq!(hidden_below_sys(again), None);
        assert_eq!(hidden_below_sys("rubbish\n\n1 2\n"), None);
    }
}
