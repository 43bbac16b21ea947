//! DNS (RFC 1035) over UDP and TCP. Each message is a transaction of its own direction, as in the reference engine.
//!
//! Names are labels joined by dots, without the closing one, in the case in which they came; the root is empty. A compressed name
//! may use [`POINTERS_MAX`] pointers, and one that is longer than [`NAME_BYTES_MAX`] is cut there. What of a message can be read
//! is shown even when the rest is broken.

mod log;

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEADER_BYTES: usize = 12;
/// The reference engine's `DNS_MAX_SIZE`; RFC 1035 allows 255.
const NAME_BYTES_MAX: usize = 1025;
const LABELS_MAX: usize = 255;
const POINTERS_MAX: usize = 255;
/// Of a first name that a probe follows.
const PROBE_NAME_BYTES_MAX: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u16,
    /// Questions, answers, authorities, additionals.
    counts: [u16; 4],
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let counts = [u16_at(message, 4)?, u16_at(message, 6)?, u16_at(message, 8)?, u16_at(message, 10)?];
        Some(Self { flags: u16_at(message, 2)?, counts })
    }

    const fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }

    const fn opcode(self) -> u16 {
        self.flags >> 11 & 0x0f
    }

    const fn has_z(self) -> bool {
        self.flags & 0x0040 != 0
    }
}

/// A header whose counts fit, and a first name, type and class that exist.
pub(crate) fn probe_udp(_: Dir, message: &[u8]) -> Probe {
    match probe_message(message, message.len()) {
        Probe::Yes => Probe::Yes,
        // A datagram does not go on.
        Probe::More | Probe::No => Probe::No,
    }
}

pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    match u16_at(bytes, 0) {
        None => Probe::More,
        Some(len) if usize::from(len) < HEADER_BYTES + 5 => Probe::No,
        Some(len) => {
            let len = usize::from(len);
            probe_message(&bytes[2..bytes.len().min(2 + len)], len)
        }
    }
}

/// `len`: of the whole message.
fn probe_message(message: &[u8], len: usize) -> Probe {
    let Some(header) = Header::read(message) else { return Probe::More };
    let [questions, answers, authorities, additionals] = header.counts;
    let records = usize::from(answers) + usize::from(authorities) + usize::from(additionals);
    let size_min = HEADER_BYTES + 5 * usize::from(questions) + 11 * records;
    let is_question = questions > 0;
    // Only responses (multicast) come without the question.
    if size_min > len || !(is_question || header.is_response() && answers > 0) {
        return Probe::No;
    }
    let mut at = HEADER_BYTES;
    loop {
        match message.get(at) {
            // So many labels are no accident.
            _ if at > HEADER_BYTES + PROBE_NAME_BYTES_MAX => return Probe::Yes,
            None if message.len() < len => return Probe::More,
            None => return Probe::No,
            Some(0) => break at += 1,
            Some(label @ 1..=63) => at += 1 + usize::from(*label),
            // The rest of the name may stand anywhere, also further on.
            Some(0xc0..) if at + 1 < len => break at += 2,
            Some(_) => return Probe::No,
        }
    }
    if is_netbios(message, at) {
        return Probe::No;
    }
    match (u16_at(message, at), u16_at(message, at + 2)) {
        // The highest bit is multicast's own (RFC 6762, section 5.4).
        (Some(kind), Some(class)) if kind != 0 && matches!(class & 0x7fff, 1 | 3 | 4 | 254 | 255) => Probe::Yes,
        (Some(_), Some(_)) => Probe::No,
        _ if message.len() < len => Probe::More,
        _ => Probe::No,
    }
}

/// The same messages under three names: asked of a server, of all on the link (RFC 4795), of all with a name of their own (RFC 6762).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Dns,
    Llmnr,
    Mdns,
}

