//! Mutated packets and captures: a verdict each, never a panic. The whole of ET Open compiles.

mod kit;

use bulkhead_ips::replay::fuzz_frames;
use bulkhead_ips::{Ruleset, Source};
use bulkhead_rules::{Classification, Severity, Variables};
use kit::*;

const RULES: &str = r#"
drop tcp any any -> any any (msg:"a"; content:"evil"; content:"more"; distance:0; sid:1;)
alert ip any any -> any any (msg:"b"; content:"a"; byte_jump:1,0,relative; byte_test:2,>,5,0,relative; sid:2;)
alert udp any any -> any any (msg:"c"; pcre:"/[a-z]{3}/"; sid:3;)
alert tcp any any -> any any (msg:"d"; flags:S; sid:4;)
pass icmp any any -> any any (msg:"e"; itype:8; sid:5;)
alert ip any any -> any any (msg:"f"; fragbits:M; sid:6;)
"#;

fn pack(choice: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![choice];
    for frame in frames {
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

#[test]
fn mutated_conversations_end_in_verdicts() {
    let rules = ruleset(RULES);
    let connection = Connection::new(40000, 80);
    let frames = vec![
        Tcp { src: connection.client, dst: connection.server, seq: 999, ack: 0, flags: SYN }.frame(b""),
        Tcp { src: connection.server, dst: connection.client, seq: 8999, ack: 1000, flags: SYN | ACK }.frame(b""),
        connection.client_says(0, ACK, b"GET /evil"),
        connection.client_says(9, ACK, b" and more"),
        connection.client_says(4, ACK, b"/evXX"),
        connection.server_says(0, ACK | FIN, b"200 a\x02aa\x00\xff"),
        udp((CLIENT, 1), (SERVER, 4789), b"\x08\0\0\0\0\0\0\0abcdefghijklmnopqrstuvwxyz"),
        icmp(CLIENT, SERVER, 8, 0, b"\0\x01\0\x01ping"),
    ];
    let mut numbers = Numbers(0xfeed_beef_0bad_cafe);
    for round in 0..4_000u32 {
        let mut mutated = frames.clone();
        for _ in 0..1 + numbers.below(6) {
            let frame = numbers.below(mutated.len());
            match numbers.below(5) {
                0 => mutated.swap(frame, 0),
                1 => {
                    let end = numbers.below(mutated[frame].len());
                    mutated[frame].truncate(end);
                }
                2 => {
                    let again = mutated[frame].clone();
                    mutated.push(again);
                }
                _ if mutated[frame].is_empty() => {}
                _ => {
                    let at = numbers.below(mutated[frame].len());
                    mutated[frame][at] = numbers.next() as u8;
                }
            }
        }
        fuzz_frames(rules.clone(), &pack((round % 2) as u8, &mutated));
    }
}

#[test]
fn rubbish_ends_in_verdicts() {
    let rules = ruleset(RULES);
    let mut numbers = Numbers(42);
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..numbers.below(400)).map(|_| numbers.next() as u8).collect();
        fuzz_frames(rules.clone(), &bytes);
    }
}

#[test]
fn what_is_loaded_of_et_open_compiles() {
    let Some(path) = data("rules/et-open.rules") else {
        println!("NOT RUN: what_is_loaded_of_et_open_compiles (../shared/data/rules/et-open.rules is absent)");
        return;
    };
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let file = bulkhead_rules::parse(&text);
    let compiled =
        Ruleset::compile(&[Source { name: "et-open.rules", rules: &file.rules }], &Variables::default(), &Classification::builtin());
    let refused: Vec<String> =
        compiled.diagnostics.iter().filter(|(_, found)| found.severity != Severity::Warning).map(|(_, found)| found.to_string()).collect();
    println!("{} of {} rules compiled; refused: {refused:#?}", compiled.ruleset.len(), file.rules.len());
    assert!(compiled.diagnostics.iter().all(|(_, found)| found.severity != Severity::Error), "{refused:#?}");
    assert_eq!(compiled.ruleset.len() + refused.len(), file.rules.len());
    // An everyday exchange meets all of them and comes through.
    let mut bench = Bench::new(RULES);
    bench.pipeline.swap_rules(compiled.ruleset);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert!(
        connection.request(&mut bench, b"GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/8.0\r\n\r\n").verdict.passes()
    );
    assert!(connection.reply(&mut bench, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").verdict.passes());
}
