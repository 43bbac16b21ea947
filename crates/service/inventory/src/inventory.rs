//! The inventory's own thread: takes what engines tell, looks at the kernel, resolves, publishes.
//!
//! One turn of [`Core::run`]: wait for news or for the time of the next look; take all news that
//! wait; look at what they are about; resolve everything anew (a few milliseconds for a thousand
//! containers, and no state that could go wrong); publish if anything differs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::containerd::Containerd;
use crate::cri::Cri;
use crate::docker::Docker;
use crate::engine::{self, CONTAINERS_MAX, Failure, Link, Session, Stop, Update};
use crate::host::{Depth, Host, TRANSITION};
use crate::podman::Storage;
use crate::resolve::{Container, Inputs, Listing, resolve};
use crate::snapshot::differences;
use crate::{Change, Config, Counters, EngineKind, EngineState, EngineStatus, Snapshot};

/// Follows all engines and namespaces of the host until it is dropped.
pub struct Inventory {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    pub(crate) updates: SyncSender<Update>,
    /// By the number under which they send updates.
    pub(crate) engines: Vec<(EngineKind, PathBuf)>,
    threads: Vec<JoinHandle<()>>,
}

/// A thread of the inventory could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread of the inventory")]
pub struct StartError(#[from] std::io::Error);

impl Inventory {
    /// Starts the threads and returns at once; the first snapshot has no workloads. See [`Self::wait_settled`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let stop = Arc::new(Stop::default());
        let (updates, news) = sync_channel(UPDATES_MAX);
        let mut engines = Vec::new();
        let mut sessions: Vec<(Box<dyn Session>, Link)> = Vec::new();
        for (kind, socket) in configured(&config) {
            let session: Box<dyn Session> = match kind {
                EngineKind::Docker | EngineKind::Podman => Box::new(Docker::new(kind)),
                EngineKind::Containerd => Box::new(Containerd::default()),
                EngineKind::Cri | EngineKind::PodmanStorage => Box::new(Cri::default()),
            };
            let link = Link {
                engine: engines.len(),
                socket: socket.clone(),
                config: Arc::clone(&config),
                updates: updates.clone(),
                stop: Arc::clone(&stop),
            };
            engines.push(Engine { kind, socket, state: EngineState::Starting, containers: BTreeMap::new() });
            sessions.push((session, link));
        }
        let shared = Arc::new(Shared::default());
        shared.lock().queue_max = config.subscriber_queue_max;
        let storages = config.podman_storage.iter().cloned().map(|root| (root.clone(), Storage::new(root))).collect();
        let core = Core {
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            stop: Arc::clone(&stop),
            news,
            engines,
            storages,
            host: Host::default(),
            problem: None,
            counters: Counters::default(),
            clock: Clock::new(Instant::now()),
        };
        core.shared.lock().snapshot = Arc::new(Snapshot { engines: core.statuses(), ..Snapshot::default() });
        // From here on a failure drops the inventory, which ends the threads that were started.
        let mut inventory = Self { shared, stop, updates, engines: configured(&config), threads: Vec::new() };
        inventory.threads.push(spawn("inventory", move || core.run())?);
        for (mut session, link) in sessions {
            inventory.threads.push(spawn("inventory-engine", move || engine::run(session.as_mut(), &link))?);
        }
        Ok(inventory)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.lock().snapshot)
    }

    /// The newest counters. Those inside a snapshot are of the moment it was published.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Waits until there is a snapshot newer than `revision`, and gives it; the same one as before
    /// when `timeout` passes first.
    pub fn wait_newer(&self, revision: u64, timeout: Duration) -> Arc<Snapshot> {
        let published = self.shared.published.wait_timeout_while(self.shared.lock(), timeout, |state| state.snapshot.revision <= revision);
        Arc::clone(&published.unwrap_or_else(PoisonError::into_inner).0.snapshot)
    }

    /// Waits until the kernel has been looked at once and each engine has given its list or is
    /// known to be absent or down. False when `timeout` passes first.
    pub fn wait_settled(&self, timeout: Duration) -> bool {
        let published = self.shared.published.wait_timeout_while(self.shared.lock(), timeout, |state| !settled(&state.snapshot));
        settled(&published.unwrap_or_else(PoisonError::into_inner).0.snapshot)
    }

    /// The snapshot of now and all changes after it, without a gap. The queue has
    /// [`Config::subscriber_queue_max`] places; who does not keep up gets [`Change::Resync`].
    pub fn subscribe(&self) -> (Arc<Snapshot>, Receiver<Change>) {
        let mut state = self.shared.lock();
        let (sender, receiver) = sync_channel(state.queue_max.max(1));
        state.subscribers.push(Subscriber { sender, lost: false });
        (Arc::clone(&state.snapshot), receiver)
    }

    /// Says that the host's interfaces changed (netlink shows a new veth): namespaces are looked at
    /// now and again shortly after, instead of at the next interval. Never blocks; cheap to call
    /// for every change, many calls are one look.
    pub fn refresh_hint(&self) {
        self.shared.hint.store(true, Ordering::Release);
        // A full queue means that the thread is awake anyway, and it will see the mark.
        let _ = self.updates.try_send(Update::Hint);
    }
}

