//! A request target: its parts (RFC 3986, section 3), and the form in which rules look at it.
//!
//! Normalised as the reference engine does under its default personality, that of an IDS: percent and `%u` codes are decoded in
//! path and query (a broken code stays as it is), in the path backslashes become slashes, slashes in a row become one, UTF-8 (also
//! overlong) becomes its nearest single byte, and dot segments are resolved (RFC 3986, section 5.2.4). Case and `+` stay.

/// Parts of a target, none decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub host: Option<&'a [u8]>,
    pub port: Option<&'a [u8]>,
    pub path: &'a [u8],
    pub query: Option<&'a [u8]>,
    pub fragment: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Never fails: what has no scheme and authority is a path.
    pub fn split(target: &'a [u8]) -> Self {
        let mut parts = Self::default();
        let mut rest = target;
        if !target.starts_with(b"/")
            && let Some(colon) = target.iter().position(|byte| matches!(byte, b':' | b'/' | b'?' | b'#'))
            && target[colon] == b':'
            && target[colon + 1..].starts_with(b"//")
        {
            let authority = &target[colon + 3..];
            let end = authority.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(authority.len());
            let (authority, after) = authority.split_at(end);
            let host = authority.iter().rposition(|byte| *byte == b'@').map_or(authority, |at| &authority[at + 1..]);
            let (host, port) = host_and_port(host);
            (parts.host, parts.port) = (Some(host), port);
            rest = after;
        }
        if let Some(at) = memchr::memchr(b'#', rest) {
            parts.fragment = Some(&rest[at + 1..]);
            rest = &rest[..at];
        }
        if let Some(at) = memchr::memchr(b'?', rest) {
            parts.query = Some(&rest[at + 1..]);
            rest = &rest[..at];
        }
        parts.path = rest;
        parts
    }

    /// Appends the normalised path. `true`: decoding it once more would change it, or did so.
    pub fn append_path(&self, out: &mut Vec<u8>, twice: bool) -> bool {
        let start = out.len();
        decode_path(self.path, out);
        let mut double = false;
        if twice {
            let before = out.len();
            let once = out.split_off(start);
            decode_path(&once, out);
            double = out.len() < before;
        }
        best_fit(out, start);
        remove_dot_segments(out, start);
        double
    }

    /// Appends `?query#fragment`, as far as they are there. `true` as in [`Self::append_path`].
    pub fn append_rest(&self, out: &mut Vec<u8>, twice: bool) -> bool {
        let mut double = false;
        if let Some(query) = self.query {
            out.push(b'?');
            let start = out.len();
            decode(query, out);
            if twice {
                let before = out.len();
                let once = out.split_off(start);
                decode(&once, out);
                double = out.len() < before;
            }
        }
        if let Some(fragment) = self.fragment {
            out.push(b'#');
            decode(fragment, out);
        }
        double
    }
}

/// `host:port`, `[v6]:port`.
pub(crate) fn host_and_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    if authority.starts_with(b"[")
        && let Some(end) = memchr::memchr(b']', authority)
    {
        let (host, rest) = authority.split_at(end + 1);
        return (host, rest.strip_prefix(b":"));
    }
    match memchr::memchr(b':', authority) {
        Some(at) => (&authority[..at], Some(&authority[at + 1..])),
        None => (authority, None),
    }
}

