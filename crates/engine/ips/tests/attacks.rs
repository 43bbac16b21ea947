//! How much of others' collections of attacks the rules of the repository stop, and how little of what is benign.
//! `cargo test -p bulkhead-ips --test attacks -- --nocapture` prints the figures of `docs/builtin-rules.md`; with `LIST=1`
//! also each request that was judged otherwise than its collection says.

mod kit;
#[path = "kit/builtin.rs"]
#[allow(dead_code)] // Fixtures are another test's.
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_ips::{Checksums, EngineEvent, OnFailure, PacketMeta, Pipeline, PipelineConfig, Ruleset};
use bulkhead_model::Verdict;
use kit::{Bench, Connection};
use serde_json::Value;

/// One request as it is sent, and what its collection says of it.
struct Request {
    name: String,
    class: String,
    attack: bool,
    /// Benign by its label, and an attack by that of another.
    set_aside: bool,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Score {
    seen: usize,
    blocked: usize,
}

impl Score {
    fn percent(&self) -> f64 {
        100.0 * self.blocked as f64 / self.seen.max(1) as f64
    }
}

/// In segments as a sender would cut it, on a connection of its own.
fn is_blocked(rules: &Arc<Ruleset>, request: &[u8]) -> (bool, Vec<u32>) {
    const SEGMENT_BYTES: usize = 1400;
    let mut bench = Bench::running(PipelineConfig::default(), rules.clone());
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    let mut blocked = false;
    for segment in request.chunks(SEGMENT_BYTES) {
        blocked |= connection.request(&mut bench, segment).verdict != Verdict::Accept;
    }
    bench.pipeline.finish(bench.now);
    bench.events.extend(bench.pipeline.drain_events());
    (blocked, bench.sids())
}

/// What requests of the benign ones hold word for word that the same collection calls an attack elsewhere: many of them are there
/// to show that one rule leaves to another what is the other's.
fn attacks_by_another_name(requests: &mut [Request]) -> usize {
    const VALUE_BYTES_MIN: usize = 8;
    // Address and body: fields are the same in most.
    let parts = |request: &Request| {
        let target = request.bytes.split(|byte| *byte == b' ').nth(1).unwrap_or_default().to_vec();
        let body = request.bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(&[][..], |at| &request.bytes[at + 4..]).to_vec();
        (target, body)
    };
    let values = |request: &Request| -> Vec<Vec<u8>> {
        let (target, body) = parts(request);
        let query = target.iter().position(|byte| *byte == b'?').map_or(&[][..], |at| &target[at + 1..]);
        let pairs = query.split(|byte| *byte == b'&').chain(body.split(|byte| *byte == b'&'));
        let of = |pair: &[u8]| url_decoded(&pair[pair.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1)..]);
        pairs.map(|pair| of(pair).trim_ascii().to_ascii_lowercase()).filter(|value| value.len() >= VALUE_BYTES_MIN).collect()
    };
    // What is an attack by its header or form alone says nothing of values.
    let of_values = |request: &&Request| request.attack && matches!(&request.class[..2], "93" | "94");
    let all: BTreeSet<Vec<u8>> = requests.iter().filter(of_values).flat_map(values).collect();
    let finders: Vec<memchr::memmem::Finder<'_>> = all.iter().map(memchr::memmem::Finder::new).collect();
    let mut set_aside = 0;
    for request in requests.iter_mut().filter(|request| !request.attack) {
        let (target, body) = parts(request);
        let text = url_decoded(&url_decoded(&[target, b" ".to_vec(), body].concat())).to_ascii_lowercase();
        if finders.iter().any(|finder| finder.find(&text).is_some()) {
            request.set_aside = true;
            set_aside += 1;
        }
    }
    set_aside
}

