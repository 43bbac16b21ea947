use bulkhead_rules::tree::PcreFlags;

use super::{Program, STEPS_MAX, STEPS_PER_UNIT, Search};
use crate::inspect::Work;

/// Start and end.
type Place = Option<(usize, usize)>;

fn find(pattern: &str, text: &str) -> Place {
    let program = Program::new(pattern, &PcreFlags::default()).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    match program.find(text.as_bytes(), &mut Work::default()) {
        Search::Found { start, end } => Some((start, end)),
        Search::NoMatch => None,
        Search::Exhausted => panic!("{pattern}"),
    }
}

#[test]
fn what_others_cannot_run_is_run() {
    let cases: &[(&str, &str, Place)] = &[
        (r"foo(?!bar)", "foobar foobaz", Some((7, 10))),
        (r"foo(?=bar)", "foobaz foobar", Some((7, 10))),
        (r"(?<=a|bc)d", "xd bcd", Some((5, 6))),
        (r"(?<!a|bc)d", "ad bcd xd", Some((8, 9))),
        (r"(\w)\1", "abccd", Some((2, 4))),
        (r"(?P<q>['\x22])x(?P=q)", "'x\" 'x'", Some((4, 7))),
        (r"(?P<n>ab)\k<n>", "ab abab", Some((3, 7))),
        (r"(?i)(a)\1", "xaA", Some((1, 3))),
        (r"a++a", "aaa", None),
        (r"(?>a*)b", "aab", Some((0, 3))),
        (r"(?>a|ab)c", "abc", None),
        (r"\d{2,3}+5", "12345", Some((1, 5))),
        (r"\d{2,4}+4", "1234", None),
        (r"x{2,3}?(?=x)", "xxxx", Some((0, 2))),
        (r"^(?!.*evil).*$", "all well", Some((0, 8))),
        (r"^(?!.*evil).*$", "not evil", None),
        (r"(a|b)*(?=c)\1", "abc", None),
        (r"(?:(a)|b)\1", "bb aa", Some((3, 5))),
        (r"[^a-c\]]+(?=\])", "abcxyz]", Some((3, 6))),
        (r"(?s).(?=\n$)", "a\n\n", Some((0, 1))),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(find(pattern, text), *expected, "{pattern} in {text}");
    }
}

#[test]
fn plain_patterns_mean_what_they_mean_to_the_linear_engine() {
    let patterns = [
        r"a+b",
        r"a*?b",
        r"(a|ab)(c|bcd)(d*)",
        r"[a-c]{2,3}",
        r"^ab|cd$",
        r"a.c",
        r"(?i)AbC",
        r"\bfoo\b",
        r"x{2,}",
        r"(a*)*",
        r"(a|b)*?c",
        r"[[:digit:]]+",
        r"\x41\x42",
        r"(?:ab)?c",
        r"a{0,2}b",
        r"(?m)^b",
        r"[^\n]+$",
        r"\W\w",
        r"()",
        r"(|a)+",
    ];
    let mut seed = 7_u64;
    for pattern in patterns {
        let linear = regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap();
        for _ in 0..400 {
            let text: String = (0..12)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    char::from(b"aabbccdxAB12 f o\n"[(seed >> 33) as usize % 17])
                })
                .filter(|letter| !pattern.contains('$') || *letter != '\n')
                .collect();
            let expected = linear.find(text.as_bytes()).map(|found| (found.start(), found.end()));
            assert_eq!(find(pattern, &text), expected, "{pattern} in {text:?}");
        }
    }
}

#[test]
fn no_pattern_and_no_input_takes_longer_than_the_cap() {
    let text = "a".repeat(60_000);
    for pattern in [r"(a*)*\1b", r"(a|aa)+(?=b)", r"(?:a?){64}(?=b)", r"(?=(a+))a*b\1"] {
        let program = Program::new(pattern, &PcreFlags::default()).unwrap();
        let mut work = Work::default();
        let before = work.left();
        assert_eq!(program.find(text.as_bytes(), &mut work), Search::Exhausted, "{pattern}");
        assert!(before - work.left() <= 1 + 2 * STEPS_MAX / STEPS_PER_UNIT);
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for pattern in [
        r"(?<=a+)b",
        r"\1",
        r"(a",
        r"a)",
        r"[a",
        r"(*FAIL)",
        r"a\Kb",
        r"(?(1)a|b)",
        r"(?&n)",
        r"*a",
        r"a{9,3}",
        r"(?P=x)",
        r"x{4096}{4096}",
    ] {
        assert!(Program::new(pattern, &PcreFlags::default()).is_err(), "{pattern}");
    }
    assert!(Program::new(&"(".repeat(1_000), &PcreFlags::default()).is_err());
}
