//! Messages of SMB 1 (MS-CIFS, MS-SMB): a chain of commands, each with words and bytes of its own.

use super::two::Fault;
use super::{Call, DIALECTS_MAX, Head, Id, Kind, Smb, Status, Tree, ntlmssp};
use crate::context::Io;
use crate::names::Dir;
use crate::protocol::Next;
use crate::reader::Reader;
use crate::sink::Finished;

const HEAD_BYTES: usize = 32;
/// Commands of one message.
const CHAIN_MAX: usize = 8;
const NO_COMMAND: u8 = 0xff;

const ANSWER: u8 = 0x80;
const NT_STATUS: u16 = 0x4000;
const UNICODE: u16 = 0x8000;

const CLOSE: u8 = 0x04;
const RENAME: u8 = 0x07;
const WRITE: u8 = 0x0b;
const TRANS: u8 = 0x25;
const WRITE_AND_CLOSE: u8 = 0x2c;
const OPEN_ANDX: u8 = 0x2d;
const READ_ANDX: u8 = 0x2e;
const WRITE_ANDX: u8 = 0x2f;
const TRANS2: u8 = 0x32;
const TREE_DISCONNECT: u8 = 0x71;
const NEGOTIATE: u8 = 0x72;
const SESSION_SETUP: u8 = 0x73;
const LOGOFF: u8 = 0x74;
const TREE_CONNECT: u8 = 0x75;
const NT_CREATE: u8 = 0xa2;

/// Whose bytes begin with the command and place of the next one.
const CHAINED: [u8; 8] = [0x24, OPEN_ANDX, READ_ANDX, WRITE_ANDX, SESSION_SETUP, LOGOFF, TREE_CONNECT, NT_CREATE];

/// One command of a message.
struct Command<'a> {
    head: Head,
    words: Reader<'a>,
    word_count: u8,
    /// Behind the words; texts are aligned from the message's start.
    bytes: Reader<'a>,
    unicode: bool,
    /// All of the message: offsets count from its start.
    all: &'a [u8],
}

impl Command<'_> {
    fn text(&mut self) -> Vec<u8> {
        if !self.unicode {
            return self.bytes.text().to_vec();
        }
        if self.bytes.at() % 2 == 1 {
            let _ = self.bytes.skip(1);
        }
        self.bytes.wide_text()
    }

    /// Data that lies anywhere in the message.
    fn slice(&self, start: u32, len: u32) -> Option<&[u8]> {
        Reader::from(self.all, usize::try_from(start).ok()?).take(usize::try_from(len).ok()?)
    }
}

/// Reads a whole record. Gives its length.
pub(super) fn message(smb: &mut Smb, all: &[u8], io: &mut Io<'_>) -> Result<usize, Next> {
    let dir = io.dir;
    let Some((head, flags, flags2)) = read_head(all) else {
        io.event(None, "smb.malformed_data");
        return Ok(all.len());
    };
    let is_answer = flags & ANSWER != 0;
    if is_answer != (dir == Dir::ToClient) {
        io.event(None, if is_answer { "smb.response_to_server" } else { "smb.request_to_client" });
        return Ok(all.len());
    }
    let (mut command, mut at) = (head.command as u8, HEAD_BYTES);
    for _ in 0..CHAIN_MAX {
        let Some(mut found) = command_at(head, command, at, flags2, all) else {
            // An answer that says only how it went.
            if is_answer {
                plain(smb, Head { command: u16::from(command), ..head }, io);
            }
            io.event(None, "smb.malformed_data");
            break;
        };
        let next = if CHAINED.contains(&command) && found.word_count >= 2 { chained(found.words) } else { None };
        let read = if is_answer { answer(smb, &mut found, io) } else { request(smb, &mut found, io) };
        match read {
            Ok(()) => {}
            Err(Fault::Malformed) => {
                let tx = smb.calls.get(&(1, head.key)).and_then(|call| call.tx);
                io.event(tx, "smb.malformed_data");
            }
            Err(Fault::Full) => return Err(Next::Finished(Finished::Cap("transactions_max"))),
            Err(Fault::Over(next)) => return Err(next),
        }
        match next {
            // Backwards would be a circle.
            Some((next, place)) if usize::from(place) > at => (command, at) = (next, usize::from(place)),
            _ => break,
        }
    }
    Ok(all.len())
}

