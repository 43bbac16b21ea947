//! `bulkhead rules list`, `search`, `show`, `enable`, `disable`: the rules that the configuration names, and which of them are used.
//!
//! They read files as the agent does and need none that runs. `enable` and `disable` write to the files that rule-update tools
//! use too; what is in force changes with the next reload.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_agent::{DEFAULT_CONFIG, RulePaths, load_config, rule_paths, rule_variables};
use bulkhead_ips::{Ruleset, Source};
use bulkhead_policy::Config;
use bulkhead_rules::{Library, Rule, RuleFile, Severity, edit, format};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, printable};
use crate::ruleset::{library, replace, text_of};
use crate::table::{Cell, Table};

/// Where rules come from.
#[derive(Debug, clap::Args)]
pub struct FromArgs {
    /// Rule files instead of those that the configuration names
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Which rules are to be used.
#[derive(Debug, clap::Args)]
pub struct SwitchArgs {
    /// A sid, gid:sid, re:TEXT, group:FILE, metadata:KEY or classtype:NAME
    #[arg(required = true, value_name = "RULES")]
    matchers: Vec<String>,

    /// Let the running agent read its rules again
    #[arg(long)]
    reload: bool,

    #[command(flatten)]
    from: FromArgs,
}

/// One rule as `-o json` has it.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    sid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<u32>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classtype: Option<String>,
    msg: String,
    file: String,
    line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Loaded,
    Unsupported,
    Wrong,
    Disabled,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Unsupported => "unsupported",
            Self::Wrong => "wrong",
            Self::Disabled => "disabled",
        }
    }
}

/// The object behind `rules show -o json`, one for each rule of that number.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    category: Option<String>,
    priority: Option<u8>,
    references: Vec<String>,
    metadata: BTreeMap<String, Vec<String>>,
    /// Why it is not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// In its canonical text, as edited.
    text: String,
}

/// All that the configuration names, as the agent would have it.
struct Shelf {
    paths: RulePaths,
    library: Library,
    files: Vec<(String, RuleFile)>,
    /// Of parsed rules that the engine does not take: by file's number and line, how, and why.
    refused: BTreeMap<(usize, u32), (State, String)>,
}

pub fn list(from: &FromArgs, state: Option<&str>, context: &mut Context) -> Result<Exit, Failure> {
    let shelf = Shelf::open(from)?;
    let listed: Vec<Listed> = shelf.all().into_iter().filter(|one| state.is_none_or(|state| one.state.name() == state)).collect();
    write(&listed, context)?;
    Ok(Exit::Ok)
}

pub fn search(from: &FromArgs, words: &[String], context: &mut Context) -> Result<Exit, Failure> {
    let shelf = Shelf::open(from)?;
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let mut found: Vec<Listed> = Vec::new();
    for (number, (name, file)) in shelf.files.iter().enumerate() {
        for (state, rule) in rules(file) {
            let text = format::rule(rule).to_lowercase();
            if words.iter().all(|word| text.contains(word.as_str())) {
                found.push(shelf.listed(number, name, state, rule));
            }
        }
    }
    write(&found, context)?;
    Ok(if found.is_empty() { Exit::Findings } else { Exit::Ok })
}

pub fn show(from: &FromArgs, sid: u32, context: &mut Context) -> Result<Exit, Failure> {
    let shelf = Shelf::open(from)?;
    let mut shown: Vec<Shown> = Vec::new();
    for (number, (name, file)) in shelf.files.iter().enumerate() {
        for (state, rule) in rules(file).filter(|(_, rule)| rule.signature.sid == sid) {
            shown.push(shelf.shown(number, name, state, rule));
        }
        for found in file.diagnostics.iter().filter(|found| found.sid == Some(sid) && found.severity == Severity::Error) {
            let listed = wrong(name, Some(sid), found.span.line);
            let why = Some(found.message.clone());
            shown.push(Shown {
                listed,
                category: None,
                priority: None,
                references: Vec::new(),
                metadata: BTreeMap::new(),
                why,
                text: String::new(),
            });
        }
    }
    if shown.is_empty() {
        return Err(Failure::usage(format!("no rule has the sid {sid}"), "`bulkhead rules search` finds rules by what stands in them"));
    }
    if context.json() {
        context.out.json(&shown)?;
        return Ok(Exit::Ok);
    }
    for one in &shown {
        let lines = told(one);
        context.out.lines(lines)?;
    }
    Ok(Exit::Ok)
}

