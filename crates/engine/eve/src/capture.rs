//! Capture files, packet by packet: pcap and pcapng.
//! Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::io::Read;

use bulkhead_ips::LinkType;
use bulkhead_model::Timestamp;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// Bytes held at a time, and so the largest packet. Captures are cut at 256 KiB by every program that writes them.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Interfaces of a pcapng section.
const INTERFACES_MAX: usize = 4096;
const NANOS: u128 = 1_000_000_000;

const CUT: &str = "the capture ends within a packet";

#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub at: Timestamp,
    pub link: LinkType,
    pub bytes: &'a [u8],
    /// More than `bytes` when the capture was cut.
    pub len_on_wire: u32,
}

/// What was in the file besides packets given to `each`.
#[derive(Debug, Default)]
pub struct Ended {
    /// Packets of links that are not read.
    pub skipped: u64,
    /// Why the file ends before its end.
    pub broken: Option<String>,
}

/// It begins neither as a pcap nor as a pcapng file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a capture: pcap and pcapng files are read, and a compressed one must be unpacked")]
pub struct NotOne;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum Failed<E> {
    #[error(transparent)]
    NotOne(NotOne),
    /// What `each` said.
    #[error("{0}")]
    Each(E),
}

/// Calls `each` for every packet. A file that breaks off gives what it has up to there.
pub fn read<E>(file: impl Read + Send + 'static, mut each: impl FnMut(&Packet<'_>) -> Result<(), E>) -> Result<Ended, Failed<E>> {
    let mut reader = create_reader(BUFFER_BYTES, file).map_err(|_| Failed::NotOne(NotOne))?;
    let mut file = Links::default();
    let mut read = Ended::default();
    loop {
        let broken = match reader.next() {
            Ok((offset, block)) => {
                match file.packet(&block) {
                    Found::Packet(packet) => each(&packet).map_err(Failed::Each)?,
                    Found::Unread => read.skipped += 1,
                    Found::Nothing => {}
                }
                reader.consume(offset);
                continue;
            }
            Err(PcapError::Eof) => return Ok(read),
            Err(PcapError::Incomplete(_)) => None,
            Err(PcapError::UnexpectedEof) => Some(CUT.to_owned()),
            Err(error) => Some(format!("the capture is broken ({})", format!("{error:?}").chars().take(80).collect::<String>())),
        };
        if broken.is_some() || !refill(&mut *reader) {
            read.broken = Some(broken.unwrap_or_else(|| CUT.to_owned()));
            return Ok(read);
        }
    }
}

/// Whether there was more to read.
fn refill(reader: &mut dyn PcapReaderIterator) -> bool {
    !reader.reader_exhausted() && reader.refill().is_ok()
}

/// What the blocks before a packet said about it.
#[derive(Debug, Default)]
struct Links {
    legacy: Option<LinkType>,
    /// Nanoseconds per unit of the fraction.
    legacy_unit: u64,
    interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Option<LinkType>,
    units_per_second: u64,
    offset_secs: i64,
}

enum Found<'a> {
    Packet(Packet<'a>),
    Unread,
    Nothing,
}

impl Links {
    fn packet<'a>(&mut self, block: &'a PcapBlockOwned<'_>) -> Found<'a> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.legacy = u32::try_from(header.network.0).ok().and_then(LinkType::from_dlt);
                self.legacy_unit = if header.is_nanosecond_precision() { 1 } else { 1000 };
                Found::Nothing
            }
            PcapBlockOwned::Legacy(packet) => {
                let nanos = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * self.legacy_unit;
                found(self.legacy, Timestamp(nanos), packet.data, packet.caplen, packet.origlen)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                Found::Nothing
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                if self.interfaces.len() < INTERFACES_MAX {
                    self.interfaces.push(Interface {
                        link: u32::try_from(description.linktype.0).ok().and_then(LinkType::from_dlt),
                        units_per_second: description.ts_resolution().unwrap_or(1_000_000).max(1),
                        offset_secs: description.ts_offset(),
                    });
                }
                Found::Nothing
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let Some(interface) = self.interfaces.get(packet.if_id as usize) else { return Found::Unread };
                let at = interface.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                found(interface.link, at, packet.data, packet.caplen, packet.origlen)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let link = self.interfaces.first().and_then(|interface| interface.link);
                found(link, Timestamp::default(), packet.data, packet.origlen, packet.origlen)
            }
            PcapBlockOwned::NG(_) => Found::Nothing,
        }
    }
}

impl Interface {
    /// Times that no clock shows become the first or the last that there is.
    fn time(&self, units: u64) -> Timestamp {
        let per_second = u128::from(self.units_per_second);
        let nanos = u128::from(units) / per_second * NANOS + u128::from(units) % per_second * NANOS / per_second;
        let offset = i128::from(self.offset_secs) * NANOS as i128;
        Timestamp(u64::try_from(i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset).max(0)).unwrap_or(u64::MAX))
    }
}

/// `data` may be padded, or shorter than the file claims.
fn found(link: Option<LinkType>, at: Timestamp, data: &[u8], captured: u32, len_on_wire: u32) -> Found<'_> {
    let Some(link) = link else { return Found::Unread };
    let bytes = data.get(..captured as usize).unwrap_or(data);
    Found::Packet(Packet { at, link, bytes, len_on_wire })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_fraction_whatever_its_unit_and_never_overflow() {
        let time = |units_per_second, offset_secs, units| Interface { link: None, units_per_second, offset_secs }.time(units).0;
        assert_eq!(time(1_000_000, 0, 1_500_001), 1_500_001_000);
        assert_eq!(time(1 << 10, 0, 1536), 1_500_000_000);
        assert_eq!(time(1_000_000_000, 10, 5), 10_000_000_005);
        assert_eq!(time(1, i64::MIN, 5), 0);
        assert_eq!(time(1, i64::MAX, u64::MAX), u64::MAX);
        assert_eq!(time(u64::MAX, 0, u64::MAX), 1_000_000_000);
    }
}
