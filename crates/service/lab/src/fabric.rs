//! Network namespaces on bridges: the wiring of the lab and of the tests.
//!
//! A [`Plan`] says what is wanted, [`Fabric::build`] makes it, dropping the fabric takes all of it away. Each step is
//! noted before the next is tried, so a build that fails half-way leaves nothing; [`Plan::clean`] removes what a
//! killed process left, by the plan's names alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command};

use bulkhead_sys::netlink::{self, LinkChange, MacvlanMode, Netlink, NewLink, NewRoute};
use bulkhead_sys::netns::{self, Netns};
use bulkhead_sys::{OsError, sysctl};

use crate::address;

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Host ends are named `<prefix>v0`, `<prefix>v1`, ... (`u` for [`Attach::Direct`], to tell uplinks); at most 9 bytes.
    pub prefix: String,
    pub host: Host,
    pub bridges: Vec<Bridge>,
    pub nodes: Vec<NodePlan>,
    /// Let the host forward IPv4 and IPv6 between its interfaces; put back at the end.
    pub forwarding: bool,
}

/// Where bridges and host ends live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Host {
    /// The namespace of the calling thread.
    #[default]
    Current,
    /// A namespace of this name, made for it and gone with it.
    Named(String),
}

/// A bridge and the host's own addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub v4: Ipv4Addr,
    pub v4_bits: u8,
    pub v6: Ipv6Addr,
    pub v6_bits: u8,
}

/// A network namespace with one interface, `eth0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Name below `/run/netns`; also the workload's name.
    pub name: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub attach: Attach,
}

/// How a node hangs on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// A veth whose host end is a port of this bridge (index into the plan). Its gateway is the bridge.
    Bridge(usize),
    /// A macvlan on top of this bridge: it has no host end. Its gateway is the bridge.
    Macvlan(usize),
    /// A veth whose host end has these addresses and no bridge. They are its gateways.
    Direct { v4: Ipv4Addr, v4_bits: u8, v6: Ipv6Addr, v6_bits: u8 },
}

/// Why a fabric could not be built: the operator's plan, or the kernel.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("{0} is not an address that a lab may use here")]
    Address(IpAddr),
    #[error("`{0}` is too long for the prefix of an interface's name, or empty")]
    Prefix(String),
    #[error("node {0} hangs on a bridge that the plan does not have")]
    NoBridge(String),
    #[error("{0} vanished while it was being set up")]
    Vanished(String),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A built plan. Dropping it removes everything.
#[derive(Debug)]
pub struct Fabric {
    plan: Plan,
    host: Netns,
    nodes: Vec<Node>,
    /// Settings of the host's namespace with their old values.
    settings: Vec<(&'static str, String)>,
}

/// A node that was built.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Of `eth0` inside.
    pub mac: [u8; 6],
    /// Of `eth0` inside.
    pub ifindex: u32,
    /// Name and index of the end that stays on the host; none for macvlan.
    pub host_link: Option<(String, u32)>,
}

impl Node {
    /// Runs `f` on a thread inside the node's namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, OsError> {
        self.netns.run(f)
    }

    /// Starts a program inside the node's namespace.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn()).map_err(|e| io::Error::other(e.to_string()))?
    }

    /// The node's address of the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }
}

impl Plan {
    /// Are all addresses such that nobody else can have them?
    pub fn check(&self) -> Result<(), FabricError> {
        if self.prefix.is_empty() || self.prefix.len() > 9 {
            return Err(FabricError::Prefix(self.prefix.clone()));
        }
        let allowed = match self.host {
            Host::Current => address::is_host_test_address,
            Host::Named(_) => address::is_test_address,
        };
        let bridges = self.bridges.iter().flat_map(|b| [IpAddr::from(b.v4), b.v6.into()]);
        let nodes = self.nodes.iter().flat_map(|n| [IpAddr::from(n.v4), n.v6.into()]);
        let direct = self.nodes.iter().flat_map(|n| match n.attach {
            Attach::Direct { v4, v6, .. } => vec![IpAddr::from(v4), v6.into()],
            Attach::Bridge(_) | Attach::Macvlan(_) => vec![],
        });
        match bridges.chain(nodes).chain(direct).find(|&a| !allowed(a)) {
            Some(bad) => Err(FabricError::Address(bad)),
            None => Ok(()),
        }
    }

