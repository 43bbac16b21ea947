//! Where the engine's instructions go: packets are judged under `callgrind`, and what it counted is added up by stage.
//!
//! A stage is a set of source files. `callgrind` says of each instruction in which file its line stands, inlined or not. What the
//! standard library, the C library and small helpers do is put down to whoever called them, in the proportion in which they were called;
//! only memory allocation is a row of its own. Counts do not depend on what else the machine does, and are the same each time.
//!
//! `callgrind` knows no AVX-512 and hides it from the program: the literal search is counted as it runs with AVX2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::traffic::Load;
use super::{Made, compile, finish, judge_shard, myself, number, pipeline};
use crate::child::{TempDir, installed};
use crate::{Error, Report, Stop, host};

/// Instructions for each packet, by stage
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A rule file; its first N rules are loaded
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,

    /// How many rules, with commas; more than there are: all
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [0, 1_000_000])]
    counts: Vec<usize>,

    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Load::Api, Load::Mix])]
    loads: Vec<Load>,

    #[command(flatten)]
    made: Made,

    /// Where the table of functions is written, the dearest first
    #[arg(long, value_name = "FILE")]
    functions: Option<PathBuf>,

    /// Judge one load with one set of rules in this process
    #[arg(long, hide = true)]
    here: bool,
}

/// Counted, where not said otherwise: callgrind takes a hundred times as long.
const PACKETS: usize = 20_000;
/// Rounds in which costs go up from callee to caller: calls of helpers by helpers are not deeper.
const ROUNDS: usize = 24;

