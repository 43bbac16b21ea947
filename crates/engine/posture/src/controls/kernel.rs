//! The kernel's state and how it was booted.

use crate::control::{Area, Check, Control, Outcome, Profile, Risk, Severity};
use crate::snapshot::Fact;
use crate::view::View;

pub fn controls() -> Vec<Control> {
    let kernel = |id: &str, title: &str, severity, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Kernel, severity, Check::Other(check)).when_named()
    };
    vec![
        kernel("kernel.ip-forward", "the host forwards for its containers", Severity::Medium, forwards)
            .because("CIS 3.3.1 asks for 0, which cuts every container off the network. A container host forwards, and filters what it forwards.")
            .source(&["CIS-Debian-12 3.3.1 (inverted)"])
            .remedy("`sysctl -w net.ipv4.ip_forward=1`; leave it to the engine")
            .only_in(Profile::ContainerHost),
        kernel("kernel.bridge-netfilter", "traffic on bridges meets the host's filter, or something better", Severity::Info, bridge)
            .because("With bridge-nf-call-iptables off, containers of one bridge talk past iptables. Bulkhead's own hooks do not depend on it.")
            .source(&["Bulkhead"])
            .remedy("keep `bulkhead run` in protect, or set net.bridge.bridge-nf-call-iptables=1"),
        kernel("kernel.lockdown", "the kernel is locked down", Severity::Medium, lockdown)
            .because("Root in the host's namespaces could otherwise write the kernel's memory and load what is not signed.")
            .source(&["KSPP", "Bottlerocket", "DISA RHEL-09-213"])
            .remedy("`lockdown=integrity` on the kernel's command line")
            .risk(Risk::High, "unsigned modules, kexec, hibernation and some BPF tools"),
        kernel("kernel.module-signatures", "modules must be signed", Severity::Medium, signatures)
            .because("A module is the whole kernel: whoever has CAP_SYS_MODULE for a moment would stay for ever.")
            .source(&["KSPP"])
            .remedy("`module.sig_enforce=1` on the kernel's command line")
            .risk(Risk::High, "drivers built on the host (DKMS)"),
        kernel("kernel.lsm", "a security module confines containers", Severity::High, lsm)
            .because("AppArmor or SELinux is what is left when a container's root holds a capability too many.")
            .source(&["CIS-Debian-12 1.3.1", "CIS-Docker-1.6 5.2", "CIS-Docker-1.6 5.3"])
            .remedy("`apt install apparmor`, and `apparmor=1 security=apparmor` on the kernel's command line"),
        kernel("kernel.landlock", "Landlock is there for programs that shut themselves in", Severity::Info, landlock)
            .because("Programs can give up the right to files they do not need; it costs nothing.")
            .source(&["KSPP"])
            .remedy("`lsm=landlock,…` on the kernel's command line"),
        kernel("kernel.taint", "the kernel is not tainted by foreign or forced modules", Severity::Medium, taint)
            .because("A module from outside, unsigned or forced, is code that nobody's updates mend; a rootkit shows so too.")
            .source(&["Lynis KRNL-5788", "Bulkhead"])
            .remedy("find the module in `dmesg` and /proc/modules; remove it and boot anew"),
        kernel("kernel.vulnerabilities", "weaknesses of the processor are mitigated", Severity::High, vulnerabilities)
            .because("Containers share the processor: without mitigations one reads the memory of another.")
            .source(&["KSPP"])
            .remedy("install microcode and kernel updates; take `mitigations=off` off the command line")
            .risk(Risk::Medium, "mitigations cost time"),
        kernel("kernel.cmdline-weakened", "the kernel's command line switches no protection off", Severity::High, cmdline)
            .because("What is switched off at boot, no later setting brings back.")
            .source(&["KSPP"])
            .remedy("take the words off GRUB_CMDLINE_LINUX, `update-grub`, reboot"),
        kernel("kernel.cmdline-init-on-alloc", "memory is wiped when it is given out", Severity::Low, init_on_alloc)
            .because("What was left in memory does not reach the next reader; most leaks of the kernel end there.")
            .source(&["KSPP"])
            .remedy("`init_on_alloc=1` on the kernel's command line")
            .risk(Risk::Low, "a few per cent of time"),
        kernel("kernel.cmdline-slab-nomerge", "kinds of kernel memory are kept apart", Severity::Low, slab_nomerge)
            .because("Objects of different kinds in one slab turn a small overflow into a useful one.")
            .source(&["KSPP"])
            .remedy("`slab_nomerge` on the kernel's command line"),
        kernel("kernel.cmdline-vsyscall", "the old vsyscall page is not executable", Severity::Low, vsyscall)
            .because("Code at a fixed address serves exploits.")
            .source(&["KSPP"])
            .remedy("`vsyscall=none` on the kernel's command line")
            .risk(Risk::Low, "programs linked with a C library from before 2013"),
        kernel("kernel.secure-boot", "the firmware starts signed kernels only", Severity::Low, secure_boot)
            .because("Otherwise whoever writes to /boot is the kernel after the next start.")
            .source(&["Bottlerocket", "Bulkhead"])
            .remedy("switch Secure Boot on in the firmware, with a signed boot loader")
            .risk(Risk::High, "kernels and modules that are not signed"),
        kernel("kernel.pending-reboot", "the newest kernel that is installed is running", Severity::Medium, pending)
            .because("An update that waits for a reboot protects nobody.")
            .source(&["Lynis KRNL-5830"])
            .remedy("drain the host and reboot it"),
        kernel("kernel.swap-encrypted", "no secret of a container lands on a plain swap device", Severity::Low, swap)
            .because("Memory of containers, with their keys, would lie on disk for whoever gets it; kubelets ask for no swap by default.")
            .source(&["Bulkhead", "CIS-Kubernetes-1.11 4.2"])
            .remedy("`swapoff -a` and take it out of /etc/fstab; or encrypt it; or use zram")
            .risk(Risk::Medium, "hosts with little memory"),
        kernel("kernel.core-dumps", "core dumps go to nobody by accident", Severity::Low, core_dumps)
            .because("A dump holds all that a process knew; written into a container's working directory it lies where the container may read it. A pattern with a pipe runs as root on the host for every crash in a container.")
            .source(&["CIS-Debian-12 1.5.3", "KSPP"])
            .remedy("`* hard core 0` in /etc/security/limits.d, or `Storage=none` in coredump.conf"),
        kernel("kernel.core-pattern-pipe", "the handler of core dumps is a program of the system", Severity::High, core_pattern)
            .because("A pattern that begins with `|` is run as root of the host, for crashes in containers too: the best known way out of a container that can write /proc/sys.")
            .source(&["Bulkhead"])
            .remedy("`sysctl -w kernel.core_pattern=core`, and look for who changed it"),
        kernel("kernel.cgroup-v2", "the unified cgroup hierarchy is used", Severity::Low, cgroup)
            .because("Version 1 has the release agent, a program run as root of the host at a container's wish, and devices that cannot be delegated safely.")
            .source(&["Bulkhead", "CIS-Docker-1.6 2.10"])
            .remedy("`systemd.unified_cgroup_hierarchy=1` on the kernel's command line")
            .risk(Risk::Medium, "engines older than 2021"),
        kernel("kernel.userns", "whether users may make user namespaces is decided", Severity::Info, userns)
            .because("They are the door to most of the kernel for users without rights, and the ground of rootless containers.")
            .source(&["KSPP"])
            .remedy("`sysctl -w user.max_user_namespaces=0` where nobody uses rootless containers")
            .risk(Risk::Medium, "rootless containers, browsers, bubblewrap"),
    ]
}

