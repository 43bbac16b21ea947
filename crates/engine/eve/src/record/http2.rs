//! `http` of HTTP/2: a stream, or a frame of the connection.

use bulkhead_applayer::{Buffer, Dir, Field};
use bulkhead_ips::Record;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, put, text};

/// Identifiers of settings (RFC 9113, section 6.5.2; RFC 8441).
const SETTINGS: [&str; 8] = [
    "SETTINGSHEADERTABLESIZE",
    "SETTINGSENABLEPUSH",
    "SETTINGSMAXCONCURRENTSTREAMS",
    "SETTINGSINITIALWINDOWSIZE",
    "SETTINGSMAXFRAMESIZE",
    "SETTINGSMAXHEADERLISTSIZE",
    "SETTINGSENABLECONNECTPROTOCOL",
    "SETTINGSNORFC7540PRIORITIES",
];

/// Codes of errors (RFC 9113, section 7).
const ERRORS: [&str; 14] = [
    "NOERROR",
    "PROTOCOLERROR",
    "INTERNALERROR",
    "FLOWCONTROLERROR",
    "SETTINGSTIMEOUT",
    "STREAMCLOSED",
    "FRAMESIZEERROR",
    "REFUSEDSTREAM",
    "CANCEL",
    "COMPRESSIONERROR",
    "CONNECTERROR",
    "ENHANCEYOURCALM",
    "INADEQUATESECURITY",
    "HTTP11REQUIRED",
];

pub(super) fn record(record: &Record, _: &LogConfig) -> Option<Entry> {
    let mut http = Object::new();
    http.insert("version".to_owned(), json!("2"));
    for (dir, name) in [(Dir::ToServer, "request_headers"), (Dir::ToClient, "response_headers")] {
        let headers: Vec<Value> = fields(record, dir).map(|(name, value)| json!({ "name": text(&name), "value": text(&value) })).collect();
        let updates = record.integers.iter().filter(|(field, of, _)| *field == Field::Http2SizeUpdate && *of == dir);
        let headers: Vec<Value> = updates.map(|(_, _, size)| json!({ "table_size_update": size })).chain(headers).collect();
        if !headers.is_empty() {
            http.insert(name.to_owned(), json!(headers));
        }
    }
    put(&mut http, "http_method", record, Buffer::HttpMethod, Dir::ToServer);
    put(&mut http, "url", record, Buffer::HttpUriRaw, Dir::ToServer);
    put(&mut http, "hostname", record, Buffer::HttpHost, Dir::ToServer);
    put(&mut http, "http_user_agent", record, Buffer::HttpUserAgent, Dir::ToServer);
    put(&mut http, "http_content_type", record, Buffer::HttpContentType, Dir::ToClient);
    if let Some(status) = record.integer(Field::HttpStatus, Dir::ToClient) {
        http.insert("status".to_owned(), json!(status));
    }
    if let Some(length) = record.integer(Field::HttpResponseLength, Dir::ToClient) {
        http.insert("length".to_owned(), json!(length));
    }
    let of = |field| [Dir::ToServer, Dir::ToClient].into_iter().find_map(|dir| record.integer(field, dir));
    let mut http2 = Object::new();
    http2.insert("stream_id".to_owned(), json!(of(Field::Http2StreamId).unwrap_or(0)));
    for (dir, name) in [(Dir::ToServer, "request"), (Dir::ToClient, "response")] {
        http2.insert(name.to_owned(), Value::Object(frames(record, dir)));
    }
    http.insert("http2".to_owned(), Value::Object(http2));
    Some(Entry::of("http", http))
}

/// Of one direction: settings, errors, priority.
fn frames(record: &Record, dir: Dir) -> Object {
    let mut frames = Object::new();
    let settings: Vec<Value> = record
        .integers
        .iter()
        .filter(|(field, of, _)| *field == Field::Http2Settings && *of == dir)
        .map(|(_, _, setting)| {
            let id = setting >> 32;
            let name = usize::try_from(id).ok().and_then(|id| SETTINGS.get(id.wrapping_sub(1)));
            json!({ "settings_id": name.map_or_else(|| format!("SETTINGSUNKNOWN({id})"), |name| (*name).to_owned()), "settings_value": setting & 0xffff_ffff })
        })
        .collect();
    if !settings.is_empty() {
        frames.insert("settings".to_owned(), json!(settings));
    }
    if let Some(code) = record.integer(Field::Http2Errorcode, dir) {
        let name = usize::try_from(code).ok().and_then(|code| ERRORS.get(code));
        frames.insert("error_code".to_owned(), name.map_or_else(|| json!(code.to_string()), |name| json!(name)));
    }
    if let Some(weight) = record.integer(Field::Http2Priority, dir) {
        frames.insert("priority".to_owned(), json!(weight));
    }
    frames
}

/// Name and value of each field; colons within them are doubled in the buffer.
fn fields(record: &Record, dir: Dir) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    record.all(Buffer::Http2Header, dir).filter_map(|line| {
        let mut at = 0;
        loop {
            match line.get(at..)? {
                [b':', b':', ..] => at += 2,
                [b':', b' ', ..] => break Some((single(&line[..at]), single(&line[at + 2..]))),
                [_, ..] => at += 1,
                [] => break None,
            }
        }
    })
}

fn single(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        out.push(*byte);
        rest = if *byte == b':' { after.strip_prefix(b":").unwrap_or(after) } else { after };
    }
    out
}
