//! A transaction is a bag of values: one exchange of a protocol, whatever the protocol.
//!
//! ```text
//! values   [ http.method 0..3 ] [ http.uri 3..14 ] … [ http.response_body stream 1 ]
//! bytes     GET/index.html…                           (one arena, append only)
//! streams   window of a body, the newest bytes at its end
//! ```
//! Detection walks [`Transaction::news`]: the values that became complete and the streams that grew since it looked last. Transactions
//! are taken from a pool and given back to it with their memory, so that in the steady state nothing is allocated.

use std::ops::Range;

use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::Notes;

/// Streams a transaction may have at once; further ones are not kept.
pub(crate) const STREAMS_MAX: usize = 16;
/// Values a transaction may have; further ones are counted, and the transaction is marked.
pub(crate) const VALUES_MAX: usize = 4096;
/// Bytes of all values but streams; further values are cut to nothing, and the transaction is marked.
pub(crate) const ARENA_BYTES_MAX: usize = 1024 * 1024;
/// Different events of one transaction.
pub(crate) const EVENTS_MAX: usize = 64;
/// Memory a transaction keeps when it goes back to the pool.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub buffer: Buffer,
    pub dir: Dir,
    /// No more bytes come. Always true of values that do not stream.
    pub done: bool,
    source: Source,
    /// The next value of the same buffer and direction.
    next: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Arena { start: u32, end: u32 },
    Stream(u8),
}

impl Value {
    pub const fn is_stream(&self) -> bool {
        matches!(self.source, Source::Stream(_))
    }
}

/// Numbers, events and stages take little beside values; what they take is in here.
const FIXED_BYTES: usize = size_of::<Transaction>() + 1024;

/// The bytes of a body that are looked at: a window that ends with the newest.
#[derive(Debug, Default)]
struct StreamWindow {
    bytes: Vec<u8>,
    /// Bytes of the body before `bytes`.
    base: u64,
    /// Bytes of `bytes` that were seen at the last report.
    seen: usize,
    grown: bool,
    done: bool,
    gaps: bool,
    truncated: bool,
}

/// A streaming value as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    pub bytes: &'a [u8],
    /// Bytes of the body before `bytes`.
    pub base: u64,
    /// `bytes[fresh..]` is new since the last report.
    pub fresh: usize,
    pub done: bool,
    /// Bytes are missing: `base` counts them.
    pub gaps: bool,
    /// It is done and has not come to its end: the message broke off, or bytes are missing.
    pub truncated: bool,
}

/// No value.
const NONE: u16 = u16::MAX;

/// First and last value of one buffer in one direction.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u16,
    last: u16,
}

/// Chains by buffer and direction. A transaction has values of some forty of these, whatever the number of protocols and their buffers.
#[derive(Debug)]
struct Chains {
    /// Open addressing by [`Chains::key`], never more than [`CHAINS_FILL`] full.
    slots: [(u16, Chain); CHAIN_SLOTS],
    used: usize,
    /// What found no slot.
    rest: Vec<(u16, Chain)>,
}

const CHAIN_SLOTS: usize = 64;
const CHAINS_FILL: usize = 48;
const FREE: (u16, Chain) = (0, Chain { first: NONE, last: NONE });

impl Default for Chains {
    fn default() -> Self {
        Self { slots: [FREE; CHAIN_SLOTS], used: 0, rest: Vec::new() }
    }
}

impl Chains {
    /// From 1.
    const fn key(buffer: Buffer, dir: Dir) -> u16 {
        ((buffer as u16) << 1 | dir.index() as u16) + 1
    }

    /// Where the key stands, or the free slot at which it is not found.
    fn slot(&self, key: u16) -> usize {
        let mut at = usize::from(key) % CHAIN_SLOTS;
        while self.slots[at].0 != key && self.slots[at].0 != 0 {
            at = (at + 1) % CHAIN_SLOTS;
        }
        at
    }

    fn first(&self, buffer: Buffer, dir: Dir) -> u16 {
        let key = Self::key(buffer, dir);
        let (found, chain) = self.slots[self.slot(key)];
        if found == key {
            return chain.first;
        }
        self.rest.iter().find(|(of, _)| *of == key).map_or(NONE, |(_, chain)| chain.first)
    }

    /// That of a value that is put behind the others.
    fn entry(&mut self, buffer: Buffer, dir: Dir) -> &mut Chain {
        let key = Self::key(buffer, dir);
        let at = self.slot(key);
        if self.slots[at].0 != key && self.used >= CHAINS_FILL {
            let place = self.rest.iter().position(|(of, _)| *of == key).unwrap_or_else(|| {
                self.rest.push((key, FREE.1));
                self.rest.len() - 1
            });
            return &mut self.rest[place].1;
        }
        self.used += usize::from(self.slots[at].0 == 0);
        self.slots[at].0 = key;
        &mut self.slots[at].1
    }

