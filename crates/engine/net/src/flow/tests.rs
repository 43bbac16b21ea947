use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::craft::{self, Segment};
use crate::decode::{Decoded, Decoder, FrameMeta, LinkType, TcpFlags};
use crate::stream::{Reassembler, StreamConfig, StreamEnd, StreamSink};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

struct Deaf;

impl StreamSink for Deaf {
    fn data(&mut self, _dir: Direction, _offset: u64, _bytes: &[u8]) {}
    fn gap(&mut self, _dir: Direction, _offset: u64, _len: u64) {}
    fn end(&mut self, _dir: Direction, _how: StreamEnd) {}
}

struct Kit {
    table: FlowTable<u32>,
    reassembler: Reassembler,
    ended: Vec<EndedFlow<u32>>,
    now: u64,
    made: u32,
    epoch: u64,
}

impl Kit {
    fn new(flows_max: usize) -> Self {
        Self {
            table: FlowTable::new(FlowConfig { flows_max, ..FlowConfig::default() }, [1, 2]),
            reassembler: Reassembler::new(StreamConfig::default()),
            ended: Vec::new(),
            now: 1000,
            made: 0,
            epoch: 0,
        }
    }

    /// A packet's life as the pipeline has it.
    fn send(&mut self, bytes: &[u8]) -> Found {
        self.send_with(bytes, &mut ())
    }

    fn send_with(&mut self, bytes: &[u8], origin: &mut impl Origin) -> Found {
        let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
        let Decoded::Packet(packet) = Decoder::default().frame(meta, bytes) else { panic!("a packet") };
        let now = Timestamp::from_secs(self.now);
        let made = &mut self.made;
        let found = self.table.lookup(now, 0, self.epoch, &packet, origin, &mut self.ended, |_| {
            *made += 1;
            *made
        });
        let flow = self.table.get_mut(found.flow).expect("the flow that was found");
        if let (Some(tcp), false) = (packet.tcp(), found.related) {
            let reassembler = &mut self.reassembler;
            let stream = flow.tcp.get_or_insert_with(|| Box::new(reassembler.open(true, found.handshake.as_ref())));
            reassembler.segment(stream, now, found.dir, tcp, packet.payload, &mut Deaf);
        }
        self.table.settle(found.flow);
        check(&self.table);
        found
    }

    fn state(&self, found: Found) -> u32 {
        self.table.get(found.flow).expect("a flow").state
    }
}

/// Every flow is found by its tuple, both ways, and stands in exactly one list, in order of its last packet.
fn check(table: &FlowTable<u32>) {
    assert_eq!(table.iter().count(), table.len());
    for flow in table.iter() {
        let back = if flow.tuple.src == flow.tuple.dst { Direction::ToServer } else { Direction::ToClient };
        for (tuple, dir) in [(flow.tuple, Direction::ToServer), (flow.tuple.reversed(), back)] {
            let (found, found_dir) = table.find(&tuple).expect("found");
            assert_eq!((table.get(found).map(|flow| flow.id), found_dir), (Some(flow.id), dir));
        }
    }
    assert_eq!(table.listed(), table.len());
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    craft::udp(A, B, from, to, b"x")
}

fn udp_back(from: u16, to: u16) -> Vec<u8> {
    craft::udp(B, A, from, to, b"xyz")
}

fn tcp(ends: (IpAddr, IpAddr), ports: (u16, u16), flags: TcpFlags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    craft::tcp(
        ends.0,
        ends.1,
        &Segment { src_port: ports.0, dst_port: ports.1, seq, ack, flags, window: 1000, payload, ..Segment::default() },
    )
}

#[test]
fn both_directions_are_one_flow() {
    let mut kit = Kit::new(100);
    let first = kit.send(&udp(5000, 53));
    let back = kit.send(&udp_back(53, 5000));
    assert!(first.fresh && !back.fresh);
    assert_eq!((first.dir, back.dir, first.flow), (Direction::ToServer, Direction::ToClient, back.flow));
    let flow = kit.table.get(first.flow).expect("a flow");
    assert_eq!((flow.client().port, flow.server().port), (5000, 53));
    assert_eq!((flow.to_server.packets, flow.to_client.packets, flow.to_client.bytes), (1, 1, 31));
    assert_eq!(flow.state_name(), "established");
}

