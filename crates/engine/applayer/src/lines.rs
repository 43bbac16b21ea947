//! Lines of text protocols (SMTP, FTP): each ends at a line feed, and one that is too long is given once, cut.

use crate::protocol::Probe;

/// The reader of one direction.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The rest of a line that was given already.
    skipping: bool,
    /// Bytes that hold no line feed.
    scanned: usize,
}

pub(crate) enum Line<'a> {
    /// Without its end; `long`: only its beginning.
    Whole { text: &'a [u8], long: bool },
    /// The rest of a long one.
    Rest,
}

impl Lines {
    /// The next line and the bytes it takes. `None`: it goes on.
    pub fn next<'a>(&mut self, bytes: &'a [u8], bytes_max: usize) -> Option<(Line<'a>, usize)> {
        let from = self.scanned.min(bytes.len());
        let end = memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at);
        self.scanned = 0;
        if self.skipping {
            self.skipping = end.is_none();
            let taken = end.map_or(bytes.len(), |end| end + 1);
            return (taken > 0).then_some((Line::Rest, taken));
        }
        match end {
            Some(end) if end <= bytes_max => {
                let text = &bytes[..end];
                Some((Line::Whole { text: text.strip_suffix(b"\r").unwrap_or(text), long: false }, end + 1))
            }
            None if bytes.len() <= bytes_max => {
                self.scanned = bytes.len();
                None
            }
            _ => {
                self.skipping = true;
                Some((Line::Whole { text: &bytes[..bytes_max], long: true }, bytes_max))
            }
        }
    }
}

/// Lines before the one that tells.
const PROBE_LINES_MAX: usize = 8;
/// Letters of a command.
const WORD_BYTES_MAX: usize = 12;

/// Looks for a line that `tells`, behind a few others that begin with a word: a server answers what it does not know, and goes on.
pub(crate) fn probe_commands(bytes: &[u8], tells: impl Fn(&[u8], &[u8]) -> bool) -> Probe {
    let mut rest = bytes;
    for _ in 0..PROBE_LINES_MAX {
        let letters = rest.iter().take(WORD_BYTES_MAX + 1).take_while(|byte| byte.is_ascii_alphabetic()).count();
        let behind = rest.get(letters);
        if letters > WORD_BYTES_MAX || behind.is_some_and(|byte| letters == 0 || !byte.is_ascii_whitespace()) {
            return Probe::No;
        }
        let end = memchr::memchr(b'\n', rest);
        let (word, argument) = command(&rest[..end.unwrap_or(rest.len())]);
        // A word that may go on does not tell.
        if behind.is_some() && tells(&word.to_ascii_uppercase(), argument) {
            return Probe::Yes;
        }
        let Some(end) = end else { return Probe::More };
        rest = &rest[end + 1..];
    }
    Probe::No
}

/// `220`: mail or files; the client's first words tell.
pub(crate) fn probe_greeting(bytes: &[u8]) -> Probe {
    let len = bytes.len().min(3);
    if bytes[..len] == b"220"[..len] { Probe::More } else { Probe::No }
}

/// `250-text`: the code, whether further lines follow, the text.
pub(crate) fn reply(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, false, rest)),
        Some((b' ', text)) => Some((code, false, text)),
        Some((b'-', text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

/// A line's first word and the rest without blanks around it.
pub(crate) fn command(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_cap() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        let mut rest: &[u8] = b"one\r\n0123456789abc\ntwo\nthr";
        while let Some((line, taken)) = lines.next(rest, 8) {
            if let Line::Whole { text, long } = line {
                all.push((String::from_utf8_lossy(text).into_owned(), long));
            }
            rest = &rest[taken..];
        }
        assert_eq!(all, [("one".to_owned(), false), ("01234567".to_owned(), true), ("two".to_owned(), false)]);
        assert_eq!(rest, b"thr");
    }

    #[test]
    fn the_line_that_tells_may_not_be_the_first() {
        let probe = |text: &[u8]| probe_commands(text, |word, argument| word == b"EHLO" && !argument.is_empty());
        assert_eq!((probe(b"ehlo x\r\n"), probe(b"NOOP\r\nWhat is it\r\nEHLO x\n"), probe(b"EHLO")), (Probe::Yes, Probe::Yes, Probe::More));
        assert_eq!(
            (probe(b"\x16\x03"), probe(b"GET/x"), probe(b"ABCDEFGHIJKLM"), probe(&b"A\n".repeat(9))),
            (Probe::No, Probe::No, Probe::No, Probe::No)
        );
    }

    #[test]
    fn replies_and_commands_are_taken_apart() {
        assert_eq!(reply(b"250-a b"), Some((250, true, &b"a b"[..])));
        assert_eq!(reply(b"354"), Some((354, false, &b""[..])));
        assert_eq!((reply(b"25"), reply(b"25x y"), reply(b"250x")), (None, None, None));
        assert_eq!(command(b" RETR  a b "), (&b"RETR"[..], &b"a b"[..]));
    }
}
