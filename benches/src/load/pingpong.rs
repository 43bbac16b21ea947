//! Request and answer over one TCP connection, one at a time: what a call between services feels.
//!
//! Where the scheduler puts the two ends decides more than anything in between: waking a sleeping processor costs more than
//! the packet's whole way. Left free, the figure jumps between two values from run to run; so it is measured with the ends
//! pinned as well.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_sys::sched;

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

/// Which processors the two ends may use; what is in between is always free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    Free,
    /// Both ends on the first.
    One,
    /// The client on the first, the server on the last.
    Two,
}

impl Placement {
    pub const ALL: [Self; 3] = [Self::Free, Self::One, Self::Two];

    /// Of client and server, out of those that there are.
    fn processors(self, all: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let first: Vec<_> = all.first().copied().into_iter().collect();
        let last = all.last().copied().into_iter().collect();
        match self {
            Self::Free => (all.to_vec(), all.to_vec()),
            Self::One => (first.clone(), first),
            Self::Two => (first, last),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingPong {
    pub p50_us: f64,
    pub p99_us: f64,
    pub exchanges: usize,
}

pub fn run(ends: &Ends<'_>, placement: Placement, time: Duration) -> Result<PingPong, Error> {
    let (client_on, server_on) = placement.processors(&sched::affinity()?);
    let listener = listen(ends, PORT)?;
    let (client, server) = connect(ends, &listener, PORT)?;
    let mut samples = thread::scope(|scope| {
        scope.spawn(move || sched::set_affinity(&server_on).map(|()| answer(&server)));
        // Dropped at its end: the answering side reads that.
        let asking = scope.spawn(move || sched::set_affinity(&client_on).map(|()| ask(&client, time)));
        asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?
    .map_err(Error::io("exchange messages"))?;
    samples.sort_unstable();
    let microseconds = |percent| percentile(&samples, percent).map(|nanoseconds| f64::from(nanoseconds) / 1000.0);
    match (microseconds(50.0), microseconds(99.0)) {
        (Some(p50_us), Some(p99_us)) => Ok(PingPong { p50_us, p99_us, exchanges: samples.len() }),
        _ => Err(Error::Failed { program: "ping-pong".into(), output: "not one exchange was made".into() }),
    }
}

/// Nanoseconds of each exchange.
fn ask(mut stream: &TcpStream, time: Duration) -> io::Result<Vec<u32>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_placed_on_processors_that_there_are() {
        let placed = |all: &[usize]| Placement::ALL.map(|placement| placement.processors(all));
        assert_eq!(placed(&[2, 3, 5]), [(vec![2, 3, 5], vec![2, 3, 5]), (vec![2], vec![2]), (vec![2], vec![5])]);
        assert_eq!(placed(&[7]), [(vec![7], vec![7]), (vec![7], vec![7]), (vec![7], vec![7])]);
    }
}
