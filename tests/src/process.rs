//! Processes that a test starts: stopped, continued and killed by their own number, and never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bulkhead_sys::process;

pub const SIGINT: i32 = 2;
pub const SIGKILL: i32 = 9;
pub const SIGTERM: i32 = 15;
pub const SIGCONT: i32 = 18;
pub const SIGSTOP: i32 = 19;

/// A child whose output goes to a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts `command` with no standard input and its output in the file `log`. `start` does the starting, so that it
    /// can happen inside a namespace.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path, start: impl FnOnce(&mut Command) -> std::io::Result<Child>) -> Self {
        let file = File::create(log).unwrap_or_else(|e| panic!("cannot write {}: {e}", log.display()));
        let second = file.try_clone().unwrap_or_else(|e| panic!("cannot write {}: {e}", log.display()));
        command.stdin(Stdio::null()).stdout(file).stderr(second);
        let child = start(command).unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Self { child, log: log.to_owned(), name: name.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone already.
    pub fn signal(&self, signal: i32) {
        process::kill(self.pid(), signal).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, self.output()));
    }

    /// Hung, as far as others can tell.
    pub fn stop(&self) {
        self.signal(SIGSTOP);
    }

    pub fn go_on(&self) {
        self.signal(SIGCONT);
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }

    /// Also when it was stopped.
    pub fn go_on_and_kill(&mut self) {
        let _ = process::kill(self.pid(), SIGCONT); // it may have ended by itself
        self.kill();
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not within `patience`; it is killed then.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if Instant::now() >= end {
                self.kill();
                panic!("{} did not end within {patience:?}:\n{}", self.name, self.output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Signals it and waits for its end.
    pub fn end(&mut self, signal: i32, patience: Duration) -> ExitStatus {
        self.signal(signal);
        self.wait(patience)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// A directory of this test's own, removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// # Panics
    /// When it cannot be made.
    pub fn new(tag: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-{tag}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path); // of an earlier process with the same number
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file below it and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("cannot make {}: {e}", parent.display()));
        }
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // best effort: it is in the system's temporary directory
    }
}
