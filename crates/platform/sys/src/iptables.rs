//! Packet filter rules through the host's own `iptables-restore` and `iptables-save`.
//!
//! Whether these are the nft or the legacy variant is the host's choice; rules made through the
//! same binaries as Docker's stand in the same place. One `iptables-restore --noflush` applies a
//! whole text or nothing of it for each table. Rules are those of the calling thread's network
//! namespace, or of the one given.

use crate::{OsError, netns, poll};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for one call, the wait for the lock of the legacy variant included.
const CALL_SECONDS_MAX: u64 = 30;
/// Seconds that the legacy variant waits for its lock. Well below any watchdog of who calls.
const LOCK_SECONDS_MAX: u32 = 3;
/// Bytes of rules that [`save`] reads; a Kubernetes node has some 10 MiB.
const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of an error message that are kept.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Where the binaries are when `PATH` does not lead there.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// IPv4 or IPv6 rules: they are separate worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn program(self, verb: &str) -> String {
        match self {
            Family::V4 => format!("iptables-{verb}"),
            Family::V6 => format!("ip6tables-{verb}"),
        }
    }
}

/// Why rules could not be applied or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("`{program}` is not installed")]
    Missing {
        /// Which.
        program: String,
    },
    /// The program refused; nothing was changed in the table that it complains about.
    #[error("`{program}` refused (exit code {code:?}): {message}")]
    Refused {
        /// Which.
        program: String,
        /// Its exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// What it wrote to its error output, cut to 4 KiB.
        message: String,
    },
    /// The program did not end in time and was killed.
    #[error("`{program}` did not end within {seconds} s")]
    TimedOut {
        /// Which.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The program wrote more than we are ready to read.
    #[error("`{program}` wrote more than {bytes_max} bytes")]
    TooLarge {
        /// Which.
        program: String,
        /// The cap.
        bytes_max: usize,
    },
    /// The program could not be started or talked to.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Applies `rules`, a text for `iptables-restore` (`*mangle`, `:CHAIN - [0:0]`, `-A …`, `COMMIT`),
/// leaving other rules as they are. A chain that is declared by a `:` line is emptied first.
pub fn restore(family: Family, rules: &str, netns: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let wait = LOCK_SECONDS_MAX.to_string();
    call(&family.program("restore"), &["--noflush", "--wait", &wait], rules.as_bytes(), netns).map(drop)
}

/// Checks `rules` as [`restore`] would and changes nothing.
pub fn check(family: Family, rules: &str, netns: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let wait = LOCK_SECONDS_MAX.to_string();
    call(&family.program("restore"), &["--test", "--noflush", "--wait", &wait], rules.as_bytes(), netns).map(drop)
}

/// As [`save`], each rule with its counters before it: `[packets:bytes] -A …`.
pub fn save_counted(family: Family, table: &str, netns: Option<BorrowedFd<'_>>) -> Result<String, Error> {
    let output = call(&family.program("save"), &["-c", "-t", table], b"", netns)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The rules of one table, or of all, in the language of [`restore`].
pub fn save(family: Family, table: Option<&str>, netns: Option<BorrowedFd<'_>>) -> Result<String, Error> {
    let mut args = Vec::new();
    if let Some(table) = table {
        args.extend(["-t", table]);
    }
    let output = call(&family.program("save"), &args, b"", netns)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The version line, such as `iptables v1.8.9 (nf_tables)`: tells which variant the host uses.
pub fn version(family: Family) -> Result<String, Error> {
    let output = call(&family.program("restore"), &["--version"], b"", None)?;
    Ok(String::from_utf8_lossy(&output).trim().replace("-restore", ""))
}

fn call(program: &str, args: &[&str], input: &[u8], netns: Option<BorrowedFd<'_>>) -> Result<Vec<u8>, Error> {
    match netns {
        // A process is born in the namespace of the thread that starts it.
        Some(netns) => netns::run_in(netns, || call_here(program, args, input))?,
        None => call_here(program, args, input),
    }
}

fn call_here(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
    let child = spawn(program, args)?;
    let mut child = KillOnDrop(child);
    let deadline = Instant::now() + Duration::from_secs(CALL_SECONDS_MAX);
    // A thread feeds it, so that neither side can wait for the other's full pipe.
    let (stdin, stdout, stderr) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
    let (output, message) = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program that refuses early closes its end; its error output says why.
                let _ = stdin.write_all(input);
            }
        });
        let message = scope.spawn(|| stderr.map(|stderr| drain(stderr, MESSAGE_BYTES_MAX, deadline)));
        let output = stdout.map(|stdout| drain(stdout, OUTPUT_BYTES_MAX, deadline));
        if !matches!(output, Some(Ok(Drained::Whole(_)))) {
            // Ends the writer as well.
            child.kill();
        }
        (output, message.join().ok().flatten())
    });
    let output = match output {
        Some(Ok(Drained::Whole(output))) => output,
        Some(Ok(Drained::Cut(_))) => return Err(Error::TooLarge { program: program.into(), bytes_max: OUTPUT_BYTES_MAX }),
        Some(Ok(Drained::Late)) => return Err(Error::TimedOut { program: program.into(), seconds: CALL_SECONDS_MAX }),
        Some(Err(error)) => return Err(error.into()),
        None => return Err(OsError::new(format!("read what {program} writes"), libc::EPIPE).into()),
    };
    let status = loop {
        match child.0.try_wait().map_err(|e| OsError::io(format!("wait for {program}"), &e))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                return Err(Error::TimedOut { program: program.into(), seconds: CALL_SECONDS_MAX });
            }
            // It has closed its output and is about to end.
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    if status.success() {
        return Ok(output);
    }
    let message = match message {
        Some(Ok(Drained::Whole(bytes) | Drained::Cut(bytes))) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Some(Ok(Drained::Late) | Err(_)) | None => String::new(),
    };
    Err(Error::Refused { program: program.into(), code: status.code(), message })
}

