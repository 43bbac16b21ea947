//! What a scan has to say.

use crate::budget::Gap;
use crate::kind::Kind;
use crate::signatures::Action;

/// Everything that came of one object.
#[derive(Debug, Default)]
pub struct Report {
    /// The gravest first, as they were found within one gravity.
    pub findings: Vec<Finding>,
    /// Where the scan is not complete.
    pub incomplete: Vec<Incomplete>,
    /// Findings and gaps beyond what is kept.
    pub left_out: u64,
    /// Of the object itself, in small hexadecimal digits; always there.
    pub sha256: String,
    pub kind: Kind,
    /// It was too large to be looked at as a whole.
    pub windowed: bool,
    /// Objects looked at: the file and every entry in it.
    pub objects: u64,
    /// Unpacked bytes.
    pub bytes: u64,
}

impl Report {
    /// The gravest of what the findings ask for.
    pub fn action(&self) -> Option<Action> {
        self.findings.iter().map(|finding| finding.action).max()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub action: Action,
    pub found: Found,
    /// Name of the rule or signature.
    pub name: String,
    /// File it came from, as it was given to the compiler.
    pub source: String,
    /// Names of archive entries from the outermost to the one that was found; empty: the object itself.
    pub place: Vec<String>,
    pub kind: Kind,
    /// The first few bytes that matched, if patterns did.
    pub matched: Vec<Matched>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Yara,
    /// ClamAV's body signatures (`.ndb`, `.ldb`).
    Body,
    /// A hash of the whole object, of whatever list.
    Hash,
    /// A hash of a section of a PE file (`.mdb`, `.msb`).
    Section,
    /// What an archive says of an entry (`.cdb`).
    Container,
}

/// Bytes of one match that are shown.
pub(crate) const MATCHED_BYTES_MAX: usize = 64;
/// Matches of one finding that are shown.
pub(crate) const MATCHED_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// Name of the pattern within its rule.
    pub pattern: String,
    /// From the beginning of the object in which it was found.
    pub offset: u64,
    pub len: u64,
    /// At most 64 of them.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    pub place: Vec<String>,
    pub gap: Gap,
}
