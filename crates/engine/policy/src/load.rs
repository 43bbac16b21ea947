//! From texts to a [`Config`]: each source is read alone, so that a mistake is found even where a later file hides it;
//! then all are merged in the order given and read as one.
//!
//! Merging: maps are merged key by key, lists are joined, for anything else the later source wins. The variables of the
//! rules are single values even when written as lists.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Report, Severity, quote};
use crate::setting::Setting;
use crate::values::Peer;
use crate::yaml::{self, Budget, Kind, Node};

/// Files read together.
pub const SOURCES_MAX: usize = 256;
/// Rules of `segments.rules`; their numbers must fit the kernel's table with room for the reserved ones.
pub const SEGMENT_RULES_MAX: usize = 1_024;
/// Rules of `workloads`.
pub const WORKLOAD_RULES_MAX: usize = 1_024;
/// Rules of `overrides`.
pub const OVERRIDE_RULES_MAX: usize = 256;

/// One configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// For messages; usually the path.
    pub name: String,
    pub text: String,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The bytes of a file. The mistake, if they are not UTF-8 or too many.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let name = name.into();
        let refused = |code, line, message: String, help: &str| Diagnostic {
            severity: Severity::Error,
            code,
            source: name.clone(),
            line,
            column: u32::from(line != 0),
            message,
            help: Some(help.to_owned()),
            snippet: String::new(),
            width: 0,
        };
        if bytes.len() > yaml::FILE_BYTES_MAX {
            let message = format!("the file has {} bytes; the cap is {}", bytes.len(), yaml::FILE_BYTES_MAX);
            return Err(vec![refused("too-large", 0, message, "split it into several files under `conf.d/`")]);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text: text.to_owned(), name }),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
                let message = format!("the bytes at offset {} are not UTF-8", error.valid_up_to());
                Err(vec![refused("syntax", line, message, "save the file as UTF-8")])
            }
        }
    }
}

/// Reads all sources, in the order in which they are to be merged. Either all of them are good, or nothing is taken
/// over and all mistakes that were found are returned, in the order of the sources and lines.
pub fn parse(sources: &[Source]) -> Result<Config, Vec<Diagnostic>> {
    let mut report = Report::new(sources);
    if sources.len() > SOURCES_MAX {
        let message = format!("{} configuration files; the cap is {SOURCES_MAX}", sources.len());
        report.error(crate::diagnostic::At { source: u16::MAX, start: 0, end: 0 }, "too-large", message, "join some of them");
        return Err(report.into_diagnostics());
    }
    let mut budget = Budget::new();
    let mut merged: Option<Node> = None;
    for (number, source) in sources.iter().enumerate() {
        let Some(node) = yaml::read(number as u16, &source.text, &mut budget, &mut report) else { continue };
        let _ = Config::read(&node, &mut report);
        match &mut merged {
            Some(merged) => merge(merged, node, 0, false),
            None => merged = Some(node),
        }
    }
    let merged = merged.unwrap_or_else(|| Node::null(crate::diagnostic::At::default()));
    check_together(&merged, &mut report);
    match Config::read(&merged, &mut report) {
        Some(config) if !report.has_errors() => Ok(config),
        _ => Err(report.into_diagnostics()),
    }
}

/// What is accepted and probably not meant: segment rules that no traffic can reach.
pub fn lint(config: &Config) -> Vec<Diagnostic> {
    let rules = &config.segments.rules;
    let mut found = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let Some((first, by)) = rules.iter().take(number).enumerate().find(|(_, earlier)| covers(earlier, rule)) else { continue };
        let name = |number: usize, name: &Option<String>| name.clone().unwrap_or_else(|| format!("segments.rules[{number}]"));
        found.push(Diagnostic {
            severity: Severity::Warning,
            code: "unreachable",
            source: rule.origin.source.clone(),
            line: rule.origin.line,
            column: rule.origin.column,
            message: format!("the rule {} never decides", quote(&name(number, &rule.name))),
            help: Some(format!("{} ({}) matches first all that it matches", quote(&name(first, &by.name)), by.origin)),
            snippet: String::new(),
            width: 0,
        });
        if found.len() >= crate::DIAGNOSTICS_MAX {
            break;
        }
    }
    found
}

