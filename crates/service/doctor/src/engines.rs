//! Finds container engines by their sockets and asks those that speak HTTP for their version.
//! Nothing is asked that changes or creates something.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::command;

/// A container engine on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// `docker`, `podman`, `containerd` or `cri-o`.
    pub kind: &'static str,
    /// Path of its socket.
    pub endpoint: String,
    /// It took our connection.
    pub reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What makes each container's start wait for the agent (docs/oci.md); none, when nothing that was found does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds_start: Option<String>,
}

/// How long an engine may take to answer. dockerd answers `/version` in about 2 ms; a hanging one must not hang us.
const WAIT: Duration = Duration::from_millis(300);
/// Bytes read of an answer; dockerd's has about 1 KiB.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Users whose rootless engines are looked for.
const USERS_MAX: usize = 64;

/// All engines whose socket exists. A socket that links to one already found is not listed twice.
pub fn find() -> Vec<Engine> {
    let mut places: Vec<(&str, PathBuf)> = [
        ("docker", "/run/docker.sock"),
        ("docker", "/var/run/docker.sock"),
        ("podman", "/run/podman/podman.sock"),
        ("containerd", "/run/containerd/containerd.sock"),
        ("containerd", "/run/docker/containerd/containerd.sock"),
        ("containerd", "/run/k3s/containerd/containerd.sock"),
        ("cri-o", "/run/crio/crio.sock"),
    ]
    .into_iter()
    .map(|(kind, path)| (kind, PathBuf::from(path)))
    .collect();
    let users = std::fs::read_dir("/run/user").into_iter().flatten().flatten().take(USERS_MAX);
    for user in users {
        places.push(("docker", user.path().join("docker.sock")));
        places.push(("podman", user.path().join("podman/podman.sock")));
    }
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (kind, path) in places {
        let Ok(real) = path.canonicalize() else { continue };
        if !seen.contains(&real) {
            seen.push(real.clone());
            found.push((kind, real));
        }
    }
    // Side by side and on threads that may be left behind: connect() to a full backlog waits without end.
    let (sender, receiver) = mpsc::channel();
    let mut engines: Vec<Engine> = Vec::new();
    for (index, (kind, path)) in found.into_iter().enumerate() {
        let endpoint = path.display().to_string();
        engines.push(Engine { kind, endpoint, reachable: false, version: None, holds_start: None });
        let sender = sender.clone();
        std::thread::spawn(move || sender.send((index, ask(kind, &path)))); // nobody may be listening any more: fine
    }
    drop(sender);
    let end = Instant::now() + 2 * WAIT;
    while let Ok((index, engine)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(slot) = engines.get_mut(index) {
            *slot = engine;
        }
    }
    engines
}

fn ask(kind: &'static str, path: &Path) -> Engine {
    let reachable = UnixStream::connect(path).is_ok();
    let version = match kind {
        "docker" | "podman" => version_over_http(path),
        "cri-o" => command::output("crio", &["--version"]).ok().and_then(|v| word_with_digits(&v)),
        _ => command::output("containerd", &["--version"]).ok().and_then(|v| word_with_digits(&v)),
    };
    let holds_start = match kind {
        "docker" => ask_over_http(path, "/info").and_then(|answer| default_runtime_in(&answer)),
        "podman" | "cri-o" => HOOK_FOLDERS.iter().find_map(|folder| hook_in(Path::new(folder))),
        // Its configuration may be anywhere, and a client may name another runtime: not taken for granted.
        _ => None,
    };
    Engine { kind, endpoint: path.display().to_string(), reachable, version: version.filter(|_| reachable), holds_start }
}

/// Where Podman and CRI-O look for hooks (oci-hooks(5)).
const HOOK_FOLDERS: [&str; 2] = ["/etc/containers/oci/hooks.d", "/usr/share/containers/oci/hooks.d"];
/// Hook files looked at in one folder.
const HOOKS_MAX: usize = 256;
const HOOK_BYTES_MAX: u64 = 64 << 10;

/// A hook of ours that is run for every container.
fn hook_in(folder: &Path) -> Option<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().take(HOOKS_MAX).map(|entry| entry.path()).collect();
    files.sort();
    let ours = |path: &PathBuf| {
        let mut text = Vec::new();
        let read = std::fs::File::open(path).ok().and_then(|file| file.take(HOOK_BYTES_MAX).read_to_end(&mut text).ok());
        read.is_some() && is_our_hook(&text)
    };
    let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json") && path.is_file();
    files.into_iter().filter(json).find(ours).map(|path| format!("hook {}", path.display()))
}

fn is_our_hook(text: &[u8]) -> bool {
    let Ok(hook) = serde_json::from_slice::<serde_json::Value>(text) else { return false };
    let holds = |list: Option<&serde_json::Value>, word: &str| {
        list.and_then(serde_json::Value::as_array).is_some_and(|list| list.iter().any(|item| item.as_str() == Some(word)))
    };
    holds(hook.pointer("/hook/args"), "oci-hook")
        && holds(hook.pointer("/stages"), "createRuntime")
        && hook.pointer("/when/always").and_then(serde_json::Value::as_bool) == Some(true)
}

