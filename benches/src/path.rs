//! The table of `docs/PERFORMANCE.md`: the same loads with nothing, and with one thing after another put in between.
//!
//! Rows are measured in turn with `bare` before, between and after them, so that a machine that grows warm or busy shows in
//! the spread of the bares and not in a ratio. Each further round turns the order of the others round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::agent::{self, Agent, Depth, Setup};
use crate::child::TempDir;
use crate::figures::{gbit, loss, per_second, ratio, short};
use crate::host;
use crate::load::http::{self, Connections, Nginx};
use crate::load::pingpong::Placement;
use crate::load::{Ends, bulk, datagrams, pingpong};
use crate::report::{BARE, Metric, Rate, Sample, json, markdown};
use crate::scene::{Between, Scene};
use crate::suricata::Suricata;
use crate::{Error, Report, Stop, rules};

/// Throughput and latency between two containers, as ratios to the same without an agent
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One second for each measurement, one round
    #[arg(long)]
    quick: bool,

    /// Seconds for each measurement [default: 5, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: Option<u64>,

    /// How often each row is measured [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: Option<u8>,

    /// What is put in between; `bare` is always measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Row::Bare, Row::Protected, Row::Judged, Row::Default])]
    rows: Vec<Row>,

    /// Where the two ends are
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Between::Bridge, Between::Routed])]
    scene: Vec<Between>,

    /// Which loads
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Load::Bulk, Load::Pingpong, Load::Http, Load::Udp])]
    loads: Vec<Load>,

    /// Datagrams per second; after these comes as many as can be sent
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = [25_000, 50_000, 100_000])]
    udp_rates: Vec<u32>,

    #[command(flatten)]
    pub measured: Measured,
}

/// What is measured.
#[derive(Debug, clap::Args)]
pub struct Measured {
    /// The program [default: $BULKHEAD_BIN, else `bulkhead` beside this one]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,

    /// A rule file [default: twenty rules of common shape]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

impl Measured {
    pub fn setup(&self, dir: &TempDir) -> Result<Setup, Error> {
        Ok(Setup { program: agent::program(self.agent.as_deref())?, rules: self.rules(dir)? })
    }

    fn rules(&self, dir: &TempDir) -> Result<PathBuf, Error> {
        match &self.rules {
            Some(path) => path.canonicalize().map_err(Error::io(format!("find {}", path.display()))),
            None => dir.write("bench.rules", rules::small()),
        }
    }

    /// For notes: a file's name without the directories of whoever ran this.
    pub fn rules_name(&self) -> String {
        let name = self.rules.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| "twenty rules".into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Nothing in between
    Bare,
    /// Every byte of payload inspected in user space
    Protected,
    /// Flows judged at once, carried on by the kernel
    Judged,
    /// As installed: the first 1 MiB of each direction inspected
    Default,
    /// Suricata on a netfilter queue, with the same rules
    SuricataNfqueue,
}

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Bare => BARE,
            Self::Protected => "protected",
            Self::Judged => "judged",
            Self::Default => "default",
            Self::SuricataNfqueue => "suricata-nfqueue",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    Bulk,
    Pingpong,
    Http,
    Udp,
}

/// What stands between the two ends. Dropping it takes it away.
#[derive(Debug)]
enum Middle {
    Nothing,
    Agent(Agent),
    Suricata { _running: Suricata },
}

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    let seconds = args.seconds.unwrap_or(if args.quick { 1 } else { 5 });
    let rounds = usize::from(args.rounds.unwrap_or(if args.quick { 1 } else { 3 }));
    let facts = host::facts();
    let before = host::cpu_times()?;
    let mut bench = Bench {
        args,
        stop,
        dir: TempDir::new()?,
        scene: Scene::build()?,
        time: Duration::from_secs(seconds),
        samples: Vec::new(),
        proofs: Vec::new(),
        not_run: Vec::new(),
    };
    let rows = bench.runnable_rows()?;
    for &between in &args.scene {
        bench.row(between, Row::Bare, 0)?;
        for round in 0..rounds {
            let turned: Vec<Row> = if round % 2 == 0 { rows.clone() } else { rows.iter().rev().copied().collect() };
            if turned.is_empty() {
                bench.row(between, Row::Bare, round)?;
            }
            for row in turned {
                bench.row(between, row, round)?;
                bench.row(between, Row::Bare, round)?;
            }
        }
    }
    let stolen = host::cpu_times()?.stolen_since(before);
    Ok(bench.report(&facts, seconds, rounds, stolen))
}

struct Bench<'a> {
    args: &'a Args,
    stop: &'a Stop,
    // The scene goes before the directory that its processes write to.
    scene: Scene,
    dir: TempDir,
    time: Duration,
    samples: Vec<Sample>,
    /// What the agent itself says it did with the bytes of each row.
    proofs: Vec<Value>,
    not_run: Vec<String>,
}

