//! Signatures of all kinds: what they say is what they find, and what cannot be loaded is told of.

mod kit;

use bulkhead_scan::{Action, Compiler, Found};
use kit::{Zipped, names, scan, set_of, zip};

#[test]
fn body_signatures_find_what_they_describe_and_nothing_else() {
    let hello = "68656c6c6f"; // hello
    let cases: &[(&str, &[u8], &[u8])] = &[
        (&format!("T:0:*:{hello}"), b"say hello", b"say hell"),
        ("T:0:*:68??6c6c6f", b"hallo", b"hllo"),
        ("T:0:*:6865*776f", b"he said: wo", b"wo, he said"),
        ("T:0:*:6865{2}776f", b"he--wo", b"he-wo"),
        ("T:0:*:6865{1-3}776f", b"he---wo", b"he----wo"),
        ("T:0:*:6865{-2}776f", b"hewo", b"he---wo"),
        ("T:0:*:6865{2-}776f", b"he-----wo", b"he-wo"),
        ("T:0:*:68(65|61)6c6c6f", b"hallo", b"hollo"),
        ("T:0:*:68!(65)6c6c6f", b"hallo", b"hello"),
        ("T:0:*:6?656c6c6f", b"jello", b"zello"),
        (&format!("T:0:0:{hello}"), b"hello", b" hello"),
        (&format!("T:0:4,2:{hello}"), b"12345hello", b"1234567hello"),
        (&format!("T:0:EOF-5:{hello}"), b"123hello", b"hello123"),
        (&format!("T:6:*:{hello}"), b"\x7fELF hello", b"hello"),
        // Text is compared in small letters with blanks joined.
        ("T:7:*:68656c6c6f20776f726c64", b"HELLO \n\t World", b"helloworld"),
    ];
    for (signature, hit, miss) in cases {
        let set = set_of(&[("t.ndb", signature)]);
        assert_eq!(names(&scan(&set, hit)), ["T"], "{signature}");
        assert_eq!(names(&scan(&set, miss)), [""; 0], "{signature}");
    }
}

#[test]
fn logical_signatures_join_patterns() {
    let (a, b, c) = ("616161", "626262", "636363");
    let cases: &[(String, &[u8], &[u8])] = &[
        (format!("T;Target:0;0&1;{a};{b}"), b"aaa bbb", b"aaa"),
        (format!("T;Target:0;(0|1)&2;{a};{b};{c}"), b"bbb ccc", b"aaa bbb"),
        (format!("T;Target:0;0=2;{a}"), b"aaa aaa", b"aaa aaa aaa"),
        (format!("T;Target:0;0>1;{a}"), b"aaa aaa", b"aaa"),
        (format!("T;Target:0;0&1=0;{a};{b}"), b"aaa", b"aaa bbb"),
        (format!("T;Target:0;(0|1|2)>1,2;{a};{b};{c}"), b"aaa ccc", b"aaa aaa"),
        (format!("T;Engine:51-255,Target:0,FileSize:1-9;0;{a}"), b"aaa", b"aaa and more"),
        ("T;Target:0;0;414141::i".to_owned(), b"aaa", b"aab"),
        ("T;Target:0;0;616263::w".to_owned(), b"a\0b\0c\0", b"abc"),
        ("T;Target:0;0;616263::f".to_owned(), b"an abc.", b"an abcd"),
        (format!("T;Target:0;0&1;{a};0/b+c{{2}}x/i"), b"aaa BBccX", b"bbccx"),
        (format!("T;Target:0;0;EOF-3:{a}"), b"xaaa", b"aaax"),
    ];
    for (signature, hit, miss) in cases {
        let set = set_of(&[("t.ldb", signature)]);
        assert_eq!(names(&scan(&set, hit)), ["T"], "{signature}");
        assert_eq!(names(&scan(&set, miss)), [""; 0], "{signature}");
    }
}

#[test]
fn hashes_of_every_kind_and_size_are_found_and_allowed_ones_are_not() {
    // Of the eight bytes `nothing\n`.
    let md5 = "0bd45d0dd7b1ed9f2ee25d0b2c11a0a0";
    let content = b"nothing\n";
    let digest =
        |bytes: &[u8]| -> String { <sha2::Sha256 as sha2::Digest>::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect() };
    let sha256 = digest(content);
    for (name, text) in [("a.hsb", format!("{sha256}:8:T")), ("b.hsb", format!("{sha256}:*:T:73")), ("c.sha256", format!("{sha256}  T"))] {
        let set = set_of(&[(name, &text)]);
        let report = scan(&set, content);
        assert_eq!(names(&report), ["T"], "{name}");
        assert_eq!((report.findings[0].found, report.findings[0].action), (Found::Hash, Action::Block));
        assert_eq!(names(&scan(&set, b"nothing!")), [""; 0], "{name}");
    }
    // The size is part of a signature.
    assert_eq!(names(&scan(&set_of(&[("a.hsb", &format!("{sha256}:9:T"))]), content)), [""; 0]);
    let set = set_of(&[("a.hsb", &format!("{sha256}:8:T")), ("a.hdb", &format!("{md5}:99:U")), ("a.sfp", &format!("{sha256}:8:good"))]);
    assert_eq!(names(&scan(&set, content)), [""; 0]);
}

