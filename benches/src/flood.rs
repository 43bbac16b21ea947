//! A datagram of each of a million flows: do the caps hold, and is the agent still of use?

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_sys::netns::Netns;
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use serde_json::{Map, Value, json};

use crate::agent::{Agent, Depth};
use crate::child::TempDir;
use crate::figures::{mib, per_second, short};
use crate::host::{Memory, memory};
use crate::load::pingpong::Placement;
use crate::load::{Ends, pingpong};
use crate::path::Measured;
use crate::scene::{Between, Scene};
use crate::{Error, Report, Stop, host};

/// Send a datagram of each of very many flows, and see what the agent keeps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Flows, all different
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    flows: u32,

    /// The sending ends after this time at the latest
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    #[command(flatten)]
    measured: Measured,
}

/// Ports of the receiver that are used by one port of the sender.
const PORTS_EACH: u32 = 60_000;
const FIRST_PORT: u32 = 2_000;
const BATCH: u32 = 64;
/// The last port is one.
const _: () = assert!(FIRST_PORT + PORTS_EACH <= 65_536);
const PAYLOAD: [u8; 32] = [b'f'; 32];
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// After the flood, before the last look.
const SETTLE: Duration = Duration::from_secs(2);
const PING_PONG: Duration = Duration::from_secs(1);
/// Samples of the memory while the flood runs are taken by a thread that ends with it; this bounds them anyhow.
const SAMPLES_MAX: usize = 20_000;

pub fn run(args: &Args, stop: &Stop) -> Result<Report, Error> {
    let facts = host::facts();
    let dir = TempDir::new()?;
    let setup = args.measured.setup(&dir)?;
    let scene = Scene::build()?;
    let agent = Agent::start(&setup, Depth::Default, scene.host(), &dir)?;
    let ends = Ends { client: scene.client()?, server: scene.server(Between::Bridge)? };
    stop.check()?;

    let latency_before = pingpong::run(&ends, Placement::One, PING_PONG)?;
    let (memory_before, status_before) = (agent.memory()?, agent.status()?);
    let receiver = ends.server.v4;
    let done = AtomicBool::new(false);
    let flood = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(agent.pid(), &done));
        let sent = send(&ends.client.netns, receiver.into(), args.flows, Duration::from_secs(args.seconds), stop);
        // While the tables are still full of them.
        let latency = sent.is_ok().then(|| pingpong::run(&ends, Placement::One, PING_PONG));
        done.store(true, Ordering::Relaxed);
        let most = watching.join().unwrap_or_default();
        sent.and_then(|sent| Ok((sent, latency.transpose()?, most)))
    });
    let ((sent, time), latency_after, most) = flood?;
    thread::sleep(SETTLE);
    let (memory_after, status_after) = (agent.memory()?, agent.status()?);
    let coverage = agent.coverage()?;

    let counters = changed(&status_before, &status_after);
    let memory = |memory: Memory| json!({ "rss_bytes": memory.rss, "rss_bytes_max": memory.rss_max, "bpf_map_bytes": memory.bpf_maps });
    let json = json!({
        "host": facts,
        "flows_wanted": args.flows,
        "flows_sent": sent,
        "seconds": time.as_secs_f64(),
        "rules": args.measured.rules_name(),
        "before": memory(memory_before),
        "during": memory(most),
        "after": memory(memory_after),
        "ping_pong_before_us": { "p50": latency_before.p50_us, "p99": latency_before.p99_us },
        "ping_pong_after_us": latency_after.map(|latency| json!({ "p50": latency.p50_us, "p99": latency.p99_us })),
        "counters": counters,
        "path": status_after.get("path"),
        "degraded": status_after.get("degraded"),
        "coverage": coverage,
    });
    let mut text = format!(
        "{sent} flows of one datagram each in {:.1} s ({} flows/s).\n\n| | before | most during | after |\n|---|---:|---:|---:|\n",
        time.as_secs_f64(),
        short(per_second(u64::from(sent), time))
    );
    text += &format!("| agent's resident memory | {} | {} | {} |\n", mib(memory_before.rss), mib(most.rss_max), mib(memory_after.rss));
    text += &format!("| BPF maps it holds | {} | {} | {} |\n", mib(memory_before.bpf_maps), mib(most.bpf_maps), mib(memory_after.bpf_maps));
    text += &format!(
        "| TCP ping-pong p50 / p99 (µs) | {} / {} | | {} |\n\n",
        short(latency_before.p50_us),
        short(latency_before.p99_us),
        latency_after.map_or_else(|| "NOT RUN".into(), |l| format!("{} / {}", short(l.p50_us), short(l.p99_us)))
    );
    text += "Counters that changed:\n\n| counter | before | after |\n|---|---:|---:|\n";
    for (name, values) in &counters {
        text += &format!("| `{name}` | {} | {} |\n", values["before"], values["after"]);
    }
    Ok(Report { markdown: text, json })
}

