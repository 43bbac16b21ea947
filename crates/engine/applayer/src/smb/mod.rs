//! SMB 1 to 3 (MS-CIFS, MS-SMB, MS-SMB2) over TCP, with and without NetBIOS (RFC 1002), and DCE/RPC within its pipes.
//!
//! ```text
//! record (4 bytes: kind, length) ─ SMB 1: one message, a chain of commands        (one.rs)
//!                                └ SMB 2: messages one behind the other           (two.rs)
//! ```
//! A request with its answer is a transaction. Each direction of an open file is one as well, from the first piece that is read or
//! written to its close; so is each bind and call of DCE/RPC. Data of reads and writes is shown as it comes, everything else when its
//! message is whole.

mod names;
mod ntlmssp;
mod one;
mod two;

use crate::files::{File, Put};

use crate::context::Io;
use crate::dcerpc::{self, Association};
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::hex;
use crate::protocol::{Next, Parser, Probe, Step};
use crate::recent::Recent;
use crate::sink::Finished;
use crate::transaction::Transaction;

const RECORD_HEAD_BYTES: usize = 4;
/// A message that has to be whole; a longer one ends the session. Those of Windows have up to 64 KiB and a little.
const MESSAGE_BYTES_MAX: u64 = 192 * 1024;
/// Requests of one session without an answer; the oldest are given up.
const CALLS_MAX: usize = 256;
/// Shares of one session.
const TREES_MAX: usize = 64;
/// Names of what is open.
const NAMES_MAX: usize = 512;
/// Directions of files that are read or written at the same time; the oldest end.
const FILES_MAX: usize = 64;
/// Pipes that DCE/RPC is spoken in.
const PIPES_MAX: usize = 16;
/// The rest of a message of DCE/RPC within a pipe.
const PIPE_BYTES_MAX: usize = 64 * 1024;
/// The reference engine's `max-read-size` and `max-write-size`: more is told of.
const DATA_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Dialects of one offer that are written down.
const DIALECTS_MAX: usize = 32;

/// A record whose message begins as one does, behind what NetBIOS says first.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let mut rest = bytes;
    loop {
        match rest {
            [0, high, _, _, magic @ ..] => {
                let known = [b"\xffSMB", b"\xfeSMB", b"\xfdSMB"].iter().any(|known| magic.iter().zip(*known).all(|(a, b)| a == b));
                return match (known && *high < 2, magic.len() >= 4) {
                    (true, true) => Probe::Yes,
                    (true, false) => Probe::More,
                    (false, _) => Probe::No,
                };
            }
            // A session request: two names in a form that only NetBIOS has.
            [0x81, 0, 0, len, names @ ..] => {
                if *len < 68
                    || !names.iter().take(33).enumerate().all(|(at, byte)| if at == 0 { *byte == 32 } else { (b'A'..=b'P').contains(byte) })
                {
                    return Probe::No;
                }
                return if names.len() >= 33 { Probe::Yes } else { Probe::More };
            }
            // Its answer, and signs of life.
            [0x82 | 0x85, 0, 0, 0, behind @ ..] => rest = behind,
            [0 | 0x81 | 0x82 | 0x85, more @ ..] if more.len() < 3 => return Probe::More,
            [] => return Probe::More,
            _ => return Probe::No,
        }
    }
}

/// What a file or pipe is named by: 16 bytes of SMB 2; of SMB 1 its number, zeros behind it.
type Id = [u8; 16];

#[derive(Debug)]
pub(crate) struct Smb {
    ways: [Way; 2],
    dialect: String,
    /// Of SMB 1, as offered.
    offered: Vec<Vec<u8>>,
    /// By what answers repeat.
    calls: Recent<(u8, u64), Call>,
    trees: Recent<u32, Tree>,
    names: Recent<Id, Vec<u8>>,
    files: Recent<(Id, Dir), File>,
    pipes: Recent<Id, Pipe>,
    read_bytes_max: u32,
    write_bytes_max: u32,
}

