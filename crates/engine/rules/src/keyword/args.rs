//! Reading values: numbers, lists, ranges.

use crate::diagnostic::Problem;
use crate::header::shorten;
use crate::tree::{Amount, NumberTest, Relation};

/// The trimmed value of one option.
pub(crate) struct Args<'a> {
    pub keyword: &'static str,
    pub value: &'a str,
}

impl<'a> Args<'a> {
    pub fn bad(&self) -> Problem {
        Problem::value(format!("`{}` is not a value for {}", shorten(self.value), self.keyword))
    }

    /// A whole number not above `max`.
    pub fn number(&self, max: u64) -> Result<u64, Problem> {
        match integer(self.value) {
            Some(number) if number <= max => Ok(number),
            _ => Err(Problem::value(format!("`{}` is not a number from 0 to {max}", shorten(self.value)))),
        }
    }

    /// Between double quotes, or bare.
    pub fn unquoted(&self) -> Result<&'a str, Problem> {
        match (self.value.strip_prefix('"'), self.value.len()) {
            (None, _) if self.value.ends_with('"') => Err(self.quote()),
            (None, _) => Ok(self.value),
            (Some(rest), 2..) => rest.strip_suffix('"').ok_or_else(|| self.quote()),
            (Some(_), _) => Err(self.quote()),
        }
    }

    /// Comma-separated members, trimmed.
    pub fn list(&self) -> impl Iterator<Item = &'a str> {
        self.value.split(',').map(str::trim)
    }

    /// A number or a variable's name.
    pub fn amount(&self, low: i32, high: i32) -> Result<Amount, Problem> {
        amount(self.value, low, high)
    }

    /// A test of a number of this many bits, [`number_test`].
    pub fn number_test(&self, bits: u32) -> Result<NumberTest, Problem> {
        number_test(self.value, bits).ok_or_else(|| self.bad().help("write 5, !5, <5, <=5, >5, >=5, 2-5, !2-5 or &0x0f=0x05"))
    }

    /// `5`, `!5`, `<5`, `>5`.
    pub fn relation(&self) -> (Relation, Args<'a>) {
        let (relation, rest) = match self.value.as_bytes().first() {
            Some(b'!') => (Relation::NotEqual, &self.value[1..]),
            Some(b'<') => (Relation::Less, &self.value[1..]),
            Some(b'>') => (Relation::Greater, &self.value[1..]),
            _ => (Relation::Equal, self.value),
        };
        (relation, Args { keyword: self.keyword, value: rest.trim() })
    }

    fn quote(&self) -> Problem {
        Problem::value(format!("the quotes in `{}` do not pair", shorten(self.value))).help("write \\\" for a quote inside of quotes")
    }
}

/// `5`, `=5`, `!5`, `!=5`, `<5`, `<=5`, `>5`, `>=5`, `2<>5`, `2-5`, `!2-5`, `&0xc0=0x80`, `&0xc0!=0`; numbers decimal, hex or with a
/// unit (`5kb`). Blanks may stand where the reference engine's grammar (`detect/uint.rs`) has them.
pub(crate) fn number_test(text: &str, bits: u32) -> Option<NumberTest> {
    let max = u64::MAX >> (64 - bits.clamp(1, 64));
    let text = text.trim_matches(' ');
    let number = |text: &str| unit_number(text.trim_matches(' ')).filter(|number| *number <= max);
    if let Some(rest) = text.strip_prefix('&') {
        let (mask, value) = rest.split_once('=')?;
        let (mask, negated) = match mask.strip_suffix('!') {
            Some(mask) => (mask, true),
            None => (mask, false),
        };
        let (mask, value) = (number(mask)?, number(value)?);
        return match (value & mask == value, negated) {
            (false, _) => None,
            (true, false) => Some(NumberTest::Masked { mask, value }),
            (true, true) => Some(NumberTest::NotMasked { mask, value }),
        };
    }
    for (sign, test) in [
        (">=", (|number, _| (number > 0).then_some(NumberTest::GreaterOrEqual(number))) as fn(u64, u64) -> Option<NumberTest>),
        ("<=", |number, max| (number < max).then_some(NumberTest::LessOrEqual(number))),
        (">", |number, max| (number < max).then_some(NumberTest::Greater(number))),
        ("<", |number, _| (number > 0).then_some(NumberTest::Less(number))),
        ("!=", |number, _| Some(NumberTest::NotEqual(number))),
        ("=", |number, _| Some(NumberTest::Equal(number))),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return test(number(rest)?, max);
        }
    }
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some((low, high)) = text.split_once("<>").or_else(|| text.split_once('-')) {
        let (low, high) = (number(low)?, number(high)?);
        return match (high > low && high - low > 1, negated) {
            (false, _) => None,
            (true, true) => Some(NumberTest::NotBetween(low, high)),
            (true, false) => Some(NumberTest::Between(low, high)),
        };
    }
    let only = number(text)?;
    Some(if negated { NumberTest::NotEqual(only) } else { NumberTest::Equal(only) })
}

