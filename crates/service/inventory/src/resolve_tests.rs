use super::*;

const HOST: u64 = 4_026_531_840;
const WEB: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SIDE: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn process(pid: u32, netns: u64, cgroup: &str) -> Process {
    Process { pid, netns, cgroup: cgroup.into(), started: u64::from(pid) * 10, comm: format!("comm{pid}") }
}

fn container(id: &str, name: &str, pid: Option<u32>) -> Container {
    Container {
        id: id.into(),
        name: name.into(),
        image: Some("nginx:1.27".into()),
        labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
        runtime: Runtime::Docker,
        pid,
        joins: None,
        may_use_host: false,
        sandbox: false,
        published: Vec::new(),
    }
}

fn docker(containers: Vec<Container>) -> Vec<Listing> {
    vec![Listing { engine: EngineKind::Docker, containers }]
}

fn eth0(address: &str) -> NamespaceLink {
    NamespaceLink {
        ifindex: 7,
        name: "eth0".into(),
        kind: Some("veth".into()),
        mac: Some([2, 0x42, 0xc6, 0x33, 0x64, 2]),
        up: true,
        loopback: false,
        addresses: vec![address.parse().expect("an address")],
    }
}

fn lo() -> NamespaceLink {
    NamespaceLink { ifindex: 1, name: "lo".into(), up: true, loopback: true, ..NamespaceLink::default() }
}

/// A host with bridge docker0, and one namespace with eth0 whose other end is its port.
fn one_namespace(inode: u64) -> Inputs {
    Inputs {
        host_netns: HOST,
        host_links: vec![
            HostLink { ifindex: 3, name: "docker0".into(), master: None, peer: None },
            HostLink { ifindex: 8, name: "veth1a2b".into(), master: Some(3), peer: Some((inode, 7)) },
        ],
        namespaces: vec![
            Namespace { inode: HOST, paths: vec!["/run/docker/netns/default".into()], in_transition: false, links: vec![lo()] },
            Namespace {
                inode,
                paths: vec!["/run/docker/netns/9f0c".into()],
                in_transition: false,
                links: vec![lo(), eth0("198.51.100.2")],
            },
        ],
        processes: Vec::new(),
        listings: Vec::new(),
    }
}

fn by_key<'a>(resolved: &'a Resolved, key: &str) -> &'a Workload {
    resolved.workloads.iter().find(|workload| workload.key == key).unwrap_or_else(|| panic!("{key} is not among {resolved:#?}"))
}

#[test]
fn a_docker_container_on_a_bridge_is_described_from_both_sides() {
    let mut inputs = one_namespace(500);
    inputs.processes.push(process(42, 500, &format!("/docker/{WEB}")));
    inputs.listings = docker(vec![container(WEB, "web", Some(42))]);
    let resolved = resolve(&inputs);
    let expected = Workload {
        key: WEB.into(),
        name: "web".into(),
        image: Some("nginx:1.27".into()),
        labels: BTreeMap::from([("tier".into(), "front".into())]),
        runtime: Runtime::Docker,
        pid: 42,
        cgroup: format!("/docker/{WEB}"),
        network: Network::Own { netns: 500 },
        interfaces: vec![Interface {
            name: "eth0".into(),
            ifindex: 7,
            kind: InterfaceKind::Veth,
            mac: "02:42:c6:33:64:02".into(),
            addresses: vec!["198.51.100.2".parse().expect("an address")],
            host_ifindex: Some(8),
            host_name: Some("veth1a2b".into()),
            bridge: Some("docker0".into()),
        }],
        published: Vec::new(),
    };
    assert_eq!(resolved, Resolved { workloads: vec![expected], ..Resolved::default() });
}

#[test]
fn the_hosts_network_is_the_kernels_word_and_not_the_engines() {
    let mut inputs = one_namespace(500);
    inputs.processes = vec![process(42, HOST, &format!("/docker/{WEB}")), process(43, 500, &format!("/docker/{SIDE}"))];
    let mut liar = container(SIDE, "says-host", Some(43));
    liar.may_use_host = true;
    inputs.listings = docker(vec![container(WEB, "says-bridge", Some(42)), liar]);
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, WEB).network, Network::Host);
    assert!(by_key(&resolved, WEB).interfaces.is_empty());
    assert_eq!(by_key(&resolved, SIDE).network, Network::Own { netns: 500 });
}

