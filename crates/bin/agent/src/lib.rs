//! The composition root: builds the path, the engine, the inventory, the store and the API, and joins them.
//! `supervise.rs` is the agent's life, `datapath.rs` and `hold.rs` a packet's, `record.rs` an alert's.
#![forbid(unsafe_code)]

mod arm;
mod backend;
mod builtin;
pub mod coverage;
pub mod datapath;
mod engine;
mod files;
pub mod frame;
pub mod hold;
mod nfqueue;
pub mod path;
mod queue_rules;
mod record;
mod registry;
mod rulebook;
mod segments;
mod shard;
mod state;
pub mod supervise;
mod sync;

pub use arm::{StartSettings, start_settings};
pub use files::{DEFAULT_CONFIG, load_config};
pub use rulebook::{RulePaths, rule_paths, rule_variables};
pub use supervise::{Error, RunOptions, down, run};
