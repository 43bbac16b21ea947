//! TAR, as a stream: nothing of it is held but the entry at hand.

use std::io::Read;

use super::{Entry, Next, Visitor};
use crate::budget::Gap;

pub(super) fn unpack(stream: &mut dyn Read, visitor: &mut dyn Visitor) {
    let mut archive = ::tar::Archive::new(stream);
    let Ok(entries) = archive.entries() else { return visitor.gap(Gap::Malformed("a tar that cannot be read")) };
    for entry in entries {
        let Ok(mut entry) = entry else { return visitor.gap(Gap::Malformed("a tar that is cut or damaged")) };
        if !entry.header().entry_type().is_file() && !entry.header().entry_type().is_contiguous() {
            continue;
        }
        let facts = Entry { packed: Some(entry.size()), real: Some(entry.size()), ..Entry::named(entry.path_bytes()) };
        if visitor.entry(&facts, &mut entry) == Next::Stop {
            return;
        }
    }
}
