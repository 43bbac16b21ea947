//! Messages that do not hold together, and what is made of good ones.

use super::monitor::collect;
use super::parse::{IFADDRMSG_LEN, IFINFOMSG_LEN};
use super::wire::{Attrs, HEADER_LEN, Malformed, Message, Messages, Request};
use super::*;

/// A link message with all that the parser looks at.
fn link_message() -> Vec<u8> {
    let mut request = Request::new(RTM_NEWLINK, 0, &{
        let mut fixed = ifinfo(7, (libc::IFF_UP | libc::IFF_RUNNING) as u32, 0);
        fixed[2] = 1;
        fixed
    });
    request.attr_text(libc::IFLA_IFNAME, "veth7").attr(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7]);
    request.attr_u32(libc::IFLA_MTU, 1500).attr_u32(libc::IFLA_TXQLEN, 1000).attr_u32(libc::IFLA_MASTER, 3);
    request.attr_u32(libc::IFLA_LINK, 2).attr_u32(libc::IFLA_LINK_NETNSID, 5).attr_text(libc::IFLA_QDISC, "noqueue");
    request.attr(libc::IFLA_IFALIAS, b"alias");
    let stats: Vec<u8> = (1..=25_u64).flat_map(u64::to_ne_bytes).collect();
    request.attr(libc::IFLA_STATS64, &stats);
    request.nest(libc::IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, "veth").attr_text(4, "bridge");
    });
    request.finish(1).to_vec()
}

fn address_message() -> Vec<u8> {
    let mut request = Request::new(RTM_NEWADDR, 0, &[libc::AF_INET as u8, 24, 0x80, 253, 9, 0, 0, 0]);
    request.attr(libc::IFA_ADDRESS, &[192, 0, 2, 99]).attr(libc::IFA_LOCAL, &[192, 0, 2, 1]).attr_u32(libc::IFA_FLAGS, 0x280);
    request.finish(1).to_vec()
}

fn only(bytes: &[u8]) -> Message<'_> {
    let mut messages = Messages::new(bytes);
    let message = messages.next().unwrap().unwrap();
    assert_eq!(messages.next(), None);
    message
}

#[test]
fn a_link_message_is_taken_apart() {
    let bytes = link_message();
    let link = parse_link(&only(&bytes)).unwrap();
    let expected = Link {
        ifindex: 7,
        name: "veth7".into(),
        mac: Some([2, 0, 0, 0, 0, 7]),
        up: true,
        running: true,
        loopback: false,
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as u32,
        hardware: 1,
        master: Some(3),
        link: Some(2),
        link_netnsid: Some(5),
        kind: Some("veth".into()),
        port_kind: Some("bridge".into()),
        mtu: 1500,
        txqueuelen: 1000,
        qdisc: Some("noqueue".into()),
        alias: Some("alias".into()),
        stats: LinkStats {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_errors: 5,
            tx_errors: 6,
            rx_dropped: 7,
            tx_dropped: 8,
        },
    };
    assert_eq!(link, expected);
}

#[test]
fn an_address_is_the_local_one_and_an_unknown_family_is_none() {
    let bytes = address_message();
    let address = parse_address(&only(&bytes)).unwrap().unwrap();
    let expected = Address { ifindex: 9, addr: "192.0.2.1".parse().unwrap(), prefix_len: 24, scope: 253, flags: 0x280 };
    assert_eq!(address, expected);
    let mut other = bytes.clone();
    other[HEADER_LEN] = 77;
    assert_eq!(parse_address(&only(&other)), Ok(None));
    // The size of an address must be its family's.
    other[HEADER_LEN] = libc::AF_INET6 as u8;
    assert_eq!(parse_address(&only(&other)), Err(Malformed::AttrSize { kind: libc::IFA_ADDRESS, len: 4, need: 16 }));
}

#[test]
fn zero_and_negative_indexes_are_none() {
    let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
    request.attr_u32(libc::IFLA_MASTER, 0).attr_u32(libc::IFLA_LINK, 0).attr_u32(libc::IFLA_LINK_NETNSID, -1_i32 as u32);
    let bytes = request.finish(1).to_vec();
    let link = parse_link(&only(&bytes)).unwrap();
    assert_eq!((link.master, link.link, link.link_netnsid), (None, None, None));
}

#[test]
fn a_message_cut_anywhere_is_malformed_or_shorter_but_never_a_panic() {
    for whole in [link_message(), address_message()] {
        for len in 0..whole.len() {
            let results: Vec<_> = Messages::new(&whole[..len]).collect();
            match len {
                0 => assert!(results.is_empty()),
                _ => assert!(matches!(results.as_slice(), [Err(_)]), "{len}: {results:?}"),
            }
            // The same with a header that tells the cut length: now the attributes are cut.
            let mut cut = whole[..len].to_vec();
            if len >= HEADER_LEN {
                cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                let message = only(&cut);
                let (link, address) = (parse_link(&message), parse_address(&message));
                assert!(link.is_err() || len >= HEADER_LEN + IFINFOMSG_LEN);
                assert!(address.is_err() || len >= HEADER_LEN + IFADDRMSG_LEN);
            }
        }
    }
}

