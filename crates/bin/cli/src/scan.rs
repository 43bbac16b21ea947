//! `bulkhead scan`: files, folders and archives looked at with the rules of the repository and whatever signatures are named, without an
//! agent. The engine is the one that judges files as they are opened.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulkhead_scan::{Action, Budget, Compiler, Finding, Incomplete, Limits, Report, SignatureSet, Summary, signatures};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::units::{bytes, plural};

/// Files of one run.
const FILES_MAX: usize = 10_000_000;
/// Bytes of one signature file; the largest that is published has a tenth.
const SIGNATURE_BYTES_MAX: u64 = 2 << 30;
/// File systems whose files are no files.
const UNREAL: [&str; 14] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "mqueue",
];

/// Look for malware in files, folders, archives and images
///
/// Exits with 0 when nothing was found, with 1 when something was, and with 4 when nothing was found and not everything could be looked at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, folders, or archives of images (`docker save`)
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Signatures beside the built-in ones: YARA rules, ClamAV's files, lists of hashes, or a folder of them; may be given more than once
    #[arg(short, long, value_name = "FILE|DIR")]
    signatures: Vec<PathBuf>,

    /// Leave the built-in rules out
    #[arg(long)]
    no_builtin: bool,

    /// What is larger is searched in pieces, and unpacked only if it can be read from beginning to end
    #[arg(long, value_name = "MiB", default_value_t = 256)]
    whole_max: u64,

    /// Seconds for one file
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    time_max: u64,

    /// The same as `--output json`
    #[arg(long, conflicts_with = "sarif")]
    json: bool,

    /// One SARIF 2.1.0 object instead
    #[arg(long)]
    sarif: bool,
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    let (set, summary) = compile(args)?;
    for one in summary.diagnostics.iter().filter(|one| one.wrong) {
        eprintln!("{}:{}: {} {}", printable(&one.source), one.line, printable(&one.name), printable(&one.message));
    }
    let mut walk = Walk::default();
    for path in &args.paths {
        walk.add(path)?;
    }
    let scanned = scan(&set, &walk.files, args);
    let mut results = scanned.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by(|a, b| a.path.cmp(&b.path));
    let all = All { results, unreadable: walk.unreadable, files: walk.files.len(), passed_over: walk.passed_over };
    if args.sarif {
        context.out.json_line(&all.sarif())?;
    } else if args.json || context.json() {
        context.out.json_line(&all.json(&summary))?;
    } else {
        all.tell(&summary, context)?;
    }
    Ok(if all.findings().next().is_some() {
        Exit::Findings
    } else if all.is_incomplete() {
        // 4: of this verb, that something could not be looked at.
        Exit::Internal
    } else {
        Exit::Ok
    })
}

/// The built-in rules and those that are named. A file that cannot be read or of which nothing could be used is the asker's mistake.
fn compile(args: &Args) -> Result<(SignatureSet, Summary), Failure> {
    let mut compiler = Compiler::default();
    if !args.no_builtin {
        compiler.builtin();
    }
    for path in &args.signatures {
        let failed = |error| Failure::File(path.clone(), error);
        if !path.is_dir() {
            if !take(&mut compiler, path).map_err(failed)? {
                let known = signatures::EXTENSIONS.join(", ");
                return Err(Failure::usage(
                    format!("`{}` is no signature file", path.display()),
                    format!("these extensions are known: {known}"),
                ));
            }
            continue;
        }
        let mut files: Vec<PathBuf> = std::fs::read_dir(path).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            take(&mut compiler, &file).map_err(|error| Failure::File(file.clone(), error))?;
        }
    }
    let (set, summary) = compiler.finish();
    if set.is_empty() {
        return Err(Failure::usage("there is no signature to look for", "name some with `--signatures`, or leave `--no-builtin` out"));
    }
    Ok((set, summary))
}

fn take(compiler: &mut Compiler, path: &Path) -> std::io::Result<bool> {
    let name = path.to_string_lossy();
    let known = path.extension().is_some_and(|extension| signatures::EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)));
    if !known {
        return Ok(false);
    }
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() > SIGNATURE_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 2 GiB"));
    }
    Ok(compiler.file(&name, &std::fs::read(path)?, Action::Block))
}

/// Regular files below what was named. Links are not followed, and what is no file is passed over.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    unreadable: Vec<(PathBuf, String)>,
    passed_over: u64,
    unreal: Option<Vec<PathBuf>>,
}

