//! The fallback path, for kernels without tcx, forced here by configuration: the same traffic, verdicts and failures as on the
//! first path, as far as netfilter goes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bulkhead_api::{PathKind, PathTechnique};
use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{self, Net};
use bulkhead_kit::process::SIGTERM;
use bulkhead_kit::traffic::{Beside, PATIENCE, Receiver, SILENCE, Service, Writes, known_bytes, tcp_exchange, udp_send};
use bulkhead_kit::{root_or_not_run, wait_until};
use bulkhead_model::{EventBody, Mode};
use bulkhead_sys::iptables::{self, Family};
use bulkhead_sys::netns::Netns;

const BREACH: &[u8] = b"BULKHEAD-TEST-BREACH";
const RULES: &str = r#"
drop tcp any any -> any any (msg:"breach in a stream"; content:"BULKHEAD-TEST-BREACH"; sid:1000001; rev:1;)
drop udp any any -> any any (msg:"breach in a datagram"; content:"BULKHEAD-TEST-BREACH"; sid:1000002; rev:1;)
reject tcp any any -> any any (msg:"rejected"; content:"BULKHEAD-TEST-REJECT"; sid:1000005; rev:1;)
reject udp any any -> any any (msg:"rejected datagram"; content:"BULKHEAD-TEST-REJECT"; sid:1000006; rev:1;)
"#;
const OPEN: &str = "mode: protect\npath:\n  kind: nfqueue\n";
const CLOSED: &str = "mode: protect\nfail: closed\nfail-after: 200 ms\npath:\n  kind: nfqueue\n";

/// One agent at a time: br_netfilter's switches are one for the machine.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn agent(tag: &str, net: &Net, config: &str) -> Agent {
    let agent = Agent::start(&AgentPlan { tag, host: Some(net.host()), config, rules: RULES, ..AgentPlan::default() });
    let status = agent.client().status().expect("status");
    assert!(status.path.kind == PathTechnique::Nfqueue && status.enforcing, "{status:#?}");
    agent
}

fn counter(agent: &Agent, name: &str) -> u64 {
    let status = agent.client().status().unwrap_or_else(|error| panic!("no status: {error}"));
    status.engine.0.get(name).copied().unwrap_or_else(|| panic!("no counter {name}: {status:#?}"))
}

/// The host once its links have settled.
fn settled(at: &Netns) -> HostState {
    let mut before = HostState::take(at);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(300));
        let now = HostState::take(at);
        if HostState::difference(&before, &now).is_empty() {
            return now;
        }
        before = now;
    }
    before
}

