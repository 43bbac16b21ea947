//! Conditions of a transaction that are no buffer: how far it has come, what it calls, when a certificate is good.

use std::sync::Arc;

use bulkhead_rules::condition::{
    CertDate, DateRelation, DceIface, Effect, FtpDataCommand, HashAlgorithm, Krb5Encryption, Modbus, ModbusCategory, ModbusKind,
    ModbusTable, TextField,
};
use bulkhead_rules::header::Header;
use bulkhead_rules::tree::{NumberTest, Relation};

use super::rule::Decision;
use super::*;
use crate::sets::{HashList, Sets};

/// A condition that is decided on numbers and stages.
#[derive(Debug)]
pub(super) enum Other {
    /// A call of this interface; its version comes with it. In a direction of which something was seen.
    DceIface(DceIface, Option<Direction>),
    DceOpnum(Vec<(u16, u16)>, Option<Direction>),
    /// How far a direction has come ([`Values::progress`]).
    State {
        dir: Direction,
        test: NumberTest,
    },
    /// A setting of HTTP/2 by its number, which stands in the upper half.
    Http2Setting {
        id: u16,
        test: NumberTest,
    },
    /// Of a certificate: the end that is asked for, and when.
    CertDate {
        which: CertDate,
        relation: DateRelation,
        first: i64,
        last: i64,
    },
    CertExpired,
    CertValid,
    /// A number of a parser's own name.
    Named(&'static str, NumberTest),
    /// Nothing was replied by the end.
    NoReply,
    /// Group and variation of an object of DNP3.
    Dnp3Object(u64, Option<Direction>),
    /// Bits of which one has to be set.
    Dnp3Indications(u64),
    Krb5Encryption(Krb5Encryption),
    Modbus(Modbus),
    /// Service, class and attribute of CIP.
    CipService(u8, Option<u16>, Option<u16>, Option<Direction>),
}

/// Stages by the names that hooks and `app-layer-state` have for them: `client` and `server` for protocols of one exchange,
/// `request` and `response` for the others.
const STATES: &[(&str, Direction, u8)] = &[
    ("request_line", Direction::ToServer, 1),
    ("request_headers", Direction::ToServer, 2),
    ("request_body", Direction::ToServer, 3),
    ("request_trailer", Direction::ToServer, 4),
    ("request_complete", Direction::ToServer, 5),
    ("response_started", Direction::ToClient, 1),
    ("response_line", Direction::ToClient, 1),
    ("response_headers", Direction::ToClient, 2),
    ("response_body", Direction::ToClient, 3),
    ("response_trailer", Direction::ToClient, 4),
    ("response_complete", Direction::ToClient, 5),
    ("request_started", Direction::ToServer, 0),
    ("client_in_progress", Direction::ToServer, 0),
    ("client_banner_done", Direction::ToServer, 1),
    ("client_hello_done", Direction::ToServer, 2),
    ("client_cert_done", Direction::ToServer, 5),
    ("client_handshake_done", Direction::ToServer, 5),
    ("client_finished", Direction::ToServer, 5),
    ("server_in_progress", Direction::ToClient, 1),
    ("server_banner_done", Direction::ToClient, 1),
    ("server_hello", Direction::ToClient, 2),
    ("server_cert_done", Direction::ToClient, 5),
    ("server_hello_done", Direction::ToClient, 5),
    ("server_handshake_done", Direction::ToClient, 5),
    ("server_finished", Direction::ToClient, 5),
];

fn state(name: &str) -> Result<(Direction, u8), (Code, String)> {
    let name = name.strip_prefix("global:").unwrap_or(name);
    let known = STATES.iter().find(|(known, ..)| *known == name);
    known.map(|(_, dir, stage)| (*dir, *stage)).ok_or_else(|| (Code::ValueUnsupported, format!("the state `{name}` is not known here")))
}

impl Other {
    pub fn is_one(condition: &Condition) -> bool {
        matches!(
            condition,
            Condition::DceIface(_)
                | Condition::DceOpnum(_)
                | Condition::AppLayerState { .. }
                | Condition::Http2Setting { .. }
                | Condition::TlsCertDate { .. }
                | Condition::TlsCertExpired
                | Condition::TlsCertValid
                | Condition::FtpDataCommand(_)
                | Condition::FtpMode { .. }
                | Condition::FtpReplyReceived(_)
                | Condition::MqttSessionPresent(_)
                | Condition::Dnp3Object { .. }
                | Condition::Dnp3Indications(_)
                | Condition::Krb5TicketEncryption(_)
                | Condition::Modbus(_)
                | Condition::CipService { .. }
        )
    }

