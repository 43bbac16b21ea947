//! Sets of values that rules name: datasets with or without a score, lists of hashes, reputation of addresses.
//!
//! Their files are the caller's to read ([`Resources`]). A dataset may be written by rules while others read it, from all shards, so that it
//! is shared behind a lock; it outlives a reload when its name and type stay. Formats are the reference engine's: a line a value, strings in
//! base64, hashes in hexadecimal, a score behind a comma.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use bulkhead_rules::Action;
use bulkhead_rules::condition::{HashAlgorithm, IpSide, Iprep, IprepTest};
use bulkhead_rules::transform::Base64Mode;
use bulkhead_rules::tree::{DatasetFormat, DatasetKind, DatasetOperation, DatasetSource};

use crate::derive;

/// Values of one set; further ones are refused and counted.
pub const SET_VALUES_MAX: usize = 4_000_000;
/// Bytes of one value.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Sets that one rule set may name.
const SETS_MAX: usize = 4_096;
/// Networks of a reputation list.
const NETWORKS_MAX: usize = 1_000_000;

/// Opens a file by the name that a rule has for it.
pub type Open<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// What a rule set may need beside its rules.
#[derive(Default)]
pub struct Resources<'a> {
    /// Opens a file that a rule names. `None`: it is not there.
    pub files: Option<&'a Open<'a>>,
    /// Sets that the configuration describes.
    pub datasets: Vec<(String, DatasetSource)>,
    pub reputation: Reputation,
    pub action_order: ActionOrder,
    /// The rule set in force, whose sets live on.
    pub before: Option<&'a crate::Ruleset>,
}

/// Which rules are judged first, by what they do. What comes before decides: a pass behind a drop lets nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionOrder {
    ranks: [u8; 4],
}

impl Default for ActionOrder {
    /// Pass, drop, reject, alert.
    fn default() -> Self {
        Self { ranks: [0, 1, 2, 3] }
    }
}

impl ActionOrder {
    /// From the words `pass`, `drop`, `reject` and `alert`, each once.
    pub fn from_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Option<Self> {
        let mut ranks = [None; 4];
        for (given, word) in (0..).zip(words) {
            let place = ["pass", "drop", "reject", "alert"].iter().position(|known| *known == word)?;
            if ranks[place].replace(given).is_some() {
                return None;
            }
        }
        match ranks {
            [Some(pass), Some(drop), Some(reject), Some(alert)] => Some(Self { ranks: [pass, drop, reject, alert] }),
            _ => None,
        }
    }

    pub(crate) const fn rank(self, action: Action) -> u8 {
        let [pass, drop, reject, alert] = self.ranks;
        match action {
            Action::Pass => pass,
            Action::Drop => drop,
            Action::RejectSource | Action::RejectDestination | Action::RejectBoth => reject,
            Action::Alert | Action::Config => alert,
        }
    }
}

impl std::fmt::Debug for Resources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources").field("datasets", &self.datasets).finish_non_exhaustive()
    }
}

/// One set by its name.
#[derive(Debug)]
pub struct Dataset {
    pub name: String,
    pub kind: DatasetKind,
    /// Where its values are to be written when the engine ends.
    pub save: Option<String>,
    values: RwLock<BTreeMap<Box<[u8]>, u16>>,
    max: usize,
}

impl Dataset {
    fn new(name: &str, kind: DatasetKind, save: Option<String>) -> Self {
        Self { name: name.to_owned(), kind, save, values: RwLock::default(), max: SET_VALUES_MAX }
    }

