//! Everything that was ever captured, and everything it may become: captures from real networks, whole,
//! truncated, with flipped bits and mutated, through decode, defrag, flow and stream. No panic, every outcome
//! counted, every cap kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_model::Timestamp;
use bulkhead_net::decode::{ChecksumState, Decoded, Decoder, FrameMeta, LinkType, Packet};
use bulkhead_net::flow::{Direction, EndedFlow, FlowConfig};
use bulkhead_net::stream::{StreamConfig, StreamEnd, StreamSink};
use bulkhead_net::{Defrag, DefragConfig, FlowTable, Reassembler, fuzz};
use pcap_parser::{Block, PcapBlockOwned, PcapError};

/// Frames read per capture; a few hundred captures make up the rest.
const FRAMES_MAX: usize = 200;
/// Larger captures are left out.
const FILE_BYTES_MAX: u64 = 2 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, max: usize) -> usize {
        (self.next() >> 11) as usize % max.max(1)
    }
}

#[derive(Default)]
struct Sink {
    bytes: u64,
}

impl StreamSink for Sink {
    fn data(&mut self, _dir: Direction, _offset: u64, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
    }

    fn gap(&mut self, _dir: Direction, _offset: u64, _len: u64) {}

    fn end(&mut self, _dir: Direction, _how: StreamEnd) {}
}

/// The four parts in a row, as the pipeline has them.
struct Line {
    decoder: Decoder,
    defrag: Defrag,
    flows: FlowTable<()>,
    reassembler: Reassembler,
    ended: Vec<EndedFlow<()>>,
    sink: Sink,
    enforce: bool,
    frames: u64,
    packets: u64,
    ignored: u64,
    malformed: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

const FLOWS_MAX: usize = 500;
const MEMORY_MAX: u64 = 4 << 20;

impl Line {
    fn new(enforce: bool) -> Self {
        let stream = StreamConfig { memory_bytes_max: MEMORY_MAX, acks_seen: !enforce, ..StreamConfig::default() };
        Self {
            decoder: Decoder::default(),
            defrag: Defrag::new(DefragConfig { trackers_max: 100, bytes_max: 1 << 20, ..DefragConfig::default() }),
            flows: FlowTable::new(FlowConfig { flows_max: FLOWS_MAX, ..FlowConfig::default() }, [3, 4]),
            reassembler: Reassembler::new(stream),
            ended: Vec::new(),
            sink: Sink::default(),
            enforce,
            frames: 0,
            packets: 0,
            ignored: 0,
            malformed: 0,
            outcomes: BTreeMap::new(),
        }
    }

    fn frame(&mut self, now: Timestamp, meta: FrameMeta, frame: &[u8]) {
        self.frames += 1;
        let mut next = Some(self.decoder.frame(meta, frame));
        while let Some(decoded) = next.take() {
            match decoded {
                Decoded::Packet(packet) => {
                    self.packets += 1;
                    self.packet(now, &packet, 0);
                    next = self.decoder.inner(&packet);
                }
                Decoded::Ignored(..) => self.ignored += 1,
                Decoded::Malformed(_) => self.malformed += 1,
            }
        }
        assert!(self.flows.len() <= FLOWS_MAX && self.reassembler.memory() <= MEMORY_MAX && self.defrag.memory() <= 1 << 20);
        self.ended.clear();
    }

