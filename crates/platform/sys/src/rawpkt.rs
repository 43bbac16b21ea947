//! Whole link-layer frames to and from one interface (`AF_PACKET`): for tests and the lab, which
//! send what no protocol stack would. Not for the data path: without a virtio-net header, partial
//! checksums and GSO frames do not survive. Source: `packet(7)`.

use crate::call::{check, own};
use crate::{OsError, netns, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A socket bound to one interface. It sees frames in both directions.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: u32,
}

/// Which way a frame went, as the interface sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It came in, whoever it was addressed to.
    In,
    /// It went out.
    Out,
}

/// A frame that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its length; larger than the buffer when the frame was cut.
    pub len: usize,
    /// Which way it went.
    pub direction: Direction,
}

impl PacketSocket {
    /// Opens the interface `ifindex` of the calling thread's namespace for all protocols; needs `CAP_NET_RAW`.
    pub fn open(ifindex: u32) -> Result<Self, OsError> {
        let doing = || format!("open a packet socket on link {ifindex}");
        // Protocol 0: nothing is received before it is bound to the one interface.
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0), doing)? };
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        addr.sll_ifindex = i32::try_from(ifindex).map_err(|_| OsError::new(doing(), libc::ENODEV))?;
        // SAFETY: the pointer is to a live sockaddr_ll and the length is its size.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), size_of_val(&addr) as libc::socklen_t) }, doing)?;
        Ok(PacketSocket { fd, ifindex })
    }

    /// Opens an interface of the namespace `netns`.
    pub fn open_in(netns: impl AsFd, ifindex: u32) -> Result<Self, OsError> {
        netns::run_in(netns, || PacketSocket::open(ifindex))?
    }

    /// Sends a frame as it is, from the destination address on.
    pub fn send(&self, frame: &[u8]) -> Result<(), OsError> {
        // SAFETY: the pointer and length describe `frame`; the kernel only reads it.
        let ret = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        check(ret, || format!("send a frame of {} bytes on link {}", frame.len(), self.ifindex)).map(drop)
    }

    /// The next frame that waits, without waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Frame>, OsError> {
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_len = size_of_val(&from) as libc::socklen_t;
        // SAFETY: the pointers are to live memory of the stated lengths. MSG_TRUNC asks for the true length.
        let ret = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        match check(ret, || format!("receive a frame on link {}", self.ifindex)) {
            Err(error) if error.is(libc::EAGAIN) || error.is(libc::EINTR) => Ok(None),
            other => {
                let direction = if from.sll_pkttype == PACKET_OUTGOING { Direction::Out } else { Direction::In };
                other.map(|len| Some(Frame { len: len as usize, direction }))
            }
        }
    }

    /// Waits at most `timeout` for an incoming frame that `wanted` accepts and returns it; frames that it
    /// does not accept and outgoing ones are thrown away.
    pub fn receive_where(&self, timeout: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>, OsError> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 65_536 + 64];
        loop {
            while let Some(frame) = self.receive(&mut buffer)? {
                let bytes = &buffer[..frame.len.min(buffer.len())];
                if frame.direction == Direction::In && wanted(bytes) {
                    return Ok(Some(bytes.to_vec()));
                }
                if Instant::now() >= deadline {
                    return Ok(None);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            poll::wait_readable(&self.fd, Some(left))?;
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const PACKET_OUTGOING: u8 = 4;
