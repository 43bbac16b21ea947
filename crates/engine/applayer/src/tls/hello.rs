//! Client and server hello (RFC 8446, section 4.1; RFC 5246, section 7.4.1), and the fingerprints made of them.
//!
//! JA3 and JA3S: <https://github.com/salesforce/ja3>; JA4: the technical details in <https://github.com/FoxIO-LLC/ja4>.

use md5::{Digest, Md5};
use sha2::Sha256;

/// RFC 8446, section 4.1.3: this random makes a server hello a request to say hello again.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
    0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

pub(crate) const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
pub(crate) const ALPN: u16 = 16;
const VERSIONS: u16 = 43;
/// Longest name that is not an event; the reference engine's `SSL_MAX_SNI_LEN`.
const SERVER_NAME_BYTES_MAX: usize = 255;

/// A hello, its parts still in the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello<'a> {
    pub version: u16,
    pub random: &'a [u8],
    /// Of a server one.
    ciphers: &'a [u8],
    extensions: &'a [u8],
    is_client: bool,
}

impl<'a> Hello<'a> {
    /// `None`: it ends too early.
    pub fn read(message: &'a [u8], is_client: bool) -> Option<Self> {
        let mut rest = Bytes(message);
        let version = rest.u16()?;
        let random = rest.take(32)?;
        let session = rest.u8()?;
        rest.take(usize::from(session))?;
        let ciphers = if is_client {
            let len = usize::from(rest.u16()?);
            let ciphers = rest.take(len)?;
            let compressions = usize::from(rest.u8()?);
            rest.take(compressions)?;
            ciphers
        } else {
            let cipher = rest.take(2)?;
            rest.take(1)?;
            cipher
        };
        // Without extensions, also without their length.
        let extensions = match rest.0.is_empty() {
            true => &[][..],
            false => {
                let len = usize::from(rest.u16()?);
                rest.take(len)?
            }
        };
        Some(Self { version, random, ciphers, extensions, is_client })
    }

    pub fn is_retry(&self) -> bool {
        !self.is_client && self.random == RETRY
    }

    /// Types and contents; `Err` in the place of one that ends too early.
    pub fn extensions(&self) -> impl Iterator<Item = Result<(u16, &'a [u8]), Short>> + use<'a> {
        let mut rest = Bytes(self.extensions);
        std::iter::from_fn(move || {
            if rest.0.is_empty() {
                return None;
            }
            let found = (|| {
                let kind = rest.u16()?;
                let len = usize::from(rest.u16()?);
                Some((kind, rest.take(len)?))
            })();
            if found.is_none() {
                rest.0 = &[];
            }
            Some(found.ok_or(Short))
        })
    }

    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        self.extensions().flatten().find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
    }

    pub fn is_short(&self) -> bool {
        self.extensions().any(|extension| extension.is_err())
    }

    /// The version that is asked for first, or was chosen.
    pub fn wanted_version(&self) -> u16 {
        let Some(content) = self.extension(VERSIONS) else { return self.version };
        let list = if self.is_client { content.get(1..).unwrap_or_default() } else { content };
        u16s(list).find(|version| !is_grease(*version)).unwrap_or(self.version)
    }

    /// Each name asked for (RFC 6066, section 3) and each oddity as an event.
    pub fn server_names(&self, mut found: impl FnMut(Result<&'a [u8], &'static str>)) {
        let mut extensions = 0;
        for content in self.extensions().flatten().filter(|(kind, _)| *kind == SERVER_NAME).map(|(_, content)| content) {
            extensions += 1;
            if extensions > 1 {
                found(Err("tls.multiple_sni_extensions"));
            }
            let mut rest = Bytes(content.get(2..).unwrap_or_default());
            let mut names = 0;
            while let (Some(kind), Some(len)) = (rest.u8(), rest.u16()) {
                let name = rest.take(usize::from(len));
                names += 1;
                if kind != 0 {
                    found(Err("tls.invalid_sni_type"));
                }
                if name.is_none_or(|name| name.len() > SERVER_NAME_BYTES_MAX) {
                    found(Err("tls.invalid_sni_length"));
                }
                if names > 1 {
                    found(Err("tls.multiple_sni_extensions"));
                }
                match name {
                    Some(name) if kind == 0 => found(Ok(name)),
                    Some(_) => {}
                    None => break,
                }
            }
        }
    }

    /// Cipher suites offered, or the one chosen, without those that mean nothing.
    pub fn ciphers(&self) -> impl Iterator<Item = u16> {
        u16s(self.ciphers).filter(|number| !is_grease(*number))
    }

