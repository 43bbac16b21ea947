//! POP3 (RFC 1939, 2449, 2595): a command with its reply is a transaction, the greeting too.

use std::collections::VecDeque;

use crate::context::Io;
use crate::lines::{Line, Lines, command};
use crate::names::{Buffer, Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// A line; what is more of it is not read. RFC 2449 allows 255 and 512.
const LINE_BYTES_MAX: usize = 4096;
const REQUEST_BYTES_MAX: usize = 255;
const REPLY_BYTES_MAX: usize = 512;
/// Commands without a reply; more end the session.
const COMMANDS_MAX: usize = 256;
/// Lines of a reply that are written down.
const NOTED_MAX: u32 = 64;

/// Commands, and how many arguments they may have.
const COMMANDS: &[(&[u8], usize, usize)] = &[
    (b"APOP", 2, 2),
    (b"AUTH", 0, 2),
    (b"CAPA", 0, 0),
    (b"DELE", 1, 1),
    (b"LIST", 0, 1),
    (b"NOOP", 0, 0),
    (b"PASS", 1, usize::MAX),
    (b"QUIT", 0, 0),
    (b"RETR", 1, 1),
    (b"RSET", 0, 0),
    (b"STAT", 0, 0),
    (b"STLS", 0, 0),
    (b"TOP", 2, 2),
    (b"UIDL", 0, 1),
    (b"USER", 1, 1),
];

/// A server's greeting; commands alone may be those of FTP.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToServer {
        let known = COMMANDS.iter().any(|(name, ..)| bytes.iter().zip(*name).all(|(a, b)| a.eq_ignore_ascii_case(b)));
        return if known && bytes.len() < LINE_BYTES_MAX { Probe::More } else { Probe::No };
    }
    match bytes {
        // Without a text it may be an answer of Redis.
        [b'+', b'O', b'K', b' ', ..] => Probe::Yes,
        _ if b"+OK ".starts_with(bytes) => Probe::More,
        _ => Probe::No,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pop3 {
    lines: [Lines; 2],
    /// What waits for a reply.
    asked: VecDeque<Asked>,
    /// The reply goes on until a line with a dot.
    open: Option<Open>,
    /// Lines of the client that are an answer to the server's challenge, not commands.
    authenticates: bool,
}

#[derive(Debug)]
struct Asked {
    tx: u64,
    /// More lines follow a good reply.
    is_long: bool,
    starts_tls: bool,
}

#[derive(Debug)]
struct Open {
    tx: u64,
    noted: u32,
}

impl Pop3 {
    fn request(&mut self, text: &[u8], long: bool, io: &mut Io<'_>) -> Option<Next> {
        if self.authenticates || text.is_empty() {
            return None;
        }
        if self.asked.len() >= COMMANDS_MAX {
            return Some(Next::Finished(Finished::Cap("COMMANDS_MAX")));
        }
        let dir = Dir::ToServer;
        let Some(id) = io.begin(Protocol::Pop3) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let (word, rest) = command(text);
        let word = word.to_ascii_uppercase();
        let arguments: Vec<&[u8]> = rest.split(u8::is_ascii_whitespace).filter(|argument| !argument.is_empty()).collect();
        let tx = io.tx(id)?;
        tx.value(Buffer::Pop3Command, dir, &word);
        tx.notes.object("request");
        tx.notes.text("command", &word);
        tx.notes.list("args");
        arguments.iter().take(NOTED_MAX as usize).for_each(|argument| tx.notes.text("", argument));
        tx.notes.end();
        tx.notes.end();
        match COMMANDS.iter().find(|(name, ..)| *name == word) {
            None => tx.event("pop3.unknown_command", dir),
            Some((_, min, max)) if !(*min..=*max).contains(&arguments.len()) => tx.event("pop3.incorrect_argument_count", dir),
            Some(_) => {}
        }
        if long || text.len() > REQUEST_BYTES_MAX {
            tx.event("pop3.request_too_long", dir);
        }
        tx.advance(dir, Stage::Complete);
        let is_long = match word.as_slice() {
            b"RETR" | b"TOP" | b"CAPA" => true,
            b"LIST" | b"UIDL" => arguments.is_empty(),
            _ => false,
        };
        self.authenticates = word == b"AUTH";
        self.asked.push_back(Asked { tx: id, is_long, starts_tls: word == b"STLS" });
        None
    }

    fn reply(&mut self, text: &[u8], long: bool, io: &mut Io<'_>) -> Option<Next> {
        let dir = Dir::ToClient;
        if let Some(open) = &mut self.open {
            let id = open.tx;
            if text == b"." {
                if let Some(tx) = io.tx(id) {
                    tx.notes.end();
                    tx.notes.end();
                }
                complete(id, io);
                self.open = None;
            } else if open.noted < NOTED_MAX {
                open.noted += 1;
                let text = if text.starts_with(b"..") { &text[1..] } else { text };
                if let Some(tx) = io.tx(id) {
                    tx.notes.text("", text);
                }
            }
            return None;
        }
        // A challenge goes on with the client.
        if text.starts_with(b"+ ") || text == b"+" {
            return None;
        }
        self.authenticates = false;
        let asked = match self.asked.pop_front() {
            Some(asked) => asked,
            None => {
                let Some(tx) = io.begin(Protocol::Pop3) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
                Asked { tx, is_long: false, starts_tls: false }
            }
        };
        let (status, header) = command(text);
        let good = status == b"+OK";
        let tx = io.tx(asked.tx)?;
        let shown = status.strip_prefix(b"+").or_else(|| status.strip_prefix(b"-")).unwrap_or(status);
        tx.value(Buffer::Pop3Status, dir, shown);
        if long || text.len() > REPLY_BYTES_MAX {
            tx.event("pop3.response_too_long", dir);
        }
        note_reply(tx, good, shown, header);
        if good && asked.is_long {
            tx.notes.list("data");
            self.open = Some(Open { tx: asked.tx, noted: 0 });
            return None;
        }
        tx.notes.end();
        complete(asked.tx, io);
        (good && asked.starts_tls).then_some(Next::Switch)
    }
}

/// Leaves the object open: lines may follow.
fn note_reply(tx: &mut Transaction, good: bool, status: &[u8], header: &[u8]) {
    tx.notes.object("response");
    tx.notes.truth("success", good);
    tx.notes.text("status", status);
    tx.notes.text("header", header);
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

impl Parser for Pop3 {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while let Some((line, taken)) = self.lines[io.dir as usize].next(&bytes[at..], LINE_BYTES_MAX) {
            at += taken;
            let Line::Whole { text, long } = line else { continue };
            let next = match io.dir {
                Dir::ToServer => self.request(text, long, io),
                Dir::ToClient => self.reply(text, long, io),
            };
            if let Some(next) = next {
                return Step { consumed: at, next };
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Finished(Finished::Gap)
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
