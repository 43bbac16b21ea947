//! How containers run. Judged is what the kernel says of their first process; where none runs, what was ordered.

use crate::control::{Area, Check, Control, Risk, Seen, Severity};
use crate::snapshot::{Container, Declared, Truth};
use crate::view::View;

use Seen::{Bad, Beside, Fine, Unknown};

pub(super) fn container(id: &str, title: &str, severity: Severity, check: fn(&Container, &View<'_>) -> Seen) -> Control {
    Control::new(id, title, Area::Container, severity, Check::Containers(check))
        .when_named()
        .risk(Risk::Medium, "a running container cannot be changed: it must be made anew, and its program may need what is taken away")
}

pub fn controls() -> Vec<Control> {
    vec![
        container("container.privileged", "no container is privileged", Severity::Critical, privileged)
            .because("All capabilities, all devices, no filter: it is the host with another root directory.")
            .source(&["CIS-Docker-1.6 5.5", "CIS-Kubernetes-1.11 5.2.2"])
            .remedy("take `--privileged` away; give `--cap-add` and `--device` for what is needed"),
        container("container.dangerous-capabilities", "no container holds a capability that gives it the host", Severity::Critical, dangerous)
            .because("SYS_ADMIN, SYS_MODULE, SYS_PTRACE, SYS_RAWIO, DAC_READ_SEARCH, BPF, SYS_BOOT, MAC_ADMIN and their kin each have known ways out.")
            .source(&["CIS-Docker-1.6 5.4", "CIS-Kubernetes-1.11 5.2.8"])
            .remedy("take the `--cap-add` away"),
        container("container.added-capabilities", "no container holds more than the usual capabilities", Severity::Medium, added)
            .because("Each one is code of the kernel that was written for root.")
            .source(&["CIS-Docker-1.6 5.4", "CIS-Kubernetes-1.11 5.2.9"])
            .remedy("`--cap-drop ALL`, and `--cap-add` for what is needed"),
        container("container.mknod", "no container was given MKNOD, or may make files of devices that it may use", Severity::High, mknod)
            .because("With MKNOD and a rule of devices that lets it, a container makes the host's disk and writes on it.")
            .source(&["CIS-Docker-1.6 5.4", "Bulkhead"])
            .remedy("`--cap-drop MKNOD`"),
        container("container.net-raw", "containers cannot make packets of their own", Severity::Low, net_raw)
            .because("NET_RAW lets a container forge its neighbours' addresses. Engines give it by default.")
            .source(&["CIS-Docker-1.6 5.4", "CIS-Kubernetes-1.11 5.2.7"])
            .remedy("`--cap-drop NET_RAW`; ping works without it"),
        container("container.ambient-capabilities", "no container keeps capabilities over a change of user", Severity::Medium, ambient)
            .because("Ambient capabilities reach every program that is started.")
            .source(&["Bulkhead"])
            .remedy("give capabilities to the one file that needs them"),
        container("container.apparmor-selinux", "a security module confines every container", Severity::Medium, label)
            .because("It is what is left when a capability too many is held.")
            .source(&["CIS-Docker-1.6 5.2", "CIS-Docker-1.6 5.3", "CIS-Kubernetes-1.11 5.7.3"])
            .remedy("take `--security-opt apparmor=unconfined` or `label=disable` away"),
        container("container.seccomp", "system calls of every container are filtered", Severity::High, seccomp)
            .because("Without it some sixty more calls can be reached, those of most kernel exploits among them.")
            .source(&["CIS-Docker-1.6 5.22", "CIS-Kubernetes-1.11 5.7.2"])
            .remedy("take `--security-opt seccomp=unconfined` away"),
        container("container.no-new-privileges", "programs gain no rights by set-id files", Severity::Medium, no_new_privileges)
            .because("sudo and su in an image are a step to root in the container.")
            .source(&["CIS-Docker-1.6 5.26", "CIS-Kubernetes-1.11 5.2.6"])
            .remedy("`--security-opt no-new-privileges`"),
        container("container.root-user", "containers do not run as root", Severity::Medium, root_user)
            .because("Root in the container is root of the host for every hole in between, unless ids are mapped.")
            .source(&["CIS-Docker-1.6 4.1", "CIS-Kubernetes-1.11 5.2.7"])
            .remedy("`USER` in the image, or `--user`"),
        container("container.host-users", "root in a container is not root of the host", Severity::Low, host_users)
            .because("A user namespace makes what escapes a user without rights.")
            .source(&["CIS-Docker-1.6 5.31"])
            .remedy("`userns-remap`, rootless, or `hostUsers: false` of Kubernetes"),
        container("container.group-zero", "no container's user has the host's group 0 or an engine's group", Severity::High, group_zero)
            .because("Files of the host that are open to group root or docker are open to it by any mount: the socket of the engine too.")
            .source(&["Bulkhead"])
            .remedy("take `--group-add` away; `USER app:app` in the image"),
        container("container.host-pid", "no container sees the host's processes", Severity::High, host_pid)
            .because("It reads their environment and memory, and signals them.")
            .source(&["CIS-Docker-1.6 5.16", "CIS-Kubernetes-1.11 5.2.3"])
            .remedy("take `--pid host` away"),
        container("container.host-ipc", "no container shares the host's IPC", Severity::Medium, host_ipc)
            .because("Shared memory of the host's programs.")
            .source(&["CIS-Docker-1.6 5.17", "CIS-Kubernetes-1.11 5.2.4"])
            .remedy("take `--ipc host` away"),
        container("container.host-network", "no container uses the host's network", Severity::High, host_network)
            .because("It reaches what listens on 127.0.0.1, hears all traffic, and no filter between containers sees it.")
            .source(&["CIS-Docker-1.6 5.10", "CIS-Kubernetes-1.11 5.2.5"])
            .remedy("take `--network host` away and publish the ports"),
        container("container.host-uts", "no container shares the host's name", Severity::Low, host_uts)
            .because("It could rename the host.")
            .source(&["CIS-Docker-1.6 5.21"])
            .remedy("take `--uts host` away"),
        container("container.host-cgroup", "no container sees the host's cgroups", Severity::Medium, host_cgroup)
            .because("With cgroup v1 and a capability it names a program that the host runs as root.")
            .source(&["CIS-Docker-1.6 5.25"])
            .remedy("`--cgroupns private`"),
        container("container.read-only-root", "the root filesystem is read-only", Severity::Low, read_only_root)
            .because("What is broken into cannot leave its tools; drift shows at once.")
            .source(&["CIS-Docker-1.6 5.13"])
            .remedy("`--read-only` with `--tmpfs /tmp`"),
        container("container.memory-limit", "memory is limited", Severity::Medium, memory)
            .because("One container takes all, and the kernel kills others for it.")
            .source(&["CIS-Docker-1.6 5.11"])
            .remedy("`--memory`"),
        container("container.cpu-limit", "processor time is weighed or limited", Severity::Low, cpu)
            .because("One container slows all.")
            .source(&["CIS-Docker-1.6 5.12"])
            .remedy("`--cpus` or `--cpu-shares`"),
        container("container.pids-limit", "the number of processes is limited", Severity::Medium, pids)
            .because("A fork bomb in one container stops the host.")
            .source(&["CIS-Docker-1.6 5.29", "CIS-Kubernetes-1.11 4.2.13"])
            .remedy("`--pids-limit 200`"),
        container("container.restart-policy", "restarts end", Severity::Low, restart)
            .because("A container that dies at once is started without end.")
            .source(&["CIS-Docker-1.6 5.15"])
            .remedy("`--restart on-failure:5`"),
        container("container.oom", "no container is spared when memory ends", Severity::Medium, oom)
            .because("The kernel kills programs of the host instead.")
            .source(&["Bulkhead"])
            .remedy("take `--oom-score-adj` away"),
        container("container.health-check", "the engine knows whether the program works", Severity::Info, health)
            .because("A program that hangs counts as running.")
            .source(&["CIS-Docker-1.6 5.27", "CIS-Docker-1.6 4.6"])
            .remedy("`HEALTHCHECK` in the image"),
        container("container.published-everywhere", "published ports are bound to an address", Severity::Low, published)
            .because("0.0.0.0 is every network of the host, past its firewall: Docker's rules come first.")
            .source(&["CIS-Docker-1.6 5.14"])
            .remedy("`-p 127.0.0.1:8080:80`, or the address of the network that needs it"),
        container("container.privileged-ports", "no privileged port of the host is published but 80 and 443", Severity::Low, privileged_ports)
            .because("Ports below 1024 are those of the host's own services.")
            .source(&["CIS-Docker-1.6 5.8"])
            .remedy("publish a port above 1023"),
        container("container.default-bridge", "containers are in networks of their own", Severity::Low, default_bridge)
            .because("On the default bridge all reach all.")
            .source(&["CIS-Docker-1.6 5.30"])
            .remedy("`docker network create`, and `--network`"),
        container("container.ssh", "no ssh server runs in a container", Severity::Medium, ssh)
            .because("Nobody updates its keys and accounts; `exec` does the same with the engine's rights.")
            .source(&["CIS-Docker-1.6 5.7"])
            .remedy("take it out of the image"),
        container("container.image-digest", "images are pinned by digest", Severity::Info, digest)
            .because("A tag may be another image at the next start.")
            .source(&["CIS-Docker-1.6 5.28"])
            .remedy("`image@sha256:…`"),
        container("container.latest-tag", "no image is taken by the tag latest", Severity::Low, latest)
            .because("Nobody can say what ran yesterday.")
            .source(&["CIS-Docker-1.6 5.28", "Dockle DKL-DI-0006"])
            .remedy("name a version"),
        container("container.image-age", "images are younger than a quarter", Severity::Low, age)
            .because("An old image holds holes that are mended since.")
            .source(&["CIS-Docker-1.6 4.4"])
            .remedy("build and pull anew"),
        container("container.secrets-in-environment", "no secret stands in the environment", Severity::Medium, secrets)
            .because("The environment is shown by inspect, inherited by every child and written into crash reports. Names are judged; values are never read into a snapshot.")
            .source(&["CIS-Docker-1.6 4.10", "Dockle CIS-DI-0010"])
            .remedy("files, as secrets of Compose, Swarm or Kubernetes"),
        container("container.log-driver", "logs of every container are kept", Severity::Low, log_driver)
            .because("Without them nobody knows what happened.")
            .source(&["CIS-Docker-1.6 2.13"])
            .remedy("take `--log-driver none` away"),
        container("container.runtime", "every container runs under a runtime that confines it", Severity::Medium, runtime)
            .because("A runtime of one's own may leave out what the others do.")
            .source(&["Bulkhead"])
            .remedy("runc, crun, runsc or kata"),
        container("container.ulimits", "limits of the engine are not lifted", Severity::Info, ulimits)
            .because("Unlimited files and processes use up what all share.")
            .source(&["CIS-Docker-1.6 5.19"])
            .remedy("take `--ulimit …=-1` away"),
        container("container.declared-differs", "what runs is what was ordered", Severity::High, differs)
            .because("A container whose kernel state has more than its order says was changed from outside: by nsenter, by a runtime of its own, or by an escape.")
            .source(&["Bulkhead"])
            .remedy("stop it, and find out who changed it"),
    ]
}

/// Names by number: include/uapi/linux/capability.h.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker, Podman and containerd give without being asked.
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// Each has a known way to the host.
const DANGEROUS: [&str; 13] = [
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PTRACE",
    "SYS_BOOT",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "BPF",
    "PERFMON",
    "SYSLOG",
    "CHECKPOINT_RESTORE",
    "LINUX_IMMUTABLE",
];

/// Capabilities that count: of a running container those of the kernel's bounding set, since any child may gain them
/// unless no-new-privileges holds; else those that were ordered.
pub(super) fn held(container: &Container) -> Result<Vec<&'static str>, String> {
    if let Some(truth) = container.kernel.known() {
        return Ok(names(truth.effective | truth.permitted | if truth.no_new_privileges { 0 } else { truth.bounding }));
    }
    match container.declared.known() {
        Some(declared) if declared.privileged == Some(true) => Ok(CAPABILITIES.to_vec()),
        Some(declared) => Ok(CAPABILITIES.iter().copied().filter(|name| USUAL.contains(name) || asks(declared, name)).collect()),
        None => Err(why(container)),
    }
}

