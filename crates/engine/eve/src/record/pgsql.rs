//! `pgsql`: a request and what was answered.

use bulkhead_ips::Record;
use serde_json::Value;

use super::{Entry, LogConfig, tree};

pub(super) fn record(record: &Record, config: &LogConfig) -> Option<Entry> {
    let mut pgsql = tree(&record.notes);
    if !config.pgsql_passwords
        && let Some(request) = pgsql.get_mut("request").and_then(Value::as_object_mut)
    {
        request.remove("password");
    }
    (!pgsql.is_empty()).then(|| Entry::of("pgsql", pgsql))
}
