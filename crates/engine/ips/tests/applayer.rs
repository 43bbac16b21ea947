//! Rules on the buffers of application layers, from frames to verdicts.

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_ips::applayer::{Buffer, Dir, Protocol};
use bulkhead_ips::{Checksums, EngineEvent, LinkType, OnFailure, PacketMeta, Pipeline, PipelineConfig, Ruleset, Source, TransactionEvent};
use bulkhead_model::{BypassReason, DropReason, Timestamp, Verdict};
use bulkhead_rules::{Classification, Variables};
use kit::capture::{self, Frame};
use kit::*;

const REQUEST: &[u8] = b"GET /a/%2e%2e/evil?x=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: probe/1\r\n\r\n";

fn transactions(bench: &Bench) -> Vec<&TransactionEvent> {
    bench.events.iter().filter_map(|event| if let EngineEvent::Transaction(tx) = event { Some(&**tx) } else { None }).collect()
}

fn logged() -> PipelineConfig {
    PipelineConfig { transactions: true, ..PipelineConfig::default() }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

#[test]
fn the_packet_that_completes_a_match_is_not_let_go() {
    let mut bench = Bench::new(
        r#"drop http any any -> any any (msg:"uri"; flow:established,to_server; http.method; content:"GET"; http.uri; content:"/evil"; startswith; sid:1;)
        alert http any any -> any any (msg:"raw"; http.uri.raw; content:"%2e%2e"; sid:2;)
        alert http any any -> any any (msg:"other"; http.user_agent; content:"curl"; sid:3;)"#,
    );
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    let (first, rest) = REQUEST.split_at(12);
    assert_eq!(connection.request(&mut bench, first).verdict, Verdict::Accept);
    let outcome = connection.request(&mut bench, rest);
    assert_eq!(outcome.verdict, Verdict::DropFlow(DropReason::Rule));
    assert_eq!(bench.sids(), [1, 2]);
    assert_eq!(bench.alerts().iter().map(|alert| alert.excerpt.as_slice()).collect::<Vec<_>>(), [b"/evil".as_slice(), b"/a/%2e%2e"]);
    assert!(bench.alerts().iter().all(|alert| alert.tx == Some(0) && alert.app == Some(Protocol::Http) && alert.record.is_none()));
    assert_eq!(connection.request(&mut bench, b"GET / HTTP/1.1\r\n\r\n").verdict, Verdict::Drop(DropReason::Flow));
}

#[test]
fn a_body_is_judged_as_it_comes_and_in_the_answers_direction() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"body"; flow:to_client,established; http.stat_code; content:"200"; file.data; content:"one"; content:"two"; distance:0; sid:1;)
        alert http any 8080 -> any any (msg:"header"; flow:to_client; http.server; content:"old"; flowbits:set,old; noalert; sid:2;)
        alert http any any -> any 8080 (msg:"bit"; flow:to_server; flowbits:isset,old; http.uri; content:"/next"; sid:3;)"#,
    );
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    connection.reply(&mut bench, b"HTTP/1.1 200 OK\r\nServer: old\r\nTransfer-Encoding: chunked\r\n\r\n2\r\non\r\n3\r\ne t\r\n");
    assert_eq!(bench.sids(), [0; 0]);
    connection.reply(&mut bench, b"2\r\nwo\r\n");
    assert_eq!(bench.sids(), [1]);
    let alert = bench.alerts()[0].clone();
    assert_eq!((alert.key.src.port, alert.tx), (8_080, Some(0)));
    connection.reply(&mut bench, b"0\r\n\r\n");
    connection.request(&mut bench, b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(bench.sids(), [1, 3]);
    assert_eq!(bench.alerts()[1].tx, Some(1));
}

