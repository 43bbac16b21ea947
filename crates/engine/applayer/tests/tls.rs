//! TLS through a session: what hellos and certificates say, wherever the bytes are cut.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Protocol, Session, Transport, fuzz};
use play::{Told, play};
use proptest::prelude::*;

const LEAF: &[u8] = include_bytes!("fixtures/leaf.der");

fn u16s(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    [&u16s(&[bytes.len() as u16]), bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [u16s(&[kind]), with_len(content)].concat()
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32).to_be_bytes();
    [&[kind, len[1], len[2], len[3]], content].concat()
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3], with_len(content).as_slice()].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &with_len(&[&[0], with_len(name).as_slice()].concat()))
}

fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let random: Vec<u8> = (0..32).collect();
    let ciphers = with_len(&u16s(&[0x1a1a, 0x1301, 0xc02f]));
    message(1, &[&[3, 3], random.as_slice(), &[0], &ciphers, &[1, 0], &with_len(&extensions.concat())].concat())
}

fn usual() -> Vec<Vec<u8>> {
    vec![
        extension(0x2a2a, &[]),
        server_name(b"a.example"),
        extension(10, &with_len(&u16s(&[0x3a3a, 29, 23]))),
        extension(11, &[1, 0]),
        extension(13, &with_len(&u16s(&[0x0403, 0x0804]))),
        extension(16, &with_len(b"\x02h2\x08http/1.1")),
        extension(43, &[&[6], u16s(&[0x4a4a, 0x0304, 0x0303]).as_slice()].concat()),
    ]
}

fn server_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let random: Vec<u8> = (100..132).collect();
    message(2, &[&[3, 3], random.as_slice(), &[0, 0xc0, 0x2f, 0], &with_len(&extensions.concat())].concat())
}

fn certificate(ders: &[&[u8]]) -> Vec<u8> {
    let u24 = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat();
    message(11, &u24(&ders.iter().flat_map(|der| u24(der)).collect::<Vec<u8>>()))
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let handshake = [server_hello(&[extension(16, &with_len(b"\x02h2"))]), certificate(&[LEAF, b"other"]), message(14, &[])].concat();
    // A handshake message over two records.
    let (first, second) = handshake.split_at(500);
    vec![
        (Dir::ToServer, record(22, &client_hello(&usual()))),
        (Dir::ToClient, [record(22, first), record(22, second)].concat()),
        (Dir::ToServer, [record(22, &message(16, &[0; 32])), record(20, &[1]), record(22, &[0xab; 40])].concat()),
        (Dir::ToClient, [record(20, &[1]), record(22, &[0xcd; 40])].concat()),
        (Dir::ToServer, record(23, &[0xef; 100])),
    ]
}

const RANDOM: &str =
    r"\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";

#[test]
fn a_handshake_becomes_values() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Tls][..], Some(Finished::Encrypted)));
    told.expect(&[
        "0 tls.sni a.example",
        "0 tls.version=772",
        "0 tls.version=771",
        "0 tls.alpn h2",
        "0 tls.alpn http/1.1",
        &format!("0 tls.random {RANDOM}"),
        r"0 tls.random_time \x00\x01\x02\x03",
        "0 ja3.string 771,4865-49199,0-10-11-13-16-43,29-23,0",
        "0 ja3s.string 771,49199,16",
        "0 tls.cert_subject C=DE, O=Example Works, OU=A + B, CN=leaf.test, Email=root@leaf.test",
        "0 tls.cert_issuer C=DE, O=Example Works, OU=A + B, CN=leaf.test, Email=root@leaf.test",
        "0 tls.cert_serial 00:AB:CD:EF",
        "0 tls.cert_fingerprint 6a:59:d0:d1:a5:87:aa:96:97:8f:62:43:30:ed:2e:a6:0e:58:53:f2",
        "0 tls.cert_chain_len=2",
        "0 tls.certs other",
        "0 tls.subjectaltname leaf.test",
        "0 tls.subjectaltname *.leaf.test",
        "0 tls.subjectaltname 192.0.2.7",
        "0 tls.subjectaltname 2001:db8::7",
        "0 tls.subjectaltname https://leaf.test/",
        "0 tls.cert_notbefore=1795506649",
        "0 tls.cert_notafter=1827042649",
    ]);
    assert!(told.lines.iter().any(|line| line.starts_with("0 ja4.hash t13d0206h2_")), "{:#?}", told.lines);
    assert_eq!(told.events(), [""; 0]);
}

