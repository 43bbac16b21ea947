//! The live file, `eve.json`: whole lines only, whatever happens.
//!
//! A crash can leave half a line at the end; it is cut off when the file is opened. A full disk can take half a line;
//! it is cut off at once, and if even that fails, at the next opening. The file may be renamed, removed or truncated by another
//! program (logrotate): that is noticed before each write.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bulkhead_model::Timestamp;
use serde::Deserialize;

use crate::archive::Archives;
use crate::config::{LINE_BYTES_MAX, parent};
use crate::counters::Counters;
use crate::{StoreConfig, StoreError};

/// Readable by the group, so that a log collector need not be root.
pub(crate) const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

#[derive(Debug)]
pub(crate) struct EveLog {
    path: PathBuf,
    rotate_bytes: u64,
    rotate_nanos: u64,
    archives: Archives,
    counters: Arc<Counters>,
    /// `None` after a failure that a new opening must mend.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    file: File,
    inode: (u64, u64),
    /// Of whole lines; the file is as long.
    bytes: u64,
    first: Timestamp,
    last_id: u64,
}

/// Not all lines could be written.
#[derive(Debug)]
pub(crate) struct Shortfall {
    pub lines_written: usize,
    pub error: io::Error,
}

impl EveLog {
    /// Returns the log and the number of bytes of half a line that were cut off.
    pub fn open(config: &StoreConfig, counters: Arc<Counters>, now: Timestamp) -> Result<(Self, u64), StoreError> {
        let path = config.log.clone();
        let (live, cut) = Live::open(&path, now).map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        let archives = Archives::open(config, counters.clone());
        let log = Self {
            path,
            rotate_bytes: config.rotate_bytes.max(LINE_BYTES_MAX as u64),
            rotate_nanos: config.rotate_secs.max(1).saturating_mul(1_000_000_000),
            archives,
            counters,
            live: Some(live),
        };
        log.report_size();
        Ok((log, cut))
    }

    /// The greatest id known from the live file's last line and from the archives' names.
    pub fn last_id(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.last_id).max(self.archives.last_id())
    }

    /// `lines` ends with a line feed; `ends` are the offsets behind each line's.
    pub fn write(&mut self, now: Timestamp, lines: &[u8], ends: &[usize], last_id: u64) -> Result<(), Shortfall> {
        let none = |error| Shortfall { lines_written: 0, error };
        self.make_room(now, lines.len() as u64).map_err(none)?;
        let live = self.live(now).map_err(none)?;
        let result = live.append(lines, ends);
        match &result {
            Ok(()) => live.last_id = last_id,
            // The next write opens the file again, and that cuts what is left of the half line.
            Err(_) => self.live = None,
        }
        self.report_size();
        result
    }

    pub fn reopen(&mut self, now: Timestamp) -> io::Result<()> {
        self.live = None;
        self.live(now)?;
        Ok(())
    }

    pub fn close(&mut self) {
        self.live = None;
        self.archives.close();
    }

    /// Puts the file aside when it is full or old, and lets go of a file that is no longer at its path.
    fn make_room(&mut self, now: Timestamp, bytes: u64) -> io::Result<()> {
        let Some(live) = &mut self.live else { return Ok(()) };
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == live.inode => live.bytes = found.len(),
            Ok(_) | Err(_) => {
                self.live = None;
                return Ok(());
            }
        }
        let full = live.bytes + bytes > self.rotate_bytes;
        let old = now.since(live.first) > self.rotate_nanos;
        if live.bytes > 0 && (full || old) {
            let last_id = live.last_id;
            self.live = None;
            self.archives.put_aside(&self.path, now, last_id)?;
        }
        Ok(())
    }

    fn live(&mut self, now: Timestamp) -> io::Result<&mut Live> {
        if self.live.is_none() {
            self.live = Some(Live::open(&self.path, now)?.0);
        }
        self.live.as_mut().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn report_size(&self) {
        self.counters.log_bytes.store(self.live.as_ref().map_or(0, |live| live.bytes), Ordering::Relaxed);
    }
}

impl Live {
    fn open(path: &Path, now: Timestamp) -> io::Result<(Self, u64)> {
        make_directory(parent(path))?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
        let cut = mend_tail(&mut file)?;
        let found = file.metadata()?;
        let first = first_time(&file).unwrap_or(now);
        let last_id = last_line(&mut file)?.and_then(|line| serde_json::from_slice::<Numbered>(&line).ok()).map_or(0, |line| line.event_id);
        Ok((Self { file, inode: (found.dev(), found.ino()), bytes: found.len(), first, last_id }, cut))
    }

    fn append(&mut self, lines: &[u8], ends: &[usize]) -> Result<(), Shortfall> {
        let mut written = 0;
        while written < lines.len() {
            match self.file.write(&lines[written..]) {
                Ok(0) => return Err(self.stop_at(written, ends, ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.stop_at(written, ends, error)),
            }
        }
        self.bytes += written as u64;
        Ok(())
    }

    fn stop_at(&mut self, written: usize, ends: &[usize], error: io::Error) -> Shortfall {
        let lines_written = ends.partition_point(|end| *end <= written);
        let whole = lines_written.checked_sub(1).and_then(|at| ends.get(at)).copied().unwrap_or(0);
        if whole < written {
            // When this fails too, the next opening does it.
            let _ = self.file.set_len(self.bytes + whole as u64);
        }
        Shortfall { lines_written, error }
    }
}

/// The last lines of the file, newest first, out of its last `bytes_max` bytes. No file: no lines.
pub(crate) fn tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(bytes_max);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(bytes_max).read_to_end(&mut bytes)?;
    if from > 0 {
        let start = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..start);
    }
    Ok(bytes)
}

pub(crate) fn make_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir)
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    event_id: u64,
}

#[derive(Deserialize)]
struct Timed {
    timestamp: Timestamp,
}

/// Cuts half a line off the end, or completes a whole one that only lacks its line feed.
/// Returns the bytes cut. A "line" longer than any of ours is not ours to cut: it is ended where it stands.
fn mend_tail(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LINE_BYTES_MAX as u64 + 1);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX as u64 + 1).read_to_end(&mut end)?;
    let whole = match end.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if from == 0 => 0,
        None => {
            file.write_all(b"\n")?;
            return Ok(0);
        }
    };
    let half = &end[whole..];
    if half.is_empty() {
        return Ok(0);
    }
    if serde_json::from_slice::<Timed>(half).is_ok() {
        file.write_all(b"\n")?;
        return Ok(0);
    }
    file.set_len(from + whole as u64)?;
    Ok(half.len() as u64)
}

fn last_line(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LINE_BYTES_MAX as u64 + 1)))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX as u64 + 1).read_to_end(&mut end)?;
    Ok(end.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).map(<[u8]>::to_vec))
}

fn first_time(mut file: &File) -> Option<Timestamp> {
    file.seek(SeekFrom::Start(0)).ok()?;
    let mut line = Vec::new();
    BufReader::new(file.take(LINE_BYTES_MAX as u64)).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice::<Timed>(&line).ok().map(|line| line.timestamp)
}
