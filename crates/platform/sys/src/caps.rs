//! Capabilities of the calling thread. Source: `capabilities(7)`.

use crate::OsError;
use crate::call::check;

/// The capabilities that matter here, by their bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // reason: the kernel's names, see capabilities(7)
pub enum Cap {
    Kill = 5,
    NetBindService = 10,
    NetAdmin = 12,
    NetRaw = 13,
    IpcLock = 14,
    SysPtrace = 19,
    SysAdmin = 21,
    SysNice = 23,
    SysResource = 24,
    Perfmon = 38,
    Bpf = 39,
}

impl Cap {
    /// All that this crate names.
    pub const ALL: [Cap; 11] = [
        Cap::Kill,
        Cap::NetBindService,
        Cap::NetAdmin,
        Cap::NetRaw,
        Cap::IpcLock,
        Cap::SysPtrace,
        Cap::SysAdmin,
        Cap::SysNice,
        Cap::SysResource,
        Cap::Perfmon,
        Cap::Bpf,
    ];

    /// The kernel's name, `CAP_NET_ADMIN`.
    pub fn name(self) -> &'static str {
        match self {
            Cap::Kill => "CAP_KILL",
            Cap::NetBindService => "CAP_NET_BIND_SERVICE",
            Cap::NetAdmin => "CAP_NET_ADMIN",
            Cap::NetRaw => "CAP_NET_RAW",
            Cap::IpcLock => "CAP_IPC_LOCK",
            Cap::SysPtrace => "CAP_SYS_PTRACE",
            Cap::SysAdmin => "CAP_SYS_ADMIN",
            Cap::SysNice => "CAP_SYS_NICE",
            Cap::SysResource => "CAP_SYS_RESOURCE",
            Cap::Perfmon => "CAP_PERFMON",
            Cap::Bpf => "CAP_BPF",
        }
    }
}

/// Sets of capabilities, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Those in force.
    pub effective: u64,
    /// Those that can be put in force.
    pub permitted: u64,
    /// Those kept over an exec of a file that has them too.
    pub inheritable: u64,
}

impl Capabilities {
    /// Is it in force?
    pub fn has(&self, cap: Cap) -> bool {
        self.effective & (1 << cap as u8) != 0
    }
}

/// The capabilities of the calling thread.
pub fn own() -> Result<Capabilities, OsError> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: both pointers are to live values of the layout that version 3 prescribes (two data words).
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(ret as i32, || "read own capabilities".into())?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Capabilities {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_and_proc_agree() {
        let status = crate::procfs::Process::own().status().unwrap();
        let own = own().unwrap();
        assert_eq!((own.effective, own.permitted), (status.cap_effective, status.cap_permitted));
        for cap in Cap::ALL {
            assert_eq!(own.has(cap), status.cap_effective >> (cap as u8) & 1 == 1, "{}", cap.name());
        }
    }
}
