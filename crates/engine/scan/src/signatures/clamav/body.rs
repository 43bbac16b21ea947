//! One pattern of a body signature, and where it has to stand, in words of YARA.
//!
//! | ClamAV | YARA |
//! |---|---|
//! | `6a`, `?a`, `6?`, `??` | the same |
//! | `*`, `{n}`, `{n-m}`, `{-n}`, `{n-}` | `[-]`, `[n]`, `[n-m]`, `[0-n]`, `[n-]` |
//! | `(61\|62)`, `!(61)` | `(61 \| 62)`, `~61` |
//! | offset `n`, `n,shift`, `EOF-n`, `EP+n`, `Sx+n`, `SL+n`, `SEx` | `at`, `in` with `filesize`, `pe.` and `elf.` |

use std::fmt::Write;

use super::{Refused, Target};
use crate::kind::Kind;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    pub nocase: bool,
    pub wide: bool,
    pub ascii: bool,
    pub fullword: bool,
}

/// Declares `$name`.
pub(super) fn pattern(name: &str, text: &str, modifiers: Modifiers) -> Result<String, Refused> {
    if modifiers == Modifiers::default() {
        return Ok(format!("${name} = {{ {} }}", hex(text)?));
    }
    let Some(bytes) = plain(text) else {
        return Err(Refused::unsupported("modifiers of a pattern with wildcards"));
    };
    let mut declared = format!("${name} = \"");
    for byte in bytes {
        let _ = write!(declared, "\\x{byte:02x}");
    }
    declared.push('"');
    for (set, word) in [
        (modifiers.nocase, " nocase"),
        (modifiers.wide, " wide"),
        (modifiers.ascii || (modifiers.fullword && !modifiers.wide), " ascii"),
        (modifiers.fullword, " fullword"),
    ] {
        if set {
            declared.push_str(word);
        }
    }
    Ok(declared)
}

/// The bytes of a pattern without wildcards.
fn plain(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn hex(text: &str) -> Result<String, Refused> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() * 2);
    let (mut at, mut fixed) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'*' => {
                out.push_str("[-] ");
                at += 1;
            }
            b'{' | b'[' => {
                let close = if *byte == b'{' { '}' } else { ']' };
                let end = text[at..].find(close).ok_or_else(|| Refused::wrong("a jump has no end"))? + at;
                out.push_str(&jump(&text[at + 1..end])?);
                at = end + 1;
            }
            b'!' => {
                let inner = group(text, at + 1)?;
                let (2, Some(_)) = (inner.len(), plain(inner)) else {
                    return Err(Refused::unsupported("negated alternatives"));
                };
                let _ = write!(out, "~{inner} ");
                at += inner.len() + 3;
            }
            b'(' => {
                let inner = group(text, at)?;
                if matches!(inner, "B" | "L" | "W") {
                    return Err(Refused::unsupported("boundaries of words and lines"));
                }
                let choices = inner.split('|').map(pairs).collect::<Result<Vec<_>, _>>()?;
                let _ = write!(out, "({}) ", choices.join(" | "));
                fixed += 1;
                at += inner.len() + 2;
            }
            _ => {
                let pair = text.get(at..at + 2).ok_or_else(|| Refused::wrong("half a byte at the end of a pattern"))?;
                let pair = pairs(pair)?;
                fixed += usize::from(!pair.starts_with("??"));
                let _ = write!(out, "{pair} ");
                at += 2;
            }
        }
    }
    if fixed == 0 {
        return Err(Refused::wrong("a pattern has at least one byte that is given"));
    }
    Ok(out.trim_end().to_owned())
}

/// What stands in the parentheses that begin at `at`.
fn group(text: &str, at: usize) -> Result<&str, Refused> {
    let inner = text.get(at..).and_then(|rest| rest.strip_prefix('(')).ok_or_else(|| Refused::wrong("`!` stands before parentheses"))?;
    let end = inner.find(')').ok_or_else(|| Refused::wrong("alternatives have no end"))?;
    if inner[..end].contains('(') {
        return Err(Refused::unsupported("alternatives in alternatives"));
    }
    Ok(&inner[..end])
}

/// Bytes, some of whose digits may be `?`.
fn pairs(text: &str) -> Result<String, Refused> {
    let good = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'?';
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.as_bytes().iter().all(good) {
        let shown: String = text.chars().take(16).collect();
        return Err(Refused::wrong(format!("`{shown}` is not a number of bytes in hexadecimal digits")));
    }
    Ok(text.to_owned())
}

