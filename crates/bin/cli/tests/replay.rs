//! `bulkhead replay`: captures made here, packet by packet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!("bulkhead-replay-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const RULES: &str = "\
alert udp any any -> any 53 (msg:\"seen\"; content:\"needle\"; sid:1; rev:1;)
drop udp any any -> any 53 (msg:\"stopped\"; content:\"poison\"; sid:2; rev:1;)
";

/// Ethernet, IPv4, UDP from 198.51.100.2 to port 53 of 198.51.100.3.
fn datagram(source_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0];
    let mut ip = vec![0x45, 0];
    ip.extend((28 + payload.len() as u16).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 198, 51, 100, 2, 198, 51, 100, 3]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16 + (folded >> 16) as u16)).to_be_bytes());
    frame.extend(ip);
    frame.extend(source_port.to_be_bytes());
    frame.extend(53_u16.to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn packets() -> Vec<Vec<u8>> {
    vec![datagram(1001, b"hello"), datagram(1002, b"a needle in it"), datagram(1003, b"poison"), datagram(1003, b"after the poison")]
}

/// draft-ietf-opsawg-pcap: little-endian, microseconds, Ethernet. The first packet is of 2026-11-23T12:00:00Z.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for (at, packet) in packets.iter().enumerate() {
        file.extend((1_795_435_200 + at as u32).to_le_bytes());
        file.extend(250_000_u32.to_le_bytes());
        file.extend((packet.len() as u32).to_le_bytes().repeat(2));
        file.extend(packet);
    }
    file
}

/// draft-ietf-opsawg-pcapng: section header, one Ethernet interface, enhanced packets.
fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padding = vec![0; (4 - body.len() % 4) % 4];
        let length = ((12 + body.len() + padding.len()) as u32).to_le_bytes();
        [&kind.to_le_bytes(), &length[..], body, &padding, &length].concat()
    };
    let mut file = block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    file.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    for (at, packet) in packets.iter().enumerate() {
        let micros = (1_795_435_200 + at as u64) * 1_000_000 + 250_000;
        let length = (packet.len() as u32).to_le_bytes();
        let head =
            [&0_u32.to_le_bytes()[..], &((micros >> 32) as u32).to_le_bytes(), &(micros as u32).to_le_bytes(), &length, &length].concat();
        file.extend(block(6, &[&head[..], packet].concat()));
    }
    file
}

