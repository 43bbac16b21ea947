//! The unit of `packaging/`: systemd's own checks of it, what the agent tells the service manager, and the agent under a real
//! systemd, with exactly the capabilities, the system call filter and the file tree that the unit gives it.

#![allow(unsafe_code)] // reason: holding one thread of another process is ptrace(2)

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_api::{Client, PathTechnique};
use bulkhead_kit::agent::{Agent, AgentPlan, program};
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{self, Net};
use bulkhead_kit::process::{SIGTERM, TempDir};
use bulkhead_kit::systemd::{Listener, Manager};
use bulkhead_kit::traffic::{Beside, PATIENCE, Receiver, SILENCE, Service, Writes, known_bytes, tcp_exchange};
use bulkhead_kit::{not_run, root_or_not_run, wait_until};
use bulkhead_sys::netns::Netns;

const BREACH: &[u8] = b"BULKHEAD-TEST-BREACH";
const RULES: &str = r#"drop tcp any any -> any any (msg:"breach in a stream"; content:"BULKHEAD-TEST-BREACH"; sid:1000001; rev:1;)
"#;
const OTHER_RULES: &str = r#"drop tcp any any -> any any (msg:"another breach"; content:"BULKHEAD-TEST-OTHER"; sid:1000002; rev:1;)
"#;
/// What `systemd-analyze security` gives the unit at most (0 is best, 10 worst). What remains is what the agent is for: the
/// network of the host, its administration, the namespaces of other processes.
const EXPOSURE_MAX: &str = "42";

/// One agent at a time: it arms interfaces in every namespace of the machine.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/bulkhead.service");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The value of a setting of the unit.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {name}"))
}

/// The number of a capability (`linux/capability.h`).
fn capability(name: &str) -> u32 {
    match name {
        "CAP_CHOWN" => 0,
        "CAP_DAC_READ_SEARCH" => 2,
        "CAP_NET_ADMIN" => 12,
        "CAP_NET_RAW" => 13,
        "CAP_SYS_PTRACE" => 19,
        "CAP_SYS_ADMIN" => 21,
        "CAP_SYS_RESOURCE" => 24,
        "CAP_PERFMON" => 38,
        "CAP_BPF" => 39,
        other => panic!("the unit has {other}, which this test does not know"),
    }
}

fn clean_passes(from: &Netns, to: SocketAddr, what: &str) {
    let bytes = known_bytes(11, 100_000);
    let answer = tcp_exchange(from, to, &bytes, &Writes::Whole, PATIENCE);
    assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{what}: clean bytes did not pass: {:?}", answer.map(|a| a.len()));
}

fn stopped(from: &Netns, to: SocketAddr, evil: &[u8], server: &Receiver, what: &str) {
    let before = server.got().len();
    let _ = tcp_exchange(from, to, evil, &Writes::At(vec![7]), Duration::from_millis(300));
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.got().iter().skip(before).all(|got| got != evil), "{what}: it reached the receiver");
}

#[test]
fn the_unit_passes_systemds_own_checks() {
    const NAME: &str = "the_unit_passes_systemds_own_checks";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        not_run(NAME, "systemd-analyze is not installed");
        return;
    }
    let dir = TempDir::new("unit-checks");
    let shipped = unit();
    assert!(shipped.contains("ExecStart=/usr/bin/bulkhead run\n"), "the test puts another program there");
    // The program and its man page are not installed where the tests run.
    let text = shipped.replace("ExecStart=/usr/bin/bulkhead run", "ExecStart=/bin/true");
    let path = dir.write("bulkhead.service", &text);
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && !said.contains("bulkhead.service"), "{said}");
    let broken = dir.write("broken.service", text.replace("MemoryMax=4G", "MemoryMax=four"));
    let refused = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&broken).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("broken.service"), "systemd-analyze finds nothing in a broken unit: {said}");
    let arguments = ["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE_MAX}")];
    let security = Command::new("systemd-analyze").args(arguments).arg(&path).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&security.stdout);
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(security.status.success(), "{said}");
}

