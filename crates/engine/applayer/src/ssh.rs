//! SSH: banners (RFC 4253, section 4.2) and the key exchange's opening (section 7.1), up to where encryption begins. One transaction a
//! session.
//!
//! HASSH: <https://github.com/salesforce/hassh>.

use md5::{Digest, Md5};

use crate::context::Io;
use crate::names::{Buffer, Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;

/// RFC 4253, section 4.2: 255 with its end.
const BANNER_BYTES_MAX: usize = 256;
/// RFC 4253, section 6.1: all must take 35,000; more is not sent before keys are there.
const RECORD_BYTES_MAX: usize = 35_000;
const KEY_EXCHANGE: u8 = 20;
const NEW_KEYS: u8 = 21;

pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let len = bytes.len().min(4);
    match bytes[..len] == b"SSH-"[..len] {
        true if len == 4 => Probe::Yes,
        true => Probe::More,
        false => Probe::No,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ssh {
    states: [State; 2],
    tx: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Banner,
    /// The rest of a banner that is too long.
    BannerRest,
    Records,
    /// Bytes of a record that nobody asks for.
    Skip(usize),
    Encrypted,
}

impl Ssh {
    /// What was taken, and whether the session goes on. `None`: more bytes are needed.
    fn step(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<(usize, Next)> {
        let dir = io.dir as usize;
        match self.states[dir] {
            State::Banner | State::BannerRest => {
                let rest = self.states[dir] == State::BannerRest;
                let end = memchr::memchr(b'\n', bytes);
                if !rest && end.unwrap_or(bytes.len()) > BANNER_BYTES_MAX {
                    io.event(self.tx, "ssh.long_banner");
                    self.states[dir] = State::BannerRest;
                    return Some((self.banner(&bytes[..BANNER_BYTES_MAX], io)?, Next::Continue));
                }
                match end {
                    Some(end) => {
                        if !rest {
                            self.banner(&bytes[..end], io);
                        }
                        self.states[dir] = State::Records;
                        Some((end + 1, Next::Continue))
                    }
                    // As much as was looked at goes.
                    None if rest => Some((bytes.len(), Next::Continue)),
                    None => None,
                }
            }
            State::Records => self.record(bytes, io),
            State::Skip(left) => {
                let take = left.min(bytes.len());
                self.states[dir] = if take == left { State::Records } else { State::Skip(left - take) };
                Some((take, Next::Continue))
            }
            State::Encrypted if self.states == [State::Encrypted; 2] => Some((0, Next::Finished(Finished::Encrypted))),
            State::Encrypted => Some((bytes.len(), Next::Continue)),
        }
    }

    /// `SSH-2.0-OpenSSH_9.2 comment`. Gives its length.
    fn banner(&mut self, line: &[u8], io: &mut Io<'_>) -> Option<usize> {
        let dir = io.dir;
        let tx = self.tx.and_then(|id| io.tx(id))?;
        let text = line.trim_ascii_end();
        let parts = text.strip_prefix(b"SSH-").and_then(|rest| {
            let dash = memchr::memchr(b'-', rest)?;
            let software = &rest[dash + 1..];
            Some((&rest[..dash], &software[..memchr::memchr(b' ', software).unwrap_or(software.len())]))
        });
        match parts {
            Some((proto, software)) => {
                tx.value(Buffer::SshProto, dir, proto);
                tx.value(Buffer::SshSoftware, dir, software);
            }
            None => tx.event("ssh.invalid_banner", dir),
        }
        tx.advance(dir, Stage::Line);
        Some(line.len())
    }

    /// RFC 4253, section 6: length, padding's length, the message.
    fn record(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<(usize, Next)> {
        let dir = io.dir;
        let &[a, b, c, d, _, message, ref rest @ ..] = bytes else { return None };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(2..=RECORD_BYTES_MAX).contains(&len) {
            io.event(self.tx, "ssh.invalid_record");
            return Some((0, Next::Finished(Finished::Malformed("record length"))));
        }
        match message {
            KEY_EXCHANGE => {
                let content = rest.get(..len - 2)?;
                self.key_exchange(content, io);
                Some((4 + len, Next::Continue))
            }
            NEW_KEYS => {
                bytes.get(..4 + len)?;
                self.states[dir as usize] = State::Encrypted;
                if let Some(tx) = self.tx.and_then(|id| io.tx(id)) {
                    tx.advance(dir, Stage::Complete);
                }
                Some((4 + len, Next::Continue))
            }
            _ => {
                self.states[dir as usize] = State::Skip(4 + len);
                Some((0, Next::Continue))
            }
        }
    }

    /// RFC 4253, section 7.1: a cookie and ten lists of names.
    fn key_exchange(&mut self, content: &[u8], io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(tx) = self.tx.and_then(|id| io.tx(id)) else { return };
        let mut rest = content.get(16..).unwrap_or_default();
        let mut lists: [&[u8]; 8] = [b""; 8];
        for list in &mut lists {
            let found = rest.split_first_chunk::<4>().and_then(|(len, rest)| rest.split_at_checked(u32::from_be_bytes(*len) as usize));
            let Some((names, after)) = found else {
                return tx.event("ssh.invalid_record", dir);
            };
            (*list, rest) = (names, after);
        }
        // Key exchange, host keys, then encryption, MAC and compression, each to the server and to the client.
        let side = dir as usize;
        let text = [lists[0], lists[2 + side], lists[4 + side], lists[6 + side]].join(&b';');
        let (string, hash) = match dir {
            Dir::ToServer => (Buffer::SshHasshString, Buffer::SshHassh),
            Dir::ToClient => (Buffer::SshHasshServerString, Buffer::SshHasshServer),
        };
        tx.value(string, dir, &text);
        let digits: Vec<u8> = Md5::digest(&text).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
        tx.value(hash, dir, &digits);
        tx.advance(dir, Stage::Headers);
    }
}

impl Parser for Ssh {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.tx.is_none() {
            self.tx = io.begin(Protocol::Ssh);
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], io) {
                Some((taken, Next::Continue)) => at += taken,
                Some((taken, next)) => return Step { consumed: at + taken, next },
                None => break,
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        match &mut self.states[io.dir as usize] {
            State::Encrypted => Next::Continue,
            State::Skip(left) if *left as u64 > len => {
                *left -= len as usize;
                Next::Continue
            }
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
