//! Address and port variables, and the sets that expressions stand for once variables are known.
//!
//! `[a, b, !c]` means: in a or b, and not in c; a list of negations only means: anything but those.
//! A variable may be [`HOME`]: the addresses of the protected workload itself, told per packet from outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diagnostic::{Code, Problem};
use crate::header::{self, AddressExpr, PortExpr};

/// The value of an address variable that stands for the protected workload's own addresses.
pub const HOME: &str = "workload";
/// Variables within variables deeper than this are taken for a circle.
const DEPTH_MAX: usize = 16;
/// Ranges in one set.
const RANGES_MAX: usize = 65_536;

/// Values by name, without the `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    pub addresses: BTreeMap<String, String>,
    pub ports: BTreeMap<String, String>,
}

impl Default for Variables {
    /// Suricata's names; `HOME_NET` is the protected workload, `EXTERNAL_NET` everything else.
    fn default() -> Self {
        let servers = ["HTTP_SERVERS", "SMTP_SERVERS", "SQL_SERVERS", "DNS_SERVERS", "TELNET_SERVERS", "AIM_SERVERS", "DC_SERVERS"];
        let clients = ["DNP3_SERVER", "DNP3_CLIENT", "MODBUS_CLIENT", "MODBUS_SERVER", "ENIP_CLIENT", "ENIP_SERVER"];
        let home = servers.iter().chain(&clients).map(|name| ((*name).to_owned(), "$HOME_NET".to_owned()));
        let mut addresses: BTreeMap<String, String> = home.collect();
        addresses.insert("HOME_NET".to_owned(), HOME.to_owned());
        addresses.insert("EXTERNAL_NET".to_owned(), "!$HOME_NET".to_owned());
        let ports = [
            ("HTTP_PORTS", "80"),
            ("SHELLCODE_PORTS", "!80"),
            ("ORACLE_PORTS", "1521"),
            ("SSH_PORTS", "22"),
            ("DNP3_PORTS", "20000"),
            ("MODBUS_PORTS", "502"),
            ("FILE_DATA_PORTS", "[$HTTP_PORTS,110,143]"),
            ("FTP_PORTS", "21"),
            ("GENEVE_PORTS", "6081"),
            ("VXLAN_PORTS", "4789"),
            ("TEREDO_PORTS", "3544"),
            ("SIP_PORTS", "[5060,5061]"),
        ];
        Self { addresses, ports: ports.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }
}

/// Which addresses; `home` is what is said of the protected workload's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct AddressSet {
    /// Inclusive, ascending, not touching.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
    /// The same for an address that is the workload's own.
    home_v4: Vec<(u32, u32)>,
    home_v6: Vec<(u128, u128)>,
}

impl AddressSet {
    pub fn any() -> Self {
        let (v4, v6) = (vec![(0, u32::MAX)], vec![(0, u128::MAX)]);
        Self { home_v4: v4.clone(), home_v6: v6.clone(), v4, v6 }
    }

    /// `home`: the address is one of the protected workload's own.
    pub fn contains(&self, address: IpAddr, home: bool) -> bool {
        match address {
            IpAddr::V4(address) => within(if home { &self.home_v4 } else { &self.v4 }, u32::from(address)),
            IpAddr::V6(address) => within(if home { &self.home_v6 } else { &self.v6 }, u128::from(address)),
        }
    }

    pub fn is_any(&self) -> bool {
        *self == Self::any()
    }

