//! What the decoder and the defragmenter find odd, under the names of Suricata's `decode-event` keyword
//! (its `src/decode-events.c`, without the prefix `decoder.`).

use std::fmt;

/// Names of Suricata's that a rule may use although nothing here raises them: encapsulations and capture
/// methods that do not occur between containers, and frames without IP, which are not judged.
pub const NEVER_RAISED: &[&str] = &[
    "afpacket.trunc_pkt",
    "arp.invalid_pkt",
    "chdlc.pkt_too_small",
    "dce.pkt_too_small",
    "erspan.header_too_small",
    "erspan.too_many_vlan_layers",
    "erspan.unsupported_version",
    "etag.header_too_small",
    "etag.unknown_type",
    "ethernet.unknown_ethertype",
    "geneve.unknown_payload_type",
    "gre.version1_malformed_sre_hdr",
    "ieee8021ah.header_too_small",
    "igmp.malformed",
    "ipv4.opt_invalid",
    "ipv6.exthdr_dupl_eh",
    "ltnull.unsupported_type",
    "ppp.unsup_proto",
    "ppp.vju_pkt_too_small",
    "vlan.unknown_type",
    "vntag.header_too_small",
    "vntag.unknown_type",
    "vxlan.unknown_payload_type",
];

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// One finding. The order is stable within a release and of no meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DecodeEvent {
            $($(#[$doc])* $variant,)*
        }

        impl DecodeEvent {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the rule language and `anomaly` events write it: `ipv4.trunc_pkt`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The inverse of [`Self::name`]; a leading `decoder.` is allowed.
            pub fn from_name(name: &str) -> Option<Self> {
                match name.strip_prefix("decoder.").unwrap_or(name) {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    Ipv4PktTooSmall => "ipv4.pkt_too_small",
    Ipv4HlenTooSmall => "ipv4.hlen_too_small",
    Ipv4IplenSmallerThanHlen => "ipv4.iplen_smaller_than_hlen",
    Ipv4TruncPkt => "ipv4.trunc_pkt",
    Ipv4OptInvalidLen => "ipv4.opt_invalid_len",
    Ipv4OptMalformed => "ipv4.opt_malformed",
    Ipv4OptPadRequired => "ipv4.opt_pad_required",
    Ipv4OptEolRequired => "ipv4.opt_eol_required",
    Ipv4OptDuplicate => "ipv4.opt_duplicate",
    Ipv4OptUnknown => "ipv4.opt_unknown",
    Ipv4WrongIpVersion => "ipv4.wrong_ip_version",
    Ipv4Icmpv6 => "ipv4.icmpv6",
    Icmpv4PktTooSmall => "icmpv4.pkt_too_small",
    Icmpv4UnknownType => "icmpv4.unknown_type",
    Icmpv4UnknownCode => "icmpv4.unknown_code",
    Icmpv4Ipv4TruncPkt => "icmpv4.ipv4_trunc_pkt",
    Icmpv4Ipv4UnknownVer => "icmpv4.ipv4_unknown_ver",
    Icmpv6UnknownType => "icmpv6.unknown_type",
    Icmpv6UnknownCode => "icmpv6.unknown_code",
    Icmpv6PktTooSmall => "icmpv6.pkt_too_small",
    Icmpv6Ipv6UnknownVersion => "icmpv6.ipv6_unknown_version",
    Icmpv6Ipv6TruncPkt => "icmpv6.ipv6_trunc_pkt",
    Icmpv6MldMessageWithInvalidHl => "icmpv6.mld_message_with_invalid_hl",
    Icmpv6UnassignedType => "icmpv6.unassigned_type",
    Icmpv6ExperimentationType => "icmpv6.experimentation_type",
    Ipv6PktTooSmall => "ipv6.pkt_too_small",
    Ipv6TruncPkt => "ipv6.trunc_pkt",
    Ipv6TruncExthdr => "ipv6.trunc_exthdr",
    Ipv6ExthdrDuplFh => "ipv6.exthdr_dupl_fh",
    Ipv6ExthdrUselessFh => "ipv6.exthdr_useless_fh",
    Ipv6ExthdrDuplRh => "ipv6.exthdr_dupl_rh",
    Ipv6ExthdrDuplHh => "ipv6.exthdr_dupl_hh",
    Ipv6ExthdrDuplDh => "ipv6.exthdr_dupl_dh",
    Ipv6ExthdrDuplAh => "ipv6.exthdr_dupl_ah",
    Ipv6ExthdrInvalidOptlen => "ipv6.exthdr_invalid_optlen",
    Ipv6WrongIpVersion => "ipv6.wrong_ip_version",
    Ipv6ExthdrAhResNotNull => "ipv6.exthdr_ah_res_not_null",
    Ipv6HopoptsUnknownOpt => "ipv6.hopopts_unknown_opt",
    Ipv6HopoptsOnlyPadding => "ipv6.hopopts_only_padding",
    Ipv6DstoptsUnknownOpt => "ipv6.dstopts_unknown_opt",
    Ipv6DstoptsOnlyPadding => "ipv6.dstopts_only_padding",
    Ipv6RhType0 => "ipv6.rh_type_0",
    Ipv6ZeroLenPadn => "ipv6.zero_len_padn",
    Ipv6FhNonZeroReservedField => "ipv6.fh_non_zero_reserved_field",
    Ipv6DataAfterNoneHeader => "ipv6.data_after_none_header",
    Ipv6UnknownNextHeader => "ipv6.unknown_next_header",
    Ipv6Icmpv4 => "ipv6.icmpv4",
    TcpPktTooSmall => "tcp.pkt_too_small",
    TcpHlenTooSmall => "tcp.hlen_too_small",
    TcpInvalidOptlen => "tcp.invalid_optlen",
    TcpOptInvalidLen => "tcp.opt_invalid_len",
    TcpOptDuplicate => "tcp.opt_duplicate",
    UdpPktTooSmall => "udp.pkt_too_small",
    UdpHlenTooSmall => "udp.hlen_too_small",
    UdpHlenInvalid => "udp.hlen_invalid",
    UdpLenInvalid => "udp.len_invalid",
    SllPktTooSmall => "sll.pkt_too_small",
    Sll2PktTooSmall => "sll2.pkt_too_small",
    EthernetPktTooSmall => "ethernet.pkt_too_small",
    PppPktTooSmall => "ppp.pkt_too_small",
    PppIp4PktTooSmall => "ppp.ip4_pkt_too_small",
    PppIp6PktTooSmall => "ppp.ip6_pkt_too_small",
    PppWrongType => "ppp.wrong_type",
    PppoePktTooSmall => "pppoe.pkt_too_small",
    PppoeWrongCode => "pppoe.wrong_code",
    PppoeMalformedTags => "pppoe.malformed_tags",
    GrePktTooSmall => "gre.pkt_too_small",
    GreWrongVersion => "gre.wrong_version",
    GreVersion0Recur => "gre.version0_recur",
    GreVersion0Flags => "gre.version0_flags",
    GreVersion0HdrTooBig => "gre.version0_hdr_too_big",
    GreVersion0MalformedSreHdr => "gre.version0_malformed_sre_hdr",
    GreVersion1Chksum => "gre.version1_chksum",
    GreVersion1Route => "gre.version1_route",
    GreVersion1Ssr => "gre.version1_ssr",
    GreVersion1Recur => "gre.version1_recur",
    GreVersion1Flags => "gre.version1_flags",
    GreVersion1NoKey => "gre.version1_no_key",
    GreVersion1WrongProtocol => "gre.version1_wrong_protocol",
    GreVersion1HdrTooBig => "gre.version1_hdr_too_big",
    VlanHeaderTooSmall => "vlan.header_too_small",
    VlanTooManyLayers => "vlan.too_many_layers",
    IprawInvalidIpVersion => "ipraw.invalid_ip_version",
    LtnullPktTooSmall => "ltnull.pkt_too_small",
    SctpPktTooSmall => "sctp.pkt_too_small",
    EspPktTooSmall => "esp.pkt_too_small",
    ArpPktTooSmall => "arp.pkt_too_small",
    ArpUnsupportedHardware => "arp.unsupported_hardware",
    ArpUnsupportedProtocol => "arp.unsupported_protocol",
    ArpInvalidHardwareSize => "arp.invalid_hardware_size",
    ArpInvalidProtocolSize => "arp.invalid_protocol_size",
    ArpUnsupportedOpcode => "arp.unsupported_opcode",
    Ipv4FragPktTooLarge => "ipv4.frag_pkt_too_large",
    Ipv6FragPktTooLarge => "ipv6.frag_pkt_too_large",
    Ipv4FragOverlap => "ipv4.frag_overlap",
    Ipv6FragOverlap => "ipv6.frag_overlap",
    Ipv6FragInvalidLength => "ipv6.frag_invalid_length",
    Ipv4FragIgnored => "ipv4.frag_ignored",
    Ipv6FragIgnored => "ipv6.frag_ignored",
    Ipv4InIpv6TooSmall => "ipv6.ipv4_in_ipv6_too_small",
    Ipv4InIpv6WrongVersion => "ipv6.ipv4_in_ipv6_wrong_version",
    Ipv6InIpv6TooSmall => "ipv6.ipv6_in_ipv6_too_small",
    Ipv6InIpv6WrongVersion => "ipv6.ipv6_in_ipv6_wrong_version",
    IgmpPktTooSmall => "igmp.pkt_too_small",
    IgmpV3PktTooSmall => "igmp.v3_pkt_too_small",
    MplsHeaderTooSmall => "mpls.header_too_small",
    MplsPktTooSmall => "mpls.pkt_too_small",
    MplsBadLabelRouterAlert => "mpls.bad_label_router_alert",
    MplsBadLabelImplicitNull => "mpls.bad_label_implicit_null",
    MplsBadLabelReserved => "mpls.bad_label_reserved",
    MplsUnknownPayloadType => "mpls.unknown_payload_type",
    Ipv4UnknownProtocol => "ipv4.unknown_protocol",
    TooManyLayers => "too_many_layers",
    /// Ours: the checksum of the IPv4 header is wrong. Suricata has keywords (`ipv4-csum`), no events.
    Ipv4InvalidChecksum => "ipv4.invalid_checksum",
    /// Ours, as the four below.
    TcpInvalidChecksum => "tcp.invalid_checksum",
    UdpInvalidChecksum => "udp.invalid_checksum",
    Icmpv4InvalidChecksum => "icmpv4.invalid_checksum",
    Icmpv6InvalidChecksum => "icmpv6.invalid_checksum",
    IgmpInvalidChecksum => "igmp.invalid_checksum",
    /// Ours: more extension headers than [`super::EXTENSION_HEADERS_MAX`].
    Ipv6TooManyExthdrs => "ipv6.too_many_exthdrs",
}

impl fmt::Display for DecodeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of events: each occurs at most once per packet.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Events([u64; 4]);

// INVARIANT: every event has a bit.
const _: () = assert!(DecodeEvent::ALL.len() <= 256);

impl Events {
    pub const NONE: Self = Self([0; 4]);

    pub const fn insert(&mut self, event: DecodeEvent) {
        let bit = event as u8;
        self.0[(bit >> 6) as usize] |= 1 << (bit & 63);
    }

    pub const fn contains(&self, event: DecodeEvent) -> bool {
        let bit = event as u8;
        self.0[(bit >> 6) as usize] >> (bit & 63) & 1 == 1
    }

    pub const fn is_empty(&self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    pub const fn union(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a | e, b | f, c | g, d | h])
    }

    /// In the order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = DecodeEvent> + '_ {
        DecodeEvent::ALL.iter().copied().filter(|event| self.contains(*event))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(DecodeEvent::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for event in DecodeEvent::ALL {
            assert_eq!(DecodeEvent::from_name(event.name()), Some(*event));
            assert_eq!(DecodeEvent::from_name(&format!("decoder.{event}")), Some(*event));
        }
        assert_eq!(DecodeEvent::from_name("ipv4.nothing"), None);
    }

    #[test]
    fn a_set_keeps_every_event_apart() {
        for event in DecodeEvent::ALL {
            let mut set = Events::NONE;
            set.insert(*event);
            assert_eq!(set.iter().collect::<Vec<_>>(), [*event]);
        }
    }
}
