//! Processes: who listens, which engines run, and who belongs to which container. `/proc` is walked once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_inventory::cgroup;
use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{Engine, HostSnapshot, Listener};
use bulkhead_posture::view::flag;
use bulkhead_sys::procfs;

use crate::root::Root;

/// Processes that are looked at; the kernel's usual limit is 32,768, and 4 million at most.
pub const PROCESSES_MAX: usize = 200_000;
/// Open files of one process that are looked at for sockets.
const DESCRIPTORS_MAX: usize = 20_000;
/// Sockets told of.
const LISTENERS_MAX: usize = 5_000;
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Arguments of one process that are kept.
const ARGUMENTS_MAX: usize = 256;

pub struct Process {
    pub pid: u32,
    pub comm: String,
    pub exe: Option<String>,
    /// Of the container, by its cgroup.
    pub container: Option<String>,
    pub unit: Option<String>,
}

pub struct Seen {
    root: Root,
    live: bool,
    pub processes: Vec<Process>,
    /// Processes whose descriptors or namespaces could not be read.
    pub hidden: u64,
}

impl Seen {
    /// All processes of the root that runs; none of one that does not.
    pub fn look(root: &Root, live: bool) -> Self {
        let mut seen = Self { root: root.clone(), live, processes: Vec::new(), hidden: 0 };
        let Fact::Known(names) = root.names("/proc") else { return seen };
        let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        for pid in pids.into_iter().take(PROCESSES_MAX) {
            let Some(text) = root.line(&format!("/proc/{pid}/cgroup")).known().cloned() else { continue };
            let groups = procfs::parse_cgroups(&text);
            let path = cgroup::path(groups.v2.as_deref(), groups.v1.iter().map(|(_, path)| path.as_str()));
            let exe = link(root, pid, "exe");
            if exe.is_none() {
                // Kernel threads have none; those of others cannot be seen without the right.
                seen.hidden += u64::from(!root.line(&format!("/proc/{pid}/cmdline")).known().is_some_and(String::is_empty));
            }
            seen.processes.push(Process {
                pid,
                comm: root.line(&format!("/proc/{pid}/comm")).known().cloned().unwrap_or_default(),
                exe,
                container: cgroup::container(path).map(|named| named.id.to_owned()),
                unit: unit_of(&groups),
            });
        }
        seen
    }

    pub fn arguments(&self, pid: u32) -> Vec<String> {
        let Fact::Known(bytes) = self.root.bytes(&format!("/proc/{pid}/cmdline"), 1 << 20) else { return Vec::new() };
        let words = bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut words: Vec<String> = words.take(ARGUMENTS_MAX).collect();
        if words.last().is_some_and(String::is_empty) {
            words.pop();
        }
        words
    }

