//! Who is who: workloads and their numbers, modes and classes, by interface and by address.
//!
//! The control thread builds a [`Directory`] from inventory and policy and swaps it; workers and event
//! enrichment read whichever was current when they began a batch.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use bulkhead_model::event::{Side, WorkloadPair};
use bulkhead_model::{Mode, Workload, WorkloadId};

/// One workload with what the policy says of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: WorkloadId,
    pub workload: Workload,
    pub mode: Mode,
    pub fail_closed: bool,
    /// The policy lets its traffic pass without inspection.
    pub bypass: bool,
    /// Class in the segment table.
    pub class: u32,
}

/// Immutable; one per change.
#[derive(Debug, Default)]
pub struct Directory {
    pub entries: BTreeMap<WorkloadId, Arc<Entry>>,
    /// Addresses of containers, and of the host under [`WorkloadId::HOST`].
    pub addresses: HashMap<IpAddr, WorkloadId>,
    /// Port number -> workload.
    pub ports: HashMap<u16, WorkloadId>,
    /// Port number -> host-side interface name.
    pub port_names: HashMap<u16, String>,
    pub policy_revision: u64,
    pub default_mode: Mode,
    /// Names of the policy's segment rules, by index.
    pub segment_names: Vec<String>,
}

impl Directory {
    pub fn by_address(&self, address: IpAddr) -> WorkloadId {
        self.addresses.get(&address).copied().unwrap_or(WorkloadId::WORLD)
    }

    pub fn by_port(&self, port: u16) -> WorkloadId {
        self.ports.get(&port).copied().unwrap_or(WorkloadId::WORLD)
    }

    pub fn mode(&self, id: WorkloadId) -> Mode {
        self.entries.get(&id).map_or(Mode::Monitor, |entry| entry.mode)
    }

    /// Is a verdict on traffic between these two carried out? When either side is protected.
    pub fn enforced(&self, one: WorkloadId, other: WorkloadId) -> bool {
        self.mode(one) == Mode::Protect || self.mode(other) == Mode::Protect
    }

    pub fn side(&self, id: WorkloadId) -> Side {
        match self.entries.get(&id) {
            Some(entry) => Side {
                name: entry.workload.name.clone(),
                id: Some(entry.workload.key.clone()),
                image: entry.workload.image.clone(),
                mode: entry.mode,
            },
            None if id == WorkloadId::HOST => Side { name: "host".into(), id: None, image: None, mode: Mode::Monitor },
            None => Side { name: "world".into(), id: None, image: None, mode: Mode::Monitor },
        }
    }

    pub fn name(&self, id: WorkloadId) -> String {
        self.side(id).name
    }

    pub fn pair(&self, src: WorkloadId, dest: WorkloadId) -> WorkloadPair {
        WorkloadPair { src: self.side(src), dest: self.side(dest), policy_revision: self.policy_revision }
    }
}

/// The current directory, shared.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    current: Arc<RwLock<Arc<Directory>>>,
}

impl Registry {
    pub fn current(&self) -> Arc<Directory> {
        match self.current.read() {
            Ok(guard) => Arc::clone(&guard),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    pub fn swap(&self, directory: Directory) {
        let next = Arc::new(directory);
        match self.current.write() {
            Ok(mut guard) => *guard = next,
            Err(poisoned) => *poisoned.into_inner() = next,
        }
    }
}

/// Gives each workload key a number that stays while the agent runs, also over restarts of the container.
#[derive(Debug)]
pub struct Numbers {
    by_key: HashMap<String, WorkloadId>,
    next: u32,
}

/// Numbers kept for workloads that are gone. Reaching it forgets them all but the living.
const NUMBERS_MAX: usize = 65_536;

impl Default for Numbers {
    fn default() -> Self {
        Self { by_key: HashMap::new(), next: WorkloadId::FIRST_CONTAINER.0 }
    }
}

impl Numbers {
    pub fn of(&mut self, key: &str) -> WorkloadId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        if self.by_key.len() >= NUMBERS_MAX {
            self.by_key.clear();
        }
        let id = WorkloadId(self.next);
        self.next = self.next.wrapping_add(1).max(WorkloadId::FIRST_CONTAINER.0);
        self.by_key.insert(key.to_owned(), id);
        id
    }
}
