//! Signatures of every kind, compiled into one immutable set.
//!
//! Three kinds of search come of all the formats: hashes (of whole objects and of sections), patterns with conditions (YARA rules as they
//! are, ClamAV's body signatures translated into them), and what an archive says of its entries. Whatever is not understood is counted by
//! name and told of, and the rest is loaded.

mod clamav;
mod hash;
mod yara;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use clamav::ContainerFacts;
pub use clamav::{CvdError, CvdHeader, verify_cvd};
pub(crate) use hash::{Digest, Digests};

use crate::finding::Matched;

/// What a finding asks for. The policy of the workload decides what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Alert,
    Block,
}

/// One signature, or one file of them, that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub source: String,
    /// From 1; 0: the file as a whole.
    pub line: usize,
    /// As far as it could be read.
    pub name: String,
    pub message: String,
    /// `false`: it is well formed and nothing here can run it.
    pub wrong: bool,
}

/// Diagnostics that are kept; the counts go on.
const DIAGNOSTICS_MAX: usize = 10_000;

/// What was made of all sources.
#[derive(Debug, Default)]
pub struct Summary {
    /// By kind of signature.
    pub loaded: BTreeMap<&'static str, usize>,
    /// By what is not built.
    pub unsupported: BTreeMap<String, usize>,
    pub wrong: usize,
    /// Taken out by `.ign2`.
    pub ignored: usize,
    pub diagnostics: Vec<Diagnostic>,
}

impl Summary {
    pub fn loaded_total(&self) -> usize {
        self.loaded.values().sum()
    }

    pub fn unsupported_total(&self) -> usize {
        self.unsupported.values().sum()
    }

    fn count(&mut self, kind: &'static str) {
        *self.loaded.entry(kind).or_default() += 1;
    }

