//! `bulkhead down`: take everything off the host again.

use std::time::{Duration, Instant};

use bulkhead_api::ClientError;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::printable;

/// How long the agent may take to end after it has said that it will.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Take everything off the host again and end the agent
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let done = client.down()?;
    let until = Instant::now() + PATIENCE;
    loop {
        match client.status() {
            Err(ClientError::NotRunning { .. }) => break,
            // It is just ending: the connection was cut, or it is busy with it.
            Err(ClientError::Protocol(_) | ClientError::Timeout | ClientError::Api(_)) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            return Err(Failure::Internal(format!("the agent has not ended within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    if context.json() {
        context.out.json(&done)?;
    } else {
        context.out.line(&printable(&done.message))?;
    }
    Ok(Exit::Ok)
}
