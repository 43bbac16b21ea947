//! `wrk` with 32 connections against `nginx` with one worker and a body of 1 KB: connections that stay, and one for each
//! request.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Ends, listens};
use crate::Error;
use crate::child::{Running, installed, run_to_end};

const BODY_BYTES: usize = 1024;
const START: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Each carries many requests.
    Kept,
    /// The server closes each after its answer.
    OneEach,
}

impl Connections {
    const fn port(self) -> u16 {
        match self {
            Self::Kept => 8080,
            Self::OneEach => 8081,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Http {
    pub requests_per_second: f64,
    pub p99_us: f64,
    /// Requests that ended in an error or in another status than 2xx.
    pub errors: u64,
}

/// Programs that are missing for this load.
pub fn missing() -> Option<&'static str> {
    ["nginx", "wrk"].into_iter().find(|program| !installed(program))
}

/// A web server in the server's namespace until it is dropped.
#[derive(Debug)]
pub struct Nginx {
    _process: Running,
}

impl Nginx {
    pub fn start(ends: &Ends<'_>, dir: &Path) -> Result<Self, Error> {
        let root = dir.join("nginx");
        fs::create_dir_all(&root).map_err(Error::io(format!("make {}", root.display())))?;
        let write = |name: &str, text: &str| fs::write(root.join(name), text).map_err(Error::io(format!("write {name}")));
        write("index.html", &"x".repeat(BODY_BYTES))?;
        write("nginx.conf", &config(ends, &root))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&root).arg("-c").arg(root.join("nginx.conf"));
        let mut process = Running::start("nginx", &ends.server.netns, &mut command, &dir.join("nginx.out"))?;
        process.wait_for("listening", START, || listens(ends.server, Connections::OneEach.port()).then_some(()))?;
        Ok(Self { _process: process })
    }
}

pub fn run(ends: &Ends<'_>, connections: Connections, time: Duration, dir: &Path) -> Result<Http, Error> {
    let url = format!("http://{}/index.html", ends.server_at(connections.port()));
    let mut command = Command::new("wrk");
    command.args(["-c32", "-t1", "--latency", &format!("-d{}s", time.as_secs().max(1)), &url]);
    let text = run_to_end("wrk", &ends.client.netns, &mut command, dir, time + Duration::from_secs(20))?;
    parse(&text).ok_or(Error::Unreadable { program: "wrk".into(), output: text })
}

fn config(ends: &Ends<'_>, root: &Path) -> String {
    let (root, address) = (root.display(), ends.server.v4);
    let (kept, one_each) = (Connections::Kept.port(), Connections::OneEach.port());
    // One process: the server's share of the processors does not depend on how workers are placed.
    format!(
        "daemon off;\nmaster_process off;\npid {root}/nginx.pid;\nerror_log stderr error;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  default_type text/html;\n  sendfile on;\n  tcp_nopush on;\n  open_file_cache max=16;\n\
         \x20 client_body_temp_path {root};\n  proxy_temp_path {root};\n  fastcgi_temp_path {root};\n  uwsgi_temp_path {root};\n  scgi_temp_path {root};\n\
         \x20 server {{ listen {address}:{kept}; root {root}; keepalive_timeout 60; keepalive_requests 100000000; }}\n\
         \x20 server {{ listen {address}:{one_each}; root {root}; keepalive_timeout 0; }}\n}}\n"
    )
}

/// `wrk --latency` writes for people: `    99%    3.21ms`, `Requests/sec:  26543.21`, and lines about errors if there were any.
fn parse(text: &str) -> Option<Http> {
    let after = |head: &str| text.lines().find_map(|line| line.trim().strip_prefix(head)).map(str::trim);
    let socket_errors = after("Socket errors:")
        .map_or(0, |line| line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok()).sum());
    let bad_answers = after("Non-2xx or 3xx responses:").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    Some(Http {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p99_us: microseconds(after("99%")?)?,
        errors: socket_errors + bad_answers,
    })
}

fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7), ("h", 3.6e9)];
    let (number, factor) = units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://203.0.113.3:8080/index.html
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.17ms  326.32us   6.98ms   89.23%
    Req/Sec    27.35k     1.62k   29.42k    70.00%
  Latency Distribution
     50%    1.11ms
     75%    1.22ms
     90%    1.40ms
     99%    2.44ms
  27200 requests in 1.00s, 32.79MB read
  Socket errors: connect 1, read 20, write 0, timeout 3
  Non-2xx or 3xx responses: 5
Requests/sec:  27168.77
Transfer/sec:     32.75MB
";

    #[test]
    fn what_wrk_writes_is_read() {
        let expected = Http { requests_per_second: 27168.77, p99_us: 2440.0, errors: 29 };
        assert_eq!(parse(WRK), Some(expected));
        let clean: String =
            WRK.lines().filter(|line| !line.contains("errors") && !line.contains("Non-2xx")).map(|l| format!("{l}\n")).collect();
        assert_eq!(parse(&clean), Some(Http { errors: 0, ..expected }));
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused"), None);
    }

    #[test]
    fn latencies_come_in_several_units() {
        let read: Vec<_> = ["326.00us", "2.44ms", "1.01s", "1.00m", "2.44", "ms"].map(microseconds).into();
        assert_eq!(read, [Some(326.0), Some(2440.0), Some(1_010_000.0), Some(6e7), None, None]);
    }
}
