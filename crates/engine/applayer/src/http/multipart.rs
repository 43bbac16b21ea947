//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1): the files in a body, as it streams.
//!
//! A delimiter is looked for as lenient servers do: behind a line feed, with or without a carriage return before it. What may be the
//! beginning of one is held back until the next bytes tell.

use memchr::memmem::Finder;

/// Longest boundary: RFC 2046 allows 70.
const BOUNDARY_BYTES_MAX: usize = 200;
/// Header of one part.
const PART_HEADER_BYTES_MAX: usize = 8 * 1024;

/// What was found, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A part with a file name begins.
    File(&'a [u8]),
    Bytes(&'a [u8]),
    End,
    /// A part's header is longer than [`PART_HEADER_BYTES_MAX`], or has no disposition.
    InvalidHeader,
}

#[derive(Debug)]
pub(super) struct Multipart {
    /// `\n--boundary`
    delimiter: Vec<u8>,
    state: State,
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    /// Behind a delimiter: the rest of its line.
    Line,
    Header,
    /// In a part; whether it is a file.
    Body(bool),
    Epilogue,
}

impl Multipart {
    /// `None`: not multipart, or without a usable boundary.
    pub fn new(content_type: &[u8]) -> Option<Self> {
        let boundary = boundary(content_type)?;
        let delimiter = [b"\n--", boundary].concat();
        // The first delimiter may stand at the very beginning.
        Some(Self { delimiter, state: State::Preamble, held: b"\n".to_vec() })
    }

    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(Part<'_>)) {
        if self.state == State::Epilogue {
            return;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let delimiter = std::mem::take(&mut self.delimiter);
        let finder = Finder::new(&delimiter);
        let mut rest = all.as_slice();
        while let Some(after) = self.step(rest, &finder, out) {
            rest = after;
        }
        let left = rest.len();
        drop(finder);
        self.delimiter = delimiter;
        all.drain(..all.len() - left);
        self.held = all;
    }

    /// The body has ended, whole or not.
    pub fn end(&mut self, out: &mut dyn FnMut(Part<'_>)) {
        if self.state == State::Body(true) {
            let held = std::mem::take(&mut self.held);
            if !held.is_empty() {
                out(Part::Bytes(&held));
            }
            out(Part::End);
        }
        self.state = State::Epilogue;
    }

    /// Gives what is left; `None`: all that is left has to wait.
    fn step<'a>(&mut self, bytes: &'a [u8], finder: &Finder<'_>, out: &mut dyn FnMut(Part<'_>)) -> Option<&'a [u8]> {
        let delimiter_len = finder.needle().len();
        match self.state {
            State::Preamble | State::Body(_) => {
                let file = self.state == State::Body(true);
                let found = finder.find(bytes);
                // One carriage return before the delimiter is the delimiter's.
                let end = match found {
                    Some(at) => at - usize::from(at > 0 && bytes[at - 1] == b'\r'),
                    None => bytes.len().saturating_sub(delimiter_len),
                };
                if file && end > 0 {
                    out(Part::Bytes(&bytes[..end]));
                }
                match found {
                    Some(at) => {
                        if file {
                            out(Part::End);
                        }
                        self.state = State::Line;
                        Some(&bytes[at + delimiter_len..])
                    }
                    None if end > 0 => Some(&bytes[end..]),
                    None => None,
                }
            }
            State::Line => {
                if bytes.starts_with(b"--") {
                    self.state = State::Epilogue;
                    return Some(&[]);
                }
                match memchr::memchr(b'\n', bytes) {
                    // The line's end stays: a header may be empty.
                    Some(end) => {
                        self.state = State::Header;
                        Some(&bytes[end..])
                    }
                    None if bytes.len() > PART_HEADER_BYTES_MAX => Some(&bytes[bytes.len() - 1..]),
                    None => None,
                }
            }
            State::Header => {
                let blank =
                    [memchr::memmem::find(bytes, b"\n\n").map(|at| (at, 2)), memchr::memmem::find(bytes, b"\n\r\n").map(|at| (at, 3))];
                let (end, blank) = match blank.into_iter().flatten().min() {
                    Some(found) => found,
                    None if bytes.len() > PART_HEADER_BYTES_MAX => {
                        out(Part::InvalidHeader);
                        self.state = State::Body(false);
                        return Some(bytes);
                    }
                    None => return None,
                };
                let disposition = disposition(&bytes[..end]);
                let name = disposition.and_then(|value| parameter(value, b"filename"));
                match name {
                    Some(name) => out(Part::File(name)),
                    None if disposition.is_none() => out(Part::InvalidHeader),
                    None => {}
                }
                self.state = State::Body(name.is_some());
                Some(&bytes[end + blank..])
            }
            State::Epilogue => None,
        }
    }
}

