use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::craft;
use crate::decode::{Decoded, Decoder, FrameMeta, LinkType};

const V4: (IpAddr, IpAddr) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
const V6: (IpAddr, IpAddr) =
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)));

/// A defragmenter that is fed with fragments of one UDP datagram (protocol 17), id 7 unless said otherwise.
struct Kit {
    defrag: Defrag,
    ends: (IpAddr, IpAddr),
    enforce: bool,
    now: u64,
    id: u32,
}

/// [`Defragged`] without the borrow.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole(Vec<u8>),
    Other(Defragged<'static>),
}

fn decode(bytes: &[u8]) -> Packet<'_> {
    let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
    match Decoder::default().frame(meta, bytes) {
        Decoded::Packet(packet) => packet,
        other => panic!("{other:?}"),
    }
}

impl Kit {
    fn new(ends: (IpAddr, IpAddr), enforce: bool) -> Self {
        Self::with(DefragConfig::default(), ends, enforce)
    }

    fn with(config: DefragConfig, ends: (IpAddr, IpAddr), enforce: bool) -> Self {
        Self { defrag: Defrag::new(config), ends, enforce, now: 1, id: 7 }
    }

    fn send(&mut self, offset: u16, more: bool, piece: &[u8]) -> Got {
        let bytes = craft::fragment(self.ends.0, self.ends.1, 17, self.id, offset, more, piece);
        match self.defrag.fragment(Timestamp::from_secs(self.now), 0, &decode(&bytes), self.enforce) {
            Defragged::Whole(whole) => Got::Whole(whole[if self.ends.0.is_ipv4() { 20 } else { 40 }..].to_vec()),
            Defragged::Held => Got::Other(Defragged::Held),
            Defragged::Duplicate => Got::Other(Defragged::Duplicate),
            Defragged::Conflict => Got::Other(Defragged::Conflict),
            Defragged::Discarded(fault) => Got::Other(Defragged::Discarded(fault)),
            Defragged::Rejected(fault) => Got::Other(Defragged::Rejected(fault)),
            Defragged::Closed => Got::Other(Defragged::Closed),
            Defragged::Refused => Got::Other(Defragged::Refused),
        }
    }
}

const HELD: Got = Got::Other(Defragged::Held);

/// The account of memory is what the open trackers cost, and nothing else.
fn assert_account(defrag: &Defrag) {
    let mut cost = 0;
    let mut open = 0;
    let mut completed = 0;
    for entry in defrag.entries.values() {
        match &entry.state {
            State::Open(tracker) => {
                cost += tracker.cost;
                open += 1;
                let pieces: usize = tracker.pieces.values().map(Vec::len).sum();
                assert_eq!(pieces, tracker.meat as usize);
            }
            State::Closed => {}
            State::Completed => completed += 1,
        }
    }
    assert_eq!((defrag.bytes, defrag.tracker_count, defrag.completed_count), (cost, open, completed));
    assert_eq!(defrag.deadlines.len(), defrag.entries.len());
    assert_eq!(defrag.sources.values().map(|(_, open)| *open as usize).sum::<usize>(), open);
}

#[test]
fn a_datagram_is_put_together_in_any_order() {
    let body: Vec<u8> = (0..56u8).collect();
    let pieces = [(0u16, true, 0..16usize), (16, true, 16..32), (32, true, 32..48), (48, false, 48..56)];
    let mut order = [0, 1, 2, 3];
    for ends in [V4, V6] {
        // All 24 orders, by Heap's algorithm.
        let mut counters = [0; 4];
        let mut at = 0;
        loop {
            let mut kit = Kit::new(ends, false);
            for (turn, piece) in order.iter().enumerate() {
                let (offset, more, range) = pieces[*piece].clone();
                let got = kit.send(offset, more, &body[range]);
                assert_eq!(got, if turn == 3 { Got::Whole(body.clone()) } else { HELD }, "{order:?}");
            }
            assert!(kit.defrag.is_empty());
            assert_account(&kit.defrag);
            while at < 4 && counters[at] >= at {
                counters[at] = 0;
                at += 1;
            }
            if at == 4 {
                break;
            }
            order.swap(if at % 2 == 0 { 0 } else { counters[at] }, at);
            counters[at] += 1;
            at = 0;
        }
    }
}

