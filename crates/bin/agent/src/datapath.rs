//! The tcx path put together: programs, TAP, workers, armed interfaces.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_bpf::layout::{QUEUE_FRAMES, QUEUES_MAX};
use bulkhead_bpf::path::{PathMaps, PathObject, PathOptions};
use bulkhead_bpf::{Guard, guard};
use bulkhead_sys::netlink::{LinkChange, Netlink};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::sysctl;
use bulkhead_sys::tap::Tap;

use crate::hold::{Judge, Order, Workers};
use crate::path::{Error as PathError, Path, Place, TapPlace, Wanted};

/// The host's TAP; one more of this name stands in each namespace with interfaces that have no host end.
const TAP_NAME: &str = "bulkhead0";

/// The TAP of the agent whose programs are pinned here. Those of other places than the usual have names of their own, so that
/// agents beside each other (one for the host, one for a test) leave each other's alone.
pub fn tap_name(pin_dir: &std::path::Path) -> String {
    if pin_dir == std::path::Path::new(crate::supervise::PIN_DIR) {
        return TAP_NAME.to_owned();
    }
    // FNV-1a, the upper half; interface names have room for fifteen characters.
    let hash = pin_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("bhtap{:08x}", hash >> 32)
}
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bpf(#[from] bulkhead_bpf::Error),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Netlink(#[from] bulkhead_sys::netlink::Error),
    #[error(transparent)]
    Tap(#[from] bulkhead_sys::tap::Error),
    #[error(transparent)]
    Os(#[from] bulkhead_sys::OsError),
    #[error("start a worker: {0}")]
    Worker(#[from] std::io::Error),
}

#[derive(Debug, Clone)]
pub struct Options {
    pub pin_dir: PathBuf,
    pub mark_shift: u32,
    pub flows_max: u32,
    pub workers: usize,
    /// Drop what comes from interfaces that are not armed.
    pub guard: bool,
}

/// The running tcx path of one host.
pub struct Datapath {
    pub path: Path,
    pub workers: Workers,
    pub maps: Arc<PathMaps>,
    /// Were maps and links of an earlier agent taken over?
    pub resumed: bool,
    guard: Option<guard::Guard>,
    /// Why there is no guard, when one was asked for.
    pub guard_missing: Option<String>,
    tap_ifindex: u32,
    tap_name: String,
    inside_taps: HashMap<u64, InsideTap>,
    _return_link: bulkhead_bpf::libbpf_rs::Link,
}

struct InsideTap {
    tap: TapPlace,
    key: u64,
    netns: Netns,
    number: u16,
    _link: bulkhead_bpf::libbpf_rs::Link,
}

impl Datapath {
    pub fn start(options: &Options, judge: &Arc<dyn Judge>) -> Result<Self, Error> {
        let workers = options.workers.clamp(1, QUEUES_MAX);
        let pins = PathOptions { pin_dir: options.pin_dir.clone(), mark_shift: options.mark_shift, flows_max: options.flows_max };
        let (object, resumed) = PathObject::load(&pins)?;
        let maps = Arc::new(object.maps()?);
        let mut netlink = Netlink::open()?;
        let tap_name = tap_name(&options.pin_dir);
        if let Some(stale) = netlink.link_named(&tap_name)? {
            netlink.delete_link(stale.ifindex)?;
        }
        let tap = Tap::create(&tap_name, workers)?;
        let tap_ifindex = tap.ifindex();
        if workers > 1 {
            tap.set_steering(Some(object.steering()?))?;
        }
        let return_link = object.attach_return(tap_ifindex)?;
        keep_silent(&tap_name);
        switch_on(&mut netlink, tap_ifindex)?;
        let guard = options.guard.then(|| Guard::load(&pins));
        let (guard, guard_missing) = match guard {
            Some(Ok(guard)) => (Some(guard), None),
            Some(Err(error)) => (None, Some(error.to_string())),
            None => (None, None),
        };
        let host_tap = TapPlace { ifindex: tap_ifindex, queue: 0, queues: workers as u32, slot: 0 };
        // Before the first heartbeat: an earlier agent's interfaces must not be led to its TAP, which is gone.
        let path = Path::new(object, Arc::clone(&maps), pins, host_tap)?;
        let workers = Workers::start(tap.into_queues(), judge, &maps)?;
        Ok(Self {
            path,
            workers,
            maps,
            resumed,
            guard,
            guard_missing,
            tap_ifindex,
            tap_name,
            inside_taps: HashMap::new(),
            _return_link: return_link,
        })
    }

    pub fn tap_ifindex(&self) -> u32 {
        self.tap_ifindex
    }

    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Arms an interface that has no host end, with a TAP beside it in its namespace.
    pub fn arm_inside(&mut self, wanted: Wanted, netns: Netns) -> Result<(), Error> {
        if self.path.is_armed(&wanted.place) {
            // Only its policy can have changed.
            let _ = self.path.arm(wanted)?;
            return Ok(());
        }
        let inode = netns.inode();
        let number = self.path.free_number(None)?;
        let tap = Tap::create_in(&netns, &self.tap_name, 1)?;
        let worker = number as usize % self.workers.count();
        let place = TapPlace { ifindex: tap.ifindex(), queue: worker as u32, queues: 1, slot: (QUEUES_MAX + usize::from(number)) as u32 };
        let mut netlink = Netlink::open_in(&netns)?;
        let link = netns.run(|| self.path.attach_return(place.ifindex))??;
        netns.run(|| keep_silent(&self.tap_name))?;
        switch_on(&mut netlink, place.ifindex)?;
        let key = (u64::from(number) << 8) | 2;
        for queue in tap.into_queues() {
            self.workers.order(worker, Order::Add { key, queue, slot: place.slot as usize, only: Some(number) });
        }
        if let Err(error) = self.path.arm_inside(wanted, &netns, place, number) {
            self.workers.order(worker, Order::Remove { key });
            return Err(error.into());
        }
        self.inside_taps.insert(inode, InsideTap { tap: place, key, netns, number, _link: link });
        Ok(())
    }

    /// Takes an interface down, and its TAP where it has one of its own.
    pub fn disarm(&mut self, place: &Place) {
        let number = self.path.disarm(place);
        if let Place::Inside { netns, .. } = place
            && let Some(inside) = self.inside_taps.remove(netns)
        {
            debug_assert_eq!(Some(inside.number), number);
            self.workers.order(inside.tap.queue as usize, Order::Remove { key: inside.key });
            drop(inside.netns);
        }
    }

    /// Ends without taking the programs off: from this moment on nothing new is held, what was held is judged, and
    /// the next packets fail by policy until another agent comes.
    pub fn leave(self) {
        self.workers.leave(&self.maps);
    }

    /// Takes everything down: links, TAPs, pins.
    pub fn down(mut self, pin_dir: &std::path::Path) -> Result<(), Error> {
        let places: Vec<Place> = self.path.armed().map(|armed| armed.wanted.place.clone()).collect();
        for place in &places {
            self.disarm(place);
        }
        self.workers.stop();
        bulkhead_bpf::path::clear(pin_dir)?;
        Ok(())
    }
}

/// Where IPv6 is forwarded the kernel would announce itself on the TAP, to the worker. The setting goes with the device.
fn keep_silent(tap: &str) {
    // A kernel without IPv6 has no such setting.
    let _ = sysctl::write(&format!("net/ipv6/conf/{tap}/disable_ipv6"), "1");
}

fn switch_on(netlink: &mut Netlink, ifindex: u32) -> Result<(), Error> {
    netlink.change_link(
        ifindex,
        &LinkChange { txqueuelen: Some(QUEUE_FRAMES), arp: Some(false), no_link_local: true, ..LinkChange::default() },
    )?;
    netlink.set_qdisc_noqueue(ifindex)?;
    netlink.set_up(ifindex, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_of_pins_has_a_tap_of_its_own() {
        assert_eq!(tap_name(std::path::Path::new(crate::supervise::PIN_DIR)), "bulkhead0");
        let (one, other) = (tap_name(std::path::Path::new("/sys/fs/bpf/one")), tap_name(std::path::Path::new("/sys/fs/bpf/other")));
        assert!(one != other && one.len() < 16 && one.starts_with("bhtap"));
    }
}
