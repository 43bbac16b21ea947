//! Segments that came before their turn, kept as Linux keeps them: the out-of-order queue of
//! `tcp_data_queue_ofo` and `tcp_ofo_queue` (net/ipv4/tcp_input.c).
//!
//! What Linux does with overlaps, for a new segment `[start, end)`:
//! * it lies within a queued one: the new one is dropped;
//! * it begins where a queued one begins and is longer: it replaces that one;
//! * queued ones that lie within it, and begin later, are removed;
//! * anything else is kept beside the others, overlap and all. Where two overlap, the one that begins first is
//!   read first, so its bytes win.
//!
//! Hence starts and ends both grow strictly along the queue (the invariant that makes a search by start
//! enough). Linux may also glue adjacent segments together when their memory allows (`tcp_ooo_try_coalesce`),
//! which shifts the "within" rule; that depends on allocation sizes nobody outside can see. It is why an
//! enforcing caller refuses overlaps with different bytes: then every order of gluing reads the same.

use std::collections::BTreeMap;

use super::Budget;

/// What one queued segment costs besides its bytes: tree node, vector header, allocator.
const SEGMENT_OVERHEAD: usize = 96;

#[derive(Debug, Default)]
pub(super) struct Ofo {
    segments: BTreeMap<u64, Segment>,
    bytes: usize,
}

#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    fin: bool,
}

impl Segment {
    fn end(&self, start: u64) -> u64 {
        start + self.bytes.len() as u64 + u64::from(self.fin)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    Kept,
    /// All of it was there already.
    Present,
    /// A cap or the budget does not allow it.
    Full,
}

impl Ofo {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Position of the first queued byte.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.first_key_value().map(|(start, _)| *start)
    }

    /// Position after the last queued byte.
    pub(super) fn end(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(start, segment)| segment.end(*start))
    }

    /// Whether any byte at its position differs from the one that would be read from the queue.
    /// Every byte of `bytes` is compared at most once.
    pub(super) fn differs(&self, start: u64, bytes: &[u8]) -> bool {
        // A bare FIN; and the range below would be backwards.
        if bytes.is_empty() {
            return false;
        }
        let end = start + bytes.len() as u64;
        let before = self.segments.range(..=start).next_back();
        let after = self.segments.range(start + 1..end);
        let mut at = start;
        for (from, segment) in before.into_iter().chain(after) {
            let to = end.min(from + segment.bytes.len() as u64);
            at = at.max(*from);
            if at < to {
                let theirs = segment.bytes.get((at - from) as usize..(to - from) as usize);
                let ours = bytes.get((at - start) as usize..(to - start) as usize);
                if theirs != ours {
                    return true;
                }
                at = to;
            }
        }
        false
    }

    pub(super) fn insert(
        &mut self,
        start: u64,
        bytes: &[u8],
        fin: bool,
        bytes_max: usize,
        segments_max: usize,
        budget: &mut Budget,
    ) -> Inserted {
        let end = start + bytes.len() as u64 + u64::from(fin);
        if let Some((from, before)) = self.segments.range(..=start).next_back()
            && end <= before.end(*from)
        {
            return Inserted::Present;
        }
        let cost = bytes.len() + SEGMENT_OVERHEAD;
        if self.segments.len() >= segments_max || self.bytes + cost > bytes_max || !budget.take(cost) {
            return Inserted::Full;
        }
        // One that begins at the same place is replaced: the map's key is the same.
        if let Some(old) = self.segments.insert(start, Segment { bytes: bytes.to_vec(), fin }) {
            budget.give_back(old.bytes.len() + SEGMENT_OVERHEAD);
            self.bytes -= old.bytes.len() + SEGMENT_OVERHEAD;
        }
        self.bytes += cost;
        while let Some((from, after)) = self.segments.range(start + 1..).next() {
            if after.end(*from) > end {
                break;
            }
            let from = *from;
            self.remove(from, budget);
        }
        Inserted::Kept
    }

    /// Takes the segment that continues the stream at `next`, if there is one: its bytes from `next` on and
    /// whether it ends the stream. Drops those that lie wholly before.
    pub(super) fn take(&mut self, next: u64, budget: &mut Budget) -> Option<(Vec<u8>, bool)> {
        loop {
            let start = self.first().filter(|start| *start <= next)?;
            let mut segment = self.remove(start, budget)?;
            if segment.end(start) <= next {
                continue;
            }
            let skip = (next - start) as usize;
            if skip > 0 {
                segment.bytes.drain(..skip.min(segment.bytes.len()));
            }
            return Some((segment.bytes, segment.fin));
        }
    }

    pub(super) fn free(&mut self, budget: &mut Budget) {
        budget.give_back(self.bytes);
        *self = Self::default();
    }

    fn remove(&mut self, start: u64, budget: &mut Budget) -> Option<Segment> {
        let segment = self.segments.remove(&start)?;
        let cost = segment.bytes.len() + SEGMENT_OVERHEAD;
        self.bytes -= cost;
        budget.give_back(cost);
        Some(segment)
    }
}
