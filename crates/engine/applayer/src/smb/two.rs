//! Messages of SMB 2 and 3 (MS-SMB2, section 2.2).

use super::{Body, Call, DATA_BYTES_MAX, DIALECTS_MAX, Head, Id, Kind, MESSAGE_BYTES_MAX, Smb, Status, Tree, names, ntlmssp};
use crate::context::Io;
use crate::dcerpc;
use crate::names::Dir;
use crate::protocol::{Next, Probe};
use crate::reader::{Reader, utf8};
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 64;
/// The fixed part of a write or of the answer to a read, as far as it is needed.
const WRITE_BYTES: usize = 48;
const READ_BYTES: usize = 16;
/// Of data whose share is not known: whether DCE/RPC is in it.
const LOOK_BYTES: usize = 16;

const ANSWER: u32 = 1;
const ASYNC: u32 = 2;
const PIPE_TRANSCEIVE: u32 = 0x0011_c017;

const NEGOTIATE: u16 = 0;
const SESSION_SETUP: u16 = 1;
const TREE_CONNECT: u16 = 3;
const TREE_DISCONNECT: u16 = 4;
const CREATE: u16 = 5;
const CLOSE: u16 = 6;
const READ: u16 = 8;
const WRITE: u16 = 9;
const IOCTL: u16 = 11;
const GET_INFO: u16 = 16;
const SET_INFO: u16 = 17;

struct Message<'a> {
    head: Head,
    flags: u32,
    /// Behind the head.
    fixed: Reader<'a>,
    /// All of it: offsets count from its start.
    all: &'a [u8],
}

/// Reads one message of a record of which `left` bytes are to come. `None`: more bytes are needed.
pub(super) fn message(smb: &mut Smb, bytes: &[u8], left: u64, io: &mut Io<'_>) -> Result<Option<usize>, Next> {
    let dir = io.dir;
    let Some(head_bytes) = bytes.get(..HEAD_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX))) else { return Ok(None) };
    let Some((head, flags, next)) = read_head(head_bytes) else {
        io.event(None, "smb.malformed_data");
        smb.ways[dir as usize].ignored = true;
        return Ok(Some(0));
    };
    // The last message ends with the record.
    let len = if next >= HEAD_BYTES as u32 && u64::from(next) <= left { u64::from(next) } else { left };
    let is_answer = flags & ANSWER != 0;
    let wrong = match (dir, is_answer) {
        (Dir::ToServer, true) => Some("smb.response_to_server"),
        (Dir::ToClient, false) => Some("smb.request_to_client"),
        (Dir::ToServer, false) | (Dir::ToClient, true) => None,
    };
    if let Some(event) = wrong {
        io.event(None, event);
    }
    let streams =
        wrong.is_none() && ((head.command == WRITE && !is_answer) || (head.command == READ && is_answer && head.status.is_success()));
    if streams && let Some(decided) = data(smb, head, bytes, len, io) {
        return decided;
    }
    let all = match usize::try_from(len).ok().and_then(|len| bytes.get(..len)) {
        Some(all) => all,
        None if len > MESSAGE_BYTES_MAX => return Err(Next::Finished(Finished::Cap("MESSAGE_BYTES_MAX"))),
        None => return Ok(None),
    };
    let message = Message { head, flags, fixed: Reader::from(all, HEAD_BYTES), all };
    if wrong.is_none() {
        let read = if is_answer { answer(smb, &message, io) } else { request(smb, &message, io) };
        match read {
            Ok(()) => {}
            Err(Fault::Malformed) => {
                let tx = smb.calls.get(&(2, head.key)).and_then(|call| call.tx);
                io.event(tx, "smb.malformed_data");
            }
            Err(Fault::Full) => return Err(Next::Finished(Finished::Cap("transactions_max"))),
            Err(Fault::Over(next)) => return Err(next),
        }
    }
    Ok(Some(all.len()))
}

/// Why a message is not read on.
pub(super) enum Fault {
    Malformed,
    /// No room for another transaction.
    Full,
    /// The session is over.
    Over(Next),
}

