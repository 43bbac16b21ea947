//! A root with a kernel's files in it: what runs is seen, watched, changed and taken back.

mod tree;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use bulkhead_host::apply::{Error, Hands};
use bulkhead_host::services::Nobody;
use bulkhead_host::{Options, Root, WalkScope, collect};
use bulkhead_posture::snapshot::HostSnapshot;
use bulkhead_posture::{Fact, Profile, Selection, Status, Waivers, audit, plan};
use tree::Tree;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// systemd, sshd on port 22 and cupsd on 631 on all addresses; somebody is connected to sshd.
fn running(name: &str) -> Tree {
    let tree = Tree::bad(name);
    for (path, text) in [
        ("proc/1/stat", "1 (systemd) S 0 1 1"),
        ("proc/1/comm", "systemd\n"),
        ("proc/1/cgroup", "0::/init.scope\n"),
        ("proc/70/cgroup", "0::/system.slice/ssh.service\n"),
        ("proc/70/comm", "sshd\n"),
        ("proc/70/cmdline", "/usr/sbin/sshd\0-D\0"),
        ("proc/71/cgroup", "0::/system.slice/cups.service\n"),
        ("proc/71/comm", "cupsd\n"),
        ("proc/71/cmdline", "/usr/sbin/cupsd\0"),
        ("proc/sys/kernel/hostname", "fake\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-1-amd64\n"),
        ("proc/sys/kernel/kptr_restrict", "0\n"),
        ("proc/sys/net/ipv4/conf/all/rp_filter", "1\n"),
        ("proc/modules", "dccp 1 0 - Live 0x0\n"),
        ("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
        ("sys/fs/cgroup/system.slice/ssh.service/cgroup.procs", "70\n"),
        ("sys/fs/cgroup/system.slice/cups.service/cgroup.procs", "71\n"),
        ("sys/fs/cgroup/system.slice/cups.service/cpu.stat", "usage_usec 100\n"),
        ("var/lib/dpkg/info/cups.list", "/usr/sbin/cupsd\n"),
    ] {
        tree.write(path, text);
    }
    let table = format!(
        "{HEAD} 0: 00000000:0016 00000000:0000 0A 0:0 00:0 0 0 0 101 1\n 1: 00000000:0277 00000000:0000 0A 0:0 00:0 0 0 0 102 1\n \
         2: 0100007F:0016 0100007F:C001 01 0:0 00:0 0 0 0 103 1\n"
    );
    tree.write("proc/1/net/tcp", &table);
    for (pid, program, inode) in [(70, "/usr/sbin/sshd", 101), (71, "/usr/sbin/cupsd", 102)] {
        let folder = tree.path().join(format!("proc/{pid}"));
        fs::create_dir_all(folder.join("fd")).unwrap();
        symlink(program, folder.join("exe")).unwrap();
        symlink(format!("socket:[{inode}]"), folder.join("fd/3")).unwrap();
    }
    tree
}

fn look(root: &Root, observe: Option<Duration>) -> HostSnapshot {
    collect(&Options { root: root.clone(), observe, walk: WalkScope::None, rbac: None })
}

#[test]
fn listeners_have_their_process_unit_and_package_and_use_is_counted() {
    let tree = running("seen");
    let snapshot = look(&tree.root(), Some(Duration::from_millis(300)));
    assert!(snapshot.live);
    assert_eq!(snapshot.hostname, "fake");
    let Fact::Known(listeners) = &snapshot.listeners else { panic!("{:?}", snapshot.listeners) };
    let cups = listeners.iter().find(|one| one.port == 631).unwrap();
    assert_eq!(
        (cups.unit.as_deref(), cups.package.as_deref(), cups.exe.as_deref()),
        (Some("cups.service"), Some("cups"), Some("/usr/sbin/cupsd"))
    );
    assert!(cups.is_exposed());
    let Fact::Known(units) = &snapshot.units else { panic!("no units") };
    let usage = |name: &str| {
        let unit = units.iter().find(|unit| unit.name == name).unwrap();
        (unit.active, unit.usage.as_ref().map(|usage| usage.connections))
    };
    assert_eq!(usage("ssh.service"), (Some(true), Some(1)));
    assert_eq!(usage("cups.service"), (Some(true), Some(0)));
    assert_eq!(usage("docker.service").0, Some(false));
    let report = audit(&snapshot, Profile::ContainerHost, &Waivers::default(), 0);
    let finding = report.find("service.cups").unwrap();
    assert_eq!(finding.status, Status::Failed);
    assert!(
        finding.evidence.iter().any(|line| line.contains("cups.service: enabled, running, of") || line.contains("not used in")),
        "{:?}",
        finding.evidence
    );
    assert_eq!(report.find("module.dccp").map(|finding| finding.status), Some(Status::Failed));
}

#[test]
fn a_running_setting_is_changed_with_its_file_and_both_are_taken_back() {
    let tree = running("sysctl");
    let root = tree.root();
    let before = tree.state();
    let hands = Hands { root: &root, services: &Nobody { host: false }, tick: &|_| Ok::<(), Error>(()) };
    let ids = ["sysctl.kernel.kptr_restrict", "sysctl.net.ipv4.conf.all.rp_filter"].map(str::to_owned);
    let made = plan(&look(&root, None), Profile::ContainerHost, &Selection::Controls(ids.into()));
    assert_eq!(made.steps.len(), 2, "{:?}", made.skipped);
    for step in &made.steps {
        hands.apply(step).unwrap();
    }
    assert_eq!(tree.read("proc/sys/kernel/kptr_restrict"), "1\n");
    assert_eq!(tree.read("proc/sys/net/ipv4/conf/all/rp_filter"), "2\n");
    let report = audit(&look(&root, None), Profile::ContainerHost, &Waivers::default(), 0);
    assert_eq!(report.find("sysctl.kernel.kptr_restrict").map(|finding| finding.status), Some(Status::Passed));
    for record in hands.journal().unwrap().records().unwrap().iter().rev() {
        hands.undo(record, false).unwrap();
    }
    // Files of the kernel have no times of their own.
    assert_eq!(tree.read("proc/sys/kernel/kptr_restrict"), "0\n");
    assert_eq!(tree.read("proc/sys/net/ipv4/conf/all/rp_filter"), "1\n");
    let kernel = |path: &std::path::PathBuf| path.starts_with("proc");
    let without = |state: std::collections::BTreeMap<_, _>| -> Vec<_> { state.into_iter().filter(|(path, _)| !kernel(path)).collect() };
    assert_eq!(without(tree.state()), without(before));
}
