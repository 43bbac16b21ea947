//! One case of suricata-verify: its description, and its run.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bulkhead_eve::capture;
use bulkhead_eve::replay::{Job, Loaded, Replay};
use bulkhead_eve::settings::{Files, Settings};
use bulkhead_eve::yaml::{self, Yaml};
use bulkhead_ips::Checksums;
use serde_json::Value;

use crate::check::{self, Outcome};

/// The version of Suricata whose behaviour is followed.
const VERSION: u32 = 9;
/// What the reference engine may be built with and is here too.
const FEATURES: &[&str] = &["HAVE_JA3", "HAVE_JA4", "HAVE_LIBJANSSON", "HAVE_NSS", "NFQUEUE", "RUST"];
/// Bytes of all lines of one case.
const LINE_BYTES_MAX: usize = 256 << 20;

/// A line of `cases.tsv`.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub class: String,
    pub capture: String,
    pub rules: String,
}

impl Row {
    pub fn all(root: &Path) -> Vec<Self> {
        let table = std::fs::read_to_string(root.join("cases.tsv")).expect("cases.tsv");
        let row = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let at = |index: usize| fields.get(index).copied().unwrap_or_default().to_owned();
            Self { name: at(0), class: at(2), capture: at(3), rules: at(4) }
        };
        table.lines().skip(1).map(row).collect()
    }
}

/// What came of a case.
#[derive(Debug)]
pub enum Result {
    Pass,
    /// Says what is missing: a thing that this program does not have on purpose.
    NotBuilt(String),
    Fail(String),
    /// The suite itself says that it does not apply to this version.
    Skipped,
}

/// How a case is run.
struct Case {
    folder: PathBuf,
    settings: Settings,
    inline: bool,
    ignore_checksums: bool,
    /// Only the rules are looked at.
    rules_only: bool,
    /// A rule that does not load ends the run (`--init-errors-fatal`): always, unless the case has a command of its own.
    fatal: bool,
    rules: Vec<PathBuf>,
    captures: Vec<PathBuf>,
    exit_code: Option<u64>,
    checks: Vec<Yaml>,
}

/// Files that settings name: of the case, or of the source tree of the reference engine.
struct Folder<'a> {
    case: &'a Path,
    shared: &'a Path,
}

impl Files for Folder<'_> {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let plain = Path::new(name).file_name()?;
        if plain.to_string_lossy().starts_with("suricata-") {
            return Some(Vec::new());
        }
        [self.case.join(name), self.case.join(plain), self.shared.join(plain)].iter().find_map(|path| std::fs::read(path).ok())
    }
}

pub struct Ran {
    pub result: Result,
    /// Checks that were run, and those that were left out (`shell`, other versions).
    pub checked: usize,
    pub left_out: usize,
    pub report: String,
}

pub fn run(root: &Path, row: &Row, verbose: bool) -> Ran {
    let mut ran = Ran { result: Result::Pass, checked: 0, left_out: 0, report: String::new() };
    let folder = root.join("tests").join(&row.name);
    let text = std::fs::read_to_string(folder.join("test.yaml")).unwrap_or_default();
    let described = match yaml::read(&text) {
        Ok(described) => described,
        Err(error) => {
            ran.result = Result::Fail(format!("test.yaml: {error}"));
            return ran;
        }
    };
    if let Some(why) = described.get("requires").and_then(unmet) {
        ran.result = why;
        return ran;
    }
    let case = match Case::read(root, row, folder, &described) {
        Ok(case) => case,
        Err(why) => {
            ran.result = why;
            return ran;
        }
    };
    case.run(root, verbose, &mut ran);
    ran
}

/// Why a case or check does not apply.
pub fn unmet(requires: &Yaml) -> Option<Result> {
    let major = |text: &str| text.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    for (key, value) in requires.entries() {
        let text = value.text().unwrap_or_default();
        let met = match key.as_str() {
            "min-version" | "gt-version" => VERSION >= major(text),
            "lt-version" => VERSION < major(text),
            "version" => VERSION == major(text),
            "features" => {
                let missing = value.items().iter().filter_map(Yaml::text).find(|feature| !FEATURES.contains(feature));
                match missing {
                    Some(feature) => return Some(Result::NotBuilt(format!("feature {feature}"))),
                    None => true,
                }
            }
            _ => true,
        };
        if !met {
            return Some(Result::Skipped);
        }
    }
    None
}