    /// Engines by their processes. The program's name is judged, not the command line's.
    pub fn engines(&self, snapshot: &mut HostSnapshot) {
        let mut engines: Vec<Engine> = Vec::new();
        let mut kubelet = None;
        for process in self.processes.iter().filter(|process| process.container.is_none()) {
            let program =
                process.exe.as_deref().and_then(|exe| exe.trim_end_matches(" (deleted)").rsplit('/').next()).unwrap_or(&process.comm);
            let kind = match program {
                "dockerd" => "docker",
                "containerd" => "containerd",
                "crio" => "crio",
                "podman" => "podman",
                "kubelet" | "k3s" | "rke2" => {
                    kubelet = kubelet.or_else(|| Some(self.arguments(process.pid)));
                    continue;
                }
                _ => continue,
            };
            let arguments = self.arguments(process.pid);
            let config = match kind {
                "docker" => flag(&arguments, "--config-file").unwrap_or_else(|| "/etc/docker/daemon.json".to_owned()),
                "containerd" => flag(&arguments, "--config")
                    .or_else(|| flag(&arguments, "-c"))
                    .unwrap_or_else(|| "/etc/containerd/config.toml".to_owned()),
                _ => String::new(),
            };
            let data_root = self.data_root(kind, &arguments, &config);
            let mut sockets: Vec<String> = Vec::new();
            for name in ["-H", "--host", "--address", "-a", "--listen"] {
                let mut rest = arguments.as_slice();
                while let Some(at) = rest
                    .iter()
                    .position(|argument| argument == name || argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
                {
                    let value = flag(rest.get(at..).unwrap_or_default(), name).unwrap_or_default();
                    let path = value.strip_prefix("unix://").unwrap_or(&value);
                    if path.starts_with('/') {
                        sockets.push(path.to_owned());
                    }
                    rest = rest.get(at + 1..).unwrap_or_default();
                }
            }
            engines.push(Engine {
                kind: kind.to_owned(),
                pid: Some(process.pid),
                exe: process.exe.clone(),
                arguments,
                config_path: config,
                data_root,
                sockets,
            });
        }
        snapshot.engines = Fact::Known(engines);
        snapshot.kubelet = kubelet.map_or(Fact::Absent, Fact::Known);
    }

    /// Where an engine keeps what containers are made of: its flag, its file, its usual place.
    fn data_root(&self, kind: &str, arguments: &[String], config: &str) -> String {
        let named = match kind {
            "docker" => ["--data-root", "-g", "--graph"].iter().find_map(|name| flag(arguments, name)).or_else(|| {
                let text = self.root.text(config);
                let tree: serde_json::Value = serde_json::from_str(text.known()?).ok()?;
                Some(tree.get("data-root")?.as_str()?.to_owned())
            }),
            "containerd" => flag(arguments, "--root"),
            _ => flag(arguments, "--root"),
        };
        named.unwrap_or_else(|| {
            match kind {
                "docker" => "/var/lib/docker",
                "containerd" => "/var/lib/containerd",
                _ => "/var/lib/containers/storage",
            }
            .to_owned()
        })
    }

    /// Sockets that listen in the host's network, with their processes.
    pub fn listeners(&self, snapshot: &mut HostSnapshot) {
        if !self.live {
            snapshot.listeners = Fact::Absent;
            return;
        }
        let mut sockets = Vec::new();
        let mut unread = None;
        for (file, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")] {
            let path = format!("/proc/1/net/{file}");
            let table = match self.root.bytes(&path, TABLE_BYTES_MAX) {
                Fact::Known(bytes) => Fact::Known(bytes),
                Fact::Absent | Fact::Unreadable(_) => self.root.bytes(&format!("/proc/net/{file}"), TABLE_BYTES_MAX),
            };
            match table {
                Fact::Known(bytes) => sockets.extend(inet(&String::from_utf8_lossy(&bytes), protocol)),
                Fact::Absent => {}
                Fact::Unreadable(why) => unread = Some(format!("{path}: {why}")),
            }
        }
        if let Some(why) = unread {
            snapshot.listeners = Fact::Unreadable(why);
            return;
        }
        let wanted: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        let owners = self.owners(&wanted);
        let by_pid: HashMap<u32, &Process> = self.processes.iter().map(|process| (process.pid, process)).collect();
        let mut list: Vec<Listener> = sockets
            .into_iter()
            .map(|socket| {
                let process = owners.get(&socket.inode).and_then(|pid| by_pid.get(pid));
                Listener {
                    protocol: socket.protocol.to_owned(),
                    address: socket.address.to_string(),
                    port: socket.port,
                    pid: process.map(|process| process.pid),
                    exe: process.and_then(|process| process.exe.clone()),
                    unit: process.and_then(|process| process.unit.clone()),
                    container: process.and_then(|process| process.container.clone()),
                    package: None,
                    uid: socket.uid,
                    connections: socket.connections,
                }
            })
            .collect();
        list.sort_by(|a, b| (a.port, &a.protocol, &a.address).cmp(&(b.port, &b.protocol, &b.address)));
        list.dedup();
        let more = list.len().saturating_sub(LISTENERS_MAX);
        if more > 0 {
            snapshot.beyond_caps.insert("listeners".to_owned(), more as u64);
            list.truncate(LISTENERS_MAX);
        }
        snapshot.listeners = Fact::Known(list);
    }

    /// Which process holds a socket: the oldest that has it open.
    fn owners(&self, wanted: &HashSet<u64>) -> HashMap<u64, u32> {
        let mut owners = HashMap::new();
        for process in &self.processes {
            if owners.len() == wanted.len() {
                break;
            }
            let Ok(folder) = self.root.resolve(&format!("/proc/{}/fd", process.pid)) else { continue };
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries.flatten().take(DESCRIPTORS_MAX) {
                let Ok(target) = fs::read_link(entry.path()) else { continue };
                let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
                if let Some(inode) = inode.filter(|inode| wanted.contains(inode)) {
                    owners.entry(inode).or_insert(process.pid);
                }
            }
        }
        owners
    }

    /// Processes of each container, the oldest first.
    pub fn by_container(&self) -> BTreeMap<&str, Vec<&Process>> {
        let mut map: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
        for process in &self.processes {
            if let Some(id) = &process.container {
                map.entry(id).or_default().push(process);
            }
        }
        map
    }
}

fn link(root: &Root, pid: u32, name: &str) -> Option<String> {
    let path = root.resolve_link(&format!("/proc/{pid}/{name}")).ok()?;
    fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned())
}