fn names(bits: u64) -> Vec<&'static str> {
    CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name).collect()
}

fn asks(declared: &Declared, name: &str) -> bool {
    declared.capabilities_added.iter().any(|added| {
        let added = added.strip_prefix("CAP_").unwrap_or(added);
        added.eq_ignore_ascii_case(name) || added.eq_ignore_ascii_case("ALL")
    })
}

/// Why nothing is known of it.
pub(super) fn why(container: &Container) -> String {
    match (container.kernel.unreadable(), container.declared.unreadable()) {
        (Some(why), _) | (None, Some(why)) => why.to_owned(),
        (None, None) => "neither its process nor its order is known".to_owned(),
    }
}

/// Judges by the kernel where the container runs, else by the order.
pub(super) fn either(container: &Container, kernel: impl FnOnce(&Truth) -> Seen, ordered: impl FnOnce(&Declared) -> Seen) -> Seen {
    match (container.kernel.known(), container.declared.known()) {
        (Some(truth), _) => kernel(truth),
        (None, Some(declared)) => ordered(declared),
        (None, None) => Unknown(why(container)),
    }
}

fn ordered(container: &Container, judge: impl FnOnce(&Declared) -> Seen) -> Seen {
    match container.declared.known() {
        Some(declared) => judge(declared),
        None => Unknown(container.declared.unreadable().unwrap_or("its order is not known").to_owned()),
    }
}