#[test]
fn the_datagram_is_a_packet_with_a_right_header() {
    for ends in [V4, V6] {
        let body = craft::udp_body(ends.0, ends.1, 1000, 2000, &[5; 3000]);
        let mut kit = Kit::new(ends, true);
        assert_eq!(kit.send(0, true, &body[..1480]), HELD);
        assert_eq!(kit.send(1480, true, &body[1480..2960]), HELD);
        let last = craft::fragment(ends.0, ends.1, 17, 7, 2960, false, &body[2960..]);
        let last = decode(&last);
        let Defragged::Whole(whole) = kit.defrag.fragment(Timestamp::from_secs(1), 0, &last, true) else { panic!("whole") };
        let Decoded::Packet(packet) = Decoder::default().datagram(&last, whole) else { panic!("a packet") };
        assert!(packet.events.is_empty(), "{:?}", packet.events);
        assert_eq!((packet.ports(), packet.payload.len(), packet.ip.fragment), ((1000, 2000), 3000, None));
    }
}

#[test]
fn duplicates_are_ignored_and_leave_the_first_bytes() {
    for ends in [V4, V6] {
        let mut kit = Kit::new(ends, false);
        assert_eq!(kit.send(0, true, b"AAAAAAAABBBBBBBB"), HELD);
        assert_eq!(kit.send(0, true, b"AAAAAAAABBBBBBBB"), Got::Other(Defragged::Duplicate));
        assert_eq!(kit.send(8, true, b"BBBBBBBB"), Got::Other(Defragged::Duplicate));
        assert_eq!(kit.send(8, true, b"bbbbbbbb"), Got::Other(Defragged::Conflict));
        assert_eq!(kit.send(16, false, b"CCCC"), Got::Whole(b"AAAAAAAABBBBBBBBCCCC".to_vec()));
        assert_eq!((kit.defrag.stats.duplicates, kit.defrag.stats.conflicts), (2, 1));
    }
}

#[test]
fn a_duplicate_across_two_fragments_counts_within_a_run_only() {
    // Appended one behind the other: one run.
    let mut kit = Kit::new(V4, false);
    kit.send(0, true, &[1; 8]);
    kit.send(8, true, &[2; 8]);
    assert_eq!(kit.send(0, true, &[&[1; 8][..], &[2; 8]].concat()), Got::Other(Defragged::Duplicate));
    // Put in before: two runs, though adjacent.
    let mut kit = Kit::new(V4, false);
    kit.send(8, true, &[2; 8]);
    kit.send(0, true, &[1; 8]);
    assert_eq!(kit.send(0, true, &[&[1; 8][..], &[2; 8]].concat()), Got::Other(Defragged::Discarded(FragmentFault::Overlap)));
}

#[test]
fn an_overlap_discards_all_and_the_next_fragment_begins_anew() {
    for ends in [V4, V6] {
        let mut kit = Kit::new(ends, false);
        assert_eq!(kit.send(0, true, &[1; 16]), HELD);
        assert_eq!(kit.send(8, true, &[2; 16]), Got::Other(Defragged::Discarded(FragmentFault::Overlap)));
        assert!(kit.defrag.is_empty());
        assert_eq!(kit.send(16, false, &[3; 4]), HELD);
        assert_eq!(kit.send(0, true, &[4; 16]), Got::Whole([&[4; 16][..], &[3; 4]].concat()));
        assert_account(&kit.defrag);
    }
}

#[test]
fn when_enforcing_what_was_discarded_stays_closed_until_the_receiver_has_forgotten_it() {
    for (ends, secs) in [(V4, 30), (V6, 60)] {
        let mut kit = Kit::new(ends, true);
        kit.send(0, true, &[1; 16]);
        assert_eq!(kit.send(8, true, &[2; 16]), Got::Other(Defragged::Discarded(FragmentFault::Overlap)));
        kit.now += secs;
        assert_eq!(kit.send(16, false, &[3; 4]), Got::Other(Defragged::Closed));
        kit.now += ENFORCE_SLACK_SECS;
        assert_eq!(kit.send(16, false, &[3; 4]), HELD);
        assert_account(&kit.defrag);
    }
}

