//! Descriptions of sessions (SDP, RFC 8866) in SIP's bodies: `LETTER=VALUE` lines, each in a buffer and in the record.

use crate::names::{Buffer, Dir};
use crate::transaction::Transaction;

use super::split_line;

/// Lines of one description that are read.
const LINES_MAX: usize = 1024;

/// Letter as the record's key, buffer before the first medium, buffer of a medium.
const LINES: &[(&str, Option<Buffer>, Option<Buffer>)] = &[
    ("o", Some(Buffer::SdpOrigin), None),
    ("s", Some(Buffer::SdpSessionName), None),
    ("i", Some(Buffer::SdpSessionInfo), Some(Buffer::SdpMediaSessionInfo)),
    ("u", Some(Buffer::SdpUri), None),
    ("e", Some(Buffer::SdpEmail), None),
    ("p", Some(Buffer::SdpPhoneNumber), None),
    ("c", Some(Buffer::SdpConnectionData), Some(Buffer::SdpMediaConnectionData)),
    ("b", Some(Buffer::SdpBandwidth), Some(Buffer::SdpBandwidth)),
    ("t", Some(Buffer::SdpTime), None),
    ("r", Some(Buffer::SdpRepeatTime), None),
    ("z", Some(Buffer::SdpTimezone), None),
    ("k", Some(Buffer::SdpEncryptionKey), Some(Buffer::SdpMediaEncryptionKey)),
    ("a", Some(Buffer::SdpAttribute), Some(Buffer::SdpAttribute)),
    ("m", Some(Buffer::SdpMediaMedia), Some(Buffer::SdpMediaMedia)),
];

/// Keys that the record has as lists.
const LISTS: &[&str] = &["a", "b"];

pub(super) fn read(mut body: &[u8], dir: Dir, tx: &mut Transaction) {
    if !body.starts_with(b"v=") {
        return;
    }
    tx.notes.object("sdp");
    let mut in_medium = false;
    for _ in 0..LINES_MAX {
        let (line, rest) = split_line(body);
        body = rest;
        let &[letter, b'=', ref value @ ..] = line else {
            if body.is_empty() {
                break;
            }
            continue;
        };
        if letter == b'v' {
            tx.notes.number("v", value.first().map_or(0, |digit| digit.wrapping_sub(b'0')));
            continue;
        }
        let Some((key, session, medium)) = LINES.iter().find(|(key, ..)| key.as_bytes() == [letter]) else { continue };
        if let Some(buffer) = if in_medium { medium } else { session } {
            tx.value(*buffer, dir, value);
        }
        if letter == b'm' {
            if in_medium {
                tx.notes.end();
            } else {
                tx.notes.list("m");
            }
            in_medium = true;
            tx.notes.object("");
        }
        if LISTS.contains(key) {
            tx.notes.list(key);
            tx.notes.text("", value);
            tx.notes.end();
        } else {
            tx.notes.text(key, value);
        }
    }
    if in_medium {
        tx.notes.end();
        tx.notes.end();
    }
    tx.notes.end();
}
