//! Captures through the engine, with Suricata's settings in and its log out: `bulkhead replay` and the conformance run are this.
//!
//! ```text
//! settings ─ PipelineConfig, variables, logs
//! rules, thresholds, classes ─ Ruleset
//! packets ─ Pipeline ─ events ─ lines, by log
//! ```
//! No clock: the capture's own counts. The same input gives the same output.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bulkhead_applayer::{Protocol, Transport as Carrier};
use bulkhead_ips::{
    ActionOrder, Checksums, DropEvent, DropScope, Endpoint, EngineEvent, FileWants, Midstream, OnFailure, PacketMeta, Pipeline,
    PipelineConfig, Reputation, Resources, Ruleset, Source,
};
use bulkhead_model::{Timestamp, Verdict};
use bulkhead_net::decode::{ChecksumState, Decoded, Decoder, FrameMeta, Transport};
use bulkhead_net::stream::UrgentPolicy;
use bulkhead_rules::reference::References;
use bulkhead_rules::tree::{DatasetKind, DatasetSource};
use bulkhead_rules::{Beside, Diagnostic, Library, Rule, Severity, Variables};
use serde_json::Value;

use crate::capture::Packet;
use crate::line::{self, At, Line};
use crate::log::EveLog;
use crate::packet::Seen;
use crate::settings::{Files, Settings};
use crate::stats;

/// The same capture and rules give the same output.
const SEED: u64 = 1;
/// Ended flows looked at per packet; a capture's clock may jump.
const EXPIRE_BUDGET: usize = 64;
/// Packets after which Suricata's `checksum-checks: auto` decides.
const CHECKSUM_SAMPLE: u64 = 1_000;
/// And the share of wrong ones, one in so many, from which it looks at them no longer.
const CHECKSUM_RATIO: u64 = 10;
/// Flows and directions whose drop was told of.
const DROPS_TOLD_MAX: usize = 1 << 20;

/// Flows whose addresses of the link are remembered, and addresses of one (Suricata's `max-entries`).
const MACS_FLOWS_MAX: usize = 1 << 18;
const MACS_MAX: usize = 8;

/// What is to be done.
pub struct Job<'a> {
    pub settings: &'a Settings,
    /// Name and text of each rule file.
    pub rules: &'a [(String, String)],
    /// Files beside the rules that the caller names; those of the settings come after them.
    pub beside: Vec<(Beside, String, String)>,
    /// Carry out drops, as an inline engine does (`--simulate-ips`).
    pub inline: bool,
    /// What the caller says of checksums (`-k`); else the settings decide.
    pub checksums: Option<Checksums>,
    pub files: &'a dyn Files,
}

/// How the rules were taken.
#[derive(Debug, Default)]
pub struct Loaded {
    pub loaded: usize,
    pub unsupported: usize,
    pub wrong: usize,
    /// Name of the file, and what is the matter.
    pub diagnostics: Vec<(String, Diagnostic)>,
    /// What is the matter with files that the settings name.
    pub resources: Vec<String>,
}

/// Numbers for a summary.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
    pub blocked: u64,
    pub alerts: u64,
    pub flows: u64,
    pub transactions: u64,
    pub anomalies: u64,
}

/// One run.
pub struct Replay {
    pipeline: Pipeline,
    /// For headers of packets that an event is about.
    decoder: Decoder,
    logs: Vec<EveLog>,
    inline: bool,
    checks: Checks,
    clock: Timestamp,
    drops_told: HashSet<(u64, Endpoint)>,
    lines: Vec<(usize, Value)>,
    /// On the packet in hand.
    verdict: Option<Verdict>,
    /// Sources and destinations on the link, by flow.
    macs: BTreeMap<u64, [Vec<String>; 2]>,
    /// Flows whose beginning was not seen, by what became of them.
    midstream: BTreeMap<Midstream, u64>,
    /// Flows and transactions by the names of their counters.
    apps: BTreeMap<String, u64>,
    references: Arc<References>,
    /// Files that rules want kept, by their SHA-256.
    stored: Vec<([u8; 32], Vec<u8>)>,
    pub counts: Counts,
}

