//! Which logs there are, and what goes into each: `outputs` of the settings.

use std::collections::BTreeMap;

use bulkhead_ips::FileWants;

use crate::record::{HttpLog, LogConfig};
use crate::settings::Settings;

/// Logs of one replay.
const LOGS_MAX: usize = 64;

/// One `eve-log`.
#[derive(Debug, Clone, PartialEq)]
pub struct EveLog {
    /// As the settings name it.
    pub file: String,
    /// By the settings' name of the type (`files` for `fileinfo`): where its options stand.
    types: BTreeMap<String, String>,
    pub record: LogConfig,
    pub alert: AlertLog,
    pub drop: DropLog,
    pub anomaly: AnomalyLog,
    pub files: FileWants,
    pub ethernet: bool,
    pub community_id: Option<u16>,
    pub capture_name: bool,
    /// IPv6 addresses in their short form.
    pub ipv6_compress: bool,
    /// `suricata-version`: the version of the shapes stands in each event.
    pub version: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlertLog {
    pub payload: bool,
    pub payload_printable: bool,
    pub payload_length: bool,
    pub packet: bool,
    /// `metadata`: of the flow (bits and counters), of the application layer, of the rule.
    pub flow: bool,
    pub app_layer: bool,
    pub flow_record: bool,
    pub rule_metadata: bool,
    pub rule_raw: bool,
    pub rule_reference: bool,
    pub verdict: bool,
    pub tagged_packets: bool,
    /// `xff`: the client that a proxy names.
    pub xff: Option<Xff>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Xff {
    /// The field that names it, in lower case.
    pub field: String,
    /// Shown in the place of the client's address, not beside it.
    pub overwrite: bool,
    /// Of several the last: a proxy before the servers has added it. Else the first.
    pub reverse: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct DropLog {
    /// The rule's alert stands beside.
    pub alerts: bool,
    /// Each packet, not the first of a flow and direction alone.
    pub all: bool,
    pub verdict: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyLog {
    pub decode: bool,
    pub stream: bool,
    pub applayer: bool,
}

impl EveLog {
    /// All logs that are switched on.
    pub fn all(settings: &Settings) -> Vec<Self> {
        let on = |(key, name): &(String, &str)| *name == "eve-log" && settings.is(&format!("{key}.eve-log.enabled")).unwrap_or(true);
        settings
            .list("outputs")
            .iter()
            .filter(|output| on(output))
            .take(LOGS_MAX)
            .map(|(key, _)| Self::read(settings, &format!("{key}.eve-log")))
            .collect()
    }

    fn read(settings: &Settings, key: &str) -> Self {
        let mut types = BTreeMap::new();
        for (place, name) in settings.list(&format!("{key}.types")) {
            let options = format!("{place}.{name}");
            if settings.is(&format!("{options}.enabled")).unwrap_or(true) {
                types.insert(name.to_owned(), options);
            }
        }
        let of = |name: &str, option: &str| types.get(name).and_then(|options| settings.is(&format!("{options}.{option}")));
        let alert = {
            let metadata = of("alert", "metadata");
            let part = |option: &str| of("alert", &format!("metadata.{option}")).or(metadata);
            AlertLog {
                payload: of("alert", "payload").unwrap_or(false),
                payload_printable: of("alert", "payload-printable").unwrap_or(false),
                payload_length: of("alert", "payload-length").unwrap_or(false),
                packet: of("alert", "packet").unwrap_or(false),
                flow: part("flow").unwrap_or(true),
                app_layer: part("app-layer").unwrap_or(true),
                flow_record: part("flow").unwrap_or(true),
                rule_metadata: part("rule.metadata").unwrap_or(true),
                rule_raw: of("alert", "metadata.rule.raw").unwrap_or(false),
                rule_reference: of("alert", "metadata.rule.reference").unwrap_or(false),
                verdict: of("alert", "verdict").unwrap_or(false),
                tagged_packets: of("alert", "tagged-packets").unwrap_or(true),
                xff: of("alert", "xff.enabled").unwrap_or(false).then(|| {
                    let option = |name: &str| types.get("alert").and_then(|options| settings.get(&format!("{options}.xff.{name}")));
                    Xff {
                        field: option("header").unwrap_or("X-Forwarded-For").to_ascii_lowercase(),
                        overwrite: option("mode") == Some("overwrite"),
                        reverse: option("deployment") != Some("forward"),
                    }
                }),
            }
        };
        let drop = DropLog {
            alerts: of("drop", "alerts").unwrap_or(true),
            all: types.get("drop").and_then(|options| settings.get(&format!("{options}.flows"))) == Some("all"),
            verdict: of("drop", "verdict").unwrap_or(false),
        };
        let anomaly = {
            let kind = |name: &str, default| of("anomaly", &format!("types.{name}")).unwrap_or(default);
            AnomalyLog { decode: kind("decode", false), stream: kind("stream", false), applayer: kind("applayer", true) }
        };
        let listed = |name: &str, option: &str| {
            let Some(options) = types.get(name) else { return Vec::<String>::new() };
            settings.list(&format!("{options}.{option}")).into_iter().map(|(_, value)| value.to_ascii_lowercase()).collect()
        };
        let hashes = listed("files", "force-hash");
        let forced = |name: &str| hashes.iter().any(|hash| hash == name);
        let files = FileWants {
            follow: types.contains_key("files"),
            magic: of("files", "force-magic").unwrap_or(false),
            md5: forced("md5"),
            sha1: forced("sha1"),
            sha256: forced("sha256"),
            content: false,
        };
        let dumped = types.get("http").and_then(|options| settings.get(&format!("{options}.dump-all-headers"))).unwrap_or("none");
        let number = |name: &str, option: &str| types.get(name).and_then(|options| settings.number(&format!("{options}.{option}")));
        let mut record = LogConfig {
            extended: types.keys().any(|name| of(name, "extended").unwrap_or(false)) || of("http", "extended").is_none(),
            http: HttpLog {
                custom: listed("http", "custom"),
                headers: [matches!(dumped, "both" | "request"), matches!(dumped, "both" | "response")],
            },
            ..LogConfig::default()
        };
        record.pgsql_passwords = of("pgsql", "passwords").unwrap_or(false);
        let text = |name: &str, option: &str| types.get(name).and_then(|options| settings.get(&format!("{options}.{option}")));
        let version = text("dns", "version").or_else(|| settings.get("env.SURICATA_EVE_DNS_VERSION"));
        record.dns.version = if version == Some("2") { 2 } else { 3 };
        record.dns.requests = of("dns", "requests").or(of("dns", "query")).unwrap_or(true);
        record.dns.responses = of("dns", "responses").or(of("dns", "answer")).unwrap_or(true);
        record.dns.types = listed("dns", "types");
        let formats = listed("dns", "formats");
        record.dns.detailed = formats.is_empty() || formats.iter().any(|format| format == "detailed");
        record.dns.grouped = formats.is_empty() || formats.iter().any(|format| format == "grouped");
        record.smtp.custom = listed("smtp", "custom").into_iter().map(|name| name.replace('-', "_")).collect();
        record.smtp.md5 = listed("smtp", "md5");
        record.tls.custom = listed("tls", "custom");
        record.mqtt.passwords = of("mqtt", "passwords").unwrap_or(true);
        record.mqtt.text_bytes_max = number("mqtt", "string-log-limit").map_or(record.mqtt.text_bytes_max, |max| max as usize);
        Self {
            file: settings.get(&format!("{key}.filename")).filter(|name| !name.is_empty()).unwrap_or("eve.json").to_owned(),
            record,
            alert,
            drop,
            anomaly,
            files,
            ethernet: settings.is(&format!("{key}.ethernet")).unwrap_or(false),
            community_id: settings
                .is(&format!("{key}.community-id"))
                .filter(|on| *on)
                .map(|_| settings.number(&format!("{key}.community-id-seed")).unwrap_or(0) as u16),
            ipv6_compress: settings.is(&format!("{key}.ipv6-compress")).unwrap_or(false),
            version: settings.is(&format!("{key}.suricata-version")).unwrap_or(false),
            capture_name: settings.is(&format!("{key}.pcap-file")).unwrap_or(false),
            types,
        }
    }

    /// Whether events of this type go into it.
    pub fn takes(&self, event_type: &str) -> bool {
        let name = match event_type {
            "fileinfo" => "files",
            "ftp_data" => "ftp",
            "bittorrent_dht" => "bittorrent-dht",
            "llmnr" => "mdns",
            "ikev2" => "ike",
            other => other,
        };
        self.types.contains_key(name)
    }
}
