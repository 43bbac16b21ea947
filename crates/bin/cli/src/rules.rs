//! `bulkhead rules check`: would these rules load.

use std::path::PathBuf;

use bulkhead_policy::Config;
use clap::Subcommand;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::ruleset::{Checked, VariableArgs, load};

/// Look at detection rules
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say which rules of these files load, and why the others do not
    ///
    /// Exits with 1 when one of them does not.
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        #[command(flatten)]
        variables: VariableArgs,
    },
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let Action::Check { files, variables } = &args.action;
    let (_, checked) = load(files, variables, &Config::default())?;
    if context.json() {
        context.out.json(&checked)?;
    } else {
        text(&checked, context)?;
    }
    Ok(if checked.unsupported + checked.wrong == 0 { Exit::Ok } else { Exit::Findings })
}

fn text(checked: &Checked, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    for remark in &checked.diagnostics {
        let colour = if remark.severity == "error" { Colour::Bad } else { Colour::Warn };
        let sid = remark.sid.map_or(String::new(), |sid| format!(" (sid {sid})"));
        let severity = style.paint(&format!("{}[{}]", remark.severity, remark.code), colour);
        let place = printable(&format!("{}:{}:{}", remark.file, remark.line, remark.column));
        context.out.line(&format!("{place}: {severity}: {}{sid}", printable(&remark.message)))?;
        if let Some(help) = &remark.help {
            context.out.line(&format!("  help: {}", printable(help)))?;
        }
    }
    let Checked { loaded, unsupported, wrong, disabled, .. } = checked;
    context.out.line(&format!("{loaded} loaded, {unsupported} unsupported, {wrong} wrong, {disabled} disabled"))
}
