//! The words detection and parsers share: directions, protocols, buffers, integer fields, stages.
//!
//! A buffer's name is the canonical sticky-buffer keyword of Suricata's rule language, so that a rule compiler finds it by
//! [`Buffer::from_name`] and nothing behind it has to know a protocol.

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dir {
    ToServer = 0,
    ToClient = 1,
}

impl Dir {
    pub const fn other(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// How far one direction of a transaction has come. Protocols without lines and headers know `Start` and `Complete` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Stage {
    #[default]
    Start,
    /// The request or status line is complete.
    Line,
    /// The header block is complete.
    Headers,
    /// A body has begun.
    Body,
    /// The body is complete, trailers follow.
    Trailer,
    Complete,
}

macro_rules! named {
    ($(#[$meta:meta])* $Name:ident { $($(#[$of:meta])* $Variant:ident $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum $Name { $($(#[$of])* $Variant),+ }

        impl $Name {
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $text),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$Variant),)+ _ => None }
            }
        }
    };
}

named! {
    /// Application protocols by the names Suricata gives them (`app_proto`, `app-layer-protocol`).
    Protocol {
        /// HTTP/1 (`http1` in a rule's header).
        Http "http",
        Http2 "http2",
        /// HTTP/2 that carries DNS.
        Doh2 "doh2",
        Dns "dns",
        Tls "tls",
        Ssh "ssh",
        Smtp "smtp",
        Ftp "ftp",
        /// A data connection of FTP ([`crate::Session::expected`]).
        FtpData "ftp-data",
        Dcerpc "dcerpc",
        Dhcp "dhcp",
        Mqtt "mqtt",
        Mysql "mysql",
        Ntp "ntp",
        Pgsql "pgsql",
        Quic "quic",
        Redis "redis",
        Sip "sip",
        Tftp "tftp",
        Websocket "websocket",
        Krb5 "krb5",
        Ldap "ldap",
        Nfs "nfs",
        Dnp3 "dnp3",
        Modbus "modbus",
        Pop3 "pop3",
        Rdp "rdp",
        Rfb "rfb",
        Telnet "telnet",
        Llmnr "llmnr",
        Mdns "mdns",
        Ike "ike",
        BittorrentDht "bittorrent-dht",
        Enip "enip",
        Smb "smb",
        Snmp "snmp",
    }
}

/// The direction a buffer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    ToServer,
    ToClient,
    Both,
}

macro_rules! buffers {
    ($($Variant:ident $text:literal $side:ident $stage:ident),+ $(,)?) => {
        named! {
            /// What a rule's content, pcre or `bsize` is matched against.
            Buffer { $($Variant $text),+ }
        }

        impl Buffer {
            pub const COUNT: usize = Self::ALL.len();

            /// In which direction values of this buffer come.
            pub const fn side(self) -> Side {
                match self { $(Self::$Variant => Side::$side),+ }
            }

            /// Once the direction has come this far, no further value of this buffer comes from it: an absent value is absent.
            pub const fn stage(self) -> Stage {
                match self { $(Self::$Variant => Stage::$stage),+ }
            }
        }
    };
}

