//! Columns that line up.

use crate::output::{Colour, Style, printable};

/// Spaces between columns.
const GAP: usize = 2;
/// A column is cut to this when the terminal's width is not known.
const COLUMN_CHARS_MAX: usize = 120;

#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    colour: Colour,
    right: bool,
}

impl Cell {
    /// Left-aligned; made printable.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), ..Self::default() }
    }

    /// Right-aligned.
    pub fn number(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::new(text) }
    }

    #[must_use]
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

#[derive(Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(head: impl IntoIterator<Item = &'static str>) -> Self {
        Self { head: head.into_iter().collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Lines without trailing blanks. With a width, the last column is cut to fit, then the widest.
    pub fn render(&self, style: Style, width: Option<usize>) -> Vec<String> {
        let mut widths: Vec<usize> = self.head.iter().map(|text| text.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count()).min(COLUMN_CHARS_MAX);
            }
        }
        if let Some(width) = width {
            shrink(&mut widths, width);
        }
        let right = |at: usize| self.rows.first().and_then(|row| row.get(at)).is_some_and(|cell| cell.right);
        let head: Vec<Cell> = self
            .head
            .iter()
            .enumerate()
            .map(|(at, text)| Cell { text: (*text).to_owned(), colour: Colour::Faint, right: right(at) })
            .collect();
        std::iter::once(&head)
            .filter(|head| head.iter().any(|cell| !cell.text.is_empty()))
            .chain(&self.rows)
            .map(|row| line(row, &widths, style))
            .collect()
    }
}

fn line(row: &[Cell], widths: &[usize], style: Style) -> String {
    let mut line = String::new();
    let last = row.iter().rposition(|cell| !cell.text.is_empty());
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        if last.is_none_or(|last| at > last) {
            break;
        }
        if at > 0 {
            line.push_str(&" ".repeat(GAP));
        }
        let text = cut(&cell.text, *width);
        let blanks = " ".repeat(width.saturating_sub(text.chars().count()));
        if cell.right {
            line.push_str(&blanks);
        }
        line.push_str(&style.paint(&text, cell.colour));
        if !cell.right && Some(at) != last {
            line.push_str(&blanks);
        }
    }
    line
}

/// No longer than `chars`, with a sign that something is missing.
pub fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(chars.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Takes from the last column down to 20, then from the widest, until all fit.
fn shrink(widths: &mut [usize], width: usize) {
    const LAST_CHARS_MIN: usize = 20;
    const CHARS_MIN: usize = 4;
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    if let Some(excess) = total(widths).checked_sub(width)
        && let Some(last) = widths.last_mut()
        && *last > LAST_CHARS_MIN
    {
        *last = last.saturating_sub(excess).max(LAST_CHARS_MIN);
    }
    while total(widths) > width {
        let Some(widest) = widths.iter_mut().max() else { return };
        if *widest <= CHARS_MIN {
            return;
        }
        *widest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "BYTES", "WORDS"]);
        table.row(["web".into(), Cell::number("12"), "a long sentence about nothing".into()]);
        table.row(["a-long-name".into(), Cell::number("12345678"), Cell::default()]);
        table
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let lines = table().render(Style::PLAIN, None);
        assert_eq!(
            lines,
            ["NAME            BYTES  WORDS", "web                12  a long sentence about nothing", "a-long-name  12345678"]
        );
    }

    #[test]
    fn what_does_not_fit_is_cut_and_marked() {
        for width in [0, 1, 10, 30, 50] {
            for line in table().render(Style::PLAIN, Some(width)) {
                assert!(line.chars().count() <= width.max(3 * 4 + 2 * GAP), "{width}: {line}");
            }
        }
        assert_eq!(table().render(Style::PLAIN, Some(45))[1], "web                12  a long sentence about…");
    }

    #[test]
    fn a_cell_cannot_break_the_line() {
        let mut table = Table::new(["X"]);
        table.row([Cell::new("a\nb\x1b[31m")]);
        assert_eq!(table.render(Style::PLAIN, None)[1], "a\\u{a}b\\u{1b}[31m");
    }
}
