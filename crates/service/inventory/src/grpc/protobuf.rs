//! Protocol Buffers, as much as listing containers needs: fields in and out, no schemas.
//! Source: protobuf.dev, "Encoding".

use crate::socket::Error;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Numbers, enumerations, booleans.
    Varint(u64),
    /// Text, bytes, messages.
    Bytes(&'a [u8]),
    /// Fixed-width numbers, which none of our messages uses.
    Fixed,
}

impl<'a> Value<'a> {
    /// Text; what is not UTF-8 is replaced. Empty for other wire types.
    pub(crate) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Empty for other wire types.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Varint(_) | Self::Fixed => &[],
        }
    }

    /// 0 for other wire types.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Varint(number) => number,
            Self::Bytes(_) | Self::Fixed => 0,
        }
    }
}

/// The fields of a message in their order, with their numbers. Ends after the first error.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>), Error>> {
    let mut rest = message;
    let mut failed = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || failed {
            return None;
        }
        let field = field(&mut rest).ok_or_else(|| Error::malformed("a broken protobuf message"));
        failed = field.is_err();
        Some(field)
    })
}

/// A member of a `map<string, string>`: its key and value.
pub(crate) fn entry(message: &[u8]) -> Result<(String, String), Error> {
    let mut entry = (String::new(), String::new());
    for field in fields(message) {
        match field? {
            (1, key) => entry.0 = key.text(),
            (2, value) => entry.1 = value.text(),
            (_, _) => {}
        }
    }
    Ok(entry)
}

/// Appends a text or message field.
pub(crate) fn put_bytes(into: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(into, u64::from(number) << 3 | LENGTH_DELIMITED);
    put_varint(into, value.len() as u64);
    into.extend_from_slice(value);
}

/// Appends a number.
pub(crate) fn put_number(into: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(into, u64::from(number) << 3);
    put_varint(into, value);
}

const LENGTH_DELIMITED: u64 = 2;

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        LENGTH_DELIMITED => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        // Groups are deprecated and used by none of the services; 6 and 7 do not exist.
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Vec::new();
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            put_number(&mut message, 3, number);
        }
        put_bytes(&mut message, 700, "text".as_bytes());
        let read: Vec<_> = fields(&message).collect::<Result<_, _>>().expect("a sound message");
        assert_eq!(read.len(), 8);
        assert_eq!(read.first(), Some(&(3, Value::Varint(0))));
        assert_eq!(read.get(6), Some(&(3, Value::Varint(u64::MAX))));
        assert_eq!(read.get(7), Some(&(700, Value::Bytes(b"text"))));
    }

    #[test]
    fn a_broken_message_is_an_error_once() {
        for broken in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x0a, 0x05, b'x'],
            &[0x0b],
            &[0x0f, 0x00],
            &[0x09, 1, 2, 3],
            &[0x0d, 1],
            &[0xff; 11],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            let read: Vec<_> = fields(broken).collect();
            assert_eq!(read.len(), 1, "{broken:x?}");
            assert!(matches!(read.first(), Some(Err(Error::Malformed(_)))), "{broken:x?}");
        }
    }
}
