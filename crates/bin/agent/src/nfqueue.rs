//! The fallback path for kernels without tcx: netfilter queues, one per worker.
//!
//! Rules stand in chains of our own in the mangle table, jumped to from FORWARD, INPUT and OUTPUT for the bridges and
//! interfaces of containers. Mangle's FORWARD sees a packet after DNAT and before SNAT, so both directions of a flow have one
//! tuple. Bridged frames come there through br_netfilter, which is switched on (and back) with its filters for tagged frames.
//! A flow that is judged carries its verdict in the connection mark and is no longer queued.
//!
//! Weaker than tcx, and said so by `status`: frames of other protocols than IP and traffic that never leaves a namespace's
//! macvlan parent are not seen, a rejected flow is dropped without resets, and new interfaces are not guarded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bulkhead_api::{Coverage, PairCoverage, PathFamily, PathKind};
use bulkhead_bpf::layout::Command;
use bulkhead_policy::{Config, Fail};
use bulkhead_sys::iptables::{self, Family};
use bulkhead_sys::nfqueue::{Batch, Decision, Queue, QueueConfig, Verdict as QueueVerdict};
use bulkhead_sys::poll::wait_readable;
use bulkhead_sys::sysctl;

use crate::files::Journal;
use crate::frame::glance_ip;
use crate::hold::{Held, IDLE_MS, Judge, Link, command, wall_clock};
use crate::registry::Directory;
use crate::state::lock;
use crate::sync::Plan;

/// Queue numbers from here on.
const QUEUE_FIRST: u16 = 2300;
const CHAIN: &str = "BULKHEAD";
const SAVE_CHAIN: &str = "BULKHEAD-SAVE";
/// Bridged packets meet iptables only with these at 1.
const SYSCTLS: [&str; 3] =
    ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-filter-vlan-tagged"];
/// Rows of the coverage table; more are counted under one name.
const PAIRS_MAX: usize = 16_384;

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

#[derive(Debug, Default, Clone, Copy)]
struct Bytes {
    packets: u64,
    inspected: u64,
    dropped: u64,
}

type Pairs = Arc<Mutex<BTreeMap<(u32, u32, u8), Bytes>>>;

pub struct QueuePath {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    queues: u16,
    mark_shift: u32,
    bypass: bool,
    applied: Mutex<String>,
    pairs: Pairs,
    directory: crate::registry::Registry,
    pub packets: Arc<AtomicU64>,
}