/// Whether checksums are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    Always,
    Never,
    /// Until so many packets show that the capture was taken before they were filled in.
    Auto {
        seen: u64,
        wrong: u64,
    },
}

impl Replay {
    pub fn new(job: Job<'_>) -> (Self, Loaded) {
        let settings = job.settings;
        let (rules, references, loaded) = compile(&job);
        let checks = match (job.checksums, settings.is("stream.checksum-validation"), settings.get("pcap-file.checksum-checks")) {
            (Some(Checksums::Ignore), ..) | (None, Some(false), _) => Checks::Never,
            (Some(Checksums::Verify), ..) => Checks::Always,
            (None, _, Some("no")) => Checks::Never,
            (None, _, Some("yes")) => Checks::Always,
            (None, _, _) => Checks::Auto { seen: 0, wrong: 0 },
        };
        let logs = EveLog::all(settings);
        let mut config = pipeline_config(settings, &logs, job.inline);
        config.checksum = if checks == Checks::Never { Checksums::Ignore } else { Checksums::Verify };
        let decoder = Decoder::new(config.decode.clone());
        let replay = Self {
            pipeline: Pipeline::new(config, rules, SEED),
            decoder,
            logs,
            inline: job.inline,
            checks,
            clock: Timestamp::default(),
            drops_told: HashSet::new(),
            lines: Vec::new(),
            verdict: None,
            macs: BTreeMap::new(),
            midstream: BTreeMap::new(),
            apps: BTreeMap::new(),
            references: Arc::new(references),
            stored: Vec::new(),
            counts: Counts::default(),
        };
        (replay, loaded)
    }

