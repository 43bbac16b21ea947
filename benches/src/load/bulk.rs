//! One-way TCP in writes of 128 KiB: `iperf3` where it is installed, else a sender and receiver of our own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Ends, connect, listen, listens};
use crate::Error;
use crate::child::{Running, installed, run_to_end};

const WRITE_BYTES: usize = 128 * 1024;
const PORT: u16 = 5201;
const START: Duration = Duration::from_secs(5);

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bulk {
    pub bytes: u64,
    pub seconds: f64,
    /// Segments sent again; none where the generator does not know.
    pub retransmits: Option<u64>,
}

/// Name of the generator that [`run`] uses.
pub fn generator() -> &'static str {
    if installed("iperf3") { "iperf3" } else { "own sender" }
}

pub fn run(ends: &Ends<'_>, streams: usize, time: Duration, dir: &Path) -> Result<Bulk, Error> {
    if installed("iperf3") { iperf3(ends, streams, time, dir) } else { own(ends, streams, time) }
}

fn iperf3(ends: &Ends<'_>, streams: usize, time: Duration, dir: &Path) -> Result<Bulk, Error> {
    let address = ends.server.v4.to_string();
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--bind", &address, "--port", &PORT.to_string()]);
    let mut server = Running::start("iperf3-server", &ends.server.netns, &mut server, &dir.join("iperf3-server.out"))?;
    server.wait_for("listening", START, || listens(ends.server, PORT).then_some(()))?;
    let mut client = Command::new("iperf3");
    client.args(["--client", &address, "--port", &PORT.to_string(), "--json"]);
    client.args(["--length", &WRITE_BYTES.to_string(), "--parallel", &streams.to_string()]);
    client.args(["--time", &time.as_secs().max(1).to_string()]);
    let text = run_to_end("iperf3", &ends.client.netns, &mut client, dir, time + Duration::from_secs(20))?;
    parse(&text).ok_or(Error::Unreadable { program: "iperf3".into(), output: text.chars().take(500).collect() })
}

/// `end.sum_received` of iperf3's JSON: counted by the receiver, told to the sender at the end.
fn parse(text: &str) -> Option<Bulk> {
    let json: Value = serde_json::from_str(text).ok()?;
    let received = json.pointer("/end/sum_received")?;
    let seconds = received.get("seconds")?.as_f64()?;
    Some(Bulk {
        bytes: received.get("bytes")?.as_u64()?,
        seconds: (seconds > 0.0).then_some(seconds)?,
        retransmits: json.pointer("/end/sum_sent/retransmits").and_then(Value::as_u64),
    })
}

/// Each stream is a thread on either side, as with iperf3 of version 3.16 and later.
fn own(ends: &Ends<'_>, streams: usize, time: Duration) -> Result<Bulk, Error> {
    let listener = listen(ends, PORT)?;
    let pairs = (0..streams).map(|_| connect(ends, &listener, PORT)).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    let until = began + time;
    let bytes = thread::scope(|scope| {
        let receivers: Vec<_> = pairs
            .iter()
            .map(|(client, server)| {
                scope.spawn(move || send(client, until));
                scope.spawn(move || receive(server))
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().unwrap_or(0)).sum()
    });
    Ok(Bulk { bytes, seconds: began.elapsed().as_secs_f64(), retransmits: None })
}

fn send(mut stream: &TcpStream, until: Instant) {
    let block: Vec<u8> = (0..WRITE_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    while Instant::now() < until && stream.write_all(&block).is_ok() {}
    let _ = stream.shutdown(Shutdown::Write); // the receiver ends by its time-out otherwise
}

fn receive(mut stream: &TcpStream) -> u64 {
    let mut buffer = vec![0; WRITE_BYTES];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(n) => bytes += n as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iperf3_writes_is_read() {
        let text =
            r#"{"start": {}, "end": {"sum_sent": {"bytes": 130, "retransmits": 7}, "sum_received": {"seconds": 2.0, "bytes": 120}}}"#;
        assert_eq!(parse(text), Some(Bulk { bytes: 120, seconds: 2.0, retransmits: Some(7) }));
        for broken in ["", "{}", r#"{"error": "unable to connect"}"#, r#"{"end": {"sum_received": {"seconds": 0.0, "bytes": 1}}}"#] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
