//! Records of application layers: a transaction as the object that EVE has for its protocol.
//!
//! One row of [`TABLE`] a protocol: its function reads the transaction's values, numbers and notes, and answers with the event's type
//! and the objects beside it. Field names are those of Suricata's user guide, "EVE JSON Format". What no sticky buffer has, parsers
//! leave as notes, already in the log's words ([`bulkhead_applayer::Notes`], here [`tree`]).

mod dns;
mod ftp;
mod http;
mod http2;
mod mqtt;
mod noted;
mod pgsql;
mod smtp;
mod ssh;
mod tls;

pub(crate) use http::{content_range, header};

use bulkhead_applayer::{Buffer, Dir, Note, Notes, Protocol};
use bulkhead_ips::Record;
use serde_json::{Map, Value, json};

pub use dns::DnsLog;
pub use mqtt::MqttLog;
pub use smtp::SmtpLog;
pub use tls::TlsLog;

/// Objects and lists within one another; what is deeper is left out.
const DEPTH_MAX: usize = 32;

/// Fields of one object of a record.
pub type Object = Map<String, Value>;

/// What a log is to contain; the names are those of Suricata's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `http.extended`, `tls.extended` … all of them.
    pub extended: bool,
    pub http: HttpLog,
    pub mqtt: MqttLog,
    /// `pgsql.passwords`: those of clients are logged.
    pub pgsql_passwords: bool,
    pub dns: DnsLog,
    pub smtp: SmtpLog,
    pub tls: TlsLog,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpLog {
    /// Further header fields, in lower case (`custom`).
    pub custom: Vec<String>,
    /// `dump-all-headers`: of requests, of responses.
    pub headers: [bool; 2],
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            extended: true,
            http: HttpLog::default(),
            mqtt: MqttLog::default(),
            dns: DnsLog::default(),
            smtp: SmtpLog::default(),
            tls: TlsLog::default(),
            pgsql_passwords: false,
        }
    }
}

/// One record: `event_type`, and the objects of the protocol by their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub event_type: &'static str,
    pub objects: Vec<(&'static str, Object)>,
}

impl Entry {
    /// Most have one object, named as the type.
    pub fn of(name: &'static str, object: Object) -> Self {
        Self { event_type: name, objects: vec![(name, object)] }
    }
}

/// Makes a record of one protocol. `None`: nothing is logged of this transaction.
type Make = fn(&Record, &LogConfig) -> Option<Entry>;

/// One row a protocol.
static TABLE: &[(Protocol, Make)] = &[
    (Protocol::Http, http::record),
    (Protocol::Http2, http2::record),
    (Protocol::Dns, dns::record),
    (Protocol::Tls, tls::record),
    (Protocol::Ssh, ssh::record),
    (Protocol::Smtp, smtp::record),
    (Protocol::Ftp, ftp::record),
    (Protocol::FtpData, ftp::data),
    (Protocol::Doh2, http2::record),
    (Protocol::Dhcp, noted::dhcp),
    (Protocol::Mqtt, mqtt::record),
    (Protocol::Dcerpc, |record, _| noted::plain(record, "dcerpc")),
    (Protocol::Ntp, |record, _| noted::plain(record, "ntp")),
    (Protocol::Pgsql, pgsql::record),
    (Protocol::Quic, |record, _| noted::plain(record, "quic")),
    (Protocol::Redis, |record, _| noted::plain(record, "redis")),
    (Protocol::Mysql, |record, _| noted::plain(record, "mysql")),
    (Protocol::Sip, |record, _| noted::plain(record, "sip")),
    (Protocol::Krb5, |record, _| noted::plain(record, "krb5")),
    (Protocol::Ldap, |record, _| noted::plain(record, "ldap")),
    (Protocol::Nfs, noted::nfs),
    (Protocol::Dnp3, |record, _| noted::plain(record, "dnp3")),
    (Protocol::Modbus, |record, _| noted::plain(record, "modbus")),
    (Protocol::Pop3, |record, _| noted::plain(record, "pop3")),
    (Protocol::Rdp, |record, _| noted::plain(record, "rdp")),
    (Protocol::Rfb, |record, _| noted::plain(record, "rfb")),
    (Protocol::Llmnr, |record, _| noted::names(record, "llmnr")),
    (Protocol::Mdns, |record, _| noted::names(record, "mdns")),
    (Protocol::Ike, |record, _| noted::plain(record, "ike")),
    (Protocol::BittorrentDht, |record, _| noted::plain(record, "bittorrent_dht")),
    (Protocol::Enip, |record, _| noted::plain(record, "enip")),
    (Protocol::Smb, |record, _| noted::plain(record, "smb")),
    (Protocol::Snmp, |record, _| noted::plain(record, "snmp")),
    (Protocol::Tftp, |record, _| noted::plain(record, "tftp")),
    (Protocol::Websocket, |record, _| noted::plain(record, "websocket")),
];