impl Drop for Inventory {
    fn drop(&mut self) {
        self.stop.set();
        let _ = self.updates.try_send(Update::Stop);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Updates that may wait for the inventory's thread; engines wait when it is full.
const UPDATES_MAX: usize = 256;
/// Updates taken in one turn.
const UPDATES_PER_TURN_MAX: usize = 1024;
/// Each thread parses JSON of at most 128 levels and little else.
const STACK_BYTES: usize = 512 * 1024;
/// A look that a hint asks for is repeated after these pauses: addresses follow their link.
const SETTLE_AFTER: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(1000)];
/// Under a storm of hints at most a fifth of a core is spent on looking.
const HINTED_PACE: u32 = 4;
/// Without hints at most 1/400.
const REGULAR_PACE: u32 = 400;
/// How soon a subscriber that fell behind is tried again.
const RESYNC_RETRY: Duration = Duration::from_millis(100);

fn configured(config: &Config) -> Vec<(EngineKind, PathBuf)> {
    [
        (EngineKind::Docker, &config.docker),
        (EngineKind::Podman, &config.podman),
        (EngineKind::Containerd, &config.containerd),
        (EngineKind::Cri, &config.cri),
    ]
    .into_iter()
    .flat_map(|(kind, sockets)| sockets.iter().map(move |socket| (kind, socket.clone())))
    .collect()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}

fn settled(snapshot: &Snapshot) -> bool {
    snapshot.revision > 0 && snapshot.engines.iter().all(|engine| engine.state != EngineState::Starting)
}

/// What callers and the inventory's thread share.
#[derive(Default)]
struct Shared {
    state: Mutex<Published>,
    published: Condvar,
    hint: AtomicBool,
}

#[derive(Default)]
struct Published {
    snapshot: Arc<Snapshot>,
    counters: Counters,
    subscribers: Vec<Subscriber>,
    queue_max: usize,
}

struct Subscriber {
    sender: SyncSender<Change>,
    /// Changes were lost and it has not been told yet.
    lost: bool,
}

impl Shared {
    /// Every change under the lock is one assignment; a panic leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Published> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    /// Hands changes to all subscribers; gives how many newly fell behind.
    fn tell(&mut self, changes: &[Change]) -> u64 {
        let mut overflows = 0;
        self.subscribers.retain_mut(|subscriber| {
            if subscriber.lost {
                match subscriber.sender.try_send(Change::Resync) {
                    // The snapshot it takes now has these changes already.
                    Ok(()) => subscriber.lost = false,
                    Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Disconnected(_)) => return false,
                }
                return true;
            }
            for change in changes {
                match subscriber.sender.try_send(change.clone()) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => {
                        subscriber.lost = true;
                        overflows += 1;
                        break;
                    }
                    Err(TrySendError::Disconnected(_)) => return false,
                }
            }
            true
        });
        overflows
    }
}

struct Engine {
    kind: EngineKind,
    socket: PathBuf,
    state: EngineState,
    containers: BTreeMap<String, Container>,
}

