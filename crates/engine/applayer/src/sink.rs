//! Who is told: the engine that inspects, and the log.

use crate::names::{Dir, Protocol};
use crate::transaction::Transaction;

/// Everything is told before [`crate::Session::data`] returns: what was told of bytes can still stop these bytes.
pub trait Sink {
    /// The protocol was recognised. Comes before any transaction.
    fn recognised(&mut self, protocol: Protocol) {
        let _ = protocol;
    }

    /// Values became complete, a stream grew, an event was noted or a stage was reached: [`Transaction::news`].
    /// Once for each transaction that a call has changed, and more often only when a body brings more than fits at once.
    fn update(&mut self, tx: &mut Transaction, dir: Dir);

    /// The last that is told of a transaction: complete, or its session ended. [`Sink::update`] has come before.
    fn complete(&mut self, tx: &mut Transaction) {
        let _ = tx;
    }

    /// An event that belongs to the session and to no transaction.
    fn event(&mut self, event: &'static str, dir: Dir) {
        let _ = (event, dir);
    }

    /// Nothing further is parsed; told once, or once a direction where the other one can still be read.
    fn finished(&mut self, why: Finished) {
        let _ = why;
    }

    /// Another connection was agreed on that belongs to this one (FTP).
    fn expect(&mut self, expected: &Expectation) {
        let _ = expected;
    }
}

/// Why a session's parser has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// After a genuine handshake in both directions: what follows is encrypted, nothing more can be inspected.
    Encrypted,
    /// No protocol that is known here, after as many bytes as are looked at.
    Unknown,
    /// A tunnel to something that is not recognised (CONNECT, upgrade).
    Tunnel,
    /// The peer does not speak the protocol; receivers may read it differently.
    Malformed(&'static str),
    /// A cap was reached: its name. What follows is not inspected, so a verdict has to be chosen.
    Cap(&'static str),
    /// Bytes are missing where the parser cannot do without.
    Gap,
}

/// A data connection that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    pub protocol: Protocol,
    /// Address named in the command or answer; `None`: the peer's own.
    pub address: Option<std::net::IpAddr>,
    pub port: u16,
    /// Who opens the connection to `port`.
    pub opened_by: Dir,
    /// The command it serves, `RETR name`.
    pub command: Vec<u8>,
}
