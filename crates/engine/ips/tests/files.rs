//! Files that go by, and sets of values: what rules ask of them, and what is kept.

mod kit;

use std::sync::Arc;

use bulkhead_ips::{EngineEvent, File, FileEvent, FileWants, PipelineConfig, Reputation, Resources, Ruleset, Source};
use bulkhead_rules::{Classification, Severity, Variables};
use kit::*;

fn files(bench: &Bench) -> Vec<&FileEvent> {
    bench.events.iter().filter_map(|event| if let EngineEvent::File(file) = event { Some(&**file) } else { None }).collect()
}

fn compiled(text: &str, resources: &Resources<'_>) -> Result<Arc<Ruleset>, String> {
    let file = bulkhead_rules::parse(text);
    assert_eq!((file.counts.unsupported, file.counts.wrong), (0, 0), "{:?}", file.diagnostics);
    let sources = [Source { name: "test.rules", rules: &file.rules }];
    let done = Ruleset::compile_with(&sources, &Variables::default(), &Classification::builtin(), resources);
    match done.diagnostics.into_iter().find(|(_, found)| found.severity != Severity::Warning) {
        Some((_, found)) => Err(found.message),
        None => Ok(done.ruleset),
    }
}

fn beside(name: &str) -> Option<Vec<u8>> {
    match name {
        // Of "%PDF-1.4 abc".
        "md5" => Some(b"# known\n4ab1b82ab1b67f1bbda9f5e3b9e1c4a5\n".to_vec()),
        "hosts" => Some(b"d3d3LmV2aWwudGVzdA==\n".to_vec()),
        "scores" => Some(b"d3d3LmV2aWwudGVzdA==,90\n".to_vec()),
        _ => None,
    }
}

const PDF: &[u8] = b"%PDF-1.4 abc";

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\nContent-Length: {}\r\n\r\n", PDF.len());
    [head.as_bytes(), body].concat()
}

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: www.evil.test\r\n\r\n";

#[test]
fn a_file_is_followed_to_its_end_and_kept_for_the_rule_that_wants_it() {
    let rules = r#"alert http any any -> any any (msg:"kind"; flow:to_client; filemagic:"PDF document"; filestore; sid:1;)
        alert http any any -> any any (msg:"size"; flow:to_client; filesize:12; fileext:"pdf"; sid:2;)
        alert http any any -> any any (msg:"other"; flow:to_client; filesize:>12; sid:3;)
        alert http any any -> any any (msg:"buffer"; flow:to_client; file.magic; content:"version 1.4"; sid:4;)"#;
    let config = PipelineConfig { files: FileWants { sha256: true, ..FileWants::default() }, ..PipelineConfig::default() };
    let mut bench = Bench::with(config, rules);
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    connection.reply(&mut bench, &answer(&PDF[..5]));
    assert!(bench.sids().is_empty() && files(&bench).is_empty());
    connection.reply(&mut bench, &PDF[5..]);
    assert_eq!(bench.sids(), [1, 2, 4]);
    let told = files(&bench);
    assert_eq!(told.len(), 1);
    let File { name, size, done, truncated, magic, sha256, md5, content, .. } = &told[0].file;
    assert_eq!((name.as_deref(), *size, *done, *truncated), (Some(b"a.pdf".as_slice()), 12, true, false));
    assert_eq!((magic.as_deref(), content.as_deref()), (Some("PDF document, version 1.4"), Some(PDF)));
    assert!(told[0].stored && sha256.is_some() && md5.is_none());
}

#[test]
fn a_file_that_breaks_off_has_no_hash_and_says_so() {
    let rules = r#"alert http any any -> any any (msg:"whole"; flow:to_client; filesize:5; sid:1;)
        alert http any any -> any any (msg:"least"; flow:to_client; filesize:>4; sid:2;)"#;
    let mut bench = Bench::with(PipelineConfig { transactions: true, ..PipelineConfig::default() }, rules);
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    connection.reply(&mut bench, &answer(&PDF[..5]));
    bench.send(&connection.server_says(0, FIN | ACK, b""));
    bench.pipeline.finish(bench.now);
    bench.events.extend(bench.pipeline.drain_events());
    assert_eq!(bench.sids(), [2]);
    let told = files(&bench);
    assert_eq!((told.len(), told[0].file.size, told[0].file.truncated, told[0].stored), (1, 5, true, false));
    assert!(told[0].file.content.is_none());
}

