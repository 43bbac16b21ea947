//! Keywords that read numbers out of a buffer or ask how much of it there is: isdataat, bsize, byte_test, byte_jump, byte_extract.

use super::args::{amount, integer};
use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::Problem;
use crate::tree::{
    Amount, Base, Base64Decode, Body, ByteExtract, ByteJump, ByteMath, ByteTest, ByteValue, Comparison, Endian, Entropy, EntropyTest,
    IsDataAt, MathOperator,
};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("isdataat", Value::Required, false, is_data_at),
    keyword("bsize", Value::Required, false, |args| match args.number_test(64) {
        Ok(test) => Ok(Body::Bsize(test)),
        Err(problem) => Err(problem),
    }),
    keyword("byte_test", Value::Required, false, byte_test),
    keyword("byte_jump", Value::Required, false, byte_jump),
    keyword("byte_extract", Value::Required, false, byte_extract),
    keyword("byte_math", Value::Required, false, byte_math),
    keyword("base64_decode", Value::Optional, false, base64_decode),
    keyword("absent", Value::Optional, false, |args| match args.value {
        "" => Ok(Body::Absent { or_else: false }),
        "or_else" => Ok(Body::Absent { or_else: true }),
        _ => Err(args.bad().help("write absent; or absent:or_else;")),
    }),
    keyword("entropy", Value::Required, false, entropy),
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
            "dce" => self.endian = Some(Endian::Dce),
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
    Ok(Body::ByteTest(Box::new(ByteTest {
        count,
        negated,
        comparison,
        value,
        offset: amount(offset, -POSITION_MAX, POSITION_MAX)?,
        relative: words.relative,
        base,
        bitmask: words.bitmask,
    })))
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
    Ok(Body::ByteJump(Box::new(ByteJump {
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
    })))
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

/// Words of one option; there are not as many.
const WORDS_MAX: usize = 16;

/// Words of which each has a value, `bytes 4, offset 0, oper +`; an option twice is an error.
fn pairs<'a>(args: &Args<'a>) -> Result<Vec<(&'a str, &'a str)>, Problem> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for member in args.list() {
        let (key, value) = member.split_once(char::is_whitespace).unwrap_or((member, ""));
        if found.len() >= WORDS_MAX || found.iter().any(|(other, _)| *other == key) {
            return Err(Problem::value(format!("`{}` is given twice", crate::header::shorten(key))));
        }
        found.push((key, value.trim()));
    }
    Ok(found)
}