#[test]
fn a_port_command_with_another_address_is_a_bounce() {
    let mut bench = Bench::new(r#"alert ftp any any -> any any (msg:"bounce"; flow:to_server; ftpbounce; sid:1;)"#);
    let mut connection = Connection::new(40_000, 21);
    connection.open(&mut bench);
    connection.reply(&mut bench, b"220 ready\r\n");
    connection.request(&mut bench, b"USER a\r\n");
    connection.reply(&mut bench, b"331 go on\r\n");
    let own = CLIENT.octets().map(|octet| octet.to_string()).join(",");
    connection.request(&mut bench, format!("PORT {own},4,1\r\n").as_bytes());
    connection.reply(&mut bench, b"200 done\r\n");
    assert_eq!(bench.sids(), [0; 0]);
    connection.request(&mut bench, b"PORT 203,0,113,9,4,1\r\n");
    connection.reply(&mut bench, b"200 done\r\n");
    assert_eq!(bench.sids(), [1]);
}

#[test]
fn names_asked_for_are_judged_by_the_datagram() {
    let rules = r#"drop dns any any -> any any (msg:"name"; dns.query; dotprefix; content:".evil.example"; endswith; nocase; sid:1;)
        alert dns any any -> any 53 (msg:"opcode"; dns.opcode:0; dns.query; content:"www"; sid:2;)
        alert dns any any -> any any (msg:"payload"; content:"www"; sid:3;)
        alert tls any any -> any any (msg:"not tls"; content:"www"; sid:4;)"#;
    let mut bench = Bench::new(rules);
    let (client, server) = ((CLIENT, 5_000), (SERVER, 53));
    assert_eq!(bench.send(&udp(client, server, &query("good.example"))).verdict, Verdict::Accept);
    assert_eq!(bench.send(&udp(client, server, &query("www.good.example"))).verdict, Verdict::Accept);
    assert_eq!(bench.sids(), [2, 3]);
    assert_eq!(bench.send(&udp(client, server, &query("a.EVIL.example"))).verdict, Verdict::DropFlow(DropReason::Rule));
}

#[test]
fn what_is_missing_is_judged_when_nothing_more_can_come() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"no referer"; http.referer; absent; sid:1;)
        alert http any any -> any any (msg:"no host"; app-layer-event:http.missing_host_header; sid:2;)
        alert http any any -> any any (msg:"body"; http.request_body; content:"abc"; endswith; sid:3;)"#,
    );
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"POST / HTTP/1.1\r\nContent-Length: 6\r\n");
    assert_eq!(bench.sids(), [0; 0]);
    connection.request(&mut bench, b"\r\nabc");
    assert_eq!(bench.sids(), [1, 2]);
    connection.request(&mut bench, b"abc");
    assert_eq!(bench.sids(), [1, 2, 3]);
}

#[test]
fn transactions_are_told_of_when_somebody_asks() {
    let mut bench = Bench::with(logged(), "alert http any any -> any any (msg:\"uri\"; http.uri; content:\"/evil\"; sid:1;)");
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    assert!(transactions(&bench).is_empty());
    let record = bench.alerts()[0].record.clone().unwrap();
    assert_eq!(record.get(Buffer::HttpHost, Dir::ToServer), Some(&b"www.example.org"[..]));
    connection.reply(&mut bench, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    connection.request(&mut bench, b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    bench.pipeline.finish(bench.now);
    bench.events.extend(bench.pipeline.drain_events());
    let told = transactions(&bench);
    assert_eq!(told.len(), 2);
    assert!(told[0].record.complete && !told[1].record.complete);
    assert_eq!((told[0].key.src.port, told[0].id, told[1].id), (40_000, 0, 1));
    assert_eq!(told[0].record.get(Buffer::HttpStatCode, Dir::ToClient), Some(&b"200"[..]));
    assert_eq!(told[1].record.get(Buffer::HttpUri, Dir::ToServer), Some(&b"/next"[..]));
    assert!(bench.events.iter().any(|event| matches!(event, EngineEvent::FlowEnd(end) if end.app == Some(Protocol::Http))));
    assert_eq!(bench.pipeline.memory(), 0);
}

#[test]
fn what_cannot_be_followed_is_dropped_where_a_rule_looks() {
    let looks = "alert http any any -> any any (msg:\"m\"; http.response_body; content:\"nothing\"; sid:1;)";
    let elsewhere = "alert http any any -> any 81 (msg:\"m\"; http.uri; content:\"nothing\"; sid:1;)";
    let deep: Vec<u8> = [&b"GET / HTTP/1.1\r\nX: "[..], &b"a".repeat(200_000)].concat();
    for (rules, dropped) in [(looks, true), (elsewhere, false)] {
        let config = PipelineConfig { bypass_no_rule: false, ..PipelineConfig::default() };
        let mut bench = Bench::with(config, rules);
        let mut connection = Connection::new(40_000, 80);
        connection.open(&mut bench);
        let outcomes: Vec<_> = deep.chunks(1_400).map(|part| connection.request(&mut bench, part).verdict).collect();
        assert_eq!(outcomes.contains(&Verdict::Drop(DropReason::Cap)), dropped, "{rules}");
        assert_eq!(bench.pipeline.stats().app_caps, u64::from(dropped));
    }
}

#[test]
fn a_rule_about_a_protocol_sees_payload_from_before_it_was_recognised() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"payload"; flow:to_server,only_stream; content:"GET /"; depth:5; sid:1;)
        alert ssh any any -> any any (msg:"other"; flow:to_server,only_stream; content:"GET /"; sid:2;)"#,
    );
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    for byte in REQUEST {
        connection.request(&mut bench, &[*byte]);
    }
    assert_eq!(bench.sids(), [1]);
}