struct Core {
    config: Arc<Config>,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    news: Receiver<Update>,
    engines: Vec<Engine>,
    storages: Vec<(PathBuf, Storage)>,
    host: Host,
    /// Of the last look.
    problem: Option<String>,
    counters: Counters,
    clock: Clock,
}

/// When to look at everything.
struct Clock {
    /// The next regular look.
    regular: Instant,
    /// A look that was asked for.
    wanted: Option<Instant>,
    /// Looks to come after a hint.
    settle: [Option<Instant>; SETTLE_AFTER.len()],
    /// Not before: keeps looks that are asked for within their share of a core.
    not_before: Instant,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self { regular: now, wanted: None, settle: [None; SETTLE_AFTER.len()], not_before: now }
    }

    fn want(&mut self, at: Instant) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    fn hint(&mut self, now: Instant) {
        self.want(now);
        self.settle = SETTLE_AFTER.map(|after| Some(now + after));
    }

    fn next(&self) -> Instant {
        let asked = self.settle.iter().flatten().chain(&self.wanted).min().map(|at| (*at).max(self.not_before));
        asked.map_or(self.regular, |asked| asked.min(self.regular))
    }

    fn looked(&mut self, begun: Instant, regular: Duration) {
        let now = Instant::now();
        let took = now - begun;
        self.wanted = None;
        for at in &mut self.settle {
            *at = at.filter(|at| *at > begun);
        }
        self.not_before = now + took * HINTED_PACE;
        if self.regular <= begun {
            self.regular = now + regular.max(took * REGULAR_PACE);
        }
    }
}