fn read_head(bytes: &[u8]) -> Option<(Head, u32, u32)> {
    let mut reader = Reader::from(bytes, 4);
    reader.skip(4)?;
    let status = reader.le32()?;
    let (command, _) = (reader.le16()?, reader.le16()?);
    let (flags, next, key) = (reader.le32()?, reader.le32()?, reader.le64()?);
    let (_, tree, session) = (reader.le32()?, reader.le32()?, reader.le64()?);
    reader.skip(16)?;
    let tree = if flags & ASYNC != 0 { 0 } else { tree };
    Some((Head { version: 2, command, session, tree, status: Status::Nt(status), key }, flags, next))
}

/// The beginning of a write, or of the answer to a read, whose data is shown as it comes. `None`: the whole message is needed.
fn data(smb: &mut Smb, head: Head, bytes: &[u8], len: u64, io: &mut Io<'_>) -> Option<Result<Option<usize>, Next>> {
    let fixed_bytes = HEAD_BYTES + if head.command == WRITE { WRITE_BYTES } else { READ_BYTES };
    if len < fixed_bytes as u64 {
        return None;
    }
    let Some(fixed) = bytes.get(HEAD_BYTES..fixed_bytes) else { return Some(Ok(None)) };
    let mut reader = Reader::from(fixed, 2);
    let taken = fixed_bytes as u64;
    let (start, data_len, of) = if head.command == WRITE {
        let (start, data_len, offset, id) = (u64::from(reader.le16()?), reader.le32()?, reader.le64()?, reader.array()?);
        (start, data_len, Some((id, offset)))
    } else {
        let (start, _, data_len) = (u64::from(reader.u8()?), reader.u8()?, reader.le32()?);
        // Where it belongs was said by the request.
        let of = smb.calls.get(&(2, head.key)).and_then(|call| match call.kind {
            Kind::Read { id, offset } => Some((id, offset)),
            _ => None,
        });
        (start, data_len, of)
    };
    let is_inside = start >= taken && start + u64::from(data_len) <= len;
    let Some((id, offset)) = of.filter(|_| is_inside && data_len > 0) else {
        if data_len > 0 && !is_inside {
            io.event(None, "smb.malformed_data");
        }
        // Nobody knows what this is: it is passed over.
        smb.ways[io.dir as usize].body = Some(Body { before: len - taken, len: 0, behind: 0, id: [0; 16], offset: 0 });
        return Some(Ok(Some(fixed_bytes)));
    };
    let is_pipe = match smb.is_pipe(head) {
        _ if smb.pipes.get(&id).is_some() => true,
        _ if smb.files.get(&(id, io.dir)).is_some() => false,
        Some(is_pipe) => is_pipe,
        None => {
            let from = start as usize;
            let Some(looked) = bytes.get(from..from + LOOK_BYTES.min(data_len as usize)) else { return Some(Ok(None)) };
            dcerpc::probe_tcp(io.dir, looked) == Probe::Yes
        }
    };
    if is_pipe {
        return None;
    }
    let (limit, negotiated, event) = match io.dir {
        Dir::ToServer => (DATA_BYTES_MAX, smb.write_bytes_max, "smb.write_request_too_large"),
        Dir::ToClient => (DATA_BYTES_MAX, smb.read_bytes_max, "smb.read_response_too_large"),
    };
    if smb.put(head, id, offset, &[], io).is_none() {
        return Some(Err(Next::Finished(Finished::Cap("transactions_max"))));
    }
    if data_len > limit || negotiated != 0 && data_len > negotiated {
        let tx = smb.files.get(&(id, io.dir)).map(|file| file.tx);
        io.event(tx, event);
    }
    if head.command == READ {
        smb.calls.remove(&(2, head.key));
    }
    let body = Body { before: start - taken, len: u64::from(data_len), behind: len - start - u64::from(data_len), id, offset };
    smb.ways[io.dir as usize].body = Some(body);
    Some(Ok(Some(fixed_bytes)))
}

