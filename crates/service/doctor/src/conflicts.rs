//! Other programs on this host that judge, queue or rewrite the same traffic. Found by what they leave to be seen:
//! processes, interfaces, rules. Each comes with what it means for us.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_sys::netlink::Netlink;
use serde::Serialize;

use crate::command;
use crate::host::read;

/// Something else that acts on container traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Its own name: `ufw`, `Cilium`.
    pub name: String,
    /// `firewall`, `network`, `ips` or `agent`.
    pub kind: &'static str,
    /// How it was noticed.
    pub evidence: String,
    /// What it means for protection here, in words.
    pub effect: &'static str,
}

/// Processes looked at; a host with more is told about the first.
const PROCESSES_MAX: usize = 65_536;

/// Known programs by process name (`comm`, at most 15 bytes).
const PROGRAMS: &[(&str, &str, &str, &str)] = &[
    ("firewalld", "firewalld", "firewall", "reloads replace its nftables rules; ours stand beside them"),
    ("cilium-agent", "Cilium", "network", "its programs sit on tcx too; ours are attached before them"),
    ("calico-node", "Calico", "network", "uses packet marks 0xffff0000; ours can be moved in the configuration"),
    ("calico-felix", "Calico", "network", "uses packet marks 0xffff0000; ours can be moved in the configuration"),
    ("kube-proxy", "kube-proxy", "network", "rewrites service addresses; flows are owned where they start, so both are seen"),
    ("antrea-agent", "Antrea", "network", "switches in Open vSwitch; container interfaces are armed all the same"),
    ("ovs-vswitchd", "Open vSwitch", "network", "switches packets outside the bridge; container interfaces are armed all the same"),
    ("Suricata-Main", "Suricata", "ips", "inspects the same packets; two inline engines double the latency"),
    ("suricata", "Suricata", "ips", "inspects the same packets; two inline engines double the latency"),
    ("snort", "Snort", "ips", "inspects the same packets; two inline engines double the latency"),
    ("crowdsec", "CrowdSec", "agent", "adds its own bans to the firewall; they act before or after ours"),
    ("falco", "Falco", "agent", "sees system calls; does not block"),
    ("tetragon", "Tetragon", "agent", "may kill processes by its own policy"),
    ("tracee", "Tracee", "agent", "sees system calls; does not block"),
    ("falcon-sensor", "CrowdStrike Falcon", "agent", "may block execs by its own policy"),
    ("mdatp", "Microsoft Defender", "agent", "answers fanotify permission events too; both must allow"),
    ("wdavdaemon", "Microsoft Defender", "agent", "answers fanotify permission events too; both must allow"),
    ("clamonacc", "ClamAV on-access", "agent", "answers fanotify permission events too; both must allow"),
    ("fapolicyd", "fapolicyd", "agent", "answers fanotify permission events too; both must allow"),
];

/// NeuVector's processes have names that others have too: all of these at once mean it.
const NEUVECTOR: [&str; 3] = ["monitor", "agent", "dp"];

/// Interfaces that a container network makes, by the beginning of their name.
const INTERFACES: &[(&str, &str, &str)] = &[
    ("cilium_", "Cilium", "its programs sit on tcx too; ours are attached before them"),
    ("cali", "Calico", "uses packet marks 0xffff0000; ours can be moved in the configuration"),
    ("vxlan.calico", "Calico", "uses packet marks 0xffff0000; ours can be moved in the configuration"),
    ("flannel", "flannel", "none known: container interfaces are ordinary veths"),
    ("cni0", "a CNI bridge", "none known: container interfaces are ordinary veths"),
    ("weave", "Weave Net", "its fast path is a kernel switch; container interfaces are armed all the same"),
    ("antrea-gw", "Antrea", "switches in Open vSwitch; container interfaces are armed all the same"),
    ("ovn-", "OVN", "switches in Open vSwitch; container interfaces are armed all the same"),
];

/// Looks for all of them. What cannot be read is passed over: this list is advice, not enforcement.
pub fn find() -> Vec<Conflict> {
    let mut found: BTreeMap<String, Conflict> = BTreeMap::new();
    let mut add = |conflicts: Vec<Conflict>| {
        for conflict in conflicts {
            // One entry a name; the first evidence (a process) says more than the second (an interface).
            found.entry(conflict.name.clone()).or_insert(conflict);
        }
    };
    std::thread::scope(|s| {
        let rules = s.spawn(rules);
        add(by_process(&processes()));
        add(by_interface(&interfaces()));
        add(ufw(&read("/etc/ufw/ufw.conf")).into_iter().collect());
        add(rules.join().unwrap_or_default());
    });
    found.into_values().collect()
}

/// Rule sets, asked of the tools where they are installed.
fn rules() -> Vec<Conflict> {
    let mut found = Vec::new();
    if let Ok(tables) = command::output("nft", &["list", "tables"]) {
        found.extend(by_table(&tables));
    }
    // iptables-save of the legacy kind loads kernel modules when asked for tables that nobody uses yet.
    let legacy = command::output("iptables", &["--version"]).is_ok_and(|v| v.contains("legacy"));
    if !legacy || !read("/proc/net/ip_tables_names").is_empty() {
        for tool in ["iptables-save", "ip6tables-save"] {
            if let Ok(saved) = command::output(tool, &[]) {
                found.extend(by_queue(tool, &saved));
            }
        }
    }
    found
}

