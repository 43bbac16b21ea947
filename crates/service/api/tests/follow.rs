//! Live views.

mod kit;

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use bulkhead_api::client::{LiveView, Update};
use bulkhead_api::server::FOLLOWS_MAX;
use bulkhead_api::{ClientError, ErrorCode, EventQuery};
use kit::{Lab, PATIENCE, alert, drop_event};

fn next_id(live: &mut LiveView<'_>) -> u64 {
    match live.next(Some(PATIENCE)).unwrap() {
        Some(Update::Event(event)) => event.event_id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_live_view_shows_what_happens_and_only_what_was_asked_for() {
    let lab = Lab::start();
    let client = lab.client();
    lab.agent.send_now(alert(1));
    let mut live = client.follow(&EventQuery { types: "alert".parse().unwrap(), ..EventQuery::default() }).unwrap();
    assert_eq!(live.next(Some(Duration::from_millis(1))).unwrap(), None, "what was before is not shown");
    lab.agent.send(drop_event());
    lab.agent.send(alert(2));
    lab.agent.send(alert(3));
    assert_eq!(next_id(&mut live), 3);
    assert_eq!(next_id(&mut live), 4);
}

#[test]
fn a_live_view_with_since_begins_there_and_shows_nothing_twice_and_misses_nothing() {
    let lab = Lab::start();
    let client = lab.client();
    for sid in 0..50 {
        lab.agent.send(alert(sid));
    }
    lab.agent.store.flush().unwrap();
    let feeder = {
        let agent = lab.agent.clone();
        std::thread::spawn(move || {
            for sid in 0..300 {
                agent.send_now(alert(sid));
            }
        })
    };
    let mut live = client.follow(&EventQuery { since: Some(10), limit: Some(10_000), ..EventQuery::default() }).unwrap();
    for expected in 11..=350 {
        assert_eq!(next_id(&mut live), expected);
    }
    feeder.join().unwrap();
}

#[test]
fn server_sent_events_carry_id_type_and_data() {
    let lab = Lab::start();
    let mut stream = lab.raw();
    stream.write_all(b"GET /v1/events/follow HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].starts_with("HTTP/1.1 200 ") && head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    lab.agent.send(alert(2001));
    let event: Vec<String> = lines.skip_while(|line| line != "id: 1").take(3).collect();
    assert_eq!(event[1], "event: alert");
    assert!(event[2].starts_with("data: {") && event[2].contains("\"signature_id\":2001"), "{event:?}");
}

#[test]
fn a_reader_that_sleeps_is_told_what_it_missed_and_holds_up_nobody() {
    let lab = Lab::start();
    let client = lab.client();
    let mut sleeper = client.follow(&EventQuery::default()).unwrap();
    let sent: u64 = 20_000;
    for sid in 0..sent {
        lab.agent.send(alert(sid as u32));
        if sid % 10_000 == 9_999 {
            lab.agent.store.flush().unwrap();
        }
    }
    let mut other = lab.client();
    other.status().unwrap();
    other = lab.client();
    let (mut seen, mut missed, mut last) = (0, 0, 0);
    while seen + missed < sent {
        match sleeper.next(Some(PATIENCE)).unwrap() {
            Some(Update::Event(event)) => {
                assert!(event.event_id > last);
                last = event.event_id;
                seen += 1;
            }
            Some(Update::Lagged(count)) => missed += count,
            None => panic!("{seen} seen, {missed} missed"),
        }
    }
    assert_eq!(seen + missed, sent);
    assert!(missed > 0);
    assert_eq!(other.events(&EventQuery::newest(1)).unwrap()[0].event_id, sent);
}

#[test]
fn live_views_are_limited_and_a_place_comes_back_at_once() {
    let lab = Lab::start();
    let clients: Vec<_> = (0..=FOLLOWS_MAX).map(|_| lab.client()).collect();
    let mut views: Vec<_> = clients[..FOLLOWS_MAX].iter().map(|client| client.follow(&EventQuery::default()).unwrap()).collect();
    let last = &clients[FOLLOWS_MAX];
    match last.follow(&EventQuery::default()) {
        Err(ClientError::Api(error)) => assert_eq!(error.code, ErrorCode::Busy),
        other => panic!("{other:?}"),
    }
    last.status().unwrap();
    drop(views.pop());
    drop(clients.into_iter().next_back());
    // The server learns of the closed connection when it next writes or reads there; an event makes it write.
    let client = lab.client();
    for attempt in 0.. {
        lab.agent.send_now(alert(1));
        match client.follow(&EventQuery::default()) {
            Ok(_) => break,
            Err(error) => assert!(attempt < 1000, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_end_of_the_agent_ends_the_view() {
    let mut lab = Lab::start();
    let client = lab.client();
    let mut live = client.follow(&EventQuery::default()).unwrap();
    lab.server.stop();
    assert!(matches!(live.next(Some(PATIENCE)), Err(ClientError::NotRunning { .. })));
    assert!(matches!(client.status(), Err(ClientError::NotRunning { .. })));
}
