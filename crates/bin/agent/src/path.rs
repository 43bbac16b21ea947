//! Arms interfaces: which ones, in which order, and what is left when they go.
//!
//! An interface is armed in this order, so that no packet meets a program that does not know it: port entry,
//! interface entry, then both links, egress first. It is taken down in the reverse order. Everything here
//! is idempotent: `sync` compares what should be with what is and does the difference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use bulkhead_bpf::layout::{AddrKey, AddrValue, FlowKey, Port, SegmentKey, SegmentValue, port_flags};
use bulkhead_bpf::path::{self, Attachment, PathMaps, PathObject, PathOptions};
use bulkhead_model::{InterfaceKind, Network, Workload};
use bulkhead_sys::netlink::{Link, LinkStats};
use bulkhead_sys::netns::Netns;

/// Why the path could not be set up or an interface not be armed: the operator's kernel or configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bpf(#[from] bulkhead_bpf::Error),
    #[error(transparent)]
    Os(#[from] bulkhead_sys::OsError),
    #[error("all {} interface numbers are in use", bulkhead_bpf::layout::PORTS_MAX - 1)]
    PortsFull,
}

/// Where an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The host's end of a veth pair.
    Host { ifindex: u32 },
    /// Inside a container's namespace (macvlan, ipvlan): there is no host end.
    Inside { netns: u64, ifindex: u32 },
}

impl Place {
    /// Unique among namespaces; names the pins.
    fn pin_name(&self) -> String {
        match self {
            Self::Host { ifindex } => format!("if{ifindex}"),
            Self::Inside { netns, ifindex } => format!("ns{netns}-{ifindex}"),
        }
    }
}

/// An interface that should be armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub place: Place,
    /// Host-side name, or the name inside.
    pub name: String,
    /// A process in the namespace, for `Inside`.
    pub pid: u32,
    pub bridge: Option<u32>,
    pub workload: u32,
    pub class: u32,
    pub protect: bool,
    pub fail_closed: bool,
    pub bypass: bool,
    /// Counters of the host end just before arming; `None`: the interface is younger than the agent, from its first byte on.
    pub baseline: Option<LinkStats>,
}

impl Wanted {
    fn port(&self, tap: &TapPlace) -> Port {
        let mut flags = port_flags::ARMED;
        for (on, flag) in [
            (self.protect, port_flags::PROTECT),
            (self.fail_closed, port_flags::FAIL_CLOSED),
            (self.bypass, port_flags::BYPASS),
            (matches!(self.place, Place::Inside { .. }), port_flags::INSIDE),
        ] {
            if on {
                flags |= flag;
            }
        }
        let ifindex = match self.place {
            Place::Host { ifindex } | Place::Inside { ifindex, .. } => ifindex,
        };
        Port {
            ifindex,
            tap_ifindex: tap.ifindex,
            workload: self.workload,
            flags,
            class_id: self.class,
            queue: tap.queue,
            queues: tap.queues,
            slot: tap.slot,
        }
    }
}

/// A TAP in one namespace, and the queues (worker numbers) that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapPlace {
    pub ifindex: u32,
    pub queue: u32,
    pub queues: u32,
    /// Where the fill of its first queue is counted.
    pub slot: u32,
}

#[derive(Debug)]
pub struct Armed {
    pub number: u16,
    pub wanted: Wanted,
    pub tap: TapPlace,
    attachment: Attachment,
}

/// All armed interfaces of this host.
pub struct Path {
    object: PathObject,
    inside: HashMap<u16, PathObject>,
    pub maps: std::sync::Arc<PathMaps>,
    options: PathOptions,
    host_tap: TapPlace,
    armed: BTreeMap<Place, Armed>,
    addresses: BTreeMap<AddrKey, AddrValue>,
    segments: BTreeMap<(u32, u32), SegmentValue>,
    generation: u32,
}

impl Path {
    /// `object` is loaded; its return program is already on the host's TAP.
    pub fn new(object: PathObject, maps: std::sync::Arc<PathMaps>, options: PathOptions, host_tap: TapPlace) -> Result<Self, Error> {
        let generation = maps.shared.generation();
        // What an earlier agent left: rows of numbers that mean nothing now.
        for (key, _) in maps.pairs() {
            let _ = maps.remove_pair(&key);
        }
        // Its interfaces go on under this agent's TAP; those inside containers lost theirs with it.
        let tied: HashMap<u16, u32> = maps.interfaces().into_iter().map(|(ifindex, number)| (number, ifindex)).collect();
        for number in 1..bulkhead_bpf::layout::PORTS_MAX as u16 {
            let Some(mut port) = maps.port(number)?.filter(|port| port.flags & port_flags::ARMED != 0) else { continue };
            if tied.contains_key(&number) {
                port.tap_ifindex = host_tap.ifindex;
                port.queue = host_tap.queue;
                port.queues = host_tap.queues;
                port.slot = host_tap.slot;
            } else if port.flags & port_flags::FAIL_CLOSED == 0 {
                port = Port::default();
            }
            maps.set_port(number, &port)?;
        }
        Ok(Self {
            object,
            inside: HashMap::new(),
            maps,
            options,
            host_tap,
            armed: BTreeMap::new(),
            addresses: BTreeMap::new(),
            segments: BTreeMap::new(),
            generation,
        })
    }

