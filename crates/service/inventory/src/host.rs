//! What the kernel shows: processes, network namespaces, interfaces. Reads only.
//!
//! A full look walks all of `/proc` and asks each namespace for its interfaces; a partial one
//! ([`Host::look_at`]) only what concerns given processes, for the moment after an engine's event.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_sys::netlink::{Error as NetlinkError, Link, Netlink};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::{mounts, procfs};

use crate::cgroup;
use crate::resolve::{HostLink, Namespace, NamespaceLink, Process};

/// Pairs of namespace and container of which a process is kept.
const GROUPS_MAX: usize = 65_536;
/// Namespaces whose interfaces are read.
const NAMESPACES_MAX: usize = 16_384;
/// Bind mounts of one namespace.
const PATHS_MAX: usize = 16;
/// For so long after a namespace appeared or its links changed its interfaces are read at every
/// look: addresses follow the link within moments.
const SETTLING: Duration = Duration::from_secs(3);
/// So long a namespace without process counts as one that an engine is making or removing. Making
/// one takes Docker 0.3 s here; ingress namespaces of a swarm stay without process for ever.
pub(crate) const TRANSITION: Duration = Duration::from_secs(5);

/// The newest picture.
#[derive(Default)]
pub(crate) struct Host {
    pub host_netns: u64,
    pub links: Vec<HostLink>,
    namespaces: BTreeMap<u64, Seen>,
    /// By pid.
    pub processes: BTreeMap<u32, Process>,
    /// The host's ids for other namespaces, with their inodes.
    netnsids: BTreeMap<i32, u64>,
    pub unreadable: u64,
    pub beyond_cap: u64,
}

/// A namespace with what tells when to read it again.
pub(crate) struct Seen {
    pub namespace: Namespace,
    /// Host ends that lead into it when it was read last.
    host_ends: BTreeSet<(u32, u32)>,
    changed: Instant,
    /// Since when no process is known in it.
    idle_since: Option<Instant>,
}

/// How thorough a full look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Reads the interfaces of every namespace.
    All,
    /// Only of those that are new or whose host ends changed.
    Changed,
}

impl Host {
    /// Looks at everything. `claimed` are pids that engines name: they are kept even when nothing
    /// marks them as a container's.
    pub(crate) fn scan(&mut self, depth: Depth, claimed: &BTreeSet<u32>) -> Result<(), String> {
        (self.unreadable, self.beyond_cap) = (0, 0);
        self.host_netns = host_netns()?;
        self.read_processes(claimed)?;
        let paths = self.read_mounts()?;
        let mut host = Netlink::open().map_err(|error| error.to_string())?;
        let links = host.links().map_err(|error| error.to_string())?;

        let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        for process in self.processes.values() {
            inodes.entry(process.netns).or_default().push(PathBuf::from(format!("/proc/{}/ns/net", process.pid)));
        }
        for (inode, paths) in &paths {
            inodes.entry(*inode).or_default().extend(paths.iter().cloned());
        }
        inodes.remove(&self.host_netns);
        self.beyond_cap += inodes.len().saturating_sub(NAMESPACES_MAX) as u64;
        while inodes.len() > NAMESPACES_MAX {
            inodes.pop_last();
        }
        // Which host link leads into which namespace; the ids are the kernel's and may be given anew.
        let mut open = BTreeMap::new();
        self.netnsids.clear();
        for (inode, ways) in &inodes {
            match ways.iter().find_map(|path| Netns::open_path(path).ok().filter(|netns| netns.inode() == *inode)) {
                Some(netns) => {
                    if let Ok(Some(id)) = host.nsid(&netns) {
                        self.netnsids.insert(id, *inode);
                    }
                    open.insert(*inode, netns);
                }
                None => self.unreadable += 1,
            }
            // Descriptors are few: those of namespaces that need no reading are not kept.
            if depth == Depth::Changed && self.namespaces.get(inode).is_some_and(|seen| seen.changed.elapsed() > SETTLING) {
                open.remove(inode);
            } else if open.len() >= OPEN_MAX {
                self.links = host_links(&links, &self.netnsids);
                self.read_namespaces(std::mem::take(&mut open), &paths);
            }
        }
        self.links = host_links(&links, &self.netnsids);
        self.namespaces.retain(|inode, _| inodes.contains_key(inode));
        for (inode, seen) in &self.namespaces {
            if !open.contains_key(inode) && seen.host_ends != ends_into(&self.links, *inode) {
                let ways = inodes.get(inode).into_iter().flatten();
                let netns = ways.filter_map(|path| Netns::open_path(path).ok()).find(|netns| netns.inode() == *inode);
                open.extend(netns.map(|netns| (*inode, netns)));
            }
        }
        self.read_namespaces(open, &paths);
        for (inode, seen) in &mut self.namespaces {
            seen.namespace.paths = texts(paths.get(inode));
        }
        self.mark_idle();
        Ok(())
    }

