//! A multi-queue TAP interface whose frames stay whole: GSO packets of up to 64 KiB and partial
//! checksums cross it behind a virtio-net header.
//!
//! What the kernel sends out of the interface is read here, and what is written here comes in
//! through it. Each queue is a descriptor of its own, for one thread. The interface goes with the
//! last of its descriptors. Source: `Documentation/networking/tuntap.rst`, `drivers/net/tun.c`,
//! virtio 1.2 section 5.1.6.

use crate::call::{check, own};
use crate::netlink::checked_name;
use crate::{Errno, OsError, netns};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Queues of one interface (`MAX_TAP_QUEUES` of the kernel).
pub const QUEUES_MAX: usize = 256;
/// Bytes that hold any frame: header, Ethernet with two VLAN tags, and an IP packet of 64 KiB.
pub const FRAME_BYTES_MAX: usize = VnetHdr::LEN + 22 + 65_536;

/// What the interface hands over in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Partial checksums.
    pub csum: bool,
    /// TCP over IPv4 and IPv6, with ECN.
    pub tso: bool,
    /// UDP over IPv4 and IPv6 (`UDP_SEGMENT`), from Linux 6.2.
    pub uso: bool,
}

/// Why a TAP could not be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller gave a name that no interface can have.
    #[error("`{0}` cannot be the name of an interface")]
    BadName(String),
    /// The caller asked for no queue or for more than the kernel gives.
    #[error("{0} queues are not between 1 and {QUEUES_MAX}")]
    BadQueues(usize),
    /// The system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A TAP interface and its queues.
#[derive(Debug)]
pub struct Tap {
    name: String,
    ifindex: u32,
    offloads: Offloads,
    queues: Vec<TapQueue>,
}

impl Tap {
    /// Makes the interface `name` (`bh%d` lets the kernel choose a number) with `queues` queues in the
    /// calling thread's namespace, as much offloaded as the kernel can. It is down; switch it on by
    /// [`crate::netlink::Netlink::set_up`]. A name that is taken is `EBUSY` or `EEXIST`. Needs `CAP_NET_ADMIN`.
    pub fn create(name: &str, queues: usize) -> Result<Self, Error> {
        checked_name(name).map_err(|_| Error::BadName(name.into()))?;
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(Error::BadQueues(queues));
        }
        let (first, name) = TapQueue::attach(name, IFF_TUN_EXCL)?;
        let offloads = first.set_offloads(&name)?;
        let ifindex = first.ifindex(&name)?;
        let mut all = vec![first];
        while all.len() < queues {
            let (queue, _) = TapQueue::attach(&name, 0)?;
            // The offloads are the interface's, the header's size and order each descriptor's.
            all.push(queue);
        }
        Ok(Tap { name, ifindex, offloads, queues: all })
    }

    /// As [`Self::create`], in the namespace `netns`; the queues work from any thread.
    pub fn create_in(netns: impl AsFd, name: &str, queues: usize) -> Result<Self, Error> {
        netns::run_in(netns, || Tap::create(name, queues))?
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index in the namespace it was made in.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// What of the offloads the kernel granted.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Its queues, in the order in which a steering program counts them.
    pub fn queues(&self) -> &[TapQueue] {
        &self.queues
    }

    /// Its queues, to be given to their threads. The interface lives as long as one of them.
    pub fn into_queues(self) -> Vec<TapQueue> {
        self.queues
    }

    /// Lets a BPF program of type socket filter choose the queue of each frame (it returns the
    /// number, taken modulo the count); `None` goes back to the kernel's flow hash.
    pub fn set_steering(&self, program: Option<BorrowedFd<'_>>) -> Result<(), OsError> {
        match self.queues.first() {
            Some(queue) => queue.set_steering(program),
            None => Err(OsError::new(format!("set the steering program of {}", self.name), libc::EBADFD)),
        }
    }
}

/// One queue of a TAP interface. Reading and writing never waits; poll its descriptor.
#[derive(Debug)]
pub struct TapQueue {
    fd: OwnedFd,
}

/// A queue that another process made, and handed over by [`crate::sock::send_fds`].
impl From<OwnedFd> for TapQueue {
    fn from(fd: OwnedFd) -> Self {
        TapQueue { fd }
    }
}

impl From<TapQueue> for OwnedFd {
    fn from(queue: TapQueue) -> Self {
        queue.fd
    }
}

