//! MySQL and MariaDB (client/server protocol, version 10): greeting and login are one transaction, each command with the first packet of
//! its answer another. Rows pass by.

use crate::context::Io;
use crate::cursor::Cursor;
use crate::names::{Dir, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Bytes of a packet that are looked at; queries are longer, and the log tells of their beginning.
const SHOWN_BYTES: usize = 8 * 1024;
const VERSION_BYTES_MAX: usize = 128;

/// Capabilities (`CLIENT_SSL`, `CLIENT_COMPRESS`, `CLIENT_CONNECT_WITH_DB`, `CLIENT_PROTOCOL_41`, lengths of the secret).
const SSL: u32 = 0x0800;
const COMPRESS: u32 = 0x20;
const WITH_DATABASE: u32 = 0x08;
const PROTOCOL_41: u32 = 0x0200;
const SECRET_LENGTH_CODED: u32 = 0x0020_0000;
const SECRET_LENGTH: u32 = 0x8000;

const COMMANDS: &[(u8, &str)] = &[
    (1, "quit"),
    (2, "init_db"),
    (3, "query"),
    (4, "field_list"),
    (8, "shutdown"),
    (9, "statistics"),
    (10, "process_info"),
    (12, "process_kill"),
    (14, "ping"),
    (17, "change_user"),
    (18, "binlog_dump"),
    (22, "stmt_prepare"),
    (23, "stmt_execute"),
    (25, "stmt_close"),
    (26, "stmt_reset"),
    (27, "set_option"),
    (31, "reset_connection"),
];

/// A server's greeting: packet 0, version 10, a version that begins with digits.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    if dir == Dir::ToServer {
        return Probe::No;
    }
    let tests: [fn(u8) -> bool; 6] =
        [|_| true, |len| len <= 1, |len| len == 0, |number| number == 0, |version| version == 10, |digit| digit.is_ascii_digit()];
    if !bytes.iter().zip(tests).all(|(byte, test)| test(*byte)) {
        return Probe::No;
    }
    if bytes.len() <= tests.len() {
        return Probe::More;
    }
    let text = &bytes[5..bytes.len().min(5 + VERSION_BYTES_MAX)];
    match memchr::memchr(0, text) {
        Some(end) if text[..end].contains(&b'.') && text[..end].iter().all(u8::is_ascii_graphic) => Probe::Yes,
        None if text.len() < VERSION_BYTES_MAX && text.iter().all(u8::is_ascii_graphic) => Probe::More,
        Some(_) | None => Probe::No,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Greeting,
    Login,
    /// The secret may be asked for in several steps.
    Secret,
    Commands,
}

#[derive(Debug, Default)]
pub(crate) struct Mysql {
    phase: Phase,
    tx: Option<u64>,
    /// The answer's first packet was seen.
    answered: bool,
    compressed: bool,
    /// Bytes of packets that are to come, by direction.
    skip: [usize; 2],
}

impl Mysql {
    fn begin(&mut self, io: &mut Io<'_>) -> Result<u64, Next> {
        self.close(io);
        let id = io.begin(Protocol::Mysql).ok_or(Next::Finished(Finished::Cap("transactions_max")))?;
        self.tx = Some(id);
        self.answered = false;
        Ok(id)
    }

    fn close(&mut self, io: &mut Io<'_>) {
        if let Some(tx) = self.tx.take().and_then(|id| io.tx(id)) {
            tx.advance(Dir::ToServer, Stage::Complete);
            tx.advance(Dir::ToClient, Stage::Complete);
        }
    }

