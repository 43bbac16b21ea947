//! An alert's life in the agent: plain data from engine and kernel -> names from the directory -> the event store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_bpf::layout::{AddrKey, FlowKey, PathEvent, event_kind};
use bulkhead_bpf::path::monotonic_ns;
use bulkhead_model::event::Dropped;
use bulkhead_model::{Event, EventBody, Operation, Timestamp, WorkloadId};
use bulkhead_store::EventSender;

use crate::hold::wall_clock;
use crate::registry::{Directory, Registry};

/// Turns what happened into events. Cheap to clone; one per thread.
#[derive(Clone)]
pub struct Recorder {
    pub registry: Registry,
    pub sender: EventSender,
}

impl Recorder {
    pub fn send(&self, event: Event) {
        // A full queue counts what it refuses by type.
        let _ = self.sender.try_send(event);
    }

    /// Something the agent did or noticed.
    pub fn operation(
        &self,
        action: &str,
        message: impl Into<String>,
        details: impl IntoIterator<Item = (&'static str, serde_json::Value)>,
    ) {
        self.send(Event {
            body: EventBody::Operation {
                operation: Operation {
                    action: action.to_owned(),
                    message: message.into(),
                    details: details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                },
            },
            ..blank(wall_clock())
        });
    }

    /// What the kernel tier tells by its ring.
    pub fn kernel(&self, event: &PathEvent) {
        let directory = self.registry.current();
        let age = monotonic_ns().saturating_sub(event.time_ns);
        let timestamp = Timestamp(wall_clock().0.saturating_sub(age));
        let local = directory.by_port(event.port as u16);
        let remote = WorkloadId(event.remote);
        let to_container = event.direction == 1;
        let (src, dest) = if to_container { (remote, local) } else { (local, remote) };
        let mut made = Event {
            in_iface: directory.port_names.get(&(event.port as u16)).cloned(),
            workload: Some(directory.pair(src, dest)),
            ..blank(timestamp)
        };
        address(&mut made, &event.key, to_container);
        let verdict = |enforced: bool| if enforced { "blocked" } else { "would-block" }.to_owned();
        made.body = match event.kind {
            event_kind::SEGMENT_DENIED => {
                let rule = segment_name(&directory, event.rule);
                EventBody::Drop {
                    drop: Dropped {
                        verdict: verdict(event.enforced == 1),
                        reason: "segment".into(),
                        explanation: format!("{rule} denies {} to {}", directory.name(src), directory.name(dest)),
                        len: event.length,
                        tier: "kernel".into(),
                    },
                    alert: None,
                }
            }
            event_kind::FAIL_CLOSED => EventBody::Drop {
                drop: Dropped {
                    verdict: verdict(true),
                    reason: "fail-closed".into(),
                    explanation: format!("{}, and this workload's policy is to fail closed", unanswered(event.rule)),
                    len: event.length,
                    tier: "kernel".into(),
                },
                alert: None,
            },
            event_kind::FAIL_OPEN => operation("fail-open", format!("packets of a flow passed uninspected: {}", unanswered(event.rule))),
            event_kind::FOREIGN_SOURCE => {
                operation("foreign-source", format!("{} sends with an address that is not its own", directory.name(local)))
            }
            other => operation("kernel-event", format!("the kernel tier told of event {other}, which this version does not know")),
        };
        self.send(made);
    }
}

/// Why the kernel tier decided alone.
const fn unanswered(rule: u32) -> &'static str {
    if rule == 0 { "the agent did not answer in time" } else { "the queue to the agent was full" }
}

fn operation(action: &str, message: impl Into<String>) -> EventBody {
    EventBody::Operation { operation: Operation { action: action.to_owned(), message: message.into(), details: BTreeMap::new() } }
}

/// An event that says nothing yet.
pub fn blank(timestamp: Timestamp) -> Event {
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
        body: operation("none", ""),
    }
}

/// EVE's name of an IP protocol.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "IPv6-ICMP".into(),
        132 => "SCTP".into(),
        other => format!("{other:03}"),
    }
}

/// The policy's name of a segment rule, from the number the kernel kept.
pub fn segment_name(directory: &Directory, rule: u32) -> String {
    match directory.segment_names.get(rule as usize) {
        Some(name) => format!("segment rule `{name}`"),
        None => "the default of the segments".to_owned(),
    }
}

fn address(event: &mut Event, key: &FlowKey, to_container: bool) {
    let container = AddrKey::address(&key.container, key.version);
    let remote = AddrKey::address(&key.remote, key.version);
    let ports: (u16, u16) = (u16::from_be(key.container_port), u16::from_be(key.remote_port));
    let has_ports = matches!(key.protocol, 6 | 17 | 132);
    let (src, dest, src_port, dest_port): (Option<IpAddr>, Option<IpAddr>, u16, u16) =
        if to_container { (remote, container, ports.1, ports.0) } else { (container, remote, ports.0, ports.1) };
    event.src_ip = src;
    event.dest_ip = dest;
    event.proto = (key.version != 0).then(|| protocol_name(key.protocol));
    event.src_port = has_ports.then_some(src_port);
    event.dest_port = has_ports.then_some(dest_port);
}
