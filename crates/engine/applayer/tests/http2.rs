//! HTTP/2 through a session: streams are transactions with the values of HTTP/1, wherever the bytes are cut.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Protocol, Session, Transport, fuzz};
use play::{Told, assert_corpus, framed, play};
use proptest::prelude::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields, kept in the table or not.
fn block(kept: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let first = if kept { 0x40 } else { 0 };
    fields
        .iter()
        .flat_map(|(name, value)| [&[first, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat())
        .collect()
}

fn get() -> Vec<u8> {
    block(
        true,
        &[
            (":method", "GET"),
            (":path", "/a%20b/../c?x=1"),
            (":authority", "A.Example:8080"),
            ("user-agent", "test/1"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ],
    )
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    // The same request again: six entries of the table, the newest first.
    let again: Vec<u8> = (0..6).map(|number| 0x80 | (62 + 5 - number)).collect();
    let answer = block(false, &[(":status", "200"), ("content-type", "text/plain"), ("server", "s/1")]);
    vec![
        (Dir::ToServer, [PREFACE, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])].concat()),
        (Dir::ToClient, [frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), frame(8, 0, 0, &[0, 0, 1, 0])].concat()),
        (Dir::ToServer, [frame(1, 0x20, 1, &[&[0, 0, 0, 0, 200], &get()[..20]].concat()), frame(9, 4, 1, &get()[20..])].concat()),
        (
            Dir::ToServer,
            [frame(1, 0x04, 3, &again), frame(0, 8, 3, &[&[1], b"hello ".as_slice(), &[0]].concat()), frame(0, 1, 3, b"world")].concat(),
        ),
        (
            Dir::ToClient,
            [frame(1, 4, 3, &block(false, &[(":status", "103")])), frame(1, 4, 3, &answer), frame(0, 0, 3, b"body"), frame(0, 1, 3, b"")]
                .concat(),
        ),
        (Dir::ToClient, [frame(1, 4, 1, &answer), frame(0, 0, 1, b"x"), frame(1, 5, 1, &block(false, &[("grpc-status", "0")]))].concat()),
        (Dir::ToServer, [frame(0, 1, 1, b""), frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 2])].concat()),
    ]
}

#[test]
fn streams_are_transactions() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Http2][..], None));
    told.expect(&[
        "0 http2.settings=12884901988",
        "3 http2.window=256",
        "4 http2.stream_id=1",
        "4 http.method GET",
        "4 http.uri /c?x=1",
        "4 http.uri.raw /a%20b/../c?x=1",
        "4 http.host a.example",
        "4 http.host.raw A.Example:8080",
        "4 http.port=8080",
        "4 http.user_agent test/1",
        "4 http.cookie a=1; b=2",
        "4 http.protocol HTTP/2",
        "4 http.request_header :method: GET",
        "4 http2.header ::method: GET",
        "4 http2.header_name user-agent",
        "4 http.stat_code 200",
        "4 http.response_line HTTP/2 200\\r\\n",
        "4 http.server s/1",
        "4 http.response_body x",
        "4 http.header grpc-status: 0\\r\\n",
        "4 http2.priority=200",
        "4 http2.frametype=9",
        "5 http.request_body hello world",
        "5 http.uri /c?x=1",
        "5 http.response_body body",
        "5 file.name /c",
        "5 http.status=200",
        "6 http2.errorcode=2",
    ]);
    assert_eq!(told.events(), [""; 0]);
    assert!(!told.lines.iter().any(|line| line.contains("103")));
}

