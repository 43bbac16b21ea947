//! `bulkhead replay`: what these rules would make of recorded traffic, with the same engine and without an agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bulkhead_eve::capture;
use bulkhead_eve::replay::{Job, Loaded, Replay};
use bulkhead_eve::settings::{Files, Settings};
use bulkhead_ips::Checksums;
use bulkhead_rules::{Severity, Variables};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::ruleset::{VariableArgs, text_of};
use crate::table::{Cell, Table};
use crate::units::{bytes, plural};

/// Keys without a meaning that are told one by one.
const UNKNOWN_TOLD: usize = 20;

/// Run captures through the engine: which rules would have found what
///
/// Settings are those of Suricata's configuration, by their names. Exits with 1 when there was an alert.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pcap or pcapng files, read one after the other
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,

    /// A file of rules; may be given more than once, or not at all
    #[arg(short, long, value_name = "FILE")]
    rules: Vec<PathBuf>,

    /// Write events there, one a line, in the shapes of Suricata's eve.json
    #[arg(long, value_name = "FILE")]
    eve: Option<PathBuf>,

    /// Carry out what drop and reject rules say, as mode `protect` does
    #[arg(long, visible_aliases = ["protect", "simulate-ips"])]
    inline: bool,

    /// A setting by its name in Suricata's configuration: stream.midstream=true
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,

    /// A suricata.yaml; without it, what its default file says
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Whether packets with wrong checksums are left out; captures made on the sending host have many, and they mean nothing
    /// [default: all, until a tenth of 1,000 packets is wrong]
    #[arg(short = 'k', long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "all")]
    checksums: Option<Checks>,

    #[command(flatten)]
    variables: VariableArgs,

    /// Show only these types, with commas: alert, drop, flow, http, dns, … [default: alert, drop; with -o json: all]
    #[arg(short = 't', long = "type", value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,

    /// Options of Suricata that change nothing here
    #[arg(long, hide = true, value_name = "MODE")]
    runmode: Option<String>,
    #[arg(long, hide = true)]
    no_random: bool,
    /// Write here what rules learn and keep: sets with `save` or `state`, and files with `filestore`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Checks {
    All,
    None,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        Some(_) | None => Err("write it as KEY=VALUE".to_owned()),
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let folders = folders(args);
    let files = Beside { folders: &folders };
    let settings = settings(args, &files)?;
    let rules: Vec<(String, String)> =
        args.rules.iter().map(|file| Ok((file.display().to_string(), text_of(file)?))).collect::<Result<_, Failure>>()?;
    let job = Job {
        settings: &settings,
        rules: &rules,
        beside: args.variables.texts()?,
        inline: args.inline,
        checksums: args.checksums.map(|checks| match checks {
            Checks::All => Checksums::Verify,
            Checks::None => Checksums::Ignore,
        }),
        files: &files,
    };
    let (mut replay, loaded) = Replay::new(job);
    complain(&settings, &loaded);
    let mut written = Written::new(args, &replay)?;
    let (mut skipped, mut broken) = (0, false);
    for path in &args.captures {
        let file = File::open(path).map_err(|error| Failure::File(path.clone(), error))?;
        let read = capture::read(file, |packet| {
            replay.packet(packet);
            keep_files(args, &mut replay)?;
            written.lines(&mut replay, context)
        });
        let read = match read {
            Ok(read) => read,
            Err(capture::Failed::Each(failure)) => return Err(failure),
            Err(capture::Failed::NotOne(_)) => {
                let help = "pcap and pcapng files are read; a compressed one must be unpacked";
                return Err(Failure::usage(format!("`{}` is not a capture", path.display()), help));
            }
        };
        skipped += read.skipped;
        if let Some(reason) = &read.broken {
            broken = true;
            eprintln!("{}: {reason}, after {}", path.display(), plural(replay.counts.packets, "packet"));
        }
    }
    replay.finish();
    keep_files(args, &mut replay)?;
    keep_sets(args, &replay)?;
    written.lines(&mut replay, context)?;
    written.close()?;
    let counts = replay.counts;
    if context.json() {
        let stats = json!({ "packets": counts.packets, "bytes": counts.bytes, "skipped": skipped, "alerts": counts.alerts, "blocked": counts.blocked });
        context.out.json_line(&json!({ "event_type": "stats", "stats": { "replay": stats } }))?;
    } else {
        summary(&written.counted, context)?;
        let skipped = if skipped == 0 { String::new() } else { format!(", {} of links that are not read", plural(skipped, "packet")) };
        let text = format!(
            "{} ({}){skipped}; {}, {} blocked",
            plural(counts.packets, "packet"),
            bytes(counts.bytes),
            plural(counts.alerts, "alert"),
            plural(counts.blocked, "packet")
        );
        context.out.line(&text)?;
    }
    Ok(match (broken, counts.alerts) {
        (_, 1..) => Exit::Findings,
        (true, 0) => Exit::Usage,
        (false, 0) => Exit::Ok,
    })
}