fn jump(text: &str) -> Result<String, Refused> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| Refused::wrong(format!("`{{{text}}}` is not a jump")));
    Ok(match text.split_once('-') {
        None => format!("[{}] ", number(text)?),
        Some(("", most)) => format!("[0-{}] ", number(most)?),
        Some((least, "")) => format!("[{}-] ", number(least)?),
        Some((least, most)) => {
            let (least, most) = (number(least)?, number(most)?);
            if least > most {
                return Err(Refused::wrong("a jump's ends are the wrong way round"));
            }
            format!("[{least}-{most}] ")
        }
    })
}

/// Where a pattern has to begin: any of these ranges, each first and last in YARA's words; none: anywhere.
pub(super) struct Offset(Vec<(String, Option<String>)>);

impl Offset {
    /// A condition that holds where `pattern` (`$a`) does.
    pub fn one_of(&self, pattern: &str) -> String {
        if self.0.is_empty() {
            return pattern.to_owned();
        }
        let places = self.0.iter().map(|(first, last)| match last {
            None => format!("{pattern} at ({first})"),
            Some(last) => format!("{pattern} in (({first})..({last}))"),
        });
        format!("({})", places.collect::<Vec<_>>().join(" or "))
    }

    pub const fn is_anywhere(&self) -> bool {
        self.0.is_empty()
    }
}

pub(super) fn offset(text: &str, target: Target) -> Result<Offset, Refused> {
    let (place, shift) = text.split_once(',').map_or((text, None), |(place, shift)| (place, Some(shift)));
    let shift = shift.map(number).transpose()?;
    let places: Vec<String> = if place == "*" {
        return Ok(Offset(Vec::new()));
    } else if let Some(rest) = place.strip_prefix("EOF-") {
        vec![format!("filesize - {}", number(rest)?)]
    } else if let Some(rest) = place.strip_prefix("EP") {
        let sign = rest.chars().next().filter(|sign| matches!(sign, '+' | '-')).ok_or_else(|| bad(text))?;
        let distance = number(&rest[1..])?;
        modules(target).iter().map(|module| format!("{module}.entry_point {sign} {distance}")).collect()
    } else if let Some(rest) = place.strip_prefix("SE") {
        let section = number(rest)?;
        let ranges = modules(target).iter().map(|module| {
            let (start, size) = section_fields(module);
            let start = format!("{module}.sections[{section}].{start}");
            (start.clone(), Some(format!("{start} + {module}.sections[{section}].{size}")))
        });
        return Ok(Offset(ranges.collect()));
    } else if let Some(rest) = place.strip_prefix("SL+") {
        let distance = number(rest)?;
        modules(target)
            .iter()
            .map(|module| format!("{module}.sections[{module}.number_of_sections - 1].{} + {distance}", section_fields(module).0))
            .collect()
    } else if let Some((section, distance)) = place.strip_prefix('S').and_then(|rest| rest.split_once('+')) {
        let (section, distance) = (number(section)?, number(distance)?);
        modules(target).iter().map(|module| format!("{module}.sections[{section}].{} + {distance}", section_fields(module).0)).collect()
    } else if place == "VI" || place.starts_with('$') {
        return Err(Refused::unsupported("offsets by version information and macros"));
    } else {
        vec![number(place).map_err(|_| bad(text))?.to_string()]
    };
    Ok(Offset(places.into_iter().map(|place| (place.clone(), shift.map(|shift| format!("{place} + {shift}")))).collect()))
}

const fn modules(target: Target) -> &'static [&'static str] {
    match target {
        Target::Only(Kind::Elf) => &["elf"],
        Target::Only(Kind::Pe) => &["pe"],
        _ => &["pe", "elf"],
    }
}

fn section_fields(module: &str) -> (&'static str, &'static str) {
    if module == "elf" { ("offset", "size") } else { ("raw_data_offset", "raw_data_size") }
}

fn number(text: &str) -> Result<u32, Refused> {
    text.parse().map_err(|_| Refused::wrong(format!("`{}` is not a number", text.chars().take(16).collect::<String>())))
}

fn bad(text: &str) -> Refused {
    Refused::wrong(format!("`{}` is not an offset", text.chars().take(32).collect::<String>()))
}
