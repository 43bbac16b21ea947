//! Where rule sets are published, and how one is fetched: whole, within caps, and compared with the checksum that its publisher
//! puts beside it.
//!
//! Source for the list and the scheme (`URL.md5` holds the MD5 of what is at `URL`): the public index of suricata-update. MD5 finds
//! what was damaged or mixed up on the way, not what was forged: against that there is TLS, and `--sha256`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::failure::Failure;
use crate::ruleset::{bytes_of, text_of};

/// Bytes of an archive; that of ET Open has 5 MB.
const ARCHIVE_BYTES_MAX: u64 = 64 << 20;
const CHECKSUM_BYTES_MAX: u64 = 4096;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// For one file, whatever its size.
const FETCH_TIME_MAX: Duration = Duration::from_secs(300);

/// Where distributions keep the certificates of the authorities that the host trusts; `SSL_CERT_FILE` names another place.
const ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Sources of one's own, a line each: `name url [md5|sha256|none]`; what stands there goes before the list below.
pub const SOURCES_FILE: &str = "/etc/bulkhead/rules/sources.conf";

/// A published set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Published {
    pub name: String,
    pub url: String,
    pub checksum: Checksum,
    pub summary: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// Given by the operator.
    Given,
    Sha256,
    Md5,
    None,
}

/// What was fetched, and by what it was found to be whole.
#[derive(Debug)]
pub struct Fetched {
    /// Of the file, without folders.
    pub file: String,
    pub bytes: Vec<u8>,
    pub sha256: String,
    pub checksum: Checksum,
}

const BUILTIN: &[(&str, &str, Checksum, &str)] = &[
    (
        "et/open",
        "https://rules.emergingthreats.net/open/suricata-7.0.3/emerging.rules.tar.gz",
        Checksum::Md5,
        "Emerging Threats Open (Proofpoint; MIT)",
    ),
    (
        "oisf/trafficid",
        "https://openinfosecfoundation.org/rules/trafficid/trafficid.rules",
        Checksum::None,
        "what application a flow is (OISF; MIT)",
    ),
    ("sslbl/ssl-fp-blacklist", "https://sslbl.abuse.ch/blacklist/sslblacklist.rules", Checksum::None, "certificates of botnets (abuse.ch)"),
    ("sslbl/ja3-fingerprints", "https://sslbl.abuse.ch/blacklist/ja3_fingerprints.rules", Checksum::None, "JA3 of malware (abuse.ch)"),
    (
        "tgreen/hunting",
        "https://raw.githubusercontent.com/travisbgreen/hunting-rules/master/hunting.rules",
        Checksum::None,
        "what is odd, for hunting (T. Green; GPLv3)",
    ),
    (
        "ptresearch/attackdetection",
        "https://raw.githubusercontent.com/ptresearch/AttackDetection/master/pt.rules.tar.gz",
        Checksum::None,
        "attacks and malware (Positive Technologies)",
    ),
    (
        "etnetera/aggressive",
        "https://security.etnetera.cz/feeds/etn_aggressive.rules",
        Checksum::None,
        "addresses that attack (Etnetera; MIT)",
    ),
];

/// Those of the operator's file, then those that everybody has.
pub fn published(file: &Path) -> Result<Vec<Published>, Failure> {
    let mut all = Vec::new();
    if file.is_file() {
        for (number, line) in text_of(file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let checksum = |word: Option<&str>| match word {
                None | Some("none") => Some(Checksum::None),
                Some("md5") => Some(Checksum::Md5),
                Some("sha256") => Some(Checksum::Sha256),
                Some(_) => None,
            };
            match (words.next(), words.next().filter(|url| is_url(url)), checksum(words.next()), words.next()) {
                (Some(name), Some(url), Some(checksum), None) => {
                    all.push(Published { name: name.into(), url: url.into(), checksum, summary: format!("of {}", file.display()) });
                }
                _ => {
                    let message = format!("{}:{}: this is not a source", file.display(), number + 1);
                    return Err(Failure::usage(message, "write `name url`, and perhaps `md5` or `sha256`"));
                }
            }
        }
    }
    for (name, url, checksum, summary) in BUILTIN {
        if !all.iter().any(|known| known.name == *name) {
            let (name, url, summary) = ((*name).to_owned(), (*url).to_owned(), (*summary).to_owned());
            all.push(Published { name, url, checksum: *checksum, summary });
        }
    }
    Ok(all)
}

