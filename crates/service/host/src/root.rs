//! A root directory, the running host's or another, and reading below it: bounded, never blocking, never outside.
//!
//! Links are followed as a process whose root it is would follow them, so that `/etc/passwd -> /etc/shadow` in a foreign
//! root reads that root's file and not ours.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{FileKind, FileMeta};

/// Links in one path: the kernel's own limit (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Names of one folder; Debian's largest below `/etc` has 600.
pub const NAMES_MAX: usize = 65_536;
/// Bytes of one configuration file.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// `O_NONBLOCK`: opening a pipe somebody put in a file's place must not wait for a writer.
const NONBLOCK: i32 = 0o4000;

#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    pub fn host() -> Self {
        Self { dir: PathBuf::from("/") }
    }

    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn is_host(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// Where a path of this root lies, with all links followed.
    pub fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        self.walk(path, true)
    }

    /// As [`Self::resolve`], with the last name left as it is: for what makes, reads or removes links.
    pub fn resolve_link(&self, path: &str) -> io::Result<PathBuf> {
        self.walk(path, false)
    }

    fn walk(&self, path: &str, follow_last: bool) -> io::Result<PathBuf> {
        if self.is_host() && follow_last {
            return Ok(PathBuf::from(path));
        }
        let mut waiting: Vec<OsString> = names(Path::new(path));
        let mut below = PathBuf::new();
        let mut links = 0;
        while let Some(name) = waiting.pop() {
            if name == ".." {
                below.pop();
                continue;
            }
            let here = self.dir.join(&below).join(&name);
            let last = waiting.is_empty();
            match fs::read_link(&here) {
                Ok(target) if follow_last || !last => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::other("too many links"));
                    }
                    if target.is_absolute() {
                        below = PathBuf::new();
                    }
                    waiting.extend(names(&target));
                }
                Ok(_) | Err(_) => below.push(name),
            }
        }
        Ok(self.dir.join(below))
    }

    /// Owner, mode and kind; links are followed.
    pub fn meta(&self, path: &str) -> Fact<FileMeta> {
        fact(self.resolve(path).and_then(fs::metadata)).map_known(meta_of)
    }

    /// As [`Self::meta`], of a link itself.
    pub fn link_meta(&self, path: &str) -> Fact<FileMeta> {
        fact(self.resolve_link(path).and_then(fs::symlink_metadata)).map_known(meta_of)
    }

    /// Where a link leads, as it is written.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.resolve_link(path).ok()?).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_ok_and(|path| path.exists())
    }

    /// A file of configuration. Bytes that are not UTF-8 are replaced.
    pub fn text(&self, path: &str) -> Fact<String> {
        self.bytes(path, TEXT_BYTES_MAX).map_known(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub fn bytes(&self, path: &str, max: u64) -> Fact<Vec<u8>> {
        fact(self.resolve(path).and_then(|path| read(&path, max)))
    }

    /// One line of the kernel's, without its end.
    pub fn line(&self, path: &str) -> Fact<String> {
        self.bytes(path, 65_536).map_known(|bytes| String::from_utf8_lossy(bytes).trim_end().to_owned())
    }

    /// Names in a folder, in order.
    pub fn names(&self, path: &str) -> Fact<Vec<String>> {
        let read = self.resolve(path).and_then(fs::read_dir);
        fact(read.map(|entries| {
            let mut names: Vec<String> =
                entries.flatten().take(NAMES_MAX).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }))
    }
}

/// Names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect::<Vec<_>>().into_iter().rev().collect()
}

/// At most `max` bytes of a regular file; a larger one is refused, not cut.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Opens a regular file for reading, and nothing else.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
    }
    Ok(file)
}

pub fn meta_of(found: &Metadata) -> FileMeta {
    let kind = found.file_type();
    let kind = if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Folder
    } else if kind.is_symlink() {
        FileKind::Link
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Other
    };
    FileMeta { mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid(), kind, size: found.len() }
}

/// Not there is a fact; everything else that fails is a reason.
pub fn fact<T>(result: io::Result<T>) -> Fact<T> {
    match result {
        Ok(value) => Fact::Known(value),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Fact::Absent,
        Err(error) => Fact::Unreadable(error.to_string()),
    }
}

/// A change of what is known.
pub trait MapKnown<T> {
    fn map_known<U>(self, f: impl FnOnce(&T) -> U) -> Fact<U>;
}

impl<T> MapKnown<T> for Fact<T> {
    fn map_known<U>(self, f: impl FnOnce(&T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(f(&value)),
            Self::Absent => Fact::Absent,
            Self::Unreadable(why) => Fact::Unreadable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_a_foreign_root_do_not_lead_out_of_it() {
        let dir = std::env::temp_dir().join(format!("bulkhead-root-{}", std::process::id()));
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/secret"), "inside").unwrap();
        symlink("/etc/secret", dir.join("etc/absolute")).unwrap();
        symlink("../../../../../etc/secret", dir.join("etc/climbing")).unwrap();
        symlink("loop", dir.join("etc/loop")).unwrap();
        let root = Root::at(&dir);
        assert_eq!(root.text("/etc/absolute"), Fact::Known("inside".to_owned()));
        assert_eq!(root.text("/etc/climbing"), Fact::Known("inside".to_owned()));
        assert!(root.text("/etc/loop").unreadable().is_some());
        assert_eq!(root.text("/../../../etc/nothing"), Fact::Absent);
        assert!(root.text("/etc").unreadable().is_some(), "a folder is no file");
        assert_eq!(root.link("/etc/absolute").as_deref(), Some("/etc/secret"));
        assert_eq!(root.link_meta("/etc/loop").known().map(|meta| meta.kind), Some(FileKind::Link));
        fs::remove_dir_all(&dir).unwrap();
    }
}
