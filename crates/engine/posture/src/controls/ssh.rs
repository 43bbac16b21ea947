//! The ssh server.

use crate::control::Want::{AtMost, Between, NoneOf, One};
use crate::control::{Area, Check, Control, Outcome, Risk, Severity, Want};
use crate::view::View;

const WEAK_CIPHERS: &[&str] = &[
    "3des-cbc",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "arcfour",
    "arcfour128",
    "arcfour256",
    "blowfish-cbc",
    "cast128-cbc",
    "rijndael-cbc@lysator.liu.se",
];
const WEAK_MACS: &[&str] = &[
    "hmac-md5",
    "hmac-md5-96",
    "hmac-ripemd160",
    "hmac-sha1-96",
    "umac-64@openssh.com",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
    "hmac-ripemd160-etm@openssh.com",
    "hmac-sha1-96-etm@openssh.com",
];
const WEAK_EXCHANGES: &[&str] = &["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"];
const WEAK_KEYS: &[&str] = &["ssh-dss", "ssh-rsa"];

/// Keyword, wanted, OpenSSH's default, severity, source, why, risk, what it may break.
type Row = (&'static str, Want, &'static str, Severity, &'static str, &'static str, Risk, &'static str);

const ROWS: &[Row] = &[
    (
        "PermitRootLogin",
        One(&["no", "prohibit-password", "without-password", "forced-commands-only"]),
        "prohibit-password",
        Severity::High,
        "CIS-Debian-12 5.1.20",
        "Guessing root's password is what every bot does.",
        Risk::High,
        "whoever logs in as root with a password",
    ),
    (
        "PasswordAuthentication",
        One(&["no"]),
        "yes",
        Severity::Medium,
        "Lynis SSH-7408",
        "Keys cannot be guessed.",
        Risk::High,
        "whoever has no key",
    ),
    ("PermitEmptyPasswords", One(&["no"]), "no", Severity::Critical, "CIS-Debian-12 5.1.19", "No password is no login.", Risk::None, ""),
    (
        "HostbasedAuthentication",
        One(&["no"]),
        "no",
        Severity::Medium,
        "CIS-Debian-12 5.1.10",
        "It trusts whoever is root on another host.",
        Risk::Low,
        "",
    ),
    (
        "IgnoreRhosts",
        One(&["yes", "shosts-only"]),
        "yes",
        Severity::Medium,
        "CIS-Debian-12 5.1.11",
        "Users would say whom the host trusts.",
        Risk::None,
        "",
    ),
    (
        "PermitUserEnvironment",
        One(&["no"]),
        "no",
        Severity::Medium,
        "CIS-Debian-12 5.1.21",
        "LD_PRELOAD past a forced command.",
        Risk::Low,
        "",
    ),
    ("StrictModes", One(&["yes"]), "yes", Severity::Medium, "Lynis SSH-7408", "Keys that others may write to are no keys.", Risk::None, ""),
    (
        "X11Forwarding",
        One(&["no"]),
        "no",
        Severity::Low,
        "CIS-Debian-12 5.1.8",
        "A host of containers shows no windows; the channel leads back to the user's own screen.",
        Risk::Low,
        "graphical programs over ssh",
    ),
    (
        "AllowTcpForwarding",
        One(&["no", "local"]),
        "yes",
        Severity::Low,
        "CIS-Debian-12 5.1.8",
        "A login becomes a way into the containers' networks.",
        Risk::Medium,
        "tunnels that administrators use",
    ),
    (
        "AllowAgentForwarding",
        One(&["no"]),
        "yes",
        Severity::Low,
        "Lynis SSH-7408",
        "Root here may use the user's keys elsewhere.",
        Risk::Medium,
        "logins from here to further hosts",
    ),
    ("GatewayPorts", One(&["no"]), "no", Severity::Medium, "Bulkhead", "A tunnel's end would listen to the whole network.", Risk::Low, ""),
    ("PermitTunnel", One(&["no"]), "no", Severity::Low, "Bulkhead", "A login becomes a network device.", Risk::Low, ""),
    (
        "MaxAuthTries",
        AtMost(4),
        "6",
        Severity::Low,
        "CIS-Debian-12 5.1.16",
        "Fewer guesses a connection.",
        Risk::Low,
        "agents with many keys",
    ),
    (
        "MaxSessions",
        AtMost(10),
        "10",
        Severity::Low,
        "CIS-Debian-12 5.1.17",
        "One connection is not to hold all of a server.",
        Risk::None,
        "",
    ),
    (
        "LoginGraceTime",
        Between(1, 60),
        "120",
        Severity::Low,
        "CIS-Debian-12 5.1.13",
        "Half-open logins hold places; regreSSHion (CVE-2024-6387) needed the time.",
        Risk::None,
        "",
    ),
    (
        "ClientAliveInterval",
        Between(1, 900),
        "0",
        Severity::Low,
        "CIS-Debian-12 5.1.7",
        "Sessions of machines that are gone stay open for whoever finds them.",
        Risk::Low,
        "sessions over links that fall asleep",
    ),
    (
        "LogLevel",
        One(&["INFO", "VERBOSE", "DEBUG", "DEBUG1"]),
        "INFO",
        Severity::Low,
        "CIS-Debian-12 5.1.14",
        "Logins must be told of.",
        Risk::None,
        "",
    ),
    (
        "UsePAM",
        One(&["yes"]),
        "yes",
        Severity::Medium,
        "CIS-Debian-12 5.1.22",
        "Limits, locks and second factors are PAM's.",
        Risk::High,
        "logins, where PAM is not set up",
    ),
    (
        "GSSAPIAuthentication",
        One(&["no"]),
        "no",
        Severity::Low,
        "CIS-Debian-12 5.1.9",
        "Code that is not used before login.",
        Risk::Medium,
        "Kerberos logins",
    ),
    (
        "Ciphers",
        NoneOf(WEAK_CIPHERS),
        "",
        Severity::Medium,
        "CIS-Debian-12 5.1.6",
        "CBC and RC4 give texts away.",
        Risk::Low,
        "clients from before 2014",
    ),
    (
        "MACs",
        NoneOf(WEAK_MACS),
        "",
        Severity::Medium,
        "CIS-Debian-12 5.1.15",
        "Short or broken sums can be forged.",
        Risk::Low,
        "clients from before 2014",
    ),
    (
        "KexAlgorithms",
        NoneOf(WEAK_EXCHANGES),
        "",
        Severity::Medium,
        "CIS-Debian-12 5.1.12",
        "SHA-1 and 1024-bit groups can be broken.",
        Risk::Low,
        "clients from before 2014",
    ),
    (
        "HostKeyAlgorithms",
        NoneOf(WEAK_KEYS),
        "",
        Severity::Medium,
        "Bulkhead",
        "Signatures with SHA-1 can be forged.",
        Risk::Low,
        "clients from before 2016",
    ),
];

pub fn controls() -> Vec<Control> {
    let mut all: Vec<Control> = ROWS.iter().map(control).collect();
    all.push(
        Control::new("ssh.protocol", "the ssh server speaks protocol 2 only", Area::Accounts, Severity::Critical, Check::Other(protocol))
            .because("Version 1 is broken.")
            .source(&["Lynis SSH-7408"])
            .remedy("take `Protocol 1` out of sshd_config")
            .when_named(),
    );
    all.push(
        Control::new("ssh.access-list", "who may log in by ssh is listed", Area::Accounts, Severity::Low, Check::Other(access))
            .because("Service accounts that get a password by mistake stay shut out.")
            .source(&["CIS-Debian-12 5.1.4"])
            .remedy("`AllowGroups` with the group of administrators in sshd_config")
            .risk(Risk::High, "whoever is not in the list")
            .when_named(),
    );
    all
}

fn control(row: &Row) -> Control {
    let &(keyword, want, default, severity, source, why, risk, note) = row;
    let mut id = String::from("ssh.");
    for (at, c) in keyword.char_indices() {
        let before = keyword.get(..at).and_then(|before| before.chars().next_back());
        if c.is_ascii_uppercase() && before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit()) {
            id.push('-');
        }
        id.push(c.to_ascii_lowercase());
    }
    let value = want.value();
    let remedy = match &value {
        Some(value) => format!("`{keyword} {value}` in /etc/ssh/sshd_config.d/00-bulkhead.conf, then `systemctl reload ssh`"),
        None => format!("take them out of `{keyword}` in /etc/ssh/sshd_config"),
    };
    let control =
        Control::new(id, format!("sshd: {keyword} is {}", want.text()), Area::Accounts, severity, Check::Ssh { keyword, want, default })
            .because(why)
            .source(&[source])
            .remedy(remedy)
            .risk(risk, note);
    // Never part of a profile where it can shut somebody out.
    if matches!(risk, Risk::Medium | Risk::High) || value.is_none() { control.when_named() } else { control }
}

