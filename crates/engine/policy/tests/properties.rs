//! Random policies and workloads: the table that the kernel looks up says what the rules say, whatever starts and stops;
//! what is written is read back; nothing that is fed in panics.

use std::collections::BTreeMap;

use bulkhead_model::{Mode, Network, Runtime, Workload};
use bulkhead_policy::{
    Action, ClassId, Config, PAIR_RULES_MAX, Party, PolicySnapshot, RULE_OVERFLOW, Segmented, Segmenter, Selector, Source,
    compile_segments, decide, fuzz_config, parse, render_overrides, set_override,
};
use proptest::prelude::*;

const NAMES: [&str; 6] = ["web-1", "web-2", "db", "cache", "host", "a,b=c"];
const IMAGES: [&str; 3] = ["nginx:1", "docker.io/library/nginx:1", "registry.example/shop/db:2"];
const PEERS: [&str; 9] =
    ["any", "world", "host", "web*", "\"*\"", "d?", "{image: \"nginx*\"}", "{label: {app: shop}}", "{name: host, runtime: docker}"];
const PROTOS: [&str; 6] = ["any", "tcp", "udp", "icmp", "sctp", "47"];

fn workload() -> impl Strategy<Value = Workload> {
    let network = prop_oneof![
        3 => (1u64..5).prop_map(|netns| Network::Own { netns }),
        1 => (1u64..5).prop_map(|netns| Network::Shared { netns, with: "other".to_owned() }),
        1 => Just(Network::Own { netns: 0 }),
        1 => Just(Network::Host),
    ];
    (0..NAMES.len(), prop::option::of(0..IMAGES.len()), any::<bool>(), any::<bool>(), network).prop_map(
        |(name, image, label, docker, network)| Workload {
            key: format!("key-{name}"),
            name: NAMES[name].to_owned(),
            image: image.map(|image| IMAGES[image].to_owned()),
            labels: if label { BTreeMap::from([("app".to_owned(), "shop".to_owned())]) } else { BTreeMap::new() },
            runtime: if docker { Runtime::Docker } else { Runtime::Namespace },
            pid: 1,
            cgroup: "/".to_owned(),
            network,
            interfaces: Vec::new(),
            published: Vec::new(),
        },
    )
}

fn rule() -> impl Strategy<Value = String> {
    let port = (1u16..12, 0u16..4).prop_map(|(low, more)| if more == 0 { low.to_string() } else { format!("\"{low}-{}\"", low + more) });
    (0..PEERS.len(), 0..PEERS.len(), 0..PROTOS.len(), prop::collection::vec(port, 0..4), any::<bool>()).prop_map(
        |(from, to, proto, ports, allow)| {
            let ports = if matches!(PROTOS[proto], "icmp" | "47") { Vec::new() } else { ports };
            let action = if allow { "allow" } else { "deny" };
            let (from, to, proto) = (PEERS[from], PEERS[to], PROTOS[proto]);
            format!("    - {{from: {from}, to: {to}, proto: {proto}, ports: [{}], action: {action}}}\n", ports.join(", "))
        },
    )
}

fn policy(default: bool, rules: &[String]) -> PolicySnapshot {
    let default = if default { "allow" } else { "deny" };
    let list = if rules.is_empty() { " []\n".to_owned() } else { format!("\n{}", rules.concat()) };
    let text = format!("segments:\n  default: {default}\n  rules:{list}");
    let config = parse(&[Source::new("bulkhead.yaml", text.clone())]).unwrap_or_else(|d| panic!("{text}\n{}", bulkhead_policy::render(&d)));
    PolicySnapshot::compile(&config, 7)
}

/// All that share a workload's network namespace, and so its packets.
fn group<'w>(workloads: &'w [Workload], one: &'w Workload) -> Vec<&'w Workload> {
    let netns = |workload: &Workload| match workload.network {
        Network::Own { netns } | Network::Shared { netns, .. } if netns != 0 => Some(netns),
        Network::Own { .. } | Network::Shared { .. } | Network::Host => None,
    };
    match netns(one) {
        Some(id) => workloads.iter().filter(|other| netns(other) == Some(id)).collect(),
        None => vec![one],
    }
}

