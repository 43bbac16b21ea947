//! The life of one connection to an engine, whatever its language: connect, list, follow, and when
//! that fails, say so and try again later.
//!
//! Each engine has a thread of its own that blocks on its socket, so that one which hangs delays
//! nobody. What it learns goes as [`Update`]s through one bounded queue to the inventory's thread;
//! when that is busy the engine's events wait in the socket.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::resolve::Container;
use crate::socket::{self, Error};
use crate::{Config, EngineState};

/// Containers of one engine; further ones are counted.
pub(crate) const CONTAINERS_MAX: usize = 8192;
/// Labels of one container.
pub(crate) const LABELS_MAX: usize = 256;
/// Published ports of one container.
pub(crate) const PORTS_MAX: usize = 1024;

/// What an engine's thread tells.
#[derive(Debug)]
pub(crate) enum Update {
    State {
        engine: usize,
        state: EngineState,
    },
    /// This container runs, as described; a new one, or instead of what was said before.
    Running {
        engine: usize,
        container: Box<Container>,
    },
    /// It does not run any more.
    Stopped {
        engine: usize,
        id: String,
    },
    /// Of the containers told before only these still run.
    Only {
        engine: usize,
        ids: BTreeSet<String>,
    },
    Answered,
    BeyondCap(u64),
    Failed(Failure),
    /// A runtime tells of a container that its engine has not told of: made, not started.
    Announced {
        engine: usize,
        container: Box<Container>,
    },
    /// Look at this process and its network.
    Process(u32),
    /// Somebody saw that the host's interfaces changed: look again.
    Hint,
    Stop,
}

/// How a connection ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Timeout,
    Oversized,
    Malformed,
    Other,
}

/// One language of engines.
pub(crate) trait Session: Send {
    /// Connects, tells the engine's version, lists its containers, and follows it until that
    /// fails. An engine without events is asked again and again, with [`Link::pause`] in between.
    fn follow(&mut self, link: &Link) -> Result<Infallible, Error>;
}

/// What a session needs of the inventory.
pub(crate) struct Link {
    pub engine: usize,
    pub socket: PathBuf,
    pub config: Arc<Config>,
    pub updates: SyncSender<Update>,
    pub stop: Arc<Stop>,
}

impl Link {
    pub(crate) fn send(&self, update: Update) -> Result<(), Error> {
        if self.stop.is_set() {
            return Err(Error::Stopped);
        }
        self.updates.send(update).map_err(|_| Error::Stopped)
    }

    pub(crate) fn up(&self, version: &str) -> Result<(), Error> {
        self.send(Update::State { engine: self.engine, state: EngineState::Up { version: socket::one_line(version) } })
    }

    pub(crate) fn running(&self, container: Container) -> Result<(), Error> {
        self.send(Update::Running { engine: self.engine, container: Box::new(container) })
    }

    pub(crate) fn beyond_cap(&self, count: u64) -> Result<(), Error> {
        if count == 0 { Ok(()) } else { self.send(Update::BeyondCap(count)) }
    }

    /// Sleeps until an engine without events is to be asked again; true when the inventory stops.
    pub(crate) fn pause(&self) -> bool {
        self.stop.wait_for_nudge(self.config.poll_interval)
    }

    /// A connection that [`Stop::set`] cuts, and when the answer is due.
    pub(crate) fn connect(&self) -> Result<(UnixStream, Open, Instant), Error> {
        let deadline = Instant::now() + self.config.request_timeout;
        let stream = socket::connect(&self.socket, self.config.request_timeout)?;
        let open = self.stop.watch(&stream)?;
        Ok((stream, open, deadline))
    }
}

/// Follows an engine until the inventory stops.
pub(crate) fn run(session: &mut dyn Session, link: &Link) {
    let (first, longest) = link.config.backoff;
    let mut pause = first;
    loop {
        let begun = Instant::now();
        let Err(error) = session.follow(link);
        let (state, wait) = match &error {
            Error::Stopped => return,
            Error::Absent(_) => (EngineState::Absent, link.config.absent_interval),
            Error::Timeout | Error::Closed | Error::TooLarge { .. } | Error::Malformed(_) | Error::Status { .. } | Error::Io(_) => {
                // A connection that held for a while was a sound one: the engine restarts.
                pause = if begun.elapsed() > longest { first } else { pause };
                let wait = pause;
                pause = (pause * 2).min(longest);
                (EngineState::Down { reason: socket::one_line(&error.to_string()) }, wait)
            }
        };
        let failure = match error {
            Error::Stopped | Error::Absent(_) => None,
            Error::Timeout => Some(Failure::Timeout),
            Error::TooLarge { .. } => Some(Failure::Oversized),
            Error::Malformed(_) => Some(Failure::Malformed),
            Error::Closed | Error::Status { .. } | Error::Io(_) => Some(Failure::Other),
        };
        if let Some(failure) = failure
            && link.send(Update::Failed(failure)).is_err()
        {
            return;
        }
        if link.send(Update::State { engine: link.engine, state }).is_err() || link.stop.wait(wait) {
            return;
        }
    }
}

/// Tells all threads to end, and cuts the connections on which they block.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Default)]
struct StopState {
    set: bool,
    nudges: u64,
    next: u64,
    open: BTreeMap<u64, UnixStream>,
}

/// Keeps a connection known to [`Stop`] while it is in use.
pub(crate) struct Open {
    stop: Arc<Stop>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.lock().open.remove(&self.number);
    }
}

impl Stop {
    pub(crate) fn set(&self) {
        let mut state = self.lock();
        state.set = true;
        for stream in state.open.values() {
            // A connection that the engine has closed already needs no cutting.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.lock().set
    }

    /// Sleeps for `pause`; true as soon as the inventory stops.
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.set);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.set, |(state, _)| state.set)
    }

    /// Like [`Self::wait`], but also over when [`Self::nudge`] is called.
    fn wait_for_nudge(&self, pause: Duration) -> bool {
        let state = self.lock();
        let before = state.nudges;
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.set && state.nudges == before);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.set, |(state, _)| state.set)
    }

    /// Something runs that no engine has told of: ask those without events.
    pub(crate) fn nudge(&self) {
        self.lock().nudges += 1;
        self.changed.notify_all();
    }

    fn watch(self: &Arc<Self>, stream: &UnixStream) -> Result<Open, Error> {
        let twin = stream.try_clone().map_err(|error| Error::of(&error))?;
        let mut state = self.lock();
        if state.set {
            return Err(Error::Stopped);
        }
        let number = state.next;
        state.next += 1;
        state.open.insert(number, twin);
        Ok(Open { stop: Arc::clone(self), number })
    }

    /// A thread that panicked left nothing half done here: each change is one step.
    fn lock(&self) -> MutexGuard<'_, StopState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
