//! Who may depend on whom: the tables `edges` and `only-in` of `ARCHITECTURE.md` against what cargo knows.

use std::collections::{BTreeMap, BTreeSet};

use crate::Problem;
use crate::metadata::{DependencyKind, Member, Metadata};
use crate::table::{self, Row};

const DOCUMENT: &str = "ARCHITECTURE.md";

/// The table `edges`, both ways: an edge that is not allowed, and an allowed one that is not there any more.
pub fn check(architecture: &str, metadata: &Metadata) -> Vec<Problem> {
    let rows = match table::named(architecture, "edges") {
        Ok(rows) => rows,
        Err(what) => return vec![Problem::new(DOCUMENT, 0, what)],
    };
    let mut problems = Vec::new();
    let mut named = BTreeSet::new();
    for Row { line, cells } in &rows {
        let [name, normal, tests] = cells.as_slice() else {
            problems.push(Problem::new(DOCUMENT, *line, "a row of the table `edges` has three cells: crate, may use, in tests also"));
            continue;
        };
        let name = name.trim_matches('`');
        let Some(member) = metadata.members.get(name) else {
            problems.push(Problem::new(DOCUMENT, *line, format!("`{name}` is not a package of the workspace: take the row away")));
            continue;
        };
        if !named.insert(name.to_owned()) {
            problems.push(Problem::new(DOCUMENT, *line, format!("`{name}` has two rows")));
        }
        for (cell, in_tests) in [(normal, false), (tests, true)] {
            let allowed: BTreeSet<String> = table::list(cell).into_iter().collect();
            let found = inner(member, metadata, in_tests);
            let place = if in_tests { " in its tests" } else { "" };
            for extra in found.difference(&allowed) {
                let manifest = format!("{}/Cargo.toml", member.folder);
                problems.push(Problem::new(
                    &manifest,
                    0,
                    format!("`{name}` uses `{extra}`{place}, which the table `edges` of {DOCUMENT} does not allow: take the edge away, or write down why it is right"),
                ));
            }
            for gone in allowed.difference(&found) {
                problems.push(Problem::new(
                    DOCUMENT,
                    *line,
                    format!("`{name}` does not use `{gone}`{place} any more: take it out of the table `edges`"),
                ));
            }
        }
    }
    for name in metadata.members.keys().filter(|name| !named.contains(*name)) {
        problems.push(Problem::new(DOCUMENT, 0, format!("the table `edges` has no row for `{name}`")));
    }
    problems
}

/// The table `only-in`: dependencies of others that only some folders may use. Tests may use what they need.
pub fn check_only_in(architecture: &str, metadata: &Metadata) -> Vec<Problem> {
    let rows = match table::named(architecture, "only-in") {
        Ok(rows) => rows,
        Err(what) => return vec![Problem::new(DOCUMENT, 0, what)],
    };
    let mut users: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in metadata.members.values() {
        for (dependency, _) in member.dependencies.iter().filter(|(_, kind)| *kind != DependencyKind::Development) {
            users.entry(dependency).or_default().push(member);
        }
    }
    let mut problems = Vec::new();
    for Row { line, cells } in &rows {
        let [names, folders, ..] = cells.as_slice() else {
            problems.push(Problem::new(DOCUMENT, *line, "a row of the table `only-in` has the cells: dependency, only in, why"));
            continue;
        };
        let folders = table::list(folders);
        for name in table::list(names) {
            let Some(members) = users.get(name.as_str()) else {
                problems.push(Problem::new(DOCUMENT, *line, format!("nothing uses `{name}` any more: take it out of the table `only-in`")));
                continue;
            };
            for member in members {
                let inside = folders.iter().any(|folder| member.folder == *folder || member.folder.starts_with(&format!("{folder}/")));
                if !inside {
                    let manifest = format!("{}/Cargo.toml", member.folder);
                    let what = format!("`{name}` may only be used in {}: see the table `only-in` of {DOCUMENT}", folders.join(", "));
                    problems.push(Problem::new(&manifest, 0, what));
                }
            }
        }
    }
    problems.dedup();
    problems
}

