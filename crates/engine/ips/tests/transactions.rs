//! Rules on the buffers of an application layer, with transactions made by hand.

mod kit;

use std::collections::BTreeMap;

use bulkhead_ips::Direction::{self, ToClient, ToServer};
use bulkhead_ips::inspect::{WORK_PER_PACKET_MAX, Work};
use bulkhead_ips::transaction::{CANDIDATES_MAX, Piece, TxRules, TxScratch, TxState, Values};
use bulkhead_rules::{App, BufferId, Field};

/// Bytes, how many of them are old, and whether they are all.
type Grown = (Vec<u8>, usize, bool);

/// A transaction as a parser would fill it.
#[derive(Default)]
struct Bag {
    values: BTreeMap<(BufferId, bool), Vec<Grown>>,
    settled: [bool; 2],
    numbers: Vec<(Field, u64)>,
    events: Vec<String>,
    raw: Vec<u8>,
}

const fn way(dir: Direction) -> bool {
    matches!(dir, ToClient)
}

impl Values for Bag {
    fn pieces(&self, buffer: BufferId, dir: Direction) -> impl Iterator<Item = Piece<'_>> {
        let all = self.values.get(&(buffer, way(dir))).into_iter().flatten();
        all.map(|(bytes, fresh, done)| Piece { bytes, base: 0, fresh: *fresh, done: *done })
    }

    fn is_settled(&self, _buffer: BufferId, dir: Direction) -> bool {
        self.settled[usize::from(way(dir))]
    }

    fn numbers(&self, field: Field, _dir: Direction) -> impl Iterator<Item = u64> {
        self.numbers.iter().filter(move |(of, _)| *of == field).map(|(_, number)| *number)
    }

    fn is_complete(&self, dir: Direction) -> bool {
        self.settled[usize::from(way(dir))]
    }

    fn events(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(String::as_str)
    }

    fn raw(&self, into: &mut Vec<u8>) -> Option<(Direction, u64)> {
        into.clear();
        into.extend_from_slice(&self.raw);
        Some((ToServer, 0))
    }
}

/// Rules by sid, one transaction, and what has matched so far.
struct Bench {
    rules: TxRules,
    sids: Vec<u32>,
    bag: Bag,
    state: TxState,
    scratch: TxScratch,
    work: Work,
}

impl Bench {
    fn new(text: &str) -> Self {
        let file = bulkhead_rules::parse(text);
        assert_eq!((file.counts.unsupported, file.counts.wrong), (0, 0), "{:?}", file.diagnostics);
        let sids = file.rules.iter().map(|rule| rule.signature.sid).collect();
        let (rules, refused) = TxRules::compile(&file.rules);
        assert!(refused.is_empty(), "{refused:?}");
        Self { rules, sids, bag: Bag::default(), state: TxState::default(), scratch: TxScratch::default(), work: Work::default() }
    }

    fn app(&mut self, app: App, buffer: BufferId, dir: Direction, bytes: &[u8]) {
        let all = self.bag.values.entry((buffer, way(dir))).or_default();
        all.push((bytes.to_vec(), 0, true));
        self.rules.news(app, buffer, dir, Piece::whole(bytes), &mut self.state, &mut self.scratch, &mut self.work);
    }

    fn put(&mut self, buffer: BufferId, dir: Direction, bytes: &[u8]) {
        self.app(App::Http1, buffer, dir, bytes);
    }

    /// A body grows.
    fn grow(&mut self, buffer: BufferId, dir: Direction, bytes: &[u8], done: bool) {
        let all = self.bag.values.entry((buffer, way(dir))).or_default();
        if all.is_empty() {
            all.push((Vec::new(), 0, false));
        }
        all[0].1 = all[0].0.len();
        all[0].0.extend_from_slice(bytes);
        all[0].2 = done;
        let (bytes, fresh, done) = all[0].clone();
        let piece = Piece { bytes: &bytes, base: 0, fresh, done };
        self.rules.news(App::Http1, buffer, dir, piece, &mut self.state, &mut self.scratch, &mut self.work);
    }

    fn settle(&mut self, dir: Direction) -> Vec<u32> {
        self.bag.settled[usize::from(way(dir))] = true;
        self.matched()
    }

    fn matched(&mut self) -> Vec<u32> {
        self.rules.verify(&self.bag, &mut self.state, &mut self.scratch, &mut self.work);
        self.scratch.matched.iter().map(|rule| self.sids[*rule as usize]).collect()
    }

    fn next(&mut self) {
        self.bag = Bag::default();
        self.state.clear();
        self.work = Work::default();
    }
}

