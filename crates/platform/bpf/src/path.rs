//! The path object: maps pinned so that they outlive the agent, programs attached to interfaces by pinned links.
//!
//! Life of the pins, below `PathOptions::pin_dir` (one folder per layout version):
//! `maps/NAME` is reused by the next agent when its layout fits, else replaced; `links/NAME` is updated in
//! place, so that a restart or an upgrade leaves no moment without a program. [`clear`] removes everything.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, Program, RingBufferBuilder};

use crate::layout::{
    AddrKey, AddrValue, COUNT_COUNT, COUNTER_NAMES, Flow, FlowKey, PairKey, PairValue, PathCfg, PathEvent, Plain, Port, QUEUES_MAX,
    QueueFill, SLOTS_MAX, SegmentKey, SegmentValue,
};
use crate::{Doing, Error, Result};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/net_path.o"));

/// Raised when the layout of any pinned map changes meaning.
pub const PIN_VERSION: &str = "path-v1";

const MAPS: [&str; 10] =
    ["bh_cfg", "bh_ports", "bh_if2port", "bh_addrs", "bh_flows", "bh_pairs", "bh_segments", "bh_events", "bh_counters", "bh_queues"];
const GUARDED: &str = "bh_guarded";

#[derive(Debug, Clone)]
pub struct PathOptions {
    /// A folder on a bpf file system, `/sys/fs/bpf/bulkhead`.
    pub pin_dir: PathBuf,
    /// Lowest of the four mark bits used, 0..=28.
    pub mark_shift: u32,
    /// Entries of the flow table.
    pub flows_max: u32,
}

impl PathOptions {
    fn maps_dir(&self) -> PathBuf {
        self.pin_dir.join(PIN_VERSION).join("maps")
    }

    fn links_dir(&self) -> PathBuf {
        self.pin_dir.join(PIN_VERSION).join("links")
    }

    pub(crate) fn map_path(&self, name: &str) -> PathBuf {
        self.maps_dir().join(name)
    }

    pub(crate) fn link_path(&self, name: &str) -> PathBuf {
        self.links_dir().join(name)
    }
}

/// Loaded programs. One for all interfaces of the host, one more for each interface inside a container.
pub struct PathObject {
    object: Object,
    options: PathOptions,
}

/// One armed interface: its two pinned links.
#[derive(Debug)]
pub struct Attachment {
    pins: [PathBuf; 2],
    links: [Link; 2],
}

impl Attachment {
    /// Takes the programs off the interface. Established connections go on, uninspected.
    pub fn detach(self) {
        for (pin, link) in self.pins.iter().zip(self.links) {
            let _ = fs::remove_file(pin);
            drop(link);
        }
    }
}

impl PathObject {
    /// Loads the programs; maps of an earlier agent are reused where they fit. `reused` tells whether they were.
    pub fn load(options: &PathOptions) -> Result<(Self, bool)> {
        fs::create_dir_all(options.maps_dir()).doing(format!("create {}", options.maps_dir().display()))?;
        fs::create_dir_all(options.links_dir()).doing(format!("create {}", options.links_dir().display()))?;
        match Self::load_with(options, 0, true) {
            Ok(object) => {
                let reused = object.1;
                Ok((object.0, reused))
            }
            Err(_) => {
                // Maps of another shape: begin anew. Links of the old programs keep judging until they are updated.
                for name in MAPS.iter().chain([&GUARDED]) {
                    let _ = fs::remove_file(options.map_path(name));
                }
                Ok((Self::load_with(options, 0, true)?.0, false))
            }
        }
    }

    /// The same programs for one interface inside a container's namespace, on the same maps.
    pub fn load_inside(options: &PathOptions, port: u16) -> Result<Self> {
        Ok(Self::load_with(options, u32::from(port), false)?.0)
    }