impl Default for Smb {
    fn default() -> Self {
        Self {
            ways: Default::default(),
            dialect: String::new(),
            offered: Vec::new(),
            calls: Recent::new(CALLS_MAX),
            trees: Recent::new(TREES_MAX),
            names: Recent::new(NAMES_MAX),
            files: Recent::new(FILES_MAX),
            pipes: Recent::new(PIPES_MAX),
            read_bytes_max: 0,
            write_bytes_max: 0,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Bytes of the record that are not consumed; 0: its head comes next.
    left: u64,
    body: Option<Body>,
    /// The record's messages are passed over.
    ignored: bool,
}

/// Data that is shown as it comes.
#[derive(Debug, Clone, Copy)]
struct Body {
    /// Bytes in front of it.
    before: u64,
    len: u64,
    /// Bytes behind it, up to the next message.
    behind: u64,
    id: Id,
    offset: u64,
}

#[derive(Debug)]
struct Tree {
    name: Vec<u8>,
    is_pipe: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    association: Association,
    pending: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Call {
    tx: Option<u64>,
    kind: Kind,
}

/// What the answer is needed for.
#[derive(Debug, Clone)]
enum Kind {
    Other,
    Negotiate,
    SessionSetup,
    Tree {
        name: Vec<u8>,
    },
    Create {
        name: Vec<u8>,
    },
    Read {
        id: Id,
        offset: u64,
    },
    /// Of a pipe, whose answer comes with it.
    Pipe {
        id: Id,
    },
}

/// What the head of a message says, the same for both forms.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// 1 or 2.
    version: u8,
    command: u16,
    session: u64,
    tree: u32,
    status: Status,
    /// Answers repeat it.
    key: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Nt(u32),
    Dos(u8, u16),
}

impl Status {
    const SUCCESS: Self = Self::Nt(0);
    const PENDING: Self = Self::Nt(0x103);
    /// More of a pipe's message follows in another answer.
    const OVERFLOW: Self = Self::Nt(0x8000_0005);

    fn is_success(self) -> bool {
        matches!(self, Self::Nt(0) | Self::Dos(0, _))
    }
}

impl Head {
    fn command_name(self) -> String {
        let known = match self.version {
            1 => u8::try_from(self.command).ok().and_then(|command| names::find(names::SMB1_COMMANDS, command)),
            _ => names::SMB2_COMMANDS.get(usize::from(self.command)).copied(),
        };
        known.map_or_else(|| format!("UNKNOWN-{:x}", self.command), str::to_owned)
    }

    /// What every record of the log has.
    fn note(self, dialect: &str, tx: &mut Transaction) {
        let id = tx.id;
        let notes = &mut tx.notes;
        notes.number("id", id + 1);
        notes.text("dialect", if dialect.is_empty() { "unknown" } else { dialect });
        notes.text("command", self.command_name());
        self.note_place(tx);
    }

    fn note_place(self, tx: &mut Transaction) {
        tx.notes.number("session_id", self.session);
        tx.notes.number("tree_id", self.tree);
    }

    fn note_answer(self, dialect: &str, tx: &mut Transaction) {
        let notes = &mut tx.notes;
        notes.text("dialect", if dialect.is_empty() { "unknown" } else { dialect });
        match self.status {
            Status::Nt(status) => {
                notes.text("status", names::find(names::STATUSES, status).unwrap_or("UNKNOWN"));
                notes.text("status_code", format!("0x{status:x}"));
            }
            Status::Dos(class, code) => {
                let known = names::DOS_ERRORS.iter().find(|(of, number, _)| (*of, *number) == (class, code));
                notes.text("status", known.map_or("UNKNOWN", |(.., name)| name));
                notes.text("status_code", format!("0x{code:04x}"));
            }
        }
        self.note_place(tx);
    }
}

/// DCE/RPC within a message.
struct Within<'a> {
    head: Head,
    dialect: &'a str,
}

impl dcerpc::Carrier for Within<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Smb
    }

    fn said(&self, tx: &mut Transaction, dir: Dir) {
        tx.integer_is(Field::SmbVersion, dir, u64::from(self.head.version));
        match dir {
            Dir::ToServer => self.head.note(self.dialect, tx),
            Dir::ToClient => self.head.note_answer(self.dialect, tx),
        }
    }

    fn inside(&self) -> Option<&'static str> {
        Some("dcerpc")
    }
}

