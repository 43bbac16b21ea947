//! The agent beside a real Docker: identity, every way to a container that Docker makes, starts, restarts and renames,
//! and Docker's own rules as they were.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::{Protected, WorkloadClass, WorkloadView};
use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::docker::{Container, Dockerd};
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{Attach, Fabric, NodePlan, Plan};
use bulkhead_kit::traffic::{PATIENCE, SILENCE, Writes, contains, http_get, tcp_exchange};
use bulkhead_kit::wait_until;
use bulkhead_model::EventBody;
use bulkhead_sys::netns::Netns;

const RULES: &str = "drop tcp any any -> any any (msg:\"breach\"; flow:to_server; content:\"BULKHEAD-TEST-BREACH\"; sid:1000001; rev:1;)\n";
/// Serves one page, and says on its standard output which pages were asked for.
const WEB: [&str; 3] = ["sh", "-c", "mkdir /w; echo served >/w/index.html; exec httpd -f -vv -p 80 -h /w"];
/// The address of dockerd's host on the link to the node outside, and that node's.
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 193);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 194);

/// One agent at a time in dockerd's host: tests of this file take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Host {
    docker: Arc<Dockerd>,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Host {
    fn new(test: &str) -> Option<Self> {
        let docker = Dockerd::shared(test)?;
        Some(Self { docker, _turn: TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner) })
    }

    fn agent(&self, tag: &str, config: &str) -> Agent {
        let config = format!("{config}inventory:\n  docker: {}\n", self.docker.socket().display());
        Agent::start(&AgentPlan { tag, host: Some(self.docker.host()), config: &config, rules: RULES, ..AgentPlan::default() })
    }
}

fn view(agent: &Agent, name: &str) -> Option<WorkloadView> {
    agent.client().workloads().expect("workloads").into_iter().find(|w| w.workload.name == name)
}

fn wait_protected(agent: &Agent, names: &[&str]) {
    for name in names {
        wait_until(&format!("{name} is on the path"), PATIENCE, || view(agent, name).is_some_and(|w| w.protected == Protected::Yes));
    }
}

/// A page is served, and a request with the breach in it never reaches the server, whole or split.
fn served_and_blocked(what: &str, from: &Netns, to: SocketAddr, web: &Container, docker: &Dockerd) {
    let mut page = String::new();
    let ask = || {
        page = http_get(from, to, "/").unwrap_or_default();
        contains(page.as_bytes(), b"served")
    };
    wait_until(&format!("{what}: an ordinary request is answered"), PATIENCE, ask);
    let evil = b"GET /BULKHEAD-TEST-BREACH HTTP/1.0\r\n\r\n";
    for writes in [Writes::Whole, Writes::At(vec![12]), Writes::At(vec![8, 15, 22])] {
        let answer = tcp_exchange(from, to, evil, &writes, SILENCE);
        assert!(!answer.as_ref().is_ok_and(|a| !a.is_empty()), "{what}: the server answered {answer:?}");
    }
    let log = docker.docker(&["logs", &web.name]);
    let seen = [log.stdout, log.stderr].concat();
    assert!(!contains(&seen, b"BREACH"), "{what}: the server saw {}", String::from_utf8_lossy(&seen));
}

#[test]
fn containers_are_known_by_name_image_and_label_and_blocked_by_them() {
    let Some(host) = Host::new("containers_are_known_by_name_image_and_label_and_blocked_by_them") else { return };
    let web = host.docker.run("dk-web", &["--label", "app=shop"], &WEB);
    let client = host.docker.run("dk-client", &[], &["sleep", "600"]);
    let agent = host.agent("dkname", "workloads:\n  - match: {label: {app: shop}}\n    mode: protect\n");
    wait_protected(&agent, &["dk-web", "dk-client"]);
    let seen = view(&agent, "dk-web").expect("listed").workload;
    assert_eq!((seen.key.as_str(), seen.pid), (web.id.as_str(), web.pid));
    assert_eq!(seen.image.as_deref(), Some(bulkhead_kit::docker::IMAGE));
    assert_eq!(seen.labels.get("app").map(String::as_str), Some("shop"));
    assert!(seen.interfaces.iter().any(|i| i.addresses.contains(&web.address())), "{seen:?}");
    served_and_blocked("same bridge", &client.netns(), SocketAddr::new(web.address(), 80), &web, &host.docker);
    let event = agent.wait_event("a blocked breach between the two", |e| {
        matches!(&e.body, EventBody::Alert { alert, .. } if alert.signature_id == 1_000_001) && e.workload.is_some()
    });
    let sides = event.workload.expect("both sides are containers");
    assert_eq!((sides.src.name.as_str(), sides.dest.name.as_str()), ("dk-client", "dk-web"));
}

