//! A mail as it streams (RFC 5322, RFC 2045 to 2047): the fields of its header, and the files in it without their encodings.
//!
//! Parts within parts are followed [`DEPTH_MAX`] deep, mails within mails as parts without a boundary. What is wrong is an event, and
//! what can be read is read on: a mail program would do so too.

use crate::http::parameter;

/// Boundaries that are open at the same time.
const DEPTH_MAX: usize = 16;
/// The header of a mail or part.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A longer line is read in pieces of this size.
const LINE_BYTES_MAX: usize = 4096;
const BOUNDARY_BYTES_MAX: usize = 254;
/// RFC 5322, section 2.1.1; RFC 2045, section 6.8. Longer ones are events.
const LONG_LINE_BYTES: usize = 998;
const LONG_CODED_LINE_BYTES: usize = 76;
/// Of a file's name; the rest is cut off.
const NAME_BYTES_MAX: usize = 255;
const NAME_PIECES_MAX: usize = 16;

/// What was found, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A field of the mail's own header, its value on one line.
    Field {
        name: &'a [u8],
        value: &'a [u8],
    },
    /// A part with a name begins.
    File(&'a [u8]),
    Bytes(&'a [u8]),
    End,
    /// A line of a part without a name that is text.
    Text(&'a [u8]),
    Event(&'static str),
}

pub(super) type Out<'a> = &'a mut dyn FnMut(Found<'_>);

#[derive(Debug, Default)]
pub(super) struct Mail {
    /// A line that is not complete.
    held: Vec<u8>,
    /// The rest of a line is coming of which pieces were read.
    within: bool,
    state: State,
    /// Not of the mail itself.
    nested: bool,
    header: Vec<u8>,
    boundaries: Vec<Vec<u8>>,
    encoding: Encoding,
    /// The line end before the next line, which is the boundary's if that is one.
    line_end: &'static [u8],
    base64: Base64,
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Header,
    /// Of a part that is a file.
    File,
    /// Of one that is text and no file.
    Text,
    /// Of another, or between parts.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Encoding {
    #[default]
    Plain,
    Base64,
    QuotedPrintable,
}

/// Bits that do not make a byte yet.
#[derive(Debug, Clone, Copy, Default)]
struct Base64 {
    bits: u32,
    count: u32,
}

impl Mail {
    pub fn push(&mut self, bytes: &[u8], out: Out<'_>) {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        loop {
            let piece = memchr::memchr(b'\n', &rest[..rest.len().min(LINE_BYTES_MAX)]);
            let (line, end, after): (_, &'static [u8], _) = match piece {
                Some(at) if at > 0 && rest[at - 1] == b'\r' => (&rest[..at - 1], b"\r\n", &rest[at + 1..]),
                Some(at) => (&rest[..at], b"\n", &rest[at + 1..]),
                // The last byte waits: it may belong to the line's end.
                None if rest.len() > LINE_BYTES_MAX => (&rest[..LINE_BYTES_MAX - 1], b"", &rest[LINE_BYTES_MAX - 1..]),
                None => break,
            };
            rest = after;
            self.line(line, end, out);
        }
        let left = rest.len();
        held.drain(..held.len() - left);
        self.held = held;
    }

    pub fn end(&mut self, out: Out<'_>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.line(&held, b"", out);
        }
        if self.state == State::Header {
            self.header_ended(out);
        }
        if self.state == State::File {
            out(Found::End);
        }
        self.state = State::Other;
    }

    /// A line, or a piece of a long one (`end` is empty then).
    fn line(&mut self, line: &[u8], end: &'static [u8], out: Out<'_>) {
        let starts = !std::mem::replace(&mut self.within, end.is_empty());
        if starts && line.starts_with(b"--") && self.boundary(&line[2..], out) {
            return;
        }
        if line.len() > LONG_LINE_BYTES {
            out(Found::Event("smtp.mime_long_line"));
        }
        match self.state {
            State::Header if starts && line.is_empty() => self.header_ended(out),
            State::Header if self.header.len() + line.len() > HEADER_BYTES_MAX => out(Found::Event("smtp.mime_long_header_value")),
            State::Header => {
                self.header.extend_from_slice(line);
                if !end.is_empty() {
                    self.header.push(b'\n');
                }
            }
            State::File | State::Text => self.content(line, end, out),
            State::Other => {}
        }
    }

    /// Whether the line is a boundary that is open.
    fn boundary(&mut self, line: &[u8], out: Out<'_>) -> bool {
        let Some(level) = self.boundaries.iter().rposition(|boundary| line.starts_with(boundary)) else { return false };
        let closes = line[self.boundaries[level].len()..].starts_with(b"--");
        if self.state == State::File {
            out(Found::End);
        }
        if self.state == State::Header && !self.header.is_empty() {
            self.header.clear();
            out(Found::Event("smtp.mime_malformed_msg"));
        }
        self.boundaries.truncate(if closes { level } else { level + 1 });
        self.nested = true;
        self.state = if closes { State::Other } else { State::Header };
        true
    }

    fn header_ended(&mut self, out: Out<'_>) {
        let header = std::mem::take(&mut self.header);
        let mut content_type = None;
        let mut disposition = None;
        self.encoding = Encoding::Plain;
        fields(&header, |name, value| {
            if !self.nested {
                out(Found::Field { name, value });
            }
            if name.eq_ignore_ascii_case(b"content-type") {
                content_type = Some(value.to_vec());
            } else if name.eq_ignore_ascii_case(b"content-disposition") {
                disposition = Some(value.to_vec());
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                let value = value.trim_ascii();
                if value.eq_ignore_ascii_case(b"base64") {
                    self.encoding = Encoding::Base64;
                } else if value.eq_ignore_ascii_case(b"quoted-printable") {
                    self.encoding = Encoding::QuotedPrintable;
                }
            }
        });
        self.header = header;
        self.header.clear();
        self.line_end = b"";
        self.base64 = Base64::default();
        let kind = content_type.as_deref().unwrap_or_default();
        if let Some(boundary) = parameter(kind, b"boundary").filter(|boundary| !boundary.is_empty()) {
            self.state = State::Other;
            if boundary.len() > BOUNDARY_BYTES_MAX {
                out(Found::Event("smtp.mime_long_boundary"));
            } else if self.boundaries.len() < DEPTH_MAX {
                self.boundaries.push(boundary.to_vec());
            } else {
                out(Found::Event("smtp.mime_malformed_msg"));
            }
            return;
        }
        let named = disposition.as_deref().and_then(|value| continued(value, b"filename")).or_else(|| continued(kind, b"name"));
        let is_mail = kind.trim_ascii_start().get(..14).is_some_and(|kind| kind.eq_ignore_ascii_case(b"message/rfc822"));
        if is_mail {
            // Another header, which is not the mail's own. A name that it has is told of, and its parts are the files.
            if let Some(name) = named {
                out(Found::File(&name[..name.len().min(NAME_BYTES_MAX)]));
                out(Found::End);
            }
            (self.nested, self.state) = (true, State::Header);
            return;
        }
        match named {
            Some(mut name) => {
                if name.len() > NAME_BYTES_MAX {
                    name.truncate(NAME_BYTES_MAX);
                    out(Found::Event("smtp.mime_long_filename"));
                }
                out(Found::File(&name));
                self.state = State::File;
            }
            None => {
                let is_text = kind.is_empty() || kind.trim_ascii_start().get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/"));
                self.state = if is_text { State::Text } else { State::Other };
            }
        }
    }

    /// The mail's own header is over.
    pub fn in_body(&self) -> bool {
        self.nested || self.state != State::Header
    }

    fn content(&mut self, line: &[u8], end: &'static [u8], out: Out<'_>) {
        self.text.clear();
        if self.encoding != Encoding::Plain && line.len() > LONG_CODED_LINE_BYTES {
            out(Found::Event("smtp.mime_long_enc_line"));
        }
        match self.encoding {
            Encoding::Plain => {
                self.text.extend_from_slice(self.line_end);
                self.text.extend_from_slice(line);
                self.line_end = end;
            }
            Encoding::Base64 => {
                for byte in line {
                    let digit = match byte {
                        b'A'..=b'Z' => byte - b'A',
                        b'a'..=b'z' => byte - b'a' + 26,
                        b'0'..=b'9' => byte - b'0' + 52,
                        b'+' => 62,
                        b'/' => 63,
                        // Padding, and what several encoded texts in a row have between them.
                        b'=' => {
                            self.base64 = Base64::default();
                            continue;
                        }
                        b' ' | b'\t' | b'\r' => continue,
                        _ => {
                            out(Found::Event("smtp.mime_invalid_base64"));
                            continue;
                        }
                    };
                    let Base64 { bits, count } = &mut self.base64;
                    *bits = *bits << 6 | u32::from(digit);
                    *count += 6;
                    if *count >= 8 {
                        *count -= 8;
                        self.text.push((*bits >> *count) as u8);
                    }
                }
            }
            Encoding::QuotedPrintable => {
                self.text.extend_from_slice(self.line_end);
                self.line_end = end;
                let line = if end.is_empty() { line } else { line.trim_ascii_end() };
                let mut rest = line;
                while let Some((byte, after)) = rest.split_first() {
                    let digit = |at: usize| after.get(at).and_then(|digit| (*digit as char).to_digit(16));
                    match (byte, digit(0), digit(1)) {
                        (b'=', Some(high), Some(low)) => {
                            self.text.push((high << 4 | low) as u8);
                            rest = &after[2..];
                        }
                        // The line goes on in the next.
                        (b'=', None, None) if after.is_empty() => {
                            self.line_end = b"";
                            rest = after;
                        }
                        (byte, ..) => {
                            if *byte == b'=' {
                                out(Found::Event("smtp.mime_invalid_qp"));
                            }
                            self.text.push(*byte);
                            rest = after;
                        }
                    }
                }
            }
        }
        match self.state {
            _ if self.text.is_empty() => {}
            State::File => out(Found::Bytes(&self.text)),
            State::Text => out(Found::Text(&self.text)),
            State::Header | State::Other => {}
        }
    }
}

/// A parameter, also one in pieces: `name*0=a; name*1=b` (RFC 2231, section 3), or with a character set: `name*=utf-8''a`.
fn continued(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    if let Some(found) = parameter(value, name) {
        return Some(found.to_vec());
    }
    if let Some(found) = parameter(value, &[name, b"*"].concat()) {
        return Some(found.to_vec());
    }
    let mut whole: Option<Vec<u8>> = None;
    for piece in 0..NAME_PIECES_MAX {
        let key = [name, format!("*{piece}").as_bytes()].concat();
        let Some(found) = parameter(value, &key).or_else(|| parameter(value, &[&key, &b"*"[..]].concat())) else { break };
        whole.get_or_insert_default().extend_from_slice(found);
    }
    whole
}

/// Each field's name and its value, unfolded to one line.
fn fields(header: &[u8], mut found: impl FnMut(&[u8], &[u8])) {
    let mut lines = header.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let mut value = line[colon + 1..].trim_ascii().to_vec();
        while let Some(more) = lines.next_if(|line| line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))) {
            // As the reference engine joins them.
            value.extend_from_slice(more.trim_ascii());
        }
        found(line[..colon].trim_ascii(), &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(mail: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut file = false;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let mut out = |found: Found<'_>| match found {
            Found::Field { name, value } => all.push(format!("{}={}", text(name), text(value))),
            Found::File(name) => {
                file = true;
                all.push(format!("file {}: ", text(name)));
            }
            Found::Bytes(bytes) => {
                assert!(file);
                all.iter_mut().rev().find(|line| line.starts_with("file ")).expect("a file has begun").push_str(&text(bytes));
            }
            Found::End => file = false,
            Found::Text(_) => {}
            Found::Event(event) => {
                if all.last().is_none_or(|last| last != event) {
                    all.push(event.to_owned());
                }
            }
        };
        let mut reader = Mail::default();
        let mut rest = mail;
        for cut in cuts.iter().cycle().chain(std::iter::repeat(&usize::MAX)) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).clamp(1, rest.len()));
            reader.push(now, &mut out);
            rest = later;
        }
        reader.end(&mut out);
        all
    }

    const MAIL: &[u8] = b"From: a\r\nSubject: one\r\n\ttwo\r\nContent-Type: multipart/mixed;\r\n boundary=\"out\"\r\n\r\npreamble\r\n\
--out\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\ntext\r\n--in--\r\n\
--out\r\nContent-Type: application/x; name=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8g\r\nd29ybGQ=\r\n\
--out\r\nContent-Disposition: attachment; filename=b.txt\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3Chtml=\r\n> x=20\r\nend\r\n\
--out\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Disposition: attachment; filename=c\r\n\r\nraw\r\nlines\r\n\r\n--out--\r\nrest\r\n";

    #[test]
    fn fields_and_files_are_found() {
        assert_eq!(
            read(MAIL, &[]),
            [
                "From=a",
                "Subject=onetwo",
                "Content-Type=multipart/mixed;boundary=\\\"out\\\"",
                "file a.bin: hello world",
                "file b.txt: <html> x \\r\\nend",
                "file c: raw\\r\\nlines\\r\\n",
            ]
        );
        let wrong = b"Content-Disposition: x; filename=f\nContent-Transfer-Encoding: base64\n\nYQ==\n*Yg==";
        assert_eq!(
            read(wrong, &[]),
            ["Content-Disposition=x; filename=f", "Content-Transfer-Encoding=base64", "file f: ab", "smtp.mime_invalid_base64"]
        );
        let named = b"Content-Disposition: x;\n filename*0=\"a b\";\n filename*1=c.exe\n\nx";
        assert_eq!(read(named, &[])[1], "file a bc.exe: x");
        let long = [&b"Content-Type: x; name="[..], &[b'n'; 300], b"\n\nx"].concat();
        assert_eq!(read(&long, &[])[1..], ["smtp.mime_long_filename".to_owned(), format!("file {}: x", "n".repeat(255))]);
        let deep: Vec<u8> =
            (0..20).flat_map(|n| format!("Content-Type: multipart/x; boundary=b{n:02}\n\n--b{n:02}\n").into_bytes()).collect();
        assert_eq!(read(&deep, &[]).last().map(String::as_str), Some("smtp.mime_malformed_msg"));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..40)) {
            prop_assert_eq!(read(MAIL, &cuts), read(MAIL, &[]));
        }

        #[test]
        fn cuts_of_long_lines_do_not_matter(cuts in prop::collection::vec(1_usize..3000, 1..9), len in 4000_usize..9000, end in 0..3) {
            let end: &[u8] = [&b"\r\n"[..], b"\n", b""][end as usize];
            let mail = [&b"Content-Disposition: x; filename=f\n\n"[..], &vec![b'x'; len], end, b"y\r\n"].concat();
            prop_assert_eq!(read(&mail, &cuts), read(&mail, &[]));
        }

        #[test]
        fn any_bytes_are_read(at in 0_usize..800, noise in "[-=:;a\r\n\"]{0,80}") {
            let mut mail = MAIL.to_vec();
            let at = at.min(mail.len());
            mail.splice(at..at, noise.into_bytes());
            prop_assert_eq!(read(&mail, &[3]), read(&mail, &[]));
        }
    }
}
