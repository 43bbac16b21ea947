//! Segments where the kernel tier is not there to ask them: on the fallback path. The same questions in the same order as
//! `judge_segment` of `bpf/net/path.bpf.c`: who opened the flow, which two classes, the first rule that fits. Pure: tables in,
//! an answer out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bulkhead_bpf::layout::SegmentValue;
use bulkhead_model::Timestamp;

use crate::frame::Glance;

/// Flows whose answer is remembered, for each worker.
pub const SEGMENT_FLOWS_MAX: usize = 32_768;
/// A flow that has been silent for so long is asked anew.
const FLOW_SILENT_NS: u64 = 120_000_000_000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
/// Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200): what is behind them is not looked up.
const EXTENSION_HEADERS: [u8; 5] = [0, 43, 44, 51, 60];
/// Router and neighbour solicitations and advertisements, redirects: without them there is no IPv6 link (RFC 4861).
const NEIGHBOUR_TYPES: std::ops::RangeInclusive<u8> = 133..=137;

/// Who may open connections to whom, by class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentTable {
    pub pairs: BTreeMap<(u32, u32), SegmentValue>,
    /// What holds where no rule fits.
    pub deny: bool,
}

impl SegmentTable {
    /// Is there anything that could deny?
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && !self.deny
    }

    /// `None`: allowed. Else the index of the rule that denies, 0xffff for the default. What is not known (`None` for the
    /// protocol behind an extension header, or for ports in a fragment) fits no rule that allows and every rule that denies.
    fn denied(&self, from: u32, to: u32, protocol: Option<u8>, port: Option<u16>) -> Option<u32> {
        const DENY: u8 = 1;
        if let Some(segment) = self.pairs.get(&(from, to)) {
            for rule in segment.rules.iter().take(segment.count as usize) {
                let doubt = rule.action == DENY;
                let protocol_fits = rule.protocol == 0 || protocol.map_or(doubt, |protocol| protocol == rule.protocol);
                let any_port = (rule.port_low, rule.port_high) == (0, 0xffff);
                let port_fits = port.map_or(doubt || any_port, |port| (rule.port_low..=rule.port_high).contains(&port));
                if protocol_fits && port_fits {
                    return (rule.action == DENY).then_some(u32::from(rule.rule));
                }
            }
        }
        self.deny.then_some(0xffff)
    }
}

/// The answer for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Allowed,
    /// By this rule; `first`: nobody has been told of this flow yet.
    Denied {
        rule: u32,
        first: bool,
    },
}

/// A flow by its two ends, the lower one first.
type Key = (u8, (IpAddr, u16), (IpAddr, u16));

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// The lower end opened it.
    low_opened: bool,
    denied: Option<u32>,
    generation: u64,
    last: Timestamp,
}

/// Answers given, of one worker.
#[derive(Debug, Default)]
pub struct SegmentFlows {
    flows: HashMap<Key, Flow>,
    /// Times that the table was full and was emptied: flows are asked anew, who opened them is taken from what comes next.
    pub emptied: u64,
}

