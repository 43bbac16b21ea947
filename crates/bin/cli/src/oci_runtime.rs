//! `bulkhead oci-runtime`: stands in for an OCI runtime (`runc`, `crun`). Every verb becomes the runtime's own by `execve`, with
//! arguments, environment and descriptors untouched; only before `start ID` it waits until the container's network is armed.
//!
//! The verb is found without knowing the runtime: options before it are the runtime's own, and which of them take a value is known
//! for runc, crun, youki and kata. What is not understood is passed on.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_model::Timestamp;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::oci::{self, STATE_BYTES_MAX, Start, State, Waiting};

/// Stand in for an OCI runtime and make each container's start wait until its network is on the path
///
/// Everything after `--` is the runtime's. A link to this program named `bulkhead-runc` does it with all defaults, for engines
/// that take no arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The runtime that does the work; a name is looked for in PATH
    #[arg(long, value_name = "PATH", default_value = "runc")]
    runtime: PathBuf,

    #[command(flatten)]
    waiting: Waiting,

    /// The runtime's own arguments
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// The runtimes that a link to this program may be named after. A list: a copy of the program under a name of the operator's own
/// (`bulkhead-new`, `bulkhead-1.2`) is the program.
const RUNTIMES: [&str; 6] = ["runc", "crun", "youki", "runsc", "kata-runtime", "nvidia-container-runtime"];

/// The command line of one that was called `bulkhead-RUNTIME`, as if it had been called by the verb.
pub fn by_name(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|first| Path::new(first).file_name()).and_then(OsStr::to_str).unwrap_or_default();
    let Some(runtime) = name.strip_prefix("bulkhead-").filter(|runtime| RUNTIMES.contains(runtime)) else { return arguments };
    let head = ["bulkhead", "oci-runtime", "--runtime", runtime, "--"].map(OsString::from);
    head.into_iter().chain(arguments.into_iter().skip(1)).collect()
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let runtime = find(&args.runtime)?;
    if let Some(call) = StartCall::read(&args.arguments) {
        let deadline = args.waiting.deadline();
        let state = state_of(&runtime, &call, deadline);
        // Of a container that waits for no start, the runtime itself says what is wrong.
        if !state.as_ref().is_ok_and(|state| state.status != "created") {
            match oci::wait_armed(state.as_ref().map_err(Clone::clone), &args.waiting, context, deadline) {
                Start::Go => {}
                Start::GoUnarmed(reason) => call.tell("warning", &format!("bulkhead: the container is started all the same: {reason}")),
                Start::Refuse(reason) => {
                    call.tell("error", &format!("bulkhead: the container is not started: {reason}"));
                    return Ok(Exit::Findings);
                }
            }
        }
    }
    let error = Command::new(&runtime).args(&args.arguments).exec();
    Err(Failure::Unable(format!("cannot execute the runtime `{}`: {error}", runtime.display()), None))
}

/// The runtime's file. Never this program itself, under whatever name: it would call itself for ever.
fn find(runtime: &Path) -> Result<PathBuf, Failure> {
    let own = std::fs::metadata("/proc/self/exe").map(|own| (own.dev(), own.ino())).ok();
    let usable = |path: &Path| {
        let found = std::fs::metadata(path).ok().filter(|found| found.is_file() && found.mode() & 0o111 != 0)?;
        Some((found.dev(), found.ino())).filter(|found| Some(*found) != own)
    };
    if runtime.components().count() > 1 {
        if usable(runtime).is_some() {
            return Ok(runtime.to_owned());
        }
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join(runtime)).find(|path| usable(path).is_some()) {
            return Ok(found);
        }
    }
    let message = format!("there is no runtime `{}`, other than this program", runtime.display());
    Err(Failure::usage(message, "name it with `--runtime`"))
}

/// `start ID`, with the options before it.
#[derive(Debug, PartialEq, Eq)]
struct StartCall<'a> {
    /// Without those about the log.
    globals: Vec<&'a OsStr>,
    id: &'a OsStr,
    log: Option<&'a OsStr>,
    log_json: bool,
}

/// Options before the verb that take a value in a word of its own: of runc(8), crun(1), and kata-runtime.
const VALUE_OPTIONS: [&str; 9] = ["log", "log-format", "log-level", "root", "criu", "rootless", "cgroup-manager", "config", "kata-config"];
/// A word after an option that is not known: is it the verb, or the option's value?
const VERBS: [&str; 16] = [
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
];

