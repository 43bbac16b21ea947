//! Rules on what decoders and the stream find odd, on frames without IP, and on headers beside TCP and UDP.

mod kit;

use bulkhead_ips::{Checksums, PipelineConfig};
use kit::*;

#[test]
fn a_rule_on_an_event_is_asked_when_it_is_raised_whatever_becomes_of_the_packet() {
    let rules = "\
alert pkthdr any any -> any any (msg:\"cut\"; decode-event:ipv4.trunc_pkt; sid:1; rev:1;)
alert pkthdr any any -> any any (msg:\"unknown\"; decode-event:ipv4.unknown_protocol; sid:2; rev:1;)
alert tcp any any -> any any (msg:\"old\"; stream-event:est_syn_resend_diff_seq; sid:3; rev:1;)
alert pkthdr any any -> any any (msg:\"never\"; decode-event:dce.pkt_too_small; sid:4; rev:1;)
alert tcp any any -> any any (msg:\"sum\"; tcpv4-csum:invalid; sid:5; rev:1;)
alert tcp any any -> any any (msg:\"right\"; tcpv4-csum:valid; flags:S; sid:6; rev:1;)
";
    let mut bench = Bench::new(rules);
    let whole = ethernet(&ipv4(CLIENT, SERVER, 253, b"something"));
    assert!(bench.send(&whole).verdict.passes());
    assert_eq!(bench.sids(), [2]);
    assert!(!bench.send(&whole[..whole.len() - 4]).verdict.passes());
    assert_eq!(bench.sids(), [2, 1]);
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    assert_eq!(bench.sids(), [2, 1, 6]);
    bench.send(&Tcp { src: connection.client, dst: connection.server, seq: 77_777, ack: 0, flags: SYN }.frame(b""));
    assert_eq!(bench.sids(), [2, 1, 6, 3, 6]);
    let mut wrong = connection.client_says(0, ACK, b"x");
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    assert!(!bench.send(&wrong).verdict.passes());
    assert_eq!(bench.sids(), [2, 1, 6, 3, 6, 5]);
    let mut bench = Bench::with(PipelineConfig { checksum: Checksums::Ignore, ..PipelineConfig::default() }, rules);
    bench.send(&wrong);
    assert!(!bench.sids().contains(&5));
}

#[test]
fn frames_without_ip_are_for_rules_on_frames_only() {
    let rules = "\
alert arp any any -> any any (msg:\"arp\"; sid:1; rev:1;)
alert ether any any -> any any (msg:\"header\"; ether.hdr; content:\"|08 06|\"; offset:12; depth:2; sid:2; rev:1;)
alert ether any any -> any any (msg:\"ip\"; ether.hdr; content:\"|08 00|\"; offset:12; depth:2; sid:3; rev:1;)
alert ip any any -> any any (msg:\"ip\"; sid:4; rev:1;)
drop arp 10.0.0.1 any -> any any (msg:\"an address\"; sid:5; rev:1;)
";
    let mut bench = Bench::new(rules);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 20]);
    assert!(bench.send(&arp).verdict.passes());
    assert_eq!(bench.sids(), [1, 2]);
    bench.send(&udp((CLIENT, 5), (SERVER, 6), b"x"));
    assert_eq!(bench.sids(), [1, 2, 3, 4]);
}

#[test]
fn igmp_and_sctp_have_their_own_headers_and_numbers() {
    let rules = "\
alert igmp any any -> any any (msg:\"report\"; igmp.type:0x16; igmp.hdr; content:\"|16|\"; startswith; sid:1; rev:1;)
alert igmp any any -> any any (msg:\"more\"; dsize:>0; sid:2; rev:1;)
alert sctp any any -> any 80 (msg:\"init\"; sctp.chunk_type:init; sctp.chunk_cnt:2; sctp.vtag:7; sid:3; rev:1;)
alert sctp any any -> any any (msg:\"data\"; sctp.chunk_data; content:\"abc\"; sid:4; rev:1;)
alert sctp any any -> any any (msg:\"none\"; sctp.chunk_type:abort; sid:5; rev:1;)
";
    let mut bench = Bench::with(PipelineConfig { checksum: Checksums::Ignore, ..PipelineConfig::default() }, rules);
    bench.send(&ethernet(&ipv4(CLIENT, SERVER, 2, &[0x16, 0, 0, 0, 239, 0, 0, 1])));
    assert_eq!(bench.sids(), [1]);
    let mut packet = vec![0, 9, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0];
    packet.extend([1, 0, 0, 7, b'a', b'b', b'c', 0, 0, 3, 0, 5, b'x', 0, 0, 0]);
    bench.send(&ethernet(&ipv4(CLIENT, SERVER, 132, &packet)));
    assert_eq!(bench.sids(), [1, 3, 4]);
    // A length of nothing ends the walk.
    packet[12..16].copy_from_slice(&[1, 0, 0, 0]);
    bench.send(&ethernet(&ipv4(CLIENT, SERVER, 132, &packet)));
    assert_eq!(bench.sids(), [1, 3, 4]);
}

#[test]
fn numbers_of_a_flow_may_be_asked_of_one_direction_and_of_its_first_packet() {
    let rules = "\
alert ip any any -> any any (msg:\"second\"; flow.pkts:toserver,2; sid:1; rev:1;)
alert ip any any -> any any (msg:\"any\"; flow.pkts:either,=2; sid:2; rev:1;)
alert ip:flow_start any any -> any any (msg:\"first\"; sid:3; rev:1;)
";
    let mut bench = Bench::new(rules);
    bench.send(&udp((CLIENT, 5), (SERVER, 6), b"x"));
    assert_eq!(bench.sids(), [3]);
    bench.send(&udp((CLIENT, 5), (SERVER, 6), b"x"));
    assert_eq!(bench.sids(), [3, 1, 2]);
    bench.send(&udp((SERVER, 6), (CLIENT, 5), b"x"));
    assert_eq!(bench.sids()[3..], [1, 2, 3]);
}
