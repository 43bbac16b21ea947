//! MQTT 3.1, 3.1.1 and 5 (OASIS). A message and those that answer it are one transaction: CONNECT with CONNACK, PUBLISH with what its quality
//! of service brings, SUBSCRIBE and UNSUBSCRIBE with their acknowledgements; each other message is one of its own.

use std::collections::VecDeque;

use crate::context::Io;
use crate::cursor::Cursor;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::Notes;
use crate::protocol::{Next, Parser, Probe, Step};
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Transactions of one session that wait for an answer; the oldest are given up.
const WAITING_MAX: usize = 256;
/// Messages of one transaction that are shown.
const MESSAGES_MAX: u32 = 1024;

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

const NAMES: [&str; 16] = [
    "unassigned",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];

/// A CONNECT with the protocol's name; where a connection was not seen from its beginning, a CONNACK, or a ping.
pub(crate) fn probe(dir: Dir, bytes: &[u8]) -> Probe {
    let tests: &[fn(u8) -> bool] = match (dir, bytes.first()) {
        (_, None) => return Probe::More,
        (Dir::ToServer, Some(0xc0)) | (Dir::ToClient, Some(0xd0)) => &[|_| true, |len| len == 0],
        (Dir::ToServer, Some(0x10)) => return probe_connect(bytes),
        (Dir::ToClient, Some(0x20)) => return probe_connack(bytes),
        (Dir::ToServer | Dir::ToClient, Some(_)) => return Probe::No,
    };
    match bytes.iter().zip(tests).all(|(byte, test)| test(*byte)) {
        false => Probe::No,
        true if bytes.len() < tests.len() => Probe::More,
        true => Probe::Yes,
    }
}

fn probe_connect(bytes: &[u8]) -> Probe {
    let rest = match length(&bytes[1..]) {
        Length::More => return Probe::More,
        Length::Bad => return Probe::No,
        Length::Of(_, taken) => &bytes[1 + taken..],
    };
    let is = |name: &[u8]| rest.iter().zip(name).all(|(a, b)| a == b);
    match (is(b"\0\x04MQTT"), is(b"\0\x06MQIsdp")) {
        (false, false) => Probe::No,
        (true, _) if rest.len() >= 6 => Probe::Yes,
        (_, true) if rest.len() >= 8 => Probe::Yes,
        _ => Probe::More,
    }
}

/// Flags, return code, and in version 5 a length of properties that fills the message.
fn probe_connack(bytes: &[u8]) -> Probe {
    match *bytes {
        [_, 2, 0 | 1, 0..=5, ..] => Probe::Yes,
        [_, len @ 3..0x80, 0 | 1, 0 | 0x80..=0x9f, properties, ..] if properties == len - 3 => Probe::Yes,
        [_] | [_, 2..0x80] | [_, 2..0x80, 0 | 1] | [_, 3..0x80, 0 | 1, 0 | 0x80..=0x9f] => Probe::More,
        _ => Probe::No,
    }
}

enum Length {
    /// The length, and the bytes that it takes.
    Of(usize, usize),
    More,
    /// More than four bytes.
    Bad,
}

/// Seven bits a byte, the lowest first.
fn length(bytes: &[u8]) -> Length {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Length::Of(value, index + 1);
        }
    }
    if bytes.len() < 4 { Length::More } else { Length::Bad }
}

#[derive(Debug)]
pub(crate) struct Mqtt {
    message_bytes_max: usize,
    version: u8,
    connected: bool,
    waiting: VecDeque<Waiting>,
    /// Bytes of a message that is too long, by direction.
    skip: [usize; 2],
    /// Where messages begin is not known any more.
    lost: [bool; 2],
}

#[derive(Debug)]
struct Waiting {
    /// `None`: the CONNECT.
    id: Option<u16>,
    tx: u64,
    /// Of the first message. The numbers of all of them are this direction's: rules ask them of the transaction.
    dir: Dir,
    messages: u32,
}

/// One message.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    first: u8,
    body: &'a [u8],
}

impl Message<'_> {
    const fn kind(&self) -> u8 {
        self.first >> 4
    }

    const fn qos(&self) -> u8 {
        self.first >> 1 & 3
    }
}

