//! What goes wrong with the agent under traffic, and what then becomes of the traffic: it runs out of memory, it is replaced
//! by another. (Killed, hung and stopped: `path.rs`.) With `fail: open` no connection is lost; with `fail: closed` not one
//! packet passes unjudged, from the first moment to the last.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_kit::agent::{Agent, AgentPlan, program};
use bulkhead_kit::cgroup::MemoryCgroup;
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{self, Net};
use bulkhead_kit::process::{SIGTERM, TempDir};
use bulkhead_kit::traffic::{Beside, PATIENCE, Receiver, SILENCE, Service, Talk, Writes, tcp_exchange, udp_send};
use bulkhead_kit::{not_run, root_or_not_run, wait_until};
use bulkhead_sys::netns::Netns;

const BREACH: &[u8] = b"BULKHEAD-TEST-BREACH";
const RULES: &str = r#"
drop tcp any any -> any any (msg:"breach in a stream"; content:"BULKHEAD-TEST-BREACH"; sid:1000001; rev:1;)
drop udp any any -> any any (msg:"breach in a datagram"; content:"BULKHEAD-TEST-BREACH"; sid:1000002; rev:1;)
"#;
const OPEN: &str = "mode: protect\nfail: open\n";
const CLOSED: &str = "mode: protect\nfail: closed\nfail-after: 200 ms\n";

/// One agent at a time: it arms interfaces in every namespace of the machine.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn start(tag: &str, net: &Net, config: &str, under: &[String]) -> Agent {
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let agent = Agent::start_under(&AgentPlan { tag, host: Some(net.host()), config, rules: RULES, ..AgentPlan::default() }, &under);
    armed(&agent);
    agent
}