#[test]
fn a_published_port_is_protected_from_outside_from_the_host_and_from_a_container() {
    let Some(host) = Host::new("a_published_port_is_protected_from_outside_from_the_host_and_from_a_container") else { return };
    let node = NodePlan {
        name: "dkout-world".into(),
        v4: OUTSIDE,
        v6: "2001:db8:77::2".parse().expect("address"),
        attach: Attach::Direct { v4: UPLINK, v4_bits: 27, v6: "2001:db8:77::1".parse().expect("address"), v6_bits: 64 },
    };
    let plan = Plan { prefix: "dkout".into(), nodes: vec![node], ..Plan::default() };
    let world = host.docker.host().run(|| Fabric::build(plan)).expect("entering").expect("building");
    let outside = &world.nodes()[0];
    let web = host.docker.run("dk-pub", &["--publish", "8088:80"], &WEB);
    let client = host.docker.run("dk-pubclient", &[], &["sleep", "600"]);
    let agent = host.agent("dkpub", "mode: protect\n");
    wait_protected(&agent, &["dk-pub", "dk-pubclient"]);
    let port = |ip: Ipv4Addr| SocketAddr::new(IpAddr::V4(ip), 8088);
    served_and_blocked("from outside (DNAT)", &outside.netns, port(UPLINK), &web, &host.docker);
    served_and_blocked("from the host (userland proxy)", host.docker.host(), port(Ipv4Addr::LOCALHOST), &web, &host.docker);
    served_and_blocked("from a container (hairpin)", &client.netns(), port(UPLINK), &web, &host.docker);
    let published = view(&agent, "dk-pub").expect("listed").workload.published;
    assert!(published.iter().any(|p| (p.host_port, p.container_port) == (8088, 80)), "{published:?}");
}

#[test]
fn starts_restarts_renames_and_networks_are_followed() {
    let Some(host) = Host::new("starts_restarts_renames_and_networks_are_followed") else { return };
    let agent = host.agent("dklife", "mode: protect\n");
    let web = host.docker.run("dk-life", &[], &WEB);
    wait_protected(&agent, &["dk-life"]);
    // The container's very first act is the breach.
    let script = format!("printf 'GET /BULKHEAD-TEST-BREACH HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {} 80; sleep 600", web.address());
    let first = host.docker.run("dk-first", &[], &["sh", "-c", &script]);
    wait_protected(&agent, &["dk-first"]);
    std::thread::sleep(Duration::from_millis(1500)); // the breach is under way or over by now
    served_and_blocked("a new container", &first.netns(), SocketAddr::new(web.address(), 80), &web, &host.docker);

    host.docker.must(&["restart", "--time", "0", "dk-life"]);
    let pid: u32 = web.inspect("{{.State.Pid}}").parse().expect("a number");
    wait_until("the restarted container has its new process", PATIENCE, || view(&agent, "dk-life").is_some_and(|w| w.workload.pid == pid));
    wait_protected(&agent, &["dk-life"]);

    host.docker.must(&["rename", "dk-first", "dk-renamed"]);
    wait_until("the new name is known", PATIENCE, || view(&agent, "dk-renamed").is_some() && view(&agent, "dk-first").is_none());
    host.docker.must(&["network", "create", "--subnet", "198.51.100.224/28", "dk-second"]);
    host.docker.must(&["network", "connect", "dk-second", "dk-renamed"]);
    let interfaces =
        |count: usize| view(&agent, "dk-renamed").is_some_and(|w| w.workload.interfaces.len() == count && w.protected == Protected::Yes);
    wait_until("the second network's interface is on the path", PATIENCE, || interfaces(2));
    host.docker.must(&["network", "disconnect", "dk-second", "dk-renamed"]);
    wait_until("it is gone again", PATIENCE, || interfaces(1));
    host.docker.must(&["rm", "--force", "dk-renamed"]);
    host.docker.must(&["network", "rm", "dk-second"]);
    wait_until("the removed container is gone", PATIENCE, || view(&agent, "dk-renamed").is_none());
}

