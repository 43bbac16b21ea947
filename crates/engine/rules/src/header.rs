//! The part of a rule before the parenthesis: action, protocol, addresses, ports, direction.

use std::net::IpAddr;

use crate::diagnostic::{Code, Problem};
use crate::protocol::App;

/// Lists within lists deeper than this are refused.
const NESTING_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub action: Action,
    pub protocol: Protocol,
    pub source: AddressExpr,
    pub source_ports: PortExpr,
    pub direction: Direction,
    pub destination: AddressExpr,
    pub destination_ports: PortExpr,
    /// A state of the protocol at which the rule is judged, `tls:client_hello_done`; without the protocol's name.
    pub hook: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// First in force: what it matches is not judged by the others.
    Pass,
    Drop,
    /// Tells the sender of the packet (`reject`, `rejectsrc`).
    RejectSource,
    RejectDestination,
    RejectBoth,
    Alert,
    /// Neither alerts nor stops anything: only what the keyword `config` says.
    Config,
}

impl Action {
    pub const fn blocks(self) -> bool {
        match self {
            Self::Drop | Self::RejectSource | Self::RejectDestination | Self::RejectBoth => true,
            Self::Pass | Self::Alert | Self::Config => false,
        }
    }

    pub const fn rejects(self) -> bool {
        match self {
            Self::RejectSource | Self::RejectDestination | Self::RejectBoth => true,
            Self::Pass | Self::Drop | Self::Alert | Self::Config => false,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::RejectSource => "reject",
            Self::RejectDestination => "rejectdst",
            Self::RejectBoth => "rejectboth",
            Self::Alert => "alert",
            Self::Config => "config",
        }
    }
}

/// What a rule is about. Names of application protocols are kept as canonical words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Ip,
    Ipv4,
    Ipv6,
    Tcp,
    /// TCP, each packet's own payload only.
    TcpPacket,
    /// TCP, the reassembled stream only.
    TcpStream,
    Udp,
    Icmp,
    Icmpv4,
    Icmpv6,
    Sctp,
    /// An application protocol.
    App(App),
    /// Other packets: `arp`, `ether`, `igmp`, `pkthdr` (any, broken ones too).
    Other(&'static str),
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Tcp => "tcp",
            Self::TcpPacket => "tcp-pkt",
            Self::TcpStream => "tcp-stream",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmpv4 => "icmpv4",
            Self::Icmpv6 => "icmpv6",
            Self::Sctp => "sctp",
            Self::App(app) => app.name(),
            Self::Other(name) => name,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `->`
    Right,
    /// `<>`
    Both,
    /// `=>`: both directions of a transaction.
    Transaction,
}

