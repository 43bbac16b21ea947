//! HTTP/1.1 client for the sockets of Docker and Podman: one `GET` per connection, everything capped.
//!
//! A client of our own, because the engine at the other end is not trusted to be well: the usual
//! client crates collect a body of any size before anybody can look at it, wait for ever, and bring
//! an async runtime. Here each read has a deadline, head and body have caps, and nothing is held
//! but one 16 KiB buffer. Source: RFC 9112 (HTTP/1.1), RFC 9110.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::socket::{Error, remaining};

/// Bytes of the status line and header fields.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one chunk-size line, or one trailer line.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Bytes of trailer fields.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;
/// Bytes of an error answer that are kept for the message.
const ERROR_BODY_BYTES_MAX: usize = 512;

/// The head of a `200` answer and the way to its body.
pub(crate) struct Response {
    connection: Connection,
    framing: Framing,
}

/// How the body's end is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// A size line comes next.
    Size,
    /// Bytes of the chunk still to come.
    Data(u64),
    /// The line end behind a chunk comes next.
    DataEnd,
    /// Trailer fields; how many bytes of them so far.
    Trailer(usize),
}

/// Asks for `target` and reads the head. `deadline` bounds the time until the head is there.
/// Another status than 200 is [`Error::Status`] with the start of the body.
pub(crate) fn get(stream: UnixStream, target: &str, deadline: Instant) -> Result<Response, Error> {
    debug_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "targets are made by us");
    let mut connection = Connection { stream, buffer: Vec::new(), at: 0, closed: false };
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bulkhead\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    );
    connection.stream.set_write_timeout(Some(remaining(deadline)?)).map_err(|error| Error::of(&error))?;
    connection.stream.write_all(request.as_bytes()).map_err(|error| Error::of(&error))?;
    loop {
        let head = connection.head(deadline)?;
        let (code, header_fields) = parse_head(&head)?;
        match code {
            // Interim answers come before the real one (RFC 9110 section 15.2); 101 would end HTTP.
            100 | 102 | 103 => continue,
            200 => {
                let framing = framing(&header_fields)?;
                return Ok(Response { connection, framing });
            }
            _ => {
                let framing = framing(&header_fields).unwrap_or(Framing::Ended);
                let mut response = Response { connection, framing };
                let message = response.start_of_body(deadline);
                return Err(Error::Status { code, message });
            }
        }
    }
}

impl Response {
    /// The body as JSON of type `T`, read as it comes: the text itself is never held.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(mut self, bytes_max: usize, deadline: Instant) -> Result<T, Error> {
        let mut body = CappedBody { response: &mut self, deadline, left: bytes_max, bytes_max, failure: None };
        let parsed = serde_json::from_reader(io::BufReader::with_capacity(BUFFER_BYTES, &mut body));
        if let Some(failure) = body.failure {
            return Err(failure);
        }
        parsed.map_err(|error| Error::malformed(error.to_string()))
    }

    /// Reads what of the body is there into `into`, at most one buffer full; waits for at least
    /// one byte. 0 is the end. After [`Error::Timeout`] it may be called again.
    pub(crate) fn read(&mut self, into: &mut [u8], deadline: Instant) -> Result<usize, Error> {
        loop {
            match self.framing {
                Framing::Ended | Framing::Length(0) => return Ok(0),
                Framing::Length(left) => {
                    let count = self.connection.read_some(into, left, deadline)?;
                    if count == 0 {
                        return Err(Error::Closed);
                    }
                    self.framing = Framing::Length(left - count as u64);
                    return Ok(count);
                }
                Framing::UntilClose => return self.connection.read_some(into, u64::MAX, deadline),
                Framing::Chunked(Chunk::Size) => {
                    let line = self.connection.line(CHUNK_LINE_BYTES_MAX, "a chunk's size", deadline)?;
                    self.framing = match chunk_size(&line)? {
                        0 => Framing::Chunked(Chunk::Trailer(0)),
                        size => Framing::Chunked(Chunk::Data(size)),
                    };
                }
                Framing::Chunked(Chunk::Data(left)) => {
                    let count = self.connection.read_some(into, left, deadline)?;
                    if count == 0 {
                        return Err(Error::Closed);
                    }
                    let left = left - count as u64;
                    self.framing = Framing::Chunked(if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) });
                    return Ok(count);
                }
                Framing::Chunked(Chunk::DataEnd) => {
                    if !self.connection.line(CHUNK_LINE_BYTES_MAX, "a chunk's end", deadline)?.is_empty() {
                        return Err(Error::malformed("a chunk is longer than its size says"));
                    }
                    self.framing = Framing::Chunked(Chunk::Size);
                }
                Framing::Chunked(Chunk::Trailer(so_far)) => {
                    let line = self.connection.line(CHUNK_LINE_BYTES_MAX, "trailer", deadline)?;
                    if line.is_empty() {
                        self.framing = Framing::Ended;
                    } else if so_far + line.len() > TRAILER_BYTES_MAX {
                        return Err(Error::TooLarge { what: "trailer", max: TRAILER_BYTES_MAX });
                    } else {
                        self.framing = Framing::Chunked(Chunk::Trailer(so_far + line.len()));
                    }
                }
            }
        }
    }

    /// For the message of an error: whatever text can be had.
    fn start_of_body(&mut self, deadline: Instant) -> String {
        let mut text = vec![0; ERROR_BODY_BYTES_MAX];
        let mut filled = 0;
        while let Some(room) = text.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.read(room, deadline) {
                Ok(count) if count > 0 => filled += count,
                Ok(_) | Err(_) => break,
            }
        }
        text.truncate(filled);
        String::from_utf8_lossy(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
    }
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// `at <= buffer.len()`: what is before it has been used.
    at: usize,
    closed: bool,
}

