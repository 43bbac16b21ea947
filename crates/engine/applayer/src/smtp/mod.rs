//! SMTP (RFC 5321): commands, replies, and the mail itself (`mime`). Each mail is a transaction, with the greeting that came before.
//!
//! What a client sends behind `DATA` or `STARTTLS` is read when the answer is known, as only that tells what it is; that it did not wait
//! for the answer is an event at once.

mod links;
mod mime;

use std::collections::VecDeque;

use md5::{Digest, Md5};

use crate::context::Io;
use crate::lines::{Line, Lines, command, probe_commands, probe_greeting, reply};
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::hex;
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use links::Links;
use mime::{Found, Mail};

/// One line of a command or reply; the reference engine's `SMTP_LINE_BUFFER_LIMIT`.
const LINE_BYTES_MAX: usize = 4096;
/// Commands without a reply.
const COMMANDS_MAX: usize = 512;
/// Commands that a client may begin with.
const FIRST: &[&[u8]] = &[b"EHLO", b"HELO", b"LHLO", b"MAIL", b"STARTTLS"];

/// Fields of a mail with a buffer of their own.
const OWN: &[(&[u8], Buffer)] = &[
    (b"from", Buffer::EmailFrom),
    (b"to", Buffer::EmailTo),
    (b"cc", Buffer::EmailCc),
    (b"subject", Buffer::EmailSubject),
    (b"date", Buffer::EmailDate),
    (b"message-id", Buffer::EmailMessageId),
    (b"x-mailer", Buffer::EmailXMailer),
    (b"received", Buffer::EmailReceived),
];

/// A client's first command; a server's greeting may be one of FTP too.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToClient {
        return probe_greeting(bytes);
    }
    probe_commands(bytes, |word, _| FIRST.contains(&word))
}

#[derive(Debug, Default)]
pub(crate) struct Smtp {
    lines: [Lines; 2],
    mode: Mode,
    /// Commands without a final reply.
    waiting: VecDeque<Waiting>,
    greeted: bool,
    helo: Vec<u8>,
    tx: Option<u64>,
    mail: Option<Box<Content>>,
    /// The client's bytes can be read on.
    wake: bool,
}

/// What the client's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Commands,
    /// Not known before the next reply but so many.
    Unknown,
    /// A mail that ends with a dot; whether at the beginning of a line.
    Data { line: bool },
    /// A chunk of a mail (RFC 3030), its bytes to come, and whether it is the last.
    Chunk { left: u64, last: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Data,
    StartTls,
    /// Ends this transaction.
    End(u64),
    Other,
}

/// The mail that is being read, and where its file streams to.
#[derive(Debug, Default)]
struct Content {
    mail: Mail,
    file: Option<u8>,
    links: Links,
    /// Of the body as it came, where somebody asks for it.
    digest: Option<Md5>,
}

impl Content {
    fn push(&mut self, mut bytes: &[u8], id: u64, io: &mut Io<'_>) {
        // Where the header ends is seen at the end of a line.
        while !bytes.is_empty() {
            let in_body = self.mail.in_body();
            let line = if in_body { bytes.len() } else { memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1) };
            let (now, later) = bytes.split_at(line);
            if in_body && let Some(digest) = &mut self.digest {
                digest.update(now);
            }
            let Self { mail, file, links, .. } = self;
            mail.push(now, &mut |found| told(found, file, links, id, io));
            bytes = later;
        }
    }

    fn end(mut self, id: u64, io: &mut Io<'_>) {
        let Self { mail, file, links, .. } = &mut self;
        mail.end(&mut |found| told(found, file, links, id, io));
        let dir = io.dir;
        let Some(tx) = io.tx(id) else { return };
        tx.notes.text("status", "PARSE_DONE");
        // The newest stands first in the reference engine's record.
        if !links.all.is_empty() {
            tx.notes.list("url");
            links.all.iter().rev().for_each(|link| tx.notes.text("", link));
            tx.notes.end();
        }
        if let Some(digest) = self.digest {
            let digest = hex(&digest.finalize());
            tx.value(Buffer::EmailBodyMd5, dir, digest.as_bytes());
            tx.notes.text("body_md5", digest);
        }
    }
}

impl Smtp {
    /// The transaction of the next mail. `None`: there is no room for one.
    fn tx(&mut self, io: &mut Io<'_>) -> Option<u64> {
        if self.tx.is_none() {
            let id = io.begin(Protocol::Smtp)?;
            self.tx = Some(id);
            if !self.helo.is_empty()
                && let Some(tx) = io.tx(id)
            {
                tx.value(Buffer::SmtpHelo, Dir::ToServer, &self.helo);
            }
        }
        self.tx
    }

