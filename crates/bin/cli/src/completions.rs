//! `bulkhead completions SHELL`.

use clap::Command;
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Print the completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    shell: Shell,
}

pub fn run(args: &Args, mut command: Command, context: &mut Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "bulkhead", &mut script);
    context.out.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
