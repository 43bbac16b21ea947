//! Link layers and VLAN tags, down to the first byte of IP.

use super::{DecodeEvent, Decoded, Events, Ignored, Layer, ip};

/// VLAN tags that are looked through. Linux delivers any number to stacked VLAN devices; three is what
/// Suricata reads, and a frame with more is refused.
pub const VLAN_TAGS_MAX: usize = 3;

/// MPLS labels before the bottom of the stack.
const MPLS_LABELS_MAX: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_PPPOE_DISCOVERY: u16 = 0x8863;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_MULTICAST: u16 = 0x8848;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;
const ETHERTYPE_NSH: u16 = 0x894f;
/// Below this the field is a length (IEEE 802.3).
const ETHERTYPE_MIN: u16 = 0x0600;

/// How a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LinkType {
    #[default]
    Ethernet,
    /// IPv4 or IPv6 at once; the version field tells.
    RawIp,
    /// Linux cooked capture v1 (`DLT_LINUX_SLL`).
    LinuxCooked,
    /// Linux cooked capture v2 (`DLT_LINUX_SLL2`).
    LinuxCooked2,
    /// BSD loopback with the address family in the byte order of the capturing host (`DLT_NULL`).
    Null,
    /// The same in network order (`DLT_LOOP`).
    Loop,
    /// PPP, with or without the address and control bytes.
    Ppp,
}

impl LinkType {
    /// From the number in a capture file's header (tcpdump.org, "Link-layer header types").
    /// `None` for the ones we do not read.
    pub const fn from_dlt(dlt: u32) -> Option<Self> {
        match dlt {
            0 => Some(Self::Null),
            1 => Some(Self::Ethernet),
            9 | 50 => Some(Self::Ppp),
            // 12 and 14 are DLT_RAW on some systems, 101 in files; 228 and 229 say the version.
            12 | 14 | 101 | 228 | 229 => Some(Self::RawIp),
            108 => Some(Self::Loop),
            113 => Some(Self::LinuxCooked),
            276 => Some(Self::LinuxCooked2),
            _ => None,
        }
    }
}

/// Addresses of an Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ether {
    pub dst: [u8; 6],
    pub src: [u8; 6],
    /// As it stands behind the addresses.
    pub first: u16,
    /// Of the payload, after all VLAN tags.
    pub ethertype: u16,
}

impl Ether {
    /// The fourteen bytes on the wire.
    pub fn header(&self) -> [u8; 14] {
        let mut header = [0; 14];
        header[..6].copy_from_slice(&self.dst);
        header[6..12].copy_from_slice(&self.src);
        header[12..].copy_from_slice(&self.first.to_be_bytes());
        header
    }
}

/// VLAN ids from the outermost tag inwards, 12 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VlanIds {
    ids: [u16; VLAN_TAGS_MAX],
    /// 0 <= len <= VLAN_TAGS_MAX
    len: u8,
}

impl VlanIds {
    pub const NONE: Self = Self { ids: [0; VLAN_TAGS_MAX], len: 0 };

    /// Ids beyond [`VLAN_TAGS_MAX`] are left out.
    pub fn new(ids: &[u16]) -> Self {
        let mut vlan = Self::NONE;
        for id in ids {
            vlan.push(*id);
        }
        vlan
    }