#[test]
fn who_joins_anothers_network_is_shared_with_the_one_it_joined() {
    let mut inputs = one_namespace(500);
    // The joining one is older by process: its owner was restarted within the same namespace.
    inputs.processes = vec![process(42, 500, &format!("/docker/{SIDE}")), process(99, 500, &format!("/docker/{WEB}"))];
    let mut side = container(SIDE, "side", Some(42));
    side.joins = Some(WEB.into());
    inputs.listings = docker(vec![side, container(WEB, "web", Some(99))]);
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, SIDE).network, Network::Shared { netns: 500, with: WEB.into() });
    assert!(by_key(&resolved, SIDE).interfaces.is_empty());
    assert_eq!(by_key(&resolved, WEB).network, Network::Own { netns: 500 });
    assert_eq!(by_key(&resolved, WEB).interfaces.len(), 1);
}

#[test]
fn a_pods_network_belongs_to_its_sandbox() {
    let mut inputs = one_namespace(500);
    let path = |id: &str| format!("/kubepods.slice/kubepods-podx.slice/cri-containerd-{id}.scope");
    inputs.processes = vec![process(42, 500, &path(WEB)), process(43, 500, &path(SIDE))];
    let mut sandbox = container(SIDE, "shop/web-0", Some(43));
    sandbox.sandbox = true;
    inputs.listings =
        vec![Listing { engine: EngineKind::Containerd, containers: vec![container(WEB, "shop/web-0/nginx", Some(42)), sandbox] }];
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, WEB).network, Network::Shared { netns: 500, with: SIDE.into() });
    assert_eq!(by_key(&resolved, SIDE).network, Network::Own { netns: 500 });
}

#[test]
fn a_container_keeps_its_key_when_no_engine_tells_of_it() {
    let mut inputs = one_namespace(500);
    inputs.processes = vec![process(43, 500, &format!("/docker/{WEB}/sub")), process(42, 500, &format!("/docker/{WEB}"))];
    let alone = resolve(&inputs);
    let found = by_key(&alone, WEB);
    assert_eq!((found.name.as_str(), found.runtime, found.pid), ("111111111111", Runtime::Docker, 42));
    assert_eq!(found.interfaces.len(), 1);
    // With the engine back only what it knows is added.
    inputs.listings = docker(vec![container(WEB, "web", Some(42))]);
    assert_eq!(by_key(&resolve(&inputs), WEB).name, "web");
    // And a list without pids is as good.
    inputs.listings = docker(vec![container(WEB, "web", None)]);
    assert_eq!(by_key(&resolve(&inputs), WEB).pid, 42);
}

#[test]
fn host_network_containers_without_an_engine_are_listed_too() {
    let mut inputs = one_namespace(500);
    inputs.processes =
        vec![process(42, HOST, &format!("/machine.slice/libpod-{WEB}.scope/container")), process(43, HOST, "/system.slice/x")];
    let resolved = resolve(&inputs);
    let found = by_key(&resolved, WEB);
    assert_eq!((found.runtime, &found.network), (Runtime::Podman, &Network::Host));
    assert_eq!(resolved.workloads.len(), 2, "the container and the namespace, not the host's own service");
}

#[test]
fn a_pid_that_was_given_to_another_process_is_not_believed() {
    let mut inputs = one_namespace(500);
    // 42 is a service of the host by now; 43 is another container's.
    inputs.processes = vec![process(42, HOST, "/system.slice/cron.service"), process(43, 500, &format!("/docker/{SIDE}"))];
    inputs.listings = docker(vec![container(WEB, "gone", Some(42)), container(SIDE, "side", Some(43))]);
    let resolved = resolve(&inputs);
    assert_eq!((resolved.contradicted, resolved.unlocated, resolved.workloads.len()), (1, 1, 1));
    inputs.listings = docker(vec![container(WEB, "gone", Some(43))]);
    let resolved = resolve(&inputs);
    assert_eq!((resolved.contradicted, resolved.unlocated), (1, 1));
    assert_eq!(by_key(&resolved, SIDE).name, "222222222222", "found by its cgroup, not by the stranger's name");
}

