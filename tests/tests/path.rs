//! The path on the running kernel: every kind of way a packet can take is inspected, blocked where it must be, whole where it
//! may pass, accounted for in bytes, and survives the agent's end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bulkhead_api::{PairCoverage, PathKind};
use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{self, Net, Node};
use bulkhead_kit::packet::{self, Ends, Ipv4, Ipv6};
use bulkhead_kit::traffic::{PATIENCE, Receiver, SILENCE, Service, Talk, Writes, known_bytes, send_frames, tcp_exchange, udp_send};
use bulkhead_kit::{root_or_not_run, wait_until};
use bulkhead_model::{EventBody, Mode};

/// Nothing but the inspection finds it, and only in reassembled bytes.
const BREACH: &[u8] = b"BULKHEAD-TEST-BREACH";
const RULES: &str = r#"
drop tcp any any -> any any (msg:"breach in a stream"; content:"BULKHEAD-TEST-BREACH"; sid:1000001; rev:1;)
drop udp any any -> any any (msg:"breach in a datagram"; content:"BULKHEAD-TEST-BREACH"; sid:1000002; rev:1;)
drop icmp any any -> any any (msg:"breach in an echo"; content:"BULKHEAD-TEST-BREACH"; sid:1000003; rev:1;)
drop ip any any -> any any (msg:"breach in any protocol"; content:"BULKHEAD-TEST-BREACH"; sid:1000004; rev:1;)
reject tcp any any -> any any (msg:"rejected"; content:"BULKHEAD-TEST-REJECT"; sid:1000005; rev:1;)
"#;
const PROTECT: &str = "mode: protect\npath:\n  guard-unknown: drop\n";

/// One at a time: an agent arms macvlan interfaces in every namespace of the machine, also those of a test beside it.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn agent(tag: &str, net: &Net, config: &str) -> Agent {
    Agent::start(&AgentPlan { tag, host: Some(net.host()), config, rules: RULES, ..AgentPlan::default() })
}

fn armed(agent: &Agent, count: u32) {
    wait_until(&format!("{count} interfaces armed"), PATIENCE, || {
        agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= count)
    });
}

fn ends(from: &Node, to: &Node, six: bool) -> Ends {
    let pick = |n: &Node| if six { IpAddr::from(n.v6) } else { n.v4.into() };
    Ends { src_mac: from.mac, dst_mac: to.mac, src: pick(from), dst: pick(to) }
}

