//! SMTP through a session: mails, their fields and files, and what is said around them.

mod play;

use bulkhead_applayer::{Dir, Finished, Protocol, Transport, fuzz};
use play::{Told, play};
use proptest::prelude::*;

fn says(script: &[(Dir, &str)]) -> Vec<(Dir, Vec<u8>)> {
    script.iter().map(|(dir, text)| (*dir, text.replace('\n', "\r\n").into_bytes())).collect()
}

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

const SCRIPT: &[(Dir, &str)] = &[
    (SERVER, "220 mail.test ESMTP\n"),
    (CLIENT, "EHLO client.test\n"),
    (SERVER, "250-mail.test\n250 PIPELINING\n"),
    (CLIENT, "MAIL FROM:<a@b.test> SIZE=9\nRCPT TO:<c@d.test>\nRCPT TO: <e@f.test>\nDATA\n"),
    (SERVER, "250 ok\n250 ok\n250 ok\n354 go\n"),
    (
        CLIENT,
        "From: A <a@b.test>\nSubject: hello\nReceived: one\nReceived: two\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\
         Content-Disposition: attachment; filename=\"run.exe\"\nContent-Transfer-Encoding: base64\n\nTVqQAA==\n--x\n\
         Content-Disposition: attachment; filename=dots\n\n..one\n..\nMAIL FROM:<not@a.command>\n--x--\n.\n",
    ),
    (SERVER, "250 queued\n"),
    (CLIENT, "MAIL FROM:<g@h.test>\nBDAT 6\nSubjecBDAT 12 LAST\nt: two\n\nbody"),
    (SERVER, "250 ok\n250 ok\n250 ok\n"),
    (CLIENT, "QUIT\n"),
    (SERVER, "221 bye\n"),
];

#[test]
fn mails_become_transactions() {
    let told = play(Transport::Tcp, &says(SCRIPT), &[]);
    assert_eq!(told.protocols, [Protocol::Smtp]);
    told.expect(&[
        "0 smtp.helo client.test",
        "0 smtp.mail_from <a@b.test>",
        "0 smtp.rcpt_to <c@d.test>",
        "0 smtp.rcpt_to <e@f.test>",
        "0 email.from A <a@b.test>",
        "0 email.subject hello",
        "0 email.received two",
        "0 file.name run.exe",
        r"0 file.data MZ\x90\x00",
        "0 file.name dots",
        r"0 file.data .one\r\n.\r\nMAIL FROM:<not@a.command>",
        "0 filesize=4",
        "1 smtp.helo client.test",
        "1 smtp.mail_from <g@h.test>",
        "1 email.subject two",
    ]);
    assert_eq!((told.events(), told.finished), (vec![], None));
}

#[test]
fn only_the_answer_tells_what_follows() {
    let rejected = |answer: &str| -> Told {
        let answer = format!("250 ok\n250 ok\n{answer}\n");
        play(
            Transport::Tcp,
            &says(&[
                (SERVER, "220 x\n"),
                (CLIENT, "EHLO c\n"),
                (SERVER, "250 x\n"),
                (CLIENT, "MAIL FROM:<a>\nRCPT TO:<b>\nDATA\nRCPT TO:<hidden>\n.\n"),
                (SERVER, &answer),
            ]),
            &[],
        )
    };
    let told = rejected("503 no");
    told.expect(&["0 smtp.rcpt_to <hidden>"]);
    assert_eq!(told.events(), ["smtp.invalid_pipelined_sequence", "smtp.data_command_rejected"]);
    let told = rejected("354 go");
    assert!(!told.lines.contains(&"0 smtp.rcpt_to <hidden>".to_owned()));
    assert_eq!(told.events(), ["smtp.invalid_pipelined_sequence"]);
}

#[test]
fn what_follows_starttls_is_another_protocol() {
    let script = |answer: &str| {
        let mut script = says(&[(SERVER, "220 x\n"), (CLIENT, "EHLO c\n"), (SERVER, "250 x\n"), (CLIENT, "STARTTLS\n"), (SERVER, answer)]);
        script.push((CLIENT, b"\x16\x03\x01\x00\x2d\x01\0\0\x29\x03\x03".iter().copied().chain([0; 36]).collect()));
        script
    };
    assert_eq!(play(Transport::Tcp, &script("220 go\n"), &[]).protocols, [Protocol::Smtp, Protocol::Tls]);
    let told = play(Transport::Tcp, &script("454 no\n"), &[]);
    assert_eq!((told.protocols.as_slice(), told.events()[0]), (&[Protocol::Smtp][..], "smtp.tls_rejected"));
}

#[test]
fn oddities_are_events_and_caps_hold() {
    let after =
        |text: &str| play(Transport::Tcp, &says(&[(SERVER, "220 x\n"), (CLIENT, "EHLO c\n"), (SERVER, "250 x\n"), (CLIENT, text)]), &[]);
    assert_eq!(after("BDAT 5 X\nMAIL FROM:<a>\n").events(), ["smtp.invalid_bdat"]);
    after("BDAT 5 X\nMAIL FROM:<a>\n").expect(&["0 smtp.mail_from <a>"]);
    assert_eq!(after(&format!("MAIL FROM:<{}>\n", "a".repeat(5000))).events(), ["smtp.max_command_line_len_exceeded"]);
    assert_eq!(after(&"NOOP\n".repeat(600)).finished, Some(Finished::Cap("COMMANDS_MAX")));
    let server = |first: &str, later: &str| play(Transport::Tcp, &says(&[(SERVER, first), (CLIENT, "EHLO c\n"), (SERVER, later)]), &[]);
    assert_eq!(server("220 x\n", "250 x\n250 y\n").events(), ["smtp.unable_to_match_reply_with_request"]);
    assert_eq!(server("220 x\n", "rubbish\n").events(), ["smtp.invalid_reply"]);
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..60, 1..20)) {
        prop_assert_eq!(play(Transport::Tcp, &says(SCRIPT), &cuts).lines, play(Transport::Tcp, &says(SCRIPT), &[]).lines);
    }

    #[test]
    fn any_bytes_are_read(damage in prop::collection::vec((0_usize..500, any::<u8>()), 0..9), cut in 1_usize..120) {
        let mut framed = Vec::new();
        for (dir, mut bytes) in says(SCRIPT) {
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
fn links_in_text_and_the_bodys_digest_are_told_of() {
    let mail = b"Subject: s\r\n\r\nsee http://a.test/x\r\n..and ftp://b.test\r\n.\r\n";
    let script = [
        (Dir::ToClient, b"220 hi\r\n".to_vec()),
        (Dir::ToServer, b"EHLO me\r\nMAIL FROM:<a@b>\r\nDATA\r\n".to_vec()),
        (Dir::ToClient, b"250 ok\r\n250 ok\r\n354 go\r\n".to_vec()),
        (Dir::ToServer, mail.to_vec()),
        (Dir::ToClient, b"250 ok\r\n".to_vec()),
    ];
    for cuts in [&[][..], &[1], &[7]] {
        let told = play(Transport::Tcp, &script, cuts);
        // `see http://a.test/x`, `..and ftp://b.test` with their ends, as they came.
        told.expect(&["0 email.url a.test/x", "0 email.url b.test", "0 email.body_md5 3d6a865f75448cbf503b5a1257380bd8"]);
        told.expect_notes(&["0 url[0]=b.test", "0 url[1]=a.test/x", "0 subject_md5=03c7c0ace395d80182db07ae2c30f034"]);
    }
}