    /// Ranges of IPv4 that are in it, whether the address is the workload's own or not; they may overlap.
    pub fn v4_ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.v4.iter().chain(&self.home_v4).copied()
    }

    /// No address of IPv6 is in it.
    pub fn is_v4_only(&self) -> bool {
        self.v6.is_empty() && self.home_v6.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.home_v4.is_empty() && self.home_v6.is_empty()
    }

    fn home() -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), ..Self::any() }
    }

    fn not(self) -> Self {
        Self {
            v4: complement(&self.v4, 0, u32::MAX, |x| x - 1, |x| x + 1),
            v6: complement(&self.v6, 0, u128::MAX, |x| x - 1, |x| x + 1),
            home_v4: complement(&self.home_v4, 0, u32::MAX, |x| x - 1, |x| x + 1),
            home_v6: complement(&self.home_v6, 0, u128::MAX, |x| x - 1, |x| x + 1),
        }
    }

    fn or(mut self, other: &Self) -> Self {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
        self.home_v4.extend_from_slice(&other.home_v4);
        self.home_v6.extend_from_slice(&other.home_v6);
        Self {
            v4: merge(self.v4, |x| x.saturating_add(1)),
            v6: merge(self.v6, |x| x.saturating_add(1)),
            home_v4: merge(self.home_v4, |x| x.saturating_add(1)),
            home_v6: merge(self.home_v6, |x| x.saturating_add(1)),
        }
    }

    fn size(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// Which ports, as ascending inclusive ranges that do not touch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    pub fn any() -> Self {
        Self { ranges: vec![(0, u16::MAX)] }
    }

    pub fn contains(&self, port: u16) -> bool {
        within(&self.ranges, port)
    }

    pub fn is_any(&self) -> bool {
        self.ranges == [(0, u16::MAX)]
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }

    fn not(self) -> Self {
        Self { ranges: complement(&self.ranges, 0, u16::MAX, |x| x - 1, |x| x + 1) }
    }

    fn or(mut self, other: &Self) -> Self {
        self.ranges.extend_from_slice(&other.ranges);
        Self { ranges: merge(self.ranges, |x| x.saturating_add(1)) }
    }
}

/// Why an expression stands for no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    #[error("the variable `${0}` is not defined")]
    Undefined(String),
    #[error("the variable `${name}` cannot be read: {reason}")]
    Unreadable { name: String, reason: String },
    #[error("the variable `${0}` refers to itself")]
    Circle(String),
    #[error("`{0}` stands for more than {RANGES_MAX} ranges")]
    TooLarge(String),
}

impl VariableError {
    pub const fn code(&self) -> Code {
        match self {
            Self::Undefined(_) => Code::UndefinedVariable,
            Self::Unreadable { .. } | Self::Circle(_) | Self::TooLarge(_) => Code::BadVariable,
        }
    }
}

impl Variables {
    /// Gives a variable its value. It is one of ports when its name ends so, or is known as such.
    pub fn define(&mut self, name: &str, value: &str) {
        let map = if self.is_port(name) { &mut self.ports } else { &mut self.addresses };
        map.insert(name.to_owned(), value.to_owned());
    }

    /// Whether a variable is one of ports: its name ends so, or is known as such.
    pub fn is_port(&self, name: &str) -> bool {
        name.ends_with("_PORTS") || name.ends_with("_PORT") || self.ports.contains_key(name)
    }

    /// The addresses that an expression stands for. None, when variables make it so (`!$HOME_NET` where that is `any`): the rule is
    /// well formed and never matches.
    pub fn address_set(&self, tree: &AddressExpr) -> Result<AddressSet, VariableError> {
        self.address_tree(tree, 0)
    }

    /// The ports that an expression stands for; perhaps none.
    pub fn port_set(&self, tree: &PortExpr) -> Result<PortSet, VariableError> {
        self.port_tree(tree, 0)
    }

