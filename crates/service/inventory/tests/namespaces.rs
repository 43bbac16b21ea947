//! The inventory against the kernel's real namespaces, interfaces and cgroups. Needs root; says
//! NOT RUN otherwise.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_inventory::{Config, Inventory, Snapshot};
use bulkhead_model::{InterfaceKind, Network, Runtime, Workload};
use bulkhead_sys::netlink::{MacvlanMode, Netlink, NewLink};
use bulkhead_sys::netns::{self, Netns};
use bulkhead_sys::{mounts, procfs};

/// What a test made on the host; undone when it ends, also when it fails.
#[derive(Default)]
struct Stage {
    namespaces: Vec<String>,
    links: Vec<String>,
    cgroups: Vec<PathBuf>,
    children: Vec<Child>,
}

impl Stage {
    fn namespace(&mut self, name: &str) -> Netns {
        let name = unique(name);
        let made = netns::create_named(&name).expect("a namespace");
        self.namespaces.push(name);
        made
    }

    fn bridge(&mut self, name: &str) -> u32 {
        let name = unique(name);
        let mut host = Netlink::open().expect("netlink");
        host.create_bridge(&NewLink { up: true, ..NewLink::named(&name) }).expect("a bridge");
        self.links.push(name.clone());
        host.link_named(&name).expect("looked up").expect("there").ifindex
    }

    /// A veth: one end on the host, port of `bridge`; `inner` in the namespace. Gives the host end.
    fn veth(&mut self, name: &str, bridge: u32, netns: &Netns, inner: &str) -> u32 {
        let name = unique(name);
        let mut host = Netlink::open().expect("netlink");
        let peer = NewLink { up: true, netns: Some(netns.as_fd()), ..NewLink::named(inner) };
        host.create_veth(&NewLink { master: Some(bridge), up: true, ..NewLink::named(&name) }, &peer).expect("a veth");
        self.links.push(name.clone());
        host.link_named(&name).expect("looked up").expect("there").ifindex
    }

    /// A process in the namespace.
    fn sleeper(&mut self, netns: &Netns) -> u32 {
        let spawn = || Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep starts");
        let child = netns.run(spawn).expect("entered");
        self.children.push(child);
        self.children.last().expect("just pushed").id()
    }

