//! `bulkhead coverage`: what the kernel carried against what was judged.

use bulkhead_api::{Coverage, PairCoverage};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Colour;
use crate::table::{Cell, Table};
use crate::units::{bytes, percent};

/// Compare the bytes that the kernel carried with those that were inspected, bypassed or dropped
///
/// Exits with 1 when something passed that nobody judged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also for each interface: the device's own counters against the hook's
    #[arg(long)]
    interfaces: bool,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let coverage = context.client()?.coverage()?;
    if context.json() {
        context.out.json(&coverage)?;
    } else {
        text(&coverage, args.interfaces, context)?;
    }
    Ok(if coverage.complete { Exit::Ok } else { Exit::Findings })
}

pub fn path_name(pair: &PairCoverage) -> String {
    let vlan = if pair.vlan { " vlan" } else { "" };
    format!("{} {}{vlan}", pair.kind.name(), pair.family.name())
}

fn text(coverage: &Coverage, interfaces: bool, context: &mut Context) -> Result<(), Failure> {
    let (style, width) = (context.out.style(), context.out.width());
    if coverage.pairs.is_empty() {
        context.out.line("no traffic yet")?;
    } else {
        context.out.lines(pairs(&coverage.pairs).render(style, width))?;
    }
    if interfaces && !coverage.interfaces.is_empty() {
        let mut table = Table::new(["INTERFACE", "WORKLOAD", "KERNEL", "SEEN", "GAP"]);
        for interface in &coverage.interfaces {
            table.row([
                (&interface.interface).into(),
                (&interface.workload).into(),
                Cell::number(bytes(interface.kernel_bytes)),
                Cell::number(bytes(interface.seen_bytes)),
                gap(interface.gap_bytes),
            ]);
        }
        context.out.line("")?;
        context.out.lines(table.render(style, width))?;
    }
    let colour = if coverage.complete { Colour::Good } else { Colour::Bad };
    let word = if coverage.complete { "complete" } else { "with gaps" };
    let total = format!("covered {}, {word}", percent(coverage.total_percent));
    context.out.line("")?;
    context.out.line(&style.paint(&total, colour))
}

fn pairs(pairs: &[PairCoverage]) -> Table {
    let mut table = Table::new(["FROM", "TO", "PATH", "CARRIED", "INSPECTED", "BYPASSED", "DROPPED", "GAP", "REASONS"]);
    for pair in pairs {
        let reasons = pair.bypassed.iter().map(|(reason, count)| format!("bypass {reason} {}", bytes(*count)));
        let reasons = reasons.chain(pair.dropped.iter().map(|(reason, count)| format!("drop {reason} {}", bytes(*count))));
        table.row([
            (&pair.src).into(),
            (&pair.dst).into(),
            path_name(pair).into(),
            Cell::number(bytes(pair.carried_bytes)),
            Cell::number(bytes(pair.inspected_bytes)),
            Cell::number(bytes(pair.bypassed_bytes())),
            Cell::number(bytes(pair.dropped_bytes())),
            gap(pair.gap_bytes),
            reasons.collect::<Vec<_>>().join(", ").into(),
        ]);
    }
    table
}

fn gap(count: u64) -> Cell {
    let colour = if count == 0 { Colour::Plain } else { Colour::Bad };
    Cell::number(bytes(count)).colour(colour)
}
