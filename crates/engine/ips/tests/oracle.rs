//! The reference engine's alerts on real captures with the whole of ET Open, as far as its rules load here: which
//! (capture, sid) pairs are equal, missing, extra. `oracle.expected` holds the pairs that differ, one a line
//! with both counts; any other difference fails the test, and so does a listed one that is gone. `BLESS=1` writes it anew.
//! Why each group of them differs stands in `docs/oracle.md`.

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bulkhead_ips::{Checksums, EngineEvent, OnFailure, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source};
use bulkhead_model::Timestamp;
use bulkhead_rules::{Classification, Variables};
use kit::capture::Frame;

/// Suricata's `stream.reassembly.depth`.
const DEPTH: u64 = 1 << 20;

type Counts = BTreeMap<u32, u64>;

#[test]
fn alerts_on_real_captures_are_those_of_the_reference_engine() {
    let (Some(rules), Some(pcaps), Some(oracle)) =
        (kit::data("rules/et-open.rules"), kit::data("pcaps"), kit::data("oracle/et-open-on-pcaps.json"))
    else {
        println!("NOT RUN: alerts_on_real_captures_are_those_of_the_reference_engine (../shared/data is absent)");
        return;
    };
    let text = String::from_utf8_lossy(&std::fs::read(rules).unwrap()).into_owned();
    let file = bulkhead_rules::parse(&text);
    let mut variables = Variables::default();
    for name in ["HOME_NET", "EXTERNAL_NET"] {
        variables.addresses.insert(name.into(), "any".into());
    }
    let compiled = Ruleset::compile(&[Source { name: "et-open.rules", rules: &file.rules }], &variables, &Classification::builtin());
    let loaded: BTreeSet<u32> = compiled.ruleset.rules().map(|rule| rule.sid).collect();
    let (mut equal, mut missing, mut extra, mut counts_differ, mut absent, mut beyond) = (0u32, 0u32, 0u32, 0u32, 0u32, 0u32);
    let mut differences = BTreeSet::new();
    let mut by_sid: BTreeMap<u32, (u32, u32, u32)> = BTreeMap::new();
    for (name, expected) in read(&std::fs::read_to_string(oracle).unwrap()) {
        let Some(frames) = kit::capture::read(&pcaps.join(&name)) else {
            absent += 1;
            continue;
        };
        beyond += expected.keys().filter(|sid| !loaded.contains(sid)).count() as u32;
        let found = replay(&compiled.ruleset, &frames);
        let sids: BTreeSet<u32> = expected.keys().chain(found.keys()).copied().filter(|sid| loaded.contains(sid)).collect();
        for sid in sids {
            let (theirs, ours) = (expected.get(&sid).copied().unwrap_or(0), found.get(&sid).copied().unwrap_or(0));
            if theirs == ours {
                equal += 1;
                continue;
            }
            let tally = by_sid.entry(sid).or_default();
            match (theirs, ours) {
                (0, _) => (extra, tally.0) = (extra + 1, tally.0 + 1),
                (_, 0) => (missing, tally.1) = (missing + 1, tally.1 + 1),
                _ => (counts_differ, tally.2) = (counts_differ + 1, tally.2 + 1),
            }
            differences.insert(format!("{name}\t{sid}\t{theirs}\t{ours}"));
        }
    }
    println!("rules loaded: {}; (capture, sid) pairs of rules that are not: {beyond}; captures absent: {absent}", loaded.len());
    println!("pairs equal: {equal}, other count: {counts_differ}, missing: {missing}, extra: {extra}");
    for (sid, (extra, missing, counts)) in &by_sid {
        println!("  {sid}: extra {extra}, missing {missing}, other count {counts}");
    }
    assert!(equal > 0);
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle.expected");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&list, differences.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    let known: BTreeSet<String> = std::fs::read_to_string(&list).unwrap().lines().map(str::to_owned).collect();
    let new: Vec<_> = differences.difference(&known).collect();
    let gone: Vec<_> = known.difference(&differences).collect();
    assert!(new.is_empty(), "differ and are not listed (capture, sid, theirs, ours): {new:#?}");
    assert!(gone.is_empty(), "listed and equal now: {gone:#?}");
}

fn replay(rules: &Arc<Ruleset>, frames: &[Frame]) -> Counts {
    let mut config = PipelineConfig {
        on_cap: OnFailure::Pass,
        on_unverifiable: OnFailure::Pass,
        checksum: Checksums::Ignore,
        bypass_no_rule: false,
        bypass_encrypted: false,
        stream_depth: DEPTH,
        anomalies: false,
        flow_events: false,
        ..PipelineConfig::default()
    };
    config.stream.midstream = false;
    config.stream.acks_seen = true;
    config.flow.flows_max = 16_384;
    let mut pipeline = Pipeline::new(config, Arc::clone(rules), 1);
    let mut counts = Counts::new();
    let mut clock = Timestamp::default();
    let mut count = |pipeline: &mut Pipeline| {
        for event in pipeline.drain_events() {
            if let EngineEvent::Alert(alert) = event {
                *counts.entry(alert.rule.sid).or_default() += 1;
            }
        }
    };
    for frame in frames {
        let Some(link) = frame.link else { continue };
        clock = clock.max(frame.at);
        pipeline.expire(frame.at, 64);
        pipeline.packet(frame.at, &PacketMeta::captured(link, frame.len_on_wire, false), &frame.bytes, &mut ());
        count(&mut pipeline);
    }
    pipeline.finish(clock);
    count(&mut pipeline);
    counts
}

/// The file's own regular shape: a capture a line, then a sid a line.
fn read(text: &str) -> Vec<(String, Counts)> {
    let mut all: Vec<(String, Counts)> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.trim().trim_end_matches(',').rsplit_once("\":") else { continue };
        let name = name.trim_start_matches('"');
        match (value.trim().parse(), name.parse(), all.last_mut()) {
            (Ok(count), Ok(sid), Some((_, counts))) => _ = counts.insert(sid, count),
            _ => all.push((name.to_owned(), Counts::new())),
        }
    }
    all
}
