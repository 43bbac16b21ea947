//! The one thread that writes: waits for an event, gathers what comes within [`BATCH_WINDOW_MS`], numbers it, writes the lines,
//! then the rows, then tells the followers. When nothing comes it sleeps; there is no timer unless a loss is still to be reported.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_model::{Alert, Event, EventBody, Operation, Timestamp};
use serde_json::{Value, json};

use crate::config::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_WINDOW_MS, DATABASE_RETRY_SECS, LINE_BYTES_MAX, LOSS_REPORT_SECS, parent};
use crate::counters::Counters;
use crate::database::{Database, DatabaseError, Row};
use crate::follow::Followers;
use crate::log::{self, EveLog};
use crate::{EventType, EventTypes, StoreConfig, StoreError};

/// What travels through the queue.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Box<Event>),
    Flush(SyncSender<()>),
    Reopen(SyncSender<()>),
    /// A reader found it out.
    DatabaseDamaged {
        generation: u64,
        reason: String,
    },
    Close,
}

/// Ids put aside at a time. After a crash the numbering leaps by at most this.
const ID_RESERVE: u64 = 4096;
/// Remarks of the store on itself that wait for the log to work again.
const NOTICES_MAX: usize = 32;
/// Characters left of each text of an event that is too long for a line.
const CUT_CHARS: usize = 256;

pub(crate) struct Writer {
    config: StoreConfig,
    messages: Receiver<Message>,
    counters: Arc<Counters>,
    followers: Arc<Followers>,
    log: EveLog,
    /// Whether the last write to the log went well; reports wait until it does.
    log_works: bool,
    database: Option<Database>,
    database_retry: Instant,
    database_generation: Arc<AtomicU64>,
    next_id: u64,
    /// `next_id <= reserved_id` while the database works.
    reserved_id: u64,
    /// [`Counters::lost_total`] at the last report.
    reported: u64,
    reported_at: Option<Instant>,
    /// To be written as soon as the log can be. At most [`NOTICES_MAX`].
    notices: Vec<Operation>,
    /// The failure of the database has been told.
    database_failure_told: bool,
    chunk: Chunk,
    _lock: File,
}

impl Writer {
    pub fn open(
        config: StoreConfig,
        messages: Receiver<Message>,
        counters: Arc<Counters>,
        followers: Arc<Followers>,
    ) -> Result<Self, StoreError> {
        for dir in [config.log_dir(), parent(&config.database)] {
            log::make_directory(dir).map_err(|source| StoreError::Directory { path: dir.to_owned(), source })?;
        }
        let held = take_lock(&config)?;
        let now = clock();
        let (log, cut) = EveLog::open(&config, counters.clone(), now)?;
        let mut writer = Self {
            messages,
            counters,
            followers,
            next_id: log.last_id() + 1,
            log,
            log_works: true,
            database: None,
            database_retry: Instant::now(),
            database_generation: Arc::default(),
            reserved_id: 0,
            reported: 0,
            reported_at: None,
            notices: Vec::new(),
            database_failure_told: false,
            chunk: Chunk::default(),
            config,
            _lock: held,
        };
        if cut > 0 {
            let message = format!("the last line of eve.json was incomplete; {cut} bytes were cut off");
            writer.notify(operation("log-mended", message, [("bytes", json!(cut))]));
        }
        writer.open_database(now);
        Ok(writer)
    }

    pub fn database_generation(&self) -> Arc<AtomicU64> {
        self.database_generation.clone()
    }

    pub fn run(mut self) {
        self.write_batch(Vec::new());
        let mut replies = Vec::new();
        while let Some(first) = self.wait() {
            let mut batch = Batch::default();
            batch.add(first);
            if batch.may_gather() && self.counters.queued.load(Ordering::Relaxed) < BATCH_EVENTS_MAX {
                std::thread::sleep(Duration::from_millis(BATCH_WINDOW_MS));
            }
            while batch.may_gather()
                && let Ok(message) = self.messages.try_recv()
            {
                batch.add(message);
            }
            self.counters.queued.fetch_sub(batch.events.len(), Ordering::Relaxed);
            self.write_batch(batch.events);
            for request in batch.requests {
                match request {
                    Request::Flush(done) => replies.push(done),
                    Request::Reopen(done) => {
                        self.reopen();
                        replies.push(done);
                    }
                    Request::DatabaseDamaged { generation, reason } => self.replace_database(generation, &reason),
                }
            }
            for done in replies.drain(..) {
                // Nobody waits any more: nothing to tell.
                let _ = done.send(());
            }
            if batch.close {
                break;
            }
        }
        self.close();
    }