impl Smb {
    /// A transaction for a request. `None`: no room for it.
    fn begin(&mut self, head: Head, kind: Kind, io: &mut Io<'_>) -> Option<u64> {
        let id = io.begin(Protocol::Smb)?;
        let dir = io.dir;
        if let Some(tx) = io.tx(id) {
            tx.integer_is(Field::SmbVersion, dir, u64::from(head.version));
            head.note(&self.dialect, tx);
            if dir == Dir::ToServer {
                tx.advance(dir, Stage::Complete);
            }
        }
        self.remember(head, Call { tx: Some(id), kind }, io);
        Some(id)
    }

    fn remember(&mut self, head: Head, call: Call, io: &mut Io<'_>) {
        if let Some(gone) = self.calls.insert((head.version, head.key), call)
            && let Some(id) = gone.tx
        {
            complete(id, io);
        }
    }

    /// What was asked.
    fn answered(&mut self, head: Head) -> Option<Call> {
        self.calls.remove(&(head.version, head.key))
    }

    /// The answer is there: `more` tells of it.
    fn finish(&self, head: Head, call: &Call, io: &mut Io<'_>, more: impl FnOnce(&mut Transaction)) {
        let Some(id) = call.tx else { return };
        let dir = io.dir;
        if let Some(tx) = io.tx(id) {
            tx.integer_is(Field::SmbVersion, dir, u64::from(head.version));
            head.note_answer(&self.dialect, tx);
            more(tx);
        }
        complete(id, io);
    }

    /// `None`: nothing is known of the share.
    fn is_pipe(&self, head: Head) -> Option<bool> {
        self.trees.get(&head.tree).map(|tree| tree.is_pipe)
    }

    /// A share is asked for. Gives whether it looks like that of pipes.
    fn tree_asked(tx: &mut Transaction, name: &[u8]) {
        let is_pipe = is_pipe_share(name);
        tx.value(if is_pipe { Buffer::SmbNamedPipe } else { Buffer::SmbShare }, Dir::ToServer, name);
        tx.notes.text(if is_pipe { "named_pipe" } else { "share" }, name);
    }

    /// Bytes of a file. `None`: no room for another transaction.
    fn put(&mut self, head: Head, id: Id, offset: u64, bytes: &[u8], io: &mut Io<'_>) -> Option<()> {
        let dir = io.dir;
        if self.files.get(&(id, dir)).is_none() {
            let name = self.names.get(&id).cloned().unwrap_or_default();
            let file = File::open(Protocol::Smb, &name, dir, offset, io)?;
            if let Some(tx) = io.tx(file.tx) {
                tx.integer_is(Field::SmbVersion, dir, u64::from(head.version));
                head.note(&self.dialect, tx);
                Head { status: Status::SUCCESS, ..head }.note_answer(&self.dialect, tx);
                tx.notes.text("filename", &name);
                if let Some(tree) = self.trees.get(&head.tree) {
                    tx.notes.text("share", &tree.name);
                }
                tx.notes.text("fuid", identifier(&id));
            }
            if let Some(gone) = self.files.insert((id, dir), file) {
                gone.close(dir, io);
            }
        }
        let file = self.files.get_mut(&(id, dir))?;
        put(file, offset, bytes, io);
        Some(())
    }

    /// Both directions of a file end, and a pipe.
    fn close(&mut self, id: Id, io: &mut Io<'_>) {
        for dir in [Dir::ToServer, Dir::ToClient] {
            if let Some(file) = self.files.remove(&(id, dir)) {
                file.close(dir, io);
            }
        }
        self.pipes.remove(&id);
        self.names.remove(&id);
    }

