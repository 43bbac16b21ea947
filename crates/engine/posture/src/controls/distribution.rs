//! Which system this is, and what a stock one lacks against those that are made for containers.
//!
//! Judged are traits that can be measured; the name only picks the words.

use crate::control::{Area, Check, Control, Outcome, Profile, Severity};
use crate::snapshot::Fact;
use crate::view::View;

use super::mounts::mount_of;

pub const TRAIT_FILES: [&str; 26] = [
    "/usr/bin/apt-get",
    "/usr/bin/dpkg",
    "/usr/bin/dnf",
    "/usr/bin/microdnf",
    "/usr/bin/yum",
    "/usr/bin/tdnf",
    "/usr/bin/rpm",
    "/sbin/apk",
    "/usr/bin/zypper",
    "/usr/bin/pacman",
    "/bin/sh",
    "/bin/bash",
    "/usr/bin/python3",
    "/usr/bin/perl",
    "/run/ostree-booted",
    "/usr/share/flatcar",
    "/usr/sbin/update_engine",
    "/usr/bin/update_engine_client",
    "/usr/sbin/transactional-update",
    "/usr/bin/rpm-ostree",
    "/usr/bin/bootc",
    "/usr/bin/snap",
    "/usr/lib/bottlerocket",
    "/usr/bin/apiclient",
    "/nix/store",
    "/usr/bin/unattended-upgrade",
];

/// A system that is made for containers.
struct Made {
    name: &'static str,
    id: &'static str,
    variant: Option<&'static str>,
    /// Small, but not made of parts that cannot be changed.
    reduced: bool,
}

const MADE: &[Made] = &[
    Made { name: "Flatcar Container Linux", id: "flatcar", variant: None, reduced: false },
    Made { name: "CoreOS Container Linux", id: "coreos", variant: None, reduced: false },
    Made { name: "Bottlerocket", id: "bottlerocket", variant: None, reduced: false },
    Made { name: "Talos", id: "talos", variant: None, reduced: false },
    Made { name: "Fedora CoreOS", id: "fedora", variant: Some("coreos"), reduced: false },
    Made { name: "Fedora IoT", id: "fedora", variant: Some("iot"), reduced: false },
    Made { name: "Red Hat CoreOS", id: "rhcos", variant: None, reduced: false },
    Made { name: "Container-Optimized OS", id: "cos", variant: None, reduced: false },
    Made { name: "openSUSE MicroOS", id: "opensuse-microos", variant: None, reduced: false },
    Made { name: "openSUSE Leap Micro", id: "opensuse-leap-micro", variant: None, reduced: false },
    Made { name: "SUSE Linux Micro", id: "sl-micro", variant: None, reduced: false },
    Made { name: "SLE Micro", id: "sle-micro", variant: None, reduced: false },
    Made { name: "Ubuntu Core", id: "ubuntu-core", variant: None, reduced: false },
    Made { name: "Elemental", id: "elemental", variant: None, reduced: false },
    Made { name: "Kairos", id: "kairos", variant: None, reduced: false },
    Made { name: "RancherOS", id: "rancheros", variant: None, reduced: false },
    Made { name: "k3OS", id: "k3os", variant: None, reduced: false },
    Made { name: "LinuxKit", id: "linuxkit", variant: None, reduced: false },
    Made { name: "NixOS", id: "nixos", variant: None, reduced: true },
    Made { name: "Photon OS", id: "photon", variant: None, reduced: true },
    Made { name: "Azure Linux", id: "azurelinux", variant: None, reduced: true },
    Made { name: "CBL-Mariner", id: "mariner", variant: None, reduced: true },
    Made { name: "Amazon Linux", id: "amzn", variant: None, reduced: true },
    Made { name: "Alpine", id: "alpine", variant: None, reduced: true },
    Made { name: "Wolfi", id: "wolfi", variant: None, reduced: true },
];