    pub fn as_slice(&self) -> &[u16] {
        self.ids.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub const fn len(&self) -> usize {
        self.len as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// False when it is full.
    fn push(&mut self, id: u16) -> bool {
        match self.ids.get_mut(usize::from(self.len)) {
            Some(slot) => {
                *slot = id & 0x0fff;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    pub(crate) const fn words(&self) -> u64 {
        let [a, b, c] = self.ids;
        (a as u64) | (b as u64) << 16 | (c as u64) << 32 | (self.len as u64) << 48
    }
}

pub(super) fn decode<'a>(layer: Layer<'a>, link: LinkType, bytes: &'a [u8]) -> Decoded<'a> {
    match link {
        LinkType::Ethernet => ethernet(layer, bytes),
        LinkType::RawIp => match bytes.first().map(|byte| byte >> 4) {
            Some(4 | 6) => ip::decode_any(layer, bytes, Events::NONE),
            Some(_) | None => layer.malformed(DecodeEvent::IprawInvalidIpVersion, Events::NONE),
        },
        LinkType::LinuxCooked => match bytes.split_first_chunk::<16>() {
            Some((head, rest)) => ethertype(layer, None, u16::from_be_bytes([head[14], head[15]]), rest),
            None => layer.malformed(DecodeEvent::SllPktTooSmall, Events::NONE),
        },
        LinkType::LinuxCooked2 => match bytes.split_first_chunk::<20>() {
            Some((head, rest)) => ethertype(layer, None, u16::from_be_bytes([head[0], head[1]]), rest),
            None => layer.malformed(DecodeEvent::Sll2PktTooSmall, Events::NONE),
        },
        LinkType::Null | LinkType::Loop => {
            let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
                return layer.malformed(DecodeEvent::LtnullPktTooSmall, Events::NONE);
            };
            let mut family = u32::from_be_bytes(*head);
            // A family fits in 16 bits: if the upper half is used, it was written in the other order.
            if link == LinkType::Null && family > 0xffff {
                family = family.swap_bytes();
            }
            match family {
                // AF_INET; AF_INET6 of NetBSD and OpenBSD, FreeBSD, macOS, Linux.
                2 => ip::decode_v4(layer, rest, Events::NONE),
                10 | 24 | 28 | 30 => ip::decode_v6(layer, rest, Events::NONE),
                other => Decoded::Ignored(Ignored::Family(other), None),
            }
        }
        LinkType::Ppp => match bytes.strip_prefix(&[0xff, 0x03]) {
            Some(rest) => ppp(layer, None, rest),
            None => ppp(layer, None, bytes),
        },
    }
}

/// Decodes what follows an EtherType: also the payload of GRE, VXLAN-GPE and Geneve.
pub(super) fn ethertype<'a>(mut layer: Layer<'a>, mut ether: Option<Ether>, first: u16, bytes: &'a [u8]) -> Decoded<'a> {
    let mut kind = first;
    let mut rest = bytes;
    loop {
        if let Some(ether) = &mut ether {
            ether.ethertype = kind;
        }
        let decoded = match kind {
            ETHERTYPE_IPV4 => ip::decode_v4(layer, rest, Events::NONE),
            ETHERTYPE_IPV6 => ip::decode_v6(layer, rest, Events::NONE),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD => {
                let Some((head, after)) = rest.split_first_chunk::<4>() else {
                    return layer.malformed(DecodeEvent::VlanHeaderTooSmall, Events::NONE);
                };
                if !layer.vlan.push(u16::from_be_bytes([head[0], head[1]])) {
                    return layer.malformed(DecodeEvent::VlanTooManyLayers, Events::NONE);
                }
                kind = u16::from_be_bytes([head[2], head[3]]);
                rest = after;
                continue;
            }
            ETHERTYPE_NSH => match nsh(rest) {
                Some((next, after)) => {
                    kind = next;
                    rest = after;
                    continue;
                }
                None => Decoded::Ignored(Ignored::EtherType(ETHERTYPE_NSH), None),
            },
            ETHERTYPE_ARP => arp(layer, rest),
            ETHERTYPE_PPPOE_SESSION => pppoe_session(layer, ether, rest),
            ETHERTYPE_PPPOE_DISCOVERY => pppoe_discovery(layer, rest),
            ETHERTYPE_MPLS | ETHERTYPE_MPLS_MULTICAST => mpls(layer, rest),
            length if length < ETHERTYPE_MIN => Decoded::Ignored(Ignored::Llc, None),
            other => Decoded::Ignored(Ignored::EtherType(other), None),
        };
        return with_ether(decoded, ether);
    }
}

fn with_ether(mut decoded: Decoded<'_>, ether: Option<Ether>) -> Decoded<'_> {
    match &mut decoded {
        Decoded::Packet(packet) => packet.ether = ether.or(packet.ether),
        Decoded::Ignored(_, of) => *of = ether,
        Decoded::Malformed(_) => {}
    }
    decoded
}

fn ethernet<'a>(layer: Layer<'a>, bytes: &'a [u8]) -> Decoded<'a> {
    let Some((head, rest)) = bytes.split_first_chunk::<14>() else {
        return layer.malformed(DecodeEvent::EthernetPktTooSmall, Events::NONE);
    };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head;
    let kind = u16::from_be_bytes([t0, t1]);
    let ether = Ether { dst: [d0, d1, d2, d3, d4, d5], src: [s0, s1, s2, s3, s4, s5], first: kind, ethertype: kind };
    ethertype(layer, Some(ether), kind, rest)
}

/// RFC 8300, section 2.2: what follows the header, and as which EtherType. `None`: not this, or cut.
fn nsh(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (&[version, length, _, next, ..], _) = bytes.split_first_chunk::<8>()?;
    let length = usize::from(length & 0x3f) * 4;
    if version >> 6 != 0 || length < 8 {
        return None;
    }
    let rest = bytes.get(length..)?;
    match next {
        1 => Some((ETHERTYPE_IPV4, rest)),
        2 => Some((ETHERTYPE_IPV6, rest)),
        3 => rest.split_first_chunk::<14>().map(|(head, after)| (u16::from_be_bytes([head[12], head[13]]), after)),
        5 => Some((ETHERTYPE_MPLS, rest)),
        _ => None,
    }
}

/// RFC 826 for IPv4 over Ethernet. Anything else that calls itself ARP is malformed: Linux' `arp_rcv` and
/// `arp_process` drop it too.
fn arp<'a>(layer: Layer<'a>, bytes: &[u8]) -> Decoded<'a> {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return layer.malformed(DecodeEvent::ArpPktTooSmall, Events::NONE);
    };
    let event = if u16::from_be_bytes([head[0], head[1]]) != 1 {
        DecodeEvent::ArpUnsupportedHardware
    } else if u16::from_be_bytes([head[2], head[3]]) != ETHERTYPE_IPV4 {
        DecodeEvent::ArpUnsupportedProtocol
    } else if head[4] != 6 {
        DecodeEvent::ArpInvalidHardwareSize
    } else if head[5] != 4 {
        DecodeEvent::ArpInvalidProtocolSize
    } else if rest.len() < 20 {
        DecodeEvent::ArpPktTooSmall
    } else if !(1..=10).contains(&u16::from_be_bytes([head[6], head[7]])) {
        DecodeEvent::ArpUnsupportedOpcode
    } else {
        return Decoded::Ignored(Ignored::Arp, None);
    };
    layer.malformed(event, Events::NONE)
}

/// RFC 2516, section 4.
fn pppoe_session<'a>(layer: Layer<'a>, ether: Option<Ether>, bytes: &'a [u8]) -> Decoded<'a> {
    let Some((head, rest)) = bytes.split_first_chunk::<6>() else {
        return layer.malformed(DecodeEvent::PppoePktTooSmall, Events::NONE);
    };
    if head[0] != 0x11 || head[1] != 0 {
        return layer.malformed(DecodeEvent::PppoeWrongCode, Events::NONE);
    }
    match rest.get(..usize::from(u16::from_be_bytes([head[4], head[5]]))) {
        Some(body) => ppp(layer, ether, body),
        None => layer.malformed(DecodeEvent::PppoePktTooSmall, Events::NONE),
    }
}

fn pppoe_discovery<'a>(layer: Layer<'a>, bytes: &[u8]) -> Decoded<'a> {
    let Some((head, rest)) = bytes.split_first_chunk::<6>() else {
        return layer.malformed(DecodeEvent::PppoePktTooSmall, Events::NONE);
    };
    // PADI, PADO, PADR, PADS, PADT
    if head[0] != 0x11 || !matches!(head[1], 0x09 | 0x07 | 0x19 | 0x65 | 0xa7) {
        return layer.malformed(DecodeEvent::PppoeWrongCode, Events::NONE);
    }
    let Some(mut tags) = rest.get(..usize::from(u16::from_be_bytes([head[4], head[5]]))) else {
        return layer.malformed(DecodeEvent::PppoePktTooSmall, Events::NONE);
    };
    while let Some((tag, after)) = tags.split_first_chunk::<4>() {
        match after.get(usize::from(u16::from_be_bytes([tag[2], tag[3]]))..) {
            Some(next) => tags = next,
            None => return layer.malformed(DecodeEvent::PppoeMalformedTags, Events::NONE),
        }
    }
    Decoded::Ignored(Ignored::Ppp, None)
}