/// Where files that settings name are looked for: beside the configuration, beside the rules, here.
fn folders(args: &Args) -> Vec<PathBuf> {
    let of = |file: &PathBuf| file.parent().map(Path::to_owned);
    args.config.iter().chain(&args.rules).filter_map(of).chain([PathBuf::new()]).collect()
}

struct Beside<'a> {
    folders: &'a [PathBuf],
}

impl Files for Beside<'_> {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.folders.iter().find_map(|folder| crate::ruleset::bytes_of(&folder.join(name)).ok())
    }
}

fn settings(args: &Args, files: &Beside<'_>) -> Result<Settings, Failure> {
    let mut settings = match &args.config {
        None => {
            let mut settings = Settings::builtin();
            // A capture knows no workloads whose addresses home could be.
            settings.set("vars.address-groups.HOME_NET", "any");
            settings
        }
        Some(file) => {
            let refused = |error: bulkhead_eve::yaml::Refused| {
                Failure::usage(format!("`{}`: {error}", file.display()), "it is read as a suricata.yaml")
            };
            Settings::read(&text_of(file)?, files).map_err(refused)?
        }
    };
    let known = Variables::default();
    for (name, value) in args.variables.given() {
        let group = if known.is_port(name) { "port-groups" } else { "address-groups" };
        settings.set(&format!("vars.{group}.{name}"), value);
    }
    if let Ok(version) = std::env::var("SURICATA_EVE_DNS_VERSION") {
        settings.set("env.SURICATA_EVE_DNS_VERSION", &version);
    }
    for (key, value) in &args.set {
        settings.set(key, value);
    }
    Ok(settings)
}

/// Files that rules want kept, as the reference engine lays them down: `filestore/ab/abcd…`, by their SHA-256.
fn keep_files(args: &Args, replay: &mut Replay) -> Result<(), Failure> {
    for (hash, content) in replay.stored() {
        let Some(dir) = &args.data_dir else { continue };
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = dir.join("filestore").join(&name[..2]);
        std::fs::create_dir_all(&folder).map_err(|error| Failure::File(folder.clone(), error))?;
        let path = folder.join(&name);
        std::fs::write(&path, content).map_err(|error| Failure::File(path, error))?;
    }
    Ok(())
}

/// Sets that rules write. Their names come from rules: nothing is written outside of the folder.
fn keep_sets(args: &Args, replay: &Replay) -> Result<(), Failure> {
    let Some(dir) = &args.data_dir else { return Ok(()) };
    for (name, text) in replay.sets() {
        let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            eprintln!("warning: the set `{}` is not written: its path leads out of `{}`", printable(name), dir.display());
            continue;
        }
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Failure::File(folder.to_owned(), error))?;
        }
        std::fs::write(&path, text).map_err(|error| Failure::File(path, error))?;
    }
    Ok(())
}

/// On standard error: rules that do not load, settings that mean nothing here.
fn complain(settings: &Settings, loaded: &Loaded) {
    let bad = loaded.unsupported + loaded.wrong;
    if bad > 0 {
        eprintln!("{bad} of the rules do not load; see `bulkhead rules check`");
        for (file, found) in loaded.diagnostics.iter().filter(|(_, found)| found.severity != Severity::Warning).take(UNKNOWN_TOLD) {
            eprintln!("{}:{}: {}", printable(file), found.span.line, printable(&found.message));
        }
    }
    let unknown = settings.unknown();
    for unknown in unknown.iter().take(UNKNOWN_TOLD) {
        eprintln!("warning: the setting `{}` means nothing here", printable(&unknown.key));
    }
    if unknown.len() > UNKNOWN_TOLD {
        eprintln!("warning: {} settings mean nothing here", unknown.len());
    }
}

/// Lines on their way to files and to the reader.
struct Written {
    /// By the log's number.
    files: Vec<Option<(PathBuf, BufWriter<File>)>>,
    types: Vec<String>,
    next_id: u64,
    counted: BTreeMap<String, u64>,
}