pub fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// `scheme`: what the publisher is known to put beside it; `None`: whatever is there. `given`: a SHA-256 that it must have.
pub fn fetch(url: &str, scheme: Option<Checksum>, given: Option<&str>) -> Result<Fetched, Failure> {
    let agent = agent(url)?;
    let bytes = get(&agent, url, ARCHIVE_BYTES_MAX)?.ok_or_else(|| cannot(url, "it is not there (404)"))?;
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let file = path.rsplit('/').next().unwrap_or_default().to_owned();
    let beside = |suffix: &str| -> Result<Option<String>, Failure> {
        let bytes = get(&agent, &format!("{path}{suffix}"), CHECKSUM_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let fetched = verified(url, file, bytes, scheme, given, beside)?;
    if fetched.checksum == Checksum::None && !url.starts_with("https://") {
        let help = "give `--sha256`, or a source with TLS";
        return Err(Failure::usage(format!("`{url}` has neither TLS nor a checksum: anybody could have written it"), help));
    }
    Ok(fetched)
}

/// The same for a file; its checksum may lie beside it.
pub fn read(path: &Path, given: Option<&str>) -> Result<Fetched, Failure> {
    let bytes = bytes_of(path)?;
    let beside = |suffix: &str| -> Result<Option<String>, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        if path.is_file() { text_of(&path).map(Some) } else { Ok(None) }
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    verified(&path.display().to_string(), file, bytes, None, given, beside)
}

fn verified(
    origin: &str,
    file: String,
    bytes: Vec<u8>,
    scheme: Option<Checksum>,
    given: Option<&str>,
    beside: impl Fn(&str) -> Result<Option<String>, Failure>,
) -> Result<Fetched, Failure> {
    let sha256 = hex(&Sha256::digest(&bytes));
    let md5 = || hex(&Md5::digest(&bytes));
    let (checksum, wanted, found) = if let Some(given) = given {
        (Checksum::Given, Some(given.to_owned()), sha256.clone())
    } else {
        match scheme {
            Some(Checksum::Md5) => (Checksum::Md5, beside(".md5")?, md5()),
            Some(Checksum::Sha256) => (Checksum::Sha256, beside(".sha256")?, sha256.clone()),
            Some(Checksum::None | Checksum::Given) => (Checksum::None, None, String::new()),
            None => match beside(".sha256")? {
                Some(text) => (Checksum::Sha256, Some(text), sha256.clone()),
                None => match beside(".md5")? {
                    Some(text) => (Checksum::Md5, Some(text), md5()),
                    None => (Checksum::None, None, String::new()),
                },
            },
        }
    };
    let refuse =
        |why: String| Err(Failure::usage(format!("`{origin}`: {why}"), "nothing was changed; try again later, or ask who publishes it"));
    match (checksum, wanted) {
        (Checksum::None, _) => {}
        (_, None) => return refuse("its checksum is not there".to_owned()),
        // As `md5sum` writes it, a name may follow.
        (_, Some(text)) => match text.split_whitespace().next() {
            Some(wanted) if wanted.eq_ignore_ascii_case(&found) => {}
            Some(wanted) => {
                let wanted: String = wanted.chars().take(64).collect();
                return refuse(format!("its checksum is {found}, and should be {wanted}"));
            }
            None => return refuse("its checksum is empty".to_owned()),
        },
    }
    Ok(Fetched { file, bytes, sha256, checksum })
}

fn agent(url: &str) -> Result<Agent, Failure> {
    let secure = url.starts_with("https://");
    // Also without TLS: a redirect may lead into it.
    let roots = match roots() {
        Err(_) if !secure => RootCerts::from([]),
        roots => roots?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots);
    let agent = Agent::config_builder()
        .tls_config(tls.build())
        // A redirect must not lead out of TLS.
        .https_only(secure)
        .timeout_connect(Some(CONNECT_TIME_MAX))
        .timeout_global(Some(FETCH_TIME_MAX))
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    Ok(agent)
}

/// Those that the host trusts, not ones of ours: its administrator adds and removes them.
fn roots() -> Result<RootCerts, Failure> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| ROOTS.iter().map(PathBuf::from).find(|path| path.is_file()));
    let Some(file) = file else {
        let help = "install `ca-certificates`, or name a file of certificates with SSL_CERT_FILE";
        return Err(Failure::Unable("this host trusts no authority for TLS".to_owned(), Some(help.to_owned())));
    };
    let bytes = bytes_of(&file)?;
    let found: Vec<Certificate<'static>> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    Ok(RootCerts::from(found))
}

/// `None`: there is no such thing.
fn get(agent: &Agent, url: &str, max: u64) -> Result<Option<Vec<u8>>, Failure> {
    match agent.get(url).call() {
        Ok(mut response) => match response.body_mut().with_config().limit(max).read_to_vec() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ureq::Error::BodyExceedsLimit(_)) => Err(cannot(url, &format!("it has more than {max} bytes"))),
            Err(error) => Err(cannot(url, &error.to_string())),
        },
        Err(ureq::Error::StatusCode(404 | 410)) => Ok(None),
        Err(error) => Err(cannot(url, &error.to_string())),
    }
}

fn cannot(url: &str, why: &str) -> Failure {
    Failure::Unable(
        format!("cannot fetch `{url}`: {why}"),
        Some("nothing was changed; a set that was fetched elsewhere can be given as a file".to_owned()),
    )
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        _ = write!(out, "{byte:02x}");
        out
    })
}