    fn load_with(options: &PathOptions, inside_port: u32, pin: bool) -> Result<(Self, bool)> {
        let mut open = ObjectBuilder::default().open_memory(OBJECT).doing("open the path object")?;
        let mut reused = false;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name.ends_with(".rodata") {
                set_constants(map.initial_value_mut(), options.mark_shift, inside_port)?;
                continue;
            }
            if !MAPS.contains(&name.as_str()) {
                continue;
            }
            if name == "bh_flows" {
                map.set_max_entries(options.flows_max).doing("size the flow table")?;
            }
            let path = options.map_path(&name);
            if path.exists() {
                let pinned = MapHandle::from_pinned_path(&path).doing(format!("open pinned map {name}"))?;
                let (found, expected) = (pinned.value_size(), map.value_size());
                if found != expected || pinned.key_size() != map.key_size() || pinned.max_entries() != map.max_entries() {
                    return Err(Error::Layout { name: "pinned map", found: found as usize, expected: expected as usize });
                }
                map.reuse_pinned_map(&path).doing(format!("reuse map {name}"))?;
                reused = true;
            }
        }
        let mut object = load(open, "load the path programs")?;
        if pin {
            for mut map in object.maps_mut() {
                let name = map.name().to_string_lossy().into_owned();
                let path = options.map_path(&name);
                if MAPS.contains(&name.as_str()) && !path.exists() {
                    map.pin(&path).doing(format!("pin map {name}"))?;
                }
            }
        }
        Ok((Self { object, options: options.clone() }, reused))
    }

    /// Arms one interface of the calling thread's network namespace. `name` makes the pins' names and must be
    /// unique among namespaces. Idempotent: pinned links of this interface are updated to these programs.
    pub fn attach(&self, ifindex: u32, name: &str) -> Result<Attachment> {
        let mut links = Vec::with_capacity(2);
        let mut pins = Vec::with_capacity(2);
        for (program, side) in [("bh_egress", "out"), ("bh_ingress", "in")] {
            let pin = self.options.link_path(&format!("{name}-{side}"));
            let program = self.program(program)?;
            links.push(attach_pinned(&program, ifindex, &pin, side == "in")?);
            pins.push(pin);
        }
        let (Ok(pins), Ok(links)) = (<[PathBuf; 2]>::try_from(pins), <[Link; 2]>::try_from(links)) else {
            return Err(Error::Missing { kind: "link", name: "pair" });
        };
        Ok(Attachment { pins, links })
    }

    /// Puts the return program on a TAP of the calling thread's namespace. The link lives as long as the TAP.
    pub fn attach_return(&self, tap_ifindex: u32) -> Result<Link> {
        attach_tcx(&self.program("bh_return")?, tap_ifindex, false)
    }

    /// Steers the queues of a TAP: for TUNSETSTEERINGEBPF.
    pub fn steering(&self) -> Result<BorrowedFd<'_>> {
        let program = self.program("bh_steer")?;
        let fd = program.as_fd().as_raw_fd();
        // SAFETY: the descriptor belongs to the loaded object, which the result borrows.
        #[allow(unsafe_code)]
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    pub fn maps(&self) -> Result<PathMaps> {
        let find = |name: &'static str| -> Result<MapHandle> {
            let map = self.object.maps().find(|map| map.name() == name).ok_or(Error::Missing { kind: "map", name })?;
            MapHandle::try_from(&map).doing(format!("take map {name}"))
        };
        let cfg = find("bh_cfg")?;
        let shared = SharedCfg(Shared::map("bh_cfg", &cfg, 1)?);
        let fill = QueueFills(Shared::map("bh_queues", &find("bh_queues")?, SLOTS_MAX)?);
        Ok(PathMaps {
            shared,
            fill,
            ports: find("bh_ports")?,
            if2port: find("bh_if2port")?,
            addrs: find("bh_addrs")?,
            flows: find("bh_flows")?,
            pairs: find("bh_pairs")?,
            segments: find("bh_segments")?,
            events: find("bh_events")?,
            counters: find("bh_counters")?,
        })
    }

    /// Verified instructions of each program: a figure to watch.
    pub fn instruction_counts(&self) -> Vec<(String, usize)> {
        self.object.progs().map(|program| (program.name().to_string_lossy().into_owned(), program.insn_cnt())).collect()
    }

    fn program(&self, name: &'static str) -> Result<Program<'_>> {
        self.object.progs().find(|program| program.name() == name).ok_or(Error::Missing { kind: "program", name })
    }
}

/// Removes every pin below `pin_dir`: links go off their interfaces, maps are freed when nobody holds them.
/// What is not there is not an error. Returns how many links were removed.
pub fn clear(pin_dir: &Path) -> Result<usize> {
    let mut links = 0;
    let versions = match fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).doing(format!("read {}", pin_dir.display())),
    };
    for version in versions.flatten() {
        for kind in ["links", "maps"] {
            let folder = version.path().join(kind);
            if let Ok(entries) = fs::read_dir(&folder) {
                for entry in entries.flatten() {
                    if fs::remove_file(entry.path()).is_ok() && kind == "links" {
                        links += 1;
                    }
                }
            }
            let _ = fs::remove_dir(&folder);
        }
        let _ = fs::remove_dir(version.path());
    }
    match fs::remove_dir(pin_dir) {
        // The service manager has mounted it for this process alone (ReadWritePaths), and removes it after its end.
        Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::ReadOnlyFilesystem) => Ok(links),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing(format!("remove {}", pin_dir.display())),
        _ => Ok(links),
    }
}

