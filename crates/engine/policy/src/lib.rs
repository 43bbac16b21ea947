//! Configuration, selectors, modes, segments: what the operator wants, made into tables that cannot be misread.
//!
//! * [`parse`] turns the texts of `bulkhead.yaml` and `conf.d/*.yaml` into a [`Config`], or into all the mistakes in
//!   them. No file is read here.
//! * [`PolicySnapshot::compile`] makes an immutable, numbered snapshot of it, which tells the [`Settings`] of any
//!   workload.
//! * [`Segmenter`] (or [`compile_segments`]) turns the segment rules and the workloads that run now into the table that
//!   the kernel looks up, and [`decide`] says the same straight from the rules: the one is tested against the other.
#![forbid(unsafe_code)]

pub mod config;
mod decide;
mod diagnostic;
mod fuzz;
mod load;
mod plain;
pub mod schema;
mod segments;
mod selector;
mod setting;
mod snapshot;
mod units;
mod values;
mod yaml;

pub use config::{Action, Config, Fail, Inspection, SegmentRule, Segments, WorkloadRule};
pub use decide::{Party, decide};
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity, render};
pub use fuzz::fuzz_config;
pub use load::{OVERRIDE_RULES_MAX, SEGMENT_RULES_MAX, SOURCES_MAX, Source, WORKLOAD_RULES_MAX, lint, parse};
pub use plain::plain_tree;
pub use segments::{
    CLASSES_MAX, ClassId, PAIR_RULES_MAX, PortRule, RULE_NONE, RULE_OVERFLOW, RULE_UNCLASSED, SegmentProblem, SegmentTable, Segmented,
    Segmenter, compile_segments,
};
pub use selector::{Conditions, GLOB_BYTES_MAX, Glob, Selector, SelectorError};
pub use setting_caps::LIST_ITEMS_MAX;
pub use snapshot::{OVERRIDES_FILE, PolicySnapshot, Settings, pair_fail, pair_mode, render_overrides, set_override, unset_override};
pub use units::ByteSize;
pub use values::{AbsolutePath, Engine, GroupName, Listen, MarkMask, Peer, PortRange, Proto, Variables, Workers};
pub use yaml::{DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX};

mod setting_caps {
    /// Items of one list, keys of one map.
    pub const LIST_ITEMS_MAX: usize = 65_536;
}

/// Where a rule was written: for messages, `why` and `policy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Origin {
    /// The name of the source, as given to [`parse`].
    pub source: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.source, self.line)
    }
}
