//! One rule file: all its rules, and a diagnostic for each that is not loaded.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Problem, Severity};
use crate::header::{self, Header, shorten};
use crate::keyword;
use crate::signature::Fold;
use crate::source::{LogicalLine, RULE_BYTES_MAX, logical_lines};
use crate::tree::{Body, OptionNode, Rule};

/// Options of one rule; the most that any public rule has is some sixty.
const OPTIONS_MAX: usize = 1024;

/// Rules of one file; the largest public set has 120,000 with those that are disabled.
const RULES_MAX: usize = 1_000_000;

/// A file, compiled as far as that goes without knowing variables.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// Loaded, in the order of the file.
    pub rules: Vec<Rule>,
    /// Well formed, and each with a diagnostic of severity `Unsupported`. One whose header is beyond us has no tree
    /// and is only counted.
    pub unsupported: Vec<Rule>,
    /// Behind a `#`, and well formed.
    pub disabled: Vec<Rule>,
    /// In the order of the file. Each rule that is not loaded has exactly one that is no warning.
    pub diagnostics: Vec<Diagnostic>,
    pub counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub loaded: usize,
    pub unsupported: usize,
    pub wrong: usize,
    /// Behind a `#`; not part of the others.
    pub disabled: usize,
}

/// Reads a whole file. Linear in its length.
pub fn parse(text: &str) -> RuleFile {
    read_file(text, Keep::Trees)
}

/// The same for an engine: rules have no options but in their signatures, and those that are disabled or not loaded are only
/// counted. Takes half the memory.
pub fn parse_signatures(text: &str) -> RuleFile {
    read_file(text, Keep::Signatures)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Trees,
    Signatures,
}

fn read_file(text: &str, keep: Keep) -> RuleFile {
    let mut file = RuleFile::default();
    for line in logical_lines(text) {
        if file.rules.len() + file.disabled.len() + file.unsupported.len() + file.counts.wrong >= RULES_MAX {
            let problem = Problem::new(Code::TooManyRules, format!("a file has at most {RULES_MAX} rules"));
            file.diagnostics.push(problem.help("cut it into several files").diagnostic(line.whole(), None));
            file.counts.wrong += 1;
            break;
        }
        let trimmed = line.text.trim_start();
        match trimmed.strip_prefix('#') {
            None => {
                let outcome = read(&line, 0, keep);
                file.take(&line, outcome);
            }
            Some(rest) => {
                let rule = rest.trim_start_matches(['#', ' ', '\t']);
                if header::begins_as_rule(rule)
                    && rule.ends_with(')')
                    && let (_, Some(rule), None) = read(&line, line.text.len() - rule.len(), keep).parts()
                {
                    file.counts.disabled += 1;
                    if keep == Keep::Trees {
                        file.disabled.push(rule);
                    }
                }
            }
        }
    }
    file.keep_newest();
    file.counts.loaded = file.rules.len();
    if keep == Keep::Signatures {
        file.unsupported = Vec::new();
    }
    file
}

/// Fuzz body: any bytes are a rule file. Checks what must hold for each.
pub fn fuzz_rules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let file = parse(&text);
    for diagnostic in &file.diagnostics {
        let span = diagnostic.span;
        assert!(span.start <= span.end && span.end <= text.len(), "span outside of the file");
    }
    for rule in file.rules.iter().chain(&file.unsupported) {
        let written = crate::format::rule(rule);
        let again = parse(&written);
        let found = again.rules.first().or(again.unsupported.first());
        assert!(found.is_some_and(|found| found.same_meaning(rule)), "not read back: {written}");
    }
}

/// What came of one line. `first` is the reason why it is not loaded.
struct Outcome {
    sid: Option<u32>,
    rule: Option<Rule>,
    first: Option<Problem>,
    warnings: Vec<Problem>,
}

impl Outcome {
    fn failed(sid: Option<u32>, problem: Problem) -> Self {
        Self { sid, rule: None, first: Some(problem), warnings: Vec::new() }
    }

    fn parts(self) -> (Option<u32>, Option<Rule>, Option<Problem>) {
        (self.sid, self.rule, self.first)
    }
}

impl RuleFile {
    fn take(&mut self, line: &LogicalLine<'_>, outcome: Outcome) {
        let Outcome { sid, rule, first, warnings } = outcome;
        let mut report = |problem: Problem| {
            let span = problem.at.map_or_else(|| line.whole(), |(start, end)| line.span(start, end));
            let code = problem.code;
            self.diagnostics.push(problem.diagnostic(span, sid));
            code.severity()
        };
        let severity = first.map(&mut report);
        match (severity, rule) {
            (Some(Severity::Unsupported), rule) => {
                self.counts.unsupported += 1;
                self.unsupported.extend(rule);
            }
            (None, Some(rule)) => {
                for warning in warnings {
                    report(warning);
                }
                self.rules.push(rule);
            }
            _ => self.counts.wrong += 1,
        }
    }

