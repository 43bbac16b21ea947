//! The Suricata rule language as a compiler front end: text in, checked trees and diagnostics out.
//!
//! ```text
//! text ─ source ─ logical lines ─ header, options ─ keyword table ─ tree ─ fold ─ Signature
//!                                         └──────────── diagnostics ───────────┘
//! ```
//!
//! * [`parse`] reads one file ([`parse_signatures`]: for an engine, without the trees); nothing in it can make it panic or take more than linear time in the file's length.
//! * Every keyword stands in one table ([`keyword::lookup`]); a family of keywords is one file below `keyword/`.
//!   A keyword without a reader there is known but not built: its rule is `unsupported`, never silently weakened.
//! * [`Signature`] is what the engine runs, with nothing left to interpret: for each selection of a buffer a [`BufferMatches`]
//!   (an enum [`Buffer`], the direction, the [`Transform`]s, the [`Match`]es in order), typed [`Condition`]s, [`Effect`]s done on a
//!   match, and the application protocols of which the flow's must be one. What a buffer is, stands in [`BufferId::info`]: its
//!   protocols, directions, [`buffer::Stage`] and whether there may be several. An engine matches on these enums without wildcards
//!   and refuses a rule of which it does not know a part.
//! * [`format::rule`] writes the canonical text; parsing that gives the same rule again.
//!
//! Source for the language: Suricata user guide, "Suricata Rules"; where the guide is silent the behaviour of the
//! reference engine's parser (`src/detect-parse.c`) is followed.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod classification;
pub mod condition;
pub mod diagnostic;
pub mod edit;
pub mod event;
pub mod file;
pub mod format;
pub mod header;
pub mod keyword;
pub mod library;
pub mod limits;
pub mod protocol;
pub mod reference;
pub mod signature;
pub mod span;
pub mod transform;
pub mod tree;
pub mod variables;

mod source;

pub use buffer::BufferId;
pub use classification::{Class, Classification};
pub use condition::{Condition, Effect};
pub use diagnostic::{Code, Diagnostic, Fix, Severity};
pub use edit::Edits;
pub use file::{Counts, RuleFile, fuzz_rules, parse, parse_signatures};
pub use header::{Action, AddressExpr, Direction, Header, PortExpr, Protocol};
pub use keyword::backtracking_construct;
pub use keyword::integer::Field;
pub use library::{Beside, Library};
pub use limits::Limits;
pub use protocol::App;
pub use reference::References;
pub use signature::{Buffer, BufferMatches, ContentMatch, Match, Signature};
pub use span::Span;
pub use transform::Transform;
pub use tree::{Body, OptionNode, Rule};
pub use variables::{AddressSet, PortSet, Variables};
