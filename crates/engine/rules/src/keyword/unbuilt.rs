//! Names of the language that are known and not built: buffers and keywords of application layers, transforms, state across
//! flows, events. A rule that uses one is `unsupported`. Building one moves its name into a family's file.
//!
//! Source: `suricata --list-keywords` as documented in the user guide, with the legacy names (`http_uri`, `dns_query`).

use std::sync::LazyLock;

use super::{Keyword, Value};

pub(super) fn keywords() -> impl Iterator<Item = &'static Keyword> {
    KEYWORDS.iter()
}

static KEYWORDS: LazyLock<Vec<Keyword>> =
    LazyLock::new(|| NAMES.iter().map(|name| Keyword { name, value: Value::Optional, once: false, read: None }).collect());

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "absent", "app-layer-event", "app-layer-protocol", "app-layer-state", "arp", "asn1", "base64_data", "base64_decode", "bypass",
    "byte_math", "cip_service", "compress_whitespace", "config", "datarep", "dataset", "dce_iface", "dce_opnum", "dce_stub_data",
    "dcerpc.iface", "dcerpc.opnum", "dcerpc.stub_data", "decode-event", "dhcp.leasetime", "dhcp.rebinding_time", "dhcp.renewal_time",
    "dnp3.data", "dnp3_data", "dnp3_func", "dnp3_ind", "dnp3_obj", "dns.additionals.rrname", "dns.answer.name", "dns.answers.rrname",
    "dns.authorities.rrname", "dns.opcode", "dns.queries.rrname", "dns.query", "dns.query.name", "dns.rcode", "dns.response.rrname",
    "dns.rrtype", "dns_query", "domain", "dotprefix", "email.body_md5", "email.cc", "email.date", "email.from", "email.message_id",
    "email.received", "email.subject", "email.to", "email.url", "email.x_mailer", "engine-event", "enip.capabilities",
    "enip.cip_attribute", "enip.cip_class", "enip.cip_extendedstatus", "enip.cip_instance", "enip.cip_status", "enip.command",
    "enip.device_type", "enip.identity_status", "enip.product_code", "enip.product_name", "enip.protocol_version", "enip.revision",
    "enip.serial", "enip.service_name", "enip.state", "enip.status", "enip.vendor_id", "enip_command", "entropy", "ether.hdr",
    "file.data", "file.magic", "file.name", "file_data", "fileext", "filemagic", "filemd5", "filename", "filesha1", "filesha256",
    "filesize", "filestore", "flow.age", "flow.bytes", "flow.bytes_toclient", "flow.bytes_toserver", "flow.elephant", "flow.pkts",
    "flow.pkts_toclient", "flow.pkts_toserver", "flowint", "frame", "from_base64", "ftp.command", "ftp.command_data",
    "ftp.completion_code", "ftp.dynamic_port", "ftp.mode", "ftp.reply", "ftp.reply_received", "ftpbounce", "ftpdata_command", "geoip",
    "gunzip", "header_lowercase", "hostbits", "http.accept", "http.accept_enc", "http.accept_lang", "http.connection", "http.content_len",
    "http.content_type", "http.cookie", "http.header", "http.header.raw", "http.header_names", "http.host", "http.host.raw",
    "http.location", "http.method", "http.protocol", "http.referer", "http.request_body", "http.request_header", "http.request_line",
    "http.response_body", "http.response_header", "http.response_line", "http.server", "http.server_body", "http.start", "http.stat_code",
    "http.stat_msg", "http.uri", "http.uri.raw", "http.user_agent", "http2.errorcode", "http2.frametype", "http2.header",
    "http2.header_name", "http2.priority", "http2.settings", "http2.size_update", "http2.window", "http_accept", "http_accept_enc",
    "http_accept_lang", "http_client_body", "http_connection", "http_content_len", "http_content_type", "http_cookie", "http_header",
    "http_header_names", "http_host", "http_method", "http_protocol", "http_raw_header", "http_raw_host", "http_raw_uri", "http_referer",
    "http_request_line", "http_response_line", "http_server", "http_server_body", "http_start", "http_stat_code", "http_stat_msg",
    "http_uri", "http_user_agent", "icmpv4-csum", "icmpv4.hdr", "icmpv6-csum", "icmpv6.hdr", "icmpv6.mtu", "igmp-csum", "igmp.hdr",
    "igmp.type", "ike.chosen_sa_attribute", "ike.exchtype", "ike.init_spi", "ike.key_exchange_payload", "ike.key_exchange_payload_length",
    "ike.nonce_payload", "ike.nonce_payload_length", "ike.resp_spi", "ike.vendor", "ip.dst", "ip.src", "ipopts", "iprep", "ipv4-csum",
    "ipv4.hdr", "ipv6.hdr", "ja3.hash", "ja3.string", "ja3_hash", "ja3_string", "ja3s.hash", "ja3s.string", "ja4.hash", "krb5.cname",
    "krb5.sname", "krb5.ticket_encryption", "krb5_cname", "krb5_err_code", "krb5_msg_type", "krb5_sname", "l3_proto",
    "ldap.request.attribute_type", "ldap.request.dn", "ldap.request.operation", "ldap.responses.attribute_type", "ldap.responses.count",
    "ldap.responses.dn", "ldap.responses.message", "ldap.responses.operation", "ldap.responses.result_code", "llmnr.additionals.rrname",
    "llmnr.answers.rrname", "llmnr.authorities.rrname", "llmnr.queries.rrname", "llmnr.response.rrname", "lua", "luajit", "luaxform",
    "mdns.additionals.rrname", "mdns.answers.rrname", "mdns.authorities.rrname", "mdns.queries.rrname", "mdns.response.rrname", "modbus",
    "mqtt.connack.return_code", "mqtt.connack.session_present", "mqtt.connack.sessionpresent", "mqtt.connect.clientid",
    "mqtt.connect.flags", "mqtt.connect.password", "mqtt.connect.protocol_string", "mqtt.connect.username", "mqtt.connect.willmessage",
    "mqtt.connect.willtopic", "mqtt.flags", "mqtt.protocol_version", "mqtt.publish.message", "mqtt.publish.topic", "mqtt.qos",
    "mqtt.reason_code", "mqtt.subscribe.topic", "mqtt.type", "mqtt.unsubscribe.topic", "nfq_set_mark", "nfs.version", "nfs_procedure",
    "nfs_version", "ntp.mode", "ntp.reference_id", "ntp.stratum", "ntp.version", "pcrexform", "pgsql.query", "pkt_data", "pop3.command",
    "pop3.status", "prefilter", "quic.cyu.hash", "quic.cyu.string", "quic.sni", "quic.ua", "quic.version", "replace", "requires",
    "rfb.name", "rfb.secresult", "rfb.sectype", "rpc", "sctp.chunk_cnt", "sctp.chunk_data", "sctp.chunk_type", "sctp.hdr", "sctp.vtag",
    "sip.content_length", "sip.content_type", "sip.from", "sip.method", "sip.protocol", "sip.request_line", "sip.response_line",
    "sip.stat_code", "sip.stat_msg", "sip.to", "sip.uri", "sip.user_agent", "sip.via", "smb.named_pipe", "smb.ntlmssp_domain",
    "smb.ntlmssp_user", "smb.share", "smb.version", "smb_named_pipe", "smb_share", "smtp.helo", "smtp.mail_from", "smtp.rcpt_to",
    "snmp.community", "snmp.pdu_type", "snmp.usm", "snmp.version", "ssh.hassh", "ssh.hassh.server", "ssh.hassh.server.string",
    "ssh.hassh.string", "ssh.proto", "ssh.protoversion", "ssh.server.hassh", "ssh.software", "ssh.softwareversion", "ssh_proto",
    "ssh_software", "ssl_state", "ssl_version", "stream-event", "stream_size", "strip_pseudo_headers", "strip_whitespace", "subslice",
    "tag", "tcp.hdr", "tcp.mss", "tcp.session", "tcp.wscale", "tcpv4-csum", "tcpv6-csum", "template.buffer", "template_buffer", "tenant",
    "tld", "tls.alpn", "tls.cert_chain_len", "tls.cert_fingerprint", "tls.cert_issuer", "tls.cert_serial", "tls.cert_subject",
    "tls.certs", "tls.fingerprint", "tls.issuerdn", "tls.random", "tls.random_bytes", "tls.random_time", "tls.sni", "tls.store",
    "tls.subject", "tls.subjectaltname", "tls.version", "tls_cert_expired", "tls_cert_fingerprint", "tls_cert_issuer",
    "tls_cert_notafter", "tls_cert_notbefore", "tls_cert_serial", "tls_cert_subject", "tls_cert_valid", "tls_sni", "to_lowercase",
    "to_md5", "to_sha1", "to_sha256", "to_uppercase", "udp.hdr", "udpv4-csum", "udpv6-csum", "uricontent", "urilen", "url_decode",
    "vlan.id", "vlan.layers", "vxlan_vni", "websocket.flags", "websocket.mask", "websocket.opcode", "websocket.payload", "xbits", "xor",
    "zlib_deflate",
];
