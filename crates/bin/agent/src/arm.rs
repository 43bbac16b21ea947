//! A container's network put on the path on demand: asked by the OCI hook and the runtime wrapper while the container is made
//! and its program not started. An API thread finds out what has to be armed; the control thread arms it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_api::{ApiError, ArmRequest, ArmState, Armed, ArmedInterface, ErrorCode, FailMode};
use bulkhead_model::{Mode, Network, Runtime, Workload};
use bulkhead_policy::config::Interfaces;
use bulkhead_policy::{Fail, PolicySnapshot};
use bulkhead_sys::netlink::{Link, Netlink};
use bulkhead_sys::netns::Netns;

use crate::files;
use crate::path::Place;
use crate::state::{Route, State, lock};

/// How long one question may wait for the container's name. Docker's list answers in some milliseconds.
const NAME_WAIT: Duration = Duration::from_millis(300);
/// How long one question may wait for the control thread; the asker asks again.
const ARM_WAIT: Duration = Duration::from_millis(400);

/// As [`bulkhead_api::Backend::arm`].
pub fn arm(state: &State, request: &ArmRequest) -> Result<Armed, ApiError> {
    let place = Netns::open_pid(request.pid).map_err(|error| {
        ApiError::not_found(format!("the network of process {} cannot be opened: {error}", request.pid))
            .help("name the container's first process by its number in the agent's pid namespace")
    })?;
    // Between two pid namespaces one number means two processes; and a number is used again when its process has ended.
    if request.netns.is_some_and(|netns| netns != place.inode()) {
        let told = format!("process {} is in another network here than where it was asked from", request.pid);
        return Err(ApiError::new(ErrorCode::Conflict, told).help("ask from the agent's own pid namespace"));
    }
    let internal = |error: &dyn std::fmt::Display| ApiError::internal(error.to_string());
    let own = Netns::current().map_err(|error| internal(&error))?;
    if place.inode() == own.inode() {
        let (workload, fail) = (None, FailMode::Open);
        return Ok(Armed { state: ArmState::HostNetwork, netns: place.inode(), workload, interfaces: Vec::new(), fail });
    }
    learn(state, request, place.inode());
    // The control thread takes up links and names of this moment.
    state.request_sync();
    state.wait_synced_for(ARM_WAIT);
    let ends = ends(&place).map_err(|error| internal(&error))?;
    let config = state.in_force().loaded.config;
    let (interfaces, waiting) = judge(state, ends, &config.path.interfaces);
    let (workload, fail) = named(state, place.inode());
    let state = if waiting { ArmState::Waiting } else { ArmState::Armed };
    Ok(Armed { state, netns: place.inode(), workload, interfaces, fail })
}

/// Waits until the inventory knows whose network it is, for at most [`NAME_WAIT`].
fn learn(state: &State, request: &ArmRequest, netns: u64) {
    let until = Instant::now() + NAME_WAIT;
    let mut snapshot = state.inventory.snapshot();
    let known = |workloads: &[Workload]| {
        workloads.iter().any(|workload| match &workload.network {
            Network::Own { netns: of } | Network::Shared { netns: of, .. } => {
                *of == netns
                    && workload.pid == request.pid
                    && match workload.runtime {
                        // These tell a name and an image of every container, once it is there.
                        Runtime::Docker | Runtime::Podman => workload.image.is_some(),
                        Runtime::Containerd | Runtime::Cri | Runtime::Namespace => true,
                    }
            }
            Network::Host => false,
        })
    };
    if known(&snapshot.workloads) {
        return;
    }
    let _ = state.inventory.announce(request.pid, request.container.as_deref());
    while !known(&snapshot.workloads) && Instant::now() < until {
        snapshot = state.inventory.wait_newer(snapshot.revision, until.saturating_duration_since(Instant::now()));
    }
}

/// One interface of the namespace, and where it would be armed.
struct End {
    name: String,
    host_name: Option<String>,
    place: Result<Place, String>,
}

