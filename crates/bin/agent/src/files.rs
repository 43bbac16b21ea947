//! The files the agent reads and writes: configuration, rules, the journal of what was changed on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bulkhead_policy::{Config, Diagnostic, OVERRIDES_FILE, Source};
use serde::{Deserialize, Serialize};

/// A configuration file larger than this is refused before it is parsed.
const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// One rule file.
const RULE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Rule files of all patterns together.
const RULE_FILES_MAX: usize = 4096;

pub const DEFAULT_CONFIG: &str = "/etc/bulkhead/bulkhead.yaml";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}: {source}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is larger than {max} bytes")]
    TooLarge { path: String, max: u64 },
    #[error("the configuration is wrong:\n{}", bulkhead_policy::render(.0))]
    Config(Vec<Diagnostic>),
    #[error("write {path}: {source}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("more than {RULE_FILES_MAX} rule files")]
    TooManyRuleFiles,
}

/// The configuration with the texts it was made from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub sources: Vec<Source>,
    /// Where overrides are written.
    pub conf_d: PathBuf,
}

/// Reads `path` and `conf.d/*.yaml` beside it. A missing main file means defaults when it is the default one.
pub fn load_config(path: &Path) -> Result<Loaded, Error> {
    let mut sources = Vec::new();
    let must_exist = path != Path::new(DEFAULT_CONFIG);
    match read_capped(path, CONFIG_BYTES_MAX) {
        Ok(bytes) => sources.push(Source::from_bytes(path.display().to_string(), &bytes).map_err(Error::Config)?),
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && !must_exist => {}
        Err(error) => return Err(error),
    }
    let conf_d = path.parent().unwrap_or(Path::new("/etc/bulkhead")).join("conf.d");
    let mut names: Vec<PathBuf> = match fs::read_dir(&conf_d) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    for name in names {
        let bytes = read_capped(&name, CONFIG_BYTES_MAX)?;
        sources.push(Source::from_bytes(name.display().to_string(), &bytes).map_err(Error::Config)?);
    }
    let config = bulkhead_policy::parse(&sources).map_err(Error::Config)?;
    Ok(Loaded { config, sources, conf_d })
}

/// Writes the overrides file whole or not at all.
pub fn write_overrides(conf_d: &Path, text: &str) -> Result<PathBuf, Error> {
    let path = conf_d.join(OVERRIDES_FILE);
    write_whole(&path, text.as_bytes())?;
    Ok(path)
}

/// Writes beside the file, then renames.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.display().to_string(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

/// Files that the patterns name, each once, in the order of patterns and names. Patterns that match nothing are told.
pub fn named_files(patterns: &[String]) -> Result<(Vec<PathBuf>, Vec<String>), Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut unmatched = Vec::new();
    for pattern in patterns {
        let found = expand(Path::new(pattern));
        if found.is_empty() {
            unmatched.push(pattern.clone());
        }
        files.extend(found.into_iter().filter(|path| seen.insert(path.clone())));
        if files.len() > RULE_FILES_MAX {
            return Err(Error::TooManyRuleFiles);
        }
    }
    Ok((files, unmatched))
}

pub fn read_rules(path: &Path) -> Result<Vec<u8>, Error> {
    read_capped(path, RULE_BYTES_MAX)
}

/// `*` may stand in the names of files and folders, and does not stand for a `.` at the beginning.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_str().filter(|name| name.contains('*'));
        let glob = match name.map(bulkhead_policy::Glob::new) {
            None => {
                found.iter_mut().for_each(|path| path.push(part));
                continue;
            }
            Some(Ok(glob)) => glob,
            Some(Err(_)) => return Vec::new(),
        };
        let entries = found.iter().filter_map(|folder| fs::read_dir(folder).ok()).flat_map(|entries| entries.flatten());
        let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && glob.matches(name)));
        found = named.map(|entry| entry.path()).take(RULE_FILES_MAX + 1).collect();
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

fn read_capped(path: &Path, max: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(Error::TooLarge { path: path.display().to_string(), max });
    }
    Ok(bytes)
}

/// What has to be undone when the agent goes down, also by a later process after a crash. In `/run`: a reboot undoes it all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The bpf file system was mounted by us here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted_bpffs: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_dir: Option<PathBuf>,
    /// Settings below /proc/sys with the value they had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The netfilter chains of the fallback path are in place.
    #[serde(default)]
    pub nfqueue: bool,
    /// There was no mangle table before, so it goes again with our chains.
    #[serde(default)]
    pub made_mangle: bool,
}

impl Journal {
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("journal.json")
    }

    pub fn read(run_dir: &Path) -> Self {
        fs::read(Self::path(run_dir)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Before the change it tells of is made.
    pub fn write(&self, run_dir: &Path) -> Result<(), Error> {
        let bytes =
            serde_json::to_vec_pretty(self).map_err(|error| Error::Write { path: "journal".into(), source: io::Error::other(error) })?;
        write_whole(&Self::path(run_dir), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_in_folders_once_and_in_order() {
        let root = std::env::temp_dir().join(format!("bulkhead-files-{}", std::process::id()));
        for name in ["b/two.rules", "a/one.rules", "a/.hidden.rules", "a/one.config", ".c/three.rules", "four.rules"] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let pattern = |text: &str| root.join(text).display().to_string();
        let all = named_files(&[pattern("four.rules"), pattern("*/*.rules"), pattern("*.rules"), pattern("x/*")]);
        fs::remove_dir_all(&root).unwrap();
        let (found, unmatched) = all.unwrap();
        assert_eq!(found, [root.join("four.rules"), root.join("a/one.rules"), root.join("b/two.rules")]);
        assert_eq!(unmatched, [pattern("x/*")]);
    }
}
