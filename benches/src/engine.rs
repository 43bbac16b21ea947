//! The engine alone, on traffic made here: throughput, processor time for each packet, load time and memory, over how many
//! rules are loaded and how many workers there are.
//!
//! The traffic is HTTP with as many packets of each kind as real captures have that the reference engine was measured on:
//! `small` is an API (a short question and a short answer in JSON, twenty on a connection, 320 bytes a packet), `mix` is pages
//! (2 to 30 KB of text, half of them compressed, 850 bytes a packet, one request in a hundred an attack). All packets are
//! judged, acknowledgements too, which the live path keeps in the kernel. Every flow ends, and none is let go early.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_ips::{EngineEvent, LinkType, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source};
use bulkhead_model::Timestamp;
use bulkhead_net::craft::{self, Segment};
use bulkhead_net::decode::TcpFlags;
use bulkhead_rules::{Classification, Rule, Variables};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::figures::mib;
use crate::{Error, Report, Stop, host};

/// The engine alone: Gbit/s and processor time for each packet, by rules and workers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A rule file; its first N rules are loaded for each row
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,

    /// How many rules, with commas; more than there are: all
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [0, 1000, 10_000, 1_000_000])]
    counts: Vec<usize>,

    /// How many workers, with commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<usize>,

    /// Packets of each load
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    packets: usize,

    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Load::Small, Load::Mix])]
    loads: Vec<Load>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    /// Short questions and answers in JSON
    Small,
    /// Pages, half of them compressed
    Mix,
}

/// Connections that are open at a time.
const TOGETHER: usize = 256;
const MSS: usize = 1448;
const SEED: u64 = 0x0b0a_dcab;

/// What came of one run.
struct Run {
    wall: Duration,
    /// Of all workers.
    cpu: Duration,
    alerts: u64,
}

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    let text = fs::read(&args.rules).map_err(Error::io(format!("read {}", args.rules.display())))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let own = std::process::id();
    let mut markdown = String::from(
        "| load | rules | workers | Gbit/s | packets/s | µs of processor a packet | alerts | load time (s) | memory of the rules |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut rows = Vec::new();
    for load in &args.loads {
        let most = args.workers.iter().copied().max().unwrap_or(1).max(1);
        let traffic = Arc::new(Traffic::make(*load, args.packets, most));
        for count in &args.counts {
            stop.check()?;
            let before = host::memory(own)?.rss;
            let began = Instant::now();
            let (ruleset, loaded) = compile(&text, *count);
            let load_time = began.elapsed();
            let memory = host::memory(own)?.rss.saturating_sub(before);
            for workers in &args.workers {
                stop.check()?;
                let run = traffic.judge(&ruleset, (*workers).clamp(1, most));
                let gbit = traffic.bytes as f64 * 8.0 / 1e9 / run.wall.as_secs_f64();
                let rate = traffic.packets as f64 / run.wall.as_secs_f64();
                let each = run.cpu.as_secs_f64() * 1e6 / traffic.packets as f64;
                let name = load.name();
                markdown += &format!(
                    "| {name} | {loaded} | {workers} | {gbit:.2} | {rate:.0} | {each:.2} | {} | {:.2} | {} |\n",
                    run.alerts,
                    load_time.as_secs_f64(),
                    mib(memory)
                );
                rows.push(json!({
                    "load": name, "rules": loaded, "workers": workers, "gbit_per_s": gbit, "packets_per_s": rate, "cpu_us_per_packet": each,
                    "alerts": run.alerts, "load_s": load_time.as_secs_f64(), "rules_bytes": memory,
                    "packets": traffic.packets, "bytes": traffic.bytes,
                }));
            }
        }
        markdown += &format!("| {} | | | | | | | | {} packets, {} |\n", load.name(), traffic.packets, mib(traffic.bytes));
    }
    Ok(Report { markdown, json: json!({ "host": host::facts(), "rows": rows }) })
}

