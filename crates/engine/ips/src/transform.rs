//! What is done with a buffer before a rule looks into it (`detect-transform-*.c`).

use bulkhead_rules::transform::{FromBase64, Subslice, Transform, Xor, XorKey};
use md5::{Digest, Md5};
use miniz_oxide::inflate;
use regex::bytes::{Regex, RegexBuilder};
use sha1::Sha1;
use sha2::Sha256;

use crate::derive;
use crate::inspect::Work;

/// Bytes that a transform goes through for one unit of work.
pub(crate) const TRANSFORM_BYTES_PER_UNIT: usize = 64;

/// A transform ready to run.
#[derive(Debug)]
pub(crate) enum Built {
    Plain(Transform),
    /// The first group of a pattern.
    Group(Box<Regex>),
}

/// Bytes that the program of a pattern may have.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The error is for the rule's author.
pub(crate) fn build(transforms: &[Transform]) -> Result<Vec<Built>, String> {
    let one = |transform: &Transform| match transform {
        Transform::Pcre(pattern) => {
            let regex = RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES_MAX).build();
            let regex = regex.map_err(|_| format!("the pattern of pcrexform `{pattern}` is not one that runs in linear time"))?;
            if regex.captures_len() != 2 {
                return Err(format!("the pattern of pcrexform `{pattern}` needs one group"));
            }
            Ok(Built::Group(Box::new(regex)))
        }
        transform => Ok(Built::Plain(transform.clone())),
    };
    transforms.iter().map(one).collect()
}

/// Of a part it makes something else than a part.
pub(crate) const fn needs_whole(transform: &Built) -> bool {
    match transform {
        Built::Group(_) => true,
        Built::Plain(transform) => matches!(
            transform,
            Transform::ToMd5
                | Transform::ToSha1
                | Transform::ToSha256
                | Transform::Subslice(_)
                | Transform::FromBase64(_)
                | Transform::Xor(_)
                | Transform::Domain
                | Transform::TopLevelDomain
                | Transform::Gunzip(_)
                | Transform::ZlibDeflate(_)
        ),
    }
}

/// The buffer as the transforms leave it, in `out` when there are any. `None`: the packet's work is spent.
pub(crate) fn transform<'a>(
    all: &[Built],
    bytes: &'a [u8],
    out: &'a mut Vec<u8>,
    other: &mut Vec<u8>,
    work: &mut Work,
) -> Option<&'a [u8]> {
    if all.is_empty() {
        return Some(bytes);
    }
    out.clear();
    out.extend_from_slice(bytes);
    for one in all {
        if !work.charge(1 + out.len() / TRANSFORM_BYTES_PER_UNIT) {
            return None;
        }
        std::mem::swap(out, other);
        out.clear();
        match one {
            Built::Plain(transform) => apply(transform, other, out),
            Built::Group(regex) => {
                let group = regex.captures(other).and_then(|found| found.get(1));
                out.extend_from_slice(group.map_or(other.as_slice(), |group| group.as_bytes()));
            }
        }
        // What inflates costs by what comes out.
        if !work.charge(out.len() / TRANSFORM_BYTES_PER_UNIT) {
            return None;
        }
    }
    Some(out)
}

