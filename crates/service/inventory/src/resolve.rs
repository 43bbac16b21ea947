//! From what engines say and the kernel shows to workloads. Pure: the same inputs give the same
//! workloads, in any order of the inputs' lists.
//!
//! Who is believed in what:
//! 1. **Which network stack** a container uses is the kernel's word alone (the inode of its first
//!    process' namespace). An engine that says "bridge" cannot make a container of the host's
//!    network look protected, nor the other way round.
//! 2. **Who a process is** tells the engine that lists it; where two claim one container, the one
//!    earlier in [`EngineKind`]. A pid whose process is in another container's cgroup, or in the
//!    host's namespace without a container's cgroup, is a stale one: the container's process is
//!    then looked for by cgroup.
//! 3. **A container no engine lists** (engine down, hung, or not known) is found by its cgroup and
//!    keeps the same key, the id, when the engine comes back and adds its name.
//! 4. **A namespace that is left over** is a workload of its own, `netns:<inode>`, so that nothing
//!    with an interface, a process or a name is missing from the list.
//!
//! INVARIANT: every namespace other than the host's belongs to exactly one workload with
//! [`Network::Own`], which has all its interfaces; further containers in it are
//! [`Network::Shared`] with that one's key and have none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_model::{Interface, InterfaceKind, Network, Published, Runtime, Workload};

use crate::{EngineKind, cgroup};

/// Workloads in one resolution.
pub const WORKLOADS_MAX: usize = 16_384;
/// Interfaces of one namespace; those with an end on the host are kept first.
pub const INTERFACES_MAX: usize = 256;
/// Addresses of one interface.
pub const ADDRESSES_MAX: usize = 64;
/// Bytes of a name, image or path that came from outside.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Everything that is known of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// Inode of the host's own network namespace.
    pub host_netns: u64,
    /// Interfaces of the host.
    pub host_links: Vec<HostLink>,
    /// All namespaces, the host's may be among them.
    pub namespaces: Vec<Namespace>,
    /// For each pair of namespace and container cgroup the oldest process, and every process that an engine names.
    pub processes: Vec<Process>,
    pub listings: Vec<Listing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLink {
    pub ifindex: u32,
    pub name: String,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// The other end, when that is in another namespace: inode and index there.
    pub peer: Option<(u64, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    pub inode: u64,
    /// Bind mounts that hold it.
    pub paths: Vec<String>,
    /// It lost its last process, or appeared without one, a moment ago: an engine is making or
    /// removing a container. Not listed unless it has a name.
    pub in_transition: bool,
    pub links: Vec<NamespaceLink>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceLink {
    pub ifindex: u32,
    pub name: String,
    /// The kernel's word (`veth`, `macvlan`, …); none for hardware and loopback.
    pub kind: Option<String>,
    pub mac: Option<[u8; 6]>,
    pub up: bool,
    pub loopback: bool,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: u32,
    /// Inode of its network namespace.
    pub netns: u64,
    /// As [`cgroup::path`] gives it.
    pub cgroup: String,
    /// Clock ticks after boot: tells a process from a later one with the same pid.
    pub started: u64,
    pub comm: String,
}

/// What one engine told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub engine: EngineKind,
    /// Running containers.
    pub containers: Vec<Container>,
}

/// One running container as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits with most engines; containerd lets its clients choose any text.
    pub id: String,
    pub name: String,
    pub image: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub runtime: Runtime,
    /// First process; none where the engine does not tell, it is found by cgroup then.
    pub pid: Option<u32>,
    /// Id of the container whose network it was told to use.
    pub joins: Option<String>,
    /// Its settings do not rule out the host's network. What it has is the kernel's word.
    pub may_use_host: bool,
    /// It holds a pod's namespaces (pause, infra).
    pub sandbox: bool,
    pub published: Vec<Published>,
}

/// The result, with what was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// By ascending key, each once.
    pub workloads: Vec<Workload>,
    /// Containers that an engine calls running and no process was found for.
    pub unlocated: u64,
    /// Pids of engines that are another's process.
    pub contradicted: u64,
    /// Containers that a second engine claims too.
    pub claimed_twice: u64,
    /// Workloads, interfaces and addresses beyond their caps.
    pub beyond_cap: u64,
}

