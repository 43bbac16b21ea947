//! What runs on this host: containers of Docker, Podman, containerd and Kubernetes, and every other
//! network namespace, as [`bulkhead_model::Workload`]s.
//!
//! ```text
//!  engines' sockets            kernel
//!  docker  containerd  cri     host (processes, namespaces, links)
//!     \        |       /         |
//!      engine (one thread each)  |        resolve (pure)
//!            \                   |       /
//!             inventory (one thread): Snapshot, Change
//! ```
//!
//! The kernel is the foundation and engines add names to it: a container is listed, with its
//! network stack and interfaces, also while its engine is down, hung, or unknown. Engines are only
//! read, never told to do anything, and nothing they send is trusted further than its caps
//! ([`resolve`] tells who is believed in what).
#![forbid(unsafe_code)]

mod announce;
mod bounded;
pub mod cgroup;
mod config;
mod containerd;
mod cri;
mod docker;
mod engine;
mod grpc;
mod host;
mod http;
mod inventory;
mod podman;
pub mod resolve;
mod snapshot;
mod socket;

pub use config::{Config, ConfigError, EngineKind};
pub use inventory::{Inventory, StartError};
pub use snapshot::{Change, Counters, EngineState, EngineStatus, Snapshot};