/// `used`: whether the rules are to be used from now on.
pub fn switch(args: &SwitchArgs, used: bool, context: &mut Context) -> Result<Exit, Failure> {
    let config = configuration(&args.from)?;
    let mut lines: Vec<(String, edit::Matcher)> = Vec::new();
    for text in &args.matchers {
        let (found, diagnostics) = edit::matchers(text);
        if let Some(problem) = diagnostics.first() {
            let help = problem.help.clone().unwrap_or_else(|| "write a sid, gid:sid, re:, group:, metadata: or classtype:".to_owned());
            return Err(Failure::usage(format!("`{}`: {}", printable(text), problem.message), help));
        }
        lines.extend(found.into_iter().map(|matcher| (text.trim().to_owned(), matcher)));
    }
    let shelf = Shelf::open(&args.from)?;
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (text, matcher) in &lines {
        let count = shelf.matched(matcher);
        counts.push((text.clone(), count));
        if count == 0 {
            return Err(Failure::usage(
                format!("no rule is `{}`", printable(text)),
                "`bulkhead rules list` has them all; nothing was changed",
            ));
        }
    }
    let (enable, disable) = (&config.rules.enable_files, &config.rules.disable_files);
    let (to, other, key) = if used { (enable, disable, "enable-files") } else { (disable, enable, "disable-files") };
    let Some(to) = to.first() else {
        return Err(Failure::usage(format!("`rules.{key}` of the configuration names no file"), "name one"));
    };
    let texts: Vec<&str> = lines.iter().map(|(text, _)| text.as_str()).collect();
    // What contradicts goes first: between the two writes the rule is as it was.
    for file in other.iter().map(|path| Path::new(path.as_str())).filter(|path| path.is_file()) {
        let old = text_of(file)?;
        let new: String = old.split_inclusive('\n').filter(|line| !texts.contains(&line.trim())).collect();
        if new != old {
            replace(file, &new).map_err(|error| Failure::File(file.to_owned(), error))?;
        }
    }
    let to = Path::new(to.as_str());
    let old = if to.exists() { text_of(to)? } else { String::new() };
    let mut new = old.clone();
    for text in texts {
        if !new.lines().any(|line| line.trim() == text) {
            if !new.is_empty() && !new.ends_with('\n') {
                new.push('\n');
            }
            new.push_str(text);
            new.push('\n');
        }
    }
    if new != old {
        replace(to, &new).map_err(|error| Failure::File(to.to_owned(), error))?;
    }
    if args.reload {
        context.client()?.reload()?;
    }
    if context.json() {
        let changed: BTreeMap<&str, usize> = counts.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        let file = to.display().to_string();
        context.out.json(&serde_json::json!({ "used": used, "rules": changed, "file": file, "reloaded": args.reload }))?;
        return Ok(Exit::Ok);
    }
    for (text, count) in counts {
        let text = printable(&text);
        context.out.line(&format!("{text}: {} {count} of the rules, by {}", if used { "enables" } else { "disables" }, to.display()))?;
    }
    if !args.reload {
        context.out.line("in force after `bulkhead reload`")?;
    }
    Ok(Exit::Ok)
}

fn configuration(from: &FromArgs) -> Result<Config, Failure> {
    let loaded =
        load_config(&from.config).map_err(|error| Failure::usage(error.to_string(), "`bulkhead policy check` looks at a configuration"))?;
    Ok(loaded.config)
}

