//! Files: names and kinds in the old form, hashes, filestore; sets of values: dataset, datarep.

use super::args::{integer, name, unit_number};
use super::integer::towards;
use super::{Args, Keyword, Value, keyword};
use crate::condition::{Condition, Effect, FileScope, HashAlgorithm, TextField, Towards};
use crate::diagnostic::Problem;
use crate::tree::{Body, Datarep, Dataset, DatasetFormat, DatasetKind, DatasetOperation, DatasetSource, Relation};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("filename", Value::Required, false, |args| text(args, TextField::FileName)),
    keyword("fileext", Value::Required, false, |args| text(args, TextField::FileExtension)),
    keyword("filemagic", Value::Required, false, |args| text(args, TextField::FileMagic)),
    keyword("filemd5", Value::Required, false, |args| hash(args, HashAlgorithm::Md5)),
    keyword("filesha1", Value::Required, false, |args| hash(args, HashAlgorithm::Sha1)),
    keyword("filesha256", Value::Required, false, |args| hash(args, HashAlgorithm::Sha256)),
    keyword("filestore", Value::Optional, false, filestore),
    keyword("dataset", Value::Required, false, dataset),
    keyword("datarep", Value::Required, false, datarep),
    keyword("tls.subject", Value::Required, false, |args| text(args, TextField::TlsSubject)),
    keyword("tls.issuerdn", Value::Required, false, |args| text(args, TextField::TlsIssuer)),
    keyword("tls.fingerprint", Value::Required, false, |args| text(args, TextField::TlsFingerprint)),
    keyword("ssh.protoversion", Value::Required, false, |args| text(args, TextField::SshProtocol)),
    keyword("ssh.softwareversion", Value::Required, false, |args| text(args, TextField::SshSoftware)),
];

/// Names of sets; the reference engine's table has 64 bytes with its end.
const SET_NAME_BYTES_MAX: usize = 63;

fn text(args: &Args<'_>, field: TextField) -> Result<Body, Problem> {
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    let text = Args { keyword: args.keyword, value }.unquoted()?;
    if text.is_empty() || text.contains('"') {
        return Err(args.bad());
    }
    Ok(Body::Condition(Box::new(Condition::Text { field, negated, text: text.to_owned() })))
}

fn hash(args: &Args<'_>, algorithm: HashAlgorithm) -> Result<Body, Problem> {
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    let list = Args { keyword: args.keyword, value }.unquoted()?;
    if list.is_empty() {
        return Err(args.bad());
    }
    Ok(Body::Condition(Box::new(Condition::FileHash { algorithm, negated, list: list.to_owned() })))
}

/// `request,file`, `both,flow`.
fn filestore(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write filestore; or filestore:request, response or both, file, tx or flow;");
    let mut members = args.list().filter(|_| !args.value.is_empty());
    let towards = match members.next() {
        None => None,
        Some("request") => Some(Towards::ToServer),
        Some("response") => Some(Towards::ToClient),
        Some(word) => Some(towards(word).filter(|towards| *towards != Towards::Either).ok_or_else(bad)?),
    };
    let scope = match members.next() {
        None | Some("file") => FileScope::File,
        Some("tx") => FileScope::Transaction,
        Some("ssn" | "flow") => FileScope::Flow,
        Some(_) => return Err(bad()),
    };
    if members.next().is_some() {
        return Err(bad());
    }
    Ok(Body::Effect(Box::new(Effect::FileStore { towards, scope })))
}

fn set_name(text: &str) -> Option<&str> {
    name(text).filter(|name| name.len() <= SET_NAME_BYTES_MAX)
}