#[test]
fn the_sender_of_the_syn_is_the_client_and_of_the_answer_the_server() {
    let mut kit = Kit::new(100);
    assert_eq!(kit.send(&tcp((A, B), (80, 9000), TcpFlags::SYN, 1, 0, b"")).dir, Direction::ToServer);
    assert_eq!(kit.send(&tcp((A, B), (81, 9000), TcpFlags::SYN | TcpFlags::ACK, 1, 0, b"")).dir, Direction::ToClient);
    assert_eq!(kit.send(&tcp((A, B), (82, 9000), TcpFlags::ACK, 1, 0, b"x")).dir, Direction::ToClient);
    assert_eq!(kit.send(&tcp((A, B), (9000, 82), TcpFlags::ACK, 1, 0, b"x")).dir, Direction::ToServer);
}

struct Knows(Option<Handshake>, u32);

impl Origin for Knows {
    fn handshake(&mut self, tuple: &Tuple) -> Option<Handshake> {
        self.1 += 1;
        assert_eq!(tuple.src.addr, A);
        self.0
    }
}

#[test]
fn the_origin_is_asked_once_and_only_in_the_middle_of_a_connection() {
    let handshake = Handshake { source_is_client: false, client_next: Some(5), server_next: Some(6) };
    let mut kit = Kit::new(100);
    let mut origin = Knows(Some(handshake), 0);
    kit.send_with(&tcp((A, B), (1, 2), TcpFlags::SYN, 1, 0, b""), &mut origin);
    kit.send_with(&udp(1, 2), &mut origin);
    assert_eq!(origin.1, 0);
    let data = tcp((A, B), (9000, 80), TcpFlags::ACK, 6, 5, b"x");
    let found = kit.send_with(&data, &mut origin);
    kit.send_with(&data, &mut origin);
    assert_eq!((found.dir, found.handshake, origin.1), (Direction::ToClient, Some(handshake), 1));
    let flow = kit.table.get(found.flow).expect("a flow");
    assert!(flow.tcp.as_ref().is_some_and(|tcp| tcp.is_established() && tcp.delivered(Direction::ToClient) == 1));
    assert_eq!(flow.class(), Class::TcpEstablished);
}

#[test]
fn flows_time_out_by_class() {
    let mut kit = Kit::new(100);
    let one_way = kit.send(&udp(1, 2));
    let both_ways = kit.send(&udp(3, 4));
    kit.send(&udp_back(4, 3));
    let half_open = kit.send(&tcp((A, B), (5, 6), TcpFlags::SYN, 1, 0, b""));
    let refused = kit.send(&tcp((A, B), (7, 8), TcpFlags::SYN, 1, 0, b""));
    kit.send(&tcp((B, A), (8, 7), TcpFlags::RST | TcpFlags::ACK, 0, 2, b""));
    for (after, gone, why) in [
        (10, refused, FlowEnd::Closed),
        (30, one_way, FlowEnd::Timeout),
        (60, half_open, FlowEnd::Timeout),
        (300, both_ways, FlowEnd::Timeout),
    ] {
        kit.table.expire(Timestamp::from_secs(kit.now + after), 10, &mut kit.ended);
        assert!(kit.ended.is_empty(), "{after}");
        kit.table.expire(Timestamp::from_secs(kit.now + after + 1), 10, &mut kit.ended);
        assert_eq!(kit.ended.pop().map(|ended| ended.why), Some(why));
        assert!(kit.table.get(gone.flow).is_none());
        check(&kit.table);
    }
    assert!(kit.table.is_empty());
}

#[test]
fn expiry_keeps_to_its_budget() {
    let mut kit = Kit::new(100);
    for port in 1..=50 {
        kit.send(&udp(port, 60_000));
    }
    let later = Timestamp::from_secs(kit.now + 31);
    assert_eq!(kit.table.expire(later, 20, &mut kit.ended), 20);
    assert_eq!(kit.table.expire(later, 20, &mut kit.ended), 20);
    assert_eq!(kit.table.expire(later, 20, &mut kit.ended), 10);
    let order: Vec<u16> = kit.ended.iter().map(|ended| ended.flow.client().port).collect();
    assert_eq!(order, (1..=50).collect::<Vec<u16>>());
}

