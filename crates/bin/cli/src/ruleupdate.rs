//! `bulkhead rules update`: published rule sets are fetched, checked as a whole and put in the place of the old ones at once.
//!
//! ```text
//! DIR/current -> sets/8/            what the agent reads: current/*/*.rules
//! DIR/previous -> sets/7/           what `--undo` goes back to
//! DIR/sets/8/et-open/*.rules        one folder for each source
//! DIR/sets/8/sources.json           where they come from
//! ```
//! A set is made beside the others and written out before `current` is turned to it, by one rename. Whatever fails before that leaves
//! everything as it was. One update runs at a time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bulkhead_agent::{DEFAULT_CONFIG, load_config, rule_paths, rule_variables};
use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::Config;
use bulkhead_rules::{Beside, Diagnostic, Rule, Severity};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::rulearchive::{Caps, unpack};
use crate::ruleset::{library_of, text_of};
use crate::rulesource::{Checksum, Fetched, Published, SOURCES_FILE, fetch, is_url, published, read};
use crate::table::{Cell, Table};

const DIR: &str = "/var/lib/bulkhead/rules";
const DEFAULT_SOURCE: &str = "et/open";
/// Mistakes that a refusal tells.
const MISTAKES_TOLD_MAX: usize = 10;
/// Sources in one set.
const SOURCES_MAX: usize = 64;

/// Fetch published rule sets and use them, or go back to what was used before
///
/// Without `--source`: those that are in use, from where they came, or Emerging Threats Open. A set that is damaged or does not parse
/// is refused as a whole, and everything stays as it was.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// A name of the list, an address, or a file: an archive (tar, tar.gz) or plain rules
    #[arg(long, value_name = "NAME|URL|FILE")]
    source: Option<String>,

    /// What the source is called here
    #[arg(long, requires = "source", value_name = "NAME")]
    name: Option<String>,

    /// The SHA-256 that it must have
    #[arg(long, requires = "source", value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,

    /// Take this source out
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source", "undo", "list"])]
    remove: Option<String>,

    /// Back to the set that was used before
    #[arg(long, conflicts_with_all = ["source", "list"])]
    undo: bool,

    /// Which sources there are, and which are in use
    #[arg(long, conflicts_with = "source")]
    list: bool,

    /// Let the running agent read its rules again; when it refuses them, go back
    #[arg(long)]
    reload: bool,

    /// Where sets are kept
    #[arg(long, value_name = "FOLDER", default_value = DIR)]
    dir: PathBuf,

    /// Sources of one's own: a line `name url [md5|sha256]` for each
    #[arg(long, value_name = "FILE", default_value = SOURCES_FILE)]
    sources: PathBuf,

    /// The agent's configuration: variables, and rules that are disabled
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// A source that is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Used {
    name: String,
    folder: String,
    /// Address or path.
    origin: String,
    sha256: String,
    checksum: Checksum,
    files: usize,
    rules: usize,
    unsupported: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Set {
    sources: Vec<Used>,
}

/// The object behind `rules update -o json`.
#[derive(Debug, Serialize)]
struct Updated {
    /// Whether `current` was turned.
    changed: bool,
    reloaded: bool,
    sources: Vec<Used>,
}

/// What is asked for: its name here, where it is, what its publisher puts beside it.
struct Wanted {
    name: String,
    origin: String,
    scheme: Option<Checksum>,
}

pub fn run(args: &UpdateArgs, context: &mut Context) -> Result<Exit, Failure> {
    if args.list {
        return list(args, context);
    }
    let keep = Keep::open(&args.dir)?;
    let updated = if args.undo {
        keep.undo()?;
        Updated { changed: true, reloaded: false, sources: keep.current()?.sources }
    } else if let Some(name) = &args.remove {
        let mut set = keep.current()?;
        let before = set.sources.len();
        set.sources.retain(|used| used.name != *name && used.folder != *name);
        if set.sources.len() == before {
            return Err(Failure::usage(
                format!("`{}` is not in use", printable(name)),
                "`bulkhead rules update --list` has those that are",
            ));
        }
        keep.put(&set, &BTreeMap::new())?;
        Updated { changed: true, reloaded: false, sources: set.sources }
    } else {
        update(args, &keep)?
    };
    let updated = reload(args, &keep, updated, context)?;
    if context.json() {
        context.out.json(&updated)?;
        return Ok(Exit::Ok);
    }
    for used in &updated.sources {
        let by = match used.checksum {
            Checksum::Given => "the SHA-256 given",
            Checksum::Sha256 => "its SHA-256",
            Checksum::Md5 => "its MD5",
            Checksum::None => "no checksum",
        };
        let unsupported = if used.unsupported == 0 { String::new() } else { format!(" ({} unsupported)", used.unsupported) };
        let (name, rules, files) = (printable(&used.name), used.rules, used.files);
        context.out.line(&format!("{name}: {rules} rules{unsupported} in {files} files, by {by}"))?;
    }
    context.out.line(match (updated.changed, updated.reloaded) {
        (false, false) => "nothing new",
        (_, true) => "in force",
        (true, false) => "in force after `bulkhead reload`",
    })?;
    Ok(Exit::Ok)
}

