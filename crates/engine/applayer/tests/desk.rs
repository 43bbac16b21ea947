//! RDP, RFB, POP3 and TELNET through sessions: screens, mail boxes, terminals.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

// === RFB ===

fn rfb_script(minor: u8) -> Vec<(Dir, Vec<u8>)> {
    let version = format!("RFB 003.00{minor}\n").into_bytes();
    let screen = [&[3, 0, 2, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4][..], b"desk"].concat();
    let types = if minor < 7 { vec![0, 0, 0, 2] } else { vec![2, 1, 2] };
    let mut script = vec![(SERVER, version.clone()), (CLIENT, version), (SERVER, types)];
    if minor >= 7 {
        script.push((CLIENT, vec![2]));
    }
    script.extend([
        (SERVER, vec![0xab; 16]),
        (CLIENT, vec![0xcd; 16]),
        (SERVER, vec![0, 0, 0, 0]),
        (CLIENT, vec![1]),
        (SERVER, screen),
        (SERVER, vec![0xff; 50]),
        (CLIENT, vec![3; 10]),
    ]);
    script
}

#[test]
fn screens_are_described() {
    for minor in [3, 7, 8] {
        let told = play(Transport::Tcp, &rfb_script(minor), &[]);
        assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Rfb][..], None));
        told.expect(&["0 rfb.name desk", "0 rfb.sectype=2", "0 rfb.secresult=0"]);
        told.expect_notes(&[
            "0 server_protocol_version.major=003",
            &format!("0 client_protocol_version.minor=00{minor}"),
            "0 authentication.vnc.challenge=abababababababababababababababab",
            "0 authentication.security_result=OK",
            "0 screen_shared=true",
            "0 framebuffer.width=768",
            "0 framebuffer.pixel_format.red_max=255",
        ]);
    }
    let start = &rfb_script(8)[..2];
    let refused = [start, &[(SERVER, [&[0, 0, 0, 0, 4][..], b"nope"].concat())]].concat();
    play(Transport::Tcp, &refused, &[]).expect_notes(&["0 server_security_failure_reason=nope"]);
    let other = [start, &[(SERVER, vec![1, 30]), (CLIENT, vec![30])]].concat();
    assert_eq!(play(Transport::Tcp, &other, &[]).events(), ["rfb.unimplemented_security_type"]);
    let endless = [start, &[(SERVER, vec![0, 0xff, 0xff, 0xff, 0xff])]].concat();
    assert_eq!(play(Transport::Tcp, &endless, &[]).finished, Some(Finished::Cap("TEXT_BYTES_MAX")));
}

// === RDP ===

fn tpkt(content: &[u8]) -> Vec<u8> {
    [&[3, 0, 0, 4 + content.len() as u8], content].concat()
}

fn rdp_script(protocol: u8) -> Vec<(Dir, Vec<u8>)> {
    let cookie = b"Cookie: mstshash=alice\r\n\x01\x00\x08\x00\x03\x00\x00\x00";
    let ask = [&[6 + cookie.len() as u8, 0xe0, 0, 0, 0, 0, 0], &cookie[..]].concat();
    let confirm = [14, 0xd0, 0, 0, 0, 0, 0, 2, 1, 8, 0, protocol, 0, 0, 0];
    let mut core = vec![0; 212];
    core[..12].copy_from_slice(&[4, 0, 8, 0, 0, 4, 0, 3, 1, 0xca, 3, 0xaa]);
    core[20..24].copy_from_slice(b"p\0c\0");
    let network = [&[1, 0, 0, 0][..], b"rdpdr\0\0\0\0\0\0\0"].concat();
    let blocks = [&[1, 0xc0, 216, 0], &core[..], &[3, 0xc0, 20, 0], &network].concat();
    let connect = [&[2, 0xf0, 0x80, 0x7f, 0x65][..], b"Duca", &[0x80, blocks.len() as u8], &blocks].concat();
    vec![
        (CLIENT, tpkt(&ask)),
        (SERVER, tpkt(&confirm)),
        (CLIENT, [&[3, 0, 1, 0][..], &connect].concat()),
        (SERVER, tpkt(&[2, 0xf0, 0x80, 0x7f])),
    ]
}

