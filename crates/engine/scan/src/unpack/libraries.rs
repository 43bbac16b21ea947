//! Formats that libraries read for us: 7z and cabinets.

use std::io::{Cursor, Read};

use super::{DICTIONARY_KIB_MAX, Entry, Next, Visitor};
use crate::budget::Gap;

pub(super) fn seven_zip(bytes: &[u8], visitor: &mut dyn Visitor) {
    use sevenz_rust2::{ArchiveReader, Error, Password};

    let reader = ArchiveReader::new_with_memory_limit(Cursor::new(bytes), Password::empty(), DICTIONARY_KIB_MAX as usize);
    let outcome = reader.and_then(|mut reader| {
        reader.for_each_entries(|entry, content| {
            if entry.is_directory() || !entry.has_stream() {
                return Ok(true);
            }
            let facts = Entry { real: Some(entry.size()), packed: Some(bytes.len() as u64), ..Entry::named(entry.name()) };
            Ok(visitor.entry(&facts, content) == Next::Continue)
        })
    });
    if let Err(error) = outcome {
        visitor.gap(match error {
            Error::PasswordRequired | Error::MaybeBadPassword(_) => Gap::Encrypted,
            Error::MaxMemLimited { .. } => Gap::EntryBytes,
            Error::UnsupportedCompressionMethod(method) if method.contains("AES") => Gap::Encrypted,
            Error::UnsupportedCompressionMethod(_)
            | Error::Unsupported(_)
            | Error::ExternalUnsupported
            | Error::UnsupportedVersion { .. } => Gap::Unsupported("a method of a 7z"),
            _ => Gap::Malformed("a 7z that is cut or damaged"),
        });
    }
}

pub(super) fn cabinet(bytes: &[u8], visitor: &mut dyn Visitor) {
    let Ok(mut cabinet) = cab::Cabinet::new(Cursor::new(bytes)) else {
        return visitor.gap(Gap::Malformed("a cabinet that cannot be read"));
    };
    let files: Vec<(String, u32)> = cabinet
        .folder_entries()
        .flat_map(|folder| folder.file_entries().map(|file| (file.name().to_owned(), file.uncompressed_size())).collect::<Vec<_>>())
        .collect();
    for (name, size) in files {
        let facts = Entry { real: Some(u64::from(size)), packed: Some(bytes.len() as u64), ..Entry::named(&name) };
        let next = match cabinet.read_file(&name) {
            Ok(mut content) => visitor.entry(&facts, &mut content as &mut dyn Read),
            Err(_) => visitor.refused(&facts, Gap::Malformed("a file of a cabinet")),
        };
        if next == Next::Stop {
            return;
        }
    }
}
