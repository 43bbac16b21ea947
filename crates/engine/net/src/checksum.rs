//! The Internet checksum (RFC 1071), eight bytes at a time.

use std::net::IpAddr;

/// The folded one's complement sum of `bytes` and `start`: 0xffff when a stored checksum is right.
/// `start` is a sum of 16-bit words in network order, see [`pseudo_header`].
pub fn sum(bytes: &[u8], start: u64) -> u16 {
    // One's complement addition does not care for byte order (RFC 1071, section 2B), so words are added as
    // the machine reads them and the folded result is swapped once.
    let mut low = 0u64;
    let mut high = 0u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_ne_bytes(*chunk);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut total = low + high;
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    let native = fold(total);
    let network = u16::from_be_bytes(native.to_ne_bytes());
    fold(u64::from(network) + start)
}

/// Sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u64 {
    let words = |bytes: &[u8]| bytes.as_chunks::<2>().0.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
    let addresses = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => words(&src.octets()) + words(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => words(&src.octets()) + words(&dst.octets()),
        // Not built by the decoder: both addresses come from one header.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    let len = len as u64;
    addresses + u64::from(proto) + (len & 0xffff) + (len >> 16)
}

/// Whether `bytes`, its checksum field included, sums up under the pseudo-header.
pub fn valid(bytes: &[u8], start: u64) -> bool {
    sum(bytes, start) == 0xffff
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3: the bytes 00 01 f2 03 f4 f5 f6 f7 sum up to ddf2.
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), 0xddf2);
    }

    #[test]
    fn every_length_agrees_with_the_plain_sum() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 + 11) as u8).collect();
        for len in 0..bytes.len() {
            let mut plain = 0x1234u64;
            for pair in bytes[..len].chunks(2) {
                plain += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
            assert_eq!(sum(&bytes[..len], 0x1234), fold(plain), "length {len}");
        }
    }

    #[test]
    fn a_header_with_its_checksum_is_valid_and_one_flipped_bit_is_not() {
        let mut header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert!(valid(&header, 0));
        header[7] ^= 0x10;
        assert!(!valid(&header, 0));
    }
}
