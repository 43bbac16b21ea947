//! LDAP (RFC 4511) over TCP, and over UDP as Windows uses it (MS-ADTS): a request with its responses is a transaction.

use crate::ber::{Ber, ENUMERATED, INTEGER, OCTETS, SEQUENCE, head, number};
use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::recent::Recent;
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// Requests of one session without their last response; the oldest are given up.
const REQUESTS_MAX: usize = 256;
/// Responses of one transaction; the next ones begin another.
const RESPONSES_MAX: usize = 255;
/// One message; a longer one ends the session.
const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// Values of one message that are written down.
const NOTED_MAX: usize = 256;

const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

const BIND: u8 = 0;
const UNBIND: u8 = 2;
const SEARCH: u8 = 3;
const ENTRY: u8 = 4;
const MODIFY: u8 = 6;
const ADD: u8 = 8;
const DELETE: u8 = 10;
const RENAME: u8 = 12;
const COMPARE: u8 = 14;
const ABANDON: u8 = 16;
const REFERENCE: u8 = 19;
const EXTENDED: u8 = 23;
const EXTENDED_RESPONSE: u8 = 24;
const INTERMEDIATE: u8 = 25;

/// By number; twice: as it is written, and as the object within it is called.
const OPERATIONS: [&str; 26] = [
    "bind_request",
    "bind_response",
    "unbind_request",
    "search_request",
    "search_result_entry",
    "search_result_done",
    "modify_request",
    "modify_response",
    "add_request",
    "add_response",
    "del_request",
    "del_response",
    "mod_dn_request",
    "mod_dn_response",
    "compare_request",
    "compare_response",
    "abandon_request",
    "",
    "",
    "search_result_reference",
    "",
    "",
    "",
    "extended_request",
    "extended_response",
    "intermediate_response",
];

const RESULTS: &[(u32, &str)] = &[
    (0, "success"),
    (1, "operations_error"),
    (2, "protocol_error"),
    (3, "time_limit_exceeded"),
    (4, "size_limit_exceeded"),
    (5, "compare_false"),
    (6, "compare_true"),
    (7, "auth_method_not_supported"),
    (8, "stronger_auth_required"),
    (10, "referral"),
    (11, "admin_limit_exceeded"),
    (12, "unavailable_critical_extension"),
    (13, "confidentiality_required"),
    (14, "sasl_bind_in_progress"),
    (16, "no_such_attribute"),
    (17, "undefined_attribute_type"),
    (18, "inappropriate_matching"),
    (19, "constraint_violation"),
    (20, "attribute_or_value_exists"),
    (21, "invalid_attribute_syntax"),
    (32, "no_such_object"),
    (33, "alias_problem"),
    (34, "invalid_dns_syntax"),
    (35, "is_leaf"),
    (36, "alias_dereferencing_problem"),
    (48, "inappropriate_authentication"),
    (49, "invalid_credentials"),
    (50, "insufficient_access_rights"),
    (51, "busy"),
    (52, "unavailable"),
    (53, "unwilling_to_perform"),
    (54, "loop_detect"),
    (64, "naming_violation"),
    (65, "object_class_violation"),
    (66, "not_allowed_on_non_leaf"),
    (67, "not_allowed_on_rdn"),
    (68, "entry_already_exists"),
    (69, "object_class_mods_prohibited"),
    (71, "affects_multiple_dsas"),
    (80, "other"),
];

/// Of the tag of an operation, where there is one.
fn operation(tag: u8) -> Option<u8> {
    let number = tag & 0x1f;
    let exists = tag & 0xc0 == 0x40 && OPERATIONS.get(usize::from(number)).is_some_and(|name| !name.is_empty());
    // Three of them are plain values.
    let is_plain = matches!(number, UNBIND | DELETE | ABANDON);
    (exists && is_plain == (tag & 0x20 == 0)).then_some(number)
}

fn is_request(operation: u8) -> bool {
    matches!(operation, BIND | UNBIND | SEARCH | MODIFY | ADD | DELETE | RENAME | COMPARE | ABANDON | EXTENDED)
}

/// A sequence, a number, an operation.
pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    if bytes.first().is_some_and(|tag| *tag != SEQUENCE) {
        return Probe::No;
    }
    let (outer, len) = match head(bytes) {
        Ok(outer) => outer,
        Err(more) => return if more { Probe::More } else { Probe::No },
    };
    let inner = &bytes[outer..];
    match inner {
        [] | [INTEGER] => Probe::More,
        [INTEGER, digits @ 1..=4, rest @ ..] => match rest.get(usize::from(*digits)) {
            None => Probe::More,
            Some(tag) if len <= MESSAGE_BYTES_MAX && operation(*tag).is_some() => Probe::Yes,
            Some(_) => Probe::No,
        },
        _ => Probe::No,
    }
}

