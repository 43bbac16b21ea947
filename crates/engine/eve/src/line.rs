//! Events of the engine as lines of EVE.

use std::net::IpAddr;

use bulkhead_ips::applayer::{Dir, Protocol};
use bulkhead_ips::{
    AlertEvent, Anomaly, AnomalyEvent, Direction, DropEvent, Endpoint, FileEvent, FlowEndEvent, FlowKey, Midstream, Record, RuleInfo,
    Trace, TransactionEvent,
};
use bulkhead_model::{DropReason, Timestamp, Verdict};
use bulkhead_net::decode::LinkType;
use bulkhead_rules::Action;
use bulkhead_rules::reference::References;
use serde_json::{Value, json};

use crate::base64;
use crate::log::EveLog;
use crate::packet::Seen;
use crate::record::{self, Entry, Object};

/// The version whose shapes these are.
const VERSION: &str = "9.0.0";

/// Where in a capture an event happened.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The packet's number, from 1. `None`: behind the last one.
    pub number: Option<u64>,
    pub seen: Option<&'a Seen>,
    pub frame: Option<&'a [u8]>,
    pub link: Option<LinkType>,
    /// Of the packet, whose alerts share it.
    pub verdict: Option<Verdict>,
    pub references: &'a References,
}

/// Text of a line's fields so far.
pub struct Line {
    fields: Object,
}

impl Line {
    pub fn new(time: Timestamp, event_type: &str) -> Self {
        let mut line = Self { fields: Object::new() };
        line.put("timestamp", time.to_string());
        line.put("event_type", event_type);
        line
    }

    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    pub fn put_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    pub fn object(self) -> Value {
        Value::Object(self.fields)
    }

    /// Ends, flow and packet.
    fn place(&mut self, key: &FlowKey, at: &At<'_>, log: &EveLog) {
        if key.id != 0 {
            self.put("flow_id", key.id);
        }
        self.put_some("pcap_cnt", at.number);
        if let Some(seen) = at.seen {
            seen.head(&mut self.fields, log);
            self.put("pkt_src", seen.source());
        } else if at.number.is_none() {
            self.put("pkt_src", "stream (flow timeout)");
        }
        self.ends(key, log);
        if let Some((kind, code)) = at.seen.and_then(|seen| seen.icmp()).filter(|_| matches!(key.proto, 1 | 58)) {
            self.put("icmp_type", kind);
            self.put("icmp_code", code);
        }
    }

    fn ends(&mut self, key: &FlowKey, log: &EveLog) {
        let shown = |end: IpAddr| if log.ipv6_compress { end.to_string() } else { address(end) };
        self.put("src_ip", shown(key.src.addr));
        self.put("dest_ip", shown(key.dst.addr));
        if log.version {
            self.put("suricata_version", VERSION);
        }
        if matches!(key.proto, 6 | 17 | 132) {
            self.put("src_port", key.src.port);
            self.put("dest_port", key.dst.port);
        }
        self.put("proto", protocol(key.proto));
        self.put("ip_v", if key.src.addr.is_ipv4() { 4 } else { 6 });
        if let Some(seed) = log.community_id {
            self.put("community_id", crate::community::id(key, seed));
        }
    }
}

/// `record`: of the transaction in which it was found.
/// The client that a proxy names, beside the alert or in the place of the client's address.
fn forwarded(line: &mut Line, event: &AlertEvent, log: &EveLog) {
    let (Some(xff), Some(record)) = (&log.alert.xff, event.record.as_deref()) else { return };
    let Some(named) = record::header(record, Dir::ToServer, &xff.field) else { return };
    let mut all = named.split(',').filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok());
    let Some(found) = (if xff.reverse { all.next_back() } else { all.next() }) else { return };
    if xff.overwrite {
        let client = if event.direction == Some(Direction::ToClient) { "dest_ip" } else { "src_ip" };
        line.put(client, address(found));
    } else if let Some(Value::Object(alert)) = line.fields.get_mut("alert") {
        alert.insert("xff".into(), json!(address(found)));
    }
}

