//! HTTP/1 where it goes wrong: what follows a message and is none, bytes that are missing, ends in the middle, odd fields.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Session, Transport};
use play::Told;

enum Step<'a> {
    Client(&'a [u8]),
    Server(&'a [u8]),
    LostFromServer(u64),
}

use Step::{Client, LostFromServer, Server};

fn told(config: Config, steps: &[Step<'_>]) -> Told {
    let (mut context, mut told, mut session) = (Context::new(config), Told::default(), Session::new(Transport::Tcp));
    for step in steps {
        match step {
            Client(bytes) => session.data(Dir::ToServer, bytes, &mut context, &mut told),
            Server(bytes) => session.data(Dir::ToClient, bytes, &mut context, &mut told),
            LostFromServer(len) => session.gap(Dir::ToClient, *len, &mut context, &mut told),
        }
    }
    session.close(&mut context, &mut told);
    told
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_line_behind_a_request_that_begins_none_is_more_of_its_body() {
    let post = b"POST /a HTTP/1.1\r\nHost: h\r\n\r\nlogin=foo\nand more\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
    for cut in [1, 5, post.len()] {
        let steps: Vec<Step<'_>> = post.chunks(cut).map(Client).chain([Server(OK), Server(OK)]).collect();
        let told = told(Config::default(), &steps);
        told.expect(&["0 http.request_body login=foo\\nand more\\n", "0 !http.request_body_unexpected", "1 http.uri /b"]);
    }
    // A method that nobody knows begins a request if the line has a version.
    let told = told(Config::default(), &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nfrob /b HTTP/1.1\r\nHost: h\r\n\r\n"), Server(OK)]);
    told.expect(&["1 http.uri /b"]);
}

#[test]
fn what_comes_with_the_end_of_an_answer_is_its_body_where_the_reference_engine_is_compared_with() {
    let steps = [Client(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"), Server(&[OK, b"\r\nHTTP/1.1 200 OK\r\n\r\n"].concat())];
    told(Config { body_tails: true, ..Config::default() }, &steps).expect(&[
        "0 http.response_body ok\\r\\n",
        "0 !http.response_body_unexpected",
        "0 http.response_length=4",
    ]);
    told(Config::default(), &steps).expect(&["0 http.response_body ok"]);
}

#[test]
fn after_missing_bytes_a_status_line_goes_on_and_anything_else_blinds_one_direction() {
    let requests = Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
    let found = told(Config::default(), &[requests, Server(head), LostFromServer(4), Server(OK)]);
    found.expect(&["0 http.response_length=4", "1 http.response_body ok"]);
    assert_eq!(found.finished, Some(Finished::Gap));
    let steps = [requests_again(), Server(head), LostFromServer(20), Server(b"Length: 2\r\n\r\nok"), Client(b"GET /3 HTTP/1.1\r\n\r\n")];
    let found = told(Config::default(), &steps);
    found.expect(&["1 http.uri /2", "2 http.uri /3"]);
    assert!(!found.lines.iter().any(|line| line.starts_with("1 http.stat_code")), "{:#?}", found.lines);
}

fn requests_again() -> Step<'static> {
    Client(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn fields_before_a_connection_ends_are_read() {
    told(Config::default(), &[Client(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), Server(b"HTTP/1.0 200 OK\r\nServer: ng1nx\r\nX")])
        .expect(&["0 http.server ng1nx"]);
}

#[test]
fn oddities_have_events() {
    for (request, answer, event) in [
        ("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Turbo x\r\n\r\n", "", "http.request_auth_unrecognized"),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n", "", "http.invalid_transfer_encoding_value_in_request"),
        ("GET /\tHTTP/1.1\r\nHost: h\r\n\r\n", "", "http.uri_delim_non_compliant"),
        ("GET http://h:x/ HTTP/1.1\r\nHost: h\r\n\r\n", "", "http.invalid_server_port_in_request"),
        ("CONNECT h:x HTTP/1.1\r\nHost: h\r\n\r\n", "", "http.invalid_authority_port"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
            "http.100_continue_already_seen",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
            "http.invalid_transfer_encoding_value_in_response",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "http.response_abnormal_transfer_encoding",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "http.response_chunked_old_proto"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 206 OK\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n",
            "http.response_multipart_byteranges",
        ),
    ] {
        let told = told(Config::default(), &[Client(request.as_bytes()), Server(answer.as_bytes())]);
        assert!(told.events().contains(&event), "{event}: {:#?}", told.lines);
    }
    let plain = told(Config::default(), &[Client(b"GET /a HTTP/1.1\r\nHost: h\r\nAuthorization: basic QTpC\r\n\r\n"), Server(OK)]);
    assert!(plain.events().is_empty(), "{:?}", plain.events());
}

#[test]
fn a_file_in_parts_is_one() {
    let (mut context, mut all) = (Context::new(Config::default()), Vec::new());
    for (range, body) in [("0-3/12", "abcd"), ("3-6/12", "defg"), ("9-11/12", "jkl"), ("7-11/12", "hijkl")] {
        let (mut told, mut session) = (Told::default(), Session::new(Transport::Tcp));
        let answer = format!("HTTP/1.1 206 Part\r\nContent-Length: {}\r\nContent-Range: bytes {range}\r\n\r\n{body}", body.len());
        session.data(Dir::ToServer, b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n", &mut context, &mut told);
        session.data(Dir::ToClient, answer.as_bytes(), &mut context, &mut told);
        session.close(&mut context, &mut told);
        told.expect(&[&format!("0 http.response_length={}", body.len())]);
        all.extend(told.lines.iter().filter_map(|line| line.strip_prefix("0 file.data ")).map(str::to_owned));
        all.extend(told.windows);
    }
    // What is new of each, and the whole window with the place of its first byte.
    assert_eq!(all, ["abcd", "0 abcd", "efg", "0 abcdefg", "jkl", "0 jkl", "hijkl", "0 abcdefghijkl"]);
    let odd =
        told(Config::default(), &[Client(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), Server(b"HTTP/1.1 206 P\r\nContent-Range: x\r\n\r\nb")]);
    assert!(odd.events().contains(&"http.range_invalid"));
}

#[test]
fn a_change_of_protocol_that_nobody_asked_for_is_none() {
    let steps = [
        Server(b"220 h ESMTP\r\n"),
        Client(b"EHLO a\r\nSTARTTLS\r\n"),
        Server(b"250-h\r\n250 STARTTLS\r\n220 go on\r\n"),
        Server(b"HTTP/1.1 101 \r\nUpgrade: h2c\r\n\r\n"),
        Server(OK),
    ];
    let told = told(Config::default(), &steps);
    assert!(told.events().contains(&"http.failed_protocol_change"), "{:#?}", told.lines);
    told.expect(&["2 http.response_body ok"]);
}