#[test]
fn a_number_of_one_buffer_is_known_in_the_next() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"a"; flow:to_server; http.cookie; content:"auth="; byte_extract:1,0,first,relative; http.request_body; content:"f="; byte_test:1,=,first,0,relative; sid:1;)
        alert http any any -> any any (msg:"b"; flow:to_server; http.request_body; content:"f="; base64_decode:offset 2,relative; base64_data; content:"evil"; sid:2;)"#,
    );
    bench.put(BufferId::HttpRequestBody, ToServer, b"f=xyZXZpbA==");
    assert_eq!(bench.matched(), [2]);
    bench.put(BufferId::HttpCookie, ToServer, b"auth=x");
    assert_eq!(bench.matched(), [1]);
    bench.next();
    bench.put(BufferId::HttpCookie, ToServer, b"auth=y");
    bench.put(BufferId::HttpRequestBody, ToServer, b"f=xyZXZpb");
    assert_eq!(bench.settle(ToServer), [0; 0]);
}

#[test]
fn lists_are_decided_as_their_buffers_come() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"a"; flow:to_server; http.method; content:"POST"; http.uri; content:"/up"; startswith; http.request_body; content:"evil"; sid:1;)
        alert http any any -> any any (msg:"b"; flow:to_server; http.uri; content:"/up"; content:!"safe"; distance:0; sid:2;)
        alert http any any -> any any (msg:"c"; flow:to_client; http.stat_code; content:"500"; file.data; content:"stack trace"; nocase; sid:3;)
        alert tls any any -> any any (msg:"d"; tls.sni; content:"/up"; sid:4;)"#,
    );
    assert_eq!(bench.rules.len(), 4);
    bench.put(BufferId::HttpMethod, ToServer, b"POST");
    bench.put(BufferId::HttpUri, ToServer, b"/upload");
    assert_eq!(bench.matched(), [2]);
    bench.grow(BufferId::HttpRequestBody, ToServer, b"all well, ev", false);
    assert_eq!(bench.matched(), [0; 0]);
    bench.grow(BufferId::HttpRequestBody, ToServer, b"il", false);
    assert_eq!(bench.matched(), [1]);
    bench.grow(BufferId::HttpRequestBody, ToServer, b"evil again", true);
    assert_eq!(bench.settle(ToServer), [0; 0], "once a transaction");
    bench.put(BufferId::FileData, ToClient, b"a Stack Trace");
    assert_eq!(bench.matched(), [0; 0]);
    bench.put(BufferId::HttpStatCode, ToClient, b"500");
    assert_eq!(bench.matched(), [3]);
    // Another transaction knows nothing of it.
    bench.next();
    bench.put(BufferId::HttpUri, ToServer, b"/up/safe");
    bench.grow(BufferId::HttpRequestBody, ToServer, b"evil", true);
    assert_eq!(bench.settle(ToServer), [0; 0]);
    // The uri's buffer is not that of a server name, whatever stands in it.
    bench.next();
    bench.app(App::Tls, BufferId::TlsSni, ToServer, b"www/up");
    assert_eq!(bench.matched(), [4]);
}

#[test]
fn one_instance_has_to_satisfy_all_of_a_list() {
    let rules = r#"alert dns any any -> any any (msg:"a"; dns.query; content:"evil"; content:".example"; distance:0; endswith; sid:1;)
        alert dns any any -> any any (msg:"b"; dns.query; content:"one"; dns.query; content:"two"; sid:2;)"#;
    let mut bench = Bench::new(rules);
    bench.app(App::Dns, BufferId::DnsQuery, ToServer, b"evil.test");
    bench.app(App::Dns, BufferId::DnsQuery, ToServer, b"good.example");
    assert_eq!(bench.matched(), [0; 0]);
    bench.app(App::Dns, BufferId::DnsQuery, ToServer, b"evil.example");
    bench.app(App::Dns, BufferId::DnsQuery, ToServer, b"one");
    assert_eq!(bench.matched(), [1]);
    bench.app(App::Dns, BufferId::DnsQuery, ToServer, b"two");
    assert_eq!(bench.matched(), [2]);
}

#[test]
fn a_missing_buffer_is_told_from_one_that_may_still_come() {
    let rules = r#"alert http any any -> any any (msg:"a"; http.uri; content:"/x"; http.referer; absent; sid:1;)
        alert http any any -> any any (msg:"b"; http.uri; content:"/x"; http.referer; absent:or_else; content:"evil"; sid:2;)
        alert http any any -> any any (msg:"c"; http.uri; content:"/x"; http.referer; content:!"good"; sid:3;)"#;
    let mut bench = Bench::new(rules);
    bench.put(BufferId::HttpUri, ToServer, b"/x");
    assert_eq!(bench.matched(), [0; 0]);
    assert_eq!(bench.settle(ToServer), [1, 2]);
    for (referer, expected) in [(&b"evil"[..], &[2, 3][..]), (b"good", &[]), (b"other", &[3])] {
        bench.next();
        bench.put(BufferId::HttpUri, ToServer, b"/x");
        bench.put(BufferId::HttpReferer, ToServer, referer);
        assert_eq!(bench.settle(ToServer), expected, "{}", referer.escape_ascii());
    }
}