/// The protocol field of PPP (RFC 1661, section 2), one byte when compressed.
pub(super) fn ppp<'a>(layer: Layer<'a>, ether: Option<Ether>, bytes: &'a [u8]) -> Decoded<'a> {
    let (protocol, rest) = match bytes {
        [odd, rest @ ..] if odd & 1 == 1 => (u16::from(*odd), rest),
        [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        [_] | [] => return layer.malformed(DecodeEvent::PppPktTooSmall, Events::NONE),
    };
    match protocol {
        0x0021 if rest.len() < 20 => layer.malformed(DecodeEvent::PppIp4PktTooSmall, Events::NONE),
        0x0057 if rest.len() < 40 => layer.malformed(DecodeEvent::PppIp6PktTooSmall, Events::NONE),
        0x0021 => with_ether(ip::decode_v4(layer, rest, Events::NONE), ether),
        0x0057 => with_ether(ip::decode_v6(layer, rest, Events::NONE), ether),
        // RFC 1661: the low byte is odd, the high byte even.
        other if other & 0x0101 != 1 => layer.malformed(DecodeEvent::PppWrongType, Events::NONE),
        _ => Decoded::Ignored(Ignored::Ppp, None),
    }
}

/// RFC 3032: labels up to the bottom of the stack, then IP by its version field.
fn mpls<'a>(layer: Layer<'a>, bytes: &'a [u8]) -> Decoded<'a> {
    let mut rest = bytes;
    for _ in 0..MPLS_LABELS_MAX {
        let Some((shim, after)) = rest.split_first_chunk::<4>() else {
            return layer.malformed(DecodeEvent::MplsHeaderTooSmall, Events::NONE);
        };
        rest = after;
        let shim = u32::from_be_bytes(*shim);
        if shim >> 8 & 1 == 0 {
            continue;
        }
        return match (shim >> 12, rest.first().map(|byte| byte >> 4)) {
            (1, _) => layer.malformed(DecodeEvent::MplsBadLabelRouterAlert, Events::NONE),
            (3, _) => layer.malformed(DecodeEvent::MplsBadLabelImplicitNull, Events::NONE),
            (4..=15, _) => layer.malformed(DecodeEvent::MplsBadLabelReserved, Events::NONE),
            (_, None) => layer.malformed(DecodeEvent::MplsPktTooSmall, Events::NONE),
            (0, _) | (_, Some(4)) => ip::decode_v4(layer, rest, Events::NONE),
            (2, _) | (_, Some(6)) => ip::decode_v6(layer, rest, Events::NONE),
            (_, Some(_)) => layer.malformed(DecodeEvent::MplsUnknownPayloadType, Events::NONE),
        };
    }
    layer.malformed(DecodeEvent::MplsUnknownPayloadType, Events::NONE)
}