    /// `None`: not one of these. `only`: what the rule is asked of.
    pub fn new(condition: &Condition, only: Option<Direction>) -> Result<Option<Self>, (Code, String)> {
        Ok(Some(match condition {
            Condition::DceIface(iface) => Self::DceIface(iface.clone(), only),
            Condition::DceOpnum(ranges) => Self::DceOpnum(ranges.clone(), only),
            Condition::AppLayerState { relation, state: name } => {
                let (dir, stage) = state(name)?;
                let stage = u64::from(stage);
                let test = match relation {
                    Relation::Equal => NumberTest::Equal(stage),
                    Relation::NotEqual => NumberTest::NotEqual(stage),
                    Relation::Less => NumberTest::Less(stage),
                    Relation::Greater => NumberTest::Greater(stage),
                };
                Self::State { dir, test }
            }
            Condition::Http2Setting { id, test } => Self::Http2Setting { id: *id, test: *test },
            Condition::TlsCertDate { which, relation, first, last } => {
                Self::CertDate { which: *which, relation: *relation, first: *first, last: *last }
            }
            Condition::TlsCertExpired => Self::CertExpired,
            Condition::TlsCertValid => Self::CertValid,
            Condition::FtpDataCommand(command) => {
                Self::Named("ftpdata_command", NumberTest::Equal(if *command == FtpDataCommand::Retrieve { 1 } else { 2 }))
            }
            Condition::FtpMode { active } => Self::Named("ftp.mode", NumberTest::Equal(if *active { 1 } else { 2 })),
            Condition::FtpReplyReceived(true) => Self::Named("ftp.reply_received", NumberTest::Equal(1)),
            Condition::FtpReplyReceived(false) => Self::NoReply,
            Condition::MqttSessionPresent(present) => Self::Named("mqtt.connack.session_present", NumberTest::Equal(u64::from(*present))),
            Condition::Dnp3Object { group, variation } => Self::Dnp3Object(u64::from(*group) << 8 | u64::from(*variation), only),
            Condition::Dnp3Indications(mask) => Self::Dnp3Indications(u64::from(*mask)),
            Condition::Krb5TicketEncryption(types) => Self::Krb5Encryption(types.clone()),
            Condition::Modbus(modbus) => Self::Modbus(modbus.clone()),
            Condition::CipService { service, class, attribute } => Self::CipService(*service, *class, *attribute, only),
            _ => return Ok(None),
        }))
    }

    /// What a hook of an application asks for.
    pub fn hook(header: &Header) -> Result<Option<Self>, (Code, String)> {
        match (&header.hook, header.protocol) {
            (Some(hook), bulkhead_rules::Protocol::App(_)) => {
                let (dir, stage) = state(hook)?;
                Ok(Some(Self::State { dir, test: NumberTest::GreaterOrEqual(u64::from(stage)) }))
            }
            _ => Ok(None),
        }
    }

    /// Where it can hold, if only in one.
    pub const fn direction(&self) -> Option<Direction> {
        match self {
            Self::State { dir, .. } => Some(*dir),
            Self::CertDate { .. } | Self::CertExpired | Self::CertValid => Some(Direction::ToClient),
            Self::DceIface(..) | Self::DceOpnum(..) | Self::Http2Setting { .. } | Self::Named(..) | Self::NoReply => None,
            Self::Modbus(_) => Some(Direction::ToServer),
            Self::Dnp3Indications(_) | Self::Krb5Encryption(_) => Some(Direction::ToClient),
            Self::Dnp3Object(..) | Self::CipService(..) => None,
        }
    }

