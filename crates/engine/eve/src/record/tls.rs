//! `tls`: a session's handshake.

use bulkhead_applayer::{Buffer, Dir, Field};
use bulkhead_ips::Record;
use bulkhead_model::Timestamp;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, put, text, tree};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsLog {
    /// `custom`: these fields and no others; none: all.
    pub custom: Vec<String>,
}

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let version = |dir| record.integer(Field::TlsVersion, dir);
    version(Dir::ToServer).or_else(|| version(Dir::ToClient))?;
    let mut tls = Object::new();
    put(&mut tls, "sni", record, Buffer::TlsSni, Dir::ToServer);
    if let Some(version) = version(Dir::ToClient).or_else(|| version(Dir::ToServer)) {
        tls.insert("version".to_owned(), json!(version_name(version)));
    }
    certificate(&mut tls, record, Dir::ToClient);
    let mut client = Object::new();
    certificate(&mut client, record, Dir::ToServer);
    if !client.is_empty() {
        tls.insert("client".to_owned(), Value::Object(client));
    }
    for (name, string, hash, dir) in
        [("ja3", Buffer::Ja3String, Buffer::Ja3Hash, Dir::ToServer), ("ja3s", Buffer::Ja3sString, Buffer::Ja3sHash, Dir::ToClient)]
    {
        let mut fingerprint = Object::new();
        put(&mut fingerprint, "hash", record, hash, dir);
        put(&mut fingerprint, "string", record, string, dir);
        if !fingerprint.is_empty() {
            tls.insert(name.to_owned(), Value::Object(fingerprint));
        }
    }
    put(&mut tls, "ja4", record, Buffer::Ja4Hash, Dir::ToServer);
    for (name, dir) in [("client_alpns", Dir::ToServer), ("server_alpns", Dir::ToClient)] {
        let protocols: Vec<String> = record.all(Buffer::TlsAlpn, dir).map(text).collect();
        if !protocols.is_empty() {
            tls.insert(name.to_owned(), json!(protocols));
        }
    }
    tls.extend(tree(&record.notes));
    for key in ["client_handshake", "server_handshake"] {
        if let Some(version) = tls.get_mut(key).and_then(|shake| shake.get_mut("version")) {
            *version = json!(version_name(version.as_u64().unwrap_or(0)));
        }
        // Only where they are asked for.
        if config.tls.custom.is_empty() {
            tls.remove(key);
        }
    }
    if !config.tls.custom.is_empty() {
        let name = |field: &str| match field {
            "issuer" => "issuerdn".to_owned(),
            "not_before" => "notbefore".to_owned(),
            "not_after" => "notafter".to_owned(),
            other => other.to_owned(),
        };
        let wanted: Vec<String> = config.tls.custom.iter().map(|field| name(field)).collect();
        tls.retain(|field, _| wanted.contains(field));
    } else if !config.extended {
        tls.retain(|field, _| matches!(field.as_str(), "subject" | "issuerdn" | "session_resumed"));
    }
    Some(Entry::of("tls", tls))
}

fn certificate(object: &mut Object, record: &Record, dir: Dir) {
    put(object, "subject", record, Buffer::TlsCertSubject, dir);
    put(object, "issuerdn", record, Buffer::TlsCertIssuer, dir);
    put(object, "serial", record, Buffer::TlsCertSerial, dir);
    put(object, "fingerprint", record, Buffer::TlsCertFingerprint, dir);
    let names: Vec<String> = record.all(Buffer::TlsSubjectaltname, dir).map(text).collect();
    if !names.is_empty() {
        object.insert("subjectaltname".to_owned(), json!(names));
    }
    for (name, field) in [("notbefore", Field::TlsNotBefore), ("notafter", Field::TlsNotAfter)] {
        if let Some(time) = record.integer(field, dir) {
            object.insert(name.to_owned(), json!(date(time.cast_signed())));
        }
    }
}

/// `2008-03-27T00:57:44`, before 1970 too.
fn date(seconds: i64) -> String {
    const DAY: i64 = 24 * 60 * 60;
    // The calendar repeats after 400 years: what lies before 1970 is read there.
    const CYCLE: i64 = 146_097 * DAY;
    let cycles = if seconds < 0 { (-seconds).div_euclid(CYCLE) + 1 } else { 0 };
    let shifted = seconds.saturating_add(cycles.saturating_mul(CYCLE));
    let written = Timestamp::from_secs(shifted.cast_unsigned().min(250_000_000_000)).to_string();
    let (year, rest) = written.split_once('-').unwrap_or((written.as_str(), ""));
    let year: i64 = year.parse().unwrap_or(0);
    format!("{:04}-{}", year - 400 * cycles, rest.split('.').next().unwrap_or_default())
}

/// As the reference engine names versions.
fn version_name(version: u64) -> String {
    match version {
        0x0002 | 0x0200 => "SSLv2".to_owned(),
        0x0300 => "SSLv3".to_owned(),
        0x0301 => "TLSv1".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0304 => "TLS 1.3".to_owned(),
        0x7f00..=0x7fff => format!("TLS 1.3 draft-{}", version & 0xff),
        0xfb00..=0xfbff => "TLS 1.3 draft-fb".to_owned(),
        _ => "UNDETERMINED".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_certificate_before_1970_too() {
        assert_eq!(date(0), "1970-01-01T00:00:00");
        assert_eq!(date(-86_400), "1969-12-31T00:00:00");
        assert_eq!(date(1_206_579_464), "2008-03-27T00:57:44");
        assert_eq!(version_name(0x7f17), "TLS 1.3 draft-23");
    }
}