#[test]
fn a_start_waits_until_it_is_armed_or_fails_as_it_is_told_and_the_runtime_can_be_taken_back() {
    let Some(host) = Host::new("a_start_waits_until_it_is_armed_or_fails_as_it_is_told_and_the_runtime_can_be_taken_back") else { return };
    let docker = &host.docker;
    let web = docker.run("dk-held-web", &[], &WEB);
    let mut agent = host.agent("dkheld", "mode: protect\n");
    wait_protected(&agent, &["dk-held-web"]);
    let socket = agent.dir().path().join("bulkhead.sock");
    let runtime = |name: &str, own: [&str; 4]| {
        let program = bulkhead_kit::agent::program();
        let socket = socket.display().to_string();
        let words = [&["--socket", &socket, "oci-runtime"][..], &own, &["--"]].concat();
        format!("\"{name}\": {{\"path\": \"{}\", \"runtimeArgs\": {words:?}}}", program.display())
    };
    let (held, closed, open) = (
        runtime("held", ["--timeout", "60", "--fail", "closed"]),
        runtime("shut", ["--timeout", "1", "--fail", "closed"]),
        runtime("wide", ["--timeout", "1", "--fail", "open"]),
    );
    docker.reload(&format!("{{\"default-runtime\": \"held\", \"runtimes\": {{{held}, {closed}, {open}}}}}"), &["held", "shut", "wide"]);

    // The container's very first act is the breach, and its interface is on the path before it.
    let script = format!("printf 'GET /BULKHEAD-TEST-BREACH HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {} 80; sleep 600", web.address());
    for number in 0..3 {
        let first = docker.run(&format!("dk-held-{number}"), &[], &["sh", "-c", &script]);
        let seen = view(&agent, &first.name).expect("known by name as soon as it runs");
        assert_eq!(seen.protected, Protected::Yes, "{seen:?}");
    }
    // An agent that does not answer yet holds the start until it does.
    agent.process().stop();
    let waiting = std::thread::spawn({
        let docker = Arc::clone(docker);
        move || docker.run("dk-held-slow", &["--runtime", "held"], &["sleep", "600"])
    });
    std::thread::sleep(SILENCE);
    assert!(!waiting.is_finished(), "started without the agent");
    // `inspect` would wait for the start; the list does not.
    assert_eq!(docker.must(&["ps", "--quiet", "--filter", "name=dk-held-slow"]), "");
    agent.process().go_on();
    let slow = waiting.join().expect("it starts");
    assert_eq!(view(&agent, &slow.name).map(|seen| seen.protected), Some(Protected::Yes));
    let log = docker.docker(&["logs", &web.name]);
    assert!(!contains(&[log.stdout, log.stderr].concat(), b"BREACH"), "the server saw a breach");

    // Without an agent.
    agent.down();
    let refused = docker.docker(&["run", "--detach", "--name", "dk-held-shut", "--runtime", "shut", bulkhead_kit::docker::IMAGE, "true"]);
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    docker.docker(&["rm", "--force", "dk-held-shut"]);
    assert!(!refused.status.success() && reason.contains("bulkhead: the container is not started: no agent answers"), "{reason}");
    let started = docker.run("dk-held-wide", &["--runtime", "wide"], &["sleep", "600"]);
    assert_eq!(started.inspect("{{.State.Running}}"), "true");
    // Taken back: the name stands for the plain runtime, and then for nothing.
    // Containers are stopped first: Docker removes the script that it made of path and arguments, and with it the way to end them.
    drop(slow);
    docker.must(&["stop", "--time", "0", "dk-held-wide"]);
    docker.reload("{\"default-runtime\": \"runc\", \"runtimes\": {\"wide\": {\"path\": \"runc\"}}}", &["wide"]);
    docker.must(&["start", "dk-held-wide"]);
    assert_eq!(started.inspect("{{.State.Running}}"), "true");
    drop(started);
    // A key that is merely gone changes nothing in a Docker that reloads.
    docker.reload("{\"runtimes\": {}}", &[]);
    assert_eq!(docker.run("dk-held-after", &[], &["sleep", "600"]).inspect("{{.HostConfig.Runtime}}"), "runc");
}

