//! Who the rule is and what it says: msg, sid, gid, rev, classtype, reference, metadata, priority, target.

use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::Problem;
use crate::tree::{Body, Target};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("msg", Value::Required, true, msg),
    keyword("sid", Value::Required, true, |args| match args.number(u32::MAX.into())? {
        0 => Err(args.bad()),
        number => Ok(Body::Sid(number as u32)),
    }),
    keyword("gid", Value::Required, true, |args| Ok(Body::Gid(args.number(u32::MAX.into())? as u32))),
    keyword("rev", Value::Required, true, |args| Ok(Body::Rev(args.number(u32::MAX.into())? as u32))),
    keyword("classtype", Value::Required, true, classtype),
    keyword("reference", Value::Required, false, reference),
    keyword("metadata", Value::Required, false, metadata),
    keyword("priority", Value::Required, true, |args| match args.number(255)? {
        0 => Err(args.bad()),
        number => Ok(Body::Priority(number as u8)),
    }),
    keyword("target", Value::Required, false, |args| match args.value {
        "src_ip" => Ok(Body::Target(Target::SourceIp)),
        "dest_ip" => Ok(Body::Target(Target::DestinationIp)),
        _ => Err(args.bad().help("use src_ip or dest_ip")),
    }),
];

fn msg(args: &Args<'_>) -> Result<Body, Problem> {
    let text = args.unquoted()?;
    if !args.value.starts_with('"') {
        return Err(Problem::value("a msg stands in double quotes").help(format!("write msg:\"{}\";", crate::header::shorten(text))));
    }
    let mut message = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ (';' | ':' | '"' | '\\')) => message.push(escaped),
                Some(other) => message.extend(['\\', other]),
                None => message.push('\\'),
            },
            '"' => return Err(Problem::value("a quote inside of the msg is not escaped").help("write \\\" for a quote inside of quotes")),
            other => message.push(other),
        }
    }
    Ok(Body::Msg(message))
}

fn classtype(args: &Args<'_>) -> Result<Body, Problem> {
    let name = args.unquoted()?.trim();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(args.bad().help("use a name of classification.config"));
    }
    Ok(Body::Classtype(name.to_owned()))
}

fn reference(args: &Args<'_>) -> Result<Body, Problem> {
    // Quotes may stand around all of it, and are part of the value elsewhere: `url,"example.org/?id=1"`.
    let text = if args.value.starts_with('"') { args.unquoted()? } else { args.value };
    let Some((system, value)) = text.split_once(',') else {
        return Err(args.bad().help("write reference:SYSTEM,VALUE;"));
    };
    let (system, value) = (system.trim(), value.trim());
    if system.is_empty() || value.is_empty() {
        return Err(args.bad().help("write reference:SYSTEM,VALUE;"));
    }
    Ok(Body::Reference { system: system.to_ascii_lowercase(), value: value.to_owned() })
}

/// `key value, key value`; a key may stand alone.
fn metadata(args: &Args<'_>) -> Result<Body, Problem> {
    let pair = |member: &str| -> (String, String) {
        match member.split_once(char::is_whitespace) {
            Some((key, value)) => (key.to_owned(), value.trim().to_owned()),
            None => (member.to_owned(), String::new()),
        }
    };
    Ok(Body::Metadata(args.list().filter(|member| !member.is_empty()).map(pair).collect()))
}
