//! Ready-made wirings for path tests.
//!
//! Each test has a host of its own: a network namespace that plays the host, with bridges, host ends, rules and settings
//! in it, so tests run side by side and the machine's own network is never touched. Start the agent inside it
//! ([`crate::agent::AgentPlan::host`]).
//!
//! ```text
//!   client  server        far        macvlan        outside
//!      \    /              |           |               |
//!     br0 203.0.113.0/25  br1 203.0.113.128/25   192.0.2.0/24 (direct veth)
//!      2001:db8:1::/64     2001:db8:2::/64        2001:db8:3::/64
//!         \________________|__________________________/
//!                        host namespace, forwarding
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bulkhead_lab::fabric;
pub use bulkhead_lab::fabric::{Attach, Bridge, Fabric, FabricError, Host, Node, NodePlan, Plan};
use bulkhead_sys::netlink::Netlink;
use bulkhead_sys::netns::Netns;

use crate::wait_until;

/// Two nodes (`client`, `server`) on one bridge.
pub fn one_bridge(tag: &str) -> Net {
    Net::build(tag, vec![on_bridge(tag, "client", 0, 2), on_bridge(tag, "server", 0, 3)])
}

/// A veth carries some moments after it was switched on (linkwatch), and its bridge after it: what a test compares or sends before
/// is not what the network is.
fn bridges_carry(host: &Netns) -> bool {
    let links = Netlink::open_in(host).and_then(|mut n| n.links()).unwrap_or_else(|e| panic!("{e}"));
    let ports: Vec<_> = links.iter().filter(|link| link.master.is_some()).collect();
    let has_port = |bridge: u32| ports.iter().any(|port| port.master == Some(bridge));
    links.iter().filter(|link| link.master.is_some() || has_port(link.ifindex)).all(|link| link.running)
}

/// `client` and `server` on the first bridge, `far` on the second; the host routes between them.
pub fn two_bridges(tag: &str) -> Net {
    Net::build(tag, vec![on_bridge(tag, "client", 0, 2), on_bridge(tag, "server", 0, 3), on_bridge(tag, "far", 1, 2)])
}

/// Every way a packet can take: the drawing above.
pub fn everything(tag: &str) -> Net {
    Net::build(
        tag,
        vec![
            on_bridge(tag, "client", 0, 2),
            on_bridge(tag, "server", 0, 3),
            on_bridge(tag, "far", 1, 2),
            macvlan(tag, "macvlan", 0, 4),
            outside(tag),
        ],
    )
}

/// A node on one of the two bridges, with the last byte of its addresses.
pub fn on_bridge(tag: &str, name: &str, bridge: usize, last: u8) -> NodePlan {
    NodePlan { name: format!("{tag}-{name}"), v4: v4(bridge, last), v6: v6(bridge, last), attach: Attach::Bridge(bridge) }
}

/// A macvlan on top of one of the bridges.
pub fn macvlan(tag: &str, name: &str, bridge: usize, last: u8) -> NodePlan {
    NodePlan { attach: Attach::Macvlan(bridge), ..on_bridge(tag, name, bridge, last) }
}

/// The world beyond the host: directly connected, on no bridge.
pub fn outside(tag: &str) -> NodePlan {
    let net = |last| (Ipv4Addr::new(192, 0, 2, last), Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, last.into()));
    let (host, node) = (net(1), net(2));
    let attach = Attach::Direct { v4: host.0, v4_bits: 24, v6: host.1, v6_bits: 64 };
    NodePlan { name: format!("{tag}-outside"), v4: node.0, v6: node.1, attach }
}

/// Address of the host on a bridge (last byte 1) or of a node.
pub fn v4(bridge: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, if bridge == 0 { last } else { last | 0x80 })
}

pub fn v6(bridge: usize, last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, bridge as u16 + 1, 0, 0, 0, 0, last.into())
}

/// A built wiring; nodes are named without the tag here.
#[derive(Debug)]
pub struct Net {
    pub fabric: Fabric,
    tag: String,
}

impl Net {
    /// Builds the two bridges and these nodes in a host namespace named `<tag>-host`. The tag must be unique among tests
    /// that run at the same time and at most 9 bytes.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn build(tag: &str, nodes: Vec<NodePlan>) -> Self {
        let bridge = |n: usize| Bridge { name: format!("{tag}br{n}"), v4: v4(n, 1), v4_bits: 25, v6: v6(n, 1), v6_bits: 64 };
        let plan = Plan {
            prefix: tag.into(),
            host: Host::Named(format!("{tag}-host")),
            bridges: vec![bridge(0), bridge(1)],
            nodes,
            forwarding: true,
        };
        let fabric = Fabric::build(plan).unwrap_or_else(|e| panic!("cannot build the test network: {e}"));
        wait_until("the bridges' ports carry", Duration::from_secs(10), || bridges_carry(fabric.host()));
        Self { fabric, tag: tag.into() }
    }

    /// # Panics
    /// When there is no such node.
    pub fn node(&self, name: &str) -> &fabric::Node {
        let full = format!("{}-{name}", self.tag);
        self.fabric.node(&full).unwrap_or_else(|| panic!("the test network has no node {full}"))
    }

    /// Adds a node while the network runs.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn add(&mut self, plan: NodePlan) -> &fabric::Node {
        self.fabric.add_node(plan).unwrap_or_else(|e| panic!("cannot add a node: {e}"))
    }

    /// The namespace that plays the host.
    pub fn host(&self) -> &bulkhead_sys::netns::Netns {
        self.fabric.host()
    }

    /// MAC address of an interface in the host's namespace: the next hop of a node behind a bridge is the bridge's.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn host_mac(&self, interface: &str) -> [u8; 6] {
        let link = bulkhead_sys::netlink::Netlink::open_in(self.host()).and_then(|mut n| n.link_named(interface));
        link.ok().flatten().and_then(|l| l.mac).unwrap_or_else(|| panic!("the test host has no interface {interface}"))
    }

    /// MAC address of the bridge with this number.
    pub fn bridge_mac(&self, number: usize) -> [u8; 6] {
        self.host_mac(&format!("{}br{number}", self.tag))
    }
}

/// Panics unless the address is one that tests may send to.
///
/// # Panics
/// When it is not.
pub fn check_target(address: IpAddr) {
    assert!(bulkhead_lab::address::is_test_address(address), "{address} is no address that a test may send to");
}
