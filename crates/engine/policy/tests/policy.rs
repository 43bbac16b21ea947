//! What a policy means, in the words of `docs/policy.md`.

use std::collections::BTreeMap;

use bulkhead_model::{Mode, Network, Runtime, Workload};
use bulkhead_policy::{
    Action, ByteSize, ClassId, Config, Fail, Inspection, Party, PolicySnapshot, Selector, Source, compile_segments, decide, parse,
    render_overrides, set_override, unset_override,
};

#[test]
fn an_empty_configuration_is_the_default() {
    for text in ["", "\n", "# nothing\n", "{}", "inspect:\n", "---\n", "\u{feff}mode: monitor\n"] {
        assert_eq!(parse(&[Source::new("bulkhead.yaml", text)]), Ok(Config::default()), "{text:?}");
    }
    assert_eq!(parse(&[]), Ok(Config::default()));
    let config = Config::default();
    assert_eq!((config.mode, config.fail), (Mode::Monitor, Fail::Open));
    assert_eq!(config.inspect.stream_depth, ByteSize::mib(1));
}

#[test]
fn maps_are_merged_lists_joined_and_the_later_value_wins() {
    let config = good(&[
        (
            "bulkhead.yaml",
            "mode: monitor\ninspect: {flows-max: 2048}\nworkloads:\n  - {match: a, mode: protect}\nrules: {variables: {HOME_NET: [a, b]}}\n",
        ),
        (
            "conf.d/10.yaml",
            "mode: protect\ninspect: {checksum: ignore}\nworkloads:\n  - {match: b, mode: protect}\nrules: {variables: {HOME_NET: [c]}}\n",
        ),
        ("conf.d/20.yaml", "inspect:\nworkloads:\n"),
    ]);
    assert_eq!(config.mode, Mode::Protect);
    assert_eq!((config.inspect.flows_max, config.inspect.checksum.word()), (2048, "ignore"));
    let selectors: Vec<String> = config.workloads.iter().map(|rule| rule.match_.to_string()).collect();
    assert_eq!(selectors, ["a", "b"]);
    assert_eq!(config.workloads[1].origin.to_string(), "conf.d/10.yaml:4");
    assert_eq!(config.rules.variables.0["HOME_NET"], "[c]");
    assert_eq!(config.rules.variables.0["HTTP_SERVERS"], "$HOME_NET");
}

#[test]
fn the_first_rule_that_says_something_about_a_field_decides_it() {
    let policy = compile(
        "fail: open\nworkloads:\n  - {match: web*, inspect: bypass}\n  - {match: {label: {tier: front}}, mode: protect, inspect: all}\n  - {match: \"*\", fail: closed, mode: monitor}\n",
    );
    let settings = |workload: &Workload| {
        let s = policy.settings_of(workload);
        (s.mode, s.fail, s.inspect)
    };
    assert_eq!(settings(&workload("web-1", 1, &[("tier", "front")])), (Mode::Protect, Fail::Closed, Inspection::Bypass));
    assert_eq!(settings(&workload("api", 2, &[("tier", "front")])), (Mode::Protect, Fail::Closed, Inspection::All));
    assert_eq!(settings(&workload("api", 2, &[])), (Mode::Monitor, Fail::Closed, Inspection::All));
    let origins = policy.origins_of(&workload("web-1", 1, &[("tier", "front")])).map(|origin| origin.map(|o| o.line));
    assert_eq!(origins, [Some(4), Some(5), Some(3)]);
}

#[test]
fn an_override_stands_before_the_configuration_and_the_newest_first() {
    let text = "workloads:\n  - {match: web*, mode: monitor}\n";
    let mut overrides = Vec::new();
    assert!(set_override(&mut overrides, selector("web*"), Mode::Protect));
    assert!(set_override(&mut overrides, selector("web-2"), Mode::Monitor));
    let with = |overrides: &[_]| {
        let config = good(&[("bulkhead.yaml", text), ("conf.d/90-overrides.yaml", &render_overrides(overrides))]);
        let policy = PolicySnapshot::compile(&config, 1);
        ["web-1", "web-2", "db"].map(|name| policy.mode_of(&workload(name, 1, &[])))
    };
    assert_eq!(with(&overrides), [Mode::Protect, Mode::Monitor, Mode::Monitor]);
    // The same selector again replaces, and comes to the front.
    assert!(set_override(&mut overrides, selector("web*"), Mode::Protect));
    assert_eq!(overrides.len(), 2);
    assert_eq!(with(&overrides), [Mode::Protect, Mode::Protect, Mode::Monitor]);
    assert!(unset_override(&mut overrides, &selector("web*")));
    assert!(!unset_override(&mut overrides, &selector("web*")));
    assert_eq!(with(&overrides), [Mode::Monitor, Mode::Monitor, Mode::Monitor]);
    // One for all is a default: what the configuration and other overrides say of single workloads stands.
    assert!(set_override(&mut overrides, selector("*"), Mode::Protect));
    assert_eq!(with(&overrides), [Mode::Monitor, Mode::Monitor, Mode::Protect]);
    assert!(set_override(&mut overrides, selector("web-1"), Mode::Protect));
    assert_eq!(with(&overrides), [Mode::Protect, Mode::Monitor, Mode::Protect]);
}