    fn refuse(&mut self, what: &str, diagnostic: Diagnostic) {
        if diagnostic.wrong {
            self.wrong += 1;
        } else {
            *self.unsupported.entry(what.to_owned()).or_default() += 1;
        }
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// Takes sources one after the other. A source that is wrong as a whole is told of, and the others stay.
pub struct Compiler {
    summary: Summary,
    sources: Vec<(String, Action)>,
    yara: yara::Compiler,
    clamav: clamav::Compiler,
    hashes: hash::Builder,
    allowed: hash::Builder,
    sections: hash::Builder,
    ignored: BTreeSet<String>,
}

impl Default for Compiler {
    fn default() -> Self {
        Self {
            summary: Summary::default(),
            sources: Vec::new(),
            yara: yara::Compiler::new(),
            clamav: clamav::Compiler::new(),
            hashes: hash::Builder::default(),
            allowed: hash::Builder::default(),
            sections: hash::Builder::default(),
            ignored: BTreeSet::new(),
        }
    }
}

/// Extensions of files that [`Compiler::file`] knows.
pub const EXTENSIONS: [&str; 28] = [
    "yar", "yara", "sha256", "hdb", "hsb", "hdu", "hsu", "mdb", "msb", "mdu", "msu", "ndb", "ndu", "ldb", "ldu", "cdb", "fp", "sfp", "ign",
    "ign2", "cvd", "cld", "cud", "pdb", "wdb", "gdb", "cbc", "idb",
];

impl Compiler {
    /// A file, by its extension as both worlds use them. `false`: the extension is none of ours.
    pub fn file(&mut self, name: &str, bytes: &[u8], action: Action) -> bool {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        if !EXTENSIONS.contains(&extension.as_str()) {
            return false;
        }
        let source = self.source(name, action);
        match extension.as_str() {
            "yar" | "yara" => self.yara.add(source, name, &String::from_utf8_lossy(bytes), &mut self.summary),
            "sha256" => self.hash_list(source, name, &String::from_utf8_lossy(bytes)),
            "cvd" | "cld" | "cud" => self.database(name, bytes, action),
            _ => self.clamav_file(source, name, &extension, &String::from_utf8_lossy(bytes)),
        }
        true
    }

    /// YARA rules as text.
    pub fn yara(&mut self, name: &str, text: &str, action: Action) {
        let source = self.source(name, action);
        self.yara.add(source, name, text, &mut self.summary);
    }

    fn source(&mut self, name: &str, action: Action) -> u32 {
        self.sources.push((name.to_owned(), action));
        (self.sources.len() - 1) as u32
    }

    /// One SHA-256 a line, perhaps with a name behind it.
    fn hash_list(&mut self, source: u32, name: &str, text: &str) {
        for (at, line) in lines(text) {
            let (digest, label) = line.split_once([' ', '\t', ',', ';']).unwrap_or((line, ""));
            match Digest::parse(digest) {
                Some(digest @ Digest::Sha256(_)) => {
                    let label = label.trim_start_matches(['*', ' ', '\t', ',', ';']);
                    self.hashes.add(digest, None, if label.is_empty() { "listed hash" } else { label }, source);
                    self.summary.count("hash");
                }
                _ => self
                    .summary
                    .refuse("", wrong(name, at, "", "a line is a SHA-256 of 64 hexadecimal digits, and a name behind it if you like")),
            }
        }
    }

    /// A database as `freshclam` leaves it: the files that are in it.
    fn database(&mut self, name: &str, bytes: &[u8], action: Action) {
        match clamav::files_of(name, bytes) {
            Ok(files) => {
                for (inner, bytes) in files {
                    let extension = inner.rsplit_once('.').map_or("", |(_, extension)| extension);
                    // Versions, licences and lists of the database itself have other extensions.
                    if EXTENSIONS.contains(&extension) && !matches!(extension, "cvd" | "cld" | "cud") {
                        self.file(&format!("{name}/{inner}"), &bytes, action);
                    }
                }
            }
            Err(error) => self.summary.refuse("", wrong(name, 0, "", &error.to_string())),
        }
    }

    fn clamav_file(&mut self, source: u32, name: &str, extension: &str, text: &str) {
        for (at, line) in lines(text) {
            let outcome = match extension {
                "hdb" | "hdu" | "hsb" | "hsu" => clamav::hash_line(line).map(|(digest, size, label)| {
                    self.hashes.add(digest, size, label, source);
                    "hash"
                }),
                "fp" | "sfp" => clamav::hash_line(line).map(|(digest, size, label)| {
                    self.allowed.add(digest, size, label, source);
                    "allowed hash"
                }),
                "mdb" | "mdu" | "msb" | "msu" => clamav::section_line(line).map(|(digest, size, label)| {
                    self.sections.add(digest, size, label, source);
                    "section hash"
                }),
                "ndb" | "ndu" => self.clamav.body_line(line, source).map(|()| "body"),
                "ldb" | "ldu" => self.clamav.logical_line(line, source).map(|()| "logical"),
                "cdb" => self.clamav.container_line(line, source).map(|()| "container"),
                "ign" | "ign2" => {
                    let label = line.rsplit(':').find(|part| !part.is_empty()).unwrap_or(line);
                    // `.ign2` is a name, perhaps with a hash of the line it means behind it; `.ign` is base:line:name.
                    let label = if extension == "ign2" { line.split(':').next().unwrap_or(line) } else { label };
                    self.ignored.insert(label.to_owned());
                    continue;
                }
                "pdb" | "wdb" | "gdb" => Err(clamav::Refused::unsupported("phishing")),
                "cbc" => Err(clamav::Refused::unsupported("bytecode")),
                _ => Err(clamav::Refused::unsupported("icons")),
            };
            match outcome {
                Ok(kind) => self.summary.count(kind),
                Err(refused) => {
                    let label = line.split([':', ';']).next().unwrap_or("").chars().take(200).collect();
                    let diagnostic = Diagnostic {
                        source: name.to_owned(),
                        line: at,
                        name: label,
                        message: refused.to_string(),
                        wrong: refused.is_wrong(),
                    };
                    self.summary.refuse(refused.what(), diagnostic);
                }
            }
            // Bytecode is one program over all lines.
            if extension == "cbc" {
                break;
            }
        }
    }

    pub fn finish(mut self) -> (SignatureSet, Summary) {
        let ignored = std::mem::take(&mut self.ignored);
        let mut taken_out = 0;
        for builder in [&mut self.hashes, &mut self.sections] {
            taken_out += builder.ignore(&ignored);
        }
        taken_out += self.clamav.ignore(&ignored);
        self.summary.ignored = taken_out;
        let body = self.clamav.finish(&mut self.summary);
        let set = SignatureSet {
            sources: self.sources,
            yara: self.yara.finish(),
            body,
            hashes: self.hashes.finish(),
            allowed: self.allowed.finish(),
            sections: self.sections.finish(),
        };
        (set, self.summary)
    }
}

/// A compiled set: shared by all scanners, never changed.
pub struct SignatureSet {
    sources: Vec<(String, Action)>,
    pub(crate) yara: yara::Rules,
    pub(crate) body: clamav::Bodies,
    pub(crate) hashes: hash::Table,
    pub(crate) allowed: hash::Table,
    pub(crate) sections: hash::Table,
}

impl SignatureSet {
    /// File and action of a signature.
    pub(crate) fn source(&self, source: u32) -> (&str, Action) {
        self.sources.get(source as usize).map_or(("", Action::Alert), |(name, action)| (name, *action))
    }

    /// Nothing can be found with it.
    pub fn is_empty(&self) -> bool {
        self.yara.is_empty() && self.body.is_empty() && self.hashes.is_empty() && self.sections.is_empty()
    }
}

/// A rule that matched.
pub(crate) struct Hit {
    pub name: String,
    pub source: u32,
    pub matched: Vec<Matched>,
}

/// Lines with something on them, by number.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn wrong(source: &str, line: usize, name: &str, message: &str) -> Diagnostic {
    Diagnostic { source: source.to_owned(), line, name: name.to_owned(), message: message.to_owned(), wrong: true }
}
