//! The events that people ask for, in SQLite. One connection writes (the writer thread's), one reads (behind a lock).
//!
//! Each row carries the event as the same JSON that stands in `eve.json`, and beside it only what is searched for, so that
//! the file can be opened with any tool: `select event ->> '$.alert.signature' from events where type = 'alert'`.
//! A damaged file is put aside, never mended in place: the log still has its events.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use bulkhead_model::{Event, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params, params_from_iter};

use crate::config::{DAMAGED_DATABASES_MAX, TAIL_BYTES_MAX, parent};
use crate::query::signature_id;
use crate::writer::Message;
use crate::{EventType, EventTypes, Query, StoreError, lock, log};

/// Raised when the tables change; a file with another number is put aside.
const SCHEMA_VERSION: i64 = 1;
/// "BHev": SQLite's own place for telling whose file it is.
const APPLICATION_ID: i64 = 0x4248_6576;
const SCHEMA: &str = "
create table meta (key text primary key, value integer not null) without rowid;
create table events (
    id    integer primary key,
    time  integer not null, -- nanoseconds since 1970
    type  text not null,
    sid   integer,
    src   text,             -- workload names
    dest  text,
    event text not null     -- EVE JSON
);
create index events_type on events (type);
create index events_time on events (time);
create index events_sid  on events (sid)  where sid  is not null;
create index events_src  on events (src)  where src  is not null;
create index events_dest on events (dest) where dest is not null;
";
const FILE_MODE: u32 = 0o600;
/// Rows removed beyond those added, when the file is past its size.
const REMOVE_ROWS_MIN: usize = 512;
/// SQLite itself refuses to grow the file past its size and a quarter.
const SLACK: (u64, u64) = (5, 4);
const PAGE_BYTES: u64 = 4096;

