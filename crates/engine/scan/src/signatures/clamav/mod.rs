//! ClamAV's signature files, read as they are (format: the ClamAV manual, "Writing signatures").
//!
//! Hashes go into tables. Body and logical signatures are translated into YARA rules (`body.rs`, `logical.rs`) and run on the same engine:
//! both languages have hexadecimal bytes with wildcards, jumps, alternatives, offsets and counts.

mod body;
mod container;
mod cvd;
mod logical;

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use container::ContainerFacts;
pub(super) use cvd::files_of;
pub use cvd::{CvdError, CvdHeader, verify_cvd};

use super::hash::Digest;
use super::{Hit, Summary, yara};
use crate::budget::Gap;
use crate::kind::Kind;

/// The level of ClamAV's engine for which we read: signatures that begin later or have ended before are passed over, as there. 1.4 has 213.
const LEVEL: u32 = 213;
/// Bytes of one line.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Why a signature is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Wrong(String),
    #[error("{0}: not built")]
    Unsupported(&'static str),
    #[error("it is for another version of the engine")]
    Level,
}

impl Refused {
    pub const fn unsupported(what: &'static str) -> Self {
        Self::Unsupported(what)
    }

    fn wrong(why: impl Into<String>) -> Self {
        Self::Wrong(why.into())
    }

    pub const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong(_))
    }

    pub const fn what(&self) -> &'static str {
        match self {
            Self::Wrong(_) => "",
            Self::Unsupported(what) => what,
            Self::Level => "another version of the engine",
        }
    }
}

/// `hash:size:name[:level]`
pub(super) fn hash_line(line: &str) -> Result<(Digest, Option<u64>, &str), Refused> {
    let mut fields = line.split(':');
    let (digest, size, name) = (fields.next().unwrap_or(""), fields.next(), fields.next());
    let (Some(size), Some(name)) = (size, name.filter(|name| !name.is_empty())) else {
        return Err(Refused::wrong("a line is `hash:size:name`"));
    };
    check_level(fields.next(), fields.next())?;
    Ok((digest_of(digest)?, size_of(size)?, name))
}

/// `size:hash:name[:level]`, of a section of a PE file.
pub(super) fn section_line(line: &str) -> Result<(Digest, Option<u64>, &str), Refused> {
    let mut fields = line.split(':');
    let (size, digest, name) = (fields.next().unwrap_or(""), fields.next(), fields.next());
    let (Some(digest), Some(name)) = (digest, name.filter(|name| !name.is_empty())) else {
        return Err(Refused::wrong("a line is `size:hash:name`"));
    };
    check_level(fields.next(), fields.next())?;
    Ok((digest_of(digest)?, size_of(size)?, name))
}

fn digest_of(text: &str) -> Result<Digest, Refused> {
    Digest::parse(text).ok_or_else(|| Refused::wrong("a hash has 32, 40 or 64 hexadecimal digits"))
}

fn size_of(text: &str) -> Result<Option<u64>, Refused> {
    if text == "*" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Refused::wrong("a size is a number of bytes, or `*`"))
}

fn check_level(oldest: Option<&str>, newest: Option<&str>) -> Result<(), Refused> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| Refused::wrong("a level is a number"));
    if let Some(oldest) = oldest.filter(|text| !text.is_empty())
        && number(oldest)? > LEVEL
    {
        return Err(Refused::Level);
    }
    if let Some(newest) = newest.filter(|text| !text.is_empty())
        && number(newest)? < LEVEL
    {
        return Err(Refused::Level);
    }
    Ok(())
}

/// What a signature is for. ClamAV's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    Only(Kind),
    /// Markup, in the form that [`normalised`] gives it.
    Html,
    /// Text, in that form.
    Text,
    Graphics,
}

impl Target {
    fn of(number: &str) -> Result<Self, Refused> {
        Ok(match number {
            "0" => Self::Any,
            "1" => Self::Only(Kind::Pe),
            "2" => Self::Only(Kind::Ole),
            "3" => Self::Html,
            "4" => Self::Only(Kind::Mail),
            "5" => Self::Graphics,
            "6" => Self::Only(Kind::Elf),
            "7" => Self::Text,
            "9" => Self::Only(Kind::MachO),
            "10" => Self::Only(Kind::Pdf),
            "12" => Self::Only(Kind::JavaClass),
            "11" => return Err(Refused::unsupported("Flash files")),
            "13" => return Err(Refused::unsupported("internal targets")),
            _ => return Err(Refused::wrong(format!("there is no target `{number}`"))),
        })
    }

    fn is_for(self, kind: Kind, normalised: bool) -> bool {
        match self {
            Self::Any => !normalised,
            Self::Only(only) => !normalised && only == kind,
            Self::Graphics => !normalised && kind == Kind::Image,
            Self::Html => normalised && kind == Kind::Html,
            Self::Text => normalised && matches!(kind, Kind::Text | Kind::Script | Kind::Php | Kind::Html),
        }
    }
}

/// One translated signature.
struct Body {
    name: String,
    source: u32,
    target: Target,
    rule: String,
}

pub(super) struct Compiler {
    bodies: Vec<Body>,
    containers: Vec<container::Signature>,
}

impl Compiler {
    pub const fn new() -> Self {
        Self { bodies: Vec::new(), containers: Vec::new() }
    }

