//! Patterns of the `pcre` option for a linear-time engine on bytes.
//!
//! Suricata's patterns are PCRE on bytes without UTF. What differs in syntax is rewritten; what has no linear-time
//! match (look-around, back references) goes to [`crate::backtrack`].

use bulkhead_rules::tree::Pcre;
use regex::bytes::{Regex, RegexBuilder};

use crate::backtrack::{Program, Search};
use crate::inspect::Work;

/// A compiled pattern may take this much memory.
const PROGRAM_BYTES_MAX: usize = 4 << 20;
/// Bytes that a linear search walks over for one unit of work.
const BYTES_PER_UNIT: usize = 16;
/// The lazy automaton's cache per pattern.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern, and whether it holds to the beginning of what it is given.
#[derive(Debug, Clone)]
pub struct Pattern {
    engine: Engine,
    pub negated: bool,
    pub relative: bool,
    /// Begins with `^`, without `m`: it can only match at the start of the stream or after the last match.
    pub anchored: bool,
}

#[derive(Debug, Clone)]
enum Engine {
    Linear(Regex),
    Backtracking(Box<Program>),
}

impl Pattern {
    /// The first match in `window`. `work` is charged for what was walked over.
    pub fn find(&self, window: &[u8], work: &mut Work) -> Search {
        match &self.engine {
            Engine::Linear(regex) => {
                let found = regex.find(window);
                let walked = found.map_or(window.len(), |found| found.end());
                if !work.charge(4 + walked / BYTES_PER_UNIT) {
                    return Search::Exhausted;
                }
                found.map_or(Search::NoMatch, |found| Search::Found { start: found.start(), end: found.end() })
            }
            Engine::Backtracking(program) => program.find(window, work),
        }
    }

    /// More bytes may take a match away.
    pub fn may_lose(&self) -> bool {
        match &self.engine {
            Engine::Linear(regex) => self.negated || regex.as_str().contains("\\z"),
            Engine::Backtracking(_) => true,
        }
    }
}

/// Translates and compiles. The error is for the rule's author.
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
    let regex = RegexBuilder::new(&translated)
        .unicode(false)
        .case_insensitive(flags.caseless)
        .dot_matches_new_line(flags.dot_all)
        .multi_line(flags.multi_line)
        .ignore_whitespace(flags.extended)
        .swap_greed(flags.ungreedy)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .build()
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())?;
    Ok(of(Engine::Linear(regex)))
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