impl Core {
    fn run(mut self) {
        loop {
            let mut pids = BTreeSet::new();
            match self.news.recv_timeout(self.patience()) {
                Ok(first) => {
                    self.take(first, &mut pids);
                    for _ in 1..UPDATES_PER_TURN_MAX {
                        match self.news.try_recv() {
                            Ok(update) => self.take(update, &mut pids),
                            Err(_) => break,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.stop.is_set() {
                return;
            }
            let now = Instant::now();
            if self.shared.hint.swap(false, Ordering::AcqRel) {
                self.clock.hint(now);
            }
            if !pids.is_empty()
                && let Err(problem) = self.host.look_at(&pids)
            {
                self.problem = Some(problem);
                self.clock.want(now);
            }
            // What a stopped container leaves behind (its interfaces, Docker's mount of its
            // namespace) goes moments later.
            if self.host.forget_dead() {
                self.clock.hint(now);
            }
            if self.clock.next() <= Instant::now() {
                self.look();
            }
            self.publish();
        }
    }

    fn patience(&self) -> Duration {
        let until = self.clock.next().saturating_duration_since(Instant::now());
        let waiting = self.shared.lock().subscribers.iter().any(|subscriber| subscriber.lost);
        if waiting { until.min(RESYNC_RETRY) } else { until }
    }

    /// Notes what an engine told; `pids` gathers the processes to look at.
    fn take(&mut self, update: Update, pids: &mut BTreeSet<u32>) {
        let now = Instant::now();
        match update {
            Update::State { engine, state } => {
                if let Some(engine) = self.engines.get_mut(engine) {
                    engine.state = state;
                }
            }
            Update::Running { engine, container } => {
                match container.pid {
                    Some(pid) => drop(pids.insert(pid)),
                    // Found by its cgroup, perhaps known already.
                    None => self.clock.want(now),
                }
                if let Some(engine) = self.engines.get_mut(engine) {
                    if engine.containers.len() < CONTAINERS_MAX || engine.containers.contains_key(&container.id) {
                        engine.containers.insert(container.id.clone(), *container);
                    } else {
                        self.counters.listed_beyond_cap += 1;
                    }
                }
            }
            Update::Announced { engine, container } => {
                pids.extend(container.pid);
                // What the engine itself tells of a container that runs is more.
                if let Some(engine) = self.engines.get_mut(engine)
                    && engine.containers.get(&container.id).is_none_or(|known| known.pid != container.pid)
                {
                    if engine.containers.len() < CONTAINERS_MAX || engine.containers.contains_key(&container.id) {
                        engine.containers.insert(container.id.clone(), *container);
                    } else {
                        self.counters.listed_beyond_cap += 1;
                    }
                }
            }
            Update::Process(pid) => drop(pids.insert(pid)),
            Update::Stopped { engine, id } => {
                if let Some(engine) = self.engines.get_mut(engine) {
                    engine.containers.remove(&id);
                }
            }
            Update::Only { engine, ids } => {
                if let Some(engine) = self.engines.get_mut(engine) {
                    engine.containers.retain(|id, _| ids.contains(id));
                }
            }
            Update::Answered => self.counters.engine_answers += 1,
            Update::BeyondCap(count) => self.counters.listed_beyond_cap += count,
            Update::Failed(failure) => {
                self.counters.engine_failures += 1;
                match failure {
                    Failure::Timeout => self.counters.engine_timeouts += 1,
                    Failure::Oversized => self.counters.engine_oversized += 1,
                    Failure::Malformed => self.counters.engine_malformed += 1,
                    Failure::Other => {}
                }
            }
            Update::Hint | Update::Stop => {}
        }
    }

    fn look(&mut self) {
        let begun = Instant::now();
        let depth = if self.clock.regular <= begun { Depth::All } else { Depth::Changed };
        let claimed = self.engines.iter().flat_map(|engine| engine.containers.values().filter_map(|container| container.pid)).collect();
        for (_, storage) in &mut self.storages {
            storage.refresh();
        }
        self.problem = self.host.scan(depth, &claimed).err();
        self.clock.looked(begun, self.config.scan_interval);
        if self.host.any_in_transition() {
            self.clock.want(Instant::now() + TRANSITION);
        }
        self.counters.scans += 1;
        self.counters.scan_micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.unreadable = self.host.unreadable;
        self.counters.scanned_beyond_cap = self.host.beyond_cap;
    }

    fn publish(&mut self) {
        if self.counters.scans == 0 {
            return;
        }
        let resolved = resolve(&self.inputs());
        self.counters.unlocated = resolved.unlocated;
        self.counters.contradicted = resolved.contradicted;
        self.counters.claimed_twice = resolved.claimed_twice;
        self.counters.resolved_beyond_cap = resolved.beyond_cap;
        let engines = self.statuses();

        let mut state = self.shared.lock();
        let before = Arc::clone(&state.snapshot);
        let mut changes = Vec::new();
        if before.revision == 0 || before.workloads != resolved.workloads || before.engines != engines || before.problem != self.problem {
            changes = differences(&before.workloads, &resolved.workloads);
            state.snapshot = Arc::new(Snapshot {
                revision: before.revision + 1,
                workloads: resolved.workloads,
                engines,
                problem: self.problem.clone(),
                counters: self.counters,
            });
            self.shared.published.notify_all();
        }
        self.counters.subscriber_overflows += state.tell(&changes);
        state.counters = self.counters;
        drop(state);
        let unnamed = changes.iter().any(|change| match change {
            Change::Added(workload) => workload.runtime == bulkhead_model::Runtime::Cri && workload.image.is_none(),
            Change::Removed(_) | Change::Changed(_) | Change::Resync => false,
        });
        if unnamed {
            self.stop.nudge();
        }
    }

    fn inputs(&self) -> Inputs {
        let told =
            self.engines.iter().map(|engine| Listing { engine: engine.kind, containers: engine.containers.values().cloned().collect() });
        let stored =
            self.storages.iter().map(|(_, storage)| Listing { engine: EngineKind::PodmanStorage, containers: storage.containers.clone() });
        Inputs {
            host_netns: self.host.host_netns,
            host_links: self.host.links.clone(),
            namespaces: self.host.namespaces().collect(),
            processes: self.host.processes.values().cloned().collect(),
            listings: told.chain(stored).collect(),
        }
    }

    fn statuses(&self) -> Vec<EngineStatus> {
        let told = self.engines.iter().map(|engine| EngineStatus {
            kind: engine.kind,
            socket: engine.socket.clone(),
            state: engine.state.clone(),
            containers: engine.containers.len(),
        });
        let stored = self.storages.iter().map(|(root, storage)| EngineStatus {
            kind: EngineKind::PodmanStorage,
            socket: root.clone(),
            state: storage.state.clone(),
            containers: storage.containers.len(),
        });
        told.chain(stored).collect()
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