fn armed(agent: &Agent) {
    wait_until("2 interfaces armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));
}

fn restart(agent: &mut Agent, under: &[String]) {
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    agent.restart_under(&[], &under);
    armed(agent);
}

/// Another file with the program in it, and what starts it in the place of the one that the kit starts.
fn another_program(dir: &TempDir) -> Vec<String> {
    let path = dir.path().join("bulkhead");
    std::fs::copy(program(), &path).unwrap_or_else(|e| panic!("cannot copy the program: {e}"));
    ["sh".into(), "-c".into(), format!("shift; exec {} \"$@\"", path.display()), "sh".into()].into()
}

/// Datagrams of a new flow each, until the agent has ended or `most` are sent.
fn fill(agent: &mut Agent, from: &Netns, to: SocketAddr, most: u32) -> u32 {
    let end = Instant::now() + Duration::from_secs(40);
    let (mut sent, mut flow) = (0, 0u32);
    while sent < most && agent.process().ended().is_none() {
        assert!(Instant::now() < end, "{sent} datagrams in 40 s");
        let socket = from.run(|| UdpSocket::bind("0.0.0.0:0")).expect("namespace").expect("a socket");
        for _ in 0..2000 {
            let port = 2000 + (flow % 60_000) as u16;
            flow += 1;
            sent += u32::from(socket.send_to(&[b'f'; 600], SocketAddr::new(to.ip(), port)).is_ok());
        }
    }
    sent
}

/// The kernel kills the agent for want of memory, under traffic. Gives how many datagrams that took.
fn out_of_memory(agent: &mut Agent, cgroup: &MemoryCgroup, from: &Netns, to: SocketAddr) -> u32 {
    let (used, rss) = (cgroup.used(), agent.client().status().expect("status").rss_bytes);
    cgroup.limit(Some(used + (2 << 20)));
    let sent = fill(agent, from, to, 2_000_000);
    let status = agent.process().wait(PATIENCE);
    assert!(cgroup.oom_kills() > 0, "it ended otherwise: {status}\n{}", agent.process().output());
    println!("out of memory at {} KiB in its cgroup (agent {} KiB) after {sent} datagrams", (used + (2 << 20)) >> 10, rss >> 10);
    sent
}

#[test]
fn out_of_memory_with_fail_open_loses_no_connection() {
    const NAME: &str = "out_of_memory_with_fail_open_loses_no_connection";
    if !root_or_not_run(NAME) {
        return;
    }
    let _alone = alone();
    let cgroup = match MemoryCgroup::new("oomopen") {
        Ok(cgroup) => cgroup,
        Err(why) => return not_run(NAME, why),
    };
    let net = net::one_bridge("oomopen");
    let before = HostState::take(net.host());
    let (client, server) = (net.node("client"), net.node("server"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let mut agent = start("oomopen", &net, OPEN, &cgroup.entering());
    let talk = Beside::talk(&client.netns, target);
    let connections = Beside::connect(&client.netns, target);
    out_of_memory(&mut agent, &cgroup, &client.netns, target);
    let answers = talk.seen().answers;
    wait_until("the connection goes on without an agent", PATIENCE, || talk.seen().answers > answers + 20);
    println!("longest answer around the kill: {:?}, new connection: {:?}", talk.forget_longest(), connections.forget_longest());
    cgroup.limit(None);
    restart(&mut agent, &cgroup.entering());
    let evil = tcp_exchange(&client.netns, target, BREACH, &Writes::At(vec![9]), Duration::from_millis(300));
    assert!(evil.is_err(), "the second agent judges");
    println!("longest answer around the restart: {:?}, new connection: {:?}", talk.forget_longest(), connections.forget_longest());
    agent.down();
    for (what, seen) in [("established", talk.end()), ("new", connections.end())] {
        assert!(seen.failures.is_empty() && seen.answers > 20, "{what}: {seen:?}");
    }
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "oomopen"), "");
}

#[test]
fn out_of_memory_with_fail_closed_passes_nothing_unjudged() {
    const NAME: &str = "out_of_memory_with_fail_closed_passes_nothing_unjudged";
    if !root_or_not_run(NAME) {
        return;
    }
    let _alone = alone();
    let cgroup = match MemoryCgroup::new("oomshut") {
        Ok(cgroup) => cgroup,
        Err(why) => return not_run(NAME, why),
    };
    let net = net::one_bridge("oomshut");
    let before = HostState::take(net.host());
    let (client, server) = (net.node("client"), net.node("server"));
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let target = SocketAddr::new(server.v4.into(), udp.port);
    let mut agent = start("oomshut", &net, CLOSED, &cgroup.entering());
    udp_send(&client.netns, target, &[b"before"]).expect("sending");
    assert!(udp.saw(b"before", PATIENCE));
    let evil = Beside::datagrams(&client.netns, target, BREACH);
    out_of_memory(&mut agent, &cgroup, &client.netns, target);
    std::thread::sleep(Duration::from_millis(600));
    let quiet = udp.got().len();
    for _ in 0..200 {
        let _ = udp_send(&client.netns, target, &[b"unjudged"]);
    }
    std::thread::sleep(SILENCE);
    assert_eq!(udp.got().len(), quiet, "datagrams passed without an agent");
    cgroup.limit(None);
    restart(&mut agent, &cgroup.entering());
    wait_until("a clean datagram passes again", PATIENCE, || {
        let _ = udp_send(&client.netns, target, &[b"after"]);
        udp.got().iter().any(|got| got == b"after")
    });
    let sent = evil.end().answers;
    let passed = udp.got().iter().filter(|got| *got == BREACH).count();
    println!("{sent} breaches sent before, while and after the agent died: {passed} passed");
    assert!(sent > 100);
    assert_eq!(passed, 0);
    agent.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "oomshut"), "");
}

