//! DCE/RPC through a session: binds and calls, over TCP and UDP.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

const UUID: [u8; 16] = [0x78, 0x56, 0x34, 0x12, 0x34, 0x12, 0xcd, 0xab, 0xef, 0, 1, 0x23, 0x45, 0x67, 0x89, 0xab];

fn message(kind: u8, flags: u8, call: u8, auth: u8, content: &[u8]) -> Vec<u8> {
    let len = (16 + content.len() as u16).to_le_bytes();
    [&[5, 0, kind, flags, 0x10, 0, 0, 0], &len[..], &[auth, 0, call, 0, 0, 0], content].concat()
}

fn bind() -> Vec<u8> {
    let interface = [&[7, 0, 1, 0], UUID.as_slice(), &[1, 0, 2, 0], &[0; 20]].concat();
    message(11, 3, 1, 0, &[&[0; 8], [1, 0, 0, 0].as_slice(), &interface].concat())
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let acknowledged = [&[0; 8], [3, 0].as_slice(), b"80\0", &[0; 3], &[1, 0, 0, 0], &[0; 24]].concat();
    let verifier = [b"tail".as_slice(), &[0; 8], &[9; 4]].concat();
    vec![
        (Dir::ToServer, bind()),
        (Dir::ToClient, message(12, 3, 1, 0, &acknowledged)),
        (Dir::ToServer, message(0, 1, 2, 0, b"\0\0\0\0\x07\0\x1a\0stub")),
        (Dir::ToServer, message(0, 2, 2, 4, &[b"\0\0\0\0\x07\0\x1a\0 ".as_slice(), &verifier].concat())),
        (Dir::ToClient, message(2, 3, 2, 0, b"\0\0\0\0\x07\0\0\0answer")),
        (Dir::ToServer, message(0, 0x83, 3, 0, &[b"\0\0\0\0\x08\0\x02\0".as_slice(), &UUID, b"x"].concat())),
    ]
}

fn datagram() -> Vec<u8> {
    let mut bytes = vec![0; 80];
    bytes[..6].copy_from_slice(&[4, 0, 0x28, 0, 0x10, 0]);
    bytes[24..40].copy_from_slice(&UUID);
    (bytes[60], bytes[64], bytes[68], bytes[74]) = (3, 5, 9, 4);
    bytes.extend(b"data");
    bytes
}

#[test]
fn binds_and_calls_are_transactions() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Dcerpc][..], None));
    told.expect(&[
        "0 dcerpc.iface 12345678-1234-abcd-ef00-0123456789ab 1.2",
        "0 dcerpc.ack_result=0",
        "1 dcerpc.iface 12345678-1234-abcd-ef00-0123456789ab 1.2",
        "1 dcerpc.opnum=26",
        "1 dcerpc.stub_data stub tail\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\t\\t\\t\\t",
        "1 dcerpc.stub_data \\x00\\x00\\x00\\x00\\x07\\x00\\x00\\x00answer",
        "2 dcerpc.opnum=2",
        "2 dcerpc.stub_data xV4\\x124\\x12\\xcd\\xab\\xef\\x00\\x01#Eg\\x89\\xabx",
    ]);
    assert!(!told.lines.contains(&"2 dcerpc.iface 12345678-1234-abcd-ef00-0123456789ab 1.2".to_owned()));
}

#[test]
fn the_log_has_both_directions_of_a_call() {
    let told = play(Transport::Tcp, &script(), &[]);
    told.expect_notes(&[
        "0 request=BIND",
        "0 call_id=1",
        "0 rpc_version=5.0",
        "0 response=BINDACK",
        "0 interfaces[0].uuid=12345678-1234-abcd-ef00-0123456789ab",
        "0 interfaces[0].version=1.2",
        "0 interfaces[0].ack_result=0",
        "1 request=REQUEST",
        "1 req.opnum=26",
        "1 req.frag_cnt=2",
        "1 req.stub_data_size=21",
        "1 res.frag_cnt=1",
        "1 res.stub_data_size=14",
    ]);
    let mut answer = datagram();
    answer[1] = 2;
    let told = play(Transport::Udp, &[(Dir::ToServer, datagram()), (Dir::ToClient, answer)], &[]);
    told.expect_notes(&["0 request=REQUEST", "0 response=RESPONSE", "0 seqnum=5", "0 req.stub_data_size=4", "0 res.frag_cnt=1"]);
}

#[test]
fn datagrams_are_transactions() {
    let told = play(Transport::Udp, &[(Dir::ToServer, datagram())], &[]);
    told.expect(&[
        "0 dcerpc.iface 12345678-1234-abcd-ef00-0123456789ab 3.0",
        "0 dcerpc.opnum=9",
        "0 dcerpc.call_id=5",
        "0 dcerpc.stub_data data",
    ]);
    assert_eq!(play(Transport::Udp, &[(Dir::ToServer, datagram()[..83].to_vec())], &[]).protocols, []);
}

#[test]
fn what_is_too_much_is_marked() {
    let mut many = vec![(Dir::ToServer, bind())];
    for call in 0..200 {
        many.push((Dir::ToServer, message(0, 1, call, 0, b"\0\0\0\0\x07\0\x01\0x")));
    }
    let told = play(Transport::Tcp, &many, &[]);
    assert_eq!((told.finished, told.lines.iter().filter(|line| line.contains("opnum=1")).count()), (None, 200));
    let long = message(0, 0, 1, 0, &[b"\0\0\0\0\x07\0\x01\0".as_slice(), &[b'x'; 60_000]].concat());
    let told = play(Transport::Tcp, &[(Dir::ToServer, bind()), (Dir::ToServer, long.repeat(8))], &[]);
    assert!(told.lines.iter().any(|line| line.starts_with("1 dcerpc.stub_data") && line.len() == 20 + 256 * 1024 - 1));
    let told = play(Transport::Tcp, &[(Dir::ToServer, [bind(), vec![0; 20]].concat())], &[]);
    assert_eq!(told.finished, Some(Finished::Malformed("header")));
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("dcerpc.bin", &framed(&script(), 120, &[]));
    assert_corpus("dcerpc_udp.bin", &framed(&[(Dir::ToServer, datagram())], 120, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &script(), &cuts).lines, play(Transport::Tcp, &script(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..300, any::<u8>()), 0..6), cut in 1_usize..120) {
        fuzz::fuzz_session(Transport::Tcp, &framed(&script(), cut, &damage));
        fuzz::fuzz_session(Transport::Udp, &framed(&[(Dir::ToServer, datagram())], 127, &damage));
    }
}
