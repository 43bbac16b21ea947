//! Settings of the host: only of namespaces that the test makes.

use crate::root_only;
use bulkhead_sys::netns::Netns;
use bulkhead_sys::{mounts, sysctl, trial};

#[test]
fn a_setting_of_a_namespace_is_written_and_told_what_it_was() {
    root_only!("a_setting_of_a_namespace_is_written_and_told_what_it_was");
    let outside = sysctl::read("net.ipv4.ip_forward").unwrap();
    let netns = Netns::create().unwrap();
    netns
        .run(|| {
            let first = sysctl::read("net.ipv4.ip_forward").unwrap();
            let other = if first == "0" { "1" } else { "0" };
            assert_eq!(sysctl::write("net.ipv4.ip_forward", other).unwrap(), first);
            assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), other);
            assert_eq!(sysctl::write("net.ipv4.ip_forward", &first).unwrap(), other);
            assert!(sysctl::write("net.ipv4.ip_forward", "rubbish").unwrap_err().is(libc::EINVAL));
            assert!(sysctl::write("net.ipv4.no_such_setting", "1").unwrap_err().is(libc::ENOENT));
        })
        .unwrap();
    assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), outside);
}

#[test]
fn the_bpf_filesystem_is_mounted_and_unmounted() {
    root_only!("the_bpf_filesystem_is_mounted_and_unmounted");
    trial::in_new_mounts(|dir| {
        assert!(!mounts::is_bpffs(dir).unwrap());
        let target = dir.join("bpf with a space");
        std::fs::create_dir(&target).unwrap();
        mounts::mount_bpffs(&target).unwrap();
        assert!(mounts::is_bpffs(&target).unwrap());
        let listed = mounts::list().unwrap();
        assert!(listed.iter().any(|mount| mount.fs_type == "bpf" && mount.target == target), "{listed:?}");
        mounts::unmount(&target).unwrap();
        assert!(!mounts::is_bpffs(&target).unwrap());
        assert!(mounts::unmount(&target).unwrap_err().is(libc::EINVAL));
        assert!(mounts::is_bpffs(dir.join("absent")).unwrap_err().is(libc::ENOENT));
    })
    .unwrap();
}
