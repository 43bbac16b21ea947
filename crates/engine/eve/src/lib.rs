//! EVE: what happened, in the words that consumers of Suricata's `eve.json` read; and captures replayed offline with Suricata's own
//! settings.
//!
//! [`record`] makes the object of a protocol (`http`, `dns`, `tls` …) of a transaction: one file and one row of a table a protocol.
//! [`line`] makes a whole line of an event. [`replay`] reads captures through the engine: settings ([`settings`], [`log`]) in, lines
//! out. Pure: whoever calls it opens files and writes lines.
#![forbid(unsafe_code)]

mod base64;
pub mod capture;
mod community;
pub mod line;
pub mod log;
mod packet;
pub mod record;
pub mod replay;
pub mod settings;
mod stats;
pub mod yaml;
