//! The engine alone, on traffic made here: throughput, processor time for each packet, load time and memory, over how many
//! rules are loaded and how many workers there are; and where its instructions go ([`stages`]).
//!
//! The traffic has the shape of the captures that the reference engine was measured on ([`traffic`]). All packets are judged,
//! acknowledgements too, which the live path keeps in the kernel; every flow ends, and none is let go because no rule can match.
//!
//! Each set of rules is measured in a process of its own, so that the memory of one row is not the leavings of another. What
//! is resident after loading is the whole process with its rules; at the end the traffic's own bytes are taken off.

pub mod stages;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_ips::{Checksums, EngineEvent, LinkType, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source};
use bulkhead_model::Timestamp;
use bulkhead_rules::{Classification, Rule, Variables};
use serde_json::{Value, json};

use crate::figures::mib;
use crate::{Error, Report, Stop, host};
use traffic::{Attacks, Load, Traffic};

/// The engine alone: Gbit/s, processor time for each packet, load time and memory, by rules and workers
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

    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Load::Api, Load::Mix])]
    loads: Vec<Load>,

    #[command(flatten)]
    made: Made,

    /// Measure one load with one set of rules in this process, and print the figures as JSON
    #[arg(long, hide = true)]
    here: bool,
}

/// What the traffic is made of.
#[derive(Debug, Clone, clap::Args)]
pub struct Made {
    /// Packets of each load [default: as many as the reference's capture has]
    #[arg(long, value_name = "N")]
    packets: Option<usize>,

    /// Requests of the Core Rule Set's tests, one JSON object a line; without it the attacks are of two kinds
    #[arg(long, value_name = "FILE")]
    attacks: Option<PathBuf>,

    /// Where the captures of `real` lie
    #[arg(long, value_name = "DIRECTORY", required_if_eq("loads", "real"))]
    captures: Option<PathBuf>,
}

impl Made {
    fn traffic(&self, load: Load, shards: usize) -> Result<Traffic, Error> {
        let packets = self.packets.unwrap_or(load.packets());
        if let (Load::Real, Some(captures)) = (load, &self.captures) {
            return Traffic::of_captures(captures, packets, shards);
        }
        let attacks = match &self.attacks {
            Some(file) => Attacks::read(file)?,
            None => Attacks::built_in(),
        };
        Ok(Traffic::make(load, packets, shards, &attacks))
    }