#[test]
fn sections_of_programs_are_found_by_hash() {
    let mut program = vec![0; 512];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 0x40;
    program[0x40..0x44].copy_from_slice(b"PE\0\0");
    program[0x46] = 1; // one section
    program[0x40 + 24 + 16] = 16; // its raw size
    program[0x40 + 24 + 20..0x40 + 24 + 22].copy_from_slice(&256_u16.to_le_bytes()); // its place
    program[256..272].copy_from_slice(b"0123456789abcdef");
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(b"0123456789abcdef").iter().map(|byte| format!("{byte:02x}")).collect();
    let report = scan(&set_of(&[("a.msb", &format!("16:{digest}:T"))]), &program);
    assert_eq!((names(&report), report.findings[0].found), (vec!["T"], Found::Section));
    program[256] = b'x';
    assert_eq!(names(&scan(&set_of(&[("a.msb", &format!("16:{digest}:T"))]), &program)), [""; 0]);
}

#[test]
fn container_signatures_go_by_what_the_archive_says() {
    let set = set_of(&[("a.cdb", r"T:CL_TYPE_ZIP:*:\.(exe|scr)$:*:1-100:1:2:*:*")]);
    let locked = |name| Zipped { flags: 1, ..Zipped::stored(name, b"????????????") };
    let report = scan(&set, &zip(&[Zipped::stored("readme", b"x"), locked("invoice.exe")]));
    assert_eq!((names(&report), report.findings[0].found), (vec!["T"], Found::Container));
    assert_eq!(names(&scan(&set, &zip(&[locked("invoice.exe")]))), [""; 0], "it is the first");
    assert_eq!(names(&scan(&set, &zip(&[Zipped::stored("readme", b"x"), locked("invoice.pdf")]))), [""; 0]);
    assert_eq!(names(&scan(&set, &zip(&[Zipped::stored("readme", b"x"), Zipped::stored("invoice.exe", b"x")]))), [""; 0]);
}

#[test]
fn what_is_ignored_is_taken_out() {
    let mut compiler = Compiler::default();
    compiler.file("a.ndb", b"Bad.One:0:*:616161\nBad.Two:0:*:626262\n", Action::Block);
    compiler.file("local.ign2", b"Bad.One\n", Action::Block);
    let (set, summary) = compiler.finish();
    assert_eq!(summary.ignored, 1);
    assert_eq!(names(&scan(&set, b"aaa bbb")), ["Bad.Two"]);
}

#[test]
fn what_is_not_built_is_counted_by_name_and_what_is_wrong_has_its_line() {
    let mut compiler = Compiler::default();
    compiler.file("a.pdb", b"R:one\nR:two\n", Action::Block);
    compiler.file("a.cbc", b"ClamBCaf\nlines of\nbytecode\n", Action::Block);
    compiler.file(
        "a.ndb",
        b"# a comment\nOk:0:*:616161\nHalf:0:*:61616\nNo:99:*:616161\nOld:0:*:616161:1:90\nWord:0:*:61(B)61\n",
        Action::Block,
    );
    compiler.file("a.ldb", b"Icon;Target:1,IconGroup1:x;0;616161\nNone;Target:0;3;616161\n", Action::Block);
    compiler.file("a.sha256", b"abc\n", Action::Block);
    let (set, summary) = compiler.finish();
    let unsupported: Vec<(&str, usize)> = summary.unsupported.iter().map(|(what, count)| (what.as_str(), *count)).collect();
    assert_eq!(
        unsupported,
        [("another version of the engine", 1), ("boundaries of words and lines", 1), ("bytecode", 1), ("icons", 1), ("phishing", 2)]
    );
    let wrong: Vec<(&str, usize)> = summary.diagnostics.iter().filter(|one| one.wrong).map(|one| (one.source.as_str(), one.line)).collect();
    assert_eq!(wrong, [("a.ndb", 3), ("a.ndb", 4), ("a.ldb", 2), ("a.sha256", 1)]);
    assert_eq!(names(&scan(&set, b"aaa")), ["Ok"], "the rest is loaded");
}

