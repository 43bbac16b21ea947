//! The canonical text of a rule. Parsing it gives a rule of the same meaning ([`Rule::same_meaning`]).

use std::fmt::Write;

use crate::header::{AddressExpr, Header, PortExpr};
use crate::tree::{
    Amount, Base, BitsMode, Body, ByteValue, CaptureScope, Comparison, Endian, FastPattern, FlowbitsOperation, Modifier, NumberTest,
    PacketTest, Pcre, Relation, Rule, Target, Threshold, ThresholdKind, UniqueOn,
};

/// A whole file: each rule that can be read in its canonical text, the rest as it is.
pub fn file(text: &str) -> String {
    let read = crate::parse(text);
    let mut rules: Vec<&Rule> = read.rules.iter().chain(&read.unsupported).chain(&read.disabled).collect();
    rules.sort_by_key(|rule| rule.span.start);
    let mut out = String::with_capacity(text.len() + 1024);
    let mut copied = 0;
    for found in rules {
        let Some(before) = text.get(copied..found.span.start) else { continue };
        out.push_str(before);
        out.push_str(&rule(found));
        copied = found.span.end;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// One rule on one line, without a line end.
pub fn rule(rule: &Rule) -> String {
    let header = &rule.header;
    let mut out = format!(
        "{} {} {} {} {} {} {} (",
        header.action.name(),
        protocol(header),
        address(&header.source),
        port(&header.source_ports),
        header.direction.name(),
        address(&header.destination),
        port(&header.destination_ports),
    );
    for (index, option) in rule.options.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(option.keyword);
        let value = if option.body.is_written_as_read() { option.text.as_deref().map(semicolons) } else { value(&option.body) };
        if let Some(value) = value {
            out.push(':');
            out.push_str(&value);
        }
        out.push(';');
    }
    out.push(')');
    out
}

fn protocol(header: &Header) -> String {
    match &header.hook {
        Some(hook) => format!("{}:{hook}", header.protocol.name()),
        None => header.protocol.name().to_owned(),
    }
}

pub fn address(tree: &AddressExpr) -> String {
    match tree {
        AddressExpr::Any => "any".to_owned(),
        AddressExpr::Network { address, prefix } if *prefix == if address.is_ipv4() { 32 } else { 128 } => address.to_string(),
        AddressExpr::Network { address, prefix } => format!("{address}/{prefix}"),
        AddressExpr::Range(first, last) => format!("{first}-{last}"),
        AddressExpr::Variable(name) => format!("${name}"),
        AddressExpr::List(members) => format!("[{}]", members.iter().map(address).collect::<Vec<_>>().join(",")),
        AddressExpr::Not(inner) => format!("!{}", address(inner)),
    }
}

pub fn port(tree: &PortExpr) -> String {
    match tree {
        PortExpr::Any => "any".to_owned(),
        PortExpr::Range(first, last) if first == last => first.to_string(),
        PortExpr::Range(first, u16::MAX) => format!("{first}:"),
        PortExpr::Range(first, last) => format!("{first}:{last}"),
        PortExpr::Variable(name) => format!("${name}"),
        PortExpr::List(members) => format!("[{}]", members.iter().map(port).collect::<Vec<_>>().join(",")),
        PortExpr::Not(inner) => format!("!{}", port(inner)),
    }
}

/// The bytes of a content as they stand between its quotes: printable text as it is, the rest in hex.
pub fn content(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    let mut in_hex = false;
    for byte in bytes {
        let plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b';' | b':' | b'\\' | b'|');
        if plain == in_hex {
            out.push('|');
            in_hex = !plain;
        } else if in_hex {
            out.push(' ');
        }
        if plain {
            out.push(*byte as char);
        } else {
            _ = write!(out, "{byte:02X}");
        }
    }
    if in_hex {
        out.push('|');
    }
    out
}

