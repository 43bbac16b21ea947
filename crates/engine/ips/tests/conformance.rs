//! suricata-verify, as far as its rules and checks use what is built: the alerts must be those the suite expects.
//! `conformance.expected` names the cases that pass. One of them failing fails the test, and so does another one
//! passing, so that the list stays true. `BLESS=1 cargo test` writes it anew.

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bulkhead_ips::{Checksums, DropScope, EngineEvent, OnFailure, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source};
use bulkhead_model::Timestamp;
use bulkhead_rules::{Classification, Variables};
use kit::capture::Frame;

/// One check on `alert` events: how many lines of `eve.json` have these values.
#[derive(Debug)]
struct Check {
    count: usize,
    matches: BTreeMap<String, String>,
}

enum Result {
    /// Why the case cannot be run.
    NotOurs,
    Pass,
    Fail(String),
}

#[test]
fn suricata_verify_agrees_on_the_cases_listed() {
    let Some(root) = kit::data("suricata-verify") else {
        println!("NOT RUN: suricata_verify_agrees_on_the_cases_listed (../shared/data/suricata-verify is absent)");
        return;
    };
    let table = std::fs::read_to_string(root.join("cases.tsv")).unwrap();
    let (mut passing, mut failing, mut not_ours) = (BTreeSet::new(), BTreeMap::new(), 0);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        if !matches!(fields[2], "peer-alert" | "peer-ips") || fields[3].is_empty() || fields[4].is_empty() {
            continue;
        }
        match run(&root.join("tests"), &fields) {
            Result::NotOurs => not_ours += 1,
            Result::Pass => _ = passing.insert(fields[0].to_owned()),
            Result::Fail(why) => _ = failing.insert(fields[0].to_owned(), why),
        }
    }
    for (name, why) in &failing {
        println!("fails: {name}: {why}");
    }
    println!("suricata-verify: {} pass, {} fail, {not_ours} need more than is built", passing.len(), failing.len());
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.expected");
    if std::env::var_os("BLESS").is_some() {
        let text: String = passing.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&list, text).unwrap();
    }
    let expected: BTreeSet<String> = std::fs::read_to_string(&list).unwrap().lines().map(str::to_owned).collect();
    let lost: Vec<_> = expected.difference(&passing).collect();
    let gained: Vec<_> = passing.difference(&expected).collect();
    assert!(lost.is_empty(), "listed and not passing: {lost:?}");
    assert!(gained.is_empty(), "passing and not listed: {gained:?}");
}

fn run(tests: &Path, fields: &[&str]) -> Result {
    let folder = tests.join(fields[0]);
    let arguments = fields[20];
    let mut config = PipelineConfig {
        drop_scope: DropScope::Matched,
        on_cap: OnFailure::Pass,
        on_unverifiable: OnFailure::Pass,
        bypass_no_rule: false,
        bypass_encrypted: false,
        ..PipelineConfig::default()
    };
    config.stream.midstream = false;
    config.stream.acks_seen = true;
    config.app.body_tails = true;
    let mut inline = false;
    let mut rest = arguments.to_owned();
    for (argument, effect) in [
        ("-k none", 1),
        ("--simulate-ips", 2),
        ("--runmode=single", 0),
        ("--set stream.midstream=true", 3),
        ("--set stream.inline=true", 0),
    ] {
        if rest.contains(argument) {
            rest = rest.replace(argument, "");
            match effect {
                1 => config.checksum = Checksums::Ignore,
                2 => inline = true,
                3 => config.stream.midstream = true,
                _ => {}
            }
        }
    }
    if !rest.trim().is_empty() {
        return Result::NotOurs;
    }
    let mut variables = suricata_variables();
    if let Ok(yaml) = std::fs::read_to_string(folder.join("suricata.yaml"))
        && !plain_yaml(&yaml, &mut variables, &mut config)
    {
        return Result::NotOurs;
    }
    if folder.join("threshold.config").exists() {
        return Result::NotOurs;
    }
    let Ok(rules) = std::fs::read(tests.join(fields[4])) else { return Result::NotOurs };
    let file = bulkhead_rules::parse(&String::from_utf8_lossy(&rules));
    if file.counts.unsupported + file.counts.wrong > 0 || file.rules.is_empty() {
        return Result::NotOurs;
    }
    let compiled = Ruleset::compile(&[Source { name: fields[4], rules: &file.rules }], &variables, &Classification::builtin());
    if compiled.diagnostics.iter().any(|(_, found)| found.severity != bulkhead_rules::Severity::Warning) {
        return Result::NotOurs;
    }
    let Ok(yaml) = std::fs::read_to_string(folder.join("test.yaml")) else { return Result::NotOurs };
    let Some(checks) = alert_checks(&yaml) else { return Result::NotOurs };
    if checks.is_empty() {
        return Result::NotOurs;
    }
    let Some(records) = kit::capture::read(&tests.join(fields[3])) else { return Result::NotOurs };
    // Suricata's `checksum-checks: auto` for captures: with this many wrong ones they were taken before they were filled in.
    if config.checksum == Checksums::Verify && !arguments.contains("-k") && mostly_wrong(&records) {
        config.checksum = Checksums::Ignore;
    }
    let alerts = replay(config, compiled.ruleset, &records, inline);
    for check in &checks {
        let found = alerts.iter().filter(|alert| check.matches.iter().all(|(key, value)| alert.get(key) == Some(value))).count();
        if found != check.count {
            return Result::Fail(format!("{:?}: {found} instead of {}", check.matches, check.count));
        }
    }
    Result::Pass
}

