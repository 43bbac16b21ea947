//! A fetched rule set taken apart: a tar archive, one in gzip, or a single file of rules. What is in it is hostile until it has been parsed.
//!
//! Only what is of use is taken: files `*.rules`, `classification.config` and `reference.config`, by their own names; folders, links
//! and paths of the archive mean nothing. Nothing is written here.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// What one set may take, unpacked. ET Open has 60 files with 45 MB.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub entries: usize,
    /// Bytes of one file.
    pub file: u64,
    /// Bytes of everything, with what is passed over.
    pub all: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { entries: 4096, file: 128 << 20, all: 384 << 20 }
    }
}

/// Whoever made the archive is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the archive has more than {0} entries")]
    Entries(usize),
    #[error("`{0}` has more than {1} bytes")]
    File(String, u64),
    #[error("unpacked it has more than {0} bytes")]
    All(u64),
    #[error("two files are named `{0}`")]
    Twice(String),
    #[error("it is broken: {0}")]
    Broken(String),
    #[error("there is no rule file in it")]
    Empty,
    #[error("zip archives are not read")]
    Zip,
}

/// Texts by file name. `name` is that of the file that was fetched.
pub fn unpack(name: &str, bytes: &[u8], caps: Caps) -> Result<BTreeMap<String, String>, Error> {
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(Error::Zip);
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inside = Capped { inner: MultiGzDecoder::new(Cursor::new(bytes)), left: caps.all, max: caps.all };
        let mut head = Vec::new();
        Read::by_ref(&mut inside).take(TAR_BLOCK as u64).read_to_end(&mut head).map_err(|error| of_io(&error, caps))?;
        let name = name.strip_suffix(".gz").unwrap_or(name);
        return inner(name, &head.clone(), Cursor::new(head).chain(inside), caps);
    }
    inner(name, bytes.get(..TAR_BLOCK).unwrap_or(bytes), Cursor::new(bytes), caps)
}

const TAR_BLOCK: usize = 512;

fn inner(name: &str, head: &[u8], reader: impl Read, caps: Caps) -> Result<BTreeMap<String, String>, Error> {
    let found = if head.get(257..262) == Some(b"ustar") { tar(reader, caps)? } else { single(name, reader, caps)? };
    if found.keys().any(|name| name.ends_with(".rules")) { Ok(found) } else { Err(Error::Empty) }
}

fn single(name: &str, reader: impl Read, caps: Caps) -> Result<BTreeMap<String, String>, Error> {
    let base = file_name(name).unwrap_or_else(|| "fetched.rules".to_owned());
    let base = if base.ends_with(".rules") { base } else { format!("{base}.rules") };
    let text = text(&base, reader, caps)?;
    Ok(BTreeMap::from([(base, text)]))
}

fn tar(reader: impl Read, caps: Caps) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries().map_err(|error| of_io(&error, caps))?;
    for (number, entry) in entries.enumerate() {
        let entry = entry.map_err(|error| of_io(&error, caps))?;
        if number >= caps.entries {
            return Err(Error::Entries(caps.entries));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(name) = entry.path().ok().and_then(|path| file_name(&path.to_string_lossy())) else { continue };
        if !name.ends_with(".rules") && name != "classification.config" && name != "reference.config" {
            continue;
        }
        let text = text(&name, entry, caps)?;
        if found.insert(name.clone(), text).is_some() {
            return Err(Error::Twice(name));
        }
    }
    Ok(found)
}

fn text(name: &str, reader: impl Read, caps: Caps) -> Result<String, Error> {
    let mut bytes = Vec::new();
    reader.take(caps.file + 1).read_to_end(&mut bytes).map_err(|error| of_io(&error, caps))?;
    if bytes.len() as u64 > caps.file {
        return Err(Error::File(name.to_owned(), caps.file));
    }
    // Bytes that are not UTF-8 stand in comments of old rule files.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The last part of a path, if it is a name that can be given to a file anywhere.
fn file_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let good = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+'));
    good.then(|| name.to_owned())
}

