//! Crashes, damage, a full disk, another program's hands on the files.

mod kit;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use bulkhead_model::EventBody;
use bulkhead_store::{EventType, LINE_BYTES_MAX, Query, Store, StoreConfig, StoreError};
use kit::{TestDir, alert, flow, ids, lines, operation, stats, types};

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Actions of the operation events in the log.
fn actions(dir: &TestDir) -> Vec<String> {
    let operations = lines(&dir.log()).into_iter().filter_map(|event| match event.body {
        EventBody::Operation { operation } => Some(operation.action),
        _ => None,
    });
    operations.collect()
}

#[test]
fn ids_go_on_after_a_restart() {
    let dir = TestDir::new();
    let store = dir.open();
    (0..3).for_each(|_| assert!(store.sender().try_send(flow())));
    drop(store);
    let store = dir.open();
    assert!(store.sender().try_send(alert(1)));
    store.flush().unwrap();
    assert_eq!(ids(&lines(&dir.log())), [1, 2, 3, 4]);
}

#[test]
fn ids_never_go_back_whatever_is_lost() {
    // (what is lost, a crash before: the database was not closed)
    for (lost, names) in
        [("log", vec!["log/eve.json"]), ("database", vec!["state/events.db", "state/events.db-wal", "state/events.db-shm"])]
    {
        let dir = TestDir::new();
        let store = dir.open();
        (0..3).for_each(|_| assert!(store.sender().try_send(flow())));
        store.flush().unwrap();
        drop(store);
        for name in names {
            let _ = fs::remove_file(dir.path().join(name));
        }
        let store = dir.open();
        assert!(store.sender().try_send(alert(1)));
        store.flush().unwrap();
        let after = ids(&lines(&dir.log())).last().copied().unwrap();
        assert!(after >= 4, "{lost}: {after}");
    }
}

#[test]
fn a_crash_leaves_a_gap_in_the_ids_and_never_a_repetition() {
    let dir = TestDir::new();
    // A store that is copied while it is open is what a crash leaves behind.
    let crashed = TestDir::new();
    let store = dir.open();
    (0..5).for_each(|_| assert!(store.sender().try_send(alert(1))));
    store.flush().unwrap();
    for sub in ["log", "state"] {
        fs::create_dir(crashed.path().join(sub)).unwrap();
        for entry in fs::read_dir(dir.path().join(sub)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), crashed.path().join(sub).join(entry.file_name())).unwrap();
        }
    }
    let after = crashed.open();
    assert!(after.sender().try_send(alert(2)));
    after.flush().unwrap();
    let ids = ids(&after.query(&Query::default()).unwrap());
    assert_eq!(ids[..5], [1, 2, 3, 4, 5]);
    assert!(ids.len() == 6 && ids[5] > 5, "{ids:?}");
}

#[test]
fn half_a_line_is_cut_off_and_told() {
    let dir = TestDir::new();
    let store = dir.open();
    assert!(store.sender().try_send(flow()));
    drop(store);
    append(&dir.path().join("log/eve.json"), b"{\"timestamp\":\"2026-11-23T21:1");
    let store = dir.open();
    assert!(store.sender().try_send(flow()));
    store.flush().unwrap();
    assert_eq!(ids(&lines(&dir.log())), [1, 2, 3]);
    assert_eq!(actions(&dir), ["log-mended"]);
}

#[test]
fn a_whole_line_without_its_line_feed_is_kept() {
    let dir = TestDir::new();
    let store = dir.open();
    assert!(store.sender().try_send(flow()));
    drop(store);
    let path = dir.path().join("log/eve.json");
    let text = dir.log();
    fs::write(&path, text.trim_end()).unwrap();
    let store = dir.open();
    assert!(store.sender().try_send(flow()));
    store.flush().unwrap();
    assert_eq!(ids(&lines(&dir.log())), [1, 2]);
}

#[test]
fn a_file_of_rubbish_is_ended_where_it_stands() {
    for rubbish in [vec![b'x'; LINE_BYTES_MAX * 3], vec![0; 10], b"\n\n\n".to_vec(), vec![0xff; LINE_BYTES_MAX + 1]] {
        let dir = TestDir::new();
        fs::create_dir(dir.path().join("log")).unwrap();
        append(&dir.path().join("log/eve.json"), &rubbish);
        let store = dir.open();
        assert!(store.sender().try_send(flow()));
        store.flush().unwrap();
        let bytes = fs::read(dir.path().join("log/eve.json")).unwrap();
        let last = bytes.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap();
        let event: bulkhead_model::Event = serde_json::from_slice(last).unwrap();
        assert!(event.event_id > 0);
    }
}

