//! An audit for people: what failed, worst first, with what was seen and what to do.

use bulkhead_posture::{Area, Finding, Report, Severity, Status};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Colour, printable};

/// Lines of evidence of one finding that are shown; `-o json` has all.
const EVIDENCE_SHOWN: usize = 6;

pub fn report(report: &Report, all: bool, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    for area in Area::ALL {
        let mut shown = false;
        for status in Status::ALL {
            if !all && matches!(status, Status::Passed | Status::NotApplicable) {
                continue;
            }
            for finding in report.controls.iter().filter(|finding| finding.area == area && finding.status == status) {
                if !shown {
                    context.out.line(&style.paint(area.title(), Colour::Head))?;
                    shown = true;
                }
                one(finding, context)?;
            }
        }
        if shown {
            context.out.line("")?;
        }
    }
    summary(report, context)
}

fn one(finding: &Finding, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    let (word, colour) = match (finding.status, &finding.waiver) {
        (Status::Failed, Some(_)) => ("waived", Colour::Faint),
        (Status::Failed, None) if finding.severity >= Severity::High => ("failed", Colour::Bad),
        (Status::Failed, None) => ("failed", Colour::Warn),
        (Status::Unknown, _) => ("unknown", Colour::Warn),
        (Status::NotApplicable, _) => ("n/a", Colour::Faint),
        (Status::Passed, _) => ("passed", Colour::Good),
    };
    let sources = if finding.sources.is_empty() { String::new() } else { format!("  [{}]", finding.sources.join(", ")) };
    context.out.line(&format!(
        "  {} {} {}  {}{}",
        style.paint(&format!("{word:<7}"), colour),
        style.paint(
            &format!("{:<8}", finding.severity.name()),
            if finding.severity >= Severity::High { Colour::Plain } else { Colour::Faint }
        ),
        finding.id,
        finding.title,
        style.paint(&sources, Colour::Faint)
    ))?;
    for line in finding.evidence.iter().take(EVIDENCE_SHOWN) {
        context.out.line(&format!("          {}", printable(line)))?;
    }
    if finding.evidence.len() > EVIDENCE_SHOWN {
        context.out.line(&format!("          and {} more", finding.evidence.len() - EVIDENCE_SHOWN))?;
    }
    if let Some(waiver) = &finding.waiver {
        context.out.line(&format!(
            "          waived by {} until {}: {}",
            printable(&waiver.owner),
            printable(&waiver.expires),
            printable(&waiver.reason)
        ))?;
    } else if finding.status == Status::Failed {
        let how = if finding.automatic { format!("  (or `bulkhead host harden {}`)", finding.id) } else { String::new() };
        context.out.line(&style.paint(&format!("          -> {}{how}", finding.remediation), Colour::Faint))?;
    }
    Ok(())
}

fn summary(report: &Report, context: &mut Context) -> Result<(), Failure> {
    let counts = &report.counts;
    context.out.line(&format!(
        "{}, profile {}{}",
        printable(&report.system),
        report.profile.name(),
        if report.live { "" } else { ", files only: no kernel runs this root" }
    ))?;
    let by: Vec<String> = Severity::ALL
        .iter()
        .rev()
        .filter_map(|severity| Some(format!("{} {}", report.open.get(severity.name())?, severity.name())))
        .collect();
    let open = if by.is_empty() { "nothing".to_owned() } else { by.join(", ") };
    context.out.line(&format!("score {} of 100; open: {open}", report.score.value))?;
    context.out.line(&format!(
        "{} controls: {} failed ({} waived), {} unknown, {} passed, {} not applicable",
        report.controls.len(),
        counts.failed,
        counts.waived,
        counts.unknown,
        counts.passed,
        counts.not_applicable
    ))?;
    if !report.as_root {
        context.out.line("taken without root's rights: much is unknown that root would see")?;
    }
    for line in &report.idle_waivers {
        context.out.line(&format!("a waiver waives nothing: {}", printable(line)))?;
    }
    for (cap, more) in &report.beyond_caps {
        context.out.line(&format!("left out: {} ({more})", printable(cap)))?;
    }
    Ok(())
}
