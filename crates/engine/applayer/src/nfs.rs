//! NFS 2, 3 and 4 (RFC 1094, 1813, 7530, 8881) over ONC RPC (RFC 5531), over UDP and TCP.
//!
//! A call with its reply is a transaction; of version 4 only a compound that creates or removes. Each direction of a file is one as
//! well, from the first piece to its end, a commit or a close. Data of messages that are large is shown as it comes.

use crate::context::Io;
use crate::files::{File, Put};
use crate::names::{Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::recent::Recent;
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Calls of one session without a reply; the oldest are given up.
const CALLS_MAX: usize = 256;
/// Names of files that are remembered by their handles.
const NAMES_MAX: usize = 512;
/// Directions of files that are read or written at the same time; the oldest end.
const FILES_MAX: usize = 64;
/// A message of several fragments, or without data; a longer one ends the session.
const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// Of a message that is larger, what has to be there before its data is shown.
const START_BYTES: usize = 8 * 1024;
/// Of a message that is read when it is whole.
const WHOLE_BYTES_MAX: usize = 64 * 1024;
/// A handle (RFC 7530, section 3.1: 128 bytes), and a name.
const HANDLE_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 1024;
/// Operations of one compound.
const OPERATIONS_MAX: u32 = 64;

const NFS: u32 = 100_003;
const UNIX: u32 = 1;

const PROCEDURES_2: [&str; 18] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "ROOT",
    "LOOKUP",
    "READLINK",
    "READ",
    "WRITECACHE",
    "WRITE",
    "CREATE",
    "REMOVE",
    "RENAME",
    "LINK",
    "SYMLINK",
    "MKDIR",
    "RMDIR",
    "READDIR",
    "STATFS",
];
const PROCEDURES_3: [&str; 22] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "LOOKUP",
    "ACCESS",
    "READLINK",
    "READ",
    "WRITE",
    "CREATE",
    "MKDIR",
    "SYMLINK",
    "MKNOD",
    "REMOVE",
    "RMDIR",
    "RENAME",
    "LINK",
    "READDIR",
    "READDIRPLUS",
    "FSSTAT",
    "FSINFO",
    "PATHCONF",
    "COMMIT",
];

const STATUSES: &[(u32, &str)] = &[
    (0, "OK"),
    (1, "ERR_PERM"),
    (2, "ERR_NOENT"),
    (5, "ERR_IO"),
    (6, "ERR_NXIO"),
    (13, "ERR_ACCESS"),
    (17, "ERR_EXIST"),
    (18, "ERR_XDEV"),
    (19, "ERR_NODEV"),
    (20, "ERR_NOTDIR"),
    (21, "ERR_ISDIR"),
    (22, "ERR_INVAL"),
    (27, "ERR_FBIG"),
    (28, "ERR_NOSPC"),
    (30, "ERR_ROFS"),
    (31, "ERR_MLINK"),
    (63, "ERR_NAMETOOLONG"),
    (66, "ERR_NOTEMPTY"),
    (69, "ERR_DQUOT"),
    (70, "ERR_STALE"),
    (71, "ERR_REMOTE"),
    (10001, "ERR_BADHANDLE"),
    (10002, "ERR_NOT_SYNC"),
    (10003, "ERR_BAD_COOKIE"),
    (10004, "ERR_NOTSUPP"),
    (10005, "ERR_TOOSMALL"),
    (10006, "ERR_SERVERFAULT"),
    (10007, "ERR_BADTYPE"),
    (10008, "ERR_JUKEBOX"),
];

/// A call of this program; a reply alone tells too little.
fn probe_call(message: &[u8]) -> Probe {
    let wanted: [&[u8]; 3] = [&[0, 0, 0, 0], &[0, 0, 0, 2], &NFS.to_be_bytes()];
    let found = message.get(4..).unwrap_or_default();
    if !found.iter().zip(wanted.concat()).all(|(a, b)| *a == b) {
        return Probe::No;
    }
    match found.get(12..16) {
        None => Probe::More,
        Some([0, 0, 0, 2..=4]) => Probe::Yes,
        Some(_) => Probe::No,
    }
}

pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    match bytes {
        [] | [0x80] => Probe::More,
        // Some megabytes at most, in one fragment.
        [0x80, high, ..] if *high < 0x40 => probe_call(bytes.get(4..).unwrap_or_default()),
        _ => Probe::No,
    }
}

