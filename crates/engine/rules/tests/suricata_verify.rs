//! The rules of suricata-verify as the language sees them: what the cases expect to load loads, what they expect to be refused is
//! refused. Read in place, when there; the cases where we differ are listed with their reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bulkhead_rules::{Code, Severity, parse};

/// Expected to be refused, and read here.
const READ: &[(&str, &str)] = &[
    ("datajson/datajson-08-invalid-json", "what a set's file holds is told when it is loaded"),
    ("datajson/datajson-12-nonstring-md5", "what a set's file holds is told when it is loaded"),
    ("datajson/datajson-13-nonstring-sha256", "what a set's file holds is told when it is loaded"),
    ("datajson/datajson-14-nonstring-ipv4", "what a set's file holds is told when it is loaded"),
    ("datarep-03-bad-reputation", "what a set's file holds is told when it is loaded"),
    ("ja4-rules-disabled", "ja4 is not an option here"),
    ("ssh-hassh-disabled", "hassh is not an option here"),
    ("threshold-config-validate-01", "the threshold file is wrong, not the rule"),
];

/// Expected to load, and refused here.
const REFUSED: &[(&str, &str)] = &[("event-rules-6.0.20", "the protocol ikev2 went with version 7")];

fn data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?;
    let path = root.join("../shared/data/suricata-verify");
    path.join("cases.tsv").exists().then_some(path)
}

#[test]
fn rules_load_or_are_refused_as_the_cases_expect() {
    let Some(folder) = data() else {
        println!("NOT RUN: rules_load_or_are_refused_as_the_cases_expect (../shared/data/suricata-verify is absent)");
        return;
    };
    let table = std::fs::read_to_string(folder.join("cases.tsv")).unwrap();
    let mut lines = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|found| *found == name).unwrap();
    let (name, files) = (column("test"), column("rules_file"));
    let (mut cases, mut rules, mut loaded, mut without) = (0, 0, 0, 0);
    let (mut read, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in lines.filter(|line| !line[files].is_empty()) {
        let case = line[name].to_owned();
        // The firewall's own language is refused with a code, and so is Lua.
        if case.starts_with("firewall/") || case.starts_with("lua/") {
            continue;
        }
        let yaml = std::fs::read_to_string(folder.join("tests").join(&case).join("test.yaml")).unwrap();
        let refusal =
            yaml.lines().any(|line| line.trim() == "exit-code: 1") || case.starts_with("test-bad-") || case == "test-content-limits-1";
        let mut errors = 0;
        for file in line[files].split(';') {
            let Ok(bytes) = std::fs::read(folder.join("tests").join(file)) else { continue };
            let found = parse(&String::from_utf8_lossy(&bytes));
            rules += found.counts.loaded + found.counts.unsupported + found.counts.wrong;
            loaded += found.counts.loaded;
            without += found.counts.unsupported;
            let beyond = |code: Code| matches!(code, Code::LuaUnsupported | Code::RequirementUnmet);
            errors += found.diagnostics.iter().filter(|found| found.severity != Severity::Warning && !beyond(found.code)).count();
        }
        cases += 1;
        match (refusal, errors > 0) {
            (true, false) => _ = read.insert(case),
            (false, true) => _ = refused.insert(case),
            (true, true) | (false, false) => {}
        }
    }
    println!("suricata-verify, the language: {cases} cases, {rules} rules, {loaded} loaded, {without} unsupported");
    println!("{} cases differ: read {read:?}, refused {refused:?}", read.len() + refused.len());
    let listed = |list: &[(&str, &str)]| list.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(read, listed(READ));
    assert_eq!(refused, listed(REFUSED));
    assert!(cases > 900);
}
