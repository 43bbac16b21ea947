//! Carries out steps of a plan, and takes them back.
//!
//! A step: its preconditions hold → what is there is recorded → the record is on disk → each change is made and looked at
//! again → the record says so. A change that fails, or whose effect is not there, takes the whole step back. The way in
//! (ssh) and the engines are looked at before and after each step; where one is gone, the step is taken back too.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_posture::plan::{Act, Before, Change, PathState, Step, is_protected};
use bulkhead_sys::xattr;
use sha2::{Digest, Sha256};

use crate::collect::lifelines;
use crate::journal::{BLOB_BYTES_MAX, Journal, Record, Recorded, State, Tick, sync_folder};
use crate::root::{Root, read};
use crate::services::Services;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed what is to be changed, or it is not as the plan found it.
    #[error("{0}")]
    Precondition(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the journal: {0}")]
    Journal(String),
    /// A change was made, and its effect is not there.
    #[error("after `{0}` it is not as it should be")]
    Ineffective(String),
    /// Logins or containers would be cut off.
    #[error("{0} is gone: the step is taken back")]
    Lifeline(String),
    #[error("{0}")]
    Service(String),
    /// Tests end a run here, as a power cut would: nothing is cleaned up.
    #[error("stopped before `{0}`")]
    Stopped(String),
}

impl Error {
    pub(crate) fn io(what: &str, source: io::Error) -> Self {
        Self::Io { what: what.to_owned(), source }
    }
}

pub struct Hands<'a> {
    pub root: &'a Root,
    pub services: &'a dyn Services,
    pub tick: Tick<'a>,
}

/// What became of a step.
#[derive(Debug)]
pub struct Done {
    pub number: u32,
    /// What could not be done and does not matter for the files: a unit where no init system runs.
    pub notes: Vec<String>,
}

