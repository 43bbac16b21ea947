//! `bulkhead policy`: show, check and apply the configuration; its JSON Schema.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_api::PolicyChange;
use bulkhead_policy::{Diagnostic, Severity, Source};
use clap::Subcommand;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::problems;
use crate::units::date_time;

/// Show, check or apply the policy
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the policy in force, and where it came from
    Show,
    /// Check configuration files without an agent; later files add to earlier ones
    ///
    /// Exits with 2 when there is a mistake in them.
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check a file and put it in force as a whole, or refuse it as a whole
    Apply {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Ask the agent what would happen, and change nothing
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    match &args.action {
        Action::Show => show(context),
        Action::Check { files } => check(files, context),
        Action::Apply { file, check } => apply(file, *check, context),
        Action::Schema => {
            context.out.raw(&bulkhead_policy::schema::json_schema_text())?;
            Ok(Exit::Ok)
        }
    }
}

fn show(context: &mut Context) -> Result<Exit, Failure> {
    let view = context.client()?.policy()?;
    if context.json() {
        context.out.json(&view)?;
        return Ok(Exit::Ok);
    }
    let from = if view.sources.is_empty() { "defaults".to_owned() } else { printable(&view.sources.join(", ")) };
    context.out.line(&format!("# revision {}, applied {}, from {from}", view.revision, date_time(view.applied)))?;
    for line in view.text.lines() {
        context.out.line(&printable(line))?;
    }
    Ok(Exit::Ok)
}

fn check(files: &[PathBuf], context: &mut Context) -> Result<Exit, Failure> {
    let diagnostics = diagnose(files)?;
    let wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    if context.json() {
        context.out.json(&json!({ "ok": !wrong, "diagnostics": diagnostics }))?;
    } else {
        context.out.raw(&bulkhead_policy::render(&diagnostics))?;
    }
    Ok(if wrong { Exit::Usage } else { Exit::Ok })
}

fn diagnose(files: &[PathBuf]) -> Result<Vec<Diagnostic>, Failure> {
    let mut sources = Vec::new();
    for file in files {
        match Source::from_bytes(file.display().to_string(), &read(file)?) {
            Ok(source) => sources.push(source),
            Err(diagnostics) => return Ok(diagnostics),
        }
    }
    Ok(match bulkhead_policy::parse(&sources) {
        Ok(config) => bulkhead_policy::lint(&config),
        Err(diagnostics) => diagnostics,
    })
}

fn apply(file: &Path, only_check: bool, context: &mut Context) -> Result<Exit, Failure> {
    let bytes = read(file)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("`{}` is not UTF-8", file.display()), "save it as UTF-8"))?;
    let client = context.client()?;
    let change = if only_check { client.check_policy(&text)? } else { client.apply_policy(&text)? };
    if context.json() {
        context.out.json(&change)?;
    } else {
        show_change(&change, context)?;
    }
    Ok(Exit::Ok)
}

fn show_change(change: &PolicyChange, context: &mut Context) -> Result<(), Failure> {
    for problem in &change.problems {
        context.out.line(&problems::text(problem))?;
    }
    for line in &change.changes {
        context.out.line(&format!("- {}", printable(line)))?;
    }
    let word = if change.applied { "applied; in force is" } else { "good, and not applied; in force is still" };
    context.out.line(&format!("{word} revision {}", change.revision))
}

/// No more than the API would take: a device or a huge file named by mistake does not fill the memory.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let failed = |error| Failure::File(file.to_owned(), error);
    let mut bytes = Vec::new();
    let most = bulkhead_api::server::BODY_BYTES_MAX as u64;
    fs::File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Failure::usage(
            format!("`{}` is larger than {most} bytes", file.display()),
            "a configuration is a short text; is it the right file?",
        ));
    }
    Ok(bytes)
}
