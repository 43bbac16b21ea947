//! Other processes: is it there, signal it, wait for its end through a descriptor.

use crate::OsError;
use crate::call::{check, own};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Sends no signal (`kill(pid, 0)`): `ESRCH` when there is no such process, `EPERM` when it is another user's.
pub fn probe(pid: u32) -> Result<(), OsError> {
    kill(pid, 0)
}

/// Sends a signal to one process. Numbers that `kill(2)` reads as groups are `ESRCH`.
pub fn kill(pid: u32, signal: i32) -> Result<(), OsError> {
    let doing = || format!("send signal {signal} to process {pid}");
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or_else(|| OsError::new(doing(), libc::ESRCH))?;
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }, doing).map(drop)
}

/// A descriptor of a process (`pidfd_open(2)`, Linux 5.3): it never comes to mean another process,
/// and polls readable once the process has ended.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Opens the process `pid`.
    pub fn open(pid: u32) -> Result<Self, OsError> {
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32, || format!("open process {pid}"))? };
        Ok(PidFd { fd, pid })
    }

    /// The number it was opened by.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal.
    pub fn kill(&self, signal: i32) -> Result<(), OsError> {
        // SAFETY: a null siginfo is what `kill` itself uses; no other pointers.
        let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0) };
        check(ret as i32, || format!("send signal {signal} to process {}", self.pid)).map(drop)
    }

    /// Has it ended?
    pub fn ended(&self) -> Result<bool, OsError> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one live pollfd.
        let ready = check(unsafe { libc::poll(&raw mut poll, 1, 0) }, || format!("look whether process {} lives", self.pid))?;
        Ok(ready > 0)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks the kernel to send `signal` to this process when the thread that started it ends: a helper
/// that shall not outlive its maker calls this first.
pub fn die_with_parent(signal: i32) -> Result<(), OsError> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) }, || "ask for a signal at the parent's end".into()).map(drop)
}

/// Are we root (effective user 0)?
pub fn is_root() -> bool {
    // SAFETY: no pointers; cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_descriptor_tells_when_its_process_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let fd = PidFd::open(child.id()).unwrap();
        assert!(!fd.ended().unwrap());
        fd.kill(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(fd.ended().unwrap());
        assert!(fd.kill(0).unwrap_err().is(libc::ESRCH));
    }

    #[test]
    fn numbers_that_mean_groups_are_refused() {
        for pid in [0, u32::MAX, i32::MAX as u32 + 1] {
            assert!(kill(pid, 0).unwrap_err().is(libc::ESRCH), "{pid}");
        }
    }
}
