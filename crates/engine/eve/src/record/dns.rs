//! `dns`: a message. Version 3 of the format, and version 2 where the settings ask for it.

use bulkhead_ips::Record;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, tree};

#[derive(Debug, Clone, PartialEq)]
pub struct DnsLog {
    /// 2 or 3.
    pub version: u8,
    pub requests: bool,
    pub responses: bool,
    /// `formats`.
    pub detailed: bool,
    pub grouped: bool,
    /// `types`, in lower case; none: all.
    pub types: Vec<String>,
}

impl Default for DnsLog {
    fn default() -> Self {
        Self { version: 3, requests: true, responses: true, detailed: true, grouped: true, types: Vec::new() }
    }
}

const RESPONSE: u64 = 0x8000;

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    object(tree(&record.notes), record.id, config).map(|dns| Entry::of("dns", dns))
}

/// What was noted of a message, as the log has it. `None`: the settings leave it out.
pub(super) fn object(mut noted: Object, tx: u64, config: &LogConfig) -> Option<Object> {
    let log = &config.dns;
    let flags = noted.get("flags").and_then(Value::as_u64)?;
    let response = flags & RESPONSE != 0;
    if !(if response { log.responses } else { log.requests }) || !wanted(&noted, log) {
        return None;
    }
    let mut dns = Object::new();
    let mut put = |name: &str, value: Value| _ = dns.insert(name.to_owned(), value);
    put("version", json!(log.version));
    let kind = match (log.version, response) {
        (2, false) => "query",
        (2, true) => "answer",
        (_, false) => "request",
        (_, true) => "response",
    };
    put("type", json!(kind));
    put("tx_id", json!(tx));
    put("id", noted.remove("id").unwrap_or_default());
    if response {
        put("flags", json!(format!("{flags:x}")));
        put("qr", json!(true));
    }
    for (bit, name) in [(0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra"), (0x0040, "z")] {
        if flags & bit != 0 && (response || bit == 0x0040 || log.version == 3) {
            put(name, json!(true));
        }
    }
    put("opcode", noted.remove("opcode").unwrap_or_default());
    if response {
        put("rcode", noted.remove("rcode").unwrap_or_default());
    }
    let queries = noted.remove("queries");
    if log.version == 2 {
        for (name, value) in queries.as_ref().and_then(|queries| queries.get(0)).and_then(Value::as_object).into_iter().flatten() {
            put(name, value.clone());
        }
    } else if let Some(queries) = queries {
        put("queries", queries);
    }
    if response {
        answers(&mut dns, &mut noted, log);
    }
    Some(dns)
}

/// Whether one of the questions is of a type that is asked for.
fn wanted(noted: &Object, log: &DnsLog) -> bool {
    let of = |query: &Value| query["rrtype"].as_str().is_some_and(|kind| log.types.contains(&kind.to_ascii_lowercase()));
    log.types.is_empty() || noted.get("queries").and_then(Value::as_array).into_iter().flatten().any(of)
}

fn answers(dns: &mut Object, noted: &mut Object, log: &DnsLog) {
    let found = noted.remove("answers");
    if log.grouped {
        let mut grouped = Object::new();
        for answer in found.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let data = ["rdata", "soa", "srv", "sshfp"].into_iter().find_map(|name| answer.get(name));
            if let (Some(kind), Some(data)) = (answer["rrtype"].as_str(), data)
                && let Value::Array(all) = grouped.entry(kind.to_owned()).or_insert_with(|| json!([]))
            {
                all.push(data.clone());
            }
        }
        if !grouped.is_empty() {
            dns.insert("grouped".to_owned(), Value::Object(grouped));
        }
    }
    if log.detailed
        && let Some(found) = found
    {
        dns.insert("answers".to_owned(), found);
    }
    for name in ["authorities", "additionals"] {
        if let Some(records) = noted.remove(name) {
            dns.insert(name.to_owned(), records);
        }
    }
}
