//! `bulkhead host audit`: what is open on this host. Reads only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_posture::snapshot::{HostSnapshot, SNAPSHOT_BYTES_MAX};
use bulkhead_posture::{Profile, Report, Severity, Waivers, audit, html, junit, sarif};

use super::{Look, ProfileName, SeverityName, read, show};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Waivers in one file.
const WAIVERS_BYTES_MAX: u64 = 1 << 20;

/// Judge this host by some 350 controls: distribution, surface, accounts, kernel, engines, containers, Kubernetes node
///
/// Changes nothing. A control is passed, failed, unknown (it could not be read, and says why) or not applicable (and says
/// why). Exits with 1 when something failed that is not waived; with --fail-on, only from that severity upwards.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: Look,

    /// Judge a snapshot that was recorded, instead of a host
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "observe", "walk", "no_walk", "rbac"])]
    snapshot: Option<PathBuf>,

    /// Which controls: cis has the three rules that break containers, container-host what containers need instead
    #[arg(long, value_enum, default_value_t = ProfileName::ContainerHost)]
    profile: ProfileName,

    /// Findings that somebody answers for, with owner, reason and last day [default: none]
    #[arg(long, value_name = "FILE")]
    waivers: Option<PathBuf>,

    /// The least severity that makes the exit code 1 [default: info]
    #[arg(long, value_name = "SEVERITY", value_enum)]
    fail_on: Option<SeverityName>,

    /// Write SARIF 2.1.0: to a file, or instead of the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    sarif: Option<Option<PathBuf>>,

    /// Write JUnit XML: to a file, or instead of the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    junit: Option<Option<PathBuf>>,

    /// Write one HTML page: to a file, or instead of the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    html: Option<Option<PathBuf>>,

    /// Show passed controls and those that do not apply, too
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let instead = [&args.sarif, &args.junit, &args.html].into_iter().filter(|form| matches!(form, Some(None))).count();
    if instead > 1 || (instead == 1 && context.json()) {
        return Err(Failure::usage("only one report can go to standard output", "name a file for the others: `--sarif=FILE`"));
    }
    let waivers = match &args.waivers {
        Some(path) => waivers(path)?,
        None => Waivers::default(),
    };
    let snapshot = match &args.snapshot {
        Some(path) => recorded(path)?,
        None => args.look.snapshot()?,
    };
    let profile: Profile = args.profile.into();
    // Waivers end by today's date, also over an old snapshot.
    let today = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let report = audit(&snapshot, profile, &waivers, today);
    let written = |form: &Option<Option<PathBuf>>, text: &dyn Fn() -> Result<String, Failure>| match form {
        Some(Some(path)) => fs::write(path, text()?).map_err(|error| Failure::File(path.clone(), error)),
        Some(None) | None => Ok(()),
    };
    let sarif_text = || {
        serde_json::to_string_pretty(&sarif::render(&report)).map(|text| text + "\n").map_err(|error| Failure::Internal(error.to_string()))
    };
    written(&args.sarif, &sarif_text)?;
    written(&args.junit, &|| Ok(junit::render(&report)))?;
    written(&args.html, &|| Ok(html::render(&report)))?;
    if args.sarif == Some(None) {
        context.out.raw(&sarif_text()?)?;
    } else if args.junit == Some(None) {
        context.out.raw(&junit::render(&report))?;
    } else if args.html == Some(None) {
        context.out.raw(&html::render(&report))?;
    } else if context.json() {
        context.out.json(&report)?;
    } else {
        show::report(&report, args.all, context)?;
    }
    Ok(exit(&report, args.fail_on))
}

fn exit(report: &Report, fail_on: Option<SeverityName>) -> Exit {
    let least = fail_on.map_or(Severity::Info, Severity::from);
    if report.open_at_least(least) > 0 { Exit::Findings } else { Exit::Ok }
}

fn recorded(path: &Path) -> Result<HostSnapshot, Failure> {
    let bytes = read(path, SNAPSHOT_BYTES_MAX as u64)?;
    HostSnapshot::parse(&bytes)
        .map_err(|why| Failure::usage(format!("`{}`: {why}", path.display()), "record one with `bulkhead host snapshot > FILE`"))
}

fn waivers(path: &Path) -> Result<Waivers, Failure> {
    let bytes = read(path, WAIVERS_BYTES_MAX)?;
    let help = "docs/host.md shows the form: control, owner, reason, expires, and match for one piece of evidence";
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage(format!("`{}` is not UTF-8", path.display()), help))?;
    let waivers = Waivers::parse(text).map_err(|why| Failure::usage(format!("`{}`: {why}", path.display()), help))?;
    let known: Vec<String> = bulkhead_posture::catalogue().into_iter().map(|control| control.id).collect();
    if let Some(strange) = waivers.controls().find(|id| !known.iter().any(|known| known == id)) {
        return Err(Failure::usage(
            format!("`{}`: there is no control `{strange}`", path.display()),
            "`bulkhead host audit --all` lists them",
        ));
    }
    Ok(waivers)
}
