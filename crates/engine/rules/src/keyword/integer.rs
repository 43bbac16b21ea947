//! Numbers of packets, flows, transactions and files: one table, one grammar.

use std::sync::LazyLock;

use super::args::number_test;
use super::{Args, Keyword, Value};
use crate::condition::{Condition, IntegerTest, Towards, Which};
use crate::diagnostic::Problem;
use crate::header::shorten;
use crate::protocol::App;
use crate::tree::{Body, NumberTest};

/// One number that rules can test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntegerField {
    /// Canonical.
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub bits: u32,
    /// Empty: any, or none.
    pub protocols: &'static [App],
    /// Words for values.
    pub names: &'static [(&'static str, u64)],
    /// One direction may be chosen.
    pub directed: bool,
    /// The names are bits, of which several may be asked: `!retain,!dup`.
    pub flags: bool,
}

macro_rules! fields {
    ($($id:ident = $info:expr,)*) => {
        /// A number that rules can test; its facts are in [`Field::info`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field { $($id,)* }

        const FIELDS: &[IntegerField] = &[$($info,)*];

        impl Field {
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];
        }
    };
}

impl Field {
    pub const fn info(self) -> &'static IntegerField {
        &FIELDS[self as usize]
    }

    /// Canonical: `dns.opcode`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }
}

pub(super) fn keywords() -> impl Iterator<Item = &'static Keyword> {
    KEYWORDS.iter()
}

static KEYWORDS: LazyLock<Vec<Keyword>> = LazyLock::new(|| {
    let table = FIELDS.iter().filter(|field| field.name != "urilen.raw" && !field.name.starts_with(SA_ATTRIBUTE));
    table
        .flat_map(|field| std::iter::once(&field.name).chain(field.aliases))
        // Two published cases have `snmp.version;` without a value: an error there, as here.
        .map(|name| Keyword { name, value: Value::Required, once: false, read: Some(read) })
        .chain([Keyword { name: "ike.chosen_sa_attribute", value: Value::Required, once: false, read: Some(sa_attribute) }])
        .collect()
});

const SA_ATTRIBUTE: &str = "ike.chosen_sa_attribute.";

fn read(args: &Args<'_>) -> Result<Body, Problem> {
    let named = |id: &&Field| id.info().name == args.keyword || id.info().aliases.contains(&args.keyword);
    let id = *Field::ALL.iter().find(named).ok_or_else(|| args.bad())?;
    let field = id.info();
    let text = args.unquoted()?;
    if id == Field::Urilen {
        return urilen(args, text);
    }
    if field.flags && text.split(',').all(|word| flag(field, word).is_some()) {
        let (mut mask, mut set) = (0, 0);
        for (negated, bit) in text.split(',').filter_map(|word| flag(field, word)) {
            mask |= bit;
            set |= if negated { 0 } else { bit };
        }
        return Ok(integer(id, NumberTest::Masked { mask, value: set }, Which::Any, None));
    }
    let (towards, text) = match (field.directed, text.split_once(',')) {
        (true, Some((word, rest))) => match towards(word.trim()) {
            Some(towards) => (Some(towards), rest.trim()),
            None => return Err(args.bad().help("the direction is toserver, toclient, either or both")),
        },
        (true, None) | (false, _) => (None, text),
    };
    let (number, which) = match text.split_once(',') {
        Some((number, rest)) => (number.trim(), which(rest.trim()).ok_or_else(|| args.bad())?),
        None => (text, Which::Any),
    };
    // `count>5`: how many there are.
    if let (Some(count), Which::Any) = (number.strip_prefix("count"), &which) {
        let test = number_test(count, 32).ok_or_else(|| args.bad())?;
        return Ok(integer(id, test, Which::Number, towards));
    }
    let test = value(field, number).ok_or_else(|| {
        let problem = args.bad();
        if field.names.is_empty() { problem } else { problem.help(format!("a number, or a word such as `{}`", field.names[0].0)) }
    })?;
    Ok(integer(id, test, which, towards))
}