/// `/system.slice/ssh.service` is unit ssh.service.
fn unit_of(groups: &procfs::Cgroups) -> Option<String> {
    let systemd = groups.v1.iter().find(|(name, _)| name == "name=systemd").map(|(_, path)| path.as_str());
    let path = groups.v2.as_deref().filter(|path| *path != "/").or(systemd)?;
    path.split('/').find(|part| part.ends_with(".service") || part.ends_with(".scope")).map(str::to_owned)
}

struct Socket {
    protocol: &'static str,
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
    connections: u64,
}

/// TCP's LISTEN and UDP's unconnected sockets of one table: proc_net(5). Established ones count for their port.
fn inet(text: &str, protocol: &'static str) -> Vec<Socket> {
    let mut found = Vec::new();
    let mut connections: HashMap<u16, u64> = HashMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(remote), Some(state)) = (fields.get(1), fields.get(2), fields.get(3)) else { continue };
        let Some((address, port)) = endpoint(local) else { continue };
        let idle = endpoint(remote).is_some_and(|(_, port)| port == 0);
        match (protocol, *state) {
            ("tcp", "0A") | ("udp", "07") if idle => {
                let uid = fields.get(7).and_then(|uid| uid.parse().ok()).unwrap_or(u32::MAX);
                let inode = fields.get(9).and_then(|inode| inode.parse().ok()).unwrap_or(0);
                found.push(Socket { protocol, address, port, uid, inode, connections: 0 });
            }
            ("tcp", "01") => *connections.entry(port).or_default() += 1,
            _ => {}
        }
    }
    for socket in &mut found {
        socket.connections = connections.get(&socket.port).copied().unwrap_or(0);
    }
    found
}

/// `0100007F:1F90`: words of the machine's byte order.
pub fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes.get_mut(at * 4..at * 4 + 4)?.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((address, port))
}

/// Ports that listen in a table, for a container's own network.
pub fn listening_ports(text: &str) -> Vec<u16> {
    let ports: BTreeSet<u16> = inet(text, "tcp").into_iter().map(|socket| socket.port).collect();
    ports.into_iter().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_sockets_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
                    1: 0100007F:1F90 0100007F:AAAA 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
                    garbage\n";
        let found = inet(text, "tcp");
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].address.to_string().as_str(), found[0].port, found[0].inode, found[0].connections),
            ("127.0.0.1", 8080, 4711, 1)
        );
        assert_eq!(endpoint("00000000000000000000000001000000:0016").unwrap().0.to_string(), "::1");
        assert_eq!(endpoint("xx:1"), None);
        assert_eq!(endpoint("0100007F00:1"), None);
    }
}