fn clean_then_breach(from: &Netns, to: &Netns, ip: IpAddr, what: &str) {
    let bytes = known_bytes(7, 200_000);
    let echo = Receiver::tcp(to, 0, Service::Echo);
    let answer = tcp_exchange(from, SocketAddr::new(ip, echo.port), &bytes, &Writes::Whole, PATIENCE);
    assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{what}: clean bytes did not pass whole: {:?}", answer.map(|a| a.len()));
    let sink = Receiver::tcp(to, 0, Service::Sink);
    let evil = [b"some bytes before ".as_slice(), BREACH].concat();
    for writes in [Writes::Whole, Writes::At(vec![25]), Writes::At(vec![20, 30, 35])] {
        let _ = tcp_exchange(from, SocketAddr::new(ip, sink.port), &evil, &writes, Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(!sink.got().iter().any(|got| got.ends_with(BREACH)), "{what}: the breach reached the receiver");
}

#[test]
fn every_kind_of_path_is_inspected_and_counted_twice() {
    if !root_or_not_run("every_kind_of_path_is_inspected_and_counted_twice") {
        return;
    }
    let _alone = alone();
    let tag = "nfqall";
    // Without a macvlan: one on top of a bridge makes it promiscuous, and the kernel drops the clones of new flows.
    let on = |name, bridge, last| net::on_bridge(tag, name, bridge, last);
    let net = Net::build(tag, vec![on("client", 0, 2), on("server", 0, 3), on("far", 1, 2), net::outside(tag)]);
    let nat = format!(
        "*nat\n-A PREROUTING -p tcp --dport 8088 -j DNAT --to-destination {0}:80\n-A POSTROUTING -d {0} -p tcp --dport 80 -j MASQUERADE\nCOMMIT\n",
        net.node("server").v4
    );
    let family = Family::V4;
    net.host().run(|| iptables::restore(family, &nat, None)).expect("namespace").expect("nat rules");
    let before = settled(net.host());
    let outside = net.node("outside").host_link.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
    let config = format!("{OPEN}  interfaces:\n    exclude: [\"{outside}\"]\ninspect:\n  stream-depth: 1 GiB\n");
    let mut agent = agent("nfqall", &net, &config);
    let status = agent.client().status().expect("status");
    assert_eq!(status.path.interfaces_armed, 3);
    // It says what it does not see.
    assert!(status.degraded.iter().any(|line| line.contains("only IP is seen")), "{:?}", status.degraded);
    for (from, to) in [("client", "server"), ("client", "far"), ("far", "server"), ("client", "outside"), ("outside", "server")] {
        let target = net.node(to);
        for ip in [IpAddr::from(target.v4), target.v6.into()] {
            clean_then_breach(&net.node(from).netns, &target.netns, ip, &format!("{from} to {to} at {ip}"));
        }
    }
    let (client, server) = (net.node("client"), net.node("server"));
    for ip in [IpAddr::from(net::v4(0, 1)), net::v6(0, 1).into()] {
        clean_then_breach(&server.netns, net.host(), ip, &format!("container to host at {ip}"));
    }
    for ip in [IpAddr::from(server.v4), server.v6.into()] {
        clean_then_breach(net.host(), &server.netns, ip, &format!("host to container at {ip}"));
    }
    // A published port, from the world, and from the next bridge by the host's address.
    let echo = Receiver::tcp(&server.netns, 80, Service::Echo);
    for (from, gateway) in [("outside", IpAddr::from([192, 0, 2, 1])), ("far", net::v4(1, 1).into())] {
        let (from, target) = (&net.node(from).netns, SocketAddr::new(gateway, 8088));
        let bytes = known_bytes(3, 100_000);
        let answer = tcp_exchange(from, target, &bytes, &Writes::Whole, PATIENCE);
        assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "published port: {:?}", answer.map(|a| a.len()));
        let count = echo.got().len();
        let _ = tcp_exchange(from, target, BREACH, &Writes::At(vec![9]), Duration::from_millis(300));
        assert!(echo.got().iter().skip(count).all(|got| got != BREACH), "the breach came through the published port");
    }
    assert!(counter(&agent, "queue.gso") > 0, "superpackets come whole");
    assert_eq!(counter(&agent, "queue.panics"), 0);

    let report = agent.client().coverage().expect("coverage");
    println!("coverage {:.3} %, interfaces {:?}", report.total_percent, report.interfaces);
    assert!(report.complete && report.total_percent > 99.5 && report.interfaces.len() == 3, "{report:#?}");
    for kind in [PathKind::SameBridge, PathKind::CrossBridge, PathKind::HostToContainer, PathKind::ContainerToHost] {
        let of = || report.pairs.iter().filter(|pair| pair.kind == kind);
        let inspected: u64 = of().map(|pair| pair.inspected_bytes).sum();
        assert!(inspected > 200_000, "{}: {inspected} bytes inspected\n{report:#?}", kind.name());
        assert!(of().map(|pair| pair.dropped_bytes()).sum::<u64>() > 0, "{}: nothing dropped", kind.name());
    }
    // The second counting notices when the first one is blind.
    let switch =
        |value: &str| net.host().run(|| bulkhead_sys::sysctl::write("net.bridge.bridge-nf-call-iptables", value)).expect("namespace");
    switch("0").expect("switching br_netfilter off");
    let blind = Receiver::tcp(&server.netns, 0, Service::Echo);
    let bytes = known_bytes(5, 300_000);
    let answer = tcp_exchange(&client.netns, SocketAddr::new(server.v4.into(), blind.port), &bytes, &Writes::Whole, PATIENCE);
    let report = agent.client().coverage().expect("coverage");
    let status = agent.client().status().expect("status");
    switch("1").expect("switching br_netfilter on");
    assert!(answer.is_ok_and(|answer| answer == bytes));
    let gap: u64 = report.interfaces.iter().map(|interface| interface.gap_bytes).sum();
    assert!(!report.complete && gap > 500_000, "{gap} bytes missed\n{report:#?}");
    assert!(status.degraded.iter().any(|line| line.contains("br_netfilter is off")), "{:?}", status.degraded);

    agent.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "nfqall"), "");
}

