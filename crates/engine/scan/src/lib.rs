//! Anti-malware: the bytes of a file and a budget in, findings out.
//!
//! A [`SignatureSet`] is compiled from YARA rules, ClamAV's signature files and lists of hashes ([`signatures`]). [`SignatureSet::scan`]
//! reads top to bottom as a file's life (`scan.rs`): recognised by what it is ([`kind`]), compared by hash, searched by pattern,
//! unpacked ([`unpack`]), and so again for what was in it. Everything that is unpacked comes through one capped reader ([`budget`]).
//! What could not be looked at is a [`Gap`] with its place, never a silent pass.
//!
//! No file is opened here and no thread started. The one clock is that of the YARA engine, which ends a search of its own that takes
//! longer than [`Limits::search_time_max`]; whether the whole scan is out of time, the caller says ([`Budget::new`]).
#![forbid(unsafe_code)]

pub mod budget;
pub mod builtin;
mod finding;
pub mod fuzz;
mod kind;
mod scan;
pub mod signatures;
pub mod unpack;

pub use budget::{Budget, Gap, Limits};
pub use finding::{Finding, Found, Incomplete, Matched, Report};
pub use kind::Kind;
pub use signatures::{Action, Compiler, Diagnostic, SignatureSet, Summary};
