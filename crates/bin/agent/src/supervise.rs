//! Start order, the control loop, and the end. Reads top to bottom as the agent's life.
//!
//! Configuration is parsed whole before anything is opened; rules are compiled before the path is armed; the path is
//! armed before the API says so. The control thread alone changes the kernel; API threads leave their wish and wake it.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_api::{GroupAccess, Server, ServerConfig};
use bulkhead_bpf::layout::cfg_flags;
use bulkhead_bpf::path::{PathMaps, monotonic_ns};
use bulkhead_inventory::{Change as InventoryChange, Inventory};
use bulkhead_model::Mode;
use bulkhead_policy::config::{GuardUnknown, PathKind};
use bulkhead_policy::{Fail, Listen, PolicySnapshot, Segmenter, Workers as WorkerCount};
use bulkhead_store::{EventType, EventTypes, Store, StoreConfig};
use bulkhead_sys::lock::{LockFile, LockedDir};
use bulkhead_sys::netlink::{Change, LinkStats, Monitor, Netlink};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::notify::{self, Notifier};
use bulkhead_sys::poll::{Epoll, EventFd, Interest, Signal, SignalFd, TimerFd};
use bulkhead_sys::{mounts, sched};
use serde_json::json;

use crate::backend::AgentBackend;
use crate::coverage::{self, Device};
use crate::datapath::{self, Datapath};
use crate::engine::{Engine, EngineSettings};
use crate::files::{self, Journal, Loaded};
use crate::hold::{IDLE_MS, Judge, wall_clock};
use crate::nfqueue::QueuePath;
use crate::path::{Place, Wanted, is_container_end};
use crate::record::Recorder;
use crate::registry::{Numbers, Registry};
use crate::rulebook;
use crate::state::{Ending, InForce, Route, State, lock};
use crate::sync::{Inputs, Plan, plan};

/// Below `/sys/fs/bpf`, so that a reboot leaves nothing.
pub const PIN_DIR: &str = "/sys/fs/bpf/bulkhead";
const BPFFS: &str = "/sys/fs/bpf";
/// Full comparison of what is and what should be, whatever events said.
const RESYNC: Duration = Duration::from_secs(10);
const TICK_EVERY: Duration = Duration::from_secs(1);
const TICK_EVERY_MIN: Duration = Duration::from_millis(50);
const STATS_EVERY: Duration = Duration::from_secs(30);

/// How the agent is started.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub config: PathBuf,
    /// Socket, lock and journal; `/run/bulkhead` unless tests say otherwise.
    pub run_dir: PathBuf,
    pub pin_dir: PathBuf,
    /// Overrides the configuration's socket.
    pub socket: Option<PathBuf>,
    /// SIGTERM takes everything down too (a foreground run). Else it leaves the programs for the next agent.
    pub foreground: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            config: PathBuf::from(files::DEFAULT_CONFIG),
            run_dir: PathBuf::from("/run/bulkhead"),
            pin_dir: PathBuf::from(PIN_DIR),
            socket: None,
            foreground: false,
        }
    }
}