pub(crate) fn probe_udp(_: Dir, bytes: &[u8]) -> Probe {
    match probe_call(bytes) {
        Probe::Yes => Probe::Yes,
        // A datagram does not go on.
        Probe::More | Probe::No => Probe::No,
    }
}

#[derive(Debug)]
pub(crate) struct Nfs {
    transport: Transport,
    ways: [Way; 2],
    calls: Recent<u32, Call>,
    names: Recent<Vec<u8>, Vec<u8>>,
    files: Recent<(Vec<u8>, Dir), Open>,
}

/// One direction over TCP.
#[derive(Debug, Default)]
struct Way {
    /// Bytes of the fragment that are not consumed.
    left: usize,
    is_last: bool,
    /// The rest of it is passed over.
    ignored: bool,
    body: Option<Body>,
    /// Of a message in several fragments.
    before: Vec<u8>,
}

/// Data that is shown as it comes.
#[derive(Debug)]
struct Body {
    handle: Vec<u8>,
    offset: u64,
    left: u64,
    /// The file ends with it.
    is_last: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    chunks: u32,
}

#[derive(Debug, Clone, Default)]
struct Call {
    tx: Option<u64>,
    version: u32,
    procedure: u32,
    handle: Vec<u8>,
    name: Vec<u8>,
    offset: u64,
    sender: Sender,
}

/// What the head of a call says of who calls.
#[derive(Debug, Clone, Default)]
struct Sender {
    xid: u32,
    flavor: u32,
    /// Machine, user, group.
    unix: Option<(Vec<u8>, u32, u32)>,
}

/// What is asked for, as far as it is looked at.
#[derive(Debug, Default)]
struct Asked<'a> {
    handle: &'a [u8],
    name: &'a [u8],
    renamed: Option<&'a [u8]>,
    offset: u64,
    write: Option<Data<'a>>,
    /// The file's data is complete with this.
    closes: bool,
    /// Of a compound: what it is called by.
    main: Option<u32>,
}

/// Data within a message, of which the end may not be there yet.
#[derive(Debug, Clone, Copy)]
struct Data<'a> {
    offset: u64,
    len: usize,
    now: &'a [u8],
    is_last: bool,
}

/// Not as the protocol has it, or no room for another transaction.
enum Fault {
    Malformed,
    Full,
}

impl Nfs {
    pub const fn new(transport: Transport) -> Self {
        Self {
            transport,
            ways: [const { Way { left: 0, is_last: false, ignored: false, body: None, before: Vec::new() } }; 2],
            calls: Recent::new(CALLS_MAX),
            names: Recent::new(NAMES_MAX),
            files: Recent::new(FILES_MAX),
        }
    }

