//! Redis (RESP 2 and 3, and commands on one line). A command and its reply are one transaction; replies come in the order of commands.
//!
//! Of values only the beginning is looked at: what is long passes by and is not kept.

use std::collections::VecDeque;

use crate::context::Io;
use crate::names::{Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;

/// A line: an inline command, or the head of a value; Redis' own limit (`PROTO_INLINE_MAX_SIZE`).
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Arguments of one command; Redis' own limit.
const ARGUMENTS_MAX: u64 = 1024 * 1024;
/// Bytes of an argument that the log tells of, and arguments.
const SHOWN_BYTES: usize = 256;
const SHOWN_ARGUMENTS: u64 = 16;
/// Commands without a reply; for the oldest none is awaited any more.
const WAITING_MAX: usize = 256;
/// Replies within replies.
const DEPTH_MAX: usize = 32;

/// Commands that begin a conversation on one line, and nothing else does.
const INLINE: &[&[u8]] = &[
    b"PING\r\n",
    b"INFO\r\n",
    b"INFO ",
    b"CONFIG ",
    b"FLUSHALL",
    b"FLUSHDB",
    b"SLAVEOF ",
    b"REPLICAOF ",
    b"EVAL ",
    b"MODULE LOAD",
    b"CLIENT LIST",
    b"CLIENT SETNAME",
];

/// `*2\r\n$4\r\n`, or a command that is Redis' own.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToClient {
        return Probe::No;
    }
    let Some((b'*', rest)) = bytes.split_first() else {
        let begins = |command: &&&[u8]| bytes.iter().zip(**command).all(|(a, b)| a.eq_ignore_ascii_case(b));
        return match INLINE.iter().filter(begins).map(|command| bytes.len() >= command.len()).max() {
            Some(true) => Probe::Yes,
            Some(false) => Probe::More,
            None => Probe::No,
        };
    };
    let mut rest = rest;
    for end in [&b"\r\n$"[..], b"\r\n"] {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let behind = &rest[digits..];
        if digits > 8 || digits == 0 && !behind.is_empty() || !end.starts_with(&behind[..behind.len().min(end.len())]) {
            return Probe::No;
        }
        if behind.len() < end.len() {
            return Probe::More;
        }
        rest = &behind[end.len()..];
    }
    Probe::Yes
}

#[derive(Debug, Default)]
pub(crate) struct Redis {
    command: Option<Command>,
    waiting: VecDeque<u64>,
    /// Values that are to come at each depth of the reply in hand.
    open: Vec<u64>,
    /// What is told while it is open was not asked for.
    pushed: bool,
    /// Bytes of a value that are to come, with the end of its line, by direction.
    skip: [u64; 2],
}

/// A command whose arguments come.
#[derive(Debug)]
struct Command {
    tx: u64,
    left: u64,
    seen: u64,
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1))
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

type Read = Result<Option<usize>, Next>;

impl Redis {
    fn begin(&mut self, io: &mut Io<'_>) -> Result<u64, Next> {
        if self.waiting.len() >= WAITING_MAX
            && let Some(tx) = self.waiting.pop_front().and_then(|id| io.tx(id))
        {
            tx.advance(Dir::ToServer, Stage::Complete);
            tx.advance(Dir::ToClient, Stage::Complete);
        }
        let id = io.begin(Protocol::Redis).ok_or(Next::Finished(Finished::Cap("transactions_max")))?;
        self.waiting.push_back(id);
        Ok(id)
    }

    fn argument(number: u64, text: &[u8], id: u64, io: &mut Io<'_>) {
        let Some(tx) = io.tx(id) else { return };
        let text = &text[..text.len().min(SHOWN_BYTES)];
        match number {
            0 => tx.notes.text("command", text.to_ascii_uppercase()),
            _ if number <= SHOWN_ARGUMENTS => {
                tx.notes.list("arguments");
                tx.notes.text("", text);
                tx.notes.end();
            }
            _ => {}
        }
    }

    fn asked(id: u64, io: &mut Io<'_>) {
        if let Some(tx) = io.tx(id) {
            tx.advance(Dir::ToServer, Stage::Complete);
        }
    }