    /// Bytes within a pipe.
    fn pipe(&mut self, head: Head, id: Id, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        if self.pipes.get(&id).is_none() {
            self.pipes.insert(id, Pipe::default());
        }
        let pipe = self.pipes.get_mut(&id)?;
        let pending = &mut pipe.pending[io.dir as usize];
        pending.extend_from_slice(bytes);
        let (taken, next) = pipe.association.read(pending, &Within { head, dialect: &self.dialect }, io);
        pending.drain(..taken);
        match next {
            // What is no DCE/RPC is of no further interest, within this pipe.
            Some(Next::Finished(Finished::Malformed(_))) => pending.clear(),
            Some(next) => return Some(next),
            None if pending.len() > PIPE_BYTES_MAX => return Some(Next::Finished(Finished::Cap("PIPE_BYTES_MAX"))),
            None => {}
        }
        None
    }

    /// Reads within a record as far as it goes. `None`: more bytes are needed. Gives the bytes that were taken.
    fn record(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Option<usize>, Next> {
        let way = &mut self.ways[io.dir as usize];
        if way.ignored {
            return Ok(Some(way.left.min(bytes.len() as u64) as usize));
        }
        if way.body.is_some() {
            return self.body(bytes, io).map(Some);
        }
        let left = way.left;
        let whole = || bytes.get(..usize::try_from(left).ok()?);
        let magic = if left < 4 { Some(&[0; 4][..]) } else { bytes.get(..4) };
        let message = match magic {
            None => return Ok(None),
            Some(b"\xffSMB") => match whole() {
                Some(message) => one::message(self, message, io)?,
                None if left > MESSAGE_BYTES_MAX => return Err(Next::Finished(Finished::Cap("MESSAGE_BYTES_MAX"))),
                None => return Ok(None),
            },
            Some(b"\xfeSMB") => return two::message(self, bytes, left, io),
            // Encrypted, or not a message.
            Some(magic) => {
                if !matches!(magic, b"\xfdSMB" | b"\xfcSMB") {
                    io.event(None, "smb.malformed_data");
                }
                way.ignored = true;
                return Ok(Some(0));
            }
        };
        Ok(Some(message))
    }

    /// Data of a read or write.
    fn body(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<usize, Next> {
        let way = &mut self.ways[io.dir as usize];
        let Some(body) = &mut way.body else { return Ok(0) };
        let before = body.before.min(bytes.len() as u64);
        body.before -= before;
        let rest = &bytes[before as usize..];
        let now = &rest[..body.len.min(rest.len() as u64) as usize];
        let (id, offset) = (body.id, body.offset);
        body.len -= now.len() as u64;
        body.offset = body.offset.saturating_add(now.len() as u64);
        let behind = if body.len == 0 { body.behind.min((rest.len() - now.len()) as u64) } else { 0 };
        body.behind -= behind;
        if (body.before, body.len, body.behind) == (0, 0, 0) {
            way.body = None;
        }
        if let Some(file) = self.files.get_mut(&(id, io.dir)) {
            put(file, offset, now, io);
        }
        Ok(before as usize + now.len() + behind as usize)
    }

    fn read(&mut self, bytes: &[u8], io: &mut Io<'_>) -> (usize, Next) {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let way = &mut self.ways[io.dir as usize];
            if way.left == 0 {
                (way.body, way.ignored) = (None, false);
                let &[kind, len @ ..] = rest.first_chunk::<RECORD_HEAD_BYTES>().unwrap_or(&[0; 4]);
                if rest.len() < RECORD_HEAD_BYTES {
                    return (at, Next::Continue);
                }
                match kind {
                    0 => way.left = u64::from(u32::from_be_bytes([0, len[0], len[1], len[2]])),
                    0x81..=0x85 => (way.left, way.ignored) = (u64::from(u16::from_be_bytes([len[1], len[2]])), true),
                    _ => return (at, Next::Finished(Finished::Malformed("record"))),
                }
                at += RECORD_HEAD_BYTES;
                continue;
            }
            match self.record(rest, io) {
                Ok(None) => return (at, Next::Continue),
                Ok(Some(taken)) => {
                    at += taken;
                    let way = &mut self.ways[io.dir as usize];
                    way.left = way.left.saturating_sub(taken as u64);
                    if at == bytes.len() && way.left > 0 {
                        return (at, Next::Continue);
                    }
                }
                Err(next) => return (at, next),
            }
            // One call with thousands of tiny messages is told of message by message.
            io.report();
        }
    }
}

impl Parser for Smb {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let (consumed, next) = self.read(bytes, io);
        Step { consumed, next }
    }

    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next {
        let way = &mut self.ways[io.dir as usize];
        let lost = len + pending.len() as u64;
        if way.left < lost {
            return Next::Finished(Finished::Gap);
        }
        way.left -= lost;
        match &mut way.body {
            Some(body) => {
                let data = lost.saturating_sub(body.before).min(body.len);
                let (id, offset) = (body.id, body.offset);
                let mut lost = lost;
                for part in [&mut body.before, &mut body.len, &mut body.behind] {
                    let of_part = lost.min(*part);
                    *part -= of_part;
                    lost -= of_part;
                }
                body.offset = body.offset.saturating_add(data);
                if let Some(file) = self.files.get_mut(&(id, io.dir)) {
                    file.lost(offset, data, io);
                }
            }
            // The rest of the message says nothing without its head.
            None => way.ignored = true,
        }
        Next::Continue
    }