fn apply(transform: &Transform, bytes: &[u8], out: &mut Vec<u8>) {
    // C's `isspace`.
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    match transform {
        Transform::Dotprefix => {
            out.push(b'.');
            out.extend_from_slice(bytes);
        }
        Transform::StripWhitespace => out.extend(bytes.iter().filter(|byte| !space(byte))),
        Transform::CompressWhitespace => {
            let mut before = false;
            for byte in bytes {
                let now = space(byte);
                if !(now && before) {
                    out.push(*byte);
                }
                before = now;
            }
        }
        Transform::ToLowercase => out.extend(bytes.iter().map(u8::to_ascii_lowercase)),
        Transform::ToUppercase => out.extend(bytes.iter().map(u8::to_ascii_uppercase)),
        Transform::UrlDecode => {
            let hex = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
            let mut at = 0;
            while let Some(byte) = bytes.get(at) {
                let decoded = match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
                    (b'%', Some(high), Some(low)) => Some((high << 4 | low) as u8),
                    _ => None,
                };
                out.push(decoded.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
                at += if decoded.is_some() { 3 } else { 1 };
            }
        }
        Transform::Xor(Xor { offset, key }) => {
            let key: &[u8] = match key {
                XorKey::Bytes(key) => key,
                XorKey::Extract { length, at } => {
                    let at = *at as usize;
                    bytes.get(at..at + usize::from(*length)).unwrap_or_default()
                }
            };
            let (plain, rest) = bytes.split_at((*offset as usize).min(bytes.len()));
            out.extend_from_slice(plain);
            if key.is_empty() {
                out.extend_from_slice(rest);
            }
            out.extend(rest.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        Transform::StripPseudoHeaders => {
            out.extend(bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.first() != Some(&b':')).flatten());
        }
        Transform::HeaderLowercase => {
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let name = memchr::memchr(b':', line).unwrap_or(line.len());
                out.extend(line[..name].iter().map(u8::to_ascii_lowercase));
                out.extend_from_slice(&line[name..]);
            }
        }
        Transform::ToMd5 => out.extend_from_slice(&Md5::digest(bytes)),
        Transform::ToSha1 => out.extend_from_slice(&Sha1::digest(bytes)),
        Transform::ToSha256 => out.extend_from_slice(&Sha256::digest(bytes)),
        Transform::FromBase64(FromBase64 { bytes: count, offset, mode }) => {
            let text = bytes.get(usize::from(*offset)..).and_then(|text| match count {
                0 => Some(text),
                count => text.get(..usize::from(*count)),
            });
            if let Some(text) = text {
                derive::base64(text, *mode, out);
            }
            // What cannot be decoded stays as it is.
            if out.is_empty() {
                out.extend_from_slice(bytes);
            }
        }
        Transform::Subslice(slice) => out.extend_from_slice(subslice(*slice, bytes)),
        Transform::Domain => out.extend_from_slice(psl::domain(bytes).map_or(bytes, |domain| domain.as_bytes())),
        Transform::TopLevelDomain => out.extend_from_slice(psl::suffix(bytes).map_or(bytes, |suffix| suffix.as_bytes())),
        Transform::Gunzip(limit) => match gzip_body(bytes) {
            Some(body) => inflated(inflate::decompress_to_vec_with_limit(body, limit.size_max as usize), bytes, out),
            None => out.extend_from_slice(bytes),
        },
        Transform::ZlibDeflate(limit) => {
            inflated(inflate::decompress_to_vec_zlib_with_limit(bytes, limit.size_max as usize), bytes, out);
        }
        // Made ready by `build`.
        Transform::Pcre(_) => out.extend_from_slice(bytes),
    }
}

/// As much as came out within the limit; what cannot be inflated stays as it is.
fn inflated(result: Result<Vec<u8>, inflate::DecompressError>, bytes: &[u8], out: &mut Vec<u8>) {
    let inflated = result.unwrap_or_else(|error| error.output);
    out.extend_from_slice(if inflated.is_empty() { bytes } else { &inflated });
}