    /// Logs by their numbers.
    pub fn logs(&self) -> &[EveLog] {
        &self.logs
    }

    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.counts.packets += 1;
        self.counts.bytes += u64::from(packet.len_on_wire);
        self.sample(packet);
        // Time-outs go by the packet at hand: in captures that were put together, times go back.
        self.clock = self.clock.max(packet.at);
        self.pipeline.expire(packet.at, EXPIRE_BUDGET);
        self.tell(None);
        let mut meta = PacketMeta::captured(packet.link, packet.len_on_wire, self.inline);
        if self.checks == Checks::Never || self.is_udp(packet) {
            meta.checksum = ChecksumState::Ignored;
        }
        let outcome = self.pipeline.packet(packet.at, &meta, packet.bytes, &mut ());
        self.verdict = Some(outcome.verdict);
        self.note_macs(packet, outcome.flow);
        self.counts.blocked += u64::from(!outcome.verdict.passes());
        self.tell(Some(packet));
    }

    /// The reference engine looks at checksums where it puts streams together, and nowhere else.
    fn is_udp(&mut self, packet: &Packet<'_>) -> bool {
        let meta = FrameMeta { link: packet.link, checksum: ChecksumState::Ignored, gso: false };
        matches!(self.decoder.frame(meta, packet.bytes), Decoded::Packet(packet) if matches!(packet.transport, Transport::Udp(_)))
    }

    /// `checksum-checks: auto`.
    fn sample(&mut self, packet: &Packet<'_>) {
        let Checks::Auto { seen, wrong } = &mut self.checks else { return };
        let meta = FrameMeta { link: packet.link, checksum: ChecksumState::Unknown, gso: false };
        *seen += 1;
        *wrong += u64::from(matches!(self.decoder.frame(meta, packet.bytes), Decoded::Packet(packet) if packet.checksum_invalid()));
        if *seen >= CHECKSUM_SAMPLE {
            self.checks = if *wrong * CHECKSUM_RATIO > *seen { Checks::Never } else { Checks::Always };
        }
    }

    /// Addresses of the link that a flow's packets had, where a log shows them.
    fn note_macs(&mut self, packet: &Packet<'_>, flow: Option<u64>) {
        if self.macs.len() >= MACS_FLOWS_MAX || !self.logs.iter().any(|log| log.ethernet) {
            return;
        }
        let Some(flow) = flow else { return };
        let Some((source, destination)) = Seen::find(&mut self.decoder, packet.link, packet.bytes, None).and_then(|seen| seen.macs())
        else {
            return;
        };
        let [sources, destinations] = self.macs.entry(flow).or_default();
        for (of, mac) in [(sources, source), (destinations, destination)] {
            if of.len() < MACS_MAX && !of.contains(&mac) {
                of.push(mac);
            }
        }
    }

    /// The end of all captures: flows end, and the counters are told.
    pub fn finish(&mut self) {
        self.pipeline.finish(self.clock);
        self.tell(None);
        let mut stats = stats::object(&self.pipeline);
        for (policy, flows) in &self.midstream {
            stats::put(&mut stats, &format!("exception_policy.tcp.midstream.{}", policy.name()), *flows);
        }
        self.apps.iter().for_each(|(name, count)| stats::put(&mut stats, name, *count));
        let mut line = Line::new(self.clock, "stats");
        line.put("stats", stats);
        let line = line.object();
        self.each_log("stats", |_| Some(line.clone()));
    }

    /// Files that rules want kept since the last call, by their SHA-256.
    pub fn stored(&mut self) -> impl Iterator<Item = ([u8; 32], Vec<u8>)> + '_ {
        self.stored.drain(..)
    }

    /// Sets whose values are to be written: the file that their rule names, and its text.
    pub fn sets(&self) -> impl Iterator<Item = (&str, String)> {
        self.pipeline.rules().datasets().filter_map(|set| set.save.as_deref().map(|name| (name, set.text())))
    }

    /// Lines since the last call: the log's number and the line.
    pub fn lines(&mut self) -> impl Iterator<Item = (usize, Value)> + '_ {
        self.lines.drain(..)
    }

    fn each_log(&mut self, event_type: &str, line: impl Fn(&EveLog) -> Option<Value>) {
        for (number, log) in self.logs.iter().enumerate() {
            if log.takes(event_type) {
                self.lines.extend(line(log).map(|line| (number, line)));
            }
        }
    }

    fn tell(&mut self, packet: Option<&Packet<'_>>) {
        let events: Vec<EngineEvent> = self.pipeline.drain_events().collect();
        let number = packet.map(|_| self.counts.packets);
        let references = Arc::clone(&self.references);
        for event in &events {
            let key = match event {
                EngineEvent::Alert(event) => Some(&event.key),
                EngineEvent::Drop(event) => Some(&event.key),
                EngineEvent::Transaction(event) => Some(&event.key),
                EngineEvent::Anomaly(event) => event.key.as_ref(),
                EngineEvent::File(event) => Some(&event.key),
                EngineEvent::FlowEnd(_) => None,
            };
            let of_packet = !matches!(event, EngineEvent::FlowEnd(_));
            let seen = packet.filter(|_| of_packet).and_then(|packet| Seen::find(&mut self.decoder, packet.link, packet.bytes, key));
            let at = At {
                number,
                seen: seen.as_ref(),
                frame: packet.map(|packet| packet.bytes),
                link: packet.map(|packet| packet.link),
                verdict: self.verdict,
                references: &references,
            };
            match event {
                EngineEvent::Alert(event) => {
                    self.counts.alerts += 1;
                    self.each_log("alert", |log| Some(line::alert(event, at, log)));
                }
                EngineEvent::Drop(event) => {
                    if event.carried_out {
                        let first = self.first_drop(event);
                        self.each_log("drop", |log| (first || log.drop.all).then(|| line::dropped(event, at, log)));
                    }
                }
                EngineEvent::Transaction(event) => {
                    self.counts.transactions += 1;
                    // The reference engine does not count sessions of TLS.
                    if event.protocol != Protocol::Tls {
                        *self.apps.entry(stats::app_counter("tx", event.protocol, event.key.proto)).or_default() += 1;
                    }
                    for (name, dir) in &event.record.events {
                        self.counts.anomalies += 1;
                        self.each_log("anomaly", |log| line::of_transaction(event, name, *dir, at, log));
                    }
                    let lines: Vec<(usize, Value)> = self
                        .logs
                        .iter()
                        .enumerate()
                        .flat_map(|(number, log)| line::transaction(event, at, log).into_iter().map(move |line| (number, line)))
                        .collect();
                    self.lines.extend(lines);
                }
                EngineEvent::File(event) => {
                    self.each_log("fileinfo", |log| Some(line::file(event, at, log)));
                    // What broke off has no hash, and no name to be kept under.
                    if let (true, Some(sha256), Some(content)) = (event.stored, event.file.sha256, &event.file.content) {
                        self.stored.push((sha256, content.clone()));
                    }
                }
                EngineEvent::Anomaly(event) => {
                    self.counts.anomalies += 1;
                    self.each_log("anomaly", |log| line::anomaly(event, at, log));
                }
                EngineEvent::FlowEnd(event) => {
                    self.counts.flows += 1;
                    for app in event.app.iter().chain(&event.app_original) {
                        *self.apps.entry(stats::app_counter("flow", *app, event.key.proto)).or_default() += 1;
                    }
                    if let Some(policy) = event.midstream.filter(|policy| *policy != Midstream::Follow) {
                        *self.midstream.entry(policy).or_default() += 1;
                    }
                    let macs = self.macs.remove(&event.key.id);
                    self.each_log("flow", |log| Some(line::flow(event, macs.as_ref(), log)));
                }
            }
        }
    }

    /// A flow that is dropped is told of once a direction; what a rule has dropped each time.
    fn first_drop(&mut self, event: &DropEvent) -> bool {
        let of_flow = event.key.id != 0 && event.reason == bulkhead_model::DropReason::Flow;
        let first = self.drops_told.len() < DROPS_TOLD_MAX && self.drops_told.insert((event.key.id, event.key.src));
        !of_flow || first
    }
}

