//! Frames made by hand, conversations, and captures read from files.
#![allow(dead_code)] // Each test file uses its part.

pub mod capture;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_ips::{
    AlertEvent, ChecksumState, EngineEvent, HomeSide, LinkType, Outcome, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source,
};
use bulkhead_model::{Timestamp, WorkloadId};
use bulkhead_rules::{Classification, Variables};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub fn data(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?;
    let path = root.join("../shared/data").join(path);
    path.exists().then_some(path)
}

pub fn ruleset(text: &str) -> Arc<Ruleset> {
    let file = bulkhead_rules::parse(text);
    assert!(file.diagnostics.iter().all(|found| found.severity == bulkhead_rules::Severity::Warning), "{:?}", file.diagnostics);
    let done = Ruleset::compile(&[Source { name: "test.rules", rules: &file.rules }], &Variables::default(), &Classification::builtin());
    assert!(done.diagnostics.is_empty(), "{:?}", done.diagnostics);
    done.ruleset
}

pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, proto, 0, 0];
    ip.extend(src.octets());
    ip.extend(dst.octets());
    let total = (20 + payload.len()) as u16;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = !ones(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend_from_slice(payload);
    ip
}

pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend_from_slice(ip);
    frame
}

fn ones(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn with_checksum(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, at: usize, mut segment: Vec<u8>) -> Vec<u8> {
    let mut pseudo = Vec::new();
    pseudo.extend(src.octets());
    pseudo.extend(dst.octets());
    pseudo.extend([0, proto]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    let sum = !ones(&segment, u32::from(ones(&pseudo, 0)));
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    pub src: (Ipv4Addr, u16),
    pub dst: (Ipv4Addr, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
}

impl Tcp {
    pub fn frame(self, payload: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.src.1.to_be_bytes());
        segment.extend(self.dst.1.to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        let segment = with_checksum(self.src.0, self.dst.0, 6, 16, segment);
        ethernet(&ipv4(self.src.0, self.dst.0, 6, &segment))
    }
}

pub fn udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(src.1.to_be_bytes());
    datagram.extend(dst.1.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(payload);
    ethernet(&ipv4(src.0, dst.0, 17, &with_checksum(src.0, dst.0, 17, 6, datagram)))
}

pub fn icmp(src: Ipv4Addr, dst: Ipv4Addr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(rest);
    let sum = !ones(&message, 0);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ethernet(&ipv4(src, dst, 1, &message))
}

/// A pipeline and a clock that ticks a millisecond per packet.
pub struct Bench {
    pub pipeline: Pipeline,
    pub now: Timestamp,
    pub protect: bool,
    /// Who is the protected workload.
    pub home: Option<Ipv4Addr>,
    /// Packets of the flow passed unseen before the next one.
    pub gap: bool,
    pub events: Vec<EngineEvent>,
}

impl Bench {
    pub fn new(rules: &str) -> Self {
        Self::with(PipelineConfig::default(), rules)
    }

    pub fn with(config: PipelineConfig, rules: &str) -> Self {
        Self::running(config, ruleset(rules))
    }

    pub fn running(config: PipelineConfig, ruleset: Arc<Ruleset>) -> Self {
        let pipeline = Pipeline::new(config, ruleset, 7);
        Self { pipeline, now: Timestamp::from_secs(1_700_000_000), protect: true, home: None, gap: false, events: Vec::new() }
    }

    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        self.now.0 += 1_000_000;
        let at_home = |at: usize| self.home.is_some_and(|home| frame.get(at..at + 4) == Some(&home.octets()[..]));
        let meta = PacketMeta {
            checksum: ChecksumState::Unknown,
            src: WorkloadId(2),
            dst: WorkloadId(3),
            home: HomeSide { source: at_home(26), destination: at_home(30) },
            gap: std::mem::take(&mut self.gap),
            foreign: false,
            ..PacketMeta::captured(LinkType::Ethernet, frame.len() as u32, self.protect)
        };
        let outcome = self.pipeline.packet(self.now, &meta, frame, &mut ());
        self.events.extend(self.pipeline.drain_events());
        outcome
    }

    /// Sids of the alerts so far.
    pub fn sids(&self) -> Vec<u32> {
        self.alerts().iter().map(|alert| alert.rule.sid).collect()
    }

    pub fn alerts(&self) -> Vec<&AlertEvent> {
        self.events
            .iter()
            .filter_map(|event| match event {
                EngineEvent::Alert(alert) => Some(alert),
                EngineEvent::Drop(_) | EngineEvent::FlowEnd(_) | EngineEvent::Anomaly(_) => None,
                EngineEvent::Transaction(_) | EngineEvent::File(_) => None,
            })
            .collect()
    }
}

/// A TCP connection between [`CLIENT`] and [`SERVER`].
pub struct Connection {
    pub client: (Ipv4Addr, u16),
    pub server: (Ipv4Addr, u16),
    pub client_seq: u32,
    pub server_seq: u32,
}

impl Connection {
    pub fn new(client_port: u16, server_port: u16) -> Self {
        Self { client: (CLIENT, client_port), server: (SERVER, server_port), client_seq: 1000, server_seq: 9000 }
    }

    /// Handshake; gives the last outcome.
    pub fn open(&mut self, bench: &mut Bench) -> Outcome {
        bench.send(&Tcp { src: self.client, dst: self.server, seq: 999, ack: 0, flags: SYN }.frame(b""));
        bench.send(&Tcp { src: self.server, dst: self.client, seq: 8999, ack: 1000, flags: SYN | ACK }.frame(b""));
        bench.send(&self.client_says(0, ACK, b""))
    }

    pub fn client_says(&self, ahead: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        Tcp { src: self.client, dst: self.server, seq: self.client_seq + ahead, ack: self.server_seq, flags }.frame(payload)
    }

    pub fn server_says(&self, ahead: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        Tcp { src: self.server, dst: self.client, seq: self.server_seq + ahead, ack: self.client_seq, flags }.frame(payload)
    }

    pub fn request(&mut self, bench: &mut Bench, payload: &[u8]) -> Outcome {
        let outcome = bench.send(&self.client_says(0, PSH | ACK, payload));
        self.client_seq += payload.len() as u32;
        outcome
    }

    pub fn reply(&mut self, bench: &mut Bench, payload: &[u8]) -> Outcome {
        let outcome = bench.send(&self.server_says(0, PSH | ACK, payload));
        self.server_seq += payload.len() as u32;
        outcome
    }
}

/// Numbers without chance: xorshift.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}
