//! What a rule asks beside the bytes of a buffer ([`Condition`]), and what it does beside alerting ([`Effect`]).
//!
//! An engine must know each condition and effect of a rule that it loads: one it does not know makes the rule unsupported.

use crate::keyword::integer::Field;
use crate::protocol::App;
use crate::tree::{NumberTest, Relation};

/// All of a rule's conditions must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Integer(IntegerTest),
    /// Bytes that TCP carried since the handshake.
    StreamSize {
        end: End,
        test: NumberTest,
    },
    /// The flow is known to carry much.
    FlowElephant(Towards),
    AppLayerProtocol(AppLayerProtocol),
    AppLayerEvent {
        /// `None`: an event of recognition itself (`applayer_mismatch_protocol_both_directions`).
        protocol: Option<App>,
        /// A member of [`crate::event::APP`], with the protocol; `None`: any event of the protocol.
        event: Option<&'static str>,
    },
    AppLayerState {
        relation: Relation,
        state: String,
    },
    /// A member of [`crate::event::DECODE`]: `ipv4.trunc_pkt`.
    DecodeEvent(&'static str),
    /// A member of [`crate::event::STREAM`]: `3whs_synack_in_wrong_direction`.
    StreamEvent(&'static str),
    /// Reads only.
    Flowint(Flowint),
    /// Reads only.
    Xbits(Xbits),
    /// Reads only.
    Hostbits(Hostbits),
    Iprep(Iprep),
    Geoip(Geoip),
    /// An IPv4 option is there.
    IpOption(IpOption),
    Checksum {
        layer: ChecksumLayer,
        valid: bool,
    },
    /// Sun RPC call.
    Rpc {
        program: u32,
        version: Option<u32>,
        procedure: Option<u32>,
    },
    Asn1(Asn1),
    /// A PORT command whose address is not the client's.
    FtpBounce,
    FtpDataCommand(FtpDataCommand),
    FtpMode {
        active: bool,
    },
    FtpReplyReceived(bool),
    MqttSessionPresent(bool),
    /// `filename`, `fileext`, `filemagic`: old forms, without case; and the old TLS forms `tls.subject`, `tls.issuerdn`,
    /// `tls.fingerprint`, and `ssh.protoversion`, `ssh.softwareversion`.
    Text {
        field: TextField,
        negated: bool,
        text: String,
    },
    /// The file's hash is in the list of this name.
    FileHash {
        algorithm: HashAlgorithm,
        negated: bool,
        list: String,
    },
    SslVersion(Vec<(bool, TlsVersion)>),
    /// Negated or not, each.
    SslState(Vec<(bool, SslState)>),
    TlsVersion(TlsVersion),
    /// Seconds since 1970, `last` only for [`DateRelation::Between`].
    TlsCertDate {
        which: CertDate,
        relation: DateRelation,
        first: i64,
        last: i64,
    },
    TlsCertExpired,
    TlsCertValid,
    DceIface(DceIface),
    /// Any of these ranges, both ends included.
    DceOpnum(Vec<(u16, u16)>),
    /// Internal indications, any of these bits; IIN1 in the high byte.
    Dnp3Indications(u16),
    Dnp3Object {
        group: u8,
        variation: u8,
    },
    Modbus(Modbus),
    CipService {
        service: u8,
        class: Option<u16>,
        attribute: Option<u16>,
    },
    /// A settings parameter of HTTP/2 by its number.
    Http2Setting {
        id: u16,
        test: NumberTest,
    },
    Krb5TicketEncryption(Krb5Encryption),
    /// Any of them.
    TcpSession(Vec<TcpSessionState>),
}

impl Condition {
    /// Protocols that it is about; empty: any.
    pub fn protocols(&self) -> &'static [App] {
        match self {
            Self::Integer(test) => test.field.info().protocols,
            Self::AppLayerEvent { protocol: Some(protocol), .. } => App::one(*protocol),
            Self::FtpBounce | Self::FtpMode { .. } | Self::FtpReplyReceived(_) => &[App::Ftp],
            Self::FtpDataCommand(_) => &[App::FtpData],
            Self::MqttSessionPresent(_) => &[App::Mqtt],
            Self::Text { field, .. } => match field {
                TextField::FileName | TextField::FileExtension | TextField::FileMagic => FILE,
                TextField::TlsSubject | TextField::TlsIssuer | TextField::TlsFingerprint => &[App::Tls],
                TextField::SshProtocol | TextField::SshSoftware => &[App::Ssh],
            },
            Self::FileHash { .. } => FILE,
            Self::SslVersion(_) | Self::SslState(_) | Self::TlsVersion(_) | Self::TlsCertDate { .. } => &[App::Tls],
            Self::TlsCertExpired | Self::TlsCertValid => &[App::Tls],
            Self::DceIface(_) | Self::DceOpnum(_) => &[App::Dcerpc, App::Smb],
            Self::Dnp3Indications(_) | Self::Dnp3Object { .. } => &[App::Dnp3],
            Self::Modbus(_) => &[App::Modbus],
            Self::CipService { .. } => &[App::Enip],
            Self::Http2Setting { .. } => &[App::Http2],
            Self::Krb5TicketEncryption(_) => &[App::Krb5],
            Self::StreamSize { .. }
            | Self::FlowElephant(_)
            | Self::AppLayerProtocol(_)
            | Self::AppLayerEvent { protocol: None, .. }
            | Self::AppLayerState { .. }
            | Self::DecodeEvent(_)
            | Self::StreamEvent(_)
            | Self::Flowint(_)
            | Self::Xbits(_)
            | Self::Hostbits(_)
            | Self::Iprep(_)
            | Self::Geoip(_)
            | Self::IpOption(_)
            | Self::Checksum { .. }
            | Self::Rpc { .. }
            | Self::Asn1(_)
            | Self::TcpSession(_) => &[],
        }
    }
}