fn url_decoded(bytes: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [a, b, ..]) if hex(*a).is_some() && hex(*b).is_some() => {
                out.push(hex(*a).unwrap_or(0) << 4 | hex(*b).unwrap_or(0));
                rest = &after[2..];
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*byte),
        }
    }
    out
}

/// Plays all and gives the scores of attacks, of what is benign by its label, and of that without what is set aside.
fn play(collection: &str, requests: &[Request]) -> [Score; 3] {
    let rules = rules::ruleset();
    let mut classes: BTreeMap<(bool, &str), Score> = BTreeMap::new();
    let mut clean = Score::default();
    for request in requests {
        let (blocked, sids) = is_blocked(&rules, &request.bytes);
        let score = classes.entry((request.attack, &request.class)).or_default();
        score.seen += 1;
        score.blocked += usize::from(blocked);
        if !request.attack && !request.set_aside {
            clean.seen += 1;
            clean.blocked += usize::from(blocked);
        }
        if blocked != request.attack && std::env::var_os("LIST").is_some() {
            let what = if request.attack { "missed" } else { "blocked" };
            println!("{what} {} {sids:?} {}", request.name, request.bytes.escape_ascii());
        }
    }
    let mut totals = [Score::default(), Score::default()];
    for ((attack, class), score) in &classes {
        println!("{collection} {} {class}: {} of {}", if *attack { "attacks" } else { "benign" }, score.blocked, score.seen);
        totals[usize::from(!attack)].seen += score.seen;
        totals[usize::from(!attack)].blocked += score.blocked;
    }
    let [attacks, benign] = totals;
    println!("{collection}: {} of {} attacks ({:.1} %)", attacks.blocked, attacks.seen, attacks.percent());
    println!("{collection}: {} of {} benign ({:.2} %)", benign.blocked, benign.seen, benign.percent());
    println!("{collection}: {} of {} benign that hold no attack of another's ({:.2} %)", clean.blocked, clean.seen, clean.percent());
    [attacks, benign, clean]
}

fn crs(line: &str) -> Option<Request> {
    let row: Value = serde_json::from_str(line).ok()?;
    let ids = |name: &str| row[name].as_array().is_some_and(|ids| !ids.is_empty());
    let (attack, benign) = (ids("expect_ids"), ids("no_expect_ids"));
    // What a server only has to answer with an error is neither.
    if attack == benign {
        return None;
    }
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let bytes = match row["encoded_request_b64"].as_str() {
        Some(encoded) => base64(encoded),
        None => {
            let mut head = format!("{} {} {}\r\n", text("method"), text("uri"), text("version"));
            let mut length = false;
            for (name, value) in row["headers"].as_object()? {
                length |= name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                head += &format!("{name}: {value}\r\n");
            }
            let body = &repeated(text("data"));
            if !length && !body.is_empty() {
                head += &format!("Content-Length: {}\r\n", body.len());
            }
            format!("{head}\r\n{body}").into_bytes()
        }
    };
    let id = row["rule_id"].to_string();
    Some(Request { name: format!("{id}-{}", row["test_id"]), class: id[..3].to_owned(), attack, set_aside: false, bytes })
}