impl Mqtt {
    pub fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, version: 0, connected: false, waiting: VecDeque::new(), skip: [0; 2], lost: [false; 2] }
    }

    /// `None`: no room for another transaction.
    fn message(&mut self, message: Message<'_>, io: &mut Io<'_>) -> Option<()> {
        let kind = message.kind();
        if kind == CONNECT {
            self.version = version(message.body).unwrap_or(self.version);
        }
        let id = packet_id(&message);
        let answered = match kind {
            CONNACK => self.waiting.iter().position(|waiting| waiting.id.is_none()),
            PUBACK | PUBREC | PUBREL | PUBCOMP | SUBACK | UNSUBACK => {
                id.and_then(|id| self.waiting.iter().position(|waiting| waiting.id == Some(id)))
            }
            _ => None,
        };
        let (mut event, mut waits) = (None, None);
        match kind {
            0 => event = Some("mqtt.unassigned_msg_type"),
            CONNECT => {
                event = self.connected.then_some("mqtt.double_connect");
                waits = Some(None);
            }
            CONNACK if answered.is_none() => event = Some("mqtt.missing_connect"),
            PUBLISH | SUBSCRIBE | UNSUBSCRIBE => match (message.qos(), id) {
                (1 | 2, Some(id)) => waits = Some(Some(id)),
                (1 | 2, None) => event = Some("mqtt.missing_msg_id"),
                (3, _) => event = Some("mqtt.invalid_qos_level"),
                _ => {}
            },
            PUBACK | PUBREC | PUBREL | PUBCOMP if answered.is_none() => event = Some("mqtt.missing_publish"),
            SUBACK if answered.is_none() => event = Some("mqtt.missing_subscribe"),
            UNSUBACK if answered.is_none() => event = Some("mqtt.missing_unsubscribe"),
            _ => {}
        }
        let dir = io.dir;
        let (tx, side) = match answered.and_then(|at| self.waiting.get_mut(at)) {
            Some(waiting) => {
                waiting.messages += 1;
                if waiting.messages > MESSAGES_MAX {
                    event = Some("mqtt.too_many_messages");
                }
                (waiting.tx, waiting.dir)
            }
            None => (io.begin(Protocol::Mqtt)?, dir),
        };
        let is_introduced = self.connected || matches!(kind, 0 | CONNECT | CONNACK) || answered.is_some();
        let is_over = match answered {
            // They are followed by another.
            Some(_) => !matches!(kind, PUBREC | PUBREL),
            None => waits.is_none(),
        };
        if let Some(tx) = io.tx(tx) {
            if let Some(event) = event {
                tx.event(event, dir);
            }
            if !is_introduced {
                tx.event("mqtt.unintroduced_message", dir);
            }
            if event != Some("mqtt.too_many_messages") && show(&message, self.version, side, tx).is_none() {
                tx.event("mqtt.malformed_traffic", dir);
            }
            if is_over {
                over(tx);
            }
        }
        if kind == CONNACK && answered.is_some() {
            self.connected = true;
        }
        if let (Some(at), true) = (answered, is_over) {
            self.waiting.remove(at);
        }
        if let Some(id) = waits {
            self.wait(id, tx, io);
        }
        Some(())
    }

    fn wait(&mut self, id: Option<u16>, tx: u64, io: &mut Io<'_>) {
        if self.waiting.len() >= WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
            && let Some(oldest) = io.tx(oldest.tx)
        {
            oldest.event("mqtt.too_many_transactions", Dir::ToServer);
            over(oldest);
        }
        self.waiting.push_back(Waiting { id, tx, dir: io.dir, messages: 1 });
    }

    /// A message that is too long to be kept.
    fn truncated(&mut self, first: u8, len: usize, io: &mut Io<'_>) -> Option<()> {
        let (id, dir) = (io.begin(Protocol::Mqtt)?, io.dir);
        let tx = io.tx(id)?;
        let message = Message { first, body: &[] };
        numbers(&message, self.version, dir, tx);
        tx.notes.object(NAMES[usize::from(message.kind())]);
        header(&message, &mut tx.notes);
        tx.notes.truth("truncated", true);
        tx.notes.number("skipped_length", len as u64);
        tx.notes.end();
        tx.overflowed = true;
        over(tx);
        Some(())
    }
}

fn over(tx: &mut Transaction) {
    tx.advance(Dir::ToServer, Stage::Complete);
    tx.advance(Dir::ToClient, Stage::Complete);
}