#[test]
fn the_service_manager_is_told_the_truth() {
    if !root_or_not_run("the_service_manager_is_told_the_truth") {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("sdtell");
    let (client, server) = (net.node("client"), net.node("server"));
    let listener = Listener::start("sdtell");
    let under = ["env".to_owned(), format!("NOTIFY_SOCKET={}", listener.path().display()), "WATCHDOG_USEC=2000000".to_owned()];
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let plan = AgentPlan { tag: "sdtell", host: Some(net.host()), config: "mode: protect\n", rules: RULES, ..AgentPlan::default() };
    let mut agent = Agent::launch_under(&plan, &under);
    wait_until("READY=1", PATIENCE, || !listener.times("READY=1").is_empty());
    // In this moment, not after a while: what is armed, and what it does.
    let status = agent.client().status().expect("an agent that says it is ready answers");
    assert_eq!(status.path.interfaces_armed, 2, "ready with {} interfaces armed", status.path.interfaces_armed);
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    stopped(&client.netns, target, BREACH, &echo, "as soon as it is ready");

    wait_until("eight pings", Duration::from_secs(20), || listener.times("WATCHDOG=1").len() >= 8);
    let pings = listener.times("WATCHDOG=1");
    let longest = pings.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    println!("watchdog of 2 s: longest time between two pings {longest:?}");
    assert!(longest < Duration::from_secs(2), "systemd would have killed it: {longest:?} between two pings");

    // One worker stands still; the thread that pings does not.
    let stuck = Stuck::thread(agent.process().pid(), "hold-0");
    std::thread::sleep(Duration::from_secs(4));
    let count = listener.times("WATCHDOG=1").len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(listener.times("WATCHDOG=1").len(), count, "pings go on while a worker is stuck");
    let status = agent.client().status().expect("status");
    assert!(status.degraded.iter().any(|line| line.contains("worker")), "{:?}", status.degraded);
    drop(stuck);
    wait_until("pings again", PATIENCE, || listener.times("WATCHDOG=1").len() > count);

    // A reload: told when it begins, and when what was read is in force.
    agent.dir().write("test.rules", OTHER_RULES);
    agent.process().signal(libc::SIGHUP);
    wait_until("RELOADING=1", PATIENCE, || !listener.times("RELOADING=1").is_empty());
    wait_until("READY=1 again", PATIENCE, || listener.times("READY=1").len() == 2);
    stopped(&client.netns, target, b"BULKHEAD-TEST-OTHER", &echo, "as soon as the reload is told to be over");
    let (begun, over) = (listener.times("RELOADING=1")[0], listener.times("READY=1")[1]);
    println!("a reload took {:?}", over.saturating_duration_since(begun));
    let has_time = |text: &String| text.starts_with("RELOADING=1\nMONOTONIC_USEC=");
    assert!(listener.heard().iter().any(has_time), "{:?}", listener.heard());
    agent.dir().write("bulkhead.yaml", "mode: neither\n");
    agent.process().signal(libc::SIGHUP);
    wait_until("a refused reload ends too", PATIENCE, || listener.times("READY=1").len() == 3);
    wait_until("why it was refused", PATIENCE, || listener.heard().iter().any(|text| text.starts_with("STATUS=reload refused")));
    agent.dir().write("bulkhead.yaml", "mode: protect\n");

    assert!(listener.times("STOPPING=1").is_empty());
    agent.process().end(SIGTERM, PATIENCE);
    assert_eq!(listener.times("STOPPING=1").len(), 1);
}

/// A thread of another process that a debugger holds, until dropped. The rest of the process runs on.
struct Stuck(i32);

impl Stuck {
    fn thread(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
        let named = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
        let task = tasks.into_iter().find(named).unwrap_or_else(|| panic!("no thread {name}"));
        let tid: i32 = task.file_name().to_string_lossy().parse().expect("a number");
        let null = std::ptr::null_mut::<libc::c_void>;
        // SAFETY: ptrace(2) with these requests reads and writes no memory of this process.
        let held = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, tid, null(), null()) == 0 && libc::ptrace(libc::PTRACE_INTERRUPT, tid, null(), null()) == 0
        };
        assert!(held, "cannot hold thread {tid}: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: the pointer is to a live integer.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid, "{}", std::io::Error::last_os_error());
        Self(tid)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let null = std::ptr::null_mut::<libc::c_void>;
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null(), null()) };
    }
}

