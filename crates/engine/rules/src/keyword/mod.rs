//! The table of all keywords. A family is one file; a keyword without a reader is known and not built.

mod app;
mod args;
mod buffers;
mod bytes;
mod content;
mod events;
mod files;
mod flow;
pub mod integer;
mod meta;
mod packet;
mod pcre;
mod state;
mod threshold;
mod unbuilt;

use std::sync::LazyLock;

use crate::diagnostic::{Code, Problem};
use crate::tree::Body;

pub(crate) use args::Args;
pub use pcre::backtracking_construct;

/// Reads an option's value.
type Read = fn(&Args<'_>) -> Result<Body, Problem>;

/// One line of the table.
pub struct Keyword {
    /// Canonical, lower case.
    pub name: &'static str,
    pub value: Value,
    /// May stand only once in a rule.
    pub once: bool,
    /// `None`: known, not built.
    pub(crate) read: Option<Read>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    None,
    Required,
    Optional,
}

impl Keyword {
    pub const fn is_built(&self) -> bool {
        self.read.is_some()
    }

    /// Reads the option's value: what stands after the colon, trimmed, or nothing.
    pub(crate) fn read(&self, value: Option<&str>) -> Result<Body, Problem> {
        let value = value.map(str::trim).filter(|value| !value.is_empty());
        let Some(read) = self.read else {
            return Ok(Body::Unsupported(value.map(str::to_owned)));
        };
        match (self.value, value) {
            (Value::None, Some(_)) => Err(Problem::new(Code::ValueUnexpected, format!("`{}` takes no value", self.name))),
            (Value::Required, None) => Err(Problem::new(Code::ValueMissing, format!("`{}` needs a value", self.name))),
            _ => read(&Args { keyword: self.name, value: value.unwrap_or("") }),
        }
    }
}

/// Flags of a pcre that name a buffer.
pub(crate) const fn pcre_buffers() -> &'static [(char, crate::BufferId)] {
    pcre::BUFFERS
}

/// All keywords, by name.
pub fn all() -> &'static [&'static Keyword] {
    &TABLE
}

/// The keyword of this name; names are not case-sensitive.
pub fn lookup(name: &str) -> Option<&'static Keyword> {
    let found = |name: &str| TABLE.binary_search_by(|keyword| keyword.name.cmp(name)).ok().map(|index| TABLE[index]);
    found(name).or_else(|| if name.bytes().any(|byte| byte.is_ascii_uppercase()) { found(&name.to_ascii_lowercase()) } else { None })
}

static TABLE: LazyLock<Vec<&'static Keyword>> = LazyLock::new(|| {
    let families = [
        meta::KEYWORDS,
        content::KEYWORDS,
        pcre::KEYWORDS,
        bytes::KEYWORDS,
        flow::KEYWORDS,
        packet::KEYWORDS,
        threshold::KEYWORDS,
        state::KEYWORDS,
        events::KEYWORDS,
        files::KEYWORDS,
        app::KEYWORDS,
    ];
    let tables = buffers::keywords().chain(integer::keywords()).chain(unbuilt::keywords());
    let mut table: Vec<&'static Keyword> = families.into_iter().flatten().chain(tables).collect();
    table.sort_by_key(|keyword| keyword.name);
    table
});

const fn keyword(name: &'static str, value: Value, once: bool, read: Read) -> Keyword {
    Keyword { name, value, once, read: Some(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once_and_in_lower_case() {
        for pair in all().windows(2) {
            assert!(pair[0].name < pair[1].name, "{} stands twice", pair[0].name);
        }
        assert!(all().iter().all(|keyword| !keyword.name.bytes().any(|byte| byte.is_ascii_uppercase())));
        assert!(lookup("Content").is_some() && lookup("contents").is_none());
    }
}