    pub fn decide(&self, values: &impl Values, work: &mut Work) -> Decision {
        work.charge(1);
        let both = [Direction::ToServer, Direction::ToClient];
        let over = || both.into_iter().all(|dir| values.is_complete(dir));
        let of = |name: &'static str| both.into_iter().flat_map(move |dir| values.named(name, dir));
        let spoken = |only: Option<Direction>| only.is_none_or(|dir| dir == Direction::ToServer || values.progress(dir) > 0);
        let holds = match self {
            Self::DceIface(iface, only) => {
                // A bind names interfaces too; only a call has a number.
                spoken(*only) && of("dcerpc.opnum").next().is_some() && values.interfaces().any(|found| is_interface(iface, found))
            }
            Self::DceOpnum(ranges, only) => {
                spoken(*only)
                    && of("dcerpc.opnum")
                        .any(|found| ranges.iter().any(|(first, last)| (u64::from(*first)..=u64::from(*last)).contains(&found)))
            }
            Self::State { dir, test } => {
                return match test.matches(u64::from(values.progress(*dir))) {
                    true => Decision::Holds,
                    false if over() => Decision::Never,
                    false => Decision::NotYet,
                };
            }
            Self::Http2Setting { id, test } => {
                of("http2.settings").any(|found| found >> 32 == u64::from(*id) && test.matches(found & 0xffff_ffff))
            }
            Self::CertDate { which, relation, first, last } => {
                let name = match which {
                    CertDate::NotBefore => "tls.cert_notbefore",
                    CertDate::NotAfter => "tls.cert_notafter",
                };
                of(name).map(u64::cast_signed).any(|found| match relation {
                    DateRelation::Equal => found == *first,
                    DateRelation::Before => found < *first,
                    DateRelation::After => found > *first,
                    DateRelation::Between => *first < found && found < *last,
                })
            }
            Self::Named(name, test) => of(name).any(|found| test.matches(found)),
            Self::NoReply => over() && of("ftp.reply_received").next().is_none(),
            Self::CertExpired => {
                values.now().is_some_and(|now| of("tls.cert_notafter").next().is_some_and(|until| until.cast_signed() < now))
            }
            Self::CertValid => values.now().is_some_and(|now| {
                let first = |name| of(name).next().map(u64::cast_signed);
                first("tls.cert_notbefore").is_some_and(|from| from <= now) && first("tls.cert_notafter").is_some_and(|until| now <= until)
            }),
            Self::Dnp3Object(object, only) => {
                let dirs = both.into_iter().filter(|dir| only.is_none_or(|only| only == *dir));
                dirs.flat_map(|dir| values.named("dnp3.object", dir)).any(|found| found == *object)
            }
            Self::Dnp3Indications(mask) => of("dnp3.indications").any(|found| found & mask != 0),
            Self::Krb5Encryption(wanted) => of("krb5.ticket_encryption").any(|found| {
                // All but AES and Camellia are weak.
                let is_strong = matches!(found, 17..=20 | 25 | 26);
                match wanted {
                    Krb5Encryption::Weak => !is_strong,
                    Krb5Encryption::Strong => is_strong,
                    Krb5Encryption::Types(types) => types.iter().any(|kind| i64::from(*kind) == found.cast_signed()),
                }
            }),
            Self::Modbus(wanted) => is_modbus(wanted, values),
            Self::CipService(service, class, attribute, only) => {
                both.into_iter().filter(|dir| only.is_none_or(|only| only == *dir)).flat_map(|dir| values.named("enip.cip", dir)).any(
                    |found| {
                        let (has_class, has_attribute) = (found & 1 << 41 != 0, found & 1 << 40 != 0);
                        found >> 32 & 0xff == u64::from(*service)
                            && class.is_none_or(|class| has_class && found >> 16 & 0xffff == u64::from(class))
                            && attribute.is_none_or(|attribute| has_attribute && found & 0xffff == u64::from(attribute))
                    },
                )
            }
        };
        match holds {
            true => Decision::Holds,
            false if over() => Decision::Never,
            false => Decision::NotYet,
        }
    }
}

/// Numbers as the parser of Modbus gives them.
fn is_modbus(wanted: &Modbus, values: &impl Values) -> bool {
    let of = |name: &'static str| values.named(name, Direction::ToServer);
    let unit = wanted.unit.is_none_or(|test| of("modbus.unit").any(|found| test.matches(found)));
    unit && wanted.kind.as_ref().is_none_or(|kind| match kind {
        ModbusKind::Function { code, subfunction } => of("modbus.function")
            .any(|found| found >> 16 == u64::from(*code) && subfunction.is_none_or(|subfunction| found & 0xffff == u64::from(subfunction))),
        ModbusKind::Category { negated, category } => {
            let mask = match category {
                ModbusCategory::Assigned => 1,
                ModbusCategory::Unassigned => 2,
                ModbusCategory::Public => 3,
                ModbusCategory::User => 4,
                ModbusCategory::Reserved => 8,
                ModbusCategory::All => 15,
            };
            of("modbus.category").any(|found| (found & mask != 0) != *negated)
        }
        ModbusKind::Access { write, table, address, value } => of("modbus.access").any(|found| {
            let way = if *write { 2 } else { 1 };
            let of_table = match table {
                None => None,
                Some(ModbusTable::Discretes) => Some(1),
                Some(ModbusTable::Coils) => Some(2),
                Some(ModbusTable::Input) => Some(3),
                Some(ModbusTable::Holding) => Some(4),
            };
            let (first, quantity) = (found >> 16 & 0xffff, found >> 32 & 0xffff);
            let mut addresses = first..first + quantity.max(1);
            found & way != 0
                && of_table.is_none_or(|table| found >> 8 & 0xff == table)
                && address.is_none_or(|test| addresses.any(|address| test.matches(address)))
                && value.is_none_or(|test| {
                    of("modbus.written").any(|found| address.is_none_or(|test| test.matches(found >> 16)) && test.matches(found & 0xffff))
                })
        }),
    })
}

/// `found`: the identifier, a blank, major and minor version.
fn is_interface(wanted: &DceIface, found: &[u8]) -> bool {
    let Ok(found) = std::str::from_utf8(found) else { return false };
    let Some((uuid, version)) = found.split_once(' ') else { return false };
    let major = version.split('.').next().and_then(|major| major.parse::<u16>().ok());
    uuid == wanted.uuid
        && wanted.version.is_none_or(|(relation, version)| {
            major.is_some_and(|major| match relation {
                Relation::Equal => major == version,
                Relation::NotEqual => major != version,
                Relation::Less => major < version,
                Relation::Greater => major > version,
            })
        })
}

/// Conditions that ask something of one buffer: the size of a URI, and the old forms that look for a text without case.
pub(super) fn as_list(condition: &Condition) -> Option<BufferMatches> {
    let (buffer, matches) = match condition {
        Condition::Integer(IntegerTest { field, test, which: Which::Any, towards: None }) => {
            let buffer = match field {
                Field::Urilen => BufferId::HttpUri,
                Field::UrilenRaw => BufferId::HttpUriRaw,
                _ => return None,
            };
            (buffer, vec![Match::Bsize(*test)])
        }
        Condition::Text { field, negated, text } => {
            let (buffer, text, whole, nocase) = match field {
                TextField::FileName => (BufferId::FileName, text.clone(), false, true),
                TextField::FileExtension => (BufferId::FileName, format!(".{text}"), false, true),
                TextField::FileMagic => (BufferId::FileMagic, text.clone(), false, true),
                TextField::TlsSubject => (BufferId::TlsCertSubject, text.clone(), false, false),
                TextField::TlsIssuer => (BufferId::TlsCertIssuer, text.clone(), false, false),
                TextField::TlsFingerprint => (BufferId::TlsCertFingerprint, text.to_ascii_lowercase(), true, false),
                TextField::SshProtocol => (BufferId::SshProto, text.clone(), true, true),
                TextField::SshSoftware => (BufferId::SshSoftware, text.clone(), false, true),
            };
            let content = ContentMatch {
                bytes: text.into_bytes(),
                negated: *negated,
                nocase,
                starts_with: whole,
                ends_with: whole || *field == TextField::FileExtension,
                offset: None,
                depth: None,
                distance: None,
                within: None,
                fast_pattern: None,
                replace: None,
            };
            (buffer, vec![Match::Content(content)])
        }
        _ => return None,
    };
    Some(BufferMatches { buffer: BufferName::Named(buffer), towards: None, transforms: Vec::new(), matches })
}

/// What is asked of one file: all of it of the same.
#[derive(Debug, Default)]
pub(super) struct FileTest {
    sizes: Vec<NumberTest>,
    hashes: Vec<HashTest>,
    /// The rule wants it kept.
    pub keeps: bool,
}

#[derive(Debug)]
struct HashTest {
    algorithm: HashAlgorithm,
    negated: bool,
    list: String,
    /// Set when the rule is bound to its lists.
    known: Option<Arc<HashList>>,
}

impl FileTest {
    /// Takes what is about files out of a rule; `None`: nothing is.
    pub fn of(rule: &Rule) -> Option<(Self, Option<Towards>)> {
        let (mut test, mut towards, mut any) = (Self::default(), None, false);
        for condition in &rule.signature.conditions {
            match condition {
                Condition::Integer(IntegerTest { field: Field::Filesize, test: number, towards: to, .. }) => {
                    test.sizes.push(*number);
                    towards = towards.or(*to);
                    any = true;
                }
                Condition::FileHash { algorithm, negated, list } => {
                    test.hashes.push(HashTest { algorithm: *algorithm, negated: *negated, list: list.clone(), known: None });
                    any = true;
                }
                _ => {}
            }
        }
        let named = rule.signature.buffers.iter().any(|list| matches!(list.buffer, BufferName::Named(id) if !is_of_packet(id)));
        let keeps = rule.signature.effects.iter().any(|effect| matches!(effect, Effect::FileStore { .. }));
        test.keeps = keeps;
        // With a buffer of another kind the transaction's files are kept, whenever they come.
        (any || (keeps && !named && !rule.signature.conditions.iter().any(|condition| as_list(condition).is_some())))
            .then_some((test, towards))
    }

