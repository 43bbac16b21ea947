//! `bulkhead replay`: what these rules would make of recorded traffic, with the same engine and without an agent.

use std::path::PathBuf;

use bulkhead_api::{EventType, EventTypes};
use bulkhead_ips::{
    AlertEvent, Anomaly, AnomalyEvent, Checksums, Direction, DropEvent, EngineEvent, FlowEndEvent, FlowKey, OnFailure, PacketMeta,
    Pipeline, PipelineConfig, RuleInfo,
};
use bulkhead_model::event::{Anomaly as AnomalyRecord, Dropped};
use bulkhead_model::{Alert, AlertAction, DropReason, Event, EventBody, FlowRecord, Timestamp};
use bulkhead_policy::Config;
use serde_json::json;

use crate::capture;
use crate::context::Context;
use crate::event_text::line;
use crate::failure::{Exit, Failure};
use crate::ruleset::{VariableArgs, load};
use crate::units::{bytes, plural};

/// Ended flows looked at per packet; a capture's clock may jump.
const EXPIRE_BUDGET: usize = 64;
/// The same capture and rules give the same output.
const SEED: u64 = 1;

/// Run a capture through the engine: which rules would have found what
///
/// Exits with 1 when there was an alert.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A pcap or pcapng file
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,

    /// A file of rules; may be given more than once
    #[arg(short, long, value_name = "FILE", required = true)]
    rules: Vec<PathBuf>,

    #[command(flatten)]
    variables: VariableArgs,

    /// Carry out what drop and reject rules say, as mode `protect` does
    #[arg(long)]
    protect: bool,

    /// Leave out packets with wrong checksums; captures made on the sending host have many, and they mean nothing
    #[arg(long)]
    checksums: bool,

    /// Show only these types, with commas: alert, drop, flow, anomaly [default: alert, drop]
    #[arg(short = 't', long = "type", value_name = "TYPES")]
    types: Option<EventTypes>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let mut config = Config::default();
    // A capture knows no workloads whose addresses home could be.
    config.rules.variables.0.insert("HOME_NET".to_owned(), "any".to_owned());
    let (ruleset, checked) = load(&args.rules, &args.variables, &config)?;
    if checked.unsupported + checked.wrong > 0 {
        eprintln!("{} of the rules do not load; see `bulkhead rules check`", checked.unsupported + checked.wrong);
    }
    let types = args.types.unwrap_or_else(|| [EventType::Alert, EventType::Drop].into_iter().collect());
    let mut shown = Shown { types, next_id: 1, alerts: 0, blocked: 0 };
    let mut pipeline = Pipeline::new(pipeline_config(&config, args.checksums), ruleset, SEED);
    let (mut packets, mut carried, mut clock) = (0_u64, 0_u64, Timestamp::default());
    let read = capture::read(&args.capture, |packet| {
        packets += 1;
        carried += u64::from(packet.len_on_wire);
        clock = clock.max(packet.at);
        pipeline.expire(packet.at, EXPIRE_BUDGET);
        let meta = PacketMeta::captured(packet.link, packet.len_on_wire, args.protect);
        let verdict = pipeline.packet(packet.at, &meta, packet.bytes, &mut ()).verdict;
        shown.blocked += u64::from(!verdict.passes());
        pipeline.drain_events().try_for_each(|event| shown.event(event, context))
    })?;
    pipeline.finish(clock);
    pipeline.drain_events().try_for_each(|event| shown.event(event, context))?;
    if let Some(reason) = &read.broken {
        eprintln!("{reason}, after {}", plural(packets, "packet"));
    }
    let Shown { alerts, blocked, .. } = shown;
    if context.json() {
        let stats =
            json!({ "replay": { "packets": packets, "bytes": carried, "skipped": read.skipped, "alerts": alerts, "blocked": blocked } });
        context.out.json_line(&Event { event_id: shown.next_id, body: EventBody::Stats { stats }, ..blank(clock) })?;
    } else {
        let skipped =
            if read.skipped == 0 { String::new() } else { format!(", {} of links that are not read", plural(read.skipped, "packet")) };
        let text = format!(
            "{} ({}){skipped}; {}, {} blocked",
            plural(packets, "packet"),
            bytes(carried),
            plural(alerts, "alert"),
            plural(blocked, "packet")
        );
        context.out.line(&text)?;
    }
    Ok(match (read.broken.is_some(), alerts) {
        (_, 1..) => Exit::Findings,
        (true, 0) => Exit::Usage,
        (false, 0) => Exit::Ok,
    })
}

/// As the agent inspects with an untouched configuration.
fn pipeline_config(config: &Config, verify: bool) -> PipelineConfig {
    let mut pipeline = PipelineConfig {
        stream_depth: config.inspect.stream_depth.0,
        on_cap: OnFailure::Pass,
        on_unverifiable: OnFailure::Drop,
        checksum: if verify { Checksums::Verify } else { Checksums::Ignore },
        ..PipelineConfig::default()
    };
    pipeline.flow.flows_max = config.inspect.flows_max as usize;
    pipeline
}

struct Shown {
    types: EventTypes,
    next_id: u64,
    alerts: u64,
    blocked: u64,
}