    fn packet(&mut self, now: Timestamp, packet: &Packet<'_>, nested: u8) {
        if packet.checksum_invalid() {
            return;
        }
        if packet.ip.fragment.is_some() {
            let whole = match self.defrag.fragment(now, 0, packet, self.enforce) {
                bulkhead_net::Defragged::Whole(whole) => whole.to_vec(),
                other => {
                    *self.outcomes.entry(if other.passes() { "fragment kept" } else { "fragment refused" }).or_default() += 1;
                    return;
                }
            };
            if nested == 0
                && let Decoded::Packet(datagram) = self.decoder.datagram(packet, &whole)
            {
                *self.outcomes.entry("datagram").or_default() += 1;
                self.packet(now, &datagram, 1);
            }
            return;
        }
        let found = self.flows.lookup(now, 0, 0, packet, &mut (), &mut self.ended, |_| ());
        if let (Some(tcp), Some(flow)) = (packet.tcp(), self.flows.get_mut(found.flow)) {
            let stream = flow.tcp.get_or_insert_with(|| Box::new(self.reassembler.open(self.enforce, found.handshake.as_ref())));
            let outcome = self.reassembler.segment(stream, now, found.dir, tcp, packet.payload, &mut self.sink);
            *self.outcomes.entry(outcome.event().unwrap_or("taken")).or_default() += 1;
        }
        self.flows.settle(found.flow);
    }
}

fn captures() -> Option<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?.join("../shared/data/pcaps");
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.len() <= FILE_BYTES_MAX => files.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    files.sort();
    Some(files)
}

/// The frames of a capture in either format: time in microseconds, link type number, bytes. What cannot be read
/// ends it: the file may be broken on purpose.
fn frames(path: &Path) -> Vec<(u64, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let Ok(file) = std::fs::File::open(path) else { return all };
    let Ok(mut reader) = pcap_parser::create_reader(1 << 18, file) else { return all };
    let mut links: Vec<u32> = Vec::new();
    let mut refills = 0;
    while all.len() < FRAMES_MAX {
        match reader.next() {
            Ok((read, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network.0 as u32],
                    PcapBlockOwned::Legacy(packet) => {
                        let time = u64::from(packet.ts_sec) * 1_000_000 + u64::from(packet.ts_usec);
                        all.push((time, links.first().copied().unwrap_or(1), packet.data.to_vec()));
                    }
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype.0 as u32),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        all.push((time, links.get(packet.if_id as usize).copied().unwrap_or(1), packet.data.to_vec()));
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(read);
                refills = 0;
            }
            Err(PcapError::Incomplete(_)) if refills < 4 => {
                refills += 1;
                if reader.refill().is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    all
}

fn mutate(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    match random.below(5) {
        0 => bytes.truncate(random.below(frame.len() + 1)),
        1 => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        // Headers are what decides: most changes within the first bytes.
        2 => {
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len().min(80));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)];
                }
            }
        }
        3 => {
            let at = random.below(bytes.len() + 1);
            let extra: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, extra);
        }
        _ => {
            let from = random.below(bytes.len() + 1);
            let to = (from + random.below(30)).min(bytes.len());
            bytes.drain(from..to);
        }
    }
    bytes
}