fn read_head(all: &[u8]) -> Option<(Head, u8, u16)> {
    let mut reader = Reader::from(all, 4);
    let (command, status, flags, flags2) = (reader.u8()?, reader.array::<4>()?, reader.u8()?, reader.le16()?);
    reader.skip(12)?;
    let (tree, process, user, multiplex) = (reader.le16()?, reader.le16()?, reader.le16()?, reader.le16()?);
    let nt = u32::from_le_bytes(status);
    let status = if flags2 & NT_STATUS != 0 || nt == 0 {
        Status::Nt(nt)
    } else {
        Status::Dos(status[0], u16::from_le_bytes([status[2], status[3]]))
    };
    let key = u64::from(process) << 16 | u64::from(multiplex);
    let head = Head { version: 1, command: u16::from(command), session: u64::from(user), tree: u32::from(tree), status, key };
    Some((head, flags, flags2))
}

fn command_at(head: Head, command: u8, at: usize, flags2: u16, all: &[u8]) -> Option<Command<'_>> {
    let mut reader = Reader::from(all, at);
    let word_count = reader.u8()?;
    let words = Reader::new(reader.take(2 * usize::from(word_count))?);
    let len = usize::from(reader.le16()?);
    let start = reader.at();
    // Windows goes on where fewer bytes are than it says: data of large writes is counted modulo 2^16.
    let end = if len == 0 { all.len() } else { (start + len).min(all.len()) };
    let bytes = Reader::from(&all[..end], start);
    let head = Head { command: u16::from(command), ..head };
    Some(Command { head, words, word_count, bytes, unicode: flags2 & UNICODE != 0, all })
}

fn chained(mut words: Reader<'_>) -> Option<(u8, u16)> {
    let (next, _, place) = (words.u8()?, words.u8()?, words.le16()?);
    (next != NO_COMMAND && place > 0).then_some((next, place))
}

fn id(number: u16) -> Id {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_le_bytes());
    id
}

