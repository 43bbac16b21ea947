//! What a rule makes of a buffer's bytes before it looks at them: Base64, entropy, BER.

use bulkhead_rules::condition::Asn1;
use bulkhead_rules::transform::Base64Mode;
use bulkhead_rules::tree::EntropyTest;

/// Objects side by side and within each other; Suricata's `asn1-max-frames`.
const BER_DEPTH_MAX: usize = 30;
/// Objects in one buffer: each costs at least two bytes, and a payload may be full of them.
const BER_OBJECTS_MAX: usize = 4_096;

/// Appends what `text` decodes to. RFC 4648 ends at the first byte that is none of the alphabet, RFC 2045 passes over it, and a strict
/// text that has one decodes to nothing.
pub(crate) fn base64(text: &[u8], mode: Base64Mode, out: &mut Vec<u8>) {
    let begin = out.len();
    let (mut held, mut count) = (0u32, 0);
    let mut padded = 0;
    let mut used = 0;
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if mode == Base64Mode::Strict => {
                padded += 1;
                continue;
            }
            b'=' => break,
            _ => match mode {
                Base64Mode::Rfc2045 => continue,
                Base64Mode::Rfc4648 => break,
                Base64Mode::Strict => {
                    out.truncate(begin);
                    return;
                }
            },
        };
        if padded > 0 {
            out.truncate(begin);
            return;
        }
        used += 1;
        held = held << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            out.extend_from_slice(&held.to_be_bytes()[1..]);
            (held, count) = (0, 0);
        }
    }
    if mode == Base64Mode::Strict && (used + padded) % 4 != 0 {
        out.truncate(begin);
        return;
    }
    match count {
        2 => out.push((held >> 4) as u8),
        3 => out.extend_from_slice(&[(held >> 10) as u8, (held >> 2) as u8]),
        _ => {}
    }
}

/// Shannon's, in bits a byte.
pub(crate) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all = bytes.len() as f64;
    counts.iter().filter(|count| **count > 0).fold(0.0, |sum, count| {
        let part = f64::from(*count) / all;
        sum - part * part.log2()
    })
}

pub(crate) fn entropy_holds(test: EntropyTest, found: f64) -> bool {
    let equal = |value: f64| (found - value).abs() < f64::EPSILON;
    match test {
        EntropyTest::Equal(value) => equal(value),
        EntropyTest::NotEqual(value) => !equal(value),
        EntropyTest::Less(value) => found < value,
        EntropyTest::LessOrEqual(value) => found <= value,
        EntropyTest::Greater(value) => found > value,
        EntropyTest::GreaterOrEqual(value) => found >= value,
        EntropyTest::Between(low, high) => low < found && found < high,
        EntropyTest::NotBetween(low, high) => !(low < found && found < high),
    }
}

/// Whether one of the BER objects that begin at `previous` (or where the test says) has one of the faults asked for.
pub(crate) fn asn1(test: &Asn1, bytes: &[u8], previous: usize) -> bool {
    let start = match (test.absolute_offset, test.relative_offset) {
        (Some(offset), _) => Some(usize::from(offset)),
        (None, Some(offset)) => usize::try_from(previous as i64 + i64::from(offset)).ok(),
        (None, None) => Some(0),
    };
    let Some(mut rest) = start.and_then(|start| bytes.get(start..)) else { return false };
    let mut left = BER_OBJECTS_MAX;
    for _ in 0..BER_DEPTH_MAX {
        match ber(test, rest, BER_DEPTH_MAX, &mut left) {
            Ber::Faulty => return true,
            Ber::Sound(size) if size > 0 && size < rest.len() => rest = &rest[size..],
            Ber::Sound(_) | Ber::Unreadable => return false,
        }
    }
    false
}

enum Ber {
    /// One of the faults asked for.
    Faulty,
    /// Bytes of the object.
    Sound(usize),
    Unreadable,
}