fn request(smb: &mut Smb, message: &Message<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    let (head, mut fixed) = (message.head, message.fixed);
    let begin = |smb: &mut Smb, kind: Kind, io: &mut Io<'_>| smb.begin(head, kind, io).ok_or(Fault::Full);
    let short = || Fault::Malformed;
    match head.command {
        NEGOTIATE => {
            let id = begin(smb, Kind::Negotiate, io)?;
            let offer = offered(fixed).ok_or_else(short)?;
            let Some(tx) = io.tx(id) else { return Ok(()) };
            tx.notes.list("client_dialects");
            for dialect in offer.0.iter().take(DIALECTS_MAX) {
                tx.notes.text("", dialect_name(*dialect));
            }
            tx.notes.end();
            tx.notes.text("client_guid", super::identifier(&offer.1));
            if offer.0.is_empty() || offer.0.iter().any(|dialect| names::find(names::DIALECTS, *dialect).is_none()) {
                tx.event("smb.negotiate_malformed_dialects", Dir::ToServer);
            }
        }
        SESSION_SETUP => {
            let id = begin(smb, Kind::SessionSetup, io)?;
            fixed.skip(12).ok_or_else(short)?;
            let blob = buffer(message, fixed.le16(), fixed.le16()).ok_or_else(short)?;
            if let Some(tx) = io.tx(id) {
                ntlmssp::read(blob, tx);
            }
        }
        TREE_CONNECT => {
            fixed.skip(4).ok_or_else(short)?;
            let name = utf8(buffer(message, fixed.le16(), fixed.le16()).ok_or_else(short)?);
            let id = begin(smb, Kind::Tree { name: name.clone() }, io)?;
            if let Some(tx) = io.tx(id) {
                Smb::tree_asked(tx, &name);
            }
        }
        CREATE => {
            fixed.skip(36).ok_or_else(short)?;
            let (disposition, options) = (fixed.le32().ok_or_else(short)?, fixed.le32().ok_or_else(short)?);
            let name = utf8(buffer(message, fixed.le16(), fixed.le16()).ok_or_else(short)?);
            // What follows in the same record may mean it without its number.
            smb.names.insert([0xff; 16], name.clone());
            let id = begin(smb, Kind::Create { name: name.clone() }, io)?;
            if let Some(tx) = io.tx(id) {
                super::note_create(tx, &name, disposition, options);
            }
        }
        CLOSE => {
            fixed.skip(8).ok_or_else(short)?;
            let id = fixed.array().ok_or_else(short)?;
            smb.close(id, io);
            begin(smb, Kind::Other, io)?;
        }
        READ => {
            fixed.skip(4).ok_or_else(short)?;
            let (len, offset) = (fixed.le32().ok_or_else(short)?, fixed.le64().ok_or_else(short)?);
            let id: Id = fixed.array().ok_or_else(short)?;
            if len > DATA_BYTES_MAX || smb.read_bytes_max != 0 && len > smb.read_bytes_max {
                io.event(None, "smb.read_request_too_large");
            }
            smb.remember(head, Call { tx: None, kind: Kind::Read { id, offset } }, io);
        }
        WRITE => {
            // The data goes to a pipe, else it would not be here; or there is none.
            fixed.skip(2).ok_or_else(short)?;
            let (start, len) = (fixed.le16().ok_or_else(short)?, fixed.le32().ok_or_else(short)?);
            fixed.skip(8).ok_or_else(short)?;
            let id = fixed.array().ok_or_else(short)?;
            let data = slice(message, u32::from(start), len).ok_or_else(short)?;
            if len > 0
                && let Some(next) = smb.pipe(head, id, data, io)
            {
                return Err(Fault::Over(next));
            }
        }
        IOCTL => {
            fixed.skip(4).ok_or_else(short)?;
            let function = fixed.le32().ok_or_else(short)?;
            let id = fixed.array().ok_or_else(short)?;
            let data = slice(message, fixed.le32().ok_or_else(short)?, fixed.le32().ok_or_else(short)?).ok_or_else(short)?;
            if function == PIPE_TRANSCEIVE && smb.is_pipe(head) != Some(false) {
                smb.remember(head, Call { tx: None, kind: Kind::Pipe { id } }, io);
                return smb.pipe(head, id, data, io).map_or(Ok(()), |next| Err(Fault::Over(next)));
            }
            let id = begin(smb, Kind::Other, io)?;
            if let Some(tx) = io.tx(id) {
                let known = names::find(names::FUNCTIONS, function);
                tx.notes.text("function", known.map_or_else(|| format!("0x{function:08x}"), str::to_owned));
            }
        }
        SET_INFO => set_info(smb, message, io)?,
        GET_INFO => {}
        TREE_DISCONNECT => {
            begin(smb, Kind::Other, io)?;
        }
        _ => {
            begin(smb, Kind::Other, io)?;
        }
    }
    Ok(())
}

