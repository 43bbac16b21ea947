//! What rules count and remember of hosts, and what one connection announces of another: shared by the pipelines among which flows
//! are divided, so that a scan is counted as one however its connections are spread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::expected::Expected;
use crate::hosts::HostBits;
use crate::outcome::PipelineConfig;
use crate::threshold::Thresholds;

/// Each part behind a lock that is held for one look-up, and only for rules that ask.
#[derive(Debug)]
pub struct AcrossFlows {
    thresholds: Mutex<Thresholds>,
    hosts: Mutex<HostBits>,
    expected: Arc<Mutex<Expected>>,
}

impl AcrossFlows {
    /// `config` of the whole, not of one pipeline.
    pub fn new(config: &PipelineConfig) -> Self {
        Self {
            thresholds: Mutex::new(Thresholds::new(config.thresholds_max)),
            hosts: Mutex::new(HostBits::new(config.host_bits_max)),
            expected: Arc::default(),
        }
    }

    pub(crate) fn thresholds(&self) -> MutexGuard<'_, Thresholds> {
        locked(&self.thresholds)
    }

    pub(crate) fn hosts(&self) -> MutexGuard<'_, HostBits> {
        locked(&self.hosts)
    }

    pub(crate) fn expected(&self) -> Arc<Mutex<Expected>> {
        Arc::clone(&self.expected)
    }
}

/// A panic over one packet is caught by the caller; counts stay sound.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