/// `!retain`: whether negated, and the bit.
fn flag(field: &IntegerField, word: &str) -> Option<(bool, u64)> {
    let word = word.trim();
    let (negated, word) = match word.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, word),
    };
    let (_, bit) = field.names.iter().find(|(name, _)| *name == word)?;
    Some((negated, *bit))
}

fn integer(field: Field, test: NumberTest, which: Which, towards: Option<Towards>) -> Body {
    Body::Condition(Box::new(Condition::Integer(IntegerTest { field, test, which, towards })))
}

/// A test, or a word of the field.
fn value(field: &IntegerField, text: &str) -> Option<NumberTest> {
    number_test(text, field.bits).or_else(|| {
        let (negated, word) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        let known = |name: &str| name.bytes().zip(word.bytes()).all(|(a, b)| a == b.to_ascii_lowercase() || (a == b'_' && b == b'-'));
        let (_, number) = field.names.iter().find(|(name, _)| name.len() == word.len() && known(name))?;
        Some(if negated { NumberTest::NotEqual(*number) } else { NumberTest::Equal(*number) })
    })
}

fn which(text: &str) -> Option<Which> {
    Some(match text {
        "any" => Which::Any,
        "all" => Which::AllOrAbsent,
        "all1" => Which::All,
        "all_or_absent" => Which::AllOrAbsent,
        "or_absent" => Which::AnyOrAbsent,
        text => {
            if let Some(index) = text.strip_prefix("oob_or") {
                return index.trim().parse().ok().map(Which::IndexOrAbsent);
            }
            if let Some(rest) = text.strip_prefix("nb") {
                let (count, range) = match rest.split_once(',') {
                    Some((count, range)) => {
                        let (first, last) = range.split_once(':')?;
                        (count, Some((first.trim().parse().ok()?, last.trim().parse().ok()?)))
                    }
                    None => (rest, None),
                };
                return Some(Which::Count { count: number_test(count, 32)?, range });
            }
            Which::Index(text.parse().ok()?)
        }
    })
}

pub(super) fn towards(word: &str) -> Option<Towards> {
    Some(match word {
        "toserver" | "to_server" => Towards::ToServer,
        "toclient" | "to_client" => Towards::ToClient,
        "both" => Towards::Both,
        "either" => Towards::Either,
        _ => return None,
    })
}

/// `>10`, `5<>10,raw`, `8,norm`.
fn urilen(args: &Args<'_>, text: &str) -> Result<Body, Problem> {
    let (number, field) = match text.split_once(',') {
        None => (text, Field::Urilen),
        Some((number, kind)) => match kind.trim() {
            "raw" => (number.trim(), Field::UrilenRaw),
            "norm" => (number.trim(), Field::Urilen),
            _ => return Err(args.bad().help("raw or norm")),
        },
    };
    Ok(integer(field, Args { keyword: args.keyword, value: number }.number_test(16)?, Which::Any, None))
}

/// `alg_hash=2`
fn sa_attribute(args: &Args<'_>) -> Result<Body, Problem> {
    let (name, value) = args.value.split_once('=').ok_or_else(|| args.bad().help("write NAME=NUMBER"))?;
    let named = |id: &&Field| id.info().name.strip_prefix(SA_ATTRIBUTE) == Some(name.trim());
    let field = *Field::ALL.iter().find(named).ok_or_else(|| Problem::value(format!("`{}` is not an attribute", shorten(name))))?;
    let test = number_test(value, field.info().bits).ok_or_else(|| args.bad())?;
    Ok(integer(field, test, Which::Any, None))
}

const fn number(name: &'static str, bits: u32, protocols: &'static [App]) -> IntegerField {
    IntegerField { name, aliases: &[], bits, protocols, names: &[], directed: false, flags: false }
}

