//! DCE/RPC (C706, MS-RPCE) over TCP and UDP; its connection-oriented form also within named pipes of SMB.
//!
//! A bind with its answer is a transaction, and each call: what is asked for of which interface, and the stub data of both
//! directions, put together from their fragments.

mod services;

use std::collections::{BTreeMap, VecDeque};

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::{Notes, hex};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 16;
const DATAGRAM_HEAD_BYTES: usize = 80;
/// Interfaces of one association that are remembered; the oldest go.
const INTERFACES_MAX: usize = 64;
/// Calls of one association that are not answered; the oldest are given up.
const CALLS_MAX: usize = 64;
/// Stub data of one call and direction; what is more is not kept, and the transaction is marked.
const STUB_BYTES_MAX: usize = 256 * 1024;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 2;
const FAULT: u8 = 3;
const BIND: u8 = 11;
const BIND_ACK: u8 = 12;
const BIND_NAK: u8 = 13;
const ALTER: u8 = 14;
const ALTER_RESPONSE: u8 = 15;

const KINDS: [&str; 20] = [
    "REQUEST",
    "PING",
    "RESPONSE",
    "FAULT",
    "WORKING",
    "NOCALL",
    "REJECT",
    "ACK",
    "CL_CANCEL",
    "FACK",
    "CANCEL_ACK",
    "BIND",
    "BINDACK",
    "BINDNAK",
    "ALTER_CONTEXT",
    "ALTER_CONTEXT_RESP",
    "AUTH3",
    "SHUTDOWN",
    "CO_CANCEL",
    "ORPHANED",
];

fn kind_name(kind: u8) -> &'static str {
    KINDS.get(usize::from(kind)).copied().unwrap_or("UNKNOWN")
}

const FIRST: u8 = 0x01;
const LAST: u8 = 0x02;

/// Version 5.0 or 5.1, a type that exists, a plausible representation of data and length.
pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    let tests: [fn(u8) -> bool; 8] = [
        |version| version == 5,
        |minor| minor <= 1,
        |kind| matches!(kind, REQUEST | RESPONSE | FAULT | BIND..=ALTER_RESPONSE),
        |_| true,
        |order| matches!(order, 0 | 0x10),
        |floats| floats <= 3,
        |zero| zero == 0,
        |zero| zero == 0,
    ];
    match bytes.iter().zip(tests).all(|(byte, test)| test(*byte)) {
        false => Probe::No,
        true if bytes.len() < 12 => Probe::More,
        true if Head::read(bytes).is_some_and(|head| head.len >= HEAD_BYTES && head.auth_len < head.len) => Probe::Yes,
        true => Probe::No,
    }
}

/// Version 4, and a length that is the datagram's.
pub(crate) fn probe_udp(_: Dir, bytes: &[u8]) -> Probe {
    match Datagram::read(bytes) {
        Some(datagram) if DATAGRAM_HEAD_BYTES + datagram.len == bytes.len() => Probe::Yes,
        _ => Probe::No,
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u8,
    flags: u8,
    little: bool,
    len: usize,
    auth_len: usize,
    call: u32,
}

impl Head {
    /// `None`: too few bytes, or another version.
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[5, _, kind, flags, order, _, _, _, ..] = bytes else { return None };
        let little = order & 0x10 != 0;
        let reader = Numbers { bytes, little };
        Some(Self {
            kind,
            flags,
            little,
            len: usize::from(reader.u16(8)?),
            auth_len: usize::from(reader.u16(10)?),
            call: reader.u32(12).unwrap_or(0),
        })
    }
}

/// Numbers in the order that a message says.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Numbers<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<2>()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<4>()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// `12345678-1234-abcd-ef00-0123456789ab`
    fn uuid(&self, at: usize) -> Option<String> {
        let rest = self.bytes.get(at + 8..at + 16)?;
        let head = (self.u32(at)?, self.u16(at + 4)?, self.u16(at + 6)?);
        Some(format!("{:08x}-{:04x}-{:04x}-{}-{}", head.0, head.1, head.2, hex(&rest[..2]), hex(&rest[2..])))
    }

    /// `12345678-1234-abcd-ef00-0123456789ab 1.0`; `version`: major and minor number.
    fn interface(&self, at: usize, version: (u16, u16)) -> Option<Vec<u8>> {
        let (uuid, (major, minor)) = (self.uuid(at)?, version);
        Some(format!("{uuid} {major}.{minor}").into_bytes())
    }
}

