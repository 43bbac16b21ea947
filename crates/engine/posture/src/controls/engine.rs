//! Settings of container engines.

use serde_json::{Map, Value};

use crate::control::{Area, Check, Control, Outcome, Risk, Severity};
use crate::snapshot::Fact;
use crate::view::View;

pub fn controls() -> Vec<Control> {
    let engine = |id: &str, title: &str, severity, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Engine, severity, Check::Other(check))
    };
    vec![
        engine("docker.icc", "containers of the default bridge do not talk to each other unasked", Severity::Medium, icc)
            .because("One container that is broken into reaches every other one; Bulkhead's segments do the same with more sense.")
            .source(&["CIS-Docker-1.6 2.2"])
            .remedy("`\"icc\": false` in daemon.json, and networks of their own for those that belong together")
            .risk(Risk::High, "containers that reach each other over the default bridge")
            .when_named(),
        engine("docker.log-level", "the engine logs at level info", Severity::Low, log_level)
            .because("debug fills the disk and tells secrets; less hides who did what.")
            .source(&["CIS-Docker-1.6 2.3"])
            .remedy("`\"log-level\": \"info\"` in daemon.json"),
        engine("docker.iptables", "the engine may set its packet filter", Severity::Medium, iptables)
            .because("Without its rules containers are not isolated from the outside, nor reached.")
            .source(&["CIS-Docker-1.6 2.4"])
            .remedy("take `\"iptables\": false` out of daemon.json")
            .risk(Risk::Medium, "hosts whose filter is made by hand")
            .when_named(),
        engine("docker.insecure-registries", "no registry is believed without TLS", Severity::High, insecure_registries)
            .because("Whoever stands in between chooses what runs here.")
            .source(&["CIS-Docker-1.6 2.5"])
            .remedy("give the registry a certificate, and take it out of `insecure-registries`")
            .risk(Risk::Medium, "pulls from that registry")
            .when_named(),
        engine("docker.storage-driver", "the storage driver is maintained", Severity::Medium, storage)
            .because("aufs, devicemapper and the old overlay get no fixes.")
            .source(&["CIS-Docker-1.6 2.6"])
            .remedy("overlay2, or containerd's own snapshots")
            .risk(Risk::High, "images must be pulled again")
            .when_named(),
        engine("docker.tls", "a TCP socket of the engine asks for client certificates", Severity::Critical, tls)
            .because("Whoever reaches the port is root on the host.")
            .source(&["CIS-Docker-1.6 2.7"])
            .remedy("`tlsverify` with `tlscacert`, `tlscert` and `tlskey`; better no TCP at all")
            .when_named(),
        engine("docker.ulimits", "containers have a limit of files and processes by default", Severity::Low, ulimits)
            .because("One container uses up what all share.")
            .source(&["CIS-Docker-1.6 2.8"])
            .remedy("`\"default-ulimits\": {\"nofile\": {\"Name\": \"nofile\", \"Hard\": 64000, \"Soft\": 64000}}`")
            .risk(Risk::Low, "programs that open very many files")
            .when_named(),
        engine("docker.userns-remap", "root in a container is not root of the host", Severity::Medium, userns)
            .because("Most escapes end with the container's user id on the host: let it be one without rights.")
            .source(&["CIS-Docker-1.6 2.9"])
            .remedy("`\"userns-remap\": \"default\"`, or rootless Docker")
            .risk(Risk::High, "images are stored anew, and volumes have other owners")
            .when_named(),
        engine("docker.cgroup-parent", "the cgroup of containers is the engine's own", Severity::Low, cgroup_parent)
            .because("Another parent may have no limits.")
            .source(&["CIS-Docker-1.6 2.10"])
            .remedy("take `cgroup-parent` out of daemon.json")
            .when_named(),
        engine("docker.storage-size", "the base size of a container is not raised", Severity::Info, base_size)
            .because("A larger base size lets one container fill the disk.")
            .source(&["CIS-Docker-1.6 2.11"])
            .remedy("take `dm.basesize` out of `storage-opts`")
            .when_named(),
        engine("docker.authorization", "who may order what is checked", Severity::Low, authorization)
            .because("Whoever may use the socket may do everything. A plugin can say no, if it fails closed (CVE-2026-34040); a filtering socket can as well.")
            .source(&["CIS-Docker-1.6 2.12"])
            .remedy("`authorization-plugins`, or give clients a filtered socket")
            .risk(Risk::Medium, "clients that the plugin refuses")
            .when_named(),
        engine("docker.log-limit", "logs of containers end before the disk does", Severity::Medium, log_limit)
            .because("json-file without max-size fills the host's disk: the commonest outage of Docker hosts.")
            .source(&["CIS-Docker-1.6 2.13", "Bulkhead"])
            .remedy("`\"log-opts\": {\"max-size\": \"10m\", \"max-file\": \"3\"}` in daemon.json (for new containers)")
            .risk(Risk::Low, "older lines are lost"),
        engine("docker.no-new-privileges", "programs in containers gain no rights by set-id files", Severity::Medium, no_new_privileges)
            .because("sudo and other set-id programs in an image are a step that no service needs.")
            .source(&["CIS-Docker-1.6 2.14"])
            .remedy("`\"no-new-privileges\": true` in daemon.json (for new containers)")
            .risk(Risk::Low, "images that use sudo or su"),
        engine("docker.live-restore", "containers outlive a restart of the engine", Severity::Low, live_restore)
            .because("Otherwise updates of the engine are put off.")
            .source(&["CIS-Docker-1.6 2.15"])
            .remedy("`\"live-restore\": true` in daemon.json")
            .risk(Risk::Low, "swarm mode, which cannot have it"),
        engine("docker.userland-proxy", "published ports are forwarded by the kernel", Severity::Low, userland_proxy)
            .because("A process of root for each port, which also hides who calls.")
            .source(&["CIS-Docker-1.6 2.16"])
            .remedy("`\"userland-proxy\": false` in daemon.json")
            .risk(Risk::Medium, "connections to published ports from the host itself over ::1")
            .when_named(),
        engine("docker.seccomp-profile", "the engine's own system-call filter is not switched off", Severity::High, seccomp)
            .because("A profile of `unconfined` for all opens some sixty system calls to every container.")
            .source(&["CIS-Docker-1.6 2.17"])
            .remedy("take `seccomp-profile` out of daemon.json")
            .risk(Risk::Low, "containers that need such calls; give them a profile of their own"),
        engine("docker.experimental", "experimental features are off", Severity::Low, experimental)
            .because("They are not ready, and not looked at.")
            .source(&["CIS-Docker-1.6 2.18"])
            .remedy("take `\"experimental\": true` out of daemon.json")
            .risk(Risk::Medium, "what uses them")
            .when_named(),
        engine("docker.config-valid", "the engine's configuration can be read", Severity::High, valid)
            .because("With a mistake in it the engine does not start again: found out at the next reboot.")
            .source(&["Bulkhead"])
            .remedy("`dockerd --validate --config-file /etc/docker/daemon.json`")
            .when_named(),
        engine("docker.runtimes", "every runtime is a program that only root can change", Severity::Critical, runtimes)
            .because("A runtime is run as root for every start of a container; one more in the list is a way to stay.")
            .source(&["Bulkhead"])
            .remedy("take it out of `runtimes`, or give the program to root")
            .when_named(),
        engine("docker.content-trust", "images are pulled by digest or with a signature", Severity::Info, content_trust)
            .because("A tag is whatever the registry says today.")
            .source(&["CIS-Docker-1.6 4.5"])
            .remedy("`DOCKER_CONTENT_TRUST=1` for those who pull; cosign in the pipeline; digests in compose files")
            .when_named(),
        engine("docker.address-pools", "networks of containers do not lie over the host's own", Severity::Info, pools)
            .because("Docker takes 172.17.0.0/16 and on unless told; where the company does too, containers do not reach it.")
            .source(&["Bulkhead"])
            .remedy("`default-address-pools` in daemon.json")
            .when_named(),
        engine("engine.rootless", "engines run without root where that is possible", Severity::Info, rootless)
            .because("An engine of a user gives an escape that user's rights only.")
            .source(&["CIS-Docker-1.6 1", "NIST SP 800-190"])
            .remedy("rootless Docker or Podman for what needs no low port and no device")
            .when_named(),
        engine("engine.swarm", "swarm mode is off where nobody uses it", Severity::Low, swarm)
            .because("It opens ports 2377 and 7946, and keys lie on disk.")
            .source(&["CIS-Docker-1.6 7.1"])
            .remedy("`docker swarm leave`")
            .risk(Risk::High, "services of the swarm")
            .when_named(),
        engine("containerd.tcp", "containerd runs no plugin that takes orders over TCP", Severity::High, containerd_tcp)
            .because("Its gRPC over TCP asks nobody for a password by default.")
            .source(&["Bulkhead"])
            .remedy("empty `tcp_address` in /etc/containerd/config.toml")
            .when_named(),
        engine("containerd.weakened", "containerd's settings weaken no container", Severity::Medium, containerd_weak)
            .because("`privileged_without_host_devices = false` is usual; switched-off AppArmor, SELinux or seccomp is not.")
            .source(&["Bulkhead"])
            .remedy("take `disable_apparmor = true` and an empty seccomp profile out of config.toml")
            .when_named(),
        engine("podman.registries", "no registry is believed without TLS by Podman and CRI-O", Severity::High, podman_registries)
            .because("Whoever stands in between chooses what runs here.")
            .source(&["Bulkhead"])
            .remedy("take `insecure = true` out of /etc/containers/registries.conf")
            .when_named(),
        engine("podman.policy", "Podman's policy of signatures is stated", Severity::Info, podman_policy)
            .because("`insecureAcceptAnything` takes every image from everywhere.")
            .source(&["Bulkhead"])
            .remedy("`signedBy` or `sigstoreSigned` for your registries in /etc/containers/policy.json")
            .when_named(),
        engine("engine.socket-forwarded", "no other process hands the engine's socket on", Severity::High, forwarded)
            .because("socat or a proxy in front of docker.sock gives root to whoever reaches it.")
            .source(&["Bulkhead"])
            .remedy("stop it, or let it filter what passes")
            .when_named(),
    ]
}

