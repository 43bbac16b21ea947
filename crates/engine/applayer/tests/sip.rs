//! SIP over UDP and TCP, and the descriptions of sessions in it.

mod play;

use bulkhead_applayer::{Dir, Protocol, Transport};
use play::{Told, assert_corpus, framed, play};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

const SDP: &str = "v=0\r\no=me 1 2 IN IP4 192.0.2.1\r\ns=call\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendrecv\r\nm=audio 4000 RTP/AVP 0 8\r\n\
                   i=title\r\na=rtpmap:0 pcmu/8000\r\nm=video 4002 RTP/AVP 31\r\n";

fn invite() -> Vec<u8> {
    format!(
        "INVITE sip:b@b.test SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1:5060\r\nVia: SIP/2.0/UDP 192.0.2.7\r\nf: <sip:a@a.test>;\r\n tag=1\r\n\
         To: <sip:b@b.test>\r\nUser-Agent: phone 1\r\nc: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
    .into_bytes()
}

fn answer() -> Vec<u8> {
    b"SIP/2.0 401 Not Authorized\r\nFrom: <sip:a@a.test>\r\nContent-Length: 0\r\n\r\n".to_vec()
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    vec![(CLIENT, invite()), (SERVER, answer()), (CLIENT, [b"\r\n\r\n", &b"OPTIONS sip:b@b.test SIP/2.0\r\n\r\n"[..]].concat())]
}

fn check(told: &Told) {
    assert_eq!(told.protocols, [Protocol::Sip]);
    told.expect(&[
        "0 sip.request_line INVITE sip:b@b.test SIP/2.0",
        "0 sip.method INVITE",
        "0 sip.uri sip:b@b.test",
        "0 sip.protocol SIP/2.0",
        "0 sip.via SIP/2.0/UDP 192.0.2.1:5060",
        "0 sip.via SIP/2.0/UDP 192.0.2.7",
        "0 sip.from <sip:a@a.test>; tag=1",
        "0 sip.to <sip:b@b.test>",
        "0 sip.user_agent phone 1",
        "0 sip.content_type application/sdp",
        "0 sdp.origin me 1 2 IN IP4 192.0.2.1",
        "0 sdp.connection_data IN IP4 192.0.2.1",
        "0 sdp.attribute rtpmap:0 pcmu/8000",
        "0 sdp.media.media video 4002 RTP/AVP 31",
        "0 sdp.media.session_info title",
        "1 sip.response_line SIP/2.0 401 Not Authorized",
        "1 sip.stat_code 401",
        "1 sip.stat_msg Not Authorized",
        "2 sip.method OPTIONS",
    ]);
    told.expect_notes(&[
        "0 method=INVITE",
        "0 sdp.v=0",
        "0 sdp.a[0]=sendrecv",
        "0 sdp.m[0].a[0]=rtpmap:0 pcmu/8000",
        "0 sdp.m[1].m=video 4002 RTP/AVP 31",
        "1 code=401",
        "1 reason=Not Authorized",
    ]);
    assert!(told.events().is_empty());
}

#[test]
fn messages_over_udp_and_tcp_say_the_same() {
    check(&play(Transport::Udp, &script(), &[]));
    for cuts in [&[][..], &[1], &[3, 100], &[400]] {
        check(&play(Transport::Tcp, &script(), cuts));
    }
}

#[test]
fn several_messages_of_one_stream_are_told_apart_by_their_lengths() {
    let told = play(Transport::Tcp, &[(CLIENT, [invite(), invite(), answer()].concat())], &[]);
    assert_eq!(told.lines.iter().filter(|line| line.ends_with("sip.method INVITE")).count(), 2);
    told.expect(&["2 sip.stat_code 401"]);
}

#[test]
fn long_bodies_are_passed_over() {
    let long = format!("MESSAGE sip:b SIP/2.0\r\nl: 200000\r\n\r\n{}ACK sip:c SIP/2.0\r\n\r\n", "x".repeat(200_000));
    for cuts in [&[][..], &[7000]] {
        let told = play(Transport::Tcp, &[(CLIENT, long.clone().into_bytes())], cuts);
        told.expect(&["0 sip.method MESSAGE", "1 sip.uri sip:c"]);
    }
}

#[test]
fn what_breaks_off_or_is_none_is_an_event() {
    let told = play(Transport::Udp, &[(CLIENT, b"INVITE sip:b SIP/2.0\r\nFrom: x\r\n".to_vec()), (CLIENT, b"junk".to_vec())], &[]);
    told.expect(&["0 sip.from x", "0 !sip.invalid_data", "1 !sip.invalid_data"]);
    let told = play(Transport::Udp, &[(CLIENT, b"INVITE sip:b HTTP/1.1\r\n\r\n".to_vec())], &[]);
    told.expect(&["0 !sip.invalid_data"]);
}

#[test]
fn methods_that_others_have_too_are_told_apart_by_what_they_ask_of() {
    let first = |bytes: &[u8], cuts: &[usize]| play(Transport::Tcp, &[(CLIENT, bytes.to_vec())], cuts).protocols;
    for cuts in [&[][..], &[1]] {
        assert_eq!(first(b"OPTIONS sip:x SIP/2.0\r\n\r\n", cuts), [Protocol::Sip]);
        assert_eq!(first(b"OPTIONS /s HTTP/1.1\r\n\r\n", cuts), [Protocol::Http]);
        assert_eq!(first(b"OPTIONS sip/x HTTP/1.1\r\n\r\n", cuts), [Protocol::Http]);
        assert_eq!(first(b"INVITED sip:x SIP/2.0\r\n\r\n", cuts), []);
    }
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("sip.bin", &framed(&script(), 120, &[]));
}
