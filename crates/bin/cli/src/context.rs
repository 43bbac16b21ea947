//! What every verb is given: where to write, and how to reach the agent.

use std::path::{Path, PathBuf};

use bulkhead_api::Client;

use crate::failure::Failure;
use crate::output::{Format, Out};

#[derive(Debug)]
pub struct Context {
    pub out: Out,
    socket: PathBuf,
}

impl Context {
    pub fn new(format: Format, socket: PathBuf) -> Self {
        Self { out: Out::stdout(format), socket }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.socket())?)
    }

    /// `text` when a person reads, JSON when a program does.
    pub const fn json(&self) -> bool {
        matches!(self.out.format(), Format::Json)
    }
}
