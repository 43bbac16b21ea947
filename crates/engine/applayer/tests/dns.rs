//! DNS through a session: names, numbers and events, wherever the bytes are cut.

mod play;

use bulkhead_applayer::{Buffer, Config, Context, Dir, Field, Finished, Protocol, Session, Sink, Transaction, Transport, fuzz};
use proptest::prelude::*;

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    protocol: Option<Protocol>,
    finished: Option<Finished>,
}

impl Sink for Told {
    fn recognised(&mut self, protocol: Protocol) {
        self.protocol = Some(protocol);
    }

    fn update(&mut self, _: &mut Transaction, _: Dir) {}

    fn complete(&mut self, tx: &mut Transaction) {
        for value in tx.values() {
            self.lines.push(format!("{} {} {}", tx.id, value.buffer.name(), String::from_utf8_lossy(tx.bytes(value))));
        }
        self.lines.extend(tx.integers().iter().map(|(field, _, value)| format!("{} {}={value}", tx.id, field.name())));
        self.lines.extend(tx.events().map(|(event, _)| format!("{} !{event}", tx.id)));
    }

    fn finished(&mut self, why: Finished) {
        self.finished = Some(why);
    }
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut all: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    all.push(0);
    all
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [0x1234, flags].iter().chain(&counts).flat_map(|number| number.to_be_bytes()).collect()
}

fn query(text: &str) -> Vec<u8> {
    [header(0x0100, [1, 0, 0, 0]), name(text), vec![0, 1, 0, 1]].concat()
}

fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    [owner, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 9], &(data.len() as u16).to_be_bytes(), data].concat()
}

/// A question for `www.Example.test`, its alias, its address, a name server and an option.
fn answer() -> Vec<u8> {
    [
        header(0x8183, [1, 2, 1, 1]),
        name("www.Example.test"),
        vec![0, 1, 0, 1],
        record(&[0xc0, 12], 5, &[3, b'c', b'd', b'n', 0xc0, 16]),
        record(&[0xc0, 46], 1, &[192, 0, 2, 1]),
        record(&[0xc0, 24], 2, &[2, b'n', b's', 0xc0, 24]),
        record(&[0], 41, &[]),
    ]
    .concat()
}

fn read(transport: Transport, script: &[(Dir, Vec<u8>)], cuts: &[usize]) -> Told {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(transport));
    let mut cuts = cuts.iter().cycle();
    for (dir, bytes) in script {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len()));
            session.data(*dir, now, &mut context, &mut told);
            rest = later;
        }
    }
    session.close(&mut context, &mut told);
    told
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

const WANTED: &[&str] = &[
    "0 dns.queries.rrname www.Example.test",
    "0 dns.query www.Example.test",
    "0 dns.opcode=0",
    "0 dns.rrtype=1",
    "1 dns.queries.rrname www.Example.test",
    "1 dns.response.rrname www.Example.test",
    "1 dns.answers.rrname www.Example.test",
    "1 dns.response.rrname www.Example.test",
    "1 dns.response.rrname cdn.Example.test",
    "1 dns.answers.rrname cdn.Example.test",
    "1 dns.response.rrname cdn.Example.test",
    "1 dns.authorities.rrname test",
    "1 dns.response.rrname test",
    "1 dns.response.rrname ns.test",
    "1 dns.additionals.rrname ",
    "1 dns.response.rrname ",
    "1 dns.opcode=0",
    "1 dns.rcode=3",
    "1 dns.rrtype=1",
    "1 dns.rrtype=5",
    "1 dns.rrtype=1",
];

#[test]
fn messages_become_names_and_numbers() {
    let told = read(Transport::Udp, &[(Dir::ToServer, query("www.Example.test")), (Dir::ToClient, answer())], &[]);
    assert_eq!((told.protocol, told.finished), (Some(Protocol::Dns), None));
    assert_eq!(told.lines, WANTED);
    let script = [(Dir::ToServer, framed(&query("www.Example.test"))), (Dir::ToClient, framed(&answer()))];
    assert_eq!(read(Transport::Tcp, &script, &[]).lines, WANTED);
}

