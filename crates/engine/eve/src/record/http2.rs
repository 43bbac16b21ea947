//! HTTP/2: a stream, or what the connection itself says, as `http` with `http2` within; with DNS in it as `dns`, too.

use bulkhead_applayer::{Buffer, Dir, Field};
use bulkhead_ips::Record;
use serde_json::{Value, json};

use super::{Entry, LogConfig, Object, dns, put, text, tree};

/// Identifiers of RFC 9113, section 6.5.2, as EVE writes them.
const SETTINGS: &[&str] = &[
    "SETTINGSHEADERTABLESIZE",
    "SETTINGSENABLEPUSH",
    "SETTINGSMAXCONCURRENTSTREAMS",
    "SETTINGSINITIALWINDOWSIZE",
    "SETTINGSMAXFRAMESIZE",
    "SETTINGSMAXHEADERLISTSIZE",
    "",
    "SETTINGSENABLECONNECTPROTOCOL",
    "SETTINGSNORFC7540PRIORITIES",
];

/// RFC 9113, section 7.
const ERRORS: &[&str] = &[
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

/// `None`: frames that say nothing, as pings and windows. Of DNS the answer is shown, once it is there.
pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let mut notes = tree(&record.notes);
    let [request, response] = ["dns_request", "dns_response"].map(|name| match notes.remove(name) {
        Some(Value::Object(dns)) => Some(dns),
        _ => None,
    });
    let http = http(record, notes)?;
    let dns = response.or(request).and_then(|noted| dns::object(noted, record.id, config));
    Some(match dns {
        Some(dns) => Entry { event_type: "dns", objects: vec![("dns", dns), ("http", http)] },
        None => Entry::of("http", http),
    })
}

fn http(record: &Record, notes: Object) -> Option<Object> {
    let mut http = Object::new();
    http.insert("version".to_owned(), json!("2"));
    let mut says = false;
    for name in ["request_headers", "response_headers"] {
        if let Some(fields) = notes.get(name) {
            http.insert(name.to_owned(), fields.clone());
            says = true;
        }
    }
    put(&mut http, "http_method", record, Buffer::HttpMethod, Dir::ToServer);
    put(&mut http, "url", record, Buffer::HttpUriRaw, Dir::ToServer);
    put(&mut http, "http_user_agent", record, Buffer::HttpUserAgent, Dir::ToServer);
    put(&mut http, "http_refer", record, Buffer::HttpReferer, Dir::ToServer);
    let length = [Dir::ToClient, Dir::ToServer].into_iter().find_map(|dir| record.get(Buffer::HttpContentLen, dir));
    if let Some(length) = length.and_then(|length| text(length).parse::<u64>().ok()) {
        http.insert("length".to_owned(), json!(length));
    }
    if let Some(status) = record.integer(Field::HttpStatus, Dir::ToClient) {
        http.insert("status".to_owned(), json!(status));
    }
    let mut http2 = Object::new();
    let stream = [Dir::ToServer, Dir::ToClient].into_iter().find_map(|dir| record.integer(Field::Http2StreamId, dir));
    http2.insert("stream_id".to_owned(), json!(stream.unwrap_or(0)));
    for (name, dir) in [("request", Dir::ToServer), ("response", Dir::ToClient)] {
        let side = side(record, dir);
        says |= !side.is_empty();
        http2.insert(name.to_owned(), Value::Object(side));
    }
    http.insert("http2".to_owned(), Value::Object(http2));
    says.then_some(http)
}

fn side(record: &Record, dir: Dir) -> Object {
    let mut side = Object::new();
    let settings: Vec<Value> =
        record.integers.iter().filter(|(field, at, _)| (*field, *at) == (Field::Http2Settings, dir)).map(setting).collect();
    if !settings.is_empty() {
        side.insert("settings".to_owned(), Value::Array(settings));
    }
    if let Some(error) = record.integer(Field::Http2Errorcode, dir) {
        let name = usize::try_from(error).ok().and_then(|at| ERRORS.get(at));
        side.insert("error_code".to_owned(), name.map_or_else(|| json!(error.to_string()), |name| json!(name)));
    }
    if let Some(priority) = record.integer(Field::Http2Priority, dir) {
        side.insert("priority".to_owned(), json!(priority));
    }
    side
}

fn setting((_, _, number): &(Field, Dir, u64)) -> Value {
    let (id, value) = (number >> 32, number & 0xffff_ffff);
    let name = usize::try_from(id).ok().and_then(|id| SETTINGS.get(id.checked_sub(1)?)).filter(|name| !name.is_empty());
    json!({ "settings_id": name.map_or_else(|| json!(format!("SETTINGSUNKNOWN({id})")), |name| json!(name)), "settings_value": value })
}
