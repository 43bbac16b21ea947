//! Many flows, and more of them than the tables hold.

use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::net::{self, Net};
use bulkhead_kit::traffic::{PATIENCE, Receiver, Service, Writes, known_bytes, tcp_exchange};
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
    let agent = Agent::start(&AgentPlan { tag, host: Some(net.host()), config, rules: RULES, arguments: &[] });
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
