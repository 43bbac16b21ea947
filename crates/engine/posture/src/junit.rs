//! A report as JUnit XML, for pipelines that show tests.

use std::fmt::Write as _;

use crate::audit::Report;
use crate::control::{Area, Status};

pub fn render(report: &Report) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = &report.counts;
    let skipped = counts.not_applicable + counts.waived;
    let _ = writeln!(
        text,
        "<testsuites name=\"bulkhead host audit\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{skipped}\">",
        report.controls.len(),
        counts.failed - counts.waived,
        counts.unknown
    );
    for area in Area::ALL {
        let findings: Vec<_> = report.controls.iter().filter(|finding| finding.area == area).collect();
        let of = |status| findings.iter().filter(|finding| finding.status == status && finding.waiver.is_none()).count();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" hostname=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
            area.title(),
            escape(&report.hostname),
            findings.len(),
            of(Status::Failed),
            of(Status::Unknown),
            of(Status::NotApplicable) + findings.iter().filter(|finding| finding.waiver.is_some()).count()
        );
        for finding in findings {
            let _ = write!(text, "    <testcase classname=\"{}\" name=\"{}\"", escape(&finding.id), escape(&finding.title));
            let evidence = escape(&finding.evidence.join("\n"));
            let severity = finding.severity.name();
            let _ = match (finding.status, &finding.waiver) {
                (Status::Passed, _) => writeln!(text, "/>"),
                (Status::Failed, Some(waiver)) => {
                    writeln!(
                        text,
                        "><skipped message=\"waived by {} until {}: {}\"/></testcase>",
                        escape(&waiver.owner),
                        escape(&waiver.expires),
                        escape(&waiver.reason)
                    )
                }
                (Status::Failed, None) => {
                    writeln!(
                        text,
                        "><failure type=\"{severity}\" message=\"{}\">{evidence}\n{}</failure></testcase>",
                        escape(&finding.title),
                        escape(&finding.remediation)
                    )
                }
                (Status::Unknown, _) => {
                    writeln!(text, "><error type=\"unknown\" message=\"could not be judged\">{evidence}</error></testcase>")
                }
                (Status::NotApplicable, _) => writeln!(text, "><skipped message=\"{evidence}\"/></testcase>"),
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// For XML and HTML alike; characters that XML 1.0 does not allow are shown by their number.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