pub fn alert(event: &AlertEvent, at: At<'_>, log: &EveLog) -> Value {
    let mut line = Line::new(event.at, "alert");
    line.place(&event.key, &at, log);
    line.put_some("tx_id", event.tx);
    line.put("alert", rule(&event.rule, event.blocked, &at, log));
    forwarded(&mut line, event, log);
    if let Some(tunnel) = at.seen.and_then(Seen::tunnel) {
        line.put("tunnel", tunnel);
    }
    if event.would_have_blocked {
        line.put("would_have_blocked", true);
    }
    line.put_some("app_proto", event.app.map(app_proto));
    line.put_some("direction", event.direction.map(Direction::name));
    if log.alert.app_layer
        && let (Some(app), Some(record)) = (event.app, &event.record)
    {
        objects(&mut line, app, record, log);
    }
    if log.alert.flow_record
        && let Some(start) = event.flow_start
    {
        let (client, server) = match event.direction {
            Some(Direction::ToClient) => (event.key.dst, event.key.src),
            Some(Direction::ToServer) | None => (event.key.src, event.key.dst),
        };
        let mut flow = Object::new();
        flow.insert("pkts_toserver".into(), json!(event.to_server.packets));
        flow.insert("pkts_toclient".into(), json!(event.to_client.packets));
        flow.insert("bytes_toserver".into(), json!(event.to_server.bytes));
        flow.insert("bytes_toclient".into(), json!(event.to_client.bytes));
        flow.insert("start".into(), json!(start.to_string()));
        flow_ends(&mut flow, client, server, event.key.proto);
        line.put("flow", flow);
    }
    if log.alert.verdict {
        line.put("verdict", verdict(event, &at));
    }
    if let Some(seen) = at.seen.filter(|_| !event.stream) {
        if log.alert.payload {
            line.put("payload", base64::encode(&seen.payload));
        }
        if log.alert.payload_printable {
            line.put("payload_printable", printable(&seen.payload));
        }
        if log.alert.payload_length {
            line.put("payload_length", seen.payload.len());
        }
    }
    if log.alert.packet
        && let Some(frame) = at.frame
    {
        line.put("packet", base64::encode(frame));
        if let Some((number, name)) = at.link.map(link_type) {
            line.put("packet_info", json!({ "linktype": number, "linktype_name": name }));
        }
    }
    line.put("stream", u8::from(event.stream));
    line.object()
}

/// What became of the packet.
fn verdict(event: &AlertEvent, at: &At<'_>) -> Value {
    match at.verdict {
        _ if event.passed => json!({ "action": "pass" }),
        Some(Verdict::Reject(_)) => {
            let target = match event.rule.action {
                Action::RejectDestination => "to_server",
                Action::RejectBoth => "both",
                Action::RejectSource | Action::Alert | Action::Drop | Action::Pass | Action::Config => "to_client",
            };
            let how = if event.key.proto == 6 { "tcp-reset" } else { "icmp-prohib" };
            json!({ "action": "drop", "reject-target": target, "reject": [how] })
        }
        Some(Verdict::Drop(_) | Verdict::DropFlow(_)) => json!({ "action": "drop" }),
        Some(Verdict::Accept | Verdict::BypassDirection(_) | Verdict::BypassFlow(_)) | None => json!({ "action": "alert" }),
    }
}

/// What can be shown of bytes, a dot for the rest.
fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if matches!(byte, b' '..=b'~' | b'\r' | b'\n') { char::from(*byte) } else { '.' }).collect()
}

/// Number and name of a capture's link type.
const fn link_type(link: LinkType) -> (u32, &'static str) {
    match link {
        LinkType::Ethernet => (1, "ETHERNET"),
        LinkType::RawIp => (12, "RAW"),
        LinkType::LinuxCooked => (113, "LINUX_SLL"),
        LinkType::LinuxCooked2 => (276, "LINUX_SLL2"),
        LinkType::Null => (0, "NULL"),
        LinkType::Loop => (108, "LOOP"),
        LinkType::Ppp => (9, "PPP"),
    }
}

