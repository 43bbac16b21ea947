//! The table of probes, and the running of it.
//!
//! A probe is a plain function that uses one facility and tells how that went. Where it runs says what it may touch:
//! in a throw-away network namespace, on a tmpfs of a throw-away mount namespace, or on the host with objects that
//! have no name and end with their descriptor. The three groups run side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use bulkhead_bpf::probe as bpf;
use bulkhead_sys::netns::Netns;
use bulkhead_sys::nfqueue::{Queue, QueueConfig};
use bulkhead_sys::tap::{Offloads, Tap};
use bulkhead_sys::trial;
use serde::Serialize;

use crate::command;
use crate::host;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Kebab-case, stable: other tools may key on it.
    pub id: &'static str,
    /// What was tried, for a person.
    pub what: &'static str,
    pub ok: bool,
    /// What was seen; the kernel's reason when it refused.
    pub detail: String,
    /// How long it took, microseconds.
    pub micros: u64,
}

/// The good news with a few words, or the reason.
pub type Outcome = Result<String, String>;

/// Where a probe runs.
enum Place {
    /// In a network namespace of its own, with loopback down and nothing else.
    Netns(fn() -> Outcome),
    /// With an empty tmpfs that nobody else sees.
    Mounts(fn(&Path) -> Outcome),
    /// On the host, touching only nameless objects.
    Host(fn() -> Outcome),
}

struct Entry {
    id: &'static str,
    what: &'static str,
    place: Place,
}

const fn netns(id: &'static str, what: &'static str, run: fn() -> Outcome) -> Entry {
    Entry { id, what, place: Place::Netns(run) }
}

const fn mounts(id: &'static str, what: &'static str, run: fn(&Path) -> Outcome) -> Entry {
    Entry { id, what, place: Place::Mounts(run) }
}

const fn host(id: &'static str, what: &'static str, run: fn() -> Outcome) -> Entry {
    Entry { id, what, place: Place::Host(run) }
}

/// In the order in which they are shown.
static TABLE: &[Entry] = &[
    netns("tcx", "a program attached to an interface's tcx hook", || plain(bpf::tcx())),
    netns("tap", "a multi-queue TAP that hands over whole GSO frames", tap),
    netns("netfilter-link", "a BPF program as netfilter hook", || plain(bpf::netfilter())),
    netns("conntrack", "connection tracking over netlink", || told(trial::conntrack(), "")),
    netns("nfqueue", "a queue bound, with whole GSO packets", nfqueue),
    netns("nfqueue-xt", "iptables' NFQUEUE target", nfqueue_xt),
    netns("nfqueue-nft", "nftables' queue statement", nfqueue_nft),
    mounts("fanotify-open", "an open denied by fanotify", |dir| told(trial::fanotify_open(dir), "")),
    mounts("fanotify-exec", "an exec denied by fanotify", |dir| told(trial::fanotify_exec(dir), "")),
    mounts("fanotify-overlay", "one mark that judges opens through an overlay", |dir| told(trial::fanotify_below_overlay(dir), "")),
    host("ring-buffer", "a BPF ring buffer", || plain(bpf::ring_buffer())),
    host("arena", "a BPF arena", || plain(bpf::arena())),
    host("cgroup-connect", "a program for connect() of a cgroup", || plain(bpf::cgroup_connect())),
    host("cgroup-skb", "a program for packets of a cgroup", || plain(bpf::cgroup_skb())),
    host("socket-filter", "a program that steers TAP queues", || plain(bpf::socket_filter())),
    host("tracepoint", "a program on a tracepoint", || plain(bpf::tracepoint())),
    host("tp-btf", "a program on exec, before the first instruction", || plain(bpf::tp_btf())),
    host("lsm", "a program that refuses as a security module", || plain(bpf::lsm())),
    host("fentry", "a program at a kernel function's entry", || plain(bpf::fentry())),
    host("kprobe", "a program on a kernel probe", || plain(bpf::kprobe())),
    host("btf", "the kernel's description of its types", btf),
    host("bpffs", "a mounted BPF filesystem, where links are pinned", bpffs),
    host("br-netfilter", "whether bridged packets pass netfilter", br_netfilter),
    host("seccomp", "a system call filtered by seccomp", seccomp),
    host("landlock", "a file withheld by landlock", || trial::landlock().map(|abi| format!("ABI {abi}")).map_err(|e| e.to_string())),
    host("memfd", "a sealed file in memory", || {
        bulkhead_sys::memfd::sealed("bulkhead-probe", b"inert").map(|_| String::new()).map_err(|e| e.to_string())
    }),
    host("user-namespaces", "a user namespace", || told(trial::user_namespace(), "")),
];