/// Of a CONNECT.
fn version(body: &[u8]) -> Option<u8> {
    let mut rest = Cursor(body);
    let name = rest.u16()?;
    rest.take(usize::from(name))?;
    rest.u8()
}

/// What joins a message to others.
fn packet_id(message: &Message<'_>) -> Option<u16> {
    let mut rest = Cursor(message.body);
    match message.kind() {
        PUBLISH if message.qos() == 0 => None,
        PUBLISH => {
            let topic = rest.u16()?;
            rest.take(usize::from(topic))?;
            rest.u16()
        }
        PUBACK..=UNSUBACK => rest.u16(),
        _ => None,
    }
}

fn header(message: &Message<'_>, notes: &mut Notes) {
    notes.number("qos", message.qos());
    notes.truth("retain", message.first & 1 != 0);
    notes.truth("dup", message.first & 8 != 0);
}

fn numbers(message: &Message<'_>, version: u8, dir: Dir, tx: &mut Transaction) {
    tx.integer_is(Field::MqttType, dir, u64::from(message.kind()));
    tx.integer_is(Field::MqttFlags, dir, u64::from(message.first & 0x09));
    tx.integer_is(Field::MqttQos, dir, u64::from(message.qos()));
    tx.integer_is(Field::MqttProtocolVersion, dir, u64::from(version));
}

/// `None`: the message ends before it should.
fn show(message: &Message<'_>, version: u8, dir: Dir, tx: &mut Transaction) -> Option<()> {
    numbers(message, version, dir, tx);
    let kind = message.kind();
    if kind == 0 {
        return Some(());
    }
    tx.notes.object(NAMES[usize::from(kind)]);
    header(message, &mut tx.notes);
    let mut shown = Shown { rest: Cursor(message.body), version, dir, tx };
    let whole = match kind {
        CONNECT => shown.connect(),
        CONNACK => shown.connack(),
        PUBLISH => shown.publish(message.qos()),
        PUBACK | PUBREC | PUBREL | PUBCOMP => shown.acknowledgement(),
        SUBSCRIBE => shown.subscribe(),
        SUBACK => shown.suback(),
        UNSUBSCRIBE => shown.unsubscribe(),
        UNSUBACK => shown.unsuback(),
        PINGREQ | PINGRESP => Some(()),
        DISCONNECT | AUTH => shown.reason(kind == DISCONNECT),
        _ => None,
    };
    // Properties and lists that broke off are open.
    tx.notes.end();
    whole
}

struct Shown<'a, 'b> {
    rest: Cursor<'a>,
    version: u8,
    dir: Dir,
    tx: &'b mut Transaction,
}