fn forwards(view: &View<'_>) -> Outcome {
    if !view.has_engine() {
        return Outcome::not_applicable("no container engine is installed or running");
    }
    match view
        .snapshot
        .kernel
        .sysctls
        .get("net.ipv4.ip_forward")
        .or_else(|| view.snapshot.kernel.sysctls.get("net.ipv4.conf.all.forwarding"))
    {
        Some(Fact::Known(value)) if value == "1" => Outcome::passed("forwarding is 1"),
        Some(Fact::Known(value)) => match view.engine("docker") {
            Some(_) => Outcome::failed(format!("forwarding is {value}: containers do not reach the network")),
            None => Outcome::not_applicable(format!("forwarding is {value}, and no engine runs that needs it")),
        },
        Some(Fact::Unreadable(why)) => Outcome::unknown(why.clone()),
        Some(Fact::Absent) | None => match view.persisted.get("net.ipv4.ip_forward") {
            Some(set) if set.value == "0" => Outcome::failed(format!("{} sets it to 0: containers will not reach the network", set.file)),
            Some(_) | None if !view.snapshot.live => Outcome::passed("no file sets it to 0"),
            Some(_) | None => Outcome::unknown("the running value is not known"),
        },
    }
}

fn bridge(view: &View<'_>) -> Outcome {
    match view.snapshot.kernel.sysctls.get("net.bridge.bridge-nf-call-iptables") {
        Some(Fact::Known(value)) if value == "1" => Outcome::passed("bridge-nf-call-iptables is 1"),
        Some(Fact::Known(value)) => Outcome::failed(format!("bridge-nf-call-iptables is {value}")),
        Some(Fact::Absent) => Outcome::not_applicable("br_netfilter is not loaded"),
        Some(Fact::Unreadable(why)) => Outcome::unknown(why.clone()),
        None => Outcome::not_applicable("no bridge was looked for"),
    }
}

