//! YAML text to a tree in which every key and value knows its place. The parser below gives events with byte spans;
//! what is added here are the caps (a file that unfolds without end is refused) and the messages.
//!
//! Not taken over from YAML, because nobody needs them in a configuration: tags, merge keys, several documents in one
//! file, keys that are not plain text. Anchors and aliases work, and count against the same caps.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostic::{At, Report, quote};

/// Bytes of one file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Keys and values of all files together, aliases unfolded.
pub const NODES_MAX: usize = 100_000;
/// Bytes of text in all keys and values together, aliases unfolded.
pub const TEXT_BYTES_MAX: usize = 8 << 20;
/// Lists and maps within one another.
pub const DEPTH_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub kind: Kind,
    pub at: At,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    /// As written; `quoted` says that it cannot be meant as a number or a word of the language.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: String,
    pub at: At,
}

impl Node {
    pub fn null(at: At) -> Self {
        Self { kind: Kind::Null, at }
    }

    /// `a list`, `a map`, `the text …`: for messages.
    pub fn what(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, .. } => quote(text),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}

/// What is left of the caps that hold for all files together.
pub(crate) struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    pub const fn new() -> Self {
        Self { nodes: NODES_MAX, bytes: TEXT_BYTES_MAX }
    }
}

/// Reads one source. `None`: refused, and the reason reported. An empty text is [`Kind::Null`].
pub(crate) fn read(source: u16, text: &str, budget: &mut Budget, to: &mut Report) -> Option<Node> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes; the cap is {FILE_BYTES_MAX}", text.len());
        to.error(At { source, start: 0, end: 0 }, "too-large", message, "split it into several files under `conf.d/`");
        return None;
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        disallow_directives: true,
    };
    let mut builder = Builder { source, text, budget, stack: Vec::new(), anchors: BTreeMap::new(), root: None, seen_document: false };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, &span, to)?,
            Err(error) => {
                refuse(source, text, &error, to);
                return None;
            }
        }
    }
    Some(builder.root.unwrap_or_else(|| Node::null(At { source, start: 0, end: 0 })))
}

/// The parser's reason in one line, and what most often helps.
fn refuse(source: u16, text: &str, error: &ScanError, to: &mut Report) {
    let start = error.marker().byte_offset().unwrap_or(text.len());
    let at = At { source, start: start as u32, end: start as u32 + 1 };
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        let help = "no setting needs this: check the indentation and the brackets";
        return to.error(at, "too-large", format!("lists and maps more than {DEPTH_MAX} deep"), help);
    }
    let info = error.info();
    let reason = info.lines().next().unwrap_or("it cannot be read");
    let help = match error.kind() {
        ErrorKind::UnknownAnchor => "an alias `*name` needs a value named `&name` before it; quote the text if the `*` belongs to it",
        _ if reason.contains("tab") => "YAML is indented with spaces, not with tabs",
        _ => "check the indentation, the quotes and the brackets here and on the line before",
    };
    to.error(at, "syntax", format!("not valid YAML: {reason}"), help);
}

struct Builder<'a> {
    source: u16,
    text: &'a str,
    budget: &'a mut Budget,
    stack: Vec<Frame>,
    /// Finished nodes with an anchor, and how deep they are.
    anchors: BTreeMap<usize, (Node, usize)>,
    root: Option<Node>,
    seen_document: bool,
}

