//! `bulkhead host harden` and `bulkhead host undo`: steps are planned, shown, carried out, and taken back.

use std::collections::BTreeSet;

use bulkhead_host::apply::Hands;
use bulkhead_host::journal::Record;
use bulkhead_host::services::{Nobody, Services, Systemd};
use bulkhead_host::{Error, Root};
use bulkhead_posture::{Change, Plan, Profile, Selection, Step, plan};
use serde_json::{Value, json};

use super::{Look, ProfileName, root_at};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};

/// Apply remedies of the audit, step by step, with a journal that takes them back
///
/// Of each step: the precondition, what is there is kept, the change, a look whether it took effect; a step that fails is
/// taken back. Files go into drop-ins of their own. ssh and container engines are looked at before and after, and never
/// switched off. Services are switched off when nobody used them while they were watched (--observe), or when named.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Controls whose remedy is applied, by id
    #[arg(value_name = "CONTROL", required_unless_present_any = ["profile", "unit"])]
    controls: Vec<String>,

    /// Everything of a profile that breaks nothing known, and services that nobody used
    #[arg(long, value_enum, conflicts_with_all = ["controls", "unit"])]
    profile: Option<ProfileName>,

    /// Units to switch off, whoever uses them
    #[arg(long, value_name = "NAME", conflicts_with = "controls")]
    unit: Vec<String>,

    /// Show what would be done, and do nothing
    #[arg(long)]
    plan: bool,

    #[command(flatten)]
    look: Look,
}

/// Take steps of `harden` back: files byte for byte, modes, owners, attributes, settings, units
///
/// Without a step, lists what can be taken back. Steps that were cut off in the middle are taken back first.
#[derive(Debug, clap::Args)]
pub struct UndoArgs {
    /// Number of a step, id of its control, or `all`
    #[arg(value_name = "STEP")]
    step: Option<String>,

    /// Put back what was there before also where somebody else has changed it since
    #[arg(long)]
    force: bool,

    /// The root directory of another host
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: std::path::PathBuf,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let root = args.look.root()?;
    let profile = args.profile.map_or(Profile::ContainerHost, Profile::from);
    let selection = match (args.profile, args.unit.is_empty()) {
        (Some(_), _) => Selection::Profile,
        (None, false) => Selection::Units(args.unit.iter().map(|name| full_name(name)).collect()),
        (None, true) => Selection::Controls(args.controls.iter().cloned().collect()),
    };
    let known: BTreeSet<String> = bulkhead_posture::catalogue().into_iter().map(|control| control.id).collect();
    if let Some(strange) = args.controls.iter().find(|id| !known.contains(*id)) {
        return Err(Failure::usage(format!("there is no control `{strange}`"), "`bulkhead host audit --all` lists them"));
    }
    if !args.plan && !bulkhead_sys::process::is_root() {
        return Err(Failure::usage("only root can harden a host", "use sudo, or look at what would be done with --plan"));
    }
    let (services, no_services) = services(&root);
    let hands = Hands { root: &root, services: services.as_ref(), tick: &|_| Ok(()) };
    let recovered = if args.plan { Vec::new() } else { hands.recover().map_err(failed)? };
    let made = plan(&args.look.snapshot()?, profile, &selection);
    let mut notes: Vec<String> =
        recovered.iter().map(|number| format!("step {number} of an earlier run was cut off: it was taken back")).collect();
    if made.steps.iter().flat_map(|step| &step.changes).any(|change| matches!(change, Change::Unit { .. } | Change::Link { .. })) {
        notes.extend(no_services);
    }
    if !context.json() {
        show(&made, context)?;
    }
    let mut done: Vec<Value> = Vec::new();
    let mut failure = None;
    if !args.plan {
        for step in &made.steps {
            match hands.apply(step) {
                Ok(one) => {
                    notes.extend(one.notes);
                    if !context.json() {
                        context.out.line(&format!("  step {:<4} {}  done", one.number, step.control))?;
                    }
                    done.push(json!({ "step": one.number, "control": step.control }));
                }
                Err(error) => {
                    failure = Some((step.control.clone(), error));
                    break;
                }
            }
        }
    }
    if context.json() {
        let failed = failure.as_ref().map(|(control, error)| json!({ "control": control, "why": error.to_string() }));
        context.out.json(&json!({ "plan": made, "done": done, "failed": failed, "notes": notes }))?;
    } else {
        for note in &notes {
            context.out.line(&format!("note: {}", printable(note)))?;
        }
        if !args.plan && failure.is_none() && !made.steps.is_empty() {
            context.out.line(&format!("{} steps done; `bulkhead host undo all` takes them back", done.len()))?;
        }
    }
    match failure {
        None => Ok(Exit::Ok),
        Some((control, error)) => {
            let help =
                format!("this step was taken back, the {} before it stand; `bulkhead host undo all` takes those back too", done.len());
            Err(Failure::Unable(format!("{control}: {error}"), Some(help)))
        }
    }
}