/// Protocols that carry files.
pub(crate) const FILE: &[App] = &[App::Http, App::Smtp, App::FtpData, App::Smb, App::Nfs];

/// What is done when the rule matches, in the order written.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Writes only.
    Flowint(Flowint),
    /// Writes only.
    Xbits(Xbits),
    /// Writes only.
    Hostbits(Hostbits),
    Tag(Tag),
    FileStore {
        towards: Option<Towards>,
        scope: FileScope,
    },
    TlsStore,
    /// No more inspection of the flow.
    Bypass,
    /// Mark of the packet: `(mark & !mask) | value`.
    NfqSetMark {
        value: u32,
        mask: u32,
    },
    /// `config:logging disable, type tx, scope tx`
    DisableLogging(ConfigScope),
    /// Alert although the action (pass) does not.
    Alert,
}

/// A number of the packet, flow, transaction or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegerTest {
    pub field: Field,
    pub test: NumberTest,
    pub which: Which,
    /// Of one direction only.
    pub towards: Option<Towards>,
}

/// Which of the values has to hold, when there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// At least one.
    Any,
    /// Each; also when there is none.
    AllOrAbsent,
    /// Each, and there is one.
    All,
    /// At least one, or there is none.
    AnyOrAbsent,
    /// Counted from 0, from the end when negative.
    Index(i32),
    /// The same, or there is none at this place.
    IndexOrAbsent(i32),
    /// As many of those from `first` up to `last` (excluded; both from the end when negative) as `count` says.
    Count { count: NumberTest, range: Option<(i32, i32)> },
    /// The test is of how many values there are.
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Towards {
    ToServer,
    ToClient,
    Both,
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Server,
    Client,
    /// Each of the two.
    Both,
    /// One of the two.
    Either,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLayerProtocol {
    pub negated: bool,
    /// Any of them.
    pub protocols: Vec<Recognised>,
    pub mode: AppLayerMode,
    /// Only the protocol itself, not those that its name stands for.
    pub exact: bool,
}

/// What recognition came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recognised {
    As(App),
    /// Not yet.
    Unknown,
    /// Never will be.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppLayerMode {
    /// What was found in the direction of the packet.
    Direction,
    /// What the flow is now.
    Final,
    /// What it was before a change (STARTTLS).
    Original,
    Either,
    ToServer,
    ToClient,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flowint {
    pub name: String,
    pub operation: FlowintOperation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowintOperation {
    Add(FlowintValue),
    Subtract(FlowintValue),
    Set(FlowintValue),
    Less(FlowintValue),
    LessOrEqual(FlowintValue),
    Equal(FlowintValue),
    NotEqual(FlowintValue),
    GreaterOrEqual(FlowintValue),
    Greater(FlowintValue),
    IsSet,
    IsNotSet,
}

impl FlowintOperation {
    pub const fn writes(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Subtract(_) | Self::Set(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowintValue {
    Number(u32),
    /// Another counter of the flow.
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitsOperation {
    Set,
    Unset,
    Toggle,
    IsSet,
    IsNotSet,
}

impl BitsOperation {
    pub const fn writes(self) -> bool {
        matches!(self, Self::Set | Self::Unset | Self::Toggle)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xbits {
    pub operation: BitsOperation,
    pub name: String,
    pub track: XbitsTrack,
    /// At least 1; 30 when the rule gives none.
    pub expire_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XbitsTrack {
    SourceIp,
    DestinationIp,
    IpPair,
    Transaction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostbits {
    pub operation: BitsOperation,
    pub name: String,
    /// Source when the rule gives none.
    pub destination: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iprep {
    pub side: IpSide,
    pub category: String,
    pub test: IprepTest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IprepTest {
    IsSet,
    IsNotSet,
    /// 0 to 127.
    Score(NumberTest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geoip {
    pub side: IpSide,
    pub negated: bool,
    /// ISO 3166 codes, upper case.
    pub countries: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpSide {
    Any,
    Source,
    Destination,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpOption {
    RecordRoute,
    LooseSourceRoute,
    EndOfList,
    NoOperation,
    Timestamp,
    Security,
    StrictSourceRoute,
    StreamId,
    ExtendedSecurity,
    RouterAlert,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumLayer {
    Ipv4,
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
    Icmpv4,
    Icmpv6,
    Igmp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asn1 {
    pub bitstring_overflow: bool,
    pub double_overflow: bool,
    pub oversize_length: Option<u32>,
    pub absolute_offset: Option<u16>,
    pub relative_offset: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FtpDataCommand {
    Store,
    Retrieve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextField {
    FileName,
    FileExtension,
    FileMagic,
    TlsSubject,
    TlsIssuer,
    TlsFingerprint,
    SshProtocol,
    SshSoftware,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    Md5,
    Sha1,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    Ssl2,
    Ssl3,
    Tls10,
    Tls11,
    Tls12,
    Tls13,
    /// As on the wire.
    Number(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SslState {
    ClientHello,
    ServerHello,
    ClientKeyx,
    ServerKeyx,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertDate {
    NotBefore,
    NotAfter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DateRelation {
    Equal,
    Before,
    After,
    /// Both excluded.
    Between,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DceIface {
    /// Lower case, with hyphens.
    pub uuid: String,
    pub version: Option<(Relation, u16)>,
    /// In any fragment, not only the first.
    pub any_frag: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modbus {
    pub unit: Option<NumberTest>,
    pub kind: Option<ModbusKind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModbusKind {
    Function { code: u8, subfunction: Option<u16> },
    Category { negated: bool, category: ModbusCategory },
    Access { write: bool, table: Option<ModbusTable>, address: Option<NumberTest>, value: Option<NumberTest> },
}

/// Classes of function codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModbusCategory {
    Assigned,
    Unassigned,
    Public,
    User,
    Reserved,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModbusTable {
    Coils,
    Discretes,
    Input,
    Holding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpSessionState {
    Setup,
    Established,
    Closing,
}

/// What is no longer logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigScope {
    Transaction,
    Flow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Krb5Encryption {
    Weak,
    Strong,
    /// Any of these types.
    Types(Vec<i32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Of one address; else of the flow.
    pub host: Option<TagSide>,
    pub count: u32,
    pub unit: TagUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagSide {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagUnit {
    Packets,
    Seconds,
    Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileScope {
    File,
    Transaction,
    Flow,
}