#[test]
fn a_container_inside_a_container_is_a_namespace_of_its_own_and_takes_no_ones_name() {
    let mut inputs = one_namespace(500);
    inputs.namespaces.push(Namespace { inode: 600, paths: Vec::new(), in_transition: false, links: vec![lo(), eth0("198.51.100.66")] });
    inputs.processes = vec![
        process(42, 500, &format!("/docker/{WEB}")),
        // Its own Docker's container, or somebody who made a directory with another's id.
        process(50, 600, &format!("/docker/{WEB}/docker/{SIDE}")),
    ];
    inputs.listings = docker(vec![container(WEB, "dind", Some(42))]);
    let resolved = resolve(&inputs);
    assert_eq!(resolved.workloads.iter().map(|w| w.key.as_str()).collect::<Vec<_>>(), [WEB, "netns:600"]);
    assert_eq!((by_key(&resolved, "netns:600").name.as_str(), by_key(&resolved, "netns:600").pid), ("comm50", 50));
}

#[test]
fn a_bare_namespace_is_named_by_its_mount_else_its_process_else_its_number() {
    let named = |paths: &[&str], processes: Vec<Process>| {
        let mut inputs = one_namespace(500);
        inputs.namespaces.last_mut().expect("two").paths = paths.iter().map(|path| (*path).to_owned()).collect();
        inputs.processes = processes;
        let resolved = resolve(&inputs);
        by_key(&resolved, "netns:500").name.clone()
    };
    let inside = || vec![process(42, 500, "/"), process(41, 500, "/")];
    assert_eq!(named(&["/run/docker/netns/9f", "/run/netns/blue"], inside()), "blue");
    assert_eq!(named(&["/run/docker/netns/9f"], inside()), "comm41");
    assert_eq!(named(&["/run/docker/netns/9f"], Vec::new()), "9f");
    assert_eq!(named(&[], Vec::new()), "netns:500");
    let mut rude = process(41, 500, "/");
    rude.comm = "a\u{1b}[2J\nb".into();
    assert_eq!(named(&[], vec![rude]), "a\u{fffd}[2J\u{fffd}b");
}

#[test]
fn namespaces_without_interfaces_are_listed_and_idle_tunnels_are_not() {
    let mut inputs = one_namespace(500);
    let idle = NamespaceLink { ifindex: 2, name: "sit0".into(), kind: Some("sit".into()), ..NamespaceLink::default() };
    let down = NamespaceLink { ifindex: 3, name: "mac0".into(), kind: Some("macvlan".into()), ..NamespaceLink::default() };
    let tap = NamespaceLink { ifindex: 4, name: "tap0".into(), kind: Some("tun".into()), up: true, ..NamespaceLink::default() };
    inputs.namespaces.push(Namespace { inode: 600, paths: Vec::new(), in_transition: false, links: vec![lo(), idle, down, tap] });
    inputs.namespaces.push(Namespace { inode: 700, paths: vec!["/run/netns/empty".into()], in_transition: false, links: vec![lo()] });
    inputs.namespaces.push(Namespace { inode: 800, paths: Vec::new(), in_transition: false, links: vec![lo()] });
    inputs.processes.push(process(42, 800, "/"));
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, "netns:700").interfaces, []);
    assert_eq!(by_key(&resolved, "netns:800").interfaces, []);
    let kinds: Vec<_> = by_key(&resolved, "netns:600").interfaces.iter().map(|i| (i.name.as_str(), i.kind, i.host_ifindex)).collect();
    assert_eq!(kinds, [("mac0", InterfaceKind::Macvlan, None), ("tap0", InterfaceKind::Other, None)]);
}

#[test]
fn the_empty_mount_that_docker_keeps_after_a_container_is_not_a_workload() {
    let mut inputs = one_namespace(500);
    inputs.namespaces[1].links = vec![lo()];
    assert_eq!(resolve(&inputs).workloads, []);
    inputs.namespaces[1].links = vec![lo(), eth0("198.51.100.2")];
    assert_eq!(resolve(&inputs).workloads.len(), 1, "as long as it has an interface it is one");
    inputs.namespaces[1].in_transition = true;
    assert_eq!(resolve(&inputs).workloads, [], "but not while a container is being made or removed");
    inputs.namespaces[1].paths.push("/run/netns/named".into());
    assert_eq!(resolve(&inputs).workloads.len(), 1);
    inputs.namespaces[1].paths.clear();
    inputs.processes.push(process(42, 500, "/"));
    assert_eq!(resolve(&inputs).workloads.len(), 1);
}

