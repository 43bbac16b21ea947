//! Input made to hurt: each cap holds and is named, the corpus is replayed, a million is as harmless as one.

use std::collections::BTreeMap;

use bulkhead_model::{Network, Runtime, Workload};
use bulkhead_policy::{
    Action, CLASSES_MAX, ClassId, DIAGNOSTICS_MAX, Diagnostic, FILE_BYTES_MAX, LIST_ITEMS_MAX, NODES_MAX, PAIR_RULES_MAX, PolicySnapshot,
    RULE_OVERFLOW, RULE_UNCLASSED, SEGMENT_RULES_MAX, SOURCES_MAX, SegmentProblem, Segmenter, Source, TEXT_BYTES_MAX, compile_segments,
    fuzz_config, lint, parse,
};

#[test]
fn the_corpus_is_replayed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut replayed = 0;
    for name in ["bad", "corpus"] {
        for entry in std::fs::read_dir(folder.join(name)).expect("the corpus") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file of the corpus");
            fuzz_config(&bytes);
            for cut in 0..bytes.len().min(200) {
                fuzz_config(&bytes[..cut]);
            }
            replayed += 1;
        }
    }
    assert!(replayed >= 25, "only {replayed} files were replayed");
}

#[test]
fn a_file_over_the_cap_is_refused_by_name_of_the_cap() {
    let text = format!("# {}\n", "x".repeat(FILE_BYTES_MAX));
    let refused = refused(&[Source::new("big.yaml", text.clone())]);
    assert!(refused[0].message.contains(&format!("the cap is {FILE_BYTES_MAX}")), "{}", refused[0]);
    assert_eq!(Source::from_bytes("big.yaml", text.as_bytes()).map_err(|d| d[0].code), Err("too-large"));
    let just_below = format!("# {}\n", "x".repeat(FILE_BYTES_MAX - 10));
    assert!(parse(&[Source::new("fits.yaml", just_below)]).is_ok());
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_line() {
    let diagnostics = Source::from_bytes("latin1.yaml", b"mode: monitor\n# caf\xe9\n").expect_err("not UTF-8");
    assert_eq!((diagnostics[0].line, diagnostics[0].code), (2, "syntax"));
}

#[test]
fn many_files_and_many_nodes_and_much_text_are_refused() {
    let many: Vec<Source> = (0..=SOURCES_MAX).map(|n| Source::new(format!("{n}.yaml"), "")).collect();
    assert!(refused(&many)[0].message.contains(&SOURCES_MAX.to_string()));
    assert!(parse(&many[1..]).is_ok());

    let items = format!("rules:\n  drop: [{}]\n", "1,".repeat(40_000));
    let thrice: Vec<Source> = (0..3).map(|n| Source::new(format!("{n}.yaml"), items.clone())).collect();
    assert!(refused(&thrice).iter().any(|d| d.message.contains(&NODES_MAX.to_string())));

    let list = format!("rules:\n  drop: [{}]\n", "1,".repeat(LIST_ITEMS_MAX + 1));
    assert!(refused(&[Source::new("list.yaml", list)])[0].message.contains(&format!("the cap is {LIST_ITEMS_MAX}")));

    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(200));
    assert!(refused(&[Source::new("text.yaml", text)]).iter().any(|d| d.message.contains(&TEXT_BYTES_MAX.to_string())));
}

#[test]
fn mistakes_past_the_cap_are_not_shown_but_said() {
    let lines: String = (0..DIAGNOSTICS_MAX * 3).map(|n| format!("    - x{n}\n")).collect();
    let diagnostics = refused(&[Source::new("bulkhead.yaml", format!("rules:\n  drop:\n{lines}"))]);
    assert_eq!(diagnostics.len(), DIAGNOSTICS_MAX + 1);
    assert!(diagnostics[DIAGNOSTICS_MAX].message.contains("more mistakes"));
    assert_eq!((diagnostics[0].line, diagnostics[DIAGNOSTICS_MAX - 1].line), (3, 2 + DIAGNOSTICS_MAX as u32));
}

#[test]
fn long_lines_and_odd_letters_do_not_break_the_snippet() {
    for prefix in ["ä".repeat(100), "💥".repeat(100), "\t".to_owned(), " ".repeat(5_000)] {
        let text = format!("comment: \"{prefix}\" # x\n{{\"{prefix}\": 1, mode: portect}}");
        for diagnostic in refused(&[Source::new("odd.yaml", text)]) {
            let shown = diagnostic.to_string();
            assert!(shown.lines().all(|line| line.chars().count() < 400), "{shown}");
        }
    }
}

#[test]
fn too_many_rules_are_refused() {
    let rules = "    - {from: any, to: any, action: allow}\n".repeat(SEGMENT_RULES_MAX + 1);
    let diagnostics = refused(&[Source::new("bulkhead.yaml", format!("segments:\n  rules:\n{rules}"))]);
    assert!(diagnostics[0].message.contains(&format!("the cap is {SEGMENT_RULES_MAX}")), "{}", diagnostics[0]);
}

