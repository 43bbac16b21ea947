//! Content and its modifiers.

use super::args::amount;
use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::{Code, Problem};
use crate::tree::{Body, FastPattern, Modifier};

/// Suricata keeps a content's length in 16 bits.
const CONTENT_BYTES_MAX: usize = 65_535;
/// Bounds of offset, depth, distance and within (`DETECT_CONTENT_MAX...` in Suricata: 1 MiB).
const POSITION_MAX: i32 = 1024 * 1024;

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("content", Value::Required, false, content),
    keyword("nocase", Value::None, false, |_| Ok(Body::Modifier(Modifier::Nocase))),
    keyword("rawbytes", Value::None, false, |_| Ok(Body::Modifier(Modifier::Rawbytes))),
    keyword("startswith", Value::None, false, |_| Ok(Body::Modifier(Modifier::StartsWith))),
    keyword("endswith", Value::None, false, |_| Ok(Body::Modifier(Modifier::EndsWith))),
    keyword("offset", Value::Required, false, |args| Ok(Body::Modifier(Modifier::Offset(args.amount(0, 65_535)?)))),
    keyword("depth", Value::Required, false, |args| Ok(Body::Modifier(Modifier::Depth(args.amount(1, 65_535)?)))),
    keyword("distance", Value::Required, false, |args| {
        Ok(Body::Modifier(Modifier::Distance(amount(args.unquoted()?, -POSITION_MAX, POSITION_MAX)?)))
    }),
    keyword("within", Value::Required, false, |args| Ok(Body::Modifier(Modifier::Within(amount(args.unquoted()?, 1, POSITION_MAX)?)))),
    keyword("fast_pattern", Value::Optional, false, fast_pattern),
    keyword("uricontent", Value::Required, false, |args| match content(args)? {
        Body::Content { negated, bytes } => Ok(Body::UriContent { negated, bytes }),
        other => Ok(other),
    }),
    keyword("replace", Value::Required, false, |args| match content(args)? {
        Body::Content { negated: false, bytes } => Ok(Body::Modifier(Modifier::Replace(bytes))),
        _ => Err(args.bad()),
    }),
    keyword("prefilter", Value::None, false, |_| Ok(Body::Prefilter)),
];

fn content(args: &Args<'_>) -> Result<Body, Problem> {
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    if !value.starts_with('"') {
        return Err(Problem::new(Code::BadContent, "a content stands in double quotes").help("write content:\"...\";"));
    }
    let text = Args { keyword: args.keyword, value }.unquoted().map_err(|problem| Problem { code: Code::BadContent, ..problem })?;
    Ok(Body::Content { negated, bytes: decode_content(text)? })
}

/// The bytes of what stands between the quotes of a content: text, `|41 42|`, `\;` `\:` `\"` `\\`.
fn decode_content(text: &str) -> Result<Vec<u8>, Problem> {
    let bad = |message: String| Problem::new(Code::BadContent, message);
    let mut bytes = Vec::with_capacity(text.len());
    let mut in_hex = false;
    let mut high: Option<u8> = None;
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match (in_hex, byte) {
            (false, b'|') => in_hex = true,
            (true, b'|') => {
                if high.is_some() {
                    return Err(bad("a hex byte has one digit only".into()).help("write two digits for each byte"));
                }
                in_hex = false;
            }
            // Blanks may stand anywhere: a published rule has `|3 a20|`.
            (true, b' ' | b'\t') => {}
            (true, _) => {
                let Some(digit) = (byte as char).to_digit(16) else {
                    return Err(bad(format!("`{}` is not a hex digit", byte.escape_ascii())).help("write |41 42|"));
                };
                match high.take() {
                    None => high = Some(digit as u8),
                    Some(first) => bytes.push(first << 4 | digit as u8),
                }
            }
            (false, b'\\') => match rest.next() {
                Some(escaped @ (b':' | b';' | b'"' | b'\\')) => bytes.push(escaped),
                Some(other) => {
                    return Err(bad(format!("`\\{}` is not an escape", other.escape_ascii()))
                        .help("only \\: \\; \\\" and \\\\ are; write |5C| for a backslash"));
                }
                None => return Err(bad("the content ends in a backslash".into()).help("write \\\\ for a backslash")),
            },
            (false, b'"') => return Err(bad("a quote inside of the content is not escaped".into()).help("write \\\" or |22|")),
            (false, _) => bytes.push(byte),
        }
    }
    if in_hex {
        return Err(bad("a hex part is opened with `|` and not closed".into()));
    }
    if bytes.is_empty() {
        return Err(bad("the content is empty".into()));
    }
    if bytes.len() > CONTENT_BYTES_MAX {
        return Err(bad(format!("the content has more than {CONTENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn fast_pattern(args: &Args<'_>) -> Result<Body, Problem> {
    let choice = match args.value {
        "" => FastPattern::Whole,
        "only" => FastPattern::Only,
        value => {
            let (offset, length) = value.split_once(',').ok_or_else(|| args.bad())?;
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| args.bad());
            FastPattern::Chop { offset: number(offset)?, length: number(length)? }
        }
    };
    Ok(Body::Modifier(Modifier::FastPattern(choice)))
}
