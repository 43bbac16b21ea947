//! Telling the service manager how we are: systemd's `sd_notify(3)` protocol.
//!
//! One datagram of `KEY=value` lines to the socket named by `$NOTIFY_SOCKET`: a path, or `@name`
//! in the abstract space. Without a service manager all calls do nothing.

use crate::OsError;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// To the service manager that started this process, if one did. An address that cannot be
    /// used is the service manager's mistake and an error.
    pub fn from_env() -> Result<Self, OsError> {
        match std::env::var("NOTIFY_SOCKET") {
            Ok(address) if !address.is_empty() => Notifier::to(&address),
            Ok(_) | Err(_) => Ok(Notifier { target: None }),
        }
    }

    /// To the socket at `address`: an absolute path, or `@name`.
    pub fn to(address: &str) -> Result<Self, OsError> {
        let doing = || format!("reach the service manager at `{address}`");
        let target = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None if address.starts_with('/') => SocketAddr::from_pathname(address),
            None => return Err(OsError::new(doing(), libc::EAFNOSUPPORT)),
        };
        let target = target.map_err(|_| OsError::new(doing(), libc::EINVAL))?;
        let socket = UnixDatagram::unbound().map_err(|e| OsError::io(doing(), &e))?;
        // A service manager that hangs must not hang us.
        socket.set_nonblocking(true).map_err(|e| OsError::io(doing(), &e))?;
        Ok(Notifier { target: Some((socket, target)) })
    }

    /// Is there a service manager?
    pub fn is_active(&self) -> bool {
        self.target.is_some()
    }

    /// We are up and do our work.
    pub fn ready(&self) -> Result<(), OsError> {
        self.send("READY=1")
    }

    /// We read our configuration again; [`Notifier::ready`] is to follow. With the time of CLOCK_MONOTONIC, as
    /// `Type=notify-reload` of systemd 253 and later asks for.
    pub fn reloading(&self) -> Result<(), OsError> {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", crate::call::monotonic_usec()))
    }

    /// We begin to stop.
    pub fn stopping(&self) -> Result<(), OsError> {
        self.send("STOPPING=1")
    }

    /// We still live: to be sent at least once in each [`watchdog_interval`].
    pub fn watchdog(&self) -> Result<(), OsError> {
        self.send("WATCHDOG=1")
    }

    /// One line about how we are, for people.
    pub fn status(&self, text: &str) -> Result<(), OsError> {
        self.send(&format!("STATUS={}", text.replace('\n', " ")))
    }

    fn send(&self, message: &str) -> Result<(), OsError> {
        let Some((socket, target)) = &self.target else { return Ok(()) };
        match socket.send_to_addr(message.as_bytes(), target) {
            Ok(_) => Ok(()),
            Err(e) => Err(OsError::io(format!("tell the service manager {message}"), &e)),
        }
    }
}

/// Half of the time within which the service manager wants to hear [`Notifier::watchdog`], as
/// `sd_watchdog_enabled(3)` advises; `None` when it does not watch this process.
pub fn watchdog_interval() -> Option<Duration> {
    interval(std::env::var("WATCHDOG_USEC").ok().as_deref(), std::env::var("WATCHDOG_PID").ok().as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    match pid {
        Some(pid) if pid.parse() != Ok(own) => None,
        _ => Some(Duration::from_micros(usec) / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let name = format!("bulkhead-notify-test-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(&by_path, path.to_str().unwrap()), (&by_name, format!("@{name}").as_str())] {
            let notifier = Notifier::to(address).unwrap();
            notifier.ready().unwrap();
            notifier.status("two\nlines").unwrap();
            notifier.watchdog().unwrap();
            for expected in ["READY=1", "STATUS=two lines", "WATCHDOG=1"] {
                let mut buffer = [0; 64];
                let len = socket.recv(&mut buffer).unwrap();
                assert_eq!(std::str::from_utf8(&buffer[..len]).unwrap(), expected);
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn addresses_that_cannot_be_are_refused() {
        assert!(Notifier::to("relative").unwrap_err().is(libc::EAFNOSUPPORT));
        assert!(Notifier::to(&format!("/{}", "x".repeat(200))).unwrap_err().is(libc::EINVAL));
        let nobody = Notifier::to("/nonexistent/bulkhead").unwrap();
        assert!(nobody.ready().unwrap_err().is(libc::ENOENT));
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        assert_eq!(interval(Some("3000000"), None, 5), Some(Duration::from_millis(1500)));
        assert_eq!(interval(Some("3000000"), Some("5"), 5), Some(Duration::from_millis(1500)));
        assert_eq!(interval(Some("3000000"), Some("6"), 5), None);
        assert_eq!(interval(Some("0"), None, 5), None);
        assert_eq!(interval(Some("soon"), None, 5), None);
        assert_eq!(interval(None, None, 5), None);
    }
}