    /// The namespaces as they count now.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.namespaces.values().map(|seen| Namespace { in_transition: seen.in_transition(), ..seen.namespace.clone() })
    }

    /// Is one of them in a state that ends by itself?
    pub(crate) fn any_in_transition(&self) -> bool {
        self.namespaces.values().any(Seen::in_transition)
    }

    /// Looks at these processes, their namespaces, and the host's links.
    pub(crate) fn look_at(&mut self, pids: &BTreeSet<u32>) -> Result<(), String> {
        if self.host_netns == 0 {
            self.host_netns = host_netns()?;
        }
        let mut host = Netlink::open().map_err(|error| error.to_string())?;
        let links = host.links().map_err(|error| error.to_string())?;
        let mut open = BTreeMap::new();
        for &pid in pids {
            let Some(process) = read_process(pid) else {
                self.processes.remove(&pid);
                continue;
            };
            let netns = process.netns;
            self.processes.insert(pid, process);
            if netns == self.host_netns || open.contains_key(&netns) || open.len() >= OPEN_MAX {
                continue;
            }
            if let Ok(found) = Netns::open_pid(pid)
                && found.inode() == netns
            {
                if let Ok(Some(id)) = host.nsid(&found) {
                    self.netnsids.retain(|_, inode| *inode != netns);
                    self.netnsids.insert(id, netns);
                }
                open.insert(netns, found);
            }
        }
        self.links = host_links(&links, &self.netnsids);
        let paths =
            open.keys().filter_map(|inode| Some((*inode, self.namespaces.get(inode)?.namespace.paths.iter().map(PathBuf::from).collect())));
        let paths = paths.collect();
        self.read_namespaces(open, &paths);
        self.mark_idle();
        Ok(())
    }

    /// Forgets processes that ended, and namespaces that nothing known holds any more. Gives whether
    /// there were any; others may be left that only a full look finds.
    pub(crate) fn forget_dead(&mut self) -> bool {
        let before = (self.processes.len(), self.namespaces.len());
        self.processes.retain(|&pid, process| procfs::Process { pid }.start_ticks().is_ok_and(|started| started == process.started));
        if self.processes.len() != before.0 {
            let inhabited: BTreeSet<u64> = self.processes.values().map(|process| process.netns).collect();
            self.namespaces.retain(|inode, seen| {
                inhabited.contains(inode)
                    || seen.namespace.paths.iter().any(|path| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == *inode))
            });
        }
        self.mark_idle();
        (self.processes.len(), self.namespaces.len()) != before
    }

    fn mark_idle(&mut self) {
        let inhabited: BTreeSet<u64> = self.processes.values().map(|process| process.netns).collect();
        for (inode, seen) in &mut self.namespaces {
            seen.idle_since = if inhabited.contains(inode) { None } else { seen.idle_since.or_else(|| Some(Instant::now())) };
        }
    }

    /// Keeps the oldest process of each pair of namespace and container, and the claimed ones.
    fn read_processes(&mut self, claimed: &BTreeSet<u32>) -> Result<(), String> {
        let mut oldest: BTreeMap<(u64, Option<String>), Process> = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for pid in procfs::pids().map_err(|error| error.to_string())? {
            let handle = procfs::Process { pid };
            // Readable for every process that is not a zombie; zombies have no namespaces.
            let (Ok(netns), Ok(cgroups)) = (handle.netns_inode(), handle.cgroups()) else {
                self.unreadable += 1;
                continue;
            };
            let cgroup = cgroup_path(&cgroups);
            let container = cgroup::container(cgroup).map(|named| named.id.to_owned());
            let is_claimed = claimed.contains(&pid);
            if netns == self.host_netns && container.is_none() && !is_claimed {
                continue;
            }
            let Ok(started) = handle.start_ticks() else {
                self.unreadable += 1;
                continue;
            };
            let process = || Process { pid, netns, cgroup: cgroup.to_owned(), started, comm: handle.comm().unwrap_or_default() };
            if is_claimed {
                kept.insert(pid, process());
            }
            let group = (netns, container);
            let full = oldest.len() >= GROUPS_MAX;
            match oldest.get_mut(&group) {
                Some(first) if (first.started, first.pid) <= (started, pid) => {}
                Some(first) => *first = process(),
                None if full => self.beyond_cap += 1,
                None => drop(oldest.insert(group, process())),
            }
        }
        kept.extend(oldest.into_values().map(|process| (process.pid, process)));
        self.processes = kept;
        Ok(())
    }

    /// Bind mounts of network namespaces.
    fn read_mounts(&mut self) -> Result<BTreeMap<u64, Vec<PathBuf>>, String> {
        let mut paths: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        for mount in mounts::list().map_err(|error| error.to_string())?.into_iter().filter(|mount| mount.fs_type == "nsfs") {
            let Some(inode) = mount.root.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).and_then(|inode| inode.parse().ok())
            else {
                continue;
            };
            let paths = paths.entry(inode).or_default();
            if paths.len() >= PATHS_MAX {
                self.beyond_cap += 1;
            } else if !paths.contains(&mount.target) {
                paths.push(mount.target);
            }
        }
        Ok(paths)
    }

    fn read_namespaces(&mut self, open: BTreeMap<u64, Netns>, paths: &BTreeMap<u64, Vec<PathBuf>>) {
        for (inode, netns) in open {
            match namespace_links(&netns) {
                Ok(links) => {
                    let host_ends = ends_into(&self.links, inode);
                    let before = self.namespaces.get(&inode);
                    let changed =
                        before.filter(|seen| seen.host_ends == host_ends && seen.namespace.links == links).map(|seen| seen.changed);
                    let idle_since = before.and_then(|seen| seen.idle_since);
                    let namespace = Namespace { inode, paths: texts(paths.get(&inode)), in_transition: false, links };
                    self.namespaces.insert(inode, Seen { namespace, host_ends, changed: changed.unwrap_or_else(Instant::now), idle_since });
                }
                // It may have ended meanwhile. What was known of it stays until it is seen to be gone.
                Err(_) => {
                    self.unreadable += 1;
                    self.namespaces.entry(inode).or_insert_with(|| Seen {
                        namespace: Namespace { inode, paths: texts(paths.get(&inode)), in_transition: false, links: Vec::new() },
                        host_ends: BTreeSet::new(),
                        changed: Instant::now(),
                        idle_since: None,
                    });
                }
            }
        }
    }
}

