//! Rules that look at one packet: its payload, its headers and their numbers.

use bulkhead_net::decode::Ether;
use bulkhead_rules::condition::Towards;

use super::*;
use crate::raised::{Findings, checksum};
use crate::transaction::numbers_hold;

/// A packet as rules see it.
pub(crate) struct PacketView<'a, 'p> {
    pub packet: &'a Packet<'p>,
    pub from: End,
    pub to: End,
    /// `None` outside of flows.
    pub dir: Option<Direction>,
    /// Its payload went to a stream, where stream rules have seen it.
    pub in_stream: bool,
    pub first_in_direction: bool,
    pub findings: Findings<'a>,
}

/// Both passes over one packet's own payload.
pub(crate) fn inspect_packet(
    rules: &Ruleset,
    config: &PipelineConfig,
    view: &PacketView<'_, '_>,
    scratch: &mut Scratch,
    stats: &mut Stats,
) {
    let packet = view.packet;
    let class = ProtoClass::of(packet.proto());
    let dir = view.dir.unwrap_or(Direction::ToServer);
    scratch.begin_pass();
    let groups = rules.groups(class, dir, view.from.1, view.to.1);
    if !scratch.payload_searched {
        // What no stream took in is tried as a packet by rules on the stream too.
        let of = Of { stream: class == ProtoClass::Tcp && !view.in_stream, packet: true };
        scratch.prefilter(&groups, &Carry::default(), packet.payload, of, stats);
    }
    let of_payload = std::mem::take(&mut scratch.of_payload);
    for rule in &of_payload {
        scratch.add(*rule, true);
    }
    scratch.of_payload = of_payload;
    if view.first_in_direction {
        for rule in groups.iter().flat_map(|group| group.once.candidates(view.from.0, view.to.0)) {
            scratch.add(rule, true);
        }
    }
    rules.by_finding().called(&view.findings, Some(packet), |rule| scratch.add(rule, true));
    verify_packet(rules, config, view, scratch, stats);
}

/// Only the rules that findings call: of a packet that is thrown away before any other is asked.
pub(crate) fn inspect_findings(
    rules: &Ruleset,
    config: &PipelineConfig,
    view: &PacketView<'_, '_>,
    scratch: &mut Scratch,
    stats: &mut Stats,
) {
    scratch.begin_pass();
    rules.by_finding().called(&view.findings, Some(view.packet), |rule| scratch.add(rule, true));
    verify_packet(rules, config, view, scratch, stats);
}

/// Second pass.
fn verify_packet(rules: &Ruleset, config: &PipelineConfig, view: &PacketView<'_, '_>, scratch: &mut Scratch, stats: &mut Stats) {
    let packet = view.packet;
    let payload = packet.payload;
    scratch.candidates.sort_unstable();
    let of_stream = scratch.matched.len();
    for at in 0..scratch.candidates.len() {
        if !scratch.work.charge(1 + of_stream / 16) {
            break;
        }
        let id = scratch.candidates[at].rule;
        let rule = rules.rule(id);
        // Without contents there is nothing to find in a stream; without payload nothing in a packet.
        if (rule.ip_only && !view.first_in_direction)
            || !rule.header_matches(view.from, view.to)
            || !rule.packet.iter().all(|test| packet_test(test, packet))
            || !rule.ip_options.iter().all(|option| has_ip_option(*option, packet))
            || !rule.raised.iter().all(|raised| view.findings.has(*raised, Some(packet)))
            || !rule.right_checksums.iter().all(|layer| checksum(*layer, packet) == Some(true))
            || !rule.headers.iter().all(|(buffer, steps)| header_holds(*buffer, steps, packet, &mut scratch.work))
            || scratch.matched[..of_stream].iter().any(|matched| matched.rule == id)
        {
            continue;
        }
        let end = if rule.steps.is_empty() {
            0
        } else {
            stats.inspected += 1;
            match rule.steps.run(Buffer { bytes: payload, base: 0 }, &mut scratch.work) {
                Inspection::Match { end } => end,
                Inspection::NoMatch => continue,
                Inspection::Exhausted if scratch.work.is_spent() => break,
                Inspection::Exhausted => {
                    stats.steps_exhausted += 1;
                    scratch.cap_reached = true;
                    continue;
                }
            }
        };
        stats.matched += 1;
        let end = if end == 0 { payload.len().min(config.excerpt_bytes_max) } else { end.min(payload.len()) };
        let excerpt = payload[end.saturating_sub(config.excerpt_bytes_max)..end].to_vec();
        scratch.matched.push(Matched { rule: id, stream: None, excerpt, tx: None });
    }
}