fn list(args: &UpdateArgs, context: &mut Context) -> Result<Exit, Failure> {
    let published = published(&args.sources)?;
    let used = Set::of(&args.dir.join("current"))?.sources;
    if context.json() {
        context.out.json(&serde_json::json!({ "published": published, "used": used }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["NAME", "USED", "RULES", "FROM", "WHAT"]);
    for one in &published {
        let found = used.iter().find(|used| used.name == one.name);
        table.row(row(&one.name, found, &one.url, &one.summary));
    }
    for one in used.iter().filter(|used| !published.iter().any(|known| known.name == used.name)) {
        table.row(row(&one.name, Some(one), &one.origin, "given by hand"));
    }
    let (style, width) = (context.out.style(), context.out.width());
    context.out.lines(table.render(style, width))?;
    Ok(Exit::Ok)
}

fn row(name: &str, used: Option<&Used>, from: &str, what: &str) -> [Cell; 5] {
    let rules = used.map_or_else(|| "-".to_owned(), |used| used.rules.to_string());
    [Cell::new(name), if used.is_some() { "yes" } else { "no" }.into(), Cell::number(rules), from.into(), what.into()]
}

fn update(args: &UpdateArgs, keep: &Keep) -> Result<Updated, Failure> {
    let known = published(&args.sources)?;
    let mut set = keep.current()?;
    let config = load_config(&args.config)
        .map_err(|error| Failure::usage(error.to_string(), "`bulkhead policy check` looks at a configuration"))?
        .config;
    let mut texts: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for wanted in wanted(args, &known, &set)? {
        let fetched = if is_url(&wanted.origin) {
            fetch(&wanted.origin, wanted.scheme, args.sha256.as_deref())?
        } else {
            read(Path::new(&wanted.origin), args.sha256.as_deref())?
        };
        let folder = folder(&wanted.name)?;
        let place = set.sources.iter().position(|used| used.folder == folder);
        if let Some(used) = place.and_then(|place| set.sources.get(place)) {
            if used.name != wanted.name {
                return Err(Failure::usage(format!("`{}` is kept where `{}` is", wanted.name, used.name), "give it another `--name`"));
            }
            if used.sha256 == fetched.sha256 {
                continue;
            }
        }
        let files = unpack(&fetched.file, &fetched.bytes, Caps::default())
            .map_err(|error| Failure::usage(format!("`{}`: {error}", wanted.origin), "nothing was changed"))?;
        let used = checked(&wanted, folder.clone(), &fetched, &files, &config)?;
        let room = set.sources.len() < SOURCES_MAX;
        match place.and_then(|place| set.sources.get_mut(place)) {
            Some(place) => *place = used,
            None if room => set.sources.push(used),
            None => return Err(Failure::usage(format!("there are {SOURCES_MAX} sources already"), "take one out with `--remove`")),
        }
        texts.insert(folder, files);
    }
    let changed = !texts.is_empty();
    if changed {
        keep.put(&set, &texts)?;
    }
    Ok(Updated { changed, reloaded: false, sources: set.sources })
}

fn wanted(args: &UpdateArgs, known: &[Published], set: &Set) -> Result<Vec<Wanted>, Failure> {
    let of_list = |name: &str| {
        known.iter().find(|one| one.name == name).map(|one| Wanted {
            name: one.name.clone(),
            origin: one.url.clone(),
            scheme: Some(one.checksum),
        })
    };
    let Some(source) = &args.source else {
        // Files are where they were when they were given; addresses are asked again.
        let mut all: Vec<Wanted> = Vec::new();
        for used in &set.sources {
            let by_hand = || Wanted { name: used.name.clone(), origin: used.origin.clone(), scheme: None };
            match of_list(&used.name).filter(|_| is_url(&used.origin)) {
                Some(wanted) => all.push(wanted),
                None if is_url(&used.origin) => all.push(by_hand()),
                None => {}
            }
        }
        if set.sources.is_empty() {
            all.extend(of_list(DEFAULT_SOURCE));
        }
        return Ok(all);
    };
    let name = |origin: &str| {
        let file = origin.split(['?', '#']).next().unwrap_or(origin).rsplit('/').next().unwrap_or_default();
        let stem = file.split('.').next().unwrap_or_default().to_owned();
        args.name.clone().unwrap_or(stem)
    };
    if let Some(mut wanted) = of_list(source) {
        if let Some(name) = &args.name {
            wanted.name.clone_from(name);
        }
        return Ok(vec![wanted]);
    }
    if is_url(source) {
        return Ok(vec![Wanted { name: name(source), origin: source.clone(), scheme: None }]);
    }
    let path = Path::new(source);
    if path.is_file() {
        let origin = fs::canonicalize(path).map_err(|error| Failure::File(path.to_owned(), error))?.display().to_string();
        return Ok(vec![Wanted { name: name(source), origin, scheme: None }]);
    }
    let message = format!("`{}` is neither a source of the list nor an address nor a file", printable(source));
    Err(Failure::usage(message, "`bulkhead rules update --list` has the list"))
}

/// A name as a folder's.
fn folder(name: &str) -> Result<String, Failure> {
    let folder = name.replace('/', "-");
    let good = !folder.is_empty()
        && folder.len() <= 64
        && !folder.starts_with('.')
        && folder.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if good {
        Ok(folder)
    } else {
        Err(Failure::usage(format!("`{}` is not a name", printable(name)), "give it a `--name` of letters, digits and `-_.`"))
    }
}

/// As the agent will load it, with its own classes and the operator's edits. A single wrong rule refuses the source.
fn checked(wanted: &Wanted, folder: String, fetched: &Fetched, files: &BTreeMap<String, String>, config: &Config) -> Result<Used, Failure> {
    let paths = rule_paths(config).map_err(|error| Failure::usage(error.to_string(), "see `rules` in the configuration"))?;
    let mut beside: Vec<(Beside, String, String)> = Vec::new();
    for (kind, path) in &paths.beside {
        beside.push((*kind, path.display().to_string(), text_of(path)?));
    }
    for (name, kind) in [("classification.config", Beside::Classification), ("reference.config", Beside::Reference)] {
        beside.extend(files.get(name).map(|text| (kind, name.to_owned(), text.clone())));
    }
    let library = library_of(&beside);
    let mut mistakes: Vec<(String, Diagnostic)> = Vec::new();
    let ours = |name: &String| files.contains_key(name);
    mistakes.extend(library.diagnostics.iter().filter(|(name, found)| ours(name) && found.severity == Severity::Error).cloned());
    let mut parsed: Vec<(String, Vec<Rule>)> = Vec::new();
    let mut unsupported = 0;
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".rules")) {
        let (file, _) = library.rules(name, text);
        unsupported += file.counts.unsupported;
        mistakes.extend(file.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).map(|found| (name.clone(), found)));
        parsed.push((name.clone(), file.rules));
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, rules)| Source { name, rules }).collect();
    let compiled = Ruleset::compile(&sources, &rule_variables(config), &library.classification);
    for (number, found) in compiled.diagnostics {
        match found.severity {
            Severity::Error => mistakes.push((parsed.get(number).map(|(name, _)| name.clone()).unwrap_or_default(), found)),
            Severity::Unsupported => unsupported += 1,
            Severity::Warning => {}
        }
    }
    let rules = compiled.ruleset.len();
    let refuse = |why: String| {
        let help = "nothing was changed; `bulkhead rules disable` leaves out a rule, also a wrong one";
        Err(Failure::usage(format!("`{}` is refused: {why}", wanted.origin), help))
    };
    if !mistakes.is_empty() {
        let told = mistakes.iter().take(MISTAKES_TOLD_MAX).map(|(file, found)| format!("\n  {file}: {found}")).collect::<String>();
        let more = mistakes.len().saturating_sub(MISTAKES_TOLD_MAX);
        let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
        return refuse(format!("{} of its rules or lines are wrong{told}{more}", mistakes.len()));
    }
    if rules + unsupported == 0 {
        return refuse("there is no rule in it".to_owned());
    }
    Ok(Used {
        name: wanted.name.clone(),
        folder,
        origin: wanted.origin.clone(),
        sha256: fetched.sha256.clone(),
        checksum: fetched.checksum,
        files: parsed.len(),
        rules,
        unsupported,
    })
}

