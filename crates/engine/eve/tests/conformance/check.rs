//! The checks of `test.yaml`, as the suite's own runner reads them.

use std::collections::BTreeMap;

use bulkhead_eve::yaml::Yaml;
use serde_json::Value;

use crate::case::unmet;

pub enum Outcome {
    Holds,
    /// Another version's, or a shell command.
    LeftOut,
    Fails(Why),
}

pub struct Why {
    pub short: String,
    /// The events nearest to what was looked for.
    pub long: String,
}

impl Why {
    fn of(short: String) -> Outcome {
        Outcome::Fails(Self { short, long: String::new() })
    }
}

/// Events shown beside a filter that fails.
const NEAREST: usize = 3;

/// What was said of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    pub refused: usize,
    pub warned: usize,
}

pub fn run(check: &Yaml, logs: &BTreeMap<String, Vec<Value>>, rules_only: bool, said: Said) -> Outcome {
    let Some((kind, what)) = check.entries().first() else { return Outcome::LeftOut };
    let requires = what.get("requires").or_else(|| check.get("requires"));
    if requires.and_then(unmet).is_some() || unmet(what).is_some_and(|_| what.get("match").is_some()) {
        return Outcome::LeftOut;
    }
    match kind.as_str() {
        "filter" if is_about_words(what) => words(what, said),
        "filter" => filter(what, logs, rules_only),
        "stats" => stats(what, logs),
        "shell" => Outcome::LeftOut,
        other => Why::of(format!("a check of the kind `{other}`")),
    }
}

/// A line of the reference engine's own log.
fn is_about_words(what: &Yaml) -> bool {
    let matches = what.get("match").map(Yaml::entries).unwrap_or_default();
    matches.iter().any(|(key, value)| key.starts_with("engine.") || key == "event_type" && value.text() == Some("engine"))
}

/// The reference's words are not ours: a rule must be refused where they tell of that, warned of where they warn.
fn words(what: &Yaml, said: Said) -> Outcome {
    let matches = what.get("match");
    let level = matches.and_then(|matches| matches.get("log_level")).and_then(Yaml::text).unwrap_or("Error");
    let none = what.get("count").and_then(Yaml::text) == Some("0");
    match level {
        "Error" if none => Outcome::LeftOut,
        "Error" if said.refused > 0 => Outcome::Holds,
        "Error" => Why::of("a rule should be refused".to_owned()),
        "Warning" if none || said.warned + said.refused > 0 => Outcome::Holds,
        "Warning" => Why::of("a rule should be warned of".to_owned()),
        _ => Outcome::LeftOut,
    }
}

fn filter(what: &Yaml, logs: &BTreeMap<String, Vec<Value>>, rules_only: bool) -> Outcome {
    let none = Vec::new();
    let (name, lines) = match what.get("filename").and_then(Yaml::text) {
        Some(name) => match logs.get(name) {
            Some(lines) => (name, lines),
            None => return Why::of(format!("there is no `{name}`{}", if rules_only { ": no analysis of rules is written" } else { "" })),
        },
        // A single log under another name is still the log.
        None => match logs.get("eve.json").or_else(|| logs.values().next().filter(|_| logs.len() == 1)) {
            Some(lines) => ("eve.json", lines),
            None => ("eve.json", &none),
        },
    };
    let wanted: usize = what.get("count").and_then(Yaml::text).and_then(|count| count.parse().ok()).unwrap_or(1);
    let matches = what.get("match").map(Yaml::entries).unwrap_or_default();
    let found = lines.iter().filter(|line| matches.iter().all(|(key, expected)| holds(line, key, expected))).count();
    if found == wanted {
        return Outcome::Holds;
    }
    let shown: Vec<String> = matches.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect();
    let shown = shown.join(", ");
    // Long ones are told by what the nearest line has otherwise.
    let missed = if shown.len() > 100 && found < wanted { missed(lines, matches) } else { None };
    let short = match missed {
        Some(missed) => {
            format!("{name} {{{}}}: {found} instead of {wanted}, the nearest has {missed}", shown.chars().take(60).collect::<String>())
        }
        None => format!("{name} {{{shown}}}: {found} instead of {wanted}"),
    };
    Outcome::Fails(Why { short, long: nearest(lines, matches) })
}

/// What the nearest line has for the keys that do not hold.
fn missed(lines: &[Value], matches: &[(String, Yaml)]) -> Option<String> {
    let wrong = |line: &Value| -> Vec<String> {
        let of = |key: &str| find(line, key).map_or("nothing".to_owned(), |found| found.to_string().chars().take(40).collect());
        matches.iter().filter(|(key, expected)| !holds(line, key, expected)).map(|(key, _)| format!("{key}: {}", of(key))).collect()
    };
    let kind = matches.iter().find(|(key, _)| key == "event_type");
    let same_kind = lines.iter().filter(|line| kind.is_none_or(|(key, expected)| holds(line, key, expected)));
    same_kind.map(wrong).min_by_key(Vec::len).map(|wrong| wrong.join(", "))
}

