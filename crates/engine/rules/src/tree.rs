//! The tree of one rule: header and options in the order they were written.

use crate::{Header, Signature, Span};

/// One rule as written, and what it means.
#[derive(Debug, Clone)]
pub struct Rule {
    pub span: Span,
    pub header: Header,
    pub options: Vec<OptionNode>,
    /// Modifiers folded, contents by buffer: what an engine runs.
    pub signature: Signature,
}

impl Rule {
    /// Same rule, wherever it stands in whatever file.
    pub fn same_meaning(&self, other: &Self) -> bool {
        self.header == other.header
            && self.options.len() == other.options.len()
            && self.options.iter().zip(&other.options).all(|(a, b)| a.keyword == b.keyword && a.body == b.body)
    }
}

#[derive(Debug, Clone)]
pub struct OptionNode {
    pub span: Span,
    /// Canonical lower-case name.
    pub keyword: &'static str,
    pub body: Body,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Msg(String),
    Sid(u32),
    Gid(u32),
    Rev(u32),
    Classtype(String),
    Reference {
        system: String,
        value: String,
    },
    /// Key and value, in order.
    Metadata(Vec<(String, String)>),
    /// 1 to 255, 1 is the gravest.
    Priority(u8),
    Target(Target),

    Content {
        negated: bool,
        bytes: Vec<u8>,
    },
    Modifier(Modifier),
    Pcre(Pcre),
    IsDataAt(IsDataAt),
    ByteTest(ByteTest),
    ByteJump(ByteJump),
    ByteExtract(ByteExtract),
    /// Size of the buffer just named.
    Bsize(NumberTest),

    Flow(Vec<FlowWord>),
    Flowbits(Flowbits),
    Noalert,
    Threshold(Threshold),
    DetectionFilter(Threshold),

    /// A test on the packet's headers or size.
    Packet(PacketTest),

    /// Known and not built: the value as written, trimmed.
    Unsupported(Option<String>),
}

/// Which end of the flow is the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    SourceIp,
    DestinationIp,
}

/// What stands after a content and changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modifier {
    Nocase,
    Rawbytes,
    StartsWith,
    EndsWith,
    Offset(Amount),
    Depth(Amount),
    Distance(Amount),
    Within(Amount),
    FastPattern(FastPattern),
}

/// A number, or the name that a `byte_extract` of the same rule gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount {
    Number(i32),
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastPattern {
    Whole,
    Only,
    /// Only these bytes of the content go into the prefilter.
    Chop {
        offset: u16,
        length: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcre {
    pub negated: bool,
    pub pattern: String,
    pub flags: PcreFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PcreFlags {
    pub caseless: bool,
    pub dot_all: bool,
    pub multi_line: bool,
    pub extended: bool,
    pub anchored: bool,
    pub dollar_end_only: bool,
    pub ungreedy: bool,
    /// Begins after the last match.
    pub relative: bool,
    pub rawbytes: bool,
    pub no_match_limit: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsDataAt {
    pub negated: bool,
    pub at: Amount,
    pub relative: bool,
    pub rawbytes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    Big,
    Little,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Binary(Endian),
    Hex,
    Decimal,
    Octal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    Greater,
    Equal,
    LessOrEqual,
    GreaterOrEqual,
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteTest {
    /// Bytes to read: 1 to 8 binary, to 23 as text, where 0 means all digits there are.
    pub count: Amount,
    pub negated: bool,
    pub comparison: Comparison,
    pub value: ByteValue,
    pub offset: Amount,
    pub relative: bool,
    pub base: Base,
    /// 0: none.
    pub bitmask: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByteValue {
    Number(u64),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteJump {
    pub count: Amount,
    pub offset: Amount,
    pub relative: bool,
    pub base: Base,
    pub multiplier: u16,
    /// Round up to the next multiple of four.
    pub align: bool,
    pub from_beginning: bool,
    pub from_end: bool,
    pub post_offset: Amount,
    pub bitmask: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteExtract {
    pub count: u8,
    pub offset: i32,
    pub name: String,
    pub relative: bool,
    pub base: Base,
    pub multiplier: u16,
    /// 0, 2 or 4.
    pub align: u8,
    pub bitmask: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowWord {
    Established,
    NotEstablished,
    Stateless,
    ToServer,
    ToClient,
    FromServer,
    FromClient,
    OnlyStream,
    NoStream,
    OnlyFrag,
    NoFrag,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flowbits {
    pub operation: FlowbitsOperation,
    /// More than one only for `isset` and `isnotset`: any of them.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowbitsOperation {
    Set,
    Unset,
    Toggle,
    IsSet,
    IsNotSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Threshold {
    pub kind: ThresholdKind,
    pub track: Track,
    /// At least 1.
    pub count: u32,
    /// At least 1.
    pub seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThresholdKind {
    /// The first `count` of each period alert.
    Limit,
    /// Each `count`th alerts.
    Threshold,
    /// One alert a period, once `count` is reached.
    Both,
    /// Alerts from the `count`th on within a period: `detection_filter`.
    Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Track {
    BySource,
    ByDestination,
    ByRule,
    /// The pair of addresses.
    ByBoth,
    ByFlow,
}

/// `Between` excludes both ends, as in Suricata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberTest {
    Equal(u32),
    NotEqual(u32),
    Less(u32),
    LessOrEqual(u32),
    Greater(u32),
    GreaterOrEqual(u32),
    Between(u32, u32),
    NotBetween(u32, u32),
}

impl NumberTest {
    pub const fn matches(self, value: u32) -> bool {
        match self {
            Self::Equal(number) => value == number,
            Self::NotEqual(number) => value != number,
            Self::Less(number) => value < number,
            Self::LessOrEqual(number) => value <= number,
            Self::Greater(number) => value > number,
            Self::GreaterOrEqual(number) => value >= number,
            Self::Between(low, high) => low < value && value < high,
            Self::NotBetween(low, high) => !(low < value && value < high),
        }
    }
}

/// Tests on one packet's headers. All values are in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketTest {
    /// Bytes of payload.
    Dsize(NumberTest),
    Flags(TcpFlagsTest),
    Seq(u32),
    Ack(u32),
    Window {
        negated: bool,
        value: u16,
    },
    Itype(NumberTest),
    Icode(NumberTest),
    IcmpId(u16),
    IcmpSeq(u16),
    Ttl(NumberTest),
    Tos {
        negated: bool,
        value: u8,
    },
    Id(u16),
    SameIp,
    IpProto {
        relation: Relation,
        value: u8,
    },
    FragBits(FragBitsTest),
    FragOffset {
        relation: Relation,
        value: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// `value` and `ignored` are TCP's flag byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlagsTest {
    pub mode: BitsMode,
    pub value: u8,
    pub ignored: u8,
}

/// `value`: more fragments 1, don't fragment 2, reserved 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragBitsTest {
    pub mode: BitsMode,
    pub value: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitsMode {
    Exact,
    /// `+`: all of them, and perhaps others.
    All,
    /// `*`: at least one.
    Any,
    /// `!`: not exactly these.
    Not,
}