/// What is in the namespace besides loopback, with the ends of it on this host.
fn ends(place: &Netns) -> Result<Vec<End>, bulkhead_sys::netlink::Error> {
    let inside = Netlink::open_in(place)?.links()?;
    let mut host = Netlink::open()?;
    let nsid = host.nsid(place)?;
    let links: HashMap<u32, Link> = host.links()?.into_iter().map(|link| (link.ifindex, link)).collect();
    let mut ends = Vec::new();
    for link in inside.iter().filter(|link| !link.loopback) {
        let (host_name, at) = match link.kind.as_deref() {
            Some("veth" | "netkit") => {
                let other = link.link.and_then(|peer| links.get(&peer));
                // Numbers repeat between namespaces: it is the other end only if it says so too.
                match other.filter(|other| nsid.is_some() && other.link == Some(link.ifindex) && other.link_netnsid == nsid) {
                    Some(other) => (Some(other.name.clone()), Ok(Place::Host { ifindex: other.ifindex })),
                    None => (None, Err("its other end is not on this host".to_owned())),
                }
            }
            Some("macvlan" | "ipvlan") => (None, Ok(Place::Inside { netns: place.inode(), ifindex: link.ifindex })),
            // The kernel puts a down `tunl0`, `sit0`, … into every namespace.
            _ if !link.up => continue,
            _ => (None, Err("it is of a kind that is not armed".to_owned())),
        };
        ends.push(End { name: link.name.clone(), host_name, place: at });
    }
    Ok(ends)
}

/// What of it is armed, and whether something is that can be armed and is not. What can never be armed is told, not waited for.
fn judge(state: &State, ends: Vec<End>, selected: &Interfaces) -> (Vec<ArmedInterface>, bool) {
    let refused = lock(&state.unarmed).clone();
    let route = lock(&state.route);
    let mut waiting = false;
    let interfaces = ends
        .into_iter()
        .map(|end| {
            let known_by = end.host_name.as_ref().unwrap_or(&end.name);
            let left_out =
                !selected.include.iter().any(|glob| glob.matches(known_by)) || selected.exclude.iter().any(|glob| glob.matches(known_by));
            let (armed, reason) = match (&end.place, &*route) {
                (Err(reason), _) => (false, Some(reason.clone())),
                (Ok(_), _) if left_out => (false, Some("`path.interfaces` leaves it out".to_owned())),
                (Ok(place), Route::Tcx(path)) if path.path.is_armed(place) => (true, None),
                // Its chains see all IP traffic that is forwarded, whichever interface it comes from.
                (Ok(_), Route::Queue(_)) => (true, None),
                (Ok(_), Route::Tcx(_)) => {
                    waiting = true;
                    let prefix = format!("{known_by}: ");
                    let why = refused.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("not armed yet");
                    (false, Some(why.to_owned()))
                }
                (Ok(_), Route::None { reason }) => {
                    waiting = true;
                    (false, Some(reason.clone()))
                }
            };
            ArmedInterface { name: end.name, host_name: end.host_name, armed, reason }
        })
        .collect();
    (interfaces, waiting)
}

/// The name of the workload whose network it is, and what its policy says of failing.
fn named(state: &State, netns: u64) -> (Option<String>, FailMode) {
    let directory = state.registry.current();
    let entry = directory.entries.values().find(|entry| entry.workload.network == Network::Own { netns });
    let closed = match entry {
        Some(entry) => entry.mode == Mode::Protect && entry.fail_closed,
        None => {
            let default = state.in_force().snapshot.default_settings();
            default.mode == Mode::Protect && default.fail == Fail::Closed
        }
    };
    (entry.map(|entry| entry.workload.name.clone()), if closed { FailMode::Closed } else { FailMode::Open })
}

/// What the OCI hook and the runtime wrapper take from the configuration: where the agent listens, and what becomes of a
/// container while no agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSettings {
    pub socket: PathBuf,
    /// Containers that no rule of `workloads` names are protected, and fail closed.
    pub fail_closed: bool,
}

/// Reads the configuration at `path`, or at its usual place, where a missing one means defaults.
pub fn start_settings(path: Option<&Path>) -> Result<StartSettings, files::Error> {
    let config = files::load_config(path.unwrap_or(Path::new(files::DEFAULT_CONFIG)))?.config;
    let default = PolicySnapshot::compile(&config, 1).default_settings();
    let fail_closed = default.mode == Mode::Protect && default.fail == Fail::Closed;
    Ok(StartSettings { socket: PathBuf::from(config.api.socket.as_str()), fail_closed })
}