/// Why the agent could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator's; exit code 2.
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error("rule files: {0}")]
    Rules(String),
    /// Exit code 3.
    #[error("cannot enforce: {0}")]
    CannotEnforce(String),
    #[error(transparent)]
    Lock(#[from] bulkhead_sys::lock::Error),
    #[error(transparent)]
    Os(#[from] bulkhead_sys::OsError),
    #[error(transparent)]
    Netlink(#[from] bulkhead_sys::netlink::Error),
    #[error(transparent)]
    Store(#[from] bulkhead_store::StoreError),
    #[error(transparent)]
    Server(#[from] bulkhead_api::ServerError),
    #[error("start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    /// 2 usage or configuration, 3 cannot enforce, 4 ours.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Files(_) | Self::Rules(_) => 2,
            Self::CannotEnforce(_) | Self::Lock(_) => 3,
            Self::Os(_) | Self::Netlink(_) | Self::Store(_) | Self::Server(_) | Self::Thread(_) => 4,
        }
    }
}

/// Runs until a signal or the API ends it. `ready` is called once when the path is armed and the API answers.
pub fn run(options: &RunOptions, ready: &mut dyn FnMut(&Path)) -> Result<(), Error> {
    bulkhead_bpf::quiet();
    // Signals are blocked before any thread is made, so that only this one gets them.
    let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate, Signal::HangUp])?;
    let loaded = files::load_config(&options.config)?;
    let _lock = take_lock(&options.run_dir)?;
    let config = &loaded.config;

    let store = Store::open(store_config(&loaded))?;
    let registry = Registry::default();
    let recorder = Recorder { registry: registry.clone(), sender: store.sender() };
    let (ruleset, rules) = rulebook::load(config).map_err(Error::Rules)?;
    let workers = match config.path.workers {
        WorkerCount::Auto => sched::affinity().map_or(1, |cpus| cpus.len()).clamp(1, 16),
        WorkerCount::Count(count) => usize::from(count).max(1),
    };
    let engine = Arc::new(Engine::new(&EngineSettings::of(config), ruleset, workers, registry.clone(), recorder.clone()));
    let wake = EventFd::new()?;
    let mut pins = None;
    let route = open_route(options, &loaded, &engine, (&registry, &recorder), workers, &mut pins)?;
    let kernel_maps = match &route {
        Route::Tcx(path) => Some(Arc::clone(&path.maps)),
        Route::Queue(_) | Route::None { .. } => None,
    };
    engine.set_maps(kernel_maps.clone());
    // The monitor listens before the first listing, so that nothing falls between.
    let monitor = Monitor::open()?;
    let inventory = Inventory::start(inventory_config(&loaded)).map_err(|error| Error::CannotEnforce(error.to_string()))?;
    let started = wall_clock();
    let in_force = InForce {
        snapshot: Arc::new(PolicySnapshot::compile(config, 1)),
        applied: started,
        rules,
        origin: loaded.sources.iter().map(|source| source.name.clone()).collect(),
        loaded,
    };
    let socket = options.socket.clone().unwrap_or_else(|| PathBuf::from(in_force.loaded.config.api.socket.as_str()));
    let metrics = match in_force.loaded.config.api.metrics {
        Listen::At(address) => Some(address),
        Listen::Off => None,
    };
    let group = Some(in_force.loaded.config.api.group.as_str().to_owned());
    let state = Arc::new(State::new(
        options.config.clone(),
        options.run_dir.clone(),
        started,
        registry,
        recorder,
        store,
        inventory,
        engine,
        route,
        in_force,
        wake.try_clone()?,
    ));

    let mut control = Control::new(Arc::clone(&state), monitor)?;
    control.wait_for_inventory();
    control.sync(true);
    let stop = Arc::new(AtomicBool::new(false));
    let helpers = start_helpers(&state, kernel_maps, &stop)?;
    let server = ServerConfig { socket: socket.clone(), group, group_access: GroupAccess::Read, metrics };
    let mut server = Server::start(&server, Arc::new(AgentBackend::new(Arc::clone(&state))))?;
    let notifier = Notifier::from_env()?;
    let armed = control.armed_count();
    // A service manager that does not listen is no reason to end.
    let _ = notifier.ready().and_then(|()| notifier.status(&format!("{armed} interfaces on the path")));
    state.recorder.operation(
        "agent-started",
        format!("bulkhead {} protects {armed} interfaces", env!("CARGO_PKG_VERSION")),
        [("interfaces", json!(armed)), ("pid", json!(std::process::id()))],
    );
    ready(&socket);

    control.run(&signals, &wake, &notifier, options.foreground)?;

    let _ = notifier.stopping();
    let ending = state.ending();
    state.recorder.operation(
        "agent-stopping",
        if ending == Ending::Down { "everything is taken off the host" } else { "programs stay for the next agent" },
        [],
    );
    if ending == Ending::Down {
        // Whoever asked for it by the API is to get the answer.
        thread::sleep(Duration::from_millis(100));
    }
    server.stop();
    stop.store(true, Ordering::Relaxed);
    // They may take half a second to notice. The workers still judge meanwhile: the path ends last.
    for helper in helpers {
        let _ = helper.join();
    }
    control.finish(ending, &options.pin_dir);
    if ending == Ending::Down {
        undo_journal(&options.run_dir);
    }
    state.store.close();
    Ok(())
}

