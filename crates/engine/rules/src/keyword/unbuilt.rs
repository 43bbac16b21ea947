//! Names of the language that are known and not built: buffers and keywords of application layers, transforms, state across
//! flows, events. A rule that uses one is `unsupported`. Building one moves its name into a family's file.
//!
//! Source: `suricata --list-keywords` as documented in the user guide, with the legacy names (`http_uri`, `dns_query`).

use std::sync::LazyLock;

use super::{Keyword, Value};

pub(super) fn keywords() -> impl Iterator<Item = &'static Keyword> {
    KEYWORDS.iter()
}

static KEYWORDS: LazyLock<Vec<Keyword>> =
    LazyLock::new(|| NAMES.iter().map(|name| Keyword { name, value: Value::Optional, once: false, read: None }).collect());

const NAMES: &[&str] = &["arp", "http.server_body", "l3_proto", "tenant"];
