//! `classification.config`: `config classification: shortname,description,priority`.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Problem};
use crate::source::logical_lines;

/// Classes by short name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classification {
    classes: BTreeMap<String, Class>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub description: String,
    /// 1 is the gravest.
    pub priority: u8,
}

/// The priority of a rule that has neither a priority nor a known class (Suricata's default).
pub const PRIORITY_DEFAULT: u8 = 3;

impl Classification {
    /// Reads a file. Lines that cannot be read are reported and left out; of two lines with one name the first counts.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut read = Self::default();
        let mut diagnostics = Vec::new();
        for line in logical_lines(text) {
            let trimmed = line.text.trim();
            if trimmed.starts_with('#') {
                continue;
            }
            match class(trimmed) {
                Some((name, class)) => _ = read.classes.entry(name).or_insert(class),
                None => {
                    let problem = Problem::new(Code::BadClassification, "this is not a classification");
                    let problem = problem.help("write `config classification: name,description,priority`");
                    diagnostics.push(problem.diagnostic(line.whole(), None));
                }
            }
        }
        (read, diagnostics)
    }

    /// The classes that every community rule set uses, for when no file is given.
    pub fn builtin() -> Self {
        let class = |(name, description, priority): &(&str, &str, u8)| {
            ((*name).to_owned(), Class { description: (*description).to_owned(), priority: *priority })
        };
        Self { classes: BUILTIN.iter().map(class).collect() }
    }

    /// What is not known yet; of two classes with one name the first counts.
    pub fn extend(&mut self, other: Self) {
        for (name, class) in other.classes {
            self.classes.entry(name).or_insert(class);
        }
    }

    pub fn class(&self, name: &str) -> Option<&Class> {
        // Suricata compares without case.
        self.classes.get(name).or_else(|| self.classes.get(&name.to_ascii_lowercase()))
    }
}

fn class(line: &str) -> Option<(String, Class)> {
    let rest = line.strip_prefix("config")?.trim_start().strip_prefix("classification")?.trim_start().strip_prefix(':')?;
    let (name, rest) = rest.split_once(',')?;
    let (description, priority) = rest.rsplit_once(',')?;
    let name = name.trim().to_ascii_lowercase();
    let priority = priority.trim().parse().ok().filter(|priority| *priority > 0)?;
    let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    good.then(|| (name, Class { description: description.trim().to_owned(), priority }))
}

const BUILTIN: &[(&str, &str, u8)] = &[
    ("not-suspicious", "Not Suspicious Traffic", 3),
    ("unknown", "Unknown Traffic", 3),
    ("bad-unknown", "Potentially Bad Traffic", 2),
    ("attempted-recon", "Attempted Information Leak", 2),
    ("successful-recon-limited", "Information Leak", 2),
    ("successful-recon-largescale", "Large Scale Information Leak", 2),
    ("attempted-dos", "Attempted Denial of Service", 2),
    ("successful-dos", "Denial of Service", 2),
    ("attempted-user", "Attempted User Privilege Gain", 1),
    ("unsuccessful-user", "Unsuccessful User Privilege Gain", 1),
    ("successful-user", "Successful User Privilege Gain", 1),
    ("attempted-admin", "Attempted Administrator Privilege Gain", 1),
    ("successful-admin", "Successful Administrator Privilege Gain", 1),
    ("rpc-portmap-decode", "Decode of an RPC Query", 2),
    ("shellcode-detect", "Executable code was detected", 1),
    ("string-detect", "A suspicious string was detected", 3),
    ("suspicious-filename-detect", "A suspicious filename was detected", 2),
    ("suspicious-login", "An attempted login using a suspicious username was detected", 2),
    ("system-call-detect", "A system call was detected", 2),
    ("tcp-connection", "A TCP connection was detected", 4),
    ("trojan-activity", "A Network Trojan was detected", 1),
    ("unusual-client-port-connection", "A client was using an unusual port", 2),
    ("network-scan", "Detection of a Network Scan", 3),
    ("denial-of-service", "Detection of a Denial of Service Attack", 2),
    ("non-standard-protocol", "Detection of a non-standard protocol or event", 2),
    ("protocol-command-decode", "Generic Protocol Command Decode", 3),
    ("web-application-activity", "access to a potentially vulnerable web application", 2),
    ("web-application-attack", "Web Application Attack", 1),
    ("misc-activity", "Misc activity", 3),
    ("misc-attack", "Misc Attack", 2),
    ("icmp-event", "Generic ICMP event", 3),
    ("inappropriate-content", "Inappropriate Content was Detected", 1),
    ("policy-violation", "Potential Corporate Privacy Violation", 1),
    ("default-login-attempt", "Attempt to login by a default username and password", 2),
    ("targeted-activity", "Targeted Malicious Activity was Detected", 1),
    ("exploit-kit", "Exploit Kit Activity Detected", 1),
    ("external-ip-check", "Device Retrieving External IP Address Detected", 2),
    ("domain-c2", "Domain Observed Used for C2 Detected", 1),
    ("pup-activity", "Possibly Unwanted Program Detected", 2),
    ("credential-theft", "Successful Credential Theft Detected", 1),
    ("social-engineering", "Possible Social Engineering Attempted", 2),
    ("coin-mining", "Crypto Currency Mining Activity Detected", 2),
    ("command-and-control", "Malware Command and Control Activity Detected", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_its_broken_lines_are_reported() {
        let text = "# comment\nconfig classification: My-Class,Something, with a comma,2\nconfig classification: broken\n";
        let (read, diagnostics) = Classification::parse(text);
        assert_eq!(read.class("my-class").unwrap().description, "Something, with a comma");
        assert_eq!(read.class("MY-CLASS").unwrap().priority, 2);
        assert_eq!(diagnostics.len(), 1);
        assert_eq!(diagnostics[0].span.line, 3);
        assert!(Classification::builtin().class("trojan-activity").is_some());
    }
}
