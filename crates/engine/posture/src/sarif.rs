//! A report as SARIF 2.1.0 (OASIS), for code scanning and its dashboards.

use serde_json::{Value, json};

use crate::audit::{Finding, Report};
use crate::control::{Severity, Status};

/// `security-severity` of GitHub's code scanning: below 4.0 low, 7.0 medium, 9.0 high.
const fn points(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "0.0",
        Severity::Low => "3.0",
        Severity::Medium => "5.5",
        Severity::High => "8.0",
        Severity::Critical => "9.5",
    }
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "note",
        Severity::Low | Severity::Medium => "warning",
        Severity::High | Severity::Critical => "error",
    }
}

pub fn render(report: &Report) -> Value {
    let rules: Vec<Value> = report.controls.iter().map(rule).collect();
    let results: Vec<Value> = report.controls.iter().enumerate().map(|(at, finding)| result(at, finding, report)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "bulkhead",
                "version": report.version,
                "semanticVersion": report.version,
                "rules": rules,
            }},
            "invocations": [{ "executionSuccessful": true, "properties": { "score": report.score.value, "profile": report.profile.name() } }],
            "results": results,
        }],
    })
}

fn rule(finding: &Finding) -> Value {
    json!({
        "id": finding.id,
        "shortDescription": { "text": finding.title },
        "fullDescription": { "text": finding.rationale },
        "help": { "text": finding.remediation },
        "defaultConfiguration": { "level": level(finding.severity) },
        "properties": { "security-severity": points(finding.severity), "tags": finding.sources, "area": finding.area.title() },
    })
}

fn result(at: usize, finding: &Finding, report: &Report) -> Value {
    let kind = match finding.status {
        Status::Passed => "pass",
        Status::Failed => "fail",
        Status::Unknown => "review",
        Status::NotApplicable => "notApplicable",
    };
    // Of kinds other than fail the standard wants the level none.
    let level = if finding.status == Status::Failed { level(finding.severity) } else { "none" };
    let text = format!("{}: {}", finding.title, finding.evidence.join("; "));
    let suppressions: Vec<Value> = finding
        .waiver
        .iter()
        .map(|waiver| json!({ "kind": "external", "status": "accepted", "justification": format!("{} ({}, until {})", waiver.reason, waiver.owner, waiver.expires) }))
        .collect();
    json!({
        "ruleId": finding.id,
        "ruleIndex": at,
        "kind": kind,
        "level": level,
        "message": { "text": text },
        "locations": [{
            "physicalLocation": { "artifactLocation": { "uri": location(finding) } },
            "logicalLocations": [{ "name": report.hostname, "kind": "module" }],
        }],
        "partialFingerprints": { "control/v1": finding.id },
        "suppressions": suppressions,
    })
}

/// The first file that the evidence names, as a relative address; else the host itself.
fn location(finding: &Finding) -> String {
    let words =
        finding.evidence.iter().flat_map(|line| line.split(|c: char| c.is_whitespace() || matches!(c, '`' | ',' | ';' | '(' | ')')));
    let path = words.map(|word| word.trim_end_matches(':')).find(|word| {
        word.len() > 1
            && word.starts_with('/')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_'))
    });
    path.map_or_else(|| "host".to_owned(), |path| path.trim_start_matches('/').to_owned())
}