    fn clear(&mut self) {
        if self.used > 0 {
            self.slots = [FREE; CHAIN_SLOTS];
            self.used = 0;
            self.rest.clear();
        }
    }
}

#[derive(Debug)]
pub struct Transaction {
    /// Counted by session, from 0.
    pub id: u64,
    pub protocol: Protocol,
    /// The consumer's own; 0 in a new transaction.
    pub user: u64,
    /// Stands in the list of what is to be told at the end of the call.
    pub(crate) touched: bool,
    /// What [`Self::memory`] said last.
    pub(crate) counted: usize,
    progress: [Stage; 2],
    values: Vec<Value>,
    /// Of the values, by buffer and direction.
    chains: Chains,
    bytes: Vec<u8>,
    streams: Vec<StreamWindow>,
    streams_used: usize,
    integers: Vec<(Field, Dir, u64)>,
    events: Vec<(&'static str, Dir)>,
    /// For the log.
    pub(crate) notes: Notes,
    reported: Reported,
    /// Values were left out because a cap was reached.
    pub overflowed: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Reported {
    values: usize,
    integers: usize,
    events: usize,
    progress: [Stage; 2],
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            id: 0,
            protocol: Protocol::Http,
            user: 0,
            touched: false,
            counted: 0,
            progress: [Stage::Start; 2],
            values: Vec::with_capacity(32),
            chains: Chains::default(),
            bytes: Vec::with_capacity(1024),
            streams: Vec::new(),
            streams_used: 0,
            integers: Vec::new(),
            events: Vec::new(),
            notes: Notes::default(),
            reported: Reported::default(),
            overflowed: false,
        }
    }
}

// === What detection and the log read ===

impl Transaction {
    pub const fn progress(&self, dir: Dir) -> Stage {
        self.progress[dir.index()]
    }

    /// All values, in the order in which they came.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Values that came since the last report, and behind them those of before that stream and grew or ended.
    pub fn news(&self) -> impl Iterator<Item = &Value> {
        let (old, new) = self.values.split_at(self.reported.values.min(self.values.len()));
        let grown = self.any_stream_grew();
        let grown = old.iter().filter(move |value| match value.source {
            Source::Stream(stream) if grown => self.streams[usize::from(stream)].grown,
            _ => false,
        });
        new.iter().chain(grown)
    }

    /// Whether there is anything since the last report.
    pub fn has_news(&self) -> bool {
        self.reported.values < self.values.len()
            || self.reported.events < self.events.len()
            || self.reported.integers < self.integers.len()
            || self.reported.progress != self.progress
            || self.any_stream_grew()
    }

    /// The bytes of a value; of a streaming one, its window.
    pub fn bytes(&self, value: &Value) -> &[u8] {
        match value.source {
            Source::Arena { start, end } => &self.bytes[start as usize..end as usize],
            Source::Stream(stream) => &self.streams[usize::from(stream)].bytes,
        }
    }

    /// The window of a streaming value. Of others, all of their bytes.
    pub fn window(&self, value: &Value) -> Window<'_> {
        match value.source {
            Source::Arena { start, end } => {
                let bytes = &self.bytes[start as usize..end as usize];
                Window { bytes, base: 0, fresh: 0, done: true, gaps: false, truncated: false }
            }
            Source::Stream(stream) => {
                let StreamWindow { bytes, base, seen, done, gaps, truncated, .. } = &self.streams[usize::from(stream)];
                Window { bytes, base: *base, fresh: *seen, done: *done, gaps: *gaps, truncated: *done && (*truncated || *gaps) }
            }
        }
    }

    /// The first value of this buffer in this direction.
    pub fn get(&self, buffer: Buffer, dir: Dir) -> Option<&[u8]> {
        self.first(buffer, dir).map(|value| self.bytes(value))
    }

    /// The first value of this buffer in this direction.
    pub fn first(&self, buffer: Buffer, dir: Dir) -> Option<&Value> {
        self.values.get(usize::from(self.chains.first(buffer, dir)))
    }

    /// All values of this buffer in this direction, in the order in which they came.
    pub fn all(&self, buffer: Buffer, dir: Dir) -> impl Iterator<Item = &Value> {
        std::iter::successors(self.first(buffer, dir), |value| self.values.get(usize::from(value.next)))
    }

    /// No further value of this buffer will come from this direction.
    pub fn is_settled(&self, buffer: Buffer, dir: Dir) -> bool {
        self.progress(dir) >= buffer.stage()
    }

    pub fn integers(&self) -> &[(Field, Dir, u64)] {
        &self.integers
    }

    pub fn integer(&self, field: Field, dir: Dir) -> Option<u64> {
        self.integers.iter().find(|(of, at, _)| *of == field && *at == dir).map(|(_, _, value)| *value)
    }

    /// Application-layer events, `http.missing_host_header`, each once.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, Dir)> {
        self.events.iter().copied()
    }

    /// Events since the last report.
    pub fn new_events(&self) -> &[(&'static str, Dir)] {
        &self.events[self.reported.events.min(self.events.len())..]
    }

    /// What the log says beside the values.
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    pub fn is_complete(&self) -> bool {
        self.progress == [Stage::Complete; 2]
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let streams: usize = self.streams.iter().map(|stream| stream.bytes.capacity()).sum();
        FIXED_BYTES + self.values.capacity() * size_of::<Value>() + self.bytes.capacity() + streams + self.notes.memory()
    }

    fn any_stream_grew(&self) -> bool {
        self.streams[..self.streams_used].iter().any(|stream| stream.grown)
    }
}

