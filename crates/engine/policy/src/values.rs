//! Values with a form of their own: paths, addresses, ports, protocols, masks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::diagnostic::{Report, quote};
use crate::selector::Selector;
use crate::setting::{Setting, scalar};
use crate::yaml::{Kind, Node};

/// Protocols whose packets carry ports: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA protocol numbers).
const PROTOCOLS_WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Whether packets of this IP protocol carry ports at their beginning.
pub(crate) fn has_ports(proto: u8) -> bool {
    PROTOCOLS_WITH_PORTS.contains(&proto)
}

/// One end of traffic in a segment rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Containers, the host and the world.
    Any,
    /// Everything that is neither the host nor a container on it.
    World,
    /// The host itself, and containers that use its network.
    Host,
    /// Containers with a network of their own.
    Containers(Selector),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::World => f.write_str("world"),
            Self::Host => f.write_str("host"),
            Self::Containers(selector) => selector.fmt(f),
        }
    }
}

impl Setting for Peer {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::Scalar { text, .. } if text == "any" => Some(Self::Any),
            Kind::Scalar { text, .. } if text == "world" => Some(Self::World),
            Kind::Scalar { text, .. } if text == "host" => Some(Self::Host),
            _ => Selector::read(node, to).map(Self::Containers),
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"enum": ["any", "world", "host"]}, Selector::schema()], "x-type": "peer"})
    }

    fn show(&self) -> Value {
        match self {
            Self::Containers(selector) => selector.show(),
            Self::Any | Self::World | Self::Host => Value::String(self.to_string()),
        }
    }
}

/// IP protocol of a segment rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    Any,
    /// ICMP and ICMPv6.
    Icmp,
    /// IANA protocol number, 1 to 255.
    Number(u8),
}

impl Proto {
    pub const TCP: Self = Self::Number(6);
    pub const UDP: Self = Self::Number(17);
    pub const SCTP: Self = Self::Number(132);

    /// Whether a rule for this protocol may name ports.
    pub(crate) fn may_name_ports(self) -> bool {
        match self {
            Self::Any => true,
            Self::Icmp => false,
            Self::Number(number) => has_ports(number),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => f.write_str("any"),
            Self::Icmp => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::SCTP => f.write_str("sctp"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Setting for Proto {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a protocol", "tcp", to)?;
        let read = match text.to_ascii_lowercase().as_str() {
            "any" => Some(Self::Any),
            "icmp" => Some(Self::Icmp),
            "tcp" => Some(Self::TCP),
            "udp" => Some(Self::UDP),
            "sctp" => Some(Self::SCTP),
            number if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok().filter(|n| *n != 0).map(Self::Number),
            _ => None,
        };
        if read.is_none() {
            let help = "one of `tcp`, `udp`, `icmp` (both versions), `sctp`, `any`, or an IP protocol number from 1 to 255";
            to.error(node.at, "bad-value", format!("{} is not a protocol", quote(text)), help);
        }
        read
    }

    fn schema() -> Value {
        json!({"anyOf": [{"enum": ["tcp", "udp", "icmp", "sctp", "any"]}, {"type": "integer", "minimum": 1, "maximum": 255}]})
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// Ports of the responder. `1 <= low <= high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub low: u16,
    pub high: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high { write!(f, "{}", self.low) } else { write!(f, "{}-{}", self.low, self.high) }
    }
}

impl Setting for PortRange {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a port", "8000-8100", to)?;
        let port = |text: &str| -> Option<u16> {
            let text = text.trim();
            text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
        };
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (port(low), port(high)) {
            (Some(low), Some(high)) if low <= high => Some(Self { low, high }),
            (Some(low), Some(high)) => {
                to.error(node.at, "bad-value", format!("the range {} is empty", quote(text)), format!("did you mean `{high}-{low}`?"));
                None
            }
            _ => {
                let help = "a port from 1 to 65535, or a range like `8000-8100`";
                to.error(node.at, "bad-value", format!("{} is not a port", quote(text)), help);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"}], "x-type": "port or range"})
    }

    fn show(&self) -> Value {
        if self.low == self.high { json!(self.low) } else { Value::String(self.to_string()) }
    }
}

/// A path from the root, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    pub(crate) fn fixed(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for AbsolutePath {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for AbsolutePath {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a path", "/var/log/bulkhead/eve.json", to)?;
        let wrong = if !text.starts_with('/') {
            "it does not begin with `/`"
        } else if text.split('/').any(|part| part == "..") {
            "it holds `..`"
        } else if text.chars().any(char::is_control) {
            "it holds a control character"
        } else if text.len() > 4095 {
            "it is longer than 4095 bytes"
        } else {
            return Some(Self(text.to_owned()));
        };
        let message = format!("{} is not a path from the root: {wrong}", quote(text));
        to.error(node.at, "bad-value", message, "for example `/var/log/bulkhead/eve.json`");
        None
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^/", "x-type": "path"})
    }

    fn show(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Whether and where a container engine is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// At its usual socket, if that is there.
    Auto,
    Off,
    Socket(AbsolutePath),
}

impl Setting for Engine {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match scalar(node, "`auto`, `off` or a socket", "/run/docker.sock", to)? {
            "auto" => Some(Self::Auto),
            // `off` is a boolean to older writers of YAML.
            "off" | "false" => Some(Self::Off),
            text if text.starts_with("unix://") => {
                let path = Kind::Scalar { text: text.trim_start_matches("unix://").to_owned(), quoted: true };
                AbsolutePath::read(&Node { kind: path, at: node.at }, to).map(Self::Socket)
            }
            text if text.starts_with('/') => AbsolutePath::read(node, to).map(Self::Socket),
            text => {
                let message = format!("{} is neither `auto`, `off` nor the path of a socket", quote(text));
                to.error(node.at, "bad-value", message, "for example `auto` or `/run/docker.sock`");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"enum": ["auto", "off"]}, {"type": "string", "pattern": "^(unix://)?/"}], "x-type": "auto, off or a socket"})
    }

