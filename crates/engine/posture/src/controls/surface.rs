//! What listens, what runs with more rights than its caller, what starts with every program.

use crate::control::{Area, Check, Control, Outcome, Risk, Severity};
use crate::snapshot::{Fact, Found, Listener, Walk};
use crate::view::View;

pub fn controls() -> Vec<Control> {
    let surface = |id: &str, title: &str, severity, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Surface, severity, Check::Other(check)).when_named()
    };
    vec![
        surface("surface.engine-tcp", "no engine takes orders over the network", Severity::Critical, engine_tcp)
            .because("Whoever reaches the port is root on the host; it is scanned for all day.")
            .source(&["CIS-Docker-1.6 2.7", "NIST SP 800-190"])
            .remedy("take `tcp://` out of `hosts`; use ssh (`docker -H ssh://…`), or TLS with client certificates (`tlsverify`)")
            .risk(Risk::High, "remote clients"),
        surface("surface.exposed-listeners", "every socket that others can reach belongs to a service that is expected there", Severity::Medium, exposed)
            .because("What listens on all addresses is reachable from every network of the host, the containers' networks too.")
            .source(&["CIS-Debian-12 2.1.22", "Lynis NETW-3012"])
            .remedy("bind it to the address that needs it, or stop the unit")
            .risk(Risk::Medium, "whoever connects to it"),
        surface("surface.unowned-listeners", "every listening program belongs to a package or a container", Severity::High, unowned_listeners)
            .because("A program that no package brought is not updated by one; an intruder's is among them.")
            .source(&["Bulkhead"])
            .remedy("find out who put it there; install it from a package or run it in a container"),
        surface("surface.deleted-listeners", "no listening program has been deleted from disk", Severity::High, deleted)
            .because("A program that runs and is gone from disk was replaced by an update, or hides.")
            .source(&["Bulkhead"])
            .remedy("restart the unit after an update; otherwise look at /proc/PID/exe"),
        surface("surface.rpc-without-auth", "no service listens that is known to ask nobody for a password", Severity::Critical, no_password)
            .because("Stores and panels that trust their network (Redis, memcached, etcd, Elasticsearch, the kubelet's read-only port) are taken over by the first who looks.")
            .source(&["Bulkhead", "CIS-Kubernetes-1.11 4.2.4"])
            .remedy("bind it to 127.0.0.1, or to the containers' network only"),
        surface("surface.set-id", "every set-id program is one that its package brought and hosts know", Severity::Medium, set_id)
            .because("A program that runs as root for everybody is the usual last step; one that no package brought is a back door.")
            .source(&["CIS-Debian-12 7.1.13", "Lynis FILE-7524"])
            .remedy("`chmod u-s`, or remove the package")
            .risk(Risk::Medium, "users who rely on it"),
        surface("surface.set-id-unowned", "no set-id program lies outside packages", Severity::Critical, set_id_unowned)
            .because("The classic back door: a copy of a shell that is root for whoever starts it.")
            .source(&["CIS-Debian-12 7.1.13", "Bulkhead"])
            .remedy("`chmod u-s,g-s` it, then find out who made it"),
        surface("surface.set-id-writable", "no set-id program can be changed by others than root", Severity::Critical, set_id_writable)
            .because("Whoever changes it is root.")
            .source(&["Bulkhead"])
            .remedy("`chmod go-w`, `chown root`"),
        surface("surface.world-writable-files", "no file is writable for everybody", Severity::Medium, writable_files)
            .because("A container's process with a mount, or any account, changes what others run or read.")
            .source(&["CIS-Debian-12 7.1.11"])
            .remedy("`chmod o-w`")
            .risk(Risk::Low, "programs that share it"),
        surface("surface.world-writable-folders", "folders that everybody may write to have the sticky bit", Severity::Medium, writable_folders)
            .because("Without it everybody removes everybody's files, and puts others in their place.")
            .source(&["CIS-Debian-12 7.1.11", "Lynis FILE-6362"])
            .remedy("`chmod +t`"),
        surface("surface.unowned-files", "every file belongs to a user and group that exist", Severity::Low, unowned)
            .because("The next account that gets the id gets the file. Files of containers with a user namespace are the usual cause.")
            .source(&["CIS-Debian-12 7.1.12"])
            .remedy("`chown` it")
            .risk(Risk::Low, ""),
        surface("surface.stray-devices", "device files lie in /dev only", Severity::High, devices)
            .because("A device file elsewhere reads the disk past all modes: what a container with MKNOD and a mount leaves behind.")
            .source(&["Bulkhead"])
            .remedy("delete it, and find out who made it"),
        surface("surface.file-capabilities", "programs with file capabilities are known", Severity::Low, capabilities)
            .because("They are set-id by another name, and `ls` does not show them.")
            .source(&["Bulkhead"])
            .remedy("`setcap -r FILE`")
            .risk(Risk::Low, "ping and the like for users"),
        surface("surface.ld-preload", "no library is pushed into every program", Severity::Critical, preload)
            .because("/etc/ld.so.preload is how rootkits of user space hide.")
            .source(&["Bulkhead"])
            .remedy("empty the file after a look at the library it names"),
        surface("surface.orphan-packages", "every package is needed by another, asked for, or essential", Severity::Info, orphans)
            .because("What came as a dependency and is needed by nothing only has holes.")
            .source(&["Lynis PKGS-7346", "Bulkhead"])
            .remedy("`apt autoremove --simulate`, then without `--simulate`"),
        surface("surface.time-sync", "the clock is kept right", Severity::Low, time_sync)
            .because("Records of two hosts cannot be put together, certificates are taken for valid, or refused.")
            .source(&["CIS-Debian-12 2.3.1.1", "Lynis TIME-3104"])
            .remedy("`apt install chrony`, or switch systemd-timesyncd on"),
        surface("surface.journal-persistent", "logs outlive a reboot", Severity::Low, journal)
            .because("Whoever broke in reboots, and the traces are gone.")
            .source(&["CIS-Debian-12 6.2.1.1.5"])
            .remedy("`mkdir /var/log/journal`, or `Storage=persistent` in journald.conf"),
        surface("surface.audit", "somebody watches what root does", Severity::Low, audit)
            .because("Docker's programs, sockets and settings are to be watched; auditd does, and so does Bulkhead's drift watch.")
            .source(&["CIS-Docker-1.6 1.1.3", "CIS-Debian-12 6.3.1.1", "Lynis ACCT-9628"])
            .remedy("`apt install auditd`, with rules for /usr/bin/dockerd, /run/docker.sock and /etc/docker"),
        surface("surface.firewall", "the host filters what reaches it", Severity::Medium, firewall)
            .because("Ports that containers publish and services of the host are open to every network otherwise.")
            .source(&["CIS-Debian-12 4.1.1", "Lynis FIRE-4590"])
            .remedy("nftables, ufw or firewalld for the host's own ports; leave the forwarding chains to the engine")
            .risk(Risk::High, "connections that no rule allows"),
        surface("surface.cron-writable", "what cron runs as root only root can change", Severity::Critical, cron)
            .because("Whoever changes it is root within a minute.")
            .source(&["Bulkhead"])
            .remedy("`chown root`, `chmod go-w`"),
        surface("surface.unit-writable", "what systemd runs as root only root can change", Severity::Critical, unit_files)
            .because("Whoever changes it is root at the next start.")
            .source(&["Bulkhead"])
            .remedy("`chown root`, `chmod go-w`"),
        surface("surface.ctrl-alt-del", "a key chord does not reboot the host", Severity::Info, ctrl_alt_del)
            .because("A keyboard in a rack, or a remote console, reboots by accident.")
            .source(&["DISA UBTU-22-211050"])
            .remedy("`systemctl mask ctrl-alt-del.target`"),
    ]
}