impl Connection {
    /// Adds to the buffer what the engine sends next; false at the connection's end.
    fn fill(&mut self, deadline: Instant) -> Result<bool, Error> {
        if self.closed {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        self.stream.set_read_timeout(Some(remaining(deadline)?)).map_err(|error| Error::of(&error))?;
        let start = self.buffer.len();
        self.buffer.resize(start + BUFFER_BYTES, 0);
        let read = loop {
            match self.stream.read(self.buffer.get_mut(start..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(start + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => self.closed = true,
            Ok(_) => {}
            Err(error) => return Err(Error::of(&error)),
        }
        Ok(!self.closed)
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// The next line without its end. After a timeout it can be asked for again.
    fn line(&mut self, bytes_max: usize, what: &'static str, deadline: Instant) -> Result<Vec<u8>, Error> {
        loop {
            let waiting = self.waiting();
            if let Some(end) = waiting.iter().take(bytes_max + 2).position(|&byte| byte == b'\n') {
                let line = waiting.get(..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at += end + 1;
                return Ok(line);
            }
            if waiting.len() > bytes_max {
                return Err(Error::TooLarge { what, max: bytes_max });
            }
            if !self.fill(deadline)? {
                return Err(Error::Closed);
            }
        }
    }

    /// Status line and header fields, up to the empty line.
    fn head(&mut self, deadline: Instant) -> Result<Vec<Vec<u8>>, Error> {
        let mut lines = Vec::new();
        let mut left = HEAD_BYTES_MAX;
        loop {
            let line = self.line(left, "head", deadline)?;
            if line.is_empty() {
                return Ok(lines);
            }
            left =
                left.checked_sub(line.len() + 2).filter(|left| *left > 0).ok_or(Error::TooLarge { what: "head", max: HEAD_BYTES_MAX })?;
            lines.push(line);
        }
    }

    /// At most `limit` bytes of what waits, or of what comes next; 0 at the connection's end.
    fn read_some(&mut self, into: &mut [u8], limit: u64, deadline: Instant) -> Result<usize, Error> {
        if self.waiting().is_empty() && !self.fill(deadline)? {
            return Ok(0);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let count = self.waiting().len().min(into.len()).min(limit);
        if let (Some(to), Some(from)) = (into.get_mut(..count), self.waiting().get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

/// A body as [`Read`], with its cap; the reason of a failure is kept beside, `io::Error` cannot carry it.
struct CappedBody<'a> {
    response: &'a mut Response,
    deadline: Instant,
    left: usize,
    bytes_max: usize,
    failure: Option<Error>,
}

impl Read for CappedBody<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let outcome = self.response.read(into, self.deadline).and_then(|count| {
            self.left = self.left.checked_sub(count).ok_or(Error::TooLarge { what: "body", max: self.bytes_max })?;
            Ok(count)
        });
        outcome.map_err(|failure| {
            self.failure = Some(failure);
            io::Error::other("see failure")
        })
    }
}

/// Status code, and the header fields with lower-case names.
fn parse_head(lines: &[Vec<u8>]) -> Result<(u16, Vec<(String, String)>), Error> {
    let not_http = || Error::malformed("no HTTP/1.x status line");
    let status = lines.first().and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(not_http)?;
    let rest = status.strip_prefix("HTTP/1.").ok_or_else(not_http)?;
    let code = rest.split(' ').nth(1).filter(|code| code.len() == 3).and_then(|code| code.parse().ok()).ok_or_else(not_http)?;
    let mut fields = Vec::new();
    for line in lines.iter().skip(1) {
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').ok_or_else(|| Error::malformed("a header line without a colon"))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok((code, fields))
}

/// RFC 9112 section 6.3: chunked wins over a length; two lengths that differ are an error.
fn framing(fields: &[(String, String)]) -> Result<Framing, Error> {
    let values = |name: &'static str| fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str());
    if let Some(coding) = values("transfer-encoding").next_back() {
        if coding.eq_ignore_ascii_case("chunked") {
            return Ok(Framing::Chunked(Chunk::Size));
        }
        return Err(Error::malformed("a transfer coding other than chunked"));
    }
    let mut length = None;
    for value in values("content-length") {
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let parsed: Option<u64> = if digits { value.parse().ok() } else { None };
        match (length, parsed) {
            (None, Some(_)) => length = parsed,
            (Some(before), Some(now)) if before == now => {}
            (_, _) => return Err(Error::malformed("content-length is no number, or not the same one twice")),
        }
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

/// `1A;name=value` to 26.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let size = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(size).ok().filter(|text| (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()));
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(|| Error::malformed("a chunk's size is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::time::Duration;

    /// What a client gets of an engine that sends exactly `bytes` and closes.
    fn answered(bytes: &[u8]) -> Result<Response, Error> {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let bytes = bytes.to_vec();
        let engine = std::thread::spawn(move || {
            let mut request = [0; 1024];
            let _ = theirs.read(&mut request);
            let _ = theirs.write_all(&bytes);
            let _ = theirs.shutdown(Shutdown::Write);
            // Kept open for reading, so that the client is not reset before it has read all.
            let _ = theirs.read(&mut request);
        });
        let response = get(ours, "/x", Instant::now() + Duration::from_secs(10));
        if response.is_err() {
            engine.join().expect("the engine's thread");
        }
        response
    }

    fn body(bytes: &[u8], bytes_max: usize) -> Result<serde_json::Value, Error> {
        answered(bytes)?.json(bytes_max, Instant::now() + Duration::from_secs(10))
    }

    #[test]
    fn a_body_is_read_by_length_by_chunks_and_until_the_end() {
        let expected = serde_json::json!({"a": [1, 2]});
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"a\":[1,2]}".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n7;x=y\r\n:[1,2]}\r\n0\r\nT: v\r\n\r\n".to_owned(),
            "HTTP/1.0 200 OK\r\n\r\n{\"a\":[1,2]}".to_owned(),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 11\n\n{\"a\":[1,2]}".to_owned(),
        ] {
            assert_eq!(body(answer.as_bytes(), 1000), Ok(expected.clone()), "{answer}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_error_and_never_a_panic() {
        let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n7\r\n:[1,2]}\r\n0\r\n\r\n";
        for end in 0..whole.len() {
            let outcome = body(&whole.as_bytes()[..end], 1000);
            assert!(matches!(outcome, Err(Error::Closed)), "cut at {end}: {outcome:?}");
        }
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        for answer in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]x",
        ] {
            let outcome = body(answer.as_bytes(), 1000);
            assert!(matches!(outcome, Err(Error::Malformed(_))), "{answer:?}: {outcome:?}");
        }
    }

    #[test]
    fn each_part_has_its_cap() {
        let long_head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(20_000));
        let long_line = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(100_000));
        let long_chunk_line = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n", "x".repeat(2_000));
        let long_trailer =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n{}", "X: yyyyyyyy\r\n".repeat(2_000));
        let long_body = format!("HTTP/1.1 200 OK\r\nContent-Length: 1003\r\n\r\n\"{}\"", "x".repeat(1_001));
        for (what, answer) in
            [("head", long_head), ("head", long_line), ("a chunk's size", long_chunk_line), ("trailer", long_trailer), ("body", long_body)]
        {
            match body(answer.as_bytes(), 1000) {
                Err(Error::TooLarge { what: said, .. }) => assert_eq!(said, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn another_status_carries_the_engines_words() {
        let outcome = body(b"HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{\"message\":\"No such thing\"}\n\n", 1000);
        assert_eq!(outcome, Err(Error::Status { code: 404, message: "{\"message\":\"No such thing\"}".into() }));
        assert!(matches!(body(b"HTTP/1.1 101 UPGRADED\r\n\r\n", 10), Err(Error::Status { code: 101, .. })));
    }

    #[test]
    fn silence_is_a_timeout_and_what_comes_later_can_still_be_read() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        theirs.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3").expect("room in the socket");
        let mut response = get(ours, "/events", Instant::now() + Duration::from_secs(10)).expect("a head");
        let mut text = [0; 16];
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(response.read(&mut text, soon()), Ok(2));
        assert_eq!(response.read(&mut text, soon()), Err(Error::Timeout));
        theirs.write_all(b"\r\ncde\r\n").expect("room in the socket");
        assert_eq!(response.read(&mut text, Instant::now() + Duration::from_secs(10)), Ok(3));
        assert_eq!(text.get(..3), Some(b"cde".as_slice()));
        assert_eq!(response.read(&mut text, soon()), Err(Error::Timeout));
        drop(theirs);
        assert_eq!(response.read(&mut text, soon()), Err(Error::Closed));
    }
}
