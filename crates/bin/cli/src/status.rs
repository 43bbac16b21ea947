//! `bulkhead status`: is this host protected, and if not, why not.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead_api::{EngineState, Status};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::map;
use crate::output::{Colour, printable};
use crate::units::{bytes, plural, seconds};

/// Show whether this host is protected, and if not, why not
///
/// Exits with 3 when the agent does not run or cannot do what it was told to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show workloads, traffic and alerts, and go on showing them
    #[arg(short, long)]
    watch: bool,

    /// Seconds between two looks with `--watch` [default: 1 on a terminal, else 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600), requires = "watch")]
    interval: Option<u64>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    if args.watch {
        let every = args.interval.map(Duration::from_secs);
        return map::watch(&client, &mut context.out, every).map(|()| Exit::Ok);
    }
    let status = client.status()?;
    if context.json() {
        context.out.json(&status)?;
    } else {
        text(&status, context)?;
    }
    Ok(exit(&status))
}

pub fn exit(status: &Status) -> Exit {
    if status.enforcing && status.degraded.is_empty() { Exit::Ok } else { Exit::Degraded }
}

/// `protecting`, or what is the matter, in a word.
pub fn word(status: &Status) -> (&'static str, Colour) {
    match (status.enforcing, status.degraded.is_empty()) {
        (true, true) => ("protecting", Colour::Good),
        (true, false) => ("degraded", Colour::Warn),
        (false, _) => ("not protecting", Colour::Bad),
    }
}

fn text(status: &Status, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    let (word, colour) = word(status);
    let head = format!("bulkhead {}", printable(&status.version));
    let line = format!(
        "{}  {}  up {}, pid {}",
        style.paint(&head, Colour::Head),
        style.paint(word, colour),
        seconds(status.uptime_secs),
        status.pid
    );
    context.out.line(&line)?;
    for (name, value) in rows(status) {
        let name = style.paint(&format!("{name:<11}"), Colour::Faint);
        context.out.line(&format!("{name}{value}"))?;
    }
    for reason in &status.degraded {
        let line = format!("degraded: {}", printable(reason));
        context.out.line(&style.paint(&line, Colour::Warn))?;
    }
    Ok(())
}

fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let path = &status.path;
    let unarmed = if path.interfaces_unarmed.is_empty() {
        String::new()
    } else {
        format!("; not armed: {}", printable(&path.interfaces_unarmed.join(", ")))
    };
    let refused = if path.held_refused == 0 { String::new() } else { format!(", {} refused", path.held_refused) };
    let mode = &status.mode;
    let heartbeat = status.heartbeat_age_ms.map_or(String::new(), |age| format!("; last sign of life {age} ms ago"));
    let rules = &status.rules;
    let (written, lost): (u64, u64) = (status.events.written.values().sum(), status.events.lost.values().sum());
    let by_type: Vec<String> = status.events.written.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let by_type = if by_type.is_empty() { String::new() } else { format!(" ({})", by_type.join(", ")) };
    vec![
        (
            "path",
            format!(
                "{}, {} armed, {} of {} packets held{refused}{unarmed}",
                path.kind.name(),
                plural(u64::from(path.interfaces_armed), "interface"),
                path.held_packets,
                path.held_packets_max
            ),
        ),
        (
            "mode",
            format!(
                "protect {}, monitor {}, unprotected {}; default {}",
                mode.protect,
                mode.monitor,
                mode.unprotected,
                mode_name(mode.default)
            ),
        ),
        ("fail", format!("{}{heartbeat}", status.fail.name())),
        (
            "rules",
            format!(
                "{} loaded, {} unsupported, {} wrong, from {}",
                rules.loaded,
                rules.unsupported,
                rules.wrong,
                plural(rules.files.len() as u64, "file")
            ),
        ),
        ("engines", engines(&status.inventory)),
        ("events", format!("{written} written{by_type}, {lost} lost")),
        ("memory", bytes(status.rss_bytes)),
        ("policy", format!("revision {}", status.policy_revision)),
    ]
}

/// Those that answer, with what they say; of the others the names, which on most hosts are many.
fn engines(engines: &[EngineState]) -> String {
    let answering = engines.iter().filter(|engine| engine.connected).map(|engine| {
        let detail = engine.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
        format!("{} ({}{detail})", engine.name, plural(u64::from(engine.workloads), "workload"))
    });
    let answering: Vec<String> = answering.collect();
    let silent: BTreeSet<&str> = engines.iter().filter(|engine| !engine.connected).map(|engine| engine.name.as_str()).collect();
    let silent: Vec<&str> = silent.into_iter().collect();
    let mut text = if answering.is_empty() { "none".to_owned() } else { answering.join(", ") };
    if !silent.is_empty() {
        text.push_str(&format!("; not connected: {}", silent.join(", ")));
    }
    printable(&text)
}

pub const fn mode_name(mode: bulkhead_model::Mode) -> &'static str {
    match mode {
        bulkhead_model::Mode::Monitor => "monitor",
        bulkhead_model::Mode::Protect => "protect",
    }
}