/// What a crashed agent, or one that was told to leave its programs, left on the host: taken away. Returns what was done.
pub fn down(run_dir: &Path, pin_dir: &Path) -> Result<Vec<String>, Error> {
    bulkhead_bpf::quiet();
    let lock_file = take_lock(run_dir)?;
    let pins = LockedDir::acquire(pin_dir)?;
    let mut done = Vec::new();
    let links = bulkhead_bpf::path::clear(pin_dir).map_err(|error| Error::CannotEnforce(error.to_string()))?;
    if links > 0 {
        done.push(format!("{links} program links taken off"));
    }
    let mut netlink = Netlink::open()?;
    let tap_name = datapath::tap_name(pin_dir);
    if let Some(tap) = netlink.link_named(&tap_name)? {
        netlink.delete_link(tap.ifindex)?;
        done.push(format!("interface {tap_name} removed"));
    }
    done.extend(undo_journal(run_dir));
    drop((pins, lock_file));
    let _ = std::fs::remove_file(run_dir.join("agent.lock"));
    let _ = std::fs::remove_dir(run_dir);
    Ok(done)
}

/// One agent per run directory. Another one's pid is in the error.
fn take_lock(run_dir: &Path) -> Result<LockFile, Error> {
    std::fs::create_dir_all(run_dir)?;
    Ok(LockFile::acquire(run_dir.join("agent.lock"))?)
}

fn undo_journal(run_dir: &Path) -> Vec<String> {
    let journal = Journal::read(run_dir);
    let mut done = Vec::new();
    if journal.nfqueue {
        done.extend(crate::nfqueue::remove_chains(journal.made_mangle));
    }
    for (name, value) in &journal.sysctls {
        if bulkhead_sys::sysctl::write(name, value).is_ok() {
            done.push(format!("{name} is {value} again"));
        }
    }
    if let Some(mount) = &journal.mounted_bpffs
        && mounts::unmount(mount).is_ok()
    {
        done.push(format!("{} unmounted", mount.display()));
    }
    let _ = std::fs::remove_file(Journal::path(run_dir));
    done
}

/// fe80::/10: on every interface, names nobody.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn store_config(loaded: &Loaded) -> StoreConfig {
    let events = &loaded.config.events;
    let types = EventTypes::from_iter(events.eve.types.iter().map(|kind| match kind {
        bulkhead_policy::config::EventType::Alert => EventType::Alert,
        bulkhead_policy::config::EventType::Drop => EventType::Drop,
        bulkhead_policy::config::EventType::Flow => EventType::Flow,
        bulkhead_policy::config::EventType::Anomaly => EventType::Anomaly,
        bulkhead_policy::config::EventType::Stats => EventType::Stats,
        bulkhead_policy::config::EventType::Operation => EventType::Operation,
    }));
    StoreConfig {
        log: PathBuf::from(events.eve.path.as_str()),
        log_types: types,
        database: PathBuf::from(events.store.path.as_str()),
        rotate_bytes: events.eve.rotate_size.0,
        archives_max: usize::from(events.eve.rotate_keep),
        database_bytes_max: events.store.size_max.0,
        ..StoreConfig::default()
    }
}

fn inventory_config(loaded: &Loaded) -> bulkhead_inventory::Config {
    let wanted = &loaded.config.inventory;
    let mut config = bulkhead_inventory::Config::default();
    for (engine, sockets) in
        [(&wanted.docker, &mut config.docker), (&wanted.podman, &mut config.podman), (&wanted.containerd, &mut config.containerd)]
    {
        match engine {
            bulkhead_policy::Engine::Auto => {}
            bulkhead_policy::Engine::Off => sockets.clear(),
            bulkhead_policy::Engine::Socket(path) => *sockets = vec![PathBuf::from(path.as_str())],
        }
    }
    if matches!(wanted.podman, bulkhead_policy::Engine::Off) {
        config.podman_storage.clear();
    }
    if matches!(wanted.containerd, bulkhead_policy::Engine::Off) {
        config.cri.clear();
    }
    config
}

