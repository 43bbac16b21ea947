//! Throw-away containers, made without any image registry: an attacker, a web service that can be "exploited" and
//! something like a database, on one dual-stack bridge. Nothing in them is dangerous and nothing of them stays.
//!
//! [`Lab::up`] makes them as Docker containers where Docker answers, else as network namespaces; [`story::tell`] shows
//! with them what protection does; dropping the lab takes everything away. What a killed process left is removed by the
//! next [`Lab::up`] or by [`clean`]. The wiring ([`fabric`]) also serves the project's tests.
#![forbid(unsafe_code)]

pub mod act;
pub mod address;
mod docker;
pub mod fabric;
pub mod servers;
pub mod story;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_model::Mode;
use bulkhead_sys::lock::{self, LockFile};
use bulkhead_sys::netns::Netns;

pub use act::{Observation, Request};
use fabric::{Attach, Bridge, Fabric, FabricError, Host, NodePlan, Plan};
pub use servers::Role;

/// The lab's rules, in Suricata's language.
pub const RULES: &str = include_str!("../rules/lab.rules");
/// Selects the lab's workloads and nothing else.
pub const SELECTOR: &str = "lab-*";
/// Name of the bridge.
pub const BRIDGE: &str = "bhlab0";
/// The bridge's addresses; the nodes follow.
const GATEWAY: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 51, 100, 129), 27);
const GATEWAY6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2001, 0xdb8, 0xb, 1, 0, 0, 0, 1), 64);

/// How long the servers may take to listen.
const READY: Duration = Duration::from_secs(10);

/// How containers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// Docker where it answers, else namespaces.
    #[default]
    Auto,
    Namespaces,
    Docker,
}

/// What [`Lab::up`] needs to know.
#[derive(Debug, Clone)]
pub struct LabConfig {
    pub runtime: Runtime,
    /// The program that serves when it is run as `PROGRAM lab-node ROLE`: this one.
    pub program: PathBuf,
    /// Docker's socket.
    pub docker: PathBuf,
    /// Held while a lab is up: there can be one on a host.
    pub lock: PathBuf,
}

impl LabConfig {
    /// The running program, and the usual places.
    pub fn new() -> Result<Self, LabError> {
        let program = std::env::current_exe().map_err(LabError::Program)?;
        Ok(Self { runtime: Runtime::Auto, program, docker: "/run/docker.sock".into(), lock: "/run/bulkhead-lab.lock".into() })
    }
}