/// Puts it together.
pub fn resolve(inputs: &Inputs) -> Resolved {
    let mut resolved = Resolved::default();
    let processes = Processes::index(&inputs.processes);
    let mut found = listed(inputs, &processes, &mut resolved);
    by_cgroup_alone(inputs, &processes, &mut found);
    let owners = owners(inputs.host_netns, &found);
    let host_ends = HostEnds::index(&inputs.host_links);
    let namespaces: BTreeMap<u64, &Namespace> = inputs.namespaces.iter().map(|namespace| (namespace.inode, namespace)).collect();

    let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
    for (key, Found { container, process }) in &found {
        let network = match owners.get(&process.netns) {
            _ if process.netns == inputs.host_netns => Network::Host,
            Some(owner) if owner != key => Network::Shared { netns: process.netns, with: (*owner).clone() },
            Some(_) | None => Network::Own { netns: process.netns },
        };
        let interfaces = match (&network, namespaces.get(&process.netns)) {
            (Network::Own { .. }, Some(namespace)) => interfaces(namespace, &host_ends, &mut resolved.beyond_cap),
            (Network::Own { .. } | Network::Shared { .. } | Network::Host, _) => Vec::new(),
        };
        workloads.insert(
            key.clone(),
            Workload {
                key: key.clone(),
                name: text(&container.name),
                image: container.image.as_deref().map(text),
                labels: container.labels.clone(),
                runtime: container.runtime,
                pid: process.pid,
                cgroup: text(&process.cgroup),
                network,
                interfaces,
                published: container.published.clone(),
            },
        );
    }
    for namespace in namespaces.values() {
        if namespace.inode != inputs.host_netns && !owners.contains_key(&namespace.inode) {
            let workload = bare(namespace, processes.oldest_in(namespace.inode), &host_ends, &mut resolved.beyond_cap);
            let named = namespace.paths.iter().any(|path| is_named(path));
            // Docker keeps an empty mount for a minute after a container's end.
            if workload.pid != 0 || named || (!workload.interfaces.is_empty() && !namespace.in_transition) {
                workloads.insert(workload.key.clone(), workload);
            }
        }
    }
    resolved.workloads = capped(workloads, &mut resolved.beyond_cap);
    resolved
}

/// The name, kind and number by which a namespace that no container claims is known.
fn bare(namespace: &Namespace, first: Option<&Process>, host_ends: &HostEnds<'_>, beyond_cap: &mut u64) -> Workload {
    let base = |path: &String| path.rsplit('/').next().filter(|base| !base.is_empty()).map(str::to_owned);
    let paths: BTreeSet<&String> = namespace.paths.iter().collect();
    let named = paths.iter().find(|path| is_named(path));
    let comm = || first.map(|process| process.comm.clone()).filter(|comm| !comm.is_empty());
    let key = format!("netns:{}", namespace.inode);
    let name =
        named.and_then(|path| base(path)).or_else(comm).or_else(|| paths.iter().find_map(|path| base(path))).unwrap_or_else(|| key.clone());
    Workload {
        name: text(&name),
        image: None,
        labels: BTreeMap::new(),
        runtime: Runtime::Namespace,
        pid: first.map_or(0, |process| process.pid),
        cgroup: first.map_or_else(|| "/".to_owned(), |process| text(&process.cgroup)),
        network: Network::Own { netns: namespace.inode },
        interfaces: interfaces(namespace, host_ends, beyond_cap),
        published: Vec::new(),
        key,
    }
}

/// Was it given a name by `ip netns`, for which `/run/netns` is the place?
fn is_named(path: &str) -> bool {
    path.starts_with("/run/netns/") || path.starts_with("/var/run/netns/")
}

/// A container and the process that stands for it.
struct Found<'a> {
    container: Container,
    process: &'a Process,
}