impl Shelf {
    fn open(from: &FromArgs) -> Result<Self, Failure> {
        let config = configuration(from)?;
        let mut paths = rule_paths(&config).map_err(|error| Failure::usage(error.to_string(), "see `rules` in the configuration"))?;
        if !from.files.is_empty() {
            paths.rules.clone_from(&from.files);
            paths.built_in = &[];
        }
        let library = library(paths.beside.iter().map(|(kind, path)| (*kind, path)))?;
        let mut files = Vec::new();
        for text in texts(&paths) {
            let (name, text) = text?;
            let (file, _) = library.rules(&name, &text);
            files.push((name, file));
        }
        let sources: Vec<Source<'_>> = files.iter().map(|(name, file)| Source { name, rules: &file.rules }).collect();
        let compiled = Ruleset::compile(&sources, &rule_variables(&config), &library.classification);
        let mut refused: BTreeMap<(usize, u32), (State, String)> = BTreeMap::new();
        for (number, found) in compiled.diagnostics {
            let state = match found.severity {
                Severity::Error => State::Wrong,
                Severity::Unsupported => State::Unsupported,
                Severity::Warning => continue,
            };
            refused.insert((number, found.span.line), (state, found.message));
        }
        Ok(Self { paths, library, files, refused })
    }

    /// In the order of files and lines.
    fn all(&self) -> Vec<Listed> {
        let mut all = Vec::new();
        for (number, (name, file)) in self.files.iter().enumerate() {
            let mut listed: Vec<Listed> = rules(file).map(|(state, rule)| self.listed(number, name, state, rule)).collect();
            let errors = file.diagnostics.iter().filter(|found| found.severity == Severity::Error);
            listed.extend(errors.map(|found| wrong(name, found.sid, found.span.line)));
            listed.sort_by_key(|one| one.line);
            all.append(&mut listed);
        }
        all
    }

    fn state(&self, number: usize, state: State, rule: &Rule) -> (State, Option<String>) {
        let parsed = state == State::Loaded;
        match self.refused.get(&(number, rule.span.line)).filter(|_| parsed) {
            Some((state, why)) => (*state, Some(why.clone())),
            None => (state, None),
        }
    }

    fn listed(&self, number: usize, name: &str, state: State, rule: &Rule) -> Listed {
        let signature = &rule.signature;
        Listed {
            gid: Some(signature.gid),
            sid: Some(signature.sid),
            rev: Some(signature.rev),
            state: self.state(number, state, rule).0,
            action: Some(rule.header.action.name()),
            classtype: signature.classtype.clone(),
            msg: signature.msg.clone(),
            file: name.to_owned(),
            line: rule.span.line,
        }
    }

    fn shown(&self, number: usize, name: &str, state: State, rule: &Rule) -> Shown {
        let signature = &rule.signature;
        let class = signature.classtype.as_deref().and_then(|class| self.library.classification.class(class));
        let mut metadata: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in &signature.metadata {
            metadata.entry(key.clone()).or_default().push(value.clone());
        }
        let reference = |(system, value): &(String, String)| {
            self.library.references.address(system, value).unwrap_or_else(|| format!("{system},{value}"))
        };
        let file = self.files.get(number).map(|(_, file)| file);
        let of_parser = file.and_then(|file| {
            file.diagnostics.iter().find(|found| found.span.line == rule.span.line && found.severity == Severity::Unsupported)
        });
        Shown {
            listed: self.listed(number, name, state, rule),
            category: class.map(|class| class.description.clone()),
            priority: signature.priority.or(class.map(|class| class.priority)),
            references: signature.references.iter().map(reference).collect(),
            metadata,
            why: self.state(number, state, rule).1.or_else(|| of_parser.map(|found| found.message.clone())),
            text: format::rule(rule),
        }
    }