/// One datagram from each pair of ports; gives how many were sent, and in which time.
fn send(netns: &Netns, receiver: std::net::IpAddr, flows: u32, time: Duration, stop: &Stop) -> Result<(u32, Duration), Error> {
    let began = Instant::now();
    let mut sent = 0;
    while sent < flows {
        let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0"))?.map_err(Error::io("bind a sender"))?;
        let until = (sent + PORTS_EACH).min(flows);
        let first = sent;
        while sent < until {
            if began.elapsed() >= time {
                return Ok((sent, began.elapsed()));
            }
            let ports = (sent - first)..(until - first).min(sent - first + BATCH);
            match send_each(&socket, receiver, ports) {
                Ok(count) => sent += count,
                // Answers of the receiver's ICMP come back as errors of the next call.
                Err(Errno::CONNREFUSED | Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(Error::Io { doing: "send datagrams".into(), source: errno.into() }),
            }
        }
        stop.check()?;
    }
    Ok((sent, began.elapsed()))
}

fn send_each(socket: impl AsFd, receiver: std::net::IpAddr, ports: std::ops::Range<u32>) -> Result<u32, Errno> {
    let slices = [std::io::IoSlice::new(&PAYLOAD)];
    let addresses: Vec<SocketAddrAny> = ports.map(|port| SocketAddr::new(receiver, (FIRST_PORT + port) as u16).into()).collect();
    let mut controls: Vec<_> = addresses.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> =
        addresses.iter().zip(&mut controls).map(|(address, control)| MMsgHdr::new_with_addr(address, &slices, control)).collect();
    sendmmsg(socket, &mut messages, SendFlags::empty()).map(|sent| sent as u32)
}

/// The most memory at any of many moments.
fn watch(pid: u32, done: &AtomicBool) -> Memory {
    let mut most = Memory::default();
    for _ in 0..SAMPLES_MAX {
        if let Ok(now) = memory(pid) {
            most.rss = most.rss.max(now.rss);
            most.rss_max = most.rss_max.max(now.rss_max);
            most.bpf_maps = most.bpf_maps.max(now.bpf_maps);
        }
        if done.load(Ordering::Relaxed) {
            return most;
        }
        thread::sleep(SAMPLE_EVERY);
    }
    most
}

/// Numbers anywhere in the two statuses that differ, by their path in it; times and memory are told elsewhere.
fn changed(before: &Value, after: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    collect("", before, after, &mut found);
    found.retain(|name, _| !["uptime_secs", "rss_bytes", "heartbeat_age_ms"].contains(&name.as_str()));
    found
}

fn collect(name: &str, before: &Value, after: &Value, found: &mut Map<String, Value>) {
    match after {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(&name, before.get(key).unwrap_or(&Value::Null), value, found);
            }
        }
        Value::Number(_) if before != after => {
            let before = if before.is_null() { json!(0) } else { before.clone() };
            if before != *after {
                found.insert(name.to_owned(), json!({ "before": before, "after": after }));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_changed_are_named_by_their_path() {
        let before = json!({"engine": {"flow.active": 1, "flow.total": 5}, "uptime_secs": 3, "version": "1"});
        let after = json!({"engine": {"flow.active": 9, "flow.total": 5, "flow.refused": 2, "x": 0}, "uptime_secs": 9, "version": "2"});
        let expected = json!({"engine.flow.active": {"before": 1, "after": 9}, "engine.flow.refused": {"before": 0, "after": 2}});
        assert_eq!(Value::Object(changed(&before, &after)), expected);
    }
}