/// The reason of a fact that is not known, as an outcome; absence means what `absent` says.
fn missing<T>(fact: &Fact<T>, absent: Outcome) -> Outcome {
    match fact {
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
        Fact::Known(_) | Fact::Absent => absent,
    }
}

const OFFLINE: &str = "this root has no running kernel";

fn live<T>(view: &View<'_>, fact: &Fact<T>, absent: Outcome) -> Outcome {
    if view.snapshot.live { missing(fact, absent) } else { Outcome::not_applicable(OFFLINE) }
}

fn lockdown(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.lockdown;
    match fact.known() {
        Some(text) if text.contains("[integrity]") || text.contains("[confidentiality]") => Outcome::passed(text.trim().to_owned()),
        Some(text) => Outcome::failed(format!("lockdown is {}", text.trim())),
        None => live(view, fact, Outcome::failed("this kernel has no lockdown")),
    }
}

fn signatures(view: &View<'_>) -> Outcome {
    let kernel = &view.snapshot.kernel;
    let disabled = kernel.sysctls.get("kernel.modules_disabled").and_then(|fact| fact.known()).is_some_and(|value| value == "1");
    let locked = kernel.lockdown.known().is_some_and(|text| text.contains("[integrity]") || text.contains("[confidentiality]"));
    match kernel.module_signatures.known() {
        _ if disabled => Outcome::passed("no module can be loaded at all"),
        _ if locked => Outcome::passed("lockdown asks for signatures"),
        Some(true) => Outcome::passed("sig_enforce is on"),
        Some(false) => Outcome::failed("sig_enforce is off"),
        None => live(view, &kernel.module_signatures, Outcome::failed("this kernel does not check signatures of modules")),
    }
}

fn lsm(view: &View<'_>) -> Outcome {
    let kernel = &view.snapshot.kernel;
    match (kernel.apparmor.known(), kernel.selinux.known()) {
        (Some(true), _) => Outcome::passed("AppArmor is on"),
        (_, Some(mode)) if mode == "enforcing" => Outcome::passed("SELinux is enforcing"),
        (_, Some(mode)) => Outcome::failed(format!("SELinux is {mode}")),
        (Some(false), None) => Outcome::failed("AppArmor is switched off and SELinux is not there"),
        (None, None) if !view.snapshot.live => Outcome::not_applicable(OFFLINE),
        (None, None) => match (kernel.apparmor.unreadable(), kernel.selinux.unreadable()) {
            (Some(why), _) | (None, Some(why)) => Outcome::unknown(why),
            (None, None) => Outcome::failed("this kernel runs neither AppArmor nor SELinux"),
        },
    }
}

fn landlock(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.lsm;
    match fact.known() {
        Some(list) if list.split(',').any(|name| name.trim() == "landlock") => Outcome::passed(list.trim().to_owned()),
        Some(list) => Outcome::failed(format!("the kernel's modules are {}", list.trim())),
        None => live(view, fact, Outcome::unknown("the list of security modules is not shown")),
    }
}

/// Bits of `Documentation/admin-guide/tainted-kernels.rst` that speak of modules.
const TAINTS: [(u32, &str); 5] = [
    (0, "a module with a licence of its own"),
    (1, "a module was loaded by force"),
    (3, "a module was unloaded by force"),
    (12, "a module from outside the kernel's tree"),
    (13, "a module without signature"),
];

fn taint(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.tainted;
    let Some(text) = fact.known() else { return live(view, fact, Outcome::unknown("the taint flags are not shown")) };
    let Ok(bits) = text.trim().parse::<u64>() else { return Outcome::unknown(format!("`{text}` are no flags")) };
    let found = TAINTS.iter().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, what)| (*what).to_owned());
    Outcome::of_list(found.collect(), format!("flags {bits}"))
}