/// More than a tenth of the checksums are wrong.
fn mostly_wrong(records: &[Frame]) -> bool {
    let mut decoder = bulkhead_net::decode::Decoder::default();
    let wrong = records.iter().filter(|frame| {
        let Some(link) = frame.link else { return false };
        let meta = bulkhead_net::decode::FrameMeta { link, checksum: bulkhead_ips::ChecksumState::Unknown, gso: false };
        matches!(decoder.frame(meta, &frame.bytes), bulkhead_net::decode::Decoded::Packet(packet) if packet.checksum_invalid())
    });
    wrong.count() * 10 > records.len()
}

/// Alerts as flat EVE records.
fn replay(config: PipelineConfig, rules: std::sync::Arc<Ruleset>, records: &[Frame], inline: bool) -> Vec<BTreeMap<String, String>> {
    let mut pipeline = Pipeline::new(config, rules, 1);
    let mut alerts = Vec::new();
    let mut clock = Timestamp::default();
    for (number, frame) in records.iter().enumerate() {
        let Some(link) = frame.link else { continue };
        clock = clock.max(frame.at);
        pipeline.expire(frame.at, 64);
        pipeline.packet(frame.at, &PacketMeta::captured(link, frame.len_on_wire, inline), &frame.bytes, &mut ());
        for event in pipeline.drain_events() {
            let EngineEvent::Alert(alert) = event else { continue };
            let mut record = BTreeMap::new();
            let mut put = |key: &str, value: String| _ = record.insert(key.to_owned(), value);
            put("event_type", "alert".into());
            put("alert.signature_id", alert.rule.sid.to_string());
            put("alert.gid", alert.rule.gid.to_string());
            put("alert.rev", alert.rule.rev.to_string());
            put("alert.signature", alert.rule.msg.clone());
            put("alert.severity", alert.rule.priority.to_string());
            put("alert.action", if alert.rule.action.blocks() && inline { "blocked" } else { "allowed" }.into());
            put("pcap_cnt", (number + 1).to_string());
            put("src_ip", alert.key.src.addr.to_string());
            put("dest_ip", alert.key.dst.addr.to_string());
            if matches!(alert.key.proto, 6 | 17 | 132) {
                put("src_port", alert.key.src.port.to_string());
                put("dest_port", alert.key.dst.port.to_string());
            }
            let proto = match alert.key.proto {
                1 => "ICMP".to_owned(),
                6 => "TCP".to_owned(),
                17 => "UDP".to_owned(),
                58 => "IPv6-ICMP".to_owned(),
                132 => "SCTP".to_owned(),
                other => other.to_string(),
            };
            put("proto", proto);
            alerts.push(record);
        }
    }
    alerts
}

