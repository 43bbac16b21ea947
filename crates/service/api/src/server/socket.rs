//! The unix socket as a file: made under a private name and renamed into place, so that there is no moment at which it is
//! open to more than it should be; and who may use it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::{GroupAccess, ServerError};

/// Supplementary groups looked at; Linux allows 65536, nobody has so many.
const GROUPS_MAX: usize = 1024;

/// Who may connect, and what for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permissions {
    /// The agent's own.
    uid: u32,
    group: Option<(u32, GroupAccess)>,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Nothing,
    Read,
    Change,
}

impl Permissions {
    pub fn new(group: Option<&str>, access: GroupAccess) -> Result<Self, ServerError> {
        let uid = fs::metadata("/proc/self").map_err(|source| ServerError::Listen { path: PathBuf::from("/proc/self"), source })?.uid();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let gid = group.and_then(|name| gid_of(&groups, name));
        Ok(Self { uid, group: gid.map(|gid| (gid, access)) })
    }

    pub const fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// By the kernel's word on the peer (SO_PEERCRED, unix(7)): root and the agent's own user, then the group.
    pub fn access(&self, uid: u32, gid: u32, pid: Option<i32>) -> Access {
        if uid == 0 || uid == self.uid {
            return Access::Change;
        }
        match self.group {
            Some((group, access)) if gid == group || pid.is_some_and(|pid| in_group(pid, uid, group)) => match access {
                GroupAccess::Read => Access::Read,
                GroupAccess::Change => Access::Change,
            },
            Some(_) | None => Access::Nothing,
        }
    }
}

/// The socket's file.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    inode: (u64, u64),
}

impl Bound {
    pub fn bind(path: &Path, permissions: &Permissions) -> Result<(Self, UnixListener), ServerError> {
        let failed = |source| ServerError::Listen { path: path.to_owned(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(ServerError::NotASocket { path: path.to_owned() }),
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(ServerError::InUse { path: path.to_owned() }),
            // Nobody answers: left behind by an agent that was killed. The rename replaces it.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let private = dir.join(format!(".bulkhead-{}", std::process::id()));
        let result = Self::bind_in(&private, path, permissions);
        // Empty by now, or it was not made.
        let _ = fs::remove_dir_all(&private);
        result.map_err(failed)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unless another server has put its own there.
    pub fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn bind_in(private: &Path, path: &Path, permissions: &Permissions) -> io::Result<(Self, UnixListener)> {
        fs::DirBuilder::new().mode(0o700).create(private)?;
        let hidden = private.join("s");
        let listener = UnixListener::bind(&hidden)?;
        listener.set_nonblocking(true)?;
        let mode = match permissions.group {
            Some((gid, _)) => {
                chown(&hidden, None, Some(gid))?;
                0o660
            }
            None => 0o600,
        };
        fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))?;
        let found = fs::symlink_metadata(&hidden)?;
        fs::rename(&hidden, path)?;
        Ok((Self { path: path.to_owned(), inode: (found.dev(), found.ino()) }, listener))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.remove();
    }
}

/// group(5): `name:password:gid:members`. Read by ourselves, so that a static binary needs no NSS.
fn gid_of(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None })
}

/// Supplementary groups by proc_pid_status(5). SO_PEERCRED tells the primary group alone. The uid is compared so that a
/// process id that has been given to someone else in the meantime does not count.
fn in_group(pid: i32, uid: u32, group: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().split_ascii_whitespace();
    field("Uid:").nth(1).and_then(|word| word.parse().ok()) == Some(uid)
        && field("Groups:").take(GROUPS_MAX).any(|word| word.parse() == Ok(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nbulkheads:x:7:\nbulkhead:x:998:alice,bob\nbroken\nalso:x:y:\n";
        assert_eq!(gid_of(groups, "bulkhead"), Some(998));
        assert_eq!(gid_of(groups, "bulk"), None);
        assert_eq!(gid_of(groups, "broken"), None);
        assert_eq!(gid_of(groups, "also"), None);
    }

    #[test]
    fn others_than_root_and_the_group_may_do_nothing() {
        let alone = Permissions { uid: 500, group: None };
        assert_eq!(alone.access(0, 0, None), Access::Change);
        assert_eq!(alone.access(500, 1, None), Access::Change);
        assert_eq!(alone.access(501, 0, None), Access::Nothing);
        let grouped = Permissions { uid: 0, group: Some((998, GroupAccess::Read)) };
        assert_eq!(grouped.access(1000, 998, None), Access::Read);
        assert_eq!(grouped.access(1000, 1000, None), Access::Nothing);
        assert_eq!(grouped.access(1000, 1000, Some(-1)), Access::Nothing);
    }

    #[test]
    fn a_process_id_of_another_user_lends_nobody_its_groups() {
        let me = i32::try_from(std::process::id()).unwrap();
        let uid = fs::metadata("/proc/self").unwrap().uid();
        assert!(!in_group(me, uid + 1, 0));
    }
}
