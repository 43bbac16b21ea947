//! A file in memory without a name, to hand over to another process.

use crate::OsError;
use crate::call::{check, own};
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

/// A file in memory that holds `contents` and can be changed no more (sealed). `name` is for people.
pub fn sealed(name: &str, contents: &[u8]) -> Result<File, OsError> {
    let doing = || format!("make a memory file `{name}` of {} bytes", contents.len());
    let c = CString::new(name).map_err(|_| OsError::new(doing(), libc::EINVAL))?;
    // SAFETY: the name is NUL-terminated; the descriptor returned is new.
    let fd = unsafe { own(libc::memfd_create(c.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING), doing)? };
    let mut file = File::from(fd);
    file.write_all(contents).map_err(|e| OsError::io(doing(), &e))?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: no pointers; the descriptor is open.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, doing)?;
    std::io::Seek::rewind(&mut file).map_err(|e| OsError::io(doing(), &e))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_sealed_file_reads_back_and_refuses_writes() {
        let mut file = sealed("rules", b"abc").unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"abc");
        assert_eq!(file.write(b"d").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
