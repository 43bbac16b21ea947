//! SNMP, versions 1, 2c and 3 (RFC 1157, 3416, 3412), over UDP: each message is a transaction of its own direction.

use crate::ber::{Ber, OCTETS, SEQUENCE, head, object_identifier};
use crate::names::{Buffer, Dir, Field};
use crate::protocol::Probe;
use crate::transaction::Transaction;

/// Variables of one message that are written down.
const VARIABLES_MAX: usize = 256;
const OBJECT: u8 = 0x06;
const ADDRESS: u8 = 0x40;
/// RFC 3411, section 5: models up to the one by transport.
const USER_MODEL: i64 = 3;
const MODEL_MAX: i64 = 4;
const TRAP: u8 = 4;
const PDUS: [&str; 9] =
    ["get_request", "get_next_request", "response", "set_request", "trap_v1", "get_bulk_request", "inform_request", "trap_v2", "report"];
const ERRORS: [&str; 19] = [
    "NoError",
    "TooBig",
    "NoSuchName",
    "BadValue",
    "ReadOnly",
    "GenErr",
    "NoAccess",
    "WrongType",
    "WrongLength",
    "WrongEncoding",
    "WrongValue",
    "NoCreation",
    "InconsistentValue",
    "ResourceUnavailable",
    "CommitFailed",
    "UndoFailed",
    "AuthorizationError",
    "NotWritable",
    "InconsistentName",
];

/// The whole datagram is a sequence that begins with a version, and goes on as that version does.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let is_whole = head(bytes).is_ok_and(|(head_bytes, len)| head_bytes + len == bytes.len());
    let mut outer = Ber::new(bytes);
    let good = is_whole
        && outer.within(SEQUENCE).is_some_and(|mut message| match message.integer() {
            Some(0 | 1) => {
                message.octets().is_some()
                    && message.element().is_some_and(|pdu| pdu.tag & 0xe0 == 0xa0 && usize::from(pdu.tag & 0x1f) < PDUS.len())
            }
            Some(3) => message.within(SEQUENCE).is_some_and(|mut global| global.integer().is_some() && global.integer().is_some()),
            _ => false,
        });
    if good { Probe::Yes } else { Probe::No }
}

pub(crate) fn read(bytes: &[u8], dir: Dir, tx: &mut Transaction) {
    if message(bytes, dir, tx).is_none() {
        tx.event("snmp.malformed_data", dir);
    }
}

fn message(bytes: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
    let mut message = Ber::new(bytes).within(SEQUENCE)?;
    // As people count: 1, 2, 3.
    let version = match message.integer()? {
        wire @ (0 | 1) => wire + 1,
        wire => wire,
    };
    let shown = version.cast_unsigned();
    tx.integer_is(Field::SnmpVersion, dir, shown);
    tx.notes.number("version", shown);
    if version < 3 {
        let community = message.octets()?;
        tx.value(Buffer::SnmpCommunity, dir, community);
        let pdu = message.element()?;
        return read_pdu(pdu.tag, Ber::new(pdu.content), dir, Some(community), tx);
    }
    let mut global = message.within(SEQUENCE)?;
    let (_, _, _, model) = (global.integer()?, global.integer()?, global.octets()?, global.integer()?);
    if !(0..=MODEL_MAX).contains(&model) {
        tx.event("snmp.unknown_security_model", dir);
    }
    let parameters = message.octets()?;
    if model == USER_MODEL {
        let mut parameters = Ber::new(parameters).within(SEQUENCE)?;
        let (_, _, _, user) = (parameters.octets()?, parameters.integer()?, parameters.integer()?, parameters.octets()?);
        tx.value(Buffer::SnmpUsm, dir, user);
        tx.notes.text("usm", user);
    }
    let scoped = message.element()?;
    match scoped.tag {
        SEQUENCE => {
            let mut scoped = Ber::new(scoped.content);
            let (_, _, pdu) = (scoped.octets()?, scoped.octets()?, scoped.element()?);
            read_pdu(pdu.tag, Ber::new(pdu.content), dir, None, tx)
        }
        // Encrypted.
        OCTETS => Some(()),
        _ => None,
    }
}

fn read_pdu(tag: u8, mut pdu: Ber<'_>, dir: Dir, community: Option<&[u8]>, tx: &mut Transaction) -> Option<()> {
    let kind = tag & 0x1f;
    if tag & 0xe0 != 0xa0 {
        return None;
    }
    let name = PDUS.get(usize::from(kind))?;
    tx.integer_is(Field::SnmpPduType, dir, u64::from(kind));
    tx.notes.text("pdu_type", name);
    if kind == TRAP {
        let enterprise = pdu.tagged(OBJECT)?;
        let address = pdu.tagged(ADDRESS)?;
        let (generic, _, _) = (pdu.integer()?, pdu.integer()?, pdu.element()?);
        tx.notes.text("trap_type", trap_name(generic));
        tx.notes.text("trap_oid", object_identifier(enterprise));
        if let [a, b, c, d] = address {
            tx.notes.text("trap_address", format!("{a}.{b}.{c}.{d}"));
        }
    } else {
        let (_, status, _) = (pdu.integer()?, pdu.integer()?, pdu.integer()?);
        // In a request for many these numbers say how many.
        if status != 0 && kind != 5 {
            let error = usize::try_from(status).ok().and_then(|status| ERRORS.get(status)).copied();
            tx.notes.text("error", error.map_or_else(|| status.to_string(), str::to_owned));
        }
    }
    if let Some(community) = community {
        tx.notes.text("community", community);
    }
    let mut variables = pdu.within(SEQUENCE)?;
    tx.notes.list("vars");
    let mut read = Some(());
    for _ in 0..VARIABLES_MAX {
        if variables.is_empty() {
            break;
        }
        let variable = variables.within(SEQUENCE).and_then(|mut variable| variable.tagged(OBJECT));
        match variable {
            Some(variable) => tx.notes.text("", object_identifier(variable)),
            None => {
                read = None;
                break;
            }
        }
    }
    tx.notes.end();
    read
}

fn trap_name(generic: i64) -> String {
    const NAMES: [&str; 7] =
        ["ColdStart", "WarmStart", "LinkDown", "LinkUp", "AuthenticationFailure", "EgpNeighborLoss", "EnterpriseSpecific"];
    usize::try_from(generic).ok().and_then(|generic| NAMES.get(generic)).map_or_else(|| generic.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_messages_are_recognised() {
        let good = b"\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00";
        assert_eq!(probe(Dir::ToServer, good), Probe::Yes);

        for cut in 0..good.len() {
            assert_eq!(probe(Dir::ToServer, &good[..cut]), Probe::No);
        }
    }
}