    /// `shown`: the packet, or its beginning.
    fn packet(&mut self, number: u8, shown: &[u8], io: &mut Io<'_>) -> Result<(), Next> {
        match (self.phase, io.dir) {
            (Phase::Greeting, Dir::ToClient) => {
                let id = self.begin(io)?;
                if let Some(tx) = io.tx(id) {
                    match shown.split_first() {
                        Some((0xff, rest)) => fault(rest, tx),
                        Some((_, rest)) => tx.notes.text("version", text(rest)),
                        None => {}
                    }
                }
                self.phase = Phase::Login;
            }
            (Phase::Login, Dir::ToServer) => {
                let capabilities = shown.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                if capabilities & SSL != 0 && shown.len() <= 32 {
                    if let Some(tx) = self.tx.and_then(|id| io.tx(id)) {
                        tx.notes.truth("tls", true);
                    }
                    self.close(io);
                    return Err(Next::Switch);
                }
                if let Some(tx) = self.tx.and_then(|id| io.tx(id)) {
                    tx.notes.truth("tls", false);
                    let _ = login(capabilities, shown, tx);
                    tx.advance(Dir::ToServer, Stage::Complete);
                }
                self.compressed = capabilities & COMPRESS != 0;
                self.phase = Phase::Secret;
            }
            (Phase::Secret, Dir::ToClient) => {
                if let Some(0 | 0xff) = shown.first() {
                    if let (Some((0xff, rest)), Some(tx)) = (shown.split_first(), self.tx.and_then(|id| io.tx(id))) {
                        fault(rest, tx);
                    }
                    self.close(io);
                    self.phase = Phase::Commands;
                    if self.compressed {
                        return Err(Next::Finished(Finished::Tunnel));
                    }
                }
            }
            (Phase::Commands, Dir::ToServer) if number == 0 => {
                let id = self.begin(io)?;
                let Some(tx) = io.tx(id) else { return Ok(()) };
                let (command, rest) = shown.split_first().map_or((0, shown), |(command, rest)| (*command, rest));
                match COMMANDS.iter().find(|(code, _)| *code == command) {
                    Some((_, name)) => tx.notes.text("command", name),
                    None => tx.notes.text("command", format!("unknown-{command}")),
                }
                if matches!(command, 2 | 3 | 22) {
                    tx.notes.text(if command == 2 { "database" } else { "query" }, rest);
                }
                tx.advance(Dir::ToServer, Stage::Complete);
                // No answer to a farewell, nor to the end of a statement.
                if matches!(command, 1 | 25) {
                    self.close(io);
                }
            }
            (Phase::Commands, Dir::ToClient) if !self.answered => {
                self.answered = true;
                if let (Some((0xff, rest)), Some(tx)) = (shown.split_first(), self.tx.and_then(|id| io.tx(id))) {
                    fault(rest, tx);
                }
                self.close(io);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Up to the zero that ends it, or all.
fn text(bytes: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Code, a state behind `#`, a message.
fn fault(bytes: &[u8], tx: &mut Transaction) {
    let Some((code, rest)) = bytes.split_first_chunk::<2>() else { return };
    tx.notes.object("error");
    tx.notes.number("code", u16::from_le_bytes(*code));
    let message = match rest.split_first() {
        Some((b'#', rest)) => rest.get(5..).unwrap_or_default(),
        _ => rest,
    };
    tx.notes.text("message", message);
    tx.notes.end();
}

/// Who logs in, and into what. `None`: it breaks off.
fn login(capabilities: u32, packet: &[u8], tx: &mut Transaction) -> Option<()> {
    let mut rest = Cursor(packet);
    if capabilities & PROTOCOL_41 == 0 {
        // Capabilities and largest packet in five bytes.
        rest.take(5)?;
    } else {
        // Character set, and 23 bytes of nothing behind eight.
        rest.take(32)?;
    }
    let user = text(rest.0);
    tx.notes.text("user", user);
    rest.take(user.len() + 1)?;
    let secret = match capabilities {
        _ if capabilities & (SECRET_LENGTH_CODED | SECRET_LENGTH) != 0 => usize::from(rest.u8()?),
        _ => text(rest.0).len() + 1,
    };
    rest.take(secret)?;
    if capabilities & WITH_DATABASE != 0 {
        tx.notes.text("database", text(rest.0));
    }
    Some(())
}

impl Parser for Mysql {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let side = io.dir as usize;
        let mut at = 0;
        while at < bytes.len() {
            let skip = self.skip[side].min(bytes.len() - at);
            if skip > 0 {
                self.skip[side] -= skip;
                at += skip;
                continue;
            }
            let &[a, b, c, number, ref body @ ..] = &bytes[at..] else { break };
            let len = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            let shown = len.min(SHOWN_BYTES);
            let Some(packet) = body.get(..shown) else { break };
            at += 4 + shown;
            self.skip[side] = len - shown;
            if let Err(next) = self.packet(number, packet, io) {
                return Step { consumed: at, next };
            }
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, _: &[u8], io: &mut Io<'_>) -> Next {
        let skip = &mut self.skip[io.dir as usize];
        match usize::try_from(len).ok().and_then(|len| skip.checked_sub(len)) {
            Some(left) if *skip > 0 => {
                *skip = left;
                Next::Continue
            }
            _ => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
