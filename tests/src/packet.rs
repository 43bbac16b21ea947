//! Frames of any shape, byte by byte: what a container with NET_RAW can send and what no protocol stack would.
//! Builders fill in lengths and checksums; whoever wants a broken frame changes the bytes afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const TPID_8021Q: u16 = 0x8100;
pub const TPID_8021AD: u16 = 0x88a8;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

/// The addresses of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub src_mac: Mac,
    pub dst_mac: Mac,
    pub src: IpAddr,
    pub dst: IpAddr,
}

impl Ends {
    /// The way back.
    pub fn reversed(self) -> Self {
        Self { src_mac: self.dst_mac, dst_mac: self.src_mac, src: self.dst, dst: self.src }
    }

    /// A whole frame around an IP payload, by the family of the addresses.
    ///
    /// # Panics
    /// When the two addresses are of different families, or one is no test address.
    pub fn frame(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.tagged_frame(&[], protocol, payload)
    }

    /// As [`Ends::frame`], behind VLAN tags `(tpid, vid)`, outermost first.
    ///
    /// # Panics
    /// As [`Ends::frame`].
    pub fn tagged_frame(&self, tags: &[(u16, u16)], protocol: u8, payload: &[u8]) -> Vec<u8> {
        crate::net::check_target(self.dst);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                ethernet(self.src_mac, self.dst_mac, tags, ETHERTYPE_IPV4, &Ipv4 { protocol, ..Ipv4::new(src, dst) }.packet(payload))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ethernet(self.src_mac, self.dst_mac, tags, ETHERTYPE_IPV6, &Ipv6 { next: protocol, ..Ipv6::new(src, dst) }.packet(payload))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("{} and {} are of different families", self.src, self.dst)
            }
        }
    }

    pub fn udp(&self, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
        udp(self.src, self.dst, src_port, dst_port, payload)
    }

    pub fn tcp(&self, segment: &Tcp, payload: &[u8]) -> Vec<u8> {
        segment.segment(self.src, self.dst, payload)
    }

    /// An echo request of the right family.
    pub fn echo_request(&self, id: u16, sequence: u16, payload: &[u8]) -> (u8, Vec<u8>) {
        let message = |kind| [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &sequence.to_be_bytes(), payload].concat();
        match self.src {
            IpAddr::V4(_) => {
                let mut m = message(8);
                let sum = checksum(&[&m]);
                put(&mut m, 2, sum);
                (ICMP, m)
            }
            IpAddr::V6(_) => {
                let mut m = message(128);
                let sum = transport_checksum(self.src, self.dst, ICMPV6, &m);
                put(&mut m, 2, sum);
                (ICMPV6, m)
            }
        }
    }
}

/// An Ethernet frame, padded to nothing: virtual wires have no minimum.
pub fn ethernet(src: Mac, dst: Mac, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    for (tpid, vid) in tags {
        frame.extend_from_slice(&tpid.to_be_bytes());
        frame.extend_from_slice(&vid.to_be_bytes());
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 header (RFC 791).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// Bytes; must be a multiple of 8.
    pub offset: u16,
    /// Padded with zeros to a multiple of four.
    pub options: Vec<u8>,
}

impl Ipv4 {
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        let (dont_fragment, more_fragments) = (false, false);
        Self { src, dst, protocol: UDP, ttl: 64, id: 0x4242, dont_fragment, more_fragments, offset: 0, options: Vec::new() }
    }

    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = 5 + options.len() / 4;
        let flags = (u16::from(self.dont_fragment) << 14) | (u16::from(self.more_fragments) << 13) | (self.offset / 8);
        let mut p = vec![0x40 | words as u8, 0];
        p.extend_from_slice(&((words * 4 + payload.len()) as u16).to_be_bytes());
        p.extend_from_slice(&self.id.to_be_bytes());
        p.extend_from_slice(&flags.to_be_bytes());
        p.extend_from_slice(&[self.ttl, self.protocol, 0, 0]);
        p.extend_from_slice(&self.src.octets());
        p.extend_from_slice(&self.dst.octets());
        p.extend_from_slice(&options);
        let sum = checksum(&[&p]);
        put(&mut p, 10, sum);
        p.extend_from_slice(payload);
        p
    }

    /// The payload in fragments whose payloads have these lengths (multiples of 8), the last one taking the rest.
    pub fn fragments(&self, payload: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let piece = |(offset, bytes, more): (usize, &[u8], bool)| {
            Self { offset: self.offset + offset as u16, more_fragments: more, ..self.clone() }.packet(bytes)
        };
        cut(payload, lengths).into_iter().map(piece).collect()
    }
}

/// An IPv6 header with extension headers (RFC 8200).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6 {
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    /// Protocol of the payload.
    pub next: u8,
    pub hop_limit: u8,
    /// Extension headers `(protocol number, whole bytes with a wrong next-header field)`; see [`padding_header`].
    pub extensions: Vec<(u8, Vec<u8>)>,
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;

