//! A small rtnetlink client: links, addresses, routes and namespace ids, and a monitor of changes.
//!
//! [`Netlink`] asks and changes, [`Monitor`] listens. Both belong to the network namespace they
//! were opened in ([`Netlink::open_in`]) and can be used from any thread afterwards.
//! Source: `rtnetlink(7)`, `Documentation/networking/netlink_spec/rt-link.rst`, iproute2.

mod monitor;
mod parse;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;

pub use monitor::{Change, Monitor};
pub use parse::{Address, Link, LinkStats, address as parse_address, link as parse_link};
pub(crate) use socket::{Socket, send};

use crate::{Errno, OsError, netns};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};
use wire::Request;

/// Why a request to rtnetlink failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system call failed; the kernel did not look at the request.
    #[error(transparent)]
    Os(#[from] OsError),
    /// The kernel looked at the request and refused it.
    #[error("cannot {doing}: {errno}{}", note.as_ref().map(|note| format!(": {note}")).unwrap_or_default())]
    Refused {
        /// What was being done.
        doing: String,
        /// The kernel's reason.
        errno: Errno,
        /// The kernel's reason in its own words, where it gave some.
        note: Option<String>,
    },
    /// The kernel's answer does not hold together.
    #[error("cannot {doing}: malformed answer: {fault}")]
    Malformed {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        fault: wire::Malformed,
    },
    /// The table changed during every attempt to read it.
    #[error("cannot {doing}: the table changed during each of {attempts} attempts")]
    Interrupted {
        /// What was being done.
        doing: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The answer is larger than we are ready to read.
    #[error("cannot {doing}: answer of more than {bytes_max} bytes")]
    TooLarge {
        /// What was being done.
        doing: String,
        /// The cap.
        bytes_max: usize,
    },
    /// The kernel did not answer.
    #[error("cannot {doing}: no answer within {seconds} s")]
    NoAnswer {
        /// What was being done.
        doing: String,
        /// How long it was waited for.
        seconds: i64,
    },
    /// The caller gave a name that no interface can have.
    #[error("`{0}` cannot be the name of an interface: 1 to 15 bytes, no `/`, `:` or white space")]
    BadName(String),
    /// The caller gave an alias longer than the kernel keeps.
    #[error("alias of {0} bytes is longer than 255")]
    BadAlias(usize),
    /// The caller gave an address or a prefix length that do not go together.
    #[error("`{addr}/{prefix_len}` is no address with a prefix length, or of another family than the gateway")]
    BadAddress {
        /// The address.
        addr: IpAddr,
        /// The prefix length.
        prefix_len: u8,
    },
}

impl Error {
    /// The kernel's error number, when it gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Os(error) => Some(error.errno),
            Error::Refused { errno, .. } => Some(*errno),
            Error::Malformed { .. }
            | Error::Interrupted { .. }
            | Error::TooLarge { .. }
            | Error::NoAnswer { .. }
            | Error::BadName(_)
            | Error::BadAlias(_)
            | Error::BadAddress { .. } => None,
        }
    }

    /// Is the reason this error number (`libc::E…`)?
    pub fn is(&self, errno: i32) -> bool {
        self.errno() == Some(Errno(errno))
    }
}

/// An interface to be made. Only `name` is needed; everything else is the kernel's default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewLink<'a> {
    /// Name, 1 to 15 bytes; `eth%d` lets the kernel choose a number.
    pub name: &'a str,
    /// Link-layer address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Length of the transmit queue, packets.
    pub txqueuelen: Option<u32>,
    /// Bridge to become a port of. Not for the peer of a veth.
    pub master: Option<u32>,
    /// Switch it on. Its first IPv6 link-local address then comes before
    /// [`LinkChange::no_link_local`] can prevent it.
    pub up: bool,
    /// Namespace to make it in; that of the socket when `None`.
    pub netns: Option<BorrowedFd<'a>>,
}

impl<'a> NewLink<'a> {
    /// An interface of this name with the kernel's defaults.
    pub fn named(name: &'a str) -> Self {
        NewLink { name, ..NewLink::default() }
    }
}