impl Family {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Dns => Protocol::Dns,
            Self::Llmnr => Protocol::Llmnr,
            Self::Mdns => Protocol::Mdns,
        }
    }

    const fn owner(self, section: Section) -> Buffer {
        match (self, section) {
            (Self::Dns, Section::Questions) => Buffer::DnsQueriesRrname,
            (Self::Dns, Section::Answers) => Buffer::DnsAnswersRrname,
            (Self::Dns, Section::Authorities) => Buffer::DnsAuthoritiesRrname,
            (Self::Dns, Section::Additionals) => Buffer::DnsAdditionalsRrname,
            (Self::Llmnr, Section::Questions) => Buffer::LlmnrQueriesRrname,
            (Self::Llmnr, Section::Answers) => Buffer::LlmnrAnswersRrname,
            (Self::Llmnr, Section::Authorities) => Buffer::LlmnrAuthoritiesRrname,
            (Self::Llmnr, Section::Additionals) => Buffer::LlmnrAdditionalsRrname,
            (Self::Mdns, Section::Questions) => Buffer::MdnsQueriesRrname,
            (Self::Mdns, Section::Answers) => Buffer::MdnsAnswersRrname,
            (Self::Mdns, Section::Authorities) => Buffer::MdnsAuthoritiesRrname,
            (Self::Mdns, Section::Additionals) => Buffer::MdnsAdditionalsRrname,
        }
    }

    const fn response(self) -> Buffer {
        match self {
            Self::Dns => Buffer::DnsResponseRrname,
            Self::Llmnr => Buffer::LlmnrResponseRrname,
            Self::Mdns => Buffer::MdnsResponseRrname,
        }
    }

    /// By the name that DNS has for it.
    fn event(self, event: &'static str) -> &'static str {
        let at = |named: &(&str, &str, &str)| named.0 == event;
        match (self, EVENTS.iter().find(|named| at(named))) {
            (Self::Llmnr, Some((_, name, _))) | (Self::Mdns, Some((_, _, name))) => name,
            (Self::Dns, _) | (_, None) => event,
        }
    }
}

const EVENTS: &[(&str, &str, &str)] = &[
    ("dns.malformed_data", "llmnr.malformed_data", "mdns.malformed_data"),
    ("dns.invalid_authorities", "llmnr.invalid_authorities", "mdns.invalid_authorities"),
    ("dns.invalid_additionals", "llmnr.invalid_additionals", "mdns.invalid_additionals"),
    ("dns.z_flag_set", "llmnr.z_flag_set", "mdns.z_flag_set"),
    ("dns.invalid_opcode", "llmnr.invalid_opcode", "mdns.invalid_opcode"),
    ("dns.name_too_long", "llmnr.name_too_long", "mdns.name_too_long"),
    ("dns.too_many_labels", "llmnr.too_many_labels", "mdns.too_many_labels"),
    ("dns.infinite_loop", "llmnr.infinite_loop", "mdns.infinite_loop"),
];

/// The name service of NetBIOS (RFC 1002, section 4.2) has the form of DNS: one label of 32 letters from A to P, and types of its own.
fn is_netbios(message: &[u8], name_end: usize) -> bool {
    let name = message.get(HEADER_BYTES..name_end).unwrap_or_default();
    let is_coded = name.len() == 34 && name[0] == 32 && name[1..33].iter().all(|letter| matches!(letter, b'A'..=b'P'));
    is_coded && matches!(u16_at(message, name_end), Some(0x20 | 0x21))
}

#[derive(Debug)]
pub(crate) struct Dns {
    transport: Transport,
    family: Family,
    /// Bytes of a message that was cut by lost ones, by direction.
    skip: [u64; 2],
    scratch: Vec<u8>,
}

impl Dns {
    pub fn new(transport: Transport) -> Self {
        Self::of(Family::Dns, transport)
    }

    pub fn of(family: Family, transport: Transport) -> Self {
        Self { transport, family, skip: [0; 2], scratch: Vec::new() }
    }

