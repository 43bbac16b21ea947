//! What EVE says of a packet itself: VLANs, addresses of the link, numbers of its headers.

use std::net::IpAddr;

use bulkhead_ips::{ChecksumState, FlowKey, LinkType};
use bulkhead_net::decode::{Decoded, Decoder, Ether, FrameMeta, Packet, Transport, Tunnel, TunnelKind, VlanIds};
use serde_json::{Value, json};

use crate::line;
use crate::log::EveLog;
use crate::record::Object;

/// A packet's headers, as far as a log shows them.
#[derive(Debug, Clone)]
pub struct Seen {
    ether: Option<Ether>,
    vlan: VlanIds,
    ttl: u8,
    tos: u8,
    id: u32,
    transport: Headers,
    source: &'static str,
    /// The outermost packet around it.
    tunnel: Option<Outer>,
    pub payload: Vec<u8>,
}

/// The packet that carries another.
#[derive(Debug, Clone)]
struct Outer {
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    proto: u8,
    depth: u8,
}

#[derive(Debug, Clone)]
enum Headers {
    Tcp { seq: u32, ack: u32, window: u16, flags: u16, urgent: u16, reserved: u8 },
    Udp { len: u16 },
    Icmp { kind: u8, code: u8, echo: Option<(u16, u16)> },
    Other,
}

impl Seen {
    /// The layer of a frame that `key` is about.
    pub fn find(decoder: &mut Decoder, link: LinkType, frame: &[u8], key: Option<&FlowKey>) -> Option<Self> {
        let meta = FrameMeta { link, checksum: ChecksumState::Ignored, gso: false };
        let Decoded::Packet(mut packet) = decoder.frame(meta, frame) else { return None };
        let outer = packet;
        let mut source = "wire/pcap";
        while let Some(key) = key {
            let ends = (packet.src(), packet.dst());
            if (ends == (key.src.addr, key.dst.addr) || ends == (key.dst.addr, key.src.addr)) && packet.proto() == key.proto {
                break;
            }
            let tunnel = decoder.tunnel(&packet);
            match (decoder.inner(&packet), tunnel) {
                (Some(Decoded::Packet(inner)), Some(tunnel)) => (packet, source) = (inner, name(&tunnel)),
                _ => {
                    (packet, source) = (outer, "wire/pcap");
                    break;
                }
            }
        }
        let tunnel = (packet.depth > 0).then(|| Outer {
            ends: (outer.src(), outer.dst()),
            ports: outer.ports(),
            proto: outer.proto(),
            depth: packet.depth,
        });
        Some(Self { tunnel, ..Self::of(&packet, outer.ether, source) })
    }

    fn of(packet: &Packet<'_>, ether: Option<Ether>, source: &'static str) -> Self {
        let transport = match &packet.transport {
            Transport::Tcp(tcp) => Headers::Tcp {
                seq: tcp.seq,
                ack: tcp.ack,
                window: tcp.window,
                flags: tcp.flags.0,
                urgent: tcp.urgent,
                reserved: tcp.reserved,
            },
            Transport::Udp(udp) => Headers::Udp { len: udp.len },
            Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => Headers::Icmp { kind: icmp.kind, code: icmp.code, echo: icmp.echo },
            Transport::Sctp { .. }
            | Transport::Gre { .. }
            | Transport::Esp { .. }
            | Transport::Fragment
            | Transport::NoNextHeader
            | Transport::Igmp { .. }
            | Transport::Other => Headers::Other,
        };
        Self {
            ether,
            vlan: packet.vlan,
            ttl: packet.ip.ttl,
            tos: packet.ip.tos,
            id: packet.ip.id,
            transport,
            source,
            tunnel: None,
            payload: packet.payload.to_vec(),
        }
    }

    /// EVE's `tunnel`: what carries the packet.
    pub fn tunnel(&self) -> Option<Value> {
        let Outer { ends, ports, proto, depth } = self.tunnel.as_ref()?;
        let mut tunnel = Object::new();
        tunnel.insert("src_ip".into(), json!(line::address(ends.0)));
        tunnel.insert("dest_ip".into(), json!(line::address(ends.1)));
        if matches!(proto, 6 | 17 | 132) {
            tunnel.insert("src_port".into(), json!(ports.0));
            tunnel.insert("dest_port".into(), json!(ports.1));
        }
        tunnel.insert("proto".into(), json!(line::protocol(*proto)));
        tunnel.insert("depth".into(), json!(depth));
        tunnel.insert("pkt_src".into(), json!("wire/pcap"));
        Some(Value::Object(tunnel))
    }

    /// EVE's `pkt_src`.
    pub const fn source(&self) -> &'static str {
        self.source
    }

    pub const fn icmp(&self) -> Option<(u8, u8)> {
        match self.transport {
            Headers::Icmp { kind, code, .. } => Some((kind, code)),
            Headers::Tcp { .. } | Headers::Udp { .. } | Headers::Other => None,
        }
    }

    /// Source and destination on the link.
    pub fn macs(&self) -> Option<(String, String)> {
        self.ether.map(|ether| (mac(ether.src), mac(ether.dst)))
    }

    /// What stands at the head of an event.
    pub fn head(&self, fields: &mut Object, log: &EveLog) {
        put_vlan(fields, self.vlan);
        if let Some(ether) = self.ether.filter(|_| log.ethernet) {
            fields.insert("ether".into(), json!({ "src_mac": mac(ether.src), "dest_mac": mac(ether.dst) }));
        }
    }

    /// The numbers of a `drop`; `len`: of the packet.
    pub fn headers(&self, len: u32) -> Object {
        let mut drop = Object::new();
        let mut put = |name: &str, value: Value| _ = drop.insert(name.to_owned(), value);
        put("len", json!(len));
        put("tos", json!(self.tos));
        put("ttl", json!(self.ttl));
        put("ipid", json!(self.id));
        match self.transport {
            Headers::Tcp { seq, ack, window, flags, urgent, reserved } => {
                put("tcpseq", json!(seq));
                put("tcpack", json!(ack));
                put("tcpwin", json!(window));
                for (bit, name) in [(1, "syn"), (4, "ack"), (3, "psh"), (2, "rst"), (5, "urg"), (0, "fin")] {
                    put(name, json!(flags & (1 << bit) != 0));
                }
                put("tcpres", json!(reserved));
                put("tcpurgp", json!(urgent));
            }
            Headers::Udp { len } => put("udplen", json!(len)),
            Headers::Icmp { echo, .. } => {
                if let Some((id, sequence)) = echo {
                    put("icmp_id", json!(id));
                    put("icmp_seq", json!(sequence));
                }
            }
            Headers::Other => {}
        }
        drop
    }
}

pub fn put_vlan(fields: &mut Object, vlan: VlanIds) {
    let ids: Vec<u16> = vlan.as_slice().to_vec();
    if !ids.is_empty() {
        fields.insert("vlan".into(), json!(ids));
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// As Suricata names where a packet comes from.
const fn name(tunnel: &Tunnel<'_>) -> &'static str {
    match tunnel.kind {
        TunnelKind::IpInIpv4 => "ipv4 tunnel",
        TunnelKind::IpInIpv6 => "ipv6 tunnel",
        TunnelKind::Gre => "gre tunnel",
        TunnelKind::Vxlan => "vxlan encapsulation",
        TunnelKind::Geneve => "geneve encapsulation",
        TunnelKind::Teredo => "teredo tunnel",
    }
}
