//! What a protocol is to a session: a probe, and a parser that the probe leads to.

use std::fmt::Debug;

use crate::context::{Config, Io};
use crate::datagram::Messages;
use crate::dns::Family;
use crate::http2::Upgraded;
use crate::names::{Dir, Protocol};
use crate::session::Transport;
use crate::sink::Finished;
use crate::{
    bittorrent, dcerpc, dhcp, dnp3, dns, enip, ftp, http, http2, ike, krb5, ldap, modbus, mqtt, mysql, nfs, ntp, pgsql, pop3, quic, rdp,
    redis, rfb, sip, smb, smtp, snmp, ssh, telnet, tftp, tls, websocket,
};

/// One row a protocol, asked in this order.
pub(crate) static TABLE: &[Entry] = &[
    Entry { protocol: Protocol::Http2, transport: Transport::Tcp, probe: http2::probe, parser: |_| Box::<http2::Http2>::default() },
    Entry { protocol: Protocol::Http, transport: Transport::Tcp, probe: http::probe, parser: |config| Box::new(http::Http::new(config)) },
    Entry { protocol: Protocol::Smtp, transport: Transport::Tcp, probe: smtp::probe, parser: |_| Box::<smtp::Smtp>::default() },
    Entry { protocol: Protocol::Ftp, transport: Transport::Tcp, probe: ftp::probe, parser: |_| Box::<ftp::Ftp>::default() },
    Entry { protocol: Protocol::Ssh, transport: Transport::Tcp, probe: ssh::probe, parser: |_| Box::<ssh::Ssh>::default() },
    Entry { protocol: Protocol::Tls, transport: Transport::Tcp, probe: tls::probe, parser: |_| Box::<tls::Tls>::default() },
    Entry { protocol: Protocol::Smb, transport: Transport::Tcp, probe: smb::probe, parser: |_| Box::<smb::Smb>::default() },
    Entry { protocol: Protocol::Dcerpc, transport: Transport::Tcp, probe: dcerpc::probe_tcp, parser: |_| Box::<dcerpc::Dcerpc>::default() },
    Entry { protocol: Protocol::Sip, transport: Transport::Tcp, probe: sip::probe, parser: |_| Box::new(sip::Sip::new(Transport::Tcp)) },
    Entry { protocol: Protocol::Redis, transport: Transport::Tcp, probe: redis::probe, parser: |_| Box::<redis::Redis>::default() },
    Entry { protocol: Protocol::Mysql, transport: Transport::Tcp, probe: mysql::probe, parser: |_| Box::<mysql::Mysql>::default() },
    Entry { protocol: Protocol::Pgsql, transport: Transport::Tcp, probe: pgsql::probe, parser: |_| Box::<pgsql::Pgsql>::default() },
    Entry {
        protocol: Protocol::Websocket,
        transport: Transport::Tcp,
        probe: websocket::probe,
        parser: |_| Box::<websocket::Websocket>::default(),
    },
    Entry {
        protocol: Protocol::Mqtt,
        transport: Transport::Tcp,
        probe: mqtt::probe,
        parser: |config| Box::new(mqtt::Mqtt::new(config.mqtt_message_bytes_max)),
    },
    Entry {
        protocol: Protocol::Dcerpc,
        transport: Transport::Udp,
        probe: dcerpc::probe_udp,
        parser: |_| Box::<dcerpc::Datagrams>::default(),
    },
    Entry {
        protocol: Protocol::Dns,
        transport: Transport::Tcp,
        probe: dns::probe_tcp,
        parser: |_| Box::new(dns::Dns::new(Transport::Tcp)),
    },
    Entry {
        protocol: Protocol::Dns,
        transport: Transport::Udp,
        probe: dns::probe_udp,
        parser: |_| Box::new(dns::Dns::new(Transport::Udp)),
    },
    Entry {
        protocol: Protocol::Sip,
        transport: Transport::Udp,
        probe: sip::probe_udp,
        parser: |_| Box::new(sip::Sip::new(Transport::Udp)),
    },
    udp(Protocol::Snmp, snmp::probe, |_| Box::new(Messages { protocol: Protocol::Snmp, read: snmp::read })),
    tcp(Protocol::Ldap, ldap::probe_tcp, |_| Box::new(ldap::Ldap::new(Transport::Tcp))),
    udp(Protocol::Ldap, ldap::probe_udp, |_| Box::new(ldap::Ldap::new(Transport::Udp))),
    tcp(Protocol::Nfs, nfs::probe_tcp, |_| Box::new(nfs::Nfs::new(Transport::Tcp))),
    udp(Protocol::Nfs, nfs::probe_udp, |_| Box::new(nfs::Nfs::new(Transport::Udp))),
    tcp(Protocol::Dnp3, dnp3::probe, |_| Box::<dnp3::Dnp3>::default()),
    tcp(Protocol::Modbus, modbus::probe, |_| Box::<modbus::Modbus>::default()),
    tcp(Protocol::Rdp, rdp::probe, |_| Box::<rdp::Rdp>::default()),
    tcp(Protocol::Rfb, rfb::probe, |_| Box::<rfb::Rfb>::default()),
    tcp(Protocol::Pop3, pop3::probe, |_| Box::<pop3::Pop3>::default()),
    tcp(Protocol::Telnet, telnet::probe, |_| Box::<telnet::Telnet>::default()),
    udp(Protocol::Ike, ike::probe, |_| Box::<ike::Ike>::default()),
    udp(Protocol::BittorrentDht, bittorrent::probe, |_| Box::new(Messages { protocol: Protocol::BittorrentDht, read: bittorrent::read })),
    tcp(Protocol::Enip, enip::probe_tcp, |_| Box::new(enip::Enip::new(Transport::Tcp))),
    udp(Protocol::Enip, enip::probe_udp, |_| Box::new(enip::Enip::new(Transport::Udp))),
    tcp(Protocol::Krb5, krb5::probe_tcp, |_| Box::new(krb5::Krb5::new(Transport::Tcp))),
    udp(Protocol::Krb5, krb5::probe_udp, |_| Box::new(krb5::Krb5::new(Transport::Udp))),
    Entry { protocol: Protocol::Quic, transport: Transport::Udp, probe: quic::probe, parser: |_| Box::<quic::Quic>::default() },
    Entry {
        protocol: Protocol::Dhcp,
        transport: Transport::Udp,
        probe: dhcp::probe,
        parser: |_| Box::new(Messages { protocol: Protocol::Dhcp, read: dhcp::read }),
    },
    Entry {
        protocol: Protocol::Tftp,
        transport: Transport::Udp,
        probe: tftp::probe,
        parser: |_| Box::new(Messages { protocol: Protocol::Tftp, read: tftp::read }),
    },
    // The least certain of the datagrams stands last.
    Entry {
        protocol: Protocol::Ntp,
        transport: Transport::Udp,
        probe: ntp::probe,
        parser: |_| Box::new(Messages { protocol: Protocol::Ntp, read: ntp::read }),
    },
];