#[test]
fn real_captures_whole_truncated_and_mutated() {
    let Some(files) = captures().filter(|files| !files.is_empty()) else {
        println!("NOT RUN: real_captures_whole_truncated_and_mutated (no captures at ../shared/data/pcaps)");
        return;
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut whole = Line::new(false);
    let mut broken = Line::new(true);
    let mut unread = 0;
    for file in &files {
        for (time, dlt, frame) in frames(file) {
            let Some(link) = LinkType::from_dlt(dlt) else {
                unread += 1;
                continue;
            };
            let now = Timestamp(time.saturating_mul(1000)); // A broken capture may have any time.
            whole.frame(now, FrameMeta { link, checksum: ChecksumState::Ignored, gso: false }, &frame);
            for _ in 0..3 {
                let bytes = mutate(&mut random, &frame);
                // Half of them with right checksums as far as we are told, so that more gets through.
                let checksum = if random.below(2) == 0 { ChecksumState::Unknown } else { ChecksumState::Ignored };
                broken.frame(now, FrameMeta { link, checksum, gso: random.below(20) == 0 }, &bytes);
                let choice = random.next() as u8;
                fuzz::fuzz_decode(&[&[choice][..], &bytes].concat());
            }
        }
    }
    for (name, line) in [("whole", &whole), ("mutated", &broken)] {
        println!(
            "{name}: {} frames, {} packets, {} ignored, {} malformed, {} flows, {} stream bytes, outcomes {:?}",
            line.frames, line.packets, line.ignored, line.malformed, line.flows.stats.created, line.sink.bytes, line.outcomes
        );
        assert_eq!(line.decoder.stats.malformed, line.malformed);
        assert_eq!(line.decoder.stats.ignored, line.ignored);
        assert!(line.packets + line.ignored + line.malformed >= line.frames);
    }
    println!("{} files, {unread} frames of link types that are not read", files.len());
    // Real traffic is not malformed, but for the captures that were made to be.
    assert!(whole.packets > 10_000 && whole.malformed * 20 < whole.frames, "{} of {} frames are malformed", whole.malformed, whole.frames);
    assert!(broken.malformed * 50 > broken.frames);
    assert!(whole.sink.bytes > 1 << 20);
}

/// Frames made here, mutated by seed, so that something runs where there are no captures.
#[test]
fn crafted_frames_mutated_by_seed() {
    use bulkhead_net::craft::{self, Segment};
    let (a, b) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let (a6, b6) = ("2001:db8::1".parse().expect("an address"), "2001:db8::2".parse().expect("an address"));
    let mut seeds = Vec::new();
    for (src, dst) in [(a, b), (a6, b6)] {
        let segment = Segment {
            src_port: 5,
            dst_port: 80,
            options: &[2, 4, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            payload: b"GET / HTTP/1.1",
            ..Segment::default()
        };
        let tcp = craft::tcp(src, dst, &segment);
        seeds.push(craft::udp(src, dst, 5, 4789, &[&[8, 0, 0, 0, 0, 0, 5, 0][..], &craft::ethernet([1; 6], [2; 6], &tcp)].concat()));
        seeds.push(craft::ip(src, dst, 41, &craft::icmp(a6, b6, 1, 0, &[&[0; 4][..], &craft::udp(b6, a6, 1, 2, b"x")].concat())));
        seeds.push(craft::ip(src, dst, 47, &[&[0x30, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2][..], &craft::udp(a, b, 1, 2, b"x")].concat()));
        seeds.push(craft::fragment(src, dst, 17, 9, 1480, true, &[7; 64]));
        seeds.push(tcp);
    }
    let chain =
        [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[43, 0, 5, 2, 0, 0, 1, 0], &[44, 0, 2, 0, 0, 0, 0, 0], &[6, 0, 0, 1, 0, 0, 0, 9], &[0; 24]]
            .concat();
    seeds.push(craft::ip(a6, b6, 0, &chain));
    let mut random = Random(77);
    let mut line = Line::new(true);
    for round in 0..20_000u64 {
        let seed = &seeds[random.below(seeds.len())];
        let mut bytes = mutate(&mut random, seed);
        if random.below(2) == 0 {
            bytes = mutate(&mut random, &bytes);
        }
        let frame = craft::ethernet([1; 6], [2; 6], &bytes);
        let checksum = if random.below(2) == 0 { ChecksumState::Unknown } else { ChecksumState::Ignored };
        line.frame(Timestamp(round * 1_000_000), FrameMeta { checksum, ..FrameMeta::default() }, &frame);
        fuzz::fuzz_decode(&[&[random.next() as u8 & 0x38 | 1][..], &bytes].concat());
    }
    assert!(line.malformed > 1000 && line.packets > 1000, "{} malformed, {} packets", line.malformed, line.packets);
}

/// Random programs for the fuzz bodies; the committed corpus first.
#[test]
fn fuzz_bodies_over_the_corpus_and_random_bytes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(corpus)
        .expect("the corpus is part of the repository")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect();
    assert!(!inputs.is_empty());
    let mut random = Random(4711);
    for _ in 0..3000 {
        let len = random.below(600);
        inputs.push((0..len).map(|_| (random.next() >> 32) as u8).collect());
    }
    for input in &inputs {
        fuzz::fuzz_decode(input);
        fuzz::fuzz_defrag(input);
        fuzz::fuzz_stream(input);
    }
}
