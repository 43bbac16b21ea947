//! The house checks: what `ARCHITECTURE.md` and `CONTRIBUTING.md` say, held against the tree.
//!
//! ```text
//! ARCHITECTURE.md ─ tables ──┐
//! cargo metadata ─ packages ─┼─ edges, bans, licences, caps ─┐
//! source files ──────────────┴─ unsafe, words, lengths ──────┼─ Problems
//! documents ─────────────────── links, anchors, named tests ─┘
//! ```
//!
//! Every checker is a function from texts to [`Problem`]s, so that it is tested on small texts; [`check`] reads the
//! repository and runs them all. A test runs [`check`] on this repository.
#![forbid(unsafe_code)]

pub mod caps;
pub mod documents;
pub mod edges;
pub mod licences;
pub mod metadata;
pub mod source;
pub mod table;

use std::fmt;
use std::fs;
use std::path::Path;

use metadata::Metadata;

/// Files of the tree that are looked at; more means that something else than sources lies in it.
const FILES_MAX: usize = 20_000;
/// A file larger than this is data, not source.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One thing that is not as the house wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Relative to the root.
    pub file: String,
    /// From 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl Problem {
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// A text file of the tree.
#[derive(Debug, Clone)]
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub fn extension(&self) -> &str {
        self.path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension)
    }
}

/// Runs every check on the tree below `root`. `Err`: the tree or cargo cannot be read at all.
pub fn check(root: &Path) -> Result<Vec<Problem>, String> {
    let files = read_tree(root)?;
    let metadata = Metadata::read(root)?;
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md").ok_or("there is no ARCHITECTURE.md")?;
    let mut problems = edges::check(&architecture.text, &metadata);
    problems.extend(edges::check_only_in(&architecture.text, &metadata));
    problems.extend(licences::check(&metadata));
    problems.extend(caps::check(&architecture.text, &files));
    problems.extend(source::check_roots(&metadata, &files));
    for file in &files {
        problems.extend(source::check(file));
    }
    problems.extend(documents::check(&files, |path| root.join(path).exists()));
    problems.sort();
    problems.dedup();
    Ok(problems)
}

/// The text files of the tree, by path. Folders that tools write (`target`) and version control's are left out.
fn read_tree(root: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).map_err(|error| format!("read folder `{folder}`: {error}"))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("read folder `{folder}`: {error}"))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(|error| format!("look at `{path}`: {error}"))?;
            if matches!(name.as_str(), "target" | ".git") {
                continue; // `.git` is a file in a second work tree.
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && entry.metadata().is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX) {
                // A file that an editor took away meanwhile, or that is not text, has nothing to say here.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    files.push(File { path, text });
                }
            }
            if files.len() > FILES_MAX {
                return Err(format!("more than {FILES_MAX} files: does something write into the tree?"));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