#[test]
fn when_enforcing_a_completed_datagram_stays_closed() {
    let mut kit = Kit::new(V4, true);
    kit.send(0, true, &[1; 8]);
    assert!(matches!(kit.send(8, false, &[2; 8]), Got::Whole(_)));
    // Had the last fragment been lost on its way, this one would complete it with bytes nobody judged.
    assert_eq!(kit.send(8, false, &[3; 8]), Got::Other(Defragged::Closed));
    kit.id = 8;
    assert_eq!(kit.send(8, false, &[3; 8]), HELD);
    assert_account(&kit.defrag);
}

#[test]
fn completed_keys_are_forgotten_at_their_cap() {
    let mut kit = Kit::with(DefragConfig { completed_max: 3, ..DefragConfig::default() }, V4, true);
    for id in 0..5 {
        kit.id = id;
        kit.send(0, true, &[1; 8]);
        assert!(matches!(kit.send(8, false, &[2; 8]), Got::Whole(_)));
        assert_account(&kit.defrag);
    }
    assert_eq!(kit.defrag.stats.completed_forgotten, 2);
    kit.id = 0;
    assert_eq!(kit.send(0, true, &[1; 8]), HELD);
    kit.id = 4;
    assert_eq!(kit.send(0, true, &[1; 8]), Got::Other(Defragged::Closed));
}

#[test]
fn wrong_ends_and_empty_fragments_discard_all() {
    for ends in [V4, V6] {
        for (first, second, fault) in [
            ((8, false, &[1u8; 8][..]), (16, true, &[1u8; 8][..]), FragmentFault::End),
            ((8, false, &[1; 8]), (16, false, &[1; 8]), FragmentFault::End),
            ((16, true, &[1; 8]), (8, false, &[1; 8]), FragmentFault::End),
            ((8, true, &[1; 8]), (16, false, &[]), FragmentFault::Empty),
        ] {
            let mut kit = Kit::new(ends, false);
            assert_eq!(kit.send(first.0, first.1, first.2), HELD);
            assert_eq!(kit.send(second.0, second.1, second.2), Got::Other(Defragged::Discarded(fault)), "{first:?} {second:?}");
            assert_account(&kit.defrag);
        }
    }
}

#[test]
fn ipv4_cuts_a_fragment_to_eight_bytes_and_ipv6_rejects_it() {
    let mut kit = Kit::new(V4, false);
    assert_eq!(kit.send(0, true, b"12345678xyz"), HELD);
    assert_eq!(kit.send(8, false, b"9"), Got::Whole(b"123456789".to_vec()));
    let mut kit = Kit::new(V6, false);
    assert_eq!(kit.send(0, true, b"12345678xyz"), Got::Other(Defragged::Rejected(FragmentFault::Unaligned)));
    assert_eq!(kit.send(0, true, b"1234567"), Got::Other(Defragged::Rejected(FragmentFault::HeaderIncomplete)));
    assert_eq!(kit.send(65_528, true, &[0; 16]), Got::Other(Defragged::Rejected(FragmentFault::TooLarge)));
    assert!(kit.defrag.is_empty());
}

#[test]
fn a_datagram_too_large_for_ip_is_discarded() {
    let mut kit = Kit::new(V4, false);
    assert_eq!(kit.send(0, true, &[0; 32_768]), HELD);
    assert_eq!(kit.send(32_768, true, &[0; 32_760]), HELD);
    assert_eq!(kit.send(65_528, false, &[0; 8]), Got::Other(Defragged::Discarded(FragmentFault::TooLarge)));
    assert_account(&kit.defrag);
}

#[test]
fn mixed_congestion_marks_are_discarded() {
    let mut kit = Kit::new(V4, false);
    kit.send(0, true, &[0; 8]);
    let mut bytes = craft::fragment(V4.0, V4.1, 17, 7, 8, false, &[1; 8]);
    bytes[1] = 3;
    let packet = decode(&bytes);
    let got = kit.defrag.fragment(Timestamp::from_secs(1), 0, &packet, false);
    assert_eq!(got, Defragged::Discarded(FragmentFault::Ecn));
}

