//! Captures read from files, and what may become of them on the way.

use std::path::{Path, PathBuf};

use bulkhead_ips::LinkType;
use bulkhead_model::Timestamp;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use super::Numbers;

/// One frame: time, link type (`None`: one that is not read), bytes, length on the wire.
#[derive(Debug, Clone)]
pub struct Frame {
    pub at: Timestamp,
    pub link: Option<LinkType>,
    pub bytes: Vec<u8>,
    pub len_on_wire: u32,
}

/// The frames of a pcap or pcapng file up to the first thing in it that cannot be read. `None`: it cannot be opened.
pub fn read(path: &Path) -> Option<Vec<Frame>> {
    let file = std::fs::File::open(path).ok()?;
    let mut reader = create_reader(1 << 20, file).ok()?;
    let mut frames = Vec::new();
    let mut link = None;
    let mut micros = true;
    // pcapng: link type and units per second of each interface.
    let mut interfaces: Vec<(Option<LinkType>, u64, u64)> = Vec::new();
    let mut refills = 0;
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        link = LinkType::from_dlt(header.network.0 as u32);
                        micros = !header.is_nanosecond_precision();
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        let fraction = u64::from(packet.ts_usec) * if micros { 1000 } else { 1 };
                        let at = Timestamp((u64::from(packet.ts_sec) * 1_000_000_000).saturating_add(fraction));
                        frames.push(Frame { at, link, bytes: packet.data.to_vec(), len_on_wire: packet.origlen });
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                        let units = description.ts_resolution().unwrap_or(1_000_000).max(1);
                        interfaces.push((LinkType::from_dlt(description.linktype.0 as u32), description.ts_offset().unsigned_abs(), units));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        if let Some((link, offset, units)) = interfaces.get(packet.if_id as usize).copied() {
                            let (secs, fraction) = packet.decode_ts(offset, units);
                            let nanos = u64::from(fraction) * (1_000_000_000 / units.min(1_000_000_000));
                            let at = Timestamp(u64::from(secs).saturating_mul(1_000_000_000).saturating_add(nanos));
                            let bytes = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data).to_vec();
                            frames.push(Frame { at, link, bytes, len_on_wire: packet.origlen });
                        }
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(offset);
                refills = 0;
            }
            Err(PcapError::Incomplete(_)) if refills < 4 => {
                refills += 1;
                if reader.refill().is_err() {
                    return Some(frames);
                }
            }
            Err(_) => return Some(frames),
        }
    }
}

/// All files below a folder, in order.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => files.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    files.sort();
    files
}

/// What happens to a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    Truncate,
    FlipBits,
    Duplicate,
    Reorder,
    /// Pieces of frames within others.
    Splice,
}

pub const MUTATIONS: [Mutation; 5] = [Mutation::Truncate, Mutation::FlipBits, Mutation::Duplicate, Mutation::Reorder, Mutation::Splice];

/// Changes about a third of the frames. As many come out as went in, more with [`Mutation::Duplicate`].
pub fn mutate(frames: &[Frame], how: Mutation, numbers: &mut Numbers) -> Vec<Frame> {
    let mut all = frames.to_vec();
    for at in 0..frames.len() {
        if numbers.below(3) != 0 {
            continue;
        }
        let len = frames[at].bytes.len();
        match how {
            Mutation::Truncate => {
                // Most of a frame's meaning is in its first bytes.
                let most = if numbers.below(2) == 0 { len.min(80) } else { len };
                let end = numbers.below(most + 1);
                all[at].bytes.truncate(end);
            }
            Mutation::FlipBits => {
                for _ in 0..=numbers.below(6) {
                    let most = if numbers.below(2) == 0 { len.min(80) } else { len };
                    let place = numbers.below(most);
                    if let Some(byte) = all[at].bytes.get_mut(place) {
                        *byte ^= 1 << numbers.below(8);
                    }
                }
            }
            Mutation::Duplicate => {
                let again = frames[numbers.below(frames.len())].clone();
                let place = numbers.below(all.len() + 1);
                all.insert(place, again);
            }
            Mutation::Reorder => {
                let other = (at + numbers.below(8)).min(frames.len() - 1);
                all.swap(at, other);
            }
            Mutation::Splice => {
                let from = &frames[numbers.below(frames.len())].bytes;
                let start = numbers.below(from.len() + 1);
                let piece = &from[start..(start + numbers.below(64)).min(from.len())];
                let place = numbers.below(len + 1);
                let end = (place + numbers.below(64)).min(len);
                all[at].bytes.splice(place..end, piece.iter().copied());
            }
        }
    }
    all
}
