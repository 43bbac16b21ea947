//! Request and answer over one TCP connection, one at a time: what a call between services feels.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{Ends, connect, listen};
use crate::Error;
use crate::figures::percentile;

pub const REQUEST_BYTES: usize = 200;
pub const ANSWER_BYTES: usize = 1000;
/// Exchanges before the first that counts.
const WARM_UP: usize = 200;
/// Bounds the memory for samples: 40 s of the fastest exchange seen.
const SAMPLES_MAX: usize = 4_000_000;
const PORT: u16 = 5301;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingPong {
    pub p50_us: f64,
    pub p99_us: f64,
    pub exchanges: usize,
}

pub fn run(ends: &Ends<'_>, time: Duration) -> Result<PingPong, Error> {
    let listener = listen(ends, PORT)?;
    let (client, server) = connect(ends, &listener, PORT)?;
    let mut samples = thread::scope(|scope| {
        let answering = scope.spawn(move || answer(&server));
        let samples = ask(&client, time);
        drop(client); // the answering side reads the end
        let _ = answering.join();
        samples
    })
    .map_err(Error::io("exchange messages"))?;
    samples.sort_unstable();
    let microseconds = |percent| percentile(&samples, percent).map(|nanoseconds| f64::from(nanoseconds) / 1000.0);
    match (microseconds(50.0), microseconds(99.0)) {
        (Some(p50_us), Some(p99_us)) => Ok(PingPong { p50_us, p99_us, exchanges: samples.len() }),
        _ => Err(Error::Failed { program: "ping-pong".into(), output: "not one exchange was made".into() }),
    }
}

/// Nanoseconds of each exchange.
fn ask(mut stream: &TcpStream, time: Duration) -> std::io::Result<Vec<u32>> {
    let request = [b'q'; REQUEST_BYTES];
    let mut reply = [0; ANSWER_BYTES];
    let mut samples = Vec::with_capacity(SAMPLES_MAX);
    for _ in 0..WARM_UP {
        stream.write_all(&request)?;
        stream.read_exact(&mut reply)?;
    }
    let mut before = Instant::now();
    let until = before + time;
    while before < until && samples.len() < SAMPLES_MAX {
        stream.write_all(&request)?;
        stream.read_exact(&mut reply)?;
        let after = Instant::now();
        samples.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        before = after;
    }
    Ok(samples)
}

fn answer(mut stream: &TcpStream) {
    let reply = [b'a'; ANSWER_BYTES];
    let mut request = [0; REQUEST_BYTES];
    while stream.read_exact(&mut request).and_then(|()| stream.write_all(&reply)).is_ok() {}
}
