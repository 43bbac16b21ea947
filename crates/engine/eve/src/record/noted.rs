//! Protocols whose parsers note the whole record, in the log's words.

use bulkhead_applayer::Protocol;
use bulkhead_ips::Record;

use super::{Entry, LogConfig, tree};

/// The notes as they are.
pub(super) fn plain(protocol: Protocol) -> impl Fn(&Record) -> Option<Entry> {
    move |record| {
        let object = tree(&record.notes);
        (!object.is_empty()).then(|| Entry::of(protocol.name(), object))
    }
}

/// Without `extended` only what gives an address away.
pub(super) fn dhcp(record: &Record, config: &LogConfig) -> Option<Entry> {
    let dhcp = tree(&record.notes);
    let is_ack = dhcp.get("dhcp_type").is_some_and(|kind| kind == "ack");
    (config.extended || is_ack).then(|| Entry::of("dhcp", dhcp))
}

pub(super) fn ntp(record: &Record, _: &LogConfig) -> Option<Entry> {
    plain(Protocol::Ntp)(record)
}

pub(super) fn quic(record: &Record, _: &LogConfig) -> Option<Entry> {
    plain(Protocol::Quic)(record)
}

pub(super) fn tftp(record: &Record, _: &LogConfig) -> Option<Entry> {
    plain(Protocol::Tftp)(record)
}