/// What stands after the colon; `None`: no colon.
fn value(body: &Body) -> Option<String> {
    Some(match body {
        Body::Msg(text) => {
            let mut out = String::from("\"");
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    out.push('\\');
                }
                out.push(character);
            }
            out.push('"');
            semicolons(&out)
        }
        Body::Sid(number) | Body::Gid(number) | Body::Rev(number) => number.to_string(),
        Body::Classtype(name) => name.clone(),
        Body::Reference { system, value } => semicolons(&format!("{system},{value}")),
        Body::Metadata(pairs) => {
            let pair = |(key, value): &(String, String)| if value.is_empty() { key.clone() } else { format!("{key} {value}") };
            semicolons(&pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Body::Priority(number) => number.to_string(),
        Body::Target(Target::SourceIp) => "src_ip".to_owned(),
        Body::Target(Target::DestinationIp) => "dest_ip".to_owned(),
        Body::Content { negated, bytes } => format!("{}\"{}\"", not(*negated), content(bytes)),
        Body::Modifier(modifier) => return modifier_value(modifier),
        Body::Pcre(pcre) => semicolons(&pcre_value(pcre)),
        Body::IsDataAt(at) => {
            let relative = if at.relative { ",relative" } else { "" };
            let rawbytes = if at.rawbytes { ",rawbytes" } else { "" };
            format!("{}{}{relative}{rawbytes}", not(at.negated), amount(&at.at))
        }
        Body::ByteTest(test) => {
            let operator = match test.comparison {
                Comparison::Less => "<",
                Comparison::Greater => ">",
                Comparison::Equal => "=",
                Comparison::LessOrEqual => "<=",
                Comparison::GreaterOrEqual => ">=",
                Comparison::And => "&",
                Comparison::Or => "^",
            };
            let value = match &test.value {
                ByteValue::Number(number) => number.to_string(),
                ByteValue::Name(name) => name.clone(),
            };
            let front = format!("{},{}{operator},{value},{}", amount(&test.count), not(test.negated), amount(&test.offset));
            front + &byte_words(test.relative, test.base, test.bitmask)
        }
        Body::ByteJump(jump) => {
            let mut out = format!("{},{}", amount(&jump.count), amount(&jump.offset));
            out += &byte_words(jump.relative, jump.base, jump.bitmask);
            if jump.multiplier != 1 {
                _ = write!(out, ",multiplier {}", jump.multiplier);
            }
            for (set, word) in [(jump.align, ",align"), (jump.from_beginning, ",from_beginning"), (jump.from_end, ",from_end")] {
                if set {
                    out.push_str(word);
                }
            }
            if jump.post_offset != Amount::Number(0) {
                _ = write!(out, ",post_offset {}", amount(&jump.post_offset));
            }
            out
        }
        Body::ByteExtract(extract) => {
            let mut out = format!("{},{},{}", extract.count, extract.offset, extract.name);
            out += &byte_words(extract.relative, extract.base, extract.bitmask);
            if extract.multiplier != 1 {
                _ = write!(out, ",multiplier {}", extract.multiplier);
            }
            if extract.align != 0 {
                _ = write!(out, ",align {}", extract.align);
            }
            out
        }
        Body::Bsize(test) => number_test(test),
        Body::Flow(words) => words.iter().map(|word| word.name()).collect::<Vec<_>>().join(","),
        Body::Flowbits(bits) => {
            let operation = match bits.operation {
                FlowbitsOperation::Set => "set",
                FlowbitsOperation::Unset => "unset",
                FlowbitsOperation::Toggle => "toggle",
                FlowbitsOperation::IsSet => "isset",
                FlowbitsOperation::IsNotSet => "isnotset",
            };
            format!("{operation},{}", bits.names.join("|"))
        }
        Body::UriContent { negated, bytes } => format!("{}\"{}\"", not(*negated), content(bytes)),
        Body::Absent { or_else: true } => "or_else".to_owned(),
        Body::Absent { or_else: false } | Body::Prefilter => return None,
        Body::Noalert
        | Body::Select(_)
        | Body::Transform(_)
        | Body::ByteMath(_)
        | Body::Base64Decode(_)
        | Body::Dataset(_)
        | Body::Datarep(_)
        | Body::Entropy(_)
        | Body::Condition(_)
        | Body::Effect(_)
        | Body::Requires(_) => return None,
        Body::Threshold(threshold) | Body::DetectionFilter(threshold) => threshold_value(threshold),
        Body::Packet(test) => return packet_value(test),
        Body::Unsupported(value) => return value.as_deref().map(semicolons),
    })
}

fn modifier_value(modifier: &Modifier) -> Option<String> {
    match modifier {
        Modifier::Nocase
        | Modifier::Rawbytes
        | Modifier::StartsWith
        | Modifier::EndsWith
        | Modifier::MoveTo(_)
        | Modifier::FastPattern(FastPattern::Whole) => None,
        Modifier::Replace(bytes) => Some(format!("\"{}\"", content(bytes))),
        Modifier::Offset(number) | Modifier::Depth(number) | Modifier::Distance(number) | Modifier::Within(number) => Some(amount(number)),
        Modifier::FastPattern(FastPattern::Only) => Some("only".to_owned()),
        Modifier::FastPattern(FastPattern::Chop { offset, length }) => Some(format!("{offset},{length}")),
    }
}

fn pcre_value(pcre: &Pcre) -> String {
    let mut out = format!("{}\"/{}/", not(pcre.negated), pcre.pattern);
    let flags = &pcre.flags;
    for (set, letter) in [
        (flags.caseless, 'i'),
        (flags.dot_all, 's'),
        (flags.multi_line, 'm'),
        (flags.extended, 'x'),
        (flags.anchored, 'A'),
        (flags.dollar_end_only, 'E'),
        (flags.ungreedy, 'G'),
        (flags.relative, 'R'),
        (flags.rawbytes, 'B'),
        (flags.no_match_limit, 'O'),
    ] {
        if set {
            out.push(letter);
        }
    }
    if let Some((letter, _)) = crate::keyword::pcre_buffers().iter().find(|(_, buffer)| Some(*buffer) == pcre.buffer) {
        out.push(*letter);
    }
    for capture in &pcre.captures {
        let scope = match capture.scope {
            CaptureScope::Flow => "flow",
            CaptureScope::Packet => "pkt",
            CaptureScope::Alert => "alert",
        };
        _ = write!(out, ", {scope}:{}", capture.name);
    }
    out.push('"');
    out
}

