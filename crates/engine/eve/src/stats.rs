//! `stats`: counters under the names that Suricata gives them, nested by their dots.

use bulkhead_applayer::Protocol;
use bulkhead_ips::Pipeline;
use serde_json::{Value, json};

use crate::record::Object;

/// All counters of a pipeline.
pub fn object(pipeline: &Pipeline) -> Object {
    let mut stats = Object::new();
    let decode = pipeline.decode_stats();
    decode.named().for_each(|(name, value)| put(&mut stats, name, value));
    pipeline.defrag_stats().named().for_each(|(name, value)| put(&mut stats, name, value));
    pipeline.flow_stats().named().for_each(|(name, value)| put(&mut stats, name, value));
    pipeline.stream_stats().named().for_each(|(name, value)| put(&mut stats, name, value));
    let counted = pipeline.stats();
    put(&mut stats, "detect.alert", counted.alerts);
    put(&mut stats, "detect.alerts_suppressed", counted.alerts_suppressed.saturating_sub(counted.alerts_refused));
    put(&mut stats, "detect.alert_queue_overflow", counted.alerts_refused);
    for (name, value) in [
        ("accepted", counted.accepted + counted.bypassed),
        ("blocked", counted.dropped),
        ("rejected", counted.rejected),
        ("replaced", 0),
        ("drop_reason.rules", counted.drop_rule),
        ("drop_reason.flow_drop", counted.drop_flow),
        ("drop_reason.decode_error", counted.drop_malformed),
        ("drop_reason.stream_error", counted.drop_conflict),
        ("drop_reason.stream_midstream", counted.drop_unverifiable),
        ("drop_reason.stream_memcap", counted.drop_cap),
    ] {
        put(&mut stats, &format!("ips.{name}"), value);
    }
    put(&mut stats, "tcp.reassembly_gap", pipeline.stream_stats().gaps);
    stats
}

/// `app_layer.tx.dns_udp`: protocols that run over both have a counter for each.
pub fn app_counter(what: &str, protocol: Protocol, proto: u8) -> String {
    const UDP: u8 = 17;
    let both = matches!(protocol, Protocol::Dns | Protocol::Dcerpc | Protocol::Krb5 | Protocol::Ldap | Protocol::Nfs | Protocol::Sip);
    let over = match (both, proto) {
        (false, _) => "",
        (true, UDP) => "_udp",
        (true, _) => "_tcp",
    };
    format!("app_layer.{what}.{}{over}", protocol.name())
}

/// `a.b.c` as objects within objects.
pub fn put(stats: &mut Object, name: &str, value: u64) {
    match name.split_once('.') {
        None => _ = stats.insert(name.to_owned(), json!(value)),
        Some((head, rest)) => {
            let inner = stats.entry(head.to_owned()).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