fn clean_then_breach(from: &bulkhead_sys::netns::Netns, to: &bulkhead_sys::netns::Netns, ip: IpAddr, what: &str) {
    let bytes = known_bytes(7, 200_000);
    let echo = Receiver::tcp(to, 0, Service::Echo);
    let target = SocketAddr::new(ip, echo.port);
    let answer = tcp_exchange(from, target, &bytes, &Writes::Whole, PATIENCE);
    assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{what}: clean bytes did not pass whole: {:?}", answer.map(|a| a.len()));
    let sink = Receiver::tcp(to, 0, Service::Sink);
    let target = SocketAddr::new(ip, sink.port);
    let evil = [b"some bytes before ".as_slice(), BREACH].concat();
    for writes in [Writes::Whole, Writes::At(vec![25]), Writes::At(vec![20, 30, 35])] {
        let _ = tcp_exchange(from, target, &evil, &writes, Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(!sink.got().iter().any(|got| got.ends_with(BREACH)), "{what}: the breach reached the receiver");
}

#[test]
fn every_kind_of_path_is_inspected_and_accounted_for() {
    if !root_or_not_run("every_kind_of_path_is_inspected_and_accounted_for") {
        return;
    }
    let _alone = alone();
    let net = net::everything("pathall");
    // The world outside is not a container: its link is left out, so that only the container's side judges.
    let outside = net.node("outside").host_link.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
    let config = format!("mode: protect\npath:\n  interfaces:\n    exclude: [\"{outside}\"]\ninspect:\n  stream-depth: 1 GiB\n");
    let agent = agent("pathall", &net, &config);
    armed(&agent, 4);
    for (from, to) in [
        ("client", "server"),
        ("client", "far"),
        ("far", "server"),
        ("macvlan", "server"),
        ("client", "macvlan"),
        ("client", "outside"),
        ("outside", "server"),
    ] {
        let target = net.node(to);
        for ip in [IpAddr::from(target.v4), target.v6.into()] {
            clean_then_breach(&net.node(from).netns, &target.netns, ip, &format!("{from} to {to} at {ip}"));
        }
    }
    let server = net.node("server");
    for ip in [IpAddr::from(net::v4(0, 1)), net::v6(0, 1).into()] {
        clean_then_breach(&server.netns, net.host(), ip, &format!("container to host at {ip}"));
    }
    for ip in [IpAddr::from(server.v4), server.v6.into()] {
        clean_then_breach(net.host(), &server.netns, ip, &format!("host to container at {ip}"));
    }
    let report = agent.client().coverage().expect("coverage");
    assert!(report.complete && report.total_percent > 99.999, "{report:#?}");
    for kind in [PathKind::SameBridge, PathKind::CrossBridge, PathKind::HostToContainer, PathKind::ContainerToHost, PathKind::Macvlan] {
        let inspected: u64 = report.pairs.iter().filter(|pair| pair.kind == kind).map(|pair| pair.inspected_bytes).sum();
        assert!(inspected > 200_000, "{}: {inspected} bytes inspected\n{report:#?}", kind.name());
        let dropped: u64 = report.pairs.iter().filter(|pair| pair.kind == kind).map(|pair| pair.dropped_bytes()).sum();
        assert!(dropped > 0, "{}: nothing dropped", kind.name());
    }
    // The world: its own link is not armed, so what comes from it and goes to it was judged at the container's.
    let outside = &net.node("outside").name;
    for (src, dst) in [(true, false), (false, true)] {
        let of = report.pairs.iter().filter(|pair| (src && pair.src == *outside) || (dst && pair.dst == *outside));
        assert!(of.map(|pair| pair.inspected_bytes).sum::<u64>() > 200_000, "to or from the world: {report:#?}");
    }
    let status = agent.client().status().expect("status");
    assert_eq!(status.engine.0.get("hold.panics"), Some(&0), "{status:#?}");
}

#[test]
fn a_published_port_is_inspected_on_the_way_in_and_on_the_hairpin() {
    if !root_or_not_run("a_published_port_is_inspected_on_the_way_in_and_on_the_hairpin") {
        return;
    }
    let _alone = alone();
    let net = net::everything("pathpub");
    let outside = net.node("outside").host_link.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
    let agent = agent("pathpub", &net, &format!("mode: protect\npath:\n  interfaces:\n    exclude: [\"{outside}\"]\n"));
    armed(&agent, 4);
    let server = net.node("server");
    let nat = format!(
        "*nat\n-A PREROUTING -p tcp --dport 8088 -j DNAT --to-destination {0}:80\n-A POSTROUTING -d {0} -p tcp --dport 80 -j MASQUERADE\nCOMMIT\n",
        server.v4
    );
    let family = bulkhead_sys::iptables::Family::V4;
    net.host().run(|| bulkhead_sys::iptables::restore(family, &nat, None)).expect("namespace").expect("nat rules");
    let echo = Receiver::tcp(&server.netns, 80, Service::Echo);
    let bytes = known_bytes(3, 100_000);
    for from in ["outside", "far", "client"] {
        let gateway: IpAddr = match from {
            "outside" => [192, 0, 2, 1].into(),
            "far" => net::v4(1, 1).into(),
            _ => net::v4(0, 1).into(),
        };
        let target = SocketAddr::new(gateway, 8088);
        let answer = tcp_exchange(&net.node(from).netns, target, &bytes, &Writes::Whole, PATIENCE);
        let counters = || agent.client().status().map(|status| status.engine.0.into_iter().filter(|(_, v)| *v > 0).collect::<Vec<_>>());
        assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{from}: {:?}\n{:?}", answer.map(|a| a.len()), counters());
        let before = echo.got().len();
        let _ = tcp_exchange(&net.node(from).netns, target, BREACH, &Writes::At(vec![9]), Duration::from_millis(300));
        assert!(echo.got().iter().skip(before).all(|got| got != BREACH), "{from}: the breach came through the published port");
    }
    assert!(agent.client().coverage().expect("coverage").complete);
    // Nothing but held frames comes to the workers: the kernel has nothing of its own to say on the TAP.
    let counters = agent.client().status().expect("status").engine.0;
    assert_eq!((counters.get("hold.malformed"), counters.get("hold.frames").is_some_and(|frames| *frames > 0)), (Some(&0), true));
}

#[test]
fn frames_of_every_shape_are_judged() {
    if !root_or_not_run("frames_of_every_shape_are_judged") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("pathraw");
    let agent = agent("pathraw", &net, PROTECT);
    armed(&agent, 2);
    let (client, server) = (net.node("client"), net.node("server"));
    let wire = Receiver::frames(&server.netns, server.ifindex);
    let udp = Receiver::udp(&server.netns, 4000, Service::Sink);
    for six in [false, true] {
        let e = ends(client, server, six);
        let shapes = |payload: &[u8], port: u16| {
            let datagram = e.udp(port, 4000, &[payload, &known_bytes(5, 600)].concat());
            let pieces = match (e.src, e.dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => Ipv4 { id: port, ..Ipv4::new(s, d) }.fragments(&datagram, &[16, 400]),
                (IpAddr::V6(s), IpAddr::V6(d)) => Ipv6::new(s, d).fragments(u32::from(port), &datagram, &[16, 400]),
                _ => unreachable!("both of one family"),
            };
            let ethertype = if six { packet::ETHERTYPE_IPV6 } else { packet::ETHERTYPE_IPV4 };
            let fragments: Vec<_> = pieces.iter().map(|p| packet::ethernet(e.src_mac, e.dst_mac, &[], ethertype, p)).collect();
            let tagged = |tags: &[(u16, u16)]| e.tagged_frame(tags, packet::UDP, &e.udp(port, 4001, payload));
            let (kind, echo) = e.echo_request(port, 1, payload);
            (
                fragments,
                vec![
                    ("one tag", tagged(&[(packet::TPID_8021Q, 5)])),
                    ("two tags", tagged(&[(packet::TPID_8021AD, 6), (packet::TPID_8021Q, 5)])),
                    ("sctp", e.frame(packet::SCTP, &packet::sctp(1, 2, payload))),
                    ("experimental protocol", e.frame(253, payload)),
                    ("echo", e.frame(kind, &echo)),
                    ("datagram", e.frame(packet::UDP, &e.udp(port, 4002, payload))),
                ],
            )
        };
        let (fragments, good) = shapes(b"nothing to see here", 21);
        send_frames(client, &fragments);
        assert!(udp.saw(b"nothing to see here", PATIENCE), "clean fragments are delivered (six: {six})");
        for (name, frame) in &good {
            let count = wire.got().len();
            send_frames(client, std::slice::from_ref(frame));
            wait_until(&format!("a clean {name} (six: {six})"), PATIENCE, || {
                wire.got().iter().skip(count).any(|f| bulkhead_kit::traffic::contains(f, b"nothing to see here"))
            });
        }
        let (fragments, evil) = shapes(BREACH, 22);
        send_frames(client, &fragments);
        for (_, frame) in &evil {
            send_frames(client, std::slice::from_ref(frame));
        }
        assert!(!udp.saw(BREACH, SILENCE), "a breach in fragments was delivered (six: {six})");
        assert!(!wire.saw(BREACH, Duration::from_millis(10)), "a breach reached the wire (six: {six})");
    }
    let report = agent.client().coverage().expect("coverage");
    assert!(report.complete, "{report:#?}");
    assert!(report.pairs.iter().any(|pair| pair.vlan && pair.inspected_bytes > 0), "tagged frames are on record: {report:#?}");
}

#[test]
fn monitor_tells_and_protect_blocks_by_workload() {
    if !root_or_not_run("monitor_tells_and_protect_blocks_by_workload") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("pathmode");
    let agent = agent("pathmode", &net, "mode: monitor\n");
    armed(&agent, 2);
    let (client, server) = (net.node("client"), net.node("server"));
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
    let why = agent.client().why(event.event_id).expect("why");
    assert!(why.rule.is_some_and(|rule| rule.contains("sid:1000001")) && why.explanation.len() >= 3, "{:?}", why.explanation);

    let changed = agent.client().set_mode(Some(server.name.clone()), Mode::Protect).expect("a mode for one workload");
    assert_eq!(changed.workloads, std::slice::from_ref(&server.name));
    let _ = tcp_exchange(&client.netns, target, BREACH, &Writes::At(vec![5, 11]), Duration::from_millis(300));
    std::thread::sleep(SILENCE);
    assert!(!sink.got().iter().skip(1).any(|got| got == BREACH), "protect lets it through");
    agent.wait_event(
        "blocked",
        |event| matches!(&event.body, EventBody::Drop { drop, .. } if drop.verdict == "blocked" && drop.reason == "rule"),
    );

    // A rejected flow ends at once for both sides.
    let begun = Instant::now();
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let refused =
        tcp_exchange(&client.netns, SocketAddr::new(server.v4.into(), echo.port), b"BULKHEAD-TEST-REJECT", &Writes::Whole, PATIENCE);
    // Reset while sending, while shutting down, or while reading: which one is a matter of microseconds.
    let kinds = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::NotConnected, std::io::ErrorKind::BrokenPipe];
    assert!(refused.as_ref().is_err_and(|e| kinds.contains(&e.kind())), "{refused:?}");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn segments_deny_the_first_packet_without_the_agent() {
    if !root_or_not_run("segments_deny_the_first_packet_without_the_agent") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("pathseg");
    let config = "mode: protect\nsegments:\n  rules:\n    - name: no-db-for-clients\n      from: {name: \"*-client\"}\n      to: {name: \"*-server\"}\n      proto: tcp\n      ports: [5432]\n      action: deny\n";
    let mut agent = agent("pathseg", &net, config);
    armed(&agent, 3);
    let (client, server, far) = (net.node("client"), net.node("server"), net.node("far"));
    let db = Receiver::tcp(&server.netns, 5432, Service::Echo);
    let other = Receiver::tcp(&server.netns, 0, Service::Echo);
    let to = |node: &Node, port| SocketAddr::new(node.v4.into(), port);
    let denied = |patience| tcp_exchange(&client.netns, to(server, db.port), b"select", &Writes::Whole, patience).is_err();
    assert!(denied(Duration::from_millis(400)), "the segment rule lets it through");
    assert_eq!(tcp_exchange(&client.netns, to(server, other.port), b"hello", &Writes::Whole, PATIENCE).expect("another port"), b"hello");
    assert_eq!(tcp_exchange(&far.netns, to(server, db.port), b"hello", &Writes::Whole, PATIENCE).expect("another workload"), b"hello");
    agent.wait_event("segment", |event| {
        matches!(&event.body, EventBody::Drop { drop, .. } if drop.reason == "segment" && drop.tier == "kernel" && drop.explanation.contains("no-db-for-clients"))
    });
    // The kernel needs nobody for it.
    agent.process().stop();
    std::thread::sleep(Duration::from_millis(700));
    assert!(denied(Duration::from_millis(400)), "with the agent stopped, the segment rule lets it through");
    agent.process().go_on();
}

/// Talks over an established connection until told otherwise, and counts what came back.
struct Conversation {
    stream: TcpStream,
    said: u64,
}

impl Conversation {
    fn open(from: &bulkhead_sys::netns::Netns, to: SocketAddr) -> Self {
        let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("namespace").expect("connection");
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(8)))).expect("socket options");
        Self { stream, said: 0 }
    }

    /// One line there and back; gives how long it took.
    fn say(&mut self) -> Duration {
        let begun = Instant::now();
        self.said += 1;
        let line = format!("line {:08}\n", self.said);
        self.stream.write_all(line.as_bytes()).expect("write");
        let mut back = vec![0; line.len()];
        self.stream.read_exact(&mut back).expect("an established connection goes on");
        assert_eq!(back, line.as_bytes());
        begun.elapsed()
    }

    fn say_for(&mut self, time: Duration) -> Duration {
        let end = Instant::now() + time;
        let mut longest = Duration::ZERO;
        while Instant::now() < end {
            longest = longest.max(self.say());
        }
        longest
    }
}