/// Names of the pinned links, without their side: what an earlier agent armed.
pub fn pinned_names(options: &PathOptions) -> Vec<String> {
    let Ok(entries) = fs::read_dir(options.links_dir()) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_suffix("-in").map(str::to_owned)).collect();
    names.sort();
    names
}

/// Takes one interface's pins away without having it attached here (its interface is gone, or not ours any more).
pub fn unpin(options: &PathOptions, name: &str) {
    for side in ["in", "out"] {
        let _ = fs::remove_file(options.link_path(&format!("{name}-{side}")));
    }
}

/// The values of an array map that the kernel and workers share by memory.
#[derive(Debug)]
struct Shared<T> {
    at: NonNull<T>,
    bytes: usize,
}

// SAFETY: the pointee is shared memory that is only touched through atomics or volatile accesses of whole words.
#[allow(unsafe_code)]
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T> Sync for Shared<T> {}

impl<T: Plain> Shared<T> {
    #[allow(unsafe_code)]
    fn map(name: &'static str, map: &MapHandle, entries: usize) -> Result<Self> {
        if map.value_size() as usize != size_of::<T>() || !size_of::<T>().is_multiple_of(8) {
            return Err(Error::Layout { name, found: map.value_size() as usize, expected: size_of::<T>() });
        }
        if map.max_entries() as usize != entries {
            return Err(Error::Layout { name, found: map.max_entries() as usize, expected: entries });
        }
        let bytes = (size_of::<T>() * entries).next_multiple_of(4096);
        // SAFETY: a fresh shared mapping of a mmapable array map of this size; the kernel keeps it alive.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, map.as_fd().as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).doing(format!("map {name}"));
        }
        match NonNull::new(at.cast::<T>()) {
            Some(at) => Ok(Self { at, bytes }),
            None => Err(Error::Missing { kind: "map", name }),
        }
    }
}

impl<T> Drop for Shared<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, not used after this.
        unsafe {
            libc::munmap(self.at.as_ptr().cast(), self.bytes);
        }
    }
}

/// How full the TAP queues are.
#[derive(Debug)]
pub struct QueueFills(Shared<QueueFill>);

impl QueueFills {
    /// Frames that the kernel tier has sent to the queue of this slot, and those that its worker says it has read.
    ///
    /// # Panics
    /// For a slot that does not exist.
    #[allow(unsafe_code)]
    pub fn slot(&self, slot: usize) -> (&AtomicU64, &AtomicU64) {
        assert!(slot < SLOTS_MAX);
        // SAFETY: in bounds of the mapping (the map's size was compared), aligned, and both sides treat the words as atomic.
        unsafe {
            let fill = self.0.at.as_ptr().add(slot);
            (AtomicU64::from_ptr(std::ptr::addr_of_mut!((*fill).held)), AtomicU64::from_ptr(std::ptr::addr_of_mut!((*fill).taken)))
        }
    }
}

/// The configuration that kernel and workers share by memory.
#[derive(Debug)]
pub struct SharedCfg(Shared<PathCfg>);

impl SharedCfg {
    /// CLOCK_MONOTONIC nanoseconds at which the worker of `queue` was last alive.
    #[allow(unsafe_code)]
    pub fn heartbeat(&self, queue: usize) -> &AtomicU64 {
        assert!(queue < QUEUES_MAX);
        // SAFETY: in bounds of the mapping, aligned (offset 24), and both sides treat the word as atomic.
        unsafe { AtomicU64::from_ptr(std::ptr::addr_of_mut!((*self.0.at.as_ptr()).heartbeat_ns[queue])) }
    }

    pub fn beat(&self, queue: usize, now_ns: u64) {
        self.heartbeat(queue).store(now_ns, Ordering::Relaxed);
    }

    /// Sets everything but the heartbeats.
    #[allow(unsafe_code)]
    pub fn set(&self, fail_after_ns: u64, flags: u32, queues: u32, generation: u32) {
        // SAFETY: aligned words inside the mapping; the kernel reads each on its own.
        unsafe {
            let cfg = self.0.at.as_ptr();
            std::ptr::addr_of_mut!((*cfg).fail_after_ns).write_volatile(fail_after_ns);
            std::ptr::addr_of_mut!((*cfg).flags).write_volatile(flags);
            std::ptr::addr_of_mut!((*cfg).queues).write_volatile(queues);
            std::ptr::addr_of_mut!((*cfg).generation).write_volatile(generation);
        }
    }

