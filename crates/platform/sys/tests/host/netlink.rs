use crate::pair::{Pair, eventually, ip, udp};
use crate::root_only;
use bulkhead_sys::netlink::{Change, Error, Link, LinkChange, MacvlanMode, Monitor, Netlink, NewLink, NewRoute};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::poll::wait_readable;
use std::os::fd::AsFd;
use std::time::Duration;

/// A new namespace, a client and a listener for it.
fn world() -> (Netns, Netlink, Monitor) {
    let netns = Netns::create().unwrap();
    let (link, monitor) = (Netlink::open_in(&netns).unwrap(), Monitor::open_in(&netns).unwrap());
    (netns, link, monitor)
}

fn named(link: &mut Netlink, name: &str) -> Link {
    link.link_named(name).unwrap().unwrap_or_else(|| panic!("no link {name}"))
}

fn drain(monitor: &mut Monitor) -> Vec<Change> {
    let mut changes = Vec::new();
    while monitor.read(&mut changes).unwrap() > 0 {}
    changes
}

#[test]
fn a_veth_end_names_the_namespace_of_its_peer() {
    root_only!("a_veth_end_names_the_namespace_of_its_peer");
    let mut pair = Pair::new();
    let left = named(&mut pair.left_link, "cable");
    assert_eq!(left.kind.as_deref(), Some("veth"));
    assert!(left.up && left.running && !left.loopback && left.mac.is_some());
    assert_eq!(left.link, Some(pair.right_index));
    let nsid = pair.left_link.nsid(&pair.right).unwrap();
    assert!(nsid.is_some());
    assert_eq!(left.link_netnsid, nsid);
    let stranger = Netns::create().unwrap();
    assert_eq!(pair.left_link.nsid(&stranger).unwrap(), None);
    assert_eq!(pair.left_link.links().unwrap().len(), 2);
    assert_eq!(pair.left_link.link(left.ifindex).unwrap().unwrap().name, "cable");
}

#[test]
fn both_ends_of_a_veth_get_what_was_asked_for() {
    root_only!("both_ends_of_a_veth_get_what_was_asked_for");
    let (_netns, mut link, _) = world();
    let other = Netns::create().unwrap();
    link.create_bridge(&NewLink { mtu: Some(1400), ..NewLink::named("br0") }).unwrap();
    let bridge = named(&mut link, "br0");
    let mac = [2, 0, 0, 0, 0, 7];
    let peer = NewLink { mac: Some(mac), txqueuelen: Some(77), up: true, netns: Some(other.as_fd()), ..NewLink::named("eth0") };
    link.create_veth(&NewLink { mtu: Some(1400), master: Some(bridge.ifindex), up: true, ..NewLink::named("port0") }, &peer).unwrap();
    // Both are up, so both will carry.
    let port = named(&mut link, "port0").ifindex;
    assert!(link.wait_running(port, Duration::from_secs(10)).unwrap());
    assert!(!link.wait_running(4242, Duration::ZERO).unwrap());
    let (port, eth0) = (named(&mut link, "port0"), named(&mut Netlink::open_in(&other).unwrap(), "eth0"));
    assert_eq!((port.mtu, port.master, port.port_kind.as_deref(), port.up), (1400, Some(bridge.ifindex), Some("bridge"), true));
    assert_eq!((eth0.mac, eth0.txqueuelen, eth0.up), (Some(mac), 77, true));
    assert_eq!((bridge.kind.as_deref(), bridge.mtu), (Some("bridge"), 1400));
    link.set_master(port.ifindex, None).unwrap();
    assert_eq!(named(&mut link, "port0").master, None);
    link.set_master(port.ifindex, Some(bridge.ifindex)).unwrap();
    assert_eq!(named(&mut link, "port0").master, Some(bridge.ifindex));
    link.delete_link(port.ifindex).unwrap();
    assert_eq!(link.link(port.ifindex).unwrap(), None);
    assert_eq!(Netlink::open_in(&other).unwrap().link_named("eth0").unwrap(), None);
}

