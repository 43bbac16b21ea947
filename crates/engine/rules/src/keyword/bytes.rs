//! Keywords that read numbers out of a buffer or ask how much of it there is: isdataat, bsize, byte_test, byte_jump, byte_extract.

use super::args::{amount, integer};
use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::{Code, Problem};
use crate::tree::{Amount, Base, Body, ByteExtract, ByteJump, ByteTest, ByteValue, Comparison, Endian, IsDataAt};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("isdataat", Value::Required, false, is_data_at),
    keyword("bsize", Value::Required, false, |args| match args.number_test(u32::MAX) {
        Ok(test) => Ok(Body::Bsize(test)),
        Err(problem) => Err(problem),
    }),
    keyword("byte_test", Value::Required, false, byte_test),
    keyword("byte_jump", Value::Required, false, byte_jump),
    keyword("byte_extract", Value::Required, false, byte_extract),
];

/// Most digits of a number written as text (octal, 64 bits).
const TEXT_DIGITS_MAX: i32 = 23;
const POSITION_MAX: i32 = 65_535;

fn is_data_at(args: &Args<'_>) -> Result<Body, Problem> {
    let (negated, value) = match args.value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, args.value),
    };
    let mut members = value.split(',').map(str::trim);
    let mut found = IsDataAt { negated, at: amount(members.next().unwrap_or(""), 0, POSITION_MAX)?, relative: false, rawbytes: false };
    for member in members {
        match member {
            "relative" => found.relative = true,
            "rawbytes" => found.rawbytes = true,
            _ => return Err(args.bad().help("write isdataat:NUMBER,relative;")),
        }
    }
    Ok(Body::IsDataAt(found))
}

/// The words that byte_test, byte_jump and byte_extract share.
#[derive(Default)]
struct Words {
    relative: bool,
    endian: Option<Endian>,
    string: bool,
    base: Option<Base>,
    bitmask: u64,
}

impl Words {
    /// Whether the member was one of ours.
    fn take(&mut self, member: &str, args: &Args<'_>) -> Result<bool, Problem> {
        match member {
            "relative" => self.relative = true,
            "big" => self.endian = Some(Endian::Big),
            "little" => self.endian = Some(Endian::Little),
            "string" => self.string = true,
            "hex" => self.base = Some(Base::Hex),
            "dec" => self.base = Some(Base::Decimal),
            "oct" => self.base = Some(Base::Octal),
            "dce" => return Err(Problem::new(Code::ValueUnsupported, format!("`dce` in {} is not supported yet", args.keyword))),
            other => {
                let Some(mask) = other.strip_prefix("bitmask") else { return Ok(false) };
                let digits = mask.trim();
                let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits);
                self.bitmask = u64::from_str_radix(hex, 16).ok().filter(|mask| *mask != 0).ok_or_else(|| args.bad())?;
            }
        }
        Ok(true)
    }

    fn base(&self, count: &Amount, args: &Args<'_>) -> Result<Base, Problem> {
        let base = match (self.string, self.base) {
            (true, Some(base)) => base,
            (true, None) => Base::Decimal,
            (false, None) => Base::Binary(self.endian.unwrap_or(Endian::Big)),
            (false, Some(_)) => return Err(args.bad().help("hex, dec and oct stand beside string")),
        };
        // As text, 0 means: as many digits as there are.
        let allowed = if self.string { 0..=TEXT_DIGITS_MAX } else { 1..=8 };
        match count {
            Amount::Number(number) if !allowed.contains(number) => {
                Err(Problem::value(format!("{} reads {} to {} bytes here", args.keyword, allowed.start(), allowed.end())))
            }
            _ => Ok(base),
        }
    }
}

