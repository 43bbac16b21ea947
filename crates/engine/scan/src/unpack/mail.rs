//! Mails and folders of them: MIME parts (RFC 2045, 2046) without their encodings.

use super::{Entry, Next, Visitor, text, u32_le};
use crate::budget::Gap;

/// Parts in parts.
const DEPTH_MAX: usize = 16;
/// Parts of one mail.
const PARTS_MAX: usize = 10_000;

pub(super) fn unpack(bytes: &[u8], visitor: &mut dyn Visitor) {
    let mut left = PARTS_MAX;
    // A folder has a line `From ` before each mail (RFC 4155).
    let mut starts: Vec<usize> = memchr::memmem::find_iter(bytes, b"\nFrom ").map(|at| at + 1).collect();
    starts.insert(0, 0);
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(bytes.len());
        let mut mail = &bytes[*start..end];
        if mail.starts_with(b"From ") {
            mail = &mail[memchr::memchr(b'\n', mail).map_or(mail.len(), |at| at + 1)..];
        }
        if part(mail, 0, &mut left, visitor) == Next::Stop {
            return;
        }
    }
}

/// Attachments of Outlook's own form ([MS-OXTNEF] 2.1.3): level, name, length, data and a checksum for each attribute.
pub(super) fn tnef(bytes: &[u8], visitor: &mut dyn Visitor) {
    const ATTACH_DATA: u32 = 0x0006_800f;
    const ATTACH_TITLE: u32 = 0x0001_8010;
    let mut at = 6;
    let mut name: &[u8] = b"attachment";
    while let (Some(attribute), Some(len)) = (u32_le(bytes, at + 1), u32_le(bytes, at + 5)) {
        let Some(data) = bytes.get(at + 9..).and_then(|rest| rest.get(..len as usize)) else {
            return visitor.gap(Gap::Malformed("an attribute beyond the end"));
        };
        if attribute == ATTACH_TITLE {
            name = data.strip_suffix(b"\0").unwrap_or(data);
        } else if attribute == ATTACH_DATA
            && visitor.entry(&Entry { packed: Some(u64::from(len)), ..Entry::named(name) }, &mut &*data) == Next::Stop
        {
            return;
        }
        at += 9 + len as usize + 2;
    }
}

fn part(bytes: &[u8], depth: usize, left: &mut usize, visitor: &mut dyn Visitor) -> Next {
    if depth > DEPTH_MAX || *left == 0 {
        visitor.gap(if depth > DEPTH_MAX { Gap::Depth } else { Gap::Entries });
        return Next::Continue;
    }
    *left -= 1;
    let (head, body) = split(bytes);
    let field = |name: &str| field(head, name);
    let content_type = field("content-type").unwrap_or_default();
    let lower = content_type.to_ascii_lowercase();
    if lower.trim_start().starts_with("multipart/")
        && let Some(boundary) = parameter(&content_type, "boundary")
    {
        return multipart(body, &boundary, depth, left, visitor);
    }
    let encoding = field("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let data = match encoding.as_str() {
        "base64" => text::base64(body),
        "quoted-printable" => quoted_printable(body),
        _ => body.to_vec(),
    };
    if lower.trim_start().starts_with("message/rfc822") {
        return part(&data, depth + 1, left, visitor);
    }
    let name = field("content-disposition").and_then(|value| parameter(&value, "filename")).or_else(|| parameter(&content_type, "name"));
    let entry = Entry { packed: Some(body.len() as u64), ..Entry::named(name.unwrap_or_else(|| "part".to_owned())) };
    visitor.entry(&entry, &mut data.as_slice())
}

fn multipart(body: &[u8], boundary: &str, depth: usize, left: &mut usize, visitor: &mut dyn Visitor) -> Next {
    let line = format!("--{boundary}");
    let mut begun: Option<usize> = None;
    for at in memchr::memmem::find_iter(body, line.as_bytes()).filter(|at| *at == 0 || body[at - 1] == b'\n').chain([body.len()]) {
        if let Some(start) = begun.take()
            && part(&body[start..at], depth + 1, left, visitor) == Next::Stop
        {
            return Next::Stop;
        }
        let rest = body.get(at + line.len()..).unwrap_or_default();
        // Two more hyphens close the list.
        if !rest.starts_with(b"--") {
            begun = memchr::memchr(b'\n', rest).map(|end| at + line.len() + end + 1);
        }
    }
    Next::Continue
}

/// Header and body, with the empty line between them.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if line.trim_ascii().is_empty() {
            return (&bytes[..at], &bytes[at..]);
        }
    }
    (bytes, b"")
}

/// A field's value, unfolded.
fn field(head: &[u8], name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in head.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if let Some(value) = value.as_mut() {
            if !line.starts_with([' ', '\t']) {
                break;
            }
            value.push_str(line.trim_end());
        } else if let Some((field, rest)) = line.split_once(':')
            && field.eq_ignore_ascii_case(name)
        {
            value = Some(rest.trim().to_owned());
        }
    }
    value
}

/// `name=value` or `name="value"` behind a semicolon.
fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// RFC 2045, 6.7.
fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'=', [b'\r', b'\n', ..]) => rest = &after[2..],
            (b'=', [b'\n', ..]) => rest = &after[1..],
            (b'=', [high, low, ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = &after[2..];
                }
                _ => out.push(b'='),
            },
            _ => out.push(*byte),
        }
    }
    out
}
