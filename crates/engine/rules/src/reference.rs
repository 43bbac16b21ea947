//! `reference.config`: `config reference: system prefix`. A rule's `reference:cve,2021-44228` is the prefix with the value behind it.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Problem};
use crate::source::logical_lines;

/// Systems in one file; more are passed over and reported.
const SYSTEMS_MAX: usize = 1024;

/// Prefixes by system, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    prefixes: BTreeMap<String, String>,
}

impl References {
    /// Reads a file. Lines that cannot be read are reported and left out; of two lines with one name the first counts.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut read = Self::default();
        let mut diagnostics = Vec::new();
        for line in logical_lines(text) {
            let trimmed = line.text.trim();
            if trimmed.starts_with('#') {
                continue;
            }
            match reference(trimmed).filter(|_| read.prefixes.len() < SYSTEMS_MAX) {
                Some((system, prefix)) => _ = read.prefixes.entry(system).or_insert(prefix),
                None => {
                    let problem =
                        Problem::new(Code::BadReference, "this is not a reference").help("write `config reference: system prefix`");
                    diagnostics.push(problem.diagnostic(line.whole(), None));
                }
            }
        }
        (read, diagnostics)
    }

    /// The systems that every community rule set uses, for when no file is given.
    pub fn builtin() -> Self {
        Self { prefixes: BUILTIN.iter().map(|(system, prefix)| ((*system).to_owned(), (*prefix).to_owned())).collect() }
    }

    /// What is not known yet; of two systems with one name the first counts.
    pub fn extend(&mut self, other: Self) {
        for (system, prefix) in other.prefixes {
            self.prefixes.entry(system).or_insert(prefix);
        }
    }

    /// Where a reference leads; nothing when its system is not known.
    pub fn address(&self, system: &str, value: &str) -> Option<String> {
        self.prefixes.get(&system.to_ascii_lowercase()).map(|prefix| {
            // A value may bring its own scheme.
            if prefix.ends_with("://") && value.contains("://") { value.to_owned() } else { format!("{prefix}{value}") }
        })
    }
}

fn reference(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("config")?.trim_start().strip_prefix("reference")?.trim_start().strip_prefix(':')?.trim();
    let (system, prefix) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let good = !system.is_empty() && system.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let prefix = prefix.trim();
    (good && !prefix.contains(char::is_whitespace)).then(|| (system.to_ascii_lowercase(), prefix.to_owned()))
}

const BUILTIN: &[(&str, &str)] = &[
    ("bugtraq", "http://www.securityfocus.com/bid/"),
    ("cve", "https://cve.mitre.org/cgi-bin/cvename.cgi?name="),
    ("et", "http://doc.emergingthreats.net/"),
    ("etpro", "http://doc.emergingthreatspro.com/"),
    ("md5", "http://www.threatexpert.com/report.aspx?md5="),
    ("nessus", "http://cgi.nessus.org/plugins/dump.php3?id="),
    ("osvdb", "http://osvdb.org/show/osvdb/"),
    ("secunia", "http://www.secunia.com/advisories/"),
    ("telus", "http://"),
    ("threatexpert", "http://www.threatexpert.com/report.aspx?md5="),
    ("url", "https://"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_its_broken_lines_are_reported() {
        let (read, diagnostics) = References::parse("# comment\nconfig reference: CVE https://example.org/?cve=\nconfig reference cve\n");
        assert_eq!(read.address("cve", "2021-44228").unwrap(), "https://example.org/?cve=2021-44228");
        assert_eq!(read.address("url", "example.org"), None);
        assert_eq!(diagnostics.len(), 1);
        assert_eq!((diagnostics[0].code, diagnostics[0].span.line), (Code::BadReference, 3));
        assert_eq!(References::builtin().address("URL", "example.org").unwrap(), "https://example.org");
    }
}