#[test]
fn a_rule_may_look_at_buffers_and_at_the_payload() {
    let rules = r#"alert http any any -> any any (msg:"both"; flow:to_server; content:"X-Raw|3a 20|evil"; http.uri; content:"/here"; sid:1;)
        alert http any any -> any any (msg:"not"; flow:to_server; content:!"X-Raw"; http.uri; content:"/here"; sid:2;)
        alert dns any any -> any any (msg:"datagram"; content:"|12 34|"; depth:2; dns.query; content:"here"; sid:3;)"#;
    let requests: [(&[u8], &[u32]); 3] = [
        (b"GET /here HTTP/1.1\r\nHost: a\r\nX-Raw: evil\r\n\r\n", &[1]),
        (b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n", &[2]),
        (b"GET /there HTTP/1.1\r\nHost: a\r\nX-Raw: evil\r\n\r\n", &[]),
    ];
    for size in [1, 7, 1_000] {
        let mut bench = Bench::new(rules);
        let mut connection = Connection::new(40_000, 80);
        connection.open(&mut bench);
        for (request, expected) in requests {
            bench.events.clear();
            for part in request.chunks(size) {
                connection.request(&mut bench, part);
            }
            assert_eq!(bench.sids(), expected, "{}", request.escape_ascii());
        }
    }
    let mut bench = Bench::new(rules);
    bench.send(&udp((CLIENT, 5_000), (SERVER, 53), &query("here.example")));
    assert_eq!(bench.sids(), [3]);
}

#[test]
fn a_flow_bit_that_the_rest_of_a_message_sets_is_waited_for() {
    let rules = r#"alert http any any -> any any (msg:"sets"; flow:to_server; http.host; content:"1.2.3.4"; flowbits:set,quad; noalert; sid:1;)
        alert http any any -> any any (msg:"reads"; flow:to_server; http.request_line; content:".dll"; flowbits:isset,quad; flowbits:unset,quad; sid:2;)
        alert http any any -> any any (msg:"never"; flow:to_server; http.uri; content:"other"; flowbits:isset,quad; sid:3;)"#;
    for size in [1, 20, 1_000] {
        let mut bench = Bench::new(rules);
        let mut connection = Connection::new(40_000, 80);
        connection.open(&mut bench);
        let requests = [&b"GET /a.dll HTTP/1.1\r\nHost: 1.2.3.4\r\n\r\n"[..], b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"];
        for part in requests.iter().flat_map(|request| request.chunks(size)) {
            connection.request(&mut bench, part);
        }
        assert_eq!(bench.sids(), [2], "{size}");
    }
}

#[test]
fn a_flow_counts() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"count"; http.uri; content:"/login"; flowint:tries,+,1; noalert; sid:1;)
        alert http any any -> any any (msg:"third"; http.uri; content:"/login"; flowint:tries,isset; flowint:tries,>,2; flowint:told,isnotset; flowint:told,=,1; sid:2;)"#,
    );
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    for tries in 1..6 {
        connection.request(&mut bench, b"GET /login HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(bench.sids().len(), usize::from(tries > 2), "{tries}");
    }
}