#[test]
fn a_pair_with_too_many_lines_is_a_problem_and_denies_the_rest() {
    let rules: String =
        (0..PAIR_RULES_MAX).map(|n| format!("    - {{from: web, to: db, proto: tcp, ports: {}, action: allow}}\n", 10 + 2 * n)).collect();
    let all = format!("segments:\n  default: deny\n  rules:\n{rules}");
    let workloads = [workload("web", 1, &[]), workload("db", 2, &[])];
    let fits = compile_segments(&compile(&all), &workloads);
    assert_eq!(fits.problems, []);
    // One more, and it is said; nothing is let through that the rules do not allow.
    let over = compile_segments(
        &compile(&format!("{all}    - {{from: any, to: db, proto: udp, action: allow}}\n    - {{from: web, to: db, action: deny}}\n")),
        &workloads,
    );
    assert_eq!(over.problems, [SegmentProblem::PairOverflow { from: "web".into(), to: "db".into() }]);
    let (web, db) = (over.classes[0], over.classes[1]);
    assert_eq!(over.table.pairs[&(web, db)].len(), PAIR_RULES_MAX);
    assert_eq!(over.table.lookup(web, db, 6, 10), (Action::Allow, Some(0)));
    assert_eq!(over.table.lookup(web, db, 17, 1), (Action::Deny, Some(RULE_OVERFLOW)));
    // A trailing line that says what the default says is left out instead.
    let trailing = compile_segments(&compile(&format!("{all}    - {{from: web, to: db, action: deny}}\n")), &workloads);
    assert_eq!(trailing.problems, []);
    assert_eq!(trailing.table.lookup(web, db, 17, 1), (Action::Deny, None));
}

#[test]
fn more_kinds_of_containers_than_classes_is_a_problem_and_denies_them() {
    let rules: String =
        (0..9).map(|n| format!("    - {{from: {{label: {{l{n}: x}}}}, to: world, proto: {}, action: deny}}\n", n + 1)).collect();
    let policy = compile(&format!("segments:\n  default: allow\n  rules:\n{rules}"));
    // 2^9 combinations of labels.
    let workloads: Vec<Workload> = (0..512u64)
        .map(|n| {
            let labels: Vec<String> = (0..9).filter(|bit| n >> bit & 1 == 1).map(|bit| format!("l{bit}")).collect();
            workload(&format!("c{n}"), n + 1, &labels.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let segmented = compile_segments(&policy, &workloads);
    let unclassed = 512 - (CLASSES_MAX - 3);
    assert_eq!(segmented.classes.iter().filter(|class| **class == ClassId::UNCLASSED).count(), unclassed);
    assert_eq!(segmented.problems, [SegmentProblem::TooManyClasses { first: format!("c{}", CLASSES_MAX - 3), workloads: unclassed }]);
    let denied = (Action::Deny, Some(RULE_UNCLASSED));
    assert_eq!(segmented.table.lookup(ClassId::UNCLASSED, ClassId::WORLD, 255, 0), denied);
    assert_eq!(segmented.table.lookup(segmented.classes[0], ClassId::UNCLASSED, 6, 80), denied);
    assert_eq!(segmented.table.lookup(ClassId::UNCLASSED, ClassId::UNCLASSED, 6, 80), denied);
    assert!(segmented.table.pairs.len() <= CLASSES_MAX * CLASSES_MAX);
}

#[test]
fn numbers_of_stopped_containers_are_given_away_again() {
    let policy = compile("segments:\n  rules:\n    - {from: \"c?\", to: c1, action: deny}\n    - {from: c2, to: c3, action: deny}\n");
    let mut segmenter = Segmenter::new(&policy);
    let all: Vec<Workload> = (1..=4).map(|n| workload(&format!("c{n}"), n, &[])).collect();
    assert_eq!(segmenter.update(&all).classes, [2, 3, 4, 5].map(ClassId));
    assert_eq!(segmenter.update(&all[2..]).classes, [4, 5].map(ClassId));
    assert_eq!(segmenter.update(&[all[3].clone(), all[2].clone(), all[0].clone()]).classes, [5, 4, 2].map(ClassId));
}

#[test]
fn a_rule_that_never_decides_is_warned_of() {
    let config = parse(&[Source::new(
        "bulkhead.yaml",
        "segments:\n  rules:\n    - {name: wide, from: web*, to: any, action: allow}\n    - {name: narrow, from: web*, to: db, proto: tcp, ports: 5432, action: deny}\n    - {name: other, from: db, to: any, action: deny}\n",
    )])
    .expect("a good configuration");
    let warnings = lint(&config);
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].code, warnings[0].line), ("unreachable", 4));
    assert!(warnings[0].message.contains("narrow") && warnings[0].help.as_deref().is_some_and(|help| help.contains("wide")));
}

fn refused(sources: &[Source]) -> Vec<Diagnostic> {
    parse(sources).expect_err("refused")
}

fn compile(text: &str) -> PolicySnapshot {
    let config = parse(&[Source::new("bulkhead.yaml", text)]).unwrap_or_else(|d| panic!("{}", bulkhead_policy::render(&d)));
    PolicySnapshot::compile(&config, 1)
}

fn workload(name: &str, netns: u64, labels: &[&str]) -> Workload {
    Workload {
        key: format!("netns:{netns}"),
        name: name.to_owned(),
        image: None,
        labels: labels.iter().map(|label| ((*label).to_owned(), "x".to_owned())).collect::<BTreeMap<_, _>>(),
        runtime: Runtime::Namespace,
        pid: 0,
        cgroup: "/".to_owned(),
        network: Network::Own { netns },
        interfaces: Vec::new(),
        published: Vec::new(),
    }
}
