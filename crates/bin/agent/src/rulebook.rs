//! Rule files to a rule set: read, edited and parsed as the files beside them say, compiled.

use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_api::{Problem, RuleCounts, Severity as ProblemSeverity};
use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::{AbsolutePath, Config};
use bulkhead_rules::{Action, Beside, Library, Rule, Severity, Variables};

use crate::{builtin, files};

/// Problems that are told one by one; the rest is counted.
const PROBLEMS_MAX: usize = 200;

/// A rule set with what came of its making.
pub struct Rulebook {
    pub ruleset: Arc<Ruleset>,
    pub counts: RuleCounts,
    pub problems: Vec<Problem>,
}

/// The files that a configuration names and that are there.
#[derive(Debug, Default)]
pub struct RulePaths {
    /// Name and text of those that come with the program; they are read first.
    pub built_in: &'static [(&'static str, &'static str)],
    pub rules: Vec<PathBuf>,
    /// In the order in which they are read.
    pub beside: Vec<(Beside, PathBuf)>,
    /// Patterns that match nothing, those of the defaults apart.
    pub unmatched: Vec<String>,
}

pub fn rule_paths(config: &Config) -> Result<RulePaths, files::Error> {
    let default = Config::default().rules;
    let rules = &config.rules;
    let built_in = if rules.built_in { builtin::FILES } else { &[] };
    let mut paths = RulePaths { built_in, ..RulePaths::default() };
    paths.rules = named(&rules.files, &default.files, &mut paths.unmatched)?;
    for (kind, given, default) in [
        (Beside::Classification, &rules.classification, &default.classification),
        (Beside::Reference, &rules.reference, &default.reference),
        (Beside::Threshold, &rules.threshold, &default.threshold),
        (Beside::Disable, &rules.disable_files, &default.disable_files),
        (Beside::Enable, &rules.enable_files, &default.enable_files),
        (Beside::Modify, &rules.modify_files, &default.modify_files),
        (Beside::Drop, &rules.drop_files, &default.drop_files),
    ] {
        let found = named(given, default, &mut paths.unmatched)?;
        paths.beside.extend(found.into_iter().map(|path| (kind, path)));
    }
    Ok(paths)
}

fn named(given: &[AbsolutePath], default: &[AbsolutePath], unmatched: &mut Vec<String>) -> Result<Vec<PathBuf>, files::Error> {
    let patterns: Vec<String> = given.iter().map(|path| path.as_str().to_owned()).collect();
    let (found, missing) = files::named_files(&patterns)?;
    unmatched.extend(missing.into_iter().filter(|pattern| !default.iter().any(|known| known.as_str() == pattern)));
    Ok(found)
}

/// As the configuration gives them.
pub fn rule_variables(config: &Config) -> Variables {
    let mut variables = Variables::default();
    for (name, value) in &config.rules.variables.0 {
        variables.define(name, value);
    }
    variables
}

/// As [`load_all`], for the start: rules that are wrong are left out and counted, an unreadable file refuses the start.
pub fn load(config: &Config) -> Result<(Arc<Ruleset>, RuleCounts), String> {
    load_all(config).map(|book| (book.ruleset, book.counts))
}

pub fn load_all(config: &Config) -> Result<Rulebook, String> {
    let paths = rule_paths(config).map_err(|error| error.to_string())?;
    let mut problems: Vec<Problem> = paths
        .unmatched
        .iter()
        .map(|pattern| Problem {
            severity: ProblemSeverity::Warning,
            code: "no-such-file".into(),
            file: Some(pattern.clone()),
            line: None,
            column: None,
            sid: None,
            message: format!("no rule file matches `{pattern}`"),
            help: Some("correct it below `rules` in the configuration".into()),
        })
        .collect();
    let mut counts = RuleCounts::default();
    let mut beside: Vec<(Beside, String, String)> = Vec::new();
    for (kind, path) in &paths.beside {
        let bytes = files::read_rules(path).map_err(|error| error.to_string())?;
        beside.push((*kind, path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    let library = Library::read(beside.iter().map(|(kind, name, text)| (*kind, name.as_str(), text.as_str())));
    // A line that is not understood counts as a rule: a start goes on without it, and the status tells.
    for (name, diagnostic) in &library.diagnostics {
        count(&mut counts, diagnostic.severity);
        note(&mut problems, name, diagnostic);
    }
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    let built_in = paths.built_in.iter().map(|(name, text)| Ok(((*name).to_owned(), (*text).to_owned())));
    let named = paths.rules.into_iter().map(|path| {
        let bytes = files::read_rules(&path).map_err(|error| error.to_string())?;
        Ok::<_, String>((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
    });
    for text in built_in.chain(named) {
        let (name, text) = text?;
        let (file, _) = library.signatures(&name, &text);
        counts.unsupported += file.counts.unsupported as u64;
        counts.wrong += file.counts.wrong as u64;
        for diagnostic in &file.diagnostics {
            note(&mut problems, &name, diagnostic);
        }
        counts.files.push(name.clone());
        parsed.push((name, file.rules));
    }
    for (_, rules) in &mut parsed {
        rules.retain(|rule| !config.rules.disable.contains(&rule.signature.sid));
        for rule in rules.iter_mut() {
            if config.rules.drop.contains(&rule.signature.sid) {
                rule.header.action = Action::Drop;
            } else if config.rules.alert.contains(&rule.signature.sid) {
                rule.header.action = Action::Alert;
            }
        }
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, rules)| Source { name, rules }).collect();
    let compilation = Ruleset::compile(&sources, &rule_variables(config), &library.classification);
    for (source, diagnostic) in &compilation.diagnostics {
        count(&mut counts, diagnostic.severity);
        let name = parsed.get(*source).map_or("", |(name, _)| name);
        note(&mut problems, name, diagnostic);
    }
    counts.loaded = compilation.ruleset.len() as u64;
    // What a set was read into is several times what came of it.
    drop(parsed);
    bulkhead_sys::memory::give_back();
    Ok(Rulebook { ruleset: compilation.ruleset, counts, problems })
}

fn count(counts: &mut RuleCounts, severity: Severity) {
    match severity {
        Severity::Error => counts.wrong += 1,
        Severity::Unsupported => counts.unsupported += 1,
        Severity::Warning => {}
    }
}

/// An error is told whatever came before: it is what refuses a reload.
fn note(problems: &mut Vec<Problem>, file: &str, diagnostic: &bulkhead_rules::Diagnostic) {
    let error = diagnostic.severity == Severity::Error;
    if problems.len() >= PROBLEMS_MAX {
        match problems.iter().rposition(|problem| problem.severity != ProblemSeverity::Error) {
            Some(lesser) if error => _ = problems.remove(lesser),
            _ => return,
        }
    }
    problems.push(Problem {
        severity: if error { ProblemSeverity::Error } else { ProblemSeverity::Warning },
        code: diagnostic.code.to_string(),
        file: Some(file.to_owned()),
        line: Some(diagnostic.span.line),
        column: Some(diagnostic.span.column),
        sid: diagnostic.sid,
        message: diagnostic.message.clone(),
        help: diagnostic.help.clone(),
    });
}
