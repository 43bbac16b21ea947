//! NTP (RFC 5905): each message is a transaction of its own direction.

use crate::datagram::{be, hex_with_colons};
use crate::names::{Buffer, Dir, Field};
use crate::protocol::Probe;
use crate::transaction::Transaction;

/// RFC 5905, section 7.3.
const HEADER_BYTES: usize = 48;
/// RFC 9327, section 2.
const CONTROL_BYTES: usize = 12;
const CONTROL: u8 = 6;
/// A root delay or dispersion of more seconds is not of this world.
const ROOT_SECONDS_MAX: u64 = 1024;

/// A header whose numbers are plausible together: most of its bytes may be anything.
pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let good = match bytes.first().map(|first| (first >> 3 & 7, first & 7)) {
        Some((1..=4, CONTROL)) => is_control(bytes),
        Some((1..=4, 1..=5)) => is_time(bytes),
        Some(_) | None => false,
    };
    if good { Probe::Yes } else { Probe::No }
}

fn is_time(bytes: &[u8]) -> bool {
    let Some((header, behind)) = bytes.split_at_checked(HEADER_BYTES) else { return false };
    let mode = header[0] & 7;
    let precision = header[3].cast_signed();
    let roots = [&header[4..6], &header[8..10]].map(be);
    let transmitted = be(&header[40..48]);
    // Extension fields and message authentication codes are multiples of four bytes.
    behind.len().is_multiple_of(4)
        && header[1] <= 16
        && (-10..=24).contains(&header[2].cast_signed())
        // Clients that do not tell theirs write 0 or 32, and tell nothing else either: the same bytes of a question of DNS say more.
        && ((-48..0).contains(&precision) || mode == 3 && matches!(precision, 0 | 32) && header[4..16].iter().all(|byte| *byte == 0))
        && roots.iter().all(|seconds| *seconds < ROOT_SECONDS_MAX)
        // A client tells nothing of a clock that it asks for.
        && (mode != 3 || header[1] != 1)
        && transmitted != 0
}

/// A control message says how much data it has.
fn is_control(bytes: &[u8]) -> bool {
    let Some((header, data)) = bytes.split_at_checked(CONTROL_BYTES) else { return false };
    let count = be(&header[10..12]) as usize;
    // RFC 9327, section 2: no leap bits, operations 0 to 12 and 31, data filled up to a multiple of four, perhaps an authenticator.
    let behind = data.len().checked_sub(count.next_multiple_of(4));
    header[0] >> 6 == 0 && matches!(header[1] & 0x1f, 0..=12 | 31) && matches!(behind, Some(0 | 20 | 24))
}

pub(crate) fn read(bytes: &[u8], dir: Dir, tx: &mut Transaction) {
    let Some(first) = bytes.first() else { return };
    let (version, mode) = (u64::from(first >> 3 & 7), u64::from(first & 7));
    tx.integer_is(Field::NtpVersion, dir, version);
    tx.integer_is(Field::NtpMode, dir, mode);
    tx.notes.number("version", version);
    tx.notes.number("mode", mode);
    if mode >= u64::from(CONTROL) {
        return;
    }
    let (Some(stratum), Some(reference)) = (bytes.get(1), bytes.get(12..16)) else {
        tx.event("ntp.malformed_data", dir);
        return;
    };
    tx.integer_is(Field::NtpStratum, dir, u64::from(*stratum));
    tx.value(Buffer::NtpReferenceId, dir, reference);
    tx.notes.number("stratum", u64::from(*stratum));
    tx.notes.text("reference_id", hex_with_colons(reference));
    if bytes.len() < HEADER_BYTES || version == 0 || version > 4 {
        tx.event("ntp.malformed_data", dir);
    }
}
