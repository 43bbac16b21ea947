//! Logical lines: physical lines joined where one ends in `\`, each byte still knowing where it came from.

use std::borrow::Cow;

use crate::Span;

/// A rule longer than this is refused: no rule of a public set comes near (the longest of 35,627 has 6 KiB).
pub(crate) const RULE_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct LogicalLine<'a> {
    pub text: Cow<'a, str>,
    /// (offset in `text`, offset in the file, line): where each physical piece begins, ascending.
    pieces: Vec<(usize, usize, u32)>,
    /// (offset in the file of the piece's line start), same order.
    line_starts: Vec<usize>,
}

impl LogicalLine<'_> {
    /// Span in the file of bytes `start..end` of `text`.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let (from, line, line_start) = self.place(start);
        // The end is the place after the last byte, not that of the byte after it: a joint may lie between.
        let to = if end > start { self.place(end - 1).0 + 1 } else { from };
        Span { start: from, end: to.max(from), line, column: (from - line_start) as u32 + 1 }
    }

    pub fn whole(&self) -> Span {
        self.span(0, self.text.len())
    }

    fn place(&self, at: usize) -> (usize, u32, usize) {
        let index = self.pieces.partition_point(|piece| piece.0 <= at).saturating_sub(1);
        let (logical, file, line) = self.pieces[index];
        (file + (at - logical), line, self.line_starts[index])
    }
}

/// Splits a file. Lines that are empty are left out.
pub(crate) fn logical_lines(text: &str) -> impl Iterator<Item = LogicalLine<'_>> {
    let mut physical = physical_lines(text).peekable();
    std::iter::from_fn(move || {
        loop {
            let (offset, number, line) = physical.next()?;
            if line.trim().is_empty() {
                continue;
            }
            let mut joined = LogicalLine { text: Cow::Borrowed(line), pieces: vec![(0, offset, number)], line_starts: vec![offset] };
            // Suricata joins only lines that do not begin as a comment.
            while !line.trim_start().starts_with('#') && joined.text.trim_end().ends_with('\\') {
                let kept = joined.text.trim_end().len() - 1;
                let Some((offset, number, next)) = physical.next() else {
                    joined.text.to_mut().truncate(kept);
                    break;
                };
                let owned = joined.text.to_mut();
                owned.truncate(kept);
                joined.pieces.push((owned.len(), offset, number));
                joined.line_starts.push(offset);
                owned.push_str(next);
            }
            return Some(joined);
        }
    })
}

fn physical_lines(text: &str) -> impl Iterator<Item = (usize, u32, &str)> {
    let mut offset = 0;
    text.split_inclusive('\n').enumerate().map(move |(index, line)| {
        let at = offset;
        offset += line.len();
        (at, index as u32 + 1, line.trim_end_matches(['\n', '\r']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_joined_line_is_a_place_in_the_file() {
        let text = "first\n\nalpha \\\n  beta\\\ngamma\nlast";
        let lines: Vec<_> = logical_lines(text).collect();
        assert_eq!(lines.len(), 3);
        let joined = &lines[1];
        assert_eq!(joined.text, "alpha   betagamma");
        let at = joined.text.find("gamma").unwrap();
        let span = joined.span(at, at + 5);
        assert_eq!(&text[span.start..span.end], "gamma");
        assert_eq!((span.line, span.column), (5, 1));
        let span = joined.span(8, 12);
        assert_eq!(&text[span.start..span.end], "beta");
        assert_eq!((span.line, span.column), (4, 3));
    }

    #[test]
    fn a_backslash_at_the_end_of_the_file_is_harmless() {
        assert_eq!(logical_lines("a \\").next().unwrap().text, "a ");
        assert_eq!(logical_lines("\\").next().unwrap().text, "");
    }
}
