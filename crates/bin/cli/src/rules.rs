//! `bulkhead rules check`: would these rules load.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bulkhead_rules::{Diagnostic, Severity};
use clap::Subcommand;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};

/// Bytes of one rule file; the largest public set has 40 MB.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

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
    },
}

/// The object behind `-o json`.
#[derive(Debug, Default, Serialize)]
struct Checked {
    loaded: usize,
    /// Well formed, and written for a keyword that this version does not have.
    unsupported: usize,
    wrong: usize,
    /// Behind a `#`.
    disabled: usize,
    diagnostics: Vec<Remark>,
}

#[derive(Debug, Serialize)]
struct Remark {
    file: String,
    line: u32,
    column: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<u32>,
    severity: &'static str,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let Action::Check { files } = &args.action;
    let mut checked = Checked::default();
    for file in files {
        let read = bulkhead_rules::parse(&text_of(file)?);
        checked.loaded += read.counts.loaded;
        checked.unsupported += read.counts.unsupported;
        checked.wrong += read.counts.wrong;
        checked.disabled += read.counts.disabled;
        checked.diagnostics.extend(read.diagnostics.into_iter().map(|diagnostic| remark(file, diagnostic)));
    }
    if context.json() {
        context.out.json(&checked)?;
    } else {
        text(&checked, context)?;
    }
    Ok(if checked.unsupported + checked.wrong == 0 { Exit::Ok } else { Exit::Findings })
}

fn remark(file: &Path, diagnostic: Diagnostic) -> Remark {
    Remark {
        file: file.display().to_string(),
        line: diagnostic.span.line,
        column: diagnostic.span.column,
        sid: diagnostic.sid,
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Unsupported => "unsupported",
            Severity::Warning => "warning",
        },
        code: diagnostic.code.id(),
        message: diagnostic.message,
        help: diagnostic.help,
    }
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

/// Bytes that are not UTF-8 stand in comments of old rule files, as a rule: they are replaced, and where they matter the rule is found wrong.
fn text_of(file: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::File(file.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("`{}` is larger than {FILE_BYTES_MAX} bytes", file.display()), "is it a rule file?"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
