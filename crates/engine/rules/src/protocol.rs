//! Application protocols that a rule may name, and what they run over.

/// One application protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppProtocol {
    /// Canonical, as in a rule's header and in events.
    pub name: &'static str,
    /// Other spellings that mean the same.
    pub aliases: &'static [&'static str],
    /// IP protocol numbers.
    pub transports: &'static [u8],
    /// The protocols that this name stands for; empty: itself alone.
    pub stands_for: &'static [App],
}

/// By canonical name or another spelling; names are not case-sensitive.
pub fn lookup(name: &str) -> Option<App> {
    App::ALL.iter().copied().find(|app| {
        let known = app.info();
        known.name.eq_ignore_ascii_case(name) || known.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

macro_rules! apps {
    ($($id:ident = $info:expr,)*) => {
        /// An application protocol; its facts are in [`App::info`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum App { $($id,)* }

        const ALL: &[AppProtocol] = &[$($info,)*];

        impl App {
            /// In the order of the names.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];
        }
    };
}

impl App {
    pub const fn info(self) -> &'static AppProtocol {
        &ALL[self as usize]
    }

    /// Canonical: `http`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The protocols as recognised on the wire: `http` is `http1`, `http2` or `doh2`.
    pub fn members(self) -> impl Iterator<Item = Self> {
        let info = self.info();
        let own = if info.stands_for.is_empty() { Some(self) } else { None };
        own.into_iter().chain(info.stands_for.iter().copied())
    }

    /// The list of only this one.
    pub fn one(self) -> &'static [Self] {
        std::slice::from_ref(&Self::ALL[self as usize])
    }

    /// Whether a flow recognised as `found` is one of a rule about this.
    pub fn covers(self, found: Self) -> bool {
        self == found || self.info().stands_for.contains(&found)
    }
}

const TCP: &[u8] = &[6];
const UDP: &[u8] = &[17];
const BOTH: &[u8] = &[6, 17];

const fn app(name: &'static str, transports: &'static [u8]) -> AppProtocol {
    AppProtocol { name, aliases: &[], transports, stands_for: &[] }
}

apps! {
    BittorrentDht = app("bittorrent-dht", UDP),
    Dcerpc = app("dcerpc", BOTH),
    Dhcp = app("dhcp", UDP),
    Dnp3 = app("dnp3", TCP),
    Dns = AppProtocol { name: "dns", aliases: &[], transports: BOTH, stands_for: &[App::Dns, App::Doh2] },
    Doh2 = app("doh2", TCP),
    Enip = app("enip", BOTH),
    Ftp = app("ftp", TCP),
    FtpData = app("ftp-data", TCP),
    Http = AppProtocol { name: "http", aliases: &[], transports: TCP, stands_for: &[App::Http1, App::Http2, App::Doh2] },
    Http1 = app("http1", TCP),
    Http2 = AppProtocol { name: "http2", aliases: &[], transports: TCP, stands_for: &[App::Http2, App::Doh2] },
    Ike = app("ike", UDP),
    Imap = app("imap", TCP),
    Krb5 = app("krb5", BOTH),
    Ldap = app("ldap", BOTH),
    Llmnr = app("llmnr", BOTH),
    Mdns = app("mdns", UDP),
    Modbus = app("modbus", TCP),
    Mqtt = app("mqtt", TCP),
    Mysql = app("mysql", TCP),
    Nfs = app("nfs", BOTH),
    Ntp = app("ntp", UDP),
    Pgsql = app("pgsql", TCP),
    Pop3 = app("pop3", TCP),
    Quic = app("quic", UDP),
    Rdp = app("rdp", TCP),
    Redis = app("redis", TCP),
    Rfb = app("rfb", TCP),
    Rpc = app("rpc", BOTH),
    Sip = app("sip", BOTH),
    Smb = app("smb", TCP),
    Smtp = app("smtp", TCP),
    Snmp = app("snmp", UDP),
    Ssh = app("ssh", TCP),
    Telnet = app("telnet", TCP),
    Template = app("template", TCP),
    Tftp = app("tftp", UDP),
    Tls = AppProtocol { name: "tls", aliases: &["ssl"], transports: TCP, stands_for: &[] },
    Websocket = app("websocket", TCP),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_is_on_the_wire() {
        assert_eq!(lookup("SSL"), Some(App::Tls));
        assert!(
            App::Http.covers(App::Http1) && App::Http.covers(App::Http2) && App::Http2.covers(App::Http2) && App::Dns.covers(App::Doh2)
        );
        assert!(!App::Http1.covers(App::Http2) && !App::Tls.covers(App::Http1));
        assert!(App::Http.members().eq([App::Http1, App::Http2, App::Doh2]));
        assert!(App::Tls.members().eq([App::Tls]));
        assert!(lookup("gopher").is_none());
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
