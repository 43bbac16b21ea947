//! The lab as Docker containers, over Docker's API on its socket. The image holds nothing but empty directories: the
//! program and the host's libraries are mounted into the containers read-only.
//!
//! Source: Docker Engine API v1.24 and later (`docs.docker.com/reference/api/engine`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::Role;
use crate::{BRIDGE, GATEWAY, GATEWAY6};

/// Name of the network and of the image.
const NAME: &str = "bulkhead-lab";
/// Marks what is ours, so that a sweep removes nothing else.
const LABEL: &str = "bulkhead.lab";
/// Starting a container takes Docker about 0.4 s, more on a busy host.
const WAIT: Duration = Duration::from_secs(30);
/// A first look must not hold anything up.
const LOOK: Duration = Duration::from_millis(500);
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Why Docker did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("cannot speak to {}", socket.display())]
    Socket {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {doing}: {status} {message}")]
    Refused { doing: String, status: u16, message: String },
    #[error("cannot {doing}: the answer is no HTTP")]
    Malformed { doing: String },
    #[error("container {0} ended at once: {1}")]
    Ended(String, String),
}

/// Does a Docker answer there?
pub fn answers(socket: &Path) -> bool {
    request(socket, LOOK, "GET", "/_ping", "application/json", &[], "ping").is_ok()
}

/// The lab's network and containers. Dropping it removes them, and the image.
#[derive(Debug)]
pub struct Project {
    socket: PathBuf,
}

impl Project {
    /// Makes the image and the network.
    pub fn create(socket: &Path) -> Result<Self, DockerError> {
        let project = Self { socket: socket.to_owned() };
        let path = format!("/images/create?fromSrc=-&repo={NAME}&tag=latest");
        request(socket, WAIT, "POST", &path, "application/x-tar", &empty_root(), "make the lab's image")?;
        let network = json!({
            "Name": NAME,
            "CheckDuplicate": true,
            "Driver": "bridge",
            "Internal": true,
            "EnableIPv6": true,
            "IPAM": {"Driver": "default", "Config": [
                {"Subnet": format!("{}/{}", Ipv4Addr::from(u32::from(GATEWAY.0) - 1), GATEWAY.1), "Gateway": GATEWAY.0},
                {"Subnet": format!("{}/{}", Ipv6Addr::from(u128::from(GATEWAY6.0) - 1), GATEWAY6.1), "Gateway": GATEWAY6.0},
            ]},
            "Options": {"com.docker.network.bridge.name": BRIDGE},
            "Labels": {LABEL: "1"},
        });
        project.ask("POST", "/networks/create", &network, "make the lab's network")?;
        Ok(project)
    }

    /// Starts one node; gives the number of its first process.
    pub fn start(&mut self, role: Role, name: &str, program: &Path, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<u32, DockerError> {
        let mounts = ["/usr", "/lib", "/lib64"].iter().filter(|d| Path::new(d).is_dir()).map(|d| format!("{d}:{d}:ro"));
        let mounts: Vec<String> = mounts.chain([format!("{}:/bulkhead:ro", program.display())]).collect();
        let container = json!({
            "Image": NAME,
            "Entrypoint": ["/bulkhead", "lab-node", role.name()],
            "Hostname": name,
            "OpenStdin": true, // kept open by Docker: the node ends when its input does
            "Labels": {LABEL: "1", "role": role.name()},
            "HostConfig": {
                "NetworkMode": NAME,
                "Binds": mounts,
                "ReadonlyRootfs": true,
                "CapDrop": ["ALL"],
                "CapAdd": ["NET_BIND_SERVICE"],
                "SecurityOpt": ["no-new-privileges"],
                "Memory": 128 << 20,
                "PidsLimit": 128,
            },
            "NetworkingConfig": {"EndpointsConfig": {NAME: {"IPAMConfig": {"IPv4Address": v4, "IPv6Address": v6}}}},
        });
        self.ask("POST", &format!("/containers/create?name={name}"), &container, &format!("make container {name}"))?;
        self.ask("POST", &format!("/containers/{name}/start"), &Value::Null, &format!("start container {name}"))?;
        let state = self.ask("GET", &format!("/containers/{name}/json"), &Value::Null, &format!("look at container {name}"))?;
        match state["State"]["Pid"].as_u64().and_then(|p| u32::try_from(p).ok()) {
            Some(pid) if pid > 0 => Ok(pid),
            _ => Err(DockerError::Ended(name.into(), state["State"]["Error"].as_str().unwrap_or_default().into())),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value, doing: &str) -> Result<Value, DockerError> {
        ask(&self.socket, method, path, body, doing)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = sweep(&self.socket); // Docker may have gone; the next lab sweeps again
    }
}

/// Removes containers, network and image of a lab, found by their label or name. Gives how many containers and networks.
pub fn sweep(socket: &Path) -> Result<usize, DockerError> {
    let filter = "%7B%22label%22%3A%5B%22bulkhead.lab%22%5D%7D"; // {"label":["bulkhead.lab"]}
    let mut removed = 0;
    let containers = ask(socket, "GET", &format!("/containers/json?all=1&filters={filter}"), &Value::Null, "list the lab's containers")?;
    for id in ids(&containers) {
        ask(socket, "DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null, "remove a container of the lab")?;
        removed += 1;
    }
    let networks = ask(socket, "GET", &format!("/networks?filters={filter}"), &Value::Null, "list the lab's networks")?;
    for id in ids(&networks) {
        ask(socket, "DELETE", &format!("/networks/{id}"), &Value::Null, "remove the lab's network")?;
        removed += 1;
    }
    match ask(socket, "DELETE", &format!("/images/{NAME}:latest"), &Value::Null, "remove the lab's image") {
        Err(DockerError::Refused { status: 404, .. }) | Ok(_) => Ok(removed),
        Err(other) => Err(other),
    }
}

fn ids(list: &Value) -> impl Iterator<Item = &str> {
    let sound = |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
    list.as_array().into_iter().flatten().filter_map(|entry| entry["Id"].as_str()).filter(sound)
}

fn ask(socket: &Path, method: &str, path: &str, body: &Value, doing: &str) -> Result<Value, DockerError> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = request(socket, WAIT, method, path, "application/json", &body, doing)?;
    Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null)) // some answers are empty
}

