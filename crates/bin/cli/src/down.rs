//! `bulkhead down`: take everything off the host again, with the agent or after it.

use std::time::{Duration, Instant};

use bulkhead_api::{Client, ClientError};
use bulkhead_sys::process::PidFd;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::run::Places;

/// How long the agent may take to end after it has said that it will.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Take everything off the host again and end the agent
///
/// Where no agent answers, what a killed one left behind is taken off.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    places: Places,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let agent = match client.status() {
        Ok(status) => Some(Process::look(status.pid)),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let done = match &agent {
        Some(process) => {
            let done = client.down()?;
            wait_for_its_end(&client, process)?;
            vec![done.message]
        }
        None => {
            let (run_dir, pin_dir) = args.places.resolve();
            bulkhead_agent::down(&run_dir, &pin_dir)?
        }
    };
    if context.json() {
        context.out.json(&json!({ "agent": agent_word(agent.is_some()), "done": done }))?;
        return Ok(Exit::Ok);
    }
    if done.is_empty() {
        context.out.line("no agent answers, and nothing of one is on this host")?;
    }
    context.out.lines(done.iter().map(|line| printable(line)))?;
    Ok(Exit::Ok)
}

const fn agent_word(answered: bool) -> &'static str {
    if answered { "ended" } else { "absent" }
}

/// The socket goes first, the programs after it: only the end of the process means that the host is as it was.
fn wait_for_its_end(client: &Client, process: &Process) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answers = match client.status() {
            Err(ClientError::NotRunning { .. }) => false,
            // It is just ending: the connection was cut, or it is busy with it.
            Err(ClientError::Protocol(_) | ClientError::Timeout | ClientError::Api(_)) | Ok(_) => true,
            Err(error) => return Err(error.into()),
        };
        if !answers && !process.runs() {
            return Ok(());
        }
        if Instant::now() >= until {
            let message = format!("the agent, process {}, has not ended within {} s", process.pid, PATIENCE.as_secs());
            return Err(Failure::Unable(message, Some("kill it, and say `bulkhead down` again".to_owned())));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A process by a descriptor of it: no later one with the same number is mistaken for it, and its end is the end of all its
/// threads, which hold the descriptors that keep interfaces alive (pidfd_open(2)).
#[derive(Debug)]
struct Process {
    pid: u32,
    handle: Option<PidFd>,
}

impl Process {
    fn look(pid: u32) -> Self {
        Self { pid, handle: PidFd::open(pid).ok() }
    }

    fn runs(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| handle.ended() == Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_until_it_has_ended() {
        assert!(Process::look(std::process::id()).runs());
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let process = Process::look(child.id());
        assert!(process.runs());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.runs());
        assert!(!Process::look(u32::MAX >> 1).runs());
    }
}
