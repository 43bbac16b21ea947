//! A report as one HTML page without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use crate::audit::Report;
use crate::control::{Area, Status};
use crate::junit::escape;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #d8dee4}\
.failed{color:#b42318;font-weight:600}.unknown{color:#8a5a00;font-weight:600}.passed{color:#176639}.not-applicable{color:#57606a}.waived{color:#57606a;font-style:italic}\
small{color:#57606a}code{font:13px ui-monospace,monospace}@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}.failed{color:#ff7b72}.unknown{color:#e3b341}.passed{color:#56d364}small,.not-applicable,.waived{color:#9198a1}}";

pub fn render(report: &Report) -> String {
    let counts = &report.counts;
    let host = escape(&report.hostname);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Posture of {host}</title><style>{STYLE}</style></head><body>\n<h1>Posture of {host}</h1>\n"
    );
    let _ = writeln!(
        text,
        "<p>{}, profile {}. Score <strong>{}</strong> of 100. {} failed ({} waived), {} unknown, {} passed, {} not applicable.</p>",
        escape(&report.system),
        report.profile.name(),
        report.score.value,
        counts.failed,
        counts.waived,
        counts.unknown,
        counts.passed,
        counts.not_applicable
    );
    for area in Area::ALL {
        let _ =
            writeln!(text, "<h2>{}</h2>\n<table><tr><th>status</th><th>severity</th><th>control</th><th>evidence</th></tr>", area.title());
        for status in Status::ALL {
            for finding in report.controls.iter().filter(|finding| finding.area == area && finding.status == status) {
                let (class, word) = match &finding.waiver {
                    Some(_) => ("waived", "waived"),
                    None => (status.name(), status.name()),
                };
                let evidence: Vec<String> = finding.evidence.iter().map(|line| escape(line)).collect();
                let mut what = format!(
                    "<strong>{}</strong><br><small><code>{}</code> {}</small>",
                    escape(&finding.title),
                    escape(&finding.id),
                    finding.sources.join(", ")
                );
                if status == Status::Failed {
                    let _ = write!(what, "<br>{}<br><small>{}</small>", escape(finding.rationale), escape(&finding.remediation));
                }
                if let Some(waiver) = &finding.waiver {
                    let _ = write!(
                        what,
                        "<br><small>waived by {} until {}: {}</small>",
                        escape(&waiver.owner),
                        escape(&waiver.expires),
                        escape(&waiver.reason)
                    );
                }
                let _ = writeln!(
                    text,
                    "<tr><td class=\"{class}\">{word}</td><td>{}</td><td>{what}</td><td>{}</td></tr>",
                    finding.severity.name(),
                    evidence.join("<br>")
                );
            }
        }
        text.push_str("</table>\n");
    }
    text.push_str("</body></html>\n");
    text
}
