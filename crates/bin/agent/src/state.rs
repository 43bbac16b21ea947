//! What control thread, API and enrichment share. Locks are held for map lookups and swaps, never over IO that can block.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::Instant;

use bulkhead_api::RuleCounts;
use bulkhead_inventory::Inventory;
use bulkhead_model::Timestamp;
use bulkhead_policy::PolicySnapshot;
use bulkhead_store::Store;
use bulkhead_sys::poll::EventFd;

use crate::datapath::Datapath;
use crate::engine::Engine;
use crate::files::Loaded;
use crate::nfqueue::QueuePath;
use crate::record::Recorder;
use crate::registry::Registry;

/// How the agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Not yet.
    Run,
    /// Programs stay in the kernel; what is not judged fails by policy until the next agent.
    Leave,
    /// Everything off the host.
    Down,
}

/// The inspection path in use.
pub enum Route {
    Tcx(Box<Datapath>),
    Queue(Box<QueuePath>),
    None { reason: String },
}

/// Configuration and policy in force.
#[derive(Clone)]
pub struct InForce {
    pub loaded: Loaded,
    pub snapshot: Arc<PolicySnapshot>,
    pub applied: Timestamp,
    pub rules: RuleCounts,
    pub origin: Vec<String>,
}

pub struct State {
    pub config_path: PathBuf,
    pub run_dir: PathBuf,
    pub started: Timestamp,
    pub started_at: Instant,
    pub registry: Registry,
    pub recorder: Recorder,
    pub store: Store,
    pub inventory: Inventory,
    pub engine: Arc<Engine>,
    pub route: Mutex<Route>,
    pub in_force: RwLock<InForce>,
    /// Interfaces that could not be armed, with the reason.
    pub unarmed: Mutex<Vec<String>>,
    /// Standing problems found by the control thread.
    pub problems: Mutex<Vec<String>>,
    ending: AtomicU8,
    /// Raised for each change the control thread has to carry out.
    pub requested: AtomicU64,
    /// The last of them that the control thread has carried out.
    pub carried_out: AtomicU64,
    pub wake: EventFd,
    /// The thread that carries changes out: it must not wait for itself.
    pub control: OnceLock<ThreadId>,
}

impl State {
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub fn new(
        config_path: PathBuf,
        run_dir: PathBuf,
        started: Timestamp,
        registry: Registry,
        recorder: Recorder,
        store: Store,
        inventory: Inventory,
        engine: Arc<Engine>,
        route: Route,
        in_force: InForce,
        wake: EventFd,
    ) -> Self {
        Self {
            config_path,
            run_dir,
            started,
            started_at: Instant::now(),
            registry,
            recorder,
            store,
            inventory,
            engine,
            route: Mutex::new(route),
            in_force: RwLock::new(in_force),
            unarmed: Mutex::new(Vec::new()),
            problems: Mutex::new(Vec::new()),
            ending: AtomicU8::new(0),
            requested: AtomicU64::new(0),
            carried_out: AtomicU64::new(0),
            wake,
            control: OnceLock::new(),
        }
    }

    pub fn in_force(&self) -> InForce {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_in_force(&self, next: InForce) {
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.request_sync();
    }

    /// Asks the control thread to bring the kernel up to date.
    pub fn request_sync(&self) {
        self.requested.fetch_add(1, Ordering::Relaxed);
        let _ = self.wake.signal();
    }

    pub fn end(&self, ending: Ending) {
        let value = match ending {
            Ending::Run => 0,
            Ending::Leave => 1,
            Ending::Down => 2,
        };
        self.ending.fetch_max(value, Ordering::Relaxed);
        let _ = self.wake.signal();
    }

    pub fn ending(&self) -> Ending {
        match self.ending.load(Ordering::Relaxed) {
            0 => Ending::Run,
            1 => Ending::Leave,
            _ => Ending::Down,
        }
    }
}

/// A thread that panicked while it held one of our locks left plain data behind: go on with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an API call waits for the control thread to carry a change out.
const SYNC_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

impl State {
    /// Waits until the control thread has taken up what was requested before this call. On the control thread itself it
    /// does not wait: that one carries it out next.
    pub fn wait_synced(&self) {
        self.wait_synced_for(SYNC_WAIT);
    }

    /// As [`State::wait_synced`], for at most `patience`.
    pub fn wait_synced_for(&self, patience: std::time::Duration) {
        if self.control.get() == Some(&std::thread::current().id()) {
            return;
        }
        let wanted = self.requested.load(Ordering::Relaxed);
        let until = Instant::now() + patience;
        while self.carried_out.load(Ordering::Acquire) < wanted && Instant::now() < until && self.ending() == Ending::Run {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