impl Direction {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "->",
            Self::Both => "<>",
            Self::Transaction => "=>",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressExpr {
    Any,
    /// A single address has the full prefix.
    Network {
        address: IpAddr,
        prefix: u8,
    },
    /// Inclusive, both of one family, first <= last.
    Range(IpAddr, IpAddr),
    /// Without the `$`.
    Variable(String),
    List(Vec<Self>),
    Not(Box<Self>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortExpr {
    Any,
    /// Inclusive, first <= last.
    Range(u16, u16),
    Variable(String),
    List(Vec<Self>),
    Not(Box<Self>),
}

/// Protocols of packets that the language knows beside those above.
const OTHER_PROTOCOLS: &[&str] = &["arp", "esp", "ether", "gre", "igmp", "pkthdr", "udp-pkt"];

/// Reads the header from the front of a logical line and gives it with the offset of the opening parenthesis.
pub(crate) fn parse(line: &str) -> Result<(Header, usize), Problem> {
    let Some(open) = open_parenthesis(line) else {
        return Err(Problem::new(Code::NoOptions, "no `(` in this line")
            .help("a rule is `action protocol source port -> destination port (options)`"));
    };
    let words = words(&line[..open])?;
    let word = |index: usize, what: &str| -> Result<(usize, &str), Problem> {
        words.get(index).copied().ok_or_else(|| {
            Problem::new(Code::HeaderIncomplete, format!("the {what} is missing"))
                .help("a rule is `action protocol source port -> destination port (options)`")
                .at(open, open)
        })
    };
    let at = |problem: Problem, (start, text): (usize, &str)| problem.at(start, start + text.len());

    let first = word(0, "action")?;
    let action = action(first.1).map_err(|problem| at(problem, first))?;
    let second = word(1, "protocol")?;
    let (protocol, hook) = protocol(second.1).map_err(|problem| at(problem, second))?;
    let source = word(2, "source address")?;
    let source_ports = word(3, "source port")?;
    let arrow = word(4, "direction")?;
    let direction = match arrow.1 {
        "->" => Direction::Right,
        "<>" => Direction::Both,
        "=>" => Direction::Transaction,
        other => {
            let problem = Problem::new(Code::BadDirection, format!("`{other}` is not a direction")).help("use `->`, `<>` or `=>`");
            return Err(at(problem, arrow));
        }
    };
    let destination = word(5, "destination address")?;
    let destination_ports = word(6, "destination port")?;
    if let Some(extra) = words.get(7) {
        return Err(at(
            Problem::new(Code::HeaderIncomplete, format!("`{}` stands before the options and has no meaning", extra.1)),
            *extra,
        ));
    }
    let header = Header {
        action,
        protocol,
        source: address(source.1).map_err(|problem| at(problem, source))?,
        source_ports: port(source_ports.1).map_err(|problem| at(problem, source_ports))?,
        direction,
        destination: address(destination.1).map_err(|problem| at(problem, destination))?,
        destination_ports: port(destination_ports.1).map_err(|problem| at(problem, destination_ports))?,
        hook,
    };
    Ok((header, open))
}

/// Whether a line begins with a word that is an action: what tells a disabled rule from a comment.
pub(crate) fn begins_as_rule(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| action(word).is_ok())
}

fn action(word: &str) -> Result<Action, Problem> {
    Ok(match word {
        "alert" => Action::Alert,
        "drop" | "sdrop" => Action::Drop,
        "pass" => Action::Pass,
        "reject" | "rejectsrc" => Action::RejectSource,
        "rejectdst" => Action::RejectDestination,
        "rejectboth" => Action::RejectBoth,
        "config" => Action::Config,
        other if other.starts_with("accept:") || other.starts_with("drop:") => {
            return Err(Problem::new(Code::ActionUnsupported, format!("the firewall action `{other}` is not supported")));
        }
        other => {
            return Err(Problem::new(Code::UnknownAction, format!("`{other}` is not an action"))
                .help("use alert, drop, reject, rejectsrc, rejectdst, rejectboth, pass or config"));
        }
    })
}

fn protocol(word: &str) -> Result<(Protocol, Option<String>), Problem> {
    let (base, hook) = match word.split_once(':') {
        Some((base, hook)) => (base, Some(hook)),
        None => (word, None),
    };
    let lower = base.to_ascii_lowercase();
    let protocol = match lower.as_str() {
        "ip" => Protocol::Ip,
        "ip4" | "ipv4" => Protocol::Ipv4,
        "ip6" | "ipv6" => Protocol::Ipv6,
        "tcp" => Protocol::Tcp,
        "tcp-pkt" => Protocol::TcpPacket,
        "tcp-stream" => Protocol::TcpStream,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "icmpv4" => Protocol::Icmpv4,
        "icmpv6" => Protocol::Icmpv6,
        "sctp" => Protocol::Sctp,
        name => match (OTHER_PROTOCOLS.iter().find(|known| **known == name), crate::protocol::lookup(name)) {
            (Some(known), _) => Protocol::Other(known),
            (None, Some(known)) => Protocol::App(known),
            (None, None) => {
                return Err(Problem::new(Code::UnknownProtocol, format!("`{}` is not a protocol", shorten(word)))
                    .help("use ip, tcp, udp, icmp or an application protocol"));
            }
        },
    };
    let good =
        |hook: &&str| !hook.is_empty() && hook.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.'));
    match hook {
        Some(hook) if !good(&hook) => Err(Problem::new(Code::UnknownProtocol, format!("`{}` is not a hook", shorten(hook)))
            .help("a hook is a state of the protocol, as in `tls:client_hello_done`")),
        hook => Ok((protocol, hook.map(str::to_owned))),
    }
}

/// The first `(` outside of a list.
fn open_parenthesis(line: &str) -> Option<usize> {
    line.find('(')
}

/// Splits at white space, not inside brackets.
fn words(header: &str) -> Result<Vec<(usize, &str)>, Problem> {
    let mut words = Vec::with_capacity(7);
    let mut depth = 0usize;
    let mut start = None;
    for (at, byte) in header.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if byte.is_ascii_whitespace() && depth == 0 {
            if let Some(from) = start.take() {
                words.push((from, &header[from..at]));
            }
        } else if start.is_none() {
            start = Some(at);
        }
    }
    if let Some(from) = start {
        words.push((from, &header[from..]));
    }
    if depth > 0 {
        let from = header.rfind('[').unwrap_or(0);
        return Err(Problem::new(Code::HeaderIncomplete, "a list is opened with `[` and not closed").at(from, header.len()));
    }
    Ok(words)
}

/// Reads an address expression: `any`, `!10.0.0.0/8`, `[$HOME_NET,!198.51.100.7]`, `2001:db8::1`, `10.0.0.1-10.0.0.9`.
pub(crate) fn address(text: &str) -> Result<AddressExpr, Problem> {
    expression(text, 0, Code::BadAddress, &|word| {
        if word.eq_ignore_ascii_case("any") {
            return Ok(AddressExpr::Any);
        }
        if let Some(name) = word.strip_prefix('$') {
            return variable_name(name).map(AddressExpr::Variable).ok_or_else(|| bad_address(word));
        }
        if let Some((address, prefix)) = word.split_once('/') {
            let address: IpAddr = address.trim().parse().map_err(|_| bad_address(word))?;
            let prefix = match prefix.trim().parse::<u8>() {
                Ok(prefix) => prefix,
                Err(_) => netmask(prefix.trim()).ok_or_else(|| bad_address(word))?,
            };
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return if prefix <= bits { Ok(AddressExpr::Network { address, prefix }) } else { Err(bad_address(word)) };
        }
        if let Some((first, last)) = word.split_once('-') {
            let first: IpAddr = first.trim().parse().map_err(|_| bad_address(word))?;
            let last: IpAddr = last.trim().parse().map_err(|_| bad_address(word))?;
            return if first.is_ipv4() == last.is_ipv4() && first <= last {
                Ok(AddressExpr::Range(first, last))
            } else {
                Err(bad_address(word))
            };
        }
        let address: IpAddr = word.parse().map_err(|_| bad_address(word))?;
        Ok(AddressExpr::Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } })
    })
    .map(|tree| tree.build(AddressExpr::List, |inner| AddressExpr::Not(Box::new(inner))))
}