pub fn controls() -> Vec<Control> {
    let distribution = |id: &str, title: &str, severity, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Distribution, severity, Check::Other(check)).when_named().only_in(Profile::ContainerHost)
    };
    vec![
        distribution("distribution.made-for-containers", "the system is made for containers", Severity::Low, made)
            .because("A system with a root that cannot be written, updates as a whole and no package manager has less that can be attacked, and less that can stay changed.")
            .source(&["NIST SP 800-190 4.5.1"])
            .remedy("for new hosts take Flatcar, Bottlerocket, Talos, Fedora CoreOS, COS, MicroOS or Ubuntu Core; on this one, see the traits below"),
        distribution("distribution.read-only-root", "the system's files cannot be written", Severity::Low, read_only)
            .because("What is written into /usr stays after the container that did it.")
            .source(&["NIST SP 800-190 4.5.1", "Bottlerocket", "Flatcar"])
            .remedy("a read-only bind of /usr comes near it: `mount --bind -o ro /usr /usr` in a unit; updates then lift it"),
        distribution("distribution.verified-root", "the system's files are verified as they are read", Severity::Low, verified)
            .because("dm-verity, composefs or fs-verity notices what was changed while the host was off, or below the filesystem.")
            .source(&["Bottlerocket", "COS"])
            .remedy("a stock system cannot; `bulkhead host verify` compares with the package database instead"),
        distribution("distribution.atomic-updates", "updates replace the system as a whole", Severity::Low, atomic)
            .because("Half an update is a state that nobody has tested, and there is no way back.")
            .source(&["NIST SP 800-190 4.5.3"])
            .remedy("ostree, A/B partitions or transactional-update; on a stock system take snapshots before updates"),
        distribution("distribution.no-package-manager", "no package manager is at hand", Severity::Info, no_manager)
            .because("What an intruder needs he installs.")
            .source(&["Bottlerocket", "Talos"])
            .remedy("a stock system needs its own: let nobody but root run it"),
        distribution("distribution.automatic-updates", "security updates are installed by themselves", Severity::Medium, automatic)
            .because("Between the update and the person who installs it lie weeks, in which the hole is known.")
            .source(&["Lynis PKGS-7420", "CIS-Debian-12 1.2.2.1"])
            .remedy("`apt install unattended-upgrades`, with `APT::Periodic::Unattended-Upgrade \"1\";`"),
        distribution("distribution.supported", "the release still gets security updates", Severity::High, supported)
            .because("Holes that are found in an old release stay open.")
            .source(&["Lynis GEN-0010"])
            .remedy("upgrade to a release that is supported"),
        distribution("distribution.os-release", "the system says what it is", Severity::Info, says)
            .because("Inventories, scanners and engines read it.")
            .source(&["Bulkhead"])
            .remedy("restore /etc/os-release from the package that owns it"),
    ]
}

