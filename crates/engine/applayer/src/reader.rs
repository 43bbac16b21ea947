//! Reads the fields of a binary message one behind the other, and never beyond its end.

/// Where the reading is; the message is whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident $Type:ty, $from:ident;)+) => {
        $(pub fn $name(&mut self) -> Option<$Type> {
            let bytes = self.bytes.get(self.at..)?.first_chunk()?;
            self.at += bytes.len();
            Some(<$Type>::$from(*bytes))
        })+
    };
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// From a place on; beyond the end nothing is left.
    pub fn from(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    numbers! {
        u8 u8, from_be_bytes;
        be32 u32, from_be_bytes;
        be64 u64, from_be_bytes;
        be16 u16, from_be_bytes;
        le16 u16, from_le_bytes;
        le32 u32, from_le_bytes;
        le64 u64, from_le_bytes;
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    pub fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(|_| ())
    }

    pub const fn at(&self) -> usize {
        self.at
    }

    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Up to a zero, which is passed over; without one, all that is left.
    pub fn text(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let end = memchr::memchr(0, rest).unwrap_or(rest.len());
        self.at += (end + 1).min(rest.len());
        &rest[..end]
    }

    /// The same in units of two bytes, as UTF-8.
    pub fn wide_text(&mut self) -> Vec<u8> {
        let rest = self.rest();
        let units = rest.chunks_exact(2).take_while(|unit| *unit != [0, 0]).count();
        self.at += (2 * units + 2).min(rest.len());
        utf8(&rest[..2 * units])
    }
}

/// Little-endian UTF-16 as UTF-8; what is no text becomes the sign for that.
pub(crate) fn utf8(bytes: &[u8]) -> Vec<u8> {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut reader = Reader::new(b"\x01\x02\x03ab\0c\0\0\0\0");
        assert_eq!((reader.u8(), reader.array(), reader.text()), (Some(1), Some([2, 3]), &b"ab"[..]));
        assert_eq!((reader.wide_text(), reader.at(), reader.le32(), reader.take(usize::MAX)), (b"c".to_vec(), 10, None, None));
        assert_eq!((reader.array::<1>(), reader.array::<1>(), reader.rest()), (Some([0]), None, &b""[..]));
        assert_eq!(Reader::from(b"ab", 9).text(), b"");
    }
}
