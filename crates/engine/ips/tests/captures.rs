//! Everything that was ever captured, as it is and mutated, through the whole pipeline with rules loaded: each frame
//! ends in one stated verdict with its counter, nothing panics, the counters add up, and nothing is held when it is over.

mod kit;

use std::sync::{Arc, LazyLock};

use bulkhead_ips::{Checksums, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source, Stats};
use bulkhead_model::{BypassReason, DropReason, Timestamp, Verdict};
use bulkhead_net::craft::{self, Segment};
use bulkhead_net::decode::TcpFlags;
use bulkhead_rules::{Classification, Variables};
use kit::capture::{self, Frame, MUTATIONS};
use kit::*;

/// Frames of one capture that are mutated.
const MUTATED_FRAMES_MAX: usize = 48;
/// Larger frames than the wire has are cut to this for mutation.
const MUTATED_BYTES_MAX: usize = 4096;

/// Rules of each kind that there is, for where no others are to be had. Many of them match.
const RULES: &str = r#"
drop tcp any any -> any any (msg:"a"; content:"evil"; content:"more"; distance:0; sid:1;)
alert ip any any -> any any (msg:"b"; content:"a"; byte_jump:1,0,relative; byte_test:2,>,5,0,relative; sid:2;)
alert udp any any -> any any (msg:"c"; pcre:"/[a-z]{3}/"; sid:3;)
alert tcp any any -> any any (msg:"d"; flags:S; sid:4;)
pass icmp any any -> any any (msg:"e"; itype:8; sid:5;)
alert ip any any -> any any (msg:"f"; fragbits:M; sid:6;)
alert tcp any any -> any any (msg:"g"; content:"H"; content:!"TTQ"; within:3; flowbits:set,seen; sid:7;)
alert tcp any any -> any any (msg:"h"; flowbits:isset,seen; content:"|0d 0a|"; threshold:type limit, track by_src, count 1, seconds 60; sid:8;)
reject udp any any -> any 53 (msg:"i"; content:"|00 01 00 01|"; offset:8; sid:9;)
"#;

/// Compiled once for all tests: without optimisation the whole of ET Open takes a while.
static ALL_RULES: LazyLock<Arc<Ruleset>> = LazyLock::new(rules);

fn rules() -> Arc<Ruleset> {
    let mut text = RULES.to_owned();
    match data("rules/et-open.rules") {
        Some(path) => text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap())),
        None => println!("NOT RUN: ET Open in this test (../shared/data/rules/et-open.rules is absent); the rules written here stand in"),
    }
    let file = bulkhead_rules::parse(&text);
    Ruleset::compile(&[Source { name: "all.rules", rules: &file.rules }], &Variables::default(), &Classification::builtin()).ruleset
}

/// A pipeline, and what it must have counted.
struct Line {
    pipeline: Pipeline,
    protect: bool,
    before: Stats,
    frames: u64,
}

impl Line {
    fn new(rules: &Arc<Ruleset>, protect: bool, checksum: Checksums) -> Self {
        let mut config = PipelineConfig { checksum, events_max: 1024, thresholds_max: 1024, ..PipelineConfig::default() };
        config.flow.flows_max = 512;
        config.lookback_memory_max = 4 << 20;
        config.stream.memory_bytes_max = 16 << 20;
        Self { pipeline: Pipeline::new(config, Arc::clone(rules), 11), protect, before: Stats::default(), frames: 0 }
    }

    /// One capture from its first frame to its end.
    fn run(&mut self, name: &str, frames: &[Frame]) {
        let mut clock = Timestamp::default();
        for frame in frames {
            let Some(link) = frame.link else { continue };
            clock = clock.max(frame.at);
            self.pipeline.expire(frame.at, 64);
            let meta = PacketMeta::captured(link, frame.len_on_wire, self.protect);
            let outcome = self.pipeline.packet(frame.at, &meta, &frame.bytes, &mut ());
            self.frames += 1;
            self.counted(name, outcome.verdict);
            assert!(self.protect || outcome.verdict.passes(), "{name}: monitor mode blocked a frame");
            assert!(self.pipeline.flows() <= 512 && self.pipeline.memory() <= (4 << 20) + (16 << 20) + (8 << 20), "{name}");
            self.pipeline.drain_events().for_each(drop);
        }
        self.pipeline.finish(clock);
        self.pipeline.drain_events().for_each(drop);
        assert_eq!((self.pipeline.flows(), self.pipeline.memory()), (0, 0), "{name}: something is held after the end");
        self.before = *self.pipeline.stats();
    }

