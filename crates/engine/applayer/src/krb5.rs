//! Kerberos 5 (RFC 4120) over UDP and TCP: each message is a transaction of its own direction.

use crate::ber::{Ber, INTEGER, SEQUENCE, head};
use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::protocol::{Next, Parser, Probe, Step};
use crate::session::Transport;
use crate::sink::Finished;
use crate::transaction::Transaction;

/// A message over TCP; a longer one ends the session. Tickets with many groups have 64 KiB.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Components of one name.
const COMPONENTS_MAX: usize = 16;

const AS_REQ: u8 = 10;
const AS_REP: u8 = 11;
const TGS_REQ: u8 = 12;
const TGS_REP: u8 = 13;
const AP_REQ: u8 = 14;
const AP_REP: u8 = 15;
const ERROR: u8 = 30;

const fn context(number: u8) -> u8 {
    0xa0 | number
}

fn message_name(kind: u8) -> &'static str {
    match kind {
        AS_REQ => "KRB_AS_REQ",
        AS_REP => "KRB_AS_REP",
        TGS_REQ => "KRB_TGS_REQ",
        TGS_REP => "KRB_TGS_REP",
        AP_REQ => "KRB_AP_REQ",
        AP_REP => "KRB_AP_REP",
        ERROR => "KRB_ERROR",
        _ => "UNKNOWN",
    }
}

const ENCRYPTIONS: &[(i64, &str)] = &[
    (1, "des-cbc-crc"),
    (2, "des-cbc-md4"),
    (3, "des-cbc-md5"),
    (5, "des3-cbc-md5"),
    (7, "des3-cbc-sha1"),
    (9, "dsaWithSHA1-CmsOID"),
    (10, "md5WithRSAEncryption-CmsOID"),
    (11, "sha1WithRSAEncryption-CmsOID"),
    (12, "rc2CBC-EnvOID"),
    (13, "rsaEncryption-EnvOID"),
    (14, "rsaES-OAEP-ENV-OID"),
    (15, "des-ede3-cbc-Env-OID"),
    (16, "des3-cbc-sha1-kd"),
    (17, "aes128-cts-hmac-sha1-96"),
    (18, "aes256-cts-hmac-sha1-96"),
    (19, "aes128-cts-hmac-sha256-128"),
    (20, "aes256-cts-hmac-sha384-192"),
    (23, "rc4-hmac"),
    (24, "rc4-hmac-exp"),
    (25, "camellia128-cts-cmac"),
    (26, "camellia256-cts-cmac"),
];

