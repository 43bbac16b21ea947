//! From what runs (inventory), what is there (links) and what is wanted (policy) to what is armed.
//! [`plan`] is pure; the control thread carries its result out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_bpf::layout::{ADDR_PROTECT, AddrValue, SegmentValue};
use bulkhead_model::{InterfaceKind, Mode, Network, Runtime, Workload, WorkloadId};
use bulkhead_policy::config::Interfaces;
use bulkhead_policy::{Action, Fail, Inspection, PolicySnapshot, Segmenter, Settings};
use bulkhead_sys::netlink::{Address, Link};

use crate::path::{Place, Wanted, inside_places, is_container_end, segment_value};
use crate::registry::{Directory, Entry, Numbers};

/// What should be, all of it.
pub struct Plan {
    pub directory: Directory,
    pub wanted: Vec<Wanted>,
    pub addresses: BTreeMap<IpAddr, AddrValue>,
    pub segments: BTreeMap<(u32, u32), SegmentValue>,
    pub segment_deny: bool,
    /// Bridges with container ports, for the guard.
    pub bridges: Vec<u32>,
    /// Their names, and those of all bridges with container ports.
    pub bridge_names: HashMap<u32, String>,
    pub problems: Vec<String>,
}

pub struct Inputs<'a> {
    pub workloads: &'a [Workload],
    pub links: &'a [Link],
    pub host_addresses: &'a [Address],
    pub policy: &'a PolicySnapshot,
    pub interfaces: &'a Interfaces,
    pub default_mode: Mode,
    /// The namespace that this agent protects from inside: a host, whatever else it is.
    pub own_netns: u64,
}

pub fn plan(inputs: &Inputs<'_>, segmenter: &mut Segmenter, numbers: &mut Numbers) -> Plan {
    let segmented = segmenter.update(inputs.workloads);
    let settings = inputs.policy.resolve(inputs.workloads);
    let mut directory = Directory {
        policy_revision: inputs.policy.revision(),
        default_mode: inputs.default_mode,
        segment_names: (0..inputs.policy.segment_rules().len()).map(|index| inputs.policy.segment_rule_name(index as u16)).collect(),
        ..Directory::default()
    };
    let mut addresses: BTreeMap<IpAddr, AddrValue> = BTreeMap::new();
    let links: HashMap<u32, &Link> = inputs.links.iter().map(|link| (link.ifindex, link)).collect();
    let mut wanted: BTreeMap<Place, Wanted> = BTreeMap::new();
    for ((workload, settings), class) in inputs.workloads.iter().zip(&settings).zip(&segmented.classes) {
        let mut workload = workload.clone();
        if matches!(workload.network, Network::Own { netns } | Network::Shared { netns, .. } if netns == inputs.own_netns) {
            // What this agent calls the host is a namespace with a cgroup of its own to others.
            if workload.runtime == Runtime::Namespace {
                continue;
            }
            // A container in it has the network of this host, wherever that is: told, and never counted as protected.
            workload.network = Network::Host;
            workload.interfaces.clear();
        }
        let id = numbers.of(&workload.key);
        let class = u32::from(class.0);
        let entry = Entry {
            id,
            workload: workload.clone(),
            mode: settings.mode,
            fail_closed: settings.fail == Fail::Closed,
            bypass: settings.inspect == Inspection::Bypass,
            class,
        };
        directory.entries.insert(id, Arc::new(entry));
        // The one that owns the namespace stands for all that share it.
        if !matches!(workload.network, Network::Own { .. }) {
            continue;
        }
        for interface in &workload.interfaces {
            // Another network of this machine may use the same addresses (nested engines, isolated namespaces): only
            // interfaces that hang on this host name anybody here.
            let here = match interface.host_ifindex {
                Some(ifindex) => links.contains_key(&ifindex),
                None => matches!(interface.kind, InterfaceKind::Macvlan | InterfaceKind::Ipvlan),
            };
            for address in interface.addresses.iter().filter(|_| here) {
                let flags = if settings.mode == Mode::Protect { ADDR_PROTECT } else { 0 };
                addresses.insert(*address, AddrValue { workload: id.0, class_id: class, flags, pad: 0 });
                directory.addresses.insert(*address, id);
            }
            if let Some(link) = interface.host_ifindex.and_then(|ifindex| links.get(&ifindex)) {
                let place = Place::Host { ifindex: link.ifindex };
                wanted.insert(place.clone(), want(place, &link.name, workload.pid, link.master, id, class, settings));
            }
        }
        for (place, name) in inside_places(&workload) {
            wanted.insert(place.clone(), want(place, &name, workload.pid, None, id, class, settings));
        }
    }
    // The host's own addresses are nobody else's.
    for address in inputs.host_addresses {
        if !address.addr.is_loopback() && !crate::supervise::is_link_local(address.addr) {
            addresses.insert(address.addr, AddrValue { workload: WorkloadId::HOST.0, class_id: WorkloadId::HOST.0, flags: 0, pad: 0 });
            directory.addresses.insert(address.addr, WorkloadId::HOST);
        }
    }
    // Ends that no workload claims (yet): armed at once, named when the inventory knows.
    let default = inputs.policy.default_settings();
    for link in inputs.links.iter().filter(|link| is_container_end(link)) {
        let place = Place::Host { ifindex: link.ifindex };
        if wanted.contains_key(&place) {
            continue;
        }
        let key = format!("link:{}", link.name);
        let id = numbers.of(&key);
        let unknown = Workload {
            key,
            name: link.name.clone(),
            image: None,
            labels: BTreeMap::new(),
            runtime: Runtime::Namespace,
            pid: 0,
            cgroup: "/".into(),
            network: Network::Own { netns: 0 },
            interfaces: Vec::new(),
            published: Vec::new(),
        };
        let settings = Settings { mode: inputs.policy.mode_of(&unknown), ..default };
        directory.entries.insert(
            id,
            Arc::new(Entry {
                id,
                workload: unknown,
                mode: settings.mode,
                fail_closed: settings.fail == Fail::Closed,
                bypass: false,
                class: WorkloadId::WORLD.0,
            }),
        );
        wanted.insert(place.clone(), want(place, &link.name, 0, link.master, id, WorkloadId::WORLD.0, &settings));
    }
    wanted.retain(|_, wanted| {
        inputs.interfaces.include.iter().any(|glob| glob.matches(&wanted.name))
            && !inputs.interfaces.exclude.iter().any(|glob| glob.matches(&wanted.name))
    });

    let is_bridge = |ifindex: &u32| links.get(ifindex).is_some_and(|link| link.kind.as_deref() == Some("bridge"));
    let bridge_names: HashMap<u32, String> = wanted
        .values()
        .filter_map(|wanted| wanted.bridge)
        .filter(is_bridge)
        .filter_map(|bridge| Some((bridge, links.get(&bridge)?.name.clone())))
        .collect();
    // Guarded are only bridges whose every port is ours: what comes from a virtual machine's port carries no mark and never will.
    let mut bridges: Vec<u32> = bridge_names
        .keys()
        .copied()
        .filter(|bridge| {
            inputs
                .links
                .iter()
                .filter(|link| link.master == Some(*bridge))
                .all(|link| wanted.contains_key(&Place::Host { ifindex: link.ifindex }))
        })
        .collect();
    bridges.sort_unstable();
    let segments = segmented
        .table
        .pairs
        .iter()
        .map(|((from, to), rules)| {
            let rules: Vec<(u8, u16, u16, bool, u16)> =
                rules.iter().map(|rule| (rule.proto, rule.port_lo, rule.port_hi, rule.action == Action::Deny, rule.rule_index)).collect();
            ((u32::from(from.0), u32::from(to.0)), segment_value(&rules))
        })
        .collect();
    Plan {
        directory,
        wanted: wanted.into_values().collect(),
        addresses,
        segments,
        segment_deny: segmented.table.default == Action::Deny,
        bridges,
        bridge_names,
        problems: segmented.problems.iter().map(ToString::to_string).collect(),
    }
}

