//! IP packets of any source address, sent as they are: resets and unreachables on behalf of others.
//!
//! The kernel chooses route and next hop by the destination; netfilter's output hooks see the packet, with a mark by which
//! rules can tell it. Needs `CAP_NET_RAW`, and `CAP_NET_ADMIN` for the mark. Source: `raw(7)`, `ipv6(7)`.

use crate::OsError;
use crate::call::{check, own, set_option};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A socket for one family.
#[derive(Debug)]
pub struct RawIp {
    fd: OwnedFd,
    six: bool,
}

impl RawIp {
    /// For IPv4, or for IPv6 (`six`), in the calling thread's network namespace. Packets carry `mark`.
    pub fn open(six: bool, mark: u32) -> Result<Self, OsError> {
        let family = if six { libc::AF_INET6 } else { libc::AF_INET };
        // With IPPROTO_RAW the packet given is whole, header included, in both families.
        // SAFETY: no pointers; the descriptor is checked and owned at once.
        let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, libc::IPPROTO_RAW) };
        // SAFETY: it comes straight from socket(2).
        let fd = unsafe { own(fd, || "open a raw socket".into()) }?;
        // The bits are the kernel's; it takes an int.
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed(), "SO_MARK")?;
        Ok(Self { fd, six })
    }

    /// Sends a whole packet to `to`, which is its destination. It does not wait: without room it is an error.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> Result<(), OsError> {
        let doing = || format!("send a packet to {to}");
        if to.is_ipv6() != self.six {
            return Err(OsError::new(doing(), libc::EAFNOSUPPORT));
        }
        let flags = libc::MSG_NOSIGNAL;
        let ret = match SocketAddr::new(to, 0) {
            SocketAddr::V4(v4) => {
                let address = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: 0,
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: both pointers are to live values of the lengths given; the kernel only reads them.
                unsafe {
                    libc::sendto(
                        self.fd.as_raw_fd(),
                        packet.as_ptr().cast(),
                        packet.len(),
                        flags,
                        (&raw const address).cast(),
                        size_of_val(&address) as libc::socklen_t,
                    )
                }
            }
            SocketAddr::V6(v6) => {
                let address = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: 0,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: 0,
                };
                // SAFETY: as above.
                unsafe {
                    libc::sendto(
                        self.fd.as_raw_fd(),
                        packet.as_ptr().cast(),
                        packet.len(),
                        flags,
                        (&raw const address).cast(),
                        size_of_val(&address) as libc::socklen_t,
                    )
                }
            }
        };
        check(ret, doing).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn a_packet_arrives_from_the_address_that_it_names() {
        if !crate::process::is_root() {
            println!("NOT RUN: a_packet_arrives_from_the_address_that_it_names: needs root");
            return;
        }
        let netns = Netns::create().unwrap();
        netns
            .run(|| {
                let mut netlink = crate::netlink::Netlink::open().unwrap();
                let lo = netlink.link_named("lo").unwrap().unwrap();
                netlink.set_up(lo.ifindex, true).unwrap();
                let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
                receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let port = receiver.local_addr().unwrap().port();
                // The kernel fills in lengths, the identification and the header's checksum.
                let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 9, 127, 0, 0, 1];
                packet.extend_from_slice(&[0x1f, 0x40]);
                packet.extend_from_slice(&port.to_be_bytes());
                packet.extend_from_slice(&[0, 10, 0, 0]);
                packet.extend_from_slice(b"hi");
                let socket = RawIp::open(false, 0x0200_0000).unwrap();
                socket.send(&packet, [127, 0, 0, 1].into()).unwrap();
                let mut buffer = [0; 16];
                let (len, from) = receiver.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (b"hi".as_slice(), "127.0.0.9:8000".parse().unwrap()));
                assert!(socket.send(&packet, "::1".parse().unwrap()).unwrap_err().is(libc::EAFNOSUPPORT));
                assert!(RawIp::open(true, 0).is_ok());
            })
            .unwrap();
    }
}