fn flow_ends(flow: &mut Object, client: Endpoint, server: Endpoint, proto: u8) {
    flow.insert("src_ip".into(), json!(address(client.addr)));
    flow.insert("dest_ip".into(), json!(address(server.addr)));
    if matches!(proto, 6 | 17 | 132) {
        flow.insert("src_port".into(), json!(client.port));
        flow.insert("dest_port".into(), json!(server.port));
    }
}

fn rule(rule: &RuleInfo, blocked: bool, at: &At<'_>, log: &EveLog) -> Value {
    let mut alert = Object::new();
    alert.insert("action".into(), json!(if blocked { "blocked" } else { "allowed" }));
    alert.insert("gid".into(), json!(rule.gid));
    alert.insert("signature_id".into(), json!(rule.sid));
    alert.insert("rev".into(), json!(rule.rev));
    alert.insert("signature".into(), json!(rule.msg));
    alert.insert("category".into(), json!(&*rule.category));
    alert.insert("severity".into(), json!(rule.priority));
    if log.alert.rule_metadata && !rule.metadata.is_empty() {
        let mut metadata = Object::new();
        for (key, value) in rule.metadata.iter() {
            if let Value::Array(values) = metadata.entry(key.to_owned()).or_insert_with(|| json!([])) {
                values.push(json!(value));
            }
        }
        alert.insert("metadata".into(), Value::Object(metadata));
    }
    if log.alert.rule_reference && !rule.references.is_empty() {
        let all: Vec<String> = rule
            .references
            .iter()
            .map(|(system, value)| at.references.address(system, value).unwrap_or_else(|| format!("{system}{value}")))
            .collect();
        alert.insert("references".into(), json!(all));
    }
    Value::Object(alert)
}

/// Puts the objects of a transaction's record beside.
fn objects(line: &mut Line, protocol: Protocol, found: &Record, log: &EveLog) {
    if let Some(Entry { objects, .. }) = record::entry(protocol, found, &log.record) {
        for (name, object) in objects {
            line.put(name, object);
        }
    }
}

/// `None`: nothing is logged of it.
pub fn transaction(event: &TransactionEvent, at: At<'_>, log: &EveLog) -> Option<Value> {
    let Entry { event_type, objects } = record::entry(event.protocol, &event.record, &log.record)?;
    // What switches these on is named after the protocol, not after the event.
    let logger = match event.protocol {
        Protocol::Http2 | Protocol::Doh2 => event.protocol.name(),
        _ => event_type,
    };
    if !log.takes(logger) {
        return None;
    }
    let mut line = Line::new(event.at, event_type);
    let mut key = event.key;
    // Of a message of its own, the line's ends are the packet's.
    if event.direction == Some(Direction::ToClient) && of_packet(event.protocol, log) {
        std::mem::swap(&mut key.src, &mut key.dst);
    }
    line.place(&key, &at, log);
    line.put("tx_id", event.id);
    for (name, object) in objects {
        line.put(name, object);
    }
    Some(line.object())
}

/// A file is over. `src` sent it.
pub fn file(event: &FileEvent, at: At<'_>, log: &EveLog) -> Value {
    let FileEvent { file, record, protocol, .. } = event;
    let mut line = Line::new(event.at, "fileinfo");
    let key = match event.dir {
        Dir::ToServer => event.key,
        Dir::ToClient => FlowKey { src: event.key.dst, dst: event.key.src, ..event.key },
    };
    line.place(&key, &at, log);
    if let Some(record) = record.as_deref() {
        objects(&mut line, *protocol, record, log);
    }
    line.put("app_proto", app_proto(*protocol));
    let mut info = Object::new();
    let name = file.name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    info.insert("filename".into(), json!(name));
    if let Some(magic) = &file.magic {
        info.insert("magic".into(), json!(magic));
    }
    info.insert("gaps".into(), json!(file.gaps));
    info.insert("state".into(), json!(if file.truncated { "TRUNCATED" } else { "CLOSED" }));
    let hash = |hash: Option<&[u8]>| hash.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let (md5, sha1, sha256) = (file.md5.as_ref(), file.sha1.as_ref(), file.sha256.as_ref());
    let hashes =
        [("md5", md5.map(<[u8; 16]>::as_slice)), ("sha1", sha1.map(<[u8; 20]>::as_slice)), ("sha256", sha256.map(<[u8; 32]>::as_slice))];
    for (name, found) in hashes {
        if let Some(text) = hash(found) {
            info.insert(name.into(), json!(text));
        }
    }
    let range = record.as_deref().filter(|_| event.dir == Dir::ToClient).and_then(record::content_range);
    for name in ["start", "end"] {
        if let Some(number) = range.as_ref().and_then(|range| range.get(name)) {
            info.insert(name.into(), number.clone());
        }
    }
    info.insert("stored".into(), json!(event.stored));
    info.insert("size".into(), json!(file.size));
    info.insert("tx_id".into(), json!(event.tx));
    line.put("fileinfo", info);
    line.object()
}

