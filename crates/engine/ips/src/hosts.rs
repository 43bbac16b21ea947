//! Bits of hosts and of pairs of hosts, which rules set for a time (`xbits`, `hostbits`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_model::Timestamp;
use bulkhead_rules::condition::{BitsOperation, Condition, Effect, Xbits, XbitsTrack};

use crate::rules::name_hash;

/// Life of a bit that `hostbits` sets.
const HOSTBITS_SECONDS: u32 = 300;

/// One reading or writing of a rule. Names are hashed, so that bits outlive a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostBit {
    pub operation: BitsOperation,
    name: u64,
    track: XbitsTrack,
    seconds: u32,
}

impl HostBit {
    fn of(xbits: &Xbits) -> Self {
        Self { operation: xbits.operation, name: name_hash(&xbits.name), track: xbits.track, seconds: xbits.expire_seconds }
    }

    fn of_host(hostbits: &bulkhead_rules::condition::Hostbits) -> Self {
        let track = if hostbits.destination { XbitsTrack::DestinationIp } else { XbitsTrack::SourceIp };
        Self { operation: hostbits.operation, name: name_hash(&hostbits.name), track, seconds: HOSTBITS_SECONDS }
    }

    /// What a condition reads.
    pub fn read(condition: &Condition) -> Option<Self> {
        match condition {
            Condition::Xbits(xbits) if xbits.track != XbitsTrack::Transaction => Some(Self::of(xbits)),
            Condition::Hostbits(hostbits) => Some(Self::of_host(hostbits)),
            _ => None,
        }
    }

    /// What an effect writes.
    pub fn written(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Xbits(xbits) if xbits.track != XbitsTrack::Transaction => Some(Self::of(xbits)),
            Effect::Hostbits(hostbits) => Some(Self::of_host(hostbits)),
            _ => None,
        }
    }
}

/// The same of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxBit {
    pub operation: BitsOperation,
    pub name: u64,
}

impl TxBit {
    fn of(xbits: &Xbits) -> Option<Self> {
        let of_tx = xbits.track == XbitsTrack::Transaction;
        of_tx.then(|| Self { operation: xbits.operation, name: name_hash(&xbits.name) })
    }

    pub fn written(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Xbits(xbits) => Self::of(xbits),
            _ => None,
        }
    }

    /// What a rule reads, then what it writes.
    pub fn all(signature: &bulkhead_rules::Signature) -> Vec<Self> {
        let read = |condition: &Condition| if let Condition::Xbits(xbits) = condition { Self::of(xbits) } else { None };
        signature.conditions.iter().filter_map(read).chain(signature.effects.iter().filter_map(Self::written)).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Host(IpAddr),
    Pair(IpAddr, IpAddr),
}

/// Bits with the time they end, up to a cap: when it is reached, those whose time is over go first, then the first in order.
#[derive(Debug, Default)]
pub(crate) struct HostBits {
    until: BTreeMap<(u64, Who), Timestamp>,
    max: usize,
    /// Bits thrown away before their time.
    pub refused: u64,
}

impl HostBits {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), ..Self::default() }
    }

    /// Whether a reading holds; writings do. `ends`: source and destination.
    pub fn holds(&self, now: Timestamp, bit: &HostBit, ends: (IpAddr, IpAddr)) -> bool {
        let set = self.until.get(&Self::key(bit, ends)).is_some_and(|until| *until >= now);
        match bit.operation {
            BitsOperation::IsSet => set,
            BitsOperation::IsNotSet => !set,
            BitsOperation::Set | BitsOperation::Unset | BitsOperation::Toggle => true,
        }
    }

    /// Carries out a writing.
    pub fn write(&mut self, now: Timestamp, bit: &HostBit, ends: (IpAddr, IpAddr)) {
        let key = Self::key(bit, ends);
        let set = match bit.operation {
            BitsOperation::Set => true,
            BitsOperation::Unset => false,
            BitsOperation::Toggle => self.until.get(&key).is_none_or(|until| *until < now),
            BitsOperation::IsSet | BitsOperation::IsNotSet => return,
        };
        if !set {
            self.until.remove(&key);
            return;
        }
        if self.until.len() >= self.max && !self.until.contains_key(&key) {
            self.make_room(now);
        }
        self.until.insert(key, Timestamp(now.0.saturating_add(u64::from(bit.seconds) * 1_000_000_000)));
    }

    fn key(bit: &HostBit, (src, dst): (IpAddr, IpAddr)) -> (u64, Who) {
        let who = match bit.track {
            XbitsTrack::SourceIp => Who::Host(src),
            XbitsTrack::DestinationIp => Who::Host(dst),
            XbitsTrack::IpPair | XbitsTrack::Transaction => Who::Pair(src.min(dst), src.max(dst)),
        };
        (bit.name, who)
    }

    /// Frees a tenth at least, so that the cost of a new bit stays constant on average.
    fn make_room(&mut self, now: Timestamp) {
        self.until.retain(|_, until| *until >= now);
        let keep = self.max - self.max.div_ceil(10);
        while self.until.len() > keep {
            self.until.pop_first();
            self.refused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(operation: BitsOperation, track: XbitsTrack) -> HostBit {
        HostBit::of(&Xbits { operation, name: "seen".to_owned(), track, expire_seconds: 10 })
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, last])
    }

    #[test]
    fn a_bit_is_of_its_host_or_pair_and_ends() {
        use BitsOperation::{IsNotSet, IsSet, Set, Toggle, Unset};
        let mut bits = HostBits::new(100);
        let at = Timestamp::from_secs;
        let (a, b, c) = (host(1), host(2), host(3));
        bits.write(at(1), &bit(Set, XbitsTrack::SourceIp), (a, b));
        assert!(
            bits.holds(at(11), &bit(IsSet, XbitsTrack::SourceIp), (a, c))
                && bits.holds(at(1), &bit(IsSet, XbitsTrack::DestinationIp), (c, a))
        );
        assert!(
            bits.holds(at(12), &bit(IsNotSet, XbitsTrack::SourceIp), (a, b))
                && !bits.holds(at(1), &bit(IsSet, XbitsTrack::SourceIp), (b, a))
        );
        bits.write(at(1), &bit(Set, XbitsTrack::IpPair), (a, b));
        assert!(bits.holds(at(2), &bit(IsSet, XbitsTrack::IpPair), (b, a)) && !bits.holds(at(2), &bit(IsSet, XbitsTrack::IpPair), (b, c)));
        bits.write(at(2), &bit(Toggle, XbitsTrack::IpPair), (a, b));
        assert!(!bits.holds(at(2), &bit(IsSet, XbitsTrack::IpPair), (a, b)));
        bits.write(at(2), &bit(Unset, XbitsTrack::SourceIp), (a, b));
        assert!(!bits.holds(at(2), &bit(IsSet, XbitsTrack::SourceIp), (a, b)));
    }

    #[test]
    fn the_table_has_a_cap() {
        let mut bits = HostBits::new(50);
        for number in 0..1_000u32 {
            let address = IpAddr::V4(number.into());
            bits.write(Timestamp(1), &bit(BitsOperation::Set, XbitsTrack::SourceIp), (address, address));
            assert!(bits.until.len() <= 50);
        }
        assert!(bits.refused >= 900);
    }
}
