//! One frame in, one checked view out, nothing copied.
//!
//! [`Decoder::frame`] strips the link layer and the VLAN tags, checks the IP header against the bytes that are
//! really there, walks IPv6's extension headers and stops at the first transport header. A tunnel (IP in IP,
//! GRE, VXLAN, Geneve, Teredo) is a packet like any other; what it carries is decoded by
//! [`Decoder::inner`], up to [`TUNNEL_DEPTH_MAX`] deep, so that outer and inner are both judged.
//!
//! Every input has one of three outcomes ([`Decoded`]). *Malformed* means that the receiver's kernel throws
//! the packet away before any socket sees it, or that we cannot say what it would make of it. Odd but
//! deliverable packets are *packets* and carry [`DecodeEvent`]s.
//!
//! Frames of a live path may be GSO superpackets: longer than any MTU, with a checksum that the sender left
//! to the hardware. [`FrameMeta`] says so; for a captured frame nothing is known and everything is verified.

mod event;
mod ip;
mod link;
mod refused;
mod transport;
mod tunnel;

use std::net::IpAddr;

use crate::stats::counters;

pub use event::{DecodeEvent, Events, NEVER_RAISED};
pub use ip::{Fragment, Ip, IpVersion};
pub use link::{Ether, LinkType, VLAN_TAGS_MAX, VlanIds};
pub use transport::{Icmp, Quoted, Tcp, TcpFlags, TcpOptions, Transport, Udp};
pub use tunnel::{Tunnel, TunnelKind};

/// Packets within packets that are looked into. Four covers VXLAN over GRE over IPv6 over IPv4; deeper ones
/// are reported as [`DecodeEvent::TooManyLayers`].
pub const TUNNEL_DEPTH_MAX: u8 = 4;

/// Extension headers of one IPv6 packet. RFC 8200 section 4.1 knows six kinds, one of them twice.
pub const EXTENSION_HEADERS_MAX: usize = 16;

/// What is known of the checksums of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumState {
    /// Nothing is known: verify all of them.
    #[default]
    Unknown,
    /// The sender left the transport checksum that starts at this byte of the frame to the hardware
    /// (`CHECKSUM_PARTIAL`, virtio `csum_start`): it is right by construction, and so are the ones outside of
    /// it. Headers of IPv4 and transport checksums further inside are verified.
    Partial { start: u32 },
    /// The kernel has verified the outermost transport checksum (`CHECKSUM_UNNECESSARY`,
    /// `VIRTIO_NET_HDR_F_DATA_VALID`). Headers of IPv4 and checksums further inside are verified.
    Verified,
    /// Never look at checksums: captures taken on a sending host (Suricata's `-k none`).
    Ignored,
}

/// What the capture knows of a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameMeta {
    pub link: LinkType,
    pub checksum: ChecksumState,
    /// A superpacket: an IP length of 0 means the length of the frame (BIG TCP).
    pub gso: bool,
}

/// Which UDP ports carry tunnels, and whether to look into tunnels at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeConfig {
    pub tunnels: bool,
    /// 4789 is IANA's, 8472 Linux' default (flannel).
    pub vxlan_ports: Vec<u16>,
    pub geneve_ports: Vec<u16>,
    pub teredo_ports: Vec<u16>,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self { tunnels: true, vxlan_ports: vec![4789, 8472], geneve_ports: vec![6081], teredo_ports: vec![3544] }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant)] // A view of borrowed slices, built once per packet and never stored.
pub enum Decoded<'a> {
    Packet(Packet<'a>),
    /// Not IP: only rules on frames have a word. With the Ethernet header that it stood behind.
    Ignored(Ignored, Option<Ether>),
    /// The receiver's kernel discards it, or we cannot tell what it would do.
    Malformed(Malformed),
}

/// Kinds of frames that carry no IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    Arp,
    /// An 802.3 frame with an LLC header: spanning tree and the like.
    Llc,
    /// Another EtherType, in host order.
    EtherType(u16),
    /// A PPP protocol other than IP, or PPPoE discovery.
    Ppp,
    /// An address family of a null or loopback link that is not IP.
    Family(u32),
}

/// What could be read of a frame before it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The finding that ended the decoding.
    pub event: DecodeEvent,
    /// All findings, [`Self::event`] included.
    pub events: Events,
    pub vlan: VlanIds,
    /// Source, destination and protocol, when the IP header was readable.
    pub ip: Option<(IpAddr, IpAddr, u8)>,
    pub depth: u8,
}

/// A packet whose headers are within its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Of the outermost frame, link layer included: for counting bytes.
    pub frame_len: usize,
    /// `None` on links without addresses and inside tunnels that carry bare IP.
    pub ether: Option<Ether>,
    pub vlan: VlanIds,
    pub ip: Ip<'a>,
    pub transport: Transport<'a>,
    /// What follows the transport header; of a fragment or an unknown protocol, what follows the IP headers.
    pub payload: &'a [u8],
    pub events: Events,
    /// 0 for the frame itself, 1 for what a tunnel in it carries, and so on.
    pub depth: u8,
    checksum: ChecksumState,
    frame: &'a [u8],
}

