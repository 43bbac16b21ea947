//! Archives made here, and a way to look into them.
#![allow(dead_code)] // each test uses its part

use std::io::Write;

use bulkhead_scan::{Action, Budget, Compiler, Limits, Report, SignatureSet};

/// What is hidden in the archives: found by its hash, so only if every byte of it came out.
pub const SAMPLE: &[u8] =
    b"MZ this is the inert sample that the archives of these tests hold: \x00\x01\x02 0123456789 0123456789 0123456789";

pub fn set_of(files: &[(&str, &str)]) -> SignatureSet {
    let mut compiler = Compiler::default();
    for (name, text) in files {
        assert!(compiler.file(name, text.as_bytes(), Action::Block), "{name}");
    }
    let (set, summary) = compiler.finish();
    assert_eq!(summary.diagnostics, [], "{files:?}");
    set
}

/// Finds [`SAMPLE`] and nothing else.
pub fn sample_set() -> SignatureSet {
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(SAMPLE).iter().map(|byte| format!("{byte:02x}")).collect();
    set_of(&[("sample.hsb", &format!("{digest}:{}:Sample", SAMPLE.len()))])
}

pub fn scan(set: &SignatureSet, bytes: &[u8]) -> Report {
    scan_within(set, bytes, Limits::default())
}

pub fn scan_within(set: &SignatureSet, bytes: &[u8], limits: Limits) -> Report {
    set.scan("file", bytes, &mut Budget::new(limits, &|| false))
}

/// Names of what was found, in the order of the report.
pub fn names(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.name.as_str()).collect()
}

pub fn gaps(report: &Report) -> Vec<&'static str> {
    report.incomplete.iter().map(|incomplete| incomplete.gap.name()).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// One file of a zip as both records have it.
pub struct Zipped<'a> {
    pub name: &'a str,
    pub method: u16,
    pub flags: u16,
    pub packed: Vec<u8>,
    pub real: usize,
    /// Named in the central directory.
    pub listed: bool,
}

impl<'a> Zipped<'a> {
    pub fn stored(name: &'a str, bytes: &[u8]) -> Self {
        Self { name, method: 0, flags: 0, packed: bytes.to_vec(), real: bytes.len(), listed: true }
    }

    pub fn with(name: &'a str, method: u16, packed: Vec<u8>, real: usize) -> Self {
        Self { name, method, flags: 0, packed, real, listed: true }
    }
}

pub fn zip(files: &[Zipped<'_>]) -> Vec<u8> {
    let (mut out, mut central, mut listed) = (Vec::new(), Vec::new(), 0_u16);
    for file in files {
        let at = out.len() as u32;
        let mut common = Vec::new();
        common.extend([20, 0]);
        common.extend(file.flags.to_le_bytes());
        common.extend(file.method.to_le_bytes());
        common.extend([0; 8]);
        common.extend((file.packed.len() as u32).to_le_bytes());
        common.extend((file.real as u32).to_le_bytes());
        common.extend((file.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(file.name.as_bytes());
        out.extend(&file.packed);
        if file.listed {
            listed += 1;
            central.extend(b"PK\x01\x02\x14\x00");
            central.extend(&common);
            central.extend([0; 10]);
            central.extend(at.to_le_bytes());
            central.extend(file.name.as_bytes());
        }
    }
    let start = out.len() as u32;
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(listed.to_le_bytes());
    out.extend(listed.to_le_bytes());
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// `newc`
pub fn cpio(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |name: &str, mode: u32, bytes: &[u8]| {
        let fields = [1, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        out.extend(b"070701");
        for field in fields {
            out.extend(format!("{field:08x}").bytes());
        }
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    for (name, bytes) in entries {
        put(name, 0o100_644, bytes);
    }
    put("TRAILER!!!", 0, b"");
    out
}

pub fn ar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in entries {
        out.extend(format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", format!("{name}/"), 0, 0, 0, 644, bytes.len()).bytes());
        out.extend(*bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

pub fn rpm(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 96];
    out[..4].copy_from_slice(&[0xed, 0xab, 0xee, 0xdb]);
    for size in [12_u32, 5] {
        out.extend([0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend(size.to_be_bytes());
        out.resize(out.len() + 16 + size as usize, 0);
        if size == 12 {
            out.resize(out.len().next_multiple_of(8), 0);
        }
    }
    out.extend(payload);
    out
}

/// One file in one directory below the root.
pub fn iso(bytes: &[u8]) -> Vec<u8> {
    let record = |name: &[u8], sector: u32, len: u32, flags: u8| {
        let mut out = vec![0; 33];
        out[2..6].copy_from_slice(&sector.to_le_bytes());
        out[10..14].copy_from_slice(&len.to_le_bytes());
        out[25] = flags;
        out[32] = name.len() as u8;
        out.extend(name);
        out.resize(out.len().next_multiple_of(2), 0);
        out[0] = out.len() as u8;
        out
    };
    let mut out = vec![0; 2048 * 20];
    out[0x8000] = 1;
    out[0x8001..0x8006].copy_from_slice(b"CD001");
    let mut put = |at: usize, records: &[Vec<u8>]| {
        let joined = records.concat();
        out[at..at + joined.len()].copy_from_slice(&joined);
    };
    put(0x8000 + 156, &[record(&[0], 18, 2048, 2)]);
    put(18 * 2048, &[record(&[0], 18, 2048, 2), record(&[1], 18, 2048, 2), record(b"DIR", 19, 2048, 2)]);
    put(19 * 2048, &[record(&[0], 19, 2048, 2), record(&[1], 18, 2048, 2), record(b"SAMPLE.EXE;1", 20, bytes.len() as u32, 0)]);
    out.extend(bytes);
    out
}

pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let joined = group.iter().chain(&[0, 0]).take(3).fold(0_u32, |joined, byte| joined << 8 | u32::from(*byte));
        for at in 0..4 {
            let letter = char::from(LETTERS[(joined >> (18 - 6 * at)) as usize & 63]);
            out.push(if at <= group.len() { letter } else { '=' });
        }
    }
    out
}