fn vulnerabilities(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.vulnerabilities;
    let Some(list) = fact.known() else { return live(view, fact, Outcome::unknown("the kernel tells of no weaknesses")) };
    let open = list.iter().filter(|(_, state)| state.starts_with("Vulnerable")).map(|(name, state)| format!("{name}: {state}"));
    Outcome::of_list(open.collect(), format!("{} weaknesses, none open", list.len()))
}

const WEAKENING: [&str; 16] = [
    "mitigations=off",
    "nopti",
    "pti=off",
    "nospectre_v1",
    "nospectre_v2",
    "spectre_v2=off",
    "nokaslr",
    "nosmep",
    "nosmap",
    "noexec=off",
    "apparmor=0",
    "selinux=0",
    "enforcing=0",
    "init_on_alloc=0",
    "randomize_kstack_offset=off",
    "l1tf=off",
];

/// The running command line; of a host that is not running, the one that its boot loader will give.
fn words(view: &View<'_>) -> Result<(String, Vec<String>), Outcome> {
    match &view.snapshot.kernel.cmdline {
        Fact::Known(text) => Ok(("/proc/cmdline".to_owned(), text.split_whitespace().map(str::to_owned).collect())),
        Fact::Unreadable(why) if view.snapshot.live => Err(Outcome::unknown(why.clone())),
        Fact::Absent | Fact::Unreadable(_) => match view.snapshot.text("/etc/default/grub") {
            Fact::Known(text) => {
                let lines = text.lines().filter(|line| line.trim_start().starts_with("GRUB_CMDLINE_LINUX"));
                let quoted = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
                let words = lines.filter_map(|line| line.split_once('=')).flat_map(|(_, value)| value.split(quoted)).map(str::to_owned);
                Ok(("/etc/default/grub".to_owned(), words.filter(|word| !word.is_empty()).collect()))
            }
            Fact::Absent => Err(Outcome::not_applicable("this root has no running kernel and no GRUB")),
            Fact::Unreadable(why) => Err(Outcome::unknown(why)),
        },
    }
}

fn cmdline(view: &View<'_>) -> Outcome {
    match words(view) {
        Ok((file, words)) => {
            let found = words.iter().filter(|word| WEAKENING.contains(&word.as_str())).map(|word| format!("{file}: {word}"));
            Outcome::of_list(found.collect(), format!("{file} has none of {} weakening words", WEAKENING.len()))
        }
        Err(outcome) => outcome,
    }
}

fn wants_word(view: &View<'_>, fine: &[&str]) -> Outcome {
    match words(view) {
        Ok((file, words)) => match words.iter().find(|word| fine.contains(&word.as_str())) {
            Some(word) => Outcome::passed(format!("{file}: {word}")),
            None => Outcome::failed(format!("{file} has no {}", fine.join(" or "))),
        },
        Err(outcome) => outcome,
    }
}

fn init_on_alloc(view: &View<'_>) -> Outcome {
    wants_word(view, &["init_on_alloc=1", "init_on_free=1"])
}

fn slab_nomerge(view: &View<'_>) -> Outcome {
    wants_word(view, &["slab_nomerge"])
}

fn vsyscall(view: &View<'_>) -> Outcome {
    match words(view) {
        Ok((file, words)) => match words.iter().find(|word| matches!(word.as_str(), "vsyscall=emulate" | "vsyscall=native")) {
            Some(word) => Outcome::failed(format!("{file}: {word}")),
            None => Outcome::passed(format!("{file} asks for none; kernels since 5.3 default to xonly")),
        },
        Err(outcome) => outcome,
    }
}

fn secure_boot(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.secure_boot;
    match fact.known() {
        Some(true) => Outcome::passed("Secure Boot is on"),
        Some(false) => Outcome::failed("Secure Boot is off"),
        None => live(view, fact, Outcome::not_applicable("this host was not started by UEFI firmware that tells")),
    }
}

fn pending(view: &View<'_>) -> Outcome {
    let kernel = &view.snapshot.kernel;
    let Some(running) = kernel.release.known() else { return live(view, &kernel.release, Outcome::not_applicable(OFFLINE)) };
    let Some(installed) = kernel.installed.known() else {
        return missing(&kernel.installed, Outcome::not_applicable("the kernel does not come from this root: it has no /lib/modules"));
    };
    if installed.is_empty() {
        return Outcome::not_applicable("the kernel does not come from this root: /lib/modules is empty");
    }
    let newer: Vec<String> = installed.iter().filter(|other| numbers(other) > numbers(running)).cloned().collect();
    Outcome::of_list(
        newer.iter().map(|newer| format!("{newer} is installed, {running} runs")).collect(),
        format!("{running} runs and is the newest"),
    )
}