fn bad_if(bad: bool, what: impl Into<String>) -> Seen {
    if bad { Bad(what.into()) } else { Fine }
}

fn privileged(container: &Container, _: &View<'_>) -> Seen {
    if container.declared.known().is_some_and(|declared| declared.privileged == Some(true)) {
        return Bad("ordered with --privileged".to_owned());
    }
    match container.kernel.known() {
        // Whatever the order says: all capabilities and no filter are what privileged means.
        Some(truth) => bad_if(
            names(truth.bounding).len() >= 38 && truth.seccomp == 0,
            format!("holds {} capabilities without system-call filter", names(truth.bounding).len()),
        ),
        None if container.declared.known().is_some() => Fine,
        None => Unknown(why(container)),
    }
}

fn list(container: &Container, bad: impl Fn(&str) -> bool) -> Seen {
    match held(container) {
        Ok(held) => {
            let found: Vec<&str> = held.into_iter().filter(|name| bad(name)).collect();
            bad_if(!found.is_empty(), found.join(", "))
        }
        Err(why) => Unknown(why),
    }
}

fn dangerous(container: &Container, _: &View<'_>) -> Seen {
    list(container, |name| DANGEROUS.contains(&name))
}

fn added(container: &Container, _: &View<'_>) -> Seen {
    list(container, |name| !USUAL.contains(&name) && !DANGEROUS.contains(&name))
}

