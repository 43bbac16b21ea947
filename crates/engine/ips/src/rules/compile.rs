//! One rule made ready to run, or refused by name: nothing is loaded with less than it says.

use std::collections::BTreeSet;

use bulkhead_rules::condition::TcpSessionState;

use super::*;
use crate::raised::{raised, right_checksum};
use crate::sets::{IprepAsked, Sets};

/// Order of judgement: action, flow bits, priority, order of the files.
pub(super) type Turn = (u8, u8, u8, usize);

pub(super) fn turn(rule: &Compiled, index: usize, order: ActionOrder) -> Turn {
    let action = order.rank(rule.info.action);
    let reads = |operation: FlowbitsOperation| matches!(operation, FlowbitsOperation::IsSet | FlowbitsOperation::IsNotSet);
    let of_hosts = |writes: bool| rule.hostbits.iter().any(|bit| bit.operation.writes() == writes);
    let of_tx = |writes: bool| rule.txbits.iter().any(|bit| bit.operation.writes() == writes);
    let read = rule.flowbits.iter().any(|bits| reads(bits.operation)) || of_hosts(false) || of_tx(false);
    let write = rule.flowbits.iter().any(|bits| !reads(bits.operation)) || of_hosts(true) || of_tx(true);
    let bits = match (write, read) {
        (true, false) => 0,
        (true, true) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    (action, bits, rule.info.priority, index)
}

/// What many rules say in the same words, kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    addresses: BTreeSet<Arc<AddressSet>>,
    ports: BTreeSet<Arc<PortSet>>,
    texts: BTreeSet<Arc<str>>,
}

impl Shared {
    fn text(&mut self, text: &str) -> Arc<str> {
        match self.texts.get(text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                self.texts.insert(Arc::clone(&new));
                new
            }
        }
    }
}

fn share<T: Ord>(known: &mut BTreeSet<Arc<T>>, value: T) -> Arc<T> {
    match known.get(&value) {
        Some(known) => Arc::clone(known),
        None => {
            let new = Arc::new(value);
            known.insert(Arc::clone(&new));
            new
        }
    }
}