/// What became of a frame that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It came in through the interface.
    Sent,
    /// The kernel has no room now.
    Full,
    /// The interface is switched off.
    Down,
    /// The kernel cannot make sense of the header or the frame.
    Refused,
}

impl TapQueue {
    /// Reads one frame with its header ([`VnetHdr::parse`]) and returns the length; `None` when no
    /// frame waits. A frame longer than `buffer` is cut: use [`FRAME_BYTES_MAX`] bytes.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, OsError> {
        loop {
            // SAFETY: the pointer and length describe `buffer`, which the kernel fills.
            let len = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if len >= 0 {
                return Ok(Some(len as usize));
            }
            // No text is made for the usual end of a burst.
            match Errno::last() {
                Errno(libc::EINTR) => continue,
                Errno(libc::EAGAIN) => return Ok(None),
                errno => return Err(OsError { doing: "read a frame from a TAP".into(), errno }),
            }
        }
    }

    /// Writes one frame that begins with its header.
    #[inline]
    pub fn write(&self, frame: &[u8]) -> Result<Written, OsError> {
        self.write_parts(&[frame])
    }

    /// Writes one frame that stands in up to 8 pieces (header first); more are [`Written::Refused`].
    #[inline]
    pub fn write_parts(&self, parts: &[&[u8]]) -> Result<Written, OsError> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 8];
        if parts.len() > vectors.len() {
            return Ok(Written::Refused);
        }
        for (vector, part) in vectors.iter_mut().zip(parts) {
            *vector = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
        }
        loop {
            // SAFETY: the first `parts.len()` vectors describe live slices that the kernel only reads.
            let len = unsafe { libc::writev(self.fd.as_raw_fd(), vectors.as_ptr(), parts.len() as i32) };
            match len {
                1.. => return Ok(Written::Sent),
                // An empty write does not even reach the driver.
                0 => return Ok(Written::Refused),
                _ => {}
            }
            match Errno::last() {
                Errno(libc::EINTR) => continue,
                Errno(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => return Ok(Written::Full),
                Errno(libc::EIO) => return Ok(Written::Down),
                Errno(libc::EINVAL | libc::EMSGSIZE) => return Ok(Written::Refused),
                errno => return Err(OsError { doing: "write a frame to a TAP".into(), errno }),
            }
        }
    }

    /// Takes the queue out of the interface's (the kernel sends no more frames to it) or puts it back in.
    pub fn set_enabled(&self, enabled: bool) -> Result<(), OsError> {
        let mut request = ifreq("");
        request.ifr_ifru.ifru_flags = if enabled { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
        // SAFETY: the argument is a live ifreq that the kernel only reads.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETQUEUE, &raw const request) };
        check(ret, || format!("{} a TAP queue", if enabled { "attach" } else { "detach" })).map(drop)
    }

    /// See [`Tap::set_steering`].
    pub fn set_steering(&self, program: Option<BorrowedFd<'_>>) -> Result<(), OsError> {
        let fd: i32 = program.map_or(-1, |program| program.as_raw_fd());
        // SAFETY: the argument is a live i32 that the kernel only reads.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const fd) };
        check(ret, || "set the steering program of a TAP".into()).map(drop)
    }

    /// Keeps the interface after its last descriptor is closed, or no longer does.
    pub fn set_persistent(&self, persistent: bool) -> Result<(), OsError> {
        // SAFETY: the argument is a plain number.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETPERSIST, libc::c_ulong::from(persistent)) };
        check(ret, || format!("make a TAP {}persistent", if persistent { "" } else { "not " })).map(drop)
    }

    /// Opens a queue of the interface `name`, which it makes when there is none. Returns the name
    /// that the kernel chose. A first queue sets `IFF_TUN_EXCL`.
    fn attach(name: &str, exclusive: i32) -> Result<(Self, String), OsError> {
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated; the descriptor returned is new.
        let fd = unsafe { own(libc::open(c"/dev/net/tun".as_ptr(), flags), || "open /dev/net/tun".into())? };
        let mut request = ifreq(name);
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR | exclusive;
        // The kernel's field is a short without sign; IFF_TUN_EXCL is its highest bit.
        request.ifr_ifru.ifru_flags = flags as u16 as i16;
        // SAFETY: the argument is a live ifreq, whose name the kernel may change.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) }, || format!("make TAP queue of {name}"))?;
        let queue = TapQueue { fd };
        queue.set_number(TUNSETVNETHDRSZ, VnetHdr::LEN as i32, "header size")?;
        // Little endian on every machine, as virtio 1 has it and `VnetHdr` expects.
        queue.set_number(TUNSETVNETLE, 1, "header byte order")?;
        let name = request.ifr_name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<u8>>();
        Ok((queue, String::from_utf8_lossy(&name).into_owned()))
    }

    /// Asks for as many offloads as the kernel has: all; without UDP (before Linux 6.2); checksums only.
    fn set_offloads(&self, name: &str) -> Result<Offloads, OsError> {
        let tries = [
            Offloads { csum: true, tso: true, uso: true },
            Offloads { csum: true, tso: true, uso: false },
            Offloads { csum: true, tso: false, uso: false },
            Offloads::default(),
        ];
        let mut last = OsError::new(format!("set the offloads of {name}"), libc::EINVAL);
        for offloads in tries {
            // SAFETY: the argument is a plain number.
            let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, offloads.bits()) };
            match check(ret, || format!("set the offloads of {name}")) {
                Ok(_) => return Ok(offloads),
                Err(error) if error.is(libc::EINVAL) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Asked of a socket in the calling thread's namespace, where the interface was just made.
    fn ifindex(&self, name: &str) -> Result<u32, OsError> {
        let doing = || format!("look up the index of {name}");
        // SAFETY: no pointers; the descriptor returned is new.
        let socket = unsafe { own(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0), doing)? };
        let mut request = ifreq(name);
        // SAFETY: the argument is a live ifreq that the kernel fills.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as libc::Ioctl, &raw mut request) }, doing)?;
        // SAFETY: SIOCGIFINDEX sets this member of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        u32::try_from(index).map_err(|_| OsError::new(doing(), libc::ENODEV))
    }

    fn set_number(&self, call: libc::Ioctl, value: i32, what: &str) -> Result<(), OsError> {
        // SAFETY: the argument is a live i32 that the kernel only reads.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), call, &raw const value) }, || format!("set the {what} of a TAP to {value}"))
            .map(drop)
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Offloads {
    fn bits(self) -> libc::c_ulong {
        let csum = if self.csum { TUN_F_CSUM } else { 0 };
        let tso = if self.tso { TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN } else { 0 };
        let uso = if self.uso { TUN_F_USO4 | TUN_F_USO6 } else { 0 };
        csum | tso | uso
    }
}

/// What kind of segments the kernel cuts a frame into before it leaves the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gso {
    /// None: the frame is one packet.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// UDP fragments; no Linux since 4.14 makes them.
    Ufo,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams (`UDP_SEGMENT`).
    UdpL4,
}

/// `struct virtio_net_hdr`: what the network card would have been told about a frame. The kernel
/// checks one that is written; one that is changed must still fit the frame behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// The checksum is partial: it covers the pseudo header only. To be completed from
    /// `csum_start` to the end, and put at `csum_start + csum_offset`.
    pub needs_csum: bool,
    /// The checksum has been found good.
    pub data_valid: bool,
    /// How the frame would be cut.
    pub gso: Gso,
    /// The segments carry ECN's congestion window reduced.
    pub ecn: bool,
    /// Bytes of headers in front of the payload. A hint.
    pub hdr_len: u16,
    /// Bytes of payload in each segment.
    pub gso_size: u16,
    /// Where the checksum's range begins, bytes from the frame's start.
    pub csum_start: u16,
    /// Where the checksum stands, bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Bytes of the header.
    pub const LEN: usize = 10;

    /// Takes the header off a frame; `None` when the frame is cut short or its kind of segments unknown.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<(VnetHdr, &[u8])> {
        let (&[flags, gso, h0, h1, g0, g1, s0, s1, o0, o1], rest) = frame.split_first_chunk::<{ VnetHdr::LEN }>()?;
        let header = VnetHdr {
            needs_csum: flags & HDR_F_NEEDS_CSUM != 0,
            data_valid: flags & HDR_F_DATA_VALID != 0,
            gso: match gso & !GSO_ECN {
                0 => Gso::None,
                1 => Gso::Tcp4,
                3 => Gso::Ufo,
                4 => Gso::Tcp6,
                5 => Gso::UdpL4,
                _ => return None,
            },
            ecn: gso & GSO_ECN != 0,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        };
        Some((header, rest))
    }

    /// The header as bytes.
    #[inline]
    pub fn encode(&self) -> [u8; VnetHdr::LEN] {
        let flags = if self.needs_csum { HDR_F_NEEDS_CSUM } else { 0 } | if self.data_valid { HDR_F_DATA_VALID } else { 0 };
        let gso = match self.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1,
            Gso::Ufo => 3,
            Gso::Tcp6 => 4,
            Gso::UdpL4 => 5,
        } | if self.ecn { GSO_ECN } else { 0 };
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// The header for the same frame with `bytes` more (a VLAN tag pushed, 4) or fewer (-4) in front of its
    /// network header; `None` when an offset would leave its range.
    #[inline]
    pub fn shifted(&self, bytes: i16) -> Option<VnetHdr> {
        let shift = |offset: u16, used: bool| if used { offset.checked_add_signed(bytes) } else { Some(offset) };
        Some(VnetHdr { hdr_len: shift(self.hdr_len, self.hdr_len != 0)?, csum_start: shift(self.csum_start, self.needs_csum)?, ..*self })
    }
}

