//! The table `caps` of `ARCHITECTURE.md`: each cap stands in the code under that name, with that value.

use crate::table::{self, Row};
use crate::{File, Problem};

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Cells: constant, value, file, what happens there.
pub fn check(architecture: &str, files: &[File]) -> Vec<Problem> {
    let rows = match table::named(architecture, "caps") {
        Ok(rows) => rows,
        Err(what) => return vec![Problem::new(DOCUMENT, 0, what)],
    };
    let mut problems = Vec::new();
    for Row { line, cells } in &rows {
        let [name, value, path, ..] = cells.as_slice() else {
            problems.push(Problem::new(DOCUMENT, *line, "a row of the table `caps` has the cells: name, value, file, what is over it"));
            continue;
        };
        let (name, value, path) = (name.trim_matches('`'), value.trim_matches('`'), path.trim_matches('`'));
        let Some(file) = files.iter().find(|file| file.path == path) else {
            problems.push(Problem::new(DOCUMENT, *line, format!("`{path}`, where `{name}` is said to stand, is not there")));
            continue;
        };
        match defined(&file.text, name) {
            None => problems.push(Problem::new(DOCUMENT, *line, format!("`{path}` defines no constant `{name}`"))),
            Some(found) if normal(&found) != normal(value) => {
                problems.push(Problem::new(DOCUMENT, *line, format!("`{name}` is `{found}` in `{path}`, not `{value}`")));
            }
            Some(_) => {}
        }
    }
    problems
}

/// The value of `const NAME: … = value;` or `#define NAME value`.
fn defined(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        if let Some(rest) = line.trim_start().strip_prefix("#define ") {
            let rest = rest.trim_start().strip_prefix(name)?;
            let value = rest.strip_prefix([' ', '\t'])?;
            return Some(value.split("/*").next().unwrap_or(value).trim().to_owned());
        }
        let (_, rest) = line.split_once("const ")?;
        let rest = rest.strip_prefix(name)?.strip_prefix(':')?;
        let (_, value) = rest.split_once('=')?;
        Some(value.split(';').next().unwrap_or(value).trim().to_owned())
    })
}

/// Digits are grouped in one way in code and in another in prose.
fn normal(value: &str) -> String {
    value.chars().filter(|letter| !matches!(letter, '_' | ',' | ' ')).collect::<String>().trim_end_matches("ull").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_has_its_name_and_its_value() {
        let files = [
            File::new("a.rs", "pub(crate) const MANY_MAX: usize = 65_536;\nconst OTHER_MANY_MAX: u8 = 1;\n"),
            File::new("a.h", "#define MANY_MAX_B 3\n#define MANY 4096 /* why */\n"),
        ];
        let table = |rows: &str| format!("<!-- caps:begin -->\n| a | b | c | d |\n|---|---|---|---|\n{rows}<!-- caps:end -->\n");
        assert_eq!(check(&table("| `MANY_MAX` | 65,536 | `a.rs` | x |\n| `MANY` | 4096 | `a.h` | x |\n"), &files), []);
        let problems = check(&table("| `MANY_MAX` | 4 | `a.rs` | x |\n| `FEW` | 1 | `a.h` | x |\n| `X` | 1 | `gone.rs` | x |\n"), &files);
        assert_eq!(problems.len(), 3);
        assert!(problems[0].what.contains("`65_536`"), "{}", problems[0]);
    }
}