/// A hop-by-hop or destination options header of `units * 8` bytes that says nothing (PadN).
pub fn padding_header(units: u8) -> Vec<u8> {
    let len = usize::from(units.max(1)) * 8;
    let mut h = vec![0; len];
    h[1] = units.max(1) - 1;
    h[2] = 1; // PadN
    h[3] = (len - 4).min(255) as u8;
    h
}

impl Ipv6 {
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        Self { src, dst, next: UDP, hop_limit: 64, extensions: Vec::new() }
    }

    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.next]).collect();
        let mut chain = Vec::new();
        for (at, (_, bytes)) in self.extensions.iter().enumerate() {
            let start = chain.len();
            chain.extend_from_slice(bytes);
            if let Some(next) = chain.get_mut(start) {
                *next = kinds[at + 1];
            }
        }
        let mut p = vec![0x60, 0, 0, 0];
        p.extend_from_slice(&((chain.len() + payload.len()) as u16).to_be_bytes());
        p.extend_from_slice(&[kinds[0], self.hop_limit]);
        p.extend_from_slice(&self.src.octets());
        p.extend_from_slice(&self.dst.octets());
        p.extend_from_slice(&chain);
        p.extend_from_slice(payload);
        p
    }

    /// The payload in fragments whose payloads have these lengths (multiples of 8), the last one taking the rest.
    pub fn fragments(&self, id: u32, payload: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        let piece = |(offset, bytes, more): (usize, &[u8], bool)| {
            let mut header = vec![0, 0];
            header.extend_from_slice(&((offset as u16 & !7) | u16::from(more)).to_be_bytes());
            header.extend_from_slice(&id.to_be_bytes());
            let mut extensions = self.extensions.clone();
            extensions.push((FRAGMENT, header));
            Self { extensions, ..self.clone() }.packet(bytes)
        };
        cut(payload, lengths).into_iter().map(piece).collect()
    }
}

/// A TCP header (RFC 9293).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    /// [`SYN`] and the others, joined.
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// Padded with zeros to a multiple of four.
    pub options: Vec<u8>,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

impl Tcp {
    pub fn new(src_port: u16, dst_port: u16, flags: u8) -> Self {
        Self { src_port, dst_port, seq: 1000, ack: 0, flags, window: 64_240, urgent: 0, options: Vec::new() }
    }

    pub fn segment(&self, src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut s = [self.src_port.to_be_bytes(), self.dst_port.to_be_bytes()].concat();
        s.extend_from_slice(&self.seq.to_be_bytes());
        s.extend_from_slice(&self.ack.to_be_bytes());
        s.extend_from_slice(&[((5 + options.len() / 4) as u8) << 4, self.flags]);
        s.extend_from_slice(&self.window.to_be_bytes());
        s.extend_from_slice(&[0; 2]);
        s.extend_from_slice(&self.urgent.to_be_bytes());
        s.extend_from_slice(&options);
        s.extend_from_slice(payload);
        let sum = transport_checksum(src, dst, TCP, &s);
        put(&mut s, 16, sum);
        s
    }
}

/// A UDP datagram (RFC 768).
pub fn udp(src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut d = [src_port.to_be_bytes(), dst_port.to_be_bytes(), ((8 + payload.len()) as u16).to_be_bytes(), [0, 0]].concat();
    d.extend_from_slice(payload);
    let sum = match transport_checksum(src, dst, UDP, &d) {
        0 => 0xffff, // 0 would mean "none"
        sum => sum,
    };
    put(&mut d, 6, sum);
    d
}

/// An SCTP packet with one DATA chunk (RFC 9260) and its CRC32c.
pub fn sctp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    p.extend_from_slice(&0x1234_5678u32.to_be_bytes());
    p.extend_from_slice(&[0; 4]);
    p.extend_from_slice(&[0, 3]); // DATA, first and last fragment
    p.extend_from_slice(&((16 + payload.len()) as u16).to_be_bytes());
    p.extend_from_slice(&[0; 12]); // TSN, stream, sequence, protocol
    p.extend_from_slice(payload);
    p.resize(p.len().next_multiple_of(4), 0);
    let sum = crc32c(&p).to_le_bytes(); // RFC 9260 appendix A: least significant byte first
    p[8..12].copy_from_slice(&sum);
    p
}

/// What a received frame is, as far as it is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub src_mac: Mac,
    pub dst_mac: Mac,
    /// VLAN tags, outermost first.
    pub tags: Vec<(u16, u16)>,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Protocol of `payload`; for IPv6 that of the first header after the fixed one.
    pub protocol: u8,
    /// Behind the IP header.
    pub payload: Vec<u8>,
}

