//! The Suricata rule language as a compiler front end: text in, checked trees and diagnostics out.
//!
//! ```text
//! text ─ source ─ logical lines ─ header, options ─ keyword table ─ tree ─ fold ─ Signature
//!                                         └──────────── diagnostics ───────────┘
//! ```
//!
//! * [`parse`] reads one file; nothing in it can make it panic or take more than linear time in the file's length.
//! * Every keyword stands in one table ([`keyword::lookup`]); a family of keywords is one file below `keyword/`.
//!   A keyword without a reader there is known but not built: its rule is `unsupported`, never silently weakened.
//! * [`Signature`] is what the engine runs: modifiers folded into their content, contents grouped by buffer.
//! * [`format::rule`] writes the canonical text; parsing that gives the same rule again.
//!
//! Source for the language: Suricata user guide, "Suricata Rules"; where the guide is silent the behaviour of the
//! reference engine's parser (`src/detect-parse.c`) is followed.
#![forbid(unsafe_code)]

pub mod classification;
pub mod diagnostic;
pub mod file;
pub mod format;
pub mod header;
pub mod keyword;
pub mod signature;
pub mod span;
pub mod tree;
pub mod variables;

mod source;

pub use classification::{Class, Classification};
pub use diagnostic::{Code, Diagnostic, Fix, Severity};
pub use file::{Counts, RuleFile, fuzz_rules, parse};
pub use header::{Action, AddressExpr, Direction, Header, PortExpr, Protocol};
pub use signature::{Buffer, BufferMatches, ContentMatch, Match, Signature};
pub use span::Span;
pub use tree::{Body, OptionNode, Rule};
pub use variables::{AddressSet, PortSet, Variables};