/// The unit as shipped, under a systemd of the test's own, in a host of the test's own.
struct Installed {
    manager: Manager,
    pins: PathBuf,
}

impl Installed {
    /// `None`, and told, where no systemd runs.
    fn start(test: &str, tag: &str, net: &Net, config: &str, more: &str) -> Option<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/bulkhead-{tag}-{}", std::process::id()));
        if !bulkhead_sys::mounts::is_bpffs("/sys/fs/bpf").unwrap_or(false) {
            let _ = bulkhead_sys::mounts::mount_bpffs("/sys/fs/bpf"); // systemd does it when it is a machine's first process
        }
        // Only where the program lies and what it pins differ from what is shipped.
        let other = format!("[Service]\nExecStart=\nExecStart=/given/bulkhead run --pin-dir {}\n{more}", pins.display());
        let shipped = unit().replace("/sys/fs/bpf/bulkhead", &pins.display().to_string());
        let units = [("bulkhead.service", shipped), ("bulkhead.service.d/test.conf", other)];
        let units: Vec<(&str, &str)> = units.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let manager = match Manager::start(tag, net.host(), &units) {
            Ok(manager) => manager,
            Err(why) => {
                not_run(test, why);
                return None;
            }
        };
        let installed = Self { manager, pins };
        std::fs::copy(program(), installed.manager.given().join("bulkhead")).expect("installing the program");
        std::fs::create_dir_all(installed.path("/etc/bulkhead/rules")).expect("a directory");
        let config = format!("{config}api:\n  metrics: \"off\"\nrules:\n  files: [/etc/bulkhead/rules/test.rules]\n");
        std::fs::write(installed.path("/etc/bulkhead/bulkhead.yaml"), config).expect("a configuration");
        std::fs::write(installed.path("/etc/bulkhead/rules/test.rules"), RULES).expect("rules");
        Some(installed)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.manager.path(inside)
    }

    fn client(&self) -> Client {
        Client::new(self.path("/run/bulkhead/bulkhead.sock")).expect("a client")
    }

    fn armed(&self, count: u32) -> bool {
        self.client().status().is_ok_and(|status| status.path.interfaces_armed >= count)
    }

    fn down(&self) {
        let down = self.manager.run("/given/bulkhead", &["down", "--pin-dir", &self.pins.display().to_string()]);
        assert!(down.status.success(), "{}{}", String::from_utf8_lossy(&down.stdout), String::from_utf8_lossy(&down.stderr));
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = self.manager.run("systemctl", &["stop", "bulkhead.service"]);
        let _ = self.manager.run("/given/bulkhead", &["down", "--pin-dir", &self.pins.display().to_string()]);
    }
}

