//! A held frame's tag, and the few header fields that are needed before the engine decodes the frame.

use std::net::IpAddr;

use bulkhead_bpf::layout::{Command, Tag};

/// Bytes of the virtio-net header before each frame on the TAP.
pub const VNET_BYTES: usize = 10;
/// Two Ethernet addresses.
const ADDRESSES: usize = 12;
const TAG_BYTES: usize = 4;
/// The shortest held frame: virtio-net header, addresses, tag, type.
pub const HELD_BYTES_MIN: usize = VNET_BYTES + ADDRESSES + TAG_BYTES + 2;

/// Takes the tag off a held frame in place. The frame then begins at `VNET_BYTES + 4`.
/// `None`: not one of ours.
pub fn untag(buffer: &mut [u8]) -> Option<Tag> {
    if buffer.len() < HELD_BYTES_MIN {
        return None;
    }
    let at = VNET_BYTES + ADDRESSES;
    if u16::from_be_bytes([buffer[at], buffer[at + 1]]) != Tag::PROTOCOL {
        return None;
    }
    let tag = Tag::parse(u16::from_be_bytes([buffer[at + 2], buffer[at + 3]]));
    buffer.copy_within(VNET_BYTES..at, VNET_BYTES + TAG_BYTES);
    Some(tag)
}

/// Puts the tag back, with the command, after [`untag`].
pub fn retag(buffer: &mut [u8], tag: Tag, command: Command) {
    let at = VNET_BYTES + ADDRESSES;
    if buffer.len() < HELD_BYTES_MIN {
        return;
    }
    buffer.copy_within(VNET_BYTES + TAG_BYTES..at + TAG_BYTES, VNET_BYTES);
    buffer[at..at + 2].copy_from_slice(&Tag::PROTOCOL.to_be_bytes());
    buffer[at + 2..at + 4].copy_from_slice(&tag.encode(command).to_be_bytes());
}

/// The frame without virtio-net header and tag.
pub fn frame(buffer: &[u8]) -> &[u8] {
    &buffer[(VNET_BYTES + TAG_BYTES).min(buffer.len())..]
}

/// What a glance at the headers tells. Only a hint for choosing shard and enforcement: the engine decodes for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// 0 where there are none or they are not in this fragment.
    pub src_port: u16,
    pub dst_port: u16,
    pub fragment: bool,
    /// Outer VLAN ids folded as the kernel tier folds them.
    pub vlan: u16,
    /// Where the IP header begins.
    pub ip_at: usize,
    /// Where the transport header begins.
    pub transport_at: usize,
}

/// `None` for what is not IPv4 or IPv6, or too short to tell.
pub fn glance(frame: &[u8]) -> Option<Glance> {
    let short = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = 12;
    let mut kind = short(at)?;
    let mut vlan = 0u16;
    for _ in 0..2 {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        let id = short(at + 2)? & 0xfff;
        vlan = if vlan == 0 { id | 0x8000 } else { (vlan << 4) ^ id ^ 0x8000 };
        at += 4;
        kind = short(at)?;
    }
    let version = match kind {
        0x0800 => 4,
        0x86dd => 6,
        _ => return None,
    };
    // What another tag, or a label, happens to begin with is no version.
    if frame.get(at + 2)? >> 4 != version {
        return None;
    }
    glance_ip(frame, at + 2, vlan)
}

/// The same for what begins with its IP header at `ip_at`.
pub fn glance_ip(frame: &[u8], ip_at: usize, vlan: u16) -> Option<Glance> {
    let (src, dst, protocol, fragment, transport_at): (IpAddr, IpAddr, u8, bool, usize) = match frame.get(ip_at)? >> 4 {
        4 => {
            let header = frame.get(ip_at..ip_at + 20)?;
            let address = |from: usize| <[u8; 4]>::try_from(&header[from..from + 4]).map(IpAddr::from).ok();
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
            (address(12)?, address(16)?, header[9], fragment, ip_at + usize::from(header[0] & 15) * 4)
        }
        6 => {
            let header = frame.get(ip_at..ip_at + 40)?;
            let address = |from: usize| <[u8; 16]>::try_from(&header[from..from + 16]).map(IpAddr::from).ok();
            (address(8)?, address(24)?, header[6], header[6] == 44, ip_at + 40)
        }
        _ => return None,
    };
    let short = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (src_port, dst_port) = match protocol {
        6 | 17 | 132 if !fragment => (short(transport_at).unwrap_or(0), short(transport_at + 2).unwrap_or(0)),
        _ => (0, 0),
    };
    Some(Glance { src, dst, protocol, src_port, dst_port, fragment, vlan, ip_at, transport_at })
}