/// Docker's settings, or why there is nothing to judge.
fn docker<'v>(view: &'v View<'_>) -> Result<&'v Map<String, Value>, Outcome> {
    if !view.has_docker() {
        return Err(match &view.snapshot.engines {
            Fact::Unreadable(why) if view.snapshot.exists("/usr/bin/dockerd").is_none() => Outcome::unknown(why.clone()),
            Fact::Known(_) | Fact::Absent | Fact::Unreadable(_) => {
                Outcome::not_applicable("Docker is neither running nor installed: no process dockerd, no /usr/bin/dockerd")
            }
        });
    }
    match &view.docker {
        Fact::Known(settings) => Ok(settings),
        Fact::Absent => Err(Outcome::unknown("Docker's settings are not known")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

/// Judges one setting; `None` is the engine's default.
fn setting(view: &View<'_>, key: &str, judge: impl Fn(Option<&Value>) -> Result<String, String>) -> Outcome {
    match docker(view) {
        Ok(settings) => match judge(settings.get(key)) {
            Ok(fine) => Outcome::passed(fine),
            Err(bad) => Outcome::failed(bad),
        },
        Err(outcome) => outcome,
    }
}

/// A switch that must have one state.
fn switch(view: &View<'_>, key: &str, wanted: bool, default: bool) -> Outcome {
    setting(view, key, |value| match value {
        None if default == wanted => Ok(format!("{key} is not set: {default}")),
        None => Err(format!("{key} is not set: {default}")),
        Some(value) if value.as_bool() == Some(wanted) => Ok(format!("{key} is {wanted}")),
        Some(value) => Err(format!("{key} is {value}")),
    })
}

fn icc(view: &View<'_>) -> Outcome {
    switch(view, "icc", false, true)
}

fn log_level(view: &View<'_>) -> Outcome {
    setting(view, "log-level", |value| match value.map(|value| value.as_str().unwrap_or_default()) {
        None => Ok("not set: info".to_owned()),
        Some("info") => Ok("info".to_owned()),
        Some(other) => Err(format!("log-level is {other}")),
    })
}

fn iptables(view: &View<'_>) -> Outcome {
    switch(view, "iptables", true, true)
}

fn insecure_registries(view: &View<'_>) -> Outcome {
    match docker(view) {
        Ok(settings) => {
            let list = settings.get("insecure-registries").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let far = list.filter(|name| !name.starts_with("127.") && !name.starts_with("localhost") && !name.starts_with("::1"));
            Outcome::of_list(far.map(|name| format!("{name} is believed without TLS")).collect(), "none but this host")
        }
        Err(outcome) => outcome,
    }
}

fn storage(view: &View<'_>) -> Outcome {
    setting(view, "storage-driver", |value| match value.and_then(Value::as_str) {
        Some(old @ ("aufs" | "devicemapper" | "overlay")) => Err(format!("storage-driver is {old}")),
        Some(other) => Ok(format!("storage-driver is {other}")),
        None => Ok("not set: the engine chooses".to_owned()),
    })
}

fn tls(view: &View<'_>) -> Outcome {
    match docker(view) {
        Ok(settings) => {
            let hosts = settings.get("hosts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let tcp: Vec<&str> = hosts.filter(|host| host.starts_with("tcp://")).collect();
            let verify = settings.get("tlsverify").and_then(Value::as_bool) == Some(true);
            match (tcp.is_empty(), verify) {
                (true, _) => {
                    Outcome::not_applicable("the engine is not told to listen on TCP: neither `hosts` nor -H names a tcp:// address")
                }
                (false, true) => Outcome::passed(format!("{} with tlsverify", tcp.join(", "))),
                (false, false) => Outcome::failed(format!("{} without tlsverify", tcp.join(", "))),
            }
        }
        Err(outcome) => outcome,
    }
}

fn ulimits(view: &View<'_>) -> Outcome {
    setting(view, "default-ulimits", |value| match value {
        Some(value) => Ok(format!("default-ulimits {value}")),
        None => Err("default-ulimits is not set".to_owned()),
    })
}

fn userns(view: &View<'_>) -> Outcome {
    if view.engine("docker").is_some_and(|engine| engine.arguments.iter().any(|argument| argument == "--rootless")) {
        return Outcome::passed("the engine is rootless");
    }
    setting(view, "userns-remap", |value| match value.and_then(Value::as_str) {
        Some(user) if !user.is_empty() => Ok(format!("userns-remap is {user}")),
        Some(_) | None => Err("userns-remap is not set: root in a container is root of the host".to_owned()),
    })
}

fn cgroup_parent(view: &View<'_>) -> Outcome {
    setting(view, "cgroup-parent", |value| match value.and_then(Value::as_str) {
        None | Some("") => Ok("not set".to_owned()),
        Some(parent) => Err(format!("cgroup-parent is {parent}")),
    })
}

fn base_size(view: &View<'_>) -> Outcome {
    setting(view, "storage-opts", |value| match value {
        Some(value) if value.to_string().contains("basesize") => Err(format!("storage-opts {value}")),
        Some(_) | None => Ok("no base size is set".to_owned()),
    })
}

fn authorization(view: &View<'_>) -> Outcome {
    setting(view, "authorization-plugins", |value| match value.and_then(Value::as_array) {
        Some(list) if !list.is_empty() => Ok(format!("authorization-plugins {}", Value::Array(list.clone()))),
        Some(_) | None => Err("no authorization plugin: whoever may use the socket may do everything".to_owned()),
    })
}

fn log_limit(view: &View<'_>) -> Outcome {
    match docker(view) {
        Ok(settings) => {
            let driver = settings.get("log-driver").and_then(Value::as_str).unwrap_or("json-file");
            let size = settings.get("log-opts").and_then(|options| options.get("max-size")).and_then(Value::as_str);
            match (driver, size) {
                ("json-file", Some(size)) => Outcome::passed(format!("json-file with max-size {size}")),
                ("json-file", None) => Outcome::failed("json-file without max-size: logs grow without end"),
                (driver, _) => Outcome::passed(format!("log-driver is {driver}")),
            }
        }
        Err(outcome) => outcome,
    }
}

fn no_new_privileges(view: &View<'_>) -> Outcome {
    switch(view, "no-new-privileges", true, false)
}

fn live_restore(view: &View<'_>) -> Outcome {
    if view.snapshot.listeners.known().is_some_and(|list| list.iter().any(|one| one.port == 2377)) {
        return Outcome::not_applicable("swarm mode is on (port 2377 listens), which cannot have live-restore");
    }
    switch(view, "live-restore", true, false)
}

fn userland_proxy(view: &View<'_>) -> Outcome {
    switch(view, "userland-proxy", false, true)
}

fn seccomp(view: &View<'_>) -> Outcome {
    setting(view, "seccomp-profile", |value| match value.and_then(Value::as_str) {
        Some("unconfined") => Err("seccomp-profile is unconfined".to_owned()),
        Some(path) if !path.is_empty() && path != "builtin" => Ok(format!("a profile of its own: {path}")),
        Some(_) | None => Ok("the built-in profile".to_owned()),
    })
}

fn experimental(view: &View<'_>) -> Outcome {
    switch(view, "experimental", false, false)
}

fn valid(view: &View<'_>) -> Outcome {
    match (&view.docker, view.has_docker()) {
        (_, false) => Outcome::not_applicable("Docker is neither running nor installed"),
        (Fact::Known(settings), true) => {
            let unknown = settings.keys().filter(|key| key.is_empty() || key.contains(char::is_whitespace));
            Outcome::of_list(unknown.map(|key| format!("`{key}` is no setting")).collect(), format!("{} settings", settings.len()))
        }
        (Fact::Unreadable(why), true) if why.contains("JSON") => Outcome::failed(why.clone()),
        (Fact::Unreadable(why), true) => Outcome::unknown(why.clone()),
        (Fact::Absent, true) => Outcome::unknown("Docker's settings are not known"),
    }
}

fn runtimes(view: &View<'_>) -> Outcome {
    let settings = match docker(view) {
        Ok(settings) => settings,
        Err(outcome) => return outcome,
    };
    let mut bad = Vec::new();
    let mut unread = Vec::new();
    let named = settings.get("runtimes").and_then(Value::as_object);
    for (name, runtime) in named.into_iter().flatten() {
        let Some(path) = runtime.get("path").and_then(Value::as_str) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        match view.snapshot.file(path) {
            Fact::Known(meta) if meta.uid != 0 || meta.mode & 0o022 != 0 => {
                bad.push(format!("runtime {name}: {path} has mode {:04o} and belongs to id {}", meta.mode, meta.uid))
            }
            Fact::Known(_) => {}
            Fact::Absent => bad.push(format!("runtime {name}: {path} is not there: whoever puts it there is root")),
            Fact::Unreadable(why) => unread.push(format!("runtime {name}: {path}: {why}")),
        }
    }
    Outcome::of_lists(bad, unread, format!("{} runtimes are named", named.map_or(0, Map::len)))
}

fn content_trust(view: &View<'_>) -> Outcome {
    if !view.has_docker() {
        return Outcome::not_applicable("Docker is neither running nor installed");
    }
    let on = view
        .snapshot
        .texts
        .get("/etc/environment")
        .and_then(|fact| fact.known())
        .is_some_and(|text| text.contains("DOCKER_CONTENT_TRUST=1"));
    if on {
        Outcome::passed("/etc/environment: DOCKER_CONTENT_TRUST=1")
    } else {
        Outcome::failed("DOCKER_CONTENT_TRUST is not set for all users")
    }
}

fn pools(view: &View<'_>) -> Outcome {
    setting(view, "default-address-pools", |value| match value {
        Some(value) => Ok(format!("default-address-pools {value}")),
        None => Err("not set: Docker's own ranges".to_owned()),
    })
}

fn rootless(view: &View<'_>) -> Outcome {
    match &view.snapshot.engines {
        Fact::Known(engines) if engines.is_empty() => Outcome::not_applicable("no engine is running"),
        Fact::Known(engines) => {
            let as_root = engines.iter().filter(|engine| !engine.arguments.iter().any(|argument| argument == "--rootless"));
            Outcome::of_list(as_root.map(|engine| format!("{} runs as root", engine.kind)).collect(), "all run as users")
        }
        Fact::Absent => Outcome::not_applicable("no engine is running"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn swarm(view: &View<'_>) -> Outcome {
    if !view.has_docker() {
        return Outcome::not_applicable("Docker is neither running nor installed");
    }
    match &view.snapshot.listeners {
        Fact::Known(list) => {
            let open = list.iter().filter(|one| one.port == 2377 && one.exe.as_deref().is_some_and(|exe| exe.ends_with("/dockerd")));
            Outcome::of_list(open.map(|one| format!("dockerd listens on {}:2377", one.address)).collect(), "port 2377 does not listen")
        }
        Fact::Absent => Outcome::not_applicable("this root has no running kernel"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

/// containerd's settings as lines: its TOML is read for a few words only.
fn containerd_lines(view: &View<'_>) -> Result<Vec<String>, Outcome> {
    let path = view
        .engine("containerd")
        .map(|engine| engine.config_path.as_str())
        .filter(|path| !path.is_empty())
        .unwrap_or("/etc/containerd/config.toml");
    match view.snapshot.text(path) {
        Fact::Known(text) => Ok(text.lines().map(|line| line.trim().replace(' ', "")).filter(|line| !line.starts_with('#')).collect()),
        Fact::Absent if view.engine("containerd").is_some() => Ok(Vec::new()),
        Fact::Absent => Err(Outcome::not_applicable(format!("containerd does not run, and there is no {path}"))),
        Fact::Unreadable(why) if view.engine("containerd").is_some() => Err(Outcome::unknown(why)),
        Fact::Unreadable(_) => Err(Outcome::not_applicable("containerd does not run")),
    }
}

fn containerd_tcp(view: &View<'_>) -> Outcome {
    match containerd_lines(view) {
        Ok(lines) => {
            let tcp = lines
                .iter()
                .filter(|line| line.strip_prefix("tcp_address=").is_some_and(|value| !value.trim_matches(['"', '\'']).is_empty()));
            Outcome::of_list(tcp.cloned().collect(), "no tcp_address")
        }
        Err(outcome) => outcome,
    }
}

fn containerd_weak(view: &View<'_>) -> Outcome {
    match containerd_lines(view) {
        Ok(lines) => {
            let weak = ["disable_apparmor=true", "unset_seccomp_profile=\"unconfined\"", "unset_seccomp_profile='unconfined'"];
            Outcome::of_list(lines.iter().filter(|line| weak.contains(&line.as_str())).cloned().collect(), "nothing is switched off")
        }
        Err(outcome) => outcome,
    }
}

fn podman_registries(view: &View<'_>) -> Outcome {
    match view.snapshot.text("/etc/containers/registries.conf") {
        Fact::Known(text) => {
            let lines = text.lines().map(|line| line.trim().replace(' ', "")).filter(|line| line == "insecure=true");
            Outcome::of_list(lines.collect(), "none")
        }
        Fact::Absent => Outcome::not_applicable("there is no /etc/containers/registries.conf"),
        Fact::Unreadable(why) => Outcome::unknown(why),
    }
}

fn podman_policy(view: &View<'_>) -> Outcome {
    match view.snapshot.text("/etc/containers/policy.json") {
        Fact::Known(text) => match serde_json::from_str::<Value>(text) {
            Ok(tree) if tree.get("default").is_some_and(|default| default.to_string().contains("insecureAcceptAnything")) => {
                Outcome::failed("the default is insecureAcceptAnything")
            }
            Ok(_) => Outcome::passed("the default does not take everything"),
            Err(error) => Outcome::unknown(format!("/etc/containers/policy.json is not JSON: {error}")),
        },
        Fact::Absent => Outcome::not_applicable("there is no /etc/containers/policy.json"),
        Fact::Unreadable(why) => Outcome::unknown(why),
    }
}

fn forwarded(view: &View<'_>) -> Outcome {
    match &view.snapshot.listeners {
        Fact::Known(list) => {
            let ports = [2375, 2376, 4243];
            let strange = list.iter().filter(|one| {
                one.protocol == "tcp" && ports.contains(&one.port) && !one.exe.as_deref().is_some_and(|exe| exe.ends_with("/dockerd"))
            });
            let text = strange
                .map(|one| format!("{} listens on {}:{}", one.exe.as_deref().unwrap_or("an unknown process"), one.address, one.port));
            Outcome::of_list(text.collect(), "nobody but an engine listens on its ports")
        }
        Fact::Absent => Outcome::not_applicable("this root has no running kernel"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}