#[test]
fn what_is_wrong_is_told_of_and_the_rest_is_read() {
    let loops = [header(0x0100, [2, 0, 0, 0]), name("a.b"), vec![0, 1, 0, 1], vec![1, b'x', 0xc0, 21, 0, 1, 0, 1]].concat();
    let told = read(Transport::Udp, &[(Dir::ToServer, loops)], &[]);
    assert!(told.lines.contains(&"0 dns.query a.b".to_owned()), "{:?}", told.lines);
    assert!(told.lines.iter().any(|line| line == "0 !dns.infinite_loop" || line == "0 !dns.too_many_labels"), "{:?}", told.lines);
    for (message, event) in [
        ([header(0x0140, [1, 0, 0, 0]), name("a"), vec![0, 1, 0, 1]].concat(), "z_flag_set"),
        ([header(0x8100, [1, 0, 0, 0]), name("a"), vec![0, 1, 0, 1]].concat(), "not_request"),
        ([header(0x0100, [1, 1, 0, 0]), name("a"), vec![0, 1, 0, 1], vec![0; 11]].concat(), ""),
        ([header(0x0100, [1, 1, 0, 0]), name("a"), vec![0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1]].concat(), "malformed_data"),
        ([header(0x0100, [1, 0, 0, 1]), name("a"), vec![0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1]].concat(), "invalid_additionals"),
    ] {
        let told = read(Transport::Udp, &[(Dir::ToServer, query("first")), (Dir::ToServer, message)], &[]);
        let events: Vec<&String> = told.lines.iter().filter(|line| line.contains('!')).collect();
        assert_eq!(events.len(), usize::from(!event.is_empty()), "{events:?}");
        assert!(events.iter().all(|line| line.ends_with(event)), "{events:?} {event}");
    }
}

#[test]
fn a_datagram_that_says_nothing_does_not_hide_the_next() {
    let told = read(Transport::Udp, &[(Dir::ToServer, vec![0; 40]), (Dir::ToServer, query("hidden.test"))], &[]);
    assert!(told.lines.contains(&"0 dns.query hidden.test".to_owned()));
    let noise = vec![(Dir::ToServer, vec![7; 40]); 20];
    assert_eq!(read(Transport::Udp, &noise, &[]).finished, Some(Finished::Unknown));
}

#[test]
fn lost_bytes_within_a_message_lose_that_message() {
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    let first = framed(&query("first.test"));
    session.data(Dir::ToServer, &first, &mut context, &mut told);
    session.data(Dir::ToServer, &first[..9], &mut context, &mut told);
    session.gap(Dir::ToServer, 5, &mut context, &mut told);
    session.data(Dir::ToServer, &[&first[14..], &framed(&query("third.test"))].concat(), &mut context, &mut told);
    session.data(Dir::ToServer, &first[..9], &mut context, &mut told);
    session.gap(Dir::ToServer, 500, &mut context, &mut told);
    let names: Vec<&String> = told.lines.iter().filter(|line| line.contains("dns.query ")).collect();
    assert_eq!(names, ["0 dns.query first.test", "1 dns.query third.test"]);
    assert_eq!(told.finished, Some(Finished::Gap));
}

#[test]
fn names_that_grow_by_compression_stay_within_caps() {
    // One name of 250 bytes, and answers that all point to it.
    let long = ["x".repeat(62).as_str(); 4].join(".");
    let mut message = [header(0x8100, [1, 5000, 0, 0]), name(&long), vec![0, 1, 0, 1]].concat();
    for _ in 0..5000 {
        message.extend(record(&[0xc0, 12], 16, &[]));
    }
    let script = [(Dir::ToServer, framed(&query("a"))), (Dir::ToClient, framed(&message))];
    let (mut context, mut told, mut session) = (Context::new(Config::default()), Told::default(), Session::new(Transport::Tcp));
    for (dir, bytes) in &script {
        session.data(*dir, bytes, &mut context, &mut told);
    }
    let bytes: usize = told.lines.iter().map(String::len).sum();
    assert!(bytes < 3 << 20 && context.stats.overflowed == 1, "{bytes} bytes");
}