/// A list or map whose end has not come yet. `depth`: the deepest child so far.
struct Frame {
    open: Open,
    at: At,
    anchor: usize,
    depth: usize,
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: BTreeSet<String>, key: Option<Key> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span, to: &mut Report) -> Option<()> {
        let at = self.at(span);
        if let Some(tag) = event.tag() {
            let message = format!("the tag {} is not understood", quote(&tag.original()));
            let at = span.tag_span().map_or(at, |tag| self.at(&tag));
            to.error(at, "syntax", message, "quote the value if the `!` belongs to it, or take the tag away");
            return None;
        }
        match event {
            Event::DocumentStart(..) if self.seen_document => {
                to.error(at, "syntax", "a second document in one file", "one document a file: take the `---` away or make a second file");
                return None;
            }
            Event::DocumentStart(..) => self.seen_document = true,
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let null = !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar { text: text.into_owned(), quoted } };
                self.add(Node { kind, at }, 0, anchor, to)?;
            }
            Event::SequenceStart(_, anchor, _) => self.open(Open::List(Vec::new()), at, anchor),
            Event::MappingStart(_, anchor, _) => {
                self.open(Open::Map { entries: Vec::new(), seen: BTreeSet::new(), key: None }, at, anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let frame = self.stack.pop()?;
                let kind = match frame.open {
                    Open::List(items) => Kind::List(items),
                    Open::Map { entries, .. } => Kind::Map(entries),
                };
                let at = At { end: at.end.max(frame.at.end), ..frame.at };
                self.add(Node { kind, at }, frame.depth + 1, frame.anchor, to)?;
            }
            Event::Alias(anchor) => {
                let Some((node, depth)) = self.anchors.get(&anchor) else {
                    to.error(at, "syntax", "the alias stands within what it names", "write the value out");
                    return None;
                };
                let (mut node, depth) = (node.clone(), *depth);
                if !self.pay_for(&node, at, to) {
                    return None;
                }
                node.at = at;
                self.add(node, depth, 0, to)?;
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Anchor(..) | Event::UnresolvedAlias(_) => {}
            _ => {}
        }
        Some(())
    }

    fn open(&mut self, open: Open, at: At, anchor: usize) {
        self.stack.push(Frame { open, at, anchor, depth: 0 });
    }

    /// Puts a finished node where it belongs: into the list or map around it, or at the root.
    fn add(&mut self, node: Node, depth: usize, anchor: usize, to: &mut Report) -> Option<()> {
        if self.stack.len() + depth > DEPTH_MAX {
            to.error(
                node.at,
                "too-large",
                format!("lists and maps more than {DEPTH_MAX} deep"),
                "no setting needs this: check the indentation and the aliases",
            );
            return None;
        }
        if !self.pay(1, text_bytes(&node), node.at, to) {
            return None;
        }
        if anchor != 0 {
            if !self.pay_for(&node, node.at, to) {
                return None;
            }
            self.anchors.insert(anchor, (node.clone(), depth));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        frame.depth = frame.depth.max(depth);
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, seen, key } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Kind::Scalar { text, quoted } = node.kind else {
                        to.error(node.at, "syntax", format!("{} cannot be a key", node.what()), "keys are plain text");
                        return None;
                    };
                    if text == "<<" && !quoted {
                        to.error(node.at, "unknown-key", "merge keys (`<<`) are not supported", "write the keys out");
                        return None;
                    }
                    if !seen.insert(text.clone()) {
                        let message = format!("the key {} stands twice in one map", quote(&text));
                        to.error(node.at, "duplicate-key", message, "keep one of the two");
                    }
                    *key = Some(Key { text, at: node.at });
                }
            },
        }
        Some(())
    }

    /// Counts a copy of a whole subtree.
    fn pay_for(&mut self, node: &Node, at: At, to: &mut Report) -> bool {
        let (nodes, bytes) = size(node);
        self.pay(nodes, bytes, at, to)
    }

    fn pay(&mut self, nodes: usize, bytes: usize, at: At, to: &mut Report) -> bool {
        match (self.budget.nodes.checked_sub(nodes), self.budget.bytes.checked_sub(bytes)) {
            (Some(nodes), Some(bytes)) => {
                (self.budget.nodes, self.budget.bytes) = (nodes, bytes);
                true
            }
            (None, _) => {
                let message = format!("more than {NODES_MAX} keys and values, aliases unfolded");
                to.error(at, "too-large", message, "this is the cap for all files together");
                false
            }
            (_, None) => {
                let message = format!("more than {TEXT_BYTES_MAX} bytes of text, aliases unfolded");
                to.error(at, "too-large", message, "this is the cap for all files together");
                false
            }
        }
    }

    fn at(&self, span: &Span) -> At {
        let offset = |marker: &granit_parser::Marker| marker.byte_offset().unwrap_or(self.text.len()) as u32;
        let start = offset(&span.start);
        At { source: self.source, start, end: offset(&span.end).max(start) }
    }
}

fn text_bytes(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { text, .. } => text.len(),
        Kind::Null | Kind::List(_) | Kind::Map(_) => 0,
    }
}

/// Nodes and bytes of a subtree. Recursion is bounded by [`DEPTH_MAX`].
fn size(node: &Node) -> (usize, usize) {
    let add = |(n, b): (usize, usize), (m, c): (usize, usize)| (n + m, b + c);
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => (1, text_bytes(node)),
        Kind::List(items) => items.iter().map(size).fold((1, 0), add),
        Kind::Map(entries) => entries.iter().map(|(key, value)| add((1, key.text.len()), size(value))).fold((1, 0), add),
    }
}