/// The results of all probes, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probed(Vec<Probe>);

impl Probed {
    /// For tests and tools that have their results from elsewhere.
    pub fn new(probes: Vec<Probe>) -> Self {
        Self(probes)
    }

    pub fn into_probes(self) -> Vec<Probe> {
        self.0
    }

    pub fn ok(&self, id: &str) -> bool {
        self.0.iter().any(|p| p.id == id && p.ok)
    }

    /// `tcx works` or `tcx refused (Operation not permitted)`: evidence for a grade.
    pub fn evidence(&self, id: &str) -> String {
        match self.0.iter().find(|p| p.id == id) {
            Some(Probe { ok: true, detail, .. }) if detail.is_empty() => format!("{id} works"),
            Some(Probe { ok: true, detail, .. }) => format!("{id} works ({detail})"),
            Some(Probe { detail, .. }) => format!("{id} does not ({detail})"),
            None => format!("{id} was not tried"),
        }
    }
}

/// Runs every probe of the table.
pub fn run_all() -> Probed {
    bulkhead_bpf::quiet();
    let (in_netns, in_mounts, on_host) = std::thread::scope(|s| {
        let in_netns = s.spawn(|| {
            let run = || run(|place| if let Place::Netns(run) = place { Some(Box::new(*run) as Runner) } else { None });
            // The namespace ends when `made` is dropped; no process stays in it.
            Netns::create().and_then(|made| made.run(run)).map_err(|e| e.to_string())
        });
        let in_mounts = s.spawn(|| {
            trial::in_new_mounts(|dir| {
                run(|place| if let Place::Mounts(run) = place { Some(Box::new(|| run(dir)) as Runner) } else { None })
            })
            .map_err(|e| e.to_string())
        });
        let on_host = run(|place| if let Place::Host(run) = place { Some(Box::new(*run) as Runner) } else { None });
        let panicked = || Err("the probes of this group panicked".to_owned());
        (in_netns.join().unwrap_or_else(|_| panicked()), in_mounts.join().unwrap_or_else(|_| panicked()), on_host)
    });
    let mut done: BTreeMap<&str, (Outcome, u64)> = on_host;
    let refusal = |group: &Result<BTreeMap<&'static str, (Outcome, u64)>, String>| group.as_ref().err().cloned();
    let (no_netns, no_mounts) = (refusal(&in_netns), refusal(&in_mounts));
    done.extend(in_netns.unwrap_or_default());
    done.extend(in_mounts.unwrap_or_default());
    let row = |entry: &Entry| {
        let missing = match entry.place {
            Place::Netns(_) => no_netns.clone(),
            Place::Mounts(_) => no_mounts.clone(),
            Place::Host(_) => None,
        };
        let (outcome, micros) = done.remove(entry.id).unwrap_or_else(|| (Err(missing.unwrap_or_else(|| "not run".into())), 0));
        let ok = outcome.is_ok();
        Probe { id: entry.id, what: entry.what, ok, detail: outcome.unwrap_or_else(|e| e), micros }
    };
    Probed(TABLE.iter().map(row).collect())
}

type Runner<'a> = Box<dyn Fn() -> Outcome + 'a>;

