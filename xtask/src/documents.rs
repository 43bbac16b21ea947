//! Documents: every relative link leads to a file, every anchor to a heading, every test that is named exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::{File, Problem};

/// `exists` tells whether a path relative to the root is there (folders too).
pub fn check(files: &[File], exists: impl Fn(&str) -> bool) -> Vec<Problem> {
    let documents: BTreeMap<&str, &File> =
        files.iter().filter(|file| file.extension() == "md").map(|file| (file.path.as_str(), file)).collect();
    let anchors: BTreeMap<&str, BTreeSet<String>> = documents.iter().map(|(path, file)| (*path, headings(&file.text))).collect();
    let mut problems = Vec::new();
    for (path, file) in &documents {
        for (line, target) in links(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = target.split_once('#').map_or((target.as_str(), None), |(target, anchor)| (target, Some(anchor)));
            let full = if target.is_empty() { Some((*path).to_owned()) } else { joined(path, target) };
            let Some(full) = full.filter(|full| exists(full)) else {
                problems.push(Problem::new(path, line, format!("the link to `{target}` leads nowhere")));
                continue;
            };
            if let (Some(anchor), Some(known)) = (anchor, anchors.get(full.as_str()))
                && !known.contains(anchor)
            {
                problems.push(Problem::new(path, line, format!("`{full}` has no heading `#{anchor}`")));
            }
        }
        for (line, test_file, test) in named_tests(&file.text) {
            let there = files.iter().any(|file| file.path == test_file && defines(&file.text, &test));
            if !there {
                problems.push(Problem::new(path, line, format!("`{test_file}` has no test `{test}`")));
            }
        }
    }
    problems
}

/// `[text](target)` outside code, with the line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((number, target.to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

/// `` `path.rs::test` `` in prose and tables.
fn named_tests(text: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for span in line.split('`').skip(1).step_by(2) {
            if let Some((file, test)) = span.split_once("::")
                && file.ends_with(".rs")
                && file.contains('/')
            {
                found.push((number, file.to_owned(), test.to_owned()));
            }
        }
    }
    found
}

fn defines(text: &str, test: &str) -> bool {
    text.match_indices(test).any(|(at, _)| text[..at].ends_with("fn ") && text[at + test.len()..].starts_with(['(', '<']))
}

/// Anchors as GitHub makes them: small letters, no punctuation, dashes for spaces, numbers behind repetitions.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect();
        let count = repeated.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

/// Lines outside fenced code, with their number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fence = !fence;
            return None;
        }
        (!fence).then_some((index + 1, line))
    })
}

fn without_code(line: &str) -> String {
    let spans = line.split('`').count();
    // A backtick without its partner is a letter.
    if spans.is_multiple_of(2) {
        return line.to_owned();
    }
    line.split('`').step_by(2).collect::<Vec<_>>().join("x")
}

/// The target's path from the root. `None`: it leads out of the tree.
fn joined(document: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(files: &[File]) -> Vec<String> {
        check(files, |path| files.iter().any(|file| file.path == path) || path == "docs").into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let fine = [
            File::new(
                "README.md",
                "[a](docs/a.md#two-words) [b](docs) `[c](gone.md)` <https://x.org> [d](https://x.org/y)\n```\n[e](gone.md)\n```\n",
            ),
            File::new("docs/a.md", "# Two `words`!\n## Same\n## Same\n[x](../README.md) [y](#same-1) [z](a.md#same)\n"),
        ];
        assert_eq!(told(&fine), Vec::<String>::new());
        let bad = [File::new("docs/a.md", "# One\n[x](b.md) [y](#two) [z](../../etc/passwd) [w](a.md#three)\n")];
        assert_eq!(told(&bad).len(), 4, "{:?}", told(&bad));
    }

    #[test]
    fn tests_that_are_named_must_exist() {
        let files = [
            File::new("docs/a.md", "| `tests/tests/x.rs::it_holds` | `tests/tests/x.rs::it` | `std::fmt` | `a.rs` |\n"),
            File::new("tests/tests/x.rs", "#[test]\nfn it_holds() {}\n"),
        ];
        assert_eq!(told(&files), ["`tests/tests/x.rs` has no test `it`"]);
    }
}
