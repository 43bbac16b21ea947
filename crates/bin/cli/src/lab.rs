//! `bulkhead lab`: what protection does, shown with throw-away containers; and `bulkhead run --lab`.
//!
//! While a lab is up its policy stands in two files of the agent's `conf.d`, which go with it: the mode of the lab's
//! workloads, its rules, its one segment rule. Nothing is said about other workloads, and no override is left behind.

use std::io::Read;
use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use bulkhead_api::{Client, ClientError, EventQuery, Protected};
use bulkhead_lab::story::{self, Judge, Step, Story};
use bulkhead_lab::{Lab, LabConfig, LabError, Role, Runtime, servers};
use bulkhead_model::{Event, Mode};
use bulkhead_sys::poll::{Signal, SignalFd, wait_readable};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{Colour, Format, Out, Style, printable};

/// Show with throw-away containers what protection does, then clean up
///
/// Brings up an attacker, a web service with an exploitable endpoint (inert: it only says that it fell) and a database,
/// as Docker containers where Docker answers, else as network namespaces, and attacks. With an agent running, the attack
/// is alerted in monitor mode and blocked in protect mode; without one, it arrives, and the exit code is 3.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Remove what a killed lab left behind
    Clean(Options),
}

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How the containers are made
    #[arg(long, value_enum, default_value_t)]
    runtime: RuntimeWord,

    /// Docker's socket
    #[arg(long, value_name = "PATH", default_value = "/run/docker.sock", hide = true)]
    docker_socket: PathBuf,

    /// Held while a lab is up
    #[arg(long, value_name = "PATH", default_value = "/run/bulkhead-lab.lock", hide = true)]
    lock: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum RuntimeWord {
    /// Docker where it answers, else namespaces
    #[default]
    Auto,
    Docker,
    Namespaces,
}

impl Options {
    fn config(&self) -> Result<LabConfig, Failure> {
        let runtime = match self.runtime {
            RuntimeWord::Auto => Runtime::Auto,
            RuntimeWord::Docker => Runtime::Docker,
            RuntimeWord::Namespaces => Runtime::Namespaces,
        };
        Ok(LabConfig { runtime, docker: self.docker_socket.clone(), lock: self.lock.clone(), ..LabConfig::new().map_err(told)? })
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<Exit, Failure> {
    if let Some(Verb::Clean(options)) = &args.verb {
        return clean(&options.config()?, context);
    }
    let config = args.options.config()?;
    // Blocked before any thread is made: Ctrl-C must not end us with a lab standing.
    let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate]).map_err(|e| Failure::Internal(e.to_string()))?;
    let client = context.client()?;
    let agent = match client.status() {
        Ok(_) => Some(Agent::new(client)?),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let (json, style) = (context.json(), context.out.style());
    let (sender, receiver) = mpsc::channel();
    let dropin = agent.as_ref().map(|a| (a.dropin.clone(), a.client.socket().to_owned()));
    let worker_config = config.clone();
    std::thread::spawn(move || {
        let told = show(&worker_config, agent, &mut |line| drop(sender.send(Message::Step(line.clone()))));
        let _ = sender.send(Message::End(told)); // nobody listens after a signal
    });
    if !json {
        context.out.line(&style.paint("bulkhead lab", Colour::Head))?;
        context.out.flush()?;
    }
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(Message::Step(step)) if !json => {
                context.out.line(&line(&step, style))?;
                context.out.flush()?;
            }
            Ok(Message::Step(_)) => {}
            Ok(Message::End(told)) => return finish(told?, context),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::Internal("the lab's thread ended without a word".into())),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let signalled = wait_readable(&signals, Some(Duration::ZERO)).unwrap_or(false);
                if signalled {
                    // The story's thread is in the middle of something; what it made is taken away under it.
                    if let Some((dropin, socket)) = dropin {
                        dropin.remove();
                        let _ = Client::new(&socket).and_then(|c| c.reload()); // the agent may be ending by the same Ctrl-C
                    }
                    bulkhead_lab::abandon(&config).map_err(told)?;
                    return Err(Failure::usage("interrupted; the lab is removed", "run it again to see the rest"));
                }
            }
        }
    }
}

