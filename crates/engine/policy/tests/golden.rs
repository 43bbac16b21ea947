//! Broken configurations and the exact words in which they are refused. `bad/NAME.yaml` holds one or more files (each
//! after the first begins with a line `#=== NAME`), `bad/NAME.err` what is printed.
//!
//! `BULKHEAD_BLESS=1 cargo test -p bulkhead-policy` writes the expectations anew; look at the difference before you keep it.

use std::fs;
use std::path::Path;

use bulkhead_policy::{Severity, Source, parse, render};

#[test]
fn broken_configurations_are_refused_in_these_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the folder of broken configurations")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 20, "only {} broken configurations were found", names.len());
    let mut wrong = Vec::new();
    for name in names {
        let text = fs::read_to_string(folder.join(format!("{name}.yaml"))).expect("a broken configuration");
        let diagnostics = parse(&sources(&text)).expect_err(&name);
        assert!(diagnostics.iter().all(|d| d.severity == Severity::Error && !d.source.is_empty()), "{name}");
        let printed = render(&diagnostics);
        assert!(!printed.contains('\u{1b}'), "{name}: an escape reaches the terminal");
        let expected_at = folder.join(format!("{name}.err"));
        if std::env::var_os("BULKHEAD_BLESS").is_some() {
            fs::write(&expected_at, &printed).expect("the expectation is written");
        }
        let expected = fs::read_to_string(&expected_at).unwrap_or_default();
        if printed != expected {
            wrong.push(format!("=== {name}\n--- expected\n{expected}--- printed\n{printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(text: &str) -> Vec<Source> {
    let mut sources = vec![Source::new("bulkhead.yaml", "")];
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("#=== ") {
            Some(name) => sources.push(Source::new(name.trim(), "")),
            None => sources.last_mut().expect("one from the start").text.push_str(line),
        }
    }
    sources
}
