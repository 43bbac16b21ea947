//! containerd's gRPC services: namespaces, containers, tasks, events.
//!
//! A container is metadata, a task is its running process; both lists together are the picture.
//! Events only say that something happened in a namespace: its lists are asked for again, once for
//! all events that wait. Kubernetes' CRI plugin keeps its containers in the namespace `k8s.io`
//! with labels that tell pod and name; nerdctl does so with labels of its own.
//! Sources: containerd api/services/{version,namespaces,containers,tasks,events}/v1/*.proto;
//! internal/cri/labels; nerdctl pkg/labels.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bulkhead_model::{Published, Runtime};
use serde::Deserialize;

use crate::bounded::CappedVec;
use crate::cgroup;
use crate::engine::{CONTAINERS_MAX, LABELS_MAX, Link, PORTS_MAX, Session, Update};
use crate::grpc::protobuf::{entry, fields, put_bytes};
use crate::grpc::{self, Call};
use crate::resolve::Container;
use crate::socket::Error;

/// Bytes of one container with its OCI specification, or of a list of tasks.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const EVENT_BYTES_MAX: usize = 1024 * 1024;
const NAMESPACES_MAX: usize = 256;
/// Namespaces of Docker, which lists its containers itself.
const DOCKERS: [&str; 2] = ["moby", "plugins.moby"];
/// After an event, so long is waited for more of them before the lists are asked for: a start is
/// three events within a few milliseconds.
const SETTLE: Duration = Duration::from_millis(5);

/// Follows one containerd.
#[derive(Default)]
pub(crate) struct Containerd {
    /// By namespace; what was told already, so that only differences are told.
    told: BTreeMap<String, BTreeMap<String, Container>>,
}

impl Containerd {
    /// Asks for a namespace's lists and tells what differs.
    fn list(&mut self, link: &Link, namespace: &str) -> Result<(), Error> {
        let tasks = tasks(link, namespace)?;
        let containers = containers(link, namespace, &tasks)?;
        let told = self.told.entry(namespace.to_owned()).or_default();
        for id in told.keys().filter(|id| !containers.contains_key(*id)) {
            link.send(Update::Stopped { engine: link.engine, id: id.clone() })?;
        }
        for (id, container) in &containers {
            if told.get(id) != Some(container) {
                link.running(container.clone())?;
            }
        }
        *told = containers;
        Ok(())
    }

    /// All namespaces, and away with what is in none of them.
    fn list_all(&mut self, link: &Link) -> Result<(), Error> {
        let namespaces = namespaces(link)?;
        self.told.retain(|namespace, _| namespaces.contains(namespace));
        for namespace in &namespaces {
            self.list(link, namespace)?;
        }
        let ids = self.told.values().flat_map(BTreeMap::keys).cloned().collect();
        link.send(Update::Only { engine: link.engine, ids })
    }
}

impl Session for Containerd {
    fn follow(&mut self, link: &Link) -> Result<Infallible, Error> {
        // What the inventory still has may be older than the engine's restart: tell all anew.
        self.told.clear();
        let version = {
            let (stream, _open, deadline) = link.connect()?;
            let answer = grpc::unary(stream, "/containerd.services.version.v1.Version/Version", &[], &[], MESSAGE_BYTES_MAX, deadline)?;
            text_field(&answer, 1)?
        };
        link.send(Update::Answered)?;
        let (stream, _open, deadline) = link.connect()?;
        let mut filters = Vec::new();
        for filter in [r#"topic~="^/tasks/(start|exit|delete|paused|resumed)""#, r#"topic~="^/containers/""#, r#"topic~="^/namespaces/""#] {
            put_bytes(&mut filters, 1, filter.as_bytes());
        }
        let mut events = Call::open(stream, "/containerd.services.events.v1.Events/Subscribe", &[], &filters, deadline)?;
        self.list_all(link)?;
        link.up(&version)?;
        let mut resync = Instant::now() + link.config.resync_interval;
        loop {
            let mut touched = BTreeSet::new();
            let mut until = resync;
            loop {
                match events.next(EVENT_BYTES_MAX, until) {
                    Ok(Some(envelope)) => {
                        touched.insert(text_field(&envelope, 2)?);
                        until = until.min(Instant::now() + SETTLE);
                    }
                    Ok(None) => return Err(Error::Closed),
                    Err(Error::Timeout) => break,
                    Err(error) => return Err(error),
                }
                if touched.len() > NAMESPACES_MAX {
                    return Err(Error::TooLarge { what: "namespaces in events", max: NAMESPACES_MAX });
                }
            }
            link.send(Update::Answered)?;
            if touched.is_empty() || touched.iter().any(|namespace| !self.told.contains_key(namespace) && !is_dockers(namespace)) {
                self.list_all(link)?;
                resync = Instant::now() + link.config.resync_interval;
            } else {
                for namespace in touched.iter().filter(|namespace| !is_dockers(namespace)) {
                    self.list(link, namespace)?;
                }
            }
        }
    }
}