/// What to change of an interface, in one request; `None` leaves as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// New name. The kernel renames an interface that is up from Linux 6.3 on (`IFF_LIVE_RENAME_OK` before).
    pub name: Option<&'a str>,
    /// New link-layer address.
    pub mac: Option<[u8; 6]>,
    /// New largest packet, bytes.
    pub mtu: Option<u32>,
    /// New length of the transmit queue, packets.
    pub txqueuelen: Option<u32>,
    /// New alias, at most 255 bytes; empty removes it.
    pub alias: Option<&'a str>,
    /// Bridge to become a port of; 0 leaves the bridge.
    pub master: Option<u32>,
    /// Switch on or off.
    pub up: Option<bool>,
    /// Answer to ARP or not.
    pub arp: Option<bool>,
    /// Receive frames for other addresses too.
    pub promiscuous: Option<bool>,
    /// Namespace to move to.
    pub netns: Option<BorrowedFd<'a>>,
    /// Make no IPv6 link-local address (`IFLA_INET6_ADDR_GEN_MODE` none). Set before switching on.
    pub no_link_local: bool,
}

/// How macvlan interfaces of one parent see each other (`MACVLAN_MODE_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// Through the switch outside.
    Vepa,
    /// Directly.
    Bridge,
    /// One interface takes the whole parent.
    Passthru,
}

/// A route to be added to the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoute {
    /// Destination; `0.0.0.0` or `::` with prefix length 0 is the default route.
    pub destination: IpAddr,
    /// Bits of the network part.
    pub prefix_len: u8,
    /// Next hop; none for networks that are directly on the interface.
    pub gateway: Option<IpAddr>,
    /// Interface; can be left out when the gateway tells it.
    pub ifindex: Option<u32>,
}

