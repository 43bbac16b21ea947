//! The host: a snapshot of it, remedies with a journal and the way back, its files against the package database.
//!
//! ```text
//!  collect ──► HostSnapshot ──► bulkhead_posture::{audit, plan} ──► apply ──► journal ◄── undo
//!  (reads)                        (pure)                            (changes)  (written before the act)
//! ```
//!
//! Everything acts below a [`Root`]: the running host's, or a directory that holds another one.
#![forbid(unsafe_code)]

pub mod apply;
pub mod baseline;
pub mod collect;
pub mod dpkg;
pub mod journal;
pub mod root;
pub mod services;
pub mod units;
pub mod verify;

pub use apply::{Done, Error, Hands};
pub use collect::{Options, WalkScope, collect};
pub use root::Root;
