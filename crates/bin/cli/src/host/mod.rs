//! `bulkhead host`: the host itself. Audited, hardened with the way back, compared with its packages. Needs no agent.

mod audit;
mod baseline;
mod harden;
mod show;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_host::{Options, Root, WalkScope, collect};
use bulkhead_posture::snapshot::{HostSnapshot, SNAPSHOT_BYTES_MAX};
use bulkhead_posture::{Profile, Severity};
use clap::ValueEnum;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Audit this host, harden it and take that back, compare its files with their packages
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Audit(audit::Args),
    Snapshot(SnapshotArgs),
    Harden(harden::Args),
    Undo(harden::UndoArgs),
    Verify(verify::Args),
    Baseline(baseline::Args),
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    match &args.verb {
        Verb::Audit(args) => audit::run(args, context),
        Verb::Snapshot(args) => snapshot(args, context),
        Verb::Harden(args) => harden::run(args, context),
        Verb::Undo(args) => harden::undo(args, context),
        Verb::Verify(args) => verify::run(args, context),
        Verb::Baseline(args) => baseline::run(args, context),
    }
}

/// What is looked at
#[derive(Debug, Clone, clap::Args)]
pub struct Look {
    /// The root directory of another host, not running or a container's, instead of this one
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// Watch for so long what services do, before judging whether anybody uses them
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    observe: Option<u64>,

    /// Walk all local filesystems for set-id files and the like, not programs and settings only
    #[arg(long)]
    walk: bool,

    /// Walk nothing
    #[arg(long, conflicts_with = "walk")]
    no_walk: bool,

    /// Rights of a cluster: `kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json`
    #[arg(long, value_name = "FILE")]
    rbac: Option<PathBuf>,
}

impl Look {
    pub fn root(&self) -> Result<Root, Failure> {
        root_at(&self.root)
    }

    pub fn snapshot(&self) -> Result<HostSnapshot, Failure> {
        let rbac = match &self.rbac {
            Some(path) => {
                let bytes = read(path, SNAPSHOT_BYTES_MAX as u64)?;
                let tree = serde_json::from_slice(&bytes);
                Some(tree.map_err(|error| {
                    Failure::usage(format!("`{}` is not JSON: {error}", path.display()), "write it with `kubectl … -o json`")
                })?)
            }
            None => None,
        };
        let walk = match (self.walk, self.no_walk) {
            (true, _) => WalkScope::All,
            (_, true) => WalkScope::None,
            (false, false) => WalkScope::System,
        };
        Ok(collect(&Options { root: self.root()?, observe: self.observe.map(Duration::from_secs), walk, rbac }))
    }
}

/// Record what an audit sees, as JSON: for replay, comparison and tests
///
/// Holds configuration files, accounts, sockets and containers. Hashes of passwords, keys and values of environment
/// variables are never in it.
#[derive(Debug, clap::Args)]
struct SnapshotArgs {
    #[command(flatten)]
    look: Look,
}

fn snapshot(args: &SnapshotArgs, context: &mut Context) -> Result<Exit, Failure> {
    let snapshot = args.look.snapshot()?;
    context.out.json(&snapshot)?;
    Ok(Exit::Ok)
}

/// The running host's root, or the directory that the asker named.
pub fn root_at(dir: &Path) -> Result<Root, Failure> {
    let real = std::fs::canonicalize(dir).map_err(|error| Failure::File(dir.to_owned(), error))?;
    if !real.is_dir() {
        return Err(Failure::usage(format!("`{}` is no directory", dir.display()), "name the directory that holds the other host's files"));
    }
    Ok(if real == Path::new("/") { Root::host() } else { Root::at(real) })
}

/// A file that the asker named, of at most so many bytes.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    bulkhead_host::root::read(path, max).map_err(|error| Failure::File(path.to_owned(), error))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    ContainerHost,
    Cis,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::ContainerHost => Self::ContainerHost,
            ProfileName::Cis => Self::Cis,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeverityName {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl From<SeverityName> for Severity {
    fn from(name: SeverityName) -> Self {
        match name {
            SeverityName::Info => Self::Info,
            SeverityName::Low => Self::Low,
            SeverityName::Medium => Self::Medium,
            SeverityName::High => Self::High,
            SeverityName::Critical => Self::Critical,
        }
    }
}
