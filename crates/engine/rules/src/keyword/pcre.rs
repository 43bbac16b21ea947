//! pcre. The pattern is kept as written; an engine translates it. What no linear-time engine has is refused here.

use super::{Args, Keyword, Value, keyword};
use crate::buffer::BufferId;
use crate::diagnostic::{Code, Problem};
use crate::tree::{Body, Capture, CaptureScope, Pcre, PcreFlags};

pub(super) const KEYWORDS: &[Keyword] = &[keyword("pcre", Value::Required, false, pcre)];

fn pcre(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = |message: &str| Problem::new(Code::BadPcre, message.to_owned());
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    let text = Args { keyword: args.keyword, value }.unquoted().map_err(|problem| Problem { code: Code::BadPcre, ..problem })?;
    let (pattern, tail) = match text.strip_prefix('/') {
        Some(rest) => rest.rsplit_once('/').ok_or_else(|| bad("the pattern has no closing `/`").help("write pcre:\"/PATTERN/FLAGS\";"))?,
        None => return Err(bad("the pattern does not begin with `/`").help("write pcre:\"/PATTERN/FLAGS\";")),
    };
    let (letters, variables) = match tail.split_once(',') {
        Some((letters, variables)) => (letters.trim(), Some(variables)),
        None => (tail, None),
    };
    let mut captures = Vec::new();
    for variable in variables.iter().flat_map(|variables| variables.split(',')) {
        let Some((scope, name)) = variable.trim().split_once(':') else {
            return Err(bad(&format!("`{}` is not a variable", crate::header::shorten(variable))).help("write flow:NAME or pkt:NAME"));
        };
        let scope = match scope.trim() {
            "flow" => CaptureScope::Flow,
            "pkt" => CaptureScope::Packet,
            "alert" => CaptureScope::Alert,
            _ => return Err(bad(&format!("`{}` is not a kind of variable", crate::header::shorten(scope))).help("use flow, pkt or alert")),
        };
        let name = super::args::name(name).ok_or_else(|| bad("a variable has no name"))?;
        captures.push(Capture { scope, name: name.to_owned() });
    }
    let mut buffer: Option<BufferId> = None;
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
            letter if BUFFERS.iter().any(|(flag, _)| *flag == letter) => {
                let name = BUFFERS.iter().find(|(flag, _)| *flag == letter).map(|(_, name)| *name);
                if buffer.is_some() && buffer != name {
                    return Err(bad("two flags name different buffers"));
                }
                buffer = name;
            }
            other => return Err(bad(&format!("`{other}` is not a flag"))),
        }
    }
    if flags.rawbytes && buffer.is_some() {
        return Err(bad("`B` (raw bytes) stands beside the flag of a buffer"));
    }
    Ok(Body::Pcre(Box::new(Pcre { negated, pattern: pattern.to_owned(), flags, buffer, captures })))
}

/// Flags that name a buffer.
pub(crate) const BUFFERS: &[(char, BufferId)] = &[
    ('C', BufferId::HttpCookie),
    ('D', BufferId::HttpHeaderRaw),
    ('H', BufferId::HttpHeader),
    ('I', BufferId::HttpUriRaw),
    ('M', BufferId::HttpMethod),
    ('P', BufferId::HttpRequestBody),
    ('Q', BufferId::FileData),
    ('S', BufferId::HttpStatCode),
    ('U', BufferId::HttpUri),
    ('V', BufferId::HttpUserAgent),
    ('W', BufferId::HttpHost),
    ('Y', BufferId::HttpStatMsg),
    ('Z', BufferId::HttpHostRaw),
];

/// The first construct of a pattern that only a backtracking engine can run: look-around, back references, atomic groups,
/// possessive quantifiers. A linear-time engine must refuse a pattern that has one.
pub fn backtracking_construct(pattern: &str) -> Option<&str> {
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
