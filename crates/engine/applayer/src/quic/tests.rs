//! First packets as their senders make them: the keys are those of the standards, so only what knows them can seal.

#[path = "../../tests/play/mod.rs"]
mod play;

use crate::names::{Dir, Protocol};
use crate::session::Transport;

use super::keys::Keys;
use play::{Told, assert_corpus, framed};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;
const CHOSEN: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];

fn client_hello(name: &str) -> Vec<u8> {
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes(), &(content.len() as u16).to_be_bytes(), content].concat();
    let name = [&[0, 0, name.len() as u8][..], name.as_bytes()].concat();
    let extensions = [
        extension(0, &[&[0, name.len() as u8], &name[..]].concat()),
        extension(16, &[0, 3, 2, b'h', b'3']),
        extension(43, &[2, 3, 4]),
        extension(57, &[]),
    ]
    .concat();
    let hello = [&[3, 3], &[7; 32][..], &[0, 0, 2, 0x13, 1, 1, 0], &(extensions.len() as u16).to_be_bytes(), &extensions].concat();
    [&[1, 0, 0, hello.len() as u8], &hello[..]].concat()
}

fn server_hello() -> Vec<u8> {
    let hello = [&[3, 3], &[9; 32][..], &[0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]].concat();
    [&[2, 0, 0, hello.len() as u8], &hello[..]].concat()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6, 0x40 | (offset >> 8) as u8, offset as u8, 0x40 | (data.len() >> 8) as u8, data.len() as u8], data].concat()
}

/// `keyed`: what the client has chosen first. `to`: whom the packet names.
fn initial(dir: Dir, version: u32, keyed: &[u8], to: &[u8], number: u8, frames: &[u8]) -> Vec<u8> {
    let mut frames = frames.to_vec();
    frames.resize(frames.len().max(40), 0);
    let first = if version == super::VERSION_2 { 0xd0 } else { 0xc0 };
    let len = 1 + frames.len() + 16;
    let header = [
        &[first],
        &version.to_be_bytes()[..],
        &[to.len() as u8],
        to,
        // No source, no token.
        &[0, 0, 0x40 | (len >> 8) as u8, len as u8, number],
    ]
    .concat();
    Keys::new(version, keyed).expect("a known version").seal(dir, &header, &frames)
}

fn play(script: &[(Dir, Vec<u8>)]) -> Told {
    play::play(Transport::Udp, script, &[])
}

#[test]
fn a_hello_in_one_packet_is_read_in_each_version() {
    for (version, name) in [(1, "1"), (super::VERSION_2, "6b3343cf"), (0xff00_001d, "ff00001d")] {
        let told = play(&[
            (CLIENT, initial(CLIENT, version, CHOSEN, CHOSEN, 0, &crypto(0, &client_hello("a.test")))),
            (SERVER, initial(SERVER, version, CHOSEN, &[], 0, &[&[2, 0, 0, 0, 0], &crypto(0, &server_hello())[..]].concat())),
        ]);
        assert_eq!(told.protocols, [Protocol::Quic]);
        told.expect(&[
            "0 quic.sni a.test",
            "0 ja3.string 771,4865,0-16-43-57,,",
            "1 ja3s.string 771,4865,43",
            "0 ja4.hash q13d0104h3_0f2cb44170f4_42b93f5a9bf8",
        ]);
        told.expect_notes(&[
            &format!("0 version={name}"),
            "0 sni=a.test",
            "0 extensions[0].values[0]=a.test",
            "0 extensions[1].name=alpn",
            "0 extensions[1].values[0]=h3",
            "1 extensions[0].name=supported_versions",
        ]);
        assert!(told.events().is_empty() && told.finished.is_none());
    }
}

fn in_pieces(order: &[usize]) -> Vec<(Dir, Vec<u8>)> {
    let hello = client_hello("pieces.test");
    let pieces: Vec<Vec<u8>> = hello.chunks(20).enumerate().map(|(index, piece)| crypto(20 * index, piece)).collect();
    let packet = |(number, index): (usize, &usize)| initial(CLIENT, 1, CHOSEN, CHOSEN, number as u8, &pieces[*index % pieces.len()]);
    order.iter().enumerate().map(packet).map(|bytes| (CLIENT, bytes)).collect()
}

#[test]
fn pieces_are_put_together_in_any_order() {
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 0, 1, 4]] {
        let mut script = in_pieces(&order);
        script.extend(in_pieces(&[3]));
        let told = play(&script);
        assert!(told.lines.iter().any(|line| line.ends_with(" quic.sni pieces.test")), "{order:?} {:#?}", told.lines);
        assert!(told.events().is_empty());
    }
}

