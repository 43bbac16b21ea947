//! pcre. The pattern is kept as written; an engine translates it. What no linear-time engine has is refused here.

use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::{Code, Problem};
use crate::tree::{Body, Pcre, PcreFlags};

pub(super) const KEYWORDS: &[Keyword] = &[keyword("pcre", Value::Required, false, pcre)];

fn pcre(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = |message: &str| Problem::new(Code::BadPcre, message.to_owned());
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    let text = Args { keyword: args.keyword, value }.unquoted().map_err(|problem| Problem { code: Code::BadPcre, ..problem })?;
    let (pattern, letters) = match text.strip_prefix('/') {
        Some(rest) => rest.rsplit_once('/').ok_or_else(|| bad("the pattern has no closing `/`").help("write pcre:\"/PATTERN/FLAGS\";"))?,
        None => return Err(bad("the pattern does not begin with `/`").help("write pcre:\"/PATTERN/FLAGS\";")),
    };
    let mut flags = PcreFlags::default();
    for letter in letters.chars() {
        match letter {
            'i' => flags.caseless = true,
            's' => flags.dot_all = true,
            'm' => flags.multi_line = true,
            'x' => flags.extended = true,
            'A' => flags.anchored = true,
            'E' => flags.dollar_end_only = true,
            'G' => flags.ungreedy = true,
            'R' => flags.relative = true,
            'B' => flags.rawbytes = true,
            'O' => flags.no_match_limit = true,
            'U' | 'I' | 'H' | 'D' | 'M' | 'C' | 'P' | 'Q' | 'Y' | 'S' | 'V' | 'W' => {
                return Err(Problem::new(Code::PcreUnsupported, format!("the buffer flag `{letter}` is not supported yet")));
            }
            other => return Err(bad(&format!("`{other}` is not a flag"))),
        }
    }
    if let Some(construct) = unsupported_construct(pattern) {
        return Err(Problem::new(Code::PcreUnsupported, format!("the construct `{construct}` is not supported"))
            .help("look-around, back references, atomic groups and possessive quantifiers have no linear-time match"));
    }
    Ok(Body::Pcre(Pcre { negated, pattern: pattern.to_owned(), flags }))
}

/// The first construct that needs backtracking.
fn unsupported_construct(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let mut at = 0;
    let mut in_class = false;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let next = bytes.get(at + 1).copied().unwrap_or(b' ');
                if !in_class && (matches!(next, b'1'..=b'9' | b'k' | b'g' | b'K' | b'G' | b'R' | b'X' | b'C')) {
                    return pattern.get(at..at + 2);
                }
                at += 1;
            }
            b'[' if !in_class => {
                in_class = true;
                // A `]` directly after the opening is a member.
                if bytes.get(at + 1) == Some(&b'^') {
                    at += 1;
                }
                if bytes.get(at + 1) == Some(&b']') {
                    at += 1;
                }
            }
            b']' if in_class => in_class = false,
            b'(' if !in_class && bytes.get(at + 1) == Some(&b'?') => {
                let known = match bytes.get(at + 2) {
                    Some(b':' | b'P' | b'i' | b's' | b'm' | b'x' | b'U' | b'-') => {
                        !pattern[at..].starts_with("(?P=") && !pattern[at..].starts_with("(?P>")
                    }
                    Some(b'<') => !matches!(bytes.get(at + 3), Some(b'=' | b'!')),
                    _ => false,
                };
                if !known {
                    return pattern.get(at..at + 3).or(pattern.get(at..));
                }
            }
            b'(' if !in_class && bytes.get(at + 1) == Some(&b'*') => return pattern.get(at..at + 2),
            b'+' if !in_class && at > 0 && matches!(bytes[at - 1], b'+' | b'*' | b'?' | b'}') && !escaped(bytes, at - 1) => {
                return pattern.get(at - 1..=at);
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn escaped(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}
