//! What is in archives is found, whatever they are made of and whatever they claim.

mod kit;

use std::io::Write;

use bulkhead_scan::Limits;
use kit::{SAMPLE, Zipped, ar, base64, bzip2, cpio, deflate, gaps, gzip, iso, names, rpm, sample_set, scan, scan_within, tar, zip};

#[test]
fn the_sample_is_found_in_every_format_with_the_way_to_it() {
    let hex: String = SAMPLE.iter().map(|byte| format!("{byte:02X}")).collect();
    let mut ole = cfb::CompoundFile::create(std::io::Cursor::new(Vec::new())).unwrap();
    ole.create_stream("/Sample").unwrap().write_all(SAMPLE).unwrap();
    let mut cabinet = cab::CabinetBuilder::new();
    cabinet.add_folder(cab::CompressionType::MsZip).add_file("sample.exe");
    let mut cabinet = cabinet.build(std::io::Cursor::new(Vec::new())).unwrap();
    cabinet.next_file().unwrap().unwrap().write_all(SAMPLE).unwrap();
    let mail = format!(
        "From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n\
         Content-Type: application/octet-stream; name=\"sample.exe\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--x--\r\n",
        base64(SAMPLE)
    );
    let mut pdf = b"%PDF-1.4\n1 0 obj\n<< /Filter /FlateDecode >>\nstream\n".to_vec();
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(SAMPLE).unwrap();
    pdf.extend(packer.finish().unwrap());
    pdf.extend(b"\nendstream\nendobj\n");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("as it is", SAMPLE.to_vec(), &[]),
        ("gzip", gzip(SAMPLE), &[""]),
        ("bzip2", bzip2(SAMPLE), &[""]),
        ("tar", tar(&[("a/readme", b"x"), ("a/sample.exe", SAMPLE)]), &["a/sample.exe"]),
        ("tar in gzip", gzip(&tar(&[("sample.exe", SAMPLE)])), &["sample.exe"]),
        ("tar in bzip2", bzip2(&tar(&[("sample.exe", SAMPLE)])), &["sample.exe"]),
        ("zip, stored", zip(&[Zipped::stored("sample.exe", SAMPLE)]), &["sample.exe"]),
        ("zip, deflated", zip(&[Zipped::with("sample.exe", 8, deflate(SAMPLE), SAMPLE.len())]), &["sample.exe"]),
        ("zip, bzip2", zip(&[Zipped::with("sample.exe", 12, bzip2(SAMPLE), SAMPLE.len())]), &["sample.exe"]),
        ("cpio", cpio(&[("readme", b"x"), ("sample.exe", SAMPLE)]), &["sample.exe"]),
        ("ar", ar(&[("odd", b"x"), ("sample.exe", SAMPLE)]), &["sample.exe"]),
        (
            "deb",
            ar(&[("debian-binary", b"2.0\n"), ("data.tar.gz", &gzip(&tar(&[("./usr/bin/x", SAMPLE)])))]),
            &["data.tar.gz", "usr/bin/x"],
        ),
        ("rpm", rpm(&gzip(&cpio(&[("./usr/bin/x", SAMPLE)]))), &["payload", "./usr/bin/x"]),
        ("iso", iso(SAMPLE), &["DIR/SAMPLE.EXE"]),
        ("ole", ole.into_inner().into_inner(), &["Sample"]),
        ("cabinet", cabinet.finish().unwrap().into_inner(), &["sample.exe"]),
        ("mail", mail.into_bytes(), &["sample.exe"]),
        ("pdf", pdf, &["stream@51"]),
        ("rtf", format!("{{\\rtf1 {{\\object\\objdata {hex}}}}}").into_bytes(), &["object@15"]),
        ("zip behind a picture", [b"GIF89a picture".to_vec(), zip(&[Zipped::stored("x", SAMPLE)])].concat(), &["x"]),
        ("zip behind a script", [b"#!/bin/sh\nexit\n".to_vec(), zip(&[Zipped::stored("x", SAMPLE)])].concat(), &["x"]),
        ("cabinet behind a program", [b"MZ a program".to_vec(), zip(&[Zipped::stored("x", SAMPLE)])].concat(), &["x"]),
    ];
    let set = sample_set();
    for (what, bytes, way) in cases {
        let report = scan(&set, &bytes);
        assert_eq!(names(&report), ["Sample"], "{what}: {:?}", report.incomplete);
        assert_eq!(report.findings[0].place, way, "{what}");
        assert_eq!(gaps(&report), [""; 0], "{what}");
    }
}

