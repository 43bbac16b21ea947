use crate::root_only;
use bulkhead_sys::netlink::Netlink;
use bulkhead_sys::netns::{self, Netns};
use bulkhead_sys::procfs::Process;
use std::process::{Child, Command};

/// Removes the name and ends the process on every way out.
struct Cleanup(&'static str, Option<Child>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = netns::delete_named(self.0);
        if let Some(child) = &mut self.1 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn code_in_a_namespace_sees_only_it_and_the_caller_stays() {
    root_only!("code_in_a_namespace_sees_only_it_and_the_caller_stays");
    let before = Netns::current().unwrap().inode();
    let netns = Netns::create().unwrap();
    assert_ne!(netns.inode(), before);
    let mut words = vec!["borrowed"];
    let inside = netns
        .run(|| {
            words.push("changed");
            Netns::current().unwrap().inode()
        })
        .unwrap();
    assert_eq!(inside, netns.inode());
    assert_eq!(Netns::current().unwrap().inode(), before);
    assert_eq!(words, ["borrowed", "changed"]);
    let links = Netlink::open_in(&netns).unwrap().links().unwrap();
    assert!(matches!(links.as_slice(), [only] if only.loopback && !only.up), "{links:?}");
    assert_eq!(netns.try_clone().unwrap().inode(), netns.inode());
}

#[test]
fn a_panic_inside_goes_on_in_the_caller() {
    root_only!("a_panic_inside_goes_on_in_the_caller");
    let netns = Netns::create().unwrap();
    let panic = std::panic::catch_unwind(|| netns.run(|| panic!("inside"))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"inside"));
}

#[test]
fn only_network_namespaces_are_taken_for_one() {
    root_only!("only_network_namespaces_are_taken_for_one");
    for path in ["/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/status", "/dev/null", "/"] {
        let error = Netns::open_path(path).unwrap_err();
        assert!(error.is(libc::EINVAL), "{error}");
    }
    assert!(Netns::open_path("/nonexistent").unwrap_err().is(libc::ENOENT));
    assert!(Netns::open_pid(u32::MAX).unwrap_err().is(libc::ENOENT));
    assert_eq!(Netns::open_pid(std::process::id()).unwrap().inode(), Process::own().netns_inode().unwrap());
}

#[test]
fn a_named_namespace_is_listed_by_its_mount_and_its_processes() {
    root_only!("a_named_namespace_is_listed_by_its_mount_and_its_processes");
    let name: &'static str = format!("bulkhead-sys-{}", std::process::id()).leak();
    let mut cleanup = Cleanup(name, None);
    let made = netns::create_named(name).unwrap();
    assert_eq!(Netns::open_named(name).unwrap().inode(), made.inode());
    assert!(netns::create_named(name).unwrap_err().is(libc::EEXIST));
    // `ip netns` knows it too.
    let output = Command::new("ip").args(["netns", "exec", name, "readlink", "/proc/self/ns/net"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("net:[{}]", made.inode()));

    let child = made.run(|| Command::new("sleep").arg("60").spawn().unwrap()).unwrap();
    let pid = child.id();
    cleanup.1 = Some(child);
    let listing = netns::list().unwrap();
    let own = listing.namespaces.iter().find(|listed| listed.inode == made.inode()).unwrap();
    assert_eq!((own.pids.as_slice(), own.pid_count), ([pid].as_slice(), 1));
    assert!(own.paths.iter().any(|path| path.ends_with(name)), "{own:?}");
    assert_eq!(own.open().unwrap().inode(), made.inode());
    let host = listing.namespaces.iter().find(|listed| listed.inode == Netns::current().unwrap().inode()).unwrap();
    assert!(host.pids.contains(&std::process::id()));
    assert_eq!(listing.beyond_cap, 0);

    netns::delete_named(name).unwrap();
    assert!(Netns::open_named(name).unwrap_err().is(libc::ENOENT));
    // The process keeps it alive, and it is found through that.
    let listing = netns::list().unwrap();
    let own = listing.namespaces.iter().find(|listed| listed.inode == made.inode()).unwrap();
    assert_eq!((own.pids.as_slice(), own.paths.len()), ([pid].as_slice(), 0));
    drop(cleanup);
    assert!(own.open().unwrap_err().is(libc::ESRCH));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for name in ["", ".", "..", "a/b", "../x", "a\0b"] {
        assert!(netns::create_named(name).unwrap_err().is(libc::EINVAL), "{name:?}");
        assert!(netns::delete_named(name).unwrap_err().is(libc::EINVAL), "{name:?}");
        assert!(Netns::open_named(name).unwrap_err().is(libc::EINVAL), "{name:?}");
    }
}