/// A request about an interface; the name was checked to fit.
fn ifreq(name: &str) -> libc::ifreq {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays the NUL.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

const HDR_F_NEEDS_CSUM: u8 = 1;
const HDR_F_DATA_VALID: u8 = 2;
const GSO_ECN: u8 = 0x80;

// include/uapi/linux/if_tun.h; `_IOW('T', n, int)` is 0x4004_54nn, also for those that take a pointer to an ifreq.
const TUNSETIFF: libc::Ioctl = libc::TUNSETIFF as libc::Ioctl;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
const TUNSETQUEUE: libc::Ioctl = 0x4004_54d9;
const TUNSETVNETLE: libc::Ioctl = 0x4004_54dc;
// Declared `_IOR`, though the kernel reads it.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0_u32 as libc::Ioctl;

const IFF_TUN_EXCL: i32 = 0x8000;
const IFF_ATTACH_QUEUE: i16 = 0x0200;
const IFF_DETACH_QUEUE: i16 = 0x0400;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_that_parses_encodes_to_its_own_bytes() {
        let frame: [u8; 12] = [1, 0x81, 66, 0, 0xb4, 5, 34, 0, 16, 0, 0xaa, 0xbb];
        let (header, rest) = VnetHdr::parse(&frame).unwrap();
        let expected = VnetHdr {
            needs_csum: true,
            data_valid: false,
            gso: Gso::Tcp4,
            ecn: true,
            hdr_len: 66,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 16,
        };
        assert_eq!((header, rest), (expected, [0xaa, 0xbb].as_slice()));
        for flags in 0..4 {
            for gso in [0, 1, 3, 4, 5, 0x81, 0x84] {
                let mut bytes = frame;
                (bytes[0], bytes[1]) = (flags, gso);
                assert_eq!(VnetHdr::parse(&bytes).unwrap().0.encode(), bytes[..10]);
            }
        }
    }

    #[test]
    fn a_header_cut_short_or_of_an_unknown_kind_is_none() {
        for len in 0..10 {
            assert_eq!(VnetHdr::parse(&[0; 10][..len]), None);
        }
        for gso in [2, 6, 0x7f, 0x82] {
            assert_eq!(VnetHdr::parse(&[0, gso, 0, 0, 0, 0, 0, 0, 0, 0]), None, "{gso:#x}");
        }
    }

    #[test]
    fn a_pushed_tag_moves_the_offsets_that_are_in_use() {
        let header = VnetHdr { needs_csum: true, hdr_len: 66, csum_start: 34, csum_offset: 16, ..VnetHdr::default() };
        let tagged = header.shifted(4).unwrap();
        assert_eq!((tagged.hdr_len, tagged.csum_start, tagged.csum_offset), (70, 38, 16));
        assert_eq!(tagged.shifted(-4).unwrap(), header);
        assert_eq!(VnetHdr::default().shifted(-4).unwrap(), VnetHdr::default());
        assert_eq!(VnetHdr { needs_csum: true, csum_start: 2, ..VnetHdr::default() }.shifted(-4), None);
        assert_eq!(VnetHdr { needs_csum: true, csum_start: u16::MAX, ..VnetHdr::default() }.shifted(4), None);
    }

    #[test]
    fn names_and_counts_that_cannot_be_are_refused_before_the_kernel_is_asked() {
        for name in ["", "a/b", "much-too-long-name", ".."] {
            assert_eq!(Tap::create(name, 1).unwrap_err(), Error::BadName(name.into()));
        }
        for queues in [0, QUEUES_MAX + 1] {
            assert_eq!(Tap::create("t0", queues).unwrap_err(), Error::BadQueues(queues));
        }
    }
}
