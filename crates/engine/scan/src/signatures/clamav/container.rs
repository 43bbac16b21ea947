//! Signatures on what an archive says of an entry (`.cdb`):
//! `name:container:container size:file name:packed size:real size:encrypted:position:checksum:reserved[:oldest[:newest]]`

use regex::bytes::Regex;

use super::{Refused, check_level};
use crate::kind::Kind;

/// Of a pattern for names.
const PATTERN_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Signature {
    pub name: String,
    pub source: u32,
    container: Option<Kind>,
    container_size: Range,
    file_name: Option<Regex>,
    packed: Range,
    real: Range,
    encrypted: Option<bool>,
    position: Range,
    checksum: Option<u32>,
}

/// What an archive says of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContainerFacts<'a> {
    pub container: Kind,
    pub container_size: u64,
    pub name: &'a str,
    pub packed: Option<u64>,
    pub real: Option<u64>,
    pub encrypted: bool,
    /// From 1.
    pub position: u64,
    /// CRC-32, where the format has one.
    pub checksum: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range(u64, u64);

impl Range {
    const ANY: Self = Self(0, u64::MAX);

    fn parse(text: &str) -> Result<Self, Refused> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| Refused::wrong(format!("`{text}` is not a number, a range or `*`")));
        match (text, text.split_once('-')) {
            ("*", _) => Ok(Self::ANY),
            (_, Some((least, most))) => Ok(Self(number(least)?, number(most)?)),
            (_, None) => number(text).map(|only| Self(only, only)),
        }
    }

    /// What is not known is in no range but the widest.
    fn holds(self, value: Option<u64>) -> bool {
        value.map_or(self == Self::ANY, |value| (self.0..=self.1).contains(&value))
    }
}

impl Signature {
    pub fn parse(line: &str, source: u32) -> Result<Self, Refused> {
        let fields = split(line);
        let [name, container, container_size, file_name, packed, real, encrypted, position, checksum, _reserved, levels @ ..] =
            fields.as_slice()
        else {
            return Err(Refused::wrong("a line has ten fields, with `:` between them"));
        };
        if name.is_empty() {
            return Err(Refused::wrong("a signature has a name"));
        }
        check_level(levels.first().copied(), levels.get(1).copied())?;
        let container = match *container {
            "*" => None,
            "CL_TYPE_ZIP" => Some(Kind::Zip),
            "CL_TYPE_POSIX_TAR" | "CL_TYPE_OLD_TAR" => Some(Kind::Tar),
            "CL_TYPE_7Z" => Some(Kind::SevenZip),
            "CL_TYPE_MSCAB" => Some(Kind::Cab),
            "CL_TYPE_MAIL" => Some(Kind::Mail),
            "CL_TYPE_CPIO_OLD" | "CL_TYPE_CPIO_ODC" | "CL_TYPE_CPIO_NEWC" | "CL_TYPE_CPIO_CRC" => Some(Kind::CpioNewc),
            _ => return Err(Refused::unsupported("other containers")),
        };
        let file_name = if *file_name == "*" {
            None
        } else if file_name.len() > PATTERN_BYTES_MAX {
            return Err(Refused::wrong("a pattern for names has more than 4,096 bytes"));
        } else {
            let pattern = regex::bytes::RegexBuilder::new(file_name).unicode(false).size_limit(1 << 20).build();
            Some(pattern.map_err(|_| Refused::wrong("the pattern for names is not a regular expression"))?)
        };
        let checksum = match *checksum {
            "*" => None,
            text => {
                let parsed = text.parse().or_else(|_| u32::from_str_radix(text.trim_start_matches("0x"), 16));
                Some(parsed.map_err(|_| Refused::wrong("a checksum is a number"))?)
            }
        };
        Ok(Self {
            name: (*name).to_owned(),
            source,
            container,
            container_size: Range::parse(container_size)?,
            file_name,
            packed: Range::parse(packed)?,
            real: Range::parse(real)?,
            encrypted: match *encrypted {
                "*" => None,
                "1" => Some(true),
                "0" => Some(false),
                _ => return Err(Refused::wrong("encrypted is 0, 1 or `*`")),
            },
            position: Range::parse(position)?,
            checksum,
        })
    }

    pub fn matches(&self, facts: &ContainerFacts<'_>) -> bool {
        let cpio = |kind: Kind| matches!(kind, Kind::CpioNewc | Kind::CpioOdc | Kind::CpioBinary(_));
        self.container.is_none_or(|kind| kind == facts.container || (cpio(kind) && cpio(facts.container)))
            && self.container_size.holds(Some(facts.container_size))
            && self.packed.holds(facts.packed)
            && self.real.holds(facts.real)
            && self.encrypted.is_none_or(|encrypted| encrypted == facts.encrypted)
            && self.position.holds(Some(facts.position))
            && self.checksum.is_none_or(|checksum| facts.checksum == Some(checksum))
            && self.file_name.as_ref().is_none_or(|pattern| pattern.is_match(facts.name.as_bytes()))
    }
}

/// At colons, but for those behind a backslash.
fn split(line: &str) -> Vec<&str> {
    let (mut fields, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in line.bytes().enumerate() {
        if byte == b':' && !escaped {
            fields.push(&line[start..at]);
            start = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    fields.push(&line[start..]);
    fields
}