const KEYS: &[&str] = &[
    "event_type",
    "alert.signature_id",
    "alert.gid",
    "alert.rev",
    "alert.signature",
    "alert.severity",
    "alert.action",
    "pcap_cnt",
    "src_ip",
    "dest_ip",
    "src_port",
    "dest_port",
    "proto",
];

/// The checks on alerts, or nothing when one of them asks for what is not there. Reads the suite's own regular shape.
fn alert_checks(yaml: &str) -> Option<Vec<Check>> {
    let mut checks = Vec::new();
    let mut in_checks = false;
    let mut current: Option<(Option<usize>, BTreeMap<String, String>, bool)> = None;
    let mut in_match = false;
    let mut finish = |current: Option<(Option<usize>, BTreeMap<String, String>, bool)>| -> Option<()> {
        let Some((count, matches, conditional)) = current else { return Some(()) };
        if matches.get("event_type").is_some_and(|kind| kind == "alert") {
            if conditional || matches.keys().any(|key| !KEYS.contains(&key.as_str())) {
                return None;
            }
            checks.push(Check { count: count?, matches });
        }
        Some(())
    };
    for line in yaml.lines() {
        let line = line.split(" #").next().unwrap_or("");
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '-']) {
            in_checks = text == "checks:";
            if text.starts_with("requires") || text.starts_with("pcap") || text.starts_with("args") || in_checks {
                continue;
            }
            if text.starts_with("count") || text.starts_with("command") || text.starts_with("setup") {
                return None;
            }
            continue;
        }
        if !in_checks {
            if text.starts_with("lt-version") {
                return None;
            }
            continue;
        }
        if let Some(kind) = text.strip_prefix("- ") {
            finish(current.take())?;
            in_match = false;
            if kind.starts_with("filter") {
                current = Some((None, BTreeMap::new(), false));
            }
            continue;
        }
        let Some((count, matches, conditional)) = &mut current else { continue };
        let (key, value) = text.split_once(':')?;
        let value = value.trim().trim_matches(['"', '\'']);
        match key.trim() {
            "count" if !in_match => *count = value.parse().ok(),
            "match" => in_match = true,
            "requires" | "filename" | "min-version" | "lt-version" | "version" if !in_match => *conditional = true,
            key if in_match => _ = matches.insert(key.to_owned(), value.to_owned()),
            _ => {}
        }
    }
    finish(current)?;
    Some(checks)
}

/// The values of Suricata's own configuration file.
fn suricata_variables() -> Variables {
    let mut variables = Variables::default();
    variables.addresses.insert("HOME_NET".into(), "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]".into());
    variables
}

/// Whether a case's `suricata.yaml` sets nothing but outputs, variables and what is understood here.
fn plain_yaml(yaml: &str, variables: &mut Variables, config: &mut PipelineConfig) -> bool {
    let mut section = "";
    for line in yaml.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', '%', '-']) && !line.starts_with(' ') {
            continue;
        }
        if !line.starts_with([' ', '-']) {
            section = text.split(':').next().unwrap_or("");
            if !matches!(
                section,
                "outputs"
                    | "vars"
                    | "stats"
                    | "app-layer"
                    | "stream"
                    | "logging"
                    | "default-log-dir"
                    | "flow"
                    | "pcap-file"
                    | "threading"
                    | "rule-files"
                    | "classification-file"
                    | "reference-config-file"
                    | "default-rule-path"
                    | "plugins"
            ) {
                return false;
            }
            continue;
        }
        let (key, value) = text.split_once(':').map(|(key, value)| (key.trim(), value.trim().trim_matches('"'))).unwrap_or((text, ""));
        match (section, key) {
            ("vars", "address-groups" | "port-groups") => {}
            ("vars", name) if name.ends_with("_PORTS") => _ = variables.ports.insert(name.into(), value.into()),
            ("vars", name) if !value.is_empty() && !name.starts_with('#') => _ = variables.addresses.insert(name.into(), value.into()),
            ("stream", "midstream") => config.stream.midstream = matches!(value, "true" | "yes"),
            ("stream", "checksum-validation") if value == "no" => config.checksum = Checksums::Ignore,
            ("stream", "checksum-validation" | "memcap" | "inline" | "reassembly") => {}
            ("stream" | "flow", key) if !key.starts_with('#') => return false,
            _ => {}
        }
    }
    true
}
