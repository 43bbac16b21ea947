//! The flow table: which conversation a packet belongs to, and in which direction.
//!
//! A flow is found by zone, addresses, ports, protocol and VLAN ids, whichever end sent the packet. The client
//! is the end that sent the SYN, or the first packet. Where a TCP connection is met in its middle, somebody
//! who saw its handshake is asked ([`Origin`]); failing that, the higher port is taken for the client's.
//!
//! The table holds at most [`FlowConfig::flows_max`] flows, whatever comes. When it is full the oldest flow of
//! the least worth is evicted: closed ones first, then those that have seen one direction only (a flood
//! consists of these), then established ones. Finding, touching and evicting take constant time.

use std::net::IpAddr;

use bulkhead_model::Timestamp;

use crate::decode::{Packet, Transport};
use crate::stats::counters;
use crate::stream::{Phase, TcpStream};

mod hash;
mod table;

pub use table::{FlowRef, FlowTable};

/// Seen from the conversation, not from the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    pub const fn opposite(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    /// As EVE writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToServer => "to_server",
            Self::ToClient => "to_client",
        }
    }
}

/// One end of a conversation. For an ICMP echo `port` is its identifier, for protocols without ports 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub addr: IpAddr,
    pub port: u16,
}

/// Of a zone: set by a caller that knows which end of a packet is its own, whatever the packet's addresses say, where that end has
/// the higher address. So what one end sends in the name of the other is not of their flow.
pub const ZONE_SIDE: u32 = 1 << 31;

/// Ends, protocol and place of a packet, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where these addresses mean something: an address may occur in several networks. Given by the caller, perhaps with
    /// [`ZONE_SIDE`].
    pub zone: u32,
    pub proto: u8,
    pub vlan: crate::decode::VlanIds,
    pub src: Endpoint,
    pub dst: Endpoint,
}

impl Tuple {
    /// Of a whole packet. Fragments have no ports: put the datagram together first.
    pub fn of(zone: u32, packet: &Packet<'_>) -> Self {
        let (src_port, dst_port) = match &packet.transport {
            Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => icmp.echo.map_or((0, 0), |(id, _)| (id, id)),
            Transport::Tcp(_)
            | Transport::Udp(_)
            | Transport::Sctp { .. }
            | Transport::Igmp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Other => packet.ports(),
        };
        Self {
            zone,
            proto: packet.proto(),
            vlan: packet.vlan,
            src: Endpoint { addr: packet.src(), port: src_port },
            dst: Endpoint { addr: packet.dst(), port: dst_port },
        }
    }

    /// The packet that an ICMP error quotes.
    pub fn quoted(zone: u32, packet: &Packet<'_>) -> Option<Self> {
        let quoted = match &packet.transport {
            Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => icmp.quoted?,
            Transport::Tcp(_)
            | Transport::Udp(_)
            | Transport::Sctp { .. }
            | Transport::Igmp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Other => return None,
        };
        Some(Self {
            zone,
            proto: quoted.proto,
            vlan: packet.vlan,
            src: Endpoint { addr: quoted.src, port: quoted.src_port },
            dst: Endpoint { addr: quoted.dst, port: quoted.dst_port },
        })
    }

    pub const fn reversed(self) -> Self {
        Self { zone: self.zone, proto: self.proto, vlan: self.vlan, src: self.dst, dst: self.src }
    }

    /// The same for both directions: the lower end first.
    fn normal(self) -> Self {
        if self.src <= self.dst { self } else { self.reversed() }
    }
}

/// What is known of a connection's handshake by somebody who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Whether the sender of the packet in question sent the SYN.
    pub source_is_client: bool,
    /// The next sequence number from the client that has not been judged: its initial one plus one while
    /// nothing was sent. `None`: not known.
    pub client_next: Option<u32>,
    pub server_next: Option<u32>,
}

/// Knows handshakes that the table has not seen: the kernel's flow map.
pub trait Origin {
    /// Asked once for a TCP connection whose first packet here is not a SYN.
    fn handshake(&mut self, tuple: &Tuple) -> Option<Handshake>;
}

/// Nobody saw it.
impl Origin for () {
    fn handshake(&mut self, _tuple: &Tuple) -> Option<Handshake> {
        None
    }
}

/// Cap and time-outs. Seconds; Suricata's defaults (suricata.yaml, `flow-timeouts`) where not said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowConfig {
    /// The cap. The default holds a container host's busy hour in about 200 MiB.
    pub flows_max: usize,
    pub tcp_new_secs: u64,
    pub tcp_established_secs: u64,
    /// Suricata says 60. The kernel on both ends tells a new connection from an old one by its SYN, so a
    /// closed flow is kept only for stragglers.
    pub tcp_closed_secs: u64,
    pub udp_new_secs: u64,
    pub udp_established_secs: u64,
    pub icmp_secs: u64,
    pub other_new_secs: u64,
    pub other_established_secs: u64,
    pub bypassed_secs: u64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            flows_max: 262_144,
            tcp_new_secs: 60,
            tcp_established_secs: 600,
            tcp_closed_secs: 10,
            udp_new_secs: 30,
            udp_established_secs: 300,
            icmp_secs: 30,
            other_new_secs: 30,
            other_established_secs: 300,
            bypassed_secs: 100,
        }
    }
}

