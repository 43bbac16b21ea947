//! DCE/RPC (C706, MS-RPCE) over TCP and UDP; its connection-oriented form also within named pipes of SMB.
//!
//! A bind with its answer is a transaction, and each call: what is asked for of which interface, and the stub data of both
//! directions, put together from their fragments.

use std::collections::{BTreeMap, VecDeque};

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;

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

const FIRST: u8 = 0x01;
const LAST: u8 = 0x02;
const WITH_OBJECT: u8 = 0x80;

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

    /// `12345678-1234-abcd-ef00-0123456789ab 1.0`; `version`: major and minor number.
    fn interface(&self, at: usize, version: (u16, u16)) -> Option<Vec<u8>> {
        let rest = self.bytes.get(at + 8..at + 16)?;
        let tail: String = rest[2..].iter().map(|byte| format!("{byte:02x}")).collect();
        let head = (self.u32(at)?, self.u16(at + 4)?, self.u16(at + 6)?);
        let (major, minor) = version;
        Some(format!("{:08x}-{:04x}-{:04x}-{:02x}{:02x}-{tail} {major}.{minor}", head.0, head.1, head.2, rest[0], rest[1]).into_bytes())
    }
}

/// One association: a connection, or an open pipe.
#[derive(Debug, Default)]
pub(crate) struct Association {
    /// By the number that requests name them with.
    interfaces: VecDeque<(u16, Vec<u8>)>,
    binding: Option<u64>,
    /// By their numbers.
    calls: BTreeMap<u32, Call>,
}

#[derive(Debug)]
struct Call {
    tx: u64,
    stubs: [Vec<u8>; 2],
}

impl Association {
    /// Reads whole messages. Gives the bytes that were taken, and why nothing can be read any more.
    pub fn read(&mut self, bytes: &[u8], protocol: Protocol, io: &mut Io<'_>) -> (usize, Option<Next>) {
        let mut at = 0;
        while bytes.len() - at >= HEAD_BYTES {
            let head = Head::read(&bytes[at..]).filter(|head| head.len >= HEAD_BYTES);
            let Some(head) = head else { return (at, Some(Next::Finished(Finished::Malformed("header")))) };
            let Some(message) = bytes.get(at..at + head.len) else { break };
            at += head.len;
            if let Some(next) = self.message(head, message, protocol, io) {
                return (at, Some(next));
            }
        }
        (at, None)
    }

