//! Extended attributes of files, never through a symbolic link at the end of the path. Source: `xattr(7)`.

use crate::OsError;
use crate::call::{c_path, check};
use std::ffi::CString;
use std::path::Path;

/// Names of one file together: the kernel's own limit (`XATTR_LIST_MAX`).
const LIST_BYTES_MAX: usize = 65_536;
/// One value: the kernel's own limit (`XATTR_SIZE_MAX`).
const VALUE_BYTES_MAX: usize = 65_536;

/// Names and values of all attributes that the caller may see, by name. A filesystem without attributes has none.
pub fn list(path: &Path) -> Result<Vec<(String, Vec<u8>)>, OsError> {
    let c_path = c_path(path)?;
    let mut names = vec![0u8; LIST_BYTES_MAX];
    // SAFETY: the path is a C string, the buffer is live and its length is given; the kernel writes at most that.
    let got = unsafe { libc::llistxattr(c_path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let got = match check(got, || format!("list attributes of {}", path.display())) {
        Ok(got) => got,
        Err(error) if error.is(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let list = names.get(..usize::try_from(got).unwrap_or(0)).unwrap_or_default();
    let mut found = Vec::new();
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        if let Some(value) = get(path, &name)? {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

/// The value of one attribute; `None` when the file has it not, or cannot have any.
pub fn get(path: &Path, name: &str) -> Result<Option<Vec<u8>>, OsError> {
    let (c_path, c_name) = (c_path(path)?, c_name(name)?);
    let mut value = vec![0u8; VALUE_BYTES_MAX];
    // SAFETY: both are C strings, the buffer is live and its length is given; the kernel writes at most that.
    let got = unsafe { libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match check(got, || format!("read attribute {name} of {}", path.display())) {
        Ok(got) => {
            value.truncate(usize::try_from(got).unwrap_or(0));
            Ok(Some(value))
        }
        Err(error) if error.is(libc::ENODATA) || error.is(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the file this attribute? One system call and no copy of the value.
pub fn has(path: &Path, name: &str) -> Result<bool, OsError> {
    let (c_path, c_name) = (c_path(path)?, c_name(name)?);
    // SAFETY: both are C strings; a length of zero makes the kernel tell the size and write nothing.
    let got = unsafe { libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), std::ptr::null_mut(), 0) };
    match check(got, || format!("look for attribute {name} of {}", path.display())) {
        Ok(_) => Ok(true),
        Err(error) if error.is(libc::ENODATA) || error.is(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets one attribute.
pub fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), OsError> {
    let (c_path, c_name) = (c_path(path)?, c_name(name)?);
    // SAFETY: both are C strings, and the value is live with its length; the kernel only reads.
    let ret = unsafe { libc::lsetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(ret, || format!("set attribute {name} of {}", path.display())).map(drop)
}

/// Takes one attribute away; it is no mistake when it is not there.
pub fn remove(path: &Path, name: &str) -> Result<(), OsError> {
    let (c_path, c_name) = (c_path(path)?, c_name(name)?);
    // SAFETY: both are C strings.
    let ret = unsafe { libc::lremovexattr(c_path.as_ptr(), c_name.as_ptr()) };
    match check(ret, || format!("remove attribute {name} of {}", path.display())) {
        Err(error) if error.is(libc::ENODATA) || error.is(libc::EOPNOTSUPP) => Ok(()),
        other => other.map(drop),
    }
}

fn c_name(name: &str) -> Result<CString, OsError> {
    CString::new(name).map_err(|_| OsError::new(format!("use attribute {name:?} with a NUL in it"), libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_listed_and_can_be_taken_away() {
        let file = std::env::temp_dir().join(format!("bulkhead-xattr-{}", std::process::id()));
        std::fs::write(&file, b"x").unwrap();
        let kept = set(&file, "user.bulkhead", b"one");
        if let Err(error) = &kept
            && error.is(libc::EOPNOTSUPP)
        {
            println!("NOT RUN: what_is_set_is_listed_and_can_be_taken_away: the temporary directory has no attributes");
        } else {
            kept.unwrap();
            assert_eq!(get(&file, "user.bulkhead").unwrap().as_deref(), Some(b"one".as_slice()));
            assert!(has(&file, "user.bulkhead").unwrap() && !has(&file, "user.other").unwrap());
            assert!(list(&file).unwrap().iter().any(|(name, value)| name == "user.bulkhead" && value == b"one"));
            remove(&file, "user.bulkhead").unwrap();
            remove(&file, "user.bulkhead").unwrap();
            assert_eq!(get(&file, "user.bulkhead").unwrap(), None);
        }
        std::fs::remove_file(&file).unwrap();
        assert!(list(&file).unwrap_err().is(libc::ENOENT));
    }
}
