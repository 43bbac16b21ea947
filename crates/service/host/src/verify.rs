//! Every packaged file against the package database: dpkg's lists of MD5 sums, and the sums of configuration files.
//!
//! MD5 is what the database has. It finds what was changed; that a stranger can make a file of the same sum as one of
//! Debian's is not known of MD5 (it would take a second preimage).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_posture::Fact;
use md5::{Digest, Md5};
use serde::Serialize;

use crate::dpkg::{INFO, STATUS};
use crate::root::{Root, open};

/// Files of one run; a workstation has 500,000.
pub const FILES_MAX: usize = 5_000_000;
/// Bytes of one database file.
const DATABASE_BYTES_MAX: u64 = 128 << 20;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    pub path: String,
    pub package: String,
    pub what: What,
    /// A file that its administrator may change: told, and no finding.
    pub configuration: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Changed,
    Missing,
    /// No file any more, but something else.
    NotAFile,
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    pub packages: usize,
    pub files: u64,
    pub bytes: u64,
    /// Left out on purpose when the package was installed (`path-exclude`).
    pub excluded: u64,
    /// Packages that brought no sums.
    pub without_sums: Vec<String>,
    pub differences: Vec<Difference>,
}

struct Item {
    path: String,
    sum: String,
    package: String,
    configuration: bool,
}

/// The error is a phrase for a person: there is no database that can be read.
pub fn verify(root: &Root, threads: usize) -> Result<Verified, String> {
    let status = match root.bytes(STATUS, DATABASE_BYTES_MAX) {
        Fact::Known(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Fact::Absent => return Err(format!("there is no {STATUS}: only dpkg's database is compared with by this version")),
        Fact::Unreadable(why) => return Err(format!("{STATUS}: {why}")),
    };
    let mut verified = Verified::default();
    let mut items = items(root, &status, &mut verified)?;
    items.truncate(FILES_MAX);
    let excludes = excludes(root);
    let next = AtomicUsize::new(0);
    let parts: Vec<Verified> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, 64)).map(|_| scope.spawn(|| worker(root, &items, &excludes, &next))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    if parts.len() < threads.clamp(1, 64) {
        return Err("a thread ended before its work did".to_owned());
    }
    for part in parts {
        verified.files += part.files;
        verified.bytes += part.bytes;
        verified.excluded += part.excluded;
        verified.differences.extend(part.differences);
    }
    verified.differences.sort();
    Ok(verified)
}

fn items(root: &Root, status: &str, verified: &mut Verified) -> Result<Vec<Item>, String> {
    let names = match root.names(INFO) {
        Fact::Known(names) => names,
        Fact::Absent => return Err(format!("there is no {INFO}")),
        Fact::Unreadable(why) => return Err(format!("{INFO}: {why}")),
    };
    let diverted = diversions(root);
    let mut items = Vec::new();
    for block in status.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        let (Some(package), Some(architecture)) = (field("Package"), field("Architecture")) else { continue };
        if !field("Status").is_some_and(|status| status.ends_with(" installed")) {
            continue;
        }
        verified.packages += 1;
        let place = |path: String| diverted.get(&path).filter(|(_, by)| by != package).map_or(path.clone(), |(to, _)| to.clone());
        for line in conffiles(block) {
            let mut words = line.split_whitespace();
            if let (Some(path), Some(sum)) = (words.next(), words.next())
                && sum.len() == 32
                && words.next() != Some("obsolete")
            {
                items.push(Item { path: place(path.to_owned()), sum: sum.to_owned(), package: package.to_owned(), configuration: true });
            }
        }
        let named = [format!("{package}.md5sums"), format!("{package}:{architecture}.md5sums")];
        let Some(name) = named.iter().find(|name| names.binary_search(name).is_ok()) else {
            // A package of links and folders alone has no sums to bring.
            verified.without_sums.push(package.to_owned());
            continue;
        };
        let Fact::Known(bytes) = root.bytes(&format!("{INFO}/{name}"), DATABASE_BYTES_MAX) else {
            return Err(format!("{INFO}/{name} cannot be read"));
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some((sum, path)) = line.split_once("  ") else { continue };
            if sum.len() == 32 && items.len() < FILES_MAX {
                items.push(Item {
                    path: place(format!("/{}", path.trim_start_matches('/'))),
                    sum: sum.to_owned(),
                    package: package.to_owned(),
                    configuration: false,
                });
            }
        }
    }
    Ok(items)
}