fn processes() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).take(PROCESSES_MAX);
    pids.map(|e| read(e.path().join("comm")).trim_end().to_owned()).filter(|c| !c.is_empty()).collect()
}

fn interfaces() -> Vec<String> {
    let links = Netlink::open().and_then(|mut n| n.links()).unwrap_or_default();
    links.into_iter().map(|l| l.name).collect()
}

fn by_process(comms: &BTreeSet<String>) -> Vec<Conflict> {
    let mut found: Vec<_> = PROGRAMS
        .iter()
        .filter(|(comm, ..)| comms.contains(*comm))
        .map(|&(comm, name, kind, effect)| Conflict { name: name.into(), kind, evidence: format!("process `{comm}`"), effect })
        .collect();
    if NEUVECTOR.iter().all(|c| comms.contains(*c)) {
        let effect = "may queue container packets itself; two inline engines double the latency";
        found.push(Conflict { name: "NeuVector".into(), kind: "ips", evidence: format!("processes {}", NEUVECTOR.join(", ")), effect });
    }
    found
}

fn by_interface(names: &[String]) -> Vec<Conflict> {
    let known = |name: &String| {
        let &(_, owner, effect) = INTERFACES.iter().find(|(prefix, ..)| name.starts_with(prefix))?;
        Some(Conflict { name: owner.into(), kind: "network", evidence: format!("interface `{name}`"), effect })
    };
    names.iter().filter_map(known).collect()
}

fn ufw(conf: &str) -> Option<Conflict> {
    let enabled = conf.lines().any(|l| l.trim().eq_ignore_ascii_case("ENABLED=yes"));
    enabled.then(|| Conflict {
        name: "ufw".into(),
        kind: "firewall",
        evidence: "ENABLED=yes in /etc/ufw/ufw.conf".into(),
        effect: "its default deny of forwarded packets also meets container traffic; Docker's chains come first",
    })
}

/// Tables that iptables' own translation makes (`ip filter`, `ip nat`, ...), and ours, are not news.
fn by_table(listed: &str) -> Vec<Conflict> {
    const IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    let foreign = listed.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["table", "ip" | "ip6", name] if IPTABLES.contains(&name) => None,
        ["table", _, name] if name.starts_with("bulkhead") => None,
        ["table", family, name] => Some(format!("{family} {name}")),
        _ => None,
    });
    foreign
        .take(32)
        .map(|table| Conflict {
            name: format!("nftables table `{table}`"),
            kind: "firewall",
            evidence: "nft list tables".into(),
            effect: "its verdicts hold beside ours: a packet must pass both",
        })
        .collect()
}

fn by_queue(tool: &str, saved: &str) -> Vec<Conflict> {
    let rule = saved.lines().find(|l| l.starts_with("-A") && l.contains("-j NFQUEUE") && !l.contains("bulkhead"));
    let conflict = |rule: &str| Conflict {
        name: "another program's NFQUEUE".into(),
        kind: "ips",
        evidence: format!("{tool}: {}", rule.chars().take(160).collect::<String>()),
        effect: "packets are queued to it as well; two inline engines double the latency",
    };
    rule.map(conflict).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Conflict]) -> Vec<&str> {
        found.iter().map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn programs_are_known_by_their_process_name() {
        let comms = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(names(&by_process(&comms(&["bash", "Suricata-Main", "cilium-agent"]))), ["Cilium", "Suricata"]);
        assert!(by_process(&comms(&["monitor", "agent"])).is_empty(), "two common names do not make NeuVector");
        assert_eq!(names(&by_process(&comms(&["monitor", "agent", "dp"]))), ["NeuVector"]);
    }

    #[test]
    fn container_networks_are_known_by_their_interfaces() {
        let links = ["lo", "eth0", "cali12ab", "vxlan.calico", "cilium_host", "docker0", "veth1"].map(str::to_owned);
        assert_eq!(names(&by_interface(&links)), ["Calico", "Calico", "Cilium"]);
    }

    #[test]
    fn tables_of_iptables_and_our_own_are_not_news() {
        let listed = "table ip filter\ntable ip6 nat\ntable inet firewalld\ntable inet bulkhead_path\ntable bridge filter\nnonsense\n";
        assert_eq!(names(&by_table(listed)), ["nftables table `inet firewalld`", "nftables table `bridge filter`"]);
    }

    #[test]
    fn a_disabled_ufw_is_no_conflict() {
        assert!(ufw("ENABLED=no\n").is_none() && ufw("").is_none() && ufw("# ENABLED=yes\n").is_none());
        assert!(ufw("LOGLEVEL=low\nENABLED=yes\n").is_some());
    }

    #[test]
    fn a_foreign_queue_is_found_and_ours_is_not() {
        let saved =
            "*mangle\n-A FORWARD -j NFQUEUE --queue-num 3 -m comment --comment bulkhead\n-A FORWARD -i x -j NFQUEUE --queue-balance 0:3\n";
        let found = by_queue("iptables-save", saved);
        assert!(found.len() == 1 && found[0].evidence.contains("0:3"), "{found:?}");
    }
}