const fn named(name: &'static str, bits: u32, protocols: &'static [App], names: &'static [(&'static str, u64)]) -> IntegerField {
    IntegerField { names, ..number(name, bits, protocols) }
}

const fn directed(name: &'static str, bits: u32, protocols: &'static [App]) -> IntegerField {
    IntegerField { directed: true, ..number(name, bits, protocols) }
}

/// Bits of one byte.
const fn flags(name: &'static str, protocols: &'static [App], names: &'static [(&'static str, u64)]) -> IntegerField {
    IntegerField { names, flags: true, ..number(name, 8, protocols) }
}

const fn alias(field: IntegerField, aliases: &'static [&'static str]) -> IntegerField {
    IntegerField { aliases, ..field }
}

const ANY: &[App] = &[];
const DHCP: &[App] = &[App::Dhcp];
const DNS: &[App] = &[App::Dns];
const ENIP: &[App] = &[App::Enip];
const HTTP2: &[App] = &[App::Http2];
const IKE: &[App] = &[App::Ike];
const KRB5: &[App] = &[App::Krb5];
const LDAP: &[App] = &[App::Ldap];
const MQTT: &[App] = &[App::Mqtt];
const NFS: &[App] = &[App::Nfs];
const NTP: &[App] = &[App::Ntp];
const RFB: &[App] = &[App::Rfb];
const SNMP: &[App] = &[App::Snmp];
const WEBSOCKET: &[App] = &[App::Websocket];

