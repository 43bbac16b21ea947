//! What travels over the API, as plain data. Fields are added, never renamed or removed, within a version;
//! a reader must pass over fields it does not know.

mod arm;
mod coverage;
mod metrics;
mod policy;
mod status;
mod why;
mod workload;

pub use arm::{ArmRequest, ArmState, Armed, ArmedInterface};
pub use coverage::{Coverage, InterfaceCoverage, PairCoverage, PathFamily, PathKind};
pub use metrics::{Metric, MetricKind, Sample, prometheus_text};
pub use policy::{Done, ModeChange, ModeChanged, ModeRule, ModeView, PolicyChange, PolicyView, Reloaded};
pub use status::{EngineState, EngineStats, EventCounts, FailMode, ModeSummary, PathState, PathTechnique, RuleCounts, Status};
pub use why::Why;
pub use workload::{Protected, WorkloadClass, WorkloadView};
