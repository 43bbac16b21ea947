//! RFB, what VNC speaks (RFC 6143), up to where the screen is described: one transaction a session.

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::Notes;
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::sink::Finished;
use crate::transaction::Transaction;

const VERSION_BYTES: usize = 12;
/// A reason for a refusal, and the name of a screen; longer ones end the session.
const TEXT_BYTES_MAX: u32 = 64 * 1024;

const NONE: u8 = 1;
const VNC: u8 = 2;

/// `RFB 003.008`
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let fits = bytes.iter().take(VERSION_BYTES).enumerate().all(|(at, byte)| match at {
        0..=3 => *byte == b"RFB "[at],
        7 => *byte == b'.',
        11 => *byte == b'\n',
        _ => byte.is_ascii_digit(),
    });
    match fits {
        false => Probe::No,
        true if bytes.len() < VERSION_BYTES => Probe::More,
        true => Probe::Yes,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rfb {
    tx: Option<u64>,
    state: State,
    /// Of the client: decides how security is agreed on.
    minor: u32,
    chosen: u8,
    moved: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    ServerVersion,
    ClientVersion,
    /// The types that the server offers; of version 3.3 the one.
    Types,
    Choice,
    Challenge,
    Response,
    Result,
    Reason,
    ClientInit,
    ServerInit,
    /// Nothing more is read.
    Over,
}

impl State {
    const fn from(self) -> Option<Dir> {
        match self {
            Self::ServerVersion | Self::Types | Self::Challenge | Self::Result | Self::Reason | Self::ServerInit => Some(Dir::ToClient),
            Self::ClientVersion | Self::Choice | Self::Response | Self::ClientInit => Some(Dir::ToServer),
            Self::Over => None,
        }
    }
}

/// What a step came to: bytes taken, and what comes next. `None`: more bytes are needed.
type Read = Option<(usize, State)>;

impl Rfb {
    fn step(&mut self, bytes: &[u8], tx: &mut Transaction, dir: Dir) -> Result<Read, Finished> {
        let mut reader = Reader::new(bytes);
        let next = match self.state {
            State::ServerVersion | State::ClientVersion => {
                let Some(version) = reader.take(VERSION_BYTES) else { return Ok(None) };
                if probe(dir, version) != Probe::Yes {
                    tx.event("rfb.malformed_message", dir);
                    return Err(Finished::Malformed("version"));
                }
                let is_server = self.state == State::ServerVersion;
                tx.notes.object(if is_server { "server_protocol_version" } else { "client_protocol_version" });
                tx.notes.text("major", &version[4..7]);
                tx.notes.text("minor", &version[8..11]);
                tx.notes.end();
                if is_server {
                    State::ClientVersion
                } else {
                    self.minor = version[8..11].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
                    State::Types
                }
            }
            State::Types if self.minor < 7 => {
                let Some(kind) = reader.be32() else { return Ok(None) };
                self.chosen = u8::try_from(kind).unwrap_or(u8::MAX);
                self.security(tx, dir)
            }
            State::Types => {
                let Some(count) = reader.u8() else { return Ok(None) };
                if count == 0 {
                    State::Reason
                } else if reader.skip(usize::from(count)).is_none() {
                    return Ok(None);
                } else {
                    State::Choice
                }
            }
            State::Choice => {
                let Some(kind) = reader.u8() else { return Ok(None) };
                self.chosen = kind;
                self.security(tx, dir)
            }
            State::Challenge => {
                let Some(challenge) = reader.take(16) else { return Ok(None) };
                vnc(&mut tx.notes, "challenge", challenge);
                State::Response
            }
            State::Response => {
                let Some(response) = reader.take(16) else { return Ok(None) };
                vnc(&mut tx.notes, "response", response);
                State::Result
            }
            State::Result => {
                let Some(result) = reader.be32() else { return Ok(None) };
                tx.integer_is(Field::RfbSecresult, dir, u64::from(result));
                let name = match result {
                    0 => "OK",
                    1 => "FAIL",
                    2 => "TOOMANY",
                    _ => {
                        tx.event("rfb.unknown_security_result", dir);
                        "UNKNOWN"
                    }
                };
                tx.notes.object("authentication");
                tx.notes.text("security_result", name);
                tx.notes.end();
                match result {
                    0 => State::ClientInit,
                    1 if self.minor >= 8 => State::Reason,
                    _ => State::Over,
                }
            }
            State::Reason => {
                let Some(len) = reader.be32() else { return Ok(None) };
                if len > TEXT_BYTES_MAX {
                    return Err(Finished::Cap("TEXT_BYTES_MAX"));
                }
                let Some(reason) = reader.take(len as usize) else { return Ok(None) };
                tx.notes.text("server_security_failure_reason", reason);
                State::Over
            }
            State::ClientInit => {
                let Some(shared) = reader.u8() else { return Ok(None) };
                tx.notes.truth("screen_shared", shared != 0);
                State::ServerInit
            }
            State::ServerInit => match screen(&mut reader, dir, tx) {
                Ok(Some(())) => State::Over,
                Ok(None) => return Ok(None),
                Err(why) => return Err(why),
            },
            State::Over => return Ok(None),
        };
        Ok(Some((reader.at(), next)))
    }

    fn security(&self, tx: &mut Transaction, dir: Dir) -> State {
        tx.integer_is(Field::RfbSectype, dir, u64::from(self.chosen));
        tx.notes.object("authentication");
        tx.notes.number("security_type", self.chosen);
        tx.notes.end();
        match self.chosen {
            0 => State::Reason,
            // Only since 3.8 there is a result of nothing.
            NONE if self.minor >= 8 => State::Result,
            NONE => State::ClientInit,
            VNC => State::Challenge,
            _ => {
                tx.event("rfb.unimplemented_security_type", dir);
                State::Over
            }
        }
    }
}

fn vnc(notes: &mut Notes, key: &'static str, bytes: &[u8]) {
    notes.object("authentication");
    notes.object("vnc");
    notes.hex(key, bytes);
    notes.end();
    notes.end();
}

fn screen(reader: &mut Reader<'_>, dir: Dir, tx: &mut Transaction) -> Result<Option<()>, Finished> {
    let Some(fixed) = reader.take(24) else { return Ok(None) };
    let mut fixed = Reader::new(fixed);
    let size = (fixed.be16(), fixed.be16());
    let format: Option<[u8; 16]> = fixed.array();
    let (Some(format), (Some(width), Some(height)), Some(len)) = (format, size, fixed.be32()) else { return Ok(None) };
    if len > TEXT_BYTES_MAX {
        return Err(Finished::Cap("TEXT_BYTES_MAX"));
    }
    let Some(name) = reader.take(len as usize) else { return Ok(None) };
    tx.value(Buffer::RfbName, dir, name);
    let notes = &mut tx.notes;
    notes.object("framebuffer");
    notes.number("width", width);
    notes.number("height", height);
    notes.text("name", name);
    notes.object("pixel_format");
    notes.number("bits_per_pixel", format[0]);
    notes.number("depth", format[1]);
    notes.truth("big_endian", format[2] != 0);
    notes.truth("true_color", format[3] != 0);
    for (key, at) in [("red_max", 4), ("green_max", 6), ("blue_max", 8)] {
        notes.number(key, u16::from_be_bytes([format[at], format[at + 1]]));
    }
    for (key, at) in [("red_shift", 10), ("green_shift", 11), ("blue_shift", 12)] {
        notes.number(key, format[at]);
    }
    notes.end();
    notes.end();
    Ok(Some(()))
}

impl Parser for Rfb {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let dir = io.dir;
        self.moved = false;
        if self.tx.is_none() && self.state != State::Over {
            self.tx = io.begin(Protocol::Rfb);
        }
        let mut at = 0;
        while self.state.from() == Some(dir) {
            let Some(tx) = self.tx.and_then(|id| io.tx(id)) else { break };
            match self.step(&bytes[at..], tx, dir) {
                Ok(None) => return Step::on(at),
                Ok(Some((taken, next))) => {
                    at += taken;
                    self.state = next;
                    self.moved = true;
                    if next == State::Over {
                        tx.advance(Dir::ToServer, Stage::Complete);
                        tx.advance(Dir::ToClient, Stage::Complete);
                    }
                }
                Err(why) => return Step { consumed: at, next: Next::Finished(why) },
            }
        }
        // Behind the description there are pictures.
        Step::on(if self.state == State::Over { bytes.len() } else { at })
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        if self.state == State::Over { Next::Continue } else { Next::Finished(Finished::Gap) }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}

    fn wakes_other(&mut self) -> bool {
        self.moved
    }
}