/// In the order of a packet's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Decode,
    Flow,
    Stream,
    Applayer,
    Inflate,
    Prefilter,
    Candidates,
    Inspection,
    Decision,
    Allocation,
    Harness,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Decode,
        Self::Flow,
        Self::Stream,
        Self::Applayer,
        Self::Inflate,
        Self::Prefilter,
        Self::Candidates,
        Self::Inspection,
        Self::Decision,
        Self::Allocation,
        Self::Harness,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode, defrag",
            Self::Flow => "flow",
            Self::Stream => "stream",
            Self::Applayer => "application layer",
            Self::Inflate => "inflate",
            Self::Prefilter => "prefilter",
            Self::Candidates => "candidates: which rules to look at",
            Self::Inspection => "inspection of candidates",
            Self::Decision => "conditions, thresholds, verdict, events",
            Self::Allocation => "memory allocation",
            Self::Harness => "the bench itself",
        }
    }

    /// `None`: a helper, whose cost is its caller's.
    fn of(file: &str, function: &str) -> Option<Self> {
        const FILES: [(&str, Stage); 25] = [
            ("engine/net/src/decode", Stage::Decode),
            ("engine/net/src/defrag", Stage::Decode),
            ("engine/net/src/checksum", Stage::Decode),
            ("engine/net/src/flow", Stage::Flow),
            ("engine/net/src/stream", Stage::Stream),
            ("engine/applayer", Stage::Applayer),
            ("miniz_oxide", Stage::Inflate),
            ("zlib-rs", Stage::Inflate),
            ("zlib_rs", Stage::Inflate),
            ("adler", Stage::Inflate),
            ("ips/src/prefilter", Stage::Prefilter),
            ("ips/src/grams", Stage::Prefilter),
            ("platform/simd", Stage::Prefilter),
            ("ips/src/detect", Stage::Candidates),
            ("ips/src/app", Stage::Candidates),
            ("ips/src/transaction", Stage::Candidates),
            ("ips/src/transform", Stage::Inspection),
            ("ips/src/inspect", Stage::Inspection),
            ("ips/src/derive", Stage::Inspection),
            ("ips/src/pcre", Stage::Inspection),
            ("ips/src/backtrack", Stage::Inspection),
            ("regex-", Stage::Inspection),
            ("ips/src/test", Stage::Inspection),
            ("engine/ips", Stage::Decision),
            ("benches/src", Stage::Harness),
        ];
        const ALLOCATOR: [&str; 12] = [
            "malloc",
            "free",
            "calloc",
            "realloc",
            "_int_malloc",
            "_int_free",
            "_int_realloc",
            "malloc_consolidate",
            "unlink_chunk",
            "sysmalloc",
            "systrim",
            "brk",
        ];
        if ALLOCATOR.iter().any(|name| function == *name || function.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '\'']))) {
            return Some(Self::Allocation);
        }
        FILES.iter().find(|(part, _)| file.contains(part)).map(|(_, stage)| *stage)
    }
}

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    if args.here {
        return here(args);
    }
    if !installed("valgrind") {
        return Err(Error::Failed { program: "valgrind".into(), output: "it is not installed".into() });
    }
    let dir = TempDir::new()?;
    let mut columns = Vec::new();
    for load in &args.loads {
        for count in &args.counts {
            stop.check()?;
            columns.push(count_one(args, *load, *count, dir.path())?);
        }
    }
    if let Some(file) = &args.functions {
        let text: String = columns.iter().map(|column| format!("# {}\n{}", column.head, column.functions)).collect();
        std::fs::write(file, text).map_err(Error::io(format!("write {}", file.display())))?;
    }
    let mut markdown =
        format!("| instructions a packet | {} |\n", columns.iter().map(|column| column.head.as_str()).collect::<Vec<_>>().join(" | "));
    markdown += &format!("|---|{}\n", "---:|".repeat(columns.len()));
    for stage in Stage::ALL {
        let cell = |column: &Column| format!("{:.0} ({:.0} %)", column.of(stage), column.of(stage) * 100.0 / column.all().max(1.0));
        markdown += &format!("| {} | {} |\n", stage.name(), columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    markdown +=
        &format!("| **all** | {} |\n", columns.iter().map(|column| format!("**{:.0}**", column.all())).collect::<Vec<_>>().join(" | "));
    let rows: Vec<_> = columns
        .iter()
        .map(|column| {
            let stages: BTreeMap<&str, f64> = Stage::ALL.iter().map(|stage| (stage.name(), column.of(*stage))).collect();
            json!({ "head": column.head, "packets": column.packets, "instructions_per_packet": stages })
        })
        .collect();
    Ok(Report { markdown, json: json!({ "host": host::facts(), "columns": rows }) })
}

/// What the child does: load, and judge once.
fn here(args: &Args) -> Result<Report, Error> {
    let [load, ..] = args.loads[..] else { return Err(Error::Unreadable { program: "loads".into(), output: String::new() }) };
    let (ruleset, loaded) = compile(&args.rules, args.counts.first().copied().unwrap_or(0))?;
    let traffic = args.made.traffic(load, 1)?;
    let mut pipeline = pipeline(ruleset);
    let alerts: u64 = traffic.shards.iter().map(|shard| judge_shard(&mut pipeline, shard)).sum();
    let json = json!({ "rules": loaded, "packets": traffic.packets, "alerts": alerts });
    Ok(Report { markdown: json.to_string(), json })
}

struct Column {
    head: String,
    packets: u64,
    costs: BTreeMap<Stage, f64>,
    functions: String,
}

impl Column {
    /// For each packet.
    fn of(&self, stage: Stage) -> f64 {
        self.costs.get(&stage).copied().unwrap_or(0.0) / self.packets.max(1) as f64
    }

    fn all(&self) -> f64 {
        Stage::ALL.iter().map(|stage| self.of(*stage)).sum()
    }
}

fn count_one(args: &Args, load: Load, count: usize, dir: &Path) -> Result<Column, Error> {
    let counted = dir.join("callgrind.out");
    let myself = myself("stages")?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=*judge_shard*", "--compress-strings=no", "--compress-pos=no", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", counted.display())).arg(myself.get_program()).args(myself.get_args());
    command.args(["--here", "--loads", load.name(), "--counts"]).arg(count.to_string()).arg("--rules").arg(&args.rules);
    let mut made = args.made.clone();
    made.packets.get_or_insert(PACKETS);
    made.hand_on(&mut command);
    let said = finish(&mut command)?;
    let done: serde_json::Value = serde_json::from_str(said.trim())
        .map_err(|error| Error::Unreadable { program: "valgrind".into(), output: format!("{error}: {said}") })?;
    let text = std::fs::read_to_string(&counted).map_err(Error::io(format!("read {}", counted.display())))?;
    let counts = Counts::parse(&text);
    Ok(Column {
        head: format!("{}, {} rules", load.name(), done["rules"]),
        packets: number(&done["packets"]),
        costs: counts.by_stage(),
        functions: counts.dearest(number(&done["packets"]).max(1)),
    })
}

/// Who spent something: a function, or the part of it that was inlined from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Stage(Stage),
    /// A helper, by its place in [`Counts::helpers`].
    Helper(usize),
}

/// What callgrind counted.
#[derive(Debug, Default)]
struct Counts {
    /// Of each function, what stands in its own lines.
    own: BTreeMap<String, f64>,
    spent: BTreeMap<Stage, f64>,
    helpers: Vec<Helper>,
    numbers: BTreeMap<String, usize>,
}

#[derive(Debug, Default, Clone)]
struct Helper {
    own: f64,
    /// By whom it was called, and what that cost.
    callers: Vec<(Who, f64)>,
}