    fn show(&self) -> Value {
        Value::String(match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::Socket(path) => path.0.clone(),
        })
    }
}

/// Number of inspection threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each processor.
    Auto,
    /// 1 to 256.
    Count(u16),
}

impl Setting for Workers {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "`auto` or a number", "auto", to)?;
        match (text, text.parse()) {
            ("auto", _) => Some(Self::Auto),
            (_, Ok(count)) if (1..=256).contains(&count) => Some(Self::Count(count)),
            _ => {
                to.error(node.at, "bad-value", format!("{} is not a number of workers", quote(text)), "`auto`, or a number from 1 to 256");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}], "x-type": "auto or a number"})
    }

    fn show(&self) -> Value {
        match self {
            Self::Auto => json!("auto"),
            Self::Count(count) => json!(count),
        }
    }
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    Off,
    /// A loopback address.
    At(SocketAddr),
}

impl Setting for Listen {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "`off` or an address", "127.0.0.1:9464", to)?;
        if matches!(text, "off" | "false") {
            return Some(Self::Off);
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Some(Self::At(address)),
            Ok(_) => {
                let help =
                    "metrics name every container and ask nobody who he is: listen on `127.0.0.1` or `[::1]` and put a proxy in front";
                to.error(node.at, "bad-value", format!("{} is not a loopback address", quote(text)), help);
                None
            }
            Err(_) => {
                let message = format!("{} is not an address and port", quote(text));
                to.error(node.at, "bad-value", message, "for example `127.0.0.1:9464`, `[::1]:9464`, or `off`");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"const": "off"}, {"type": "string", "pattern": "^.+:[0-9]{1,5}$"}], "x-type": "off or address:port"})
    }

    fn show(&self) -> Value {
        Value::String(match self {
            Self::Off => "off".to_owned(),
            Self::At(address) => address.to_string(),
        })
    }
}

/// Bits of the packet mark that may be used: at least four, side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkMask(pub u32);

