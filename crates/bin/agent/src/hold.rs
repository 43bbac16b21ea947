//! The hold path in user space: one worker per TAP queue reads held frames, has them judged, and writes
//! them back with a command. No allocation, no lock but the judge's own, one clock reading per batch.
//!
//! A held frame's life: read -> take the tag off -> judge -> put the tag back with the command -> write.
//! Resets that end a rejected flow are written after the verdict, so that the verdict is never late for them.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_bpf::layout::{Command, Tag};
use bulkhead_bpf::path::{PathMaps, monotonic_ns};
use bulkhead_model::{BypassReason, Timestamp, Verdict};
use bulkhead_sys::poll::{Epoll, Event, EventFd, Interest};
use bulkhead_sys::sched;
use bulkhead_sys::tap::{TapQueue, Written};

use crate::frame;

/// Frames taken from one queue before the others get their turn.
const BATCH_FRAMES: usize = 64;
/// The largest frame: a 64 KiB superpacket with headers, tag and virtio-net header, with room for BIG TCP's default.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How long a worker sleeps at most: its heartbeat must be younger than the fail time.
pub const IDLE_MS: u64 = 50;

/// Where a worker runs. A frame that is alone is judged soonest on the processor that held it: waking another one costs more
/// than the judging. Where frames come in numbers, the processor that holds them is the one that is busy with their sender
/// and their receiver, and the worker is better off wherever there is room.
#[derive(Debug)]
struct Spread {
    /// Frames for each waking, in 1/256, averaged over about eight.
    depth: u32,
    wide: bool,
}

impl Spread {
    /// From so many frames for each waking on the worker may run anywhere ...
    const WIDEN: u32 = 3 * 256;
    /// ... and below so many it stays at home.
    const NARROW: u32 = 3 * 256 / 2;

    const fn new() -> Self {
        Self { depth: 256, wide: false }
    }

    /// `Some(wide)` when the worker is to move.
    fn woken_for(&mut self, frames: u32) -> Option<bool> {
        self.depth = self.depth - self.depth / 8 + frames.min(BATCH_FRAMES as u32) * 32;
        let wide = self.depth > if self.wide { Self::NARROW } else { Self::WIDEN };
        (wide != self.wide).then(|| {
            self.wide = wide;
            wide
        })
    }
}

/// Judges a frame. Implementations are shared by all workers.
pub trait Judge: Send + Sync {
    /// `port` and `to_container` say at which interface and in which direction; `verified`: the checksum was made on
    /// this host or checked by the kernel.
    fn judge(&self, now: Timestamp, held: Held<'_>) -> Verdict;
    /// Called about every [`IDLE_MS`] by the worker with this index.
    fn idle(&self, now: Timestamp, worker: usize);
    /// A worker was away for so long that the kernel may have passed traffic without it.
    fn lapsed(&self);
    /// The verdict when judging itself broke down.
    fn broken(&self, port: u16) -> Verdict;
}

/// What a held packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    Ip,
}

#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// 0 on the fallback path, which knows no interfaces.
    pub port: u16,
    pub to_container: bool,
    pub verified: bool,
    /// Packets of this flow and direction passed unseen before it.
    pub gap: bool,
    /// The remote end's name is on it, and it is not the remote end's.
    pub foreign: bool,
    pub link: Link,
    pub frame: &'a [u8],
}

/// Counters of all workers.
#[derive(Debug, Default)]
pub struct HoldStats {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
    pub malformed: AtomicU64,
    pub dropped: AtomicU64,
    pub write_failed: AtomicU64,
    pub injected: AtomicU64,
    pub panics: AtomicU64,
    pub wakeups: AtomicU64,
}

impl HoldStats {
    pub fn rows(&self) -> [(&'static str, u64); 8] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("frames", read(&self.frames)),
            ("bytes", read(&self.bytes)),
            ("malformed", read(&self.malformed)),
            ("dropped", read(&self.dropped)),
            ("write_failed", read(&self.write_failed)),
            ("injected", read(&self.injected)),
            ("panics", read(&self.panics)),
            ("wakeups", read(&self.wakeups)),
        ]
    }
}

/// A TAP queue for a worker to read, or one to let go.
pub enum Order {
    /// `only`: frames of another port are not accepted from this TAP (it stands in a container's namespace).
    Add {
        key: u64,
        queue: TapQueue,
        /// Where the kernel tier counts what it sends there.
        slot: usize,
        only: Option<u16>,
    },
    Remove {
        key: u64,
    },
}

/// All workers of the hold path.
pub struct Workers {
    orders: Vec<(Mutex<Sender<Order>>, EventFd)>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    leaving: Arc<AtomicBool>,
    pub stats: Arc<HoldStats>,
}