/// The first `count` rules, and how many of them are in force.
fn compile(text: &str, count: usize) -> (Arc<Ruleset>, usize) {
    let mut rules: Vec<Rule> = if count == 0 { Vec::new() } else { bulkhead_rules::parse(text).rules };
    rules.truncate(count);
    let mut variables = Variables::default();
    for name in ["HOME_NET", "EXTERNAL_NET"] {
        variables.addresses.insert(name.into(), "any".into());
    }
    let compiled = Ruleset::compile(&[Source { name: "rules", rules: &rules }], &variables, &Classification::builtin());
    let loaded = compiled.ruleset.rules().count();
    (compiled.ruleset, loaded)
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Mix => "mix",
        }
    }
}

/// Frames in the order in which they come, by the shard that their flow belongs to.
struct Traffic {
    shards: Vec<Vec<Box<[u8]>>>,
    packets: u64,
    bytes: u64,
}

impl Traffic {
    fn make(load: Load, packets: usize, shards: usize) -> Self {
        let mut dice = Dice(SEED);
        let words = dictionary(&mut dice);
        let mut made = Self { shards: vec![Vec::new(); shards], packets: 0, bytes: 0 };
        let mut open: Vec<(usize, std::vec::IntoIter<Vec<u8>>)> = Vec::new();
        let mut number = 0;
        while (made.packets as usize) < packets || !open.is_empty() {
            while open.len() < TOGETHER && (made.packets as usize) < packets {
                open.push((number % shards, conversation(load, number, &words, &mut dice).into_iter()));
                number += 1;
            }
            open.retain_mut(|(shard, frames)| match frames.next() {
                Some(frame) => {
                    made.packets += 1;
                    made.bytes += frame.len() as u64;
                    made.shards[*shard].push(frame.into_boxed_slice());
                    true
                }
                None => false,
            });
        }
        made
    }

    fn judge(&self, ruleset: &Arc<Ruleset>, workers: usize) -> Run {
        let barrier = Barrier::new(workers + 1);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let (barrier, ruleset) = (&barrier, Arc::clone(ruleset));
                    scope.spawn(move || {
                        let config = PipelineConfig { bypass_no_rule: false, ..PipelineConfig::default() };
                        let mut pipeline = Pipeline::new(config, ruleset, SEED);
                        let (mut now, mut alerts) = (Timestamp::from_secs(1_700_000_000), 0);
                        barrier.wait();
                        let before = thread_time();
                        for shard in self.shards.iter().skip(worker).step_by(workers) {
                            for frame in shard {
                                now.0 += 2_000;
                                let meta = PacketMeta::captured(LinkType::Ethernet, frame.len() as u32, false);
                                let _ = pipeline.packet(now, &meta, frame, &mut ());
                                alerts += pipeline.drain_events().filter(|event| matches!(event, EngineEvent::Alert(_))).count() as u64;
                            }
                        }
                        (thread_time().saturating_sub(before), alerts)
                    })
                })
                .collect();
            barrier.wait();
            let began = Instant::now();
            let done: Vec<(Duration, u64)> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
            Run { wall: began.elapsed(), cpu: done.iter().map(|(cpu, _)| *cpu).sum(), alerts: done.iter().map(|(_, alerts)| alerts).sum() }
        })
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// One connection from its SYN to its last acknowledgement.
fn conversation(load: Load, number: usize, words: &[String], dice: &mut Dice) -> Vec<Vec<u8>> {
    let client = Ipv4Addr::new(203, 0, 113, 1 + (number / 50_000 % 200) as u8);
    let mut link = Link {
        client: (client.into(), 1024 + (number % 50_000) as u16),
        server: (Ipv4Addr::new(198, 51, 100, 7).into(), 80),
        seq: [dice.next() as u32, dice.next() as u32],
        frames: Vec::new(),
    };
    link.send(0, TcpFlags::SYN, &[]);
    link.send(1, both(TcpFlags::SYN), &[]);
    link.send(0, TcpFlags::ACK, &[]);
    let requests = match load {
        Load::Small => 20,
        Load::Mix => 4,
    };
    for _ in 0..requests {
        let (request, response) = match load {
            Load::Small => (api_request(words, dice), api_response(words, dice)),
            Load::Mix => (page_request(words, dice), page_response(words, dice)),
        };
        link.say(0, &request);
        link.say(1, &response);
    }
    link.send(0, both(TcpFlags::FIN), &[]);
    link.send(1, both(TcpFlags::FIN), &[]);
    link.send(0, TcpFlags::ACK, &[]);
    link.frames
}

