//! What the pipeline says to packets.

mod kit;

use std::sync::Arc;

use bulkhead_ips::{AcrossFlows, DropScope, EngineEvent, LinkType, OnFailure, PacketMeta, Pipeline, PipelineConfig};
use bulkhead_model::{BypassReason, DropReason, Verdict};
use kit::*;

const EVIL: &str = r#"drop tcp any any -> any 80 (msg:"exploit"; flow:established,to_server; content:"/bin/sh"; nocase; sid:1; rev:2; classtype:web-application-attack; reference:cve,2021-1;)"#;

#[test]
fn an_exploit_split_over_segments_condemns_its_flow() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 80);
    assert_eq!(connection.open(&mut bench).verdict, Verdict::Accept);
    assert_eq!(connection.request(&mut bench, b"GET /?x=/bi").verdict, Verdict::Accept);
    let outcome = connection.request(&mut bench, b"N/Sh HTTP/1.1\r\n");
    assert_eq!(outcome.verdict, Verdict::DropFlow(DropReason::Rule));
    let rule = outcome.rule.unwrap();
    assert_eq!((rule.sid, rule.rev, rule.priority, &*rule.category), (1, 2, 1, "Web Application Attack"));
    assert_eq!(connection.request(&mut bench, b"more").verdict, Verdict::Drop(DropReason::Flow));
    assert_eq!(connection.reply(&mut bench, b"answer").verdict, Verdict::Drop(DropReason::Flow));
    let alerts = bench.alerts();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].blocked && alerts[0].stream && alerts[0].excerpt.ends_with(b"/biN/Sh"));
    assert!(
        bench.events.iter().any(|event| matches!(event, EngineEvent::Drop(drop) if drop.carried_out && drop.reason == DropReason::Rule))
    );
}

#[test]
fn a_rule_whose_header_stands_for_nothing_is_loaded_and_never_matches() {
    use bulkhead_ips::{Ruleset, Source};
    use bulkhead_rules::{Classification, Code, Severity, Variables};

    let text = "\
alert tcp [203.0.113.1,!203.0.113.0/24] any -> any 80 (msg:\"no source\"; content:\"/bin/sh\"; sid:11; rev:1;)
alert tcp any any -> any [80,!1:100] (msg:\"no port\"; content:\"/bin/sh\"; sid:12; rev:1;)
alert tcp any any -> $EXTERNAL_NET 80 (msg:\"no outside\"; content:\"/bin/sh\"; sid:13; rev:1;)
alert tcp any any <> any 80 (msg:\"all\"; content:\"/bin/sh\"; sid:14; rev:1;)
";
    let mut variables = Variables::default();
    variables.define("HOME_NET", "any");
    let file = bulkhead_rules::parse(text);
    let done = Ruleset::compile(&[Source { name: "test.rules", rules: &file.rules }], &variables, &Classification::builtin());
    let told: Vec<_> = done.diagnostics.iter().map(|(_, found)| (found.code, found.severity, found.sid)).collect();
    assert_eq!(told, [11, 12, 13].map(|sid| (Code::EmptySet, Severity::Warning, Some(sid))));
    assert_eq!(done.ruleset.len(), 4);
    let mut bench = Bench::running(PipelineConfig::default(), done.ruleset);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"GET /bin/sh\r\n");
    assert_eq!(bench.alerts().iter().map(|alert| alert.rule.sid).collect::<Vec<_>>(), [14]);
}

#[test]
fn what_is_suppressed_is_done_in_silence() {
    use bulkhead_ips::{Ruleset, Source};
    use bulkhead_rules::{Beside, Classification, Library, Variables};

    let text = EVIL.replace("sid:1", "sid:5");
    for (threshold, heard) in [
        ("suppress gen_id 1, sig_id 5", false),
        ("suppress gen_id 1, sig_id 5, track by_src, ip 198.51.100.0/24", false),
        ("suppress gen_id 1, sig_id 5, track by_either, ip [198.51.100.0/24,192.0.2.0/24]", false),
        ("suppress gen_id 1, sig_id 5, track by_src, ip 203.0.113.0/24", true),
        ("suppress gen_id 1, sig_id 6", true),
    ] {
        let library = Library::read([(Beside::Threshold, "threshold.config", threshold)]);
        let (file, _) = library.rules("test.rules", &text);
        let done =
            Ruleset::compile(&[Source { name: "test.rules", rules: &file.rules }], &Variables::default(), &Classification::builtin());
        let mut bench = Bench::running(PipelineConfig::default(), done.ruleset);
        let mut connection = Connection::new(40000, 80);
        connection.open(&mut bench);
        let outcome = connection.request(&mut bench, b"GET /bin/sh\r\n");
        assert_eq!(outcome.verdict, Verdict::DropFlow(DropReason::Rule), "{threshold}");
        assert_eq!(bench.alerts().len(), usize::from(heard), "{threshold}");
    }
}

#[test]
fn monitor_mode_lets_go_and_says_once_what_protect_would_do() {
    let mut bench = Bench::new(EVIL);
    bench.protect = false;
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    for _ in 0..3 {
        let outcome = connection.request(&mut bench, b"GET /bin/sh\r\n");
        assert_eq!(outcome.verdict, Verdict::Accept);
        assert_eq!(outcome.would, Some(Verdict::DropFlow(DropReason::Rule)));
    }
    assert_eq!(connection.request(&mut bench, b"harmless").would, None);
    let alerts = bench.alerts();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].would_have_blocked && !alerts[0].blocked);
}

