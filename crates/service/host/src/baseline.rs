//! How the host was, and what is different now: files of trusted folders by content, mode, owner and attributes; and what is
//! no file: accounts, keys, listeners, units, modules, the kernel's command line.
//!
//! A pass costs a look at each file, not a read: content is read again where the file's identity (device, inode, size, times
//! of content and of status) is another one, and for a sample of the rest, so that a forged time is found in the end. A change that
//! dpkg's own sums confirm is an upgrade, and no drift.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::HostSnapshot;
use bulkhead_sys::xattr;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dpkg;
use crate::root::{Root, open};
use crate::verify;

pub const FORMAT: u32 = 1;
/// Where it lies, below the root.
pub const FILE: &str = "/var/lib/bulkhead/host/baseline.json";
/// Files of one baseline.
pub const FILES_MAX: usize = 2_000_000;
/// Bytes of a baseline that are read: 79,654 files make 20 MB.
pub const BYTES_MAX: u64 = 1 << 30;
/// Of the files that look unchanged, one in so many is read again at each pass.
const SAMPLE: u64 = 100;

/// What decides what the host does.
const FOLDERS: [&str; 16] = [
    "/etc",
    "/boot",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/local",
    "/opt",
    "/root/.ssh",
    "/var/spool/cron",
    "/var/lib/systemd",
    "/usr/share/dbus-1",
];
/// Changed by ordinary work, and of no weight.
const NOISE: [&str; 12] = [
    "/etc/mtab",
    "/etc/adjtime",
    "/etc/resolv.conf",
    "/etc/ld.so.cache",
    "/etc/cups/subscriptions.conf",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timers",
    "/var/lib/systemd/timesync",
    "/var/lib/systemd/coredump",
    "/var/lib/systemd/catalog",
    "/var/lib/systemd/deb-systemd-helper-enabled",
    "/boot/grub/grubenv",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    pub format: u32,
    pub taken: u64,
    pub files: BTreeMap<String, Entry>,
    /// Kind of thing to its members, each as one line.
    pub state: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `file`, `folder`, `link`, `other`.
    pub kind: String,
    /// SHA-256 of a file, target of a link.
    pub content: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// SHA-256 of names and values; empty where there are none.
    pub attributes: String,
    pub identity: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Drift {
    /// A path, or the kind of thing that is no file.
    pub what: String,
    pub how: How,
    pub before: Option<String>,
    pub now: Option<String>,
    /// The package whose sums confirm the new content: an upgrade.
    pub package: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Added,
    Removed,
    Content,
    Mode,
    Owner,
    Attributes,
    Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Compared {
    pub files: u64,
    /// Files whose content was read.
    pub read: u64,
    pub drift: Vec<Drift>,
    pub unreadable: Vec<String>,
}

/// Everything as it is now. Entries of an earlier look are taken over where the file is the same.
pub fn look(root: &Root, snapshot: &HostSnapshot, earlier: Option<&Baseline>, compared: &mut Compared) -> Baseline {
    let mut files = BTreeMap::new();
    let day = snapshot.taken / 86_400;
    for folder in FOLDERS.iter().map(|&folder| folder.to_owned()).chain(homes(snapshot)) {
        let start = root.dir().join(folder.trim_start_matches('/'));
        // A link, as /bin is to /usr/bin, is an entry of its own; what it leads to is another's.
        let mut waiting = vec![start];
        while let Some(path) = waiting.pop() {
            if files.len() >= FILES_MAX {
                compared.unreadable.push(format!("more than {FILES_MAX} files: the rest was not looked at"));
                break;
            }
            one(root, path, day, earlier, &mut files, &mut waiting, compared);
        }
    }
    Baseline { format: FORMAT, taken: snapshot.taken, files, state: state(snapshot) }
}

fn homes(snapshot: &HostSnapshot) -> impl Iterator<Item = String> {
    let users = snapshot.users.known().into_iter().flatten();
    users.filter(|user| user.uid >= 1000 && user.home.len() > 1).map(|user| format!("{}/.ssh", user.home.trim_end_matches('/'))).take(1000)
}

fn one(
    root: &Root,
    path: PathBuf,
    day: u64,
    earlier: Option<&Baseline>,
    files: &mut BTreeMap<String, Entry>,
    waiting: &mut Vec<PathBuf>,
    compared: &mut Compared,
) {
    let inside = path.strip_prefix(root.dir()).unwrap_or(&path);
    let name = format!("/{}", inside.display());
    if NOISE.iter().any(|noise| name == *noise || name.strip_prefix(noise).is_some_and(|rest| rest.starts_with('/'))) {
        return;
    }
    let Ok(meta) = fs::symlink_metadata(&path) else { return };
    compared.files += 1;
    let identity = Identity {
        device: meta.dev(),
        inode: meta.ino(),
        size: if meta.is_dir() { 0 } else { meta.len() },
        modified: if meta.is_dir() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) },
        changed: if meta.is_dir() { (0, 0) } else { (meta.ctime(), meta.ctime_nsec()) },
    };
    let known = earlier.and_then(|earlier| earlier.files.get(&name));
    let same = known.filter(|known| known.identity == identity && !meta.is_dir());
    let (kind, content) = if meta.is_symlink() {
        ("link", fs::read_link(&path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default())
    } else if meta.is_dir() {
        match fs::read_dir(&path) {
            Ok(entries) => waiting.extend(entries.flatten().map(|entry| entry.path())),
            Err(error) => compared.unreadable.push(format!("{name}: {error}")),
        }
        ("folder", String::new())
    } else if meta.is_file() {
        match same {
            Some(known) if !sampled(&name, day) => ("file", known.content.clone()),
            _ => match hash(&path) {
                Ok(sum) => {
                    compared.read += 1;
                    ("file", sum)
                }
                Err(error) => {
                    compared.unreadable.push(format!("{name}: {error}"));
                    return;
                }
            },
        }
    } else {
        ("other", String::new())
    };
    // A change of attributes is a change of status: what looks the same has the same.
    let attributes = match same {
        Some(known) => known.attributes.clone(),
        None => attributes(&path),
    };
    files.insert(
        name,
        Entry { kind: kind.to_owned(), content, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), attributes, identity },
    );
}

