//! Patterns of the `pcre` option for a linear-time engine on bytes.
//!
//! Suricata's patterns are PCRE on bytes without UTF. What differs in syntax is rewritten; what has no linear-time
//! match (look-around, back references) goes to [`crate::backtrack`].
//!
//! A set has thousands of patterns, and traffic meets a few of them: at load a pattern is read, so that its author hears what is wrong with
//! it; its automaton is built when it is first looked for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_rules::tree::Pcre;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::backtrack::{Program, Search};
use crate::inspect::Work;

/// A compiled pattern may take this much memory.
const PROGRAM_BYTES_MAX: usize = 4 << 20;
/// Bytes that a linear search walks over for one unit of work.
const BYTES_PER_UNIT: usize = 16;
/// The lazy automaton's cache per pattern.
const CACHE_BYTES_MAX: usize = 1 << 17;
/// Automata that are kept; further ones are built each time that they are looked for.
const PATTERNS_KEPT_MAX: usize = 2_048;
/// Work that building one is charged as: some 50 µs.
const BUILD_UNITS: usize = 2_048;
/// Nodes of a pattern, repetitions counted out, up to which it certainly is no larger than [`PROGRAM_BYTES_MAX`].
const NODES_SMALL_MAX: u64 = 4_000;

/// Automata that are kept, of all sets: a measure of memory, on which no answer depends.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A compiled pattern, and whether it holds to the beginning of what it is given.
#[derive(Debug)]
pub struct Pattern {
    engine: Engine,
    pub negated: bool,
    pub relative: bool,
    /// Begins with `^`, without `m`: it can only match at the start of the stream or after the last match.
    pub anchored: bool,
}

#[derive(Debug)]
enum Engine {
    Linear(Linear),
    Backtracking(Box<Program>),
}

/// What an automaton is built from, and the automaton once it is. `None` within: it cannot be built.
#[derive(Debug)]
struct Linear {
    source: Box<str>,
    flags: Flags,
    built: OnceLock<Option<Regex>>,
}

#[derive(Debug, Clone, Copy)]
struct Flags {
    caseless: bool,
    dot_all: bool,
    multi_line: bool,
    extended: bool,
    ungreedy: bool,
}

impl Linear {
    fn build(&self) -> Result<Regex, regex::Error> {
        RegexBuilder::new(&self.source)
            .unicode(false)
            .case_insensitive(self.flags.caseless)
            .dot_matches_new_line(self.flags.dot_all)
            .multi_line(self.flags.multi_line)
            .ignore_whitespace(self.flags.extended)
            .swap_greed(self.flags.ungreedy)
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .build()
    }

    /// Reads it, and builds it when only that tells whether it is too large.
    fn check(&self) -> Result<(), String> {
        let mut parser = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(self.flags.caseless)
            .dot_matches_new_line(self.flags.dot_all)
            .multi_line(self.flags.multi_line)
            .ignore_whitespace(self.flags.extended)
            .swap_greed(self.flags.ungreedy)
            .build();
        let last_line = |text: String| text.lines().last().unwrap_or_default().trim().to_owned();
        let tree = parser.parse(&self.source).map_err(|error| last_line(error.to_string()))?;
        if nodes(&tree) > NODES_SMALL_MAX {
            self.build().map_err(|error| last_line(error.to_string()))?;
        }
        Ok(())
    }

    fn find(&self, window: &[u8], work: &mut Work) -> Search {
        let built = match self.built.get() {
            Some(built) => built,
            None if !work.charge(BUILD_UNITS) => return Search::Exhausted,
            None if KEPT.fetch_add(1, Ordering::Relaxed) < PATTERNS_KEPT_MAX => self.built.get_or_init(|| self.build().ok()),
            None => {
                KEPT.fetch_sub(1, Ordering::Relaxed);
                return find_with(self.build().ok().as_ref(), window, work);
            }
        };
        find_with(built.as_ref(), window, work)
    }
}