/// Rules on a frame that carries no IP packet, or on one that could not be read. `ends`: addresses, as far as they were.
pub(crate) fn inspect_frame(rules: &Ruleset, frame: &FrameView<'_>, scratch: &mut Scratch) {
    let nothing = |rule: RuleId| Matched { rule, stream: None, excerpt: Vec::new(), tx: None };
    let header = frame.ether.map(Ether::header);
    for id in rules.of_frames() {
        let rule = rules.rule(*id);
        let wanted = match rule.protocol {
            bulkhead_rules::Protocol::Other("arp") => frame.is_arp,
            bulkhead_rules::Protocol::Other("ether") => header.is_some(),
            _ => true,
        };
        let holds = |(buffer, steps): &(BufferId, Steps)| match (&header, buffer) {
            (Some(bytes), BufferId::EtherHdr) => {
                matches!(steps.run(Buffer { bytes, base: 0 }, &mut scratch.work), Inspection::Match { .. })
            }
            _ => false,
        };
        if wanted && rule.headers.iter().all(holds) {
            scratch.matched.push(nothing(*id));
        }
    }
    let called = &mut scratch.matched;
    rules.by_finding().called(&frame.findings, None, |id| {
        let rule = rules.rule(id);
        let of_headers = !rule.packet.is_empty() || !rule.headers.is_empty() || !rule.steps.is_empty() || !rule.ip_options.is_empty();
        let ends = match frame.ends {
            Some((from, to)) => rule.header_matches(from, to),
            None => rule.has_any_ends(),
        };
        if !of_headers && ends && rule.raised.iter().all(|raised| frame.findings.has(*raised, None)) {
            called.push(nothing(id));
        }
    });
}

/// A frame as rules see it.
pub(crate) struct FrameView<'a> {
    pub ether: Option<&'a Ether>,
    pub is_arp: bool,
    pub findings: Findings<'a>,
    pub ends: Option<(End, End)>,
}

fn packet_test(test: &PacketTest, packet: &Packet<'_>) -> bool {
    let tcp = packet.tcp();
    let icmp = match &packet.transport {
        Transport::Icmp(icmp) | Transport::Icmpv6(icmp) => Some(icmp),
        Transport::Tcp(_)
        | Transport::Udp(_)
        | Transport::Igmp { .. }
        | Transport::Sctp { .. }
        | Transport::Gre { .. }
        | Transport::Esp { .. }
        | Transport::Fragment
        | Transport::NoNextHeader
        | Transport::Other => None,
    };
    match test {
        PacketTest::Dsize(number) => number.matches(u32::try_from(packet.payload.len()).unwrap_or(u32::MAX)),
        PacketTest::Flags(flags) => tcp.is_some_and(|tcp| flags_match(*flags, (tcp.flags.0 & 0xff) as u8)),
        PacketTest::Seq(number) => tcp.is_some_and(|tcp| tcp.seq == *number),
        PacketTest::Ack(number) => tcp.is_some_and(|tcp| tcp.ack == *number),
        PacketTest::Window { negated, value } => tcp.is_some_and(|tcp| (tcp.window == *value) != *negated),
        PacketTest::Itype(number) => icmp.is_some_and(|icmp| number.matches(u32::from(icmp.kind))),
        PacketTest::Icode(number) => icmp.is_some_and(|icmp| number.matches(u32::from(icmp.code))),
        PacketTest::IcmpId(number) => icmp.and_then(|icmp| icmp.echo).is_some_and(|(id, _)| id == *number),
        PacketTest::IcmpSeq(number) => icmp.and_then(|icmp| icmp.echo).is_some_and(|(_, seq)| seq == *number),
        PacketTest::Ttl(number) => number.matches(u32::from(packet.ip.ttl)),
        PacketTest::Tos { negated, value } => (packet.ip.tos == *value) != *negated,
        PacketTest::Id(number) => packet.ip.id == u32::from(*number),
        PacketTest::SameIp => packet.src() == packet.dst(),
        PacketTest::IpProto { relation, value } => related(*relation, packet.proto(), *value),
        PacketTest::FragBits(bits) => {
            let ip = &packet.ip;
            let more = ip.fragment.is_some_and(|fragment| fragment.more);
            let set = u8::from(more) | u8::from(ip.dont_fragment) << 1 | u8::from(ip.reserved_bit) << 2;
            bits_match(bits.mode, set, bits.value)
        }
        PacketTest::FragOffset { relation, value } => {
            let units = packet.ip.fragment.map_or(0, |fragment| fragment.offset / 8);
            u16::try_from(units).is_ok_and(|units| related(*relation, units, *value))
        }
    }
}