impl<'a> StartCall<'a> {
    fn read(arguments: &'a [OsString]) -> Option<Self> {
        let mut call = Self { globals: Vec::new(), id: OsStr::new(""), log: None, log_json: false };
        let mut at = 0;
        loop {
            let word = arguments.get(at)?.as_os_str();
            let Some(option) = option_name(word) else { break };
            at += 1;
            if option.is_empty() {
                break; // `--`
            }
            let (name, inline) = match option.iter().position(|byte| *byte == b'=') {
                Some(equals) => (option.get(..equals)?, Some(OsStr::from_bytes(option.get(equals + 1..)?))),
                None => (option, None),
            };
            let next = || arguments.get(at).map(OsString::as_os_str);
            let known = VALUE_OPTIONS.iter().any(|known| known.as_bytes() == name);
            let apart = match inline {
                Some(_) => None,
                None if known => next(),
                None => next().filter(|next| option_name(next).is_none() && !is_verb(next)),
            };
            at += usize::from(apart.is_some());
            match (name, inline.or(apart)) {
                (b"log", value) => call.log = value,
                (b"log-format", value) => call.log_json = value.is_some_and(|value| value == "json"),
                _ => call.globals.extend([Some(word), apart].into_iter().flatten()),
            }
        }
        if arguments.get(at)? != "start" {
            return None;
        }
        let rest = arguments.get(at + 1..)?;
        call.id = rest.iter().map(OsString::as_os_str).rfind(|word| option_name(word).is_none())?;
        Some(call)
    }

    /// On standard error, and where the engine looks for the reason.
    fn tell(&self, level: &str, message: &str) {
        eprintln!("{message}");
        let Some(path) = self.log else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
        // RFC 3339, as runc writes it: containerd reads the whole line or none of it.
        let time = Timestamp(now).to_string().replace("+0000", "Z");
        let line = if self.log_json {
            json!({ "level": level, "msg": message, "time": time }).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={message:?}")
        };
        // Standard error has it anyhow.
        let _ = OpenOptions::new().append(true).create(true).open(path).and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
    }
}

/// `--root`, `-root` and `--root=x` without the dashes; `-` alone is no option.
fn option_name(word: &OsStr) -> Option<&[u8]> {
    let bytes = word.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-").filter(|name| !name.is_empty()))?;
    Some(name)
}

fn is_verb(word: &OsStr) -> bool {
    VERBS.iter().any(|verb| *verb == word)
}

/// Asks the runtime which process it is.
fn state_of(runtime: &Path, call: &StartCall<'_>, deadline: Instant) -> Result<State, String> {
    let mut command = Command::new(runtime);
    command.args(&call.globals).arg("state").arg(call.id).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("the runtime cannot be asked for the container: {error}"))?;
    let answer = answer_of(&mut child, deadline);
    if answer.is_err() {
        let _ = child.kill(); // it may have ended by itself
    }
    let status = child.wait().map_err(|error| format!("the runtime's end cannot be seen: {error}"))?;
    let answer = answer?;
    if !status.success() {
        return Err(format!("the runtime does not know the container: its `state` ended with {status}"));
    }
    oci::read_state(&answer)
}

fn answer_of(child: &mut Child, deadline: Instant) -> Result<Vec<u8>, String> {
    let late = || "the runtime does not say in time which container it is".to_owned();
    let Some(stdout) = child.stdout.take() else { return Err(late()) };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(STATE_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes);
        sender.send(read) // nobody may be listening any more: fine
    });
    let answer = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| late())?;
    let answer = answer.map_err(|error| format!("the runtime's answer cannot be read: {error}"))?;
    if answer.len() as u64 > STATE_BYTES_MAX {
        return Err(format!("the container's state is larger than {STATE_BYTES_MAX} bytes"));
    }
    // One that has closed its output and does not end is as late as one that does not answer.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            return Err(late());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_start_is_found_behind_the_options_of_any_runtime() {
        let cases = [
            ("start c1", "", None, false),
            ("--root /run/r --log /l.json --log-format json start c1", "--root /run/r", Some("/l.json"), true),
            ("--root=/run/r --log=/l --systemd-cgroup start c1", "--root=/run/r --systemd-cgroup", Some("/l"), false),
            ("-root /run/r -debug start c1", "-root /run/r -debug", None, false),
            ("--cgroup-manager cgroupfs --unknown start c1", "--cgroup-manager cgroupfs --unknown", None, false),
            ("--platform ptrace --net-raw start c1", "--platform ptrace --net-raw", None, false),
            ("-- start c1", "", None, false),
            ("start -- c1", "", None, false),
        ];
        for (line, globals, log, log_json) in cases {
            let (line, globals) = (words(line), words(globals));
            let call = StartCall::read(&line).unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!((call.id, call.log, call.log_json), (OsStr::new("c1"), log.map(OsStr::new), log_json), "{line:?}");
            assert_eq!(call.globals, globals, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_start_of_a_container_is_passed_on() {
        for line in ["", "--version", "start", "start --help", "--root", "--log start", "run start", "create --bundle start start", "-"] {
            assert_eq!(StartCall::read(&words(line)), None, "{line}");
        }
        assert_eq!(StartCall::read(&[OsString::from("start"), OsStr::from_bytes(b"\xff").to_owned()]).map(|call| call.id.len()), Some(1));
    }

    #[test]
    fn a_link_named_after_a_runtime_is_that_runtime() {
        assert_eq!(
            by_name(words("/usr/bin/bulkhead-crun --root x start c")),
            words("bulkhead oci-runtime --runtime crun -- --root x start c")
        );
        for own in ["bulkhead status", "/usr/bin/bulkhead run", "bulkhead- x", "/tmp/bulkhead-doctor-7 doctor", ""] {
            assert_eq!(by_name(words(own)), words(own));
        }
    }
}
