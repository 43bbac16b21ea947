//! PostgreSQL's protocol, version 3 (PostgreSQL's manual, chapter "Frontend/Backend Protocol"). What a client asks and what is answered up to
//! the next word that is the client's are one transaction.
//!
//! ```text
//! requests ─ open, in order ─ answers go to the first ─ ready for a query, or to be authenticated: complete
//! ```
//! Rows and copied data are counted as they pass and not kept. A long query is shown as it comes.

use std::collections::VecDeque;

use crate::context::Io;
use crate::cursor::Cursor;
use crate::names::{Buffer, Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// A message that is waited for; of longer ones queries are shown as they come, and others passed over.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The server's own limit of a startup packet (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_BYTES_MAX: u32 = 10_000;
/// Requests of one session that are not answered; the oldest are given up.
const WAITING_MAX: usize = 256;
/// Answers of one transaction that the log tells of.
const ANSWERS_MAX: u32 = 1024;

const VERSION_3: u32 = 3 << 16;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// A startup packet, or a request for encryption.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToClient {
        return Probe::No;
    }
    if !b"\0\0".starts_with(&bytes[..bytes.len().min(2)]) {
        return Probe::No;
    }
    let mut rest = Cursor(bytes);
    let (Some(len), Some(code)) = (rest.u32(), rest.u32()) else { return Probe::More };
    match (code, len) {
        (SSL | GSS, 8) | (CANCEL, 16) => Probe::Yes,
        // `user`, `database`: names of parameters are letters.
        (VERSION_3, 10..=STARTUP_BYTES_MAX) => match rest.u8() {
            None => Probe::More,
            Some(first) if first.is_ascii_lowercase() || first == b'_' || first == 0 => Probe::Yes,
            Some(_) => Probe::No,
        },
        _ => Probe::No,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// The client's first packet has no type.
    #[default]
    Startup,
    /// Whether there is encryption is not known yet.
    Asked,
    Messages,
}

/// What a client's password message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Secret {
    #[default]
    Password,
    SaslFirst,
    Sasl,
}

#[derive(Debug, Default)]
pub(crate) struct Pgsql {
    phase: Phase,
    secret: Secret,
    waiting: VecDeque<Waiting>,
    /// A long message, by direction.
    long: [Option<Long>; 2],
    wake: bool,
}

#[derive(Debug)]
struct Waiting {
    tx: u64,
    rows: u64,
    copied: u64,
    bytes: u64,
    answers: u32,
    /// Of the extended protocol: further messages belong to it.
    extended: bool,
}

impl Waiting {
    const fn new(tx: u64, extended: bool) -> Self {
        Self { tx, rows: 0, copied: 0, bytes: 0, answers: 0, extended }
    }
}

#[derive(Debug, Clone, Copy)]
struct Long {
    left: usize,
    /// Transaction and stream of a query.
    query: Option<(u64, u8)>,
}

/// Up to the zero that ends it, or all.
fn text(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    &bytes[..end]
}

fn over(tx: &mut Transaction) {
    tx.advance(Dir::ToServer, Stage::Complete);
    tx.advance(Dir::ToClient, Stage::Complete);
}

fn full() -> Next {
    Next::Finished(Finished::Cap("transactions_max"))
}

impl Pgsql {
    /// A new transaction, its record's `request` open.
    fn begin(&mut self, io: &mut Io<'_>, extended: bool) -> Result<u64, Next> {
        if self.waiting.len() >= WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
            && let Some(tx) = io.tx(oldest.tx)
        {
            tx.event("pgsql.too_many_transactions", Dir::ToServer);
            over(tx);
        }
        let id = io.begin(Protocol::Pgsql).ok_or_else(full)?;
        self.waiting.push_back(Waiting::new(id, extended));
        if let Some(tx) = io.tx(id) {
            tx.notes.number("tx_id", id + 1);
        }
        Ok(id)
    }

    /// The request is all there.
    fn asked(id: u64, io: &mut Io<'_>) {
        if let Some(tx) = io.tx(id) {
            tx.advance(Dir::ToServer, Stage::Complete);
        }
    }

