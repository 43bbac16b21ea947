//! The Docker Engine API, which Podman's service speaks too: version, list, inspect, events.
//!
//! Order: the event stream is opened first and listed after, so that no start falls between. An
//! event only says which container to look at; what counts is what `inspect` answers then. Every
//! [`Config::resync_interval`](crate::Config) the list is asked for again: that heals whatever was
//! missed, and an engine that hangs with a silent stream is noticed. One container whose `inspect`
//! hangs (the engine holds a lock per container) is described from the list and tried again later.
//! Source: Docker Engine API v1.41 (`/version`, `/containers/json`, `/containers/{id}/json`, `/events`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use bulkhead_model::{Published, Runtime};
use bulkhead_sys::procfs;
use serde::Deserialize;

use crate::bounded::{CappedMap, CappedVec};
use crate::engine::{CONTAINERS_MAX, Failure, LABELS_MAX, Link, Open, PORTS_MAX, Session, Update};
use crate::http::{self, Response};
use crate::resolve::Container;
use crate::socket::{self, Error};
use crate::{EngineKind, cgroup};

/// Bytes of the list: 8192 containers of about 4 KiB each.
const LIST_BYTES_MAX: usize = 32 * 1024 * 1024;
const INSPECT_BYTES_MAX: usize = 4 * 1024 * 1024;
const VERSION_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one event, which carries all labels of its container.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Containers in a row whose `inspect` may time out before the whole engine counts as hung.
const INSPECT_TIMEOUTS_MAX: u32 = 2;
/// The newest version of the API that this file was written against.
const API_NEWEST: (u32, u32) = (1, 51);

/// Follows one engine.
pub(crate) struct Docker {
    kind: EngineKind,
    /// What was told of each running container; survives the engine's restart.
    known: BTreeMap<String, Known>,
}

/// Enough to see in a list whether a container must be inspected again.
struct Known {
    name: String,
    state: String,
    pid: u32,
    /// Start of that process: a restarted container has another one. None: inspect again.
    started: Option<u64>,
}

impl Docker {
    pub(crate) fn new(kind: EngineKind) -> Self {
        Self { kind, known: BTreeMap::new() }
    }

    fn runtime(&self) -> Runtime {
        if self.kind == EngineKind::Podman { Runtime::Podman } else { Runtime::Docker }
    }

