//! What goes in comes out again, by every condition.

mod kit;

use bulkhead_model::Timestamp;
use bulkhead_store::{EventType, Query, StoreConfig};
use kit::{TestDir, alert, anomaly, drop_event, flow, from_to, ids, lines, operation, stats, types};

#[test]
fn events_are_numbered_from_one_and_found_by_every_condition() {
    let dir = TestDir::new();
    let store = dir.open();
    let sender = store.sender();
    let late = Timestamp(kit::NOON.0 + 5_000_000_000);
    let mut last = alert(2002);
    last.timestamp = late;
    for event in
        [alert(2001), drop_event(), from_to(flow(), "shop", "db"), from_to(anomaly(), "shop", "cache"), operation("started"), stats(), last]
    {
        assert!(sender.try_send(event));
    }
    store.flush().unwrap();
    let find = |query: Query| ids(&store.query(&query).unwrap());
    let all = Query::default();
    assert_eq!(find(all.clone()), [1, 2, 4, 5, 7], "flow and stats are in the log alone");
    assert_eq!(find(Query::newest(2)), [5, 7]);
    assert_eq!(find(Query { since: Some(1), limit: Some(2), ..all.clone() }), [2, 4], "after `since` the first come first");
    assert_eq!(find(Query { types: types("alert"), ..all.clone() }), [1, 7]);
    assert_eq!(find(Query { types: types("drop,anomaly"), ..all.clone() }), [2, 4]);
    assert_eq!(find(Query { types: types("flow"), ..all.clone() }), [3]);
    assert_eq!(find(Query { types: types("flow,stats,alert"), ..all.clone() }), [1, 3, 6, 7]);
    assert_eq!(find(Query { types: types("flow,stats,alert"), limit: Some(2), ..all.clone() }), [6, 7]);
    assert_eq!(find(Query { workload: Some("cache".to_owned()), ..all.clone() }), [4]);
    assert_eq!(find(Query { workload: Some("shop".to_owned()), types: types("flow,anomaly"), ..all.clone() }), [3, 4]);
    assert_eq!(find(Query { workload: Some("nobody".to_owned()), ..all.clone() }), [0; 0]);
    assert_eq!(find(Query { signature_id: Some(2001), ..all.clone() }), [1]);
    assert_eq!(find(Query { from: Some(late), ..all.clone() }), [7]);
    assert_eq!(find(Query { to: Some(late), ..all.clone() }), [1, 2, 4, 5]);
    assert_eq!(find(Query::by_id(2)), [2]);
    assert_eq!(find(Query::by_id(6)), [6], "an id of the log alone is found there");
    assert_eq!(find(Query::by_id(99)), [0; 0]);
    assert_eq!(find(Query { workload: Some("x' or '1'='1".to_owned()), ..all }), [0; 0]);
}

#[test]
fn what_is_read_is_what_was_sent() {
    let dir = TestDir::new();
    let store = dir.open();
    let sent = [alert(1), drop_event(), flow(), anomaly(), operation("started"), stats()];
    for event in &sent {
        assert!(store.sender().try_send(event.clone()));
    }
    store.flush().unwrap();
    let logged = lines(&dir.log());
    for (at, (event, logged)) in sent.iter().zip(&logged).enumerate() {
        let mut numbered = event.clone();
        numbered.event_id = at as u64 + 1;
        assert_eq!(*logged, numbered);
        assert_eq!(store.query(&Query::by_id(numbered.event_id)).unwrap(), [numbered]);
    }
    assert_eq!(store.stats().written.values().sum::<u64>(), 6);
    assert_eq!(store.stats().lost().len(), 0);
}

#[test]
fn a_filter_and_a_query_agree() {
    let dir = TestDir::new();
    let store = dir.open();
    let sent = [alert(1), from_to(drop_event(), "a", "b"), from_to(alert(2), "b", "c"), operation("x"), anomaly()];
    sent.iter().for_each(|event| assert!(store.sender().try_send(event.clone())));
    store.flush().unwrap();
    let logged = lines(&dir.log());
    let conditions = [
        Query::default(),
        Query { workload: Some("b".to_owned()), ..Query::default() },
        Query { types: types("alert"), workload: Some("c".to_owned()), ..Query::default() },
        Query { signature_id: Some(2), ..Query::default() },
        Query { since: Some(2), ..Query::default() },
        Query { from: Some(kit::NOON), to: Some(kit::NOON), ..Query::default() },
        Query::by_id(3),
    ];
    for query in conditions {
        let filtered: Vec<_> = logged.iter().filter(|event| query.matches(event)).cloned().collect();
        assert_eq!(store.query(&query).unwrap(), filtered, "{query:?}");
    }
}

#[test]
fn a_limit_is_kept_within_its_own_limit() {
    assert_eq!(Query::newest(usize::MAX).limit(), bulkhead_store::QUERY_EVENTS_MAX);
    assert_eq!(Query::default().limit(), bulkhead_store::QUERY_EVENTS_DEFAULT);
}

#[test]
fn the_log_holds_only_the_types_it_was_told_to() {
    let dir = TestDir::new();
    let store = bulkhead_store::Store::open(StoreConfig { log_types: types("alert,operation"), ..dir.config() }).unwrap();
    for event in [alert(1), drop_event(), flow(), operation("x"), stats()] {
        assert!(store.sender().try_send(event));
    }
    store.flush().unwrap();
    assert_eq!(ids(&lines(&dir.log())), [1, 4]);
    assert_eq!(ids(&store.query(&Query::default()).unwrap()), [1, 2, 4], "the database is not concerned");
    assert_eq!(store.stats().written.keys().copied().collect::<Vec<_>>(), [EventType::Alert, EventType::Operation]);
}
