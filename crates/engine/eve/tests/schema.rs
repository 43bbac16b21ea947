//! Each line of the log has the fields that consumers of EVE read, with their types: Suricata's user guide, "EVE JSON Format".

use bulkhead_eve::capture::Packet;
use bulkhead_eve::replay::{Job, Replay};
use bulkhead_eve::settings::Settings;
use bulkhead_ips::{Checksums, LinkType};
use bulkhead_model::Timestamp;
use serde_json::Value;

/// Field by its path, its type, and the event types that must have it; none: it may be absent.
type Field = (&'static str, fn(&Value) -> bool, &'static [&'static str]);

const FIELDS: &[Field] = &[
    ("/timestamp", Value::is_string, &["alert", "dns", "flow", "stats"]),
    ("/flow_id", Value::is_u64, &["alert", "dns", "flow"]),
    ("/pcap_cnt", Value::is_u64, &["alert", "dns"]),
    ("/src_ip", Value::is_string, &["alert", "dns", "flow"]),
    ("/src_port", Value::is_u64, &["alert", "dns", "flow"]),
    ("/dest_ip", Value::is_string, &["alert", "dns", "flow"]),
    ("/dest_port", Value::is_u64, &["alert", "dns", "flow"]),
    ("/proto", Value::is_string, &["alert", "dns", "flow"]),
    ("/alert/signature_id", Value::is_u64, &["alert"]),
    ("/alert/gid", Value::is_u64, &["alert"]),
    ("/alert/rev", Value::is_u64, &["alert"]),
    ("/alert/signature", Value::is_string, &["alert"]),
    ("/alert/category", Value::is_string, &["alert"]),
    ("/alert/severity", Value::is_u64, &["alert"]),
    ("/alert/action", Value::is_string, &["alert"]),
    ("/dns/queries", Value::is_array, &["dns"]),
    ("/dns/id", Value::is_u64, &["dns"]),
    ("/flow/pkts_toserver", Value::is_u64, &["flow"]),
    ("/flow/bytes_toclient", Value::is_u64, &["flow"]),
    ("/flow/start", Value::is_string, &["flow"]),
    ("/flow/state", Value::is_string, &["flow"]),
    ("/flow/reason", Value::is_string, &["flow"]),
    ("/flow/alerted", Value::is_boolean, &["flow"]),
    ("/stats/decoder/pkts", Value::is_u64, &["stats"]),
];

/// Ethernet, IPv4, UDP from 198.51.100.2 to port 53 of 198.51.100.3: a question for `example.com`.
fn question() -> Vec<u8> {
    let dns = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    let mut frame = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((28 + dns.len() as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 198, 51, 100, 2, 198, 51, 100, 3, 0x9c, 0x40, 0, 53]);
    frame.extend((8 + dns.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend_from_slice(dns);
    frame
}

#[test]
fn lines_have_the_fields_of_their_type() {
    let settings = Settings::builtin();
    let rules =
        [("r".to_owned(), "alert dns any any -> any any (msg:\"asked\"; dns.query; content:\"example\"; sid:7; rev:2;)\n".to_owned())];
    let job = Job { settings: &settings, rules: &rules, beside: Vec::new(), inline: false, checksums: Some(Checksums::Ignore), files: &() };
    let (mut replay, loaded) = Replay::new(job);
    assert_eq!((loaded.loaded, loaded.wrong), (1, 0));
    let bytes = question();
    replay.packet(&Packet { at: Timestamp::from_secs(1), link: LinkType::Ethernet, bytes: &bytes, len_on_wire: bytes.len() as u32 });
    replay.finish();
    let lines: Vec<Value> = replay.lines().map(|(_, line)| line).collect();
    for kind in ["alert", "dns", "flow", "stats"] {
        let line = lines.iter().find(|line| line["event_type"] == kind).unwrap_or_else(|| panic!("no {kind} in {lines:?}"));
        for (path, of_type, needed) in FIELDS {
            match line.pointer(path) {
                Some(value) => assert!(of_type(value), "{kind} {path}: {value}"),
                None => assert!(!needed.contains(&kind), "{kind} has no {path}: {line}"),
            }
        }
    }
}
