//! The way to an engine: a unix socket whose every step has a deadline, and what can go wrong on it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why an engine gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens, or the socket is not there: not a fault.
    #[error("no engine at the socket: {0}")]
    Absent(String),
    #[error("cannot talk to the engine: {0}")]
    Io(String),
    #[error("the engine did not answer in time")]
    Timeout,
    #[error("the engine closed the connection in the middle of its answer")]
    Closed,
    #[error("the engine's answer has more than {max} bytes of {what}")]
    TooLarge { what: &'static str, max: usize },
    #[error("the engine's answer is not what it should be: {0}")]
    Malformed(String),
    /// It answered, with another status than 200 (HTTP) or 0 (gRPC).
    #[error("the engine answered {code}: {message}")]
    Status { code: u16, message: String },
    /// The inventory is being stopped.
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// Connects to a unix socket. An engine that hangs with a full backlog would block a plain
/// `connect` for ever; with a send timeout set before, the kernel gives up (unix(7)).
pub(crate) fn connect(socket: &Path, timeout: Duration) -> Result<UnixStream, Error> {
    let io_error = |error: io::Error| Error::of(&error);
    let stream = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).map_err(io_error)?;
    stream.set_write_timeout(Some(timeout)).map_err(io_error)?;
    let address = socket2::SockAddr::unix(socket).map_err(io_error)?;
    match stream.connect(&address) {
        Ok(()) => Ok(UnixStream::from(OwnedFd::from(stream))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(Error::Absent(error.kind().to_string()))
        }
        Err(error) => Err(Error::of(&error)),
    }
}

/// Time left, or [`Error::Timeout`] when there is none.
pub(crate) fn remaining(deadline: Instant) -> Result<Duration, Error> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Error::Timeout),
        left => Ok(left),
    }
}

/// Text of an engine for an error message: one line, at most 300 characters.
pub(crate) fn one_line(text: &str) -> String {
    let line: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_is_an_absent_engine_and_a_full_backlog_a_timeout() {
        let dir = std::env::temp_dir().join(format!("bulkhead-socket-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("engine.sock");
        assert!(matches!(connect(&path, Duration::from_secs(1)), Err(Error::Absent(_))));
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
        listener.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("bound");
        assert!(matches!(connect(&path, Duration::from_secs(1)), Err(Error::Absent(_))), "bound, but nobody listens");
        listener.listen(0).expect("listening");
        let mut held = Vec::new();
        let refused = (0..8).find_map(|_| match connect(&path, Duration::from_millis(50)) {
            Ok(stream) => {
                held.push(stream);
                None
            }
            Err(error) => Some(error),
        });
        assert_eq!(refused, Some(Error::Timeout));
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