/// Whether `wide` surely matches all that `narrow` matches. May say no where yes is true.
fn covers(wide: &crate::SegmentRule, narrow: &crate::SegmentRule) -> bool {
    let peer = |wide: &Peer, narrow: &Peer| match (wide, narrow) {
        (Peer::Any, _) => true,
        (Peer::Containers(wide), Peer::Containers(narrow)) => wide.covers(narrow),
        (wide, narrow) => wide == narrow,
    };
    let ports = wide.ports.is_empty()
        || (!narrow.ports.is_empty() && narrow.ports.iter().all(|n| wide.ports.iter().any(|w| w.low <= n.low && n.high <= w.high)));
    let proto = wide.proto == crate::Proto::Any || wide.proto == narrow.proto;
    peer(&wide.from, &narrow.from) && peer(&wide.to, &narrow.to) && proto && ports
}

fn merge(into: &mut Node, from: Node, depth: usize, single_values: bool) {
    match (&mut into.kind, from.kind) {
        // A name that stands alone says nothing, also not that there is nothing.
        (_, Kind::Null) => {}
        (Kind::Map(old), Kind::Map(new)) => {
            let places: BTreeMap<String, usize> = old.iter().enumerate().map(|(at, (key, _))| (key.text.clone(), at)).collect();
            for (key, value) in new {
                let single_values = single_values || (depth == 1 && key.text == "variables");
                match places.get(&key.text).and_then(|at| old.get_mut(*at)) {
                    Some((_, old)) => merge(old, value, depth + 1, single_values),
                    None => old.push((key, value)),
                }
            }
        }
        (Kind::List(old), Kind::List(new)) if !single_values => old.extend(new),
        (_, kind) => *into = Node { kind, at: from.at },
    }
}

/// Mistakes that lie in how several settings stand together.
fn check_together(merged: &Node, to: &mut Report) {
    let lists: [(&[&str], usize); 3] =
        [(&["segments", "rules"], SEGMENT_RULES_MAX), (&["workloads"], WORKLOAD_RULES_MAX), (&["overrides"], OVERRIDE_RULES_MAX)];
    for (path, cap) in lists {
        let items = items(merged, path);
        if let Some(first_too_many) = items.get(cap) {
            let message = format!("`{}` has {} rules; the cap is {cap}", path.join("."), items.len());
            to.error(first_too_many.at, "too-large", message, "use selectors with `*` in place of many rules");
        }
    }
    let mut names: BTreeMap<&str, &Node> = BTreeMap::new();
    for rule in items(merged, &["segments", "rules"]) {
        let Some((name, node)) = find(rule, &["name"]).and_then(|node| text(node).map(|name| (name, node))) else { continue };
        if let Some(first) = names.insert(name, node) {
            let message = format!("two segment rules have the name {}", quote(name));
            to.error(node.at, "conflict", message, format!("the other one is at {}", to.origin(first.at)));
        }
    }
    let mut sids: BTreeMap<u32, &str> = BTreeMap::new();
    for list in ["disable", "drop", "alert"] {
        for node in items(merged, &["rules", list]) {
            let Some(sid) = text(node).and_then(|text| text.parse().ok()) else { continue };
            if let Some(other) = sids.insert(sid, list).filter(|other| *other != list) {
                let message = format!("the signature {sid} stands in `rules.{other}` and in `rules.{list}`");
                to.error(node.at, "conflict", message, "take it out of one of the two");
            }
        }
    }
    let same = |a: &[&str], b: &[&str]| match (find(merged, a), find(merged, b)) {
        (Some(a), Some(b)) if text(a).is_some() && text(a) == text(b) => Some(b.at),
        _ => None,
    };
    if let Some(at) = same(&["events", "eve", "path"], &["events", "store", "path"]) {
        to.error(at, "conflict", "`events.store.path` and `events.eve.path` are the same file", "give each its own");
    }
}

fn find<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    let Some((first, rest)) = path.split_first() else { return Some(node) };
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == *first).and_then(|(_, value)| find(value, rest))
}

fn items<'n>(node: &'n Node, path: &[&str]) -> &'n [Node] {
    match find(node, path).map(|node| (node, &node.kind)) {
        Some((_, Kind::List(items))) => items,
        Some((node, Kind::Scalar { .. } | Kind::Map(_))) => std::slice::from_ref(node),
        Some((_, Kind::Null)) | None => &[],
    }
}

fn text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text),
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}
