//! `bulkhead host baseline`: how the host was, and what is different now.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bulkhead_host::baseline::{BYTES_MAX, Baseline, Compared, FILE, How, compare, look};

use super::{Look, read};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};

/// Record how the host is, or tell what is different from what was recorded
///
/// Files of trusted folders by content, mode, owner and attributes; accounts, keys, listeners, units, modules, set-id files.
/// Files that look unchanged are not read again, but for a sample. What dpkg's sums confirm is an upgrade and no finding.
/// Exits with 1 when something else is different.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Record, in place of an earlier one
    #[arg(long)]
    record: bool,

    /// Where it lies [default: /var/lib/bulkhead/host/baseline.json below the root]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    look: Look,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let root = args.look.root()?;
    let file = match &args.file {
        Some(file) => file.clone(),
        None => root.resolve(FILE).map_err(|error| Failure::File(PathBuf::from(FILE), error))?,
    };
    let snapshot = args.look.snapshot()?;
    let mut compared = Compared::default();
    if args.record {
        let baseline = look(&root, &snapshot, None, &mut compared);
        let bytes = serde_json::to_vec(&baseline).map_err(|error| Failure::Internal(error.to_string()))?;
        write(&file, &bytes).map_err(|error| Failure::File(file.clone(), error))?;
        if context.json() {
            context.out.json(
                &serde_json::json!({ "recorded": file.display().to_string(), "files": compared.files, "unreadable": compared.unreadable }),
            )?;
        } else {
            context.out.line(&format!("{} files recorded in {}", compared.files, file.display()))?;
        }
        return Ok(Exit::Ok);
    }
    let bytes = read(&file, BYTES_MAX)?;
    let before = Baseline::parse(&bytes)
        .map_err(|why| Failure::usage(format!("`{}`: {why}", file.display()), "record one with `bulkhead host baseline --record`"))?;
    let now = look(&root, &snapshot, Some(&before), &mut compared);
    compare(&root, &before, &now, &mut compared);
    let found = compared.drift.iter().filter(|one| one.package.is_none()).count();
    if context.json() {
        context.out.json(&compared)?;
    } else {
        show(&compared, found, context)?;
    }
    Ok(if found > 0 { Exit::Findings } else { Exit::Ok })
}

fn show(compared: &Compared, found: usize, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    for one in compared.drift.iter().filter(|one| one.package.is_none()) {
        let how = match one.how {
            How::Added => "added",
            How::Removed => "removed",
            How::Content => "content",
            How::Mode => "mode",
            How::Owner => "owner",
            How::Attributes => "attributes",
            How::Kind => "kind",
        };
        let short = |text: &Option<String>| text.as_deref().map(|text| printable(&text.chars().take(60).collect::<String>()));
        let change = match (short(&one.before), short(&one.now)) {
            (Some(before), Some(now)) => format!("{before} -> {now}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => String::new(),
        };
        context.out.line(&format!("{}  {}  {change}", style.paint(&format!("{how:<10}"), Colour::Bad), printable(&one.what)))?;
    }
    for line in &compared.unreadable {
        context.out.line(&format!("unreadable  {}", printable(line)))?;
    }
    let upgrades = compared.drift.len() - found;
    context.out.line(&format!(
        "{} files looked at, {} read: {found} differences, {upgrades} more that packages brought",
        compared.files, compared.read
    ))
}

fn write(file: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    std::io::Write::write_all(&mut out, bytes)?;
    out.sync_all()?;
    fs::rename(&fresh, file)
}
