//! Transport headers. A header that Linux would not accept ends the decoding; a wrong checksum is an event.

use std::net::IpAddr;

use super::ip::{self, Ip, IpVersion};
use super::{DecodeEvent, Decoded, Events, Layer};
use crate::checksum;

pub const PROTO_ICMP: u8 = 1;
pub const PROTO_TCP: u8 = 6;
pub const PROTO_UDP: u8 = 17;
pub const PROTO_GRE: u8 = 47;
pub const PROTO_ICMPV6: u8 = 58;
pub const PROTO_SCTP: u8 = 132;
const PROTO_IGMP: u8 = 2;
const PROTO_UDPLITE: u8 = 136;

#[derive(Debug, Clone, Copy)]
pub enum Transport<'a> {
    Tcp(Tcp<'a>),
    Udp(Udp),
    Icmp(Icmp<'a>),
    Icmpv6(Icmp<'a>),
    Sctp {
        src_port: u16,
        dst_port: u16,
        verification_tag: u32,
    },
    /// RFC 1112, 2236, 3376. Of version 3 the records belong to the message: there is no payload.
    Igmp {
        kind: u8,
        /// All of the message.
        message: &'a [u8],
    },
    /// RFC 2784 and 2890, or version 1 (RFC 2637). `payload` is what follows the whole GRE header.
    Gre {
        version: u8,
        /// EtherType of the payload.
        protocol: u16,
        /// It carries a sequence number: ERSPAN has a header of its own then.
        sequence: bool,
    },
    Esp {
        spi: u32,
        sequence: u32,
    },
    /// A fragment: no transport header until [`crate::defrag`] has put the datagram together.
    Fragment,
    /// IPv6's "no next header".
    NoNextHeader,
    /// A protocol that is not looked into; [`Ip::proto`] names it.
    Other,
}

/// TCP's flag bits, NS/AE included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    pub const FIN: Self = Self(0x001);
    pub const SYN: Self = Self(0x002);
    pub const RST: Self = Self(0x004);
    pub const PSH: Self = Self(0x008);
    pub const ACK: Self = Self(0x010);
    pub const URG: Self = Self(0x020);
    pub const ECE: Self = Self(0x040);
    pub const CWR: Self = Self(0x080);
    pub const AE: Self = Self(0x100);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }

    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }

    pub const fn urg(self) -> bool {
        self.contains(Self::URG)
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP header (RFC 9293, section 3.1).
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a> {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: TcpFlags,
    /// As in the header, unscaled.
    pub window: u16,
    pub urgent: u16,
    /// The four reserved bits next to the data offset.
    pub reserved: u8,
    pub options: TcpOptions,
    pub options_raw: &'a [u8],
}

/// Options that decide what Linux makes of a segment, read as `tcp_parse_options` reads them: it stops at the
/// first option it cannot read and keeps the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    pub mss: Option<u16>,
    /// 0..=14, as Linux caps it.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// (TSval, TSecr)
    pub timestamp: Option<(u32, u32)>,
    /// TCP MD5 (RFC 2385) or TCP-AO (RFC 5925): Linux drops such a segment unless the socket has a key.
    pub signed: bool,
    /// TCP Fast Open with or without a cookie (RFC 7413).
    pub fast_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    pub src_port: u16,
    pub dst_port: u16,
    /// The header's length field.
    pub len: u16,
}

/// ICMP or ICMPv6.
#[derive(Debug, Clone, Copy)]
pub struct Icmp<'a> {
    pub kind: u8,
    pub code: u8,
    /// Echo and its kin: (identifier, sequence number).
    pub echo: Option<(u16, u16)>,
    /// Errors: the packet they complain about, as far as it is quoted.
    pub quoted: Option<Quoted>,
    /// Everything after type, code and checksum.
    pub body: &'a [u8],
}

/// The head of a packet inside an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    /// 0 for protocols without ports and for fragments but the first.
    pub src_port: u16,
    pub dst_port: u16,
}