#[test]
fn a_damaged_database_is_put_aside_and_told() {
    for damage in [b"this is no database at all, but long enough to be read as one".repeat(100), Vec::new()] {
        let dir = TestDir::new();
        let store = dir.open();
        assert!(store.sender().try_send(alert(1)));
        drop(store);
        let path = dir.path().join("state/events.db");
        let expected = if damage.is_empty() {
            // Sound as a file, of a schema that is not ours.
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.execute_batch("pragma user_version = 99").unwrap();
            "schema 99"
        } else {
            fs::write(&path, &damage).unwrap();
            "not a database"
        };
        let store = dir.open();
        assert!(store.sender().try_send(alert(2)));
        store.flush().unwrap();
        let events = store.query(&Query::default()).unwrap();
        assert_eq!(events.len(), 2, "{events:?}");
        let EventBody::Operation { operation } = &events[0].body else { panic!("{events:?}") };
        assert_eq!(operation.action, "database-replaced");
        assert!(operation.message.contains(expected), "{}", operation.message);
        assert!(events[0].event_id > 1, "ids do not start again");
        assert_eq!(store.stats().databases_replaced, 1);
        let aside = fs::read_dir(dir.path().join("state"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
        assert_eq!(aside.count(), 1);
    }
}

#[test]
fn pages_spoilt_in_the_middle_are_found_at_the_next_opening_after_a_crash() {
    let dir = TestDir::new();
    let store = dir.open();
    (0..2000).for_each(|sid| assert!(store.sender().try_send(alert(sid))));
    drop(store);
    let path = dir.path().join("state/events.db");
    {
        // Closed as by a crash: not marked clean.
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("update meta set value = 0 where key = 'clean'").unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64 * 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let store = dir.open();
    store.flush().unwrap();
    assert_eq!(store.stats().databases_replaced, 1);
    assert_eq!(actions(&dir), ["database-replaced"]);
}

#[test]
fn a_database_that_breaks_while_it_is_open_is_replaced() {
    let dir = TestDir::new();
    let store = dir.open();
    (0..4000).for_each(|sid| assert!(store.sender().try_send(alert(sid))));
    store.flush().unwrap();
    let path = dir.path().join("state/events.db");
    // Everything in the main file is gone, and the log beside it too.
    fs::write(&path, vec![0x5a; 4_000_000]).unwrap();
    OpenOptions::new().write(true).truncate(true).open(dir.path().join("state/events.db-wal")).unwrap();
    // The damage is found by a reader or by the writer, whoever comes first; in the end both work again.
    for _ in 0..3 {
        let _ = store.query(&Query::newest(10_000));
        store.flush().unwrap();
        assert!(store.sender().try_send(alert(7)));
        store.flush().unwrap();
    }
    assert!(store.stats().databases_replaced >= 1, "{:?}", store.stats());
    let events = store.query(&Query { signature_id: Some(7), ..Query::default() }).unwrap();
    assert!(!events.is_empty());
    assert!(actions(&dir).contains(&"database-replaced".to_owned()), "{:?}", actions(&dir));
}

#[test]
fn a_database_that_cannot_be_made_costs_the_database_alone() {
    let dir = TestDir::new();
    // A directory stands where the file should be.
    fs::create_dir_all(dir.path().join("state/events.db")).unwrap();
    let store = dir.open();
    assert!(store.sender().try_send(alert(1)));
    store.flush().unwrap();
    assert_eq!(ids(&lines(&dir.log()))[..2], [1, 2]);
    assert_eq!(actions(&dir)[0], "database-failed");
    assert!(matches!(store.query(&Query::default()), Err(StoreError::Database(_))));
    assert_eq!(store.stats().lost_database[&EventType::Alert], 1);
    assert!(store.stats().lost().is_empty(), "it stands in the log");
    fs::remove_dir(dir.path().join("state/events.db")).unwrap();
    store.reopen().unwrap();
    assert!(store.sender().try_send(alert(2)));
    store.flush().unwrap();
    assert_eq!(store.query(&Query { signature_id: Some(2), ..Query::default() }).unwrap().len(), 1);
}

#[test]
fn a_second_store_on_the_same_log_is_refused() {
    let dir = TestDir::new();
    let first = dir.open();
    assert!(matches!(Store::open(dir.config()), Err(StoreError::InUse { .. })));
    drop(first);
    dir.open();
}

#[test]
fn a_log_directory_that_is_a_file_is_the_operators_error() {
    let dir = TestDir::new();
    fs::write(dir.path().join("log"), "").unwrap();
    assert!(matches!(Store::open(dir.config()), Err(StoreError::Directory { .. })));
}

#[test]
fn a_log_that_was_renamed_removed_or_truncated_by_another_program_is_begun_again() {
    let dir = TestDir::new();
    let store = dir.open();
    let path = dir.path().join("log/eve.json");
    let send = || {
        assert!(store.sender().try_send(flow()));
        store.flush().unwrap();
    };
    send();
    fs::rename(&path, dir.path().join("log/moved")).unwrap();
    send();
    assert_eq!(ids(&lines(&dir.log())), [2]);
    fs::remove_file(&path).unwrap();
    send();
    assert_eq!(ids(&lines(&dir.log())), [3]);
    fs::write(&path, "").unwrap();
    send();
    assert_eq!(ids(&lines(&dir.log())), [4]);
    fs::rename(&path, dir.path().join("log/moved-again")).unwrap();
    store.reopen().unwrap();
    assert_eq!(dir.log(), "", "after SIGHUP the file is there at once");
    assert!(store.stats().lost().is_empty());
}

#[test]
fn an_event_too_long_for_a_line_is_cut_and_still_gets_through() {
    let dir = TestDir::new();
    let store = dir.open();
    let mut long = alert(1);
    if let EventBody::Alert { alert, .. } = &mut long.body {
        alert.signature = "\u{1}ü".repeat(LINE_BYTES_MAX);
        alert.metadata.insert("k".to_owned(), vec!["v".repeat(LINE_BYTES_MAX)]);
    }
    let mut long_operation = operation("x");
    if let EventBody::Operation { operation } = &mut long_operation.body {
        operation.details.insert("list".to_owned(), serde_json::json!(vec![1; LINE_BYTES_MAX]));
    }
    let mut long_stats = stats();
    long_stats.body = EventBody::Stats { stats: serde_json::json!({ "list": vec![1; LINE_BYTES_MAX] }) };
    for event in [long, long_operation, long_stats] {
        assert!(store.sender().try_send(event));
    }
    store.flush().unwrap();
    assert_eq!(lines(&dir.log()).len(), 3);
    assert!(dir.log().lines().all(|line| line.len() < LINE_BYTES_MAX));
    assert_eq!(store.stats().cut, 3);
    assert_eq!(store.query(&Query { signature_id: Some(1), ..Query::default() }).unwrap().len(), 1);
}

/// A small file system for a test; unmounted on drop.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, bytes: usize) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_costs_events_that_are_counted_and_told_and_nothing_else() {
    let dir = TestDir::new();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    let Some(disk) = SmallDisk::mount(&log, 256 * 1024) else {
        println!("NOT RUN: a_full_disk_costs_events_that_are_counted_and_told_and_nothing_else (may not mount)");
        return;
    };
    let store = Store::open(StoreConfig { log_types: types("flow,operation"), ..dir.config() }).unwrap();
    let filler = log.join("filler");
    fs::write(&filler, vec![0; 128 * 1024]).unwrap();
    let mut sent = 0;
    for _ in 0..20 {
        (0..100).for_each(|_| sent += u64::from(store.sender().try_send(flow())));
        store.flush().unwrap();
    }
    let stats = store.stats();
    let (written, lost) = (stats.written[&EventType::Flow], stats.lost_log[&EventType::Flow]);
    assert!(written > 0 && lost > 0, "{stats:?}");
    assert_eq!(written + lost, sent);
    assert_eq!(lines(&dir.log()).len() as u64, written, "whole lines only, and all that were counted");
    fs::remove_file(&filler).unwrap();
    assert!(store.sender().try_send(flow()));
    store.flush().unwrap();
    drop(store);
    let told = actions(&dir);
    assert!(told.contains(&"log-failed".to_owned()) && told.contains(&"events-lost".to_owned()), "{told:?}");
    drop(disk);
}

#[test]
fn a_full_disk_under_the_database_costs_rows_and_not_lines() {
    let dir = TestDir::new();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let Some(disk) = SmallDisk::mount(&state, 512 * 1024) else {
        println!("NOT RUN: a_full_disk_under_the_database_costs_rows_and_not_lines (may not mount)");
        return;
    };
    let store = dir.open();
    for _ in 0..20 {
        (0..100).for_each(|sid| assert!(store.sender().try_send(alert(sid))));
        store.flush().unwrap();
    }
    let stats = store.stats();
    assert!(stats.lost_database[&EventType::Alert] > 0, "{stats:?}");
    assert!(stats.lost_log.is_empty(), "{stats:?}");
    assert_eq!(stats.databases_replaced, 0, "a full disk is not damage");
    assert!(!store.query(&Query::newest(10)).unwrap().is_empty());
    drop(store);
    drop(disk);
}
