//! What becomes of `eve.json` once it is full: `eve-20261123T211056Z-4711.json`, then the same with `.zst`.
//! The name carries the time of rotation and the last event's id, so that ids can go on from there when all else is lost.
//!
//! Compression runs in a thread of its own that lives for one job. A file half compressed has `.tmp` behind its name and is
//! removed at the next opening; the plain file goes only when the compressed one is on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bulkhead_model::Timestamp;

use crate::StoreConfig;
use crate::counters::Counters;

/// What compressed archives end with.
pub const ARCHIVE_EXTENSION: &str = ".json.zst";

const PLAIN: &str = ".json";
const UNFINISHED: &str = ".tmp";
/// zstd's default: a fifteenth of the size at some 300 MB/s.
const ZSTD_LEVEL: i32 = 3;
const COPY_BYTES: usize = 128 * 1024;
/// Archives of one second with one last id. More than one needs an `eve.json` that another program wrote into.
const SAME_NAME_MAX: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Archives {
    dir: PathBuf,
    /// `eve-` for `eve.json`.
    prefix: String,
    compress: bool,
    files_max: usize,
    bytes_max: u64,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Archives {
    /// Removes what a crash left half done, and begins to compress what was left plain.
    pub fn open(config: &StoreConfig, counters: Arc<Counters>) -> Self {
        let mut archives = Self {
            dir: config.log_dir().to_owned(),
            prefix: format!("{}-", config.log.file_stem().unwrap_or_default().to_string_lossy()),
            compress: config.compress,
            files_max: config.archives_max,
            bytes_max: config.log_bytes_max.saturating_sub(config.rotate_bytes),
            counters,
            stop: Arc::default(),
            worker: None,
        };
        for name in names(&archives.dir).filter(|name| name.starts_with(&archives.prefix) && name.ends_with(UNFINISHED)) {
            // One that stays is overwritten by the next attempt.
            let _ = fs::remove_file(archives.dir.join(name));
        }
        archives.settle();
        archives
    }

    /// Takes `eve.json` away under its archive name. The caller has closed it.
    pub fn put_aside(&mut self, live: &Path, now: Timestamp, last_id: u64) -> io::Result<()> {
        let stem = format!("{}{}-{last_id}", self.prefix, compact(now));
        for attempt in 0..SAME_NAME_MAX {
            let stem = if attempt == 0 { stem.clone() } else { format!("{stem}.{attempt}") };
            let plain = self.dir.join(format!("{stem}{PLAIN}"));
            if plain.exists() || self.dir.join(format!("{stem}{ARCHIVE_EXTENSION}")).exists() {
                continue;
            }
            fs::rename(live, plain)?;
            self.settle();
            return Ok(());
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The greatest id in any archive's name.
    pub fn last_id(&self) -> u64 {
        list(&self.dir, &self.prefix).last().map_or(0, |archive| archive.last_id)
    }

    /// Stops a running compression at its next block; the plain file stays and is compressed next time.
    pub fn close(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }

    fn settle(&mut self) {
        keep_within(&self.dir, &self.prefix, self.files_max, self.bytes_max, &self.counters);
        if !self.compress || self.worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
            return;
        }
        if list(&self.dir, &self.prefix).iter().all(|archive| archive.compressed) {
            return;
        }
        let (dir, prefix, files_max, bytes_max) = (self.dir.clone(), self.prefix.clone(), self.files_max, self.bytes_max);
        let (stop, counters) = (self.stop.clone(), self.counters.clone());
        // Without a thread the files stay plain, and the size limit holds all the same.
        self.worker = std::thread::Builder::new()
            .name("bulkhead-zstd".to_owned())
            .spawn(move || {
                for archive in list(&dir, &prefix).into_iter().filter(|archive| !archive.compressed) {
                    // What cannot be compressed (full disk) stays plain until the next rotation.
                    if compress(&archive.path, &stop).is_err() {
                        break;
                    }
                }
                keep_within(&dir, &prefix, files_max, bytes_max, &counters);
            })
            .ok();
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Debug)]
struct Archive {
    path: PathBuf,
    last_id: u64,
    compressed: bool,
    bytes: u64,
}

/// Oldest first, by id and then by name: the clock may have been set back.
fn list(dir: &Path, prefix: &str) -> Vec<Archive> {
    let mut archives: Vec<Archive> = names(dir).filter_map(|name| parse(dir, prefix, &name)).collect();
    archives.sort_by(|a, b| (a.last_id, &a.path).cmp(&(b.last_id, &b.path)));
    archives
}

fn parse(dir: &Path, prefix: &str, name: &str) -> Option<Archive> {
    let rest = name.strip_prefix(prefix)?;
    let (stem, compressed) = match rest.strip_suffix(ARCHIVE_EXTENSION) {
        Some(stem) => (stem, true),
        None => (rest.strip_suffix(PLAIN)?, false),
    };
    let last_id = stem.split_once('-')?.1.split('.').next()?.parse().ok()?;
    let path = dir.join(name);
    let bytes = fs::metadata(&path).ok()?.len();
    Some(Archive { path, last_id, compressed, bytes })
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn keep_within(dir: &Path, prefix: &str, files_max: usize, bytes_max: u64, counters: &Counters) {
    let archives = list(dir, prefix);
    let (mut files, mut bytes) = (archives.len(), archives.iter().map(|archive| archive.bytes).sum::<u64>());
    for archive in &archives {
        if files <= files_max && bytes <= bytes_max {
            break;
        }
        if fs::remove_file(&archive.path).is_ok() {
            files -= 1;
            bytes -= archive.bytes;
        }
    }
    counters.archives.store(files as u64, Ordering::Relaxed);
    counters.archive_bytes.store(bytes, Ordering::Relaxed);
}

fn compress(plain: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut finished = plain.as_os_str().to_owned();
    finished.push(".zst");
    let mut unfinished = finished.clone();
    unfinished.push(UNFINISHED);
    let result = compress_into(plain, Path::new(&unfinished), stop).and_then(|()| fs::rename(&unfinished, &finished));
    match result {
        Ok(()) => fs::remove_file(plain),
        Err(error) => {
            let _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

fn compress_into(plain: &Path, unfinished: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut input = File::open(plain)?;
    let output = OpenOptions::new().write(true).create(true).truncate(true).mode(crate::log::FILE_MODE).open(unfinished)?;
    let mut encoder = zstd::stream::write::Encoder::new(output, ZSTD_LEVEL)?;
    let mut block = vec![0; COPY_BYTES];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match input.read(&mut block)? {
            0 => break,
            read => encoder.write_all(&block[..read])?,
        }
    }
    encoder.finish()?.sync_all()
}

/// `20261123T211056Z`
fn compact(time: Timestamp) -> String {
    let text = time.to_string();
    let digits: String = text.split('.').next().unwrap_or_default().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    digits + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_time_and_last_id() {
        assert_eq!(compact(Timestamp(1_795_468_256_123_456_789)), "20261123T211056Z");
        let dir = std::env::temp_dir();
        for name in ["eve-.json", "eve-x-.json", "eve-20261123T211056Z-99999999999999999999999.json", "eve.json", "other-1-2.json"] {
            assert!(parse(&dir, "eve-", name).is_none(), "{name}");
        }
    }
}
