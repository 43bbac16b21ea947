//! Tells which hooks this kernel has, by loading a program of each kind and, where that is harmless, attaching it.
//! `/sys/kernel/security/lsm` and kernel versions lie; a refused program does not.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::path::attach_tcx;

pub type Probe = std::result::Result<(), String>;

/// tcx on the loopback interface of the calling thread's namespace (call it in a throw-away one), attached and taken off again.
pub fn tcx() -> Probe {
    let mut open = libbpf_rs::ObjectBuilder::default().open_memory(OBJECT).map_err(|e| e.to_string())?;
    for mut program in open.progs_mut() {
        let wanted = program.name() == "bh_return";
        program.set_autoload(wanted);
    }
    let object = open.load().map_err(|e| e.to_string())?;
    let program = object.progs().find(|p| p.name() == "bh_return").ok_or("no program in the object")?;
    attach_tcx(&program, 1, true).map(drop).map_err(|e| e.to_string())
}
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/net_path.o"));

/// The netfilter program type (used by the guard): loaded, not attached.
pub fn netfilter() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_NETFILTER, libbpf_sys::BPF_NETFILTER, None, 1)
}

/// Socket filter, the type that steers TAP queues.
pub fn socket_filter() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_SOCKET_FILTER, 0, None, 0)
}

/// connect() and sendmsg() hooks of cgroups.
pub fn cgroup_connect() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, libbpf_sys::BPF_CGROUP_INET4_CONNECT, None, 1)
}

pub fn cgroup_skb() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_CGROUP_SKB, libbpf_sys::BPF_CGROUP_INET_EGRESS, None, 1)
}

pub fn tracepoint() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_TRACEPOINT, 0, None, 0)
}

/// Typed tracepoint (`tp_btf`) on sched_process_exec: kills before the first instruction.
pub fn tp_btf() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_RAW_TP, Some("sched_process_exec"), 0)
}

/// BPF LSM on bprm_check_security: refuses an exec with EPERM.
pub fn lsm() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC, Some("bprm_check_security"), 0)
}

pub fn fentry() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY, Some("vfs_open"), 0)
}

pub fn kprobe() -> Probe {
    load_trivial(libbpf_sys::BPF_PROG_TYPE_KPROBE, 0, None, 0)
}

/// A ring buffer of one page.
pub fn ring_buffer() -> Probe {
    create_map(libbpf_sys::BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0)
}

/// An arena of one page: where a later in-kernel matcher keeps its automata.
pub fn arena() -> Probe {
    create_map(libbpf_sys::BPF_MAP_TYPE_ARENA, 0, 0, 1, libbpf_sys::BPF_F_MMAPABLE)
}

/// Loads `return value` as a program of this type; BTF targets are looked up in the running kernel.
#[allow(unsafe_code)]
fn load_trivial(kind: u32, attach: u32, target: Option<&str>, value: i32) -> Probe {
    let instruction = |code: u8, destination: u8, immediate: i32| {
        let mut instruction = libbpf_sys::bpf_insn { code, imm: immediate, ..Default::default() };
        instruction.set_dst_reg(destination);
        instruction
    };
    // r0 = value; exit
    let program = [instruction(0xb7, 0, value), instruction(0x95, 0, 0)];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: attach,
        ..Default::default()
    };
    if let Some(target) = target {
        let name = std::ffi::CString::new(target).map_err(|e| e.to_string())?;
        // SAFETY: a valid C string; libbpf reads the kernel's own BTF.
        let id = unsafe { libbpf_sys::libbpf_find_vmlinux_btf_id(name.as_ptr(), attach) };
        if id < 0 {
            return Err(format!("{target} is not in the kernel's BTF: {}", std::io::Error::from_raw_os_error(-id)));
        }
        options.attach_btf_id = id as u32;
    }
    // SAFETY: instructions, licence and options are valid for the call; the kernel verifies the program.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            c"bh_probe".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            &raw mut options,
        )
    };
    own(fd)
}

#[allow(unsafe_code)]
fn create_map(kind: u32, key: u32, value: u32, entries: u32, flags: u32) -> Probe {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: flags,
        ..Default::default()
    };
    // SAFETY: a name and options valid for the call.
    own(unsafe { libbpf_sys::bpf_map_create(kind, c"bh_probe".as_ptr(), key, value, entries, &raw const options) })
}

/// Closes what the kernel gave, or tells why it gave nothing.
#[allow(unsafe_code)]
fn own(fd: i32) -> Probe {
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd).to_string());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    debug_assert!(fd.as_raw_fd() >= 0);
    Ok(())
}
