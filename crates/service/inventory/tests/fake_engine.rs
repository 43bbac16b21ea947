//! The inventory against a Docker engine that is played by this test, so that it can do what a real
//! one does only on its worst days: hang, talk rubbish, send a hundred megabytes, go and come back.
//!
//! Its containers are processes of this test with the host's network, so no privilege is needed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_inventory::{Change, Config, EngineState, Inventory, Snapshot};
use bulkhead_model::{Network, Runtime, Workload};
use bulkhead_sys::procfs;

/// How the engine behaves towards a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Sound,
    /// Takes the request and never answers.
    Hangs,
    /// Answers in no language.
    Rubbish,
    /// JSON of another shape.
    WrongJson,
    Closes,
    /// A list of 100 MB.
    Floods,
    /// A list below the size cap, of millions of empty labels.
    Amplifies,
    /// One byte after another, for ever.
    Drips,
    /// Sound, but an event that never ends.
    EndlessEvent,
}

#[derive(Clone)]
struct FakeContainer {
    id: String,
    name: String,
    pid: u32,
}

struct State {
    manner: Manner,
    containers: BTreeMap<String, FakeContainer>,
    /// Being started: their inspect hangs, and only a list of all has them.
    created: BTreeMap<String, FakeContainer>,
    /// Containers whose inspect hangs.
    stuck: Vec<String>,
    followers: Vec<UnixStream>,
    requests: Vec<String>,
}

/// A Docker engine at a socket of its own.
struct Engine {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
}