impl Workers {
    /// One worker per queue, at home on the CPU that holds its frames (see [`Spread`]).
    pub fn start(queues: Vec<TapQueue>, judge: &Arc<dyn Judge>, maps: &Arc<PathMaps>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stats = Arc::new(HoldStats::default());
        let cpus = sched::affinity().unwrap_or_default();
        let leaving = Arc::new(AtomicBool::new(false));
        let mut workers = Self {
            orders: Vec::new(),
            threads: Vec::new(),
            stop: Arc::clone(&stop),
            leaving: Arc::clone(&leaving),
            stats: Arc::clone(&stats),
        };
        for (index, queue) in queues.into_iter().enumerate() {
            let (sender, receiver) = channel();
            let wake = EventFd::new().map_err(io::Error::other)?;
            let worker = Worker {
                index,
                home: cpus.iter().copied().find(|cpu| *cpu == index),
                cpus: cpus.clone(),
                epoll: Epoll::new().map_err(io::Error::other)?,
                wake: wake.try_clone().map_err(io::Error::other)?,
                orders: receiver,
                taps: HashMap::new(),
                judge: Arc::clone(judge),
                maps: Arc::clone(maps),
                stats: Arc::clone(&stats),
                stop: Arc::clone(&stop),
                leaving: Arc::clone(&leaving),
            };
            maps.shared.beat(index, monotonic_ns());
            let _ = sender.send(Order::Add { key: 1, queue, slot: index, only: None });
            let _ = wake.signal();
            let thread = thread::Builder::new().name(format!("hold-{index}")).spawn(move || worker.run())?;
            workers.orders.push((Mutex::new(sender), wake));
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Have all workers run? A dead one is a defect; its queue fails by policy.
    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    pub fn order(&self, worker: usize, order: Order) {
        if let Some((sender, wake)) = self.orders.get(worker) {
            if let Ok(sender) = sender.lock() {
                let _ = sender.send(order);
            }
            let _ = wake.signal();
        }
    }

    /// As [`Self::stop`], but first nothing new comes: the heartbeats are set to the beginning of time, and the workers
    /// judge what still waits in their queues.
    pub fn leave(self, maps: &PathMaps) {
        self.leaving.store(true, Ordering::Relaxed);
        for queue in 0..self.threads.len() {
            maps.shared.beat(queue, 0);
        }
        thread::sleep(Duration::from_millis(2 * IDLE_MS));
        self.stop();
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (_, wake) in &self.orders {
            let _ = wake.signal();
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

struct Worker {
    index: usize,
    /// The processor whose frames come to this worker's queue; `None`: this process may not run there.
    home: Option<usize>,
    cpus: Vec<usize>,
    epoll: Epoll,
    wake: EventFd,
    orders: Receiver<Order>,
    taps: HashMap<u64, Tap>,
    judge: Arc<dyn Judge>,
    maps: Arc<PathMaps>,
    stats: Arc<HoldStats>,
    stop: Arc<AtomicBool>,
    leaving: Arc<AtomicBool>,
}

struct Tap {
    queue: TapQueue,
    slot: usize,
    only: Option<u16>,
}

const WAKE: u64 = 0;

impl Worker {
    fn run(mut self) {
        let mut spread = Spread::new();
        self.stay(false);
        let mut buffer = vec![0u8; FRAME_BYTES_MAX];
        let mut events = Vec::new();
        if self.epoll.add(&self.wake, WAKE, Interest::Read).is_err() {
            return;
        }
        let mut last_idle = 0;
        let mut last_beat = monotonic_ns();
        while !self.stop.load(Ordering::Relaxed) {
            events.clear();
            if self.epoll.wait(&mut events, Some(Duration::from_millis(IDLE_MS))).is_err() {
                return;
            }
            let beat = monotonic_ns();
            if beat - last_beat > self.maps.shared.fail_after_ns() {
                self.judge.lapsed();
            }
            last_beat = beat;
            if !self.leaving.load(Ordering::Relaxed) {
                self.maps.shared.beat(self.index, beat);
            }
            self.stats.wakeups.fetch_add(1, Ordering::Relaxed);
            let now = wall_clock();
            let mut frames = 0;
            for event in &events {
                if event.token == WAKE {
                    let _ = self.wake.drain();
                    self.take_orders();
                } else {
                    frames += self.drain(event, now, &mut buffer);
                }
            }
            if frames > 0
                && let Some(wide) = spread.woken_for(frames)
            {
                self.stay(wide);
            }
            if beat - last_idle >= IDLE_MS * 1_000_000 {
                last_idle = beat;
                let judge = &self.judge;
                let index = self.index;
                if catch_unwind(AssertUnwindSafe(|| judge.idle(now, index))).is_err() {
                    self.stats.panics.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn stay(&self, wide: bool) {
        if let Some(home) = self.home {
            let _ = if wide { sched::set_affinity(&self.cpus) } else { sched::set_affinity(&[home]) };
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Add { key, queue, slot, only } => {
                    // The queue is new; what an earlier one of this slot lost or left is not in it.
                    let (held, taken) = self.maps.fill.slot(slot);
                    taken.store(held.load(Ordering::Relaxed), Ordering::Relaxed);
                    if self.epoll.add(&queue, key, Interest::Read).is_ok() {
                        self.taps.insert(key, Tap { queue, slot, only });
                    }
                }
                Order::Remove { key } => {
                    if let Some(tap) = self.taps.remove(&key) {
                        let _ = self.epoll.remove(&tap.queue);
                    }
                }
            }
        }
    }

    /// How many frames there were.
    fn drain(&mut self, event: &Event, now: Timestamp, buffer: &mut [u8]) -> u32 {
        let Some(tap) = self.taps.get(&event.token) else { return 0 };
        let (held, taken) = self.maps.fill.slot(tap.slot);
        let before = held.load(Ordering::Relaxed);
        for frames in 0..BATCH_FRAMES as u32 {
            let length = match tap.queue.read(buffer) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    // Empty: all that was sent before the first read was taken, or lost; what was sent since may be on its way.
                    let count = taken.load(Ordering::Relaxed).wrapping_add(u64::from(frames));
                    taken.store(count.clamp(before, held.load(Ordering::Relaxed).max(before)), Ordering::Relaxed);
                    return frames;
                }
                Err(_) => {
                    // The TAP is gone (its namespace ended): nothing more will come.
                    if let Some(tap) = self.taps.remove(&event.token) {
                        let _ = self.epoll.remove(&tap.queue);
                    }
                    return frames;
                }
            };
            self.frame(&tap.queue, tap.only, now, &mut buffer[..length]);
        }
        taken.fetch_add(BATCH_FRAMES as u64, Ordering::Relaxed);
        BATCH_FRAMES as u32
    }

    /// One held frame, from the kernel and back.
    fn frame(&self, queue: &TapQueue, only: Option<u16>, now: Timestamp, held: &mut [u8]) {
        self.stats.frames.fetch_add(1, Ordering::Relaxed);
        self.stats.bytes.fetch_add(held.len() as u64, Ordering::Relaxed);
        let Some(tag) = frame::untag(held) else {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if only.is_some_and(|port| port != tag.port) {
            self.stats.malformed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Bits of virtio_net_hdr.flags: 1 checksum still to be filled in, 2 checksum verified.
        let verified = held[0] & 3 != 0;
        let judged = catch_unwind(AssertUnwindSafe(|| {
            self.judge.judge(
                now,
                Held {
                    port: tag.port,
                    to_container: tag.to_container,
                    verified,
                    gap: tag.gap,
                    foreign: tag.foreign,
                    link: Link::Ethernet,
                    frame: frame::frame(held),
                },
            )
        }));
        let verdict = judged.unwrap_or_else(|_| {
            self.stats.panics.fetch_add(1, Ordering::Relaxed);
            self.judge.broken(tag.port)
        });
        let rejections = match verdict {
            Verdict::Reject(_) => {
                let frame = frame::frame(held);
                frame::glance(frame).map(|glance| frame::rejections(frame, &glance)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if !verdict.passes() {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
        frame::retag(held, tag, command(verdict));
        if !matches!(queue.write(held), Ok(Written::Sent)) {
            self.stats.write_failed.fetch_add(1, Ordering::Relaxed);
        }
        for (made, same_direction) in rejections {
            let tag = Tag { to_container: tag.to_container == same_direction, ..tag };
            if matches!(queue.write(&frame::tagged(made, tag)), Ok(Written::Sent)) {
                self.stats.injected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The kernel tier's word for a verdict.
pub const fn command(verdict: Verdict) -> Command {
    match verdict {
        Verdict::Accept => Command::Accept,
        Verdict::BypassDirection(_) => Command::BypassDepth,
        Verdict::BypassFlow(BypassReason::Encrypted) => Command::BypassEncrypted,
        Verdict::BypassFlow(BypassReason::Depth | BypassReason::Policy | BypassReason::NoRule) => Command::BypassPolicy,
        Verdict::Drop(_) => Command::Drop,
        Verdict::DropFlow(_) => Command::DropFlow,
        Verdict::Reject(_) => Command::Reject,
    }
}

pub fn wall_clock() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_leaves_its_processor_for_a_crowd_and_comes_home_for_single_frames() {
        let mut spread = Spread::new();
        for _ in 0..1000 {
            assert_eq!(spread.woken_for(1), None);
        }
        let widened = (0..20).find(|_| spread.woken_for(8) == Some(true));
        assert!(widened.is_some(), "{spread:?}");
        for _ in 0..1000 {
            assert_eq!(spread.woken_for(2), None, "between the two thresholds nothing moves");
        }
        let narrowed = (0..40).find(|_| spread.woken_for(1) == Some(false));
        assert!(narrowed.is_some(), "{spread:?}");
        // One burst alone, however deep, does not end in moving to and fro.
        let moves = (0..64).filter(|turn| spread.woken_for(if turn % 32 == 0 { u32::MAX } else { 1 }).is_some()).count();
        assert!(moves <= 4, "{moves}");
    }
}