/// tcx where the kernel has it, else the netfilter queue, as the configuration allows.
fn open_route(
    options: &RunOptions,
    loaded: &Loaded,
    engine: &Arc<Engine>,
    names: (&Registry, &Recorder),
    workers: usize,
    pins: &mut Option<LockedDir>,
) -> Result<Route, Error> {
    let config = &loaded.config;
    let judge: Arc<dyn Judge> = Arc::clone(engine) as Arc<dyn Judge>;
    let mut journal = Journal::read(&options.run_dir);
    let mut refused = String::new();
    if config.path.kind != PathKind::Nfqueue {
        if options.pin_dir.starts_with(BPFFS) && !mounts::is_bpffs(BPFFS).unwrap_or(false) {
            journal.mounted_bpffs = Some(PathBuf::from(BPFFS));
            journal.write(&options.run_dir)?;
            mounts::mount_bpffs(BPFFS)?;
        }
        // Two agents on the same programs would undo each other, whatever directories they run in.
        if std::fs::create_dir_all(&options.pin_dir).is_ok() {
            *pins = LockedDir::acquire(&options.pin_dir)?;
        }
        journal.pin_dir = Some(options.pin_dir.clone());
        journal.write(&options.run_dir)?;
        let settings = datapath::Options {
            pin_dir: options.pin_dir.clone(),
            mark_shift: config.path.mark_mask.0.trailing_zeros(),
            flows_max: config.inspect.flows_max,
            workers,
            guard: config.path.guard_unknown == GuardUnknown::Drop,
        };
        match Datapath::start(&settings, &judge) {
            Ok(path) => return Ok(Route::Tcx(Box::new(path))),
            Err(error) => refused = error.to_string(),
        }
    }
    if config.path.kind == PathKind::Tcx {
        return Err(Error::CannotEnforce(format!("the kernel refuses tcx: {refused}; `path.kind: auto` falls back to nfqueue")));
    }
    match QueuePath::start(workers, config, &judge, names, &mut journal, &options.run_dir, refused.clone()) {
        Ok(path) => Ok(Route::Queue(Box::new(path))),
        Err(error) => {
            let also = if refused.is_empty() { String::new() } else { format!("; tcx: {refused}") };
            Err(Error::CannotEnforce(format!("nfqueue: {error}{also}")))
        }
    }
}

