//! Tries facilities of the kernel by using them on inert objects, so that a program can say what this
//! host offers without guessing from version numbers.
//!
//! Nothing outlives a trial: each runs in a thread (or a forked child) of its own, where needed
//! in a mount namespace of its own on a tmpfs that only that thread sees. A restriction that cannot be taken back (seccomp, landlock) dies
//! with its thread. Every wait has an end ([`WAIT_MS`]).

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::OsError;
use crate::call::{c_path, check, own};

/// How long a trial waits for the kernel's event before it says that none came.
pub const WAIT_MS: i32 = 300;

/// Runs `work` in a new thread with a mount namespace of its own, giving it an empty tmpfs that only this thread
/// (and the threads and children it starts) can see. The mounts end with the thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOENT` when none of the usual directories exists to mount on.
pub fn in_new_mounts<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> Result<T, OsError> {
    in_thread(|| {
        // SAFETY: unshare takes plain flags; CLONE_NEWNS and the CLONE_FS it implies change only the calling thread.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) }, || "make a mount namespace".into())?;
        mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, "")?;
        let place = ["/mnt", "/srv", "/tmp", "/var", "/run"].iter().map(Path::new).find(|p| p.is_dir());
        let place = place.ok_or_else(|| OsError::new("find a directory to mount on", libc::ENOENT))?;
        mount(Some("tmpfs"), place, Some("tmpfs"), 0, "size=1m,mode=700")?;
        Ok(work(place))
    })
}

/// Denies the opening of one file below `dir` by a fanotify permission event.
///
/// # Errors
/// The kernel's refusal; `ETIMEDOUT` when the event did not come; `EBADE` when the open went through all the same.
pub fn fanotify_open(dir: &Path) -> Result<(), OsError> {
    let file = dir.join("trial-open");
    write(&file, b"inert", 0o600)?;
    let group = Fanotify::new()?;
    group.mark(0, libc::FAN_OPEN_PERM, &file)?;
    denied_open(&group, file)
}

/// Denies the execution of one script below `dir` by a fanotify permission event.
///
/// # Errors
/// As [`fanotify_open`].
pub fn fanotify_exec(dir: &Path) -> Result<(), OsError> {
    let file = dir.join("trial-exec");
    write(&file, b"#!/bin/true\n", 0o700)?;
    let group = Fanotify::new()?;
    group.mark(0, libc::FAN_OPEN_EXEC_PERM, &file)?;
    let started =
        thread::spawn(move || Command::new(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop));
    group.deny_next("an exec", started)
}

/// One mark on a filesystem denies the opening of a file through an overlay above it, as container engines use them
/// (kernels from about 6.8; before that each overlay must be marked).
///
/// # Errors
/// As [`fanotify_open`]; `ETIMEDOUT` is the answer of older kernels.
pub fn fanotify_below_overlay(dir: &Path) -> Result<(), OsError> {
    let [lower, upper, work, merged] = ["l", "u", "w", "m"].map(|d| dir.join(d));
    for d in [&lower, &upper, &work, &merged] {
        fs::create_dir(d).map_err(|e| OsError::io(format!("make {}", d.display()), &e))?;
    }
    write(&lower.join("f"), b"inert", 0o600)?;
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), &merged, Some("overlay"), 0, &options)?;
    let group = Fanotify::new()?;
    group.mark(libc::FAN_MARK_FILESYSTEM, libc::FAN_OPEN_PERM, &lower)?;
    denied_open(&group, merged.join("f"))
}

/// Filters one system call of a thread of its own with seccomp; gives whether user notification is there too.
///
/// # Errors
/// The kernel's refusal; `EBADE` when the filter did not act.
pub fn seccomp() -> Result<bool, OsError> {
    const MARK: u32 = 123; // ENOMEDIUM: no getppid ever answers it
    in_thread(|| {
        no_new_privileges()?;
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // seccomp_data.nr
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_getppid as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | MARK),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the program outlives the call; the kernel copies it. It binds this thread only, which ends below.
        let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
        check(ret as i32, || "set a seccomp filter".into())?;
        // SAFETY: getppid takes nothing and touches no memory.
        let ret = unsafe { libc::syscall(libc::SYS_getppid) };
        let error = OsError::last("call getppid below the filter");
        if ret != -1 || !error.is(MARK as i32) {
            return Err(OsError::new("see the seccomp filter act", libc::EBADE));
        }
        let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
        // SAFETY: the kernel reads four bytes from a live u32.
        let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
        Ok(ret == 0)
    })
}