    /// Of the rules as published: those that are edited away count too.
    fn matched(&self, matcher: &edit::Matcher) -> usize {
        let mut count = 0;
        for (name, text) in texts(&self.paths).flatten() {
            let published = bulkhead_rules::parse(&text);
            count += rules(&published).filter(|(_, rule)| matcher.matches(&name, &format::rule(rule), Some(rule))).count();
            if let edit::Matcher::Sid { gid: 1, sid } = matcher {
                count += published.diagnostics.iter().filter(|found| found.severity == Severity::Error && found.sid == Some(*sid)).count();
            }
        }
        count
    }
}

/// Name and text of each rule file, those that come with the program first.
fn texts(paths: &RulePaths) -> impl Iterator<Item = Result<(String, Cow<'static, str>), Failure>> {
    let built_in = paths.built_in.iter().map(|(name, text)| Ok(((*name).to_owned(), Cow::Borrowed(*text))));
    built_in.chain(paths.rules.iter().map(|path| Ok((path.display().to_string(), Cow::Owned(text_of(path)?)))))
}

/// All rules of a file that have a tree, in the order of its lines.
fn rules(file: &RuleFile) -> impl Iterator<Item = (State, &Rule)> {
    let states = [(State::Loaded, &file.rules), (State::Unsupported, &file.unsupported), (State::Disabled, &file.disabled)];
    let mut all: Vec<(State, &Rule)> = states.into_iter().flat_map(|(state, rules)| rules.iter().map(move |rule| (state, rule))).collect();
    all.sort_by_key(|(_, rule)| rule.span.start);
    all.into_iter()
}

fn wrong(name: &str, sid: Option<u32>, line: u32) -> Listed {
    Listed {
        gid: None,
        sid,
        rev: None,
        state: State::Wrong,
        action: None,
        classtype: None,
        msg: String::new(),
        file: name.to_owned(),
        line,
    }
}

fn write(listed: &[Listed], context: &mut Context) -> Result<(), Failure> {
    if context.json() {
        return context.out.json(&listed);
    }
    let mut table = Table::new(["SID", "REV", "STATE", "ACTION", "MSG", "WHERE"]);
    for one in listed {
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let colour = match one.state {
            State::Loaded => Colour::Good,
            State::Unsupported => Colour::Warn,
            State::Wrong => Colour::Bad,
            State::Disabled => Colour::Faint,
        };
        let file = Path::new(&one.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        table.row([
            Cell::number(number(one.sid)),
            Cell::number(number(one.rev)),
            Cell::new(one.state.name()).colour(colour),
            one.action.unwrap_or("-").into(),
            Cell::new(&one.msg),
            Cell::new(format!("{file}:{}", one.line)),
        ]);
    }
    let (style, width) = (context.out.style(), context.out.width());
    context.out.lines(table.render(style, width))?;
    let of = |state: State| listed.iter().filter(|one| one.state == state).count();
    let counts = [State::Loaded, State::Unsupported, State::Wrong, State::Disabled].map(|state| format!("{} {}", of(state), state.name()));
    context.out.line(&counts.join(", "))
}

fn told(one: &Shown) -> Vec<String> {
    let listed = &one.listed;
    let mut lines = vec![format!("sid {}  {}", listed.sid.unwrap_or_default(), printable(&listed.msg))];
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<11}{}", printable(&value)));
        }
    };
    say("state", listed.state.name().to_owned());
    say("because", one.why.clone().unwrap_or_default());
    say("where", format!("{}:{}", listed.file, listed.line));
    say("action", listed.action.unwrap_or_default().to_owned());
    let class = one.category.clone().or_else(|| listed.classtype.clone()).unwrap_or_default();
    say(
        "class",
        match one.priority {
            Some(priority) if !class.is_empty() => format!("{class} (priority {priority})"),
            _ => class,
        },
    );
    for reference in &one.references {
        say("reference", reference.clone());
    }
    for (key, values) in &one.metadata {
        say("metadata", format!("{key}: {}", values.join(", ")));
    }
    say("rule", one.text.clone());
    lines
}
