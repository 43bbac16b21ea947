//! `bulkhead mode`: show or change whether judgements are carried out.

use bulkhead_api::{ModeView, WorkloadView};
use bulkhead_model::Mode;
use bulkhead_policy::Selector;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::status::mode_name;
use crate::table::{Cell, Table};
use crate::units::plural;

/// Show or change the mode: `monitor` only tells, `protect` blocks
///
///   bulkhead mode                     show all
///   bulkhead mode web                 show those that `web` selects
///   bulkhead mode web protect         from now on block for them
///   bulkhead mode label.app=shop monitor
///   bulkhead mode protect             for all that no rule selects
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which workloads: a pattern for the name (`web*`), or conditions (`image=nginx*,label.app=shop`)
    #[arg(value_name = "SELECTOR")]
    first: Option<String>,

    /// `monitor` or `protect`
    #[arg(value_name = "MODE", value_parser = mode)]
    second: Option<Mode>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    match (&args.first, args.second) {
        (None, _) => show(None, context),
        (Some(first), Some(wanted)) => change(Some(checked(first)?), wanted, context),
        (Some(first), None) => match mode(first) {
            Ok(wanted) => change(None, wanted, context),
            Err(_) => show(Some(&checked(first)?), context),
        },
    }
}

/// For clap: refuses what is no selector.
pub fn selector(text: &str) -> Result<String, String> {
    Selector::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub fn selected(views: Vec<WorkloadView>, text: &str) -> Result<Vec<WorkloadView>, Failure> {
    let selector = Selector::parse(text).map_err(|error| wrong(text, &error.to_string()))?;
    Ok(views.into_iter().filter(|view| selector.matches(&view.workload)).collect())
}

fn checked(text: &str) -> Result<String, Failure> {
    selector(text).map_err(|error| wrong(text, &error))
}

fn wrong(text: &str, reason: &str) -> Failure {
    Failure::usage(
        format!("`{text}` is not a selector: {reason}"),
        "give a pattern for the name (`web*`), or conditions (`image=nginx*,label.app=shop`); modes are `monitor` and `protect`",
    )
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "monitor" => Ok(Mode::Monitor),
        "protect" => Ok(Mode::Protect),
        _ => Err("`monitor` or `protect`".to_owned()),
    }
}

fn change(selector: Option<String>, wanted: Mode, context: &mut Context) -> Result<Exit, Failure> {
    let changed = context.client()?.set_mode(selector, wanted)?;
    if context.json() {
        context.out.json(&changed)?;
        return Ok(Exit::Ok);
    }
    let whose = changed.selector.as_ref().map_or("the default".to_owned(), |selector| format!("`{}`", printable(selector)));
    let names = if changed.workloads.is_empty() { String::new() } else { format!(": {}", printable(&changed.workloads.join(", "))) };
    let count = plural(changed.workloads.len() as u64, "workload");
    context.out.line(&format!("mode {} for {whose}, {count} at this moment{names}", mode_name(changed.mode)))?;
    Ok(Exit::Ok)
}

fn show(only: Option<&str>, context: &mut Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let view = client.mode()?;
    let Some(text) = only else {
        if context.json() {
            context.out.json(&view)?;
        } else {
            show_all(&view, context)?;
        }
        return Ok(Exit::Ok);
    };
    let views = selected(client.workloads()?, text)?;
    if context.json() {
        let modes: std::collections::BTreeMap<&str, Mode> = views.iter().map(|view| (view.workload.name.as_str(), view.mode)).collect();
        context.out.json(&json!({ "workloads": modes }))?;
        return Ok(Exit::Ok);
    }
    if views.is_empty() {
        context.out.line("nothing that runs is selected by this")?;
    }
    for view in &views {
        let by = view.selected_by.as_ref().map_or("the default".to_owned(), |selector| printable(selector));
        context.out.line(&format!("{}  {}  by {by}", printable(&view.workload.name), mode_name(view.mode)))?;
    }
    Ok(Exit::Ok)
}

fn show_all(view: &ModeView, context: &mut Context) -> Result<(), Failure> {
    let style = context.out.style();
    context.out.line(&format!("default {}", mode_name(view.default)))?;
    if !view.rules.is_empty() {
        let mut table = Table::new(["SELECTOR", "MODE", "FROM"]);
        for rule in &view.rules {
            table.row([(&rule.selector).into(), mode_name(rule.mode).into(), rule.source.as_deref().unwrap_or("-").into()]);
        }
        context.out.line("")?;
        context.out.lines(table.render(style, None))?;
    }
    if !view.workloads.is_empty() {
        let mut table = Table::new(["WORKLOAD", "MODE"]);
        for (name, mode) in &view.workloads {
            let colour = if *mode == Mode::Protect { Colour::Good } else { Colour::Plain };
            table.row([name.into(), Cell::new(mode_name(*mode)).colour(colour)]);
        }
        context.out.line("")?;
        context.out.lines(table.render(style, None))?;
    }
    Ok(())
}
