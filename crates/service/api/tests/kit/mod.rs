//! An agent without a datapath: a real event store behind the API, and made-up answers for the rest.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bulkhead_api::{
    ApiError, ArmRequest, ArmState, Armed, ArmedInterface, Backend, Client, Coverage, Done, EngineState, EngineStats, ErrorCode,
    EventCounts, EventQuery, FailMode, Follow, InterfaceCoverage, Metric, ModeChange, ModeChanged, ModeRule, ModeSummary, ModeView,
    PairCoverage, PathFamily, PathKind, PathState, PathTechnique, PolicyChange, PolicyView, Problem, Protected, Reloaded, RuleCounts,
    Server, ServerConfig, Severity, Status, Why, WorkloadClass, WorkloadView,
};
use bulkhead_model::event::{Dropped, WorkloadPair};
use bulkhead_model::{
    Alert, AlertAction, Event, EventBody, Interface, InterfaceKind, Mode, Network, Operation, Published, Runtime, Side, Timestamp, Workload,
};
use bulkhead_store::{Store, StoreConfig, StoreError};

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bulkhead-api-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with a fake agent behind it.
pub struct Lab {
    pub server: Server,
    pub agent: Arc<FakeAgent>,
    pub dir: TestDir,
}

impl Lab {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = TestDir::new();
        let store = Store::open(StoreConfig {
            log: dir.path().join("eve.json"),
            database: dir.path().join("events.db"),
            queue_events_max: 65_536,
            ..StoreConfig::default()
        });
        let agent = Arc::new(FakeAgent::new(store.unwrap()));
        let mut config = ServerConfig { socket: dir.path().join("s"), ..ServerConfig::default() };
        change(&mut config);
        let server = Server::start(&config, agent.clone()).unwrap();
        Self { server, agent, dir }
    }

    pub fn client(&self) -> Client {
        Client::new(self.server.socket()).unwrap()
    }

    pub fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a whole request and reads the answer.
    pub fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.raw();
        stream.write_all(request).unwrap();
        read_all(&mut stream)
    }

    /// Sends bytes as they are, closes its side, and reads what comes until the end; an error of the socket is an end too.
    pub fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.raw();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_all(&mut stream)
    }
}

pub fn read_all(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub struct FakeAgent {
    pub store: Store,
    pub policy: Mutex<String>,
    pub revision: AtomicU64,
    pub default_mode: Mutex<Mode>,
    pub degraded: Mutex<Vec<String>>,
    pub complete: AtomicBool,
    pub down: AtomicBool,
    pub pid: Mutex<u32>,
    /// So many further times a container's network is not armed yet.
    pub waiting: AtomicU32,
    pub fail: Mutex<FailMode>,
    pub arm_asked: Mutex<Vec<ArmRequest>>,
    /// While set, `workloads` does not return.
    hang: Mutex<bool>,
    go_on: Condvar,
}

impl FakeAgent {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            policy: Mutex::new("mode: monitor\n".to_owned()),
            revision: AtomicU64::new(7),
            default_mode: Mutex::new(Mode::Monitor),
            degraded: Mutex::default(),
            complete: AtomicBool::new(true),
            down: AtomicBool::new(false),
            pid: Mutex::new(4711),
            waiting: AtomicU32::new(0),
            fail: Mutex::new(FailMode::Open),
            arm_asked: Mutex::default(),
            hang: Mutex::new(false),
            go_on: Condvar::new(),
        }
    }

    pub fn hang(&self, hang: bool) {
        *self.hang.lock().unwrap() = hang;
        self.go_on.notify_all();
    }

    pub fn send(&self, event: Event) {
        assert!(self.store.sender().try_send(event));
    }

    pub fn send_now(&self, event: Event) {
        self.send(event);
        self.store.flush().unwrap();
    }
}