fn byte_math(args: &Args<'_>) -> Result<Body, Problem> {
    let help = "write byte_math:bytes COUNT, offset OFFSET, oper + - * / << or >>, rvalue NUMBER, result NAME;";
    let bad = || args.bad().help(help);
    let (mut count, mut offset, mut operator, mut operand, mut result) = (None, None, None, None, None);
    let (mut relative, mut base, mut endian, mut bitmask) = (false, None, None, 0);
    for (key, value) in pairs(args)? {
        match key {
            "bytes" => count = Some(amount(value, 1, 10)?),
            "offset" => offset = Some(value.parse().ok().filter(|at| (-POSITION_MAX..=POSITION_MAX).contains(at)).ok_or_else(bad)?),
            "oper" => {
                operator = Some(match value {
                    "+" => MathOperator::Add,
                    "-" => MathOperator::Subtract,
                    "*" => MathOperator::Multiply,
                    "/" => MathOperator::Divide,
                    "<<" => MathOperator::ShiftLeft,
                    ">>" => MathOperator::ShiftRight,
                    _ => return Err(bad()),
                })
            }
            "rvalue" => {
                operand = Some(match integer(value) {
                    Some(number) if number <= u32::MAX.into() => ByteValue::Number(number),
                    Some(_) => return Err(bad()),
                    None => match amount(value, 0, i32::MAX)? {
                        Amount::Name(name) => ByteValue::Name(name),
                        Amount::Number(_) => return Err(bad()),
                    },
                })
            }
            "result" => match amount(value, 0, 0).map_err(|_| bad())? {
                Amount::Name(name) => result = Some(name),
                Amount::Number(_) => return Err(bad()),
            },
            "relative" => relative = true,
            "endian" if endian.is_none() => {
                endian = Some(match value {
                    "big" => Endian::Big,
                    "little" => Endian::Little,
                    _ => return Err(bad()),
                })
            }
            "dce" if endian.is_none() => endian = Some(Endian::Dce),
            "string" => {
                base = Some(match value {
                    "hex" => Base::Hex,
                    "dec" => Base::Decimal,
                    "oct" => Base::Octal,
                    _ => return Err(bad()),
                })
            }
            "bitmask" => {
                let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")).unwrap_or(value);
                bitmask = u32::from_str_radix(hex, 16).map_err(|_| bad())?;
            }
            _ => return Err(bad()),
        }
    }
    let (Some(count), Some(offset), Some(operator), Some(operand), Some(result)) = (count, offset, operator, operand, result) else {
        return Err(bad());
    };
    if matches!(operator, MathOperator::ShiftLeft | MathOperator::ShiftRight) && matches!(count, Amount::Number(5..)) {
        return Err(Problem::value("a shift reads 1 to 4 bytes"));
    }
    let base = base.unwrap_or(Base::Binary(endian.unwrap_or(Endian::Big)));
    Ok(Body::ByteMath(Box::new(ByteMath { count, offset, relative, base, operator, operand, result, bitmask })))
}

fn base64_decode(args: &Args<'_>) -> Result<Body, Problem> {
    let mut decode = Base64Decode::default();
    if !args.value.is_empty() {
        for (key, value) in pairs(args)? {
            let number = || integer(value).filter(|number| *number <= 65_535).map(|number| number as u32).ok_or_else(|| args.bad());
            match key {
                "bytes" => decode.bytes = Some(number()?).filter(|number| *number > 0),
                "offset" => decode.offset = number()?,
                "relative" if value.is_empty() => decode.relative = true,
                _ => return Err(args.bad().help("write base64_decode:bytes COUNT, offset OFFSET, relative;")),
            }
        }
    }
    Ok(Body::Base64Decode(decode))
}

fn entropy(args: &Args<'_>) -> Result<Body, Problem> {
    let bad = || args.bad().help("write entropy:value >= 7.5;, perhaps with bytes COUNT, offset OFFSET");
    let (mut bytes, mut offset, mut test) = (None, 0, None);
    for (key, value) in pairs(args)? {
        let number = || integer(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(bad);
        match key {
            "bytes" => bytes = Some(number()?).filter(|number| *number > 0),
            "offset" => offset = number()?,
            "value" => test = Some(entropy_test(value).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(Body::Entropy(Entropy { bytes, offset, test: test.ok_or_else(bad)? }))
}

fn entropy_test(text: &str) -> Option<EntropyTest> {
    let number = |text: &str| -> Option<f64> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.parse().ok().filter(|number| plain && (0.0..=8.0).contains(number))
    };
    for (sign, test) in [
        (">=", EntropyTest::GreaterOrEqual as fn(f64) -> EntropyTest),
        ("<=", EntropyTest::LessOrEqual),
        ("!=", EntropyTest::NotEqual),
        (">", EntropyTest::Greater),
        ("<", EntropyTest::Less),
        ("=", EntropyTest::Equal),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return number(rest).map(test);
        }
    }
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some((low, high)) = text.split_once('-').or_else(|| text.split_once("<>")) {
        let (low, high) = (number(low)?, number(high)?);
        let test = if negated { EntropyTest::NotBetween } else { EntropyTest::Between };
        return (low < high).then(|| test(low, high));
    }
    number(text).map(if negated { EntropyTest::NotEqual } else { EntropyTest::Equal })
}
