//! Bodies for a fuzzer: any bytes in, a panic when a promise is broken. `cargo test` replays them over a small
//! corpus and over mutated frames, so that no fuzzing toolchain is needed to have them run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_model::Timestamp;

use crate::craft;
use crate::decode::{ChecksumState, Decoded, Decoder, FrameMeta, LinkType, Packet, Tcp, TcpFlags, TcpOptions};
use crate::defrag::{Defrag, DefragConfig, Defragged};
use crate::flow::{Direction, Handshake};
use crate::stream::{Reassembler, SegmentOutcome, StreamConfig, StreamEnd, StreamSink};

/// The first byte chooses the link type and what is known of checksums; the rest is a frame. Promises: all
/// slices of a packet lie within the frame, tunnels end, and one thing is counted per layer.
pub fn fuzz_decode(data: &[u8]) {
    let Some((choice, frame)) = data.split_first() else { return };
    let links = [
        LinkType::Ethernet,
        LinkType::RawIp,
        LinkType::LinuxCooked,
        LinkType::LinuxCooked2,
        LinkType::Null,
        LinkType::Loop,
        LinkType::Ppp,
        LinkType::Ethernet,
    ];
    let checksum = match choice >> 3 & 3 {
        0 => ChecksumState::Unknown,
        1 => ChecksumState::Partial { start: 34 },
        2 => ChecksumState::Verified,
        _ => ChecksumState::Ignored,
    };
    let link = links.get(usize::from(choice & 7)).copied().unwrap_or_default();
    let meta = FrameMeta { link, checksum, gso: choice & 0x20 != 0 };
    let mut decoder = Decoder::default();
    let mut next = Some(decoder.frame(meta, frame));
    let mut layers = 0;
    while let Some(decoded) = next.take() {
        layers += 1;
        match decoded {
            Decoded::Packet(packet) => {
                check_packet(&packet, frame);
                let _ = craft::reset_to_source(&packet);
                let _ = craft::reset_to_destination(&packet);
                let _ = craft::prohibited_to_source(&packet);
                next = decoder.inner(&packet);
            }
            Decoded::Malformed(malformed) => assert!(malformed.events.contains(malformed.event)),
            Decoded::Ignored(..) => {}
        }
    }
    assert_eq!(decoder.stats.packets, layers);
    assert_eq!(decoder.stats.bytes, frame.len() as u64);
}

fn check_packet(packet: &Packet<'_>, frame: &[u8]) {
    let frame_range = frame.as_ptr_range();
    for part in [packet.payload, packet.ip.header, packet.ip.payload] {
        let range = part.as_ptr_range();
        assert!(part.is_empty() || (range.start >= frame_range.start && range.end <= frame_range.end), "outside of the frame");
    }
    assert!(packet.payload.len() <= packet.ip.payload.len());
    assert!(packet.ip.header.len() + packet.ip.payload.len() <= frame.len());
    assert_eq!(packet.src().is_ipv4(), packet.dst().is_ipv4());
    assert_eq!(packet.frame_len, frame.len());
}

/// Four bytes are one fragment: kind (version, enforcing, more, id), offset, length, filling. Promises: caps
/// hold, a datagram has its header set right and at most 65,535 bytes.
pub fn fuzz_defrag(data: &[u8]) {
    let config = DefragConfig { trackers_max: 4, bytes_max: 8000, closed_max: 8, completed_max: 4, ..DefragConfig::default() };
    let (trackers_max, bytes_max) = (config.trackers_max, config.bytes_max);
    let mut defrag = Defrag::new(config);
    let (a4, b4) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
    let (a6, b6) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let mut seconds = 1;
    for &[kind, offset, len, fill] in data.as_chunks::<4>().0 {
        let (src, dst) = if kind & 1 == 0 { (a4, b4) } else { (a6, b6) };
        let (enforce, more, id) = (kind & 2 != 0, kind & 4 != 0, u32::from(kind >> 3 & 7));
        if kind >> 6 == 3 {
            seconds += u64::from(len);
        }
        let offset = u16::from(offset) * if fill & 0x80 != 0 { 256 } else { 8 };
        let piece = vec![fill; usize::from(len) * if kind & 0x40 != 0 { 8 } else { 1 }];
        let bytes = craft::fragment(src, dst, 17, id, offset, more, &piece);
        let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
        let mut decoder = Decoder::default();
        let Decoded::Packet(packet) = decoder.frame(meta, &bytes) else { continue };
        if packet.ip.fragment.is_none() {
            continue;
        }
        if let Defragged::Whole(whole) = defrag.fragment(Timestamp::from_secs(seconds), 0, &packet, enforce) {
            assert!(whole.len() <= 65_535 + 40);
            if let Decoded::Packet(datagram) = decoder.datagram(&packet, whole) {
                assert!(datagram.ip.fragment.is_none());
                assert_eq!((datagram.src(), datagram.dst(), datagram.proto()), (src, dst, 17));
                assert_eq!(datagram.ip.header.len() + datagram.ip.payload.len(), whole.len());
            }
        }
        assert!(defrag.len() <= trackers_max && defrag.memory() <= bytes_max);
    }
    defrag.expire(Timestamp::from_secs(seconds + 100));
    assert!(defrag.is_empty() && defrag.memory() == 0);
}