#[test]
fn what_more_bytes_can_take_back_waits_for_the_end() {
    let rules = r#"alert http any any -> any any (msg:"a"; http.request_body; content:"abc"; content:!"def"; sid:1;)
        alert http any any -> any any (msg:"b"; http.request_body; content:"abc"; isdataat:!4,relative; sid:2;)
        alert http any any -> any any (msg:"c"; http.request_body; content:"abc"; endswith; sid:3;)
        alert http any any -> any any (msg:"d"; http.request_body; content:"abc"; bsize:6; sid:4;)
        alert http any any -> any any (msg:"e"; http.request_body; content:"abc"; pcre:"/abc$/"; sid:5;)
        alert http any any -> any any (msg:"f"; http.request_body; content:"abc"; sid:6;)"#;
    let mut bench = Bench::new(rules);
    bench.grow(BufferId::HttpRequestBody, ToServer, b"abc", false);
    assert_eq!(bench.matched(), [6]);
    bench.grow(BufferId::HttpRequestBody, ToServer, b"def", true);
    assert_eq!(bench.matched(), [2, 4]);
    bench.next();
    bench.grow(BufferId::HttpRequestBody, ToServer, b"abc", true);
    assert_eq!(bench.matched(), [1, 2, 3, 5, 6]);
}

#[test]
fn transforms_come_before_the_prefilter_and_the_matches() {
    let rules = r#"alert dns any any -> any any (msg:"a"; dns.query; dotprefix; content:".evil.example"; nocase; endswith; sid:1;)
        alert http any any -> any any (msg:"b"; http.uri; url_decode; content:"../.."; sid:2;)
        alert http any any -> any any (msg:"c"; http.uri; strip_whitespace; to_lowercase; content:"unionselect"; sid:3;)
        alert http any any -> any any (msg:"d"; http.uri; compress_whitespace; content:"a b"; sid:4;)
        alert http any any -> any any (msg:"e"; http.uri; xor:"01ff"; content:"@"; startswith; sid:5;)
        alert http any any -> any any (msg:"f"; http.uri; content:"%2e"; sid:6;)"#;
    for (name, expected) in [("evil.example", &[1][..]), ("www.EVIL.example", &[1]), ("notevil.example", &[]), ("evil.example.org", &[])] {
        let mut bench = Bench::new(rules);
        bench.app(App::Dns, BufferId::DnsQuery, ToServer, name.as_bytes());
        assert_eq!(bench.matched(), expected, "{name}");
    }
    for (uri, expected) in
        [("/%2e./%2e%2E", &[2, 6][..]), ("/uni\ton sel ect", &[]), ("/Uni\ton Sel ect", &[3]), ("/a \t b", &[4]), ("A", &[5]), ("%2", &[])]
    {
        let mut bench = Bench::new(rules);
        bench.put(BufferId::HttpUri, ToServer, uri.as_bytes());
        let expected: Vec<u32> = if uri == "/uni\ton sel ect" { vec![3] } else { expected.to_vec() };
        assert_eq!(bench.matched(), expected, "{uri}");
    }
}

#[test]
fn the_length_of_a_uri_is_asked_of_its_buffer() {
    let rules = r#"alert http any any -> any any (msg:"a"; urilen:<5; http.method; content:"GET"; sid:1;)
        alert http any any -> any any (msg:"b"; urilen:5,raw; http.method; content:"GET"; sid:2;)"#;
    let mut bench = Bench::new(rules);
    bench.put(BufferId::HttpMethod, ToServer, b"GET");
    bench.put(BufferId::HttpUri, ToServer, b"/a.b");
    assert_eq!(bench.matched(), [1]);
    bench.put(BufferId::HttpUriRaw, ToServer, b"/%61.b");
    assert_eq!(bench.settle(ToServer), [0; 0]);
    bench.next();
    bench.put(BufferId::HttpMethod, ToServer, b"GET");
    bench.put(BufferId::HttpUri, ToServer, b"/long");
    bench.put(BufferId::HttpUriRaw, ToServer, b"/long");
    assert_eq!(bench.settle(ToServer), [2]);
}

