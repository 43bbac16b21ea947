//! What rules count and remember of hosts, over all flows: shared by the pipelines among which flows are divided, so that a scan is
//! counted as one however its connections are spread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hosts::HostBits;
use crate::outcome::PipelineConfig;
use crate::threshold::Thresholds;

/// Each part behind a lock that is held for one look-up, and only for rules that ask.
#[derive(Debug)]
pub struct AcrossFlows {
    thresholds: Mutex<Thresholds>,
    hosts: Mutex<HostBits>,
}

impl AcrossFlows {
    /// `config` of the whole, not of one pipeline.
    pub fn new(config: &PipelineConfig) -> Self {
        Self { thresholds: Mutex::new(Thresholds::new(config.thresholds_max)), hosts: Mutex::new(HostBits::new(config.host_bits_max)) }
    }

    pub(crate) fn thresholds(&self) -> MutexGuard<'_, Thresholds> {
        locked(&self.thresholds)
    }

    pub(crate) fn hosts(&self) -> MutexGuard<'_, HostBits> {
        locked(&self.hosts)
    }
}

/// A panic over one packet is caught by the caller; counts stay sound.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