#[test]
fn under_systemd_the_unit_confines_the_agent_and_brings_it_back() {
    const NAME: &str = "under_systemd_the_unit_confines_the_agent_and_brings_it_back";
    if !root_or_not_run(NAME) {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("sdrun");
    let (client, server) = (net.node("client"), net.node("server"));
    let Some(installed) = Installed::start(NAME, "sdrun", &net, "mode: protect\n", "WatchdogSec=2s\n") else { return };
    let manager = &installed.manager;
    let before = HostState::take(net.host());
    manager.systemctl(&["start", "bulkhead.service"]);
    assert_eq!(manager.property("bulkhead.service", "ActiveState"), "active", "{}", manager.log());
    let status = installed.client().status().expect("status");
    assert!(status.enforcing && status.degraded.is_empty() && status.path.interfaces_armed == 2, "{status:#?}");

    // It has what the unit says, no more and no less (but for what the machine has not itself).
    let unit = unit();
    let wanted: u64 = setting(&unit, "CapabilityBoundingSet").split_whitespace().map(|name| 1u64 << capability(name)).sum();
    let machine = std::fs::read_to_string("/proc/self/status").expect("own status");
    let machine = machine.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("own capabilities");
    let machine = u64::from_str_radix(machine.trim(), 16).expect("a number");
    let facts = manager.process_status("bulkhead.service");
    let fact =
        |name: &str| facts.iter().find_map(|(key, value)| (key == name).then_some(value.as_str())).unwrap_or_else(|| panic!("no {name}"));
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(u64::from_str_radix(fact(set), 16), Ok(wanted & machine), "{set}");
    }
    if wanted & machine != wanted {
        println!("this machine lacks capabilities of the unit: {:x}", wanted & !machine);
    }
    assert_eq!((fact("CapAmb"), fact("NoNewPrivs"), fact("Seccomp")), ("0000000000000000", "1", "2"));
    let limits = std::fs::read_to_string(installed.path(&format!("/proc/{}/limits", manager.property("bulkhead.service", "MainPID"))))
        .expect("limits");
    println!("{}", limits.lines().filter(|line| line.contains("locked") || line.contains("open files")).collect::<Vec<_>>().join("\n"));
    // Neither the system nor other's homes can be written from where it lives; its own directories can.
    let mounts = std::fs::read_to_string(installed.path(&format!("/proc/{}/mounts", manager.property("bulkhead.service", "MainPID"))))
        .expect("mounts");
    let options = |at: &str| {
        mounts.lines().rev().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(1) == Some(&at)).then(|| fields[3].to_owned())
        })
    };
    let pins = installed.pins.display().to_string();
    for (at, writable) in
        [(pins.as_str(), true), ("/", false), ("/usr", false), ("/sys", false), ("/proc/sys/net", true), ("/var/lib/bulkhead", true)]
    {
        let options = options(at).unwrap_or_else(|| panic!("{at} is no mount of its own:\n{mounts}"));
        assert_eq!(options.split(',').any(|option| option == "rw"), writable, "{at}: {options}");
    }

    // Limits of its cgroup: version 1 and 2 have other names for the first one.
    let limit = |controller: &str, names: &[&str]| names.iter().find_map(|name| manager.cgroup_file("bulkhead.service", controller, name));
    for (what, controller, names, wanted) in [
        ("MemoryMax", "memory", ["memory.max", "memory.limit_in_bytes"].as_slice(), (4u64 << 30).to_string()),
        ("TasksMax", "pids", &["pids.max"], setting(&unit, "TasksMax").to_owned()),
    ] {
        match limit(controller, names) {
            Some(value) => assert_eq!(value, wanted, "{what}"),
            None => println!("{what} is not tried: this machine gives the test's systemd no {controller} controller"),
        }
    }
    match limit("devices", &["devices.list"]) {
        // Character device 10:200 is /dev/net/tun; no disk (0:0 is systemd's inaccessible node), and not all of them.
        Some(list) => {
            assert!(
                list.lines().any(|line| line == "c 10:200 rw") && !list.lines().any(|l| l.starts_with(['a', 'b']) && l != "b 0:0 rwm"),
                "{list}"
            );
            println!("devices: {}", list.replace('\n', ", "));
        }
        None => println!("the list of devices cannot be read here"),
    }

    // And with that it does its work.
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    clean_passes(&client.netns, target, "under systemd");
    stopped(&client.netns, target, BREACH, &echo, "under systemd");
    let eve = || std::fs::read_to_string(installed.path("/var/log/bulkhead/eve.json")).unwrap_or_default();
    wait_until("the alert in the log", PATIENCE, || eve().contains("\"signature_id\":1000001"));
    assert!(installed.client().coverage().expect("coverage").complete);
    // Beside the rules that come with the program.
    let loaded = installed.client().status().expect("status").rules.loaded;
    std::fs::write(installed.path("/etc/bulkhead/rules/test.rules"), [RULES, OTHER_RULES].concat()).expect("rules");
    manager.systemctl(&["reload", "bulkhead.service"]);
    wait_until("the reloaded rules are in force", PATIENCE, || {
        installed.client().status().is_ok_and(|status| status.rules.loaded == loaded + 1)
    });
    stopped(&client.netns, target, b"BULKHEAD-TEST-OTHER", &echo, "after a reload");

    // Killed: back by itself. Hung: systemd misses the pings, kills it, and it is back.
    let talk = Beside::talk(&client.netns, target);
    let restarts = || manager.property("bulkhead.service", "NRestarts").parse::<u32>().expect("a number");
    for (how, signal) in [("killed", "SIGKILL"), ("hung", "SIGSTOP")] {
        let count = restarts();
        let begun = Instant::now();
        manager.systemctl(&["kill", "--kill-whom=main", "--signal", signal, "bulkhead.service"]);
        let back = || restarts() > count && manager.property("bulkhead.service", "ActiveState") == "active" && installed.armed(2);
        wait_until("it is back", Duration::from_secs(30), back);
        println!("{how}: protected again after {:?}, longest answer meanwhile {:?}", begun.elapsed(), talk.forget_longest());
        stopped(&client.netns, target, BREACH, &echo, how);
    }
    // An upgrade as docs/operations.md has it: another file in the program's place, and a restart. The first runs until then.
    let (old, new) = (manager.given().join("bulkhead"), manager.given().join("bulkhead.new"));
    std::fs::copy(&old, &new).and_then(|_| std::fs::rename(&new, &old)).expect("the new program in place of the old");
    let connections = Beside::connect(&client.netns, target);
    let begun = Instant::now();
    manager.systemctl(&["restart", "bulkhead.service"]);
    let took = begun.elapsed();
    assert!(installed.armed(2), "systemctl restart is over when the path is armed");
    stopped(&client.netns, target, BREACH, &echo, "the upgraded agent");
    let fresh = connections.end();
    assert!(fresh.failures.is_empty() && fresh.answers > 0, "{fresh:?}");
    println!(
        "upgrade: {took:?}, longest answer {:?}, longest new connection {:?} of {}",
        talk.forget_longest(),
        fresh.longest,
        fresh.answers
    );
    // Stopped by the operator: its programs stay, and it does not come back by itself.
    manager.systemctl(&["stop", "bulkhead.service"]);
    assert_eq!(manager.property("bulkhead.service", "ActiveState"), "inactive");
    assert_ne!(HostState::own_difference(&before, &HostState::take(net.host()), "sdrun"), "", "the programs are still in place");
    installed.down();
    std::thread::sleep(SILENCE);
    let seen = talk.end();
    assert!(seen.failures.is_empty() && seen.answers > 0, "the connection did not live through all of it: {seen:?}");
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "sdrun"), "");
}

#[test]
fn the_fallback_path_works_within_the_unit() {
    const NAME: &str = "the_fallback_path_works_within_the_unit";
    if !root_or_not_run(NAME) {
        return;
    }
    let _alone = alone();
    let net = net::one_bridge("sdnfq");
    let (client, server) = (net.node("client"), net.node("server"));
    let Some(installed) = Installed::start(NAME, "sdnfq", &net, "mode: protect\npath:\n  kind: nfqueue\n", "") else { return };
    let before = HostState::take(net.host());
    installed.manager.systemctl(&["start", "bulkhead.service"]);
    assert_eq!(installed.client().status().expect("status").path.kind, PathTechnique::Nfqueue);
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    clean_passes(&client.netns, target, "nfqueue under systemd");
    stopped(&client.netns, target, BREACH, &echo, "nfqueue under systemd");
    installed.manager.systemctl(&["stop", "bulkhead.service"]);
    installed.down();
    assert_eq!(HostState::own_difference(&before, &HostState::take(net.host()), "sdnfq"), "");
}