#[test]
fn a_flow_that_passed_unseen_for_a_while_is_inspected_again_from_its_next_segment_on() {
    for gap in [false, true] {
        let mut bench = Bench::new(EVIL);
        let mut connection = Connection::new(40000, 80);
        connection.open(&mut bench);
        connection.request(&mut bench, b"GET /");
        // A thousand bytes went by; nobody will ever send them to the engine.
        bench.gap = gap;
        let outcome = bench.send(&connection.client_says(1000, ACK, b"/bin/sh"));
        let judged = if gap { Verdict::DropFlow(DropReason::Rule) } else { Verdict::Accept };
        assert_eq!(outcome.verdict, judged, "without the word it waits for what comes before it");
    }
}

#[test]
fn a_segment_that_comes_early_is_judged_in_its_place() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert!(bench.send(&connection.client_says(4, ACK, b"n/sh")).verdict.passes());
    assert_eq!(bench.send(&connection.client_says(0, ACK, b"/bi")).verdict, Verdict::Accept);
    assert_eq!(bench.sids(), Vec::<u32>::new());
    // One byte is missing between them: "/bi" + "?" + "n/sh" is not the exploit, "/bi" "n/sh" shifted is.
    let mut bench = Bench::new(EVIL);
    connection.open(&mut bench);
    assert!(bench.send(&connection.client_says(3, ACK, b"n/sh")).verdict.passes());
    assert!(!bench.send(&connection.client_says(0, ACK, b"/bi")).verdict.passes());
    assert_eq!(bench.sids(), [1]);
    // The half that was taken early does not get through with a retransmission of the first.
    assert!(!bench.send(&connection.client_says(0, ACK, b"/bi")).verdict.passes());
}

#[test]
fn bytes_that_differ_from_judged_ones_are_dropped() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert_eq!(bench.send(&connection.client_says(0, ACK, b"/xxx/xx")).verdict, Verdict::Accept);
    assert_eq!(bench.send(&connection.client_says(0, ACK, b"/bin/sh")).verdict, Verdict::Drop(DropReason::StreamConflict));
    assert_eq!(bench.send(&connection.client_says(0, ACK, b"/xxx/xx")).verdict, Verdict::Accept);
}

