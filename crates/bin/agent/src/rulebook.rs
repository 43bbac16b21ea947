//! Rule files to a rule set: read, parse, switch off and change as the configuration says, compile.

use std::sync::Arc;

use bulkhead_api::{Problem, RuleCounts, Severity as ProblemSeverity};
use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::Config;
use bulkhead_rules::{Action, Classification, Rule, Severity, Variables, parse};

use crate::files;

/// Problems that are told one by one; the rest is counted.
const PROBLEMS_MAX: usize = 200;

/// A rule set with what came of its making.
pub struct Rulebook {
    pub ruleset: Arc<Ruleset>,
    pub counts: RuleCounts,
    pub problems: Vec<Problem>,
}

/// As [`load_all`], for the start: rules that are wrong are left out and counted, an unreadable file refuses the start.
pub fn load(config: &Config) -> Result<(Arc<Ruleset>, RuleCounts), String> {
    load_all(config).map(|book| (book.ruleset, book.counts))
}

pub fn load_all(config: &Config) -> Result<Rulebook, String> {
    let patterns: Vec<String> = config.rules.files.iter().map(|path| path.as_str().to_owned()).collect();
    let (paths, unmatched) = files::rule_files(&patterns).map_err(|error| error.to_string())?;
    let mut problems: Vec<Problem> = unmatched
        .iter()
        .map(|pattern| Problem {
            severity: ProblemSeverity::Warning,
            code: "no-such-file".into(),
            file: Some(pattern.clone()),
            line: None,
            column: None,
            sid: None,
            message: format!("no rule file matches `{pattern}`"),
            help: Some("correct `rules.files`".into()),
        })
        .collect();
    let mut counts = RuleCounts::default();
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let bytes = files::read_rules(&path).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&bytes);
        let file = parse(&text);
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
    let compilation = Ruleset::compile(&sources, &variables(config), &Classification::builtin());
    for (source, diagnostic) in &compilation.diagnostics {
        match diagnostic.severity {
            Severity::Error => counts.wrong += 1,
            Severity::Unsupported => counts.unsupported += 1,
            Severity::Warning => {}
        }
        let name = parsed.get(*source).map_or("", |(name, _)| name);
        note(&mut problems, name, diagnostic);
    }
    counts.loaded = compilation.ruleset.len() as u64;
    Ok(Rulebook { ruleset: compilation.ruleset, counts, problems })
}

fn variables(config: &Config) -> Variables {
    let mut variables = Variables::default();
    for (name, value) in &config.rules.variables.0 {
        variables.define(name, value);
    }
    variables
}

fn note(problems: &mut Vec<Problem>, file: &str, diagnostic: &bulkhead_rules::Diagnostic) {
    if problems.len() >= PROBLEMS_MAX {
        return;
    }
    problems.push(Problem {
        severity: if diagnostic.severity == Severity::Error { ProblemSeverity::Error } else { ProblemSeverity::Warning },
        code: diagnostic.code.to_string(),
        file: Some(file.to_owned()),
        line: Some(diagnostic.span.line),
        column: Some(diagnostic.span.column),
        sid: diagnostic.sid,
        message: diagnostic.message.clone(),
        help: diagnostic.help.clone(),
    });
}