/// Numbers for the resets that end a rejected TCP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resets {
    /// Sequence number of the rejected segment, its acknowledgement number, and the sequence space it takes.
    pub seq: u32,
    pub ack: u32,
    pub length: u32,
}

/// The frames that reject `frame`: a reset towards its receiver and one towards its sender for TCP, an
/// unreachable (RFC 792, RFC 4443) towards the sender for UDP. `(frame with virtio-net header, same direction?)`.
pub fn rejections(frame: &[u8], glance: &Glance) -> Vec<(Vec<u8>, bool)> {
    match glance.protocol {
        6 => {
            let Some(tcp) = frame.get(glance.transport_at..glance.transport_at + 20) else { return Vec::new() };
            let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            let (seq, ack, flags) = (word(4), word(8), tcp[13]);
            let header = usize::from(tcp[12] >> 4) * 4;
            let ip_end = match glance.src {
                IpAddr::V4(_) => {
                    let total = u16::from_be_bytes([frame[glance.ip_at + 2], frame[glance.ip_at + 3]]);
                    if total == 0 { frame.len() } else { (glance.ip_at + usize::from(total)).min(frame.len()) }
                }
                IpAddr::V6(_) => frame.len(),
            };
            let payload = ip_end.saturating_sub(glance.transport_at + header) as u32;
            let taken = payload + u32::from(flags & 0x02 != 0) + u32::from(flags & 0x01 != 0);
            // RFC 9293 section 3.5.2: the reset carries the acknowledged number, or acknowledges what came.
            let to_receiver = tcp_frame(frame, glance, false, seq, ack, 0x14);
            let to_sender = tcp_frame(frame, glance, true, ack, seq.wrapping_add(taken), 0x14);
            vec![(to_receiver, true), (to_sender, false)]
        }
        17 => unreachable_frame(frame, glance).map(|frame| vec![(frame, false)]).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Link header of `frame`, turned round or not.
fn link_header(frame: &[u8], glance: &Glance, back: bool) -> Vec<u8> {
    let mut out = vec![0; VNET_BYTES];
    if back {
        out.extend_from_slice(&frame[6..12]);
        out.extend_from_slice(&frame[0..6]);
    } else {
        out.extend_from_slice(&frame[0..12]);
    }
    out.extend_from_slice(&frame[12..glance.ip_at]);
    out
}

fn ip_header(out: &mut Vec<u8>, src: IpAddr, dst: IpAddr, protocol: u8, payload: usize) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
            header[6] = 0x40;
            header[8] = 64;
            header[9] = protocol;
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            let sum = !fold(sum(&header, 0));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&header);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = [0u8; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            header[6] = protocol;
            header[7] = 64;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
            out.extend_from_slice(&header);
        }
        _ => {}
    }
}

fn tcp_frame(frame: &[u8], glance: &Glance, back: bool, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut out = link_header(frame, glance, back);
    let (src, dst) = if back { (glance.dst, glance.src) } else { (glance.src, glance.dst) };
    let (src_port, dst_port) = if back { (glance.dst_port, glance.src_port) } else { (glance.src_port, glance.dst_port) };
    ip_header(&mut out, src, dst, 6, 20);
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&src_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&dst_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    let checksum = !fold(sum(&tcp, pseudo(src, dst, 6, 20)));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&tcp);
    out
}