/// The rows of the table `edges` as the crates stand, for putting into the document.
pub fn render(metadata: &Metadata) -> String {
    let cell = |names: BTreeSet<String>| match names.len() {
        0 => "–".to_owned(),
        _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let mut text = "| crate | may use | in tests also |\n|---|---|---|\n".to_owned();
    for member in metadata.members.values() {
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            member.name,
            cell(inner(member, metadata, false)),
            cell(inner(member, metadata, true))
        ));
    }
    text
}

/// Packages of the workspace that this one uses; in tests only those that it does not use anyway.
fn inner(member: &Member, metadata: &Metadata, in_tests: bool) -> BTreeSet<String> {
    let of = |test: bool| -> BTreeSet<String> {
        member
            .dependencies
            .iter()
            .filter(|(name, kind)| metadata.members.contains_key(name) && (*kind == DependencyKind::Development) == test)
            .map(|(name, _)| name.clone())
            .collect()
    };
    if in_tests { of(true).difference(&of(false)).cloned().collect() } else { of(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(edges: &[(&str, &str, DependencyKind)]) -> Metadata {
        let mut metadata = Metadata::default();
        for name in ["model", "net", "agent"] {
            let folder = if name == "agent" { "crates/bin/agent".to_owned() } else { format!("crates/engine/{name}") };
            metadata.members.insert(name.to_owned(), Member { name: name.to_owned(), folder, ..Member::default() });
        }
        for (from, to, kind) in edges {
            metadata.members.get_mut(*from).unwrap().dependencies.insert(((*to).to_owned(), kind.clone()));
        }
        metadata
    }

    fn document(rows: &str) -> String {
        format!("<!-- edges:begin -->\n| crate | may use | in tests also |\n|---|---|---|\n{rows}<!-- edges:end -->\n")
    }

    const ROWS: &str = "| `model` | – | – |\n| `net` | `model` | – |\n| `agent` | `net` | `model` |\n";

    #[test]
    fn edges_as_written_are_fine() {
        let tree = metadata(&[
            ("net", "model", DependencyKind::Normal),
            ("agent", "net", DependencyKind::Normal),
            ("agent", "model", DependencyKind::Development),
        ]);
        assert_eq!(check(&document(ROWS), &tree), []);
        assert_eq!(check(&document(render(&tree).split_once("|---|---|---|\n").unwrap().1), &tree), []);
    }

    #[test]
    fn an_edge_too_many_and_one_that_went_are_both_told() {
        let tree = metadata(&[
            ("model", "net", DependencyKind::Normal),
            ("agent", "net", DependencyKind::Normal),
            ("agent", "model", DependencyKind::Normal),
        ]);
        let problems = check(&document(ROWS), &tree);
        let told = |part: &str| problems.iter().filter(|problem| problem.what.contains(part)).count();
        assert_eq!(told("`model` uses `net`"), 1);
        assert_eq!(told("`agent` uses `model`,"), 1);
        assert_eq!(told("`net` does not use `model` any more"), 1);
        assert_eq!(told("`agent` does not use `model` in its tests any more"), 1);
    }

    #[test]
    fn packages_and_rows_must_answer_each_other() {
        let problems = check(&document("| `model` | – | – |\n| `net` | – | – |\n| `gone` | – | – |\n"), &metadata(&[]));
        assert!(problems.iter().any(|problem| problem.what.contains("`gone` is not a package")));
        assert!(problems.iter().any(|problem| problem.what.contains("no row for `agent`")));
        assert_eq!(check("no table", &metadata(&[])).len(), 1);
    }

    #[test]
    fn dependencies_stay_in_their_rooms() {
        let text = "<!-- only-in:begin -->\n| a | b | c |\n|---|---|---|\n| `libc` | `crates/bin` | x |\n| `tokio` | `crates/service` | x |\n<!-- only-in:end -->\n";
        let tree = metadata(&[
            ("agent", "libc", DependencyKind::Normal),
            ("model", "libc", DependencyKind::Development),
            ("net", "libc", DependencyKind::Build),
        ]);
        let problems = check_only_in(text, &tree);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].file, "crates/engine/net/Cargo.toml");
        assert!(problems[1].what.contains("nothing uses `tokio`"));
    }
}
