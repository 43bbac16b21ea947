//! Hashes with the size of what they are of. A hash is computed only for objects of a size that is listed, which makes millions of
//! signatures cheap.

use std::collections::{BTreeSet, HashSet};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Digest {
    Md5([u8; 16]),
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Digest {
    /// Hexadecimal digits; their number tells which.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0_u8; 32];
        let len = text.len() / 2;
        if !text.is_ascii() || !text.len().is_multiple_of(2) || len > bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        match len {
            16 => bytes.first_chunk().copied().map(Self::Md5),
            20 => bytes.first_chunk().copied().map(Self::Sha1),
            32 => Some(Self::Sha256(bytes)),
            _ => None,
        }
    }
}

/// Hashes of one object, computed when they are first asked for.
pub(crate) struct Digests<'a> {
    bytes: &'a [u8],
    md5: Option<[u8; 16]>,
    sha1: Option<[u8; 20]>,
    sha256: Option<[u8; 32]>,
}

impl<'a> Digests<'a> {
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, md5: None, sha1: None, sha256: None }
    }

    fn md5(&mut self) -> Digest {
        Digest::Md5(*self.md5.get_or_insert_with(|| Md5::digest(self.bytes).into()))
    }

    fn sha1(&mut self) -> Digest {
        Digest::Sha1(*self.sha1.get_or_insert_with(|| Sha1::digest(self.bytes).into()))
    }

    pub fn sha256(&mut self) -> Digest {
        Digest::Sha256(*self.sha256.get_or_insert_with(|| Sha256::digest(self.bytes).into()))
    }

    pub fn sha256_text(&mut self) -> String {
        let bytes = *self.sha256.get_or_insert_with(|| Sha256::digest(self.bytes).into());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    digest: Digest,
    /// `None`: of any size.
    size: Option<u64>,
    /// Where the name lies.
    name: (u32, u32),
    source: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Builder {
    entries: Vec<Entry>,
    names: String,
}

impl Builder {
    pub fn add(&mut self, digest: Digest, size: Option<u64>, name: &str, source: u32) {
        let start = self.names.len() as u32;
        self.names.push_str(name);
        self.entries.push(Entry { digest, size, name: (start, self.names.len() as u32), source });
    }

    /// Takes those of these names out, and says how many there were.
    pub fn ignore(&mut self, names: &BTreeSet<String>) -> usize {
        if names.is_empty() {
            return 0;
        }
        let before = self.entries.len();
        let text = &self.names;
        self.entries.retain(|entry| !names.contains(&text[entry.name.0 as usize..entry.name.1 as usize]));
        before - self.entries.len()
    }

    pub fn finish(mut self) -> Table {
        self.entries.sort_unstable();
        self.entries.dedup_by(|a, b| (a.digest, a.size) == (b.digest, b.size));
        let mut table = Table { names: self.names, ..Table::default() };
        for entry in &self.entries {
            let sizes = match entry.digest {
                Digest::Md5(_) => &mut table.md5,
                Digest::Sha1(_) => &mut table.sha1,
                Digest::Sha256(_) => &mut table.sha256,
            };
            match entry.size {
                Some(size) => _ = sizes.listed.insert(size),
                None => sizes.any = true,
            }
        }
        table.entries = self.entries;
        table
    }
}

#[derive(Debug, Default)]
struct Sizes {
    listed: HashSet<u64>,
    any: bool,
}

impl Sizes {
    fn may_hold(&self, size: u64) -> bool {
        self.any || self.listed.contains(&size)
    }
}

/// Sorted by hash.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    names: String,
    md5: Sizes,
    sha1: Sizes,
    sha256: Sizes,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether anything of this size could be listed.
    pub fn may_hold(&self, size: u64) -> bool {
        self.md5.may_hold(size) || self.sha1.may_hold(size) || self.sha256.may_hold(size)
    }

    /// Name and source of the signature that these bytes have.
    pub fn find(&self, digests: &mut Digests<'_>) -> Option<(&str, u32)> {
        let size = digests.bytes.len() as u64;
        [
            self.md5.may_hold(size).then(|| digests.md5()),
            self.sha1.may_hold(size).then(|| digests.sha1()),
            self.sha256.may_hold(size).then(|| digests.sha256()),
        ]
        .into_iter()
        .flatten()
        .find_map(|digest| self.find_digest(digest, size))
    }

    fn find_digest(&self, digest: Digest, size: u64) -> Option<(&str, u32)> {
        let first = self.entries.partition_point(|entry| entry.digest < digest);
        let entry = self.entries[first..]
            .iter()
            .take_while(|entry| entry.digest == digest)
            .find(|entry| entry.size.is_none_or(|listed| listed == size))?;
        Some((&self.names[entry.name.0 as usize..entry.name.1 as usize], entry.source))
    }
}
