//! FTP (RFC 959): commands and replies. A command and what is replied to it are one transaction; so is a greeting.
//!
//! The data connections that are agreed on are told of ([`crate::Sink::expect`]) with the command that they serve. After `AUTH TLS` was
//! accepted, what follows is recognised anew.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use crate::context::Io;
use crate::lines::{Line, Lines, command, probe_commands, probe_greeting, reply};
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::{Expectation, Finished};
use crate::transaction::Transaction;

/// Lines of replies that one transaction keeps.
const REPLIES_MAX: usize = 256;
/// Values of `ftp.mode`.
const ACTIVE: u64 = 1;
const PASSIVE: u64 = 2;
/// Commands that a client may begin with.
const FIRST: &[&[u8]] = &[b"USER", b"FEAT", b"SYST", b"ACCT", b"OPTS", b"PASV", b"EPSV", b"PBSZ", b"CLNT"];

/// A client's first command; `AUTH` only with TLS, as mail has it too.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToClient {
        return probe_greeting(bytes);
    }
    probe_commands(bytes, |word, argument| {
        let tls = argument.eq_ignore_ascii_case(b"TLS") || argument.eq_ignore_ascii_case(b"SSL");
        FIRST.contains(&word) || word == b"AUTH" && tls
    })
}

#[derive(Debug, Default)]
pub(crate) struct Ftp {
    lines: [Lines; 2],
    /// Commands without a final reply.
    waiting: VecDeque<Waiting>,
    /// The next data connection, as `PORT` or a reply to `PASV` says it.
    port: Option<(Option<IpAddr>, u16, Dir)>,
}

#[derive(Debug, Clone)]
struct Waiting {
    tx: u64,
    kind: Kind,
    replies: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Greeting,
    Auth,
    Other,
}

impl Ftp {
    fn command(&mut self, line: &[u8], long: bool, io: &mut Io<'_>) -> Next {
        let (word, rest) = command(line);
        if word.is_empty() {
            return Next::Continue;
        }
        let Some(id) = io.begin(Protocol::Ftp) else {
            io.event(self.waiting.back().map(|waiting| waiting.tx), "ftp.too_many_transactions");
            return Next::Finished(Finished::Cap("transactions_max"));
        };
        let dir = io.dir;
        let upper = word.to_ascii_uppercase();
        let named = match upper.as_slice() {
            b"PORT" => comma_address(rest).map(|(address, port)| (Some(address), port, Dir::ToClient)),
            b"EPRT" => bar_address(rest).map(|(address, port)| (address, port, Dir::ToClient)),
            _ => None,
        };
        let moves = matches!(upper.as_slice(), b"RETR" | b"STOR" | b"STOU" | b"APPE" | b"LIST" | b"NLST" | b"MLSD");
        let Some(tx) = io.tx(id) else { return Next::Continue };
        tx.value(Buffer::FtpCommand, dir, word);
        tx.value(Buffer::FtpCommandData, dir, rest);
        if long {
            tx.event("ftp.request_command_too_long", dir);
        }
        if let Some((_, port, _)) = named {
            data_port(port, ACTIVE, tx);
        }
        self.port = named.or(self.port);
        if moves {
            if matches!(upper.as_slice(), b"RETR" | b"STOR") && rest.is_empty() {
                tx.event("ftp.file_without_name", dir);
            }
            match self.port.take() {
                Some((address, port, opened_by)) => {
                    let command = [upper.as_slice(), b" ", rest].concat();
                    io.sink.expect(&Expectation { protocol: Protocol::FtpData, address, port, opened_by, command });
                }
                None if matches!(upper.as_slice(), b"RETR" | b"STOR") => io.event(Some(id), "ftp.file_before_port"),
                None => {}
            }
        }
        if let Some(tx) = io.tx(id) {
            tx.advance(dir, Stage::Complete);
        }
        let kind = if upper == b"AUTH" { Kind::Auth } else { Kind::Other };
        self.waiting.push_back(Waiting { tx: id, kind, replies: 0 });
        Next::Continue
    }

