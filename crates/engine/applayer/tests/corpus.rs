//! The fuzz body over its corpus, and over what damage makes of it: cut short, a byte changed, pieces left out.

use std::path::Path;

use bulkhead_applayer::{Transport, fuzz};

#[test]
fn the_corpus_and_damaged_forms_of_it_keep_all_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the corpus").flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() >= 10);
    for file in files {
        let bytes = std::fs::read(&file).expect("a file of the corpus");
        for transport in [Transport::Tcp, Transport::Udp] {
            fuzz::fuzz_session(transport, &bytes);
            for at in 0..bytes.len() {
                fuzz::fuzz_session(transport, &bytes[..at]);
                for change in [0x01, 0x20, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= change;
                    fuzz::fuzz_session(transport, &damaged);
                }
                let mut shorter = bytes.clone();
                shorter.drain(at..(at + 5).min(bytes.len()));
                fuzz::fuzz_session(transport, &shorter);
            }
        }
    }
}
