//! `bulkhead run`: the agent itself, in the foreground; what systemd starts, and what `./run` starts with the live map.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_agent::RunOptions;
use bulkhead_api::Client;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::lab::Beside;
use crate::map;
use crate::output::{Format, Out};

/// Put the traffic of all containers under inspection, until told to stop
///
/// SIGHUP reads configuration and rules again; a terminal that closes is a Ctrl-C. SIGTERM ends the agent and leaves its programs in the kernel for the next one;
/// Ctrl-C, `bulkhead down` and, with --foreground, SIGTERM take everything off the host again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; files in `conf.d` beside it are added [default: /etc/bulkhead/bulkhead.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Take everything off the host on SIGTERM too
    #[arg(long)]
    foreground: bool,

    /// Show the live map meanwhile
    #[arg(long)]
    map: bool,

    /// Bring up a lab beside it: throw-away containers, one of which attacks; gone again at the end
    #[arg(long)]
    lab: bool,

    #[command(flatten)]
    places: Places,
}

/// Where an agent keeps what outlives it; another place for each lets two live side by side in a test.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Lock and journal
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub run_dir: Option<PathBuf>,

    /// Pinned programs and maps
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub pin_dir: Option<PathBuf>,
}

impl Places {
    pub fn resolve(&self) -> (PathBuf, PathBuf) {
        let default = RunOptions::default();
        (self.run_dir.clone().unwrap_or(default.run_dir), self.pin_dir.clone().unwrap_or(default.pin_dir))
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let default = RunOptions::default();
    let (run_dir, pin_dir) = args.places.resolve();
    let options = RunOptions {
        config: args.config.clone().unwrap_or(default.config),
        run_dir,
        pin_dir,
        // What the command line does not name is the configuration's to say.
        socket: context.socket_named(),
        foreground: args.foreground,
    };
    let (format, with_map) = (context.out.format(), args.map);
    let lab = if args.lab { Some(Arc::new(Beside::prepare(&options.config)?)) } else { None };
    let ended = bulkhead_agent::run(&options, &mut |socket| announce(socket, format, with_map, lab.clone()));
    if let Some(lab) = lab {
        lab.remove();
    }
    ended?;
    Ok(Exit::Ok)
}

/// Called by the agent when it is up. Threads are made here and not before, because the agent must set up signals first.
fn announce(socket: &Path, format: Format, with_map: bool, lab: Option<Arc<Beside>>) {
    if !with_map {
        let mut out = Out::stdout(format);
        let line = match format {
            Format::Text => format!("bulkhead is up; its API answers on {}", socket.display()),
            Format::Json => serde_json::json!({ "socket": socket }).to_string(),
        };
        // An agent whose starter has closed its output protects all the same.
        let _ = out.line(&line).and_then(|()| out.flush());
        if lab.is_none() {
            return;
        }
    }
    let socket = socket.to_owned();
    let showing = move || {
        // The lab's story first, then the map over it, with the lab still at work.
        let at_work = lab.map(|lab| {
            if let Err(failure) = lab.play(&socket, format) {
                failure.report(format);
            }
            std::thread::spawn(move || lab.go_on())
        });
        if with_map && let Ok(client) = Client::new(&socket) {
            // The map ends with the agent, or when nobody looks any more; the agent does not end with the map.
            let _ = map::watch(&client, &mut Out::stdout(format), None);
        }
        drop(at_work); // it ends when the lab is removed
    };
    let _ = std::thread::Builder::new().name("bulkhead-map".to_owned()).spawn(showing);
}
