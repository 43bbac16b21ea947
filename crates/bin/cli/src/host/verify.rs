//! `bulkhead host verify`: all packaged files against the package database.

use std::thread::available_parallelism;

use bulkhead_host::verify::{What, verify};

use super::root_at;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};

/// Compare every packaged file with the package database: what was changed, replaced or removed since it was installed
///
/// Changed configuration files are told and are no findings. Exits with 1 when a file that nobody should change differs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The root directory of another host
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: std::path::PathBuf,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let root = root_at(&args.root)?;
    let threads = available_parallelism().map_or(2, usize::from);
    let verified = verify(&root, threads).map_err(|why| Failure::Unable(why, None))?;
    let found = verified.differences.iter().filter(|one| !one.configuration).count();
    if context.json() {
        context.out.json(&verified)?;
    } else {
        let style = context.out.style();
        for one in &verified.differences {
            let word = match one.what {
                What::Changed => "changed",
                What::Missing => "missing",
                What::NotAFile => "not a file",
                What::Unreadable => "unreadable",
            };
            let colour = if one.configuration { Colour::Faint } else { Colour::Bad };
            let kind = if one.configuration { ", configuration" } else { "" };
            let why = one.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            context.out.line(&format!(
                "{}  {} ({}{kind}){}",
                style.paint(&format!("{word:<10}"), colour),
                printable(&one.path),
                printable(&one.package),
                printable(&why)
            ))?;
        }
        context.out.line(&format!(
            "{} files of {} packages, {} MB: {found} differ, {} configuration files differ, {} left out on purpose; {} packages brought no sums",
            verified.files,
            verified.packages,
            verified.bytes / 1_000_000,
            verified.differences.len() - found,
            verified.excluded,
            verified.without_sums.len()
        ))?;
    }
    Ok(if found > 0 { Exit::Findings } else { Exit::Ok })
}
