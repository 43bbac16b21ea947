//! The table of mounts: of a running host as its first process sees it, of another root as its fstab declares it.

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{HostSnapshot, Mount};

use crate::root::{MapKnown, Root};

const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Mounts told of; a host with 500 containers has some 3,000.
pub const MOUNTS_MAX: usize = 20_000;

pub fn collect(root: &Root, snapshot: &mut HostSnapshot) {
    snapshot.mounts = if snapshot.live {
        match table(root, "/proc/1/mountinfo") {
            Fact::Known(list) => Fact::Known(list),
            Fact::Absent | Fact::Unreadable(_) => table(root, "/proc/self/mountinfo"),
        }
    } else {
        root.text("/etc/fstab").map_known(|text| fstab(text))
    };
}

/// A file in the form of `mountinfo`: proc_pid_mountinfo(5).
pub fn table(root: &Root, path: &str) -> Fact<Vec<Mount>> {
    root.bytes(path, TABLE_BYTES_MAX).map_known(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter_map(line).take(MOUNTS_MAX).collect()
    })
}

pub fn line(line: &str) -> Option<Mount> {
    let (first, last) = line.split_once(" - ")?;
    let mut fields = first.split(' ');
    let (_, _, device) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    let shared = fields.any(|field| field.starts_with("shared:"));
    let mut fields = last.splitn(3, ' ');
    let (fs_type, source, more) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let mut options: Vec<String> = options.split(',').map(str::to_owned).collect();
    // `ro` of the filesystem holds for the mount too; `rw` of the filesystem says nothing of a mount that is `ro`.
    options.extend(
        more.split(',')
            .filter(|option| *option != "rw" && !options.iter().any(|known| known == option))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    if options.iter().any(|option| option == "ro") {
        options.retain(|option| option != "rw");
    }
    Some(Mount {
        target: unescape(target),
        root: unescape(root),
        device: device.to_owned(),
        fs_type: fs_type.to_owned(),
        source: unescape(source),
        options,
        shared,
        declared: false,
    })
}

fn fstab(text: &str) -> Vec<Mount> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mounts = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (source, target, fs_type) = (words.next()?, words.next()?, words.next()?);
        let options = words.next().unwrap_or("defaults").split(',').map(str::to_owned).collect();
        Some(Mount {
            target: unescape(target),
            root: "/".to_owned(),
            device: String::new(),
            fs_type: fs_type.to_owned(),
            source: unescape(source),
            options,
            shared: false,
            declared: true,
        })
    });
    mounts.filter(|mount| mount.target.starts_with('/')).take(MOUNTS_MAX).collect()
}

/// Blanks, tabs, newlines and backslashes stand as three octal digits.
pub fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = if byte == b'\\' {
            bytes.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())
        } else {
            None
        };
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let mount = line("36 35 98:0 /mnt1 /a\\040b rw,noatime shared:3 master:1 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((mount.target.as_str(), mount.root.as_str(), mount.device.as_str()), ("/a b", "/mnt1", "98:0"));
        assert!(mount.shared && mount.has("rw") && mount.has("errors=continue"));
        let mount = line("36 35 98:0 / / rw - ext4 /dev/root ro").unwrap();
        assert!(mount.has("ro") && !mount.has("rw"));
        assert_eq!(line("nonsense"), None);
        assert_eq!(unescape("a\\04"), "a\\04");
    }
}