/// Why there is no lab: the operator's host in all cases.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab is up already")]
    Up(#[source] lock::Error),
    #[error("cannot lock")]
    Lock(#[source] lock::Error),
    #[error("cannot find this program's own file")]
    Program(#[source] std::io::Error),
    #[error("cannot build the lab's network")]
    Fabric(#[from] FabricError),
    #[error("cannot enter a node of the lab")]
    Os(#[from] bulkhead_sys::OsError),
    #[error("cannot start a node of the lab")]
    Node(#[source] std::io::Error),
    #[error("docker")]
    Docker(#[from] docker::DockerError),
    #[error("{0} does not listen after {READY:?}; is there a firewall that drops packets on a bridge?")]
    Silent(&'static str),
}

/// A running lab. Dropping it takes everything away.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<LabNode>,
    // In this order: containers before their network, all before the lock.
    _made: Made,
    _lock: LockFile,
}

/// One node, however it was made.
#[derive(Debug)]
pub struct LabNode {
    pub role: Role,
    /// Name of the workload: `lab-web`.
    pub name: String,
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

#[derive(Debug)]
enum Made {
    Namespaces { _processes: Vec<Node>, _fabric: Fabric },
    Docker { _project: docker::Project },
}

impl Lab {
    /// Makes the nodes and waits until the servers answer in their own namespaces. Traffic between nodes is left to the
    /// story: an agent that is running already may have an opinion on it.
    pub fn up(config: &LabConfig) -> Result<Self, LabError> {
        let lock = LockFile::acquire(&config.lock).map_err(|e| match e {
            lock::Error::Held { .. } => LabError::Up(e),
            lock::Error::Os(_) => LabError::Lock(e),
        })?;
        sweep(config)?;
        let docker = match config.runtime {
            Runtime::Namespaces => false,
            Runtime::Docker => true,
            Runtime::Auto => docker::answers(&config.docker),
        };
        let (nodes, made) = if docker { in_docker(config)? } else { in_namespaces(config)? };
        let lab = Self { nodes, _made: made, _lock: lock };
        lab.wait_listening()?;
        Ok(lab)
    }

    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// The lab runs in Docker.
    pub fn in_docker(&self) -> bool {
        matches!(self._made, Made::Docker { .. })
    }

    /// The attacker asks the web service what any user asks.
    pub fn benign(&self) -> Observation {
        self.act(Role::Attacker, Role::Web, Family::V4, &Request::benign())
    }

    /// The attacker exploits the web service.
    pub fn attack(&self) -> Observation {
        self.act(Role::Attacker, Role::Web, Family::V4, &Request::injection())
    }

    /// The same attack, cut over two segments.
    pub fn split_attack(&self) -> Observation {
        self.act(Role::Attacker, Role::Web, Family::V4, &Request::split_injection())
    }

    /// One node acts upon the server of another.
    pub fn act(&self, from: Role, to: Role, family: Family, request: &Request) -> Observation {
        let (from, to_node) = (self.node(from), self.node(to));
        let address = match family {
            Family::V4 => IpAddr::from(to_node.v4),
            Family::V6 => to_node.v6.into(),
        };
        request.send(&from.netns, SocketAddr::new(address, to.port().unwrap_or(servers::WEB_PORT)))
    }

    /// Takes everything away; what dropping the lab does too.
    pub fn down(self) {
        drop(self);
    }

    fn node(&self, role: Role) -> &LabNode {
        // INVARIANT: both makers make one node for each role.
        self.nodes.iter().find(|n| n.role == role).unwrap_or(&self.nodes[0])
    }

    fn wait_listening(&self) -> Result<(), LabError> {
        let end = Instant::now() + READY;
        for node in &self.nodes {
            let Some(port) = node.role.port() else { continue };
            let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            let listening = || node.netns.run(|| std::net::TcpStream::connect_timeout(&own, act::PATIENCE).is_ok());
            while !listening()? {
                if Instant::now() >= end {
                    return Err(LabError::Silent(node.role.name()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

/// The family of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Removes the lab of this very process, which is about to end without dropping it.
pub fn abandon(config: &LabConfig) -> Result<usize, LabError> {
    let removed = sweep(config);
    let _ = std::fs::remove_file(&config.lock); // the kernel's lock ends with the process
    removed
}

/// Removes what a killed lab left: gives how many things that were. Refused while a lab is up.
pub fn clean(config: &LabConfig) -> Result<usize, LabError> {
    let _lock = LockFile::acquire(&config.lock).map_err(LabError::Up)?;
    sweep(config)
}

/// The policy that the lab's story needs, as configuration text: the lab's rules, the mode of its workloads, and the
/// attacker kept away from the database. It concerns the lab's workloads alone.
pub fn policy(rules_file: &Path, mode: Mode) -> String {
    let mode = match mode {
        Mode::Monitor => "monitor",
        Mode::Protect => "protect",
    };
    format!(
        "# Made by `bulkhead lab`; goes with it.\n\
         rules:\n  files: [{}]\n\
         overrides:\n  - match: {{name: \"{SELECTOR}\"}}\n    mode: {mode}\n\
         segments:\n  rules:\n    - name: lab attacker keeps away from the database\n      from: {{name: lab-attacker}}\n      to: {{name: lab-database}}\n      action: deny\n",
        serde_json::Value::from(rules_file.display().to_string())
    )
}

fn node_name(role: Role) -> String {
    format!("lab-{}", role.name())
}

/// Addresses of a role: the bridge has the first ones of its networks.
fn addresses(role: Role) -> (Ipv4Addr, Ipv6Addr) {
    let number = match role {
        Role::Attacker => 1,
        Role::Web => 2,
        Role::Database => 3,
    };
    (Ipv4Addr::from(u32::from(GATEWAY.0) + number), Ipv6Addr::from(u128::from(GATEWAY6.0) + u128::from(number)))
}

fn plan() -> Plan {
    let node = |role| {
        let (v4, v6) = addresses(role);
        NodePlan { name: node_name(role), v4, v6, attach: Attach::Bridge(0) }
    };
    Plan {
        prefix: "bhlab".into(),
        host: Host::Current,
        bridges: vec![Bridge { name: BRIDGE.into(), v4: GATEWAY.0, v4_bits: GATEWAY.1, v6: GATEWAY6.0, v6_bits: GATEWAY6.1 }],
        nodes: Role::ALL.map(node).to_vec(),
        forwarding: false,
    }
}

fn sweep(config: &LabConfig) -> Result<usize, LabError> {
    let docker = if docker::answers(&config.docker) { docker::sweep(&config.docker)? } else { 0 };
    Ok(docker + plan().clean()?)
}

/// A server's process. Its standard input is a pipe that only we hold: when we end, however, it ends.
#[derive(Debug)]
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        let _ = self.0.wait();
    }
}

fn in_namespaces(config: &LabConfig) -> Result<(Vec<LabNode>, Made), LabError> {
    let fabric = Fabric::build(plan())?;
    let (mut nodes, mut processes) = (Vec::new(), Vec::new());
    for (role, node) in Role::ALL.into_iter().zip(fabric.nodes()) {
        let mut command = Command::new(&config.program);
        command.args(["lab-node", role.name()]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        processes.push(Node(node.spawn(&mut command).map_err(LabError::Node)?));
        nodes.push(LabNode { role, name: node.name.clone(), netns: node.netns.try_clone()?, v4: node.v4, v6: node.v6 });
    }
    Ok((nodes, Made::Namespaces { _processes: processes, _fabric: fabric }))
}

fn in_docker(config: &LabConfig) -> Result<(Vec<LabNode>, Made), LabError> {
    let mut project = docker::Project::create(&config.docker)?;
    let mut nodes = Vec::new();
    for role in Role::ALL {
        let (v4, v6) = addresses(role);
        let pid = project.start(role, &node_name(role), &config.program, v4, v6)?;
        nodes.push(LabNode { role, name: node_name(role), netns: Netns::open_pid(pid)?, v4, v6 });
    }
    Ok((nodes, Made::Docker { _project: project }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_addresses_may_stand_on_a_host() {
        plan().check().expect("documentation addresses");
        let all: Vec<_> = Role::ALL.iter().map(|r| addresses(*r)).collect();
        assert_eq!(all[0].0, Ipv4Addr::new(198, 51, 100, 130));
        assert_eq!(all[2].1, "2001:db8:b:1::4".parse::<Ipv6Addr>().expect("address"));
    }

    #[test]
    fn each_rule_has_a_number_of_its_own() {
        let rules: Vec<&str> = RULES.lines().filter(|l| l.starts_with("alert ") || l.starts_with("drop ")).collect();
        let mut sids: Vec<_> = rules.iter().filter_map(|r| r.split("sid:").nth(1)?.split(';').next()).collect();
        assert_eq!(sids.len(), rules.len());
        sids.sort_unstable();
        sids.dedup();
        assert_eq!(sids.len(), rules.len());
    }
}
