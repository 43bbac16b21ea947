//! What of the host a container can reach: by mounts, by devices, by unmasked paths. Mounts are judged by what lies in
//! them, not by how they were spelled.

use crate::control::{Control, Seen, Severity};
use crate::meaning::{self, Meaning};
use crate::snapshot::{Bind, Container, ContainerMount, Fact};
use crate::view::View;

use super::container::{container, either, why};
use Seen::{Bad, Fine, Unknown};

pub fn controls() -> Vec<Control> {
    vec![
        container("container.engine-socket", "no container reaches an engine's socket", Severity::Critical, socket)
            .because(
                "Whoever can write to it starts a container with the host's root: it is found through `-v /run:/x` and `-v /:/x` as well.",
            )
            .source(&["CIS-Docker-1.6 5.32", "Bulkhead"])
            .remedy("take the mount away; give a filtering socket to tools that need one"),
        container("container.engine-data", "no container reaches an engine's data directory", Severity::Critical, engine_data)
            .because("Files of all other containers, and settings of the engine that it believes.")
            .source(&["CIS-Docker-1.6 5.6", "Bulkhead"])
            .remedy("take the mount away; use volumes"),
        container("container.host-system", "no container reaches system files of the host", Severity::High, system)
            .because("Accounts, keys, cron and units: written to, they are root; read, they are secrets.")
            .source(&["CIS-Docker-1.6 5.6", "CIS-Kubernetes-1.11 5.2.12"])
            .remedy("mount only the file or folder that is needed, read-only"),
        container("container.kernel-interface", "no container reaches the host's /proc, /sys or cgroups", Severity::High, kernel)
            .because("core_pattern, the release agent and uevent_helper name programs that the host runs as root.")
            .source(&["CIS-Docker-1.6 5.6", "Bulkhead"])
            .remedy("take the mount away; monitors read theirs read-only"),
        container("container.host-devices", "no container reaches devices of the host", Severity::High, devices)
            .because("A disk or memory device is everything that is on it.")
            .source(&["CIS-Docker-1.6 5.18"])
            .remedy("take `--device` or the mount of /dev away"),
        container("container.node-credentials", "no container reaches credentials of the node", Severity::Critical, node)
            .because("With the kubelet's keys or the cluster's it is the node, or the administrator.")
            .source(&["CIS-Kubernetes-1.11 5.2.12"])
            .remedy("take the mount away"),
        container("container.device-rules", "no rule opens all devices of a kind", Severity::Critical, rules)
            .because("`--device-cgroup-rule 'b *:* rwm'` lets a container with MKNOD make and write every disk.")
            .source(&["CIS-Docker-1.6 5.18", "Bulkhead"])
            .remedy("name the one device, with its numbers"),
        container("container.unmasked-paths", "sensitive paths of /proc and /sys are masked", Severity::High, unmasked)
            .because("`systempaths=unconfined` opens /proc/sys, /proc/sysrq-trigger, /proc/kcore and /sys/firmware.")
            .source(&["CIS-Kubernetes-1.11 5.2", "Bulkhead"])
            .remedy("take `--security-opt systempaths=unconfined` away; leave `procMount` at Default"),
        container("container.writable-proc-sys", "no container can change the kernel's settings", Severity::Critical, proc_sys)
            .because("/proc/sys/kernel/core_pattern names a program that the host runs as root.")
            .source(&["Bulkhead"])
            .remedy("take `--privileged` and `systempaths=unconfined` away"),
        container("container.shared-propagation", "no mount spreads from a container to the host", Severity::Medium, propagation)
            .because("What the container mounts appears on the host.")
            .source(&["CIS-Docker-1.6 5.20"])
            .remedy("take `:shared` away; `:rslave` lets it see the host's"),
        container("container.writable-cgroup", "no container can write to cgroups that are not its own", Severity::High, cgroup)
            .because("It lifts its limits; with version 1 it names a release agent that the host runs as root.")
            .source(&["Bulkhead"])
            .remedy("mount /sys/fs/cgroup read-only, or use `--cgroupns private`"),
    ]
}

/// A piece of the host in a container.
struct Piece {
    host: String,
    target: String,
    writable: bool,
}

/// By the kernel where it runs; a container that does not run has its order.
fn pieces(container: &Container) -> Result<Vec<Piece>, String> {
    if let Some(truth) = container.kernel.known() {
        return match &truth.mounts {
            Fact::Known(mounts) => Ok(mounts.iter().filter_map(|mount| piece(mount, container)).collect()),
            Fact::Absent => Ok(Vec::new()),
            Fact::Unreadable(why) => Err(why.clone()),
        };
    }
    match container.declared.known() {
        Some(declared) => Ok(declared.binds.iter().filter_map(|bind| ordered(bind, container)).collect()),
        None => Err(why(container)),
    }
}