    /// The frame's verdict, and no other, was counted, with its reason.
    fn counted(&mut self, name: &str, verdict: Verdict) {
        let (now, was) = (*self.pipeline.stats(), self.before);
        let step = (now.accepted - was.accepted, now.bypassed - was.bypassed, now.dropped - was.dropped);
        let (expected, reason) = match verdict {
            Verdict::Accept => ((1, 0, 0), 1),
            Verdict::BypassFlow(reason) | Verdict::BypassDirection(reason) => ((0, 1, 0), bypassed(&now, reason) - bypassed(&was, reason)),
            Verdict::Drop(reason) | Verdict::DropFlow(reason) | Verdict::Reject(reason) => {
                ((0, 0, 1), dropped(&now, reason) - dropped(&was, reason))
            }
        };
        assert_eq!((step, reason, now.packets - was.packets), (expected, 1, 1), "{name}: {verdict:?}");
        self.before = now;
    }

    /// The sums agree.
    fn settle(&self) -> Stats {
        let stats = *self.pipeline.stats();
        assert_eq!(stats.packets, self.frames);
        assert_eq!(stats.packets, stats.accepted + stats.bypassed + stats.dropped);
        let reasons = stats.bypass_depth + stats.bypass_encrypted + stats.bypass_no_rule + stats.bypass_pass_rule;
        assert_eq!(stats.bypassed, reasons);
        let reasons =
            stats.drop_rule + stats.drop_flow + stats.drop_malformed + stats.drop_conflict + stats.drop_unverifiable + stats.drop_cap;
        assert_eq!(stats.dropped, reasons);
        let flows = self.pipeline.flow_stats();
        let ended = flows.ended_timeout + flows.ended_closed + flows.ended_evicted + flows.ended_superseded + flows.ended_shutdown;
        assert_eq!(flows.created, ended);
        stats
    }
}

fn bypassed(stats: &Stats, reason: BypassReason) -> u64 {
    match reason {
        BypassReason::Depth => stats.bypass_depth,
        BypassReason::Encrypted => stats.bypass_encrypted,
        BypassReason::Policy => stats.bypass_pass_rule,
        BypassReason::NoRule => stats.bypass_no_rule,
    }
}

fn dropped(stats: &Stats, reason: DropReason) -> u64 {
    match reason {
        DropReason::Rule => stats.drop_rule,
        DropReason::Flow => stats.drop_flow,
        DropReason::Malformed => stats.drop_malformed,
        DropReason::StreamConflict => stats.drop_conflict,
        DropReason::Unverifiable => stats.drop_unverifiable,
        DropReason::Cap => stats.drop_cap,
        DropReason::Segment | DropReason::FailClosed | DropReason::UnknownInterface => 0,
    }
}

/// The same captures whole in both modes, and mutated in each way in turn.
fn all_lines(captures: impl Iterator<Item = (String, Vec<Frame>)>, rounds: usize) -> [Stats; 3] {
    let rules = &*ALL_RULES;
    let mut monitor = Line::new(rules, false, Checksums::Ignore);
    let mut protect = Line::new(rules, true, Checksums::Verify);
    let mut mutated = [Line::new(rules, true, Checksums::Ignore), Line::new(rules, false, Checksums::Verify)];
    let mut numbers = Numbers(0x05ee_d0fc_a970_e500);
    for (count, (name, frames)) in captures.enumerate() {
        // A broken time would make everything after it time out; it is checked by the mutated lines.
        monitor.run(&name, &frames);
        protect.run(&name, &frames);
        let mut few: Vec<Frame> = frames.into_iter().take(MUTATED_FRAMES_MAX).collect();
        few.iter_mut().for_each(|frame| frame.bytes.truncate(MUTATED_BYTES_MAX));
        for round in 0..rounds {
            let how = MUTATIONS[(count + round) % MUTATIONS.len()];
            let changed = capture::mutate(&few, how, &mut numbers);
            mutated[(count + round) / MUTATIONS.len() % 2].run(&format!("{name} after {how:?}"), &changed);
        }
    }
    let [first, second] = mutated;
    let (first, second) = (first.settle(), second.settle());
    println!("monitor: {:?}\nprotect: {:?}\nmutated: {first:?}\n         {second:?}", monitor.settle(), protect.settle());
    [monitor.settle(), protect.settle(), first]
}

