//! `golden/NAME.rules` gives the diagnostics in `golden/NAME.out`. `BLESS=1 cargo test` writes them anew.

use std::path::Path;

use bulkhead_rules::{format, fuzz_rules, parse};

#[test]
fn each_file_gives_the_diagnostics_written_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rules")) {
        seen += 1;
        let text = std::fs::read_to_string(path).unwrap();
        let file = parse(&text);
        let counts = file.counts;
        let mut out =
            format!("loaded {} unsupported {} wrong {} disabled {}\n", counts.loaded, counts.unsupported, counts.wrong, counts.disabled);
        for found in &file.diagnostics {
            out += &format!(
                "{found}\n    {} `{}`\n",
                found.label,
                &text[found.span.start..found.span.end].chars().take(60).collect::<String>()
            );
        }
        for rule in file.rules.iter().chain(&file.disabled) {
            out += &format!("{}\n", format::rule(rule));
        }
        let expected = path.with_extension("out");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &out).unwrap();
        }
        assert_eq!(out, std::fs::read_to_string(&expected).unwrap_or_default(), "{}", path.display());
        let tidy = format::file(&text);
        assert_eq!(format::file(&tidy), tidy, "{}", path.display());
        assert_eq!(parse(&tidy).counts, counts, "{}", path.display());
        for line in text.lines() {
            fuzz_rules(line.as_bytes());
        }
    }
    assert!(seen >= 3);
}

#[test]
fn mutated_rules_never_panic_and_what_loads_is_read_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            for _ in 0..60 {
                let mut mutated = line.to_vec();
                for _ in 0..1 + next() % 4 {
                    let at = (next() as usize) % mutated.len();
                    match next() % 4 {
                        0 => mutated[at] = next() as u8,
                        1 => mutated[at] = b"\\;:\"|!,()[]$#"[(next() % 13) as usize],
                        2 => _ = mutated.remove(at),
                        _ => mutated.truncate(at + 1),
                    }
                    if mutated.is_empty() {
                        break;
                    }
                }
                fuzz_rules(&mutated);
            }
        }
    }
}

/// Options made so that a quadratic step in the compiler would be felt; what counts is that all of them end, and how.
#[test]
fn long_lists_have_an_end() {
    let numbered = |count: usize, between: &str| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>().join(between);
    let rule = |options: &str| format!("alert tcp any any -> any any (msg:\"m\"; {options} sid:1;)");
    for options in [
        format!("flowbits:isset,{}; flowbits:isset,{};", numbered(5000, "|"), numbered(5000, "|")),
        format!("app-layer-protocol:!{};", vec!["tls"; 8000].join("|")),
        format!("content:\"a\"; byte_math:{};", numbered(9000, ",")),
        format!("content:\"a\"; {}", "depth:1;".repeat(6000)),
        "nothing:1;".repeat(6000),
        "content:\"a\";".repeat(600),
        format!("http.uri; {} content:\"a\";", "to_md5;".repeat(17)),
        format!("threshold:{};", numbered(9000, ",")),
        format!("content:\"{}\";", "a".repeat(70_000)),
    ] {
        let file = parse(&rule(&options));
        assert_eq!((file.counts.loaded, file.counts.wrong), (0, 1), "{}", &options[..60]);
        assert_eq!(file.diagnostics.len(), 1);
    }
    assert_eq!(parse(&rule(&"content:\"a\";".repeat(512))).counts.loaded, 1);
}
