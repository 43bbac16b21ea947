//! Google's QUIC before the standard (Q043 to Q046): first packets are not encrypted, and the handshake is a list of tags.
//!
//! CYU, their fingerprint: <https://engineering.salesforce.com/gquic-protocol-analysis-and-fingerprinting-in-zeek-a4178855d75f>.

/// Tags of one message that are read; a hello has some thirty.
const TAGS_MAX: usize = 128;

/// One hello's tags with their values, in the order in which they stand.
pub(super) struct Tags<'a>(pub Vec<([u8; 4], &'a [u8])>);

impl<'a> Tags<'a> {
    /// Tag of the message, number of tags, two bytes, each tag with where its value ends, values.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (kind, rest) = message.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if !is_tag(*kind) || count > TAGS_MAX {
            return None;
        }
        let index = rest.get(2..2 + 8 * count)?;
        let values = rest.get(2 + 8 * count..)?;
        let (mut tags, mut start) = (Vec::with_capacity(count), 0);
        for entry in index.chunks_exact(8) {
            let (tag, end) = entry.split_first_chunk::<4>()?;
            let end = u32::from_le_bytes(*end.first_chunk()?) as usize;
            if !is_tag(*tag) {
                return None;
            }
            tags.push((*tag, values.get(start..end)?));
            start = end;
        }
        Some(Self(tags))
    }

    pub fn value(&self, wanted: &[u8; 4]) -> Option<&'a [u8]> {
        self.0.iter().find(|(tag, _)| tag == wanted).map(|(_, value)| *value)
    }

    /// `46,PAD-SNI-VER`
    pub fn fingerprint(&self, version: &str) -> String {
        let names: Vec<String> = self.0.iter().map(|(tag, _)| String::from_utf8_lossy(tag).trim_end_matches('\0').to_owned()).collect();
        format!("{version},{}", names.join("-"))
    }
}

/// Capital letters and digits, filled up with zeros.
fn is_tag(tag: [u8; 4]) -> bool {
    let text = tag.iter().rposition(|byte| *byte != 0).map_or(&[][..], |last| &tag[..=last]);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// A frame of a stream: its data, and what follows. `kind`: 1fdoooss.
pub(super) fn stream(kind: u8, frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let offset = match kind >> 2 & 7 {
        0 => 0,
        len => usize::from(len) + 1,
    };
    let rest = frame.get(usize::from(kind & 3) + 1 + offset..)?;
    if kind & 0x20 == 0 {
        return Some((rest, &[]));
    }
    let (len, rest) = rest.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_the_values_between_their_ends() {
        let message = b"CHLO\x02\0\0\0SNI\0\x03\0\0\0UAID\x05\0\0\0a.bXY";
        let tags = Tags::read(message).expect("a hello");
        assert_eq!((tags.value(b"SNI\0"), tags.value(b"UAID"), tags.value(b"VER\0")), (Some(&b"a.b"[..]), Some(&b"XY"[..]), None));
        assert_eq!(tags.fingerprint("46"), "46,SNI-UAID");
        // An end before its beginning, one beyond the message, no tag, too many.
        assert!(Tags::read(b"CHLO\x02\0\0\0SNI\0\x03\0\0\0UAID\x02\0\0\0a.bXY").is_none());
        assert!(Tags::read(b"CHLO\x01\0\0\0SNI\0\x09\0\0\0a.b").is_none());
        assert!(
            Tags::read(b"chlo\0\0\0\0").is_none() && Tags::read(b"CHLO\xff\xff\0\0").is_none() && Tags::read(b"\0\0\0\0\0\0\0\0").is_none()
        );
    }

    #[test]
    fn frames_of_streams_say_where_they_end() {
        assert_eq!(stream(0xa0, &[1, 0, 2, b'a', b'b', b'c']), Some((&b"ab"[..], &b"c"[..])));
        assert_eq!(stream(0x84, &[1, 0, 0, b'a']), Some((&b"a"[..], &b""[..])));
        assert_eq!((stream(0xa0, &[1, 0, 9, b'a']), stream(0xa3, &[1])), (None, None));
    }
}