/// The containers that engines list and that have a process.
fn listed<'a>(inputs: &'a Inputs, processes: &Processes<'a>, resolved: &mut Resolved) -> BTreeMap<String, Found<'a>> {
    let mut listings: Vec<&Listing> = inputs.listings.iter().collect();
    listings.sort_by_key(|listing| listing.engine);
    let mut found: BTreeMap<String, Found<'a>> = BTreeMap::new();
    let mut unlocated: BTreeSet<&str> = BTreeSet::new();
    for (listing, container) in listings.iter().flat_map(|listing| listing.containers.iter().map(move |container| (listing, container))) {
        // `netns:` keys are ours; an id like that could take a namespace's place.
        if container.id.is_empty() || container.id.starts_with("netns:") {
            resolved.contradicted += 1;
            continue;
        }
        if found.contains_key(&container.id) {
            // Podman's files repeat what its service tells.
            resolved.claimed_twice += u64::from(listing.engine != EngineKind::PodmanStorage);
            continue;
        }
        let claimed = container.pid.and_then(|pid| processes.by_pid.get(&pid).copied());
        let confirmed = claimed.filter(|process| plausible(container, process, inputs.host_netns));
        resolved.contradicted += u64::from(claimed.is_some() && confirmed.is_none());
        match confirmed.or_else(|| processes.oldest_of(&container.id)) {
            Some(process) => {
                unlocated.remove(container.id.as_str());
                found.insert(container.id.clone(), Found { container: container.clone(), process });
            }
            // Podman's files list stopped containers too.
            None if listing.engine == EngineKind::PodmanStorage => {}
            None => drop(unlocated.insert(&container.id)),
        }
    }
    resolved.unlocated = unlocated.len() as u64;
    found
}

/// May this process be the container's first one? A pid can have been given to another process
/// between the engine's answer and our look.
fn plausible(container: &Container, process: &Process, host_netns: u64) -> bool {
    match cgroup::container(&process.cgroup) {
        Some(named) if cgroup::is_id(&container.id) => named.id == container.id,
        Some(_) | None => process.netns != host_netns || container.may_use_host || process.cgroup.contains(container.id.as_str()),
    }
}

/// Adds the containers that only their cgroup tells of.
fn by_cgroup_alone<'a>(inputs: &'a Inputs, processes: &Processes<'a>, found: &mut BTreeMap<String, Found<'a>>) {
    let taken: BTreeSet<u32> = found.values().map(|found| found.process.pid).collect();
    for (id, group) in &processes.by_container {
        if found.contains_key(*id) {
            continue;
        }
        let Some(process) = group.first().filter(|process| !taken.contains(&process.pid)) else { continue };
        let runtime = cgroup::container(&process.cgroup).map_or(Runtime::Namespace, |named| named.runtime);
        // A path that does not tell the engine could be anybody's naming: only worth a workload
        // when there is a namespace to look after.
        if runtime == Runtime::Namespace && process.netns == inputs.host_netns {
            continue;
        }
        let container = Container {
            id: (*id).to_owned(),
            name: id.chars().take(SHORT_ID_LEN).collect(),
            image: None,
            labels: BTreeMap::new(),
            runtime,
            pid: Some(process.pid),
            joins: None,
            may_use_host: false,
            sandbox: false,
            published: Vec::new(),
        };
        found.insert((*id).to_owned(), Found { container, process });
    }
}

/// For each namespace the key of the workload that it counts as: the one others join, else a pod's
/// sandbox, else the first that joins nobody, else the oldest.
fn owners(host_netns: u64, found: &BTreeMap<String, Found<'_>>) -> BTreeMap<u64, String> {
    let joined: BTreeSet<(u64, &str)> =
        found.values().filter_map(|found| Some((found.process.netns, found.container.joins.as_deref()?))).collect();
    let rank = |key: &str, found: &Found<'_>| {
        let netns = found.process.netns;
        (found.container.joins.is_some(), !joined.contains(&(netns, key)), !found.container.sandbox, found.process.started, key.to_owned())
    };
    let mut best: BTreeMap<u64, (bool, bool, bool, u64, String)> = BTreeMap::new();
    for (key, found) in found.iter().filter(|(_, found)| found.process.netns != host_netns) {
        let candidate = rank(key, found);
        let entry = best.entry(found.process.netns).or_insert_with(|| candidate.clone());
        if candidate < *entry {
            *entry = candidate;
        }
    }
    best.into_iter().map(|(netns, (.., key))| (netns, key)).collect()
}