/// What carries the messages, and says something of its own of each transaction.
pub(crate) trait Carrier {
    fn protocol(&self) -> Protocol;
    /// A transaction has begun, or was answered in `dir`.
    fn said(&self, tx: &mut Transaction, dir: Dir);
    /// Notes stand in an object of this name.
    fn inside(&self) -> Option<&'static str>;
}

/// One association: a connection, or an open pipe.
#[derive(Debug, Default)]
pub(crate) struct Association {
    /// By the number that requests name them with.
    interfaces: VecDeque<(u16, Vec<u8>)>,
    binding: Option<Binding>,
    /// By their numbers.
    calls: BTreeMap<u32, Call>,
}

#[derive(Debug)]
struct Binding {
    tx: u64,
    offered: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Call {
    tx: u64,
    stubs: [Vec<u8>; 2],
    fragments: [u32; 2],
    opnum: Option<u16>,
    interface: Option<Vec<u8>>,
}

impl Association {
    /// Reads whole messages. Gives the bytes that were taken, and why nothing can be read any more.
    pub fn read(&mut self, bytes: &[u8], carrier: &impl Carrier, io: &mut Io<'_>) -> (usize, Option<Next>) {
        let mut at = 0;
        while bytes.len() - at >= HEAD_BYTES {
            let head = Head::read(&bytes[at..]).filter(|head| head.len >= HEAD_BYTES);
            let Some(head) = head else { return (at, Some(Next::Finished(Finished::Malformed("header")))) };
            let Some(message) = bytes.get(at..at + head.len) else { break };
            at += head.len;
            if let Some(next) = self.message(head, message, carrier, io) {
                return (at, Some(next));
            }
        }
        (at, None)
    }

    fn message(&mut self, head: Head, message: &[u8], carrier: &impl Carrier, io: &mut Io<'_>) -> Option<Next> {
        let full = || Some(Next::Finished(Finished::Cap("transactions_max")));
        let numbers = Numbers { bytes: message, little: head.little };
        match head.kind {
            BIND | ALTER => {
                if let Some(binding) = self.binding.take() {
                    complete(binding.tx, io);
                }
                let Some(id) = begin(head, carrier, io) else { return full() };
                let offered = self.bind(numbers, id, io);
                self.binding = Some(Binding { tx: id, offered });
            }
            BIND_ACK | ALTER_RESPONSE | BIND_NAK => {
                let binding = match self.binding.take() {
                    Some(binding) => binding,
                    // Its question was lost.
                    None => Binding { tx: begin(head, carrier, io)?, offered: Vec::new() },
                };
                answer(head, binding, numbers, carrier, io);
            }
            REQUEST => {
                if let Some(call) = self.calls.get(&head.call)
                    && head.flags & FIRST != 0
                {
                    // The number stands for another call now.
                    let id = call.tx;
                    self.calls.remove(&head.call);
                    complete(id, io);
                }
                if !self.calls.contains_key(&head.call) {
                    let Some(id) = begin(head, carrier, io) else { return full() };
                    let context = numbers.u16(HEAD_BYTES + 4);
                    let interface = self.interfaces.iter().rev().find(|(number, _)| Some(*number) == context);
                    let opnum = numbers.u16(HEAD_BYTES + 6);
                    let dir = io.dir;
                    if let Some(tx) = io.tx(id) {
                        if let Some(opnum) = opnum {
                            tx.integer_is(Field::DcerpcOpnum, dir, u64::from(opnum));
                        }
                        if let Some((_, interface)) = interface {
                            tx.value(Buffer::DcerpcIface, dir, interface);
                        }
                    }
                    let interface = interface.map(|(_, interface)| interface.clone());
                    self.wait(head.call, Call { tx: id, opnum, interface, ..Call::default() }, io);
                }
                self.stub(head, message, HEAD_BYTES + 8, carrier, io);
            }
            RESPONSE | FAULT => {
                if !self.calls.contains_key(&head.call) {
                    // Its question was lost.
                    let Some(id) = begin(head, carrier, io) else { return full() };
                    self.wait(head.call, Call { tx: id, ..Call::default() }, io);
                }
                // Over TCP the reference engine counts the eight bytes of an answer's own head.
                let start = HEAD_BYTES + if carrier.inside().is_some() { 8 } else { 0 };
                self.stub(head, message, start, carrier, io);
            }
            _ => {}
        }
        None
    }

    fn wait(&mut self, number: u32, call: Call, io: &mut Io<'_>) {
        if self.calls.len() >= CALLS_MAX
            && let Some((_, call)) = self.calls.pop_first()
        {
            complete(call.tx, io);
        }
        self.calls.insert(number, call);
    }