/// Packets and bytes (of whole frames) of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
}

/// One conversation, with the caller's state `S`.
#[derive(Debug)]
pub struct Flow<S> {
    /// Unique within a table, below 2^53: EVE's `flow_id`.
    pub id: u64,
    /// As the client's packets have it.
    pub tuple: Tuple,
    pub start: Timestamp,
    pub last: Timestamp,
    pub to_server: Counts,
    pub to_client: Counts,
    /// Set by the caller for TCP, see [`crate::stream::Reassembler::open`].
    pub tcp: Option<Box<TcpStream>>,
    pub state: S,
    /// The kernel inspects no longer what belongs to it; set by the caller.
    pub bypassed: bool,
    /// The number under which the kernel knows it, 0 when it does not.
    pub epoch: u64,
    /// Its handshake was seen, here or by the [`Origin`].
    pub handshake_seen: bool,
}

impl<S> Flow<S> {
    pub const fn client(&self) -> Endpoint {
        self.tuple.src
    }

    pub const fn server(&self) -> Endpoint {
        self.tuple.dst
    }

    pub const fn counts(&self, dir: Direction) -> Counts {
        match dir {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    /// Which list it stands in.
    fn class(&self) -> Class {
        let both = self.to_server.packets > 0 && self.to_client.packets > 0;
        match (self.tuple.proto, &self.tcp) {
            (_, Some(tcp)) if tcp.phase() == Phase::Closed => Class::TcpClosed,
            _ if self.bypassed => Class::Bypassed,
            (_, Some(tcp)) if tcp.is_established() && (both || self.handshake_seen) => Class::TcpEstablished,
            (6, _) => Class::TcpNew,
            (17, _) if both => Class::UdpEstablished,
            (17, _) => Class::UdpNew,
            (1 | 58, _) => Class::Icmp,
            _ if both => Class::OtherEstablished,
            _ => Class::OtherNew,
        }
    }

    /// EVE's `flow.state`.
    pub fn state_name(&self) -> &'static str {
        match self.class() {
            Class::TcpNew | Class::UdpNew | Class::OtherNew => "new",
            Class::TcpEstablished | Class::UdpEstablished | Class::OtherEstablished | Class::Icmp => "established",
            Class::TcpClosed => "closed",
            Class::Bypassed => "bypassed",
        }
    }
}

/// Flows of one class have one time-out, so each class is a list ordered by last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    TcpNew,
    TcpEstablished,
    TcpClosed,
    UdpNew,
    UdpEstablished,
    Icmp,
    OtherNew,
    OtherEstablished,
    Bypassed,
}

const CLASSES: usize = 9;

/// Whom to evict first: within a group the flow that was quiet for longest.
const EVICTION_ORDER: [&[Class]; 4] = [
    &[Class::TcpClosed],
    &[Class::TcpNew, Class::UdpNew, Class::Icmp, Class::OtherNew],
    &[Class::UdpEstablished, Class::OtherEstablished, Class::Bypassed],
    &[Class::TcpEstablished],
];

impl Class {
    const fn timeout_secs(self, config: &FlowConfig) -> u64 {
        match self {
            Self::TcpNew => config.tcp_new_secs,
            Self::TcpEstablished => config.tcp_established_secs,
            Self::TcpClosed => config.tcp_closed_secs,
            Self::UdpNew => config.udp_new_secs,
            Self::UdpEstablished => config.udp_established_secs,
            Self::Icmp => config.icmp_secs,
            Self::OtherNew => config.other_new_secs,
            Self::OtherEstablished => config.other_established_secs,
            Self::Bypassed => config.bypassed_secs,
        }
    }
}

/// Why a flow is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// Nothing came for its class's time.
    Timeout,
    /// TCP closed it.
    Closed,
    /// The table was full.
    Evicted,
    /// A new connection between the same ends took its place.
    Superseded,
    /// [`FlowTable::clear`].
    Shutdown,
}

impl FlowEnd {
    /// EVE's `flow.reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout | Self::Closed => "timeout",
            Self::Evicted | Self::Superseded => "forced",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Debug)]
pub struct EndedFlow<S> {
    pub flow: Flow<S>,
    pub why: FlowEnd,
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub flow: FlowRef,
    pub dir: Direction,
    /// The flow was made for this packet.
    pub fresh: bool,
    /// Of a fresh TCP flow, when its origin knows it.
    pub handshake: Option<Handshake>,
    /// The packet is an ICMP error about the flow, not a packet of it; it is not counted there.
    pub related: bool,
}

counters! {
    pub struct FlowStats {
        created => "flow.created",
        tcp => "flow.tcp",
        udp => "flow.udp",
        icmp => "flow.icmp",
        other => "flow.other",
        related => "flow.icmp_related",
        ended_timeout => "flow.end.timeout",
        ended_closed => "flow.end.closed",
        ended_evicted => "flow.end.evicted",
        /// Of the evicted: those that were established.
        evicted_established => "flow.end.evicted_established",
        ended_superseded => "flow.end.superseded",
        ended_shutdown => "flow.end.shutdown",
    }
}

#[cfg(test)]
mod tests;