/// What only a port tells apart from another protocol; asked before the table.
pub(crate) static AT_PORTS: &[(u16, Entry)] = &[
    (5353, udp(Protocol::Mdns, dns::probe_udp, |_| Box::new(dns::Dns::of(Family::Mdns, Transport::Udp)))),
    (5355, udp(Protocol::Llmnr, dns::probe_udp, |_| Box::new(dns::Dns::of(Family::Llmnr, Transport::Udp)))),
    (5355, tcp(Protocol::Llmnr, dns::probe_tcp, |_| Box::new(dns::Dns::of(Family::Llmnr, Transport::Tcp)))),
];

pub(crate) struct Entry {
    pub protocol: Protocol,
    pub transport: Transport,
    pub probe: ProbeFn,
    pub parser: ParserFn,
}

type ProbeFn = fn(Dir, &[u8]) -> Probe;
type ParserFn = fn(&Config) -> Box<dyn Parser>;

const fn tcp(protocol: Protocol, probe: ProbeFn, parser: ParserFn) -> Entry {
    Entry { protocol, transport: Transport::Tcp, probe, parser }
}

const fn udp(protocol: Protocol, probe: ProbeFn, parser: ParserFn) -> Entry {
    Entry { protocol, transport: Transport::Udp, probe, parser }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Not this protocol.
    No,
    /// Perhaps; more bytes will tell.
    More,
    Yes,
}

/// Reads one session of a protocol.
///
/// The session gives all bytes of a direction that were not consumed yet, from the first of them, each time more have come.
pub(crate) trait Parser: Debug + Send {
    /// Reads on in `io.dir`.
    fn data(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Step;

    /// `len` bytes are missing in `io.dir`; `pending` of those before them were not consumed and will not come back.
    fn gap(&mut self, len: u64, pending: &[u8], io: &mut Io<'_>) -> Next;

    /// No more bytes in `io.dir`; `pending` were not consumed.
    fn end(&mut self, pending: &[u8], io: &mut Io<'_>);

    /// What is left, at a switch, to the parser that follows.
    fn leaves(&mut self) -> Option<Box<Upgraded>> {
        None
    }

    /// What the parser before has left.
    fn inherits(&mut self, _: Box<Upgraded>) {}

    /// Another protocol was spoken before.
    fn follows_another(&mut self) {}

    /// The conversation has turned out to be a special kind of its protocol; told once.
    fn becomes(&mut self) -> Option<Protocol> {
        None
    }

    /// Bytes of the other direction may be waiting for what this direction has just said.
    fn wakes_other(&mut self) -> bool {
        false
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes that need not come again.
    pub consumed: usize,
    pub next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    /// What follows in both directions is another protocol, to be recognised anew (CONNECT, upgrade, STARTTLS).
    Switch,
    /// What follows in both directions is this protocol: both sides have agreed on it.
    Become(Protocol),
    Finished(Finished),
    /// Nothing more can be read in this direction; the parser goes on with the other one.
    Blind(Finished),
}

impl Step {
    pub const fn on(consumed: usize) -> Self {
        Self { consumed, next: Next::Continue }
    }
}