fn run<'a>(choose: impl Fn(&'static Place) -> Option<Runner<'a>>) -> BTreeMap<&'static str, (Outcome, u64)> {
    let chosen = TABLE.iter().filter_map(|entry| choose(&entry.place).map(|runner| (entry.id, runner)));
    chosen
        .map(|(id, runner)| {
            let start = Instant::now();
            let outcome = runner();
            (id, (outcome, start.elapsed().as_micros() as u64))
        })
        .collect()
}

// === the probes that are more than one call

fn plain(result: Result<(), String>) -> Outcome {
    result.map(|()| String::new())
}

fn told(result: Result<(), bulkhead_sys::OsError>, words: &str) -> Outcome {
    result.map(|()| words.to_owned()).map_err(|e| e.to_string())
}

/// Two queues: one for each worker is what the path uses. The interface goes with its descriptors.
fn tap() -> Outcome {
    let offloads = Tap::create("bhprobe0", 2).map_err(|e| e.to_string())?.offloads();
    match offloads {
        Offloads { csum: true, tso: true, uso: true } => Ok("TCP and UDP segmentation".into()),
        Offloads { csum: true, tso: true, uso: false } => Ok("TCP segmentation only".into()),
        Offloads { .. } => Err("no segmentation offload: throughput would collapse".into()),
    }
}

fn nfqueue() -> Outcome {
    Queue::open(0, &QueueConfig { gso: true, ..QueueConfig::default() }).map(|_| String::new()).map_err(|e| e.to_string())
}

/// The rule goes into the throw-away namespace and ends with it.
fn nfqueue_xt() -> Outcome {
    let rule = ["-t", "mangle", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"];
    command::output("iptables", &rule)?;
    command::output("ip6tables", &rule).map_err(|e| format!("IPv4 only: {e}"))?;
    let version = command::output("iptables", &["--version"]).unwrap_or_default();
    Ok(version.trim().to_owned())
}

fn nfqueue_nft() -> Outcome {
    let rules = "add table inet bh_probe; add chain inet bh_probe f { type filter hook forward priority 0; }; \
                 add rule inet bh_probe f queue num 0 bypass";
    command::output("nft", &[rules]).map(|_| String::new())
}

fn seccomp() -> Outcome {
    match trial::seccomp() {
        Ok(true) => Ok("user notification too".into()),
        Ok(false) => Ok("no user notification".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn btf() -> Outcome {
    if Path::new("/sys/kernel/btf/vmlinux").exists() { Ok(String::new()) } else { Err("no /sys/kernel/btf/vmlinux".into()) }
}

fn bpffs() -> Outcome {
    host::look().bpffs_at.ok_or_else(|| "none is mounted; `bulkhead run` mounts one for itself".into())
}

fn br_netfilter() -> Outcome {
    let value = |name: &str| host::read(format!("/proc/sys/net/bridge/bridge-nf-call-{name}")).trim().to_owned();
    let (four, six) = (value("iptables"), value("ip6tables"));
    match (four.as_str(), six.as_str()) {
        ("", _) => Err("not loaded: bridged packets do not pass netfilter".into()),
        ("0", "0") => Err("loaded but off: bridged packets do not pass netfilter".into()),
        _ => Ok(format!("IPv4 {}, IPv6 {}", on(&four), on(&six))),
    }
}

fn on(value: &str) -> &'static str {
    if value == "1" { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_kebab_case() {
        let mut ids: Vec<_> = TABLE.iter().map(|e| e.id).collect();
        assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TABLE.len());
    }

    #[test]
    fn every_probe_of_the_table_reports_in_its_order() {
        let probes = run_all().into_probes();
        assert_eq!(probes.iter().map(|p| p.id).collect::<Vec<_>>(), TABLE.iter().map(|e| e.id).collect::<Vec<_>>());
        assert!(probes.iter().all(|p| p.ok || !p.detail.is_empty()), "a refusal has a reason: {probes:?}");
    }
}