/// One request on a connection of its own; gives the body of a successful answer.
fn request(socket: &Path, wait: Duration, method: &str, path: &str, kind: &str, body: &[u8], doing: &str) -> Result<Vec<u8>, DockerError> {
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(wait))?;
        // HTTP/1.0: the answer ends with the connection and is never in chunks.
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
            // dockerd answers some requests without reading their body; closing then resets what follows the answer.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset && !answer.is_empty() => {}
            other => drop(other?),
        }
        Ok(answer)
    };
    let answer = exchange().map_err(|source| DockerError::Socket { socket: socket.to_owned(), source })?;
    let (status, body) = take_apart(&answer).ok_or_else(|| DockerError::Malformed { doing: doing.into() })?;
    if (200..400).contains(&status) {
        return Ok(body.to_vec());
    }
    let told = serde_json::from_slice::<Value>(body).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
    Err(DockerError::Refused { doing: doing.into(), status, message: told.unwrap_or_default() })
}

fn take_apart(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.get(end + 4..)?))
}

/// A tar archive (POSIX ustar) of the directories that are mounted over, and of a file for the program.
fn empty_root() -> Vec<u8> {
    let mut tar = Vec::new();
    for directory in ["usr/", "lib/", "lib64/", "dev/", "proc/", "sys/", "etc/"] {
        tar.extend_from_slice(&tar_header(directory, b'5', 0o755));
    }
    tar.extend_from_slice(&tar_header("bulkhead", b'0', 0o755));
    tar.extend_from_slice(&[0; 1024]);
    tar
}

fn tar_header(name: &str, kind: u8, mode: u32) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0"); // uid
    put(116, b"0000000\0"); // gid
    put(124, b"00000000000\0"); // size
    put(136, b"00000000000\0"); // time
    put(148, b"        "); // the checksum counts itself as blanks
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart_or_refused() {
        assert_eq!(take_apart(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody"), Some((200, &b"body"[..])));
        for rubbish in [&b""[..], b"\r\n\r\n", b"HTTP/1.0\r\n\r\n", b"HTTP/1.0 many\r\n\r\n", b"\xff\r\n\r\n", b"HTTP/1.0 200 OK\r\n"] {
            assert_eq!(take_apart(rubbish), None);
        }
    }

    #[test]
    fn ids_that_would_change_a_request_are_passed_over() {
        let list = json!([{"Id": "ab12"}, {"Id": "x/../y"}, {"Id": ""}, {"Id": 7}, {}, {"Id": "a b"}]);
        assert_eq!(ids(&list).collect::<Vec<_>>(), ["ab12"]);
        assert_eq!(ids(&json!({"message": "no"})).count(), 0);
    }

    #[test]
    fn the_archive_is_one_that_tar_can_read() {
        let dir = std::env::temp_dir().join(format!("bulkhead-lab-tar-{}", std::process::id()));
        std::fs::write(&dir, empty_root()).expect("temporary file");
        let listed = std::process::Command::new("tar").arg("-tf").arg(&dir).output().expect("tar is there");
        std::fs::remove_file(&dir).expect("own file");
        assert!(listed.status.success());
        assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 8);
    }
}