    /// A message, or the beginning of one with data. Gives what of the data is to come.
    fn message(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Option<Body>, Next> {
        let read = match io.dir {
            Dir::ToServer => self.call(Reader::new(bytes), io),
            Dir::ToClient => self.reply(Reader::new(bytes), io),
        };
        match read {
            Ok(rest) => Ok(rest),
            Err(Fault::Malformed) => {
                io.event(None, "nfs.malformed_data");
                Ok(None)
            }
            Err(Fault::Full) => Err(Next::Finished(Finished::Cap("transactions_max"))),
        }
    }

    fn call(&mut self, mut reader: Reader<'_>, io: &mut Io<'_>) -> Result<Option<Body>, Fault> {
        let short = || Fault::Malformed;
        let (xid, kind) = (reader.be32().ok_or_else(short)?, reader.be32().ok_or_else(short)?);
        let (_, program) = (reader.be32().ok_or_else(short)?, reader.be32().ok_or_else(short)?);
        let (version, procedure) = (reader.be32().ok_or_else(short)?, reader.be32().ok_or_else(short)?);
        // Others share the connection: locks, and what a server asks its client.
        if kind != 0 || program != NFS {
            return Ok(None);
        }
        let sender = read_sender(xid, &mut reader).ok_or_else(short)?;
        let asked = match version {
            2 => asked_2(procedure, reader),
            3 => asked_3(procedure, reader),
            4 => asked_4(procedure, reader),
            _ => None,
        };
        // What cannot be read is a call all the same.
        let malformed = asked.is_none();
        let asked = asked.unwrap_or_default();
        let known = || self.names.get(&asked.handle.to_vec()).cloned().unwrap_or_default();
        let name = if asked.name.is_empty() { known() } else { asked.name.to_vec() };
        let mut call = Call { tx: None, version, procedure, handle: asked.handle.to_vec(), name, offset: asked.offset, sender };
        let mut rest = None;
        if let Some(data) = asked.write {
            rest = self.put(&call, data, io)?;
        }
        let is_transaction = match version {
            4 => asked.main.is_some(),
            2 => !matches!(procedure, 6 | 8),
            _ => !matches!(procedure, 6 | 7 | 21),
        };
        if is_transaction {
            let id = io.begin(Protocol::Nfs).ok_or(Fault::Full)?;
            call.tx = Some(id);
            if let Some(tx) = io.tx(id) {
                let number = asked.main.unwrap_or(procedure);
                number_it(tx, Dir::ToServer, version, number);
                note(tx, &call, procedure_name(version, number, asked.main.is_some()), false);
                if let Some(new) = asked.renamed {
                    tx.notes.object("rename");
                    tx.notes.text("from", &call.name);
                    tx.notes.text("to", new);
                    tx.notes.end();
                }
                if malformed {
                    tx.event("nfs.malformed_data", Dir::ToServer);
                }
                tx.advance(Dir::ToServer, Stage::Complete);
            }
        }
        if asked.closes {
            for dir in [Dir::ToServer, Dir::ToClient] {
                self.close(asked.handle, dir, io);
            }
        }
        if let Some(gone) = self.calls.insert(xid, call).and_then(|gone| gone.tx) {
            complete(gone, io);
        }
        Ok(rest)
    }

    fn reply(&mut self, mut reader: Reader<'_>, io: &mut Io<'_>) -> Result<Option<Body>, Fault> {
        let short = || Fault::Malformed;
        let (xid, kind) = (reader.be32().ok_or_else(short)?, reader.be32().ok_or_else(short)?);
        if kind != 1 {
            return Ok(None);
        }
        let Some(call) = self.calls.remove(&xid) else { return Ok(None) };
        let denied = reader.be32().ok_or_else(short)? != 0;
        let mut status = None;
        let mut rest = Ok(None);
        if !denied {
            let _ = (reader.be32().ok_or_else(short)?, opaque(&mut reader, 400).ok_or_else(short)?);
            let accepted = reader.be32().ok_or_else(short)? == 0;
            status = if accepted && call.procedure != 0 { reader.be32() } else { None };
            if status == Some(0) {
                rest = self.results(&call, reader, io);
            }
        }
        if let Some(id) = call.tx {
            if let Some(tx) = io.tx(id) {
                number_it(tx, Dir::ToClient, call.version, call.procedure);
                note_reply(tx, denied, status);
            }
            complete(id, io);
        }
        rest
    }

    /// Names of handles, and data.
    fn results(&mut self, call: &Call, mut reader: Reader<'_>, io: &mut Io<'_>) -> Result<Option<Body>, Fault> {
        let short = || Fault::Malformed;
        let data = match (call.version, call.procedure) {
            (2, 4 | 9 | 14) => {
                let handle = reader.take(32).ok_or_else(short)?;
                self.name(handle, &call.name);
                None
            }
            (3, 3) => {
                let handle = opaque(&mut reader, HANDLE_BYTES_MAX).ok_or_else(short)?;
                self.name(handle, &call.name);
                None
            }
            (3, 8 | 9) => {
                if reader.be32().ok_or_else(short)? == 1 {
                    let handle = opaque(&mut reader, HANDLE_BYTES_MAX).ok_or_else(short)?;
                    self.name(handle, &call.name);
                }
                None
            }
            (2, 6) => {
                let size = reader.skip(20).and_then(|()| reader.be32()).ok_or_else(short)?;
                reader.skip(44).ok_or_else(short)?;
                let len = reader.be32().ok_or_else(short)? as usize;
                let is_last = call.offset + len as u64 >= u64::from(size);
                Some(data(reader, call.offset, len, is_last))
            }
            (3, 6) => {
                if reader.be32().ok_or_else(short)? == 1 {
                    reader.skip(84).ok_or_else(short)?;
                }
                let (_, eof) = (reader.be32().ok_or_else(short)?, reader.be32().ok_or_else(short)?);
                let len = reader.be32().ok_or_else(short)? as usize;
                Some(data(reader, call.offset, len, eof != 0))
            }
            (4, 1) => self.results_4(call, reader).ok_or_else(short)?,
            _ => None,
        };
        match data {
            Some(data) => self.put(call, data, io),
            None => Ok(None),
        }
    }

    /// Of a compound: `None`: not as the protocol has it.
    fn results_4<'a>(&mut self, call: &Call, mut reader: Reader<'a>) -> Option<Option<Data<'a>>> {
        opaque(&mut reader, NAME_BYTES_MAX)?;
        let count = reader.be32()?.min(OPERATIONS_MAX);
        for _ in 0..count {
            let (operation, status) = (reader.be32()?, reader.be32()?);
            if status != 0 {
                break;
            }
            match operation {
                3 => reader.skip(8)?,
                4 => reader.skip(16)?,
                5 => reader.skip(8)?,
                6 => {
                    reader.skip(20)?;
                    bitmap(&mut reader)?;
                }
                9 => {
                    bitmap(&mut reader)?;
                    opaque(&mut reader, MESSAGE_BYTES_MAX)?;
                }
                10 => {
                    let handle = opaque(&mut reader, HANDLE_BYTES_MAX)?;
                    self.name(handle, &call.name);
                }
                11 | 28 => reader.skip(20)?,
                29 => reader.skip(40)?,
                18 => {
                    reader.skip(40)?;
                    bitmap(&mut reader)?;
                    if reader.be32()? != 0 {
                        break;
                    }
                }
                20 | 21 => reader.skip(16)?,
                25 => {
                    let eof = reader.be32()?;
                    let len = reader.be32()? as usize;
                    return Some(Some(data(reader, call.offset, len, eof != 0)));
                }
                34 => bitmap(&mut reader)?,
                35 | 38 => reader.skip(16)?,
                53 => reader.skip(36)?,
                8 | 15 | 16 | 22 | 23 | 24 | 30 | 31 | 32 | 36 | 58 => {}
                _ => break,
            }
        }
        Some(None)
    }

    fn name(&mut self, handle: &[u8], name: &[u8]) {
        if !name.is_empty() {
            self.names.insert(handle.to_vec(), name.to_vec());
        }
    }

    /// Bytes of a file. Gives what of them is to come.
    fn put(&mut self, call: &Call, data: Data<'_>, io: &mut Io<'_>) -> Result<Option<Body>, Fault> {
        let dir = io.dir;
        if call.handle.is_empty() || data.len == 0 && !data.is_last {
            return Ok(None);
        }
        let key = (call.handle.clone(), dir);
        let is_first = self.files.get(&key).is_none();
        if is_first {
            let file = File::open(Protocol::Nfs, &call.name, dir, data.offset, io).ok_or(Fault::Full)?;
            if let Some(tx) = io.tx(file.tx) {
                let (name, number) = match (dir, call.version) {
                    (Dir::ToServer, 4) => ("WRITE", 38),
                    (Dir::ToClient, 4) => ("READ", 25),
                    (Dir::ToServer, _) => ("WRITE", call.procedure),
                    (Dir::ToClient, _) => ("READ", call.procedure),
                };
                number_it(tx, dir, call.version, number);
                note(tx, call, name, true);
                note_reply(tx, false, Some(0));
            }
            if let Some(gone) = self.files.insert(key.clone(), Open { file, chunks: 0 }) {
                gone.file.close(dir, io);
            }
        }
        let Some(open) = self.files.get_mut(&key) else { return Ok(None) };
        open.chunks += 1;
        let chunks = open.chunks;
        if let Some(tx) = io.tx(open.file.tx) {
            tx.notes.object(if dir == Dir::ToServer { "write" } else { "read" });
            if is_first {
                tx.notes.truth("first", true);
            }
            tx.notes.truth("last", data.is_last);
            tx.notes.number("last_xid", call.sender.xid);
            tx.notes.number("chunks", chunks);
            tx.notes.end();
        }
        show(&mut open.file, data.offset, data.now, io);
        let left = (data.len - data.now.len()) as u64;
        if data.is_last && left == 0 {
            self.close(&call.handle, dir, io);
        }
        let offset = data.offset.saturating_add(data.now.len() as u64);
        Ok((left > 0).then(|| Body { handle: call.handle.clone(), offset, left, is_last: data.is_last }))
    }

    /// Behind the data of a message nothing is looked at.
    fn body_ends(&mut self, io: &mut Io<'_>) {
        let way = &mut self.ways[io.dir as usize];
        if let Some(body) = way.body.take_if(|body| body.left == 0) {
            way.ignored = true;
            if body.is_last {
                self.close(&body.handle, io.dir, io);
            }
        }
    }

    fn close(&mut self, handle: &[u8], dir: Dir, io: &mut Io<'_>) {
        if let Some(open) = self.files.remove(&(handle.to_vec(), dir)) {
            open.file.close(dir, io);
        }
    }

    /// The next bytes of a fragment. `None`: more are needed. Gives how many were taken.
    fn fragment(&mut self, rest: &[u8], io: &mut Io<'_>) -> Result<Option<usize>, Next> {
        let way = &mut self.ways[io.dir as usize];
        let now = &rest[..rest.len().min(way.left)];
        if let Some(body) = &mut way.body {
            let shown = &now[..now.len().min(usize::try_from(body.left).unwrap_or(usize::MAX))];
            if let Some(open) = self.files.get_mut(&(body.handle.clone(), io.dir)) {
                show(&mut open.file, body.offset, shown, io);
            }
            body.offset += shown.len() as u64;
            body.left -= shown.len() as u64;
            self.body_ends(io);
            return Ok(Some(shown.len()));
        }
        if way.ignored {
            return Ok(Some(now.len()));
        }
        let is_whole = now.len() == way.left;
        if !way.is_last || !way.before.is_empty() {
            if way.before.len() + way.left > MESSAGE_BYTES_MAX {
                return Err(Next::Finished(Finished::Cap("MESSAGE_BYTES_MAX")));
            }
            if !is_whole {
                return Ok(None);
            }
            way.before.extend_from_slice(now);
            if way.is_last {
                let message = std::mem::take(&mut way.before);
                self.message(&message, io)?;
            }
            return Ok(Some(now.len()));
        }
        if !is_whole && (way.left <= WHOLE_BYTES_MAX || now.len() < START_BYTES) {
            return Ok(None);
        }
        let body = self.message(now, io)?;
        let way = &mut self.ways[io.dir as usize];
        way.ignored = body.is_none();
        way.body = body;
        Ok(Some(now.len()))
    }
}

