//! The few shapes that all system calls of this crate share.

use crate::OsError;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns the kernel's `-1` into the error with what was being done.
pub(crate) fn check<N: Returned>(ret: N, doing: impl FnOnce() -> String) -> Result<N, OsError> {
    if ret.failed() { Err(OsError::last(doing())) } else { Ok(ret) }
}

/// Takes ownership of a descriptor that a system call has just returned.
///
/// # Safety
/// `fd` must come straight from a system call that made it for the caller, so that nobody else owns it.
pub(crate) unsafe fn own(fd: RawFd, doing: impl FnOnce() -> String) -> Result<OwnedFd, OsError> {
    let fd = check(fd, doing)?;
    // SAFETY: by the contract above the descriptor is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The return types of libc's wrappers.
pub(crate) trait Returned: Copy {
    fn failed(self) -> bool;
}

impl Returned for i32 {
    fn failed(self) -> bool {
        self < 0
    }
}

impl Returned for isize {
    fn failed(self) -> bool {
        self < 0
    }
}

/// A path for the kernel; a NUL inside is the caller's mistake, told as `EINVAL`.
pub(crate) fn c_path(path: &Path) -> Result<CString, OsError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| OsError::new(format!("use path {path:?} with a NUL in it"), libc::EINVAL))
}

/// Sets a socket option whose value is a plain integer.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32, name: &str) -> Result<(), OsError> {
    // SAFETY: the pointer is to a live i32 and the length is its size; the kernel only reads it.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<i32>() as libc::socklen_t) };
    check(ret, || format!("set socket option {name} to {value}")).map(drop)
}

/// Reads a small file, at most `max` bytes; a longer one is `EFBIG`. Files below `/proc` have no size to ask for.
pub(crate) fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, OsError> {
    let doing = || format!("read {}", path.display());
    let file = File::open(path).map_err(|e| OsError::io(doing(), &e))?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|e| OsError::io(doing(), &e))?;
    if bytes.len() > max { Err(OsError::new(format!("read more than {max} bytes of {}", path.display()), libc::EFBIG)) } else { Ok(bytes) }
}

/// Microseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_usec() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec that the kernel fills.
    let ret = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    if ret != 0 {
        return 0; // this clock is always there
    }
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}