    fn command(&mut self, line: &[u8], long: bool, io: &mut Io<'_>) -> Next {
        let (word, rest) = command(line);
        let dir = io.dir;
        let word = word.to_ascii_uppercase();
        if word.is_empty() {
            return Next::Continue;
        }
        if self.waiting.len() >= COMMANDS_MAX {
            return Next::Finished(Finished::Cap("COMMANDS_MAX"));
        }
        let mut waiting = Waiting::Other;
        let value = match word.as_slice() {
            b"EHLO" | b"HELO" | b"LHLO" => {
                // Begins anew.
                if !self.helo.is_empty() {
                    io.event(self.tx, "smtp.duplicate_fields");
                }
                if self.tx.is_some() && !self.helo.is_empty() {
                    waiting = self.close(io).map_or(Waiting::Other, Waiting::End);
                }
                self.helo = rest.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
                None
            }
            b"MAIL" => argument(rest, b"FROM").map(|value| (Buffer::SmtpMailFrom, value)),
            b"RCPT" => argument(rest, b"TO").map(|value| (Buffer::SmtpRcptTo, value)),
            _ => None,
        };
        match word.as_slice() {
            b"RSET" | b"QUIT" => waiting = self.close(io).map_or(Waiting::Other, Waiting::End),
            b"DATA" => (self.mode, waiting) = (Mode::Unknown, Waiting::Data),
            b"STARTTLS" => (self.mode, waiting) = (Mode::Unknown, Waiting::StartTls),
            b"BDAT" => {
                let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                let left = words.next().and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
                let last = words.next();
                let is_last = last.is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
                match left {
                    // A server refuses what it does not understand, and reads on.
                    Some(left) if is_last || last.is_none() => self.mode = Mode::Chunk { left, last: is_last },
                    Some(_) | None => io.event(self.tx, "smtp.invalid_bdat"),
                }
            }
            _ => {}
        }
        // What belongs to no mail needs none.
        if !matches!(word.as_slice(), b"RSET" | b"QUIT" | b"NOOP" | b"STARTTLS") {
            let Some(id) = self.tx(io) else { return Next::Finished(Finished::Cap("transactions_max")) };
            if let (Some((buffer, value)), Some(tx)) = (value, io.tx(id)) {
                if buffer == Buffer::SmtpMailFrom && tx.first(buffer, dir).is_some() {
                    tx.event("smtp.duplicate_fields", dir);
                }
                tx.value(buffer, dir, value);
            }
        }
        if long {
            io.event(self.tx, "smtp.max_command_line_len_exceeded");
        }
        self.waiting.push_back(waiting);
        if let Mode::Chunk { left: 0, last } = self.mode {
            self.chunk_ended(last, io);
        }
        Next::Continue
    }

    fn reply(&mut self, line: &[u8], long: bool, io: &mut Io<'_>) -> Next {
        let dir = io.dir;
        if long {
            io.event(self.tx, "smtp.max_reply_line_len_exceeded");
        }
        let Some((code, more, _)) = reply(line) else {
            io.event(self.tx, "smtp.invalid_reply");
            return Next::Continue;
        };
        if more {
            return Next::Continue;
        }
        let Some(waiting) = self.waiting.pop_front() else {
            if std::mem::replace(&mut self.greeted, true) {
                io.event(self.tx, "smtp.unable_to_match_reply_with_request");
            } else if code != 220 {
                io.event(self.tx, "smtp.no_server_welcome_message");
            }
            return Next::Continue;
        };
        match (waiting, code) {
            (Waiting::Data, 354) => {
                self.mode = Mode::Data { line: true };
                self.wake = true;
            }
            (Waiting::Data, _) => {
                io.event(self.tx, "smtp.data_command_rejected");
                (self.mode, self.wake) = (Mode::Commands, true);
            }
            (Waiting::StartTls, 220) => return Next::Switch,
            (Waiting::StartTls, _) => {
                io.event(self.tx, "smtp.tls_rejected");
                (self.mode, self.wake) = (Mode::Commands, true);
            }
            (Waiting::End(id), _) => {
                if let Some(tx) = io.tx(id) {
                    tx.advance(dir, Stage::Complete);
                }
            }
            (Waiting::Other, _) => {}
        }
        Next::Continue
    }

    /// Of a mail that ends with a dot. Gives the bytes taken; `None`: too few to go on.
    fn mail_bytes(&mut self, bytes: &[u8], line: bool, io: &mut Io<'_>) -> Option<usize> {
        if line {
            match bytes {
                [b'.', b'\r', b'\n', ..] | [b'.', b'\n', ..] => {
                    self.mail_ended(io);
                    let waiting = self.close(io).map_or(Waiting::Other, Waiting::End);
                    self.waiting.push_back(waiting);
                    self.mode = Mode::Commands;
                    return Some(if bytes[1] == b'\n' { 2 } else { 3 });
                }
                [b'.'] | [b'.', b'\r'] => return None,
                // A dot that was added (RFC 5321, section 4.5.2).
                [b'.', ..] => {
                    self.mode = Mode::Data { line: false };
                    let content = self.mail(io);
                    if content.mail.in_body()
                        && let Some(digest) = &mut content.digest
                    {
                        digest.update(b".");
                    }
                    return Some(1);
                }
                _ => {}
            }
        }
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        self.mode = Mode::Data { line: end.is_some() };
        self.content(&bytes[..taken], io);
        Some(taken)
    }