    pub fn is_one(condition: &Condition) -> bool {
        matches!(condition, Condition::FileHash { .. } | Condition::Integer(IntegerTest { field: Field::Filesize, .. }))
    }

    pub fn wants(&self) -> FileWants {
        let has = |algorithm| self.hashes.iter().any(|hash| hash.algorithm == algorithm);
        FileWants {
            follow: true,
            md5: has(HashAlgorithm::Md5),
            sha1: has(HashAlgorithm::Sha1),
            sha256: has(HashAlgorithm::Sha256),
            ..FileWants::default()
        }
    }

    /// Reads the lists that it names.
    pub fn bind(&mut self, sets: &mut Sets<'_>) -> Result<(), String> {
        for hash in &mut self.hashes {
            hash.known = Some(sets.hashes(&hash.list, hash.algorithm)?);
        }
        Ok(())
    }

    pub fn holds(&self, file: &File) -> bool {
        let size = |test: &NumberTest| match test {
            // Of one that broke off, the rest is not known.
            NumberTest::Greater(_) | NumberTest::GreaterOrEqual(_) => file.done && test.matches(file.size),
            _ => file.done && !file.truncated && test.matches(file.size),
        };
        let hash = |test: &HashTest| match (file.hash(test.algorithm), &test.known) {
            (Some(found), Some(known)) => known.contains(found) != test.negated,
            _ => false,
        };
        self.sizes.iter().all(size) && self.hashes.iter().all(hash)
    }
}