fn request(smb: &mut Smb, command: &mut Command<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    let (head, mut words) = (command.head, command.words);
    let begin = |smb: &mut Smb, kind: Kind, io: &mut Io<'_>| smb.begin(head, kind, io).ok_or(Fault::Full);
    let short = || Fault::Malformed;
    match head.command as u8 {
        NEGOTIATE => {
            let tx = begin(smb, Kind::Negotiate, io)?;
            smb.offered.clear();
            while smb.offered.len() < DIALECTS_MAX && command.bytes.u8() == Some(2) {
                smb.offered.push(command.bytes.text().to_vec());
            }
            let Some(tx) = io.tx(tx) else { return Ok(()) };
            tx.notes.list("client_dialects");
            smb.offered.iter().for_each(|dialect| tx.notes.text("", dialect));
            tx.notes.end();
            if smb.offered.is_empty() {
                tx.event("smb.negotiate_malformed_dialects", Dir::ToServer);
            }
        }
        SESSION_SETUP => {
            let tx = begin(smb, Kind::SessionSetup, io)?;
            words.skip(14).ok_or_else(short)?;
            let (first, second) = (words.le16().ok_or_else(short)?, words.le16());
            let Some(tx) = io.tx(tx) else { return Ok(()) };
            if command.word_count == 12 {
                let blob = command.bytes.take(usize::from(first)).ok_or_else(short)?;
                ntlmssp::read(blob, tx);
            } else {
                // Two passwords, then who it is.
                let passwords = usize::from(first) + second.map_or(0, usize::from);
                command.bytes.skip(passwords).ok_or_else(short)?;
                let (_, _) = (command.text(), command.text());
            }
            let (system, manager) = (command.text(), command.text());
            note_system(tx, "request", &system, &manager);
        }
        TREE_CONNECT => {
            words.skip(6).ok_or_else(short)?;
            let password = words.le16().ok_or_else(short)?;
            command.bytes.skip(usize::from(password)).ok_or_else(short)?;
            let name = command.text();
            let service = command.bytes.text();
            let tx = begin(smb, Kind::Tree { name: name.clone() }, io)?;
            if let Some(tx) = io.tx(tx) {
                Smb::tree_asked(tx, &name);
                tx.notes.object("service");
                tx.notes.text("request", service);
                tx.notes.end();
            }
        }
        NT_CREATE => {
            words.skip(35).ok_or_else(short)?;
            let (disposition, options) = (words.le32().ok_or_else(short)?, words.le32().ok_or_else(short)?);
            let name = command.text();
            let tx = begin(smb, Kind::Create { name: name.clone() }, io)?;
            if let Some(tx) = io.tx(tx) {
                super::note_create(tx, &name, disposition, options);
            }
        }
        OPEN_ANDX => {
            let name = command.text();
            let tx = begin(smb, Kind::Create { name: name.clone() }, io)?;
            if let Some(tx) = io.tx(tx) {
                tx.notes.text("filename", &name);
            }
        }
        CLOSE => {
            smb.close(id(words.le16().ok_or_else(short)?), io);
            begin(smb, Kind::Other, io)?;
        }
        RENAME => {
            let tx = begin(smb, Kind::Other, io)?;
            // Each name behind a byte that says what it is.
            command.bytes.skip(1).ok_or_else(short)?;
            let old = command.text();
            command.bytes.skip(1).ok_or_else(short)?;
            let new = command.text();
            if let Some(tx) = io.tx(tx) {
                super::note_renaming(tx, &old, &new, &[0; 16]);
            }
        }
        READ_ANDX => {
            words.skip(4).ok_or_else(short)?;
            let (file, offset) = (words.le16().ok_or_else(short)?, words.le32().ok_or_else(short)?);
            words.skip(10).ok_or_else(short)?;
            let high = words.le32().unwrap_or(0);
            let offset = u64::from(high) << 32 | u64::from(offset);
            smb.remember(head, Call { tx: None, kind: Kind::Read { id: id(file), offset } }, io);
        }
        WRITE_ANDX => {
            words.skip(4).ok_or_else(short)?;
            let (file, offset) = (words.le16().ok_or_else(short)?, words.le32().ok_or_else(short)?);
            words.skip(8).ok_or_else(short)?;
            let (len_high, len) = (words.le16().ok_or_else(short)?, words.le16().ok_or_else(short)?);
            let start = words.le16().ok_or_else(short)?;
            let high = words.le32().unwrap_or(0);
            let (len, offset) = (u32::from(len_high) << 16 | u32::from(len), u64::from(high) << 32 | u64::from(offset));
            let data = command.slice(u32::from(start), len).ok_or_else(short)?;
            transfer(smb, head, id(file), offset, data, io)?;
        }
        WRITE | WRITE_AND_CLOSE => {
            let (file, len) = (words.le16().ok_or_else(short)?, words.le16().ok_or_else(short)?);
            let offset = words.le32().ok_or_else(short)?;
            // What the data is, and its length; or a byte that is nothing.
            command.bytes.skip(if head.command as u8 == WRITE { 3 } else { 1 }).ok_or_else(short)?;
            let data = command.bytes.take(usize::from(len)).ok_or_else(short)?;
            transfer(smb, head, id(file), u64::from(offset), data, io)?;
            if head.command as u8 == WRITE_AND_CLOSE {
                smb.close(id(file), io);
            }
        }
        TRANS => trans(smb, command, io)?,
        TRANS2 => {}
        _ => {
            begin(smb, Kind::Other, io)?;
        }
    }
    Ok(())
}

/// Bytes of a file or pipe.
fn transfer(smb: &mut Smb, head: Head, id: Id, offset: u64, data: &[u8], io: &mut Io<'_>) -> Result<(), Fault> {
    if data.is_empty() {
        return Ok(());
    }
    let looks = || crate::dcerpc::probe_tcp(io.dir, data) == crate::protocol::Probe::Yes;
    if smb.pipes.get(&id).is_some() || smb.is_pipe(head).unwrap_or_else(looks) {
        return smb.pipe(head, id, data, io).map_or(Ok(()), |next| Err(Fault::Over(next)));
    }
    smb.put(head, id, offset, data, io).ok_or(Fault::Full)
}

/// A message for a pipe, whose answer comes with it.
fn trans(smb: &mut Smb, command: &mut Command<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    const TRANSACT: u16 = 0x26;
    let short = || Fault::Malformed;
    let mut words = command.words;
    words.skip(22).ok_or_else(short)?;
    let (len, start, setups) = (words.le16().ok_or_else(short)?, words.le16().ok_or_else(short)?, words.u8().ok_or_else(short)?);
    words.skip(1).ok_or_else(short)?;
    if setups < 2 || words.le16() != Some(TRANSACT) {
        return Ok(());
    }
    let id = id(words.le16().ok_or_else(short)?);
    smb.remember(command.head, Call { tx: None, kind: Kind::Pipe { id } }, io);
    let data = command.slice(u32::from(start), u32::from(len)).ok_or_else(short)?;
    smb.pipe(command.head, id, data, io).map_or(Ok(()), |next| Err(Fault::Over(next)))
}