/// With an acknowledgement.
const fn both(flags: TcpFlags) -> TcpFlags {
    TcpFlags(flags.0 | TcpFlags::ACK.0)
}

struct Link {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    /// The next byte of the client, of the server.
    seq: [u32; 2],
    frames: Vec<Vec<u8>>,
}

impl Link {
    /// In segments; every second one is acknowledged.
    fn say(&mut self, from: usize, bytes: &[u8]) {
        let count = bytes.len().div_ceil(MSS);
        for (number, piece) in bytes.chunks(MSS).enumerate() {
            self.send(from, both(TcpFlags::PSH), piece);
            if number % 2 == 1 || number + 1 == count {
                self.send(1 - from, TcpFlags::ACK, &[]);
            }
        }
    }

    fn send(&mut self, from: usize, flags: TcpFlags, payload: &[u8]) {
        let (src, dst) = if from == 0 { (self.client, self.server) } else { (self.server, self.client) };
        let ack = if flags.contains(TcpFlags::ACK) { self.seq[1 - from] } else { 0 };
        let segment =
            Segment { src_port: src.1, dst_port: dst.1, seq: self.seq[from], ack, flags, window: 65_535, payload, ..Segment::default() };
        self.frames.push(craft::ethernet([2; 6], [4; 6], &craft::tcp(src.0, dst.0, &segment)));
        let flagged = u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
        self.seq[from] = self.seq[from].wrapping_add(payload.len() as u32 + flagged);
    }
}

fn api_request(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let body = format!(
        "{{\"id\":{},\"item\":\"{}\",\"note\":\"{} {}\",\"amount\":{}}}",
        dice.below(1_000_000),
        dice.pick(words),
        dice.pick(words),
        dice.pick(words),
        dice.below(500)
    );
    format!(
        "POST /api/v2/{}/{}?trace={:016x} HTTP/1.1\r\nHost: {}.svc.example\r\nUser-Agent: orders-client/1.4\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nAuthorization: Bearer {:016x}{:016x}\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
         Accept-Encoding: gzip\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{body}",
        dice.pick(words),
        dice.below(100_000),
        dice.next(),
        dice.pick(words),
        dice.next(),
        dice.next(),
        body.len()
    )
    .into_bytes()
}

fn api_response(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let body = format!(
        "{{\"status\":\"ok\",\"id\":{},\"items\":[{}],\"next\":null}}",
        dice.below(1_000_000),
        (0..10).map(|_| format!("{{\"name\":\"{}\",\"price\":{}}}", dice.pick(words), dice.below(9000))).collect::<Vec<_>>().join(",")
    );
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nX-Request-Id: {:016x}\r\nContent-Length: {}\r\n\
         Connection: keep-alive\r\n\r\n{body}",
        dice.next(),
        body.len()
    )
    .into_bytes()
}

