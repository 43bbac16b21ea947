//! Where the log lives and how large it may become. Every limit of the store has its name here.

use std::path::{Path, PathBuf};

use crate::EventTypes;

/// Bytes of one line. A larger event loses its metadata and has its texts cut, so that it still gets through.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of serialised events written in one go.
pub(crate) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Events taken off the queue in one go.
pub(crate) const BATCH_EVENTS_MAX: usize = 2048;
/// How long the writer gathers events before it writes: what bounds the delay until an event is visible.
pub(crate) const BATCH_WINDOW_MS: u64 = 20;

/// Live followers at a time.
pub const FOLLOWERS_MAX: usize = 32;
/// Events that wait for one follower; the oldest make room.
pub const FOLLOWER_QUEUE_MAX: usize = 1024;

/// Events one query gives back when it names no limit.
pub const QUERY_EVENTS_DEFAULT: usize = 100;
/// Events one query can give back.
pub const QUERY_EVENTS_MAX: usize = 10_000;
/// Bytes of the live log's end that a query for `flow` or `stats` reads.
pub const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Losses are told in one `events-lost` event at most this often.
pub(crate) const LOSS_REPORT_SECS: u64 = 10;
/// A database that cannot be opened is tried again this often, while events come.
pub(crate) const DATABASE_RETRY_SECS: u64 = 30;
/// Damaged databases kept beside the new one.
pub(crate) const DAMAGED_DATABASES_MAX: usize = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The live log; its archives stand beside it. Its directory is made when it is missing.
    pub log: PathBuf,
    /// Types that are written to the log; the empty set means all.
    pub log_types: EventTypes,
    /// The database. Its directory is made when it is missing.
    pub database: PathBuf,
    /// `eve.json` is put aside before it grows past this.
    pub rotate_bytes: u64,
    /// `eve.json` is put aside when its first line is this old, checked when something is written.
    pub rotate_secs: u64,
    /// Archives kept.
    pub archives_max: usize,
    /// Bytes of `eve.json` and all archives together.
    pub log_bytes_max: u64,
    /// Bytes of `events.db`. Past it the oldest events go, first of the type that has the most.
    pub database_bytes_max: u64,
    /// Events that wait for the writer.
    pub queue_events_max: usize,
    /// Archives are compressed with zstd.
    pub compress: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            log: PathBuf::from("/var/log/bulkhead/eve.json"),
            log_types: EventTypes::default(),
            database: PathBuf::from("/var/lib/bulkhead/events.db"),
            rotate_bytes: 64 * 1024 * 1024,
            rotate_secs: 24 * 60 * 60,
            archives_max: 30,
            log_bytes_max: 1024 * 1024 * 1024,
            database_bytes_max: 256 * 1024 * 1024,
            queue_events_max: 8192,
            compress: true,
        }
    }
}

impl StoreConfig {
    pub(crate) fn log_dir(&self) -> &Path {
        parent(&self.log)
    }

    /// Held while a store is open.
    pub(crate) fn lock_path(&self) -> PathBuf {
        self.log_dir().join(format!(".{}.lock", self.log.file_name().unwrap_or_default().to_string_lossy()))
    }
}

/// A bare file name stands in the current directory.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