impl Engine {
    fn start(path: &Path, manner: Manner) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let state = State {
            manner,
            containers: BTreeMap::new(),
            created: BTreeMap::new(),
            stuck: Vec::new(),
            followers: Vec::new(),
            requests: Vec::new(),
        };
        let engine = Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)), closing: Arc::default() };
        let (state, closing) = (Arc::clone(&engine.state), Arc::clone(&engine.closing));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if closing.load(Ordering::Acquire) {
                    return;
                }
                let state = Arc::clone(&state);
                // The client may go away at any time.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        engine
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked")
    }

    fn behave(&self, manner: Manner) {
        let mut state = self.lock();
        state.manner = manner;
        state.followers.clear();
    }

    /// Adds or replaces a container and tells of it as Docker does.
    fn tell(&self, container: &FakeContainer, action: &str) {
        self.lock().containers.insert(container.id.clone(), container.clone());
        self.event(&container.id, action);
    }

    fn remove(&self, id: &str) {
        self.lock().containers.remove(id);
        self.event(id, "die");
    }

    fn event(&self, id: &str, action: &str) {
        let event = format!(
            r#"{{"status":"{action}","id":"{id}","Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{}}}},"time":1}}"#
        );
        let chunk = format!("{:x}\r\n{event}\n\r\n", event.len() + 1);
        for follower in &mut self.lock().followers {
            let _ = follower.write_all(chunk.as_bytes());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.lock().followers.clear();
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers one request.
fn serve(mut stream: UnixStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&chunk[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (manner, containers, stuck) = {
        let mut state = state.lock().expect("no thread panicked");
        state.requests.push(target.clone());
        let (mut containers, mut stuck) = (state.containers.clone(), state.stuck.clone());
        stuck.extend(state.created.keys().cloned());
        if let Some((_, filter)) = target.split_once("?all=1&filters=") {
            containers.extend(state.created.clone());
            containers.retain(|id, _| filter == format!("%7B%22id%22:[%22{id}%22]%7D"));
        }
        (state.manner, containers, stuck)
    };
    let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path).replace("/v1.41", "");
    let hang = |stream: &mut UnixStream| stream.read(&mut [0]).map(drop);
    match manner {
        Manner::Hangs => return hang(&mut stream),
        Manner::Rubbish => return stream.write_all(b"\x16\x03\x01\x02\x00\x01 220 smtp ready\r\n\r\n\0\0\0"),
        Manner::Closes => return Ok(()),
        Manner::WrongJson => return ok(&mut stream, r#"{"Version":28,"ApiVersion":[],"x":"#),
        Manner::Drips => loop {
            stream.write_all(b"H")?;
            thread::sleep(Duration::from_millis(20));
        },
        Manner::Sound | Manner::Floods | Manner::Amplifies | Manner::EndlessEvent => {}
    }
    match path.as_str() {
        "/version" => ok(&mut stream, r#"{"Platform":{"Name":"x"},"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#),
        "/events" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            if manner == Manner::EndlessEvent {
                loop {
                    stream.write_all(b"400\r\n")?;
                    stream.write_all(&[b'x'; 0x400])?;
                    stream.write_all(b"\r\n")?;
                }
            }
            state.lock().expect("no thread panicked").followers.push(stream);
            Ok(())
        }
        "/containers/json" if manner == Manner::Floods => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[")?;
            let filler = vec![b' '; 1024 * 1024];
            for _ in 0..100 {
                stream.write_all(&filler)?;
            }
            stream.write_all(b"]")
        }
        "/containers/json" if manner == Manner::Amplifies => {
            let labels: Vec<String> = (0..1_500_000).map(|n| format!("\"{n}\":\"\"")).collect();
            let id = "a".repeat(64);
            ok(&mut stream, &format!(r#"[{{"Id":"{id}","Names":["/x"],"State":"running","Labels":{{{}}}}}]"#, labels.join(",")))
        }
        "/containers/json" => {
            let entries: Vec<String> = containers.values().map(|container| {
                let FakeContainer { id, name, .. } = container;
                format!(r#"{{"Id":"{id}","Names":["/{name}"],"Image":"img","Labels":{{}},"State":"running","HostConfig":{{"NetworkMode":"host"}}}}"#)
            }).collect();
            ok(&mut stream, &format!("[{}]", entries.join(",")))
        }
        other => match other.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json")) {
            Some(id) if stuck.iter().any(|stuck| stuck == id) => hang(&mut stream),
            Some(id) => match containers.get(id) {
                Some(FakeContainer { id, name, pid }) => ok(
                    &mut stream,
                    &format!(
                        r#"{{"Id":"{id}","Name":"/{name}","State":{{"Status":"running","Running":true,"Pid":{pid}}},"Config":{{"Image":"img:1","Labels":{{"a":"b"}}}},"HostConfig":{{"NetworkMode":"host"}},"NetworkSettings":{{"Ports":{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"8080"}}]}}}}}}"#
                    ),
                ),
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 27\r\n\r\n{\"message\":\"No such thing\"}"),
            },
            None => stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        },
    }
}

fn ok(stream: &mut UnixStream, body: &str) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// A directory and processes that go away with the test.
struct Stage {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Stage {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("bulkhead-fake-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self { dir, children: Vec::new() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// A container whose process is a `sleep` of this test.
    fn container(&mut self, letter: char, name: &str) -> FakeContainer {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep starts");
        let pid = child.id();
        self.children.push(child);
        FakeContainer { id: letter.to_string().repeat(64), name: name.into(), pid }
    }

    fn kill(&mut self, pid: u32) {
        for child in self.children.iter_mut().filter(|child| child.id() == pid) {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    fn config(&self) -> Config {
        let millis = Duration::from_millis;
        Config {
            docker: vec![self.socket()],
            request_timeout: millis(400),
            resync_interval: millis(300),
            backoff: (millis(20), millis(100)),
            absent_interval: millis(50),
            ..Config::without_engines()
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Waits for a snapshot of which `holds` is true. The limit only ends a test that has failed.
#[track_caller]
fn wait_for(inventory: &Inventory, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let limit = Instant::now() + Duration::from_secs(60);
    let mut snapshot = inventory.snapshot();
    while !holds(&snapshot) {
        assert!(Instant::now() < limit, "{what} never came; last: {snapshot:#?}, {:?}", inventory.counters());
        snapshot = inventory.wait_newer(snapshot.revision, Duration::from_millis(200));
    }
    snapshot
}

fn state(snapshot: &Snapshot) -> &EngineState {
    &snapshot.engines.first().expect("one engine").state
}

fn is_up(snapshot: &Snapshot) -> bool {
    matches!(state(snapshot), EngineState::Up { .. })
}

fn is_down(snapshot: &Snapshot, words: &str) -> bool {
    matches!(state(snapshot), EngineState::Down { reason } if reason.contains(words))
}

fn named<'a>(snapshot: &'a Snapshot, container: &FakeContainer) -> Option<&'a str> {
    snapshot.by_key(&container.id).map(|workload| workload.name.as_str())
}

/// Changes of these containers; the host may have others.
fn next_change(changes: &Receiver<Change>, id: &str) -> Change {
    loop {
        let change = changes.recv_timeout(Duration::from_secs(60)).expect("a change");
        match &change {
            Change::Added(w) | Change::Removed(w) | Change::Changed(w) if w.key == id => return change,
            _ => {}
        }
    }
}

#[test]
fn start_rename_restart_and_stop_are_followed() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let mut config = stage.config();
    // Only events may tell: the list is not asked for again in time.
    config.resync_interval = Duration::from_secs(3600);
    let inventory = Inventory::start(config).expect("started");
    wait_for(&inventory, "the engine", is_up);
    assert!(inventory.wait_settled(Duration::from_secs(60)));
    let (_, changes) = inventory.subscribe();

    let mut web = stage.container('a', "web");
    engine.tell(&web, "start");
    let Change::Added(added) = next_change(&changes, &web.id) else { panic!("not added") };
    let Workload { name, image, runtime, pid, network, published, .. } = &added;
    assert_eq!((name.as_str(), image.as_deref(), *runtime, *pid), ("web", Some("img:1"), Runtime::Docker, web.pid));
    assert_eq!((network, published.len()), (&Network::Host, 1));

    web.name = "shop".into();
    engine.tell(&web, "rename");
    assert!(matches!(next_change(&changes, &web.id), Change::Changed(workload) if workload.name == "shop"));

    let before = web.pid;
    web.pid = stage.container('a', "").pid;
    stage.kill(before);
    engine.tell(&web, "start");
    // Whether the old process is missed first depends on who is faster.
    let after = wait_for(&inventory, "the new process", |snapshot| snapshot.by_key(&web.id).is_some_and(|w| w.pid == web.pid));
    assert_eq!(named(&after, &web), Some("shop"));

    engine.remove(&web.id);
    wait_for(&inventory, "the end", |snapshot| snapshot.by_key(&web.id).is_none());
    let requests = engine.lock().requests.clone();
    assert_eq!(requests.iter().filter(|target| target.ends_with("/containers/json")).count(), 1, "{requests:?}");
}

#[test]
fn what_no_event_tells_is_healed_by_the_next_list() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let inventory = Inventory::start(stage.config()).expect("started");
    wait_for(&inventory, "the engine", is_up);
    let mut web = stage.container('a', "web");
    engine.lock().containers.insert(web.id.clone(), web.clone());
    wait_for(&inventory, "the container", |snapshot| named(snapshot, &web) == Some("web"));
    web.name = "renamed".into();
    engine.lock().containers.insert(web.id.clone(), web.clone());
    wait_for(&inventory, "its new name", |snapshot| named(snapshot, &web) == Some("renamed"));
    engine.lock().containers.clear();
    wait_for(&inventory, "its end", |snapshot| named(snapshot, &web).is_none());
}

#[test]
fn an_engine_at_its_worst_is_down_with_a_reason_and_up_again_when_it_recovers() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let web = stage.container('a', "web");
    engine.tell(&web, "start");
    let inventory = Inventory::start(stage.config()).expect("started");
    wait_for(&inventory, "the container", |snapshot| named(snapshot, &web) == Some("web"));
    for (manner, words) in [
        (Manner::Hangs, "in time"),
        (Manner::Rubbish, "not what it should be"),
        (Manner::WrongJson, "not what it should be"),
        (Manner::Closes, "closed the connection"),
        (Manner::Drips, "in time"),
        (Manner::Floods, "more than"),
        (Manner::EndlessEvent, "more than"),
    ] {
        engine.behave(manner);
        // The flood takes its time in a build without optimisation: either limit may end it.
        let down =
            wait_for(&inventory, "down", |snapshot| is_down(snapshot, words) || (manner == Manner::Floods && is_down(snapshot, "in time")));
        assert_eq!(named(&down, &web), Some("web"), "{manner:?}: the container still runs and keeps its name");
        engine.behave(Manner::Sound);
        let up = wait_for(&inventory, "up", is_up);
        assert_eq!(named(&up, &web), Some("web"), "{manner:?}");
    }
    let counters = inventory.counters();
    assert!(counters.engine_timeouts >= 2 && counters.engine_malformed >= 2 && counters.engine_failures >= 7, "{counters:?}");
    assert!(counters.engine_oversized >= 1, "{counters:?}");
}

#[test]
fn a_large_answer_of_small_things_does_not_fill_the_memory() {
    let stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let mut config = stage.config();
    config.request_timeout = Duration::from_secs(60);
    let inventory = Inventory::start(config).expect("started");
    wait_for(&inventory, "the engine", is_up);
    engine.behave(Manner::Amplifies);
    let limit = Instant::now() + Duration::from_secs(60);
    while inventory.counters().listed_beyond_cap < 1_000_000 {
        assert!(Instant::now() < limit, "{:?}", inventory.counters());
        thread::sleep(Duration::from_millis(20));
    }
    // The engine of this test is in the same process and holds its 16 MB of text twice.
    let rss = procfs::Process::own().rss_bytes().expect("our own memory");
    assert!(rss < 300 * 1024 * 1024, "{rss} bytes are resident");
}

#[test]
fn an_engine_that_goes_and_comes_back_changes_nothing_about_what_runs() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let (web, db) = (stage.container('a', "web"), stage.container('b', "db"));
    engine.tell(&web, "start");
    engine.tell(&db, "start");
    let inventory = Inventory::start(stage.config()).expect("started");
    wait_for(&inventory, "both", |snapshot| named(snapshot, &web).is_some() && named(snapshot, &db).is_some());
    let (_, changes) = inventory.subscribe();
    drop(engine);
    let gone = wait_for(&inventory, "absence", |snapshot| *state(snapshot) == EngineState::Absent);
    assert_eq!((named(&gone, &web), named(&gone, &db)), (Some("web"), Some("db")));
    // One of them ends while nobody is there to tell.
    stage.kill(db.pid);
    wait_for(&inventory, "its end", |snapshot| named(snapshot, &db).is_none());
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    engine.tell(&web, "start");
    wait_for(&inventory, "the engine again", is_up);
    let of_web = changes.try_iter().filter(|change| match change {
        Change::Added(w) | Change::Removed(w) | Change::Changed(w) => w.key == web.id,
        Change::Resync => true,
    });
    assert_eq!(of_web.count(), 0, "the one that went on running was never touched");
}

#[test]
fn a_container_that_is_being_started_is_known_by_name_before_its_engine_tells() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let inventory = Inventory::start(stage.config()).expect("starts");
    wait_for(&inventory, "the engine", is_up);
    let (web, other) = (stage.container('a', "web"), stage.container('b', "other"));
    engine.lock().created.insert(web.id.clone(), web.clone());
    assert!(inventory.announce(web.pid, Some(&web.id)), "the engine describes it");
    let snapshot = wait_for(&inventory, "its name", |snapshot| named(snapshot, &web).is_some());
    let workload = snapshot.by_key(&web.id).expect("just seen");
    assert_eq!((workload.name.as_str(), workload.image.as_deref(), workload.pid), ("web", Some("img"), web.pid));
    // The start is over: what the engine tells then is more, and a late announcement does not undo it.
    engine.lock().created.clear();
    engine.tell(&web, "start");
    let ports = |snapshot: &Snapshot| snapshot.by_key(&web.id).is_some_and(|workload| workload.published.len() == 1);
    wait_for(&inventory, "its ports", ports);
    inventory.announce(web.pid, Some(&web.id));
    engine.tell(&other, "start");
    let snapshot = wait_for(&inventory, "the other", |snapshot| named(snapshot, &other).is_some());
    assert!(ports(&snapshot), "{snapshot:#?}");
    // Nothing that an engine cannot have named is asked for, and one that does not answer costs no more than its time.
    let asked = engine.lock().requests.len();
    assert!(!inventory.announce(web.pid, Some("x/../y")) && !inventory.announce(web.pid, None));
    assert!(engine.lock().requests.iter().skip(asked).all(|target| !target.contains("all=1")));
    engine.behave(Manner::Hangs);
    assert!(!inventory.announce(web.pid, Some(&web.id)));
}

#[test]
fn one_container_that_cannot_be_inspected_does_not_hide_the_others() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let (first, second, third) = (stage.container('a', "first"), stage.container('b', "second"), stage.container('c', "third"));
    engine.lock().stuck.push(first.id.clone());
    for container in [&first, &second, &third] {
        engine.tell(container, "start");
    }
    let inventory = Inventory::start(stage.config()).expect("started");
    let snapshot = wait_for(&inventory, "the others", |snapshot| named(snapshot, &second).is_some() && named(snapshot, &third).is_some());
    assert_eq!(named(&snapshot, &first), None, "nothing tells its process");
    wait_for(&inventory, "the engine", is_up);
    assert!(inventory.counters().engine_timeouts >= 1);
    engine.lock().stuck.clear();
    wait_for(&inventory, "the first", |snapshot| named(snapshot, &first).is_some());
}

#[test]
fn an_engine_that_listens_and_never_accepts_is_down() {
    let stage = Stage::new();
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&socket2::SockAddr::unix(stage.socket()).expect("a path")).expect("bound");
    listener.listen(0).expect("listening");
    let inventory = Inventory::start(stage.config()).expect("started");
    wait_for(&inventory, "down", |snapshot| is_down(snapshot, "in time"));
    assert!(inventory.wait_settled(Duration::from_secs(60)), "a hung engine is a known state, not an endless start");
}

#[test]
fn a_second_inventory_gives_the_same_keys_as_the_first() {
    let mut stage = Stage::new();
    let engine = Engine::start(&stage.socket(), Manner::Sound);
    let web = stage.container('a', "web");
    engine.tell(&web, "start");
    let first = Inventory::start(stage.config()).expect("started");
    let before = wait_for(&first, "the container", |snapshot| named(snapshot, &web).is_some());
    // Dropping cuts the stream of events on which its thread waits, also when the engine hangs.
    engine.lock().manner = Manner::Hangs;
    drop(first);
    engine.lock().manner = Manner::Sound;
    let second = Inventory::start(stage.config()).expect("started");
    let after = wait_for(&second, "the container", |snapshot| named(snapshot, &web).is_some());
    assert_eq!(before.by_key(&web.id), after.by_key(&web.id));
}

#[test]
fn without_any_engine_it_settles_and_lists_what_the_kernel_shows() {
    let inventory = Inventory::start(Config::without_engines()).expect("started");
    assert!(inventory.wait_settled(Duration::from_secs(60)));
    let snapshot = inventory.snapshot();
    assert_eq!((snapshot.engines.len(), &snapshot.problem), (0, &None));
    assert!(inventory.counters().scans >= 1);
}
