//! What rtnetlink tells about links and addresses, taken out of its messages. Pure.

use super::wire::{Attr, Malformed, Message};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network interface (`RTM_NEWLINK`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Index, unique inside its network namespace; never 0.
    pub ifindex: u32,
    /// Name; bytes that are not UTF-8 are replaced, so address interfaces by `ifindex`.
    pub name: String,
    /// Link-layer address where it is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// `IFF_UP`: switched on.
    pub up: bool,
    /// `IFF_RUNNING`: switched on and carrying (operational state up).
    pub running: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// All `IFF_…` bits.
    pub flags: u32,
    /// Hardware type (`ARPHRD_…`): 1 is Ethernet.
    pub hardware: u16,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: index of the veth's other end or of the interface below (macvlan, VLAN), in
    /// the namespace `link_netnsid`, or in this one when that is `None`.
    pub link: Option<u32>,
    /// The namespace of `link` as an id of this namespace (see [`super::Netlink::nsid`]), when it is another one.
    pub link_netnsid: Option<i32>,
    /// Kind of virtual link: `veth`, `bridge`, `macvlan`, `tun` (TAP too); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Kind of its master as it sees it: `bridge`, `bond`, `vrf`.
    pub port_kind: Option<String>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Length of the transmit queue, packets.
    pub txqueuelen: u32,
    /// Root queueing discipline: `noqueue`, `fq_codel`, `mq`.
    pub qdisc: Option<String>,
    /// Free text that an administrator gave it.
    pub alias: Option<String>,
    /// Counters since the interface was made.
    pub stats: LinkStats,
}

/// Counters of a link (`struct rtnl_link_stats64`), as the host sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Packets that came in through the interface.
    pub rx_packets: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Bad packets that came in.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that came in and were dropped for want of room.
    pub rx_dropped: u64,
    /// Packets to go out that were dropped for want of room.
    pub tx_dropped: u64,
}

/// An address of an interface (`RTM_NEWADDR`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The interface's own address (`IFA_LOCAL` where the kernel gives it).
    pub addr: IpAddr,
    /// Bits of the network part: 0 to 32, or to 128.
    pub prefix_len: u8,
    /// `RT_SCOPE_…`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// All `IFA_F_…` bits.
    pub flags: u32,
}

impl Address {
    /// Is duplicate address detection still running? The address cannot be used yet.
    pub fn tentative(&self) -> bool {
        self.flags & libc::IFA_F_TENTATIVE != 0
    }
}

/// The address family at the start of a link message; `AF_BRIDGE` marks a bridge's view of its port.
pub(super) fn link_family(message: &Message<'_>) -> Result<u8, Malformed> {
    let (fixed, _) = message.split(IFINFOMSG_LEN)?;
    Ok(fixed[0])
}

/// Takes a `RTM_NEWLINK` or `RTM_DELLINK` apart.
pub fn link(message: &Message<'_>) -> Result<Link, Malformed> {
    let (fixed, attrs) = message.split(IFINFOMSG_LEN)?;
    let flags = word(fixed, 8);
    let mut link = Link {
        ifindex: word(fixed, 4),
        hardware: u16::from_ne_bytes([fixed[2], fixed[3]]),
        flags,
        up: flags & libc::IFF_UP as u32 != 0,
        running: flags & libc::IFF_RUNNING as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ..Link::default()
    };
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            libc::IFLA_IFNAME => link.name = attr.text(),
            libc::IFLA_ADDRESS if link.hardware == ARPHRD_ETHER => link.mac = attr.array().ok(),
            libc::IFLA_MTU => link.mtu = attr.u32()?,
            libc::IFLA_LINK => link.link = Some(attr.u32()?).filter(|&index| index != 0),
            libc::IFLA_MASTER => link.master = Some(attr.u32()?).filter(|&index| index != 0),
            libc::IFLA_TXQLEN => link.txqueuelen = attr.u32()?,
            libc::IFLA_LINK_NETNSID => link.link_netnsid = Some(attr.i32()?).filter(|&id| id >= 0),
            libc::IFLA_QDISC => link.qdisc = Some(attr.text()),
            libc::IFLA_IFALIAS => link.alias = Some(attr.text()).filter(|alias| !alias.is_empty()),
            libc::IFLA_STATS64 => link.stats = stats(&attr)?,
            libc::IFLA_LINKINFO => {
                for info in attr.nested() {
                    let info = info?;
                    match info.kind {
                        IFLA_INFO_KIND => link.kind = Some(info.text()),
                        IFLA_INFO_SLAVE_KIND => link.port_kind = Some(info.text()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(link)
}

/// Takes a `RTM_NEWADDR` or `RTM_DELADDR` apart; `None` for families other than IPv4 and IPv6.
pub fn address(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    let (fixed, attrs) = message.split(IFADDRMSG_LEN)?;
    let (family, prefix_len, scope) = (i32::from(fixed[0]), fixed[1], fixed[3]);
    let (mut local, mut peer, mut flags) = (None, None, u32::from(fixed[2]));
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            libc::IFA_LOCAL => local = ip(family, &attr)?,
            libc::IFA_ADDRESS => peer = ip(family, &attr)?,
            libc::IFA_FLAGS => flags = attr.u32()?,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side; IPv6 gives IFA_ADDRESS alone otherwise.
    Ok(local.or(peer).map(|addr| Address { ifindex: word(fixed, 4), addr, prefix_len, scope, flags }))
}

fn ip(family: i32, attr: &Attr<'_>) -> Result<Option<IpAddr>, Malformed> {
    Ok(match family {
        libc::AF_INET => Some(Ipv4Addr::from(attr.array::<4>()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(attr.array::<16>()?).into()),
        _ => None,
    })
}

/// Newer kernels append counters; the first eight are there since the structure exists.
fn stats(attr: &Attr<'_>) -> Result<LinkStats, Malformed> {
    let Some((counters, _)) = attr.value.split_first_chunk::<64>() else {
        return Err(Malformed::AttrSize { kind: attr.kind, len: attr.value.len(), need: 64 });
    };
    let counter = |n: usize| u64::from_ne_bytes(std::array::from_fn(|i| counters[n * 8 + i]));
    Ok(LinkStats {
        rx_packets: counter(0),
        tx_packets: counter(1),
        rx_bytes: counter(2),
        tx_bytes: counter(3),
        rx_errors: counter(4),
        tx_errors: counter(5),
        rx_dropped: counter(6),
        tx_dropped: counter(7),
    })
}

/// The `u32` at `at` of a fixed part whose length was checked by `split`.
fn word(fixed: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| fixed[at + i]))
}

/// `struct ifinfomsg`: family, pad, type u16, index i32, flags u32, change u32.
pub(super) const IFINFOMSG_LEN: usize = 16;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, index u32.
pub(super) const IFADDRMSG_LEN: usize = 8;
const ARPHRD_ETHER: u16 = 1;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
