//! `ssh`: the banners and key exchanges of both ends.

use bulkhead_applayer::{Buffer, Dir};
use bulkhead_ips::Record;
use serde_json::Value;

use super::{Entry, LogConfig, Object, put};

pub(super) fn record(record: &Record, _: &LogConfig) -> Option<Entry> {
    let mut ssh = Object::new();
    for (name, dir, hash, string) in [
        ("client", Dir::ToServer, Buffer::SshHassh, Buffer::SshHasshString),
        ("server", Dir::ToClient, Buffer::SshHasshServer, Buffer::SshHasshServerString),
    ] {
        let mut end = Object::new();
        put(&mut end, "proto_version", record, Buffer::SshProto, dir);
        put(&mut end, "software_version", record, Buffer::SshSoftware, dir);
        let mut hassh = Object::new();
        put(&mut hassh, "hash", record, hash, dir);
        put(&mut hassh, "string", record, string, dir);
        if !hassh.is_empty() {
            end.insert("hassh".to_owned(), Value::Object(hassh));
        }
        if !end.is_empty() {
            ssh.insert(name.to_owned(), Value::Object(end));
        }
    }
    (!ssh.is_empty()).then(|| Entry::of("ssh", ssh))
}
