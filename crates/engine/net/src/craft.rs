//! Builds packets: the answers of a `reject` verdict, and what tests send.
//!
//! Everything built here carries right lengths and checksums.

use std::net::IpAddr;

use crate::checksum;
use crate::decode::{IpVersion, Packet, TcpFlags, Transport};

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMPV6: u8 = 58;

/// Bytes of the offending packet that an ICMP error quotes: RFC 1812, section 4.3.2.3 (576 in all) for IPv4,
/// the least link MTU (RFC 4443, section 2.4) for IPv6.
const QUOTE_BYTES_V4: usize = 548;
const QUOTE_BYTES_V6: usize = 1232;

/// The fields of a TCP header that matter to a receiver. Options are padded with zeroes to a multiple of four.
#[derive(Debug, Clone, Copy, Default)]
pub struct Segment<'a> {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: TcpFlags,
    pub window: u16,
    pub urgent: u16,
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

/// An IP packet of either version around `body`; the version is that of `src`.
/// IPv6 when the addresses disagree.
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, body: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0];
            packet.extend_from_slice(&src.octets());
            packet.extend_from_slice(&dst.octets());
            set(&mut packet, 2, &((body.len() + 20) as u16).to_be_bytes());
            let sum = !checksum::sum(&packet, 0);
            set(&mut packet, 10, &sum.to_be_bytes());
            packet.extend_from_slice(body);
            packet
        }
        (src, dst) => {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&(body.len() as u16).to_be_bytes());
            packet.extend_from_slice(&[proto, 64]);
            packet.extend_from_slice(&octets(src));
            packet.extend_from_slice(&octets(dst));
            packet.extend_from_slice(body);
            packet
        }
    }
}

/// A fragment of a datagram whose payload is `body`: the bytes from `offset` (a multiple of 8) on.
pub fn fragment(src: IpAddr, dst: IpAddr, proto: u8, id: u32, offset: u16, more: bool, piece: &[u8]) -> Vec<u8> {
    let flags = (offset & 0xfff8).to_be_bytes();
    match src {
        IpAddr::V4(_) => {
            let mut packet = ip(src, dst, proto, piece);
            set(&mut packet, 4, &(id as u16).to_be_bytes());
            let field = (offset >> 3) | (u16::from(more) << 13);
            set(&mut packet, 6, &field.to_be_bytes());
            set(&mut packet, 10, &[0, 0]);
            let sum = !checksum::sum(packet.get(..20).unwrap_or_default(), 0);
            set(&mut packet, 10, &sum.to_be_bytes());
            packet
        }
        IpAddr::V6(_) => {
            let mut body = vec![proto, 0, flags[0], flags[1] | u8::from(more)];
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(piece);
            ip(src, dst, 44, &body)
        }
    }
}

/// An IP packet with a TCP segment.
pub fn tcp(src: IpAddr, dst: IpAddr, segment: &Segment<'_>) -> Vec<u8> {
    let options_len = segment.options.len().div_ceil(4) * 4;
    let mut body = Vec::with_capacity(20 + options_len + segment.payload.len());
    body.extend_from_slice(&segment.src_port.to_be_bytes());
    body.extend_from_slice(&segment.dst_port.to_be_bytes());
    body.extend_from_slice(&segment.seq.to_be_bytes());
    body.extend_from_slice(&segment.ack.to_be_bytes());
    let [high, low] = segment.flags.0.to_be_bytes();
    body.push((((20 + options_len) / 4) << 4) as u8 | (high & 1));
    body.push(low);
    body.extend_from_slice(&segment.window.to_be_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&segment.urgent.to_be_bytes());
    body.extend_from_slice(segment.options);
    body.resize(20 + options_len, 0);
    body.extend_from_slice(segment.payload);
    let sum = !checksum::sum(&body, checksum::pseudo_header(src, dst, PROTO_TCP, body.len()));
    set(&mut body, 16, &sum.to_be_bytes());
    ip(src, dst, PROTO_TCP, &body)
}

