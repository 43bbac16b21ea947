//! `bulkhead man`: the manual, made from the same definition as the help.

use std::path::PathBuf;

use clap::Command;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Print the manual page, or write the pages of all verbs into a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write bulkhead.1, bulkhead-status.1 and so on there
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub fn run(args: &Args, command: Command, context: &mut Context) -> Result<Exit, Failure> {
    match &args.dir {
        Some(dir) => clap_mangen::generate_to(command, dir).map_err(|error| Failure::File(dir.clone(), error))?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Output)?;
            context.out.raw(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Exit::Ok)
}