impl Bench<'_> {
    /// All that were asked for, without those whose program is missing. A missing agent is an error: it is what we measure.
    fn runnable_rows(&mut self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for &row in &self.args.rows {
            match row {
                Row::Bare => {}
                Row::SuricataNfqueue => match Suricata::missing() {
                    Some(program) => self.not_run.push(format!("NOT RUN: row {}: {program} is not installed", row.name())),
                    None => rows.push(row),
                },
                Row::Protected | Row::Judged | Row::Default => {
                    self.args.measured.setup(&self.dir)?;
                    rows.push(row);
                }
            }
        }
        if self.args.loads.contains(&Load::Http)
            && let Some(program) = http::missing()
        {
            self.not_run.push(format!("NOT RUN: HTTP: {program} is not installed"));
        }
        Ok(rows)
    }

    fn row(&mut self, between: Between, row: Row, round: usize) -> Result<(), Error> {
        eprintln!("{}, round {}: {}", between.title(), round + 1, row.name());
        let middle = self.start(row)?;
        let values = self.measure(between)?;
        if let Middle::Agent(agent) = &middle {
            let status = agent.status()?;
            self.proofs.push(json!({
                "scene": between,
                "row": row.name(),
                "round": round,
                "coverage": agent.coverage()?,
                "rules_loaded": status.pointer("/rules/loaded"),
                "path": status.get("path"),
                "degraded": status.get("degraded"),
                "engine": status.get("engine"),
                "memory": { "rss_bytes": agent.memory()?.rss, "rss_bytes_max": agent.memory()?.rss_max },
                "cpu_seconds": agent.cpu_time()?.as_secs_f64(),
            }));
        }
        self.samples.push(Sample { between, row: row.name(), round, values });
        Ok(())
    }

    fn start(&self, row: Row) -> Result<Middle, Error> {
        let depth = match row {
            Row::Bare => return Ok(Middle::Nothing),
            Row::SuricataNfqueue => {
                let rules = self.args.measured.rules(&self.dir)?;
                return Ok(Middle::Suricata { _running: Suricata::start(self.scene.host(), &rules, &self.dir)? });
            }
            Row::Protected => Depth::All,
            Row::Judged => Depth::Judged,
            Row::Default => Depth::Default,
        };
        let setup = self.args.measured.setup(&self.dir)?;
        Ok(Middle::Agent(Agent::start(&setup, depth, self.scene.host(), &self.dir)?))
    }

    fn measure(&self, between: Between) -> Result<BTreeMap<Metric, f64>, Error> {
        let ends = Ends { client: self.scene.client()?, server: self.scene.server(between)? };
        let mut values = BTreeMap::new();
        for load in &self.args.loads {
            self.stop.check()?;
            match load {
                Load::Bulk => {
                    for streams in [1, 4] {
                        self.bulk(&ends, streams, &mut values)?;
                        self.stop.check()?;
                    }
                }
                Load::Pingpong => {
                    for placement in Placement::ALL {
                        self.stop.check()?;
                        let result = pingpong::run(&ends, placement, self.time)?;
                        values.insert(Metric::PingPong50 { placement }, result.p50_us);
                        values.insert(Metric::PingPong99 { placement }, result.p99_us);
                    }
                }
                Load::Http if http::missing().is_none() => self.http(&ends, &mut values)?,
                Load::Http => {}
                Load::Udp => self.udp(&ends, &mut values)?,
            }
        }
        Ok(values)
    }

    fn bulk(&self, ends: &Ends<'_>, streams: u8, values: &mut BTreeMap<Metric, f64>) -> Result<(), Error> {
        let before = host::cpu_times()?;
        let result = bulk::run(ends, usize::from(streams), self.time, self.dir.path())?;
        let spent = host::cpu_times()?.seconds_since(before);
        let carried = gbit(result.bytes);
        values.insert(Metric::Bulk { streams }, carried / result.seconds);
        if carried > 0.0 {
            values.insert(Metric::BulkCpu { streams }, spent / carried);
            if let Some(retransmits) = result.retransmits {
                values.insert(Metric::BulkRetransmits { streams }, retransmits as f64 / carried);
            }
        }
        Ok(())
    }

    fn http(&self, ends: &Ends<'_>, values: &mut BTreeMap<Metric, f64>) -> Result<(), Error> {
        let _server = Nginx::start(ends, self.dir.path())?;
        for (connections, rate, p99) in
            [(Connections::Kept, Metric::Kept, Metric::Kept99), (Connections::OneEach, Metric::OneEach, Metric::OneEach99)]
        {
            self.stop.check()?;
            let result = http::run(ends, connections, self.time, self.dir.path())?;
            if result.errors > 0 {
                eprintln!("  {} failed requests: {}", rate.name(), result.errors);
            }
            values.insert(rate, result.requests_per_second);
            values.insert(p99, result.p99_us);
        }
        Ok(())
    }

    fn udp(&self, ends: &Ends<'_>, values: &mut BTreeMap<Metric, f64>) -> Result<(), Error> {
        let rates = self.args.udp_rates.iter().map(|&rate| Rate::PerSecond(rate)).chain([Rate::Most]);
        for rate in rates {
            self.stop.check()?;
            let bound = match rate {
                Rate::PerSecond(bound) => Some(bound),
                Rate::Most => None,
            };
            let result = datagrams::run(ends, bound, self.time)?;
            values.insert(Metric::Delivered { rate }, per_second(result.received, result.time));
            if let Some(loss) = loss(result.sent, result.received) {
                values.insert(Metric::Loss { rate }, loss * 100.0);
            }
        }
        Ok(())
    }

    fn report(&self, facts: &Value, seconds: u64, rounds: usize, stolen: f64) -> Report {
        let text =
            |name: &str| facts.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
        let mut notes = vec![
            format!(
                "Linux {}, {} processors ({}), load {} at the start. {seconds} s for each measurement, {rounds} round(s), rules: {}; \
                 bulk by {}. The hypervisor took {stolen:.1} s of processor time meanwhile. `bare`: mean of {} and half the distance of the outermost two; others: **ratio to that mean** (absolute).",
                text("kernel"),
                text("cpus"),
                text("cpu_model"),
                text("load_average_at_start"),
                self.args.measured.rules_name(),
                bulk::generator(),
                self.samples.iter().filter(|sample| sample.row == BARE).count() / self.args.scene.len().max(1),
            ),
            String::new(),
        ];
        let mut summed: BTreeMap<&str, [u64; 8]> = BTreeMap::new();
        for proof in &self.proofs {
            let sums = summed.entry(proof.get("row").and_then(Value::as_str).unwrap_or_default()).or_default();
            for (sum, pointer) in sums.iter_mut().zip(ACCOUNTS) {
                *sum += proof.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            }
        }
        for (row, sums) in summed {
            notes.push(accounted(row, sums));
        }
        notes.extend(self.not_run.iter().cloned());
        let samples: Vec<Value> = self
            .samples
            .iter()
            .map(|sample| {
                let values: serde_json::Map<String, Value> =
                    sample.values.iter().map(|(metric, value)| (metric.name(), json!(value))).collect();
                json!({ "scene": sample.between, "row": sample.row, "round": sample.round, "values": values })
            })
            .collect();
        Report {
            markdown: markdown(&self.samples, &self.args.scene, &notes),
            json: json!({
                "host": facts,
                "seconds": seconds,
                "rounds": rounds,
                "stolen_cpu_seconds": stolen,
                "rules": self.args.measured.rules_name(),
                "bulk_generator": bulk::generator(),
                "scenes": json(&self.samples, &self.args.scene),
                "samples": samples,
                "agent": self.proofs,
                "not_run": self.not_run,
            }),
        }
    }
}