impl<'a> Packet<'a> {
    pub const fn src(&self) -> IpAddr {
        self.ip.src
    }

    pub const fn dst(&self) -> IpAddr {
        self.ip.dst
    }

    /// The protocol above IP; of a fragment, the protocol of the whole datagram where it is known.
    pub const fn proto(&self) -> u8 {
        self.ip.proto
    }

    /// Source and destination port of TCP, UDP and SCTP, else 0.
    pub const fn ports(&self) -> (u16, u16) {
        match &self.transport {
            Transport::Tcp(tcp) => (tcp.src_port, tcp.dst_port),
            Transport::Udp(udp) => (udp.src_port, udp.dst_port),
            Transport::Sctp { src_port, dst_port, .. } => (*src_port, *dst_port),
            Transport::Icmp(_)
            | Transport::Icmpv6(_)
            | Transport::Igmp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Other => (0, 0),
        }
    }

    pub const fn tcp(&self) -> Option<&Tcp<'a>> {
        match &self.transport {
            Transport::Tcp(tcp) => Some(tcp),
            Transport::Udp(_)
            | Transport::Icmp(_)
            | Transport::Icmpv6(_)
            | Transport::Igmp { .. }
            | Transport::Sctp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Other => None,
        }
    }

    /// A checksum is wrong: the receiver discards it, so no state may follow from it.
    pub const fn checksum_invalid(&self) -> bool {
        self.events.contains(DecodeEvent::Ipv4InvalidChecksum)
            || self.events.contains(DecodeEvent::TcpInvalidChecksum)
            || self.events.contains(DecodeEvent::UdpInvalidChecksum)
            || self.events.contains(DecodeEvent::Icmpv4InvalidChecksum)
            || self.events.contains(DecodeEvent::Icmpv6InvalidChecksum)
            || self.events.contains(DecodeEvent::IgmpInvalidChecksum)
    }
}

counters! {
    /// Counted per decoded layer: a tunnelled packet counts once outside and once inside.
    pub struct DecodeStats {
        packets => "decoder.pkts",
        bytes => "decoder.bytes",
        ignored => "decoder.ignored",
        arp => "decoder.arp",
        malformed => "decoder.invalid",
        ipv4 => "decoder.ipv4",
        ipv6 => "decoder.ipv6",
        tcp => "decoder.tcp",
        udp => "decoder.udp",
        icmpv4 => "decoder.icmpv4",
        icmpv6 => "decoder.icmpv6",
        sctp => "decoder.sctp",
        igmp => "decoder.igmp",
        gre => "decoder.gre",
        esp => "decoder.esp",
        other => "decoder.unknown_protocol",
        fragments => "decoder.fragments",
        vlan => "decoder.vlan",
        vlan_qinq => "decoder.vlan_qinq",
        tunnels => "decoder.tunnels",
        /// Tunnels below [`TUNNEL_DEPTH_MAX`] were left unopened.
        tunnels_too_deep => "decoder.too_many_layers",
        checksum_invalid => "decoder.invalid_checksum",
        /// Packets with at least one event.
        events => "decoder.events",
    }
}

/// Decodes frames and counts what it saw. Keeps nothing of a frame.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    pub config: DecodeConfig,
    pub stats: DecodeStats,
}

impl Decoder {
    pub fn new(config: DecodeConfig) -> Self {
        Self { config, stats: DecodeStats::default() }
    }

