//! Accounts, groups, keys and sudo.

use std::collections::BTreeMap;

use crate::control::{Area, Check, Control, Outcome, Risk, Severity};
use crate::snapshot::{Fact, Group, Password, User};
use crate::view::View;

pub fn controls() -> Vec<Control> {
    let account = |id: &str, title: &str, severity, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Accounts, severity, Check::Other(check)).when_named()
    };
    vec![
        account("account.uid-zero", "only root has user id 0", Severity::Critical, uid_zero)
            .because("A second root is a back door, or hides who did what.")
            .source(&["CIS-Debian-12 5.4.2.1", "Lynis AUTH-9204"])
            .remedy("`usermod -u` with an id of its own, or delete the account"),
        account("account.gid-zero", "only root has group 0 as its first group", Severity::Medium, gid_zero)
            .because("Much that is closed to others is open to group root.")
            .source(&["CIS-Debian-12 5.4.2.2"])
            .remedy("`usermod -g` with a group of its own"),
        account("account.empty-password", "no account has an empty password", Severity::Critical, empty_password)
            .because("Whoever knows the name is in.")
            .source(&["CIS-Debian-12 7.2.2", "Lynis AUTH-9283"])
            .remedy("`passwd -l NAME`"),
        account("account.unshadowed", "passwords are kept in shadow", Severity::High, unshadowed)
            .because("Everybody may read passwd.")
            .source(&["CIS-Debian-12 7.2.1"])
            .remedy("`pwconv`"),
        account("account.weak-hash", "passwords are hashed with yescrypt, bcrypt or SHA-512", Severity::Medium, weak_hash)
            .because("MD5 and DES fall to a desktop computer in hours.")
            .source(&["CIS-Debian-12 5.4.1.4", "Lynis AUTH-9229"])
            .remedy("set `ENCRYPT_METHOD YESCRYPT` in /etc/login.defs, and have the passwords changed"),
        account("account.duplicates", "names and ids of users and groups are given once", Severity::Medium, duplicates)
            .because("Two names of one id share all rights and hide who acted.")
            .source(&["CIS-Debian-12 7.2.4", "CIS-Debian-12 7.2.5", "CIS-Debian-12 7.2.6", "Lynis AUTH-9208"])
            .remedy("give each an id of its own"),
        account("account.system-shell", "system accounts cannot log in", Severity::Low, system_shell)
            .because("A service that is broken into is not to be a login.")
            .source(&["CIS-Debian-12 5.4.2.7"])
            .remedy("`usermod -s /usr/sbin/nologin NAME`")
            .risk(Risk::Low, "scripts that `su` to them"),
        account("account.root-equivalent-groups", "no user is root by a group", Severity::High, root_groups)
            .because("Members of docker, lxd, incus, disk, podman or libvirt become root of the host with one command.")
            .source(&["CIS-Docker-1.6 1.1.2", "Bulkhead"])
            .remedy("`gpasswd -d NAME GROUP`; use rootless engines, or Bulkhead's filtered socket")
            .risk(Risk::Medium, "people and jobs that start containers"),
        account("account.shadow-group", "group shadow has no members", Severity::High, shadow_group)
            .because("They read all hashes of passwords.")
            .source(&["CIS-Debian-12 7.2.4"])
            .remedy("`gpasswd -d NAME shadow`"),
        account("account.homes", "homes belong to their users and are closed to others", Severity::Low, homes)
            .because("Keys and tokens of container tools lie there (~/.docker/config.json, ~/.kube/config).")
            .source(&["CIS-Debian-12 7.2.9"])
            .remedy("`chmod o-rwx,g-w` and `chown` the home"),
        account("account.authorized-keys", "files of authorized keys are written by their users only", Severity::High, key_files)
            .because("Whoever writes there logs in.")
            .source(&["Bulkhead", "CIS-Debian-12 7.2.10"])
            .remedy("`chmod 600` and `chown` the file"),
        account("account.root-keys", "who may log in as root by key is known", Severity::Info, root_keys)
            .because("Keys of people and jobs that are gone stay.")
            .source(&["Bulkhead"])
            .remedy("read /root/.ssh/authorized_keys, and take out what nobody owns"),
        account("sudo.nopasswd", "sudo asks for a password", Severity::Medium, nopasswd)
            .because("A session that is left open, or a program in it, is root.")
            .source(&["CIS-Debian-12 5.2.4"])
            .remedy("take NOPASSWD out of the rule")
            .risk(Risk::Medium, "jobs and cloud images that rely on it"),
        account("sudo.no-authenticate", "sudo's rules do not switch authentication off", Severity::Medium, no_authenticate)
            .because("A session that is left open, or a program in it, is root.")
            .source(&["CIS-Debian-12 5.2.5"])
            .remedy("take `!authenticate` out"),
        account("sudo.use-pty", "sudo runs programs on a terminal of their own", Severity::Low, use_pty)
            .because("A program started by sudo could type into the user's terminal afterwards.")
            .source(&["CIS-Debian-12 5.2.2"])
            .remedy("`Defaults use_pty`"),
        account("sudo.logfile", "what sudo runs is written down", Severity::Low, sudo_log)
            .because("Without a record nobody knows who did what as root.")
            .source(&["CIS-Debian-12 5.2.3"])
            .remedy("`Defaults logfile=\"/var/log/sudo.log\"`, or keep the journal"),
        account("account.password-age", "passwords expire where policy asks for it", Severity::Info, password_age)
            .because("CIS asks for 365 days; NIST no longer does.")
            .source(&["CIS-Debian-12 5.4.1.1"])
            .remedy("`PASS_MAX_DAYS 365` in /etc/login.defs"),
        account("account.password-min-days", "passwords cannot be changed back at once", Severity::Info, password_min)
            .because("Whoever must change a password changes it back the same minute, where nothing forbids it.")
            .source(&["CIS-Debian-12 5.4.1.2", "Lynis AUTH-9286"])
            .remedy("`PASS_MIN_DAYS 1` in /etc/login.defs"),
        account("account.password-quality", "weak passwords are refused", Severity::Info, quality)
            .because("Where people log in with passwords, the weakest is the way in.")
            .source(&["CIS-Debian-12 5.3.3.2", "Lynis AUTH-9262"])
            .remedy("`apt install libpam-pwquality`"),
        account("account.umask", "new files are closed to others", Severity::Low, umask)
            .because("What an administrator writes is not for every service to read.")
            .source(&["CIS-Debian-12 5.4.3.3", "Lynis AUTH-9328"])
            .remedy("`UMASK 027` in /etc/login.defs")
            .risk(Risk::Low, "files that others are meant to read"),
        account("account.rhosts", "no .rhosts or hosts.equiv trusts other hosts", Severity::High, rhosts)
            .because("They let in whoever claims a name.")
            .source(&["CIS-Debian-12 7.2.10"])
            .remedy("delete the file"),
        account("account.su-wheel", "su is for a group only", Severity::Low, su_wheel)
            .because("Guessing root's password by su is open to every account.")
            .source(&["CIS-Debian-12 5.2.7"])
            .remedy("`auth required pam_wheel.so use_uid group=sudo` in /etc/pam.d/su")
            .risk(Risk::Medium, "users outside the group who use su"),
    ]
}

