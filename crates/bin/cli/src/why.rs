//! `bulkhead why EVENT`: how a judgement came about.

use bulkhead_api::Why;

use crate::context::Context;
use crate::event_text::{happening, parties};
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::units::date_time;

/// Explain an event: which packet, which rule, which part of the policy, and what could come next
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The number in `event_id`; in `bulkhead events` it stands behind the time
    #[arg(value_name = "EVENT")]
    event: u64,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let why = context.client()?.why(args.event)?;
    if context.json() {
        context.out.json(&why)?;
    } else {
        for line in text(&why, context) {
            context.out.line(&line)?;
        }
    }
    Ok(Exit::Ok)
}

fn text(why: &Why, context: &Context) -> Vec<String> {
    let style = context.out.style();
    let event = &why.event;
    let (what, colour) = happening(&event.body);
    let title = format!("event {}, {}, {}", event.event_id, event.body.type_name(), date_time(event.timestamp));
    let mut lines = vec![style.paint(&title, Colour::Head), style.paint(&what, colour), parties(event)];
    lines.retain(|line| !line.is_empty());
    let mut section = |head: &str, body: Vec<String>| {
        if !body.is_empty() {
            lines.push(String::new());
            lines.push(style.paint(head, Colour::Faint));
            lines.extend(body.into_iter().map(|line| format!("  {line}")));
        }
    };
    let steps = why.explanation.iter().enumerate().map(|(at, step)| format!("{}. {}", at + 1, printable(step)));
    section("how it came about", steps.collect());
    section("rule", [&why.rule_source, &why.rule].into_iter().flatten().map(|text| printable(text)).collect());
    section(
        "policy",
        [&why.policy_source, &why.policy].into_iter().flatten().flat_map(|text| text.lines().map(printable).collect::<Vec<_>>()).collect(),
    );
    section(
        "workloads",
        why.workloads
            .iter()
            .map(|view| {
                let image = view.workload.image.as_deref().unwrap_or("no image");
                printable(&format!("{} ({image}), mode {}", view.workload.name, crate::status::mode_name(view.mode)))
            })
            .collect(),
    );
    section("what could come next", why.next.iter().map(|command| printable(command)).collect());
    lines
}
