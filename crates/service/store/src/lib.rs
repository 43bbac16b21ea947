//! The event log of one host: every event as a line of EVE JSON, and those that people ask for in SQLite.
//!
//! ```text
//! EventSender::try_send ─▶ queue (bounded) ─▶ writer thread ─┬▶ eve.json ─▶ eve-*.json.zst   every event
//!   never blocks; what does                  numbers, batches ├▶ events.db                     alert drop anomaly operation
//!   not fit is counted by type                                └▶ followers (bounded queues)    live views, exporters
//! ```
//!
//! The two tiers have separate reasons. The JSON lines are cheap, any collector can tail them, and they hold everything.
//! The database answers "what happened to this container" and "what was event 4711" without reading a gigabyte.
//! A full disk, a broken database or a slow reader costs events, which are counted and reported; it never costs the caller time.
#![forbid(unsafe_code)]

mod archive;
mod config;
mod counters;
mod database;
mod event_type;
mod follow;
mod log;
mod query;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bulkhead_model::Event;

pub use archive::ARCHIVE_EXTENSION;
pub use config::{FOLLOWER_QUEUE_MAX, FOLLOWERS_MAX, LINE_BYTES_MAX, QUERY_EVENTS_DEFAULT, QUERY_EVENTS_MAX, StoreConfig, TAIL_BYTES_MAX};
pub use counters::{PerType, StoreStats};
pub use event_type::{EventType, EventTypes, UnknownEventType};
pub use follow::{Followed, Follower};
pub use query::Query;

use counters::Counters;
use database::Reader;
use follow::Followers;
use writer::{Message, Writer};

/// What opening or asking the store can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's: a directory that cannot be made or written.
    #[error("cannot use `{}`", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    /// The operator's: another agent has this log open.
    #[error("`{}` is in use by another bulkhead", path.display())]
    InUse { path: PathBuf },
    /// The database cannot answer; it is being replaced, or it has been given up until the next reopening.
    #[error("the event database cannot answer: {0}")]
    Database(String),
    #[error("the event log cannot be read")]
    Log(#[source] std::io::Error),
    /// [`FOLLOWERS_MAX`] are connected already.
    #[error("{FOLLOWERS_MAX} followers are connected already")]
    TooManyFollowers,
    /// The writer thread is gone: the store is being closed.
    #[error("the event store is closed")]
    Closed,
}

/// Owns the writer thread. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct Store {
    sender: EventSender,
    followers: Arc<Followers>,
    reader: Reader,
    config: StoreConfig,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Makes the directories, mends what a crash left behind (half a line, an unfinished archive, a damaged database)
    /// and starts the writer. What was mended is told in `operation` events.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let counters = Arc::new(Counters::default());
        let followers = Arc::new(Followers::default());
        let (queue, messages) = mpsc::sync_channel(config.queue_events_max + CONTROL_MESSAGES_MAX);
        let writer = Writer::open(config.clone(), messages, counters.clone(), followers.clone())?;
        let reader = Reader::new(config.database.clone(), config.log.clone(), writer.database_generation(), queue.clone());
        let thread = std::thread::Builder::new()
            .name("bulkhead-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Directory { path: config.log.clone(), source })?;
        let sender = EventSender { queue, counters, limits: limits(config.queue_events_max) };
        Ok(Self { sender, followers, reader, config, writer: Mutex::new(Some(thread)) })
    }

    /// Cheap to clone; one per thread that makes events.
    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// Oldest first. At most `query.limit` events, and never more than [`QUERY_EVENTS_MAX`].
    /// Blocks for the time of a disk read; events of the last moments may still be on their way (see [`Store::flush`]).
    pub fn query(&self, query: &Query) -> Result<Vec<Event>, StoreError> {
        self.reader.query(query)
    }

    /// Every event from now on. The follower that does not keep up loses events and is told how many.
    pub fn follow(&self) -> Result<Follower, StoreError> {
        self.followers.add()
    }

    /// Returns when everything sent before is on disk (written, not synced).
    pub fn flush(&self) -> Result<(), StoreError> {
        self.ask(Message::Flush)
    }

    /// For SIGHUP: closes and opens `eve.json` again, and tries a database that was given up.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.ask(Message::Reopen)
    }

    pub fn stats(&self) -> StoreStats {
        self.sender.counters.snapshot(self.followers.count(), self.followers.lagged())
    }

    pub const fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Writes what is queued and ends the writer. Senders that are still held lose what they send from here on, counted.
    pub fn close(&self) {
        let Some(thread) = lock(&self.writer).take() else { return };
        // A writer that has ended already has nothing left to write.
        let _ = self.sender.queue.send(Message::Close);
        let _ = thread.join();
        self.followers.close();
    }

    fn ask(&self, message: impl FnOnce(SyncSender<()>) -> Message) -> Result<(), StoreError> {
        let (done, wait) = mpsc::sync_channel(1);
        self.sender.queue.send(message(done)).map_err(|_| StoreError::Closed)?;
        wait.recv().map_err(|_| StoreError::Closed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Hands events to the writer thread.
#[derive(Debug, Clone)]
pub struct EventSender {
    queue: SyncSender<Message>,
    counters: Arc<Counters>,
    limits: [usize; EventType::COUNT],
}

impl EventSender {
    /// Never blocks. `false`: the queue had no room for an event of this type, and the loss is counted.
    ///
    /// Types have different limits ([`EventType::queue_share`]), so that a flood of flow records cannot push out alerts.
    pub fn try_send(&self, event: Event) -> bool {
        let kind = EventType::of(&event.body);
        let depth = self.counters.queued.load(Ordering::Relaxed);
        if depth >= self.limits[kind.index()] {
            self.counters.lost_queue.add(kind, 1);
            return false;
        }
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(Message::Event(Box::new(event))) {
            Ok(()) => true,
            Err(_) => {
                self.counters.queued.fetch_sub(1, Ordering::Relaxed);
                self.counters.lost_queue.add(kind, 1);
                false
            }
        }
    }
}

/// Slots of the queue kept for flush, reopen and close.
const CONTROL_MESSAGES_MAX: usize = 16;

fn limits(queue_events_max: usize) -> [usize; EventType::COUNT] {
    EventType::ALL.map(|kind| {
        let (part, of) = kind.queue_share();
        queue_events_max * part / of
    })
}

/// A thread that panicked while it held one of our locks left plain data behind: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