// === What parsers write ===

impl Transaction {
    pub(crate) fn begin(&mut self, protocol: Protocol, id: u64) {
        self.id = id;
        self.protocol = protocol;
        self.user = 0;
        self.touched = false;
        self.counted = 0;
        self.progress = [Stage::Start; 2];
        self.clear_values();
        self.bytes.clear();
        self.integers.clear();
        self.events.clear();
        self.notes.clear();
        self.streams_used = 0;
        self.reported = Reported::default();
        self.overflowed = false;
    }

    /// Makes the transaction fit for the pool.
    pub(crate) fn shrink(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        for stream in &mut self.streams {
            stream.bytes.clear();
            stream.bytes.shrink_to(KEPT_BYTES_MAX);
        }
        self.streams.truncate(3);
        self.clear_values();
        self.values.shrink_to(256);
        self.integers.clear();
        self.integers.shrink_to(256);
        self.notes.shrink();
    }

    /// The last report is done: what is there now is old.
    pub(crate) fn reported(&mut self, window: usize) {
        self.reported =
            Reported { values: self.values.len(), integers: self.integers.len(), events: self.events.len(), progress: self.progress };
        for stream in &mut self.streams[..self.streams_used] {
            stream.grown = false;
            // Not for every byte: the front goes once as much as the window holds is too old.
            if stream.bytes.len() >= window.saturating_mul(2) {
                let old = stream.bytes.len() - window;
                stream.bytes.drain(..old);
                stream.base += old as u64;
            }
            stream.seen = stream.bytes.len();
        }
    }

    pub(crate) fn advance(&mut self, dir: Dir, stage: Stage) {
        let progress = &mut self.progress[dir.index()];
        *progress = (*progress).max(stage);
    }

    /// For an interim answer: the direction begins anew.
    pub(crate) fn rewind(&mut self, dir: Dir) {
        self.progress[dir.index()] = Stage::Start;
    }

    /// Drops the values of a direction that were not streamed, as an interim answer's are.
    pub(crate) fn forget(&mut self, dir: Dir) {
        let kept: Vec<Value> = self.values.iter().filter(|value| value.dir != dir).copied().collect();
        self.clear_values();
        for value in kept {
            self.push_value(value);
        }
        self.integers.retain(|(_, of, _)| *of != dir);
        self.reported.values = self.reported.values.min(self.values.len());
        self.reported.integers = self.reported.integers.min(self.integers.len());
    }

    fn clear_values(&mut self) {
        self.values.clear();
        self.chains.clear();
    }

    fn push_value(&mut self, mut value: Value) {
        let number = self.values.len() as u16;
        value.next = NONE;
        let chain = self.chains.entry(value.buffer, value.dir);
        match self.values.get_mut(usize::from(chain.last)) {
            Some(last) => last.next = number,
            None => chain.first = number,
        }
        chain.last = number;
        self.values.push(value);
    }

    pub(crate) fn value(&mut self, buffer: Buffer, dir: Dir, bytes: &[u8]) -> Range<u32> {
        let span = self.append(bytes);
        self.value_at(buffer, dir, span.clone());
        span
    }

    /// A value that lies in the arena already.
    pub(crate) fn value_at(&mut self, buffer: Buffer, dir: Dir, span: Range<u32>) {
        if self.values.len() >= VALUES_MAX {
            self.overflowed = true;
            return;
        }
        self.push_value(Value { buffer, dir, done: true, source: Source::Arena { start: span.start, end: span.end }, next: NONE });
    }