impl<'a> Shown<'a, '_> {
    /// Behind its length.
    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.rest.u16()?;
        self.rest.take(usize::from(len))
    }

    fn show(&mut self, buffer: Buffer, key: &'static str, text: &[u8]) {
        self.tx.value(buffer, self.dir, text);
        self.tx.notes.text(key, text);
    }

    fn message_id(&mut self) -> Option<()> {
        let id = self.rest.u16()?;
        self.tx.notes.number("message_id", id);
        Some(())
    }

    fn reason_code(&mut self, key: &'static str) -> Option<u8> {
        let code = self.rest.u8()?;
        self.tx.integer_is(Field::MqttReasonCode, self.dir, u64::from(code));
        self.tx.notes.number(key, code);
        Some(code)
    }

    fn connect(&mut self) -> Option<()> {
        let name = self.text()?;
        self.show(Buffer::MqttConnectProtocolString, "protocol_string", name);
        let (version, flags) = (self.rest.u8()?, self.rest.u8()?);
        self.version = version;
        self.tx.integer_is(Field::MqttConnectFlags, self.dir, u64::from(flags));
        let notes = &mut self.tx.notes;
        notes.number("protocol_version", version);
        notes.object("flags");
        let bits = [("username", 0x80), ("password", 0x40), ("will_retain", 0x20), ("will", 0x04), ("clean_session", 0x02)];
        bits.iter().for_each(|(name, bit)| notes.truth(name, flags & bit != 0));
        notes.end();
        // Keep alive.
        self.rest.u16()?;
        self.properties()?;
        let client = self.text()?;
        self.show(Buffer::MqttConnectClientid, "client_id", client);
        if flags & 0x04 != 0 {
            self.tx.notes.object("will");
            let whole = self.will();
            self.tx.notes.end();
            whole?;
        }
        if flags & 0x80 != 0 {
            let name = self.text()?;
            self.show(Buffer::MqttConnectUsername, "username", name);
        }
        if flags & 0x40 != 0 {
            let password = self.text()?;
            self.show(Buffer::MqttConnectPassword, "password", password);
        }
        Some(())
    }

    fn will(&mut self) -> Option<()> {
        self.properties()?;
        let topic = self.text()?;
        self.show(Buffer::MqttConnectWilltopic, "topic", topic);
        let message = self.text()?;
        self.show(Buffer::MqttConnectWillmessage, "message", message);
        Some(())
    }

    fn connack(&mut self) -> Option<()> {
        let flags = self.rest.u8()?;
        self.tx.integer_is(Field::MqttConnackSessionPresent, self.dir, u64::from(flags & 1));
        self.tx.notes.truth("session_present", flags & 1 != 0);
        let code = self.reason_code("return_code")?;
        self.tx.integer_is(Field::MqttConnackReturnCode, self.dir, u64::from(code));
        self.properties()
    }

    fn publish(&mut self, qos: u8) -> Option<()> {
        let topic = self.text()?;
        self.show(Buffer::MqttPublishTopic, "topic", topic);
        if qos > 0 {
            self.message_id()?;
        }
        self.properties()?;
        let message = self.rest.0;
        self.show(Buffer::MqttPublishMessage, "message", message);
        Some(())
    }

    /// In version 5 with a code, unless it is 0.
    fn acknowledgement(&mut self) -> Option<()> {
        self.message_id()?;
        self.reason(false)
    }

    fn reason(&mut self, disconnects: bool) -> Option<()> {
        if self.version == 5 && !self.rest.is_empty() {
            self.reason_code("reason_code")?;
            if self.rest.is_empty() && disconnects {
                // The reference engine logs no code without properties; rules are asked about what was sent.
                self.tx.notes.number("reason_code", 0_u8);
            } else if !self.rest.is_empty() {
                self.properties()?;
            }
        } else if self.version == 5 {
            // Without it, it is 0.
            self.tx.integer_is(Field::MqttReasonCode, self.dir, 0);
            self.tx.notes.number("reason_code", 0_u8);
        }
        Some(())
    }

    fn subscribe(&mut self) -> Option<()> {
        self.message_id()?;
        self.properties()?;
        self.tx.notes.list("topics");
        let whole = self.topics(Buffer::MqttSubscribeTopic, true);
        self.tx.notes.end();
        whole
    }

    fn unsubscribe(&mut self) -> Option<()> {
        self.message_id()?;
        self.properties()?;
        self.tx.notes.list("topics");
        let whole = self.topics(Buffer::MqttUnsubscribeTopic, false);
        self.tx.notes.end();
        whole
    }

    fn topics(&mut self, buffer: Buffer, with_qos: bool) -> Option<()> {
        while !self.rest.is_empty() {
            let topic = self.text()?;
            self.tx.value(buffer, self.dir, topic);
            if with_qos {
                let qos = self.rest.u8()?;
                self.tx.notes.object("");
                self.tx.notes.text("topic", topic);
                self.tx.notes.number("qos", qos & 3);
                self.tx.notes.end();
            } else {
                self.tx.notes.text("", topic);
            }
        }
        Some(())
    }

    fn suback(&mut self) -> Option<()> {
        self.message_id()?;
        self.properties()?;
        self.codes("qos_granted")
    }

    fn unsuback(&mut self) -> Option<()> {
        self.message_id()?;
        self.properties()?;
        if self.rest.is_empty() { Some(()) } else { self.codes("reason_codes") }
    }

    fn codes(&mut self, key: &'static str) -> Option<()> {
        self.tx.notes.list(key);
        while !self.rest.is_empty() {
            self.reason_code("")?;
        }
        self.tx.notes.end();
        Some(())
    }

    /// In version 5, behind their length.
    fn properties(&mut self) -> Option<()> {
        if self.version != 5 {
            return Some(());
        }
        let Length::Of(len, taken) = length(self.rest.0) else { return None };
        self.rest.take(taken)?;
        let all = self.rest.take(len)?;
        if all.is_empty() {
            return Some(());
        }
        self.tx.notes.object("properties");
        let whole = properties(Cursor(all), &mut self.tx.notes);
        self.tx.notes.end();
        whole
    }
}