#[test]
fn connections_live_through_arming_killing_restarting_and_going_down() {
    if !root_or_not_run("connections_live_through_arming_killing_restarting_and_going_down") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("pathlife");
    let (client, server, far) = (net.node("client"), net.node("server"), net.node("far"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let mut talks = [Conversation::open(&client.netns, target), Conversation::open(&far.netns, target)];
    talks.iter_mut().for_each(|talk| _ = talk.say_for(Duration::from_millis(50)));
    let mut agent = agent("pathlife", &net, PROTECT);
    armed(&agent, 3);
    let all = |talks: &mut [Conversation; 2], when: &str| {
        for talk in talks.iter_mut() {
            let longest = talk.say_for(Duration::from_millis(300));
            println!("{when}: longest answer {longest:?}");
        }
        let mut fresh = Conversation::open(&client.netns, target);
        println!("{when}: new connection answered in {:?}", fresh.say());
    };
    all(&mut talks, "armed");
    agent.process().kill();
    all(&mut talks, "killed");
    agent.restart(&[]);
    armed(&agent, 3);
    all(&mut talks, "started again");
    agent.process().stop();
    all(&mut talks, "hung");
    agent.process().go_on();
    all(&mut talks, "woken");
    // A planned restart: the programs stay.
    agent.process().end(libc::SIGTERM, PATIENCE);
    all(&mut talks, "ended");
    agent.restart(&[]);
    armed(&agent, 3);
    all(&mut talks, "third agent");
    let sink = Receiver::tcp(&server.netns, 0, Service::Sink);
    let _ =
        tcp_exchange(&client.netns, SocketAddr::new(server.v4.into(), sink.port), BREACH, &Writes::At(vec![4]), Duration::from_millis(300));
    assert!(!sink.saw(BREACH, SILENCE), "the third agent judges");
    agent.down();
    all(&mut talks, "down");
}

#[test]
fn fail_closed_passes_nothing_unjudged() {
    if !root_or_not_run("fail_closed_passes_nothing_unjudged") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("pathshut");
    let (client, server) = (net.node("client"), net.node("server"));
    let mut agent = agent("pathshut", &net, "mode: protect\nfail: closed\nfail-after: 200 ms\n");
    armed(&agent, 2);
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let to = SocketAddr::new(server.v4.into(), udp.port);
    udp_send(&client.netns, to, &[b"before"]).expect("sending");
    assert!(udp.saw(b"before", PATIENCE));
    for how in ["killed", "stopped"] {
        if how == "killed" {
            agent.process().kill();
        } else {
            agent.restart(&[]);
            armed(&agent, 2);
            agent.process().stop();
        }
        std::thread::sleep(Duration::from_millis(400));
        let count = udp.got().len();
        for _ in 0..500 {
            let _ = udp_send(&client.netns, to, &[b"unjudged"]);
        }
        let refused = tcp_exchange(&client.netns, SocketAddr::new(server.v4.into(), 1), b"x", &Writes::Whole, Duration::from_millis(300));
        assert!(refused.is_err());
        std::thread::sleep(SILENCE);
        assert_eq!(udp.got().len() - count, 0, "{how}: unjudged datagrams passed");
    }
    // What waited in a queue for the stopped agent is judged when it wakes, or lost; it is never passed unjudged.
    agent.process().go_on_and_kill();
}

#[test]
fn a_full_queue_fails_as_the_policy_says() {
    if !root_or_not_run("a_full_queue_fails_as_the_policy_says") {
        return;
    }
    /// From each processor, whose queue has room for 4096 less a margin of 64.
    const SENT: usize = 4200;
    const HELD: usize = 4096 - 64;
    let _alone = alone();
    let net = net::one_bridge("pathfull");
    let (client, server) = (net.node("client"), net.node("server"));
    let cpus = bulkhead_sys::sched::affinity().expect("processors");
    for fail in ["open", "closed"] {
        // So slow to be taken for dead that only the fill of the queues decides.
        let tag = format!("pathfull{fail}");
        let mut agent = agent(&tag, &net, &format!("mode: protect\nfail: {fail}\nfail-after: 60 s\n"));
        armed(&agent, 2);
        let udp = Receiver::udp(&server.netns, 0, Service::Sink);
        let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
        let mut talk = Talk::open(&client.netns, SocketAddr::new(server.v4.into(), echo.port)).expect("a connection");
        talk.say().expect("before");
        std::thread::sleep(SILENCE); // the queues are empty
        agent.process().stop();
        let to = SocketAddr::new(server.v4.into(), udp.port);
        for cpu in &cpus {
            // The threads that send are this one's children, and stay where it is.
            bulkhead_sys::sched::set_affinity(&[*cpu]).expect("moving");
            for part in 0..SENT / 50 {
                udp_send(&client.netns, to, &[b"unjudged".as_slice(); 50]).unwrap_or_else(|e| panic!("{part}: {e}"));
                std::thread::sleep(Duration::from_millis(1)); // the receiver keeps up
            }
        }
        bulkhead_sys::sched::set_affinity(&cpus).expect("moving");
        let (least, most) = ((SENT - HELD) * cpus.len(), (SENT - HELD + 100) * cpus.len());
        if fail == "open" {
            let passed = udp.wait_for(least).len();
            assert!((least..most).contains(&passed), "{passed} datagrams passed a full queue, not {least}");
            // Whatever queue it meets is full.
            talk.say().expect("an established connection goes on");
            drop(Talk::open(&client.netns, SocketAddr::new(server.v4.into(), echo.port)).expect("and a new one is made"));
        } else {
            std::thread::sleep(SILENCE);
            assert_eq!(udp.got().len(), 0, "datagrams passed unjudged");
        }
        agent.process().go_on();
        let status = agent.client().status().expect("status");
        let full = status.engine.0.get("kernel.queue_full").copied().unwrap_or_default();
        assert!(full >= least as u64 && full < 2 * most as u64, "{full} packets met a full queue: {status:#?}");
        let told = agent.wait_event("the event of a full queue", |event| match &event.body {
            EventBody::Operation { operation } => fail == "open" && operation.message.contains("the queue to the agent was full"),
            EventBody::Drop { drop, .. } => fail == "closed" && drop.explanation.contains("the queue to the agent was full"),
            _ => false,
        });
        assert!(told.src_ip.is_some());
        let pairs = agent.client().coverage().expect("coverage").pairs;
        let unjudged = |pair: &PairCoverage| if fail == "open" { pair.bypassed_bytes() } else { pair.dropped_bytes() };
        assert!(pairs.iter().map(unjudged).sum::<u64>() > least as u64, "coverage shows what met a full queue: {pairs:#?}");
        // The connection that passed unseen for a while is inspected again, after the gap.
        wait_until("the queues are empty", PATIENCE, || {
            let before = udp.got().len();
            std::thread::sleep(SILENCE);
            udp.got().len() == before
        });
        if fail == "open" {
            talk.say().expect("after");
        } else {
            talk = Talk::open(&client.netns, SocketAddr::new(server.v4.into(), echo.port)).expect("a connection");
        }
        let _ = talk.send(BREACH);
        assert!(!echo.saw(BREACH, SILENCE), "{fail}: the breach reached the receiver");
        agent.down();
    }
}

#[test]
fn a_new_container_is_inspected_from_its_first_packet() {
    if !root_or_not_run("a_new_container_is_inspected_from_its_first_packet") {
        return;
    }
    let _alone = alone();
    let mut net = net::one_bridge("pathnew");
    let agent = agent("pathnew", &net, PROTECT);
    armed(&agent, 2);
    let server = net.node("server").v4;
    let udp = Receiver::udp(&net.node("server").netns, 0, Service::Sink);
    let mut passed = 0;
    for round in 0..10u8 {
        let name = format!("n{round}");
        net.add(net::on_bridge("pathnew", &name, 0, 20 + round));
        let node = net.node(&name);
        // From its very first moment it sends what must not pass.
        let end = Instant::now() + Duration::from_millis(150);
        while Instant::now() < end {
            let _ = udp_send(&node.netns, SocketAddr::new(server.into(), udp.port), &[BREACH]);
        }
        passed += udp.got().iter().filter(|got| *got == BREACH).count();
        wait_until("a clean datagram of the new container", PATIENCE, || {
            let _ = udp_send(&node.netns, SocketAddr::new(server.into(), udp.port), &[b"clean"]);
            udp.got().iter().any(|got| got == b"clean")
        });
        assert!(udp.got().iter().all(|got| got != BREACH), "round {round}: a first packet passed uninspected");
        let full = format!("pathnew-{name}");
        net.fabric.remove_node(&full).expect("removing");
    }
    println!("datagrams of 10 new containers that passed before their interface was armed: {passed}");
}

#[test]
fn down_leaves_the_host_as_it_was() {
    if !root_or_not_run("down_leaves_the_host_as_it_was") {
        return;
    }
    let _alone = alone();
    let net = net::everything("pathdown");
    drop(agent("pathdown0", &net, PROTECT)); // mounts what the kit shares between tests
    let before = HostState::settled(net.host());
    let inside = HostState::take(&net.node("macvlan").netns);
    let mut running = agent("pathdown", &net, PROTECT);
    armed(&running, 4);
    assert_ne!(HostState::difference(&before, &HostState::take(net.host())), "", "an armed host looks different");
    running.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "pathdown"), "");
    assert_eq!(HostState::own_difference(&inside, &HostState::take(&net.node("macvlan").netns), "pathdown"), "");
    let mut crashed = agent("pathdown2", &net, PROTECT);
    armed(&crashed, 4);
    crashed.process().kill();
    crashed.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "pathdown"), "");
    assert_eq!(HostState::own_difference(&inside, &HostState::take(&net.node("macvlan").netns), "pathdown"), "");
}

