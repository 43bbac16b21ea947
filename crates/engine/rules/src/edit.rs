//! What an operator says about rules that somebody else wrote: the enable, disable, drop and modify files of rule-update tools.
//!
//! ```text
//! 2019401                        # a sid, of generator 1
//! 1:2019401, 1:2019402           # generator and sid, several on a line
//! re:heartbleed                  # a regular expression over the rule's text, without case
//! group:emerging-icmp.rules      # the file, with or without .rules; * for any text
//! metadata: deployment perimeter # key, or key and value
//! classtype: coin-mining
//! 2019401 "seconds \d+" "seconds 3600"   # modify: what, and with what; \1 is the first group
//! ```
//! Source: suricata-update's documentation, "Rule Matching" and "modify.conf". They are applied in the order disable, enable,
//! modify, drop, to a file's text, before it is parsed: what a rule is made into is checked as any other.

use std::collections::BTreeSet;

use regex::bytes::{Regex, RegexBuilder};

use crate::diagnostic::{Code, Diagnostic, Problem};
use crate::header::{self, Action, shorten};
use crate::source::{LogicalLine, RULE_BYTES_MAX, logical_lines};
use crate::tree::Rule;

/// Lines in one file; more are passed over and reported.
const LINES_MAX: usize = 65_536;
/// Memory of one compiled expression.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// Which rules a line is about.
#[derive(Debug, Clone)]
pub enum Matcher {
    Sid {
        gid: u32,
        sid: u32,
    },
    Text(Regex),
    /// A file's name, with `*` for any text.
    Group(String),
    Metadata {
        key: String,
        value: Option<String>,
    },
    Classtype(String),
    All,
}

/// A change of a rule's text.
#[derive(Debug, Clone)]
pub struct Modification {
    pub matcher: Matcher,
    pub from: Regex,
    /// As [`Regex::replace_all`] takes it.
    pub to: String,
}

/// The four files.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    pub disable: Vec<Matcher>,
    pub enable: Vec<Matcher>,
    pub modify: Vec<Modification>,
    pub drop: Vec<Matcher>,
}

/// How many rules each file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edited {
    pub disabled: usize,
    pub enabled: usize,
    pub modified: usize,
    pub dropped: usize,
    /// Modifications whose result would have been longer than a rule may be, or more than one line; the rule is left as it was.
    pub refused: usize,
}

/// Reads an enable, disable or drop file. Lines that cannot be read are reported and left out.
pub fn matchers(text: &str) -> (Vec<Matcher>, Vec<Diagnostic>) {
    each(text, |line, found| {
        // Several sids may stand on one line, and nothing else may.
        for member in line.split(',') {
            match sid(member.trim()) {
                Some(matcher) => found.push(matcher),
                None if member.len() == line.len() => found.push(matcher(line)?),
                None if line.starts_with("re:") => {
                    found.push(matcher(line)?);
                    break;
                }
                None => return Err(Problem::new(Code::BadMatcher, format!("`{}` is not a sid", shorten(member.trim())))),
            }
        }
        Ok(())
    })
}

/// Reads a modify file.
pub fn modifications(text: &str) -> (Vec<Modification>, Vec<Diagnostic>) {
    each(text, |line, found| {
        let help = "write `2019401 \"from\" \"to\"`";
        let bad = || Problem::new(Code::BadMatcher, "this is not a modification").help(help);
        let line = line.strip_prefix("modifysid").map_or(line, str::trim_start);
        let (what, rest) = quoted_from(line).ok_or_else(bad)?;
        let (from, rest) = quoted(rest).ok_or_else(bad)?;
        let rest = rest.trim_start();
        let (to, rest) = quoted(rest.strip_prefix('|').map_or(rest, str::trim_start)).ok_or_else(bad)?;
        if !rest.trim().is_empty() {
            return Err(bad());
        }
        let from = expression(&from, false)?;
        let to = groups(&to);
        for member in what.split(',') {
            let matcher = match sid(member.trim()) {
                Some(matcher) => matcher,
                None => matcher(what)?,
            };
            let all = !matches!(matcher, Matcher::Sid { .. });
            found.push(Modification { matcher, from: from.clone(), to: to.clone() });
            if all {
                break;
            }
        }
        Ok(())
    })
}

impl Edits {
    pub fn is_empty(&self) -> bool {
        self.disable.is_empty() && self.enable.is_empty() && self.modify.is_empty() && self.drop.is_empty()
    }