    /// The form in which a value is kept; `None`: it cannot be one of this type.
    fn form<'v>(&self, value: &'v [u8], held: &'v mut [u8; 16]) -> Option<&'v [u8]> {
        match self.kind {
            DatasetKind::String => (value.len() <= VALUE_BYTES_MAX).then_some(value),
            DatasetKind::Md5 => (value.len() == 16).then_some(value),
            DatasetKind::Sha256 => (value.len() == 32).then_some(value),
            DatasetKind::Ipv4 => (value.len() == 4).then_some(value),
            DatasetKind::Ip => {
                let address = match value.len() {
                    4 => Ipv4Addr::new(value[0], value[1], value[2], value[3]).to_ipv6_mapped(),
                    16 => Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?),
                    _ => return None,
                };
                *held = address.octets();
                Some(held)
            }
        }
    }

    /// Whether a rule's operation holds: to set or unset is to change something.
    pub(crate) fn apply(&self, operation: DatasetOperation, value: &[u8]) -> bool {
        let mut held = [0; 16];
        let Some(value) = self.form(value, &mut held) else { return false };
        let read = || self.values.read().unwrap_or_else(PoisonError::into_inner);
        let write = || self.values.write().unwrap_or_else(PoisonError::into_inner);
        match operation {
            DatasetOperation::IsSet => read().contains_key(value),
            DatasetOperation::IsNotSet => !read().contains_key(value),
            DatasetOperation::Set => {
                let mut values = write();
                values.len() < self.max && !values.contains_key(value) && values.insert(value.into(), 0).is_none()
            }
            DatasetOperation::Unset => write().remove(value).is_some(),
        }
    }

    pub(crate) fn score(&self, value: &[u8]) -> Option<u16> {
        let mut held = [0; 16];
        let value = self.form(value, &mut held)?;
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(value).copied()
    }

    pub fn len(&self) -> usize {
        self.values.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As a file holds it, in the order of the values.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for value in self.values.read().unwrap_or_else(PoisonError::into_inner).keys() {
            match self.kind {
                DatasetKind::String => base64(value, &mut text),
                DatasetKind::Md5 | DatasetKind::Sha256 => {
                    for byte in value {
                        _ = write!(text, "{byte:02x}");
                    }
                }
                DatasetKind::Ipv4 | DatasetKind::Ip => {
                    let address = match value.len() {
                        4 => IpAddr::V4(Ipv4Addr::new(value[0], value[1], value[2], value[3])),
                        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&**value).unwrap_or_default())),
                    };
                    _ = write!(text, "{address}");
                }
            }
            text.push('\n');
        }
        text
    }

    /// Takes in a file. The error is for whoever wrote it.
    fn load(&self, text: &[u8], scored: bool) -> Result<(), String> {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bad = |what: &str| format!("line {number} of the set `{}` {what}", self.name);
            let (value, score) = match line.iter().position(|byte| *byte == b',') {
                Some(at) => (&line[..at], Some(line[at + 1..].trim_ascii())),
                None => (line, None),
            };
            let score = match score {
                Some(score) => {
                    std::str::from_utf8(score).ok().and_then(|text| text.parse().ok()).ok_or_else(|| bad("has no score from 0 to 65535"))
                }
                None if scored => Err(bad("has no score")),
                None => Ok(0),
            }?;
            let value = self.parse(value).ok_or_else(|| bad("is not of its type"))?;
            if values.len() >= self.max {
                return Err(format!("the set `{}` has more than {} values", self.name, self.max));
            }
            values.insert(value, score);
        }
        Ok(())
    }

    /// A value of a JSON file, which is written plainly.
    fn take(&self, value: &str) -> Result<(), String> {
        let bad = || format!("a value of the set `{}` is not of its type", self.name);
        let value = match self.kind {
            DatasetKind::String => value.as_bytes().into(),
            DatasetKind::Md5 | DatasetKind::Sha256 | DatasetKind::Ipv4 | DatasetKind::Ip => self.parse(value.as_bytes()).ok_or_else(bad)?,
        };
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= self.max {
            return Err(format!("the set `{}` has more than {} values", self.name, self.max));
        }
        values.insert(value, 0);
        Ok(())
    }

    fn parse(&self, text: &[u8]) -> Option<Box<[u8]>> {
        let value = match self.kind {
            DatasetKind::String => {
                let mut value = Vec::new();
                derive::base64(text, Base64Mode::Strict, &mut value);
                (!value.is_empty()).then_some(value)?
            }
            DatasetKind::Md5 | DatasetKind::Sha256 => hex(text)?,
            DatasetKind::Ipv4 => std::str::from_utf8(text).ok()?.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
            DatasetKind::Ip => match std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok()? {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            },
        };
        let mut held = [0; 16];
        self.form(&value, &mut held).map(Into::into)
    }
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
}

/// Hashes of files.
#[derive(Debug, Default)]
pub(crate) struct HashList {
    known: BTreeSet<Box<[u8]>>,
}

impl HashList {
    pub fn contains(&self, hash: &[u8]) -> bool {
        self.known.contains(hash)
    }
}

/// The sets of one rule set while it is compiled.
pub(crate) struct Sets<'a> {
    resources: &'a Resources<'a>,
    pub named: BTreeMap<String, Arc<Dataset>>,
    lists: BTreeMap<String, Arc<HashList>>,
}

impl<'a> Sets<'a> {
    pub fn new(resources: &'a Resources<'a>) -> Self {
        Self { resources, named: BTreeMap::new(), lists: BTreeMap::new() }
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.resources.files.and_then(|files| files(name))
    }