/// Bytes of a file; that they came before or too early is nothing that rules can ask for.
fn show(file: &mut File, offset: u64, bytes: &[u8], io: &mut Io<'_>) {
    let _: Put = file.put(offset, bytes, io);
}

fn data(reader: Reader<'_>, offset: u64, len: usize, is_last: bool) -> Data<'_> {
    let rest = reader.rest();
    Data { offset, len, now: &rest[..rest.len().min(len)], is_last }
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

/// XDR (RFC 4506): a length, bytes, and up to a multiple of four.
fn opaque<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Option<&'a [u8]> {
    let len = reader.be32()? as usize;
    if len > bytes_max {
        return None;
    }
    let bytes = reader.take(len)?;
    reader.skip(len.next_multiple_of(4) - len)?;
    Some(bytes)
}

fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    opaque(reader, NAME_BYTES_MAX)
}

fn handle<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    opaque(reader, HANDLE_BYTES_MAX)
}

fn bitmap(reader: &mut Reader<'_>) -> Option<()> {
    let words = reader.be32()?;
    if words > 8 { None } else { reader.skip(4 * words as usize) }
}

fn read_sender(xid: u32, reader: &mut Reader<'_>) -> Option<Sender> {
    let (flavor, body) = (reader.be32()?, opaque(reader, 400)?);
    let (_, _) = (reader.be32()?, opaque(reader, 400)?);
    let mut body = Reader::new(body);
    let unix = if flavor == UNIX {
        body.skip(4)?;
        Some((text(&mut body)?.to_vec(), body.be32()?, body.be32()?))
    } else {
        None
    };
    Some(Sender { xid, flavor, unix })
}

