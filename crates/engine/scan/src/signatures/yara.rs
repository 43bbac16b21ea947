//! YARA rules, unmodified, on the engine `boreal`.
//!
//! A file of rules is compiled rule by rule, so that one that cannot be compiled does not take its neighbours with it.

use std::time::Duration;

use boreal::scanner::{ScanError, ScanParams};
use boreal_parser::file::YaraFileComponent;

use super::{Diagnostic, Hit, Summary};
use crate::budget::Gap;
use crate::finding::{MATCHED_BYTES_MAX, MATCHED_MAX, Matched};

/// What other tools let rules ask of a file beside its bytes.
const EXTERNAL: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];
/// Matches of one pattern that are remembered; more make no difference to what is shown, and conditions count up to here.
const MATCHES_MAX: u32 = 10_000;

pub(super) struct Compiler {
    compiler: boreal::Compiler,
    rules: usize,
}

impl Compiler {
    pub fn new() -> Self {
        let mut compiler = boreal::Compiler::new();
        compiler.set_params(boreal::compiler::CompilerParams::default().disable_includes(true).fail_on_warnings(false));
        for name in EXTERNAL {
            compiler.define_symbol(name, "");
        }
        Self { compiler, rules: 0 }
    }

    pub fn add(&mut self, source: u32, name: &str, text: &str, summary: &mut Summary) {
        // The namespace is the number of the source, by which a hit finds its way back.
        let namespace = source.to_string();
        for piece in pieces(text) {
            match self.compiler.add_rules_str_in_namespace(&piece.text, &namespace) {
                Ok(_) => {
                    self.rules += 1;
                    summary.count("yara");
                }
                Err(error) => {
                    let message = first_line(&error.to_string());
                    let (what, wrong) = reason(&message);
                    summary.refuse(what, Diagnostic { source: name.to_owned(), line: piece.line, name: piece.name, message, wrong });
                }
            }
        }
    }

    /// One rule of our own making.
    pub fn add_made(&mut self, source: u32, text: &str) -> Result<(), String> {
        self.compiler.add_rules_str_in_namespace(text, source.to_string()).map_err(|error| first_line(&error.to_string()))?;
        self.rules += 1;
        Ok(())
    }

    pub fn finish(self) -> Rules {
        Rules { scanner: (self.rules > 0).then(|| self.compiler.finalize()) }
    }
}

pub(crate) struct Rules {
    scanner: Option<boreal::Scanner>,
}

impl Rules {
    pub const fn is_empty(&self) -> bool {
        self.scanner.is_none()
    }

    /// All rules that these bytes match. A search that took too long says so, with what it had found by then.
    pub fn search(&self, bytes: &[u8], name: &str, kind: &'static str, time_max: Duration) -> (Vec<Hit>, Option<Gap>) {
        let Some(scanner) = &self.scanner else { return (Vec::new(), None) };
        // A clone shares the rules: only names and parameters are its own.
        let mut scanner = scanner.clone();
        let file_name = name.rsplit('/').next().unwrap_or(name);
        let extension = file_name.rsplit_once('.').map_or("", |(_, extension)| extension);
        for (symbol, value) in EXTERNAL.into_iter().zip([file_name, name, extension, kind, ""]) {
            // They were defined before the rules were compiled.
            let _ = scanner.define_symbol(symbol, value);
        }
        scanner.set_scan_params(
            ScanParams::default()
                .compute_full_matches(false)
                .match_max_length(MATCHED_BYTES_MAX)
                .string_max_nb_matches(MATCHES_MAX)
                .timeout_duration(Some(time_max)),
        );
        let (result, gap) = match scanner.scan_mem(bytes) {
            Ok(result) => (result, None),
            Err((ScanError::Timeout, result)) => (result, Some(Gap::Time)),
            Err((_, result)) => (result, Some(Gap::Unsupported("what the search asked for"))),
        };
        let hits = result.rules.iter().filter(|rule| rule.matched).map(hit).collect();
        (hits, gap)
    }
}