/// A port's number, if it is one.
pub(super) fn port_number(port: &[u8]) -> Option<u16> {
    let number = port.iter().try_fold(0_u32, |number, digit| match digit {
        b'0'..=b'9' if number < 65_536 => Some(number * 10 + u32::from(digit - b'0')),
        _ => None,
    })?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Letters, digits, `-`, `_`, `.` in labels of 63 at most, 255 in all; or an address in brackets.
pub(super) fn is_host_valid(host: &[u8]) -> bool {
    if let Some(inner) = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        return !inner.is_empty() && inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    !host.is_empty()
        && host.len() <= 255
        && host.split(|byte| *byte == b'.').all(|label| {
            !label.is_empty() && label.len() <= 63 && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// One code at the start of `bytes`: its value and its length.
fn code(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [b'%', b'u' | b'U', a, b, c, d, ..] => {
            let high = hex(*a)? << 4 | hex(*b)?;
            let low = hex(*c)? << 4 | hex(*d)?;
            Some((nearest(u32::from(high) << 8 | u32::from(low)), 6))
        }
        [b'%', a, b, ..] => Some((hex(*a)? << 4 | hex(*b)?, 3)),
        _ => None,
    }
}

fn decode(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'%', bytes) {
        out.extend_from_slice(&bytes[..at]);
        let (byte, len) = code(&bytes[at..]).unwrap_or((b'%', 1));
        out.push(byte);
        bytes = &bytes[at + len..];
    }
    out.extend_from_slice(bytes);
}

fn decode_path(bytes: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let mut slash = false;
    while at < bytes.len() {
        let (byte, len) = match bytes[at] {
            b'%' => code(&bytes[at..]).unwrap_or((b'%', 1)),
            byte => (byte, 1),
        };
        at += len;
        let byte = if byte == b'\\' { b'/' } else { byte };
        if byte != b'/' || !slash {
            out.push(byte);
        }
        slash = byte == b'/';
    }
}

/// The single byte that a character is most like; `?` when there is none.
fn nearest(character: u32) -> u8 {
    match character {
        0..=0xff => character as u8,
        // Full-width forms.
        0xff01..=0xff5e => (character - 0xff01) as u8 + b'!',
        0x2044 | 0x2215 => b'/',
        0x2216 | 0x29f5 => b'\\',
        0x2018 | 0x2019 | 0x201b | 0x2032 | 0x02b9 | 0x02bc => b'\'',
        0x201c | 0x201d | 0x2033 => b'"',
        0x2010..=0x2015 | 0x2212 => b'-',
        0x2024 => b'.',
        0x2039 | 0x2329 | 0x3008 => b'<',
        0x203a | 0x232a | 0x3009 => b'>',
        _ => b'?',
    }
}

/// UTF-8 from `start` on, overlong forms too, to single bytes. What is not UTF-8 stays.
fn best_fit(out: &mut Vec<u8>, start: usize) {
    if out[start..].is_ascii() {
        return;
    }
    let (mut read, mut write) = (start, start);
    while read < out.len() {
        let first = out[read];
        let (len, bits) = match first {
            0xc0..=0xdf => (2, first & 0x1f),
            0xe0..=0xef => (3, first & 0x0f),
            0xf0..=0xf7 => (4, first & 0x07),
            _ => (1, first),
        };
        let tail = out.get(read + 1..read + len);
        let (byte, len) = match tail {
            Some(tail) if len > 1 && tail.iter().all(|byte| byte & 0xc0 == 0x80) => {
                (nearest(tail.iter().fold(u32::from(bits), |character, byte| character << 6 | u32::from(byte & 0x3f))), len)
            }
            _ => (first, 1),
        };
        out[write] = if byte == b'\\' && len > 1 { b'/' } else { byte };
        write += 1;
        read += len;
    }
    out.truncate(write);
}

/// RFC 3986, section 5.2.4, on the bytes from `start` on.
fn remove_dot_segments(out: &mut Vec<u8>, start: usize) {
    if memchr::memchr(b'.', &out[start..]).is_none() {
        return;
    }
    let (mut read, mut write) = (start, start);
    let end = out.len();
    // A: leading dots without a slash before them.
    loop {
        let rest = &out[read..end];
        if rest.starts_with(b"../") {
            read += 3;
        } else if rest.starts_with(b"./") {
            read += 2;
        } else {
            if rest == b"." || rest == b".." {
                read = end;
            }
            break;
        }
    }
    while read < end {
        let rest = &out[read..end];
        if rest.starts_with(b"/./") {
            read += 2;
        } else if rest == b"/." {
            out[write] = b'/';
            write += 1;
            break;
        } else if rest.starts_with(b"/../") || rest == b"/.." {
            let last = rest.len() == 3;
            while write > start {
                write -= 1;
                if out[write] == b'/' {
                    break;
                }
            }
            if last {
                out[write] = b'/';
                write += 1;
                break;
            }
            read += 3;
        } else {
            let len = rest[1..].iter().position(|byte| *byte == b'/').map_or(rest.len(), |at| at + 1);
            out.copy_within(read..read + len, write);
            write += len;
            read += len;
        }
    }
    out.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(target: &[u8]) -> String {
        let mut out = b"before".to_vec();
        let parts = Target::split(target);
        parts.append_path(&mut out, false);
        parts.append_rest(&mut out, false);
        String::from_utf8_lossy(&out[6..]).into_owned()
    }

    #[test]
    fn targets_are_normalised_as_the_reference_engine_does() {
        for (target, wanted) in [
            (&b"/a/b"[..], "/a/b"),
            (b"/../a/b/../c/./d.html", "/a/c/d.html"),
            (b"/a/b/..", "/a/"),
            (b"/a/.", "/a/"),
            (b"../../x", "x"),
            (b"..", ""),
            (b"/..", "/"),
            (b"/normalized%20uri", "/normalized uri"),
            (b"/a%2fb%5Cc\\d//e", "/a/b/c/d/e"),
            (b"/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"),
            (b"/a%zz%4", "/a%zz%4"),
            (b"/%u0041%u002f%uff0fx", "/A/x"),
            (b"/%c0%ae%c0%ae/x/%c0%afy", "/x//y"),
            (b"/Upper?Q=%41+b%2Fc/../d//e", "/Upper?Q=A+b/c/../d//e"),
            (b"http://user:pw@Host:80/p?q#f%41", "/p?q#fA"),
            (b"http://host", ""),
            (b"*", "*"),
            (b"a:b/c", "a:b/c"),
            (b"/a%2525", "/a%25"),
            (b"", ""),
        ] {
            assert_eq!(normal(target), wanted, "{}", String::from_utf8_lossy(target));
        }
    }

    #[test]
    fn double_encoding_is_told_of_and_undone_when_asked() {
        let mut out = Vec::new();
        let parts = Target::split(b"/a%252fb?%2541");
        assert!(parts.append_path(&mut out, true) && parts.append_rest(&mut out, true));
        assert_eq!(out, b"/a/b?A");
    }

    #[test]
    fn authorities_are_taken_apart() {
        assert_eq!(host_and_port(b"[::1]:8080"), (&b"[::1]"[..], Some(&b"8080"[..])));
        assert_eq!(host_and_port(b"a.b"), (&b"a.b"[..], None));
        assert_eq!(Target::split(b"http://u@h:1/").host, Some(&b"h"[..]));
        assert_eq!((port_number(b"80"), port_number(b"0"), port_number(b"65536"), port_number(b"x")), (Some(80), None, None, None));
        assert!(is_host_valid(b"a-b.c_d.") && is_host_valid(b"[fe80::1]") && !is_host_valid(b"a..b") && !is_host_valid(b"a b"));
    }
}
