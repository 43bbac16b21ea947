//! The Rust twins of bpf/include/path.h. Tests compare sizes; key and value sizes are compared again when maps are loaded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const PORTS_MAX: u32 = 4096;
pub const QUEUES_MAX: usize = 64;
/// Fill levels: one for each queue of the host's TAP, then one for each port, whose interface may have a TAP of its own.
pub const SLOTS_MAX: usize = QUEUES_MAX + PORTS_MAX as usize;
/// A TAP queue is made with room for so many frames.
pub const QUEUE_FRAMES: u32 = 4096;
pub const PAIR_RULES_MAX: usize = 16;
pub const CLASS_COUNT: usize = 16;
pub const COUNT_COUNT: usize = 16;

/// Plain bytes: `repr(C)`, no padding that is not a named field, any bit pattern valid.
///
/// # Safety
/// The implementor has no padding bytes and no invalid bit patterns.
#[allow(unsafe_code)]
pub unsafe trait Plain: Copy + 'static {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Plain` promises that every byte of the value is initialised.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// `None` when the length differs.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length is right, any bit pattern is valid, and the read is unaligned.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

macro_rules! plain {
    ($($name:ident),*) => { $(
        // SAFETY: repr(C) integers and arrays of them; every gap is a named field (checked by `no_hidden_padding`).
        #[allow(unsafe_code)]
        unsafe impl Plain for $name {}
    )* };
}
plain!(
    QueueFill,
    PathCfg,
    Port,
    AddrKey,
    AddrValue,
    FlowKey,
    FlowDir,
    Flow,
    PairKey,
    PairValue,
    SegmentKey,
    SegmentRule,
    SegmentValue,
    PathEvent
);
// SAFETY: an integer.
#[allow(unsafe_code)]
unsafe impl Plain for u32 {}
// SAFETY: an integer.
#[allow(unsafe_code)]
unsafe impl Plain for u64 {}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PathCfg {
    pub fail_after_ns: u64,
    pub flags: u32,
    pub queues: u32,
    pub generation: u32,
    pub pad: u32,
    pub heartbeat_ns: [u64; QUEUES_MAX],
}

pub mod cfg_flags {
    pub const HOLD_SYN: u32 = 1;
    pub const HOLD_ALL: u32 = 2;
    pub const SEGMENT_DENY: u32 = 4;
    pub const GUARD: u32 = 8;
    pub const GUARD_CLOSED: u32 = 16;
}

pub mod port_flags {
    pub const ARMED: u32 = 1;
    pub const PROTECT: u32 = 2;
    pub const FAIL_CLOSED: u32 = 4;
    pub const BYPASS: u32 = 8;
    pub const INSIDE: u32 = 16;
}

pub const ADDR_PROTECT: u32 = 1;

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Port {
    pub ifindex: u32,
    pub tap_ifindex: u32,
    pub workload: u32,
    pub flags: u32,
    pub class_id: u32,
    pub queue: u32,
    pub queues: u32,
    /// Fill level of the first queue.
    pub slot: u32,
}

/// How full a TAP queue is: frames sent to it less frames read from it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct QueueFill {
    /// Written by the kernel tier.
    pub held: u64,
    pub pad1: [u64; 7],
    /// Written by the queue's worker.
    pub taken: u64,
    pub pad2: [u64; 7],
}

/// An address of either family: network order, IPv4 in the first word with the last all ones.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AddrKey {
    pub words: [u32; 4],
}