    /// The set of a rule; what a rule does not say of it, another one or the configuration does.
    pub fn dataset(&mut self, name: &str, source: &DatasetSource, scored: bool) -> Result<Arc<Dataset>, String> {
        if let Some(known) = self.named.get(name) {
            if source.kind.is_some_and(|kind| kind != known.kind) {
                return Err(format!("the set `{name}` is of another type in a rule before"));
            }
            return Ok(Arc::clone(known));
        }
        if self.named.len() >= SETS_MAX {
            return Err(format!("more than {SETS_MAX} sets"));
        }
        let configured = self.resources.datasets.iter().find(|(of, _)| of == name).map(|(_, source)| source);
        let source = if source.kind.is_none() { configured.unwrap_or(source) } else { source };
        let kind = source.kind.ok_or_else(|| format!("the set `{name}` has no type"))?;
        let save = source.save.clone().or_else(|| source.state.clone());
        let before = self.resources.before.and_then(|before| before.datasets().find(|set| set.name == name && set.kind == kind));
        let set = match before {
            Some(before) if save.is_some() || source.load.is_none() => Arc::clone(before),
            _ => {
                let set = Dataset::new(name, kind, save);
                // A state that was never saved is empty.
                let text = match (&source.load, &source.state) {
                    (Some(load), _) => {
                        Some(self.file(load).ok_or_else(|| format!("the file `{load}` of the set `{name}` cannot be read"))?)
                    }
                    (None, Some(state)) => self.file(state),
                    (None, None) => None,
                };
                match (text, source.format) {
                    (None, _) => {}
                    (Some(text), DatasetFormat::Csv) => set.load(&text, scored)?,
                    (Some(text), DatasetFormat::Json | DatasetFormat::Ndjson) => load_json(&set, &text, source)?,
                }
                Arc::new(set)
            }
        };
        self.named.insert(name.to_owned(), Arc::clone(&set));
        Ok(set)
    }

    /// The hashes of a file: the first word of each line.
    pub fn hashes(&mut self, name: &str, algorithm: HashAlgorithm) -> Result<Arc<HashList>, String> {
        let key = format!("{algorithm:?} {name}");
        if let Some(known) = self.lists.get(&key) {
            return Ok(Arc::clone(known));
        }
        let text = self.file(name).ok_or_else(|| format!("the list of hashes `{name}` cannot be read"))?;
        let length = match algorithm {
            HashAlgorithm::Md5 => 16,
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 => 32,
        };
        let mut list = HashList::default();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let Some(word) = line.trim_ascii().split(u8::is_ascii_whitespace).next().filter(|word| !word.is_empty()) else { continue };
            if word.starts_with(b"#") {
                continue;
            }
            let hash = hex(word).filter(|hash| hash.len() == length).ok_or_else(|| format!("line {number} of `{name}` is no such hash"))?;
            if list.known.len() >= SET_VALUES_MAX {
                return Err(format!("the list `{name}` has more than {SET_VALUES_MAX} hashes"));
            }
            list.known.insert(hash.into());
        }
        let list = Arc::new(list);
        self.lists.insert(key, Arc::clone(&list));
        Ok(list)
    }

    pub const fn reputation(&self) -> &Reputation {
        &self.resources.reputation
    }
}

/// Values under a key, in an array or one object a line.
fn load_json(set: &Dataset, text: &[u8], source: &DatasetSource) -> Result<(), String> {
    let bad = |what: &str| format!("the file of the set `{}` {what}", set.name);
    let within = |value: &serde_json::Value, key: &str| key.split('.').try_fold(value.clone(), |value, key| value.get(key).cloned());
    let key = source.value_key.as_deref().unwrap_or_default();
    let all = match source.format {
        DatasetFormat::Ndjson => {
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            lines
                .map(serde_json::from_slice)
                .collect::<Result<Vec<serde_json::Value>, _>>()
                .map_err(|_| bad("is not JSON, line by line"))?
        }
        DatasetFormat::Json | DatasetFormat::Csv => {
            let whole: serde_json::Value = serde_json::from_slice(text).map_err(|_| bad("is not JSON"))?;
            let array = source.array_key.as_deref().map_or(Some(whole.clone()), |key| within(&whole, key));
            match array {
                Some(serde_json::Value::Array(items)) => items,
                _ => return Err(bad("has no array there")),
            }
        }
    };
    for item in &all {
        // What has no such key is about something else.
        match within(item, key) {
            Some(serde_json::Value::String(value)) => set.take(&value)?,
            Some(_) => return Err(bad("has a value that is no text")),
            None => {}
        }
    }
    Ok(())
}