/// Another hundredth of the files every day: FNV-1a of the name.
fn sampled(name: &str, day: u64) -> bool {
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    sum % SAMPLE == day % SAMPLE
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => digest.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn attributes(path: &Path) -> String {
    let list = xattr::list(path).unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let mut digest = Sha256::new();
    for (name, value) in list {
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update((value.len() as u64).to_le_bytes());
        digest.update(&value);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is no file, or is told better as what it means.
fn state(snapshot: &HostSnapshot) -> BTreeMap<String, BTreeSet<String>> {
    let mut state: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut put = |kind: &str, lines: BTreeSet<String>| drop(state.insert(kind.to_owned(), lines));
    if let Fact::Known(users) = &snapshot.users {
        put(
            "user",
            users
                .iter()
                .map(|user| format!("{} id {} group {} home {} shell {}", user.name, user.uid, user.gid, user.home, user.shell))
                .collect(),
        );
    }
    if let Fact::Known(groups) = &snapshot.groups {
        put("group", groups.iter().map(|group| format!("{} id {} members {}", group.name, group.gid, group.members.join(","))).collect());
    }
    if let Fact::Known(keys) = &snapshot.key_files {
        put("keys", keys.iter().map(|file| format!("{} of {}: {}", file.path, file.user, file.keys)).collect());
    }
    if let Fact::Known(units) = &snapshot.units {
        put("unit", units.iter().map(|unit| format!("{} {:?}", unit.name, unit.state)).collect());
    }
    if let Fact::Known(list) = &snapshot.listeners {
        let own = list.iter().filter(|one| one.container.is_none() && one.exe.is_some());
        put(
            "listener",
            own.map(|one| format!("{} {}:{} {}", one.protocol, one.address, one.port, one.exe.as_deref().unwrap_or_default())).collect(),
        );
    }
    if let Fact::Known(modules) = &snapshot.kernel.modules {
        put("module", modules.iter().cloned().collect());
    }
    if let Fact::Known(cmdline) = &snapshot.kernel.cmdline {
        put("kernel-command-line", BTreeSet::from([cmdline.clone()]));
    }
    if let Fact::Known(walk) = &snapshot.walk
        && !walk.cut
    {
        put("set-id", walk.set_id.iter().map(|found| format!("{} {:04o}", found.path, found.mode)).collect());
    }
    state
}

/// What is different. A kind of state that one of the two does not have is not compared.
pub fn compare(root: &Root, before: &Baseline, now: &Baseline, compared: &mut Compared) {
    for (path, old) in &before.files {
        match now.files.get(path) {
            None => compared.drift.push(drift(path, How::Removed, Some(old.content.clone()), None)),
            Some(new) => entry(path, old, new, &mut compared.drift),
        }
    }
    for (path, new) in &now.files {
        if !before.files.contains_key(path) {
            compared.drift.push(drift(path, How::Added, None, Some(format!("{} {:04o} {}:{}", new.kind, new.mode, new.uid, new.gid))));
        }
    }
    for (kind, old) in &before.state {
        let Some(new) = now.state.get(kind) else { continue };
        compared.drift.extend(old.difference(new).map(|line| drift(kind, How::Removed, Some(line.clone()), None)));
        compared.drift.extend(new.difference(old).map(|line| drift(kind, How::Added, None, Some(line.clone()))));
    }
    packaged(root, compared);
    compared.drift.sort();
}

fn drift(what: &str, how: How, before: Option<String>, now: Option<String>) -> Drift {
    Drift { what: what.to_owned(), how, before, now, package: None }
}

fn entry(path: &str, old: &Entry, new: &Entry, all: &mut Vec<Drift>) {
    if old.kind != new.kind {
        all.push(drift(path, How::Kind, Some(old.kind.clone()), Some(new.kind.clone())));
        return;
    }
    if old.content != new.content {
        all.push(drift(path, How::Content, Some(old.content.clone()), Some(new.content.clone())));
    }
    if old.mode != new.mode {
        all.push(drift(path, How::Mode, Some(format!("{:04o}", old.mode)), Some(format!("{:04o}", new.mode))));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        all.push(drift(path, How::Owner, Some(format!("{}:{}", old.uid, old.gid)), Some(format!("{}:{}", new.uid, new.gid))));
    }
    if old.attributes != new.attributes {
        all.push(drift(path, How::Attributes, Some(old.attributes.clone()), Some(new.attributes.clone())));
    }
}

/// Files whose new content their package's sums confirm, and files that came or went with a package's list.
fn packaged(root: &Root, compared: &mut Compared) {
    let paths: HashSet<String> = compared
        .drift
        .iter()
        .filter(|one| one.what.starts_with('/') && matches!(one.how, How::Content | How::Added))
        .map(|one| one.what.clone())
        .collect();
    if paths.is_empty() {
        return;
    }
    let owners = dpkg::owners(root, &paths);
    let sums: HashMap<String, String> = verify::sums(root, &owners);
    for one in compared.drift.iter_mut().filter(|one| matches!(one.how, How::Content | How::Added)) {
        let Some(package) = owners.get(&one.what) else { continue };
        let wanted = sums.get(&one.what).or_else(|| sums.get(&dpkg::other_name(&one.what)));
        let folder = one.how == How::Added && one.now.as_deref().is_some_and(|now| now.starts_with("folder") || now.starts_with("link"));
        if folder || wanted.is_some_and(|wanted| verify::sum_of(root, &one.what).is_ok_and(|sum| sum == *wanted)) {
            one.package = Some(package.clone());
        }
    }
}

impl Baseline {
    /// Reads a recorded one. The error is a phrase for a person.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let baseline: Self = serde_json::from_slice(bytes).map_err(|error| format!("it is no baseline: {error}"))?;
        if baseline.format != FORMAT {
            return Err(format!("it has format {}; this version reads format {FORMAT}", baseline.format));
        }
        Ok(baseline)
    }
}
