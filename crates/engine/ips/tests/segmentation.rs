//! However a stream is cut into segments, and in whatever order they come, the alerts are the same.

mod kit;

use bulkhead_ips::PipelineConfig;
use kit::*;

const RULES: &str = r#"
alert tcp any any -> any any (msg:"one"; content:"needle-one"; sid:1;)
alert tcp any any -> any any (msg:"nocase"; content:"NeEdLe-TwO"; nocase; sid:2;)
alert tcp any any -> any any (msg:"far apart"; content:"alpha"; content:"omega"; sid:3;)
alert tcp any any -> any any (msg:"near"; content:"key="; content:"value"; distance:2; within:10; sid:4;)
alert tcp any any -> any any (msg:"short"; content:"|00 ff|"; sid:5;)
alert tcp any any -> any any (msg:"pattern"; content:"pcre"; pcre:"/pcre[0-9]{3}z/"; sid:6;)
alert tcp any any -> any any (msg:"second is fast"; content:"ab"; content:"a-long-fast-pattern"; distance:0; fast_pattern; sid:7;)
alert tcp any any -> any any (msg:"only stream"; flow:only_stream; content:"begin"; depth:20; sid:8;)
alert tcp any any -> any any (msg:"never"; content:"not-in-here"; sid:9;)
alert tcp any any -> any any (msg:"no content"; pcre:"/x{3}y{3}/"; flow:only_stream; sid:10;)
"#;

const PLANTS: &[&[u8]] = &[
    b"needle-one",
    b"NEEDLE-two",
    b"alpha",
    b"omega",
    b"key=12value",
    b"\x00\xff",
    b"pcre123z",
    b"ab",
    b"a-long-fast-pattern",
    b"xxxyyy",
    b"needle-on",
    b"key=value",
];

/// Sids that a reference without any streaming finds in the whole.
fn reference(stream: &[u8]) -> Vec<u32> {
    let has = |needle: &[u8]| stream.windows(needle.len()).position(|window| window == needle);
    let lower = stream.to_ascii_lowercase();
    let mut sids = Vec::new();
    let mut note = |holds: bool, sid: u32| {
        if holds {
            sids.push(sid);
        }
    };
    note(has(b"needle-one").is_some(), 1);
    note(lower.windows(10).any(|window| window == b"needle-two"), 2);
    note(has(b"alpha").is_some() && has(b"omega").is_some(), 3);
    let near = (0..stream.len()).any(|at| {
        stream[at..].starts_with(b"key=")
            && stream.get(at + 6..).is_some_and(|rest| rest[..rest.len().min(10)].windows(5).any(|window| window == b"value"))
    });
    note(near, 4);
    note(has(b"\x00\xff").is_some(), 5);
    let digits = |window: &[u8]| window.starts_with(b"pcre") && window[4..7].iter().all(u8::is_ascii_digit) && window[7] == b'z';
    note(stream.windows(8).any(digits), 6);
    let fast = stream.windows(19).rposition(|window| window == b"a-long-fast-pattern");
    note(has(b"ab").is_some_and(|first| fast.is_some_and(|fast| fast >= first + 2)), 7);
    note(stream.windows(5).take(16).any(|window| window == b"begin"), 8);
    note(has(b"xxxyyy").is_some(), 10);
    sids
}

fn make(numbers: &mut Numbers) -> Vec<u8> {
    let mut stream = Vec::new();
    if numbers.below(2) == 0 {
        stream.extend_from_slice(&b"................."[..numbers.below(17)]);
        stream.extend_from_slice(b"begin");
    }
    for _ in 0..numbers.below(7) {
        for _ in 0..numbers.below(40) {
            stream.push(b"abeglnopqx-=\x00"[numbers.below(13)]);
        }
        stream.extend_from_slice(PLANTS[numbers.below(PLANTS.len())]);
    }
    stream.push(b'.');
    stream
}

fn alerts(stream: &[u8], cuts: &[usize], shuffle: Option<&mut Numbers>, filler: &str) -> Vec<u32> {
    // Alerts only, so that the flow goes on; anomalies of reordering are of no interest.
    let mut bench = Bench::with(PipelineConfig { anomalies: false, ..PipelineConfig::default() }, &format!("{RULES}{filler}"));
    let mut connection = Connection::new(40000, 80);
    connection.open(&mut bench);
    let mut segments: Vec<(usize, &[u8])> = Vec::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        if cut > from {
            segments.push((from, &stream[from..cut]));
            from = cut;
        }
    }
    if let Some(numbers) = shuffle {
        for at in (1..segments.len()).rev() {
            segments.swap(at, numbers.below(at + 1));
        }
        // A few come twice.
        for _ in 0..numbers.below(3) {
            let again = segments[numbers.below(segments.len())];
            segments.push(again);
        }
    }
    for (at, bytes) in segments {
        let outcome = bench.send(&connection.client_says(at as u32, ACK | PSH, bytes));
        assert!(outcome.verdict.passes(), "{:?}", outcome.verdict);
    }
    let mut sids = bench.sids();
    sids.sort_unstable();
    sids.dedup();
    sids
}

#[test]
fn any_segmentation_gives_the_alerts_of_the_whole() {
    // Enough other literals that the large engine of the first pass is used.
    let many: String = (0..400)
        .map(|number| format!("alert tcp any any -> any any (msg:\"f\"; content:\"filler{number:04}literal\"; sid:{};)\n", 1000 + number))
        .collect();
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for round in 0..120 {
        let filler = if round % 8 == 0 { many.as_str() } else { "" };
        let stream = make(&mut numbers);
        let expected = reference(&stream);
        assert_eq!(alerts(&stream, &[], None, filler), expected, "whole {}", stream.escape_ascii());
        let single: Vec<usize> = (1..stream.len()).collect();
        assert_eq!(alerts(&stream, &single, None, filler), expected, "single bytes {}", stream.escape_ascii());
        for _ in 0..4 {
            let mut cuts: Vec<usize> = (0..numbers.below(12)).map(|_| numbers.below(stream.len())).collect();
            cuts.sort_unstable();
            assert_eq!(alerts(&stream, &cuts, None, filler), expected, "{cuts:?} {}", stream.escape_ascii());
            assert_eq!(alerts(&stream, &cuts, Some(&mut numbers), filler), expected, "shuffled {cuts:?} {}", stream.escape_ascii());
        }
    }
}

#[test]
fn parts_of_a_rule_may_lie_tens_of_kilobytes_apart() {
    let mut stream = b"alpha".to_vec();
    stream.resize(50_000, b'.');
    stream.extend_from_slice(b"omega");
    for size in [1000, 1448, 30_000, 60_000] {
        let cuts: Vec<usize> = (1..).map(|count| count * size).take_while(|cut| *cut < stream.len()).collect();
        assert_eq!(alerts(&stream, &cuts, None, ""), [3], "{size}");
    }
}
