//! What is wrong with a configuration, where, and how to put it right. Every mistake that can be found in one pass
//! is reported in that pass; the reader sees the line itself, with the place marked, as compilers show it:
//!
//! ```text
//! error[unknown-key]: unknown key `stream-dept` in `inspect`
//!   --> bulkhead.yaml:12:3
//!    |
//! 12 |   stream-dept: 1 MiB
//!    |   ^^^^^^^^^^^
//!    = help: did you mean `stream-depth`?
//! ```

use std::fmt;

use serde::Serialize;

/// Mistakes reported at most; those after it are counted only.
pub const DIAGNOSTICS_MAX: usize = 64;

/// Columns of a line shown in a snippet, at most.
const SNIPPET_COLUMNS_MAX: usize = 160;

/// Characters of the user's own text repeated in a message, at most.
const QUOTE_CHARS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused as a whole.
    Error,
    /// It is accepted, and probably not what was meant.
    Warning,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable, kebab-case: `syntax`, `unknown-key`, `wrong-type`, `bad-value`, `out-of-range`, `missing-key`,
    /// `duplicate-key`, `conflict`, `too-large`, `unreachable`.
    pub code: &'static str,
    /// The name of the source, as given to [`crate::parse`]: usually a path.
    pub source: String,
    /// From 1. 0 when the mistake has no single place.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    pub message: String,
    /// How to put it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line itself, control characters made visible.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snippet: String,
    /// Characters marked in the snippet from `column` on.
    #[serde(skip)]
    pub width: u32,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        if self.line == 0 {
            writeln!(f, "{gutter}--> {}", self.source)?;
        } else {
            writeln!(f, "{gutter}--> {}:{}:{}", self.source, self.line, self.column)?;
        }
        if !self.snippet.is_empty() {
            let before = " ".repeat(self.column.saturating_sub(1) as usize);
            let marks = "^".repeat(self.width.max(1) as usize);
            writeln!(f, "{gutter} |\n{number} | {}\n{gutter} | {before}{marks}", self.snippet)?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// All of them, one after the other, and a count: what the command line prints.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&diagnostic.to_string());
        text.push('\n');
    }
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    text.push_str(&match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "no mistakes\n".to_owned(),
        (0, warnings) => format!("{}\n", plural(warnings, "warning")),
        (errors, 0) => format!("{}; nothing was applied\n", plural(errors, "error")),
        (errors, warnings) => format!("{}, {}; nothing was applied\n", plural(errors, "error"), plural(warnings, "warning")),
    });
    text
}

/// A run of bytes in one of the sources. `start <= end`; both may lie past the end of the text, which is then its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct At {
    pub source: u16,
    pub start: u32,
    pub end: u32,
}

/// Collects mistakes while a configuration is read.
pub(crate) struct Report<'a> {
    sources: &'a [crate::Source],
    /// Where each line of each source starts.
    lines: Vec<Vec<u32>>,
    found: Vec<(At, Diagnostic)>,
    /// Mistakes past [`DIAGNOSTICS_MAX`].
    uncounted: usize,
}

impl<'a> Report<'a> {
    pub fn new(sources: &'a [crate::Source]) -> Self {
        let starts = |text: &str| {
            let after_newline = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at as u32 + 1);
            std::iter::once(0).chain(after_newline).collect()
        };
        let lines = sources.iter().map(|s| if s.text.len() > crate::FILE_BYTES_MAX { Vec::new() } else { starts(&s.text) }).collect();
        Self { sources, lines, found: Vec::new(), uncounted: 0 }
    }

    pub fn error(&mut self, at: At, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, at, code, message.into(), help.into());
    }

    fn push(&mut self, severity: Severity, at: At, code: &'static str, message: String, help: String) {
        // The same place is read twice: once alone, once merged with the other files.
        if self.found.iter().any(|(where_, d)| *where_ == at && d.message == message) {
            return;
        }
        if self.found.len() >= DIAGNOSTICS_MAX {
            self.uncounted += 1;
            return;
        }
        let place = self.place(at);
        let help = (!help.is_empty()).then_some(help);
        let diagnostic = Diagnostic {
            severity,
            code,
            source: place.source,
            line: place.line,
            column: place.column,
            message,
            help,
            snippet: place.snippet,
            width: place.width,
        };
        self.found.push((at, diagnostic));
    }

    /// Name, line and column of a place.
    pub fn origin(&self, at: At) -> crate::Origin {
        let place = self.place(at);
        crate::Origin { source: place.source, line: place.line, column: place.column }
    }

    pub fn has_errors(&self) -> bool {
        !self.found.is_empty()
    }

    /// In the order of the sources and their lines.
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(at, _)| *at);
        let mut all: Vec<Diagnostic> = self.found.into_iter().map(|(_, d)| d).collect();
        if self.uncounted > 0
            && let Some(last) = all.last()
        {
            all.push(Diagnostic {
                severity: Severity::Error,
                code: "too-large",
                source: last.source.clone(),
                line: 0,
                column: 0,
                message: format!("more mistakes than the {DIAGNOSTICS_MAX} shown"),
                help: Some("put these right first".to_owned()),
                snippet: String::new(),
                width: 0,
            });
        }
        all
    }

    fn place(&self, at: At) -> Place {
        let (Some(source), Some(lines)) = (self.sources.get(usize::from(at.source)), self.lines.get(usize::from(at.source))) else {
            return Place { source: "configuration".to_owned(), ..Place::default() };
        };
        if lines.is_empty() {
            return Place { source: source.name.clone(), ..Place::default() };
        }
        let text = source.text.as_str();
        let start = floor_boundary(text, at.start as usize);
        let line = lines.partition_point(|line_start| *line_start as usize <= start).max(1);
        let line_start = lines[line - 1] as usize;
        let line_end = lines.get(line).map_or(text.len(), |next| *next as usize - 1);
        let end = floor_boundary(text, (at.end as usize).max(start)).clamp(start, line_end.max(start));
        let column = text[line_start..start].chars().count() + 1;
        // A mark past the columns that are shown would mark nothing.
        let (snippet, width) = if column < SNIPPET_COLUMNS_MAX {
            let shown: String = text[line_start..line_end].trim_end().chars().take(SNIPPET_COLUMNS_MAX).map(visible).collect();
            let width = text[start..end].trim_end().chars().count().clamp(1, SNIPPET_COLUMNS_MAX - column);
            (shown, width)
        } else {
            (String::new(), 0)
        };
        Place { source: source.name.clone(), line: line as u32, column: column as u32, snippet, width: width as u32 }
    }
}

#[derive(Default)]
struct Place {
    source: String,
    line: u32,
    column: u32,
    snippet: String,
    width: u32,
}

/// The user's own text as it may stand in a message: in backticks, shortened, nothing that drives a terminal.
pub(crate) fn quote(text: &str) -> String {
    if text.is_empty() {
        return "the empty text".to_owned();
    }
    let mut shown: String = text.chars().take(QUOTE_CHARS_MAX).map(visible).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Tabs keep their one column; escapes, direction marks and the like are replaced.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