/// A namespace's interfaces without loopback, by index. Of those that carry nothing (the kernel
/// puts a down `tunl0`, `sit0`, … into every namespace) only the kinds that containers are given.
fn interfaces(namespace: &Namespace, host_ends: &HostEnds<'_>, beyond_cap: &mut u64) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for link in namespace.links.iter().filter(|link| !link.loopback) {
        let kind = kind(link.kind.as_deref());
        if kind == InterfaceKind::Other && !link.up {
            continue;
        }
        let host_end = host_ends.by_peer.get(&(namespace.inode, link.ifindex));
        let bridge = host_end.and_then(|end| end.master).and_then(|master| host_ends.by_index.get(&master));
        let mut addresses = link.addresses.clone();
        addresses.sort_unstable();
        addresses.dedup();
        *beyond_cap += addresses.len().saturating_sub(ADDRESSES_MAX) as u64;
        addresses.truncate(ADDRESSES_MAX);
        interfaces.push(Interface {
            name: text(&link.name),
            ifindex: link.ifindex,
            kind,
            mac: mac(link.mac),
            addresses,
            host_ifindex: host_end.map(|end| end.ifindex),
            host_name: host_end.map(|end| text(&end.name)),
            bridge: bridge.map(|bridge| text(&bridge.name)),
        });
    }
    if interfaces.len() > INTERFACES_MAX {
        // A container may make interfaces by the thousand; the ones that lead out must not be lost for it.
        interfaces.sort_by_key(|interface| (interface.host_ifindex.is_none(), interface.kind, interface.ifindex));
        *beyond_cap += (interfaces.len() - INTERFACES_MAX) as u64;
        interfaces.truncate(INTERFACES_MAX);
    }
    interfaces.sort_by_key(|interface| interface.ifindex);
    interfaces
}

fn kind(kernel: Option<&str>) -> InterfaceKind {
    match kernel {
        Some("veth") => InterfaceKind::Veth,
        Some("macvlan" | "macvtap") => InterfaceKind::Macvlan,
        Some("ipvlan" | "ipvtap") => InterfaceKind::Ipvlan,
        Some("netkit") => InterfaceKind::Netkit,
        Some(_) | None => InterfaceKind::Other,
    }
}

/// Keeps the workloads that have a network to look after, should there be more than fit.
fn capped(workloads: BTreeMap<String, Workload>, beyond_cap: &mut u64) -> Vec<Workload> {
    let mut workloads: Vec<Workload> = workloads.into_values().collect();
    if workloads.len() > WORKLOADS_MAX {
        workloads.sort_by_key(|workload| workload.interfaces.is_empty());
        *beyond_cap += (workloads.len() - WORKLOADS_MAX) as u64;
        workloads.truncate(WORKLOADS_MAX);
        workloads.sort_by(|a, b| a.key.cmp(&b.key));
    }
    workloads
}

/// The inputs' processes by what they are asked for; groups are oldest first.
struct Processes<'a> {
    by_pid: BTreeMap<u32, &'a Process>,
    by_container: BTreeMap<&'a str, Vec<&'a Process>>,
    by_namespace: BTreeMap<u64, &'a Process>,
}

impl<'a> Processes<'a> {
    fn index(processes: &'a [Process]) -> Self {
        let mut index = Self { by_pid: BTreeMap::new(), by_container: BTreeMap::new(), by_namespace: BTreeMap::new() };
        let mut oldest_first: Vec<&Process> = processes.iter().collect();
        oldest_first.sort_by_key(|process| (process.started, process.pid, &process.cgroup));
        for process in oldest_first {
            index.by_pid.insert(process.pid, process);
            if let Some(named) = cgroup::container(&process.cgroup) {
                index.by_container.entry(named.id).or_default().push(process);
            }
            index.by_namespace.entry(process.netns).or_insert(process);
        }
        index
    }

    /// A container's first process is its oldest one.
    fn oldest_of(&self, id: &str) -> Option<&'a Process> {
        self.by_container.get(id)?.first().copied()
    }

    fn oldest_in(&self, netns: u64) -> Option<&'a Process> {
        self.by_namespace.get(&netns).copied()
    }
}

struct HostEnds<'a> {
    by_index: BTreeMap<u32, &'a HostLink>,
    by_peer: BTreeMap<(u64, u32), &'a HostLink>,
}

impl<'a> HostEnds<'a> {
    fn index(links: &'a [HostLink]) -> Self {
        Self {
            by_index: links.iter().map(|link| (link.ifindex, link)).collect(),
            by_peer: links.iter().filter_map(|link| Some((link.peer?, link))).collect(),
        }
    }
}

/// Text from outside as it may be shown: capped, without control characters.
pub(crate) fn text(raw: &str) -> String {
    let mut shown: String = raw.chars().take(TEXT_BYTES_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    while shown.len() > TEXT_BYTES_MAX {
        shown.pop();
    }
    shown
}

fn mac(bytes: Option<[u8; 6]>) -> String {
    bytes.map_or_else(String::new, |bytes| bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

/// Docker's short form of an id.
const SHORT_ID_LEN: usize = 12;

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
