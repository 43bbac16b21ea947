//! State that outlives a packet: flowint, xbits, hostbits, tag, stream_size, reputation, and effects on the flow.

use super::args::{integer, name, number_test};
use super::integer::towards;
use super::{Args, Keyword, Value, keyword};
use crate::condition::{
    BitsOperation, Condition, ConfigScope, Effect, End, Flowint, FlowintOperation, FlowintValue, Geoip, Hostbits, IpSide, Iprep, IprepTest,
    Tag, TagSide, TagUnit, TcpSessionState, Xbits, XbitsTrack,
};
use crate::diagnostic::{Code, Problem};
use crate::signature;
use crate::tree::{Body, Requirement, VersionRelation};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("flowint", Value::Required, false, flowint),
    keyword("xbits", Value::Required, false, xbits),
    keyword("hostbits", Value::Required, false, hostbits),
    keyword("tag", Value::Required, false, tag),
    keyword("stream_size", Value::Required, false, stream_size),
    keyword("flow.elephant", Value::Required, false, |args| match towards(args.value) {
        Some(towards) => Ok(Body::Condition(Box::new(Condition::FlowElephant(towards)))),
        None => Err(args.bad().help("write toserver, toclient, both or either")),
    }),
    keyword("tcp.session", Value::Required, false, tcp_session),
    keyword("iprep", Value::Required, false, iprep),
    keyword("geoip", Value::Required, false, geoip),
    keyword("bypass", Value::None, false, |_| Ok(Body::Effect(Box::new(Effect::Bypass)))),
    keyword("nfq_set_mark", Value::Required, false, nfq_set_mark),
    keyword("config", Value::Required, false, config),
    keyword("requires", Value::Required, false, requires),
];

/// Packets that a tag without a count follows.
const TAG_PACKETS: u32 = 256;
/// Life of an xbit that gives none.
const XBITS_SECONDS: u32 = 30;

fn flowint(args: &Args<'_>) -> Result<Body, Problem> {
    use FlowintOperation as Op;
    let bad = || args.bad().help("write flowint:NAME, + - = < <= == != >= or >, NUMBER; or flowint:NAME, isset;");
    let members: Vec<&str> = args.list().collect();
    let (counter, operation, value) = match members.as_slice() {
        [counter, operation] => (*counter, *operation, ""),
        [counter, operation, value] => (*counter, *operation, *value),
        _ => return Err(bad()),
    };
    let counter = name(counter).filter(|name| name.starts_with(|first: char| first.is_ascii_alphabetic())).ok_or_else(bad)?;
    let number = || -> Result<FlowintValue, Problem> {
        if value.starts_with(|first: char| first.is_ascii_digit()) {
            return integer(value).and_then(|value| u32::try_from(value).ok()).map(FlowintValue::Number).ok_or_else(bad);
        }
        name(value).map(|name| FlowintValue::Name(name.to_owned())).ok_or_else(bad)
    };
    let operation = match operation {
        "+" => Op::Add(number()?),
        "-" => Op::Subtract(number()?),
        "=" => Op::Set(number()?),
        "<" => Op::Less(number()?),
        "<=" => Op::LessOrEqual(number()?),
        "==" => Op::Equal(number()?),
        "!=" => Op::NotEqual(number()?),
        ">=" => Op::GreaterOrEqual(number()?),
        ">" => Op::Greater(number()?),
        "isset" if value.is_empty() => Op::IsSet,
        "notset" | "isnotset" if value.is_empty() => Op::IsNotSet,
        _ => return Err(bad()),
    };
    let writes = operation.writes();
    let flowint = Flowint { name: counter.to_owned(), operation };
    Ok(if writes { Body::Effect(Box::new(Effect::Flowint(flowint))) } else { Body::Condition(Box::new(Condition::Flowint(flowint))) })
}

fn bits_operation(word: &str) -> Option<BitsOperation> {
    Some(match word {
        "set" => BitsOperation::Set,
        "unset" => BitsOperation::Unset,
        "toggle" => BitsOperation::Toggle,
        "isset" => BitsOperation::IsSet,
        "isnotset" => BitsOperation::IsNotSet,
        _ => return None,
    })
}

