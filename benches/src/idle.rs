//! What an agent costs that has nothing to do.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{Agent, Depth};
use crate::child::TempDir;
use crate::figures::mib;
use crate::path::Measured;
use crate::scene::Scene;
use crate::{Error, Report, Stop, host};

/// Memory and processor time of an agent with three armed interfaces and no traffic
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it is watched
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    #[command(flatten)]
    measured: Measured,
}

/// After the start, before the watching: its first looks at everything are made.
const SETTLE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(200);

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    let facts = host::facts();
    let dir = TempDir::new()?;
    let setup = args.measured.setup(&dir)?;
    let scene = Scene::build()?;
    let began = Instant::now();
    let agent = Agent::start(&setup, Depth::Default, scene.host(), &dir)?;
    let start = began.elapsed();
    pause(SETTLE, stop)?;
    let (began, before) = (Instant::now(), agent.cpu_time()?);
    pause(Duration::from_secs(args.seconds), stop)?;
    let (time, spent) = (began.elapsed(), agent.cpu_time()?.saturating_sub(before));
    let memory = agent.memory()?;
    let began = Instant::now();
    agent.reload()?;
    let reload = began.elapsed();
    let reloaded = agent.memory()?;
    let percent = spent.as_secs_f64() * 100.0 / time.as_secs_f64();
    Ok(Report {
        markdown: format!(
            "| idle agent, {} | |\n|---|---:|\n| resident memory | {} |\n| – most since its start | {} |\n| BPF maps it holds | {} |\n\
             | processor, of one core over {:.0} s | {percent:.2} % |\n| from its start to all interfaces armed | {:.1} s |\n\
             | a reload, from asking to the answer | {:.1} s |\n| resident after it | {} |\n| – most since its start | {} |\n",
            args.measured.rules_name(),
            mib(memory.rss),
            mib(memory.rss_max),
            mib(memory.bpf_maps),
            time.as_secs_f64(),
            start.as_secs_f64(),
            reload.as_secs_f64(),
            mib(reloaded.rss),
            mib(reloaded.rss_max)
        ),
        json: json!({
            "host": facts,
            "rules": args.measured.rules_name(),
            "rss_bytes": memory.rss,
            "rss_bytes_max": memory.rss_max,
            "bpf_map_bytes": memory.bpf_maps,
            "start_seconds": start.as_secs_f64(),
            "reload_seconds": reload.as_secs_f64(),
            "rss_bytes_after_reload": reloaded.rss,
            "rss_bytes_max_with_reload": reloaded.rss_max,
            "seconds": time.as_secs_f64(),
            "cpu_seconds": spent.as_secs_f64(),
            "cpu_percent_of_one_core": percent,
        }),
    })
}

fn pause(time: Duration, stop: &Stop) -> Result<(), Error> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        stop.check()?;
        thread::sleep(STEP.min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