fn header_holds(buffer: BufferId, steps: &Steps, packet: &Packet<'_>, work: &mut Work) -> bool {
    let ip = &packet.ip;
    // What stands between the IP header and the payload.
    let transport = || ip.payload.get(..ip.payload.len().saturating_sub(packet.payload.len()));
    let first = |count: usize| ip.payload.get(..count);
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => ([address.octets().as_slice(), &[0; 12]].concat(), 4),
        IpAddr::V6(address) => (address.octets().to_vec(), 16),
    };
    let (held, length);
    let bytes = match (buffer, &packet.transport) {
        (BufferId::TcpHdr, Transport::Tcp(_)) => transport(),
        (BufferId::UdpHdr, Transport::Udp(_)) | (BufferId::Icmpv4Hdr, Transport::Icmp(_)) => first(8),
        (BufferId::Icmpv6Hdr, Transport::Icmpv6(_)) | (BufferId::IgmpHdr, Transport::Igmp { .. }) => first(8),
        (BufferId::SctpHdr, Transport::Sctp { .. }) => first(12),
        (BufferId::SctpChunkData, Transport::Sctp { .. }) => {
            return chunks(packet.payload).any(|(_, bytes)| matches!(steps.run(Buffer { bytes, base: 0 }, work), Inspection::Match { .. }));
        }
        (BufferId::EtherHdr, _) => {
            let Some(ether) = &packet.ether else { return false };
            (held, length) = (ether.header().to_vec(), 14);
            held.get(..length)
        }
        (BufferId::Ipv4Hdr, _) if ip.version == IpVersion::V4 => Some(ip.header),
        (BufferId::Ipv6Hdr, _) if ip.version == IpVersion::V6 => Some(ip.header),
        (BufferId::IpSrc | BufferId::IpDst, _) => {
            (held, length) = address(if buffer == BufferId::IpSrc { packet.src() } else { packet.dst() });
            held.get(..length)
        }
        _ => None,
    };
    bytes.is_some_and(|bytes| matches!(steps.run(Buffer { bytes, base: 0 }, work), Inspection::Match { .. }))
}

/// Of IPv4 (RFC 791, section 3.1).
fn has_ip_option(option: IpOption, packet: &Packet<'_>) -> bool {
    let wanted = match option {
        IpOption::Any => None,
        IpOption::EndOfList => Some(0),
        IpOption::NoOperation => Some(1),
        IpOption::RecordRoute => Some(7),
        IpOption::Timestamp => Some(68),
        IpOption::Security => Some(130),
        IpOption::LooseSourceRoute => Some(131),
        IpOption::ExtendedSecurity => Some(133),
        IpOption::StreamId => Some(136),
        IpOption::StrictSourceRoute => Some(137),
        IpOption::RouterAlert => Some(148),
    };
    let mut rest = match packet.ip.version {
        IpVersion::V4 => packet.ip.header.get(20..).unwrap_or_default(),
        IpVersion::V6 => &[],
    };
    while let Some((kind, behind)) = rest.split_first() {
        if wanted.is_none_or(|wanted| wanted == *kind) {
            return true;
        }
        rest = match kind {
            0 => &[],
            1 => behind,
            // The length counts the two bytes before it.
            _ => behind.first().filter(|length| **length >= 2).and_then(|length| rest.get(usize::from(*length)..)).unwrap_or_default(),
        };
    }
    false
}

