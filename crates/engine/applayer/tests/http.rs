//! HTTP/1 through a session: values and events, wherever the bytes are cut.

use bulkhead_applayer::{Buffer, Config, Context, Dir, Finished, Session, Sink, Transaction, Transport, fuzz};
use proptest::prelude::*;

#[derive(Default)]
struct Told {
    /// Values of complete transactions, bodies as they were streamed, events.
    lines: Vec<String>,
    bodies: [Vec<u8>; 2],
    /// `file.data` of transactions, in the order in which they were complete.
    files: Vec<String>,
    /// Ends of the windows that were told of.
    ends: [u64; 2],
    finished: Option<Finished>,
}

impl Sink for Told {
    fn update(&mut self, tx: &mut Transaction, dir: Dir) {
        for value in tx.news().filter(|value| matches!(value.buffer, Buffer::HttpRequestBody | Buffer::HttpResponseBody)) {
            let window = tx.window(value);
            if window.base > self.ends[dir as usize] {
                self.bodies[dir as usize].push(b'~');
            }
            self.ends[dir as usize] = window.base + window.bytes.len() as u64;
            self.bodies[dir as usize].extend_from_slice(&window.bytes[window.fresh..]);
        }
    }

    fn complete(&mut self, tx: &mut Transaction) {
        for value in tx.values().iter().filter(|value| !value.is_stream()) {
            self.lines.push(format!("{} {} {:?}", tx.id, value.buffer.name(), String::from_utf8_lossy(tx.bytes(value))));
        }
        self.lines.extend(tx.events().map(|(event, _)| format!("{} !{event}", tx.id)));
        for dir in [Dir::ToServer, Dir::ToClient] {
            let body = std::mem::take(&mut self.bodies[dir as usize]);
            self.ends[dir as usize] = 0;
            for file in tx.all(Buffer::FileData, dir) {
                self.files.push(String::from_utf8_lossy(tx.bytes(file)).into_owned());
            }
            self.lines.push(format!("{} {dir:?} body {:?}", tx.id, String::from_utf8_lossy(&body)));
        }
    }

    fn finished(&mut self, why: Finished) {
        self.finished = Some(why);
    }
}

/// `cuts`: lengths of pieces, in turn.
fn read(script: &[(Dir, &[u8])], cuts: &[usize]) -> Told {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    let mut cuts = cuts.iter().cycle();
    for (dir, bytes) in script {
        let mut rest = *bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len()));
            session.data(*dir, now, &mut context, &mut told);
            rest = later;
        }
    }
    session.close(&mut context, &mut told);
    told
}

const SCRIPT: &[(Dir, &[u8])] = &[
    (Dir::ToServer, b"POST /a/../b%20c?x=%41 HTTP/1.1\r\nHost: Ex.Test:80\r\nCookie: k=v\r\nX: 1\r\n 2\r\nContent-Length: 5\r\n\r\nhello"),
    (Dir::ToClient, b"HTTP/1.1 200 OK\r\nSet-Cookie: s\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nworld\r\n1\r\n!\r\n0\r\n\r\n"),
    (Dir::ToServer, b"GET /2 HTTP/1.0\r\n\r\n"),
    (Dir::ToClient, b"HTTP/1.0 404 Not Found\r\n\r\nuntil the end"),
];

#[test]
fn an_exchange_becomes_values_and_events() {
    let told = read(SCRIPT, &[usize::MAX]);
    for wanted in [
        r#"0 http.method "POST""#,
        r#"0 http.uri "/b c?x=A""#,
        r#"0 http.uri.raw "/a/../b%20c?x=%41""#,
        r#"0 http.host "ex.test""#,
        r#"0 http.host.raw "Ex.Test:80""#,
        r#"0 http.header "Host: Ex.Test:80\r\nX: 1 2\r\nContent-Length: 5\r\n""#,
        r#"0 http.header_names "\r\nHost\r\nCookie\r\nX\r\nContent-Length\r\n\r\n""#,
        r#"0 http.cookie "k=v""#,
        r#"0 http.stat_code "200""#,
        r#"0 !http.invalid_request_field_folding"#,
        r#"0 !http.response_chunk_extension"#,
        r#"0 ToServer body "hello""#,
        r#"0 ToClient body "world!""#,
        r#"1 http.stat_msg "Not Found""#,
        r#"1 ToClient body "until the end""#,
    ] {
        assert!(told.lines.iter().any(|line| line == wanted), "{wanted} is not in {:#?}", told.lines);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    all.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    all.extend([0; 8]);
    all
}

fn coded_script() -> Vec<(Dir, Vec<u8>)> {
    let page = gzip(b"<html>".repeat(3000).as_slice());
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in page.chunks(11) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend([chunk, b"\r\n"].concat());
    }
    answer.extend(b"0\r\nX-Trailer: t\r\n\r\n");
    let form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.php\"\r\n\r\n<?php ?>\r\n--b--\r\n";
    let post = format!(
        "POST /up/ HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    vec![
        (Dir::ToServer, post.into_bytes()),
        (Dir::ToClient, answer),
        (Dir::ToServer, b"GET /dl/x.gz?y HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        (Dir::ToClient, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain".to_vec()),
    ]
}