/// The same, and the first message has to be whole.
pub(crate) fn probe_udp(dir: Dir, bytes: &[u8]) -> Probe {
    let is_whole = head(bytes).is_ok_and(|(head_bytes, len)| head_bytes + len <= bytes.len());
    if is_whole && probe_tcp(dir, bytes) == Probe::Yes { Probe::Yes } else { Probe::No }
}

#[derive(Debug)]
pub(crate) struct Ldap {
    transport: Transport,
    requests: Recent<i64, Request>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    tx: u64,
    responses: usize,
    starts_tls: bool,
}

impl Ldap {
    pub const fn new(transport: Transport) -> Self {
        Self { transport, requests: Recent::new(REQUESTS_MAX) }
    }

    fn message(&mut self, content: &[u8], io: &mut Io<'_>) -> Next {
        let mut message = Ber::new(content);
        let read = (|| {
            let number = message.integer()?;
            let element = message.element()?;
            Some((number, operation(element.tag)?, element.content))
        })();
        let Some((number, operation, content)) = read else {
            io.event(None, "ldap.invalid_data");
            return Next::Continue;
        };
        let next = match (io.dir, is_request(operation)) {
            (Dir::ToServer, true) => self.request(number, operation, content, io),
            (Dir::ToClient, false) => self.response(number, operation, content, io),
            _ => {
                io.event(None, "ldap.invalid_data");
                Some(Next::Continue)
            }
        };
        next.unwrap_or(Next::Finished(Finished::Cap("transactions_max")))
    }

    /// `None`: no room for another transaction.
    fn request(&mut self, number: i64, operation: u8, content: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let id = io.begin(Protocol::Ldap)?;
        let dir = Dir::ToServer;
        let mut starts_tls = false;
        if let Some(tx) = io.tx(id) {
            let name = OPERATIONS[usize::from(operation)];
            tx.integer_is(Field::LdapRequestOperation, dir, u64::from(operation));
            tx.notes.object("request");
            tx.notes.number("message_id", number.cast_unsigned());
            tx.notes.text("operation", name);
            if operation != UNBIND {
                tx.notes.object(name);
                match read_request(operation, content, tx) {
                    Some(is_start) => starts_tls = is_start,
                    None => tx.event("ldap.invalid_data", dir),
                }
                tx.notes.end();
            }
            tx.notes.end();
            tx.advance(dir, Stage::Complete);
        }
        if matches!(operation, UNBIND | ABANDON) {
            complete(id, io);
        } else if let Some(gone) = self.requests.insert(number, Request { tx: id, responses: 0, starts_tls }) {
            complete(gone.tx, io);
        }
        Some(Next::Continue)
    }

    fn response(&mut self, number: i64, operation: u8, content: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let dir = Dir::ToClient;
        let mut request = match self.requests.remove(&number) {
            Some(request) => request,
            None => {
                let tx = io.begin(Protocol::Ldap)?;
                // What the server says by itself has no number.
                if number != 0 {
                    io.event(Some(tx), "ldap.request_not_found");
                }
                Request { tx, responses: 0, starts_tls: false }
            }
        };
        if request.responses >= RESPONSES_MAX {
            io.event(Some(request.tx), "ldap.too_many_responses");
            complete(request.tx, io);
            request = Request { tx: io.begin(Protocol::Ldap)?, responses: 0, ..request };
        }
        request.responses += 1;
        let name = OPERATIONS[usize::from(operation)];
        let mut result = None;
        if let Some(tx) = io.tx(request.tx) {
            tx.integer_is(Field::LdapResponsesOperation, dir, u64::from(operation));
            tx.integer_is(Field::LdapResponsesCount, dir, request.responses as u64);
            tx.notes.list("responses");
            tx.notes.object("");
            tx.notes.text("operation", name);
            if number == 0 {
                tx.notes.number("message_id", 0_u8);
            }
            tx.notes.object(name);
            match read_response(operation, content, tx) {
                Some(code) => result = code,
                None => tx.event("ldap.invalid_data", dir),
            }
            tx.notes.end();
            tx.notes.end();
            tx.notes.end();
        }
        if matches!(operation, ENTRY | REFERENCE | INTERMEDIATE) {
            if let Some(gone) = self.requests.insert(number, request) {
                complete(gone.tx, io);
            }
            return Some(Next::Continue);
        }
        complete(request.tx, io);
        let switches = request.starts_tls && operation == EXTENDED_RESPONSE && result == Some(0);
        Some(if switches && self.transport == Transport::Tcp { Next::Switch } else { Next::Continue })
    }
}