/// `6.1.0-37-amd64` as numbers, for comparing.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).take(4).collect()
}

fn swap(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.swaps;
    let Some(areas) = fact.known() else { return live(view, fact, Outcome::passed("no swap")) };
    let plain =
        areas.iter().filter(|area| !(area.starts_with("/dev/zram") || area.starts_with("/dev/dm-") || area.starts_with("/dev/mapper/")));
    Outcome::of_list(plain.map(|area| format!("swap on {area}")).collect(), "no plain swap")
}

fn core_dumps(view: &View<'_>) -> Outcome {
    let limits = ["/etc/security/limits.conf"]
        .into_iter()
        .filter_map(|path| view.snapshot.text(path).known().map(|text| (path, (*text).to_owned())));
    let more = view.snapshot.texts_in("/etc/security/limits.d", ".conf").map(|(path, text)| (path, text.to_owned()));
    for (path, text) in limits.chain(more) {
        let off = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words.as_slice(), ["*", "hard" | "-", "core", "0", ..])
        };
        if text.lines().any(off) {
            return Outcome::passed(format!("{path}: `* hard core 0`"));
        }
    }
    let coredump = view.snapshot.texts_in("/etc/systemd/coredump.conf.d", ".conf").map(|(_, text)| text);
    let main = view.snapshot.texts.get("/etc/systemd/coredump.conf").and_then(|text| text.known()).map(String::as_str);
    if coredump.chain(main).any(|text| text.lines().any(|line| line.replace(' ', "") == "Storage=none")) {
        return Outcome::passed("systemd-coredump keeps nothing");
    }
    Outcome::failed("no limit of core dumps is set for all users, and systemd-coredump is not told to keep none")
}

fn core_pattern(view: &View<'_>) -> Outcome {
    match view.snapshot.kernel.sysctls.get("kernel.core_pattern") {
        Some(Fact::Known(pattern)) => match pattern.strip_prefix('|') {
            None => Outcome::passed(format!("`{pattern}` writes a file")),
            Some(command) => {
                let program = command.split_whitespace().next().unwrap_or_default();
                let known = [
                    "/usr/lib/systemd/",
                    "/lib/systemd/",
                    "/usr/share/apport/",
                    "/usr/libexec/",
                    "/bin/false",
                    "/usr/bin/false",
                    "/sbin/kdump",
                ];
                if known.iter().any(|known| program.starts_with(known)) && !program.contains("..") {
                    Outcome::passed(format!("`{pattern}` is the system's"))
                } else {
                    Outcome::failed(format!("`{pattern}` runs {program} as root for every crash, in containers too"))
                }
            }
        },
        Some(Fact::Unreadable(why)) => Outcome::unknown(why.clone()),
        Some(Fact::Absent) | None if view.snapshot.live => Outcome::unknown("the pattern is not shown"),
        Some(Fact::Absent) | None => Outcome::not_applicable(OFFLINE),
    }
}

fn cgroup(view: &View<'_>) -> Outcome {
    let fact = &view.snapshot.kernel.cgroup;
    match fact.known().map(String::as_str) {
        Some("v2") => Outcome::passed("cgroup v2"),
        Some(other) => Outcome::failed(format!("cgroup {other}")),
        None => live(view, fact, Outcome::unknown("no cgroup filesystem is mounted")),
    }
}

fn userns(view: &View<'_>) -> Outcome {
    let value = |key: &str| view.snapshot.kernel.sysctls.get(key).and_then(|fact| fact.known().cloned());
    match (
        value("user.max_user_namespaces"),
        value("kernel.unprivileged_userns_clone"),
        value("kernel.apparmor_restrict_unprivileged_userns"),
    ) {
        (Some(max), _, _) if max == "0" => Outcome::passed("user.max_user_namespaces is 0"),
        (_, Some(clone), _) if clone == "0" => Outcome::passed("kernel.unprivileged_userns_clone is 0"),
        (_, _, Some(restricted)) if restricted == "1" => Outcome::passed("AppArmor restricts them"),
        (Some(max), _, _) => Outcome::failed(format!("every user may make namespaces (user.max_user_namespaces is {max})")),
        (None, _, _) if view.snapshot.live => Outcome::unknown("user.max_user_namespaces was not read"),
        (None, _, _) => Outcome::not_applicable(OFFLINE),
    }
}
