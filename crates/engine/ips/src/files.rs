//! Files as they go by: size, hashes and kind of each, whether it came whole, and its content where a rule wants it kept.
//!
//! ```text
//! file.data grows ─ TxFiles::follow ─ hashes, first bytes, content ─ done ─ rules on files ─ FileEvent
//! ```
//! Parsers show a window of each file; everything that needs all of it is counted on here, byte by byte as it comes. Nothing is done for
//! files that neither a rule nor the log asks about.

use bulkhead_applayer::{Buffer, Dir, Protocol, Transaction};
use bulkhead_rules::condition::HashAlgorithm;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use crate::magic::{MAGIC_BYTES, magic};
use crate::outcome::Record;

/// Files of one transaction; further ones are not followed, and counted.
pub const FILES_PER_TRANSACTION_MAX: usize = 64;

/// What is to be found out about files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileWants {
    /// Anything at all.
    pub follow: bool,
    pub md5: bool,
    pub sha1: bool,
    pub sha256: bool,
    pub magic: bool,
    /// Keep the content, for a rule that may want it later.
    pub content: bool,
}

impl FileWants {
    pub const fn and(self, other: Self) -> Self {
        Self {
            follow: self.follow | other.follow,
            md5: self.md5 | other.md5,
            sha1: self.sha1 | other.sha1,
            sha256: self.sha256 | other.sha256,
            magic: self.magic | other.magic,
            content: self.content | other.content,
        }
    }
}

/// One file, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    pub name: Option<Vec<u8>>,
    /// Bytes so far, missing ones included.
    pub size: u64,
    /// No more bytes come.
    pub done: bool,
    /// It is done and not whole.
    pub truncated: bool,
    pub gaps: bool,
    pub magic: Option<String>,
    /// Of a whole file.
    pub md5: Option<[u8; 16]>,
    pub sha1: Option<[u8; 20]>,
    pub sha256: Option<[u8; 32]>,
    /// Kept up to a cap ([`crate::PipelineConfig::file_store_bytes_max`]); `None`: nobody wants it.
    pub content: Option<Vec<u8>>,
}

impl File {
    pub(crate) fn hash(&self, algorithm: HashAlgorithm) -> Option<&[u8]> {
        match algorithm {
            HashAlgorithm::Md5 => self.md5.as_ref().map(<[u8; 16]>::as_slice),
            HashAlgorithm::Sha1 => self.sha1.as_ref().map(<[u8; 20]>::as_slice),
            HashAlgorithm::Sha256 => self.sha256.as_ref().map(<[u8; 32]>::as_slice),
        }
    }
}

/// A file that is over.
#[derive(Debug)]
pub(crate) struct FileDone {
    pub tx: u64,
    pub protocol: Protocol,
    pub dir: Dir,
    pub file: File,
    pub stored: bool,
    pub record: Option<Box<Record>>,
}

#[derive(Debug, Default)]
struct Hashers {
    md5: Option<Md5>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

#[derive(Debug)]
struct Tracked {
    dir: Dir,
    /// Among the files of its direction.
    number: usize,
    file: File,
    head: Vec<u8>,
    hashers: Hashers,
    told: bool,
    /// Its kind was given to the rules.
    magic_told: bool,
}

/// The files of one transaction. Cleared and used again.
#[derive(Debug, Default)]
pub(crate) struct TxFiles {
    files: Vec<Tracked>,
    /// Files beyond [`FILES_PER_TRANSACTION_MAX`].
    pub refused: u64,
}

impl TxFiles {
    /// Takes in what has come of the transaction's files. False: there is none.
    pub fn follow(&mut self, tx: &Transaction, wants: FileWants, content_max: usize) -> bool {
        for dir in [Dir::ToServer, Dir::ToClient] {
            for (number, value) in tx.all(Buffer::FileData, dir).enumerate() {
                let place = match self.files.iter().position(|known| known.dir == dir && known.number == number) {
                    Some(place) => place,
                    None if self.files.len() >= FILES_PER_TRANSACTION_MAX => {
                        self.refused += 1;
                        break;
                    }
                    None => {
                        self.files.push(Tracked::new(tx, dir, number, wants));
                        self.files.len() - 1
                    }
                };
                self.files[place].take(tx.window(value), wants, content_max);
            }
        }
        !self.files.is_empty()
    }

    /// Kinds that have become known.
    pub fn new_magic(&mut self) -> impl Iterator<Item = (Dir, &str)> {
        self.files.iter_mut().filter_map(|tracked| {
            let magic = tracked.file.magic.as_deref().filter(|_| !tracked.magic_told)?;
            tracked.magic_told = true;
            Some((tracked.dir, magic))
        })
    }