    /// Puts the return program on a TAP of the calling thread's namespace.
    pub fn attach_return(&self, tap_ifindex: u32) -> Result<bulkhead_bpf::libbpf_rs::Link, Error> {
        Ok(self.object.attach_return(tap_ifindex)?)
    }

    pub fn armed(&self) -> impl Iterator<Item = &Armed> {
        self.armed.values()
    }

    pub fn is_armed(&self, place: &Place) -> bool {
        self.armed.contains_key(place)
    }

    /// Arms one interface of the host's namespace, or brings its entry up to date.
    pub fn arm(&mut self, wanted: Wanted) -> Result<u16, Error> {
        if let Some(armed) = self.armed.get_mut(&wanted.place) {
            if armed.wanted != wanted {
                let baseline = armed.wanted.baseline;
                armed.wanted = Wanted { baseline, ..wanted };
                self.maps.set_port(armed.number, &armed.wanted.port(&armed.tap))?;
            }
            return Ok(armed.number);
        }
        let Place::Host { ifindex } = wanted.place else { return Err(Error::PortsFull) };
        let number = self.free_number(Some(ifindex))?;
        self.maps.set_port(number, &wanted.port(&self.host_tap))?;
        self.maps.set_interface(ifindex, number)?;
        let attachment = match self.object.attach(ifindex, &wanted.place.pin_name()) {
            Ok(attachment) => attachment,
            Err(error) => {
                let _ = self.maps.remove_interface(ifindex);
                let _ = self.maps.set_port(number, &Port::default());
                path::unpin(&self.options, &wanted.place.pin_name());
                return Err(error.into());
            }
        };
        self.armed.insert(wanted.place.clone(), Armed { number, wanted, tap: self.host_tap, attachment });
        Ok(number)
    }

    /// From which counters of its device on an interface's bytes are compared.
    pub fn set_baseline(&mut self, place: &Place, baseline: LinkStats) {
        if let Some(armed) = self.armed.get_mut(place) {
            armed.wanted.baseline = Some(baseline);
        }
    }

    /// Reserves a number for an interface inside a container; its TAP has to be made before it is armed.
    pub fn arm_inside(&mut self, wanted: Wanted, netns: &Netns, tap: TapPlace, number: u16) -> Result<(), Error> {
        let Place::Inside { ifindex, .. } = wanted.place else { return Err(Error::PortsFull) };
        self.maps.set_port(number, &wanted.port(&tap))?;
        let object = PathObject::load_inside(&self.options, number)?;
        let pin = wanted.place.pin_name();
        let attached = netns.run(|| object.attach(ifindex, &pin))?;
        let attachment = match attached {
            Ok(attachment) => attachment,
            Err(error) => {
                let _ = self.maps.set_port(number, &Port::default());
                path::unpin(&self.options, &pin);
                return Err(error.into());
            }
        };
        self.inside.insert(number, object);
        self.armed.insert(wanted.place.clone(), Armed { number, wanted, tap, attachment });
        Ok(())
    }

    /// Takes the programs off; established connections go on.
    pub fn disarm(&mut self, place: &Place) -> Option<u16> {
        let armed = self.armed.remove(place)?;
        armed.attachment.detach();
        if let Place::Host { ifindex } = place {
            let _ = self.maps.remove_interface(*ifindex);
        }
        let _ = self.maps.set_port(armed.number, &Port::default());
        self.inside.remove(&armed.number);
        for (key, _) in self.maps.pairs() {
            if key.port == u32::from(armed.number) {
                let _ = self.maps.remove_pair(&key);
            }
        }
        // Flows of a number that will be given away again.
        let stale: Vec<FlowKey> = self.maps.flow_keys().filter(|key| key.port == u32::from(armed.number)).collect();
        for key in stale {
            let _ = self.maps.remove_flow(&key);
        }
        Some(armed.number)
    }

