//! All published rules and all built-in ones at once, on the wire: what they find live is what they find in a recording of the
//! same packets, and a reload of all of them under load costs no connection. Needs `../shared/data`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::net::{self, Node};
use bulkhead_kit::traffic::{Beside, PATIENCE, Receiver, Service, Writes, tcp_exchange};
use bulkhead_kit::{not_run, root_or_not_run, wait_until};
use bulkhead_sys::poll::wait_readable;
use bulkhead_sys::rawpkt::PacketSocket;

/// Requests that are played: as many as take some seconds.
const REQUESTS: usize = 600;
/// Compiling everything takes seconds, more in a build without optimisation on a busy machine.
const LOADING: Duration = Duration::from_secs(120);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The data that tests share, or `None` and a line that says so.
fn shared(test: &str, name: &str) -> Option<PathBuf> {
    let path = repository().join("../shared/data").join(name);
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    not_run(test, format!("{} is not there", path.display()));
    None
}

/// Attack and benign requests of the Core Rule Set's tests, as bytes.
fn requests(file: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let cases: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // Spread over the file, which is ordered by rule.
    let step = (cases.len() / REQUESTS).max(1);
    cases.iter().step_by(step).filter(|case| case["encoded_request_b64"].is_null()).map(request).collect()
}

fn request(case: &serde_json::Value) -> Vec<u8> {
    let word = |name: &str, default: &str| case[name].as_str().unwrap_or(default).to_owned();
    let mut head = format!("{} {} {}\r\n", word("method", "GET"), word("uri", "/"), word("version", "HTTP/1.1"));
    let body = word("data", "");
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap_or_default());
    }
    if !body.is_empty() && !head.to_lowercase().contains("content-length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body.as_bytes()].concat()
}

/// Both directions of an interface, in a file that `bulkhead replay` reads.
struct Recording {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<u8>>>,
}

impl Recording {
    fn start(node: &Node) -> Self {
        let socket = PacketSocket::open_in(&node.netns, node.ifindex).unwrap_or_else(|e| panic!("{e}"));
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // The head of a pcap file: microseconds, version 2.4, Ethernet.
            let mut file: Vec<u8> =
                [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x0004_0000, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut buffer = vec![0; 1 << 18];
            while !theirs.load(Ordering::Relaxed) {
                while let Ok(Some(frame)) = socket.receive(&mut buffer) {
                    assert!(frame.len <= buffer.len(), "a frame was cut");
                    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    for word in [at.as_secs() as u32, at.subsec_micros(), frame.len as u32, frame.len as u32] {
                        file.extend_from_slice(&word.to_le_bytes());
                    }
                    file.extend_from_slice(&buffer[..frame.len]);
                }
                let _ = wait_readable(&socket, Some(Duration::from_millis(20)));
            }
            file
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).expect("the recording")
    }
}

/// Signature, and the ports, of each alert; the clock and the workloads differ by nature.
fn alerts<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<(u64, u64, u64)> {
    let events = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let alerts = events.filter(|event| event["event_type"] == "alert");
    alerts.filter_map(|a| Some((a["alert"]["signature_id"].as_u64()?, a["src_port"].as_u64()?, a["dest_port"].as_u64()?))).collect()
}

/// Rules that count over connections.
fn counting(file: &Path) -> BTreeSet<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let counts = text.lines().filter(|line| line.contains("threshold:") || line.contains("detection_filter:"));
    counts.filter_map(|line| line.split("sid:").nth(1)?.split(';').next()?.trim().parse().ok()).collect()
}