    /// Nothing is answered to this one.
    fn finish_last(&mut self, io: &mut Io<'_>) {
        if let Some(waiting) = self.waiting.pop_back()
            && let Some(tx) = io.tx(waiting.tx)
        {
            over(tx);
        }
    }

    fn startup(&mut self, packet: &[u8], io: &mut Io<'_>) -> Result<(), Next> {
        let mut rest = Cursor(packet);
        let code = rest.u32().unwrap_or(0);
        let id = self.begin(io, false)?;
        let dir = io.dir;
        let Some(tx) = io.tx(id) else { return Ok(()) };
        tx.notes.object("request");
        match code {
            SSL => {
                tx.notes.text("message", "SSL Request");
                self.phase = Phase::Asked;
            }
            GSS => {
                tx.notes.text("message", "GSS Encryption Request");
                self.phase = Phase::Asked;
            }
            CANCEL => {
                tx.notes.text("message", "cancel_request");
                tx.notes.number("process_id", rest.u32().unwrap_or(0));
                tx.notes.number("secret_key", rest.u32().unwrap_or(0));
            }
            _ if code >> 16 == 3 => {
                tx.notes.text("protocol_version", format!("3.{}", code & 0xffff));
                tx.notes.object("startup_parameters");
                startup_parameters(rest.0, tx);
                tx.notes.end();
                self.phase = Phase::Messages;
            }
            _ => {
                tx.event("pgsql.malformed_request", dir);
                tx.notes.end();
                over(tx);
                return Err(Next::Finished(Finished::Malformed("startup packet")));
            }
        }
        tx.notes.end();
        Self::asked(id, io);
        if code == CANCEL {
            self.finish_last(io);
        }
        Ok(())
    }

