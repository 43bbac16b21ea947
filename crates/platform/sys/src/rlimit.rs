//! Limits of this process. Source: `getrlimit(2)`.

use crate::OsError;
use crate::call::check;

/// A limit that can be asked for and set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Open descriptors.
    OpenFiles,
    /// Locked memory, bytes; BPF maps count here before Linux 5.11.
    LockedMemory,
    /// Size of a core file, bytes.
    CoreFile,
    /// Address space, bytes.
    AddressSpace,
}

/// Soft and hard value; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// What holds now.
    pub soft: Option<u64>,
    /// What `soft` can be raised to.
    pub hard: Option<u64>,
}

impl Limit {
    /// The values in force.
    pub fn read(self) -> Result<Value, OsError> {
        let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live rlimit that the kernel fills.
        check(unsafe { libc::getrlimit(self.resource(), &raw mut raw) }, || format!("read limit {self:?}"))?;
        Ok(Value { soft: finite(raw.rlim_cur), hard: finite(raw.rlim_max) })
    }

    /// Sets the values; raising `hard` needs `CAP_SYS_RESOURCE`. Returns what was before.
    pub fn write(self, value: Value) -> Result<Value, OsError> {
        let before = self.read()?;
        let raw = libc::rlimit { rlim_cur: value.soft.unwrap_or(libc::RLIM_INFINITY), rlim_max: value.hard.unwrap_or(libc::RLIM_INFINITY) };
        // SAFETY: the pointer is to a live rlimit that the kernel only reads.
        check(unsafe { libc::setrlimit(self.resource(), &raw const raw) }, || format!("set limit {self:?}"))?;
        Ok(before)
    }

    /// Raises the soft value to the hard one. Returns what was before.
    pub fn raise(self) -> Result<Value, OsError> {
        let hard = self.read()?.hard;
        self.write(Value { soft: hard, hard })
    }

    fn resource(self) -> libc::__rlimit_resource_t {
        match self {
            Limit::OpenFiles => libc::RLIMIT_NOFILE,
            Limit::LockedMemory => libc::RLIMIT_MEMLOCK,
            Limit::CoreFile => libc::RLIMIT_CORE,
            Limit::AddressSpace => libc::RLIMIT_AS,
        }
    }
}

fn finite(value: libc::rlim_t) -> Option<u64> {
    if value == libc::RLIM_INFINITY { None } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_can_be_set_and_put_back() {
        let before = Limit::CoreFile.read().unwrap();
        let lowered = Value { soft: Some(0), hard: before.hard };
        assert_eq!(Limit::CoreFile.write(lowered).unwrap(), before);
        assert_eq!(Limit::CoreFile.read().unwrap(), lowered);
        assert_eq!(Limit::CoreFile.write(before).unwrap(), lowered);
    }

    #[test]
    fn raising_reaches_the_hard_value() {
        Limit::OpenFiles.raise().unwrap();
        let now = Limit::OpenFiles.read().unwrap();
        assert_eq!(now.soft, now.hard);
    }
}
