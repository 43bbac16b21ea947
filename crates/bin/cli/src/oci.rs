//! Waiting until a container's network is on the path, between the container's making and its program's first instruction.
//! Shared by the runtime wrapper ([`crate::oci_runtime`]) and the hook ([`crate::oci_hook`]).
//!
//! Nothing here waits without end: the agent may be absent, stopped or hung. What becomes of the container then is said by,
//! in this order: `--fail`, the agent's own last answer, the configuration, `open`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_api::{ArmRequest, ArmState, Armed, Client, ClientError, DEFAULT_SOCKET, ErrorCode, FailMode};
use clap::ValueEnum;
use serde::Deserialize;

use crate::context::Context;
use crate::output::printable;

/// A state (OCI runtime specification, "State") larger than this is not read: annotations make it long.
pub const STATE_BYTES_MAX: u64 = 4 << 20;
/// Between two questions to the agent; twice as long each time.
const ASK_AGAIN: Duration = Duration::from_millis(10);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(250);

/// How long, and what then
#[derive(Debug, clap::Args)]
pub struct Waiting {
    /// How long a start may wait for the agent
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,

    /// What then becomes of the container: it starts (open), or it does not (closed) [default: as the policy says]
    #[arg(long, value_name = "HOW", value_enum)]
    fail: Option<Fail>,

    /// Where the agent's socket and the default of --fail are looked up [default: /etc/bulkhead/bulkhead.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fail {
    Open,
    Closed,
}

impl Waiting {
    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.timeout)
    }
}

/// A container whose program has not been started.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct State {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub status: String,
    /// Of its first process; 0 or absent when it has none.
    #[serde(default)]
    pub pid: u32,
}

/// Reads what a runtime says of a container.
pub fn read_state(bytes: &[u8]) -> Result<State, String> {
    if bytes.len() as u64 > STATE_BYTES_MAX {
        return Err(format!("the container's state is larger than {STATE_BYTES_MAX} bytes"));
    }
    let state: State = serde_json::from_slice(bytes).map_err(|error| format!("the container's state cannot be understood: {error}"))?;
    Ok(state)
}

/// What is to be done with the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Go,
    /// It fails open: why its network may not be on the path.
    GoUnarmed(String),
    Refuse(String),
}

/// Asks the agent until the container's network is armed, or `deadline` has come.
pub fn wait_armed(state: Result<&State, String>, waiting: &Waiting, context: &Context, deadline: Instant) -> Start {
    let configured = bulkhead_agent::start_settings(waiting.config.as_deref());
    let mut policy = match &configured {
        Ok(settings) if settings.fail_closed => FailMode::Closed,
        Ok(_) | Err(_) => FailMode::Open,
    };
    let socket = context.socket_named().or_else(|| configured.as_ref().ok().map(|settings| settings.socket.clone()));
    let socket = socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    let closed = |policy| match waiting.fail {
        Some(fail) => fail == Fail::Closed,
        None => policy == FailMode::Closed,
    };
    let reason = match state {
        Ok(state) => match ask(state, &socket, deadline, &mut |absent, told| {
            policy = told.unwrap_or(policy);
            // An agent that does not run may come, but nobody is to wait for it who need not.
            absent && !closed(policy)
        }) {
            Ok(()) => return Start::Go,
            Err(reason) => reason,
        },
        Err(reason) => reason,
    };
    let reason = match configured {
        Ok(_) => reason,
        Err(error) => format!("{reason}; and {error}"),
    };
    let reason = printable(&reason.replace('\n', " "));
    if closed(policy) { Start::Refuse(reason) } else { Start::GoUnarmed(reason) }
}

/// `tell` hears of each try whether the agent is absent, and what it said of failing; true ends the asking.
fn ask(state: &State, socket: &Path, deadline: Instant, tell: &mut dyn FnMut(bool, Option<FailMode>) -> bool) -> Result<(), String> {
    if state.pid == 0 {
        return Err("the container has no process".to_owned());
    }
    let netns = std::fs::metadata(format!("/proc/{}/ns/net", state.pid)).map(|found| found.ino());
    let netns = netns.map_err(|error| format!("the network of process {} cannot be seen: {error}", state.pid))?;
    let container = Some(state.id.clone()).filter(|id| !id.is_empty());
    let request = ArmRequest { pid: state.pid, netns: Some(netns), container };
    let client = Client::new(socket).map_err(|error| error.to_string())?;
    let mut pause = ASK_AGAIN;
    // The last question may be cut short by the deadline: then the answer before it says more.
    let mut before = None;
    loop {
        let answer = client.arm(&request, deadline.saturating_duration_since(Instant::now()));
        let (absent, told) = match &answer {
            Ok(armed) => (false, Some(armed.fail)),
            Err(error) => (matches!(error, ClientError::NotRunning { .. }), None),
        };
        let enough = tell(absent, told);
        let (again, reason) = match answer {
            Ok(Armed { state: ArmState::Armed | ArmState::HostNetwork, .. }) => return Ok(()),
            Ok(armed) => (true, not_armed(&armed)),
            Err(ClientError::Api(error)) => {
                (matches!(error.code, ErrorCode::Busy | ErrorCode::Timeout | ErrorCode::Internal), error.message)
            }
            Err(ClientError::Timeout) if before.is_some() => (false, before.take().unwrap_or_default()),
            Err(error @ (ClientError::Denied { .. } | ClientError::Timeout)) => (false, error.to_string()),
            Err(error) => (true, error.to_string()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if !again || enough || left.is_zero() {
            return Err(reason);
        }
        before = Some(reason);
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

fn not_armed(armed: &Armed) -> String {
    let missing = armed.interfaces.iter().filter(|interface| !interface.armed);
    let list: Vec<String> = missing.map(|i| format!("{} ({})", i.name, i.reason.as_deref().unwrap_or("not armed yet"))).collect();
    format!("its network is not on the path in time: {}", list.join(", "))
}
