//! `bulkhead rules check`: would these rules load, and mend them; `bulkhead rules fmt`: their canonical text.

use std::path::PathBuf;

use bulkhead_policy::Config;
use bulkhead_rules::{Fix, Severity};
use clap::Subcommand;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::rulelist::{self, FromArgs, SwitchArgs};
use crate::ruleset::{Checked, VariableArgs, exact_text_of, load, replace};
use crate::ruleupdate::{self, UpdateArgs};

/// Rounds of fixing; each mends at most one mistake of a rule.
const FIX_PASSES_MAX: usize = 8;

/// Look at detection rules, choose among them
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

        /// First do what the help says where it is certain, in the files themselves
        #[arg(long)]
        fix: bool,

        /// Tell lints too with `-o json`: remarks on rules that load
        #[arg(long)]
        lints: bool,

        #[command(flatten)]
        variables: VariableArgs,
    },
    /// Write each rule of these files in its canonical text, in place
    ///
    /// Comments, disabled rules and what cannot be read keep their places. The text is written to a file of its own first, which
    /// then takes the place of the old one.
    Fmt {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Change nothing; exit with 1 when a file is not in its canonical text
        #[arg(long)]
        check: bool,
    },
    /// The rules that the configuration names, and whether they are used
    List {
        /// Only those in this state
        #[arg(long, value_parser = ["loaded", "unsupported", "wrong", "disabled"])]
        state: Option<String>,

        #[command(flatten)]
        from: FromArgs,
    },
    /// Rules in which all these words stand: in the message, a content, a reference, anywhere
    ///
    /// Exits with 1 when there is none.
    Search {
        #[arg(required = true, value_name = "WORD")]
        words: Vec<String>,

        #[command(flatten)]
        from: FromArgs,
    },
    /// All that is known about a rule
    Show {
        sid: u32,

        #[command(flatten)]
        from: FromArgs,
    },
    Update(UpdateArgs),
    /// Use rules that are commented out or were disabled
    Enable(SwitchArgs),
    /// Use rules no more
    Disable(SwitchArgs),
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    match &args.action {
        Action::Check { files, fix, lints, variables } => check(files, *fix, *lints, variables, context),
        Action::Fmt { files, check } => format(files, *check, context),
        Action::List { state, from } => rulelist::list(from, state.as_deref(), context),
        Action::Search { words, from } => rulelist::search(from, words, context),
        Action::Show { sid, from } => rulelist::show(from, *sid, context),
        Action::Update(args) => ruleupdate::run(args, context),
        Action::Enable(args) => rulelist::switch(args, true, context),
        Action::Disable(args) => rulelist::switch(args, false, context),
    }
}

/// The object behind `rules fmt -o json`.
#[derive(Debug, Serialize)]
struct Formatted {
    /// Files whose text changes.
    changed: Vec<String>,
    unchanged: usize,
}

fn format(files: &[PathBuf], check: bool, context: &mut Context) -> Result<Exit, Failure> {
    let mut formatted = Formatted { changed: Vec::new(), unchanged: 0 };
    for file in files {
        let text = exact_text_of(file)?;
        let new = bulkhead_rules::format::file(&text);
        if new == text {
            formatted.unchanged += 1;
            continue;
        }
        if !check {
            replace(file, &new).map_err(|error| Failure::File(file.clone(), error))?;
        }
        formatted.changed.push(file.display().to_string());
    }
    if context.json() {
        context.out.json(&formatted)?;
    } else {
        for file in &formatted.changed {
            context.out.line(&printable(file))?;
        }
    }
    Ok(if check && !formatted.changed.is_empty() { Exit::Findings } else { Exit::Ok })
}

fn check(files: &[PathBuf], fix: bool, lints: bool, variables: &VariableArgs, context: &mut Context) -> Result<Exit, Failure> {
    if fix {
        for file in files {
            let text = exact_text_of(file)?;
            let new = fixed(&text);
            if new != text {
                replace(file, &new).map_err(|error| Failure::File(file.clone(), error))?;
            }
        }
    }
    let (_, mut checked) = load(files, variables, &Config::default())?;
    if context.json() {
        // One for each rule that does not load; lints when they are asked for.
        checked.diagnostics.retain(|remark| lints || remark.severity != Severity::Warning);
        context.out.json(&checked)?;
    } else {
        text(&checked, context)?;
    }
    Ok(if checked.unsupported + checked.wrong == 0 { Exit::Ok } else { Exit::Findings })
}

/// A text with all fixes applied. One may uncover another mistake, so it is done again, as often as a rule may have options wrong.
fn fixed(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..FIX_PASSES_MAX {
        let mut fixes: Vec<Fix> = bulkhead_rules::parse(&text).diagnostics.into_iter().filter_map(|found| found.fix).collect();
        fixes.sort_by_key(|fix| fix.span.start);
        let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
        for fix in fixes.iter().filter(|fix| fix.span.start < fix.span.end) {
            let Some(before) = text.get(copied..fix.span.start) else { continue };
            out.push_str(before);
            out.push_str(&fix.text);
            copied = fix.span.end;
        }
        if copied == 0 {
            break;
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        text = out;
    }
    text
}

fn text(checked: &Checked, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    for remark in &checked.diagnostics {
        let colour = if remark.severity == Severity::Error { Colour::Bad } else { Colour::Warn };
        let sid = remark.sid.map_or(String::new(), |sid| format!(" (sid {sid})"));
        let severity = style.paint(&format!("{}[{}]", remark.severity.name(), remark.code), colour);
        let place = printable(&format!("{}:{}:{}", remark.file, remark.line, remark.column));
        context.out.line(&format!("{place}: {severity}: {}{sid}", printable(&remark.message)))?;
        if let Some(help) = &remark.help {
            context.out.line(&format!("  help: {}", printable(help)))?;
        }
    }
    let Checked { loaded, unsupported, wrong, disabled, .. } = checked;
    context.out.line(&format!("{loaded} loaded, {unsupported} unsupported, {wrong} wrong, {disabled} disabled"))
}
