//! Settings under the names that Suricata's configuration has: `stream.midstream`, `outputs.0.eve-log.types.1.http.extended`.
//!
//! A file is flattened to dotted keys, places in lists are numbers; a list of maps with one key each, as `outputs` is, has the key's
//! name as the place's own value too. `--set key=value` is laid over it. What a key does here stands in [`KEYS`]; keys that are in no
//! row are told of, and counted, because a setting that is silently without effect is worse than none.

use std::collections::{BTreeMap, BTreeSet};

use crate::yaml::{self, Refused, Yaml};

/// Keys of all files together.
const KEYS_MAX: usize = 200_000;
/// Files that include one another.
const INCLUDES_MAX: usize = 16;

/// Opens files that a configuration names.
pub trait Files {
    fn read(&self, name: &str) -> Option<Vec<u8>>;
}

/// There are none.
impl Files for () {
    fn read(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    keys: BTreeMap<String, String>,
}

/// What is the matter with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub key: String,
}

impl Settings {
    /// What holds where no file is given: everything that EVE has but payloads, as Suricata's own file sets it.
    pub fn builtin() -> Self {
        let mut settings = Self::default();
        settings.set("vars.address-groups.HOME_NET", "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]");
        settings.set("outputs.0", "eve-log");
        settings.set("outputs.0.eve-log.enabled", "yes");
        settings.set("outputs.0.eve-log.filename", "eve.json");
        for (at, name) in DEFAULT_TYPES.iter().enumerate() {
            settings.set(&format!("outputs.0.eve-log.types.{at}"), name);
        }
        let at = |name: &str| DEFAULT_TYPES.iter().position(|of| *of == name).unwrap_or_default();
        for (name, option, value) in [
            ("alert", "tagged-packets", "yes"),
            ("anomaly", "enabled", "yes"),
            ("http", "extended", "yes"),
            ("tls", "extended", "yes"),
            ("smtp", "extended", "no"),
            ("dhcp", "enabled", "yes"),
            ("dhcp", "extended", "no"),
            ("pgsql", "enabled", "no"),
            ("frame", "enabled", "no"),
        ] {
            settings.set(&format!("outputs.0.eve-log.types.{}.{name}.{option}", at(name)), value);
        }
        settings
    }

    /// A configuration file and those that it includes.
    pub fn read(text: &str, files: &dyn Files) -> Result<Self, Refused> {
        let mut settings = Self::default();
        let mut includes = INCLUDES_MAX;
        settings.lay(String::new(), &yaml::read(text)?, files, &mut includes)?;
        Ok(settings)
    }