/// Of IPv4 or not, and its length, longest first.
type Prefix = (bool, std::cmp::Reverse<u8>);
/// Categories and their scores.
type Scores = Vec<(u8, u8)>;

/// Scores of addresses by category, 0 to 127.
#[derive(Debug, Clone, Default)]
pub struct Reputation {
    categories: BTreeMap<String, u8>,
    hosts: BTreeMap<IpAddr, Scores>,
    networks: BTreeMap<Prefix, BTreeMap<u128, Scores>>,
    count: usize,
}

impl Reputation {
    pub fn is_empty(&self) -> bool {
        self.categories.is_empty()
    }

    /// Lines `1,short name,description`.
    pub fn add_categories(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| is_content(line)) {
            let mut fields = line.split(',').map(str::trim);
            let id = fields.next().and_then(|id| id.parse::<u8>().ok()).filter(|id| (1..60).contains(id));
            match (id, fields.next().filter(|name| !name.is_empty())) {
                (Some(id), Some(name)) => _ = self.categories.insert(name.to_owned(), id),
                _ => return Err(format!("line {number} is not a number from 1 to 59, a name and a description")),
            }
        }
        Ok(())
    }

    /// Lines `address or network,category,score`.
    pub fn add_list(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| is_content(line)) {
            let bad = || format!("line {number} is not an address, a category and a score from 0 to 127");
            let mut fields = line.split(',').map(str::trim);
            let (Some(who), Some(category), Some(score)) = (fields.next(), fields.next(), fields.next()) else { return Err(bad()) };
            let category = category.parse::<u8>().map_err(|_| bad())?;
            let score = score.parse::<u8>().ok().filter(|score| *score <= 127).ok_or_else(bad)?;
            if self.count >= NETWORKS_MAX {
                return Err(format!("more than {NETWORKS_MAX} addresses"));
            }
            self.count += 1;
            let scores = match who.split_once('/') {
                None => self.hosts.entry(who.parse().map_err(|_| bad())?).or_default(),
                Some((address, length)) => {
                    let address: IpAddr = address.parse().map_err(|_| bad())?;
                    let length = length.parse::<u8>().ok().filter(|length| *length <= if address.is_ipv4() { 32 } else { 128 });
                    let length = length.ok_or_else(bad)?;
                    let networks = self.networks.entry((address.is_ipv4(), std::cmp::Reverse(length))).or_default();
                    networks.entry(masked(address, length)).or_default()
                }
            };
            scores.retain(|(of, _)| *of != category);
            scores.push((category, score));
        }
        Ok(())
    }

    pub(crate) fn category(&self, name: &str) -> Option<u8> {
        self.categories.get(name).copied()
    }

    fn score(&self, address: IpAddr, category: u8) -> Option<u8> {
        let of = |scores: &Scores| scores.iter().find(|(of, _)| *of == category).map(|(_, score)| *score);
        let networks = self.networks.iter().filter(|((is_v4, _), _)| *is_v4 == address.is_ipv4());
        let of_networks = || networks.filter_map(|((_, length), networks)| networks.get(&masked(address, length.0))).find_map(of);
        self.hosts.get(&address).and_then(of).or_else(of_networks)
    }

    pub(crate) fn holds(&self, asked: &IprepAsked, from: IpAddr, to: IpAddr) -> bool {
        let of = |address: IpAddr| {
            let score = self.score(address, asked.category);
            match asked.test {
                IprepTest::IsSet => score.is_some(),
                IprepTest::IsNotSet => score.is_none(),
                IprepTest::Score(test) => score.is_some_and(|score| test.matches(u64::from(score))),
            }
        };
        match asked.side {
            IpSide::Any => of(from) || of(to),
            IpSide::Source => of(from),
            IpSide::Destination => of(to),
            IpSide::Both => of(from) && of(to),
        }
    }
}

fn is_content(line: &str) -> bool {
    !line.trim().is_empty() && !line.trim_start().starts_with('#')
}

fn masked(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let host = width - u32::from(length).min(width);
    if host >= 128 { 0 } else { bits >> host << host }
}

/// What a rule asks of reputation, its category found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IprepAsked {
    side: IpSide,
    category: u8,
    test: IprepTest,
}

