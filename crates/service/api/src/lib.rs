//! The agent's API: HTTP/1.1 with JSON over a unix socket, versioned under `/v1`; its types, its server and its client.
//! The reference is `docs/api.md`.
//!
//! The server knows nothing of the agent but the [`Backend`] trait. It runs on one thread of its own; a client that is slow,
//! hangs or sends rubbish costs one of a bounded number of connections for a bounded time, and nothing else.
#![forbid(unsafe_code)]

mod backend;
pub mod client;
mod error;
pub mod server;
pub mod types;

pub use backend::{Backend, Follow};
pub use bulkhead_store::{EventType, EventTypes, Followed, Query as EventQuery};
pub use client::{Client, ClientError};
pub use error::{ApiError, ErrorCode, Problem, Severity};
pub use server::{GroupAccess, Server, ServerConfig, ServerError};
pub use types::*;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/bulkhead/bulkhead.sock";
/// The version in every path.
pub const API_VERSION: &str = "v1";
