//! Modbus over TCP (Modbus Application Protocol 1.1b3, Modbus Messaging on TCP/IP 1.0b): a request with its response is a transaction.

use crate::context::Io;
use crate::names::{Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::recent::Recent;
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 6;
/// What the length counts: the unit and 253 bytes.
const COUNTED_BYTES_MAX: usize = 254;
/// Requests without a response; the oldest are given up, and it is told of.
const REQUESTS_MAX: usize = 500;
/// Values of one message that are compared.
const VALUES_MAX: usize = 256;

/// Functions that are assigned, as the log names them.
const FUNCTIONS: &[(u8, &str)] = &[
    (1, "RdCoils"),
    (2, "RdDiscreteInputs"),
    (3, "RdHoldRegs"),
    (4, "RdInputRegs"),
    (5, "WrSingleCoil"),
    (6, "WrSingleReg"),
    (7, "RdExcStatus"),
    (8, "Diagnostic"),
    (9, "Program484"),
    (10, "Poll484"),
    (11, "GetCommEventCtr"),
    (12, "GetCommEventLog"),
    (13, "ProgramController"),
    (14, "PollController"),
    (15, "WrMultCoils"),
    (16, "WrMultRegs"),
    (17, "ReportServerID"),
    (18, "Program884"),
    (19, "ResetCommLink"),
    (20, "RdFileRec"),
    (21, "WrFileRec"),
    (22, "MaskWrReg"),
    (23, "RdWrMultRegs"),
    (24, "RdFIFOQueue"),
    (43, "MEI"),
];

const EXCEPTIONS: [&str; 11] = [
    "IllegalFunction",
    "IllegalDataAddr",
    "IllegalDataValue",
    "SlaveDeviceFail",
    "Ack",
    "SlaveDeviceBusy",
    "NegAck",
    "MemParityErr",
    "Unknown",
    "GatewayPathUnavailable",
    "GatewayTargetFailToResp",
];

const PUBLIC_ASSIGNED: u64 = 1;
const PUBLIC_UNASSIGNED: u64 = 2;
const USER: u64 = 4;
const RESERVED: u64 = 8;

/// No function, or none within a function.
const NO_SUBFUNCTION: u64 = 0xffff;
const READ: u64 = 1;
const WRITE: u64 = 2;
const DISCRETES: u64 = 1;
const COILS: u64 = 2;
const INPUT: u64 = 3;
const HOLDING: u64 = 4;

/// A head without a protocol number, a plausible length, and of a function that exists.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    match bytes {
        [_, _, 0, 0, 0, len, _, function, rest @ ..] => {
            let len = usize::from(*len);
            let code = function & 0x7f;
            // Of requests the length follows from the function.
            let fits = match (dir, code) {
                (Dir::ToServer, 1..=6) => len == 6,
                (Dir::ToServer, 7 | 11 | 12 | 17) => len == 2,
                (Dir::ToServer, 8) => len >= 6,
                (Dir::ToServer, 15 | 16) => rest.get(4).is_none_or(|count| usize::from(*count) + 7 == len),
                (Dir::ToServer, 22) => len == 8,
                (Dir::ToServer, 43) => len >= 3,
                _ => false,
            };
            if fits { Probe::Yes } else { Probe::No }
        }
        [_, _, rest @ ..] if rest.len() < 6 && rest.iter().take(3).all(|byte| *byte == 0) => Probe::More,
        [] | [_] => Probe::More,
        _ => Probe::No,
    }
}

#[derive(Debug)]
pub(crate) struct Modbus {
    requests: Recent<u16, Request>,
}

impl Default for Modbus {
    fn default() -> Self {
        Self { requests: Recent::new(REQUESTS_MAX) }
    }
}

#[derive(Debug)]
struct Request {
    tx: u64,
    function: u8,
    /// Bytes that the response should have, or what it should repeat.
    quantity: Option<u16>,
    repeats: Option<[u8; 4]>,
}

/// One message.
struct Message<'a> {
    number: u16,
    protocol: u16,
    unit: u8,
    function: u8,
    data: Reader<'a>,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, Default)]
