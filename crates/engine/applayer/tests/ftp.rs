//! FTP through a session: commands, replies, and the data connections that are agreed on.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Expectation, Finished, Protocol, Session, Sink, Transaction, Transport, fuzz};
use play::play;
use proptest::prelude::*;

fn script() -> Vec<(Dir, Vec<u8>)> {
    [
        (Dir::ToClient, "220-Hello\r\n220 ready\r\n"),
        (Dir::ToServer, "USER anonymous\r\nPASS  a b \r\n"),
        (Dir::ToClient, "331 password\r\n230 in\r\n"),
        (Dir::ToServer, "PORT 192,0,2,1,4,1\r\n"),
        (Dir::ToClient, "200 ok\r\n"),
        (Dir::ToServer, "RETR dir/file.bin\r\n"),
        (Dir::ToClient, "150 opening\r\n226 done\r\n"),
        (Dir::ToServer, "EPSV\r\n"),
        (Dir::ToClient, "229 ok (|||2049|)\r\n"),
        (Dir::ToServer, "STOR up.bin\r\n"),
        (Dir::ToClient, "226 done\r\n"),
    ]
    .map(|(dir, text)| (dir, text.as_bytes().to_vec()))
    .to_vec()
}

#[derive(Default)]
struct Expected(Vec<Expectation>, Option<Finished>, Vec<Protocol>);

impl Sink for Expected {
    fn recognised(&mut self, protocol: Protocol) {
        self.2.push(protocol);
    }

    fn update(&mut self, _: &mut Transaction, _: Dir) {}

    fn expect(&mut self, expected: &Expectation) {
        self.0.push(expected.clone());
    }

    fn finished(&mut self, why: Finished) {
        self.1 = Some(why);
    }
}

fn expected(script: &[(Dir, Vec<u8>)]) -> Expected {
    let (mut context, mut sink, mut session) = (Context::new(Config::default()), Expected::default(), Session::new(Transport::Tcp));
    for (dir, bytes) in script {
        session.data(*dir, bytes, &mut context, &mut sink);
    }
    sink
}

#[test]
fn commands_and_replies_are_joined() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!(told.protocols, [Protocol::Ftp]);
    told.expect(&[
        "0 ftp.reply Hello",
        "0 ftp.completion_code 220",
        "1 ftp.command USER",
        "1 ftp.command_data anonymous",
        "1 ftp.completion_code 331",
        "2 ftp.command_data a b",
        "2 ftp.reply in",
        "3 ftp.dynamic_port=1025",
        "4 ftp.reply opening",
        "4 ftp.reply done",
        "5 ftp.dynamic_port=2049",
    ]);
    assert_eq!(told.events(), [""; 0]);
}

#[test]
fn data_connections_are_told_of() {
    let told = expected(&script());
    let told: Vec<_> = told.0.iter().map(|one| (one.address, one.port, one.opened_by, one.command.as_slice())).collect();
    let address = "192.0.2.1".parse().ok();
    assert_eq!(told, [(address, 1025, Dir::ToClient, &b"RETR dir/file.bin"[..]), (None, 2049, Dir::ToServer, b"STOR up.bin")]);
}

#[test]
fn a_data_connection_is_a_file() {
    let announced = expected(&script());
    let (mut context, mut told) = (Context::new(Config::default()), play::Told::default());
    let mut session = Session::expected(&announced.0[0]);
    session.data(Dir::ToClient, b"first ", &mut context, &mut told);
    session.data(Dir::ToServer, b"not of the file", &mut context, &mut told);
    session.data(Dir::ToClient, b"second", &mut context, &mut told);
    session.end(Dir::ToClient, &mut context, &mut told);
    assert_eq!(session.protocol(), Some(Protocol::FtpData));
    told.expect(&["0 ftp.command RETR", "0 file.name dir/file.bin", "0 file.data first second", "0 filesize=12"]);
}

#[test]
fn what_follows_an_accepted_auth_is_another_protocol() {
    let hello = b"\x16\x03\x01\x00\x2d\x01\0\0\x29\x03\x03".iter().copied().chain([0; 36]).collect();
    let script = [
        (Dir::ToClient, b"220 x\r\n".to_vec()),
        (Dir::ToServer, b"AUTH TLS\r\n".to_vec()),
        (Dir::ToClient, b"234 go\r\n".to_vec()),
        (Dir::ToServer, hello),
    ];
    assert_eq!(expected(&script).2, [Protocol::Ftp, Protocol::Tls]);
}

#[test]
fn oddities_are_events_and_caps_hold() {
    let after = |text: &[u8], cuts: &[usize]| play(Transport::Tcp, &[(Dir::ToServer, [b"USER a\r\n", text].concat())], cuts);
    assert_eq!(after(b"RETR x\r\n", &[]).events(), ["ftp.file_before_port"]);
    assert_eq!(after(b"PORT 1,2,3,4,5,6\r\nSTOR\r\n", &[]).events(), ["ftp.file_without_name"]);
    for cuts in [&[][..], &[1000], &[4097]] {
        let long = after(&[b"CWD ".to_vec(), vec![b'x'; 9000], b"\r\nNOOP\r\n".to_vec()].concat(), cuts);
        assert_eq!(long.events(), ["ftp.request_command_too_long"]);
        long.expect(&["2 ftp.command NOOP"]);
    }
    assert_eq!(after(&b"NOOP\r\n".repeat(600), &[]).finished, Some(Finished::Cap("transactions_max")));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &script(), &cuts).lines, play(Transport::Tcp, &script(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..60, any::<u8>()), 0..9), cut in 1_usize..120) {
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