impl Case {
    fn read(root: &Path, row: &Row, folder: PathBuf, described: &Yaml) -> std::result::Result<Self, Result> {
        let tests = root.join("tests");
        let shared = root.join("../rules/suricata-events");
        let mut words: Vec<String> = Vec::new();
        for argument in described.get("args").map(Yaml::items).unwrap_or_default() {
            words.extend(argument.text().unwrap_or_default().split_whitespace().map(str::to_owned));
        }
        let command = described.get("command").and_then(Yaml::text);
        if let Some(command) = command {
            words.extend(command.replace(['"', '\\', '\''], " ").split_whitespace().map(str::to_owned));
        }
        let own = folder.join("suricata.yaml");
        let mut config = own.exists().then_some(own);
        let mut case = Self {
            settings: Settings::builtin(),
            inline: false,
            ignore_checksums: false,
            rules_only: false,
            fatal: command.is_none_or(|command| command.contains("--init-errors-fatal") || command.contains(" -T")),
            rules: if row.rules.is_empty() { Vec::new() } else { vec![tests.join(&row.rules)] },
            captures: if row.capture.is_empty() { Vec::new() } else { vec![tests.join(&row.capture)] },
            exit_code: described.get("exit-code").and_then(Yaml::text).and_then(|code| code.parse().ok()),
            checks: described.get("checks").map(Yaml::items).unwrap_or_default().to_vec(),
            folder: folder.clone(),
        };
        let place = |word: &str| {
            word.replace("${TEST_DIR}/", "").replace("${TEST_DIR}", ".").replace("${OUTPUT_DIR}/", "").replace("${SRCDIR}/", "")
        };
        let mut set = Vec::new();
        let mut words = words.into_iter().map(|word| place(&word));
        while let Some(word) = words.next() {
            match word.as_str() {
                "-k" => case.ignore_checksums = words.next().as_deref() == Some("none"),
                "--simulate-ips" => case.inline = true,
                "-T" | "--engine-analysis" => case.rules_only = true,
                "-c" => {
                    let named = folder.join(words.next().unwrap_or_default());
                    config = named.exists().then_some(named);
                }
                "-S" | "-s" => case.rules = vec![folder.join(words.next().unwrap_or_default())],
                "-r" => {
                    let named = folder.join(words.next().unwrap_or_default());
                    case.captures = if named.is_file() { vec![named] } else { Vec::new() };
                }
                "--set" => set.push(words.next().unwrap_or_default()),
                _ => {}
            }
        }
        if let Some(config) = config {
            let text = std::fs::read_to_string(&config).map_err(|error| Result::Fail(error.to_string()))?;
            let files = Folder { case: &folder, shared: &shared };
            let read = Settings::read(&text, &files).map_err(|error| Result::Fail(format!("suricata.yaml: {error}")))?;
            // Files of the suite's own that hold what is the default of some version.
            let base = if text.contains("etc/suricata-") { Settings::builtin() } else { Settings::default() };
            case.settings = base.under(read);
        }
        for (name, value) in described.get("env").map(Yaml::entries).unwrap_or_default() {
            case.settings.set(&format!("env.{name}"), value.text().unwrap_or_default());
        }
        for pair in set {
            match pair.split_once('=') {
                Some((key, value)) => case.settings.set(key.trim(), value.trim()),
                None => return Err(Result::Fail(format!("--set {pair}"))),
            }
        }
        if case.settings.has("firewall") && case.settings.is("firewall.enabled") != Some(false) {
            return Err(Result::NotBuilt("firewall mode".to_owned()));
        }
        Ok(case)
    }

