//! BitTorrent's distributed table (BEP 5) over UDP: each message is a transaction of its own direction.

use crate::names::Dir;
use crate::notes::{Notes, hex};
use crate::protocol::Probe;
use crate::transaction::Transaction;

/// Lists and dictionaries within one another.
const DEPTH_MAX: usize = 16;
/// Entries of one dictionary or list.
const ENTRIES_MAX: usize = 256;
/// A node: who, where.
const NODE_BYTES: usize = 26;

/// A dictionary that begins with what only these messages have.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let starts: [&[u8]; 5] = [b"d1:ad2:id20:", b"d1:rd2:id20:", b"d2:ip6:", b"d1:eli", b"d1:el"];
    let good = starts.iter().any(|start| bytes.starts_with(start)) && bytes.ends_with(b"e");
    if good { Probe::Yes } else { Probe::No }
}

/// A value of bencoding.
#[derive(Debug)]
enum Value<'a> {
    Number(i64),
    Text(&'a [u8]),
    List(Vec<Self>),
    Dictionary(Vec<(&'a [u8], Self)>),
}

impl<'a> Value<'a> {
    /// Gives what follows it.
    fn read(bytes: &'a [u8], depth: usize) -> Option<(Self, &'a [u8])> {
        match bytes.first()? {
            b'i' => {
                let end = memchr::memchr(b'e', bytes)?;
                let number = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
                Some((Self::Number(number), &bytes[end + 1..]))
            }
            b'0'..=b'9' => text(bytes).map(|(text, rest)| (Self::Text(text), rest)),
            b'l' if depth > 0 => {
                let (mut all, mut rest) = (Vec::new(), &bytes[1..]);
                while rest.first()? != &b'e' {
                    let (value, behind) = Self::read(rest, depth - 1)?;
                    if all.len() >= ENTRIES_MAX {
                        return None;
                    }
                    all.push(value);
                    rest = behind;
                }
                Some((Self::List(all), &rest[1..]))
            }
            b'd' if depth > 0 => {
                let (mut all, mut rest) = (Vec::new(), &bytes[1..]);
                while rest.first()? != &b'e' {
                    let (key, behind) = text(rest)?;
                    let (value, behind) = Self::read(behind, depth - 1)?;
                    if all.len() >= ENTRIES_MAX {
                        return None;
                    }
                    all.push((key, value));
                    rest = behind;
                }
                Some((Self::Dictionary(all), &rest[1..]))
            }
            _ => None,
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Self> {
        match self {
            Self::Dictionary(entries) => entries.iter().find(|(of, _)| *of == key).map(|(_, value)| value),
            _ => None,
        }
    }

    const fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    const fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// `4:text`
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(8).position(|byte| *byte == b':')?;
    let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(len)
}

pub(crate) fn read(bytes: &[u8], dir: Dir, tx: &mut Transaction) {
    if message(bytes, &mut tx.notes).is_none() {
        tx.event("bittorrent-dht.malformed_packet", dir);
    }
}

fn message(bytes: &[u8], notes: &mut Notes) -> Option<()> {
    let (message, _) = Value::read(bytes, DEPTH_MAX)?;
    let of = |key: &[u8]| message.get(key);
    let transaction = of(b"t").and_then(Value::text);
    notes.hex("transaction_id", transaction.unwrap_or_default());
    if let Some(version) = of(b"v").and_then(Value::text) {
        notes.hex("client_version", version);
    }
    match of(b"y")?.text()? {
        b"q" => {
            notes.text("request_type", of(b"q")?.text()?);
            let arguments = of(b"a")?;
            let id = arguments.get(b"id")?.text()?;
            notes.object("request");
            notes.hex("id", id);
            for key in ["target", "info_hash", "token"] {
                if let Some(value) = arguments.get(key.as_bytes()).and_then(Value::text) {
                    notes.hex(key, value);
                }
            }
            for key in ["implied_port", "port"] {
                if let Some(number) = arguments.get(key.as_bytes()).and_then(Value::number) {
                    notes.signed(key, number);
                }
            }
            notes.end();
        }
        b"r" => {
            let answer = of(b"r")?;
            let id = answer.get(b"id")?.text()?;
            notes.object("response");
            notes.hex("id", id);
            if let Some(nodes) = answer.get(b"nodes").and_then(Value::text) {
                notes.list("nodes");
                for node in nodes.chunks_exact(NODE_BYTES) {
                    notes.object("");
                    notes.hex("id", &node[..20]);
                    place(&node[20..], notes);
                    notes.end();
                }
                notes.end();
            }
            if let Some(Value::List(values)) = answer.get(b"values") {
                notes.list("values");
                for value in values.iter().filter_map(Value::text) {
                    notes.object("");
                    place(value, notes);
                    notes.end();
                }
                notes.end();
            }
            if let Some(token) = answer.get(b"token").and_then(Value::text) {
                notes.text("token", hex(token));
            }
            notes.end();
        }
        b"e" => {
            let Some(Value::List(error)) = of(b"e") else { return None };
            let [Value::Number(number), Value::Text(text), ..] = error.as_slice() else { return None };
            notes.object("error");
            notes.signed("num", *number);
            notes.text("msg", text);
            notes.end();
        }
        _ => return None,
    }
    transaction.map(|_| ())
}

/// An address of IPv4 and a port.
fn place(bytes: &[u8], notes: &mut Notes) {
    if let [a, b, c, d, high, low] = bytes {
        notes.text("ip", format!("{a}.{b}.{c}.{d}"));
        notes.number("port", u16::from_be_bytes([*high, *low]));
    }
}
