//! SMB 1 and 2 through a session: logons, shares, files in pieces, DCE/RPC within pipes.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Protocol, Session, Transport, fuzz};
use play::{Told, assert_corpus, framed, play};
use proptest::prelude::*;

fn record(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A message of SMB 2. `next`: where the next one of the same record begins.
fn two(command: u16, number: u64, status: u32, flags: u32, next: u32, content: &[u8]) -> Vec<u8> {
    let mut all = b"\xfeSMB\x40\0\0\0".to_vec();
    all.extend(status.to_le_bytes());
    all.extend(command.to_le_bytes());
    all.extend([1, 0]);
    all.extend(flags.to_le_bytes());
    all.extend(next.to_le_bytes());
    all.extend(number.to_le_bytes());
    all.extend([0, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    all.extend([0; 16]);
    all.extend(content);
    all
}

fn ask(command: u16, number: u64, content: &[u8]) -> (Dir, Vec<u8>) {
    (Dir::ToServer, record(&two(command, number, 0, 0, 0, content)))
}

fn tell(command: u16, number: u64, status: u32, content: &[u8]) -> (Dir, Vec<u8>) {
    (Dir::ToClient, record(&two(command, number, status, 1, 0, content)))
}

/// The last step of a logon, without and with UTF-16.
fn ntlmssp(domain: &str, user: &str) -> Vec<u8> {
    let (domain, user) = (wide(domain), wide(user));
    let field = |len: usize, at: usize| [&(len as u16).to_le_bytes()[..], &(len as u16).to_le_bytes(), &(at as u32).to_le_bytes()].concat();
    let mut all = b"NTLMSSP\0\x03\0\0\0".to_vec();
    all.extend([0; 16]);
    all.extend(field(domain.len(), 72));
    all.extend(field(user.len(), 72 + domain.len()));
    all.extend([0; 16]);
    all.extend(0x0200_0001_u32.to_le_bytes());
    all.extend([10, 0, 0x5a, 0x29, 0, 0, 0, 15]);
    [all, domain, user].concat()
}

const FILE: [u8; 16] = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0];
const PIPE: [u8; 16] = [9; 16];

fn write(id: [u8; 16], offset: u64, data: &[u8]) -> Vec<u8> {
    [&[49, 0, 112, 0], &(data.len() as u32).to_le_bytes()[..], &offset.to_le_bytes(), &id, &[0; 16], data].concat()
}

fn read_request(id: [u8; 16], offset: u64) -> Vec<u8> {
    [&[49, 0, 0, 0, 0, 1, 0, 0][..], &offset.to_le_bytes(), &id, &[0; 17]].concat()
}

fn read_answer(data: &[u8]) -> Vec<u8> {
    [&[17, 0, 80, 0], &(data.len() as u32).to_le_bytes()[..], &[0; 8], data].concat()
}

fn create(name: &str) -> Vec<u8> {
    let name = wide(name);
    let mut all = vec![0; 56];
    (all[0], all[36], all[41]) = (57, 2, 0x10);
    all[44..48].copy_from_slice(&[120, 0, name.len() as u8, 0]);
    [all, name].concat()
}

fn created(id: [u8; 16]) -> Vec<u8> {
    let mut all = vec![0; 88];
    all[0] = 89;
    all[8..16].copy_from_slice(&(116_444_736_000_000_000_u64 + 12_345_678_901).to_le_bytes());
    all[48] = 99;
    all[64..80].copy_from_slice(&id);
    all
}

fn tree(name: &str) -> Vec<u8> {
    let name = wide(name);
    [&[9, 0, 0, 0, 72, 0, name.len() as u8, 0], name.as_slice()].concat()
}

fn close(id: [u8; 16]) -> Vec<u8> {
    [&[24, 0, 0, 0, 0, 0, 0, 0], &id[..]].concat()
}

fn bind() -> Vec<u8> {
    let uuid = [0x78, 0x56, 0x34, 0x12, 0x34, 0x12, 0xcd, 0xab, 0xef, 0, 1, 0x23, 0x45, 0x67, 0x89, 0xab];
    let content = [&[0; 8], &[1, 0, 0, 0, 7, 0, 1, 0][..], &uuid, &[1, 0, 2, 0], &[0; 20]].concat();
    [&[5, 0, 11, 3, 0x10, 0, 0, 0], &(16 + content.len() as u16).to_le_bytes()[..], &[0, 0, 1, 0, 0, 0], &content].concat()
}

fn call(opnum: u8) -> Vec<u8> {
    [&[5, 0, 0, 3, 0x10, 0, 0, 0, 28, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, opnum, 0][..], b"stub"].concat()
}

fn result() -> Vec<u8> {
    [&[5, 0, 2, 3, 0x10, 0, 0, 0, 26, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0][..], b"ok"].concat()
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    let offer = [&[36, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[0xaa; 16][..], &[0; 8], &[2, 2, 0x10, 2]].concat();
    let chosen =
        [&[65, 0, 1, 0, 0x10, 2, 0, 0], &[0xbb; 16][..], &[0; 4], &[0, 0, 0, 0], &[0, 0, 0x10, 0], &[0, 0, 0, 2], &[0; 28]].concat();
    let blob = ntlmssp("CORP", "alice");
    let setup = [&[25, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 88, 0, blob.len() as u8, 0], &[0; 8][..], &blob].concat();
    let transceive = [&[57, 0, 0, 0, 0x17, 0xc0, 0x11, 0], &PIPE[..], &[120, 0, 0, 0, 28, 0, 0, 0], &[0; 24], &call(26)].concat();
    let answered = [&[49, 0, 0, 0, 0x17, 0xc0, 0x11, 0], &PIPE[..], &[0; 8], &[112, 0, 0, 0, 26, 0, 0, 0], &[0; 8], &result()].concat();
    let rename = {
        let name = wide("b.txt");
        let data = [&[0; 16], &(name.len() as u32).to_le_bytes()[..], &name].concat();
        [&[33, 0, 1, 10], &(data.len() as u32).to_le_bytes()[..], &[96, 0, 0, 0, 0, 0, 0, 0], &FILE, &data].concat()
    };
    vec![
        ask(0, 0, &offer),
        tell(0, 0, 0, &chosen),
        ask(1, 1, &setup),
        tell(1, 1, 0xc000_006d, &[9, 0, 0, 0, 0, 0, 0, 0]),
        ask(3, 2, &tree("\\\\srv\\data")),
        tell(3, 2, 0, &[16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ask(5, 3, &create("dir\\a.txt")),
        tell(5, 3, 0, &created(FILE)),
        ask(9, 4, &write(FILE, 0, b"MZ first ")),
        tell(9, 4, 0, &[17, 0, 0, 0]),
        ask(9, 5, &write(FILE, 15, b"third")),
        ask(9, 6, &write(FILE, 9, b"second")),
        ask(8, 7, &read_request(FILE, 0)),
        tell(8, 7, 0, &read_answer(b"what is read")),
        ask(17, 8, &rename),
        tell(17, 8, 0, &[2, 0]),
        ask(6, 9, &close(FILE)),
        tell(6, 9, 0, &[60, 0]),
        ask(3, 10, &tree("\\\\srv\\IPC$")),
        tell(3, 10, 0, &[16, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ask(5, 11, &create("spoolss")),
        tell(5, 11, 0, &created(PIPE)),
        ask(9, 12, &write(PIPE, 0, &bind())),
        ask(11, 13, &transceive),
        tell(11, 13, 0, &answered),
    ]
}

const WANTED: &[&str] = &[
    "0 smb.version=2",
    "1 smb.ntlmssp_domain CORP",
    "1 smb.ntlmssp_user alice",
    "2 smb.share \\\\\\\\srv\\\\data",
    "4 file.name dir\\\\a.txt",
    "4 file.data MZ first secondthird",
    "4 filesize=20",
    "5 file.data what is read",
    "8 smb.named_pipe \\\\\\\\srv\\\\IPC$",
    "10 dcerpc.iface 12345678-1234-abcd-ef00-0123456789ab 1.2",
    "11 dcerpc.opnum=26",
    "11 dcerpc.stub_data stub",
    "11 dcerpc.stub_data ok",
];

#[test]
fn logons_shares_files_and_pipes_are_told_of() {
    let told = play(Transport::Tcp, &script(), &[]);
    assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Smb][..], None));
    told.expect(WANTED);
    told.expect_notes(&[
        "0 command=SMB2_COMMAND_NEGOTIATE_PROTOCOL",
        "0 client_dialects[1]=2.10",
        "0 dialect=2.10",
        "0 max_read_size=1048576",
        "1 status=STATUS_LOGON_FAILURE",
        "1 status_code=0xc000006d",
        "1 ntlmssp.version=10.0 build 10586 rev 15",
        "2 tree_id=5",
        "2 share_type=FILE",
        "3 filename=dir\\\\a.txt",
        "3 disposition=FILE_CREATE",
        "3 access=delete on close",
        "3 created=1234",
        "3 size=99",
        "3 fuid=00000001-0002-0000-0003-000000000004",
        "4 command=SMB2_COMMAND_WRITE",
        "4 share=\\\\\\\\srv\\\\data",
        "6 rename.from=dir\\\\a.txt",
        "6 rename.to=b.txt",
        "8 named_pipe=\\\\\\\\srv\\\\IPC$",
        "10 dcerpc.request=BIND",
        "11 dcerpc.opnum=26",
        "11 dcerpc.res.stub_data_size=2",
        "11 command=SMB2_COMMAND_IOCTL",
    ]);
    assert_eq!(told.events(), ["smb.negotiate_max_write_size_too_large"]);
}

#[test]
fn messages_within_one_record_and_bytes_that_come_late() {
    let first = two(3, 1, 0, 0, 96, &tree("\\\\srv\\data"));
    assert!(first.len() <= 96);
    let pad = vec![0; 96 - first.len()];
    let both = [first, pad, two(9, 2, 0, 0, 0, &write(FILE, 0, &[b'x'; 300]))].concat();
    let told = play(Transport::Tcp, &[(Dir::ToServer, record(&both))], &[1]);
    told.expect(&["0 smb.share \\\\\\\\srv\\\\data", &format!("1 file.data {}", "x".repeat(300))]);
}

#[test]
fn lost_bytes_within_data_are_passed_over() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    let message = record(&two(9, 1, 0, 0, 0, &write(FILE, 0, b"a file of some bytes 0123456789")));
    let (head, data) = message.split_at(message.len() - 10);
    session.data(Dir::ToServer, head, &mut context, &mut told);
    session.data(Dir::ToServer, &data[..4], &mut context, &mut told);
    session.gap(Dir::ToServer, 3, &mut context, &mut told);
    session.data(Dir::ToServer, &data[7..], &mut context, &mut told);
    session.data(Dir::ToServer, &record(&two(3, 2, 0, 0, 0, &tree("\\\\a\\b"))), &mut context, &mut told);
    session.close(&mut context, &mut told);
    told.expect(&["0 file.data a file of some bytes 0123789", "1 smb.share \\\\\\\\a\\\\b"]);
    let (mut told, mut session) = (Told::default(), Session::new(Transport::Tcp));
    session.data(Dir::ToServer, &message[..60], &mut context, &mut told);
    session.gap(Dir::ToServer, 1000, &mut context, &mut told);
    assert_eq!(told.finished, Some(Finished::Gap));
}

#[test]
fn more_than_is_kept_in_order_is_told_of_and_does_not_stay() {
    let pieces: Vec<_> = (0..100).map(|at| ask(9, at, &write(FILE, 10 + at * 2, b"x"))).collect();
    let told = play(Transport::Tcp, &[vec![ask(9, 200, &write(FILE, 0, b"a"))], pieces].concat(), &[]);
    assert_eq!(told.events(), ["smb.write_queue_cnt_exceeded"]);
    let large = record(&two(5, 1, 0, 0, 0, &vec![0; 300_000]));
    assert_eq!(play(Transport::Tcp, &[ask(0, 0, &[]), (Dir::ToServer, large)], &[5000]).finished, Some(Finished::Cap("MESSAGE_BYTES_MAX")));
}

#[test]
fn what_is_odd_is_told_of() {
    let told = play(Transport::Tcp, &[ask(0, 1, &[36, 0, 9, 0]), (Dir::ToServer, record(&two(0, 2, 0, 1, 0, &[])))], &[]);
    assert_eq!(told.lines.iter().filter(|line| line.contains('!')).count(), 2, "{:?}", told.lines);
    let broken = [&ntlmssp("A", "B")[..40], &[0xff; 30]].concat();
    let setup = [&[25, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 88, 0, broken.len() as u8, 0], &[0; 8][..], &broken].concat();
    assert_eq!(play(Transport::Tcp, &[ask(1, 1, &setup)], &[]).events(), ["smb.malformed_ntlmssp_request"]);
    for bytes in [&b"\0\0\0\x10HTTP"[..], b"\x81\0\0\x44\x20aaaa", b"\0\x10\0\0\xffSMB", b"GET / HTTP/1.1\r\n\r\n"] {
        assert!(!play(Transport::Tcp, &[(Dir::ToServer, bytes.to_vec())], &[]).protocols.contains(&Protocol::Smb));
    }
}

/// A message of SMB 1.
fn one(command: u8, answer: bool, words: &[u8], bytes: &[u8]) -> Vec<u8> {
    let flags = if answer { 0x88 } else { 0x08 };
    let head = [b"\xffSMB", &[command, 0, 0, 0, 0, flags, 0x00, 0x40][..], &[0; 12], &[3, 0, 0, 0, 4, 0, 6, 0]].concat();
    record(&[&head[..], &[words.len() as u8 / 2], words, &(bytes.len() as u16).to_le_bytes()[..], bytes].concat())
}

fn script_of_one() -> Vec<(Dir, Vec<u8>)> {
    let mut create = vec![0; 48];
    (create[0], create[35]) = (0xff, 1);
    let mut created = vec![0; 68];
    (created[0], created[5]) = (0xff, 0x44);
    created[55] = 77;
    // Behind 32 bytes of head, a count, 28 bytes of words and the count of bytes.
    let mut write = vec![0; 28];
    (write[0], write[4], write[20], write[22]) = (0xff, 0x44, 5, 63);
    let connect = [0xff, 0, 0, 0, 0, 0, 1, 0];
    let trans = |data: Vec<u8>| {
        let mut words = vec![0; 32];
        (words[22], words[24], words[26], words[28], words[30]) = (data.len() as u8, 67, 2, 0x26, 0x44);
        one(0x25, false, &words, &data)
    };
    let mut result_words = vec![0; 20];
    (result_words[12], result_words[14]) = (26, 55);
    let mut setup = vec![0; 26];
    setup[0] = 0xff;
    vec![
        (Dir::ToServer, one(0x72, false, &[], b"\x02PC NETWORK PROGRAM 1.0\0\x02NT LM 0.12\0")),
        (Dir::ToClient, one(0x72, true, &[&[1, 0][..], &[0; 32]].concat(), &[0x11; 16])),
        (Dir::ToServer, one(0x73, false, &setup, b"user\0domain\0Unix\0Samba\0")),
        (Dir::ToClient, one(0x73, true, &[0xff, 0, 0, 0, 0, 0], b"Windows\0Manager\0")),
        (Dir::ToServer, one(0x75, false, &connect, b"\0\\\\SRV\\C$\0?????\0")),
        (Dir::ToClient, one(0x75, true, &[0xff, 0, 0, 0, 0, 0], b"A:\0NTFS\0")),
        (Dir::ToServer, one(0xa2, false, &create, b"\\evil.exe\0")),
        (Dir::ToClient, one(0xa2, true, &created, b"")),
        (Dir::ToServer, one(0x2f, false, &write, b"MZ\x90\0\x03")),
        (Dir::ToServer, one(0x04, false, &[0x44, 0, 0, 0, 0, 0], b"")),
        (Dir::ToClient, one(0x04, true, &[], b"")),
        (Dir::ToServer, trans(bind())),
        (Dir::ToServer, trans(call(3))),
        (Dir::ToClient, one(0x25, true, &result_words, &result())),
        (Dir::ToServer, one(0x07, false, &[0, 0], b"\x04\\a\0\x04\\b\0")),
    ]
}

#[test]
fn the_old_form_is_read_too() {
    let told = play(Transport::Tcp, &script_of_one(), &[]);
    told.expect(&[
        "2 smb.share \\\\\\\\SRV\\\\C$",
        "4 file.name \\\\evil.exe",
        "4 file.data MZ\\x90\\x00\\x03",
        "4 smb.version=1",
        "7 dcerpc.opnum=3",
        "7 dcerpc.stub_data stub",
        "7 dcerpc.stub_data ok",
    ]);
    told.expect_notes(&[
        "0 client_dialects[1]=NT LM 0.12",
        "0 dialect=NT LM 0.12",
        "0 server_guid=11111111-1111-1111-1111-111111111111",
        "1 request.native_os=Unix",
        "1 response.native_lm=Manager",
        "2 service.request=?????",
        "2 service.response=A:",
        "3 filename=\\\\evil.exe",
        "3 size=77",
        "8 rename.to=\\\\b",
    ]);
}

#[test]
fn the_corpus_has_the_scripts() {
    assert_corpus("smb2.bin", &framed(&script(), 127, &[]));
    assert_corpus("smb1.bin", &framed(&script_of_one(), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..90, 1..20)) {
        let whole = play(Transport::Tcp, &script(), &[]);
        let cut = play(Transport::Tcp, &script(), &cuts);
        prop_assert_eq!((cut.lines, cut.notes), (whole.lines, whole.notes));
        prop_assert_eq!(play(Transport::Tcp, &script_of_one(), &cuts).lines, play(Transport::Tcp, &script_of_one(), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..300, any::<u8>()), 0..6), cut in 1_usize..127) {
        fuzz::fuzz_session(Transport::Tcp, &framed(&script(), cut, &damage));
        fuzz::fuzz_session(Transport::Tcp, &framed(&script_of_one(), cut, &damage));
    }
}