fn complete(id: u64, io: &mut Io<'_>) {
    if let Some(tx) = io.tx(id) {
        tx.advance(Dir::ToServer, Stage::Complete);
        tx.advance(Dir::ToClient, Stage::Complete);
    }
}

fn named(tx: &mut Transaction, key: &'static str, name: &[u8]) {
    tx.value(Buffer::LdapRequestDn, Dir::ToServer, name);
    tx.notes.text(key, name);
}

/// Whether TLS is asked for. `None`: the content is not what it should be.
fn read_request(operation: u8, content: &[u8], tx: &mut Transaction) -> Option<bool> {
    let mut ber = Ber::new(content);
    match operation {
        BIND => {
            let version = ber.integer()?;
            tx.notes.number("version", version.cast_unsigned());
            named(tx, "name", ber.octets()?);
            let method = ber.element()?;
            if method.tag == 0xa3 {
                let mut sasl = Ber::new(method.content);
                tx.notes.object("sasl");
                let mechanism = sasl.octets();
                if let Some(mechanism) = mechanism {
                    tx.notes.text("mechanism", mechanism);
                }
                if let Some(credentials) = sasl.octets() {
                    tx.notes.text("credentials", credentials);
                }
                tx.notes.end();
                mechanism?;
            }
        }
        SEARCH => {
            named(tx, "base_object", ber.octets()?);
            for key in ["scope", "deref_alias"] {
                tx.notes.number(key, number(ber.tagged(ENUMERATED)?)?.cast_unsigned());
            }
            for key in ["size_limit", "time_limit"] {
                tx.notes.number(key, ber.integer()?.cast_unsigned());
            }
            tx.notes.truth("types_only", ber.tagged(0x01)?.first().is_some_and(|byte| *byte != 0));
            ber.element()?;
            let mut attributes = ber.within(SEQUENCE)?;
            tx.notes.list("attributes");
            let mut noted = 0;
            while let Some(attribute) = attributes.octets() {
                tx.value(Buffer::LdapRequestAttributeType, Dir::ToServer, attribute);
                if noted < NOTED_MAX {
                    tx.notes.text("", attribute);
                    noted += 1;
                }
            }
            tx.notes.end();
        }
        MODIFY => {
            named(tx, "object", ber.octets()?);
            let mut changes = ber.within(SEQUENCE)?;
            tx.notes.list("changes");
            let mut read = Some(());
            while let Some(change) = changes.element() {
                read = read_change(Ber::new(change.content), tx);
                if read.is_none() {
                    break;
                }
            }
            tx.notes.end();
            read?;
        }
        ADD => {
            named(tx, "entry", ber.octets()?);
            let attributes = ber.within(SEQUENCE)?;
            tx.notes.list("attributes");
            let read = read_attributes(attributes, "name", Buffer::LdapRequestAttributeType, Dir::ToServer, tx);
            tx.notes.end();
            read?;
        }
        DELETE => named(tx, "dn", content),
        RENAME => {
            named(tx, "entry", ber.octets()?);
            tx.notes.text("new_rdn", ber.octets()?);
            tx.notes.truth("delete_old_rdn", ber.tagged(0x01)?.first().is_some_and(|byte| *byte != 0));
            if let Some(superior) = ber.optional(0x80) {
                tx.notes.text("new_superior", superior);
            }
        }
        COMPARE => {
            named(tx, "entry", ber.octets()?);
            let mut assertion = ber.within(SEQUENCE)?;
            let (description, value) = (assertion.octets()?, assertion.octets()?);
            tx.value(Buffer::LdapRequestAttributeType, Dir::ToServer, description);
            tx.notes.object("attribute_value_assertion");
            tx.notes.text("description", description);
            tx.notes.text("value", value);
            tx.notes.end();
        }
        ABANDON => tx.notes.number("message_id", number(content)?.cast_unsigned()),
        EXTENDED => {
            let name = ber.tagged(0x80)?;
            tx.notes.text("name", name);
            if let Some(value) = ber.optional(0x81) {
                tx.notes.text("value", value);
            }
            return Some(name == START_TLS);
        }
        _ => {}
    }
    Some(false)
}