#[test]
fn verdicts_segments_and_identity_are_as_on_the_first_path() {
    if !root_or_not_run("verdicts_segments_and_identity_are_as_on_the_first_path") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("nfqverd");
    let segments = "segments:\n  rules:\n    - name: no-db-for-clients\n      from: {name: \"*-client\"}\n      to: {name: \"*-server\"}\n      proto: tcp\n      ports: [5432]\n      action: deny\n";
    let agent = agent("nfqverd", &net, &format!("{}{segments}", OPEN.replace("protect", "monitor")));
    let (client, server, far) = (net.node("client"), net.node("server"), net.node("far"));
    let sink = Receiver::tcp(&server.netns, 0, Service::Sink);
    let target = SocketAddr::new(server.v4.into(), sink.port);
    tcp_exchange(&client.netns, target, BREACH, &Writes::Whole, PATIENCE).expect("monitor blocks nothing");
    assert_eq!(sink.wait_for(1), [BREACH]);
    let event = agent.wait_event(
        "would have blocked",
        |event| matches!(&event.body, EventBody::Alert { alert, .. } if alert.would_have_blocked && alert.signature_id == 1_000_001),
    );
    let pair = event.workload.expect("who is on both ends");
    assert_eq!((pair.src.name.as_str(), pair.dest.name.as_str()), (client.name.as_str(), server.name.as_str()));
    let db = Receiver::tcp(&server.netns, 5432, Service::Echo);
    let to_db = SocketAddr::new(server.v4.into(), db.port);
    assert_eq!(tcp_exchange(&client.netns, to_db, b"select", &Writes::Whole, PATIENCE).expect("monitor blocks no segment"), b"select");
    agent.wait_event(
        "the segment would have blocked",
        |event| matches!(&event.body, EventBody::Drop { drop, .. } if drop.verdict == "would-block" && drop.reason == "segment"),
    );

    // A connection from before, in the kernel's hands or not, meets the segments of the new policy.
    let mut old = client.netns.run(|| TcpStream::connect_timeout(&to_db, PATIENCE)).expect("namespace").expect("connection");
    old.set_read_timeout(Some(Duration::from_millis(500))).expect("socket option");
    let say = |stream: &mut TcpStream| stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut [0; 5]));
    say(&mut old).expect("in monitor it is answered");
    agent.set_mode(Mode::Protect);
    assert!(say(&mut old).is_err(), "an old connection goes on although a segment denies it");
    let begun = Instant::now();
    assert!(
        tcp_exchange(&client.netns, to_db, b"select", &Writes::Whole, Duration::from_millis(400)).is_err(),
        "the segment lets it through"
    );
    assert!(begun.elapsed() >= Duration::from_millis(400), "the first packet is dropped, not answered");
    assert_eq!(tcp_exchange(&far.netns, to_db, b"select", &Writes::Whole, PATIENCE).expect("another workload"), b"select");
    let denied = agent.wait_event("the segment blocked", |event| {
        matches!(&event.body, EventBody::Drop { drop, .. } if drop.verdict == "blocked" && drop.reason == "segment" && drop.explanation.contains("no-db-for-clients"))
    });
    let pair = denied.workload.expect("who is on both ends");
    assert_eq!((pair.src.name.as_str(), pair.dest.name.as_str()), (client.name.as_str(), server.name.as_str()));

    let _ = tcp_exchange(&client.netns, target, BREACH, &Writes::At(vec![5, 11]), Duration::from_millis(300));
    std::thread::sleep(SILENCE);
    assert!(!sink.got().iter().skip(1).any(|got| got == BREACH), "protect lets it through");
    agent.wait_event(
        "blocked",
        |event| matches!(&event.body, EventBody::Drop { drop, .. } if drop.verdict == "blocked" && drop.reason == "rule"),
    );

    // A rejected flow ends at once for both sides, on one bridge and over two.
    for from in [client, far] {
        for ip in [IpAddr::from(server.v4), server.v6.into()] {
            let what = format!("{} to {ip}", from.name);
            let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
            let connect = || TcpStream::connect_timeout(&SocketAddr::new(ip, echo.port), PATIENCE);
            let mut stream = from.netns.run(connect).expect("namespace").expect("connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
            say(&mut stream).expect("it is answered");
            let refused = stream.write_all(b"BULKHEAD-TEST-REJECT").and_then(|()| stream.read_exact(&mut [0]));
            assert!(refused.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "{what}: {refused:?}");
            // The receiver's side has ended too, without the bytes, although its sender said nothing.
            wait_until(&format!("{what}: the receiver's end"), PATIENCE, || !echo.got().is_empty());
            assert_eq!(echo.got(), [b"hello"], "{what}");
        }
    }
    assert!(counter(&agent, "queue.injected") >= 8);
    assert_eq!(counter(&agent, "queue.inject_failed"), 0);
    // A datagram is answered by an unreachable, which its sender's socket is told of.
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let socket = client.netns.run(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("namespace").expect("socket");
    socket.connect((server.v4, udp.port)).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
    socket.send(b"BULKHEAD-TEST-REJECT").expect("sending");
    let told = socket.recv(&mut [0; 8]);
    assert!(told.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused), "{told:?}");
    assert!(udp.got().is_empty());

    // Somebody else empties the table: what was there is put back.
    let empty = "*mangle\n-F\n-X\nCOMMIT\n";
    for family in Family::BOTH {
        net.host().run(|| iptables::restore(family, empty, None)).expect("namespace").expect("emptying the table");
    }
    let evil = || {
        let count = sink.got().len();
        let _ = tcp_exchange(&client.netns, target, BREACH, &Writes::Whole, Duration::from_millis(300));
        sink.got().iter().skip(count).any(|got| got == BREACH)
    };
    wait_until("the breach is blocked again", Duration::from_secs(30), || !evil());
}

