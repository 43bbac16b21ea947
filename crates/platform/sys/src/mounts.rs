//! Mounts: the table of this mount namespace, the BPF filesystem, bind mounts.
//!
//! Source: `proc_pid_mountinfo(5)`, `mount(2)`.

use crate::OsError;
use crate::call::{c_path, check, read_file};
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Bytes of the mount table that are read; hosts with thousands of containers stay below 4 MiB.
const MOUNTINFO_BYTES_MAX: usize = 64 * 1024 * 1024;
/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Id of the mount.
    pub id: u64,
    /// Device number `major:minor` of its filesystem.
    pub device: (u32, u32),
    /// What of the filesystem is mounted: a path inside it, or `net:[…]` for a namespace.
    pub root: String,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Filesystem type: `ext4`, `overlay`, `nsfs`, `bpf`.
    pub fs_type: String,
    /// What the type calls its source.
    pub source: String,
    /// Options of the filesystem, as a comma-separated list.
    pub super_options: String,
}

/// The mounts that the calling thread sees. Lines that do not hold together are left out.
pub fn list() -> Result<Vec<Mount>, OsError> {
    let bytes = read_file(Path::new("/proc/thread-self/mountinfo"), MOUNTINFO_BYTES_MAX)?;
    Ok(bytes.split(|&b| b == b'\n').filter_map(parse_line).collect())
}

/// Takes one line of `mountinfo` apart:
/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
pub fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let _parent = fields.next()?;
    let device = text(fields.next()?);
    let (major, minor) = device.split_once(':')?;
    let root = text(fields.next()?);
    let target = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let _options = fields.next()?;
    // Any number of optional fields, ended by a lone `-`.
    fields.find(|&field| field == b"-")?;
    let fs_type = text(fields.next()?);
    let source = text(fields.next()?);
    let super_options = text(fields.next().unwrap_or_default());
    Some(Mount { id, device: (major.parse().ok()?, minor.parse().ok()?), root, target, fs_type, source, super_options })
}

/// Is the BPF filesystem mounted at `path`?
pub fn is_bpffs(path: impl AsRef<Path>) -> Result<bool, OsError> {
    let path = path.as_ref();
    let c = c_path(path)?;
    // SAFETY: all-zero is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and the pointer is to a live statfs that the kernel fills.
    check(unsafe { libc::statfs(c.as_ptr(), &raw mut stat) }, || format!("look at the filesystem of {}", path.display()))?;
    Ok(stat.f_type == BPF_FS_MAGIC)
}

/// Mounts the BPF filesystem at the directory `path` (mode 0700).
pub fn mount_bpffs(path: impl AsRef<Path>) -> Result<(), OsError> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"bpf"), path.as_ref(), Some(c"bpf"), flags, Some(c"mode=0700"), "mount the BPF filesystem at")
}

/// Mounts the file or directory `source` a second time at `target`.
pub fn bind(source: &Path, target: &Path) -> Result<(), OsError> {
    let doing = format!("bind {} to", source.display());
    mount(Some(&c_path(source)?), target, None, libc::MS_BIND, None, &doing)
}

/// Unmounts what is at `path`, now for newcomers and for its users when the last one leaves. `EINVAL`: not a mount.
pub fn unmount(path: impl AsRef<Path>) -> Result<(), OsError> {
    let path = path.as_ref();
    let c = c_path(path)?;
    // SAFETY: the path is NUL-terminated and lives across the call.
    let ret = unsafe { libc::umount2(c.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    check(ret, || format!("unmount {}", path.display())).map(drop)
}

fn mount(
    source: Option<&CStr>,
    target: &Path,
    fs_type: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
    doing: &str,
) -> Result<(), OsError> {
    let c = c_path(target)?;
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or to a NUL-terminated string that lives across the call.
    let ret = unsafe { libc::mount(pointer(source), c.as_ptr(), pointer(fs_type), flags, pointer(options).cast()) };
    check(ret, || format!("{doing} {}", target.display())).map(drop)
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// The kernel writes space, tab, newline and backslash as `\040`, `\011`, `\012`, `\134`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => out.push(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_taken_apart() {
        let mount = parse_line(br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((mount.id, mount.device), (36, (98, 0)));
        assert_eq!((mount.root.as_str(), mount.target.as_path()), ("/mnt1", Path::new("/mnt 2")));
        assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("ext3", "/dev/root"));
        assert_eq!(mount.super_options, "rw,errors=continue");
    }

    #[test]
    fn broken_lines_are_no_mounts() {
        let good = b"36 35 98:0 / / rw - ext3 /dev/root rw".as_slice();
        assert!(parse_line(good).is_some());
        for line in [b"".as_slice(), b"36", b"x 35 98:0 / / rw - a b c", b"36 35 98 / / rw - a b c", b"36 35 98:0 / / rw a b c"] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn an_escape_that_is_cut_short_stays_as_it_is() {
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"\134\040\777"), br"\ \777");
    }

    #[test]
    fn the_own_mount_table_has_a_proc() {
        let mounts = list().unwrap();
        assert!(mounts.iter().any(|mount| mount.fs_type == "proc" && mount.target == Path::new("/proc")), "{mounts:?}");
        assert!(!is_bpffs("/proc").unwrap());
    }
}
