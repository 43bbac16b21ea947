//! Kernel settings below `/proc/sys`.
//!
//! Names are paths with `/` (`net/ipv4/conf/eth0.5/forwarding`) or, where no part holds a dot, with
//! `.` (`net.ipv4.ip_forward`). Settings below `net` are those of the calling thread's network
//! namespace: wrap the call in [`crate::netns::run_in`] for another. Source: `proc_sys(5)`.

use crate::OsError;
use crate::call::read_file;
use std::path::{Path, PathBuf};

/// Bytes of one setting.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The value of a setting, without the newline at its end. `ENOENT` when this kernel has no such setting.
pub fn read(name: &str) -> Result<String, OsError> {
    let bytes = read_file(&path(name)?, VALUE_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// Sets a setting and returns what it was before. Writes nothing when it has that value already.
pub fn write(name: &str, value: &str) -> Result<String, OsError> {
    let before = read(name)?;
    if before != value {
        let path = path(name)?;
        std::fs::write(&path, value).map_err(|e| OsError::io(format!("set {} to `{value}`", path.display()), &e))?;
    }
    Ok(before)
}

fn path(name: &str) -> Result<PathBuf, OsError> {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let sound = !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    if sound {
        Ok(Path::new("/proc/sys").join(name))
    } else {
        Err(OsError::new(format!("use `{}` as a setting's name", name.escape_debug()), libc::EINVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_dots_or_slashes_but_not_leave_the_tree() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/eth0.5/forwarding").unwrap(), Path::new("/proc/sys/net/ipv4/conf/eth0.5/forwarding"));
        for name in ["", "/etc/passwd", "net/../../etc/passwd", "..", "a//b", "a\0b", "net."] {
            assert!(path(name).unwrap_err().is(libc::EINVAL), "{name:?}");
        }
    }

    #[test]
    fn a_setting_that_is_not_there_is_enoent() {
        assert!(read("kernel.no_such_setting").unwrap_err().is(libc::ENOENT));
        assert!(read("kernel.ostype").unwrap() == "Linux");
    }
}