fn recognise(view: &View<'_>) -> Option<&'static Made> {
    let map = view.snapshot.os_release.known()?;
    let field = |key: &str| map.get(key).map(String::as_str).unwrap_or_default();
    let by_id = |made: &&Made| {
        let variant = made.variant.is_none_or(|variant| field("VARIANT_ID") == variant);
        variant && (field("ID") == made.id || field("ID").starts_with(&format!("{}-", made.id)) && made.variant.is_none())
    };
    MADE.iter().find(by_id).or_else(|| {
        // Successors and rebuilds name their parents, or leave traces on disk.
        let like = |id: &str| field("ID_LIKE").split_whitespace().any(|parent| parent == id);
        let trace = |path: &str| view.snapshot.exists(path) == Some(true);
        MADE.iter().find(|made| {
            (like(made.id) && !made.reduced && made.variant.is_none())
                || (made.id == "flatcar" && trace("/usr/share/flatcar"))
                || (made.id == "bottlerocket" && trace("/usr/bin/apiclient") && !trace("/bin/bash"))
                || (made.id == "fedora" && made.variant == Some("coreos") && field("ID") == "fedora" && trace("/run/ostree-booted"))
        })
    })
}

fn made(view: &View<'_>) -> Outcome {
    let name = view.snapshot.os_release.known().and_then(|map| map.get("PRETTY_NAME").or_else(|| map.get("ID")));
    let traits = traits(view);
    match (recognise(view), name) {
        (Some(made), _) if !made.reduced => Outcome::passed(format!("{}; {traits}", made.name)),
        (Some(made), _) => Outcome::failed(format!("{} is small, but its files can be changed in place; {traits}", made.name)),
        (None, Some(name)) => Outcome::failed(format!("{name} is a stock system; {traits}")),
        (None, None) => match &view.snapshot.os_release {
            Fact::Unreadable(why) => Outcome::unknown(why.clone()),
            Fact::Known(_) | Fact::Absent => Outcome::unknown("the system does not say what it is"),
        },
    }
}

type Look = fn(&View<'_>) -> Outcome;

/// What it has and lacks, in a line.
fn traits(view: &View<'_>) -> String {
    let all: [(&str, Look); 4] = [
        ("read-only system files", read_only),
        ("verified files", verified),
        ("atomic updates", atomic),
        ("no package manager", no_manager),
    ];
    let has = |wanted| {
        let names: Vec<&str> = all
            .iter()
            .filter(|(_, check)| (check(view).status == crate::control::Status::Passed) == wanted)
            .map(|(name, _)| *name)
            .collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    format!("has {}; lacks {}", has(true), has(false))
}

fn read_only(view: &View<'_>) -> Outcome {
    let mounts = match &view.snapshot.mounts {
        Fact::Known(mounts) => mounts,
        Fact::Absent => return Outcome::unknown("no table of mounts"),
        Fact::Unreadable(why) => return Outcome::unknown(why.clone()),
    };
    match mount_of(mounts, "/usr/bin") {
        Some(mount) if mount.has("ro") => Outcome::passed(format!("{} ({}) is mounted read-only", mount.target, mount.fs_type)),
        Some(mount) => Outcome::failed(format!("{} ({}) can be written", mount.target, mount.fs_type)),
        None => Outcome::unknown("no mount of /usr is known"),
    }
}

fn verified(view: &View<'_>) -> Outcome {
    let mounts = match &view.snapshot.mounts {
        Fact::Known(mounts) => mounts,
        Fact::Absent => return Outcome::unknown("no table of mounts"),
        Fact::Unreadable(why) => return Outcome::unknown(why.clone()),
    };
    let Some(mount) = mount_of(mounts, "/usr/bin") else { return Outcome::unknown("no mount of /usr is known") };
    let squash = mount.fs_type == "squashfs" && mount.source.starts_with("/dev/dm-");
    let word =
        |word: &str| view.snapshot.kernel.cmdline.known().is_some_and(|line| line.split_whitespace().any(|found| found.starts_with(word)));
    let verity = ["dm-mod.create=", "verity.", "systemd.verity", "roothash=", "usrhash=", "verity.usrhash=", "mount.usr=/dev/mapper/usr"];
    if mount.source.contains("verity") || mount.source == "/dev/mapper/usr" || mount.source == "/dev/mapper/root-verity" || squash {
        Outcome::passed(format!("{} lies on {}", mount.target, mount.source))
    } else if mount.fs_type == "composefs" || mount.source == "composefs" {
        Outcome::passed("composefs")
    } else if verity.iter().any(|found| word(found)) {
        Outcome::passed("the kernel's command line names a verity hash")
    } else {
        Outcome::failed(format!("{} lies on {} ({})", mount.target, mount.source, mount.fs_type))
    }
}

fn present(view: &View<'_>, paths: &[&'static str]) -> (Vec<String>, Vec<String>) {
    let there = paths.iter().filter(|path| view.snapshot.exists(path) == Some(true)).map(|path| (*path).to_owned());
    let unread = paths.iter().filter(|path| view.snapshot.exists(path).is_none()).map(|path| format!("{path} was not looked at"));
    (there.collect(), unread.collect())
}

fn atomic(view: &View<'_>) -> Outcome {
    let ways = [
        "/run/ostree-booted",
        "/usr/sbin/update_engine",
        "/usr/bin/update_engine_client",
        "/usr/sbin/transactional-update",
        "/usr/bin/rpm-ostree",
        "/usr/bin/bootc",
        "/usr/bin/apiclient",
        "/nix/store",
    ];
    let (there, unread) = present(view, &ways);
    let known = recognise(view).filter(|made| !made.reduced);
    match (there.first(), known) {
        (Some(path), _) => Outcome::passed(format!("{path} is there")),
        (None, Some(made)) => Outcome::passed(format!("{} updates as a whole", made.name)),
        (None, None) if unread.len() == ways.len() => Outcome::unknown(unread.join("; ")),
        (None, None) => Outcome::failed("packages are replaced one by one"),
    }
}

fn no_manager(view: &View<'_>) -> Outcome {
    let managers = [
        "/usr/bin/apt-get",
        "/usr/bin/dpkg",
        "/usr/bin/dnf",
        "/usr/bin/microdnf",
        "/usr/bin/yum",
        "/usr/bin/tdnf",
        "/sbin/apk",
        "/usr/bin/zypper",
        "/usr/bin/pacman",
    ];
    let (there, unread) = present(view, &managers);
    Outcome::of_lists(there.iter().map(|path| format!("{path} is there")).collect(), unread, "none")
}

fn automatic(view: &View<'_>) -> Outcome {
    if let Some(made) = recognise(view).filter(|made| !made.reduced) {
        return Outcome::passed(format!("{} updates itself", made.name));
    }
    if !["/usr/bin/apt-get", "/usr/bin/dnf", "/usr/bin/zypper", "/sbin/apk"].iter().any(|path| view.snapshot.exists(path) == Some(true)) {
        return Outcome::unknown("no package manager is known here, and no update of the whole system");
    }
    let mut on = None;
    for (path, text) in view.snapshot.texts_in("/etc/apt/apt.conf.d", "") {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#')) {
            if let Some((_, value)) = line.split_once("APT::Periodic::Unattended-Upgrade") {
                // Later files win.
                on = Some((path, value.contains("\"1\"") || value.contains(" 1")));
            }
        }
    }
    let timer = |name: &str| {
        view.snapshot
            .units
            .known()
            .is_some_and(|units| units.iter().any(|unit| unit.name == name && unit.state == crate::snapshot::UnitState::Enabled))
    };
    let installed = view.snapshot.exists("/usr/bin/unattended-upgrade") == Some(true);
    match on {
        Some((path, true)) if installed => Outcome::passed(format!("{path} switches unattended-upgrades on")),
        Some((path, true)) => Outcome::failed(format!("{path} switches it on, but unattended-upgrades is not installed")),
        _ if timer("dnf-automatic.timer") || timer("dnf-automatic-install.timer") || timer("zypper-auto-update.timer") => {
            Outcome::passed("a timer installs updates")
        }
        _ => Outcome::failed("nothing installs security updates by itself"),
    }
}

/// Day, as days since 1970, after which a release gets no free security updates. Sources: wiki.debian.org/DebianReleases
/// (with long-term support), ubuntu.com/about/release-cycle, alpinelinux.org/releases, docs.fedoraproject.org.
const ENDS: &[(&str, &str, u64)] = &[
    ("debian", "9", 19173),
    ("debian", "10", 19904),
    ("debian", "11", 20696),
    ("debian", "12", 21365),
    ("debian", "13", 22095),
    ("ubuntu", "16.04", 18747),
    ("ubuntu", "18.04", 19508),
    ("ubuntu", "20.04", 20239),
    ("ubuntu", "22.04", 20970),
    ("ubuntu", "24.04", 21700),
    ("alpine", "3.17", 20049),
    ("alpine", "3.18", 20217),
    ("alpine", "3.19", 20393),
    ("alpine", "3.20", 20544),
    ("alpine", "3.21", 20758),
    ("alpine", "3.22", 20939),
    ("fedora", "39", 20053),
    ("fedora", "40", 20221),
    ("fedora", "41", 20423),
    ("centos", "7", 19904),
    ("centos", "8", 18992),
    ("photon", "3.0", 19783),
];

fn supported(view: &View<'_>) -> Outcome {
    let map = match &view.snapshot.os_release {
        Fact::Known(map) => map,
        Fact::Absent => return Outcome::unknown("the system does not say what it is"),
        Fact::Unreadable(why) => return Outcome::unknown(why.clone()),
    };
    let (id, version) =
        (map.get("ID").map(String::as_str).unwrap_or_default(), map.get("VERSION_ID").map(String::as_str).unwrap_or_default());
    let same = |known: &str| version == known || version.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    match ENDS.iter().find(|(name, release, _)| *name == id && same(release)) {
        Some((_, _, end)) if view.snapshot.taken / 86_400 > *end => {
            Outcome::failed(format!("{id} {version} got its last security updates {} days ago", view.snapshot.taken / 86_400 - end))
        }
        Some((_, _, end)) => {
            Outcome::passed(format!("{id} {version} is supported for {} days more", end.saturating_sub(view.snapshot.taken / 86_400)))
        }
        None => Outcome::unknown(format!("when `{id}` `{version}` ends is not known to this version")),
    }
}

fn says(view: &View<'_>) -> Outcome {
    match &view.snapshot.os_release {
        Fact::Known(map) if map.contains_key("ID") => {
            Outcome::passed(map.get("PRETTY_NAME").or_else(|| map.get("ID")).cloned().unwrap_or_default())
        }
        Fact::Known(_) => Outcome::failed("os-release has no ID"),
        Fact::Absent => Outcome::failed("there is no os-release"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}
