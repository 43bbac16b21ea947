//! DNS within HTTP/2 (RFC 8484): what of a request or answer is a DNS message.

/// The media type of both sides.
const MEDIA_TYPE: &[u8] = b"application/dns-message";

pub(super) fn is_dns(content_type: Option<&[u8]>) -> bool {
    content_type.is_some_and(|kind| {
        let end = kind.iter().position(|byte| *byte == b';').unwrap_or(kind.len());
        kind[..end].trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE)
    })
}

/// The message that a GET asks with: `/dns-query?dns=` and base64url.
pub(super) fn asked(path: &[u8]) -> Option<Vec<u8>> {
    let query = &path[memchr::memchr(b'?', path)? + 1..];
    let text = query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"dns="))?;
    base64url(text).filter(|message| !message.is_empty())
}

/// RFC 4648, section 5; closing `=` may be missing.
pub(crate) fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    for byte in &text[..end] {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_types_and_paths() {
        assert!(is_dns(Some(b"Application/DNS-Message; x=y")) && !is_dns(Some(b"application/dns-json")) && !is_dns(None));
        assert_eq!(asked(b"/dns-query?a=b&dns=AAEB_-8"), Some(vec![0, 1, 1, 0xff, 0xef]));
        assert_eq!((asked(b"/dns-query?dns=A*"), asked(b"/dns-query?dns="), asked(b"/dns-query")), (None, None, None));
        assert_eq!(base64url(b"AAMAAABkAAQAAP__"), Some(vec![0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 0xff, 0xff]));
    }
}
