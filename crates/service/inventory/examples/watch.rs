//! Prints the workloads of this host as JSON, then follows them for as many seconds as the first
//! argument says (default 0). `DOCKER_HOST`, `PODMAN_SOCKET`, `PODMAN_STORAGE`, `CONTAINERD_SOCKET` and
//! `CRI_SOCKET` name other places than the usual ones.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_inventory::{Change, Config, Inventory};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        config.set_docker_host(&host)?;
    }
    for (name, sockets) in
        [("PODMAN_SOCKET", &mut config.podman), ("CONTAINERD_SOCKET", &mut config.containerd), ("CRI_SOCKET", &mut config.cri)]
    {
        if let Ok(path) = std::env::var(name) {
            *sockets = vec![path.into()];
        }
    }
    if let Ok(path) = std::env::var("PODMAN_STORAGE") {
        config.podman_storage = vec![path.into()];
    }
    let until = Instant::now() + Duration::from_secs(std::env::args().nth(1).map_or(Ok(0), |seconds| seconds.parse())?);
    let inventory = Inventory::start(config)?;
    let settled = inventory.wait_settled(Duration::from_secs(10));
    let (snapshot, changes) = inventory.subscribe();
    eprintln!("settled: {settled}, revision {}", snapshot.revision);
    for engine in &snapshot.engines {
        eprintln!("{} {}: {:?}, {} containers", engine.kind.name(), engine.socket.display(), engine.state, engine.containers);
    }
    if let Some(problem) = &snapshot.problem {
        eprintln!("problem: {problem}");
    }
    println!("{}", serde_json::to_string_pretty(&snapshot.workloads)?);
    while let Ok(change) = changes.recv_timeout(until.saturating_duration_since(Instant::now())) {
        let (what, workload) = match &change {
            Change::Added(workload) => ("added", workload),
            Change::Removed(workload) => ("removed", workload),
            Change::Changed(workload) => ("changed", workload),
            Change::Resync => continue,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        println!("{now:.4} {what} {}", serde_json::to_string(workload)?);
    }
    eprintln!("{:?}", inventory.counters());
    Ok(())
}
