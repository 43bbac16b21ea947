//! IKE 1 and 2 (RFC 2408, 2409, 7296) over UDP, also behind NAT (RFC 3948): each message is a transaction of its own direction.

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};
use crate::notes::hex;
use crate::protocol::{Next, Parser, Probe, Step};
use crate::reader::Reader;
use crate::sink::Finished;
use crate::transaction::Transaction;

const HEAD_BYTES: usize = 28;
/// Payloads of one message, proposals and transforms of one payload.
const PAYLOADS_MAX: usize = 64;
/// Vendors of one side that are remembered.
const VENDORS_MAX: usize = 32;
const ENCRYPTED: u8 = 0x01;

/// A head of version 1 or 2, an exchange of it, and its own length.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let Some(head) = Head::read(plain(bytes)) else { return Probe::No };
    let exists = match head.major {
        1 => matches!(head.exchange, 1..=6 | 32..=33),
        2 => matches!(head.exchange, 34..=37 | 43),
        _ => false,
    };
    let fits = head.initiator != [0; 8] && exists && head.len as usize == plain(bytes).len() && head.len as usize >= HEAD_BYTES;
    if fits && known_payload(head.major, head.next) { Probe::Yes } else { Probe::No }
}

fn known_payload(major: u8, kind: u8) -> bool {
    if major == 1 { matches!(kind, 1..=13 | 20 | 21 | 130..=132) } else { matches!(kind, 0 | 33..=54) }
}

/// Without the mark that tells it from ESP.
fn plain(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(&[0; 4]).unwrap_or(bytes)
}

#[derive(Debug, Clone, Copy)]
struct Head {
    initiator: [u8; 8],
    responder: [u8; 8],
    next: u8,
    major: u8,
    minor: u8,
    exchange: u8,
    flags: u8,
    message: u32,
    len: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (initiator, responder, next, version) = (reader.array()?, reader.array()?, reader.u8()?, reader.u8()?);
        let (exchange, flags, message, len) = (reader.u8()?, reader.u8()?, reader.be32()?, reader.be32()?);
        Some(Self { initiator, responder, next, major: version >> 4, minor: version & 15, exchange, flags, message, len })
    }
}

/// What one side has said, for the log.
#[derive(Debug, Default)]
struct Side {
    key: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    vendors: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Ike {
    sides: [Side; 2],
    /// Attributes that were chosen: type and value.
    chosen: Vec<(u16, u64)>,
    doi: Option<u32>,
    /// The port is shared with ESP: messages have a mark.
    marked: bool,
}

impl Ike {
    fn read(&mut self, bytes: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
        let bytes = plain(bytes);
        let head = Head::read(bytes)?;
        match dir {
            Dir::ToServer => tx.value(Buffer::IkeInitSpi, dir, hex(&head.initiator).as_bytes()),
            Dir::ToClient => tx.value(Buffer::IkeRespSpi, dir, hex(&head.responder).as_bytes()),
        };
        tx.integer_is(Field::IkeExchtype, dir, u64::from(head.exchange));
        let notes = &mut tx.notes;
        notes.number("_v", 2_u8);
        notes.number("version_major", head.major);
        notes.number("version_minor", head.minor);
        notes.hex("init_spi", &head.initiator);
        notes.hex("resp_spi", &head.responder);
        notes.number("message_id", head.message);
        notes.number("exchange_type", head.exchange);
        let read = if head.major == 1 && head.flags & ENCRYPTED != 0 { Some(()) } else { self.payloads(head, bytes, dir, tx) };
        if head.major == 1 {
            self.note(head, tx);
        }
        read
    }

    fn payloads(&mut self, head: Head, bytes: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
        let (mut reader, mut kind) = (Reader::from(bytes, HEAD_BYTES), head.next);
        for _ in 0..PAYLOADS_MAX {
            if kind == 0 {
                return Some(());
            }
            let (next, _, len) = (reader.u8()?, reader.u8()?, reader.be16()?);
            let content = reader.take(usize::from(len).checked_sub(4)?)?;
            if let Some(name) = payload_name(kind) {
                tx.notes.list("payload");
                tx.notes.text("", name);
                tx.notes.end();
            }
            let side = &mut self.sides[dir as usize];
            match (head.major, kind) {
                (1, 1) => self.association_1(content, dir, tx)?,
                (1, 4) => key(content, side, dir, tx),
                (1, 10) | (2, 40) => {
                    tx.value(Buffer::IkeNoncePayload, dir, content);
                    tx.integer_is(Field::IkeNoncePayloadLength, dir, content.len() as u64);
                    side.nonce = Some(content.to_vec());
                }
                (1, 13) | (2, 43) => {
                    let vendor = hex(content);
                    if dir == Dir::ToServer {
                        tx.value(Buffer::IkeVendor, dir, vendor.as_bytes());
                    }
                    if side.vendors.len() < VENDORS_MAX {
                        side.vendors.push(vendor);
                    }
                }
                (2, 33) => association_2(content, dir, tx)?,
                // The group stands before it.
                (2, 34) => key(content.get(4..)?, side, dir, tx),
                // Everything behind it is encrypted.
                (2, 46 | 53) => return Some(()),
                _ => {}
            }
            kind = next;
        }
        Some(())
    }

