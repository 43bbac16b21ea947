//! The IPS engine: rules compiled, packets judged.
//!
//! * [`Ruleset::compile`] makes an immutable rule set out of parsed rules.
//! * [`Pipeline`] is one shard: [`Pipeline::packet`] reads top to bottom as a packet's life.
//! * [`transaction`] is the same for the buffers of application layers, which a flow's session fills (`app`).
//! * [`prefilter`] (first pass, carried state) and [`inspect`] (second pass, exact) are separate; the first can be
//!   moved into a kernel without touching the second.
//!
//! Bytes, times and seeds come in; verdicts and events go out. An engine never learns what a workload is.
#![forbid(unsafe_code)]

mod across;
mod addresses;
mod app;
mod backtrack;
mod derive;
mod detect;
mod expected;
mod files;
mod grams;
mod hosts;
pub mod inspect;
mod magic;
mod outcome;
mod pcre;
mod pipeline;
pub mod prefilter;
mod raised;
pub mod replay;
mod rules;
mod sets;
pub mod threshold;
mod tls;
mod trace;
pub mod transaction;
mod transform;

pub use across::AcrossFlows;
pub use bulkhead_applayer as applayer;
pub use bulkhead_net::flow::{Direction, Endpoint, FlowEnd, Handshake, Origin, Tuple, ZONE_SIDE};
pub use bulkhead_net::{ChecksumState, LinkType};
pub use files::{FILES_PER_TRANSACTION_MAX, File, FileWants};
pub use outcome::*;
pub use pipeline::Pipeline;
pub use rules::{Compilation, Pairs, RuleId, RuleInfo, Ruleset, Source};
pub use sets::{ActionOrder, Dataset, Open, Reputation, Resources};
pub use trace::{TcpState, Trace};