impl Seen {
    fn in_transition(&self) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() < TRANSITION)
    }
}

/// Namespaces that are open at the same time; a service may have as few as 1024 descriptors.
const OPEN_MAX: usize = 128;

/// That of the first process; where that may not be read (it takes `CAP_SYS_PTRACE` over it), of
/// the kernel's threads, else our own.
fn host_netns() -> Result<u64, String> {
    let of = |pid| procfs::Process { pid }.netns_inode().ok();
    if let Some(inode) = of(1).or_else(|| of(KTHREADD)) {
        return Ok(inode);
    }
    Netns::current().map(|netns| netns.inode()).map_err(|error| format!("the host's network namespace is out of reach: {error}"))
}

/// Parent of all kernel threads, which stay in the first namespace.
const KTHREADD: u32 = 2;

fn read_process(pid: u32) -> Option<Process> {
    let handle = procfs::Process { pid };
    let cgroups = handle.cgroups().ok()?;
    Some(Process {
        pid,
        netns: handle.netns_inode().ok()?,
        cgroup: cgroup_path(&cgroups).to_owned(),
        started: handle.start_ticks().ok()?,
        comm: handle.comm().ok()?,
    })
}

fn cgroup_path(cgroups: &procfs::Cgroups) -> &str {
    cgroup::path(cgroups.v2.as_deref(), cgroups.v1.iter().map(|(_, path)| path.as_str()))
}

fn texts(paths: Option<&Vec<PathBuf>>) -> Vec<String> {
    paths.into_iter().flatten().map(|path| path.to_string_lossy().into_owned()).collect()
}

fn host_links(links: &[Link], netnsids: &BTreeMap<i32, u64>) -> Vec<HostLink> {
    let peer = |link: &Link| {
        // A macvlan's parent and a VLAN's device below are told by the same attribute.
        if !matches!(link.kind.as_deref(), Some("veth" | "netkit")) {
            return None;
        }
        Some((*netnsids.get(&link.link_netnsid?)?, link.link?))
    };
    links.iter().map(|link| HostLink { ifindex: link.ifindex, name: link.name.clone(), master: link.master, peer: peer(link) }).collect()
}

fn ends_into(links: &[HostLink], inode: u64) -> BTreeSet<(u32, u32)> {
    links.iter().filter_map(|link| link.peer.filter(|peer| peer.0 == inode).map(|peer| (link.ifindex, peer.1))).collect()
}

fn namespace_links(netns: &Netns) -> Result<Vec<NamespaceLink>, NetlinkError> {
    let mut netlink = Netlink::open_in(netns)?;
    let mut addresses: BTreeMap<u32, Vec<std::net::IpAddr>> = BTreeMap::new();
    let links = netlink.links()?;
    for address in netlink.addresses()? {
        addresses.entry(address.ifindex).or_default().push(address.addr);
    }
    let links = links.into_iter().map(|link| NamespaceLink {
        addresses: addresses.remove(&link.ifindex).unwrap_or_default(),
        ifindex: link.ifindex,
        name: link.name,
        kind: link.kind,
        mac: link.mac,
        up: link.up,
        loopback: link.loopback,
    });
    Ok(links.collect())
}
