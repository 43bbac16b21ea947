//! Archives: when they are made, that nothing is lost on the way, and that their size has an end.

mod kit;

use std::fs;

use bulkhead_model::Event;
use bulkhead_store::{ARCHIVE_EXTENSION, Store, StoreConfig};
use kit::{TestDir, alert, flow, ids, lines};

fn archived(dir: &TestDir, name: &str) -> Vec<Event> {
    let bytes = fs::read(dir.path().join("log").join(name)).unwrap();
    let text = if name.ends_with(ARCHIVE_EXTENSION) { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
    lines(&String::from_utf8(text).unwrap())
}

fn send(store: &Store, count: usize) {
    for _ in 0..count {
        assert!(store.sender().try_send(flow()));
    }
    store.flush().unwrap();
}

fn small(dir: &TestDir) -> StoreConfig {
    StoreConfig { rotate_bytes: 64 * 1024, ..dir.config() }
}

#[test]
fn a_full_log_is_put_aside_compressed_and_nothing_is_lost_or_doubled() {
    let dir = TestDir::new();
    let store = Store::open(small(&dir)).unwrap();
    for _ in 0..10 {
        send(&store, 100);
    }
    drop(store);
    // The last compression may have been stopped by the closing; the next opening ends it, and closing waits for a block at most.
    let mut all: Vec<u64> = Vec::new();
    let archives = dir.archives();
    assert!(archives.len() >= 4, "{archives:?}");
    for name in &archives {
        let events = archived(&dir, name);
        let last = events.last().unwrap().event_id;
        assert!(name.contains(&format!("-{last}.json")), "{name} ends with {last}");
        all.extend(ids(&events));
    }
    all.extend(ids(&lines(&dir.log())));
    all.sort_unstable();
    assert_eq!(all, (1..=1000).collect::<Vec<u64>>());
}

#[test]
fn what_a_crash_left_plain_or_half_compressed_is_put_right_at_the_next_opening() {
    let dir = TestDir::new();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    let line = serde_json::to_string(&flow()).unwrap() + "\n";
    fs::write(log.join("eve-20261123T211056Z-41.json"), &line).unwrap();
    fs::write(log.join("eve-20261123T211056Z-41.json.zst.tmp"), "half").unwrap();
    fs::write(log.join("notes.txt"), "not ours").unwrap();
    let store = dir.open();
    send(&store, 1);
    assert_eq!(ids(&lines(&dir.log())), [42], "the name of the archive tells where to go on");
    // Waits for the compression, or stops it between two blocks: this file has one.
    for _ in 0..1000 {
        if dir.archives() == ["eve-20261123T211056Z-41.json.zst"] {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(dir.archives(), ["eve-20261123T211056Z-41.json.zst"]);
    assert_eq!(archived(&dir, "eve-20261123T211056Z-41.json.zst"), [flow()]);
    assert!(log.join("notes.txt").exists());
}

#[test]
fn archives_are_kept_within_their_number_and_the_oldest_go_first() {
    let dir = TestDir::new();
    let store = Store::open(StoreConfig { archives_max: 2, compress: false, ..small(&dir) }).unwrap();
    for _ in 0..20 {
        send(&store, 100);
    }
    drop(store);
    let archives = dir.archives();
    assert_eq!(archives.len(), 2, "{archives:?}");
    let mut kept: Vec<u64> = archives.iter().flat_map(|name| ids(&archived(&dir, name))).collect();
    kept.extend(ids(&lines(&dir.log())));
    kept.sort_unstable();
    let first = kept[0];
    assert_eq!(kept, (first..=2000).collect::<Vec<u64>>(), "no gap within what is kept");
}

#[test]
fn all_files_of_the_log_together_stay_within_their_bytes() {
    let dir = TestDir::new();
    let config = StoreConfig { archives_max: 1000, log_bytes_max: 200 * 1024, compress: false, ..small(&dir) };
    let store = Store::open(config).unwrap();
    for _ in 0..50 {
        send(&store, 100);
        let files = fs::read_dir(dir.path().join("log")).unwrap();
        let bytes: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 200 * 1024, "{bytes}");
    }
    let stats = store.stats();
    assert!(stats.archive_bytes > 0 && stats.archive_bytes + stats.log_bytes <= 200 * 1024, "{stats:?}");
}

#[test]
fn a_log_whose_first_line_is_old_is_put_aside_before_the_next_line() {
    let dir = TestDir::new();
    let store = Store::open(StoreConfig { rotate_secs: 3600, compress: false, ..dir.config() }).unwrap();
    // Written at noon of a day long gone; the age of a file that is opened again is that of its first line.
    send(&store, 1);
    drop(store);
    let mut old = flow();
    old.timestamp = bulkhead_model::Timestamp::from_secs(1_000_000_000);
    old.event_id = 9;
    fs::write(dir.path().join("log/eve.json"), serde_json::to_string(&old).unwrap() + "\n").unwrap();
    let store = Store::open(StoreConfig { rotate_secs: 3600, compress: false, ..dir.config() }).unwrap();
    send(&store, 2);
    assert_eq!(dir.archives().len(), 1);
    assert_eq!(ids(&archived(&dir, &dir.archives()[0])), [9]);
    assert_eq!(lines(&dir.log()).len(), 2);
}

#[test]
fn the_database_stays_within_its_size_and_a_flood_of_one_type_leaves_the_others_alone() {
    let dir = TestDir::new();
    let store = Store::open(StoreConfig { database_bytes_max: 2 * 1024 * 1024, ..dir.config() }).unwrap();
    for sid in 0..20 {
        assert!(store.sender().try_send(alert(sid)));
    }
    store.flush().unwrap();
    for _ in 0..30 {
        (0..500).for_each(|_| assert!(store.sender().try_send(kit::drop_event())));
        store.flush().unwrap();
    }
    let stats = store.stats();
    assert!(stats.database_removed > 0, "{stats:?}");
    assert!(stats.database_bytes <= 2 * 1024 * 1024 + 1024 * 1024, "{stats:?}");
    let file = fs::metadata(dir.path().join("state/events.db")).unwrap().len();
    assert!(file <= 2 * 1024 * 1024 / 4 * 5 + 4096, "{file}");
    let alerts = store.query(&bulkhead_store::Query { types: kit::types("alert"), ..Default::default() }).unwrap();
    assert_eq!(alerts.len(), 20, "the flood of drops has pushed out drops alone");
    assert!(stats.lost_database.is_empty(), "{stats:?}");
}
