//! NFS 2 to 4 through sessions: calls with their replies, and files.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{assert_corpus, framed, play};
use proptest::prelude::*;

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn opaque(bytes: &[u8]) -> Vec<u8> {
    let pad = bytes.len().next_multiple_of(4) - bytes.len();
    [&words(&[bytes.len() as u32])[..], bytes, &vec![0; pad]].concat()
}

fn call(xid: u32, version: u32, procedure: u32, arguments: &[&[u8]]) -> (Dir, Vec<u8>) {
    let sender = [words(&[0]), opaque(b"box"), words(&[1000, 100, 0])].concat();
    let head = words(&[xid, 0, 2, 100_003, version, procedure, 1]);
    (Dir::ToServer, [&head, &opaque(&sender), &words(&[0, 0]), arguments.concat().as_slice()].concat())
}

fn reply(xid: u32, status: u32, results: &[&[u8]]) -> (Dir, Vec<u8>) {
    (Dir::ToClient, [&words(&[xid, 1, 0, 0, 0, 0, status]), results.concat().as_slice()].concat())
}

const HANDLE: &[u8] = b"a-handle";

fn script() -> Vec<(Dir, Vec<u8>)> {
    let file = opaque(HANDLE);
    vec![
        call(1, 3, 3, &[&opaque(b"dir"), &opaque(b"report.pdf")]),
        reply(1, 0, &[&file, &words(&[0, 0])]),
        call(2, 3, 7, &[&file, &words(&[0, 0, 5, 0]), &opaque(b"first")]),
        reply(2, 0, &[&words(&[0; 6])]),
        call(3, 3, 7, &[&file, &words(&[0, 11, 5, 0]), &opaque(b"third")]),
        call(4, 3, 7, &[&file, &words(&[0, 5, 6, 2]), &opaque(b"second")]),
        call(5, 3, 6, &[&file, &words(&[0, 0, 100])]),
        reply(5, 0, &[&words(&[0, 9, 1]), &opaque(b"what was ")]),
        call(6, 3, 14, &[&opaque(b"dir"), &opaque(b"old"), &opaque(b"dir"), &opaque(b"new")]),
        reply(6, 13, &[]),
        call(7, 2, 4, &[&[7; 32], &opaque(b"two")]),
        reply(7, 0, &[&[8; 32], &[0; 68]]),
        call(8, 2, 6, &[&[8; 32], &words(&[0, 100, 0])]),
        reply(8, 0, &[&words(&[0, 0, 0, 0, 0, 4]), &[0; 44], &opaque(b"data")]),
        call(
            9,
            4,
            1,
            &[&opaque(b""), &words(&[0, 3, 22]), &opaque(b"four"), &words(&[38, 1, 2, 3, 4, 0, 0, 2]), &opaque(b"wrote"), &words(&[9, 0])],
        ),
        call(10, 4, 1, &[&opaque(b""), &words(&[0, 2, 22]), &opaque(b"d"), &words(&[28]), &opaque(b"gone")]),
        reply(10, 0, &[&opaque(b""), &words(&[2, 22, 0, 28, 0]), &[0; 20]]),
        call(11, 4, 1, &[&opaque(b""), &words(&[0, 2, 22]), &opaque(b"five"), &words(&[25, 0, 0, 0, 0, 0, 0, 99])]),
        reply(11, 0, &[&opaque(b""), &words(&[2, 22, 0, 25, 0, 1]), &opaque(b"was read")]),
    ]
}

fn over_tcp(script: &[(Dir, Vec<u8>)]) -> Vec<(Dir, Vec<u8>)> {
    script.iter().map(|(dir, bytes)| (*dir, [words(&[0x8000_0000 | bytes.len() as u32]), bytes.clone()].concat())).collect()
}