/// Asks and changes links, addresses, routes and namespace ids of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens a client for the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Netlink { socket: Socket::open(libc::NETLINK_ROUTE, 0)? })
    }

    /// Opens a client for the namespace `netns`; needs `CAP_SYS_ADMIN`.
    pub fn open_in(netns: impl AsFd) -> Result<Self, Error> {
        netns::run_in(netns, Netlink::open)?
    }

    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        self.socket.dump(&request, &|| "list links".into(), &mut |message| {
            Ok(if message.kind == RTM_NEWLINK { Some(parse::link(message)?) } else { None })
        })
    }

    /// The interface with this index, if there is one.
    pub fn link(&mut self, ifindex: u32) -> Result<Option<Link>, Error> {
        let request = Request::new(RTM_GETLINK, 0, &ifinfo(ifindex, 0, 0));
        self.socket.lookup(request, libc::ENODEV, &|| format!("look up link {ifindex}"), &mut parse::link)
    }

    /// The interface with this name, if there is one.
    pub fn link_named(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        request.attr_text(libc::IFLA_IFNAME, checked_name(name)?);
        self.socket.lookup(request, libc::ENODEV, &|| format!("look up link {name}"), &mut parse::link)
    }

    /// All IPv4 and IPv6 addresses of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = Request::new(RTM_GETADDR, 0, &[0; parse::IFADDRMSG_LEN]);
        self.socket.dump(&request, &|| "list addresses".into(), &mut |message| {
            if message.kind == RTM_NEWADDR { parse::address(message) } else { Ok(None) }
        })
    }

    /// Makes a pair of connected Ethernet interfaces. The peer may be born in another namespace,
    /// where its name need only be free there. An end that shall be up must have a full name, without `%d`.
    pub fn create_veth(&mut self, link: &NewLink<'_>, peer: &NewLink<'_>) -> Result<(), Error> {
        checked_name(peer.name)?;
        if let Some(end) = [link, peer].into_iter().find(|end| end.up && end.name.contains('%')) {
            return Err(Error::BadName(end.name.into()));
        }
        // A veth cannot be opened before it has its peer, so both are born down.
        self.create(&NewLink { up: false, ..*link }, "veth", &|info| {
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |inner| {
                    inner.raw(&ifinfo(0, 0, 0));
                    peer.fill(inner);
                });
            });
        })?;
        for end in [link, peer].into_iter().filter(|end| end.up) {
            match end.netns {
                Some(netns) => Netlink::open_in(netns)?.set_named_up(end.name)?,
                None => self.set_named_up(end.name)?,
            }
        }
        Ok(())
    }

    /// Makes a bridge.
    pub fn create_bridge(&mut self, link: &NewLink<'_>) -> Result<(), Error> {
        self.create(link, "bridge", &|_| ())
    }

    /// Makes a macvlan interface on top of `parent`, an index in the socket's namespace (also when
    /// `link.netns` puts the new interface elsewhere).
    pub fn create_macvlan(&mut self, link: &NewLink<'_>, parent: u32, mode: MacvlanMode) -> Result<(), Error> {
        let doing = || format!("make macvlan {} on link {parent}", link.name);
        let mut request = link.request()?;
        request.attr_u32(libc::IFLA_LINK, parent);
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.attr_text(IFLA_INFO_KIND, "macvlan");
            info.nest(IFLA_INFO_DATA, |data| {
                data.attr_u32(IFLA_MACVLAN_MODE, mode.code());
            });
        });
        self.socket.command(request, &doing)
    }

    /// Removes an interface (and its peer, if it is a veth).
    pub fn delete_link(&mut self, ifindex: u32) -> Result<(), Error> {
        self.socket.command(Request::new(RTM_DELLINK, 0, &ifinfo(ifindex, 0, 0)), &|| format!("remove link {ifindex}"))
    }

    /// Changes an interface, all in one request.
    pub fn change_link(&mut self, ifindex: u32, change: &LinkChange<'_>) -> Result<(), Error> {
        let request = change.request(ifindex)?;
        self.socket.command(request, &|| format!("change link {ifindex}{}", change.describe()))
    }

    /// Switches an interface on or off.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { up: Some(up), ..LinkChange::default() })
    }

    /// Waits until an interface carries ([`Link::running`]); `false` when `timeout` is over first. The kernel
    /// starts the transmit queue of a veth in the background once both ends are up, and silently
    /// drops what is sent before.
    pub fn wait_running(&mut self, ifindex: u32, timeout: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.link(ifindex)?.is_some_and(|link| link.running) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes an interface a port of the bridge `master`, or of none.
    pub fn set_master(&mut self, ifindex: u32, master: Option<u32>) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { master: Some(master.unwrap_or(0)), ..LinkChange::default() })
    }

    /// Renames an interface.
    pub fn rename(&mut self, ifindex: u32, name: &str) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { name: Some(name), ..LinkChange::default() })
    }

    /// Moves an interface to another namespace. It is switched off and loses its addresses on the way.
    pub fn move_to(&mut self, ifindex: u32, netns: impl AsFd) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { netns: Some(netns.as_fd()), ..LinkChange::default() })
    }

    /// Sets the length of the transmit queue, packets. For a TAP this is the room for frames that user space has not read.
    pub fn set_txqueuelen(&mut self, ifindex: u32, packets: u32) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { txqueuelen: Some(packets), ..LinkChange::default() })
    }

    /// Sets or (empty) removes the alias.
    pub fn set_alias(&mut self, ifindex: u32, alias: &str) -> Result<(), Error> {
        self.change_link(ifindex, &LinkChange { alias: Some(alias), ..LinkChange::default() })
    }

    /// Replaces the root queueing discipline by `noqueue`: packets go straight to the driver.
    pub fn set_qdisc_noqueue(&mut self, ifindex: u32) -> Result<(), Error> {
        let mut tcmsg = [0; TCMSG_LEN];
        tcmsg[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        tcmsg[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
        let mut request = Request::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, &tcmsg);
        request.attr_text(TCA_KIND, "noqueue");
        self.socket.command(request, &|| format!("set queueing discipline noqueue on link {ifindex}"))
    }

    /// Adds an address. `nodad` skips duplicate address detection, so that an IPv6 address works at once.
    pub fn add_address(&mut self, ifindex: u32, addr: IpAddr, prefix_len: u8, nodad: bool) -> Result<(), Error> {
        self.socket.command(address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, addr, prefix_len, nodad)?, &|| {
            format!("add address {addr}/{prefix_len} to link {ifindex}")
        })
    }

    /// Removes an address.
    pub fn delete_address(&mut self, ifindex: u32, addr: IpAddr, prefix_len: u8) -> Result<(), Error> {
        self.socket.command(address_request(RTM_DELADDR, 0, ifindex, addr, prefix_len, false)?, &|| {
            format!("remove address {addr}/{prefix_len} from link {ifindex}")
        })
    }

    /// Adds a route to the main table.
    pub fn add_route(&mut self, route: &NewRoute) -> Result<(), Error> {
        let request = route.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)?;
        self.socket.command(request, &|| format!("add route {}", route.describe()))
    }

    /// Removes a route from the main table.
    pub fn delete_route(&mut self, route: &NewRoute) -> Result<(), Error> {
        self.socket.command(route.request(RTM_DELROUTE, 0)?, &|| format!("remove route {}", route.describe()))
    }

    /// Adds a permanent neighbour (ARP or NDP) entry.
    pub fn add_neighbour(&mut self, ifindex: u32, addr: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        let mut ndmsg = [0; NDMSG_LEN];
        ndmsg[0] = family(addr);
        ndmsg[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        ndmsg[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let mut request = Request::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &ndmsg);
        attr_ip(&mut request, NDA_DST, addr);
        request.attr(NDA_LLADDR, &mac);
        self.socket.command(request, &|| format!("add neighbour {addr} to link {ifindex}"))
    }

    /// The id by which this namespace knows the namespace `netns`: what [`Link::link_netnsid`] of
    /// a veth whose other end is there says. `None` when it has given it no id yet; listing the
    /// links gives every namespace an id that a link leads to.
    pub fn nsid(&mut self, netns: impl AsFd) -> Result<Option<i32>, Error> {
        let mut request = Request::new(RTM_GETNSID, 0, &[0; RTGENMSG_LEN]);
        request.attr_u32(NETNSA_FD, netns.as_fd().as_raw_fd() as u32);
        let id = self.socket.lookup(request, libc::ESRCH, &|| "look up a namespace's id".into(), &mut |message| {
            let (_, attrs) = message.split(RTGENMSG_LEN)?;
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NETNSA_NSID {
                    return attr.i32();
                }
            }
            Ok(-1)
        })?;
        Ok(id.filter(|&id| id >= 0))
    }

    fn set_named_up(&mut self, name: &str) -> Result<(), Error> {
        match self.link_named(name)? {
            Some(link) => self.set_up(link.ifindex, true),
            None => Err(OsError::new(format!("switch on link {name}"), libc::ENODEV).into()),
        }
    }

    fn create(&mut self, link: &NewLink<'_>, kind: &str, data: &dyn Fn(&mut Request)) -> Result<(), Error> {
        let mut request = link.request()?;
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.attr_text(IFLA_INFO_KIND, kind);
            data(info);
        });
        self.socket.command(request, &|| format!("make {kind} {}", link.name))
    }
}