pub(super) fn decode<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    if ip.fragment.is_some() {
        return ip::packet(layer, ip, Transport::Fragment, ip.payload, events);
    }
    match (ip.proto, ip.version) {
        (PROTO_TCP, _) => tcp(layer, ip, events),
        (PROTO_UDP, _) => udp(layer, ip, events),
        (PROTO_ICMP, IpVersion::V4) => icmp(layer, ip, events),
        (PROTO_ICMPV6, IpVersion::V6) => icmpv6(layer, ip, events),
        (PROTO_SCTP, _) => sctp(layer, ip, events),
        (PROTO_GRE, _) => gre(layer, ip, events),
        (ip::PROTO_ESP, _) => match ip.payload.split_first_chunk::<8>() {
            Some((&[a, b, c, d, e, f, g, h], rest)) => {
                let transport = Transport::Esp { spi: u32::from_be_bytes([a, b, c, d]), sequence: u32::from_be_bytes([e, f, g, h]) };
                ip::packet(layer, ip, transport, rest, events)
            }
            None => malformed(layer, &ip, DecodeEvent::EspPktTooSmall, events),
        },
        (ip::PROTO_NONE, IpVersion::V6) => ip::packet(layer, ip, Transport::NoNextHeader, ip.payload, events),
        (PROTO_ICMPV6, IpVersion::V4) => {
            events.insert(DecodeEvent::Ipv4Icmpv6);
            ip::packet(layer, ip, Transport::Other, ip.payload, events)
        }
        (PROTO_ICMP, IpVersion::V6) => {
            events.insert(DecodeEvent::Ipv6Icmpv4);
            ip::packet(layer, ip, Transport::Other, ip.payload, events)
        }
        (ip::PROTO_AH, IpVersion::V4) => authenticated(layer, ip, events),
        (PROTO_IGMP, IpVersion::V4) => {
            // RFC 3376, section 4: a version 3 report has at least its fixed part, as any message has eight bytes.
            match ip.payload {
                [kind, _, _, _, _, _, _, _, rest @ ..] => {
                    if layer.verifies_transport(ip.payload) && !checksum::valid(ip.payload, 0) {
                        events.insert(DecodeEvent::IgmpInvalidChecksum);
                    }
                    // A query of version 3 is longer than eight bytes too (section 4.1).
                    let is_v3 = *kind == 0x22 || (*kind == 0x11 && rest.len() >= 4);
                    let payload = if is_v3 { &[] } else { rest };
                    let transport = Transport::Igmp { kind: *kind, message: ip.payload };
                    return ip::packet(layer, ip, transport, payload, events);
                }
                [0x22, ..] => events.insert(DecodeEvent::IgmpV3PktTooSmall),
                _ => events.insert(DecodeEvent::IgmpPktTooSmall),
            }
            ip::packet(layer, ip, Transport::Other, ip.payload, events)
        }
        // IP in IP and UDP-Lite are known, the first as tunnels.
        (4 | 41 | PROTO_UDPLITE, _) => ip::packet(layer, ip, Transport::Other, ip.payload, events),
        (_, IpVersion::V4) => {
            events.insert(DecodeEvent::Ipv4UnknownProtocol);
            ip::packet(layer, ip, Transport::Other, ip.payload, events)
        }
        (_, IpVersion::V6) => {
            events.insert(DecodeEvent::Ipv6UnknownNextHeader);
            ip::packet(layer, ip, Transport::Other, ip.payload, events)
        }
    }
}

fn malformed<'a>(layer: Layer<'a>, ip: &Ip<'_>, event: DecodeEvent, events: Events) -> Decoded<'a> {
    layer.malformed_ip(event, events, Some((ip.src, ip.dst, ip.proto)))
}

/// IPv4 with an authentication header (RFC 4302): what it protects is in the clear and is read on. A second one
/// is not looked through.
fn authenticated<'a>(layer: Layer<'a>, mut ip: Ip<'a>, events: Events) -> Decoded<'a> {
    let inner = match ip.payload {
        [next, len, ..] => ip.payload.get(usize::from(*len) * 4 + 8..).map(|rest| (*next, rest)),
        [_] | [] => None,
    };
    match inner {
        Some((ip::PROTO_AH, _)) | None => ip::packet(layer, ip, Transport::Other, ip.payload, events),
        Some((next, rest)) => {
            ip.proto = next;
            ip.payload = rest;
            decode(layer, ip, events)
        }
    }
}