#[test]
fn bodies_are_decoded_and_files_named() {
    let script = coded_script();
    let script: Vec<(Dir, &[u8])> = script.iter().map(|(dir, bytes)| (*dir, bytes.as_slice())).collect();
    for cuts in [&[usize::MAX][..], &[1], &[7, 100, 3]] {
        let told = read(&script, cuts);
        for wanted in [
            format!("0 ToClient body {:?}", "<html>".repeat(3000)),
            r#"0 file.name "a.php""#.to_owned(),
            r#"0 http.header "X-Trailer: t\r\n\r\n""#.to_owned(),
            r#"1 file.name "/dl/x.gz""#.to_owned(),
            r#"1 ToClient body "plain""#.to_owned(),
            "1 !http.gzip_decompression_failed".to_owned(),
        ] {
            assert!(told.lines.contains(&wanted), "{wanted} is not in {:#?}", told.lines);
        }
        assert_eq!(told.files, ["<?php ?>", &"<html>".repeat(3000), "plain"]);
    }
}

/// Answers that browsers read although they are odd, all with the body `the body`.
const ODD: &[&[u8]] = &[
    b"HTTP/1.1 200 ok\r\nTransfer-Encoding: chunked\r\nContent-Length: 8\r\n\r\nthe body",
    b"HTTP/1.1 200 ok\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: y\r\n\r\n3\r\nthe\r\n5\r\n body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\r\nTransfer\0-Encoding:chu\0nked\r\n\r\n3\r\nthe\r\n5\r\n body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\r\nTransfer-Encoding\r\n :\r\n chunked\r\n\r\n3\r\nthe\r\n5\r\n body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\rTransfer-Encoding: chunked\r\n\r\n8\r\nthe body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\r\n\r\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nthe body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\r\nContent-Length: 8\n\r\r\nthe body",
    b"HTTP/1.1 200 ok\r\nContent-Length: 8\n \nthe body",
    b"\0HTTP/1.1 200 ok\r\nContent-Length: 8\r\n\r\nthe body",
    b"junk\r\nHTTP/1.1 200 ok\r\nContent-Length: 8\r\n\r\nthe body",
    b"the body",
    b"HTTP/1.1 200 ok\r\nTransfer-Encoding: chunked\r\n\r\n\x0b3\r\nthe\r\n\x0b5\r\n body\r\n0\r\n\r\n",
    b"HTTP/1.1 200 ok\r\nTransfer-Encoding: chunked\r\n\r\n 08 ;x=y\r\nthe body\r\n0\r\n\r\n",
];