#[test]
fn clients_describe_themselves_unless_they_turn_to_tls() {
    let mut script = rdp_script(0);
    let len = script[2].1.len() as u16;
    script[2].1[2..4].copy_from_slice(&len.to_be_bytes());
    let told = play(Transport::Tcp, &script, &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Rdp][..], None));
    told.expect_notes(&[
        "0 event_type=initial_request",
        "0 cookie=alice",
        "1 event_type=initial_response",
        "1 server_supports[0]=extended_client_data",
        "1 protocol=rdp",
        "2 event_type=connect_request",
        "2 client.version=v5",
        "2 client.desktop_width=1024",
        "2 client.client_name=pc",
        "2 channels[0]=rdpdr",
        "3 event_type=connect_response",
    ]);
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    let turned = [&rdp_script(1)[..2], &[(CLIENT, hello)]].concat();
    assert_eq!(play(Transport::Tcp, &turned, &[]).protocols, [Protocol::Rdp, Protocol::Tls]);
    // S7 begins alike.
    let other = tpkt(&[17, 0xe0, 0, 0, 0, 1, 0, 0xc0, 1, 10, 0xc1, 2, 1, 0, 0xc2, 2, 1, 2]);
    assert_eq!(play(Transport::Tcp, &[(CLIENT, other)], &[]).protocols, []);
}

// === POP3 ===

fn pop3_script() -> Vec<(Dir, Vec<u8>)> {
    let lines: [(Dir, &[u8]); 11] = [
        (SERVER, b"+OK ready\r\n"),
        (CLIENT, b"USER alice\r\nPASS a secret\r\n"),
        (SERVER, b"+OK\r\n-ERR no\r\n"),
        (CLIENT, b"LIST\r\n"),
        (SERVER, b"+OK 2 messages\r\n1 120\r\n..2\r\n.\r\n"),
        (CLIENT, b"LIST 1\r\n"),
        (SERVER, b"+OK 1 120\r\n"),
        (CLIENT, b"AUTH PLAIN\r\n"),
        (SERVER, b"+ \r\n"),
        (CLIENT, b"c2VjcmV0\r\n"),
        (SERVER, b"+OK in\r\n"),
    ];
    lines.into_iter().map(|(dir, text)| (dir, text.to_vec())).collect()
}

#[test]
fn commands_have_their_replies() {
    let told = play(Transport::Tcp, &pop3_script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Pop3][..], None));
    told.expect(&["0 pop3.status OK", "1 pop3.command USER", "2 pop3.status ERR", "3 pop3.command LIST"]);
    told.expect_notes(&[
        "0 response.header=ready",
        "1 request.args[0]=alice",
        "2 response.success=false",
        "3 response.data[0]=1 120",
        "3 response.data[1]=.2",
        "4 response.header=1 120",
        "5 request.command=AUTH",
        "5 response.header=in",
    ]);
    assert!(!told.notes.iter().any(|note| note.starts_with("6 ")) && told.events().is_empty());
    let odd = [pop3_script()[0].clone(), (CLIENT, [b"XYZZY\r\nDELE\r\nUSER ", "x".repeat(300).as_bytes(), b"\r\n"].concat())];
    assert_eq!(
        play(Transport::Tcp, &odd, &[]).events(),
        ["pop3.unknown_command", "pop3.incorrect_argument_count", "pop3.request_too_long"]
    );
    assert_eq!(play(Transport::Tcp, &[(SERVER, b"+OK\r\n".to_vec())], &[]).protocols, []);
}

#[test]
fn what_follows_an_accepted_stls_is_another_protocol() {
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    let script = [pop3_script()[0].clone(), (CLIENT, b"STLS\r\n".to_vec()), (SERVER, b"+OK go\r\n".to_vec()), (CLIENT, hello)];
    assert_eq!(play(Transport::Tcp, &script, &[]).protocols, [Protocol::Pop3, Protocol::Tls]);
}

// === TELNET ===

#[test]
fn terminals_are_recognised_by_their_commands() {
    let talk = |bytes: &[u8]| play(Transport::Tcp, &[(SERVER, bytes.to_vec())], &[1]).protocols;
    assert_eq!(talk(b"\xff\xfd\x18\xff\xfb\x03login: "), [Protocol::Telnet]);
    for bytes in [&b"\xff\xfd\x18login"[..], b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xfb\x60\xff\xfb\x61", b"login: "] {
        assert_eq!(talk(bytes), []);
    }
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("rfb.bin", &framed(&rfb_script(8), 127, &[]));
    assert_corpus("rdp.bin", &framed(&rdp_script(0), 127, &[]));
    assert_corpus("pop3.bin", &framed(&pop3_script(), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..30, 1..20)) {
        for script in [rfb_script(3), rfb_script(8), pop3_script()] {
            let (whole, cut) = (play(Transport::Tcp, &script, &[]), play(Transport::Tcp, &script, &cuts));
            prop_assert_eq!((whole.lines, whole.notes), (cut.lines, cut.notes));
        }
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..60, any::<u8>()), 0..6), cut in 1_usize..127) {
        for script in [rfb_script(7), rdp_script(0), pop3_script()] {
            fuzz::fuzz_session(Transport::Tcp, &framed(&script, cut, &damage));
        }
    }
}
