//! The whole of Emerging Threats Open and the rules of suricata-verify go through the parser. Read in place, when there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_rules::{Code, Severity, format, fuzz_rules, parse};

/// Where the repository's neighbours keep data, or nothing.
fn data(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?;
    let path = root.join("../shared/data").join(path);
    path.exists().then_some(path)
}

#[test]
fn all_of_et_open_is_well_formed_and_survives_formatting() {
    let Some(path) = data("rules/et-open.rules") else {
        println!("NOT RUN: all_of_et_open_is_well_formed_and_survives_formatting (../shared/data/rules/et-open.rules is absent)");
        return;
    };
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let file = parse(&text);
    let wrong: Vec<String> =
        file.diagnostics.iter().filter(|found| found.severity == Severity::Error).take(10).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(file.counts.wrong, 0);
    let rules = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
    assert_eq!((file.counts.loaded, file.counts.unsupported), (rules, 0));
    println!("loaded {} unsupported {} of {rules}", file.counts.loaded, file.counts.unsupported);
    let without = bulkhead_rules::parse_signatures(&text);
    assert_eq!((without.counts, without.rules.len()), (file.counts, file.rules.len()));
    assert!(without.rules.iter().zip(&file.rules).all(|(a, b)| a.signature == b.signature && a.options.is_empty()));
    let mut written = String::new();
    for rule in file.rules.iter().chain(&file.unsupported) {
        written.push_str(&format::rule(rule));
        written.push('\n');
    }
    let again = parse(&written);
    let wrong: Vec<String> =
        again.diagnostics.iter().filter(|found| found.severity == Severity::Error).take(10).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(again.counts, bulkhead_rules::Counts { disabled: 0, ..file.counts });
    for (first, second) in file.rules.iter().zip(&again.rules).chain(file.unsupported.iter().zip(&again.unsupported)) {
        assert!(first.same_meaning(second), "{}", format::rule(first));
    }
}

#[test]
fn every_fiftieth_rule_of_et_open_survives_mutation() {
    let Some(path) = data("rules/et-open.rules") else {
        println!("NOT RUN: every_fiftieth_rule_of_et_open_survives_mutation (../shared/data/rules/et-open.rules is absent)");
        return;
    };
    let bytes = std::fs::read(path).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).step_by(50) {
        for _ in 0..4 {
            let mut mutated = line.to_vec();
            for _ in 0..1 + next() % 3 {
                let at = next() % mutated.len().max(1);
                match next() % 3 {
                    0 => mutated[at] = b"\\;:\"|!,()[]$#0-"[next() % 15],
                    1 => mutated.truncate(at.max(1)),
                    // A piece of the rule a second time.
                    _ => {
                        let piece = mutated[at..(at + next() % 40).min(mutated.len())].to_vec();
                        let place = next() % mutated.len();
                        mutated.splice(place..place, piece);
                    }
                }
            }
            fuzz_rules(&mutated);
        }
    }
}

#[test]
fn no_keyword_of_suricata_verify_is_unknown() {
    let Some(path) = data("suricata-verify/tests") else {
        println!("NOT RUN: no_keyword_of_suricata_verify_is_unknown (../shared/data/suricata-verify is absent)");
        return;
    };
    let mut files = Vec::new();
    collect(&path, &mut files, 0);
    assert!(files.len() > 500, "found {}", files.len());
    let mut unknown: BTreeMap<String, String> = BTreeMap::new();
    for path in files {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for found in parse(&text).diagnostics {
            if matches!(found.code, Code::UnknownKeyword | Code::UnknownProtocol | Code::UnknownAction) {
                unknown.insert(found.message.clone(), path.display().to_string());
            }
        }
    }
    for (message, path) in &unknown {
        println!("{message}  {path}");
    }
    // What the suite itself means to be unknown.
    let meant = [
        "`foo` is not a keyword",
        "`` is not a keyword",
        "`asdf` is not a protocol",
        "`vxlan` is not a protocol",
        "`ikev2` is not a protocol",
    ];
    assert!(unknown.keys().all(|message| meant.contains(&message.as_str())), "{unknown:#?}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>, depth: usize) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && depth < 6 {
            collect(&path, files, depth + 1);
        } else if path.extension().is_some_and(|extension| extension == "rules") {
            files.push(path);
        }
    }
}
