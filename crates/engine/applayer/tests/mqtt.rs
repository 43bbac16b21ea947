//! MQTT: messages and what answers them, in versions 3.1, 3.1.1 and 5.

mod play;

use bulkhead_applayer::{Config, Context, Dir, Finished, Protocol, Session, Transport};
use play::{Told, assert_corpus, framed, play};

const CLIENT: Dir = Dir::ToServer;
const SERVER: Dir = Dir::ToClient;

fn message(first: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![first];
    let mut len = body.len();
    loop {
        all.push((len & 0x7f) as u8 | if len > 0x7f { 0x80 } else { 0 });
        len >>= 7;
        if len == 0 {
            break;
        }
    }
    [&all, body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn connect(version: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    let name = text(if version == 3 { "MQIsdp" } else { "MQTT" });
    message(0x10, &[&name[..], &[version, flags, 0, 60], &rest.concat()].concat())
}

fn script() -> Vec<(Dir, Vec<u8>)> {
    vec![
        (CLIENT, connect(5, 0xc6, &[&[3, 33, 0, 20], &text("me"), &[0], &text("w/t"), &text("bye"), &text("user"), &text("pass")])),
        (SERVER, message(0x20, &[1, 0, 3, 34, 0, 10])),
        (CLIENT, message(0x82, &[&[0, 1, 0], &text("a/b")[..], &[1], &text("c")[..], &[2]].concat())),
        (SERVER, message(0x90, &[0, 1, 0, 1, 0x87])),
        (CLIENT, message(0x35, &[&text("top")[..], &[0, 2, 0], b"payload"].concat())),
        (SERVER, message(0x50, &[0, 2])),
        (CLIENT, message(0x62, &[0, 2])),
        (SERVER, message(0x70, &[0, 2, 0x10, 7, 31, 0, 4, b'g', b'o', b'n', b'e'])),
        (CLIENT, message(0xc0, &[])),
        (SERVER, message(0xd0, &[])),
        (CLIENT, message(0xa2, &[&[0, 3, 0], &text("c")[..]].concat())),
        (SERVER, message(0xb0, &[0, 3, 0, 17])),
        (CLIENT, message(0xe0, &[4])),
    ]
}

fn check(told: &Told) {
    assert_eq!(told.protocols, [Protocol::Mqtt]);
    told.expect(&[
        "0 mqtt.connect.protocol_string MQTT",
        "0 mqtt.connect.clientid me",
        "0 mqtt.connect.willtopic w/t",
        "0 mqtt.connect.willmessage bye",
        "0 mqtt.connect.username user",
        "0 mqtt.connect.password pass",
        "0 mqtt.connect.flags=198",
        "0 mqtt.connack.session_present=1",
        "0 mqtt.type=2",
        "1 mqtt.subscribe.topic a/b",
        "1 mqtt.subscribe.topic c",
        "1 mqtt.reason_code=135",
        "2 mqtt.publish.topic top",
        "2 mqtt.publish.message payload",
        "2 mqtt.qos=2",
        "2 mqtt.flags=1",
        "2 mqtt.type=7",
        "5 mqtt.unsubscribe.topic c",
        "5 mqtt.reason_code=17",
        "6 mqtt.reason_code=4",
    ]);
    told.expect_notes(&[
        "0 connect.flags.clean_session=true",
        "0 connect.properties.receive_maximum=20",
        "0 connect.will.topic=w/t",
        "0 connack.properties.topic_alias_maximum=10",
        "1 subscribe.topics[1].qos=2",
        "1 suback.qos_granted[1]=135",
        "2 publish.retain=true",
        "2 publish.message_id=2",
        "2 pubrec.message_id=2",
        "2 pubcomp.properties.reason_string=gone",
        "3 pingreq.qos=0",
        "5 unsuback.reason_codes[0]=17",
        "6 disconnect.reason_code=0",
    ]);
    assert!(told.events().is_empty() && told.finished.is_none(), "{:?}", told.events());
}

#[test]
fn messages_and_their_answers_are_transactions() {
    check(&play(Transport::Tcp, &script(), &[]));
    for cuts in [&[1][..], &[3, 7], &[50]] {
        check(&play(Transport::Tcp, &script(), cuts));
    }
}

#[test]
fn older_versions_have_no_properties() {
    for version in [3, 4] {
        let told = play(
            Transport::Tcp,
            &[
                (CLIENT, connect(version, 2, &[&text("me")])),
                (SERVER, message(0x20, &[0, 0])),
                (CLIENT, message(0x30, &[&text("t")[..], b"abc"].concat())),
            ],
            &[],
        );
        told.expect(&["0 mqtt.connect.clientid me", "0 mqtt.connack.return_code=0", "1 mqtt.publish.message abc"]);
        told.expect(&[&format!("1 mqtt.protocol_version={version}")]);
        assert!(told.events().is_empty());
    }
}

#[test]
fn what_comes_out_of_order_is_an_event() {
    let hello = || vec![(CLIENT, connect(4, 2, &[&text("me")])), (SERVER, message(0x20, &[0, 0]))];
    let after = |dir, bytes: Vec<u8>| {
        let mut script = hello();
        script.push((dir, bytes));
        play(Transport::Tcp, &script, &[]).events().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(after(CLIENT, connect(4, 2, &[&text("me")])), ["mqtt.double_connect"]);
    assert_eq!(after(SERVER, message(0x20, &[0, 0])), ["mqtt.missing_connect"]);
    assert_eq!(after(SERVER, message(0x40, &[0, 9])), ["mqtt.missing_publish"]);
    assert_eq!(after(SERVER, message(0x90, &[0, 9, 0])), ["mqtt.missing_subscribe"]);
    assert_eq!(after(SERVER, message(0xb0, &[0, 9])), ["mqtt.missing_unsubscribe"]);
    assert_eq!(after(CLIENT, message(0x00, b"abc")), ["mqtt.unassigned_msg_type"]);
    assert_eq!(after(CLIENT, message(0x36, &[&text("t")[..], &[0, 1]].concat())), ["mqtt.invalid_qos_level"]);
    assert_eq!(after(CLIENT, message(0x32, &text("t"))), ["mqtt.missing_msg_id", "mqtt.malformed_traffic"]);
    assert_eq!(after(CLIENT, message(0x82, &[0, 1, 0, 9, b'a'])), ["mqtt.malformed_traffic"]);
    let told = play(Transport::Tcp, &[(CLIENT, connect(4, 2, &[&text("me")])), (CLIENT, message(0x30, &text("t")))], &[]);
    assert_eq!(told.events(), ["mqtt.unintroduced_message"]);
    assert_eq!(play(Transport::Tcp, &[(CLIENT, vec![0xc0, 0])], &[]).events(), ["mqtt.unintroduced_message"]);
}

#[test]
fn caps_hold_and_the_length_that_never_ends_is_the_end() {
    let mut flood = vec![(CLIENT, connect(4, 2, &[&text("me")])), (SERVER, message(0x20, &[0, 0]))];
    flood.extend((0..300_u16).map(|id| (CLIENT, message(0x32, &[&text("t")[..], &id.to_be_bytes()].concat()))));
    assert_eq!(play(Transport::Tcp, &flood, &[]).events().len(), 300 - 256);

    let mut long = vec![(CLIENT, connect(4, 2, &[&text("me")]))];
    long.push((CLIENT, message(0x31, &[b'a'; 300_000])));
    long.push((CLIENT, message(0x30, &[&text("t")[..], b"behind"].concat())));
    let told = play(Transport::Tcp, &long, &[5000]);
    told.expect_notes(&["1 publish.truncated=true", "1 publish.retain=true", "1 publish.skipped_length=300004"]);
    told.expect(&["2 mqtt.publish.message behind"]);

    let told = play(Transport::Tcp, &[(CLIENT, connect(4, 2, &[&text("me")])), (CLIENT, vec![0x30, 0xff, 0xff, 0xff, 0xff, 1])], &[]);
    assert_eq!(told.finished, Some(Finished::Malformed("length of a message")));
    assert_eq!(told.events(), ["mqtt.malformed_traffic"]);
}

#[test]
fn other_first_words_are_not_recognised() {
    for (dir, bytes) in [
        (CLIENT, &b"\x10\x10\0\x04MQTX\x04\x02\0\x3c"[..]),
        (CLIENT, b"\x10\xff\xff\xff\xff\x01"),
        (CLIENT, b"\x30\x03\0\x01a"),
        (SERVER, b"\x20\x02\0\x09"),
        (SERVER, b"\x20\x05\0\0\x01ab"),
        (SERVER, b"\xc0\0"),
    ] {
        assert_eq!(play(Transport::Tcp, &[(dir, bytes.to_vec())], &[]).protocols, [], "{bytes:x?}");
    }
}

#[test]
fn the_corpus_has_the_script() {
    assert_corpus("mqtt.bin", &framed(&script(), 120, &[]));
}

#[test]
fn bytes_that_are_missing_in_one_direction_do_not_hide_the_other() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    session.data(CLIENT, &connect(4, 2, &[&text("me")]), &mut context, &mut told);
    session.gap(SERVER, 4, &mut context, &mut told);
    session.data(SERVER, b"whatever", &mut context, &mut told);
    session.data(CLIENT, &message(0x30, &[&text("t")[..], b"seen"].concat()), &mut context, &mut told);
    session.close(&mut context, &mut told);
    told.expect(&["1 mqtt.publish.message seen", "1 !mqtt.unintroduced_message"]);
    assert_eq!(told.finished, Some(Finished::Gap));
}