#[test]
fn everything_about_a_link_can_be_changed() {
    root_only!("everything_about_a_link_can_be_changed");
    let (_netns, mut link, _) = world();
    link.create_veth(&NewLink::named("a%d"), &NewLink::named("b0")).unwrap();
    let index = named(&mut link, "a0").ifindex;
    let change = LinkChange {
        mac: Some([2, 0, 0, 0, 0, 9]),
        mtu: Some(1300),
        txqueuelen: Some(123),
        alias: Some("what it is for"),
        ..LinkChange::default()
    };
    link.change_link(index, &change).unwrap();
    link.rename(index, "c0").unwrap();
    link.set_qdisc_noqueue(index).unwrap();
    let now = named(&mut link, "c0");
    assert_eq!((now.mac, now.mtu, now.txqueuelen), (Some([2, 0, 0, 0, 0, 9]), 1300, 123));
    assert_eq!((now.alias.as_deref(), now.ifindex), (Some("what it is for"), index));
    link.set_alias(index, "").unwrap();
    link.set_txqueuelen(index, 5).unwrap();
    let change = LinkChange { up: Some(true), arp: Some(false), promiscuous: Some(true), ..LinkChange::default() };
    link.change_link(index, &change).unwrap();
    let now = named(&mut link, "c0");
    assert_eq!((now.alias, now.txqueuelen, now.up), (None, 5, true));
    assert_eq!(now.qdisc.as_deref(), Some("noqueue"));
    let bits = (libc::IFF_NOARP | libc::IFF_PROMISC) as u32;
    assert_eq!(now.flags & bits, bits);
    link.change_link(index, &LinkChange { arp: Some(true), promiscuous: Some(false), ..LinkChange::default() }).unwrap();
    assert_eq!(named(&mut link, "c0").flags & bits, 0);
}

#[test]
fn a_link_moves_to_another_namespace() {
    root_only!("a_link_moves_to_another_namespace");
    let (_netns, mut link, mut monitor) = world();
    let other = Netns::create().unwrap();
    link.create_veth(&NewLink::named("a"), &NewLink::named("b")).unwrap();
    let index = named(&mut link, "b").ifindex;
    drain(&mut monitor);
    link.move_to(index, &other).unwrap();
    assert_eq!(link.link_named("b").unwrap(), None);
    let mut there = Netlink::open_in(&other).unwrap();
    assert_eq!(named(&mut there, "b").kind.as_deref(), Some("veth"));
    assert_eq!(named(&mut link, "a").link_netnsid, link.nsid(&other).unwrap());
    let changes = drain(&mut monitor);
    assert!(changes.iter().any(|change| matches!(change, Change::LinkGone(gone) if gone.name == "b")), "{changes:?}");
}

#[test]
fn addresses_and_routes_carry_traffic() {
    root_only!("addresses_and_routes_carry_traffic");
    let mut pair = Pair::new();
    let addresses = pair.left_link.addresses().unwrap();
    let own: Vec<_> = addresses.iter().filter(|address| address.ifindex == pair.left_index).collect();
    assert!(own.iter().any(|address| address.addr == ip("192.0.2.1") && address.prefix_len == 24 && address.scope == 0));
    assert!(own.iter().any(|address| address.addr == ip("2001:db8::1") && address.prefix_len == 64 && !address.tentative()));
    assert_eq!(own.len(), 2, "no link-local address was wanted: {own:?}");

    // A network behind the right end, v4 and v6, reached by the default route.
    pair.right_link.add_address(1, ip("203.0.113.9"), 32, false).unwrap();
    pair.right_link.add_address(1, ip("2001:db8:9::9"), 128, true).unwrap();
    for (gateway, near, far) in [("192.0.2.2", "192.0.2.1:0", "203.0.113.9:9"), ("2001:db8::2", "[2001:db8::1]:0", "[2001:db8:9::9]:9")] {
        let route = NewRoute::default_via(ip(gateway));
        pair.left_link.add_route(&route).unwrap();
        assert!(pair.left_link.add_route(&route).unwrap_err().is(libc::EEXIST));
        let (sender, receiver) = (udp(&pair.left, near), udp(&pair.right, far));
        sender.send_to(b"over the default route", far).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 22);
        pair.left_link.delete_route(&route).unwrap();
        assert!(sender.send_to(b"no way", far).is_err());
    }
    // A network on the interface itself.
    let on_link = NewRoute { destination: ip("203.0.113.0"), prefix_len: 24, gateway: None, ifindex: Some(pair.left_index) };
    pair.left_link.add_route(&on_link).unwrap();
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "203.0.113.9:10"));
    sender.send_to(b"x", "203.0.113.9:10").unwrap();
    assert_eq!(receiver.recv(&mut [0; 4]).unwrap(), 1);
    pair.left_link.delete_address(pair.left_index, ip("192.0.2.1"), 24).unwrap();
    assert!(!pair.left_link.addresses().unwrap().iter().any(|address| address.addr == ip("192.0.2.1")));
}