    /// The text of a rule file as edited. `group` is the file's name. Rules that were not touched stay as they are, in whatever lines
    /// they stand; comments stay.
    pub fn apply(&self, group: &str, text: &str) -> (String, Edited) {
        let mut out = String::with_capacity(text.len() + 1024);
        let mut edited = Edited::default();
        let mut copied = 0;
        let index = Index { disable: Selected::of(&self.disable), enable: Selected::of(&self.enable), drop: Selected::of(&self.drop) };
        for line in logical_lines(text) {
            let span = line.whole();
            if let Some(new) = self.line(&index, group, &line, &mut edited) {
                out.push_str(text.get(copied..span.start).unwrap_or_default());
                out.push_str(&new);
                // What follows keeps its line numbers.
                let breaks = text.get(span.start..span.end).map_or(0, |old| old.matches('\n').count());
                out.extend(std::iter::repeat_n('\n', breaks));
                copied = span.end;
            }
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        (out, edited)
    }

    /// The new text of a line, when it changes.
    fn line(&self, index: &Index<'_>, group: &str, line: &LogicalLine<'_>, edited: &mut Edited) -> Option<String> {
        let trimmed = line.text.trim();
        let bare = trimmed.trim_start_matches(['#', ' ', '\t']);
        let was_enabled = bare.len() == trimmed.len();
        if !header::begins_as_rule(bare) || !bare.ends_with(')') || bare.len() > RULE_BYTES_MAX {
            return None;
        }
        let file = crate::parse(bare);
        let rule = file.rules.first().or(file.unsupported.first());
        let about = |selected: &Selected<'_>| selected.contains(group, bare, rule);
        let mut enabled = was_enabled;
        if enabled && about(&index.disable) {
            enabled = false;
            edited.disabled += 1;
        }
        if !enabled && about(&index.enable) {
            enabled = true;
            edited.enabled += 1;
        }
        let mut new = bare.to_owned();
        for change in self.modify.iter().filter(|change| change.matcher.matches(group, bare, rule)) {
            let changed = change.from.replace_all(new.as_bytes(), change.to.as_bytes()).into_owned();
            match String::from_utf8(changed) {
                Ok(changed) if changed.len() <= RULE_BYTES_MAX && !changed.contains(['\n', '\r']) => {
                    edited.modified += usize::from(changed != new);
                    new = changed;
                }
                _ => edited.refused += 1,
            }
        }
        // A rule that says nothing is there for others: it drops nothing on its own.
        let silent = rule.is_some_and(|rule| rule.signature.noalert);
        if rule.is_some_and(|rule| rule.header.action == Action::Alert) && !silent && about(&index.drop) {
            let rest = new.strip_prefix("alert").map(str::to_owned);
            if let Some(rest) = rest {
                new = format!("drop{rest}");
                edited.dropped += 1;
            }
        }
        let same = enabled == was_enabled && new == bare;
        (!same).then(|| if enabled { new } else { format!("# {new}") })
    }
}

struct Index<'a> {
    disable: Selected<'a>,
    enable: Selected<'a>,
    drop: Selected<'a>,
}

/// A file's matchers; the sids, of which there may be thousands, are looked up.
struct Selected<'a> {
    sids: BTreeSet<(u32, u32)>,
    others: Vec<&'a Matcher>,
}

impl<'a> Selected<'a> {
    fn of(matchers: &'a [Matcher]) -> Self {
        let mut selected = Self { sids: BTreeSet::new(), others: Vec::new() };
        for matcher in matchers {
            match matcher {
                Matcher::Sid { gid, sid } => _ = selected.sids.insert((*gid, *sid)),
                other => selected.others.push(other),
            }
        }
        selected
    }

    fn contains(&self, group: &str, text: &str, rule: Option<&Rule>) -> bool {
        let named = !self.sids.is_empty() && number(text, rule).is_some_and(|number| self.sids.contains(&number));
        named || self.others.iter().any(|matcher| matcher.matches(group, text, rule))
    }
}

/// Generator and sid. Of a rule that cannot be read too: it is what an operator wants to be rid of.
fn number(text: &str, rule: Option<&Rule>) -> Option<(u32, u32)> {
    match rule {
        Some(rule) => Some((rule.signature.gid, rule.signature.sid)),
        None => Some((1, crate::file::find_sid(text)?)),
    }
}

