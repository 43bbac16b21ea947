//! WebSocket (RFC 6455) behind HTTP's upgrade, with permessage-deflate (RFC 7692). Each frame is a transaction of its own direction.
//!
//! A frame's payload is unmasked and decompressed as it comes. That of a fragment begins with what came before of its message, so that a
//! match may lie across fragments, whatever stands between them.

use crate::context::Io;
use crate::http::{Coding, Codings, Decoder, Limits};
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;

/// Bytes of a fragmented message that the next fragment begins with; of a longer one the last.
const CARRY_BYTES_MAX: usize = 64 * 1024;
/// A longer payload is an event, as the reference engine reads no further (`max-payload-size`); here it is read on.
const PAYLOAD_BYTES: u64 = 64 * 1024;
/// RFC 7692, section 7.2.2: what a sender leaves away.
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];

const CONTINUATION: u8 = 0;
const CONTROL: u8 = 8;
const FIN: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

/// It is never recognised by what it says, but by what HTTP has agreed on.
pub(crate) fn probe(_: Dir, _: &[u8]) -> Probe {
    Probe::No
}

#[derive(Debug, Default)]
pub(crate) struct Websocket {
    halves: [Half; 2],
}

#[derive(Debug, Default)]
struct Half {
    frame: Option<Frame>,
    /// A message whose last frame has not come.
    message: Option<Message>,
    /// Goes on from message to message.
    decoder: Option<Decoder>,
}

#[derive(Debug, Default)]
struct Message {
    compressed: bool,
    /// What came of it, decoded.
    carry: Vec<u8>,
    cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    tx: u64,
    stream: Option<u8>,
    first: u8,
    key: Option<[u8; 4]>,
    at: u64,
    left: u64,
    compressed: bool,
}

impl Frame {
    const fn is_control(&self) -> bool {
        self.first & CONTROL != 0
    }

    const fn is_last(&self) -> bool {
        self.first & FIN != 0
    }
}

struct Head {
    first: u8,
    len: u64,
    key: Option<[u8; 4]>,
    taken: usize,
}

/// RFC 6455, section 5.2. `None`: it goes on.
fn head(bytes: &[u8]) -> Option<Head> {
    let (&first, rest) = bytes.split_first()?;
    let (&second, rest) = rest.split_first()?;
    let (len, rest) = match second & 0x7f {
        126 => rest.split_first_chunk::<2>().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest))?,
        127 => rest.split_first_chunk::<8>().map(|(len, rest)| (u64::from_be_bytes(*len), rest))?,
        len => (u64::from(len), rest),
    };
    let (key, rest) = match second & 0x80 {
        0 => (None, rest),
        _ => rest.split_first_chunk::<4>().map(|(key, rest)| (Some(*key), rest))?,
    };
    Some(Head { first, len, key, taken: bytes.len() - rest.len() })
}

fn opcode_name(opcode: u8) -> String {
    match opcode {
        CONTINUATION => "continuation".to_owned(),
        1 => "text".to_owned(),
        2 => "binary".to_owned(),
        8 => "connection_close".to_owned(),
        9 => "ping".to_owned(),
        10 => "pong".to_owned(),
        other => format!("unknown-{other}"),
    }
}

impl Half {
    fn begin(&mut self, head: &Head, io: &mut Io<'_>) -> Result<(), Next> {
        let dir = io.dir;
        let opcode = head.first & 0x0f;
        let is_control = opcode & CONTROL != 0;
        if !is_control && opcode != CONTINUATION {
            // What was not ended is given up.
            self.message = None;
        }
        let Some(id) = io.begin(Protocol::Websocket) else { return Err(Next::Finished(Finished::Cap("transactions_max"))) };
        let limits = Limits::of(&io.context.config);
        let compressed = match &self.message {
            _ if is_control => false,
            Some(message) if opcode == CONTINUATION => message.compressed,
            Some(_) | None => head.first & COMPRESSED != 0,
        };
        let begins = !is_control && opcode != CONTINUATION;
        if compressed && (begins || self.decoder.is_none()) {
            if self.decoder.as_ref().is_none_or(Decoder::is_over) {
                let codings = Codings { list: vec![Coding::Raw], ..Codings::default() };
                self.decoder = Some(Decoder::new(&codings, limits, &mut io.context.inflaters));
            }
            // Caps are a message's.
            if let Some(decoder) = &mut self.decoder {
                decoder.counts((0, 0));
            }
        }
        let Some(tx) = io.tx(id) else { return Ok(()) };
        tx.integer_is(Field::WebsocketOpcode, dir, u64::from(opcode));
        tx.integer_is(Field::WebsocketFlags, dir, u64::from(head.first & 0xf0));
        tx.notes.truth("fin", head.first & FIN != 0);
        if let Some(key) = head.key {
            let key = u32::from_be_bytes(key);
            tx.integer_is(Field::WebsocketMask, dir, u64::from(key));
            tx.notes.number("mask", key);
        }
        tx.notes.text("opcode", opcode_name(opcode));
        if head.len > PAYLOAD_BYTES {
            tx.event("websocket.skip_end_of_payload", dir);
        }
        let stream = tx.open_stream(&[Buffer::WebsocketPayload], dir);
        let frame = Frame { tx: id, stream, first: head.first, key: head.key, at: 0, left: head.len, compressed };
        if let (false, Some(message), Some(stream)) = (is_control, &self.message, stream) {
            if message.cut {
                tx.event("websocket.reassembly_limit_reached", dir);
            }
            let carry = message.carry.clone();
            io.grow(id, stream, &carry);
        }
        if !is_control && !frame.is_last() && self.message.is_none() {
            self.message = Some(Message { compressed, ..Message::default() });
        }
        self.frame = Some(frame);
        Ok(())
    }