/// As `tcp_v4_rcv` checks it.
fn tcp<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    let bytes = ip.payload;
    let Some((head, _)) = bytes.split_first_chunk::<20>() else {
        return malformed(layer, &ip, DecodeEvent::TcpPktTooSmall, events);
    };
    let header_len = usize::from(head[12] >> 4) * 4;
    if header_len < 20 {
        return malformed(layer, &ip, DecodeEvent::TcpInvalidOptlen, events);
    }
    let (Some(options_raw), Some(payload)) = (bytes.get(20..header_len), bytes.get(header_len..)) else {
        return malformed(layer, &ip, DecodeEvent::TcpHlenTooSmall, events);
    };
    if layer.verifies_transport(bytes) && !checksum::valid(bytes, checksum::pseudo_header(ip.src, ip.dst, PROTO_TCP, bytes.len())) {
        events.insert(DecodeEvent::TcpInvalidChecksum);
    }
    let flags = TcpFlags(u16::from_be_bytes([head[12] & 1, head[13]]));
    let options = if options_raw.is_empty() { TcpOptions::default() } else { tcp_options(options_raw, flags.syn(), &mut events) };
    let header = Tcp {
        src_port: u16::from_be_bytes([head[0], head[1]]),
        dst_port: u16::from_be_bytes([head[2], head[3]]),
        seq: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        ack: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        flags,
        window: u16::from_be_bytes([head[14], head[15]]),
        urgent: u16::from_be_bytes([head[18], head[19]]),
        reserved: head[12] & 0x0f,
        options,
        options_raw,
    };
    ip::packet(layer, ip, Transport::Tcp(header), payload, events)
}

/// `tcp_parse_options` (net/ipv4/tcp_input.c).
fn tcp_options(mut bytes: &[u8], syn: bool, events: &mut Events) -> TcpOptions {
    // The form that Linux sends in every segment of a connection with time stamps.
    if let [1, 1, 8, 10, a, b, c, d, e, f, g, h] = bytes {
        let timestamp = (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]));
        return TcpOptions { timestamp: Some(timestamp), ..TcpOptions::default() };
    }
    let mut options = TcpOptions::default();
    let mut seen = 0u64;
    loop {
        let (kind, len) = match bytes {
            [] | [0, ..] => break,
            [1, rest @ ..] => {
                bytes = rest;
                continue;
            }
            [_] => {
                events.insert(DecodeEvent::TcpOptInvalidLen);
                break;
            }
            [kind, len, ..] => (*kind, usize::from(*len)),
        };
        let Some(body) = bytes.get(2..len) else {
            events.insert(DecodeEvent::TcpOptInvalidLen);
            break;
        };
        let mut wrong_len = false;
        match (kind, body) {
            (2, [a, b]) if syn => options.mss = Some(u16::from_be_bytes([*a, *b])),
            (3, [shift]) if syn => options.window_scale = Some((*shift).min(14)),
            (4, []) if syn => options.sack_permitted = true,
            (8, [a, b, c, d, e, f, g, h]) => {
                options.timestamp = Some((u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h])));
            }
            (19, _) => {
                options.signed = true;
                wrong_len = body.len() != 16;
            }
            (29, _) => options.signed = true,
            (34, _) => options.fast_open = true,
            // RFC 6994: experiment 0xf989 was Fast Open.
            (254, [0xf9, 0x89, ..]) => options.fast_open = true,
            (2, body) => wrong_len = body.len() != 2,
            (3, body) => wrong_len = body.len() != 1,
            (4, body) => wrong_len = !body.is_empty(),
            (5, body) => wrong_len = body.is_empty() || !body.len().is_multiple_of(8),
            (8, _) => wrong_len = true,
            _ => {}
        }
        if wrong_len {
            events.insert(DecodeEvent::TcpOptInvalidLen);
        }
        if matches!(kind, 2..=5 | 8 | 34) {
            if seen >> kind & 1 == 1 {
                events.insert(DecodeEvent::TcpOptDuplicate);
            }
            seen |= 1 << kind;
        }
        bytes = bytes.get(len..).unwrap_or_default();
    }
    options
}