#[test]
fn datagrams_are_told_apart_by_zone_vlan_ends_id_and_ipv4_protocol() {
    let mut defrag = Defrag::new(DefragConfig::default());
    let now = Timestamp::from_secs(1);
    let mut send = |zone, src, proto, id, vlan: &[u16]| {
        let bytes = craft::fragment(src, V4.1, proto, id, 0, true, &[1; 8]);
        let mut packet = decode(&bytes);
        packet.vlan = VlanIds::new(vlan);
        matches!(defrag.fragment(now, zone, &packet, false), Defragged::Held)
    };
    assert!(send(0, V4.0, 17, 7, &[]));
    assert!(!send(0, V4.0, 17, 7, &[]), "a duplicate");
    assert!(send(1, V4.0, 17, 7, &[]));
    assert!(send(0, V4.0, 6, 7, &[]));
    assert!(send(0, V4.0, 17, 8, &[]));
    assert!(send(0, V4.0, 17, 7, &[5]));
    assert!(send(0, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 17, 7, &[]));
}

#[test]
fn datagrams_time_out_from_their_first_fragment() {
    for (ends, secs) in [(V4, 30), (V6, 60)] {
        let mut kit = Kit::new(ends, false);
        kit.send(0, true, &[1; 8]);
        kit.now += secs - 1;
        assert_eq!(kit.send(16, true, &[1; 8]), HELD);
        kit.now += 1;
        assert_eq!(kit.send(8, true, &[1; 8]), HELD);
        assert_eq!((kit.defrag.stats.timeouts, kit.defrag.len()), (1, 1));
        assert_account(&kit.defrag);
    }
}

#[test]
fn a_datagram_begins_anew_when_too_many_others_came_between() {
    for (others, again) in [(63, Got::Other(Defragged::Conflict)), (64, HELD)] {
        let mut kit = Kit::new(V4, false);
        kit.send(0, true, b"AAAAAAAA");
        for id in 0..others {
            kit.id = 100 + id;
            kit.send(0, true, &[0; 8]);
        }
        kit.id = 7;
        assert_eq!(kit.send(0, true, b"BBBBBBBB"), again, "{others}");
        assert_account(&kit.defrag);
    }
}

#[test]
fn caps_hold_and_the_oldest_goes_first() {
    for enforce in [false, true] {
        let config = DefragConfig { trackers_max: 10, bytes_max: 20_000, closed_max: 50, ..DefragConfig::default() };
        let mut kit = Kit::with(config, V4, enforce);
        for id in 0..100 {
            kit.id = id;
            let got = kit.send(8, true, &[0; 1000]);
            assert_account(&kit.defrag);
            assert!(kit.defrag.len() <= 10 && kit.defrag.memory() <= 20_000);
            if enforce && id >= 60 {
                assert_eq!(got, Got::Other(Defragged::Refused), "{id}");
            } else {
                assert_eq!(got, HELD, "{id}");
            }
        }
        let stats = &kit.defrag.stats;
        assert_eq!((stats.evicted_trackers, stats.refused), if enforce { (50, 40) } else { (90, 0) });
        kit.id = 20;
        assert_eq!(kit.send(0, true, &[0; 8]), if enforce { Got::Other(Defragged::Closed) } else { HELD });
        // Large ones: the cap on bytes.
        let mut kit = Kit::with(DefragConfig { bytes_max: 20_000, ..DefragConfig::default() }, V4, enforce);
        for id in 0..40 {
            kit.id = id;
            kit.send(8, true, &[0; 6000]);
            assert!(kit.defrag.memory() <= 20_000);
            assert_account(&kit.defrag);
        }
        assert_eq!(kit.defrag.len(), 3);
        assert_eq!(kit.send(8008, true, &[0; 24_000]), Got::Other(Defragged::Refused));
    }
}

#[test]
fn a_flood_of_datagrams_leaves_the_queues_in_proportion() {
    let mut kit = Kit::with(DefragConfig { trackers_max: 16, ..DefragConfig::default() }, V4, false);
    for id in 0..5000u32 {
        kit.id = id;
        kit.send(0, true, &[1; 8]);
        if id % 2 == 0 {
            kit.send(8, false, &[1; 8]);
        }
        assert!(kit.defrag.trackers.len() <= 2 * 17 + 65);
    }
    kit.now += 100;
    kit.defrag.expire(Timestamp::from_secs(kit.now));
    assert_account(&kit.defrag);
    assert!(kit.defrag.is_empty());
}
