//! The guard (bpf/net/guard.bpf.c): drops what comes from an interface that is not armed yet.

use std::fs;
use std::mem::size_of;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder};

use crate::path::{PathOptions, link_or_error, load};
use crate::{Doing, Error, Result};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/net_guard.o"));

const NFPROTO_IPV4: u32 = 2;
const NFPROTO_IPV6: u32 = 10;
const NF_INET_LOCAL_IN: u32 = 1;
const NF_INET_FORWARD: u32 = 2;
/// Before conntrack's helpers, mangle and filter; after defragmentation.
const PRIORITY: i32 = -300;

/// Attached at forward and local-in of both families, by pinned links.
pub struct Guard {
    _object: Object,
    guarded: MapHandle,
    _links: Vec<Link>,
}

impl Guard {
    /// Loads the guard on the maps that the path object has pinned. Fails on kernels without netfilter links (before 6.4).
    pub fn load(options: &PathOptions) -> Result<Self> {
        let mut open = ObjectBuilder::default().open_memory(OBJECT).doing("open the guard object")?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name.ends_with(".rodata") {
                match map.initial_value_mut() {
                    Some(rodata) if rodata.len() >= 4 && rodata[..4] == 24u32.to_ne_bytes() => {
                        rodata[..4].copy_from_slice(&options.mark_shift.to_ne_bytes());
                    }
                    _ => return Err(Error::Missing { kind: "constant", name: "mark_shift" }),
                }
            } else if name.starts_with("bh_") {
                let path = options.map_path(&name);
                if path.exists() {
                    map.reuse_pinned_map(&path).doing(format!("reuse map {name}"))?;
                }
            }
        }
        let mut object = load(open, "load the guard")?;
        for mut map in object.maps_mut() {
            if map.name() == "bh_guarded" && !options.map_path("bh_guarded").exists() {
                map.pin(options.map_path("bh_guarded")).doing("pin map bh_guarded")?;
            }
        }
        let guarded = object.maps().find(|map| map.name() == "bh_guarded").ok_or(Error::Missing { kind: "map", name: "bh_guarded" })?;
        let guarded = MapHandle::try_from(&guarded).doing("take map bh_guarded")?;
        let program =
            object.progs().find(|program| program.name() == "bh_guard").ok_or(Error::Missing { kind: "program", name: "bh_guard" })?;
        let mut links = Vec::new();
        for (family, hook, name) in [
            (NFPROTO_IPV4, NF_INET_FORWARD, "guard-forward4"),
            (NFPROTO_IPV4, NF_INET_LOCAL_IN, "guard-input4"),
            (NFPROTO_IPV6, NF_INET_FORWARD, "guard-forward6"),
            (NFPROTO_IPV6, NF_INET_LOCAL_IN, "guard-input6"),
        ] {
            let pin = options.link_path(name);
            if let Ok(mut link) = Link::open(&pin) {
                if link.update_prog(&program).is_ok() {
                    links.push(link);
                    continue;
                }
                // Netfilter links cannot change their program on every kernel: make room, then attach anew.
                let _ = fs::remove_file(&pin);
                drop(link);
            }
            let mut link = attach(&program, family, hook)?;
            link.pin(&pin).doing(format!("pin {}", pin.display()))?;
            links.push(link);
        }
        Ok(Self { _object: object, guarded, _links: links })
    }

    /// Watches what comes from this bridge.
    pub fn watch(&self, ifindex: u32) -> Result<()> {
        self.guarded.update(&ifindex.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY).doing("watch a bridge")
    }

    pub fn unwatch(&self, ifindex: u32) {
        let _ = self.guarded.delete(&ifindex.to_ne_bytes());
    }

    pub fn watched(&self) -> Vec<u32> {
        self.guarded.keys().filter_map(|key| Some(u32::from_ne_bytes(key.try_into().ok()?))).collect()
    }
}

#[allow(unsafe_code)]
fn attach(program: &libbpf_rs::Program<'_>, family: u32, hook: u32) -> Result<Link> {
    use libbpf_rs::AsRawLibbpf;
    let options = libbpf_sys::bpf_netfilter_opts {
        sz: size_of::<libbpf_sys::bpf_netfilter_opts>() as libbpf_sys::size_t,
        pf: family,
        hooknum: hook,
        priority: PRIORITY,
        flags: 0,
    };
    // SAFETY: the program is loaded and outlives the call; the options are a plain struct with its size set.
    let link = unsafe { libbpf_sys::bpf_program__attach_netfilter(program.as_libbpf_object().as_ptr(), &raw const options) };
    link_or_error(link, format!("attach the guard (family {family}, hook {hook})"))
}