#[test]
fn a_packet_after_the_time_out_begins_a_new_flow() {
    let mut kit = Kit::new(100);
    let old = kit.send(&udp(1, 2));
    kit.now += 31;
    let new = kit.send(&udp_back(2, 1));
    assert!(new.fresh && new.dir == Direction::ToServer);
    assert!(kit.table.get(old.flow).is_none());
    assert_eq!(kit.ended.iter().map(|ended| ended.why).collect::<Vec<_>>(), [FlowEnd::Timeout]);
}

#[test]
fn a_flood_evicts_the_flood_and_not_what_is_established() {
    let mut kit = Kit::new(64);
    let mut kept = Vec::new();
    for port in 1..=8 {
        kit.send(&tcp((A, B), (port, 80), TcpFlags::SYN, 100, 0, b""));
        kit.send(&tcp((B, A), (80, port), TcpFlags::SYN | TcpFlags::ACK, 500, 101, b""));
        kept.push(kit.send(&tcp((A, B), (port, 80), TcpFlags::ACK, 101, 501, b"x")));
    }
    for i in 0..1000u16 {
        if i % 2 == 0 {
            kit.send(&tcp((A, B), (1000 + i, 80), TcpFlags::SYN, 1, 0, b""));
        } else {
            kit.send(&udp(1000 + i, 53));
        }
        assert!(kit.table.len() <= 64);
    }
    assert!(kept.iter().all(|found| kit.table.get(found.flow).is_some()));
    assert_eq!((kit.table.stats.ended_evicted, kit.table.stats.evicted_established), (1008 - 64, 0));
    // Nothing but established ones: then the oldest of these has to go.
    let mut kit = Kit::new(4);
    for port in 1..=6 {
        kit.send(&udp(port, 53));
        kit.send(&udp_back(53, port));
    }
    assert_eq!(kit.table.stats.evicted_established, 2);
    assert_eq!(kit.ended.iter().map(|ended| ended.flow.client().port).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn stale_references_find_nothing() {
    let mut kit = Kit::new(1);
    let first = kit.send(&udp(1, 2));
    let second = kit.send(&udp(3, 4));
    assert!(kit.table.get(first.flow).is_none() && kit.table.get_mut(first.flow).is_none());
    kit.table.settle(first.flow);
    kit.table.remove(first.flow, FlowEnd::Closed, &mut kit.ended);
    assert_eq!(kit.state(second), 2);
}

#[test]
fn a_syn_after_the_close_begins_a_new_flow() {
    let mut kit = Kit::new(100);
    kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 100, 0, b""));
    kit.send(&tcp((B, A), (80, 5), TcpFlags::SYN | TcpFlags::ACK, 500, 101, b""));
    let old = kit.send(&tcp((A, B), (5, 80), TcpFlags::FIN | TcpFlags::ACK, 101, 501, b""));
    // Not closed yet: a SYN is nothing but a challenge.
    assert!(!kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 9000, 0, b"")).fresh);
    kit.send(&tcp((B, A), (80, 5), TcpFlags::FIN | TcpFlags::ACK, 501, 102, b""));
    // The old SYN once more is not a new connection.
    assert!(!kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 100, 0, b"")).fresh);
    let new = kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 9000, 0, b""));
    assert!(new.fresh);
    assert_eq!((kit.state(new), kit.ended.len()), (2, 1));
    assert!(kit.table.get(old.flow).is_none());
}

#[test]
fn the_answer_to_a_new_syn_begins_a_new_flow() {
    let mut kit = Kit::new(100);
    kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 100, 0, b""));
    kit.send(&tcp((B, A), (80, 5), TcpFlags::SYN | TcpFlags::ACK, 500, 101, b""));
    kit.send(&tcp((A, B), (5, 80), TcpFlags::ACK, 101, 501, b"x"));
    // The host behind A was restarted; B, too, has forgotten the old connection.
    assert!(!kit.send(&tcp((A, B), (5, 80), TcpFlags::SYN, 7000, 0, b"")).fresh);
    let new = kit.send(&tcp((B, A), (80, 5), TcpFlags::SYN | TcpFlags::ACK, 8000, 7001, b""));
    assert!(new.fresh && new.dir == Direction::ToClient);
    assert_eq!(kit.ended.iter().map(|ended| ended.why).collect::<Vec<_>>(), [FlowEnd::Superseded]);
    kit.send(&tcp((A, B), (5, 80), TcpFlags::ACK, 7001, 8001, b"fresh"));
    let flow = kit.table.get(new.flow).expect("a flow");
    assert_eq!(flow.tcp.as_ref().map(|tcp| tcp.delivered(Direction::ToServer)), Some(5));
}