#[test]
fn another_rule_set_finds_what_came_before_it() {
    let mut bench = Bench::new("alert http any any -> any any (msg:\"m\"; http.uri; content:\"/none\"; sid:1;)");
    let mut connection = Connection::new(40_000, 80);
    connection.open(&mut bench);
    connection.request(&mut bench, b"POST /evil HTTP/1.1\r\nContent-Length: 4\r\n\r\nab");
    bench.pipeline.swap_rules(ruleset(
        r#"alert http any any -> any any (msg:"m"; http.uri; content:"/evil"; http.request_body; content:"abcd"; sid:7;)"#,
    ));
    connection.request(&mut bench, b"cd");
    assert_eq!(bench.sids(), [7]);
}

#[test]
fn sessions_have_a_cap_on_memory() {
    let config = PipelineConfig { app_memory_max: 8_192, ..PipelineConfig::default() };
    let mut bench = Bench::with(config, "alert http any any -> any any (msg:\"m\"; http.uri; content:\"/none\"; sid:1;)");
    let mut verdicts = Vec::new();
    for port in 40_000..40_008 {
        let mut connection = Connection::new(port, 80);
        connection.open(&mut bench);
        verdicts.push(connection.request(&mut bench, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab").verdict);
    }
    assert_eq!(verdicts[0], Verdict::Accept);
    assert!(verdicts.contains(&Verdict::Drop(DropReason::Cap)));
    assert!(bench.pipeline.stats().app_memory_refused > 0);
    assert!(!verdicts.iter().any(|verdict| matches!(verdict, Verdict::BypassFlow(BypassReason::Encrypted))));
}

/// A frame of IPv4 and TCP cut into segments of single bytes; others as they are.
fn cut(frame: &Frame) -> Vec<Vec<u8>> {
    let whole = || vec![frame.bytes.clone()];
    let Some(LinkType::Ethernet) = frame.link else { return whole() };
    let (Some(ip), true) = (frame.bytes.get(14..), frame.bytes.get(12..14) == Some(&[8, 0])) else { return whole() };
    if ip.len() < 40 || ip[0] >> 4 != 4 || ip[9] != 6 || ip[6] & 0x3f != 0 || ip[7] != 0 {
        return whole();
    }
    let (ip_len, total) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    let Some(tcp) = ip.get(ip_len..total) else { return whole() };
    let headers = ip_len + usize::from(tcp.get(12).copied().unwrap_or(0) >> 4) * 4;
    if headers < ip_len + 20 || headers >= total || tcp[13] & 2 != 0 {
        return whole();
    }
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let piece = |(at, byte): (usize, &u8)| {
        let mut piece = frame.bytes[..14 + headers].to_vec();
        piece.push(*byte);
        piece[16..18].copy_from_slice(&((headers + 1) as u16).to_be_bytes());
        piece[14 + ip_len + 4..14 + ip_len + 8].copy_from_slice(&seq.wrapping_add(at as u32).to_be_bytes());
        if at + 1 < total - headers {
            // The end of a stream belongs to its last byte.
            piece[14 + ip_len + 13] &= !1;
        }
        piece
    };
    ip[headers..total].iter().enumerate().map(piece).collect()
}

/// Rule, port and transaction of each alert on a transaction.
type Found = BTreeMap<(u32, u16, Option<u64>), u32>;

/// And whether a cap of reassembly stood in the way.
fn found(rules: &Arc<Ruleset>, frames: &[Frame], single: bool) -> (Found, bool) {
    let mut config = PipelineConfig {
        checksum: Checksums::Ignore,
        on_cap: OnFailure::Pass,
        on_unverifiable: OnFailure::Pass,
        bypass_no_rule: false,
        anomalies: false,
        flow_events: false,
        ..PipelineConfig::default()
    };
    config.stream.midstream = false;
    let mut pipeline = Pipeline::new(config, Arc::clone(rules), 1);
    let mut clock = Timestamp::default();
    let mut all = BTreeMap::new();
    let mut count = |pipeline: &mut Pipeline| {
        for event in pipeline.drain_events() {
            if let EngineEvent::Alert(alert) = event
                && alert.tx.is_some()
            {
                *all.entry((alert.rule.sid, alert.key.src.port.max(alert.key.dst.port), alert.tx)).or_default() += 1;
            }
        }
    };
    for frame in frames {
        let Some(link) = frame.link else { continue };
        clock = clock.max(frame.at);
        for bytes in if single { cut(frame) } else { vec![frame.bytes.clone()] } {
            pipeline.packet(frame.at, &PacketMeta::captured(link, frame.len_on_wire, false), &bytes, &mut ());
            count(&mut pipeline);
        }
    }
    pipeline.finish(clock);
    count(&mut pipeline);
    let stats = pipeline.stream_stats();
    (all, stats.refused_cap + stats.gaps > 0)
}

#[test]
fn captures_byte_by_byte_raise_the_alerts_of_the_whole() {
    let (Some(rules), Some(pcaps)) = (data("rules/et-open.rules"), data("pcaps")) else {
        println!("NOT RUN: captures_byte_by_byte_raise_the_alerts_of_the_whole (../shared/data is absent)");
        return;
    };
    // What waits for a count, or for a flow bit to be missing or to be taken away, depends on when it is asked.
    let text = String::from_utf8_lossy(&std::fs::read(rules).unwrap()).into_owned();
    let text: String = text
        .lines()
        .filter(|line| !line.contains("threshold:") && !line.contains("flowbits:isnotset") && !line.contains("flowbits:unset"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut variables = Variables::default();
    for name in ["HOME_NET", "EXTERNAL_NET"] {
        variables.addresses.insert(name.into(), "any".into());
    }
    let file = bulkhead_rules::parse(&text);
    let rules = Ruleset::compile(&[Source { name: "et-open.rules", rules: &file.rules }], &variables, &Classification::builtin()).ruleset;
    let (mut captures, mut alerts) = (0, 0);
    for path in capture::files(&pcaps) {
        let Some(frames) = capture::read(&path) else { continue };
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        if bytes > CUT_BYTES_MAX || !frames.iter().any(|frame| cut(frame).len() > 1) {
            continue;
        }
        let (whole, _) = found(&rules, &frames, false);
        if whole.is_empty() {
            continue;
        }
        let (single, capped) = found(&rules, &frames, true);
        if capped {
            // A packet in many pieces before a hole needs more room than it has whole.
            continue;
        }
        assert_eq!(whole, single, "{}", path.display());
        captures += 1;
        alerts += whole.values().sum::<u32>();
    }
    println!("{alerts} alerts on transactions in {captures} captures, whole and byte by byte");
    assert!(captures > 0);
}

/// Of one capture.
const CUT_BYTES_MAX: usize = 40_000;

#[test]
fn a_rule_may_keep_transactions_out_of_the_log_and_ask_for_the_connections_state() {
    let config = PipelineConfig { transactions: true, ..PipelineConfig::default() };
    let mut bench = Bench::with(
        config,
        r#"config http any any -> any any (msg:"quiet"; flow:to_server; http.uri; content:"/quiet"; config:logging disable, type tx, scope tx; sid:1;)
        alert tcp any any -> any any (msg:"closing"; tcp.session:closing; flags:F+; sid:2;)
        alert http any any -> any any (msg:"mismatch"; app-layer-event:applayer_mismatch_protocol_both_directions; sid:3;)"#,
    );
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    for uri in ["/quiet", "/loud"] {
        connection.request(&mut bench, format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        connection.reply(&mut bench, b"HTTP/1.1 204 No Content\r\n\r\n");
    }
    let logged: Vec<_> =
        transactions(&bench).iter().filter_map(|tx| tx.record.get(Buffer::HttpUri, Dir::ToServer)).map(<[u8]>::to_vec).collect();
    assert_eq!((logged, bench.sids()), (vec![b"/loud".to_vec()], vec![]));
    bench.send(&connection.client_says(0, FIN | ACK, b""));
    assert_eq!(bench.sids(), [2]);
    let mut connection = Connection::new(40_001, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.reply(&mut bench, b"SSH-2.0-OpenSSH_9.9\r\n");
    assert_eq!(bench.sids(), [2, 3]);
}
