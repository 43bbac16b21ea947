//! The files that stand beside rules, and a rule file as they make it.
//!
//! ```text
//! text ─ disable, enable, modify, drop ─ parse ─ threshold.config ─ rules
//! ```
//! `classification.config` and `reference.config` are for who compiles and shows the rules.

use crate::classification::Classification;
use crate::diagnostic::Diagnostic;
use crate::edit::{self, Edited, Edits};
use crate::file::{RuleFile, parse, parse_signatures};
use crate::limits::Limits;
use crate::reference::References;

/// What a file beside the rules is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    Classification,
    Reference,
    Threshold,
    Disable,
    Enable,
    Modify,
    Drop,
}

/// All of them, read. Of what two files say about one class or one system the first counts; everything else adds up.
#[derive(Debug, Clone)]
pub struct Library {
    pub classification: Classification,
    pub references: References,
    pub limits: Limits,
    pub edits: Edits,
    /// By file's name; in the order of files and lines.
    pub diagnostics: Vec<(String, Diagnostic)>,
}

impl Default for Library {
    fn default() -> Self {
        Self::read([])
    }
}

impl Library {
    /// Kind, name and text of each file. Lines that cannot be read are reported and left out. Classes and systems that every
    /// community rule set uses are known also when no file tells them.
    pub fn read<'a>(files: impl IntoIterator<Item = (Beside, &'a str, &'a str)>) -> Self {
        let mut read = Self {
            classification: Classification::default(),
            references: References::default(),
            limits: Limits::default(),
            edits: Edits::default(),
            diagnostics: Vec::new(),
        };
        for (kind, name, text) in files {
            let diagnostics = read.take(kind, text);
            read.diagnostics.extend(diagnostics.into_iter().map(|diagnostic| (name.to_owned(), diagnostic)));
        }
        read.classification.extend(Classification::builtin());
        read.references.extend(References::builtin());
        read
    }

    fn take(&mut self, kind: Beside, text: &str) -> Vec<Diagnostic> {
        match kind {
            Beside::Classification => {
                let (found, diagnostics) = Classification::parse(text);
                self.classification.extend(found);
                diagnostics
            }
            Beside::Reference => {
                let (found, diagnostics) = References::parse(text);
                self.references.extend(found);
                diagnostics
            }
            Beside::Threshold => {
                let (found, diagnostics) = Limits::parse(text);
                self.limits.extend(found);
                diagnostics
            }
            Beside::Modify => {
                let (found, diagnostics) = edit::modifications(text);
                self.edits.modify.extend(found);
                diagnostics
            }
            Beside::Disable | Beside::Enable | Beside::Drop => {
                let (found, diagnostics) = edit::matchers(text);
                match kind {
                    Beside::Disable => self.edits.disable.extend(found),
                    Beside::Enable => self.edits.enable.extend(found),
                    _ => self.edits.drop.extend(found),
                }
                diagnostics
            }
        }
    }

    /// A rule file as these files make it. Lines keep their numbers.
    pub fn rules(&self, name: &str, text: &str) -> (RuleFile, Edited) {
        self.read_with(parse, name, text)
    }

    /// The same for an engine, in half the memory: see [`parse_signatures`].
    pub fn signatures(&self, name: &str, text: &str) -> (RuleFile, Edited) {
        self.read_with(parse_signatures, name, text)
    }

    fn read_with(&self, parse: fn(&str) -> RuleFile, name: &str, text: &str) -> (RuleFile, Edited) {
        let (mut file, edited) = if self.edits.is_empty() {
            (parse(text), Edited::default())
        } else {
            let (text, edited) = self.edits.apply(name, text);
            (parse(&text), edited)
        };
        self.limits.apply(&mut file.rules);
        (file, edited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SuppressionSide;
    use crate::{Action, Severity};

    const RULES: &str = "\
alert tcp any any -> any any \\
  (msg:\"one\"; content:\"a\"; classtype:mine; sid:1; rev:1;)
alert tcp any any -> any any (msg:\"two\"; content:\"b\"; threshold:type limit, track by_src, count 1, seconds 60; sid:2; rev:1;)
# alert tcp any any -> any any (msg:\"three\"; content:\"c\"; sid:3; rev:1;)
alert tcp any any -> any any (msg:\"four\"; content:\"d\"; sid:4; rev:1;)
alert tcp any any -> any any (msg:\"five\"; content:\"e\"; sid:5; rev:1;)
";

    #[test]
    fn each_file_does_what_it_is_for() {
        let library = Library::read([
            (Beside::Classification, "c", "config classification: mine,Mine,1\nconfig classification: trojan-activity,Changed,4\n"),
            (Beside::Reference, "r", "config reference: own https://example.org/\n"),
            (
                Beside::Threshold,
                "t",
                "suppress gen_id 1, sig_id 4\nthreshold gen_id 1, sig_id 2, type both, track by_dst, count 5, seconds 10\n",
            ),
            (
                Beside::Threshold,
                "t2",
                "suppress gen_id 1, sig_id 5, track by_src, ip 198.51.100.7\nthreshold gen_id 1, sig_id 0, type limit, track by_src, count 1, seconds 3600\n",
            ),
            (Beside::Disable, "d", "5\n"),
            (Beside::Enable, "e", "3\n5 # after all\n"),
            (Beside::Modify, "m", "1 \"one\" \"uno\"\n"),
            (Beside::Drop, "dr", "re:\"four\"\n"),
        ]);
        assert_eq!(library.diagnostics, []);
        assert_eq!(library.classification.class("mine").unwrap().priority, 1);
        assert_eq!(library.classification.class("trojan-activity").unwrap().description, "Changed");
        assert_eq!(library.classification.class("misc-attack").unwrap().priority, 2);
        assert_eq!(library.references.address("own", "x").unwrap(), "https://example.org/x");
        let (file, edited) = library.rules("my.rules", RULES);
        assert_eq!((edited.disabled, edited.enabled, edited.modified, edited.dropped), (1, 2, 1, 1));
        let rules = &file.rules;
        assert_eq!(rules.iter().map(|rule| rule.signature.sid).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(rules.iter().map(|rule| rule.span.line).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
        assert_eq!((rules[0].signature.msg.as_str(), rules[3].header.action), ("uno", Action::Drop));
        let counts: Vec<Vec<u32>> =
            rules.iter().map(|rule| rule.signature.thresholds.iter().map(|threshold| threshold.seconds).collect()).collect();
        assert_eq!(counts, [vec![3600], vec![10], vec![3600], vec![3600], vec![3600]], "of its own before that of all");
        assert!(rules[3].signature.noalert && !rules[4].signature.noalert);
        assert_eq!(rules[4].signature.suppressions.iter().map(|(side, _)| *side).collect::<Vec<_>>(), [SuppressionSide::Source]);
    }

    #[test]
    fn a_threshold_for_all_leaves_rules_with_their_own_alone() {
        let text = "event_filter gen_id 0, sig_id 0, type limit, track by_src, count 1, seconds 7\n";
        let (file, _) = Library::read([(Beside::Threshold, "t", text)]).rules("my.rules", RULES);
        let seconds = |index: usize| file.rules[index].signature.thresholds.iter().map(|one| one.seconds).collect::<Vec<_>>();
        assert_eq!((seconds(0), seconds(1)), (vec![7], vec![60]));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_file_and_what_is_not_built_too() {
        let library = Library::read([
            (Beside::Disable, "d.conf", "1\nnonsense\n"),
            (
                Beside::Threshold,
                "t.config",
                "rate_filter gen_id 1, sig_id 7, track by_rule, count 1, seconds 60, new_action none, timeout 9\n",
            ),
        ]);
        let told: Vec<_> = library.diagnostics.iter().map(|(file, found)| (file.as_str(), found.span.line, found.severity)).collect();
        assert_eq!(told, [("d.conf", 2, Severity::Error), ("t.config", 1, Severity::Error)]);
    }

    #[test]
    fn the_edits_of_a_set_that_has_none_of_the_rules_change_nothing() {
        let (file, edited) = Library::read([(Beside::Disable, "d", "99\n")]).rules("my.rules", RULES);
        assert_eq!((file.rules.len(), edited), (4, Edited::default()));
    }
}