    /// The same for a child of this process.
    fn hand_on(&self, command: &mut Command) {
        if let Some(packets) = self.packets {
            command.arg("--packets").arg(packets.to_string());
        }
        for (option, path) in [("--attacks", &self.attacks), ("--captures", &self.captures)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
    }
}

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    if args.here {
        let rows = measure(args)?;
        return Ok(Report { markdown: rows.to_string(), json: rows });
    }
    let mut markdown = String::from(
        "| load | rules | workers | Gbit/s | packets/s | µs of processor a packet | alerts | load time (s) | resident after loading | resident at the end |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut rows = Vec::new();
    for load in &args.loads {
        let mut of_traffic = String::new();
        for count in &args.counts {
            stop.check()?;
            for row in child(args, *load, *count)? {
                markdown += &line(&row);
                of_traffic = format!("| {} | | | | | | | | {} packets, {} | |\n", load.name(), row["packets"], mib(number(&row["bytes"])));
                rows.push(row);
            }
        }
        markdown += &of_traffic;
    }
    Ok(Report { markdown, json: json!({ "host": host::facts(), "rows": rows }) })
}

fn line(row: &Value) -> String {
    let real = |name: &str| row[name].as_f64().unwrap_or(0.0);
    format!(
        "| {} | {} | {} | {:.2} | {:.0} | {:.2} | {} | {:.2} | {} | {} |\n",
        row["load"].as_str().unwrap_or_default(),
        row["rules"],
        row["workers"],
        real("gbit_per_s"),
        real("packets_per_s"),
        real("cpu_us_per_packet"),
        row["alerts"],
        real("load_s"),
        mib(number(&row["rss_loaded_bytes"])),
        mib(number(&row["rss_end_bytes"]))
    )
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// One load with one set of rules, in a process of its own.
fn child(args: &Args, load: Load, count: usize) -> Result<Vec<Value>, Error> {
    let mut command = myself("engine")?;
    command.args(["--here", "--loads", load.name(), "--counts"]).arg(count.to_string()).arg("--rules").arg(&args.rules);
    command.arg("--workers").arg(args.workers.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    args.made.hand_on(&mut command);
    let text = finish(&mut command)?;
    serde_json::from_str::<Vec<Value>>(&text).map_err(|error| unreadable(&error, &text))
}

fn unreadable(error: &serde_json::Error, text: &str) -> Error {
    Error::Unreadable { program: "bulkhead-benches".into(), output: format!("{error}: {}", text.chars().take(200).collect::<String>()) }
}

/// This program again, which holds the lock for it.
fn myself(verb: &str) -> Result<Command, Error> {
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let mut command = Command::new(program);
    command.arg(verb);
    Ok(command)
}

fn finish(command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(Error::io("start a child"))?;
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(text.into_owned())
    } else {
        Err(Error::Failed { program: "bulkhead-benches".into(), output: said.into_owned() })
    }
}

/// The rows of one load and one set of rules, by workers.
fn measure(args: &Args) -> Result<Value, Error> {
    let [load, ..] = args.loads[..] else { return Ok(json!([])) };
    let count = args.counts.first().copied().unwrap_or(0);
    let own = std::process::id();
    let began = Instant::now();
    let (ruleset, loaded) = compile(&args.rules, count)?;
    let load_time = began.elapsed();
    // As the agent does.
    bulkhead_sys::memory::give_back();
    let after_loading = host::memory(own)?;
    let most = args.workers.iter().copied().max().unwrap_or(1).max(1);
    let traffic = args.made.traffic(load, most)?;
    let made = host::memory(own)?.rss.saturating_sub(after_loading.rss);
    let mut rows = Vec::new();
    for workers in &args.workers {
        let run = traffic.judge(&ruleset, (*workers).clamp(1, most));
        let end = host::memory(own)?.rss.saturating_sub(made);
        rows.push(json!({
            "load": load.name(), "rules": loaded, "workers": workers,
            "gbit_per_s": traffic.bytes as f64 * 8.0 / 1e9 / run.wall.as_secs_f64(),
            "packets_per_s": traffic.packets as f64 / run.wall.as_secs_f64(),
            "cpu_us_per_packet": run.cpu.as_secs_f64() * 1e6 / traffic.packets as f64,
            "alerts": run.alerts, "load_s": load_time.as_secs_f64(),
            "rss_loaded_bytes": after_loading.rss, "rss_loading_bytes_max": after_loading.rss_max, "rss_end_bytes": end,
            "packets": traffic.packets, "bytes": traffic.bytes,
        }));
    }
    Ok(Value::Array(rows))
}

/// The first `count` rules of a file, and how many of them are in force.
fn compile(file: &Path, count: usize) -> Result<(Arc<Ruleset>, usize), Error> {
    let text = fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
    let text = String::from_utf8_lossy(&text);
    Ok(compile_text(&text, count))
}

fn compile_text(text: &str, count: usize) -> (Arc<Ruleset>, usize) {
    let mut rules: Vec<Rule> = if count == 0 { Vec::new() } else { bulkhead_rules::parse_signatures(text).rules };
    rules.truncate(count);
    let mut variables = Variables::default();
    for name in ["HOME_NET", "EXTERNAL_NET"] {
        variables.addresses.insert(name.into(), "any".into());
    }
    let compiled = Ruleset::compile(&[Source { name: "rules", rules: &rules }], &variables, &Classification::builtin());
    let loaded = compiled.ruleset.rules().count();
    (compiled.ruleset, loaded)
}

/// What came of one run.
struct Run {
    wall: Duration,
    /// Of all workers.
    cpu: Duration,
    alerts: u64,
}

impl Traffic {
    fn judge(&self, ruleset: &Arc<Ruleset>, workers: usize) -> Run {
        let barrier = Barrier::new(workers + 1);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let (barrier, ruleset) = (&barrier, Arc::clone(ruleset));
                    scope.spawn(move || {
                        let mut pipeline = pipeline(ruleset);
                        barrier.wait();
                        let before = thread_time();
                        let alerts = self.shards.iter().skip(worker).step_by(workers).map(|shard| judge_shard(&mut pipeline, shard)).sum();
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

/// As the reference engine was run: all bytes of a megabyte of each direction, checksums not looked at.
fn pipeline(ruleset: Arc<Ruleset>) -> Pipeline {
    let config = PipelineConfig {
        bypass_no_rule: false,
        stream_depth: 1 << 20,
        checksum: Checksums::Ignore,
        flow_events: false,
        ..PipelineConfig::default()
    };
    Pipeline::new(config, ruleset, traffic::SEED)
}

/// Alerts. A function of its own, so that instructions can be counted in it alone.
#[inline(never)]
fn judge_shard(pipeline: &mut Pipeline, shard: &traffic::Shard) -> u64 {
    let (mut now, mut alerts) = (Timestamp::from_secs(1_700_000_000), 0);
    for frame in shard.frames() {
        now.0 += 2_000;
        let meta = PacketMeta::captured(LinkType::Ethernet, frame.len() as u32, false);
        let _ = pipeline.packet(now, &meta, frame, &mut ()); // only what it costs is asked
        alerts += pipeline.drain_events().filter(|event| matches!(event, EngineEvent::Alert(_))).count() as u64;
    }
    alerts
}

/// Time of this thread on a processor: the first number of its `schedstat` (Documentation/scheduler/sched-stats.rst).
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_ascii_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_judged_as_what_it_is() {
        let rule = "alert http any any -> any any (msg:\"an attack\"; http.uri; content:\"union select\"; sid:1;)\n\
                    alert http any any -> any any (msg:\"a page\"; file.data; content:\"<p class=|22|text|22|>\"; sid:2;)";
        let (ruleset, loaded) = compile_text(rule, 10);
        assert_eq!(loaded, 2);
        for workers in [1, 2] {
            let traffic = Traffic::make(Load::Mix, 20_000, 2, &Attacks::built_in());
            let having = |what: &[u8]| {
                let frames = traffic.shards.iter().flat_map(|shard| shard.frames());
                frames.filter(|frame| frame.windows(what.len()).any(|window| window == what)).count() as u64
            };
            let (requests, attacks) = (having(b"HTTP/1.1\r\nHost: "), having(b"/../../"));
            let run = traffic.judge(&ruleset, workers);
            assert!(attacks > 0 && requests > 500);
            assert_eq!(run.alerts, attacks + requests, "each attack and each page, compressed or not");
        }
    }
}
