//! The samples of docs/events.md, as they come out of the log.

#[path = "../../api/tests/kit/docs.rs"]
mod docs;
mod kit;

use bulkhead_model::EventBody;
use kit::{TestDir, alert, anomaly, drop_event, flow, lines, operation, stats};

#[test]
fn every_event_type_has_a_sample() {
    let dir = TestDir::new();
    let store = dir.open();
    let mut alert = alert(2001);
    if let EventBody::Alert { alert, flow: counts } = &mut alert.body {
        alert.signature = "LAB command injection in a query".to_owned();
        alert.metadata.insert("affected_product".to_owned(), vec!["Linux".to_owned()]);
        let EventBody::Flow { flow } = flow().body else { unreachable!("it is one") };
        *counts = Some(flow);
    }
    let mut ended = flow();
    if let EventBody::Flow { flow } = &mut ended.body {
        (flow.start, flow.end, flow.age) = (Some(kit::NOON), Some(kit::NOON), Some(0));
        (flow.pkts_toclient, flow.bytes_toclient) = (2, 1_240);
        (flow.state, flow.reason) = (Some("closed".to_owned()), Some("timeout".to_owned()));
    }
    ended.direction = None;
    let mut armed = operation("interface-armed");
    if let EventBody::Operation { operation } = &mut armed.body {
        operation.message = "veth0a1b2c3 of web".to_owned();
        operation.details.insert("interface".to_owned(), "veth0a1b2c3".into());
    }
    let mut counters = stats();
    for event in [&mut armed, &mut counters] {
        (event.flow_id, event.in_iface, event.workload, event.direction, event.proto) = (None, None, None, None, None);
        (event.src_ip, event.src_port, event.dest_ip, event.dest_port) = (None, None, None, None);
    }
    for event in [alert, drop_event(), ended, anomaly(), counters, armed] {
        assert!(store.sender().try_send(event));
    }
    store.flush().unwrap();
    let samples: Vec<(&str, String)> =
        lines(&dir.log()).iter().map(|event| (event.body.type_name(), serde_json::to_string_pretty(event).unwrap())).collect();
    assert_eq!(samples.len(), 6);
    docs::compare("events.md", &samples);
}