fn replay(capture: &Path, rules: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear().arg("replay").arg(capture).arg("--rules").arg(rules).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn what_the_rules_find_is_shown_and_counted() {
    let dir = TestDir::new();
    let rules = dir.file("r", RULES.as_bytes());
    for file in [pcap(&packets()), pcapng(&packets())] {
        let capture = dir.file("c", &file);
        let output = replay(&capture, &rules, &["-t", "alert"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        // The fourth packet is of the flow that would have been blocked: that is told once.
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/replay.txt");
        assert_eq!(text(&output.stdout), fs::read_to_string(golden).unwrap());
    }
}

#[test]
fn protect_carries_out_what_the_rules_say() {
    let dir = TestDir::new();
    let (capture, rules) = (dir.file("c", &pcap(&packets())), dir.file("r", RULES.as_bytes()));
    let output = replay(&capture, &rules, &["--protect", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<&Value> = events.iter().filter(|event| event["event_type"] == "drop").map(|event| &event["drop"]["reason"]).collect();
    assert_eq!(reasons, ["rules", "rules"], "what matches in a packet takes the packet, as in the reference engine");
    let stats = &events.last().expect("a summary")["stats"]["replay"];
    assert_eq!((&stats["packets"], &stats["blocked"], &stats["alerts"]), (&4.into(), &2.into(), &3.into()));
}

#[test]
fn events_go_to_a_file_with_the_settings_of_a_suricata_yaml() {
    let dir = TestDir::new();
    let (capture, rules) = (dir.file("c", &pcap(&packets())), dir.file("r", RULES.as_bytes()));
    let config = dir.file("suricata.yaml", b"%YAML 1.1\n---\noutputs:\n- eve-log:\n    filename: eve.json\n    types: [alert]\n- eve-log:\n    filename: flows.json\n    types:\n    - flow\nnonsense: 1\n");
    let eve = dir.0.join("out.json");
    let names = [config.to_str().unwrap(), eve.to_str().unwrap()];
    let output = replay(&capture, &rules, &["-k", "none", "--config", names[0], "--eve", names[1], "--set", "stream.midstream=true"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the setting `nonsense` means nothing here"), "{}", text(&output.stderr));
    let types = |path: &Path| -> Vec<String> {
        let lines = fs::read_to_string(path).unwrap();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event_type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&eve), ["alert", "alert"]);
    assert_eq!(types(&dir.0.join("flows.json")), ["flow", "flow", "flow"]);
}

#[test]
fn several_captures_are_one_conversation_and_no_rules_are_needed() {
    let dir = TestDir::new();
    let halves = [dir.file("a", &pcap(&packets()[..2])), dir.file("b", &pcapng(&packets()[2..]))];
    let command =
        |more: &[&str]| Command::new(env!("CARGO_BIN_EXE_bulkhead")).env_clear().arg("replay").args(&halves).args(more).output().unwrap();
    let output = command(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("4 packets (209 B); 0 alerts, 0 packets blocked\n"), "{}", text(&output.stdout));
    assert_eq!(command(&["-o", "json"]).stdout, command(&["-o", "json"]).stdout, "the same input gives the same output");
}

#[test]
fn nothing_found_is_no_finding() {
    let dir = TestDir::new();
    let (capture, rules) = (dir.file("c", &pcap(&packets()[..1])), dir.file("r", RULES.as_bytes()));
    let output = replay(&capture, &rules, &[]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "EVENT  COUNT\nflow       1\nstats      1\n1 packet (47 B); 0 alerts, 0 packets blocked\n")
    );
}

#[test]
fn a_variable_decides_which_traffic_a_rule_meets() {
    let dir = TestDir::new();
    let capture = dir.file("c", &pcap(&packets()));
    let rules = dir.file("r", b"alert udp $EXTERNAL_NET any -> $HOME_NET 53 (msg:\"in\"; content:\"needle\"; sid:1; rev:1;)\n");
    let alerts = |more: &[&str]| replay(&capture, &rules, more).status.code();
    assert_eq!(alerts(&["--var", "HOME_NET=198.51.100.3", "--var", "EXTERNAL_NET=any"]), Some(1));
    assert_eq!(alerts(&["--var", "HOME_NET=203.0.113.0/24", "--var", "EXTERNAL_NET=any"]), Some(0));
    assert_eq!(alerts(&["--var", "HOME_NET"]), Some(2));
}

#[test]
fn a_file_that_breaks_off_anywhere_gives_what_it_has_and_says_so() {
    let dir = TestDir::new();
    let rules = dir.file("r", RULES.as_bytes());
    for whole in [pcap(&packets()), pcapng(&packets())] {
        for cut in (0..whole.len()).step_by(7) {
            let capture = dir.file("c", &whole[..cut]);
            let output = replay(&capture, &rules, &[]);
            let code = output.status.code();
            assert!(matches!(code, Some(0..=2)), "{cut}: {code:?} {}", text(&output.stderr));
            if code == Some(0) {
                assert!(text(&output.stderr).is_empty(), "{cut}: {}", text(&output.stderr));
            }
        }
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    let dir = TestDir::new();
    let rules = dir.file("r", RULES.as_bytes());
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"hello, this is a text and no capture at all"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ] {
        let output = replay(&dir.file("c", bytes), &rules, &[]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output.stderr).contains("is not a capture"), "{name}: {}", text(&output.stderr));
    }
    assert_eq!(replay(Path::new("/nonexistent"), &rules, &[]).status.code(), Some(2));
    let missing_rules = replay(&dir.file("c", &pcap(&packets())), Path::new("/nonexistent"), &[]);
    assert_eq!(missing_rules.status.code(), Some(2));
}

#[test]
fn real_captures_are_read_to_their_end() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap().join("../shared/data/pcaps");
    let Ok(folders) = fs::read_dir(&root) else {
        println!("NOT RUN: real_captures_are_read_to_their_end (../shared/data/pcaps is absent)");
        return;
    };
    let dir = TestDir::new();
    let rules = dir.file("r", RULES.as_bytes());
    let mut waiting: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    let mut read = 0;
    while let Some(path) = waiting.pop()
        && read < 60
    {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            let output = replay(&path, &rules, &["--protect"]);
            assert!(matches!(output.status.code(), Some(0..=2)), "{}: {:?} {}", path.display(), output.status, text(&output.stderr));
            read += 1;
        }
    }
    assert!(read > 0, "no capture below {}", root.display());
}