/// RFC 4120, section 7.5.9.
const ERRORS: &[(i64, &str)] = &[
    (0, "KDC_ERR_NONE"),
    (1, "KDC_ERR_NAME_EXP"),
    (2, "KDC_ERR_SERVICE_EXP"),
    (3, "KDC_ERR_BAD_PVNO"),
    (4, "KDC_ERR_C_OLD_MAST_KVNO"),
    (5, "KDC_ERR_S_OLD_MAST_KVNO"),
    (6, "KDC_ERR_C_PRINCIPAL_UNKNOWN"),
    (7, "KDC_ERR_S_PRINCIPAL_UNKNOWN"),
    (8, "KDC_ERR_PRINCIPAL_NOT_UNIQUE"),
    (9, "KDC_ERR_NULL_KEY"),
    (10, "KDC_ERR_CANNOT_POSTDATE"),
    (11, "KDC_ERR_NEVER_VALID"),
    (12, "KDC_ERR_POLICY"),
    (13, "KDC_ERR_BADOPTION"),
    (14, "KDC_ERR_ETYPE_NOSUPP"),
    (15, "KDC_ERR_SUMTYPE_NOSUPP"),
    (16, "KDC_ERR_PADATA_TYPE_NOSUPP"),
    (17, "KDC_ERR_TRTYPE_NOSUPP"),
    (18, "KDC_ERR_CLIENT_REVOKED"),
    (19, "KDC_ERR_SERVICE_REVOKED"),
    (20, "KDC_ERR_TGT_REVOKED"),
    (21, "KDC_ERR_CLIENT_NOTYET"),
    (22, "KDC_ERR_SERVICE_NOTYET"),
    (23, "KDC_ERR_KEY_EXPIRED"),
    (24, "KDC_ERR_PREAUTH_FAILED"),
    (25, "KDC_ERR_PREAUTH_REQUIRED"),
    (26, "KDC_ERR_SERVER_NOMATCH"),
    (27, "KDC_ERR_MUST_USE_USER2USER"),
    (28, "KDC_ERR_PATH_NOT_ACCEPTED"),
    (29, "KDC_ERR_SVC_UNAVAILABLE"),
    (31, "KRB_AP_ERR_BAD_INTEGRITY"),
    (32, "KRB_AP_ERR_TKT_EXPIRED"),
    (33, "KRB_AP_ERR_TKT_NYV"),
    (34, "KRB_AP_ERR_REPEAT"),
    (35, "KRB_AP_ERR_NOT_US"),
    (36, "KRB_AP_ERR_BADMATCH"),
    (37, "KRB_AP_ERR_SKEW"),
    (38, "KRB_AP_ERR_BADADDR"),
    (39, "KRB_AP_ERR_BADVERSION"),
    (40, "KRB_AP_ERR_MSG_TYPE"),
    (41, "KRB_AP_ERR_MODIFIED"),
    (42, "KRB_AP_ERR_BADORDER"),
    (44, "KRB_AP_ERR_BADKEYVER"),
    (45, "KRB_AP_ERR_NOKEY"),
    (46, "KRB_AP_ERR_MUT_FAIL"),
    (47, "KRB_AP_ERR_BADDIRECTION"),
    (48, "KRB_AP_ERR_METHOD"),
    (49, "KRB_AP_ERR_BADSEQ"),
    (50, "KRB_AP_ERR_INAPP_CKSUM"),
    (51, "KRB_AP_PATH_NOT_ACCEPTED"),
    (52, "KRB_ERR_RESPONSE_TOO_BIG"),
    (60, "KRB_ERR_GENERIC"),
    (61, "KRB_ERR_FIELD_TOOLONG"),
    (62, "KDC_ERROR_CLIENT_NOT_TRUSTED"),
    (63, "KDC_ERROR_KDC_NOT_TRUSTED"),
    (64, "KDC_ERROR_INVALID_SIG"),
    (65, "KDC_ERR_KEY_TOO_WEAK"),
    (66, "KDC_ERR_CERTIFICATE_MISMATCH"),
    (67, "KRB_AP_ERR_NO_TGT"),
    (68, "KDC_ERR_WRONG_REALM"),
];

