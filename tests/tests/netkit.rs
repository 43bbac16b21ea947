//! netkit pairs: the container's interface on newer hosts (Linux 6.7, `CONFIG_NETKIT`). Their host ends are armed as those of
//! veth pairs are.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use bulkhead_api::PathKind;
use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::net::{Net, v4, v6};
use bulkhead_kit::traffic::{PATIENCE, Receiver, Service, Writes, known_bytes, tcp_exchange};
use bulkhead_kit::{not_run, root_or_not_run, wait_until};
use bulkhead_sys::netlink::{Netlink, NewRoute};
use bulkhead_sys::netns::{self, Netns};

const BREACH: &[u8] = b"BULKHEAD-TEST-BREACH";
const RULES: &str = "drop tcp any any -> any any (msg:\"breach\"; content:\"BULKHEAD-TEST-BREACH\"; sid:1000001; rev:1;)\n";

/// A namespace on the host by a netkit pair, routed. Removed with its namespace.
struct Node {
    netns: Netns,
    name: String,
    v4: IpAddr,
    v6: IpAddr,
}

impl Node {
    /// `Err` when the kernel makes no such pair.
    fn new(host: &Netns, tag: &str, last: u8) -> Result<Self, String> {
        let (name, end) = (format!("{tag}-n{last}"), format!("{tag}k{last}"));
        let add = || Command::new("ip").args(["link", "add", &end, "type", "netkit"]).output();
        let made = host.run(add).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        let node =
            Self { netns: netns::create_named(&name).map_err(|e| e.to_string())?, name, v4: v4(0, last).into(), v6: v6(0, last).into() };
        node.connect(host, &end).map_err(|e| e.to_string())?;
        Ok(node)
    }

    fn connect(&self, host: &Netns, end: &str) -> Result<(), bulkhead_sys::netlink::Error> {
        let mut outside = Netlink::open_in(host)?;
        let ours = outside.link_named(end)?.expect("the pair's first end");
        let peer = ours.link.expect("the pair's second end");
        outside.move_to(peer, &self.netns)?;
        outside.set_up(ours.ifindex, true)?;
        let mut inside = Netlink::open_in(&self.netns)?;
        for link in inside.links()? {
            inside.set_up(link.ifindex, true)?;
            if !link.loopback {
                for (own, gateway, bits) in [(self.v4, IpAddr::from(v4(0, 1)), 32), (self.v6, v6(0, 1).into(), 128)] {
                    inside.add_address(link.ifindex, own, bits, true)?;
                    let direct = |destination, ifindex| NewRoute { destination, prefix_len: bits, gateway: None, ifindex: Some(ifindex) };
                    inside.add_route(&direct(gateway, link.ifindex))?;
                    inside.add_route(&NewRoute { ifindex: Some(link.ifindex), ..NewRoute::default_via(gateway) })?;
                    outside.add_route(&direct(own, ours.ifindex))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = netns::delete_named(&self.name); // the pair goes with it
    }
}

#[test]
fn the_host_ends_of_netkit_pairs_are_armed() {
    const NAME: &str = "the_host_ends_of_netkit_pairs_are_armed";
    if !root_or_not_run(NAME) {
        return;
    }
    // Its bridges have no ports; the first one has the gateway's addresses.
    let net = Net::build("nkit", Vec::new());
    let nodes = [2, 3].map(|last| Node::new(net.host(), "nkit", last));
    let [from, to] = match nodes {
        [Ok(from), Ok(to)] => [from, to],
        [Err(why), _] | [_, Err(why)] => return not_run(NAME, format!("this kernel makes no netkit pairs: {why}")),
    };
    let mut agent =
        Agent::start(&AgentPlan { tag: "nkit", host: Some(net.host()), config: "mode: protect\n", rules: RULES, ..AgentPlan::default() });
    wait_until("both host ends are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed == 2));
    for ip in [to.v4, to.v6] {
        let (echo, sink) = (Receiver::tcp(&to.netns, 0, Service::Echo), Receiver::tcp(&to.netns, 0, Service::Sink));
        let bytes = known_bytes(5, 200_000);
        let answer = tcp_exchange(&from.netns, SocketAddr::new(ip, echo.port), &bytes, &Writes::Whole, PATIENCE);
        assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{ip}: clean bytes did not pass whole: {:?}", answer.map(|a| a.len()));
        for writes in [Writes::Whole, Writes::At(vec![9])] {
            let _ = tcp_exchange(&from.netns, SocketAddr::new(ip, sink.port), BREACH, &writes, Duration::from_millis(500));
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(!sink.got().iter().any(|got| got == BREACH), "{ip}: the breach reached the receiver");
    }
    let report = agent.client().coverage().expect("coverage");
    let inspected: u64 = report.pairs.iter().filter(|pair| pair.kind == PathKind::CrossBridge).map(|pair| pair.inspected_bytes).sum();
    assert!(report.complete && inspected > 800_000, "{report:#?}");
    agent.down();
    let echo = Receiver::tcp(&to.netns, 0, Service::Echo);
    let after = tcp_exchange(&from.netns, SocketAddr::new(to.v4, echo.port), BREACH, &Writes::Whole, PATIENCE);
    assert_eq!(after.expect("traffic flows on"), BREACH);
}
