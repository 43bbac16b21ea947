//! `docs/conformance.md`: the table of cases that do not pass, read and written.

use std::collections::BTreeMap;
use std::path::Path;

const BEGIN: &str = "<!-- failing:begin -->";
const END: &str = "<!-- failing:end -->";
const COUNTS_BEGIN: &str = "<!-- counts:begin -->";
const COUNTS_END: &str = "<!-- counts:end -->";

pub struct Failing {
    pub class: String,
    pub why: String,
}

/// Cases by name, with their reasons.
pub fn read(page: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    let table = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map_or("", |(table, _)| table);
    let row = |line: &str| {
        let mut cells = line.trim().trim_matches('|').splitn(3, '|').map(str::trim);
        let name = cells.next()?.trim_matches('`');
        let why = cells.nth(1)?;
        (!name.is_empty() && name != "case" && !name.starts_with("--")).then(|| (name.to_owned(), why.to_owned()))
    };
    table.lines().filter(|line| line.starts_with('|')).filter_map(row).collect()
}

/// Reasons that a person wrote stay; those made from a check (`*.json {…`, `stats …`) are made anew.
pub fn write(page: &Path, failing: &BTreeMap<String, Failing>, counts: &BTreeMap<String, [usize; 4]>) {
    let listed = read(page);
    let text = std::fs::read_to_string(page).expect("docs/conformance.md");
    let mut table = "| case | class | why |\n|---|---|---|\n".to_owned();
    for (name, case) in failing {
        let made = |why: &String| {
            why.contains(".json {") || why.starts_with("stats ") || why.starts_with("a rule ") || why.starts_with("not built")
        };
        let why = match listed.get(name) {
            Some(why) if !made(why) => why.clone(),
            Some(_) | None => cell(&case.why),
        };
        table += &format!("| `{name}` | {} | {why} |\n", case.class);
    }
    let mut numbers = "| class | pass | fail | not built | of other versions |\n|---|---|---|---|---|\n".to_owned();
    for (class, [passed, failed, not_built, skipped]) in counts {
        numbers += &format!("| {class} | {passed} | {failed} | {not_built} | {skipped} |\n");
    }
    let text = between(&text, BEGIN, END, &table);
    let text = between(&text, COUNTS_BEGIN, COUNTS_END, &numbers);
    std::fs::write(page, text).expect("docs/conformance.md can be written");
}

fn cell(why: &str) -> String {
    why.replace('|', "/").replace(['\n', '\r'], " ").chars().take(160).collect()
}

fn between(text: &str, begin: &str, end: &str, what: &str) -> String {
    let (head, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{begin} is not in the page"));
    let (_, tail) = rest.split_once(end).unwrap_or_else(|| panic!("{end} is not in the page"));
    format!("{head}{begin}\n{what}{end}{tail}")
}