enum Message {
    Step(Step),
    End(Result<Story, Failure>),
}

fn show(config: &LabConfig, agent: Option<Agent>, show: &mut dyn FnMut(&Step)) -> Result<Story, Failure> {
    let lab = Lab::up(config).map_err(told)?;
    let mut agent = agent;
    let story = story::tell(&lab, agent.as_mut().map(|a| a as &mut dyn Judge), show);
    lab.down();
    Ok(story)
}

fn finish(story: Story, context: &mut Context) -> Result<Exit, Failure> {
    if context.json() {
        context.out.json(&json!({ "ok": story.ok(), "protected": story.protected, "runtime": story.runtime, "steps": story.steps }))?;
    } else {
        context.out.line("")?;
        context.out.line(match (story.protected, story.ok()) {
            (true, true) => "Everything came as it had to. The lab is removed.",
            (true, false) => "Not everything came as it had to; see the steps marked with ✗. The lab is removed.",
            (false, true) => "No agent runs: nothing stood in the attacker's way. Start it with `bulkhead run`. The lab is removed.",
            (false, false) => {
                "No agent runs, and yet not everything arrived: something else on this host drops packets. The lab is removed."
            }
        })?;
    }
    Ok(match (story.protected, story.ok()) {
        (true, true) => Exit::Ok,
        (true, false) => Exit::Findings,
        (false, _) => Exit::Degraded,
    })
}

fn line(step: &Step, style: Style) -> String {
    let (mark, colour) = if step.ok { ("✓", Colour::Good) } else { ("✗", Colour::Bad) };
    format!("  {} {}\n      {}", style.paint(mark, colour), step.title, style.paint(&printable(&step.seen), Colour::Faint))
}

fn clean(config: &LabConfig, context: &mut Context) -> Result<Exit, Failure> {
    let mut removed = bulkhead_lab::clean(config).map_err(told)?;
    let mut places = vec![DropIn::beside(Path::new(DEFAULT_CONFIG))];
    if let Ok(Ok(agent)) = context.client().map(|client| conf_d(&client)) {
        places.push(DropIn::in_dir(agent));
    }
    for dropin in places {
        removed += dropin.remove();
    }
    if removed > 0 {
        let _ = context.client().map(|client| client.reload()); // no agent: nothing to reload
    }
    if context.json() {
        context.out.json(&json!({ "removed": removed }))?;
    } else {
        context.out.line(&if removed == 0 { "nothing of a lab is here".into() } else { format!("removed {removed} things of a lab") })?;
    }
    Ok(Exit::Ok)
}

/// What one node of the lab runs.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    role: String,
}

/// Serves until standard input ends, which it does with whoever made the node.
pub fn node(args: &NodeArgs) -> Result<Exit, Failure> {
    let role =
        Role::from_name(&args.role).ok_or_else(|| Failure::usage(format!("`{}` is no role", args.role), "attacker, web or database"))?;
    if let Some(port) = role.port() {
        let listener =
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).map_err(|e| Failure::Internal(format!("cannot listen on {port}: {e}")))?;
        std::thread::spawn(move || servers::serve(role, &listener));
    }
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(n) if n > 0) {}
    Ok(Exit::Ok)
}

/// A lab beside the agent of this process, for `bulkhead run --lab`. Taken away by [`Beside::remove`] or when dropped.
#[derive(Debug)]
pub struct Beside {
    config: LabConfig,
    dropin: DropIn,
    lab: Mutex<Option<Lab>>,
    removed: AtomicBool,
}

/// Pause between the acts that go on after the story, so that the live map has something to show.
const PAUSE: Duration = Duration::from_secs(2);