/// `{{ "x" | repeat 9 }}`: the collection's own shorthand.
fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{{ \"") else { return text.to_owned() };
    let parts = rest.split_once("\" | repeat ").and_then(|(what, rest)| Some((what, rest.split_once(" }}")?)));
    match parts.and_then(|(what, (times, after))| Some((what.repeat(times.parse().ok()?), after))) {
        Some((what, after)) => format!("{before}{what}{}", repeated(after)),
        None => text.to_owned(),
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|of| *of == byte);
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(digit) {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// The requests of one template, in order: whole ones behind `raw:`, or a method, paths, fields and a body.
fn template(name: &str, yaml: &str) -> Vec<Request> {
    let lines: Vec<&str> = yaml.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let block = |at: usize| -> String {
        let end = lines[at + 1..].iter().position(|line| !line.trim().is_empty() && indent(line) <= indent(lines[at]));
        let body = &lines[at + 1..end.map_or(lines.len(), |end| at + 1 + end)];
        let left = body.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min().unwrap_or(0);
        body.iter().map(|line| line.get(left..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    };
    let mut texts = Vec::new();
    let (mut method, mut paths, mut fields, mut body, mut section) = ("GET".to_owned(), Vec::new(), String::new(), String::new(), "");
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim();
        let quoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        match text.trim_start_matches("- ").split_once(':') {
            _ if text == "- |" => texts.push(block(at)),
            Some(("raw" | "path" | "headers" | "matchers", "" | " ")) => {
                section = text.trim_start_matches("- ").split(':').next().unwrap_or("")
            }
            Some(("method", value)) => method = quoted(value),
            Some(("body", value)) => {
                body = if value.trim() == "|" { block(at) } else { quoted(value) };
                section = "body";
            }
            _ if section == "path" && text.starts_with("- ") => {
                paths.push(quoted(&text[2..]).replace("{{BaseURL}}", "").replace("{{RootURL}}", ""))
            }
            Some((name, value)) if section == "headers" && !name.contains(' ') => fields += &format!("{name}: {}\n", quoted(value)),
            _ => {}
        }
    }
    texts.extend(paths.iter().map(|path| format!("{method} {path} HTTP/1.1\nHost: {{{{Hostname}}}}\n{fields}\n{body}")));
    // `status_code_2 == 403`: what each has to be answered with. Without a number: all of them.
    let codes: Vec<String> = (1..=texts.len()).map(|number| format!("status_code_{number} == ")).collect();
    let attack = |number: usize| match yaml.split_once(&codes[number]) {
        Some((_, code)) => code.starts_with("403"),
        None => !yaml.contains("status_code_"),
    };
    let request = |(number, text): (usize, String)| {
        let text =
            text.replace("{{Hostname}}", "app.example").replace("{{Host}}", "app.example").replace("{{interactsh-url}}", "out.example");
        let lines: Vec<&str> = text.lines().skip_while(|line| line.starts_with('@')).collect();
        let text = lines.join("\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let body = body.trim_end_matches('\n').replace('\n', "\r\n");
        let mut out = String::new();
        for line in head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:")) {
            out += &format!("{line}\r\n");
        }
        if !body.is_empty() {
            out += &format!("Content-Length: {}\r\n", body.len());
        }
        let bytes = format!("{out}\r\n{body}").into_bytes();
        Request { name: format!("{name}-{}", number + 1), class: "all".to_owned(), attack: attack(number), set_aside: false, bytes }
    };
    texts.into_iter().enumerate().map(request).collect()
}

fn templates(folder: &Path) -> Vec<Request> {
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut requests = Vec::new();
    for folder in folders.iter().filter(|path| path.is_dir()) {
        for path in rules::files(folder, "yaml") {
            let yaml = std::fs::read_to_string(&path).unwrap();
            if yaml.contains("\nhttp:") {
                requests.extend(template(&folder.file_name().unwrap().to_string_lossy(), &yaml));
            }
        }
    }
    requests
}

#[test]
fn most_attacks_of_the_core_rule_set_are_stopped_and_hardly_anything_benign() {
    let Some(path) = kit::data("http/crs_tests.jsonl") else {
        println!("NOT RUN: most_attacks_of_the_core_rule_set_are_stopped_and_hardly_anything_benign (../shared/data/http is absent)");
        return;
    };
    let mut requests: Vec<Request> = std::fs::read_to_string(path).unwrap().lines().filter_map(crs).collect();
    let set_aside = attacks_by_another_name(&mut requests);
    println!("core rule set: {set_aside} benign requests hold what is an attack elsewhere in it");
    let [attacks, benign, clean] = play("core rule set", &requests);
    assert!(attacks.seen > 1900 && attacks.percent() >= 75.0, "{:.1} % of {}", attacks.percent(), attacks.seen);
    // The figures as they are (docs/builtin-rules.md): more would be a step back.
    assert!(benign.seen > 600 && benign.percent() <= 6.8, "{:.2} % of {}", benign.percent(), benign.seen);
    assert!(clean.seen > 500 && clean.percent() <= 2.2, "{:.2} % of {}", clean.percent(), clean.seen);
}

#[test]
fn nearly_all_requests_that_virtual_patches_stop_are_stopped() {
    let Some(path) = kit::data("crowdsec-vpatch/tests") else {
        println!("NOT RUN: nearly_all_requests_that_virtual_patches_stop_are_stopped (../shared/data/crowdsec-vpatch is absent)");
        return;
    };
    let [attacks, benign, _] = play("virtual patches", &templates(&path));
    assert!(attacks.seen > 150 && attacks.percent() >= 95.0, "{:.1} % of {}", attacks.percent(), attacks.seen);
    assert!(benign.blocked <= 2, "{} of {} benign", benign.blocked, benign.seen);
}

/// Captures that hold what the rules are there for.
const WITH_ATTACKS: &[(&str, &str)] = &[
    ("WebattackRCE.pcap", "a scanner of web flaws"),
    ("bad-dns-traffic.pcap", "a DNS tunnel"),
    ("docker-http-upgrade.pcap", "a container made through the engine's API"),
    ("http-inner-transfer-encoding-reproducer.pcap", "a request within a request"),
    ("log4j-webapp-exploit.pcap", "Log4Shell"),
    ("mining.pcapng", "a miner"),
    ("modbus-and-non-modbus-p502.pcap", "a scanner that names itself"),
    ("smuggle-http-request.pcap", "a request within a request"),
    ("sql_injection.pcap", "SQL injection"),
    ("synscan.pcap", "a port scan"),
    ("variant-02-cl_uint64max.pcap", "a request within a request"),
    ("xss.pcap", "cross-site scripting"),
];

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    const BYTES_MAX: u64 = 8 << 20;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            captures(&path, found);
        } else if entry.metadata().is_ok_and(|metadata| metadata.len() <= BYTES_MAX) {
            found.push(path);
        }
    }
}

