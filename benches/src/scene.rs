//! A host with containers, played by network namespaces: nothing of the machine's own network is touched.
//!
//! ```text
//!   client   server           far
//!       \     /                |
//!   br0 203.0.113.0/25    br1 203.0.113.128/25
//!           \__________________/
//!          outer namespace, forwarding; the agent runs here
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use bulkhead_lab::fabric::{Attach, Bridge, Fabric, FabricError, Host, Node, NodePlan, Plan};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::sysctl;
use clap::ValueEnum;
use serde::Serialize;

use crate::Error;

/// All names begin with it; the agent arms only such interfaces.
pub const PREFIX: &str = "bhbench";
/// Containers of a scene.
pub const NODES: usize = 3;

/// Where the two ends of a load are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Between {
    /// Both on one bridge.
    Bridge,
    /// On two bridges, with the host routing between them.
    Routed,
}

impl Between {
    pub const fn title(self) -> &'static str {
        match self {
            Self::Bridge => "Two containers on one bridge",
            Self::Routed => "Two containers on two bridges, routed",
        }
    }
}

/// The built scene. Dropping it removes everything.
#[derive(Debug)]
pub struct Scene {
    fabric: Fabric,
}

impl Scene {
    pub fn build() -> Result<Self, Error> {
        let bridge = |n: usize| Bridge { name: format!("{PREFIX}{n}"), v4: v4(n, 1), v4_bits: 25, v6: v6(n, 1), v6_bits: 64 };
        let node = |name: &str, n: usize, last: u8| NodePlan {
            name: node_name(name),
            v4: v4(n, last),
            v6: v6(n, last),
            attach: Attach::Bridge(n),
        };
        let plan = Plan {
            prefix: PREFIX.into(),
            host: Host::Named(format!("{PREFIX}-host")),
            bridges: vec![bridge(0), bridge(1)],
            nodes: vec![node("client", 0, 2), node("server", 0, 3), node("far", 1, 2)],
            forwarding: true,
        };
        let scene = Self { fabric: Fabric::build(plan)? };
        // A connection for each request needs more ports than the default range has while old ones wait in TIME_WAIT.
        scene.client()?.run(|| sysctl::write("net/ipv4/ip_local_port_range", "1024 65535"))??;
        Ok(scene)
    }

    /// The namespace that plays the host.
    pub fn host(&self) -> &Netns {
        self.fabric.host()
    }

    pub fn client(&self) -> Result<&Node, Error> {
        self.node("client")
    }

    /// The node that serves.
    pub fn server(&self, between: Between) -> Result<&Node, Error> {
        self.node(match between {
            Between::Bridge => "server",
            Between::Routed => "far",
        })
    }

    fn node(&self, name: &str) -> Result<&Node, Error> {
        let name = node_name(name);
        self.fabric.node(&name).ok_or_else(|| FabricError::Vanished(name).into())
    }
}

fn node_name(name: &str) -> String {
    format!("{PREFIX}-{name}")
}

fn v4(bridge: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, if bridge == 0 { last } else { last | 0x80 })
}

fn v6(bridge: usize, last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, bridge as u16 + 1, 0, 0, 0, 0, last.into())
}