impl SegmentFlows {
    /// Asks for a packet from a place of class `src` to one of class `dst`. `packet` begins with its IP header.
    pub fn ask(
        &mut self,
        now: Timestamp,
        table: &SegmentTable,
        generation: u64,
        packet: &[u8],
        glance: &Glance,
        (src, dst): (u32, u32),
    ) -> Answer {
        if table.is_empty() || is_neighbour(packet, glance) {
            return Answer::Allowed;
        }
        let (near, far) = ((glance.src, glance.src_port), (glance.dst, glance.dst_port));
        let sender_is_low = near <= far;
        let key = if sender_is_low { (glance.protocol, near, far) } else { (glance.protocol, far, near) };
        let flags = tcp_flags(packet, glance);
        let opens = flags.is_some_and(|flags| flags & (TCP_SYN | TCP_ACK) == TCP_SYN);
        let known = self.flows.get(&key).copied().filter(|flow| !opens && now.0.saturating_sub(flow.last.0) < FLOW_SILENT_NS);
        if let Some(flow) = known
            && flow.generation == generation
        {
            if let Some(kept) = self.flows.get_mut(&key) {
                kept.last = now;
            }
            return flow.denied.map_or(Answer::Allowed, |rule| Answer::Denied { rule, first: false });
        }
        let sender_opened = match (known, flags) {
            (Some(flow), _) => flow.low_opened == sender_is_low,
            (None, Some(flags)) if flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK => false,
            (None, Some(flags)) if flags & TCP_SYN == 0 => glance.src_port >= glance.dst_port,
            (None, _) => true,
        };
        let (from, to, service) = if sender_opened { (src, dst, glance.dst_port) } else { (dst, src, glance.src_port) };
        let six = glance.src.is_ipv6();
        let hidden = six && EXTENSION_HEADERS.contains(&glance.protocol);
        let protocol = (!hidden).then_some(glance.protocol);
        let portless = hidden || (glance.fragment && matches!(glance.protocol, TCP | UDP | SCTP));
        let denied = table.denied(from, to, protocol, (!portless).then_some(service));
        self.keep(key, Flow { low_opened: sender_opened == sender_is_low, denied, generation, last: now });
        denied.map_or(Answer::Allowed, |rule| Answer::Denied { rule, first: true })
    }

    fn keep(&mut self, key: Key, flow: Flow) {
        if self.flows.len() >= SEGMENT_FLOWS_MAX && !self.flows.contains_key(&key) {
            self.flows.retain(|_, kept| flow.last.0.saturating_sub(kept.last.0) < FLOW_SILENT_NS);
            // Emptied whole rather than by search: a flood costs no more than its own packets.
            if self.flows.len() >= SEGMENT_FLOWS_MAX / 4 * 3 {
                self.flows.clear();
                self.emptied += 1;
            }
        }
        self.flows.insert(key, flow);
    }
}

fn tcp_flags(packet: &[u8], glance: &Glance) -> Option<u8> {
    if glance.protocol != TCP || glance.fragment { None } else { packet.get(glance.transport_at + 13).copied() }
}