impl Beside {
    /// Writes the lab's policy beside the configuration that the agent is about to read.
    pub fn prepare(config: &Path) -> Result<Self, Failure> {
        let lab = LabConfig::new().map_err(told)?;
        bulkhead_lab::clean(&lab).map_err(told)?;
        let dropin = DropIn::beside(config);
        let beside = Self { config: lab, dropin, lab: Mutex::new(None), removed: AtomicBool::new(false) };
        beside.dropin.write(Mode::Monitor)?;
        Ok(beside)
    }

    /// To be called once the agent answers at `socket`: brings the lab up and tells its story on standard output. The lab
    /// stays up in protect mode; [`Beside::go_on`] keeps it busy.
    pub fn play(&self, socket: &Path, format: Format) -> Result<(), Failure> {
        let mut out = Out::stdout(format);
        let style = out.style();
        let lab = Lab::up(&self.config).map_err(told)?;
        let mut agent = Agent { client: Client::new(socket)?, dropin: self.dropin.clone(), since: None, keep: true };
        let text = format == Format::Text;
        let story = story::tell(&lab, Some(&mut agent), &mut |step| {
            // An agent whose starter has closed its output goes on all the same.
            let shown = text && !self.removed.load(Ordering::Acquire);
            let _ = if shown { out.line(&line(step, style)).and_then(|()| out.flush()) } else { Ok(()) };
        });
        *self.slot() = Some(lab);
        if self.removed.load(Ordering::Acquire) {
            self.remove(); // told to end meanwhile: the one who told did not see the lab
        }
        if text {
            out.line("")?
        } else {
            out.json_line(&json!({ "lab": story }))?
        }
        out.flush()
    }