#[test]
fn packets_after_the_hello_are_no_transactions_but_a_new_client_is_seen() {
    let hello = |chosen: &[u8], name| (CLIENT, initial(CLIENT, 1, chosen, chosen, 0, &crypto(0, &client_hello(name))));
    let told = play(&[
        hello(CHOSEN, "first.test"),
        (CLIENT, initial(CLIENT, 1, CHOSEN, &[9; 4], 1, &[2, 0, 0, 0, 0])),
        hello(&[5; 8], "second.test"),
    ]);
    told.expect(&["0 quic.sni first.test", "1 quic.sni second.test"]);
    assert_eq!(told.lines.iter().filter(|line| line.contains("quic.version")).count(), 2);
}

#[test]
fn after_a_retry_the_keys_are_of_the_servers_choice() {
    let retry = [&[0xf0, 0, 0, 0, 1, 0, 4, 7, 7, 7, 7], &[0xee; 20][..]].concat();
    let told = play(&[
        (CLIENT, initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &crypto(0, &client_hello("a.test")))),
        (SERVER, retry),
        (CLIENT, initial(CLIENT, 1, &[7; 4], &[7; 4], 1, &crypto(0, &client_hello("b.test")))),
    ]);
    told.expect(&["0 quic.sni a.test", "1 quic.version \\x00\\x00\\x00\\x01", "2 quic.sni b.test"]);
    assert!(told.events().is_empty());
}

#[test]
fn what_does_not_open_or_is_too_much_is_an_event() {
    let mut damaged = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &crypto(0, &client_hello("a.test")));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(play(&[(CLIENT, damaged)]).events(), ["quic.failed_decrypt"]);
    let short = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &[&[0; 40][..], &[6, 0, 0x7f, 0xff]].concat());
    assert_eq!(play(&[(CLIENT, short)]).events(), ["quic.error_on_data"]);
    let not_hello = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &crypto(0, &server_hello()));
    assert_eq!(play(&[(CLIENT, not_hello)]).events(), ["quic.error_on_data"]);
    let mut flood: Vec<_> = (0..80)
        .map(|number| {
            let piece = crypto(1 + 1000 * usize::from(number) % 0x3fff, &[1; 1000]);
            (CLIENT, initial(CLIENT, 1, CHOSEN, CHOSEN, number, &piece))
        })
        .collect();
    flood.extend((0..=super::CRYPTO_PIECES_MAX).map(|at| (CLIENT, initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &crypto(9000 + at * 2, &[1])))));
    assert!(play(&flood).events().contains(&"quic.crypto_frag_too_long"));
}

fn google() -> Vec<u8> {
    let hello = b"CHLO\x03\0\0\0PAD\0\x02\0\0\0SNI\0\x05\0\0\0UAID\x07\0\0\0--a.bXY";
    let frame = [&[0xa0, 1], &(hello.len() as u16).to_be_bytes()[..], hello].concat();
    [&[0xc3, b'Q', b'0', b'4', b'6', 0x50], CHOSEN, &[0, 0, 0, 1], &[0; 12][..], &frame].concat()
}

#[test]
fn hellos_of_google_are_read() {
    let told = play(&[(CLIENT, google())]);
    told.expect(&["0 quic.version Q046", "0 quic.sni a.b", "0 quic.ua XY", "0 quic.cyu.string 46,PAD-SNI-UAID"]);
    told.expect_notes(&["0 version=Q046", "0 cyu[0].string=46,PAD-SNI-UAID", "0 ua=XY"]);
}

#[test]
fn other_datagrams_are_not_recognised() {
    let mut unknown = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &[0]);
    unknown[4] = 9;
    let mut unfixed = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &[0]);
    unfixed[0] &= 0xbf;
    let cut = initial(CLIENT, 1, CHOSEN, CHOSEN, 0, &[0])[..30].to_vec();
    for bytes in [unknown, unfixed, cut, vec![0x40; 60], vec![0xc0, 0, 0, 0, 1]] {
        assert_eq!(play(&[(CLIENT, bytes)]).protocols, []);
    }
}

#[test]
fn the_corpus_has_the_scripts() {
    let mut script = in_pieces(&[0, 2, 4, 1, 3]);
    script.push((SERVER, initial(SERVER, 1, CHOSEN, &[], 0, &crypto(0, &server_hello()))));
    assert_corpus("quic.bin", &framed(&script, 127, &[]));
    assert_corpus("quic_google.bin", &framed(&[(CLIENT, google())], 127, &[]));
}