#[test]
fn an_upgrade_under_traffic_loses_no_connection() {
    if !root_or_not_run("an_upgrade_under_traffic_loses_no_connection") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("upgropen");
    let (client, server) = (net.node("client"), net.node("server"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let dir = TempDir::new("upgropen-new");
    let new = another_program(&dir);
    let mut agent = start("upgropen", &net, OPEN, &[]);
    let talk = Beside::talk(&client.netns, target);
    let connections = Beside::connect(&client.netns, target);
    wait_until("traffic", PATIENCE, || talk.seen().answers > 20 && connections.seen().answers > 2);
    talk.forget_longest();
    connections.forget_longest();
    // The second time the kernel's tables fit no more: another size of the flow table. They begin anew.
    for (what, config) in [("the same tables", OPEN.to_owned()), ("other tables", format!("{OPEN}inspect:\n  flows-max: 65536\n"))] {
        agent.dir().write("bulkhead.yaml", &config);
        let before = agent.process().pid();
        let begun = Instant::now();
        agent.process().end(SIGTERM, PATIENCE);
        let ended = begun.elapsed();
        restart(&mut agent, &new);
        let took = begun.elapsed();
        assert_ne!(agent.process().pid(), before);
        let exe = std::fs::read_link(format!("/proc/{}/exe", agent.process().pid())).expect("its program");
        assert_ne!(exe, program(), "the new program runs");
        let evil = tcp_exchange(&client.netns, target, BREACH, &Writes::At(vec![9]), Duration::from_millis(300));
        assert!(evil.is_err(), "the new agent judges");
        println!(
            "upgrade, {what}: {took:?} without an agent ({ended:?} of them for its end), longest answer {:?}, longest new connection {:?}",
            talk.forget_longest(),
            connections.forget_longest()
        );
    }
    agent.down();
    for (what, seen) in [("established", talk.end()), ("new", connections.end())] {
        assert!(seen.failures.is_empty() && seen.answers > 20, "{what}: {seen:?}");
    }
}

/// The longest time in which nothing came, until `done`.
fn longest_silence(receiver: &Receiver, done: &AtomicBool) -> Duration {
    let (mut longest, mut last, mut count) = (Duration::ZERO, Instant::now(), receiver.got().len());
    while !done.load(Ordering::Relaxed) {
        let now = receiver.got().len();
        if now != count {
            (last, count) = (Instant::now(), now);
        }
        longest = longest.max(last.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}

#[test]
fn an_upgrade_under_fail_closed_passes_nothing_unjudged() {
    if !root_or_not_run("an_upgrade_under_fail_closed_passes_nothing_unjudged") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("upgrshut");
    let (client, server) = (net.node("client"), net.node("server"));
    let udp = Receiver::udp(&server.netns, 0, Service::Sink);
    let target = SocketAddr::new(server.v4.into(), udp.port);
    let dir = TempDir::new("upgrshut-new");
    let new = another_program(&dir);
    let mut agent = start("upgrshut", &net, CLOSED, &[]);
    let clean = Beside::datagrams(&client.netns, target, b"clean");
    let evil = Beside::datagrams(&client.netns, target, BREACH);
    wait_until("clean datagrams pass", PATIENCE, || udp.got().len() > 50);
    for config in [CLOSED.to_owned(), format!("{CLOSED}inspect:\n  flows-max: 65536\n")] {
        agent.dir().write("bulkhead.yaml", &config);
        let done = AtomicBool::new(false);
        let longest = std::thread::scope(|scope| {
            let watching = scope.spawn(|| longest_silence(&udp, &done));
            agent.process().end(SIGTERM, PATIENCE);
            let count = udp.got().len();
            restart(&mut agent, &new);
            wait_until("clean datagrams pass again", PATIENCE, || udp.got().len() > count + 20);
            done.store(true, Ordering::Relaxed);
            watching.join().expect("the thread that watches")
        });
        println!("no clean datagram passed for {longest:?} while the old agent was replaced");
    }
    let (clean, evil) = (clean.end().answers, evil.end().answers);
    std::thread::sleep(SILENCE);
    let got = udp.got();
    let passed = got.iter().filter(|got| *got == BREACH).count();
    println!("over two upgrades: {passed} of {evil} breaches and {} of {clean} clean datagrams passed", got.len() - passed);
    assert!(evil > 500);
    assert_eq!(passed, 0);
    agent.down();
}

#[test]
fn a_second_agent_on_the_same_programs_is_refused_whatever_directory_it_runs_in() {
    if !root_or_not_run("a_second_agent_on_the_same_programs_is_refused_whatever_directory_it_runs_in") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("fltwice");
    let agent = start("fltwice", &net, OPEN, &[]);
    let elsewhere = agent.dir().path().join("elsewhere").display().to_string();
    let pins = agent.pin_dir();
    let socket = agent.dir().path().join("other.sock").display().to_string();
    let other = |verb: &str, more: &[&str]| {
        let words = [&["--socket", &socket, verb, "--run-dir", &elsewhere, "--pin-dir", &pins], more].concat();
        let output = agent.run(&words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let at = |name: &str| agent.dir().path().join("other").join(name).display().to_string();
    let text = format!(
        "api:\n  socket: {socket}\n  metrics: \"off\"\nevents:\n  eve:\n    path: {}\n  store:\n    path: {}\n",
        at("eve.json"),
        at("events.db")
    );
    let config = agent.dir().write("other/bulkhead.yaml", text).display().to_string();
    let (code, said) = other("run", &["--config", &config]);
    assert!(code == Some(3) && said.contains("is held by"), "{code:?}: {said}");
    let (code, said) = other("down", &[]);
    assert!(code != Some(0) && said.contains("is held by"), "{code:?}: {said}");
    // The first one is as it was.
    let status = agent.client().status().expect("status");
    assert!(status.path.interfaces_armed >= 2, "{status:?}");
    let (client, server) = (net.node("client"), net.node("server"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let mut talk = Talk::open(&client.netns, SocketAddr::new(server.v4.into(), echo.port)).expect("a connection");
    talk.say().expect("an answer");
}