/// Lines of which the most keys hold, and the keys that do not.
fn nearest(lines: &[Value], matches: &[(String, Yaml)]) -> String {
    let misses = |line: &Value| matches.iter().filter(|(key, expected)| !holds(line, key, expected)).count();
    let kind = matches.iter().find(|(key, _)| key == "event_type");
    let mut near: Vec<(usize, &Value)> = lines
        .iter()
        .filter(|line| kind.is_none_or(|(key, expected)| holds(line, key, expected)))
        .map(|line| (misses(line), line))
        .collect();
    near.sort_by_key(|(misses, _)| *misses);
    let mut text = String::new();
    if near.is_empty() {
        text += "  no event of this type\n";
    }
    for (_, line) in near.into_iter().take(NEAREST) {
        for (key, expected) in matches.iter().filter(|(key, expected)| !holds(line, key, expected)) {
            let found = find(line, key).map_or("absent".to_owned(), |found| found.to_string());
            text += &format!("  {key}: {} is expected, {found} found\n", plain(expected));
        }
        text += &format!("  in {line}\n");
    }
    text
}

fn holds(line: &Value, key: &str, expected: &Yaml) -> bool {
    let all = |expected: &Yaml, test: &dyn Fn(&str) -> bool| match expected {
        Yaml::List(items) => items.iter().filter_map(Yaml::text).all(test),
        other => other.text().is_none_or(test),
    };
    match key {
        "has-key" => return all(expected, &|key| find(line, key).is_some()),
        "not-has-key" => return all(expected, &|key| find(line, key).is_none()),
        _ => {}
    }
    let text = |found: &Value| found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    for (end, test) in [
        (".__contains", (|found: &str, wanted: &str| found.contains(wanted)) as fn(&str, &str) -> bool),
        (".__find", |found, wanted| found.contains(wanted)),
        (".__startswith", |found, wanted| found.starts_with(wanted)),
        (".__endswith", |found, wanted| found.ends_with(wanted)),
    ] {
        let Some(key) = key.strip_suffix(end).or_else(|| key.strip_suffix(&end[1..])) else { continue };
        let wanted = expected.text().unwrap_or_default();
        return match find(line, key) {
            Some(Value::Array(items)) => items.iter().any(|item| same(item, expected)),
            Some(found) => test(&text(found), wanted),
            None => false,
        };
    }
    if let Some(key) = key.strip_suffix(".__len").or_else(|| key.strip_suffix("__len")) {
        let len = match find(line, key) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(fields)) => fields.len(),
            Some(Value::String(text)) => text.chars().count(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => return false,
        };
        return expected.text().and_then(|wanted| wanted.parse().ok()) == Some(len);
    }
    match find(line, key) {
        Some(found) => same(found, expected),
        None => *expected == Yaml::Null,
    }
}

/// `a.b[1].c`
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(value, |value, part| {
        let (name, places) = part.split_once('[').map_or((part, ""), |(name, places)| (name, places));
        let value = value.get(name)?;
        places.split('[').filter(|place| !place.is_empty()).try_fold(value, |value, place| {
            let place: usize = place.trim_end_matches(']').parse().ok()?;
            value.get(place)
        })
    })
}

fn same(found: &Value, expected: &Yaml) -> bool {
    match (found, expected) {
        (Value::Array(found), Yaml::List(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| same(found, expected))
        }
        (Value::Object(found), Yaml::Map(expected)) => {
            found.len() == expected.len()
                && expected.iter().all(|(key, expected)| found.get(key).is_some_and(|found| same(found, expected)))
        }
        (Value::Null, Yaml::Null) => true,
        (Value::String(found), Yaml::Text { text, .. }) => found == text,
        (Value::String(found), Yaml::Null) => found.is_empty(),
        (Value::Bool(found), Yaml::Text { text, quoted: false }) => {
            bulkhead_eve::settings::flag(text) == Some(*found) && text.parse::<u64>().is_err()
        }
        (Value::Number(found), Yaml::Text { text, .. }) => number(text).is_some_and(|wanted| found.as_f64() == Some(wanted)),
        _ => false,
    }
}

/// As YAML 1.1 reads it.
fn number(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|number| number as f64),
        None => text.parse().ok(),
    }
}

fn stats(what: &Yaml, logs: &BTreeMap<String, Vec<Value>>) -> Outcome {
    let last = logs.values().flatten().rfind(|line| line.get("event_type").is_some_and(|kind| kind == "stats"));
    let Some(stats) = last.and_then(|line| line.get("stats")) else { return Why::of("no `stats`".to_owned()) };
    for (key, expected) in what.entries() {
        let found = find(stats, key);
        // A counter that was never raised is not there.
        let zero = found.is_none() && expected.text() == Some("0");
        if !zero && !found.is_some_and(|found| same(found, expected)) {
            return Why::of(format!("stats {key}: {} is expected, {found:?} found", plain(expected)));
        }
    }
    Outcome::Holds
}

fn plain(value: &Yaml) -> String {
    match value {
        Yaml::Null => "null".to_owned(),
        Yaml::Text { text, .. } | Yaml::Include(text) => text.chars().take(60).collect(),
        Yaml::List(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Yaml::Map(entries) => {
            format!("{{{}}}", entries.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect::<Vec<_>>().join(", "))
        }
    }
}
