//! What is in an object: one file a format, all of them handing their entries to a [`Visitor`], which reads them through the budget.
//!
//! An unpacker keeps no decision of its own: it says what an entry is called, what the archive claims of it, and gives a reader. Claims are
//! never trusted; what decides is what comes out of the reader.

mod cpio;
mod documents;
mod iso;
mod libraries;
mod mail;
mod packages;
mod stream;
mod tar;
mod text;
mod zip;

use std::io::Read;

use crate::budget::Gap;
use crate::kind::Kind;

/// Bytes of an entry's name.
const NAME_BYTES_MAX: usize = 4096;
/// Memory that a decoder may take for its dictionary, in KiB.
const DICTIONARY_KIB_MAX: u32 = 128 * 1024;
/// Archives that are looked for behind a program or an image.
const EMBEDDED_MAX: usize = 8;

/// What an archive says of an entry.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub name: String,
    pub packed: Option<u64>,
    pub real: Option<u64>,
    pub encrypted: bool,
    pub checksum: Option<u32>,
}

impl Entry {
    fn named(name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]).into_owned();
        Self { name, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Continue,
    /// A limit was reached: no further entries.
    Stop,
}

pub trait Visitor {
    /// An entry with its bytes. What is left of the reader is not needed.
    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Next;

    /// An entry that cannot be read, and why.
    fn refused(&mut self, entry: &Entry, gap: Gap) -> Next;

    /// Something about the archive as a whole.
    fn gap(&mut self, gap: Gap);
}

/// Goes through the entries of an object, if it has any. Whatever is wrong with it goes to [`Visitor::gap`].
pub fn unpack(kind: Kind, bytes: &[u8], visitor: &mut dyn Visitor) {
    match kind {
        Kind::Zip => zip::unpack(bytes, visitor),
        Kind::Tar => tar::unpack(&mut &*bytes, visitor),
        Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Lzma | Kind::Zstd => stream::unpack(kind, bytes, visitor),
        Kind::SevenZip => libraries::seven_zip(bytes, visitor),
        Kind::Cab => libraries::cabinet(bytes, visitor),
        Kind::Ole => documents::ole(bytes, visitor),
        Kind::Pdf => documents::pdf(bytes, visitor),
        Kind::Rtf => documents::rtf(bytes, visitor),
        Kind::Ar => packages::ar(bytes, visitor),
        Kind::Rpm => packages::rpm(bytes, visitor),
        Kind::CpioNewc | Kind::CpioOdc | Kind::CpioBinary(_) => cpio::unpack(kind, &mut &*bytes, visitor),
        Kind::Iso => iso::unpack(bytes, visitor),
        Kind::Mail => mail::unpack(bytes, visitor),
        Kind::Szdd => stream::szdd(bytes, visitor),
        Kind::Tnef => mail::tnef(bytes, visitor),
        Kind::Rar => visitor.gap(Gap::Unsupported("rar")),
        Kind::Elf | Kind::Pe | Kind::MachO | Kind::Image | Kind::Data | Kind::Script => embedded(bytes, visitor),
        Kind::Text | Kind::Php | Kind::Html => text::text(bytes, visitor),
        Kind::Empty | Kind::JavaClass => {}
    }
}

/// The same of an object that is larger than memory: its first bytes, and the rest. `false`: this kind cannot be read from its beginning to its
/// end without going back.
pub fn unpack_stream(kind: Kind, head: &[u8], rest: &mut dyn Read, visitor: &mut dyn Visitor) -> bool {
    let mut whole = head.chain(rest);
    match kind {
        Kind::Tar => tar::unpack(&mut whole, visitor),
        Kind::CpioNewc | Kind::CpioOdc | Kind::CpioBinary(_) => cpio::unpack(kind, &mut whole, visitor),
        Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Lzma | Kind::Zstd => {
            stream::unpack_reader(kind, stream::gzip_name(kind, head), whole, None, visitor);
        }
        _ => return false,
    }
    true
}

/// Archives that begin within something else: programs that unpack themselves, and files that are two things at once.
fn embedded(bytes: &[u8], visitor: &mut dyn Visitor) {
    // A zip is found by its end, whatever stands before it.
    if zip::is_behind(bytes) {
        zip::unpack(bytes, visitor);
    }
    let mut found = 0;
    for (magic, is_one) in EMBEDDED {
        for at in memchr::memmem::find_iter(bytes, magic).filter(|at| *at > 0) {
            let part = &bytes[at..];
            // Programs that read such archives have these bytes too.
            if !is_one(part) {
                continue;
            }
            found += 1;
            if found > EMBEDDED_MAX {
                return;
            }
            if Kind::of(part) == Kind::Rar {
                visitor.gap(Gap::Unsupported("rar"));
            } else if visitor.entry(&Entry { packed: Some(part.len() as u64), ..Entry::named(format!("@{at}")) }, &mut &*part) == Next::Stop
            {
                return;
            }
        }
    }
}

/// First bytes of an archive, and whether what follows them is a header of one.
type Embedded = (&'static [u8], fn(&[u8]) -> bool);

const EMBEDDED: [Embedded; 4] = [
    // Version 0, and the next header lies within.
    (b"7z\xbc\xaf\x27\x1c", |part| part.get(6) == Some(&0) && u64_le(part, 12).is_some_and(|at| at > 0 && at < part.len() as u64)),
    // Version 1.3, and a size that fits.
    (b"MSCF\0\0\0\0", |part| u16_le(part, 24) == Some(0x0103) && u32_le(part, 8).is_some_and(|size| size as usize <= part.len())),
    // The marker of version 4 and its archive header; that of version 5 and a short main header behind its checksum.
    (b"Rar!\x1a\x07", |part| matches!(part.get(6..14), Some([0, _, _, 0x73, ..] | [1, 0, _, _, _, _, 1..0x80, 1]))),
    // Little-endian, sectors of 512 or 4,096 bytes.
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", |part| u16_le(part, 28) == Some(0xfffe) && matches!(u16_le(part, 30), Some(9 | 12))),
];

/// Numbers of a fixed width at a place; `None` beyond the end.
fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