/// Threads beside the control loop: the kernel's event ring, and the inventory's changes.
fn start_helpers(state: &Arc<State>, maps: Option<Arc<PathMaps>>, stop: &Arc<AtomicBool>) -> Result<Vec<thread::JoinHandle<()>>, Error> {
    let mut helpers = Vec::new();
    if let Some(maps) = maps {
        let recorder = state.recorder.clone();
        let stopping = Arc::clone(stop);
        helpers.push(thread::Builder::new().name("kernel-events".into()).spawn(move || {
            let stop = || stopping.load(Ordering::Relaxed);
            if let Err(error) = maps.follow_events(&stop, &mut |event| recorder.kernel(&event)) {
                recorder.operation("kernel-events-lost", format!("the kernel's event ring cannot be read: {error}"), []);
            }
        })?);
    }
    let (_, changes) = state.inventory.subscribe();
    let changed = Arc::clone(state);
    let stopping = Arc::clone(stop);
    helpers.push(thread::Builder::new().name("inventory-events".into()).spawn(move || {
        while !stopping.load(Ordering::Relaxed) {
            match changes.recv_timeout(Duration::from_millis(500)) {
                Ok(change) => {
                    tell(&changed.recorder, &change);
                    changed.request_sync();
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    })?);
    Ok(helpers)
}

fn tell(recorder: &Recorder, change: &InventoryChange) {
    let (action, workload) = match change {
        InventoryChange::Added(workload) => ("workload-added", workload),
        InventoryChange::Removed(workload) => ("workload-removed", workload),
        InventoryChange::Changed(workload) => ("workload-changed", workload),
        InventoryChange::Resync => return,
    };
    recorder.operation(
        action,
        format!("{} ({})", workload.name, workload.image.as_deref().unwrap_or("no image")),
        [("id", json!(workload.key)), ("pid", json!(workload.pid))],
    );
}

/// The control thread's own state.
struct Control {
    state: Arc<State>,
    monitor: Monitor,
    netlink: Netlink,
    numbers: Numbers,
    segmenter: Segmenter,
    segmenter_revision: u64,
    own_netns: u64,
    /// Gaps already told, by interface.
    told_gaps: HashMap<String, u64>,
    last_sync: Instant,
    last_stats: Instant,
    last_coverage: Instant,
    requested_seen: u64,
    cfg: (u64, u32, u32),
    reload: Reload,
}

/// Reading and compiling a large set takes seconds, in which interfaces still come and go: another thread does it.
#[derive(Debug, Default)]
struct Reload {
    running: Option<thread::JoinHandle<String>>,
    /// Asked for while one was running: files may have changed since it read them.
    again: bool,
}

impl Control {
    fn new(state: Arc<State>, monitor: Monitor) -> Result<Self, Error> {
        let snapshot = Arc::clone(&state.in_force().snapshot);
        Ok(Self {
            monitor,
            netlink: Netlink::open()?,
            numbers: Numbers::default(),
            segmenter: Segmenter::new(&snapshot),
            segmenter_revision: snapshot.revision(),
            own_netns: Netns::current()?.inode(),
            told_gaps: HashMap::new(),
            last_sync: Instant::now(),
            last_stats: Instant::now(),
            last_coverage: Instant::now(),
            requested_seen: 0,
            cfg: (0, 0, 0),
            reload: Reload::default(),
            state,
        })
    }

    /// The first look of the inventory, for at most as long as a hung engine may take.
    fn wait_for_inventory(&self) {
        let _ = self.state.inventory.wait_settled(Duration::from_millis(1500));
    }

    fn armed_count(&self) -> usize {
        match &*lock(&self.state.route) {
            Route::Tcx(path) => path.path.armed().count(),
            Route::Queue(path) => path.interfaces(),
            Route::None { .. } => 0,
        }
    }

    fn run(&mut self, signals: &SignalFd, wake: &EventFd, notifier: &Notifier, foreground: bool) -> Result<(), Error> {
        let at_terminal = std::io::stdin().is_terminal();
        const SIGNAL: u64 = 1;
        const WAKE: u64 = 2;
        const LINKS: u64 = 3;
        const TICK: u64 = 4;
        let _ = self.state.control.set(thread::current().id());
        let epoll = Epoll::new()?;
        let watchdog = notify::watchdog_interval();
        // At least twice in the interval, so that no ping is late for a tick.
        let timer = TimerFd::every(watchdog.map_or(TICK_EVERY, |interval| (interval / 2).clamp(TICK_EVERY_MIN, TICK_EVERY)))?;
        epoll.add(signals, SIGNAL, Interest::Read)?;
        epoll.add(wake, WAKE, Interest::Read)?;
        epoll.add(&self.monitor, LINKS, Interest::Read)?;
        epoll.add(&timer, TICK, Interest::Read)?;
        let mut last_watchdog = Instant::now();
        let mut events = Vec::new();
        while self.state.ending() == Ending::Run {
            events.clear();
            epoll.wait(&mut events, None)?;
            for event in &events {
                match event.token {
                    SIGNAL => match signals.read()? {
                        // The terminal that it was started at is gone, and with it who would press Ctrl-C.
                        Some(Signal::HangUp) if at_terminal && !std::io::stdin().is_terminal() => self.state.end(Ending::Down),
                        Some(Signal::HangUp) => self.reload(notifier),
                        Some(Signal::Interrupt) => self.state.end(Ending::Down),
                        Some(_) => self.state.end(if foreground { Ending::Down } else { Ending::Leave }),
                        None => {}
                    },
                    WAKE => {
                        let _ = wake.drain()?;
                    }
                    LINKS => self.links_changed()?,
                    _ => {
                        let _ = timer.drain()?;
                        self.tick();
                    }
                }
            }
            self.reloaded(notifier);
            self.carry_out();
            if let Some(interval) = watchdog
                // A tick early rather than one late: the service manager waits twice the interval.
                && last_watchdog.elapsed() * 2 >= interval
                && self.healthy()
            {
                last_watchdog = Instant::now();
                let _ = notifier.watchdog();
            }
        }
        Ok(())
    }

    /// Are all workers alive and answering? systemd restarts an agent that stops saying so.
    fn healthy(&self) -> bool {
        match &*lock(&self.state.route) {
            Route::Tcx(path) => {
                path.workers.alive()
                    && (0..path.workers.count()).all(|queue| {
                        let beat = path.maps.shared.heartbeat(queue).load(Ordering::Relaxed);
                        monotonic_ns().saturating_sub(beat) < 50 * IDLE_MS * 1_000_000
                    })
            }
            Route::Queue(path) => path.alive() && path.heartbeat_age_ns() < 50 * IDLE_MS * 1_000_000,
            Route::None { .. } => false,
        }
    }

    /// What API threads have asked for since the last time.
    fn carry_out(&mut self) {
        let requested = self.state.requested.load(Ordering::Relaxed);
        if requested != self.requested_seen {
            self.requested_seen = requested;
            self.sync(false);
            self.state.carried_out.store(requested, Ordering::Release);
        }
    }

    fn reload(&mut self, notifier: &Notifier) {
        if self.reload.running.is_some() {
            self.reload.again = true;
            return;
        }
        let _ = notifier.reloading();
        let _ = self.state.store.reopen();
        let state = Arc::clone(&self.state);
        let work = move || {
            let told = match crate::backend::reload(&state) {
                Ok(reloaded) => format!("policy revision {} in force", reloaded.policy_revision),
                Err(error) => {
                    let told = format!("reload refused, the running policy stays: {}", error.message);
                    state.recorder.operation("reload-refused", error.message, []);
                    told
                }
            };
            let _ = state.wake.signal();
            told
        };
        match thread::Builder::new().name("reload".to_owned()).spawn(work) {
            Ok(running) => self.reload.running = Some(running),
            Err(error) => {
                self.state.recorder.operation("reload-refused", format!("no thread for it: {error}"), []);
                let _ = notifier.ready();
            }
        }
    }

    /// What a reload that has ended came to.
    fn reloaded(&mut self, notifier: &Notifier) {
        let Some(running) = self.reload.running.take_if(|running| running.is_finished()) else { return };
        let told = running.join().unwrap_or_else(|_| "the reload ended early; the running policy stays".to_owned());
        self.carry_out();
        let _ = notifier.ready().and_then(|()| notifier.status(&told));
        if std::mem::take(&mut self.reload.again) {
            self.reload(notifier);
        }
    }

    /// Interfaces come and go. New container ends are armed before anything else is done.
    fn links_changed(&mut self) -> Result<(), Error> {
        let mut changes = Vec::new();
        self.monitor.read(&mut changes)?;
        let mut resync = false;
        for change in changes {
            match change {
                Change::Link(link) => {
                    if is_container_end(&link) {
                        let route = lock(&self.state.route);
                        let known = match &*route {
                            Route::Tcx(path) => path.path.is_armed(&Place::Host { ifindex: link.ifindex }),
                            Route::Queue(path) => path.knows(link.ifindex),
                            Route::None { .. } => true,
                        };
                        if !known {
                            drop(route);
                            resync = true;
                            self.state.inventory.refresh_hint();
                        }
                    }
                }
                Change::LinkGone(link) => {
                    let place = Place::Host { ifindex: link.ifindex };
                    let mut route = lock(&self.state.route);
                    if let Route::Tcx(path) = &mut *route
                        && path.path.is_armed(&place)
                    {
                        path.disarm(&place);
                    }
                }
                Change::Address(_) | Change::AddressGone(_) | Change::Resync => resync = true,
            }
        }
        if resync {
            self.sync(false);
        }
        Ok(())
    }

    fn tick(&mut self) {
        if self.last_sync.elapsed() >= RESYNC {
            self.sync(false);
        }
        let interval = self.state.in_force().loaded.config.coverage.interval;
        if self.last_coverage.elapsed() >= interval {
            self.last_coverage = Instant::now();
            self.check_coverage();
        }
        if self.last_stats.elapsed() >= STATS_EVERY {
            self.last_stats = Instant::now();
            crate::backend::send_stats(&self.state);
        }
    }

    /// Brings the kernel to what inventory and policy say. `first`: interfaces that are there already carry a past.
    fn sync(&mut self, first: bool) {
        self.last_sync = Instant::now();
        let in_force = self.state.in_force();
        if in_force.snapshot.revision() != self.segmenter_revision {
            self.segmenter = Segmenter::new(&in_force.snapshot);
            self.segmenter_revision = in_force.snapshot.revision();
        }
        let (Ok(links), Ok(host_addresses)) = (self.netlink.links(), self.netlink.addresses()) else {
            *lock(&self.state.problems) = vec!["the kernel does not list interfaces".into()];
            return;
        };
        let inventory = self.state.inventory.snapshot();
        let made = plan(
            &Inputs {
                workloads: &inventory.workloads,
                links: &links,
                host_addresses: &host_addresses,
                policy: &in_force.snapshot,
                interfaces: &in_force.loaded.config.path.interfaces,
                default_mode: in_force.loaded.config.mode,
                own_netns: self.own_netns,
            },
            &mut self.segmenter,
            &mut self.numbers,
        );
        let state = Arc::clone(&self.state);
        let mut route = lock(&state.route);
        let unarmed = match &mut *route {
            Route::Tcx(path) => self.apply(path, made, first, &in_force),
            Route::Queue(path) => {
                let mut made = made;
                path.apply(&mut made, &in_force.loaded.config);
                *self.state.problems.lock().unwrap_or_else(PoisonError::into_inner) = made.problems;
                self.state.registry.swap(made.directory);
                path.begin();
                // It has no hook inside a container.
                made.wanted
                    .iter()
                    .filter(|wanted| matches!(wanted.place, Place::Inside { .. }))
                    .map(|wanted| format!("{}: the fallback path does not see what has no end on the host", wanted.name))
                    .collect()
            }
            Route::None { .. } => Vec::new(),
        };
        drop(route);
        *lock(&self.state.unarmed) = unarmed;
    }

    fn apply(&mut self, path: &mut Datapath, made: Plan, first: bool, in_force: &InForce) -> Vec<String> {
        let mut unarmed = Vec::new();
        let mut directory = made.directory;
        let config = &in_force.loaded.config;
        let wanted_places: Vec<Place> = made.wanted.iter().map(|wanted| wanted.place.clone()).collect();

        // Addresses before interfaces: a packet's source must be known when its interface begins to judge it.
        let mut changed = path.path.set_addresses(&made.addresses).unwrap_or(false);
        changed |= path.path.set_segments(made.segments).unwrap_or(false);
        if changed {
            path.path.next_generation();
        }
        self.write_cfg(path, made.segment_deny, config);

        for wanted in made.wanted {
            let name = wanted.name.clone();
            let known = path.path.is_armed(&wanted.place);
            let armed = match &wanted.place {
                Place::Host { ifindex } => {
                    let result = path.path.arm(wanted.clone()).map(|_| ()).map_err(|error| error.to_string());
                    if !known && let Ok(Some(link)) = self.netlink.link(*ifindex) {
                        // An interface that was there before the agent has a past. One that is new has none: what its container
                        // sent before it was armed is a gap. What the host itself sent towards it meanwhile (neighbour
                        // discovery) is no container's traffic.
                        let rx_bytes = if first { link.stats.rx_bytes } else { 0 };
                        path.path.set_baseline(&wanted.place, LinkStats { rx_bytes, ..link.stats });
                    }
                    result
                }
                Place::Inside { netns, .. } => arm_inside(path, &wanted, *netns),
            };
            match armed {
                Ok(()) if !known => self.state.recorder.operation(
                    "interface-armed",
                    format!("{name} of {}", directory.name(bulkhead_model::WorkloadId(wanted.workload))),
                    [("interface", json!(name))],
                ),
                Ok(()) => {}
                Err(reason) => unarmed.push(format!("{name}: {reason}")),
            }
        }
        let gone: Vec<Place> =
            path.path.armed().map(|armed| armed.wanted.place.clone()).filter(|place| !wanted_places.contains(place)).collect();
        for place in gone {
            path.disarm(&place);
        }
        if first {
            path.path.drop_stale_pins();
        }
        for armed in path.path.armed() {
            directory.ports.insert(armed.number, bulkhead_model::WorkloadId(armed.wanted.workload));
            directory.port_names.insert(armed.number, armed.wanted.name.clone());
        }
        if let Some(guard) = path.guard() {
            let watched = guard.watched();
            for bridge in &made.bridges {
                if !watched.contains(bridge) {
                    let _ = guard.watch(*bridge);
                }
            }
            for bridge in watched {
                if !made.bridges.contains(&bridge) {
                    guard.unwatch(bridge);
                }
            }
        }
        let mut problems = made.problems;
        if let Some(missing) = &path.guard_missing {
            problems.push(format!("packets of interfaces that are not armed yet are not stopped: {missing}"));
        }
        *self.state.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        self.state.registry.swap(directory);
        unarmed
    }

    fn write_cfg(&mut self, path: &Datapath, segment_deny: bool, config: &bulkhead_policy::Config) {
        let mut flags = 0;
        if segment_deny {
            flags |= cfg_flags::SEGMENT_DENY;
        }
        if path.guard().is_some() {
            flags |= cfg_flags::GUARD;
            if config.fail == Fail::Closed && config.mode == Mode::Protect {
                flags |= cfg_flags::GUARD_CLOSED;
            }
        }
        if self.state.engine.wants_control_packets() {
            flags |= cfg_flags::HOLD_SYN;
        }
        let fail_after = config.fail_after.as_nanos() as u64;
        let next = (fail_after, flags, path.path.generation());
        if next != self.cfg {
            self.cfg = next;
            path.maps.shared.set(fail_after, flags, path.workers.count() as u32, path.path.generation());
        }
    }

    fn check_coverage(&mut self) {
        let Some((report, _)) = coverage_now(&self.state) else { return };
        let alarm = self.state.in_force().loaded.config.coverage.alarm_bytes.0;
        for interface in &report.interfaces {
            let told = self.told_gaps.get(&interface.interface).copied().unwrap_or(0);
            if interface.gap_bytes > told && interface.gap_bytes - told > alarm {
                self.told_gaps.insert(interface.interface.clone(), interface.gap_bytes);
                self.state.recorder.operation(
                    "coverage-gap",
                    format!("{} of {} carried {} bytes that nobody judged", interface.interface, interface.workload, interface.gap_bytes),
                    [
                        ("interface", json!(interface.interface)),
                        ("kernel_bytes", json!(interface.kernel_bytes)),
                        ("seen_bytes", json!(interface.seen_bytes)),
                    ],
                );
            }
        }
    }

    /// Ends the path: leaves it to fail by policy, or takes it off the host.
    fn finish(&mut self, ending: Ending, pin_dir: &Path) {
        let route = std::mem::replace(&mut *lock(&self.state.route), Route::None { reason: "the agent is ending".into() });
        match (route, ending) {
            (Route::Tcx(path), Ending::Down) => {
                if let Err(error) = path.down(pin_dir) {
                    self.state.recorder.operation("down-incomplete", error.to_string(), []);
                }
            }
            (Route::Tcx(path), Ending::Leave | Ending::Run) => path.leave(),
            (Route::Queue(path), Ending::Down) => _ = path.down(Journal::read(&self.state.run_dir).made_mangle),
            (Route::Queue(path), Ending::Leave | Ending::Run) => path.leave(),
            (Route::None { .. }, _) => {}
        }
    }
}

/// The report, with the devices it was made from.
pub fn coverage_now(state: &State) -> Option<(bulkhead_api::Coverage, Vec<Device>)> {
    // Devices are read before and after the rows: what flows meanwhile must not look like a gap.
    let directory = state.registry.current();
    let route = lock(&state.route);
    match &*route {
        Route::Tcx(path) => {
            let mut netlink = Netlink::open().ok()?;
            let links: HashMap<u32, bulkhead_sys::netlink::Link> =
                netlink.links().ok()?.into_iter().map(|link| (link.ifindex, link)).collect();
            let rows = path.maps.pairs();
            let devices: Vec<Device> = path
                .path
                .armed()
                .map(|armed| {
                    let (now, inside) = match armed.wanted.place {
                        Place::Host { ifindex } => (links.get(&ifindex).map(|link| link.stats), false),
                        Place::Inside { .. } => (None, true),
                    };
                    Device {
                        number: armed.number,
                        name: armed.wanted.name.clone(),
                        inside,
                        workload: bulkhead_model::WorkloadId(armed.wanted.workload),
                        bridge: armed.wanted.bridge.and_then(|bridge| links.get(&bridge)).map(|link| link.name.clone()),
                        now,
                        baseline: armed.wanted.baseline.unwrap_or_default(),
                    }
                })
                .collect();
            Some((coverage::coverage(&directory, &rows, &devices), devices))
        }
        Route::Queue(path) => Some((path.coverage(&directory), Vec::new())),
        Route::None { .. } => None,
    }
}

/// By its first process, or by whatever else holds it when that has ended or never was.
fn open_namespace(pid: u32, inode: u64) -> Option<Netns> {
    if pid != 0
        && let Ok(place) = Netns::open_pid(pid)
        && place.inode() == inode
    {
        return Some(place);
    }
    let listing = bulkhead_sys::netns::list().ok()?;
    listing.namespaces.iter().find(|listed| listed.inode == inode)?.open().ok()
}

fn arm_inside(path: &mut Datapath, wanted: &Wanted, netns: u64) -> Result<(), String> {
    let place = open_namespace(wanted.pid, netns).ok_or("its namespace cannot be opened")?;
    path.arm_inside(wanted.clone(), place).map_err(|error| error.to_string())
}