#[test]
fn odd_answers_are_read_as_browsers_do() {
    for answer in ODD {
        let script: &[(Dir, &[u8])] = &[(Dir::ToServer, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), (Dir::ToClient, answer)];
        for cuts in [&[usize::MAX][..], &[1], &[5, 2]] {
            let told = read(script, cuts);
            let wanted = r#"0 ToClient body "the body""#;
            assert!(told.lines.iter().any(|line| line == wanted), "{} {:#?}", answer.escape_ascii(), told.lines);
        }
    }
    // A gzip body under odd labels.
    for label in ["Content-Encoding:: gzip", "Content-Encoding\u{b}: gzip", "Content-Encoding: x gzip;", "Content-Encoding:\n\0gz\0ip"] {
        let answer = [format!("HTTP/1.1 200 ok\r\n{label}\r\n\r\n").as_bytes(), &gzip(b"the body")].concat();
        let told = read(&[(Dir::ToServer, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), (Dir::ToClient, &answer)], &[3]);
        assert!(told.lines.iter().any(|line| line == r#"0 ToClient body "the body""#), "{label:?} {:#?}", told.lines);
    }
}

#[test]
fn a_bomb_ends_the_session() {
    let inner = gzip(&vec![b'a'; 40 << 20]);
    let bomb = gzip(&inner);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let told =
        read(&[(Dir::ToServer, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), (Dir::ToClient, &[head.into_bytes(), bomb].concat())], &[1400]);
    assert_eq!(told.finished, Some(Finished::Cap("decoded_ratio_max")));
}

#[test]
fn nothing_matches_across_missing_bytes() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    session.data(Dir::ToServer, b"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nabc", &mut context, &mut told);
    session.gap(Dir::ToServer, 4, &mut context, &mut told);
    session.data(Dir::ToServer, b"defghGET /next HTTP/1.1\r\nHost: h\r\n\r\n", &mut context, &mut told);
    session.close(&mut context, &mut told);
    assert!(told.lines.iter().any(|line| line == r#"0 ToServer body "abc~defgh""#), "{:#?}", told.lines);
    assert!(told.lines.iter().any(|line| line == r#"1 http.uri "/next""#));
}

#[test]
fn memory_of_transactions_is_used_again() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    for _ in 0..100 {
        session.data(Dir::ToServer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut context, &mut told);
        session.data(Dir::ToClient, b"HTTP/1.1 204 No\r\n\r\n", &mut context, &mut told);
    }
    assert_eq!((context.stats.transactions, context.stats.transactions_allocated), (100, 1));
}

#[test]
fn caps_end_a_session_and_say_so() {
    let told = read(&[(Dir::ToServer, &b"GET / HTTP/1.1\r\n\r\n".repeat(600))], &[usize::MAX]);
    assert_eq!(told.finished, Some(Finished::Cap("transactions_max")));
    let told = read(&[(Dir::ToServer, &[b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 200_000]].concat())], &[1400]);
    assert_eq!(told.finished, Some(Finished::Cap("header_bytes_max")));
    let noise = [b'~'; 20_000];
    let told = read(&[(Dir::ToServer, &noise), (Dir::ToClient, &noise)], &[1000]);
    assert_eq!(told.finished, Some(Finished::Unknown));
}

#[test]
fn nothing_before_a_request_hides_it() {
    let blank = b"\r\n".repeat(6000);
    let long = [b"get /", vec![b'a'; 6000].as_slice(), b" HTTP/1.1\r\n\r\n"].concat();
    for (request, uri) in [
        ([&blank, &b"GET /x HTTP/1.1\r\n\r\n"[..]].concat(), "/x".to_owned()),
        (b"anything! /x HTTP/1.1\r\n\r\n".to_vec(), "/x".to_owned()),
        (long, format!("/{}", "a".repeat(6000))),
    ] {
        for cuts in [&[usize::MAX][..], &[1000], &[3]] {
            let told = read(&[(Dir::ToServer, &request)], cuts);
            assert!(told.lines.contains(&format!("0 http.uri {uri:?}")), "{:?}", told.lines);
        }
    }
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..20)) {
        prop_assert_eq!(read(SCRIPT, &cuts).lines, read(SCRIPT, &[usize::MAX]).lines);
    }

    #[test]
    fn segments_of_coded_bodies_do_not_matter(cuts in prop::collection::vec(1_usize..400, 1..20)) {
        let script = coded_script();
        let script: Vec<(Dir, &[u8])> = script.iter().map(|(dir, bytes)| (*dir, bytes.as_slice())).collect();
        prop_assert_eq!(read(&script, &cuts).lines, read(&script, &[usize::MAX]).lines);
    }

    #[test]
    fn any_bytes_are_read(noise in prop::collection::vec(any::<u8>(), 0..600), cut in 0_usize..200) {
        let mut bytes = vec![0x7e];
        bytes.extend_from_slice(&SCRIPT[0].1[..63]);
        bytes.extend_from_slice(&noise[cut.min(noise.len())..]);
        fuzz::fuzz_session(Transport::Tcp, &bytes);
        fuzz::fuzz_session(Transport::Tcp, &noise);
    }
}
