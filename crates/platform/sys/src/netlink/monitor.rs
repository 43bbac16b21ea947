//! Changes of links and addresses as they happen.
//!
//! The kernel tells every change once and drops what the socket has no room for. That is reported
//! as [`Change::Resync`]: list everything anew. A bridge's own messages about its ports
//! (`AF_BRIDGE`) are left out: their "removed" means that the port left the bridge, and the link's
//! own message follows.

use super::parse::{self, Address, Link};
use super::wire::{Malformed, Messages};
use super::{Error, RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, Socket};
use crate::call::set_option;
use crate::{OsError, netns};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of notifications that may wait: about 10,000 link messages.
const RECEIVE_BYTES_MAX: i32 = 16 * 1024 * 1024;
/// Changes taken by one [`Monitor::read`], so that a storm cannot keep the caller inside.
const READ_CHANGES_MAX: usize = 4096;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link is new or something about it changed; its statistics are included.
    Link(Link),
    /// A link is gone: removed, or moved to another namespace.
    LinkGone(Link),
    /// An address is new or something about it changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// Changes were lost: list everything anew.
    Resync,
}

/// Listens to the changes of one network namespace. Poll its descriptor for reading.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    lost: u64,
}

impl Monitor {
    /// Listens in the calling thread's network namespace. Open it before the first listing, so
    /// that no change falls between.
    pub fn open() -> Result<Self, Error> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let socket = Socket::open(libc::NETLINK_ROUTE, groups as u32)?;
        // Needs CAP_NET_ADMIN; without it the system's default room has to do.
        let _ = set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BYTES_MAX, "SO_RCVBUFFORCE");
        Ok(Monitor { socket, lost: 0 })
    }

    /// Listens in the namespace `netns`.
    pub fn open_in(netns: impl AsFd) -> Result<Self, Error> {
        netns::run_in(netns, Monitor::open)?
    }

    /// Appends the changes that wait to `changes` and returns how many there were, without
    /// waiting; at most 4096 in one go, the descriptor stays readable when there are more.
    pub fn read(&mut self, changes: &mut Vec<Change>) -> Result<usize, Error> {
        let before = changes.len();
        while changes.len() - before < READ_CHANGES_MAX {
            match self.socket.receive_now() {
                Ok(Some(datagram)) => {
                    if let Err(_fault) = collect(datagram, changes) {
                        // A broken notification is a lost one.
                        self.lost += 1;
                        changes.push(Change::Resync);
                    }
                }
                Ok(None) => break,
                Err(errno) if errno.0 == libc::ENOBUFS => {
                    self.lost += 1;
                    changes.push(Change::Resync);
                }
                Err(errno) => return Err(OsError { doing: "read netlink notifications".into(), errno }.into()),
            }
        }
        Ok(changes.len() - before)
    }

    /// How often changes were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes a datagram of notifications apart.
pub(super) fn collect(datagram: &[u8], changes: &mut Vec<Change>) -> Result<(), Malformed> {
    for message in Messages::new(datagram) {
        let message = message?;
        match message.kind {
            RTM_NEWLINK | RTM_DELLINK => {
                if parse::link_family(&message)? == libc::AF_BRIDGE as u8 {
                    continue;
                }
                let link = parse::link(&message)?;
                changes.push(if message.kind == RTM_NEWLINK { Change::Link(link) } else { Change::LinkGone(link) });
            }
            RTM_NEWADDR => changes.extend(parse::address(&message)?.map(Change::Address)),
            RTM_DELADDR => changes.extend(parse::address(&message)?.map(Change::AddressGone)),
            _ => {}
        }
    }
    Ok(())
}
