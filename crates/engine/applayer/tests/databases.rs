//! Redis and MySQL: commands and their answers.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport};
use play::{Told, assert_corpus, framed, play};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

fn redis() -> Vec<(Dir, Vec<u8>)> {
    let long = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000\r\n{}\r\n", "v".repeat(5000));
    vec![
        (CLIENT, b"*3\r\n$6\r\nconfig\r\n$3\r\nGET\r\n$3\r\ndir\r\n".to_vec()),
        (SERVER, b"*2\r\n$3\r\ndir\r\n$4\r\n/var\r\n".to_vec()),
        (CLIENT, b"PING\r\nINFO server\r\n".to_vec()),
        (SERVER, b"+PONG\r\n>2\r\n+message\r\n+hi\r\n$5\r\na\r\nbc\r\n".to_vec()),
        (CLIENT, long.into_bytes()),
        (SERVER, b"-ERR read only\r\n".to_vec()),
        (CLIENT, b"*1\r\n$7\r\nHGETALL\r\n*1\r\n$4\r\nQUIT\r\n".to_vec()),
        (SERVER, b"%1\r\n+a\r\n*2\r\n:1\r\n_\r\n+OK\r\n".to_vec()),
    ]
}

fn check_redis(told: &Told) {
    assert_eq!(told.protocols, [Protocol::Redis]);
    told.expect_notes(&[
        "0 command=CONFIG",
        "0 arguments[1]=dir",
        "1 command=PING",
        "1 status=PONG",
        "2 command=INFO",
        "2 arguments[0]=server",
        "3 command=SET",
        "3 error=ERR read only",
        "4 command=HGETALL",
        "5 command=QUIT",
        "5 status=OK",
    ]);
    assert!(told.finished.is_none());
}

#[test]
fn commands_of_redis_and_their_replies_are_transactions() {
    for cuts in [&[][..], &[1], &[3, 50]] {
        check_redis(&play(Transport::Tcp, &redis(), cuts));
    }
}

#[test]
fn what_is_no_redis_ends_it_or_is_not_recognised() {
    let after =
        |dir, bytes: &[u8]| play(Transport::Tcp, &[(CLIENT, b"*1\r\n$4\r\nPING\r\n".to_vec()), (dir, bytes.to_vec())], &[]).finished;
    assert_eq!(after(CLIENT, b"*x\r\n"), Some(Finished::Malformed("command")));
    assert_eq!(after(CLIENT, b"*2000000\r\n"), Some(Finished::Malformed("command")));
    assert_eq!(after(SERVER, b"?\r\n"), Some(Finished::Malformed("reply")));
    assert_eq!(after(SERVER, &b"*2\r\n".repeat(40)), Some(Finished::Cap("DEPTH_MAX")));
    assert_eq!(after(CLIENT, &[b'a'; 70_000]), Some(Finished::Cap("LINE_BYTES_MAX")));
    for bytes in [&b"*\r\n"[..], b"*1\r\nPING", b"*123456789\r\n", b"PINGS\r\n", b"PING x\r\n"] {
        assert_eq!(play(Transport::Tcp, &[(CLIENT, bytes.to_vec())], &[]).protocols, []);
    }
}

fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..3], &[number], body].concat()
}

fn greeting() -> Vec<u8> {
    packet(0, &[b"\x0a8.0.33\0", &[7; 40][..]].concat())
}

fn login(capabilities: u32) -> Vec<u8> {
    packet(1, &[&capabilities.to_le_bytes()[..], &[0; 28], b"me\0\x03abcshop\0"].concat())
}

fn mysql() -> Vec<(Dir, Vec<u8>)> {
    vec![
        (SERVER, greeting()),
        (CLIENT, login(0x8208)),
        (SERVER, packet(2, &[0, 0, 0, 2, 0])),
        (CLIENT, packet(0, b"\x03select 1")),
        (SERVER, [packet(1, &[1]), packet(2, b"row"), packet(3, &vec![b'r'; 20_000])].concat()),
        (CLIENT, packet(0, b"\x03drop table x")),
        (SERVER, packet(1, b"\xff\x79\x05#42000denied")),
        (CLIENT, packet(0, b"\x01")),
    ]
}

#[test]
fn logins_and_queries_of_mysql_are_transactions() {
    for cuts in [&[][..], &[1], &[3, 50]] {
        let told = play(Transport::Tcp, &mysql(), cuts);
        assert_eq!(told.protocols, [Protocol::Mysql]);
        told.expect_notes(&[
            "0 version=8.0.33",
            "0 user=me",
            "0 database=shop",
            "0 tls=false",
            "1 command=query",
            "1 query=select 1",
            "2 error.code=1401",
            "2 error.message=denied",
            "3 command=quit",
        ]);
        assert!(told.finished.is_none());
    }
}

#[test]
fn mysql_gives_way_to_tls_and_stops_at_compression() {
    let hello = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let told = play(
        Transport::Tcp,
        &[(SERVER, greeting()), (CLIENT, packet(1, &[&0x0a08_u32.to_le_bytes()[..], &[0; 28]].concat())), (CLIENT, hello)],
        &[],
    );
    assert_eq!(told.protocols, [Protocol::Mysql, Protocol::Http]);
    let told = play(Transport::Tcp, &[(SERVER, greeting()), (CLIENT, login(0x8228)), (SERVER, packet(2, &[0]))], &[]);
    assert_eq!(told.finished, Some(Finished::Tunnel));
    for bytes in [&b"\x10\0\0\0\x0ax.1\0"[..], b"\x10\0\0\x01\x0a8.0\0", b"\x10\0\0\0\x0a80\0", b"\x10\0\0\0\x098.0\0"] {
        assert_eq!(play(Transport::Tcp, &[(SERVER, bytes.to_vec())], &[]).protocols, []);
    }
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("redis.bin", &framed(&redis()[..4], 120, &[]));
    assert_corpus("mysql.bin", &framed(&mysql()[..4], 120, &[]));
}
