//! Unix sockets: who is at the other end, and handing descriptors over.
//!
//! Source: `unix(7)`, `cmsg(3)`.

use crate::OsError;
use crate::call::check;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one message (Linux allows 253).
pub const FDS_MAX: usize = 64;

/// The process at the other end of a connected unix socket, at the time it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// Its number; 0 when it is in a PID namespace that we do not see.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Who is at the other end of a connected unix socket (`SO_PEERCRED`)?
pub fn peer_cred(socket: impl AsFd) -> Result<PeerCred, OsError> {
    let mut raw = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of_val(&raw) as libc::socklen_t;
    // SAFETY: both pointers are to live values and `len` is the size of the first.
    let ret =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut raw).cast(), &raw mut len) };
    check(ret, || "read a socket's peer".into())?;
    Ok(PeerCred { pid: u32::try_from(raw.pid).unwrap_or(0), uid: raw.uid, gid: raw.gid })
}

/// Sends `bytes` (at least one) together with descriptors, which the receiver gets as its own.
pub fn send_fds(socket: impl AsFd, bytes: &[u8], fds: &[impl AsFd]) -> Result<(), OsError> {
    let doing = || format!("send {} descriptors", fds.len());
    if fds.len() > FDS_MAX || bytes.is_empty() {
        return Err(OsError::new(doing(), libc::EINVAL));
    }
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let mut control = ControlBuffer::new();
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header = control.header(&mut vector);
    if raw.is_empty() {
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
    } else {
        // SAFETY: the header describes the control buffer, which has room for FDS_MAX descriptors and is
        // aligned for cmsghdr; CMSG_FIRSTHDR and CMSG_DATA then point inside it.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of_val(raw.as_slice()) as u32) as usize;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size_of_val(raw.as_slice()) as u32) as usize;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(first), size_of_val(raw.as_slice()));
        }
    }
    // SAFETY: every pointer in the header is to live memory of the stated length; the kernel only reads it.
    let sent = check(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }, doing)?;
    if sent as usize == bytes.len() { Ok(()) } else { Err(OsError::new(doing(), libc::EMSGSIZE)) }
}

/// Receives bytes into `buffer` and the descriptors that came with them (close-on-exec). Returns
/// how many bytes; 0 when the other end has closed. More than [`FDS_MAX`] descriptors, or a cut
/// message, is `EMSGSIZE`, and nothing is kept open.
pub fn recv_fds(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), OsError> {
    let doing = || "receive descriptors".to_owned();
    let mut control = ControlBuffer::new();
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = control.header(&mut vector);
    // SAFETY: every pointer in the header is to live memory of the stated length.
    let len = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) }, doing)?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer and set its length; the CMSG macros walk inside it.
    // Each descriptor is new and ours.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*message).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                for n in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(n).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    if header.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0 {
        return Err(OsError::new(doing(), libc::EMSGSIZE));
    }
    Ok((len as usize, fds))
}

/// Room for one control message of [`FDS_MAX`] descriptors, aligned for `struct cmsghdr`.
struct ControlBuffer {
    words: [u64; CONTROL_WORDS],
}

const CONTROL_WORDS: usize = (FDS_MAX * size_of::<RawFd>() + size_of::<libc::cmsghdr>()).div_ceil(8) + 2;

impl ControlBuffer {
    fn new() -> Self {
        ControlBuffer { words: [0; CONTROL_WORDS] }
    }

    fn header(&mut self, vector: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_control = self.words.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&self.words);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_pair_is_ourselves() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = peer_cred(&a).unwrap();
        // SAFETY: no pointers; cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        assert_eq!(peer, PeerCred { pid: std::process::id(), uid, gid });
    }

    #[test]
    fn a_descriptor_that_was_sent_works_at_the_other_end() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut kept, handed) = UnixStream::pair().unwrap();
        send_fds(&a, b"take", &[&handed]).unwrap();
        drop(handed);
        let mut buffer = [0; 16];
        let (len, mut fds) = recv_fds(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (b"take".as_slice(), 1));
        let mut got = UnixStream::from(fds.pop().unwrap());
        got.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        kept.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
    }

    #[test]
    fn messages_without_descriptors_and_the_end_of_the_stream_are_told() {
        let (a, b) = UnixStream::pair().unwrap();
        send_fds(&a, b"x", &[] as &[OwnedFd]).unwrap();
        let mut buffer = [0; 16];
        let (len, fds) = recv_fds(&b, &mut buffer).unwrap();
        assert_eq!((len, fds.len()), (1, 0));
        drop(a);
        assert_eq!(recv_fds(&b, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn as_many_descriptors_as_allowed_arrive_and_one_more_is_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        let many = vec![&a; FDS_MAX];
        send_fds(&a, b"x", &many).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(recv_fds(&b, &mut buffer).unwrap().1.len(), FDS_MAX);
        assert!(send_fds(&a, b"x", &vec![&a; FDS_MAX + 1]).unwrap_err().is(libc::EINVAL));
        assert!(send_fds(&a, b"", &[&a]).unwrap_err().is(libc::EINVAL));
    }
}
