//! What the store did and what it lost, by event type.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::EventType;

/// Counts by event type; types with 0 are left out of the map.
pub type PerType = BTreeMap<EventType, u64>;

/// Since the store was opened, but for the sizes, which are of now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreStats {
    /// Lines in `eve.json`.
    pub written: PerType,
    /// Did not fit into the queue.
    pub lost_queue: PerType,
    /// Could not be written to `eve.json`.
    pub lost_log: PerType,
    /// Could not be written to the database (they may well stand in `eve.json`).
    pub lost_database: PerType,
    /// Events that had to be cut to fit a line.
    pub cut: u64,
    /// Events waiting for the writer.
    pub queued: u64,
    pub log_bytes: u64,
    pub archives: u64,
    pub archive_bytes: u64,
    pub database_bytes: u64,
    /// Rows removed to keep the database within its size.
    pub database_removed: u64,
    pub followers: u64,
    /// Events that followers were too slow for, over all followers.
    pub followers_lagged: u64,
    /// Databases found damaged and put aside.
    pub databases_replaced: u64,
}

impl StoreStats {
    /// Events that are in neither place, by type.
    pub fn lost(&self) -> PerType {
        let mut lost = self.lost_queue.clone();
        for (kind, count) in &self.lost_log {
            *lost.entry(*kind).or_default() += count;
        }
        lost
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub queued: AtomicUsize,
    pub written: ByType,
    pub lost_queue: ByType,
    pub lost_log: ByType,
    pub lost_database: ByType,
    pub cut: AtomicU64,
    pub log_bytes: AtomicU64,
    pub archives: AtomicU64,
    pub archive_bytes: AtomicU64,
    pub database_bytes: AtomicU64,
    pub database_removed: AtomicU64,
    pub databases_replaced: AtomicU64,
}

impl Counters {
    pub fn snapshot(&self, followers: usize, followers_lagged: u64) -> StoreStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            written: self.written.snapshot(),
            lost_queue: self.lost_queue.snapshot(),
            lost_log: self.lost_log.snapshot(),
            lost_database: self.lost_database.snapshot(),
            cut: load(&self.cut),
            queued: self.queued.load(Ordering::Relaxed) as u64,
            log_bytes: load(&self.log_bytes),
            archives: load(&self.archives),
            archive_bytes: load(&self.archive_bytes),
            database_bytes: load(&self.database_bytes),
            database_removed: load(&self.database_removed),
            followers: followers as u64,
            followers_lagged,
            databases_replaced: load(&self.databases_replaced),
        }
    }

    /// Everything lost, in one number that only grows: a change means that there is something to report.
    pub fn lost_total(&self) -> u64 {
        [&self.lost_queue, &self.lost_log, &self.lost_database].into_iter().map(ByType::total).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct ByType([AtomicU64; EventType::COUNT]);

impl ByType {
    pub fn add(&self, kind: EventType, count: u64) {
        self.0[kind.index()].fetch_add(count, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> PerType {
        let counts = EventType::ALL.into_iter().map(|kind| (kind, self.0[kind.index()].load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
