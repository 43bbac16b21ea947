//! Live views, and senders that must never wait.

mod kit;

use std::time::Duration;

use bulkhead_store::{EventType, FOLLOWER_QUEUE_MAX, FOLLOWERS_MAX, Followed, Store, StoreConfig, StoreError};
use kit::{TestDir, alert, flow};

const PATIENCE: Duration = Duration::from_secs(30);

fn next_id(follower: &mut bulkhead_store::Follower) -> Option<u64> {
    match follower.recv_timeout(PATIENCE) {
        Some(Followed::Event(event)) => Some(event.event_id),
        Some(Followed::Lagged(_)) | None => None,
    }
}

#[test]
fn a_follower_sees_every_event_from_its_beginning_on() {
    let dir = TestDir::new();
    let store = dir.open();
    assert!(store.sender().try_send(flow()));
    store.flush().unwrap();
    let mut follower = store.follow().unwrap();
    assert!(store.sender().try_send(flow()));
    assert!(store.sender().try_send(alert(1)));
    assert_eq!(next_id(&mut follower), Some(2));
    assert_eq!(next_id(&mut follower), Some(3));
    assert_eq!(follower.recv_timeout(Duration::ZERO), None);
    assert!(!follower.is_closed());
    drop(store);
    assert_eq!(follower.recv_timeout(PATIENCE), None);
    assert!(follower.is_closed());
}

#[test]
fn a_follower_that_sleeps_loses_the_oldest_and_is_told_how_many() {
    let dir = TestDir::new();
    let store = dir.open();
    let mut follower = store.follow().unwrap();
    let count = FOLLOWER_QUEUE_MAX + 500;
    for _ in 0..count {
        while !store.sender().try_send(flow()) {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    assert_eq!(follower.recv_timeout(PATIENCE), Some(Followed::Lagged(500)));
    assert_eq!(next_id(&mut follower), Some(501));
    assert_eq!(store.stats().followers_lagged, 500);
    assert_eq!(store.stats().written[&EventType::Flow], count as u64, "nobody else lost anything");
}

#[test]
fn followers_are_limited_and_a_place_comes_back() {
    let dir = TestDir::new();
    let store = dir.open();
    let followers: Vec<_> = (0..FOLLOWERS_MAX).map(|_| store.follow().unwrap()).collect();
    assert!(matches!(store.follow(), Err(StoreError::TooManyFollowers)));
    drop(followers);
    assert_eq!(store.stats().followers, 0);
    store.follow().unwrap();
}

#[test]
fn a_task_is_woken_by_an_event_and_by_the_end() {
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};
    use std::task::{Context, Poll, Wake, Waker};

    struct Bell(Sender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    let dir = TestDir::new();
    let store = dir.open();
    let mut follower = store.follow().unwrap();
    let (rang, bell) = channel();
    let waker = Waker::from(Arc::new(Bell(rang)));
    let mut context = Context::from_waker(&waker);
    assert_eq!(follower.poll_next(&mut context), Poll::Pending);
    assert!(store.sender().try_send(flow()));
    bell.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(follower.poll_next(&mut context), Poll::Ready(Some(Followed::Event(_)))));
    assert_eq!(follower.poll_next(&mut context), Poll::Pending);
    drop(store);
    bell.recv_timeout(PATIENCE).unwrap();
    assert_eq!(follower.poll_next(&mut context), Poll::Ready(None));
}

#[test]
fn a_full_queue_refuses_flows_before_alerts_and_counts_what_it_refused() {
    let dir = TestDir::new();
    let store = Store::open(StoreConfig { queue_events_max: 64, ..dir.config() }).unwrap();
    let sender = store.sender();
    let mut taken = 0;
    for _ in 0..200_000 {
        taken += u64::from(sender.try_send(flow()));
    }
    for sid in 0..10 {
        assert!(sender.try_send(alert(sid)), "the half of the queue that flows may not fill is there for alerts");
    }
    store.flush().unwrap();
    let stats = store.stats();
    assert_eq!(stats.written[&EventType::Flow], taken);
    assert_eq!(stats.lost_queue[&EventType::Flow], 200_000 - taken);
    assert!(stats.lost_queue[&EventType::Flow] > 0);
    assert_eq!(stats.written[&EventType::Alert], 10);
    assert_eq!(stats.queued, 0);
    drop(store);
    assert!(dir.log().contains("\"events-lost\""));
    assert!(!sender.try_send(alert(1)), "a sender that outlives the store is told so");
}
