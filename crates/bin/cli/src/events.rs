//! `bulkhead events`: what happened, and with `-f` what happens.

use bulkhead_api::client::Update;
use bulkhead_api::{EventQuery, EventTypes};
use bulkhead_model::{Event, Timestamp};

use crate::context::Context;
use crate::event_text::line;
use crate::failure::{Exit, Failure};

/// Show what happened: alerts, drops, anomalies and what the agent did
///
/// With `-o json` each event is one line of EVE JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,

    /// Only these types, with commas: alert, drop, flow, anomaly, stats, operation [default: all but flow and stats]
    #[arg(short = 't', long = "type", value_name = "TYPES")]
    types: Option<EventTypes>,

    /// Only those with this workload on either side
    #[arg(short, long, value_name = "NAME")]
    workload: Option<String>,

    /// So many, the newest [default: 20, with --follow 10]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    limit: Option<u16>,

    /// Only those after the event with this id
    #[arg(long, value_name = "ID")]
    since: Option<u64>,

    /// Only those of this signature
    #[arg(long, value_name = "ID")]
    sid: Option<u32>,

    /// Only those at or after this time, as 2026-11-23T21:10:56Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,

    /// Only those before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,
}

const LISTED: u16 = 20;
const LISTED_BEFORE_FOLLOWING: u16 = 10;

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let default = if args.follow { LISTED_BEFORE_FOLLOWING } else { LISTED };
    let query = EventQuery {
        id: None,
        since: args.since,
        types: args.types.unwrap_or_default(),
        workload: args.workload.clone(),
        signature_id: args.sid,
        from: args.from,
        to: args.to,
        limit: Some(usize::from(args.limit.unwrap_or(default))),
    };
    if !args.follow {
        for event in client.events(&query)? {
            show(&event, context)?;
        }
        return Ok(Exit::Ok);
    }
    let mut live = client.follow(&query)?;
    loop {
        context.out.flush()?;
        match live.next(None)? {
            Some(Update::Event(event)) => show(&event, context)?,
            Some(Update::Lagged(count)) => eprintln!("{count} events were left out: the reader is too slow"),
            None => {}
        }
    }
}

fn show(event: &Event, context: &mut Context) -> Result<(), Failure> {
    if context.json() {
        return context.out.json_line(event);
    }
    let line = line(event, context.out.style());
    context.out.line(&line)
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "not a time like 2026-11-23T21:10:56Z (UTC)".to_owned())
}
