//! Buffers and transforms: sticky names, the old modifiers, frames, pkt_data. The names stand in [`crate::buffer`].

use std::sync::LazyLock;

use super::args::{integer, unit_number};
use super::{Args, Keyword, Read, Value, keyword};
use crate::buffer::{self, BufferId};
use crate::condition::Towards;
use crate::diagnostic::{Code, Problem};
use crate::protocol::App;
use crate::signature::Buffer;
use crate::transform::{Base64Mode, FromBase64, Inflate, Subslice, Transform, Xor, XorKey};
use crate::tree::{Body, Modifier, Select};

/// Bytes that `gunzip` and `zlib_deflate` give at most: by default, and at all.
const INFLATE_BYTES: u32 = 1024;
const INFLATE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) fn keywords() -> impl Iterator<Item = &'static Keyword> {
    KEYWORDS.iter().chain(TRANSFORMS)
}

static KEYWORDS: LazyLock<Vec<Keyword>> = LazyLock::new(|| {
    let fixed: [(&'static str, Value, Read); 4] = [
        ("pkt_data", Value::None, |_| Ok(Body::Select(Select { buffer: Buffer::Payload, towards: None, protocol: None, old_name: false }))),
        ("frame", Value::Required, frame),
        // The body of a response is the file it carries.
        ("http.response_body", Value::None, |_| {
            Ok(Body::Select(Select {
                buffer: Buffer::Named(BufferId::FileData),
                towards: Some(Towards::ToClient),
                protocol: Some(App::Http),
                old_name: false,
            }))
        }),
        ("http_server_body", Value::None, |_| Ok(Body::Modifier(Modifier::MoveTo(BufferId::FileData)))),
    ];
    let mut table: Vec<Keyword> =
        fixed.into_iter().map(|(name, value, read)| Keyword { name, value, once: false, read: Some(read) }).collect();
    for buffer in BufferId::ALL.iter().map(|id| id.info()) {
        let names = std::iter::once(&buffer.name).chain(buffer.aliases);
        table.extend(names.map(|name| Keyword { name, value: Value::Optional, once: false, read: Some(sticky) }));
        table.extend(buffer.modifier.map(|name| Keyword { name, value: Value::None, once: false, read: Some(modifier) }));
    }
    table
});

/// The buffer that a sticky name or a modifier stands for.
fn of(name: &str) -> Option<BufferId> {
    static NAMES: LazyLock<Vec<(&'static str, BufferId)>> = LazyLock::new(|| {
        let mut names: Vec<_> = BufferId::ALL
            .iter()
            .flat_map(|id| {
                let buffer = id.info();
                std::iter::once(buffer.name).chain(buffer.aliases.iter().copied()).chain(buffer.modifier).map(move |name| (name, *id))
            })
            .collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        names
    });
    NAMES.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|index| NAMES[index].1)
}

fn sticky(args: &Args<'_>) -> Result<Body, Problem> {
    let id = of(args.keyword).ok_or_else(|| args.bad())?;
    let buffer = id.info();
    let towards = match args.value {
        "" => None,
        "to_server" if buffer.to_server && buffer.to_client => Some(Towards::ToServer),
        "to_client" if buffer.to_server && buffer.to_client => Some(Towards::ToClient),
        _ if buffer.to_server && buffer.to_client => return Err(args.bad().help("to_server or to_client, or nothing")),
        _ => return Err(Problem::new(Code::ValueUnexpected, format!("`{}` takes no value", args.keyword))),
    };
    Ok(Body::Select(Select { buffer: Buffer::Named(id), towards, protocol: None, old_name: args.keyword != buffer.name }))
}

fn modifier(args: &Args<'_>) -> Result<Body, Problem> {
    let buffer = of(args.keyword).ok_or_else(|| args.bad())?;
    Ok(Body::Modifier(Modifier::MoveTo(buffer)))
}

/// `smb2.data`, or `http1.request` with the protocol before it.
fn frame(args: &Args<'_>) -> Result<Body, Problem> {
    let text = args.unquoted()?;
    let full = |(protocol, frame): &&(App, &'static str)| {
        text.strip_prefix(protocol.name()).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == *frame)
    };
    let found = buffer::frames().iter().find(full).map(|(protocol, frame)| (Some(*protocol), *frame));
    let found = found.or_else(|| buffer::frames().iter().find(|(_, frame)| *frame == text).map(|(_, frame)| (None, *frame)));
    let (protocol, name) = found.ok_or_else(|| args.bad().help("this is no frame of a protocol"))?;
    Ok(Body::Select(Select { buffer: Buffer::Frame { protocol, name }, towards: None, protocol: None, old_name: false }))
}

const fn plain(name: &'static str, read: Read) -> Keyword {
    keyword(name, Value::None, false, read)
}