impl IprepAsked {
    pub fn new(iprep: &Iprep, reputation: &Reputation) -> Result<Self, String> {
        let category =
            reputation.category(&iprep.category).ok_or_else(|| format!("there is no category `{}` of reputation", iprep.category))?;
        Ok(Self { side: iprep.side, category, test: iprep.test })
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_rules::tree::NumberTest;

    use super::*;

    fn source(kind: DatasetKind) -> DatasetSource {
        DatasetSource { kind: Some(kind), load: Some("f".into()), ..DatasetSource::default() }
    }

    fn loaded(kind: DatasetKind, text: &str, scored: bool) -> Result<Arc<Dataset>, String> {
        let files = |name: &str| (name == "f").then(|| text.as_bytes().to_vec());
        let resources = Resources { files: Some(&files), ..Resources::default() };
        Sets::new(&resources).dataset("s", &source(kind), scored)
    }

    #[test]
    fn values_are_read_in_the_form_of_their_type_and_written_back() {
        let set = loaded(DatasetKind::String, "Y3VybC83LjQzLjA=\n# a remark\n\nYQ==\n", false).unwrap();
        assert!(set.apply(DatasetOperation::IsSet, b"curl/7.43.0") && set.apply(DatasetOperation::IsNotSet, b"curl"));
        assert!(set.apply(DatasetOperation::Set, b"ab") && !set.apply(DatasetOperation::Set, b"ab"));
        assert_eq!(set.text(), "YQ==\nYWI=\nY3VybC83LjQzLjA=\n");
        assert!(set.apply(DatasetOperation::Unset, b"ab") && !set.apply(DatasetOperation::Unset, b"ab"));
        let set = loaded(DatasetKind::Ip, "::ffff:82.165.177.154\n10.0.0.1\n", false).unwrap();
        assert!(set.apply(DatasetOperation::IsSet, &[82, 165, 177, 154]) && set.apply(DatasetOperation::IsSet, &[10, 0, 0, 1]));
        let set = loaded(DatasetKind::Md5, "1d5920f4b44b27a802bd77c4f0536f5a,255", true).unwrap();
        assert_eq!(set.score(&hex(b"1d5920f4b44b27a802bd77c4f0536f5a").unwrap()), Some(255));
        assert_eq!((set.score(b"short"), set.text().as_str()), (None, "1d5920f4b44b27a802bd77c4f0536f5a\n"));
    }

    #[test]
    fn a_file_that_does_not_fit_is_the_authors_to_hear_of() {
        assert!(loaded(DatasetKind::Md5, "1d59", false).unwrap_err().contains("line 1"));
        assert!(loaded(DatasetKind::String, "YQ==,65536", true).unwrap_err().contains("score"));
        assert!(loaded(DatasetKind::String, "YQ==", true).unwrap_err().contains("no score"));
        assert!(Sets::new(&Resources::default()).dataset("s", &source(DatasetKind::Ip), false).unwrap_err().contains("cannot be read"));
        assert!(Sets::new(&Resources::default()).hashes("h", HashAlgorithm::Md5).is_err());
    }

    #[test]
    fn reputation_is_of_the_address_then_of_its_narrowest_network() {
        let mut reputation = Reputation::default();
        reputation.add_categories("1,test,Testing\n2,other,x\n").unwrap();
        reputation.add_list("192.168.0.0/16,1,5\n192.168.7.0/24,1,9\n192.168.7.7,1,0\n2001:db8::/32,2,100\n").unwrap();
        let asked = |side, name: &str, test| IprepAsked::new(&Iprep { side, category: name.into(), test }, &reputation).unwrap();
        let above = |least| IprepTest::Score(NumberTest::Greater(least));
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let holds = |asked: IprepAsked, from, to| reputation.holds(&asked, at(from), at(to));
        assert!(holds(asked(IpSide::Source, "test", above(4)), "192.168.1.1", "10.0.0.1"));
        assert!(!holds(asked(IpSide::Source, "test", above(5)), "192.168.1.1", "10.0.0.1"));
        assert!(holds(asked(IpSide::Any, "test", above(8)), "10.0.0.1", "192.168.7.1"));
        assert!(holds(asked(IpSide::Destination, "test", IprepTest::Score(NumberTest::Equal(0))), "10.0.0.1", "192.168.7.7"));
        assert!(holds(asked(IpSide::Both, "test", IprepTest::IsNotSet), "10.0.0.1", "10.0.0.2"));
        assert!(holds(asked(IpSide::Source, "other", IprepTest::IsSet), "2001:db8::7", "10.0.0.2"));
        assert!(IprepAsked::new(&Iprep { side: IpSide::Any, category: "none".into(), test: IprepTest::IsSet }, &reputation).is_err());
        assert!(Reputation::default().add_list("10.0.0.1,1,128").is_err() && Reputation::default().add_categories("0,x,y").is_err());
    }
}
