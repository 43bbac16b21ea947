//! Network namespaces: open, make, list, and run code inside one.
//!
//! A namespace is an inode of the `nsfs` filesystem; it lives as long as a process, an open
//! descriptor or a bind mount holds it. Code runs in a namespace by [`run_in`], on a short-lived
//! thread of its own: the caller's thread never changes. Inside, `/proc/sys/net` follows the
//! thread, but `/proc/net` and `/proc/self` follow the process: use `/proc/thread-self/net`.
//! Source: `namespaces(7)`, `setns(2)`, `ip-netns(8)`.

use crate::OsError;
use crate::call::{c_path, check};
use crate::mounts;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its named namespaces.
pub const NAMED_DIR: &str = "/run/netns";
/// Namespaces that [`list`] tells of; further ones are counted.
pub const NAMESPACES_MAX: usize = 65_536;
/// Processes that [`list`] names for each namespace; further ones are counted.
pub const PIDS_PER_NAMESPACE_MAX: usize = 256;
/// `NSFS_MAGIC` (include/uapi/linux/magic.h).
const NSFS_MAGIC: libc::__fsword_t = 0x6e73_6673;

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    inode: u64,
}

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, OsError> {
        Netns::open_path("/proc/thread-self/ns/net")
    }

    /// The namespace of the process `pid`; needs `CAP_SYS_PTRACE` over it.
    pub fn open_pid(pid: u32) -> Result<Self, OsError> {
        Netns::open_path(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace that `ip netns` knows as `name`.
    pub fn open_named(name: &str) -> Result<Self, OsError> {
        Netns::open_path(named_path(name)?)
    }

    /// The namespace that `path` is a link to or a bind mount of; `EINVAL` when it is something else.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, OsError> {
        let path = path.as_ref();
        let doing = || format!("open network namespace {}", path.display());
        // A FIFO or device planted at the path must not hold us up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| OsError::io(doing(), &e))?;
        Netns::from_fd(file.into()).map_err(|e| OsError { doing: doing(), errno: e.errno })
    }

    /// Takes a descriptor that was got elsewhere; `EINVAL` when it is not a network namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, OsError> {
        let doing = || "use a descriptor as network namespace".to_owned();
        if !is_netns(fd.as_fd())? {
            return Err(OsError::new(doing(), libc::EINVAL));
        }
        let file = File::from(fd);
        let inode = file.metadata().map_err(|e| OsError::io(doing(), &e))?.ino();
        Ok(Netns { fd: file.into(), inode })
    }

    /// A new namespace without name or process, which lives as long as this value and its links do.
    /// Its loopback is down.
    pub fn create() -> Result<Self, OsError> {
        on_own_thread(|| {
            unshare()?;
            Netns::current()
        })?
    }

    /// The inode: the number in `net:[4026531840]`. Unique among the namespaces that live.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Another descriptor of the same namespace.
    pub fn try_clone(&self) -> Result<Self, OsError> {
        let fd = self.fd.try_clone().map_err(|e| OsError::io("duplicate a network namespace's descriptor", &e))?;
        Ok(Netns { fd, inode: self.inode })
    }

    /// Runs `f` in this namespace; see [`run_in`].
    pub fn run<T: Send, F: FnOnce() -> T + Send>(&self, f: F) -> Result<T, OsError> {
        run_in(self, f)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `f` in the namespace `netns` on a short-lived thread and returns what it returned. A panic
/// of `f` goes on in the caller. Sockets and processes that `f` makes stay in that namespace.
pub fn run_in<T: Send, F: FnOnce() -> T + Send>(netns: impl AsFd, f: F) -> Result<T, OsError> {
    let fd = netns.as_fd();
    on_own_thread(move || {
        // SAFETY: no pointers; the descriptor is borrowed for the whole call. It changes only this thread.
        check(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) }, || "enter a network namespace".into())?;
        Ok(f())
    })?
}

/// A namespace with a name, as `ip netns add` makes it, except that `/run/netns` is not turned into
/// a mount of its own. It outlives this value; remove it by [`delete_named`].
pub fn create_named(name: &str) -> Result<Netns, OsError> {
    let path = named_path(name)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(NAMED_DIR)
        .map_err(|e| OsError::io(format!("make directory {NAMED_DIR}"), &e))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o000)
        .open(&path)
        .map_err(|e| OsError::io(format!("make {}", path.display()), &e))?;
    let made = on_own_thread(|| {
        unshare()?;
        mounts::bind(Path::new("/proc/thread-self/ns/net"), &path)?;
        Netns::current()
    })
    .and_then(|inner| inner);
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    made
}

