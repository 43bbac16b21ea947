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

    /// `5`, `!5`, `<5`, `<=5`, `>5`, `>=5`, `2<>5`, `2-5`, `!2-5`.
    pub fn number_test(&self, max: u32) -> Result<NumberTest, Problem> {
        let number = |text: &str| -> Result<u32, Problem> {
            integer(text.trim()).and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= max).ok_or_else(|| self.bad())
        };
        let text = self.value;
        if let Some(rest) = text.strip_prefix("<=") {
            return number(rest).map(NumberTest::LessOrEqual);
        }
        if let Some(rest) = text.strip_prefix(">=") {
            return number(rest).map(NumberTest::GreaterOrEqual);
        }
        if let Some(rest) = text.strip_prefix('<') {
            return number(rest).map(NumberTest::Less);
        }
        if let Some(rest) = text.strip_prefix('>') {
            return number(rest).map(NumberTest::Greater);
        }
        let (negated, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if let Some((low, high)) = text.split_once("<>").or_else(|| text.split_once('-')) {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high || high - low < 2 {
                return Err(Problem::value(format!("no number lies between {low} and {high}, both excluded")));
            }
            return Ok(if negated { NumberTest::NotBetween(low, high) } else { NumberTest::Between(low, high) });
        }
        let only = number(text)?;
        Ok(if negated { NumberTest::NotEqual(only) } else { NumberTest::Equal(only) })
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
