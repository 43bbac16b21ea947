//! What holds for all controls: they are whole, and nothing that is not known passes.

use std::collections::BTreeSet;

use bulkhead_posture::snapshot::{HostSnapshot, User};
use bulkhead_posture::{Fact, Profile, Status, Waivers, audit, catalogue};

#[test]
fn every_control_says_what_why_who_and_what_to_do() {
    let all = catalogue();
    assert!(all.len() >= 350, "{} controls", all.len());
    let mut ids = BTreeSet::new();
    for control in &all {
        assert!(ids.insert(control.id.clone()), "{} is given twice", control.id);
        assert!(control.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')), "{}", control.id);
        for (what, text) in
            [("title", control.title.as_str()), ("rationale", control.rationale), ("remediation", control.remediation.as_str())]
        {
            assert!(text.len() > 5, "{}: no {what}", control.id);
        }
        assert!(!control.sources.is_empty(), "{}: no source", control.id);
    }
}

#[test]
fn of_a_host_that_shows_nothing_nothing_passes() {
    for live in [false, true] {
        let snapshot = HostSnapshot { live, ..HostSnapshot::empty() };
        for profile in Profile::ALL {
            let report = audit(&snapshot, profile, &Waivers::default(), 0);
            for finding in &report.controls {
                // Of a root that does not run, a setting that no file sets has the kernel's default.
                let by_default = !live && finding.id.starts_with("sysctl.");
                assert!(finding.status != Status::Passed || by_default, "{} passed: {:?}", finding.id, finding.evidence);
                assert!(!finding.evidence.is_empty(), "{}: no reason", finding.id);
            }
            assert!(report.score.value < 60, "{:?}", report.score);
        }
    }
}

#[test]
fn facts_that_cannot_be_read_make_a_control_unknown_and_never_passed() {
    let denied = || Fact::Unreadable("permission denied".to_owned());
    let mut snapshot = HostSnapshot { live: true, ..HostSnapshot::empty() };
    let wanted = bulkhead_posture::controls::wanted();
    snapshot.files = wanted.files.iter().map(|path| ((*path).to_owned(), Fact::Unreadable("permission denied".to_owned()))).collect();
    snapshot.kernel.sysctls =
        wanted.sysctls.iter().map(|key| ((*key).to_owned(), Fact::Unreadable("permission denied".to_owned()))).collect();
    for path in ["/etc/ssh/sshd_config", "/etc/sudoers", "/etc/login.defs", "/etc/docker/daemon.json", "/etc/ld.so.preload"] {
        snapshot.texts.insert(path.to_owned(), Fact::Unreadable("permission denied".to_owned()));
    }
    (snapshot.users, snapshot.groups, snapshot.units, snapshot.listeners) =
        (denied(), Fact::Unreadable("no".into()), Fact::Unreadable("no".into()), Fact::Unreadable("no".into()));
    let report = audit(&snapshot, Profile::ContainerHost, &Waivers::default(), 0);
    let passed: Vec<&str> =
        report.controls.iter().filter(|finding| finding.status == Status::Passed).map(|finding| finding.id.as_str()).collect();
    assert_eq!(passed, Vec::<&str>::new());
    for id in [
        "account.uid-zero",
        "sysctl.kernel.kptr_restrict",
        "file.shadow",
        "ssh.permit-root-login",
        "sudo.nopasswd",
        "service.cups",
        "docker.icc",
        "container.privileged",
        "surface.ld-preload",
    ] {
        assert_eq!(report.find(id).map(|finding| finding.status), Some(Status::Unknown), "{id}");
    }
}

#[test]
fn no_marker_file_and_no_missing_package_switches_controls_off() {
    // An empty /.dockerenv and the lack of a kernel's package cost another auditor 363 of 507 rules.
    let mut snapshot = HostSnapshot { live: true, ..HostSnapshot::empty() };
    snapshot.users = Fact::Known(vec![User { name: "toor".into(), ..User::default() }]);
    snapshot.kernel.sysctls.insert("kernel.kptr_restrict".into(), Fact::Known("0".into()));
    let before = audit(&snapshot, Profile::ContainerHost, &Waivers::default(), 0);
    for marker in ["/.dockerenv", "/run/.containerenv"] {
        snapshot.files.insert(marker.to_owned(), Fact::Known(Default::default()));
    }
    snapshot.packages = Fact::Known(Default::default());
    let after = audit(&snapshot, Profile::ContainerHost, &Waivers::default(), 0);
    for (before, after) in before.controls.iter().zip(&after.controls) {
        assert!(
            before.status == after.status || before.status == Status::Unknown,
            "{}: {:?}, then {:?}",
            before.id,
            before.status,
            after.status
        );
    }
    assert_eq!(after.find("account.uid-zero").map(|finding| finding.status), Some(Status::Failed));
    assert_eq!(after.find("sysctl.kernel.kptr_restrict").map(|finding| finding.status), Some(Status::Failed));
}

#[test]
fn the_profile_of_container_hosts_has_no_rule_that_breaks_containers() {
    let ids = |profile| -> BTreeSet<String> {
        catalogue().into_iter().filter(|control| control.stands_in(profile)).map(|control| control.id).collect()
    };
    let (host, cis) = (ids(Profile::ContainerHost), ids(Profile::Cis));
    assert!(!host.contains("sysctl.net.ipv4.ip_forward.cis") && cis.contains("sysctl.net.ipv4.ip_forward.cis"));
    assert!(host.contains("kernel.ip-forward") && host.contains("module.overlay") && host.contains("sysctl.net.ipv4.conf.all.rp_filter"));
    assert!(!cis.contains("module.overlay"));
}

#[test]
fn any_bytes_that_are_a_snapshot_keep_the_promises() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        bulkhead_posture::fuzz_snapshot(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 4, "the corpus is empty");
}

#[test]
fn a_listener_whose_process_cannot_be_told_clears_nobody() {
    let mut snapshot = HostSnapshot { live: true, ..HostSnapshot::empty() };
    let hidden =
        bulkhead_posture::snapshot::Listener { protocol: "tcp".into(), address: "0.0.0.0".into(), port: 6379, ..Default::default() };
    snapshot.listeners = Fact::Known(vec![hidden]);
    snapshot.packages = Fact::Known(bulkhead_posture::snapshot::Packages { kind: "dpkg".into(), installed: vec![Default::default()] });
    let report = audit(&snapshot, Profile::ContainerHost, &Waivers::default(), 0);
    for id in ["surface.unowned-listeners", "surface.deleted-listeners", "surface.rpc-without-auth"] {
        assert_eq!(report.find(id).map(|finding| finding.status), Some(Status::Unknown), "{id}");
    }
}
