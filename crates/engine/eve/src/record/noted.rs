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

/// The part of RPC stands beside it. Attributes alone are no record.
pub(super) fn nfs(record: &Record, _: &LogConfig) -> Option<Entry> {
    let mut nfs = tree(&record.notes);
    if nfs.get("procedure").is_some_and(|procedure| procedure == "GETATTR") {
        return None;
    }
    let rpc = nfs.remove("rpc");
    let mut entry = Entry::of("nfs", nfs);
    if let Some(serde_json::Value::Object(rpc)) = rpc {
        entry.objects.insert(0, ("rpc", rpc));
    }
    Some(entry)
}