    pub fn all(&self) -> impl Iterator<Item = (Dir, &File)> {
        self.files.iter().map(|tracked| (tracked.dir, &tracked.file))
    }

    /// Those that are over and were not told of; with `close`, the others as broken off.
    pub fn told(&mut self, tx: &Transaction, close: bool, record: bool, into: &mut Vec<FileDone>) {
        for tracked in &mut self.files {
            if close && !tracked.file.done {
                tracked.finish(true);
            }
            if tracked.file.done && !std::mem::replace(&mut tracked.told, true) {
                let file = File { content: tracked.file.content.take(), ..tracked.file.clone() };
                into.push(FileDone {
                    tx: tx.id,
                    protocol: tx.protocol,
                    dir: tracked.dir,
                    file,
                    stored: false,
                    record: record.then(|| Box::new(Record::of(tx))),
                });
            }
        }
    }

    pub fn clear(&mut self) {
        self.files.clear();
        self.files.shrink_to(4);
        self.refused = 0;
    }

    /// Bytes of content and names.
    pub fn memory(&self) -> usize {
        let of =
            |tracked: &Tracked| size_of::<Tracked>() + tracked.head.capacity() + tracked.file.content.as_ref().map_or(0, Vec::capacity);
        self.files.iter().map(of).sum()
    }
}

impl Tracked {
    fn new(tx: &Transaction, dir: Dir, number: usize, wants: FileWants) -> Self {
        // A name stands before its file.
        let (mut name, mut seen) = (None, 0);
        for value in tx.values().iter().filter(|value| value.dir == dir) {
            match value.buffer {
                Buffer::FileName => name = Some(tx.bytes(value).to_vec()),
                Buffer::FileData if seen == number => break,
                Buffer::FileData => {
                    seen += 1;
                    name = None;
                }
                _ => {}
            }
        }
        let hashers =
            Hashers { md5: wants.md5.then(Md5::default), sha1: wants.sha1.then(Sha1::default), sha256: wants.sha256.then(Sha256::default) };
        let content = wants.content.then(Vec::new);
        Self { dir, number, file: File { name, content, ..File::default() }, head: Vec::new(), hashers, told: false, magic_told: false }
    }

    fn take(&mut self, window: bulkhead_applayer::Window<'_>, wants: FileWants, content_max: usize) {
        if self.file.done {
            return;
        }
        // It goes on where another transaction's part of it has ended: nobody has all of it.
        if self.file.size == 0 && window.base > 0 && !window.gaps {
            self.hashers = Hashers::default();
            self.file.size = window.base + window.fresh as u64;
        }
        let skipped = self.file.size.saturating_sub(window.base);
        let fresh = usize::try_from(skipped).ok().and_then(|skipped| window.bytes.get(skipped..)).unwrap_or_default();
        if wants.magic && self.head.len() < MAGIC_BYTES {
            self.head.extend_from_slice(&fresh[..fresh.len().min(MAGIC_BYTES - self.head.len())]);
        }
        if let Some(hasher) = &mut self.hashers.md5 {
            hasher.update(fresh);
        }
        if let Some(hasher) = &mut self.hashers.sha1 {
            hasher.update(fresh);
        }
        if let Some(hasher) = &mut self.hashers.sha256 {
            hasher.update(fresh);
        }
        if let Some(content) = &mut self.file.content {
            content.extend_from_slice(&fresh[..fresh.len().min(content_max.saturating_sub(content.len()))]);
        }
        self.file.size = window.base + window.bytes.len() as u64;
        self.file.gaps = window.gaps;
        if wants.magic && self.file.magic.is_none() && (window.done || self.head.len() >= MAGIC_BYTES) {
            self.file.magic = Some(magic(&self.head));
        }
        if window.done {
            self.finish(window.truncated);
        }
    }

    fn finish(&mut self, truncated: bool) {
        self.file.done = true;
        self.file.truncated = truncated;
        let Hashers { md5, sha1, sha256 } = std::mem::take(&mut self.hashers);
        if !truncated {
            self.file.md5 = md5.map(|hasher| hasher.finalize().into());
            self.file.sha1 = sha1.map(|hasher| hasher.finalize().into());
            self.file.sha256 = sha256.map(|hasher| hasher.finalize().into());
        }
        if self.file.magic.is_none() && !self.head.is_empty() {
            self.file.magic = Some(magic(&self.head));
        }
    }
}
