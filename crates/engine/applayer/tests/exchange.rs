//! IKE and BitTorrent's table through sessions: datagrams of keys and of peers.

mod play;

use bulkhead_applayer::{Dir, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

fn payload(next: u8, content: &[u8]) -> Vec<u8> {
    [&[next, 0], &(4 + content.len() as u16).to_be_bytes()[..], content].concat()
}

fn ike(version: u8, exchange: u8, next: u8, responder: u8, payloads: &[Vec<u8>]) -> Vec<u8> {
    let content = payloads.concat();
    let len = (28 + content.len() as u32).to_be_bytes();
    [&[0xaa; 8], &[responder; 8], &[next, version, exchange, 0, 0, 0, 0, 0][..], &len, &content].concat()
}

fn first(attributes: &[u8]) -> Vec<u8> {
    let transform = payload(0, &[&[1, 1, 0, 0], attributes].concat());
    let proposal = payload(0, &[&[1, 1, 0, 1], transform.as_slice()].concat());
    [&[0, 0, 0, 1, 0, 0, 0, 1], proposal.as_slice()].concat()
}

fn ike_script() -> Vec<(Dir, Vec<u8>)> {
    let attributes = [0x80, 1, 0, 7, 0x80, 14, 0, 128, 0x80, 2, 0, 2, 0x80, 11, 0, 1, 0, 12, 0, 4, 0, 1, 0x51, 0x80];
    vec![
        (Dir::ToServer, ike(0x10, 2, 1, 0, &[payload(13, &first(&attributes)), payload(0, &[0x4a; 4])])),
        (Dir::ToClient, ike(0x10, 2, 1, 0xbb, &[payload(0, &first(&attributes))])),
        (Dir::ToServer, ike(0x10, 2, 4, 0xbb, &[payload(10, &[7; 16]), payload(0, &[8; 5])])),
    ]
}

fn second(transforms: &[(u8, u8)]) -> Vec<u8> {
    let all: Vec<u8> = transforms.iter().flat_map(|(kind, id)| [0, 0, 0, 8, *kind, 0, 0, *id]).collect();
    payload(0, &[&[1, 1, 0, transforms.len() as u8], all.as_slice()].concat())
}

#[test]
fn keys_are_exchanged_in_both_versions() {
    let told = play(Transport::Udp, &ike_script(), &[]);
    assert_eq!(told.protocols, [Protocol::Ike]);
    told.expect(&[
        "0 ike.init_spi aaaaaaaaaaaaaaaa",
        "0 ike.vendor 4a4a4a4a",
        "0 ike.exchtype=2",
        "1 ike.resp_spi bbbbbbbbbbbbbbbb",
        "1 ike.chosen_sa_attribute.alg_enc=7",
        "1 ike.chosen_sa_attribute.sa_life_duration=86400",
        "2 ike.key_exchange_payload_length=16",
        "2 ike.nonce_payload_length=5",
    ]);
    told.expect_notes(&[
        "1 attributes[0].value=EncAesCbc",
        "1 attributes[1].key=sa_key_length",
        "2 ikev1.client.nonce_payload=0808080808",
        "2 ikev1.client.vendors[0]=4a4a4a4a",
        "2 attributes[2].value=HashSha",
    ]);
    assert_eq!(told.events(), [""; 0]);
    let choice = ike(0x20, 34, 33, 0xbb, &[payload(0, &second(&[(1, 3), (2, 5), (4, 2)]))]);
    let told = play(Transport::Udp, &[(Dir::ToClient, choice)], &[]);
    assert_eq!(told.events(), ["ike.weak_crypto_enc", "ike.weak_crypto_dh", "ike.weak_crypto_no_auth"]);
    let marked = [&[0; 4], ike_script()[0].1.as_slice()].concat();
    let told = play(Transport::Udp, &[(Dir::ToServer, marked), (Dir::ToServer, vec![9; 80])], &[]);
    assert!(told.protocols == [Protocol::Ike] && told.events().is_empty());
    let broken = ike(0x10, 2, 1, 0, &[payload(0, &[0, 0])]);
    assert_eq!(play(Transport::Udp, &[(Dir::ToServer, broken)], &[]).events(), ["ike.malformed_data"]);
}

fn dht_script() -> Vec<(Dir, Vec<u8>)> {
    let who = [b'i'; 20];
    let node = [&who[..], &[192, 0, 2, 1, 0x1a, 0xe1]].concat();
    vec![
        (Dir::ToServer, [b"d1:ad2:id20:", &who[..], b"6:target20:", &who, b"e1:q9:find_node1:t2:aa1:v4:UT011:y1:qe"].concat()),
        (
            Dir::ToClient,
            [b"d1:rd2:id20:", &who[..], b"5:nodes26:", &node, b"5:token2:xy6:valuesl6:\xc0\0\x02\x02\0\x50ee1:t2:aa1:y1:re"].concat(),
        ),
        (Dir::ToClient, b"d1:eli201e4:whate1:t2:aa1:y1:ee".to_vec()),
    ]
}

#[test]
fn peers_are_found() {
    let told = play(Transport::Udp, &dht_script(), &[]);
    assert_eq!(told.protocols, [Protocol::BittorrentDht]);
    told.expect_notes(&[
        "0 request_type=find_node",
        "0 transaction_id=6161",
        "0 client_version=55543031",
        "0 request.target=6969696969696969696969696969696969696969",
        "1 response.nodes[0].ip=192.0.2.1",
        "1 response.nodes[0].port=6881",
        "1 response.token=7879",
        "1 response.values[0].port=80",
        "2 error.num=201",
        "2 error.msg=what",
    ]);
    assert_eq!(told.events(), [""; 0]);
    let deep = [b"d1:ad2:id20:".to_vec(), vec![b'l'; 900], b"e".to_vec()].concat();
    assert_eq!(play(Transport::Udp, &[(Dir::ToServer, deep)], &[]).events(), ["bittorrent-dht.malformed_packet"]);
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("ike.bin", &framed(&ike_script(), 127, &[]));
    assert_corpus("bittorrent_dht.bin", &framed(&dht_script(), 127, &[]));
}

proptest! {
    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..100, any::<u8>()), 0..6)) {
        for script in [ike_script(), dht_script()] {
            fuzz::fuzz_session(Transport::Udp, &framed(&script, 127, &damage));
        }
    }
}