impl AddrKey {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { words: [u32::from_ne_bytes(v4.octets()), 0, 0, u32::MAX] },
            IpAddr::V6(v6) => {
                let o = v6.octets();
                let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                Self { words: [word(0), word(4), word(8), word(12)] }
            }
        }
    }

    /// The address, by the version the flow key names.
    pub fn address(words: &[u32; 4], version: u8) -> Option<IpAddr> {
        match version {
            4 => Some(IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()))),
            6 => {
                let mut octets = [0; 16];
                for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
                    chunk.copy_from_slice(&word.to_ne_bytes());
                }
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            }
            _ => None,
        }
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddrValue {
    pub workload: u32,
    pub class_id: u32,
    pub flags: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey {
    pub port: u32,
    pub container: [u32; 4],
    pub remote: [u32; 4],
    /// Network order.
    pub container_port: u16,
    /// Network order.
    pub remote_port: u16,
    pub vlan: u16,
    pub protocol: u8,
    pub version: u8,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowDir {
    pub next_seq: u32,
    pub ack: u32,
    pub isn: u32,
    pub held: u32,
    pub returned: u32,
    pub verdict: u8,
    pub class_id: u8,
    pub queue: u16,
    pub held_ns: u64,
    pub packets: u64,
    pub bytes: u64,
}

pub mod seen {
    pub const SYN: u8 = 1;
    pub const SYN_ACK: u8 = 2;
    pub const DATA: u8 = 4;
    pub const FROM_CONTAINER: u8 = 8;
    /// From the container; one bit higher: towards it. Packets passed unseen since the last one that was held.
    pub const GAP: u8 = 16;
    /// Packets of it met a queue whose worker did not answer, or that was full.
    pub const FAILED: u8 = 128;
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    pub role: u8,
    pub seen: u8,
    pub verdict: u8,
    pub class_id: u8,
    pub generation: u32,
    pub remote: u32,
    pub rule: u32,
    pub created_ns: u64,
    pub last_ns: u64,
    /// 0 from the container, 1 towards it.
    pub dir: [FlowDir; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PairKey {
    pub port: u32,
    pub remote: u32,
    pub direction: u8,
    pub version: u8,
    pub flags: u8,
    pub pad: u8,
}

pub const PAIR_VLAN: u8 = 1;
pub const PAIR_FRAGMENT: u8 = 2;

/// Bytes and packets by [`class`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairValue {
    pub bytes: [u64; CLASS_COUNT],
    pub packets: [u64; CLASS_COUNT],
}

/// What became of the bytes of a packet; see `enum byte_class`.
pub mod class {
    pub const INSPECTED: usize = 0;
    pub const HEADER: usize = 1;
    pub const BYPASS_DEPTH: usize = 2;
    pub const BYPASS_ENCRYPTED: usize = 3;
    pub const BYPASS_POLICY: usize = 4;
    pub const FAIL_OPEN: usize = 5;
    pub const ELSEWHERE: usize = 6;
    pub const NON_IP: usize = 7;
    pub const DROP_ENGINE: usize = 8;
    pub const DROP_FLOW: usize = 9;
    pub const DROP_SEGMENT: usize = 10;
    pub const DROP_FAIL_CLOSED: usize = 11;
    pub const DROP_UNKNOWN: usize = 12;
    pub const HELD: usize = 13;
    pub const INJECTED: usize = 14;
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SegmentKey {
    pub from: u32,
    pub to: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentRule {
    pub port_low: u16,
    pub port_high: u16,
    pub protocol: u8,
    /// 0 allow, 1 deny.
    pub action: u8,
    pub rule: u16,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentValue {
    pub count: u32,
    pub pad: u32,
    pub rules: [SegmentRule; PAIR_RULES_MAX],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathEvent {
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    pub kind: u32,
    pub port: u32,
    pub remote: u32,
    pub rule: u32,
    pub length: u32,
    pub enforced: u8,
    pub direction: u8,
    pub tcp_flags: u8,
    pub pad: u8,
    pub key: FlowKey,
    pub tail: u32,
}

pub mod event_kind {
    pub const SEGMENT_DENIED: u32 = 1;
    pub const FAIL_OPEN: u32 = 2;
    pub const FAIL_CLOSED: u32 = 3;
    pub const FOREIGN_SOURCE: u32 = 4;
    pub const UNKNOWN_INTERFACE: u32 = 5;
}

/// Names of `enum path_counter`, in its order.
pub const COUNTER_NAMES: [&str; 14] = [
    "flows_new",
    "flows_full",
    "pairs_full",
    "events_lost",
    "odd_headers",
    "fragments",
    "foreign_source",
    "syn_reuse",
    "return_unknown",
    "no_port",
    "inflight_leaked",
    "guard_dropped",
    "guard_passed",
    "queue_full",
];

/// The tag that a held frame carries on the TAP, as the two bytes after the tag's protocol, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Number of the armed interface.
    pub port: u16,
    pub to_container: bool,
    /// Towards user space: packets of this flow and direction before it passed unseen.
    pub gap: bool,
    /// Somebody else sent it in the remote end's name.
    pub foreign: bool,
}

/// What user space says of a held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    Accept = 0,
    BypassDepth = 1,
    BypassEncrypted = 2,
    BypassPolicy = 3,
    Drop = 4,
    DropFlow = 5,
    Reject = 6,
    Inject = 7,
}

impl Tag {
    /// 802.1ad.
    pub const PROTOCOL: u16 = 0x88a8;

    pub const fn parse(tci: u16) -> Self {
        Self { port: tci & 0x0fff, to_container: tci & 0x1000 != 0, gap: tci & 0x2000 != 0, foreign: tci & 0x4000 != 0 }
    }

    pub const fn encode(self, command: Command) -> u16 {
        (self.port & 0x0fff) | if self.to_container { 0x1000 } else { 0 } | ((command as u16) << 13)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hidden_padding() {
        assert_eq!(size_of::<PathCfg>(), 8 + 4 * 4 + 8 * QUEUES_MAX);
        assert_eq!(size_of::<Port>(), 32);
        assert_eq!(size_of::<QueueFill>(), 128);
        assert_eq!(size_of::<FlowKey>(), 4 + 16 + 16 + 2 * 3 + 2);
        assert_eq!(size_of::<FlowDir>(), 5 * 4 + 4 + 3 * 8);
        assert_eq!(size_of::<Flow>(), 4 + 3 * 4 + 2 * 8 + 2 * size_of::<FlowDir>());
        assert_eq!(size_of::<PairKey>(), 12);
        assert_eq!(size_of::<PairValue>(), 256);
        assert_eq!(size_of::<SegmentRule>(), 8);
        assert_eq!(size_of::<SegmentValue>(), 8 + 8 * PAIR_RULES_MAX);
        assert_eq!(size_of::<PathEvent>(), 8 + 5 * 4 + 4 + size_of::<FlowKey>() + 4);
    }

    #[test]
    fn an_address_comes_back_from_its_key() {
        for text in ["198.51.100.7", "0.0.0.0", "2001:db8::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            let key = AddrKey::of(address);
            assert_eq!(AddrKey::address(&key.words, if address.is_ipv4() { 4 } else { 6 }), Some(address));
        }
    }

    #[test]
    fn a_tag_carries_port_direction_and_command() {
        let tag = Tag { port: 4095, to_container: true, gap: true, foreign: true };
        assert_eq!(Tag::parse(tag.encode(Command::Inject)), tag);
        assert_eq!(Tag::parse(0x7fff), tag);
        assert_eq!(Tag::parse(0x1fff), Tag { gap: false, foreign: false, ..tag });
        assert_eq!(tag.encode(Command::Reject) >> 13, 6);
    }
}