fn full_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

fn services(root: &Root) -> (Box<dyn Services>, Option<String>) {
    match Systemd::of(root) {
        Ok(systemd) => (Box::new(systemd), None),
        Err(why) => (Box::new(Nobody { host: root.is_host() }), Some(why)),
    }
}

fn failed(error: Error) -> Failure {
    match error {
        Error::Precondition(why) => Failure::Unable(why, None),
        other => Failure::Unable(
            other.to_string(),
            Some("nothing is lost: what was done stands in the journal, /var/lib/bulkhead/host/journal".to_owned()),
        ),
    }
}

fn show(plan: &Plan, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    if plan.steps.is_empty() {
        context.out.line("nothing to do")?;
    }
    for Step { control, title, changes, affects, notes } in &plan.steps {
        context.out.line(&format!("{}  {}", style.paint(control, Colour::Head), printable(title)))?;
        for change in changes {
            context.out.line(&format!("    {}", printable(&change.text())))?;
            if let Change::File { before, after, .. } = change {
                difference(before.as_deref().unwrap_or_default(), after, context)?;
            }
        }
        for line in affects {
            context.out.line(&format!("    affects: {}", printable(line)))?;
        }
        for line in notes {
            context.out.line(&format!("    note: {}", printable(line)))?;
        }
    }
    for (id, why) in &plan.skipped {
        context.out.line(&format!("{}  not done: {}", style.paint(id, Colour::Faint), printable(why)))?;
    }
    Ok(())
}

/// Lines that go and lines that come; the files are short, and lines that stay are not shown.
fn difference(before: &str, after: &str, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    for line in old.iter().filter(|line| !new.contains(line)) {
        context.out.line(&style.paint(&format!("      - {}", printable(line)), Colour::Bad))?;
    }
    for line in new.iter().filter(|line| !old.contains(line) && !line.starts_with('#')) {
        context.out.line(&style.paint(&format!("      + {}", printable(line)), Colour::Good))?;
    }
    Ok(())
}

pub fn undo(args: &UndoArgs, context: &mut Context) -> Result<Exit, Failure> {
    let root = root_at(&args.root)?;
    let (services, no_services) = services(&root);
    let hands = Hands { root: &root, services: services.as_ref(), tick: &|_| Ok(()) };
    let Some(wanted) = &args.step else { return list(&hands, context) };
    if !bulkhead_sys::process::is_root() {
        return Err(Failure::usage("only root can take steps back", "use sudo"));
    }
    let mut back: Vec<Value> = Vec::new();
    for number in hands.recover().map_err(failed)? {
        back.push(json!({ "step": number, "cut_off": true }));
    }
    let records = hands.journal().and_then(|journal| journal.records()).map_err(failed)?;
    let mut mine: Vec<&Record> =
        records.iter().filter(|record| wanted == "all" || record.control == *wanted || record.number.to_string() == *wanted).collect();
    if mine.is_empty() && back.is_empty() && wanted != "all" {
        return Err(Failure::usage(format!("there is no step `{wanted}` to take back"), "`bulkhead host undo` lists them"));
    }
    mine.reverse();
    for record in mine {
        hands.undo(record, args.force).map_err(failed)?;
        back.push(json!({ "step": record.number, "control": record.control }));
        if !context.json() {
            context.out.line(&format!("step {:<4} {}  taken back", record.number, record.control))?;
        }
    }
    hands.journal().and_then(|journal| journal.close()).map_err(failed)?;
    if context.json() {
        context.out.json(&json!({ "undone": back }))?;
    } else if back.is_empty() {
        context.out.line("nothing to take back")?;
    } else if let Some(why) = no_services.filter(|_| root.is_host()) {
        context.out.line(&format!("note: {why}"))?;
    }
    Ok(Exit::Ok)
}

fn list(hands: &Hands<'_>, context: &mut Context) -> Result<Exit, Failure> {
    let records = hands.journal().and_then(|journal| journal.records()).map_err(failed)?;
    if context.json() {
        let list: Vec<Value> = records.iter().map(|record| json!({ "step": record.number, "control": record.control, "title": record.title, "at": record.at, "state": record.state })).collect();
        context.out.json(&json!({ "steps": list }))?;
        return Ok(Exit::Ok);
    }
    if records.is_empty() {
        context.out.line("nothing to take back")?;
    }
    for record in &records {
        context.out.line(&format!("step {:<4} {}  {}", record.number, record.control, printable(&record.title)))?;
        for recorded in &record.changes {
            context.out.line(&format!("          {}", printable(&recorded.change.text())))?;
        }
    }
    Ok(Exit::Ok)
}