struct Access {
    ways: u64,
    table: u64,
    address: u16,
    quantity: u16,
}

impl Modbus {
    /// `None`: no room for another transaction.
    fn message(&mut self, message: &Message<'_>, io: &mut Io<'_>) -> Option<()> {
        match io.dir {
            Dir::ToServer => self.request(message, io),
            Dir::ToClient => self.response(message, io),
        }
    }

    fn request(&mut self, message: &Message<'_>, io: &mut Io<'_>) -> Option<()> {
        let id = io.begin(Protocol::Modbus)?;
        let mut request = Request { tx: id, function: message.function, quantity: None, repeats: None };
        if let Some(tx) = io.tx(id) {
            let number = tx.id + 1;
            tx.notes.number("id", number);
            let access = message.describe("request", Dir::ToServer, tx);
            if access.ways & READ != 0 {
                request.quantity = Some(access.quantity);
            }
            if matches!(message.function, 5 | 6 | 15 | 16) {
                let mut data = message.data;
                request.repeats = data.array();
            }
            tx.advance(Dir::ToServer, Stage::Complete);
        }
        if let Some(gone) = self.requests.insert(message.number, request) {
            io.event(Some(id), "modbus.flooded");
            complete(gone.tx, io);
        }
        Some(())
    }

    fn response(&mut self, message: &Message<'_>, io: &mut Io<'_>) -> Option<()> {
        let dir = Dir::ToClient;
        let Some(request) = self.requests.remove(&message.number) else {
            let id = io.begin(Protocol::Modbus)?;
            if let Some(tx) = io.tx(id) {
                let number = tx.id + 1;
                tx.notes.number("id", number);
                message.describe("response", dir, tx);
                tx.event("modbus.unsolicited_response", dir);
            }
            complete(id, io);
            return Some(());
        };
        if let Some(tx) = io.tx(request.tx) {
            message.describe("response", dir, tx);
            let mut data = message.data;
            let differs = if message.function & 0x80 != 0 {
                false
            } else if message.function != request.function {
                true
            } else if let Some(quantity) = request.quantity {
                // Bits come eight in a byte, registers have two bytes.
                let wanted = if message.function <= 2 { quantity.div_ceil(8) } else { quantity.saturating_mul(2) };
                data.u8().is_none_or(|count| u16::from(count) != wanted)
            } else {
                request.repeats.is_some() && data.array() != request.repeats
            };
            if differs {
                tx.event("modbus.value_mismatch", dir);
            }
        }
        complete(request.tx, io);
        Some(())
    }
}