fn xbits(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write xbits:set, NAME, track ip_src, ip_dst or ip_pair, expire SECONDS;");
    if args.value == "noalert" {
        return Ok(Body::Noalert);
    }
    let mut members = args.list();
    let operation = bits_operation(members.next().unwrap_or("")).ok_or_else(bad)?;
    let bit = members.next().and_then(name).ok_or_else(bad)?.to_owned();
    let (mut track, mut expire) = (None, None);
    for member in members {
        let twice = match member.split_once(char::is_whitespace).map(|(key, value)| (key, value.trim())) {
            Some(("track", "ip_src")) => track.replace(XbitsTrack::SourceIp).is_some(),
            Some(("track", "ip_dst")) => track.replace(XbitsTrack::DestinationIp).is_some(),
            Some(("track", "ip_pair")) => track.replace(XbitsTrack::IpPair).is_some(),
            Some(("track", "tx")) => track.replace(XbitsTrack::Transaction).is_some(),
            Some(("expire", seconds)) => {
                let seconds = integer(seconds).and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
                expire.replace(seconds.ok_or_else(bad)?).is_some()
            }
            _ => return Err(bad()),
        };
        if twice {
            return Err(bad());
        }
    }
    let xbits = Xbits { operation, name: bit, track: track.ok_or_else(bad)?, expire_seconds: expire.unwrap_or(XBITS_SECONDS) };
    Ok(if operation.writes() { Body::Effect(Box::new(Effect::Xbits(xbits))) } else { Body::Condition(Box::new(Condition::Xbits(xbits))) })
}

fn hostbits(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write hostbits:set, NAME, src or dst;");
    if args.value == "noalert" {
        return Ok(Body::Noalert);
    }
    let members: Vec<&str> = args.list().collect();
    let (operation, bit, destination) = match members.as_slice() {
        [operation, bit] | [operation, bit, "src"] => (*operation, *bit, false),
        [operation, bit, "dst"] => (*operation, *bit, true),
        _ => return Err(bad()),
    };
    let operation = bits_operation(operation).ok_or_else(bad)?;
    let hostbits = Hostbits { operation, name: name(bit).ok_or_else(bad)?.to_owned(), destination };
    Ok(if operation.writes() {
        Body::Effect(Box::new(Effect::Hostbits(hostbits)))
    } else {
        Body::Condition(Box::new(Condition::Hostbits(hostbits)))
    })
}

fn tag(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write tag:session, COUNT, packets; or tag:host, COUNT, packets, src;");
    let members: Vec<&str> = args.list().collect();
    let amount = |count: &str, unit: &str| -> Result<(u32, TagUnit), Problem> {
        let count = integer(count).and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0).ok_or_else(bad)?;
        let unit = match unit {
            "packets" => TagUnit::Packets,
            "seconds" => TagUnit::Seconds,
            "bytes" => TagUnit::Bytes,
            _ => return Err(bad()),
        };
        Ok((count, unit))
    };
    let (host, (count, unit)) = match members.as_slice() {
        ["session"] => (None, (TAG_PACKETS, TagUnit::Packets)),
        ["session", count, unit] => (None, amount(count, unit)?),
        ["host", count, unit, "src"] => (Some(TagSide::Source), amount(count, unit)?),
        ["host", count, unit, "dst"] => (Some(TagSide::Destination), amount(count, unit)?),
        _ => return Err(bad()),
    };
    Ok(Body::Effect(Box::new(Effect::Tag(Tag { host, count, unit }))))
}

fn stream_size(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write stream_size:server, client, both or either, OPERATOR, BYTES;");
    let members: Vec<&str> = args.list().collect();
    let [end, operator, bytes] = members.as_slice() else { return Err(bad()) };
    let end = match *end {
        "server" => End::Server,
        "client" => End::Client,
        "both" => End::Both,
        "either" => End::Either,
        _ => return Err(bad()),
    };
    if !matches!(*operator, "<" | "<=" | ">" | ">=" | "=" | "!=") {
        return Err(bad());
    }
    let test = number_test(&format!("{operator}{bytes}"), 64).ok_or_else(bad)?;
    Ok(Body::Condition(Box::new(Condition::StreamSize { end, test })))
}

fn tcp_session(args: &Args<'_>) -> Result<Body, Problem> {
    let state = |word: &str| match word {
        "setup" => Ok(TcpSessionState::Setup),
        "established" => Ok(TcpSessionState::Established),
        "closing" => Ok(TcpSessionState::Closing),
        _ => Err(args.bad().help("write setup, established or closing")),
    };
    Ok(Body::Condition(Box::new(Condition::TcpSession(args.list().map(state).collect::<Result<_, _>>()?))))
}

fn side(word: &str) -> Option<IpSide> {
    Some(match word {
        "any" => IpSide::Any,
        "src" => IpSide::Source,
        "dst" => IpSide::Destination,
        "both" => IpSide::Both,
        _ => return None,
    })
}