    fn address_tree(&self, tree: &AddressExpr, depth: usize) -> Result<AddressSet, VariableError> {
        Ok(match tree {
            AddressExpr::Any => AddressSet::any(),
            AddressExpr::Network { address, prefix } => network(*address, *prefix),
            AddressExpr::Range(IpAddr::V4(first), IpAddr::V4(last)) => v4(u32::from(*first), u32::from(*last)),
            AddressExpr::Range(IpAddr::V6(first), IpAddr::V6(last)) => v6(u128::from(*first), u128::from(*last)),
            // Of two families: the parser lets none through.
            AddressExpr::Range(..) => AddressSet::default(),
            AddressExpr::Not(inner) => self.address_tree(inner, depth)?.not(),
            AddressExpr::List(members) => {
                let mut yes: Option<AddressSet> = None;
                let mut no = AddressSet::default();
                for member in members {
                    match member {
                        AddressExpr::Not(inner) => no = no.or(&self.address_tree(inner, depth)?),
                        member => yes = Some(yes.unwrap_or_default().or(&self.address_tree(member, depth)?)),
                    }
                }
                // yes and not no == not (not yes or no)
                let set = yes.unwrap_or_else(AddressSet::any).not().or(&no).not();
                if set.size() > RANGES_MAX {
                    return Err(VariableError::TooLarge(crate::format::address(tree).chars().take(60).collect()));
                }
                set
            }
            AddressExpr::Variable(name) => {
                let value = lookup(&self.addresses, name, depth)?;
                if value.trim() == HOME {
                    return Ok(AddressSet::home());
                }
                let tree = header::address(value).map_err(|problem| unreadable(name, problem))?;
                self.address_tree(&tree, depth + 1)?
            }
        })
    }

    fn port_tree(&self, tree: &PortExpr, depth: usize) -> Result<PortSet, VariableError> {
        Ok(match tree {
            PortExpr::Any => PortSet::any(),
            PortExpr::Range(first, last) => PortSet { ranges: vec![(*first, *last)] },
            PortExpr::Not(inner) => self.port_tree(inner, depth)?.not(),
            PortExpr::List(members) => {
                let mut yes: Option<PortSet> = None;
                let mut no = PortSet::default();
                for member in members {
                    match member {
                        PortExpr::Not(inner) => no = no.or(&self.port_tree(inner, depth)?),
                        member => yes = Some(yes.unwrap_or_default().or(&self.port_tree(member, depth)?)),
                    }
                }
                yes.unwrap_or_else(PortSet::any).not().or(&no).not()
            }
            PortExpr::Variable(name) => {
                let value = lookup(&self.ports, name, depth)?;
                let tree = header::port(value).map_err(|problem| unreadable(name, problem))?;
                self.port_tree(&tree, depth + 1)?
            }
        })
    }
}

fn lookup<'a>(values: &'a BTreeMap<String, String>, name: &str, depth: usize) -> Result<&'a str, VariableError> {
    if depth >= DEPTH_MAX {
        return Err(VariableError::Circle(name.to_owned()));
    }
    values.get(name).map(String::as_str).ok_or_else(|| VariableError::Undefined(name.to_owned()))
}

fn unreadable(name: &str, problem: Problem) -> VariableError {
    VariableError::Unreadable { name: name.to_owned(), reason: problem.message }
}

fn network(address: IpAddr, prefix: u8) -> AddressSet {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            let first = u32::from(address) & mask;
            v4(first, first | !mask)
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            let first = u128::from(address) & mask;
            v6(first, first | !mask)
        }
    }
}

fn v4(first: u32, last: u32) -> AddressSet {
    AddressSet { v4: vec![(first, last)], home_v4: vec![(first, last)], ..AddressSet::default() }
}

fn v6(first: u128, last: u128) -> AddressSet {
    AddressSet { v6: vec![(first, last)], home_v6: vec![(first, last)], ..AddressSet::default() }
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= value);
    after > 0 && value <= ranges[after - 1].1
}

fn complement<T: Ord + Copy>(ranges: &[(T, T)], low: T, high: T, before: fn(T) -> T, after: fn(T) -> T) -> Vec<(T, T)> {
    let mut holes = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(low);
    for (first, last) in ranges {
        if let Some(from) = next
            && *first > from
        {
            holes.push((from, before(*first)));
        }
        next = (*last < high).then(|| after(*last));
    }
    if let Some(from) = next {
        holes.push((from, high));
    }
    holes
}

fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: fn(T) -> T) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(open) if first <= after(open.1) => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// For tests and tools: the first address of each family that is in the set, not at home.
impl AddressSet {
    pub fn example(&self) -> Option<IpAddr> {
        let v4 = self.v4.first().map(|range| IpAddr::V4(Ipv4Addr::from(range.0)));
        v4.or_else(|| self.v6.first().map(|range| IpAddr::V6(Ipv6Addr::from(range.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str, variables: &Variables) -> AddressSet {
        variables.address_set(&header::address(text).unwrap()).unwrap()
    }

    #[test]
    fn lists_mean_any_of_these_and_none_of_those() {
        let variables = Variables::default();
        let set = addresses("[198.51.100.0/24,2001:db8::/32,!198.51.100.7]", &variables);
        let has = |text: &str| set.contains(text.parse().unwrap(), false);
        assert!(has("198.51.100.6") && has("198.51.100.8") && has("2001:db8::9"));
        assert!(!has("198.51.100.7") && !has("203.0.113.1") && !has("2001:db9::"));
        let set = addresses("[!198.51.100.7,!198.51.100.9]", &variables);
        assert!(set.contains("198.51.100.8".parse().unwrap(), false) && !set.contains("198.51.100.9".parse().unwrap(), false));
        assert!(addresses("any", &variables).is_any());
    }

    #[test]
    fn home_is_told_per_packet() {
        let variables = Variables::default();
        let home = addresses("$HOME_NET", &variables);
        let external = addresses("$EXTERNAL_NET", &variables);
        let address = "198.51.100.7".parse().unwrap();
        assert!(home.contains(address, true) && !home.contains(address, false));
        assert!(!external.contains(address, true) && external.contains(address, false));
        let mixed = addresses("[$HOME_NET,203.0.113.1]", &variables);
        assert!(mixed.contains("203.0.113.1".parse().unwrap(), false) && mixed.contains(address, true) && !mixed.contains(address, false));
    }

    #[test]
    fn a_name_says_what_kind_of_variable_it_is() {
        let mut variables = Variables::default();
        for (name, value) in [("WEB_PORTS", "[80,8080]"), ("DB_PORT", "5432"), ("HOME_NET", "198.51.100.0/24"), ("MINE", "any")] {
            variables.define(name, value);
        }
        assert_eq!((variables.ports["WEB_PORTS"].as_str(), variables.ports["DB_PORT"].as_str()), ("[80,8080]", "5432"));
        assert_eq!((variables.addresses["HOME_NET"].as_str(), variables.addresses["MINE"].as_str()), ("198.51.100.0/24", "any"));
    }

    #[test]
    fn bad_variables_are_named() {
        let mut variables = Variables::default();
        variables.addresses.insert("A".into(), "$B".into());
        variables.addresses.insert("B".into(), "[$A,any]".into());
        variables.addresses.insert("C".into(), "rubbish".into());
        let error = |text: &str| variables.address_set(&header::address(text).unwrap()).unwrap_err();
        assert!(matches!(error("$A"), VariableError::Circle(_)));
        assert!(matches!(error("$C"), VariableError::Unreadable { .. }));
        assert!(matches!(error("$NONE"), VariableError::Undefined(_)));
    }

    #[test]
    fn a_set_may_be_empty() {
        let mut variables = Variables::default();
        variables.define("HOME_NET", "any");
        for text in ["!any", "$EXTERNAL_NET", "[198.51.100.7,!198.51.100.0/24]"] {
            let set = addresses(text, &variables);
            assert!(set.is_empty() && !set.contains("198.51.100.7".parse().unwrap(), true), "{text}");
        }
        assert!(variables.port_set(&header::port("!0:65535").unwrap()).unwrap().is_empty());
    }

    #[test]
    fn ports_have_ranges_and_holes() {
        let set = Variables::default().port_set(&header::port("[1024:,80,!8000:8080]").unwrap()).unwrap();
        assert_eq!(set.ranges(), [(80, 80), (1024, 7999), (8081, 65535)]);
        assert!(set.contains(80) && set.contains(65535) && !set.contains(8001) && !set.contains(81));
    }
}