#[test]
fn lengths_that_lie_end_the_parse() {
    let header = |len: u32| [&len.to_ne_bytes()[..], &[16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat();
    for claimed in [0, 1, 15, 17, 1000, u32::MAX, u32::MAX - 3] {
        let bytes = header(claimed);
        let results: Vec<_> = Messages::new(&bytes).collect();
        let expected = Malformed::MessageLength { kind: 16, claimed: claimed as usize, left: 16 };
        assert_eq!(results, [Err(expected)], "{claimed}");
    }
    for claimed in [0_u16, 1, 3, 9, u16::MAX] {
        let bytes = [&claimed.to_ne_bytes()[..], &[5, 0, 1, 2, 3, 4]].concat();
        let results: Vec<_> = Attrs::new(&bytes).collect();
        assert_eq!(results, [Err(Malformed::AttrLength { kind: 5, claimed: claimed.into(), left: 8 })], "{claimed}");
    }
    assert_eq!(Attrs::new(&[1, 2, 3]).collect::<Vec<_>>(), [Err(Malformed::AttrHeaderCut { left: 3 })]);
    // Padding that is missing at the very end is no fault.
    let results: Vec<_> = Attrs::new(&[5, 0, 9, 0, 0xaa]).collect();
    assert!(matches!(results.as_slice(), [Ok(attr)] if attr.kind == 9 && attr.value == [0xaa]));
}

#[test]
fn a_nest_that_overruns_its_parent_is_malformed() {
    let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
    request.nest(libc::IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, "veth");
    });
    request.attr_text(libc::IFLA_IFNAME, "behind");
    let mut bytes = request.finish(1).to_vec();
    assert_eq!(parse_link(&only(&bytes)).unwrap().kind.as_deref(), Some("veth"));
    // The inner attribute claims the bytes behind its parent's end.
    let inner = HEADER_LEN + IFINFOMSG_LEN + 4;
    bytes[inner..inner + 2].copy_from_slice(&24_u16.to_ne_bytes());
    assert!(matches!(parse_link(&only(&bytes)), Err(Malformed::AttrLength { kind: IFLA_INFO_KIND, claimed: 24, .. })));
}

#[test]
fn a_value_of_the_wrong_size_is_malformed() {
    for kind in [libc::IFLA_MTU, libc::IFLA_MASTER, libc::IFLA_LINK, libc::IFLA_LINK_NETNSID, libc::IFLA_TXQLEN] {
        for len in [0, 1, 3, 5, 8] {
            let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
            request.attr(kind, &vec![0; len]);
            let bytes = request.finish(1).to_vec();
            assert_eq!(parse_link(&only(&bytes)), Err(Malformed::AttrSize { kind, len, need: 4 }));
        }
    }
    let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
    request.attr(libc::IFLA_STATS64, &[0; 63]);
    let bytes = request.finish(1).to_vec();
    assert_eq!(parse_link(&only(&bytes)), Err(Malformed::AttrSize { kind: libc::IFLA_STATS64, len: 63, need: 64 }));
}

#[test]
fn a_name_without_its_nul_or_with_rubbish_behind_it_ends_where_it_should() {
    for (value, expected) in [(b"eth0".as_slice(), "eth0"), (b"eth0\0rubbish", "eth0"), (b"", ""), (b"\xff\0", "\u{fffd}")] {
        let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(7, 0, 0));
        request.attr(libc::IFLA_IFNAME, value);
        let bytes = request.finish(1).to_vec();
        assert_eq!(parse_link(&only(&bytes)).unwrap().name, expected);
    }
}

#[test]
fn the_bridges_own_messages_are_left_out_of_the_changes() {
    let mut bytes = link_message();
    bytes[4..6].copy_from_slice(&RTM_DELLINK.to_ne_bytes());
    let mut changes = Vec::new();
    collect(&bytes, &mut changes).unwrap();
    assert!(matches!(changes.as_slice(), [Change::LinkGone(link)] if link.ifindex == 7));
    bytes[HEADER_LEN] = libc::AF_BRIDGE as u8;
    collect(&bytes, &mut changes).unwrap();
    assert_eq!(changes.len(), 1);
}

#[test]
fn mutated_messages_never_panic() {
    let seeds = [link_message(), address_message(), [link_message(), address_message()].concat()];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for round in 0..100_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xfe, 0xff][random.below(8)],
                2 => bytes.truncate(at.max(1)),
                _ => bytes[at] = random.below(256) as u8,
            }
        }
        let mut changes = Vec::new();
        match collect(&bytes, &mut changes) {
            Ok(()) => good += 1,
            Err(_) => bad += 1,
        }
        for change in changes {
            if let Change::Link(link) | Change::LinkGone(link) = change {
                assert!(link.name.len() <= bytes.len() * 3);
            }
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad: the mutations reach both sides");
}

#[test]
fn names_are_what_the_kernel_takes() {
    for name in ["eth0", "veth%d", "a", "fifteen-bytes-x", "…"] {
        assert!(checked_name(name).is_ok(), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0", "a\x0bb", "sixteen-bytes-xx"] {
        assert_eq!(checked_name(name), Err(Error::BadName(name.into())));
    }
}

/// A xorshift generator: the same numbers every time.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