fn is_dockers(namespace: &str) -> bool {
    DOCKERS.contains(&namespace)
}

fn namespaces(link: &Link) -> Result<BTreeSet<String>, Error> {
    let (stream, _open, deadline) = link.connect()?;
    let answer = grpc::unary(stream, "/containerd.services.namespaces.v1.Namespaces/List", &[], &[], MESSAGE_BYTES_MAX, deadline)?;
    let mut namespaces = BTreeSet::new();
    for field in fields(&answer) {
        if let (1, namespace) = field? {
            namespaces.insert(text_field(namespace.bytes(), 1)?);
        }
    }
    // A name goes into a request's header; containerd allows letters, digits, `.`, `-` and `_`.
    namespaces.retain(|name| !is_dockers(name) && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
    let beyond_cap = namespaces.len().saturating_sub(NAMESPACES_MAX);
    link.beyond_cap(beyond_cap as u64)?;
    Ok(namespaces.into_iter().take(NAMESPACES_MAX).collect())
}

/// First processes of the namespace's running tasks, by container.
fn tasks(link: &Link, namespace: &str) -> Result<BTreeMap<String, u32>, Error> {
    let (stream, _open, deadline) = link.connect()?;
    let metadata = [("containerd-namespace", namespace)];
    let answer = grpc::unary(stream, "/containerd.services.tasks.v1.Tasks/List", &metadata, &[], MESSAGE_BYTES_MAX, deadline)?;
    link.send(Update::Answered)?;
    parse_tasks(&answer)
}

fn parse_tasks(answer: &[u8]) -> Result<BTreeMap<String, u32>, Error> {
    let mut running = BTreeMap::new();
    for field in fields(answer) {
        let (1, task) = field? else { continue };
        let (mut container, mut id, mut pid, mut status) = (String::new(), String::new(), 0, 0);
        for field in fields(task.bytes()) {
            match field? {
                (1, value) => container = value.text(),
                (2, value) => id = value.text(),
                (3, value) => pid = u32::try_from(value.number()).unwrap_or(0),
                (4, value) => status = value.number(),
                (_, _) => {}
            }
        }
        // In a list of tasks containerd fills only `id`, with the container's.
        let container = if container.is_empty() { id } else { container };
        if pid != 0 && ALIVE.contains(&status) && running.len() < CONTAINERS_MAX {
            running.insert(container, pid);
        }
    }
    Ok(running)
}

/// Task states CREATED (the process waits to be started), RUNNING, PAUSED, PAUSING.
const ALIVE: [u64; 4] = [1, 2, 4, 5];

/// The namespace's containers that have a process.
fn containers(link: &Link, namespace: &str, tasks: &BTreeMap<String, u32>) -> Result<BTreeMap<String, Container>, Error> {
    if tasks.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (stream, _open, deadline) = link.connect()?;
    let metadata = [("containerd-namespace", namespace)];
    // As a stream of one container per message: as a list, 200 of them pass gRPC's usual 4 MiB.
    let mut call = Call::open(stream, "/containerd.services.containers.v1.Containers/ListStream", &metadata, &[], deadline)?;
    let mut containers = BTreeMap::new();
    let mut beyond_cap = 0;
    while let Some(message) = call.next(MESSAGE_BYTES_MAX, deadline)? {
        let Some(container) = parse_container(&message, namespace, tasks, &mut beyond_cap)? else { continue };
        if containers.len() >= CONTAINERS_MAX {
            beyond_cap += 1;
        } else {
            containers.insert(container.id.clone(), container);
        }
    }
    link.send(Update::Answered)?;
    link.beyond_cap(beyond_cap)?;
    Ok(containers)
}

/// A `ListContainerMessage`; none when the container has no process.
fn parse_container(
    message: &[u8],
    namespace: &str,
    tasks: &BTreeMap<String, u32>,
    beyond_cap: &mut u64,
) -> Result<Option<Container>, Error> {
    let mut container = &[][..];
    for field in fields(message) {
        if let (1, value) = field? {
            container = value.bytes();
        }
    }
    let (mut id, mut image, mut labels) = (String::new(), String::new(), BTreeMap::new());
    for field in fields(container) {
        match field? {
            (1, value) => id = value.text(),
            (2, value) if labels.len() < LABELS_MAX => {
                let (key, value) = entry(value.bytes())?;
                labels.insert(key, value);
            }
            (2, _) => *beyond_cap += 1,
            (3, value) => image = value.text(),
            (_, _) => {}
        }
    }
    let Some(&pid) = tasks.get(&id) else { return Ok(None) };
    Ok(Some(describe(id, image, labels, namespace, pid)))
}

fn describe(id: String, image: String, labels: BTreeMap<String, String>, namespace: &str, pid: u32) -> Container {
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let kubernetes = kubernetes_name(&labels);
    let runtime = if namespace == "k8s.io" || kubernetes.is_some() { Runtime::Cri } else { Runtime::Containerd };
    let name = kubernetes.or_else(|| label("nerdctl/name").map(str::to_owned)).unwrap_or_else(|| id.clone());
    Container {
        name,
        image: Some(image).filter(|image| !image.is_empty()),
        runtime,
        pid: Some(pid),
        joins: None,
        may_use_host: true,
        sandbox: label("io.cri-containerd.kind") == Some("sandbox"),
        published: label("nerdctl/ports").map(nerdctl_ports).unwrap_or_default(),
        labels,
        // Ids that people choose are unique in their namespace only.
        id: if cgroup::is_id(&id) { id } else { format!("{namespace}/{id}") },
    }
}

/// `namespace/pod` for a pod's sandbox, `namespace/pod/container` for the others; none without these labels.
pub(crate) fn kubernetes_name(labels: &BTreeMap<String, String>) -> Option<String> {
    let namespace = labels.get("io.kubernetes.pod.namespace")?;
    let pod = labels.get("io.kubernetes.pod.name")?;
    Some(match labels.get("io.kubernetes.container.name").filter(|name| !name.is_empty() && *name != "POD") {
        Some(container) => format!("{namespace}/{pod}/{container}"),
        None => format!("{namespace}/{pod}"),
    })
}

/// nerdctl (before 2.1) keeps published ports as JSON in a label; anything else counts as none.
fn nerdctl_ports(label: &str) -> Vec<Published> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Port {
        host_port: u16,
        container_port: u16,
        protocol: String,
        #[serde(rename = "HostIP", default)]
        host_ip: String,
    }
    let ports: CappedVec<Port, PORTS_MAX> = serde_json::from_str(label).unwrap_or_default();
    let published = ports.items.into_iter().filter_map(|port| {
        Some(Published {
            host_address: if port.host_ip.is_empty() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { port.host_ip.parse().ok()? },
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: Some(port.protocol).filter(|protocol| matches!(protocol.as_str(), "tcp" | "udp" | "sctp"))?,
        })
    });
    published.collect()
}

fn text_field(message: &[u8], number: u64) -> Result<String, Error> {
    let mut text = String::new();
    for field in fields(message) {
        let (found, value) = field?;
        if found == number {
            text = value.text();
        }
    }
    Ok(text)
}

#[cfg(test)]
#[path = "containerd_tests.rs"]
mod tests;