#[test]
fn lists_of_hashes_say_which_files_are_known() {
    let md5 = "alert http any any -> any any (msg:\"known\"; flow:to_client; filemd5:LIST; sid:1;)
        alert http any any -> any any (msg:\"unknown\"; flow:to_client; filemd5:!LIST; sid:2;)";
    let resources = Resources { files: Some(&beside), ..Resources::default() };
    assert!(compiled(&md5.replace("LIST", "none"), &resources).unwrap_err().contains("`none` cannot be read"));
    let mut bench = Bench::running(PipelineConfig::default(), compiled(&md5.replace("LIST", "md5"), &resources).unwrap());
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    connection.reply(&mut bench, &answer(PDF));
    assert_eq!(bench.sids(), [2]);
    // The digest that was found is the one that a list would hold.
    let known = files(&bench)[0].file.md5.unwrap();
    let list = move |_: &str| Some(known.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes());
    let resources = Resources { files: Some(&list), ..Resources::default() };
    let mut bench = Bench::running(PipelineConfig::default(), compiled(&md5.replace("LIST", "md5"), &resources).unwrap());
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    connection.request(&mut bench, REQUEST);
    connection.reply(&mut bench, &answer(PDF));
    assert_eq!(bench.sids(), [1]);
}

#[test]
fn a_value_is_in_a_set_has_a_score_and_is_added_by_a_rule_once() {
    let rules = "\
alert http any any -> any any (msg:\"in\"; flow:to_server; http.host; dataset:isset,h,type string,load hosts; sid:1;)
alert http any any -> any any (msg:\"out\"; flow:to_server; http.host; dataset:isnotset,h; sid:2;)
alert http any any -> any any (msg:\"score\"; flow:to_server; http.host; datarep:s,>,80,type string,load scores; sid:3;)
alert http any any -> any any (msg:\"less\"; flow:to_server; http.host; datarep:s,>,90; sid:4;)
alert http any any -> any any (msg:\"seen\"; flow:to_server; http.uri; dataset:set,uris,type string,save uris; sid:5;)
alert http any any -> any 81 (msg:\"elsewhere\"; flow:to_server; http.uri; dataset:set,others,type string,save others; sid:6;)
alert ip any any -> any any (msg:\"client\"; ip.src; dataset:set,clients,type ip,state clients; sid:7;)
";
    let resources = Resources { files: Some(&beside), ..Resources::default() };
    let ruleset = compiled(rules, &resources).unwrap();
    let mut bench = Bench::running(PipelineConfig { bypass_no_rule: false, ..PipelineConfig::default() }, Arc::clone(&ruleset));
    let mut connection = Connection::new(40_000, 8_080);
    connection.open(&mut bench);
    assert_eq!(bench.sids(), [7, 7]);
    connection.request(&mut bench, REQUEST);
    assert_eq!(bench.sids()[2..], [1, 3, 5]);
    connection.reply(&mut bench, b"HTTP/1.1 204 No Content\r\n\r\n");
    connection.request(&mut bench, REQUEST);
    assert_eq!(bench.sids()[5..], [1, 3]);
    let texts: Vec<(String, String)> = ruleset.datasets().map(|set| (set.name.clone(), set.text())).collect();
    let text = |name: &str| texts.iter().find(|(of, _)| of == name).unwrap().1.clone();
    assert_eq!((text("uris").as_str(), text("others").as_str()), ("L3g=\n", ""));
    assert_eq!(text("clients"), "::ffff:198.51.100.10\n::ffff:198.51.100.20\n");
    // What was learnt outlives a reload.
    let resources = Resources { files: Some(&beside), before: Some(&ruleset), ..Resources::default() };
    let again = compiled(rules, &resources).unwrap();
    assert_eq!(again.datasets().find(|set| set.name == "uris").unwrap().len(), 1);
    assert!(compiled(&rules.replace("load hosts", "load none"), &Resources::default()).unwrap_err().contains("cannot be read"));
}

#[test]
fn reputation_of_an_end_is_a_condition() {
    let mut reputation = Reputation::default();
    reputation.add_categories("1,scanner,Scanners").unwrap();
    reputation.add_list("198.51.100.10,1,100").unwrap();
    let rules = "alert ip any any -> any any (msg:\"bad\"; iprep:src,scanner,>,50; sid:1;)
alert ip any any -> any any (msg:\"good\"; iprep:both,scanner,isnotset; sid:2;)";
    let resources = Resources { reputation, ..Resources::default() };
    let mut bench = Bench::running(PipelineConfig::default(), compiled(rules, &resources).unwrap());
    bench.send(&udp((CLIENT, 5), (SERVER, 6), b"x"));
    bench.send(&udp((SERVER, 6), (CLIENT, 5), b"x"));
    assert_eq!(bench.sids(), [1]);
    assert!(compiled(rules, &Resources::default()).unwrap_err().contains("no category"));
}