    /// Decodes one frame as it was on the wire.
    pub fn frame<'a>(&mut self, meta: FrameMeta, frame: &'a [u8]) -> Decoded<'a> {
        self.stats.bytes += frame.len() as u64;
        let layer = Layer { frame, frame_len: frame.len(), checksum: meta.checksum, gso: meta.gso, depth: 0, vlan: VlanIds::NONE };
        let decoded = link::decode(layer, meta.link, frame);
        self.count(decoded)
    }

    /// Decodes what the tunnel of `packet` carries. `None` when it is none or tunnels are off; malformed with
    /// [`DecodeEvent::TooManyLayers`] when it lies deeper than [`TUNNEL_DEPTH_MAX`].
    pub fn inner<'a>(&mut self, packet: &Packet<'a>) -> Option<Decoded<'a>> {
        let tunnel = tunnel::find(packet, &self.config)?;
        if packet.depth >= TUNNEL_DEPTH_MAX {
            self.stats.tunnels_too_deep += 1;
            let mut events = Events::NONE;
            events.insert(DecodeEvent::TooManyLayers);
            let event = DecodeEvent::TooManyLayers;
            let too_deep = Malformed { event, events, vlan: VlanIds::NONE, ip: None, depth: packet.depth + 1 };
            return Some(self.count(Decoded::Malformed(too_deep)));
        }
        self.stats.tunnels += 1;
        let checksum = match packet.checksum {
            // The start is counted in the frame, which is the same for all layers: it stays right.
            ChecksumState::Partial { start } => ChecksumState::Partial { start },
            ChecksumState::Verified | ChecksumState::Unknown => ChecksumState::Unknown,
            ChecksumState::Ignored => ChecksumState::Ignored,
        };
        let layer =
            Layer { frame: packet.frame, frame_len: packet.frame_len, checksum, gso: false, depth: packet.depth + 1, vlan: VlanIds::NONE };
        let decoded = match tunnel.link {
            Some(link) => link::decode(layer, link, tunnel.bytes),
            None => tunnel::decode_bare(layer, &tunnel),
        };
        Some(self.count(decoded))
    }

    /// Which tunnel `packet` is the outside of.
    pub fn tunnel<'a>(&self, packet: &Packet<'a>) -> Option<Tunnel<'a>> {
        tunnel::find(packet, &self.config)
    }

    /// Decodes a datagram that [`crate::defrag`] put together. `like` is the fragment that completed it: the
    /// link, VLAN and depth are taken from there. The IP header needs no check; transport checksums are
    /// verified unless they are ignored, for a fragment's sender cannot leave them to the hardware.
    pub fn datagram<'a>(&mut self, like: &Packet<'_>, datagram: &'a [u8]) -> Decoded<'a> {
        let checksum = match like.checksum {
            ChecksumState::Ignored => ChecksumState::Ignored,
            ChecksumState::Unknown | ChecksumState::Partial { .. } | ChecksumState::Verified => ChecksumState::Unknown,
        };
        let layer = Layer { frame: datagram, frame_len: like.frame_len, checksum, gso: false, depth: like.depth, vlan: like.vlan };
        let mut decoded = ip::decode_any(layer, datagram, Events::NONE);
        if let Decoded::Packet(packet) = &mut decoded {
            packet.ether = like.ether;
        }
        self.count(decoded)
    }

    fn count<'a>(&mut self, decoded: Decoded<'a>) -> Decoded<'a> {
        let stats = &mut self.stats;
        stats.packets += 1;
        match &decoded {
            Decoded::Packet(packet) => {
                match packet.ip.version {
                    IpVersion::V4 => stats.ipv4 += 1,
                    IpVersion::V6 => stats.ipv6 += 1,
                }
                match &packet.transport {
                    Transport::Tcp(_) => stats.tcp += 1,
                    Transport::Udp(_) => stats.udp += 1,
                    Transport::Icmp(_) => stats.icmpv4 += 1,
                    Transport::Icmpv6(_) => stats.icmpv6 += 1,
                    Transport::Sctp { .. } => stats.sctp += 1,
                    Transport::Igmp { .. } => stats.igmp += 1,
                    Transport::Gre { .. } => stats.gre += 1,
                    Transport::Esp { .. } => stats.esp += 1,
                    Transport::Fragment => stats.fragments += 1,
                    Transport::NoNextHeader | Transport::Other => stats.other += 1,
                }
                match packet.vlan.len() {
                    0 => {}
                    1 => stats.vlan += 1,
                    _ => stats.vlan_qinq += 1,
                }
                stats.checksum_invalid += u64::from(packet.checksum_invalid());
                stats.events += u64::from(!packet.events.is_empty());
            }
            Decoded::Ignored(Ignored::Arp, _) => {
                stats.arp += 1;
                stats.ignored += 1;
            }
            Decoded::Ignored(Ignored::Llc | Ignored::EtherType(_) | Ignored::Ppp | Ignored::Family(_), _) => stats.ignored += 1,
            Decoded::Malformed(_) => stats.malformed += 1,
        }
        decoded
    }
}

/// What the layers below hand to those above.
#[derive(Debug, Clone, Copy)]
struct Layer<'a> {
    frame: &'a [u8],
    frame_len: usize,
    checksum: ChecksumState,
    gso: bool,
    depth: u8,
    vlan: VlanIds,
}

impl Layer<'_> {
    fn malformed<'b>(&self, event: DecodeEvent, events: Events) -> Decoded<'b> {
        self.malformed_ip(event, events, None)
    }

    fn malformed_ip<'b>(&self, event: DecodeEvent, mut events: Events, ip: Option<(IpAddr, IpAddr, u8)>) -> Decoded<'b> {
        events.insert(event);
        Decoded::Malformed(Malformed { event, events, vlan: self.vlan, ip, depth: self.depth })
    }

    /// Whether the transport checksum whose header is `header` has to be verified.
    /// INVARIANT: `header` is a part of `self.frame`.
    fn verifies_transport(&self, header: &[u8]) -> bool {
        match self.checksum {
            ChecksumState::Unknown => true,
            ChecksumState::Partial { start } => {
                let at = (header.as_ptr() as usize).wrapping_sub(self.frame.as_ptr() as usize);
                at > start as usize
            }
            ChecksumState::Verified | ChecksumState::Ignored => false,
        }
    }

    const fn verifies_ipv4_header(&self) -> bool {
        !matches!(self.checksum, ChecksumState::Ignored)
    }
}

#[cfg(test)]
mod tests;