fields! {
    DhcpLeasetime = number("dhcp.leasetime", 64, DHCP),
    DhcpRebindingTime = number("dhcp.rebinding_time", 64, DHCP),
    DhcpRenewalTime = number("dhcp.renewal_time", 64, DHCP),
    Dnp3Func = named("dnp3_func", 8, &[App::Dnp3], DNP3_FUNCTIONS),
    DnsOpcode = named("dns.opcode", 8, DNS, &[("query", 0), ("iquery", 1), ("status", 2), ("notify", 4), ("update", 5)]),
    DnsRcode = named("dns.rcode", 16, DNS, DNS_RCODES),
    DnsRrtype = named("dns.rrtype", 16, DNS, DNS_TYPES),
    EnipCapabilities = number("enip.capabilities", 16, ENIP),
    EnipCipAttribute = number("enip.cip_attribute", 32, ENIP),
    EnipCipClass = number("enip.cip_class", 32, ENIP),
    EnipCipExtendedstatus = number("enip.cip_extendedstatus", 16, ENIP),
    EnipCipInstance = number("enip.cip_instance", 32, ENIP),
    EnipCipStatus = number("enip.cip_status", 8, ENIP),
    EnipCommand = alias(named("enip.command", 16, ENIP, ENIP_COMMANDS), &["enip_command"]),
    EnipDeviceType = number("enip.device_type", 16, ENIP),
    EnipIdentityStatus = number("enip.identity_status", 16, ENIP),
    EnipProductCode = number("enip.product_code", 16, ENIP),
    EnipProtocolVersion = number("enip.protocol_version", 16, ENIP),
    EnipRevision = number("enip.revision", 16, ENIP),
    EnipSerial = number("enip.serial", 32, ENIP),
    EnipState = number("enip.state", 8, ENIP),
    EnipStatus = named("enip.status", 32, ENIP, ENIP_STATUSES),
    EnipVendorId = number("enip.vendor_id", 16, ENIP),
    Filesize = directed("filesize", 64, ANY),
    FlowAge = number("flow.age", 32, ANY),
    FlowBytes = directed("flow.bytes", 64, ANY),
    FlowBytesToclient = number("flow.bytes_toclient", 64, ANY),
    FlowBytesToserver = number("flow.bytes_toserver", 64, ANY),
    FlowPkts = directed("flow.pkts", 32, ANY),
    FlowPktsToclient = number("flow.pkts_toclient", 32, ANY),
    FlowPktsToserver = number("flow.pkts_toserver", 32, ANY),
    FtpDynamicPort = number("ftp.dynamic_port", 16, &[App::Ftp]),
    Http2Errorcode = named("http2.errorcode", 32, HTTP2, HTTP2_ERRORS),
    Http2Frametype = named("http2.frametype", 8, HTTP2, HTTP2_FRAMES),
    Http2Priority = number("http2.priority", 8, HTTP2),
    Http2SizeUpdate = number("http2.size_update", 64, HTTP2),
    Http2Window = number("http2.window", 32, HTTP2),
    Icmpv6Mtu = number("icmpv6.mtu", 32, ANY),
    IgmpType = number("igmp.type", 8, ANY),
    IkeSaAlgAuth = number("ike.chosen_sa_attribute.alg_auth", 32, IKE),
    IkeSaAlgDh = number("ike.chosen_sa_attribute.alg_dh", 32, IKE),
    IkeSaAlgEnc = number("ike.chosen_sa_attribute.alg_enc", 32, IKE),
    IkeSaAlgHash = number("ike.chosen_sa_attribute.alg_hash", 32, IKE),
    IkeSaSaGroupType = number("ike.chosen_sa_attribute.sa_group_type", 32, IKE),
    IkeSaSaFieldSize = number("ike.chosen_sa_attribute.sa_field_size", 32, IKE),
    IkeSaSaKeyLength = number("ike.chosen_sa_attribute.sa_key_length", 32, IKE),
    IkeSaSaLifeDuration = number("ike.chosen_sa_attribute.sa_life_duration", 32, IKE),
    IkeSaSaLifeType = number("ike.chosen_sa_attribute.sa_life_type", 32, IKE),
    IkeExchtype = number("ike.exchtype", 8, IKE),
    IkeKeyExchangePayloadLength = number("ike.key_exchange_payload_length", 32, IKE),
    IkeNoncePayloadLength = number("ike.nonce_payload_length", 32, IKE),
    Krb5ErrCode = number("krb5_err_code", 32, KRB5),
    Krb5MsgType = named("krb5_msg_type", 8, KRB5, KRB5_MESSAGES),
    LdapRequestOperation = named("ldap.request.operation", 8, LDAP, LDAP_OPERATIONS),
    LdapResponsesCount = number("ldap.responses.count", 32, LDAP),
    LdapResponsesOperation = named("ldap.responses.operation", 8, LDAP, LDAP_OPERATIONS),
    LdapResponsesResultCode = named("ldap.responses.result_code", 32, LDAP, LDAP_RESULTS),
    MqttConnackReturnCode = number("mqtt.connack.return_code", 8, MQTT),
    MqttConnectFlags = flags("mqtt.connect.flags", MQTT, MQTT_CONNECT_FLAGS),
    MqttFlags = flags("mqtt.flags", MQTT, &[("retain", 0x01), ("dup", 0x08)]),
    MqttProtocolVersion = number("mqtt.protocol_version", 8, MQTT),
    MqttQos = number("mqtt.qos", 8, MQTT),
    MqttReasonCode = number("mqtt.reason_code", 8, MQTT),
    MqttType = named("mqtt.type", 8, MQTT, MQTT_TYPES),
    NfsVersion = alias(number("nfs.version", 32, NFS), &["nfs_version"]),
    NfsProcedure = number("nfs_procedure", 32, NFS),
    NtpMode = named("ntp.mode", 8, NTP, NTP_MODES),
    NtpStratum = number("ntp.stratum", 8, NTP),
    NtpVersion = number("ntp.version", 8, NTP),
    RfbSecresult = named("rfb.secresult", 32, RFB, &[("ok", 0), ("fail", 1), ("toomany", 2), ("unknown", 3)]),
    RfbSectype = number("rfb.sectype", 32, RFB),
    SctpChunkCnt = number("sctp.chunk_cnt", 32, ANY),
    SctpChunkType = named("sctp.chunk_type", 8, ANY, SCTP_CHUNKS),
    SctpVtag = number("sctp.vtag", 32, ANY),
    SmbVersion = named("smb.version", 8, &[App::Smb], &[("1", 1), ("2", 2)]),
    SnmpPduType = named("snmp.pdu_type", 32, SNMP, SNMP_PDUS),
    SnmpVersion = number("snmp.version", 32, SNMP),
    TcpMss = number("tcp.mss", 16, ANY),
    TcpWscale = number("tcp.wscale", 8, ANY),
    TlsCertChainLen = number("tls.cert_chain_len", 32, &[App::Tls]),
    Urilen = number("urilen", 16, &[App::Http]),
    UrilenRaw = number("urilen.raw", 16, &[App::Http]),
    VlanId = number("vlan.id", 16, ANY),
    VlanLayers = number("vlan.layers", 8, ANY),
    VxlanVni = number("vxlan_vni", 32, ANY),
    WebsocketFlags = flags("websocket.flags", WEBSOCKET, &[("fin", 0x80), ("comp", 0x40)]),
    WebsocketMask = number("websocket.mask", 32, WEBSOCKET),
    WebsocketOpcode = named("websocket.opcode", 8, WEBSOCKET, WEBSOCKET_OPCODES),
}