impl Message<'_> {
    fn category(&self) -> u64 {
        let mut data = self.data;
        match self.function & 0x7f {
            8 => match data.be16() {
                Some(0..=4 | 10..=18 | 20) => PUBLIC_ASSIGNED,
                _ => RESERVED,
            },
            43 => match data.u8() {
                Some(13 | 14) => PUBLIC_ASSIGNED,
                _ => RESERVED,
            },
            9 | 10 | 13 | 14 | 41 | 42 | 90 | 91 | 125..=127 => RESERVED,
            65..=72 | 100..=110 => USER,
            function if FUNCTIONS.iter().any(|(of, _)| *of == function) && !matches!(function, 18 | 19) => PUBLIC_ASSIGNED,
            18 | 19 => RESERVED,
            _ => PUBLIC_UNASSIGNED,
        }
    }

    /// Numbers for rules, and the record.
    fn describe(&self, side: &'static str, dir: Dir, tx: &mut Transaction) -> Access {
        let function = self.function & 0x7f;
        let is_exception = self.function & 0x80 != 0;
        let category = self.category();
        let subfunction = if function == 8 && !is_exception { { self.data }.be16().map(u64::from) } else { None };
        tx.notes.object(side);
        tx.notes.number("transaction_id", self.number);
        tx.notes.number("protocol_id", self.protocol);
        tx.notes.number("unit_id", self.unit);
        tx.notes.number("function_raw", self.function);
        let name = FUNCTIONS.iter().find(|(of, _)| *of == function).map_or("Unknown", |(_, name)| *name);
        tx.notes.text("function_code", name);
        if dir == Dir::ToServer {
            tx.integer_is(Field::ModbusUnit, dir, u64::from(self.unit));
            tx.integer_is(Field::ModbusFunction, dir, u64::from(function) << 16 | subfunction.unwrap_or(NO_SUBFUNCTION));
            tx.integer_is(Field::ModbusCategory, dir, category);
        }
        if self.protocol != 0 {
            tx.event("modbus.invalid_protocol_id", dir);
        }
        if function == 0 || is_exception && dir == Dir::ToServer {
            tx.event("modbus.invalid_function_code", dir);
        }
        let access = if is_exception { Some(Access { ..access_of(function) }) } else { self.access(function, dir, tx) };
        let mut flags = Vec::new();
        if access.is_none() {
            tx.event("modbus.invalid_value", dir);
            flags.push("DATA_VALUE");
        }
        let access = access.unwrap_or_default();
        if dir == Dir::ToServer && access.ways != 0 {
            let place = u64::from(access.quantity) << 32 | u64::from(access.address) << 16;
            tx.integer_is(Field::ModbusAccess, dir, place | access.table << 8 | access.ways);
        }
        tx.notes.text("access_type", access_name(access_of(function)));
        tx.notes.text("category", category_name(category));
        tx.notes.text("error_flags", if flags.is_empty() { "NONE".to_owned() } else { flags.join(" | ") });
        if is_exception {
            let code = { self.data }.u8().unwrap_or(0);
            if !matches!(code, 1..=8 | 10 | 11) {
                tx.event("modbus.invalid_exception_code", dir);
            }
            tx.notes.object("exception");
            tx.notes.number("raw", code);
            tx.notes.text("code", EXCEPTIONS.get(usize::from(code).wrapping_sub(1)).copied().unwrap_or("Unknown"));
            tx.notes.end();
        }
        tx.notes.end();
        access
    }

    /// What is read and written. `None`: numbers that may not be.
    fn access(&self, function: u8, dir: Dir, tx: &mut Transaction) -> Option<Access> {
        let mut data = self.data;
        let mut access = access_of(function);
        match (function, dir) {
            (1..=4, Dir::ToServer) => {
                (access.address, access.quantity) = (data.be16()?, data.be16()?);
                tx.notes.object("read");
                tx.notes.number("address", access.address);
                tx.notes.number("quantity", access.quantity);
                tx.notes.end();
                let quantity_max = if function <= 2 { 2000 } else { 125 };
                (1..=quantity_max).contains(&access.quantity).then_some(access)
            }
            (1..=4, Dir::ToClient) => {
                let count = usize::from(data.u8()?);
                let bytes = data.take(count)?;
                note_data("read", None, bytes, tx);
                Some(access)
            }
            (5 | 6, _) => {
                let value;
                (access.address, value) = (data.be16()?, data.be16()?);
                access.quantity = 1;
                written(access.address, value, dir, tx);
                tx.notes.object("write");
                tx.notes.number("address", access.address);
                tx.notes.number("data", value);
                tx.notes.end();
                (function == 6 || matches!(value, 0 | 0xff00)).then_some(access)
            }
            (15 | 16, Dir::ToServer) => {
                (access.address, access.quantity) = (data.be16()?, data.be16()?);
                let count = usize::from(data.u8()?);
                let bytes = data.take(count)?;
                for at in 0..usize::from(access.quantity).min(VALUES_MAX) {
                    let value = match function {
                        15 => bytes.get(at / 8).map(|byte| u16::from(byte >> (at % 8) & 1)),
                        _ => bytes.get(2 * at..).and_then(|rest| rest.first_chunk()).map(|value| u16::from_be_bytes(*value)),
                    };
                    if let Some(value) = value {
                        written(access.address.wrapping_add(at as u16), value, dir, tx);
                    }
                }
                note_data("write", Some(access), bytes, tx);
                let wanted = if function == 15 { access.quantity.div_ceil(8) } else { access.quantity.saturating_mul(2) };
                (access.quantity > 0 && usize::from(wanted) == count).then_some(access)
            }
            (15 | 16, Dir::ToClient) => {
                (access.address, access.quantity) = (data.be16()?, data.be16()?);
                Some(access)
            }
            (22, _) => {
                access.address = data.be16()?;
                access.quantity = 1;
                tx.notes.object("write");
                tx.notes.number("address", access.address);
                tx.notes.number("and_mask", data.be16()?);
                tx.notes.number("or_mask", data.be16()?);
                tx.notes.end();
                Some(access)
            }
            (23, Dir::ToServer) => {
                (access.address, access.quantity) = (data.be16()?, data.be16()?);
                tx.notes.object("read");
                tx.notes.number("address", access.address);
                tx.notes.number("quantity", access.quantity);
                tx.notes.end();
                Some(access)
            }
            (8, _) => {
                tx.notes.object("diagnostic");
                tx.notes.number("raw", data.be16()?);
                tx.notes.end();
                Some(access)
            }
            (43, _) => {
                tx.notes.object("mei");
                tx.notes.number("raw", data.u8()?);
                tx.notes.end();
                Some(access)
            }
            _ => Some(access),
        }
    }
}

