//! Waiting: epoll, and the things to wait for that are not files — events, times, signals.
//!
//! All descriptors here are non-blocking and close-on-exec. Source: `epoll(7)`, `eventfd(2)`,
//! `timerfd_create(2)`, `signalfd(2)`.

use crate::OsError;
use crate::call::{check, own};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Events taken by one [`Epoll::wait`].
const EVENTS_MAX: usize = 256;

/// What of a descriptor to wait for. Errors and hang-ups are always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
    /// Either.
    ReadWrite,
    /// There is something to read that was not there the last time it was told: read until empty.
    ReadEdge,
}

impl Interest {
    fn bits(self) -> u32 {
        (match self {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::ReadEdge => libc::EPOLLIN | libc::EPOLLET,
        }) as u32
    }
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The token it was added with.
    pub token: u64,
    /// There is something to read (perhaps an error or the end).
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// An error waits, or the other end is gone.
    pub broken: bool,
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Result<Self, OsError> {
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::epoll_create1(libc::EPOLL_CLOEXEC), || "make an epoll set".into())? };
        Ok(Epoll { fd })
    }

    /// Adds a descriptor; `token` comes back in its events. It leaves the set by [`Self::remove`], or
    /// when its last duplicate is closed.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest.bits(), "add a descriptor to")
    }

    /// Changes what is waited for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest.bits(), "change a descriptor of")
    }

    /// Takes a descriptor out.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, 0, "remove a descriptor from")
    }

    /// Waits until a descriptor is ready or `timeout` (rounded up to milliseconds; `None`: for
    /// ever) is over, and puts what is ready into `events`. A signal ends the wait without events.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<(), OsError> {
        events.clear();
        let mut raw = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        // SAFETY: the pointer is to EVENTS_MAX live events that the kernel fills.
        let ret = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), raw.as_mut_ptr(), EVENTS_MAX as i32, milliseconds(timeout)) };
        let ready = match check(ret, || "wait for descriptors".into()) {
            Err(error) if error.is(libc::EINTR) => return Ok(()),
            other => other? as usize,
        };
        let has = |bits: u32, wanted: i32| bits & wanted as u32 != 0;
        events.extend(raw.iter().take(ready).map(|event| {
            let (bits, token) = (event.events, event.u64);
            Event {
                token,
                readable: has(bits, libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP),
                writable: has(bits, libc::EPOLLOUT | libc::EPOLLERR),
                broken: has(bits, libc::EPOLLERR | libc::EPOLLHUP),
            }
        }));
        Ok(())
    }

    fn control(&self, op: i32, fd: BorrowedFd<'_>, token: u64, bits: u32, doing: &str) -> Result<(), OsError> {
        let mut event = libc::epoll_event { events: bits, u64: token };
        // SAFETY: the pointer is to a live event that the kernel only reads.
        let ret = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) };
        check(ret, || format!("{doing} an epoll set")).map(drop)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one descriptor is readable; `false` when the time is over first.
pub fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool, OsError> {
    wait_one(fd.as_fd(), libc::POLLIN, timeout)
}

/// Waits until one descriptor is writable; `false` when the time is over first.
pub fn wait_writable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool, OsError> {
    wait_one(fd.as_fd(), libc::POLLOUT, timeout)
}

fn wait_one(fd: BorrowedFd<'_>, events: i16, timeout: Option<Duration>) -> Result<bool, OsError> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: the pointer is to one live pollfd.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds(timeout)) }, || "wait for a descriptor".into()) {
        Err(error) if error.is(libc::EINTR) => Ok(false),
        other => Ok(other? > 0),
    }
}

/// A counter that another thread or process raises to wake us.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// A counter at zero.
    pub fn new() -> Result<Self, OsError> {
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK), || "make an eventfd".into())? };
        Ok(EventFd { fd })
    }

    /// Raises the counter. One that is full already wakes as well.
    pub fn signal(&self) -> Result<(), OsError> {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the pointer is to 8 live bytes that the kernel only reads.
        match check(unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) }, || "raise an eventfd".into()) {
            Err(error) if error.is(libc::EAGAIN) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets the counter to zero and returns what it was.
    pub fn drain(&self) -> Result<u64, OsError> {
        read_counter(self.fd.as_fd(), "read an eventfd")
    }

    /// Another descriptor of the same counter.
    pub fn try_clone(&self) -> Result<Self, OsError> {
        Ok(EventFd { fd: self.fd.try_clone().map_err(|e| OsError::io("duplicate an eventfd", &e))? })
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A timer on the monotonic clock.
#[derive(Debug)]
pub struct TimerFd {
    fd: OwnedFd,
}

impl TimerFd {
    /// A timer that is not set.
    pub fn new() -> Result<Self, OsError> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers; the descriptor returned is new.
        let fd = unsafe { own(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags), || "make a timer".into())? };
        Ok(TimerFd { fd })
    }

    /// A timer that runs out every `period`, first after one.
    pub fn every(period: Duration) -> Result<Self, OsError> {
        let timer = TimerFd::new()?;
        timer.set(period, period)?;
        Ok(timer)
    }

    /// Runs out once after `delay`.
    pub fn set_once(&self, delay: Duration) -> Result<(), OsError> {
        self.set(delay, Duration::ZERO)
    }

    /// Runs out every `period`.
    pub fn set_every(&self, period: Duration) -> Result<(), OsError> {
        self.set(period, period)
    }

    /// Runs out no more.
    pub fn clear(&self) -> Result<(), OsError> {
        self.settime(timespec(Duration::ZERO), timespec(Duration::ZERO))
    }

    /// How often it ran out since the last call.
    pub fn drain(&self) -> Result<u64, OsError> {
        read_counter(self.fd.as_fd(), "read a timer")
    }

    /// A delay of zero would switch the timer off; the shortest one stands for it.
    fn set(&self, first: Duration, period: Duration) -> Result<(), OsError> {
        self.settime(timespec(first.max(Duration::from_nanos(1))), timespec(period))
    }

    fn settime(&self, first: libc::timespec, period: libc::timespec) -> Result<(), OsError> {
        let value = libc::itimerspec { it_interval: period, it_value: first };
        // SAFETY: the pointer is to a live itimerspec that the kernel only reads; the old value may be null.
        let ret = unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const value, std::ptr::null_mut()) };
        check(ret, || "set a timer".into()).map(drop)
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A signal that [`SignalFd`] can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// Please end.
    Terminate,
    /// Please read your configuration anew.
    HangUp,
    /// A child has ended.
    Child,
    /// For the program to give a meaning.
    User1,
    /// For the program to give a meaning.
    User2,
}