impl Walk {
    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        // Of what is named itself a link is meant as what it leads to.
        let metadata = std::fs::metadata(path).map_err(|error| Failure::File(path.to_owned(), error))?;
        if metadata.is_file() {
            self.files.push(path.to_owned());
            return Ok(());
        }
        let unreal = self.unreal.take().unwrap_or_else(unreal);
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.pop() {
            if folder.canonicalize().is_ok_and(|folder| unreal.contains(&folder)) {
                self.passed_over += 1;
                continue;
            }
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.unreadable.push((folder, error.to_string()));
                    continue;
                }
            };
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() && self.files.len() < FILES_MAX => self.files.push(entry.path()),
                    Ok(_) => self.passed_over += 1,
                    Err(error) => self.unreadable.push((entry.path(), error.to_string())),
                }
            }
        }
        self.unreal = Some(unreal);
        Ok(())
    }
}

/// Where file systems are mounted that show the kernel and not a disk.
fn unreal() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields.len() > 2 && UNREAL.contains(&fields[2])).map(|fields| PathBuf::from(fields[1])).collect()
}

struct Scanned {
    path: PathBuf,
    outcome: Result<Report, String>,
}

/// Both processors, and a line that says how far it is where somebody watches.
fn scan(set: &SignatureSet, files: &[PathBuf], args: &Args) -> Mutex<Vec<Scanned>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scanned = one(set, path, args);
                    // What is clean and complete is only counted.
                    if let Ok(mut results) = results.lock() {
                        results.push(scanned);
                    }
                }
            });
        }
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            while next.load(Ordering::Relaxed) < files.len() {
                std::thread::sleep(Duration::from_millis(200));
                let done = next.load(Ordering::Relaxed).min(files.len());
                let width = 30 * done / files.len().max(1);
                eprint!("\r[{}{}] {done} of {}", "#".repeat(width), " ".repeat(30 - width), plural(files.len() as u64, "file"));
                let _ = std::io::stderr().flush();
            }
            eprint!("\r\x1b[K");
        }
    });
    results
}

fn one(set: &SignatureSet, path: &Path, args: &Args) -> Scanned {
    let until = Instant::now() + Duration::from_secs(args.time_max);
    let expired = || Instant::now() >= until;
    let limits = Limits {
        entry_bytes_max: args.whole_max << 20,
        total_bytes_max: u64::MAX,
        entries_max: u32::MAX,
        search_time_max: Duration::from_secs(args.time_max),
        ..Limits::default()
    };
    let mut budget = Budget::new(limits, &expired);
    // A defect of an unpacker over one file must not take the findings in others with it.
    let scanned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        std::fs::File::open(path).and_then(|mut file| set.scan_reader(&path.to_string_lossy(), &mut file, &mut budget))
    }));
    let outcome = match scanned {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("the scanner failed over it: please report this".to_owned()),
    };
    Scanned { path: path.to_owned(), outcome }
}

struct All {
    results: Vec<Scanned>,
    unreadable: Vec<(PathBuf, String)>,
    files: usize,
    passed_over: u64,
}

impl All {
    fn reports(&self) -> impl Iterator<Item = (&Path, &Report)> {
        self.results.iter().filter_map(|scanned| scanned.outcome.as_ref().ok().map(|report| (scanned.path.as_path(), report)))
    }

    fn findings(&self) -> impl Iterator<Item = (&Path, &Report, &Finding)> {
        self.reports().flat_map(|(path, report)| report.findings.iter().map(move |finding| (path, report, finding)))
    }

    fn incomplete(&self) -> impl Iterator<Item = (&Path, &Incomplete)> {
        self.reports().flat_map(|(path, report)| report.incomplete.iter().map(move |incomplete| (path, incomplete)))
    }

    fn failures(&self) -> impl Iterator<Item = (&Path, &str)> {
        let read =
            self.results.iter().filter_map(|scanned| scanned.outcome.as_ref().err().map(|why| (scanned.path.as_path(), why.as_str())));
        read.chain(self.unreadable.iter().map(|(path, why)| (path.as_path(), why.as_str())))
    }

    fn is_incomplete(&self) -> bool {
        self.incomplete().next().is_some() || self.failures().next().is_some()
    }

    fn totals(&self) -> (u64, u64) {
        self.reports().fold((0, 0), |(objects, bytes), (_, report)| (objects + report.objects, bytes + report.bytes))
    }