#[derive(Clone, Copy)]
enum Property {
    Byte,
    Two,
    Four,
    Variable,
    Text,
    Pair,
}

/// MQTT 5, section 2.2.2.2.
const fn property(id: u8) -> Option<(&'static str, Property)> {
    Some(match id {
        1 => ("payload_format_indicator", Property::Byte),
        2 => ("message_expiry_interval", Property::Four),
        3 => ("content_type", Property::Text),
        8 => ("response_topic", Property::Text),
        9 => ("correlation_data", Property::Text),
        11 => ("subscription_identifier", Property::Variable),
        17 => ("session_expiry_interval", Property::Four),
        18 => ("assigned_client_identifier", Property::Text),
        19 => ("server_keep_alive", Property::Two),
        21 => ("authentication_method", Property::Text),
        22 => ("authentication_data", Property::Text),
        23 => ("request_problem_info", Property::Byte),
        24 => ("will_delay_interval", Property::Four),
        25 => ("request_response_info", Property::Byte),
        26 => ("response_info", Property::Text),
        28 => ("server_reference", Property::Text),
        31 => ("reason_string", Property::Text),
        33 => ("receive_maximum", Property::Two),
        34 => ("topic_alias_maximum", Property::Two),
        35 => ("topic_alias", Property::Two),
        36 => ("maximum_qos", Property::Byte),
        37 => ("retain_available", Property::Byte),
        38 => ("user_property", Property::Pair),
        39 => ("maximum_packet_size", Property::Four),
        40 => ("wildcard_subscription_available", Property::Byte),
        41 => ("subscription_identifiers_available", Property::Byte),
        42 => ("shared_subscription_available", Property::Byte),
        _ => return None,
    })
}

fn properties(mut rest: Cursor<'_>, notes: &mut Notes) -> Option<()> {
    fn text<'a>(rest: &mut Cursor<'a>) -> Option<&'a [u8]> {
        let len = rest.u16()?;
        rest.take(usize::from(len))
    }
    while !rest.is_empty() {
        let (name, form) = property(rest.u8()?)?;
        match form {
            Property::Byte => notes.number(name, rest.u8()?),
            Property::Two => notes.number(name, rest.u16()?),
            Property::Four => notes.number(name, rest.u32()?),
            Property::Variable => {
                let Length::Of(value, taken) = length(rest.0) else { return None };
                rest.take(taken)?;
                notes.number(name, value as u64);
            }
            Property::Text => notes.text(name, text(&mut rest)?),
            Property::Pair => {
                let (key, value) = (text(&mut rest)?, text(&mut rest)?);
                notes.list("user_properties");
                notes.object("");
                notes.text("name", key);
                notes.text("value", value);
                notes.end();
                notes.end();
            }
        }
    }
    Some(())
}

impl Parser for Mqtt {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let full = |consumed| Step { consumed, next: Next::Finished(Finished::Cap("transactions_max")) };
        if self.lost[io.dir as usize] {
            return Step::on(bytes.len());
        }
        let skip = &mut self.skip[io.dir as usize];
        let mut at = (*skip).min(bytes.len());
        *skip -= at;
        while let Some(&first) = bytes.get(at) {
            let (len, taken) = match length(&bytes[at + 1..]) {
                Length::Of(len, taken) => (len, taken),
                Length::More => break,
                Length::Bad => {
                    io.event(None, "mqtt.malformed_traffic");
                    return Step { consumed: at, next: Next::Finished(Finished::Malformed("length of a message")) };
                }
            };
            let start = at + 1 + taken;
            if len > self.message_bytes_max {
                let here = len.min(bytes.len() - start);
                self.skip[io.dir as usize] = len - here;
                at = start + here;
                if self.truncated(first, 1 + taken + len, io).is_none() {
                    return full(at);
                }
                continue;
            }
            let Some(body) = bytes.get(start..start + len) else { break };
            at = start + len;
            if self.message(Message { first, body }, io).is_none() {
                return full(at);
            }
            // One call may have thousands of small ones.
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
            // The other direction is read on.
            _ => {
                self.lost[io.dir as usize] = true;
                Next::Blind(Finished::Gap)
            }
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