    /// `name:target:offset:pattern[:oldest[:newest]]`
    pub fn body_line(&mut self, line: &str, source: u32) -> Result<(), Refused> {
        if line.len() > LINE_BYTES_MAX {
            return Err(Refused::wrong("the line is longer than 256 KiB"));
        }
        let fields: Vec<&str> = line.split(':').collect();
        let [name, target, offset, pattern, levels @ ..] = fields.as_slice() else {
            return Err(Refused::wrong("a line is `name:target:offset:pattern`"));
        };
        if name.is_empty() {
            return Err(Refused::wrong("a signature has a name"));
        }
        check_level(levels.first().copied(), levels.get(1).copied())?;
        let target = Target::of(target)?;
        let pattern = body::pattern("a", pattern, body::Modifiers::default())?;
        let condition = body::offset(offset, target)?.one_of("$a");
        let rule = format!("strings: {pattern} condition: {condition}");
        self.bodies.push(Body { name: (*name).to_owned(), source, target, rule });
        Ok(())
    }

    /// `name;block;expression;pattern;pattern…`
    pub fn logical_line(&mut self, line: &str, source: u32) -> Result<(), Refused> {
        if line.len() > LINE_BYTES_MAX {
            return Err(Refused::wrong("the line is longer than 256 KiB"));
        }
        let logical::Translated { name, target, rule } = logical::translate(line)?;
        self.bodies.push(Body { name, source, target, rule });
        Ok(())
    }

    pub fn container_line(&mut self, line: &str, source: u32) -> Result<(), Refused> {
        self.containers.push(container::Signature::parse(line, source)?);
        Ok(())
    }

    pub fn ignore(&mut self, names: &BTreeSet<String>) -> usize {
        let before = self.bodies.len() + self.containers.len();
        self.bodies.retain(|body| !names.contains(&body.name));
        self.containers.retain(|signature| !names.contains(&signature.name));
        before - self.bodies.len() - self.containers.len()
    }

    pub fn finish(self, summary: &mut Summary) -> Bodies {
        let mut compiler = yara::Compiler::new();
        let mut facts = Vec::new();
        for body in self.bodies {
            let number = facts.len();
            let imports = ["pe", "elf"].into_iter().filter(|module| body.rule.contains(&format!("{module}.")));
            let imports: String = imports.map(|module| format!("import \"{module}\" ")).collect();
            match compiler.add_made(number as u32, &format!("{imports}rule s {{ {} }}", body.rule)) {
                Ok(()) => facts.push((body.name, body.source, body.target)),
                Err(message) => {
                    let diagnostic = super::Diagnostic { source: String::new(), line: 0, name: body.name, message, wrong: false };
                    summary.refuse("a pattern that the engine does not run", diagnostic);
                    // It was counted as loaded when its line was read.
                    for kind in ["logical", "body"] {
                        if let Some(count) = summary.loaded.get_mut(kind).filter(|count| **count > 0) {
                            *count -= 1;
                            break;
                        }
                    }
                }
            }
        }
        let normal = facts.iter().any(|(_, _, target)| matches!(target, Target::Html | Target::Text));
        Bodies { rules: compiler.finish(), facts, normal, containers: self.containers }
    }
}

/// Body, logical and container signatures, compiled.
pub(crate) struct Bodies {
    rules: yara::Rules,
    /// By number of the rule's namespace: name, source and target.
    facts: Vec<(String, u32, Target)>,
    /// Some signature is for normalised text.
    normal: bool,
    containers: Vec<container::Signature>,
}

impl Bodies {
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.containers.is_empty()
    }

    pub fn search(&self, bytes: &[u8], kind: Kind, time_max: Duration) -> (Vec<Hit>, Option<Gap>) {
        let (mut hits, mut gap) = self.search_form(bytes, kind, false, time_max);
        if self.normal && matches!(kind, Kind::Html | Kind::Text | Kind::Script | Kind::Php) {
            let (more, other) = self.search_form(&normalised(bytes), kind, true, time_max);
            hits.extend(more);
            gap = gap.or(other);
        }
        (hits, gap)
    }

    fn search_form(&self, bytes: &[u8], kind: Kind, normalised: bool, time_max: Duration) -> (Vec<Hit>, Option<Gap>) {
        let (hits, gap) = self.rules.search(bytes, "", kind.name(), time_max);
        let of_target = |hit: Hit| {
            let (name, source, target) = self.facts.get(hit.source as usize)?;
            target.is_for(kind, normalised).then(|| Hit { name: name.clone(), source: *source, matched: hit.matched })
        };
        (hits.into_iter().filter_map(of_target).collect(), gap)
    }

    /// Signatures that an archive's words about one entry match.
    pub fn of_entry<'a>(&'a self, facts: &'a ContainerFacts<'a>) -> impl Iterator<Item = (&'a str, u32)> {
        self.containers.iter().filter(|signature| signature.matches(facts)).map(|signature| (signature.name.as_str(), signature.source))
    }
}

/// Text and markup in one form: small letters, blanks joined.
fn normalised(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        let byte = if byte.is_ascii_whitespace() { b' ' } else { byte.to_ascii_lowercase() };
        if byte != b' ' || text.last() != Some(&b' ') {
            text.push(byte);
        }
    }
    text
}