#[test]
fn oddities_are_events() {
    let client = |frames: &[u8]| play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, frames].concat())], &[]);
    let ended = |frames: &[u8]| {
        let told = client(frames);
        (
            told.lines.iter().filter_map(|line| line.split_once('!')).map(|(_, event)| event.to_owned()).collect::<Vec<_>>().join(" "),
            told.finished,
        )
    };
    let malformed = |event: &str, why| (event.to_owned(), Some(Finished::Malformed(why)));
    assert_eq!(ended(&frame(0, 0, 0, b"x")), malformed("http2.data_stream_zero", "data without a stream"));
    assert_eq!(ended(&[frame(1, 0, 1, b""), frame(0, 0, 1, b"x")].concat()), malformed("http2.invalid_frame_header", "field block"));
    assert_eq!(ended(&frame(1, 4, 1, &[0xbf])), malformed("http2.invalid_header", "field block"));
    assert_eq!(ended(&frame(1, 12, 1, &[9, 1])), malformed("http2.invalid_frame_data", "field block"));
    assert_eq!(ended(&frame(0, 8, 1, &[9, 1])), malformed("http2.invalid_frame_data", "padding"));
    assert_eq!(ended(&frame(4, 0, 0, &[1])), ("http2.invalid_frame_length".to_owned(), None));
    let names = block(false, &[(":authority", "u@a.test"), ("host", "b.test")]);
    assert_eq!(ended(&frame(1, 5, 1, &names)), ("http2.authority_host_mismatch http2.userinfo_in_uri".to_owned(), None));
    let reset = [frame(1, 5, 3, &names), frame(3, 0, 3, &[0, 0, 0, 8]), frame(1, 5, 3, &names)].concat();
    assert!(ended(&reset).0.contains("http2.stream_id_reuse"));
}

#[test]
fn caps_are_named() {
    let client = |frames: &[u8]| play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, frames].concat())], &[]).finished;
    // A field of 4,000 bytes, told of by one byte each.
    let mut bomb = [[0x40, 1, b'x', 0x7f, 0xa1, 0x1e].as_slice(), [b'v'; 4000].as_slice()].concat();
    bomb.extend([0xbe; 100]);
    assert_eq!(client(&frame(1, 4, 1, &bomb)), Some(Finished::Cap("header_bytes_max")));
    assert_eq!(client(&frame(1, 4, 1, &[0x82; 1100])), Some(Finished::Cap("headers_max")));
    assert_eq!(client(&[0, 255, 255, 1, 0, 0, 0, 0, 1, 0].repeat(4)), None);
    let part = frame(9, 0, 1, &[0; 16_000]);
    assert_eq!(client(&[frame(1, 0, 1, b""), part.repeat(9)].concat()), Some(Finished::Cap("header_bytes_max")));
    assert_eq!(client(&frame(1, 4, 1, &[0x3f, 0xe1, 0xff, 0x3f])), Some(Finished::Cap("TABLE_BYTES_MAX")));
    let many: Vec<u8> = (0..600).flat_map(|number| frame(1, 4, 2 * number + 1, &[0x82])).collect();
    assert_eq!(client(&many), Some(Finished::Cap("transactions_max")));
    let coded = block(false, &[("content-encoding", "gzip")]);
    let many: Vec<u8> = (0..101).flat_map(|number| frame(1, 4, 2 * number + 1, &coded)).collect();
    assert_eq!(client(&many), Some(Finished::Cap("CODED_MAX")));
}

#[test]
fn an_upgrade_leads_here() {
    let upgrade = b"GET /up HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n".to_vec();
    let answer = [
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 5, 1, &block(false, &[(":status", "204")])),
    ]
    .concat();
    let told = play(
        Transport::Tcp,
        &[(Dir::ToServer, upgrade), (Dir::ToClient, answer), (Dir::ToServer, [PREFACE, &frame(4, 0, 0, &[])].concat())],
        &[],
    );
    assert_eq!(told.protocols, [Protocol::Http, Protocol::Http2]);
    told.expect(&["0 http.stat_code 101", "1 http2.stream_id=1", "1 http.uri /up", "1 http.host a", "2 http2.settings=12884901988"]);
    told.expect(&["1 http.stat_code 204"]);
}

/// `a.test`, type A.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";