/// Takes an IP frame apart; none if it is something else.
pub fn view(frame: &[u8]) -> Option<View> {
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok();
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let (dst_mac, src_mac) = (mac(0)?, mac(6)?);
    let (mut at, mut tags) = (12, Vec::new());
    while matches!(word(at)?, TPID_8021Q | TPID_8021AD) {
        tags.push((word(at)?, word(at + 2)? & 0x0fff));
        at += 4;
    }
    let ethertype = word(at)?;
    let ip = frame.get(at + 2..)?;
    let (src, dst, protocol, start, end) = match ethertype {
        ETHERTYPE_IPV4 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
            let start = usize::from(ip.first()? & 0xf) * 4;
            (address(12)?, address(16)?, *ip.get(9)?, start, usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?])))
        }
        ETHERTYPE_IPV6 => {
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            let len = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
            (address(8)?, address(24)?, *ip.get(6)?, 40, 40 + len)
        }
        _ => return None,
    };
    Some(View { src_mac, dst_mac, tags, src, dst, protocol, payload: ip.get(start..end.min(ip.len()))?.to_vec() })
}

/// `payload` in pieces `(offset, bytes, more follow)`.
fn cut<'a>(payload: &'a [u8], lengths: &[usize]) -> Vec<(usize, &'a [u8], bool)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for &len in lengths {
        if at + len < payload.len() {
            pieces.push((at, &payload[at..at + len], true));
            at += len;
        }
    }
    pieces.push((at, &payload[at..], false));
    pieces
}

/// The internet checksum (RFC 1071).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let sum: u64 = bytes.chunks(2).map(|c| u64::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// With the pseudo-header of the addresses' family; the checksum field in `bytes` must be zero.
pub fn transport_checksum(src: IpAddr, dst: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let len = (bytes.len() as u32).to_be_bytes();
    let tail = [0, 0, 0, protocol];
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => checksum(&[&s.octets(), &d.octets(), &len, &tail, bytes]),
        (IpAddr::V6(s), IpAddr::V6(d)) => checksum(&[&s.octets(), &d.octets(), &len, &tail, bytes]),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{src} and {dst} are of different families"),
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & (c & 1).wrapping_neg()));
    !bytes.iter().fold(u32::MAX, step)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(six: bool) -> Ends {
        let (src, dst) = if six { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
        Ends { src_mac: [2, 0, 0, 0, 0, 1], dst_mac: [2, 0, 0, 0, 0, 2], src: src.parse().expect("ip"), dst: dst.parse().expect("ip") }
    }

    #[test]
    fn checksums_are_those_of_the_standards() {
        // RFC 1071, section 3: the sum of these bytes is ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        // RFC 3720 appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        for six in [false, true] {
            let e = ends(six);
            let segment = e.tcp(&Tcp::new(1, 2, SYN), b"odd");
            assert_eq!(transport_checksum(e.src, e.dst, TCP, &segment), 0, "a whole segment sums to zero");
        }
    }

    #[test]
    fn what_is_built_is_what_is_seen() {
        for six in [false, true] {
            let e = ends(six);
            let datagram = e.udp(5, 6, b"payload");
            let frame = e.tagged_frame(&[(TPID_8021AD, 7), (TPID_8021Q, 8)], UDP, &datagram);
            let seen = view(&frame).expect("an IP frame");
            assert_eq!((seen.src, seen.dst, seen.protocol), (e.src, e.dst, UDP));
            assert_eq!(seen.tags, [(TPID_8021AD, 7), (TPID_8021Q, 8)]);
            assert_eq!(seen.payload, datagram);
            assert_eq!(view(&frame[..20]), None, "a cut frame is no frame");
        }
    }

    #[test]
    fn fragments_hold_the_whole_payload() {
        let payload: Vec<u8> = (0..100).collect();
        let v4 = Ipv4::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let pieces = v4.fragments(&payload, &[16, 40]);
        assert_eq!(pieces.iter().map(|p| p.len() - 20).collect::<Vec<_>>(), [16, 40, 44]);
        assert_eq!(pieces.iter().flat_map(|p| p[20..].to_vec()).collect::<Vec<_>>(), payload);
        assert_eq!(pieces.iter().map(|p| u16::from_be_bytes([p[6], p[7]])).collect::<Vec<_>>(), [0x2000, 0x2002, 7]);
        let v6 = Ipv6 {
            extensions: vec![(DESTINATION_OPTIONS, padding_header(2))],
            ..Ipv6::new("2001:db8::1".parse().expect("ip"), "2001:db8::2".parse().expect("ip"))
        };
        let pieces = v6.fragments(9, &payload, &[16]);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [40 + 16 + 8 + 16, 40 + 16 + 8 + 84]);
        assert_eq!((pieces[0][6], pieces[0][40], pieces[0][56]), (DESTINATION_OPTIONS, FRAGMENT, UDP), "the chain of next headers");
    }

    #[test]
    #[should_panic(expected = "no address that a test may send to")]
    fn a_frame_to_a_strangers_address_is_refused() {
        let dst = IpAddr::from([192, 168, 0, 1]);
        Ends { dst, ..ends(false) }.frame(UDP, &[]);
    }
}