/// One event, ready to be stored.
pub(crate) struct Row<'a> {
    pub event: &'a Event,
    pub json: &'a str,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    bytes_max: u64,
    /// Rows by type.
    rows: [u64; EventType::COUNT],
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub database: Database,
    /// No id at or after this has been given away, as far as the file knows. 0: it knows nothing.
    pub next_id: u64,
    /// Why the file that was there has been put aside, and where to.
    pub replaced: Option<(String, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("{0}")]
    Damaged(String),
    /// Disk full, read-only, locked: the file itself may well be sound.
    #[error("{0}")]
    Refused(String),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl Database {
    /// Opens or makes the file; one that is damaged or of another schema is put aside and a new one begun.
    pub fn open(path: &Path, bytes_max: u64, now: Timestamp) -> Result<Opened, DatabaseError> {
        let dir = parent(path);
        log::make_directory(dir).map_err(|error| DatabaseError::Refused(format!("`{}`: {error}", dir.display())))?;
        match Self::open_as_is(path, bytes_max) {
            Ok((database, next_id)) => Ok(Opened { database, next_id, replaced: None }),
            Err(DatabaseError::Damaged(reason)) => {
                let aside = put_aside(path, now)
                    .map_err(|error| DatabaseError::Refused(format!("{reason}, and it cannot be put aside: {error}")))?;
                let (database, next_id) = Self::open_as_is(path, bytes_max)?;
                Ok(Opened { database, next_id, replaced: Some((reason, aside)) })
            }
            Err(refused) => Err(refused),
        }
    }

    fn open_as_is(path: &Path, bytes_max: u64) -> Result<(Self, u64), DatabaseError> {
        // SQLite gives its side files the same mode.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| DatabaseError::Refused(format!("`{}`: {error}", path.display())))?;
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // Before the first table: it cannot be changed afterwards.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(DatabaseError::Refused(format!("SQLite stays in journal mode `{mode}` here")));
        }
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "cache_size", -512)?;
        connection.pragma_update(None, "wal_autocheckpoint", 500)?;
        connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            connection.execute_batch(&format!(
                "begin; {SCHEMA} pragma user_version = {SCHEMA_VERSION}; pragma application_id = {APPLICATION_ID}; commit;"
            ))?;
        } else if version != SCHEMA_VERSION {
            return Err(DatabaseError::Damaged(format!("it has schema {version}, this program writes schema {SCHEMA_VERSION}")));
        }
        let mut database = Self { connection, bytes_max, rows: [0; EventType::COUNT] };
        if database.meta("clean")? != Some(1) && tables > 0 {
            let found: String = database.connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
            if found != "ok" {
                return Err(DatabaseError::Damaged(found));
            }
        }
        for kind in EventType::ALL {
            let count: i64 =
                database.connection.query_row("select count(*) from events where type = ?", [kind.name()], |row| row.get(0))?;
            database.rows[kind.index()] = u64::try_from(count).unwrap_or(0);
        }
        let newest: Option<i64> = database.connection.query_row("select max(id) from events", [], |row| row.get(0))?;
        let reserved = database.meta("next_id")?;
        let next_id = reserved.unwrap_or(0).max(newest.map_or(0, |id| id.saturating_add(1)));
        database.set_meta("clean", 0)?;
        let pages_max = bytes_max / SLACK.1 * SLACK.0 / PAGE_BYTES;
        database.connection.pragma_update(None, "max_page_count", integer(pages_max.max(256)))?;
        Ok((database, u64::try_from(next_id).unwrap_or(0)))
    }

    /// All rows, or none and the reason. Returns how many old rows made room.
    pub fn insert(&mut self, rows: &[Row<'_>]) -> Result<usize, DatabaseError> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert =
                transaction.prepare("insert into events (id, time, type, sid, src, dest, event) values (?, ?, ?, ?, ?, ?, ?)")?;
            for row in rows {
                let event = row.event;
                let sides = event.workload.as_ref();
                insert.execute(params![
                    integer(event.event_id),
                    integer(event.timestamp.0),
                    EventType::of(&event.body).name(),
                    signature_id(&event.body),
                    sides.map(|pair| pair.src.name.as_str()),
                    sides.map(|pair| pair.dest.name.as_str()),
                    row.json,
                ])?;
            }
        }
        transaction.commit()?;
        for row in rows {
            self.rows[EventType::of(&row.event.body).index()] += 1;
        }
        if self.used_bytes()? > self.bytes_max { self.remove_oldest(rows.len() * 2 + REMOVE_ROWS_MIN) } else { Ok(0) }
    }

    /// Bytes of the file that hold something.
    pub fn used_bytes(&self) -> Result<u64, DatabaseError> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (pages, free, size) = (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
        Ok(u64::try_from((pages - free).saturating_mul(size)).unwrap_or(0))
    }

    /// No id before `next_id` may be given away again, whatever happens.
    pub fn reserve(&mut self, next_id: u64) -> Result<(), DatabaseError> {
        self.set_meta("next_id", integer(next_id))
    }

    pub fn close(mut self, next_id: u64) {
        // What fails here is found by the check at the next opening.
        let _ = self.reserve(next_id);
        let _ = self.set_meta("clean", 1);
        let _ = self.connection.close();
    }

    /// Of the type that has the most rows, so that a flood of one type cannot push out the others.
    fn remove_oldest(&mut self, count: usize) -> Result<usize, DatabaseError> {
        let Some(kind) = EventType::ALL.into_iter().max_by_key(|kind| self.rows[kind.index()]) else { return Ok(0) };
        let removed = self.connection.execute(
            "delete from events where id in (select id from events where type = ? order by id limit ?)",
            params![kind.name(), i64::try_from(count).unwrap_or(i64::MAX)],
        )?;
        let left = &mut self.rows[kind.index()];
        *left = left.saturating_sub(removed as u64);
        // Gives pages back to the file system when there are far too many, that is when the size was lowered.
        let file_bytes: i64 = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if u64::try_from(file_bytes).unwrap_or(0).saturating_mul(PAGE_BYTES) > self.bytes_max {
            self.connection.execute_batch("pragma incremental_vacuum(1024)")?;
        }
        Ok(removed)
    }

    fn meta(&self, key: &str) -> Result<Option<i64>, DatabaseError> {
        Ok(self.connection.query_row("select value from meta where key = ?", [key], |row| row.get(0)).optional()?)
    }

    fn set_meta(&mut self, key: &str, value: i64) -> Result<(), DatabaseError> {
        self.connection.execute(
            "insert into meta (key, value) values (?, ?) on conflict (key) do update set value = excluded.value",
            params![key, value],
        )?;
        Ok(())
    }
}

