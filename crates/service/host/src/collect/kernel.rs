//! What the running kernel says of itself.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_posture::Fact;
use bulkhead_posture::controls::Wanted;
use bulkhead_posture::snapshot::HostSnapshot;

use crate::root::{MapKnown, Root};

/// Bytes of the lists of modules: Debian's `modules.dep` has 700 KB.
const MODULES_BYTES_MAX: u64 = 16 << 20;

pub fn collect(root: &Root, wanted: &Wanted, snapshot: &mut HostSnapshot) {
    let live = snapshot.live;
    snapshot.init = init(root, live);
    let kernel = &mut snapshot.kernel;
    for key in &wanted.sysctls {
        let value = if live { root.line(&format!("/proc/sys/{}", key.replace('.', "/"))) } else { Fact::Absent };
        let value = value.map_known(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        kernel.sysctls.insert((*key).to_owned(), value);
    }
    kernel.release = if live { root.line("/proc/sys/kernel/osrelease") } else { Fact::Absent };
    kernel.installed = installed(root);
    let loaded = if live { root.bytes("/proc/modules", MODULES_BYTES_MAX) } else { Fact::Absent };
    kernel.modules = loaded.map_known(|bytes| {
        String::from_utf8_lossy(bytes).lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    });
    kernel.available = available(root, live, kernel.release.known(), kernel.installed.known(), &wanted.modules);
    if !live {
        for fact in
            [&mut kernel.cmdline, &mut kernel.lockdown, &mut kernel.lsm, &mut kernel.tainted, &mut kernel.selinux, &mut kernel.cgroup]
        {
            *fact = Fact::Absent;
        }
        (kernel.vulnerabilities, kernel.secure_boot, kernel.swaps) = (Fact::Absent, Fact::Absent, Fact::Absent);
        (kernel.apparmor, kernel.module_signatures) = (Fact::Absent, Fact::Absent);
        return;
    }
    kernel.cmdline = root.line("/proc/cmdline");
    kernel.lockdown = security(root, "/sys/kernel/security/lockdown");
    kernel.lsm = security(root, "/sys/kernel/security/lsm");
    kernel.tainted = root.line("/proc/sys/kernel/tainted");
    kernel.vulnerabilities = vulnerabilities(root);
    kernel.secure_boot = secure_boot(root);
    kernel.swaps = root
        .line("/proc/swaps")
        .map_known(|text| text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect());
    kernel.apparmor = root.line("/sys/module/apparmor/parameters/enabled").map_known(|text| text == "Y");
    kernel.selinux =
        root.line("/sys/fs/selinux/enforce").map_known(|text| (if text == "1" { "enforcing" } else { "permissive" }).to_owned());
    kernel.module_signatures = root.line("/sys/module/module/parameters/sig_enforce").map_known(|text| text == "Y");
    kernel.cgroup = cgroup(root);
}

/// A file of securityfs. Where that is not mounted, its files are not absent but out of sight.
fn security(root: &Root, path: &str) -> Fact<String> {
    match root.line(path) {
        Fact::Absent if root.names("/sys/kernel/security").known().is_none_or(|names| names.is_empty()) => {
            Fact::Unreadable("securityfs is not mounted at /sys/kernel/security".to_owned())
        }
        found => found,
    }
}

fn init(root: &Root, live: bool) -> Fact<String> {
    if live {
        return root.line("/proc/1/comm");
    }
    let ways = [
        ("/usr/lib/systemd/systemd", "systemd"),
        ("/lib/systemd/systemd", "systemd"),
        ("/sbin/openrc", "openrc-init"),
        ("/usr/bin/runit", "runit"),
    ];
    match ways.iter().find(|(path, _)| root.exists(path)) {
        Some((_, name)) => Fact::Known((*name).to_owned()),
        None => Fact::Absent,
    }
}

fn installed(root: &Root) -> Fact<Vec<String>> {
    root.names("/lib/modules").map_known(|names| {
        let whole = |name: &&String| root.exists(&format!("/lib/modules/{name}/modules.dep"));
        names.iter().filter(whole).cloned().collect()
    })
}

/// Which of the wanted modules the kernel has: by its lists on disk, and by what it shows of what is built in.
fn available(root: &Root, live: bool, release: Option<&String>, installed: Option<&Vec<String>>, wanted: &[&str]) -> Fact<Vec<String>> {
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    let mut found = BTreeSet::new();
    let mut lists = 0;
    let releases: Vec<&String> = match (release, installed) {
        (Some(release), _) => vec![release],
        (None, Some(installed)) => installed.iter().collect(),
        (None, None) => Vec::new(),
    };
    for release in releases {
        for list in ["modules.dep", "modules.builtin"] {
            if let Fact::Known(bytes) = root.bytes(&format!("/lib/modules/{release}/{list}"), MODULES_BYTES_MAX) {
                lists += 1;
                for line in String::from_utf8_lossy(&bytes).lines() {
                    let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                    let name = file.split(".ko").next().unwrap_or_default().replace('-', "_");
                    if let Some(known) = wanted.get(name.as_str()) {
                        found.insert((*known).to_owned());
                    }
                }
            }
        }
    }
    if !live {
        return if lists == 0 { Fact::Absent } else { Fact::Known(found.into_iter().collect()) };
    }
    // What runs shows itself, also where the kernel did not come with this root.
    for (path, column) in [("/proc/filesystems", 1), ("/proc/net/protocols", 0)] {
        if let Fact::Known(text) = root.line(path) {
            for line in text.lines() {
                let name = line.split('\t').next_back().filter(|_| column == 1).or_else(|| line.split_whitespace().next());
                let name = name.unwrap_or_default().to_ascii_lowercase();
                if let Some(known) = wanted.get(name.as_str()) {
                    found.insert((*known).to_owned());
                }
            }
        }
    }
    found.extend(wanted.iter().filter(|name| root.exists(&format!("/sys/module/{name}"))).map(|&name| name.to_owned()));
    Fact::Known(found.into_iter().collect())
}

fn vulnerabilities(root: &Root) -> Fact<BTreeMap<String, String>> {
    const FOLDER: &str = "/sys/devices/system/cpu/vulnerabilities";
    root.names(FOLDER).map_known(|names| {
        let read = |name: &String| Some((name.clone(), root.line(&format!("{FOLDER}/{name}")).known()?.clone()));
        names.iter().filter_map(read).collect()
    })
}

/// The variable of the firmware: four bytes of attributes and one of value.
fn secure_boot(root: &Root) -> Fact<bool> {
    let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    match root.bytes(variable, 64) {
        Fact::Known(bytes) => Fact::Known(bytes.get(4) == Some(&1)),
        Fact::Absent if root.exists("/sys/firmware/efi") => Fact::Unreadable("the firmware's variables are not shown".to_owned()),
        Fact::Absent => Fact::Absent,
        Fact::Unreadable(why) => Fact::Unreadable(why),
    }
}

fn cgroup(root: &Root) -> Fact<String> {
    if root.exists("/sys/fs/cgroup/cgroup.controllers") {
        return Fact::Known("v2".to_owned());
    }
    let kinds = [
        ("/sys/fs/cgroup/unified/cgroup.controllers", "hybrid"),
        ("/sys/fs/cgroup/memory", "v1"),
        ("/sys/fs/cgroup/devices", "v1"),
        ("/sys/fs/cgroup/systemd", "v1"),
    ];
    match kinds.iter().find(|(path, _)| root.exists(path)) {
        Some((_, kind)) => Fact::Known((*kind).to_owned()),
        None => Fact::Absent,
    }
}
