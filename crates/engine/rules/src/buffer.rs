//! The buffers that a rule can look into: one table, with each buffer's old names, protocols and directions.
//!
//! A buffer has three kinds of name: its own, which is sticky (what follows looks there); aliases, sticky too; and perhaps a
//! *modifier*, the old form that moves the content before it. All of them fold to the canonical name.

use crate::protocol::App;

/// The facts of one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferInfo {
    /// Canonical: `http.uri`.
    pub name: &'static str,
    /// Other sticky names: `dns_query`.
    pub aliases: &'static [&'static str],
    /// The keyword that moves a content here: `http_uri`.
    pub modifier: Option<&'static str>,
    /// Protocols that have it; empty: any, or no application protocol at all.
    pub protocols: &'static [App],
    /// Exists in what the client sends.
    pub to_server: bool,
    /// Exists in what the server sends.
    pub to_client: bool,
    /// There may be several of them in one transaction or packet; each selection in a rule is a list of its own.
    pub multiple: bool,
    pub stage: Stage,
}

/// When a buffer can be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Headers of each packet: a rule with it is judged packet by packet.
    Packet,
    /// Of one transaction of an application layer, once its part is complete.
    Transaction,
    /// Bodies, which may be looked into while they grow.
    Body,
    /// The bytes of a file that some protocol carries.
    File,
    /// Made by the rule itself, from what it decoded in another buffer.
    Derived,
}

macro_rules! buffers {
    ($($id:ident = $info:expr,)*) => {
        /// A buffer; its facts are in [`BufferId::info`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum BufferId { $($id,)* }

        const ALL: &[BufferInfo] = &[$($info,)*];

        impl BufferId {
            /// In the order of the names.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];
        }
    };
}

impl BufferId {
    pub const fn info(self) -> &'static BufferInfo {
        &ALL[self as usize]
    }

    /// Canonical: `http.uri`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// By canonical name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.binary_search_by(|info| info.name.cmp(name)).ok().map(|index| Self::ALL[index])
    }
}

/// Frames: pieces of a protocol's stream that a rule can look into (`frame:smb2.data`). Protocol and frame.
pub const fn frames() -> &'static [(App, &'static str)] {
    FRAMES
}

#[derive(Clone, Copy)]
enum Way {
    Server,
    Client,
    Both,
}
use Way::{Both, Client, Server};