/// The record of a transaction. `None`: its protocol has none, or nothing is logged of it.
pub fn entry(protocol: Protocol, record: &Record, config: &LogConfig) -> Option<Entry> {
    let (_, make) = TABLE.iter().find(|(of, _)| *of == protocol)?;
    make(record, config)
}

// === What the rows are made of ===

/// Bytes as EVE shows them: text as it is, of what is not UTF-8 each byte beyond ASCII as `\xhh`.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len() + 16);
            for &byte in bytes {
                if byte.is_ascii() {
                    text.push(char::from(byte));
                } else {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            }
            text
        }
    }
}

/// Notes as the object that they describe. An object or list that was written before goes on where it ended.
pub fn tree(notes: &Notes) -> Object {
    let mut root = Value::Object(Object::new());
    // The way to what is open: keys of objects, places in lists.
    let mut open: Vec<Step> = Vec::new();
    // Objects and lists that are open and too deep to be shown.
    let mut buried = 0_usize;
    for note in notes.iter() {
        let (key, what) = match note {
            Note::Number(key, number) => (key, json!(number)),
            Note::Real(key, number) => (key, json!(number)),
            Note::Signed(key, number) => (key, json!(number)),
            Note::Truth(key, truth) => (key, json!(truth)),
            Note::Text(key, bytes) => (key, Value::String(text(bytes))),
            Note::Pair(key, bytes) => {
                if let Some(Value::Object(fields)) = open.iter().try_fold(&mut root, |value, step| step.down(value)).filter(|_| buried == 0)
                {
                    fields.insert(text(key), Value::String(text(bytes)));
                }
                continue;
            }
            Note::Object(key) => (key, Value::Object(Object::new())),
            Note::List(key) => (key, Value::Array(Vec::new())),
            Note::End => {
                match buried.checked_sub(1) {
                    Some(less) => buried = less,
                    None => _ = open.pop(),
                }
                continue;
            }
        };
        let opens = matches!(note, Note::Object(_) | Note::List(_));
        if buried > 0 || opens && open.len() >= DEPTH_MAX {
            buried += usize::from(opens);
            continue;
        }
        let Some(into) = open.iter().try_fold(&mut root, |value, step| step.down(value)) else { return Object::new() };
        let step = match into {
            Value::Array(items) => {
                items.push(what);
                Step::At(items.len() - 1)
            }
            Value::Object(fields) => {
                match fields.get(key) {
                    Some(Value::Object(_) | Value::Array(_)) if opens => {}
                    _ => _ = fields.insert(key.to_owned(), what),
                }
                Step::Key(key)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => continue,
        };
        if opens {
            open.push(step);
        }
    }
    match root {
        Value::Object(fields) => fields,
        _ => Object::new(),
    }
}

#[derive(Clone, Copy)]
enum Step {
    Key(&'static str),
    At(usize),
}

impl Step {
    fn down<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Key(key) => value.get_mut(*key),
            Self::At(at) => value.get_mut(*at),
        }
    }
}

/// Puts the value of a buffer under a name, where there is one.
fn put(object: &mut Object, name: &str, record: &Record, buffer: Buffer, dir: Dir) {
    if let Some(bytes) = record.get(buffer, dir) {
        object.insert(name.to_owned(), Value::String(text(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(text("grün".as_bytes()), "grün");
        assert_eq!(text(b"a\xffb\x00"), "a\\xffb\u{0}");
    }
}