buffers! {
    HttpMethod "http.method" ToServer Line, HttpUri "http.uri" ToServer Line, HttpUriRaw "http.uri.raw" ToServer Line,
    HttpRequestLine "http.request_line" ToServer Line, HttpProtocol "http.protocol" Both Line,
    HttpHeader "http.header" Both Trailer, HttpHeaderRaw "http.header.raw" Both Trailer, HttpHeaderNames "http.header_names" Both Trailer,
    HttpRequestHeader "http.request_header" ToServer Headers, HttpResponseHeader "http.response_header" ToClient Headers,
    HttpStart "http.start" Both Headers, HttpCookie "http.cookie" Both Headers, HttpUserAgent "http.user_agent" ToServer Headers,
    HttpHost "http.host" ToServer Headers, HttpHostRaw "http.host.raw" ToServer Headers, HttpAccept "http.accept" ToServer Headers,
    HttpAcceptLang "http.accept_lang" ToServer Headers, HttpAcceptEnc "http.accept_enc" ToServer Headers,
    HttpConnection "http.connection" Both Headers, HttpContentLen "http.content_len" Both Headers,
    HttpContentType "http.content_type" Both Headers, HttpReferer "http.referer" ToServer Headers,
    HttpServer "http.server" ToClient Headers, HttpLocation "http.location" ToClient Headers,
    HttpRequestBody "http.request_body" ToServer Trailer, HttpResponseBody "http.response_body" ToClient Trailer,
    HttpStatCode "http.stat_code" ToClient Line, HttpStatMsg "http.stat_msg" ToClient Line,
    HttpResponseLine "http.response_line" ToClient Line,
    Http2Header "http2.header" Both Trailer, Http2HeaderName "http2.header_name" Both Trailer,
    FileData "file.data" Both Complete, FileName "file.name" Both Complete,
    DnsQuery "dns.query" ToServer Complete, DnsQueriesRrname "dns.queries.rrname" Both Complete,
    DnsAnswersRrname "dns.answers.rrname" Both Complete, DnsAuthoritiesRrname "dns.authorities.rrname" Both Complete,
    DnsAdditionalsRrname "dns.additionals.rrname" Both Complete, DnsResponseRrname "dns.response.rrname" ToClient Complete,
    TlsSni "tls.sni" ToServer Headers, TlsAlpn "tls.alpn" Both Headers, TlsRandom "tls.random" Both Headers,
    TlsRandomTime "tls.random_time" Both Headers, TlsRandomBytes "tls.random_bytes" Both Headers,
    Ja3Hash "ja3.hash" ToServer Headers, Ja3String "ja3.string" ToServer Headers, Ja3sHash "ja3s.hash" ToClient Headers,
    Ja3sString "ja3s.string" ToClient Headers, Ja4Hash "ja4.hash" ToServer Headers,
    TlsCerts "tls.certs" Both Complete, TlsCertSubject "tls.cert_subject" Both Complete, TlsCertIssuer "tls.cert_issuer" Both Complete,
    TlsCertSerial "tls.cert_serial" Both Complete, TlsCertFingerprint "tls.cert_fingerprint" Both Complete,
    TlsSubjectaltname "tls.subjectaltname" Both Complete,
    SshProto "ssh.proto" Both Line, SshSoftware "ssh.software" Both Line, SshHassh "ssh.hassh" ToServer Headers,
    SshHasshString "ssh.hassh.string" ToServer Headers, SshHasshServer "ssh.hassh.server" ToClient Headers,
    SshHasshServerString "ssh.hassh.server.string" ToClient Headers,
    SmtpHelo "smtp.helo" ToServer Complete, SmtpMailFrom "smtp.mail_from" ToServer Complete,
    SmtpRcptTo "smtp.rcpt_to" ToServer Complete, EmailFrom "email.from" ToServer Complete, EmailTo "email.to" ToServer Complete,
    EmailCc "email.cc" ToServer Complete, EmailSubject "email.subject" ToServer Complete, EmailDate "email.date" ToServer Complete,
    EmailMessageId "email.message_id" ToServer Complete, EmailXMailer "email.x_mailer" ToServer Complete,
    EmailReceived "email.received" ToServer Complete, EmailUrl "email.url" ToServer Complete,
    EmailBodyMd5 "email.body_md5" ToServer Complete,
    FtpCommand "ftp.command" ToServer Complete, FtpCommandData "ftp.command_data" ToServer Complete,
    FtpReply "ftp.reply" ToClient Complete, FtpCompletionCode "ftp.completion_code" ToClient Complete,
    // Of a bind, and of each request the one it goes to: the identifier in lower case with hyphens, a blank, the version.
    DcerpcIface "dcerpc.iface" ToServer Complete, DcerpcStubData "dcerpc.stub_data" Both Complete,
    MqttConnectClientid "mqtt.connect.clientid" ToServer Complete, MqttConnectPassword "mqtt.connect.password" ToServer Complete,
    MqttConnectProtocolString "mqtt.connect.protocol_string" ToServer Complete,
    MqttConnectUsername "mqtt.connect.username" ToServer Complete, MqttConnectWillmessage "mqtt.connect.willmessage" ToServer Complete,
    MqttConnectWilltopic "mqtt.connect.willtopic" ToServer Complete,
    MqttPublishMessage "mqtt.publish.message" Both Complete, MqttPublishTopic "mqtt.publish.topic" Both Complete,
    MqttSubscribeTopic "mqtt.subscribe.topic" ToServer Complete, MqttUnsubscribeTopic "mqtt.unsubscribe.topic" ToServer Complete,
    NtpReferenceId "ntp.reference_id" Both Complete,
    PgsqlQuery "pgsql.query" ToServer Complete,
    QuicCyuHash "quic.cyu.hash" Both Complete, QuicCyuString "quic.cyu.string" Both Complete, QuicSni "quic.sni" Both Complete,
    QuicUa "quic.ua" Both Complete, QuicVersion "quic.version" Both Complete,
    Krb5Cname "krb5.cname" Both Complete, Krb5Sname "krb5.sname" Both Complete,
    LdapRequestDn "ldap.request.dn" ToServer Complete, LdapRequestAttributeType "ldap.request.attribute_type" ToServer Complete,
    LdapResponsesDn "ldap.responses.dn" ToClient Complete, LdapResponsesMessage "ldap.responses.message" ToClient Complete,
    LdapResponsesAttributeType "ldap.responses.attribute_type" ToClient Complete,
    SnmpCommunity "snmp.community" Both Complete, SnmpUsm "snmp.usm" Both Complete,
    Dnp3Data "dnp3.data" Both Complete,
    Pop3Command "pop3.command" ToServer Complete, Pop3Status "pop3.status" ToClient Complete,
    RfbName "rfb.name" ToClient Complete,
    LlmnrQueriesRrname "llmnr.queries.rrname" Both Complete,
    LlmnrAnswersRrname "llmnr.answers.rrname" Both Complete,
    LlmnrAuthoritiesRrname "llmnr.authorities.rrname" Both Complete,
    LlmnrAdditionalsRrname "llmnr.additionals.rrname" Both Complete,
    LlmnrResponseRrname "llmnr.response.rrname" Both Complete,
    MdnsQueriesRrname "mdns.queries.rrname" Both Complete,
    MdnsAnswersRrname "mdns.answers.rrname" Both Complete,
    MdnsAuthoritiesRrname "mdns.authorities.rrname" Both Complete,
    MdnsAdditionalsRrname "mdns.additionals.rrname" Both Complete,
    MdnsResponseRrname "mdns.response.rrname" Both Complete,
    IkeInitSpi "ike.init_spi" ToServer Complete, IkeRespSpi "ike.resp_spi" ToClient Complete, IkeVendor "ike.vendor" ToServer Complete,
    IkeKeyExchangePayload "ike.key_exchange_payload" Both Complete, IkeNoncePayload "ike.nonce_payload" Both Complete,
    EnipProductName "enip.product_name" Both Complete, EnipServiceName "enip.service_name" Both Complete,
    SmbShare "smb.share" ToServer Complete, SmbNamedPipe "smb.named_pipe" ToServer Complete,
    SmbNtlmsspUser "smb.ntlmssp_user" ToServer Complete, SmbNtlmsspDomain "smb.ntlmssp_domain" ToServer Complete,
    SdpAttribute "sdp.attribute" Both Complete, SdpBandwidth "sdp.bandwidth" Both Complete,
    SdpConnectionData "sdp.connection_data" Both Complete, SdpEmail "sdp.email" Both Complete,
    SdpEncryptionKey "sdp.encryption_key" Both Complete, SdpMediaConnectionData "sdp.media.connection_data" Both Complete,
    SdpMediaEncryptionKey "sdp.media.encryption_key" Both Complete, SdpMediaMedia "sdp.media.media" Both Complete,
    SdpMediaSessionInfo "sdp.media.session_info" Both Complete, SdpOrigin "sdp.origin" Both Complete,
    SdpPhoneNumber "sdp.phone_number" Both Complete, SdpRepeatTime "sdp.repeat_time" Both Complete,
    SdpSessionInfo "sdp.session_info" Both Complete, SdpSessionName "sdp.session_name" Both Complete,
    SdpTime "sdp.time" Both Complete, SdpTimezone "sdp.timezone" Both Complete, SdpUri "sdp.uri" Both Complete,
    SipContentLength "sip.content_length" Both Complete, SipContentType "sip.content_type" Both Complete,
    SipFrom "sip.from" Both Complete, SipMethod "sip.method" ToServer Complete, SipProtocol "sip.protocol" Both Complete,
    SipRequestLine "sip.request_line" ToServer Complete, SipResponseLine "sip.response_line" ToClient Complete,
    SipStatCode "sip.stat_code" ToClient Complete, SipStatMsg "sip.stat_msg" ToClient Complete, SipTo "sip.to" Both Complete,
    SipUri "sip.uri" ToServer Complete, SipUserAgent "sip.user_agent" Both Complete, SipVia "sip.via" Both Complete,
    WebsocketPayload "websocket.payload" Both Complete,
}