    /// The next message; `None` when every sender is gone. Wakes by itself only while a loss waits to be reported.
    fn wait(&mut self) -> Option<Message> {
        loop {
            let due = if self.log_works && self.counters.lost_total() != self.reported { self.report_due() } else { None };
            let Some(due) = due else { return self.messages.recv().ok() };
            match self.messages.recv_timeout(due) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.write_batch(Vec::new()),
            }
        }
    }

    fn report_due(&self) -> Option<Duration> {
        let every = Duration::from_secs(LOSS_REPORT_SECS);
        Some(self.reported_at.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed())))
    }

    fn write_batch(&mut self, events: Vec<Event>) {
        let now = clock();
        if self.database.is_none() && !events.is_empty() && self.database_retry.elapsed() >= Duration::from_secs(DATABASE_RETRY_SECS) {
            self.open_database(now);
        }
        for event in events {
            self.add(event, now);
        }
        self.write_chunk(now);
        // Kept back while the log fails: they would be lost themselves.
        if self.log_works {
            for notice in std::mem::take(&mut self.notices) {
                self.add(event_of(notice, now), now);
            }
            self.write_chunk(now);
        }
        self.report_losses(now);
    }

    fn add(&mut self, mut event: Event, now: Timestamp) {
        event.event_id = self.next_id;
        self.next_id += 1;
        self.chunk.push(event, &self.counters);
        if self.chunk.lines.len() >= BATCH_BYTES_MAX {
            self.write_chunk(now);
        }
    }

    fn write_chunk(&mut self, now: Timestamp) {
        let Some(last) = self.chunk.events.last() else { return };
        let last_id = last.event_id;
        self.reserve_ids();
        let mut chunk = std::mem::take(&mut self.chunk);
        self.write_lines(&chunk, now, last_id);
        self.store_rows(&chunk, now);
        if self.followers.count() > 0 {
            self.followers.publish(&chunk.events);
        }
        chunk.clear();
        self.chunk = chunk;
    }

    fn write_lines(&mut self, chunk: &Chunk, now: Timestamp, last_id: u64) {
        let logged = chunk.only(self.config.log_types);
        if logged.kinds.is_empty() {
            return;
        }
        let written = match self.log.write(now, &logged.lines, &logged.ends, last_id) {
            Ok(()) => logged.kinds.len(),
            Err(shortfall) => {
                if self.log_works {
                    let message = format!("eve.json could not be written: {}", shortfall.error);
                    self.notify(operation("log-failed", message, []));
                }
                shortfall.lines_written
            }
        };
        self.log_works = written == logged.kinds.len();
        for (at, kind) in logged.kinds.iter().enumerate() {
            let counter = if at < written { &self.counters.written } else { &self.counters.lost_log };
            counter.add(*kind, 1);
        }
    }

    fn store_rows(&mut self, chunk: &Chunk, now: Timestamp) {
        let rows: Vec<Row<'_>> = chunk.rows().filter(|row| EventType::of(&row.event.body).in_database()).collect();
        if rows.is_empty() {
            return;
        }
        let mut result = self.insert(&rows);
        if let Err(DatabaseError::Damaged(reason)) = &result {
            self.begin_new_database(reason, now);
            result = self.insert(&rows);
        }
        match result {
            Ok(removed) => {
                self.counters.database_removed.fetch_add(removed as u64, Ordering::Relaxed);
            }
            Err(_) => rows.iter().for_each(|row| self.counters.lost_database.add(EventType::of(&row.event.body), 1)),
        }
        self.report_database_size();
    }

    fn insert(&mut self, rows: &[Row<'_>]) -> Result<usize, DatabaseError> {
        self.database.as_mut().ok_or_else(|| DatabaseError::Refused("not open".to_owned()))?.insert(rows)
    }

    /// One `events-lost` event for all losses since the last one. It is not written while the log fails: it would be lost itself.
    fn report_losses(&mut self, now: Timestamp) {
        let lost = self.counters.lost_total();
        if lost == self.reported || !self.log_works || self.report_due().is_some_and(|due| !due.is_zero()) {
            return;
        }
        let stats = self.counters.snapshot(0, 0);
        let message = format!("{} events could not be kept", lost - self.reported);
        let places = [("queue", &stats.lost_queue), ("log", &stats.lost_log), ("database", &stats.lost_database)];
        let details = places.into_iter().filter(|(_, counts)| !counts.is_empty()).map(|(place, counts)| (place, json!(counts)));
        self.add(event_of(operation("events-lost", message, details), now), now);
        // Its own loss, should it happen, is not worth another report.
        let before = self.counters.lost_total();
        self.write_chunk(now);
        self.reported = lost + (self.counters.lost_total() - before);
        self.reported_at = Some(Instant::now());
    }

    fn notify(&mut self, notice: Operation) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }

    fn reserve_ids(&mut self) {
        if self.next_id <= self.reserved_id {
            return;
        }
        let reserve = self.next_id + ID_RESERVE;
        // Without a database the log's last line tells where to go on.
        if self.database.as_mut().is_some_and(|database| database.reserve(reserve).is_ok()) {
            self.reserved_id = reserve;
        }
    }

    fn open_database(&mut self, now: Timestamp) {
        self.database_retry = Instant::now();
        match Database::open(&self.config.database, self.config.database_bytes_max, now) {
            Ok(opened) => {
                self.next_id = self.next_id.max(opened.next_id);
                if let Some((reason, aside)) = opened.replaced {
                    // The file that knew what was given away is gone.
                    self.next_id += ID_RESERVE;
                    self.counters.databases_replaced.fetch_add(1, Ordering::Relaxed);
                    let message = format!("the event database was put aside as {}, and a new one begun: {reason}", aside.display());
                    self.notify(operation("database-replaced", message, [("aside", json!(aside)), ("reason", json!(reason))]));
                }
                self.database_failure_told = false;
                self.reserved_id = 0;
                self.database = Some(opened.database);
                self.database_generation.fetch_add(1, Ordering::Release);
                self.report_database_size();
            }
            Err(error) => {
                if !self.database_failure_told {
                    self.database_failure_told = true;
                    let message = format!("the event database cannot be used; events go to eve.json alone: {error}");
                    self.notify(operation("database-failed", message, []));
                }
            }
        }
    }

    fn replace_database(&mut self, generation: u64, reason: &str) {
        if generation == self.database_generation.load(Ordering::Acquire) {
            self.begin_new_database(reason, clock());
        }
    }

    /// Closes without marking the file clean, so that opening it checks it from end to end and puts it aside.
    fn begin_new_database(&mut self, reason: &str, now: Timestamp) {
        let Some(database) = self.database.take() else { return };
        drop(database);
        let replaced = self.counters.databases_replaced.load(Ordering::Relaxed);
        self.open_database(now);
        if self.counters.databases_replaced.load(Ordering::Relaxed) == replaced && self.database.is_some() {
            // The check found nothing: what was seen was of the moment.
            let message = format!("the event database was opened again: {reason}");
            self.notify(operation("database-reopened", message, []));
        }
    }

    fn reopen(&mut self) {
        let now = clock();
        self.log_works = self.log.reopen(now).is_ok();
        if self.database.is_none() {
            self.open_database(now);
        }
    }

    fn report_database_size(&self) {
        let bytes = self.database.as_ref().and_then(|database| database.used_bytes().ok()).unwrap_or(0);
        self.counters.database_bytes.store(bytes, Ordering::Relaxed);
    }

    fn close(mut self) {
        // What is lost until now is told now.
        self.reported_at = None;
        self.write_batch(Vec::new());
        if let Some(database) = self.database.take() {
            database.close(self.next_id);
        }
        self.log.close();
        self.followers.close();
    }
}