impl Drop for Linear {
    fn drop(&mut self) {
        if self.built.get().is_some() {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn find_with(regex: Option<&Regex>, window: &[u8], work: &mut Work) -> Search {
    let Some(regex) = regex else { return Search::Exhausted };
    let found = regex.find(window);
    let walked = found.map_or(window.len(), |found| found.end());
    if !work.charge(4 + walked / BYTES_PER_UNIT) {
        return Search::Exhausted;
    }
    found.map_or(Search::NoMatch, |found| Search::Found { start: found.start(), end: found.end() })
}

/// Nodes of a tree, each as often as it is repeated.
fn nodes(tree: &Hir) -> u64 {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Class(Class::Unicode(class)) => 4 * class.ranges().len() as u64,
        HirKind::Repetition(repetition) => {
            let times = u64::from(repetition.max.unwrap_or(repetition.min).max(1));
            nodes(&repetition.sub).saturating_mul(times).saturating_add(1)
        }
        HirKind::Capture(capture) => nodes(&capture.sub).saturating_add(2),
        HirKind::Concat(all) | HirKind::Alternation(all) => all.iter().fold(1, |sum: u64, one| sum.saturating_add(nodes(one))),
    }
}

impl Pattern {
    /// The first match in `window`. `work` is charged for what was walked over.
    pub fn find(&self, window: &[u8], work: &mut Work) -> Search {
        match &self.engine {
            Engine::Linear(linear) => linear.find(window, work),
            Engine::Backtracking(program) => program.find(window, work),
        }
    }

    /// More bytes may take a match away.
    pub fn may_lose(&self) -> bool {
        match &self.engine {
            Engine::Linear(linear) => self.negated || linear.source.contains("\\z"),
            Engine::Backtracking(_) => true,
        }
    }
}

/// Translates and reads. The error is for the rule's author.
pub fn compile(pcre: &Pcre) -> Result<Pattern, String> {
    let flags = &pcre.flags;
    let anchored = flags.anchored || (pcre.pattern.starts_with('^') && !flags.multi_line && !has_top_alternative(&pcre.pattern));
    let of = |engine| Pattern { engine, negated: pcre.negated, relative: flags.relative, anchored };
    if bulkhead_rules::backtracking_construct(&pcre.pattern).is_some() {
        return Ok(of(Engine::Backtracking(Box::new(Program::new(&pcre.pattern, flags)?))));
    }
    let mut translated = translate(&pcre.pattern, flags.multi_line, flags.dollar_end_only);
    if flags.anchored {
        translated = format!("\\A(?:{translated})");
    }
    let flags = Flags {
        caseless: flags.caseless,
        dot_all: flags.dot_all,
        multi_line: flags.multi_line,
        extended: flags.extended,
        ungreedy: flags.ungreedy,
    };
    let linear = Linear { source: translated.into(), flags, built: OnceLock::new() };
    linear.check()?;
    Ok(of(Engine::Linear(linear)))
}

/// PCRE's syntax in the regex crate's.
fn translate(pattern: &str, multi_line: bool, dollar_end_only: bool) -> String {
    let bytes: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    let mut in_class = false;
    while at < bytes.len() {
        let character = bytes[at];
        let next = bytes.get(at + 1).copied();
        match character {
            '\\' => {
                at += 1;
                match next {
                    None => out.push_str("\\\\"),
                    Some('Z') if !in_class => out.push_str("(?:\\n?\\z)"),
                    Some('h') => out.push_str(if in_class { "\\t\\x20" } else { "[\\t\\x20]" }),
                    Some('e') => out.push_str("\\x1b"),
                    Some('0') => {
                        let octal: String = bytes[at..].iter().take(3).take_while(|digit| ('0'..='7').contains(*digit)).collect();
                        at += octal.len() - 1;
                        out.push_str(&format!("\\x{:02x}", u8::from_str_radix(&octal, 8).unwrap_or(0)));
                    }
                    Some('x') => {
                        // One digit is enough for PCRE.
                        let hex: String = bytes[at + 1..].iter().take(2).take_while(|digit| digit.is_ascii_hexdigit()).collect();
                        if bytes.get(at + 1) == Some(&'{') {
                            out.push_str("\\x");
                        } else {
                            at += hex.len();
                            out.push_str(&format!("\\x{:02x}", u8::from_str_radix(&hex, 16).unwrap_or(0)));
                        }
                    }
                    Some('b') if in_class => out.push_str("\\x08"),
                    // Letters and digits that mean something are the same in both; others stand for themselves.
                    Some(letter @ ('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' | 'a')) => out.extend(['\\', letter]),
                    Some(letter @ ('b' | 'B' | 'A' | 'z')) if !in_class => out.extend(['\\', letter]),
                    Some(letter) if letter.is_ascii_alphanumeric() || !letter.is_ascii() => push_literal(&mut out, letter),
                    Some('<') => out.push('<'),
                    Some('>') => out.push('>'),
                    Some(' ') => out.push_str("\\x20"),
                    Some(mark) => out.extend(['\\', mark]),
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if next == Some('^') {
                    out.push('^');
                    at += 1;
                }
                if bytes.get(at + 1) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            '[' => match posix_class(&bytes[at..]) {
                Some(class) => {
                    out.push_str(&class);
                    at += class.chars().count() - 1;
                }
                None => out.push_str("\\["),
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Set operations of the other syntax.
            '&' | '~' | '-' if in_class && next == Some(character) => out.extend(['\\', character]),
            '$' if !in_class && !multi_line && !dollar_end_only => out.push_str("(?:\\n?\\z)"),
            '{' if !in_class && !is_repetition(&bytes[at..]) => out.push_str("\\{"),
            '}' if !in_class && !closes_repetition(&bytes[..at]) => out.push_str("\\}"),
            other if !other.is_ascii() => push_literal(&mut out, other),
            other => out.push(other),
        }
        at += 1;
    }
    out
}

fn push_literal(out: &mut String, character: char) {
    if character.is_ascii() {
        out.push(character);
        return;
    }
    let mut buffer = [0; 4];
    out.push_str("(?:");
    for byte in character.encode_utf8(&mut buffer).bytes() {
        out.push_str(&format!("\\x{byte:02x}"));
    }
    out.push(')');
}

/// `[:alpha:]` at the front.
fn posix_class(rest: &[char]) -> Option<String> {
    if rest.get(1) != Some(&':') {
        return None;
    }
    let end = rest.iter().take(16).position(|character| *character == ']')?;
    (rest.get(end - 1) == Some(&':') && end > 2).then(|| rest[..=end].iter().collect())
}

/// `{2}`, `{2,}`, `{2,5}` at the front.
fn is_repetition(rest: &[char]) -> bool {
    let Some(end) = rest.iter().take(16).position(|character| *character == '}') else { return false };
    let inside: String = rest[1..end].iter().collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((low, high)) => number(low) && (high.is_empty() || number(high)),
        None => number(&inside),
    }
}

fn closes_repetition(before: &[char]) -> bool {
    match before.iter().rev().take(16).position(|character| *character == '{') {
        Some(back) => {
            let open = before.len() - 1 - back;
            let mut whole: Vec<char> = before[open..].to_vec();
            whole.push('}');
            is_repetition(&whole) && (open == 0 || before[open - 1] != '\\')
        }
        None => false,
    }
}

/// An alternative outside of all groups: `^a|b` is not anchored.
fn has_top_alternative(pattern: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0i32, false, false);
    for byte in pattern.bytes() {
        match byte {
            _ if escaped => {
                escaped = false;
                continue;
            }
            b'\\' => escaped = true,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class => depth -= 1,
            b'|' if !in_class && depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_rules::tree::PcreFlags;

    fn matches(pattern: &str, text: &[u8]) -> bool {
        let pcre = Pcre { negated: false, pattern: pattern.to_owned(), flags: PcreFlags::default(), buffer: None, captures: Vec::new() };
        matches!(compile(&pcre).unwrap().find(text, &mut Work::default()), Search::Found { .. })
    }

    #[test]
    fn syntax_that_differs_means_the_same() {
        assert!(matches(r"a\/b\:c", b"a/b:c"));
        assert!(matches("^x{2,3}$", b"xx\n"));
        assert!(matches("a{b", b"a{b") && matches("a{b}", b"a{b}") && matches(r"\x{41}", b"A"));
        assert!(matches("[]a]+$", b"]a") && matches("[[:digit:][]", b"[") && matches("[a&&b]", b"&"));
        assert!(matches(r"\xff\x0", b"\xff\x00") && matches(r"[^\x80-\xff]", b"a"));
        assert!(matches(r"\<a\>", b"<a>") && matches(r"a\ b", b"a b"));
        assert!(!matches("a.b", b"a\nb"));
    }
}
