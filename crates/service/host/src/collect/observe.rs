//! What units do while they are watched: who connects, what is started, how much they compute. Nothing is asked of them.

use std::collections::{BTreeMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{HostSnapshot, Usage};

use super::processes::endpoint;
use crate::root::Root;
use crate::units::cgroup_of;

/// Between two looks. A connection shorter than this that ends without waiting (TIME-WAIT) can be missed; those that the
/// other end closes stay in sight for a minute.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest watch.
pub const OBSERVE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Ends of connections that are remembered.
const ENDS_MAX: usize = 100_000;

pub fn watch(root: &Root, duration: Duration, snapshot: &mut HostSnapshot) {
    if !snapshot.live {
        return;
    }
    let duration = duration.min(OBSERVE_MAX);
    let ports: BTreeMap<u16, String> = snapshot
        .listeners
        .known()
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one.port, one.unit.clone()?)))
        .filter(|(port, _)| *port != 0)
        .collect();
    let names: Vec<String> =
        snapshot.units.known().into_iter().flatten().filter(|unit| unit.name.ends_with(".service")).map(|unit| unit.name.clone()).collect();
    let begin = Instant::now();
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    let mut ends: HashSet<(u16, String)> = HashSet::new();
    let mut populated: BTreeMap<&str, bool> = BTreeMap::new();
    let cpu = |name: &str| cgroup_of(root, name).and_then(|folder| micros(root, &folder));
    let before: BTreeMap<&str, u64> = names.iter().filter_map(|name| Some((name.as_str(), cpu(name)?))).collect();
    let mut first = true;
    while begin.elapsed() < duration || first {
        for file in ["tcp", "tcp6"] {
            let Fact::Known(bytes) = root.bytes(&format!("/proc/1/net/{file}"), 64 << 20) else { continue };
            for line in String::from_utf8_lossy(&bytes).lines().skip(1) {
                let mut fields = line.split_whitespace().skip(1);
                let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
                let Some((_, port)) = endpoint(local) else { continue };
                // All but LISTEN: what is established, ending or ended.
                if state != "0A" && ports.contains_key(&port) && ends.len() < ENDS_MAX && ends.insert((port, remote.to_owned())) {
                    let unit = ports.get(&port).cloned().unwrap_or_default();
                    usage.entry(unit).or_default().connections += 1;
                }
            }
        }
        for name in &names {
            let now = cgroup_of(root, name).is_some();
            if !first && now && populated.get(name.as_str()) == Some(&false) {
                usage.entry(name.clone()).or_default().activations += 1;
            }
            populated.insert(name, now);
        }
        first = false;
        thread::sleep(PAUSE.min(duration.saturating_sub(begin.elapsed())));
    }
    for (name, before) in &before {
        let after = cpu(name).unwrap_or(*before);
        usage.entry((*name).to_owned()).or_default().cpu_micros = after.saturating_sub(*before);
    }
    if let Fact::Known(units) = &mut snapshot.units {
        for unit in units {
            // A socket is used when its service is.
            let service =
                unit.name.strip_suffix(".socket").or_else(|| unit.name.strip_suffix(".path")).map(|stem| format!("{stem}.service"));
            unit.usage = Some(usage.get(&unit.name).or_else(|| usage.get(&service?)).cloned().unwrap_or_default());
        }
    }
    snapshot.observed_seconds = Some(begin.elapsed().as_secs());
}

fn micros(root: &Root, folder: &str) -> Option<u64> {
    let text = root.line(&format!("{folder}/cpu.stat"));
    text.known()?.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()
}