    /// Pins of interfaces that nobody wants any more, left by an earlier agent.
    pub fn drop_stale_pins(&self) {
        let known: HashSet<String> = self.armed.keys().map(Place::pin_name).collect();
        for name in path::pinned_names(&self.options) {
            if !known.contains(&name) {
                path::unpin(&self.options, &name);
            }
        }
        let armed: HashSet<u32> =
            self.armed.keys().filter_map(|place| if let Place::Host { ifindex } = place { Some(*ifindex) } else { None }).collect();
        for (ifindex, _) in self.maps.interfaces() {
            if !armed.contains(&ifindex) {
                let _ = self.maps.remove_interface(ifindex);
            }
        }
    }

    /// Addresses of workloads and of the host: what the kernel tier knows remotes by.
    pub fn set_addresses(&mut self, wanted: &BTreeMap<IpAddr, AddrValue>) -> Result<bool, Error> {
        let wanted: BTreeMap<AddrKey, AddrValue> = wanted.iter().map(|(address, value)| (AddrKey::of(*address), *value)).collect();
        if wanted == self.addresses {
            return Ok(false);
        }
        for (key, value) in &wanted {
            if self.addresses.get(key) != Some(value) {
                self.maps.set_address(*key, value)?;
            }
        }
        for key in self.maps.addresses() {
            if !wanted.contains_key(&key) {
                self.maps.remove_address(key)?;
            }
        }
        self.addresses = wanted;
        Ok(true)
    }

    pub fn set_segments(&mut self, wanted: BTreeMap<(u32, u32), SegmentValue>) -> Result<bool, Error> {
        if wanted == self.segments {
            return Ok(false);
        }
        for ((from, to), value) in &wanted {
            if self.segments.get(&(*from, *to)) != Some(value) {
                self.maps.set_segment(SegmentKey { from: *from, to: *to }, value)?;
            }
        }
        for key in self.maps.segments() {
            if !wanted.contains_key(&(key.from, key.to)) {
                self.maps.remove_segment(&key)?;
            }
        }
        self.segments = wanted;
        Ok(true)
    }

    /// Flows that pass because no rule could match them meet the new rules.
    pub fn forget_bypassed_by_policy(&self) {
        let judged: Vec<FlowKey> = self
            .maps
            .flow_keys()
            .filter(|key| {
                let by_policy = |flow: bulkhead_bpf::layout::Flow| {
                    flow.dir.iter().any(|dir| dir.verdict == 1 && usize::from(dir.class_id) == bulkhead_bpf::layout::class::BYPASS_POLICY)
                };
                self.maps.flow(key).ok().flatten().is_some_and(by_policy)
            })
            .collect();
        for key in judged {
            let _ = self.maps.remove_flow(&key);
        }
    }

    /// Flows of older generations are judged by the segment policy again at their next packet.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A number that no armed interface has; the one this interface had under an earlier agent if there is one.
    pub fn free_number(&self, ifindex: Option<u32>) -> Result<u16, Error> {
        let used: HashSet<u16> = self.armed.values().map(|armed| armed.number).collect();
        if let Some(ifindex) = ifindex
            && let Some((_, number)) = self.maps.interfaces().into_iter().find(|(found, _)| *found == ifindex)
            && !used.contains(&number)
        {
            return Ok(number);
        }
        (1..bulkhead_bpf::layout::PORTS_MAX as u16).find(|number| !used.contains(number)).ok_or(Error::PortsFull)
    }
}

/// Is this link the host's end of a container's veth or netkit pair? Engines make both ends on the host and move one
/// away: the end that stays has a master or a peer in another namespace.
pub fn is_container_end(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("veth" | "netkit")) && (link.master.is_some() || link.link_netnsid.is_some())
}

/// Interfaces of a workload that can only be armed inside its namespace.
pub fn inside_places(workload: &Workload) -> Vec<(Place, String)> {
    let Network::Own { netns } = workload.network else { return Vec::new() };
    workload
        .interfaces
        .iter()
        .filter(|interface| match interface.kind {
            InterfaceKind::Macvlan | InterfaceKind::Ipvlan => true,
            InterfaceKind::Veth | InterfaceKind::Netkit | InterfaceKind::Other => false,
        })
        .map(|interface| (Place::Inside { netns, ifindex: interface.ifindex }, interface.name.clone()))
        .collect()
}

/// What the policy's class pairs look like in the kernel.
pub fn segment_value(rules: &[(u8, u16, u16, bool, u16)]) -> SegmentValue {
    let mut value = SegmentValue::default();
    for (slot, (protocol, low, high, deny, rule)) in value.rules.iter_mut().zip(rules) {
        slot.protocol = *protocol;
        slot.port_low = *low;
        slot.port_high = *high;
        slot.action = u8::from(*deny);
        slot.rule = *rule;
    }
    value.count = rules.len().min(bulkhead_bpf::layout::PAIR_RULES_MAX) as u32;
    value
}