fn byte_words(relative: bool, base: Base, bitmask: u64) -> String {
    let mut out = String::new();
    if relative {
        out.push_str(",relative");
    }
    out.push_str(match base {
        Base::Binary(Endian::Big) => "",
        Base::Binary(Endian::Little) => ",little",
        Base::Binary(Endian::Dce) => ",dce",
        Base::Hex => ",string,hex",
        Base::Decimal => ",string,dec",
        Base::Octal => ",string,oct",
    });
    if bitmask != 0 {
        _ = write!(out, ",bitmask 0x{bitmask:x}");
    }
    out
}

fn threshold_value(threshold: &Threshold) -> String {
    let kind = match threshold.kind {
        ThresholdKind::Limit => "type limit, ",
        ThresholdKind::Threshold => "type threshold, ",
        ThresholdKind::Both => "type both, ",
        ThresholdKind::Filter => "",
        ThresholdKind::Backoff { multiplier } => {
            return format!("type backoff, track {}, count {}, multiplier {multiplier}", threshold.track.name(), threshold.count);
        }
    };
    let unique = match threshold.unique_on {
        None => "",
        Some(UniqueOn::SourcePort) => ", unique_on src_port",
        Some(UniqueOn::DestinationPort) => ", unique_on dst_port",
    };
    format!("{kind}track {}, count {}, seconds {}{unique}", threshold.track.name(), threshold.count, threshold.seconds)
}

fn packet_value(test: &PacketTest) -> Option<String> {
    Some(match test {
        PacketTest::Dsize(test) | PacketTest::Itype(test) | PacketTest::Icode(test) | PacketTest::Ttl(test) => number_test(test),
        PacketTest::Flags(test) => {
            let letters = |bits: u8| -> String {
                let set: String =
                    "FSRPAUEC".chars().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, letter)| letter).collect();
                if set.is_empty() { "0".to_owned() } else { set }
            };
            let ignored = if test.ignored == 0 { String::new() } else { format!(",{}", letters(test.ignored)) };
            format!("{}{}{ignored}", mode(test.mode), letters(test.value))
        }
        PacketTest::Seq(number) | PacketTest::Ack(number) => number.to_string(),
        PacketTest::Window { negated, value } => format!("{}{value}", not(*negated)),
        PacketTest::IcmpId(number) | PacketTest::IcmpSeq(number) | PacketTest::Id(number) => number.to_string(),
        PacketTest::Tos { negated, value } => format!("{}{value}", not(*negated)),
        PacketTest::SameIp => return None,
        PacketTest::IpProto { relation, value } => format!("{}{value}", relation_sign(*relation)),
        PacketTest::FragBits(test) => {
            let letters: String =
                "MDR".chars().enumerate().filter(|(bit, _)| test.value & (1 << bit) != 0).map(|(_, letter)| letter).collect();
            format!("{}{letters}", mode(test.mode))
        }
        PacketTest::FragOffset { relation, value } => format!("{}{value}", relation_sign(*relation)),
    })
}

fn number_test(test: &NumberTest) -> String {
    match test {
        NumberTest::Equal(number) => number.to_string(),
        NumberTest::NotEqual(number) => format!("!{number}"),
        NumberTest::Less(number) => format!("<{number}"),
        NumberTest::LessOrEqual(number) => format!("<={number}"),
        NumberTest::Greater(number) => format!(">{number}"),
        NumberTest::GreaterOrEqual(number) => format!(">={number}"),
        NumberTest::Between(low, high) => format!("{low}<>{high}"),
        NumberTest::NotBetween(low, high) => format!("!{low}<>{high}"),
        NumberTest::Masked { mask, value } => format!("&{mask:#x}={value:#x}"),
        NumberTest::NotMasked { mask, value } => format!("&{mask:#x}!={value:#x}"),
    }
}

fn amount(amount: &Amount) -> String {
    match amount {
        Amount::Number(number) => number.to_string(),
        Amount::Name(name) => name.clone(),
    }
}

const fn mode(mode: BitsMode) -> &'static str {
    match mode {
        BitsMode::Exact => "",
        BitsMode::All => "+",
        BitsMode::Any => "*",
        BitsMode::Not => "!",
    }
}

const fn relation_sign(relation: Relation) -> &'static str {
    match relation {
        Relation::Equal => "",
        Relation::NotEqual => "!",
        Relation::Less => "<",
        Relation::Greater => ">",
    }
}

const fn not(negated: bool) -> &'static str {
    if negated { "!" } else { "" }
}

/// A semicolon ends an option unless it is escaped.
fn semicolons(text: &str) -> String {
    text.replace(';', "\\;")
}
