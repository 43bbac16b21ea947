//! `http`: an exchange of HTTP/1.

use bulkhead_applayer::{Buffer, Dir, Field};
use bulkhead_ips::Record;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, put, text};

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let mut http = Object::new();
    basics(&mut http, record);
    if config.extended {
        extended(&mut http, record);
    }
    if let Some(range) = content_range(record) {
        http.insert("content_range".to_owned(), Value::Object(range));
    }
    for (dir, name) in [(Dir::ToServer, "request_headers"), (Dir::ToClient, "response_headers")] {
        let all = config.http.headers[dir as usize];
        let named = |field: &[u8]| config.http.custom.iter().any(|name| field.eq_ignore_ascii_case(name.as_bytes()));
        let shown = headers(record, dir, |name| all || named(name));
        if all || !shown.is_empty() {
            http.insert(name.to_owned(), Value::Array(shown));
        }
    }
    Some(Entry::of("http", http))
}

fn basics(http: &mut Object, record: &Record) {
    put(http, "hostname", record, Buffer::HttpHost, Dir::ToServer);
    if let Some(port) = record.integer(Field::HttpPort, Dir::ToServer) {
        http.insert("http_port".to_owned(), json!(port));
    }
    put(http, "url", record, Buffer::HttpUriRaw, Dir::ToServer);
    put(http, "http_user_agent", record, Buffer::HttpUserAgent, Dir::ToServer);
    if let Some(kind) = record.get(Buffer::HttpContentType, Dir::ToClient) {
        let end = kind.iter().position(|byte| *byte == b';').unwrap_or(kind.len());
        http.insert("http_content_type".to_owned(), Value::String(text(&kind[..end])));
    }
}

fn extended(http: &mut Object, record: &Record) {
    put(http, "http_refer", record, Buffer::HttpReferer, Dir::ToServer);
    put(http, "http_method", record, Buffer::HttpMethod, Dir::ToServer);
    put(http, "protocol", record, Buffer::HttpProtocol, Dir::ToServer);
    if record.integer(Field::HttpStatus, Dir::ToClient).is_none() {
        put(http, "status_string", record, Buffer::HttpStatCode, Dir::ToClient);
    }
    if let Some(status) = record.integer(Field::HttpStatus, Dir::ToClient) {
        http.insert("status".to_owned(), json!(status));
        if (300..400).contains(&status) {
            put(http, "redirect", record, Buffer::HttpLocation, Dir::ToClient);
        }
    }
    http.insert("length".to_owned(), json!(record.integer(Field::HttpResponseLength, Dir::ToClient).unwrap_or(0)));
}

/// `Content-Range` of an answer: as it came, and its numbers.
pub(crate) fn content_range(record: &Record) -> Option<Object> {
    let raw = header(record, Dir::ToClient, "content-range")?;
    let (range, size) = raw.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let mut object = Object::new();
    for (name, number) in [("start", start), ("end", end), ("size", size)] {
        if let Ok(number) = number.trim().parse::<u64>() {
            object.insert(name.to_owned(), json!(number));
        }
    }
    object.insert("raw".to_owned(), json!(raw));
    Some(object)
}

/// `Name: value` of each field.
fn fields(record: &Record, dir: Dir) -> impl Iterator<Item = (&[u8], &[u8])> {
    let buffer = match dir {
        Dir::ToServer => Buffer::HttpRequestHeader,
        Dir::ToClient => Buffer::HttpResponseHeader,
    };
    record.all(buffer, dir).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

pub(crate) fn header(record: &Record, dir: Dir, wanted: &str) -> Option<String> {
    fields(record, dir).find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).map(|(_, value)| text(value))
}

fn headers(record: &Record, dir: Dir, wanted: impl Fn(&[u8]) -> bool) -> Vec<Value> {
    let wanted = fields(record, dir).filter(|(name, _)| wanted(name));
    wanted.map(|(name, value)| json!({ "name": text(name), "value": text(value) })).collect()
}
