//! Keys of first packets (RFC 9001, section 5.2; RFC 9369, section 3.3): both ends make them of what the client chose, so whoever sees
//! the packets can open them.

use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{AeadInOut, Aes128Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::names::Dir;

/// Sealed packets end with so many bytes.
const TAG_BYTES: usize = 16;
/// A packet number has up to four bytes, and what is taken of the packet to hide it begins behind four.
const NUMBER_BYTES_MAX: usize = 4;
const SAMPLE_BYTES: usize = 16;

/// What versions differ in.
struct Suite {
    salt: [u8; 20],
    labels: [&'static [u8]; 3],
}

const LABELS: [&[u8]; 3] = [b"quic key", b"quic iv", b"quic hp"];

/// `None`: not a version whose first packets can be opened.
fn suite(version: u32) -> Option<Suite> {
    Some(match version {
        // RFC 9001, section 5.2; drafts 33 and 34.
        1 | 0xff00_0021 | 0xff00_0022 => Suite {
            salt: [0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a],
            labels: LABELS,
        },
        // RFC 9369, sections 3.3.1 and 3.3.2.
        super::VERSION_2 => Suite {
            salt: [0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9],
            labels: [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
        },
        // Drafts 29 to 32.
        0xff00_001d..=0xff00_0020 => Suite {
            salt: [0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99],
            labels: LABELS,
        },
        // Drafts 23 to 28, and Facebook's of them.
        0xff00_0017..=0xff00_001c | 0xface_b002 => Suite {
            salt: [0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe, 0xf9, 0xf5, 0x02],
            labels: LABELS,
        },
        // Google's Q050.
        0x5130_3530 => Suite {
            salt: [0x50, 0x45, 0x74, 0xef, 0xd0, 0x66, 0xfe, 0x2f, 0x9d, 0x94, 0x5c, 0xfc, 0xdb, 0xd3, 0xa7, 0xf0, 0xd3, 0xb5, 0x6b, 0x45],
            labels: LABELS,
        },
        _ => return None,
    })
}

/// Of both directions, for the identifier that the client chose for its server.
pub(super) struct Keys {
    sides: [Side; 2],
}

// Keys have nothing to say.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

struct Side {
    packet: Aes128Gcm,
    header: Aes128,
    iv: [u8; 12],
}

impl Keys {
    pub fn new(version: u32, destination: &[u8]) -> Option<Self> {
        let suite = suite(version)?;
        let (_, initial) = Hkdf::<Sha256>::extract(Some(&suite.salt), destination);
        let side = |label: &[u8]| {
            let mut secret = [0; 32];
            expand(&initial, label, &mut secret)?;
            let secret = Hkdf::<Sha256>::from_prk(&secret).ok()?;
            let (mut key, mut iv, mut header) = ([0; 16], [0; 12], [0; 16]);
            expand(&secret, suite.labels[0], &mut key)?;
            expand(&secret, suite.labels[1], &mut iv)?;
            expand(&secret, suite.labels[2], &mut header)?;
            Some(Side { packet: Aes128Gcm::new(&key.into()), header: Aes128::new(&header.into()), iv })
        };
        Some(Self { sides: [side(b"client in")?, side(b"server in")?] })
    }

    /// Opens `packet`, whose number begins at `number_at`. `None`: it was not sealed with these keys.
    pub fn open(&self, dir: Dir, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let side = &self.sides[dir as usize];
        let sample = packet.get(number_at + NUMBER_BYTES_MAX..)?.first_chunk::<SAMPLE_BYTES>()?;
        let mut mask = (*sample).into();
        side.header.encrypt_block(&mut mask);
        // RFC 9001, section 5.4.1: four bits of a long header's first byte, and the number, whose length these say.
        let first = packet[0] ^ mask[0] & 0x0f;
        let number_end = number_at + usize::from(first & 3) + 1;
        let mut header = packet[..number_end].to_vec();
        header[0] = first;
        let mut number = 0;
        for (byte, mask) in header[number_at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            number = number << 8 | u64::from(*byte);
        }
        // First packets are few: their numbers are never shortened.
        let mut nonce = side.iv;
        nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
        let (sealed, tag) = packet[number_end..].split_last_chunk::<TAG_BYTES>()?;
        let mut payload = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        side.packet.decrypt_inout_detached(&nonce, &header, payload.as_mut_slice().into(), &Tag::from(*tag)).ok()?;
        Some(payload)
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
fn expand(secret: &Hkdf<Sha256>, label: &[u8], into: &mut [u8]) -> Option<()> {
    let len = (into.len() as u16).to_be_bytes();
    let label_len = [(b"tls13 ".len() + label.len()) as u8];
    secret.expand_multi_info(&[&len, &label_len, b"tls13 ", label, &[0]], into).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Keys {
        /// A packet as its sender makes it: `header` ends with the packet number, whose length its first byte says.
        pub fn seal(&self, dir: Dir, header: &[u8], payload: &[u8]) -> Vec<u8> {
            let side = &self.sides[dir as usize];
            let number_len = usize::from(header[0] & 3) + 1;
            let number_at = header.len() - number_len;
            let number = header[number_at..].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
            let mut nonce = side.iv;
            nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
            let mut sealed = payload.to_vec();
            let nonce = Nonce::from(nonce);
            let tag = side.packet.encrypt_inout_detached(&nonce, header, sealed.as_mut_slice().into()).expect("a short payload");
            let mut packet = [header, &sealed, &tag].concat();
            let mut mask = (*packet[number_at + 4..].first_chunk::<16>().expect("a sample")).into();
            side.header.encrypt_block(&mut mask);
            packet[0] ^= mask[0] & 0x0f;
            packet[number_at..number_at + number_len].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
            packet
        }
    }

    /// RFC 9001, appendix A.3.
    #[test]
    fn the_answer_of_the_standards_example_opens() {
        let destination = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        let keys = Keys::new(1, &destination).expect("a known version");
        let text = "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a18\
                    39b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c27\
                    6456cbc42158407dd074ee";
        let text = text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
        let packet: Vec<u8> = text.collect();
        let payload = keys.open(Dir::ToClient, &packet, 18).expect("the right keys");
        assert_eq!(payload[..10], [0x02, 0, 0, 0, 0, 0x06, 0, 0x40, 0x5a, 0x02]);
        assert!(keys.open(Dir::ToServer, &packet, 18).is_none());
        assert!(
            keys.open(Dir::ToClient, &packet[..packet.len() - 1], 18).is_none() && keys.open(Dir::ToClient, &packet[..20], 18).is_none()
        );
        let other = Keys::new(super::super::VERSION_2, &destination).expect("a known version");
        assert!(other.open(Dir::ToClient, &packet, 18).is_none() && Keys::new(7, &destination).is_none());
    }
}
