//! YAML text to a plain tree: Suricata's configuration files and the descriptions of its test cases.
//!
//! Caps hold for what a file unfolds to; a key that stands twice counts as it stood last, as Suricata reads it. A value with the tag
//! `!include` is kept apart, for who can open files.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser};

/// Bytes of one file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Keys and values of one file, aliases unfolded.
pub const NODES_MAX: usize = 100_000;
/// Lists and maps within one another.
pub const DEPTH_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    Null,
    /// As written; `quoted` says that it cannot be meant as a number or a word of the language.
    Text {
        text: String,
        quoted: bool,
    },
    /// Another file stands here.
    Include(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not valid YAML: {0}")]
    Syntax(String),
    #[error("too large: more than {0}")]
    TooLarge(&'static str),
}

impl Yaml {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().rev().find(|(of, _)| of == key).map(|(_, value)| value),
            Self::Null | Self::Text { .. } | Self::Include(_) | Self::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Null | Self::Include(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The items of a list; of anything else none.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Null | Self::Text { .. } | Self::Include(_) | Self::Map(_) => &[],
        }
    }

    /// Keys and values of a map; of anything else none.
    pub fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Map(entries) => entries,
            Self::Null | Self::Text { .. } | Self::Include(_) | Self::List(_) => &[],
        }
    }

    fn nodes(&self) -> usize {
        match self {
            Self::Null | Self::Text { .. } | Self::Include(_) => 1,
            Self::List(items) => 1 + items.iter().map(Self::nodes).sum::<usize>(),
            Self::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + value.nodes()).sum::<usize>(),
        }
    }
}

/// Reads the first document of a text. An empty text is [`Yaml::Null`].
pub fn read(text: &str) -> Result<Yaml, Refused> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Refused::TooLarge("1 MiB"));
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        disallow_directives: false,
    };
    let mut builder = Builder { stack: Vec::new(), anchors: BTreeMap::new(), root: None, left: NODES_MAX };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, _) = event.map_err(|error| Refused::Syntax(error.info().lines().next().unwrap_or("it cannot be read").to_owned()))?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.event(event)?;
    }
    Ok(builder.root.unwrap_or(Yaml::Null))
}

struct Builder {
    stack: Vec<(Open, usize)>,
    anchors: BTreeMap<usize, Yaml>,
    root: Option<Yaml>,
    /// Nodes that may still come.
    left: usize,
}

enum Open {
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>, Option<String>),
}

impl Builder {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        let included = event.tag().is_some_and(|tag| tag.original().contains("include"));
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != granit_parser::ScalarStyle::Plain;
                let null = !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let node = match () {
                    () if included => Yaml::Include(text.into_owned()),
                    () if null => Yaml::Null,
                    () => Yaml::Text { text: text.into_owned(), quoted },
                };
                self.add(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Open::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => self.open(Open::Map(Vec::new(), None), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some((Open::List(items), anchor)) => self.add(Yaml::List(items), anchor),
                Some((Open::Map(entries, _), anchor)) => self.add(Yaml::Map(entries), anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| Refused::Syntax("an alias without its anchor".to_owned()))?;
                self.pay(node.nodes())?;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open, anchor: usize) -> Result<(), Refused> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(Refused::TooLarge("32 lists and maps within one another"));
        }
        self.stack.push((open, anchor));
        Ok(())
    }

    fn add(&mut self, node: Yaml, anchor: usize) -> Result<(), Refused> {
        self.pay(1)?;
        if anchor != 0 {
            self.pay(node.nodes())?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), _)) => items.push(node),
            Some((Open::Map(entries, key), _)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Yaml::Text { text, .. } = node else { return Err(Refused::Syntax("a key that is no text".to_owned())) };
                    *key = Some(text);
                }
            },
        }
        Ok(())
    }

    fn pay(&mut self, nodes: usize) -> Result<(), Refused> {
        self.left = self.left.checked_sub(nodes).ok_or(Refused::TooLarge("100,000 keys and values"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_tree_and_what_unfolds_without_end_is_refused() {
        let tree = read("%YAML 1.1\n---\na: &x [1, 'two']\nb: *x\nc: !include other.yaml\na: {d: }\n").unwrap();
        assert_eq!(tree.get("b").unwrap().items().len(), 2);
        assert_eq!(tree.get("c"), Some(&Yaml::Include("other.yaml".to_owned())));
        assert_eq!(tree.get("a").unwrap().get("d"), Some(&Yaml::Null));
        let bomb: String = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
        assert_eq!(read(&bomb), Err(Refused::TooLarge("100,000 keys and values")));
        assert!(matches!(read(&"[".repeat(100)), Err(Refused::Syntax(_) | Refused::TooLarge(_))));
        assert!(read("a: [1").is_err());
    }
}
