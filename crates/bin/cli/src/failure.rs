//! Exit codes, and how a failure is told: on standard error, as text or as the same object that the API sends.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use bulkhead_api::{ApiError, ClientError, ErrorCode, Problem};
use serde_json::json;

use crate::output::{Format, printable};
use crate::problems;

/// By class, so that a script can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// It worked, and what was looked for was found: a gap in the coverage, a rule that does not load.
    Findings = 1,
    /// The asker's words or files are wrong.
    Usage = 2,
    /// The agent does not run, or cannot enforce.
    Degraded = 3,
    Internal = 4,
}

#[derive(Debug)]
pub enum Failure {
    Client(ClientError),
    /// The asker's: message and help.
    Usage(String, Option<String>),
    /// A file that the asker named.
    File(PathBuf, io::Error),
    /// The reader of our output has gone: nothing to tell, and nobody to tell it to.
    Gone,
    Output(io::Error),
    /// The agent could not start, or not take things off.
    Agent(bulkhead_agent::Error),
    /// Degraded: message and help.
    Unable(String, Option<String>),
    Internal(String),
}

impl From<bulkhead_agent::Error> for Failure {
    fn from(error: bulkhead_agent::Error) -> Self {
        Self::Agent(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage(message.into(), Some(help.into()))
    }

    /// Tells it and says how to exit.
    pub fn report(&self, format: Format) -> Exit {
        let told = match self.told() {
            Some(told) => told,
            None => return Exit::Ok,
        };
        match format {
            Format::Json => eprintln!("{}", json!({ "error": told.error, "exit": told.exit as u8 })),
            Format::Text => {
                // Several lines are ours: a list of mistakes, each with the line it is in.
                let message = told.error.message.lines().map(printable).collect::<Vec<_>>().join("\n");
                eprintln!("error: {message}");
                for problem in &told.error.problems {
                    eprintln!("{}", problems::text(problem));
                }
                if let Some(help) = &told.error.help {
                    eprintln!("  help: {}", printable(help));
                }
            }
        }
        told.exit
    }

    fn told(&self) -> Option<Told> {
        let told = |code, message: String, help: Option<String>, exit| Told {
            error: ApiError { code, message, help, problems: Vec::<Problem>::new() },
            exit,
        };
        Some(match self {
            Self::Client(error) => return Some(of_client(error)),
            Self::Usage(message, help) => told(ErrorCode::BadRequest, message.clone(), help.clone(), Exit::Usage),
            Self::File(path, error) => told(ErrorCode::BadRequest, format!("cannot use `{}`: {error}", path.display()), None, Exit::Usage),
            Self::Agent(error) => {
                let (code, exit) = match error.exit_code() {
                    2 => (ErrorCode::Refused, Exit::Usage),
                    3 => (ErrorCode::Conflict, Exit::Degraded),
                    _ => (ErrorCode::Internal, Exit::Internal),
                };
                told(code, with_causes(error), None, exit)
            }
            Self::Unable(message, help) => told(ErrorCode::Conflict, message.clone(), help.clone(), Exit::Degraded),
            Self::Gone => return None,
            Self::Output(error) => told(ErrorCode::Internal, format!("cannot write: {error}"), None, Exit::Internal),
            Self::Internal(message) => told(ErrorCode::Internal, message.clone(), None, Exit::Internal),
        })
    }
}

/// The message, and behind colons what led to it.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let error_text = error.to_string();
        // Some messages carry their cause already.
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        cause = error.source();
    }
    text
}

struct Told {
    error: ApiError,
    exit: Exit,
}

fn of_client(error: &ClientError) -> Told {
    let of = |code, help: &str, exit| Told { error: ApiError::new(code, error.to_string()).help(help), exit };
    match error {
        ClientError::NotRunning { .. } => of(
            ErrorCode::NotFound,
            "start it with `bulkhead run`, or `systemctl start bulkhead`; if it listens elsewhere, name the socket with `--socket`",
            Exit::Degraded,
        ),
        ClientError::Denied { .. } => {
            of(ErrorCode::Forbidden, "be root, or a member of the group that the agent's `api.group` names", Exit::Usage)
        }
        ClientError::Timeout => of(ErrorCode::Busy, "look at the agent's own log; `bulkhead down` takes it off the path", Exit::Degraded),
        ClientError::Protocol(_) => of(ErrorCode::Internal, "is it an agent of this version that listens there?", Exit::Internal),
        ClientError::Connect { source, .. } => {
            let error = ApiError::new(ErrorCode::Internal, format!("{error}: {source}"));
            Told { error, exit: Exit::Internal }
        }
        ClientError::Api(error) => Told { error: error.clone(), exit: of_code(error.code) },
    }
}

const fn of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Conflict
        | ErrorCode::TooLarge
        | ErrorCode::Refused => Exit::Usage,
        ErrorCode::Timeout | ErrorCode::Busy => Exit::Degraded,
        ErrorCode::Internal => Exit::Internal,
    }
}
