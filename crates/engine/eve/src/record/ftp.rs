//! `ftp`: a command and its replies; `ftp_data`: a file on its own connection.

use bulkhead_applayer::{Buffer, Dir, Field};
use bulkhead_ips::Record;
use serde_json::json;

use super::{Entry, LogConfig, Object, put, text};

pub(super) fn record(record: &Record, _: &LogConfig) -> Option<Entry> {
    let mut ftp = Object::new();
    let truncated = |event: &str| record.events.iter().any(|(name, _)| *name == event);
    if let Some(command) = record.get(Buffer::FtpCommand, Dir::ToServer) {
        ftp.insert("command".to_owned(), json!(text(command)));
        if let Some(data) = record.get(Buffer::FtpCommandData, Dir::ToServer).filter(|data| !data.is_empty()) {
            ftp.insert("command_data".to_owned(), json!(text(data)));
        }
        ftp.insert("command_truncated".to_owned(), json!(truncated("ftp.request_command_too_long")));
        let active = command.eq_ignore_ascii_case(b"PORT") || command.eq_ignore_ascii_case(b"EPRT");
        let dynamic = |dir| record.integer(Field::FtpDynamicPort, dir);
        if let Some(port) = dynamic(Dir::ToServer).or_else(|| dynamic(Dir::ToClient)) {
            ftp.insert("dynamic_port".to_owned(), json!(port));
            ftp.insert("mode".to_owned(), json!(if active { "active" } else { "passive" }));
        }
    }
    let codes: Vec<String> = record.all(Buffer::FtpCompletionCode, Dir::ToClient).map(text).collect();
    let replies: Vec<String> = record.all(Buffer::FtpReply, Dir::ToClient).map(text).collect();
    ftp.insert("reply_received".to_owned(), json!(if replies.is_empty() { "no" } else { "yes" }));
    if !codes.is_empty() {
        ftp.insert("completion_code".to_owned(), json!(codes));
    }
    if !replies.is_empty() {
        ftp.insert("reply".to_owned(), json!(replies));
    }
    ftp.insert("reply_truncated".to_owned(), json!(truncated("ftp.response_command_too_long")));
    Some(Entry::of("ftp", ftp))
}

pub(super) fn data(record: &Record, _: &LogConfig) -> Option<Entry> {
    let mut data = Object::new();
    put(&mut data, "command", record, Buffer::FtpCommand, Dir::ToServer);
    for dir in [Dir::ToServer, Dir::ToClient] {
        put(&mut data, "filename", record, Buffer::FileName, dir);
    }
    Some(Entry::of("ftp_data", data))
}
