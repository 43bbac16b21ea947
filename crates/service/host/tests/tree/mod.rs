//! A root directory that a test makes: a deliberately bad Debian, and its whole state for comparison.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bulkhead_host::Root;
use bulkhead_sys::xattr;

pub const DAEMON_JSON: &str = "{\n    \"log-level\":\"debug\",   \"seccomp-profile\": \"unconfined\" }\n";

pub struct Tree {
    dir: PathBuf,
}

/// Everything of a path that undo promises: kind, bytes or target, mode, owner, attributes, and of files the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    what: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    attributes: Vec<(String, Vec<u8>)>,
    modified: Option<(i64, i64)>,
}

impl Tree {
    pub fn empty(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bulkhead-tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    pub fn bad(name: &str) -> Self {
        let tree = Self::empty(name);
        for (path, text, mode) in [
            ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", 0o644),
            ("etc/hostname", "bad\n", 0o644),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/bash\n", 0o666),
            ("etc/group", "root:x:0:\nshadow:x:42:\ndocker:x:998:ann\nann:x:1000:\n", 0o644),
            ("etc/shadow", "root:$1$abc$def:19000:0:99999:7:::\ntoor::19000::::::\nann:$y$j9T$x:19000:0:99999:7:::\n", 0o644),
            ("etc/gshadow", "", 0o640),
            ("etc/sudoers", "root ALL=(ALL:ALL) ALL\nann ALL=(ALL) NOPASSWD: ALL\n", 0o440),
            ("etc/login.defs", "UMASK 022\nPASS_MAX_DAYS 99999\n", 0o644),
            ("etc/crontab", "# m h\n", 0o646),
            (
                "etc/ssh/sshd_config",
                "Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\nPermitRootLogin yes\nMaxAuthTries 10\n",
                0o644,
            ),
            ("usr/sbin/sshd", "x", 0o755),
            ("etc/docker/daemon.json", DAEMON_JSON, 0o666),
            ("usr/bin/dockerd", "x", 0o755),
            ("usr/bin/dpkg", "x", 0o755),
            ("usr/bin/apt-get", "x", 0o755),
            ("usr/local/bin/rootme", "x", 0o4755),
            ("opt/open", "x", 0o666),
            ("etc/sysctl.d/10-old.conf", "kernel.kptr_restrict = 0\nnet.ipv4.tcp_syncookies=0\n", 0o644),
            (
                "lib/modules/6.1.0-1-amd64/modules.dep",
                "kernel/net/dccp/dccp.ko:\nkernel/net/sctp/sctp.ko.xz:\nkernel/fs/cramfs/cramfs.ko:\nkernel/fs/overlayfs/overlay.ko:\n",
                0o644,
            ),
            (
                "usr/lib/systemd/system/cups.service",
                "[Unit]\nRequires=cups.socket\n[Service]\nExecStart=/usr/sbin/cupsd\n[Install]\nWantedBy=multi-user.target\n",
                0o644,
            ),
            (
                "usr/lib/systemd/system/cups.socket",
                "[Socket]\nListenStream=/run/cups/cups.sock\n[Install]\nWantedBy=sockets.target\n",
                0o644,
            ),
            ("usr/lib/systemd/system/ssh.service", "[Service]\n[Install]\nWantedBy=multi-user.target\n", 0o644),
            ("usr/lib/systemd/system/docker.service", "[Service]\n[Install]\nWantedBy=multi-user.target\n", 0o644),
            ("usr/lib/systemd/system/ctrl-alt-del.target", "[Unit]\n", 0o644),
            ("usr/lib/systemd/systemd", "x", 0o755),
            (
                "var/lib/dpkg/status",
                "Package: base-files\nStatus: install ok installed\nVersion: 12\nEssential: yes\n\nPackage: telnet\nStatus: install ok installed\nVersion: 1\n",
                0o644,
            ),
            ("var/lib/dpkg/info/base-files.list", "/etc/os-release\n/usr/sbin/sshd\n", 0o644),
        ] {
            tree.write(path, text);
            tree.mode(path, mode);
        }
        fs::create_dir_all(tree.dir.join("etc/systemd/system/multi-user.target.wants")).unwrap();
        fs::create_dir_all(tree.dir.join("etc/systemd/system/sockets.target.wants")).unwrap();
        fs::create_dir_all(tree.dir.join("home/ann")).unwrap();
        for (link, target) in [
            ("etc/systemd/system/multi-user.target.wants/cups.service", "/usr/lib/systemd/system/cups.service"),
            ("etc/systemd/system/sockets.target.wants/cups.socket", "/usr/lib/systemd/system/cups.socket"),
            ("etc/systemd/system/multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service"),
            ("etc/systemd/system/multi-user.target.wants/docker.service", "/usr/lib/systemd/system/docker.service"),
        ] {
            symlink(target, tree.dir.join(link)).unwrap();
        }
        // Attributes are kept too, where the filesystem has any.
        let _ = xattr::set(&tree.dir.join("etc/docker/daemon.json"), "user.note", b"keep me");
        tree
    }

    pub fn root(&self) -> Root {
        Root::at(&self.dir)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn write(&self, path: &str, text: &str) {
        let full = self.dir.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir.join(path)).unwrap()
    }

    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.dir.join(path), Permissions::from_mode(mode)).unwrap();
    }

    pub fn state(&self) -> BTreeMap<PathBuf, Entry> {
        let mut all = BTreeMap::new();
        let mut waiting = vec![self.dir.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let what = if meta.is_symlink() {
                    fs::read_link(&path).unwrap().to_string_lossy().into_owned().into_bytes()
                } else if meta.is_dir() {
                    waiting.push(path.clone());
                    b"folder".to_vec()
                } else {
                    fs::read(&path).unwrap()
                };
                let modified = meta.is_file().then(|| (meta.mtime(), meta.mtime_nsec()));
                let attributes = xattr::list(&path).unwrap();
                let mode = if meta.is_symlink() { 0 } else { meta.mode() };
                all.insert(
                    path.strip_prefix(&self.dir).unwrap().to_owned(),
                    Entry { what, mode, owner: (meta.uid(), meta.gid()), attributes, modified },
                );
            }
        }
        all
    }

    /// As [`assert_eq`], with the difference alone.
    pub fn assert_state(&self, before: &BTreeMap<PathBuf, Entry>) {
        let now = self.state();
        let mut paths: Vec<&PathBuf> = before.keys().chain(now.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            assert_eq!(before.get(path), now.get(path), "{}", path.display());
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
