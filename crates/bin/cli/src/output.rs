//! Standard output: text or JSON, colours only where a terminal shows them, and nothing in it that a terminal would obey.
//!
//! Names, images, labels and messages come from containers, and so from an attacker perhaps: every such text goes through
//! [`printable`] before it is shown.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What colours mean here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    #[default]
    Plain,
    Good,
    Bad,
    Warn,
    Head,
    Faint,
}

/// Whether colours are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style(bool);

impl Style {
    #[cfg(test)]
    pub const PLAIN: Self = Self(false);

    pub fn paint(self, text: &str, colour: Colour) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Good => "32",
            Colour::Bad => "1;31",
            Colour::Warn => "33",
            Colour::Head => "1",
            Colour::Faint => "2",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[derive(Debug)]
pub struct Out {
    stdout: BufWriter<Stdout>,
    format: Format,
    style: Style,
    terminal: bool,
}

impl Out {
    pub fn stdout(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        // <https://no-color.org>: present and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { stdout: BufWriter::new(io::stdout()), format, style: Style(terminal && !no_colour && !dumb), terminal }
    }

    pub const fn format(&self) -> Format {
        self.format
    }

    pub const fn style(&self) -> Style {
        self.style
    }

    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> Option<(usize, usize)> {
        if !self.terminal {
            return None;
        }
        terminal_size::terminal_size().map(|(columns, rows)| (usize::from(columns.0), usize::from(rows.0)))
    }

    pub fn width(&self) -> Option<usize> {
        self.size().map(|(columns, _)| columns)
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(text)?;
        self.raw("\n")
    }

    pub fn lines(&mut self, lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
        lines.into_iter().try_for_each(|line| self.line(&line))
    }

    pub fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes()).map_err(failed)
    }

    /// One object over several lines, as people and `jq` like it.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Internal(error.to_string()))?;
        self.line(&text)
    }

    /// One object on one line: for lists without end.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::Internal(error.to_string()))?;
        self.line(&text)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe { Failure::Gone } else { Failure::Output(error) }
}

/// The same text with everything replaced that moves the cursor, changes colours, hides text or turns its direction.
pub fn printable(text: &str) -> String {
    let unsafe_here =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if !text.contains(unsafe_here) {
        return text.to_owned();
    }
    text.chars().map(|c| if unsafe_here(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(printable("web\x1b[2J\r\n"), "web\\u{1b}[2J\\u{d}\\u{a}");
        assert_eq!(printable("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
        assert_eq!(printable("straße 网络"), "straße 网络");
    }

    #[test]
    fn colours_are_written_only_where_wanted() {
        assert_eq!(Style::PLAIN.paint("x", Colour::Bad), "x");
        assert_eq!(Style(true).paint("x", Colour::Good), "\x1b[32mx\x1b[0m");
        assert_eq!(Style(true).paint("x", Colour::Plain), "x");
    }
}