const TRANSFORMS: &[Keyword] = &[
    plain("compress_whitespace", |_| Ok(Body::Transform(Transform::CompressWhitespace))),
    plain("domain", |_| Ok(Body::Transform(Transform::Domain))),
    plain("dotprefix", |_| Ok(Body::Transform(Transform::Dotprefix))),
    keyword("from_base64", Value::Optional, false, from_base64),
    keyword("gunzip", Value::Optional, false, |args| Ok(Body::Transform(Transform::Gunzip(inflate(args)?)))),
    plain("header_lowercase", |_| Ok(Body::Transform(Transform::HeaderLowercase))),
    keyword("luaxform", Value::Optional, false, |_| Err(Problem::new(Code::LuaUnsupported, "scripts in Lua are not run"))),
    keyword("pcrexform", Value::Required, false, pcrexform),
    plain("strip_pseudo_headers", |_| Ok(Body::Transform(Transform::StripPseudoHeaders))),
    plain("strip_whitespace", |_| Ok(Body::Transform(Transform::StripWhitespace))),
    keyword("subslice", Value::Required, false, subslice),
    plain("tld", |_| Ok(Body::Transform(Transform::TopLevelDomain))),
    plain("to_lowercase", |_| Ok(Body::Transform(Transform::ToLowercase))),
    plain("to_md5", |_| Ok(Body::Transform(Transform::ToMd5))),
    plain("to_sha1", |_| Ok(Body::Transform(Transform::ToSha1))),
    plain("to_sha256", |_| Ok(Body::Transform(Transform::ToSha256))),
    plain("to_uppercase", |_| Ok(Body::Transform(Transform::ToUppercase))),
    plain("url_decode", |_| Ok(Body::Transform(Transform::UrlDecode))),
    keyword("xor", Value::Required, false, xor),
    keyword("zlib_deflate", Value::Optional, false, |args| Ok(Body::Transform(Transform::ZlibDeflate(inflate(args)?)))),
];

fn from_base64(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write from_base64:bytes COUNT, offset OFFSET, mode rfc2045, rfc4648 or strict;");
    let (mut bytes, mut offset, mut mode) = (None, None, None);
    for member in args.list().filter(|_| !args.value.is_empty()) {
        let (key, value) = member.split_once(char::is_whitespace).ok_or_else(bad)?;
        let value = value.trim();
        let number = || integer(value).and_then(|number| u16::try_from(number).ok()).ok_or_else(bad);
        let twice = match key {
            "bytes" => bytes.replace(number()?).is_some(),
            "offset" => offset.replace(number()?).is_some(),
            "mode" => mode
                .replace(match value {
                    "rfc2045" => Base64Mode::Rfc2045,
                    "rfc4648" => Base64Mode::Rfc4648,
                    "strict" => Base64Mode::Strict,
                    _ => return Err(bad()),
                })
                .is_some(),
            _ => return Err(bad()),
        };
        if twice {
            return Err(bad());
        }
    }
    let transform = FromBase64 { bytes: bytes.unwrap_or(0), offset: offset.unwrap_or(0), mode: mode.unwrap_or(Base64Mode::Rfc4648) };
    Ok(Body::Transform(Transform::FromBase64(transform)))
}

fn inflate(args: &Args<'_>) -> Result<Inflate, Problem> {
    let size_max = match args.value.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] => INFLATE_BYTES,
        ["max-size", size] => unit_number(size).filter(|size| (1..=INFLATE_BYTES_MAX).contains(size)).ok_or_else(|| args.bad())? as u32,
        _ => return Err(args.bad().help("write max-size BYTES")),
    };
    Ok(Inflate { size_max })
}

fn pcrexform(args: &Args<'_>) -> Result<Body, Problem> {
    let pattern = args.unquoted()?;
    if pattern.is_empty() || !args.value.starts_with('"') {
        return Err(Problem::new(Code::BadPcre, "the pattern does not stand in double quotes, or is empty"));
    }
    Ok(Body::Transform(Transform::Pcre(pattern.to_owned())))
}

fn subslice(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write subslice:OFFSET[, LENGTH][, truncate];");
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| number.unsigned_abs() <= 65_535);
    let members: Vec<&str> = args.list().collect();
    let (numbers, truncate) = match members.split_last() {
        Some((&"truncate", rest)) if !rest.is_empty() => (rest, true),
        _ => (members.as_slice(), false),
    };
    let (offset, length) = match numbers {
        [offset] => (number(offset), None),
        [offset, length] => (number(offset), Some(number(length).filter(|length| *length != 0).ok_or_else(bad)?)),
        _ => return Err(bad()),
    };
    Ok(Body::Transform(Transform::Subslice(Subslice { offset: offset.ok_or_else(bad)?, length, truncate })))
}

/// `"0d0a"`, `offset 7,"0d0a"`, `extract 1 6`, `offset 7,extract 1 6`.
fn xor(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write xor:\"KEY IN HEX\"; or xor:offset OFFSET, extract LENGTH PLACE;");
    let (mut offset, mut key) = (None, None);
    for member in args.list() {
        let words: Vec<&str> = member.split_whitespace().collect();
        match words.as_slice() {
            ["offset", number] if offset.is_none() && key.is_none() => {
                offset = Some(integer(number).and_then(|number| u32::try_from(number).ok()).ok_or_else(bad)?)
            }
            ["extract", length, at] if key.is_none() => {
                let length = integer(length).and_then(|length| u8::try_from(length).ok()).filter(|length| *length > 0).ok_or_else(bad)?;
                key = Some(XorKey::Extract { length, at: integer(at).and_then(|at| u32::try_from(at).ok()).ok_or_else(bad)? });
            }
            [hex] if key.is_none() => {
                let hex = hex.trim_matches('"');
                if hex.is_empty() || hex.len() % 2 != 0 || hex.len() > 510 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
                key = Some(XorKey::Bytes(hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()));
            }
            _ => return Err(bad()),
        }
    }
    Ok(Body::Transform(Transform::Xor(Xor { offset: offset.unwrap_or(0), key: key.ok_or_else(bad)? })))
}