    /// Proposals of version 1; the server's is the choice.
    fn association_1(&mut self, content: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
        let mut reader = Reader::new(content);
        let (doi, _) = (reader.be32()?, reader.be32()?);
        self.doi = Some(doi);
        for _ in 0..PAYLOADS_MAX {
            let (more, _, len) = (reader.u8()?, reader.u8()?, reader.be16()?);
            let mut proposal = Reader::new(reader.take(usize::from(len).checked_sub(4)?)?);
            let (_, _, spi_len, count) = (proposal.u8()?, proposal.u8()?, proposal.u8()?, proposal.u8()?);
            proposal.skip(usize::from(spi_len))?;
            for _ in 0..count {
                let (_, _, len) = (proposal.u8()?, proposal.u8()?, proposal.be16()?);
                let mut attributes = Reader::new(proposal.take(usize::from(len).checked_sub(4)?)?);
                attributes.skip(4)?;
                let found = attributes_of(attributes);
                if dir == Dir::ToClient {
                    for (kind, value) in &found {
                        if let Some(field) = attribute_field(*kind) {
                            tx.integer_is(field, dir, *value);
                        }
                    }
                    self.chosen = found;
                }
            }
            if more == 0 {
                break;
            }
        }
        Some(())
    }

    /// What both sides have said so far.
    fn note(&self, head: Head, tx: &mut Transaction) {
        let notes = &mut tx.notes;
        if !self.chosen.is_empty() {
            notes.list("attributes");
            for (kind, value) in &self.chosen {
                let Some(key) = attribute_key(*kind) else { continue };
                notes.object("");
                notes.text("key", key);
                notes.text("value", attribute_value(*kind, *value));
                notes.number("raw", *value);
                notes.end();
            }
            notes.end();
        }
        notes.object("ikev1");
        notes.truth("encrypted_payloads", head.flags & ENCRYPTED != 0);
        if let Some(doi) = self.doi {
            notes.number("doi", doi);
        }
        for (key, side) in ["client", "server"].into_iter().zip(&self.sides) {
            notes.object(key);
            if let Some(key) = &side.key {
                notes.hex("key_exchange_payload", key);
                notes.number("key_exchange_payload_length", key.len() as u64);
            }
            if let Some(nonce) = &side.nonce {
                notes.hex("nonce_payload", nonce);
                notes.number("nonce_payload_length", nonce.len() as u64);
            }
            if !side.vendors.is_empty() {
                notes.list("vendors");
                side.vendors.iter().for_each(|vendor| notes.text("", vendor));
                notes.end();
            }
            notes.end();
        }
        notes.end();
    }
}

fn key(content: &[u8], side: &mut Side, dir: Dir, tx: &mut Transaction) {
    tx.value(Buffer::IkeKeyExchangePayload, dir, content);
    tx.integer_is(Field::IkeKeyExchangePayloadLength, dir, content.len() as u64);
    side.key = Some(content.to_vec());
}

/// Types and values.
fn attributes_of(mut reader: Reader<'_>) -> Vec<(u16, u64)> {
    let mut next = || {
        let (kind, value) = (reader.be16()?, reader.be16()?);
        if kind & 0x8000 != 0 {
            return Some((kind & 0x7fff, u64::from(value)));
        }
        let bytes = reader.take(usize::from(value))?;
        Some((kind, bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))))
    };
    (0..PAYLOADS_MAX).map_while(|_| next()).collect()
}

fn attribute_key(kind: u16) -> Option<&'static str> {
    Some(match kind {
        1 => "alg_enc",
        2 => "alg_hash",
        3 => "alg_auth",
        4 => "alg_dh",
        5 => "sa_group_type",
        11 => "sa_life_type",
        12 => "sa_life_duration",
        13 => "alg_prf",
        14 => "sa_key_length",
        15 => "sa_field_size",
        _ => return None,
    })
}

fn attribute_field(kind: u16) -> Option<Field> {
    Some(match kind {
        1 => Field::IkeSaAlgEnc,
        2 => Field::IkeSaAlgHash,
        3 => Field::IkeSaAlgAuth,
        4 => Field::IkeSaAlgDh,
        5 => Field::IkeSaGroupType,
        11 => Field::IkeSaLifeType,
        12 => Field::IkeSaLifeDuration,
        14 => Field::IkeSaKeyLength,
        15 => Field::IkeSaFieldSize,
        _ => return None,
    })
}