/// As `__udp4_lib_rcv` and `__udp6_lib_rcv` check it: a length shorter than the IP payload cuts the rest off.
fn udp<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    let Some((head, _)) = ip.payload.split_first_chunk::<8>() else {
        return malformed(layer, &ip, DecodeEvent::UdpHlenTooSmall, events);
    };
    let field = u16::from_be_bytes([head[4], head[5]]);
    let len = match (field, ip.version) {
        // A jumbogram (RFC 2675, section 4), or a superpacket.
        (0, IpVersion::V6) => ip.payload.len(),
        (0, IpVersion::V4) if layer.gso => ip.payload.len(),
        (field, _) => usize::from(field),
    };
    if len < 8 {
        return malformed(layer, &ip, DecodeEvent::UdpLenInvalid, events);
    }
    let Some(datagram) = ip.payload.get(..len) else {
        return malformed(layer, &ip, DecodeEvent::UdpPktTooSmall, events);
    };
    if len != ip.payload.len() {
        events.insert(DecodeEvent::UdpHlenInvalid);
    }
    let stored = u16::from_be_bytes([head[6], head[7]]);
    let wrong = match (stored, ip.version) {
        // Not computed (RFC 768). IPv6 forbids it but for tunnels (RFC 6936); the socket decides.
        (0, _) => false,
        (_, _) => layer.verifies_transport(datagram) && !checksum::valid(datagram, checksum::pseudo_header(ip.src, ip.dst, PROTO_UDP, len)),
    };
    if wrong {
        events.insert(DecodeEvent::UdpInvalidChecksum);
    }
    let header = Udp { src_port: u16::from_be_bytes([head[0], head[1]]), dst_port: u16::from_be_bytes([head[2], head[3]]), len: field };
    ip::packet(layer, ip, Transport::Udp(header), datagram.get(8..).unwrap_or_default(), events)
}

fn icmp<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    let bytes = ip.payload;
    let Some((head, payload)) = bytes.split_first_chunk::<8>() else {
        return malformed(layer, &ip, DecodeEvent::Icmpv4PktTooSmall, events);
    };
    if layer.verifies_transport(bytes) && !checksum::valid(bytes, 0) {
        events.insert(DecodeEvent::Icmpv4InvalidChecksum);
    }
    let (kind, code) = (head[0], head[1]);
    // IANA, "ICMP Type Numbers": the highest code of each type.
    let highest = match kind {
        0 | 4 | 8 | 10 | 13..=18 | 30 => Some(0),
        3 => Some(15),
        5 => Some(3),
        9 => Some(16),
        11 => Some(1),
        12 => Some(2),
        40 => Some(5),
        _ => None,
    };
    match highest {
        None => events.insert(DecodeEvent::Icmpv4UnknownType),
        Some(highest) if code > highest => events.insert(DecodeEvent::Icmpv4UnknownCode),
        Some(_) => {}
    }
    let echo = matches!(kind, 0 | 8 | 13..=18).then(|| (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]])));
    let quoted = matches!(kind, 3 | 4 | 5 | 11 | 12)
        .then(|| {
            let quoted = quote(payload);
            match (payload.len(), quoted) {
                (_, Ok(quoted)) => Some(quoted),
                (0..20, Err(_)) | (_, Err(QuoteError::Truncated)) => {
                    events.insert(DecodeEvent::Icmpv4Ipv4TruncPkt);
                    None
                }
                (_, Err(QuoteError::Version)) => {
                    events.insert(DecodeEvent::Icmpv4Ipv4UnknownVer);
                    None
                }
            }
        })
        .flatten();
    let icmp = Icmp { kind, code, echo, quoted, body: bytes.get(4..).unwrap_or_default() };
    ip::packet(layer, ip, Transport::Icmp(icmp), payload, events)
}