    /// Bytes of the frame that is open. Gives how many were taken.
    fn payload(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<usize, Next> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let mut plain = bytes[..take].to_vec();
        if let Some(key) = frame.key {
            for (at, byte) in (frame.at..).zip(&mut plain) {
                *byte ^= key[(at & 3) as usize];
            }
        }
        frame.at += take as u64;
        frame.left -= take as u64;
        let frame = *frame;
        self.show(&frame, &plain, io)?;
        if frame.left == 0 {
            self.end(io)?;
        }
        Ok(take)
    }

    fn show(&mut self, frame: &Frame, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Next> {
        let (Self { message, decoder, .. }, Some(stream)) = (self, frame.stream) else { return Ok(()) };
        let mut shown = |piece: &[u8], io: &mut Io<'_>| {
            io.grow(frame.tx, stream, piece);
            if let (Some(message), false) = (&mut *message, frame.is_control()) {
                message.carry.extend_from_slice(piece);
                // Not for every byte.
                if message.carry.len() > 2 * CARRY_BYTES_MAX {
                    let old = message.carry.len() - CARRY_BYTES_MAX;
                    message.carry.drain(..old);
                    message.cut = true;
                }
            }
        };
        match decoder {
            Some(decoder) if frame.compressed => {
                let decoded = decoder.push(bytes, &mut |piece| shown(piece, io));
                decoded.map_err(|_| {
                    io.context.stats.decoded_refused += 1;
                    Next::Finished(Finished::Cap("decoded_bytes_max"))
                })
            }
            _ => {
                shown(bytes, io);
                Ok(())
            }
        }
    }

    fn end(&mut self, io: &mut Io<'_>) -> Result<(), Next> {
        let Some(frame) = self.frame else { return Ok(()) };
        if frame.compressed && frame.is_last() && self.decoder.as_ref().is_some_and(|decoder| !decoder.is_over()) {
            self.show(&frame, &FLUSH, io)?;
        }
        let dir = io.dir;
        if let Some(tx) = io.tx(frame.tx) {
            if let Some(stream) = frame.stream {
                tx.close_stream(stream);
            }
            tx.advance(dir, Stage::Complete);
            tx.advance(dir.other(), Stage::Complete);
        }
        if frame.is_last() && !frame.is_control() {
            self.message = None;
        }
        self.frame = None;
        io.report();
        Ok(())
    }
}

impl Parser for Websocket {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let half = &mut self.halves[io.dir as usize];
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let done = if half.frame.is_some() {
                half.payload(rest, io)
            } else {
                let Some(head) = head(rest) else { break };
                // RFC 6455, section 5.2: the highest bit is 0.
                if head.len >> 63 != 0 {
                    return Step { consumed: at, next: Next::Finished(Finished::Malformed("length of a frame")) };
                }
                let begun = half.begin(&head, io).and_then(|()| if head.len == 0 { half.end(io) } else { Ok(()) });
                begun.map(|()| head.taken)
            };
            match done {
                Ok(taken) => at += taken,
                Err(next) => return Step { consumed: at, next },
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let half = &mut self.halves[io.dir as usize];
        match &mut half.frame {
            // Within a frame. What is compressed cannot be read on.
            Some(frame) if frame.left > len && !frame.compressed => {
                frame.left -= len;
                frame.at += len;
                if let Some(stream) = frame.stream {
                    io.skip(frame.tx, stream, len);
                }
                if let Some(message) = &mut half.message {
                    message.carry.clear();
                }
                Next::Continue
            }
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
