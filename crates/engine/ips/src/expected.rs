//! Connections that another one has announced: the data connections of FTP. What is said in them is known before their first byte.

use std::collections::VecDeque;
use std::net::IpAddr;

use bulkhead_applayer::{Dir, Expectation};
use bulkhead_model::Timestamp;

use crate::detect::End;

/// Connections that are awaited; the oldest are forgotten.
const EXPECTED_MAX: usize = 1024;
/// How long one is awaited. A client that has asked for a file connects at once; servers give up after a minute or two.
const EXPECTED_SECS: u64 = 120;

#[derive(Debug, Default)]
pub(crate) struct Expected {
    list: VecDeque<Announced>,
}

#[derive(Debug)]
struct Announced {
    from: IpAddr,
    to: IpAddr,
    port: u16,
    at: Timestamp,
    what: Expectation,
}

impl Expected {
    /// `ends`: client and server of the connection that announces. The peers are its own, whatever address is named: another one would
    /// be a bounce. Gives whether an older one was forgotten for it.
    pub fn announce(&mut self, ends: (End, End), what: &Expectation, now: Timestamp) -> bool {
        let (client, server) = (ends.0.0, ends.1.0);
        let (from, to) = match what.opened_by {
            Dir::ToServer => (client, server),
            Dir::ToClient => (server, client),
        };
        let full = self.list.len() >= EXPECTED_MAX;
        if full {
            self.list.pop_front();
        }
        self.list.push_back(Announced { from, to, port: what.port, at: now, what: what.clone() });
        full
    }

    /// What a new connection is.
    pub fn take(&mut self, client: End, server: End, now: Timestamp) -> Option<Expectation> {
        if self.list.is_empty() {
            return None;
        }
        self.list.retain(|one| now.since(one.at) <= EXPECTED_SECS * 1_000_000_000);
        let is_it = |one: &Announced| (one.from, one.to, one.port) == (client.0, server.0, server.1);
        let at = self.list.iter().position(is_it)?;
        self.list.remove(at).map(|one| one.what)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_applayer::Protocol;

    use super::*;

    fn end(last: u8, port: u16) -> End {
        (IpAddr::from([192, 0, 2, last]), port, false)
    }

    fn retrieval(port: u16, opened_by: Dir) -> Expectation {
        Expectation { protocol: Protocol::FtpData, address: None, port, opened_by, command: b"RETR a".to_vec() }
    }

    #[test]
    fn a_connection_is_known_by_who_opens_it_to_which_port() {
        let (mut expected, start) = (Expected::default(), Timestamp::from_secs(1));
        let ends = (end(1, 1024), end(2, 21));
        expected.announce(ends, &retrieval(4000, Dir::ToServer), start);
        expected.announce(ends, &retrieval(5000, Dir::ToClient), start);
        assert!(expected.take(end(1, 9), end(2, 4001), start).is_none() && expected.take(end(3, 9), end(2, 4000), start).is_none());
        assert!(expected.take(end(1, 9), end(2, 4000), start).is_some());
        assert!(expected.take(end(1, 9), end(2, 4000), start).is_none(), "once");
        assert!(expected.take(end(2, 20), end(1, 5000), Timestamp::from_secs(200)).is_none(), "too late");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (mut expected, now) = (Expected::default(), Timestamp::from_secs(1));
        for port in 0..EXPECTED_MAX as u16 + 1 {
            let forgot = expected.announce((end(1, 1024), end(2, 21)), &retrieval(port, Dir::ToServer), now);
            assert_eq!(forgot, usize::from(port) == EXPECTED_MAX);
        }
        assert!(expected.take(end(1, 9), end(2, 0), now).is_none() && expected.take(end(1, 9), end(2, 1), now).is_some());
    }
}