fn asked_2(procedure: u32, mut reader: Reader<'_>) -> Option<Asked<'_>> {
    let mut asked = Asked::default();
    if procedure == 0 {
        return Some(asked);
    }
    asked.handle = reader.take(32)?;
    match procedure {
        4 | 9 | 10 | 13 | 14 | 15 => asked.name = text(&mut reader)?,
        6 => asked.offset = u64::from(reader.be32()?),
        8 => {
            let (_, offset, _) = (reader.be32()?, reader.be32()?, reader.be32()?);
            let len = reader.be32()? as usize;
            asked.write = Some(data(reader, u64::from(offset), len, false));
        }
        11 => {
            asked.name = text(&mut reader)?;
            reader.skip(32)?;
            asked.renamed = Some(text(&mut reader)?);
        }
        _ => {}
    }
    Some(asked)
}

fn asked_3(procedure: u32, mut reader: Reader<'_>) -> Option<Asked<'_>> {
    let mut asked = Asked::default();
    if procedure == 0 {
        return Some(asked);
    }
    asked.handle = handle(&mut reader)?;
    match procedure {
        3 | 8..=13 => asked.name = text(&mut reader)?,
        6 => asked.offset = reader.be64()?,
        7 => {
            let (offset, _, stable) = (reader.be64()?, reader.be32()?, reader.be32()?);
            let len = reader.be32()? as usize;
            asked.write = Some(data(reader, offset, len, stable == 2));
        }
        14 => {
            asked.name = text(&mut reader)?;
            handle(&mut reader)?;
            asked.renamed = Some(text(&mut reader)?);
        }
        21 => asked.closes = true,
        _ => {}
    }
    Some(asked)
}

/// Goes through the operations of a compound, as far as they are known.
fn asked_4(procedure: u32, mut reader: Reader<'_>) -> Option<Asked<'_>> {
    let mut asked = Asked::default();
    if procedure != 1 {
        return Some(asked);
    }
    text(&mut reader)?;
    reader.skip(4)?;
    let count = reader.be32()?.min(OPERATIONS_MAX);
    for _ in 0..count {
        let operation = reader.be32()?;
        match operation {
            3 => reader.skip(4)?,
            4 => {
                reader.skip(20)?;
                asked.closes = true;
            }
            5 => {
                reader.skip(12)?;
                asked.closes = true;
            }
            6 => {
                match reader.be32()? {
                    5 => _ = text(&mut reader)?,
                    3 | 4 => reader.skip(8)?,
                    _ => {}
                }
                asked.name = text(&mut reader)?;
                asked.main = Some(operation);
                bitmap(&mut reader)?;
                opaque(&mut reader, MESSAGE_BYTES_MAX)?;
            }
            8 => reader.skip(16)?,
            9 => bitmap(&mut reader)?,
            11 | 33 => _ = text(&mut reader)?,
            15 => asked.name = text(&mut reader)?,
            18 => asked.name = opened(&mut reader)?.unwrap_or(asked.name),
            20 => reader.skip(20)?,
            21 => reader.skip(28)?,
            22 => asked.handle = handle(&mut reader)?,
            25 => {
                reader.skip(16)?;
                asked.offset = reader.be64()?;
                reader.skip(4)?;
            }
            26 => {
                reader.skip(24)?;
                bitmap(&mut reader)?;
            }
            28 => {
                asked.name = text(&mut reader)?;
                asked.main = Some(operation);
            }
            29 => {
                asked.name = text(&mut reader)?;
                asked.renamed = Some(text(&mut reader)?);
            }
            30 | 57 => reader.skip(8)?,
            34 => {
                reader.skip(16)?;
                bitmap(&mut reader)?;
                opaque(&mut reader, MESSAGE_BYTES_MAX)?;
            }
            35 => {
                reader.skip(8)?;
                text(&mut reader)?;
                reader.skip(4)?;
                text(&mut reader)?;
                text(&mut reader)?;
                reader.skip(4)?;
            }
            36 => reader.skip(16)?,
            38 => {
                reader.skip(16)?;
                let (offset, stable) = (reader.be64()?, reader.be32()?);
                let len = reader.be32()? as usize;
                let found = data(reader, offset, len, stable == 2);
                asked.write = Some(found);
                if reader.skip(len.next_multiple_of(4)).is_none() {
                    break;
                }
            }
            44 => reader.skip(16)?,
            53 => reader.skip(32)?,
            58 => reader.skip(4)?,
            10 | 16 | 23 | 24 | 27 | 31 | 32 => {}
            _ => break,
        }
    }
    Some(asked)
}

/// The name that is opened, where there is one.
fn opened<'a>(reader: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    reader.skip(20)?;
    text(reader)?;
    if reader.be32()? == 1 {
        let mode = reader.be32()?;
        if mode >= 2 {
            reader.skip(8)?;
        }
        if mode != 2 {
            bitmap(reader)?;
            opaque(reader, MESSAGE_BYTES_MAX)?;
        }
    }
    Some(match reader.be32()? {
        0 | 3 => Some(text(reader)?),
        1 => {
            reader.skip(4)?;
            None
        }
        2 => {
            reader.skip(16)?;
            Some(text(reader)?)
        }
        5 => {
            reader.skip(16)?;
            None
        }
        _ => None,
    })
}

fn procedure_name(version: u32, number: u32, of_compound: bool) -> &'static str {
    let at = number as usize;
    match (version, of_compound) {
        (2, _) => PROCEDURES_2.get(at).copied(),
        (3, _) => PROCEDURES_3.get(at).copied(),
        (_, true) => Some(if number == 6 { "CREATE" } else { "REMOVE" }),
        (_, false) => Some("COMPOUND"),
    }
    .unwrap_or("UNKNOWN")
}

fn number_it(tx: &mut Transaction, dir: Dir, version: u32, procedure: u32) {
    tx.integer_is(Field::NfsVersion, dir, u64::from(version));
    tx.integer_is(Field::NfsProcedure, dir, u64::from(procedure));
}

/// What a call says. The log has the part of RPC in an object of its own.
fn note(tx: &mut Transaction, call: &Call, procedure: &'static str, of_file: bool) {
    let (id, notes) = (tx.id, &mut tx.notes);
    notes.number("version", call.version);
    notes.text("procedure", procedure);
    notes.text("filename", &call.name);
    if !call.handle.is_empty() {
        notes.text("hhash", format!("{:x}", checksum(&call.handle)));
    }
    notes.number("id", id + 1);
    notes.truth("file_tx", of_file);
    notes.text("type", "request");
    notes.object("rpc");
    notes.number("xid", call.sender.xid);
    notes.text(
        "auth_type",
        match call.sender.flavor {
            0 => "NULL",
            UNIX => "UNIX",
            6 => "GSS",
            _ => "UNKNOWN",
        },
    );
    if let Some((machine, user, group)) = &call.sender.unix {
        notes.object("creds");
        notes.text("machine_name", machine);
        notes.number("uid", *user);
        notes.number("gid", *group);
        notes.end();
    }
    notes.end();
}

fn note_reply(tx: &mut Transaction, denied: bool, status: Option<u32>) {
    let notes = &mut tx.notes;
    notes.text("type", "response");
    let known = status.unwrap_or(0);
    let name = STATUSES.iter().find(|(of, _)| *of == known).map_or_else(|| known.to_string(), |(_, name)| (*name).to_owned());
    notes.text("status", name);
    notes.object("rpc");
    notes.text("status", if denied { "DENIED" } else { "ACCEPTED" });
    notes.end();
}

/// CRC-32 of a handle, by which the log names it.
fn checksum(bytes: &[u8]) -> u32 {
    let step =
        |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 });
    !bytes.iter().fold(!0, step)
}

