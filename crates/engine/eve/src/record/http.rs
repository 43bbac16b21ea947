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
    for name in &config.http.custom {
        if let Some(value) = header(record, Dir::ToServer, name).or_else(|| header(record, Dir::ToClient, name)) {
            http.insert(name.replace('-', "_"), Value::String(value));
        }
    }
    for (dir, name) in [(Dir::ToServer, "request_headers"), (Dir::ToClient, "response_headers")] {
        if config.http.headers[dir as usize] {
            http.insert(name.to_owned(), all_headers(record, dir));
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
    if let Some(status) = record.integer(Field::HttpStatus, Dir::ToClient) {
        http.insert("status".to_owned(), json!(status));
        if (300..400).contains(&status) {
            put(http, "redirect", record, Buffer::HttpLocation, Dir::ToClient);
        }
    }
    http.insert("length".to_owned(), json!(record.integer(Field::HttpResponseLength, Dir::ToClient).unwrap_or(0)));
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

fn header(record: &Record, dir: Dir, wanted: &str) -> Option<String> {
    fields(record, dir).find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).map(|(_, value)| text(value))
}

fn all_headers(record: &Record, dir: Dir) -> Value {
    fields(record, dir).map(|(name, value)| json!({ "name": text(name), "value": text(value) })).collect()
}