    /// Gives what is offered.
    fn bind(&mut self, numbers: Numbers<'_>, id: u64, io: &mut Io<'_>) -> Vec<Vec<u8>> {
        let dir = io.dir;
        let mut offered = Vec::new();
        let Some(tx) = io.tx(id) else { return offered };
        let count = numbers.bytes.get(HEAD_BYTES + 8).copied().unwrap_or(0);
        let mut at = HEAD_BYTES + 12;
        for _ in 0..count {
            let (Some(number), Some(transfers)) = (numbers.u16(at), numbers.bytes.get(at + 2)) else { break };
            let (Some(major), Some(minor)) = (numbers.u16(at + 20), numbers.u16(at + 22)) else { break };
            let Some(interface) = numbers.interface(at + 4, (major, minor)) else { break };
            tx.value(Buffer::DcerpcIface, dir, &interface);
            if self.interfaces.len() >= INTERFACES_MAX {
                self.interfaces.pop_front();
            }
            self.interfaces.push_back((number, interface.clone()));
            offered.push(interface);
            at += 24 + 20 * usize::from(*transfers);
        }
        offered
    }

    /// A fragment of what a call carries.
    fn stub(&mut self, head: Head, message: &[u8], start: usize, carrier: &impl Carrier, io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(call) = self.calls.get_mut(&head.call) else { return };
        // With the object before it and the verifier behind it, as the reference engine shows it.
        let stub = message.get(start..).unwrap_or_default();
        let all = &mut call.stubs[dir as usize];
        let room = STUB_BYTES_MAX - all.len();
        all.extend_from_slice(&stub[..stub.len().min(room)]);
        call.fragments[dir as usize] += 1;
        let id = call.tx;
        let Some(tx) = io.tx(id) else { return };
        tx.overflowed |= stub.len() > room;
        if head.flags & LAST == 0 {
            return;
        }
        tx.value(Buffer::DcerpcStubData, dir, all);
        tx.advance(dir, Stage::Complete);
        call.note(tx, head.kind, dir, carrier);
        call.stubs[dir as usize].clear();
        if dir == Dir::ToClient {
            carrier.said(tx, dir);
            tx.advance(dir.other(), Stage::Complete);
            self.calls.remove(&head.call);
        }
    }