fn listeners<'a>(view: &View<'a>) -> Result<&'a [Listener], Outcome> {
    match &view.snapshot.listeners {
        Fact::Known(list) => Ok(list),
        Fact::Absent => Err(Outcome::not_applicable("this root has no running kernel")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

fn title(listener: &Listener) -> String {
    let who = match (&listener.exe, listener.pid) {
        (Some(exe), Some(pid)) => format!("{exe} (pid {pid})"),
        (None, Some(pid)) => format!("pid {pid}"),
        (Some(exe), None) => exe.clone(),
        (None, None) => "an unknown process".to_owned(),
    };
    let mut text = if listener.protocol == "unix" {
        format!("{} {}: {who}", listener.protocol, listener.address)
    } else {
        format!("{} {}:{}: {who}", listener.protocol, listener.address, listener.port)
    };
    if let Some(unit) = &listener.unit {
        text.push_str(&format!(", unit {unit}"));
    }
    if let Some(package) = &listener.package {
        text.push_str(&format!(", package {package}"));
    }
    if listener.connections > 0 {
        text.push_str(&format!(", {} connections", listener.connections));
    }
    text
}

fn program(listener: &Listener) -> &str {
    listener.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or_default().trim_end_matches(" (deleted)")
}

const ENGINES: [&str; 5] = ["dockerd", "containerd", "podman", "crio", "buildkitd"];

fn engine_tcp(view: &View<'_>) -> Outcome {
    let mut found = Vec::new();
    let verified = match &view.docker {
        Fact::Known(settings) => settings.get("tlsverify").and_then(serde_json::Value::as_bool) == Some(true),
        Fact::Absent | Fact::Unreadable(_) => false,
    };
    match listeners(view) {
        Ok(list) => {
            for one in list.iter().filter(|one| one.protocol == "tcp" && ENGINES.contains(&program(one))) {
                if program(one) == "dockerd" && verified {
                    continue;
                }
                // containerd serves streams of CRI on a loopback port of its own.
                if one.is_exposed() || matches!(one.port, 2375 | 2376 | 4243) {
                    found.push(title(one));
                }
            }
        }
        Err(outcome) if view.snapshot.live => return outcome,
        Err(_) => {}
    }
    if let Fact::Known(settings) = &view.docker
        && let Some(hosts) = settings.get("hosts").and_then(serde_json::Value::as_array)
    {
        let tcp = hosts.iter().filter_map(serde_json::Value::as_str).filter(|host| host.starts_with("tcp://") && !verified);
        found.extend(tcp.map(|host| format!("Docker is set to listen on {host}")));
    }
    if let Fact::Unreadable(why) = &view.docker {
        return Outcome::of_lists(found, vec![why.clone()], "");
    }
    Outcome::of_list(found, "no engine listens on TCP without verified clients")
}

/// Programs that a container host shows to the network on purpose.
const ON_PURPOSE: [&str; 26] = [
    "sshd",
    "docker-proxy",
    "kubelet",
    "kube-proxy",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "etcd",
    "k3s",
    "rke2",
    "rootlessport",
    "slirp4netns",
    "pasta",
    "pasta.avx2",
    "chronyd",
    "systemd-networkd",
    "systemd-resolved",
    "dhclient",
    "dhcpcd",
    "NetworkManager",
    "systemd-timesyncd",
    "bulkhead",
    "node_exporter",
    "calico-node",
    "cilium-agent",
    "flanneld",
];

fn exposed(view: &View<'_>) -> Outcome {
    match listeners(view) {
        Ok(list) => {
            let open = list.iter().filter(|one| one.is_exposed() && one.container.is_none());
            // systemd holds ssh's port where it starts sshd for each connection.
            let by_socket = |one: &&Listener| program(one) == "systemd" && one.port == 22;
            let strange: Vec<String> =
                open.clone().filter(|one| !ON_PURPOSE.contains(&program(one)) && !by_socket(one)).map(title).collect();
            Outcome::of_list(strange, format!("{} sockets, all of services that are expected", open.count()))
        }
        Err(outcome) => outcome,
    }
}

fn unowned_listeners(view: &View<'_>) -> Outcome {
    let list = match listeners(view) {
        Ok(list) => list,
        Err(outcome) => return outcome,
    };
    if view.snapshot.packages.known().is_none() {
        return Outcome::unknown("the package database could not be read");
    }
    let own = list.iter().filter(|one| one.container.is_none() && one.package.is_none() && one.protocol != "unix");
    let bad = own.filter(|one| one.exe.is_some() && !exempt(view, one)).map(title);
    Outcome::of_lists(bad.collect(), nameless(list), "every program that listens belongs to a package")
}

/// Sockets whose process cannot be told: another's, without the right to look.
fn nameless(list: &[Listener]) -> Vec<String> {
    list.iter().filter(|one| one.exe.is_none() && one.container.is_none()).map(title).collect()
}

/// Systems without packages bring all their programs with the image; the agent itself may be a single file.
fn exempt(view: &View<'_>, listener: &Listener) -> bool {
    program(listener) == "bulkhead" || view.snapshot.packages.known().is_some_and(|packages| packages.installed.is_empty())
}

fn deleted(view: &View<'_>) -> Outcome {
    match listeners(view) {
        Ok(list) => {
            let gone =
                list.iter().filter(|one| one.container.is_none() && one.exe.as_deref().is_some_and(|exe| exe.ends_with(" (deleted)")));
            Outcome::of_lists(gone.map(title).collect(), nameless(list), "all are on disk")
        }
        Err(outcome) => outcome,
    }
}

const ASKS_NOBODY: [(u16, &str); 12] = [
    (6379, "redis-server"),
    (11211, "memcached"),
    (9200, "java"),
    (27017, "mongod"),
    (2379, "etcd"),
    (10255, "kubelet"),
    (5984, "beam.smp"),
    (8500, "consul"),
    (2181, "java"),
    (4194, "cadvisor"),
    (8086, "influxd"),
    (111, "rpcbind"),
];

fn no_password(view: &View<'_>) -> Outcome {
    match listeners(view) {
        Ok(list) => {
            let bad =
                list.iter().filter(|one| one.is_exposed() && one.container.is_none() && ASKS_NOBODY.contains(&(one.port, program(one))));
            // An etcd that is given certificates of clients asks for them.
            let etcd_checked = view.manifests.values().any(|tree| tree.to_string().contains("--client-cert-auth=true"));
            let hidden =
                list.iter().filter(|one| one.exe.is_none() && one.is_exposed() && ASKS_NOBODY.iter().any(|(port, _)| *port == one.port));
            let bad = bad.filter(|one| !(program(one) == "etcd" && etcd_checked)).map(title).collect();
            Outcome::of_lists(bad, hidden.map(title).collect(), "none")
        }
        Err(outcome) => outcome,
    }
}

fn walk<'a>(view: &View<'a>) -> Result<&'a Walk, Outcome> {
    match &view.snapshot.walk {
        Fact::Known(walk) => Ok(walk),
        Fact::Absent => Err(Outcome::unknown("the files were not walked")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

/// What a walk found, less what is fine; a walk that was cut short can find, but not clear.
fn of_walk(view: &View<'_>, list: impl Fn(&Walk) -> &Vec<Found>, bad: impl Fn(&Found) -> bool, fine: &str) -> Outcome {
    match walk(view) {
        Ok(walk) => {
            let found: Vec<String> = list(walk).iter().filter(|found| bad(found)).map(describe).collect();
            let cut = if walk.cut { vec![format!("the walk ended after {} files", walk.inodes)] } else { Vec::new() };
            Outcome::of_lists(found, cut, format!("{fine}; {} files below {}", walk.inodes, walk.trees.join(", ")))
        }
        Err(outcome) => outcome,
    }
}

fn describe(found: &Found) -> String {
    let package = found.package.as_ref().map_or_else(String::new, |package| format!(", of {package}"));
    format!("{} ({:04o}, {}:{}{package})", found.path, found.mode, found.uid, found.gid)
}

/// Names of set-id programs that Debian, Ubuntu, Fedora and Alpine install, and that do not give a shell by themselves.
const KNOWN_SET_ID: [&str; 58] = [
    "su",
    "sudo",
    "sudoedit",
    "passwd",
    "chsh",
    "chfn",
    "newgrp",
    "gpasswd",
    "expiry",
    "chage",
    "mount",
    "umount",
    "ping",
    "ping6",
    "fusermount",
    "fusermount3",
    "newuidmap",
    "newgidmap",
    "pkexec",
    "polkit-agent-helper-1",
    "unix_chkpwd",
    "pam_timestamp_check",
    "dbus-daemon-launch-helper",
    "ssh-keysign",
    "ssh-agent",
    "crontab",
    "at",
    "wall",
    "write",
    "bsd-write",
    "traceroute6.iputils",
    "mount.nfs",
    "mount.cifs",
    "pppd",
    "exim4",
    "sendmail",
    "postdrop",
    "postqueue",
    "procmail",
    "snap-confine",
    "Xorg.wrap",
    "vmware-user-suid-wrapper",
    "chrome-sandbox",
    "bwrap",
    "locate",
    "mlocate",
    "plocate",
    "ntfs-3g",
    "grub2-set-bootflag",
    "userhelper",
    "lockdev",
    "utempter",
    "dotlockfile",
    "screen",
    "doas",
    "bbsuid",
    "mtr-packet",
    "pam_extrausers_chkpwd",
];

fn set_id(view: &View<'_>) -> Outcome {
    let strange = |found: &Found| {
        found.mode & 0o6000 != 0 && found.package.is_some() && !KNOWN_SET_ID.contains(&found.path.rsplit('/').next().unwrap_or_default())
    };
    of_walk(view, |walk| &walk.set_id, strange, "only known ones")
}

fn set_id_unowned(view: &View<'_>) -> Outcome {
    match &view.snapshot.packages {
        Fact::Known(packages) if !packages.installed.is_empty() => {
            of_walk(view, |walk| &walk.set_id, |found| found.package.is_none(), "none outside packages")
        }
        Fact::Known(_) | Fact::Absent => match walk(view) {
            Ok(_) => of_walk(
                view,
                |walk| &walk.set_id,
                |found| !KNOWN_SET_ID.contains(&found.path.rsplit('/').next().unwrap_or_default()),
                "only known names, on a system without packages",
            ),
            Err(outcome) => outcome,
        },
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn set_id_writable(view: &View<'_>) -> Outcome {
    let open = |found: &Found| {
        found.mode & 0o002 != 0
            || (found.mode & 0o020 != 0 && found.gid != 0)
            || (found.mode & 0o4000 != 0 && found.uid != 0 && found.mode & 0o200 != 0 && found.package.is_none())
    };
    of_walk(view, |walk| &walk.set_id, open, "none")
}

fn writable_files(view: &View<'_>) -> Outcome {
    of_walk(view, |walk| &walk.world_writable_files, |_| true, "none")
}

fn writable_folders(view: &View<'_>) -> Outcome {
    of_walk(view, |walk| &walk.world_writable_folders, |_| true, "none")
}

fn unowned(view: &View<'_>) -> Outcome {
    of_walk(view, |walk| &walk.unowned, |_| true, "none")
}

fn devices(view: &View<'_>) -> Outcome {
    of_walk(view, |walk| &walk.devices, |_| true, "none")
}

fn capabilities(view: &View<'_>) -> Outcome {
    let usual = ["ping", "mtr-packet", "newuidmap", "newgidmap", "clockdiff", "arping", "gst-ptp-helper", "dumpcap", "snap-confine"];
    of_walk(
        view,
        |walk| &walk.file_capabilities,
        |found| !usual.contains(&found.path.rsplit('/').next().unwrap_or_default()),
        "only known ones",
    )
}

fn preload(view: &View<'_>) -> Outcome {
    match view.snapshot.text("/etc/ld.so.preload") {
        Fact::Known(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            Outcome::of_list(lines.map(|line| format!("/etc/ld.so.preload: {line}")).collect(), "the file names nothing")
        }
        Fact::Absent => Outcome::passed("there is no /etc/ld.so.preload"),
        Fact::Unreadable(why) => Outcome::unknown(why),
    }
}

fn orphans(view: &View<'_>) -> Outcome {
    match &view.snapshot.packages {
        Fact::Known(packages) if packages.kind == "dpkg" => {
            let idle = packages.installed.iter().filter(|package| package.automatic && package.needed_by == 0 && !package.essential);
            Outcome::of_list(
                idle.map(|package| format!("{} {}", package.name, package.version)).collect(),
                format!("{} packages", packages.installed.len()),
            )
        }
        Fact::Known(packages) => Outcome::not_applicable(format!(
            "{} does not say which packages were asked for",
            if packages.kind.is_empty() { "the system" } else { &packages.kind }
        )),
        Fact::Absent => Outcome::not_applicable("no package database is here"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

/// Is one of these units running or enabled? `Err`: why that cannot be told.
fn unit_on(view: &View<'_>, names: &[&str]) -> Result<Option<String>, Outcome> {
    match &view.snapshot.units {
        Fact::Known(units) => {
            let on = |unit: &&crate::snapshot::Unit| {
                names.contains(&unit.name.as_str()) && (unit.active == Some(true) || unit.state == crate::snapshot::UnitState::Enabled)
            };
            Ok(units.iter().find(on).map(|unit| unit.name.clone()))
        }
        Fact::Absent => Ok(None),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

fn time_sync(view: &View<'_>) -> Outcome {
    match unit_on(
        view,
        &[
            "chrony.service",
            "chronyd.service",
            "systemd-timesyncd.service",
            "ntp.service",
            "ntpsec.service",
            "ntpd.service",
            "openntpd.service",
        ],
    ) {
        Ok(Some(unit)) => Outcome::passed(format!("{unit} is on")),
        Ok(None) if ["talos", "bottlerocket"].contains(&view.snapshot.os_id()) => Outcome::passed("the system keeps its clock by itself"),
        Ok(None) => Outcome::failed("no service keeps the clock"),
        Err(outcome) => outcome,
    }
}

fn journal(view: &View<'_>) -> Outcome {
    if view.snapshot.init.known().map(String::as_str) != Some("systemd") {
        return Outcome::not_applicable(format!(
            "no systemd-journald: the first process is {}",
            view.snapshot.init.known().map_or("not known", String::as_str)
        ));
    }
    let storage = |text: &str| text.lines().rev().find_map(|line| line.trim().strip_prefix("Storage=").map(str::to_owned));
    let text = view.snapshot.texts.get("/etc/systemd/journald.conf").and_then(|fact| fact.known());
    let forwards = unit_on(view, &["rsyslog.service", "syslog-ng.service"]);
    match (text.and_then(|text| storage(text)).as_deref(), view.snapshot.exists("/var/log/journal")) {
        (Some("persistent"), _) => Outcome::passed("Storage=persistent"),
        (Some("volatile" | "none"), _) if !matches!(forwards, Ok(Some(_))) => {
            Outcome::failed("journald keeps its log in memory, and no syslog takes it")
        }
        (_, Some(true)) => Outcome::passed("/var/log/journal is there"),
        (_, _) if matches!(forwards, Ok(Some(_))) => Outcome::passed("a syslog service writes it down"),
        (_, Some(false)) => Outcome::failed("there is no /var/log/journal, and no syslog service"),
        (_, None) => Outcome::unknown("/var/log/journal was not looked at"),
    }
}

fn audit(view: &View<'_>) -> Outcome {
    match unit_on(
        view,
        &["auditd.service", "bulkhead.service", "falco.service", "tetragon.service", "osqueryd.service", "wazuh-agent.service"],
    ) {
        Ok(Some(unit)) => Outcome::passed(format!("{unit} is on")),
        Ok(None) => Outcome::failed("neither auditd nor Bulkhead nor another watcher is on"),
        Err(outcome) => outcome,
    }
}

fn firewall(view: &View<'_>) -> Outcome {
    match unit_on(
        view,
        &["nftables.service", "ufw.service", "firewalld.service", "netfilter-persistent.service", "iptables.service", "shorewall.service"],
    ) {
        Ok(Some(unit)) => Outcome::passed(format!("{unit} is on")),
        Ok(None) => match listeners(view) {
            Ok(list) if !list.iter().any(|one| one.is_exposed() && one.container.is_none()) => {
                Outcome::passed("nothing of the host can be reached from outside")
            }
            Ok(_) => Outcome::failed("no firewall is switched on, and services of the host can be reached"),
            Err(_) => Outcome::failed("no firewall is switched on"),
        },
        Err(outcome) => outcome,
    }
}

/// Files of these folders, as far as they were looked at, that others than root may change.
fn writable_in(view: &View<'_>, folders: &[&str]) -> Outcome {
    let mut seen = 0;
    let mut bad = Vec::new();
    let mut unread = Vec::new();
    for (path, fact) in &view.snapshot.files {
        if !folders.iter().any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
            continue;
        }
        match fact {
            Fact::Known(meta) if meta.kind == crate::snapshot::FileKind::Link => {}
            Fact::Known(meta) if meta.mode & 0o002 != 0 || (meta.mode & 0o020 != 0 && meta.gid != 0) || meta.uid != 0 => {
                bad.push(format!("{path} has mode {:04o} and belongs to {}:{}", meta.mode, meta.uid, meta.gid));
            }
            Fact::Known(_) => seen += 1,
            Fact::Absent => {}
            Fact::Unreadable(why) => unread.push(format!("{path}: {why}")),
        }
    }
    if seen == 0 && bad.is_empty() && unread.is_empty() {
        return Outcome::not_applicable(format!("nothing lies in {}", folders.join(", ")));
    }
    Outcome::of_lists(bad, unread, format!("{seen} files"))
}

fn cron(view: &View<'_>) -> Outcome {
    writable_in(view, &["/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"])
}

fn unit_files(view: &View<'_>) -> Outcome {
    writable_in(view, &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"])
}

fn ctrl_alt_del(view: &View<'_>) -> Outcome {
    match &view.snapshot.units {
        Fact::Known(units) => match units.iter().find(|unit| unit.name == "ctrl-alt-del.target") {
            Some(unit) if unit.state == crate::snapshot::UnitState::Masked => Outcome::passed("ctrl-alt-del.target is masked"),
            Some(_) => Outcome::failed("ctrl-alt-del.target is not masked"),
            None => Outcome::not_applicable("there is no ctrl-alt-del.target"),
        },
        Fact::Absent => Outcome::not_applicable("no systemd units are here"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}
