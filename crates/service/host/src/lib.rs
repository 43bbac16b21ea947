//! The host: a snapshot of it, remedies with a journal and the way back, its files against the package database.
//!
//! ```text
//!  collect ──► HostSnapshot ──► bulkhead_posture::{audit, plan} ──► apply ──► journal ◄── undo
//!  (reads)                        (pure)                            (changes)  (written before the act)
//! ```
//!
//! Everything acts below a [`Root`]: the running host's, or a directory that holds another one.
#![forbid(unsafe_code)]

pub mod collect;
pub mod dpkg;
pub mod root;
pub mod units;

pub use collect::{Options, WalkScope, collect};
pub use root::Root;
