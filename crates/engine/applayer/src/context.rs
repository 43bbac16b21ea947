//! What the sessions of one worker share: configuration, counters, and memory for the next transaction.

use std::collections::VecDeque;

use crate::http::{Inflaters, Ranges, Scratch};
use crate::names::{BufferSet, Dir, Protocol};
use crate::session::Transport;
use crate::sink::Sink;
use crate::transaction::Transaction;

/// Transactions kept for the next session.
const POOL_MAX: usize = 1024;
/// Bytes of memory of all of them: what large transactions leave behind goes back.
pub(crate) const POOL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Limits, each counted in [`Stats`] where it bites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Buffers that somebody looks at; parsers may leave out the others.
    pub wanted: BufferSet,
    /// Keep [`crate::Notes`]: somebody writes records of transactions.
    pub notes: bool,
    /// Protocols that are not looked for.
    pub disabled: Vec<(Protocol, Transport)>,
    /// Transactions of one session that are open at the same time (Suricata's `max-tx`).
    pub transactions_max: usize,
    /// Bytes of one direction that are looked at to recognise a protocol; four times as many while the other is silent.
    pub probe_bytes_max: usize,
    /// Datagrams of one session that are looked at to recognise a protocol.
    pub probe_datagrams_max: u32,
    /// Bytes that wait for the rest of a line, header block or record, in one direction.
    pub pending_bytes_max: usize,
    /// Bytes of a body that are kept for matches which began in an earlier call.
    pub window_bytes: usize,
    /// A header block, from its request or status line to the blank line.
    pub header_bytes_max: usize,
    /// Header fields of one message.
    pub headers_max: usize,
    /// One header field (Suricata's `request-field-limit`): longer ones raise an event.
    pub field_bytes_max: usize,
    /// Decode an URI's path twice, and its query (`double-decode-path`, `double-decode-query`).
    pub double_decode: bool,
    /// What comes with the end of an answer's body and begins no answer is the body's, as the reference engine takes it. That
    /// depends on how the bytes are cut, so it is for comparing with that engine.
    pub body_tails: bool,
    /// Content codings of one body that are undone (`response-body-decompress-layer-limit`); the inner ones stay.
    pub coding_layers_max: usize,
    /// Bytes that one body may become when it is decompressed; more ends the session.
    pub decoded_bytes_max: u64,
    /// And as a multiple of what came, once more than [`Self::decoded_free_bytes`] came out; more ends the session.
    pub decoded_ratio_max: u64,
    pub decoded_free_bytes: u64,
    /// One handshake message of TLS; a longer one ends the session.
    pub handshake_bytes_max: usize,
    /// Digest the bodies of mails (`body-md5`); `None`: where rules ask for it.
    pub email_body_md5: Option<bool>,
    /// Schemes of links in mails that are told of (`extract-urls-schemes`).
    pub email_url_schemes: Vec<String>,
    /// One line of FTP (`max-line-length`); the rest of a longer one is left away.
    pub ftp_line_bytes_max: usize,
    /// One message of MQTT (`max-msg-length`); longer ones are passed over, and their transactions marked.
    pub mqtt_message_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wanted: BufferSet::ALL,
            notes: true,
            disabled: Vec::new(),
            transactions_max: 512,
            probe_bytes_max: 4096,
            probe_datagrams_max: 16,
            pending_bytes_max: 256 * 1024,
            window_bytes: 16 * 1024,
            header_bytes_max: 128 * 1024,
            headers_max: 1024,
            field_bytes_max: 18_000,
            double_decode: false,
            body_tails: false,
            coding_layers_max: 2,
            decoded_bytes_max: 256 * 1024 * 1024,
            // Deflate's own limit is 1032; text and logs stay below 200.
            decoded_ratio_max: 512,
            decoded_free_bytes: 16 * 1024 * 1024,
            // Chains of certificates have some 10 KiB.
            handshake_bytes_max: 256 * 1024,
            email_body_md5: None,
            email_url_schemes: ["http", "https", "ftp"].map(str::to_owned).to_vec(),
            ftp_line_bytes_max: 4096,
            // As much as may wait, with the message's own head.
            mqtt_message_bytes_max: 255 * 1024,
        }
    }
}

