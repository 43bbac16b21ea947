//! What inspection costs, as ratios to the same traffic without it.
//!
//! Absolute figures say as much about the machine as about the program, so every figure here is set beside `bare`, the
//! same load over the same namespaces without an agent, measured in turn within one run.
//!
//! | module | what |
//! |---|---|
//! | [`scene`] | namespaces that play the host and its containers |
//! | [`agent`], [`suricata`] | what is put between them |
//! | [`load`] | generators: bulk, ping-pong, HTTP, datagrams |
//! | [`path`] | the table: rows in turn, ratios |
//! | [`engine`] | the engine alone, on traffic made here; its instructions by stage |
//! | [`flood`], [`idle`] | memory under a flood of flows; cost of doing nothing |
//! | [`figures`], [`report`] | arithmetic and tables |
#![forbid(unsafe_code)]

mod agent;
mod child;
mod engine;
mod figures;
mod flood;
mod host;
mod idle;
mod load;
mod path;
mod report;
mod rules;
mod scene;
mod suricata;

use std::process::ExitCode;

use bulkhead_sys::OsError;
use bulkhead_sys::lock::LockFile;
use bulkhead_sys::netlink;
use bulkhead_sys::poll::{Signal, SignalFd};
use clap::{Parser, Subcommand, ValueEnum};

/// Measure what inspection costs
#[derive(Debug, Parser)]
#[command(name = "bulkhead-benches", arg_required_else_help = true)]
struct Cli {
    /// How results are written
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// A table in Markdown
    #[default]
    Markdown,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Path(path::Args),
    Engine(engine::Args),
    Stages(engine::stages::Args),
    Flood(flood::Args),
    Idle(idle::Args),
}

const LOCK: &str = "/run/bulkhead-benches.lock";

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("needs root: it makes network namespaces")]
    NotRoot,
    #[error("stopped by a signal")]
    Interrupted,
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} failed: {output}")]
    Failed { program: String, output: String },
    #[error("{program} wrote something else than expected: {output}")]
    Unreadable { program: String, output: String },
    #[error("{what} within {seconds} s{output}")]
    Late { what: String, seconds: u64, output: String },
    #[error("{0}")]
    NoAgent(String),
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
    #[error(transparent)]
    Fabric(#[from] bulkhead_lab::fabric::FabricError),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Os(#[from] OsError),
    #[error("another benchmark runs: {0}")]
    Busy(#[from] bulkhead_sys::lock::Error),
    #[error(transparent)]
    Proc(#[from] bulkhead_sys::procfs::Error),
}

impl Error {
    /// For `map_err`: an input or output error with what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// A report in both shapes.
pub struct Report {
    pub markdown: String,
    pub json: serde_json::Value,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) => {
            match cli.output {
                Format::Markdown => println!("{}", report.markdown.trim_end()),
                Format::Json => println!("{:#}", report.json),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(match error {
                Error::NoAgent(_) | Error::NotRoot | Error::Busy(_) => 2,
                _ => 4,
            })
        }
    }
}

fn run(cli: &Cli) -> Result<Report, Error> {
    // Before any thread is made, so that a Ctrl-C is seen between two cells and everything is taken down.
    let stop = Stop(SignalFd::new(&[Signal::Interrupt, Signal::Terminate])?);
    // The engine alone needs no namespaces, and is measured in children of this program, which would wait for its lock.
    let _lock = match &cli.verb {
        Verb::Engine(_) | Verb::Stages(_) => None,
        Verb::Path(_) | Verb::Flood(_) | Verb::Idle(_) => Some(lock()?),
    };
    match &cli.verb {
        Verb::Path(args) => path::run(args, &stop),
        Verb::Engine(args) => engine::run(args, &stop),
        Verb::Stages(args) => engine::stages::run(args, &stop),
        Verb::Flood(args) => flood::run(args, &stop),
        Verb::Idle(args) => idle::run(args, &stop),
    }
}

/// Two at a time would measure each other, and take each other's namespaces for leftovers.
fn lock() -> Result<LockFile, Error> {
    if !bulkhead_sys::process::is_root() {
        return Err(Error::NotRoot);
    }
    Ok(LockFile::acquire(LOCK)?)
}

/// Asked between two steps.
pub struct Stop(SignalFd);

impl Stop {
    pub fn check(&self) -> Result<(), Error> {
        match self.0.read()? {
            Some(_) => Err(Error::Interrupted),
            None => Ok(()),
        }
    }
}