fn byte_test(args: &Args<'_>) -> Result<Body, Problem> {
    let members: Vec<&str> = args.list().collect();
    let [count, operator, value, offset, rest @ ..] = members.as_slice() else {
        return Err(args.bad().help("write byte_test:COUNT,OPERATOR,VALUE,OFFSET;"));
    };
    let (negated, operator) = match operator.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, *operator),
    };
    let comparison = match operator {
        "<" => Comparison::Less,
        ">" => Comparison::Greater,
        "=" | "" => Comparison::Equal,
        "<=" => Comparison::LessOrEqual,
        ">=" => Comparison::GreaterOrEqual,
        "&" => Comparison::And,
        "^" => Comparison::Or,
        _ => return Err(args.bad().help("the operator is < > = <= >= & or ^, with ! before it to negate")),
    };
    if operator.is_empty() && !negated {
        return Err(args.bad());
    }
    let count = amount(count, 0, TEXT_DIGITS_MAX)?;
    let mut words = Words::default();
    for member in rest {
        if !words.take(member, args)? {
            return Err(args.bad());
        }
    }
    let base = words.base(&count, args)?;
    let value = match integer(value) {
        Some(number) => ByteValue::Number(number),
        None => match amount(value, 0, i32::MAX)? {
            Amount::Name(name) => ByteValue::Name(name),
            Amount::Number(_) => return Err(args.bad()),
        },
    };
    Ok(Body::ByteTest(ByteTest {
        count,
        negated,
        comparison,
        value,
        offset: amount(offset, -POSITION_MAX, POSITION_MAX)?,
        relative: words.relative,
        base,
        bitmask: words.bitmask,
    }))
}

fn byte_jump(args: &Args<'_>) -> Result<Body, Problem> {
    let members: Vec<&str> = args.list().collect();
    let [count, offset, rest @ ..] = members.as_slice() else {
        return Err(args.bad().help("write byte_jump:COUNT,OFFSET;"));
    };
    let count = amount(count, 0, TEXT_DIGITS_MAX)?;
    let mut words = Words::default();
    let (mut multiplier, mut align, mut from_beginning, mut from_end, mut post_offset) = (1, false, false, false, Amount::Number(0));
    for member in rest {
        match *member {
            "align" => align = true,
            "from_beginning" => from_beginning = true,
            "from_end" => from_end = true,
            other => match other.split_once(char::is_whitespace) {
                Some(("multiplier", number)) => {
                    multiplier = number.trim().parse().ok().filter(|number| *number > 0).ok_or_else(|| args.bad())?
                }
                Some(("post_offset", number)) => post_offset = amount(number, -POSITION_MAX, POSITION_MAX)?,
                _ => {
                    if !words.take(other, args)? {
                        return Err(args.bad());
                    }
                }
            },
        }
    }
    if from_beginning && from_end {
        return Err(args.bad().help("from_beginning and from_end exclude each other"));
    }
    let base = match count {
        Amount::Number(0) => Base::Binary(Endian::Big),
        _ => words.base(&count, args)?,
    };
    Ok(Body::ByteJump(ByteJump {
        base,
        offset: amount(offset, -POSITION_MAX, POSITION_MAX)?,
        count,
        relative: words.relative,
        multiplier,
        align,
        from_beginning,
        from_end,
        post_offset,
        bitmask: words.bitmask,
    }))
}

fn byte_extract(args: &Args<'_>) -> Result<Body, Problem> {
    let members: Vec<&str> = args.list().collect();
    let [count, offset, name, rest @ ..] = members.as_slice() else {
        return Err(args.bad().help("write byte_extract:COUNT,OFFSET,NAME;"));
    };
    let (count, offset) = match (amount(count, 0, TEXT_DIGITS_MAX)?, amount(offset, -POSITION_MAX, POSITION_MAX)?) {
        (Amount::Number(count), Amount::Number(offset)) => (count, offset),
        _ => return Err(args.bad()),
    };
    let Amount::Name(name) = amount(name, 0, 0).map_err(|_| args.bad())? else {
        return Err(args.bad().help("the name begins with a letter"));
    };
    let mut words = Words::default();
    let (mut multiplier, mut align) = (1, 0);
    for member in rest {
        match member.split_once(char::is_whitespace) {
            Some(("multiplier", number)) => {
                multiplier = number.trim().parse().ok().filter(|number| *number > 0).ok_or_else(|| args.bad())?
            }
            Some(("align", number)) => {
                align = number.trim().parse().ok().filter(|number| matches!(number, 2 | 4)).ok_or_else(|| args.bad())?
            }
            _ => {
                if !words.take(member, args)? {
                    return Err(args.bad());
                }
            }
        }
    }
    let base = words.base(&Amount::Number(count), args)?;
    Ok(Body::ByteExtract(ByteExtract {
        count: count as u8,
        offset,
        name,
        relative: words.relative,
        base,
        multiplier,
        align,
        bitmask: words.bitmask,
    }))
}