    /// Types of extensions, without those that mean nothing.
    pub fn kinds(&self) -> impl Iterator<Item = u16> {
        self.extensions().flatten().map(|(kind, _)| kind).filter(|kind| !is_grease(*kind))
    }

    pub fn signature_algorithms(&self) -> impl Iterator<Item = u16> {
        let list = self.extension(SIGNATURE_ALGORITHMS).and_then(|content| content.get(2..)).unwrap_or_default();
        u16s(list).filter(|number| !is_grease(*number))
    }

    /// Protocols offered, or the one chosen (RFC 7301, section 3.1).
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Bytes(self.extension(ALPN).and_then(|content| content.get(2..)).unwrap_or_default());
        std::iter::from_fn(move || {
            let len = rest.u8()?;
            rest.take(usize::from(len))
        })
    }

    /// JA3 of a client, JA3S of a server.
    pub fn ja3(&self) -> Vec<u8> {
        let mut text = self.version.to_string();
        let mut list = |numbers: &mut dyn Iterator<Item = u16>| {
            text.push(',');
            for (index, number) in numbers.filter(|number| !is_grease(*number)).enumerate() {
                if index > 0 {
                    text.push('-');
                }
                text.push_str(&number.to_string());
            }
        };
        list(&mut u16s(self.ciphers));
        list(&mut self.extensions().flatten().map(|(kind, _)| kind));
        if self.is_client {
            list(&mut u16s(self.extension(GROUPS).and_then(|content| content.get(2..)).unwrap_or_default()));
            let formats = self.extension(POINT_FORMATS).and_then(|content| content.get(1..)).unwrap_or_default();
            list(&mut formats.iter().map(|format| u16::from(*format)));
        }
        text.into_bytes()
    }

    /// `t13d1516h2_8daaf6152771_e5627efa2ab1`; `over`: `t` for TCP, `q` for QUIC.
    pub fn ja4(&self, over: char) -> Vec<u8> {
        let plain = |number: &u16| !is_grease(*number);
        let versions = self.extension(VERSIONS).and_then(|content| content.get(1..)).unwrap_or_default();
        let version = match u16s(versions).filter(plain).max().unwrap_or(self.version) {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0200 | 0x0002 => "s2",
            _ => "00",
        };
        let mut ciphers: Vec<u16> = u16s(self.ciphers).filter(plain).collect();
        let mut extensions: Vec<u16> = self.extensions().flatten().map(|(kind, _)| kind).filter(plain).collect();
        let name = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let alpn = match self.alpn().next() {
            Some([first, .., last]) => ends(*first, *last),
            Some([only]) => ends(*only, *only),
            Some([]) | None => "00".to_owned(),
        };
        let mut text = format!("{over}{version}{name}{:02}{:02}{alpn}_", ciphers.len().min(99), extensions.len().min(99)).into_bytes();
        ciphers.sort_unstable();
        extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
        extensions.sort_unstable();
        text.extend(shortened(&hex_list(&ciphers)));
        text.push(b'_');
        let signatures: Vec<u16> = self.signature_algorithms().collect();
        // Without signature algorithms the definition leaves the underscore out, and empty lists are twelve zeros; the reference
        // engine hashes what is there, and rules are written with it.
        text.extend(shortened(&format!("{}_{}", hex_list(&extensions), hex_list(&signatures))));
        text
    }
}

/// MD5 in hexadecimal.
pub(crate) fn md5_hex(text: &[u8]) -> Vec<u8> {
    hex(&Md5::digest(text))
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// First and last letter of a protocol's name; of what is not alphanumeric, of its hexadecimal form.
fn ends(first: u8, last: u8) -> String {
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first as char, last as char].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0x0f)
}

fn hex_list(numbers: &[u16]) -> String {
    numbers.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

/// Twelve digits of the SHA-256.
fn shortened(text: &str) -> Vec<u8> {
    let mut digits = hex(&Sha256::digest(text));
    digits.truncate(12);
    digits
}

/// RFC 8701: values that mean nothing.
const fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

fn u16s(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// An extension ends too early.
#[derive(Debug)]
pub(crate) struct Short;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(len)?;
        self.0 = later;
        Some(now)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_their_definitions() {
        // The example of the JA3 article.
        let text = b"769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0";
        assert_eq!(md5_hex(text), b"ada70206e40642a3e4461f35503241d5");
        // The ciphers of the JA4 article.
        let ciphers = "002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9";
        assert_eq!(shortened(ciphers), b"8daaf6152771");
        assert_eq!((ends(b'h', b'2'), ends(0xab, 0xcd)), ("h2".to_owned(), "ad".to_owned()));
        assert!(is_grease(0x1a1a) && !is_grease(0x1a2a) && !is_grease(0x1301));
    }
}