    fn end(&mut self, pid: u32) {
        for child in self.children.iter_mut().filter(|child| child.id() == pid) {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Ok(mut host) = Netlink::open() {
            for name in &self.links {
                if let Ok(Some(link)) = host.link_named(name) {
                    let _ = host.delete_link(link.ifindex);
                }
            }
        }
        for name in &self.namespaces {
            let _ = netns::delete_named(name);
        }
        for path in self.cgroups.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

fn unique(name: &str) -> String {
    format!("{name}{:x}", std::process::id())
}

fn is_root(test: &str) -> bool {
    let root = procfs::Process::own().status().is_ok_and(|status| status.uids[1] == 0) && Netns::create().is_ok();
    if !root {
        println!("NOT RUN: {test}: needs root and the right to make namespaces");
    }
    root
}

#[track_caller]
fn wait_for(inventory: &Inventory, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let limit = Instant::now() + Duration::from_secs(60);
    let mut snapshot = inventory.snapshot();
    while !holds(&snapshot) {
        assert!(Instant::now() < limit, "{what} never came; last: {snapshot:#?}, {:?}", inventory.counters());
        snapshot = inventory.wait_newer(snapshot.revision, Duration::from_millis(200));
    }
    snapshot
}

/// An inventory that looks again by itself only after an hour: all news come by hints.
fn inventory() -> Inventory {
    let config = Config { scan_interval: Duration::from_secs(3600), ..Config::without_engines() };
    let inventory = Inventory::start(config).expect("started");
    assert!(inventory.wait_settled(Duration::from_secs(60)));
    inventory
}

fn bare<'a>(snapshot: &'a Snapshot, netns: &Netns) -> Option<&'a Workload> {
    snapshot.by_key(&format!("netns:{}", netns.inode()))
}

#[test]
fn a_named_namespace_on_a_bridge_is_found_followed_and_forgotten() {
    if !is_root("a_named_namespace_on_a_bridge_is_found_followed_and_forgotten") {
        return;
    }
    let mut stage = Stage::default();
    let inventory = inventory();
    let netns = stage.namespace("bhia");
    let bridge = stage.bridge("bhibr");
    let host_end = stage.veth("bhiv", bridge, &netns, "eth0");
    inventory.refresh_hint();
    let found = wait_for(&inventory, "the veth", |snapshot| bare(snapshot, &netns).is_some_and(|w| !w.interfaces.is_empty()));
    let workload = bare(&found, &netns).expect("just seen");
    assert_eq!((workload.name.clone(), workload.runtime, workload.pid), (unique("bhia"), Runtime::Namespace, 0));
    assert_eq!(workload.network, Network::Own { netns: netns.inode() });
    let eth0 = workload.interfaces.first().expect("one");
    assert_eq!((eth0.name.as_str(), eth0.kind, eth0.host_ifindex), ("eth0", InterfaceKind::Veth, Some(host_end)));
    assert_eq!((eth0.host_name.clone(), eth0.bridge.clone()), (Some(unique("bhiv")), Some(unique("bhibr"))));
    let by_end = found.by_host_ifindex(host_end).expect("by its host end");
    assert_eq!(by_end.0.key, workload.key);

    // The address comes a moment after the link; no second hint is given for it.
    let address: IpAddr = "198.51.100.77".parse().expect("an address");
    Netlink::open_in(&netns).expect("netlink").add_address(eth0.ifindex, address, 24, true).expect("an address");
    let has_address =
        |snapshot: &Snapshot| bare(snapshot, &netns).is_some_and(|w| w.interfaces.iter().any(|i| i.addresses.contains(&address)));
    inventory.refresh_hint();
    wait_for(&inventory, "the address", has_address);

    // A second interface (network connect), and away with it (disconnect).
    let second = stage.veth("bhiw", bridge, &netns, "eth1");
    inventory.refresh_hint();
    wait_for(&inventory, "the second interface", |snapshot| snapshot.by_host_ifindex(second).is_some());
    Netlink::open().expect("netlink").delete_link(second).expect("removed");
    inventory.refresh_hint();
    wait_for(&inventory, "its end", |snapshot| snapshot.by_host_ifindex(second).is_none());

    // A process inside gives it a pid; the name stays that of the mount.
    let pid = stage.sleeper(&netns);
    inventory.refresh_hint();
    let named = wait_for(&inventory, "the process", |snapshot| bare(snapshot, &netns).is_some_and(|w| w.pid == pid));
    assert_eq!(bare(&named, &netns).expect("just seen").name, unique("bhia"));
    stage.end(pid);

    let key = format!("netns:{}", netns.inode());
    drop(netns);
    let name = stage.namespaces.pop().expect("one");
    netns::delete_named(&name).expect("removed");
    inventory.refresh_hint();
    wait_for(&inventory, "the namespace's end", |snapshot| snapshot.by_key(&key).is_none());
}

#[test]
fn a_namespace_without_a_name_is_named_by_its_process_and_a_macvlan_has_no_host_end() {
    if !is_root("a_namespace_without_a_name_is_named_by_its_process_and_a_macvlan_has_no_host_end") {
        return;
    }
    let mut stage = Stage::default();
    let netns = Netns::create().expect("a namespace");
    let pid = stage.sleeper(&netns);
    let parent = stage.bridge("bhimp");
    let link = NewLink { up: true, netns: Some(netns.as_fd()), ..NewLink::named("mac0") };
    let macvlan = Netlink::open().expect("netlink").create_macvlan(&link, parent, MacvlanMode::Bridge);
    if let Err(error) = &macvlan {
        println!("NOT RUN: macvlan part of a_namespace_without_a_name…: {error}");
    }
    let inventory = inventory();
    let snapshot = inventory.snapshot();
    let workload = bare(&snapshot, &netns).expect("found in the first look");
    assert_eq!((workload.name.as_str(), workload.pid), ("sleep", pid));
    if macvlan.is_ok() {
        let mac0 = workload.interfaces.first().expect("the macvlan");
        assert_eq!((mac0.kind, mac0.host_ifindex, mac0.bridge.clone()), (InterfaceKind::Macvlan, None, None));
    }
    // Without process and mount nothing holds it but this test's descriptor.
    stage.end(pid);
    inventory.refresh_hint();
    wait_for(&inventory, "its end", |snapshot| bare(snapshot, &netns).is_none());
}

#[test]
fn a_container_is_known_by_its_cgroup_while_no_engine_tells_of_it() {
    if !is_root("a_container_is_known_by_its_cgroup_while_no_engine_tells_of_it") {
        return;
    }
    let unified = mounts::list().expect("mounts").into_iter().find(|mount| mount.fs_type == "cgroup2");
    let Some(unified) = unified.map(|mount| mount.target).filter(|target| fs::read_dir(target).is_ok()) else {
        println!("NOT RUN: a_container_is_known_by_its_cgroup_while_no_engine_tells_of_it: no cgroup v2 tree");
        return;
    };
    let mut stage = Stage::default();
    let id = format!("{:064x}", u128::from(std::process::id()) << 64 | 0xb01c);
    let parent = unified.join(unique("bulkhead-test-"));
    let cgroup = parent.join(format!("docker-{id}.scope"));
    if let Err(error) = fs::create_dir(&parent).and_then(|()| fs::create_dir(&cgroup)) {
        let _ = fs::remove_dir(&parent);
        println!("NOT RUN: a_container_is_known_by_its_cgroup_while_no_engine_tells_of_it: cannot make a cgroup: {error}");
        return;
    }
    stage.cgroups = vec![parent, cgroup.clone()];
    let netns = stage.namespace("bhic");
    let (first, second) = (stage.sleeper(&netns), stage.sleeper(&netns));
    for pid in [first, second] {
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("moved into the cgroup");
    }
    let inventory = inventory();
    let snapshot = inventory.snapshot();
    let workload = snapshot.by_key(&id).expect("found by its cgroup");
    assert_eq!((workload.runtime, workload.name.as_str()), (Runtime::Docker, &id[..12]));
    assert!(workload.pid == first || workload.pid == second);
    assert!(workload.cgroup.ends_with(&format!("docker-{id}.scope")), "{}", workload.cgroup);
    assert_eq!(workload.network, Network::Own { netns: netns.inode() });
    assert_eq!(bare(&snapshot, &netns), None, "its namespace is not listed twice");
    // Its end is noticed without anybody telling: the namespace, which has a name, is left over.
    stage.end(first);
    stage.end(second);
    inventory.refresh_hint();
    let left = wait_for(&inventory, "its end", |snapshot| snapshot.by_key(&id).is_none());
    assert_eq!(bare(&left, &netns).map(|workload| workload.name.clone()), Some(unique("bhic")));
}