impl Backend for FakeAgent {
    fn status(&self) -> Result<Status, ApiError> {
        let degraded = self.degraded.lock().unwrap().clone();
        Ok(Status {
            version: "0.1.0".to_owned(),
            pid: *self.pid.lock().unwrap(),
            started: NOON,
            uptime_secs: 11_527,
            enforcing: true,
            degraded,
            mode: ModeSummary { default: *self.default_mode.lock().unwrap(), monitor: 1, protect: 1, unprotected: 1 },
            path: PathState {
                kind: PathTechnique::Tcx,
                interfaces_armed: 2,
                interfaces_unarmed: Vec::new(),
                held_packets: 0,
                held_packets_max: 4096,
                held_refused: 0,
            },
            fail: FailMode::Open,
            heartbeat_age_ms: Some(40),
            engine: EngineStats(BTreeMap::from([("flow.active".to_owned(), 12)])),
            inventory: vec![
                EngineState { name: "docker".to_owned(), connected: true, workloads: 3, detail: Some("20.10.24".to_owned()) },
                EngineState { name: "podman".to_owned(), connected: false, workloads: 0, detail: None },
            ],
            rules: RuleCounts { loaded: 120, unsupported: 3, wrong: 0, files: vec!["/etc/bulkhead/rules/lab.rules".to_owned()] },
            events: EventCounts::from(&self.store.stats()),
            rss_bytes: 25_270_000,
            policy_revision: self.revision.load(Ordering::Relaxed),
        })
    }

    fn workloads(&self) -> Result<Vec<WorkloadView>, ApiError> {
        let mut hang = self.hang.lock().unwrap();
        while *hang {
            hang = self.go_on.wait(hang).unwrap();
        }
        Ok(vec![
            workload("attacker", 2, Mode::Monitor, Protected::Yes),
            workload("monitoring", 4, Mode::Monitor, Protected::No("uses the host's network".to_owned())),
            workload("web", 3, Mode::Protect, Protected::Yes),
        ])
    }

    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, ApiError> {
        self.store.query(query).map_err(|error| ApiError::internal(error.to_string()))
    }

    fn follow(&self) -> Result<Box<dyn Follow>, ApiError> {
        match self.store.follow() {
            Ok(follower) => Ok(Box::new(follower)),
            Err(error @ StoreError::TooManyFollowers) => Err(ApiError::new(ErrorCode::Busy, error.to_string())),
            Err(error) => Err(ApiError::internal(error.to_string())),
        }
    }

    fn why(&self, event_id: u64) -> Result<Why, ApiError> {
        assert_ne!(event_id, 666, "a defect of the agent, made on purpose");
        let event =
            self.events(&EventQuery::by_id(event_id))?.pop().ok_or_else(|| ApiError::not_found(format!("there is no event {event_id}")))?;
        Ok(Why {
            event,
            explanation: vec![
                "web's interface saw a packet of the flow from attacker to port 80".to_owned(),
                "the engine found signature 2001 in the stream and it says drop".to_owned(),
                "web is in protect: the packet was dropped and the flow with it".to_owned(),
            ],
            rule: Some("drop tcp any any -> any 80 (msg:\"LAB command injection\"; content:\"/cgi-bin/\"; sid:2001; rev:1;)".to_owned()),
            rule_source: Some("/etc/bulkhead/rules/lab.rules:12".to_owned()),
            policy: Some("match: web\nmode: protect".to_owned()),
            policy_source: Some("/etc/bulkhead/bulkhead.yaml:4".to_owned()),
            workloads: vec![workload("web", 3, Mode::Protect, Protected::Yes)],
            next: vec!["bulkhead events --workload attacker   # what else it did".to_owned()],
        })
    }