fn read_change(mut change: Ber<'_>, tx: &mut Transaction) -> Option<()> {
    const KINDS: [&str; 4] = ["add", "delete", "replace", "increment"];
    let kind = number(change.tagged(ENUMERATED)?)?;
    let mut modification = change.within(SEQUENCE)?;
    let name = modification.octets()?;
    let values = modification.within(0x31)?;
    tx.value(Buffer::LdapRequestAttributeType, Dir::ToServer, name);
    tx.notes.object("");
    let known = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind)).copied();
    tx.notes.text("operation", known.map_or_else(|| kind.to_string(), str::to_owned));
    tx.notes.object("modification");
    tx.notes.text("attribute_type", name);
    note_values("attribute_values", values, tx);
    tx.notes.end();
    tx.notes.end();
    Some(())
}

/// Each with its values.
fn read_attributes(mut attributes: Ber<'_>, key: &'static str, buffer: Buffer, dir: Dir, tx: &mut Transaction) -> Option<()> {
    let mut noted = 0;
    while !attributes.is_empty() {
        let mut attribute = attributes.within(SEQUENCE)?;
        let (name, values) = (attribute.octets()?, attribute.within(0x31)?);
        tx.value(buffer, dir, name);
        if noted < NOTED_MAX {
            noted += 1;
            tx.notes.object("");
            tx.notes.text(key, name);
            note_values("values", values, tx);
            tx.notes.end();
        }
    }
    Some(())
}

fn note_values(key: &'static str, mut values: Ber<'_>, tx: &mut Transaction) {
    tx.notes.list(key);
    for _ in 0..NOTED_MAX {
        let Some(value) = values.element().filter(|value| value.tag == OCTETS) else { break };
        tx.notes.text("", value.content);
    }
    tx.notes.end();
}

/// The result, where there is one. `None`: the content is not what it should be.
fn read_response(operation: u8, content: &[u8], tx: &mut Transaction) -> Option<Option<u32>> {
    let (mut ber, dir) = (Ber::new(content), Dir::ToClient);
    match operation {
        ENTRY => {
            let name = ber.octets()?;
            tx.value(Buffer::LdapResponsesDn, dir, name);
            tx.notes.text("base_object", name);
            let attributes = ber.within(SEQUENCE)?;
            tx.notes.list("attributes");
            let read = read_attributes(attributes, "type", Buffer::LdapResponsesAttributeType, dir, tx);
            tx.notes.end();
            read?;
            Some(None)
        }
        REFERENCE => Some(None),
        INTERMEDIATE => {
            if let Some(name) = ber.optional(0x80) {
                tx.notes.text("name", name);
            }
            if let Some(value) = ber.optional(0x81) {
                tx.notes.text("value", value);
            }
            Some(None)
        }
        _ => {
            let code = u32::try_from(number(ber.tagged(ENUMERATED)?)?).ok()?;
            let (matched, message) = (ber.octets()?, ber.octets()?);
            tx.integer_is(Field::LdapResponsesResultCode, dir, u64::from(code));
            tx.value(Buffer::LdapResponsesDn, dir, matched);
            tx.value(Buffer::LdapResponsesMessage, dir, message);
            let known = RESULTS.iter().find(|(of, _)| *of == code);
            tx.notes.text("result_code", known.map_or_else(|| code.to_string(), |(_, name)| (*name).to_owned()));
            tx.notes.text("matched_dn", matched);
            tx.notes.text("message", message);
            while let Some(element) = ber.element() {
                match element.tag {
                    0x87 => tx.notes.text("server_sasl_creds", element.content),
                    0x8a => tx.notes.text("name", element.content),
                    0x8b => tx.notes.text("value", element.content),
                    _ => {}
                }
            }
            Some(Some(code))
        }
    }
}

impl Parser for Ldap {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let (head_bytes, len) = match head(rest) {
                Ok(found) if rest[0] == SEQUENCE => found,
                Err(true) => return Step::on(at),
                Ok(_) | Err(false) => {
                    io.event(None, "ldap.invalid_data");
                    return Step { consumed: at, next: Next::Finished(Finished::Malformed("message")) };
                }
            };
            if len > MESSAGE_BYTES_MAX {
                return Step { consumed: at, next: Next::Finished(Finished::Cap("MESSAGE_BYTES_MAX")) };
            }
            let Some(content) = rest.get(head_bytes..head_bytes + len) else { return Step::on(at) };
            at += head_bytes + len;
            match self.message(content, io) {
                Next::Continue => io.report(),
                next => return Step { consumed: at, next },
            }
        }
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        match self.transport {
            Transport::Udp => Next::Continue,
            Transport::Tcp => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
