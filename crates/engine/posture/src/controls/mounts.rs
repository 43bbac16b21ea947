//! Mounts and their options.

use crate::control::{Area, Check, Control, Outcome, Risk, Severity};
use crate::snapshot::{Fact, Mount};
use crate::view::View;

/// Target, option, source, risk.
const OPTIONS: &[(&str, &str, &str, Severity, Risk)] = &[
    ("/tmp", "nodev", "CIS-Debian-12 1.1.2.1.2", Severity::Low, Risk::None),
    ("/tmp", "nosuid", "CIS-Debian-12 1.1.2.1.3", Severity::Low, Risk::None),
    ("/tmp", "noexec", "CIS-Debian-12 1.1.2.1.4", Severity::Low, Risk::Medium),
    ("/dev/shm", "nodev", "CIS-Debian-12 1.1.2.2.2", Severity::Low, Risk::None),
    ("/dev/shm", "nosuid", "CIS-Debian-12 1.1.2.2.3", Severity::Medium, Risk::None),
    ("/dev/shm", "noexec", "CIS-Debian-12 1.1.2.2.4", Severity::Low, Risk::Low),
    ("/home", "nodev", "CIS-Debian-12 1.1.2.3.2", Severity::Low, Risk::None),
    ("/home", "nosuid", "CIS-Debian-12 1.1.2.3.3", Severity::Low, Risk::None),
    ("/var", "nodev", "CIS-Debian-12 1.1.2.4.2", Severity::Low, Risk::None),
    ("/var/tmp", "nodev", "CIS-Debian-12 1.1.2.5.2", Severity::Low, Risk::None),
    ("/var/tmp", "nosuid", "CIS-Debian-12 1.1.2.5.3", Severity::Low, Risk::None),
    ("/var/tmp", "noexec", "CIS-Debian-12 1.1.2.5.4", Severity::Low, Risk::Medium),
    ("/var/log", "noexec", "CIS-Debian-12 1.1.2.6.4", Severity::Low, Risk::None),
    ("/proc", "hidepid", "Lynis", Severity::Info, Risk::Medium),
];

pub fn controls() -> Vec<Control> {
    let mut all: Vec<Control> = OPTIONS.iter().map(option).collect();
    all.push(
        Control::new("mount.engine-data-own-device", "engine data lie on a filesystem of their own", Area::Engine, Severity::Medium, Check::Other(own_device))
            .because("A container that writes without end fills the host's root. Compared are devices: a bind mount of the same disk is no filesystem of its own.")
            .source(&["CIS-Docker-1.6 1.1.1"])
            .remedy("move the data directory to a volume of its own, and name it in the engine's configuration")
            .risk(Risk::High, "images and containers must be moved")
            .when_named(),
    );
    all.push(
        Control::new("mount.tmp-separate", "/tmp is a filesystem of its own", Area::Kernel, Severity::Low, Check::Other(tmp_separate))
            .because("Whoever may write to /tmp could fill the root, and link to files of it.")
            .source(&["CIS-Debian-12 1.1.2.1.1"])
            .remedy("`systemctl enable tmp.mount`, or a line in /etc/fstab")
            .risk(Risk::Low, "large temporary files then take memory")
            .when_named(),
    );
    all.push(
        Control::new("mount.debugfs", "debugfs and tracefs are closed to users", Area::Kernel, Severity::Medium, Check::Other(debugfs))
            .because("They show addresses and data of the whole kernel.")
            .source(&["KSPP"])
            .remedy("mount them with mode 0700")
            .when_named(),
    );
    all
}

fn option(row: &(&'static str, &'static str, &'static str, Severity, Risk)) -> Control {
    let &(target, option, source, severity, risk) = row;
    let id = format!("mount.{}.{option}", target.trim_start_matches('/').replace('/', "-"));
    Control::new(id, format!("{target} is mounted {option}"), Area::Kernel, severity, Check::MountOption { target, option })
        .because("Options of a mount keep devices, set-id programs and programs out of places where everybody writes.")
        .source(&[match source {
            "Lynis" => "Lynis FILE-6344",
            source => source,
        }])
        .remedy(format!("`mount -o remount,{option} {target}`, and the option in /etc/fstab"))
        .risk(risk, if matches!(risk, Risk::Medium) { "installers and monitors that rely on it" } else { "" })
        .when_named()
}

/// The mount that a path lies on: the longest target above it, the last of several.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let above = |target: &str| target == "/" || path == target || path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'));
    mounts.iter().filter(|mount| above(&mount.target)).max_by_key(|mount| mount.target.len())
}

fn mounts<'a>(view: &View<'a>) -> Result<&'a [Mount], Outcome> {
    match &view.snapshot.mounts {
        Fact::Known(mounts) => Ok(mounts),
        Fact::Absent => Err(Outcome::unknown("no table of mounts")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

fn own_device(view: &View<'_>) -> Outcome {
    let mounts = match mounts(view) {
        Ok(mounts) => mounts,
        Err(outcome) => return outcome,
    };
    let Some(root) = mount_of(mounts, "/") else { return Outcome::unknown("no mount of / is known") };
    let roots: Vec<String> = view.data_roots().into_iter().filter(|root| view.snapshot.exists(root) == Some(true)).collect();
    if roots.is_empty() {
        return Outcome::not_applicable("no engine has a data directory here");
    }
    if !view.snapshot.live {
        return Outcome::unknown("devices are seen on a running host only");
    }
    let shared = roots.iter().filter_map(|data| {
        let mount = mount_of(mounts, data)?;
        (mount.device == root.device).then(|| format!("{data} lies on the device of / ({}, {})", root.source, root.device))
    });
    Outcome::of_list(shared.collect(), format!("{} on devices of their own", roots.join(", ")))
}

fn tmp_separate(view: &View<'_>) -> Outcome {
    match mounts(view) {
        Ok(mounts) => match mounts.iter().rfind(|mount| mount.target == "/tmp") {
            Some(mount) => Outcome::passed(format!("/tmp is {} of type {}", mount.source, mount.fs_type)),
            None => Outcome::failed("/tmp lies on the root filesystem"),
        },
        Err(outcome) => outcome,
    }
}

fn debugfs(view: &View<'_>) -> Outcome {
    let mut open = Vec::new();
    let mut unread = Vec::new();
    let mut seen = 0;
    for path in ["/sys/kernel/debug", "/sys/kernel/tracing"] {
        match view.snapshot.file(path) {
            Fact::Known(meta) if meta.mode & 0o077 != 0 => open.push(format!("{path} has mode {:04o}", meta.mode)),
            Fact::Known(_) => seen += 1,
            Fact::Absent => {}
            Fact::Unreadable(why) => unread.push(format!("{path}: {why}")),
        }
    }
    if open.is_empty() && unread.is_empty() && seen == 0 {
        return Outcome::not_applicable("neither is there");
    }
    Outcome::of_lists(open, unread, "open to root only")
}
