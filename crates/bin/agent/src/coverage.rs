//! Coverage: what the kernel carried against what was judged, by pair and by interface. Pure arithmetic over map rows.
//!
//! Two independent countings meet here. The hooks count every packet they see by what became of it; the network
//! devices count what they carried without knowing of hooks. Where the devices carried more than the hooks saw, there is a gap.

use std::collections::BTreeMap;

use bulkhead_api::{Coverage, InterfaceCoverage, PairCoverage, PathFamily, PathKind};
use bulkhead_bpf::layout::{PAIR_VLAN, PairKey, PairValue, class};
use bulkhead_model::WorkloadId;
use bulkhead_sys::netlink::LinkStats;

use crate::registry::Directory;

/// Bytes of a VLAN tag, which devices count and hooks may not see.
const TAG_BYTES: u64 = 4;

/// An armed interface with its device's counters.
#[derive(Debug, Clone)]
pub struct Device {
    pub number: u16,
    pub name: String,
    /// Inside a container: there is no device of the host to compare with.
    pub inside: bool,
    pub workload: WorkloadId,
    pub bridge: Option<String>,
    /// Counters now and when it was armed. `None`: not known.
    pub now: Option<LinkStats>,
    pub baseline: LinkStats,
}

/// Where a container is attached, for telling kinds of path apart.
fn bridge_of<'a>(directory: &'a Directory, id: WorkloadId, devices: &'a [Device]) -> Vec<&'a str> {
    let mut bridges: Vec<&str> =
        devices.iter().filter(|device| device.workload == id).filter_map(|device| device.bridge.as_deref()).collect();
    if let Some(entry) = directory.entries.get(&id) {
        bridges.extend(entry.workload.interfaces.iter().filter_map(|interface| interface.bridge.as_deref()));
    }
    bridges
}

fn kind(directory: &Directory, devices: &[Device], device: &Device, remote: WorkloadId, to_container: bool) -> PathKind {
    if device.inside {
        return PathKind::Macvlan;
    }
    match remote {
        WorkloadId::HOST if to_container => PathKind::HostToContainer,
        WorkloadId::HOST => PathKind::ContainerToHost,
        WorkloadId::WORLD => PathKind::Internet,
        other => {
            let theirs = bridge_of(directory, other, devices);
            match &device.bridge {
                Some(ours) if theirs.contains(&ours.as_str()) => PathKind::SameBridge,
                _ => PathKind::CrossBridge,
            }
        }
    }
}

/// `rows` are the coverage map's; `devices` every armed interface.
pub fn coverage(directory: &Directory, rows: &[(PairKey, PairValue)], devices: &[Device]) -> Coverage {
    let by_number: BTreeMap<u32, &Device> = devices.iter().map(|device| (u32::from(device.number), device)).collect();
    let mut pairs: BTreeMap<(String, String, PathKind, PathFamily, bool), PairCoverage> = BTreeMap::new();
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let mut judged_total = 0u64;
    let mut gap_total = 0u64;
    for (key, value) in rows {
        let Some(device) = by_number.get(&key.port) else { continue };
        let to_container = key.direction == 1;
        let vlan = key.flags & PAIR_VLAN != 0;
        *seen.entry(key.port).or_default() += device_bytes(value, to_container, vlan);

        let local = device.workload;
        let remote = WorkloadId(key.remote);
        let (src, dst) = if to_container { (remote, local) } else { (local, remote) };
        let family = match key.version {
            4 => PathFamily::Ipv4,
            6 => PathFamily::Ipv6,
            _ => PathFamily::Other,
        };
        let path = kind(directory, devices, device, remote, to_container);
        let name = (directory.name(src), directory.name(dst), path, family, vlan);
        let bytes = &value.bytes;
        // What is judged elsewhere is counted there; here it only has to be seen.
        let inspected = bytes[class::INSPECTED] + bytes[class::HEADER] + bytes[class::NON_IP];
        let bypassed = [
            ("depth", bytes[class::BYPASS_DEPTH]),
            ("encrypted", bytes[class::BYPASS_ENCRYPTED]),
            ("policy", bytes[class::BYPASS_POLICY]),
            ("fail-open", bytes[class::FAIL_OPEN]),
        ];
        let returned = bytes[class::INSPECTED] + bytes[class::DROP_ENGINE];
        let lost = bytes[class::HELD].saturating_sub(returned);
        let dropped = [
            ("rule", bytes[class::DROP_ENGINE]),
            ("flow", bytes[class::DROP_FLOW]),
            ("segment", bytes[class::DROP_SEGMENT]),
            ("fail-closed", bytes[class::DROP_FAIL_CLOSED]),
            ("cap", bytes[class::DROP_UNKNOWN]),
            ("queue", lost),
        ];
        let carried = inspected + bypassed.iter().chain(&dropped).map(|(_, bytes)| bytes).sum::<u64>();
        if carried == 0 {
            continue;
        }
        judged_total += carried;
        let packets = value.packets.iter().sum::<u64>()
            - value.packets[class::HELD]
            - value.packets[class::ELSEWHERE]
            - value.packets[class::INJECTED];
        let pair = pairs.entry(name.clone()).or_insert_with(|| PairCoverage {
            src: name.0,
            dst: name.1,
            kind: name.2,
            family: name.3,
            vlan: name.4,
            carried_packets: 0,
            carried_bytes: 0,
            inspected_bytes: 0,
            bypassed: BTreeMap::new(),
            dropped: BTreeMap::new(),
            gap_bytes: 0,
        });
        pair.carried_packets += packets;
        pair.carried_bytes += carried;
        pair.inspected_bytes += inspected;
        for (reason, bytes) in bypassed {
            if bytes > 0 {
                *pair.bypassed.entry(reason.to_owned()).or_default() += bytes;
            }
        }
        for (reason, bytes) in dropped {
            if bytes > 0 {
                *pair.dropped.entry(reason.to_owned()).or_default() += bytes;
            }
        }
    }

    let mut interfaces = Vec::new();
    for device in devices.iter().filter(|device| !device.inside) {
        let Some(now) = device.now else { continue };
        let carried = |now: u64, then: u64| now.saturating_sub(then);
        let kernel = carried(now.rx_bytes, device.baseline.rx_bytes) + carried(now.tx_bytes, device.baseline.tx_bytes);
        let seen = seen.get(&u32::from(device.number)).copied().unwrap_or(0);
        let gap = kernel.saturating_sub(seen);
        gap_total += gap;
        interfaces.push(InterfaceCoverage {
            interface: device.name.clone(),
            workload: directory.name(device.workload),
            kernel_bytes: kernel,
            seen_bytes: seen,
            gap_bytes: gap,
        });
    }
    let total = judged_total + gap_total;
    Coverage {
        pairs: pairs.into_values().collect(),
        interfaces,
        total_percent: if total == 0 { 100.0 } else { judged_total as f64 * 100.0 / total as f64 },
        complete: gap_total == 0,
    }
}

