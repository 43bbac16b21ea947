//! Which shard of the engine a packet meets.
//!
//! All packets of one flow have to meet one shard: both directions, its fragments once they are put together, and the ICMP
//! errors about it. So the shard follows from the flow's own two ends, ports included, whichever sent the packet; many
//! connections between two containers are spread over all shards. What this takes for the ends is what the engine's decoder
//! takes for them: plain TCP, UDP and SCTP are read here, all that is odd is given to a decoder.
//!
//! Three kinds of packets have no ports to go by and meet the shard of their two addresses: fragments, which are put together
//! there and then handed to the shard of their flow; tunnels, since the two directions of what they carry need not travel
//! between the same outer ports; and protocols without ports.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;

use bulkhead_ips::{ChecksumState, LinkType, Tuple};
use bulkhead_net::{DecodeConfig, Decoded, Decoder, FrameMeta};

use crate::frame::Glance;
use crate::state::lock;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Where a packet is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub shard: usize,
    /// It is put together there, and judged in the shard of the whole.
    pub fragment: bool,
}

/// Chooses shards. The choice cannot be foreseen by who sends packets.
#[derive(Debug)]
pub struct Sharding {
    count: usize,
    hasher: RandomState,
    /// For what is odd: seldom taken, and never for long.
    decoder: Mutex<Decoder>,
    tunnel_ports: Vec<u16>,
}

impl Sharding {
    /// `decode` as the shards have it.
    pub fn new(count: usize, decode: &DecodeConfig) -> Self {
        let tunnel_ports = [&decode.vxlan_ports, &decode.geneve_ports, &decode.teredo_ports].into_iter().flatten().copied().collect();
        Self { count: count.max(1), hasher: RandomState::new(), decoder: Mutex::new(Decoder::new(decode.clone())), tunnel_ports }
    }

    pub const fn count(&self) -> usize {
        self.count
    }

    /// A number nobody outside can guess; the same for the same `shard`.
    pub fn seed(&self, shard: usize) -> u64 {
        self.hasher.hash_one(shard)
    }

    /// `glance` is that of `frame`. What is no IP packet meets the first shard: nothing of it is kept.
    pub fn of(&self, link: LinkType, gso: bool, frame: &[u8], glance: Option<&Glance>) -> Place {
        if let Some(glance) = glance
            && !glance.fragment
            && matches!(glance.protocol, TCP | UDP | SCTP)
        {
            let ends = ((glance.src, glance.src_port), (glance.dst, glance.dst_port));
            return Place { shard: self.of_ends(glance.protocol, ends.0, ends.1), fragment: false };
        }
        let mut decoder = lock(&self.decoder);
        let Decoded::Packet(packet) = decoder.frame(FrameMeta { link, checksum: ChecksumState::Ignored, gso }, frame) else {
            return Place { shard: 0, fragment: false };
        };
        if packet.ip.fragment.is_some() {
            return Place { shard: self.of_pair(packet.src(), packet.dst()), fragment: true };
        }
        // An error belongs to the flow whose packet it quotes; the zone says nothing here.
        let tuple = Tuple::quoted(0, &packet).unwrap_or_else(|| Tuple::of(0, &packet));
        drop(decoder);
        let ends = ((tuple.src.addr, tuple.src.port), (tuple.dst.addr, tuple.dst.port));
        Place { shard: self.of_ends(tuple.proto, ends.0, ends.1), fragment: false }
    }

    fn of_ends(&self, protocol: u8, a: (IpAddr, u16), b: (IpAddr, u16)) -> usize {
        let tunnel = protocol == UDP && (self.tunnel_ports.contains(&a.1) || self.tunnel_ports.contains(&b.1));
        if tunnel || !matches!(protocol, TCP | UDP | SCTP | ICMP | ICMPV6) {
            return self.of_pair(a.0, b.0);
        }
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        self.hasher.hash_one((protocol, low, high)) as usize % self.count
    }

