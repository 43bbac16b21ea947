//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200), to the first byte of the transport header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DecodeEvent, Decoded, EXTENSION_HEADERS_MAX, Events, Layer, Packet, VlanIds, refused, transport};
use crate::checksum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    V4,
    V6,
}

/// The IP layer of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Ip<'a> {
    pub version: IpVersion,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// The protocol above IP and its extension headers. Of an IPv6 fragment, the next header of its fragment
    /// header.
    pub proto: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// IPv4: the identification. IPv6: that of the fragment header, else 0.
    pub id: u32,
    pub dont_fragment: bool,
    /// The reserved ("evil") bit of IPv4's flags.
    pub reserved_bit: bool,
    /// Set for a real fragment; an atomic fragment (RFC 6946) is a whole packet.
    pub fragment: Option<Fragment>,
    /// IPv4: the header with its options. IPv6: the fixed header and all extension headers before the
    /// transport or fragment header.
    pub header: &'a [u8],
    /// What follows; ends where the IP length says, so that Ethernet's padding is not in it.
    pub payload: &'a [u8],
    /// IPv6: one bit per kind of extension header seen, by `1 << (next header & 63)`.
    pub extensions: u64,
    /// Linux throws it away for its options or extension headers.
    pub refused: bool,
}

/// Where a fragment lies in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes; a multiple of 8.
    pub offset: u32,
    pub more: bool,
    /// Index in [`Ip::header`] of the byte that names what follows it: the datagram's protocol goes there.
    pub proto_at: usize,
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

pub(super) const PROTO_HOP_BY_HOP: u8 = 0;
pub(super) const PROTO_ROUTING: u8 = 43;
pub(super) const PROTO_FRAGMENT: u8 = 44;
pub(super) const PROTO_ESP: u8 = 50;
pub(super) const PROTO_AH: u8 = 51;
pub(super) const PROTO_NONE: u8 = 59;
pub(super) const PROTO_DESTINATION: u8 = 60;
pub(super) const PROTO_MOBILITY: u8 = 135;
pub(super) const PROTO_HIP: u8 = 139;
pub(super) const PROTO_SHIM6: u8 = 140;

/// By the version field.
pub(super) fn decode_any<'a>(layer: Layer<'a>, bytes: &'a [u8], events: Events) -> Decoded<'a> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(6) => decode_v6(layer, bytes, events),
        Some(_) | None => decode_v4(layer, bytes, events),
    }
}

/// As `ip_rcv_core` of Linux checks it (net/ipv4/ip_input.c).
pub(super) fn decode_v4<'a>(layer: Layer<'a>, bytes: &'a [u8], mut events: Events) -> Decoded<'a> {
    let Some((head, _)) = bytes.split_first_chunk::<IPV4_HEADER>() else {
        return layer.malformed(DecodeEvent::Ipv4PktTooSmall, events);
    };
    if head[0] >> 4 != 4 {
        return layer.malformed(DecodeEvent::Ipv4WrongIpVersion, events);
    }
    let src = IpAddr::V4(Ipv4Addr::new(head[12], head[13], head[14], head[15]));
    let dst = IpAddr::V4(Ipv4Addr::new(head[16], head[17], head[18], head[19]));
    let proto = head[9];
    let header_len = usize::from(head[0] & 0x0f) * 4;
    if header_len < IPV4_HEADER {
        return layer.malformed_ip(DecodeEvent::Ipv4HlenTooSmall, events, Some((src, dst, proto)));
    }
    let mut total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    // `iph_totlen` of Linux: a superpacket longer than the field can say has 0 there.
    if total == 0 && layer.gso {
        total = bytes.len();
    }
    if total < header_len {
        return layer.malformed_ip(DecodeEvent::Ipv4IplenSmallerThanHlen, events, Some((src, dst, proto)));
    }
    let (Some(header), Some(payload)) = (bytes.get(..header_len), bytes.get(header_len..total)) else {
        return layer.malformed_ip(DecodeEvent::Ipv4TruncPkt, events, Some((src, dst, proto)));
    };
    if layer.verifies_ipv4_header() && !checksum::valid(header, 0) {
        events.insert(DecodeEvent::Ipv4InvalidChecksum);
    }
    let options = header.get(IPV4_HEADER..).unwrap_or_default();
    if !options.is_empty() {
        ipv4_options(options, &mut events);
    }
    let frag = u16::from_be_bytes([head[6], head[7]]);
    let offset = u32::from(frag & 0x1fff) * 8;
    let more = frag & 0x2000 != 0;
    let ip = Ip {
        version: IpVersion::V4,
        src,
        dst,
        proto,
        ttl: head[8],
        tos: head[1],
        id: u32::from(u16::from_be_bytes([head[4], head[5]])),
        dont_fragment: frag & 0x4000 != 0,
        reserved_bit: frag & 0x8000 != 0,
        fragment: (offset != 0 || more).then_some(Fragment { offset, more, proto_at: 9 }),
        header,
        payload,
        extensions: 0,
        refused: refused::ipv4_options(options),
    };
    transport::decode(layer, ip, events)
}

