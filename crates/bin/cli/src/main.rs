//! `bulkhead`: one program, one file for each verb. The verbs that look at or change what runs speak to the agent's API;
//! those that need no agent (`rules`, `policy check`, `doctor`, `man` …) call the engines themselves.
#![forbid(unsafe_code)]

mod completions;
mod context;
mod coverage;
mod doctor;
mod down;
mod event_text;
mod events;
mod failure;
mod host;
#[cfg(test)]
#[path = "../../../service/api/tests/kit/mod.rs"]
mod kit;
mod lab;
mod man;
mod map;
mod mode;
mod oci;
mod oci_hook;
mod oci_runtime;
mod output;
mod policy;
mod problems;
mod reload;
mod replay;
mod rulearchive;
mod rulelist;
mod rules;
mod ruleset;
mod rulesource;
mod ruleupdate;
mod run;
mod scan;
mod status;
mod table;
mod units;
mod version;
mod why;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use context::Context;
use failure::Exit;
use output::Format;

/// Inline protection for container traffic
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 findings, 2 usage or configuration, 3 degraded (cannot enforce), 4 internal.")]
struct Cli {
    /// How results are written: text for people, json for programs
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// Where the agent listens [default: /run/bulkhead/bulkhead.sock]
    #[arg(long, global = true, value_name = "PATH", env = "BULKHEAD_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Doctor(doctor::Args),
    Status(status::Args),
    Workloads(workloads::Args),
    Events(events::Args),
    Why(why::Args),
    Mode(mode::Args),
    Coverage(coverage::Args),
    Policy(policy::Args),
    Rules(rules::Args),
    Scan(scan::Args),
    Replay(replay::Args),
    Reload(reload::Args),
    Down(down::Args),
    Host(host::Args),
    Lab(lab::Args),
    #[command(hide = true)]
    LabNode(lab::NodeArgs),
    OciHook(oci_hook::Args),
    OciRuntime(oci_runtime::Args),
    Version(version::Args),
    Completions(completions::Args),
    Man(man::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(oci_runtime::by_name(std::env::args_os().collect()));
    let mut context = Context::new(cli.output, cli.socket);
    let result = match cli.verb {
        Verb::Run(args) => run::run(&args, &mut context),
        Verb::Doctor(args) => doctor::run(&args, &mut context),
        Verb::Status(args) => status::run(&args, &mut context),
        Verb::Workloads(args) => workloads::run(&args, &mut context),
        Verb::Events(args) => events::run(&args, &mut context),
        Verb::Why(args) => why::run(&args, &mut context),
        Verb::Mode(args) => mode::run(&args, &mut context),
        Verb::Coverage(args) => coverage::run(&args, &mut context),
        Verb::Policy(args) => policy::run(&args, &mut context),
        Verb::Rules(args) => rules::run(&args, &mut context),
        Verb::Scan(args) => scan::run(&args, &mut context),
        Verb::Replay(args) => replay::run(&args, &mut context),
        Verb::Reload(args) => reload::run(&args, &mut context),
        Verb::Down(args) => down::run(&args, &mut context),
        Verb::Host(args) => host::run(&args, &mut context),
        Verb::Lab(args) => lab::run(&args, &mut context),
        Verb::LabNode(args) => lab::node(&args),
        Verb::OciHook(args) => oci_hook::run(&args, &context),
        Verb::OciRuntime(args) => oci_runtime::run(&args, &context),
        Verb::Version(args) => version::run(&args, &mut context),
        Verb::Completions(args) => completions::run(&args, Cli::command(), &mut context),
        Verb::Man(args) => man::run(&args, Cli::command(), &mut context),
    };
    let result = result.and_then(|exit| context.out.flush().map(|()| exit));
    result.unwrap_or_else(|failure| failure.report(context.out.format())).into()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