impl Matcher {
    /// `rule` is `None` when its text cannot be read; then only the text, its sid and the file can be asked.
    pub fn matches(&self, group: &str, text: &str, rule: Option<&Rule>) -> bool {
        match self {
            Self::Sid { gid, sid } => number(text, rule) == Some((*gid, *sid)),
            Self::Text(expression) => expression.is_match(text.as_bytes()),
            Self::Group(pattern) => {
                let name = group.rsplit('/').next().unwrap_or(group);
                glob(pattern, name) || name.strip_suffix(".rules").is_some_and(|stem| glob(pattern, stem))
            }
            Self::Metadata { key, value } => rule.is_some_and(|rule| {
                let same = |found: &(String, String)| {
                    found.0.eq_ignore_ascii_case(key) && value.as_ref().is_none_or(|value| found.1.eq_ignore_ascii_case(value))
                };
                rule.signature.metadata.iter().any(same)
            }),
            Self::Classtype(name) => {
                rule.is_some_and(|rule| rule.signature.classtype.as_ref().is_some_and(|class| class.eq_ignore_ascii_case(name)))
            }
            Self::All => true,
        }
    }
}

fn each<T>(text: &str, mut read: impl FnMut(&str, &mut Vec<T>) -> Result<(), Problem>) -> (Vec<T>, Vec<Diagnostic>) {
    let (mut found, mut diagnostics) = (Vec::new(), Vec::new());
    for (number, line) in logical_lines(text).filter(|line| !line.text.trim_start().starts_with('#')).enumerate() {
        let result = if number < LINES_MAX {
            read(line.text.trim(), &mut found)
        } else {
            Err(Problem::new(Code::BadMatcher, format!("the file has more than {LINES_MAX} lines")))
        };
        if let Err(problem) = result {
            diagnostics.push(problem.diagnostic(line.whole(), None));
        }
    }
    (found, diagnostics)
}

/// `2019401` or `1:2019401`; a remark may follow behind `#`.
fn sid(text: &str) -> Option<Matcher> {
    let text = text.split_once(" #").map_or(text, |(text, _)| text).trim();
    let (gid, sid) = text.split_once(':').unwrap_or(("1", text));
    Some(Matcher::Sid { gid: gid.trim().parse().ok()?, sid: sid.trim().parse().ok()? })
}

fn matcher(text: &str) -> Result<Matcher, Problem> {
    let text = text.trim();
    let named = |value: &str| -> Result<String, Problem> {
        let value = value.trim();
        if value.is_empty() { Err(Problem::new(Code::BadMatcher, "the line ends here")) } else { Ok(value.to_owned()) }
    };
    match text.split_once(':') {
        _ if text == "*" => Ok(Matcher::All),
        None if text.ends_with(".rules") => Ok(Matcher::Group(text.to_owned())),
        Some(("re", pattern)) => Ok(Matcher::Text(expression(&named(pattern)?, true)?)),
        Some(("group" | "filename", name)) => Ok(Matcher::Group(named(name)?)),
        Some(("classtype", name)) => Ok(Matcher::Classtype(named(name)?)),
        Some(("metadata", pair)) => {
            let pair = named(pair)?;
            let (key, value) = pair.split_once(char::is_whitespace).map_or((pair.as_str(), None), |(key, value)| (key, Some(value.trim())));
            Ok(Matcher::Metadata { key: key.to_owned(), value: value.map(str::to_owned) })
        }
        _ => Err(Problem::new(Code::BadMatcher, format!("`{}` says no rules", shorten(text)))
            .help("write a sid, gid:sid, re:, group:, metadata: or classtype:")),
    }
}

fn expression(pattern: &str, caseless: bool) -> Result<Regex, Problem> {
    RegexBuilder::new(pattern).unicode(false).case_insensitive(caseless).size_limit(PROGRAM_BYTES_MAX).build().map_err(|_| {
        Problem::new(Code::BadMatcher, format!("`{}` is not a regular expression here", shorten(pattern)))
            .help("look-around and back references are not supported")
    })
}

/// What stands before the first quote, and the rest from the quote on.
fn quoted_from(text: &str) -> Option<(&str, &str)> {
    let at = text.find('"')?;
    let what = text[..at].trim();
    (!what.is_empty()).then(|| (what, &text[at..]))
}

/// A text in quotes, in which `\"` is a quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match (escaped, character) {
            (true, '"') => out.push('"'),
            (true, other) => out.extend(['\\', other]),
            (false, '\\') => {}
            (false, '"') => return Some((out, inside[at + 1..].trim_start())),
            (false, other) => out.push(other),
        }
        escaped = !escaped && character == '\\';
    }
    None
}

