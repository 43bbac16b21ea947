//! What is published is true: the schema and the reference page are those of this program, the sample and every example in
//! the documents are accepted, the unit gives the directories that the defaults name.
//!
//! `BULKHEAD_BLESS=1 cargo test -p bulkhead-policy` writes schema and page anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_policy::{Config, Source, parse, render, schema};

const GENERATED_FROM_HERE: &str = "from the declarations of the settings. -->\n\n";

#[test]
fn the_published_schema_is_current() {
    golden(&root().join("packaging/bulkhead.schema.json"), |_| schema::json_schema_text());
}

#[test]
fn the_reference_page_is_current() {
    golden(&root().join("docs/configuration.md"), |old| {
        let (head, _) = old.split_once(GENERATED_FROM_HERE).expect("the line from which on the page is generated");
        format!("{head}{GENERATED_FROM_HERE}{}", schema::reference().trim_end().to_owned() + "\n")
    });
}

#[test]
fn the_sample_shows_the_defaults() {
    let sample = read(&root().join("packaging/bulkhead.yaml"));
    assert_eq!(good("as installed", &sample), Config::default());
    let mut shown = good("with all settings switched on", &switched_on(&sample));
    assert!(!shown.workloads.is_empty() && !shown.segments.rules.is_empty(), "the examples are gone");
    shown.workloads.clear();
    shown.segments.rules.clear();
    assert_eq!(shown, Config::default());
}

/// Each key that the schema knows stands in the sample.
#[test]
fn the_sample_leaves_nothing_out() {
    let sample = switched_on(&read(&root().join("packaging/bulkhead.yaml")));
    let schema = schema::json_schema();
    let mut open = vec![(String::new(), &schema)];
    while let Some((path, schema)) = open.pop() {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            assert!(key == "overrides" || sample.contains(&format!("{key}:")), "{path} is not in the sample");
            open.push((path, property));
        }
    }
}

#[test]
fn every_example_in_the_documents_is_accepted() {
    let mut examples = 0;
    for page in ["policy.md", "configuration.md"] {
        let text = read(&root().join("docs").join(page));
        for (number, block) in text.split("```yaml\n").skip(1).enumerate() {
            let yaml = block.split("```").next().unwrap_or_default();
            good(&format!("{page}, example {}", number + 1), yaml);
            examples += 1;
        }
    }
    assert!(examples >= 4, "only {examples} examples were found");
}

#[test]
fn every_default_path_lies_in_a_directory_that_the_unit_gives() {
    let unit = read(&root().join("packaging/bulkhead.service"));
    let value = |key: &str| {
        let values: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
        assert!(values.len() <= 1, "{key} is given twice");
        values.first().copied()
    };
    let directory = |base: &str, key: &str| format!("{base}/{}/", value(key).unwrap_or_else(|| panic!("{key} is missing")));
    let config = Config::default();
    for (path, directory) in [
        (&config.events.eve.path, directory("/var/log", "LogsDirectory")),
        (&config.events.store.path, directory("/var/lib", "StateDirectory")),
        (&config.api.socket, directory("/run", "RuntimeDirectory")),
        (&config.rules.files[0], directory("/etc", "ConfigurationDirectory")),
    ] {
        assert!(path.as_str().starts_with(&directory), "{path} is not in {directory}");
    }
    for (key, expected) in
        [("Type", "notify"), ("Restart", "always"), ("OOMScoreAdjust", "-900"), ("ProtectSystem", "strict"), ("NoNewPrivileges", "yes")]
    {
        assert_eq!(value(key), Some(expected), "{key}");
    }
    assert!(value("WatchdogSec").is_some() && value("CapabilityBoundingSet").is_some() && value("SystemCallFilter").is_some());
    // Stopping must leave the kernel's part in place: what comes after it takes away a directory that is empty, or nothing.
    assert_eq!(value("ExecStop"), None);
    assert_eq!(value("ExecStopPost"), Some("+/usr/bin/rmdir --ignore-fail-on-non-empty /sys/fs/bpf/bulkhead"));
    // The agent must be able to live up to the default caps.
    let gib = value("MemoryMax").and_then(|max| max.strip_suffix('G')).and_then(|max| max.parse::<u64>().ok()).expect("MemoryMax in GiB");
    assert!(gib << 30 >= 4 * (config.inspect.stream_memory.bytes() + config.inspect.fragment_memory.bytes()));
}

#[test]
fn systemd_understands_the_unit() {
    let unit = root().join("packaging/bulkhead.service");
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).output() else {
        println!("NOT RUN: systemd_understands_the_unit: no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // The program is not installed where tests run; and only what is said of this unit counts.
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("bulkhead.service") && !line.contains("is not executable")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Settings begin with `#` and no space, or are indented by more than one; prose stands one space after the `#`.
fn switched_on(sample: &str) -> String {
    let is_setting = |line: &str| !line.starts_with(' ') || line.starts_with("  ");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && is_setting(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

fn good(what: &str, text: &str) -> Config {
    parse(&[Source::new(what, text)]).unwrap_or_else(|diagnostics| panic!("{}", render(&diagnostics)))
}

fn golden(path: &Path, make: impl Fn(&str) -> String) {
    let old = fs::read_to_string(path).unwrap_or_default();
    let new = make(&old);
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        fs::write(path, &new).expect("the file is written");
        return;
    }
    assert!(old == new, "{} is not current: BULKHEAD_BLESS=1 cargo test -p bulkhead-policy", path.display());
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the repository").to_owned()
}
