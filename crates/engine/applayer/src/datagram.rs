//! Protocols of datagrams where each message is a transaction of its own direction.

use crate::context::Io;
use crate::names::{Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Reads one datagram into its transaction.
type Read = fn(&[u8], Dir, &mut Transaction);

/// A parser without a memory of its own.
#[derive(Debug)]
pub(crate) struct Messages {
    pub protocol: Protocol,
    pub read: Read,
}

impl Parser for Messages {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let dir = io.dir;
        let Some(id) = io.begin(self.protocol) else {
            return Step { consumed: bytes.len(), next: Next::Finished(Finished::Cap("transactions_max")) };
        };
        if let Some(tx) = io.tx(id) {
            (self.read)(bytes, dir, tx);
            tx.advance(dir, Stage::Complete);
            tx.advance(dir.other(), Stage::Complete);
        }
        Step::on(bytes.len())
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}

/// A number of several bytes, the highest first.
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `00:0c:29:ab`
pub(crate) fn hex_with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