#[test]
fn captures_of_everyday_traffic_raise_nothing() {
    let Some(root) = kit::data("pcaps") else {
        println!("NOT RUN: captures_of_everyday_traffic_raise_nothing (../shared/data/pcaps is absent)");
        return;
    };
    let rules = rules::ruleset();
    let mut paths = Vec::new();
    captures(&root, &mut paths);
    let (mut read, mut wrong) = (0, Vec::new());
    for path in paths {
        let Some(frames) = kit::capture::read(&path) else { continue };
        read += 1;
        let pass = OnFailure::Pass;
        let mut config = PipelineConfig { on_cap: pass, on_unverifiable: pass, checksum: Checksums::Ignore, ..PipelineConfig::default() };
        config.stream.midstream = true;
        let mut pipeline = Pipeline::new(config, rules.clone(), 1);
        let mut sids = BTreeSet::new();
        for frame in &frames {
            let Some(link) = frame.link else { continue };
            pipeline.packet(frame.at, &PacketMeta::captured(link, frame.len_on_wire, false), &frame.bytes, &mut ());
        }
        pipeline.finish(frames.last().map_or_else(Default::default, |frame| frame.at));
        for event in pipeline.drain_events() {
            if let EngineEvent::Alert(alert) = event {
                sids.insert(alert.rule.sid);
            }
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !sids.is_empty() && !WITH_ATTACKS.iter().any(|(known, _)| *known == name) {
            wrong.push(format!("{name}: {sids:?}"));
        }
    }
    println!("{read} captures, {} raise something although they should not", wrong.len());
    assert!(read > 1000 && wrong.is_empty(), "{}", wrong.join("\n"));
}