    fn lay(&mut self, prefix: String, node: &Yaml, files: &dyn Files, includes: &mut usize) -> Result<(), Refused> {
        let under = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        match node {
            Yaml::Null => self.set(&prefix, ""),
            Yaml::Text { text, .. } => self.set(&prefix, text),
            Yaml::Include(name) => return self.include(prefix, name, files, includes),
            Yaml::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    if let [(name, _)] = item.entries() {
                        self.set(&under(&at.to_string()), name);
                    }
                    self.lay(under(&at.to_string()), item, files, includes)?;
                }
                if items.is_empty() {
                    self.set(&prefix, "");
                }
            }
            Yaml::Map(entries) => {
                for (name, value) in entries {
                    if name == "include" && prefix.is_empty() {
                        let names = value.text().into_iter().chain(value.items().iter().filter_map(Yaml::text));
                        for name in names {
                            self.include(prefix.clone(), name, files, includes)?;
                        }
                    } else {
                        self.lay(under(name), value, files, includes)?;
                    }
                }
                if entries.is_empty() {
                    self.set(&prefix, "");
                }
            }
        }
        Ok(())
    }

    fn include(&mut self, prefix: String, name: &str, files: &dyn Files, includes: &mut usize) -> Result<(), Refused> {
        *includes = includes.checked_sub(1).ok_or(Refused::TooLarge("16 included files"))?;
        let bytes = files.read(name).ok_or_else(|| Refused::Syntax(format!("the included file `{name}` cannot be read")))?;
        let node = yaml::read(&String::from_utf8_lossy(&bytes))?;
        self.lay(prefix, &node, files, includes)
    }

    /// What `over` says counts, and where it says nothing, these.
    pub fn under(mut self, over: Self) -> Self {
        self.keys.extend(over.keys);
        self
    }

    /// What a later source says counts.
    pub fn set(&mut self, key: &str, value: &str) {
        if self.keys.len() < KEYS_MAX {
            self.keys.insert(key.to_owned(), value.to_owned());
        }
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// Whether the key, or one below it, is there.
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key) || self.below(key).next().is_some()
    }

    /// `None`: not set, or neither yes nor no.
    pub fn is(&self, key: &str) -> Option<bool> {
        flag(self.get(key)?)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        number(self.get(key)?)
    }

    /// Names and values of what stands right below a key and has a value.
    pub fn children(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        let skip = key.len() + 1;
        self.below(key).map(move |(name, value)| (&name[skip..], value)).filter(|(name, _)| !name.contains('.'))
    }

    /// The items of a list in their order: each one's key and value.
    pub fn list(&self, key: &str) -> Vec<(String, &str)> {
        let mut places: BTreeMap<u32, &str> = BTreeMap::new();
        let skip = key.len() + 1;
        for (name, value) in self.below(key) {
            let rest = &name[skip..];
            let (place, own) = rest.split_once('.').map_or((rest, true), |(place, _)| (place, false));
            if let Ok(place) = place.parse() {
                let entry = places.entry(place).or_insert("");
                if own {
                    *entry = value;
                }
            }
        }
        places.into_iter().map(|(place, value)| (format!("{key}.{place}"), value)).collect()
    }

    fn below(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{key}.");
        let from = prefix.clone();
        self.keys.range(from..).take_while(move |(name, _)| name.starts_with(&prefix)).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Keys that mean nothing here, each once.
    pub fn unknown(&self) -> Vec<Unknown> {
        let mut told = BTreeSet::new();
        self.keys
            .keys()
            .filter(|key| !is_known(key))
            .filter(|key| told.insert((*key).clone()))
            .map(|key| Unknown { key: key.clone() })
            .collect()
    }
}

