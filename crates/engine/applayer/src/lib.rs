//! Application layers: the bytes of a conversation in, transactions with named values and events out.
//!
//! A [`Session`] stands beside a flow. It is given the bytes of each direction in order, as stream reassembly delivers them (or
//! datagram by datagram), recognises the protocol by what it says on whatever port (`detect`), and lets that protocol's parser
//! read on. A parser fills [`Transaction`]s: each a bag of values, named as the rule language names its sticky buffers, with
//! numbers, events and a stage for each direction. A [`Sink`] hears of them before the call returns, while the bytes can still be
//! stopped. A [`Context`] is shared by the sessions of one worker: configuration, counters, and the memory that finished
//! transactions leave behind, so that in the steady state nothing is allocated.
//!
//! # What detection reads
//!
//! | question | answer |
//! |---|---|
//! | which buffer does a rule's sticky buffer mean | [`Buffer::from_name`] with the canonical name, `http.uri`; `None`: no parser fills it |
//! | what is new | [`Transaction::news`] in [`Sink::update`]; per value [`Transaction::window`], whose `fresh` says which bytes are new |
//! | the n-th value of a buffer in a direction | `tx.all(buffer, dir).nth(n)`, then [`Transaction::window`] |
//! | can another value of the buffer still come | no, once `tx.progress(dir) >= buffer.stage()` ([`Transaction::is_settled`]) |
//! | numbers (`dns.opcode`, `http.status`) | [`Field::from_name`], [`Transaction::integers`] |
//! | which transaction | [`Transaction::id`]: counted by session from 0; [`Transaction::user`] is the consumer's own, to find what it remembers |
//! | app-layer events | [`Transaction::new_events`]; those of no transaction come through [`Sink::event`] |
//! | what the log says beside the values | [`Transaction::notes`]: a tree of keys |
//! | files | each is a streaming value of `file.data`, with a value of `file.name` where it has a name, [`Field::FileSize`] at its end |
//! | another connection belongs to it (FTP) | [`Sink::expect`], then [`Session::expected`] |
//! | when is it over | [`Sink::complete`], told once for each transaction, also when the session ends before its end |
//! | why is nothing read any more | [`Sink::finished`], told once a session; [`Finished`] says whether bytes pass uninspected |
//!
//! Values never change or go while their transaction lives, with two exceptions: a streaming value's window moves on, and an interim
//! response (`100 Continue`) takes its values with it. A body is inspected as it comes: [`Sink::update`] is called as often as a
//! window is full, and all of a call's bytes have been told of before the call returns.
//!
//! A protocol is one file (or folder) with a `protocol::Parser`, and one row in `protocol::TABLE`.
#![forbid(unsafe_code)]

// Tests within play scripts as those beside do.
#[cfg(test)]
extern crate self as bulkhead_applayer;

mod ber;
mod bittorrent;
mod context;
mod cursor;
mod datagram;
mod dcerpc;
mod detect;
mod dhcp;
mod dnp3;
mod dns;
mod enip;
mod files;
mod ftp;
pub mod fuzz;
mod http;
mod http2;
mod ike;
mod krb5;
mod ldap;
mod lines;
mod modbus;
mod mqtt;
mod mysql;
mod names;
mod nfs;
mod notes;
mod ntp;
mod pgsql;
mod pop3;
mod protocol;
mod quic;
mod rdp;
mod reader;
mod recent;
mod redis;
mod rfb;
mod session;
mod sink;
mod sip;
mod smb;
mod smtp;
mod snmp;
mod ssh;
mod telnet;
mod tftp;
mod tls;
mod transaction;
mod websocket;

pub use context::{Config, Context, Stats};
pub use names::{Buffer, BufferSet, Dir, Field, Protocol, Side, Stage};
pub use notes::{Note, Notes};
pub use session::{Session, Transport};
pub use sink::{Expectation, Finished, Sink};
pub use transaction::{Transaction, Value, Window};
