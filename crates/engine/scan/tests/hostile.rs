//! The fuzz bodies over archives and signatures that were damaged by a seed.

mod kit;

use bulkhead_scan::fuzz::{fuzz_signatures, fuzz_unpack};
use kit::{SAMPLE, Zipped, ar, bzip2, cpio, deflate, gzip, iso, rpm, sample_set, tar, zip};
use proptest::prelude::*;

/// One of each format.
fn archives() -> Vec<Vec<u8>> {
    vec![
        zip(&[Zipped::with("a", 8, deflate(SAMPLE), SAMPLE.len()), Zipped::stored("b", SAMPLE)]),
        gzip(&tar(&[("a", SAMPLE), ("b", b"x")])),
        tar(&[("a", SAMPLE), ("b", b"x")]),
        bzip2(SAMPLE),
        cpio(&[("a", SAMPLE)]),
        ar(&[("a", SAMPLE)]),
        rpm(&gzip(&cpio(&[("a", SAMPLE)]))),
        iso(SAMPLE),
        b"%PDF-1.4\n<< /Filter [/ASCII85Decode /FlateDecode] >>\nstream\nGhQw~>\nendstream".to_vec(),
        b"{\\rtf1 {\\object\\objdata 0105000002000000080000005061636b61676500}}".to_vec(),
        b"From: a@b\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\nQUJD\n--x--\n".to_vec(),
        b"begin 644 a\n#86)C\n`\nend\n".to_vec(),
        b"(This file must be converted with BinHex 4.0)\n:#'0XB@dZCAKP!%9B43\"$E'&Y!!!!:".to_vec(),
        b"SZDD\x88\xf0\x27\x33A\0\x10\0\0\0\xffabcdefgh\x00\x00\x00".to_vec(),
        b"x\x9f>\"\x01\x00\x02\x0f\x80\x06\x00\x03\x00\x00\x00abc\x26\x01".to_vec(),
        b"7z\xbc\xaf\x27\x1c\x00\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec(),
        b"MSCF\0\0\0\0\x40\0\0\0\0\0\0\0\x2c\0\0\0\0\0\0\0\x03\x01\x01\0\x01\0\0\0\0\0\0\0".to_vec(),
        b"\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00abc".to_vec(),
        b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0".to_vec(),
    ]
}

const SIGNATURES: [&str; 8] = [
    "rule a { strings: $a = { 61 [1-3] 62 } $b = /x+y/ condition: any of them }",
    "d41d8cd98f00b204e9800998ecf8427e:10:Name",
    "10:d41d8cd98f00b204e9800998ecf8427e:Name",
    "Name:0:EP+1,5:61??{1-2}(62|63)*64",
    "Name;Engine:51-255,Target:0;(0|1)>1,2&2=0;616161;0:626262::i;0/a+b/i",
    r"Name:CL_TYPE_ZIP:*:\.exe$:1-2:*:1:1:*:*",
    "Name.One",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 name",
];

#[test]
fn damaged_archives_keep_the_limits() {
    let set = sample_set();
    for archive in archives() {
        for at in (0..archive.len()).step_by(1 + archive.len() / 200) {
            fuzz_unpack(&set, &archive[..at]);
            for change in [1, 0x20, 0x80, 0xff] {
                let mut damaged = archive.clone();
                damaged[at] ^= change;
                fuzz_unpack(&set, &damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn archives_glued_together_keep_the_limits(picks in prop::collection::vec((0_usize..19, 0_usize..4000, 0_usize..4000), 1..6)) {
        let archives = archives();
        let bytes: Vec<u8> = picks.iter().flat_map(|(pick, from, len)| {
            let archive = &archives[pick % archives.len()];
            let from = from % archive.len();
            archive[from..(from + len).min(archive.len())].to_vec()
        }).collect();
        fuzz_unpack(&sample_set(), &bytes);
    }

    #[test]
    fn damaged_signatures_are_refused_or_loaded(pick in 0_usize..8, format in any::<u8>(), at in 0_usize..80, byte in any::<u8>()) {
        let mut bytes = SIGNATURES[pick].as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.insert(0, format);
        fuzz_signatures(&bytes);
    }
}