/// The runtime that containers get without asking, when it is our wrapper: a container may name another one.
fn default_runtime_in(answer: &[u8]) -> Option<String> {
    let info = json_body(answer)?;
    let name = info.get("DefaultRuntime")?.as_str()?;
    let runtime = info.get("Runtimes")?.get(name)?;
    let path = runtime.get("path")?.as_str()?;
    let by_name = Path::new(path).file_name()?.to_str()?.starts_with("bulkhead-");
    let arguments = runtime.get("runtimeArgs").and_then(serde_json::Value::as_array);
    let by_verb = arguments.is_some_and(|words| words.iter().any(|word| word.as_str() == Some("oci-runtime")));
    (by_name || by_verb).then(|| format!("default runtime {}", name.chars().take(64).collect::<String>()))
}

fn version_over_http(path: &Path) -> Option<String> {
    version_in(&ask_over_http(path, "/version")?)
}

/// The whole answer, head and body.
fn ask_over_http(path: &Path, target: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    stream.set_write_timeout(Some(WAIT)).ok()?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer); // a time-out after the body is no loss
    Some(answer)
}

fn json_body(answer: &[u8]) -> Option<serde_json::Value> {
    let start = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    serde_json::from_slice(answer.get(start..)?).ok()
}

/// The engine's version and its API's, out of the whole HTTP answer.
fn version_in(answer: &[u8]) -> Option<String> {
    let json = json_body(answer)?;
    let text = |key: &str| json.get(key).and_then(|v| v.as_str()).filter(|s| s.len() < 64).map(str::to_owned);
    let version = text("Version")?;
    Some(text("ApiVersion").map_or(version.clone(), |api| format!("{version} (API {api})")))
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 hash` -> `1.6.20~ds1`
fn word_with_digits(line: &str) -> Option<String> {
    let word = line.split_whitespace().find(|w| w.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))?;
    Some(word.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_version_is_read_out_of_its_answer() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Version\":\"20.10.24\",\"ApiVersion\":\"1.41\"}\n";
        assert_eq!(version_in(answer).as_deref(), Some("20.10.24 (API 1.41)"));
        assert_eq!(
            word_with_digits("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1").as_deref(),
            Some("1.6.20~ds1")
        );
        assert_eq!(word_with_digits("crio version 1.28.0"), Some("1.28.0".into()));
    }

    #[test]
    fn only_a_default_runtime_of_ours_and_a_hook_for_every_container_hold_a_start() {
        let info = |default: &str, ours: &str| {
            let runtimes = format!(r#"{{"runc":{{"path":"runc"}},"bulkhead":{ours}}}"#);
            default_runtime_in(format!("HTTP/1.0 200 OK\r\n\r\n{{\"DefaultRuntime\":\"{default}\",\"Runtimes\":{runtimes}}}").as_bytes())
        };
        let by_verb = r#"{"path":"/usr/bin/bulkhead","runtimeArgs":["oci-runtime","--"]}"#;
        assert_eq!(info("bulkhead", by_verb).as_deref(), Some("default runtime bulkhead"));
        assert_eq!(info("bulkhead", r#"{"path":"/usr/bin/bulkhead-runc"}"#).as_deref(), Some("default runtime bulkhead"));
        assert_eq!(info("runc", by_verb), None, "configured, but nobody uses it unasked");
        assert_eq!(info("bulkhead", r#"{"path":"/usr/bin/runc"}"#), None, "a name is no wrapper");
        let hook = include_str!("../../../../packaging/oci/hooks.d/50-bulkhead.json");
        assert!(is_our_hook(hook.as_bytes()));
        for (from, to) in [("oci-hook", "status"), ("createRuntime", "poststop"), ("true", "false"), ("{", "[")] {
            assert!(!is_our_hook(hook.replace(from, to).as_bytes()), "{to}");
        }
    }

    #[test]
    fn rubbish_for_an_answer_is_no_version() {
        for answer in
            [&b""[..], b"\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n[1,2", b"HTTP/1.0 200 OK\r\n\r\n{\"Version\":7}", b"\xff\xfe\r\n\r\n\xff"]
        {
            assert_eq!(version_in(answer), None);
        }
        let long = format!("\r\n\r\n{{\"Version\":\"{}\"}}", "9".repeat(5000));
        assert_eq!(version_in(long.as_bytes()), None);
    }

    #[test]
    fn a_peer_that_hangs_costs_only_its_wait() {
        let dir = std::env::temp_dir().join(format!("bulkhead-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temporary directory");
        let path = dir.join("hang.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("own directory");
        let engine = ask("docker", &path); // nobody ever accepts or answers
        drop(listener);
        std::fs::remove_dir_all(&dir).expect("own directory");
        assert!(engine.reachable && engine.version.is_none(), "{engine:?}");
    }
}
