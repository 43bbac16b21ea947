//! `bulkhead version`.

use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Show the version of this program and of the API it speaks
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let (version, api) = (env!("CARGO_PKG_VERSION"), bulkhead_api::API_VERSION);
    if context.json() {
        context.out.json(&json!({ "version": version, "api": api }))?;
    } else {
        context.out.line(&format!("bulkhead {version} (api {api})"))?;
    }
    Ok(Exit::Ok)
}