impl Parser for Nfs {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.transport == Transport::Udp {
            let next = match self.message(bytes, io) {
                Ok(_) => Next::Continue,
                Err(next) => next,
            };
            return Step { consumed: bytes.len(), next };
        }
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let way = &mut self.ways[io.dir as usize];
            if way.left == 0 {
                let Some(mark) = rest.first_chunk::<4>().map(|mark| u32::from_be_bytes(*mark)) else { return Step::on(at) };
                (way.left, way.is_last) = ((mark & 0x7fff_ffff) as usize, mark >> 31 == 1);
                (way.ignored, way.body) = (false, None);
                at += 4;
                continue;
            }
            match self.fragment(rest, io) {
                Ok(None) => return Step::on(at),
                Ok(Some(taken)) => {
                    at += taken;
                    let way = &mut self.ways[io.dir as usize];
                    way.left -= taken;
                    if at == bytes.len() {
                        return Step::on(at);
                    }
                }
                Err(next) => return Step { consumed: at, next },
            }
            io.report();
        }
    }

    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next {
        let way = &mut self.ways[io.dir as usize];
        let lost = len + pending.len() as u64;
        if self.transport == Transport::Udp {
            return Next::Continue;
        }
        let Some(left) = (way.left as u64).checked_sub(lost) else { return Next::Finished(Finished::Gap) };
        way.left = left as usize;
        match &mut way.body {
            Some(body) => {
                let of_data = lost.min(body.left);
                if let Some(open) = self.files.get_mut(&(body.handle.clone(), io.dir)) {
                    open.file.lost(body.offset, of_data, io);
                }
                body.offset += of_data;
                body.left -= of_data;
                self.body_ends(io);
            }
            None => way.ignored = true,
        }
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
