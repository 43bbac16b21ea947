//! Bodies for a fuzzer: any bytes in, a panic when a promise is broken.

use crate::{Action, Budget, Compiler, Limits};

/// Limits under which one input is done in a moment.
const LIMITS: Limits = Limits {
    depth_max: 4,
    entries_max: 64,
    entry_bytes_max: 1 << 20,
    total_bytes_max: 4 << 20,
    ratio_max: 250,
    ratio_from_bytes: 1 << 16,
    search_time_max: std::time::Duration::from_secs(1),
    findings_max: 16,
    gaps_max: 16,
};

/// Whatever a file is, unpacking it keeps the limits.
pub fn fuzz_unpack(set: &crate::SignatureSet, bytes: &[u8]) {
    let never = || false;
    let mut budget = Budget::new(LIMITS, &never);
    let report = set.scan("file", bytes, &mut budget);
    assert!(report.findings.len() <= LIMITS.findings_max && report.incomplete.len() <= LIMITS.gaps_max);
    assert!(budget.entries() <= LIMITS.entries_max);
    // One piece may come in before it is counted.
    assert!(budget.bytes() <= LIMITS.total_bytes_max + 64 * 1024);
    assert!(report.findings.iter().all(|finding| finding.place.len() <= usize::from(LIMITS.depth_max)));
}

/// Whatever a signature file holds: what is not loaded is told of, and the rest can be scanned with. The first byte chooses the format.
pub fn fuzz_signatures(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let extension = crate::signatures::EXTENSIONS[usize::from(*choice) % crate::signatures::EXTENSIONS.len()];
    let mut compiler = Compiler::default();
    assert!(compiler.file(&format!("file.{extension}"), rest, Action::Alert));
    let (set, summary) = compiler.finish();
    assert!(summary.loaded_total() <= rest.len() + 1);
    let never = || false;
    let _ = set.scan("file", b"MZ some bytes that may be found", &mut Budget::new(LIMITS, &never));
}