/// Suricata's words for yes and no.
pub fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A number, with `kb`, `mb` or `gb`, as Suricata writes sizes.
pub fn number(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let unit = match text[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// Types of the log where no file says which.
const DEFAULT_TYPES: &[&str] = &[
    "alert",
    "frame",
    "anomaly",
    "http",
    "dns",
    "tls",
    "files",
    "drop",
    "smtp",
    "websocket",
    "ftp",
    "rdp",
    "nfs",
    "smb",
    "tftp",
    "ike",
    "dcerpc",
    "krb5",
    "bittorrent-dht",
    "snmp",
    "rfb",
    "sip",
    "quic",
    "ldap",
    "pop3",
    "mdns",
    "arp",
    "dhcp",
    "ssh",
    "mqtt",
    "http2",
    "doh2",
    "pgsql",
    "stats",
    "flow",
    "ntp",
    "mysql",
    "redis",
    "enip",
    "dnp3",
    "modbus",
];

fn is_known(key: &str) -> bool {
    KEYS.iter().any(|pattern| matches(pattern, key))
}

/// `*`: one part; `**` at the end: all that follow, none too.
fn matches(pattern: &str, key: &str) -> bool {
    let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
    loop {
        match (pattern.next(), key.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some(_) | None, _) => return false,
        }
    }
}

/// Keys that are understood. Behind the line `without effect` stand those that need not do anything here: threads, capture from
/// interfaces, log files of other kinds, memory that is reckoned otherwise.
static KEYS: &[&str] = &[
    "vars.address-groups.*",
    "vars.port-groups.*",
    "vars",
    "vars.*",
    "stream.midstream",
    "stream.midstream-policy",
    "stream.inline",
    "stream.checksum-validation",
    "stream.reassembly.depth",
    "stream.reassembly.urgent.policy",
    "stream.async-oneside",
    "stream.bypass",
    "app-layer.protocols.*.enabled",
    "app-layer.protocols.dns.*.enabled",
    "app-layer.protocols.*.max-tx",
    "app-layer.protocols.http.libhtp.default-config.response-body-decompress-layer-limit",
    "app-layer.protocols.http.libhtp.default-config.double-decode-path",
    "app-layer.protocols.http.libhtp.default-config.double-decode-query",
    "outputs",
    "outputs.*",
    "outputs.*.eve-log.**",
    "outputs.*.file-store.**",
    "threshold-file",
    "classification-file",
    "reference-config-file",
    "default-rule-path",
    "rule-files",
    "rule-files.*",
    "packet-alert-max",
    "action-order",
    "action-order.*",
    "reputation-categories-file",
    "reputation-files",
    "reputation-files.*",
    "default-reputation-path",
    "datasets.**",
    "exception-policy",
    "app-layer.error-policy",
    "defrag.**",
    "flow-timeouts.**",
    "flow.**",
    "decoder.vxlan.**",
    "decoder.geneve.**",
    "decoder.teredo.**",
    "pcap-file.checksum-checks",
    // Without effect.
    "%YAML",
    "env.*",
    "default-log-dir",
    "logging.**",
    "stats.**",
    "runmode",
    "threading.**",
    "max-pending-packets",
    "profiling.**",
    "unix-command.**",
    "pcap-file.**",
    "pcap.**",
    "af-packet.**",
    "af-xdp.**",
    "dpdk.**",
    "nfq.**",
    "plugins",
    "plugins.**",
    "host-mode",
    "magic-file",
    "legacy.**",
    "mpm-algo",
    "spm-algo",
    "engine-analysis.**",
    "detect.profile",
    "detect.profiling.**",
    "detect.sgh-mpm-context",
    "detect.prefilter.**",
    "flow.hash-size",
    "ippair.**",
    "host.**",
    "coredump.**",
    "luajit.**",
    "stream.memcap",
    "stream.prealloc-sessions",
    "stream.drop-invalid",
    "stream.reassembly.memcap",
    "stream.reassembly.randomize-chunk-size",
    "stream.reassembly.randomize-chunk-range",
    "stream.reassembly.toserver-chunk-size",
    "stream.reassembly.toclient-chunk-size",
    "stream.reassembly.raw",
    "outputs.*.fast.**",
    "outputs.*.stats.**",
    "outputs.*.http-log.**",
    "outputs.*.tls-log.**",
    "outputs.*.alert-debug.**",
    "outputs.*.syslog.**",
    "outputs.*.unified2-alert.**",
    "pid-file",
    "run-as.**",
    "sensor-name",
    "suricata-version",
    "app-layer.protocols.*.detection-ports.**",
    "app-layer.protocols.*.*.detection-ports.**",
];

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl Files for One {
        fn read(&self, name: &str) -> Option<Vec<u8>> {
            (name == "vars.yaml").then(|| b"address-groups: {HOME_NET: '[10.0.0.0/8]'}".to_vec())
        }
    }

    #[test]
    fn a_file_becomes_dotted_keys_and_what_is_set_lies_over_it() {
        let text = "vars: !include vars.yaml\noutputs:\n - fast: {enabled: no}\n - eve-log:\n     types:\n       - alert\n       - http: {extended: yes}\nstream: {midstream: false}\nnonsense: {a: 1}\n";
        let mut settings = Settings::read(text, &One).unwrap();
        assert_eq!(settings.get("vars.address-groups.HOME_NET"), Some("[10.0.0.0/8]"));
        assert_eq!(settings.is("outputs.1.eve-log.types.1.http.extended"), Some(true));
        let types: Vec<&str> = settings.list("outputs.1.eve-log.types").into_iter().map(|(_, name)| name).collect();
        assert_eq!(types, ["alert", "http"]);
        assert_eq!(settings.is("stream.midstream"), Some(false));
        settings.set("stream.midstream", "yes");
        assert_eq!(settings.is("stream.midstream"), Some(true));
        assert_eq!(settings.unknown(), [Unknown { key: "nonsense.a".to_owned() }]);
        assert_eq!(number("1 mb"), Some(1 << 20));
        assert_eq!(number("64kb"), Some(64 << 10));
        assert!(Settings::builtin().unknown().is_empty());
    }
}