#[test]
fn all_rules_find_live_what_they_find_in_a_recording_and_a_reload_costs_no_connection() {
    const TEST: &str = "all_rules_find_live_what_they_find_in_a_recording_and_a_reload_costs_no_connection";
    if !root_or_not_run(TEST) {
        return;
    }
    let (Some(rules), Some(cases)) = (shared(TEST, "rules/et-open.rules"), shared(TEST, "http/crs_tests.jsonl")) else { return };
    let net = net::one_bridge("evrything");
    let (client, server) = (net.node("client"), net.node("server"));
    // From the world to a home, as the published rules have it, though both ends are workloads.
    let home = format!("{}/32", server.v4);
    let config = format!("fail-after: 60 s\nrules:\n  files: [{}]\n  variables: {{HOME_NET: \"{home}\"}}\n", rules.display());
    let plan = AgentPlan { tag: "evrything", host: Some(net.host()), config: &config, built_in_rules: true, ..AgentPlan::default() };
    let mut agent = Agent::launch_under(&plan, &[]);
    wait_until("all rules are compiled", LOADING, || agent.client().status().is_ok() || agent.process().ended().is_some());
    agent.wait_ready();
    let status = agent.client().status().expect("status");
    assert!(status.rules.loaded > 30_000, "{:?}", status.rules);
    wait_until("the interfaces are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));

    let web = Receiver::tcp(&server.netns, 80, Service::Page);
    let recording = Recording::start(client);
    let played = requests(&cases);
    assert!(played.len() > REQUESTS / 2, "{} requests", played.len());
    for request in &played {
        let answer = tcp_exchange(&client.netns, SocketAddr::new(server.v4.into(), web.port), request, &Writes::Whole, PATIENCE);
        assert!(answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")), "monitor blocks nothing");
    }
    std::thread::sleep(Duration::from_millis(200));
    let file = agent.dir().write("everything.pcap", recording.end());
    let eve = agent.dir().path().join("eve.json");
    let mut len = 0;
    wait_until("the log rests", PATIENCE, || {
        let before = std::mem::replace(&mut len, std::fs::metadata(&eve).map_or(0, |m| m.len()));
        std::thread::sleep(Duration::from_millis(1200));
        before == len
    });
    let lost = agent.client().status().expect("status").events.lost;
    assert_eq!(lost.values().sum::<u64>(), 0, "events were lost: {lost:?}");
    let live = alerts(std::fs::read_to_string(&eve).expect("events").lines());

    let mut words: Vec<String> = ["replay", "-o", "json", "--checksums", "none", "--var"].map(str::to_owned).to_vec();
    words.extend([format!("HOME_NET={home}"), file.display().to_string(), "--rules".to_owned(), rules.display().to_string()]);
    // Which connection is the one too many depends on the clock.
    let mut counting = counting(&rules);
    let own = std::fs::read_dir(repository().join("rules/bulkhead")).expect("the rules of the repository");
    for path in own.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|found| found == "rules")) {
        counting.append(&mut self::counting(&path));
        words.extend(["--rules".to_owned(), path.display().to_string()]);
    }
    let output = agent.run(&words);
    let text = String::from_utf8_lossy(&output.stdout);
    let by_connection = |found: BTreeSet<(u64, u64, u64)>| -> BTreeSet<(u64, u64, u64)> {
        found.into_iter().map(|(sid, from, to)| if counting.contains(&sid) { (sid, 0, 0) } else { (sid, from, to) }).collect()
    };
    let (live, replayed) = (by_connection(live), by_connection(alerts(text.lines())));
    if let Some(to) = std::env::var_os("EVERYTHING_KEEP") {
        let _ = std::fs::copy(&file, Path::new(&to).join("everything.pcap"));
        let _ = std::fs::copy(&eve, Path::new(&to).join("eve.json"));
    }
    let (only_live, only_replayed): (Vec<_>, Vec<_>) = (live.difference(&replayed).collect(), replayed.difference(&live).collect());
    println!("{} requests, {} rules: {} alerts live and {} replayed", played.len(), status.rules.loaded, live.len(), replayed.len());
    assert!(live.len() > 100, "{} alerts live; replay said {}", live.len(), String::from_utf8_lossy(&output.stderr));
    assert!(only_live.is_empty() && only_replayed.is_empty(), "only live: {only_live:?}\nonly replayed: {only_replayed:?}");

    // A reload of everything while connections are under way and new ones are made.
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let (talk, fresh) = (Beside::talk(&client.netns, target), Beside::connect(&client.netns, target));
    let before = talk.seen().answers;
    let reloaded = agent.client().reload().expect("the same rules again");
    assert_eq!(reloaded.rules.loaded, status.rules.loaded);
    let during = talk.seen().answers - before;
    std::thread::sleep(Duration::from_millis(300));
    let (talk, fresh) = (talk.end(), fresh.end());
    println!("{during} answers over one connection during the reload; the longest took {:?}", talk.longest);
    assert!(talk.failures.is_empty() && fresh.failures.is_empty(), "{:?} {:?}", talk.failures, fresh.failures);
    assert!(during > 50 && fresh.answers > 5, "{during} answers, {} connections", fresh.answers);
}