#[test]
fn ports_direction_and_state_select_rules() {
    let rules = [
        r#"alert tcp any any -> any [80,8000:8080] (msg:"port"; content:"abc"; sid:1;)"#,
        r#"alert tcp any 80 -> any any (msg:"from port"; content:"abc"; sid:2;)"#,
        r#"alert tcp any any <> any 80 (msg:"both"; content:"abc"; sid:3;)"#,
        r#"alert tcp any any -> any any (msg:"to client"; flow:to_client; content:"abc"; sid:4;)"#,
        r#"alert udp any any -> any any (msg:"udp"; content:"abc"; sid:5;)"#,
        r#"alert ip any any -> any any (msg:"ip"; content:"abc"; sid:6;)"#,
        r#"alert tcp any any -> any 443 (msg:"other port"; content:"abc"; sid:7;)"#,
        r#"alert tcp-pkt any any -> any any (msg:"packet"; content:"abc"; sid:8;)"#,
        r#"alert tcp any any -> any any (msg:"syn"; flags:S,12; sid:9;)"#,
        r#"alert tcp any any -> any any (msg:"not yet"; flow:not_established; flags:S; sid:10;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert_eq!(bench.sids(), [9, 10]);
    bench.events.clear();
    connection.request(&mut bench, b"xabcx");
    assert_eq!(bench.sids(), [1, 3, 6, 8]);
    bench.events.clear();
    connection.reply(&mut bench, b"xabcx");
    assert_eq!(bench.sids(), [2, 3, 4, 6, 8]);
    bench.events.clear();
    bench.send(&udp((CLIENT, 5000), (SERVER, 80), b"xabcx"));
    assert_eq!(bench.sids(), [5, 6]);
}

#[test]
fn home_net_is_the_protected_workload() {
    let rules = [
        r#"alert tcp $EXTERNAL_NET any -> $HOME_NET any (msg:"in"; content:"abc"; sid:1;)"#,
        r#"alert tcp $HOME_NET any -> $EXTERNAL_NET any (msg:"out"; content:"abc"; sid:2;)"#,
    ]
    .join("\n");
    for (home, expected) in [(Some(SERVER), vec![1]), (Some(CLIENT), vec![2]), (None, vec![])] {
        let mut bench = Bench::new(&rules);
        bench.home = home;
        let mut connection = Connection::new(40000, 80);
        connection.open(&mut bench);
        connection.request(&mut bench, b"abc");
        assert_eq!(bench.sids(), expected);
    }
}

#[test]
fn packet_keywords_look_at_one_packet() {
    let rules = [
        r#"alert tcp any any -> any any (msg:"dsize"; dsize:4; content:"ab"; sid:1;)"#,
        r#"alert icmp any any -> any any (msg:"ping"; itype:8; icode:0; sid:2;)"#,
        r#"alert ip any any -> any any (msg:"ttl"; ttl:<10; sid:3;)"#,
        r#"alert udp any any -> any any (msg:"same"; sameip; sid:4;)"#,
        r#"alert ip any any -> any any (msg:"proto"; ip_proto:17; sid:5;)"#,
        r#"alert ip any any -> any any (msg:"df"; fragbits:D; dsize:3; sid:6;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"aabb");
    connection.request(&mut bench, b"aabbcc");
    assert_eq!(bench.sids(), [1]);
    bench.events.clear();
    bench.send(&icmp(CLIENT, SERVER, 8, 0, b"\0\x01\0\x01ping"));
    bench.send(&icmp(SERVER, CLIENT, 0, 0, b"\0\x01\0\x01ping"));
    assert_eq!(bench.sids(), [2]);
    bench.events.clear();
    bench.send(&udp((CLIENT, 1), (CLIENT, 2), b"abc"));
    assert_eq!(bench.sids(), [4, 5, 6]);
    // Only addresses and the protocol decide: once per flow and direction.
    bench.events.clear();
    bench.send(&udp((CLIENT, 1), (CLIENT, 2), b"abcd"));
    assert_eq!(bench.sids(), [4]);
}

#[test]
fn flowbits_thresholds_and_noalert_hold_rules_back() {
    let rules = [
        r#"alert tcp any any -> any any (msg:"set"; content:"login"; flowbits:set,in; flowbits:noalert; sid:1;)"#,
        r#"alert tcp any any -> any any (msg:"isset"; content:"root"; flowbits:isset,in; sid:2;)"#,
        r#"alert tcp any any -> any any (msg:"limit"; content:"tick"; threshold:type limit, track by_src, count 2, seconds 60; sid:3;)"#,
        r#"alert tcp any any -> any any (msg:"filter"; content:"tick"; detection_filter:track by_dst, count 3, seconds 60; sid:4;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"root ");
    connection.request(&mut bench, b"login ");
    assert_eq!(bench.sids(), Vec::<u32>::new());
    connection.request(&mut bench, b"root ");
    assert_eq!(bench.sids(), [2]);
    bench.events.clear();
    for _ in 0..5 {
        connection.request(&mut bench, b"tick ");
    }
    assert_eq!(bench.sids(), [3, 3, 4, 4]);
}

#[test]
fn headers_are_buffers_and_numbers() {
    let rules = [
        r#"alert udp any any -> any any (msg:"udp"; content:"evil"; udp.hdr; content:"|00 35|"; offset:2; depth:2; sid:1;)"#,
        r#"alert ip any any -> any any (msg:"never"; udp.hdr; content:"evil"; sid:2;)"#,
        r#"alert ip any any -> any any (msg:"ip"; ipv4.hdr; content:"|11|"; offset:9; depth:1; ip.dst; content:"|c6 33 64|"; startswith; bsize:4; sid:3;)"#,
        r#"alert ip any any -> any any (msg:"option"; ipopts:any; sid:4;)"#,
        r#"alert ip any any -> any any (msg:"many"; flow.pkts_toserver:>1; content:"evil"; sid:5;)"#,
        r#"alert tcp any any -> any any (msg:"mss"; flags:S; tcp.mss:>0; sid:6;)"#,
        r#"alert tcp any any -> any any (msg:"tcp"; flags:S; tcp.hdr; content:"|02|"; offset:13; depth:1; sid:7;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    bench.send(&udp((CLIENT, 1_000), (SERVER, 53), b"evil"));
    assert_eq!(bench.sids(), if SERVER.octets()[..3] == [198, 51, 100] { vec![1, 3] } else { vec![1] });
    bench.events.clear();
    bench.send(&udp((CLIENT, 1_000), (SERVER, 53), b"evil"));
    assert!(bench.sids().contains(&5));
    bench.events.clear();
    Connection::new(40_000, 80).open(&mut bench);
    assert_eq!(bench.sids(), [7], "its SYN has no options");
}

#[test]
fn bits_of_hosts_outlive_the_flow_that_sets_them() {
    let rules = [
        r#"alert tcp any any -> any any (msg:"set"; content:"login"; xbits:set,in,track ip_src,expire 60; noalert; sid:1;)"#,
        r#"alert tcp any any -> any any (msg:"isset"; content:"root"; xbits:isset,in,track ip_src; sid:2;)"#,
        r#"alert udp any any -> any any (msg:"pair"; content:"root"; xbits:isset,in,track ip_pair; sid:3;)"#,
        r#"alert udp any any -> any any (msg:"host"; content:"root"; hostbits:isset,in,src; tag:session,5,packets; sid:4;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut first = Connection::new(40000, 80);
    first.open(&mut bench);
    first.request(&mut bench, b"root ");
    first.request(&mut bench, b"login ");
    let mut second = Connection::new(40001, 80);
    second.open(&mut bench);
    second.reply(&mut bench, b"root ");
    second.request(&mut bench, b"root ");
    bench.send(&udp((CLIENT, 1), (SERVER, 2), b"root"));
    assert_eq!(bench.sids(), [2, 4]);
}

#[test]
fn the_protocol_that_was_recognised_is_a_condition() {
    let rules = [
        r#"alert tcp any any -> any any (msg:"not http"; content:"STM"; app-layer-protocol:!http; sid:1;)"#,
        r#"alert tcp any any -> any any (msg:"http"; app-layer-protocol:http; sid:2;)"#,
        r#"alert tcp any any -> any any (msg:"failed"; app-layer-protocol:failed; sid:3;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut web = Connection::new(40000, 80);
    web.open(&mut bench);
    web.request(&mut bench, b"GET /STM HTTP/1.1\r\nHost: a\r\n\r\n");
    web.request(&mut bench, b"GET /STM HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(bench.sids(), [2], "the protocol is told of once");
    bench.events.clear();
    let mut other = Connection::new(40001, 80);
    other.open(&mut bench);
    other.request(&mut bench, &[0x01; 64]);
    other.request(&mut bench, b"\x02STM");
    for _ in 0..40 {
        other.request(&mut bench, &[0x03; 512]);
        other.reply(&mut bench, &[0x04; 512]);
    }
    assert_eq!(bench.sids(), [1, 3]);
}

#[test]
fn bytes_are_decoded_and_faults_of_ber_found_in_payloads() {
    let rules = [
        r#"alert udp any any -> any any (msg:"text"; content:"d="; base64_decode:relative; base64_data; content:"World"; sid:1;)"#,
        r#"alert udp any any -> any any (msg:"bits"; content:"BER"; asn1:bitstring_overflow, relative_offset 1; sid:2;)"#,
        r#"pass udp any any -> any any (msg:"let through"; content:"known"; alert; sid:3;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    bench.send(&udp((CLIENT, 1), (SERVER, 2), b"d=SGVsbG8gV29ybGQ="));
    bench.send(&udp((CLIENT, 1), (SERVER, 2), b"BER\0\x03\x01\xff"));
    bench.send(&udp((CLIENT, 1), (SERVER, 2), b"BER\0\x03\x01\x07"));
    bench.send(&udp((CLIENT, 1), (SERVER, 2), b"known d=SGVsbG8gV29ybGQ="));
    assert_eq!(bench.sids(), [1, 2, 3]);
}

#[test]
fn sizes_of_a_stream_count_from_the_handshake() {
    let rules = [
        r#"alert tcp any any -> any any (msg:"first"; flow:established,to_server; stream_size:server,<,5; content:"hello"; sid:1;)"#,
        r#"alert tcp any any -> any any (msg:"later"; flow:established; stream_size:both,>,10; content:"hello"; sid:2;)"#,
        r#"alert tcp any any -> any any (msg:"exact"; stream_size:client,=,6; content:"hello"; sid:3;)"#,
    ]
    .join("\n");
    let mut bench = Bench::new(&rules);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"hello");
    assert_eq!(bench.sids(), [1, 3]);
    bench.events.clear();
    connection.reply(&mut bench, b"0123456789");
    connection.request(&mut bench, b"hello");
    assert_eq!(bench.sids(), [2]);
}

#[test]
fn a_pass_rule_takes_the_flow_out_of_inspection() {
    let mut bench = Bench::new(&format!("{EVIL}\npass tcp any any -> any 80 (msg:\"trusted\"; content:\"token=1\"; sid:9;)"));
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert_eq!(connection.request(&mut bench, b"token=1 /bin/sh").verdict, Verdict::BypassFlow(BypassReason::Policy));
    assert_eq!(connection.request(&mut bench, b"/bin/sh").verdict, Verdict::BypassFlow(BypassReason::Policy));
    assert!(bench.sids().is_empty());
}

#[test]
fn reject_gives_the_numbers_for_both_resets() {
    let mut bench = Bench::new(r#"rejectboth tcp any any -> any 80 (msg:"no"; content:"evil"; sid:1;)"#);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    let outcome = connection.request(&mut bench, b"evil");
    assert_eq!(outcome.verdict, Verdict::Reject(DropReason::Rule));
    let reset = outcome.tcp_reset.unwrap();
    assert_eq!((reset.seq_to_destination, reset.ack_to_destination), (1000, 9000));
    assert_eq!((reset.seq_to_source, reset.ack_to_source), (9000, 1004));
    assert!(reset.to_source && reset.to_destination);
}

#[test]
fn what_no_rule_can_match_is_bypassed_after_the_handshake() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 5432);
    assert_eq!(connection.open(&mut bench).verdict, Verdict::BypassFlow(BypassReason::NoRule));
    assert_eq!(connection.request(&mut bench, b"x").verdict, Verdict::BypassFlow(BypassReason::NoRule));
    assert_eq!(bench.send(&udp((CLIENT, 1), (SERVER, 2), b"x")).verdict, Verdict::BypassFlow(BypassReason::NoRule));
    // Other rules, and it is looked at again.
    bench.pipeline.swap_rules(ruleset(r#"alert udp any any -> any any (msg:"u"; content:"x"; sid:3;)"#));
    assert_eq!(bench.send(&udp((CLIENT, 1), (SERVER, 2), b"x")).verdict, Verdict::Accept);
    assert_eq!(bench.sids(), [3]);
}

#[test]
fn a_connection_that_was_let_go_meets_the_rules_of_a_reload() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 5432);
    connection.open(&mut bench);
    assert_eq!(connection.request(&mut bench, b"/bin/sh").verdict, Verdict::BypassFlow(BypassReason::NoRule));
    bench.pipeline.swap_rules(ruleset(r#"drop tcp any any -> any 5432 (msg:"u"; content:"DROP TABLE"; sid:3;)"#));
    assert_eq!(connection.request(&mut bench, b"SELECT 1; DROP ").verdict, Verdict::Accept);
    assert_eq!(connection.reply(&mut bench, b"1").verdict, Verdict::Accept);
    assert!(!connection.request(&mut bench, b"TABLE users").verdict.passes());
    assert_eq!(bench.sids(), [3]);
}

#[test]
fn what_an_acknowledgement_brings_out_keeps_its_own_direction() {
    let mut bench = Bench::new(r#"alert tcp any any -> any 80 (msg:"e"; flow:to_server,established; content:"/bin/sh"; sid:1;)"#);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    // Ten bytes before it went another way, and the server has them.
    bench.send(&connection.client_says(10, PSH | ACK, b"/bin/sh"));
    assert!(bench.sids().is_empty());
    connection.client_seq += 17;
    bench.send(&connection.server_says(0, ACK, b""));
    let told: Vec<_> = bench.alerts().iter().map(|alert| (alert.rule.sid, alert.key.src.port, alert.direction)).collect();
    assert_eq!(told, [(1, 40000, Some(bulkhead_ips::Direction::ToServer))]);
}

#[test]
fn depth_and_ciphertext_end_inspection() {
    let config = PipelineConfig { stream_depth: 10, ..PipelineConfig::default() };
    let mut bench = Bench::with(config, EVIL);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert_eq!(connection.request(&mut bench, b"12345").verdict, Verdict::Accept);
    assert_eq!(connection.request(&mut bench, b"67890").verdict, Verdict::BypassDirection(BypassReason::Depth));
    assert_eq!(connection.reply(&mut bench, b"1").verdict, Verdict::Accept);

    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40001, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, &client_hello());
    connection.reply(&mut bench, &[server_hello(0x1301), record(23, b"encrypted extensions")].concat());
    assert_eq!(connection.request(&mut bench, &record(23, b"finished")).verdict, Verdict::BypassFlow(BypassReason::Encrypted));
    assert_eq!(bench.pipeline.memory(), 0, "a flow that is let go holds nothing");
}

fn record(kind: u8, contents: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &(contents.len() as u16).to_be_bytes(), contents].concat()
}

/// TLS 1.3, suite 0x1301.
fn client_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 7, 0, 43, 0, 3, 2, 3, 4]].concat();
    record(22, &[&[1, 0, 0, body.len() as u8][..], &body].concat())
}

fn server_hello(suite: u16) -> Vec<u8> {
    let body = [&[3, 3][..], &[8; 32], &[0], &suite.to_be_bytes(), &[0, 0, 6, 0, 43, 0, 2, 3, 4]].concat();
    record(22, &[&[2, 0, 0, body.len() as u8][..], &body].concat())
}

#[test]
fn clear_text_dressed_as_records_stays_under_inspection() {
    // What stands in front of an exploit that is written into "application data".
    let attempts: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("headers alone", record(22, b"x"), record(22, b"y")),
        ("nothing but data", record(23, b"x"), record(23, b"y")),
        ("a server that echoes", client_hello(), client_hello()),
        ("a suite that was not offered", client_hello(), server_hello(0x1302)),
        ("half a hello", client_hello()[..40].to_vec(), server_hello(0x1301)),
    ];
    for (name, hello, answer) in attempts {
        let mut bench = Bench::new(EVIL);
        let mut connection = Connection::new(40001, 80);
        connection.open(&mut bench);
        connection.request(&mut bench, &hello);
        connection.reply(&mut bench, &[answer, record(23, b"data")].concat());
        assert_eq!(connection.request(&mut bench, &record(23, b"data")).verdict, Verdict::Accept, "{name}");
        assert!(!connection.request(&mut bench, &record(23, b"GET /bin/sh")).verdict.passes(), "{name}");
    }
}

/// Rules whose parts repeat each other, and bytes on which each part is found everywhere.
#[test]
fn no_rules_and_bytes_make_a_packet_cost_more_than_the_cap() {
    let rules: String = (0..400)
        .map(|number| {
            format!(
                concat!(
                    "drop tcp any any -> any 80 (msg:\"w\"; content:\"ab\"; content:\"b\"; distance:0; content:\"a\"; distance:0; nocase; ",
                    "pcre:\"/a[^c]*b{{1,{0}}}[^c]*c/R\"; content:\"b\"; distance:{0}; sid:{1};)\n"
                ),
                number + 1,
                number + 1000,
            )
        })
        .collect();
    for (protect, on_unverifiable) in [(true, OnFailure::Drop), (true, OnFailure::Pass), (false, OnFailure::Drop)] {
        let config = PipelineConfig { on_unverifiable, on_cap: OnFailure::Pass, ..PipelineConfig::default() };
        let mut bench = Bench::with(config, &format!("{EVIL}\n{rules}"));
        bench.protect = protect;
        let mut connection = Connection::new(40000, 80);
        connection.open(&mut bench);
        let outcome = connection.request(&mut bench, &b"ab".repeat(16_000));
        let stats = bench.pipeline.stats();
        assert_eq!(stats.work_exhausted, 1);
        // 400 rules wanted to be looked at; each look costs thousands of units, so that few fit below the cap.
        assert!(stats.inspected < 400, "{}", stats.inspected);
        assert!(u64::from(bulkhead_ips::inspect::WORK_PER_PACKET_MAX) >= stats.inspected);
        let stated = Verdict::Drop(DropReason::Unverifiable);
        match (protect, on_unverifiable) {
            (true, OnFailure::Drop) => {
                assert_eq!((outcome.verdict, stats.drop_unverifiable), (stated, 1));
                // The same bytes do not get through when they are sent again, nor are they paid for again.
                connection.client_seq -= 32_000;
                assert!(!connection.request(&mut bench, &b"ab".repeat(16_000)).verdict.passes());
                assert_eq!(bench.pipeline.stats().work_exhausted, 1);
            }
            (true, OnFailure::Pass) => assert_eq!(outcome.verdict, Verdict::Accept),
            (false, _) => {
                assert_eq!((outcome.verdict, outcome.would), (Verdict::Accept, Some(stated)));
                assert!(
                    bench.events.iter().any(
                        |event| matches!(event, EngineEvent::Drop(drop) if !drop.carried_out && drop.reason == DropReason::Unverifiable)
                    )
                );
            }
        }
        // The next packet has all of it again.
        if outcome.verdict.passes() {
            connection.request(&mut bench, b"/bin/sh");
            assert!(bench.sids().contains(&1));
        }
    }
}

#[test]
fn payload_of_a_connection_that_is_not_known_has_the_stated_verdict() {
    for (midstream, on_unverifiable, passes) in
        [(false, OnFailure::Drop, false), (false, OnFailure::Pass, true), (true, OnFailure::Drop, true)]
    {
        let mut config = PipelineConfig { on_unverifiable, ..PipelineConfig::default() };
        config.stream.midstream = midstream;
        let mut bench = Bench::with(config, EVIL);
        let connection = Connection::new(40000, 80);
        let outcome = bench.send(&connection.client_says(0, ACK, b"hello"));
        assert_eq!(outcome.verdict.passes(), passes, "{midstream} {on_unverifiable:?} {outcome:?}");
        assert_eq!(bench.pipeline.stats().drop_unverifiable, u64::from(!passes));
        // Without payload there is nothing to judge.
        assert!(bench.send(&Connection::new(40001, 80).client_says(0, ACK, b"")).verdict.passes());
    }
    // A reset that carries bytes, and begins nothing.
    let mut bench = Bench::new(EVIL);
    let reset = Connection::new(40002, 80).client_says(0, RST, b"/bin/sh");
    assert_eq!(bench.send(&reset).verdict, Verdict::Drop(DropReason::Unverifiable));
}

#[test]
fn what_waits_behind_a_hole_is_inspected_when_its_flow_ends() {
    let mut bench = Bench::new(EVIL);
    bench.protect = false;
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    bench.send(&connection.client_says(100, ACK, b"GET /bin/sh"));
    assert!(bench.sids().is_empty());
    bench.pipeline.finish(bench.now);
    bench.events.extend(bench.pipeline.drain_events());
    assert_eq!(bench.sids(), [1]);
    let alert = bench.alerts()[0];
    assert!(alert.would_have_blocked && !alert.blocked && alert.key.dst.port == 80);
    assert_eq!(bench.pipeline.stats().inspected_at_end_bytes, 11);
    assert!(bench.events.iter().any(|event| matches!(event, EngineEvent::FlowEnd(end) if end.condemned && end.alerted)));
    assert_eq!(bench.pipeline.memory(), 0);
}

#[test]
fn what_waited_for_later_bytes_is_found_again_after_a_reload() {
    let rule = r#"drop tcp any any -> any 80 (msg:"two"; content:"alpha"; content:"omega"; distance:0; fast_pattern; sid:2;)"#;
    let first = r#"drop tcp any any -> any 80 (msg:"two"; content:"alpha"; fast_pattern; content:"omega"; distance:0; sid:2;)"#;
    for (before, after) in [(first, first), (rule, first), (first, rule)] {
        let mut bench = Bench::new(before);
        let mut connection = Connection::new(40000, 80);
        connection.open(&mut bench);
        assert!(connection.request(&mut bench, b"..alpha..").verdict.passes());
        bench.pipeline.swap_rules(ruleset(&format!("{EVIL}\n{after}")));
        assert!(connection.request(&mut bench, b"..ome").verdict.passes());
        assert!(!connection.request(&mut bench, b"ga..").verdict.passes(), "{before} {after}");
        assert_eq!(bench.sids(), [2]);
    }
    // What is only in the old bytes is no news.
    let mut bench = Bench::new(first);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"a needle here");
    bench.pipeline.swap_rules(ruleset(r#"drop tcp any any -> any 80 (msg:"n"; content:"needle"; sid:4;)"#));
    assert!(connection.request(&mut bench, b"and nothing there").verdict.passes());
}

#[test]
fn a_reload_keeps_flows_and_what_was_seen_of_them() {
    let mut bench = Bench::new(EVIL);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"GET /bin/");
    bench.pipeline.swap_rules(ruleset(&format!("{EVIL}\nalert tcp any any -> any any (msg:\"x\"; content:\"zzz\"; sid:5;)")));
    assert!(!connection.request(&mut bench, b"sh").verdict.passes());
}

#[test]
fn malformed_frames_have_a_stated_verdict() {
    let mut bench = Bench::new(EVIL);
    let connection = Connection::new(40000, 80);
    let good = connection.client_says(0, ACK, b"hello");
    for cut in 14..good.len() {
        assert_eq!(bench.send(&good[..cut]).verdict, Verdict::Drop(DropReason::Malformed), "{cut}");
    }
    let mut wrong_sum = good.clone();
    let last = wrong_sum.len() - 1;
    wrong_sum[last] ^= 1;
    assert_eq!(bench.send(&wrong_sum).verdict, Verdict::Drop(DropReason::Malformed));
    bench.protect = false;
    let outcome = bench.send(&wrong_sum);
    assert_eq!((outcome.verdict, outcome.would), (Verdict::Accept, Some(Verdict::Drop(DropReason::Malformed))));
}

/// The fragment of a frame's datagram from `offset` to `end`.
fn piece(whole: &[u8], offset: usize, end: usize) -> Vec<u8> {
    let datagram = &whole[34..];
    let mut ip = ipv4(CLIENT, SERVER, whole[23], &datagram[offset..end]);
    let more = u16::from(end < datagram.len()) << 13;
    ip[6..8].copy_from_slice(&(more | (offset / 8) as u16).to_be_bytes());
    ip[10..12].fill(0);
    let sum = ip[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(&ip)
}

#[test]
fn fragments_are_judged_whole_and_never_bypassed() {
    let mut bench = Bench::new(r#"drop udp any any -> any 53 (msg:"u"; content:"exploit"; sid:1;)"#);
    let whole = udp((CLIENT, 1000), (SERVER, 53), b"an exploit in two pieces");
    assert_eq!(bench.send(&piece(&whole, 0, 16)).verdict, Verdict::Accept);
    assert!(!bench.send(&piece(&whole, 16, whole.len() - 34)).verdict.passes());
    assert_eq!(bench.sids(), [1]);
}

#[test]
fn a_stream_is_followed_through_segments_that_another_shard_put_together() {
    let rule = r#"drop tcp any any -> any 80 (msg:"t"; content:"exploit"; sid:1;)"#;
    let (mut bench, mut other) = (Bench::new(rule), Bench::new(rule));
    let mut talk = Connection::new(1000, 80);
    talk.open(&mut bench);
    assert!(talk.request(&mut bench, b"begins whole: expl").verdict.passes());
    let frame = talk.client_says(0, PSH | ACK, b"oit, and ends in two pieces");
    let meta = PacketMeta::captured(LinkType::Ethernet, 60, true);
    let mut whole = Vec::new();
    let first = other.pipeline.piece(bench.now, &meta, &piece(&frame, 0, 24), &mut whole);
    assert_eq!(first.map(|outcome| outcome.verdict), Some(Verdict::Accept));
    let last = piece(&frame, 24, frame.len() - 34);
    assert_eq!(other.pipeline.piece(bench.now, &meta, &last, &mut whole), None);
    assert_eq!(whole[20..], frame[34..], "the datagram is as it was before it was cut");
    let outcome = bench.pipeline.whole(bench.now, &meta, &last, &whole, &mut ());
    assert_eq!(outcome.verdict, Verdict::DropFlow(DropReason::Rule));
    assert!(other.pipeline.piece(bench.now, &meta, &last, &mut whole).is_some_and(|again| !again.verdict.passes()), "sent again");
    // A frame is counted once as a packet and once by its verdict, whichever shards they were.
    let sum = |count: fn(&bulkhead_ips::Stats) -> u64| count(bench.pipeline.stats()) + count(other.pipeline.stats());
    assert_eq!(sum(|stats| stats.packets), sum(|stats| stats.accepted + stats.bypassed + stats.dropped));
}

#[test]
fn rules_may_take_single_packets_away() {
    let config = PipelineConfig { drop_scope: DropScope::Matched, ..PipelineConfig::default() };
    let mut bench = Bench::with(config, r#"drop udp any any -> any any (msg:"u"; content:"bad"; sid:1;)"#);
    assert_eq!(bench.send(&udp((CLIENT, 1), (SERVER, 2), b"bad")).verdict, Verdict::Drop(DropReason::Rule));
    assert_eq!(bench.send(&udp((CLIENT, 1), (SERVER, 2), b"good")).verdict, Verdict::Accept);
}

#[test]
fn caps_hold_under_a_flood_of_flows() {
    let mut config = PipelineConfig::default();
    config.flow.flows_max = 100;
    config.events_max = 50;
    let mut bench = Bench::with(config, r#"alert udp any any -> any any (msg:"u"; content:"x"; sid:1;)"#);
    for port in 0..5_000u16 {
        let frame = udp((CLIENT, port), (SERVER, 53), b"x");
        let meta = bulkhead_ips::PacketMeta::captured(bulkhead_ips::LinkType::Ethernet, frame.len() as u32, true);
        bench.pipeline.packet(bench.now, &meta, &frame, &mut ());
    }
    assert_eq!(bench.pipeline.flows(), 100);
    let stats = *bench.pipeline.stats();
    assert_eq!(bench.pipeline.drain_events().count(), 50);
    assert_eq!(stats.alerts, 5_000);
    assert!(stats.lost_alerts > 0 && stats.lost_flow_ends > 0);
}

#[test]
fn what_is_counted_of_a_host_is_counted_over_all_pipelines() {
    let rules = ruleset(
        "alert tcp any any -> any any (msg:\"many\"; content:\"probe\"; threshold:type both, track by_src, count 4, seconds 60; sid:1;)\n\
         alert tcp any any -> any 80 (msg:\"first\"; content:\"mark\"; xbits:set,marked,track ip_src,expire 60; sid:2;)\n\
         alert tcp any any -> any 81 (msg:\"later\"; content:\"mark\"; xbits:isset,marked,track ip_src; sid:3;)",
    );
    let across = Arc::new(AcrossFlows::new(&PipelineConfig::default()));
    let mut benches: Vec<Bench> = (0..2)
        .map(|seed| {
            let pipeline = Pipeline::among(PipelineConfig::default(), Arc::clone(&rules), seed, Arc::clone(&across));
            Bench { pipeline, ..Bench::running(PipelineConfig::default(), Arc::clone(&rules)) }
        })
        .collect();
    for nth in 0..4u16 {
        let bench = &mut benches[usize::from(nth % 2)];
        let mut connection = Connection::new(40_000 + nth, 8000);
        connection.open(bench);
        connection.request(bench, b"probe");
    }
    for (bench, port) in benches.iter_mut().zip([80, 81]) {
        let mut connection = Connection::new(50_000, port);
        connection.open(bench);
        connection.request(bench, b"mark");
    }
    let found: Vec<Vec<u32>> = benches.iter().map(Bench::sids).collect();
    assert_eq!(found, [vec![2], vec![1, 3]]);
}

/// A receiver may take them, and if not, they come again and are not judged again.
#[test]
fn bytes_of_a_syn_are_of_an_established_connection() {
    let mut bench = Bench::new(EVIL);
    let connection = Connection::new(40000, 80);
    let outcome = bench.send(&connection.client_says(0, SYN, b"GET /bin/sh"));
    assert!(!outcome.verdict.passes(), "{outcome:?}");
    assert_eq!(bench.sids(), [1]);
}