const fn one(name: &'static str, aliases: &'static [&'static str], protocols: &'static [App], way: Way) -> BufferInfo {
    BufferInfo {
        name,
        aliases,
        modifier: None,
        protocols,
        to_server: matches!(way, Server | Both),
        to_client: matches!(way, Client | Both),
        multiple: false,
        stage: Stage::Transaction,
    }
}

const fn many(name: &'static str, aliases: &'static [&'static str], protocols: &'static [App], way: Way) -> BufferInfo {
    BufferInfo { multiple: true, ..one(name, aliases, protocols, way) }
}

const fn old(name: &'static str, modifier: &'static str, way: Way) -> BufferInfo {
    BufferInfo { modifier: Some(modifier), ..one(name, &[], HTTP, way) }
}

const fn packet(name: &'static str) -> BufferInfo {
    BufferInfo { stage: Stage::Packet, ..one(name, &[], &[], Both) }
}

const ANY: &[App] = &[];
const DNS: &[App] = &[App::Dns];
const ENIP: &[App] = &[App::Enip];
const FILE: &[App] = &[App::Http, App::Smtp, App::FtpData, App::Smb, App::Nfs];
const FTP: &[App] = &[App::Ftp];
const HTTP: &[App] = &[App::Http];
const HTTP1: &[App] = &[App::Http1];
const HTTP2: &[App] = &[App::Http2];
const IKE: &[App] = &[App::Ike];
const JA: &[App] = &[App::Tls, App::Quic];
const KRB5: &[App] = &[App::Krb5];
const LDAP: &[App] = &[App::Ldap];
const LLMNR: &[App] = &[App::Llmnr];
const MDNS: &[App] = &[App::Mdns];
const MQTT: &[App] = &[App::Mqtt];
const POP3: &[App] = &[App::Pop3];
const QUIC: &[App] = &[App::Quic];
const SIP: &[App] = &[App::Sip];
const SMB: &[App] = &[App::Smb];
const SMTP: &[App] = &[App::Smtp];
const SNMP: &[App] = &[App::Snmp];
const SSH: &[App] = &[App::Ssh];
const TLS: &[App] = &[App::Tls];
const SDP: &[App] = &[App::Sip];

buffers! {
    Base64Data = BufferInfo { stage: Stage::Derived, ..one("base64_data", &[], ANY, Both) },
    DcerpcStubData = one("dcerpc.stub_data", &["dce_stub_data"], &[App::Dcerpc, App::Smb], Both),
    Dnp3Data = one("dnp3.data", &["dnp3_data"], &[App::Dnp3], Both),
    DnsAdditionalsRrname = many("dns.additionals.rrname", &[], DNS, Both),
    DnsAnswersRrname = many("dns.answers.rrname", &["dns.answer.name"], DNS, Both),
    DnsAuthoritiesRrname = many("dns.authorities.rrname", &[], DNS, Both),
    DnsQueriesRrname = many("dns.queries.rrname", &["dns.query.name"], DNS, Both),
    DnsQuery = many("dns.query", &["dns_query"], DNS, Server),
    DnsResponseRrname = many("dns.response.rrname", &[], DNS, Client),
    EmailBodyMd5 = one("email.body_md5", &[], SMTP, Server),
    EmailCc = one("email.cc", &[], SMTP, Server),
    EmailDate = one("email.date", &[], SMTP, Server),
    EmailFrom = one("email.from", &[], SMTP, Server),
    EmailMessageId = one("email.message_id", &[], SMTP, Server),
    EmailReceived = many("email.received", &[], SMTP, Server),
    EmailSubject = one("email.subject", &[], SMTP, Server),
    EmailTo = one("email.to", &[], SMTP, Server),
    EmailUrl = many("email.url", &[], SMTP, Server),
    EmailXMailer = one("email.x_mailer", &[], SMTP, Server),
    EnipProductName = one("enip.product_name", &[], ENIP, Both),
    EnipServiceName = one("enip.service_name", &[], ENIP, Both),
    EtherHdr = packet("ether.hdr"),
    FileData = BufferInfo { stage: Stage::File, ..many("file.data", &["file_data"], &[App::Http, App::Smtp, App::FtpData, App::Smb, App::Nfs], Both) },
    FileMagic = BufferInfo { stage: Stage::File, ..many("file.magic", &[], FILE, Both) },
    FileName = BufferInfo { stage: Stage::File, ..many("file.name", &[], FILE, Both) },
    FtpCommand = one("ftp.command", &[], FTP, Server),
    FtpCommandData = one("ftp.command_data", &[], FTP, Server),
    FtpCompletionCode = many("ftp.completion_code", &[], FTP, Client),
    FtpReply = many("ftp.reply", &[], FTP, Client),
    HttpAccept = one("http.accept", &["http_accept"], HTTP, Server),
    HttpAcceptEnc = one("http.accept_enc", &["http_accept_enc"], HTTP, Server),
    HttpAcceptLang = one("http.accept_lang", &["http_accept_lang"], HTTP, Server),
    HttpConnection = one("http.connection", &["http_connection"], HTTP, Both),
    HttpContentLen = one("http.content_len", &["http_content_len"], HTTP, Both),
    HttpContentType = one("http.content_type", &["http_content_type"], HTTP, Both),
    HttpCookie = old("http.cookie", "http_cookie", Both),
    HttpHeader = old("http.header", "http_header", Both),
    HttpHeaderRaw = old("http.header.raw", "http_raw_header", Both),
    HttpHeaderNames = one("http.header_names", &["http_header_names"], HTTP, Both),
    HttpHost = old("http.host", "http_host", Server),
    HttpHostRaw = old("http.host.raw", "http_raw_host", Server),
    HttpLocation = one("http.location", &[], HTTP, Client),
    HttpMethod = old("http.method", "http_method", Server),
    HttpProtocol = one("http.protocol", &["http_protocol"], HTTP, Both),
    HttpReferer = one("http.referer", &["http_referer"], HTTP, Server),
    HttpRequestBody = BufferInfo { stage: Stage::Body, ..old("http.request_body", "http_client_body", Server) },
    HttpRequestHeader = many("http.request_header", &[], HTTP, Server),
    HttpRequestLine = one("http.request_line", &["http_request_line"], HTTP, Server),
    HttpResponseHeader = many("http.response_header", &[], HTTP, Client),
    HttpResponseLine = one("http.response_line", &["http_response_line"], HTTP, Client),
    HttpServer = one("http.server", &["http_server"], HTTP, Client),
    HttpStart = one("http.start", &["http_start"], HTTP1, Both),
    HttpStatCode = old("http.stat_code", "http_stat_code", Client),
    HttpStatMsg = old("http.stat_msg", "http_stat_msg", Client),
    HttpUri = old("http.uri", "http_uri", Server),
    HttpUriRaw = old("http.uri.raw", "http_raw_uri", Server),
    HttpUserAgent = old("http.user_agent", "http_user_agent", Server),
    Http2Header = many("http2.header", &[], HTTP2, Both),
    Http2HeaderName = many("http2.header_name", &[], HTTP2, Both),
    Icmpv4Hdr = packet("icmpv4.hdr"),
    Icmpv6Hdr = packet("icmpv6.hdr"),
    IgmpHdr = packet("igmp.hdr"),
    IkeInitSpi = one("ike.init_spi", &[], IKE, Both),
    IkeKeyExchangePayload = one("ike.key_exchange_payload", &[], IKE, Both),
    IkeNoncePayload = one("ike.nonce_payload", &[], IKE, Both),
    IkeRespSpi = one("ike.resp_spi", &[], IKE, Both),
    IkeVendor = many("ike.vendor", &[], IKE, Both),
    IpDst = packet("ip.dst"),
    IpSrc = packet("ip.src"),
    Ipv4Hdr = packet("ipv4.hdr"),
    Ipv6Hdr = packet("ipv6.hdr"),
    Ja3Hash = one("ja3.hash", &["ja3_hash"], JA, Server),
    Ja3String = one("ja3.string", &["ja3_string"], JA, Server),
    Ja3sHash = one("ja3s.hash", &[], JA, Client),
    Ja3sString = one("ja3s.string", &[], JA, Client),
    Ja4Hash = one("ja4.hash", &["ja4_hash"], JA, Server),
    Krb5Cname = many("krb5.cname", &["krb5_cname"], KRB5, Client),
    Krb5Sname = many("krb5.sname", &["krb5_sname"], KRB5, Client),
    LdapRequestAttributeType = many("ldap.request.attribute_type", &[], LDAP, Server),
    LdapRequestDn = one("ldap.request.dn", &[], LDAP, Server),
    LdapResponsesAttributeType = many("ldap.responses.attribute_type", &[], LDAP, Client),
    LdapResponsesDn = many("ldap.responses.dn", &[], LDAP, Client),
    LdapResponsesMessage = many("ldap.responses.message", &[], LDAP, Client),
    LlmnrAdditionalsRrname = many("llmnr.additionals.rrname", &[], LLMNR, Both),
    LlmnrAnswersRrname = many("llmnr.answers.rrname", &[], LLMNR, Both),
    LlmnrAuthoritiesRrname = many("llmnr.authorities.rrname", &[], LLMNR, Both),
    LlmnrQueriesRrname = many("llmnr.queries.rrname", &[], LLMNR, Both),
    LlmnrResponseRrname = many("llmnr.response.rrname", &[], LLMNR, Both),
    MdnsAdditionalsRrname = many("mdns.additionals.rrname", &[], MDNS, Both),
    MdnsAnswersRrname = many("mdns.answers.rrname", &[], MDNS, Both),
    MdnsAuthoritiesRrname = many("mdns.authorities.rrname", &[], MDNS, Both),
    MdnsQueriesRrname = many("mdns.queries.rrname", &[], MDNS, Both),
    MdnsResponseRrname = many("mdns.response.rrname", &[], MDNS, Both),
    MqttConnectClientid = one("mqtt.connect.clientid", &[], MQTT, Server),
    MqttConnectPassword = one("mqtt.connect.password", &[], MQTT, Server),
    MqttConnectProtocolString = one("mqtt.connect.protocol_string", &[], MQTT, Server),
    MqttConnectUsername = one("mqtt.connect.username", &[], MQTT, Server),
    MqttConnectWillmessage = one("mqtt.connect.willmessage", &[], MQTT, Server),
    MqttConnectWilltopic = one("mqtt.connect.willtopic", &[], MQTT, Server),
    MqttPublishMessage = one("mqtt.publish.message", &[], MQTT, Both),
    MqttPublishTopic = one("mqtt.publish.topic", &[], MQTT, Both),
    MqttSubscribeTopic = many("mqtt.subscribe.topic", &[], MQTT, Server),
    MqttUnsubscribeTopic = many("mqtt.unsubscribe.topic", &[], MQTT, Server),
    NtpReferenceId = one("ntp.reference_id", &[], &[App::Ntp], Both),
    PgsqlQuery = one("pgsql.query", &[], &[App::Pgsql], Server),
    Pop3Command = one("pop3.command", &[], POP3, Server),
    Pop3Status = one("pop3.status", &[], POP3, Client),
    QuicCyuHash = many("quic.cyu.hash", &[], QUIC, Server),
    QuicCyuString = many("quic.cyu.string", &[], QUIC, Server),
    QuicSni = one("quic.sni", &[], QUIC, Server),
    QuicUa = one("quic.ua", &[], QUIC, Server),
    QuicVersion = one("quic.version", &[], QUIC, Both),
    RfbName = one("rfb.name", &[], &[App::Rfb], Client),
    SctpChunkData = BufferInfo { multiple: true, ..packet("sctp.chunk_data") },
    SctpHdr = packet("sctp.hdr"),
    SdpAttribute = many("sdp.attribute", &[], SDP, Both),
    SdpBandwidth = many("sdp.bandwidth", &[], SDP, Both),
    SdpConnectionData = one("sdp.connection_data", &[], SDP, Both),
    SdpEmail = one("sdp.email", &[], SDP, Both),
    SdpEncryptionKey = one("sdp.encryption_key", &[], SDP, Both),
    SdpMediaConnectionData = many("sdp.media.connection_data", &[], SDP, Both),
    SdpMediaEncryptionKey = many("sdp.media.encryption_key", &[], SDP, Both),
    SdpMediaMedia = many("sdp.media.media", &[], SDP, Both),
    SdpMediaSessionInfo = many("sdp.media.session_info", &[], SDP, Both),
    SdpOrigin = one("sdp.origin", &[], SDP, Both),
    SdpPhoneNumber = one("sdp.phone_number", &[], SDP, Both),
    SdpRepeatTime = one("sdp.repeat_time", &[], SDP, Both),
    SdpSessionInfo = one("sdp.session_info", &[], SDP, Both),
    SdpSessionName = one("sdp.session_name", &[], SDP, Both),
    SdpTime = one("sdp.time", &[], SDP, Both),
    SdpTimezone = one("sdp.timezone", &[], SDP, Both),
    SdpUri = one("sdp.uri", &[], SDP, Both),
    SipContentLength = many("sip.content_length", &[], SIP, Both),
    SipContentType = many("sip.content_type", &[], SIP, Both),
    SipFrom = many("sip.from", &[], SIP, Both),
    SipMethod = one("sip.method", &[], SIP, Server),
    SipProtocol = one("sip.protocol", &[], SIP, Both),
    SipRequestLine = one("sip.request_line", &[], SIP, Server),
    SipResponseLine = one("sip.response_line", &[], SIP, Client),
    SipStatCode = one("sip.stat_code", &[], SIP, Client),
    SipStatMsg = one("sip.stat_msg", &[], SIP, Client),
    SipTo = many("sip.to", &[], SIP, Both),
    SipUri = one("sip.uri", &[], SIP, Server),
    SipUserAgent = many("sip.user_agent", &[], SIP, Both),
    SipVia = many("sip.via", &[], SIP, Both),
    SmbNamedPipe = one("smb.named_pipe", &["smb_named_pipe"], SMB, Server),
    SmbNtlmsspDomain = one("smb.ntlmssp_domain", &[], SMB, Server),
    SmbNtlmsspUser = one("smb.ntlmssp_user", &[], SMB, Server),
    SmbShare = one("smb.share", &["smb_share"], SMB, Server),
    SmtpHelo = one("smtp.helo", &[], SMTP, Server),
    SmtpMailFrom = one("smtp.mail_from", &[], SMTP, Server),
    SmtpRcptTo = many("smtp.rcpt_to", &[], SMTP, Server),
    SnmpCommunity = one("snmp.community", &[], SNMP, Both),
    SnmpUsm = one("snmp.usm", &[], SNMP, Both),
    SshHassh = one("ssh.hassh", &[], SSH, Server),
    SshHasshServer = one("ssh.hassh.server", &["ssh.server.hassh"], SSH, Client),
    SshHasshServerString = one("ssh.hassh.server.string", &[], SSH, Client),
    SshHasshString = one("ssh.hassh.string", &[], SSH, Server),
    SshProto = one("ssh.proto", &["ssh_proto"], SSH, Both),
    SshSoftware = one("ssh.software", &["ssh_software"], SSH, Both),
    TcpHdr = packet("tcp.hdr"),
    TemplateBuffer = one("template.buffer", &["template_buffer"], &[App::Template], Both),
    TlsAlpn = many("tls.alpn", &[], TLS, Both),
    TlsCertFingerprint = one("tls.cert_fingerprint", &["tls_cert_fingerprint"], TLS, Both),
    TlsCertIssuer = one("tls.cert_issuer", &["tls_cert_issuer"], TLS, Both),
    TlsCertSerial = one("tls.cert_serial", &["tls_cert_serial"], TLS, Both),
    TlsCertSubject = one("tls.cert_subject", &["tls_cert_subject"], TLS, Both),
    TlsCerts = many("tls.certs", &[], TLS, Both),
    TlsRandom = one("tls.random", &[], TLS, Both),
    TlsRandomBytes = one("tls.random_bytes", &[], TLS, Both),
    TlsRandomTime = one("tls.random_time", &[], TLS, Both),
    TlsSni = one("tls.sni", &["tls_sni"], TLS, Server),
    TlsSubjectaltname = many("tls.subjectaltname", &[], TLS, Client),
    UdpHdr = packet("udp.hdr"),
    WebsocketPayload = one("websocket.payload", &[], &[App::Websocket], Both),
}

const FRAMES: &[(App, &str)] = &[
    (App::Dcerpc, "data"),
    (App::Dcerpc, "hdr"),
    (App::Dcerpc, "pdu"),
    (App::Dns, "pdu"),
    (App::Enip, "cip"),
    (App::Enip, "data"),
    (App::Enip, "enip.item"),
    (App::Enip, "hdr"),
    (App::Enip, "pdu"),
    (App::Http1, "request"),
    (App::Http1, "response"),
    (App::Http1, "stream"),
    (App::Http2, "data"),
    (App::Http2, "hdr"),
    (App::Http2, "pdu"),
    (App::Ldap, "pdu"),
    (App::Modbus, "pdu"),
    (App::Mqtt, "data"),
    (App::Mqtt, "header"),
    (App::Mqtt, "pdu"),
    (App::Nfs, "pdu"),
    (App::Pgsql, "pdu"),
    (App::Rfb, "pdu"),
    (App::Sip, "pdu"),
    (App::Sip, "request.body"),
    (App::Sip, "request.headers"),
    (App::Sip, "request.line"),
    (App::Sip, "response.body"),
    (App::Sip, "response.headers"),
    (App::Sip, "response.line"),
    (App::Smb, "nbss.data"),
    (App::Smb, "nbss.hdr"),
    (App::Smb, "nbss.pdu"),
    (App::Smb, "smb1.data"),
    (App::Smb, "smb1.hdr"),
    (App::Smb, "smb1.pdu"),
    (App::Smb, "smb2.data"),
    (App::Smb, "smb2.hdr"),
    (App::Smb, "smb2.pdu"),
    (App::Smb, "smb3.data"),
    (App::Smb, "smb3.hdr"),
    (App::Smb, "smb3.pdu"),
    (App::Smtp, "command_line"),
    (App::Smtp, "data"),
    (App::Smtp, "response_line"),
    (App::Smtp, "stream"),
    (App::Ssh, "record.data"),
    (App::Ssh, "record.hdr"),
    (App::Ssh, "record.pdu"),
    (App::Telnet, "ctl"),
    (App::Telnet, "data"),
    (App::Telnet, "pdu"),
    (App::Tls, "alert"),
    (App::Tls, "data"),
    (App::Tls, "hdr"),
    (App::Tls, "heartbeat"),
    (App::Tls, "pdu"),
    (App::Tls, "sslv2.hdr"),
    (App::Tls, "sslv2.pdu"),
    (App::Websocket, "data"),
    (App::Websocket, "hdr"),
    (App::Websocket, "pdu"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(FRAMES.windows(2).all(|pair| (pair[0].0.name(), pair[0].1) < (pair[1].0.name(), pair[1].1)));
        for buffer in ALL {
            assert!(buffer.to_server || buffer.to_client, "{}", buffer.name);
        }
        assert_eq!(BufferId::HttpUri.info().modifier, Some("http_uri"));
        assert_eq!(BufferId::named("http.uri"), Some(BufferId::HttpUri));
        assert!(BufferId::named("http_uri").is_none());
    }
}
