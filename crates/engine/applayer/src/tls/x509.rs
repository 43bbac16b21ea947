//! What rules ask of a certificate (RFC 5280, section 4.1), read from its DER as far as it goes.

/// Names of a certificate that are kept.
const ALT_NAMES_MAX: usize = 256;

/// Parts that could be read; text as the reference engine writes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// `00:AB:12`
    pub serial: Option<Vec<u8>>,
    /// `C=US, O=Example, CN=a.test`
    pub issuer: Option<Vec<u8>>,
    pub subject: Option<Vec<u8>>,
    /// Seconds since 1970, negative before.
    pub validity: Option<(i64, i64)>,
    pub alt_names: Vec<Vec<u8>>,
}

impl Certificate {
    /// The event that says where the certificate is broken, if it is.
    pub fn read(der: &[u8]) -> (Self, Option<&'static str>) {
        let mut certificate = Self::default();
        let event = certificate.fill(der).err();
        (certificate, event)
    }

    fn fill(&mut self, der: &[u8]) -> Result<(), &'static str> {
        let invalid = "tls.certificate_invalid_der";
        let mut outer = Der(Der(der).expect(SEQUENCE).ok_or(invalid)?);
        let mut body = Der(outer.expect(SEQUENCE).ok_or(invalid)?);
        if body.peek() == Some(0xa0) {
            let version = Der(body.next().ok_or(invalid)?.1).expect(INTEGER);
            if !matches!(version, Some([0..=2])) {
                return Err("tls.certificate_invalid_version");
            }
        }
        let serial = body.expect(INTEGER).ok_or("tls.certificate_invalid_serial")?;
        self.serial = Some(hex_with_colons(serial, b"0123456789ABCDEF"));
        body.expect(SEQUENCE).ok_or("tls.certificate_invalid_algorithmidentifier")?;
        let issuer = body.expect(SEQUENCE).ok_or("tls.certificate_invalid_issuer")?;
        self.issuer = Some(name(issuer).ok_or("tls.certificate_invalid_x509name")?);
        let mut validity = Der(body.expect(SEQUENCE).ok_or("tls.certificate_invalid_validity")?);
        let mut date = || validity.next().and_then(|(tag, text)| time(tag, text)).ok_or("tls.certificate_invalid_date");
        self.validity = Some((date()?, date()?));
        let subject = body.expect(SEQUENCE).ok_or("tls.certificate_invalid_subject")?;
        self.subject = Some(name(subject).ok_or("tls.certificate_invalid_x509name")?);
        // The key.
        body.expect(SEQUENCE).ok_or(invalid)?;
        while let Some((tag, content)) = body.next() {
            if tag == 0xa3 {
                self.extensions(content).ok_or("tls.certificate_invalid_extensions")?;
            }
        }
        Ok(())
    }

    fn extensions(&mut self, content: &[u8]) -> Option<()> {
        let mut list = Der(Der(content).expect(SEQUENCE)?);
        while let Some((tag, extension)) = list.next() {
            let mut extension = Der(extension).checked(tag == SEQUENCE)?;
            // id-ce-subjectAltName
            if extension.expect(OID)? != [0x55, 0x1d, 17] {
                continue;
            }
            let (mut tag, mut value) = extension.next()?;
            if tag == BOOLEAN {
                (tag, value) = extension.next()?;
            }
            let mut names = Der(Der(value).checked(tag == OCTETS)?.expect(SEQUENCE)?);
            while let Some((tag, name)) = names.next() {
                if self.alt_names.len() >= ALT_NAMES_MAX {
                    break;
                }
                match (tag, name) {
                    // Mail, DNS, URI.
                    (0x81 | 0x82 | 0x86, name) => self.alt_names.push(name.to_vec()),
                    (0x87, &[a, b, c, d]) => self.alt_names.push(std::net::Ipv4Addr::new(a, b, c, d).to_string().into_bytes()),
                    (0x87, name) => {
                        if let Ok(octets) = <[u8; 16]>::try_from(name) {
                            self.alt_names.push(std::net::Ipv6Addr::from(octets).to_string().into_bytes());
                        }
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }
}

/// `4a:a3:66`
pub(super) fn hex_with_colons(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if !text.is_empty() {
            text.push(b':');
        }
        text.extend([digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
    }
    text
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Elements one after the other (X.690, section 8.1); definite lengths only.
#[derive(Debug, Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn checked(self, holds: bool) -> Option<Self> {
        holds.then_some(self)
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes have no place in a certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// Attribute types that have a short name.
const SHORT: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "Surname"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 13], "description"),
    (&[0x55, 4, 15], "businessCategory"),
    (&[0x55, 4, 17], "postalCode"),
    (&[0x55, 4, 41], "name"),
    (&[0x55, 4, 42], "givenName"),
    (&[0x55, 4, 43], "initials"),
    (&[0x55, 4, 46], "dnQualifier"),
    (&[0x55, 4, 97], "organizationIdentifier"),
    // pkcs-9-emailAddress
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "Email"),
    // domainComponent, userId
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    // Jurisdiction of incorporation.
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 1], "jurisdictionL"),
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 2], "jurisdictionST"),
    (&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 3], "jurisdictionC"),
];

