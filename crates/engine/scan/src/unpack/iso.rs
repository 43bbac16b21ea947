//! ISO 9660 (ECMA-119): the directory tree of the primary volume.

use std::collections::BTreeSet;

use super::{Entry, Next, Visitor, u32_le};
use crate::budget::Gap;

const SECTOR: usize = 2048;
/// Directories that are walked.
const DIRECTORIES_MAX: usize = 10_000;

pub(super) fn unpack(bytes: &[u8], visitor: &mut dyn Visitor) {
    // Volume descriptors begin at sector 16; the first is the primary one (8.4).
    let Some(root) = bytes.get(16 * SECTOR + 156..16 * SECTOR + 190) else { return visitor.gap(Gap::Malformed("an image that is cut")) };
    let mut directories = vec![(String::new(), extent(root))];
    let mut walked = BTreeSet::new();
    while let Some((path, place)) = directories.pop() {
        let Some((start, len)) = place else {
            visitor.gap(Gap::Malformed("a directory of an image"));
            continue;
        };
        if !walked.insert(start) {
            continue;
        }
        if walked.len() > DIRECTORIES_MAX {
            return visitor.gap(Gap::Entries);
        }
        let Some(directory) = bytes.get(start..start.saturating_add(len).min(bytes.len())) else { continue };
        let mut at = 0;
        while let Some(&record_len) = directory.get(at) {
            if record_len == 0 {
                // Records do not cross sectors (6.8.1.1).
                at = (at / SECTOR + 1) * SECTOR;
                continue;
            }
            let Some(record) = directory.get(at..at + usize::from(record_len)).filter(|record| record.len() >= 34) else { break };
            at += usize::from(record_len);
            let name = record.get(33..33 + usize::from(record[32])).unwrap_or_default();
            // The directory itself and its parent.
            if matches!(name, [0 | 1]) {
                continue;
            }
            let name = name.split(|byte| *byte == b';').next().unwrap_or(name);
            let full = format!("{path}{}", String::from_utf8_lossy(name));
            if record[25] & 2 != 0 {
                directories.push((full + "/", extent(record)));
                continue;
            }
            let entry = Entry::named(&full);
            let next = match extent(record).and_then(|(start, len)| bytes.get(start..start.checked_add(len)?)) {
                Some(data) => {
                    visitor.entry(&Entry { packed: Some(data.len() as u64), real: Some(data.len() as u64), ..entry }, &mut &*data)
                }
                None => visitor.refused(&entry, Gap::Malformed("a file beyond the end of the image")),
            };
            if next == Next::Stop {
                return;
            }
        }
    }
}

/// Place and length of what a directory record names (9.1.3, 9.1.4).
fn extent(record: &[u8]) -> Option<(usize, usize)> {
    Some(((u32_le(record, 2)? as usize).checked_mul(SECTOR)?, u32_le(record, 10)? as usize))
}
