//! Users, groups and the keys that let them in. Hashes of passwords are classed and forgotten.

use std::collections::BTreeMap;

use bulkhead_posture::Fact;
use bulkhead_posture::snapshot::{Group, HostSnapshot, KeyFile, Password, User};

use crate::root::{MapKnown, Root};

/// Users and groups told of.
pub const USERS_MAX: usize = 20_000;
/// Homes that are looked into.
const HOMES_MAX: usize = 2_000;

pub fn collect(root: &Root, snapshot: &mut HostSnapshot) {
    let shadow = root.text("/etc/shadow");
    let passwords: BTreeMap<String, (Password, u32)> = shadow.known().map(|text| shadows(text)).unwrap_or_default();
    snapshot.users = root.text("/etc/passwd").map_known(|text| {
        let mut users: Vec<User> = text.lines().filter_map(|line| user(line, &passwords, shadow.is_absent())).take(USERS_MAX).collect();
        for user in users.iter_mut().filter(|user| user.home.starts_with('/') && user.home.len() > 1).take(HOMES_MAX) {
            user.home_meta = root.meta(&user.home);
        }
        users
    });
    snapshot.groups = root.text("/etc/group").map_known(|text| text.lines().filter_map(group).take(USERS_MAX).collect());
    let mut files = Vec::new();
    for user in snapshot.users.known().into_iter().flatten().take(HOMES_MAX) {
        for name in ["authorized_keys", "authorized_keys2"] {
            let path = format!("{}/.ssh/{name}", user.home.trim_end_matches('/'));
            if let (Fact::Known(text), Fact::Known(meta)) = (root.text(&path), root.meta(&path)) {
                let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).count();
                if !files.iter().any(|file: &KeyFile| file.path == path) {
                    files.push(KeyFile { user: user.name.clone(), path, keys: u32::try_from(keys).unwrap_or(u32::MAX), meta });
                }
            }
        }
    }
    snapshot.key_files = Fact::Known(files);
}

fn user(line: &str, passwords: &BTreeMap<String, (Password, u32)>, without_shadow: bool) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let &[name, password, uid, gid, _, home, shell] = fields.as_slice() else { return None };
    let here = class(password);
    let (password, days, unshadowed) = match (password, passwords.get(name)) {
        ("x", Some((password, days))) => (password.clone(), *days, false),
        ("x", None) if without_shadow => (Password::Locked, 0, false),
        ("x", None) => (Password::Unknown, 0, false),
        ("*" | "!", _) => (Password::Locked, 0, false),
        (_, _) => (here, 0, true),
    };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.to_owned(),
        shell: shell.to_owned(),
        unshadowed,
        password,
        password_days_max: days,
        home_meta: Fact::Absent,
    })
}

fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members })
}

fn shadows(text: &str) -> BTreeMap<String, (Password, u32)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let days = fields.get(4).and_then(|days| days.parse().ok()).unwrap_or(0);
        Some(((*fields.first()?).to_owned(), (class(fields.get(1)?), days)))
    };
    text.lines().filter_map(entry).take(USERS_MAX).collect()
}

/// By the prefixes of crypt(5).
fn class(hash: &str) -> Password {
    let how = match hash {
        "" => return Password::Empty,
        hash if hash.starts_with(['!', '*']) => return Password::Locked,
        hash if hash.starts_with("$y$") => "yescrypt",
        hash if hash.starts_with("$gy$") => "gost-yescrypt",
        hash if hash.starts_with("$7$") => "scrypt",
        hash if hash.starts_with("$2") => "bcrypt",
        hash if hash.starts_with("$6$") => "sha512",
        hash if hash.starts_with("$5$") => "sha256",
        hash if hash.starts_with("$sha1$") => "sha1",
        hash if hash.starts_with("$1$") => "md5",
        hash if hash.starts_with("$3$") => "nt",
        _ => "des",
    };
    Password::Hashed(how.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_classed() {
        let shadow = shadows("root:$y$j9T$x:19000:0:99999:7:::\nold:$1$x$y:1::::::\nfree::1::::::\nlocked:!:1::::::\n");
        assert_eq!(shadow["root"], (Password::Hashed("yescrypt".into()), 99_999));
        assert_eq!(shadow["old"].0, Password::Hashed("md5".into()));
        assert_eq!(shadow["free"].0, Password::Empty);
        assert_eq!(shadow["locked"].0, Password::Locked);
        let root = user("root:x:0:0:root:/root:/bin/bash", &shadow, false).unwrap();
        assert_eq!(root.password, Password::Hashed("yescrypt".into()));
        let other = user("other:x:5:5::/:/bin/sh", &shadow, false).unwrap();
        assert_eq!(other.password, Password::Unknown, "its line in shadow was not read");
        assert!(user("clear:$1$a$b:5:5::/:/bin/sh", &shadow, false).unwrap().unshadowed);
        assert_eq!(user("too:few:fields", &shadow, false), None);
    }
}
