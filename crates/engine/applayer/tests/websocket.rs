//! WebSocket behind HTTP's upgrade: masks, fragments with others between them, compression.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport};
use play::{Told, assert_corpus, framed, play};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;
const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

fn upgrade() -> Vec<(Dir, Vec<u8>)> {
    vec![
        (
            CLIENT,
            b"GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n".to_vec(),
        ),
        (SERVER, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n".to_vec()),
    ]
}

fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut all = vec![first];
    let masked = if key.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ ..126 => all.push(masked | len as u8),
        len @ ..=0xffff => all.extend([&[masked | 126], &(len as u16).to_be_bytes()[..]].concat()),
        len => all.extend([&[masked | 127], &(len as u64).to_be_bytes()[..]].concat()),
    }
    all.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
    all.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key.map_or(0, |key| key[at % 4])));
    all
}

/// A stored block, and what a sender leaves away.
fn stored(text: &[u8]) -> Vec<u8> {
    [&[0], &(text.len() as u16).to_le_bytes()[..], &(!(text.len() as u16)).to_le_bytes(), text, &[0]].concat()
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let mut script = upgrade();
    script.extend([
        (CLIENT, frame(0x81, Some(KEY), b"hello")),
        (SERVER, frame(0x82, None, b"\x01\x02")),
        (CLIENT, frame(0x01, Some(KEY), b"MALWARE_")),
        (CLIENT, frame(0x89, Some(KEY), b"ping")),
        (CLIENT, frame(0x80, Some(KEY), b"DOWNLOAD")),
        (CLIENT, frame(0xc1, Some(KEY), &stored(b"packed"))),
        (CLIENT, frame(0x41, Some(KEY), &stored(b"half")[..6])),
        (CLIENT, frame(0x80, Some(KEY), &stored(b"half")[6..])),
        (SERVER, frame(0x88, None, b"")),
    ]);
    script
}

fn check(told: &Told) {
    assert_eq!(told.protocols, [Protocol::Http, Protocol::Websocket]);
    told.expect(&[
        "1 websocket.payload hello",
        "1 websocket.opcode=1",
        "1 websocket.flags=128",
        "1 websocket.mask=287454020",
        "2 websocket.payload \\x01\\x02",
        "3 websocket.flags=0",
        "3 websocket.payload MALWARE_",
        "4 websocket.payload ping",
        "5 websocket.payload MALWARE_DOWNLOAD",
        "6 websocket.payload packed",
        "8 websocket.payload half",
        "9 websocket.opcode=8",
    ]);
    told.expect_notes(&[
        "1 fin=true",
        "1 mask=287454020",
        "1 opcode=text",
        "3 fin=false",
        "5 opcode=continuation",
        "9 opcode=connection_close",
    ]);
    assert!(told.events().is_empty() && told.finished.is_none(), "{:?} {:?}", told.events(), told.finished);
}

#[test]
fn frames_are_read_whatever_stands_between_their_fragments() {
    for cuts in [&[][..], &[1], &[5, 60]] {
        check(&play(Transport::Tcp, &script(), cuts));
    }
}

#[test]
fn long_frames_are_read_to_their_end() {
    let mut script = upgrade();
    let long = [vec![b'a'; 200_000], b"end".to_vec()].concat();
    script.push((CLIENT, frame(0x82, Some(KEY), &long)));
    script.push((CLIENT, frame(0x81, Some(KEY), b"after")));
    for cuts in [&[][..], &[1460]] {
        let told = play(Transport::Tcp, &script, cuts);
        told.expect(&["1 !websocket.skip_end_of_payload", "2 websocket.payload after"]);
        assert!(told.lines.iter().any(|line| line.starts_with("1 websocket.payload aaa") && line.ends_with("aend")));
    }
}

#[test]
fn a_message_that_ends_its_stream_does_not_hide_the_next() {
    let last = |text: &[u8]| [&[1], &stored(text)[1..5], text].concat();
    let mut script = upgrade();
    script.push((CLIENT, frame(0xc1, Some(KEY), &last(b"first"))));
    script.push((CLIENT, frame(0xc1, Some(KEY), &stored(b"second"))));
    let told = play(Transport::Tcp, &script, &[]);
    told.expect(&["1 websocket.payload first", "2 websocket.payload second"]);
}

#[test]
fn a_bomb_and_a_length_beyond_all_bounds_are_the_end() {
    // One literal, then copies of 258 bytes at distance 1: fixed codes, 13 bits each.
    let bits = std::iter::repeat_n("1100010100000", 1_200_000).flat_map(str::bytes);
    let mut bomb = Vec::new();
    let mut bits = "01010010001".bytes().chain(bits);
    loop {
        let eight: Vec<u8> = bits.by_ref().take(8).collect();
        if eight.len() < 8 {
            break;
        }
        bomb.push(eight.iter().enumerate().fold(0, |byte, (at, bit)| byte | (bit - b'0') << at));
    }
    let mut script = upgrade();
    script.push((CLIENT, frame(0xc2, Some(KEY), &bomb)));
    assert_eq!(play(Transport::Tcp, &script, &[65_536]).finished, Some(Finished::Cap("decoded_bytes_max")));
    let mut script = upgrade();
    script.push((CLIENT, b"\x82\x7f\xff\0\0\0\0\0\0\0".to_vec()));
    assert_eq!(play(Transport::Tcp, &script, &[]).finished, Some(Finished::Malformed("length of a frame")));
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("websocket.bin", &framed(&script(), 120, &[]));
}