    fn reply(&mut self, line: &[u8], long: bool, io: &mut Io<'_>) -> Next {
        let dir = io.dir;
        if self.waiting.is_empty() {
            let Some(id) = io.begin(Protocol::Ftp) else {
                io.event(self.waiting.back().map(|waiting| waiting.tx), "ftp.too_many_transactions");
                return Next::Finished(Finished::Cap("transactions_max"));
            };
            if let Some(tx) = io.tx(id) {
                tx.advance(Dir::ToServer, Stage::Complete);
            }
            self.waiting.push_back(Waiting { tx: id, kind: Kind::Greeting, replies: 0 });
        }
        let Some(waiting) = self.waiting.front_mut() else { return Next::Continue };
        let (id, kind) = (waiting.tx, waiting.kind);
        waiting.replies += 1;
        let kept = waiting.replies <= REPLIES_MAX;
        let found = reply(line);
        let Some(tx) = io.tx(id) else { return Next::Continue };
        tx.overflowed |= !kept;
        if long {
            tx.event("ftp.response_command_too_long", dir);
        }
        if waiting.replies == 1 {
            tx.integer_is(Field::FtpReplyReceived, dir, 1);
        }
        let text = found.map_or(line, |(_, _, text)| text);
        if kept {
            if found.is_some() {
                tx.value(Buffer::FtpCompletionCode, dir, &line[..3]);
            }
            tx.value(Buffer::FtpReply, dir, text);
        }
        let passive = match found {
            Some((227, _, text)) => memchr::memchr(b'(', text).and_then(|at| comma_address(&text[at + 1..])).map(|(a, p)| (Some(a), p)),
            Some((229, _, text)) => memchr::memchr(b'(', text).and_then(|at| bar_address(&text[at + 1..])).map(|(_, p)| (None, p)),
            _ => None,
        };
        if let Some((address, port)) = passive {
            data_port(port, PASSIVE, tx);
            self.port = Some((address, port, Dir::ToServer));
        }
        // A line without a code belongs to a reply of several; 1xx: another follows.
        if found.is_none_or(|(code, more, _)| more || (100..200).contains(&code)) {
            return Next::Continue;
        }
        tx.advance(dir, Stage::Complete);
        self.waiting.pop_front();
        match (kind, found) {
            (Kind::Auth, Some((234, ..))) => Next::Switch,
            _ => Next::Continue,
        }
    }
}

/// Where the next data connection goes, for rules about either direction.
fn data_port(port: u16, mode: u64, tx: &mut Transaction) {
    for dir in [Dir::ToServer, Dir::ToClient] {
        tx.integer_is(Field::FtpDynamicPort, dir, u64::from(port));
    }
    tx.integer_is(Field::FtpMode, Dir::ToServer, mode);
}

/// A data connection: all of it is one file, in the direction in which it comes.
#[derive(Debug)]
pub(crate) struct Data {
    /// `RETR name`
    command: Vec<u8>,
    open: Option<(u64, Option<u8>, Dir)>,
}

impl Data {
    pub fn new(command: &[u8]) -> Self {
        Self { command: command.to_vec(), open: None }
    }

    fn begin(&self, io: &mut Io<'_>) -> Option<(u64, Option<u8>, Dir)> {
        let dir = io.dir;
        let id = io.begin(Protocol::FtpData)?;
        let tx = io.tx(id)?;
        let (word, name) = command(&self.command);
        tx.value(Buffer::FtpCommand, Dir::ToServer, word);
        tx.value(Buffer::FileName, dir, name);
        match word {
            b"RETR" => tx.integer_is(Field::FtpdataCommand, Dir::ToServer, 1),
            b"STOR" => tx.integer_is(Field::FtpdataCommand, Dir::ToServer, 2),
            _ => {}
        }
        tx.advance(dir, Stage::Body);
        tx.advance(dir.other(), Stage::Complete);
        Some((id, tx.open_stream(&[Buffer::FileData], dir), dir))
    }
}

impl Parser for Data {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.open.is_none() {
            self.open = self.begin(io);
        }
        if let Some((id, Some(stream), dir)) = self.open
            && dir == io.dir
        {
            io.context.stats.body_bytes += bytes.len() as u64;
            io.grow(id, stream, bytes);
        }
        Step::on(bytes.len())
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        if let Some((id, Some(stream), dir)) = self.open
            && dir == io.dir
        {
            io.skip(id, stream, len);
        }
        Next::Continue
    }

    fn end(&mut self, _: &[u8], io: &mut Io<'_>) {
        if let Some((id, stream, dir)) = self.open
            && dir == io.dir
            && let Some(tx) = io.tx(id)
        {
            if let Some(stream) = stream {
                let length = tx.stream_len(stream);
                tx.integer_is(Field::FileSize, dir, length);
                tx.close_stream(stream);
            }
            tx.advance(dir, Stage::Complete);
        }
    }
}

/// `192,0,2,1,4,0`, up to what is no number.
fn comma_address(text: &[u8]) -> Option<(IpAddr, u16)> {
    let mut numbers = [0_u8; 6];
    let mut parts = text.split(|byte| *byte == b',');
    for number in &mut numbers {
        let part = parts.next()?.trim_ascii();
        let digits = part.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *number = std::str::from_utf8(&part[..digits]).ok()?.parse().ok()?;
    }
    let [a, b, c, d, high, low] = numbers;
    Some((IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([high, low])))
}

/// `|2|2001:db8::1|1024|` (RFC 2428); address and family may be absent.
fn bar_address(text: &[u8]) -> Option<(Option<IpAddr>, u16)> {
    let (bar, rest) = text.split_first()?;
    let mut parts = rest.split(|byte| byte == bar).skip(1);
    let address = std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let port = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((address, port))
}

impl Parser for Ftp {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while let Some((line, taken)) = self.lines[io.dir as usize].next(&bytes[at..], io.context.config.ftp_line_bytes_max) {
            at += taken;
            let Line::Whole { text, long } = line else { continue };
            let next = match io.dir {
                Dir::ToServer => self.command(text, long, io),
                Dir::ToClient => self.reply(text, long, io),
            };
            if next != Next::Continue {
                return Step { consumed: at, next };
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        // Which reply belongs to which command cannot be told any more.
        Next::Finished(Finished::Gap)
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