#[test]
fn a_container_with_the_hosts_network_is_never_counted_as_protected() {
    let Some(host) = Host::new("a_container_with_the_hosts_network_is_never_counted_as_protected") else { return };
    let _plain = host.docker.run("dk-own", &[], &["sleep", "600"]);
    let _shared = host.docker.run("dk-shared", &["--network", "container:dk-own"], &["sleep", "600"]);
    let _open = host.docker.run("dk-hostnet", &["--network", "host"], &["sleep", "600"]);
    let agent = host.agent("dkhost", "");
    wait_protected(&agent, &["dk-own"]);
    wait_protected(&agent, &["dk-shared"]); // by the one whose network it uses
    std::thread::sleep(SILENCE);
    // The inventory takes the first process's network for the host's, which is not the one that plays the host here: how
    // the container is listed is tested there. What must hold everywhere is that nobody takes it for protected.
    let open = view(&agent, "dk-hostnet");
    assert!(open.as_ref().is_none_or(|w| matches!(w.protected, Protected::No(_))), "{open:?}");
    assert!(open.is_none_or(|w| w.class == WorkloadClass::HostNetwork));
}

#[test]
fn dockers_own_rules_and_traffic_are_the_same_after_down() {
    let Some(host) = Host::new("dockers_own_rules_and_traffic_are_the_same_after_down") else { return };
    let web = host.docker.run("dk-down", &["--publish", "8089:80"], &WEB);
    wait_until("all addresses are in use", PATIENCE, || {
        !HostState::take(host.docker.host()).lines("addresses").iter().any(|line| line.contains("tentative"))
    });
    let before = HostState::settled(host.docker.host());
    let mut agent = host.agent("dkdown", "mode: protect\n");
    wait_protected(&agent, &["dk-down"]);
    let with_agent = HostState::take(host.docker.host());
    let docker_rules =
        |state: &HostState| -> Vec<String> { state.lines("iptables-save").iter().filter(|l| l.contains("DOCKER")).cloned().collect() };
    assert_eq!(docker_rules(&with_agent), docker_rules(&before), "Docker's rules stay while the agent runs");
    agent.down();
    let mut after = String::new();
    // Detaching is asynchronous in the kernel (RCU): a link may be listed for some milliseconds more.
    let same = || {
        let difference = HostState::difference(&before, &HostState::take(host.docker.host()));
        // Other tests of this machine come and go meanwhile; the agent's own directory is the test's.
        let mine = |l: &&str| !l.contains(" namespaces: ") && !l.contains(" mounts: ") && !l.contains(" pinned: ");
        after = difference.lines().filter(mine).collect::<Vec<_>>().join("\n");
        after.is_empty()
    };
    wait_until_or("the host is as it was", Duration::from_secs(3), same);
    assert_eq!(after, "");
    let page = http_get(host.docker.host(), SocketAddr::new(web.address(), 80), "/").expect("traffic flows on");
    assert!(contains(page.as_bytes(), b"served"));
}

/// As [`wait_until`], for conditions that are asserted afterwards with a better message.
fn wait_until_or(_what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + patience;
    while !done() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
}