/// The sums that packages have of these files, by path.
pub fn sums(root: &Root, owners: &HashMap<String, String>) -> HashMap<String, String> {
    let mut sums = HashMap::new();
    let packages: BTreeSet<&String> = owners.values().collect();
    let names = root.names(INFO);
    for name in names.known().into_iter().flatten() {
        let Some(stem) = name.strip_suffix(".md5sums") else { continue };
        let package = stem.split(':').next().unwrap_or(stem);
        if !packages.iter().any(|known| *known == package) {
            continue;
        }
        let Fact::Known(bytes) = root.bytes(&format!("{INFO}/{name}"), DATABASE_BYTES_MAX) else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        sums.extend(
            text.lines()
                .filter_map(|line| line.split_once("  "))
                .map(|(sum, path)| (format!("/{}", path.trim_start_matches('/')), sum.to_owned())),
        );
    }
    sums
}

/// MD5 of one file of a root.
pub fn sum_of(root: &Root, path: &str) -> std::io::Result<String> {
    let full = root.resolve(path)?;
    sum(root, &full, path, &mut vec![0; CHUNK]).map(|(sum, _)| sum)
}

/// Indented lines below `Conffiles:`.
fn conffiles(block: &str) -> impl Iterator<Item = &str> {
    block.lines().skip_while(|line| !line.starts_with("Conffiles:")).skip(1).take_while(|line| line.starts_with(' '))
}

/// Path to the place it was moved to, and by whose package: dpkg-divert(1).
fn diversions(root: &Root) -> HashMap<String, (String, String)> {
    let text = root.text("/var/lib/dpkg/diversions");
    let lines: Vec<&str> = text.known().map(|text| text.lines().collect()).unwrap_or_default();
    let three = lines.chunks_exact(3).filter_map(|three| match three {
        [from, to, by] => Some(((*from).to_owned(), ((*to).to_owned(), (*by).to_owned()))),
        _ => None,
    });
    three.collect()
}

/// Patterns of `path-exclude` and `path-include`, in the order in which they count.
fn excludes(root: &Root) -> Vec<(bool, String)> {
    let mut patterns = Vec::new();
    let mut texts: Vec<String> = root.text("/etc/dpkg/dpkg.cfg").known().cloned().into_iter().collect();
    for name in root.names("/etc/dpkg/dpkg.cfg.d").known().into_iter().flatten() {
        texts.extend(root.text(&format!("/etc/dpkg/dpkg.cfg.d/{name}")).known().cloned());
    }
    for line in texts.iter().flat_map(|text| text.lines()).map(str::trim) {
        for (word, out) in [("path-exclude", true), ("path-include", false)] {
            if let Some(rest) = line.strip_prefix(word) {
                let pattern = rest.trim_start_matches([' ', '=']).trim();
                if pattern.starts_with('/') && patterns.len() < 1000 {
                    patterns.push((out, pattern.to_owned()));
                }
            }
        }
    }
    patterns
}

fn is_excluded(path: &str, patterns: &[(bool, String)]) -> bool {
    patterns.iter().rev().find(|(_, pattern)| matches(path.as_bytes(), pattern.as_bytes())).is_some_and(|(out, _)| *out)
}

