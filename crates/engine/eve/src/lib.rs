//! EVE: what happened, in the words that consumers of Suricata's `eve.json` read.
//!
//! [`record`] makes the object of a protocol (`http`, `dns`, `tls` …) of a transaction: one file and one row of a table a protocol.
#![forbid(unsafe_code)]

pub mod record;
