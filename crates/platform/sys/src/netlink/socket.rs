//! A netlink socket: requests with acknowledgement, bounded dumps, raw reads of notifications.
//!
//! A socket belongs to the network namespace it was opened in, for its whole life and whichever
//! thread uses it.

use super::Error;
use super::wire::{Message, Messages, Request};
use crate::call::{check, own, set_option};
use crate::{Errno, OsError};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes of one read. The kernel fills dumps in pieces of at most 32 KiB (`NLMSG_GOODSIZE` grown by
/// `min_dump_alloc`), a link with thousands of addresses or virtual functions in more.
const DATAGRAM_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one whole dump: 64 Ki links of 1 KiB each.
const DUMP_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often a dump is started again when the table changed under it (`NLM_F_DUMP_INTR`) or the
/// socket overflowed (`ENOBUFS`).
const DUMP_ATTEMPTS_MAX: u32 = 8;
/// The kernel answers requests at once; this only keeps a broken one from hanging us.
const ANSWER_SECONDS_MAX: i64 = 10;

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// A socket of one netlink family, bound, with extended errors switched on.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of `family` (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) that listens to the legacy
    /// multicast groups in the bit mask `groups`, in the calling thread's network namespace.
    pub(crate) fn open(family: i32, groups: u32) -> Result<Self, OsError> {
        let doing = || format!("open a netlink socket of family {family}");
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, family), doing)? };
        // Older kernels lack some of these; all we lose is a text and stricter checks on the kernel's side.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = set_option(fd.as_fd(), libc::SOL_NETLINK, option, 1, "NETLINK_*");
        }
        // SAFETY: all-zero is a valid sockaddr_nl.
        let mut addr: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        addr.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        addr.nl_groups = groups;
        // SAFETY: the pointer is to a live sockaddr_nl and the length is its size.
        let ret = unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), size_of_val(&addr) as libc::socklen_t) };
        check(ret, || format!("bind a netlink socket of family {family} to groups {groups:#x}"))?;
        set_timeout(fd.as_fd())?;
        Ok(Socket { fd, seq: 0, buffer: Vec::new() })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn command(&mut self, mut request: Request, doing: &dyn Fn() -> String) -> Result<(), Error> {
        self.command_with(&mut request, doing, &mut |_| ())
    }

    /// As [`Self::command`]; `other` sees every message that arrives before the acknowledgement.
    pub(crate) fn command_with(
        &mut self,
        request: &mut Request,
        doing: &dyn Fn() -> String,
        other: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Error> {
        let seq = self.send(request, NLM_F_REQUEST | NLM_F_ACK, doing)?;
        let mut seen = 0;
        loop {
            let datagram = self.receive(doing)?;
            seen += datagram.len();
            for message in Messages::new(datagram) {
                let message = message.map_err(|fault| Error::Malformed { doing: doing(), fault })?;
                if message.kind == NLMSG_ERROR && message.seq == seq {
                    return outcome(&message, doing);
                }
                other(&message);
            }
            if seen > DUMP_BYTES_MAX {
                return Err(Error::TooLarge { doing: doing(), bytes_max: DUMP_BYTES_MAX });
            }
        }
    }

    /// Sends a request that asks for one object; gives its answer to `take`, or `None` when the
    /// kernel says that there is no such object (`absent`, an error number).
    pub(crate) fn lookup<T>(
        &mut self,
        mut request: Request,
        absent: i32,
        doing: &dyn Fn() -> String,
        take: &mut dyn FnMut(&Message<'_>) -> Result<T, super::wire::Malformed>,
    ) -> Result<Option<T>, Error> {
        let mut found = None;
        let done = self.command_with(&mut request, doing, &mut |message| {
            if found.is_none() {
                found = Some(take(message));
            }
        });
        match (done, found) {
            (Err(Error::Refused { errno, .. }), _) if errno.0 == absent => Ok(None),
            (Err(error), _) => Err(error),
            (Ok(()), None) => Ok(None),
            (Ok(()), Some(Ok(value))) => Ok(Some(value)),
            (Ok(()), Some(Err(fault))) => Err(Error::Malformed { doing: doing(), fault }),
        }
    }

    /// Asks for a whole table; `take` sees every entry of a consistent, complete run. Starts again,
    /// after calling `clear`, when the table changed meanwhile.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Request,
        doing: &dyn Fn() -> String,
        take: &mut dyn FnMut(&Message<'_>) -> Result<Option<T>, super::wire::Malformed>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            if let Some(entries) = self.dump_once(&mut request.clone(), doing, take)? {
                return Ok(entries);
            }
        }
        Err(Error::Interrupted { doing: doing(), attempts: DUMP_ATTEMPTS_MAX })
    }

    /// One run of a dump; `None` when it must be started again.
    fn dump_once<T>(
        &mut self,
        request: &mut Request,
        doing: &dyn Fn() -> String,
        take: &mut dyn FnMut(&Message<'_>) -> Result<Option<T>, super::wire::Malformed>,
    ) -> Result<Option<Vec<T>>, Error> {
        let seq = self.send(request, NLM_F_REQUEST | NLM_F_DUMP, doing)?;
        let (mut entries, mut seen, mut interrupted) = (Vec::new(), 0, false);
        loop {
            let datagram = match self.receive(doing) {
                Ok(datagram) => datagram,
                // Part of the answer is lost. The rest of it carries the old sequence number and is skipped.
                Err(Error::Os(error)) if error.is(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            };
            seen += datagram.len();
            for message in Messages::new(datagram) {
                let message = message.map_err(|fault| Error::Malformed { doing: doing(), fault })?;
                if message.seq != seq {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR => {
                        outcome(&message, doing)?;
                        return Ok(if interrupted { None } else { Some(entries) });
                    }
                    NLMSG_DONE => {
                        // The body is the dump's result: 0 or a negative error number (Linux 4.20).
                        if message.body.len() >= 4 {
                            outcome(&message, doing)?;
                        }
                        return Ok(if interrupted { None } else { Some(entries) });
                    }
                    _ => match take(&message) {
                        Ok(Some(entry)) => entries.push(entry),
                        Ok(None) => {}
                        Err(fault) => return Err(Error::Malformed { doing: doing(), fault }),
                    },
                }
            }
            if seen > DUMP_BYTES_MAX {
                return Err(Error::TooLarge { doing: doing(), bytes_max: DUMP_BYTES_MAX });
            }
        }
    }

    /// Sends one request with a fresh sequence number, which it returns.
    fn send(&mut self, request: &mut Request, flags: u16, doing: &dyn Fn() -> String) -> Result<u32, Error> {
        // 0 is what notifications carry.
        self.seq = self.seq.wrapping_add(1).max(1);
        let bytes = request.add_flags(flags).finish(self.seq);
        send(self.fd.as_fd(), bytes, doing)?;
        Ok(self.seq)
    }

    /// Reads one datagram of the kernel's, waiting at most [`ANSWER_SECONDS_MAX`].
    fn receive(&mut self, doing: &dyn Fn() -> String) -> Result<&[u8], Error> {
        self.buffer.resize(DATAGRAM_BYTES_MAX, 0);
        let len = loop {
            match receive_from(self.fd.as_fd(), &mut self.buffer, 0) {
                Ok(Received::Kernel(len)) => break len,
                Ok(Received::Other) => continue,
                Ok(Received::Cut) => return Err(Error::TooLarge { doing: doing(), bytes_max: DATAGRAM_BYTES_MAX }),
                Err(Errno(libc::EINTR)) => continue,
                Err(Errno(libc::EAGAIN)) => return Err(Error::NoAnswer { doing: doing(), seconds: ANSWER_SECONDS_MAX }),
                Err(errno) => return Err(OsError { doing: doing(), errno }.into()),
            }
        };
        Ok(&self.buffer[..len])
    }

    /// Reads one waiting datagram of the kernel's; `None` when nothing waits. For notifications.
    pub(crate) fn receive_now(&mut self) -> Result<Option<&[u8]>, Errno> {
        self.buffer.resize(DATAGRAM_BYTES_MAX, 0);
        loop {
            match receive_from(self.fd.as_fd(), &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(Received::Kernel(len)) => return Ok(Some(&self.buffer[..len])),
                Ok(Received::Other) | Err(Errno(libc::EINTR)) => continue,
                // What is behind the cut is lost, as after an overflow.
                Ok(Received::Cut) => return Err(Errno(libc::ENOBUFS)),
                Err(Errno(libc::EAGAIN)) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends bytes to the kernel.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], doing: &dyn Fn() -> String) -> Result<(), OsError> {
    loop {
        // SAFETY: the pointer and length describe `bytes`, which lives across the call; the kernel only reads it.
        let ret = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        match check(ret, doing) {
            Err(error) if error.is(libc::EINTR) => continue,
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// What one read brought.
enum Received {
    /// A datagram of the kernel's, this long.
    Kernel(usize),
    /// A datagram of another process: not for us.
    Other,
    /// A datagram that was longer than the buffer.
    Cut,
}

fn receive_from(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> Result<Received, Errno> {
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = size_of_val(&from) as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    // SAFETY: every pointer in `header` is to a live local of the stated length.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    if len < 0 {
        return Err(Errno::last());
    }
    Ok(match () {
        _ if header.msg_flags & libc::MSG_TRUNC != 0 => Received::Cut,
        _ if from.nl_pid != 0 => Received::Other,
        _ => Received::Kernel(len as usize),
    })
}

fn set_timeout(fd: BorrowedFd<'_>) -> Result<(), OsError> {
    let limit = libc::timeval { tv_sec: ANSWER_SECONDS_MAX, tv_usec: 0 };
    // SAFETY: the pointer is to a live timeval and the length is its size.
    let ret = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            size_of_val(&limit) as libc::socklen_t,
        )
    };
    check(ret, || "set SO_RCVTIMEO of a netlink socket".into()).map(drop)
}

/// The result inside `NLMSG_ERROR` or `NLMSG_DONE`, with the kernel's own words where it gave some.
fn outcome(message: &Message<'_>, doing: &dyn Fn() -> String) -> Result<(), Error> {
    let (code, _) = message.split(4).map_err(|fault| Error::Malformed { doing: doing(), fault })?;
    let code = i32::from_ne_bytes(std::array::from_fn(|i| code[i]));
    if code == 0 {
        return Ok(());
    }
    Err(Error::Refused { doing: doing(), errno: Errno(code.saturating_neg()), note: note(message) })
}

/// The text of an extended acknowledgement: behind the code and the request's header (or the whole
/// request, when the kernel did not cap it). Absent or broken text is no text.
fn note(message: &Message<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let before = match message.kind {
        NLMSG_DONE => 4,
        _ if message.flags & NLM_F_CAPPED != 0 => 4 + super::wire::HEADER_LEN,
        _ => 4 + Messages::new(message.body.get(4..)?).next()?.ok()?.body.len() + super::wire::HEADER_LEN,
    };
    let (_, mut attrs) = message.split(before).ok()?;
    let text = attrs.find_map(|attr| attr.ok().filter(|attr| attr.kind == NLMSGERR_ATTR_MSG))?.text();
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doing() -> String {
        "try".into()
    }

    fn message(kind: u16, flags: u16, body: &[u8]) -> Result<(), Error> {
        outcome(&Message { kind, flags, seq: 1, port: 0, body }, &doing)
    }

    #[test]
    fn an_acknowledgement_and_a_refusal_are_told_apart() {
        assert_eq!(message(NLMSG_ERROR, 0, &[0; 20]), Ok(()));
        let refused = |errno, note: Option<&str>| Err(Error::Refused { doing: doing(), errno: Errno(errno), note: note.map(Into::into) });
        assert_eq!(message(NLMSG_ERROR, 0, &[&(-libc::EPERM).to_ne_bytes()[..], &[0; 16]].concat()), refused(libc::EPERM, None));
        assert!(matches!(message(NLMSG_ERROR, 0, &[1, 2]), Err(Error::Malformed { .. })));
        // A number that has no opposite.
        assert_eq!(message(NLMSG_ERROR, 0, &i32::MIN.to_ne_bytes()), refused(i32::MAX, None));
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_and_a_whole_request() {
        let mut text = Request::new(0, 0, &[]);
        text.attr_text(NLMSGERR_ATTR_MSG, "no such device");
        let attrs = text.finish(0)[super::super::wire::HEADER_LEN..].to_vec();
        let code = (-libc::ENODEV).to_ne_bytes();
        let whole = Request::new(16, 0, &[0; 16]).finish(1).to_vec();
        let expected = Err(Error::Refused { doing: doing(), errno: Errno(libc::ENODEV), note: Some("no such device".into()) });
        let capped = [&code[..], &whole[..16], &attrs].concat();
        assert_eq!(message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, &capped), expected);
        let full = [&code[..], &whole, &attrs].concat();
        assert_eq!(message(NLMSG_ERROR, NLM_F_ACK_TLVS, &full), expected);
        assert_eq!(message(NLMSG_DONE, NLM_F_ACK_TLVS, &[&code[..], &attrs].concat()), expected);
        // Words that are cut are no words, and the refusal stands.
        for len in 4..full.len() {
            for flags in [NLM_F_ACK_TLVS, NLM_F_ACK_TLVS | NLM_F_CAPPED] {
                let refused = message(NLMSG_ERROR, flags, &full[..len]);
                assert!(matches!(&refused, Err(Error::Refused { errno, .. }) if errno.0 == libc::ENODEV), "{len}: {refused:?}");
            }
        }
    }
}
