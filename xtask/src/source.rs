//! Rules on source files: where `unsafe` may stand, words that must not, lengths, paths of somebody's machine.

use crate::metadata::Metadata;
use crate::{File, Problem};

/// Lines of one source file.
const LINES_MAX: usize = 1200;

/// Folders whose crates forbid unsafe code.
const SAFE_ROOMS: [&str; 3] = ["crates/engine/", "crates/service/", "crates/bin/"];
/// Folders in which `unsafe` may stand, besides the `tests` folder of any crate.
const UNSAFE_ROOMS: [&str; 3] = ["crates/platform/", "tests/", "benches/"];

/// Beginnings of absolute paths that mean something on one machine only. Written in two parts, so that this file passes.
const MACHINE_PATHS: [&str; 5] =
    [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/tmp/tar", "get-"), concat!("/root/.car", "go"), concat!("/home/", "runner")];

/// Every crate takes the lints of the workspace; roots of the safe rooms forbid unsafe code.
pub fn check_roots(metadata: &Metadata, files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in metadata.members.values() {
        if !member.workspace_lints {
            problems.push(Problem::new(&format!("{}/Cargo.toml", member.folder), 0, "`[lints] workspace = true` is missing"));
        }
        if !SAFE_ROOMS.iter().any(|room| member.folder.starts_with(room)) {
            continue;
        }
        for root in &member.roots {
            let forbids = files.iter().any(|file| file.path == *root && code(&file.text).contains("#![forbid(unsafe_code)]"));
            if !forbids {
                problems.push(Problem::new(root, 1, "`#![forbid(unsafe_code)]` is missing"));
            }
        }
    }
    problems
}

/// What one file must not hold.
pub fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let source = matches!(file.extension(), "rs" | "c" | "h" | "sh" | "py");
    let lines = file.text.lines().count();
    if source && lines > LINES_MAX {
        problems.push(Problem::new(&file.path, 0, format!("{lines} lines: a file has at most {LINES_MAX}")));
    }
    for (index, line) in file.text.lines().enumerate() {
        for path in MACHINE_PATHS {
            if begins(line, path) {
                problems.push(Problem::new(&file.path, index + 1, format!("`{path}` is a path of one machine")));
            }
        }
    }
    if file.extension() == "rs" {
        let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room)) || file.path.contains("/tests/");
        for (index, line) in code(&file.text).lines().enumerate() {
            let mut told = |what: &str| problems.push(Problem::new(&file.path, index + 1, what));
            if !may_be_unsafe && words(line).any(|word| word == "unsafe") {
                told("`unsafe` stands in crates/platform and in tests only");
            }
            for name in ["todo", "unimplemented", "dbg"] {
                if words(line).any(|word| word == name) && line.contains(&format!("{name}!")) {
                    told(&format!("`{name}!` is left over"));
                }
            }
            if line.replace(' ', "").contains("#[ignore") {
                told("an ignored test checks nothing: let it print `NOT RUN:` and why where it cannot run");
            }
        }
    }
    problems
}

/// Does the path begin in this line, as opposed to lying in the middle of a longer one?
fn begins(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|before| before.is_ascii_alphanumeric() || matches!(before, '.' | '_' | '-' | '/' | '}' | '*'))
    })
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Rust source with everything in comments, strings and character literals blanked, lines kept.
pub fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |out: &mut String, letter: char| out.push(if letter == '\n' { '\n' } else { ' ' });
    while at < bytes.len() {
        let rest = &bytes[at..];
        let in_word = at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_');
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|letter| *letter == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['r', '"' | '#', ..] if !in_word => raw_string(rest, 1),
            ['b' | 'c', 'r', '"' | '#', ..] if !in_word => raw_string(rest, 2),
            ['\'', ..] => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            for letter in &rest[..length] {
                blank(&mut out, *letter);
            }
            at += length;
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `prefix` letters, then hashes and a quote; 0 where it is a raw identifier.
fn raw_string(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|letter| **letter == '#').count();
    if rest.get(prefix + hashes) != Some(&'"') {
        return 0;
    }
    let body = prefix + hashes + 1;
    let mut at = body;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|letter| **letter == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    rest.len()
}

