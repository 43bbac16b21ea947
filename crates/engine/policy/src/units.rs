//! Sizes and times as people write them: `1 MiB`, `500 ms`.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::diagnostic::{Report, quote};
use crate::setting::{Setting, scalar};
use crate::yaml::Node;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// In the largest binary unit that divides it.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().filter(|(name, n)| name.len() != 2 && self.0 >= *n).find(|(_, n)| self.0.is_multiple_of(*n));
        match unit {
            Some((name, n)) => write!(f, "{} {name}", self.0 / n),
            None => write!(f, "0 B"),
        }
    }
}

impl Setting for ByteSize {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a size", "1 MiB", to)?;
        match amount(text, &SIZES, Some(1)) {
            Ok(bytes) => Some(Self(bytes)),
            Err(wrong) => {
                let help = "a number and one of B, KiB, MiB, GiB, TiB (1024) or kB, MB, GB, TB (1000), for example `64 MiB`";
                to.error(node.at, "bad-value", format!("{} is not a size: {wrong}", quote(text)), help);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]{1,3})? ?([KMGT]i?B|kB|B)?$", "minimum": 0, "x-type": "size"})
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Setting for Duration {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a time", "500 ms", to)?;
        match amount(text, &TIMES, None) {
            Ok(micros) => Some(Self::from_micros(micros)),
            Err(wrong) => {
                let help = "a number and one of us, ms, s, min, h, d, for example `500 ms`";
                to.error(node.at, "bad-value", format!("{} is not a time: {wrong}", quote(text)), help);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,3})? ?(us|ms|s|min|h|d)$", "x-type": "time"})
    }

    fn show(&self) -> Value {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        let unit = TIMES.iter().filter(|(_, n)| micros >= *n).find(|(_, n)| micros.is_multiple_of(*n));
        Value::String(unit.map_or_else(|| "0 s".to_owned(), |(name, n)| format!("{} {name}", micros / n)))
    }
}

/// `1.5 GiB` to bytes, `2 min` to microseconds. `bare`: what one is worth without a unit, if it may stand without.
fn amount(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.contains('.') {
        return Err("it does not begin with a number".to_owned());
    }
    if fraction.len() > 3 {
        return Err("more than three digits after the point".to_owned());
    }
    let worth = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, worth)) => *worth,
        None if unit.is_empty() => bare.ok_or("the unit is missing")?,
        None => {
            let near = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(name, _)| *name);
            let guess = near.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            return Err(format!("the unit {} is not known{guess}", quote(unit)));
        }
    };
    let too_large = || "it is too large".to_owned();
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let thousandths: u64 = format!("{fraction:0<3}").parse().map_err(|_| too_large())?;
    let total = u128::from(whole) * u128::from(worth) + u128::from(thousandths) * u128::from(worth) / 1_000;
    u64::try_from(total).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        let size = |text| amount(text, &SIZES, Some(1));
        assert_eq!(size("1 MiB"), Ok(1 << 20));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("10 kB"), Ok(10_000));
        assert!(size("1 mib").is_err_and(|e| e.contains("did you mean `MiB`")));
        for text in ["", "MiB", "-1 MiB", "1..5 MiB", "1. MiB", "1 MiBB", "99999999999999999999", "18446744073709551615 TiB", "1.2345 GiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        let time = |text| amount(text, &TIMES, None);
        assert_eq!(time("500 ms"), Ok(500_000));
        assert_eq!(time("1.5 s"), Ok(1_500_000));
        assert_eq!(time("2 min"), Ok(120_000_000));
        assert!(time("500").is_err_and(|e| e.contains("unit is missing")));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, (1 << 30) + 1, 5 << 40, u64::MAX] {
            assert_eq!(amount(&ByteSize(bytes).to_string(), &SIZES, None), Ok(bytes));
        }
        for micros in [0, 1, 999, 500_000, 1_000_000, 90_000_000, 86_400_000_000] {
            let shown = Duration::from_micros(micros).show();
            assert_eq!(shown.as_str().map(|text| amount(text, &TIMES, None)), Some(Ok(micros)));
        }
    }
}
