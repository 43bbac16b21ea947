//! Kernel modules that a host of containers does not need, and that a process in a container can have loaded by asking
//! for a socket or a mount.

use crate::control::{Area, Check, Control, Outcome, Profile, Risk, Severity};
use crate::view::View;

/// Asked for besides those that are to be blocked.
pub const ALSO_LOOKED_FOR: [&str; 3] = ["overlay", "br_netfilter", "ip_tables"];

const FILESYSTEMS: &[(&str, &str)] = &[
    ("cramfs", "CIS-Debian-12 1.1.1.1"),
    ("freevxfs", "CIS-Debian-12 1.1.1.2"),
    ("hfs", "CIS-Debian-12 1.1.1.3"),
    ("hfsplus", "CIS-Debian-12 1.1.1.4"),
    ("jffs2", "CIS-Debian-12 1.1.1.5"),
    ("udf", "CIS-Debian-12 1.1.1.8"),
    ("usb_storage", "CIS-Debian-12 1.1.1.9"),
    ("ksmbd", "KSPP"),
    ("gfs2", "KSPP"),
    ("firewire_core", "DISA UBTU-22-291010"),
];

const PROTOCOLS: &[(&str, &str)] = &[
    ("dccp", "CIS-Debian-12 3.2.1"),
    ("tipc", "CIS-Debian-12 3.2.2"),
    ("rds", "CIS-Debian-12 3.2.3"),
    ("sctp", "CIS-Debian-12 3.2.4"),
    ("ax25", "KSPP"),
    ("netrom", "KSPP"),
    ("rose", "KSPP"),
    ("x25", "KSPP"),
    ("appletalk", "KSPP"),
    ("atm", "KSPP"),
    ("can", "KSPP"),
    ("n_hdlc", "KSPP"),
    ("l2tp_ppp", "KSPP"),
    ("phonet", "KSPP"),
    ("ieee802154", "KSPP"),
    ("vsock_diag", "KSPP"),
];

pub fn controls() -> Vec<Control> {
    let mut all = Vec::new();
    for &(module, source) in FILESYSTEMS {
        let control = blocked(
            module,
            source,
            Severity::Low,
            "A driver for what no container host mounts is code of the kernel that an image or a stick can reach.",
        );
        let used = matches!(module, "usb_storage" | "udf" | "gfs2" | "firewire_core");
        all.push(if used {
            control.risk(Risk::Medium, "USB disks, DVDs or clustered disks that are in use").when_named()
        } else {
            control
        });
    }
    for &(module, source) in PROTOCOLS {
        let why = "Any process, in a container too, has this protocol loaded by opening a socket of its family; most holes of the last years in old protocols were reached so.";
        let control = blocked(module, source, Severity::Medium, why);
        let used = matches!(module, "sctp" | "can" | "atm" | "vsock_diag" | "l2tp_ppp");
        all.push(if used {
            control.risk(Risk::Medium, "telephony, vehicle or virtual-machine tools that use it").when_named()
        } else {
            control.risk(Risk::Low, "")
        });
    }
    all.push(
        Control::new("module.overlay", "overlayfs can be used", Area::Kernel, Severity::High, Check::Other(overlay))
            .because(
                "CIS 1.1.1.6 asks that overlayfs cannot be loaded: without it every engine falls back to a slow driver, or does not start.",
            )
            .source(&["CIS-Debian-12 1.1.1.6 (inverted)"])
            .remedy("take `install overlay /bin/false` and `blacklist overlay` out of /etc/modprobe.d")
            .only_in(Profile::ContainerHost)
            .when_named(),
    );
    all
}

fn blocked(module: &'static str, source: &'static str, severity: Severity, why: &'static str) -> Control {
    let title = format!("kernel module {module} cannot be loaded");
    Control::new(format!("module.{module}"), title, Area::Kernel, severity, Check::ModuleBlocked(module))
        .because(why)
        .source(&[source])
        .remedy(format!("`install {module} /bin/false` and `blacklist {module}` in /etc/modprobe.d/bulkhead-{module}.conf"))
}

fn overlay(view: &View<'_>) -> Outcome {
    if !view.has_engine() {
        return Outcome::not_applicable("no container engine is installed or running");
    }
    if let Some(file) = view.blocked_modules.get("overlay") {
        return Outcome::failed(format!("{file} keeps overlay from being loaded"));
    }
    let kernel = &view.snapshot.kernel;
    let loaded = kernel.modules.known().is_some_and(|modules| modules.iter().any(|module| module == "overlay"));
    let mounted = view.snapshot.mounts.known().is_some_and(|mounts| mounts.iter().any(|mount| mount.fs_type == "overlay"));
    match kernel.available.known() {
        _ if loaded || mounted => Outcome::passed("overlay is in use"),
        Some(available) if available.iter().any(|module| module == "overlay") => Outcome::passed("overlay can be loaded"),
        Some(_) => Outcome::failed("this kernel has no overlay, neither built in nor as a module"),
        None => Outcome::unknown(kernel.available.unreadable().unwrap_or("no list of modules").to_owned()),
    }
}