#[test]
fn a_zip_cannot_hide_a_file_from_either_of_its_records() {
    let set = sample_set();
    let unlisted = Zipped { listed: false, ..Zipped::stored("hidden.exe", SAMPLE) };
    let report = scan(&set, &zip(&[Zipped::stored("readme", b"x"), unlisted]));
    assert_eq!((names(&report), report.findings[0].place.as_slice()), (vec!["Sample"], &["hidden.exe".to_owned()][..]));

    let mut endless = zip(&[Zipped::stored("sample.exe", SAMPLE)]);
    endless.truncate(endless.len() - 30);
    let report = scan(&set, &endless);
    assert_eq!((names(&report), gaps(&report)), (vec!["Sample"], vec!["malformed"]));
}

#[test]
fn a_program_that_knows_archives_is_not_taken_for_one() {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    for words in [&b"PK\x03\x04 local entry"[..], b"Rar!\x1a\x07 is rar", b"7z\xbc\xaf\x27\x1c is 7z", b"MSCF\0\0\0\0 cab"] {
        program.extend_from_slice(words);
    }
    program.extend(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 ole PK\x05\x06 end of the central directory, which is none");
    program.resize(4096, 0);
    let report = scan(&sample_set(), &program);
    assert_eq!((gaps(&report), report.objects), (vec![], 1));
}

#[test]
fn encrypted_and_unknown_entries_are_reported_and_the_rest_is_read() {
    let set = sample_set();
    let locked = Zipped { flags: 1, ..Zipped::stored("locked", b"????????????") };
    let report = scan(&set, &zip(&[locked, Zipped::with("odd", 77, vec![1], 1), Zipped::stored("sample.exe", SAMPLE)]));
    assert_eq!(gaps(&report), ["encrypted", "unsupported"]);
    assert_eq!(report.incomplete[0].place, ["locked"]);
    assert_eq!(names(&report), ["Sample"]);
}

#[test]
fn bombs_end_at_the_limit_they_meet() {
    let set = sample_set();
    let zeros = vec![0; 4 << 20];
    let report = scan(&set, &gzip(&zeros));
    assert_eq!(gaps(&report), ["bomb"]);

    // Each is small; together they are not.
    let files: Vec<(String, Vec<u8>)> = (0..64_u8).map(|at| (format!("{at}"), vec![at; 64 * 1024])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let packed = gzip(&tar(&files));
    assert_eq!(gaps(&scan_within(&set, &packed, Limits { total_bytes_max: 1 << 20, ..Limits::default() })), ["total-bytes"]);
    assert_eq!(gaps(&scan_within(&set, &packed, Limits { entries_max: 10, ..Limits::default() })), ["entries"]);
    let report = scan_within(&set, &packed, Limits { entry_bytes_max: 1024, ..Limits::default() });
    assert_eq!(gaps(&report), vec!["entry-bytes"; 64]);

    let mut nested = SAMPLE.to_vec();
    for _ in 0..12 {
        nested = tar(&[("inner", &nested)]);
    }
    let report = scan(&set, &nested);
    assert_eq!((names(&report), gaps(&report)), (vec![], vec!["depth"]));
    assert_eq!(names(&scan_within(&set, &nested, Limits { depth_max: 12, ..Limits::default() })), ["Sample"]);
}

#[test]
fn runs_of_binhex_are_no_way_to_fill_memory() {
    // Sixteen letters are twelve bytes: one that is repeated six times, 254 bytes each.
    let mut text = b"(This file must be converted with BinHex 4.0)\n:".to_vec();
    let letters = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
    for group in [0x90_u8, 0xff, 0x90, 0xff, 0x90, 0xff].repeat(60_000).chunks(3) {
        let joined = group.iter().fold(0_u32, |joined, byte| joined << 8 | u32::from(*byte));
        text.extend((0..4).map(|at| letters[(joined >> (18 - 6 * at)) as usize & 63]));
    }
    text.push(b':');
    assert_eq!(gaps(&scan(&sample_set(), &text)), [""; 0], "45 MB are no bomb yet, and hold no file");
    let body = text[47..text.len() - 1].to_vec();
    text.pop();
    text.extend(body);
    assert_eq!(gaps(&scan(&sample_set(), &text)), ["bomb"]);
}

#[test]
fn a_scan_that_is_out_of_time_says_so() {
    let set = sample_set();
    let asked = std::cell::Cell::new(0);
    let expired = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let bytes = tar(&[("a", b"x"), ("b", b"x"), ("c", SAMPLE)]);
    let report = set.scan("file", &bytes, &mut bulkhead_scan::Budget::new(Limits::default(), &expired));
    assert!(names(&report).is_empty());
    assert!(gaps(&report).contains(&"time"));
}

#[test]
fn what_is_larger_than_memory_may_hold_is_read_as_it_comes() {
    let set = sample_set();
    let filler: Vec<u8> = (0..10_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let limits = Limits { entry_bytes_max: 1 << 20, ..Limits::default() };
    let read = |bytes: &[u8]| set.scan_reader("file", &mut &*bytes, &mut bulkhead_scan::Budget::new(limits, &|| false)).unwrap();

    // A layer in an image: neither fits.
    let layer = tar(&[("filler", &filler), ("usr/bin/sample.exe", SAMPLE)]);
    let report = read(&tar(&[("manifest.json", b"[]"), ("layer.tar", &layer), ("layer.tar.gz", &gzip(&layer))]));
    let ways: Vec<String> = report.findings.iter().map(|finding| finding.place.join("!")).collect();
    assert_eq!(ways, ["layer.tar!usr/bin/sample.exe", "layer.tar.gz!usr/bin/sample.exe"]);
    assert!(report.windowed);

    // What lies across the border of two windows is found, once.
    let rules = kit::set_of(&[("a.ndb", "T:0:*:7468652073616d706c65")]);
    let mut bytes = filler.clone();
    bytes[(1 << 20) - 5..(1 << 20) + 5].copy_from_slice(b"the sample");
    let report = rules.scan_reader("file", &mut bytes.as_slice(), &mut bulkhead_scan::Budget::new(limits, &|| false)).unwrap();
    assert_eq!(names(&report), ["T"]);
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(report.sha256, digest, "the hash is of all of it");
}

/// `clamav-testfiles` of Debian: the sample of that project in 44 wrappings. Those that are not found are PE packers and formats named here.
#[test]
fn the_test_files_of_clamav_are_found_but_for_those_listed() {
    const NOT_FOUND: [&str; 20] = [
        // Packed programs: their unpackers are left to `clamd`.
        "clam-aspack.exe",
        "clam-fsg.exe",
        "clam-mew.exe",
        "clam-nsis.exe",
        "clam-pespin.exe",
        "clam-petite.exe",
        "clam-upack.exe",
        "clam-upx.exe",
        "clam-wwpack.exe",
        "clam-yc.exe",
        "clam.ea05.exe",
        "clam.ea06.exe",
        // InstallShield's own archives.
        "clam_IScab_ext.exe",
        "clam_IScab_int.exe",
        "clam_ISmsi_ext.exe",
        "clam_ISmsi_int.exe",
        // Formats that are not unpacked; the imploded zip says so.
        "clam.arj",
        "clam.chm",
        "clam.impl.zip",
        "clam.sis",
    ];
    let folder = std::path::Path::new("/usr/share/clamav-testfiles");
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("NOT RUN: the_test_files_of_clamav_are_found_but_for_those_listed: Debian's package clamav-testfiles is absent");
        return;
    };
    // Hash and size of `clam.exe`, as ClamAV's own database of tests has them.
    let set = kit::set_of(&[("clamav.hsb", "71e7b604d18aefd839e51a39c88df8383bb4c071dc31f87f00a2b5df580d4495:544:ClamAV-Test-File")]);
    let mut missed = Vec::new();
    let mut files = 0;
    for entry in entries.flatten() {
        files += 1;
        if scan(&set, &std::fs::read(entry.path()).unwrap()).findings.is_empty() {
            missed.push(entry.file_name().into_string().unwrap());
        }
    }
    missed.sort();
    let mut expected: Vec<&str> = NOT_FOUND.to_vec();
    expected.sort_unstable();
    assert_eq!(missed, expected, "of {files} files");
    assert!(files >= 44, "{files}");
}