    /// Ordinary requests and attacks, until the lab is removed.
    pub fn go_on(&self) {
        loop {
            match self.slot().as_ref() {
                Some(lab) => drop((lab.benign(), lab.attack())),
                None => return,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes everything away. May be called from any thread, and more than once.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Release);
        if self.slot().take().is_none() {
            // The story may be in the middle of something; what it made is known by name.
            let _ = bulkhead_lab::abandon(&self.config); // the next lab sweeps again
        }
        self.dropin.remove();
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Lab>> {
        self.lab.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The agent, as the story needs it.
struct Agent {
    client: Client,
    dropin: DropIn,
    /// Number of the last event that was seen.
    since: Option<u64>,
    /// The policy is somebody else's to remove.
    keep: bool,
}

impl Agent {
    fn new(client: Client) -> Result<Self, Failure> {
        let dropin = DropIn::in_dir(conf_d(&client)?);
        Ok(Self { client, dropin, since: None, keep: false })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.keep && self.dropin.remove() > 0 {
            let _ = self.client.reload(); // the agent may have ended meanwhile
        }
    }
}

impl Judge for Agent {
    fn set_mode(&mut self, mode: Mode) -> Result<(), String> {
        self.dropin.write(mode).map_err(|f| format!("{f:?}"))?;
        self.client.reload().map(drop).map_err(|e| e.to_string())
    }

    fn protected(&mut self) -> Result<Vec<String>, String> {
        let views = self.client.workloads().map_err(|e| e.to_string())?;
        Ok(views.into_iter().filter(|v| v.protected == Protected::Yes).map(|v| v.workload.name).collect())
    }

    fn events(&mut self) -> Result<Vec<Event>, String> {
        let query = EventQuery { since: self.since, ..EventQuery::default() };
        let events = self.client.events(&query).map_err(|e| e.to_string())?;
        self.since = events.last().map(|e| e.event_id).or(self.since);
        Ok(events)
    }

    fn coverage_percent(&mut self) -> Result<f64, String> {
        let coverage = self.client.coverage().map_err(|e| e.to_string())?;
        let ours = |name: &str| name.starts_with("lab-");
        let pairs = coverage.pairs.iter().filter(|p| ours(&p.src) || ours(&p.dst));
        let (carried, gap) = pairs.fold((0, 0), |(c, g), p| (c + p.carried_bytes, g + p.gap_bytes));
        if carried == 0 {
            Err("no byte of the lab was counted".into())
        } else {
            Ok(100.0 * (carried - gap.min(carried)) as f64 / carried as f64)
        }
    }
}

/// The lab's two files in the agent's `conf.d`.
#[derive(Debug, Clone)]
struct DropIn {
    dir: PathBuf,
    /// Set by the removal: another thread that is still telling the story must not write them again.
    closed: Arc<Mutex<bool>>,
}

impl DropIn {
    fn in_dir(dir: PathBuf) -> Self {
        Self { dir, closed: Arc::default() }
    }

    fn beside(config: &Path) -> Self {
        Self::in_dir(config.parent().unwrap_or(Path::new("/etc/bulkhead")).join("conf.d"))
    }

    fn policy(&self) -> PathBuf {
        self.dir.join("85-lab.yaml")
    }

    /// Not `*.yaml`, so the agent reads it as rules only.
    fn rules(&self) -> PathBuf {
        self.dir.join("85-lab.rules")
    }

    /// A comment in the policy remembers whether the directory is ours to remove.
    fn write(&self, mode: Mode) -> Result<(), Failure> {
        let written = |path: PathBuf, text: &str| {
            let failed = |e| Failure::File(path.clone(), e);
            // Renamed into place, so that an agent that reloads meanwhile sees the old or the new one.
            let new = path.with_extension("new");
            std::fs::write(&new, text).map_err(failed)?;
            std::fs::rename(&new, &path).map_err(failed)
        };
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(Failure::Internal("the lab is being removed".into()));
        }
        let made = self.made_directory() || !self.dir.exists();
        std::fs::create_dir_all(&self.dir).map_err(|e| Failure::File(self.dir.clone(), e))?;
        written(self.rules(), bulkhead_lab::RULES)?;
        let note = if made { DIRECTORY_MADE } else { "" };
        written(self.policy(), &format!("{note}{}", bulkhead_lab::policy(&self.rules(), mode)))
    }

    fn made_directory(&self) -> bool {
        std::fs::read_to_string(self.policy()).is_ok_and(|text| text.starts_with(DIRECTORY_MADE))
    }

    /// Gives how many files that were.
    fn remove(&self) -> usize {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        let made = self.made_directory();
        let removed = [self.policy(), self.rules()].iter().filter(|f| std::fs::remove_file(f).is_ok()).count();
        if made && std::fs::remove_dir(&self.dir).is_ok() {
            let _ = self.dir.parent().map(std::fs::remove_dir); // only if nothing else is in it
        }
        removed
    }
}

/// Where an agent reads its configuration unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/bulkhead/bulkhead.yaml";
const DIRECTORY_MADE: &str = "# The directory was made for this file.\n";

/// Where the running agent reads its `conf.d`: beside the configuration it names, or the usual place.
fn conf_d(client: &Client) -> Result<PathBuf, Failure> {
    let policy = client.policy()?;
    let first = policy.sources.iter().map(PathBuf::from).find(|p| p.is_absolute());
    let dir = first.as_deref().and_then(Path::parent).unwrap_or(Path::new("/etc/bulkhead"));
    Ok(if dir.ends_with("conf.d") { dir.to_owned() } else { dir.join("conf.d") })
}

fn told(error: LabError) -> Failure {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    match error {
        LabError::Up(_) => Failure::usage(words, "wait for its end, or end it with Ctrl-C where it runs"),
        LabError::Lock(_)
        | LabError::Program(_)
        | LabError::Fabric(_)
        | LabError::Os(_)
        | LabError::Node(_)
        | LabError::Docker(_)
        | LabError::Silent(_) => {
            Failure::Usage(words, Some("it needs root, and bridges and veths in the kernel; `bulkhead lab clean` removes leftovers".into()))
        }
    }
}