#[test]
fn calls_and_files_are_told_of() {
    for told in [play(Transport::Udp, &script(), &[]), play(Transport::Tcp, &over_tcp(&script()), &[11])] {
        assert_eq!((told.protocols.as_slice(), told.finished), (&[Protocol::Nfs][..], None));
        told.expect(&[
            "0 nfs.version=3",
            "0 nfs_procedure=3",
            "1 file.name report.pdf",
            "1 file.data firstsecondthird",
            "1 nfs_procedure=7",
            "1 filesize=16",
            "2 file.name report.pdf",
            "2 file.data what was ",
            "5 file.name two",
            "5 file.data data",
            "6 file.data wrote",
            "6 nfs.version=4",
            "7 nfs_procedure=28",
            "8 file.data was read",
        ]);
        told.expect_notes(&[
            "0 procedure=LOOKUP",
            "0 filename=report.pdf",
            "0 rpc.auth_type=UNIX",
            "0 rpc.creds.machine_name=box",
            "0 rpc.creds.uid=1000",
            "0 rpc.status=ACCEPTED",
            "0 status=OK",
            "1 file_tx=true",
            "1 write.first=true",
            "1 write.chunks=3",
            "1 write.last_xid=4",
            "3 rename.from=old",
            "3 rename.to=new",
            "3 status=ERR_ACCESS",
            "7 procedure=REMOVE",
            "7 filename=gone",
        ]);
        assert_eq!(told.events(), [""; 0]);
    }
}

#[test]
fn large_data_is_shown_as_it_comes_and_fragments_are_put_together() {
    let data: Vec<u8> = (0..300_000).map(|at| b'a' + (at % 23) as u8).collect();
    let (_, write) = call(1, 3, 7, &[&opaque(HANDLE), &words(&[0, 0, 300_000, 2]), &opaque(&data)]);
    let told = play(Transport::Tcp, &over_tcp(&[(Dir::ToServer, write), call(2, 3, 4, &[&opaque(HANDLE)])]), &[1460]);
    told.expect(&[&format!("0 file.data {}", String::from_utf8_lossy(&data)), "0 filesize=300000", "1 nfs_procedure=4"]);
    let (_, lookup) = call(3, 3, 3, &[&opaque(b"dir"), &opaque(b"parts")]);
    let (a, b) = lookup.split_at(50);
    let first = [words(&[0x8000_0000 | 44]), call(1, 3, 0, &[]).1[..44].to_vec()].concat();
    let parts = [first, words(&[50]), a.to_vec(), words(&[0x8000_0000 | b.len() as u32]), b.to_vec()].concat();
    play(Transport::Tcp, &[(Dir::ToServer, parts)], &[9]).expect_notes(&["0 filename=parts"]);
    let endless = [over_tcp(&[call(1, 3, 4, &[&opaque(HANDLE)])])[0].1.clone(), words(&[0x7fff_ffff]), vec![0; 5000]].concat();
    assert_eq!(play(Transport::Tcp, &[(Dir::ToServer, endless)], &[]).finished, Some(Finished::Cap("MESSAGE_BYTES_MAX")));
}

#[test]
fn what_is_broken_is_told_of() {
    let told = play(Transport::Udp, &[call(1, 3, 3, &[&words(&[9999])]), (Dir::ToServer, vec![0; 9])], &[]);
    assert_eq!(told.lines.iter().filter(|line| line.ends_with("!nfs.malformed_data")).count(), 2);
    assert_eq!(play(Transport::Udp, &[call(1, 9, 3, &[])], &[]).protocols, []);
}

#[test]
fn the_corpus_has_the_script() {
    let short: Vec<_> = script().into_iter().filter(|(_, bytes)| bytes.len() <= 127).collect();
    assert_corpus("nfs.bin", &framed(&short, 127, &[]));
    assert_corpus("nfs_tcp.bin", &framed(&over_tcp(&script()), 127, &[]));
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        let (whole, cut) = (play(Transport::Tcp, &over_tcp(&script()), &[]), play(Transport::Tcp, &over_tcp(&script()), &cuts));
        prop_assert_eq!((whole.lines, whole.notes), (cut.lines, cut.notes));
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..200, any::<u8>()), 0..6), cut in 1_usize..127) {
        fuzz::fuzz_session(Transport::Tcp, &framed(&over_tcp(&script()), cut, &damage));
        fuzz::fuzz_session(Transport::Udp, &framed(&script(), 127, &damage));
    }
}
