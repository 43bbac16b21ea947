//! How fast one shard judges: small requests and answers of HTTP on keep-alive connections, made in memory, with the rules of a file.
//! `cargo run --release -p bulkhead-ips --example throughput -- RULES [ROUNDS]`. Numbers mean something on a quiet machine only.
#![allow(clippy::disallowed_methods)] // A measurement reads the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_ips::{LinkType, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source};
use bulkhead_model::Timestamp;
use bulkhead_net::craft::{self, Segment};
use bulkhead_net::decode::TcpFlags;
use bulkhead_rules::{Classification, Variables};

const CONNECTIONS: u16 = 200;
const REQUESTS: u32 = 50;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rules = arguments.next().map(|path| std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap_or_default();
    let rounds: u32 = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let begun = Instant::now();
    let file = bulkhead_rules::parse(&String::from_utf8_lossy(&rules));
    let parsed = begun.elapsed();
    let mut variables = Variables::default();
    for name in ["HOME_NET", "EXTERNAL_NET"] {
        variables.define(name, "any");
    }
    let compiled = Ruleset::compile(&[Source { name: "rules", rules: &file.rules }], &variables, &Classification::builtin()).ruleset;
    println!("{} rules: parsed in {parsed:?}, loaded in {:?}", compiled.len(), begun.elapsed());
    let frames = traffic();
    for (name, rules) in [("no rules", Ruleset::empty()), ("all rules", compiled)] {
        let best = (0..rounds).map(|_| run(&rules, &frames)).fold(f64::INFINITY, f64::min);
        let bits = frames.iter().map(Vec::len).sum::<usize>() as f64 * 8.0;
        let packets = frames.len() as f64;
        println!(
            "{name}: {:.2} Gbit/s, {:.2} us a packet, {} packets of {:.0} bytes",
            bits / best / 1e9,
            best / packets * 1e6,
            frames.len(),
            bits / 8.0 / packets
        );
    }
}

fn run(rules: &Arc<Ruleset>, frames: &[Vec<u8>]) -> f64 {
    let config = PipelineConfig { bypass_no_rule: false, ..PipelineConfig::default() };
    let mut pipeline = Pipeline::new(config, Arc::clone(rules), 1);
    let begun = Instant::now();
    for (number, frame) in frames.iter().enumerate() {
        let now = Timestamp(1_700_000_000_000_000_000 + number as u64 * 10_000);
        let meta = PacketMeta::captured(LinkType::Ethernet, frame.len() as u32, true);
        pipeline.packet(now, &meta, frame, &mut ());
    }
    let seconds = begun.elapsed().as_secs_f64();
    pipeline.finish(Timestamp(1_700_000_000_000_000_000));
    assert_eq!(pipeline.stats().dropped, 0);
    seconds
}

/// All connections at once, a request of each in turn.
fn traffic() -> Vec<Vec<u8>> {
    let (client, server): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let mut frames = Vec::new();
    let mut seqs = vec![(100u32, 900u32); usize::from(CONNECTIONS)];
    let segment = |from_client: bool, port: u16, seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]| {
        let (src, dst, src_port, dst_port) = if from_client { (client, server, port, 80) } else { (server, client, 80, port) };
        let segment = Segment { src_port, dst_port, seq, ack, flags, window: 0xffff, payload, ..Segment::default() };
        craft::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], &craft::tcp(src, dst, &segment))
    };
    for port in 0..CONNECTIONS {
        frames.push(segment(true, 40_000 + port, 99, 0, TcpFlags::SYN, b""));
        frames.push(segment(false, 40_000 + port, 899, 100, TcpFlags::SYN | TcpFlags::ACK, b""));
        frames.push(segment(true, 40_000 + port, 100, 900, TcpFlags::ACK, b""));
    }
    for number in 0..REQUESTS {
        for port in 0..CONNECTIONS {
            let (seq, ack) = &mut seqs[usize::from(port)];
            let request = format!(
                "GET /api/v1/items/{}?page={number}&sort=name HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: client/2.{port}\r\nAccept: application/json\r\nAuthorization: Bearer {:032x}\r\nConnection: keep-alive\r\n\r\n",
                u32::from(port) * 7 + number,
                u64::from(port).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_003,
            );
            let body = format!(
                "{{\"id\":{number},\"name\":\"thing {port}\",\"price\":12.5,\"tags\":[\"a\",\"b\"],\"stock\":{{\"berlin\":3,\"oslo\":{number}}}}}"
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\nServer: shop\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            frames.push(segment(true, 40_000 + port, *seq, *ack, TcpFlags::ACK, request.as_bytes()));
            *seq += request.len() as u32;
            frames.push(segment(false, 40_000 + port, *ack, *seq, TcpFlags::ACK, answer.as_bytes()));
            *ack += answer.len() as u32;
            frames.push(segment(true, 40_000 + port, *seq, *ack, TcpFlags::ACK, b""));
        }
    }
    frames
}