fn written(address: u16, value: u16, dir: Dir, tx: &mut Transaction) {
    if dir == Dir::ToServer {
        tx.integer_is(Field::ModbusWritten, dir, u64::from(address) << 16 | u64::from(value));
    }
}

fn note_data(key: &'static str, access: Option<Access>, bytes: &[u8], tx: &mut Transaction) {
    tx.notes.object(key);
    if let Some(access) = access {
        tx.notes.number("address", access.address);
        tx.notes.number("quantity", access.quantity);
    }
    tx.notes.text("data", bytes);
    tx.notes.end();
}

fn access_of(function: u8) -> Access {
    let (ways, table) = match function {
        1 => (READ, COILS),
        2 => (READ, DISCRETES),
        3 | 24 => (READ, HOLDING),
        4 => (READ, INPUT),
        5 | 15 => (WRITE, COILS),
        6 | 16 | 22 => (WRITE, HOLDING),
        23 => (READ | WRITE, HOLDING),
        _ => (0, 0),
    };
    Access { ways, table, address: 0, quantity: 0 }
}

fn access_name(access: Access) -> String {
    let ways = [(READ, "READ"), (WRITE, "WRITE")].into_iter().filter(|(way, _)| access.ways & way != 0).map(|(_, name)| name);
    let table = match access.table {
        DISCRETES => Some("DISCRETES"),
        COILS => Some("COILS"),
        INPUT => Some("INPUT"),
        HOLDING => Some("HOLDING"),
        _ => None,
    };
    let all: Vec<&str> = ways.chain(table).collect();
    if all.is_empty() { "NONE".to_owned() } else { all.join(" | ") }
}

const fn category_name(category: u64) -> &'static str {
    match category {
        PUBLIC_ASSIGNED => "PUBLIC_ASSIGNED",
        PUBLIC_UNASSIGNED => "PUBLIC_UNASSIGNED",
        USER => "USER_DEFINED",
        _ => "RESERVED",
    }
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

impl Parser for Modbus {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let number = |of: usize| u16::from_be_bytes([head[of], head[of + 1]]);
            let len = usize::from(number(4));
            if !(2..=COUNTED_BYTES_MAX).contains(&len) {
                io.event(None, "modbus.invalid_length");
                return Step { consumed: at, next: Next::Finished(Finished::Malformed("length")) };
            }
            let Some(content) = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + len) else { break };
            at += HEAD_BYTES + len;
            let message =
                Message { number: number(0), protocol: number(2), unit: content[0], function: content[1], data: Reader::from(content, 2) };
            if self.message(&message, io).is_none() {
                return Step { consumed: at, next: Next::Finished(Finished::Cap("transactions_max")) };
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