impl Written {
    /// The first log, or the one called `eve.json`, goes where `--eve` says; others beside it under their own names.
    fn new(args: &Args, replay: &Replay) -> Result<Self, Failure> {
        let mut files: Vec<Option<(PathBuf, BufWriter<File>)>> = replay.logs().iter().map(|_| None).collect();
        if let Some(eve) = &args.eve {
            let main = replay.logs().iter().position(|log| log.file == "eve.json").unwrap_or(0);
            for (number, log) in replay.logs().iter().enumerate() {
                let own = Path::new(&log.file).file_name().map(|name| eve.with_file_name(name));
                let path = if number == main { eve.clone() } else { own.unwrap_or_else(|| eve.clone()) };
                let file = File::create(&path).map_err(|error| Failure::File(path.clone(), error))?;
                files[number] = Some((path, BufWriter::new(file)));
            }
        }
        Ok(Self { files, types: args.types.clone(), next_id: 1, counted: BTreeMap::new() })
    }

    fn lines(&mut self, replay: &mut Replay, context: &mut Context) -> Result<(), Failure> {
        for (number, line) in replay.lines() {
            if let Some(Some((path, file))) = self.files.get_mut(number) {
                writeln!(file, "{line}").map_err(|error| Failure::File(path.clone(), error))?;
            }
            if number == 0 {
                self.show(&line, context)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, line: &Value, context: &mut Context) -> Result<(), Failure> {
        let kind = line.get("event_type").and_then(Value::as_str).unwrap_or_default();
        *self.counted.entry(kind.to_owned()).or_default() += 1;
        let wanted = match (self.types.is_empty(), context.json()) {
            (false, _) => self.types.iter().any(|wanted| wanted == kind),
            (true, true) => true,
            (true, false) => matches!(kind, "alert" | "drop"),
        };
        if !wanted {
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        if context.json() {
            return context.out.json_line(line);
        }
        let text = text(line, id, context);
        context.out.line(&text)
    }

    fn close(&mut self) -> Result<(), Failure> {
        for (path, file) in self.files.iter_mut().flatten() {
            file.flush().map_err(|error| Failure::File(path.clone(), error))?;
        }
        Ok(())
    }
}

/// `2026-11-23 12:00:01       1  alert      198.51.100.2 -> 198.51.100.3:53 UDP  [allowed] seen (sid 1)`
fn text(line: &Value, id: u64, context: &Context) -> String {
    let of =
        |path: &str| line.pointer(path).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
    let kind = of("/event_type");
    let rule = || format!("{} (sid {})", of("/alert/signature"), of("/alert/signature_id"));
    let (said, colour) = match kind.as_str() {
        "alert" if of("/would_have_blocked") == "true" => (format!("[would block] {}", rule()), Colour::Warn),
        "alert" if of("/alert/action") == "blocked" => (format!("[blocked] {}", rule()), Colour::Bad),
        "alert" => (format!("[allowed] {}", rule()), Colour::Warn),
        "drop" => (format!("[blocked] {}", of("/drop/reason")), Colour::Bad),
        "flow" => (
            format!("{}, {} B to server, {} B to client", of("/flow/state"), of("/flow/bytes_toserver"), of("/flow/bytes_toclient")),
            Colour::Faint,
        ),
        "anomaly" => (format!("{} {}", of("/anomaly/type"), of("/anomaly/event")), Colour::Warn),
        other => (line.get(other).map(Value::to_string).unwrap_or_default(), Colour::Plain),
    };
    let port = match of("/dest_port").as_str() {
        "" => String::new(),
        port => format!(":{port}"),
    };
    let time = of("/timestamp").get(..19).unwrap_or_default().replace('T', " ");
    let style = context.out.style();
    let parties = format!("{} -> {}{port} {}", of("/src_ip"), of("/dest_ip"), of("/proto"));
    format!("{}  {id:>6}  {kind:<9}  {parties}  {}", style.paint(&time, Colour::Faint), style.paint(&printable(&said), colour))
}

fn summary(counted: &BTreeMap<String, u64>, context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new(["EVENT", "COUNT"]);
    for (kind, count) in counted {
        table.row([Cell::new(kind), Cell::number(count.to_string())]);
    }
    let (style, width) = (context.out.style(), None);
    table.render(style, width).iter().try_for_each(|line| context.out.line(line))
}