fn reload(args: &UpdateArgs, keep: &Keep, mut updated: Updated, context: &Context) -> Result<Updated, Failure> {
    if !args.reload || !updated.changed {
        return Ok(updated);
    }
    match context.client().and_then(|client| client.reload().map_err(Failure::from)) {
        Ok(_) => updated.reloaded = true,
        Err(failure) => {
            keep.back()?;
            return Err(failure);
        }
    }
    Ok(updated)
}

/// The folder, held by this process alone.
struct Keep {
    dir: PathBuf,
    _lock: File,
}

impl Keep {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::File(dir.to_owned(), error);
        fs::create_dir_all(dir.join("sets")).map_err(failed)?;
        let lock = File::create(dir.join(".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Failure::Unable("another update is running".to_owned(), Some("wait until it has ended".to_owned())))
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn current(&self) -> Result<Set, Failure> {
        Set::of(&self.dir.join("current"))
    }

    /// Makes a set of sources, with new texts for some of them, and turns `current` to it.
    fn put(&self, set: &Set, texts: &BTreeMap<String, BTreeMap<String, String>>) -> Result<(), Failure> {
        let number = 1 + self.numbers().into_iter().max().unwrap_or(0);
        let fresh = self.dir.join("sets").join(number.to_string());
        let result = self.fill(&fresh, set, texts).and_then(|()| self.turn(&format!("sets/{number}")));
        match result {
            Ok(()) => {
                self.prune();
                Ok(())
            }
            Err(error) => {
                _ = fs::remove_dir_all(&fresh);
                Err(Failure::File(fresh, error))
            }
        }
    }

    fn fill(&self, fresh: &Path, set: &Set, texts: &BTreeMap<String, BTreeMap<String, String>>) -> io::Result<()> {
        fs::create_dir(fresh)?;
        for used in &set.sources {
            let folder = fresh.join(&used.folder);
            fs::create_dir(&folder)?;
            match texts.get(&used.folder) {
                Some(files) => files.iter().try_for_each(|(name, text)| write(&folder.join(name), text.as_bytes()))?,
                None => {
                    for entry in fs::read_dir(self.dir.join("current").join(&used.folder))? {
                        let entry = entry?;
                        write(&folder.join(entry.file_name()), &fs::read(entry.path())?)?;
                    }
                }
            }
            File::open(&folder)?.sync_all()?;
        }
        let text = serde_json::to_vec_pretty(set).map_err(io::Error::other)?;
        write(&fresh.join("sources.json"), &text)?;
        File::open(fresh)?.sync_all()
    }

    /// `current` becomes `previous`, and `target` current. Between the two renames both name the old set.
    fn turn(&self, target: &str) -> io::Result<()> {
        if let Ok(old) = fs::read_link(self.dir.join("current")) {
            self.link(&old, "previous")?;
        }
        self.link(Path::new(target), "current")?;
        File::open(&self.dir)?.sync_all()
    }

    fn undo(&self) -> Result<(), Failure> {
        let previous = fs::read_link(self.dir.join("previous"));
        let previous = previous.ok().filter(|link| self.dir.join(link).is_dir());
        let Some(previous) = previous.as_deref().and_then(Path::to_str) else {
            return Err(Failure::usage(
                "there is no set to go back to",
                "the first update has none before it; `--remove` takes a source out",
            ));
        };
        self.turn(previous).map_err(|error| Failure::File(self.dir.clone(), error))
    }

    /// As before the last [`Self::put`], also when that was the first.
    fn back(&self) -> Result<(), Failure> {
        if self.dir.join("previous").exists() {
            return self.undo();
        }
        fs::remove_file(self.dir.join("current")).map_err(|error| Failure::File(self.dir.clone(), error))
    }

    fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        let fresh = self.dir.join(format!(".{name}"));
        _ = fs::remove_file(&fresh);
        std::os::unix::fs::symlink(target, &fresh)?;
        fs::rename(&fresh, self.dir.join(name))
    }

    fn numbers(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.dir.join("sets")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect()
    }

    /// Sets that nothing points to any more.
    fn prune(&self) {
        let kept: Vec<PathBuf> = ["current", "previous"].iter().filter_map(|name| fs::read_link(self.dir.join(name)).ok()).collect();
        for number in self.numbers() {
            let set = Path::new("sets").join(number.to_string());
            if !kept.contains(&set) {
                _ = fs::remove_dir_all(self.dir.join(set));
            }
        }
    }
}

impl Set {
    fn of(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("sources.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let set: Self = serde_json::from_slice(&bytes).map_err(|error| {
                    Failure::usage(format!("`{}`: {error}", path.display()), "take the link `current` away and update anew")
                })?;
                // The names become paths.
                set.sources.iter().try_for_each(|used| folder_is(&used.folder))?;
                Ok(set)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::File(path, error)),
        }
    }
}

fn folder_is(name: &str) -> Result<(), Failure> {
    folder(name).map(|_| ())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sha256(text: &str) -> Result<String, String> {
    let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good { Ok(text.to_ascii_lowercase()) } else { Err("it is 64 hexadecimal digits".to_owned()) }
}