/// Whose lines have the packet's ends, not the flow's.
const fn of_packet(protocol: Protocol, log: &EveLog) -> bool {
    matches!(protocol, Protocol::BittorrentDht) || matches!(protocol, Protocol::Dns) && log.record.dns.version != 2
}

pub fn dropped(event: &DropEvent, at: At<'_>, log: &EveLog) -> Value {
    let mut line = Line::new(event.at, "drop");
    line.place(&event.key, &at, log);
    line.put_some("direction", event.direction.map(Direction::name));
    let mut drop = at.seen.map(|seen| seen.headers(event.len)).unwrap_or_default();
    drop.insert("reason".into(), json!(if event.by_rate_filter { "threshold detection_filter" } else { drop_reason(event.reason) }));
    line.put("drop", drop);
    if let Some(found) = event.rule.as_deref().filter(|_| log.drop.alerts) {
        line.put("alert", rule(found, true, &at, log));
    }
    if log.drop.verdict {
        line.put("verdict", json!({ "action": "drop" }));
    }
    line.object()
}

/// As Suricata's `packet drop reason`.
fn drop_reason(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Rule => "rules",
        DropReason::Flow => "flow drop",
        DropReason::Malformed => "decode error",
        DropReason::StreamConflict => "stream error",
        DropReason::Unverifiable => "stream midstream",
        DropReason::Cap => "stream memcap",
        DropReason::Segment | DropReason::FailClosed | DropReason::UnknownInterface => "default packet policy",
    }
}

pub fn anomaly(event: &AnomalyEvent, at: At<'_>, log: &EveLog) -> Option<Value> {
    let (kind, name) = match event.what {
        Anomaly::Decode(what) if log.anomaly.decode => ("decode", format!("decoder.{}", what.name())),
        Anomaly::Stream(name) if log.anomaly.stream => ("stream", format!("stream.{name}")),
        Anomaly::Decode(_) | Anomaly::Stream(_) => return None,
    };
    let mut line = Line::new(event.at, "anomaly");
    match &event.key {
        Some(key) => line.place(key, &at, log),
        None => line.put_some("pcap_cnt", at.number),
    }
    line.put("anomaly", json!({ "type": kind, "event": name }));
    Some(line.object())
}

/// What a parser found wrong.
pub fn of_transaction(event: &TransactionEvent, name: &str, dir: Dir, at: At<'_>, log: &EveLog) -> Option<Value> {
    if !log.anomaly.applayer {
        return None;
    }
    let mut key = event.key;
    if dir == Dir::ToClient {
        std::mem::swap(&mut key.src, &mut key.dst);
    }
    let mut line = Line::new(event.at, "anomaly");
    line.place(&key, &at, log);
    line.put("tx_id", event.id);
    line.put("anomaly", app_anomaly(event.protocol, name));
    Some(line.object())
}

/// Parsers that the reference engine has in C shout.
fn app_anomaly(protocol: Protocol, name: &str) -> Value {
    let plain = name.split_once('.').map_or(name, |(_, name)| name);
    let shouts = matches!(protocol, Protocol::Http | Protocol::Smtp | Protocol::Tls);
    let event = if shouts { plain.to_ascii_uppercase() } else { plain.to_owned() };
    json!({ "app_proto": app_proto(protocol), "type": "applayer", "event": event, "layer": "proto_parser" })
}