/// The boundary that a `Content-Type` of `multipart/form-data` names.
fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let kind = content_type.trim_ascii_start();
    kind.get(..10).filter(|kind| kind.eq_ignore_ascii_case(b"multipart/"))?;
    parameter(kind, b"boundary").filter(|boundary| !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX)
}

/// The value of a part's `Content-Disposition`.
fn disposition(header: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"content-disposition";
    header.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].trim_ascii().eq_ignore_ascii_case(NAME).then(|| line[colon + 1..].trim_ascii())
    })
}

/// `; name=value` or `; name="value"`; quoted pairs stay as they are, as file names of some clients have backslashes.
pub(crate) fn parameter<'a>(value: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = &value[memchr::memchr(b';', value)? + 1..];
    loop {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (found, after) = match after.strip_prefix(b"=") {
            Some(after) => match after.trim_ascii_start().strip_prefix(b"\"") {
                Some(quoted) => {
                    let end = memchr::memchr(b'"', quoted).unwrap_or(quoted.len());
                    (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
                }
                None => {
                    let end = memchr::memchr(b';', after).unwrap_or(after.len());
                    (after[..end].trim_ascii(), &after[end..])
                }
            },
            None => (&[][..], after),
        };
        if name.trim_ascii().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = &after[memchr::memchr(b';', after)? + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(content_type: &[u8], body: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut files: Vec<String> = Vec::new();
        let Some(mut multipart) = Multipart::new(content_type) else { return files };
        let mut out = |part: Part<'_>| match part {
            Part::File(name) => files.push(format!("{}=", String::from_utf8_lossy(name))),
            Part::Bytes(bytes) => files.last_mut().expect("a file has begun").push_str(&String::from_utf8_lossy(bytes)),
            Part::End => files.last_mut().expect("a file has begun").push('.'),
            Part::InvalidHeader => files.push("invalid".to_owned()),
        };
        let mut rest = body;
        for cut in cuts.iter().chain(std::iter::repeat(&usize::MAX)) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).clamp(1, rest.len()));
            multipart.push(now, &mut out);
            rest = later;
        }
        multipart.end(&mut out);
        files
    }

    const TYPE: &[u8] = b"Multipart/form-data; charset=x; boundary=\"b=1\"";
    const BODY: &[u8] = b"preamble\r\n--b=1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nplain\r\n--b=1 \r\ncontent-disposition : form-data; \
name=f; filename=\"x;y.php\"\r\nContent-Type: t\r\n\r\n<?\r\n--b=2\r\n?>\r\n--b=1\nContent-Disposition: form-data; filename=z\n\n\n--b=1\r\nX: 1\r\n\r\n\
q\r\n--b=1--\r\n--b=1\r\nContent-Disposition: form-data; filename=no\r\n\r\n";

    #[test]
    fn files_are_found_by_name() {
        assert_eq!(read(TYPE, BODY, &[]), ["x;y.php=<?\r\n--b=2\r\n?>.", "z=.", "invalid"]);
        let first = b"--b\r\nContent-Disposition: a; filename=u\r\n\r\nnot ended\r\n--";
        assert_eq!(read(b"multipart/form-data;boundary=b", first, &[]), ["u=not ended\r\n--."]);
        assert_eq!(read(b"text/plain; boundary=b", first, &[]), [""; 0]);
        assert!(Multipart::new(b"multipart/form-data; boundary=").is_none());
        let long = [&first[..6], &[b'x'; 10_000]].concat();
        assert_eq!(read(b"multipart/form-data;boundary=b", &long, &[1400]), ["invalid"]);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..30, 0..60)) {
            prop_assert_eq!(read(TYPE, BODY, &cuts), read(TYPE, BODY, &[]));
        }
    }
}