fn icmpv6<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    let bytes = ip.payload;
    let Some((head, payload)) = bytes.split_first_chunk::<8>() else {
        return malformed(layer, &ip, DecodeEvent::Icmpv6PktTooSmall, events);
    };
    if layer.verifies_transport(bytes) && !checksum::valid(bytes, checksum::pseudo_header(ip.src, ip.dst, PROTO_ICMPV6, bytes.len())) {
        events.insert(DecodeEvent::Icmpv6InvalidChecksum);
    }
    let (kind, code) = (head[0], head[1]);
    match kind {
        // RFC 4443, section 2.1.
        100 | 101 | 200 | 201 => events.insert(DecodeEvent::Icmpv6ExperimentationType),
        0 | 5..=99 | 102..=126 => events.insert(DecodeEvent::Icmpv6UnassignedType),
        // Unassigned informational types (IANA, "ICMPv6 Type Numbers").
        162..=199 | 202..=255 => events.insert(DecodeEvent::Icmpv6UnknownType),
        _ => {}
    }
    let highest = match kind {
        1 => Some(8),
        3 => Some(1),
        4 => Some(10),
        2 | 128..=137 | 141..=143 | 148 | 149 | 151..=153 => Some(0),
        _ => None,
    };
    // 138 is router renumbering with codes 0, 1 and 255; 139 and 140 are node information.
    if highest.is_some_and(|highest| code > highest) {
        events.insert(DecodeEvent::Icmpv6UnknownCode);
    }
    // RFC 2710, section 3: listener messages are sent with hop limit 1.
    if matches!(kind, 130..=132 | 143) && ip.ttl != 1 {
        events.insert(DecodeEvent::Icmpv6MldMessageWithInvalidHl);
    }
    let echo = matches!(kind, 128 | 129).then(|| (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]])));
    let quoted = matches!(kind, 1..=4)
        .then(|| match quote(payload) {
            Ok(quoted) => Some(quoted),
            Err(QuoteError::Truncated) => {
                events.insert(DecodeEvent::Icmpv6Ipv6TruncPkt);
                None
            }
            Err(QuoteError::Version) => {
                events.insert(DecodeEvent::Icmpv6Ipv6UnknownVersion);
                None
            }
        })
        .flatten();
    let icmp = Icmp { kind, code, echo, quoted, body: bytes.get(4..).unwrap_or_default() };
    ip::packet(layer, ip, Transport::Icmpv6(icmp), payload, events)
}

enum QuoteError {
    Truncated,
    Version,
}

/// The packet in an ICMP error: at least its IP header and eight bytes (RFC 792), for ICMPv6 as much as fits.
fn quote(bytes: &[u8]) -> Result<Quoted, QuoteError> {
    let octets = |range: std::ops::Range<usize>| bytes.get(range).ok_or(QuoteError::Truncated);
    let (src, dst, proto, transport) = match bytes.first().map(|byte| byte >> 4) {
        None => return Err(QuoteError::Truncated),
        Some(4) => {
            let head: &[u8; 20] = bytes.first_chunk().ok_or(QuoteError::Truncated)?;
            let address = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let first = u16::from_be_bytes([head[6], head[7]]) & 0x1fff == 0;
            let at = usize::from(head[0] & 0x0f) * 4;
            (address(12), address(16), head[9], if first { bytes.get(at..).unwrap_or_default() } else { &[] })
        }
        Some(6) => {
            let address = |bytes: &[u8]| -> Result<IpAddr, QuoteError> {
                Ok(IpAddr::from(<[u8; 16]>::try_from(bytes).map_err(|_| QuoteError::Truncated)?))
            };
            let (src, dst) = (address(octets(8..24)?)?, address(octets(24..40)?)?);
            let (mut proto, mut at) = (octets(6..7)?.first().copied().unwrap_or(0), 40);
            for _ in 0..super::EXTENSION_HEADERS_MAX {
                let (next, len) = match (proto, bytes.get(at..at + 4)) {
                    (ip::PROTO_HOP_BY_HOP | ip::PROTO_ROUTING | ip::PROTO_DESTINATION, Some([next, len, ..])) => {
                        (*next, usize::from(*len) * 8 + 8)
                    }
                    (ip::PROTO_FRAGMENT, Some([next, _, high, low])) if u16::from_be_bytes([*high, *low]) & 0xfff8 == 0 => (*next, 8),
                    _ => break,
                };
                proto = next;
                at += len;
            }
            (src, dst, proto, bytes.get(at..).unwrap_or_default())
        }
        Some(_) => return Err(QuoteError::Version),
    };
    let (src_port, dst_port) = match (proto, transport) {
        (PROTO_TCP | PROTO_UDP | PROTO_SCTP, [a, b, c, d, ..]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        // An echo is told by its identifier, as in the flow table.
        (PROTO_ICMP | PROTO_ICMPV6, [_, _, _, _, a, b, ..]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*a, *b])),
        _ => (0, 0),
    };
    Ok(Quoted { src, dst, proto, src_port, dst_port })
}