    fn request(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Read {
        let Some((text, taken)) = line(bytes) else { return Ok(None) };
        let malformed = Err(Next::Finished(Finished::Malformed("command")));
        let Some(Command { tx, left, seen }) = &mut self.command else {
            match text.split_first() {
                None => {}
                Some((b'*', count)) => match number(count) {
                    Some(count) if count > ARGUMENTS_MAX.cast_signed() => return malformed,
                    // An empty one is passed over.
                    Some(count) if count > 0 => {
                        let tx = self.begin(io)?;
                        self.command = Some(Command { tx, left: count.cast_unsigned(), seen: 0 });
                    }
                    Some(_) => {}
                    None => return malformed,
                },
                Some(_) => {
                    let id = self.begin(io)?;
                    let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                    words.enumerate().for_each(|(number, word)| Self::argument(number as u64, word, id, io));
                    Self::asked(id, io);
                }
            }
            return Ok(Some(taken));
        };
        let Some(len) = text.strip_prefix(b"$").and_then(number).and_then(|len| usize::try_from(len).ok()) else { return malformed };
        let shown = len.min(SHOWN_BYTES);
        let Some(value) = bytes.get(taken..taken + shown) else { return Ok(None) };
        Self::argument(*seen, value, *tx, io);
        (*seen, *left) = (*seen + 1, *left - 1);
        self.skip[0] = (len - shown) as u64 + 2;
        if *left == 0 {
            let id = *tx;
            self.command = None;
            Self::asked(id, io);
        }
        Ok(Some(taken + shown))
    }

    fn reply(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Read {
        let Some((text, taken)) = line(bytes) else { return Ok(None) };
        let Some((&kind, rest)) = text.split_first() else { return Ok(Some(taken)) };
        let malformed = Err(Next::Finished(Finished::Malformed("reply")));
        if self.open.is_empty() {
            self.pushed = kind == b'>';
            if let (false, Some(tx)) = (self.pushed, self.waiting.front().and_then(|id| io.tx(*id))) {
                let rest = &rest[..rest.len().min(SHOWN_BYTES)];
                match kind {
                    b'-' => tx.notes.text("error", rest),
                    b'+' => tx.notes.text("status", rest),
                    b':' => tx.notes.text("integer", rest),
                    _ => {}
                }
            }
        }
        let mut values = 0;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'!' | b'=' => match number(rest) {
                Some(-1) => {}
                Some(len) if len >= 0 => self.skip[1] = len.cast_unsigned() + 2,
                Some(_) | None => return malformed,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match number(rest) {
                Some(count) => values = count.max(0).cast_unsigned().saturating_mul(if matches!(kind, b'%' | b'|') { 2 } else { 1 }),
                None => return malformed,
            },
            _ => return malformed,
        }
        if values > 0 {
            if self.open.len() >= DEPTH_MAX {
                return Err(Next::Finished(Finished::Cap("DEPTH_MAX")));
            }
            self.open.push(values);
            return Ok(Some(taken));
        }
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            self.open.pop();
        }
        // Attributes (`|`) belong to the reply that follows.
        if self.open.is_empty()
            && !self.pushed
            && kind != b'|'
            && let Some(tx) = self.waiting.pop_front().and_then(|id| io.tx(id))
        {
            tx.advance(Dir::ToServer, Stage::Complete);
            tx.advance(Dir::ToClient, Stage::Complete);
        }
        Ok(Some(taken))
    }
}

impl Parser for Redis {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let side = io.dir as usize;
        let mut at = 0;
        while at < bytes.len() {
            let skip = usize::try_from(self.skip[side]).unwrap_or(usize::MAX).min(bytes.len() - at);
            if skip > 0 {
                self.skip[side] -= skip as u64;
                at += skip;
                continue;
            }
            let rest = &bytes[at..];
            let read = if io.dir == Dir::ToServer { self.request(rest, io) } else { self.reply(rest, io) };
            match read {
                Ok(Some(taken)) => at += taken,
                Ok(None) if rest.len() > LINE_BYTES_MAX + SHOWN_BYTES => {
                    return Step { consumed: at, next: Next::Finished(Finished::Cap("LINE_BYTES_MAX")) };
                }
                Ok(None) => break,
                Err(next) => return Step { consumed: at, next },
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let skip = &mut self.skip[io.dir as usize];
        match skip.checked_sub(len) {
            Some(left) if *skip > 0 => {
                *skip = left;
                Next::Continue
            }
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
