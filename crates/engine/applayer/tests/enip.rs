//! EtherNet/IP through a session: identities, services of CIP.

mod play;

use bulkhead_applayer::{Dir, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

fn message(command: u8, content: &[u8]) -> Vec<u8> {
    [&[command, 0, content.len() as u8, 0][..], &[0; 20], content].concat()
}

fn data(item: &[u8]) -> Vec<u8> {
    message(0x6f, &[&[0; 6][..], &[2, 0, 0, 0, 0, 0, 0xb2, 0, item.len() as u8, 0], item].concat())
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let name = b"1756-ENBT/A";
    let identity =
        [&[1, 0, 0x0c, 0, 45, 0, 1, 0][..], &[0; 16], &[1, 0, 12, 0, 58, 0, 4, 3, 0x30, 0, 1, 2, 3, 4, name.len() as u8], name, &[3]];
    vec![
        (Dir::ToServer, message(0x63, &[])),
        (Dir::ToClient, message(0x63, &identity.concat())),
        (Dir::ToServer, data(&[0x0a, 2, 0x20, 2, 0x24, 1, 1, 0, 4, 0, 0x0e, 3, 0x20, 0x6b, 0x24, 1, 0x30, 7])),
        (Dir::ToClient, data(&[0x8a, 0, 5, 1, 9, 0])),
    ]
}

#[test]
fn identities_and_services_are_told_of() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let told = play(transport, &script(), &[]);
        assert_eq!(told.protocols, [Protocol::Enip]);
        told.expect(&[
            "0 enip.command=99",
            "0 enip.product_name 1756-ENBT/A",
            "0 enip.vendor_id=1",
            "0 enip.revision=1027",
            "0 enip.state=3",
            &format!("1 enip.cip={}", 0x0a_u64 << 32 | 1 << 41 | 2 << 16),
            &format!("1 enip.cip={}", 0x0e_u64 << 32 | 1 << 41 | 0x6b << 16 | 1 << 40 | 7),
            "1 enip.cip_attribute=7",
        ]);
        told.expect_notes(&["0 response.identity.revision=4.3", "1 request.cip.service=Multiple Service Packet"]);
    }
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("enip.bin", &framed(&script(), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..20)) {
        let (whole, cut) = (play(Transport::Tcp, &script(), &[]), play(Transport::Tcp, &script(), &cuts));
        prop_assert_eq!((whole.lines, whole.notes), (cut.lines, cut.notes));
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..80, any::<u8>()), 0..6), cut in 1_usize..127) {
        fuzz::fuzz_session(Transport::Tcp, &framed(&script(), cut, &damage));
        fuzz::fuzz_session(Transport::Udp, &framed(&script(), 127, &damage));
    }
}