    /// `Some`: no room for another transaction.
    fn message(&mut self, message: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        let Some(id) = io.begin(self.family.protocol()) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let tx = io.tx(id)?;
        show_with(self.family, tx, dir, message, &mut self.scratch);
        tx.advance(dir, Stage::Complete);
        tx.advance(dir.other(), Stage::Complete);
        None
    }
}

/// The values of a message that came within another protocol.
pub(crate) fn show(tx: &mut Transaction, dir: Dir, message: &[u8]) {
    tx.notes.object(if dir == Dir::ToServer { "dns_request" } else { "dns_response" });
    show_with(Family::Dns, tx, dir, message, &mut Vec::new());
    tx.notes.end();
}

fn show_with(family: Family, tx: &mut Transaction, dir: Dir, message: &[u8], scratch: &mut Vec<u8>) {
    match Header::read(message) {
        Some(header) => {
            tx.notes.number("id", u16_at(message, 0).unwrap_or_default());
            tx.notes.number("flags", header.flags);
            Reader { message, family, dir, response: header.is_response(), scratch, cut: false, tx }.read(header);
        }
        None => tx.event(family.event("dns.malformed_data"), dir),
    }
}

impl Parser for Dns {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.transport == Transport::Udp {
            let next = self.message(bytes, io).unwrap_or(Next::Continue);
            return Step { consumed: bytes.len(), next };
        }
        let skip = &mut self.skip[io.dir as usize];
        let mut at = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
        *skip -= at as u64;
        while let Some(len) = u16_at(bytes, at).map(usize::from) {
            let Some(message) = bytes.get(at + 2..at + 2 + len) else { break };
            at += 2 + len;
            if let Some(next) = self.message(message, io) {
                return Step { consumed: at, next };
            }
            // One call with thousands of tiny messages is told of message by message.
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next {
        let skip = &mut self.skip[io.dir as usize];
        // What is left of the message that is broken by it.
        let left = match u16_at(pending, 0) {
            _ if *skip > 0 => *skip,
            Some(whole) => 2 + u64::from(whole) - pending.len() as u64,
            None => 0,
        };
        if len > left {
            return Next::Finished(Finished::Gap);
        }
        *skip = left - len;
        Next::Continue
    }

    fn end(&mut self, pending: &[u8], io: &mut Io<'_>) {
        // A server may answer what of a message is there; whoever reads it gets no more either.
        if self.transport == Transport::Tcp && pending.len() > 2 + HEADER_BYTES {
            let _ = self.message(&pending[2..], io);
        }
    }
}

/// One message.
struct Reader<'a> {
    message: &'a [u8],
    family: Family,
    dir: Dir,
    response: bool,
    scratch: &'a mut Vec<u8>,
    /// The name in `scratch` was longer.
    cut: bool,
    tx: &'a mut Transaction,
}

/// The message ends before it should.
struct Short;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Questions,
    Answers,
    Authorities,
    Additionals,
}