named! {
    /// What is a number: for integer keywords and for the log.
    Field {
        HttpRequestLength "http.request_length", HttpResponseLength "http.response_length", HttpStatus "http.status",
        HttpPort "http.port",
        Http2Frametype "http2.frametype", Http2Errorcode "http2.errorcode", Http2Priority "http2.priority",
        Http2SizeUpdate "http2.size_update", Http2Window "http2.window", Http2StreamId "http2.stream_id",
        /// Identifier times 2^32, and value.
        Http2Settings "http2.settings",
        FileSize "filesize",
        DnsOpcode "dns.opcode", DnsRcode "dns.rcode", DnsRrtype "dns.rrtype",
        /// As in a hello, 0x0303 for 1.2: asked for first (to the server), chosen (to the client).
        TlsVersion "tls.version",
        TlsCertChainLen "tls.cert_chain_len",
        /// Level times 256, and description.
        TlsAlert "tls.alert",
        /// Seconds since 1970 in two's complement.
        TlsNotBefore "tls.cert_notbefore", TlsNotAfter "tls.cert_notafter",
        FtpDynamicPort "ftp.dynamic_port",
        /// 1: active, 2: passive.
        FtpMode "ftp.mode",
        /// 1, with the first reply.
        FtpReplyReceived "ftp.reply_received",
        /// Of a data connection. 1: the server sends, 2: the client does.
        FtpdataCommand "ftpdata_command",
        /// 1 when numbers of a call are in the order of its sender, 0 in network order.
        DcerpcLittleEndian "dcerpc.little_endian",
        DcerpcOpnum "dcerpc.opnum", DcerpcCallId "dcerpc.call_id",
        /// 0: an interface of a bind was taken.
        DcerpcAck "dcerpc.ack_result",
        DhcpLeasetime "dhcp.leasetime", DhcpRebindingTime "dhcp.rebinding_time", DhcpRenewalTime "dhcp.renewal_time",
        MqttConnackReturnCode "mqtt.connack.return_code",
        /// 0 or 1.
        MqttConnackSessionPresent "mqtt.connack.session_present",
        MqttConnectFlags "mqtt.connect.flags", MqttFlags "mqtt.flags", MqttProtocolVersion "mqtt.protocol_version", MqttQos "mqtt.qos",
        MqttReasonCode "mqtt.reason_code", MqttType "mqtt.type",
        NtpMode "ntp.mode", NtpStratum "ntp.stratum", NtpVersion "ntp.version",
        /// The four highest bits of a frame's first byte.
        WebsocketFlags "websocket.flags", WebsocketMask "websocket.mask", WebsocketOpcode "websocket.opcode",
        SmbVersion "smb.version",
        Krb5MsgType "krb5_msg_type", Krb5ErrCode "krb5_err_code",
        /// In two's complement.
        Krb5TicketEncryption "krb5.ticket_encryption",
        LdapRequestOperation "ldap.request.operation", LdapResponsesOperation "ldap.responses.operation",
        LdapResponsesCount "ldap.responses.count", LdapResponsesResultCode "ldap.responses.result_code",
        NfsVersion "nfs.version", NfsProcedure "nfs_procedure",
        Dnp3Func "dnp3_func",
        /// Group times 256, and variation, of each object; the two bytes of indications of a response.
        Dnp3Object "dnp3.object", Dnp3Indications "dnp3.indications",
        ModbusUnit "modbus.unit",
        /// Function times 2^16, and the function within it (0xffff: none); a bit a category.
        ModbusFunction "modbus.function", ModbusCategory "modbus.category",
        /// Read 1, write 2, the table from bit 8 on, the address from 16, the quantity from 32; address times 2^16, and value.
        ModbusAccess "modbus.access", ModbusWritten "modbus.written",
        /// The type of security that is spoken, its result.
        RfbSectype "rfb.sectype", RfbSecresult "rfb.secresult",
        IkeExchtype "ike.exchtype", IkeKeyExchangePayloadLength "ike.key_exchange_payload_length",
        IkeNoncePayloadLength "ike.nonce_payload_length",
        IkeSaAlgEnc "ike.chosen_sa_attribute.alg_enc",
        IkeSaAlgHash "ike.chosen_sa_attribute.alg_hash",
        IkeSaAlgAuth "ike.chosen_sa_attribute.alg_auth",
        IkeSaAlgDh "ike.chosen_sa_attribute.alg_dh",
        IkeSaGroupType "ike.chosen_sa_attribute.sa_group_type",
        IkeSaLifeType "ike.chosen_sa_attribute.sa_life_type",
        IkeSaLifeDuration "ike.chosen_sa_attribute.sa_life_duration",
        IkeSaKeyLength "ike.chosen_sa_attribute.sa_key_length",
        IkeSaFieldSize "ike.chosen_sa_attribute.sa_field_size",
        EnipCommand "enip.command",
        EnipStatus "enip.status",
        EnipProtocolVersion "enip.protocol_version",
        EnipCapabilities "enip.capabilities",
        EnipVendorId "enip.vendor_id",
        EnipDeviceType "enip.device_type",
        EnipProductCode "enip.product_code",
        EnipRevision "enip.revision",
        EnipIdentityStatus "enip.identity_status",
        EnipSerial "enip.serial",
        EnipState "enip.state",
        EnipCipStatus "enip.cip_status",
        EnipCipExtendedstatus "enip.cip_extendedstatus",
        EnipCipClass "enip.cip_class",
        EnipCipInstance "enip.cip_instance",
        EnipCipAttribute "enip.cip_attribute",
        /// Service times 2^32, class from bit 16 on where bit 41 is set, attribute where bit 40 is.
        EnipCip "enip.cip",
        SnmpVersion "snmp.version", SnmpPduType "snmp.pdu_type",
    }
}

