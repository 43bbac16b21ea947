//! The kernel tier on the running kernel: loads, layouts agree, probes answer. Needs root.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;

use bulkhead_bpf::layout::{AddrKey, AddrValue, FlowKey, Port};
use bulkhead_bpf::{Guard, PathObject, PathOptions, path, probe};

/// A bpf file system of the test's own, gone with it.
struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> Option<Self> {
        // SAFETY: a plain system call.
        if unsafe { libc::geteuid() } != 0 {
            println!("NOT RUN: {name}: loading BPF needs root");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("bulkhead-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&folder).status().unwrap().success());
        Some(Self(folder))
    }

    fn options(&self) -> PathOptions {
        PathOptions { pin_dir: self.0.join("bulkhead"), mark_shift: 20, flows_max: 4096 }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn programs_load_and_maps_hold_what_is_put_into_them() {
    let Some(pins) = Pins::new("load") else { return };
    bulkhead_bpf::quiet();
    let (object, reused) = PathObject::load(&pins.options()).unwrap();
    assert!(!reused);
    for (name, count) in object.instruction_counts() {
        println!("{name}: {count} instructions");
    }
    let maps = object.maps().unwrap();
    let port = Port { ifindex: 7, tap_ifindex: 8, workload: 9, flags: 1, class_id: 2, queue: 0, queues: 2, slot: 0 };
    maps.set_port(3, &port).unwrap();
    assert_eq!(maps.port(3).unwrap(), Some(port));
    let key = AddrKey::of("198.51.100.9".parse().unwrap());
    maps.set_address(key, &AddrValue { workload: 9, class_id: 2, flags: 0, pad: 0 }).unwrap();
    assert_eq!(maps.addresses(), vec![key]);
    assert_eq!(maps.flow(&FlowKey::default()).unwrap(), None);
    assert!(maps.counters().iter().all(|(_, value)| *value == 0));
    maps.shared.set(5, 0, 2, 77);
    maps.shared.beat(1, 99);
    drop((maps, object));

    // A second agent finds them.
    let (object, reused) = PathObject::load(&pins.options()).unwrap();
    assert!(reused);
    let maps = object.maps().unwrap();
    assert_eq!(maps.port(3).unwrap(), Some(port));
    assert_eq!(maps.shared.generation(), 77);
    assert_eq!(maps.shared.heartbeat(1).load(std::sync::atomic::Ordering::Relaxed), 99);
    let guard = Guard::load(&pins.options()).unwrap();
    guard.watch(4242).unwrap();
    assert_eq!(guard.watched(), vec![4242]);
    drop((guard, maps, object));
    assert_eq!(path::clear(&pins.options().pin_dir).unwrap(), 4);
    assert!(!pins.options().pin_dir.exists());
}

#[test]
fn another_size_of_the_flow_table_begins_anew() {
    let Some(pins) = Pins::new("resize") else { return };
    bulkhead_bpf::quiet();
    drop(PathObject::load(&pins.options()).unwrap());
    let (object, reused) = PathObject::load(&PathOptions { flows_max: 8192, ..pins.options() }).unwrap();
    assert!(!reused);
    drop(object);
    path::clear(&pins.options().pin_dir).unwrap();
}

#[test]
fn probes_answer_and_leave_nothing() {
    let Some(_pins) = Pins::new("probe") else { return };
    bulkhead_bpf::quiet();
    for (name, probe) in [
        ("netfilter", probe::netfilter as fn() -> probe::Probe),
        ("socket_filter", probe::socket_filter),
        ("cgroup_connect", probe::cgroup_connect),
        ("cgroup_skb", probe::cgroup_skb),
        ("tracepoint", probe::tracepoint),
        ("tp_btf", probe::tp_btf),
        ("lsm", probe::lsm),
        ("fentry", probe::fentry),
        ("kprobe", probe::kprobe),
        ("ring_buffer", probe::ring_buffer),
        ("arena", probe::arena),
    ] {
        println!("{name}: {:?}", probe());
    }
    // What the path itself stands on is not optional where this test runs as root.
    assert_eq!(probe::socket_filter(), Ok(()));
    assert_eq!(probe::ring_buffer(), Ok(()));
}