    /// Nothing more comes from `io.dir`: what came of stubs is shown.
    pub fn end(&mut self, io: &mut Io<'_>) {
        let dir = io.dir;
        for call in self.calls.values_mut() {
            let stub = std::mem::take(&mut call.stubs[dir as usize]);
            if let Some(tx) = io.tx(call.tx) {
                if !stub.is_empty() {
                    tx.value(Buffer::DcerpcStubData, dir, &stub);
                }
                tx.advance(dir, Stage::Complete);
            }
        }
    }
}

impl Call {
    /// Both directions of a call for the log, each when it is complete.
    fn note(&self, tx: &mut Transaction, kind: u8, dir: Dir, carrier: &impl Carrier) {
        let notes = &mut tx.notes;
        open(notes, carrier);
        let part = match dir {
            Dir::ToServer => {
                if let Some(interface) = &self.interface {
                    notes.list("interfaces");
                    note_interface(notes, interface);
                    if let Some((service, procedures)) = services::find(interface) {
                        notes.text("service", service);
                        if let Some(procedure) = self.opnum.and_then(|opnum| procedures.get(usize::from(opnum))) {
                            notes.text("procedure", procedure);
                        }
                    }
                    notes.end();
                    notes.end();
                }
                if carrier.inside().is_some()
                    && let Some(opnum) = self.opnum
                {
                    notes.number("opnum", opnum);
                }
                "req"
            }
            Dir::ToClient => {
                notes.text("response", kind_name(kind));
                "res"
            }
        };
        notes.object(part);
        if dir == Dir::ToServer
            && carrier.inside().is_none()
            && let Some(opnum) = self.opnum
        {
            notes.number("opnum", opnum);
        }
        notes.number("frag_cnt", self.fragments[dir as usize]);
        notes.number("stub_data_size", self.stubs[dir as usize].len() as u64);
        notes.end();
        close(notes, carrier);
    }
}

fn open(notes: &mut Notes, carrier: &impl Carrier) {
    if let Some(name) = carrier.inside() {
        notes.object(name);
    }
}

fn close(notes: &mut Notes, carrier: &impl Carrier) {
    if carrier.inside().is_some() {
        notes.end();
    }
}

/// Leaves the object open.
fn note_interface(notes: &mut Notes, interface: &[u8]) {
    let end = interface.iter().position(|byte| *byte == b' ').unwrap_or(interface.len());
    notes.object("");
    notes.text("uuid", &interface[..end]);
    notes.text("version", interface.get(end + 1..).unwrap_or_default());
}

/// `None`: no room for another transaction.
fn begin(head: Head, carrier: &impl Carrier, io: &mut Io<'_>) -> Option<u64> {
    let id = io.begin(carrier.protocol())?;
    let dir = io.dir;
    if let Some(tx) = io.tx(id) {
        tx.integer_is(Field::DcerpcCallId, dir, u64::from(head.call));
        tx.integer_is(Field::DcerpcLittleEndian, dir, u64::from(head.little));
        carrier.said(tx, dir);
        let notes = &mut tx.notes;
        open(notes, carrier);
        notes.text("request", if dir == Dir::ToServer { kind_name(head.kind) } else { "REQUEST_LOST" });
        notes.number("call_id", head.call);
        close(notes, carrier);
        if carrier.inside().is_none() {
            notes.text("rpc_version", "5.0");
        }
    }
    Some(id)
}

/// Which interfaces were taken.
fn answer(head: Head, binding: Binding, numbers: Numbers<'_>, carrier: &impl Carrier, io: &mut Io<'_>) {
    let dir = io.dir;
    let Some(tx) = io.tx(binding.tx) else { return };
    let results = if head.kind == BIND_NAK { Vec::new() } else { results(numbers) };
    for result in &results {
        tx.integer_is(Field::DcerpcAck, dir, u64::from(*result));
    }
    carrier.said(tx, dir);
    let notes = &mut tx.notes;
    open(notes, carrier);
    notes.text("response", kind_name(head.kind));
    if !binding.offered.is_empty() {
        notes.list("interfaces");
        for (index, interface) in binding.offered.iter().enumerate() {
            note_interface(notes, interface);
            notes.number("ack_result", results.get(index).copied().unwrap_or_default());
            if carrier.inside().is_some() {
                // The reference engine reads the reason and does not write it down.
                notes.number("ack_reason", 0_u8);
            }
            notes.end();
        }
        notes.end();
    }
    close(notes, carrier);
    complete(binding.tx, io);
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

/// Of each interface.
fn results(numbers: Numbers<'_>) -> Vec<u16> {
    // An address as text, and bytes up to a multiple of four.
    let address = numbers.u16(HEAD_BYTES + 8).map_or(0, usize::from);
    let at = (HEAD_BYTES + 10 + address).next_multiple_of(4);
    let count = numbers.bytes.get(at).copied().unwrap_or(0);
    let each = (0..usize::from(count)).map(|index| at + 4 + 24 * index);
    each.map_while(|at| numbers.u16(at)).collect()
}

struct Plain;

impl Carrier for Plain {
    fn protocol(&self) -> Protocol {
        Protocol::Dcerpc
    }

    fn said(&self, _: &mut Transaction, _: Dir) {}

    fn inside(&self) -> Option<&'static str> {
        None
    }
}

/// Over TCP.
#[derive(Debug, Default)]
pub(crate) struct Dcerpc {
    association: Association,
    /// Bytes of a message that was cut by lost ones, by direction.
    skip: [u64; 2],
    /// Where a message begins is not known.
    lost: [bool; 2],
}

impl Parser for Dcerpc {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let side = io.dir as usize;
        let skip = self.skip[side].min(bytes.len() as u64);
        self.skip[side] -= skip;
        let rest = &bytes[skip as usize..];
        if self.lost[side] {
            match probe_tcp(io.dir, rest) {
                Probe::No => return Step::on(bytes.len()),
                Probe::More => return Step::on(skip as usize),
                Probe::Yes => self.lost[side] = false,
            }
        }
        let (consumed, next) = self.association.read(rest, &Plain, io);
        Step { consumed: skip as usize + consumed, next: next.unwrap_or(Next::Continue) }
    }

    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next {
        let side = io.dir as usize;
        let left = match Head::read(pending) {
            _ if self.skip[side] > 0 => self.skip[side],
            Some(head) => (head.len as u64).saturating_sub(pending.len() as u64),
            None => 0,
        };
        match left.checked_sub(len) {
            Some(left) => self.skip[side] = left,
            None => (self.skip[side], self.lost[side]) = (0, true),
        }
        Next::Continue
    }

    fn end(&mut self, _: &[u8], io: &mut Io<'_>) {
        self.association.end(io);
    }
}

/// Over UDP: a request with its answer is a transaction, as long as the answer comes while it is remembered.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// By activity and number, the newest last.
    calls: VecDeque<DatagramCall>,
}