    /// Puts bytes into the arena, for [`Self::value_at`].
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        if start + bytes.len() > ARENA_BYTES_MAX {
            self.overflowed = true;
            return start as u32..start as u32;
        }
        self.bytes.extend_from_slice(bytes);
        start as u32..self.bytes.len() as u32
    }

    pub(crate) fn arena_len(&self) -> u32 {
        self.bytes.len() as u32
    }

    pub(crate) fn integer_is(&mut self, field: Field, dir: Dir, value: u64) {
        if self.integers.len() >= VALUES_MAX {
            self.overflowed = true;
            return;
        }
        self.integers.push((field, dir, value));
    }

    /// Each event counts once.
    pub(crate) fn event(&mut self, event: &'static str, dir: Dir) {
        if self.events.len() < EVENTS_MAX && !self.events.iter().any(|(name, _)| *name == event) {
            self.events.push((event, dir));
        }
    }

    /// Begins a streaming value and gives its number; `buffers` all show the same bytes. `None`: too many.
    pub(crate) fn open_stream(&mut self, buffers: &[Buffer], dir: Dir) -> Option<u8> {
        if self.streams_used >= STREAMS_MAX || self.values.len() + buffers.len() > VALUES_MAX {
            self.overflowed = true;
            return None;
        }
        if self.streams.len() == self.streams_used {
            self.streams.push(StreamWindow::default());
        }
        let number = self.streams_used as u8;
        let stream = &mut self.streams[self.streams_used];
        stream.bytes.clear();
        (stream.base, stream.seen, stream.grown, stream.done) = (0, 0, false, false);
        (stream.gaps, stream.truncated) = (false, false);
        self.streams_used += 1;
        for &buffer in buffers {
            self.push_value(Value { buffer, dir, done: false, source: Source::Stream(number), next: NONE });
        }
        Some(number)
    }

    /// The stream goes on where another one has ended: its first bytes are `before`, and were seen there.
    pub(crate) fn resume_stream(&mut self, number: u8, len: u64, before: &[u8]) {
        if let Some(stream) = self.streams.get_mut(usize::from(number)) {
            stream.bytes.extend_from_slice(before);
            stream.seen = stream.bytes.len();
            stream.base = len.saturating_sub(before.len() as u64);
        }
    }

    /// The window's last bytes.
    pub(crate) fn stream_tail(&self, number: u8, bytes_max: usize) -> &[u8] {
        let bytes = self.streams.get(usize::from(number)).map_or(&[][..], |stream| stream.bytes.as_slice());
        &bytes[bytes.len().saturating_sub(bytes_max)..]
    }

    pub(crate) fn grow_stream(&mut self, number: u8, bytes: &[u8]) {
        if let Some(stream) = self.streams.get_mut(usize::from(number))
            && !bytes.is_empty()
        {
            stream.bytes.extend_from_slice(bytes);
            stream.grown = true;
        }
    }

    /// Bytes are missing: nothing may match across them.
    pub(crate) fn skip_stream(&mut self, number: u8, len: u64) {
        if let Some(stream) = self.streams.get_mut(usize::from(number)) {
            stream.base += stream.bytes.len() as u64 + len;
            stream.bytes.clear();
            stream.seen = 0;
            stream.gaps = true;
        }
    }

    /// The transaction is over, whatever its streams still wait for.
    pub(crate) fn truncate_streams(&mut self) {
        for stream in self.streams[..self.streams_used].iter_mut().filter(|stream| !stream.done) {
            stream.truncated = true;
            stream.done = true;
            stream.grown = true;
        }
    }

    /// Bytes of the stream so far.
    pub(crate) fn stream_len(&self, number: u8) -> u64 {
        self.streams.get(usize::from(number)).map_or(0, |stream| stream.base + stream.bytes.len() as u64)
    }

    pub(crate) fn stream_unreported(&self, number: u8) -> usize {
        self.streams.get(usize::from(number)).map_or(0, |stream| stream.bytes.len() - stream.seen)
    }

    pub(crate) fn close_stream(&mut self, number: u8) {
        if let Some(stream) = self.streams.get_mut(usize::from(number)) {
            stream.grown |= !stream.done;
            stream.done = true;
        }
        for value in &mut self.values {
            value.done |= value.source == Source::Stream(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_buffers_are_found_and_forgotten() {
        let mut tx = Transaction::default();
        for round in 0..3u8 {
            tx.begin(Protocol::Http, u64::from(round));
            let all = || Buffer::ALL.iter().flat_map(|buffer| [Dir::ToServer, Dir::ToClient].map(|dir| (*buffer, dir)));
            assert!(all().all(|(buffer, dir)| tx.first(buffer, dir).is_none()));
            for (number, (buffer, dir)) in all().enumerate().filter(|(number, _)| number % 3 != usize::from(round)) {
                tx.value(buffer, dir, &[number as u8]);
                tx.value(buffer, dir, &[number as u8, round]);
            }
            for (number, (buffer, dir)) in all().enumerate() {
                let found: Vec<&[u8]> = tx.all(buffer, dir).map(|value| tx.bytes(value)).collect();
                let number_byte = number as u8;
                let wanted: &[&[u8]] = &[&[number_byte], &[number_byte, round]];
                assert_eq!(found, if number % 3 == usize::from(round) { &[] } else { wanted });
            }
        }
    }
}