#[test]
fn another_epoch_is_another_flow() {
    let mut kit = Kit::new(100);
    kit.epoch = 5;
    kit.send(&udp(1, 2));
    kit.epoch = 0;
    assert!(!kit.send(&udp(1, 2)).fresh);
    kit.epoch = 6;
    assert!(kit.send(&udp(1, 2)).fresh);
    assert!(!kit.send(&udp(1, 2)).fresh);
}

#[test]
fn icmp_errors_belong_to_the_flow_they_quote() {
    let mut kit = Kit::new(100);
    let asked = udp(5000, 53);
    let flow = kit.send(&asked);
    let error = kit.send(&craft::icmp(B, A, 3, 3, &[&[0; 4], &asked[..]].concat()));
    assert_eq!((error.flow, error.dir, error.related), (flow.flow, Direction::ToClient, true));
    assert_eq!(kit.table.get(flow.flow).map(|flow| flow.to_client.packets), Some(0));
    // About nothing that is known: a flow of its own.
    let stray = kit.send(&craft::icmp(B, A, 3, 3, &[&[0; 4], &udp(1, 2)[..]].concat()));
    assert!(stray.fresh && !stray.related);
}

#[test]
fn pings_are_told_apart_by_identifier() {
    let mut kit = Kit::new(100);
    let one = kit.send(&craft::icmp(A, B, 8, 0, &[0, 1, 0, 1]));
    let two = kit.send(&craft::icmp(A, B, 8, 0, &[0, 2, 0, 1]));
    let reply = kit.send(&craft::icmp(B, A, 0, 0, &[0, 1, 0, 1]));
    assert_ne!(one.flow, two.flow);
    assert_eq!((one.flow, reply.dir), (reply.flow, Direction::ToClient));
}

#[test]
fn the_same_addresses_in_another_zone_are_another_flow() {
    let bytes = udp(1, 2);
    let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
    let Decoded::Packet(packet) = Decoder::default().frame(meta, &bytes) else { panic!("a packet") };
    let mut table = FlowTable::new(FlowConfig::default(), [1, 2]);
    let mut ended = Vec::new();
    for zone in 0..3 {
        let found = table.lookup(Timestamp::from_secs(1), zone, 0, &packet, &mut (), &mut ended, |_| zone);
        assert!(found.fresh);
    }
    assert_eq!(table.len(), 3);
    table.clear(&mut ended);
    assert_eq!((table.len(), ended.len()), (0, 3));
}

#[test]
fn a_packet_to_itself_does_no_harm() {
    let mut kit = Kit::new(10);
    let land = craft::tcp(A, A, &Segment { src_port: 80, dst_port: 80, seq: 1, flags: TcpFlags::SYN, ..Segment::default() });
    assert!(kit.send(&land).fresh);
    assert!(!kit.send(&land).fresh);
}

/// A table under random packets agrees with a plain map about which flows there are.
#[test]
fn a_random_life_keeps_the_table_whole() {
    let mut kit = Kit::new(32);
    let mut random = 0x1234_5678_9abc_def1u64;
    for step in 0..4000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let port = 1000 + (random >> 8) as u16 % 50;
        match random % 8 {
            0 => drop(kit.send(&udp(port, 53))),
            1 => drop(kit.send(&udp_back(53, port))),
            2 => drop(kit.send(&tcp((A, B), (port, 80), TcpFlags::SYN, step, 0, b""))),
            3 => drop(kit.send(&tcp((B, A), (80, port), TcpFlags::ACK, step, 1, b"abc"))),
            4 => drop(kit.send(&tcp((A, B), (port, 80), TcpFlags::RST, step, 0, b""))),
            5 => drop(kit.send(&craft::icmp(A, B, 8, 0, &[0, port as u8, 0, 1]))),
            6 => kit.now += random >> 60,
            _ => {
                let now = Timestamp::from_secs(kit.now);
                kit.table.expire(now, 3, &mut kit.ended);
            }
        }
        check(&kit.table);
        let stats = &kit.table.stats;
        assert_eq!(stats.created, kit.table.len() as u64 + kit.ended.len() as u64);
    }
}
