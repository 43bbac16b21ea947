//! The rules that the repository carries, their fixtures, and conversations made of them.
//!
//! A fixture file is text: a line `=== SID attack|benign KIND [PORT]`, then what is said. `http`: a request whose lines end
//! with CR LF on the wire, with a Content-Length where there is a body. `tcp`, `smtp`, `back` (from the server), `dns` (a name),
//! `answer` (a body): one message, with `|0d 0a|` for bytes. `syn`: how many connections are tried. `xN ` before it: N times.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_ips::{PipelineConfig, Ruleset, Source};
use bulkhead_model::Verdict;
use bulkhead_rules::{Classification, Variables};

use crate::kit::{Bench, CLIENT, Connection, SERVER, SYN, Tcp, udp};

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap().join("rules/bulkhead")
}

pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// All rules, without a word of complaint.
pub fn ruleset() -> Arc<Ruleset> {
    let texts: Vec<(String, String)> =
        files(&folder(), "rules").iter().map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect();
    let parsed: Vec<_> = texts.iter().map(|(name, text)| (name, bulkhead_rules::parse(text))).collect();
    for (name, file) in &parsed {
        assert!(file.diagnostics.is_empty(), "{name}: {:?}", file.diagnostics);
    }
    let sources: Vec<Source<'_>> = parsed.iter().map(|(name, file)| Source { name, rules: &file.rules }).collect();
    let compiled = Ruleset::compile(&sources, &Variables::default(), &Classification::builtin());
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    compiled.ruleset
}

pub struct Fixture {
    pub sid: u32,
    pub attack: bool,
    kind: String,
    port: u16,
    text: String,
}

pub fn fixtures() -> Vec<Fixture> {
    let mut found = Vec::new();
    for path in files(&folder().join("tests"), "txt") {
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("=== ").skip(1) {
            let (head, said) = block.split_once('\n').unwrap();
            let words: Vec<&str> = head.split_whitespace().collect();
            let attack = match words[1] {
                "attack" => true,
                "benign" => false,
                other => panic!("{}: {other} is neither attack nor benign", path.display()),
            };
            let port = words.get(3).map_or(80, |port| port.parse().unwrap());
            let text = said.trim_end_matches('\n').to_owned();
            found.push(Fixture { sid: words[0].parse().unwrap(), attack, kind: words[2].to_owned(), port, text });
        }
    }
    found
}

/// Sids of the alerts, and whether anything was kept from its receiver.
pub fn play(rules: &Arc<Ruleset>, fixture: &Fixture) -> (Vec<u32>, bool) {
    let mut bench = Bench::running(PipelineConfig::default(), rules.clone());
    let (times, said) = match fixture.text.strip_prefix('x').and_then(|rest| rest.split_once(' ')) {
        Some((count, said)) if count.parse::<u16>().is_ok() => (count.parse().unwrap(), said),
        _ => (1, fixture.text.as_str()),
    };
    let mut blocked = false;
    for nth in 0..times {
        let mut connection = Connection::new(40_000 + nth, fixture.port);
        let mut hear = |verdict: Verdict| blocked |= verdict != Verdict::Accept;
        match fixture.kind.as_str() {
            "http" => {
                connection.open(&mut bench);
                hear(connection.request(&mut bench, &request(said)).verdict);
            }
            "tcp" => {
                connection.open(&mut bench);
                hear(connection.request(&mut bench, &bytes(said)).verdict);
            }
            "back" => {
                connection.open(&mut bench);
                connection.request(&mut bench, b"login");
                hear(connection.reply(&mut bench, &bytes(said)).verdict);
            }
            "smtp" => {
                connection.open(&mut bench);
                connection.reply(&mut bench, b"220 mail.example ESMTP\r\n");
                connection.request(&mut bench, b"EHLO a.example\r\n");
                connection.reply(&mut bench, b"250 mail.example\r\n");
                connection.request(&mut bench, b"MAIL FROM:<a@a.example>\r\n");
                connection.reply(&mut bench, b"250 ok\r\n");
                hear(connection.request(&mut bench, &[said.as_bytes(), b"\r\n"].concat()).verdict);
                hear(connection.reply(&mut bench, b"250 ok\r\n").verdict);
            }
            "answer" => {
                connection.open(&mut bench);
                connection.request(&mut bench, b"GET /x HTTP/1.1\r\nHost: app.example\r\nUser-Agent: probe/1.0\r\n\r\n");
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{said}", said.len());
                hear(connection.reply(&mut bench, answer.as_bytes()).verdict);
            }
            "dns" => hear(bench.send(&udp((CLIENT, 5_000 + nth), (SERVER, 53), &query(said))).verdict),
            "syn" => {
                for port in 1..=said.parse().unwrap() {
                    let syn = Tcp { src: (CLIENT, 50_000), dst: (SERVER, port), seq: 1, ack: 0, flags: SYN };
                    hear(bench.send(&syn.frame(b"")).verdict);
                }
            }
            other => panic!("{}: no such kind: {other}", fixture.sid),
        }
    }
    bench.pipeline.finish(bench.now);
    bench.events.extend(bench.pipeline.drain_events());
    (bench.sids(), blocked)
}

/// Lines to a request: CR LF, Content-Length; `\0`, `\r`, `\xNN` and `\\` are bytes.
pub fn request(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let body = unescaped(&body.replace('\n', "\r\n"));
    let mut out = unescaped(&head.trim_end().replace('\n', "\r\n"));
    if !body.is_empty() {
        out.extend(format!("\r\nContent-Length: {}", body.len()).bytes());
    }
    out.extend(b"\r\n\r\n");
    out.extend(body);
    out
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (kind, after) = rest.split_first().unwrap();
        rest = after;
        match kind {
            b'0' => out.push(0),
            b'r' => out.push(b'\r'),
            b'x' => {
                out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            other => out.push(*other),
        }
    }
    out
}

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (nth, part) in text.split('|').enumerate() {
        if nth % 2 == 0 {
            out.extend(part.bytes());
        } else {
            out.extend(part.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).unwrap()));
        }
    }
    out
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
