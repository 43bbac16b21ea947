//! Keywords of single protocols that are more than a buffer or a number.

use super::args::{integer, number_test};
use super::{Args, Keyword, Value, keyword};
use crate::condition::{
    Asn1, CertDate, ChecksumLayer, Condition, DateRelation, DceIface, Effect, FtpDataCommand, IpOption, Krb5Encryption, Modbus,
    ModbusCategory, ModbusKind, ModbusTable, SslState, TlsVersion,
};
use crate::diagnostic::{Code, Problem};
use crate::tree::{Body, NumberTest, Relation};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("ssl_version", Value::Required, false, ssl_version),
    keyword("ssl_state", Value::Required, false, ssl_state),
    keyword("tls.version", Value::Required, false, tls_version),
    keyword("tls_cert_notbefore", Value::Required, false, |args| cert_date(args, CertDate::NotBefore)),
    keyword("tls_cert_notafter", Value::Required, false, |args| cert_date(args, CertDate::NotAfter)),
    keyword("tls_cert_expired", Value::None, false, |_| Ok(Body::Condition(Box::new(Condition::TlsCertExpired)))),
    keyword("tls_cert_valid", Value::None, false, |_| Ok(Body::Condition(Box::new(Condition::TlsCertValid)))),
    keyword("tls.store", Value::None, false, |_| Ok(Body::Effect(Box::new(Effect::TlsStore)))),
    keyword("dcerpc.iface", Value::Required, false, dce_iface),
    keyword("dce_iface", Value::Required, false, dce_iface),
    keyword("dcerpc.opnum", Value::Required, false, dce_opnum),
    keyword("dce_opnum", Value::Required, false, dce_opnum),
    keyword("dnp3_ind", Value::Required, false, dnp3_ind),
    keyword("dnp3_obj", Value::Required, false, dnp3_obj),
    keyword("modbus", Value::Required, false, modbus),
    keyword("cip_service", Value::Required, false, cip_service),
    keyword("http2.settings", Value::Required, false, http2_settings),
    keyword("krb5.ticket_encryption", Value::Required, false, krb5_encryption),
    keyword("ftpbounce", Value::None, false, |_| Ok(Body::Condition(Box::new(Condition::FtpBounce)))),
    keyword("ftpdata_command", Value::Required, false, |args| match args.value {
        "stor" => Ok(Body::Condition(Box::new(Condition::FtpDataCommand(FtpDataCommand::Store)))),
        "retr" => Ok(Body::Condition(Box::new(Condition::FtpDataCommand(FtpDataCommand::Retrieve)))),
        _ => Err(args.bad().help("write stor or retr")),
    }),
    keyword("ftp.mode", Value::Required, false, |args| match args.value {
        "active" => Ok(Body::Condition(Box::new(Condition::FtpMode { active: true }))),
        "passive" => Ok(Body::Condition(Box::new(Condition::FtpMode { active: false }))),
        _ => Err(args.bad().help("write active or passive")),
    }),
    keyword("ftp.reply_received", Value::Required, false, |args| Ok(Body::Condition(Box::new(Condition::FtpReplyReceived(yes(args)?))))),
    keyword("mqtt.connack.session_present", Value::Required, false, |args| {
        Ok(Body::Condition(Box::new(Condition::MqttSessionPresent(yes(args)?))))
    }),
    keyword("mqtt.connack.sessionpresent", Value::Required, false, |args| {
        Ok(Body::Condition(Box::new(Condition::MqttSessionPresent(yes(args)?))))
    }),
    keyword("rpc", Value::Required, false, rpc),
    keyword("asn1", Value::Required, false, asn1),
    keyword("ipopts", Value::Required, false, ip_option),
    keyword("ipv4-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::Ipv4)),
    keyword("tcpv4-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::TcpV4)),
    keyword("tcpv6-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::TcpV6)),
    keyword("udpv4-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::UdpV4)),
    keyword("udpv6-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::UdpV6)),
    keyword("icmpv4-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::Icmpv4)),
    keyword("icmpv6-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::Icmpv6)),
    keyword("igmp-csum", Value::Required, false, |args| checksum(args, ChecksumLayer::Igmp)),
    keyword("lua", Value::Required, false, lua),
    keyword("luajit", Value::Required, false, lua),
];

fn lua(_: &Args<'_>) -> Result<Body, Problem> {
    Err(Problem::new(Code::LuaUnsupported, "scripts in Lua are not run"))
}

fn yes(args: &Args<'_>) -> Result<bool, Problem> {
    match args.value {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err(args.bad().help("write yes or no")),
    }
}

fn negated(text: &str) -> (bool, &str) {
    match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    }
}

fn ssl_version(args: &Args<'_>) -> Result<Body, Problem> {
    let version = |member: &str| -> Result<(bool, TlsVersion), Problem> {
        let (negated, name) = negated(member);
        let version = match name.to_ascii_lowercase().as_str() {
            "sslv2" => TlsVersion::Ssl2,
            "sslv3" => TlsVersion::Ssl3,
            "tls1.0" => TlsVersion::Tls10,
            "tls1.1" => TlsVersion::Tls11,
            "tls1.2" => TlsVersion::Tls12,
            "tls1.3" => TlsVersion::Tls13,
            _ => return Err(args.bad().help("the versions are sslv2, sslv3, tls1.0, tls1.1, tls1.2 and tls1.3")),
        };
        Ok((negated, version))
    };
    Ok(Body::Condition(Box::new(Condition::SslVersion(args.list().map(version).collect::<Result<_, _>>()?))))
}

fn ssl_state(args: &Args<'_>) -> Result<Body, Problem> {
    let state = |member: &str| -> Result<(bool, SslState), Problem> {
        let (negated, name) = negated(member.trim());
        let state = match name {
            "client_hello" => SslState::ClientHello,
            "server_hello" => SslState::ServerHello,
            "client_keyx" => SslState::ClientKeyx,
            "server_keyx" => SslState::ServerKeyx,
            "unknown" => SslState::Unknown,
            _ => return Err(args.bad().help("the states are client_hello, server_hello, client_keyx, server_keyx and unknown")),
        };
        Ok((negated, state))
    };
    Ok(Body::Condition(Box::new(Condition::SslState(args.value.split(['|', ',']).map(state).collect::<Result<_, _>>()?))))
}

fn tls_version(args: &Args<'_>) -> Result<Body, Problem> {
    let version = match args.unquoted()?.trim() {
        "1.0" => TlsVersion::Tls10,
        "1.1" => TlsVersion::Tls11,
        "1.2" => TlsVersion::Tls12,
        "1.3" => TlsVersion::Tls13,
        text if text.starts_with("0x") => {
            TlsVersion::Number(integer(text).and_then(|number| u16::try_from(number).ok()).ok_or_else(|| args.bad())?)
        }
        _ => return Err(args.bad().help("the versions are 1.0, 1.1, 1.2 and 1.3")),
    };
    Ok(Body::Condition(Box::new(Condition::TlsVersion(version))))
}

/// `<2016`, `>2015-10-22T12:00`, `2015<>2016-05`, seconds since 1970.
fn cert_date(args: &Args<'_>, which: CertDate) -> Result<Body, Problem> {
    let bad = || args.bad().help("write a date such as 2025-10-22 12:00:00, with < or > before it or <> between two");
    let text = args.unquoted()?.trim();
    let (relation, first, last) = if let Some((first, last)) = text.split_once("<>") {
        (DateRelation::Between, date(first).ok_or_else(bad)?, date(last).ok_or_else(bad)?)
    } else if let Some(rest) = text.strip_prefix('<') {
        (DateRelation::Before, date(rest).ok_or_else(bad)?, 0)
    } else if let Some(rest) = text.strip_prefix('>') {
        (DateRelation::After, date(rest).ok_or_else(bad)?, 0)
    } else {
        (DateRelation::Equal, date(text).ok_or_else(bad)?, 0)
    };
    if relation == DateRelation::Between && last <= first {
        return Err(bad());
    }
    Ok(Body::Condition(Box::new(Condition::TlsCertDate { which, relation, first, last })))
}

/// Seconds since 1970 of `2025`, `2025-10`, `2025-10-22`, `2025-10-22T12:30:00`, or those seconds themselves.
fn date(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() > 4 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let mut numbers = [0i64, 1, 1, 0, 0, 0];
    let (days, times) = numbers.split_at_mut(3);
    fill(days, day, '-')?;
    if !time.is_empty() {
        fill(times, time, ':')?;
    }
    let [year, month, day, hour, minute, second] = numbers;
    let good =
        (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !good {
        return None;
    }
    // Days from civil, by Howard Hinnant's algorithm.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((era * 146_097 + of_era - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn fill(numbers: &mut [i64], text: &str, separator: char) -> Option<()> {
    let mut places = numbers.iter_mut();
    for part in text.split(separator) {
        let digits = !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        *places.next()? = part.parse().ok().filter(|_| digits)?;
    }
    Some(())
}

/// `367abb81-9844-35f1-ad32-98f038001003,>1,any_frag`
fn dce_iface(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write dcerpc.iface:UUID, =VERSION, any_frag;");
    let mut members = args.list();
    let uuid = members.next().unwrap_or("").to_ascii_lowercase();
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || !uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(bad());
    }
    let (mut version, mut any_frag) = (None, false);
    for member in members {
        if member == "any_frag" {
            any_frag = true;
            continue;
        }
        let relation = match member.as_bytes().first() {
            Some(b'<') => Relation::Less,
            Some(b'>') => Relation::Greater,
            Some(b'=') => Relation::Equal,
            Some(b'!') => Relation::NotEqual,
            _ => return Err(bad()),
        };
        let number = integer(member[1..].trim()).and_then(|number| u16::try_from(number).ok()).ok_or_else(bad)?;
        if version.replace((relation, number)).is_some() {
            return Err(bad());
        }
    }
    Ok(Body::Condition(Box::new(Condition::DceIface(DceIface { uuid, version, any_frag }))))
}

/// `1,3-5,9`, or a test such as `>3`.
fn dce_opnum(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write dcerpc.opnum:1,3-5;");
    let number = |text: &str| integer(text.trim()).and_then(|number| u16::try_from(number).ok()).ok_or_else(bad);
    if args.value.starts_with(['<', '>', '=', '!']) {
        let ranges = match args.number_test(16)? {
            NumberTest::Equal(at) => vec![(at, at)],
            NumberTest::NotEqual(0) => vec![(1, 0xffff)],
            NumberTest::NotEqual(0xffff) => vec![(0, 0xfffe)],
            NumberTest::NotEqual(at) => vec![(0, at - 1), (at + 1, 0xffff)],
            NumberTest::Less(at) => vec![(0, at - 1)],
            NumberTest::LessOrEqual(at) => vec![(0, at)],
            NumberTest::Greater(at) => vec![(at + 1, 0xffff)],
            NumberTest::GreaterOrEqual(at) => vec![(at, 0xffff)],
            NumberTest::NotBetween(low, high) => vec![(0, low), (high, 0xffff)],
            NumberTest::Between(..) | NumberTest::Masked { .. } | NumberTest::NotMasked { .. } => return Err(bad()),
        };
        return Ok(Body::Condition(Box::new(Condition::DceOpnum(
            ranges.into_iter().map(|(low, high)| (low as u16, high as u16)).collect(),
        ))));
    }
    let mut ranges = Vec::new();
    for member in args.list() {
        let (first, last) = match member.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(member)?, number(member)?),
        };
        if last < first {
            return Err(bad());
        }
        ranges.push((first, last));
    }
    Ok(Body::Condition(Box::new(Condition::DceOpnum(ranges))))
}

/// IIN1 in the high byte (IEEE 1815).
const DNP3_INDICATIONS: &[(&str, u16)] = &[
    ("all_stations", 0x0100),
    ("class_1_events", 0x0200),
    ("class_2_events", 0x0400),
    ("class_3_events", 0x0800),
    ("need_time", 0x1000),
    ("local_control", 0x2000),
    ("device_trouble", 0x4000),
    ("device_restart", 0x8000),
    ("no_func_code_support", 0x0001),
    ("object_unknown", 0x0002),
    ("parameter_error", 0x0004),
    ("event_buffer_overflow", 0x0008),
    ("already_executing", 0x0010),
    ("config_corrupt", 0x0020),
    ("reserved_2", 0x0040),
    ("reserved_1", 0x0080),
];

fn dnp3_ind(args: &Args<'_>) -> Result<Body, Problem> {
    let mut mask = 0;
    for word in args.value.split(['|', ',']).map(str::trim) {
        let lower = word.to_ascii_lowercase();
        let known = DNP3_INDICATIONS.iter().find(|(name, _)| *name == lower).map(|(_, bit)| *bit);
        mask |= known.or_else(|| integer(word).and_then(|bits| u16::try_from(bits).ok())).ok_or_else(|| args.bad())?;
    }
    Ok(Body::Condition(Box::new(Condition::Dnp3Indications(mask))))
}

fn dnp3_obj(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write dnp3_obj:GROUP,VARIATION;");
    let (group, variation) = args.value.split_once(',').ok_or_else(bad)?;
    let number = |text: &str| integer(text.trim()).and_then(|number| u8::try_from(number).ok()).ok_or_else(bad);
    Ok(Body::Condition(Box::new(Condition::Dnp3Object { group: number(group)?, variation: number(variation)? })))
}

/// `unit >9, access read coils, address 0<>2`, `function 8, subfunction 4`, `function !assigned`.
fn modbus(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write modbus:function N; or modbus:access read coils, address N;");
    let (mut unit, mut kind) = (None, None);
    for member in args.list() {
        let words: Vec<&str> = member.split_whitespace().collect();
        let (key, rest) = words.split_first().ok_or_else(bad)?;
        match (*key, rest) {
            ("unit", [_, ..]) if unit.is_none() => unit = Some(number_test(&rest.concat(), 16).ok_or_else(bad)?),
            ("function", [word]) if kind.is_none() => {
                kind = Some(match integer(word).and_then(|code| u8::try_from(code).ok()) {
                    Some(code) => ModbusKind::Function { code, subfunction: None },
                    None => {
                        let (negated, word) = negated(word);
                        let category = match word {
                            "assigned" => ModbusCategory::Assigned,
                            "unassigned" => ModbusCategory::Unassigned,
                            "public" => ModbusCategory::Public,
                            "user" => ModbusCategory::User,
                            "reserved" => ModbusCategory::Reserved,
                            "all" => ModbusCategory::All,
                            _ => return Err(bad()),
                        };
                        ModbusKind::Category { negated, category }
                    }
                });
            }
            ("subfunction", [word]) => match &mut kind {
                Some(ModbusKind::Function { subfunction: subfunction @ None, .. }) => {
                    *subfunction = Some(integer(word).and_then(|code| u16::try_from(code).ok()).ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            },
            ("access", [way @ ("read" | "write"), table @ ..]) if kind.is_none() => {
                let table = match table {
                    [] => None,
                    ["coils"] => Some(ModbusTable::Coils),
                    ["discretes"] if *way == "read" => Some(ModbusTable::Discretes),
                    ["input"] if *way == "read" => Some(ModbusTable::Input),
                    ["holding"] => Some(ModbusTable::Holding),
                    _ => return Err(bad()),
                };
                kind = Some(ModbusKind::Access { write: *way == "write", table, address: None, value: None });
            }
            ("address", [_, ..]) => match &mut kind {
                Some(ModbusKind::Access { address: address @ None, .. }) => {
                    *address = Some(number_test(&rest.concat(), 16).ok_or_else(bad)?)
                }
                _ => return Err(bad()),
            },
            ("value", [_, ..]) => match &mut kind {
                Some(ModbusKind::Access { write: true, value: value @ None, .. }) => {
                    *value = Some(number_test(&rest.concat(), 16).ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            },
            _ => return Err(bad()),
        }
    }
    Ok(Body::Condition(Box::new(Condition::Modbus(Modbus { unit, kind }))))
}

fn cip_service(args: &Args<'_>) -> Result<Body, Problem> {
    let members: Vec<&str> = args.list().collect();
    let number = |text: &&str| integer(text).and_then(|number| u16::try_from(number).ok()).ok_or_else(|| args.bad());
    let (service, class, attribute) = match members.as_slice() {
        [service] => (number(service)?, None, None),
        [service, class] => (number(service)?, Some(number(class)?), None),
        [service, class, attribute] => (number(service)?, Some(number(class)?), Some(number(attribute)?)),
        _ => return Err(args.bad()),
    };
    let service = u8::try_from(service).ok().filter(|service| *service < 0x80).ok_or_else(|| args.bad())?;
    Ok(Body::Condition(Box::new(Condition::CipService { service, class, attribute })))
}

/// RFC 9113, 6.5.2.
const HTTP2_SETTINGS: &[(&str, u16)] = &[
    ("SETTINGS_HEADER_TABLE_SIZE", 1),
    ("SETTINGS_ENABLE_PUSH", 2),
    ("SETTINGS_MAX_CONCURRENT_STREAMS", 3),
    ("SETTINGS_INITIAL_WINDOW_SIZE", 4),
    ("SETTINGS_MAX_FRAME_SIZE", 5),
    ("SETTINGS_MAX_HEADER_LIST_SIZE", 6),
];

fn http2_settings(args: &Args<'_>) -> Result<Body, Problem> {
    let end = args.value.bytes().position(|byte| !byte.is_ascii_uppercase() && byte != b'_' && byte != b'2').unwrap_or(args.value.len());
    let (name, test) = args.value.split_at(end);
    let (_, id) = HTTP2_SETTINGS.iter().find(|(known, _)| *known == name).ok_or_else(|| args.bad())?;
    let test = number_test(test, 32).ok_or_else(|| args.bad())?;
    Ok(Body::Condition(Box::new(Condition::Http2Setting { id: *id, test })))
}

/// IANA, Kerberos encryption types.
const KRB5_TYPES: &[(&str, i32)] = &[
    ("des-cbc-crc", 1),
    ("des-cbc-md4", 2),
    ("des-cbc-md5", 3),
    ("des3-cbc-md5", 5),
    ("des3-cbc-sha1", 7),
    ("dsawithsha1-cmsoid", 9),
    ("md5withrsaencryption-cmsoid", 10),
    ("sha1withrsaencryption-cmsoid", 11),
    ("rc2cbc-envoid", 12),
    ("rsaencryption-envoid", 13),
    ("rsaes-oaep-env-oid", 14),
    ("des-ede3-cbc-env-oid", 15),
    ("des3-cbc-sha1-kd", 16),
    ("aes128-cts-hmac-sha1-96", 17),
    ("aes256-cts-hmac-sha1-96", 18),
    ("aes128-cts-hmac-sha256-128", 19),
    ("aes256-cts-hmac-sha384-192", 20),
    ("rc4-hmac", 23),
    ("rc4-hmac-exp", 24),
    ("camellia128-cts-cmac", 25),
    ("camellia256-cts-cmac", 26),
];

fn krb5_encryption(args: &Args<'_>) -> Result<Body, Problem> {
    let encryption = match args.value {
        "weak" => Krb5Encryption::Weak,
        "strong" => Krb5Encryption::Strong,
        _ => {
            let number = |word: &str| -> Result<i32, Problem> {
                let lower = word.to_ascii_lowercase();
                match KRB5_TYPES.iter().find(|(name, _)| *name == lower) {
                    Some((_, number)) => Ok(*number),
                    None => word.parse().map_err(|_| args.bad().help("write weak, strong, or names or numbers of encryption types")),
                }
            };
            Krb5Encryption::Types(args.list().map(number).collect::<Result<_, _>>()?)
        }
    };
    Ok(Body::Condition(Box::new(Condition::Krb5TicketEncryption(encryption))))
}

fn rpc(args: &Args<'_>) -> Result<Body, Problem> {
    let number = |text: &str| integer(text).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| args.bad());
    let maybe = |text: &str| if text == "*" { Ok(None) } else { number(text).map(Some) };
    let members: Vec<&str> = args.list().collect();
    let (program, version, procedure) = match members.as_slice() {
        [program] => (number(program)?, None, None),
        [program, version] => (number(program)?, maybe(version)?, None),
        [program, version, procedure] => (number(program)?, maybe(version)?, maybe(procedure)?),
        _ => return Err(args.bad().help("write rpc:PROGRAM,VERSION,PROCEDURE;")),
    };
    Ok(Body::Condition(Box::new(Condition::Rpc { program, version, procedure })))
}

fn asn1(args: &Args<'_>) -> Result<Body, Problem> {
    let mut found = Asn1::default();
    let mut words = args.value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let mut number = || words.next().unwrap_or("").parse::<i64>().map_err(|_| args.bad());
        match word {
            "bitstring_overflow" => found.bitstring_overflow = true,
            "double_overflow" => found.double_overflow = true,
            "oversize_length" => found.oversize_length = Some(u32::try_from(number()?).map_err(|_| args.bad())?),
            "absolute_offset" => found.absolute_offset = Some(u16::try_from(number()?).map_err(|_| args.bad())?),
            "relative_offset" => found.relative_offset = Some(i32::try_from(number()?).map_err(|_| args.bad())?),
            _ => return Err(args.bad()),
        }
    }
    Ok(Body::Condition(Box::new(Condition::Asn1(found))))
}

/// Names of IPv4 options.
pub(crate) const IP_OPTIONS: &[(&str, IpOption)] = &[
    ("rr", IpOption::RecordRoute),
    ("lsrr", IpOption::LooseSourceRoute),
    ("eol", IpOption::EndOfList),
    ("nop", IpOption::NoOperation),
    ("ts", IpOption::Timestamp),
    ("sec", IpOption::Security),
    ("ssrr", IpOption::StrictSourceRoute),
    ("satid", IpOption::StreamId),
    ("esec", IpOption::ExtendedSecurity),
    ("rtralt", IpOption::RouterAlert),
    ("any", IpOption::Any),
];

fn ip_option(args: &Args<'_>) -> Result<Body, Problem> {
    let (_, option) = IP_OPTIONS.iter().find(|(name, _)| *name == args.value).ok_or_else(|| args.bad())?;
    Ok(Body::Condition(Box::new(Condition::IpOption(*option))))
}

fn checksum(args: &Args<'_>, layer: ChecksumLayer) -> Result<Body, Problem> {
    match args.unquoted()? {
        "valid" => Ok(Body::Condition(Box::new(Condition::Checksum { layer, valid: true }))),
        "invalid" => Ok(Body::Condition(Box::new(Condition::Checksum { layer, valid: false }))),
        _ => Err(args.bad().help("write valid or invalid")),
    }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_seconds_since_1970() {
        assert_eq!(date("1970"), Some(0));
        assert_eq!(date("2015-10-22T23:59:59"), Some(1_445_558_399));
        assert_eq!(date("2024-02-29 12"), Some(1_709_208_000));
        assert_eq!(date("1465556148"), Some(1_465_556_148));
        assert_eq!(date("2024-13"), None);
        assert_eq!(date("2024-1-1-1"), None);
        assert_eq!(date(""), None);
    }
}