fn iprep(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write iprep:any, src, dst or both, CATEGORY, OPERATOR, SCORE; with a score from 0 to 127");
    let members: Vec<&str> = args.list().collect();
    let (at, category, test) = match members.as_slice() {
        [at, category, "isset"] => (*at, *category, IprepTest::IsSet),
        [at, category, "isnotset"] => (*at, *category, IprepTest::IsNotSet),
        [at, category, operator @ ("<" | "<=" | ">" | ">=" | "=" | "!="), score] => {
            (*at, *category, IprepTest::Score(number_test(&format!("{operator}{score}"), 7).ok_or_else(bad)?))
        }
        _ => return Err(bad()),
    };
    let category = name(category).ok_or_else(bad)?.to_owned();
    Ok(Body::Condition(Box::new(Condition::Iprep(Iprep { side: side(at).ok_or_else(bad)?, category, test }))))
}

fn geoip(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write geoip:src, dst, both or any, COUNTRY,...;");
    let mut members: Vec<&str> = args.list().collect();
    let at = match members.first().and_then(|first| side(first)) {
        Some(side) => {
            members.remove(0);
            side
        }
        None => IpSide::Any,
    };
    let negated = members.first().is_some_and(|first| first.starts_with('!'));
    let mut countries = Vec::with_capacity(members.len());
    for member in members {
        let code = member.strip_prefix('!').unwrap_or(member);
        if member.starts_with('!') != negated || code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(bad());
        }
        countries.push(code.to_ascii_uppercase());
    }
    if countries.is_empty() {
        return Err(bad());
    }
    Ok(Body::Condition(Box::new(Condition::Geoip(Geoip { side: at, negated, countries }))))
}

fn nfq_set_mark(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write nfq_set_mark:MARK/MASK;");
    let number = |text: &str| integer(text.trim()).and_then(|number| u32::try_from(number).ok()).ok_or_else(bad);
    let (value, mask) = args.value.split_once('/').unwrap_or((args.value, "0xffffffff"));
    Ok(Body::Effect(Box::new(Effect::NfqSetMark { value: number(value)?, mask: number(mask)? })))
}

fn config(args: &Args<'_>) -> Result<Body, Problem> {
    let words: Vec<&str> = args.list().flat_map(str::split_whitespace).collect();
    let scope = match words.as_slice() {
        ["logging", "disable", "type", "tx", "scope", "tx"] => ConfigScope::Transaction,
        ["logging", "disable", "type", "flow", "scope", "flow"] => ConfigScope::Flow,
        _ => return Err(args.bad().help("write config:logging disable, type tx, scope tx;")),
    };
    Ok(Body::Effect(Box::new(Effect::DisableLogging(scope))))
}

/// `feature ja4`, `keyword email.url`, `version >= 7.0.3 < 8 | >= 8.0.1`, in a list.
fn requires(args: &Args<'_>) -> Result<Body, Problem> {
    let mut requirements = Vec::new();
    for member in args.list() {
        requirements.push(match member.split_once(char::is_whitespace) {
            Some(("feature", name)) => Requirement::Feature(name.trim().to_owned()),
            Some(("keyword", name)) => Requirement::Keyword(name.trim().to_owned()),
            Some(("version", text)) => Requirement::Version(
                text.split('|').map(versions).collect::<Option<_>>().ok_or_else(|| args.bad().help("write version >= 8.0.1"))?,
            ),
            // What a later language may ask for: passed over with its rule, as the reference engine does.
            _ => {
                let message = format!("`{}` is no known requirement", crate::header::shorten(member));
                return Err(Problem::new(Code::RequirementUnmet, message));
            }
        });
    }
    Ok(Body::Requires(requirements))
}

/// `>= 7.0.3 < 8`
fn versions(text: &str) -> Option<Vec<(VersionRelation, signature::Version)>> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (relation, after) = [
            (">=", VersionRelation::GreaterOrEqual),
            ("<=", VersionRelation::LessOrEqual),
            (">", VersionRelation::Greater),
            ("<", VersionRelation::Less),
        ]
        .into_iter()
        .find_map(|(sign, relation)| Some((relation, rest.strip_prefix(sign)?.trim_start())))?;
        let end = after.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(after.len());
        let mut version = [0; 3];
        let mut parts = after[..end].split('.');
        for (place, part) in version.iter_mut().zip(&mut parts) {
            *place = part.parse().ok()?;
        }
        if parts.next().is_some() {
            return None;
        }
        found.push((relation, version));
        rest = after[end..].trim_start();
    }
    (!found.is_empty()).then_some(found)
}