    /// After how many nanoseconds without a heartbeat the kernel takes a worker for dead.
    #[allow(unsafe_code)]
    pub fn fail_after_ns(&self) -> u64 {
        // SAFETY: an aligned word inside the mapping.
        unsafe { std::ptr::addr_of!((*self.0.at.as_ptr()).fail_after_ns).read_volatile() }
    }

    #[allow(unsafe_code)]
    pub fn generation(&self) -> u32 {
        // SAFETY: an aligned word inside the mapping.
        unsafe { std::ptr::addr_of!((*self.0.at.as_ptr()).generation).read_volatile() }
    }
}

/// Typed access to the maps. All methods are system calls; none is on the per-packet path.
#[derive(Debug)]
pub struct PathMaps {
    pub shared: SharedCfg,
    pub fill: QueueFills,
    ports: MapHandle,
    if2port: MapHandle,
    addrs: MapHandle,
    flows: MapHandle,
    pairs: MapHandle,
    segments: MapHandle,
    events: MapHandle,
    counters: MapHandle,
}

impl PathMaps {
    pub fn set_port(&self, number: u16, port: &Port) -> Result<()> {
        update(&self.ports, &u32::from(number), port, "set a port")
    }

    pub fn port(&self, number: u16) -> Result<Option<Port>> {
        lookup(&self.ports, &u32::from(number), "read a port")
    }

    /// Ties an interface of the host's namespace to its port number.
    pub fn set_interface(&self, ifindex: u32, number: u16) -> Result<()> {
        update(&self.if2port, &ifindex, &u32::from(number), "tie an interface to its port")
    }

    pub fn remove_interface(&self, ifindex: u32) -> Result<()> {
        remove(&self.if2port, &ifindex, "untie an interface")
    }

    /// (ifindex, port number) of every interface tied.
    pub fn interfaces(&self) -> Vec<(u32, u16)> {
        keys::<u32>(&self.if2port)
            .into_iter()
            .filter_map(|ifindex| Some((ifindex, lookup::<_, u32>(&self.if2port, &ifindex, "read").ok()?? as u16)))
            .collect()
    }

    pub fn set_address(&self, key: AddrKey, value: &AddrValue) -> Result<()> {
        update(&self.addrs, &key, value, "set an address")
    }

    pub fn remove_address(&self, key: AddrKey) -> Result<()> {
        remove(&self.addrs, &key, "remove an address")
    }

    pub fn addresses(&self) -> Vec<AddrKey> {
        keys(&self.addrs)
    }

    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>> {
        lookup(&self.flows, key, "read a flow")
    }

    pub fn flow_keys(&self) -> impl Iterator<Item = FlowKey> + '_ {
        self.flows.keys().filter_map(|bytes| FlowKey::from_bytes(&bytes))
    }

    pub fn remove_flow(&self, key: &FlowKey) -> Result<()> {
        remove(&self.flows, key, "remove a flow")
    }

    /// Coverage rows, summed over CPUs.
    pub fn pairs(&self) -> Vec<(PairKey, PairValue)> {
        let mut rows = Vec::new();
        for key in keys::<PairKey>(&self.pairs) {
            let Ok(Some(values)) = self.pairs.lookup_percpu(key.bytes(), MapFlags::ANY) else { continue };
            let mut sum = PairValue::default();
            for value in values.iter().filter_map(|bytes| PairValue::from_bytes(bytes)) {
                for class in 0..sum.bytes.len() {
                    sum.bytes[class] += value.bytes[class];
                    sum.packets[class] += value.packets[class];
                }
            }
            rows.push((key, sum));
        }
        rows.sort_by_key(|(key, _)| *key);
        rows
    }

    pub fn remove_pair(&self, key: &PairKey) -> Result<()> {
        remove(&self.pairs, key, "remove a coverage row")
    }

    pub fn set_segment(&self, key: SegmentKey, value: &SegmentValue) -> Result<()> {
        update(&self.segments, &key, value, "set a segment")
    }

    pub fn segments(&self) -> Vec<SegmentKey> {
        keys(&self.segments)
    }

    pub fn remove_segment(&self, key: &SegmentKey) -> Result<()> {
        remove(&self.segments, key, "remove a segment")
    }

    /// `enum path_counter`, summed over CPUs, by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        (0..COUNT_COUNT.min(COUNTER_NAMES.len()))
            .map(|which| {
                let key = (which as u32).to_ne_bytes();
                let sum = match self.counters.lookup_percpu(&key, MapFlags::ANY) {
                    Ok(Some(values)) => values.iter().filter_map(|bytes| u64::from_bytes(bytes)).sum(),
                    _ => 0,
                };
                (COUNTER_NAMES[which], sum)
            })
            .collect()
    }

    /// Calls `take` for each event until `stop` says so; blocks in between. For a thread of its own.
    pub fn follow_events(&self, stop: &dyn Fn() -> bool, take: &mut dyn FnMut(PathEvent)) -> Result<()> {
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&self.events, |bytes| {
                if let Some(event) = PathEvent::from_bytes(bytes) {
                    take(event);
                }
                0
            })
            .doing("read the event ring")?;
        let ring = builder.build().doing("read the event ring")?;
        while !stop() {
            match ring.poll(Duration::from_millis(500)) {
                Ok(()) => {}
                Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("read the event ring"),
            }
        }
        Ok(())
    }
}