fn want(place: Place, name: &str, pid: u32, bridge: Option<u32>, id: WorkloadId, class: u32, settings: &Settings) -> Wanted {
    let protect = settings.mode == Mode::Protect;
    Wanted {
        place,
        name: name.to_owned(),
        pid,
        bridge,
        workload: id.0,
        class,
        protect,
        // Monitor never blocks, not even for want of an answer.
        fail_closed: protect && settings.fail == Fail::Closed,
        bypass: settings.inspect == Inspection::Bypass,
        baseline: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(key: &str, runtime: Runtime, network: Network) -> Workload {
        Workload {
            key: key.to_owned(),
            name: key.to_owned(),
            image: None,
            labels: BTreeMap::new(),
            runtime,
            pid: 7,
            cgroup: "/".into(),
            network,
            interfaces: Vec::new(),
            published: Vec::new(),
        }
    }

    #[test]
    fn containers_in_the_agents_own_network_are_told_as_on_the_hosts() {
        let own = 4_026_532_000;
        let workloads = [
            workload("bare", Runtime::Namespace, Network::Own { netns: own }),
            workload("first", Runtime::Docker, Network::Own { netns: own }),
            workload("second", Runtime::Podman, Network::Own { netns: own }),
            workload("apart", Runtime::Docker, Network::Own { netns: own + 1 }),
        ];
        let config =
            bulkhead_policy::parse(&[bulkhead_policy::Source { name: "bulkhead.yaml".into(), text: "mode: protect\n".into() }]).unwrap();
        let policy = PolicySnapshot::compile(&config, 1);
        let inputs = Inputs {
            workloads: &workloads,
            links: &[],
            host_addresses: &[],
            policy: &policy,
            interfaces: &config.path.interfaces,
            default_mode: Mode::Protect,
            own_netns: own,
        };
        let plan = plan(&inputs, &mut Segmenter::new(&policy), &mut Numbers::default());
        let mut told: Vec<_> =
            plan.directory.entries.values().map(|entry| (entry.workload.key.as_str(), entry.workload.network.clone())).collect();
        told.sort_by_key(|(key, _)| *key);
        assert_eq!(told, [("apart", Network::Own { netns: own + 1 }), ("first", Network::Host), ("second", Network::Host)]);
        assert!(plan.wanted.is_empty());
    }
}