fn hit(rule: &boreal::scanner::EvaluatedRule<'_>) -> Hit {
    let matched = rule
        .matches
        .iter()
        .flat_map(|string| string.matches.iter().take(2).map(move |found| (string.name, found)))
        .take(MATCHED_MAX)
        .map(|(pattern, found)| Matched {
            pattern: pattern.to_owned(),
            offset: (found.base + found.offset) as u64,
            len: found.length as u64,
            bytes: found.data[..found.data.len().min(MATCHED_BYTES_MAX)].to_vec(),
        })
        .collect();
    Hit { name: rule.name.to_owned(), source: rule.namespace.parse().unwrap_or(u32::MAX), matched }
}

/// One rule with what it needs of its file.
struct Piece {
    text: String,
    name: String,
    line: usize,
}

/// Cuts a file into its rules. A file that cannot be parsed is cut where lines begin with `rule`, so that the fault stays in its rule.
fn pieces(text: &str) -> Vec<Piece> {
    let (mut starts, mut imports) = (Vec::new(), Vec::new());
    match boreal_parser::parse(text) {
        Ok(file) => {
            for component in file.components {
                match component {
                    YaraFileComponent::Rule(rule) => starts.push((start_of(text, rule.name_span.start), rule.name)),
                    YaraFileComponent::Import(import) => imports.push(import.name),
                    // A rule that needs an included one says so when it is compiled.
                    YaraFileComponent::Include(_) => {}
                }
            }
        }
        Err(_) => {
            let mut at = 0;
            for line in text.split_inclusive('\n') {
                if let Some(name) = rule_named(line) {
                    starts.push((at, name.to_owned()));
                } else if let Some(module) = line.trim().strip_prefix("import").and_then(|rest| rest.trim().strip_prefix('"')) {
                    imports.extend(module.split('"').next().map(str::to_owned));
                }
                at += line.len();
            }
            if starts.is_empty() {
                starts.push((0, String::new()));
            }
        }
    }
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]).collect::<Vec<_>>();
    starts
        .into_iter()
        .zip(ends)
        .map(|((start, name), end)| {
            let body = &text[start..end.max(start)];
            // An import of a module that is not there must not hurt rules that do without it. Imports of the following rule stand in
            // this piece too, where they do no harm, except that one.
            let mut piece = String::new();
            for module in &imports {
                if body.contains(&format!("{module}.")) {
                    piece.push_str(&format!("import \"{module}\" "));
                }
            }
            for line in body.split_inclusive('\n') {
                let plain = line.trim_start();
                let foreign = plain.starts_with("import \"") || plain.starts_with("include \"");
                piece.push_str(if foreign { "\n" } else { line });
            }
            Piece { text: piece, name, line: text[..start].matches('\n').count() + 1 }
        })
        .collect()
}

/// Where the rule begins whose name stands at `name`: at `rule`, and at what stands before it.
fn start_of(text: &str, name: usize) -> usize {
    let mut before = text[..name].trim_end();
    let mut start = name;
    for word in ["rule", "global", "private", "global", "private"] {
        if let Some(rest) = before.strip_suffix(word) {
            start = rest.len();
            before = rest.trim_end();
        }
    }
    start
}

/// The name, if a rule begins in this line.
fn rule_named(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| matches!(*word, "private" | "global"));
    (words.next() == Some("rule")).then(|| words.next())?.map(|name| name.trim_end_matches(['{', ':']))
}

/// What is not built, as far as the message tells: else the rule is wrong.
fn reason(message: &str) -> (&'static str, bool) {
    if message.contains("unknown import") || message.contains("unknown identifier") {
        ("a module or a name that is not there", false)
    } else if message.contains("include") {
        ("include", false)
    } else if message.contains("unknown field") || message.contains("invalid arguments") {
        ("a function of a module", false)
    } else {
        ("", true)
    }
}

/// Of a message with the place drawn below it.
fn first_line(message: &str) -> String {
    message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be compiled").trim().to_owned()
}