fn mknod(container: &Container, view: &View<'_>) -> Seen {
    let asked = container.declared.known().is_some_and(|declared| asks(declared, "MKNOD"));
    match held(container) {
        Ok(held) if held.contains(&"MKNOD") => {
            let wide = super::container_reach::wide_rules(container, view);
            match (asked, wide.is_empty()) {
                (_, false) => Bad(format!("MKNOD, and devices {}", wide.join("; "))),
                (true, true) => Bad("MKNOD was asked for".to_owned()),
                (false, true) => Fine,
            }
        }
        Ok(_) => Fine,
        Err(why) => Unknown(why),
    }
}

fn net_raw(container: &Container, _: &View<'_>) -> Seen {
    list(container, |name| name == "NET_RAW")
}

fn ambient(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known() {
        Some(truth) => bad_if(truth.ambient != 0, names(truth.ambient).join(", ")),
        None if container.running => Unknown(why(container)),
        None => Beside,
    }
}

fn label(container: &Container, view: &View<'_>) -> Seen {
    let kernel = &view.snapshot.kernel;
    let off = kernel.apparmor.known() != Some(&true) && kernel.selinux.known().is_none();
    let unconfined = |declared: &Declared| {
        declared.security_options.iter().any(|option| {
            let option = option.replace(':', "=");
            matches!(option.as_str(), "apparmor=unconfined" | "label=disable")
        })
    };
    if container.declared.known().is_some_and(unconfined) {
        return Bad("ordered without AppArmor or SELinux".to_owned());
    }
    if off && view.snapshot.live {
        return Bad("the kernel has no security module that confines containers".to_owned());
    }
    either(
        container,
        |truth| match &truth.label {
            crate::snapshot::Fact::Known(label)
                if label.starts_with("unconfined") || label.contains("spc_t") || label.contains("unconfined_t") =>
            {
                Bad(label.clone())
            }
            crate::snapshot::Fact::Known(_) => Fine,
            crate::snapshot::Fact::Absent => Bad("no label".to_owned()),
            crate::snapshot::Fact::Unreadable(why) => Unknown(why.clone()),
        },
        |declared| bad_if(declared.privileged == Some(true), "privileged runs unconfined"),
    )
}