    /// Removes whatever of this plan exists, by name: what a killed process left. Gives how many things that were.
    pub fn clean(&self) -> Result<usize, FabricError> {
        let mut removed = 0;
        if let Host::Current = self.host {
            let mut netlink = Netlink::open()?;
            for link in netlink.links()? {
                let ours = self.bridges.iter().any(|b| b.name == link.name) || self.is_host_end(&link.name);
                if ours && netlink.delete_link(link.ifindex).is_ok() {
                    removed += 1;
                }
            }
        }
        for name in self.names() {
            if Path::new(netns::NAMED_DIR).join(name).exists() {
                netns::delete_named(name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let host = match &self.host {
            Host::Current => None,
            Host::Named(name) => Some(name.as_str()),
        };
        self.nodes.iter().map(|n| n.name.as_str()).chain(host)
    }

    fn host_end(&self, number: usize, attach: &Attach) -> String {
        let letter = match attach {
            Attach::Bridge(_) | Attach::Macvlan(_) => 'v',
            Attach::Direct { .. } => 'u',
        };
        format!("{}{letter}{number}", self.prefix)
    }

    fn is_host_end(&self, name: &str) -> bool {
        let number = name.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix(['v', 'u']));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl Fabric {
    /// Makes everything in the plan, after removing what an earlier one of the same names left.
    pub fn build(plan: Plan) -> Result<Self, FabricError> {
        plan.check()?;
        plan.clean()?;
        let host = match &plan.host {
            Host::Current => Netns::current()?,
            Host::Named(name) => netns::create_named(name)?,
        };
        // From here on dropping `fabric` takes away what was made.
        let mut fabric = Self { plan, host, nodes: Vec::new(), settings: Vec::new() };
        let mut netlink = Netlink::open_in(&fabric.host)?;
        if let Host::Named(_) = fabric.plan.host {
            loopback_up(&mut netlink)?;
        }
        if fabric.plan.forwarding {
            for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                let before = fabric.host.run(|| sysctl::write(setting, "1"))??;
                fabric.settings.push((setting, before));
            }
        }
        for bridge in fabric.plan.bridges.clone() {
            netlink.create_bridge(&NewLink::named(&bridge.name))?;
            let index = index_of(&mut netlink, &bridge.name)?;
            switch_on(&mut netlink, index, None)?;
            netlink.add_address(index, ROUTER, 64, true)?;
            netlink.add_address(index, bridge.v4.into(), bridge.v4_bits, true)?;
            netlink.add_address(index, bridge.v6.into(), bridge.v6_bits, true)?;
        }
        for (number, node) in fabric.plan.nodes.clone().iter().enumerate() {
            fabric.add(&mut netlink, number, node)?;
        }
        Ok(fabric)
    }

    /// The namespace in which bridges and host ends are.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Adds one more node while the fabric runs: a container that starts later.
    pub fn add_node(&mut self, node: NodePlan) -> Result<&Node, FabricError> {
        let number = self.plan.nodes.len();
        self.plan.nodes.push(node.clone());
        self.plan.check()?;
        let mut netlink = Netlink::open_in(&self.host)?;
        self.add(&mut netlink, number, &node)?;
        self.nodes.last().ok_or(FabricError::Vanished(node.name))
    }

    /// Removes a node, as a container that stops.
    pub fn remove_node(&mut self, name: &str) -> Result<(), FabricError> {
        if let Some(at) = self.nodes.iter().position(|n| n.name == name) {
            let node = self.nodes.remove(at);
            if let Some((_, index)) = node.host_link {
                Netlink::open_in(&self.host)?.delete_link(index)?;
            }
            netns::delete_named(name)?;
        }
        Ok(())
    }

    fn add(&mut self, netlink: &mut Netlink, number: usize, plan: &NodePlan) -> Result<(), FabricError> {
        let netns = netns::create_named(&plan.name)?;
        let mut inside = Netlink::open_in(&netns)?;
        loopback_up(&mut inside)?;
        let bridge = |index: usize| self.plan.bridges.get(index).ok_or_else(|| FabricError::NoBridge(plan.name.clone()));
        let host_end = self.plan.host_end(number, &plan.attach);
        let (v4_bits, v6_bits, gateways) = match plan.attach {
            Attach::Bridge(index) | Attach::Macvlan(index) => {
                let b = bridge(index)?;
                (b.v4_bits, b.v6_bits, (b.v4, b.v6))
            }
            Attach::Direct { v4, v4_bits, v6, v6_bits } => (v4_bits, v6_bits, (v4, v6)),
        };
        let inner = NewLink { name: "eth0", netns: Some(netns.as_fd()), ..NewLink::default() };
        let host_link = match plan.attach {
            Attach::Macvlan(at) => {
                let parent = index_of(netlink, &bridge(at)?.name)?;
                netlink.create_macvlan(&inner, parent, MacvlanMode::Bridge)?;
                None
            }
            Attach::Bridge(at) => {
                let master = index_of(netlink, &bridge(at)?.name)?;
                netlink.create_veth(&NewLink::named(&host_end), &inner)?;
                let index = index_of(netlink, &host_end)?;
                switch_on(netlink, index, Some(master))?;
                Some((host_end, index))
            }
            Attach::Direct { .. } => {
                netlink.create_veth(&NewLink::named(&host_end), &inner)?;
                let index = index_of(netlink, &host_end)?;
                switch_on(netlink, index, None)?;
                Some((host_end, index))
            }
        };
        let ifindex = index_of(&mut inside, "eth0")?;
        switch_on(&mut inside, ifindex, None)?;
        // Only now does the host end carry: an IPv6 address given to it before would stay silent.
        if let (Attach::Direct { v4, v4_bits, v6, v6_bits }, Some((_, index))) = (&plan.attach, &host_link) {
            netlink.add_address(*index, ROUTER, 64, true)?;
            netlink.add_address(*index, (*v4).into(), *v4_bits, true)?;
            netlink.add_address(*index, (*v6).into(), *v6_bits, true)?;
        }
        inside.add_address(ifindex, plan.v4.into(), v4_bits, true)?;
        inside.add_address(ifindex, plan.v6.into(), v6_bits, true)?;
        let default =
            |gateway: IpAddr, any: IpAddr| NewRoute { destination: any, prefix_len: 0, gateway: Some(gateway), ifindex: Some(ifindex) };
        inside.add_route(&default(gateways.0.into(), Ipv4Addr::UNSPECIFIED.into()))?;
        inside.add_route(&default(gateways.1.into(), Ipv6Addr::UNSPECIFIED.into()))?;
        let mac = inside.link(ifindex)?.and_then(|l| l.mac).ok_or_else(|| FabricError::Vanished(plan.name.clone()))?;
        self.nodes.push(Node { name: plan.name.clone(), netns, v4: plan.v4, v6: plan.v6, mac, ifindex, host_link });
        Ok(())
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        for (setting, before) in self.settings.drain(..).rev() {
            let _ = self.host.run(|| sysctl::write(setting, &before)); // the namespace may be gone with its settings
        }
        self.nodes.clear(); // lets go of the namespaces, which `clean` then unnames
        let _ = self.host.run(|| self.plan.clean()); // best effort: the next build of this plan cleans again
    }
}

/// The link-local address of the host on each of its links. The kernel asks for neighbours of forwarded IPv6 packets
/// from a link-local address only (`ndisc_solicit`), and one that it makes itself is tentative for a second.
const ROUTER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// In two requests: in one, the link comes up before it learns to make no link-local address.
fn switch_on(netlink: &mut Netlink, index: u32, master: Option<u32>) -> Result<(), FabricError> {
    netlink.change_link(index, &LinkChange { no_link_local: true, ..LinkChange::default() })?;
    Ok(netlink.change_link(index, &LinkChange { master, up: Some(true), ..LinkChange::default() })?)
}

fn loopback_up(netlink: &mut Netlink) -> Result<(), FabricError> {
    let index = index_of(netlink, "lo")?;
    Ok(netlink.set_up(index, true)?)
}

fn index_of(netlink: &mut Netlink, name: &str) -> Result<u32, FabricError> {
    netlink.link_named(name)?.map(|l| l.ifindex).ok_or_else(|| FabricError::Vanished(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_somebodys_addresses_is_refused() {
        let node = |v4: [u8; 4]| NodePlan {
            name: "x".into(),
            v4: v4.into(),
            v6: "2001:db8::2".parse().expect("address"),
            attach: Attach::Macvlan(0),
        };
        let plan = |host, v4| Plan { prefix: "x".into(), host, nodes: vec![node(v4)], ..Plan::default() };
        assert!(plan(Host::Current, [198, 51, 100, 9]).check().is_ok());
        assert!(matches!(plan(Host::Current, [192, 0, 2, 9]).check(), Err(FabricError::Address(_))));
        assert!(plan(Host::Named("h".into()), [192, 0, 2, 9]).check().is_ok());
        assert!(matches!(plan(Host::Named("h".into()), [10, 0, 0, 1]).check(), Err(FabricError::Address(_))));
    }

    #[test]
    fn only_its_own_host_ends_are_known_by_name() {
        let plan = Plan { prefix: "bhlab".into(), ..Plan::default() };
        assert!(plan.is_host_end("bhlabv0") && plan.is_host_end("bhlabv12"));
        for other in ["bhlab0", "bhlabv", "bhlabvx", "veth0", "xbhlabv1"] {
            assert!(!plan.is_host_end(other), "{other}");
        }
    }
}