/// Decimal, perhaps with a unit of 1024s, or `0x` hex.
pub(crate) fn unit_number(text: &str) -> Option<u64> {
    let digits = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match text.get(digits..)? {
        "" => 1,
        unit if text.starts_with("0x") && unit.starts_with('x') => return integer(text),
        unit => match unit.to_ascii_lowercase().as_str() {
            "kb" | "kib" => 1024,
            "mb" | "mib" => 1024 * 1024,
            "gb" | "gib" => 1024 * 1024 * 1024,
            _ => return None,
        },
    };
    integer(text.get(..digits)?)?.checked_mul(factor)
}

/// Decimal or `0x` hex, digits only.
pub(crate) fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

pub(crate) fn amount(text: &str, low: i32, high: i32) -> Result<Amount, Problem> {
    let text = text.trim();
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i32>() {
            Ok(number) if (low..=high).contains(&number) => Ok(Amount::Number(number)),
            _ => Err(Problem::value(format!("`{}` is not a number from {low} to {high}", shorten(text)))),
        };
    }
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')) {
        return Err(Problem::value(format!("`{}` is neither a number nor a name", shorten(text))));
    }
    Ok(Amount::Name(text.to_owned()))
}

/// A name that rules give to something: bits, counters, sets.
pub(crate) fn name(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.contains(|c: char| c.is_whitespace() || c == ',' || c == '"'))
        .then_some(text)
}

/// Longest name; Suricata's tables have 256 bytes at most.
const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_numbers_are_read_as_the_reference_engine_reads_them() {
        use NumberTest::*;
        for (text, bits, expected) in [
            ("5", 8, Some(Equal(5))),
            ("=0x13", 32, Some(Equal(0x13))),
            ("= 10", 32, Some(Equal(10))),
            ("!0x14", 32, Some(NotEqual(0x14))),
            ("!=20", 32, Some(NotEqual(20))),
            (">= 21", 32, Some(GreaterOrEqual(21))),
            ("<=22 ", 32, Some(LessOrEqual(22))),
            ("19-22", 32, Some(Between(19, 22))),
            ("13<>32", 16, Some(Between(13, 32))),
            ("!19 - 22", 32, Some(NotBetween(19, 22))),
            ("&0xc0=0x80", 8, Some(Masked { mask: 0xc0, value: 0x80 })),
            ("&0xc0!=0", 8, Some(NotMasked { mask: 0xc0, value: 0 })),
            (">2kb", 32, Some(Greater(2048))),
            ("3MiB", 32, Some(Equal(3 << 20))),
            ("&0x0f=0x10", 8, None),
            ("1-2", 8, None),
            ("5-3", 8, None),
            ("256", 8, None),
            (">255", 8, None),
            ("<0", 8, None),
            ("", 8, None),
            ("x", 8, None),
            ("1gb", 16, None),
            ("99999999999gb", 64, None),
            ("-1", 32, None),
        ] {
            assert_eq!(number_test(text, bits), expected, "{text}");
        }
        assert!(Masked { mask: 0xc0, value: 0x80 }.matches(0x85u8) && !NotBetween(1, 4).matches(2u32));
    }
}
