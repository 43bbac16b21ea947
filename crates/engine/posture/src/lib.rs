//! Is this host as a host of containers should be? Controls as data, evaluated over a [`HostSnapshot`]; what a remedy would
//! change, and how that is taken back, as data too.
//!
//! ```text
//!  HostSnapshot ──► View ──► catalogue() of Controls ──► Report ──► JSON, SARIF, JUnit, HTML
//!   (facts)      (files read)                              │
//!                                                          └──► Plan of Steps of Changes, each with its inverse
//! ```
//!
//! Pure: no clock, no files. Facts that are missing make a control *unknown*, with the reason; nothing that a host says
//! of itself switches a control off.
#![forbid(unsafe_code)]

pub mod audit;
pub mod control;
pub mod controls;
mod evaluate;
mod fuzz;
pub mod html;
pub mod junit;
pub mod meaning;
pub mod plan;
pub mod sarif;
pub mod snapshot;
pub mod text;
pub mod view;
pub mod waiver;

pub use audit::{Counts, Finding, Report, audit};
pub use control::{Area, Control, Outcome, Profile, Risk, Severity, Status};
pub use controls::catalogue;
pub use fuzz::fuzz_snapshot;
pub use plan::{Change, Plan, Selection, Step, plan};
pub use snapshot::{Fact, HostSnapshot};
pub use waiver::{Waiver, Waivers};