fn piece(mount: &ContainerMount, container: &Container) -> Option<Piece> {
    let host = mount.host_path.as_deref()?;
    // What every container has: its own /sys and cgroups, read-only.
    let usual = matches!(mount.fs_type.as_str(), "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts")
        && mount.read_only
        && mount.target.starts_with("/sys");
    let own = is_own(host, container) || mount.target == "/";
    (!usual && !own).then(|| Piece { host: host.to_owned(), target: mount.target.clone(), writable: !mount.read_only })
}

fn ordered(bind: &Bind, container: &Container) -> Option<Piece> {
    (bind.source.starts_with('/') && !is_own(&bind.source, container)).then(|| Piece {
        host: bind.source.clone(),
        target: bind.target.clone(),
        writable: bind.writable,
    })
}

fn is_own(host: &str, container: &Container) -> bool {
    container
        .own_folders
        .iter()
        .any(|folder| host == folder || host.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')))
}

fn reaches(container: &Container, view: &View<'_>, wanted: Meaning) -> Seen {
    let pieces = match pieces(container) {
        Ok(pieces) => pieces,
        Err(why) => return Unknown(why),
    };
    let mut found = Vec::new();
    for piece in &pieces {
        for (meaning, what) in meaning::of(&piece.host, piece.writable, view) {
            // Reading system files that no secret lies in is what monitors are for.
            if meaning == wanted {
                let how = if piece.writable { "writable" } else { "read-only" };
                let inside = if meaning::clean(&piece.host) == what { String::new() } else { format!(", which has to do with {what}") };
                found.push(format!("{} at {} ({how}){inside}", piece.host, piece.target));
            }
        }
    }
    if found.is_empty() { Fine } else { Bad(found.join("; ")) }
}

fn socket(container: &Container, view: &View<'_>) -> Seen {
    reaches(container, view, Meaning::EngineSocket)
}

fn engine_data(container: &Container, view: &View<'_>) -> Seen {
    reaches(container, view, Meaning::EngineData)
}

fn system(container: &Container, view: &View<'_>) -> Seen {
    reaches(container, view, Meaning::HostSystem)
}

fn kernel(container: &Container, view: &View<'_>) -> Seen {
    reaches(container, view, Meaning::KernelInterface)
}

fn node(container: &Container, view: &View<'_>) -> Seen {
    reaches(container, view, Meaning::NodeCredentials)
}

fn devices(container: &Container, view: &View<'_>) -> Seen {
    let harmless = [
        "/dev/fuse",
        "/dev/net/tun",
        "/dev/dri",
        "/dev/kfd",
        "/dev/snd",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
    ];
    let strange = |device: &&String| !harmless.iter().any(|fine| device.starts_with(fine)) && !device.starts_with("/dev/nvidia");
    let ordered: Vec<String> =
        container.declared.known().map(|declared| declared.devices.iter().filter(strange).cloned().collect()).unwrap_or_default();
    match reaches(container, view, Meaning::Devices) {
        Bad(mounts) if ordered.is_empty() => Bad(mounts),
        Bad(mounts) => Bad(format!("{mounts}; {}", ordered.join(", "))),
        _ if !ordered.is_empty() => Bad(ordered.join(", ")),
        seen => seen,
    }
}

/// Rules that let read or write every device of a kind or of a driver.
pub(super) fn wide_rules(container: &Container, _: &View<'_>) -> Vec<String> {
    let kernel = container.kernel.known().and_then(|truth| truth.device_rules.known());
    let declared = container.declared.known().map(|declared| &declared.device_rules);
    let mut found: Vec<String> = kernel.into_iter().chain(declared).flatten().filter(|rule| is_wide(rule)).cloned().collect();
    found.sort();
    found.dedup();
    found
}

/// `b *:* rwm`, `a *:* rwm`, `c 8:* rw`. Every container may make (`m`) device files; reading and writing is what counts.
/// Terminals (136) are everybody's.
pub fn is_wide(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    let (Some(kind), Some(numbers)) = (words.next(), words.next()) else { return false };
    let access = words.next().unwrap_or("rwm");
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
    let uses = access.contains('r') || access.contains('w');
    let terminals = kind == "c" && major == "136";
    matches!(kind, "a" | "b" | "c") && uses && (major == "*" || minor == "*") && !terminals
}

fn rules(container: &Container, view: &View<'_>) -> Seen {
    let wide = wide_rules(container, view);
    if !wide.is_empty() {
        return Bad(wide.join("; "));
    }
    match (container.kernel.known().map(|truth| &truth.device_rules), container.declared.known()) {
        (Some(Fact::Known(_)), _) | (_, Some(_)) => Fine,
        (Some(Fact::Absent | Fact::Unreadable(_)) | None, None) => {
            Unknown("its rules of devices are a BPF program, and its order is not known".to_owned())
        }
    }
}

/// Masked by every engine; a mount must lie on it.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];

fn unmasked(container: &Container, _: &View<'_>) -> Seen {
    either(
        container,
        |truth| match &truth.mounts {
            Fact::Known(mounts) => {
                // A container that shares neither a /proc of its own nor has any has nothing to mask.
                if !mounts.iter().any(|mount| mount.target == "/proc") {
                    return Fine;
                }
                let covered = |path: &str| mounts.iter().any(|mount| mount.target == path);
                if MASKED.iter().any(|path| covered(path)) { Fine } else { Bad(format!("nothing masks {}", MASKED.join(", "))) }
            }
            Fact::Absent => Fine,
            Fact::Unreadable(why) => Unknown(why.clone()),
        },
        |declared| match &declared.masked_paths {
            Some(paths) if paths.is_empty() => Bad("ordered without masked paths".to_owned()),
            Some(_) => Fine,
            None if declared.privileged == Some(true) => Bad("privileged masks nothing".to_owned()),
            None => Fine,
        },
    )
}

fn proc_sys(container: &Container, _: &View<'_>) -> Seen {
    either(
        container,
        |truth| match &truth.mounts {
            Fact::Known(mounts) => {
                if !mounts.iter().any(|mount| mount.target == "/proc") {
                    return Fine;
                }
                let over = mounts
                    .iter()
                    .rfind(|mount| mount.target == "/proc/sys")
                    .or_else(|| mounts.iter().rfind(|mount| mount.target == "/proc"));
                // A user that is not root of the host is refused by the files' own modes.
                match over {
                    Some(mount) if !mount.read_only && truth.uid == 0 && truth.root_is_host_root != Some(false) => {
                        Bad("/proc/sys can be written".to_owned())
                    }
                    Some(_) | None => Fine,
                }
            }
            Fact::Absent => Fine,
            Fact::Unreadable(why) => Unknown(why.clone()),
        },
        |declared| match &declared.read_only_paths {
            Some(paths) if !paths.iter().any(|path| path == "/proc/sys") => Bad("ordered with a writable /proc/sys".to_owned()),
            None if declared.privileged == Some(true) => Bad("privileged may write it".to_owned()),
            Some(_) | None => Fine,
        },
    )
}

fn propagation(container: &Container, _: &View<'_>) -> Seen {
    if let Some(declared) = container.declared.known() {
        let shared: Vec<String> = declared
            .binds
            .iter()
            .filter(|bind| matches!(bind.propagation.as_str(), "shared" | "rshared"))
            .map(|bind| format!("{} is {}", bind.source, bind.propagation))
            .collect();
        if !shared.is_empty() {
            return Bad(shared.join(", "));
        }
    }
    match container.kernel.known().map(|truth| &truth.mounts) {
        Some(Fact::Known(mounts)) => {
            let shared: Vec<String> = mounts
                .iter()
                .filter(|mount| {
                    mount.shared && mount.host_path.is_some() && !is_own(mount.host_path.as_deref().unwrap_or_default(), container)
                })
                .map(|mount| format!("{} is shared", mount.target))
                .collect();
            if shared.is_empty() { Fine } else { Bad(shared.join(", ")) }
        }
        Some(Fact::Unreadable(why)) if container.declared.known().is_none() => Unknown(why.clone()),
        _ => either(container, |_| Fine, |_| Fine),
    }
}

fn cgroup(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known().map(|truth| (&truth.mounts, truth)) {
        Some((Fact::Known(mounts), truth)) => {
            let private = !truth.host_namespaces.iter().any(|one| one == "cgroup");
            let open: Vec<&str> = mounts
                .iter()
                .filter(|mount| {
                    matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2") && !mount.read_only && (mount.fs_type == "cgroup" || !private)
                })
                .map(|mount| mount.target.as_str())
                .collect();
            if open.is_empty() { Fine } else { Bad(format!("{} can be written", open.join(", "))) }
        }
        Some((Fact::Unreadable(why), _)) => Unknown(why.clone()),
        Some((Fact::Absent, _)) => Fine,
        None if container.running => Unknown(why(container)),
        None => Seen::Beside,
    }
}
