//! A directory of its own for each test, removed afterwards, and events to fill stores with.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_model::event::{Anomaly, Dropped, WorkloadPair};
use bulkhead_model::{Alert, AlertAction, Event, EventBody, FlowRecord, Mode, Operation, Side, Timestamp};
use bulkhead_store::{EventTypes, Store, StoreConfig};

pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bulkhead-store-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn config(&self) -> StoreConfig {
        let (log, database) = (self.0.join("log/eve.json"), self.0.join("state/events.db"));
        // The events here are of a day that is long over: their age puts no file aside.
        StoreConfig { log, database, rotate_secs: 100 * 365 * 24 * 3600, ..StoreConfig::default() }
    }

    pub fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.0.join("log/eve.json")).unwrap()
    }

    /// Names of the archives, sorted.
    pub fn archives(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.0.join("log")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("eve-"));
        names.sort();
        names
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const NOON: Timestamp = Timestamp::from_secs(1_795_435_200);

pub fn event(body: EventBody) -> Event {
    let address = |last: u8| Some(IpAddr::from([198, 51, 100, last]));
    Event {
        timestamp: NOON,
        event_id: 0,
        flow_id: Some(1_234_567_890_123),
        in_iface: Some("veth0a1b2c3".to_owned()),
        src_ip: address(2),
        src_port: Some(41_234),
        dest_ip: address(3),
        dest_port: Some(80),
        proto: Some("TCP".to_owned()),
        app_proto: None,
        direction: Some("to_server".to_owned()),
        workload: Some(WorkloadPair { src: side("web"), dest: side("db"), policy_revision: 7 }),
        body,
    }
}

pub fn side(name: &str) -> Side {
    Side { name: name.to_owned(), id: Some("0123456789ab".repeat(5)), image: Some("nginx:1.27".to_owned()), mode: Mode::Protect }
}

pub fn signature(sid: u32) -> Alert {
    Alert {
        action: AlertAction::Blocked,
        gid: 1,
        signature_id: sid,
        rev: 1,
        signature: format!("LAB test signature {sid}"),
        category: "Web Application Attack".to_owned(),
        severity: 1,
        metadata: std::collections::BTreeMap::new(),
        references: vec!["cve,2021-44228".to_owned()],
        rule_source: Some("lab.rules:12".to_owned()),
        would_have_blocked: false,
    }
}

pub fn alert(sid: u32) -> Event {
    event(EventBody::Alert { alert: signature(sid), flow: None })
}

pub fn drop_event() -> Event {
    let drop = Dropped {
        verdict: "blocked".to_owned(),
        reason: "segment".to_owned(),
        explanation: "segment rule 2 denies web to db".to_owned(),
        len: 60,
        tier: "kernel".to_owned(),
    };
    event(EventBody::Drop { drop, alert: None })
}

pub fn flow() -> Event {
    event(EventBody::Flow { flow: FlowRecord { pkts_toserver: 3, bytes_toserver: 300, ..FlowRecord::default() } })
}

pub fn anomaly() -> Event {
    event(EventBody::Anomaly { anomaly: Anomaly { r#type: "decode".to_owned(), event: "ipv4.trunc_pkt".to_owned() } })
}

pub fn operation(action: &str) -> Event {
    event(EventBody::Operation {
        operation: Operation { action: action.to_owned(), message: "done".to_owned(), details: std::collections::BTreeMap::new() },
    })
}

pub fn stats() -> Event {
    event(EventBody::Stats { stats: serde_json::json!({ "decode": { "pkts": 1 } }) })
}

pub fn from_to(mut event: Event, src: &str, dest: &str) -> Event {
    event.workload = Some(WorkloadPair { src: side(src), dest: side(dest), policy_revision: 7 });
    event
}

pub fn types(text: &str) -> EventTypes {
    text.parse().unwrap()
}

pub fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.event_id).collect()
}

/// Every line of a log as an event; panics on a line that is none.
pub fn lines(text: &str) -> Vec<Event> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