impl<'a> Hands<'a> {
    pub fn journal(&self) -> Result<Journal<'a>, Error> {
        Journal::new(self.root, self.tick)
    }

    /// Takes back what runs before this one left half done.
    pub fn recover(&self) -> Result<Vec<u32>, Error> {
        let journal = self.journal()?;
        let mut numbers = Vec::new();
        for record in journal.records()?.into_iter().rev().filter(|record| record.state != State::Applied) {
            self.undo(&record, true)?;
            numbers.push(record.number);
        }
        Ok(numbers)
    }

    pub fn apply(&self, step: &Step) -> Result<Done, Error> {
        let live = self.root.exists("/proc/1/stat");
        for change in &step.changes {
            if let Change::Unit { name, act: Act::Stop } = change
                && is_protected(name)
            {
                return Err(Error::Precondition(format!("{name} is never switched off")));
            }
            self.precondition(change)?;
        }
        let alive = if live { lifelines(self.root) } else { BTreeSet::new() };
        let journal = self.journal()?;
        journal.open()?;
        let number = journal.next_number()?;
        let mut changes = Vec::new();
        for (at, change) in step.changes.iter().enumerate() {
            changes.push(Recorded { change: change.clone(), before: self.record(change, &format!("{number:04}-{at}"), &journal)? });
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut record = Record { number, control: step.control.clone(), title: step.title.clone(), at, state: State::Applying, changes };
        journal.put(&record)?;
        let mut notes = Vec::new();
        let done = record.changes.iter().try_for_each(|recorded| self.make(&recorded.change, &mut notes));
        let done = done.and_then(|()| {
            let now = if live { lifelines(self.root) } else { BTreeSet::new() };
            alive.difference(&now).next().map_or(Ok(()), |lost| Err(Error::Lifeline(lost.clone())))
        });
        match done {
            Ok(()) => {
                record.state = State::Applied;
                journal.put(&record)?;
                Ok(Done { number, notes })
            }
            Err(stopped @ Error::Stopped(_)) => Err(stopped),
            Err(error) => {
                self.undo(&record, true)?;
                Err(error)
            }
        }
    }

    /// Takes a step back. Without `force` nothing is overwritten that somebody else has changed since.
    pub fn undo(&self, record: &Record, force: bool) -> Result<(), Error> {
        let journal = self.journal()?;
        if !force && record.state == State::Applied {
            for recorded in &record.changes {
                self.unchanged_since(recorded, record, &journal)?;
            }
        }
        // A record that was being forgotten has everything back already, and perhaps no bytes any more.
        if record.state != State::Undone {
            let all = || record.changes.iter().rev().flat_map(|recorded| recorded.before.iter().rev());
            // Files and links first: a unit that is masked cannot be started, and a reload reads what is there.
            let is_unit = |before: &&Before| matches!(before, Before::Unit { .. } | Before::Reload { .. });
            for before in all().filter(|before| !is_unit(before)).chain(all().filter(is_unit)) {
                self.restore(before, &journal)?;
            }
            journal.put(&Record { state: State::Undone, ..record.clone() })?;
        }
        journal.forget(record)?;
        journal.close()
    }

    fn path(&self, change: &Change) -> Result<PathBuf, Error> {
        let path = change.path().unwrap_or_default();
        let resolved = if matches!(change, Change::Link { .. }) { self.root.resolve_link(path) } else { self.root.resolve(path) };
        resolved.map_err(|error| Error::io(path, error))
    }

    /// Is it as the plan found it?
    fn precondition(&self, change: &Change) -> Result<(), Error> {
        match change {
            Change::File { path, before, .. } => {
                let now = match read(&self.path(change)?, BLOB_BYTES_MAX) {
                    Ok(bytes) => Some(bytes),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(Error::io(path, error)),
                };
                if now.as_deref() != before.as_deref().map(str::as_bytes) {
                    return Err(Error::Precondition(format!("{path} has changed since it was looked at")));
                }
            }
            Change::Mode { path, before, mode } => {
                let meta = fs::metadata(self.path(change)?).map_err(|error| Error::io(path, error))?;
                // Two names of one file, through a link of folders, are changed once.
                if ![*before, *mode].contains(&(meta.mode() & 0o7777)) {
                    return Err(Error::Precondition(format!("{path} has another mode than when it was looked at")));
                }
            }
            Change::Owner { path, .. } => {
                fs::metadata(self.path(change)?).map_err(|error| Error::io(path, error))?;
            }
            Change::Link { path, target } => {
                let found = fs::symlink_metadata(self.path(change)?);
                match (found, target) {
                    (Ok(meta), _) if !meta.is_symlink() => return Err(Error::Precondition(format!("{path} is no link"))),
                    (Err(error), None) => return Err(Error::io(path, error)),
                    _ => {}
                }
            }
            Change::Sysctl { key, .. } => drop(self.sysctl(key)?),
            Change::Unit { .. } => {}
        }
        Ok(())
    }

    /// What is there, so that it can be put back.
    fn record(&self, change: &Change, blob: &str, journal: &Journal<'_>) -> Result<Vec<Before>, Error> {
        Ok(match change {
            Change::Sysctl { key, .. } => vec![Before::Sysctl { key: key.clone(), value: self.sysctl(key)? }],
            Change::Unit { name, act: Act::Reload } => vec![Before::Reload { name: name.clone() }],
            Change::Unit { name, .. } => match self.services.active(name) {
                Some(active) => vec![Before::Unit { name: name.clone(), active }],
                None => Vec::new(),
            },
            Change::File { path, .. } | Change::Link { path, .. } | Change::Mode { path, .. } | Change::Owner { path, .. } => {
                let full = self.path(change)?;
                let mut before = Vec::new();
                // Folders that have to be made for it.
                let mut folder = Path::new(path).parent();
                let mut missing = Vec::new();
                while let Some(at) = folder.filter(|at| !self.root.exists(&at.display().to_string())) {
                    missing.push(Before::Path { path: at.display().to_string(), state: PathState::Absent });
                    folder = at.parent();
                }
                before.extend(missing.into_iter().rev());
                let bytes = matches!(change, Change::File { .. });
                before.push(Before::Path { path: path.clone(), state: state(&full, bytes.then_some((blob, journal)))? });
                before
            }
        })
    }

    fn make(&self, change: &Change, notes: &mut Vec<String>) -> Result<(), Error> {
        let text = change.text();
        match change {
            Change::Sysctl { key, value } => {
                self.set_sysctl(key, value)?;
                if self.sysctl(key)? != *value {
                    return Err(Error::Ineffective(text));
                }
            }
            Change::File { path, after, mode, .. } => {
                let full = self.path(change)?;
                if let Some(folder) = full.parent().filter(|folder| !folder.exists()) {
                    (self.tick)("make a folder")?;
                    fs::create_dir_all(folder).map_err(|error| Error::io(path, error))?;
                }
                let old = state(&full, None)?;
                let keep = match old {
                    PathState::File { mode, uid, gid, attributes, .. } => Kept { mode, uid, gid, attributes, modified: None },
                    PathState::Absent | PathState::Link { .. } | PathState::Folder { .. } | PathState::Other { .. } => {
                        Kept { mode: *mode, uid: 0, gid: 0, attributes: Vec::new(), modified: None }
                    }
                };
                self.write(&full, after.as_bytes(), &keep)?;
                if read(&full, BLOB_BYTES_MAX).ok().as_deref() != Some(after.as_bytes()) {
                    return Err(Error::Ineffective(text));
                }
                self.services.check_configuration(path).map_err(Error::Service)?;
            }
            Change::Mode { path, mode, .. } => {
                let full = self.path(change)?;
                (self.tick)("change a mode")?;
                fs::set_permissions(&full, Permissions::from_mode(*mode)).map_err(|error| Error::io(path, error))?;
                if fs::metadata(&full).map_or(0, |meta| meta.mode() & 0o7777) != *mode {
                    return Err(Error::Ineffective(text));
                }
            }
            Change::Owner { path, uid, gid } => {
                let full = self.path(change)?;
                (self.tick)("change an owner")?;
                let mode = fs::metadata(&full).map_err(|error| Error::io(path, error))?.mode() & 0o7777;
                chown(&full, Some(*uid), Some(*gid)).map_err(|error| Error::io(path, error))?;
                // The kernel takes set-id bits away with the owner.
                fs::set_permissions(&full, Permissions::from_mode(mode)).map_err(|error| Error::io(path, error))?;
                let meta = fs::metadata(&full).map_err(|error| Error::io(path, error))?;
                if (meta.uid(), meta.gid()) != (*uid, *gid) {
                    return Err(Error::Ineffective(text));
                }
            }
            Change::Link { path, target } => {
                let full = self.path(change)?;
                match target {
                    Some(target) => self.link(&full, target)?,
                    None => {
                        (self.tick)("take a link away")?;
                        fs::remove_file(&full).map_err(|error| Error::io(path, error))?;
                    }
                }
                if fs::read_link(&full).ok().map(|found| found.to_string_lossy().into_owned()) != *target {
                    return Err(Error::Ineffective(text));
                }
            }
            Change::Unit { name, act } => match self.services.active(name) {
                None => notes.push(format!("no init system is asked here: `{text}` is left to you")),
                Some(_) => {
                    (self.tick)("act on a unit")?;
                    self.services.act(name, *act).map_err(Error::Service)?;
                    if *act == Act::Stop && self.services.active(name) == Some(true) {
                        return Err(Error::Ineffective(text));
                    }
                }
            },
        }
        Ok(())
    }

    /// Is what the step made still there, or what was before it? Anything else is somebody's work.
    fn unchanged_since(&self, recorded: &Recorded, record: &Record, journal: &Journal<'_>) -> Result<(), Error> {
        let change = &recorded.change;
        let Some(Before::Path { path, state: before }) = recorded.before.last() else { return Ok(()) };
        let now = state(&self.path(change)?, None)?;
        let fine = match (change, &now, before) {
            (Change::File { after, .. }, PathState::File { digest, .. }, _) if *digest == hash(after.as_bytes()) => true,
            (Change::File { .. }, PathState::File { digest, .. }, PathState::File { digest: old, .. }) => digest == old,
            (Change::File { .. }, PathState::Absent, PathState::Absent) => true,
            (Change::Mode { mode, .. }, _, _) => mode_of(&now) == Some(*mode) || mode_of(&now) == mode_of(before),
            (Change::Owner { uid, gid, .. }, _, _) => owner_of(&now) == Some((*uid, *gid)) || owner_of(&now) == owner_of(before),
            (Change::Link { target, .. }, PathState::Link { target: found, .. }, _) => {
                target.as_ref() == Some(found) || matches!(before, PathState::Link { target, .. } if target == found)
            }
            (Change::Link { target, .. }, PathState::Absent, _) => target.is_none() || *before == PathState::Absent,
            _ => false,
        };
        if fine {
            return Ok(());
        }
        let later = journal
            .records()?
            .into_iter()
            .find(|other| other.number > record.number && other.changes.iter().any(|other| other.change.path() == Some(path)));
        Err(Error::Precondition(match later {
            Some(later) => format!("step {} changed {path} after step {}: undo that one first, or `all`", later.number, record.number),
            None => format!("{path} was changed by somebody else since: look at it, then use --force to put back what was there before"),
        }))
    }

    fn restore(&self, before: &Before, journal: &Journal<'_>) -> Result<(), Error> {
        match before {
            Before::Sysctl { key, value } => {
                if self.sysctl(key).is_ok_and(|now| now != *value) {
                    self.set_sysctl(key, value)?;
                }
                Ok(())
            }
            Before::Unit { name, active } => {
                self.services.reload_units();
                match self.services.active(name) {
                    Some(now) if now != *active => {
                        (self.tick)("act on a unit")?;
                        self.services.act(name, if *active { Act::Start } else { Act::Stop }).map_err(Error::Service)
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Before::Reload { name } => {
                if self.services.active(name) == Some(true) {
                    (self.tick)("act on a unit")?;
                    // One that does not take it reads its old settings, which are back, at its next start.
                    let _ = self.services.act(name, Act::Reload);
                }
                Ok(())
            }
            Before::Path { path, state } => self.restore_path(path, state, journal),
        }
    }

    fn restore_path(&self, path: &str, wanted: &PathState, journal: &Journal<'_>) -> Result<(), Error> {
        let io = |error| Error::io(path, error);
        let is_link = matches!(wanted, PathState::Link { .. }) || self.root.link(path).is_some() && *wanted == PathState::Absent;
        let full = if is_link { self.root.resolve_link(path) } else { self.root.resolve(path) }.map_err(io)?;
        let fresh = fresh_name(&full);
        if fs::symlink_metadata(&fresh).is_ok() {
            (self.tick)("take a leftover away")?;
            fs::remove_file(&fresh).map_err(io)?;
        }
        match wanted {
            PathState::Absent => match fs::symlink_metadata(&full) {
                Ok(meta) if meta.is_dir() => {
                    (self.tick)("take a folder away")?;
                    // Somebody may have put something there since: then it stays.
                    let _ = fs::remove_dir(&full);
                }
                Ok(_) => {
                    (self.tick)("take a file away")?;
                    fs::remove_file(&full).map_err(io)?;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(io(error)),
            },
            PathState::Link { target, uid, gid } => {
                if fs::read_link(&full).ok().map(|found| found.to_string_lossy().into_owned()).as_ref() != Some(target) {
                    self.link(&full, target)?;
                }
                (self.tick)("give a link back")?;
                lchown(&full, Some(*uid), Some(*gid)).map_err(io)?;
            }
            // Only its mode was changed, and somebody has taken it away since: there is nothing to give it back to.
            PathState::File { blob, .. } if blob.is_empty() && !full.exists() => {}
            PathState::File { blob, digest, mode, uid, gid, modified, attributes } => {
                let kept = Kept { mode: *mode, uid: *uid, gid: *gid, attributes: attributes.clone(), modified: Some(*modified) };
                let same = blob.is_empty() || matches!(state(&full, None)?, PathState::File { digest: now, .. } if now == *digest);
                if same {
                    (self.tick)("give a file back")?;
                    dress(&full, &kept)?;
                } else {
                    let bytes = journal.blob(blob)?;
                    if hash(&bytes) != *digest {
                        return Err(Error::Journal(format!("the bytes kept of {path} are damaged")));
                    }
                    self.write(&full, &bytes, &kept)?;
                }
            }
            PathState::Folder { mode, uid, gid, attributes } => {
                (self.tick)("give a folder back")?;
                dress(&full, &Kept { mode: *mode, uid: *uid, gid: *gid, attributes: attributes.clone(), modified: None })?;
            }
            PathState::Other { mode, uid, gid } => {
                (self.tick)("give a file back")?;
                chown(&full, Some(*uid), Some(*gid)).map_err(io)?;
                fs::set_permissions(&full, Permissions::from_mode(*mode)).map_err(io)?;
            }
        }
        Ok(())
    }

    /// A file as a whole, or not at all: written beside, dressed, made durable, renamed.
    fn write(&self, full: &Path, bytes: &[u8], kept: &Kept) -> Result<(), Error> {
        let io = |error| Error::io(&full.display().to_string(), error);
        let fresh = fresh_name(full);
        (self.tick)("write a file")?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(io)?;
        file.write_all(bytes).map_err(io)?;
        (self.tick)("dress a file")?;
        dress(&fresh, kept)?;
        file.sync_all().map_err(io)?;
        (self.tick)("rename a file")?;
        fs::rename(&fresh, full).map_err(io)?;
        full.parent().map(sync_folder);
        Ok(())
    }

    fn link(&self, full: &Path, target: &str) -> Result<(), Error> {
        let io = |error| Error::io(&full.display().to_string(), error);
        if let Some(folder) = full.parent().filter(|folder| !folder.exists()) {
            (self.tick)("make a folder")?;
            fs::create_dir_all(folder).map_err(io)?;
        }
        let fresh = fresh_name(full);
        let _ = fs::remove_file(&fresh);
        (self.tick)("make a link")?;
        symlink(target, &fresh).map_err(io)?;
        (self.tick)("rename a link")?;
        fs::rename(&fresh, full).map_err(io)?;
        full.parent().map(sync_folder);
        Ok(())
    }

    fn sysctl_path(&self, key: &str) -> Result<PathBuf, Error> {
        let sound = key.split('.').all(|part| !part.is_empty() && !part.contains('/'));
        if !sound {
            return Err(Error::Precondition(format!("`{key}` is no setting")));
        }
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.root.resolve(&path).map_err(|error| Error::io(&path, error))
    }

    fn sysctl(&self, key: &str) -> Result<String, Error> {
        let path = self.sysctl_path(key)?;
        let bytes = read(&path, 65_536).map_err(|error| Error::io(key, error))?;
        Ok(String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = self.sysctl_path(key)?;
        (self.tick)("set a sysctl")?;
        fs::write(path, format!("{value}\n")).map_err(|error| Error::io(key, error))
    }
}

/// What a file has beside its bytes.
struct Kept {
    mode: u32,
    uid: u32,
    gid: u32,
    attributes: Vec<(String, Vec<u8>)>,
    modified: Option<(i64, u32)>,
}

/// Owner first: with it the kernel takes set-id bits and capabilities away.
fn dress(full: &Path, kept: &Kept) -> Result<(), Error> {
    let io = |error| Error::io(&full.display().to_string(), error);
    let os = |error: bulkhead_sys::OsError| Error::Io { what: full.display().to_string(), source: io::Error::other(error.to_string()) };
    let meta = fs::metadata(full).map_err(io)?;
    if (meta.uid(), meta.gid()) != (kept.uid, kept.gid) {
        chown(full, Some(kept.uid), Some(kept.gid)).map_err(io)?;
    }
    fs::set_permissions(full, Permissions::from_mode(kept.mode)).map_err(io)?;
    let now = xattr::list(full).map_err(os)?;
    for (name, value) in &kept.attributes {
        if !now.iter().any(|(known, found)| known == name && found == value) {
            xattr::set(full, name, value).map_err(os)?;
        }
    }
    for (name, _) in now.iter().filter(|(name, _)| !kept.attributes.iter().any(|(known, _)| known == name)) {
        // A label that the kernel itself gives cannot be taken away, and comes back by itself.
        if name != "security.selinux" {
            xattr::remove(full, name).map_err(os)?;
        }
    }
    if let Some((seconds, nanos)) = kept.modified
        && (meta.mtime(), meta.mtime_nsec()) != (seconds, i64::from(nanos))
    {
        let time = match u64::try_from(seconds) {
            Ok(seconds) => UNIX_EPOCH + Duration::new(seconds, nanos),
            Err(_) => UNIX_EPOCH,
        };
        OpenOptions::new().read(true).open(full).and_then(|file| file.set_modified(time)).map_err(io)?;
    }
    Ok(())
}

fn fresh_name(full: &Path) -> PathBuf {
    let name = full.file_name().unwrap_or_default().to_string_lossy();
    full.with_file_name(format!(".{name}.bulkhead-new"))
}

/// All of a path. With a place to keep them, the bytes of a file are kept there.
fn state(full: &Path, keep: Option<(&str, &Journal<'_>)>) -> Result<PathState, Error> {
    let io = |error| Error::io(&full.display().to_string(), error);
    let meta = match fs::symlink_metadata(full) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(PathState::Absent),
        Err(error) => return Err(io(error)),
    };
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    let attributes = || xattr::list(full).map_err(|error| Error::io(&full.display().to_string(), io::Error::other(error.to_string())));
    if meta.is_symlink() {
        let target = fs::read_link(full).map_err(io)?;
        // A target that is no text cannot be kept in the record.
        let target = target
            .into_os_string()
            .into_string()
            .map_err(|_| Error::Precondition(format!("{} leads to a name that is no text", full.display())))?;
        return Ok(PathState::Link { target, uid, gid });
    }
    if meta.is_dir() {
        return Ok(PathState::Folder { mode, uid, gid, attributes: attributes()? });
    }
    if !meta.is_file() {
        return Ok(PathState::Other { mode, uid, gid });
    }
    let modified = (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0));
    // The bytes of large programs whose mode is changed are not touched, and not kept.
    let (blob, digest) = match keep {
        Some((name, journal)) => {
            let bytes = read(full, BLOB_BYTES_MAX).map_err(io)?;
            let name = format!("{name}.blob");
            journal.put_blob(&name, &bytes)?;
            (name, hash(&bytes))
        }
        None if meta.len() <= DIGEST_BYTES_MAX => (String::new(), hash(&read(full, BLOB_BYTES_MAX).map_err(io)?)),
        None => (String::new(), String::new()),
    };
    Ok(PathState::File { blob, digest, mode, uid, gid, modified, attributes: attributes()? })
}

/// Files that steps write are small; larger ones only have their mode changed.
const DIGEST_BYTES_MAX: u64 = 4 << 20;

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

const fn mode_of(state: &PathState) -> Option<u32> {
    match state {
        PathState::File { mode, .. } | PathState::Folder { mode, .. } | PathState::Other { mode, .. } => Some(*mode),
        PathState::Absent | PathState::Link { .. } => None,
    }
}

const fn owner_of(state: &PathState) -> Option<(u32, u32)> {
    match state {
        PathState::File { uid, gid, .. }
        | PathState::Folder { uid, gid, .. }
        | PathState::Other { uid, gid, .. }
        | PathState::Link { uid, gid, .. } => Some((*uid, *gid)),
        PathState::Absent => None,
    }
}