/// The reading side, opened at the first question.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    log_path: PathBuf,
    /// Raised when the file at `path` is another one.
    generation: Arc<AtomicU64>,
    writer: SyncSender<Message>,
    connection: Mutex<Option<(u64, Connection)>>,
}

impl Reader {
    pub const fn new(path: PathBuf, log_path: PathBuf, generation: Arc<AtomicU64>, writer: SyncSender<Message>) -> Self {
        Self { path, log_path, generation, writer, connection: Mutex::new(None) }
    }

    pub fn query(&self, query: &Query) -> Result<Vec<Event>, StoreError> {
        let limit = query.limit();
        let asks = |of: fn(EventType) -> bool| query.types.iter().any(of);
        let mut events = if query.types.is_empty() || asks(EventType::in_database) { self.stored(query, limit)? } else { Vec::new() };
        let missed = query.id.is_some() && events.is_empty();
        if missed || asks(|kind| !kind.in_database()) {
            events.extend(self.in_tail(query)?);
            events.sort_by_key(|event| event.event_id);
            events.dedup_by_key(|event| event.event_id);
            if query.since.is_some() {
                events.truncate(limit);
            } else {
                events.drain(..events.len().saturating_sub(limit));
            }
        }
        Ok(events)
    }

    fn stored(&self, query: &Query, limit: usize) -> Result<Vec<Event>, StoreError> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut held = lock(&self.connection);
        if held.as_ref().is_none_or(|(of, _)| *of != generation) {
            *held = None;
            *held = Some((generation, self.connect().map_err(|error| StoreError::Database(error.to_string()))?));
        }
        let Some((_, connection)) = held.as_ref() else { return Err(StoreError::Database("not open".to_owned())) };
        let result = select(connection, query, limit).map_err(DatabaseError::from);
        if let Err(DatabaseError::Damaged(reason)) = &result {
            *held = None;
            // The writer looks for itself when it next writes, should the queue be full now.
            let _ = self.writer.try_send(Message::DatabaseDamaged { generation, reason: reason.clone() });
        }
        result.map_err(|error| StoreError::Database(error.to_string()))
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.pragma_update(None, "cache_size", -256)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        Ok(connection)
    }

    fn in_tail(&self, query: &Query) -> Result<Vec<Event>, StoreError> {
        let bytes = log::tail(&self.log_path, TAIL_BYTES_MAX).map_err(StoreError::Log)?;
        let logged: EventTypes = query.types.iter().filter(|kind| !kind.in_database()).collect();
        let wanted = Query { types: logged, ..query.clone() };
        let mut found: Vec<Event> = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').rev() {
            if query.since.is_none() && found.len() >= query.limit() {
                break;
            }
            if let Ok(event) = serde_json::from_slice::<Event>(line)
                && wanted.matches(&event)
            {
                found.push(event);
            }
        }
        Ok(found)
    }
}

fn select(connection: &Connection, query: &Query, limit: usize) -> rusqlite::Result<Vec<Event>> {
    let (text, values) = statement(query, limit);
    let mut statement = connection.prepare(&text)?;
    let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
    let mut events = Vec::new();
    for row in rows {
        // A row that another tool spoilt is left out rather than failing the whole answer.
        if let Ok(event) = serde_json::from_str::<Event>(&row?) {
            events.push(event);
        }
    }
    if query.since.is_none() {
        events.reverse();
    }
    Ok(events)
}

