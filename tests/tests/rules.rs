//! Rules of a running agent: what the files beside them change, what a reload keeps, and what it refuses.

use std::net::SocketAddr;
use std::time::Duration;

use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::net;
use bulkhead_kit::root_or_not_run;
use bulkhead_kit::traffic::{Receiver, Service, Talk, Writes, tcp_exchange};
use bulkhead_sys::netns::Netns;

/// Of the workload's own: what `$HOME_NET` stands for without being told.
const RULES: &str = r#"alert tcp any any -> $HOME_NET any (msg:"first half"; content:"line 00000001"; flowbits:set,half; noalert; sid:1000010; rev:1;)
drop tcp any any -> $HOME_NET any (msg:"second half"; flowbits:isset,half; content:"line 00000002"; sid:1000011; rev:1;)
drop tcp any any -> $HOME_NET any (msg:"switched off"; content:"KEY-THREE"; sid:1000012; rev:1;)
# drop tcp any any -> $HOME_NET any (msg:"switched on"; content:"KEY-FOUR"; sid:1000013; rev:1;)
"#;

fn arrives(from: &Netns, to: SocketAddr, text: &[u8], server: &Receiver) -> bool {
    let before = server.got().len();
    let _ = tcp_exchange(from, to, text, &Writes::Whole, Duration::from_millis(300));
    std::thread::sleep(Duration::from_millis(100));
    server.got().iter().skip(before).any(|got| got == text)
}

#[test]
fn a_reload_changes_rules_and_keeps_flows_and_a_broken_file_changes_nothing() {
    if !root_or_not_run("a_reload_changes_rules_and_keeps_flows_and_a_broken_file_changes_nothing") {
        return;
    }
    let net = net::one_bridge("rulesre");
    let (client, server) = (net.node("client"), net.node("server"));
    let echo = Receiver::tcp(&server.netns, 0, Service::Echo);
    let target = SocketAddr::new(server.v4.into(), echo.port);
    let plan = AgentPlan { tag: "rulesre", host: Some(net.host()), config: "mode: protect\n", rules: RULES, ..AgentPlan::default() };
    let agent = Agent::start(&plan);
    assert_eq!(agent.client().status().expect("status").rules.loaded, 3);
    assert!(!arrives(&client.netns, target, b"KEY-THREE", &echo), "the workload is at home");
    assert!(arrives(&client.netns, target, b"KEY-FOUR", &echo), "it is commented out");
    assert!(arrives(&client.netns, target, b"line 00000002", &echo), "only behind the first half");
    let mut old = Talk::open(&client.netns, target).expect("a connection");
    old.say().expect("the first half");

    let disable = agent.dir().write("disable.conf", "1000012\n");
    let enable = agent.dir().write("enable.conf", "re:KEY-FOUR\n");
    let threshold = agent.dir().write("threshold.config", "suppress gen_id 1, sig_id 1000013\n");
    agent.dir().write(
        "conf.d/10-beside.yaml",
        format!(
            "rules:\n  disable-files: [{}]\n  enable-files: [{}]\n  threshold: [{}]\n",
            disable.display(),
            enable.display(),
            threshold.display()
        ),
    );
    let reloaded = agent.client().reload().expect("what is right is put in force");
    assert_eq!((reloaded.rules.loaded, reloaded.rules.wrong), (3, 0));
    assert!(arrives(&client.netns, target, b"KEY-THREE", &echo), "switched off");
    assert!(!arrives(&client.netns, target, b"KEY-FOUR", &echo), "switched on");
    // The connection is older than the rules in force, and so is the bit that it has.
    old.say().expect_err("the flow's state is kept over a reload");

    for (name, broken, right) in [
        ("threshold.config", "suppress everything\n", "suppress gen_id 1, sig_id 1000013\n"),
        ("disable.conf", "no-such-thing\n", "1000012\n"),
        ("test.rules", "drop tcp any any -> any any (contnt:\"x\"; sid:1;)\n", RULES),
    ] {
        agent.dir().write(name, broken);
        agent.client().reload().expect_err(name);
        assert_eq!(agent.client().status().expect("status").rules.loaded, 3, "{name}");
        assert!(!arrives(&client.netns, target, b"KEY-FOUR", &echo), "the running set is in force after a broken {name}");
        agent.dir().write(name, right);
    }
    agent.client().reload().expect("right again");
}