#[test]
fn statistics_count_what_was_sent() {
    root_only!("statistics_count_what_was_sent");
    let mut pair = Pair::new();
    let mac = named(&mut pair.right_link, "cable").mac.unwrap();
    pair.left_link.add_neighbour(pair.left_index, ip("192.0.2.2"), mac).unwrap();
    let before = pair.right_link.link(pair.right_index).unwrap().unwrap().stats;
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
    for _ in 0..10 {
        sender.send_to(&[0; 100], "192.0.2.2:7").unwrap();
        receiver.recv(&mut [0; 100]).unwrap();
    }
    let after = pair.right_link.link(pair.right_index).unwrap().unwrap().stats;
    // Other frames (neighbour discovery) may come on top, never fewer. 142 = Ethernet 14, IP 20, UDP 8, payload 100.
    assert!(after.rx_packets - before.rx_packets >= 10);
    assert!(after.rx_bytes - before.rx_bytes >= 1420);
    let left = pair.left_link.link(pair.left_index).unwrap().unwrap().stats;
    assert!(left.tx_packets >= 10 && left.tx_bytes >= 1420);
}

#[test]
fn a_macvlan_is_born_in_another_namespace() {
    root_only!("a_macvlan_is_born_in_another_namespace");
    let (_netns, mut link, _) = world();
    let other = Netns::create().unwrap();
    link.create_veth(&NewLink::named("parent"), &NewLink::named("outside")).unwrap();
    let parent = named(&mut link, "parent").ifindex;
    let new = NewLink { netns: Some(other.as_fd()), ..NewLink::named("eth0") };
    link.create_macvlan(&new, parent, MacvlanMode::Bridge).unwrap();
    let mut there = Netlink::open_in(&other).unwrap();
    let eth0 = named(&mut there, "eth0");
    assert_eq!((eth0.kind.as_deref(), eth0.link), (Some("macvlan"), Some(parent)));
    assert!(eth0.link_netnsid.is_some());
}

#[test]
fn refusals_say_what_was_asked_for_and_why() {
    root_only!("refusals_say_what_was_asked_for_and_why");
    let (_netns, mut link, _) = world();
    link.create_veth(&NewLink::named("a"), &NewLink::named("b")).unwrap();
    let error = link.create_bridge(&NewLink::named("a")).unwrap_err();
    assert!(error.is(libc::EEXIST) && error.to_string().starts_with("cannot make bridge a: "), "{error}");
    assert!(link.delete_link(4242).unwrap_err().is(libc::ENODEV));
    let index = named(&mut link, "a").ifindex;
    let error = link.change_link(index, &LinkChange { mtu: Some(1_000_000), ..LinkChange::default() }).unwrap_err();
    assert!(matches!(&error, Error::Refused { note: Some(note), .. } if note.contains("mtu")), "{error:?}");
    for name in ["", "sixteen-bytes-xx", "a b", "a/b", "..", "a\0"] {
        assert_eq!(link.create_bridge(&NewLink::named(name)).unwrap_err(), Error::BadName(name.into()));
        assert_eq!(link.link_named(name).unwrap_err(), Error::BadName(name.into()));
    }
    assert_eq!(link.set_alias(index, &"x".repeat(256)).unwrap_err(), Error::BadAlias(256));
    link.set_alias(index, &"x".repeat(255)).unwrap();
    let bad = Error::BadAddress { addr: ip("192.0.2.1"), prefix_len: 33 };
    assert_eq!(link.add_address(index, ip("192.0.2.1"), 33, false).unwrap_err(), bad);
    let mixed = NewRoute { destination: ip("192.0.2.0"), prefix_len: 24, gateway: Some(ip("2001:db8::1")), ifindex: None };
    assert!(matches!(link.add_route(&mixed).unwrap_err(), Error::BadAddress { .. }));
    // The client goes on working after each refusal.
    assert_eq!(link.links().unwrap().len(), 3);
}

#[test]
fn a_listing_of_many_links_is_complete() {
    root_only!("a_listing_of_many_links_is_complete");
    let (_netns, mut link, _) = world();
    for n in 0..150 {
        link.create_veth(&NewLink::named(&format!("left{n}")), &NewLink::named(&format!("right{n}"))).unwrap();
    }
    let links = link.links().unwrap();
    assert_eq!(links.len(), 301);
    for n in 0..150 {
        let left = links.iter().find(|link| link.name == format!("left{n}")).unwrap();
        let right = links.iter().find(|link| link.name == format!("right{n}")).unwrap();
        assert_eq!((left.link, right.link), (Some(right.ifindex), Some(left.ifindex)));
    }
}