fn users<'a>(view: &View<'a>) -> Result<&'a [User], Outcome> {
    match &view.snapshot.users {
        Fact::Known(users) => Ok(users),
        Fact::Absent => Err(Outcome::not_applicable("there is no /etc/passwd")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

fn groups<'a>(view: &View<'a>) -> Result<&'a [Group], Outcome> {
    match &view.snapshot.groups {
        Fact::Known(groups) => Ok(groups),
        Fact::Absent => Err(Outcome::not_applicable("there is no /etc/group")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

/// Users that `bad` has something to say of.
fn each_user(view: &View<'_>, fine: &str, bad: impl Fn(&User) -> Option<String>) -> Outcome {
    match users(view) {
        Ok(users) => Outcome::of_list(users.iter().filter_map(bad).collect(), format!("{} users: {fine}", users.len())),
        Err(outcome) => outcome,
    }
}

fn uid_zero(view: &View<'_>) -> Outcome {
    each_user(view, "only root has id 0", |user| (user.uid == 0 && user.name != "root").then(|| format!("{} has id 0", user.name)))
}

fn gid_zero(view: &View<'_>) -> Outcome {
    let usual = ["root", "sync", "shutdown", "halt", "operator"];
    each_user(view, "only root has group 0", |user| {
        (user.gid == 0 && user.uid != 0 && !usual.contains(&user.name.as_str())).then(|| format!("{} has group 0", user.name))
    })
}

fn empty_password(view: &View<'_>) -> Outcome {
    match users(view) {
        Ok(users) => {
            let bad =
                users.iter().filter(|user| user.password == Password::Empty).map(|user| format!("{} has an empty password", user.name));
            let unread = users.iter().filter(|user| user.password == Password::Unknown).count();
            let unread = if unread > 0 { vec![format!("passwords of {unread} users could not be read")] } else { Vec::new() };
            Outcome::of_lists(bad.collect(), unread, "every account has a password or is locked")
        }
        Err(outcome) => outcome,
    }
}

fn unshadowed(view: &View<'_>) -> Outcome {
    each_user(view, "all passwords are in shadow", |user| user.unshadowed.then(|| format!("{} has its password in passwd", user.name)))
}

fn weak_hash(view: &View<'_>) -> Outcome {
    match users(view) {
        Ok(users) => {
            let strong = ["yescrypt", "gost-yescrypt", "bcrypt", "scrypt", "sha512", "sha256"];
            let bad = users.iter().filter_map(|user| match &user.password {
                Password::Hashed(how) if !strong.contains(&how.as_str()) => Some(format!("{}: {how}", user.name)),
                Password::Hashed(_) | Password::Unknown | Password::Empty | Password::Locked => None,
            });
            let bad = bad.collect();
            let unread = users.iter().filter(|user| user.password == Password::Unknown).count();
            let unread = if unread > 0 { vec![format!("passwords of {unread} users could not be read")] } else { Vec::new() };
            Outcome::of_lists(bad, unread, "no weak hash")
        }
        Err(outcome) => outcome,
    }
}

fn duplicates(view: &View<'_>) -> Outcome {
    let (users, groups) = match (users(view), groups(view)) {
        (Ok(users), Ok(groups)) => (users, groups),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    let mut found = Vec::new();
    let mut ids: BTreeMap<u32, &str> = BTreeMap::new();
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    for user in users {
        if let Some(other) = ids.insert(user.uid, &user.name).filter(|other| *other != user.name) {
            found.push(format!("users {other} and {} have id {}", user.name, user.uid));
        }
        if names.insert(&user.name, user.uid).is_some() {
            found.push(format!("user {} stands twice in passwd", user.name));
        }
    }
    ids.clear();
    names.clear();
    for group in groups {
        if let Some(other) = ids.insert(group.gid, &group.name).filter(|other| *other != group.name) {
            found.push(format!("groups {other} and {} have id {}", group.name, group.gid));
        }
        if names.insert(&group.name, group.gid).is_some() {
            found.push(format!("group {} stands twice in group", group.name));
        }
    }
    Outcome::of_list(found, "none is given twice")
}

fn shuts(shell: &str) -> bool {
    matches!(shell.rsplit('/').next(), Some("nologin" | "false" | "sync" | "shutdown" | "halt" | "git-shell"))
}

fn system_shell(view: &View<'_>) -> Outcome {
    each_user(view, "no system account has a shell", |user| {
        let system = user.uid != 0 && (user.uid < 1000 || user.uid == 65534);
        (system && !shuts(&user.shell) && user.password != Password::Locked)
            .then(|| format!("{} (id {}) has shell {}", user.name, user.uid, if user.shell.is_empty() { "/bin/sh" } else { &user.shell }))
    })
}

const ROOT_GROUPS: [&str; 7] = ["docker", "lxd", "incus-admin", "disk", "podman", "libvirt", "kmem"];

fn root_groups(view: &View<'_>) -> Outcome {
    let (users, groups) = match (users(view), groups(view)) {
        (Ok(users), Ok(groups)) => (users, groups),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    let mut found = Vec::new();
    for group in groups.iter().filter(|group| ROOT_GROUPS.contains(&group.name.as_str())) {
        let first = users.iter().filter(|user| user.gid == group.gid).map(|user| &user.name);
        let members = group.members.iter().chain(first).filter(|name| *name != "root");
        found.extend(members.map(|name| format!("{name} is in {}", group.name)));
    }
    Outcome::of_list(found, format!("none of {} has members", ROOT_GROUPS.join(", ")))
}

fn shadow_group(view: &View<'_>) -> Outcome {
    match groups(view) {
        Ok(groups) => {
            let members = groups.iter().filter(|group| group.name == "shadow").flat_map(|group| &group.members);
            Outcome::of_list(members.map(|name| format!("{name} is in shadow")).collect(), "no members")
        }
        Err(outcome) => outcome,
    }
}

fn homes(view: &View<'_>) -> Outcome {
    let users = match users(view) {
        Ok(users) => users,
        Err(outcome) => return outcome,
    };
    let mut bad = Vec::new();
    let mut unread = Vec::new();
    for user in users.iter().filter(|user| user.uid >= 1000 && user.uid != 65534 && !shuts(&user.shell)) {
        match &user.home_meta {
            Fact::Known(meta) if meta.uid != user.uid && meta.uid != 0 => bad.push(format!("{} belongs to id {}", user.home, meta.uid)),
            Fact::Known(meta) if meta.mode & 0o027 != 0 => bad.push(format!("{} has mode {:04o}", user.home, meta.mode)),
            Fact::Known(_) | Fact::Absent => {}
            Fact::Unreadable(why) => unread.push(format!("{}: {why}", user.home)),
        }
    }
    Outcome::of_lists(bad, unread, "all homes are closed")
}

fn key_files(view: &View<'_>) -> Outcome {
    match &view.snapshot.key_files {
        Fact::Known(files) => {
            let owner = |name: &str| view.snapshot.users.known()?.iter().find(|user| user.name == name).map(|user| user.uid);
            let bad = files.iter().filter_map(|file| {
                if file.meta.mode & 0o022 != 0 {
                    Some(format!("{} has mode {:04o}", file.path, file.meta.mode))
                } else if file.meta.uid != 0 && Some(file.meta.uid) != owner(&file.user) {
                    Some(format!("{} of {} belongs to id {}", file.path, file.user, file.meta.uid))
                } else {
                    None
                }
            });
            Outcome::of_list(bad.collect(), format!("{} files of keys", files.len()))
        }
        Fact::Absent => Outcome::passed("there are none"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

fn root_keys(view: &View<'_>) -> Outcome {
    match &view.snapshot.key_files {
        Fact::Known(files) => {
            let roots = files.iter().filter(|file| file.user == "root" && file.keys > 0);
            Outcome::of_list(roots.map(|file| format!("{} holds {} keys", file.path, file.keys)).collect(), "root has no keys")
        }
        Fact::Absent => Outcome::passed("there are none"),
        Fact::Unreadable(why) => Outcome::unknown(why.clone()),
    }
}

/// Lines of sudo's rules that are not comments, with their file.
fn sudo_lines(view: &View<'_>) -> Result<Vec<(String, String)>, Outcome> {
    let main = "/etc/sudoers";
    let mut files: Vec<(&str, &str)> = Vec::new();
    match view.snapshot.texts.get(main) {
        Some(Fact::Known(text)) => files.push((main, text)),
        Some(Fact::Unreadable(why)) => return Err(Outcome::unknown(format!("{main}: {why}"))),
        Some(Fact::Absent) => return Err(Outcome::not_applicable("there is no /etc/sudoers")),
        None => return Err(Outcome::unknown("/etc/sudoers was not looked at")),
    }
    files.extend(view.snapshot.texts_in("/etc/sudoers.d", "").filter(|(path, _)| {
        let name = path.rsplit('/').next().unwrap_or_default();
        !name.contains('.') && !name.ends_with('~')
    }));
    let lines = files.into_iter().flat_map(|(path, text)| text.lines().map(move |line| (path.to_owned(), line.trim().to_owned())));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

fn sudo_with(view: &View<'_>, word: &str, fine: &str) -> Outcome {
    match sudo_lines(view) {
        Ok(lines) => {
            let found = lines.iter().filter(|(_, line)| line.contains(word)).map(|(path, line)| format!("{path}: {line}"));
            Outcome::of_list(found.collect(), fine)
        }
        Err(outcome) => outcome,
    }
}

fn nopasswd(view: &View<'_>) -> Outcome {
    sudo_with(view, "NOPASSWD", "no rule says NOPASSWD")
}

fn no_authenticate(view: &View<'_>) -> Outcome {
    sudo_with(view, "!authenticate", "no rule says !authenticate")
}

fn sudo_wants(view: &View<'_>, wanted: &str) -> Outcome {
    match sudo_lines(view) {
        Ok(lines) => match lines
            .iter()
            .find(|(_, line)| line.starts_with("Defaults") && line.contains(wanted) && !line.contains(&format!("!{wanted}")))
        {
            Some((path, line)) => Outcome::passed(format!("{path}: {line}")),
            None => Outcome::failed(format!("no `Defaults {wanted}`")),
        },
        Err(outcome) => outcome,
    }
}

fn use_pty(view: &View<'_>) -> Outcome {
    sudo_wants(view, "use_pty")
}

fn sudo_log(view: &View<'_>) -> Outcome {
    let journal = view.snapshot.init.known().is_some_and(|init| init == "systemd");
    match sudo_wants(view, "logfile") {
        Outcome { status: crate::control::Status::Failed, .. } if journal => {
            Outcome::passed("sudo writes to syslog, which the journal keeps")
        }
        outcome => outcome,
    }
}

/// A word of /etc/login.defs.
fn login_defs(view: &View<'_>, key: &str) -> Result<Option<String>, Outcome> {
    match view.snapshot.text("/etc/login.defs") {
        Fact::Known(text) => Ok(text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(key)).then(|| words.next().unwrap_or_default().to_owned())
        })),
        Fact::Absent => Err(Outcome::not_applicable("there is no /etc/login.defs")),
        Fact::Unreadable(why) => Err(Outcome::unknown(why)),
    }
}

fn password_age(view: &View<'_>) -> Outcome {
    match login_defs(view, "PASS_MAX_DAYS") {
        Ok(Some(days)) if days.parse::<u32>().is_ok_and(|days| (1..=365).contains(&days)) => {
            Outcome::passed(format!("PASS_MAX_DAYS {days}"))
        }
        Ok(days) => Outcome::failed(format!("PASS_MAX_DAYS {}", days.unwrap_or_else(|| "is not set".to_owned()))),
        Err(outcome) => outcome,
    }
}

fn password_min(view: &View<'_>) -> Outcome {
    match login_defs(view, "PASS_MIN_DAYS") {
        Ok(Some(days)) if days.parse::<u32>().is_ok_and(|days| days >= 1) => Outcome::passed(format!("PASS_MIN_DAYS {days}")),
        Ok(days) => Outcome::failed(format!("PASS_MIN_DAYS {}", days.unwrap_or_else(|| "is not set".to_owned()))),
        Err(outcome) => outcome,
    }
}

fn quality(view: &View<'_>) -> Outcome {
    match view.snapshot.text("/etc/pam.d/common-password") {
        Fact::Known(text) => {
            let modules = ["pam_pwquality.so", "pam_cracklib.so", "pam_passwdqc.so"];
            let line =
                text.lines().map(str::trim).find(|line| !line.starts_with('#') && modules.iter().any(|module| line.contains(module)));
            line.map_or_else(|| Outcome::failed("/etc/pam.d/common-password asks no module for a password's strength"), Outcome::passed)
        }
        Fact::Absent => Outcome::not_applicable("there is no /etc/pam.d/common-password"),
        Fact::Unreadable(why) => Outcome::unknown(why),
    }
}

fn umask(view: &View<'_>) -> Outcome {
    match login_defs(view, "UMASK") {
        Ok(Some(mask)) if u32::from_str_radix(&mask, 8).is_ok_and(|mask| mask & 0o027 == 0o027) => Outcome::passed(format!("UMASK {mask}")),
        Ok(mask) => Outcome::failed(format!("UMASK {}", mask.unwrap_or_else(|| "is not set".to_owned()))),
        Err(outcome) => outcome,
    }
}

fn rhosts(view: &View<'_>) -> Outcome {
    let paths = ["/etc/hosts.equiv", "/root/.rhosts"];
    let found = paths.iter().filter(|path| view.snapshot.exists(path) == Some(true)).map(|path| format!("{path} is there"));
    let unread = paths.iter().filter(|path| view.snapshot.exists(path).is_none()).map(|path| format!("{path} could not be looked at"));
    Outcome::of_lists(found.collect(), unread.collect(), "neither is there")
}

fn su_wheel(view: &View<'_>) -> Outcome {
    match view.snapshot.text("/etc/pam.d/su") {
        Fact::Known(text) => {
            let on = text
                .lines()
                .map(str::trim)
                .find(|line| !line.starts_with('#') && line.contains("pam_wheel.so") && line.contains("required"));
            match on {
                Some(line) => Outcome::passed(line.to_owned()),
                None => Outcome::failed("/etc/pam.d/su does not ask for pam_wheel"),
            }
        }
        Fact::Absent => Outcome::not_applicable("there is no /etc/pam.d/su"),
        Fact::Unreadable(why) => Outcome::unknown(why),
    }
}
