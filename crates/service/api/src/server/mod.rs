//! The server: a unix socket for everything, and, if wanted, loopback TCP for Prometheus alone.
//!
//! One thread, one connection per request (no keep-alive). What a client can cost is written down here:
//!
//! | limit | what happens to the client past it |
//! |---|---|
//! | [`CONNECTIONS_MAX`], of it [`CONNECTIONS_OTHERS_MAX`] for others than root | 503 and closed |
//! | [`HEADER_SECS_MAX`], [`HEADER_BYTES_MAX`], [`HEADERS_MAX`] | closed, or 431 |
//! | [`BODY_BYTES_MAX`] | 413 |
//! | [`REQUEST_SECS_MAX`] for request, answer and reading the answer | closed; 503 when it is the agent that is slow |
//! | [`CALLS_MAX`] calls into the agent at a time | waits, then 503 |
//! | [`FOLLOWS_MAX`] live views | 503 |

mod connection;
mod follow;
mod metrics;
mod routes;
mod socket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::Backend;

/// Connections at a time on the unix socket.
pub const CONNECTIONS_MAX: usize = 64;
/// Of these, how many peers other than root (members of the group) may have.
pub const CONNECTIONS_OTHERS_MAX: usize = 24;
/// Connections at a time on the metrics port.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Time for the request line and the headers.
pub const HEADER_SECS_MAX: u64 = 5;
/// Bytes of request line and headers. The smallest buffer hyper allows.
pub const HEADER_BYTES_MAX: usize = 8192;
pub const HEADERS_MAX: usize = 64;
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// From the first byte of the request to the last of the answer, live views apart.
pub const REQUEST_SECS_MAX: u64 = 30;
/// Calls into the agent at a time: each holds a thread while it runs.
pub const CALLS_MAX: usize = 4;
/// Live views at a time.
pub const FOLLOWS_MAX: usize = 16;
/// An idle live view says this often that it is still there.
pub const KEEPALIVE_SECS: u64 = 15;
/// Time that running requests get when the server is stopped.
const STOP_GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub socket: PathBuf,
    /// Members of this group may connect too. When the host has no such group, only root may ([`Server::group_found`]).
    pub group: Option<String>,
    pub group_access: GroupAccess,
    /// Where `GET /metrics` answers; loopback only.
    pub metrics: Option<SocketAddr>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from(crate::DEFAULT_SOCKET), group: None, group_access: GroupAccess::default(), metrics: None }
    }
}

/// What members of the group may do. Root may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupAccess {
    #[default]
    Read,
    Change,
}

/// The operator's, all of them.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on `{}`", path.display())]
    Listen { path: PathBuf, source: std::io::Error },
    #[error("another agent answers on `{}`", path.display())]
    InUse { path: PathBuf },
    #[error("`{}` exists and is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("metrics are served on loopback only, and {0} is not")]
    NotLoopback(SocketAddr),
    #[error("cannot serve metrics on {address}")]
    Metrics { address: SocketAddr, source: std::io::Error },
    #[error("cannot start the API thread")]
    Thread(#[source] std::io::Error),
}

/// A running server; dropping it stops it and removes its socket.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    socket: socket::Bound,
    metrics: Option<SocketAddr>,
    group_found: bool,
}

impl Server {
    /// Returns once both listeners answer.
    pub fn start(config: &ServerConfig, backend: Arc<dyn Backend>) -> Result<Self, ServerError> {
        let permissions = socket::Permissions::new(config.group.as_deref(), config.group_access)?;
        let group_found = permissions.has_group();
        let (socket, listener) = socket::Bound::bind(&config.socket, &permissions)?;
        let metrics = config.metrics.map(metrics::bind).transpose()?;
        let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(CALLS_MAX)
            .thread_keep_alive(Duration::from_secs(2))
            .thread_name("bulkhead-api")
            .build()
            .map_err(ServerError::Thread)?;
        let state = Arc::new(State::new(backend));
        let thread = std::thread::Builder::new()
            .name("bulkhead-api".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut served = vec![tokio::spawn(connection::serve(listener, permissions, state.clone(), stopped.clone()))];
                    served.extend(metrics.map(|listener| tokio::spawn(metrics::serve(listener, state, stopped))));
                    for task in served {
                        // A listener that ended ends alone.
                        let _ = task.await;
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(ServerError::Thread)?;
        Ok(Self { stop, thread: Some(thread), socket, metrics: metrics_address, group_found })
    }

    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Whether `/etc/group` has the group that was asked for.
    pub const fn group_found(&self) -> bool {
        self.group_found
    }

    /// Where the metrics really are, when port 0 was asked for.
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Takes no new connections, gives running requests half a second, ends.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stop.send_replace(true);
        let _ = thread.join();
        self.socket.remove();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Shared by all connections.
struct State {
    backend: Arc<dyn Backend>,
    calls: Arc<Semaphore>,
    follows: Arc<Semaphore>,
    counters: Counters,
}

impl State {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            follows: Arc::new(Semaphore::new(FOLLOWS_MAX)),
            counters: Counters::default(),
        }
    }
}

/// What clients did to the server; told in `/v1/metrics`.
#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    /// Past the connection limits.
    refused: AtomicU64,
    /// Neither root nor of the group.
    forbidden: AtomicU64,
    /// Not done within [`REQUEST_SECS_MAX`].
    timed_out: AtomicU64,
    /// Rubbish, slow headers, gone before the end.
    broken: AtomicU64,
}
