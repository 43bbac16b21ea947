//! Each rule of the repository has something it finds and a benign twin it lets be: `rules/malware/tests/NAME.txt` beside `NAME.yar`.
//!
//! A line that is a word names the rule; `hit` and `miss` are what it must and must not find, with `\n`, `\t`, `\\` and `\xNN`, and
//! `{elf:TYPE}` for the header of a program with that `e_type`, `{bare}` for one without sections, `{letters:N}` and `{random:N}` for bytes.
//! Some letter of each hit is written in the second form, so that these texts are not themselves what they describe.

mod kit;

use std::collections::BTreeMap;
use std::path::Path;

use bulkhead_scan::{Action, Compiler, builtin};
use kit::{names, scan};

#[derive(Default)]
struct Case {
    hits: Vec<Vec<u8>>,
    misses: Vec<Vec<u8>>,
}

fn cases() -> BTreeMap<String, Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../rules/malware/tests");
    let mut cases = BTreeMap::<String, Case>::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the tests of the rules").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let mut rule = String::new();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            match line.split_once(' ') {
                None => rule = line.to_owned(),
                Some(("hit", text)) => cases.entry(rule.clone()).or_default().hits.push(bytes(text.trim_start())),
                Some(("miss", text)) => cases.entry(rule.clone()).or_default().misses.push(bytes(text.trim_start())),
                Some(_) => panic!("{}: `{line}`", file.display()),
            }
        }
    }
    cases
}

fn header(kind: u8, sections: u8) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    header[16] = kind;
    header[18] = 62;
    header[60] = sections;
    header
}

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let macro_text = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        if let Some((name, after)) = macro_text
            && let (word, number) = name.split_once(':').unwrap_or((name, "0"))
            && let Ok(number) = number.parse::<usize>()
            && matches!(word, "elf" | "bare" | "letters" | "random")
        {
            match word {
                "elf" => out.extend(header(number as u8, 1)),
                "bare" => out.extend(header(2, 0)),
                "letters" => out.extend((0..number).map(|at| b'A' + (at % 26) as u8)),
                _ => {
                    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
                    out.extend((0..number).map(|_| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        (state >> 32) as u8
                    }));
                }
            }
            rest = after;
        } else if let Some(escaped) = rest.strip_prefix('\\') {
            let (byte, len) = match escaped.as_bytes() {
                [b'n', ..] => (b'\n', 1),
                [b't', ..] => (b'\t', 1),
                [b'\\', ..] => (b'\\', 1),
                [b'x', ..] => (u8::from_str_radix(&escaped[1..3], 16).expect("two digits"), 3),
                _ => (b'\\', 0),
            };
            out.push(byte);
            rest = &escaped[len..];
        } else {
            out.extend(first.to_string().bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[test]
fn each_rule_finds_its_hits_and_lets_their_twins_be() {
    let mut compiler = Compiler::default();
    compiler.builtin();
    let (set, summary) = compiler.finish();
    assert_eq!(summary.diagnostics, []);
    let rules: Vec<String> = builtin::RULES
        .iter()
        .flat_map(|(_, text, _)| text.lines().filter_map(|line| line.strip_prefix("rule ")).map(|name| name.trim().to_owned()))
        .collect();
    assert_eq!(summary.loaded["yara"], rules.len());
    let mut cases = cases();
    let mut faults = Vec::new();
    for rule in &rules {
        let case = cases.remove(rule).unwrap_or_default();
        if case.hits.is_empty() || case.misses.is_empty() {
            faults.push(format!("{rule} lacks a hit or a miss"));
        }
        for hit in case.hits {
            if !names(&scan(&set, &hit)).contains(&rule.as_str()) {
                faults.push(format!("{rule} does not find {}", String::from_utf8_lossy(&hit)));
            }
        }
        for miss in case.misses {
            // Nothing that blocks may come of it, whichever rule it is.
            let report = scan(&set, &miss);
            if names(&report).contains(&rule.as_str()) || report.action() == Some(Action::Block) {
                faults.push(format!("{:?} find the twin of {rule}", names(&report)));
            }
        }
    }
    faults.extend(cases.keys().map(|name| format!("there is no rule {name}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
