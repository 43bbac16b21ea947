//! The rules that come with the program, so that it protects without any file: `rules/bulkhead/` of the repository.

/// Name and text of each file, in the order of the names. The folder is for people: it is nowhere.
pub const FILES: &[(&str, &str)] = &[
    ("built-in/code-injection.rules", include_str!("../../../../rules/bulkhead/code-injection.rules")),
    ("built-in/command-injection.rules", include_str!("../../../../rules/bulkhead/command-injection.rules")),
    ("built-in/cross-site-scripting.rules", include_str!("../../../../rules/bulkhead/cross-site-scripting.rules")),
    ("built-in/exploited-applications.rules", include_str!("../../../../rules/bulkhead/exploited-applications.rules")),
    ("built-in/exploited-cves.rules", include_str!("../../../../rules/bulkhead/exploited-cves.rules")),
    ("built-in/files-and-addresses.rules", include_str!("../../../../rules/bulkhead/files-and-addresses.rules")),
    ("built-in/java.rules", include_str!("../../../../rules/bulkhead/java.rules")),
    ("built-in/lateral-movement.rules", include_str!("../../../../rules/bulkhead/lateral-movement.rules")),
    ("built-in/protocol.rules", include_str!("../../../../rules/bulkhead/protocol.rules")),
    ("built-in/sql-injection.rules", include_str!("../../../../rules/bulkhead/sql-injection.rules")),
    ("built-in/web-shells.rules", include_str!("../../../../rules/bulkhead/web-shells.rules")),
];

/// The text of one of them by its name.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_of_the_repository_is_built_in() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../rules/bulkhead");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .expect("the repository")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".rules"))
            .map(|name| format!("built-in/{name}"))
            .collect();
        there.sort();
        assert_eq!(FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(), there);
    }

    #[test]
    fn none_of_them_is_wrong_or_unsupported() {
        let mut config = bulkhead_policy::Config::default();
        config.rules.files.clear();
        let book = crate::rulebook::load_all(&config).expect("no file is read");
        assert_eq!((book.counts.wrong, book.counts.unsupported, book.problems.len()), (0, 0, 0), "{:?}", book.problems);
        assert!(book.counts.loaded >= 150, "{} rules", book.counts.loaded);
    }
}