impl Setting for MarkMask {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let mask = u32::read(node, to)?;
        let run = mask >> mask.trailing_zeros().min(31);
        if mask.count_ones() >= 4 && (run & run.wrapping_add(1)) == 0 {
            return Some(Self(mask));
        }
        let message = format!("the mask {mask:#010x} does not hold at least four bits side by side");
        to.error(node.at, "bad-value", message, "for example `0x0f000000`");
        None
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 15, "maximum": u32::MAX}, {"type": "string", "pattern": "^0x[0-9a-fA-F]{1,8}$"}], "x-type": "mask"})
    }

    fn show(&self) -> Value {
        Value::String(format!("{:#010x}", self.0))
    }
}

/// Name of a group of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName(String);

impl GroupName {
    pub(crate) fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for GroupName {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "the name of a group", "bulkhead", to)?;
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !text.is_empty() && text.len() <= 32 && !text.starts_with('-') && text.bytes().all(good) {
            return Some(Self(text.to_owned()));
        }
        let help = "letters, digits, `_`, `-` and `.`, at most 32, not beginning with `-`";
        to.error(node.at, "bad-value", format!("{} is not the name of a group", quote(text)), help);
        None
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$"})
    }

    fn show(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Variables of the rule language, by name without the `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

/// Those that public rule sets use. Home is the protected workload, told per packet; what talks to it is outside, other workloads
/// too: an attack between containers is one.
impl Default for Variables {
    fn default() -> Self {
        let home = [
            "HTTP_SERVERS",
            "SMTP_SERVERS",
            "SQL_SERVERS",
            "DNS_SERVERS",
            "TELNET_SERVERS",
            "AIM_SERVERS",
            "DC_SERVERS",
            "DNP3_SERVER",
            "DNP3_CLIENT",
            "MODBUS_CLIENT",
            "MODBUS_SERVER",
            "ENIP_CLIENT",
            "ENIP_SERVER",
        ];
        let fixed = [
            ("HOME_NET", "workload"),
            ("EXTERNAL_NET", "any"),
            ("HTTP_PORTS", "any"),
            ("FILE_DATA_PORTS", "any"),
            ("SHELLCODE_PORTS", "!80"),
            ("ORACLE_PORTS", "1521"),
            ("SSH_PORTS", "22"),
            ("DNP3_PORTS", "20000"),
            ("MODBUS_PORTS", "502"),
            ("FTP_PORTS", "21"),
            ("GENEVE_PORTS", "6081"),
            ("VXLAN_PORTS", "4789"),
            ("TEREDO_PORTS", "3544"),
            ("SIP_PORTS", "[5060,5061]"),
        ];
        let all = home.iter().map(|name| (*name, "$HOME_NET")).chain(fixed);
        Self(all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Setting for Variables {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let mut all = Self::default();
        let Kind::Map(entries) = &node.kind else {
            return BTreeMap::<String, String>::read(node, to).map(|_| all);
        };
        let mut good = true;
        for (key, value) in entries {
            let name_is_good = key.text.len() <= 64
                && key.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !name_is_good {
                let help = "letters, digits and `_`, not beginning with a digit; without the `$`";
                to.error(key.at, "bad-value", format!("{} is not the name of a variable", quote(&key.text)), help);
                good = false;
            }
            // `[a, b]` without quotes is a list to YAML, and one value to the rules.
            let text = match &value.kind {
                Kind::List(items) => {
                    let parts: Option<Vec<String>> = items.iter().map(|item| String::read(item, to)).collect();
                    parts.map(|parts| format!("[{}]", parts.join(",")))
                }
                Kind::Null | Kind::Scalar { .. } | Kind::Map(_) => String::read(value, to),
            };
            match text {
                Some(text) => drop(all.0.insert(key.text.clone(), text)),
                None => good = false,
            }
        }
        good.then_some(all)
    }

    fn schema() -> Value {
        let value = json!({"anyOf": [{"type": ["string", "integer"]}, {"type": "array", "items": {"type": ["string", "integer"]}}]});
        json!({"type": "object", "additionalProperties": false, "patternProperties": {"^[A-Za-z_][A-Za-z0-9_]{0,63}$": value}, "x-type": "map"})
    }

    fn show(&self) -> Value {
        self.0.show()
    }
}