/// Is there an ssh server, as far as can be seen? An outcome where there is none or it cannot be told.
pub fn server(view: &View<'_>) -> Result<(), Outcome> {
    let installed = ["/usr/sbin/sshd", "/usr/bin/sshd"].map(|path| view.snapshot.exists(path));
    let listens = view
        .snapshot
        .listeners
        .known()
        .is_some_and(|list| list.iter().any(|one| one.exe.as_deref().is_some_and(|exe| exe.ends_with("/sshd"))));
    let config = view.snapshot.texts.get(crate::view::SSHD_CONFIG);
    match config {
        Some(fact) if fact.known().is_some() => Ok(()),
        Some(fact) if fact.unreadable().is_some() => Err(Outcome::unknown(fact.unreadable().unwrap_or_default())),
        _ if listens || installed.contains(&Some(true)) => Ok(()),
        _ if installed.contains(&None) => Err(Outcome::unknown("whether an ssh server is installed was not looked at")),
        _ => Err(Outcome::not_applicable("no sshd is installed, none listens, and /etc/ssh/sshd_config is not there")),
    }
}

fn protocol(view: &View<'_>) -> Outcome {
    if let Err(outcome) = server(view) {
        return outcome;
    }
    match view.ssh.get("protocol") {
        Some(value) if value.contains('1') => Outcome::failed(format!("Protocol {value}")),
        Some(_) | None => Outcome::passed("no Protocol 1"),
    }
}

fn access(view: &View<'_>) -> Outcome {
    if let Err(outcome) = server(view) {
        return outcome;
    }
    let keywords = ["allowusers", "allowgroups", "denyusers", "denygroups"];
    match keywords.iter().find_map(|keyword| Some((keyword, view.ssh.get(*keyword)?))) {
        Some((keyword, value)) => Outcome::passed(format!("{keyword} {value}")),
        None => Outcome::failed("neither AllowUsers, AllowGroups, DenyUsers nor DenyGroups is set"),
    }
}
