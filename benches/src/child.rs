//! Programs that are started, waited for with a bound, and never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_sys::netns::Netns;
use bulkhead_sys::process;

use crate::Error;

const SIGTERM: i32 = 15;
/// From the asking to the killing. The agent takes its programs off first.
const ENDING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Bytes of a program's output that are quoted in an error.
const QUOTED_BYTES_MAX: usize = 2000;

/// A child whose output goes to a file. Dropping it ends it: asked first, then killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts `command` inside a namespace.
    pub fn start(name: &str, netns: &Netns, command: &mut Command, log: &Path) -> Result<Self, Error> {
        let file = File::create(log).map_err(Error::io(format!("write {}", log.display())))?;
        let second = file.try_clone().map_err(Error::io(format!("write {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let child = netns.run(|| command.spawn())?.map_err(|source| Error::Start { program: name.to_owned(), source })?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has printed so far, or the end of that.
    pub fn output(&self) -> String {
        quoted(&fs::read(&self.log).unwrap_or_default())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().ok().flatten().is_some()
    }

    /// Asks every few milliseconds until `done` gives a value, the child ends or `patience` is over.
    pub fn wait_for<T>(&mut self, what: &str, patience: Duration, mut done: impl FnMut() -> Option<T>) -> Result<T, Error> {
        let until = Instant::now() + patience;
        loop {
            if let Some(value) = done() {
                return Ok(value);
            }
            if self.has_ended() {
                return Err(Error::Failed { program: self.name.clone(), output: self.output() });
            }
            if Instant::now() >= until {
                let output = format!(":\n{}", self.output());
                return Err(Error::Late { what: format!("{}: not {what}", self.name), seconds: patience.as_secs(), output });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let _ = process::kill(self.child.id(), SIGTERM); // it may have ended by itself
        let until = Instant::now() + ENDING;
        while !self.has_ended() {
            if Instant::now() >= until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Runs a program inside a namespace to its end and gives its standard output. It is killed after `patience`.
pub fn run_to_end(name: &str, netns: &Netns, command: &mut Command, dir: &Path, patience: Duration) -> Result<String, Error> {
    let log = dir.join(format!("{name}.out"));
    let mut child = Running::start(name, netns, command, &log)?;
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.child.try_wait().map_err(Error::io(format!("wait for {name}")))? {
            if !status.success() {
                return Err(Error::Failed { program: name.to_owned(), output: child.output() });
            }
            return fs::read_to_string(&log).map_err(Error::io(format!("read {}", log.display())));
        }
        if Instant::now() >= until {
            let output = format!(":\n{}", child.output());
            return Err(Error::Late { what: format!("{name} did not end"), seconds: patience.as_secs(), output });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Is this program installed?
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not everybody's path has the system directories.
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

/// A directory below the system's temporary one, removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("bulkhead-benches-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path); // of an earlier process with the same number
        fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // best effort: it is in the system's temporary directory
    }
}

fn quoted(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(QUOTED_BYTES_MAX);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).trim().to_owned()
}
