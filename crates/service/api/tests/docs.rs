//! The samples of docs/api.md, as a client gets them.

#[path = "kit/docs.rs"]
mod docs;
mod kit;

use std::io::{Read, Write};
use std::net::TcpStream;

use bulkhead_api::{ArmRequest, ClientError, ModeChange};
use bulkhead_model::Mode;
use kit::{Lab, alert};
use serde::Serialize;

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn every_answer_has_a_sample() {
    let lab = Lab::with(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap()));
    let client = lab.client();
    lab.agent.send_now(alert(2001));
    let Err(ClientError::Api(refused)) = client.check_policy("nonsense: 1\n") else { panic!("nonsense is taken") };
    let change = ModeChange { selector: Some("web*".to_owned()), mode: Mode::Protect };
    let arm = ArmRequest { pid: 4711, netns: Some(4_026_532_500), container: Some("5e0c1a".repeat(10) + "5e0c") };
    let mut prometheus = TcpStream::connect(lab.server.metrics_address().unwrap()).unwrap();
    prometheus.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    prometheus.read_to_string(&mut answer).unwrap();
    let text = answer.split("\r\n\r\n").nth(1).unwrap().split("# HELP bulkhead_api_").next().unwrap();
    let samples = [
        ("error", pretty(&refused)),
        ("status", pretty(&client.status().unwrap())),
        ("workload", pretty(&client.workloads().unwrap()[2])),
        ("why", pretty(&client.why(1).unwrap())),
        ("coverage", pretty(&client.coverage().unwrap())),
        ("arm-request", pretty(&arm)),
        ("arm", pretty(&client.arm(&arm, kit::PATIENCE).unwrap())),
        ("mode", pretty(&client.mode().unwrap())),
        ("mode-change", pretty(&change)),
        ("mode-changed", pretty(&client.set_mode(change.selector, change.mode).unwrap())),
        ("policy", pretty(&client.policy().unwrap())),
        ("policy-change", pretty(&client.apply_policy("mode: protect\n").unwrap())),
        ("prometheus", text.to_owned()),
    ];
    docs::compare("api.md", &samples);
}

/// The table of limits.
#[test]
fn the_limits_in_the_document_are_those_of_the_server() {
    use bulkhead_api::server;
    assert_eq!((server::CONNECTIONS_MAX, server::CONNECTIONS_OTHERS_MAX, server::METRICS_CONNECTIONS_MAX), (64, 24, 8));
    assert_eq!((server::HEADER_BYTES_MAX, server::HEADERS_MAX, server::HEADER_SECS_MAX), (8 * 1024, 64, 5));
    assert_eq!((server::BODY_BYTES_MAX, server::REQUEST_SECS_MAX, server::CALLS_MAX), (1024 * 1024, 30, 4));
    assert_eq!((server::FOLLOWS_MAX, server::KEEPALIVE_SECS), (16, 15));
    assert_eq!((bulkhead_store::QUERY_EVENTS_DEFAULT, bulkhead_store::QUERY_EVENTS_MAX), (100, 10_000));
    assert_eq!((bulkhead_store::FOLLOWER_QUEUE_MAX, bulkhead_store::TAIL_BYTES_MAX), (1024, 4 * 1024 * 1024));
}