impl Signal {
    const ALL: [Signal; 6] = [Signal::Interrupt, Signal::Terminate, Signal::HangUp, Signal::Child, Signal::User1, Signal::User2];

    /// The kernel's number.
    pub fn number(self) -> i32 {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::HangUp => libc::SIGHUP,
            Signal::Child => libc::SIGCHLD,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
        }
    }
}

/// Signals as something to read.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Takes these signals out of their normal way, in the calling thread and those it starts from
    /// now on: call it in the main thread before any other is started. Programs that are started
    /// later inherit the block; see [`unblock_all`].
    pub fn new(signals: &[Signal]) -> Result<Self, OsError> {
        // SAFETY: all-zero is a valid sigset_t, and sigemptyset sets it up.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live set.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: the pointer is to a live set; the number is a signal's.
            unsafe { libc::sigaddset(&raw mut set, signal.number()) };
        }
        // SAFETY: the pointer is to a live set; the old one may be null.
        let ret = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if ret != 0 {
            return Err(OsError::new(format!("block signals {signals:?}"), ret));
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the pointer is to a live set; the descriptor returned is new.
        let fd = unsafe { own(libc::signalfd(-1, &raw const set, flags), || format!("listen to signals {signals:?}"))? };
        Ok(SignalFd { fd })
    }

    /// The next signal that waits, without waiting.
    pub fn read(&self) -> Result<Option<Signal>, OsError> {
        // SAFETY: all-zero is a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value of the stated length that the kernel fills.
        let ret = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
        match check(ret, || "read a signal".into()) {
            Err(error) if error.is(libc::EAGAIN) || error.is(libc::EINTR) => Ok(None),
            other => other.map(|_| Signal::ALL.into_iter().find(|signal| signal.number() as u32 == info.ssi_signo)),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Lets all signals through to the calling thread again: for a helper program, before its exec.
pub fn unblock_all() -> Result<(), OsError> {
    // SAFETY: all-zero is a valid sigset_t, and sigemptyset sets it up.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to a live set; the old one may be null.
    let ret = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if ret == 0 { Ok(()) } else { Err(OsError::new("unblock signals", ret)) }
}

/// Reads the 8-byte counter of an eventfd or timer; 0 when it did not move.
fn read_counter(fd: BorrowedFd<'_>, doing: &str) -> Result<u64, OsError> {
    let mut bytes = [0; 8];
    // SAFETY: the pointer is to 8 live bytes that the kernel fills.
    match check(unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) }, || doing.into()) {
        Err(error) if error.is(libc::EAGAIN) || error.is(libc::EINTR) => Ok(0),
        other => other.map(|_| u64::from_ne_bytes(bytes)),
    }
}

/// Rounded up, so that a wait is never shorter than asked for; -1 is for ever.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(timeout) => i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_wakes_the_set_and_is_told_once() {
        let (epoll, event, mut events) = (Epoll::new().unwrap(), EventFd::new().unwrap(), Vec::new());
        epoll.add(&event, 7, Interest::Read).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        let other = event.try_clone().unwrap();
        std::thread::spawn(move || (other.signal().unwrap(), other.signal().unwrap())).join().unwrap();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 7, readable: true, writable: false, broken: false }]);
        assert_eq!((event.drain().unwrap(), event.drain().unwrap()), (2, 0));
        epoll.modify(&event, 8, Interest::ReadWrite).unwrap();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!(events, [Event { token: 8, readable: false, writable: true, broken: false }]);
        epoll.remove(&event).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
    }

    #[test]
    fn timers_run_out_once_or_again_and_can_be_cleared() {
        let timer = TimerFd::new().unwrap();
        timer.set_once(Duration::ZERO).unwrap();
        assert!(wait_readable(&timer, None).unwrap());
        assert_eq!((timer.drain().unwrap(), timer.drain().unwrap()), (1, 0));
        timer.set_every(Duration::from_millis(1)).unwrap();
        assert!(wait_readable(&timer, None).unwrap());
        assert!(timer.drain().unwrap() >= 1);
        assert!(wait_readable(&timer, None).unwrap());
        timer.clear().unwrap();
        assert_eq!(timer.drain().unwrap(), 0);
    }

    #[test]
    fn a_signal_can_be_read() {
        // On a thread of its own: the block stays with the thread.
        std::thread::spawn(|| {
            let signals = SignalFd::new(&[Signal::User1, Signal::HangUp]).unwrap();
            assert_eq!(signals.read().unwrap(), None);
            // SAFETY: signals this thread, which blocks the signal.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            assert!(wait_readable(&signals, None).unwrap());
            assert_eq!(signals.read().unwrap(), Some(Signal::User1));
            assert_eq!(signals.read().unwrap(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn waits_are_never_shorter_than_asked_for() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(1001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), i32::MAX);
    }
}