#[test]
fn a_name_that_is_too_long_is_cut_and_told_of() {
    let long = ["x".repeat(40).as_str(); 80].join(".");
    let told = read(Transport::Tcp, &[(Dir::ToServer, framed(&query(&long)))], &[100]);
    let wanted = format!("0 dns.query {}", &long[..1025]);
    assert!(told.lines.contains(&wanted) && told.lines.contains(&"0 !dns.name_too_long".to_owned()), "{:?}", told.lines);
}

#[test]
fn the_rule_language_finds_its_names() {
    for text in ["dns.query", "dns.queries.rrname", "dns.answers.rrname", "dns.authorities.rrname", "dns.additionals.rrname"] {
        assert!(Buffer::from_name(text).is_some(), "{text}");
    }
    assert_eq!(Field::from_name("dns.rcode"), Some(Field::DnsRcode));
}

#[test]
fn ports_tell_the_names_of_the_link_from_those_of_servers() {
    for (port, name) in [(5353, "mdns"), (5355, "llmnr"), (53, "dns")] {
        let (mut context, mut told) = (Context::new(Config::default()), Told::default());
        let mut session = Session::new(Transport::Udp).between([40_000, port]);
        let mut odd = query("printer.local");
        odd[2] |= 0x78;
        for message in [query("printer.local"), answer(), odd] {
            session.data(Dir::ToServer, &message, &mut context, &mut told);
        }
        session.close(&mut context, &mut told);
        assert_eq!(told.protocol.map(Protocol::name), Some(name));
        for line in [
            format!("0 {name}.queries.rrname printer.local"),
            format!("1 {name}.answers.rrname cdn.Example.test"),
            format!("1 {name}.authorities.rrname test"),
            format!("1 {name}.response.rrname ns.test"),
            format!("2 !{name}.invalid_opcode"),
        ] {
            assert!(told.lines.contains(&line), "{line} is not in {:#?}", told.lines);
        }
        // Whoever is asked may answer to all.
        assert_eq!(told.lines.iter().any(|line| line.contains("not_request")), name == "dns");
    }
}

proptest! {
    #[test]
    fn segments_do_not_matter(cuts in prop::collection::vec(1_usize..30, 1..20)) {
        let script = [(Dir::ToServer, framed(&query("www.Example.test"))), (Dir::ToClient, framed(&answer()))];
        prop_assert_eq!(read(Transport::Tcp, &script, &cuts).lines, WANTED);
    }

    #[test]
    fn any_datagram_is_read(at in 0_usize..120, noise in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut message = answer();
        let at = at.min(message.len());
        message.splice(at..(at + noise.len()).min(message.len()), noise);
        message.truncate(127);
        let first = query("a");
        let bytes = [&[(first.len() as u8) << 1], first.as_slice(), &[(message.len() as u8) << 1 | 1], &message].concat();
        fuzz::fuzz_session(Transport::Udp, &bytes);
        fuzz::fuzz_session(Transport::Tcp, &bytes);
    }
}

#[test]
fn a_first_name_may_go_on_further_behind_and_netbios_is_not_dns() {
    let question = b"\x8e\x04\x01\0\0\x02\0\0\0\0\0\0\xc0\x12\0\x01\0\x01\x01a\x04test\0\0\x01\0\x01";
    let told = play::play(Transport::Udp, &[(Dir::ToServer, question.to_vec())], &[]);
    told.expect(&["0 dns.query a.test"]);
    let netbios = [b"\x84\xe7\x01\x10\0\x01\0\0\0\0\0\0\x20EFEDEJFPEEEPENEBEJEOCACACACACABM\0", &b"\0\x20\0\x01"[..]].concat();
    assert!(play::play(Transport::Udp, &[(Dir::ToServer, netbios)], &[]).protocols.is_empty());
}
