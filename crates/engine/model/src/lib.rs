//! Words shared by all rooms: workload, verdict, reason, event. Plain data, no decisions.
#![forbid(unsafe_code)]

pub mod event;
pub mod time;
pub mod verdict;
pub mod workload;

pub use event::{Alert, AlertAction, Event, EventBody, FlowRecord, Operation, Side};
pub use time::Timestamp;
pub use verdict::{BypassReason, DropReason, Mode, Verdict};
pub use workload::{Interface, InterfaceKind, Network, Published, Runtime, Workload, WorkloadId};
