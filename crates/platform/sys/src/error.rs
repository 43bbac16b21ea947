//! The error of a failed system call: its number and what was being done.

use std::fmt;

/// An error number of the kernel (`errno(3)`), positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The error number that the last system call of this thread left.
    pub fn last() -> Self {
        Errno::of(&std::io::Error::last_os_error())
    }

    /// The error number inside an `io::Error`; `EIO` for errors that the standard library made up.
    pub fn of(error: &std::io::Error) -> Self {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // std's text is `strerror(3)` followed by ` (os error N)`.
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {doing}: {errno}")]
pub struct OsError {
    /// What was being done, as the end of the sentence "cannot …", with the object's name.
    pub doing: String,
    /// The kernel's reason.
    pub errno: Errno,
}

impl OsError {
    /// An error with a known number.
    pub fn new(doing: impl Into<String>, errno: i32) -> Self {
        OsError { doing: doing.into(), errno: Errno(errno) }
    }

    /// An error with the number that the last system call of this thread left.
    pub fn last(doing: impl Into<String>) -> Self {
        OsError { doing: doing.into(), errno: Errno::last() }
    }

    /// An error out of the standard library's IO.
    pub fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        OsError { doing: doing.into(), errno: Errno::of(error) }
    }

    /// Is the reason this error number (`libc::E…`)?
    pub fn is(&self, errno: i32) -> bool {
        self.errno.0 == errno
    }
}