#[test]
fn workloads_that_share_a_network_get_the_strictest_settings_and_each_others_rules() {
    let policy = compile(
        "workloads:\n  - {match: side, inspect: bypass}\n  - {match: app, mode: protect, fail: closed}\nsegments:\n  default: deny\n  rules:\n    - {from: app, to: db, action: allow}\n",
    );
    let mut side = workload("side", 7, &[]);
    side.network = Network::Shared { netns: 7, with: "app".into() };
    let workloads = [workload("app", 7, &[]), side, workload("db", 8, &[])];
    let settings = policy.resolve(&workloads);
    assert_eq!(settings[0], settings[1]);
    assert_eq!((settings[1].mode, settings[1].fail, settings[1].inspect), (Mode::Protect, Fail::Closed, Inspection::All));
    let segmented = compile_segments(&policy, &workloads);
    assert_eq!(segmented.classes[0], segmented.classes[1]);
    assert_eq!(segmented.table.lookup(segmented.classes[1], segmented.classes[2], 6, 5432), (Action::Allow, Some(0)));
}

#[test]
fn containers_on_the_hosts_network_are_the_host() {
    let policy = compile(
        "segments:\n  default: deny\n  rules:\n    - {from: agent, to: db, action: allow}\n    - {from: host, to: db, ports: 22, action: allow}\n",
    );
    let mut agent = workload("agent", 0, &[]);
    agent.network = Network::Host;
    let db = workload("db", 3, &[]);
    let segmented = compile_segments(&policy, &[agent.clone(), db.clone()]);
    assert_eq!(segmented.classes[0], ClassId::HOST);
    assert_eq!(decide(&policy, Party::Container(&agent), Party::Container(&db), 6, 80), (Action::Deny, None));
    assert_eq!(decide(&policy, Party::Container(&agent), Party::Container(&db), 6, 22), (Action::Allow, Some(1)));
}

#[test]
fn from_is_the_side_that_opens() {
    let policy = compile(
        "segments:\n  default: deny\n  rules:\n    - {name: web to db, from: web*, to: db, proto: tcp, ports: [5432], action: allow}\n",
    );
    let (web, db) = (workload("web-1", 1, &[]), workload("db", 2, &[]));
    let ask = |src: &Workload, dst: &Workload| decide(&policy, Party::Container(src), Party::Container(dst), 6, 5432);
    assert_eq!(ask(&web, &db), (Action::Allow, Some(0)));
    assert_eq!(ask(&db, &web), (Action::Deny, None));
    assert_eq!(policy.segment_rule_name(0), "web to db");
    assert_eq!(policy.segment_rule_name(bulkhead_policy::RULE_NONE), "segments.default");
    assert_eq!(policy.segment_rule_name(999), "segments.rules[999]");
}

#[test]
fn a_container_named_like_the_host_is_not_the_host() {
    let policy = compile(
        "segments:\n  default: allow\n  rules:\n    - {from: host, to: any, action: deny}\n    - {from: {name: world}, to: any, action: deny}\n",
    );
    let ask = |name: &str| decide(&policy, Party::Container(&workload(name, 1, &[])), Party::World, 6, 80);
    assert_eq!(ask("host"), (Action::Allow, None));
    assert_eq!(ask("world"), (Action::Deny, Some(1)));
    assert_eq!(decide(&policy, Party::Host, Party::World, 6, 80), (Action::Deny, Some(0)));
}

fn good(sources: &[(&str, &str)]) -> Config {
    let sources: Vec<Source> = sources.iter().map(|(name, text)| Source::new(*name, *text)).collect();
    parse(&sources).unwrap_or_else(|d| panic!("{}", bulkhead_policy::render(&d)))
}

fn compile(text: &str) -> PolicySnapshot {
    PolicySnapshot::compile(&good(&[("bulkhead.yaml", text)]), 1)
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).expect("a selector")
}

fn workload(name: &str, netns: u64, labels: &[(&str, &str)]) -> Workload {
    Workload {
        key: format!("netns:{netns}"),
        name: name.to_owned(),
        image: None,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        runtime: Runtime::Docker,
        pid: 1,
        cgroup: "/".to_owned(),
        network: Network::Own { netns },
        interfaces: Vec::new(),
        published: Vec::new(),
    }
}