/// Counted since the context was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub sessions: u64,
    pub recognised: u64,
    /// No protocol after [`Config::probe_bytes_max`].
    pub unknown: u64,
    pub transactions: u64,
    /// Transactions that memory had to be found for.
    pub transactions_allocated: u64,
    pub gaps: u64,
    pub malformed: u64,
    /// Refused: more transactions at once than [`Config::transactions_max`].
    pub transactions_refused: u64,
    /// Refused: more bytes waiting than [`Config::pending_bytes_max`] or a header block over [`Config::header_bytes_max`].
    pub pending_refused: u64,
    /// Header fields beyond [`Config::headers_max`].
    pub headers_refused: u64,
    /// Transactions with more values or bytes than they may hold.
    pub overflowed: u64,
    /// As they came.
    pub body_bytes: u64,
    /// That came out of content codings.
    pub decoded_bytes: u64,
    /// Bodies over [`Config::decoded_bytes_max`] or [`Config::decoded_ratio_max`].
    pub decoded_refused: u64,
    /// Bodies that are not what their label says, or broke off in an error.
    pub undecodable: u64,
}

/// Shared by the sessions of one worker.
#[derive(Debug)]
pub struct Context {
    pub config: Config,
    pub stats: Stats,
    // Each transaction has an address that stays: sessions keep them by pointer.
    #[allow(clippy::vec_box)]
    pool: Vec<Box<Transaction>>,
    /// Bytes of memory in `pool`.
    pooled: usize,
    pub(crate) scratch: Scratch,
    pub(crate) inflaters: Inflaters,
    pub(crate) ranges: Ranges,
    /// Transactions that a call has changed.
    touched: Vec<u64>,
}

impl Context {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            stats: Stats::default(),
            pool: Vec::new(),
            pooled: 0,
            scratch: Scratch::default(),
            inflaters: Inflaters::default(),
            ranges: Ranges::default(),
            touched: Vec::new(),
        }
    }

    fn take_transaction(&mut self, protocol: Protocol, id: u64) -> Box<Transaction> {
        let mut tx = self.pool.pop().unwrap_or_else(|| {
            self.stats.transactions_allocated += 1;
            Box::default()
        });
        self.pooled = self.pooled.saturating_sub(std::mem::take(&mut tx.counted));
        self.stats.transactions += 1;
        tx.begin(protocol, id);
        tx.notes.off = !self.config.notes;
        tx
    }

    fn give_transaction(&mut self, mut tx: Box<Transaction>) {
        self.stats.overflowed += u64::from(tx.overflowed);
        if self.pool.len() < POOL_MAX {
            tx.shrink();
            let memory = tx.memory();
            if self.pooled + memory <= POOL_BYTES_MAX {
                self.pooled += memory;
                tx.counted = memory;
                self.pool.push(tx);
            }
        }
    }
}

/// Transactions of one session that are not complete, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Open {
    list: VecDeque<Box<Transaction>>,
    next: u64,
    /// Bytes of memory of all of them, as of the last report.
    pub memory: usize,
}

impl Open {
    /// All that were begun.
    pub const fn count(&self) -> u64 {
        self.next
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Transaction> {
        self.list.iter_mut().map(Box::as_mut)
    }

    fn position(&self, id: u64) -> Option<usize> {
        // Mostly they end in order.
        match self.list.front() {
            Some(front) if front.id == id => Some(0),
            _ => self.list.binary_search_by_key(&id, |tx| tx.id).ok(),
        }
    }
}

/// What a parser writes to.
pub(crate) struct Io<'a> {
    pub context: &'a mut Context,
    pub open: &'a mut Open,
    pub sink: &'a mut dyn Sink,
    /// Direction of the bytes that are being read.
    pub dir: Dir,
}