const DNP3_FUNCTIONS: &[(&str, u64)] = &[
    ("confirm", 0),
    ("read", 1),
    ("write", 2),
    ("select", 3),
    ("operate", 4),
    ("direct_operate", 5),
    ("direct_operate_nr", 6),
    ("immed_freeze", 7),
    ("immed_freeze_nr", 8),
    ("freeze_clear", 9),
    ("freeze_clear_nr", 10),
    ("freeze_at_time", 11),
    ("freeze_at_time_nr", 12),
    ("cold_restart", 13),
    ("warm_restart", 14),
    ("initialize_data", 15),
    ("initialize_appl", 16),
    ("start_appl", 17),
    ("stop_appl", 18),
    ("save_config", 19),
    ("enable_unsolicited", 20),
    ("disable_unsolicited", 21),
    ("assign_class", 22),
    ("delay_measure", 23),
    ("record_current_time", 24),
    ("open_file", 25),
    ("close_file", 26),
    ("delete_file", 27),
    ("get_file_info", 28),
    ("authenticate_file", 29),
    ("abort_file", 30),
    ("activate_config", 31),
    ("authenticate_req", 32),
    ("authenticate_err", 33),
    ("response", 129),
    ("unsolicited_response", 130),
    ("authenticate_resp", 131),
];

const DNS_RCODES: &[(&str, u64)] = &[
    ("noerror", 0),
    ("formerr", 1),
    ("servfail", 2),
    ("nxdomain", 3),
    ("notimp", 4),
    ("refused", 5),
    ("yxdomain", 6),
    ("yxrrset", 7),
    ("nxrrset", 8),
    ("notauth", 9),
    ("notzone", 10),
    ("badvers", 16),
    ("badsig", 16),
    ("badkey", 17),
    ("badtime", 18),
    ("badmode", 19),
    ("badname", 20),
    ("badalg", 21),
    ("badtrunc", 22),
];

const DNS_TYPES: &[(&str, u64)] = &[
    ("a", 1),
    ("ns", 2),
    ("cname", 5),
    ("soa", 6),
    ("null", 10),
    ("wks", 11),
    ("ptr", 12),
    ("hinfo", 13),
    ("minfo", 14),
    ("mx", 15),
    ("txt", 16),
    ("rp", 17),
    ("afsdb", 18),
    ("x25", 19),
    ("isdn", 20),
    ("rt", 21),
    ("nsap", 22),
    ("sig", 24),
    ("key", 25),
    ("px", 26),
    ("gpos", 27),
    ("aaaa", 28),
    ("loc", 29),
    ("nxt", 30),
    ("srv", 33),
    ("atma", 34),
    ("naptr", 35),
    ("kx", 36),
    ("cert", 37),
    ("a6", 38),
    ("dname", 39),
    ("opt", 41),
    ("apl", 42),
    ("ds", 43),
    ("sshfp", 44),
    ("ipseckey", 45),
    ("rrsig", 46),
    ("nsec", 47),
    ("dnskey", 48),
    ("dhcid", 49),
    ("nsec3", 50),
    ("nsec3param", 51),
    ("tlsa", 52),
    ("hip", 55),
    ("cds", 59),
    ("cdnskey", 60),
    ("svcb", 64),
    ("https", 65),
    ("spf", 99),
    ("tkey", 249),
    ("tsig", 250),
    ("ixfr", 251),
    ("axfr", 252),
    ("mailb", 253),
    ("maila", 254),
    ("any", 255),
    ("uri", 256),
];

