//! Runs a short command with an end to its waiting and a cap on its output.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take; the slowest here, `iptables` on a cold cache, took 60 ms.
const WAIT: Duration = Duration::from_millis(600);
/// Bytes read of a command's output; a ruleset of ten thousand lines has about 1 MiB.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// Where a program is: in `PATH`, or in the directories of system administration, which a user's `PATH` lacks.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Standard output of the program, which must end well and in time. The error is a phrase for a person.
pub fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let file = which(program).ok_or_else(|| format!("{program} is not installed"))?;
    let mut child = Command::new(file)
        .args(arguments)
        .env("XTABLES_LOCKFILE", "/dev/null") // iptables-legacy would make /run/xtables.lock
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {program}: {e}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|s| {
        let out = s.spawn(move || read(out));
        let err = s.spawn(move || read(err));
        let end = Instant::now() + WAIT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => {
                    let _ = child.kill(); // it may have ended by itself just now
                    let _ = child.wait();
                    break None;
                }
            }
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        match status {
            Some(status) if status.success() => Ok(out),
            Some(status) => {
                let words = err.lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason given").trim().to_owned();
                Err(format!("{program} failed ({status}): {words}"))
            }
            None => Err(format!("{program} did not end within {} ms", WAIT.as_millis())),
        }
    })
}

fn read(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes); // what was read before an error is still of use
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended() {
        assert_eq!(output("sleep", &["30"]), Err("sleep did not end within 600 ms".into()));
    }

    #[test]
    fn what_a_failing_command_says_is_passed_on() {
        let told = output("sh", &["-c", "echo nonsense >&2; exit 3"]).expect_err("it fails");
        assert!(told.contains("nonsense") && told.contains('3'), "{told}");
        assert_eq!(output("no-such-program-here", &[]), Err("no-such-program-here is not installed".into()));
    }

    #[test]
    fn endless_output_is_cut() {
        let told = output("sh", &["-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"]);
        assert!(told.is_err(), "it never ends by itself");
    }
}