#[derive(Debug)]
struct DatagramCall {
    activity: [u8; 16],
    sequence: u32,
    tx: u64,
    fragments: [u32; 2],
    bytes: [u64; 2],
}

#[derive(Debug)]
struct Datagram {
    kind: u8,
    /// Another fragment follows.
    more: bool,
    little: bool,
    len: usize,
    activity: [u8; 16],
    sequence: u32,
}

impl Datagram {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[4, kind, flags, _, order, floats, ..] = bytes else { return None };
        if bytes.len() < DATAGRAM_HEAD_BYTES || kind > 10 || !matches!(order, 0 | 0x10) || floats > 3 {
            return None;
        }
        let little = order & 0x10 != 0;
        let numbers = Numbers { bytes, little };
        let activity = *bytes.get(40..)?.first_chunk()?;
        let more = flags & 0x04 != 0 && flags & 0x02 == 0;
        Some(Self { kind, more, little, len: usize::from(numbers.u16(74)?), activity, sequence: numbers.u32(64)? })
    }

    fn is_answer(&self) -> bool {
        matches!(self.kind, RESPONSE | FAULT | 6)
    }
}

impl Datagrams {
    /// `None`: no room for another transaction.
    fn begin(&mut self, datagram: &Datagram, bytes: &[u8], io: &mut Io<'_>) -> Option<usize> {
        if self.calls.len() >= CALLS_MAX
            && let Some(call) = self.calls.pop_front()
        {
            complete(call.tx, io);
        }
        let (id, dir) = (io.begin(Protocol::Dcerpc)?, io.dir);
        let numbers = Numbers { bytes, little: datagram.little };
        if let Some(tx) = io.tx(id) {
            let version = numbers.u32(60).unwrap_or(0);
            if let Some(interface) = numbers.interface(24, (version as u16, (version >> 16) as u16)) {
                tx.value(Buffer::DcerpcIface, dir, &interface);
            }
            if let Some(opnum) = numbers.u16(68) {
                tx.integer_is(Field::DcerpcOpnum, dir, u64::from(opnum));
            }
            tx.integer_is(Field::DcerpcCallId, dir, u64::from(datagram.sequence));
            tx.integer_is(Field::DcerpcLittleEndian, dir, u64::from(datagram.little));
            tx.notes.text("request", if datagram.is_answer() { "REQUEST_LOST" } else { kind_name(datagram.kind) });
            tx.notes.text("rpc_version", "4.0");
            // The reference engine reads this one always so.
            let activity = Numbers { bytes, little: true }.uuid(40);
            tx.notes.text("activityuuid", activity.unwrap_or_default());
            tx.notes.number("seqnum", datagram.sequence);
        }
        let Datagram { activity, sequence, .. } = *datagram;
        self.calls.push_back(DatagramCall { activity, sequence, tx: id, fragments: [0; 2], bytes: [0; 2] });
        Some(self.calls.len() - 1)
    }
}

impl Parser for Datagrams {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let all = Step::on(bytes.len());
        let Some(datagram) = Datagram::read(bytes) else { return all };
        // Who answers, answers the other direction.
        let dir = io.dir;
        let same = |call: &DatagramCall| call.activity == datagram.activity && call.sequence == datagram.sequence;
        let at = match self.calls.iter().rposition(same) {
            Some(at) => at,
            None => match self.begin(&datagram, bytes, io) {
                Some(at) => at,
                None => return Step { consumed: bytes.len(), next: Next::Finished(Finished::Cap("transactions_max")) },
            },
        };
        let Some(call) = self.calls.get_mut(at) else { return all };
        let stub = &bytes[DATAGRAM_HEAD_BYTES..];
        let stub = &stub[..datagram.len.min(stub.len())];
        let side = usize::from(datagram.is_answer());
        call.fragments[side] += 1;
        call.bytes[side] += stub.len() as u64;
        if let Some(tx) = io.tx(call.tx) {
            tx.value(Buffer::DcerpcStubData, dir, stub);
            if !datagram.more {
                if side == 1 {
                    tx.notes.text("response", kind_name(datagram.kind));
                }
                tx.notes.object(if side == 0 { "req" } else { "res" });
                if let (0, Some(opnum)) = (side, Numbers { bytes, little: datagram.little }.u16(68)) {
                    tx.notes.number("opnum", opnum);
                }
                tx.notes.number("frag_cnt", call.fragments[side]);
                tx.notes.number("stub_data_size", call.bytes[side]);
                tx.notes.end();
                tx.advance(dir, Stage::Complete);
            }
        }
        if datagram.is_answer() && !datagram.more {
            complete(call.tx, io);
            self.calls.remove(at);
        }
        all
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