/// Messages taken off the queue together.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    requests: Vec<Request>,
    close: bool,
}

enum Request {
    Flush(SyncSender<()>),
    Reopen(SyncSender<()>),
    DatabaseDamaged { generation: u64, reason: String },
}

impl Batch {
    /// A request ends the batch: it is about what came before it.
    fn may_gather(&self) -> bool {
        self.events.len() < BATCH_EVENTS_MAX && self.requests.is_empty() && !self.close
    }

    fn add(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.events.push(*event),
            Message::Flush(done) => self.requests.push(Request::Flush(done)),
            Message::Reopen(done) => self.requests.push(Request::Reopen(done)),
            Message::DatabaseDamaged { generation, reason } => self.requests.push(Request::DatabaseDamaged { generation, reason }),
            Message::Close => self.close = true,
        }
    }
}

/// Events and their lines, written together.
#[derive(Debug, Default)]
struct Chunk {
    events: Vec<Arc<Event>>,
    lines: Vec<u8>,
    /// Offsets behind each line feed; as many as `events`.
    ends: Vec<usize>,
}

/// What of a chunk goes to the log.
struct Logged<'a> {
    kinds: Vec<EventType>,
    lines: Cow<'a, [u8]>,
    ends: Cow<'a, [usize]>,
}

impl Chunk {
    fn only(&self, types: EventTypes) -> Logged<'_> {
        let kinds = self.events.iter().map(|event| EventType::of(&event.body));
        if types.is_empty() || kinds.clone().all(|kind| types.contains(kind)) {
            return Logged { kinds: kinds.collect(), lines: Cow::Borrowed(&self.lines), ends: Cow::Borrowed(&self.ends) };
        }
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        for ((start, end), _) in starts.zip(&self.ends).zip(kinds.clone()).filter(|(_, kind)| types.contains(*kind)) {
            lines.extend_from_slice(&self.lines[start..*end]);
            ends.push(lines.len());
        }
        Logged { kinds: kinds.filter(|kind| types.contains(*kind)).collect(), lines: lines.into(), ends: ends.into() }
    }

    fn push(&mut self, mut event: Event, counters: &Counters) {
        let start = self.lines.len();
        let mut fits = self.serialise(&event, start);
        if !fits {
            cut(&mut event);
            counters.cut.fetch_add(1, Ordering::Relaxed);
            fits = self.serialise(&event, start);
        }
        if !fits {
            self.lines.truncate(start);
            counters.lost_log.add(EventType::of(&event.body), 1);
            return;
        }
        self.lines.push(b'\n');
        self.ends.push(self.lines.len());
        self.events.push(Arc::new(event));
    }

    fn serialise(&mut self, event: &Event, start: usize) -> bool {
        self.lines.truncate(start);
        serde_json::to_writer(&mut self.lines, event).is_ok() && self.lines.len() - start < LINE_BYTES_MAX
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lines = starts.zip(&self.ends).map(|(start, end)| &self.lines[start..end - 1]);
        self.events.iter().zip(lines).filter_map(|(event, line)| Some(Row { event, json: std::str::from_utf8(line).ok()? }))
    }

    /// Keeps the memory of an ordinary chunk, and gives back that of a great one.
    fn clear(&mut self) {
        self.events.clear();
        self.lines.clear();
        self.ends.clear();
        self.events.shrink_to(64);
        self.lines.shrink_to(64 * 1024);
        self.ends.shrink_to(64);
    }
}

