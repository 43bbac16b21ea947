//! The bytes handed out last, kept to hold a retransmission against them.

use super::Budget;

/// First allocation: a request or a small reply fits.
const RING_BYTES_MIN: usize = 1024;

/// The last `len` bytes before position `end`. Grows by doubling up to the cap it is given, then forgets the
/// oldest. INVARIANT: `buffer.len()` is 0 or a power of two; `len <= buffer.len()`; the byte at position `p`
/// lies at `p mod buffer.len()`.
#[derive(Debug, Default)]
pub(super) struct Ring {
    buffer: Vec<u8>,
    end: u64,
    len: usize,
}

/// How bytes compare with those in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Equal,
    Different,
    /// Some of the bytes lie before the ring; the others are equal.
    Forgotten,
}

impl Ring {
    /// Appends the bytes at position `at`. A jump empties the ring first. False when the budget did not grant
    /// what `cap` would allow: less is kept then.
    pub(super) fn push(&mut self, at: u64, bytes: &[u8], cap: usize, budget: &mut Budget) -> bool {
        if cap == 0 || bytes.is_empty() {
            return true;
        }
        if at != self.end {
            self.len = 0;
            self.end = at;
        }
        let wanted = self.len.saturating_add(bytes.len());
        let granted = wanted <= self.buffer.len() || self.grow(wanted, cap, budget);
        let size = self.buffer.len();
        self.end += bytes.len() as u64;
        if size == 0 {
            // No memory was granted: nothing is kept, and retransmissions cannot be verified.
            self.len = 0;
            return granted;
        }
        let kept = bytes.get(bytes.len().saturating_sub(size)..).unwrap_or_default();
        write(&mut self.buffer, self.end - kept.len() as u64, kept);
        self.len = wanted.min(size);
        granted
    }

    /// Compares the bytes at position `at`, which end at or before the ring's end.
    pub(super) fn compare(&self, at: u64, bytes: &[u8]) -> Compared {
        if bytes.is_empty() {
            return Compared::Equal;
        }
        if self.len == 0 {
            return Compared::Forgotten;
        }
        if at + bytes.len() as u64 > self.end {
            return Compared::Different;
        }
        let start = self.end - self.len as u64;
        let missing = start.saturating_sub(at).min(bytes.len() as u64) as usize;
        let known = bytes.get(missing..).unwrap_or_default();
        let [head, tail] = self.read(at + missing as u64, known.len());
        let same = known.split_at_checked(head.len()).is_some_and(|(first, second)| first == head && second == tail);
        match (same, missing) {
            (false, _) => Compared::Different,
            (true, 0) => Compared::Equal,
            (true, _) => Compared::Forgotten,
        }
    }

    pub(super) fn free(&mut self, budget: &mut Budget) {
        budget.give_back(self.buffer.len());
        *self = Self::default();
    }

    /// Forgets what it holds; the next byte will be at another position.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    fn grow(&mut self, wanted: usize, cap: usize, budget: &mut Budget) -> bool {
        let size = wanted.max(RING_BYTES_MIN).min(cap).next_power_of_two();
        let size = if size > cap { size / 2 } else { size };
        if size <= self.buffer.len() {
            return true;
        }
        if !budget.take(size - self.buffer.len()) {
            return false;
        }
        let mut buffer = vec![0; size];
        let start = self.end - self.len as u64;
        let [head, tail] = self.read(start, self.len);
        write(&mut buffer, start, head);
        write(&mut buffer, start + head.len() as u64, tail);
        self.buffer = buffer;
        true
    }

    /// `len` bytes from position `at` on, in two parts where the buffer wraps. Both lie within the ring.
    fn read(&self, at: u64, len: usize) -> [&[u8]; 2] {
        let from = at as usize & self.buffer.len().wrapping_sub(1);
        let first = len.min(self.buffer.len().saturating_sub(from));
        [self.buffer.get(from..from + first).unwrap_or_default(), self.buffer.get(..len - first).unwrap_or_default()]
    }
}

/// Writes at most `buffer.len()` bytes, wrapping.
fn write(buffer: &mut [u8], at: u64, bytes: &[u8]) {
    let from = at as usize & buffer.len().wrapping_sub(1);
    let (head, tail) = bytes.split_at(bytes.len().min(buffer.len().saturating_sub(from)));
    if let Some(place) = buffer.get_mut(from..from + head.len()) {
        place.copy_from_slice(head);
    }
    if let Some(place) = buffer.get_mut(..tail.len()) {
        place.copy_from_slice(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(at: u64) -> u8 {
        (at * 7 + at / 256) as u8
    }

    fn bytes(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64).map(byte).collect()
    }

    #[test]
    fn the_last_bytes_are_kept_and_older_ones_forgotten() {
        for cap in [1024, 4096, 5000] {
            let mut budget = Budget::unlimited();
            let mut ring = Ring::default();
            let mut at = 0;
            for len in [1, 10, 1000, 3, 5000, 7, 4096, 1, 20_000, 600, 600, 600] {
                ring.push(at, &bytes(at, len), cap, &mut budget);
                at += len as u64;
                let kept = at.min(if cap == 4096 || cap == 5000 { 4096 } else { 1024 }).min(ring.len as u64);
                assert_eq!(ring.compare(at - kept, &bytes(at - kept, kept as usize)), Compared::Equal);
                let mut wrong = bytes(at - kept, kept as usize);
                let middle = wrong.len() / 2;
                wrong[middle] ^= 1;
                assert_eq!(ring.compare(at - kept, &wrong), Compared::Different);
                if at > kept {
                    assert_eq!(ring.compare(at - kept - 1, &bytes(at - kept - 1, 2)), Compared::Forgotten);
                }
            }
            assert_eq!(ring.len, if cap == 1024 { 1024 } else { 4096 });
            assert_eq!(budget.mine(), ring.buffer.len());
            ring.free(&mut budget);
            assert_eq!(budget.mine(), 0);
        }
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let mut budget = Budget::with_max(100);
        let mut ring = Ring::default();
        assert!(!ring.push(0, &bytes(0, 50), 4096, &mut budget));
        assert_eq!(ring.compare(0, &bytes(0, 50)), Compared::Forgotten);
    }

    #[test]
    fn a_jump_forgets_what_was_before() {
        let mut budget = Budget::unlimited();
        let mut ring = Ring::default();
        ring.push(0, &bytes(0, 50), 4096, &mut budget);
        ring.push(100, &bytes(100, 50), 4096, &mut budget);
        assert_eq!(ring.compare(100, &bytes(100, 50)), Compared::Equal);
        assert_eq!(ring.compare(40, &bytes(40, 5)), Compared::Forgotten);
    }
}