#[test]
fn one_broken_yara_rule_does_not_take_its_neighbours_with_it() {
    let text = r#"
import "pe"
import "nosuch"

rule first { strings: $a = "alpha" condition: $a }

/* rule inside a comment */
private rule helper { condition: filesize > 3 }
rule second : tag { strings: $a = "beta" condition: helper and $a }
rule broken { strings: $a = "gamma" condition: $b }
rule other { condition: nosuch.thing == 1 }
rule last { strings: $a = /del+ta/ condition: $a and not pe.is_pe }
"#;
    let mut compiler = Compiler::default();
    compiler.yara("set.yar", text, Action::Alert);
    let (set, summary) = compiler.finish();
    assert_eq!(summary.loaded["yara"], 4);
    assert_eq!((summary.wrong, summary.unsupported_total()), (1, 1), "{:?}", summary.diagnostics);
    let lines: Vec<(usize, &str)> = summary.diagnostics.iter().map(|one| (one.line, one.name.as_str())).collect();
    assert_eq!(lines, [(10, "broken"), (11, "other")]);
    assert_eq!(names(&scan(&set, b"alpha beta gamma dellllta")), ["first", "second", "last"]);

    // A file that cannot be parsed is cut at its rules.
    let mut compiler = Compiler::default();
    compiler.yara(
        "set.yar",
        "rule good { strings: $a = \"alpha\" condition: $a }\nrule bad {{{\nrule fine { strings: $a = \"beta\" condition: $a }\n",
        Action::Alert,
    );
    let (set, summary) = compiler.finish();
    assert_eq!((summary.loaded["yara"], summary.wrong), (2, 1));
    assert_eq!(names(&scan(&set, b"alpha beta")), ["good", "fine"]);
}

#[test]
fn findings_show_rule_file_and_bytes_and_the_gravest_come_first() {
    let mut compiler = Compiler::default();
    compiler.yara("notes.yar", "rule noted { strings: $a = \"alpha\" condition: $a }", Action::Alert);
    compiler.yara("blocks.yar", "rule blocked { strings: $x = \"beta\" condition: $x at 6 }", Action::Block);
    let (set, _) = compiler.finish();
    let report = scan(&set, b"alpha beta");
    assert_eq!(names(&report), ["blocked", "noted"]);
    let first = &report.findings[0];
    assert_eq!((first.source.as_str(), first.action, first.found), ("blocks.yar", Action::Block, Found::Yara));
    assert_eq!((first.matched[0].pattern.as_str(), first.matched[0].offset, first.matched[0].bytes.as_slice()), ("x", 6, &b"beta"[..]));
    assert!(report.blocks());
}

/// The sets that others publish, as they are: read in place.
#[test]
fn community_rules_compile_but_for_few() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data");
    if !root.join("yara").is_dir() {
        println!("NOT RUN: community_rules_compile_but_for_few (../shared/data/yara is absent)");
        return;
    }
    let mut folders = vec![root.join("yara")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "yar" || extension == "yara") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let mut compiler = Compiler::default();
    for file in &files {
        compiler.file(&file.strip_prefix(&root).unwrap().to_string_lossy(), &std::fs::read(file).unwrap(), Action::Alert);
    }
    let (_, summary) = compiler.finish();
    let refused = summary.wrong + summary.unsupported_total();
    println!("{} files, {} rules loaded, {} wrong, {:?}", files.len(), summary.loaded["yara"], summary.wrong, summary.unsupported);
    let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
    for one in &summary.diagnostics {
        *reasons.entry(&one.message).or_default() += 1;
    }
    for (reason, count) in reasons {
        println!("{count} {reason}");
    }
    assert!(refused * 100 <= summary.loaded["yara"], "{refused} of {} are not loaded", summary.loaded["yara"]);
}

#[test]
fn published_signatures_of_clamav_load_and_find_their_own_patterns() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/clamav-format");
    let Ok(text) = std::fs::read_to_string(folder.join("rfxn.ndb")) else {
        println!("NOT RUN: published_signatures_of_clamav_load_and_find_their_own_patterns (../shared/data/clamav-format is absent)");
        return;
    };
    let set = set_of(&[("rfxn.ndb", &text), ("rfxn.hdb", &std::fs::read_to_string(folder.join("rfxn.hdb")).unwrap())]);
    let mut checked = 0;
    for line in text.lines().step_by(40) {
        let fields: Vec<&str> = line.split(':').collect();
        if fields.len() < 4 || !fields[3].bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let bytes: Vec<u8> =
            fields[3].as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let report = scan(&set, &[b"before ".as_slice(), &bytes, b" after"].concat());
        assert!(names(&report).contains(&fields[0]), "{}", fields[0]);
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}
