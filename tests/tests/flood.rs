//! Many flows, and more of them than the tables hold.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::net::{self, Net, Node};
use bulkhead_kit::packet::{self, Ends, Ipv4, Tcp};
use bulkhead_kit::traffic::{Beside, PATIENCE, Receiver, Service, Writes, known_bytes, send_frames, tcp_exchange};
use bulkhead_kit::{root_or_not_run, wait_until};

const RULES: &str = r#"
drop tcp any any -> any any (msg:"breach in a stream"; content:"BULKHEAD-TEST-BREACH"; sid:1000001; rev:1;)
drop udp any any -> any any (msg:"breach in a datagram"; content:"BULKHEAD-TEST-BREACH"; sid:1000002; rev:1;)
"#;

/// One agent at a time: its device has the same name in every host.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn agent(tag: &str, net: &Net, config: &str) -> Agent {
    let agent = Agent::start(&AgentPlan { tag, host: Some(net.host()), config, rules: RULES, ..AgentPlan::default() });
    wait_until("2 interfaces armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));
    agent
}

/// A counter of the engine by its dotted name.
fn counter(agent: &Agent, name: &str) -> u64 {
    let status = agent.client().status().unwrap_or_else(|error| panic!("no status: {error}"));
    status.engine.0.get(name).copied().unwrap_or_else(|| panic!("no counter {name}: {status:#?}"))
}

#[test]
fn connections_between_one_pair_are_spread_over_the_shards() {
    if !root_or_not_run("connections_between_one_pair_are_spread_over_the_shards") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("floodshrd");
    let agent = agent("floodshrd", &net, "mode: protect\n");
    let (client, server) = (net.node("client"), net.node("server"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let bytes = known_bytes(3, 100_000);
    // Sixteen flows would all meet the same of eight shards once in 10^13 runs.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let answer = tcp_exchange(&client.netns, target, &bytes, &Writes::Whole, PATIENCE);
                assert!(answer.is_ok_and(|answer| answer == bytes), "bytes changed on their way");
            });
        }
    });
    let used = counter(&agent, "shards.used");
    assert!(used > 1, "{used} of {} shards used", counter(&agent, "shards.count"));
    let evil = tcp_exchange(&client.netns, target, b"BULKHEAD-TEST-BREACH", &Writes::At(vec![9]), Duration::from_millis(300));
    assert!(evil.is_err(), "the breach was answered");
}

const FLOWS: u32 = 50_000;
const FLOWS_MAX: u64 = 8192;
/// As the configuration of the test says.
const STREAM_MEMORY: u64 = 4 << 20;
const FRAGMENT_MEMORY: u64 = 1 << 20;
/// What rules look back to in streams (`lookback_memory_max` of `bulkhead_ips::PipelineConfig`).
const LOOKBACK_MEMORY: u64 = 256 << 20;
/// More than the agent may grow by: what the caps add up to, the entries of the flow table (some 1 KiB each, with their place in
/// the indices) and the allocator's leavings.
const GROWTH_MAX: u64 = STREAM_MEMORY + FRAGMENT_MEMORY + FLOWS_MAX * 2048 + (24 << 20);

/// The most of each figure that anybody has seen.
#[derive(Debug, Default)]
struct Most {
    flows: u64,
    memory: u64,
    rss: u64,
    refused: u64,
    looks: u32,
}

impl Most {
    fn look(&mut self, agent: &Agent) {
        let Ok(status) = agent.client().status() else { return };
        let engine = |name: &str| status.engine.0.get(name).copied().unwrap_or(0);
        self.flows = self.flows.max(engine("flow.active"));
        self.memory = self.memory.max(engine("stream.memory_bytes"));
        self.rss = self.rss.max(status.rss_bytes);
        self.refused = self.refused.max(status.path.held_refused);
        self.looks += 1;
    }
}

/// A datagram of each of `FLOWS` flows; gives how many the kernel took, and in which time.
fn datagrams(from: &Node, to: &Node) -> (u32, Duration) {
    const PORTS_EACH: u32 = 25_000;
    let begun = Instant::now();
    let mut sent = 0;
    for flow in 0..FLOWS {
        thread_local!(static SOCKET: std::cell::RefCell<Option<UdpSocket>> = const { std::cell::RefCell::new(None) });
        SOCKET.with_borrow_mut(|socket| {
            if flow % PORTS_EACH == 0 {
                *socket = Some(from.netns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("namespace").expect("a socket"));
            }
            let port = 2000 + (flow % PORTS_EACH) as u16;
            // Answers of the receiver's ICMP come back as errors of a later call.
            let told = socket.as_ref().map(|socket| socket.send_to(&[b'f'; 64], SocketAddr::new(to.v4.into(), port)));
            sent += u32::from(told.is_some_and(|told| told.is_ok()));
        });
    }
    (sent, begun.elapsed())
}

