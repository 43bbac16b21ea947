//! Every path, asked by our own client over a unix socket.

mod kit;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use bulkhead_api::{ApiError, ArmRequest, ArmState, Backend, ClientError, ErrorCode, EventQuery, ServerError};
use bulkhead_model::Mode;
use kit::{Lab, alert, drop_event, operation};

fn code(error: ClientError) -> ErrorCode {
    match error {
        ClientError::Api(error) => error.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_agent_says_arrives_unchanged() {
    let lab = Lab::start();
    let client = lab.client();
    assert_eq!(client.status().unwrap(), lab.agent.status().unwrap());
    assert_eq!(client.workloads().unwrap(), lab.agent.workloads().unwrap());
    assert_eq!(client.coverage().unwrap(), lab.agent.coverage().unwrap());
    assert_eq!(client.mode().unwrap(), lab.agent.mode().unwrap());
    assert_eq!(client.policy().unwrap(), lab.agent.policy().unwrap());
    assert_eq!(client.reload().unwrap(), lab.agent.reload().unwrap());
    let metrics = client.metrics().unwrap();
    assert_eq!(metrics[..2], lab.agent.metrics().unwrap());
    assert!(metrics.iter().any(|metric| metric.name == "bulkhead_api_connections_total"));
    assert!(!lab.agent.down.load(Ordering::Relaxed));
    client.down().unwrap();
    assert!(lab.agent.down.load(Ordering::Relaxed));
}

#[test]
fn events_are_found_by_query_by_id_and_explained() {
    let lab = Lab::start();
    let client = lab.client();
    lab.agent.send(alert(2001));
    lab.agent.send(drop_event());
    lab.agent.send_now(operation("agent-started", "started"));
    let ids = |query| client.events(&query).unwrap().iter().map(|event| event.event_id).collect::<Vec<_>>();
    assert_eq!(ids(EventQuery::default()), [1, 2, 3]);
    assert_eq!(ids(EventQuery { types: "alert,drop".parse().unwrap(), ..EventQuery::default() }), [1, 2]);
    assert_eq!(ids(EventQuery { since: Some(2), ..EventQuery::default() }), [3]);
    assert_eq!(ids(EventQuery { workload: Some("web".to_owned()), limit: Some(1), ..EventQuery::default() }), [2]);
    assert_eq!(ids(EventQuery { signature_id: Some(2001), from: Some(kit::NOON), ..EventQuery::default() }), [1]);
    assert_eq!(client.event(2).unwrap().event_id, 2);
    assert_eq!(code(client.event(99).unwrap_err()), ErrorCode::NotFound);
    assert_eq!(client.why(1).unwrap(), lab.agent.why(1).unwrap());
    assert_eq!(code(client.why(99).unwrap_err()), ErrorCode::NotFound);
}

#[test]
fn a_network_is_armed_on_demand_and_the_asker_waits_no_longer_than_it_wants() {
    let lab = Lab::start();
    let client = lab.client();
    let request = ArmRequest { pid: 4711, netns: None, container: None };
    lab.agent.waiting.store(1, Ordering::Relaxed);
    let first = client.arm(&request, kit::PATIENCE).unwrap();
    assert_eq!((first.state, first.interfaces[0].armed), (ArmState::Waiting, false));
    assert_eq!(client.arm(&request, kit::PATIENCE).unwrap().state, ArmState::Armed);
    assert_eq!(*lab.agent.arm_asked.lock().unwrap(), [request.clone(), request.clone()]);
    assert_eq!(code(client.arm(&ArmRequest { pid: 0, netns: None, container: None }, kit::PATIENCE).unwrap_err()), ErrorCode::NotFound);
    lab.agent.hang(true);
    assert!(matches!(client.arm(&request, std::time::Duration::from_millis(50)), Err(ClientError::Timeout)));
    lab.agent.hang(false);
    for body in [&b"{}"[..], b"{\"pid\":-1}", b"{\"pid\":1,\"more\":2}", b"[", b"\xff"] {
        let head = format!("POST /v1/arm HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = lab.ask(&[head.as_bytes(), body].concat());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[test]
fn a_policy_is_applied_whole_or_refused_whole_with_every_problem() {
    let lab = Lab::start();
    let client = lab.client();
    let checked = client.check_policy("mode: protect\n").unwrap();
    assert!(!checked.applied);
    assert_eq!(client.policy().unwrap().text, "mode: monitor\n", "a check changes nothing");
    let applied = client.apply_policy("mode: protect\n").unwrap();
    assert!(applied.applied && applied.revision == 8);
    assert_eq!(client.policy().unwrap().text, "mode: protect\n");
    let ClientError::Api(refused) = client.apply_policy("nonsense: 1\n").unwrap_err() else { panic!() };
    assert_eq!(refused.code, ErrorCode::Refused);
    assert_eq!(refused.problems.len(), 1);
    assert_eq!(client.policy().unwrap().text, "mode: protect\n");
}

#[test]
fn a_mode_is_set_for_a_selector_or_for_the_default() {
    let lab = Lab::start();
    let client = lab.client();
    assert_eq!(client.set_mode(Some("web*".to_owned()), Mode::Protect).unwrap().selector.as_deref(), Some("web*"));
    assert_eq!(client.mode().unwrap().default, Mode::Monitor);
    client.set_mode(None, Mode::Protect).unwrap();
    assert_eq!(client.mode().unwrap().default, Mode::Protect);
}

#[test]
fn what_is_asked_wrongly_is_answered_with_a_code_a_sentence_and_help() {
    let lab = Lab::start();
    let cases: [(&str, &str, &str, u16, ErrorCode); 16] = [
        ("GET", "/", "", 404, ErrorCode::NotFound),
        ("GET", "/v2/status", "", 404, ErrorCode::NotFound),
        ("GET", "/v1/status/", "", 404, ErrorCode::NotFound),
        ("DELETE", "/v1/status", "", 405, ErrorCode::MethodNotAllowed),
        ("POST", "/v1/mode", "", 405, ErrorCode::MethodNotAllowed),
        ("GET", "/v1/events?limit=x", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events?limit=-1", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events?type=alarm", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events?tpye=alert", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events/follow?limit=x", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events/twelve", "", 400, ErrorCode::BadRequest),
        ("GET", "/v1/events/99999999999999999999/why", "", 400, ErrorCode::BadRequest),
        ("PUT", "/v1/mode", "protect", 400, ErrorCode::BadRequest),
        ("PUT", "/v1/mode", "{\"mode\":\"enforce\"}", 400, ErrorCode::BadRequest),
        ("PUT", "/v1/mode", "{\"mode\":\"protect\",\"selectr\":\"web\"}", 400, ErrorCode::BadRequest),
        ("PUT", "/v1/policy?check=yes", "mode: protect", 400, ErrorCode::BadRequest),
    ];
    for (method, path, body, status, code) in cases {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = lab.ask(request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        let error: ApiError = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(error.code, code, "{method} {path}");
        assert!(error.help.is_some(), "{method} {path}");
    }
    let answer = lab.ask(b"PUT /v1/policy HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n\xff\xfe");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("UTF-8"), "{answer}");
}

#[test]
fn an_agent_that_panics_over_one_question_answers_the_next() {
    let lab = Lab::start();
    assert_eq!(code(lab.client().why(666).unwrap_err()), ErrorCode::Internal);
    lab.client().status().unwrap();
}

#[test]
fn metrics_are_served_on_loopback_and_nothing_else_is() {
    let lab = Lab::with(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap()));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(lab.server.metrics_address().unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("\nbulkhead_packets_total 12\n"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    for path in ["/", "/v1/status", "/v1/down", "/metrics/"] {
        assert!(get(path).starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[test]
fn metrics_are_not_served_to_the_world() {
    let lab = Lab::start();
    let config = bulkhead_api::ServerConfig {
        socket: lab.dir.path().join("other"),
        metrics: Some("198.51.100.1:9464".parse().unwrap()),
        ..bulkhead_api::ServerConfig::default()
    };
    assert!(matches!(bulkhead_api::Server::start(&config, lab.agent.clone()), Err(ServerError::NotLoopback(_))));
    assert!(!lab.dir.path().join("other").exists(), "what was begun is taken back");
}
