//! What every verb is given: where to write, and how to reach the agent.

use std::path::{Path, PathBuf};

use bulkhead_api::{Client, DEFAULT_SOCKET};

use crate::failure::Failure;
use crate::output::{Format, Out};

#[derive(Debug)]
pub struct Context {
    pub out: Out,
    socket: Option<PathBuf>,
}

impl Context {
    pub fn new(format: Format, socket: Option<PathBuf>) -> Self {
        Self { out: Out::stdout(format), socket }
    }

    /// Where the agent is asked.
    pub fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    /// What the command line or the environment says about it.
    pub fn socket_named(&self) -> Option<PathBuf> {
        self.socket.clone()
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.socket())?)
    }

    /// `text` when a person reads, JSON when a program does.
    pub const fn json(&self) -> bool {
        matches!(self.out.format(), Format::Json)
    }
}
