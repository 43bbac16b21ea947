//! Protocols whose every datagram is a transaction: DHCP, NTP, TFTP.

mod play;

use bulkhead_applayer::{Dir, Protocol, Transport};
use play::{Told, assert_corpus, framed, play};

fn one(bytes: &[u8]) -> Told {
    play(Transport::Udp, &[(Dir::ToServer, bytes.to_vec())], &[])
}

fn dhcp(op: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..8].copy_from_slice(&[op, 1, 6, 0, 0x12, 0x34, 0x56, 0x78]);
    bytes[16..20].copy_from_slice(&[192, 0, 2, 9]);
    bytes[28..34].copy_from_slice(&[0, 1, 2, 3, 4, 0xab]);
    bytes.extend_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(options);
    bytes
}

fn ntp(mode: u8, version: u8) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    bytes[0] = version << 3 | mode;
    bytes[1] = if mode == 3 { 0 } else { 2 };
    bytes[3] = 0xe9;
    bytes[12..16].copy_from_slice(b"LOCL");
    bytes[40..48].copy_from_slice(&[0xe0, 1, 2, 3, 4, 5, 6, 7]);
    bytes
}

#[test]
fn what_dhcp_says_is_in_the_record() {
    let options = [
        &[53, 1, 5, 51, 4, 0, 0, 14, 16, 12, 2, b'p', b'c', 6, 8, 192, 0, 2, 1, 192, 0, 2, 2, 55, 3, 1, 3, 99][..],
        &[61, 3, 1, 0xaa, 0xbb, 58, 4, 0, 0, 0, 7, 255],
    ]
    .concat();
    let told = one(&dhcp(2, &options));
    told.expect(&["0 dhcp.leasetime=3600", "0 dhcp.renewal_time=7"]);
    told.expect_notes(&[
        "0 type=reply",
        "0 id=305419896",
        "0 client_mac=00:01:02:03:04:ab",
        "0 assigned_ip=192.0.2.9",
        "0 client_ip=0.0.0.0",
        "0 relay_ip=0.0.0.0",
        "0 next_server_ip=0.0.0.0",
        "0 dhcp_type=ack",
        "0 lease_time=3600",
        "0 hostname=pc",
        "0 dns_servers[1]=192.0.2.2",
        "0 params[1]=router",
        "0 client_id=aa:bb",
        "0 renewal_time=7",
    ]);
}

#[test]
fn dhcp_options_go_on_in_the_fields_of_names() {
    let mut bytes = dhcp(1, &[53, 1, 1, 52, 1, 3, 255]);
    bytes[44..51].copy_from_slice(&[3, 4, 192, 0, 2, 7, 255]);
    bytes[108..113].copy_from_slice(&[12, 2, b'a', b'b', 255]);
    let told = one(&bytes);
    told.expect_notes(&["0 dhcp_type=discover", "0 hostname=ab", "0 routers[0]=192.0.2.7"]);
    assert!(told.events().is_empty());
}

#[test]
fn dhcp_options_that_break_off_are_events() {
    assert_eq!(one(&dhcp(1, &[53, 1, 3, 12, 9, b'a'])).events(), ["dhcp.truncated_options"]);
    assert_eq!(one(&dhcp(1, &[51, 2, 0, 1, 255])).events(), ["dhcp.malformed_options"]);
    assert_eq!(one(&dhcp(1, &[53, 1, 3])).events(), ["dhcp.truncated_options"]);
}

#[test]
fn both_sides_of_ntp_are_read() {
    let told = play(Transport::Udp, &[(Dir::ToServer, ntp(3, 4)), (Dir::ToClient, ntp(4, 4))], &[]);
    told.expect(&["0 ntp.version=4", "0 ntp.mode=3", "1 ntp.mode=4", "1 ntp.stratum=2", "1 ntp.reference_id LOCL"]);
    told.expect_notes(&["1 version=4", "1 mode=4", "1 stratum=2", "1 reference_id=4c:4f:43:4c"]);
    // Control messages have no stratum.
    let told = one(&[0x16, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((told.protocols, told.notes), (vec![Protocol::Ntp], vec!["0 version=2".to_owned(), "0 mode=6".to_owned()]));
}

#[test]
fn requests_of_tftp_are_read() {
    let told = one(b"\0\x02a.bin\0OCTET\0blksize\x001428\0");
    told.expect_notes(&["0 packet=write", "0 file=a.bin", "0 mode=OCTET"]);
    assert_eq!(told.protocols, [Protocol::Tftp]);
}

#[test]
fn what_only_looks_alike_is_not_recognised() {
    let mut far = ntp(4, 4);
    far[4] = 0x7f;
    let mut mute = ntp(3, 4);
    mute[40..48].fill(0);
    let mut question = vec![0x23, 4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x20];
    question.resize(48, 1);
    let others: [&[u8]; 8] =
        [&question, &far, &mute, &ntp(0, 4), &ntp(3, 0), b"\0\x01a.bin\0other\0", b"\0\x01a.bin\0octet", &dhcp(3, &[255])];
    for bytes in others {
        assert_eq!(one(bytes).protocols, []);
    }
}

#[test]
fn the_corpus_is_what_these_tests_play() {
    let script = |messages: &[Vec<u8>]| messages.iter().map(|bytes| (Dir::ToServer, bytes.clone())).collect::<Vec<_>>();
    assert_corpus("dhcp.bin", &framed(&script(&[dhcp(2, &[53, 1, 5, 51, 4, 0, 0, 14, 16, 52, 1, 3, 55, 2, 1, 3, 255])]), 127, &[]));
    assert_corpus("ntp.bin", &framed(&script(&[ntp(3, 4), ntp(4, 3)]), 127, &[]));
    assert_corpus("tftp.bin", &framed(&script(&[b"\0\x01a.bin\0netascii\0".to_vec()]), 127, &[]));
}
