//! An event on one line, the same in `events`, `why` and the live map.

use std::net::IpAddr;

use bulkhead_model::{Alert, AlertAction, Event, EventBody, Side};

use crate::output::{Colour, Style, printable};
use crate::units::{bytes, date_time, plural};

/// `2026-11-23 21:10:56       1  alert      attacker -> web:80 TCP  [blocked] ...`
pub fn line(event: &Event, style: Style) -> String {
    let (text, colour) = happening(&event.body);
    let parties = parties(event);
    let parties = if parties.is_empty() { parties } else { format!("{parties}  ") };
    let time = style.paint(&date_time(event.timestamp), Colour::Faint);
    format!("{time}  {:>6}  {:<9}  {parties}{}", event.event_id, event.body.type_name(), style.paint(&text, colour))
}

/// `attacker -> web:80 TCP`; with an address in place of a name where no container is.
pub fn parties(event: &Event) -> String {
    let pair = event.workload.as_ref();
    let src = party(pair.map(|pair| &pair.src), event.src_ip, None);
    let dest = party(pair.map(|pair| &pair.dest), event.dest_ip, event.dest_port);
    if src.is_empty() && dest.is_empty() {
        return String::new();
    }
    let proto = event.proto.as_ref().map_or(String::new(), |proto| format!(" {}", printable(proto)));
    format!("{src} -> {dest}{proto}")
}

/// What happened, and how grave it looks.
pub fn happening(body: &EventBody) -> (String, Colour) {
    match body {
        EventBody::Alert { alert, .. } => alert_text(alert),
        EventBody::Drop { drop, alert } => {
            let rule = alert.as_ref().map_or(String::new(), |alert| format!(" (sid {})", alert.signature_id));
            let colour = if drop.verdict == "blocked" { Colour::Bad } else { Colour::Warn };
            (printable(&format!("[{}] {}: {}{rule}", drop.verdict, drop.reason, drop.explanation)), colour)
        }
        EventBody::Flow { flow } => {
            let state = flow.state.as_deref().unwrap_or("ended");
            let text = format!("{state}, {} to server, {} to client", bytes(flow.bytes_toserver), bytes(flow.bytes_toclient));
            (printable(&text), Colour::Faint)
        }
        EventBody::Anomaly { anomaly } => (printable(&format!("{} {}", anomaly.r#type, anomaly.event)), Colour::Warn),
        EventBody::Stats { stats } => {
            let groups = stats.as_object().map_or(0, serde_json::Map::len);
            (format!("{} of counters", plural(groups as u64, "group")), Colour::Faint)
        }
        EventBody::Operation { operation } => (printable(&format!("{}: {}", operation.action, operation.message)), Colour::Plain),
    }
}

fn alert_text(alert: &Alert) -> (String, Colour) {
    let (word, colour) = match (alert.action, alert.would_have_blocked) {
        (AlertAction::Blocked, _) => ("blocked", Colour::Bad),
        (AlertAction::Allowed, true) => ("would block", Colour::Warn),
        (AlertAction::Allowed, false) => ("allowed", Colour::Warn),
    };
    (printable(&format!("[{word}] {} (sid {})", alert.signature, alert.signature_id)), colour)
}

fn party(side: Option<&Side>, address: Option<IpAddr>, port: Option<u16>) -> String {
    let place = match (side, address) {
        (Some(side), Some(address)) if side.name == "world" => address.to_string(),
        (Some(side), _) => printable(&side.name),
        (None, Some(address)) => address.to_string(),
        (None, None) => return String::new(),
    };
    match port {
        Some(port) if place.contains(':') => format!("[{place}]:{port}"),
        Some(port) => format!("{place}:{port}"),
        None => place,
    }
}