    fn content(&mut self, bytes: &[u8], io: &mut Io<'_>) {
        let Some(id) = self.tx(io) else { return };
        io.context.stats.body_bytes += bytes.len() as u64;
        self.mail(io).push(bytes, id, io);
    }

    fn mail(&mut self, io: &Io<'_>) -> &mut Content {
        let digest = || io.context.config.wanted.contains(Buffer::EmailBodyMd5).then(Md5::new);
        self.mail.get_or_insert_with(|| Box::new(Content { digest: digest(), ..Content::default() }))
    }

    fn mail_ended(&mut self, io: &mut Io<'_>) {
        if let (Some(content), Some(id)) = (self.mail.take(), self.tx) {
            content.end(id, io);
        }
    }

    fn chunk_ended(&mut self, last: bool, io: &mut Io<'_>) {
        self.mode = Mode::Commands;
        if last {
            self.mail_ended(io);
            // Its own command is the last that waits.
            let waiting = self.close(io).map_or(Waiting::Other, Waiting::End);
            if let Some(own) = self.waiting.back_mut() {
                *own = waiting;
            }
        }
    }

    /// The transaction ends with the reply to what the client says now.
    fn close(&mut self, io: &mut Io<'_>) -> Option<u64> {
        self.mail_ended(io);
        let id = self.tx.take()?;
        if let Some(tx) = io.tx(id) {
            tx.advance(Dir::ToServer, Stage::Complete);
        }
        Some(id)
    }
}

/// `FROM:<a@b> SIZE=1`: the address as it stands there.
fn argument<'a>(rest: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = rest.split_at_checked(word.len()).filter(|(found, _)| found.eq_ignore_ascii_case(word))?;
    let _ = found;
    let value = value.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    Some(&value[..value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len())])
}

fn told(found: Found<'_>, file: &mut Option<u8>, links: &mut Links, id: u64, io: &mut Io<'_>) {
    let dir = io.dir;
    match found {
        Found::Field { name, value } => {
            let buffer = OWN.iter().find(|(own, _)| name.eq_ignore_ascii_case(own));
            if let (Some((_, buffer)), Some(tx)) = (buffer, io.tx(id)) {
                tx.value(*buffer, dir, value);
                if *buffer == Buffer::EmailSubject && !tx.notes.is_off() {
                    tx.notes.text("subject_md5", hex(&Md5::digest(value)));
                }
            }
        }
        Found::Text(line) => {
            let schemes = std::mem::take(&mut io.context.config.email_url_schemes);
            links.find(line, &schemes, &mut |link| {
                if let Some(tx) = io.tx(id) {
                    tx.value(Buffer::EmailUrl, dir, link);
                }
            });
            io.context.config.email_url_schemes = schemes;
        }
        Found::File(name) => {
            if let Some(tx) = io.tx(id) {
                tx.advance(dir, Stage::Body);
                tx.value(Buffer::FileName, dir, name);
                *file = tx.open_stream(&[Buffer::FileData], dir);
            }
        }
        Found::Bytes(bytes) => {
            if let Some(file) = *file {
                io.grow(id, file, bytes);
            }
        }
        Found::End => {
            if let (Some(file), Some(tx)) = (file.take(), io.tx(id)) {
                let length = tx.stream_len(file);
                tx.integer_is(Field::FileSize, dir, length);
                tx.close_stream(file);
            }
        }
        Found::Event(event) => io.event(Some(id), event),
    }
}

impl Parser for Smtp {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let mode = if io.dir == Dir::ToServer { self.mode } else { Mode::Commands };
            match mode {
                Mode::Commands => {
                    let Some((line, taken)) = self.lines[io.dir as usize].next(rest, LINE_BYTES_MAX) else { break };
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
                Mode::Unknown => {
                    // RFC 2920, section 3.1: these commands are the last of a group.
                    io.event(self.tx, "smtp.invalid_pipelined_sequence");
                    break;
                }
                Mode::Data { line } => match self.mail_bytes(rest, line, io) {
                    Some(taken) => at += taken,
                    None => break,
                },
                Mode::Chunk { left, last } => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    at += take;
                    self.content(&rest[..take], io);
                    self.mode = Mode::Chunk { left: left - take as u64, last };
                    if take as u64 == left {
                        self.chunk_ended(last, io);
                    }
                }
            }
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        // Where a mail ends, and which reply belongs to which command, cannot be told any more.
        Next::Finished(Finished::Gap)
    }

    fn end(&mut self, pending: &[u8], io: &mut Io<'_>) {
        if io.dir == Dir::ToClient {
            return;
        }
        // Nobody has said what it is: it is a mail if anything.
        if self.mode == Mode::Unknown && self.waiting.back() == Some(&Waiting::Data) {
            self.mode = Mode::Data { line: true };
            let _ = self.data(pending, io);
        }
        self.mail_ended(io);
    }

    fn wakes_other(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }
}
