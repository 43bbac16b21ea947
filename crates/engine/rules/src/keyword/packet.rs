//! Tests on a packet's own headers and size. A rule with one of them is judged packet by packet.

use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::Problem;
use crate::tree::{BitsMode, Body, FragBitsTest, PacketTest, Relation, TcpFlagsTest};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("dsize", Value::Required, true, |args| Ok(Body::Packet(PacketTest::Dsize(args.number_test(16)?)))),
    keyword("flags", Value::Required, false, flags),
    keyword("tcp.flags", Value::Required, false, flags),
    keyword("seq", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Seq(args.number(u32::MAX.into())? as u32)))),
    keyword("tcp.seq", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Seq(args.number(u32::MAX.into())? as u32)))),
    keyword("ack", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Ack(args.number(u32::MAX.into())? as u32)))),
    keyword("tcp.ack", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Ack(args.number(u32::MAX.into())? as u32)))),
    keyword("window", Value::Required, false, window),
    keyword("tcp.window", Value::Required, false, window),
    keyword("itype", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Itype(args.number_test(8)?)))),
    keyword("icode", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Icode(args.number_test(8)?)))),
    keyword("icmp_id", Value::Required, false, |args| Ok(Body::Packet(PacketTest::IcmpId(number16(args)?)))),
    keyword("icmp_seq", Value::Required, false, |args| Ok(Body::Packet(PacketTest::IcmpSeq(number16(args)?)))),
    keyword("ttl", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Ttl(args.number_test(8)?)))),
    keyword("tos", Value::Required, false, tos),
    keyword("id", Value::Required, false, |args| Ok(Body::Packet(PacketTest::Id(number16(args)?)))),
    keyword("sameip", Value::None, false, |_| Ok(Body::Packet(PacketTest::SameIp))),
    keyword("ip_proto", Value::Required, false, ip_proto),
    keyword("fragbits", Value::Required, false, fragbits),
    keyword("fragoffset", Value::Required, false, fragoffset),
];

fn number16(args: &Args<'_>) -> Result<u16, Problem> {
    let bare = Args { keyword: args.keyword, value: args.unquoted()?.trim() };
    Ok(bare.number(u16::MAX.into())? as u16)
}

fn window(args: &Args<'_>) -> Result<Body, Problem> {
    let (negated, value) = negation(args.value);
    let value = Args { keyword: args.keyword, value }.number(u16::MAX.into())? as u16;
    Ok(Body::Packet(PacketTest::Window { negated, value }))
}

fn tos(args: &Args<'_>) -> Result<Body, Problem> {
    let (negated, value) = negation(args.value);
    let hex = value.strip_prefix(['x', 'X']).map(|digits| format!("0x{digits}"));
    let value = Args { keyword: args.keyword, value: hex.as_deref().unwrap_or(value) }.number(255)? as u8;
    Ok(Body::Packet(PacketTest::Tos { negated, value }))
}

fn negation(value: &str) -> (bool, &str) {
    match value.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, value),
    }
}

/// `S`, `SA,12`, `+FPU`, `*RS`, `!A`, `0`.
fn flags(args: &Args<'_>) -> Result<Body, Problem> {
    let (letters, ignored) = match args.value.split_once(',') {
        Some((letters, ignored)) => (letters.trim(), Some(ignored.trim())),
        None => (args.value, None),
    };
    let (mode, letters) = mode(letters);
    let bits = |letters: &str| -> Result<u8, Problem> {
        if letters.is_empty() {
            return Err(args.bad());
        }
        letters.bytes().try_fold(0u8, |value, letter| {
            Ok(value
                | match letter.to_ascii_uppercase() {
                    b'F' => 0x01,
                    b'S' => 0x02,
                    b'R' => 0x04,
                    b'P' => 0x08,
                    b'A' => 0x10,
                    b'U' => 0x20,
                    b'E' | b'2' => 0x40,
                    b'C' | b'1' => 0x80,
                    b'0' => 0,
                    b' ' => 0,
                    _ => return Err(args.bad().help("use the letters F S R P A U E C, or 0")),
                })
        })
    };
    let ignored = match ignored {
        Some(letters) => bits(letters)?,
        None => 0,
    };
    Ok(Body::Packet(PacketTest::Flags(TcpFlagsTest { mode, value: bits(letters)?, ignored })))
}

/// `+`, `*` and `!` may stand before or after the letters.
fn mode(letters: &str) -> (BitsMode, &str) {
    for (sign, mode) in [('+', BitsMode::All), ('*', BitsMode::Any), ('!', BitsMode::Not)] {
        if let Some(rest) = letters.strip_prefix(sign).or_else(|| letters.strip_suffix(sign)) {
            return (mode, rest.trim());
        }
    }
    (BitsMode::Exact, letters)
}

fn fragbits(args: &Args<'_>) -> Result<Body, Problem> {
    let (mode, letters) = mode(args.value);
    if letters.is_empty() {
        return Err(args.bad());
    }
    let value = letters.bytes().try_fold(0u8, |value, letter| {
        Ok(value
            | match letter {
                b'M' => 1,
                b'D' => 2,
                b'R' => 4,
                _ => return Err(args.bad().help("use the letters M, D and R")),
            })
    })?;
    Ok(Body::Packet(PacketTest::FragBits(FragBitsTest { mode, value })))
}

fn fragoffset(args: &Args<'_>) -> Result<Body, Problem> {
    let (relation, rest) = args.relation();
    Ok(Body::Packet(PacketTest::FragOffset { relation, value: rest.number(8191)? as u16 }))
}

const PROTOCOL_NUMBERS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("eigrp", 88),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ip", 0),
    ("ip-encap", 4),
    ("ipencap", 4),
    ("ipip", 94),
    ("ipv6", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("l2tp", 115),
    ("mobile", 55),
    ("ospf", 89),
    ("pim", 103),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

fn ip_proto(args: &Args<'_>) -> Result<Body, Problem> {
    let (relation, rest) = Args { keyword: args.keyword, value: args.unquoted()?.trim() }.relation();
    // As `getprotobyname` has them: in lower or in upper case.
    let lower = rest.value.to_ascii_lowercase();
    let one_case = rest.value == lower || rest.value == rest.value.to_ascii_uppercase();
    let value = match PROTOCOL_NUMBERS.iter().find(|(name, _)| one_case && *name == lower) {
        Some((_, number)) => *number,
        None => rest.number(255)? as u8,
    };
    if (relation == Relation::Less && value == 0) || (relation == Relation::Greater && value == 255) {
        return Err(args.bad());
    }
    Ok(Body::Packet(PacketTest::IpProto { relation, value }))
}