/// One branch for each type and side asked for, each of which an index answers in the order of ids, so that no more than
/// `limit` rows of each are read; then the best of the branches. An `in` or an `or` would read and sort all rows that match.
fn statement(query: &Query, limit: usize) -> (String, Vec<Value>) {
    let kinds: Vec<Option<EventType>> = if query.types.is_empty() { vec![None] } else { query.types.iter().map(Some).collect() };
    let sides: &[Option<&str>] = if query.workload.is_some() { &[Some("src"), Some("dest")] } else { &[None] };
    let order = if query.since.is_some() { "asc" } else { "desc" };
    let mut branches: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (kind, side) in kinds.iter().flat_map(|kind| sides.iter().map(move |side| (*kind, *side))) {
        let conditions = conditions(query, kind, side, &mut values);
        let filter = if conditions.is_empty() { String::new() } else { format!("where {}", conditions.join(" and ")) };
        branches.push(format!("select id, event from (select id, event from events {filter} order by id {order} limit {limit})"));
    }
    // `union` also takes out what is found on both sides.
    (format!("select event from ({}) order by id {order} limit {limit}", branches.join(" union ")), values)
}

fn conditions(query: &Query, kind: Option<EventType>, side: Option<&str>, values: &mut Vec<Value>) -> Vec<String> {
    let mut conditions: Vec<String> = Vec::new();
    let mut add = |condition: String, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(id) = query.id {
        add("id = ?".to_owned(), integer(id).into());
    }
    if let Some(since) = query.since {
        add("id > ?".to_owned(), integer(since).into());
    }
    if let Some(kind) = kind {
        add("type = ?".to_owned(), kind.name().to_owned().into());
    }
    if let (Some(side), Some(name)) = (side, &query.workload) {
        add(format!("{side} = ?"), name.clone().into());
    }
    if let Some(sid) = query.signature_id {
        add("sid = ?".to_owned(), i64::from(sid).into());
    }
    if let Some(from) = query.from {
        add("time >= ?".to_owned(), integer(from.0).into());
    }
    if let Some(to) = query.to {
        add("time < ?".to_owned(), integer(to.0).into());
    }
    conditions
}

/// Moves the file out of the way, keeps [`DAMAGED_DATABASES_MAX`] such files, and removes SQLite's side files.
fn put_aside(path: &Path, now: Timestamp) -> std::io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.damaged-");
    let mut older: Vec<PathBuf> = fs::read_dir(parent(path))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect();
    older.sort();
    let surplus = (older.len() + 1).saturating_sub(DAMAGED_DATABASES_MAX);
    for path in older.iter().take(surplus) {
        fs::remove_file(path)?;
    }
    let aside = path.with_file_name(format!("{prefix}{}", now.secs()));
    fs::rename(path, &aside)?;
    for side in ["-wal", "-shm"] {
        // Left behind they would be taken for the new file's.
        match fs::remove_file(path.with_file_name(format!("{name}{side}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

/// SQLite's integers are signed; ids and nanoseconds reach their end in the year 2262.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_answers_in_the_order_of_ids_whatever_is_asked_for() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let name = Some("web".to_owned());
        let types: EventTypes = "alert,drop,anomaly".parse().unwrap();
        let queries = [
            Query::by_id(7),
            Query { since: Some(7), ..Query::default() },
            Query { types, ..Query::default() },
            Query { workload: name.clone(), ..Query::default() },
            Query { workload: name, types, since: Some(1), ..Query::default() },
            Query { signature_id: Some(7), ..Query::default() },
        ];
        for query in queries {
            let (text, values) = statement(&query, 10);
            let mut plan = connection.prepare(&format!("explain query plan {text}")).unwrap();
            let steps: Vec<String> = plan.query_map(params_from_iter(values), |row| row.get(3)).unwrap().map(Result::unwrap).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH events USING")), "{query:?}: {steps:#?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN events")), "{query:?}: {steps:#?}");
            // A sort behind the scan of a branch sorts `limit` rows at most; one right behind the search would sort all that match.
            let sorted = steps.windows(2).any(|pair| pair[0].starts_with("SEARCH events") && pair[1].contains("TEMP B-TREE"));
            assert!(!sorted, "{query:?}: {steps:#?}");
        }
    }
}