fn sctp<'a>(layer: Layer<'a>, ip: Ip<'a>, events: Events) -> Decoded<'a> {
    let Some((&[a, b, c, d, e, f, g, h, ..], payload)) = ip.payload.split_first_chunk::<12>() else {
        return malformed(layer, &ip, DecodeEvent::SctpPktTooSmall, events);
    };
    let transport = Transport::Sctp {
        src_port: u16::from_be_bytes([a, b]),
        dst_port: u16::from_be_bytes([c, d]),
        verification_tag: u32::from_be_bytes([e, f, g, h]),
    };
    ip::packet(layer, ip, transport, payload, events)
}

/// RFC 2784/2890 (version 0) and RFC 2637 (version 1, PPTP).
fn gre<'a>(layer: Layer<'a>, ip: Ip<'a>, mut events: Events) -> Decoded<'a> {
    let Some((&[high, low, p0, p1], _)) = ip.payload.split_first_chunk::<4>() else {
        return malformed(layer, &ip, DecodeEvent::GrePktTooSmall, events);
    };
    let flags = u16::from_be_bytes([high, low]);
    let protocol = u16::from_be_bytes([p0, p1]);
    let (checksum, routing, key, sequence) = (flags & 0x8000 != 0, flags & 0x4000 != 0, flags & 0x2000 != 0, flags & 0x1000 != 0);
    let version = (flags & 7) as u8;
    let mut len = 4;
    match version {
        0 => {
            if flags & 0x0700 != 0 {
                events.insert(DecodeEvent::GreVersion0Recur);
            }
            if flags & 0x00f8 != 0 {
                events.insert(DecodeEvent::GreVersion0Flags);
            }
            len += if checksum || routing { 4 } else { 0 };
            len += if key { 4 } else { 0 };
            len += if sequence { 4 } else { 0 };
            if routing {
                // Source route entries (RFC 1701): family, offset, length; ended by an empty one.
                loop {
                    let Some(entry) = ip.payload.get(len..len + 4) else {
                        return malformed(layer, &ip, DecodeEvent::GreVersion0MalformedSreHdr, events);
                    };
                    len += 4;
                    let (family, entry_len) = (entry.get(..2), entry.get(3).copied().unwrap_or(0));
                    if family == Some(&[0, 0]) && entry_len == 0 {
                        break;
                    }
                    len += usize::from(entry_len);
                }
            }
        }
        1 => {
            for (wrong, event) in [
                (checksum, DecodeEvent::GreVersion1Chksum),
                (routing, DecodeEvent::GreVersion1Route),
                (flags & 0x0800 != 0, DecodeEvent::GreVersion1Ssr),
                (flags & 0x0700 != 0, DecodeEvent::GreVersion1Recur),
                (flags & 0x0078 != 0, DecodeEvent::GreVersion1Flags),
                (!key, DecodeEvent::GreVersion1NoKey),
                (protocol != 0x880b, DecodeEvent::GreVersion1WrongProtocol),
            ] {
                if wrong {
                    return malformed(layer, &ip, event, events);
                }
            }
            len += 4;
            len += if sequence { 4 } else { 0 };
            len += if flags & 0x0080 != 0 { 4 } else { 0 };
        }
        _ => return malformed(layer, &ip, DecodeEvent::GreWrongVersion, events),
    }
    match ip.payload.get(len..) {
        Some(payload) => ip::packet(layer, ip, Transport::Gre { version, protocol, sequence }, payload, events),
        None if version == 0 => malformed(layer, &ip, DecodeEvent::GreVersion0HdrTooBig, events),
        None => malformed(layer, &ip, DecodeEvent::GreVersion1HdrTooBig, events),
    }
}