#[test]
fn a_direction_is_looked_at_when_the_rule_asks_for_it() {
    let rules = r#"alert http any any -> any any (msg:"a"; flow:to_server; http.header; content:"x-evil"; sid:1;)
        alert http any any -> any any (msg:"b"; flow:to_client; http.header; content:"x-evil"; sid:2;)
        alert http any any -> any any (msg:"c"; http.header; content:"x-evil"; sid:3;)"#;
    for (dir, expected) in [(ToServer, [1, 3]), (ToClient, [2, 3])] {
        let mut bench = Bench::new(rules);
        bench.put(BufferId::HttpHeader, dir, b"x-evil: 1\r\n");
        assert_eq!(bench.matched(), expected);
    }
}

#[test]
fn candidates_and_work_have_caps() {
    let rules: String = (0..CANDIDATES_MAX + 88)
        .map(|number| {
            format!("alert http any any -> any any (msg:\"m\"; http.uri; content:\"aa\"; pcre:\"/a+b{number}/\"; sid:{};)\n", number + 1)
        })
        .collect();
    let mut bench = Bench::new(&rules);
    bench.put(BufferId::HttpUri, ToServer, &b"a".repeat(60_000));
    assert!(bench.state.refused);
    assert_eq!(bench.settle(ToServer), [0; 0]);
    assert!(bench.work.is_spent() && bench.work.left() < WORK_PER_PACKET_MAX);
    // A new packet, a new transaction.
    bench.next();
    assert!(!bench.state.refused);
    bench.put(BufferId::HttpUri, ToServer, b"aab7");
    assert_eq!(bench.settle(ToServer), [8]);
}

#[test]
fn what_of_et_open_looks_into_transactions_compiles() {
    let Some(path) = kit::data("rules/et-open.rules") else {
        println!("NOT RUN: what_of_et_open_looks_into_transactions_compiles (../shared/data/rules/et-open.rules is absent)");
        return;
    };
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let file = bulkhead_rules::parse(&text);
    let (rules, refused) = TxRules::compile(&file.rules);
    let mut why: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, _, reason) in &refused {
        *why.entry(reason).or_default() += 1;
    }
    let mut why: Vec<_> = why.into_iter().collect();
    why.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    println!("{} rules of transactions compile, {} are refused:", rules.len(), refused.len());
    for (reason, count) in why.iter().take(30) {
        println!("  {count:5} {reason}");
    }
    assert!(rules.len() > 25_000 && refused.len() < 4_000, "{} {}", rules.len(), refused.len());
}

#[test]
fn a_rule_of_both_directions_is_told_of_in_each_and_one_of_whole_transactions_once() {
    let mut bench = Bench::new(
        r#"alert http any any -> any any (msg:"each"; http.header; content:"x-a"; sid:1;)
        alert http any any => any any (msg:"whole"; http.uri; content:"/a"; http.stat_code; content:"200"; sid:2;)
        alert http any any => any any (msg:"one"; http.header: to_client; content:"x-a"; http.uri; content:"/a"; sid:3;)"#,
    );
    bench.put(BufferId::HttpUri, ToServer, b"/a");
    bench.put(BufferId::HttpHeader, ToServer, b"x-a: 1");
    assert_eq!(bench.matched(), [1]);
    bench.put(BufferId::HttpStatCode, ToClient, b"200");
    assert_eq!(bench.matched(), [2]);
    bench.put(BufferId::HttpHeader, ToClient, b"x-a: 2");
    assert_eq!(bench.matched(), [1, 3]);
    assert_eq!(bench.settle(ToClient), [0; 0]);
}

#[test]
fn hooks_and_states_are_asked_of_a_direction_and_old_forms_of_a_buffer() {
    let mut bench = Bench::new(
        r#"alert http1:request_complete any any -> any any (msg:"hook"; sid:1;)
        alert http1:response_complete any any -> any any (msg:"hook"; http.stat_code; content:"200"; sid:2;)
        alert http any any -> any any (msg:"name"; flow:to_server; filename:"EVIL"; fileext:"exe"; filename:!"good"; sid:3;)
        alert http any any -> any any (msg:"state"; app-layer-state:>response_line; sid:4;)"#,
    );
    bench.rules.begin(App::Http1, &mut bench.state);
    bench.put(BufferId::FileName, ToServer, b"an evil.EXE");
    assert_eq!(bench.matched(), [3]);
    assert_eq!(bench.settle(ToServer), [1]);
    bench.put(BufferId::HttpStatCode, ToClient, b"200");
    assert_eq!(bench.matched(), [0; 0]);
    assert_eq!(bench.settle(ToClient), [2, 4]);
}
