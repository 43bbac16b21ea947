//! `bulkhead reload`: read configuration and rules again.

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::problems;

/// Let the agent read its configuration and rules again; what is wrong is refused as a whole
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let reloaded = context.client()?.reload()?;
    if context.json() {
        context.out.json(&reloaded)?;
        return Ok(Exit::Ok);
    }
    for problem in &reloaded.problems {
        context.out.line(&problems::text(problem))?;
    }
    let rules = &reloaded.rules;
    let line = format!(
        "policy revision {}; rules: {} loaded, {} unsupported, {} wrong",
        reloaded.policy_revision, rules.loaded, rules.unsupported, rules.wrong
    );
    context.out.line(&line)?;
    Ok(Exit::Ok)
}