#[test]
fn every_frame_of_real_captures_has_a_stated_verdict_whole_and_mutated() {
    let Some(root) = data("pcaps") else {
        println!("NOT RUN: every_frame_of_real_captures_has_a_stated_verdict_whole_and_mutated (../shared/data/pcaps is absent)");
        return;
    };
    let captures = capture::files(&root).into_iter().filter_map(|path| {
        let frames = capture::read(&path)?;
        Some((path.display().to_string(), frames))
    });
    let [monitor, protect, mutated] = all_lines(captures, 2);
    assert!(monitor.packets > 50_000 && monitor.alerts > 100 && monitor.dropped == 0);
    assert!(protect.drop_rule > 0 && protect.accepted > protect.dropped);
    // Real handshakes are believed, and nothing real costs more than a packet may.
    assert!(monitor.bypass_encrypted > 1_000 && monitor.work_exhausted == 0 && monitor.inspected_at_end_bytes > 0);
    assert!(mutated.drop_malformed > 1_000);
}

/// The same with conversations made here.
#[test]
fn every_frame_of_crafted_captures_has_a_stated_verdict_whole_and_mutated() {
    let [monitor, protect, mutated] = all_lines((0..40u16).map(crafted), 10);
    assert!(monitor.alerts > 100 && monitor.would_have_dropped > 0 && monitor.dropped == 0);
    assert!(protect.drop_rule > 0 && protect.drop_flow > 0);
    assert!(mutated.drop_malformed > 100);
}

/// A conversation of each kind, in an order that `number` decides.
fn crafted(number: u16) -> (String, Vec<Frame>) {
    let (a, b) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let (a6, b6) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    let mut packets = Vec::new();
    for (src, dst) in [(a, b), (a6, b6)] {
        let segment = |from_client: bool, seq: u32, ack: u32, flags: TcpFlags, payload: &'static [u8]| {
            let (src, dst, src_port, dst_port) =
                if from_client { (src, dst, 40_000 + number, 80) } else { (dst, src, 80, 40_000 + number) };
            let options: &[u8] = if flags.syn() { &[2, 4, 5, 0xb4, 1, 3, 3, 7] } else { &[] };
            craft::tcp(src, dst, &Segment { src_port, dst_port, seq, ack, flags, window: 0xffff, options, payload, ..Segment::default() })
        };
        packets.push(segment(true, 99, 0, TcpFlags::SYN, b""));
        packets.push(segment(false, 899, 100, TcpFlags::SYN | TcpFlags::ACK, b""));
        packets.push(segment(true, 100, 900, TcpFlags::ACK, b"GET /ev"));
        packets.push(segment(true, 112, 900, TcpFlags::ACK, b"more\r\n"));
        packets.push(segment(true, 107, 900, TcpFlags::ACK, if number.is_multiple_of(2) { b"il123" } else { b"at123" }));
        packets.push(segment(false, 900, 118, TcpFlags::ACK, b"HTTP/1.1 200 OK\r\n\r\n"));
        packets.push(segment(true, 118, 919, TcpFlags::ACK | TcpFlags::FIN, b""));
        packets.push(segment(false, 919, 119, TcpFlags::ACK | TcpFlags::FIN, b""));
        packets.push(segment(true, 119, 920, TcpFlags::ACK, b""));
        packets.push(craft::udp(src, dst, 5353, 53, b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01"));
        let inner = craft::ethernet([1; 6], [2; 6], &craft::udp(b, a, 7, 8, b"inside a tunnel, evil and more"));
        packets.push(craft::udp(src, dst, 5, 4789, &[&[8, 0, 0, 0, 0, 0, 5, 0][..], &inner].concat()));
        packets.push(craft::icmp(src, dst, if src == a { 8 } else { 128 }, 0, b"\0\x01\0\x01ping"));
        let whole = craft::udp_body(src, dst, 1000, 2000, &[b'x'; 100]);
        packets.push(craft::fragment(src, dst, 17, u32::from(number), 0, true, &whole[..56]));
        packets.push(craft::fragment(src, dst, 17, u32::from(number), 56, false, &whole[56..]));
        packets.push(craft::fragment(src, dst, 17, u32::from(number) + 500, 0, true, &whole[..56]));
        packets.push(craft::ip(src, dst, 47, &[&[0, 0, 8, 0][..], &craft::udp(a, b, 1, 2, b"abc")].concat()));
    }
    let frames = packets.iter().enumerate().map(|(at, packet)| {
        let bytes = craft::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], packet);
        let at = Timestamp(1_700_000_000_000_000_000 + at as u64 * 1_000_000);
        Frame { at, link: Some(bulkhead_ips::LinkType::Ethernet), len_on_wire: bytes.len() as u32, bytes }
    });
    (format!("conversation {number}"), frames.collect())
}
