//! The fallback path for kernels without tcx: netfilter queues, one worker for each.
//!
//! The rules (`queue_rules.rs`) stand in chains of our own in the mangle table, jumped to from FORWARD, INPUT and OUTPUT for
//! the bridges and interfaces of containers. Bridged frames come there through br_netfilter, which is switched on (and back)
//! with its filters for tagged frames. A worker has two queues: what waits in one passes when there is no room or nobody
//! reads, what waits in the other is dropped. Segments are asked here (`segments.rs`), then the engine; verdicts that outlive
//! their packet become the connection's mark.
//!
//! Weaker than tcx, and said so by `status`: frames of other protocols than IP and traffic that never leaves a namespace's
//! macvlan parent are not seen; bridged traffic only through br_netfilter; and without an agent segments are not asked.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bulkhead_api::{Coverage, InterfaceCoverage, PairCoverage, PathFamily, PathKind};
use bulkhead_bpf::layout::{AddrValue, Command};
use bulkhead_bpf::path::monotonic_ns;
use bulkhead_model::event::Dropped;
use bulkhead_model::{Event, EventBody, Mode, Timestamp, Verdict, WorkloadId};
use bulkhead_policy::{Config, Fail};
use bulkhead_sys::iptables::{self, Family};
use bulkhead_sys::netlink::{LinkStats, Netlink};
use bulkhead_sys::nfqueue::{Batch, Decision, Packet, Queue, QueueConfig, Verdict as QueueVerdict, kernel_counters};
use bulkhead_sys::poll::{Epoll, Interest};
use bulkhead_sys::rawip::RawIp;
use bulkhead_sys::sysctl;

use crate::files::Journal;
use crate::frame::{self, Glance, glance_ip};
use crate::hold::{Held, IDLE_MS, Judge, Link, command, wall_clock};
use crate::path::Place;
use crate::queue_rules::{self, Counts, Inputs, Port, QUEUE_FIRST, mark};
use crate::record::{Recorder, blank, protocol_name, segment_name};
use crate::registry::{Directory, Registry};
use crate::segments::{Answer, SegmentFlows, SegmentTable};
use crate::state::lock;
use crate::sync::Plan;

/// Bridged packets meet iptables only with these at 1.
const SYSCTLS: [&str; 3] =
    ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-filter-vlan-tagged"];