#[test]
fn a_monitor_sees_links_and_addresses_come_and_go() {
    root_only!("a_monitor_sees_links_and_addresses_come_and_go");
    let (_netns, mut link, mut monitor) = world();
    assert!(!wait_readable(&monitor, Some(Duration::ZERO)).unwrap());
    link.create_veth(&NewLink::named("a"), &NewLink { up: true, ..NewLink::named("b") }).unwrap();
    assert!(wait_readable(&monitor, Some(Duration::from_secs(5))).unwrap());
    let index = named(&mut link, "a").ifindex;
    let born = |changes: &[Change]| changes.iter().any(|change| matches!(change, Change::Link(new) if new.ifindex == index));
    assert!(born(&drain(&mut monitor)));
    link.set_up(index, true).unwrap();
    link.add_address(index, ip("192.0.2.77"), 24, false).unwrap();
    link.add_address(index, ip("2001:db8::77"), 64, true).unwrap();
    let mut changes = drain(&mut monitor);
    let came = |changes: &[Change], text: &str| changes.iter().any(|c| matches!(c, Change::Address(a) if a.addr == ip(text)));
    // An IPv6 address is told of by a worker of the kernel, a moment later.
    assert!(eventually(|| {
        changes.extend(drain(&mut monitor));
        came(&changes, "192.0.2.77") && came(&changes, "2001:db8::77")
    }));
    assert!(changes.iter().any(|change| matches!(change, Change::Link(link) if link.ifindex == index && link.up)));
    link.delete_address(index, ip("192.0.2.77"), 24).unwrap();
    link.delete_link(index).unwrap();
    let changes = drain(&mut monitor);
    assert!(changes.iter().any(|change| matches!(change, Change::AddressGone(gone) if gone.addr == ip("192.0.2.77"))));
    assert!(changes.iter().any(|change| matches!(change, Change::LinkGone(gone) if gone.ifindex == index)));
    assert_eq!(monitor.lost(), 0);
}

#[test]
fn leaving_a_bridge_is_a_change_and_not_an_end() {
    root_only!("leaving_a_bridge_is_a_change_and_not_an_end");
    let (_netns, mut link, mut monitor) = world();
    link.create_bridge(&NewLink { up: true, ..NewLink::named("br0") }).unwrap();
    link.create_veth(&NewLink::named("a"), &NewLink::named("b")).unwrap();
    let (bridge, port) = (named(&mut link, "br0").ifindex, named(&mut link, "a").ifindex);
    drain(&mut monitor);
    link.set_master(port, Some(bridge)).unwrap();
    let changes = drain(&mut monitor);
    assert!(changes.iter().any(|c| matches!(c, Change::Link(l) if l.ifindex == port && l.master == Some(bridge))), "{changes:?}");
    link.set_master(port, None).unwrap();
    let changes = drain(&mut monitor);
    assert!(changes.iter().any(|c| matches!(c, Change::Link(l) if l.ifindex == port && l.master.is_none())), "{changes:?}");
    assert!(!changes.iter().any(|c| matches!(c, Change::LinkGone(_))), "{changes:?}");
}

#[test]
fn a_monitor_that_was_not_read_says_that_changes_were_lost() {
    root_only!("a_monitor_that_was_not_read_says_that_changes_were_lost");
    let (_netns, mut link, mut monitor) = world();
    link.create_veth(&NewLink::named("a"), &NewLink::named("b")).unwrap();
    let index = named(&mut link, "a").ifindex;
    // The kernel says nothing of a new alias while the link is down.
    link.set_up(index, true).unwrap();
    // Each change is told of by a message that takes 1 KiB or more of the 16 MiB that may wait (doubled by the kernel).
    for n in 0..40_000 {
        link.set_alias(index, &n.to_string()).unwrap();
    }
    let changes = drain(&mut monitor);
    assert_eq!(monitor.lost(), 1);
    assert_eq!(changes.iter().filter(|change| **change == Change::Resync).count(), 1);
    // It goes on after that.
    link.set_alias(index, "last").unwrap();
    let changes = drain(&mut monitor);
    assert!(changes.iter().any(|c| matches!(c, Change::Link(link) if link.alias.as_deref() == Some("last"))), "{changes:?}");
}
