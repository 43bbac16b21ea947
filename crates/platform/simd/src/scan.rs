//! The loop over a run, with vectors where the processor has them.

use crate::Tables;

/// What the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vectors {
    None,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Vectors {
    pub fn of_this_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx2") {
            return Self::Avx512;
        } else if std::arch::is_x86_feature_detected!("avx2") {
            return Self::Avx2;
        }
        Self::None
    }
}

#[inline]
pub fn scan(tables: &Tables, wide: bool, vectors: Vectors, bytes: &[u8], candidate: &mut impl FnMut(usize, u16)) {
    match (vectors, wide) {
        (Vectors::None, _) => by_bytes(tables, wide, bytes, candidate),
        // SAFETY: `Vectors::of_this_processor` names what it found, and each function asks for just that.
        #[cfg(target_arch = "x86_64")]
        (Vectors::Avx2, false) => unsafe { x86::by_32::<1>(tables, bytes, candidate) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Vectors::Avx2, true) => unsafe { x86::by_32::<2>(tables, bytes, candidate) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Vectors::Avx512, false) => unsafe { x86::by_64::<1>(tables, bytes, candidate) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Vectors::Avx512, true) => unsafe { x86::by_64::<2>(tables, bytes, candidate) },
    }
}

fn by_bytes(tables: &Tables, wide: bool, bytes: &[u8], candidate: &mut impl FnMut(usize, u16)) {
    for at in 0..bytes.len() {
        let buckets = tables.buckets(&bytes[at..], wide);
        if buckets != 0 {
            candidate(at, buckets);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop)] // Iterators are compiled for any processor and would be called, not inlined.
mod x86 {
    use std::arch::x86_64::*;

    use crate::{PLACES, Tables};

    const LANES: usize = 32;
    const LANES_WIDE: usize = 64;

    /// Zeros, then ones: a vector loaded `n` bytes before the ones has them from its `n`-th lane on.
    static STEP: [u8; 2 * LANES_WIDE] = {
        let mut step = [0; 2 * LANES_WIDE];
        let mut at = LANES_WIDE;
        while at < step.len() {
            step[at] = 0xff;
            at += 1;
        }
        step
    };

    /// All positions. `HALVES`: of the sixteen buckets, the first eight or all.
    #[target_feature(enable = "avx2")]
    pub fn by_32<const HALVES: usize>(tables: &Tables, bytes: &[u8], candidate: &mut impl FnMut(usize, u16)) {
        let mut masks = [[[_mm256_setzero_si256(); 2]; PLACES]; HALVES];
        for half in 0..HALVES {
            for place in 0..PLACES {
                for nibble in 0..2 {
                    let table: &[u8; 16] = &tables.0[half][place][nibble];
                    // SAFETY: a table has the sixteen bytes that are read.
                    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast::<__m128i>()) };
                    masks[half][place][nibble] = _mm256_broadcastsi128_si256(table);
                }
            }
        }
        let mut at = 0;
        while at + LANES + PLACES - 1 <= bytes.len() {
            let mut found = [_mm256_set1_epi8(-1); HALVES];
            for place in 0..PLACES {
                // SAFETY: the loop's condition leaves LANES bytes behind the last place.
                let block = unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at + place).cast::<__m256i>()) };
                narrow(&mut found, &masks, place, block, _mm256_setzero_si256());
            }
            report(found, u32::MAX, at, candidate);
            at += LANES;
        }
        // The rest, up to two blocks of it, stands in front of zeros.
        let mut rest = [0u8; 2 * LANES + PLACES];
        let left = bytes.len() - at;
        rest[..left].copy_from_slice(&bytes[at..]);
        let mut from = 0;
        while from < left {
            let mut found = [_mm256_set1_epi8(-1); HALVES];
            for place in 0..PLACES {
                // SAFETY: `from` is 0 or LANES: the last byte is before `2 * LANES + PLACES`.
                let block = unsafe { _mm256_loadu_si256(rest.as_ptr().add(from + place).cast::<__m256i>()) };
                // Lanes at which this place is behind the end.
                let inside = left.saturating_sub(from + place).min(LANES);
                // SAFETY: `inside` is at most LANES_WIDE, and LANES bytes follow in any case.
                let behind = unsafe { _mm256_loadu_si256(STEP.as_ptr().add(LANES_WIDE - inside).cast::<__m256i>()) };
                narrow(&mut found, &masks, place, block, behind);
            }
            let here = (left - from).min(LANES);
            report(found, u32::MAX >> (LANES - here), at + from, candidate);
            from += LANES;
        }
    }

    /// Takes out the buckets that have no fragment with these bytes at this place; `behind`: any byte may stand there.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow<const HALVES: usize>(
        found: &mut [__m256i; HALVES],
        masks: &[[[__m256i; 2]; PLACES]; HALVES],
        place: usize,
        block: __m256i,
        behind: __m256i,
    ) {
        let nibble = _mm256_set1_epi8(15);
        let low = _mm256_and_si256(block, nibble);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(block), nibble);
        for half in 0..HALVES {
            let [of_low, of_high] = masks[half][place];
            let here = _mm256_and_si256(_mm256_shuffle_epi8(of_low, low), _mm256_shuffle_epi8(of_high, high));
            found[half] = _mm256_and_si256(found[half], _mm256_or_si256(here, behind));
        }
    }

    /// The positions of one block, of the lanes that are `wanted`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn report<const HALVES: usize>(found: [__m256i; HALVES], wanted: u32, at: usize, candidate: &mut impl FnMut(usize, u16)) {
        let any = if HALVES == 1 { found[0] } else { _mm256_or_si256(found[0], found[HALVES - 1]) };
        let empty = _mm256_movemask_epi8(_mm256_cmpeq_epi8(any, _mm256_setzero_si256()));
        let mut lanes = !empty.cast_unsigned() & wanted;
        if lanes == 0 {
            return;
        }
        let mut buckets = [[0u8; LANES]; 2];
        for half in 0..HALVES {
            // SAFETY: there is room for the LANES bytes that are written.
            unsafe { _mm256_storeu_si256(buckets[half].as_mut_ptr().cast::<__m256i>(), found[half]) };
        }
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            candidate(at + lane, u16::from_le_bytes([buckets[0][lane], buckets[1][lane]]));
            lanes &= lanes - 1;
        }
    }

    /// The same with vectors twice as long; what is behind the end is not loaded.
    #[target_feature(enable = "avx512bw,avx2")]
    pub fn by_64<const HALVES: usize>(tables: &Tables, bytes: &[u8], candidate: &mut impl FnMut(usize, u16)) {
        let mut masks = [[[_mm512_setzero_si512(); 2]; PLACES]; HALVES];
        for half in 0..HALVES {
            for place in 0..PLACES {
                for nibble in 0..2 {
                    let table: &[u8; 16] = &tables.0[half][place][nibble];
                    // SAFETY: a table has the sixteen bytes that are read.
                    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast::<__m128i>()) };
                    masks[half][place][nibble] = _mm512_broadcast_i32x4(table);
                }
            }
        }
        let nibble = _mm512_set1_epi8(15);
        let mut at = 0;
        while at < bytes.len() {
            let mut found = [_mm512_set1_epi8(-1); HALVES];
            let whole = at + LANES_WIDE + PLACES - 1 <= bytes.len();
            for place in 0..PLACES {
                let inside = bytes.len().saturating_sub(at + place);
                let lanes = if whole || inside >= LANES_WIDE { u64::MAX } else { (1 << inside) - 1 };
                // An address that nothing is loaded from need not exist.
                let from = bytes.as_ptr().wrapping_add(at + place).cast::<i8>();
                // SAFETY: only lanes inside of `bytes` are loaded.
                let block = unsafe { _mm512_maskz_loadu_epi8(lanes, from) };
                let low = _mm512_and_si512(block, nibble);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(block), nibble);
                for half in 0..HALVES {
                    let [of_low, of_high] = masks[half][place];
                    let here = _mm512_and_si512(_mm512_shuffle_epi8(of_low, low), _mm512_shuffle_epi8(of_high, high));
                    // Lanes behind the end keep what they have: any byte may stand there.
                    found[half] = _mm512_mask_mov_epi8(found[half], lanes, _mm512_and_si512(found[half], here));
                }
            }
            let any = if HALVES == 1 { found[0] } else { _mm512_or_si512(found[0], found[HALVES - 1]) };
            let left = bytes.len() - at;
            let wanted = if left >= LANES_WIDE { u64::MAX } else { (1 << left) - 1 };
            let mut lanes = _mm512_test_epi8_mask(any, any) & wanted;
            if lanes != 0 {
                let mut buckets = [[0u8; LANES_WIDE]; 2];
                for half in 0..HALVES {
                    // SAFETY: there is room for the LANES_WIDE bytes that are written.
                    unsafe { _mm512_storeu_si512(buckets[half].as_mut_ptr().cast::<__m512i>(), found[half]) };
                }
                while lanes != 0 {
                    let lane = lanes.trailing_zeros() as usize;
                    candidate(at + lane, u16::from_le_bytes([buckets[0][lane], buckets[1][lane]]));
                    lanes &= lanes - 1;
                }
            }
            at += LANES_WIDE;
        }
    }
}