const ENIP_COMMANDS: &[(&str, u64)] = &[
    ("nop", 0),
    ("list_services", 4),
    ("list_identity", 0x63),
    ("list_interfaces", 0x64),
    ("register_session", 0x65),
    ("unregister_session", 0x66),
    ("send_rr_data", 0x6f),
    ("send_unit_data", 0x70),
    ("indicate_status", 0x72),
    ("cancel", 0x73),
];

const ENIP_STATUSES: &[(&str, u64)] = &[
    ("success", 0),
    ("invalid_cmd", 1),
    ("no_resources", 2),
    ("incorrect_data", 3),
    ("invalid_session", 0x64),
    ("invalid_length", 0x65),
    ("unsupported_prot_rev", 0x69),
    ("encap_header_error", 0x6a),
];

const HTTP2_ERRORS: &[(&str, u64)] = &[
    ("no_error", 0),
    ("protocol_error", 1),
    ("internal_error", 2),
    ("flow_control_error", 3),
    ("settings_timeout", 4),
    ("stream_closed", 5),
    ("frame_size_error", 6),
    ("refused_stream", 7),
    ("cancel", 8),
    ("compression_error", 9),
    ("connect_error", 10),
    ("enhance_your_calm", 11),
    ("inadequate_security", 12),
    ("http_1_1_required", 13),
];

const HTTP2_FRAMES: &[(&str, u64)] = &[
    ("data", 0),
    ("headers", 1),
    ("priority", 2),
    ("rststream", 3),
    ("rst_stream", 3),
    ("settings", 4),
    ("pushpromise", 5),
    ("push_promise", 5),
    ("ping", 6),
    ("goaway", 7),
    ("windowupdate", 8),
    ("window_update", 8),
    ("continuation", 9),
];

const KRB5_MESSAGES: &[(&str, u64)] = &[
    ("as_req", 10),
    ("as_rep", 11),
    ("tgs_req", 12),
    ("tgs_rep", 13),
    ("ap_req", 14),
    ("ap_rep", 15),
    ("reserved16", 16),
    ("reserved17", 17),
    ("safe", 20),
    ("priv", 21),
    ("cred", 22),
    ("error", 30),
];

const LDAP_OPERATIONS: &[(&str, u64)] = &[
    ("bind_request", 0),
    ("bind_response", 1),
    ("unbind_request", 2),
    ("search_request", 3),
    ("search_result_entry", 4),
    ("search_result_done", 5),
    ("modify_request", 6),
    ("modify_response", 7),
    ("add_request", 8),
    ("add_response", 9),
    ("del_request", 10),
    ("del_response", 11),
    ("mod_dn_request", 12),
    ("mod_dn_response", 13),
    ("compare_request", 14),
    ("compare_response", 15),
    ("abandon_request", 16),
    ("search_result_reference", 19),
    ("extended_request", 23),
    ("extended_response", 24),
    ("intermediate_response", 25),
];