/// The body of a UDP datagram: header and payload.
pub fn udp_body(src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + payload.len());
    body.extend_from_slice(&src_port.to_be_bytes());
    body.extend_from_slice(&dst_port.to_be_bytes());
    body.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(payload);
    let sum = !checksum::sum(&body, checksum::pseudo_header(src, dst, PROTO_UDP, body.len()));
    // 0 would mean that there is none (RFC 768).
    set(&mut body, 6, &(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    body
}

/// An IP packet with a UDP datagram.
pub fn udp(src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    ip(src, dst, PROTO_UDP, &udp_body(src, dst, src_port, dst_port, payload))
}

/// An IP packet with an ICMP message, of ICMPv6 between IPv6 addresses. `body` follows type, code and checksum.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(body);
    let (proto, start) = match src {
        IpAddr::V4(_) => (PROTO_ICMP, 0),
        IpAddr::V6(_) => (PROTO_ICMPV6, checksum::pseudo_header(src, dst, PROTO_ICMPV6, message.len())),
    };
    let sum = !checksum::sum(&message, start);
    set(&mut message, 2, &sum.to_be_bytes());
    ip(src, dst, proto, &message)
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(dst: [u8; 6], src: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 };
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend_from_slice(&dst);
    frame.extend_from_slice(&src);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// The RST that tells the sender of `packet` that its connection is refused, as its peer would send it
/// (RFC 9293, section 3.10.7.1). `None` for a RST and for anything but TCP.
pub fn reset_to_source(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let tcp = packet.tcp().filter(|tcp| !tcp.flags.rst())?;
    let text = packet.payload.len() as u32 + u32::from(tcp.flags.syn()) + u32::from(tcp.flags.fin());
    let (seq, ack, flags) = if tcp.flags.ack() {
        (tcp.ack, tcp.seq.wrapping_add(text), TcpFlags::RST | TcpFlags::ACK)
    } else {
        (0, tcp.seq.wrapping_add(text), TcpFlags::RST | TcpFlags::ACK)
    };
    let segment = Segment { src_port: tcp.dst_port, dst_port: tcp.src_port, seq, ack, flags, ..Segment::default() };
    Some(self::tcp(packet.dst(), packet.src(), &segment))
}

/// The RST that tells the receiver of `packet` that its peer is gone: in the peer's name, with the sequence
/// number that the receiver expects when `packet` itself is dropped. `None` for a SYN or RST and for anything
/// but TCP.
pub fn reset_to_destination(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let tcp = packet.tcp().filter(|tcp| !tcp.flags.rst() && !tcp.flags.syn())?;
    let segment = Segment {
        src_port: tcp.src_port,
        dst_port: tcp.dst_port,
        seq: tcp.seq,
        ack: tcp.ack,
        flags: TcpFlags::RST | TcpFlags::ACK,
        ..Segment::default()
    };
    Some(self::tcp(packet.src(), packet.dst(), &segment))
}

/// The ICMP error that tells the sender of `packet` that it is administratively prohibited (RFC 1812, section
/// 5.2.7.1; RFC 4443, section 3.1). `None` for what must not be answered with an error: an ICMP error, a
/// multicast destination, a fragment but the first (RFC 1122, section 3.2.2).
pub fn prohibited_to_source(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let is_error = match &packet.transport {
        Transport::Icmp(icmp) => icmp.echo.is_none(),
        Transport::Icmpv6(icmp) => icmp.kind < 128,
        Transport::Tcp(_)
        | Transport::Udp(_)
        | Transport::Sctp { .. }
        | Transport::Igmp { .. }
        | Transport::Gre { .. }
        | Transport::Esp { .. }
        | Transport::Fragment
        | Transport::NoNextHeader
        | Transport::Other => false,
    };
    let broadcast = matches!(packet.dst(), IpAddr::V4(addr) if addr.is_broadcast());
    let later = packet.ip.fragment.is_some_and(|fragment| fragment.offset != 0);
    if is_error || packet.dst().is_multicast() || broadcast || later {
        return None;
    }
    let (kind, code, most) = match packet.ip.version {
        IpVersion::V4 => (3, 13, QUOTE_BYTES_V4),
        IpVersion::V6 => (1, 1, QUOTE_BYTES_V6),
    };
    let mut body = vec![0; 4];
    body.extend(packet.ip.header.iter().chain(packet.ip.payload).take(most));
    Some(icmp(packet.dst(), packet.src(), kind, code, &body))
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoded, Decoder, FrameMeta, LinkType};

    fn decode(bytes: &[u8]) -> Packet<'_> {
        let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
        match Decoder::default().frame(meta, bytes) {
            Decoded::Packet(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    fn pairs() -> [(IpAddr, IpAddr); 2] {
        [
            ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
            (
                std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
                std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
            ),
        ]
    }

    #[test]
    fn what_is_built_is_decoded_without_findings() {
        for (src, dst) in pairs() {
            let segment =
                Segment { src_port: 1, dst_port: 2, flags: TcpFlags::ACK, options: &[1, 1, 1], payload: b"abc", ..Segment::default() };
            for bytes in [tcp(src, dst, &segment), udp(src, dst, 1, 2, b"abc"), icmp(src, dst, 128, 0, &[0, 7, 0, 1])] {
                let packet = decode(&bytes);
                assert!(!packet.checksum_invalid(), "{packet:?}");
                assert_eq!((packet.src(), packet.dst()), (src, dst));
            }
        }
    }

    #[test]
    fn answers_go_back_and_fit_the_connection() {
        for (src, dst) in pairs() {
            let segment = Segment {
                src_port: 1,
                dst_port: 2,
                seq: 100,
                ack: 900,
                flags: TcpFlags::ACK | TcpFlags::FIN,
                payload: b"abc",
                ..Segment::default()
            };
            let bytes = tcp(src, dst, &segment);
            let packet = decode(&bytes);
            let back = reset_to_source(&packet).expect("an answer");
            let back = decode(&back);
            assert_eq!((back.src(), back.ports()), (dst, (2, 1)));
            let header = back.tcp().expect("tcp");
            assert_eq!((header.seq, header.ack, header.flags.rst()), (900, 104, true));
            assert!(reset_to_source(&back).is_none());

            let forth = reset_to_destination(&packet).expect("an answer");
            let header = *decode(&forth).tcp().expect("tcp");
            assert_eq!((header.seq, header.src_port), (100, 1));

            let error = prohibited_to_source(&packet).expect("an answer");
            let error = decode(&error);
            assert!(!error.checksum_invalid());
            let quoted = match error.transport {
                Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => icmp.quoted,
                other => panic!("{other:?}"),
            };
            let quoted = quoted.expect("quoted");
            assert_eq!((quoted.src, quoted.dst, quoted.src_port, quoted.dst_port), (src, dst, 1, 2));
            assert!(prohibited_to_source(&error).is_none());
        }
    }
}