fn seccomp(container: &Container, _: &View<'_>) -> Seen {
    either(
        container,
        |truth| bad_if(truth.seccomp != 2, "no filter"),
        |declared| {
            let off = declared.security_options.iter().any(|option| option.replace(':', "=") == "seccomp=unconfined");
            bad_if(off || declared.privileged == Some(true), "ordered without filter")
        },
    )
}

fn no_new_privileges(container: &Container, view: &View<'_>) -> Seen {
    let default = matches!(&view.docker, crate::snapshot::Fact::Known(settings) if settings.get("no-new-privileges").and_then(serde_json::Value::as_bool) == Some(true));
    either(
        container,
        |truth| bad_if(!truth.no_new_privileges, "not set"),
        |declared| {
            bad_if(
                !default
                    && !declared
                        .security_options
                        .iter()
                        .any(|option| option.starts_with("no-new-privileges") && !option.ends_with("false")),
                "not set",
            )
        },
    )
}

fn root_user(container: &Container, _: &View<'_>) -> Seen {
    either(
        container,
        |truth| bad_if(truth.uid == 0, "runs as the host's user 0"),
        |declared| match declared.user.as_deref() {
            None => Unknown("its user is not known".to_owned()),
            Some(user) => {
                let name = user.split(':').next().unwrap_or_default();
                bad_if(name.is_empty() || name == "0" || name == "root", "ordered as root")
            }
        },
    )
}

fn host_users(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known() {
        Some(truth) => match truth.root_is_host_root {
            Some(same) => bad_if(same, "its root is the host's"),
            None => Unknown("its map of users could not be read".to_owned()),
        },
        None if container.running => Unknown(why(container)),
        None => Beside,
    }
}

fn group_zero(container: &Container, view: &View<'_>) -> Seen {
    let groups = view.snapshot.groups.known();
    let id = |name: &str| groups?.iter().find(|group| group.name == name).map(|group| group.gid);
    let powerful: Vec<(u32, String)> = [("docker", id("docker")), ("disk", id("disk")), ("kmem", id("kmem")), ("shadow", id("shadow"))]
        .into_iter()
        .filter_map(|(name, gid)| Some((gid?, name.to_owned())))
        .collect();
    let mut found = Vec::new();
    if let Some(declared) = container.declared.known() {
        for group in &declared.groups_added {
            let number = group.parse::<u32>().ok();
            if number == Some(0) || group == "root" {
                found.push("group 0 was added".to_owned());
            } else if let Some((_, name)) = powerful.iter().find(|(gid, name)| number == Some(*gid) || name == group) {
                found.push(format!("group {name} was added"));
            }
        }
        if let Some((_, group)) = declared.user.as_deref().and_then(|user| user.split_once(':'))
            && !declared.user.as_deref().is_some_and(|user| user.starts_with("0:") || user.starts_with("root:"))
            && matches!(group, "0" | "root")
        {
            found.push("its first group is 0".to_owned());
        }
    }
    if let Some(truth) = container.kernel.known()
        && truth.uid != 0
        && truth.root_is_host_root != Some(false)
    {
        let has = |gid: u32| truth.gid == gid || truth.groups.contains(&gid);
        if has(0) && found.is_empty() {
            found.push(format!("user {} is in group 0", truth.uid));
        }
        let also = powerful.iter().filter(|(gid, _)| has(*gid));
        found.extend(also.map(|(gid, name)| format!("user {} is in the host's group {name} ({gid})", truth.uid)));
    }
    if !found.is_empty() {
        found.dedup();
        return Bad(found.join(", "));
    }
    either(container, |_| Fine, |_| Fine)
}

