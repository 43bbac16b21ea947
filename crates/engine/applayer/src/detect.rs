//! Which protocol is it: by what the two sides say, on whatever port.
//!
//! Each protocol's probe looks at the first bytes of one direction. The first that is sure wins; while one is not sure, more bytes
//! are awaited, up to [`crate::Config::probe_bytes_max`].

use crate::names::{Dir, Protocol};
use crate::protocol::{AT_PORTS, Entry, Probe, TABLE};
use crate::session::Transport;

pub(crate) enum Found {
    Protocol(&'static Entry),
    /// Some may still be it.
    More,
    None,
}

/// `ports`: of both sides, as far as they are known.
pub(crate) fn detect(transport: Transport, ports: [u16; 2], dir: Dir, bytes: &[u8], disabled: &[(Protocol, Transport)]) -> Found {
    let mut more = bytes.is_empty();
    let at_ports = AT_PORTS.iter().filter(|(port, _)| ports.contains(port)).map(|(_, entry)| entry);
    let asked = |entry: &&Entry| entry.transport == transport && !disabled.contains(&(entry.protocol, transport));
    for entry in at_ports.chain(TABLE).filter(asked) {
        match (entry.probe)(dir, bytes) {
            Probe::Yes => return Found::Protocol(entry),
            Probe::More => more = true,
            Probe::No => {}
        }
    }
    if more { Found::More } else { Found::None }
}

/// Where both sides have said what it is.
pub(crate) fn entry(transport: Transport, protocol: Protocol) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.transport == transport && entry.protocol == protocol)
}

/// Whether these words may be of a protocol that is known from the other side.
pub(crate) fn may_be(transport: Transport, protocol: Protocol, dir: Dir, bytes: &[u8]) -> bool {
    let of_protocol = |entry: &&Entry| entry.transport == transport && entry.protocol == protocol;
    TABLE.iter().filter(of_protocol).any(|entry| (entry.probe)(dir, bytes) != Probe::No)
}