impl NewLink<'_> {
    fn request(&self) -> Result<Request, Error> {
        checked_name(self.name)?;
        let mut request = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, self.flags(), self.flags()));
        self.fill(&mut request);
        Ok(request)
    }

    fn flags(&self) -> u32 {
        if self.up { libc::IFF_UP as u32 } else { 0 }
    }

    fn fill(&self, request: &mut Request) {
        request.attr_text(libc::IFLA_IFNAME, self.name);
        attr_if(request, libc::IFLA_MTU, self.mtu);
        attr_if(request, libc::IFLA_TXQLEN, self.txqueuelen);
        attr_if(request, libc::IFLA_MASTER, self.master);
        attr_if(request, libc::IFLA_NET_NS_FD, self.netns.map(|fd| fd.as_raw_fd() as u32));
        if let Some(mac) = self.mac {
            request.attr(libc::IFLA_ADDRESS, &mac);
        }
    }
}

impl LinkChange<'_> {
    fn request(&self, ifindex: u32) -> Result<Request, Error> {
        let (mut flags, mut mask) = (0, 0);
        // ARP is a negative flag of the kernel's.
        let bits = [(self.up, libc::IFF_UP), (self.arp.map(|arp| !arp), libc::IFF_NOARP), (self.promiscuous, libc::IFF_PROMISC)];
        for (wanted, bit) in bits {
            if let Some(on) = wanted {
                mask |= bit as u32;
                flags |= if on { bit as u32 } else { 0 };
            }
        }
        let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(ifindex, flags, mask));
        if let Some(name) = self.name {
            request.attr_text(libc::IFLA_IFNAME, checked_name(name)?);
        }
        if let Some(alias) = self.alias {
            if alias.len() > ALIAS_BYTES_MAX {
                return Err(Error::BadAlias(alias.len()));
            }
            // Without the NUL: the kernel takes the length as it is, and length 0 removes the alias.
            request.attr(libc::IFLA_IFALIAS, alias.as_bytes());
        }
        attr_if(&mut request, libc::IFLA_MTU, self.mtu);
        attr_if(&mut request, libc::IFLA_TXQLEN, self.txqueuelen);
        attr_if(&mut request, libc::IFLA_MASTER, self.master);
        attr_if(&mut request, libc::IFLA_NET_NS_FD, self.netns.map(|fd| fd.as_raw_fd() as u32));
        if let Some(mac) = self.mac {
            request.attr(libc::IFLA_ADDRESS, &mac);
        }
        if self.no_link_local {
            request.nest(libc::IFLA_AF_SPEC, |families| {
                families.nest(libc::AF_INET6 as u16, |inet6| {
                    inet6.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            });
        }
        Ok(request)
    }

    /// The change in words, for an error message.
    fn describe(&self) -> String {
        let mut words = String::new();
        let mut say = |word: Option<String>| {
            if let Some(word) = word {
                words.push_str(if words.is_empty() { ": " } else { ", " });
                words.push_str(&word);
            }
        };
        say(self.name.map(|name| format!("name {name}")));
        say(self.mtu.map(|mtu| format!("mtu {mtu}")));
        say(self.txqueuelen.map(|len| format!("txqueuelen {len}")));
        say(self.master.map(|master| format!("master {master}")));
        say(self.up.map(|up| if up { "up" } else { "down" }.into()));
        say(self.netns.map(|_| "another namespace".into()));
        say(self.no_link_local.then(|| "no link-local address".into()));
        words
    }
}