/// Where in a row's account the figures stand.
const ACCOUNTS: [&str; 8] = [
    "/coverage/carried_bytes",
    "/coverage/inspected_bytes",
    "/coverage/bypassed_bytes",
    "/coverage/dropped_bytes",
    "/coverage/gap_bytes",
    "/engine/hold.frames",
    "/engine/hold.wakeups",
    "/path/held_refused",
];

/// What became of a row's bytes, in parts of those carried: the row is what it says it is. And what it took.
fn accounted(row: &str, [carried, inspected, bypassed, dropped, gap, held, wakeups, refused]: [u64; 8]) -> String {
    let percent = |part: u64| ratio(part as f64 * 100.0, carried as f64).unwrap_or(0.0);
    format!(
        "`{row}`, by the agent's own account of {:.1} GB: {:.2} % inspected, {:.2} % bypassed, {:.2} % dropped, {:.2} % unaccounted for; \
         {held} frames held, {} for each waking of a worker, {refused} found the queue full.",
        carried as f64 / 1e9,
        percent(inspected),
        percent(bypassed),
        percent(dropped),
        percent(gap),
        short(ratio(held as f64, wakeups as f64).unwrap_or(0.0)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_nothing_divides_by_nothing() {
        assert_eq!(
            accounted("protected", [2_000_000_000, 1_000_000_000, 500_000_000, 0, 0, 300, 100, 7]),
            "`protected`, by the agent's own account of 2.0 GB: 50.00 % inspected, 25.00 % bypassed, 0.00 % dropped, \
             0.00 % unaccounted for; 300 frames held, 3.00 for each waking of a worker, 7 found the queue full."
        );
        assert!(accounted("judged", [0; 8]).contains("0.00 % inspected"));
    }
}