impl Reader<'_> {
    fn read(mut self, header: Header) {
        let dir = self.dir;
        if header.has_z() {
            self.event("dns.z_flag_set");
        }
        if header.opcode() >= 7 {
            self.event("dns.invalid_opcode");
        }
        match (dir, self.response) {
            // Whoever is asked answers from a port of its own, or to all.
            _ if self.family != Family::Dns => {}
            (Dir::ToServer, true) => self.tx.event("dns.not_request", dir),
            (Dir::ToClient, false) => self.tx.event("dns.not_response", dir),
            (Dir::ToServer, false) | (Dir::ToClient, true) => {}
        }
        self.tx.integer_is(Field::DnsOpcode, dir, u64::from(header.opcode()));
        self.tx.notes.number("opcode", header.opcode());
        if self.response {
            self.tx.integer_is(Field::DnsRcode, dir, u64::from(header.flags & 0x0f));
            if !self.tx.notes.off {
                self.tx.notes.text("rcode", log::code_name(header.flags & 0x0f));
            }
        }
        let mut at = HEADER_BYTES;
        let sections = [
            (Section::Questions, "dns.malformed_data"),
            (Section::Answers, "dns.malformed_data"),
            (Section::Authorities, "dns.invalid_authorities"),
            (Section::Additionals, "dns.invalid_additionals"),
        ];
        for ((section, event), count) in sections.into_iter().zip(header.counts) {
            for _ in 0..count {
                if self.tx.overflowed {
                    return;
                }
                match self.record(section, at) {
                    Ok(next) => at = next,
                    Err(Short) => return self.event(event),
                }
            }
        }
    }

    fn event(&mut self, event: &'static str) {
        self.tx.event(self.family.event(event), self.dir);
    }

    /// Gives where the next one begins.
    fn record(&mut self, section: Section, at: usize) -> Result<usize, Short> {
        let at = self.name(at)?;
        let dir = self.dir;
        let kind = u16_at(self.message, at).ok_or(Short)?;
        u16_at(self.message, at + 2).ok_or(Short)?;
        let buffer = self.family.owner(section);
        let span = self.tx.value(buffer, dir, self.scratch);
        if section == Section::Questions && !self.response && self.family == Family::Dns {
            self.tx.value_at(Buffer::DnsQuery, dir, span.clone());
        }
        if self.response {
            self.tx.value_at(self.family.response(), dir, span);
        }
        if matches!(section, Section::Questions | Section::Answers) {
            self.tx.integer_is(Field::DnsRrtype, dir, u64::from(kind));
        }
        if section == Section::Questions {
            self.note_record(section, kind, 0, None);
            return Ok(at + 4);
        }
        let ttl = u32::from(u16_at(self.message, at + 4).ok_or(Short)?) << 16 | u32::from(u16_at(self.message, at + 6).ok_or(Short)?);
        let len = usize::from(u16_at(self.message, at + 8).ok_or(Short)?);
        let data = at + 10;
        if self.message.len() < data + len {
            return Err(Short);
        }
        self.note_record(section, kind, ttl, Some(data..data + len));
        // Data that is a name, or begins with one: NS, CNAME, SOA, PTR, MX.
        let name = match kind {
            2 | 5 | 6 | 12 => Some(data),
            15 => Some(data + 2),
            _ => None,
        };
        if let Some(name) = name.filter(|_| self.response && len > 0) {
            self.name(name)?;
            self.tx.value(self.family.response(), dir, self.scratch);
        }
        Ok(data + len)
    }

    /// Reads a name to `scratch`; gives what follows it.
    fn name(&mut self, start: usize) -> Result<usize, Short> {
        self.scratch.clear();
        self.cut = false;
        let (mut at, mut behind, mut labels, mut pointers) = (start, None, 0, 0);
        loop {
            match *self.message.get(at).ok_or(Short)? {
                0 => return Ok(behind.unwrap_or(at + 1)),
                len @ 1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(len)).ok_or(Short)?;
                    labels += 1;
                    if labels > LABELS_MAX {
                        self.event("dns.too_many_labels");
                        // Behind a name that never ends nothing can be read.
                        return behind.ok_or(Short);
                    }
                    if !self.cut {
                        if !self.scratch.is_empty() {
                            self.scratch.push(b'.');
                        }
                        self.scratch.extend_from_slice(label);
                        self.cut = self.scratch.len() > NAME_BYTES_MAX;
                        if self.cut {
                            self.scratch.truncate(NAME_BYTES_MAX);
                            self.event("dns.name_too_long");
                        }
                    }
                    at += 1 + usize::from(len);
                }
                0xc0..=0xff => {
                    let target = usize::from(u16_at(self.message, at).ok_or(Short)? & 0x3fff);
                    behind = behind.or(Some(at + 2));
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        self.event("dns.infinite_loop");
                        return behind.ok_or(Short);
                    }
                    at = target;
                }
                // Reserved (RFC 1035, section 4.1.4).
                _ => return Err(Short),
            }
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