    fn coverage(&self) -> Result<Coverage, ApiError> {
        let complete = self.complete.load(Ordering::Relaxed);
        let gap_bytes = if complete { 0 } else { 1500 };
        Ok(Coverage {
            pairs: vec![
                PairCoverage {
                    src: "attacker".to_owned(),
                    dst: "web".to_owned(),
                    kind: PathKind::SameBridge,
                    family: PathFamily::Ipv4,
                    vlan: false,
                    carried_packets: 12,
                    carried_bytes: 12_000 + gap_bytes,
                    inspected_bytes: 8_000,
                    bypassed: BTreeMap::from([("depth".to_owned(), 3_000)]),
                    dropped: BTreeMap::from([("rule".to_owned(), 1_000)]),
                    gap_bytes,
                },
                PairCoverage {
                    src: "web".to_owned(),
                    dst: "world".to_owned(),
                    kind: PathKind::Internet,
                    family: PathFamily::Ipv6,
                    vlan: true,
                    carried_packets: 2,
                    carried_bytes: 3_000_000,
                    inspected_bytes: 3_000_000,
                    bypassed: BTreeMap::new(),
                    dropped: BTreeMap::new(),
                    gap_bytes: 0,
                },
            ],
            interfaces: vec![InterfaceCoverage {
                interface: "veth0a1b2c3".to_owned(),
                workload: "web".to_owned(),
                kernel_bytes: 3_012_000,
                seen_bytes: 3_012_000 - gap_bytes,
                gap_bytes,
            }],
            total_percent: if complete { 100.0 } else { 99.950_2 },
            complete,
        })
    }

    fn arm(&self, request: &ArmRequest) -> Result<Armed, ApiError> {
        let mut hang = self.hang.lock().unwrap();
        while *hang {
            hang = self.go_on.wait(hang).unwrap();
        }
        self.arm_asked.lock().unwrap().push(request.clone());
        if request.pid == 0 {
            return Err(ApiError::not_found("there is no process 0"));
        }
        let waiting = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        Ok(Armed {
            state: if waiting { ArmState::Waiting } else { ArmState::Armed },
            netns: 4_026_532_500,
            workload: Some("web".to_owned()),
            interfaces: vec![ArmedInterface {
                name: "eth0".to_owned(),
                host_name: Some("veth0a1b2c3".to_owned()),
                armed: !waiting,
                reason: waiting.then(|| "not armed yet".to_owned()),
            }],
            fail: *self.fail.lock().unwrap(),
        })
    }

    fn mode(&self) -> Result<ModeView, ApiError> {
        Ok(ModeView {
            default: *self.default_mode.lock().unwrap(),
            rules: vec![ModeRule {
                selector: "name=web".to_owned(),
                mode: Mode::Protect,
                source: Some("/etc/bulkhead/bulkhead.yaml:4".to_owned()),
            }],
            workloads: BTreeMap::from([("attacker".to_owned(), Mode::Monitor), ("web".to_owned(), Mode::Protect)]),
        })
    }

    fn set_mode(&self, change: &ModeChange) -> Result<ModeChanged, ApiError> {
        if change.selector.is_none() {
            *self.default_mode.lock().unwrap() = change.mode;
        }
        let policy_revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(ModeChanged { selector: change.selector.clone(), mode: change.mode, workloads: vec!["web".to_owned()], policy_revision })
    }

    fn policy(&self) -> Result<PolicyView, ApiError> {
        Ok(PolicyView {
            revision: self.revision.load(Ordering::Relaxed),
            applied: NOON,
            sources: vec!["/etc/bulkhead/bulkhead.yaml".to_owned()],
            text: self.policy.lock().unwrap().clone(),
        })
    }

    fn check_policy(&self, text: &str) -> Result<PolicyChange, ApiError> {
        if text.contains("nonsense") {
            let problem = Problem {
                severity: Severity::Error,
                code: "unknown-key".to_owned(),
                file: Some("bulkhead.yaml".to_owned()),
                line: Some(1),
                column: Some(1),
                sid: None,
                message: "unknown key `nonsense`".to_owned(),
                help: Some("take it away".to_owned()),
            };
            return Err(ApiError::refused("the policy has 1 error; nothing was applied", vec![problem]));
        }
        let changes = vec!["default mode monitor -> protect".to_owned()];
        Ok(PolicyChange { applied: false, revision: self.revision.load(Ordering::Relaxed), problems: Vec::new(), changes })
    }

    fn apply_policy(&self, text: &str) -> Result<PolicyChange, ApiError> {
        let checked = self.check_policy(text)?;
        *self.policy.lock().unwrap() = text.to_owned();
        Ok(PolicyChange { applied: true, revision: self.revision.fetch_add(1, Ordering::Relaxed) + 1, ..checked })
    }