/// Makes an event fit into a line by leaving out what is long.
fn cut(event: &mut Event) {
    let text = |text: &mut String| {
        if let Some((at, _)) = text.char_indices().nth(CUT_CHARS) {
            text.truncate(at);
        }
    };
    let cut_alert = |alert: &mut Alert| {
        alert.metadata.clear();
        alert.references.clear();
        [&mut alert.signature, &mut alert.category].into_iter().for_each(text);
        alert.rule_source.iter_mut().for_each(text);
    };
    [&mut event.in_iface, &mut event.proto, &mut event.app_proto, &mut event.direction].into_iter().flatten().for_each(text);
    for side in event.workload.iter_mut().flat_map(|pair| [&mut pair.src, &mut pair.dest]) {
        text(&mut side.name);
        [&mut side.id, &mut side.image].into_iter().flatten().for_each(text);
    }
    let cut_flow = |flow: &mut bulkhead_model::FlowRecord| [&mut flow.state, &mut flow.reason].into_iter().flatten().for_each(text);
    match &mut event.body {
        EventBody::Alert { alert, flow } => {
            cut_alert(alert);
            flow.iter_mut().for_each(cut_flow);
        }
        EventBody::Drop { drop, alert } => {
            [&mut drop.verdict, &mut drop.reason, &mut drop.explanation, &mut drop.tier].into_iter().for_each(text);
            alert.iter_mut().for_each(cut_alert);
        }
        EventBody::Flow { flow } => cut_flow(flow),
        EventBody::Anomaly { anomaly } => [&mut anomaly.r#type, &mut anomaly.event].into_iter().for_each(text),
        EventBody::Stats { stats } => *stats = json!({ "cut": true }),
        EventBody::Operation { operation } => {
            operation.details.clear();
            [&mut operation.action, &mut operation.message].into_iter().for_each(text);
        }
    }
}

fn operation<'a>(action: &str, message: String, details: impl IntoIterator<Item = (&'a str, Value)>) -> Operation {
    let details: BTreeMap<String, Value> = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Operation { action: action.to_owned(), message, details }
}

fn event_of(operation: Operation, now: Timestamp) -> Event {
    Event {
        timestamp: now,
        event_id: 0,
        flow_id: None,
        in_iface: None,
        src_ip: None,
        src_port: None,
        dest_ip: None,
        dest_port: None,
        proto: None,
        app_proto: None,
        direction: None,
        workload: None,
        body: EventBody::Operation { operation },
    }
}

fn take_lock(config: &StoreConfig) -> Result<File, StoreError> {
    let path = config.lock_path();
    let failed = |source| StoreError::Directory { path: path.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: config.log.clone() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Directory { path, source }),
    }
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