/// A character literal; 0 for a lifetime.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', ..] => rest.iter().skip(3).position(|letter| *letter == '\'').map_or(rest.len(), |at| at + 4),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Member;

    fn told(path: &str, text: &str) -> usize {
        check(&File::new(path, text)).len()
    }

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        let text = "a // unsafe\n/* unsafe /* x */ unsafe\n */ b \"un\\\"safe\" r#\"unsafe \" \"# '\"' 'x: &'a str '\\'' c\n";
        let code = code(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert_eq!(code.lines().count(), text.lines().count());
        for kept in ["a ", " b ", "&'a str", " c"] {
            assert!(code.contains(kept), "{kept}: {code}");
        }
        for odd in ["\"", "'\\", "/*", "r#\"", "r#type", "'", "b'\\''", "\"\\"] {
            let _ = super::code(odd);
        }
    }

    #[test]
    fn unsafe_has_an_address() {
        assert_eq!(told("crates/bin/agent/src/lib.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(told("crates/bin/agent/src/lib.rs", "#![forbid(unsafe_code)] // unsafe\n"), 0);
        assert_eq!(told("crates/platform/sys/src/lib.rs", "unsafe { g() }"), 0);
        assert_eq!(told("tests/src/lib.rs", "unsafe { g() }"), 0);
        assert_eq!(told("crates/engine/net/tests/oracle.rs", "unsafe { g() }"), 0);
        assert_eq!(told("crates/engine/net/src/tests.rs", "unsafe { g() }"), 1);
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(told("a.rs", "todo!(); unimplemented!(\"x\"); dbg!(1);\n"), 3);
        assert_eq!(told("a.rs", "#[ignore = \"later\"]\nfn f() {}\n#[cfg_attr(x, ignore)]"), 1);
        assert_eq!(told("a.rs", "let todo = 1; // todo!\n"), 0);
        assert_eq!(told("notes.md", "todo!()"), 0);
    }

    #[test]
    fn machine_paths_are_found_where_they_begin() {
        let path = MACHINE_PATHS[0];
        assert_eq!(told("a.md", &format!("see {path}main")), 1);
        assert_eq!(told("a.rs", &format!("const A: &str = \"{path}x\";")), 1);
        assert_eq!(told("a.md", &format!("https://example.org{path}x and ..{path}")), 0);
    }

    #[test]
    fn long_files_are_told() {
        assert_eq!(told("a.rs", &"\n".repeat(LINES_MAX)), 0);
        assert_eq!(told("a.rs", &"\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(told("a.json", &"\n".repeat(LINES_MAX + 1)), 0);
    }

    #[test]
    fn roots_forbid_unsafe_code_and_take_the_lints() {
        let mut metadata = Metadata::default();
        for (name, folder) in [("a", "crates/engine/a"), ("s", "crates/platform/s")] {
            let member = Member {
                name: name.into(),
                folder: folder.into(),
                roots: vec![format!("{folder}/src/lib.rs")],
                workspace_lints: true,
                ..Member::default()
            };
            metadata.members.insert(name.into(), member);
        }
        let fine = [File::new("crates/engine/a/src/lib.rs", "//! x\n#![forbid(unsafe_code)]\n")];
        assert_eq!(check_roots(&metadata, &fine), []);
        let bad = [File::new("crates/engine/a/src/lib.rs", "// #![forbid(unsafe_code)]\n")];
        assert_eq!(check_roots(&metadata, &bad).len(), 1);
        metadata.members.get_mut("s").unwrap().workspace_lints = false;
        assert_eq!(check_roots(&metadata, &fine).len(), 1);
    }
}