#[test]
fn a_terminal_that_closes_takes_everything_off_the_host() {
    if !root_or_not_run("a_terminal_that_closes_takes_everything_off_the_host") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("pathtty");
    drop(agent("pathtty0", &net, PROTECT)); // mounts what the kit shares between tests
    let before = HostState::settled(net.host());
    let plan = AgentPlan { tag: "pathtty", host: Some(net.host()), config: PROTECT, rules: RULES, ..AgentPlan::default() };
    // script(1) is the terminal.
    let mut agent = Agent::start_under(&plan, &["sh", "-c", "exec script -qfc \"$*\" /dev/null", "sh"]);
    armed(&agent, 2);
    agent.process().kill();
    wait_until("the agent ends", PATIENCE, || agent.client().status().is_err());
    wait_until("the host is as it was", PATIENCE, || {
        HostState::own_difference(&before, &HostState::take(net.host()), "pathtty").is_empty()
    });
}

#[test]
fn the_fallback_path_blocks_too() {
    if !root_or_not_run("the_fallback_path_blocks_too") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("pathnfq");
    let before = HostState::settled(net.host());
    let mut agent = agent("pathnfq", &net, "mode: protect\npath:\n  kind: nfqueue\n");
    let (client, server, far) = (net.node("client"), net.node("server"), net.node("far"));
    for (from, to) in [(client, server), (client, far)] {
        for ip in [IpAddr::from(to.v4), to.v6.into()] {
            clean_then_breach(&from.netns, &to.netns, ip, &format!("{} to {} at {ip}", from.name, to.name));
        }
    }
    let status = agent.client().status().expect("status");
    assert!(!status.degraded.is_empty(), "the fallback says what it does not see");
    agent.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "pathnfq"), "");
}
