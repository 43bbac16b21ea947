//! One walk over the files, for every control that asks for set-id bits, writers, owners or devices.
//!
//! Folders wait in one list; some threads take from it. Links are not followed, and no other filesystem than the one a
//! tree begins on is entered, so that a walk ends.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{Found, HostSnapshot, Walk};

use super::WalkScope;
use crate::root::Root;

/// Files of one walk. A workstation here has 735,000.
pub const INODES_MAX: u64 = 5_000_000;
/// Findings of one kind.
const FOUND_MAX: usize = 5_000;
/// Disks answer several askers sooner than one; more than this gained nothing here.
const THREADS: usize = 4;

/// The list is taken from its end: what may be large comes last, should the time run out.
const SYSTEM_TREES: [&str; 10] = ["/tmp", "/var/tmp", "/root", "/opt", "/lib64", "/lib", "/sbin", "/bin", "/usr", "/etc"];
/// Not the host's own files: kernel interfaces, and what containers and images are made of.
const LEFT_OUT: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/var/lib/kubelet/pods", "/snap", "/mnt"];

struct Work {
    waiting: Mutex<Vec<(PathBuf, u64)>>,
    more: Condvar,
    /// Folders that wait or are being read.
    open: AtomicUsize,
    inodes: AtomicU64,
    cut: AtomicBool,
    deadline: Option<Instant>,
    left_out: HashSet<PathBuf>,
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

pub fn collect(root: &Root, scope: WalkScope, deadline: Option<Instant>, snapshot: &mut HostSnapshot) {
    let trees: Vec<String> = match scope {
        WalkScope::All => vec!["/".to_owned()],
        WalkScope::System | WalkScope::None => SYSTEM_TREES.iter().map(|&tree| tree.to_owned()).collect(),
    };
    let mut left_out: HashSet<PathBuf> = LEFT_OUT.iter().map(|path| below(root, path)).collect();
    left_out.extend(bulkhead_posture::view::DATA_ROOTS.iter().map(|path| below(root, path)));
    let engines = snapshot.engines.known().into_iter().flatten();
    left_out.extend(engines.filter(|engine| engine.data_root.len() > 1).map(|engine| below(root, &engine.data_root)));
    let mut waiting = Vec::new();
    let mut seen = Vec::new();
    for tree in &trees {
        let path = below(root, tree);
        // A link, as /bin is to /usr/bin, is another tree's.
        if let Ok(found) = fs::symlink_metadata(&path)
            && found.is_dir()
        {
            waiting.push((path, found.dev()));
            seen.push(tree.clone());
        }
    }
    let users = snapshot.users.known().map(|users| users.iter().map(|user| user.uid).collect()).unwrap_or_default();
    let groups = snapshot.groups.known().map(|groups| groups.iter().map(|group| group.gid).collect()).unwrap_or_default();
    let work = Work {
        open: AtomicUsize::new(waiting.len()),
        waiting: Mutex::new(waiting),
        more: Condvar::new(),
        inodes: AtomicU64::new(0),
        cut: AtomicBool::new(false),
        deadline,
        left_out,
        users,
        groups,
    };
    let mut parts: Vec<Walk> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| worker(root, &work))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let lost = parts.len() < THREADS;
    let mut all =
        Walk { trees: seen, inodes: work.inodes.load(Ordering::Relaxed), cut: work.cut.load(Ordering::Relaxed) || lost, ..Walk::default() };
    for part in &mut parts {
        all.set_id.append(&mut part.set_id);
        all.file_capabilities.append(&mut part.file_capabilities);
        all.world_writable_files.append(&mut part.world_writable_files);
        all.world_writable_folders.append(&mut part.world_writable_folders);
        all.unowned.append(&mut part.unowned);
        all.devices.append(&mut part.devices);
    }
    for list in [
        &mut all.set_id,
        &mut all.file_capabilities,
        &mut all.world_writable_files,
        &mut all.world_writable_folders,
        &mut all.unowned,
        &mut all.devices,
    ] {
        list.sort_by(|a, b| a.path.cmp(&b.path));
    }
    snapshot.walk = Fact::Known(all);
}

fn below(root: &Root, path: &str) -> PathBuf {
    root.dir().join(path.trim_start_matches('/'))
}

fn worker(root: &Root, work: &Work) -> Walk {
    let mut found = Walk::default();
    loop {
        let Some((folder, device)) = next(work) else { return found };
        read_folder(root, &folder, device, work, &mut found);
        if work.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _held = work.waiting.lock();
            work.more.notify_all();
        }
    }
}

fn next(work: &Work) -> Option<(PathBuf, u64)> {
    let mut waiting = work.waiting.lock().ok()?;
    loop {
        if work.cut.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(folder) = waiting.pop() {
            return Some(folder);
        }
        if work.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        waiting = work.more.wait(waiting).ok()?;
    }
}

fn read_folder(root: &Root, folder: &Path, device: u64, work: &Work, found: &mut Walk) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut folders = Vec::new();
    let mut count = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        count += 1;
        let kind = meta.file_type();
        if meta.dev() != device || work.left_out.contains(&path) {
            continue;
        }
        judge(root, &path, &meta, work, found);
        if kind.is_dir() {
            folders.push((path, device));
        }
    }
    let all = work.inodes.fetch_add(count, Ordering::Relaxed) + count;
    if all > INODES_MAX || work.deadline.is_some_and(|deadline| Instant::now() > deadline) {
        work.cut.store(true, Ordering::Relaxed);
        let _held = work.waiting.lock();
        work.more.notify_all();
        return;
    }
    if !folders.is_empty() {
        work.open.fetch_add(folders.len(), Ordering::AcqRel);
        if let Ok(mut waiting) = work.waiting.lock() {
            waiting.append(&mut folders);
        }
        work.more.notify_all();
    }
}

fn judge(root: &Root, path: &Path, meta: &fs::Metadata, work: &Work, found: &mut Walk) {
    let kind = meta.file_type();
    if kind.is_symlink() {
        return;
    }
    let mode = meta.mode() & 0o7777;
    let mut add = |list: fn(&mut Walk) -> &mut Vec<Found>| {
        let list = list(found);
        if list.len() < FOUND_MAX {
            let inside = path.strip_prefix(root.dir()).unwrap_or(path);
            list.push(Found { path: format!("/{}", inside.display()), mode, uid: meta.uid(), gid: meta.gid(), package: None });
        }
    };
    if kind.is_file() {
        if mode & 0o6000 != 0 && mode & 0o111 != 0 {
            add(|walk| &mut walk.set_id);
        }
        if mode & 0o002 != 0 {
            add(|walk| &mut walk.world_writable_files);
        }
        if mode & 0o111 != 0 && bulkhead_sys::xattr::has(path, "security.capability").unwrap_or(false) {
            add(|walk| &mut walk.file_capabilities);
        }
    } else if kind.is_dir() && mode & 0o002 != 0 && mode & 0o1000 == 0 {
        add(|walk| &mut walk.world_writable_folders);
    } else if kind.is_block_device() || kind.is_char_device() {
        // The pair 0:0 is a mark that overlayfs sets for a file that was removed.
        if meta.rdev() != 0 {
            add(|walk| &mut walk.devices);
        }
    }
    if !work.users.is_empty() && !work.groups.is_empty() && (!work.users.contains(&meta.uid()) || !work.groups.contains(&meta.gid())) {
        add(|walk| &mut walk.unowned);
    }
}