/// Port unreachable with the head of the offending packet.
fn unreachable_frame(frame: &[u8], glance: &Glance) -> Option<Vec<u8>> {
    let mut out = link_header(frame, glance, true);
    let quoted = frame.get(glance.ip_at..)?;
    let quoted = &quoted[..quoted.len().min(548)];
    let (kind, code, protocol) = if glance.src.is_ipv4() { (3u8, 3u8, 1u8) } else { (1, 4, 58) };
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(quoted);
    let start = if glance.src.is_ipv4() { 0 } else { pseudo(glance.dst, glance.src, 58, icmp.len()) };
    let checksum = !fold(sum(&icmp, start));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip_header(&mut out, glance.dst, glance.src, protocol, icmp.len());
    out.extend_from_slice(&icmp);
    Some(out)
}

/// RFC 1071.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    total
}

fn fold(mut total: u32) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u32 {
    let mut bytes = Vec::with_capacity(40);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend_from_slice(&src.octets());
            bytes.extend_from_slice(&dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend_from_slice(&src.octets());
            bytes.extend_from_slice(&dst.octets());
        }
        _ => {}
    }
    sum(&bytes, 0) + u32::from(protocol) + length as u32
}

/// Tags a made frame (virtio-net header first) for injection.
pub fn tagged(mut made: Vec<u8>, tag: Tag) -> Vec<u8> {
    let at = VNET_BYTES + ADDRESSES;
    if made.len() < at {
        return made;
    }
    let tci = tag.encode(Command::Inject).to_be_bytes();
    let protocol = Tag::PROTOCOL.to_be_bytes();
    made.splice(at..at, [protocol[0], protocol[1], tci[0], tci[1]]);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        ip_header(&mut frame, "198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap(), 6, 24);
        frame.extend_from_slice(&[0x10, 0, 0, 80, 0, 0, 0, 100, 0, 0, 0, 200, 0x50, 0x18, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        frame
    }

    #[test]
    fn a_frame_survives_losing_and_regaining_its_tag() {
        let plain = syn();
        let tag = Tag { port: 77, to_container: true, gap: true, foreign: true };
        let mut held = tagged([vec![0; VNET_BYTES], plain.clone()].concat(), tag);
        let original = held.clone();
        assert_eq!(untag(&mut held), Some(tag));
        assert_eq!(frame(&held), plain);
        retag(&mut held, tag, Command::Inject);
        assert_eq!(held, original);
    }

    #[test]
    fn what_is_short_or_untagged_is_not_ours() {
        for length in 0..HELD_BYTES_MIN {
            assert_eq!(untag(&mut vec![0; length]), None);
        }
        assert_eq!(untag(&mut [0; 100]), None);
    }

    #[test]
    fn a_reset_answers_with_the_numbers_the_receiver_expects() {
        let frame = syn();
        let glance = glance(&frame).unwrap();
        assert_eq!((glance.src_port, glance.dst_port, glance.protocol), (0x1000, 80, 6));
        let made = rejections(&frame, &glance);
        assert_eq!(made.len(), 2);
        let (to_receiver, same) = &made[0];
        assert!(same);
        assert_eq!(to_receiver[VNET_BYTES + 34 + 4..VNET_BYTES + 34 + 8], 100u32.to_be_bytes());
        let (to_sender, same) = &made[1];
        assert!(!same);
        assert_eq!(to_sender[VNET_BYTES + 34 + 4..VNET_BYTES + 34 + 8], 200u32.to_be_bytes());
        assert_eq!(to_sender[VNET_BYTES + 34 + 8..VNET_BYTES + 34 + 12], 104u32.to_be_bytes());
        // Both checksums verify.
        for (made, _) in &made {
            let ip = &made[VNET_BYTES + 14..];
            assert_eq!(fold(sum(&ip[..20], 0)), 0xffff);
            let (src, dst) = (<[u8; 4]>::try_from(&ip[12..16]).unwrap(), <[u8; 4]>::try_from(&ip[16..20]).unwrap());
            assert_eq!(fold(sum(&ip[20..], pseudo(src.into(), dst.into(), 6, 20))), 0xffff);
        }
    }

    #[test]
    fn any_bytes_can_be_glanced_at() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = syn();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            bytes.truncate((state >> 40) as usize % (bytes.len() + 1));
            if let Some(glance) = glance(&bytes) {
                let _ = rejections(&bytes, &glance);
            }
        }
    }
}