/// Renaming, and deletion when it is closed; other information makes no transaction.
fn set_info(smb: &mut Smb, message: &Message<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    const FILE: u8 = 1;
    const RENAME: u8 = 10;
    const DISPOSITION: u8 = 13;
    let short = || Fault::Malformed;
    let mut fixed = message.fixed;
    fixed.skip(2).ok_or_else(short)?;
    let (class, level) = (fixed.u8().ok_or_else(short)?, fixed.u8().ok_or_else(short)?);
    let (len, start) = (fixed.le32().ok_or_else(short)?, fixed.le16().ok_or_else(short)?);
    fixed.skip(6).ok_or_else(short)?;
    let id: Id = fixed.array().ok_or_else(short)?;
    let mut data = Reader::new(slice(message, u32::from(start), len).ok_or_else(short)?);
    let old = smb.names.get(&id).cloned().unwrap_or_default();
    match (class, level) {
        (FILE, RENAME) => {
            data.skip(16).ok_or_else(short)?;
            let name_len = data.le32().ok_or_else(short)? as usize;
            let new = utf8(data.take(name_len).ok_or_else(short)?);
            let tx = smb.begin(message.head, Kind::Other, io).ok_or(Fault::Full)?;
            if let Some(tx) = io.tx(tx) {
                super::note_renaming(tx, &old, &new, &id);
            }
        }
        (FILE, DISPOSITION) => {
            let deletes = data.u8().ok_or_else(short)? & 1 != 0;
            let tx = smb.begin(message.head, Kind::Other, io).ok_or(Fault::Full)?;
            if let Some(tx) = io.tx(tx) {
                tx.notes.text("filename", if old.is_empty() { b"<share_root>" } else { old.as_slice() });
                tx.notes.text("access", if deletes { "delete on close" } else { "normal" });
                tx.notes.text("fuid", super::identifier(&id));
            }
        }
        _ => {}
    }
    Ok(())
}