/// Counts what it is told, and that offsets have no holes.
#[derive(Default)]
struct Auditor {
    offsets: [u64; 2],
    ended: [bool; 2],
}

impl Auditor {
    fn step(&mut self, dir: Direction, offset: u64, len: u64) {
        let at = match dir {
            Direction::ToServer => 0,
            Direction::ToClient => 1,
        };
        assert!(len > 0 && !self.ended[at]);
        assert_eq!(self.offsets[at], offset);
        self.offsets[at] += len;
    }
}

impl StreamSink for Auditor {
    fn data(&mut self, dir: Direction, offset: u64, bytes: &[u8]) {
        self.step(dir, offset, bytes.len() as u64);
    }

    fn gap(&mut self, dir: Direction, offset: u64, len: u64) {
        self.step(dir, offset, len);
    }

    fn end(&mut self, dir: Direction, _how: StreamEnd) {
        let at = match dir {
            Direction::ToServer => 0,
            Direction::ToClient => 1,
        };
        assert!(!std::mem::replace(&mut self.ended[at], true));
    }
}

/// The first two bytes choose mode and caps; then six bytes are one segment: flags, direction and odd options,
/// sequence number, acknowledgement, length, filling. Promises: offsets have no holes, nothing comes after the
/// end, an enforcing caller's refused segments hand out nothing, memory keeps to its cap and is given back.
pub fn fuzz_stream(data: &[u8]) {
    let Some((&[mode, caps], rest)) = data.split_first_chunk::<2>() else { return };
    let config = StreamConfig {
        ring_bytes_max: 64 << (caps & 7),
        ofo_bytes_max: 256 << (caps >> 3 & 7),
        ofo_segments_max: 4 + usize::from(caps >> 6),
        memory_bytes_max: 6000,
        acks_seen: mode & 4 != 0,
        midstream: mode & 8 != 0,
        ..StreamConfig::default()
    };
    let mut reassembler = Reassembler::new(config);
    let handshake = Handshake { source_is_client: true, client_next: Some(100), server_next: (mode & 32 != 0).then_some(200) };
    let mut enforce = mode & 1 != 0;
    let mut stream = reassembler.open(enforce, (mode & 16 != 0).then_some(&handshake));
    let mut sink = Auditor::default();
    let mut now = 0;
    for &[flags, odd, seq, ack, len, fill] in rest.as_chunks::<6>().0 {
        let dir = if odd & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
        let (seq_base, ack_base) = match dir {
            Direction::ToServer => (99u32, 199u32),
            Direction::ToClient => (199, 99),
        };
        let far = if odd & 2 != 0 { 0x1000_0000u32.wrapping_mul(u32::from(fill)) } else { 0 };
        let tcp = Tcp {
            src_port: 1,
            dst_port: 2,
            seq: seq_base.wrapping_add(u32::from(seq)).wrapping_add(far),
            ack: ack_base.wrapping_add(u32::from(ack) * 4),
            // Mostly acknowledgements with payload: the others end a connection soon.
            flags: if flags & 0xc0 == 0 { TcpFlags(u16::from(flags & 0x3f)) } else { TcpFlags::ACK },
            window: u16::from(len) << 4,
            urgent: u16::from(fill),
            reserved: 0,
            options: TcpOptions {
                timestamp: (odd & 4 != 0).then_some((u32::from(fill), 0)),
                signed: odd & 0x18 == 0x18,
                fast_open: odd & 0x28 == 0x28,
                ..TcpOptions::default()
            },
            options_raw: &[],
        };
        now += u64::from(odd >> 6) * 300_000_000;
        let payload = vec![fill & 3; usize::from(len & 0x7f) * if odd & 0x10 != 0 { 16 } else { 1 }];
        let before = sink.offsets;
        let outcome = reassembler.segment(&mut stream, Timestamp(now), dir, &tcp, &payload, &mut sink);
        let at = usize::from(odd & 1);
        match outcome {
            SegmentOutcome::Accept { delivered } => assert!(sink.offsets[at] >= before[at] + delivered),
            SegmentOutcome::Queued => {}
            SegmentOutcome::Conflict { .. } if !enforce => {}
            SegmentOutcome::Retransmission
            | SegmentOutcome::Conflict { .. }
            | SegmentOutcome::Unverifiable { .. }
            | SegmentOutcome::Ignored(_)
            | SegmentOutcome::Refused(_)
            | SegmentOutcome::Condemned => {
                // The hole before a lapse or a pickup may be told of; bytes may not.
                assert!(stream.gap_bytes(dir) > 0 || sink.offsets[at] == before[at]);
            }
        }
        assert_eq!(stream.delivered(dir), sink.offsets[at]);
        assert!(reassembler.memory() <= 6000);
        match flags {
            0x3e => stream.condemn(dir),
            0x3d => stream.lapse(),
            0x3c => stream.stop(dir),
            0x3b => stream.acknowledged(dir, tcp.ack),
            0x3a => {
                enforce = !enforce;
                stream.set_enforce(enforce);
            }
            _ => {}
        }
        let _ = stream.is_superseded_by(dir, &tcp);
    }
    reassembler.flush(&mut stream, &mut sink);
    drop(stream);
    assert_eq!(reassembler.memory(), 0);
}
