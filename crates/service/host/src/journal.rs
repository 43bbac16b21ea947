//! What was changed on the host, with the way back, on disk before the act.
//!
//! One record a step, `NNNN.json`, and beside it the bytes of files that it changes, `NNNN-K.blob`. A record is written
//! whole and made durable (write, fsync, rename, fsync of the folder) before the first change of its step. So whatever
//! moment the power goes: either there is no record and nothing was changed, or there is one and all of it can be taken back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bulkhead_posture::plan::{Before, Change};
use serde::{Deserialize, Serialize};

use crate::apply::Error;
use crate::root::{Root, read};

/// Below the root that is changed.
pub const FOLDER: &str = "/var/lib/bulkhead/host/journal";
/// Folders that were made for the journal, and so are taken away with its last record. Lies beside them, not in them.
const MADE: &str = ".bulkhead-journal-folders";
/// Records that are read.
pub const RECORDS_MAX: usize = 10_000;
/// Bytes of one record, and of one file that is kept.
const RECORD_BYTES_MAX: u64 = 16 << 20;
pub const BLOB_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub number: u32,
    pub control: String,
    pub title: String,
    /// Seconds since 1970.
    pub at: u64,
    pub state: State,
    /// In the order in which they are made; taken back from the end.
    pub changes: Vec<Recorded>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Begun, and perhaps not finished: none, some or all of its changes are made.
    Applying,
    Applied,
    /// Being taken back, or taken back; what is left is to forget it.
    Undone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub change: Change,
    /// What has to be restored, in this order.
    pub before: Vec<Before>,
}

/// Called before each act that changes something, with its name. Production does nothing; tests stop there.
pub type Tick<'a> = &'a dyn Fn(&str) -> Result<(), Error>;

pub struct Journal<'a> {
    folder: PathBuf,
    root: &'a Root,
    tick: Tick<'a>,
}

impl<'a> Journal<'a> {
    pub fn new(root: &'a Root, tick: Tick<'a>) -> Result<Self, Error> {
        let folder = root.resolve(FOLDER).map_err(|error| Error::io(FOLDER, error))?;
        Ok(Self { folder, root, tick })
    }

    /// All records, the oldest first. A file that is no record is a reason to stop: it may be one that was damaged.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        let names = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(FOLDER, error)),
        };
        let mut records = Vec::new();
        for entry in names.flatten().take(RECORDS_MAX * 4) {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = read(&path, RECORD_BYTES_MAX).map_err(|error| Error::io(&path.display().to_string(), error))?;
            let record: Record =
                serde_json::from_slice(&bytes).map_err(|error| Error::Journal(format!("{} cannot be read: {error}", path.display())))?;
            records.push(record);
        }
        records.sort_by_key(|record| record.number);
        Ok(records)
    }

    /// Makes the folder where it is not there. Which folders are made is written down first, beside the uppermost of them.
    pub fn open(&self) -> Result<(), Error> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut at = self.folder.as_path();
        while !at.exists() {
            missing.push(at.display().to_string());
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        (self.tick)("write down which folders are made")?;
        fs::write(at.join(MADE), missing.join("\n") + "\n").map_err(|error| Error::io(FOLDER, error))?;
        sync_folder(at);
        (self.tick)("make the journal's folder")?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(|error| Error::io(FOLDER, error))
    }

    pub fn next_number(&self) -> Result<u32, Error> {
        Ok(self.records()?.last().map_or(1, |record| record.number + 1))
    }

    pub fn put(&self, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(record).map_err(|error| Error::Journal(error.to_string()))?;
        self.write(&format!("{:04}.json", record.number), &bytes)
    }

    pub fn put_blob(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write(name, bytes)
    }

    pub fn blob(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.folder.join(name);
        read(&path, BLOB_BYTES_MAX).map_err(|error| Error::io(&path.display().to_string(), error))
    }

    /// Takes a record away that is undone: the bytes first, so that a record without bytes is never one to be undone.
    pub fn forget(&self, record: &Record) -> Result<(), Error> {
        let prefix = format!("{:04}-", record.number);
        for entry in fs::read_dir(&self.folder).map_err(|error| Error::io(FOLDER, error))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                (self.tick)("forget bytes")?;
                fs::remove_file(entry.path()).map_err(|error| Error::io(FOLDER, error))?;
            }
        }
        (self.tick)("forget a record")?;
        fs::remove_file(self.folder.join(format!("{:04}.json", record.number))).map_err(|error| Error::io(FOLDER, error))?;
        sync_folder(&self.folder);
        Ok(())
    }

    /// With no record left, the journal and the folders that were made for it go; the note of them goes last.
    pub fn close(&self) -> Result<(), Error> {
        if !self.records()?.is_empty() {
            return Ok(());
        }
        // What a run left that was cut off while it wrote: nothing that a record names.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            (self.tick)("take a leftover of the journal away")?;
            fs::remove_file(entry.path()).map_err(|error| Error::io(FOLDER, error))?;
        }
        for folder in self.folder.ancestors().take_while(|folder| folder.starts_with(self.root.dir())) {
            let note = folder.join(MADE);
            let Ok(bytes) = read(&note, RECORD_BYTES_MAX) else { continue };
            for made in String::from_utf8_lossy(&bytes).lines().map(Path::new).filter(|made| self.folder.starts_with(made)) {
                (self.tick)("take a folder of the journal away")?;
                // One that others use by now is not empty, and stays.
                let _ = fs::remove_dir(made);
            }
            (self.tick)("take the note of folders away")?;
            fs::remove_file(&note).map_err(|error| Error::io(FOLDER, error))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (path, fresh) = (self.folder.join(name), self.folder.join(format!(".{name}.new")));
        let io = |error| Error::io(&path.display().to_string(), error);
        (self.tick)("write into the journal")?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        file.sync_all().map_err(io)?;
        (self.tick)("name what was written into the journal")?;
        fs::rename(&fresh, &path).map_err(io)?;
        sync_folder(&self.folder);
        Ok(())
    }
}

/// Makes names durable. Filesystems that cannot say so by an error of their own.
pub fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
