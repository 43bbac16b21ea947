//! What is no packet that can be judged: frames without IP, and what cannot be read or is thrown away.

use super::*;

impl Judge {
    pub(super) fn malformed(&mut self, now: Timestamp, meta: &PacketMeta, malformed: &Malformed) -> Outcome {
        if self.config.anomalies {
            for event in malformed.events.iter() {
                self.anomaly(now, meta, None, Anomaly::Decode(event));
            }
        }
        let ends = malformed.ip.map(|(from, to, _)| ((from, 0, meta.home.source), (to, 0, meta.home.destination)));
        let findings = Findings { decode: malformed.events, stream: &[], app: &[] };
        let view = FrameView { ether: None, is_arp: false, findings, ends };
        let decision = self.frame_rules(now, meta, &view, malformed.ip.map_or(0, |(_, _, proto)| proto));
        Outcome { rule: decision.rule, ..Outcome::of(verdict_of(Fault::Malformed, &self.config)) }
    }

    /// A frame that carries no IP.
    pub(super) fn frame(&mut self, now: Timestamp, meta: &PacketMeta, what: Frame, ether: Option<&Ether>) -> Outcome {
        if self.rules.of_frames().is_empty() {
            return Outcome::of(Verdict::Accept);
        }
        let view = FrameView { ether, is_arp: what == Frame::Arp, findings: Findings::default(), ends: None };
        let decision = self.frame_rules(now, meta, &view, 0);
        Outcome { rule: decision.rule, ..Outcome::of(decision.verdict) }
    }

    fn frame_rules(&mut self, now: Timestamp, meta: &PacketMeta, view: &FrameView<'_>, proto: u8) -> Decision {
        const NOWHERE: End = (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0, false);
        let (from, to) = view.ends.unwrap_or((NOWHERE, NOWHERE));
        let end = |end: End| Endpoint { addr: end.0, port: 0 };
        let key = FlowKey { id: 0, proto, src: end(from), dst: end(to) };
        self.scratch.begin(self.rules.len());
        inspect_frame(&self.rules, view, &mut self.scratch);
        self.decide(Place { now, meta, key, dir: None }, None, None, from, to)
    }

    /// What else was found of a packet that is thrown away, or that its fragments have shown: rules that ask for findings tell of it.
    pub(super) fn found(&mut self, now: Timestamp, meta: &PacketMeta, packet: &Packet<'_>, beside: Events) {
        if self.rules.by_finding().is_empty() {
            return;
        }
        let tuple = Tuple::of(meta.zone, packet);
        let key = FlowKey { id: 0, proto: tuple.proto, src: tuple.src, dst: tuple.dst };
        self.key.get_or_insert(key);
        let (from, to) = ((packet.src(), tuple.src.port, meta.home.source), (packet.dst(), tuple.dst.port, meta.home.destination));
        self.scratch.begin(self.rules.len());
        // The packet's own were told of with it, unless a checksum is what is wrong.
        let decode = if beside.is_empty() { packet.events } else { beside };
        let findings = Findings { decode, stream: &[], app: &[] };
        let view = PacketView { packet, from, to, dir: None, in_stream: false, first_in_direction: false, findings };
        inspect_findings(&self.rules, &self.config, &view, &mut self.scratch, &mut self.stats);
        self.decide(Place { now, meta, key, dir: None }, None, None, from, to);
    }
}
