//! `bulkhead doctor`: what this host lets us enforce, found out by trying. Needs no agent and changes nothing.

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Find out what can be enforced on this host, by trying each kernel hook
///
/// Changes nothing: all trials happen in namespaces of their own. Grades: A blocks before the act, B cuts or kills what
/// has begun or blocks with a gap, C only sees, - is not available. Exits with 3 when the network path is below B.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Columns where no terminal tells.
const WIDTH: usize = 100;

pub fn run(_: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let report = bulkhead_doctor::examine();
    if context.json() {
        context.out.json(&report)?;
    } else {
        let width = context.out.width().unwrap_or(WIDTH);
        context.out.raw(&report.to_text(width.min(120)))?;
    }
    Ok(if report.can_enforce() { Exit::Ok } else { Exit::Degraded })
}