fn compile(job: &Job<'_>) -> (Arc<Ruleset>, References, Loaded) {
    let mut beside: Vec<(Beside, String, String)> = job.beside.clone();
    for (kind, key) in [
        (Beside::Threshold, "threshold-file"),
        (Beside::Classification, "classification-file"),
        (Beside::Reference, "reference-config-file"),
    ] {
        if let Some(name) = job.settings.get(key).filter(|name| !name.is_empty())
            && let Some(bytes) = job.files.read(name)
        {
            beside.push((kind, name.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    let library = Library::read(beside.iter().map(|(kind, name, text)| (*kind, name.as_str(), text.as_str())));
    let mut loaded = Loaded { diagnostics: library.diagnostics.clone(), ..Loaded::default() };
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    for (name, text) in job.rules {
        let (read, _) = library.rules(name, text);
        loaded.unsupported += read.counts.unsupported;
        loaded.wrong += read.counts.wrong;
        loaded.diagnostics.extend(read.diagnostics.into_iter().map(|diagnostic| (name.clone(), diagnostic)));
        parsed.push((name.clone(), read.rules));
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, rules)| Source { name, rules }).collect();
    // What a rule names stands beside its file, or where the caller finds it.
    let folders: BTreeSet<&str> = job.rules.iter().filter_map(|(name, _)| name.rsplit_once('/')).map(|(folder, _)| folder).collect();
    let open = |name: &str| {
        let beside = folders.iter().find_map(|folder| job.files.read(&format!("{folder}/{name}")));
        beside.or_else(|| job.files.read(name))
    };
    let reputation = reputation(job, &mut loaded);
    let resources = Resources {
        files: Some(&open),
        datasets: datasets(job.settings),
        reputation,
        action_order: action_order(job.settings),
        before: None,
    };
    let compiled = Ruleset::compile_with(&sources, &variables(job.settings), &library.classification, &resources);
    for (at, diagnostic) in compiled.diagnostics {
        match diagnostic.severity {
            Severity::Error => loaded.wrong += 1,
            Severity::Unsupported => loaded.unsupported += 1,
            Severity::Warning => {}
        }
        loaded.diagnostics.push((parsed.get(at).map_or_else(String::new, |(name, _)| name.clone()), diagnostic));
    }
    loaded.loaded = compiled.ruleset.len();
    (compiled.ruleset, library.references, loaded)
}

fn action_order(settings: &Settings) -> ActionOrder {
    let words = settings.list("action-order");
    ActionOrder::from_words(words.iter().map(|(_, word)| *word)).unwrap_or_default()
}

/// Categories and lists of `reputation-*`.
fn reputation(job: &Job<'_>, loaded: &mut Loaded) -> Reputation {
    let mut reputation = Reputation::default();
    let read = |name: &str| {
        let base = job.settings.get("default-reputation-path").filter(|base| !base.is_empty() && !name.starts_with('/'));
        let based = base.and_then(|base| job.files.read(&format!("{base}/{name}")));
        based.or_else(|| job.files.read(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut troubles = Vec::new();
    let categories = job.settings.get("reputation-categories-file").filter(|name| !name.is_empty());
    if let Some(text) = categories.and_then(read) {
        troubles.extend(reputation.add_categories(&text).err());
    }
    let single = job.settings.get("reputation-files").filter(|name| !name.is_empty());
    let lists = job.settings.children("reputation-files").map(|(_, name)| name).chain(single);
    for text in lists.filter_map(read) {
        troubles.extend(reputation.add_list(&text).err());
    }
    loaded.resources = troubles;
    reputation
}

/// `datasets` of the settings: those that say their type.
fn datasets(settings: &Settings) -> Vec<(String, DatasetSource)> {
    let mut sets: BTreeMap<String, DatasetSource> = BTreeMap::new();
    for (key, value) in settings.children("datasets") {
        let Some((name, field)) = key.rsplit_once('.') else { continue };
        let set = sets.entry(name.to_owned()).or_default();
        match field {
            "type" => {
                set.kind = match value {
                    "string" => Some(DatasetKind::String),
                    "md5" => Some(DatasetKind::Md5),
                    "sha256" => Some(DatasetKind::Sha256),
                    "ipv4" => Some(DatasetKind::Ipv4),
                    "ipv6" | "ip" => Some(DatasetKind::Ip),
                    _ => None,
                }
            }
            "load" => set.load = Some(value.to_owned()),
            "state" => set.state = Some(value.to_owned()),
            "save" => set.save = Some(value.to_owned()),
            _ => {}
        }
    }
    sets.into_iter().collect()
}

/// `vars` of the settings; variables that they do not have keep their usual values.
fn variables(settings: &Settings) -> Variables {
    let mut variables = Variables::default();
    variables.addresses.insert("HOME_NET".to_owned(), "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]".to_owned());
    for (name, value) in settings.children("vars.address-groups") {
        variables.addresses.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in settings.children("vars.port-groups") {
        variables.ports.insert(name.to_owned(), value.to_owned());
    }
    variables
}

/// As Suricata inspects a capture with these settings.
fn pipeline_config(settings: &Settings, logs: &[EveLog], inline: bool) -> PipelineConfig {
    let mut config = PipelineConfig {
        drop_scope: DropScope::Matched,
        on_cap: OnFailure::Pass,
        on_unverifiable: OnFailure::Pass,
        bypass_no_rule: false,
        bypass_encrypted: false,
        transactions: true,
        events_max: 1 << 20,
        ..PipelineConfig::default()
    };
    let store = |(key, name): &(String, &str)| *name == "file-store" && settings.is(&format!("{key}.file-store.enabled")).unwrap_or(false);
    let stores = settings.list("outputs").iter().any(store);
    config.files = logs.iter().fold(FileWants { sha256: stores, ..FileWants::default() }, |wants, log| wants.and(log.files));
    config.stream.midstream = settings.is("stream.midstream").unwrap_or(false);
    config.stream.acks_seen = true;
    config.app.body_tails = true;
    if let Some(most) = settings.number("packet-alert-max") {
        config.alerts_per_packet_max = usize::try_from(most).unwrap_or(usize::MAX);
    }
    if let Some(depth) = settings.number("stream.reassembly.depth") {
        config.stream_depth = depth;
    }
    match settings.get("stream.reassembly.urgent.policy") {
        Some("inline" | "gap") => config.stream.urgent = UrgentPolicy::Inline,
        Some("drop") => config.stream.urgent = UrgentPolicy::Refuse,
        Some(_) | None => {}
    }
    let seconds = |key: &str, into: &mut u64| {
        if let Some(secs) = settings.number(&format!("flow-timeouts.{key}")) {
            *into = secs;
        }
    };
    // Suricata's default; the live path has another.
    config.flow.tcp_closed_secs = 60;
    seconds("tcp.new", &mut config.flow.tcp_new_secs);
    seconds("tcp.established", &mut config.flow.tcp_established_secs);
    seconds("tcp.closed", &mut config.flow.tcp_closed_secs);
    seconds("udp.new", &mut config.flow.udp_new_secs);
    seconds("udp.established", &mut config.flow.udp_established_secs);
    seconds("icmp.new", &mut config.flow.icmp_secs);
    config.midstream = midstream(settings, inline, config.stream.midstream);
    app(settings, &mut config.app);
    let _ = inline;
    config
}

/// `stream.midstream-policy`, else `exception-policy`. `auto`: drops where drops are carried out and such flows are not followed.
fn midstream(settings: &Settings, inline: bool, followed: bool) -> Midstream {
    let auto = if inline && !followed { Midstream::DropFlow } else { Midstream::Follow };
    let own = settings.get("stream.midstream-policy").or_else(|| settings.get("exception-policy"));
    match own.unwrap_or("auto") {
        "drop-flow" if !followed || inline => Midstream::DropFlow,
        "reject" if inline => Midstream::Reject,
        "pass-flow" => Midstream::PassFlow,
        "bypass" => Midstream::Bypass,
        "auto" => auto,
        _ => Midstream::Follow,
    }
}

/// What the settings call a protocol.
fn setting_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::FtpData => "ftp",
        other => other.name(),
    }
}

/// Limits of application layers.
fn app(settings: &Settings, app: &mut bulkhead_applayer::Config) {
    // What has no line of its own, or none of its transport, is on.
    for protocol in Protocol::ALL {
        let key = format!("app-layer.protocols.{}", setting_of(*protocol));
        let off = |key: &str| matches!(settings.get(&format!("{key}.enabled")), Some("no" | "false" | "off"));
        for (transport, name) in [(Carrier::Tcp, "tcp"), (Carrier::Udp, "udp")] {
            let own = settings.is(&format!("{key}.{name}.enabled"));
            // `dns.enabled` is what holds where a transport says nothing.
            if own.map_or(off(&key), |on| !on) {
                app.disabled.push((*protocol, transport));
            }
        }
    }
    let http = |key: &str| format!("app-layer.protocols.http.libhtp.default-config.{key}");
    if let Some(layers) = settings.number(&http("response-body-decompress-layer-limit")) {
        app.coding_layers_max = layers as usize;
    }
    let double = |key: &str| settings.is(&http(key)).unwrap_or(false);
    app.double_decode = double("double-decode-path") || double("double-decode-query");
    app.email_body_md5 = match settings.get("app-layer.protocols.smtp.mime.body-md5") {
        Some("yes" | "true") => Some(true),
        Some("no" | "false") => Some(false),
        Some(_) | None => None,
    };
    let schemes: Vec<String> =
        settings.list("app-layer.protocols.smtp.mime.extract-urls-schemes").into_iter().map(|(_, scheme)| scheme.to_owned()).collect();
    app.email_url_schemes = if schemes.is_empty() { vec!["http".to_owned()] } else { schemes };
    if let Some(max) = settings.number("app-layer.protocols.ftp.max-line-length") {
        app.ftp_line_bytes_max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, app.pending_bytes_max / 2);
    }
    if let Some(max) = settings.number("app-layer.protocols.mqtt.max-msg-length") {
        app.mqtt_message_bytes_max = app.mqtt_message_bytes_max.min(usize::try_from(max).unwrap_or(usize::MAX));
    }
}