fn named(table: &[(i64, &str)], number: i64) -> String {
    table.iter().find(|(of, _)| *of == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// DES, and everything else that the reference engine calls weak.
fn is_weak(encryption: i64) -> bool {
    !matches!(encryption, 17..=20 | 25 | 26)
}

/// An application's tag, a sequence, and version 5 in it. `len`: of the message, when it was said.
fn probe_message(bytes: &[u8], len: Option<usize>) -> Probe {
    let kind = match bytes.first() {
        None => return Probe::More,
        Some(tag) if tag & 0xe0 == 0x60 => tag & 0x1f,
        Some(_) => return Probe::No,
    };
    if message_name(kind) == "UNKNOWN" {
        return Probe::No;
    }
    let outer = match head(bytes) {
        Err(true) => return Probe::More,
        Ok((head_bytes, inner)) if len.is_none_or(|len| head_bytes + inner == len) => head_bytes,
        Ok(_) | Err(false) => return Probe::No,
    };
    let inner = &bytes[outer..];
    match (inner.first(), head(inner)) {
        (None, _) | (Some(&SEQUENCE), Err(true)) => Probe::More,
        (Some(&SEQUENCE), Ok((head_bytes, _))) => {
            // `[0]` or `[1]`: the version.
            let rest = &inner[head_bytes..];
            let wanted: [&[u8]; 2] = [&[context(0), 3, INTEGER, 1, 5], &[context(1), 3, INTEGER, 1, 5]];
            let fits = |wanted: &&[u8]| rest.iter().zip(*wanted).all(|(a, b)| a == b);
            match wanted.iter().any(fits) {
                true if rest.len() >= 5 => Probe::Yes,
                true => Probe::More,
                false => Probe::No,
            }
        }
        (Some(_), _) => Probe::No,
    }
}

pub(crate) fn probe_udp(_: Dir, bytes: &[u8]) -> Probe {
    match probe_message(bytes, Some(bytes.len())) {
        Probe::Yes => Probe::Yes,
        // A datagram does not go on.
        Probe::More | Probe::No => Probe::No,
    }
}

pub(crate) fn probe_tcp(_: Dir, bytes: &[u8]) -> Probe {
    match bytes {
        [0, 0 | 1, high, low, message @ ..] => {
            let len = usize::from(bytes[1]) << 16 | usize::from(*high) << 8 | usize::from(*low);
            probe_message(message, Some(len))
        }
        [] | [0] | [0, 0 | 1] | [0, 0 | 1, _] => Probe::More,
        _ => Probe::No,
    }
}

#[derive(Debug)]
pub(crate) struct Krb5 {
    transport: Transport,
    /// The kind of the last request.
    asked: Option<u8>,
}

impl Krb5 {
    pub const fn new(transport: Transport) -> Self {
        Self { transport, asked: None }
    }

    /// `Some`: no room for another transaction.
    fn message(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Option<Next> {
        let dir = io.dir;
        let Some(id) = io.begin(Protocol::Krb5) else { return Some(Next::Finished(Finished::Cap("transactions_max"))) };
        let tx = io.tx(id)?;
        if self.read(bytes, dir, tx).is_none() {
            tx.event("krb5.malformed_data", dir);
        }
        tx.advance(dir, Stage::Complete);
        tx.advance(dir.other(), Stage::Complete);
        None
    }

    fn read(&mut self, bytes: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
        let outer = Ber::new(bytes).element()?;
        let kind = outer.tag & 0x1f;
        if outer.tag & 0xe0 != 0x60 || message_name(kind) == "UNKNOWN" {
            return None;
        }
        tx.integer_is(Field::Krb5MsgType, dir, u64::from(kind));
        tx.notes.text("msg_type", message_name(kind));
        let message = Ber::new(outer.content).within(SEQUENCE)?;
        match kind {
            AS_REQ | TGS_REQ => {
                self.asked = Some(kind);
                let body = Ber::new(field(message, 4)?).within(SEQUENCE)?;
                note_names(Some(body), [1, 2, 3], dir, tx);
                note_encryption(None, tx);
                Some(())
            }
            AS_REP | TGS_REP => {
                self.asked = None;
                let ticket = ticket(Ber::new(field(message, 5)?));
                note_client(message, [4, 3], dir, tx);
                if let Some(ticket) = ticket {
                    note_server(ticket, 2, dir, tx);
                }
                let of_answer = field(message, 6).and_then(encryption);
                note_encryption(of_answer, tx);
                let of_ticket = ticket.and_then(|ticket| field(ticket, 3)).and_then(encryption);
                if let Some(of_ticket) = of_ticket {
                    tx.integer_is(Field::Krb5TicketEncryption, dir, of_ticket.cast_unsigned());
                    tx.notes.text("ticket_encryption", named(ENCRYPTIONS, of_ticket));
                    tx.notes.truth("ticket_weak_encryption", is_weak(of_ticket));
                }
                if of_answer.is_some_and(is_weak) {
                    tx.event("krb5.weak_encryption", dir);
                }
                Some(())
            }
            AP_REQ => {
                self.asked = Some(kind);
                note_names(ticket(Ber::new(field(message, 3)?)), [NO_FIELD, 1, 2], dir, tx);
                note_encryption(field(message, 4).and_then(encryption), tx);
                Some(())
            }
            AP_REP => {
                self.asked = None;
                note_names(None, [NO_FIELD; 3], dir, tx);
                let encryption = field(message, 2).and_then(encryption);
                note_encryption(encryption, tx);
                if encryption.is_some_and(is_weak) {
                    tx.event("krb5.weak_encryption", dir);
                }
                Some(())
            }
            _ => {
                let code = field(message, 6).and_then(|content| Ber::new(content).integer())?;
                tx.integer_is(Field::Krb5ErrCode, dir, code.cast_unsigned());
                tx.notes.text("failed_request", self.asked.take().map_or("UNKNOWN", message_name));
                tx.notes.text("error_code", named(ERRORS, code));
                note_client(message, [8, 7], dir, tx);
                note_server(message, 10, dir, tx);
                note_encryption(None, tx);
                Some(())
            }
        }
    }
}

const NO_FIELD: u8 = 0x1f;

/// The content of the element with this number.
fn field(mut message: Ber<'_>, number: u8) -> Option<&[u8]> {
    while let Some(element) = message.element() {
        if element.tag == context(number) {
            return Some(element.content);
        }
    }
    None
}

fn ticket(mut content: Ber<'_>) -> Option<Ber<'_>> {
    content.within(0x61)?.within(SEQUENCE)
}

/// Of encrypted data.
fn encryption(content: &[u8]) -> Option<i64> {
    let data = Ber::new(content).within(SEQUENCE)?;
    field(data, 0).and_then(|content| Ber::new(content).integer())
}

/// Components of a name.
fn name(content: &[u8]) -> Vec<&[u8]> {
    let strings = Ber::new(content).within(SEQUENCE).and_then(|name| field(name, 1));
    let Some(mut strings) = strings.and_then(|content| Ber::new(content).within(SEQUENCE)) else { return Vec::new() };
    (0..COMPONENTS_MAX).map_while(|_| strings.element().map(|element| element.content)).collect()
}

fn note_name(key: &'static str, buffer: Buffer, content: Option<&[u8]>, dir: Dir, tx: &mut Transaction) {
    let components = content.map(name).unwrap_or_default();
    for component in &components {
        tx.value(buffer, dir, component);
    }
    let whole = components.join(&b'/');
    tx.notes.text(key, if whole.is_empty() { b"<empty>" } else { whole.as_slice() });
}

/// `fields`: of the name, of the realm.
fn note_client(message: Ber<'_>, fields: [u8; 2], dir: Dir, tx: &mut Transaction) {
    note_name("cname", Buffer::Krb5Cname, field(message, fields[0]), dir, tx);
    let realm = field(message, fields[1]).and_then(|content| Ber::new(content).element());
    tx.notes.text("realm", realm.map_or(&b"<empty>"[..], |realm| realm.content));
}

fn note_server(message: Ber<'_>, number: u8, dir: Dir, tx: &mut Transaction) {
    note_name("sname", Buffer::Krb5Sname, field(message, number), dir, tx);
}

/// `fields`: of the client's name, the realm, the server's name.
fn note_names(message: Option<Ber<'_>>, fields: [u8; 3], dir: Dir, tx: &mut Transaction) {
    let message = message.unwrap_or(Ber::new(&[]));
    note_client(message, [fields[0], fields[1]], dir, tx);
    note_server(message, fields[2], dir, tx);
}

fn note_encryption(encryption: Option<i64>, tx: &mut Transaction) {
    tx.notes.text("encryption", encryption.map_or_else(|| "<none>".to_owned(), |encryption| named(ENCRYPTIONS, encryption)));
    tx.notes.truth("weak_encryption", encryption.is_some_and(is_weak));
}

impl Parser for Krb5 {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        if self.transport == Transport::Udp {
            let next = self.message(bytes, io).unwrap_or(Next::Continue);
            return Step { consumed: bytes.len(), next };
        }
        let mut at = 0;
        while let Some(len) = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|len| u32::from_be_bytes(*len) as usize) {
            if len > MESSAGE_BYTES_MAX {
                return Step { consumed: at, next: Next::Finished(Finished::Cap("MESSAGE_BYTES_MAX")) };
            }
            let Some(message) = bytes.get(at + 4..at + 4 + len) else { break };
            at += 4 + len;
            if let Some(next) = self.message(message, io) {
                return Step { consumed: at, next };
            }
            // One call with thousands of tiny messages is told of message by message.
            io.report();
        }
        Step::on(at)
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        match self.transport {
            Transport::Udp => Next::Continue,
            Transport::Tcp => Next::Finished(Finished::Gap),
        }
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