fn answer(smb: &mut Smb, message: &Message<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
    let (head, mut fixed) = (message.head, message.fixed);
    if head.status == Status::PENDING && message.flags & ASYNC != 0 {
        return Ok(());
    }
    let call = match smb.answered(head) {
        Some(call) => call,
        // The question may have been one of SMB 1.
        None if head.command == NEGOTIATE => match one_negotiate(smb) {
            Some(call) => call,
            None => return Ok(()),
        },
        None => return Ok(()),
    };
    let succeeded = head.status.is_success();
    let short = || Fault::Malformed;
    match &call.kind {
        Kind::Negotiate => {
            if !succeeded {
                smb.finish(head, &call, io, |_| {});
                return Ok(());
            }
            fixed.skip(4).ok_or_else(short)?;
            let dialect = fixed.le16().ok_or_else(short)?;
            fixed.skip(2).ok_or_else(short)?;
            let id: Id = fixed.array().ok_or_else(short)?;
            fixed.skip(8).ok_or_else(short)?;
            let (read, write) = (fixed.le32().ok_or_else(short)?, fixed.le32().ok_or_else(short)?);
            smb.dialect = dialect_name(dialect);
            (smb.read_bytes_max, smb.write_bytes_max) = (read, write);
            smb.finish(head, &call, io, |tx| {
                tx.notes.text("server_guid", super::identifier(&id));
                tx.notes.number("max_read_size", read);
                tx.notes.number("max_write_size", write);
                for (size, event) in [(read, "smb.negotiate_max_read_size_too_large"), (write, "smb.negotiate_max_write_size_too_large")] {
                    if size > DATA_BYTES_MAX {
                        tx.event(event, Dir::ToClient);
                    }
                }
            });
        }
        Kind::Tree { name } => {
            let pipe = fixed.skip(2).and_then(|()| fixed.u8());
            if succeeded {
                let kind = pipe.ok_or_else(short)?;
                smb.trees.insert(head.tree, Tree { name: name.clone(), is_pipe: kind == 2 });
                smb.finish(head, &call, io, |tx| note_share(tx, kind));
            } else {
                smb.finish(head, &call, io, |_| {});
            }
        }
        Kind::Create { name } => {
            if !succeeded {
                smb.finish(head, &call, io, |_| {});
                return Ok(());
            }
            fixed.skip(8).ok_or_else(short)?;
            let mut times = [0; 4];
            for time in &mut times {
                *time = fixed.le64().ok_or_else(short)?;
            }
            fixed.skip(8).ok_or_else(short)?;
            let size = fixed.le64().ok_or_else(short)?;
            fixed.skip(8).ok_or_else(short)?;
            let id: Id = fixed.array().ok_or_else(short)?;
            smb.names.insert(id, name.clone());
            smb.finish(head, &call, io, |tx| super::note_created(tx, times, size, &id));
        }
        // Of a pipe; data of files does not come here.
        Kind::Read { id, .. } if succeeded || head.status == Status::OVERFLOW => {
            let id = *id;
            fixed.skip(2).ok_or_else(short)?;
            let start = fixed.u8().ok_or_else(short)?;
            fixed.skip(1).ok_or_else(short)?;
            let len = fixed.le32().ok_or_else(short)?;
            let data = slice(message, u32::from(start), len).ok_or_else(short)?;
            if len > 0
                && let Some(next) = smb.pipe(head, id, data, io)
            {
                return Err(Fault::Over(next));
            }
        }
        Kind::Pipe { id } if succeeded || head.status == Status::OVERFLOW => {
            let id = *id;
            fixed.skip(32).ok_or_else(short)?;
            let data = slice(message, fixed.le32().ok_or_else(short)?, fixed.le32().ok_or_else(short)?).ok_or_else(short)?;
            if let Some(next) = smb.pipe(head, id, data, io) {
                return Err(Fault::Over(next));
            }
        }
        Kind::Read { .. } | Kind::Pipe { .. } => {}
        Kind::SessionSetup | Kind::Other => {
            if head.command == TREE_DISCONNECT && succeeded {
                smb.trees.remove(&head.tree);
            }
            smb.finish(head, &call, io, |_| {});
        }
    }
    Ok(())
}

/// The latest offer of SMB 1 that waits for an answer.
fn one_negotiate(smb: &mut Smb) -> Option<Call> {
    let key = smb.calls.newest(|(version, _), call| *version == 1 && matches!(call.kind, Kind::Negotiate))?;
    smb.calls.remove(&key)
}

fn note_share(tx: &mut Transaction, kind: u8) {
    let name = match kind {
        1 => "FILE",
        2 => "PIPE",
        3 => "PRINT",
        _ => "UNKNOWN",
    };
    tx.notes.text("share_type", name);
}

fn dialect_name(dialect: u16) -> String {
    names::find(names::DIALECTS, dialect).map_or_else(|| format!("{dialect:04x}"), str::to_owned)
}

/// Dialects, and who offers them.
fn offered(mut fixed: Reader<'_>) -> Option<(Vec<u16>, Id)> {
    fixed.skip(2)?;
    let count = fixed.le16()?;
    fixed.skip(8)?;
    let id = fixed.array()?;
    fixed.skip(8)?;
    let dialects: Vec<u16> = (0..count).map_while(|_| fixed.le16()).collect();
    (dialects.len() == usize::from(count)).then_some((dialects, id))
}

fn buffer<'a>(message: &Message<'a>, start: Option<u16>, len: Option<u16>) -> Option<&'a [u8]> {
    slice(message, u32::from(start?), u32::from(len?))
}

/// An empty one may stand anywhere.
fn slice<'a>(message: &Message<'a>, start: u32, len: u32) -> Option<&'a [u8]> {
    if len == 0 { Some(&[]) } else { Reader::from(message.all, usize::try_from(start).ok()?).take(usize::try_from(len).ok()?) }
}
