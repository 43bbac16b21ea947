//! What rules ask of findings: events of decoders, of fragments and of the stream, and whether a checksum is right.
//!
//! Such a rule costs nothing until its event is raised: it stands in no group, and is looked up by the event's name.

use std::collections::BTreeMap;

use bulkhead_net::decode::{DecodeEvent, Events, IpVersion, Packet, Transport};
use bulkhead_rules::condition::{ChecksumLayer, Condition};

use crate::rules::RuleId;

/// One finding that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Raised {
    Decode(DecodeEvent),
    /// Without `stream.`.
    Stream(&'static str),
    /// Of the recognition of an application.
    App(&'static str),
    /// The checksum of this layer is wrong.
    Checksum(Layer),
    /// Nothing here raises it ([`bulkhead_net::decode::NEVER_RAISED`]).
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Ipv4,
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
    Icmpv4,
    Icmpv6,
    Igmp,
}

const LAYERS: [Layer; 8] = [Layer::Ipv4, Layer::TcpV4, Layer::TcpV6, Layer::UdpV4, Layer::UdpV6, Layer::Icmpv4, Layer::Icmpv6, Layer::Igmp];

/// What a condition asks for, when it is one of these; a checksum that has to be right is [`right_checksum`].
pub(crate) fn raised(condition: &Condition) -> Option<Raised> {
    Some(match condition {
        Condition::DecodeEvent(name) => DecodeEvent::from_name(name).map_or(Raised::Never, Raised::Decode),
        Condition::StreamEvent(name) => Raised::Stream(name),
        Condition::AppLayerEvent { protocol: None, event: Some(name) } => Raised::App(name),
        Condition::Checksum { layer, valid: false } => Raised::Checksum(layer_of(*layer)),
        _ => return None,
    })
}

pub(crate) fn right_checksum(condition: &Condition) -> Option<Layer> {
    match condition {
        Condition::Checksum { layer, valid: true } => Some(layer_of(*layer)),
        _ => None,
    }
}

const fn layer_of(layer: ChecksumLayer) -> Layer {
    match layer {
        ChecksumLayer::Ipv4 => Layer::Ipv4,
        ChecksumLayer::TcpV4 => Layer::TcpV4,
        ChecksumLayer::TcpV6 => Layer::TcpV6,
        ChecksumLayer::UdpV4 => Layer::UdpV4,
        ChecksumLayer::UdpV6 => Layer::UdpV6,
        ChecksumLayer::Icmpv4 => Layer::Icmpv4,
        ChecksumLayer::Icmpv6 => Layer::Icmpv6,
        ChecksumLayer::Igmp => Layer::Igmp,
    }
}

/// Whether a packet has a checksum of this layer, and it is right. Where checksums are not looked at, each is right.
pub(crate) fn checksum(layer: Layer, packet: &Packet<'_>) -> Option<bool> {
    let v4 = packet.ip.version == IpVersion::V4;
    let (there, wrong) = match (layer, &packet.transport) {
        (Layer::Ipv4, _) => (v4, DecodeEvent::Ipv4InvalidChecksum),
        (Layer::TcpV4, Transport::Tcp(_)) => (v4, DecodeEvent::TcpInvalidChecksum),
        (Layer::TcpV6, Transport::Tcp(_)) => (!v4, DecodeEvent::TcpInvalidChecksum),
        (Layer::UdpV4, Transport::Udp(_)) => (v4, DecodeEvent::UdpInvalidChecksum),
        (Layer::UdpV6, Transport::Udp(_)) => (!v4, DecodeEvent::UdpInvalidChecksum),
        (Layer::Icmpv4, Transport::Icmp(_)) => (true, DecodeEvent::Icmpv4InvalidChecksum),
        (Layer::Icmpv6, Transport::Icmpv6(_)) => (true, DecodeEvent::Icmpv6InvalidChecksum),
        (Layer::Igmp, Transport::Igmp { .. }) => (true, DecodeEvent::IgmpInvalidChecksum),
        _ => return None,
    };
    there.then(|| !packet.events.contains(wrong))
}

/// Findings on the packet in hand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Findings<'a> {
    pub decode: Events,
    pub stream: &'a [&'static str],
    pub app: &'a [&'static str],
}

impl Findings<'_> {
    pub const fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.stream.is_empty() && self.app.is_empty()
    }

    pub fn has(&self, raised: Raised, packet: Option<&Packet<'_>>) -> bool {
        match raised {
            Raised::Decode(event) => self.decode.contains(event),
            Raised::Stream(name) => self.stream.contains(&name),
            Raised::App(name) => self.app.contains(&name),
            Raised::Checksum(layer) => packet.is_some_and(|packet| checksum(layer, packet) == Some(false)),
            Raised::Never => false,
        }
    }
}

/// Rules by what they ask for.
#[derive(Debug, Default)]
pub(crate) struct ByFinding {
    rules: BTreeMap<Raised, Vec<RuleId>>,
}

impl ByFinding {
    /// A rule that asks for several is found by the first.
    pub fn add(&mut self, asked: &[Raised], rule: RuleId) {
        if let Some(first) = asked.first() {
            self.rules.entry(*first).or_default().push(rule);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Rules that one of the findings calls.
    pub fn called(&self, findings: &Findings<'_>, packet: Option<&Packet<'_>>, mut found: impl FnMut(RuleId)) {
        if self.rules.is_empty() || (findings.is_empty() && !packet.is_some_and(Packet::checksum_invalid)) {
            return;
        }
        let wrong = LAYERS.into_iter().filter(|layer| packet.is_some_and(|packet| checksum(*layer, packet) == Some(false)));
        let all = findings.decode.iter().map(Raised::Decode);
        let of_stream = findings.stream.iter().map(|name| Raised::Stream(name));
        let of_app = findings.app.iter().map(|name| Raised::App(name));
        let all = all.chain(of_stream).chain(of_app).chain(wrong.map(Raised::Checksum));
        for rule in all.filter_map(|raised| self.rules.get(&raised)).flatten() {
            found(*rule);
        }
    }
}