/// Suricata's findings on options. Linux drops a packet whose options it cannot parse (`ip_options_compile`),
/// but a raw socket or another hook may see it first: they are findings, not ends.
fn ipv4_options(mut options: &[u8], events: &mut Events) {
    let mut seen = 0u64;
    loop {
        match options {
            [] => return,
            [0, padding @ ..] => {
                if padding.iter().any(|byte| *byte != 0) {
                    events.insert(DecodeEvent::Ipv4OptPadRequired);
                }
                return;
            }
            [1, rest @ ..] => options = rest,
            [_] => {
                events.insert(DecodeEvent::Ipv4OptEolRequired);
                return;
            }
            [kind, len, ..] => {
                let len = usize::from(*len);
                let Some(option) = options.get(..len).filter(|_| len >= 2) else {
                    events.insert(DecodeEvent::Ipv4OptInvalidLen);
                    return;
                };
                ipv4_option(*kind, option, &mut seen, events);
                options = options.get(len..).unwrap_or_default();
            }
        }
    }
}

fn ipv4_option(kind: u8, option: &[u8], seen: &mut u64, events: &mut Events) {
    let pointer = option.get(2).copied().unwrap_or(0);
    // Record route, loose and strict source route: length 3 + 4n, pointer from 4 in steps of 4 (RFC 791).
    let route_ok = option.len() >= 3 && option.len() % 4 == 3 && pointer >= 4 && pointer % 4 == 0;
    let known = match kind {
        7 | 131 | 137 => {
            if !route_ok {
                events.insert(DecodeEvent::Ipv4OptMalformed);
            }
            true
        }
        // Time stamp: pointer from 5, overflow and flag in the fourth byte.
        68 => {
            if option.len() < 4 || pointer < 5 {
                events.insert(DecodeEvent::Ipv4OptMalformed);
            }
            true
        }
        // Security, extended security, commercial security, stream id, router alert: fixed or least lengths.
        130 | 133 | 134 => {
            if option.len() < 3 {
                events.insert(DecodeEvent::Ipv4OptMalformed);
            }
            true
        }
        136 | 148 => {
            if option.len() != 4 {
                events.insert(DecodeEvent::Ipv4OptInvalidLen);
            }
            true
        }
        _ => {
            events.insert(DecodeEvent::Ipv4OptUnknown);
            false
        }
    };
    if known {
        // Distinct for all kinds named above.
        let bit = 1u64 << (kind & 63);
        if *seen & bit != 0 {
            events.insert(DecodeEvent::Ipv4OptDuplicate);
        }
        *seen |= bit;
    }
}