/// `*` and `?` as fnmatch(3) without flags has them: a star matches slashes too. One mark to go back to, so no more than
/// the product of both lengths.
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut back = None;
    loop {
        match (text.get(t), pattern.get(p)) {
            (_, Some(b'*')) => {
                back = Some((p + 1, t));
                p += 1;
            }
            (Some(_), Some(b'?')) => (t, p) = (t + 1, p + 1),
            (Some(a), Some(b)) if a == b => (t, p) = (t + 1, p + 1),
            (None, None) => return true,
            (None, _) => return false,
            (Some(_), _) => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (t, p) = (from + 1, star);
                }
                None => return false,
            },
        }
    }
}

fn worker(root: &Root, items: &[Item], excludes: &[(bool, String)], next: &AtomicUsize) -> Verified {
    let mut part = Verified::default();
    let mut buffer = vec![0; CHUNK];
    // Folders repeat: each is followed once.
    let mut folders: BTreeMap<String, PathBuf> = BTreeMap::new();
    loop {
        // Some at a time, so that neighbours on disk stay with one reader.
        let from = next.fetch_add(64, Ordering::Relaxed);
        let Some(some) = items.get(from..(from + 64).min(items.len())).filter(|some| !some.is_empty()) else { return part };
        for item in some {
            one(root, item, excludes, &mut folders, &mut buffer, &mut part);
        }
    }
}

fn one(
    root: &Root,
    item: &Item,
    excludes: &[(bool, String)],
    folders: &mut BTreeMap<String, PathBuf>,
    buffer: &mut [u8],
    part: &mut Verified,
) {
    part.files += 1;
    let mut differs = |what, why| {
        part.differences.push(Difference {
            path: item.path.clone(),
            package: item.package.clone(),
            what,
            configuration: item.configuration,
            why,
        });
    };
    let (folder, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
    let folder = match folders.get(folder) {
        Some(known) => known.clone(),
        None => match root.resolve(if folder.is_empty() { "/" } else { folder }) {
            Ok(path) => {
                folders.insert(folder.to_owned(), path.clone());
                path
            }
            Err(error) => return differs(What::Unreadable, Some(error.to_string())),
        },
    };
    let full = folder.join(name);
    match sum(root, &full, &item.path, buffer) {
        Ok((sum, bytes)) => {
            part.bytes += bytes;
            if sum != item.sum {
                part.differences.push(Difference {
                    path: item.path.clone(),
                    package: item.package.clone(),
                    what: What::Changed,
                    configuration: item.configuration,
                    why: None,
                });
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if is_excluded(&item.path, excludes) {
                part.excluded += 1;
            } else {
                differs(What::Missing, None);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => differs(What::NotAFile, None),
        Err(error) => differs(What::Unreadable, Some(error.to_string())),
    }
}

fn sum(root: &Root, full: &Path, path: &str, buffer: &mut [u8]) -> std::io::Result<(String, u64)> {
    // A file that became a link is followed inside the root; what it leads to has to have the sum.
    let meta = fs::symlink_metadata(full)?;
    let mut file = if meta.is_symlink() { open(&root.resolve(path)?)? } else { open(full)? };
    let size = meta.size();
    let mut digest = Md5::new();
    let mut all = 0;
    loop {
        let count = file.read(buffer)?;
        if count == 0 {
            break;
        }
        digest.update(buffer.get(..count).unwrap_or_default());
        all += count as u64;
        // It grows while it is read: it is not what was packed.
        if all > size.saturating_add(1 << 30) {
            break;
        }
    }
    Ok((digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dpkg_has_them() {
        let patterns = [(true, "/usr/share/doc/*".to_owned()), (false, "/usr/share/doc/*/copyright".to_owned())];
        assert!(is_excluded("/usr/share/doc/a/b/README", &patterns));
        assert!(!is_excluded("/usr/share/doc/a/copyright", &patterns));
        assert!(!is_excluded("/usr/bin/a", &patterns));
        assert!(matches(b"/a/b", b"/?/*") && !matches(b"/a", b"/a?") && matches(b"", b"*"));
        // Many stars over a long text end soon.
        assert!(!matches(&b"a".repeat(10_000), "*a".repeat(50).as_bytes().iter().copied().chain(*b"b").collect::<Vec<_>>().as_slice()));
    }
}