impl Io<'_> {
    /// A new transaction's number. `None`: [`Config::transactions_max`] are open.
    pub fn begin(&mut self, protocol: Protocol) -> Option<u64> {
        if self.open.list.len() >= self.context.config.transactions_max {
            self.context.stats.transactions_refused += 1;
            return None;
        }
        let id = self.open.next;
        self.open.next += 1;
        let tx = self.context.take_transaction(protocol, id);
        self.open.list.push_back(tx);
        Some(id)
    }

    pub fn is_open(&self, id: u64) -> bool {
        self.open.position(id).is_some()
    }

    /// An open transaction, which will be told of at the end of the call.
    pub fn tx(&mut self, id: u64) -> Option<&mut Transaction> {
        let at = self.open.position(id)?;
        let tx = self.open.list.get_mut(at)?;
        if !tx.touched {
            tx.touched = true;
            self.context.touched.push(id);
        }
        Some(tx)
    }

    /// An event of a transaction, or of the session where there is none.
    pub fn event(&mut self, id: Option<u64>, event: &'static str) {
        let dir = self.dir;
        match id.and_then(|id| self.tx(id)) {
            Some(tx) => tx.event(event, dir),
            None => self.sink.event(event, dir),
        }
    }

    /// Adds to a stream, and tells of it as often as its window is full.
    pub fn grow(&mut self, id: u64, stream: u8, mut bytes: &[u8]) {
        let (dir, window) = (self.dir, self.context.config.window_bytes.max(1));
        if self.tx(id).is_none() {
            return;
        }
        let Some(at) = self.open.position(id) else { return };
        let tx = &mut self.open.list[at];
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(window.saturating_sub(tx.stream_unreported(stream)).clamp(1, bytes.len()));
            tx.grow_stream(stream, now);
            bytes = later;
            if tx.stream_unreported(stream) >= window {
                self.sink.update(tx, dir);
                tx.reported(window);
            }
        }
    }

    /// Bytes of a stream are missing.
    pub fn skip(&mut self, id: u64, stream: u8, len: u64) {
        let dir = self.dir;
        let window = self.context.config.window_bytes.max(1);
        if let Some(at) = self.open.position(id) {
            let tx = &mut self.open.list[at];
            // What came before them has to be looked at before it goes.
            if tx.stream_unreported(stream) > 0 {
                self.sink.update(tx, dir);
                tx.reported(window);
            }
            tx.skip_stream(stream, len);
        }
    }

    /// Tells of all transactions that changed, and takes leave of those that are complete.
    pub fn report(&mut self) {
        let mut touched = std::mem::take(&mut self.context.touched);
        for id in touched.drain(..) {
            let Some(at) = self.open.position(id) else { continue };
            let tx = &mut self.open.list[at];
            tx.touched = false;
            if tx.has_news() {
                self.sink.update(tx, self.dir);
                tx.reported(self.context.config.window_bytes.max(1));
            }
            let memory = tx.memory();
            self.open.memory = (self.open.memory + memory).saturating_sub(tx.counted);
            tx.counted = memory;
            if tx.is_complete() {
                self.open.memory = self.open.memory.saturating_sub(memory);
                self.sink.complete(tx);
                if let Some(tx) = self.open.list.remove(at) {
                    self.context.give_transaction(tx);
                }
            }
        }
        self.context.touched = touched;
    }

    /// The end: whatever is open is told of for the last time.
    pub fn close(&mut self) {
        self.report();
        while let Some(mut tx) = self.open.list.pop_front() {
            tx.truncate_streams();
            if tx.has_news() {
                self.sink.update(&mut tx, self.dir);
                tx.reported(self.context.config.window_bytes.max(1));
            }
            self.sink.complete(&mut tx);
            self.context.give_transaction(tx);
        }
        self.open.memory = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Buffer;

    #[test]
    fn large_transactions_do_not_stay_in_the_pool() {
        let mut context = Context::new(Config::default());
        let mut all: Vec<_> = (0..200).map(|id| context.take_transaction(Protocol::Http, id)).collect();
        for tx in &mut all {
            tx.value(Buffer::HttpHeaderRaw, Dir::ToServer, &[b'a'; 200_000]);
        }
        all.into_iter().for_each(|tx| context.give_transaction(tx));
        let held: usize = context.pool.iter().map(|tx| tx.memory()).sum();
        assert!(held == context.pooled && held <= POOL_BYTES_MAX && context.pool.len() > 1, "{held}");
        while !context.pool.is_empty() {
            context.take_transaction(Protocol::Http, 0);
        }
        assert_eq!(context.pooled, 0);
    }
}