/// What the device must have counted for this row. From the container: every packet that reached the hook the first time.
/// Towards it: every packet that the hook let through.
fn device_bytes(value: &PairValue, to_container: bool, vlan: bool) -> u64 {
    let passed = [
        class::HEADER,
        class::BYPASS_DEPTH,
        class::BYPASS_ENCRYPTED,
        class::BYPASS_POLICY,
        class::FAIL_OPEN,
        class::ELSEWHERE,
        class::NON_IP,
    ];
    let more: &[usize] = if to_container {
        &[class::INSPECTED, class::INJECTED]
    } else {
        &[class::HELD, class::DROP_FLOW, class::DROP_SEGMENT, class::DROP_FAIL_CLOSED, class::DROP_UNKNOWN]
    };
    let classes = || passed.iter().chain(more);
    let bytes: u64 = classes().map(|class| value.bytes[*class]).sum();
    let packets: u64 = classes().map(|class| value.packets[*class]).sum();
    bytes + if vlan { packets * TAG_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(rx: u64, tx: u64) -> Device {
        Device {
            number: 1,
            name: "veth1".into(),
            inside: false,
            workload: WorkloadId(2),
            bridge: Some("br0".into()),
            now: Some(LinkStats { rx_bytes: rx, tx_bytes: tx, ..LinkStats::default() }),
            baseline: LinkStats::default(),
        }
    }

    fn row(direction: u8, class: usize, bytes: u64) -> (PairKey, PairValue) {
        let mut value = PairValue::default();
        value.bytes[class] = bytes;
        value.packets[class] = 1;
        (PairKey { port: 1, remote: 0, direction, version: 4, flags: 0, pad: 0 }, value)
    }

    #[test]
    fn bytes_that_no_hook_saw_are_a_gap() {
        let rows = [row(0, class::HEADER, 60), row(1, class::HEADER, 40)];
        let report = coverage(&Directory::default(), &rows, &[device(100, 40)]);
        assert!(!report.complete);
        assert_eq!(report.interfaces[0].gap_bytes, 40);
        assert!((report.total_percent - 100.0 * 100.0 / 140.0).abs() < 1e-9);
        assert!(coverage(&Directory::default(), &rows, &[device(60, 40)]).complete);
    }

    #[test]
    fn a_held_packet_is_counted_once_and_a_lost_one_as_dropped() {
        let mut value = PairValue::default();
        value.bytes[class::HELD] = 300;
        value.packets[class::HELD] = 3;
        value.bytes[class::INSPECTED] = 100;
        value.packets[class::INSPECTED] = 1;
        value.bytes[class::DROP_ENGINE] = 100;
        value.packets[class::DROP_ENGINE] = 1;
        let rows = [(PairKey { port: 1, direction: 0, version: 4, ..PairKey::default() }, value)];
        let report = coverage(&Directory::default(), &rows, &[device(300, 0)]);
        let pair = &report.pairs[0];
        assert_eq!((pair.carried_bytes, pair.inspected_bytes), (300, 100));
        assert_eq!(pair.dropped.get("rule"), Some(&100));
        assert_eq!(pair.dropped.get("queue"), Some(&100));
        assert!(report.complete);
    }
}
