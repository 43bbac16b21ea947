//! BER as LDAP, SNMP and Kerberos use it (X.690): tags of one byte, lengths that are said.

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Class, whether it has elements within, and number, in one byte.
    pub tag: u8,
    pub content: &'a [u8],
}

/// Elements one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ber<'a> {
    rest: &'a [u8],
}

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;

/// Bytes of tag and length, and of the content. `Err(true)`: more bytes are needed; `Err(false)`: nothing that is read here.
pub(crate) fn head(bytes: &[u8]) -> Result<(usize, usize), bool> {
    let &[tag, len, ref behind @ ..] = bytes else { return Err(true) };
    if tag & 0x1f == 0x1f {
        return Err(false);
    }
    match len {
        0..=0x7f => Ok((2, usize::from(len))),
        0x81..=0x84 => {
            let count = usize::from(len & 0x7f);
            let Some(digits) = behind.get(..count) else { return Err(true) };
            let len = digits.iter().fold(0_u64, |len, digit| len << 8 | u64::from(*digit));
            usize::try_from(len).map(|len| (2 + count, len)).map_err(|_| false)
        }
        _ => Err(false),
    }
}

impl<'a> Ber<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn element(&mut self) -> Option<Element<'a>> {
        let (head_bytes, len) = head(self.rest).ok()?;
        let tag = *self.rest.first()?;
        let content = self.rest.get(head_bytes..)?.get(..len)?;
        self.rest = &self.rest[head_bytes + len..];
        Some(Element { tag, content })
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, if it has this tag; else it stays.
    pub fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.rest.first() == Some(&tag) { self.element().map(|element| element.content) } else { None }
    }

    /// The next element, which has to have this tag.
    pub fn tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element().filter(|element| element.tag == tag).map(|element| element.content)
    }

    pub fn within(&mut self, tag: u8) -> Option<Self> {
        self.tagged(tag).map(Self::new)
    }

    pub fn integer(&mut self) -> Option<i64> {
        self.tagged(INTEGER).and_then(number)
    }

    pub fn octets(&mut self) -> Option<&'a [u8]> {
        self.tagged(OCTETS)
    }
}

/// In two's complement.
pub(crate) fn number(content: &[u8]) -> Option<i64> {
    let (first, _) = content.split_first()?;
    if content.len() > 8 {
        return None;
    }
    let sign = if first & 0x80 != 0 { -1 } else { 0 };
    Some(content.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
}

/// `1.3.6.1.2.1`
pub(crate) fn object_identifier(content: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in content.iter().take(ARCS_BYTES_MAX) {
        arc = arc << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.extend([first, arc - 40 * first]);
            } else {
                arcs.push(arc);
            }
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// Of an identifier that is written out; MIBs have some 128 arcs at most (RFC 2578, section 3.5).
const ARCS_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_one_behind_the_other() {
        let mut ber = Ber::new(b"\x02\x02\xff\x7f\x30\x81\x03\x04\x01x\x0a\x01\x05\x1f\x00");
        assert_eq!(ber.integer(), Some(-129));
        assert_eq!(ber.within(SEQUENCE).and_then(|mut inner| inner.octets()), Some(&b"x"[..]));
        assert_eq!((ber.optional(INTEGER), ber.optional(ENUMERATED), ber.element()), (None, Some(&[5][..]), None));
        assert_eq!(
            (head(b"\x30"), head(b"\x30\x82\x01"), head(b"\x30\x80"), head(b"\x30\x85")),
            (Err(true), Err(true), Err(false), Err(false))
        );
        assert_eq!((number(b""), number(&[1; 9]), number(b"\x00\x80")), (None, None, Some(128)));
    }

    #[test]
    fn identifiers_are_written_with_dots() {
        assert_eq!(object_identifier(b"\x2b\x06\x01\x02\x01\x81\x00"), "1.3.6.1.2.1.128");
        assert_eq!(
            (object_identifier(b"\x01"), object_identifier(b"\x88\x37\x03"), object_identifier(b"")),
            ("0.1".into(), "2.999.3".into(), String::new())
        );
    }
}