/// Gives an error instead of more than `max` bytes.
struct Capped<R> {
    inner: R,
    left: u64,
    max: u64,
}

/// The message by which [`of_io`] knows it again.
const TOO_MUCH: &str = "too much";

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, TOO_MUCH))?;
        debug_assert!(self.left <= self.max);
        Ok(got)
    }
}

fn of_io(error: &io::Error, caps: Caps) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge { Error::All(caps.all) } else { Error::Broken(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const RULE: &str = "alert tcp any any -> any any (msg:\"one\"; content:\"a\"; sid:1; rev:1;)\n";

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            // Past the builder's own checks: what comes from outside has passed none.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn names(bytes: &[u8]) -> Result<Vec<String>, Error> {
        unpack("set.rules", bytes, Caps::default()).map(|found| found.into_keys().collect())
    }

    #[test]
    fn archives_and_plain_files_are_taken_apart() {
        let files = [("rules/a.rules", RULE), ("rules/classification.config", ""), ("rules/LICENSE", "x"), ("b.rules", RULE)];
        let tar = archive(&files);
        assert_eq!(names(&tar).unwrap(), ["a.rules", "b.rules", "classification.config"]);
        assert_eq!(names(&gzip(&tar)).unwrap().len(), 3);
        assert_eq!(names(RULE.as_bytes()).unwrap(), ["set.rules"]);
        assert_eq!(unpack("x.rules.gz", &gzip(RULE.as_bytes()), Caps::default()).unwrap()["x.rules"], RULE);
    }

    #[test]
    fn paths_of_an_archive_mean_nothing() {
        let tar = archive(&[("../../etc/cron.d/evil.rules", RULE), ("/abs.rules", RULE), ("..", "x"), ("x/.hidden.rules", RULE)]);
        assert_eq!(names(&tar).unwrap(), ["abs.rules", "evil.rules"]);
        assert_eq!(names(&archive(&[("a/x.rules", RULE), ("b/x.rules", RULE)])), Err(Error::Twice("x.rules".into())));
    }

    #[test]
    fn links_are_passed_over() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link.rules", "/etc/shadow").unwrap();
        assert_eq!(names(&builder.into_inner().unwrap()), Err(Error::Empty));
    }

    #[test]
    fn nothing_grows_beyond_its_cap() {
        let caps = Caps { entries: 3, file: 10_000, all: 50_000 };
        let try_it = |bytes: &[u8]| unpack("x.rules", bytes, caps).map(|found| found.len());
        let long = "#".repeat(10_001);
        assert_eq!(try_it(&archive(&[("a.rules", &long)])), Err(Error::File("a.rules".into(), 10_000)));
        assert_eq!(try_it(long.as_bytes()), Err(Error::File("x.rules".into(), 10_000)));
        assert_eq!(try_it(&archive(&[("a.rules", ""); 4].map(|(_, text)| ("a.txt", text)))), Err(Error::Entries(3)));
        let bomb = gzip(&archive(&[("a.txt", &"\0".repeat(1_000_000)), ("a.rules", RULE)]));
        assert!(bomb.len() < 10_000);
        assert_eq!(try_it(&bomb), Err(Error::All(50_000)));
    }

    #[test]
    fn broken_archives_are_refused() {
        let whole = gzip(&archive(&[("a.rules", &RULE.repeat(50))]));
        assert!(matches!(names(&whole[..whole.len() / 2]), Err(Error::Broken(_))));
        assert_eq!(names(b"PK\x03\x04rest"), Err(Error::Zip));
        assert_eq!(names(&archive(&[("README", "x")])), Err(Error::Empty));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        let seed = gzip(&archive(&[("a.rules", RULE), ("reference.config", "x")]));
        let tar = archive(&[("a.rules", RULE), ("b.rules", RULE)]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..2000 {
            let mut bytes = if round % 2 == 0 { seed.clone() } else { tar.clone() };
            for _ in 0..1 + next() % 8 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(1 + next() % bytes.len());
            let _ = unpack("x.rules", &bytes, Caps { entries: 16, file: 100_000, all: 1_000_000 });
        }
    }
}