/// A set of buffers, one bit each: what the loaded rules and the log look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferSet([u64; Self::WORDS]);

impl BufferSet {
    const WORDS: usize = Buffer::COUNT.div_ceil(64);
    pub const ALL: Self = Self([u64::MAX; Self::WORDS]);
    pub const NONE: Self = Self([0; Self::WORDS]);

    pub const fn contains(&self, buffer: Buffer) -> bool {
        let bit = buffer as usize;
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    pub const fn remove(&mut self, buffer: Buffer) {
        let bit = buffer as usize;
        self.0[bit / 64] &= !(1 << (bit % 64));
    }

    pub const fn insert(&mut self, buffer: Buffer) {
        let bit = buffer as usize;
        self.0[bit / 64] |= 1 << (bit % 64);
    }
}

impl FromIterator<Buffer> for BufferSet {
    fn from_iter<I: IntoIterator<Item = Buffer>>(buffers: I) -> Self {
        let mut set = Self::NONE;
        for buffer in buffers {
            set.insert(buffer);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_buffers() {
        for (index, &buffer) in Buffer::ALL.iter().enumerate() {
            assert_eq!(buffer as usize, index);
            assert_eq!(Buffer::from_name(buffer.name()), Some(buffer), "{} stands twice", buffer.name());
        }
        assert_eq!(Protocol::from_name("http"), Some(Protocol::Http));
        let set: BufferSet = [Buffer::HttpUri, Buffer::FileName].into_iter().collect();
        assert!(set.contains(Buffer::HttpUri) && set.contains(Buffer::FileName) && !set.contains(Buffer::HttpCookie));
    }
}