pub fn flow(event: &FlowEndEvent, macs: Option<&[Vec<String>; 2]>, log: &EveLog) -> Value {
    let mut line = Line::new(event.at, "flow");
    line.put("flow_id", event.key.id);
    line.ends(&event.key, log);
    let failed = event.transactions.map(|_| "failed");
    line.put_some("app_proto", event.app.map(app_proto).or(failed));
    line.put_some("app_proto_orig", event.app_original.map(app_proto));
    let mut flow = Object::new();
    flow.insert("pkts_toserver".into(), json!(event.to_server.packets));
    flow.insert("pkts_toclient".into(), json!(event.to_client.packets));
    flow.insert("bytes_toserver".into(), json!(event.to_server.bytes));
    flow.insert("bytes_toclient".into(), json!(event.to_client.bytes));
    flow.insert("start".into(), json!(event.start.to_string()));
    flow.insert("end".into(), json!(event.last.to_string()));
    flow.insert("age".into(), json!(event.last.secs().saturating_sub(event.start.secs())));
    let state = match event.bypassed {
        Some(_) if !event.passed || event.midstream == Some(Midstream::Bypass) => "bypassed",
        _ if event.key.proto == 6 => event.trace.tcp.flow_state(),
        _ => event.state,
    };
    flow.insert("state".into(), json!(state));
    flow.insert("reason".into(), json!(event.why.name()));
    flow.insert("alerted".into(), json!(event.alerted));
    if event.dropped {
        flow.insert("action".into(), json!("drop"));
    } else if event.passed {
        flow.insert("action".into(), json!("pass"));
    }
    if let Some(policy) = event.midstream {
        flow.insert("exception_policy".into(), json!([{ "target": "stream_midstream", "policy": policy.name() }]));
    }
    if let Some(count) = event.transactions {
        flow.insert("tx_cnt".into(), json!(count));
    }
    line.put("flow", flow);
    if event.key.proto == 6 {
        line.put("tcp", tcp(&event.trace));
    }
    for (dir, names) in [(0, ("icmp_type", "icmp_code")), (1, ("response_icmp_type", "response_icmp_code"))] {
        if let Some((kind, code)) = event.trace.icmp[dir] {
            line.put(names.0, kind);
            line.put(names.1, code);
        }
    }
    crate::packet::put_vlan(&mut line.fields, event.vlan);
    if let Some([sources, destinations]) = macs.filter(|_| log.ethernet) {
        line.put("ether", json!({ "src_macs": sources, "dest_macs": destinations }));
    }
    line.object()
}

/// Flags of both directions together, of each alone, and the state.
fn tcp(trace: &Trace) -> Object {
    let [to_server, to_client] = trace.tcp_flags;
    let all = to_server | to_client;
    let mut tcp = Object::new();
    for (name, flags) in [("tcp_flags", all), ("tcp_flags_ts", to_server), ("tcp_flags_tc", to_client)] {
        tcp.insert(name.to_owned(), json!(format!("{flags:02x}")));
    }
    for (bit, name) in ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"].into_iter().enumerate() {
        if all & (1 << bit) != 0 {
            tcp.insert(name.to_owned(), json!(true));
        }
    }
    tcp.insert("state".to_owned(), json!(trace.tcp.name()));
    // A stream is kept in one piece here.
    for name in ["ts_max_regions", "tc_max_regions"] {
        tcp.insert(name.to_owned(), json!(u8::from(all != 0)));
    }
    tcp
}

/// As EVE writes it: IPv6 in full.
pub fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join(":"),
    }
}

/// As EVE writes it.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        58 => "IPv6-ICMP".to_owned(),
        132 => "SCTP".to_owned(),
        2 => "IGMP".to_owned(),
        4 => "IP-in-IP".to_owned(),
        41 => "IPv6".to_owned(),
        51 => "AH".to_owned(),
        89 => "OSPFIGP".to_owned(),
        103 => "PIM".to_owned(),
        other => format!("{other:03}"),
    }
}

/// As EVE writes it.
pub fn app_proto(protocol: Protocol) -> &'static str {
    protocol.name()
}
