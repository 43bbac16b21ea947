//! Rule files as the agent would load them: parsed, compiled with the configuration's variables, and every remark kept.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::Config;
use bulkhead_rules::{Beside, Diagnostic, Library, Rule, Severity, Variables};
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
    #[serde(skip)]
    pub disabled: usize,
    pub diagnostics: Vec<Remark>,
}

#[derive(Debug, Serialize)]
pub struct Remark {
    pub file: String,
    pub line: u32,
    #[serde(skip)]
    pub column: u32,
    pub sid: Option<u32>,
    #[serde(skip)]
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
}

/// Where variables of the rules come from.
#[derive(Debug, clap::Args)]
pub struct VariableArgs {
    /// A value for a variable of the rules, without the `$`: HOME_NET=198.51.100.0/24
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,

    /// Classes of rules with their priorities
    #[arg(long, value_name = "FILE")]
    classification: Vec<PathBuf>,

    /// Where references of rules lead
    #[arg(long, value_name = "FILE")]
    reference: Vec<PathBuf>,

    /// Suppressions and thresholds
    #[arg(long, value_name = "FILE")]
    threshold: Vec<PathBuf>,

    /// Rules that are left out, as rule-update tools write it
    #[arg(long, value_name = "FILE")]
    disable: Vec<PathBuf>,

    /// Rules that are used though they are commented out
    #[arg(long, value_name = "FILE")]
    enable: Vec<PathBuf>,

    /// What is changed in which rules
    #[arg(long, value_name = "FILE")]
    modify: Vec<PathBuf>,

    /// Rules whose action becomes drop
    #[arg(long = "drop", value_name = "FILE")]
    drops: Vec<PathBuf>,
}

impl VariableArgs {
    /// Variables by name.
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Kind, name and text of each file beside the rules.
    pub fn texts(&self) -> Result<Vec<(Beside, String, String)>, Failure> {
        self.beside().map(read_beside).collect()
    }

    fn beside(&self) -> impl Iterator<Item = (Beside, &PathBuf)> {
        [
            (Beside::Classification, &self.classification),
            (Beside::Reference, &self.reference),
            (Beside::Threshold, &self.threshold),
            (Beside::Disable, &self.disable),
            (Beside::Enable, &self.enable),
            (Beside::Modify, &self.modify),
            (Beside::Drop, &self.drops),
        ]
        .into_iter()
        .flat_map(|(kind, files)| files.iter().map(move |file| (kind, file)))
    }
}

/// The files beside the rules, read.
pub fn library<'a>(files: impl IntoIterator<Item = (Beside, &'a PathBuf)>) -> Result<Library, Failure> {
    let texts: Vec<(Beside, String, String)> = files.into_iter().map(read_beside).collect::<Result<_, Failure>>()?;
    Ok(library_of(&texts))
}

fn read_beside((kind, file): (Beside, &PathBuf)) -> Result<(Beside, String, String), Failure> {
    Ok((kind, file.display().to_string(), text_of(file)?))
}

/// Kind, name and text of each file.
pub fn library_of(texts: &[(Beside, String, String)]) -> Library {
    Library::read(texts.iter().map(|(kind, name, text)| (*kind, name.as_str(), text.as_str())))
}

/// In the order of the files; remarks too.
pub fn load(files: &[PathBuf], args: &VariableArgs, config: &Config) -> Result<(Arc<Ruleset>, Checked), Failure> {
    let mut checked = Checked::default();
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    let mut remarks: Vec<(usize, Diagnostic)> = Vec::new();
    let library = library(args.beside())?;
    // A line beside the rules that is not understood is as bad as a rule.
    for (_, diagnostic) in &library.diagnostics {
        checked.count(diagnostic.severity);
    }
    for file in files {
        let (read, _) = library.rules(&file.display().to_string(), &text_of(file)?);
        checked.unsupported += read.counts.unsupported;
        checked.wrong += read.counts.wrong;
        checked.disabled += read.counts.disabled;
        remarks.extend(read.diagnostics.into_iter().map(|diagnostic| (parsed.len(), diagnostic)));
        parsed.push((file.display().to_string(), read.rules));
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, rules)| Source { name, rules }).collect();
    let compiled = Ruleset::compile(&sources, &variables(config, &args.variables), &library.classification);
    for (_, diagnostic) in &compiled.diagnostics {
        checked.count(diagnostic.severity);
    }
    remarks.extend(compiled.diagnostics);
    remarks.sort_by_key(|(file, diagnostic)| (*file, diagnostic.span.start));
    checked.loaded = compiled.ruleset.len();
    let of_rules = remarks.into_iter().map(|(file, diagnostic)| remark(parsed.get(file).map_or("", |(name, _)| name), diagnostic));
    checked.diagnostics = library.diagnostics.into_iter().map(|(file, diagnostic)| remark(&file, diagnostic)).chain(of_rules).collect();
    Ok((compiled.ruleset, checked))
}

impl Checked {
    fn count(&mut self, severity: Severity) {
        match severity {
            Severity::Error => self.wrong += 1,
            Severity::Unsupported => self.unsupported += 1,
            Severity::Warning => {}
        }
    }
}

fn remark(file: &str, diagnostic: Diagnostic) -> Remark {
    Remark {
        file: file.to_owned(),
        line: diagnostic.span.line,
        column: diagnostic.span.column,
        sid: diagnostic.sid,
        severity: diagnostic.severity,
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
pub fn text_of(file: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&bytes_of(file)?).into_owned())
}

/// For who writes the text back.
pub fn exact_text_of(file: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes_of(file)?)
        .map_err(|_| Failure::usage(format!("`{}` is not in UTF-8", file.display()), "convert it first: what cannot be read would be lost"))
}

pub fn bytes_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::File(file.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("`{}` is larger than {FILE_BYTES_MAX} bytes", file.display()), "is it a rule file?"));
    }
    Ok(bytes)
}

/// Whole or not at all; a file that is there keeps its mode, and a link its place.
pub fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let file = if file.exists() { std::fs::canonicalize(file)? } else { file.to_owned() };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".bulkhead-new");
    let fresh = file.with_file_name(name);
    let written = std::fs::write(&fresh, text)
        .and_then(|()| match std::fs::metadata(&file) {
            Ok(old) => std::fs::set_permissions(&fresh, old.permissions()),
            Err(_) => Ok(()),
        })
        .and_then(|()| std::fs::rename(&fresh, &file));
    if written.is_err() {
        _ = std::fs::remove_file(&fresh);
    }
    written
}