    fn reload(&self) -> Result<Reloaded, ApiError> {
        Ok(Reloaded { policy_revision: self.revision.load(Ordering::Relaxed), rules: self.status()?.rules, problems: Vec::new() })
    }

    fn down(&self) -> Result<Done, ApiError> {
        self.down.store(true, Ordering::Relaxed);
        Ok(Done { message: "taken off 2 interfaces; the host is as it was".to_owned() })
    }

    fn metrics(&self) -> Result<Vec<Metric>, ApiError> {
        Ok(vec![Metric::counter("bulkhead_packets_total", "Packets judged", 12), Metric::gauge("bulkhead_flows", "Flows remembered", 3.0)])
    }
}

pub const NOON: Timestamp = Timestamp::from_secs(1_795_435_200);

pub fn workload(name: &str, id: u32, mode: Mode, protected: Protected) -> WorkloadView {
    let host = matches!(protected, Protected::No(_));
    let interface = Interface {
        name: "eth0".to_owned(),
        ifindex: 12,
        kind: InterfaceKind::Veth,
        mac: "02:42:c6:33:64:02".to_owned(),
        addresses: vec![IpAddr::from([198, 51, 100, id as u8])],
        host_ifindex: Some(13),
        host_name: Some("veth0a1b2c3".to_owned()),
        bridge: Some("docker0".to_owned()),
    };
    let published = Published { host_address: IpAddr::from([0, 0, 0, 0]), host_port: 8080, container_port: 80, protocol: "tcp".to_owned() };
    WorkloadView {
        workload: Workload {
            key: format!("{id:064x}"),
            name: name.to_owned(),
            image: Some(format!("registry.example/{name}:1.27")),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            runtime: Runtime::Docker,
            pid: 1000 + id,
            cgroup: "/docker/x".to_owned(),
            network: if host { Network::Host } else { Network::Own { netns: 4_026_531_840 + u64::from(id) } },
            interfaces: if host { Vec::new() } else { vec![interface] },
            published: if name == "web" { vec![published] } else { Vec::new() },
        },
        id,
        class: if host { WorkloadClass::HostNetwork } else { WorkloadClass::Container },
        mode,
        fail: FailMode::Open,
        protected,
        selected_by: (mode == Mode::Protect).then(|| "name=web".to_owned()),
    }
}

pub fn event(body: EventBody) -> Event {
    let address = |last: u8| Some(IpAddr::from([198, 51, 100, last]));
    let side = |name: &str, mode| Side { name: name.to_owned(), id: None, image: None, mode };
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
        workload: Some(WorkloadPair { src: side("attacker", Mode::Monitor), dest: side("web", Mode::Protect), policy_revision: 7 }),
        body,
    }
}

pub fn alert(sid: u32) -> Event {
    event(EventBody::Alert {
        alert: Alert {
            action: AlertAction::Blocked,
            gid: 1,
            signature_id: sid,
            rev: 1,
            signature: "LAB command injection".to_owned(),
            category: "Web Application Attack".to_owned(),
            severity: 1,
            metadata: BTreeMap::new(),
            references: Vec::new(),
            rule_source: Some("lab.rules:12".to_owned()),
            would_have_blocked: false,
        },
        flow: None,
    })
}

pub fn drop_event() -> Event {
    event(EventBody::Drop {
        drop: Dropped {
            verdict: "blocked".to_owned(),
            reason: "segment".to_owned(),
            explanation: "segment rule `no-lateral` denies attacker to web".to_owned(),
            len: 60,
            tier: "kernel".to_owned(),
        },
        alert: None,
    })
}

pub fn operation(action: &str, message: &str) -> Event {
    let mut event = event(EventBody::Operation {
        operation: Operation { action: action.to_owned(), message: message.to_owned(), details: BTreeMap::new() },
    });
    (event.src_ip, event.dest_ip, event.src_port, event.dest_port) = (None, None, None, None);
    (event.workload, event.flow_id, event.in_iface, event.proto, event.direction) = (None, None, None, None, None);
    event
}