fn shares(container: &Container, namespace: &str) -> Seen {
    let shared = |list: &[String]| list.iter().any(|one| one == namespace);
    either(
        container,
        |truth| {
            if shared(&truth.hidden_namespaces) {
                return Unknown(format!("its {namespace} namespace may not be looked at"));
            }
            bad_if(shared(&truth.host_namespaces), format!("its {namespace} namespace is the host's"))
        },
        |declared| bad_if(shared(&declared.host_namespaces), format!("ordered with the host's {namespace} namespace")),
    )
}

fn host_pid(container: &Container, _: &View<'_>) -> Seen {
    shares(container, "pid")
}

fn host_ipc(container: &Container, _: &View<'_>) -> Seen {
    shares(container, "ipc")
}

fn host_network(container: &Container, _: &View<'_>) -> Seen {
    shares(container, "net")
}

fn host_uts(container: &Container, _: &View<'_>) -> Seen {
    shares(container, "uts")
}

fn host_cgroup(container: &Container, view: &View<'_>) -> Seen {
    // With v1 Docker's default is the host's view, read-only; without a capability to mount, that shows names only.
    let v1 = view.snapshot.kernel.cgroup.known().is_some_and(|kind| kind != "v2");
    let admin = held(container).is_ok_and(|held| held.contains(&"SYS_ADMIN"));
    match shares(container, "cgroup") {
        Bad(what) if v1 && admin => Bad(format!("{what}, and SYS_ADMIN may write to it")),
        Bad(_) if v1 => Fine,
        seen => seen,
    }
}

fn read_only_root(container: &Container, _: &View<'_>) -> Seen {
    let truth =
        container.kernel.known().and_then(|truth| truth.mounts.known()).and_then(|mounts| mounts.iter().find(|mount| mount.target == "/"));
    match (truth, container.declared.known().and_then(|declared| declared.read_only_root)) {
        (Some(root), _) => bad_if(!root.read_only, "can be written"),
        (None, Some(read_only)) => bad_if(!read_only, "can be written"),
        (None, None) => Unknown(why(container)),
    }
}

/// A limit of this or more is none: the kernel's own largest numbers.
const NO_LIMIT: u64 = 1 << 62;

fn limit(
    container: &Container,
    kernel: impl FnOnce(&Truth) -> &crate::snapshot::Fact<u64>,
    asked: impl FnOnce(&Declared) -> Option<i64>,
) -> Seen {
    if let Some(fact) = container.kernel.known().map(kernel) {
        match fact {
            crate::snapshot::Fact::Known(max) => return bad_if(*max >= NO_LIMIT, "no limit"),
            crate::snapshot::Fact::Absent => return Bad("no limit".to_owned()),
            crate::snapshot::Fact::Unreadable(_) => {}
        }
    }
    ordered(container, |declared| bad_if(asked(declared).unwrap_or(0) <= 0, "no limit"))
}

fn memory(container: &Container, _: &View<'_>) -> Seen {
    limit(container, |truth| &truth.memory_max, |declared| declared.memory_max)
}

fn pids(container: &Container, _: &View<'_>) -> Seen {
    limit(container, |truth| &truth.pids_max, |declared| declared.pids_max)
}

fn cpu(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known().map(|truth| &truth.cpu_limited) {
        Some(crate::snapshot::Fact::Known(limited)) => bad_if(!limited, "no limit and no weight"),
        _ => ordered(container, |declared| bad_if(declared.cpu_limited != Some(true), "no limit and no weight")),
    }
}

fn restart(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| match declared.restart.as_deref() {
        Some("always" | "unless-stopped") => Bad(declared.restart.clone().unwrap_or_default()),
        Some("on-failure") => bad_if(
            declared.restart_max.unwrap_or(0) == 0 || declared.restart_max.is_some_and(|max| max > 5),
            "on-failure without an end at 5 or less",
        ),
        Some(_) => Fine,
        None => Beside,
    })
}

fn oom(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known() {
        Some(truth) => bad_if(truth.oom_score_adjust <= -500, format!("oom_score_adj is {}", truth.oom_score_adjust)),
        None => Beside,
    }
}

fn health(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| declared.health_check.map_or(Beside, |has| bad_if(!has, "no health check")))
}

fn published(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| {
        let open: Vec<&str> = declared
            .published
            .iter()
            .filter(|port| port.starts_with("0.0.0.0:") || port.starts_with(":::") || port.starts_with("[::]:"))
            .map(String::as_str)
            .collect();
        bad_if(!open.is_empty(), open.join(", "))
    })
}