    fn of_pair(&self, a: IpAddr, b: IpAddr) -> usize {
        self.hasher.hash_one((a.min(b), a.max(b))) as usize % self.count
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use bulkhead_net::craft::{self, Segment};

    use super::*;
    use crate::frame::{glance, glance_ip};

    const SHARDS: usize = 64;

    /// xorshift64* (Vigna 2016): enough variety, the same each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn pair(&mut self) -> (IpAddr, IpAddr) {
            if self.roll().is_multiple_of(2) {
                let mut address = || IpAddr::from(Ipv4Addr::new(203, 0, 113, self.roll() as u8));
                (address(), address())
            } else {
                let mut address = || IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.roll() as u16));
                (address(), address())
            }
        }
    }

    fn sharding() -> Sharding {
        Sharding::new(SHARDS, &DecodeConfig::default())
    }

    fn place(sharding: &Sharding, packet: &[u8]) -> Place {
        let framed = craft::ethernet([2; 6], [4; 6], packet);
        let place = sharding.of(LinkType::Ethernet, framed.len() > 1600, &framed, glance(&framed).as_ref());
        assert_eq!(place, sharding.of(LinkType::RawIp, packet.len() > 1600, packet, glance_ip(packet, 0, 0).as_ref()));
        place
    }

    fn in_vlans(packet: &[u8], tags: &[u16]) -> Vec<u8> {
        let plain = craft::ethernet([2; 6], [4; 6], packet);
        let mut frame = plain[..12].to_vec();
        for tag in tags {
            frame.extend_from_slice(&[0x81, 0x00]);
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        frame.extend_from_slice(&plain[12..]);
        frame
    }

    /// With a hop-by-hop header (IPv6) or a no-operation option (IPv4) between IP and transport header.
    fn with_extension(packet: &[u8]) -> Vec<u8> {
        if packet[0] >> 4 == 6 {
            let mut out = packet[..40].to_vec();
            let length = (packet.len() - 40 + 8) as u16;
            out[4..6].copy_from_slice(&length.to_be_bytes());
            out[6] = 0;
            out.extend_from_slice(&[packet[6], 0, 1, 4, 0, 0, 0, 0]);
            out.extend_from_slice(&packet[40..]);
            out
        } else {
            let mut out = packet[..20].to_vec();
            out[0] = 0x46;
            out[2..4].copy_from_slice(&((packet.len() + 4) as u16).to_be_bytes());
            out.extend_from_slice(&[1, 1, 1, 0]);
            out.extend_from_slice(&packet[20..]);
            out
        }
    }

    #[test]
    fn every_packet_of_a_flow_meets_one_shard() {
        let sharding = sharding();
        let mut dice = Dice(0x5eed);
        for _ in 0..2000 {
            let (a, b) = dice.pair();
            let (port_a, port_b) = (dice.roll() as u16, dice.roll() as u16);
            let bytes = vec![7; 400 + dice.roll() as usize % 400];
            let tcp = |from: IpAddr, to: IpAddr, ports: (u16, u16)| {
                craft::tcp(from, to, &Segment { src_port: ports.0, dst_port: ports.1, payload: &bytes, ..Segment::default() })
            };
            let udp = |from: IpAddr, to: IpAddr, ports: (u16, u16)| craft::udp(from, to, ports.0, ports.1, &bytes);
            for (protocol, there, back) in [
                (TCP, tcp(a, b, (port_a, port_b)), tcp(b, a, (port_b, port_a))),
                (UDP, udp(a, b, (port_a, port_b)), udp(b, a, (port_b, port_a))),
            ] {
                let home = place(&sharding, &there);
                assert!(!home.fragment);
                assert_eq!(home, place(&sharding, &back), "{protocol} between {a}:{port_a} and {b}:{port_b}: the other direction");
                assert_eq!(home, place(&sharding, &with_extension(&there)), "an extension header or option");
                for tags in [vec![5], vec![0x4005, 7], vec![0x4005, 7, 0x4123]] {
                    let frame = in_vlans(&there, &tags);
                    assert_eq!(home, sharding.of(LinkType::Ethernet, false, &frame, glance(&frame).as_ref()), "in {} VLANs", tags.len());
                }

                // In pieces: they meet at one shard, and what comes of them is judged in the flow's.
                let header = if a.is_ipv4() { 20 } else { 40 };
                let body = &there[header..];
                let (first, last) = body.split_at(200);
                let pieces = [(0, true, first), (200, false, last)]
                    .map(|(offset, more, piece)| place(&sharding, &craft::fragment(a, b, protocol, 77, offset, more, piece)));
                assert!(pieces[0].fragment && pieces[0] == pieces[1]);

                // Errors about it, from whomever, to either end.
                for (quoted, to) in [(&there, a), (&back, b)] {
                    let router = if a.is_ipv4() { IpAddr::from([203, 0, 113, 1]) } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
                    let mut error = vec![0; 4];
                    error.extend_from_slice(&quoted[..header + 8]);
                    let kind = if a.is_ipv4() { 3 } else { 1 };
                    assert_eq!(home, place(&sharding, &craft::icmp(router, to, kind, 1, &error)), "an error about it");
                }
            }
            let echo = |from: IpAddr, to: IpAddr, kind: u8| {
                let body = [port_a.to_be_bytes(), [0, 1]].concat();
                craft::icmp(from, to, kind, 0, &body)
            };
            let (ask, answer) = if a.is_ipv4() { (8, 0) } else { (128, 129) };
            assert_eq!(place(&sharding, &echo(a, b, ask)), place(&sharding, &echo(b, a, answer)));
        }
    }

    #[test]
    fn both_directions_of_a_tunnel_meet_one_shard() {
        let sharding = sharding();
        let (a, b) = (IpAddr::from([203, 0, 113, 5]), IpAddr::from([203, 0, 113, 6]));
        // VXLAN takes its source port from a hash of what it carries: replies come from another one.
        let home = place(&sharding, &craft::udp(a, b, 40_001, 4789, &[0; 60]));
        assert_eq!(home, place(&sharding, &craft::udp(b, a, 51_234, 4789, &[0; 60])));
        assert_eq!(home, place(&sharding, &craft::ip(b, a, 47, &[0; 60])));
        assert_eq!(home, place(&sharding, &craft::ip(a, b, 4, &[0; 60])));
    }

    #[test]
    fn one_pair_of_addresses_fills_all_shards_alike() {
        let sharding = sharding();
        let (a, b) = (IpAddr::from([203, 0, 113, 5]), IpAddr::from([203, 0, 113, 6]));
        let mut count = [0u32; SHARDS];
        for port in 0..64_000u16 {
            count[place(&sharding, &craft::udp(a, b, port, 2000, b"x")).shard] += 1;
        }
        // 1,000 each on average; a share of 20 % off would be six standard deviations.
        assert!(count.iter().all(|count| (800..1200).contains(count)), "{count:?}");
    }

    #[test]
    fn whatever_comes_has_a_shard() {
        let sharding = sharding();
        let mut dice = Dice(0xbad);
        for _ in 0..20_000 {
            let mut frame: Vec<u8> = (0..dice.roll() % 120).map(|_| dice.roll() as u8).collect();
            if let Some(kind) = frame.get_mut(12..15) {
                kind.copy_from_slice(if dice.roll().is_multiple_of(2) { &[0x08, 0x00, 0x45] } else { &[0x86, 0xdd, 0x60] });
            }
            assert!(sharding.of(LinkType::Ethernet, false, &frame, glance(&frame).as_ref()).shard < SHARDS);
        }
    }
}