const LDAP_RESULTS: &[(&str, u64)] = &[
    ("success", 0),
    ("operations_error", 1),
    ("protocol_error", 2),
    ("time_limit_exceeded", 3),
    ("size_limit_exceeded", 4),
    ("compare_false", 5),
    ("compare_true", 6),
    ("auth_method_not_supported", 7),
    ("stronger_auth_required", 8),
    ("referral", 10),
    ("admin_limit_exceeded", 11),
    ("unavailable_critical_extension", 12),
    ("confidentiality_required", 13),
    ("sasl_bind_in_progress", 14),
    ("no_such_attribute", 16),
    ("undefined_attribute_type", 17),
    ("inappropriate_matching", 18),
    ("constraint_violation", 19),
    ("attribute_or_value_exists", 20),
    ("invalid_attribute_syntax", 21),
    ("no_such_object", 32),
    ("alias_problem", 33),
    ("invalid_dns_syntax", 34),
    ("is_leaf", 35),
    ("alias_dereferencing_problem", 36),
    ("inappropriate_authentication", 48),
    ("invalid_credentials", 49),
    ("insufficient_access_rights", 50),
    ("busy", 51),
    ("unavailable", 52),
    ("unwilling_to_perform", 53),
    ("loop_detect", 54),
    ("naming_violation", 64),
    ("object_class_violation", 65),
    ("not_allowed_on_non_leaf", 66),
    ("not_allowed_on_rdn", 67),
    ("entry_already_exists", 68),
    ("object_class_mods_prohibited", 69),
    ("affects_multiple_dsas", 71),
    ("other", 80),
];

const MQTT_TYPES: &[(&str, u64)] = &[
    ("connect", 1),
    ("connack", 2),
    ("publish", 3),
    ("puback", 4),
    ("pubrec", 5),
    ("pubrel", 6),
    ("pubcomp", 7),
    ("subscribe", 8),
    ("suback", 9),
    ("unsubscribe", 10),
    ("unsuback", 11),
    ("pingreq", 12),
    ("pingresp", 13),
    ("disconnect", 14),
    ("auth", 15),
];

const MQTT_CONNECT_FLAGS: &[(&str, u64)] =
    &[("username", 0x80), ("password", 0x40), ("will_retain", 0x20), ("will", 0x04), ("clean_session", 0x02)];

const NTP_MODES: &[(&str, u64)] = &[
    ("reserved", 0),
    ("symmetric_active", 1),
    ("symmetric_passive", 2),
    ("client", 3),
    ("server", 4),
    ("broadcast", 5),
    ("control", 6),
    ("private", 7),
];

const SCTP_CHUNKS: &[(&str, u64)] = &[
    ("data", 0),
    ("init", 1),
    ("init_ack", 2),
    ("sack", 3),
    ("hb_req", 4),
    ("hb_ack", 5),
    ("heartbeat", 4),
    ("heartbeat_ack", 5),
    ("abort", 6),
    ("shutdown", 7),
    ("shutdown_ack", 8),
    ("error", 9),
    ("cookie_echo", 10),
    ("cookie_ack", 11),
    ("ecne", 12),
    ("cwr", 13),
    ("shutdown_complete", 14),
    ("auth", 15),
    ("asconf_ack", 128),
    ("re_config", 130),
    ("pad", 132),
    ("forward_tsn", 192),
    ("asconf", 193),
];

const SNMP_PDUS: &[(&str, u64)] = &[
    ("get_request", 0),
    ("get_next_request", 1),
    ("response", 2),
    ("set_request", 3),
    ("trap_v1", 4),
    ("get_bulk_request", 5),
    ("inform_request", 6),
    ("trap_v2", 7),
    ("report", 8),
];

const WEBSOCKET_OPCODES: &[(&str, u64)] =
    &[("continuation", 0), ("text", 1), ("binary", 2), ("connection_close", 8), ("close", 8), ("ping", 9), ("pong", 10)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_fit() {
        for field in FIELDS {
            for (name, value) in field.names {
                assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
                assert!(*value <= u64::MAX >> (64 - field.bits), "{} {name}", field.name);
            }
        }
    }
}
