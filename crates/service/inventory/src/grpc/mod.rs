//! gRPC client for the sockets of containerd and CRI-O: one call per connection, everything capped.
//!
//! Unary calls and server streams over HTTP/2 with prior knowledge, which is all that listing and
//! following containers needs. The generated client of containerd was measured instead and left
//! out: 76 crates, an async runtime, 50 s of build on two cores, and a protobuf compiler on the
//! building machine; these three files replace it.
//!
//! One stream (number 1) per connection keeps the state small: no multiplexing, no priorities.
//! Sources: RFC 9113 (HTTP/2), "gRPC over HTTP2" (grpc/doc/PROTOCOL-HTTP2.md).

mod hpack;
pub(crate) mod protobuf;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::socket::{Error, one_line, remaining};

/// RFC 9113 section 6.5.2: the default, which we do not raise.
const FRAME_BYTES_MAX: usize = 16_384;
const FRAME_HEADER_LEN: usize = 9;
/// Bytes of one header block with its continuations.
const HEADER_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Bytes the peer may send ahead. What is read is given back at once.
const WINDOW: u32 = 1024 * 1024;
/// Frames without message bytes in a row; a sound peer sends a handful.
const IDLE_FRAMES_MAX: u32 = 10_000;
const STREAM: u32 = 1;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A call whose answers come one by one.
#[derive(Debug)]
pub(crate) struct Call {
    stream: UnixStream,
    /// Bytes received and not yet used: at most one frame and one read.
    received: Vec<u8>,
    /// Message bytes of DATA frames, not yet complete messages.
    assembled: Vec<u8>,
    /// A header block whose end has not come, and whether the stream ends with it.
    header_block: Option<(Vec<u8>, bool)>,
    ended: bool,
    status: Option<(u16, String)>,
}

/// Asks `method` (`/package.Service/Method`) with one message and gives back the one answer.
pub(crate) fn unary(
    stream: UnixStream,
    method: &str,
    metadata: &[(&str, &str)],
    message: &[u8],
    bytes_max: usize,
    deadline: Instant,
) -> Result<Vec<u8>, Error> {
    let mut call = Call::open(stream, method, metadata, message, deadline)?;
    let answer = call.next(bytes_max, deadline)?.ok_or_else(|| Error::malformed("a call without an answer"))?;
    match call.next(bytes_max, deadline)? {
        None => Ok(answer),
        Some(_) => Err(Error::malformed("two answers to one call")),
    }
}