/// Packets that may wait in one queue for their verdict.
pub const QUEUE_PACKETS_MAX: u32 = 4096;
/// Rows of the coverage table; more are counted under one name.
const PAIRS_MAX: usize = 16_384;
/// Interfaces told apart; of more, who sent is known by address.
const PORTS_MAX: usize = 4095;
/// The heartbeat's list is written so often at most.
const BEAT_EVERY_NS: u64 = 100_000_000;
/// Rules that somebody has taken away are put back after so long at the latest, and a sync.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long packets that wait may take to be judged when the agent ends.
const DRAIN: Duration = Duration::from_secs(1);
/// Ethernet header, which devices count and rules do not see.
const LINK_BYTES: u64 = 14;
/// Bytes of an interface that rules never see, on top of one in a hundred: ARP, multicast that a bridge keeps to itself, the
/// headers of fragments that conntrack has put together.
const UNSEEN_BYTES_MAX: u64 = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("bind queues {QUEUE_FIRST} and up: {0}")]
    Queue(#[from] bulkhead_sys::netlink::Error),
    #[error(transparent)]
    Iptables(#[from] iptables::Error),
    #[error(transparent)]
    Os(#[from] bulkhead_sys::OsError),
    #[error(transparent)]
    Journal(#[from] crate::files::Error),
    #[error("start a worker: {0}")]
    Thread(#[from] std::io::Error),
}

/// What was judged between two places.
#[derive(Debug, Default, Clone, Copy)]
struct Bytes {
    packets: u64,
    inspected: u64,
    rule: u64,
    segment: u64,
}

/// Counters of all workers.
#[derive(Debug, Default)]
struct Stats {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// Superpackets that came whole.
    gso: AtomicU64,
    dropped: AtomicU64,
    segment_denied: AtomicU64,
    injected: AtomicU64,
    inject_failed: AtomicU64,
    panics: AtomicU64,
    overflows: AtomicU64,
    malformed: AtomicU64,
    segment_flows_emptied: AtomicU64,
}

/// An interface of a container as the workers know it.
#[derive(Debug, Clone)]
struct Known {
    number: u16,
    name: String,
    workload: u32,
    class: u32,
    bridge: Option<u32>,
    /// Its device's counters when the rules began to count it, and what they had counted then.
    baseline: LinkStats,
    seen_before: u64,
}

/// What the workers go by; swapped whole.
#[derive(Debug, Default)]
struct View {
    by_ifindex: HashMap<u32, Known>,
    addresses: BTreeMap<IpAddr, AddrValue>,
    segments: SegmentTable,
    generation: u64,
}

impl View {
    fn sender(&self, packet: &Packet<'_>) -> Option<&Known> {
        self.by_ifindex.get(&packet.physindev.or(packet.indev)?)
    }

    fn receiver(&self, packet: &Packet<'_>) -> Option<&Known> {
        self.by_ifindex.get(&packet.physoutdev.or(packet.outdev)?)
    }

    /// Workload and class behind an address.
    fn at(&self, address: IpAddr) -> (u32, u32) {
        self.addresses.get(&address).map_or((WorkloadId::WORLD.0, WorkloadId::WORLD.0), |value| (value.workload, value.class_id))
    }
}

/// Shared by workers and the control thread.
struct Shared {
    view: Mutex<Arc<View>>,
    pairs: Mutex<BTreeMap<(u32, u32, u8), Bytes>>,
    stats: Stats,
    /// The rules and the workloads are known. Before, packets wait: nobody is judged without a policy.
    ready: AtomicBool,
    /// Nothing new is to be queued; what waits is judged.
    leaving: AtomicBool,
    stop: AtomicBool,
    beats: Vec<AtomicU64>,
    fail_after_ns: AtomicU64,
    mark_shift: u32,
}

pub struct QueuePath {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    queues: u16,
    rules: Mutex<Rules>,
    /// The kernel has the match that looks at the heartbeat.
    heartbeat: bool,
    /// Why tcx was not taken, where it was tried.
    instead: String,
}

/// What stands in netfilter.
#[derive(Default)]
struct Rules {
    inputs: Option<Inputs>,
    generation: u64,
    forget: bool,
    numbers: BTreeMap<u32, u16>,
    /// Of chains that are gone.
    counted: Counts,
    /// When it was last seen that they stand.
    looked: Option<Instant>,
    problem: Option<String>,
}

impl QueuePath {
    /// Binds the queues and starts the workers, who wait until [`Self::apply`] has told them the policy.
    pub fn start(
        workers: usize,
        config: &Config,
        judge: &Arc<dyn Judge>,
        (registry, recorder): (&Registry, &Recorder),
        journal: &mut Journal,
        run_dir: &Path,
        instead: String,
    ) -> Result<Self, Error> {
        if !journal.nfqueue {
            // Asked for the table alone, iptables shows one that is not there.
            let there = |family| iptables::save(family, None, None).is_ok_and(|text| text.contains("*mangle"));
            journal.made_mangle = !there(Family::V4) && !there(Family::V6);
        }
        journal.nfqueue = true;
        for name in SYSCTLS {
            if let Ok(value) = sysctl::read(name)
                && value.trim() != "1"
            {
                journal.sysctls.entry(name.to_owned()).or_insert_with(|| value.trim().to_owned());
            }
        }
        journal.write(run_dir)?;
        for name in SYSCTLS {
            // Without br_netfilter there is nothing to set, and bridged traffic is not seen: `status` says so.
            let _ = sysctl::write(name, "1");
        }
        let queues = workers.clamp(1, 64) as u16;
        let settings = |fail_open| QueueConfig { fail_open, packets_max: QUEUE_PACKETS_MAX, ..QueueConfig::default() };
        let open = Queue::open_range(QUEUE_FIRST, queues, &settings(true))?;
        let closed = Queue::open_range(QUEUE_FIRST + queues, queues, &settings(false))?;
        let mark_shift = config.path.mark_mask.0.trailing_zeros();
        let now = monotonic_ns();
        let shared = Arc::new(Shared {
            view: Mutex::default(),
            pairs: Mutex::default(),
            stats: Stats::default(),
            ready: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            beats: (0..queues).map(|_| AtomicU64::new(now)).collect(),
            fail_after_ns: AtomicU64::new(config.fail_after.as_nanos() as u64),
            mark_shift,
        });
        let own = mark::OWN << mark_shift;
        let mut threads = Vec::new();
        for (index, (open, closed)) in open.into_iter().zip(closed).enumerate() {
            let worker = Worker {
                index,
                queues: [open, closed],
                judge: Arc::clone(judge),
                shared: Arc::clone(&shared),
                registry: registry.clone(),
                recorder: recorder.clone(),
                flows: SegmentFlows::default(),
                raw: [RawIp::open(false, own).ok(), RawIp::open(true, own).ok()],
                rejected: Vec::new(),
            };
            threads.push(thread::Builder::new().name(format!("queue-{index}")).spawn(move || worker.run())?);
        }
        let heartbeat = knows_recent();
        Ok(Self { shared, threads, queues, rules: Mutex::default(), heartbeat, instead })
    }

    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Nanoseconds since the worker that has been silent for longest was heard of.
    pub fn heartbeat_age_ns(&self) -> u64 {
        let now = monotonic_ns();
        self.shared.beats.iter().map(|beat| now.saturating_sub(beat.load(Ordering::Relaxed))).max().unwrap_or(0)
    }

    /// Is this interface known to the rules?
    pub fn knows(&self, ifindex: u32) -> bool {
        lock(&self.shared.view).by_ifindex.contains_key(&ifindex)
    }

    /// Workloads whose interfaces the rules name.
    pub fn workloads(&self) -> Vec<u32> {
        lock(&self.shared.view).by_ifindex.values().map(|known| known.workload).collect()
    }

    pub fn interfaces(&self) -> usize {
        lock(&self.shared.view).by_ifindex.len()
    }

    /// `(waiting, most that may wait, lost for want of room)`.
    pub fn held(&self) -> (u64, u64, u64) {
        let (waiting, lost) = self.waiting();
        (waiting, u64::from(QUEUE_PACKETS_MAX) * 2 * u64::from(self.queues), lost)
    }

    /// Flows that were let go come back to be judged: other rules are in force.
    pub fn forget_bypassed(&self) {
        lock(&self.rules).forget = true;
    }

    /// What is in the way of doing all of it.
    pub fn problems(&self) -> Vec<String> {
        let mut out = vec!["the fallback path is in use: only IP is seen, and no macvlan or ipvlan".to_owned()];
        if !self.instead.is_empty() {
            out.push(format!("tcx could not be used: {}", self.instead));
        }
        if !br_netfilter() {
            out.push("br_netfilter is off: traffic within one bridge is not seen".into());
        }
        if !self.heartbeat {
            out.push("the kernel has no `recent` match: a hung agent holds packets until it is killed".into());
        }
        out.extend(lock(&self.rules).problem.clone());
        out
    }

    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let stats = &self.shared.stats;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("packets", read(&stats.packets)),
            ("bytes", read(&stats.bytes)),
            ("gso", read(&stats.gso)),
            ("dropped", read(&stats.dropped)),
            ("segment_denied", read(&stats.segment_denied)),
            ("injected", read(&stats.injected)),
            ("inject_failed", read(&stats.inject_failed)),
            ("panics", read(&stats.panics)),
            ("overflows", read(&stats.overflows)),
            ("malformed", read(&stats.malformed)),
            ("segment_flows_emptied", read(&stats.segment_flows_emptied)),
        ]
    }

    /// Rules, segments and identities of this plan; fills in the plan's port numbers.
    pub fn apply(&self, plan: &mut Plan, config: &Config) {
        let mut rules = lock(&self.rules);
        self.shared.fail_after_ns.store(config.fail_after.as_nanos() as u64, Ordering::Relaxed);
        let before = Arc::clone(&lock(&self.shared.view));
        let segments = SegmentTable { pairs: plan.segments.clone(), deny: plan.segment_deny };
        let changed = before.segments != segments || before.addresses != plan.addresses;
        if changed || std::mem::take(&mut rules.forget) {
            rules.generation += 1;
        }
        let inputs = self.inputs(plan, config, &rules);
        let changed = rules.inputs.as_ref() != Some(&inputs);
        // Somebody may have emptied the table; and what failed may work now.
        let fresh = changed || rules.problem.is_some() || !self.stand(&mut rules);
        if fresh {
            self.put(&mut rules, inputs);
        }
        let view = View {
            by_ifindex: self.known(plan, &mut rules, &before, fresh),
            addresses: plan.addresses.clone(),
            segments,
            generation: rules.generation,
        };
        for known in view.by_ifindex.values() {
            plan.directory.ports.insert(known.number, WorkloadId(known.workload));
            plan.directory.port_names.insert(known.number, known.name.clone());
        }
        *lock(&self.shared.view) = Arc::new(view);
    }

    /// The directory that [`Self::apply`] completed is in force: judging may begin.
    pub fn begin(&self) {
        self.shared.ready.store(true, Ordering::Release);
    }

    fn inputs(&self, plan: &Plan, config: &Config, rules: &Rules) -> Inputs {
        let places = || plan.wanted.iter().filter(|wanted| matches!(wanted.place, Place::Host { .. }));
        let mut interfaces: Vec<String> = plan.bridge_names.values().cloned().collect();
        interfaces.extend(places().filter(|wanted| wanted.bridge.is_none()).map(|wanted| wanted.name.clone()));
        interfaces.sort();
        interfaces.dedup();
        let mut ports: Vec<Port> = places()
            .map(|wanted| Port { name: wanted.name.clone(), bridged: wanted.bridge.is_some(), closed: wanted.fail_closed })
            .collect();
        ports.sort();
        let closed: BTreeMap<u32, bool> = plan.wanted.iter().map(|wanted| (wanted.workload, wanted.fail_closed)).collect();
        let addresses = plan.addresses.iter().filter_map(|(address, value)| Some((*address, *closed.get(&value.workload)?))).collect();
        Inputs {
            interfaces,
            ports,
            addresses,
            default_closed: config.fail == Fail::Closed && config.mode == Mode::Protect,
            queues: self.queues,
            mark_shift: self.shared.mark_shift,
            generation: rules.generation,
            fail_seconds: self.heartbeat.then(|| config.fail_after.as_millis().div_ceil(1000).max(1) as u64),
            set: 0,
        }
    }

    /// Do the rules stand where they were put? Looked at so often only as a look is cheap beside it.
    fn stand(&self, rules: &mut Rules) -> bool {
        if rules.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return true;
        }
        rules.looked = Some(Instant::now());
        Family::BOTH.into_iter().all(|family| {
            // What cannot be read is not known to be gone.
            iptables::save(family, Some("mangle"), None).map_or(true, |saved| queue_rules::stand(&saved))
        })
    }

    /// Puts new chains in the place of the ones before, in one step for each family.
    fn put(&self, rules: &mut Rules, inputs: Inputs) {
        rules.problem = None;
        for family in Family::BOTH {
            let saved = match iptables::save(family, Some("mangle"), None) {
                Ok(saved) => saved,
                // A host without IPv6 has none to save.
                Err(error) => {
                    rules.problem = Some(format!("the rules of {family:?} cannot be read: {error}"));
                    continue;
                }
            };
            let old = [0u8, 1].into_iter().find(|set| saved.contains(&format!(":{}-Q{set} ", queue_rules::CHAIN)));
            let set = old.map_or(0, |old| 1 - old);
            let text = queue_rules::text(family, &Inputs { set, ..inputs.clone() });
            if let Err(error) = iptables::restore(family, &text, None) {
                rules.problem = Some(format!("rules of {family:?} are not in place: {error}"));
                continue;
            }
            if let Some(jumps) = queue_rules::missing_jumps(&saved)
                && let Err(error) = iptables::restore(family, &jumps, None)
            {
                rules.problem = Some(format!("nothing leads to the rules of {family:?}: {error}"));
            }
            if let Some(old) = old {
                // Nobody goes there any more: its counters stand still. Those of an agent before this one are not ours.
                if rules.inputs.is_some()
                    && let Ok(saved) = iptables::save_counted(family, "mangle", None)
                {
                    queue_rules::add_counts(&saved, old, &mut rules.counted);
                }
                let _ = iptables::restore(family, &queue_rules::without_set(old), None);
            }
        }
        rules.inputs = Some(inputs);
        rules.looked = Some(Instant::now());
    }

    /// The plan's interfaces with numbers, and from where on they are counted.
    fn known(&self, plan: &Plan, rules: &mut Rules, before: &View, fresh: bool) -> HashMap<u32, Known> {
        let mut links = None;
        let mut counts = None;
        let mut out = HashMap::new();
        for wanted in plan.wanted.iter().take(PORTS_MAX) {
            let Place::Host { ifindex } = wanted.place else { continue };
            let (number, baseline, seen_before) = match before.by_ifindex.get(&ifindex) {
                Some(known) if known.name == wanted.name => (known.number, known.baseline, known.seen_before),
                _ => {
                    let number = free_number(&rules.numbers);
                    rules.numbers.insert(ifindex, number);
                    // The rules count it already: what comes between is seen, and not missing.
                    let counts = counts.get_or_insert_with(|| if fresh { self.counts(rules) } else { rules.counted.clone() });
                    let links = links.get_or_insert_with(|| Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default());
                    let stats = links.iter().find(|link| link.ifindex == ifindex).map(|link| link.stats).unwrap_or_default();
                    (number, stats, counts.get(&format!("in:{}", wanted.name)).map_or(0, |(_, bytes)| *bytes))
                }
            };
            out.insert(
                ifindex,
                Known {
                    number,
                    name: wanted.name.clone(),
                    workload: wanted.workload,
                    class: wanted.class,
                    bridge: wanted.bridge,
                    baseline,
                    seen_before,
                },
            );
        }
        rules.numbers.retain(|ifindex, _| out.contains_key(ifindex));
        out
    }

    /// What the rules have counted since this agent put the first of them in place.
    fn counts(&self, rules: &Rules) -> Counts {
        let mut counts = rules.counted.clone();
        for family in Family::BOTH {
            if let Ok(saved) = iptables::save_counted(family, "mangle", None) {
                for set in [0, 1] {
                    queue_rules::add_counts(&saved, set, &mut counts);
                }
            }
        }
        counts
    }

    /// Packets that wait in our queues, and that were lost there.
    fn waiting(&self) -> (u64, u64) {
        let ours = QUEUE_FIRST..QUEUE_FIRST + 2 * self.queues;
        kernel_counters().unwrap_or_default().iter().filter(|queue| ours.contains(&queue.num)).fold((0, 0), |(waiting, lost), queue| {
            (waiting + u64::from(queue.waiting), lost + u64::from(queue.queue_dropped) + u64::from(queue.user_dropped))
        })
    }

    /// Two countings: what the workers judged against what the rules have queued, and what the rules saw come from each
    /// interface against what its device has counted.
    pub fn coverage(&self, directory: &Directory) -> Coverage {
        let view = Arc::clone(&lock(&self.shared.view));
        let links: HashMap<u32, LinkStats> = Netlink::open()
            .and_then(|mut netlink| netlink.links())
            .unwrap_or_default()
            .into_iter()
            .map(|link| (link.ifindex, link.stats))
            .collect();
        let counts = self.counts(&lock(&self.rules));
        let count = |what: &str| counts.get(what).copied().unwrap_or_default();
        let (open, closed) = (count("queue-open"), count("queue-closed"));
        let (queued_packets, queued_bytes) = (open.0 + closed.0, open.1 + closed.1);
        // What was queued when the rules were read is judged a moment later, unless it was lost or let through.
        let judged = || self.shared.stats.packets.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_millis(200);
        let lost_packets = loop {
            let (waiting, lost) = self.waiting();
            if judged() + lost >= queued_packets || (waiting == 0 && Instant::now() >= until) || Instant::now() >= until {
                break lost;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let judged_bytes = self.shared.stats.bytes.load(Ordering::Relaxed);
        let missing = queued_packets.saturating_sub(judged());
        let missing_bytes = if missing == 0 { 0 } else { queued_bytes.saturating_sub(judged_bytes) };
        // Lost packets have no known size: they are given their share.
        let lost_bytes =
            if missing == 0 { 0 } else { (missing_bytes as u128 * u128::from(lost_packets.min(missing)) / u128::from(missing)) as u64 };
        let unjudged = missing_bytes - lost_bytes + count("fail-open").1;

        let mut rows = Vec::new();
        let bridges = |id: u32| view.by_ifindex.values().filter(move |known| known.workload == id).filter_map(|known| known.bridge);
        for ((src, dst, version), bytes) in lock(&self.shared.pairs).iter() {
            let kind = match (WorkloadId(*src), WorkloadId(*dst)) {
                (WorkloadId::HOST, _) => PathKind::HostToContainer,
                (_, WorkloadId::HOST) => PathKind::ContainerToHost,
                (WorkloadId::WORLD, _) | (_, WorkloadId::WORLD) => PathKind::Internet,
                (src, dst) if bridges(src.0).any(|bridge| bridges(dst.0).any(|other| other == bridge)) => PathKind::SameBridge,
                _ => PathKind::CrossBridge,
            };
            let dropped = [("rule", bytes.rule), ("segment", bytes.segment)];
            rows.push(PairCoverage {
                src: directory.name(WorkloadId(*src)),
                dst: directory.name(WorkloadId(*dst)),
                kind,
                family: if *version == 4 { PathFamily::Ipv4 } else { PathFamily::Ipv6 },
                vlan: false,
                carried_packets: bytes.packets,
                carried_bytes: bytes.inspected + bytes.rule + bytes.segment,
                inspected_bytes: bytes.inspected,
                bypassed: BTreeMap::new(),
                dropped: dropped.into_iter().filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
                gap_bytes: 0,
            });
        }
        // What the kernel decided by itself it does not tell by pair.
        let kernel = PairCoverage {
            src: "any".into(),
            dst: "any".into(),
            kind: PathKind::Other,
            family: PathFamily::Other,
            vlan: false,
            carried_packets: 0,
            carried_bytes: 0,
            inspected_bytes: 0,
            bypassed: [("policy", count("bypass").1), ("fail-open", unjudged)]
                .into_iter()
                .filter(|(_, bytes)| *bytes > 0)
                .map(|(name, bytes)| (name.to_owned(), bytes))
                .collect(),
            dropped: [("flow", count("flow").1), ("fail-closed", count("fail-closed").1), ("queue", lost_bytes)]
                .into_iter()
                .filter(|(_, bytes)| *bytes > 0)
                .map(|(name, bytes)| (name.to_owned(), bytes))
                .collect(),
            gap_bytes: 0,
        };
        let decided = kernel.bypassed_bytes() + kernel.dropped_bytes();
        if decided > 0 {
            rows.push(PairCoverage { carried_bytes: decided, ..kernel });
        }

        let mut interfaces = Vec::new();
        let (mut carried_total, mut gap_total, mut complete) = (0, 0, br_netfilter());
        let mut known: Vec<_> = view.by_ifindex.iter().collect();
        known.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        for (ifindex, known) in known {
            let Some(now) = links.get(ifindex) else { continue };
            let frames = now.rx_packets.saturating_sub(known.baseline.rx_packets);
            let kernel_bytes = now.rx_bytes.saturating_sub(known.baseline.rx_bytes).saturating_sub(LINK_BYTES * frames);
            let seen_bytes = count(&format!("in:{}", known.name)).1.saturating_sub(known.seen_before);
            let gap_bytes = kernel_bytes.saturating_sub(seen_bytes);
            complete &= gap_bytes <= UNSEEN_BYTES_MAX + kernel_bytes / 100;
            carried_total += kernel_bytes;
            gap_total += gap_bytes;
            interfaces.push(InterfaceCoverage {
                interface: known.name.clone(),
                workload: directory.name(WorkloadId(known.workload)),
                kernel_bytes,
                seen_bytes,
                gap_bytes,
            });
        }
        let total_percent = if carried_total == 0 { 100.0 } else { (carried_total - gap_total) as f64 * 100.0 / carried_total as f64 };
        Coverage { pairs: rows, interfaces, total_percent, complete }
    }

    /// The rules stay. From this moment on nothing new is queued and what waits is judged.
    pub fn leave(self) {
        self.drain();
        self.stop();
    }

    /// The rules go first, so that no packet meets a queue that nobody reads.
    pub fn down(self, made_mangle: bool) -> Vec<String> {
        let done = remove_chains(made_mangle);
        self.drain();
        self.stop();
        done
    }

    fn drain(&self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
        for family in Family::BOTH {
            // Empties the list: the heartbeat has never been.
            let _ = write_heartbeat(family, "/\n");
        }
        let until = Instant::now() + DRAIN;
        while self.waiting().0 > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Takes chains and jumps away, whoever put them there. Returns what was done.
pub fn remove_chains(made_mangle: bool) -> Vec<String> {
    let mut done = Vec::new();
    for family in Family::BOTH {
        let Ok(saved) = iptables::save(family, Some("mangle"), None) else { continue };
        let Some(text) = queue_rules::without_all(&saved) else { continue };
        match iptables::restore(family, &text, None) {
            Ok(()) => done.push(format!("{} chains of {family:?} removed", queue_rules::CHAIN)),
            Err(error) => done.push(format!("{} chains of {family:?} could not be removed: {error}", queue_rules::CHAIN)),
        }
        // iptables cannot remove a table; where it stands on nftables, that can. It is empty when only its own chains are left.
        if made_mangle && iptables::save(family, Some("mangle"), None).is_ok_and(|text| !text.contains("\n-A ")) {
            let name = if matches!(family, Family::V4) { "ip" } else { "ip6" };
            let _ =
                std::process::Command::new("nft").args(["delete", "table", name, "mangle"]).stderr(std::process::Stdio::null()).status();
        }
    }
    done
}

fn br_netfilter() -> bool {
    SYSCTLS.iter().take(2).all(|name| sysctl::read(name).is_ok_and(|value| value.trim() == "1"))
}

/// Can the kernel look at the heartbeat? Checked as a rule would be, without one.
fn knows_recent() -> bool {
    let rule = "*mangle\n:BULKHEAD-TRY - [0:0]\n-A BULKHEAD-TRY -m recent --name bulkhead-try --rcheck --seconds 1 --mask 0.0.0.0 --rsource -j RETURN\nCOMMIT\n";
    iptables::check(Family::V4, rule, None).is_ok() && Path::new("/proc/thread-self/net/xt_recent").is_dir()
}

fn write_heartbeat(family: Family, entry: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/thread-self/net/xt_recent/{}", queue_rules::heartbeat(family)), entry)
}

fn free_number(taken: &BTreeMap<u32, u16>) -> u16 {
    let taken: std::collections::BTreeSet<u16> = taken.values().copied().collect();
    (1..=u16::MAX).find(|number| !taken.contains(number)).unwrap_or(u16::MAX)
}

struct Worker {
    index: usize,
    /// What fails open, what fails closed.
    queues: [Queue; 2],
    judge: Arc<dyn Judge>,
    shared: Arc<Shared>,
    registry: Registry,
    recorder: Recorder,
    flows: SegmentFlows,
    /// For resets; none where the kernel refuses raw sockets.
    raw: [Option<RawIp>; 2],
    /// Packets of the batch in hand to answer with them, once the packets before have gone on their way.
    rejected: Vec<Vec<u8>>,
}

impl Worker {
    fn run(mut self) {
        let mut batch = Batch::new();
        let mut decisions = Vec::new();
        let mut events = Vec::new();
        let Ok(epoll) = Epoll::new() else { return };
        for (token, queue) in self.queues.iter().enumerate() {
            if epoll.add(queue, token as u64, Interest::Read).is_err() {
                return;
            }
        }
        let mut last = monotonic_ns();
        let mut told = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let beat = monotonic_ns();
            let fail_after = self.shared.fail_after_ns.load(Ordering::Relaxed);
            if beat.saturating_sub(last) > fail_after {
                self.judge.lapsed();
            }
            last = beat;
            self.shared.beats[self.index].store(beat, Ordering::Relaxed);
            if !self.shared.ready.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            if self.index == 0 && beat.saturating_sub(told) >= BEAT_EVERY_NS {
                told = beat;
                self.tell_kernel(beat, fail_after);
            }
            events.clear();
            let _ = epoll.wait(&mut events, Some(Duration::from_millis(IDLE_MS)));
            let now = wall_clock();
            for event in &events {
                self.serve(event.token as usize, now, &mut batch, &mut decisions);
            }
            self.judge.idle(now, self.index);
        }
    }

    /// The heartbeat of all workers, for the rules to see. One that is silent is enough to end it.
    fn tell_kernel(&self, now: u64, fail_after: u64) {
        let fresh = |beat: &AtomicU64| now.saturating_sub(beat.load(Ordering::Relaxed)) <= fail_after;
        if !self.shared.leaving.load(Ordering::Relaxed) && self.shared.beats.iter().all(fresh) {
            for family in Family::BOTH {
                // The list is there from the first rule on that looks at it.
                let _ = write_heartbeat(family, queue_rules::heartbeat_entry(family));
            }
        }
    }

    /// One batch, so that a full queue holds up neither the other one nor the heartbeat.
    fn serve(&mut self, queue: usize, now: Timestamp, batch: &mut Batch, decisions: &mut Vec<Decision>) {
        let before = self.queues[queue].counters();
        if !matches!(self.queues[queue].receive(batch), Ok(1..)) {
            return;
        }
        self.judge_batch(now, batch, decisions);
        // The whole batch in one call when nothing in it is special.
        let plain = decisions.iter().all(|decision: &Decision| decision.verdict == QueueVerdict::Accept && decision.mark.is_none());
        let _ = match decisions.last() {
            Some(last) if plain => self.queues[queue].accept_up_to(last.id, None),
            _ => self.queues[queue].verdicts(decisions),
        };
        for packet in std::mem::take(&mut self.rejected) {
            self.reject(&packet);
        }
        let after = self.queues[queue].counters();
        self.shared.stats.overflows.fetch_add(after.overflows - before.overflows, Ordering::Relaxed);
        self.shared.stats.malformed.fetch_add(after.malformed - before.malformed, Ordering::Relaxed);
    }

    fn judge_batch(&mut self, now: Timestamp, batch: &Batch, decisions: &mut Vec<Decision>) {
        decisions.clear();
        let shared = Arc::clone(&self.shared);
        let view = Arc::clone(&lock(&shared.view));
        let directory = self.registry.current();
        let mut judged = Vec::with_capacity(batch.len());
        for packet in batch.iter() {
            let glance = glance_ip(packet.payload, 0, 0);
            let (sender, receiver) = (view.sender(&packet), view.receiver(&packet));
            let ends = glance.as_ref().map(|glance| {
                let (src, dst) = (view.at(glance.src), view.at(glance.dst));
                // The container is known by its interface, whatever the address says.
                (sender.map_or(src, |known| (known.workload, known.class)), dst)
            });
            let denied = match (&glance, ends) {
                (Some(glance), Some(((src, src_class), (dst, dst_class)))) => {
                    self.denied(now, &view, &directory, &packet, glance, (src, dst), (src_class, dst_class))
                }
                _ => false,
            };
            let verdict = if denied {
                Verdict::Drop(bulkhead_model::DropReason::Segment)
            } else {
                let port = sender.map(|known| (known.number, false)).or(receiver.map(|known| (known.number, true)));
                let held = Held {
                    port: port.map_or(0, |(number, _)| number),
                    to_container: port.is_some_and(|(_, to_container)| to_container),
                    verified: packet.csum_not_ready || !packet.csum_not_verified,
                    gap: false,
                    foreign: false,
                    link: Link::Ip,
                    frame: packet.payload,
                };
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.judge.judge(now, held))).unwrap_or_else(|_| {
                    shared.stats.panics.fetch_add(1, Ordering::Relaxed);
                    self.judge.broken(held.port)
                })
            };
            if let (Verdict::Reject(_), Some(_)) = (verdict, &glance) {
                self.rejected.push(packet.payload.to_vec());
            }
            let bytes = u64::from(packet.cut_from.unwrap_or(packet.payload.len() as u32));
            shared.stats.packets.fetch_add(1, Ordering::Relaxed);
            shared.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
            shared.stats.gso.fetch_add(u64::from(packet.gso), Ordering::Relaxed);
            if !verdict.passes() {
                shared.stats.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if let (Some(glance), Some(((src, _), (dst, _)))) = (&glance, ends) {
                judged.push(((src, dst, if glance.src.is_ipv4() { 4 } else { 6 }), bytes, denied, verdict.passes()));
            }
            decisions.push(self.decision(&packet, command(verdict), view.generation));
        }
        let mut pairs = lock(&shared.pairs);
        for (key, bytes, denied, passes) in judged {
            let key =
                if pairs.len() < PAIRS_MAX || pairs.contains_key(&key) { key } else { (WorkloadId::WORLD.0, WorkloadId::WORLD.0, key.2) };
            let row = pairs.entry(key).or_default();
            row.packets += 1;
            *(if denied {
                &mut row.segment
            } else if passes {
                &mut row.inspected
            } else {
                &mut row.rule
            }) += bytes;
        }
    }

    fn decision(&self, packet: &Packet<'_>, command: Command, generation: u64) -> Decision {
        let shift = self.shared.mark_shift;
        let marked = |value: u32| Some((packet.mark & !(15 << shift)) | (value << shift));
        let (verdict, mark) = match command {
            Command::Accept | Command::BypassDepth | Command::Inject => (QueueVerdict::Accept, None),
            // Once more through the rules, which make the packet's mark the connection's.
            Command::BypassEncrypted | Command::BypassPolicy => (QueueVerdict::Repeat, marked(mark::bypass(generation))),
            Command::DropFlow | Command::Reject => (QueueVerdict::Repeat, marked(mark::DROP)),
            Command::Drop => (QueueVerdict::Drop, None),
        };
        Decision { id: packet.id, verdict, mark }
    }

    /// Do the segments deny it, and is that carried out? Tells of it once a flow.
    #[expect(clippy::too_many_arguments, reason = "both ends, by number and by class")]
    fn denied(
        &mut self,
        now: Timestamp,
        view: &View,
        directory: &Directory,
        packet: &Packet<'_>,
        glance: &Glance,
        (src, dst): (u32, u32),
        classes: (u32, u32),
    ) -> bool {
        let emptied = self.flows.emptied;
        let answer = self.flows.ask(now, &view.segments, view.generation, packet.payload, glance, classes);
        self.shared.stats.segment_flows_emptied.fetch_add(self.flows.emptied - emptied, Ordering::Relaxed);
        let Answer::Denied { rule, first } = answer else { return false };
        let (src, dst) = (WorkloadId(src), WorkloadId(dst));
        let enforced = directory.enforced(src, dst);
        if first {
            self.shared.stats.segment_denied.fetch_add(1, Ordering::Relaxed);
            let ports = matches!(glance.protocol, 6 | 17 | 132) && !glance.fragment;
            self.recorder.send(Event {
                src_ip: Some(glance.src),
                dest_ip: Some(glance.dst),
                src_port: ports.then_some(glance.src_port),
                dest_port: ports.then_some(glance.dst_port),
                proto: Some(protocol_name(glance.protocol)),
                workload: Some(directory.pair(src, dst)),
                body: EventBody::Drop {
                    drop: Dropped {
                        verdict: if enforced { "blocked" } else { "would-block" }.into(),
                        reason: "segment".into(),
                        explanation: format!("{} denies {} to {}", segment_name(directory, rule), directory.name(src), directory.name(dst)),
                        len: packet.payload.len() as u32,
                        tier: "engine".into(),
                    },
                    alert: None,
                },
                ..blank(now)
            });
        }
        enforced
    }

    /// Resets to both ends of a connection, an unreachable to the sender of a datagram.
    fn reject(&self, packet: &[u8]) {
        /// What is there of a link header: the packets that are made begin with it.
        const LINK: usize = LINK_BYTES as usize;
        let mut framed = vec![0; LINK];
        framed.extend_from_slice(packet);
        let Some(glance) = glance_ip(&framed, LINK, 0) else { return };
        for (made, same_direction) in frame::rejections(&framed, &glance) {
            let to = if same_direction { glance.dst } else { glance.src };
            let sent = made
                .get(frame::VNET_BYTES + LINK..)
                .zip(self.raw[usize::from(to.is_ipv6())].as_ref())
                .is_some_and(|(packet, raw)| raw.send(packet, to).is_ok());
            let counter = if sent { &self.shared.stats.injected } else { &self.shared.stats.inject_failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}