#[test]
fn dns_within_it_is_read() {
    let ask = |fields: &[(&str, &str)]| frame(1, if fields.len() == 2 { 4 } else { 5 }, 1, &block(false, fields));
    let kind = ("content-type", "application/dns-message");
    let answer = [QUESTION[..2].to_vec(), vec![0x81, 0x80], QUESTION[4..].to_vec()].concat();
    let answer = [frame(1, 4, 1, &block(false, &[(":status", "200"), kind])), frame(0, 1, 1, &answer)].concat();
    let asked = [frame(1, 4, 1, &block(false, &[(":method", "POST"), (":path", "/dns-query"), kind])), frame(0, 1, 1, QUESTION)].concat();
    let told = play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, &asked].concat()), (Dir::ToClient, answer.clone())], &[]);
    assert_eq!(told.protocols, [Protocol::Http2, Protocol::Doh2]);
    told.expect(&["0 dns.query a.test", "0 dns.response.rrname a.test", "0 dns.rcode=0", "0 http.uri /dns-query"]);
    let get = ask(&[(":method", "GET"), (":path", "/dns-query?dns=AAcBAAABAAAAAAAAAWEEdGVzdAAAAQAB"), ("accept", "x")]);
    let told = play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, &get].concat()), (Dir::ToClient, answer)], &[]);
    told.expect(&["0 dns.query a.test"]);
    // No message is longer than its length can say.
    let long: Vec<u8> = (0..5).flat_map(|last| frame(0, u8::from(last == 4), 1, &[0; 16_000])).collect();
    let asked = [frame(1, 4, 1, &block(false, &[(":method", "POST"), (":path", "/"), kind])), long].concat();
    let told = play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, &asked].concat())], &[]);
    assert_eq!(told.events(), ["http2.dns_request_too_long"]);
}

#[test]
fn messages_of_grpc_are_decompressed_each_for_itself() {
    let deflated = miniz_oxide::deflate::compress_to_vec_zlib(b"secret secret secret", 6);
    let message = |flag: u8, bytes: &[u8]| [&[flag][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let body = [message(0, b"plain"), message(1, &deflated), message(1, &deflated)].concat();
    let fields = [(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc+proto"), ("grpc-encoding", "deflate")];
    let frames = [frame(1, 4, 1, &block(false, &fields)), frame(0, 0, 1, &body[..20]), frame(0, 1, 1, &body[20..])].concat();
    let head = format!("\\x01\\x00\\x00\\x00\\x{:02x}", deflated.len());
    for cuts in [&[][..], &[1], &[13]] {
        let told = play(Transport::Tcp, &[(Dir::ToServer, [PREFACE, &frames].concat())], cuts);
        told.expect(&[&format!("0 http.request_body \\x00\\x00\\x00\\x00\\x05plain{head}secret secret secret{head}secret secret secret")]);
    }
}

#[test]
fn lost_bytes_within_a_body_are_passed_over() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    let data = frame(0, 1, 1, b"0123456789");
    session.data(Dir::ToServer, &[PREFACE, &frame(1, 4, 1, &get()), &data[..12]].concat(), &mut context, &mut told);
    session.gap(Dir::ToServer, 4, &mut context, &mut told);
    session.data(Dir::ToServer, &data[16..], &mut context, &mut told);
    session.data(Dir::ToServer, &frame(6, 0, 0, &[0; 8]), &mut context, &mut told);
    assert_eq!(told.finished, None);
    session.gap(Dir::ToServer, 4, &mut context, &mut told);
    assert_eq!(told.finished, Some(Finished::Gap));
    told.expect(&["0 http.request_body 012789"]);
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("http2.bin", &framed(&script(), 120, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &script(), &cuts).lines, play(Transport::Tcp, &script(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..300, any::<u8>()), 0..6), cut in 1_usize..120) {
        fuzz::fuzz_session(Transport::Tcp, &framed(&script(), cut, &damage));
    }
}