impl Shown {
    fn event(&mut self, event: EngineEvent, context: &mut Context) -> Result<(), Failure> {
        self.alerts += u64::from(matches!(event, EngineEvent::Alert(_)));
        let Some(mut event) = eve(event) else { return Ok(()) };
        if !self.types.contains(EventType::of(&event.body)) {
            return Ok(());
        }
        event.event_id = self.next_id;
        self.next_id += 1;
        if context.json() {
            return context.out.json_line(&event);
        }
        let line = line(&event, context.out.style());
        context.out.line(&line)
    }
}

/// An event of the engine as EVE has it; a capture knows no workloads.
fn eve(event: EngineEvent) -> Option<Event> {
    Some(match event {
        // Not asked for: `PipelineConfig::transactions`.
        EngineEvent::Transaction(_) => return None,
        EngineEvent::Alert(event) => of_alert(&event),
        EngineEvent::Drop(event) => of_drop(&event),
        EngineEvent::FlowEnd(event) => of_flow(&event),
        EngineEvent::Anomaly(event) => of_anomaly(&event),
    })
}

fn of_alert(event: &AlertEvent) -> Event {
    let flow = FlowRecord {
        pkts_toserver: event.to_server.packets,
        pkts_toclient: event.to_client.packets,
        bytes_toserver: event.to_server.bytes,
        bytes_toclient: event.to_client.bytes,
        start: event.flow_start,
        alerted: true,
        ..FlowRecord::default()
    };
    let body = EventBody::Alert { alert: alert(&event.rule, event.blocked, event.would_have_blocked), flow: Some(flow) };
    Event { body, direction: event.direction.map(direction), ..between(event.at, Some(&event.key)) }
}

fn of_drop(event: &DropEvent) -> Event {
    let reason = drop_reason(event.reason);
    let explanation = match &event.rule {
        Some(rule) => format!("rule {}:{} `{}` of {}:{}", rule.gid, rule.sid, rule.msg, rule.source, rule.line),
        None => reason.clone(),
    };
    let drop = Dropped {
        verdict: if event.carried_out { "blocked" } else { "would-block" }.to_owned(),
        reason,
        explanation,
        len: event.len,
        tier: "engine".to_owned(),
    };
    let alert = event.rule.as_deref().map(|rule| alert(rule, event.carried_out, !event.carried_out));
    Event { body: EventBody::Drop { drop, alert }, direction: event.direction.map(direction), ..between(event.at, Some(&event.key)) }
}

fn of_flow(event: &FlowEndEvent) -> Event {
    let flow = FlowRecord {
        pkts_toserver: event.to_server.packets,
        pkts_toclient: event.to_client.packets,
        bytes_toserver: event.to_server.bytes,
        bytes_toclient: event.to_client.bytes,
        start: Some(event.start),
        end: Some(event.last),
        age: Some(event.last.since(event.start) / 1_000_000_000),
        state: Some(if event.bypassed.is_some() { "bypassed" } else { event.state }.to_owned()),
        reason: Some(event.why.name().to_owned()),
        alerted: event.alerted,
    };
    Event { body: EventBody::Flow { flow }, ..between(event.at, Some(&event.key)) }
}

fn of_anomaly(event: &AnomalyEvent) -> Event {
    let (kind, name) = match event.what {
        Anomaly::Decode(what) => ("decode", what.name().to_owned()),
        Anomaly::Stream(name) => ("stream", format!("stream.{name}")),
    };
    let anomaly = AnomalyRecord { r#type: kind.to_owned(), event: name };
    Event { body: EventBody::Anomaly { anomaly }, ..between(event.at, event.key.as_ref()) }
}

fn alert(rule: &RuleInfo, blocked: bool, would_have_blocked: bool) -> Alert {
    let mut metadata = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (key, value) in &rule.metadata {
        metadata.entry(key.clone()).or_default().push(value.clone());
    }
    Alert {
        action: if blocked { AlertAction::Blocked } else { AlertAction::Allowed },
        gid: rule.gid,
        signature_id: rule.sid,
        rev: rule.rev,
        signature: rule.msg.clone(),
        category: rule.category.clone(),
        severity: rule.priority,
        metadata,
        references: rule.references.iter().map(|(system, value)| format!("{system},{value}")).collect(),
        rule_source: Some(format!("{}:{}", rule.source, rule.line)),
        would_have_blocked,
    }
}

/// The model's own word for it.
fn drop_reason(reason: DropReason) -> String {
    serde_json::to_value(reason).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn direction(direction: Direction) -> String {
    match direction {
        Direction::ToServer => "to_server",
        Direction::ToClient => "to_client",
    }
    .to_owned()
}

fn between(at: Timestamp, key: Option<&FlowKey>) -> Event {
    let Some(key) = key else { return blank(at) };
    let ports = matches!(key.proto, 6 | 17 | 132);
    Event {
        flow_id: (key.id != 0).then_some(key.id),
        src_ip: Some(key.src.addr),
        src_port: ports.then_some(key.src.port),
        dest_ip: Some(key.dst.addr),
        dest_port: ports.then_some(key.dst.port),
        proto: Some(protocol(key.proto)),
        ..blank(at)
    }
}

/// As EVE writes it.
fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "IPv6-ICMP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("{other:03}"),
    }
}

fn blank(timestamp: Timestamp) -> Event {
    Event {
        timestamp,
        event_id: 0,
        flow_id: None,
        in_iface: None,
        src_ip: None,
        src_port: None,
        dest_ip: None,
        dest_port: None,
        proto: None,
        app_proto: None,
        direction: None,
        workload: None,
        body: EventBody::Stats { stats: json!({}) },
    }
}
