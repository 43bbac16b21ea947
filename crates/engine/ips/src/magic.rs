//! What kind of file something is, by its first bytes, in the words of `file(1)`: the types that rules ask for. Others are `data`.
//!
//! The descriptions are libmagic's up to where they depend on more than the first bytes; sources are the formats' own documents.

/// Bytes that the longest of the tests needs.
pub(crate) const MAGIC_BYTES: usize = 1024;

/// Offset, bytes, description.
const TABLE: &[(usize, &[u8], &str)] = &[
    (0, b"%PDF-", "PDF document"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG image data"),
    (0, b"\xff\xd8\xff", "JPEG image data"),
    (0, b"GIF87a", "GIF image data, version 87a"),
    (0, b"GIF89a", "GIF image data, version 89a"),
    (0, b"BM", "PC bitmap"),
    (0, b"II*\0", "TIFF image data, little-endian"),
    (0, b"MM\0*", "TIFF image data, big-endian"),
    (0, b"\0\0\x01\0", "MS Windows icon resource"),
    (0, b"\x1f\x8b", "gzip compressed data"),
    (0, b"BZh", "bzip2 compressed data"),
    (0, b"\xfd7zXZ\0", "XZ compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard compressed data"),
    (0, b"\x04\x22\x4d\x18", "LZ4 compressed data"),
    (0, b"]\0\0", "LZMA compressed data"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-zip archive data"),
    (0, b"Rar!\x1a\x07", "RAR archive data"),
    (0, b"MSCF\0\0\0\0", "Microsoft Cabinet archive data"),
    (0, b"ITSF\x03\0\0\0", "MS Windows HtmlHelp Data"),
    (0, b"!<arch>\ndebian", "Debian binary package"),
    (0, b"!<arch>\n", "current ar archive"),
    (0, b"\xed\xab\xee\xdb", "RPM"),
    (257, b"ustar", "POSIX tar archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Composite Document File V2 Document"),
    (0, b"{\\rtf", "Rich Text Format data"),
    (0, b"%!PS", "PostScript document text"),
    (0, b"\xcf\xfa\xed\xfe", "Mach-O 64-bit executable"),
    (0, b"\xce\xfa\xed\xfe", "Mach-O executable"),
    (0, b"dex\n", "Dalvik dex file"),
    (0, b"\0asm", "WebAssembly (wasm) binary module"),
    (0, b"FWS", "Macromedia Flash data"),
    (0, b"CWS", "Macromedia Flash data (compressed)"),
    (0, b"ZWS", "Macromedia Flash data (LZMA compressed)"),
    (0, b"FLV", "Macromedia Flash Video"),
    (0, b"OggS", "Ogg data"),
    (0, b"fLaC", "FLAC audio bitstream data"),
    (0, b"ID3", "Audio file with ID3"),
    (0, b"\x1aE\xdf\xa3", "Matroska data"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Microsoft ASF"),
    (4, b"ftyp", "ISO Media"),
    (0, b"SQLite format 3\0", "SQLite 3.x database"),
    (0, b"L\0\0\0\x01\x14\x02\0", "MS Windows shortcut"),
    (0, b"-----BEGIN OPENSSH PRIVATE KEY", "OpenSSH private key"),
    (0, b"-----BEGIN CERTIFICATE", "PEM certificate"),
    (0, b"-----BEGIN RSA PRIVATE KEY", "PEM RSA private key"),
    (0, b"-----BEGIN PGP", "PGP message"),
    (0, b"wOFF", "Web Open Font Format"),
    (0, b"wOF2", "Web Open Font Format (Version 2)"),
    (0, b"\0\x01\0\0\0", "TrueType Font data"),
    (0, b"OTTO", "OpenType font data"),
];

/// The kind of a file that begins with `head`, as much of it as there is, [`MAGIC_BYTES`] at least.
pub(crate) fn magic(head: &[u8]) -> String {
    if head.is_empty() {
        return "empty".to_owned();
    }
    let given = TABLE.iter().find(|(at, bytes, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    if let Some((_, _, name)) = given {
        return match *name {
            "PDF document" => version(name, head.get(5..8)),
            "ISO Media" if head.get(8..11) == Some(b"qt ") => "ISO Media, Apple QuickTime movie".to_owned(),
            "ISO Media" => "ISO Media, MP4".to_owned(),
            name => name.to_owned(),
        };
    }
    binary(head).or_else(|| script(head)).unwrap_or_else(|| text(head).to_owned())
}

fn version(name: &str, number: Option<&[u8]>) -> String {
    match number {
        Some(&[major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            format!("{name}, version {}.{}", char::from(major), char::from(minor))
        }
        _ => name.to_owned(),
    }
}

/// Kinds that more than one place decides.
fn binary(head: &[u8]) -> Option<String> {
    let u16_at = |at: usize| head.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    match head {
        [b'M', b'Z', ..] => {
            let new = head.get(0x3c..0x40).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize);
            let Some(at) = new.filter(|at| head.get(*at..).is_some_and(|rest| rest.starts_with(b"PE\0\0"))) else {
                return Some("MS-DOS executable".to_owned());
            };
            // Microsoft, "PE Format": characteristics, magic and subsystem.
            let wide = u16_at(at + 24) == Some(0x20b);
            let is_dll = u16_at(at + 22).is_some_and(|bits| bits & 0x2000 != 0);
            let subsystem = match u16_at(at + 24 + 68) {
                _ if is_dll => "(DLL) ",
                Some(2) => "(GUI) ",
                Some(3) => "(console) ",
                _ => "",
            };
            let machine = match u16_at(at + 4) {
                Some(0x8664) => "x86-64",
                Some(0xaa64) => "Aarch64",
                _ => "Intel 80386",
            };
            Some(format!("PE32{} executable {subsystem}{machine}, for MS Windows", if wide { "+" } else { "" }))
        }
        [0x7f, b'E', b'L', b'F', class, order, ..] => {
            let kind = match (u16_at(16), order) {
                (Some(1), 1) | (Some(0x100), 2) => "relocatable",
                (Some(3), 1) | (Some(0x300), 2) => "shared object",
                (Some(4), 1) | (Some(0x400), 2) => "core file",
                _ => "executable",
            };
            let (bits, ends) = (if *class == 2 { 64 } else { 32 }, if *order == 2 { "MSB" } else { "LSB" });
            Some(format!("ELF {bits}-bit {ends} {kind}"))
        }
        [b'P', b'K', 3, 4, ..] => {
            let name_len = usize::from(u16_at(26).unwrap_or(0));
            let name = head.get(30..30 + name_len).unwrap_or_default();
            let has = |part: &[u8]| memchr::memmem::find(head, part).is_some();
            Some(
                match name {
                    b"META-INF/" | b"META-INF/MANIFEST.MF" => "Java archive data (JAR)",
                    b"AndroidManifest.xml" => "Android package (APK)",
                    b"mimetype" if has(b"opendocument.text") => "OpenDocument Text",
                    b"mimetype" if has(b"epub+zip") => "EPUB document",
                    b"[Content_Types].xml" | b"_rels/.rels" if has(b"word/") => "Microsoft Word 2007+",
                    b"[Content_Types].xml" | b"_rels/.rels" if has(b"xl/") => "Microsoft Excel 2007+",
                    b"[Content_Types].xml" | b"_rels/.rels" if has(b"ppt/") => "Microsoft PowerPoint 2007+",
                    b"[Content_Types].xml" => "Microsoft OOXML",
                    _ => "Zip archive data",
                }
                .to_owned(),
            )
        }
        [b'P', b'K', 5, 6, ..] => Some("Zip archive data (empty)".to_owned()),
        // A class file's version stands where a fat Mach-O has a small count (JVM specification, section 4.1).
        [0xca, 0xfe, 0xba, 0xbe, _, _, high, low, ..] => {
            Some(if u16::from_be_bytes([*high, *low]) < 43 { "Mach-O universal binary" } else { "compiled Java class data" }.to_owned())
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, kind @ ..] => Some(
            match kind.get(..4) {
                Some(b"WAVE") => "RIFF (little-endian) data, WAVE audio",
                Some(b"AVI ") => "RIFF (little-endian) data, AVI",
                Some(b"WEBP") => "RIFF (little-endian) data, Web/P image",
                _ => "RIFF (little-endian) data",
            }
            .to_owned(),
        ),
        [0xff, second, ..] if second & 0xe6 == 0xe2 => Some("MPEG ADTS, layer III".to_owned()),
        _ => None,
    }
}

fn script(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line.get(..line.len().min(128))?).into_owned();
    let mut words = line.split_whitespace().flat_map(|word| word.rsplit('/').next()).filter(|word| *word != "env");
    let program = words.next()?;
    let name = match program {
        "sh" => "POSIX shell script",
        "bash" => "Bourne-Again shell script",
        "perl" => "Perl script",
        "php" => "PHP script",
        "ruby" => "Ruby script",
        name if name.starts_with("python") => "Python script",
        _ => return Some(format!("a {program} script, ASCII text executable")),
    };
    Some(format!("{name}, ASCII text executable"))
}

fn text(head: &[u8]) -> &'static str {
    let head = head.get(..head.len().min(MAGIC_BYTES)).unwrap_or_default();
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return "Unicode text, UTF-16";
    }
    if head.iter().any(|byte| control(byte) || *byte == 0x7f) {
        return "data";
    }
    let trimmed = head.trim_ascii_start();
    let begins = |words: &[&[u8]]| words.iter().any(|word| trimmed.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word)));
    let ascii = head.is_ascii();
    if begins(&[b"<!doctype html", b"<html", b"<head", b"<title", b"<body"]) {
        return if ascii { "HTML document, ASCII text" } else { "HTML document" };
    }
    if begins(&[b"<?xml"]) {
        return "XML 1.0 document";
    }
    if begins(&[b"<?php"]) {
        return "PHP script, ASCII text";
    }
    // The last character may be cut.
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    match (ascii, is_utf8) {
        (true, _) if memchr::memmem::find(head, b"\r\n").is_some() => "ASCII text, with CRLF line terminators",
        (true, _) => "ASCII text",
        (false, true) => "Unicode text, UTF-8 text",
        (false, false) => "ISO-8859 text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let mut pe = vec![0; 0x200];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x80;
        pe[0x80..0x84].copy_from_slice(b"PE\0\0");
        pe[0x98..0x9a].copy_from_slice(&[0x0b, 1]);
        pe[0x98 + 68] = 2;
        for (bytes, kind) in [
            (&b""[..], "empty"),
            (b"%PDF-1.4\n%", "PDF document, version 1.4"),
            (b"\x89PNG\r\n\x1a\n....", "PNG image data"),
            (&pe, "PE32 executable (GUI) Intel 80386, for MS Windows"),
            (b"MZ\x90", "MS-DOS executable"),
            (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0", "ELF 64-bit LSB shared object"),
            (b"PK\x03\x04\x14\0", "Zip archive data"),
            (b"#!/usr/bin/env python3\n", "Python script, ASCII text executable"),
            (b"  <!DOCTYPE HTML>", "HTML document, ASCII text"),
            (b"plain\n", "ASCII text"),
            ("\u{fc}ber".as_bytes(), "Unicode text, UTF-8 text"),
            (b"\x01\x02", "data"),
            (b"\xca\xfe\xba\xbe\0\0\0\x34", "compiled Java class data"),
        ] {
            assert_eq!(magic(bytes), kind);
        }
    }

    #[test]
    fn no_beginning_is_too_short_or_too_odd() {
        for byte in 0..=255 {
            for len in 0..64 {
                magic(&vec![byte; len]);
            }
        }
        for (at, bytes, _) in TABLE {
            for len in 0..bytes.len() {
                magic(&[vec![0; *at], bytes[..len].to_vec()].concat());
            }
        }
    }
}