    fn end(&mut self, _: &[u8], io: &mut Io<'_>) {
        self.pipes.values_mut().for_each(|pipe| pipe.association.end(io));
    }
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

/// Bytes of a file, and what is odd about them.
fn put(file: &mut File, offset: u64, bytes: &[u8], io: &mut Io<'_>) {
    let event = match (file.put(offset, bytes, io), io.dir) {
        (Put::InOrder | Put::Early, _) => return,
        (Put::Overlap, _) => "smb.file_overlap",
        (Put::TooMany, Dir::ToServer) => "smb.write_queue_cnt_exceeded",
        (Put::TooMany, Dir::ToClient) => "smb.read_queue_cnt_exceeded",
        (Put::TooMuch, Dir::ToServer) => "smb.write_queue_size_exceeded",
        (Put::TooMuch, Dir::ToClient) => "smb.read_queue_size_exceeded",
    };
    io.event(Some(file.tx), event);
}

fn is_pipe_share(name: &[u8]) -> bool {
    name.len() >= 4 && name[name.len() - 4..].eq_ignore_ascii_case(b"IPC$")
}

/// `0000004d-0000-0000-0009-0000ffffffff`
fn identifier(id: &Id) -> String {
    let part = |at: std::ops::Range<usize>| hex(&id[at].iter().rev().copied().collect::<Vec<u8>>());
    format!("{}-{}-{}-{}-{}{}", part(0..4), part(4..6), part(6..8), part(8..10), part(10..12), part(12..16))
}

/// Hundreds of nanoseconds since 1601 as seconds since 1970.
fn seconds(time: u64) -> u64 {
    (time / 10_000_000).saturating_sub(11_644_473_600)
}

/// What opening asks for.
fn note_create(tx: &mut Transaction, name: &[u8], disposition: u32, options: u32) {
    let notes = &mut tx.notes;
    let shown = if name.is_empty() { b"<share_root>" } else { name };
    notes.text(if options & 1 != 0 { "directory" } else { "filename" }, shown);
    notes.text("disposition", names::DISPOSITIONS.get(disposition as usize).copied().unwrap_or("UNKNOWN"));
    notes.text("access", if options & 0x1000 != 0 { "delete on close" } else { "normal" });
}

/// What opening was answered with. `times`: of creation, access, writing, change.
fn note_created(tx: &mut Transaction, times: [u64; 4], size: u64, id: &Id) {
    let notes = &mut tx.notes;
    for (key, time) in ["created", "accessed", "modified", "changed"].into_iter().zip(times) {
        notes.number(key, seconds(time));
    }
    notes.number("size", size);
    notes.text("fuid", identifier(id));
}

fn note_renaming(tx: &mut Transaction, old: &[u8], new: &[u8], id: &Id) {
    let notes = &mut tx.notes;
    notes.object("rename");
    notes.text("from", old);
    notes.text("to", new);
    notes.end();
    notes.text("fuid", identifier(id));
}