    fn run(&self, root: &Path, verbose: bool, ran: &mut Ran) {
        let shared = root.join("../rules/suricata-events");
        let files = Folder { case: &self.folder, shared: &shared };
        let rules: Vec<(String, String)> = self
            .rules
            .iter()
            .filter_map(|path| {
                Some((path.file_name()?.to_string_lossy().into_owned(), String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned()))
            })
            .collect();
        let analysis = |check: &Yaml| {
            let name = check.get("filter").and_then(|filter| filter.get("filename")).and_then(Yaml::text);
            matches!(name, Some("rules.json" | "rule_group.json" | "patterns.json"))
        };
        if self.checks.iter().any(analysis) {
            ran.result = Result::NotBuilt("the reference engine's analysis of its own groups of rules".to_owned());
            return;
        }
        if rules.iter().any(|(_, text)| text.contains("lua:") || text.contains("luaxform:")) {
            ran.result = Result::NotBuilt("Lua".to_owned());
            return;
        }
        let job = Job {
            settings: &self.settings,
            rules: &rules,
            beside: Vec::new(),
            inline: self.inline,
            checksums: self.ignore_checksums.then_some(Checksums::Ignore),
            files: &files,
        };
        let (mut replay, loaded) = Replay::new(job);
        if verbose {
            for (file, diagnostic) in &loaded.diagnostics {
                ran.report += &format!("{file}:{}: {} {}\n", diagnostic.span.line, diagnostic.code.id(), diagnostic.message);
            }
        }
        if let Some(why) = self.rules_wrong(&loaded) {
            ran.result = Result::Fail(why);
            return;
        }
        let mut logs: BTreeMap<String, Vec<Value>> = replay.logs().iter().map(|log| (log.file.clone(), Vec::new())).collect();
        if !self.rules_only && self.exit_code.unwrap_or(0) == 0 {
            let names: Vec<String> = replay.logs().iter().map(|log| log.file.clone()).collect();
            let mut bytes = 0;
            let mut keep = |replay: &mut Replay| {
                for (number, line) in replay.lines() {
                    if bytes > LINE_BYTES_MAX {
                        return Err("more lines than are kept".to_owned());
                    }
                    bytes += 512;
                    logs.entry(names[number].clone()).or_default().push(line);
                }
                Ok(())
            };
            for path in &self.captures {
                let Ok(file) = File::open(path) else {
                    ran.result = Result::Fail(format!("{} cannot be opened", path.display()));
                    return;
                };
                let read = capture::read(file, |packet| {
                    replay.packet(packet);
                    keep(&mut replay)
                });
                if let Err(why) = read {
                    ran.result = Result::Fail(why.to_string());
                    return;
                }
            }
            replay.finish();
            if let Err(why) = keep(&mut replay) {
                ran.result = Result::Fail(why);
                return;
            }
        }
        if verbose {
            for (name, lines) in &logs {
                for line in lines {
                    ran.report += &format!("{name}: {line}\n");
                }
            }
        }
        let of = |wanted: bool| {
            loaded.diagnostics.iter().filter(|(_, found)| (found.severity == bulkhead_rules::Severity::Warning) == wanted).count()
        };
        let said = check::Said { refused: of(false), warned: of(true) };
        let mut wrong = Vec::new();
        for check in &self.checks {
            match check::run(check, &logs, self.rules_only, said) {
                Outcome::Holds => ran.checked += 1,
                Outcome::LeftOut => ran.left_out += 1,
                Outcome::Fails(why) => {
                    ran.checked += 1;
                    wrong.push(why);
                }
            }
        }
        if let Some(first) = wrong.first() {
            let more = if wrong.len() > 1 { format!(" (and {} more)", wrong.len() - 1) } else { String::new() };
            ran.result = Result::Fail(format!("{}{more}", first.short));
            for why in wrong {
                ran.report += &format!("FAILS {}\n{}", why.short, why.long);
            }
        }
    }

    /// Suricata is run so that a rule which does not load ends it with exit code 1.
    fn rules_wrong(&self, loaded: &Loaded) -> Option<String> {
        let first = || {
            let of = |(_, found): &&(String, bulkhead_rules::Diagnostic)| found.severity != bulkhead_rules::Severity::Warning;
            loaded.diagnostics.iter().find(of).map(|(_, found)| format!("{} {}", found.code.id(), found.message)).unwrap_or_default()
        };
        match self.exit_code.unwrap_or(0) {
            0 if !self.fatal => None,
            0 if loaded.unsupported > 0 => Some(format!("a rule is not supported: {}", first())),
            0 if loaded.wrong > 0 => Some(format!("a rule is refused: {}", first())),
            0 => None,
            _ if loaded.wrong > 0 => None,
            _ if loaded.unsupported > 0 => Some(format!("refused as unsupported, not as wrong: {}", first())),
            code => Some(format!("exit code {code} is expected, and all rules load")),
        }
    }
}
