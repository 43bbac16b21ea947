//! Licences of everything that is built: SPDX expressions against a list.

use crate::Problem;
use crate::metadata::Metadata;

/// What may be linked into an Apache-2.0 program and given away.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
    // As BSD-3-Clause, with a request to say what was changed.
    "bzip2-1.0.6",
];

pub fn check(metadata: &Metadata) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (package, licence) in &metadata.licences {
        match licence {
            None => problems.push(Problem::new("Cargo.lock", 0, format!("{package} names no licence"))),
            Some(licence) if !allowed(licence) => {
                problems.push(Problem::new("Cargo.lock", 0, format!("{package} is under `{licence}`, which is not on the list")));
            }
            Some(_) => {}
        }
    }
    problems
}

/// Is there a way to fulfil the expression with licences of the list only? `/` is the old way to write `OR`.
pub fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let holds = any(&words, &mut at, 0);
    at == words.len() && holds
}

/// Parentheses within parentheses; real expressions have one.
const DEPTH_MAX: usize = 8;

fn any(words: &[&str], at: &mut usize, depth: usize) -> bool {
    let mut holds = all(words, at, depth);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= all(words, at, depth);
    }
    holds
}

fn all(words: &[&str], at: &mut usize, depth: usize) -> bool {
    let mut holds = one(words, at, depth);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one(words, at, depth);
    }
    holds
}

fn one(words: &[&str], at: &mut usize, depth: usize) -> bool {
    match words.get(*at) {
        Some(&"(") if depth < DEPTH_MAX => {
            *at += 1;
            let holds = any(words, at, depth + 1);
            let closed = words.get(*at) == Some(&")");
            *at += usize::from(closed);
            holds && closed
        }
        Some(name) => {
            *at += 1;
            if words.get(*at) == Some(&"WITH") {
                let with = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
                *at = (*at + 2).min(words.len());
                return ALLOWED.contains(&with.as_str());
            }
            ALLOWED.contains(name)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        for fine in
            ["MIT", "MIT/Apache-2.0", "LGPL-2.1-only OR BSD-2-Clause", "(MIT OR Apache-2.0) AND Unicode-3.0", "GPL-3.0-only WITH x OR ISC"]
        {
            assert!(allowed(fine), "{fine}");
        }
        for bad in ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT", "MIT)", "Apache-2.0 WITH something", "MIT MIT", "OR MIT"] {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(!allowed(&"(".repeat(10_000)));
    }

    #[test]
    fn what_names_none_is_told() {
        let mut metadata = Metadata::default();
        metadata.licences.insert("a 1".into(), Some("MIT".into()));
        metadata.licences.insert("b 1".into(), None);
        metadata.licences.insert("c 1".into(), Some("SSPL-1.0".into()));
        assert_eq!(check(&metadata).len(), 2);
    }
}