    /// Asks for the list and looks closer at what is new or may have changed.
    fn list(&mut self, link: &Link, api: &str) -> Result<(), Error> {
        let (stream, _open, deadline) = link.connect()?;
        let list: CappedVec<ListEntry, CONTAINERS_MAX> =
            http::get(stream, &format!("{api}/containers/json"), deadline)?.json(LIST_BYTES_MAX, deadline)?;
        link.send(Update::Answered)?;
        link.beyond_cap(list.refused + list.items.iter().map(ListEntry::beyond_cap).sum::<u64>())?;
        let mut ids = BTreeSet::new();
        for entry in &list.items {
            if !cgroup::is_id(&entry.id) {
                return Err(Error::malformed("the id of a container is not 64 hexadecimal digits"));
            }
            ids.insert(entry.id.clone());
        }
        self.known.retain(|id, _| ids.contains(id));
        link.send(Update::Only { engine: link.engine, ids })?;
        let mut timeouts = 0;
        for entry in list.items {
            if self.known.get(&entry.id).is_some_and(|known| known.still_describes(&entry)) {
                continue;
            }
            match self.inspect(link, api, &entry.id) {
                Ok(()) => timeouts = 0,
                Err(Error::Timeout) if timeouts < INSPECT_TIMEOUTS_MAX => {
                    timeouts += 1;
                    link.send(Update::Failed(Failure::Timeout))?;
                    link.running(entry.into_container(self.runtime()))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at one container and tells whether and how it runs.
    fn inspect(&mut self, link: &Link, api: &str, id: &str) -> Result<(), Error> {
        let (stream, _open, deadline) = link.connect()?;
        let inspected: Inspected = match http::get(stream, &format!("{api}/containers/{id}/json"), deadline) {
            Ok(response) => response.json(INSPECT_BYTES_MAX, deadline)?,
            Err(Error::Status { code: 404, .. }) => return self.stopped(link, id),
            // One container that the engine itself stumbles over must not hide the others.
            Err(Error::Status { .. }) => return link.send(Update::Failed(Failure::Other)),
            Err(other) => return Err(other),
        };
        link.send(Update::Answered)?;
        if inspected.id != id {
            return Err(Error::malformed("the answer is about another container than was asked for"));
        }
        if !inspected.state.running || inspected.state.pid == 0 {
            return self.stopped(link, id);
        }
        let known = Known {
            name: inspected.name.clone(),
            state: inspected.state.status.clone(),
            pid: inspected.state.pid,
            started: started(inspected.state.pid),
        };
        let (container, beyond_cap) = inspected.into_container(self.runtime());
        self.known.insert(id.to_owned(), known);
        link.beyond_cap(beyond_cap)?;
        link.running(container)
    }

    fn stopped(&mut self, link: &Link, id: &str) -> Result<(), Error> {
        self.known.remove(id);
        link.send(Update::Stopped { engine: link.engine, id: id.to_owned() })
    }
}

/// One container as the list has it, whether it runs or not.
pub(crate) fn describe(socket: &Path, id: &str, deadline: Instant) -> Result<Option<Container>, Error> {
    let stream = socket::connect(socket, deadline.saturating_duration_since(Instant::now()))?;
    let target = format!("/containers/json?all=1&filters=%7B%22id%22:[%22{id}%22]%7D");
    let list: CappedVec<ListEntry, 1> = http::get(stream, &target, deadline)?.json(INSPECT_BYTES_MAX, deadline)?;
    let entry = list.items.into_iter().find(|entry| entry.id == id);
    Ok(entry.map(|entry| entry.into_container(Runtime::Docker)))
}

impl Session for Docker {
    fn follow(&mut self, link: &Link) -> Result<Infallible, Error> {
        let (stream, open, deadline) = link.connect()?;
        let version: Version = http::get(stream, "/version", deadline)?.json(VERSION_BYTES_MAX, deadline)?;
        drop(open);
        link.send(Update::Answered)?;
        let api = version.prefix();
        let mut events = Events::open(link, &api, self.kind)?;
        self.list(link, &api)?;
        link.up(&version.version)?;
        let mut resync = Instant::now() + link.config.resync_interval;
        loop {
            match events.next(resync) {
                Ok(ids) => {
                    link.send(Update::Answered)?;
                    for id in ids {
                        match self.inspect(link, &api, &id) {
                            // The next list tells whether the engine hangs or only this container.
                            Err(Error::Timeout) => {
                                link.send(Update::Failed(Failure::Timeout))?;
                                resync = Instant::now();
                            }
                            other => other?,
                        }
                    }
                }
                Err(Error::Timeout) => {
                    self.list(link, &api)?;
                    resync = Instant::now() + link.config.resync_interval;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Known {
    fn still_describes(&self, entry: &ListEntry) -> bool {
        self.started.is_some() && self.started == started(self.pid) && entry.names.items.contains(&self.name) && entry.state == self.state
    }
}

/// The stream of events, one JSON object a line.
struct Events {
    response: Response,
    _open: Open,
    /// Read, but not yet a whole line.
    pending: Vec<u8>,
}

impl Events {
    fn open(link: &Link, api: &str, kind: EngineKind) -> Result<Self, Error> {
        let (stream, open, deadline) = link.connect()?;
        // Podman has no network events of this form; its interfaces are seen as they appear.
        let types = if kind == EngineKind::Podman { "%22container%22" } else { "%22container%22,%22network%22" };
        let response = http::get(stream, &format!("{api}/events?filters=%7B%22type%22:[{types}]%7D"), deadline)?;
        Ok(Self { response, _open: open, pending: Vec::new() })
    }

    /// Waits for events and gives the containers they are about.
    fn next(&mut self, deadline: Instant) -> Result<BTreeSet<String>, Error> {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let count = match self.response.read(&mut chunk, deadline)? {
                0 => return Err(Error::Closed),
                count => count,
            };
            let searched = self.pending.len();
            self.pending.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let Some(end) = self.pending.iter().skip(searched).rposition(|&byte| byte == b'\n') else {
                if self.pending.len() > EVENT_BYTES_MAX {
                    return Err(Error::TooLarge { what: "one event", max: EVENT_BYTES_MAX });
                }
                continue;
            };
            let rest = self.pending.split_off(searched + end + 1);
            let lines = std::mem::replace(&mut self.pending, rest);
            let mut ids = BTreeSet::new();
            for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                let event: Event = serde_json::from_slice(line).map_err(|error| Error::malformed(format!("an event: {error}")))?;
                ids.extend(event.container().map(str::to_owned));
            }
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
    }
}

fn started(pid: u32) -> Option<u64> {
    procfs::Process { pid }.start_ticks().ok()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    api_version: String,
    #[serde(rename = "MinAPIVersion", default)]
    min_api_version: String,
}

impl Version {
    /// `/v1.51`, or less where the engine knows less; nothing (its own newest) where it wants more.
    fn prefix(&self) -> String {
        let parse = |text: &str| text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let least = parse(&self.min_api_version).unwrap_or((0, 0));
        match parse(&self.api_version).map(|newest: (u32, u32)| newest.min(API_NEWEST)) {
            Some((major, minor)) if (major, minor) >= least => format!("/v{major}.{minor}"),
            Some(_) | None => String::new(),
        }
    }
}

/// One element of `/containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListEntry {
    id: String,
    #[serde(default)]
    names: CappedVec<String, 64>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: CappedMap<String, LABELS_MAX>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    ports: CappedVec<ListPort, PORTS_MAX>,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
struct ListPort {
    #[serde(rename = "IP", default)]
    ip: String,
    #[serde(rename = "PrivatePort", default)]
    private: u16,
    #[serde(rename = "PublicPort", default)]
    public: u16,
    #[serde(rename = "Type", default)]
    protocol: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

/// `/containers/{id}/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    name: String,
    state: State,
    config: Configuration,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    status: String,
    running: bool,
    pid: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: CappedMap<String, LABELS_MAX>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    /// `80/tcp` to the places it is published at; null when only exposed.
    ports: CappedMap<CappedVec<Binding, PORTS_MAX>, PORTS_MAX>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

impl ListEntry {
    fn beyond_cap(&self) -> u64 {
        self.names.refused + self.labels.refused + self.ports.refused
    }

    /// A description without pid.
    fn into_container(self, runtime: Runtime) -> Container {
        let published = self.ports.items.iter().filter(|port| port.public != 0).filter_map(|port| {
            Some(Published {
                host_address: address(&port.ip)?,
                host_port: port.public,
                container_port: port.private,
                protocol: protocol(&port.protocol)?,
            })
        });
        // Names of links to other containers have a second slash: `/other/alias`.
        let own_name = self.names.items.iter().min_by_key(|name| name.matches('/').count());
        Container {
            name: own_name.map(|name| bare_name(name).to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| self.id.clone()),
            image: Some(self.image).filter(|image| !image.is_empty()),
            labels: self.labels.items,
            runtime,
            pid: None,
            joins: joins(&self.host_config.network_mode),
            may_use_host: may_use_host(&self.host_config.network_mode),
            sandbox: false,
            published: sorted(published.collect()),
            id: self.id,
        }
    }
}

impl Inspected {
    /// A description, with the count of what it left out.
    fn into_container(self, runtime: Runtime) -> (Container, u64) {
        let ports = self.network_settings.ports;
        let mut beyond_cap = self.config.labels.refused + ports.refused;
        let mut published = Vec::new();
        for (port, bindings) in ports.items {
            beyond_cap += bindings.refused;
            for binding in bindings.items {
                if published.len() >= PORTS_MAX {
                    beyond_cap += 1;
                } else if let Some(binding) = binding.published(&port) {
                    published.push(binding);
                }
            }
        }
        let container = Container {
            name: Some(bare_name(&self.name).to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| self.id.clone()),
            image: Some(self.config.image).filter(|image| !image.is_empty()),
            labels: self.config.labels.items,
            runtime,
            pid: Some(self.state.pid),
            joins: joins(&self.host_config.network_mode),
            may_use_host: may_use_host(&self.host_config.network_mode),
            sandbox: false,
            published: sorted(published),
            id: self.id,
        };
        (container, beyond_cap)
    }
}

impl Binding {
    /// With `port` such as `80/tcp`. None when the engine writes something else.
    fn published(&self, port: &str) -> Option<Published> {
        let (number, kind) = port.split_once('/').unwrap_or((port, "tcp"));
        Some(Published {
            host_address: address(&self.host_ip)?,
            host_port: self.host_port.parse().ok().filter(|port| *port != 0)?,
            container_port: number.parse().ok()?,
            protocol: protocol(kind)?,
        })
    }
}

/// One line of `/events`. Docker before 1.22 and Podman's older services write `status` and `id` only.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    id: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Attributes,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Attributes {
    container: String,
}

impl Event {
    /// The container to look at, when the event is of a sort that can change what we know of it.
    fn container(&self) -> Option<&str> {
        let action = if self.action.is_empty() { &self.status } else { &self.action };
        let id = match (self.kind.as_str(), action.as_str()) {
            ("network", "connect" | "disconnect") => &self.actor.attributes.container,
            (
                "container" | "",
                "start" | "restart" | "die" | "died" | "stop" | "pause" | "unpause" | "rename" | "update" | "destroy" | "remove"
                | "cleanup",
            ) => {
                if self.actor.id.is_empty() {
                    &self.id
                } else {
                    &self.actor.id
                }
            }
            (_, _) => return None,
        };
        Some(id.as_str()).filter(|id| cgroup::is_id(id))
    }
}

/// The container in `container:ID`.
fn joins(network_mode: &str) -> Option<String> {
    network_mode.strip_prefix("container:").filter(|id| cgroup::is_id(id)).map(str::to_owned)
}

/// `host`, or the network of a container that may have the host's.
fn may_use_host(network_mode: &str) -> bool {
    network_mode == "host" || network_mode.starts_with("container:") || network_mode.starts_with("ns:")
}

fn bare_name(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

/// An empty address means every one.
fn address(text: &str) -> Option<IpAddr> {
    if text.is_empty() { Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { text.parse().ok() }
}

fn protocol(text: &str) -> Option<String> {
    matches!(text, "tcp" | "udp" | "sctp").then(|| text.to_owned())
}

fn sorted(mut published: Vec<Published>) -> Vec<Published> {
    published.sort_by(|a, b| {
        (a.container_port, &a.protocol, a.host_port, a.host_address).cmp(&(b.container_port, &b.protocol, b.host_port, b.host_address))
    });
    published.dedup();
    published
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
