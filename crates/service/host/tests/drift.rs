//! A root is recorded, changed in every way, and compared.

mod tree;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use bulkhead_host::baseline::{Baseline, Compared, How, compare, look};
use bulkhead_host::{Options, Root, WalkScope, collect};
use md5::{Digest, Md5};
use tree::Tree;

fn now(root: &Root, earlier: Option<&Baseline>, compared: &mut Compared) -> Baseline {
    let snapshot = collect(&Options { root: root.clone(), observe: None, walk: WalkScope::System, rbac: None });
    look(root, &snapshot, earlier, compared)
}

fn differences(root: &Root, before: &Baseline) -> Compared {
    let mut compared = Compared::default();
    let after = now(root, Some(before), &mut compared);
    compare(root, before, &after, &mut compared);
    compared
}

#[test]
fn an_unchanged_host_has_no_drift_and_is_hardly_read() {
    let tree = Tree::bad("still");
    let root = tree.root();
    let mut first = Compared::default();
    let before = now(&root, None, &mut first);
    assert!(first.read > 20);
    let compared = differences(&root, &before);
    assert_eq!(compared.drift, []);
    assert!(compared.read <= 3, "{} of {} files were read again", compared.read, compared.files);
    let bytes = serde_json::to_vec(&before).unwrap();
    assert_eq!(Baseline::parse(&bytes).unwrap(), before);
    assert!(Baseline::parse(b"{}").is_err());
}

#[test]
fn every_kind_of_change_is_told_and_what_a_package_brought_is_an_upgrade() {
    let tree = Tree::bad("changes");
    let root = tree.root();
    let before = now(&root, None, &mut Compared::default());
    tree.write("etc/crontab", "* * * * * root /tmp/x\n");
    tree.write("etc/ld.so.preload", "/usr/lib/evil.so\n");
    tree.mode("etc/login.defs", 0o666);
    fs::remove_file(tree.path().join("etc/hostname")).unwrap();
    fs::remove_file(tree.path().join("opt/open")).unwrap();
    symlink("/etc/shadow", tree.path().join("opt/open")).unwrap();
    tree.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnew:x:0:0::/:/bin/sh\n");
    tree.write("usr/local/bin/second", "x");
    fs::set_permissions(tree.path().join("usr/local/bin/second"), fs::Permissions::from_mode(0o4755)).unwrap();
    // An upgrade: the file and the package's sum of it are new.
    tree.write("usr/sbin/sshd", "a newer one");
    let sum: String = Md5::digest(b"a newer one").iter().map(|byte| format!("{byte:02x}")).collect();
    tree.write("var/lib/dpkg/info/base-files.md5sums", &format!("{sum}  usr/sbin/sshd\n"));
    let compared = differences(&root, &before);
    let found: Vec<(&str, How)> =
        compared.drift.iter().filter(|one| one.package.is_none()).map(|one| (one.what.as_str(), one.how)).collect();
    for wanted in [
        ("/etc/crontab", How::Content),
        ("/etc/ld.so.preload", How::Added),
        ("/etc/login.defs", How::Mode),
        ("/etc/hostname", How::Removed),
        ("/opt/open", How::Kind),
        ("/etc/passwd", How::Content),
        ("user", How::Added),
        ("user", How::Removed),
        ("/usr/local/bin/second", How::Added),
        ("set-id", How::Added),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} is not among {found:?}");
    }
    let upgrade = compared.drift.iter().find(|one| one.what == "/usr/sbin/sshd").unwrap();
    assert_eq!(upgrade.package.as_deref(), Some("base-files"), "its sum confirms it");
    // The same change without the package's word is drift.
    tree.write("usr/sbin/sshd", "one of somebody else's");
    let compared = differences(&root, &before);
    assert!(compared.drift.iter().any(|one| one.what == "/usr/sbin/sshd" && one.package.is_none()));
}
