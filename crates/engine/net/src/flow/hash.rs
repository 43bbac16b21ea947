//! SipHash-1-3 over the words of a key: a hash whose collisions nobody can make who does not know the seed.
//! Source: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF"; one compression and three
//! finalisation rounds, as in Rust's and Linux' hash tables.

use std::net::IpAddr;

use super::Tuple;

/// Hashes a tuple that is in its normal form.
pub(super) fn tuple(seed: [u64; 2], tuple: &Tuple) -> u64 {
    let words = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => [u64::from(addr.to_bits()), 4],
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    };
    let ([a, b], [c, d]) = (words(tuple.src.addr), words(tuple.dst.addr));
    let ends = u64::from(tuple.src.port) << 48 | u64::from(tuple.dst.port) << 32 | u64::from(tuple.zone);
    sip_words(seed, &[a, b, c, d, ends, tuple.vlan.words(), u64::from(tuple.proto)])
}

/// The hash of the words' little-endian bytes.
fn sip_words(seed: [u64; 2], words: &[u64]) -> u64 {
    let [k0, k1] = seed;
    let mut v = [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573];
    for word in words {
        absorb(&mut v, *word);
    }
    absorb(&mut v, (words.len() as u64 * 8) << 56);
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

const fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    /// The standard library's default hasher is SipHash-1-3 with the key (0, 0).
    #[test]
    fn it_is_the_hash_that_the_standard_library_has() {
        for len in 0..9 {
            let words: Vec<u64> = (0..len).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x55).collect();
            let mut peer = std::hash::DefaultHasher::new();
            for word in &words {
                peer.write(&word.to_le_bytes());
            }
            assert_eq!(sip_words([0, 0], &words), peer.finish(), "{len} words");
        }
    }
}
