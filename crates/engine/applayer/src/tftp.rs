//! TFTP (RFC 1350): requests to read and to write. The data goes between other ports.

use crate::names::Dir;
use crate::protocol::Probe;
use crate::transaction::Transaction;

const MODES: &[&[u8]] = &[b"netascii", b"octet", b"mail"];

struct Request<'a> {
    write: bool,
    file: &'a [u8],
    mode: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None`: not a request. Options (RFC 2347) stand behind the mode.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let &[0, operation @ (1 | 2), ref rest @ ..] = bytes else { return None };
        let mut parts = rest.split(|byte| *byte == 0);
        let (file, mode) = (parts.next()?, parts.next()?);
        // Each part has its end.
        parts.next()?;
        (!file.is_empty() && MODES.iter().any(|known| known.eq_ignore_ascii_case(mode))).then_some(Self {
            write: operation == 2,
            file,
            mode,
        })
    }
}

pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    if Request::read(bytes).is_some() { Probe::Yes } else { Probe::No }
}

pub(crate) fn read(bytes: &[u8], _: Dir, tx: &mut Transaction) {
    let Some(request) = Request::read(bytes) else { return };
    tx.notes.text("packet", if request.write { "write" } else { "read" });
    tx.notes.text("file", request.file);
    tx.notes.text("mode", request.mode);
}