/// An answer of which nothing but its head is looked at.
fn plain(smb: &mut Smb, head: Head, io: &mut Io<'_>) {
    if let Some(call) = smb.answered(head) {
        smb.finish(head, &call, io, |_| {});
    }
}

fn answer(smb: &mut Smb, command: &mut Command<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    let (head, mut words) = (command.head, command.words);
    let Some(call) = smb.answered(head) else { return Ok(()) };
    let succeeded = head.status.is_success();
    let short = || Fault::Malformed;
    match &call.kind {
        Kind::Negotiate => {
            let index = words.le16().map_or(usize::MAX, usize::from);
            if let Some(dialect) = smb.offered.get(index) {
                smb.dialect = String::from_utf8_lossy(dialect).into_owned();
            }
            // With extended security, the server says who it is.
            let server: Option<Id> = if command.word_count == 17 { command.bytes.array() } else { None };
            smb.finish(head, &call, io, |tx| {
                if let Some(server) = server {
                    tx.notes.text("server_guid", super::identifier(&server));
                }
            });
        }
        Kind::SessionSetup => {
            let blob = if command.word_count == 4 { words.skip(6).and_then(|()| words.le16()) } else { None };
            let _ = command.bytes.skip(blob.map_or(0, usize::from));
            let (system, manager) = (command.text(), command.text());
            smb.finish(head, &call, io, |tx| {
                if command.word_count >= 3 {
                    note_system(tx, "response", &system, &manager);
                }
            });
        }
        Kind::Tree { name } => {
            let service = command.bytes.text();
            if succeeded {
                let is_pipe = service == b"IPC";
                smb.trees.insert(head.tree, Tree { name: name.clone(), is_pipe });
            }
            smb.finish(head, &call, io, |tx| {
                if succeeded {
                    tx.notes.object("service");
                    tx.notes.text("response", service);
                    tx.notes.end();
                }
            });
        }
        Kind::Create { name } => {
            let created = if !succeeded { None } else { opened(command) };
            if let Some((file, ..)) = created {
                smb.names.insert(file, name.clone());
            }
            smb.finish(head, &call, io, |tx| {
                if let Some((file, times, size)) = created {
                    super::note_created(tx, times, size, &file);
                }
            });
        }
        Kind::Read { id, offset } if succeeded || head.status == Status::OVERFLOW => {
            words.skip(10).ok_or_else(short)?;
            let (len, start) = (words.le16().ok_or_else(short)?, words.le16().ok_or_else(short)?);
            let high = words.le16().unwrap_or(0);
            let len = u32::from(high) << 16 | u32::from(len);
            let data = command.slice(u32::from(start), len).ok_or_else(short)?;
            transfer(smb, head, *id, *offset, data, io)?;
        }
        Kind::Pipe { id } if succeeded || head.status == Status::OVERFLOW => {
            words.skip(12).ok_or_else(short)?;
            let (len, start) = (words.le16().ok_or_else(short)?, words.le16().ok_or_else(short)?);
            let data = command.slice(u32::from(start), u32::from(len)).ok_or_else(short)?;
            if let Some(next) = smb.pipe(head, *id, data, io) {
                return Err(Fault::Over(next));
            }
        }
        Kind::Read { .. } | Kind::Pipe { .. } => {}
        Kind::Other => {
            if head.command as u8 == TREE_DISCONNECT && succeeded {
                smb.trees.remove(&head.tree);
            }
            smb.finish(head, &call, io, |_| {});
        }
    }
    Ok(())
}

/// What opening was answered with.
fn opened(command: &Command<'_>) -> Option<(Id, [u64; 4], u64)> {
    let mut words = command.words;
    words.skip(4)?;
    if command.head.command as u8 == OPEN_ANDX {
        return Some((id(words.le16()?), [0; 4], 0));
    }
    words.skip(1)?;
    let file = id(words.le16()?);
    words.skip(4)?;
    let mut times = [0; 4];
    for time in &mut times {
        *time = words.le64()?;
    }
    words.skip(12)?;
    Some((file, times, words.le64()?))
}

fn note_system(tx: &mut crate::transaction::Transaction, side: &'static str, system: &[u8], manager: &[u8]) {
    tx.notes.object(side);
    tx.notes.text("native_os", system);
    tx.notes.text("native_lm", manager);
    tx.notes.end();
}