/// What follows the header of a member (RFC 1952, section 2.3).
fn gzip_body(bytes: &[u8]) -> Option<&[u8]> {
    let (&[0x1f, 0x8b, 8, flags, ..], mut rest) = bytes.split_first_chunk::<10>()? else { return None };
    if flags & 4 != 0 {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    // A name, then a remark, each with a zero at its end.
    for _ in 0..(flags >> 3 & 1) + (flags >> 4 & 1) {
        rest = rest.get(memchr::memchr(0, rest)? + 1..)?;
    }
    if flags & 2 != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// Nothing when it reaches outside, unless it may be cut.
fn subslice(slice: Subslice, bytes: &[u8]) -> &[u8] {
    let size = bytes.len() as i64;
    let from_end = |place: i32| if place < 0 { size + i64::from(place) } else { i64::from(place) };
    let start = from_end(slice.offset);
    // The length counts from where the piece begins after it was cut.
    let start = if slice.truncate { start.clamp(0, size) } else { start };
    let end = match slice.length {
        None => size,
        Some(length) if length < 0 => size + i64::from(length),
        Some(length) => start + i64::from(length),
    };
    let (start, end) = if slice.truncate { (start.clamp(0, size), end.clamp(0, size)) } else { (start, end) };
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => bytes.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transformed(options: &str, bytes: &[u8]) -> Vec<u8> {
        let file =
            bulkhead_rules::parse(&format!("alert http any any -> any any (msg:\"m\"; file.data; {options}; content:\"1\"; sid:1;)"));
        assert_eq!(file.counts.loaded, 1, "{:?}", file.diagnostics);
        let all = &file.rules[0].signature.buffers[0].transforms;
        let all = build(all).unwrap();
        let (mut out, mut other) = (Vec::new(), Vec::new());
        transform(&all, bytes, &mut out, &mut other, &mut Work::default()).unwrap().to_vec()
    }

    #[test]
    fn each_transform_does_what_its_name_says() {
        assert_eq!(transformed("dotprefix", b"example.org"), b".example.org");
        assert_eq!(transformed("url_decode", b"a%20b+c%zz"), b"a b c%zz");
        assert_eq!(transformed("strip_whitespace", b" a \r\n b\t"), b"ab");
        assert_eq!(transformed("compress_whitespace", b"a \t b  c"), b"a b c");
        assert_eq!(transformed("to_uppercase", b"aBc"), b"ABC");
        assert_eq!(transformed("header_lowercase", b"Host: A\r\nX-Y: Z\r\n"), b"host: A\r\nx-y: Z\r\n");
        assert_eq!(transformed("strip_pseudo_headers", b":path: /\r\nhost: a\r\n"), b"host: a\r\n");
        assert_eq!(transformed("xor:\"0d0ac8ff\"", b"\x6c\x68\xab\x9b\x68"), b"abcde");
        assert_eq!(transformed("from_base64", b"SGVsbG8="), b"Hello");
        assert_eq!(transformed("from_base64: bytes 40", b"SGVsbG8="), b"SGVsbG8=");
        assert_eq!(transformed("domain", b"www.bbc.co.uk"), b"bbc.co.uk");
        assert_eq!(transformed("tld", b"www.bbc.co.uk"), b"co.uk");
        assert_eq!(transformed("pcrexform:\"data=([a-z]+)\"", b"/?data=abc&x"), b"abc");
        assert_eq!(transformed("pcrexform:\"data=([a-z]+)\"", b"/?other"), b"/?other");
        // "hello" by another program's deflate.
        let zlib = b"\x78\x9c\xcb\x48\xcd\xc9\xc9\x07\x00\x06\x2c\x02\x15";
        assert_eq!(transformed("zlib_deflate", zlib), b"hello");
        assert_eq!(transformed("zlib_deflate: max-size 3", zlib), b"hel");
        let gzip = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0".as_slice(), &zlib[2..9], b"\x86\xa6\x10\x36\x05\0\0\0"].concat();
        assert_eq!(transformed("gunzip", &gzip), b"hello");
        assert_eq!(transformed("gunzip", b"\x1f\x8b\x08\x08"), b"\x1f\x8b\x08\x08");
        assert_eq!(transformed("to_md5", b"")[..4], [0xd4, 0x1d, 0x8c, 0xd9]);
        assert_eq!(transformed("to_sha1", b"")[..4], [0xda, 0x39, 0xa3, 0xee]);
        assert_eq!(transformed("to_sha256", b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }

    #[test]
    fn a_slice_is_within_its_buffer() {
        let cut = |offset, length, truncate| subslice(Subslice { offset, length, truncate }, b"0123456789");
        assert_eq!(cut(2, Some(3), false), b"234");
        assert_eq!(cut(-3, None, false), b"789");
        assert_eq!(cut(1, Some(-1), false), b"12345678");
        assert_eq!(cut(8, Some(5), true), b"89");
        assert_eq!(cut(-20, Some(5), true), b"01234");
        assert!(cut(8, Some(5), false).is_empty() && cut(-20, None, false).is_empty() && cut(5, Some(-9), true).is_empty());
    }
}
