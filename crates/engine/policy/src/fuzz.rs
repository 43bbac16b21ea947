//! The body of a fuzz target, replayed over a small corpus by the tests.

use bulkhead_model::{Network, Runtime, Workload};

use crate::{Config, Party, PolicySnapshot, Segmenter, Source, decide, lint, parse, render, render_overrides};

/// Reads bytes as a configuration and, where it is good, holds the promises of this crate against it:
/// the diagnostics can be shown, the overrides are read back as written, table and reference agree.
/// Panics where a promise is broken.
pub fn fuzz_config(bytes: &[u8]) {
    let source = match Source::from_bytes("fuzz.yaml", bytes) {
        Ok(source) => source,
        Err(diagnostics) => {
            assert!(!render(&diagnostics).is_empty());
            return;
        }
    };
    let config = match parse(&[source]) {
        Ok(config) => config,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a reason");
            assert!(!render(&diagnostics).is_empty());
            return;
        }
    };
    assert!(lint(&config).len() <= crate::DIAGNOSTICS_MAX);
    overrides_survive(&config);
    let policy = PolicySnapshot::compile(&config, 1);
    let workloads = [workload("web-1", Some("nginx:1")), workload("db", None)];
    let segmented = Segmenter::new(&policy).update(&workloads);
    if !segmented.problems.is_empty() {
        return;
    }
    for (workload, class) in workloads.iter().zip(&segmented.classes) {
        for (proto, port) in [(6, 80), (17, 53), (1, 0), (132, 65535)] {
            let (action, rule) = decide(&policy, Party::World, Party::Container(workload), proto, port);
            let (from_table, rule_from_table) = segmented.table.lookup(crate::ClassId::WORLD, *class, proto, port);
            assert_eq!((action, rule), (from_table, rule_from_table));
        }
    }
}

fn overrides_survive(config: &Config) {
    let text = render_overrides(&config.overrides);
    let read = parse(&[Source::new("90-overrides.yaml", text)]).expect("what is written is read back");
    let rules = |config: &Config| -> Vec<_> {
        config.overrides.iter().map(|r| (r.match_.clone(), r.mode, r.fail, r.inspect, r.comment.clone())).collect()
    };
    assert_eq!(rules(&read), rules(config));
}

fn workload(name: &str, image: Option<&str>) -> Workload {
    Workload {
        key: format!("{name}-key"),
        name: name.to_owned(),
        image: image.map(str::to_owned),
        labels: std::collections::BTreeMap::new(),
        runtime: Runtime::Docker,
        pid: 1,
        cgroup: "/".to_owned(),
        network: Network::Own { netns: name.len() as u64 },
        interfaces: Vec::new(),
        published: Vec::new(),
    }
}