fn dataset(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write dataset:set, unset, isset or isnotset, NAME, type TYPE, load FILE;");
    let mut members = args.list();
    let operation = match members.next() {
        Some("set") => DatasetOperation::Set,
        Some("unset") => DatasetOperation::Unset,
        Some("isset") => DatasetOperation::IsSet,
        Some("isnotset") => DatasetOperation::IsNotSet,
        _ => return Err(bad()),
    };
    let name = members.next().and_then(set_name).ok_or_else(bad)?.to_owned();
    let source = source(members, args)?;
    if source.save.is_some() && source.state.is_some() {
        return Err(args.bad().help("save and state exclude each other"));
    }
    if source.load.is_some() && source.state.is_some() {
        return Err(args.bad().help("load and state exclude each other"));
    }
    if source.format != DatasetFormat::Csv && (source.value_key.is_none() || source.context_key.is_none()) {
        return Err(args.bad().help("a set in JSON needs a value_key and a context_key"));
    }
    let keys = source.context_key.is_some() || source.value_key.is_some() || source.array_key.is_some() || source.remove_key;
    if source.format == DatasetFormat::Csv && keys {
        return Err(args.bad().help("keys are for sets in JSON: write format json"));
    }
    if source.format != DatasetFormat::Csv && matches!(operation, DatasetOperation::Set | DatasetOperation::Unset) {
        return Err(args.bad().help("a set in JSON is only read"));
    }
    Ok(Body::Dataset(Box::new(Dataset { operation, name, source })))
}

fn datarep(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write datarep:NAME, < = or >, SCORE, load FILE, type TYPE;");
    let mut members = args.list();
    let name = members.next().and_then(set_name).ok_or_else(bad)?.to_owned();
    let relation = match members.next() {
        Some("<") => Relation::Less,
        Some("=") => Relation::Equal,
        Some(">") => Relation::Greater,
        _ => return Err(bad()),
    };
    let score = members.next().and_then(integer).and_then(|score| u16::try_from(score).ok()).ok_or_else(bad)?;
    Ok(Body::Datarep(Box::new(Datarep { name, relation, score, source: source(members, args)? })))
}

fn source<'a>(members: impl Iterator<Item = &'a str>, args: &Args<'_>) -> Result<DatasetSource, Problem> {
    let bad =
        || args.bad().help("after the name stand type, load, save, state, memcap, hashsize, format, context_key, value_key, array_key");
    let mut source = DatasetSource::default();
    for member in members {
        let (key, value) = member.split_once(char::is_whitespace).unwrap_or((member, ""));
        let value = value.trim();
        let text = || if value.is_empty() { Err(bad()) } else { Ok(value.to_owned()) };
        let twice = match key {
            "type" => source
                .kind
                .replace(match value {
                    "string" => DatasetKind::String,
                    "md5" => DatasetKind::Md5,
                    "sha256" => DatasetKind::Sha256,
                    "ipv4" => DatasetKind::Ipv4,
                    "ip" | "ipv6" => DatasetKind::Ip,
                    _ => return Err(args.bad().help("the type is string, md5, sha256, ipv4, ipv6 or ip")),
                })
                .is_some(),
            "load" => source.load.replace(text()?).is_some(),
            "save" => source.save.replace(text()?).is_some(),
            "state" => source.state.replace(text()?).is_some(),
            "memcap" => source.memcap.replace(unit_number(value).ok_or_else(bad)?).is_some(),
            "hashsize" => source.hashsize.replace(integer(value).and_then(|size| u32::try_from(size).ok()).ok_or_else(bad)?).is_some(),
            "format" => {
                source.format = match value {
                    "csv" => DatasetFormat::Csv,
                    "json" => DatasetFormat::Json,
                    "ndjson" | "jsonline" => DatasetFormat::Ndjson,
                    _ => return Err(args.bad().help("the format is csv, json or ndjson")),
                };
                false
            }
            "context_key" => source.context_key.replace(text()?).is_some(),
            "value_key" => source.value_key.replace(text()?).is_some(),
            "array_key" => source.array_key.replace(text()?).is_some(),
            "remove_key" if value.is_empty() => std::mem::replace(&mut source.remove_key, true),
            _ => return Err(bad()),
        };
        if twice {
            return Err(Problem::value(format!("`{key}` is given twice")));
        }
    }
    Ok(source)
}