fn page_request(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let (a, b, c) = (dice.pick(words), dice.pick(words), dice.pick(words));
    let target = match dice.below(100) {
        0 => format!("/{a}/../../../../etc/passwd?{b}=1%27%20union%20select%20{c}"),
        _ => format!("/{a}/{b}/{c}.html?page={}&q={}+{}", dice.below(100), dice.pick(words), dice.pick(words)),
    };
    format!(
        "GET {target} HTTP/1.1\r\nHost: www.{}.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate\r\nReferer: http://www.{}.example/{}\r\nCookie: session={:016x}; theme={}\r\nConnection: keep-alive\r\n\r\n",
        dice.pick(words),
        dice.pick(words),
        dice.pick(words),
        dice.next(),
        dice.pick(words)
    )
    .into_bytes()
}

fn page_response(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let length = 2_000 + dice.below(28_000);
    let mut body = String::from("<!DOCTYPE html><html><head><title>page</title></head><body>");
    while body.len() < length {
        body += "<p class=\"text\">";
        for _ in 0..20 {
            body += dice.pick(words);
            body.push(' ');
        }
        body += &format!("<a href=\"/{}/{}\">{}</a></p>\n", dice.pick(words), dice.below(10_000), dice.pick(words));
    }
    body += "</body></html>";
    let compressed = dice.below(2) == 0;
    let (encoding, body) = match compressed {
        true => ("Content-Encoding: deflate\r\n", miniz_oxide::deflate::compress_to_vec_zlib(body.as_bytes(), 6)),
        false => ("", body.into_bytes()),
    };
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: Apache/2.4.62\r\nContent-Type: text/html; charset=UTF-8\r\n{encoding}Cache-Control: no-cache\r\n\
         Set-Cookie: session={:016x}; path=/\r\nContent-Length: {}\r\n\r\n",
        dice.next(),
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}

/// Two thousand words of two to four syllables: letters as frequent as in text, none of it text.
fn dictionary(dice: &mut Dice) -> Vec<String> {
    const SYLLABLES: [&str; 32] = [
        "an", "ber", "ca", "den", "el", "for", "gra", "hin", "ing", "jo", "ker", "lan", "men", "nor", "or", "pre", "qui", "ren", "sta",
        "ter", "un", "ver", "win", "ex", "ya", "ze", "con", "dis", "ment", "tion", "ly", "ous",
    ];
    (0..2000).map(|_| (0..2 + dice.below(3)).map(|_| SYLLABLES[dice.below(SYLLABLES.len())]).collect()).collect()
}

/// xorshift64* (Vigna 2016).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }

    fn pick<'a>(&mut self, words: &'a [String]) -> &'a str {
        words.get(self.below(words.len())).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_is_the_same_each_time_and_of_the_stated_kind() {
        for (load, least, most) in [(Load::Small, 230, 330), (Load::Mix, 700, 1000)] {
            let (one, other) = (Traffic::make(load, 5_000, 2), Traffic::make(load, 5_000, 2));
            assert!(one.shards == other.shards && one.packets >= 5_000);
            let each = one.bytes / one.packets;
            assert!((least..most).contains(&each), "{}: {each} bytes a packet", load.name());
        }
    }

    #[test]
    fn what_is_sent_is_judged_as_what_it_is() {
        let rule = "alert http any any -> any any (msg:\"an attack\"; http.uri; content:\"union select\"; sid:1;)\n\
                    alert http any any -> any any (msg:\"a page\"; file.data; content:\"<p class=|22|text|22|>\"; sid:2;)";
        let (ruleset, loaded) = compile(rule, 10);
        assert_eq!(loaded, 2);
        for workers in [1, 2] {
            let traffic = Traffic::make(Load::Mix, 20_000, 2);
            let requests = traffic.shards.iter().flatten().filter(|frame| frame.windows(5).any(|w| w == b"GET /")).count() as u64;
            let attacks = traffic.shards.iter().flatten().filter(|frame| frame.windows(7).any(|w| w == b"/../../")).count() as u64;
            let run = traffic.judge(&ruleset, workers);
            assert!(attacks > 0 && requests > 500);
            assert_eq!(run.alerts, attacks + requests, "each attack and each page, compressed or not");
        }
    }
}
