//! What an object is, by its bytes and never by its name.

/// As far as it decides how an object is unpacked, which signatures are for it, and what a person wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kind {
    #[default]
    Empty,
    Elf,
    Pe,
    MachO,
    JavaClass,
    /// Begins with `#!`.
    Script,
    Php,
    Html,
    Zip,
    Tar,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
    SevenZip,
    Rar,
    Cab,
    /// Also Debian's packages.
    Ar,
    Rpm,
    CpioNewc,
    CpioOdc,
    /// `true`: the numbers are big-endian.
    CpioBinary(bool),
    Iso,
    Ole,
    Pdf,
    Rtf,
    Mail,
    /// Outlook's `winmail.dat`.
    Tnef,
    /// Compressed by `COMPRESS.EXE`.
    Szdd,
    Image,
    Text,
    Data,
}

/// Bytes that tell text from data.
const TEXT_BYTES: usize = 4096;
/// Bytes among which a PDF's header may stand (ISO 32000-1, annex H.3.4.1).
const PDF_BYTES: usize = 1024;
const ISO_AT: usize = 0x8001;

impl Kind {
    pub fn of(bytes: &[u8]) -> Self {
        let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        match bytes {
            [] => Self::Empty,
            [0x7f, b'E', b'L', b'F', ..] => Self::Elf,
            [b'M', b'Z', ..] => Self::Pe,
            [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => Self::MachO,
            // A fat Mach-O has the same first four bytes and a small number of architectures behind them.
            [0xca, 0xfe, 0xba, 0xbe, _, _, high, low, ..] => {
                if u16::from_be_bytes([*high, *low]) < 0x2d {
                    Self::MachO
                } else {
                    Self::JavaClass
                }
            }
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, b'P', b'K', 3, 4, ..] => Self::Zip,
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, ..] => {
                Self::Bzip2
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Self::SevenZip,
            [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => Self::Rar,
            [b'M', b'S', b'C', b'F', 0, 0, 0, 0, ..] => Self::Cab,
            [0xed, 0xab, 0xee, 0xdb, ..] => Self::Rpm,
            [0xc7, 0x71, ..] => Self::CpioBinary(false),
            [0x71, 0xc7, ..] => Self::CpioBinary(true),
            [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => Self::Ole,
            [0x78, 0x9f, 0x3e, 0x22, ..] => Self::Tnef,
            [b'S', b'Z', b'D', b'D', 0x88, 0xf0, 0x27, 0x33, ..] => Self::Szdd,
            [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] => Self::Image,
            _ if at(0, b"!<arch>\n") => Self::Ar,
            _ if at(0, b"070701") || at(0, b"070702") => Self::CpioNewc,
            _ if at(0, b"070707") => Self::CpioOdc,
            _ if at(257, b"ustar") || is_old_tar(bytes) => Self::Tar,
            _ if at(ISO_AT, b"CD001") => Self::Iso,
            _ if at(0, b"{\\rt") => Self::Rtf,
            _ if memchr::memmem::find(&bytes[..bytes.len().min(PDF_BYTES)], b"%PDF-").is_some() => Self::Pdf,
            // Properties of which there are few, a dictionary of a usual size and a length that is plausible.
            [0x5d, 0, 0, low, high, rest @ ..] if is_lzma(*low, *high, rest) => Self::Lzma,
            _ => Self::of_text(bytes),
        }
    }

    fn of_text(bytes: &[u8]) -> Self {
        let head = &bytes[..bytes.len().min(TEXT_BYTES)];
        let lower = head.to_ascii_lowercase();
        let trimmed = lower.trim_ascii_start();
        if head.starts_with(b"#!") {
            return Self::Script;
        }
        if head.contains(&0) {
            return Self::Data;
        }
        if memchr::memmem::find(&lower, b"<?php").is_some() || trimmed.starts_with(b"<?=") {
            return Self::Php;
        }
        if [&b"<!doctype html"[..], b"<html", b"<script", b"<body", b"<iframe"].iter().any(|tag| trimmed.starts_with(tag)) {
            return Self::Html;
        }
        if is_mail(head) {
            return Self::Mail;
        }
        let odd = head.iter().filter(|byte| **byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)).count();
        if odd * 20 > head.len() { Self::Data } else { Self::Text }
    }

    /// For people and machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Elf => "elf",
            Self::Pe => "pe",
            Self::MachO => "mach-o",
            Self::JavaClass => "java-class",
            Self::Script => "script",
            Self::Php => "php",
            Self::Html => "html",
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
            Self::SevenZip => "7z",
            Self::Rar => "rar",
            Self::Cab => "cab",
            Self::Ar => "ar",
            Self::Rpm => "rpm",
            Self::CpioNewc | Self::CpioOdc | Self::CpioBinary(_) => "cpio",
            Self::Iso => "iso",
            Self::Ole => "ole",
            Self::Pdf => "pdf",
            Self::Rtf => "rtf",
            Self::Mail => "mail",
            Self::Tnef => "tnef",
            Self::Szdd => "szdd",
            Self::Image => "image",
            Self::Text => "text",
            Self::Data => "data",
        }
    }
}

/// A tar of before POSIX has no magic: the checksum of its header must be right (and there must be a name).
fn is_old_tar(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..512) else { return false };
    if header[0] == 0 {
        return false;
    }
    let field = &header[148..156];
    let digits: Vec<u8> = field.iter().copied().filter(|byte| (b'0'..=b'7').contains(byte)).collect();
    let Ok(text) = std::str::from_utf8(&digits) else { return false };
    let Ok(expected) = u32::from_str_radix(text, 8) else { return false };
    let sum: u32 = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    sum == expected
}

/// The dictionary is a power of two or 1.5 of one; the length is unknown (all ones) or less than 2^40.
fn is_lzma(low: u8, high: u8, rest: &[u8]) -> bool {
    let dictionary = u16::from_le_bytes([low, high]);
    let Some(len) = rest.first_chunk::<8>() else { return false };
    let len = u64::from_le_bytes(*len);
    dictionary.count_ones() <= 2 && dictionary != 0 && (len == u64::MAX || len < 1 << 40) && rest.get(8) == Some(&0)
}

/// A header of two fields at least, among them one that only mails have.
fn is_mail(head: &[u8]) -> bool {
    const TELLING: [&[u8]; 8] =
        [b"received:", b"return-path:", b"message-id:", b"mime-version:", b"delivered-to:", b"x-mailer:", b"from:", b"content-type:"];
    let head = head.strip_prefix(b"From ").map_or(head, |rest| &rest[memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1)..]);
    let (mut fields, mut telling) = (0, 0);
    for line in head.split(|byte| *byte == b'\n').take(32) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { return false };
        if colon == 0 || !line[..colon].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            return false;
        }
        fields += 1;
        let lower = line[..=colon].to_ascii_lowercase();
        telling += usize::from(TELLING.contains(&lower.as_slice()));
    }
    fields >= 2 && telling >= 1
}