    /// One message of the client.
    fn request(&mut self, kind: u8, body: &[u8], io: &mut Io<'_>) -> Result<(), Next> {
        let dir = io.dir;
        match kind {
            b'Q' => {
                let id = self.begin(io, false)?;
                if let Some(tx) = io.tx(id) {
                    let query = text(body);
                    tx.value(Buffer::PgsqlQuery, dir, query);
                    tx.notes.object("request");
                    tx.notes.text("simple_query", query);
                    tx.notes.end();
                }
                Self::asked(id, io);
            }
            b'p' => {
                let id = self.begin(io, false)?;
                if let Some(tx) = io.tx(id) {
                    tx.notes.object("request");
                    self.secret(body, tx);
                    tx.notes.end();
                }
                Self::asked(id, io);
            }
            b'X' => {
                let id = self.begin(io, false)?;
                if let Some(tx) = io.tx(id) {
                    tx.notes.object("request");
                    tx.notes.text("message", "termination_message");
                    tx.notes.end();
                }
                self.finish_last(io);
            }
            // Parse, Bind, Describe, Execute, Close, Flush, Sync, a call of a function: together up to the answer to Sync.
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' | b'F' => {
                let id = match self.waiting.back().filter(|waiting| waiting.extended) {
                    Some(waiting) => waiting.tx,
                    None => self.begin(io, true)?,
                };
                if kind == b'P'
                    && let Some(tx) = io.tx(id)
                {
                    // The statement's name, and what it is.
                    let query = text(body.get(text(body).len() + 1..).unwrap_or_default());
                    tx.value(Buffer::PgsqlQuery, dir, query);
                    tx.notes.object("request");
                    tx.notes.text("parse", query);
                    tx.notes.end();
                }
                if matches!(kind, b'S' | b'F') {
                    Self::asked(id, io);
                    if let Some(waiting) = self.waiting.back_mut() {
                        waiting.extended = false;
                    }
                }
            }
            // Copied data, its end, its failure.
            b'd' | b'c' | b'f' => {}
            _ => io.event(self.waiting.back().map(|waiting| waiting.tx), "pgsql.malformed_request"),
        }
        Ok(())
    }

    fn secret(&self, body: &[u8], tx: &mut Transaction) {
        match self.secret {
            Secret::Password => tx.notes.text("password", text(body)),
            Secret::SaslFirst => {
                let mechanism = text(body);
                let name = match mechanism {
                    b"SCRAM-SHA-256" => &b"scram_SHA256"[..],
                    b"SCRAM-SHA-256-PLUS" => b"scram_SHA256_plus",
                    other => other,
                };
                tx.notes.text("sasl_authentication_mechanism", name);
                tx.notes.text("sasl_param", body.get(mechanism.len() + 5..).unwrap_or_default());
            }
            Secret::Sasl => tx.notes.text("sasl_response", body),
        }
    }

    /// One message of the server.
    fn answer(&mut self, kind: u8, body: &[u8], io: &mut Io<'_>) -> Result<(), Next> {
        let dir = io.dir;
        // What comes unasked.
        if self.waiting.is_empty() {
            if !matches!(kind, b'E' | b'N' | b'A') {
                return Ok(());
            }
            let id = self.begin(io, false)?;
            if let Some(tx) = io.tx(id) {
                tx.notes.object("response");
                let _ = show_answer(kind, body, tx);
                tx.notes.end();
            }
            self.finish_last(io);
            return Ok(());
        }
        let Some(waiting) = self.waiting.front_mut() else { return Ok(()) };
        let Some(tx) = io.tx(waiting.tx) else { return Ok(()) };
        waiting.answers += 1;
        tx.notes.object("response");
        if kind == b'C' && waiting.rows > 0 {
            tx.notes.number("data_rows", std::mem::take(&mut waiting.rows));
            tx.notes.number("data_size", std::mem::take(&mut waiting.bytes));
        }
        if kind == b'C' && waiting.copied > 0 {
            tx.notes.object("copy_data_out");
            tx.notes.number("row_count", std::mem::take(&mut waiting.copied));
            tx.notes.number("data_size", std::mem::take(&mut waiting.bytes));
            tx.notes.end();
        }
        if waiting.answers <= ANSWERS_MAX && show_answer(kind, body, tx).is_none() {
            tx.event("pgsql.malformed_response", dir);
        }
        tx.notes.end();
        let is_over = match (kind, body) {
            (b'Z', _) => true,
            (b'R', [0, 0, 0, 10, ..]) => {
                self.secret = Secret::SaslFirst;
                true
            }
            (b'R', [0, 0, 0, 11, ..]) => {
                self.secret = Secret::Sasl;
                true
            }
            (b'R', [0, 0, 0, 3 | 5 | 7 | 8 | 9, ..]) => {
                self.secret = Secret::Password;
                true
            }
            _ => false,
        };
        if is_over {
            over(tx);
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// The single byte that answers a request for encryption.
    fn encryption(&mut self, byte: u8, io: &mut Io<'_>) -> Option<Next> {
        let waiting = self.waiting.pop_front()?;
        let dir = io.dir;
        let tx = io.tx(waiting.tx)?;
        tx.notes.object("response");
        let next = match byte {
            b'S' => {
                tx.notes.truth("ssl_accepted", true);
                Some(Next::Switch)
            }
            b'N' => {
                tx.notes.truth("ssl_accepted", false);
                None
            }
            b'G' => Some(Next::Finished(Finished::Tunnel)),
            // An old server's error.
            b'E' => None,
            _ => {
                tx.event("pgsql.malformed_response", dir);
                Some(Next::Finished(Finished::Malformed("answer to a request for encryption")))
            }
        };
        tx.notes.end();
        over(tx);
        self.phase = Phase::Startup;
        self.wake = true;
        next
    }

    /// Rows and copied data: counted by their heads.
    fn count(&mut self, kind: u8, len: usize, head: &[u8]) {
        let Some(waiting) = self.waiting.front_mut() else { return };
        if kind == b'D' {
            let columns = head.first_chunk().map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
            waiting.rows += 1;
            waiting.bytes += len.saturating_sub(2 + 4 * columns) as u64;
        } else {
            waiting.copied += 1;
            waiting.bytes += len as u64;
        }
    }

    /// The bytes of a message that is too long to be waited for. Gives how many were taken.
    fn long(&mut self, bytes: &[u8], io: &mut Io<'_>) -> usize {
        let slot = &mut self.long[io.dir as usize];
        let Some(long) = slot else { return 0 };
        let take = long.left.min(bytes.len());
        long.left -= take;
        let Long { left, query } = *long;
        if left == 0 {
            *slot = None;
        }
        if let Some((id, stream)) = query {
            // The zero at its end is not its own.
            let shown = &bytes[..take - usize::from(left == 0 && take > 0)];
            io.grow(id, stream, shown);
            if left == 0 {
                if let Some(tx) = io.tx(id) {
                    tx.close_stream(stream);
                }
                Self::asked(id, io);
            }
        }
        take
    }

    /// A long message begins. `Err`: no room.
    fn begin_long(&mut self, kind: u8, len: usize, io: &mut Io<'_>) -> Result<(), Next> {
        let dir = io.dir;
        let mut query = None;
        if dir == Dir::ToServer && matches!(kind, b'Q' | b'P') {
            let id = self.begin(io, kind == b'P')?;
            query = io.tx(id).and_then(|tx| tx.open_stream(&[Buffer::PgsqlQuery], dir)).map(|stream| (id, stream));
        }
        self.long[dir as usize] = Some(Long { left: len, query });
        Ok(())
    }

    /// Reads on. `Ok(None)`: more bytes are needed.
    fn step(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Option<usize>, Next> {
        let dir = io.dir;
        if self.long[dir as usize].is_some() {
            return Ok(Some(self.long(bytes, io)).filter(|taken| *taken > 0));
        }
        if dir == Dir::ToServer && self.phase != Phase::Messages {
            // What a client sends behind its question waits for the answer.
            if self.phase == Phase::Asked {
                return Ok(None);
            }
            let Some(len) = Cursor(bytes).u32() else { return Ok(None) };
            if !(8..=STARTUP_BYTES_MAX).contains(&len) {
                io.event(None, "pgsql.invalid_length");
                return Err(Next::Finished(Finished::Malformed("length of a startup packet")));
            }
            let Some(packet) = bytes.get(4..len as usize) else { return Ok(None) };
            return self.startup(packet, io).map(|()| Some(len as usize));
        }
        if dir == Dir::ToClient && self.phase == Phase::Asked {
            let Some(first) = bytes.first() else { return Ok(None) };
            return match self.encryption(*first, io) {
                Some(next) => Err(next),
                // An error's message begins with this byte.
                None => Ok(Some(usize::from(*first != b'E'))),
            };
        }
        let mut rest = Cursor(bytes);
        let (Some(kind), Some(len)) = (rest.u8(), rest.u32()) else { return Ok(None) };
        let Some(len) = (len as usize).checked_sub(4).filter(|_| kind.is_ascii_alphanumeric()) else {
            io.event(self.waiting.back().map(|waiting| waiting.tx), "pgsql.invalid_length");
            return Err(Next::Finished(Finished::Malformed("message")));
        };
        if dir == Dir::ToClient && matches!(kind, b'D' | b'd') {
            if rest.0.len() < len.min(2) {
                return Ok(None);
            }
            self.count(kind, len, rest.0);
            self.begin_long(kind, len, io)?;
            return Ok(Some(5));
        }
        if len > MESSAGE_BYTES_MAX || dir == Dir::ToServer && kind == b'd' {
            self.begin_long(kind, len, io)?;
            // Of a statement's name nothing is shown apart.
            return Ok(Some(5));
        }
        let Some(body) = rest.take(len) else { return Ok(None) };
        match dir {
            Dir::ToServer => self.request(kind, body, io)?,
            Dir::ToClient => self.answer(kind, body, io)?,
        }
        Ok(Some(5 + len))
    }
}

/// Pairs of names and values, `user` apart.
fn startup_parameters(bytes: &[u8], tx: &mut Transaction) {
    let pairs = || {
        let mut parts = bytes.split(|byte| *byte == 0);
        std::iter::from_fn(move || Some((parts.next().filter(|name| !name.is_empty())?, parts.next()?)))
    };
    if let Some((_, user)) = pairs().find(|(name, _)| *name == b"user") {
        tx.notes.text("user", user);
    }
    tx.notes.list("optional_parameters");
    for (name, value) in pairs().filter(|(name, _)| *name != b"user") {
        parameter(name, value, tx);
    }
    tx.notes.end();
}

/// Some are written in another way than the protocol has them.
fn parameter(name: &[u8], value: &[u8], tx: &mut Transaction) {
    let name: &[u8] = match name {
        b"DateStyle" => b"date_style",
        b"IntervalStyle" => b"interval_style",
        b"TimeZone" => b"time_zone",
        other => other,
    };
    tx.notes.object("");
    tx.notes.pair(name, value);
    tx.notes.end();
}

/// `None`: it ends before it should.
fn show_answer(kind: u8, body: &[u8], tx: &mut Transaction) -> Option<()> {
    let mut rest = Cursor(body);
    match kind {
        b'R' => match rest.u32()? {
            0 => tx.notes.text("message", "authentication_ok"),
            3 => tx.notes.text("message", "authentication_cleartext_password"),
            5 => tx.notes.text("authentication_md5_password", rest.0),
            7 => tx.notes.text("message", "authentication_gss"),
            9 => tx.notes.text("authentication_sspi", rest.0),
            10 => tx.notes.text("message", "authentication_sasl"),
            11 => tx.notes.text("message", "authentication_sasl_continue"),
            12 => tx.notes.text("authentication_sasl_final", rest.0),
            _ => {}
        },
        b'S' => {
            let name = text(rest.0);
            let value = rest.0.get(name.len() + 1..)?;
            tx.notes.list("parameter_status");
            parameter(name, text(value), tx);
            tx.notes.end();
        }
        b'K' => {
            tx.notes.number("process_id", rest.u32()?);
            tx.notes.number("secret_key", rest.u32()?);
        }
        b'T' => tx.notes.number("field_count", rest.u16()?),
        b'C' => tx.notes.text("command_completed", text(body)),
        b'E' | b'N' => {
            for field in body.split(|byte| *byte == 0) {
                if let Some((code, value)) = field.split_first()
                    && let Some(name) = fault_field(*code)
                {
                    tx.notes.text(name, value);
                }
            }
        }
        b'A' => {
            tx.notes.number("pid", rest.u32()?);
            let channel = text(rest.0);
            tx.notes.text("channel_name", channel);
            tx.notes.text("payload", text(rest.0.get(channel.len() + 1..)?));
        }
        _ => {}
    }
    Some(())
}

/// The manual's section "Error and Notice Message Fields".
const fn fault_field(code: u8) -> Option<&'static str> {
    Some(match code {
        b'S' => "severity_localizable",
        b'V' => "severity_non_localizable",
        b'C' => "code",
        b'M' => "message",
        b'D' => "detail",
        b'H' => "hint",
        b'P' => "position",
        b'p' => "internal_position",
        b'q' => "internal_query",
        b'W' => "where",
        b's' => "schema_name",
        b't' => "table",
        b'c' => "column",
        b'd' => "data_type",
        b'n' => "constraint",
        b'F' => "file",
        b'L' => "line",
        b'R' => "routine",
        _ => return None,
    })
}

impl Parser for Pgsql {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], io) {
                Ok(Some(taken)) => at += taken,
                Ok(None) => break,
                Err(next) => {
                    // The byte that agrees on encryption is used.
                    let consumed = at + usize::from(next == Next::Switch);
                    return Step { consumed, next };
                }
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let slot = &mut self.long[io.dir as usize];
        let Some(long) = slot else { return Next::Finished(Finished::Gap) };
        let Some(left) = usize::try_from(len).ok().and_then(|len| long.left.checked_sub(len)).filter(|left| *left > 0) else {
            return Next::Finished(Finished::Gap);
        };
        long.left = left;
        if let Some((id, stream)) = long.query {
            io.skip(id, stream, len);
        }
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}

    fn wakes_other(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }
}