fn privileged_ports(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| {
        let host_port =
            |port: &&String| port.split("->").next().and_then(|host| host.rsplit(':').next()).and_then(|port| port.parse::<u16>().ok());
        let low: Vec<&str> = declared
            .published
            .iter()
            .filter(|port| host_port(port).is_some_and(|port| port < 1024 && port != 80 && port != 443 && port != 0))
            .map(String::as_str)
            .collect();
        bad_if(!low.is_empty(), low.join(", "))
    })
}

fn default_bridge(container: &Container, _: &View<'_>) -> Seen {
    if container.runtime != "docker" {
        return Beside;
    }
    ordered(container, |declared| bad_if(matches!(declared.network.as_deref(), Some("default" | "bridge")), "on the default bridge"))
}

fn ssh(container: &Container, _: &View<'_>) -> Seen {
    match container.kernel.known() {
        Some(truth) => bad_if(
            truth.programs.iter().any(|program| matches!(program.as_str(), "sshd" | "dropbear" | "in.telnetd")),
            "an ssh server is running",
        ),
        None if container.running => Unknown(why(container)),
        None => Beside,
    }
}

fn digest(container: &Container, _: &View<'_>) -> Seen {
    match container.image.as_str() {
        "" => Unknown("its image is not known".to_owned()),
        image => bad_if(!image.contains("@sha256:") && !image.starts_with("sha256:"), image),
    }
}

fn latest(container: &Container, _: &View<'_>) -> Seen {
    match container.image.as_str() {
        "" => Unknown("its image is not known".to_owned()),
        image if image.contains("@sha256:") || image.starts_with("sha256:") => Fine,
        image => {
            let name = image.rsplit('/').next().unwrap_or(image);
            bad_if(!name.contains(':') || name.ends_with(":latest"), image)
        }
    }
}

const DAYS_MAX: u64 = 92;

fn age(container: &Container, view: &View<'_>) -> Seen {
    match container.image_made {
        Some(made) => {
            let days = view.snapshot.taken.saturating_sub(made) / 86_400;
            bad_if(days > DAYS_MAX, format!("its image is {days} days old"))
        }
        None => Unknown("when its image was made is not known".to_owned()),
    }
}

fn secrets(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| bad_if(!declared.secret_names.is_empty(), declared.secret_names.join(", ")))
}

fn log_driver(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| declared.log_driver.as_deref().map_or(Beside, |driver| bad_if(driver == "none", "log driver none")))
}

fn runtime(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| match declared.runtime.as_deref() {
        None
        | Some(
            ""
            | "runc"
            | "crun"
            | "runsc"
            | "kata"
            | "kata-runtime"
            | "youki"
            | "io.containerd.runc.v2"
            | "io.containerd.runtime.v1.linux"
            | "io.containerd.kata.v2"
            | "io.containerd.runsc.v1"
            | "bulkhead",
        ) => Fine,
        Some(other) => Bad(format!("runtime {other}")),
    })
}

fn ulimits(container: &Container, _: &View<'_>) -> Seen {
    ordered(container, |declared| declared.ulimits.map_or(Beside, |lifted| bad_if(lifted, "limits are set for it alone")))
}

fn differs(container: &Container, _: &View<'_>) -> Seen {
    let (Some(truth), Some(declared)) = (container.kernel.known(), container.declared.known()) else { return Beside };
    let mut found = Vec::new();
    if declared.privileged != Some(true)
        && !declared.capabilities_added.iter().any(|name| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL"))
    {
        let more: Vec<&str> = names(truth.effective).into_iter().filter(|name| !USUAL.contains(name) && !asks(declared, name)).collect();
        if !more.is_empty() && truth.root_is_host_root == Some(true) {
            found.push(format!("holds {} that were not ordered", more.join(", ")));
        }
    }
    let strange: Vec<&String> = truth
        .host_namespaces
        .iter()
        .filter(|one| !matches!(one.as_str(), "user" | "cgroup" | "time") && !declared.host_namespaces.contains(one))
        .collect();
    if !strange.is_empty() {
        found.push(format!(
            "shares {} of the host, which was not ordered",
            strange.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
        ));
    }
    bad_if(!found.is_empty(), found.join("; "))
}