/// Forbids a thread of its own to read files with landlock; gives the kernel's landlock ABI number.
///
/// # Errors
/// The kernel's refusal (`ENOSYS`, `EOPNOTSUPP`); `EBADE` when the file could be read all the same.
pub fn landlock() -> Result<u32, OsError> {
    const VERSION: u32 = 1; // LANDLOCK_CREATE_RULESET_VERSION, linux/landlock.h
    const READ_FILE: u64 = 1 << 2; // LANDLOCK_ACCESS_FS_READ_FILE
    in_thread(|| {
        // SAFETY: with this flag the kernel wants a null pointer and size 0 and returns a number.
        let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u64>(), 0usize, VERSION) };
        let abi = check(abi as i32, || "ask for landlock's version".into())?;
        let handled: u64 = READ_FILE; // struct landlock_ruleset_attr of ABI 1: one u64
        // SAFETY: the kernel reads eight bytes from a live u64 and gives a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0) };
        // SAFETY: straight from the system call above.
        let ruleset = unsafe { own(fd as i32, || "make a landlock ruleset".into()) }?;
        no_new_privileges()?;
        // SAFETY: plain numbers. It binds this thread only, which ends below.
        let ret = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        check(ret as i32, || "enter the landlock ruleset".into())?;
        match File::open("/proc/self/status") {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(abi as u32),
            _ => Err(OsError::new("see landlock act", libc::EBADE)),
        }
    })
}

/// Makes a user namespace in a forked child.
///
/// # Errors
/// The kernel's refusal, as the child met it.
pub fn user_namespace() -> Result<(), OsError> {
    // A process with threads cannot enter a user namespace (EINVAL), hence the child.
    // SAFETY: between fork and _exit the child calls only unshare and _exit, both async-signal-safe.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above; errno is read through libc's thread-local, which fork keeps valid.
        unsafe {
            let code = if libc::unshare(libc::CLONE_NEWUSER) == 0 { 0 } else { *libc::__errno_location() };
            libc::_exit(code);
        }
    }
    let pid = check(pid, || "fork".into())?;
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live i32; pid is our own child.
        let ret = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if ret == pid {
            break;
        }
        let error = OsError::last("wait for the child");
        if !error.is(libc::EINTR) {
            return Err(error);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(OsError::new("make a user namespace", errno)),
        (false, _) => Err(OsError::new("make a user namespace", libc::ECHILD)),
    }
}

/// Asks for the connection tracking table of the calling thread's network namespace over netlink.
///
/// # Errors
/// The kernel's refusal: `EINVAL` or `EPROTONOSUPPORT` where conntrack's netlink is not there.
pub fn conntrack() -> Result<(), OsError> {
    const CTNETLINK_GET: u16 = (1 << 8) | 1; // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) };
    // SAFETY: straight from the system call above.
    let socket = unsafe { own(fd, || "open a netfilter netlink socket".into()) }?;
    let mut message = Vec::with_capacity(20);
    message.extend_from_slice(&20u32.to_ne_bytes());
    message.extend_from_slice(&CTNETLINK_GET.to_ne_bytes());
    message.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence, port
    message.extend_from_slice(&[libc::AF_INET as u8, 0, 0, 0]); // nfgenmsg
    // SAFETY: pointer and length are those of a live vector.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    check(sent, || "ask for the conntrack table".into())?;
    readable(&socket, "the conntrack table")?;
    let mut answer = [0u8; 8192];
    // SAFETY: the kernel writes at most the array's length.
    let n = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let n = check(n, || "read the conntrack table".into())? as usize;
    let kind = answer.get(4..6).filter(|_| n >= 16).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    match kind.map(i32::from) {
        Some(libc::NLMSG_ERROR) if n >= 20 => {
            let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]).saturating_neg();
            if errno == 0 { Ok(()) } else { Err(OsError::new("list the conntrack table", errno)) }
        }
        Some(_) => Ok(()),
        None => Err(OsError::new("understand the conntrack answer", libc::EPROTO)),
    }
}

// === helpers

/// Runs `work` in a thread of its own and waits for it.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, OsError> + Send) -> Result<T, OsError> {
    thread::scope(|s| s.spawn(work).join()).unwrap_or_else(|_| Err(OsError::new("finish the trial: it panicked", libc::ECANCELED)))
}

fn no_new_privileges() -> Result<(), OsError> {
    // SAFETY: plain numbers; binds the calling thread only.
    let ret = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(ret, || "give up new privileges".into()).map(drop)
}

fn mount(source: Option<&str>, target: &Path, kind: Option<&str>, flags: libc::c_ulong, options: &str) -> Result<(), OsError> {
    let text = |s: &str| c_path(Path::new(s));
    let (source, kind) = (source.map(text).transpose()?, kind.map(text).transpose()?);
    let (target_c, options) = (c_path(target)?, text(options)?);
    let pointer = |s: &Option<CString>| s.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
    // SAFETY: all pointers are null or to live NUL-terminated strings.
    let ret = unsafe { libc::mount(pointer(&source), target_c.as_ptr(), pointer(&kind), flags, options.as_ptr().cast()) };
    check(ret, || format!("mount on {}", target.display())).map(drop)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), OsError> {
    let told = |e: &std::io::Error| OsError::io(format!("write {}", path.display()), e);
    fs::write(path, bytes).map_err(|e| told(&e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| told(&e))
}

fn readable(fd: &OwnedFd, what: &str) -> Result<(), OsError> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    match check(unsafe { libc::poll(&raw mut poll, 1, WAIT_MS) }, || format!("wait for {what}"))? {
        0 => Err(OsError::new(format!("see {what}"), libc::ETIMEDOUT)),
        _ => Ok(()),
    }
}