    fn tell(&self, summary: &Summary, context: &mut Context) -> Result<(), Failure> {
        for (path, report, finding) in self.findings() {
            let what = if finding.action == Action::Block { "MALWARE" } else { "suspect" };
            let line =
                format!("{what}  {}  {} ({})", printable(&way(path, &finding.place)), printable(&finding.name), printable(&finding.source));
            context.out.line(&line)?;
            for matched in finding.matched.iter().take(1) {
                context.out.line(&format!("         {} bytes at {}: {}", matched.len, matched.offset, shown(&matched.bytes)))?;
            }
            context.out.line(&format!("         sha256 {}", report.sha256))?;
        }
        let mut reasons = BTreeMap::<&str, u64>::new();
        for (path, incomplete) in self.incomplete() {
            *reasons.entry(incomplete.gap.name()).or_default() += 1;
            context.out.line(&format!("not read  {}: {}", printable(&way(path, &incomplete.place)), incomplete.gap))?;
        }
        for (path, why) in self.failures() {
            context.out.line(&format!("not read  {}: {}", printable(&path.to_string_lossy()), printable(why)))?;
        }
        let (objects, unpacked) = self.totals();
        context.out.line(&format!(
            "{} ({}, {} unpacked) with {}: {}, {} not read wholly",
            plural(self.files as u64, "file"),
            plural(objects, "object"),
            bytes(unpacked),
            plural(summary.loaded_total() as u64, "signature"),
            plural(self.findings().count() as u64, "finding"),
            self.incomplete().count() + self.failures().count(),
        ))
    }

    fn json(&self, summary: &Summary) -> Value {
        let findings: Vec<Value> = self
            .findings()
            .map(|(path, report, finding)| {
                let matched: Vec<Value> = finding
                    .matched
                    .iter()
                    .map(|one| json!({ "pattern": one.pattern, "offset": one.offset, "len": one.len, "bytes": hex(&one.bytes) }))
                    .collect();
                json!({
                    "path": path.to_string_lossy(), "place": finding.place, "name": finding.name, "source": finding.source,
                    "action": word(finding.action), "kind": finding.kind.name(), "sha256": report.sha256, "matched": matched,
                })
            })
            .collect();
        let incomplete: Vec<Value> = self
            .incomplete()
            .map(|(path, one)| json!({ "path": path.to_string_lossy(), "place": one.place, "reason": one.gap.name(), "message": one.gap.to_string() }))
            .chain(self.failures().map(|(path, why)| json!({ "path": path.to_string_lossy(), "place": [], "reason": "read", "message": why })))
            .collect();
        let (objects, unpacked) = self.totals();
        json!({
            "files": self.files, "objects": objects, "unpacked_bytes": unpacked, "passed_over": self.passed_over,
            "signatures": {
                "loaded": summary.loaded, "loaded_total": summary.loaded_total(),
                "unsupported": summary.unsupported, "wrong": summary.wrong, "ignored": summary.ignored,
            },
            "findings": findings, "incomplete": incomplete,
        })
    }

    /// <https://docs.oasis-open.org/sarif/sarif/v2.1.0/>
    fn sarif(&self) -> Value {
        let rules: BTreeMap<&str, &Finding> = self.findings().map(|(_, _, finding)| (finding.name.as_str(), finding)).collect();
        let rules: Vec<Value> =
            rules.iter().map(|(name, finding)| json!({ "id": name, "properties": { "source": finding.source } })).collect();
        let results: Vec<Value> = self
            .findings()
            .map(|(path, report, finding)| {
                json!({
                    "ruleId": finding.name,
                    "level": if finding.action == Action::Block { "error" } else { "warning" },
                    "message": { "text": format!("{} matches {}", way(path, &finding.place), finding.name) },
                    "locations": [{ "physicalLocation": { "artifactLocation": { "uri": path.to_string_lossy() } } }],
                    "fingerprints": { "sha256/v1": report.sha256 },
                })
            })
            .collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "bulkhead scan", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
                "results": results,
                "invocations": [{ "executionSuccessful": !self.is_incomplete() }],
            }],
        })
    }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Alert => "alert",
        Action::Block => "block",
    }
}

/// The file, and behind exclamation marks what leads to the entry.
fn way(path: &Path, place: &[String]) -> String {
    place.iter().fold(path.to_string_lossy().into_owned(), |way, entry| format!("{way}!{entry}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect()
}