    /// Of rules with one gid and sid the newest revision stays; two of the same revision are the author's mistake.
    fn keep_newest(&mut self) {
        let mut newest: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        let mut gone: Vec<usize> = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let signature = &rule.signature;
            let Some(earlier) = newest.insert((signature.gid, signature.sid), index) else { continue };
            let older = &self.rules[earlier].signature;
            let (code, loser, message) = if signature.rev > older.rev {
                (Code::OlderRevision, earlier, format!("replaced by revision {} on line {}", signature.rev, rule.span.line))
            } else {
                newest.insert((signature.gid, signature.sid), earlier);
                (Code::DuplicateSid, index, format!("sid {} is already used on line {}", signature.sid, self.rules[earlier].span.line))
            };
            gone.push(loser);
            self.counts.wrong += usize::from(code == Code::DuplicateSid);
            self.diagnostics.push(Diagnostic {
                code,
                severity: code.severity(),
                span: self.rules[loser].span,
                sid: Some(signature.sid),
                message,
                label: code.label(),
                help: Some("give each rule its own sid, and a higher rev to a rule that replaces another".to_owned()),
                fix: None,
            });
        }
        if gone.is_empty() {
            return;
        }
        gone.sort_unstable();
        let mut index = 0;
        self.rules.retain(|_| {
            index += 1;
            gone.binary_search(&(index - 1)).is_err()
        });
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    }
}

/// Reads the rule that begins at `from` of a logical line.
fn read(line: &LogicalLine<'_>, from: usize, keep: Keep) -> Outcome {
    let text = &line.text[from..];
    if text.len() > RULE_BYTES_MAX {
        return Outcome::failed(None, Problem::new(Code::RuleTooLong, format!("the rule has more than {RULE_BYTES_MAX} bytes")));
    }
    let shift = |problem: Problem| Problem { at: problem.at.map(|(start, end)| (start + from, end + from)), ..problem };
    let (header, open) = match header::parse(text) {
        Ok(read) => read,
        // The protocol may be one of the language that the rule asks for.
        Err(problem) => return Outcome::failed(find_sid(text), unmet(text).unwrap_or_else(|| shift(problem))),
    };
    let Some(close) = text.rfind(')').filter(|close| *close > open && text[close + 1..].trim().is_empty()) else {
        let problem = Problem::new(Code::NoOptions, "the options are not closed with `)`").at(open, text.len());
        return Outcome::failed(find_sid(text), shift(problem));
    };
    options(line, from, text, header, (open + 1, close), keep)
}

fn options(line: &LogicalLine<'_>, from: usize, text: &str, header: Header, (mut at, close): (usize, usize), keep: Keep) -> Outcome {
    let mut fold = Fold::new(&header);
    let mut nodes: Vec<OptionNode> = Vec::new();
    let mut warnings: Vec<Problem> = Vec::new();
    // An error beats an unsupported feature; of each the first counts.
    let mut error: Option<Problem> = None;
    let mut unsupported: Option<Problem> = None;
    let mut unmet: Option<Problem> = None;
    let mut seen = 0;
    let mut told = false;
    let mut note = |problem: Problem, start: usize, end: usize| {
        let problem = Problem { at: Some(problem.at.unwrap_or((start + from, end + from))), ..problem };
        match problem.code.severity() {
            // A rule that asks for another language is not read in this one.
            Severity::Unsupported if problem.code == Code::RequirementUnmet => unmet = Some(problem),
            Severity::Unsupported => _ = unsupported.get_or_insert(problem),
            Severity::Error | Severity::Warning => _ = error.get_or_insert(problem),
        }
    };
    while at < close {
        let body = &text[at..close];
        let blank = body.len() - body.trim_start().len();
        at += blank;
        if at >= close {
            break;
        }
        seen += 1;
        if seen > OPTIONS_MAX {
            note(Problem::new(Code::RuleTooLong, format!("the rule has more than {OPTIONS_MAX} options")), at, close);
            break;
        }
        let Some(end) = option_end(&text.as_bytes()[at..close]).map(|end| at + end) else {
            note(Problem::new(Code::OptionUnterminated, format!("`{}` does not end in `;`", shorten(text[at..close].trim()))), at, close);
            break;
        };
        let option = &text[at..end];
        match read_option(option, &mut fold, told) {
            Ok((_, body)) if keep == Keep::Signatures && !matches!(body, Body::Unsupported(_)) => {}
            Ok((node_keyword, body)) => {
                if let Body::Unsupported(_) = body {
                    note(Problem::new(Code::KeywordUnsupported, format!("`{}` is not supported yet", node_keyword.name)), at, end);
                }
                // `flowbits:noalert` is the same as `noalert`.
                let name = if body == Body::Noalert { "noalert" } else { node_keyword.name };
                let text =
                    if body.is_written_as_read() && name == node_keyword.name { written(option).map(String::into_boxed_str) } else { None };
                nodes.push(OptionNode { span: line.span(at + from, end + from), keyword: name, body, text });
            }
            Err((Some(keyword), problem)) if problem.code.severity() == Severity::Unsupported => {
                // Kept in the tree as written, so that the rule can be formatted.
                let body = Body::Unsupported(written(option));
                nodes.push(OptionNode { span: line.span(at + from, end + from), keyword: keyword.name, body, text: None });
                note(problem, at, end);
            }
            // The fix of an unknown keyword replaces its name only.
            Err((_, problem)) if problem.fix.is_some() => {
                let name = option.split(':').next().unwrap_or(option).trim_end().len();
                note(problem, at, at + name);
                told = true;
            }
            Err((_, problem)) => {
                told = true;
                note(problem, at, end);
            }
        }
        let place = |problem: Problem| Problem { at: Some((at + from, end + from)), ..problem };
        warnings.extend(fold.warnings.drain(..).map(place));
        at = end + 1;
    }
    let sid = Some(fold.signature.sid).filter(|sid| *sid != 0);
    if let Some(problem) = unmet {
        return Outcome::failed(sid, problem);
    }
    let signature = match (unsupported.is_some(), fold.finish()) {
        (_, Ok(signature)) => signature,
        (_, Err(problem)) => {
            return Outcome::failed(sid, error.unwrap_or(problem));
        }
    };
    if let Some(problem) = error {
        return Outcome::failed(sid, problem);
    }
    if signature.msg.is_empty() {
        warnings.push(Problem::new(Code::NoMessage, "the rule says nothing").help("add `msg:\"...\";`"));
    }
    nodes.shrink_to_fit();
    let rule = Rule { span: line.span(from, line.text.len()), header, options: nodes, signature };
    Outcome { sid, rule: Some(rule), first: unsupported, warnings }
}