/// Removes a named namespace; it goes on living while processes or descriptors are in it.
pub fn delete_named(name: &str) -> Result<(), OsError> {
    let path = named_path(name)?;
    match mounts::unmount(&path) {
        // Nothing mounted there: a leftover of a maker that died between its two steps.
        Err(error) if error.is(libc::EINVAL) => {}
        other => other?,
    }
    fs::remove_file(&path).map_err(|e| OsError::io(format!("remove {}", path.display()), &e))
}

/// One network namespace of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Its inode.
    pub inode: u64,
    /// Processes inside, in ascending order, the first [`PIDS_PER_NAMESPACE_MAX`].
    pub pids: Vec<u32>,
    /// How many processes are inside.
    pub pid_count: usize,
    /// Bind mounts that hold it.
    pub paths: Vec<PathBuf>,
}

impl Listed {
    /// Opens it through the first process or bind mount that still leads to it.
    pub fn open(&self) -> Result<Netns, OsError> {
        let by_pid = self.pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        for path in by_pid.chain(self.paths.iter().cloned()) {
            match Netns::open_path(&path) {
                // The process may have ended and its pid been given to another.
                Ok(netns) if netns.inode == self.inode => return Ok(netns),
                Ok(_) | Err(_) => {}
            }
        }
        Err(OsError::new(format!("open network namespace {}", self.inode), libc::ESRCH))
    }
}

/// What [`list`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The namespaces by ascending inode.
    pub namespaces: Vec<Listed>,
    /// Processes whose namespace could not be read: ended meanwhile, or out of our reach.
    pub unreadable: usize,
    /// Processes and mounts of namespaces beyond [`NAMESPACES_MAX`].
    pub beyond_cap: usize,
}

/// All network namespaces that a process is in or a bind mount of this mount namespace holds
/// (`/run/netns`, `/run/docker/netns` and wherever else). A namespace that only a thread, a socket or an
/// open descriptor holds is not found.
pub fn list() -> Result<Listing, OsError> {
    let mut found: BTreeMap<u64, Listed> = BTreeMap::new();
    let mut listing = Listing::default();
    let mut entry = |inode: u64, beyond_cap: &mut usize, add: &mut dyn FnMut(&mut Listed)| {
        if found.len() < NAMESPACES_MAX || found.contains_key(&inode) {
            add(found.entry(inode).or_insert_with(|| Listed { inode, ..Listed::default() }));
        } else {
            *beyond_cap += 1;
        }
    };
    for pid in crate::procfs::pids()? {
        let target = fs::read_link(format!("/proc/{pid}/ns/net"));
        match target.ok().as_deref().and_then(Path::to_str).and_then(inode_of_link) {
            Some(inode) => entry(inode, &mut listing.beyond_cap, &mut |listed| {
                listed.pid_count += 1;
                if listed.pids.len() < PIDS_PER_NAMESPACE_MAX {
                    listed.pids.push(pid);
                }
            }),
            None => listing.unreadable += 1,
        }
    }
    for mount in mounts::list()? {
        if mount.fs_type == "nsfs"
            && let Some(inode) = inode_of_link(&mount.root)
        {
            entry(inode, &mut listing.beyond_cap, &mut |listed| listed.paths.push(mount.target.clone()));
        }
    }
    listing.namespaces = found.into_values().collect();
    Ok(listing)
}

/// The inode in `net:[4026531840]`.
fn inode_of_link(target: &str) -> Option<u64> {
    target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Is this a network namespace and not another kind, or another file?
fn is_netns(fd: BorrowedFd<'_>) -> Result<bool, OsError> {
    // SAFETY: all-zero is a valid statfs, the pointer is to a live one.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live statfs that the kernel fills.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut stat) }, || "look at a namespace's descriptor".into())?;
    if stat.f_type != NSFS_MAGIC {
        return Ok(false);
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and returns the CLONE_NEW… flag (Linux 4.11).
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    Ok(kind == libc::CLONE_NEWNET)
}

/// `_IO(0xb7, 0x3)` (include/uapi/linux/nsfs.h).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

fn unshare() -> Result<(), OsError> {
    // SAFETY: no pointers; it changes only the calling thread, which is our own short-lived one.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }, || "make a network namespace".into()).map(drop)
}

/// Runs `f` on a thread that ends with it, so that no thread stays in a namespace by mistake.
fn on_own_thread<T: Send, F: FnOnce() -> T + Send>(f: F) -> Result<T, OsError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)
            .map_err(|e| OsError::io("start a thread for a network namespace", &e))?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

fn named_path(name: &str) -> Result<PathBuf, OsError> {
    let sound = !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0']);
    let path = Path::new(NAMED_DIR).join(name);
    if sound {
        c_path(&path)?;
        Ok(path)
    } else {
        Err(OsError::new(format!("use `{}` as a namespace's name", name.escape_debug()), libc::EINVAL))
    }
}