impl Counts {
    /// The profile format without compression: `fl=`, `fn=`, `fi=`, `fe=`, then lines of position and cost; behind `calls=` one line with
    /// what the call cost.
    fn parse(text: &str) -> Self {
        let mut counts = Self::default();
        let (mut file, mut own_file, mut function) = (String::new(), String::new(), String::new());
        let (mut called_file, mut called) = (None, String::new());
        let mut is_call = false;
        for line in text.lines() {
            if let Some((key, value)) =
                line.split_once('=').filter(|(key, _)| key.len() <= 5 && key.bytes().all(|byte| byte.is_ascii_lowercase()))
            {
                match key {
                    "fl" => (file, own_file) = (value.to_owned(), value.to_owned()),
                    "fi" | "fe" => file = value.to_owned(),
                    "fn" => {
                        (function, file) = (value.to_owned(), own_file.clone());
                        called_file = None;
                    }
                    "cfi" | "cfl" => called_file = Some(value.to_owned()),
                    "cfn" => called = value.to_owned(),
                    "calls" => is_call = true,
                    _ => {}
                }
                continue;
            }
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next().is_some_and(|position| position.bytes().all(|byte| byte.is_ascii_digit() || byte == b'x'));
            let Some(cost) = fields.next().and_then(|cost| cost.parse::<f64>().ok()).filter(|_| first) else { continue };
            let who = counts.who(&file, &own_file, &function);
            if std::mem::take(&mut is_call) {
                let callee = called_file.take().unwrap_or_else(|| file.clone());
                if let Who::Helper(helper) = counts.who(&callee, &callee, &called) {
                    counts.helpers[helper].callers.push((who, cost));
                }
                continue;
            }
            *counts.own.entry(function.clone()).or_default() += cost;
            match who {
                Who::Stage(stage) => *counts.spent.entry(stage).or_default() += cost,
                Who::Helper(helper) => counts.helpers[helper].own += cost,
            }
        }
        counts
    }

    fn who(&mut self, file: &str, own_file: &str, function: &str) -> Who {
        if let Some(stage) = Stage::of(file, function).or_else(|| Stage::of(own_file, function)).or_else(|| Stage::of(function, function)) {
            return Who::Stage(stage);
        }
        let next = self.helpers.len();
        let number = *self.numbers.entry(function.to_owned()).or_insert(next);
        if number == next {
            self.helpers.push(Helper::default());
        }
        Who::Helper(number)
    }

    /// What helpers cost goes to who called them.
    fn by_stage(&self) -> BTreeMap<Stage, f64> {
        let mut shares: Vec<BTreeMap<Stage, f64>> = vec![BTreeMap::new(); self.helpers.len()];
        for _ in 0..ROUNDS {
            for (number, helper) in self.helpers.iter().enumerate() {
                let all: f64 = helper.callers.iter().map(|(_, cost)| cost).sum();
                let mut share = BTreeMap::new();
                for (who, cost) in &helper.callers {
                    match who {
                        Who::Stage(stage) => *share.entry(*stage).or_default() += cost / all,
                        Who::Helper(caller) => {
                            for (stage, part) in &shares[*caller] {
                                *share.entry(*stage).or_default() += part * cost / all;
                            }
                        }
                    }
                }
                shares[number] = share;
            }
        }
        let mut sums = self.spent.clone();
        for (helper, share) in self.helpers.iter().zip(&shares) {
            let known: f64 = share.values().sum();
            for (stage, part) in share {
                *sums.entry(*stage).or_default() += helper.own * part / known;
            }
            if known == 0.0 {
                *sums.entry(Stage::Harness).or_default() += helper.own;
            }
        }
        sums
    }

    /// Functions by what their own lines cost for each packet.
    fn dearest(&self, packets: u64) -> String {
        let mut all: Vec<(&String, f64)> = self.own.iter().map(|(name, cost)| (name, *cost)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.iter().take(80).map(|(name, cost)| format!("{:10.1} {name}\n", cost / packets as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: &str = "events: Ir\n\nfl=/x/benches/src/engine/mod.rs\nfn=judge_shard\n10 5\ncfi=/x/crates/engine/ips/src/pipeline.rs\ncfn=packet\n\
                           calls=2 7\n11 300\n\nfl=/x/crates/engine/ips/src/pipeline.rs\nfn=packet\n7 20\nfi=/x/crates/engine/net/src/decode/mod.rs\n\
                           1 30\ncfi=/rustc/library/alloc/vec.rs\ncfn=push\ncalls=1 1\n2 100\nfe=/x/crates/engine/ips/src/pipeline.rs\n\
                           cfi=/rustc/library/alloc/vec.rs\ncfn=push\ncalls=1 1\n8 150\n\nfl=/rustc/library/alloc/vec.rs\nfn=push\n3 150\n\
                           cfi=malloc.c\ncfn=malloc\ncalls=2 1\n4 100\n\nfl=malloc.c\nfn=malloc\n1 100\n\ntotals: 305\n";

    #[test]
    fn helpers_are_put_down_to_who_called_them() {
        let sums = Counts::parse(COUNTED).by_stage();
        assert_eq!(sums[&Stage::Harness], 5.0);
        assert_eq!(sums[&Stage::Allocation], 100.0);
        // Of the 150 of `push`, two fifths were called from decoding.
        assert_eq!(sums[&Stage::Decode], 30.0 + 60.0);
        assert_eq!(sums[&Stage::Decision], 20.0 + 90.0);
        assert_eq!(sums.values().sum::<f64>(), 305.0);
    }
}