/// Starts the program by `PATH`, or from the usual places where system programs are.
fn spawn(program: &str, args: &[&str]) -> Result<Child, Error> {
    let paths = std::iter::once(program.to_owned()).chain(SBIN.iter().map(|dir| format!("{dir}/{program}")));
    for path in paths {
        let mut command = Command::new(&path);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
        // A group of its own: Ctrl-C is for us, and must not end it half-way.
        command.process_group(0);
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // A directory in PATH that we may not search says nothing about the program.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !path.starts_with('/') => {}
            Err(e) => return Err(OsError::io(format!("start {program}"), &e).into()),
        }
    }
    Err(Error::Missing { program: program.into() })
}

/// What came out of a pipe.
enum Drained {
    /// Everything.
    Whole(Vec<u8>),
    /// The beginning; the rest was thrown away.
    Cut(Vec<u8>),
    /// The end did not come in time.
    Late,
}

/// Reads a pipe to its end, keeping `max` bytes.
fn drain(mut pipe: impl Read + AsFd, max: usize, deadline: Instant) -> Result<Drained, OsError> {
    let (mut kept, mut cut, mut buffer) = (Vec::new(), false, [0; 16 * 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Drained::Late);
        }
        if !poll::wait_readable(&pipe, Some(left))? {
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(if cut { Drained::Cut(kept) } else { Drained::Whole(kept) }),
            Ok(len) => {
                let room = (max - kept.len()).min(len);
                kept.extend_from_slice(&buffer[..room]);
                cut |= room < len;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(OsError::io("read from a program", &e)),
        }
    }
}

/// Leaves no process behind on any way out.
struct KillOnDrop(Child);

impl KillOnDrop {
    fn kill(&mut self) {
        let _ = self.0.kill();
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        let error = call("bulkhead-no-such-program", &[], b"", None).unwrap_err();
        assert_eq!(error, Error::Missing { program: "bulkhead-no-such-program".into() });
    }

    #[test]
    fn both_variants_take_the_same_arguments() {
        if !crate::process::is_root() {
            println!("NOT RUN: both_variants_take_the_same_arguments: needs root");
            return;
        }
        let netns = netns::Netns::create().unwrap();
        let rules = b"*mangle\n:BULKHEAD-TEST - [0:0]\n-A BULKHEAD-TEST -j DROP\nCOMMIT\n";
        for variant in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
            let arguments = ["--noflush", "--wait", "10"];
            match call(&format!("{variant}-restore"), &arguments, rules, Some(netns.as_fd())) {
                Err(Error::Missing { program }) => {
                    println!("NOT RUN: both_variants_take_the_same_arguments: {program} is not installed");
                    continue;
                }
                other => drop(other.unwrap()),
            }
            let saved = call(&format!("{variant}-save"), &["-t", "mangle"], b"", Some(netns.as_fd())).unwrap();
            assert!(String::from_utf8_lossy(&saved).contains("-A BULKHEAD-TEST -j DROP"), "{variant}");
        }
    }

    #[test]
    fn what_a_program_says_when_it_refuses_is_kept() {
        let error = call("sh", &["-c", "echo no such chain >&2; exit 3"], b"", None).unwrap_err();
        assert_eq!(error, Error::Refused { program: "sh".into(), code: Some(3), message: "no such chain".into() });
    }

    #[test]
    fn input_and_output_larger_than_a_pipe_pass() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(call("cat", &[], &input, None).unwrap(), input);
        // A program that reads nothing does not hold us up.
        assert_eq!(call("true", &[], &input, None).unwrap(), b"");
    }

    #[test]
    fn a_long_complaint_is_cut() {
        let error = call("sh", &["-c", "head -c 100000 /dev/zero | tr '\\0' e >&2; exit 1"], b"", None).unwrap_err();
        let Error::Refused { message, .. } = error else { panic!("{error}") };
        assert_eq!(message.len(), MESSAGE_BYTES_MAX);
    }
}