impl MacvlanMode {
    fn code(self) -> u32 {
        match self {
            MacvlanMode::Private => 1,
            MacvlanMode::Vepa => 2,
            MacvlanMode::Bridge => 4,
            MacvlanMode::Passthru => 8,
        }
    }
}

impl NewRoute {
    /// The default route through `gateway`.
    pub fn default_via(gateway: IpAddr) -> Self {
        let destination = match gateway {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        NewRoute { destination, prefix_len: 0, gateway: Some(gateway), ifindex: None }
    }

    fn request(&self, kind: u16, flags: u16) -> Result<Request, Error> {
        checked_prefix(self.destination, self.prefix_len)?;
        if self.gateway.is_some_and(|gateway| family(gateway) != family(self.destination)) {
            return Err(Error::BadAddress { addr: self.destination, prefix_len: self.prefix_len });
        }
        // A next hop makes the scope universe, a network on the interface itself link (as iproute2 does).
        let scope = if self.gateway.is_some() || self.destination.is_ipv6() { 0 } else { RT_SCOPE_LINK };
        let rtmsg = [family(self.destination), self.prefix_len, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
        let mut request = Request::new(kind, flags, &rtmsg);
        if self.prefix_len > 0 {
            attr_ip(&mut request, libc::RTA_DST, self.destination);
        }
        if let Some(gateway) = self.gateway {
            attr_ip(&mut request, libc::RTA_GATEWAY, gateway);
        }
        attr_if(&mut request, libc::RTA_OIF, self.ifindex);
        Ok(request)
    }

    fn describe(&self) -> String {
        let via = self.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let dev = self.ifindex.map(|ifindex| format!(" on link {ifindex}")).unwrap_or_default();
        format!("to {}/{}{via}{dev}", self.destination, self.prefix_len)
    }
}

fn address_request(kind: u16, flags: u16, ifindex: u32, addr: IpAddr, prefix_len: u8, nodad: bool) -> Result<Request, Error> {
    checked_prefix(addr, prefix_len)?;
    let mut ifaddrmsg = [family(addr), prefix_len, 0, 0, 0, 0, 0, 0];
    ifaddrmsg[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let mut request = Request::new(kind, flags, &ifaddrmsg);
    attr_ip(&mut request, libc::IFA_LOCAL, addr);
    attr_ip(&mut request, libc::IFA_ADDRESS, addr);
    if let IpAddr::V4(v4) = addr
        && prefix_len < 31
    {
        let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        request.attr(libc::IFA_BROADCAST, &(u32::from(v4) | hosts).to_be_bytes());
    }
    if nodad {
        request.attr_u32(libc::IFA_FLAGS, libc::IFA_F_NODAD);
    }
    Ok(request)
}

/// `struct ifinfomsg` for an interface of any family.
fn ifinfo(ifindex: u32, flags: u32, mask: u32) -> [u8; parse::IFINFOMSG_LEN] {
    let mut bytes = [0; parse::IFINFOMSG_LEN];
    bytes[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

fn attr_if(request: &mut Request, kind: u16, value: Option<u32>) {
    if let Some(value) = value {
        request.attr_u32(kind, value);
    }
}

fn attr_ip(request: &mut Request, kind: u16, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => request.attr(kind, &v4.octets()),
        IpAddr::V6(v6) => request.attr(kind, &v6.octets()),
    };
}

fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn checked_prefix(addr: IpAddr, prefix_len: u8) -> Result<(), Error> {
    let max = if addr.is_ipv4() { 32 } else { 128 };
    if prefix_len > max { Err(Error::BadAddress { addr, prefix_len }) } else { Ok(()) }
}

/// The kernel's `dev_valid_name`.
pub(crate) fn checked_name(name: &str) -> Result<&str, Error> {
    let fits = (1..NAME_BYTES_MAX + 1).contains(&name.len()) && name != "." && name != "..";
    let clean = !name.bytes().any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace() || b == 0x0b);
    if fits && clean { Ok(name) } else { Err(Error::BadName(name.into())) }
}

/// `IFNAMSIZ` without its NUL.
const NAME_BYTES_MAX: usize = 15;
/// `IFALIASZ` without its NUL.
const ALIAS_BYTES_MAX: usize = 255;

const NLM_F_REPLACE: u16 = libc::NLM_F_REPLACE as u16;
const NLM_F_EXCL: u16 = libc::NLM_F_EXCL as u16;
const NLM_F_CREATE: u16 = libc::NLM_F_CREATE as u16;

// Message types (include/uapi/linux/rtnetlink.h).
const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
const RTM_DELLINK: u16 = libc::RTM_DELLINK;
const RTM_GETLINK: u16 = libc::RTM_GETLINK;
const RTM_NEWADDR: u16 = libc::RTM_NEWADDR;
const RTM_DELADDR: u16 = libc::RTM_DELADDR;
const RTM_GETADDR: u16 = libc::RTM_GETADDR;
const RTM_NEWROUTE: u16 = libc::RTM_NEWROUTE;
const RTM_DELROUTE: u16 = libc::RTM_DELROUTE;
const RTM_NEWNEIGH: u16 = libc::RTM_NEWNEIGH;
const RTM_NEWQDISC: u16 = libc::RTM_NEWQDISC;
const RTM_GETNSID: u16 = libc::RTM_GETNSID;

// Attributes that libc does not name for this target.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const TCA_KIND: u16 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

const TC_H_ROOT: u32 = 0xffff_ffff;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// `struct tcmsg`: family, 3 pad, ifindex, handle, parent, info.
const TCMSG_LEN: usize = 20;
/// `struct ndmsg`: family, 3 pad, ifindex, state u16, flags u8, type u8.
const NDMSG_LEN: usize = 12;
/// `struct rtgenmsg`: family; sent padded to 4, which the kernel's strict check expects too.
const RTGENMSG_LEN: usize = 1;
