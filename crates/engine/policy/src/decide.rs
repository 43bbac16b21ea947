//! The reference: what a policy says about one packet, read straight from the rules with no table between. The table
//! that the kernel uses is tested against it.

use bulkhead_model::{Network, Workload};

use crate::config::Action;
use crate::snapshot::PolicySnapshot;
use crate::values::{Peer, Proto, has_ports};

/// One end of traffic.
#[derive(Debug, Clone, Copy)]
pub enum Party<'a> {
    World,
    Host,
    Container(&'a Workload),
    /// Workloads that share one network namespace: a rule that matches one of them matches all.
    Containers(&'a [&'a Workload]),
}

/// The first rule that matches decides: its action and its place in the list, or the default and `None`.
/// `src` opens the connection. `port` is that of `dst`, of no meaning where the protocol has none.
pub fn decide(policy: &PolicySnapshot, src: Party<'_>, dst: Party<'_>, proto: u8, port: u16) -> (Action, Option<u16>) {
    for (index, rule) in policy.segment_rules().iter().enumerate() {
        let proto_fits = match rule.proto {
            Proto::Any => true,
            Proto::Icmp => proto == 1 || proto == 58,
            Proto::Number(number) => proto == number,
        };
        let in_range = has_ports(proto) && rule.ports.iter().any(|range| range.low <= port && port <= range.high);
        let port_fits = rule.ports.is_empty() || in_range;
        if proto_fits && port_fits && src.is(&rule.from) && dst.is(&rule.to) {
            return (rule.action, u16::try_from(index).ok());
        }
    }
    (policy.segment_default(), None)
}

impl Party<'_> {
    fn is(self, peer: &Peer) -> bool {
        let on_host = |workload: &Workload| matches!(workload.network, Network::Host);
        match (self, peer) {
            (_, Peer::Any) => true,
            (Self::World, Peer::World) => true,
            (Self::Host, Peer::Host) => true,
            (Self::Container(workload), Peer::Host) => on_host(workload),
            (Self::Container(workload), Peer::Containers(selector)) => !on_host(workload) && selector.matches(workload),
            (Self::Containers(all), Peer::Containers(selector)) => all.iter().any(|w| !on_host(w) && selector.matches(w)),
            (Self::World, Peer::Host | Peer::Containers(_)) => false,
            (Self::Host, Peer::World | Peer::Containers(_)) => false,
            (Self::Container(_), Peer::World) => false,
            (Self::Containers(_), Peer::World | Peer::Host) => false,
        }
    }
}