/// Compares table and reference for every pair of ends and the protocols and ports that the rules can tell apart.
fn agree(policy: &PolicySnapshot, workloads: &[Workload], segmented: &Segmented) -> Result<(), TestCaseError> {
    let groups: Vec<Vec<&Workload>> = workloads.iter().map(|workload| group(workloads, workload)).collect();
    let mut ends: Vec<(Party<'_>, ClassId)> = vec![(Party::World, ClassId::WORLD), (Party::Host, ClassId::HOST)];
    for ((workload, group), class) in workloads.iter().zip(&groups).zip(&segmented.classes) {
        let party = if workload.network == Network::Host { Party::Container(workload) } else { Party::Containers(group) };
        ends.push((party, *class));
    }
    for (src, src_class) in &ends {
        for (dst, dst_class) in &ends {
            for proto in [1, 6, 17, 47, 58, 132, 255] {
                for port in (0..17).chain([65_535]) {
                    let said = decide(policy, *src, *dst, proto, port);
                    let looked_up = segmented.table.lookup(*src_class, *dst_class, proto, port);
                    // Over the cap, a trailing line that says what the default says anyway may lose its name.
                    let same = said == looked_up || (looked_up.1.is_none() && said.0 == looked_up.0);
                    // A pair that does not fit denies what it cannot tell.
                    let denied = !segmented.problems.is_empty() && looked_up == (Action::Deny, Some(RULE_OVERFLOW));
                    prop_assert!(same || denied, "{src:?} -> {dst:?} {proto}/{port}: rules {said:?}, table {looked_up:?}");
                    if segmented.table.pairs.get(&(*src_class, *dst_class)).is_none_or(|lines| lines.len() < PAIR_RULES_MAX) {
                        prop_assert_eq!(said, looked_up);
                    }
                }
            }
        }
    }
    for lines in segmented.table.pairs.values() {
        prop_assert!(!lines.is_empty() && lines.len() <= PAIR_RULES_MAX);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_rules_say(
        default in any::<bool>(),
        rules in prop::collection::vec(rule(), 0..12),
        workloads in prop::collection::vec(workload(), 0..6),
    ) {
        let policy = policy(default, &rules);
        let segmented = compile_segments(&policy, &workloads);
        prop_assert_eq!(segmented.classes.len(), workloads.len());
        agree(&policy, &workloads, &segmented)?;
    }

    #[test]
    fn it_still_does_when_workloads_come_and_go_and_numbers_stay(
        rules in prop::collection::vec(rule(), 0..8),
        first in prop::collection::vec(workload(), 0..5),
        second in prop::collection::vec(workload(), 0..5),
    ) {
        let policy = policy(false, &rules);
        let mut segmenter = Segmenter::new(&policy);
        let before = segmenter.update(&first);
        let is_new = |one: &&Workload| group(&first, one).is_empty() || matches!(one.network, Network::Own { netns: 0 } | Network::Host);
        // What is new stands in front, where it would get the low numbers.
        let mut both: Vec<Workload> = second.iter().filter(is_new).cloned().collect();
        let new = both.len();
        both.extend(first);
        let after = segmenter.update(&both);
        // What was running keeps its classes, and their pairs keep their lines.
        prop_assert_eq!(&after.classes[new..], &before.classes[..]);
        for (pair, lines) in &before.table.pairs {
            prop_assert_eq!(after.table.pairs.get(pair), Some(lines));
        }
        agree(&policy, &both, &after)?;
        agree(&policy, &second, &segmenter.update(&second))?;
    }

    #[test]
    fn overrides_are_read_back_as_written(names in prop::collection::vec("[ -~äλ\u{2028}\u{85}]{1,20}", 0..6), label in "[a-z.*:'\"\\\\#]{1,10}") {
        let mut overrides = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let mut conditions = bulkhead_policy::Conditions { name: bulkhead_policy::Glob::new(name).ok(), ..Default::default() };
            if number % 2 == 0 {
                conditions.label.insert(label.clone(), bulkhead_policy::Glob::new("x*").expect("a pattern"));
            }
            let Ok(selector) = Selector::new(conditions) else { continue };
            prop_assert!(set_override(&mut overrides, selector.clone(), Mode::Protect));
            prop_assert_eq!(&overrides[0].match_, &selector);
        }
        let text = render_overrides(&overrides);
        let config = parse(&[Source::new("90-overrides.yaml", text.clone())]);
        let config = config.map_err(|d| TestCaseError::fail(format!("{text}\n{}", bulkhead_policy::render(&d))))?;
        let shape = |config: &[bulkhead_policy::WorkloadRule]| config.iter().map(|r| (r.match_.clone(), r.mode)).collect::<Vec<_>>();
        prop_assert_eq!(shape(&config.overrides), shape(&overrides));
    }

    #[test]
    fn rubbish_is_refused_and_never_more(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_config(&bytes);
    }

    #[test]
    fn yaml_like_rubbish_is_refused_and_never_more(text in "([a-z-]{1,8}|[:\\[\\]{},&*!|>'\"#%@?~<. -]|\n|  |mode: |workloads:\n|segments: |rules: |- ){0,60}") {
        fuzz_config(text.as_bytes());
    }

    #[test]
    fn mutated_samples_are_refused_or_understood(cut in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut bytes = SAMPLE.as_bytes()[..cut.index(SAMPLE.len() + 1)].to_vec();
        for (at, value) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        fuzz_config(&bytes);
    }

    #[test]
    fn merging_in_pieces_is_the_same_as_one_file(split in 0usize..4) {
        let pieces = ["mode: protect\n", "inspect:\n  flows-max: 2048\n", "workloads:\n  - {match: web*, mode: monitor}\n", "fail: closed\n"];
        let one = parse(&[Source::new("a", pieces.concat())]);
        let two = parse(&[Source::new("a", pieces[..split].concat()), Source::new("b", pieces[split..].concat())]);
        let plain = |config: Result<Config, _>| config.map(|mut config| {
            for rule in &mut config.workloads { rule.origin = Default::default(); }
            config
        });
        prop_assert_eq!(plain(one), plain(two));
    }
}

const SAMPLE: &str = r#"
mode: protect
fail-after: 500 ms
overrides:
  - match: {name: "a*", label: {app: shop}}
    mode: protect
workloads:
  - match: image=nginx*
    inspect: bypass
segments:
  default: deny
  rules:
    - {name: one, from: world, to: web*, proto: tcp, ports: [80, "8000-8100"], action: allow}
    - &rule {from: web*, to: any, action: deny}
    - *rule
rules: {variables: {HOME_NET: [192.0.2.0/24, 198.51.100.0/24]}, drop: 7}
"#;