pub(super) fn compile_rule(
    file: &str,
    rule: &Rule,
    variables: &Variables,
    classification: &Classification,
    sets: &mut Sets<'_>,
    shared: &mut Shared,
) -> Result<(Compiled, Option<TxRule>), (Code, String)> {
    let header = &rule.header;
    let signature = &rule.signature;
    let variable = |error: bulkhead_rules::variables::VariableError| (error.code(), error.to_string());
    if let Some(reason) = refused(rule) {
        return Err(reason);
    }
    let unbound = |message: String| (Code::ValueUnsupported, message);
    let mut tx = TxRule::new(rule)?;
    tx.as_mut().map_or(Ok(()), |tx| tx.bind(sets)).map_err(unbound)?;
    // Of a rule on transactions, the payload is one of their tests.
    let payload = signature.buffers.iter().filter(|_| tx.is_none()).find(|list| list.buffer == BufferName::Payload);
    let matches: &[Match] = payload.map_or(&[], |list| &list.matches);
    let decoded = decoded(signature).map_or(&[][..], |list| &list.matches);
    let mut steps = Steps::with(matches, decoded, &[]).map_err(|message| (Code::PcreUnsupported, message))?;
    steps.bind(sets).map_err(unbound)?;
    let mut ipreps = Vec::new();
    for condition in &signature.conditions {
        if let Condition::Iprep(iprep) = condition {
            ipreps.push(IprepAsked::new(iprep, sets.reputation()).map_err(unbound)?);
        }
    }
    let mut looks_for_faults = false;
    for condition in &signature.conditions {
        if let Condition::Asn1(asn1) = condition {
            steps = steps.then_asn1(*asn1);
            looks_for_faults = true;
        }
    }
    let class = signature.classtype.as_deref().and_then(|name| classification.class(name));
    let info = RuleInfo {
        gid: signature.gid,
        sid: signature.sid,
        rev: signature.rev,
        msg: signature.msg.as_str().into(),
        action: header.action,
        category: shared.text(class.map_or("", |class| &class.description)),
        classtype: signature.classtype.as_deref().map(|name| shared.text(name)),
        priority: signature.priority.unwrap_or(class.map_or(PRIORITY_DEFAULT, |class| class.priority)),
        references: Pairs::new(&signature.references),
        metadata: Pairs::new(&signature.metadata),
        source: shared.text(file),
        line: rule.span.line,
    };
    let has = |word: FlowWord| signature.flow.contains(&word);
    let flow = FlowTest {
        needs_flow: signature.flow.iter().any(|word| !matches!(word, FlowWord::Stateless | FlowWord::OnlyFrag | FlowWord::NoFrag)),
        established: match (has(FlowWord::Established), has(FlowWord::NotEstablished)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        direction: if has(FlowWord::ToServer) || has(FlowWord::FromClient) {
            Some(Direction::ToServer)
        } else if has(FlowWord::ToClient) || has(FlowWord::FromServer) {
            Some(Direction::ToClient)
        } else {
            None
        },
        fragmented: match (has(FlowWord::OnlyFrag), has(FlowWord::NoFrag)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        start: header.hook.as_deref() == Some("flow_start"),
    };
    // Which of packet and stream, as `SigValidate...` decides it: packet keywords force packets; contents without
    // them go to the stream, and to packets too when they have a position.
    let tcp = match header.protocol {
        Protocol::Tcp | Protocol::TcpStream | Protocol::Ip | Protocol::Ipv4 | Protocol::Ipv6 => true,
        Protocol::App(app) => runs_over(app, 6),
        _ => false,
    };
    let stream_sizes: Vec<(StreamEnd, NumberTest)> = signature
        .conditions
        .iter()
        .filter_map(|condition| match condition {
            Condition::StreamSize { end, test } => Some((*end, *test)),
            // Refused above.
            _ => None,
        })
        .collect();
    let mut headers = header_lists(signature)?;
    for (_, steps) in &mut headers {
        steps.bind(sets).map_err(unbound)?;
    }
    let integers: Vec<IntegerTest> = signature.conditions.iter().filter_map(number_of_packet).cloned().collect();
    let ip_options: Vec<IpOption> = signature
        .conditions
        .iter()
        .filter_map(|condition| if let Condition::IpOption(option) = condition { Some(*option) } else { None })
        .collect();
    let raised: Vec<Raised> = signature.conditions.iter().filter_map(raised).collect();
    let right_checksums: Vec<Layer> = signature.conditions.iter().filter_map(right_checksum).collect();
    let needs_packet = !stream_sizes.is_empty()
        || looks_for_faults
        || !raised.is_empty()
        || !right_checksums.is_empty()
        || flow.start
        || !headers.is_empty()
        || !integers.is_empty()
        || !ip_options.is_empty()
        || header.protocol == Protocol::TcpPacket
        || has(FlowWord::NoStream)
        || signature.packet.iter().any(forces_packet);
    let only_stream = has(FlowWord::OnlyStream) || header.protocol == Protocol::TcpStream;
    let positioned = matches.iter().any(
        |found| matches!(found, Match::Content(content) if content.offset.is_some() || content.depth.is_some() || content.starts_with),
    );
    let on_stream = tcp && !steps.is_empty() && (only_stream || !needs_packet);
    let on_packet = tx.is_none() && !only_stream && (!on_stream || positioned);
    let source_ports = share(&mut shared.ports, variables.port_set(&header.source_ports).map_err(variable)?);
    let destination_ports = share(&mut shared.ports, variables.port_set(&header.destination_ports).map_err(variable)?);
    let ports_matter =
        matches!(header.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp) && !(source_ports.is_any() && destination_ports.is_any());
    let ip_only = steps.is_empty()
        && signature.flow.is_empty()
        && signature.packet.iter().all(|test| matches!(test, PacketTest::IpProto { .. }))
        && signature.flowbits.iter().all(|bits| bits.operation == FlowbitsOperation::Set)
        && signature.conditions.iter().all(|condition| matches!(condition, Condition::Iprep(_)))
        && !signature.buffers.iter().any(|list| matches!(list.buffer, BufferName::Named(_)))
        && signature.effects.is_empty()
        && signature.apps.is_empty()
        && tx.is_none()
        && !flow.start
        && !matches!(header.protocol, Protocol::Other(_))
        && !ports_matter
        && !matches!(header.protocol, Protocol::TcpPacket | Protocol::TcpStream);
    let asked = asked_app(signature)?;
    let once_app =
        !signature.conditions.is_empty() && tx.is_none() && steps.is_empty() && signature.packet.is_empty() && asked.mask != u64::MAX;
    let compiled = Compiled {
        apps: apps_of(&signature.apps) & asked.mask,
        before_app: asked.unknown,
        once_app,
        bypass: signature.effects.contains(&Effect::Bypass),
        tells: signature.effects.contains(&Effect::Alert),
        hostbits: signature
            .conditions
            .iter()
            .filter_map(HostBit::read)
            .chain(signature.effects.iter().filter_map(HostBit::written))
            .collect(),
        told_again: tx.as_ref().is_some_and(TxRule::is_told_again),
        in_each: tx.as_ref().is_some_and(TxRule::is_in_each),
        tx_direction: tx.as_ref().filter(|tx| !tx.is_in_each()).and_then(TxRule::direction),
        of_client: header.direction == bulkhead_rules::Direction::Transaction,
        txbits: TxBit::all(signature),
        info: Arc::new(info),
        protocol: header.protocol,
        source: share(&mut shared.addresses, variables.address_set(&header.source).map_err(variable)?),
        destination: share(&mut shared.addresses, variables.address_set(&header.destination).map_err(variable)?),
        source_ports,
        destination_ports,
        both_ways: header.direction == bulkhead_rules::Direction::Both,
        flow,
        packet: signature.packet.clone(),
        headers,
        integers,
        ip_options,
        ipreps,
        store: signature.effects.iter().find_map(|effect| match effect {
            Effect::FileStore { towards, scope } => Some((*towards, *scope)),
            _ => None,
        }),
        quiets: signature.effects.iter().find_map(|effect| match effect {
            Effect::DisableLogging(scope) => Some(*scope),
            _ => None,
        }),
        sessions: signature.conditions.iter().filter_map(sessions).collect(),
        raised,
        right_checksums,
        stream_sizes,
        steps,
        flowbits: signature.flowbits.iter().map(flowbits_step).collect(),
        flowints: flowint_steps(signature),
        noalert: signature.noalert || header.action == Action::Config,
        thresholds: signature.thresholds.clone(),
        rate_filter: signature.rate_filter,
        suppressions: signature
            .suppressions
            .iter()
            .map(|(side, addresses)| variables.address_set(addresses).map(|set| (*side, set)))
            .collect::<Result<_, _>>()
            .map_err(variable)?,
        on_packet,
        on_stream,
        ip_only,
        is_of_transactions: tx.is_some(),
    };
    Ok((compiled, tx))
}

/// What of a rule this engine cannot run: such a rule is not loaded rather than loaded with less than it says.
fn refused(rule: &Rule) -> Option<(Code, String)> {
    let (header, signature) = (&rule.header, &rule.signature);
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    let unbuilt = |name: &str| Some((Code::ProtocolUnsupported, format!("the protocol `{name}` is not supported yet")));
    match header.protocol {
        Protocol::App(app) if !is_parsed(app) => return unbuilt(app.name()),
        _ => {}
    }
    for list in &signature.buffers {
        match list.buffer {
            BufferName::Payload if list.transforms.is_empty() => {}
            BufferName::Payload => return keyword("transforms of the payload"),
            BufferName::Named(id) if is_of_packet(id) && list.transforms.is_empty() => {}
            BufferName::Named(id) if is_of_packet(id) => return keyword("transforms of a header"),
            // With the buffer in which it is decoded.
            BufferName::Named(BufferId::Base64Data) if decoded(signature).is_some() => {}
            BufferName::Named(BufferId::Base64Data) => return keyword("base64_data of two decodings"),
            // As far as they are known: `TxRule::new`.
            BufferName::Named(_) => continue,
            BufferName::Frame { .. } => return keyword("frame"),
        }
        if let Some(reason) = list.matches.iter().find_map(refused_match) {
            return Some(reason);
        }
    }
    if !signature.apps.is_empty() && !signature.apps.iter().any(|app| is_parsed(*app)) {
        return unbuilt(signature.apps[0].name());
    }
    let of_packet = |condition: &Condition| {
        matches!(condition, Condition::Asn1(_) | Condition::IpOption(_) | Condition::Checksum { .. })
            || raised(condition).is_some()
            || number_of_packet(condition).is_some()
    };
    let known = |condition: &Condition| of_packet(condition) || is_of_flow(condition) || is_of_transactions(condition);
    refused_beside_buffers(rule, known)
}

pub(crate) fn of_dce(found: &Match) -> bool {
    let base = match found {
        Match::ByteTest(test) => test.base,
        Match::ByteJump(jump) => jump.base,
        Match::ByteExtract(extract) => extract.base,
        Match::ByteMath(math) => math.base,
        _ => return false,
    };
    base == Base::Binary(Endian::Dce)
}

/// The same for one match, in whatever buffer.
pub(crate) fn refused_match(found: &Match) -> Option<(Code, String)> {
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    match found {
        Match::Content(content) if content.replace.is_some() => keyword("replace"),
        Match::Pcre(_) | Match::Content(_) | Match::IsDataAt(_) | Match::Bsize(_) => None,
        Match::ByteTest(_) | Match::ByteJump(_) | Match::ByteExtract(_) | Match::ByteMath(_) => None,
        Match::Base64Decode(_) | Match::Entropy(_) => None,
        Match::Dataset(_) | Match::Datarep(_) => None,
        Match::Absent { .. } => keyword("absent"),
    }
}

/// The same for what a rule asks beside its buffers. `known`: the conditions that the caller sees to.
pub(crate) fn refused_beside_buffers(rule: &Rule, known: impl Fn(&Condition) -> bool) -> Option<(Code, String)> {
    let (header, signature) = (&rule.header, &rule.signature);
    let keyword = |name: &str| Some((Code::KeywordUnsupported, format!("`{name}` is not supported yet")));
    // Those of an application are looked at with its conditions.
    let is_of_packets = |hook: &String| matches!(hook.as_str(), "flow_start" | "all") || matches!(header.protocol, Protocol::App(_));
    if let Some(hook) = header.hook.as_ref().filter(|hook| !is_of_packets(hook)) {
        return Some((Code::ValueUnsupported, format!("the hook `{hook}` is not supported yet")));
    }
    let known = |condition: &Condition| known(condition) || matches!(condition, Condition::Flowint(_));
    // A tag asks for logs of packets, of which there are none: it changes nothing of what is judged.
    let done = |effect: &Effect| {
        HostBit::written(effect).is_some()
            || TxBit::written(effect).is_some()
            || matches!(
                effect,
                Effect::Flowint(_) | Effect::FileStore { .. } | Effect::DisableLogging(_) | Effect::Tag(_) | Effect::Bypass | Effect::Alert
            )
    };
    let beyond = |body: &Body| match body {
        Body::Condition(condition) => !known(condition),
        Body::Effect(effect) => !done(effect),
        _ => false,
    };
    if let Some(option) = rule.options.iter().find(|option| beyond(&option.body)) {
        return keyword(option.keyword);
    }
    if !signature.conditions.iter().all(known) || !signature.effects.iter().all(done) {
        return keyword("a condition of the rule");
    }
    None
}

/// Conditions that the flow or its hosts answer, of whatever rule.
pub(crate) fn is_of_flow(condition: &Condition) -> bool {
    match condition {
        Condition::Flowint(_) | Condition::Hostbits(_) | Condition::Iprep(_) | Condition::StreamSize { .. } | Condition::TcpSession(_) => {
            true
        }
        Condition::Xbits(_) => true,
        Condition::AppLayerProtocol(test) => test.mode != AppLayerMode::Original,
        _ => false,
    }
}

/// Buffers that are headers of one packet.
pub(crate) const fn is_of_packet(buffer: BufferId) -> bool {
    matches!(
        buffer,
        BufferId::TcpHdr
            | BufferId::UdpHdr
            | BufferId::Icmpv4Hdr
            | BufferId::Icmpv6Hdr
            | BufferId::Ipv4Hdr
            | BufferId::Ipv6Hdr
            | BufferId::IgmpHdr
            | BufferId::EtherHdr
            | BufferId::SctpHdr
            | BufferId::SctpChunkData
            | BufferId::IpSrc
            | BufferId::IpDst
    )
}

fn header_lists(signature: &bulkhead_rules::Signature) -> Result<Vec<(BufferId, Steps)>, (Code, String)> {
    let mut all = Vec::new();
    for list in &signature.buffers {
        if let BufferName::Named(buffer) = list.buffer
            && is_of_packet(buffer)
        {
            all.push((buffer, Steps::new(&list.matches).map_err(|message| (Code::PcreUnsupported, message))?));
        }
    }
    Ok(all)
}

/// A number of a packet's headers or of its flow.
fn number_of_packet(condition: &Condition) -> Option<&IntegerTest> {
    use bulkhead_rules::Field;
    match condition {
        Condition::Integer(test) => matches!(
            test.field,
            Field::TcpMss
                | Field::TcpWscale
                | Field::Icmpv6Mtu
                | Field::VlanId
                | Field::VlanLayers
                | Field::FlowAge
                | Field::FlowBytesToclient
                | Field::FlowBytesToserver
                | Field::FlowPktsToclient
                | Field::FlowPktsToserver
                | Field::FlowBytes
                | Field::FlowPkts
                | Field::IgmpType
                | Field::SctpChunkCnt
                | Field::SctpChunkType
                | Field::SctpVtag
        )
        .then_some(test),
        _ => None,
    }
}

/// What `base64_data` is asked, when there is one decoding that it can be of.
pub(crate) fn decoded(signature: &bulkhead_rules::Signature) -> Option<&bulkhead_rules::BufferMatches> {
    let decodes = |found: &&Match| matches!(found, Match::Base64Decode(_));
    let decodings = signature.buffers.iter().flat_map(|list| &list.matches).filter(decodes).count();
    let mut all = signature.buffers.iter().filter(|list| list.buffer == BufferName::Named(BufferId::Base64Data));
    all.next().filter(|list| decodings == 1 && list.transforms.is_empty() && all.next().is_none())
}

/// What `app-layer-protocol` asks: a bit for each protocol that may be, and [`NO_APP`].
struct AskedApp {
    mask: u64,
    unknown: bool,
}

/// The bit of a flow whose protocol will never be known.
pub(crate) const NO_APP: u64 = 1 << 63;

/// The bit of no protocol.
const NEVER_AN_APP: u64 = 1 << 62;

fn asked_app(signature: &bulkhead_rules::Signature) -> Result<AskedApp, (Code, String)> {
    let mut asked = AskedApp { mask: u64::MAX, unknown: false };
    for condition in &signature.conditions {
        let Condition::AppLayerProtocol(test) = condition else { continue };
        if test.protocols.contains(&Recognised::Unknown) {
            if test.protocols.len() > 1 {
                return Err((Code::ValueUnsupported, "`app-layer-protocol` with unknown and others is not supported yet".to_owned()));
            }
            if test.negated {
                // Whatever is known of it, and be it that it is none that is known here.
                asked.mask &= !NEVER_AN_APP;
            } else {
                asked.unknown = true;
            }
            continue;
        }
        let bits = test.protocols.iter().fold(0, |bits, one| {
            bits | match one {
                Recognised::As(app) if test.exact => crate::transaction::bit(*app),
                Recognised::As(app) => apps_of(&[*app]),
                Recognised::Failed => NO_APP,
                Recognised::Unknown => 0,
            }
        });
        asked.mask &= if test.negated { !bits } else { bits };
    }
    Ok(asked)
}

/// Keywords that look at one packet. `ip_proto` does not, in Suricata either.
const fn forces_packet(test: &PacketTest) -> bool {
    !matches!(test, PacketTest::IpProto { .. })
}

fn sessions(condition: &Condition) -> Option<Vec<TcpSessionState>> {
    match condition {
        Condition::TcpSession(states) => Some(states.clone()),
        _ => None,
    }
}

fn flowbits_step(bits: &Flowbits) -> FlowbitsStep {
    FlowbitsStep { operation: bits.operation, names: bits.names.iter().map(|name| name_hash(name)).collect() }
}

fn flowint_steps(signature: &bulkhead_rules::Signature) -> Vec<FlowintStep> {
    let reads =
        signature.conditions.iter().filter_map(|condition| if let Condition::Flowint(test) = condition { Some(test) } else { None });
    let writes = signature.effects.iter().filter_map(|effect| if let Effect::Flowint(write) = effect { Some(write) } else { None });
    let step = |flowint: &Flowint| {
        use FlowintOperation as Of;
        let other = match &flowint.operation {
            Of::Add(value) | Of::Subtract(value) | Of::Set(value) | Of::Less(value) | Of::LessOrEqual(value) => Some(value),
            Of::Equal(value) | Of::NotEqual(value) | Of::GreaterOrEqual(value) | Of::Greater(value) => Some(value),
            Of::IsSet | Of::IsNotSet => None,
        };
        let other = other.and_then(|value| if let FlowintValue::Name(name) = value { Some(name_hash(name)) } else { None });
        FlowintStep { name: name_hash(&flowint.name), operation: flowint.operation.clone(), other }
    };
    reads.chain(writes).map(step).collect()
}

/// FNV-1a. Names are the rule authors' own, not hostile input.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(super) fn diagnostic(rule: &Rule, code: Code, message: String) -> Diagnostic {
    Diagnostic {
        code,
        severity: code.severity(),
        span: rule.span,
        sid: Some(rule.signature.sid),
        message,
        label: code.label(),
        help: None,
        fix: None,
    }
}