/// Reads a port expression: `any`, `80`, `1024:`, `:1023`, `!25`, `[80,8000:8080,!8008]`, `$HTTP_PORTS`.
pub(crate) fn port(text: &str) -> Result<PortExpr, Problem> {
    expression(text, 0, Code::BadPort, &|word| {
        if word.eq_ignore_ascii_case("any") {
            return Ok(PortExpr::Any);
        }
        if let Some(name) = word.strip_prefix('$') {
            return variable_name(name).map(PortExpr::Variable).ok_or_else(|| bad_port(word));
        }
        let number = |text: &str, default: u16| -> Result<u16, Problem> {
            let text = text.trim();
            if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| bad_port(word)) }
        };
        let (first, last) = match word.split_once(':') {
            Some((first, last)) if first.trim().is_empty() && last.trim().is_empty() => return Err(bad_port(word)),
            Some((first, last)) => (number(first, 0)?, number(last, u16::MAX)?),
            None => {
                let only = word.parse().map_err(|_| bad_port(word))?;
                (only, only)
            }
        };
        if first <= last { Ok(PortExpr::Range(first, last)) } else { Err(bad_port(word)) }
    })
    .map(|tree| tree.build(PortExpr::List, |inner| PortExpr::Not(Box::new(inner))))
}

/// A parsed list before it is an address or a port.
enum Tree<T> {
    Leaf(T),
    List(Vec<Tree<T>>),
    Not(Box<Tree<T>>),
}

impl<T> Tree<T> {
    fn build(self, list: fn(Vec<T>) -> T, not: fn(T) -> T) -> T {
        match self {
            Self::Leaf(leaf) => leaf,
            Self::List(members) => list(members.into_iter().map(|member| member.build(list, not)).collect()),
            Self::Not(inner) => not(inner.build(list, not)),
        }
    }
}