impl QueuePath {
    pub fn start(
        workers: usize,
        config: &Config,
        judge: &Arc<dyn Judge>,
        journal: &mut Journal,
        run_dir: &std::path::Path,
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
            // Without br_netfilter there is nothing to set, and bridged traffic is not seen: `doctor` says so.
            let _ = sysctl::write(name, "1");
        }
        let fail_open = config.fail == Fail::Open;
        let settings = QueueConfig { fail_open, ..QueueConfig::default() };
        let queues = Queue::open_range(QUEUE_FIRST, workers as u16, &settings)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pairs = Pairs::default();
        let packets = Arc::new(AtomicU64::new(0));
        let mark_shift = config.path.mark_mask.0.trailing_zeros();
        let directory = crate::registry::Registry::default();
        let mut threads = Vec::new();
        for (index, queue) in queues.into_iter().enumerate() {
            let worker = Worker {
                index,
                queue,
                judge: Arc::clone(judge),
                stop: Arc::clone(&stop),
                pairs: Arc::clone(&pairs),
                packets: Arc::clone(&packets),
                directory: directory.clone(),
                mark_shift,
            };
            threads.push(thread::Builder::new().name(format!("queue-{index}")).spawn(move || worker.run())?);
        }
        Ok(Self {
            stop,
            threads,
            queues: workers as u16,
            mark_shift,
            bypass: fail_open,
            applied: Mutex::new(String::new()),
            pairs,
            directory,
            packets,
        })
    }

    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Rules for the interfaces of this plan.
    pub fn apply(&self, plan: &Plan) {
        let mut names: Vec<String> = plan.bridge_names.values().cloned().collect();
        names.extend(plan.wanted.iter().filter(|wanted| wanted.bridge.is_none()).map(|wanted| wanted.name.clone()));
        names.sort();
        names.dedup();
        let mut addresses = Directory::default();
        addresses.addresses.clone_from(&plan.directory.addresses);
        self.directory.swap(addresses);
        let text = self.rules(&names);
        let mut applied = lock(&self.applied);
        if *applied != text {
            for family in [Family::V4, Family::V6] {
                if jump_missing(family) {
                    let _ = iptables::restore(family, &jumps("-I"), None);
                }
                let _ = iptables::restore(family, &text, None);
            }
            *applied = text;
        }
    }

    fn rules(&self, names: &[String]) -> String {
        let mask = 15u32 << self.mark_shift;
        let mark = |command: Command| format!("0x{:x}/0x{mask:x}", (8 + command as u32) << self.mark_shift);
        let balance = match self.queues {
            1 => format!("--queue-num {QUEUE_FIRST}"),
            count => format!("--queue-balance {QUEUE_FIRST}:{}", QUEUE_FIRST + count - 1),
        };
        let bypass = if self.bypass { " --queue-bypass" } else { "" };
        let mut text = format!("*mangle\n:{CHAIN} - [0:0]\n:{CHAIN}-Q - [0:0]\n:{SAVE_CHAIN} - [0:0]\n");
        for name in names {
            text.push_str(&format!("-A {CHAIN} -i {name} -j {CHAIN}-Q\n-A {CHAIN} -o {name} -j {CHAIN}-Q\n"));
        }
        for passed in [Command::BypassDepth, Command::BypassEncrypted, Command::BypassPolicy] {
            text.push_str(&format!("-A {CHAIN}-Q -m connmark --mark {} -j RETURN\n", mark(passed)));
        }
        for dropped in [Command::DropFlow, Command::Reject] {
            text.push_str(&format!("-A {CHAIN}-Q -m connmark --mark {} -j DROP\n", mark(dropped)));
        }
        text.push_str(&format!("-A {CHAIN}-Q -j NFQUEUE {balance}{bypass}\n"));
        // A verdict travels as packet mark from the queue to here, and from here on as connection mark.
        for judged in [Command::BypassEncrypted, Command::BypassPolicy, Command::DropFlow, Command::Reject] {
            text.push_str(&format!(
                "-A {SAVE_CHAIN} -m mark --mark {} -j CONNMARK --save-mark --nfmask 0x{mask:x} --ctmask 0x{mask:x}\n",
                mark(judged)
            ));
        }
        for dropped in [Command::DropFlow, Command::Reject] {
            text.push_str(&format!("-A {SAVE_CHAIN} -m mark --mark {} -j DROP\n", mark(dropped)));
        }
        text.push_str("COMMIT\n");
        text
    }

    pub fn coverage(&self, directory: &Directory) -> Coverage {
        let pairs = lock(&self.pairs);
        let mut rows = Vec::new();
        for ((src, dst, version), bytes) in pairs.iter() {
            let (src, dst) = (bulkhead_model::WorkloadId(*src), bulkhead_model::WorkloadId(*dst));
            let dropped = if bytes.dropped > 0 { BTreeMap::from([("rule".to_owned(), bytes.dropped)]) } else { BTreeMap::new() };
            rows.push(PairCoverage {
                src: directory.name(src),
                dst: directory.name(dst),
                kind: PathKind::Other,
                family: if *version == 4 { PathFamily::Ipv4 } else { PathFamily::Ipv6 },
                vlan: false,
                carried_packets: bytes.packets,
                carried_bytes: bytes.inspected + bytes.dropped,
                inspected_bytes: bytes.inspected,
                bypassed: BTreeMap::new(),
                dropped,
                gap_bytes: 0,
            });
        }
        // The queue has no second counting to compare with: completeness cannot be claimed.
        Coverage { pairs: rows, interfaces: Vec::new(), total_percent: 100.0, complete: false }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn jumps(how: &str) -> String {
    let mut text = format!("*mangle\n:{CHAIN} - [0:0]\n:{SAVE_CHAIN} - [0:0]\n");
    for hook in ["FORWARD", "INPUT", "OUTPUT"] {
        text.push_str(&format!("{how} {hook} -j {CHAIN}\n"));
    }
    text.push_str(&format!("{how} POSTROUTING -j {SAVE_CHAIN}\n"));
    text.push_str("COMMIT\n");
    text
}

fn jump_missing(family: Family) -> bool {
    iptables::save(family, Some("mangle"), None).is_ok_and(|text| !text.contains(&format!("-A FORWARD -j {CHAIN}")))
}

/// Takes chains and jumps away, whoever put them there. Returns what was done.
pub fn remove_chains(made_mangle: bool) -> Vec<String> {
    let mut done = Vec::new();
    for family in [Family::V4, Family::V6] {
        let there = iptables::save(family, Some("mangle"), None).is_ok_and(|text| text.contains(&format!(":{CHAIN} ")));
        if !there {
            continue;
        }
        let mut text = jumps("-D");
        text.truncate(text.len() - "COMMIT\n".len());
        text = text.replacen("*mangle\n", &format!("*mangle\n:{CHAIN}-Q - [0:0]\n"), 1);
        text.push_str(&format!("-X {CHAIN}\n-X {CHAIN}-Q\n-X {SAVE_CHAIN}\nCOMMIT\n"));
        if iptables::restore(family, &text, None).is_ok() {
            done.push(format!("{CHAIN} chains of {family:?} removed"));
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

struct Worker {
    index: usize,
    queue: Queue,
    judge: Arc<dyn Judge>,
    stop: Arc<AtomicBool>,
    pairs: Pairs,
    packets: Arc<AtomicU64>,
    directory: crate::registry::Registry,
    mark_shift: u32,
}

impl Worker {
    fn run(mut self) {
        let mut batch = Batch::new();
        let mut decisions = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let _ = wait_readable(&self.queue, Some(Duration::from_millis(IDLE_MS)));
            let now = wall_clock();
            loop {
                match self.queue.receive(&mut batch) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                self.judge_batch(now, &batch, &mut decisions);
                // The whole batch in one call when nothing in it is special.
                let plain = decisions.iter().all(|decision: &Decision| decision.verdict == QueueVerdict::Accept && decision.mark.is_none());
                let _ = match decisions.last() {
                    Some(last) if plain => self.queue.accept_up_to(last.id, None),
                    _ => self.queue.verdicts(&decisions),
                };
            }
            self.judge.idle(now, self.index);
        }
    }

    fn judge_batch(&self, now: bulkhead_model::Timestamp, batch: &Batch, decisions: &mut Vec<Decision>) {
        decisions.clear();
        let directory = self.directory.current();
        let mut pairs = lock(&self.pairs);
        for packet in batch.iter() {
            self.packets.fetch_add(1, Ordering::Relaxed);
            let held = Held {
                port: 0,
                to_container: false,
                verified: packet.csum_not_ready || !packet.csum_not_verified,
                link: Link::Ip,
                frame: packet.payload,
            };
            let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.judge.judge(now, held)))
                .unwrap_or_else(|_| self.judge.broken(0));
            let command = command(verdict);
            if let Some(glance) = glance_ip(packet.payload, 0, 0) {
                let key =
                    (directory.by_address(glance.src).0, directory.by_address(glance.dst).0, if glance.src.is_ipv4() { 4 } else { 6 });
                if pairs.len() < PAIRS_MAX || pairs.contains_key(&key) {
                    let row = pairs.entry(key).or_default();
                    row.packets += 1;
                    let bytes = u64::from(packet.cut_from.unwrap_or(packet.payload.len() as u32));
                    if verdict.passes() {
                        row.inspected += bytes;
                    } else {
                        row.dropped += bytes;
                    }
                }
            }
            let mark = || Some((packet.mark & !(15 << self.mark_shift)) | ((8 + command as u32) << self.mark_shift));
            decisions.push(match command {
                Command::Accept | Command::BypassDepth | Command::Inject => {
                    Decision { id: packet.id, verdict: QueueVerdict::Accept, mark: None }
                }
                Command::BypassEncrypted | Command::BypassPolicy => Decision { id: packet.id, verdict: QueueVerdict::Accept, mark: mark() },
                // The mark has to reach the save chain, which drops the packet there.
                Command::DropFlow | Command::Reject => Decision { id: packet.id, verdict: QueueVerdict::Accept, mark: mark() },
                Command::Drop => Decision { id: packet.id, verdict: QueueVerdict::Drop, mark: None },
            });
        }
    }
}