fn is_neighbour(packet: &[u8], glance: &Glance) -> bool {
    glance.protocol == ICMPV6 && glance.src.is_ipv6() && packet.get(glance.transport_at).is_some_and(|kind| NEIGHBOUR_TYPES.contains(kind))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bulkhead_net::craft::{self, Segment};

    use super::*;
    use crate::frame::glance_ip;
    use crate::path::segment_value;

    const CLIENTS: u32 = 20;
    const SERVERS: u32 = 21;
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));
    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 3));

    /// Clients may open 80 of servers, and nothing else; servers may open nothing of clients.
    fn table() -> SegmentTable {
        let pairs = BTreeMap::from([
            ((CLIENTS, SERVERS), segment_value(&[(6, 80, 80, false, 1), (0, 0, 0xffff, true, 2)])),
            ((SERVERS, CLIENTS), segment_value(&[(0, 0, 0xffff, true, 3)])),
        ]);
        SegmentTable { pairs, deny: false }
    }

    fn ask(flows: &mut SegmentFlows, generation: u64, packet: &[u8]) -> Answer {
        let glance = glance_ip(packet, 0, 0).unwrap();
        let classes = if glance.src == CLIENT { (CLIENTS, SERVERS) } else { (SERVERS, CLIENTS) };
        flows.ask(Timestamp(1), &table(), generation, packet, &glance, classes)
    }

    fn tcp(there: bool, ports: (u16, u16), flags: u8) -> Vec<u8> {
        let (from, to) = if there { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let mut packet = craft::tcp(from, to, &Segment { src_port: ports.0, dst_port: ports.1, ..Segment::default() });
        packet[33] = flags;
        packet
    }

    #[test]
    fn answers_follow_who_opened() {
        let mut flows = SegmentFlows::default();
        assert_eq!(ask(&mut flows, 1, &tcp(true, (40_000, 80), TCP_SYN)), Answer::Allowed);
        assert_eq!(ask(&mut flows, 1, &tcp(false, (80, 40_000), TCP_SYN | TCP_ACK)), Answer::Allowed, "its answer");
        assert_eq!(ask(&mut flows, 1, &tcp(false, (80, 40_000), TCP_ACK)), Answer::Allowed);
        assert_eq!(ask(&mut flows, 1, &tcp(true, (40_000, 81), TCP_SYN)), Answer::Denied { rule: 2, first: true });
        assert_eq!(ask(&mut flows, 1, &tcp(true, (40_000, 81), TCP_SYN)), Answer::Denied { rule: 2, first: true }, "opened anew");
        assert_eq!(ask(&mut flows, 1, &tcp(true, (40_000, 81), TCP_ACK)), Answer::Denied { rule: 2, first: false });
        assert_eq!(ask(&mut flows, 1, &tcp(false, (40_000, 80), TCP_SYN)), Answer::Denied { rule: 3, first: true }, "from the other side");
        // Picked up in its middle: the lower port is the service's.
        assert_eq!(ask(&mut flows, 1, &tcp(false, (80, 41_000), TCP_ACK)), Answer::Allowed);
        assert_eq!(ask(&mut flows, 1, &tcp(true, (41_001, 82), TCP_ACK)), Answer::Denied { rule: 2, first: true });
        // The answer to a SYN that nobody saw.
        assert_eq!(ask(&mut flows, 1, &tcp(false, (80, 42_000), TCP_SYN | TCP_ACK)), Answer::Allowed);
    }

    #[test]
    fn a_new_generation_asks_again_and_remembers_who_opened() {
        let mut flows = SegmentFlows::default();
        let datagram = craft::udp(SERVER, CLIENT, 53, 53, b"x");
        assert_eq!(ask(&mut flows, 1, &datagram), Answer::Denied { rule: 3, first: true });
        assert_eq!(ask(&mut flows, 1, &datagram), Answer::Denied { rule: 3, first: false });
        let back = craft::udp(CLIENT, SERVER, 53, 53, b"x");
        assert_eq!(ask(&mut flows, 2, &back), Answer::Denied { rule: 3, first: true }, "still the server's flow");
    }

    #[test]
    fn what_cannot_be_read_fits_denials_only() {
        let mut flows = SegmentFlows::default();
        let piece = craft::fragment(CLIENT, SERVER, 6, 7, 0, true, &[0; 64]);
        assert_eq!(ask(&mut flows, 1, &piece), Answer::Denied { rule: 2, first: true });
        let allow_all = SegmentTable { pairs: BTreeMap::new(), deny: true };
        let glance = glance_ip(&piece, 0, 0).unwrap();
        assert_eq!(
            flows.ask(Timestamp(1), &allow_all, 5, &piece, &glance, (CLIENTS, SERVERS)),
            Answer::Denied { rule: 0xffff, first: true }
        );
    }

    #[test]
    fn neighbour_discovery_is_never_denied() {
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let solicit = craft::icmp(a, b, 135, 0, &[0; 20]);
        let glance = glance_ip(&solicit, 0, 0).unwrap();
        let deny = SegmentTable { pairs: BTreeMap::new(), deny: true };
        let mut flows = SegmentFlows::default();
        assert_eq!(flows.ask(Timestamp(1), &deny, 1, &solicit, &glance, (1, 1)), Answer::Allowed);
        let echo = craft::icmp(a, b, 128, 0, &[0; 20]);
        let glance = glance_ip(&echo, 0, 0).unwrap();
        assert!(matches!(flows.ask(Timestamp(1), &deny, 1, &echo, &glance, (1, 1)), Answer::Denied { .. }));
    }

    #[test]
    fn a_flood_stays_within_the_cap() {
        let mut flows = SegmentFlows::default();
        for flow in 0..(SEGMENT_FLOWS_MAX as u32 * 2) {
            let ports = ((flow >> 8) as u16 + 1000, (flow & 0xff) as u16 + 1000);
            let _ = ask(&mut flows, 1, &craft::udp(CLIENT, SERVER, ports.0, ports.1, b"x"));
            assert!(flows.flows.len() <= SEGMENT_FLOWS_MAX);
        }
        assert!(flows.emptied > 0);
    }
}
