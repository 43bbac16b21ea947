//! Two namespaces with a cable between them: `left` 192.0.2.1 and 2001:db8::1, `right` .2 and ::2.

use bulkhead_sys::netlink::{LinkChange, Netlink, NewLink};
use bulkhead_sys::netns::Netns;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

pub const LEFT: &str = "192.0.2.1";
pub const RIGHT: &str = "192.0.2.2";

/// The namespaces and links go with this value.
pub struct Pair {
    pub left: Netns,
    pub right: Netns,
    pub left_link: Netlink,
    pub right_link: Netlink,
    pub left_index: u32,
    pub right_index: u32,
}

impl Pair {
    pub fn new() -> Self {
        let (left, right) = (Netns::create().unwrap(), Netns::create().unwrap());
        let mut left_link = Netlink::open_in(&left).unwrap();
        let mut right_link = Netlink::open_in(&right).unwrap();
        left_link.create_veth(&NewLink::named("cable"), &NewLink { netns: Some(right.as_fd()), ..NewLink::named("cable") }).unwrap();
        let left_index = up(&mut left_link, "192.0.2.1", "2001:db8::1");
        let right_index = up(&mut right_link, "192.0.2.2", "2001:db8::2");
        assert!(left_link.wait_running(left_index, Duration::from_secs(10)).unwrap());
        assert!(right_link.wait_running(right_index, Duration::from_secs(10)).unwrap());
        Pair { left, right, left_link, right_link, left_index, right_index }
    }
}

fn up(link: &mut Netlink, v4: &str, v6: &str) -> u32 {
    link.set_up(1, true).unwrap();
    let index = link.link_named("cable").unwrap().unwrap().ifindex;
    link.change_link(index, &LinkChange { up: Some(true), no_link_local: true, ..LinkChange::default() }).unwrap();
    link.add_address(index, ip(v4), 24, false).unwrap();
    link.add_address(index, ip(v6), 64, true).unwrap();
    index
}

/// A UDP socket in a namespace that gives up waiting after five seconds.
pub fn udp(netns: &Netns, address: &str) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Calls `done` until it says yes, at most 500 times with 10 ms between.
pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    (0..500).any(|_| {
        let yes = done();
        if !yes {
            std::thread::sleep(Duration::from_millis(10));
        }
        yes
    })
}
