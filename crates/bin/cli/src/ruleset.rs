//! Rule files as the agent would load them: parsed, compiled with the configuration's variables, and every remark kept.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::Config;
use bulkhead_rules::{Classification, Diagnostic, Rule, Severity, Variables};
use serde::Serialize;

use crate::failure::Failure;

/// Bytes of one rule file; the largest public set has 40 MB.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The object behind `rules check -o json`.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    pub loaded: usize,
    /// Well formed, and written for a keyword that this version does not have.
    pub unsupported: usize,
    pub wrong: usize,
    /// Behind a `#`.
    pub disabled: usize,
    pub diagnostics: Vec<Remark>,
}

#[derive(Debug, Serialize)]
pub struct Remark {
    pub file: String,
    pub line: u32,
    pub column: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<u32>,
    pub severity: &'static str,
    pub code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Where variables of the rules come from.
#[derive(Debug, clap::Args)]
pub struct VariableArgs {
    /// A value for a variable of the rules, without the `$`: HOME_NET=198.51.100.0/24
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
}

/// In the order of the files; remarks too.
pub fn load(files: &[PathBuf], args: &VariableArgs, config: &Config) -> Result<(Arc<Ruleset>, Checked), Failure> {
    let mut checked = Checked::default();
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    let mut remarks: Vec<(usize, Diagnostic)> = Vec::new();
    for file in files {
        let read = bulkhead_rules::parse(&text_of(file)?);
        checked.unsupported += read.counts.unsupported;
        checked.wrong += read.counts.wrong;
        checked.disabled += read.counts.disabled;
        remarks.extend(read.diagnostics.into_iter().map(|diagnostic| (parsed.len(), diagnostic)));
        parsed.push((file.display().to_string(), read.rules));
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, rules)| Source { name, rules }).collect();
    let compiled = Ruleset::compile(&sources, &variables(config, &args.variables), &Classification::builtin());
    for (_, diagnostic) in &compiled.diagnostics {
        match diagnostic.severity {
            Severity::Error => checked.wrong += 1,
            Severity::Unsupported => checked.unsupported += 1,
            Severity::Warning => {}
        }
    }
    remarks.extend(compiled.diagnostics);
    remarks.sort_by_key(|(file, diagnostic)| (*file, diagnostic.span.start));
    checked.loaded = compiled.ruleset.len();
    checked.diagnostics =
        remarks.into_iter().map(|(file, diagnostic)| remark(parsed.get(file).map_or("", |(name, _)| name), diagnostic)).collect();
    Ok((compiled.ruleset, checked))
}

fn remark(file: &str, diagnostic: Diagnostic) -> Remark {
    Remark {
        file: file.to_owned(),
        line: diagnostic.span.line,
        column: diagnostic.span.column,
        sid: diagnostic.sid,
        severity: diagnostic.severity.name(),
        code: diagnostic.code.id(),
        message: diagnostic.message,
        help: diagnostic.help,
    }
}

fn variables(config: &Config, given: &[(String, String)]) -> Variables {
    let mut variables = Variables::default();
    let configured = config.rules.variables.0.iter();
    for (name, value) in configured.chain(given.iter().map(|(name, value)| (name, value))) {
        variables.define(name, value);
    }
    variables
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.trim_start_matches('$').to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// Bytes that are not UTF-8 stand in comments of old rule files, as a rule: they are replaced, and where they matter the rule is
/// found wrong.
fn text_of(file: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&bytes_of(file)?).into_owned())
}

/// For who writes the text back.
pub fn exact_text_of(file: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes_of(file)?)
        .map_err(|_| Failure::usage(format!("`{}` is not in UTF-8", file.display()), "convert it first: what cannot be read would be lost"))
}

fn bytes_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::File(file.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("`{}` is larger than {FILE_BYTES_MAX} bytes", file.display()), "is it a rule file?"));
    }
    Ok(bytes)
}
