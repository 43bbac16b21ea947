//! Protocols whose parsers note the whole record, in the log's words.

use bulkhead_ips::Record;

use serde_json::{Value, json};

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
    if let Some(Value::Object(rpc)) = rpc {
        entry.objects.insert(0, ("rpc", rpc));
    }
    Some(entry)
}

/// A message of the family of DNS: data stands by the name of its type, strings of one TXT record in a list.
pub(super) fn names(record: &Record, name: &'static str) -> Option<Entry> {
    const RESPONSE: u64 = 0x8000;
    let mut noted = tree(&record.notes);
    let flags = noted.remove("flags").and_then(|flags| flags.as_u64())?;
    let response = flags & RESPONSE != 0;
    noted.insert("type".to_owned(), json!(if response { "response" } else { "request" }));
    if !response {
        noted.remove("rcode");
    }
    for list in ["queries", "answers", "authorities", "additionals"] {
        let Some(Value::Array(records)) = noted.get_mut(list) else { continue };
        let mut shown: Vec<Value> = Vec::with_capacity(records.len());
        for record in records.drain(..) {
            let Value::Object(mut record) = record else { continue };
            let kind = record.get("rrtype").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
            record.insert("rrtype".to_owned(), json!(kind));
            let data = ["rdata", "soa", "srv", "sshfp"].into_iter().find_map(|name| record.remove(name));
            let before = shown.last_mut().filter(|before| kind == "txt" && before["rrname"] == record["rrname"]);
            match (data, before.and_then(|before| before.get_mut("txt")).and_then(Value::as_array_mut)) {
                (Some(data), Some(texts)) => {
                    texts.push(data);
                    continue;
                }
                (Some(data), None) => _ = record.insert(kind.clone(), if kind == "txt" { json!([data]) } else { data }),
                (None, _) => {}
            }
            shown.push(Value::Object(record));
        }
        *records = shown;
    }
    Some(Entry::of(name, noted))
}