pub(super) fn decode_v6<'a>(layer: Layer<'a>, bytes: &'a [u8], events: Events) -> Decoded<'a> {
    let Some((head, after)) = bytes.split_first_chunk::<IPV6_HEADER>() else {
        return layer.malformed(DecodeEvent::Ipv6PktTooSmall, events);
    };
    if head[0] >> 4 != 6 {
        return layer.malformed(DecodeEvent::Ipv6WrongIpVersion, events);
    }
    let address = |at: usize| {
        let mut octets = [0u8; 16];
        octets.copy_from_slice(&head[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (src, dst) = (address(8), address(24));
    let mut len = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if len == 0 {
        len = jumbo_len(head[6], after, layer.gso).unwrap_or(0);
    }
    let Some(body) = after.get(..len) else {
        return layer.malformed_ip(DecodeEvent::Ipv6TruncPkt, events, Some((src, dst, head[6])));
    };
    let ip = Ip {
        version: IpVersion::V6,
        src,
        dst,
        proto: head[6],
        ttl: head[7],
        tos: head[0] << 4 | head[1] >> 4,
        id: 0,
        dont_fragment: false,
        reserved_bit: false,
        fragment: None,
        header: bytes.get(..IPV6_HEADER).unwrap_or_default(),
        payload: body,
        extensions: 0,
        refused: false,
    };
    extensions(layer, ip, bytes.get(..IPV6_HEADER + len).unwrap_or_default(), events)
}

/// Payload length where the header says 0: a jumbo option (RFC 2675) as the first option of the first header,
/// as Linux writes it for BIG TCP, or the frame's length for a superpacket without one.
fn jumbo_len(next: u8, after: &[u8], gso: bool) -> Option<usize> {
    if next == PROTO_HOP_BY_HOP
        && let [_, _, 0xc2, 4, a, b, c, d, ..] = after
    {
        return Some(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
    }
    gso.then_some(after.len())
}

/// Walks the extension headers. `whole` is the packet from its fixed header to the end of its payload.
fn extensions<'a>(layer: Layer<'a>, mut ip: Ip<'a>, whole: &'a [u8], mut events: Events) -> Decoded<'a> {
    let mut at = IPV6_HEADER;
    // Where the kind of the header at `at` is written.
    let mut proto_at = 6usize;
    let mut destination_options = 0;
    for _ in 0..EXTENSION_HEADERS_MAX {
        let rest = whole.get(at..).unwrap_or_default();
        let kind = ip.proto;
        let duplicate = match kind {
            PROTO_HOP_BY_HOP => Some(DecodeEvent::Ipv6ExthdrDuplHh),
            PROTO_ROUTING => Some(DecodeEvent::Ipv6ExthdrDuplRh),
            PROTO_FRAGMENT => Some(DecodeEvent::Ipv6ExthdrDuplFh),
            PROTO_AH => Some(DecodeEvent::Ipv6ExthdrDuplAh),
            // Twice is right: before a routing header and before the transport header.
            PROTO_DESTINATION => {
                destination_options += 1;
                (destination_options > 2).then_some(DecodeEvent::Ipv6ExthdrDuplDh)
            }
            _ => None,
        };
        if let Some(event) = duplicate
            && (ip.extensions >> (kind & 63) & 1 == 1 || kind == PROTO_DESTINATION)
        {
            events.insert(event);
        }
        let len = match kind {
            PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_DESTINATION | PROTO_MOBILITY | PROTO_HIP | PROTO_SHIM6 => {
                rest.get(1).map(|len| usize::from(*len) * 8 + 8)
            }
            // RFC 4302, section 2.2: in words of four bytes, less two.
            PROTO_AH => rest.get(1).map(|len| usize::from(*len) * 4 + 8),
            PROTO_FRAGMENT => Some(8),
            _ => {
                ip.header = whole.get(..at).unwrap_or_default();
                ip.payload = rest;
                return last_header(layer, ip, events);
            }
        };
        let Some(body) = len.and_then(|len| rest.get(..len)) else {
            return layer.malformed_ip(DecodeEvent::Ipv6TruncExthdr, events, Some((ip.src, ip.dst, kind)));
        };
        ip.extensions |= 1 << (kind & 63);
        ip.refused |= refused::ipv6_header(kind, body, at == IPV6_HEADER);
        let next = body.first().copied().unwrap_or(PROTO_NONE);
        match kind {
            PROTO_HOP_BY_HOP => options(
                body.get(2..).unwrap_or_default(),
                DecodeEvent::Ipv6HopoptsUnknownOpt,
                DecodeEvent::Ipv6HopoptsOnlyPadding,
                &mut events,
            ),
            PROTO_DESTINATION => options(
                body.get(2..).unwrap_or_default(),
                DecodeEvent::Ipv6DstoptsUnknownOpt,
                DecodeEvent::Ipv6DstoptsOnlyPadding,
                &mut events,
            ),
            PROTO_ROUTING if body.get(2) == Some(&0) => events.insert(DecodeEvent::Ipv6RhType0),
            PROTO_AH if body.get(2..4) != Some(&[0, 0]) => events.insert(DecodeEvent::Ipv6ExthdrAhResNotNull),
            PROTO_FRAGMENT => {
                let field = |at: usize| body.get(at).copied().unwrap_or(0);
                let flags = u16::from_be_bytes([field(2), field(3)]);
                if field(1) != 0 || flags & 0x0006 != 0 {
                    events.insert(DecodeEvent::Ipv6FhNonZeroReservedField);
                }
                ip.id = u32::from_be_bytes([field(4), field(5), field(6), field(7)]);
                let (offset, more) = (u32::from(flags & 0xfff8), flags & 1 == 1);
                if offset != 0 || more {
                    ip.proto = next;
                    ip.header = whole.get(..at).unwrap_or_default();
                    ip.payload = whole.get(at + 8..).unwrap_or_default();
                    ip.fragment = Some(Fragment { offset, more, proto_at });
                    return transport::decode(layer, ip, events);
                }
                // RFC 6946: an atomic fragment is a whole packet.
                events.insert(DecodeEvent::Ipv6ExthdrUselessFh);
            }
            _ => {}
        }
        ip.proto = next;
        proto_at = at;
        at += body.len();
    }
    layer.malformed_ip(DecodeEvent::Ipv6TooManyExthdrs, events, Some((ip.src, ip.dst, ip.proto)))
}

fn last_header<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    if ip.proto == PROTO_NONE && !ip.payload.is_empty() {
        events.insert(DecodeEvent::Ipv6DataAfterNoneHeader);
    }
    transport::decode(layer, ip, events)
}

/// Options of hop-by-hop and destination headers (RFC 8200, section 4.2).
fn options(mut bytes: &[u8], unknown: DecodeEvent, only_padding: DecodeEvent, events: &mut Events) {
    let mut real = false;
    loop {
        match bytes {
            [] => break,
            [0, rest @ ..] => bytes = rest,
            [kind, len, rest @ ..] => {
                let len = usize::from(*len);
                let Some(after) = rest.get(len..) else {
                    events.insert(DecodeEvent::Ipv6ExthdrInvalidOptlen);
                    return;
                };
                match kind {
                    1 => {
                        if len == 0 {
                            events.insert(DecodeEvent::Ipv6ZeroLenPadn);
                        }
                    }
                    // Tunnel limit, router alert, quick start, CALIPSO, RPL, ILNP, jumbo, home address.
                    0x04 | 0x05 | 0x26 | 0x07 | 0x63 | 0x8b | 0xc2 | 0xc9 => {
                        real = true;
                        let wanted = match kind {
                            0x05 => Some(2),
                            0xc2 => Some(4),
                            0xc9 => Some(16),
                            _ => None,
                        };
                        if wanted.is_some_and(|wanted| wanted != len) {
                            events.insert(DecodeEvent::Ipv6ExthdrInvalidOptlen);
                        }
                    }
                    _ => {
                        real = true;
                        events.insert(unknown);
                    }
                }
                bytes = after;
            }
            [_] => {
                events.insert(DecodeEvent::Ipv6ExthdrInvalidOptlen);
                return;
            }
        }
    }
    if !real {
        events.insert(only_padding);
    }
}

/// Builds the view; the last step of decoding.
pub(super) fn packet<'a>(layer: Layer<'a>, ip: Ip<'a>, transport: super::Transport<'a>, payload: &'a [u8], events: Events) -> Decoded<'a> {
    let vlan: VlanIds = layer.vlan;
    Decoded::Packet(Packet {
        frame_len: layer.frame_len,
        ether: None,
        vlan,
        ip,
        transport,
        payload,
        events,
        depth: layer.depth,
        checksum: layer.checksum,
        frame: layer.frame,
    })
}