#[test]
fn what_only_looks_encrypted_does_not_end_inspection() {
    // Records of application data before any hello.
    let told = play(Transport::Tcp, &[(Dir::ToServer, record(23, &[0; 50])), (Dir::ToClient, record(23, &[0; 50]))], &[]);
    assert_eq!(told.finished, Some(Finished::Unknown));
    let hello = record(22, &client_hello(&usual()));
    let told = play(Transport::Tcp, &[(Dir::ToServer, [hello.clone(), record(23, b"x")].concat()), (Dir::ToClient, record(23, b"x"))], &[]);
    assert_eq!(told.finished, Some(Finished::Malformed("data before a hello")));
    // After a request to say hello again, the second hello is read behind a change of cipher.
    let retry: &[u8] = &[
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
        0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    let again = message(2, &[&[3, 3], retry, &[0, 0x13, 1, 0]].concat());
    let second = client_hello(&[server_name(b"other.example")]);
    let told = play(
        Transport::Tcp,
        &[
            (Dir::ToServer, hello),
            (Dir::ToClient, [record(22, &again), record(20, &[1])].concat()),
            (Dir::ToServer, [record(20, &[1]), record(22, &second)].concat()),
            (Dir::ToClient, [record(22, &server_hello(&[])), record(23, b"x")].concat()),
            (Dir::ToServer, record(23, b"x")),
        ],
        &[],
    );
    told.expect(&["0 tls.sni a.example", "0 tls.sni other.example"]);
    assert_eq!((told.finished, told.events().len()), (Some(Finished::Encrypted), 0));
}

#[test]
fn oddities_are_events() {
    let hello = |extensions: &[Vec<u8>]| play(Transport::Tcp, &[(Dir::ToServer, record(22, &client_hello(extensions)))], &[]);
    assert_eq!(hello(&[server_name(b"a"), server_name(b"b")]).events(), ["tls.multiple_sni_extensions"]);
    assert_eq!(hello(&[extension(0, &with_len(b"\x07\0\x01a"))]).events(), ["tls.invalid_sni_type"]);
    assert_eq!(hello(&[server_name(&[b'a'; 256])]).events(), ["tls.invalid_sni_length"]);
    assert_eq!(hello(&[vec![0, 5, 0, 9]]).events(), ["tls.invalid_handshake_message"]);
    let after = |kind: u8, content: &[u8]| {
        let script = [(Dir::ToServer, [record(22, &client_hello(&usual())), record(kind, content)].concat())];
        play(Transport::Tcp, &script, &[2, 9])
    };
    assert_eq!(after(24, &[1, 0x40, 0, 1, 2, 3]).events(), ["tls.heartbeat_message", "tls.overflow_heartbeat_message"]);
    assert_eq!(after(24, &[1, 0, 1, 9, 0, 0]).events(), ["tls.heartbeat_message"]);
    assert_eq!(after(24, &[9]).events(), ["tls.heartbeat_message", "tls.invalid_heartbeat_message"]);
    assert_eq!(after(21, &[7, 0]).events(), ["tls.invalid_alert_message"]);
    after(21, &[2, 40]).expect(&["0 tls.alert=552"]);
    assert_eq!(after(22, &message(99, &[])).events(), ["tls.invalid_handshake_message"]);
    assert_eq!(after(22, &certificate(&[&LEAF[..100]])).events().last(), Some(&"tls.invalid_certificate"));
    let broken = after(99, &[]);
    assert_eq!((broken.events(), broken.finished), (vec!["tls.invalid_record_type"], Some(Finished::Malformed("record type"))));
    assert_eq!(after(22, &[11, 0xff, 0xff, 0xff]).finished, Some(Finished::Cap("handshake_bytes_max")));
}

#[test]
fn lost_bytes_end_a_handshake_but_not_what_is_encrypted() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    let hello = record(22, &client_hello(&usual()));
    session.data(Dir::ToServer, &hello[..60], &mut context, &mut told);
    session.gap(Dir::ToServer, 10, &mut context, &mut told);
    assert_eq!(told.finished, Some(Finished::Gap));
    let (mut told, mut session) = (Told::default(), Session::new(Transport::Tcp));
    session.data(Dir::ToServer, &hello, &mut context, &mut told);
    session.data(Dir::ToServer, &[record(20, &[1]).as_slice(), &[23, 3, 3, 1, 0, 7, 7]].concat(), &mut context, &mut told);
    session.gap(Dir::ToServer, 200, &mut context, &mut told);
    session.data(Dir::ToServer, &[&[7; 54], record(21, &[1, 0]).as_slice()].concat(), &mut context, &mut told);
    assert_eq!(told.finished, None);
    session.gap(Dir::ToServer, 200, &mut context, &mut told);
    assert_eq!(told.finished, Some(Finished::Gap));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..90, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &script(), &cuts).lines, play(Transport::Tcp, &script(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..1200, any::<u8>()), 0..6), cut in 1_usize..120) {
        let mut framed = Vec::new();
        for (dir, mut bytes) in script() {
            for (at, byte) in &damage {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
            for piece in bytes.chunks(cut) {
                framed.push((piece.len() as u8) << 1 | dir as u8);
                framed.extend_from_slice(piece);
            }
        }
        fuzz::fuzz_session(Transport::Tcp, &framed);
    }
}

#[test]
fn the_log_is_told_of_hellos_and_of_sessions_that_go_on() {
    let told = play(Transport::Tcp, &script(), &[]);
    told.expect_notes(&[
        "0 client_handshake.version=772",
        "0 client_handshake.ciphers[1]=49199",
        "0 client_handshake.exts[0]=0",
        "0 client_handshake.sig_algs[1]=2052",
        "0 server_handshake.cipher=49199",
        "0 server_handshake.exts[0]=16",
    ]);
    assert!(!told.notes.iter().any(|note| note.contains("session_resumed")));
    let resumed = [
        (Dir::ToServer, record(22, &client_hello(&usual()))),
        (Dir::ToClient, [record(22, &server_hello(&[])), record(20, &[1]), record(22, &[0xcd; 40])].concat()),
    ];
    play(Transport::Tcp, &resumed, &[]).expect_notes(&["0 session_resumed=true"]);
    let newest = [
        (Dir::ToServer, record(22, &client_hello(&usual()))),
        (
            Dir::ToClient,
            [record(22, &server_hello(&[extension(43, &u16s(&[0x0304]))])), record(20, &[1]), record(23, &[0xcd; 40])].concat(),
        ),
    ];
    assert!(!play(Transport::Tcp, &newest, &[]).notes.iter().any(|note| note.contains("session_resumed")));
}