#[test]
fn two_engines_that_claim_one_container_are_told_apart_by_precedence() {
    let mut inputs = one_namespace(500);
    inputs.processes.push(process(42, 500, &format!("/docker/{WEB}")));
    inputs.listings = vec![
        Listing { engine: EngineKind::PodmanStorage, containers: vec![container(WEB, "files", None), container(SIDE, "stopped", None)] },
        Listing { engine: EngineKind::Containerd, containers: vec![container(WEB, "containerd", Some(42))] },
        Listing { engine: EngineKind::Docker, containers: vec![container(WEB, "docker", Some(42))] },
    ];
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, WEB).name, "docker");
    assert_eq!((resolved.claimed_twice, resolved.unlocated), (1, 0));
}

#[test]
fn an_id_that_looks_like_a_namespace_is_refused() {
    let mut inputs = one_namespace(500);
    inputs.processes.push(process(42, 500, "/default/x"));
    inputs.listings = vec![Listing {
        engine: EngineKind::Containerd,
        containers: vec![container("netns:500", "x", Some(42)), container("", "y", Some(42))],
    }];
    let resolved = resolve(&inputs);
    assert_eq!(by_key(&resolved, "netns:500").runtime, Runtime::Namespace);
    assert_eq!(resolved.contradicted, 2);
}

#[test]
fn a_flood_of_interfaces_does_not_push_out_the_one_that_leads_out() {
    let mut inputs = one_namespace(500);
    let namespace = inputs.namespaces.last_mut().expect("two");
    namespace.links.extend((100..1100).map(|ifindex| NamespaceLink {
        ifindex,
        name: format!("d{ifindex}"),
        kind: Some("dummy".into()),
        up: true,
        ..NamespaceLink::default()
    }));
    // The way out gets the highest index.
    namespace.links[1].ifindex = 5000;
    namespace.links[1].addresses = (0..200).map(|n| IpAddr::from([198, 51, 100, n])).collect();
    inputs.host_links[1].peer = Some((500, 5000));
    let resolved = resolve(&inputs);
    let interfaces = &by_key(&resolved, "netns:500").interfaces;
    assert_eq!(interfaces.len(), INTERFACES_MAX);
    let way_out = interfaces.last().expect("some");
    assert_eq!((way_out.host_ifindex, way_out.addresses.len()), (Some(8), ADDRESSES_MAX));
    assert_eq!(resolved.beyond_cap, 1001 - INTERFACES_MAX as u64 + 200 - ADDRESSES_MAX as u64);
}

#[test]
fn more_workloads_than_fit_lose_those_without_interfaces_first() {
    let mut inputs = one_namespace(500);
    inputs.namespaces.extend((0..WORKLOADS_MAX as u64 + 9).map(|n| Namespace {
        inode: 10_000 + n,
        paths: vec![format!("/run/netns/{n}")],
        in_transition: false,
        links: Vec::new(),
    }));
    let resolved = resolve(&inputs);
    assert_eq!((resolved.workloads.len(), resolved.beyond_cap), (WORKLOADS_MAX, 10));
    assert!(resolved.workloads.iter().any(|workload| workload.key == "netns:500"));
    assert!(resolved.workloads.is_sorted_by(|a, b| a.key < b.key));
}

#[test]
fn long_names_are_cut() {
    assert_eq!(text(&"é".repeat(2000)).len(), TEXT_BYTES_MAX);
    assert_eq!(text(&"x".repeat(2000)).len(), TEXT_BYTES_MAX);
}

