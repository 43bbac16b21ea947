//! A lock file that also tells who holds it.
//!
//! The lock is the kernel's (`flock(2)`): it goes when its holder dies, however it dies, so a file
//! left behind locks nobody out. The process number inside is for people and for `kill`.

use crate::OsError;
use crate::call::check;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the lock was not got.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another process holds it.
    #[error("{} is held by {}", path.display(), holder.map_or("another process".into(), |pid| format!("process {pid}")))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's number, where the file says.
        holder: Option<u32>,
    },
    /// The file could not be made, locked or written.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A lock that this process holds. It is let go, and its file removed, when this is dropped.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock at once or not at all, and writes our process number into the file.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        // A holder that leaves removes its file between our open and our lock: then try the new file.
        for _ in 0..ATTEMPTS_MAX {
            let doing = || format!("lock {}", path.display());
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(|e| OsError::io(doing(), &e))?;
            // SAFETY: no pointers; the descriptor is open.
            match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, doing) {
                Err(error) if error.is(libc::EWOULDBLOCK) => {
                    return Err(Error::Held { path: path.into(), holder: read_pid(&mut file) });
                }
                other => other?,
            };
            let same = std::fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            if same {
                let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
                write.map_err(|e| OsError::io(format!("write {}", path.display()), &e))?;
                return Ok(LockFile { file, path: path.into() });
            }
        }
        Err(Error::Held { path: path.into(), holder: None })
    }

    /// The process that holds the lock at `path`; `None` when nobody does or the file does not say who.
    pub fn holder(path: impl AsRef<Path>) -> Result<Option<u32>, OsError> {
        let path = path.as_ref();
        let doing = || format!("look who holds {}", path.display());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(OsError::io(doing(), &e)),
        };
        // SAFETY: no pointers; the descriptor is open. The shared lock goes with it.
        match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) }, doing) {
            Ok(_) => Ok(None),
            Err(error) if error.is(libc::EWOULDBLOCK) => Ok(read_pid(&mut file)),
            Err(error) => Err(error),
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed while it is still locked, so that nobody's newer file is removed.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.flush();
    }
}

/// A folder that this process alone works in, also where it is no place for files (bpffs). Let go when this is dropped.
#[derive(Debug)]
pub struct LockedDir {
    _dir: File,
}

impl LockedDir {
    /// Takes the lock at once or not at all. `None` when there is no such folder.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let path = path.as_ref();
        let doing = || format!("lock {}", path.display());
        let dir = match OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(OsError::io(doing(), &e).into()),
        };
        // SAFETY: no pointers; the descriptor is open.
        match check(unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, doing) {
            Err(error) if error.is(libc::EWOULDBLOCK) => Err(Error::Held { path: path.into(), holder: None }),
            other => Ok(other.map(|_| Some(Self { _dir: dir }))?),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

const ATTEMPTS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_for_one_at_a_time() {
        let dir = std::env::temp_dir().join(format!("bulkhead-locked-{}", std::process::id()));
        assert!(LockedDir::acquire(&dir).expect("nothing to lock").is_none());
        std::fs::create_dir(&dir).expect("a folder");
        let first = LockedDir::acquire(&dir).expect("free").expect("there");
        assert!(matches!(LockedDir::acquire(&dir), Err(Error::Held { .. })));
        drop(first);
        assert!(LockedDir::acquire(&dir).expect("free again").is_some());
        std::fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn the_second_one_learns_who_holds_the_lock_and_gets_it_afterwards() {
        let path = std::env::temp_dir().join(format!("bulkhead-lock-test-{}", std::process::id()));
        assert_eq!(LockFile::holder(&path).unwrap(), None);
        let first = LockFile::acquire(&path).unwrap();
        let own = std::process::id();
        assert_eq!(LockFile::acquire(&path).unwrap_err(), Error::Held { path: path.clone(), holder: Some(own) });
        assert_eq!(LockFile::holder(&path).unwrap(), Some(own));
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "left behind by a crash").unwrap();
        drop(LockFile::acquire(&path).unwrap());
        assert!(!path.exists());
    }
}