/// `\1` is written `${1}` for us; a `$` otherwise stands for itself.
fn groups(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.extend(["${", &digit.to_string(), "}"]);
                characters.next();
            }
            ('$', Some('{')) => out.push('$'),
            ('$', _) => out.push_str("$$"),
            (other, _) => out.push(other),
        }
    }
    out
}

/// `*` is any text; linear in the product of both lengths, which are short.
fn glob(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or("")) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(before) = last.replace(piece) {
            match rest.find(before) {
                Some(at) => rest = &rest[at + before.len()..],
                None => return false,
            }
        }
    }
    match last {
        None => rest.is_empty(),
        Some(piece) => rest.ends_with(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"# a comment
alert tcp any any -> any any (msg:"one"; content:"a"; metadata:deployment Perimeter, tag x; classtype:coin-mining; sid:1; rev:1;)
# alert tcp any any -> any any (msg:"two"; content:"b"; sid:2; rev:1;)
alert tcp any any -> any any \
  (msg:"three heartbleed"; content:"c"; threshold:type limit, track by_src, count 1, seconds 60; sid:3; rev:1;)
alert tcp any any -> any any (msg:"four"; flowbits:set,x; noalert; sid:4;)
"#;

    fn edit(disable: &str, enable: &str, modify: &str, drop: &str) -> (String, Edited) {
        let read = |text: &str| {
            let (found, diagnostics) = matchers(text);
            assert!(diagnostics.is_empty(), "{diagnostics:?}");
            found
        };
        let (modify, diagnostics) = modifications(modify);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        Edits { disable: read(disable), enable: read(enable), modify, drop: read(drop) }.apply("rules/emerging-misc.rules", RULES)
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        assert_eq!(edit("", "", "", ""), (RULES.to_owned(), Edited::default()));
        assert_eq!(edit("99\nre:nothing", "1:98, 97", "", "group:other").0, RULES);
    }

    #[test]
    fn rules_are_found_by_each_matcher() {
        for text in ["1", "1:1", "1 # why", "re:MSG:\"ONE", "metadata: deployment perimeter", "metadata:tag", "classtype: coin-mining"] {
            let (out, edited) = edit(text, "", "", "");
            assert_eq!(edited, Edited { disabled: 1, ..Edited::default() }, "{text}");
            assert!(out.contains("\n# alert tcp any any -> any any (msg:\"one\""), "{out}");
        }
        for text in ["group:emerging-misc.rules", "group:emerging-misc", "group:*misc*", "filename:emerging-*.rules", "*"] {
            assert_eq!(edit(text, "", "", "").1.disabled, 3, "{text}");
        }
        let (out, edited) = edit("", "2", "", "");
        assert_eq!(edited.enabled, 1);
        assert!(out.contains("\nalert tcp any any -> any any (msg:\"two\""));
    }

    #[test]
    fn rules_are_modified_and_dropped() {
        let (out, edited) =
            edit("", "", "3 \"seconds \\d+\" \"seconds 3600\"\nmodifysid 1 \"^alert(.*)one\" | \"reject\\1$1\"\n", "3\n4\n2");
        assert_eq!(edited, Edited { modified: 2, dropped: 2, ..Edited::default() });
        assert!(out.contains("drop tcp any any -> any any   (msg:\"three heartbleed\"") && out.contains("seconds 3600"), "{out}");
        assert!(out.contains("reject tcp any any -> any any (msg:\"$1\""), "{out}");
        assert!(out.contains("# drop tcp any any -> any any (msg:\"two\"") && out.contains("alert tcp any any -> any any (msg:\"four\""));
        assert_eq!(crate::parse(&out).counts.wrong, 0);
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_found_by_its_sid() {
        let (disable, _) = matchers("7");
        let text = "alert tcp any any -> any any (msg:\"x\"; contnet:\"a\"; sid:7; rev:1;)\n";
        let (out, edited) = Edits { disable, ..Edits::default() }.apply("x.rules", text);
        assert_eq!((out, edited.disabled), (format!("# {text}"), 1));
    }

    #[test]
    fn broken_lines_are_reported() {
        let (found, diagnostics) = matchers("1\nre:(\nre:\nsomething\n1, x\n");
        assert_eq!(found.len(), 2);
        assert_eq!(diagnostics.iter().map(|found| found.span.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
        let (found, diagnostics) = modifications("1 \"a\"\n1 \"(\" \"b\"\n\"a\" \"b\"\n1 \"a\" \"b\" c\n");
        assert!(found.is_empty());
        assert_eq!(diagnostics.len(), 4);
    }
}