/// xorshift64*: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// A host of few ids, namespaces and pids, so that everything collides with everything.
fn random_inputs(random: &mut Random) -> Inputs {
    let ids: Vec<String> = (0..6).map(|n| char::from(b'a' + n).to_string().repeat(64)).collect();
    let id = |random: &mut Random| ids[random.below(6) as usize].clone();
    let netns = |random: &mut Random| [HOST, 500, 501, 502, 503][random.below(5) as usize];
    let mut inputs = Inputs { host_netns: HOST, ..Inputs::default() };
    for inode in [HOST, 500, 501, 502, 503] {
        if random.below(4) > 0 {
            let links = (1..=random.below(4) as u32).map(|ifindex| NamespaceLink {
                ifindex,
                name: format!("if{ifindex}"),
                kind: Some(["veth", "macvlan", "dummy"][random.below(3) as usize].into()),
                up: random.below(2) == 0,
                loopback: ifindex == 1,
                ..NamespaceLink::default()
            });
            inputs.namespaces.push(Namespace { inode, paths: Vec::new(), in_transition: false, links: links.collect() });
        }
    }
    for ifindex in 1..=random.below(6) as u32 {
        let peer = (random.below(3) > 0).then(|| (netns(random), random.below(4) as u32 + 1));
        inputs.host_links.push(HostLink { ifindex, name: format!("h{ifindex}"), master: Some(random.below(6) as u32), peer });
    }
    // Two host ends of one interface cannot be.
    let mut peers = BTreeSet::new();
    inputs.host_links.retain(|link| link.peer.is_none_or(|peer| peers.insert(peer)));
    for pid in 1..=random.below(10) as u32 {
        let cgroup = match random.below(5) {
            0 => "/".to_owned(),
            1 => format!("/docker/{}", id(random)),
            2 => format!("/docker/{}/docker/{}", id(random), id(random)),
            3 => format!("/batch/{}", id(random)),
            _ => format!("/machine.slice/libpod-{}.scope", id(random)),
        };
        let mut process = process(pid, netns(random), &cgroup);
        process.started = random.below(4);
        inputs.processes.push(process);
    }
    for engine in [EngineKind::Docker, EngineKind::Podman, EngineKind::Containerd, EngineKind::PodmanStorage] {
        let mut containers = BTreeMap::new();
        for _ in 0..random.below(5) {
            let mut container = container(&id(random), engine.name(), (random.below(3) > 0).then(|| random.below(12) as u32));
            container.joins = (random.below(3) == 0).then(|| id(random));
            container.sandbox = random.below(4) == 0;
            container.may_use_host = random.below(2) == 0;
            containers.insert(container.id.clone(), container);
        }
        inputs.listings.push(Listing { engine, containers: containers.into_values().collect() });
    }
    inputs
}

#[test]
fn every_namespace_has_one_owner_and_nothing_of_the_host_is_anyones() {
    let mut random = Random(0x5eed);
    for round in 0..4000 {
        let inputs = random_inputs(&mut random);
        let resolved = resolve(&inputs);
        let context = || format!("round {round}: {inputs:#?} gave {resolved:#?}");
        assert!(resolved.workloads.is_sorted_by(|a, b| a.key < b.key), "sorted, each key once; {}", context());
        let mut owners = BTreeMap::new();
        let mut host_ends = BTreeSet::new();
        for workload in &resolved.workloads {
            match &workload.network {
                Network::Own { netns } => {
                    assert_ne!(*netns, HOST, "{}", context());
                    assert_eq!(owners.insert(*netns, workload.key.as_str()), None, "two owners; {}", context());
                }
                Network::Shared { .. } | Network::Host => assert!(workload.interfaces.is_empty(), "{}", context()),
            }
            for end in workload.interfaces.iter().filter_map(|interface| interface.host_ifindex) {
                assert!(host_ends.insert(end), "one end twice; {}", context());
            }
            if let Some(process) = inputs.processes.iter().find(|process| process.pid == workload.pid) {
                let host = process.netns == HOST;
                assert_eq!(workload.network == Network::Host, host, "{}", context());
            }
        }
        for workload in &resolved.workloads {
            if let Network::Shared { netns, with } = &workload.network {
                assert_eq!(owners.get(netns), Some(&with.as_str()), "{}", context());
                assert_ne!(with, &workload.key);
            }
        }
        for namespace in inputs.namespaces.iter().filter(|namespace| namespace.inode != HOST) {
            let inhabited = inputs.processes.iter().any(|process| process.netns == namespace.inode);
            let leads_out = namespace.links.iter().any(|link| !link.loopback && link.up);
            let expected = inhabited || leads_out;
            assert!(!expected || owners.contains_key(&namespace.inode), "{} is nobody's; {}", namespace.inode, context());
        }
        let mut shuffled = inputs.clone();
        random.shuffle(&mut shuffled.host_links);
        random.shuffle(&mut shuffled.namespaces);
        random.shuffle(&mut shuffled.processes);
        random.shuffle(&mut shuffled.listings);
        assert_eq!(resolve(&shuffled), resolved, "order changed the result; {}", context());
    }
}
