//! Protocols whose parsers note the whole record, in the log's words.

use bulkhead_ips::Record;

use super::{Entry, LogConfig, tree};

/// The notes as they are. `None`: nothing was noted.
pub(super) fn plain(record: &Record, name: &'static str) -> Option<Entry> {
    let object = tree(&record.notes);
    (!object.is_empty()).then(|| Entry::of(name, object))
}

/// Without `extended` only what gives an address away.
pub(super) fn dhcp(record: &Record, config: &LogConfig) -> Option<Entry> {
    let dhcp = tree(&record.notes);
    let is_ack = dhcp.get("dhcp_type").is_some_and(|kind| kind == "ack");
    (config.extended || is_ack).then(|| Entry::of("dhcp", dhcp))
}