#[test]
fn a_new_container_is_inspected_from_its_first_packet_here_too() {
    if !root_or_not_run("a_new_container_is_inspected_from_its_first_packet_here_too") {
        return;
    }
    let _alone = alone();
    let mut net = net::one_bridge("nfqnew");
    let agent = agent("nfqnew", &net, OPEN);
    let server = net.node("server").v4;
    let udp = Receiver::udp(&net.node("server").netns, 0, Service::Sink);
    let target = SocketAddr::new(server.into(), udp.port);
    for round in 0..5u8 {
        let name = format!("n{round}");
        net.add(net::on_bridge("nfqnew", &name, 0, 20 + round));
        let node = net.node(&name);
        let end = Instant::now() + Duration::from_millis(150);
        while Instant::now() < end {
            let _ = udp_send(&node.netns, target, &[BREACH]);
        }
        wait_until("a clean datagram of the new container", PATIENCE, || {
            let _ = udp_send(&node.netns, target, &[b"clean"]);
            udp.got().iter().any(|got| got == b"clean")
        });
        assert!(udp.got().iter().all(|got| got != BREACH), "round {round}: a first packet passed uninspected");
        wait_until("it is listed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed == 3));
        net.fabric.remove_node(&format!("nfqnew-{name}")).expect("removing");
    }
}

#[test]
fn with_fail_open_no_connection_is_lost() {
    if !root_or_not_run("with_fail_open_no_connection_is_lost") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("nfqopen");
    let before = settled(net.host());
    let (client, server, far) = (net.node("client"), net.node("server"), net.node("far"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let talks = [Beside::talk(&client.netns, target), Beside::talk(&far.netns, target)];
    let connections = Beside::connect(&client.netns, target);
    let mut agent = agent("nfqopen", &net, OPEN);
    let goes_on = |when: &str| {
        std::thread::sleep(Duration::from_millis(300));
        let counts: Vec<u64> = talks.iter().chain([&connections]).map(|beside| beside.seen().answers).collect();
        wait_until(&format!("{when}: all go on"), PATIENCE, || {
            talks.iter().chain([&connections]).zip(&counts).all(|(beside, count)| beside.seen().answers > *count)
        });
        let longest = talks.iter().map(Beside::forget_longest).max().unwrap_or_default();
        println!("{when}: longest answer {longest:?}, new connection {:?}", connections.forget_longest());
    };
    goes_on("armed");
    agent.process().kill();
    goes_on("killed");
    agent.restart(&[]);
    goes_on("started again");
    agent.process().stop();
    // More than the queue holds, before the kernel takes the agent for hung.
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let to = SocketAddr::new(server.v4.into(), udp.port);
    let payload = [b'x'; 32];
    let some: Vec<&[u8]> = vec![&payload; 10_000];
    let _ = udp_send(&client.netns, to, &some);
    std::thread::sleep(SILENCE);
    println!("hung: {} of 10,000 datagrams passed a queue of 4,096 that nobody reads", udp.got().len());
    goes_on("hung");
    agent.process().go_on();
    goes_on("woken");
    agent.process().end(SIGTERM, PATIENCE);
    goes_on("ended");
    agent.restart(&[]);
    goes_on("third agent");
    let evil = tcp_exchange(&client.netns, target, BREACH, &Writes::At(vec![4]), Duration::from_millis(300));
    assert!(evil.is_err(), "the third agent judges");
    agent.down();
    goes_on("down");
    for seen in talks.map(Beside::end).into_iter().chain([connections.end()]) {
        assert!(seen.failures.is_empty() && seen.answers > 20, "{seen:?}");
    }
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "nfqopen"), "");
}

#[test]
fn with_fail_closed_nothing_passes_unjudged() {
    if !root_or_not_run("with_fail_closed_nothing_passes_unjudged") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("nfqshut");
    let before = settled(net.host());
    let (client, server) = (net.node("client"), net.node("server"));
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let to = SocketAddr::new(server.v4.into(), udp.port);
    let mut agent = agent("nfqshut", &net, CLOSED);
    let evil = Beside::datagrams(&client.netns, to, BREACH);
    let clean_passes = |when: &str| {
        let count = udp.got().len();
        wait_until(&format!("{when}: a clean datagram passes"), PATIENCE, || {
            let _ = udp_send(&client.netns, to, &[b"clean"]);
            udp.got().len() > count
        });
    };
    let shut = |when: &str| {
        std::thread::sleep(SILENCE);
        let count = udp.got().len();
        let payload = [b'x'; 32];
        let some: Vec<&[u8]> = vec![&payload; 6000];
        let _ = udp_send(&client.netns, to, &some);
        std::thread::sleep(SILENCE);
        assert_eq!(udp.got().len(), count, "{when}: unjudged datagrams passed");
    };
    clean_passes("armed");
    agent.process().kill();
    shut("killed");
    agent.restart(&[]);
    clean_passes("started again");
    agent.process().stop();
    shut("hung, within the time that the kernel waits for it");
    std::thread::sleep(Duration::from_secs(1));
    shut("hung");
    agent.process().go_on();
    clean_passes("woken");
    agent.process().end(SIGTERM, PATIENCE);
    shut("ended");
    agent.restart(&[]);
    clean_passes("third agent");
    let sent = evil.end().answers;
    std::thread::sleep(SILENCE);
    let passed = udp.got().iter().filter(|got| *got == BREACH).count();
    println!("{sent} breaches sent through a kill, a hang, a stop and two starts: {passed} passed");
    assert!(sent > 500);
    assert_eq!(passed, 0);
    // A crash, and then `down` without an agent.
    agent.process().kill();
    agent.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "nfqshut"), "");
}