/// One object of X.690, section 8.1, with what it holds.
fn ber(test: &Asn1, bytes: &[u8], depth: usize, left: &mut usize) -> Ber {
    let Some(deeper) = depth.checked_sub(1) else { return Ber::Unreadable };
    let (Some(fewer), Some(first)) = (left.checked_sub(1), bytes.first()) else { return Ber::Unreadable };
    *left = fewer;
    let (universal, constructed) = (first >> 6 == 0, first & 0x20 != 0);
    let mut at = 1;
    let mut tag = u32::from(first & 0x1f);
    if tag == 0x1f {
        tag = 0;
        loop {
            let Some(byte) = bytes.get(at) else { return Ber::Unreadable };
            at += 1;
            if tag >> 24 != 0 {
                return Ber::Unreadable;
            }
            tag = tag << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let Some(size) = bytes.get(at) else { return Ber::Unreadable };
    at += 1;
    let length = match size {
        0..=0x7f => u64::from(*size),
        // Without a definite length: until the object that ends it.
        0x80 => (bytes.len() - at) as u64,
        more => {
            let digits = usize::from(more & 0x7f);
            let Some(digits) = bytes.get(at..at + digits).filter(|digits| digits.len() <= 8) else { return Ber::Unreadable };
            at += digits.len();
            digits.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
        }
    };
    if test.oversize_length.is_some_and(|most| length > u64::from(most)) {
        return Ber::Faulty;
    }
    let Some(end) = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).filter(|end| *end <= bytes.len()) else {
        return Ber::Unreadable;
    };
    let content = &bytes[at..end];
    if universal && !constructed && !content.is_empty() {
        // More bits to leave out than there are.
        let bits = tag == 3 && u64::from(content[0]) > length.saturating_mul(8);
        // A number in characters, longer than the buffers that read it.
        let real = tag == 9 && content[0] & 0xc0 == 0 && length > 256;
        if (test.bitstring_overflow && bits) || (test.double_overflow && real) {
            return Ber::Faulty;
        }
    }
    if constructed {
        let mut rest = content;
        while !rest.is_empty() {
            match ber(test, rest, deeper, left) {
                Ber::Faulty => return Ber::Faulty,
                Ber::Sound(size) if size > 0 => rest = rest.get(size..).unwrap_or_default(),
                Ber::Sound(_) | Ber::Unreadable => return Ber::Unreadable,
            }
        }
    }
    Ber::Sound(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8], mode: Base64Mode) -> Vec<u8> {
        let mut out = Vec::new();
        base64(text, mode, &mut out);
        out
    }

    #[test]
    fn each_mode_takes_bytes_outside_of_the_alphabet_its_way() {
        use Base64Mode::{Rfc2045, Rfc4648, Strict};
        assert_eq!(decoded(b"SGVsbG8gV29ybGQ=", Rfc4648), b"Hello World");
        assert_eq!(decoded(b"SGVs bG8=", Rfc4648), b"Hel");
        assert_eq!(decoded(b"SGVs\r\nbG8=", Rfc2045), b"Hello");
        assert_eq!(decoded(b"SGVsbG8=", Strict), b"Hello");
        assert!(decoded(b"SGVs bG8=", Strict).is_empty() && decoded(b"SGVsbG8", Strict).is_empty());
        assert!(decoded(b"", Rfc4648).is_empty() && decoded(b"S", Rfc4648).is_empty());
    }

    #[test]
    fn entropy_is_none_of_one_byte_and_two_bits_of_four() {
        assert!(entropy_holds(EntropyTest::Equal(0.0), entropy(b"aaaa")));
        assert!(entropy_holds(EntropyTest::Equal(2.0), entropy(b"abcdabcd")));
        assert!(!entropy_holds(EntropyTest::Between(1.0, 2.0), entropy(b"aab")));
        assert!(entropy_holds(EntropyTest::Less(1.0), entropy(b"aab")));
    }

    #[test]
    fn faults_of_ber_are_found_at_any_depth_and_nowhere_else() {
        let oversize = Asn1 { oversize_length: Some(132), ..Asn1::default() };
        let mut long = vec![0x30, 0x81, 0x85];
        long.resize(3 + 0x85, 0x05);
        assert!(asn1(&oversize, &long, 0));
        assert!(!asn1(&Asn1 { oversize_length: Some(133), ..Asn1::default() }, &long, 0));
        let bits = Asn1 { bitstring_overflow: true, ..Asn1::default() };
        assert!(asn1(&bits, b"\x03\x01\xff", 0) && !asn1(&bits, b"\x03\x01\x07", 0));
        assert!(asn1(&bits, b"\x30\x03\x03\x01\xff", 0));
        let mut real = vec![0x09, 0x82, 0x01, 0x01];
        real.resize(261, 5);
        let double = Asn1 { double_overflow: true, relative_offset: Some(1), ..Asn1::default() };
        let mut behind = vec![0u8; 4];
        behind.extend_from_slice(&real);
        assert!(asn1(&double, &behind, 3) && !asn1(&double, &behind, 9_999));
        // Nested without end, and full of empty objects.
        assert!(!asn1(&bits, &[0x30, 0x80].repeat(10_000), 0) && !asn1(&bits, &[0x05, 0x00].repeat(100_000), 0));
    }
}