fn denied_open(group: &Fanotify, file: PathBuf) -> Result<(), OsError> {
    let opened = thread::spawn(move || File::open(file).and_then(|mut f| f.read(&mut [0; 8])).map(drop));
    group.deny_next("an open", opened)
}

/// A fanotify group of the class that may answer permission events. Closing it lets all waiters go.
struct Fanotify(OwnedFd);

impl Fanotify {
    fn new() -> Result<Self, OsError> {
        let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // SAFETY: plain numbers.
        let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as u32) };
        // SAFETY: straight from the system call above.
        unsafe { own(fd, || "open a fanotify permission group".into()) }.map(Self)
    }

    fn mark(&self, flags: u32, mask: u64, path: &Path) -> Result<(), OsError> {
        let c = CString::new(path.as_os_str().as_bytes()).map_err(|_| OsError::new("mark a path with a NUL", libc::EINVAL))?;
        // SAFETY: the path is a live NUL-terminated string.
        let ret = unsafe { libc::fanotify_mark(self.0.as_raw_fd(), libc::FAN_MARK_ADD | flags, mask, libc::AT_FDCWD, c.as_ptr()) };
        check(ret, || format!("mark {} for fanotify", path.display())).map(drop)
    }

    /// Waits for one event, answers "deny", and makes sure that `actor` was refused.
    fn deny_next(&self, what: &str, actor: thread::JoinHandle<std::io::Result<()>>) -> Result<(), OsError> {
        readable(&self.0, &format!("{what} event")).and_then(|()| self.deny())?; // on an error the closing group lets the actor go
        match actor.join() {
            Ok(Err(e)) if e.raw_os_error() == Some(libc::EPERM) => Ok(()),
            _ => Err(OsError::new(format!("see {what} refused"), libc::EBADE)),
        }
    }

    fn deny(&self) -> Result<(), OsError> {
        // struct fanotify_event_metadata: event_len u32, vers u8, reserved u8, metadata_len u16, mask u64, fd i32, pid i32
        let mut event = [0u8; 24];
        // SAFETY: the kernel writes at most the array's length.
        let n = unsafe { libc::read(self.0.as_raw_fd(), event.as_mut_ptr().cast(), event.len()) };
        if check(n, || "read a fanotify event".into())? != 24 {
            return Err(OsError::new("understand a fanotify event", libc::EPROTO));
        }
        let fd = i32::from_ne_bytes([event[16], event[17], event[18], event[19]]);
        if fd < 0 {
            return Err(OsError::new("understand a fanotify event", libc::EPROTO));
        }
        // SAFETY: the kernel has just opened this descriptor for us.
        let subject = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut answer = [0u8; 8]; // struct fanotify_response: fd i32, response u32
        answer[..4].copy_from_slice(&subject.as_raw_fd().to_ne_bytes());
        answer[4..].copy_from_slice(&libc::FAN_DENY.to_ne_bytes());
        // SAFETY: pointer and length are those of a live array.
        let n = unsafe { libc::write(self.0.as_raw_fd(), answer.as_ptr().cast(), answer.len()) };
        check(n, || "answer a fanotify event".into()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_in_new_mounts_leaves_the_callers_as_they_were() {
        let ns = |kind: &str| fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("own namespaces are readable");
        let before = ns("mnt");
        match in_new_mounts(|dir| (ns("mnt"), fs::read_dir(dir).expect("the tmpfs is readable").count())) {
            Ok((inside, files)) => {
                assert_ne!(inside, before);
                assert_eq!(files, 0, "the trial's directory starts empty");
            }
            Err(e) if e.is(libc::EPERM) => println!("NOT RUN: a_trial_in_new_mounts (needs root): {e}"),
            Err(e) => panic!("{e}"),
        }
        assert_eq!(ns("mnt"), before);
    }

    #[test]
    fn restrictions_of_a_trial_die_with_its_thread() {
        // Each may be refused by this kernel; what matters is that this thread is free afterwards.
        let told = (seccomp().map_err(|e| e.errno.0), landlock().map_err(|e| e.errno.0));
        println!("seccomp {:?}, landlock {:?}", told.0, told.1);
        assert!(File::open("/proc/self/status").is_ok());
        let ppid = fs::read_to_string("/proc/self/status").expect("readable");
        assert!(ppid.lines().any(|l| l.starts_with("NoNewPrivs:\t0")) || told.0.is_err());
    }

    #[test]
    fn a_trial_that_gets_no_event_says_so_and_lets_the_opener_go() {
        let result = in_new_mounts(|dir| {
            let file = dir.join("unmarked");
            write(&file, b"x", 0o600).expect("own tmpfs");
            let group = match Fanotify::new() {
                Ok(group) => group,
                Err(e) => return Some(e),
            };
            denied_open(&group, file).err()
        });
        match result {
            Ok(Some(e)) if e.is(libc::ETIMEDOUT) => {}
            Ok(Some(e)) | Err(e) if e.is(libc::EPERM) || e.is(libc::ENOSYS) => println!("NOT RUN: fanotify trial: {e}"),
            other => panic!("{other:?}"),
        }
    }
}
