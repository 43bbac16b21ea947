//! Packets within packets: where the inner one begins, and as what it is to be read.

use super::link::{self, LinkType};
use super::{DecodeConfig, DecodeEvent, Decoded, Events, Layer, Packet, Transport, ip};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging.
const ETHERTYPE_TEB: u16 = 0x6558;
const ETHERTYPE_PPP: u16 = 0x880b;
/// A mirrored frame (draft-foschiano-erspan-03): bare in type I, behind eight bytes in type II, which has a sequence number.
const ETHERTYPE_ERSPAN: u16 = 0x88be;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// IPv4 or IPv6 in IPv4 (protocols 4 and 41).
    IpInIpv4,
    /// IPv4 or IPv6 in IPv6.
    IpInIpv6,
    Gre,
    Vxlan,
    Geneve,
    Teredo,
}

/// The inside of a tunnel, not decoded yet.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel<'a> {
    pub kind: TunnelKind,
    /// `None`: by the version of the outer protocol number, or by `ethertype`.
    pub(super) link: Option<LinkType>,
    pub(super) ethertype: u16,
    pub bytes: &'a [u8],
}

/// The tunnel that `packet` is the outside of.
pub(super) fn find<'a>(packet: &Packet<'a>, config: &DecodeConfig) -> Option<Tunnel<'a>> {
    if !config.tunnels {
        return None;
    }
    let bytes = packet.payload;
    match packet.transport {
        Transport::Other => {
            let ethertype = match packet.ip.proto {
                4 => ETHERTYPE_IPV4,
                41 => ETHERTYPE_IPV6,
                _ => return None,
            };
            let kind = match packet.ip.version {
                ip::IpVersion::V4 => TunnelKind::IpInIpv4,
                ip::IpVersion::V6 => TunnelKind::IpInIpv6,
            };
            Some(Tunnel { kind, link: None, ethertype, bytes })
        }
        Transport::Gre { protocol: ETHERTYPE_ERSPAN, sequence, .. } => {
            let bytes = bytes.get(if sequence { 8 } else { 0 }..).filter(|frame| !frame.is_empty())?;
            Some(Tunnel { kind: TunnelKind::Gre, link: Some(LinkType::Ethernet), ethertype: ETHERTYPE_TEB, bytes })
        }
        Transport::Gre { protocol, .. } => {
            // Keep-alives and other empty payloads carry nothing.
            if bytes.is_empty() {
                return None;
            }
            let link = match protocol {
                ETHERTYPE_TEB => Some(LinkType::Ethernet),
                ETHERTYPE_PPP => Some(LinkType::Ppp),
                _ => None,
            };
            Some(Tunnel { kind: TunnelKind::Gre, link, ethertype: protocol, bytes })
        }
        Transport::Udp(udp) => {
            let to = |ports: &[u16]| ports.contains(&udp.dst_port);
            if to(&config.vxlan_ports) {
                vxlan(bytes)
            } else if to(&config.geneve_ports) {
                geneve(bytes)
            } else if to(&config.teredo_ports) || config.teredo_ports.contains(&udp.src_port) {
                teredo(bytes)
            } else {
                None
            }
        }
        Transport::Tcp(_)
        | Transport::Igmp { .. }
        | Transport::Icmp(_)
        | Transport::Icmpv6(_)
        | Transport::Sctp { .. }
        | Transport::Esp { .. }
        | Transport::Fragment
        | Transport::NoNextHeader => None,
    }
}

/// Decodes a tunnel that is read by EtherType.
pub(super) fn decode_bare<'a>(layer: Layer<'a>, tunnel: &Tunnel<'a>) -> Decoded<'a> {
    if tunnel.kind == TunnelKind::IpInIpv6 {
        let version = tunnel.bytes.first().map(|byte| byte >> 4);
        let wrong = match (tunnel.ethertype, tunnel.bytes.len(), version) {
            (ETHERTYPE_IPV4, 0..20, _) => Some(DecodeEvent::Ipv4InIpv6TooSmall),
            (ETHERTYPE_IPV4, _, version) if version != Some(4) => Some(DecodeEvent::Ipv4InIpv6WrongVersion),
            (ETHERTYPE_IPV6, 0..40, _) => Some(DecodeEvent::Ipv6InIpv6TooSmall),
            (ETHERTYPE_IPV6, _, version) if version != Some(6) => Some(DecodeEvent::Ipv6InIpv6WrongVersion),
            _ => None,
        };
        if let Some(event) = wrong {
            return layer.malformed(event, Events::NONE);
        }
    }
    link::ethertype(layer, None, tunnel.ethertype, tunnel.bytes)
}

/// RFC 7348, section 5, and the next-protocol bit of VXLAN-GPE. Linux accepts frames with the I flag only.
fn vxlan(bytes: &[u8]) -> Option<Tunnel<'_>> {
    let (&[flags, _, _, next, ..], rest) = bytes.split_first_chunk::<8>()?;
    if flags & 0x08 == 0 {
        return None;
    }
    let (link, ethertype) = match (flags & 0x04 != 0, next) {
        (false, _) | (true, 3) => (Some(LinkType::Ethernet), ETHERTYPE_TEB),
        (true, 1) => (None, ETHERTYPE_IPV4),
        (true, 2) => (None, ETHERTYPE_IPV6),
        (true, _) => return None,
    };
    Some(Tunnel { kind: TunnelKind::Vxlan, link, ethertype, bytes: rest })
}

/// RFC 8926, section 3.4.
fn geneve(bytes: &[u8]) -> Option<Tunnel<'_>> {
    let (&[first, _, p0, p1, ..], _) = bytes.split_first_chunk::<8>()?;
    if first >> 6 != 0 {
        return None;
    }
    let rest = bytes.get(8 + usize::from(first & 0x3f) * 4..)?;
    let ethertype = u16::from_be_bytes([p0, p1]);
    let link = (ethertype == ETHERTYPE_TEB).then_some(LinkType::Ethernet);
    Some(Tunnel { kind: TunnelKind::Geneve, link, ethertype, bytes: rest })
}

/// RFC 4380, section 5.1.1: optional authentication and origin indications, then an IPv6 packet that fills the
/// datagram. Anything else is not Teredo.
fn teredo(bytes: &[u8]) -> Option<Tunnel<'_>> {
    let mut rest = bytes;
    if let [0, 1, id_len, auth_len, ..] = rest {
        rest = rest.get(13 + usize::from(*id_len) + usize::from(*auth_len)..)?;
    }
    if let [0, 0, ..] = rest {
        rest = rest.get(8..)?;
    }
    let (head, body) = rest.split_first_chunk::<40>()?;
    let fits = head[0] >> 4 == 6 && usize::from(u16::from_be_bytes([head[4], head[5]])) == body.len();
    fits.then_some(Tunnel { kind: TunnelKind::Teredo, link: None, ethertype: ETHERTYPE_IPV6, bytes: rest })
}