impl Call {
    /// Sends the whole request; answers are waited for in [`Call::next`].
    pub(crate) fn open(
        stream: UnixStream,
        method: &str,
        metadata: &[(&str, &str)],
        message: &[u8],
        deadline: Instant,
    ) -> Result<Self, Error> {
        let mut request = PREFACE.to_vec();
        let mut settings = Vec::new();
        // HEADER_TABLE_SIZE 0: no dynamic table to keep; ENABLE_PUSH 0; INITIAL_WINDOW_SIZE.
        for (id, value) in [(1_u16, 0_u32), (2, 0), (4, WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(&mut request, kind::SETTINGS, 0, 0, &settings);
        frame(&mut request, kind::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        let fixed = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "bulkhead"),
        ];
        let mut block = Vec::new();
        for (name, value) in fixed.iter().chain(metadata) {
            hpack::encode(&mut block, name, value);
        }
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend_from_slice(message);
        // Our requests are a few hundred bytes; the peer's frame and window limits are 16 KiB and more.
        if block.len() > FRAME_BYTES_MAX || data.len() > FRAME_BYTES_MAX {
            return Err(Error::TooLarge { what: "our own request", max: FRAME_BYTES_MAX });
        }
        frame(&mut request, kind::HEADERS, flag::END_HEADERS, STREAM, &block);
        frame(&mut request, kind::DATA, flag::END_STREAM, STREAM, &data);
        let mut call = Self { stream, received: Vec::new(), assembled: Vec::new(), header_block: None, ended: false, status: None };
        call.send(&request, deadline)?;
        Ok(call)
    }

    /// The next answer; none when the peer has ended the call well. After [`Error::Timeout`] it can
    /// be called again; every other error is the call's end.
    pub(crate) fn next(&mut self, bytes_max: usize, deadline: Instant) -> Result<Option<Vec<u8>>, Error> {
        let mut idle_frames = 0;
        loop {
            if let Some(message) = self.message(bytes_max)? {
                return Ok(Some(message));
            }
            if self.ended {
                return self.end();
            }
            let before = self.assembled.len();
            self.frame(bytes_max, deadline)?;
            idle_frames = if self.assembled.len() > before { 0 } else { idle_frames + 1 };
            if idle_frames > IDLE_FRAMES_MAX {
                return Err(Error::malformed("thousands of frames without a message"));
            }
        }
    }

    /// Takes a complete message out of what has been assembled.
    fn message(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((prefix, rest)) = self.assembled.split_first_chunk::<5>() else { return Ok(None) };
        let [compressed, a, b, c, d] = *prefix;
        if compressed != 0 {
            return Err(Error::malformed("a compressed message that was not asked for"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > bytes_max {
            return Err(Error::TooLarge { what: "message", max: bytes_max });
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.assembled.drain(..prefix.len() + length);
        Ok(Some(message))
    }

    /// The call is over: well, or with the peer's reason.
    fn end(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.status.take() {
            Some((0, _)) if self.assembled.is_empty() => {
                self.status = Some((0, String::new()));
                Ok(None)
            }
            Some((0, _)) => Err(Error::malformed("the call ended within a message")),
            Some((code, message)) => Err(Error::Status { code, message }),
            None => Err(Error::malformed("the call ended without a status")),
        }
    }

    /// Reads and obeys one frame.
    fn frame(&mut self, bytes_max: usize, deadline: Instant) -> Result<(), Error> {
        let (head, payload) = loop {
            if let Some((head, rest)) = self.received.split_first_chunk::<FRAME_HEADER_LEN>() {
                let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
                let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(Error::TooLarge { what: "HTTP/2 frame", max: FRAME_BYTES_MAX });
                }
                if let Some(payload) = rest.get(..length) {
                    let payload = payload.to_vec();
                    self.received.drain(..FRAME_HEADER_LEN + length);
                    break ((kind, flags, u32::from_be_bytes([s0 & 0x7f, s1, s2, s3])), payload);
                }
            }
            self.fill(deadline)?;
        };
        let (kind, flags, stream) = head;
        if self.header_block.is_some() && kind != kind::CONTINUATION {
            return Err(Error::malformed("another frame within a header block"));
        }
        match (kind, stream) {
            (kind::DATA, STREAM) => {
                self.give_back(payload.len(), deadline)?;
                self.assembled.extend_from_slice(unpadded(&payload, flags)?);
                // A message's prefix tells its length; more than one message and a frame never waits.
                if self.assembled.len() > bytes_max + 5 + FRAME_BYTES_MAX {
                    return Err(Error::TooLarge { what: "message", max: bytes_max });
                }
                self.ended = flags & flag::END_STREAM != 0;
            }
            (kind::HEADERS, STREAM) => {
                let mut block = unpadded(&payload, flags)?;
                if flags & flag::PRIORITY != 0 {
                    block = block.get(5..).ok_or_else(|| Error::malformed("a short HEADERS frame"))?;
                }
                self.header_block = Some((block.to_vec(), flags & flag::END_STREAM != 0));
                if flags & flag::END_HEADERS != 0 {
                    self.headers()?;
                }
            }
            (kind::CONTINUATION, STREAM) => {
                let (block, _) = self.header_block.as_mut().ok_or_else(|| Error::malformed("a continuation of nothing"))?;
                block.extend_from_slice(&payload);
                if block.len() > HEADER_BLOCK_BYTES_MAX {
                    return Err(Error::TooLarge { what: "header block", max: HEADER_BLOCK_BYTES_MAX });
                }
                if flags & flag::END_HEADERS != 0 {
                    self.headers()?;
                }
            }
            (kind::RST_STREAM, STREAM) => return Err(Error::Closed),
            (kind::SETTINGS, 0) if flags & flag::ACK == 0 => self.reply(kind::SETTINGS, &[], deadline)?,
            (kind::PING, 0) if flags & flag::ACK == 0 => match payload.len() {
                8 => self.reply(kind::PING, &payload, deadline)?,
                _ => return Err(Error::malformed("a PING that is not 8 bytes")),
            },
            (kind::GOAWAY, 0) => {
                // Streams up to the number it names are still served.
                let last = payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff);
                if last < STREAM {
                    return Err(Error::Closed);
                }
            }
            (kind::PUSH_PROMISE | kind::DATA | kind::HEADERS | kind::CONTINUATION, _) => {
                return Err(Error::malformed("a frame of a stream that we did not open"));
            }
            // WINDOW_UPDATE (all of our request is sent), PRIORITY, acknowledgements, and unknown
            // kinds, which must be ignored (section 4.1).
            (_, _) => {}
        }
        Ok(())
    }

    /// A header block is complete: answer headers, or trailers with the call's status.
    fn headers(&mut self) -> Result<(), Error> {
        let Some((block, ends)) = self.header_block.take() else { return Ok(()) };
        let fields = hpack::decode(&block)?;
        for (name, value) in fields {
            match name.as_str() {
                ":status" if value != "200" => {
                    return Err(Error::malformed(format!("HTTP status {} instead of gRPC", one_line(&value))));
                }
                "grpc-status" => {
                    let code = value.parse().map_err(|_| Error::malformed("a grpc-status that is no number"))?;
                    let message = self.status.take().map(|(_, message)| message).unwrap_or_default();
                    self.status = Some((code, message));
                }
                "grpc-message" => {
                    let code = self.status.take().map_or(UNKNOWN, |(code, _)| code);
                    self.status = Some((code, one_line(&value)));
                }
                _ => {}
            }
        }
        self.ended = ends;
        Ok(())
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), Error> {
        self.stream.set_read_timeout(Some(remaining(deadline)?)).map_err(|error| Error::of(&error))?;
        let mut chunk = [0; 8192];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => {
                    self.received.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::of(&error)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(remaining(deadline)?)).map_err(|error| Error::of(&error))?;
        self.stream.write_all(bytes).map_err(|error| match Error::of(&error) {
            // A frame that is half sent cannot be resumed: not a time-out that one may retry after.
            Error::Timeout => Error::Io("the engine reads nothing".into()),
            other => other,
        })
    }

    fn reply(&mut self, kind: u8, payload: &[u8], deadline: Instant) -> Result<(), Error> {
        let mut bytes = Vec::new();
        frame(&mut bytes, kind, flag::ACK, 0, payload);
        self.send(&bytes, deadline)
    }

    /// Lets the peer send as much again as it has sent, on the connection and on the stream.
    fn give_back(&mut self, count: usize, deadline: Instant) -> Result<(), Error> {
        let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) else { return Ok(()) };
        let mut bytes = Vec::new();
        frame(&mut bytes, kind::WINDOW_UPDATE, 0, 0, &count.to_be_bytes());
        frame(&mut bytes, kind::WINDOW_UPDATE, 0, STREAM, &count.to_be_bytes());
        match self.send(&bytes, deadline) {
            // The peer has said all and gone; what it said is still here.
            Err(Error::Closed) => Ok(()),
            other => other,
        }
    }
}

/// Frame kinds, RFC 9113 section 6.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

mod flag {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// gRPC status code UNKNOWN.
const UNKNOWN: u16 = 2;

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    into.extend_from_slice(length.get(1..).unwrap_or_default());
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

fn unpadded(payload: &[u8], flags: u8) -> Result<&[u8], Error> {
    if flags & flag::PADDED == 0 {
        return Ok(payload);
    }
    let too_long = || Error::malformed("padding longer than its frame");
    let (padding, rest) = payload.split_first().ok_or_else(too_long)?;
    rest.get(..rest.len().checked_sub(usize::from(*padding)).ok_or_else(too_long)?).ok_or_else(too_long)
}

#[cfg(test)]
mod tests;