    fn message(&mut self, head: Head, message: &[u8], protocol: Protocol, io: &mut Io<'_>) -> Option<Next> {
        let full = || Some(Next::Finished(Finished::Cap("transactions_max")));
        let numbers = Numbers { bytes: message, little: head.little };
        match head.kind {
            BIND | ALTER => {
                if let Some(id) = self.binding.take() {
                    complete(id, io);
                }
                let Some(id) = io.begin(protocol) else { return full() };
                self.binding = Some(id);
                let dir = io.dir;
                if let Some(tx) = io.tx(id) {
                    tx.integer_is(Field::DcerpcCallId, dir, u64::from(head.call));
                }
                self.bind(numbers, id, io);
            }
            BIND_ACK | ALTER_RESPONSE | BIND_NAK => {
                if let Some(id) = self.binding.take() {
                    if head.kind != BIND_NAK {
                        acknowledge(numbers, id, io);
                    }
                    complete(id, io);
                }
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
                    if self.calls.len() >= CALLS_MAX
                        && let Some((_, call)) = self.calls.pop_first()
                    {
                        complete(call.tx, io);
                    }
                    let Some(id) = io.begin(protocol) else { return full() };
                    self.calls.insert(head.call, Call { tx: id, stubs: Default::default() });
                    let context = numbers.u16(HEAD_BYTES + 4);
                    let interface = self.interfaces.iter().rev().find(|(number, _)| Some(*number) == context);
                    let dir = io.dir;
                    if let Some(tx) = io.tx(id) {
                        tx.integer_is(Field::DcerpcCallId, dir, u64::from(head.call));
                        if let Some(opnum) = numbers.u16(HEAD_BYTES + 6) {
                            tx.integer_is(Field::DcerpcOpnum, dir, u64::from(opnum));
                        }
                        if let Some((_, interface)) = interface {
                            tx.value(Buffer::DcerpcIface, dir, interface);
                        }
                    }
                }
                let object = if head.flags & WITH_OBJECT != 0 { 16 } else { 0 };
                self.stub(head, message, HEAD_BYTES + 8 + object, io);
            }
            RESPONSE | FAULT => self.stub(head, message, HEAD_BYTES + 8, io),
            _ => {}
        }
        None
    }

    fn bind(&mut self, numbers: Numbers<'_>, id: u64, io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(tx) = io.tx(id) else { return };
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
            self.interfaces.push_back((number, interface));
            at += 24 + 20 * usize::from(*transfers);
        }
    }

    /// A fragment of what a call carries.
    fn stub(&mut self, head: Head, message: &[u8], start: usize, io: &mut Io<'_>) {
        let dir = io.dir;
        let Some(call) = self.calls.get_mut(&head.call) else { return };
        // Behind it the verifier, and eight bytes that tell of it.
        let auth = if head.auth_len > 0 { head.auth_len + 8 } else { 0 };
        let stub = message.get(start..message.len().saturating_sub(auth)).unwrap_or_default();
        let all = &mut call.stubs[dir as usize];
        let room = STUB_BYTES_MAX - all.len();
        all.extend_from_slice(&stub[..stub.len().min(room)]);
        let id = call.tx;
        let Some(tx) = io.tx(id) else { return };
        tx.overflowed |= stub.len() > room;
        if head.flags & LAST == 0 {
            return;
        }
        tx.value(Buffer::DcerpcStubData, dir, &std::mem::take(all));
        tx.advance(dir, Stage::Complete);
        if dir == Dir::ToClient {
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

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

/// Which interfaces were taken.
fn acknowledge(numbers: Numbers<'_>, id: u64, io: &mut Io<'_>) {
    let dir = io.dir;
    let Some(tx) = io.tx(id) else { return };
    // An address as text, and bytes up to a multiple of four.
    let Some(address) = numbers.u16(HEAD_BYTES + 8) else { return };
    let mut at = (HEAD_BYTES + 10 + usize::from(address)).next_multiple_of(4);
    let count = numbers.bytes.get(at).copied().unwrap_or(0);
    at += 4;
    for _ in 0..count {
        let Some(result) = numbers.u16(at) else { break };
        tx.integer_is(Field::DcerpcAck, dir, u64::from(result));
        at += 24;
    }
}

/// Over TCP.
#[derive(Debug, Default)]
pub(crate) struct Dcerpc {
    association: Association,
}

impl Parser for Dcerpc {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let (consumed, next) = self.association.read(bytes, Protocol::Dcerpc, io);
        Step { consumed, next: next.unwrap_or(Next::Continue) }
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Finished(Finished::Gap)
    }

    fn end(&mut self, _: &[u8], io: &mut Io<'_>) {
        self.association.end(io);
    }
}

/// Over UDP: each fragment is a transaction of its own direction.
#[derive(Debug, Default)]
pub(crate) struct Datagrams;

#[derive(Debug)]
struct Datagram {
    little: bool,
    len: usize,
}

impl Datagram {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[4, kind, _, _, order, floats, ..] = bytes else { return None };
        if bytes.len() < DATAGRAM_HEAD_BYTES || kind > 10 || !matches!(order, 0 | 0x10) || floats > 3 {
            return None;
        }
        let little = order & 0x10 != 0;
        Some(Self { little, len: usize::from(Numbers { bytes, little }.u16(74)?) })
    }
}

impl Parser for Datagrams {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let all = Step::on(bytes.len());
        let Some(Datagram { little, len }) = Datagram::read(bytes) else { return all };
        let dir = io.dir;
        let Some(id) = io.begin(Protocol::Dcerpc) else {
            return Step { consumed: bytes.len(), next: Next::Finished(Finished::Cap("transactions_max")) };
        };
        let numbers = Numbers { bytes, little };
        if let Some(tx) = io.tx(id) {
            let version = numbers.u32(60).unwrap_or(0);
            if let Some(interface) = numbers.interface(24, (version as u16, (version >> 16) as u16)) {
                tx.value(Buffer::DcerpcIface, dir, &interface);
            }
            if let Some(opnum) = numbers.u16(68) {
                tx.integer_is(Field::DcerpcOpnum, dir, u64::from(opnum));
            }
            if let Some(call) = numbers.u32(64) {
                tx.integer_is(Field::DcerpcCallId, dir, u64::from(call));
            }
            let stub = &bytes[DATAGRAM_HEAD_BYTES..];
            tx.value(Buffer::DcerpcStubData, dir, &stub[..len.min(stub.len())]);
        }
        complete(id, io);
        all
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