fn expression<T>(text: &str, depth: usize, code: Code, leaf: &dyn Fn(&str) -> Result<T, Problem>) -> Result<Tree<T>, Problem> {
    let text = text.trim();
    if depth > NESTING_MAX {
        return Err(Problem::new(code, format!("lists are nested deeper than {NESTING_MAX}")));
    }
    // A list may lack its brackets: `!5800,!445` is published.
    let mut bare = split_list(text);
    if let (Some(_), Some(_)) = (bare.next(), bare.next()) {
        return list(text, text, depth, code, leaf);
    }
    if let Some(rest) = text.strip_prefix('!') {
        return Ok(Tree::Not(Box::new(expression(rest, depth + 1, code, leaf)?)));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some(inside) = rest.strip_suffix(']') else {
            return Err(Problem::new(code, format!("the list `{}` is not closed with `]`", shorten(text))));
        };
        return list(text, inside, depth, code, leaf);
    }
    leaf(text).map(Tree::Leaf)
}

fn list<T>(text: &str, inside: &str, depth: usize, code: Code, leaf: &dyn Fn(&str) -> Result<T, Problem>) -> Result<Tree<T>, Problem> {
    let mut members = Vec::new();
    for member in split_list(inside) {
        if member.trim().is_empty() {
            return Err(Problem::new(code, format!("the list `{}` has an empty member", shorten(text))));
        }
        members.push(expression(member, depth + 1, code, leaf)?);
    }
    Ok(Tree::List(members))
}

/// Splits at commas that are not inside brackets.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |character| {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn variable_name(name: &str) -> Option<String> {
    let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    good.then(|| name.to_owned())
}

/// `255.255.255.0` as a prefix length.
fn netmask(text: &str) -> Option<u8> {
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
    (mask.leading_ones() + mask.trailing_zeros().min(32) == 32 || mask == u32::MAX).then(|| mask.leading_ones() as u8)
}

fn bad_address(word: &str) -> Problem {
    Problem::new(Code::BadAddress, format!("`{}` is not an address", shorten(word)))
        .help("use any, an address, address/prefix, first-last, $VARIABLE, or a list in brackets")
}

fn bad_port(word: &str) -> Problem {
    Problem::new(Code::BadPort, format!("`{}` is not a port", shorten(word)))
        .help("use any, 0 to 65535, first:last, $VARIABLE, or a list in brackets")
}

/// User input as it is quoted in messages: bounded.
pub(crate) fn shorten(text: &str) -> &str {
    match text.char_indices().nth(60) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_header_is_read() {
        let (header, open) =
            parse("drop tcp ![$HOME_NET, 198.51.100.0/24] 1024: <> [2001:db8::/32,!2001:db8::1] [80,!$P] (sid:1;)").unwrap();
        assert_eq!(open, 86);
        assert_eq!(header.action, Action::Drop);
        assert_eq!(header.direction, Direction::Both);
        assert_eq!(header.source_ports, PortExpr::Range(1024, 65535));
        let AddressExpr::Not(inner) = &header.source else { panic!("{:?}", header.source) };
        let AddressExpr::List(members) = inner.as_ref() else { panic!() };
        assert_eq!(members[0], AddressExpr::Variable("HOME_NET".into()));
        assert!(matches!(&header.destination_ports, PortExpr::List(ports) if ports.len() == 2));
    }

    #[test]
    fn broken_headers_name_their_fault() {
        for (text, code) in [
            ("alarm tcp any any -> any any (sid:1;)", Code::UnknownAction),
            ("alert tpc any any -> any any (sid:1;)", Code::UnknownProtocol),
            ("alert tcp 300.1.1.1 any -> any any (sid:1;)", Code::BadAddress),
            ("alert tcp 10.0.0.0/33 any -> any any (sid:1;)", Code::BadAddress),
            ("alert tcp [10.0.0.1 any -> any any (sid:1;)", Code::HeaderIncomplete),
            ("alert tcp any 65536 -> any any (sid:1;)", Code::BadPort),
            ("alert tcp any 9:1 -> any any (sid:1;)", Code::BadPort),
            ("alert tcp any any <- any any (sid:1;)", Code::BadDirection),
            ("alert tcp any any -> any (sid:1;)", Code::HeaderIncomplete),
            ("alert tcp any any -> any any", Code::NoOptions),
            ("accept:hook tcp any any -> any any (sid:1;)", Code::ActionUnsupported),
            ("alert tcp: any any -> any any (sid:1;)", Code::UnknownProtocol),
        ] {
            assert_eq!(parse(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(port(&deep).unwrap_err().code, Code::BadPort);
        assert_eq!(address(&"!".repeat(5000)).unwrap_err().code, Code::BadAddress);
    }
}
