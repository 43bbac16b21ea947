//! The tree of one rule: header and options in the order they were written.

use crate::buffer::BufferId;
use crate::condition::{Condition, Effect};
use crate::protocol::App;
use crate::signature::{Buffer, Version};
use crate::transform::Transform;
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
    /// The value as written, trimmed, of those that are formatted so: see [`Body::is_written_as_read`].
    pub(crate) text: Option<Box<str>>,
}

/// The value of an option; what is large is boxed, because a set has half a million of them.
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
    /// The old form of a content in the normalised URI.
    UriContent {
        negated: bool,
        bytes: Vec<u8>,
    },
    Modifier(Modifier),
    /// What follows looks here.
    Select(Select),
    Transform(Transform),
    Pcre(Box<Pcre>),
    IsDataAt(IsDataAt),
    ByteTest(Box<ByteTest>),
    ByteJump(Box<ByteJump>),
    ByteExtract(ByteExtract),
    ByteMath(Box<ByteMath>),
    Base64Decode(Base64Decode),
    /// Size of the buffer just named.
    Bsize(NumberTest),
    Dataset(Box<Dataset>),
    Datarep(Box<Datarep>),
    /// The buffer is not there; or, with `or_else`, what follows holds.
    Absent {
        or_else: bool,
    },
    Entropy(Entropy),

    Flow(Vec<FlowWord>),
    Flowbits(Flowbits),
    Noalert,
    Threshold(Threshold),
    DetectionFilter(Threshold),

    /// A test on the packet's headers or size.
    Packet(PacketTest),
    Condition(Box<Condition>),
    Effect(Box<Effect>),
    /// A hint which keyword to look for first.
    Prefilter,
    /// All of them, or the rule is passed over.
    Requires(Vec<Requirement>),

    /// Known and not built: the value as written, trimmed.
    Unsupported(Option<String>),
}

impl Body {
    /// Its canonical text is the author's, because it has one way to be written only but for blanks.
    pub(crate) fn is_written_as_read(&self) -> bool {
        matches!(
            self,
            Self::Transform(_)
                | Self::ByteMath(_)
                | Self::Base64Decode(_)
                | Self::Dataset(_)
                | Self::Datarep(_)
                | Self::Entropy(_)
                | Self::Condition(_)
                | Self::Effect(_)
                | Self::Requires(_)
                | Self::Select(_)
                | Self::Noalert
        )
    }
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
    /// The old form that moves the content: `http_uri`.
    MoveTo(BufferId),
    /// What the content becomes inline.
    Replace(Vec<u8>),
}

/// A sticky buffer, as chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Select {
    pub buffer: Buffer,
    /// One direction of a buffer that exists in both.
    pub towards: Option<crate::condition::Towards>,
    /// Says more about the protocol than the buffer does: `http.response_body` is `file.data` of HTTP.
    pub protocol: Option<App>,
    /// By one of its old names.
    pub old_name: bool,
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
    /// Looks there instead of where the rule is.
    pub buffer: Option<BufferId>,
    /// Variables that the groups set, the first the first.
    pub captures: Vec<Capture>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub scope: CaptureScope,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureScope {
    Flow,
    Packet,
    Alert,
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
    /// As the DCERPC header says.
    Dce,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteMath {
    /// 1 to 10.
    pub count: Amount,
    pub offset: i32,
    pub relative: bool,
    pub base: Base,
    pub operator: MathOperator,
    pub operand: ByteValue,
    pub result: String,
    /// 0: none.
    pub bitmask: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MathOperator {
    Add,
    Subtract,
    Divide,
    Multiply,
    ShiftLeft,
    ShiftRight,
}

/// What follows it may look into the buffer `base64_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base64Decode {
    /// `None`: to the end.
    pub bytes: Option<u32>,
    pub offset: u32,
    pub relative: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub operation: DatasetOperation,
    pub name: String,
    pub source: DatasetSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetOperation {
    Set,
    Unset,
    IsSet,
    IsNotSet,
}

/// What is said of a set; rules that name the same set may leave it out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetSource {
    pub kind: Option<DatasetKind>,
    pub load: Option<String>,
    pub save: Option<String>,
    /// Loaded and saved.
    pub state: Option<String>,
    pub memcap: Option<u64>,
    pub hashsize: Option<u32>,
    /// Values of a JSON file carry context into the alert.
    pub format: DatasetFormat,
    pub context_key: Option<String>,
    pub value_key: Option<String>,
    pub array_key: Option<String>,
    pub remove_key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetKind {
    String,
    Md5,
    Sha256,
    Ipv4,
    /// Both families.
    Ip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DatasetFormat {
    #[default]
    Csv,
    Json,
    Ndjson,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datarep {
    pub name: String,
    pub relation: Relation,
    pub score: u16,
    pub source: DatasetSource,
}

/// Of the buffer's bytes, 0 to 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entropy {
    /// `None`: all.
    pub bytes: Option<u32>,
    pub offset: u32,
    pub test: EntropyTest,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EntropyTest {
    Equal(f64),
    NotEqual(f64),
    Less(f64),
    LessOrEqual(f64),
    Greater(f64),
    GreaterOrEqual(f64),
    Between(f64, f64),
    NotBetween(f64, f64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Feature(String),
    Keyword(String),
    /// Any of the alternatives, each all of its comparisons.
    Version(Vec<Vec<(VersionRelation, Version)>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionRelation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
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
    /// At least 1; 0 only for `Backoff`, which has no period.
    pub seconds: u32,
    /// Counts only what differs in this from what was counted.
    pub unique_on: Option<UniqueOn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UniqueOn {
    SourcePort,
    DestinationPort,
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
    /// Alerts at the `count`th, then at `count * multiplier`, and so on.
    Backoff { multiplier: u32 },
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
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Between(u64, u64),
    NotBetween(u64, u64),
    Masked { mask: u64, value: u64 },
    NotMasked { mask: u64, value: u64 },
}

impl NumberTest {
    /// The largest number that passes, when there is one below the type's own.
    pub const fn most(self) -> Option<u64> {
        match self {
            Self::Equal(number) | Self::LessOrEqual(number) => Some(number),
            Self::Less(number) | Self::Between(_, number) => Some(number.saturating_sub(1)),
            Self::NotEqual(_)
            | Self::Greater(_)
            | Self::GreaterOrEqual(_)
            | Self::NotBetween(..)
            | Self::Masked { .. }
            | Self::NotMasked { .. } => None,
        }
    }

    pub fn matches(self, value: impl Into<u64>) -> bool {
        let value = value.into();
        match self {
            Self::Equal(number) => value == number,
            Self::NotEqual(number) => value != number,
            Self::Less(number) => value < number,
            Self::LessOrEqual(number) => value <= number,
            Self::Greater(number) => value > number,
            Self::GreaterOrEqual(number) => value >= number,
            Self::Between(low, high) => low < value && value < high,
            Self::NotBetween(low, high) => !(low < value && value < high),
            Self::Masked { mask, value: wanted } => value & mask == wanted,
            Self::NotMasked { mask, value: wanted } => value & mask != wanted,
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