/// First halves of datagrams whose rest never comes, and segments far ahead of what their stream has reached.
fn unfinished(from: &Node, to: &Node) {
    let ends = Ends { src_mac: from.mac, dst_mac: to.mac, src: from.v4.into(), dst: to.v4.into() };
    let body = known_bytes(9, 1400);
    let halves: Vec<Vec<u8>> = (0..3000u16)
        .filter_map(|id| {
            let datagram = ends.udp(1000, 1000, &[body.as_slice(), body.as_slice()].concat());
            let pieces = Ipv4 { id, ..Ipv4::new(from.v4, to.v4) }.fragments(&datagram, &[1400]);
            pieces.first().map(|piece| packet::ethernet(from.mac, to.mac, &[], packet::ETHERTYPE_IPV4, piece))
        })
        .collect();
    let ahead: Vec<Vec<u8>> = (0..4000u16)
        .flat_map(|flow| {
            let begin = Tcp { ack: 1, ..Tcp::new(10_000 + flow, 7000, packet::ACK | packet::PSH) };
            let later = Tcp { seq: begin.seq + 9000, ..begin.clone() };
            [ends.frame(packet::TCP, &ends.tcp(&begin, b"begin")), ends.frame(packet::TCP, &ends.tcp(&later, &body))]
        })
        .collect();
    for frames in [&halves, &ahead] {
        for some in frames.chunks(200) {
            send_frames(from, some);
        }
    }
}

#[test]
fn the_caps_hold_under_a_flood_and_others_are_served() {
    if !root_or_not_run("the_caps_hold_under_a_flood_and_others_are_served") {
        return;
    }
    let _alone = alone();
    let net = net::two_bridges("floodcap");
    let config = format!(
        "mode: protect\ninspect:\n  flows-max: {FLOWS_MAX}\n  stream-memory: 4 MiB\n  fragment-memory: 1 MiB\n  stream-depth: 1 GiB\n"
    );
    let agent = agent("floodcap", &net, &config);
    wait_until("3 interfaces armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 3));
    let (attacker, server, other) = (net.node("client"), net.node("server"), net.node("far"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let before = agent.client().status().expect("status").rss_bytes;
    let (talk, connections) = (Beside::talk(&other.netns, target), Beside::connect(&other.netns, target));
    let done = AtomicBool::new(false);
    let (most, sent, time) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = Most::default();
            for _ in 0..2000 {
                most.look(&agent);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let (sent, time) = datagrams(attacker, server);
        unfinished(attacker, server);
        let answers = talk.seen().answers;
        wait_until("others are served on", PATIENCE, || talk.seen().answers > answers + 10);
        done.store(true, Ordering::Relaxed);
        (watching.join().expect("the thread that looks"), sent, time)
    });
    println!("{sent} flows in {time:?}; at most {most:?}, {before} bytes resident before");
    let counters: Vec<_> =
        ["defrag.evicted.bytes_max", "defrag.refused", "stream.refused.cap", "stream.out_of_order", "flow.evicted", "flow.refused"]
            .iter()
            .filter_map(|name| Some((name, agent.client().status().ok()?.engine.0.get(*name).copied()?)))
            .collect();
    println!("{counters:?}");
    assert!(sent > FLOWS / 2 && most.looks > 5, "{sent} sent, {} looks", most.looks);
    assert!(most.flows > FLOWS_MAX / 2 && most.flows <= FLOWS_MAX, "{} flows of {FLOWS_MAX}", most.flows);
    assert!(most.memory > 0 && most.memory <= STREAM_MEMORY + FRAGMENT_MEMORY + LOOKBACK_MEMORY, "{} bytes", most.memory);
    assert!(most.rss < before + GROWTH_MAX, "from {before} to {} bytes resident", most.rss);
    assert!(counter(&agent, "stream.out_of_order") > 0, "segments ahead of their stream were kept or refused");

    // Others were served meanwhile, and still are; what is evil is still stopped.
    for (what, seen) in [("established", talk.end()), ("new", connections.end())] {
        println!("{what}: {} answers, the longest after {:?}", seen.answers, seen.longest);
        assert!(seen.failures.is_empty() && seen.answers > 10, "{what}: {seen:?}");
    }
    let evil = tcp_exchange(&other.netns, target, b"BULKHEAD-TEST-BREACH", &Writes::At(vec![9]), Duration::from_millis(300));
    assert!(evil.is_err(), "the breach was answered");
    assert_eq!(counter(&agent, "hold.panics"), 0);
    let report = agent.client().coverage().expect("coverage");
    let gaps: u64 = report.interfaces.iter().map(|interface| interface.gap_bytes).sum::<u64>()
        + report.pairs.iter().map(|pair| pair.gap_bytes).sum::<u64>();
    assert!(report.complete && gaps == 0, "{gaps} bytes nobody has judged: {report:#?}");
}
