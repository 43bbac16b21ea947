//! Services that a host of containers does not need, and packages that nobody should find on it.

use crate::control::{Area, Check, Control, Outcome, Risk, Severity};
use crate::snapshot::{Fact, UnitState};
use crate::view::View;

/// Id, units, severity, source, what it is.
type Row = (&'static str, &'static [&'static str], Severity, &'static str, &'static str);

const ROWS: &[Row] = &[
    ("autofs", &["autofs.service"], Severity::Low, "CIS-Debian-12 2.1.1", "mounts whatever is plugged in or named"),
    (
        "avahi",
        &["avahi-daemon.service", "avahi-daemon.socket"],
        Severity::Medium,
        "CIS-Debian-12 2.1.2",
        "tells the whole network of the host, and parses what it is told",
    ),
    (
        "dhcp-server",
        &["isc-dhcp-server.service", "isc-dhcp-server6.service", "kea-dhcp4-server.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.3",
        "gives out addresses",
    ),
    (
        "dns-server",
        &["bind9.service", "named.service", "unbound.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.4",
        "answers names for others",
    ),
    ("dnsmasq", &["dnsmasq.service"], Severity::Low, "CIS-Debian-12 2.1.5", "answers names and gives out addresses"),
    ("ftp", &["vsftpd.service", "proftpd.service", "pure-ftpd.service"], Severity::High, "CIS-Debian-12 2.1.6", "takes passwords in clear"),
    ("ldap", &["slapd.service"], Severity::Medium, "CIS-Debian-12 2.1.7", "holds accounts of others"),
    (
        "mail-access",
        &["dovecot.service", "dovecot.socket", "cyrus-imapd.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.8",
        "gives mail to readers",
    ),
    (
        "nfs",
        &["nfs-server.service", "nfs-kernel-server.service"],
        Severity::High,
        "CIS-Debian-12 2.1.9",
        "exports files, checked by the caller's own claims",
    ),
    ("nis", &["ypserv.service"], Severity::High, "CIS-Debian-12 2.1.10", "hands out hashes of passwords"),
    (
        "cups",
        &["cups.service", "cups.socket", "cups.path", "cups-browsed.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.11",
        "prints; cups-browsed ran what the network told it (CVE-2024-47176)",
    ),
    (
        "rpcbind",
        &["rpcbind.service", "rpcbind.socket"],
        Severity::Medium,
        "CIS-Debian-12 2.1.12",
        "tells where services of RPC listen; an amplifier of floods",
    ),
    ("rsync", &["rsync.service", "rsyncd.service"], Severity::Medium, "CIS-Debian-12 2.1.13", "gives files in clear"),
    ("samba", &["smbd.service", "nmbd.service", "samba-ad-dc.service"], Severity::Medium, "CIS-Debian-12 2.1.14", "exports files"),
    ("snmp", &["snmpd.service"], Severity::Medium, "CIS-Debian-12 2.1.15", "tells the host's state to whoever knows a word"),
    ("tftp", &["tftpd-hpa.service", "atftpd.service", "tftp.socket"], Severity::High, "CIS-Debian-12 2.1.16", "gives files to everybody"),
    ("proxy", &["squid.service", "privoxy.service"], Severity::Medium, "CIS-Debian-12 2.1.17", "fetches for others"),
    (
        "web-server",
        &["apache2.service", "httpd.service", "nginx.service", "lighttpd.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.18",
        "belongs into a container",
    ),
    (
        "inetd",
        &["xinetd.service", "inetd.service", "openbsd-inetd.service", "inetutils-inetd.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.19",
        "starts old services",
    ),
    (
        "display",
        &["gdm.service", "gdm3.service", "lightdm.service", "sddm.service", "display-manager.service"],
        Severity::Medium,
        "CIS-Debian-12 2.1.20",
        "a server shows no windows",
    ),
    ("telnet", &["telnet.socket", "inetutils-telnetd.service"], Severity::Critical, "Lynis INSE-8322", "takes passwords in clear"),
    ("rsh", &["rsh.socket", "rlogin.socket", "rexec.socket"], Severity::Critical, "Lynis INSE-8300", "believes whoever claims a name"),
    ("bluetooth", &["bluetooth.service"], Severity::Medium, "CIS-Debian-12 3.1.3", "parses what is sent from the street"),
    ("modem", &["ModemManager.service"], Severity::Low, "Bulkhead", "talks to every serial device"),
    (
        "crash-reports",
        &["apport.service", "whoopsie.service", "kerneloops.service"],
        Severity::Medium,
        "CIS-Ubuntu 1.5.5",
        "memory of crashed programs leaves the host",
    ),
    (
        "database",
        &["mysql.service", "mariadb.service", "postgresql.service", "redis-server.service", "mongod.service", "memcached.service"],
        Severity::Medium,
        "Bulkhead",
        "belongs into a container",
    ),
    ("cockpit", &["cockpit.socket", "webmin.service"], Severity::Medium, "Bulkhead", "root of the host by a web page"),
    ("wifi", &["wpa_supplicant.service", "iwd.service"], Severity::Low, "CIS-Debian-12 3.1.2", "parses what is sent from the street"),
    ("udisks", &["udisks2.service"], Severity::Low, "Bulkhead", "mounts for users, as root"),
    ("packagekit", &["packagekit.service"], Severity::Low, "Bulkhead", "installs for users, as root"),
    ("accounts-daemon", &["accounts-daemon.service"], Severity::Low, "Bulkhead", "changes accounts for a desktop"),
    ("geoclue", &["geoclue.service"], Severity::Low, "Bulkhead", "tells where a desktop is"),
    ("debug-shell", &["debug-shell.service"], Severity::Critical, "systemd", "root without password on a console"),
    ("kdump", &["kdump-tools.service", "kdump.service"], Severity::Low, "CIS-RHEL", "writes all memory to disk after a crash"),
    ("iscsi", &["iscsid.socket", "iscsid.service", "open-iscsi.service"], Severity::Low, "Bulkhead", "talks to disks over the network"),
    ("multipath", &["multipathd.service", "multipathd.socket"], Severity::Info, "Bulkhead", "for hosts with disks on several paths"),
];

/// Packages that serve an intruder or take passwords in clear.
const PACKAGES: &[(&str, &[&str], Severity, &str, &str)] = &[
    (
        "legacy-clients",
        &["telnet", "inetutils-telnet", "rsh-client", "rsh-redone-client", "talk", "nis", "ftp", "tnftp", "ldap-utils", "tftp"],
        Severity::Low,
        "CIS-Debian-12 2.2",
        "Clients that send passwords in clear teach people to.",
    ),
    (
        "compilers",
        &["gcc", "g++", "clang", "make", "build-essential", "golang-go", "rustc", "nasm", "tcc"],
        Severity::Low,
        "Lynis HRDN-7222",
        "An exploit of the kernel is compiled where it is to run. Images are built elsewhere.",
    ),
    (
        "network-tools",
        &["nmap", "netcat-traditional", "ncat", "socat", "hydra", "ettercap-common", "dsniff", "tshark", "wireshark-common"],
        Severity::Low,
        "Bulkhead",
        "They serve who looks around from here.",
    ),
    (
        "desktop",
        &["xserver-xorg-core", "xwayland", "gnome-shell", "plasma-desktop", "task-desktop"],
        Severity::Medium,
        "CIS-Debian-12 2.1.20",
        "Thousands of files that a server does not need.",
    ),
    ("prelink", &["prelink"], Severity::Low, "CIS-Debian-12 1.5.4", "It changes programs on disk, so that no check of integrity holds."),
    (
        "debuggers",
        &["gdb", "strace", "ltrace", "bpftrace", "systemtap"],
        Severity::Info,
        "Bulkhead",
        "They read what other processes hold. Bring them in a container when they are needed.",
    ),
];

pub fn controls() -> Vec<Control> {
    let mut all: Vec<Control> = ROWS
        .iter()
        .map(|&(id, units, severity, source, what)| {
            Control::new(
                format!("service.{id}"),
                format!("{id} is neither enabled nor running"),
                Area::Surface,
                severity,
                Check::ServiceOff(units),
            )
            .because("A service that a host of containers does not need is code that listens or acts as root for nobody.")
            .source(&[source])
            .remedy(format!("`systemctl disable --now` and `systemctl mask` the units above: it {what}"))
            .risk(Risk::Medium, "whoever uses it; it is switched off only when nobody did while it was watched, or when it is named")
        })
        .collect();
    all.extend(PACKAGES.iter().map(|&(id, packages, severity, source, why)| {
        Control::new(
            format!("package.{id}"),
            format!("no {}", id.replace('-', " ")),
            Area::Surface,
            severity,
            Check::PackagesAbsent(packages),
        )
        .because(why)
        .source(&[source])
        .remedy("`apt remove` them, after a look at `apt remove --simulate`")
        .risk(Risk::Medium, "jobs of the host that use them")
        .when_named()
    }));
    all.push(
        Control::new("service.unexpected", "every enabled service is one that a host of containers has a use for", Area::Surface, Severity::Low, Check::Other(unexpected))
            .because("The seed of an attack surface is what nobody thought of. Listed are enabled services outside the known set, with what was seen of their use.")
            .source(&["Lynis BOOT-5264", "Bulkhead"])
            .remedy("`bulkhead host harden --unit NAME`, or a waiver that says who needs it")
            .risk(Risk::Medium, "whoever uses it")
            .when_named(),
    );
    all
}

/// What is ordinary on a host of containers, by the beginning of its name.
const EXPECTED: [&str; 66] = [
    "systemd-",
    "dbus",
    "ssh",
    "sshd",
    "docker",
    "containerd",
    "podman",
    "crio",
    "kubelet",
    "k3s",
    "rke2",
    "chrony",
    "ntp",
    "cron",
    "rsyslog",
    "syslog",
    "auditd",
    "apparmor",
    "selinux",
    "getty@",
    "serial-getty",
    "console-",
    "networking",
    "NetworkManager",
    "ifup@",
    "netplan",
    "cloud-",
    "google-",
    "amazon-",
    "waagent",
    "qemu-guest",
    "open-vm-tools",
    "vmtoolsd",
    "bulkhead",
    "unattended-upgrades",
    "apt-",
    "dpkg-",
    "fstrim",
    "e2scrub",
    "logrotate",
    "man-db",
    "keyboard-setup",
    "console-setup",
    "blk-availability",
    "lvm2",
    "mdadm",
    "mdmonitor",
    "nftables",
    "iptables",
    "netfilter-persistent",
    "ufw",
    "firewalld",
    "fail2ban",
    "irqbalance",
    "haveged",
    "rngd",
    "polkit",
    "sysstat",
    "snapd",
    "snap.",
    "update-engine",
    "locksmithd",
    "zincati",
    "rpm-ostree",
    "tmp.mount",
    "pollinate",
];

fn unexpected(view: &View<'_>) -> Outcome {
    match &view.snapshot.units {
        Fact::Known(units) => {
            let known: Vec<&str> = ROWS.iter().flat_map(|row| row.1.iter().copied()).collect();
            let services = units.iter().filter(|unit| unit.state == UnitState::Enabled && unit.name.ends_with(".service"));
            let strange = services.filter(|unit| {
                !known.contains(&unit.name.as_str())
                    && !EXPECTED.iter().any(|beginning| unit.name.starts_with(beginning))
                    && !ESSENTIAL.contains(&unit.name.as_str())
            });
            Outcome::of_list(strange.map(|unit| describe(unit, view.snapshot.observed_seconds)).collect(), "none outside the known set")
        }
        Fact::Absent => Outcome::not_applicable("no systemd units are here"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

const ESSENTIAL: [&str; 12] = [
    "anacron.service",
    "grub-common.service",
    "grub-initrd-fallback.service",
    "rc-local.service",
    "kmod.service",
    "procps.service",
    "udev.service",
    "sudo.service",
    "x11-common.service",
    "hwclock.service",
    "wtmpdb-update-boot.service",
    "ebtables.service",
];

/// A unit in a line: what it is in, and what was seen of its use.
pub fn describe(unit: &crate::snapshot::Unit, observed: Option<u64>) -> String {
    let mut text = unit.name.clone();
    let state = match unit.state {
        UnitState::Enabled => "enabled",
        UnitState::Disabled => "disabled",
        UnitState::Static => "static",
        UnitState::Masked => "masked",
    };
    text.push_str(&format!(": {state}"));
    match unit.active {
        Some(true) => text.push_str(", running"),
        Some(false) => text.push_str(", not running"),
        None => {}
    }
    if let Some(package) = &unit.package {
        text.push_str(&format!(", of {package}"));
    }
    if !unit.dependants.is_empty() {
        text.push_str(&format!(", needed by {}", unit.dependants.join(", ")));
    }
    match (&unit.usage, observed) {
        (Some(usage), Some(seconds)) if usage.is_idle() => text.push_str(&format!("; not used in {seconds} s")),
        (Some(usage), Some(seconds)) => {
            text.push_str(&format!("; {} connections and {} starts in {seconds} s", usage.connections, usage.activations));
        }
        _ => text.push_str("; its use was not watched"),
    }
    text
}