fn update<K: Plain, V: Plain>(map: &MapHandle, key: &K, value: &V, what: &str) -> Result<()> {
    map.update(key.bytes(), value.bytes(), MapFlags::ANY).doing(what)
}

fn lookup<K: Plain, V: Plain>(map: &MapHandle, key: &K, what: &str) -> Result<Option<V>> {
    Ok(map.lookup(key.bytes(), MapFlags::ANY).doing(what)?.and_then(|bytes| V::from_bytes(&bytes)))
}

fn remove<K: Plain>(map: &MapHandle, key: &K, what: &str) -> Result<()> {
    match map.delete(key.bytes()) {
        Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => Err(error).doing(what),
        _ => Ok(()),
    }
}

fn keys<K: Plain>(map: &MapHandle) -> Vec<K> {
    map.keys().filter_map(|bytes| K::from_bytes(&bytes)).collect()
}

pub(crate) fn load(open: OpenObject, what: &str) -> Result<Object> {
    open.load().doing(what)
}

/// The constants stand first in `.rodata`, in the order of path.bpf.c; their initial values are the proof.
fn set_constants(rodata: Option<&mut [u8]>, mark_shift: u32, inside_port: u32) -> Result<()> {
    let missing = Error::Missing { kind: "constant", name: "mark_shift" };
    let Some(rodata) = rodata else { return Err(missing) };
    if rodata.len() < 8 || rodata[..4] != 24u32.to_ne_bytes() || rodata[4..8] != 0u32.to_ne_bytes() {
        return Err(missing);
    }
    rodata[..4].copy_from_slice(&mark_shift.to_ne_bytes());
    rodata[4..8].copy_from_slice(&inside_port.to_ne_bytes());
    Ok(())
}

/// A pinned link of this interface gets the new program; else a new link is made and pinned.
fn attach_pinned(program: &Program<'_>, ifindex: u32, pin: &Path, first: bool) -> Result<Link> {
    if let Ok(mut link) = Link::open(pin) {
        let same = matches!(link.info().map(|info| info.info), Ok(LinkTypeInfo::Tcx(tcx)) if tcx.ifindex == ifindex);
        if same && link.update_prog(program).is_ok() {
            return Ok(link);
        }
        let _ = fs::remove_file(pin);
    }
    let mut link = attach_tcx(program, ifindex, first)?;
    link.pin(pin).doing(format!("pin {}", pin.display()))?;
    Ok(link)
}

/// `first`: before every other program of that hook.
#[allow(unsafe_code)]
pub(crate) fn attach_tcx(program: &Program<'_>, ifindex: u32, first: bool) -> Result<Link> {
    use libbpf_rs::AsRawLibbpf;
    let options = libbpf_sys::bpf_tcx_opts {
        sz: size_of::<libbpf_sys::bpf_tcx_opts>() as libbpf_sys::size_t,
        flags: if first { libbpf_sys::BPF_F_BEFORE } else { 0 },
        ..Default::default()
    };
    // SAFETY: the program is loaded and outlives the call; the options are a plain struct with its size set.
    let link = unsafe { libbpf_sys::bpf_program__attach_tcx(program.as_libbpf_object().as_ptr(), ifindex as i32, &raw const options) };
    link_or_error(link, format!("attach to interface {ifindex}"))
}

#[allow(unsafe_code)]
pub(crate) fn link_or_error(link: *mut libbpf_sys::bpf_link, doing: String) -> Result<Link> {
    match NonNull::new(link) {
        // SAFETY: libbpf gave us a valid link that nobody else owns.
        Some(link) => Ok(unsafe { Link::from_ptr(link) }),
        None => Err(io::Error::last_os_error()).doing(doing),
    }
}

/// CLOCK_MONOTONIC in nanoseconds: what `bpf_ktime_get_ns` reads and heartbeats are written in.
#[allow(unsafe_code)]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid out pointer; CLOCK_MONOTONIC always exists.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
