//! `bulkhead oci-hook`: run by Podman, CRI-O and other engines as a `createRuntime` hook: after the container's namespaces are
//! made, before its program is started. An exit code other than 0 makes the runtime give the container up.

use std::io::Read;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::oci::{self, STATE_BYTES_MAX, Start, State, Waiting};

/// Make a container's start wait until its network is on the path: an OCI `createRuntime` hook
///
/// Reads the container's state on standard input.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    waiting: Waiting,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let deadline = args.waiting.deadline();
    let state = from_stdin(deadline);
    match oci::wait_armed(state.as_ref().map_err(Clone::clone), &args.waiting, context, deadline) {
        Start::Go => {}
        Start::GoUnarmed(reason) => eprintln!("bulkhead: the container is started all the same: {reason}"),
        Start::Refuse(reason) => {
            eprintln!("bulkhead: the container is not started: {reason}");
            return Ok(Exit::Findings);
        }
    }
    Ok(Exit::Ok)
}

/// Read beside, because an engine that never closes it must not hold us.
fn from_stdin(deadline: Instant) -> Result<State, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = std::io::stdin().take(STATE_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes);
        sender.send(read) // nobody may be listening any more: fine
    });
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) => oci::read_state(&bytes),
        Ok(Err(error)) => Err(format!("the container's state cannot be read: {error}")),
        Err(_) => Err("the container's state does not arrive on standard input".to_owned()),
    }
}
