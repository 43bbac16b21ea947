//! What the end-to-end tests are made of: namespaces on bridges ([`net`]), frames of any shape ([`packet`]), senders and
//! receivers of known bytes ([`traffic`]), a picture of the host's settings before and after ([`host`]), the agent as a
//! process ([`agent`]), Docker ([`docker`]), a service manager ([`systemd`]) and memory limits ([`cgroup`]).
//!
//! A test that cannot run here says so in a line that begins with `NOT RUN:`; `./test` collects these lines. Start each
//! test that needs root with [`root_or_not_run`].

pub mod agent;
pub mod cgroup;
pub mod dice;
pub mod docker;
pub mod host;
pub mod net;
pub mod packet;
pub mod process;
pub mod systemd;
pub mod traffic;

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Are we root? If not, tells that `test` did not run.
///
/// # Panics
/// As root on a machine whose `/sys` is hidden ([`host::hidden_sys`]): whatever such a test said would be about that.
#[must_use]
pub fn root_or_not_run(test: &str) -> bool {
    let root = bulkhead_sys::process::is_root();
    if !root {
        not_run(test, "needs root");
    } else if let Some(what) = host::hidden_sys() {
        panic!("{what}");
    }
    root
}

/// Tells that a test did not run, and why. To stderr without capture: cargo swallows the stdout of tests that pass.
pub fn not_run(test: &str, why: impl Display) {
    use std::io::Write;
    // The descriptor itself, not the macro: the test harness captures what the macros print.
    let _ = writeln!(std::io::stderr().lock(), "NOT RUN: {test}: {why}");
}

/// Asks `done` every few milliseconds until it holds or `patience` is over; `what` is for the panic message.
///
/// # Panics
/// When the time is over.
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < end, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