type Failed = (Option<&'static keyword::Keyword>, Problem);

/// `told`: something is wrong already, and a further mistake needs no advice.
fn read_option(option: &str, fold: &mut Fold, told: bool) -> Result<(&'static keyword::Keyword, Body), Failed> {
    let (name, value) = match option.split_once(':') {
        Some((name, value)) => (name.trim(), Some(unescape_semicolons(value))),
        None => (option.trim(), None),
    };
    let keyword = keyword::lookup(name).ok_or_else(|| {
        let problem = Problem::new(Code::UnknownKeyword, format!("`{}` is not a keyword", shorten(name)));
        (
            None,
            match if told { None } else { nearest(name) } {
                Some(near) => problem.help(format!("did you mean `{near}`?")).fix(near),
                None => problem,
            },
        )
    })?;
    let body = keyword.read(value.as_deref()).map_err(|problem| (Some(keyword), problem))?;
    fold.add(keyword, &body).map_err(|problem| (Some(keyword), problem))?;
    Ok((keyword, body))
}

/// An option's value, trimmed.
fn written(option: &str) -> Option<String> {
    option.split_once(':').map(|(_, value)| unescape_semicolons(value.trim())).filter(|value| !value.is_empty())
}

/// Offset of the `;` that ends the option: the first without a backslash before it.
fn option_end(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|at| bytes[*at] == b';' && (*at == 0 || bytes[at - 1] != b'\\'))
}

/// `\;` is a semicolon already at this level, as in Suricata.
fn unescape_semicolons(value: &str) -> String {
    value.replace("\\;", ";")
}

/// The requirement that keeps a rule from being read whose header cannot be.
fn unmet(text: &str) -> Option<Problem> {
    let at = text.find("requires:")?;
    let value = &text[at + "requires:".len()..];
    let end = option_end(value.as_bytes())?;
    match keyword::lookup("requires")?.read(Some(&value[..end])) {
        Ok(Body::Requires(requirements)) => crate::signature::unmet(&requirements),
        Ok(_) => None,
        Err(problem) => Some(problem).filter(|problem| problem.code == Code::RequirementUnmet),
    }
}

/// The sid of a rule that cannot be read, for its diagnostic.
pub(crate) fn find_sid(text: &str) -> Option<u32> {
    let at = text.find("sid:")?;
    let digits = text[at + 4..].trim_start();
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// A keyword that differs in one character.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 || name.len() < 3 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    keyword::all().iter().map(|keyword| keyword.name).find(|known| one_edit(name.as_bytes(), known.as_bytes()))
}

fn one_edit(a: &[u8], b: &[u8]) -> bool {
    let same_front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same_front..], &b[same_front..]);
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Equal => a.is_empty() || a[1..] == b[1..] || (a.len() >= 2 && a[0] == b[1] && a[1] == b[0] && a[2..] == b[2..]),
        std::cmp::Ordering::Less => a == &b[1..],
        std::cmp::Ordering::Greater => &a[1..] == b,
    }
}
