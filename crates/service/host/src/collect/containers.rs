//! All containers, of every engine, running or not: by Docker's files, by bundles of runtimes, and by the kernel's cgroups.
//! What the kernel shows is there whatever the files say.

use std::collections::BTreeMap;

use bulkhead_inventory::cgroup;
use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{Container, HostSnapshot};

use super::bundles;
use super::processes::Seen;
use super::truth;
use crate::root::Root;

/// Containers told of.
pub const CONTAINERS_MAX: usize = 4_096;

/// Folders in which runtimes keep bundles, and how deep below them an id stands.
const BUNDLES: [(&str, &str); 6] = [
    ("/run/containerd/io.containerd.runtime.v2.task", "containerd"),
    ("/run/k3s/containerd/io.containerd.runtime.v2.task", "cri"),
    ("/run/containers/storage/overlay-containers", "podman"),
    ("/var/lib/containers/storage/overlay-containers", "podman"),
    ("/run/docker/containerd/daemon/io.containerd.runtime.v2.task", "docker"),
    ("/var/run/docker/containerd/daemon/io.containerd.runtime.v2.task", "docker"),
];

pub fn collect(root: &Root, seen: &Seen, snapshot: &mut HostSnapshot) {
    let mut all: BTreeMap<String, Container> = BTreeMap::new();
    let mut unread = Vec::new();
    let engines = snapshot.engines.known();
    let named = engines.into_iter().flatten().filter(|engine| engine.kind == "docker").map(|engine| engine.data_root.clone());
    let mut roots: Vec<String> = named.chain(["/var/lib/docker".to_owned()]).collect();
    roots.dedup();
    for data_root in roots {
        let mut add = |container: Container| {
            if all.len() < CONTAINERS_MAX {
                all.entry(container.id.clone()).or_insert(container);
            }
        };
        if let Fact::Unreadable(why) = bundles::docker(root, &data_root, &mut add) {
            unread.push(why);
        }
    }
    for (folder, runtime) in BUNDLES {
        for (id, path) in bundle_files(root, folder) {
            if all.len() >= CONTAINERS_MAX && !all.contains_key(&id) {
                continue;
            }
            let container = all.entry(id.clone()).or_insert_with(|| Container { id, runtime: runtime.to_owned(), ..Container::default() });
            container.own_folders.push(path.trim_end_matches("/config.json").to_owned());
            if container.declared.known().is_none() {
                match bundles::bundle(root, &path) {
                    Ok((declared, tree)) => {
                        container.own_folders.extend(bundles::own_folders(&declared));
                        let annotation = |name: &str| bundles::text(&tree, &format!("/annotations/{}", name.replace('/', "~1"))).to_owned();
                        if container.name.is_empty() {
                            let pod = annotation("io.kubernetes.cri.sandbox-name");
                            let name = annotation("io.kubernetes.cri.container-name");
                            container.name = if pod.is_empty() { annotation("io.container.manager.name") } else { format!("{pod}/{name}") };
                        }
                        if container.image.is_empty() {
                            container.image = annotation("io.kubernetes.cri.image-name");
                        }
                        container.declared = Fact::Known(declared);
                    }
                    Err(why) => container.declared = Fact::Unreadable(why),
                }
            }
        }
    }
    let running = seen.by_container();
    for container in all.values_mut() {
        container.running = running.contains_key(container.id.as_str());
        container.kernel = Fact::Absent;
    }
    let hosts = snapshot.mounts.known();
    for (id, processes) in running {
        // The oldest that lives; a container may end while it is looked at.
        let Some(kernel) = processes.iter().find_map(|first| truth::look(root, first, &processes, hosts)) else { continue };
        if all.len() >= CONTAINERS_MAX && !all.contains_key(id) {
            *snapshot.beyond_caps.entry("containers".to_owned()).or_default() += 1;
            continue;
        }
        let container = all.entry(id.to_owned()).or_insert_with(|| Container {
            id: id.to_owned(),
            runtime: "unknown".to_owned(),
            declared: Fact::Unreadable("no engine's files tell of it".to_owned()),
            ..Container::default()
        });
        container.running = true;
        container.kernel = kernel;
    }
    if !unread.is_empty() && !all.is_empty() {
        snapshot.beyond_caps.insert(format!("containers that do not run ({})", unread.join("; ")), 1);
    }
    snapshot.containers = match (all.is_empty(), unread.is_empty()) {
        (true, true) if !snapshot.live && !root.exists("/var/lib/docker") => Fact::Absent,
        (true, false) => Fact::Unreadable(unread.join("; ")),
        _ => Fact::Known(all.into_values().collect()),
    };
}

/// `FOLDER/NAMESPACE/ID/config.json`, `FOLDER/ID/userdata/config.json`.
fn bundle_files(root: &Root, folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for first in root.names(folder).known().into_iter().flatten() {
        if cgroup::is_id(first) {
            let path = format!("{folder}/{first}/userdata/config.json");
            if root.exists(&path) {
                found.push((first.clone(), path));
            }
            continue;
        }
        for second in root.names(&format!("{folder}/{first}")).known().into_iter().flatten().filter(|name| cgroup::is_id(name)) {
            let path = format!("{folder}/{first}/{second}/config.json");
            if root.exists(&path) {
                found.push((second.clone(), path));
            }
        }
    }
    found
}
