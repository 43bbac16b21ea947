//! Events and recognition: app-layer-event, decode-event, stream-event, app-layer-protocol, app-layer-state.

use super::{Args, Keyword, Value, keyword};
use crate::condition::{AppLayerMode, AppLayerProtocol, Condition, Recognised};
use crate::diagnostic::{Code, Problem};
use crate::event;
use crate::header::shorten;
use crate::protocol;
use crate::tree::Body;

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("app-layer-event", Value::Required, false, app_layer_event),
    keyword("decode-event", Value::Required, false, decode_event),
    keyword("engine-event", Value::Required, false, decode_event),
    keyword("stream-event", Value::Required, false, stream_event),
    keyword("app-layer-protocol", Value::Required, false, app_layer_protocol),
    keyword("app-layer-state", Value::Required, false, app_layer_state),
];

/// Protocols in one list; there are not more.
const PROTOCOLS_MAX: usize = 64;

fn unknown(args: &Args<'_>) -> Problem {
    Problem::new(Code::ValueUnsupported, format!("`{}` is not an event that this engine knows", shorten(args.value)))
}

fn decode_event(args: &Args<'_>) -> Result<Body, Problem> {
    let event = event::intern(event::DECODE, args.value).ok_or_else(|| unknown(args))?;
    Ok(Body::Condition(Box::new(Condition::DecodeEvent(event))))
}

fn stream_event(args: &Args<'_>) -> Result<Body, Problem> {
    let name = args.value.strip_prefix("stream.").unwrap_or(args.value);
    let event = event::intern(event::STREAM, name).ok_or_else(|| unknown(args))?;
    Ok(Body::Condition(Box::new(Condition::StreamEvent(event))))
}

/// `http.missing_host_header`, `applayer_unexpected_protocol`, or a protocol alone for any of its events.
fn app_layer_event(args: &Args<'_>) -> Result<Body, Problem> {
    let (name, rest) = args.value.split_once('.').map_or((args.value, None), |(name, rest)| (name, Some(rest)));
    let app = protocol::lookup(name);
    let event = match (app, rest) {
        (Some(_), None) => None,
        (None, Some(_)) => return Err(Problem::value(format!("`{}` is not a protocol", shorten(name)))),
        _ => Some(event::intern(event::APP, args.value).ok_or_else(|| unknown(args))?),
    };
    Ok(Body::Condition(Box::new(Condition::AppLayerEvent { protocol: app, event })))
}

/// `!tls|http,either`
fn app_layer_protocol(args: &Args<'_>) -> Result<Body, Problem> {
    let (negated, text) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, args.value),
    };
    let (names, mode) = text.split_once(',').map_or((text, None), |(names, mode)| (names, Some(mode.trim())));
    let (mode, exact) = match mode {
        None | Some("direction") => (AppLayerMode::Direction, false),
        Some("exact") => (AppLayerMode::Direction, true),
        Some("final") => (AppLayerMode::Final, false),
        Some("original") => (AppLayerMode::Original, false),
        Some("either") => (AppLayerMode::Either, false),
        Some("to_server" | "toserver") => (AppLayerMode::ToServer, false),
        Some("to_client" | "toclient") => (AppLayerMode::ToClient, false),
        Some(_) => {
            return Err(args.bad().help("after the protocol stands direction, exact, final, original, either, to_server or to_client"));
        }
    };
    let protocols = names
        .split('|')
        .map(|name| match name.trim() {
            "unknown" => Ok(Recognised::Unknown),
            "failed" => Ok(Recognised::Failed),
            name => {
                let bad = || Problem::value(format!("`{}` is not an application protocol", shorten(name)));
                protocol::lookup(name).map(Recognised::As).ok_or_else(bad)
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if protocols.len() > PROTOCOLS_MAX {
        return Err(Problem::value(format!("more than {PROTOCOLS_MAX} protocols in one list")));
    }
    let never = |found: &Recognised| matches!(found, Recognised::As(app) if !app.members().any(|member| member == *app));
    if exact && protocols.iter().any(never) {
        return Err(args.bad().help("a name that stands for several protocols is never recognised itself"));
    }
    Ok(Body::Condition(Box::new(Condition::AppLayerProtocol(AppLayerProtocol { negated, protocols, mode, exact }))))
}

fn app_layer_state(args: &Args<'_>) -> Result<Body, Problem> {
    let (relation, rest) = args.relation();
    let good = !rest.value.is_empty() && rest.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !good {
        return Err(args.bad().help("write app-layer-state:<STATE;"));
    }
    Ok(Body::Condition(Box::new(Condition::AppLayerState { relation, state: rest.value.to_owned() })))
}