/// `C=US, O=a + OU=b, CN=c`
fn name(content: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut sets = Der(content);
    while !sets.0.is_empty() {
        let mut set = Der(sets.expect(SET)?);
        let mut separator: &[u8] = if text.is_empty() { b"" } else { b", " };
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            let kind = attribute.expect(OID)?;
            let (tag, value) = attribute.next()?;
            text.extend_from_slice(separator);
            separator = b" + ";
            match SHORT.iter().find(|(oid, _)| *oid == kind) {
                Some((_, short)) => text.extend_from_slice(short.as_bytes()),
                None => dotted(kind, &mut text),
            }
            text.push(b'=');
            string(tag, value, &mut text);
        }
    }
    Some(text)
}

/// An object identifier in numbers.
fn dotted(oid: &[u8], text: &mut Vec<u8>) {
    let mut number = 0_u64;
    let mut first = true;
    for byte in oid {
        number = number << 7 & (u64::MAX >> 1) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (number / 40).min(2);
            text.extend_from_slice(format!("{root}.{}", number - root * 40).as_bytes());
        } else {
            text.extend_from_slice(format!(".{number}").as_bytes());
        }
        (number, first) = (0, false);
    }
}

fn string(tag: u8, value: &[u8], text: &mut Vec<u8>) {
    let mut push = |character: Option<char>| {
        text.extend_from_slice(character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
    };
    match tag {
        // BMPString, UniversalString.
        0x1e => value.chunks_exact(2).for_each(|two| push(char::from_u32(u32::from(two[0]) << 8 | u32::from(two[1])))),
        0x1c => value.chunks_exact(4).for_each(|four| push(char::from_u32(four.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))))),
        // UTF8, Numeric, Printable, T61, Videotex, IA5, Graphic, Visible, General: bytes as they are, zeros too.
        0x0c | 0x12..=0x16 | 0x19..=0x1b => text.extend_from_slice(value),
        _ => value.iter().for_each(|byte| text.extend_from_slice(format!("{byte:02x}").as_bytes())),
    }
}

/// UTCTime or GeneralizedTime to seconds since 1970 (RFC 5280, section 4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = text.split_at(digits);
    let pair = |at: usize| Some(i64::from(digits.get(at)? - b'0') * 10 + i64::from(digits.get(at + 1)? - b'0'));
    let (year, at) = match tag {
        0x17 => (pair(0).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        0x18 => (pair(0)? * 100 + pair(2)?, 4),
        _ => return None,
    };
    let (month, day, hour, minute) = (pair(at)?, pair(at + 2)?, pair(at + 4)?, pair(at + 6)?);
    let second = pair(at + 8).unwrap_or(0);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset = match zone {
        [sign @ (b'+' | b'-'), digits @ ..] if digits.len() == 4 && digits.iter().all(u8::is_ascii_digit) => {
            let number = |at: usize| i64::from(digits[at] - b'0');
            let minutes = (number(0) * 10 + number(1)) * 60 + number(2) * 10 + number(3);
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => 0,
    };
    // Days from the civil calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        for (tag, text, wanted) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "1502121807Z", Some(1423764420)),
            (0x18, "19691231000000Z", Some(-86_400)),
            (0x18, "20381231001003Z", Some(2177367003)),
            (0x17, "230301064730+0100", Some(1677649650)),
            (0x17, "231301064730Z", None),
            (0x17, "23", None),
            (0x02, "700101000000Z", None),
        ] {
            assert_eq!(time(tag, text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn names_are_written_in_order() {
        let attribute = |oid: &[u8], tag: u8, value: &[u8]| {
            let inner = [&[OID, oid.len() as u8], oid, &[tag, value.len() as u8], value].concat();
            [&[SEQUENCE, inner.len() as u8], inner.as_slice()].concat()
        };
        let set = |attributes: &[Vec<u8>]| [&[SET, attributes.concat().len() as u8], attributes.concat().as_slice()].concat();
        let all = [
            set(&[attribute(&[0x55, 4, 6], 0x13, b"DE")]),
            set(&[attribute(&[0x55, 4, 3], 0x1e, b"\0a\0\xe4"), attribute(&[0x2a, 0x86, 0x48, 1], 0x04, b"\x01\xff")]),
            set(&[attribute(&[0x55, 4, 10], 0x0c, b"a\0b")]),
        ]
        .concat();
        assert_eq!(name(&all), Some("C=DE, CN=a\u{e4} + 1.2.840.1=01ff, O=a\0b".as_bytes().to_vec()));
        assert_eq!(name(&all[..all.len() - 1]), None);
        assert_eq!(hex_with_colons(&[0, 0xab], b"0123456789ABCDEF"), b"00:AB");
    }

    #[test]
    fn what_is_broken_is_named() {
        assert_eq!(Certificate::read(b"").1, Some("tls.certificate_invalid_der"));
        assert_eq!(Certificate::read(&[SEQUENCE, 0x80, 0, 0]).1, Some("tls.certificate_invalid_der"));
        assert_eq!(Certificate::read(&[SEQUENCE, 4, SEQUENCE, 2, INTEGER, 9]).1, Some("tls.certificate_invalid_serial"));
        let (certificate, event) = Certificate::read(&[SEQUENCE, 5, SEQUENCE, 3, INTEGER, 1, 0x2a]);
        assert_eq!((certificate.serial.as_deref(), event), (Some(&b"2A"[..]), Some("tls.certificate_invalid_algorithmidentifier")));
    }
}
