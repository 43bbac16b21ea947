//! Stopping and starting units. Enabling and disabling is done by links, which the journal keeps; what runs is asked of
//! systemd by its own `systemctl`, which speaks D-Bus, waits for the job and knows the private socket of early boot.
//!
//! A D-Bus library instead was measured: `zbus` 6.2 without tokio is 19 crates more, for three calls, in a program that runs as root.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_posture::plan::Act;

use crate::root::Root;
use crate::units::cgroup_of;

pub trait Services {
    /// Does it run? `None` where no init system can be asked.
    fn active(&self, name: &str) -> Option<bool>;
    fn act(&self, name: &str, act: Act) -> Result<(), String>;
    /// Unit files have changed.
    fn reload_units(&self);
    /// Is the file that was written one that its program takes?
    fn check_configuration(&self, path: &str) -> Result<(), String>;
}

/// Of the running host.
pub struct Systemd {
    root: Root,
}

/// A stop may take as long as the unit's `TimeoutStopSec` (90 s by default).
const JOB_TIME_MAX: Duration = Duration::from_secs(120);

impl Systemd {
    /// `None`: this root does not run under systemd, and the reason.
    pub fn of(root: &Root) -> Result<Self, String> {
        if !root.is_host() {
            return Err("units of a root that does not run are switched off by their links; nothing is stopped".to_owned());
        }
        if !Path::new("/run/systemd/system").is_dir() {
            return Err("systemd does not run here: links of units are changed, but nothing is stopped or started".to_owned());
        }
        Ok(Self { root: root.clone() })
    }
}

impl Services for Systemd {
    fn active(&self, name: &str) -> Option<bool> {
        if name.ends_with(".service") {
            return Some(cgroup_of(&self.root, name).is_some());
        }
        Some(run("systemctl", &["is-active", "--quiet", "--", name]).is_ok())
    }

    fn act(&self, name: &str, act: Act) -> Result<(), String> {
        self.reload_units();
        let verb = match act {
            Act::Stop => "stop",
            Act::Start => "start",
            Act::Reload => "reload",
        };
        run("systemctl", &[verb, "--no-ask-password", "--", name])
    }

    fn reload_units(&self) {
        let _ = run("systemctl", &["daemon-reload"]); // the act that follows says what is wrong
    }

    fn check_configuration(&self, path: &str) -> Result<(), String> {
        check(path)
    }
}

/// Where nothing can be asked: another root, a container, OpenRC.
pub struct Nobody {
    /// Is it this machine's own root, whose programs can be asked about their files?
    pub host: bool,
}

impl Services for Nobody {
    fn active(&self, _: &str) -> Option<bool> {
        None
    }

    fn act(&self, name: &str, _: Act) -> Result<(), String> {
        Err(format!("nothing here can be told to act on {name}"))
    }

    fn reload_units(&self) {}

    fn check_configuration(&self, path: &str) -> Result<(), String> {
        if self.host { check(path) } else { Ok(()) }
    }
}

fn check(path: &str) -> Result<(), String> {
    if path.starts_with("/etc/ssh/sshd_config") && Path::new("/usr/sbin/sshd").exists() {
        return run("/usr/sbin/sshd", &["-t"]).map_err(|why| format!("sshd refuses the new settings: {why}"));
    }
    if path.ends_with("/daemon.json") && Path::new("/usr/bin/dockerd").exists() {
        let result = run("/usr/bin/dockerd", &["--validate", "--config-file", path]);
        // Before version 23 there is no such option.
        return match result {
            Err(why) if why.contains("unknown flag") => Ok(()),
            other => other.map_err(|why| format!("dockerd refuses the new settings: {why}")),
        };
    }
    Ok(())
}

/// Runs to its end, or to that of our patience. The error is its first line.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let end = Instant::now() + JOB_TIME_MAX;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} {} did not end in {} s", arguments.join(" "), JOB_TIME_MAX.as_secs()));
            }
        }
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word")
    ))
}
