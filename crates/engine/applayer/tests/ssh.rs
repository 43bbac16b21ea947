//! SSH through a session: banners and fingerprints, up to encryption.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Protocol, Session, Transport, fuzz};
use play::{Told, play};
use proptest::prelude::*;

fn record(message: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32 + 2).to_be_bytes();
    [&len, [0, message].as_slice(), content].concat()
}

fn key_exchange(names: [&str; 8]) -> Vec<u8> {
    let lists = names.iter().chain(&["", ""]).flat_map(|names| [&(names.len() as u32).to_be_bytes(), names.as_bytes()].concat());
    record(20, &[0; 16].into_iter().chain(lists).chain([0; 5]).collect::<Vec<u8>>())
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let names = ["kex1,kex2", "host", "c-enc", "s-enc", "c-mac", "s-mac", "c-none", "s-none"];
    vec![
        (Dir::ToClient, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec()),
        (Dir::ToServer, [b"SSH-2.0-Go\r\n".to_vec(), key_exchange(names)].concat()),
        (Dir::ToClient, key_exchange(names)),
        (Dir::ToServer, record(30, &[7; 40])),
        (Dir::ToClient, [record(31, &[7; 400]), record(21, &[])].concat()),
        (Dir::ToServer, [record(21, &[]), vec![0xff; 60]].concat()),
    ]
}

#[test]
fn a_session_becomes_banners_and_fingerprints() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Ssh][..], Some(Finished::Encrypted)));
    told.expect(&[
        "0 ssh.proto 2.0",
        "0 ssh.software OpenSSH_9.2p1",
        "0 ssh.software Go",
        "0 ssh.hassh.string kex1,kex2;c-enc;c-mac;c-none",
        "0 ssh.hassh.server.string kex1,kex2;s-enc;s-mac;s-none",
    ]);
    assert!(told.lines.iter().any(|line| line.strip_prefix("0 ssh.hassh ").is_some_and(|hash| hash.len() == 32)));
    assert_eq!(told.events(), [""; 0]);
}

#[test]
fn oddities_are_events() {
    let client = |bytes: Vec<u8>, cuts: &[usize]| play(Transport::Tcp, &[(Dir::ToServer, bytes)], cuts);
    assert_eq!(client(b"SSH-nothing\r\n".to_vec(), &[]).events(), ["ssh.invalid_banner"]);
    let long = [b"SSH-2.0-".to_vec(), vec![b'x'; 500], b"\n".to_vec(), record(30, &[0])].concat();
    for cuts in [&[][..], &[1], &[300]] {
        let told = client(long.clone(), cuts);
        assert_eq!((told.events(), told.finished), (vec!["ssh.long_banner"], None));
        told.expect(&[&format!("0 ssh.software {}", "x".repeat(248))]);
    }
    let told = client([b"SSH-2.0-x\n".to_vec(), vec![0xff; 6]].concat(), &[]);
    assert_eq!((told.events(), told.finished), (vec!["ssh.invalid_record"], Some(Finished::Malformed("record length"))));
    let told = client([b"SSH-2.0-x\n".to_vec(), record(20, &[0xff; 40])].concat(), &[3]);
    assert_eq!(told.events(), ["ssh.invalid_record"]);
}

#[test]
fn lost_bytes_end_what_is_not_encrypted() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    session.data(Dir::ToServer, &[b"SSH-2.0-x\n".to_vec(), record(30, &[0; 90])[..40].to_vec()].concat(), &mut context, &mut told);
    session.gap(Dir::ToServer, 20, &mut context, &mut told);
    session.data(Dir::ToServer, &[vec![0; 36], record(21, &[])].concat(), &mut context, &mut told);
    session.gap(Dir::ToServer, 1000, &mut context, &mut told);
    assert_eq!(told.finished, None);
    session.gap(Dir::ToClient, 1, &mut context, &mut told);
    assert_eq!(told.finished, Some(Finished::Gap));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &script(), &cuts).lines, play(Transport::Tcp, &script(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..300, any::<u8>()), 0..6), cut in 1_usize..120) {
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