fn attribute_value(kind: u16, value: u64) -> &'static str {
    let names: &[&str] = match kind {
        1 => &[
            "EncDesCbc",
            "EncIdeaCbc",
            "EncBlowfishCbc",
            "EncRc5R16B64Cbc",
            "EncTripleDesCbc",
            "EncCastCbc",
            "EncAesCbc",
            "EncCamelliaCbc",
        ],
        2 => &["HashMd5", "HashSha", "HashTiger", "HashSha2_256", "HashSha2_384", "HashSha2_512"],
        3 => &["AuthPreSharedKey", "AuthDssSignatures", "AuthRsaSignatures", "AuthRsaEncryption", "AuthRevisedRsaEncryption"],
        4 => &["GroupDefault768BitModp", "GroupAlternate1024BitModpGroup", "GroupEC2NOnGP2p155", "GroupEC2NOnGP2p185", "GroupModp1536Bit"],
        11 => &["LifeTypeSeconds", "LifeTypeKilobytes"],
        _ => &[],
    };
    usize::try_from(value).ok().and_then(|value| names.get(value.wrapping_sub(1))).copied().unwrap_or("Unknown")
}

fn payload_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 | 33 => "SecurityAssociation",
        2 => "Proposal",
        3 => "Transform",
        4 | 34 => "KeyExchange",
        5 => "Identification",
        6 | 37 => "Certificate",
        7 | 38 => "CertificateRequest",
        8 => "Hash",
        9 => "Signature",
        10 | 40 => "Nonce",
        11 | 41 => "Notification",
        12 | 42 => "Delete",
        13 | 43 => "VendorID",
        20 => "NatDiscovery",
        46 => "EncryptedAndAuthenticated",
        _ => return None,
    })
}

/// Transforms of version 2: what the server chooses is judged.
fn association_2(content: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
    let (mut reader, mut proposals) = (Reader::new(content), 0);
    for _ in 0..PAYLOADS_MAX {
        let (more, _, len) = (reader.u8()?, reader.u8()?, reader.be16()?);
        let mut proposal = Reader::new(reader.take(usize::from(len).checked_sub(4)?)?);
        let (_, _, spi_len, count) = (proposal.u8()?, proposal.u8()?, proposal.u8()?, proposal.u8()?);
        proposal.skip(usize::from(spi_len))?;
        proposals += 1;
        let (mut encrypts, mut authenticates, mut groups) = (false, false, false);
        for _ in 0..count {
            let (_, _, len, kind, _, id) =
                (proposal.u8()?, proposal.u8()?, proposal.be16()?, proposal.u8()?, proposal.u8()?, proposal.be16()?);
            proposal.skip(usize::from(len).checked_sub(8)?)?;
            let weak = match (kind, id) {
                (1, id) => {
                    encrypts |= id != 11;
                    // With these, nothing else has to authenticate.
                    authenticates |= matches!(id, 14..=16 | 18..=20 | 25..=28);
                    matches!(id, 1..=9 | 11).then_some("ike.weak_crypto_enc")
                }
                (2, 0..=2) => Some("ike.weak_crypto_prf"),
                (3, id) => {
                    authenticates |= id != 0;
                    matches!(id, 1..=4 | 6 | 7).then_some("ike.weak_crypto_auth")
                }
                (4, id) => {
                    groups |= id != 0;
                    matches!(id, 1 | 2 | 5 | 22).then_some("ike.weak_crypto_dh")
                }
                _ => None,
            };
            if let Some(event) = weak.filter(|_| dir == Dir::ToClient) {
                tx.event(event, dir);
            }
        }
        if dir == Dir::ToClient {
            let missing = [(encrypts, "ike.no_encryption"), (authenticates, "ike.weak_crypto_no_auth"), (groups, "ike.weak_crypto_no_dh")];
            missing.iter().filter(|(there, _)| !there).for_each(|(_, event)| tx.event(event, dir));
        }
        if more == 0 {
            break;
        }
    }
    if proposals > 1 && dir == Dir::ToClient {
        tx.event("ike.multiple_server_proposal", dir);
    }
    Some(())
}

impl Parser for Ike {
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step {
        let dir = io.dir;
        let has_mark = bytes.starts_with(&[0; 4]);
        self.marked |= has_mark;
        if self.marked && !has_mark {
            // ESP, or a sign of life.
            return Step::on(bytes.len());
        }
        let Some(id) = io.begin(Protocol::Ike) else {
            return Step { consumed: bytes.len(), next: Next::Finished(Finished::Cap("transactions_max")) };
        };
        if let Some(tx) = io.tx(id) {
            if self.read(bytes, dir, tx).is_none() {
                tx.event("ike.malformed_data", dir);
            }
            tx.advance(dir, Stage::Complete);
            tx.advance(dir.other(), Stage::Complete);
        }
        Step::on(bytes.len())
    }

    fn gap(&mut self, _: u64, _: &[u8], _: &mut Io<'_>) -> Next {
        Next::Continue
    }

    fn end(&mut self, _: &[u8], _: &mut Io<'_>) {}
}
