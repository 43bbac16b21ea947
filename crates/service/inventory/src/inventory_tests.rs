use super::*;
use bulkhead_model::{Network, Runtime, Workload};

fn change(key: &str) -> Change {
    Change::Added(Workload {
        key: key.into(),
        name: key.into(),
        image: None,
        labels: BTreeMap::new(),
        runtime: Runtime::Docker,
        pid: 1,
        cgroup: "/".into(),
        network: Network::Host,
        interfaces: Vec::new(),
        published: Vec::new(),
    })
}

fn subscribed(queue_max: usize) -> (Published, Receiver<Change>) {
    let (sender, receiver) = sync_channel(queue_max);
    let published = Published { subscribers: vec![Subscriber { sender, lost: false }], ..Published::default() };
    (published, receiver)
}

#[test]
fn a_subscriber_that_falls_behind_is_told_to_start_anew_and_then_goes_on() {
    let (mut published, receiver) = subscribed(2);
    assert_eq!(published.tell(&[change("a"), change("b"), change("c")]), 1);
    assert_eq!(published.tell(&[change("d")]), 0, "an overflow is counted once");
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [change("a"), change("b")]);
    assert_eq!(published.tell(&[change("e")]), 0);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [Change::Resync]);
    assert_eq!(published.tell(&[change("f")]), 0);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [change("f")]);
}

#[test]
fn a_subscriber_that_is_gone_is_forgotten() {
    let (mut published, receiver) = subscribed(1);
    drop(receiver);
    published.tell(&[]);
    assert_eq!(published.subscribers.len(), 1, "nothing to tell, nothing to notice");
    published.tell(&[change("a")]);
    assert_eq!(published.subscribers.len(), 0);
}

#[test]
fn looks_that_are_asked_for_keep_to_their_share() {
    let start = Instant::now();
    let mut clock = Clock::new(start);
    assert_eq!(clock.next(), start, "the first look is at once");
    clock.looked(start, Duration::from_secs(10));
    let regular = clock.next();
    assert!(regular >= start + Duration::from_secs(10));
    clock.hint(start);
    assert!(clock.next() < regular);
    assert!(clock.next() >= clock.not_before);
    // A hint is followed by the look itself and the two that settle it.
    let mut looks = 0;
    while clock.next() < regular {
        let at = clock.next();
        clock.looked(at, Duration::from_secs(10));
        // `looked` measures from its argument to now; only the order counts here.
        clock.not_before = at;
        looks += 1;
        assert!(looks < 10, "looks go on for ever");
    }
    assert_eq!(looks, 1 + SETTLE_AFTER.len());
    assert_eq!(clock.next(), regular);
}