/// The numbers of a field that the packet or its flow has, each tested for itself.
pub(crate) fn number_holds(test: &IntegerTest, packet: &Packet<'_>, flow: Option<&Flow<FlowState>>, now: Timestamp) -> bool {
    let options = || packet.tcp().map(|tcp| tcp.options);
    let of_flow = |count: fn(&Flow<FlowState>) -> [u64; 2]| {
        flow.is_some_and(|flow| {
            let [server, client] = count(flow);
            match test.towards {
                Some(Towards::ToServer) => test.test.matches(server),
                Some(Towards::ToClient) => test.test.matches(client),
                Some(Towards::Both) => test.test.matches(server) && test.test.matches(client),
                Some(Towards::Either) | None => test.test.matches(server) || test.test.matches(client),
            }
        })
    };
    let found = match test.field {
        Field::TcpMss => options().and_then(|options| options.mss).map(u64::from),
        Field::TcpWscale => options().and_then(|options| options.window_scale).map(u64::from),
        // Packet too big (RFC 4443, section 3.2).
        Field::Icmpv6Mtu => match &packet.transport {
            Transport::Icmpv6(icmp) if icmp.kind == 2 => icmp.body.first_chunk::<4>().map(|bytes| u64::from(u32::from_be_bytes(*bytes))),
            _ => None,
        },
        Field::VlanId => {
            let ids: Vec<u64> = packet.vlan.as_slice().iter().map(|id| u64::from(*id)).collect();
            return !ids.is_empty() && numbers_hold(test, &ids);
        }
        Field::VlanLayers => Some(packet.vlan.as_slice().len() as u64),
        Field::FlowAge => flow.map(|flow| now.since(flow.start) / 1_000_000_000),
        Field::FlowBytesToclient => flow.map(|flow| flow.to_client.bytes),
        Field::FlowBytesToserver => flow.map(|flow| flow.to_server.bytes),
        Field::FlowPktsToclient => flow.map(|flow| flow.to_client.packets),
        Field::FlowPktsToserver => flow.map(|flow| flow.to_server.packets),
        Field::FlowBytes => return of_flow(|flow| [flow.to_server.bytes, flow.to_client.bytes]),
        Field::FlowPkts => return of_flow(|flow| [flow.to_server.packets, flow.to_client.packets]),
        Field::IgmpType => match packet.transport {
            Transport::Igmp { kind, .. } => Some(u64::from(kind)),
            _ => None,
        },
        Field::SctpVtag => match packet.transport {
            Transport::Sctp { verification_tag, .. } => Some(u64::from(verification_tag)),
            _ => None,
        },
        Field::SctpChunkCnt if matches!(packet.transport, Transport::Sctp { .. }) => Some(chunks(packet.payload).count() as u64),
        Field::SctpChunkType if matches!(packet.transport, Transport::Sctp { .. }) => {
            let kinds: Vec<u64> = chunks(packet.payload).map(|(kind, _)| u64::from(kind)).collect();
            return numbers_hold(test, &kinds);
        }
        _ => None,
    };
    found.is_some_and(|found| numbers_hold(test, &[found]))
}

/// Types and values of the chunks of an SCTP packet (RFC 9260, section 3.2); each is padded to four bytes.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, _, high, low], _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let chunk = (kind, rest.get(4..length.min(rest.len())).unwrap_or_default());
        // One that says less than its own header is the last.
        rest = if length < 4 { &[] } else { rest.get(length.next_multiple_of(4)..).unwrap_or_default() };
        Some(chunk)
    })
}

fn flags_match(test: TcpFlagsTest, flags: u8) -> bool {
    bits_match(test.mode, flags & !test.ignored, test.value & !test.ignored)
}

const fn bits_match(mode: BitsMode, set: u8, value: u8) -> bool {
    match mode {
        BitsMode::Exact => set == value,
        BitsMode::All => set & value == value,
        BitsMode::Any => set & value != 0,
        BitsMode::Not => set & value != value,
    }
}

fn related<T: Ord>(relation: Relation, found: T, value: T) -> bool {
    match relation {
        Relation::Equal => found == value,
        Relation::NotEqual => found != value,
        Relation::Less => found < value,
        Relation::Greater => found > value,
    }
}
